//! How much: quotas of requests, tokens and money.
//!
//! A request reserves what it may take of every rule that fits it, all or nothing, before its intent; what it took in truth is
//! put in that place once it is known. So what is spent and what is reserved are together never over a limit, however many
//! ask at once: one step under one lock ([`local`]), or one script on a Redis ([`shared`]).

mod estimate;
mod expression;
mod link;
mod local;
mod refused;
mod reservation;
mod rule;
mod server;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dialects::Operation;
use dialects::operation::Tokens;
use policies::decimal::Decimal;
use policies::policy::{Output, output};
use policies::price::PriceBook;
use rustls::ClientConfig;
use schemas::Identifier;
use schemas::record::{Asked, Cost, Usage, UsageRole, UsageSource};
use uuid::Uuid;

pub(crate) use estimate::{input_tokens, input_tokens_of, input_tokens_unread, writes_cache};
pub(crate) use expression::Expression;
use local::Local;
pub(crate) use refused::Full;
use reservation::{Part, Shown, ratio};
pub(crate) use reservation::{Reservation, show_left};
use rule::{Estimate, Rule};
pub(crate) use rule::{MAX_COUNTED_GROUPS, Went, Who};
pub(crate) use server::Passwords;
use shared::{Shared, Waiting};
use store::{Settle, Take, Taken, Used};

use crate::config::{self, WhenDown};
use crate::telemetry::QuotaTelemetry;

/// How often gauges are set and counters swept.
const TICK: Duration = Duration::from_secs(5);

/// How long the share of a rule without a stretch is shown.
const PEAK_MS: i64 = 15_000;

/// Which rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Those that ask for no target: once an exchange.
    Exchange,
    /// Those that do: once a try.
    Target,
}

impl Stage {
    fn takes(self, rule: &Rule) -> bool {
        match self {
            Self::Exchange => !rule.typed.is_of_target(),
            Self::Target => rule.typed.is_of_target(),
        }
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A rule has no room.
    Full(Box<Full>),
    /// The store does not answer, and nothing passes without it.
    Down,
}

/// Where an exchange is counted.
#[derive(Clone)]
enum Counters {
    Local(Arc<Local>),
    Shared(Arc<Shared>),
}

/// What outlives a reload.
struct Hub {
    local: Arc<Local>,
    shared: Option<Arc<Shared>>,
    waiting: Arc<Waiting>,
    telemetry: QuotaTelemetry,
    begun: AtomicBool,
}

/// The rules of one configuration, and their counters.
pub(crate) struct Quotas {
    rules: Arc<[Arc<Rule>]>,
    default_output: u64,
    shows: bool,
    hub: Arc<Hub>,
    begun: AtomicBool,
    /// Others are in their place: gauges are theirs. Locked while gauges are set.
    has_ended: Arc<Mutex<bool>>,
}

/// A request, as far as it is known before it goes on.
pub(crate) struct Request<'a> {
    pub(crate) who: Who<'a>,
    pub(crate) asked: &'a Asked,
    pub(crate) load: &'a Load,
    pub(crate) prices: Option<&'a PriceBook>,
    /// The provider's name in the price book.
    pub(crate) price_name: &'a str,
}

/// What goes to a provider, as far as it says what may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// As the provider calls it.
    pub(crate) operation: Operation,
    /// An estimate of its input.
    pub(crate) input_tokens: u64,
    /// The bound that it names.
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) choices: Option<i64>,
    /// It can be read in one way only.
    pub(crate) is_sound: bool,
    /// It asks for its input to be kept in a cache, which can cost more than input does.
    pub(crate) writes_cache: bool,
}

/// A rule that fits, and its stretch.
type Fitting = (Arc<Rule>, Option<window::Stretch>);

fn now_ms() -> i64 {
    crate::record::now_us() / 1000
}

impl Quotas {
    /// Rules of `config`. Counters of `before` go on, and its connection where the store is the same.
    pub(crate) fn new(
        config: &config::Quotas,
        passwords: Passwords,
        tls: Option<Arc<ClientConfig>>,
        before: Option<(&Self, bool)>,
        telemetry: &QuotaTelemetry,
    ) -> Self {
        let hub = match before {
            Some((before, true)) => Arc::clone(&before.hub),
            _ => {
                let redis = config.redis().zip(tls);
                let waiting = before.map(|(before, _)| Arc::clone(&before.hub.waiting));
                let waiting = waiting.unwrap_or_else(|| Arc::new(Waiting::new(telemetry)));
                let shared =
                    |(redis, tls)| Arc::new(Shared::new(redis, &passwords, tls, Arc::clone(&waiting)));
                Arc::new(Hub {
                    local: before.map_or_else(Arc::default, |(before, _)| Arc::clone(&before.hub.local)),
                    shared: redis.map(shared),
                    waiting,
                    telemetry: telemetry.clone(),
                    begun: AtomicBool::new(false),
                })
            }
        };
        let of_before = |name: &Identifier| {
            before.and_then(|(before, _)| before.rules.iter().find(|rule| rule.typed.name == *name))
        };
        let rule =
            |typed: &config::QuotaRule| Arc::new(Rule::after(typed, of_before(&typed.name).map(Arc::as_ref)));
        let rules: Arc<[_]> = config.rules.iter().map(rule).collect();
        for rule in rules.iter() {
            telemetry.expect(rule.name(), rule.refuses(), &rule.typed.warn_at);
        }
        let (default_output, shows) = (config.default_output, config.headers);
        Self { rules, default_output, shows, hub, begun: AtomicBool::new(false), has_ended: Arc::default() }
    }

    /// Begins what runs beside exchanges: the connection, leases, gauges. Inside the runtime.
    pub(crate) fn begin(&self) {
        if self.rules.is_empty() || self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let has_ended = Arc::clone(&self.has_ended);
        tokio::spawn(watch(Arc::downgrade(&self.rules), Arc::clone(&self.hub), has_ended));
        if self.hub.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(shared) = &self.hub.shared {
            tokio::spawn(link::Link::keep(Arc::downgrade(shared.link())));
            tokio::spawn(renew(Arc::downgrade(shared)));
        }
    }

    /// Its gauges are those of `next` from now on, and rules that are gone are shown no more.
    pub(crate) fn gives_way(&self, next: &Self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let stays = |rule: &Rule| next.rules.iter().any(|other| other.name() == rule.name());
        for rule in self.rules.iter().filter(|rule| !stays(rule)) {
            self.hub.telemetry.forget(rule.name(), &rule.typed.warn_at);
        }
        if next.rules.is_empty() || next.hub.shared.is_none() {
            self.hub.telemetry.up(None);
        }
    }

    /// True where a rule may fit: a body's tokens need no estimate otherwise.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Takes what a request may use of every rule that fits it, or nothing and says which rule has no room.
    pub(crate) async fn reserve(
        &self,
        request: &Request<'_>,
        stage: Stage,
    ) -> Result<Option<Reservation>, Refused> {
        let fitting: Vec<&Arc<Rule>> =
            self.rules.iter().filter(|rule| stage.takes(rule) && rule.fits(&request.who)).collect();
        if fitting.is_empty() {
            return Ok(None);
        }
        let estimate = self.estimate(request);
        let now = now_ms();
        let mut asked = Vec::new();
        let mut takes = Vec::new();
        for rule in fitting {
            let (stretch, some) = rule.takes(&request.who, rule.reserves(&estimate), now);
            asked.extend(some.iter().map(|_| (Arc::clone(rule), stretch)));
            takes.extend(some);
        }
        let id = Uuid::now_v7();
        let Some((counters, taken)) = self.take(id, &mut takes).await? else { return Ok(None) };
        let shown = |used: &[Used], with: bool| -> Vec<Shown> {
            let each = asked.iter().zip(&takes).zip(used);
            each.map(|(((rule, stretch), take), used)| {
                let all = used.all().saturating_add(if with { take.amount } else { 0 });
                let counts = (all.saturating_sub(used.before), used.before);
                let frees = |s| rule.window.frees_ms(s, now, counts, (take.amount, take.limit));
                Shown {
                    rule: Arc::clone(rule),
                    used: all,
                    reset_s: stretch.map(|s| frees(s).saturating_add(999) / 1000),
                    length_s: rule.window.seconds(*stretch),
                    until: stretch.map(|s| s.until),
                }
            })
            .collect()
        };
        match taken {
            Taken::None(index, used) => {
                let shown = shown(&used, false);
                let Some((((rule, stretch), take), seen)) = asked.iter().zip(&takes).zip(&used).nth(index)
                else {
                    return Err(Refused::Down);
                };
                self.hub.telemetry.full(rule.name(), true);
                let shown = if self.shows { shown } else { Vec::new() };
                let full = Full::new(Arc::clone(rule), *stretch, take, *seen, now, shown);
                Err(Refused::Full(Box::new(full)))
            }
            Taken::All(used) => {
                let shown = shown(&used, true);
                for ((shown, take), used) in shown.iter().zip(&takes).zip(&used) {
                    if !used.has_room(take) {
                        self.hub.telemetry.full(shown.rule.name(), false);
                    }
                    shown.rule.saw(shown.until, shown.used);
                    // What is under way is never settled: at most once in a minute it is told.
                    if shown.until.is_none() {
                        let minute = format!("{}:{}", take.key, now / 60_000);
                        self.hub.warn(&shown.rule, &minute, shown.used);
                    }
                }
                let part = |(index, ((asked, take), used)): (usize, ((Fitting, Take), Used))| Part {
                    until: asked.1.map(|stretch| stretch.until),
                    rule: asked.0,
                    before: used.before,
                    settle: take.settle(index + 1),
                };
                let parts = asked.into_iter().zip(takes).zip(used).enumerate().map(part).collect();
                let shown = if self.shows { shown } else { Vec::new() };
                Ok(Some(Reservation::new(Arc::clone(&self.hub), id, counters, parts, shown)))
            }
        }
    }

    /// Asks the store; `None` where the request passes uncounted.
    async fn take(&self, id: Uuid, takes: &mut [Take]) -> Result<Option<(Counters, Taken)>, Refused> {
        let local = |takes: &mut [Take]| {
            (Counters::Local(Arc::clone(&self.hub.local)), self.hub.local.reserve(takes))
        };
        let Some(shared) = &self.hub.shared else { return Ok(Some(local(takes))) };
        match shared.reserve(id, takes).await {
            Ok(taken) => Ok(Some((Counters::Shared(Arc::clone(shared)), taken))),
            Err(error) => {
                tracing::debug!(%error, "the store of quotas did not answer");
                self.hub.telemetry.down(shared.config.when_down);
                match shared.config.when_down {
                    // What only observes refuses nothing.
                    WhenDown::Closed if takes.iter().any(|take| take.refuses) => Err(Refused::Down),
                    WhenDown::Closed | WhenDown::Open => Ok(None),
                    WhenDown::Local => Ok(Some(local(takes))),
                }
            }
        }
    }

    fn estimate(&self, request: &Request<'_>) -> Estimate {
        if !may_use_tokens(request) {
            return Estimate { input: 0, output: 0, cost: None };
        }
        let load = request.load;
        let choices = load.choices.and_then(|n| u64::try_from(n).ok()).unwrap_or(1).max(1);
        let (input, output) = (load.input_tokens, self.output(request).saturating_mul(choices));
        let counts_money = self.rules.iter().any(|rule| rule.counts() == "money");
        let cost = if counts_money { cost(request, input, output) } else { None };
        Estimate { input, output, cost }
    }

    /// The most tokens that one answer may have.
    fn output(&self, request: &Request<'_>) -> u64 {
        let (asked, load) = (request.asked, request.load);
        let named = load.max_output_tokens.and_then(|n| u64::try_from(n).ok());
        let model = asked.sent_model.as_ref().or(asked.requested_model.as_ref());
        match output(load.operation.name(), model.map(Identifier::as_str)) {
            Output::None => 0,
            Output::Unbounded => self.default_output,
            // Whether what looks like a bound is one there, nobody knows.
            Output::Bounded if load.operation.is_other() || !load.is_sound => {
                named.map_or(self.default_output, |named| named.max(self.default_output))
            }
            Output::Bounded => named.unwrap_or(self.default_output),
        }
    }
}

/// Whether it may use tokens: what is not known may, but where it only reads or removes.
fn may_use_tokens(request: &Request<'_>) -> bool {
    let method = request.asked.method.as_ref().map(Identifier::as_str);
    let only_reads = || matches!(method, Some("GET" | "HEAD" | "OPTIONS" | "TRACE" | "DELETE"));
    let operation = request.load.operation;
    operation.tokens() == Tokens::Incurs && !(operation.is_other() && only_reads())
}

/// What an estimate costs at the prices of the model that is sent, else of the one that was asked for. Input that may be written
/// to a cache costs what the dearest of its classes does.
fn cost(request: &Request<'_>, input: u64, output: u64) -> Option<Cost> {
    let (asked, book) = (request.asked, request.prices?);
    let named = [&asked.sent_model, &asked.requested_model].into_iter().flatten();
    let models: Vec<&str> = named.map(Identifier::as_str).collect();
    let input = i64::try_from(input).ok();
    let plain = Usage {
        input_tokens: input,
        output_tokens: i64::try_from(output).ok(),
        ..Usage::of(UsageSource::Estimated, UsageRole::Incurred)
    };
    let written = [
        Usage { cache_write_5m_tokens: input, ..plain.clone() },
        Usage { cache_write_1h_tokens: input, ..plain.clone() },
    ];
    let usages = std::iter::once(plain).chain(written.into_iter().filter(|_| request.load.writes_cache));
    let price = |usage| book.price(&usage, request.price_name, &models, crate::record::now_us(), None).ok();
    usages.filter_map(price).max_by_key(|cost| Decimal::parse(&cost.total).map(Decimal::units))
}

impl Hub {
    async fn settle(&self, id: Uuid, counters: Counters, parts: Vec<Part>) {
        let Counters::Shared(shared) = &counters else { return self.settle_local(&counters, &parts) };
        let settles: Arc<[Settle]> = parts.iter().map(|part| part.settle.clone()).collect();
        match shared.settle(id, settles).await {
            Ok(used) => self.saw_all(&parts, &used),
            Err(error) => {
                tracing::warn!(%error, "a use of quotas could not be settled: it is not charged");
                self.telemetry.unsettled(1);
            }
        }
    }

    fn settle_local(&self, counters: &Counters, parts: &[Part]) {
        let Counters::Local(local) = counters else { return };
        let settles: Vec<Settle> = parts.iter().map(|part| part.settle.clone()).collect();
        let used = local.settle(&settles);
        self.saw_all(parts, &used);
    }

    fn saw_all(&self, parts: &[Part], used: &[Used]) {
        for (part, used) in parts.iter().zip(used) {
            part.rule.saw(part.until, used.all().saturating_add(part.before));
            if part.until.is_some() {
                self.warn(&part.rule, &part.settle.key, used.spent.saturating_add(part.before));
            }
        }
    }

    /// Warns where a counter has reached a share that was not told of it.
    fn warn(&self, rule: &Rule, counter: &str, used: u64) {
        let share = ratio(used, rule.limit);
        for at in rule.reached(counter, share) {
            tracing::warn!(rule = rule.name(), %at, used = format!("{share:.3}"), "a quota is nearly used");
            self.telemetry.warned(rule.name(), &at.to_string());
        }
    }
}

impl Rule {
    /// Notes the share of a counter.
    fn saw(&self, until: Option<i64>, used: u64) {
        let is = ratio(used, self.limit);
        let until = until.unwrap_or_else(|| now_ms() + PEAK_MS);
        let mut peak = self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        let has_ended = peak.0 <= now_ms();
        if has_ended || (until > peak.0 && self.typed.count != Some(config::Count::Concurrency)) {
            *peak = (until, is);
        } else if until >= peak.0 {
            *peak = (until, peak.1.max(is));
        }
    }
}

/// Sets the gauges of rules, and sweeps counters, until a reload puts others in their place.
async fn watch(rules: Weak<[Arc<Rule>]>, hub: Arc<Hub>, has_ended: Arc<Mutex<bool>>) {
    loop {
        {
            let Some(rules) = rules.upgrade() else { return };
            let has_ended = has_ended.lock().unwrap_or_else(PoisonError::into_inner);
            if *has_ended {
                return;
            }
            let now = now_ms();
            for rule in rules.iter() {
                let (until, share) = *rule.peak.lock().unwrap_or_else(PoisonError::into_inner);
                hub.telemetry.used(rule.name(), if until > now { share } else { 0.0 });
            }
            if let Some(shared) = &hub.shared {
                hub.telemetry.up(Some(shared.link().is_up()));
            }
        }
        hub.local.sweep(now_ms());
        tokio::time::sleep(TICK).await;
    }
}

/// Renews leases, until the store is nobody's any more.
async fn renew(shared: Weak<Shared>) {
    loop {
        let pause = {
            let Some(shared) = shared.upgrade() else { return };
            shared.renew().await;
            shared.renewal()
        };
        // Settlements that waited for the store go as soon as it is back.
        tokio::time::sleep(pause.min(TICK)).await;
    }
}
