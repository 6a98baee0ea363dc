//! What a registrar counts: who was asked for a word on the registry, and up to where each gave it.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

/// The registrar's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) asked: Family<ByResult, Counter>,
    pub(super) anchored: Family<By, Gauge>,
    pub(super) sealed: Family<By, Gauge<f64, AtomicU64>>,
    pub(super) size: Gauge,
    pub(super) set_aside: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gateway_registrar"),
            asked: Family::default(),
            anchored: Family::default(),
            sealed: Family::default(),
            size: Gauge::default(),
            set_aside: Gauge::default(),
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
        metrics
    }

    /// A request to somebody came to this.
    pub(super) fn asked(&self, by: &str, result: &'static str) {
        self.asked.get_or_create(&ByResult { by: by.to_owned(), result }).inc();
    }

    /// Somebody's word reaches so far.
    pub(super) fn reached(&self, by: &str, size: u64, sealed_us: i64) {
        let by = By { by: by.to_owned() };
        self.anchored.get_or_create(&by).set(i64::try_from(size).unwrap_or(i64::MAX));
        self.sealed.get_or_create(&by).set(sealed_us as f64 / 1e6);
    }

    /// The text of `/metrics`.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
