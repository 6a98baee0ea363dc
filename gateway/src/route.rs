//! The request's path, and what else it is -> the configured route.

pub(crate) mod matching;

use std::collections::BTreeMap;
use std::sync::Arc;

use dialects::{Dialect, Maker};
use http::HeaderMap;
use http::header::HOST;
use schemas::Identifier;
use schemas::record::Caller;

use crate::balance::probe::Keyed;
use crate::balance::semantic::Semantic;
use crate::balance::{Balancer, Meters, TargetSpec};
use crate::config::{
    self, Attributes, Credentials, Estimate, Fact, FailMode, KeyScope, Retry, Untranslatable,
};
use crate::dispatch::alias::Aliases;
use crate::dispatch::budget::Budget;
use crate::dispatch::pool::Provider;
use crate::dispatch::target::Target;
use matching::Matching;

/// A route, ready for the hot path.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Identifier,
    /// Without a trailing `/`; empty for everything.
    prefix: String,
    pub(crate) matching: Option<Matching>,
    /// What callers speak.
    pub(crate) dialect: Dialect,
    /// Whose paths a target has, where they are not all the dialect's.
    pub(crate) maker: Option<Maker>,
    /// The same as records name it.
    pub(crate) dialect_name: Option<Identifier>,
    /// At least one.
    pub(crate) targets: Vec<Arc<Target>>,
    /// Whether targets have names of their own, which records tell.
    pub(crate) names_targets: bool,
    /// Spreads requests over the targets.
    pub(crate) balancer: Arc<Balancer>,
    /// Says which target a prompt means, where that decides.
    pub(crate) semantic: Option<Arc<Semantic>>,
    pub(crate) aliases: Aliases,
    pub(crate) retry: Retry,
    pub(crate) budget: Arc<Budget>,
    pub(crate) server_timing: bool,
    /// What a target's dialect cannot say is left out.
    pub(crate) drops_untranslatable: bool,
    pub(crate) retention: Identifier,
    pub(crate) keys: KeyScope,
    pub(crate) keep_content: bool,
    pub(crate) fail_open: bool,
    pub(crate) receipts: bool,
    /// Usage that no provider told is estimated.
    pub(crate) estimates: bool,
    pub(crate) attributes: Attributes,
    /// Fact -> header.
    pub(crate) asserted_headers: BTreeMap<String, String>,
    /// Facts without which a call is refused.
    require: Vec<Fact>,
    /// Whether callers' own credentials go to the provider.
    pub(crate) forwards: bool,
}

/// All routes, the longest prefix first, those of one length in the order of the file.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
}

/// The host that a request names, in lower case and without port.
pub(crate) fn host(head: &http::request::Parts) -> Option<String> {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let named = authority.or_else(|| head.headers.get(HOST)?.to_str().ok())?;
    let named = named.trim();
    // The port is behind the last `:` that is in no IPv6 address.
    let end = match named.rfind(':') {
        Some(at) if !named.get(at..)?.contains(']') => at,
        _ => named.len(),
    };
    Some(named.get(..end)?.to_ascii_lowercase())
}

impl Route {
    /// The path that it is for, as configured.
    pub(crate) fn path(&self) -> &str {
        if self.prefix.is_empty() { "/" } else { &self.prefix }
    }

    /// The first fact that it requires and that nobody gave.
    pub(crate) fn missing(&self, caller: &Caller) -> Option<Fact> {
        self.require.iter().copied().find(|fact| {
            let given = match fact {
                Fact::Subject => &caller.subject,
                Fact::Team => &caller.team,
                Fact::Organisation => &caller.organisation,
                Fact::CostCentre => &caller.cost_centre,
                Fact::System => &caller.system,
                Fact::Purpose => &caller.purpose,
                Fact::DataClass => &caller.data_class,
            };
            given.is_none()
        })
    }

    /// Whether more of a request must be known than its head and its caller.
    pub(crate) fn asks_body(&self) -> bool {
        self.matching.as_ref().is_some_and(Matching::asks_body)
    }

    /// Whether callers may send their key in the query, as Google's SDKs do: no `key` there is anything else.
    pub(crate) fn takes_query_key(&self) -> bool {
        matches!(self.dialect, Dialect::Gemini | Dialect::Vertex)
    }

    /// Joins a route with its providers; goes on with what `before` knows of its targets, and with its budget where that is
    /// the same.
    fn new(
        typed: &config::Route,
        providers: &BTreeMap<Identifier, Keyed>,
        meters: &Meters,
        before: Option<&Route>,
    ) -> Result<Self, Identifier> {
        let (mut targets, mut specs) = (Vec::new(), Vec::new());
        let all = typed.all_targets();
        for target in &all {
            let missing = || target.provider.clone();
            let keyed = providers.get(&target.provider).ok_or_else(missing)?;
            let provider = keyed.providers.first().ok_or_else(missing)?;
            targets.push(Arc::new(Target::new(target, &keyed.providers, provider, typed)));
            specs.push(TargetSpec {
                name: target.name.clone(),
                upstream: Arc::clone(&keyed.upstream),
                weight: target.weight,
                priority: target.priority,
            });
        }
        let balance = typed.balance.clone().unwrap_or_default();
        let known = before.map(|before| &*before.balancer);
        let balancer = Arc::new(Balancer::new(&typed.name, &specs, &balance, meters, known));
        let first = targets.first().ok_or_else(|| typed.name.clone())?;
        let dialect = typed.dialect.map_or(first.provider.dialect, Dialect::from);
        let retention = Identifier::new(typed.retention.clone()).map_err(|_| typed.name.clone())?;
        let semantic = Semantic::new(
            typed,
            &all,
            |name| providers.get(name).cloned(),
            &retention,
            meters,
            before.and_then(|before| before.semantic.as_deref()),
        );
        let retry = typed.retries();
        let percent = retry.budget.percent;
        let budget = before
            .map(|before| &before.budget)
            .filter(|budget| budget.percent() == percent)
            .map_or_else(|| Arc::new(Budget::new(percent)), Arc::clone);
        Ok(Self {
            name: typed.name.clone(),
            prefix: typed.path.trim_end_matches('/').to_owned(),
            matching: typed.matching.as_ref().map(Matching::new),
            dialect,
            maker: targets
                .first()
                .and_then(|target| target.provider.maker)
                .filter(|maker| targets.iter().all(|target| target.provider.maker == Some(*maker))),
            dialect_name: Identifier::new(dialect.name()).ok(),
            balancer,
            semantic: semantic.map(Arc::new),
            targets,
            names_targets: typed.provider.is_none(),
            aliases: Aliases::new(&typed.models),
            retry,
            budget,
            server_timing: typed.server_timing,
            drops_untranslatable: typed.untranslatable == Untranslatable::Drop,
            retention,
            keys: typed.keys,
            keep_content: typed.keep_content,
            fail_open: typed.fail_mode == FailMode::Open,
            receipts: typed.receipts,
            estimates: typed.estimate == Estimate::On,
            attributes: typed.attributes.clone(),
            asserted_headers: typed.asserted_headers.clone(),
            require: typed.require.clone(),
            forwards: typed.credentials == Credentials::Forward,
        })
    }
}

impl Routes {
    /// Joins routes with their providers; what `before` counted goes on.
    ///
    /// # Errors
    /// The first route whose provider is missing, and that provider.
    pub(crate) fn new(
        typed: &[config::Route],
        providers: &BTreeMap<Identifier, Keyed>,
        meters: &Meters,
        before: Option<&Self>,
    ) -> Result<Self, (Identifier, Identifier)> {
        let mut routes = Vec::with_capacity(typed.len());
        for route in typed {
            let old = before.and_then(|before| before.routes.iter().find(|old| old.name == route.name));
            let made = Route::new(route, providers, meters, old.map(|old| &**old))
                .map_err(|provider| (route.name.clone(), provider))?;
            routes.push(Arc::new(made));
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(Self { routes })
    }

    /// The routes whose path and head fit, in the order in which they are tried, each with the rest of the path behind its
    /// prefix: empty, or from its `/` on. None stands behind one that takes everything.
    pub(crate) fn candidates<'a>(
        &self,
        path: &'a str,
        host: Option<&str>,
        headers: &HeaderMap,
    ) -> Vec<(&Arc<Route>, &'a str)> {
        let mut found = Vec::new();
        for route in &self.routes {
            let rest = path.strip_prefix(route.prefix.as_str());
            let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) else { continue };
            match &route.matching {
                None => {
                    found.push((route, rest));
                    break;
                }
                Some(matching) if matching.fits_head(host, headers) => found.push((route, rest)),
                Some(_) => {}
            }
        }
        found
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(|route| &**route)
    }

    /// A provider that some route uses.
    pub(crate) fn provider(&self, name: &Identifier) -> Option<&Provider> {
        let mut targets = self.routes.iter().flat_map(|route| &route.targets);
        let asked = targets.find(|target| target.provider.name == *name).map(|target| &*target.provider);
        let embeds = || {
            let mut semantic = self.routes.iter().filter_map(|route| route.semantic.as_ref());
            semantic.find(|semantic| semantic.provider() == name)?.connected()
        };
        asked.or_else(embeds)
    }
}

/// The dialect of a caller whose path leads nowhere: of its headers.
pub(crate) fn guess(headers: &HeaderMap) -> Dialect {
    if headers.contains_key("anthropic-version") || headers.contains_key("x-api-key") {
        Dialect::Anthropic
    } else if headers.contains_key("x-goog-api-key") {
        Dialect::Gemini
    } else {
        Dialect::OpenAi
    }
}

/// Whether a path has `.` or `..` as a segment, also percent-encoded: its meaning to the provider would be
/// another than the one that was judged here.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        loop {
            if let Some(more) = rest.strip_prefix('.') {
                rest = more;
            } else if rest.get(..3).is_some_and(|coded| coded.eq_ignore_ascii_case("%2e")) {
                rest = rest.get(3..).unwrap_or_default();
            } else {
                break;
            }
            dots += 1;
        }
        let ends = rest.is_empty()
            || rest.get(..3).is_some_and(|c| c.eq_ignore_ascii_case("%2f") || c.eq_ignore_ascii_case("%5c"));
        ends && (dots == 1 || dots == 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for bad in ["/a/../b", "/..", "/a/./b", "/a/%2e%2E/b", "/a/.%2e", "/%2e", "/a\\..\\b", "/a/..%2fb"] {
            assert!(has_dot_segments(bad), "{bad}");
        }
        for good in ["/v1/models/gpt-4.1", "/a/...", "/a/.hidden", "/v1/files/a..b", "/", "", "//"] {
            assert!(!has_dot_segments(good), "{good}");
        }
    }
}
