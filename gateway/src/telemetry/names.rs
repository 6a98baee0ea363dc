//! What a configuration names, as far as metrics have it for labels. A name that no configuration has any more under which an
//! exchange may still end is shown no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use schemas::Identifier;

use super::{
    ByAnswer, ByAttempt, ByClass, ByCurrency, ByEnd, ByFetch, ByIssuer, ByIssuerResult, ByPrice, ByRoute,
    ByTeam, ByVerdict,
};
use crate::config::{Loaded, Provider, Route};

/// The names of one configuration.
#[derive(Debug)]
pub(crate) struct Names {
    routes: BTreeMap<String, OfRoute>,
    providers: BTreeMap<String, OfProvider>,
    /// Those of keys and routes.
    teams: BTreeSet<String>,
    /// Rows of the price book.
    prices: BTreeSet<String>,
    /// Rules of the policy.
    rules: BTreeSet<String>,
    /// Issuers of tokens.
    issuers: BTreeSet<String>,
}

#[derive(Debug)]
struct OfRoute {
    /// Its targets, with their providers.
    targets: BTreeMap<String, String>,
    /// Its targets are chosen by meaning.
    is_semantic: bool,
}

#[derive(Debug)]
struct OfProvider {
    /// Its keys; one without a name where it has no `keys`.
    keys: BTreeSet<String>,
    is_probed: bool,
    /// The gateway fetches tokens for it.
    has_tokens: bool,
}

impl OfRoute {
    fn of(typed: &Route) -> Self {
        let targets = typed.all_targets();
        let targets = targets.iter().map(|target| (text(&target.name), text(&target.provider)));
        let is_semantic = typed.balance.as_ref().is_some_and(|balance| balance.semantic.is_some());
        Self { targets: targets.collect(), is_semantic }
    }
}

impl OfProvider {
    fn of(typed: &Provider) -> Self {
        let named = typed.keys.iter().map(|key| text(&key.name));
        let keys = if typed.keys.is_empty() { BTreeSet::from([String::new()]) } else { named.collect() };
        let is_probed = typed.health.as_ref().is_some_and(|health| health.active.is_some());
        Self { keys, is_probed, has_tokens: typed.google.is_some() || typed.oauth.is_some() }
    }
}

fn text(name: &Identifier) -> String {
    name.as_str().to_owned()
}

impl Names {
    /// Those of `loaded`.
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        let routes = config.routes.iter().map(|route| (text(&route.name), OfRoute::of(route)));
        let providers =
            config.providers.iter().map(|provider| (text(&provider.name), OfProvider::of(provider)));
        let of_keys = loaded.keys.entries().filter_map(|entry| entry.team.as_ref());
        let of_routes = config.routes.iter().filter_map(|route| route.attributes.team.as_ref());
        let rules = loaded.policy.iter().flat_map(|policy| policy.rule_ids());
        let prices = loaded.prices.iter().flat_map(|book| book.rows());
        Self {
            routes: routes.collect(),
            providers: providers.collect(),
            teams: of_keys.chain(of_routes).map(text).collect(),
            prices: prices.map(|row| text(&row.id)).collect(),
            rules: rules.map(text).collect(),
            issuers: config.identity.jwt.iter().map(|issuer| text(&issuer.name)).collect(),
        }
    }

    pub(crate) fn has_route(&self, route: &str) -> bool {
        self.routes.contains_key(route)
    }

    pub(crate) fn has_target(&self, route: &str, target: &str) -> bool {
        self.provider_of(route, target).is_some()
    }

    /// The provider that a target of a route is at.
    pub(crate) fn provider_of(&self, route: &str, target: &str) -> Option<&str> {
        self.routes.get(route)?.targets.get(target).map(String::as_str)
    }

    pub(crate) fn has_provider(&self, provider: &str) -> bool {
        self.providers.contains_key(provider)
    }

    pub(crate) fn has_key(&self, provider: &str, key: &str) -> bool {
        self.providers.get(provider).is_some_and(|of| of.keys.contains(key))
    }

    pub(crate) fn is_probed(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|of| of.is_probed)
    }

    pub(crate) fn has_tokens(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|of| of.has_tokens)
    }

    pub(crate) fn is_semantic(&self, route: &str) -> bool {
        self.routes.get(route).is_some_and(|of| of.is_semantic)
    }

    /// Also of a caller without one.
    pub(crate) fn has_team(&self, team: &str) -> bool {
        team.is_empty() || self.teams.contains(team)
    }

    pub(crate) fn has_price(&self, row: &str) -> bool {
        self.prices.contains(row)
    }

    /// Also what decides where no rule does.
    pub(crate) fn has_rule(&self, rule: &str) -> bool {
        rule == "default" || self.rules.contains(rule)
    }

    pub(crate) fn has_issuer(&self, issuer: &str) -> bool {
        self.issuers.contains(issuer)
    }
}

/// Labels that hold names of a configuration.
pub(crate) trait Named {
    /// Whether `names` has all of them.
    fn is_of(&self, names: &Names) -> bool;
}

/// The names of the configurations that something may still be counted under.
#[derive(Debug, Default)]
pub(crate) struct InUse(Mutex<Vec<Weak<Names>>>);

impl InUse {
    /// Takes the names of a configuration, as long as somebody holds them.
    pub(crate) fn add(&self, names: &Arc<Names>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(names));
    }

    /// All that are held.
    pub(crate) fn all(&self) -> Vec<Arc<Names>> {
        let mut some = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        some.retain(|names| names.strong_count() > 0);
        some.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Named for ByRoute {
    fn is_of(&self, names: &Names) -> bool {
        names.has_route(&self.route)
    }
}

impl Named for ByEnd {
    fn is_of(&self, names: &Names) -> bool {
        names.has_route(&self.route)
    }
}

impl Named for ByClass {
    fn is_of(&self, names: &Names) -> bool {
        names.has_route(&self.route)
    }
}

impl Named for ByCurrency {
    /// Also of what no route asked for: probes with a prompt.
    fn is_of(&self, names: &Names) -> bool {
        self.route.is_empty() || names.has_route(&self.route)
    }
}

impl Named for ByPrice {
    fn is_of(&self, names: &Names) -> bool {
        names.has_price(&self.price)
    }
}

impl Named for ByTeam {
    fn is_of(&self, names: &Names) -> bool {
        names.has_team(&self.team)
    }
}

impl Named for ByAnswer {
    fn is_of(&self, names: &Names) -> bool {
        names.has_provider(&self.provider)
    }
}

impl Named for ByFetch {
    fn is_of(&self, names: &Names) -> bool {
        names.has_tokens(&self.provider)
    }
}

impl Named for ByAttempt {
    fn is_of(&self, names: &Names) -> bool {
        names.has_target(&self.route, &self.target)
    }
}

impl Named for ByVerdict {
    fn is_of(&self, names: &Names) -> bool {
        names.has_rule(&self.rule)
    }
}

impl Named for ByIssuer {
    fn is_of(&self, names: &Names) -> bool {
        names.has_issuer(&self.issuer)
    }
}

impl Named for ByIssuerResult {
    fn is_of(&self, names: &Names) -> bool {
        names.has_issuer(&self.issuer)
    }
}
