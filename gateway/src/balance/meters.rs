//! What is measured of targets: by names of the configuration and closed words only.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::{Named, Names, Rows};

/// Labels of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByTarget {
    pub(super) route: String,
    pub(super) target: String,
}

/// Labels of a target's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByState {
    pub(super) route: String,
    pub(super) target: String,
    pub(super) provider: String,
    pub(super) state: &'static str,
}

/// Labels of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRoute {
    pub(super) route: String,
}

/// Labels of a key that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByKey {
    pub(super) provider: String,
    pub(super) key: String,
    pub(super) reason: &'static str,
}

/// Labels of a provider's probes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByProbe {
    pub(super) provider: String,
    pub(super) result: &'static str,
}

/// Labels of what a choice by meaning rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByWhy {
    pub(super) route: String,
    pub(super) why: &'static str,
}

/// What is counted of targets, their keys and probes. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    pub(super) state: Rows<ByState, Gauge>,
    pub(super) picks: Rows<ByTarget, Counter>,
    pub(super) ejections: Rows<ByTarget, Counter>,
    pub(super) recoveries: Rows<ByTarget, Counter>,
    pub(super) panics: Rows<ByRoute, Counter>,
    pub(super) cool_downs: Rows<ByKey, Counter>,
    pub(super) probes: Rows<ByProbe, Counter>,
    pub(super) choices: Rows<ByWhy, Counter>,
}

impl Meters {
    /// Registers all of them.
    pub fn new(registry: &mut Registry) -> Self {
        let meters = Self::default();
        let help = "1 for the state of a target, 0 for the others, by route, target and its provider";
        registry.register("target_state", help, meters.state.clone());
        let help = "Requests that were given to a target, by route and target";
        registry.register("target_picks", help, meters.picks.clone());
        let help = "Times that a target was left alone because of what became of callers' requests, by route and target";
        registry.register("target_ejections", help, meters.ejections.clone());
        let help = "Times that such a target came back, by route and target";
        registry.register("target_recoveries", help, meters.recoveries.clone());
        let help = "Requests that were given to a target although none was in order, by route";
        registry.register("target_panics", help, meters.panics.clone());
        let help = "Times that a provider's key was left alone, by provider, key and reason";
        registry.register("provider_key_cool_downs", help, meters.cool_downs.clone());
        let help = "Probes of a provider, by what they found";
        registry.register("provider_probes", help, meters.probes.clone());
        let help =
            "Requests whose target was chosen by what their prompt means, by route and by what that rests on";
        registry.register("semantic_choices", help, meters.choices.clone());
        meters
    }

    /// Shows no more what none of the configurations names.
    pub(crate) fn keep(&self, in_use: &[Arc<Names>]) {
        self.state.keep(in_use);
        self.picks.keep(in_use);
        self.ejections.keep(in_use);
        self.recoveries.keep(in_use);
        self.panics.keep(in_use);
        self.cool_downs.keep(in_use);
        self.probes.keep(in_use);
        self.choices.keep(in_use);
    }

    pub(super) fn cooled(&self, provider: &str, key: &str, reason: &'static str, times: u64) {
        let by = ByKey { provider: provider.to_owned(), key: key.to_owned(), reason };
        self.cool_downs.get_or_create(&by).inc_by(times);
    }

    pub(super) fn chosen(&self, route: &str, why: &'static str, times: u64) {
        self.choices.get_or_create(&ByWhy { route: route.to_owned(), why }).inc_by(times);
    }

    pub(super) fn probed(&self, provider: &str, result: &'static str, times: u64) {
        let by = ByProbe { provider: provider.to_owned(), result };
        self.probes.get_or_create(&by).inc_by(times);
    }
}

impl Named for ByTarget {
    fn is_of(&self, names: &Names) -> bool {
        names.has_target(&self.route, &self.target)
    }
}

impl Named for ByState {
    fn is_of(&self, names: &Names) -> bool {
        names.provider_of(&self.route, &self.target) == Some(self.provider.as_str())
    }
}

impl Named for ByRoute {
    fn is_of(&self, names: &Names) -> bool {
        names.has_route(&self.route)
    }
}

impl Named for ByKey {
    fn is_of(&self, names: &Names) -> bool {
        names.has_key(&self.provider, &self.key)
    }
}

impl Named for ByProbe {
    fn is_of(&self, names: &Names) -> bool {
        names.is_probed(&self.provider)
    }
}

impl Named for ByWhy {
    fn is_of(&self, names: &Names) -> bool {
        names.is_semantic(&self.route)
    }
}
