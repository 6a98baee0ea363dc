//! What an exchange has reserved: given back when it is dropped, settled when its usage is known.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use schemas::record::{Cost, Usage};
use uuid::Uuid;

use super::rule::{Rule, Went};
use super::store::Settle;
use super::{Counters, Hub};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const WARNING: HeaderName = HeaderName::from_static("x-affidavit-quota-warning");

/// How many rules an answer tells of.
const MAX_SHOWN: usize = 8;

/// What one counter of one rule showed, with this exchange.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) rule: Arc<Rule>,
    pub(crate) used: u64,
    /// Seconds until as much again fits, or where it does until its stretch ends.
    pub(crate) reset_s: Option<i64>,
    /// The length of its stretch.
    pub(crate) length_s: Option<i64>,
    /// Milliseconds since 1970.
    pub(crate) until: Option<i64>,
}

impl Shown {
    fn remaining(&self) -> u64 {
        self.rule.limit.saturating_sub(self.used)
    }

    fn ratio(&self) -> f64 {
        ratio(self.used, self.rule.limit)
    }
}

/// The share of a limit; a limit of nothing is used up.
pub(crate) fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 1.0 } else { used as f64 / limit as f64 }
}

/// One counter that was taken from.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) rule: Arc<Rule>,
    pub(crate) settle: Settle,
    /// When its stretch ends, in milliseconds since 1970.
    pub(crate) until: Option<i64>,
    /// What counted of the stretch before.
    pub(crate) before: u64,
}

/// What an exchange has reserved of all rules that fit it. Dropped, all of it is given back.
pub(crate) struct Reservation {
    hub: Arc<Hub>,
    id: Uuid,
    counters: Counters,
    parts: Vec<Part>,
    shown: Vec<Shown>,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("id", &self.id)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Reservation {
    pub(super) fn new(
        hub: Arc<Hub>,
        id: Uuid,
        counters: Counters,
        parts: Vec<Part>,
        shown: Vec<Shown>,
    ) -> Self {
        Self { hub, id, counters, parts, shown }
    }

    /// Puts the truth in the place of what was reserved. The future needs not be waited for.
    pub(crate) fn settle(
        mut self,
        usage: &Usage,
        cost: Option<&Cost>,
        went: Went,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut parts = std::mem::take(&mut self.parts);
        for part in &mut parts {
            part.settle.spent = self.spent(part, usage, cost, went);
        }
        let (hub, id, counters) = (Arc::clone(&self.hub), self.id, self.counters.clone());
        async move { hub.settle(id, counters, parts).await }
    }

    /// Charges what an attempt used that another one follows. What is reserved stays so, for that other one, and so does the
    /// request: it is one, however often it is sent. The future needs not be waited for.
    pub(crate) fn charge(
        &self,
        usage: &Usage,
        cost: Option<&Cost>,
        went: Went,
    ) -> impl Future<Output = ()> + Send + use<> {
        let used = self.parts.iter().filter(|part| part.rule.counts_use()).map(|part| {
            let spent = self.spent(part, usage, cost, went);
            Part { settle: Settle { reserved: 0, spent, ..part.settle.clone() }, ..part.clone() }
        });
        let parts: Vec<Part> = used.filter(|part| part.settle.spent > 0).collect();
        let (hub, counters) = (Arc::clone(&self.hub), self.counters.clone());
        async move {
            if !parts.is_empty() {
                hub.settle(Uuid::now_v7(), counters, parts).await;
            }
        }
    }

    /// What a part is charged: what is reserved where nobody knows.
    fn spent(&self, part: &Part, usage: &Usage, cost: Option<&Cost>, went: Went) -> u64 {
        let reserved = part.settle.reserved;
        part.rule.charges(usage, cost, went, reserved).unwrap_or_else(|| {
            self.hub.telemetry.estimated(part.rule.name());
            reserved
        })
    }

    /// Gives all of it back, and waits for that.
    pub(crate) async fn give_back(mut self) {
        let parts = std::mem::take(&mut self.parts);
        let (hub, id, counters) = (Arc::clone(&self.hub), self.id, self.counters.clone());
        // A caller that leaves meanwhile leaves nothing taken.
        let settled = tokio::spawn(async move { hub.settle(id, counters, parts).await });
        drop(settled.await);
    }
}

/// Says in an answer's head what is left, by all that is reserved for it.
pub(crate) fn show_left<'r>(
    reservations: impl IntoIterator<Item = &'r Reservation>,
    headers: &mut HeaderMap,
) {
    let shown: Vec<&Shown> = reservations.into_iter().flat_map(|reservation| &reservation.shown).collect();
    show(&shown, headers);
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return;
        }
        match &self.counters {
            Counters::Local(_) => self.hub.settle_local(&self.counters, &parts),
            Counters::Shared(_) => {
                let (hub, id, counters) = (Arc::clone(&self.hub), self.id, self.counters.clone());
                // Without a runtime the process ends, and its leases with it.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move { hub.settle(id, counters, parts).await });
                }
            }
        }
    }
}

/// The headers of an answer: of the rule that has the smallest share left, and all of them in the form of the IETF's draft.
pub(crate) fn show(shown: &[&Shown], headers: &mut HeaderMap) {
    let told = || shown.iter().copied().filter(|shown| shown.rule.refuses());
    let Some(tightest) = told().max_by(|a, b| a.ratio().total_cmp(&b.ratio())) else { return };
    // What a provider says under these names is of its own limits: nobody could tell it from what stands beside it.
    for name in [LIMIT, REMAINING, RESET, POLICY, LEFT, WARNING] {
        headers.remove(name);
    }
    let mut put = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    put(LIMIT, tightest.rule.show(tightest.rule.limit));
    put(REMAINING, tightest.rule.show(tightest.remaining()));
    if let Some(reset) = tightest.reset_s {
        put(RESET, reset.to_string());
    }
    let list =
        |one: &dyn Fn(&Shown) -> String| told().take(MAX_SHOWN).map(one).collect::<Vec<_>>().join(", ");
    put(
        POLICY,
        list(&|shown| {
            let window = shown.length_s.map(|s| format!(";w={s}")).unwrap_or_default();
            format!("\"{}\";q={}{window}{}", shown.rule.name(), whole(shown, shown.rule.limit), unit(shown))
        }),
    );
    put(
        LEFT,
        list(&|shown| {
            let reset = shown.reset_s.map(|s| format!(";t={s}")).unwrap_or_default();
            format!("\"{}\";r={}{reset}", shown.rule.name(), whole(shown, shown.remaining()))
        }),
    );
    let warned = |shown: &&Shown| {
        let first = shown.rule.typed.warn_at.first().map(|ratio| f64::from(ratio.millionths()) / 1e6);
        first.is_some_and(|first| shown.ratio() >= first)
    };
    let warnings: Vec<String> = told()
        .filter(warned)
        .take(MAX_SHOWN)
        .map(|shown| format!("\"{}\";used={:.2}", shown.rule.name(), shown.ratio().min(9.99)))
        .collect();
    if !warnings.is_empty() {
        put(WARNING, warnings.join(", "));
    }
}

/// A structured field has whole numbers of at most 15 digits: money in cents, rounded down.
fn whole(shown: &Shown, units: u64) -> u64 {
    let number = if shown.rule.counts() == "money" { units / (crate::config::NANO / 100) } else { units };
    number.min(999_999_999_999_999)
}

fn unit(shown: &Shown) -> &'static str {
    match shown.rule.counts() {
        "requests" => "",
        "concurrency" => ";qu=\"concurrent-requests\"",
        "money" => ";qu=\"cents\"",
        _ => ";qu=\"tokens\"",
    }
}
