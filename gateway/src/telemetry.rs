//! Metric names, and the counters that every heartbeat signs.
//!
//! Labels are closed sets: configured names, enumerations, statuses by class. Nothing that a caller, a
//! provider or a model writes becomes a label.

mod names;
mod rows;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policies::policy::{Mode, Policy};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use schemas::Identifier;
use schemas::record::{
    Attributed, Cost, Decision, End, Source, Unpriced, Usage, UsageRole, UsageSource, Verdict,
};

pub(crate) use names::{Named, Names};
pub(crate) use rows::Rows;

use crate::balance::Meters;
use crate::estimate::Estimated;
use names::InUse;

/// Labels of one route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByRoute {
    pub(crate) route: String,
}

/// Labels of one finished exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByEnd {
    pub(crate) route: String,
    pub(crate) end: &'static str,
    pub(crate) status: &'static str,
}

/// Labels of token counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByClass {
    pub(crate) route: String,
    pub(crate) class: &'static str,
}

/// Labels of money.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCurrency {
    route: String,
    currency: String,
}

/// Labels of money by the row of the price book: a model of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPrice {
    price: String,
    currency: String,
}

/// Labels of money by team.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTeam {
    team: String,
    currency: String,
}

/// Labels of what a provider answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByAnswer {
    pub(crate) provider: String,
    pub(crate) answer: &'static str,
}

/// Labels of requests to the targets of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByAttempt {
    pub(crate) route: String,
    pub(crate) target: String,
    pub(crate) reason: &'static str,
    pub(crate) result: &'static str,
}

/// Labels of the policy's verdicts, by the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByVerdict {
    pub(crate) decision: &'static str,
    pub(crate) rule: String,
}

/// Labels of refusals and failures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByReason {
    pub(crate) reason: &'static str,
}

/// Labels of access tokens that the gateway fetches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByFetch {
    pub(crate) provider: String,
    pub(crate) result: &'static str,
}

/// Labels of what is counted by how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByResult {
    pub(crate) result: &'static str,
}

/// Labels of what is counted by its state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByState {
    pub(crate) state: &'static str,
}

/// Labels of one of the gateway's folders, by its key in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByFolder {
    pub(crate) folder: &'static str,
}

/// Labels of a listener, by its address in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByListener {
    pub(crate) listen: String,
}

/// Labels of the log that the process writes: one a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByLog {
    pub(crate) log: String,
}

/// Labels of the four watermarks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByMark {
    pub(crate) mark: &'static str,
}

/// Labels of a sink of the tap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BySink {
    pub(crate) sink: String,
}

/// Labels of what a sink did not take.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BySinkReason {
    pub(crate) sink: String,
    pub(crate) reason: &'static str,
}

/// What is measured of the live tap.
#[derive(Debug)]
pub(crate) struct TapTelemetry {
    pub(crate) behind: Family<BySink, Gauge>,
    pub(crate) oldest: Family<BySink, Gauge<f64, AtomicU64>>,
    pub(crate) sent: Family<BySink, Counter>,
    pub(crate) errors: Family<BySinkReason, Counter>,
    pub(crate) gaps: Family<BySink, Counter>,
    pub(crate) gap_records: Family<BySink, Counter>,
    pub(crate) passed_by: Family<BySinkReason, Counter>,
    pub(crate) kept: Gauge,
}

impl TapTelemetry {
    fn new(registry: &mut Registry) -> Self {
        let tap = Self {
            behind: Family::default(),
            oldest: Family::default(),
            sent: Family::default(),
            errors: Family::default(),
            gaps: Family::default(),
            gap_records: Family::default(),
            passed_by: Family::default(),
            kept: Gauge::default(),
        };
        let help = "Records journaled or sealed that a sink of the tap has not acknowledged, by sink";
        registry.register("tap_records_behind", help, tap.behind.clone());
        let help = "Age of the oldest leaf that a sink has not acknowledged, by sink";
        registry.register_with_unit("tap_oldest", help, Unit::Seconds, tap.oldest.clone());
        registry.register(
            "tap_sent",
            "Leaves and notices that a sink acknowledged, by sink",
            tap.sent.clone(),
        );
        let help = "Tries that a sink did not take, by sink and reason";
        registry.register("tap_errors", help, tap.errors.clone());
        let help = "Notices of leaves that a sink does not get, by sink";
        registry.register("tap_gap", help, tap.gaps.clone());
        let help = "Records named by such notices, where their count is known, by sink";
        registry.register("tap_gap_records", help, tap.gap_records.clone());
        let help = "Leaves that a sink will never take and that were passed by, by sink and reason";
        registry.register("tap_passed_by", help, tap.passed_by.clone());
        let help = "Size of sealed records that are kept for the tap's sinks";
        registry.register_with_unit("tap_kept", help, Unit::Bytes, tap.kept.clone());
        tap
    }
}

/// Labels of tries to send to a collector that failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BySignal {
    pub(crate) signal: &'static str,
    pub(crate) reason: &'static str,
}

/// What is measured of the way to a collector.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtlpTelemetry {
    pub(crate) exchanges: Family<ByResult, Counter>,
    pub(crate) failures: Family<BySignal, Counter>,
}

/// What became of the spans of an exchange, as labels.
const SPANS: [&str; 4] = ["sent", "queue_full", "refused", "stopped"];
/// Why a POST to a collector failed, as labels.
const OTLP_FAILURES: [&str; 8] =
    ["connect", "closed", "timeout", "throttled", "unavailable", "credentials", "refused", "partial"];

impl OtlpTelemetry {
    fn new(registry: &mut Registry) -> Self {
        let otlp = Self::default();
        let help = "Exchanges whose spans were to go to the collector, by what became of them";
        registry.register("otlp_exchanges", help, otlp.exchanges.clone());
        let help = "Tries to send to the collector that failed, by signal and reason";
        registry.register("otlp_failures", help, otlp.failures.clone());
        for result in SPANS {
            otlp.count(result, 0);
        }
        for (signal, reason) in
            ["traces", "metrics"].into_iter().flat_map(|signal| OTLP_FAILURES.map(|reason| (signal, reason)))
        {
            otlp.failures.get_or_create(&BySignal { signal, reason }).inc_by(0);
        }
        otlp
    }

    /// Counts exchanges by what became of their spans.
    pub(crate) fn count(&self, result: &'static str, exchanges: u64) {
        self.exchanges.get_or_create(&ByResult { result }).inc_by(exchanges);
    }

    /// Counts a failed try.
    pub(crate) fn failed(&self, signal: &'static str, reason: &'static str) {
        self.failures.get_or_create(&BySignal { signal, reason }).inc();
    }
}

/// Labels of a rule of `quotas`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByQuota {
    pub(crate) rule: String,
}

/// Labels of requests that did not fit into a rule, by what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByQuotaResult {
    pub(crate) rule: String,
    pub(crate) result: &'static str,
}

/// Labels of warnings, by the share of the limit as it is typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByQuotaShare {
    pub(crate) rule: String,
    pub(crate) at: String,
}

/// What is measured of quotas.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuotaTelemetry {
    ratio: Family<ByQuota, Gauge<f64, AtomicU64>>,
    full: Family<ByQuotaResult, Counter>,
    warnings: Family<ByQuotaShare, Counter>,
    estimated: Family<ByQuota, Counter>,
    down: Family<ByResult, Counter>,
    unsettled: Counter,
    up: Family<ByState, Gauge>,
}

impl QuotaTelemetry {
    fn new(registry: &mut Registry) -> Self {
        let quotas = Self::default();
        let help = "The largest share of a rule's limit that one of its counters is at, reservations with it, by rule";
        registry.register("quota_used_ratio", help, quotas.ratio.clone());
        let help =
            "Requests that did not fit into a rule, by rule and what became of them (`refused`, `observed`)";
        registry.register("quota_full", help, quotas.full.clone());
        let help = "Counters that went over a share of `warn_at`, by rule and share";
        registry.register("quota_warnings", help, quotas.warnings.clone());
        let help = "Exchanges whose use nobody told, so that what was reserved is counted, by rule";
        registry.register("quota_estimated", help, quotas.estimated.clone());
        let help = "Requests that the store of quotas did not answer for, by what became of them (`closed`, `open`, `local`)";
        registry.register("quota_store_down", help, quotas.down.clone());
        let help = "Uses that could not be settled in the store: their reservations ended with their leases";
        registry.register("quota_unsettled", help, quotas.unsettled.clone());
        let help = "1 for whether the store of quotas is connected (`up`, `down`), with a shared one only";
        registry.register("quota_store", help, quotas.up.clone());
        for result in ["closed", "open", "local"] {
            quotas.down.get_or_create(&ByResult { result }).inc_by(0);
        }
        holds(&quotas.up, |state| ByState { state }, ["up", "down"], None);
        quotas
    }

    /// Begins a rule's counts with 0.
    pub(crate) fn expect(&self, rule: &str, refuses: bool, warn_at: &[crate::config::Ratio]) {
        let rule = rule.to_owned();
        let result = if refuses { "refused" } else { "observed" };
        self.full.get_or_create(&ByQuotaResult { rule: rule.clone(), result }).inc_by(0);
        for at in warn_at {
            self.warnings.get_or_create(&ByQuotaShare { rule: rule.clone(), at: at.to_string() }).inc_by(0);
        }
        self.estimated.get_or_create(&ByQuota { rule }).inc_by(0);
    }

    /// Shows a rule that is gone no more.
    pub(crate) fn forget(&self, rule: &str, warn_at: &[crate::config::Ratio]) {
        let rule = rule.to_owned();
        for result in ["refused", "observed"] {
            self.full.remove(&ByQuotaResult { rule: rule.clone(), result });
        }
        for at in warn_at {
            self.warnings.remove(&ByQuotaShare { rule: rule.clone(), at: at.to_string() });
        }
        self.ratio.remove(&ByQuota { rule: rule.clone() });
        self.estimated.remove(&ByQuota { rule });
    }

    pub(crate) fn used(&self, rule: &str, ratio: f64) {
        self.ratio.get_or_create(&ByQuota { rule: rule.to_owned() }).set(ratio);
    }

    pub(crate) fn full(&self, rule: &str, refused: bool) {
        let result = if refused { "refused" } else { "observed" };
        self.full.get_or_create(&ByQuotaResult { rule: rule.to_owned(), result }).inc();
    }

    pub(crate) fn warned(&self, rule: &str, at: &str) {
        self.warnings.get_or_create(&ByQuotaShare { rule: rule.to_owned(), at: at.to_owned() }).inc();
    }

    pub(crate) fn estimated(&self, rule: &str) {
        self.estimated.get_or_create(&ByQuota { rule: rule.to_owned() }).inc();
    }

    pub(crate) fn down(&self, then: crate::config::WhenDown) {
        let result = match then {
            crate::config::WhenDown::Closed => "closed",
            crate::config::WhenDown::Open => "open",
            crate::config::WhenDown::Local => "local",
        };
        self.down.get_or_create(&ByResult { result }).inc();
    }

    pub(crate) fn unsettled(&self, uses: u64) {
        self.unsettled.inc_by(uses);
    }

    /// Whether the store is connected; `None`: there is none.
    pub(crate) fn up(&self, is_up: Option<bool>) {
        let state = is_up.map(|is_up| if is_up { "up" } else { "down" });
        holds(&self.up, |state| ByState { state }, ["up", "down"], state);
    }
}

/// Labels of an issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByIssuer {
    pub(crate) issuer: String,
}

/// Labels of fetches of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByIssuerResult {
    pub(crate) issuer: String,
    pub(crate) result: &'static str,
}

/// What is measured of issuers of tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdentityTelemetry {
    fetches: Rows<ByIssuerResult, Counter>,
    taken: Rows<ByIssuer, Gauge<f64, AtomicU64>>,
}

impl IdentityTelemetry {
    fn new(registry: &mut Registry) -> Self {
        let identity = Self::default();
        let help = "Fetches of the keys of an issuer of tokens, by issuer and result";
        registry.register("identity_key_fetches", help, identity.fetches.clone());
        let help = "When an issuer's keys were fetched last; 0: not since the start";
        registry.register_with_unit("identity_keys_timestamp", help, Unit::Seconds, identity.taken.clone());
        identity
    }

    fn fetches(&self, issuer: &Identifier, result: &'static str) -> Counter {
        self.fetches.get_or_create(&ByIssuerResult { issuer: issuer.to_string(), result })
    }

    /// Begins the counts of an issuer.
    pub(crate) fn expect(&self, issuer: &Identifier, has_keys: bool) {
        for result in ["taken", "failed"] {
            self.fetches(issuer, result).inc_by(0);
        }
        // Keys that an issuer's configuration of before fetched are as old as they are.
        if !has_keys {
            self.taken.get_or_create(&ByIssuer { issuer: issuer.to_string() }).set(0.0);
        }
    }

    /// The keys came.
    pub(crate) fn taken(&self, issuer: &Identifier) {
        self.fetches(issuer, "taken").inc();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.taken.get_or_create(&ByIssuer { issuer: issuer.to_string() }).set(now.as_secs_f64());
    }

    /// They did not.
    pub(crate) fn failed(&self, issuer: &Identifier) {
        self.fetches(issuer, "failed").inc();
    }

    fn keep(&self, in_use: &[Arc<Names>]) {
        self.fetches.keep(in_use);
        self.taken.keep(in_use);
    }
}

/// Makes histograms of seconds: 1 ms to about 20 minutes.
fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
        300.0, 600.0, 1200.0,
    ])
}

/// What a process may be doing, as labels.
pub(crate) const PHASES: [&str; 3] = ["starting", "serving", "draining"];

/// What a provider may answer, as labels.
const ANSWERS: [&str; 10] =
    ["1xx", "2xx", "3xx", "4xx", "429", "5xx", "other", "cut", "timeout", "unreachable"];

/// Everything that the gateway counts.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    pub(crate) exchanges: Rows<ByEnd, Counter>,
    tokens: Rows<ByClass, Counter>,
    estimated_tokens: Rows<ByClass, Counter>,
    estimates: Family<ByResult, Counter>,
    cost: Rows<ByCurrency, Counter<f64, AtomicU64>>,
    cost_by_price: Rows<ByPrice, Counter<f64, AtomicU64>>,
    cost_by_team: Rows<ByTeam, Counter<f64, AtomicU64>>,
    unpriced: Family<ByReason, Counter>,
    answers: Rows<ByAnswer, Counter>,
    attempts: Rows<ByAttempt, Counter>,
    verdicts: Rows<ByVerdict, Counter>,
    pub(crate) duration: Rows<ByRoute, Histogram>,
    pub(crate) first_byte: Rows<ByRoute, Histogram>,
    pub(crate) first_token: Rows<ByRoute, Histogram>,
    pub(crate) commit: Histogram,
    pub(crate) refusals: Family<ByReason, Counter>,
    pub(crate) failures: Family<ByReason, Counter>,
    pub(crate) drains: Family<ByReason, Counter>,
    pub(crate) open: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) watermarks: Family<ByMark, Gauge>,
    pub(crate) lag: Family<ByMark, Gauge>,
    pub(crate) oldest_unsealed: Gauge<f64, AtomicU64>,
    pub(crate) oldest_unshipped: Gauge<f64, AtomicU64>,
    pub(crate) oldest_unarchived: Gauge<f64, AtomicU64>,
    pub(crate) oldest_earlier_log: Gauge<f64, AtomicU64>,
    pub(crate) earlier_logs: Family<ByState, Gauge>,
    pub(crate) spool: Gauge,
    pub(crate) spool_bound: Gauge,
    pub(crate) spool_kept: Gauge,
    pub(crate) reshipped: Counter,
    pub(crate) reserved: Gauge,
    pub(crate) disk_free: Family<ByFolder, Gauge>,
    pub(crate) unavailable: Family<ByReason, Gauge>,
    pub(crate) store_trouble: Family<ByReason, Gauge>,
    pub(crate) unrecorded: Counter,
    pub(crate) untold: Gauge,
    pub(crate) erasures_due: Gauge,
    pub(crate) phase: Family<ByState, Gauge>,
    pub(crate) log: Family<ByLog, Gauge>,
    pub(crate) clock: Gauge<f64, AtomicU64>,
    pub(crate) certificate: Family<ByListener, Gauge<f64, AtomicU64>>,
    pub(crate) journal: Gauge,
    pub(crate) ready: Gauge,
    pub(crate) spool_full_in: Gauge<f64, AtomicU64>,
    pub(crate) store_failures: Family<ByReason, Counter>,
    pub(crate) receipts_forged: Counter,
    pub(crate) put_again: Counter,
    pub(crate) commit_forged: Counter,
    pub(crate) lease_age: Gauge<f64, AtomicU64>,
    pub(crate) uncommitted: Gauge,
    pub(crate) uncommitted_bytes: Gauge,
    pub(crate) reloads: Family<ByResult, Counter>,
    pub(crate) tokens_fetched: Rows<ByFetch, Counter>,
    pub(crate) tap: TapTelemetry,
    pub(crate) otlp: OtlpTelemetry,
    pub(crate) quotas: QuotaTelemetry,
    pub(crate) balance: Meters,
    pub(crate) identity: IdentityTelemetry,
    in_use: InUse,
    signed: Signed,
}

/// What heartbeats carry: cumulative since `boot`.
#[derive(Debug, Default)]
struct Signed {
    exchanges: AtomicU64,
    outcomes: AtomicU64,
    refusals: AtomicU64,
    released_lost: AtomicU64,
    by_reason: Mutex<BTreeMap<String, u64>>,
}

impl Telemetry {
    /// Registers every metric.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("gateway");
        macro_rules! add {
            ($make:expr, $name:literal, $help:literal) => {{
                let metric = $make;
                registry.register($name, $help, metric.clone());
                metric
            }};
            ($make:expr, $name:literal, $help:literal, $unit:expr) => {{
                let metric = $make;
                registry.register_with_unit($name, $help, $unit, metric.clone());
                metric
            }};
        }
        let exchanges =
            add!(Rows::default(), "exchanges", "Exchanges that ended, by route, end and status class");
        let tokens = add!(Rows::default(), "tokens", "Tokens incurred, by route and class");
        let estimated_tokens =
            add!(Rows::default(), "estimated_tokens", "Those of them that are estimates, by route and class");
        let estimates: Family<ByResult, Counter> = add!(
            Family::default(),
            "usage_estimates",
            "Answers whose provider told no usage, by what became of the estimate"
        );
        let cost = add!(Rows::default(), "cost", "Cost in the currency's main unit, by route and currency");
        let cost_by_price = add!(
            Rows::default(),
            "cost_by_price",
            "Cost in the currency's main unit, by row of the price book and currency"
        );
        let cost_by_team = add!(
            Rows::default(),
            "cost_by_team",
            "Cost in the currency's main unit, by team and currency; without a team that key or route say, the team is empty"
        );
        let unpriced: Family<ByReason, Counter> = add!(
            Family::default(),
            "unpriced_exchanges",
            "Exchanges that may have cost something and that no cost could be given for, by reason"
        );
        let answers = add!(
            Rows::default(),
            "provider_answers",
            "What became of requests that were let go to a provider, by provider and answer"
        );
        let attempts = add!(
            Rows::default(),
            "attempts",
            "Requests to the targets of a route, by why they were made and what came of them"
        );
        let verdicts = add!(
            Rows::default(),
            "policy_verdicts",
            "Verdicts of the policy, by decision and the rule that decided"
        );
        let duration = add!(
            Rows::made_by(seconds),
            "exchange_duration",
            "From the request's head to the known end",
            Unit::Seconds
        );
        let first_byte = add!(
            Rows::made_by(seconds),
            "time_to_first_byte",
            "From the request's head to the first byte of the provider's body",
            Unit::Seconds
        );
        let first_token = add!(
            Rows::made_by(seconds),
            "time_to_first_token",
            "From the request's head to the first event with model output",
            Unit::Seconds
        );
        let commit = add!(seconds(), "intent_commit", "How long intents wait for the disk", Unit::Seconds);
        let refusals = add!(Family::default(), "refusals", "Requests refused by the gateway, by reason");
        let failures = add!(Family::default(), "failures", "What failed below HTTP, by reason");
        let drains: Family<ByReason, Counter> = add!(
            Family::default(),
            "drains",
            "Answers read on after their caller had left, by whether their usage came (`usage`, `none`)"
        );
        let open = add!(Gauge::default(), "exchanges_open", "Exchanges under way");
        let connections = add!(Gauge::default(), "caller_connections", "Connections of callers");
        let watermarks = add!(Family::default(), "records", "Records up to each watermark, by mark");
        let lag = add!(Family::default(), "records_behind", "Records journaled and not yet at the mark");
        let oldest_unsealed = add!(
            Gauge::default(),
            "oldest_unsealed",
            "Age of the oldest record not yet sealed",
            Unit::Seconds
        );
        let oldest_unarchived = add!(
            Gauge::default(),
            "oldest_unarchived",
            "Age of the oldest record not yet archived",
            Unit::Seconds
        );
        let oldest_unshipped = add!(
            Gauge::default(),
            "oldest_unshipped",
            "Age of the oldest record not yet put into the store",
            Unit::Seconds
        );
        let earlier_logs = add!(
            Family::default(),
            "earlier_logs",
            "Logs of earlier processes in the journal folder: `running` in a process that drains, `waiting` for their recovery or the store, `stopped` until someone acts"
        );
        let oldest_earlier_log = add!(
            Gauge::default(),
            "oldest_earlier_log",
            "Since when the oldest of these logs was begun; 0 where there is none",
            Unit::Seconds
        );
        let spool_bound = add!(
            Gauge::default(),
            "spool_bound",
            "What may wait for the store before traffic is refused",
            Unit::Bytes
        );
        let spool_kept = add!(
            Gauge::default(),
            "spool_kept",
            "Size of archived batches that are kept for a store that loses them",
            Unit::Bytes
        );
        let reshipped = add!(
            Counter::default(),
            "batches_reshipped",
            "Kept batches that were put again and that the store had lost"
        );
        let reserved =
            add!(Gauge::default(), "reserved", "Room that is promised to exchanges under way", Unit::Bytes);
        let disk_free =
            add!(Family::default(), "disk_free", "Free space where a folder of the evidence is", Unit::Bytes);
        let unavailable = add!(
            Family::default(),
            "evidence_unavailable",
            "1 for the reason why no evidence can be written now and traffic is refused, 0 for all others"
        );
        let store_trouble = add!(
            Family::default(),
            "store_trouble",
            "1 for what keeps the store from taking batches now, 0 for all others"
        );
        let unrecorded = add!(
            Counter::default(),
            "unrecorded_exchanges",
            "Exchanges on routes with `fail_mode: open` that passed, or were refused, without a record"
        );
        let untold = add!(
            Gauge::default(),
            "unrecorded_exchanges_untold",
            "Those of them that no `gap` record counts yet"
        );
        let erasures_due = add!(
            Gauge::default(),
            "erasures_due",
            "Content keys whose erasure is recorded and that could not be destroyed yet"
        );
        let phase = add!(Family::default(), "phase", "1 for what the process does now, 0 for all others");
        let log = add!(Family::default(), "log_info", "The log that the process writes");
        let clock = add!(
            Gauge::default(),
            "clock_timestamp",
            "What the clock of the process says, to be held against Prometheus' own",
            Unit::Seconds
        );
        let certificate = add!(
            Family::default(),
            "certificate_expiry_timestamp",
            "When the certificate of a listener, or one of its chain, ends",
            Unit::Seconds
        );
        let journal = add!(Gauge::default(), "journal", "Size of the journal's segments", Unit::Bytes);
        let ready = add!(
            Gauge::default(),
            "ready",
            "Whether new exchanges are admitted, or pass unrecorded on some route"
        );
        let spool = add!(Gauge::default(), "spool", "Size of batches on their way out", Unit::Bytes);
        let spool_full_in = add!(
            Gauge::<f64, AtomicU64>::default(),
            "spool_full_in",
            "When the spool is over its bound, or its disk full, if it goes on filling as in the last minutes; +Inf where it does not",
            Unit::Seconds
        );
        let store_failures = add!(
            Family::default(),
            "store_failures",
            "Batches that the store did not take and that are tried again, by reason"
        );
        let receipts_forged = add!(
            Counter::default(),
            "receipts_forged",
            "Messages of the receipts topic that no configured archiver signed"
        );
        let put_again = add!(
            Counter::default(),
            "batches_put_again",
            "Batches that were put into the topic again, for want of a receipt"
        );
        let commit_forged = add!(
            Counter::default(),
            "commit_messages_forged",
            "Messages of the commit topic that nobody with the deployment's secret wrote; with `commit: kafka` only"
        );
        let lease_age = add!(
            Gauge::<f64, AtomicU64>::default(),
            "commit_lease_age",
            "Since when the newest lease that counts was sent; with `commit: kafka` only",
            Unit::Seconds
        );
        let uncommitted = add!(
            Gauge::default(),
            "uncommitted_groups",
            "Groups of the journal that the brokers have not acknowledged, or that no lease lets go"
        );
        let uncommitted_bytes = add!(Gauge::default(), "uncommitted", "Bytes of these groups", Unit::Bytes);
        let tokens_fetched = add!(
            Rows::default(),
            "provider_tokens",
            "Access tokens that the gateway fetched for a provider, by provider and result"
        );
        let reloads: Family<ByResult, Counter> =
            add!(Family::default(), "reloads", "Reloads of the configuration, by how they ended");
        // A counter that is not there yet has not grown: each begins with 0, so that its first step is seen.
        for result in ["taken", "refused", "unrecorded", "vault_away"] {
            reloads.get_or_create(&ByResult { result }).inc_by(0);
        }
        for reason in [Unpriced::NoPrice, Unpriced::NoUsage].into_iter().filter_map(unpriced_name) {
            unpriced.get_or_create(&ByReason { reason }).inc_by(0);
        }
        for result in Estimated::NAMES {
            estimates.get_or_create(&ByResult { result }).inc_by(0);
        }
        for reason in ["usage", "none"] {
            drains.get_or_create(&ByReason { reason }).inc_by(0);
        }
        let tap = TapTelemetry::new(&mut registry);
        let otlp = OtlpTelemetry::new(&mut registry);
        let quotas = QuotaTelemetry::new(&mut registry);
        let balance = Meters::new(&mut registry);
        let identity = IdentityTelemetry::new(&mut registry);
        Self {
            registry,
            exchanges,
            tokens,
            estimated_tokens,
            estimates,
            cost,
            cost_by_price,
            cost_by_team,
            unpriced,
            answers,
            attempts,
            verdicts,
            duration,
            first_byte,
            first_token,
            commit,
            refusals,
            failures,
            drains,
            open,
            connections,
            watermarks,
            lag,
            oldest_unsealed,
            oldest_unshipped,
            oldest_unarchived,
            oldest_earlier_log,
            earlier_logs,
            spool,
            spool_bound,
            spool_kept,
            reshipped,
            reserved,
            disk_free,
            unavailable,
            store_trouble,
            unrecorded,
            untold,
            erasures_due,
            phase,
            log,
            clock,
            certificate,
            journal,
            ready,
            spool_full_in,
            store_failures,
            receipts_forged,
            put_again,
            commit_forged,
            lease_age,
            uncommitted,
            uncommitted_bytes,
            reloads,
            tokens_fetched,
            tap,
            otlp,
            quotas,
            balance,
            identity,
            in_use: InUse::default(),
            signed: Signed::default(),
        }
    }

    /// The metrics in OpenMetrics text.
    fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String fails only where an encoder says so; a half text is better than none.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// What is named here is shown as long as somebody holds it, and once more then.
    pub(crate) fn shows(&self, names: &Arc<Names>) {
        self.in_use.add(names);
    }

    /// The metrics in OpenMetrics text. What no configuration names any more under which an exchange could still end is in it
    /// with its last values, and in no later one.
    pub(crate) fn show(&self) -> String {
        // Before the text is made: what ends meanwhile is not taken away unseen.
        let in_use = self.in_use.all();
        let text = self.encode();
        // Without any, the process only begins.
        if !in_use.is_empty() {
            self.keep(&in_use);
        }
        text
    }

    fn keep(&self, in_use: &[Arc<Names>]) {
        self.exchanges.keep(in_use);
        self.tokens.keep(in_use);
        self.estimated_tokens.keep(in_use);
        self.cost.keep(in_use);
        self.cost_by_price.keep(in_use);
        self.cost_by_team.keep(in_use);
        self.answers.keep(in_use);
        self.attempts.keep(in_use);
        self.verdicts.keep(in_use);
        self.duration.keep(in_use);
        self.first_byte.keep(in_use);
        self.first_token.keep(in_use);
        self.tokens_fetched.keep(in_use);
        self.balance.keep(in_use);
        self.identity.keep(in_use);
    }

    /// Begins with 0 what these providers and this policy may be counted under, so that the first step is seen.
    pub(crate) fn expect<'a>(&self, providers: impl Iterator<Item = &'a str>, policy: Option<&Policy>) {
        for provider in providers {
            for answer in ANSWERS {
                let by = ByAnswer { provider: provider.to_owned(), answer };
                self.answers.get_or_create(&by).inc_by(0);
            }
        }
        let Some(policy) = policy else { return };
        let against = match policy.mode() {
            Mode::Enforce => Decision::Deny,
            Mode::Observe => Decision::WouldDeny,
        };
        for rule in policy.rule_ids().map(Identifier::as_str).chain(["default"]) {
            for decision in [Decision::Allow, against].map(decision_name) {
                let by = ByVerdict { decision, rule: rule.to_owned() };
                self.verdicts.get_or_create(&by).inc_by(0);
            }
        }
    }

    /// Counts what a provider answered to one request.
    pub(crate) fn answered(&self, provider: &str, end: End, status: Option<u16>) {
        let by = ByAnswer { provider: provider.to_owned(), answer: answer_name(end, status) };
        self.answers.get_or_create(&by).inc();
    }

    /// Begins with 0 what the targets of a route may be counted under.
    pub(crate) fn expect_targets<'a>(&self, route: &str, targets: impl Iterator<Item = &'a str>) {
        for target in targets {
            self.attempts_of(route, target, "first", "answered").inc_by(0);
        }
    }

    /// Counts a request to a target.
    pub(crate) fn attempted(&self, route: &str, target: &str, reason: &'static str, result: &'static str) {
        self.attempts_of(route, target, reason, result).inc();
    }

    fn attempts_of(&self, route: &str, target: &str, reason: &'static str, result: &'static str) -> Counter {
        self.attempts.get_or_create(&ByAttempt {
            route: route.to_owned(),
            target: target.to_owned(),
            reason,
            result,
        })
    }

    /// Counts a verdict of the policy.
    pub(crate) fn judged(&self, verdict: &Verdict) {
        let rule = verdict.facts.get("decided_by").map_or("default", Identifier::as_str).to_owned();
        let decision = decision_name(verdict.decision);
        self.verdicts.get_or_create(&ByVerdict { decision, rule }).inc();
    }

    /// Counts the tokens that a request incurred.
    pub(crate) fn incurred(&self, route: &str, usage: &Usage) {
        if usage.role != UsageRole::Incurred {
            return;
        }
        for (class, count) in [
            ("input", usage.uncached_input_tokens.or(usage.input_tokens)),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write_5m", usage.cache_write_5m_tokens),
            ("cache_write_1h", usage.cache_write_1h_tokens),
            ("output", usage.output_tokens),
        ] {
            if let Some(count) = count.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0)
            {
                self.used(route, class, count, usage.source == UsageSource::Estimated);
            }
        }
    }

    fn used(&self, route: &str, class: &'static str, tokens: u64, estimated: bool) {
        let by_class = ByClass { route: route.to_owned(), class };
        // The one begins where the other does, so that its first step is seen.
        self.estimated_tokens.get_or_create(&by_class).inc_by(if estimated { tokens } else { 0 });
        self.tokens.get_or_create(&by_class).inc_by(tokens);
    }

    /// Counts an answer whose provider told no usage.
    pub(crate) fn estimated(&self, estimated: &Estimated) {
        self.estimates.get_or_create(&ByResult { result: estimated.name() }).inc();
    }

    /// Counts what was paid, for a route and the team of who asked; no route: the gateway asked for itself.
    pub(crate) fn paid(&self, cost: &Cost, route: Option<&Identifier>, team: Option<&Attributed>) {
        let Ok(total) = cost.total.parse::<f64>() else { return };
        let currency = || cost.currency.as_str().to_owned();
        let by_price = ByPrice { price: cost.price_row.as_str().to_owned(), currency: currency() };
        self.cost_by_price.get_or_create(&by_price).inc_by(total);
        let by_team = ByTeam { team: team_label(team), currency: currency() };
        self.cost_by_team.get_or_create(&by_team).inc_by(total);
        let route = route.map_or_else(String::new, |route| route.as_str().to_owned());
        self.cost.get_or_create(&ByCurrency { route, currency: currency() }).inc_by(total);
    }

    /// Counts an exchange without a cost.
    pub(crate) fn unpriced(&self, why: Unpriced) {
        if let Some(reason) = unpriced_name(why) {
            self.unpriced.get_or_create(&ByReason { reason }).inc();
        }
    }

    /// Counts an exchange whose intent is durable.
    pub(crate) fn intended(&self) {
        self.signed.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an exchange whose outcome is durable.
    pub(crate) fn ended(&self) {
        self.signed.outcomes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal with a record of its own.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.signed.refusals.fetch_add(1, Ordering::Relaxed);
        self.refusals.get_or_create(&ByReason { reason }).inc();
    }

    /// Counts a refusal that no record could be written for: a counter of the next heartbeat (CA-3).
    pub(crate) fn refused_unrecorded(&self, reason: &'static str) {
        self.refusals.get_or_create(&ByReason { reason }).inc();
        self.sign(format!("refused_unrecorded_{reason}"), 1);
    }

    /// Counts a failure below HTTP: a counter of the next heartbeat (CA-3).
    pub(crate) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ByReason { reason }).inc();
        self.sign(format!("failed_{reason}"), 1);
    }

    /// Counts a caller that was lost between a commit and the bytes that it let go (CA-6).
    pub(crate) fn released_lost(&self) {
        self.signed.released_lost.fetch_add(1, Ordering::Relaxed);
    }

    fn sign(&self, name: String, more: u64) {
        let mut counters = self.signed.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.entry(name).or_default() += more;
    }

    /// The counters for a heartbeat.
    pub(crate) fn signed(&self) -> BTreeMap<String, u64> {
        let mut all = self.signed.by_reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut put = |name: &str, value: &AtomicU64| {
            all.insert(name.to_owned(), value.load(Ordering::Relaxed));
        };
        put("exchanges", &self.signed.exchanges);
        put("outcomes", &self.signed.outcomes);
        put("refusals", &self.signed.refusals);
        put("released_lost", &self.signed.released_lost);
        all
    }
}

/// Sets 1 for the one of `all` that holds, and 0 for the others.
pub(crate) fn holds<L>(
    family: &Family<L, Gauge>,
    label: impl Fn(&'static str) -> L,
    all: impl IntoIterator<Item = &'static str>,
    holds: Option<&'static str>,
) where
    L: Clone + std::hash::Hash + Eq,
{
    for word in all {
        family.get_or_create(&label(word)).set(i64::from(holds == Some(word)));
    }
}

/// A team as a label: only names of the configuration are one.
fn team_label(team: Option<&Attributed>) -> String {
    match team {
        Some(Attributed { value, source: Source::Key | Source::Route }) => value.as_str().to_owned(),
        _ => String::new(),
    }
}

/// What became of a request at its provider, as a label.
fn answer_name(end: End, status: Option<u16>) -> &'static str {
    match end {
        End::ProviderAbort => "cut",
        End::Timeout => "timeout",
        End::Unreachable => "unreachable",
        _ if status == Some(429) => "429",
        _ => status_class(status),
    }
}

fn decision_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
        Decision::WouldDeny => "would_deny",
    }
}

/// Why there is no cost, as a label; none where nothing was to be paid.
fn unpriced_name(why: Unpriced) -> Option<&'static str> {
    match why {
        Unpriced::NoPrice => Some("no_price"),
        Unpriced::NoUsage => Some("no_usage"),
        Unpriced::NotIncurred => None,
    }
}

/// The class of an HTTP status, as a label.
pub(crate) fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(100..=199) => "1xx",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_counters_are_cumulative_and_named_by_reason() {
        let telemetry = Telemetry::new();
        telemetry.failed("tls_handshake");
        telemetry.failed("tls_handshake");
        telemetry.refused_unrecorded("draining");
        telemetry.intended();
        let counters = telemetry.signed();
        assert_eq!(counters.get("failed_tls_handshake"), Some(&2));
        assert_eq!(counters.get("refused_unrecorded_draining"), Some(&1));
        assert_eq!(counters.get("exchanges"), Some(&1));
        assert_eq!(counters.get("outcomes"), Some(&0));
        assert!(telemetry.encode().contains("gateway_refusals_total{reason=\"draining\"} 1"));
    }

    #[test]
    fn every_rule_and_every_answer_of_a_provider_is_counted_from_0() {
        let telemetry = Telemetry::new();
        let policy = b"mode: enforce\ndefault: allow\nrules:\n  - { id: none-of-o1, effect: deny, models: [\"o1*\"] }\n";
        let policy = Policy::parse(policy).unwrap();
        telemetry.expect(["openai"].into_iter(), Some(&policy));
        telemetry.answered("openai", End::Complete, Some(200));
        telemetry.answered("openai", End::Complete, Some(429));
        telemetry.answered("openai", End::ProviderAbort, Some(200));
        telemetry.unpriced(Unpriced::NoPrice);
        telemetry.unpriced(Unpriced::NotIncurred);
        let text = telemetry.encode();
        for line in [
            "gateway_policy_verdicts_total{decision=\"deny\",rule=\"none-of-o1\"} 0",
            "gateway_policy_verdicts_total{decision=\"allow\",rule=\"default\"} 0",
            "gateway_provider_answers_total{provider=\"openai\",answer=\"2xx\"} 1",
            "gateway_provider_answers_total{provider=\"openai\",answer=\"429\"} 1",
            "gateway_provider_answers_total{provider=\"openai\",answer=\"cut\"} 1",
            "gateway_provider_answers_total{provider=\"openai\",answer=\"5xx\"} 0",
            "gateway_unpriced_exchanges_total{reason=\"no_price\"} 1",
            "gateway_unpriced_exchanges_total{reason=\"no_usage\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn a_team_that_a_caller_asserts_is_no_label() {
        let team = |source| Attributed { value: Identifier::new("red").unwrap(), source };
        assert_eq!(team_label(Some(&team(Source::Key))), "red");
        assert_eq!(team_label(Some(&team(Source::Route))), "red");
        assert_eq!(team_label(Some(&team(Source::Asserted))), "");
        assert_eq!(team_label(None), "");
    }

    #[test]
    fn a_set_of_states_has_a_series_for_each_and_one_that_holds() {
        let telemetry = Telemetry::new();
        holds(&telemetry.phase, |state| ByState { state }, PHASES, Some("serving"));
        holds(&telemetry.phase, |state| ByState { state }, PHASES, Some("draining"));
        let text = telemetry.encode();
        for (state, value) in [("starting", 0), ("serving", 0), ("draining", 1)] {
            let line = format!("gateway_phase{{state=\"{state}\"}} {value}");
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }
}
