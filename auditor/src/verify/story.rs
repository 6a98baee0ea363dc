//! The story of one log: what its records say, told in order of position, and whether it holds together.
//!
//! Sees proven leaves only. Holds open exchanges, counters and hashes, never rows: its size does not grow with the
//! log, except by one entry for each open exchange (some 200 bytes), configuration, erasure, hold and unknown name, and by the
//! ids of the newest exchanges, which are bounded. It can be stored and continued at the next visit.

use std::collections::{BTreeMap, BTreeSet};

use schemas::record::{
    Asked, Attempt, Body, Boot, Caller, Close, CloseReason, Config, Cost, Decision, Encryption, End, Gap,
    GapReason, Intent, Outcome, Part, Predecessor, Record, Refusal, Translation, Usage, UsageRole,
    UsageSource,
};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::attempts::{self, Tried};
use super::holds::{Erasures, Holdings, Told};
use super::ids::{Ids, number_of, text_of};
pub use super::tally::Tally;
use crate::decimal::Decimal;
use crate::finding::{Code, Findings, Place};

/// How much later than its bound a heartbeat may be written: a twentieth of the bound and two seconds.
const fn silence_slack_us(bound_us: i64) -> i64 {
    bound_us / 20 + 2_000_000
}

/// How far the times of neighbouring records may be out of order: records are made before they are queued.
pub(super) const DISORDER_US: i64 = schemas::holds::CLOCKS_APART_US;

/// What `boot` said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootFacts {
    /// Its time.
    pub at: i64,
    /// Heartbeat bound, microseconds.
    pub heartbeat_bound_us: i64,
    /// Batch age, microseconds.
    pub batch_age_us: i64,
    /// The predecessor.
    pub predecessor: Option<Predecessor>,
    /// Whether content is encrypted.
    pub encrypted: bool,
    /// The gateway's version.
    pub gateway_version: String,
}

/// What `close` said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloseFacts {
    /// Its position.
    pub position: u64,
    /// Its time.
    pub at: i64,
    /// Why.
    pub reason: CloseReason,
    /// Until when the process is known to have lived.
    pub alive_until: i64,
    /// The next log.
    pub successor: Option<Origin>,
}

/// A hash that a record names and a reference file must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// What it is: `configuration`, `policy`, `price book`.
    pub what: String,
    /// The record that names it.
    pub position: u64,
}

/// How an exchange keeps its content, and what else its outcome repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptAs {
    key: Option<Identifier>,
    class: Identifier,
    /// Fingerprints of `caller` and `asked`.
    #[serde(default)]
    said: Option<(u128, u128)>,
}

/// Half of the SHA-256 of what is said: two that differ in a log have the same one by nobody's doing.
fn fingerprint<T: Serialize>(said: &T) -> Option<u128> {
    let hash = Sha256Hex::of(&schemas::canonical::to_vec(said).ok()?);
    Some(u128::from_be_bytes(*hash.0.first_chunk()?))
}

impl KeptAs {
    /// Whether a later record of the exchange keeps its content so too, as far as it says.
    fn holds(
        &self,
        (key, class): (Option<&Identifier>, Option<&Identifier>),
        place: &dyn Fn() -> Place,
        findings: &mut Findings,
    ) {
        if let Some(key) = key.filter(|key| self.key.as_ref() != Some(key)) {
            let wanted = self.key.as_ref().map_or("none", Identifier::as_str);
            let expected = format!("the intent's data key, {wanted}");
            findings.add(Code::RecordInvalid, place().of_item("content_key"), expected, key.as_str());
        }
        if let Some(class) = class.filter(|class| self.class != **class) {
            let expected = format!("the intent's retention class, {}", self.class);
            findings.add(Code::RecordInvalid, place().of_item("retention"), expected, class.as_str());
        }
    }
}

/// Whether an outcome says who, what and how it is kept as its intent did: whoever reads one of the two alone would else be told
/// something else.
fn repeats(outcome: &Outcome, of_intent: &KeptAs, place: &dyn Fn() -> Place, findings: &mut Findings) {
    of_intent.holds((outcome.content_key.as_ref(), Some(&outcome.retention)), place, findings);
    let (Some((caller, asked)), Some(again)) = (of_intent.said, said(&outcome.caller, &outcome.asked)) else {
        return;
    };
    for (item, is_same) in [("caller", caller == again.0), ("asked", asked == again.1)] {
        if !is_same {
            let expected = format!("the intent's `{item}`");
            findings.add(Code::RecordInvalid, place().of_item(item), expected, "another");
        }
    }
}

fn said(caller: &Caller, asked: &Asked) -> Option<(u128, u128)> {
    Some((fingerprint(caller)?, fingerprint(asked)?))
}

/// Counts one more of `key`.
fn count(map: &mut BTreeMap<String, u64>, key: &str) {
    match map.get_mut(key) {
        Some(count) => *count += 1,
        None => _ = map.insert(key.to_owned(), 1),
    }
}

fn end_of(end: End) -> &'static str {
    match end {
        End::Complete => "complete",
        End::ClientAbort => "client_abort",
        End::ProviderAbort => "provider_abort",
        End::Unreachable => "unreachable",
        End::Timeout => "timeout",
        End::GatewayAbort => "gateway_abort",
        End::Interrupted => "interrupted",
    }
}

/// A translation in one line.
fn way_said(translation: Option<&Translation>) -> String {
    translation.map_or_else(
        || "none".to_owned(),
        |it| {
            let what: Vec<&str> = it.dropped.what.iter().map(Identifier::as_str).collect();
            let (count, what) = (it.dropped.count, what.join(" "));
            format!("from {} to {}, {count} dropped: {what}", it.from, it.to)
        },
    )
}

fn source_of(source: UsageSource) -> &'static str {
    match source {
        UsageSource::Provider => "provider",
        UsageSource::Drained => "drained",
        UsageSource::Partial => "partial",
        UsageSource::Estimated => "estimated",
        UsageSource::Unknown => "unknown",
        UsageSource::NotApplicable => "not_applicable",
    }
}

/// Counters at one heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Beat {
    position: u64,
    counters: BTreeMap<String, u64>,
}

/// Counters of records (FORMAT.md 3.9), and the kind that they count.
const COUNTED_KINDS: [(&str, &str); 3] =
    [("exchanges", "intent"), ("outcomes", "outcome"), ("refusals", "refusal")];

/// The story of one log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Story {
    origin: Origin,
    trusted_key: String,
    /// Every record from position 0 on was told.
    whole: bool,
    /// Something between two told records was not told.
    torn: bool,
    /// What `boot` said.
    pub boot: Option<BootFacts>,
    /// What `close` said.
    pub close: Option<CloseFacts>,
    config: Option<Sha256Hex>,
    announced: BTreeSet<Sha256Hex>,
    /// Hashes that a reference file must hold.
    pub named: BTreeMap<Sha256Hex, Named>,
    /// Exchanges without an outcome: the intent's position, and the 128 bits of the id.
    pub open: BTreeMap<u64, u128>,
    /// What those of them tried that tried more than once.
    #[serde(default)]
    tried: BTreeMap<u64, Tried>,
    /// How the last request of those of them was translated of which one was.
    #[serde(default)]
    translated: BTreeMap<u64, Translation>,
    /// Data key and retention class of each of them.
    #[serde(default)]
    kept: BTreeMap<u64, KeptAs>,
    /// The last position at which a record was lost: what exchanges tried whose intent stands before it is not told in full.
    #[serde(default)]
    loss: Option<u64>,
    /// The newest exchanges.
    pub ids: Ids,
    /// The batch whose records are told.
    batch: u64,
    /// Time of the first told record.
    pub first_at: Option<i64>,
    /// The latest time of a told record.
    pub last_at: Option<i64>,
    /// The latest time of a record that the living process made.
    pub alive_at: Option<i64>,
    recovering: bool,
    beat: Option<Beat>,
    /// Each recorded erasure, by the record's position.
    pub erasures: Erasures,
    /// Each recorded begin and end of a legal hold, by the record's position.
    pub holds: Holdings,
    /// Counts.
    pub tally: Tally,
}

impl Story {
    /// The story of `origin`, whose trusted key is `trusted_key` (base64), not begun.
    pub fn new(origin: Origin, trusted_key: String) -> Self {
        Self {
            origin,
            trusted_key,
            whole: true,
            torn: false,
            boot: None,
            close: None,
            config: None,
            announced: BTreeSet::new(),
            named: BTreeMap::new(),
            open: BTreeMap::new(),
            tried: BTreeMap::new(),
            translated: BTreeMap::new(),
            kept: BTreeMap::new(),
            loss: None,
            ids: Ids::default(),
            batch: 0,
            first_at: None,
            last_at: None,
            alive_at: None,
            recovering: false,
            beat: None,
            erasures: Erasures::new(),
            holds: Holdings::new(),
            tally: Tally::default(),
        }
    }

    /// True where every record from position 0 to the last told one was told.
    pub fn is_whole(&self) -> bool {
        self.whole && !self.torn
    }

    /// Says that the records before the next one are not there, or could not be proven.
    pub fn tear(&mut self) {
        if self.tally.records == 0 {
            self.whole = false;
        } else {
            self.torn = true;
        }
        self.config = None;
        self.open.clear();
        self.tried.clear();
        self.translated.clear();
        self.kept.clear();
        self.beat = None;
        self.alive_at = None;
        self.recovering = false;
    }

    /// Lets go of what only later records are held against.
    pub fn forget_ids(&mut self) {
        self.ids = Ids::default();
    }

    /// Says which batch the next records are in.
    pub fn begin_batch(&mut self, number: u64) {
        self.batch = number;
    }

    /// Tells one proven record.
    ///
    /// `record` is absent where the kind is unknown; `kind` is the leaf's own word.
    pub fn tell(
        &mut self,
        position: u64,
        kind: &str,
        leaf_bytes: usize,
        record: Option<&Record>,
        findings: &mut Findings,
    ) {
        self.tally.records += 1;
        self.tally.leaf_bytes += leaf_bytes as u64;
        self.tally.kind(kind, record.is_some());
        if let Some(close) = &self.close {
            let expected = format!("no record after `close` at position {}", close.position);
            let place = Place::record(&self.origin, position);
            findings.add(Code::AfterClose, place, expected, format!("a record of kind `{kind}`"));
        }
        let is_boot = kind == "boot";
        if position == 0 && !is_boot {
            findings.add(
                Code::BootMissing,
                Place::record(&self.origin, position),
                "kind `boot` at position 0",
                format!("kind `{kind}`"),
            );
        }
        let Some(record) = record else { return };
        self.time(position, record, findings);
        self.configuration(position, record, findings);
        match &record.body {
            Body::Boot(boot) => self.boot(position, record.at, boot, findings),
            Body::Config(config) => self.config(position, config),
            Body::Intent(intent) => self.intent(position, intent, findings),
            Body::Outcome(outcome) => self.outcome(position, outcome, findings),
            Body::Refusal(refusal) => self.refusal(position, refusal, findings),
            Body::Attempt(attempt) => self.attempt(position, attempt, findings),
            Body::SideCall(call) => self.side_call(position, call, findings),
            Body::Heartbeat(heartbeat) => self.counters(position, &heartbeat.counters, false, findings),
            Body::Gap(gap) => self.gap(position, record.at, gap, findings),
            Body::Erasure(erasure) => {
                let told = Told { batch: self.batch, at: record.at, record: erasure.clone() };
                self.erasures.insert(position, told);
            }
            Body::Hold(hold) => {
                let told = Told { batch: self.batch, at: record.at, record: hold.clone() };
                self.holds.insert(position, told);
            }
            Body::Close(close) => self.closed(position, record.at, close, findings),
            Body::Admin(_) => {}
        }
    }

    fn time(&mut self, position: u64, record: &Record, findings: &mut Findings) {
        let at = record.at;
        if matches!(&record.body, Body::Gap(gap) if gap.reason == GapReason::Loss) {
            // Made by recovery in the place of a lost record: its time says nothing about its neighbours.
            return;
        }
        self.first_at.get_or_insert(at);
        let recovery = match &record.body {
            Body::Outcome(outcome) => outcome.end == End::Interrupted,
            Body::Gap(gap) => gap.reason == GapReason::TornTail,
            Body::Close(close) => matches!(close.reason, CloseReason::Crash | CloseReason::Salvaged),
            Body::Admin(admin) => matches!(admin.action.as_str(), "salvaged" | "loss_accepted"),
            _ => false,
        };
        let place = || Place::record(&self.origin, position);
        if let Some(last) = self.last_at
            && at < last - DISORDER_US
        {
            let expected = format!(
                "a time not more than {} s before {}",
                DISORDER_US / 1_000_000,
                crate::time::text(last)
            );
            findings.add(Code::Backdated, place(), expected, crate::time::text(at));
        }
        self.recovering |= recovery;
        // Who says what passed unrecorded, the living process or recovery, is not to be told: it proves no life.
        let tells_nothing = matches!(&record.body, Body::Gap(gap) if gap.reason == GapReason::Unrecorded);
        let lives = !self.recovering && !tells_nothing;
        if let (Some(alive), Some(boot), true) = (self.alive_at, &self.boot, lives) {
            let bound = boot.heartbeat_bound_us;
            let slack = silence_slack_us(bound);
            if at.saturating_sub(alive) > bound.saturating_add(slack) {
                let expected = format!("a record at least every {} s", bound / 1_000_000);
                let found = format!("nothing from {} to {}", crate::time::text(alive), crate::time::text(at));
                let finding = crate::finding::Finding::new(Code::Silence, place(), expected, found);
                findings.push(finding.during(alive, at));
            }
        }
        self.last_at = self.last_at.max(Some(at));
        if lives {
            self.alive_at = self.alive_at.max(Some(at));
        }
    }

    fn configuration(&mut self, position: u64, record: &Record, findings: &mut Findings) {
        match &self.config {
            None => {
                self.config = Some(record.config);
                self.announced.insert(record.config);
                if matches!(record.body, Body::Boot(_)) {
                    self.name(record.config, "configuration", position);
                }
            }
            Some(current) if *current == record.config => {}
            // A record may be made just before a change that is journaled first.
            Some(_) if self.announced.contains(&record.config) && !matches!(record.body, Body::Config(_)) => {
            }
            Some(current) => {
                let place = Place::record(&self.origin, position);
                findings.add(
                    Code::UnapprovedConfig,
                    place,
                    format!("configuration {current}"),
                    record.config.to_string(),
                );
                self.announced.insert(record.config);
            }
        }
    }

    fn name(&mut self, hash: Sha256Hex, what: &str, position: u64) {
        self.named.entry(hash).or_insert_with(|| Named { what: what.into(), position });
    }

    fn boot(&mut self, position: u64, at: i64, boot: &Boot, findings: &mut Findings) {
        let place = Place::record(&self.origin, position);
        if position != 0 {
            findings.add(
                Code::EpochReuse,
                place,
                "`boot` at position 0 only",
                format!("`boot` at position {position}"),
            );
            return;
        }
        if boot.seal_key != self.trusted_key {
            findings.add(
                Code::UntrustedKey,
                place.clone(),
                format!("seal key {}", self.trusted_key),
                boot.seal_key.clone(),
            );
        }
        for (name, value) in
            [("heartbeat_bound_ms", boot.heartbeat_bound_ms), ("batch_age_ms", boot.batch_age_ms)]
        {
            if value <= 0 {
                findings.add(
                    Code::RecordInvalid,
                    place.clone().of_item(name),
                    "more than 0",
                    value.to_string(),
                );
            }
        }
        self.boot = Some(BootFacts {
            at,
            heartbeat_bound_us: boot.heartbeat_bound_ms.saturating_mul(1000),
            batch_age_us: boot.batch_age_ms.saturating_mul(1000),
            predecessor: boot.predecessor.clone(),
            encrypted: boot.encryption == Encryption::Aes256Gcm,
            gateway_version: boot.gateway_version.to_string(),
        });
    }

    fn config(&mut self, position: u64, config: &Config) {
        self.config = Some(config.next);
        self.announced.insert(config.next);
        self.name(config.next, "configuration", position);
        if let Some(policy) = config.policy {
            self.name(policy, "policy", position);
        }
        if let Some(book) = config.price_book {
            self.name(book, "price book", position);
        }
    }

    fn parts(&mut self, position: u64, parts: &[Part], findings: &mut Findings) {
        for (n, part) in parts.iter().enumerate() {
            self.tally.parts += 1;
            self.tally.parts_kept += u64::from(part.kept != Some(false));
            // At most 32.
            if parts.iter().take(n).any(|earlier| earlier.part == part.part) {
                let place = Place::record(&self.origin, position).of_item(part.part.as_str());
                findings.add(Code::RecordInvalid, place, "each part once", "the part twice");
            }
        }
    }

    fn remember(&mut self, position: u64, exchange: &ExchangeId, findings: &mut Findings) {
        if !self.ids.insert(exchange, self.batch) {
            let place = Place::record(&self.origin, position).of_exchange(exchange);
            findings.add(
                Code::DuplicateExchange,
                place,
                "an exchange id used once",
                "an id of an earlier exchange",
            );
        }
    }

    fn intent(&mut self, position: u64, intent: &Intent, findings: &mut Findings) {
        self.remember(position, &intent.exchange, findings);
        self.parts(position, &intent.parts, findings);
        self.tally.caller(&intent.caller, &intent.asked);
        if let Some(system) = &intent.caller.system {
            self.tally.system(system.value.as_str());
        }
        if let Some(verdict) = &intent.verdict {
            self.tally.would_deny += u64::from(verdict.decision == Decision::WouldDeny);
        }
        self.tally.fail_open +=
            u64::from(intent.fail_mode.as_ref().is_some_and(|mode| mode.as_str() == "open"));
        self.tally.suppressions += u64::from(!intent.suppression.is_empty());
        self.open.insert(position, number_of(&intent.exchange));
        let said = said(&intent.caller, &intent.asked);
        let kept = KeptAs { key: intent.content_key.clone(), class: intent.retention.clone(), said };
        self.kept.insert(position, kept);
        self.translates(position, intent.translation.as_ref());
    }

    /// The request of the exchange whose intent stands there that goes out now, in its provider's dialect.
    fn translates(&mut self, intent_position: u64, translation: Option<&Translation>) {
        match translation {
            Some(translation) => _ = self.translated.insert(intent_position, translation.clone()),
            None => _ = self.translated.remove(&intent_position),
        }
    }

    /// Whether records of attempts of the exchange whose intent stands there may be among what was lost.
    fn is_torn_for(&self, intent_position: u64) -> bool {
        self.loss.is_some_and(|loss| intent_position < loss)
    }

    fn outcome(&mut self, position: u64, outcome: &Outcome, findings: &mut Findings) {
        self.parts(position, &outcome.parts, findings);
        count(&mut self.tally.ends, end_of(outcome.end));
        count(&mut self.tally.usage_sources, source_of(outcome.usage.source));
        let origin = &self.origin;
        let place = || Place::record(origin, position).of_exchange(&outcome.exchange);
        let kept = self.kept.remove(&outcome.intent_position);
        let translated = self.translated.remove(&outcome.intent_position);
        match self.open.remove(&outcome.intent_position) {
            Some(open) if open == number_of(&outcome.exchange) => {
                if let Some(of_intent) = &kept {
                    repeats(outcome, of_intent, &place, findings);
                }
                let tried = self.tried.remove(&outcome.intent_position).unwrap_or_default();
                let is_torn = self.is_torn_for(outcome.intent_position);
                tried.close(outcome, is_torn, &|| Place::record(&self.origin, position), findings);
                // How a request was translated whose record may be lost nobody knows.
                let is_known = !is_torn || tried.is_of_last(outcome);
                if translated != outcome.translation && is_known {
                    let place = place().of_item("translation");
                    let expected = format!("that of the request, {}", way_said(translated.as_ref()));
                    let found = way_said(outcome.translation.as_ref());
                    findings.add(Code::RecordInvalid, place, expected, found);
                }
            }
            Some(open) => {
                let expected = format!(
                    "an outcome of exchange {} for the intent at {}",
                    text_of(open),
                    outcome.intent_position
                );
                findings.add(
                    Code::OrphanOutcome,
                    place(),
                    expected,
                    format!("exchange {}", outcome.exchange),
                );
            }
            None if self.is_whole() => {
                let expected = format!("an open intent at position {}", outcome.intent_position);
                findings.add(Code::OrphanOutcome, place(), expected, "none, or one that has its outcome");
            }
            None => {}
        }
        self.money(position, &outcome.exchange, (&outcome.usage, outcome.cost.as_ref()), findings);
    }

    fn money(
        &mut self,
        position: u64,
        exchange: &ExchangeId,
        (usage, cost): (&Usage, Option<&Cost>),
        findings: &mut Findings,
    ) {
        let origin = &self.origin;
        let place = || Place::record(origin, position).of_exchange(exchange);
        for (name, part, whole) in [
            ("reasoning_tokens", usage.reasoning_tokens, usage.output_tokens),
            ("cache_read_tokens", usage.cache_read_tokens, usage.input_tokens),
        ] {
            if let (Some(part), Some(whole)) = (part, whole)
                && part > whole
            {
                let place = place().of_item(name);
                findings.add(Code::UsageContradiction, place, format!("at most {whole}"), part.to_string());
            }
        }
        let incurred = usage.role == UsageRole::Incurred && usage.source != UsageSource::NotApplicable;
        let Some(cost) = cost else {
            self.tally.unpriced += u64::from(incurred);
            self.tally.no_usage += u64::from(incurred && usage.source == UsageSource::Unknown);
            return;
        };
        if !self.named.contains_key(&cost.price_book) && self.is_whole() {
            let place = place().of_item("price_book");
            findings.add(
                Code::UnapprovedConfig,
                place,
                "a price book that a `config` record names",
                cost.price_book.to_string(),
            );
        }
        let classes: Option<Vec<Decimal>> = cost.classes.values().map(|text| Decimal::parse(text)).collect();
        let sum = classes.map(|classes| classes.into_iter().fold(Decimal::default(), Decimal::plus));
        match (Decimal::parse(&cost.total), sum) {
            // What was only read was incurred, and is counted, elsewhere; each read of it tells it again.
            (Some(total), Some(sum)) if total == sum && usage.role != UsageRole::Incurred => {}
            (Some(total), Some(sum)) if total == sum => {
                self.tally.cost(cost.currency.as_str(), total);
            }
            (_, sum) => {
                let expected =
                    sum.map_or("decimal numbers".into(), |sum| format!("the sum of the classes, {sum}"));
                findings.add(Code::CostRecomputeDiff, place(), expected, cost.total.clone());
            }
        }
    }

    fn refusal(&mut self, position: u64, refusal: &Refusal, findings: &mut Findings) {
        self.parts(position, &refusal.parts, findings);
        self.tally.refused += refusal.count.unwrap_or(1);
        self.tally.suppressions += u64::from(!refusal.suppression.is_empty());
        let place = || Place::record(&self.origin, position);
        match (&refusal.exchange, refusal.count) {
            (Some(exchange), _) => self.remember(position, exchange, findings),
            (None, Some(count)) if count > 0 => {
                if refusal.first > refusal.last || refusal.first.is_none() {
                    findings.add(Code::RecordInvalid, place(), "`first` not after `last`", "they contradict");
                }
            }
            (None, _) => findings.add(Code::RecordInvalid, place(), "an exchange or a count", "neither"),
        }
    }

    /// An attempt or side call belongs to an exchange that is open.
    fn of_open(&self, position: u64, attempt: &Attempt, findings: &mut Findings) -> bool {
        let matches = self.open.get(&attempt.intent_position) == Some(&number_of(&attempt.exchange));
        if !matches && self.is_whole() {
            let place = Place::record(&self.origin, position).of_exchange(&attempt.exchange);
            let expected = format!("an open intent of the exchange at position {}", attempt.intent_position);
            findings.add(Code::OrphanOutcome, place, expected, "none");
        }
        matches
    }

    fn side_call(&mut self, position: u64, call: &Attempt, findings: &mut Findings) {
        self.parts(position, &call.parts, findings);
        if self.of_open(position, call, findings) {
            self.kept_as(position, call, findings);
        }
    }

    /// One exchange, one data key and one retention class: what an attempt keeps would else outlive the erasure of its
    /// exchange, or its retention.
    fn kept_as(&self, position: u64, attempt: &Attempt, findings: &mut Findings) {
        let Some(of_intent) = self.kept.get(&attempt.intent_position) else { return };
        let place = || Place::record(&self.origin, position).of_exchange(&attempt.exchange);
        of_intent.holds((attempt.content_key.as_ref(), attempt.retention.as_ref()), &place, findings);
    }

    fn attempt(&mut self, position: u64, attempt: &Attempt, findings: &mut Findings) {
        self.parts(position, &attempt.parts, findings);
        let place = || Place::record(&self.origin, position).of_exchange(&attempt.exchange);
        attempts::form(attempt, &place, findings);
        if self.of_open(position, attempt, findings) {
            self.kept_as(position, attempt, findings);
            let is_torn = self.is_torn_for(attempt.intent_position);
            let tried = self.tried.entry(attempt.intent_position).or_default();
            tried.tell(attempt, is_torn, &place, findings);
            if attempt.phase.as_str() == "open" {
                self.translates(attempt.intent_position, attempt.translation.as_ref());
            }
        }
        if let Some(usage) = &attempt.usage {
            self.money(position, &attempt.exchange, (usage, attempt.cost.as_ref()), findings);
        }
    }

    /// Counters never fall, and what was counted is recorded: at the next heartbeat at the latest, since a folded
    /// refusal is counted before it is journaled, and at an orderly `close` at once.
    fn counters(
        &mut self,
        position: u64,
        counters: &BTreeMap<String, u64>,
        last: bool,
        findings: &mut Findings,
    ) {
        let place = Place::record(&self.origin, position);
        if let Some(beat) = &self.beat {
            for (name, before) in &beat.counters {
                let now = counters.get(name).copied();
                // One that is always there and is gone is named below.
                let counted = COUNTED_KINDS.iter().any(|(counted, _)| counted == name);
                if now.map_or(!counted, |now| now < *before) {
                    let expected = format!("at least {before}, as at position {}", beat.position);
                    let found = now.map_or("the counter is gone".into(), |now| now.to_string());
                    findings.add(Code::CounterMismatch, place.clone().of_item(name), expected, found);
                }
            }
        }
        for (name, _) in COUNTED_KINDS {
            if !counters.contains_key(name) {
                let expected = "the counter, which every heartbeat and orderly `close` has";
                findings.add(Code::CounterMismatch, place.clone().of_item(name), expected, "none");
            }
        }
        if self.is_whole() {
            for (name, kind) in COUNTED_KINDS {
                let recorded = match kind {
                    "refusal" => self.tally.refused,
                    kind => self.tally.kinds.get(kind).copied().unwrap_or(0),
                };
                let before = self.beat.as_ref().and_then(|beat| beat.counters.get(name)).copied();
                let counted = if last { counters.get(name).copied().max(before) } else { before };
                if let Some(counted) = counted.filter(|counted| *counted > recorded) {
                    let expected = format!("{counted} of kind `{kind}`, as counted");
                    findings.add(
                        Code::CounterMismatch,
                        place.clone().of_item(name),
                        expected,
                        format!("{recorded} recorded"),
                    );
                }
            }
        }
        self.beat = Some(Beat { position, counters: counters.clone() });
    }

    fn gap(&mut self, position: u64, at: i64, gap: &Gap, findings: &mut Findings) {
        let place = Place::record(&self.origin, position);
        let count = |unit: &str| {
            gap.count.map_or_else(|| format!("{unit}, count unknown"), |n| format!("{n} {unit}"))
        };
        match gap.reason {
            GapReason::TornTail => {
                findings.add(Code::TornTail, place, "nothing acknowledged is missing", count("records cut"));
            }
            GapReason::Loss | GapReason::Unrecorded => {
                let found = count(if gap.reason == GapReason::Loss {
                    "records damaged"
                } else {
                    "exchanges unrecorded"
                });
                let finding = crate::finding::Finding::new(Code::RecordsLost, place, "every record", found);
                // What passed behind the `close` of an earlier log stands at the beginning of this one.
                let first = ["boot", "config", "gap"];
                let of_earlier = gap.reason == GapReason::Unrecorded
                    && self.is_whole()
                    && self.tally.kinds.keys().all(|kind| first.contains(&kind.as_str()));
                let from = if of_earlier { i64::MIN } else { self.alive_at.unwrap_or(at).min(at) };
                findings.push(finding.during(from, at));
                // What belonged to the lost records cannot be told.
                if gap.reason == GapReason::Loss {
                    self.torn = true;
                    self.loss = Some(position);
                }
            }
            GapReason::Late => {
                findings.add(Code::LateRecords, place, "records before the fence", count("records"))
            }
        }
    }

    fn closed(&mut self, position: u64, at: i64, close: &Close, findings: &mut Findings) {
        let place = Place::record(&self.origin, position);
        if self.close.is_some() {
            return;
        }
        // Whoever recovers a log does not know what was counted.
        if close.reason == CloseReason::Shutdown || !close.counters.is_empty() {
            self.counters(position, &close.counters, true, findings);
        }
        if self.is_whole() {
            for (intent, open) in &self.open {
                let place = Place::record(&self.origin, *intent).of_exchange(text_of(*open));
                findings.add(Code::OrphanIntent, place, "an outcome before `close`", "none");
            }
        }
        if let (Some(alive), Some(boot)) = (self.alive_at, &self.boot) {
            let latest = alive
                .saturating_add(boot.heartbeat_bound_us)
                .saturating_add(silence_slack_us(boot.heartbeat_bound_us));
            let latest = if self.recovering { latest } else { latest.max(at) };
            let earliest = alive - DISORDER_US;
            if close.alive_until > latest || close.alive_until < earliest {
                let expected = format!(
                    "a time between {} and {}",
                    crate::time::text(earliest),
                    crate::time::text(latest)
                );
                let place = place.of_item("alive_until");
                findings.add(Code::TimeContradiction, place, expected, crate::time::text(close.alive_until));
            }
        }
        self.open.clear();
        self.tried.clear();
        self.translated.clear();
        self.kept.clear();
        self.close = Some(CloseFacts {
            position,
            at,
            reason: close.reason,
            alive_until: close.alive_until,
            successor: close.successor.clone(),
        });
    }
}
