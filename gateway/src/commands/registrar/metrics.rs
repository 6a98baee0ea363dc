//! What a registrar counts: who was asked for a word on the registry, and up to where each gave it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use evidence::registry::{GatewayLogs, RegistrarError, Round};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::record::now_us;

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

/// A witness by its configured name, or `timestamp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct By {
    pub(super) by: String,
}

/// With what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByResult {
    pub(super) by: String,
    pub(super) result: &'static str,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRound {
    result: &'static str,
}

/// A gateway by its name: each that has a root-signed key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByGateway {
    gateway: String,
}

/// With how its logs stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByLogs {
    gateway: String,
    state: &'static str,
}

/// The results of rounds.
const ROUNDS: [&str; 6] = ["idle", "stored", "standing_by", "refused", "failed", "damaged"];

/// The registrar's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) asked: Family<ByResult, Counter>,
    pub(super) anchored: Family<By, Gauge>,
    pub(super) sealed: Family<By, Gauge<f64, AtomicU64>>,
    pub(super) size: Gauge,
    set_aside: Counter,
    rounds: Family<ByRound, Counter>,
    last_round: Gauge<f64, AtomicU64>,
    registry_sealed: Gauge<f64, AtomicU64>,
    logs: Family<ByLogs, Gauge>,
    log_sealed: Family<ByGateway, Gauge<f64, AtomicU64>>,
    clock: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gateway_registrar"),
            asked: Family::default(),
            anchored: Family::default(),
            sealed: Family::default(),
            size: Gauge::default(),
            set_aside: Counter::default(),
            rounds: Family::default(),
            last_round: Gauge::default(),
            registry_sealed: Gauge::default(),
            logs: Family::default(),
            log_sealed: Family::default(),
            clock: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let asked = "Requests to witnesses and timestamp authorities, by result";
        registry.register("anchor_requests", asked, metrics.asked.clone());
        let anchored = "Size of the largest tree of the registry that was cosigned or timestamped";
        registry.register("anchored_size", anchored, metrics.anchored.clone());
        let sealed = "When that tree was sealed, seconds since 1970";
        registry.register("anchored_sealed_timestamp_seconds", sealed, metrics.sealed.clone());
        registry.register("registry_size", "Size of the registry's tree", metrics.size.clone());
        let aside =
            "Things in the store, or in the folder of key entries, that were set aside since the start";
        registry.register("set_aside", aside, metrics.set_aside.clone());
        let rounds =
            "Rounds by what they came to: `failed` is tried again, `damaged` is a registry that is not sound";
        registry.register("rounds", rounds, metrics.rounds.clone());
        let last = "When a round ended without an error last; 0: not since the start";
        registry.register("last_round_timestamp_seconds", last, metrics.last_round.clone());
        let sealed = "When the registry's newest seal was made";
        registry.register("sealed_timestamp_seconds", sealed, metrics.registry_sealed.clone());
        let logs =
            "Logs of each gateway: `open`, `closed`, or `lost`: silent past its bounds and not closed since";
        registry.register("logs", logs, metrics.logs.clone());
        let sealed = "When the newest seal of a gateway's logs that are not closed was made";
        registry.register("log_sealed_timestamp_seconds", sealed, metrics.log_sealed.clone());
        let clock = "What the clock of the process says, to be held against Prometheus' own";
        registry.register("clock_timestamp_seconds", clock, metrics.clock.clone());
        for result in ROUNDS {
            metrics.rounds.get_or_create(&ByRound { result }).inc_by(0);
        }
        metrics
    }

    /// A round came to this.
    pub(super) fn round(&self, round: &Result<Round, RegistrarError>, now_us: i64) {
        let result = match round {
            Ok(Round::Idle) => "idle",
            Ok(Round::Stored(_)) => "stored",
            Ok(Round::StandingBy) => "standing_by",
            Ok(Round::Refused) => "refused",
            Err(RegistrarError::Damaged { .. }) => "damaged",
            Err(_) => "failed",
        };
        self.rounds.get_or_create(&ByRound { result }).inc();
        if round.is_ok() {
            self.last_round.set(seconds(now_us));
        }
    }

    /// How registry and logs stand.
    pub(super) fn stand(
        &self,
        gateways: &BTreeMap<String, GatewayLogs>,
        sealed_us: Option<i64>,
        aside: usize,
    ) {
        self.set_aside.inner().store(aside as u64, Ordering::Relaxed);
        if let Some(sealed_us) = sealed_us {
            self.registry_sealed.set(seconds(sealed_us));
        }
        for (gateway, logs) in gateways {
            for (state, count) in [("open", logs.open), ("closed", logs.closed), ("lost", logs.lost)] {
                let by = ByLogs { gateway: gateway.clone(), state };
                self.logs.get_or_create(&by).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let by = ByGateway { gateway: gateway.clone() };
            match logs.sealed_us {
                Some(sealed_us) => {
                    self.log_sealed.get_or_create(&by).set(seconds(sealed_us));
                }
                // All of its logs are closed: no seal is waited for.
                None => {
                    self.log_sealed.remove(&by);
                }
            }
        }
    }

    /// A request to somebody came to this.
    pub(super) fn asked(&self, by: &str, result: &'static str) {
        self.asked.get_or_create(&ByResult { by: by.to_owned(), result }).inc();
    }

    /// Somebody's word reaches so far.
    pub(super) fn reached(&self, by: &str, size: u64, sealed_us: i64) {
        let by = By { by: by.to_owned() };
        self.anchored.get_or_create(&by).set(i64::try_from(size).unwrap_or(i64::MAX));
        self.sealed.get_or_create(&by).set(seconds(sealed_us));
    }

    /// The text of `/metrics`.
    pub(super) fn text(&self) -> String {
        self.clock.set(seconds(now_us()));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
