//! A gateway of the quarter: three logs, a month each.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::keytable::KeyId;
use schemas::note::Signer as _;
use schemas::record::{
    Admin, Answered, Asked, Attributed, Body, Boot, Caller, Close, CloseReason, Config, ConfigReason,
    Decision, Encryption, End, Erasure, Gap, GapReason, Heartbeat, Intent, Outcome, Part, PartName,
    Predecessor, ProviderEnd, Refusal, Source, Timing, Verdict,
};
use schemas::trust::key_text;
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

use super::log::Log;
use super::planted::{Planted, Violation};
use super::registers::{CARDS, HEALTH, PROVIDERS, PURPOSES, SYSTEMS};
use super::traffic::{BOOK, Sort, Traffic};
use super::{BEGIN, DAY, GATEWAYS, HOUR, MINUTE, Plan, SECOND, name_of, signer};
use crate::Dice;

/// The configurations, in the order in which they took effect; the last was planted.
pub(super) const CONFIGURATIONS: [&str; 3] = [
    r#"{"deployment":"acme"}"#,
    r#"{"deployment":"acme","limits":"new"}"#,
    r#"{"deployment":"acme","limits":"own"}"#,
];
const POLICY: &[u8] = include_bytes!("../../../policies/examples/starter.yaml");
/// The keys that were issued and approved; the first is revoked in the middle of August.
pub(super) const KEYS: [&str; 4] = ["k-old", "k-chat", "k-code", "k-docs"];
/// A record at least that often: the bound is an hour.
const BEAT: i64 = 55 * MINUTE;
/// Weekday and weekend, by what share of a day's traffic they have; 2026-07-01 is a Wednesday.
const LOAD: [u64; 7] = [10, 10, 10, 2, 2, 10, 10];
/// The days on which months begin, and the end.
const MONTHS: [i64; 4] = [0, 31, 62, 92];

/// What a gateway did.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) done: Vec<(Violation, String)>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// An exchange that is not at its end.
struct Open {
    outcome: Outcome,
    violation: Option<Violation>,
}

struct Gateway<'a> {
    number: u64,
    planted: &'a Planted,
    plan: Plan,
    traffic: &'a Traffic,
    dice: Dice,
    log: Log,
    /// By the time at which they end.
    open: BTreeMap<(i64, u64), Open>,
    /// By the time at which they are done: the logs of later months hold some.
    erasures: BTreeMap<(i64, u64), Erasure>,
    encrypted: bool,
    policy: Sha256Hex,
    told: Told,
}

fn id(text: &str) -> Identifier {
    Identifier::new(text).expect("an identifier")
}

fn by(value: &str, source: Source) -> Option<Attributed> {
    Some(Attributed { value: id(value), source })
}

/// Writes all logs of a gateway.
pub(super) fn run(number: u64, store: &Path, plan: Plan, traffic: &Traffic, planted: &Planted) -> Told {
    let mut told = Told::default();
    let mut before: Option<Predecessor> = None;
    let mut erasures = BTreeMap::new();
    let counts = days(plan.exchanges.saturating_sub(number).div_ceil(GATEWAYS));
    let mut next = number;
    for month in 0..3 {
        let begin = BEGIN + MONTHS[month] * DAY + i64::from(month > 0) * SECOND;
        let epoch =
            jiff::Timestamp::from_microsecond(begin).expect("a time").strftime("%Y%m%dt%H%M%Sz").to_string();
        let origin =
            Origin::join("acme", &name_of(number), &format!("{epoch}-{:08x}", month + 1)).expect("an origin");
        let config = Sha256Hex::of(CONFIGURATIONS[0].as_bytes());
        let mut gateway = Gateway {
            number,
            planted,
            plan,
            traffic,
            dice: Dice::new(plan.seed ^ ((number << 8) | month as u64)),
            log: Log::new(store, origin, config, signer(number)),
            open: BTreeMap::new(),
            erasures,
            encrypted: !(plan.each > 0 && (number, month) == (2, 1)),
            policy: Sha256Hex::of(POLICY),
            told,
        };
        gateway.boot(begin, before.take());
        if (number, month) == (0, 0) {
            gateway.keys(begin + MINUTE);
        }
        for day in MONTHS[month]..MONTHS[month + 1] {
            gateway.day(day, begin, counts[usize::try_from(day).unwrap_or(0)], &mut next);
        }
        gateway.close(BEGIN + MONTHS[month + 1] * DAY);
        before = Some(gateway.log.as_predecessor());
        erasures = gateway.erasures;
        told = gateway.told;
        told.records += gateway.log.position();
        told.bytes += gateway.log.bytes;
    }
    told
}

/// How many exchanges each day has.
fn days(total: u64) -> Vec<u64> {
    let load: Vec<u64> = (0..usize::try_from(super::DAYS).unwrap_or(0)).map(|day| LOAD[day % 7]).collect();
    let sum: u64 = load.iter().sum();
    let mut until = 0;
    let mut given = 0;
    load.iter()
        .map(|load| {
            until += load;
            let count = total * until / sum - given;
            given += count;
            count
        })
        .collect()
}

impl Gateway<'_> {
    fn boot(&mut self, at: i64, predecessor: Option<Predecessor>) {
        self.log.reference(CONFIGURATIONS[0].as_bytes(), "application/json");
        let price_book = self.log.reference(BOOK, "text/csv");
        let policy = self.log.reference(POLICY, "application/yaml");
        self.log.push(
            at,
            Body::Boot(Boot {
                gateway_version: id("0.1.0"),
                binary_sha256: None,
                seal_key: key_text(&signer(self.number).public_key()),
                promise_key: None,
                heartbeat_bound_ms: HOUR / 1000,
                batch_age_ms: DAY / 1000,
                predecessor,
                encryption: if self.encrypted { Encryption::Aes256Gcm } else { Encryption::Off },
            }),
        );
        let (next, reason) = (self.log.config, ConfigReason::Start);
        let config = Config { next, reason, policy: Some(policy), price_book: Some(price_book) };
        self.log.push(at, Body::Config(config));
    }

    /// The keys are issued, and what is wrong with some.
    fn keys(&mut self, at: i64) {
        let issued = |object: &str, actor: Option<&str>| {
            Body::Admin(Admin { action: id("key_issued"), actor: actor.map(id), object: Some(id(object)) })
        };
        for key in KEYS {
            self.log.push(at, issued(key, Some("ann")));
        }
        if self.plan.each > 0 {
            self.log.push(at, issued("k-rogue", Some("ann")));
            self.log.push(at, issued("k-self", Some("ann")));
            self.log.push(at, issued("k-nobody", None));
        }
    }

    fn reload(&mut self, at: i64, configuration: &str) {
        let next = self.log.reference(configuration.as_bytes(), "application/json");
        let price_book = Some(Sha256Hex::of(BOOK));
        let config = Config { next, reason: ConfigReason::Reload, policy: Some(self.policy), price_book };
        self.log.push(at, Body::Config(config));
        self.log.config = next;
    }

    /// A day: its exchanges, what else is done on it, heartbeats where nothing else is, and a seal.
    fn day(&mut self, day: i64, begin: i64, exchanges: u64, next: &mut u64) {
        let start = (BEGIN + day * DAY).max(begin);
        let mut times: Vec<i64> = (0..exchanges).map(|_| self.moment(start)).collect();
        times.sort_unstable();
        for at in times {
            self.until(at);
            let number = *next;
            *next += GATEWAYS;
            self.exchange(number, at);
        }
        let evening = BEGIN + day * DAY + 22 * HOUR;
        self.until(evening);
        self.evening(day, evening);
        self.until(BEGIN + (day + 1) * DAY - MINUTE);
        self.log.seal();
    }

    /// A moment between six and twenty o'clock.
    fn moment(&mut self, start: i64) -> i64 {
        let span = u64::try_from(14 * HOUR).unwrap_or(1);
        start + 6 * HOUR + i64::try_from(self.dice.below(span)).unwrap_or(0)
    }

    /// What is done when traffic is low.
    fn evening(&mut self, day: i64, at: i64) {
        let planted = self.plan.each > 0;
        match (self.number, day) {
            (0, 80) if planted => self.reload(at, CONFIGURATIONS[2]),
            (_, 20) => self.reload(at, CONFIGURATIONS[1]),
            (0, 44) => {
                let admin =
                    Admin { action: id("key_revoked"), actor: Some(id("ann")), object: Some(id(KEYS[0])) };
                self.log.push(at, Body::Admin(admin));
            }
            (1, 41 | 51) if planted => {
                let gap = Gap { reason: GapReason::Unrecorded, count: Some(3), bytes: None };
                // Somebody saw the first, of 2026-08-11. A gap is no sign of life.
                let counters = self.log.counters();
                self.log.push(at, Body::Heartbeat(Heartbeat { counters }));
                self.log.push(at, Body::Gap(gap));
            }
            (2, 70) if planted => {
                for at in [at, at - 10 * MINUTE] {
                    let counters = self.log.counters();
                    self.log.push(at, Body::Heartbeat(Heartbeat { counters }));
                }
            }
            _ => {}
        }
        while let Some(erasure) = self.erasures.first_entry().filter(|due| due.key().0 <= at) {
            self.log.push(at, Body::Erasure(erasure.remove()));
        }
        if day % 3 == 0 {
            self.refused(at);
        }
    }

    /// Ends what ends until then, and beats.
    fn until(&mut self, at: i64) {
        loop {
            let ends = self.open.first_key_value().map(|(key, _)| key.0).filter(|ends| *ends <= at);
            let to = ends.unwrap_or(at);
            while to - self.log.last > BEAT {
                let counters = self.log.counters();
                self.log.push(self.log.last + BEAT, Body::Heartbeat(Heartbeat { counters }));
            }
            let Some(((ends, _), open)) = ends.and_then(|_| self.open.pop_first()) else { break };
            self.end(ends, open);
        }
    }

    /// Ends the log, as after a crash where exchanges are left.
    fn close(&mut self, at: i64) {
        let alive_until = at - SECOND;
        self.until(alive_until);
        let mut counters = self.log.counters();
        let reason = if self.open.is_empty() { CloseReason::Shutdown } else { CloseReason::Crash };
        if reason == CloseReason::Crash {
            // What recovery writes is no sign of life, and it does not know what was counted.
            self.log.push(alive_until, Body::Heartbeat(Heartbeat { counters }));
            counters = BTreeMap::new();
        }
        while let Some((_, open)) = self.open.pop_first() {
            self.end(alive_until, open);
        }
        self.log.push(at, Body::Close(Close { reason, successor: None, alive_until, counters }));
        self.log.seal();
    }

    /// Callers whom nobody knows, folded, and one that was refused by name.
    fn refused(&mut self, at: i64) {
        let number = u64::try_from(at).unwrap_or(0);
        let refusal = |exchange, reason: &str, status, count: Option<u64>, caller| Refusal {
            exchange,
            reason: id(reason),
            status,
            count,
            first: count.map(|_| at - MINUTE),
            last: count.map(|_| at),
            caller,
            asked: None,
            verdict: None,
            parts: vec![],
            content_key: None,
            retention: None,
            suppression: vec![],
            limit: None,
            translation: None,
        };
        self.log.push(at, Body::Refusal(refusal(None, "unauthenticated", 401, Some(7), None)));
        let caller = Caller { consumer: by("bot-chat", Source::Key), ..Caller::default() };
        let exchange = exchange_id(at, number, self.number + GATEWAYS);
        self.log.push(at, Body::Refusal(refusal(Some(exchange), "policy_denied", 403, None, Some(caller))));
    }

    fn exchange(&mut self, number: u64, at: i64) {
        let violation = self.planted.of(number);
        let place = usize::try_from(self.dice.below(self.traffic.sorts.len() as u64)).unwrap_or(0);
        let mut sort = self.traffic.sorts[place].clone();
        let caller = self.caller(&mut sort, at, violation);
        let asked = asked(&sort, violation);
        let exchange = exchange_id(at, number, self.number);
        let position = self.log.position();
        let content_key = self.encrypted.then(|| self.key(position));
        let verdict = match violation {
            Some(Violation::NoDecision) => None,
            Some(Violation::WouldDeny) => Some(Decision::WouldDeny),
            _ => Some(Decision::Allow),
        };
        let intent = Intent {
            exchange: exchange.clone(),
            caller: caller.clone(),
            asked: asked.clone(),
            verdict: verdict.map(|decision| self.verdict(decision)),
            parts: vec![part(PartName::ClientRequest, sort.request, number)],
            content_key: content_key.clone(),
            retention: retention(violation),
            translation: None,
            fail_mode: None,
            suppression: vec![],
            choice: None,
        };
        self.log.push(at, Body::Intent(intent));
        let took = 200_000 + i64::try_from(self.dice.below(20 * SECOND.unsigned_abs())).unwrap_or(0);
        let outcome =
            self.outcome(exchange, position, caller, asked, &sort, (at, took), content_key, violation);
        if let Some(violation) = violation {
            self.told.done.push((violation, outcome.exchange.to_string()));
        }
        // Recovery ends what the process left when it died.
        let ends = if violation == Some(Violation::Interrupted) { i64::MAX } else { at + took };
        self.open.insert((ends, number), Open { outcome, violation });
    }

    fn verdict(&self, decision: Decision) -> Verdict {
        let rules = if decision == Decision::Allow { vec![] } else { vec![id("models")] };
        Verdict { decision, policy: self.policy, rules, rule_count: None, facts: BTreeMap::new() }
    }

    fn key(&self, position: u64) -> Identifier {
        let (page, slot) = (position / 1024, position % 1024);
        KeyId {
            origin: self.log.origin.clone(),
            page: u32::try_from(page).unwrap_or(0),
            slot: u16::try_from(slot).unwrap_or(0),
        }
        .to_identifier()
    }

    /// Who and why; health and cardholder data goes to those who may have it.
    fn caller(&mut self, sort: &mut Sort, at: i64, violation: Option<Violation>) -> Caller {
        let class = match violation {
            Some(Violation::NoPurpose | Violation::HealthElsewhere) => "phi",
            Some(Violation::CardElsewhere) => "cardholder",
            Some(Violation::ForbiddenClass) => "secret",
            Some(Violation::NoBasis) => "archived",
            _ if sort.provider == HEALTH && violation.is_none() && self.dice.below(4) == 0 => "phi",
            _ if sort.provider == CARDS && violation.is_none() && self.dice.below(4) == 0 => "cardholder",
            _ => "internal",
        };
        match violation {
            Some(Violation::NoPurpose) => sort.provider = HEALTH,
            Some(Violation::HealthElsewhere | Violation::CardElsewhere) => sort.provider = "openai",
            _ => {}
        }
        let place = usize::try_from(self.dice.below(SYSTEMS.len() as u64)).unwrap_or(0);
        let system = if violation == Some(Violation::OtherSystem) { "sys-shadow" } else { SYSTEMS[place] };
        let purpose = match violation {
            Some(Violation::NoPurpose) => None,
            Some(Violation::OtherPurpose) => Some("marketing"),
            _ => Some(PURPOSES[place % PURPOSES.len()]),
        };
        // An hour before the key is revoked nobody uses it any more.
        let key = match violation {
            Some(Violation::RevokedKey) => KEYS[0],
            _ if place == 0 && at < BEGIN + 44 * DAY + 20 * HOUR => KEYS[0],
            _ => KEYS[1 + place % 3],
        };
        Caller {
            consumer: match violation {
                Some(Violation::NoConsumer) => None,
                Some(Violation::Asserted) => by("somebody", Source::Asserted),
                _ => by(["bot-chat", "bot-code", "bot-docs", "bot-hiring", "bot-credit"][place], Source::Key),
            },
            team: by(["support", "platform", "platform", "people", "risk"][place], Source::Key),
            cost_centre: by(["cc-1", "cc-2", "cc-2", "cc-3", "cc-4"][place], Source::Key),
            system: by(system, Source::Key),
            purpose: purpose.and_then(|purpose| by(purpose, Source::Route)),
            data_class: (violation != Some(Violation::NoClass)).then(|| by(class, Source::Route)).flatten(),
            key: Some(id(key)),
            ..Caller::default()
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what an outcome repeats of its intent, and how it ended")]
    fn outcome(
        &mut self,
        exchange: ExchangeId,
        intent_position: u64,
        caller: Caller,
        asked: Asked,
        sort: &Sort,
        (at, took): (i64, i64),
        content_key: Option<Identifier>,
        violation: Option<Violation>,
    ) -> Outcome {
        let served =
            if violation == Some(Violation::OtherModel) { id("own-model-1") } else { sort.served.clone() };
        let models = [served.as_str(), sort.requested.as_str()];
        let price = self.traffic.book.price(&sort.usage, sort.provider, &models, at + took, None);
        let aborted = violation.is_none() && self.dice.below(50) == 0;
        let end = match violation {
            Some(Violation::Interrupted) => End::Interrupted,
            _ if aborted => End::ClientAbort,
            _ => End::Complete,
        };
        Outcome {
            exchange: exchange.clone(),
            intent_position,
            caller,
            asked,
            served: None,
            translation: None,
            answer_dropped: None,
            end,
            provider_end: Some(ProviderEnd::Seen),
            provider_status: Some(sort.status),
            status: Some(sort.status),
            reason: None,
            delivered: Some(sort.response / 2),
            released: Some(sort.response - sort.response / 2),
            delivered_at_least: None,
            answered: Answered {
                served_model: Some(served),
                response_id: Some(id(&format!("resp_{exchange}"))),
                finish_reasons: sort.finish.iter().cloned().collect(),
                ..Answered::default()
            },
            usage: sort.usage.clone(),
            unpriced: price.as_ref().err().copied(),
            cost: price.ok(),
            timing: Timing { total_us: Some(took), commit_us: Some(400), ..Timing::default() },
            rate_limits: BTreeMap::new(),
            parts: vec![part(PartName::ProviderResponse, sort.response, intent_position)],
            content_key,
            retention: retention(violation),
        }
    }

    /// Its outcome, and its erasure where that was planted: three weeks later, or at once where the quarter ends before.
    fn end(&mut self, at: i64, open: Open) {
        let Open { outcome, violation } = open;
        let (exchange, position) = (outcome.exchange.clone(), outcome.intent_position);
        let content_key = outcome.content_key.clone();
        self.log.push(at, Body::Outcome(outcome));
        if let (Some(Violation::Erased), Some(content_key)) = (violation, content_key) {
            let erasure = Erasure {
                exchange,
                origin: self.log.origin.clone(),
                position,
                content_key,
                reason: id("request"),
                actor: Some(id("ann")),
            };
            let due = at + 21 * DAY;
            if due < BEGIN + (super::DAYS - 1) * DAY {
                self.erasures.insert((due, position), erasure);
            } else {
                self.log.push(at, Body::Erasure(erasure));
            }
        }
    }
}

/// The retention class of an exchange, which its outcome repeats.
fn retention(violation: Option<Violation>) -> Identifier {
    id(match violation {
        Some(Violation::KeptTooLong | Violation::Erased) => "short",
        Some(Violation::OtherRetention) => "odd",
        _ => "standard",
    })
}

/// What was asked; providers by their names, where none is wrong.
fn asked(sort: &Sort, violation: Option<Violation>) -> Asked {
    debug_assert!(PROVIDERS.contains(&sort.provider), "{}", sort.provider);
    let provider = match violation {
        Some(Violation::OtherProvider) => Some("grey"),
        Some(Violation::NoProvider) => None,
        _ => Some(sort.provider),
    };
    Asked {
        route: Some(id(sort.provider)),
        provider: provider.map(id),
        dialect: Some(id(sort.dialect)),
        operation: Some(id(sort.operation)),
        method: Some(id("POST")),
        requested_model: Some(sort.requested.clone()),
        stream: Some(sort.stream),
        ..Asked::default()
    }
}

/// A part whose content is not kept.
fn part(part: PartName, length: u64, number: u64) -> Part {
    Part {
        part,
        media_type: Some(id("application/json")),
        content_encoding: None,
        length,
        commitment: Sha256Hex::of(&number.to_be_bytes()),
        kept: Some(false),
    }
}

/// A UUIDv7 of a time, a number and who gave it.
fn exchange_id(at: i64, number: u64, gateway: u64) -> ExchangeId {
    let ms = at / 1000;
    let (high, low) = (ms >> 16, ms & 0xffff);
    ExchangeId::new(format!(
        "{high:08x}-{low:04x}-7{:03x}-8{gateway:03x}-{:012x}",
        (number >> 48) & 0xfff,
        number & 0xffff_ffff_ffff
    ))
    .expect("an exchange id")
}
