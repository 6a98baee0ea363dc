//! The request's path -> the configured route.

use std::collections::BTreeMap;
use std::sync::Arc;

use dialects::Dialect;
use http::HeaderMap;
use schemas::Identifier;

use crate::config::{self, Attributes, FailMode, KeyScope};
use crate::dispatch::pool::Provider;

/// A route, ready for the hot path.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Identifier,
    /// Without a trailing `/`; empty for everything.
    prefix: String,
    pub(crate) provider: Arc<Provider>,
    pub(crate) retention: Identifier,
    pub(crate) keys: KeyScope,
    pub(crate) keep_content: bool,
    pub(crate) ask_usage: bool,
    pub(crate) fail_open: bool,
    pub(crate) receipts: bool,
    pub(crate) attributes: Attributes,
    /// Fact -> header.
    pub(crate) asserted_headers: BTreeMap<String, String>,
}

/// All routes, the longest prefix first.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
}

impl Route {
    /// The path that it is for, as configured.
    pub(crate) fn path(&self) -> &str {
        if self.prefix.is_empty() { "/" } else { &self.prefix }
    }
}

impl Routes {
    /// Joins routes with their providers.
    ///
    /// # Errors
    /// The first route whose provider is missing, and that provider.
    pub(crate) fn new(
        typed: &[config::Route],
        providers: &BTreeMap<Identifier, Arc<Provider>>,
    ) -> Result<Self, (Identifier, Identifier)> {
        let mut routes = Vec::with_capacity(typed.len());
        for route in typed {
            let provider =
                providers.get(&route.provider).ok_or_else(|| (route.name.clone(), route.provider.clone()))?;
            let retention = Identifier::new(route.retention.clone())
                .map_err(|_| (route.name.clone(), route.provider.clone()))?;
            routes.push(Arc::new(Route {
                name: route.name.clone(),
                prefix: route.path.trim_end_matches('/').to_owned(),
                provider: Arc::clone(provider),
                retention,
                keys: route.keys,
                keep_content: route.keep_content,
                ask_usage: route.ask_usage.unwrap_or(provider.ask_usage),
                fail_open: route.fail_mode == FailMode::Open,
                receipts: route.receipts,
                attributes: route.attributes.clone(),
                asserted_headers: route.asserted_headers.clone(),
            }));
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(Self { routes })
    }

    /// The route of `path`, and the rest of the path behind the route's prefix: empty, or from its `/` on.
    pub(crate) fn find<'a>(&self, path: &'a str) -> Option<(&Arc<Route>, &'a str)> {
        self.routes.iter().find_map(|route| {
            let rest = path.strip_prefix(route.prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((route, rest))
        })
    }

    /// A provider that some route uses.
    pub(crate) fn provider(&self, name: &Identifier) -> Option<&Provider> {
        self.routes.iter().map(|route| &*route.provider).find(|provider| provider.name == *name)
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
