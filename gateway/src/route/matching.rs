//! Whether a request is one that a route takes.

use dialects::{Content, Operation, RequestFacts};
use http::HeaderMap;
use policies::pattern::Patterns;
use regex::Regex;
use schemas::Identifier;
use schemas::record::{Attributed, Caller};

use crate::config;

/// The conditions of a route, ready for the hot path.
#[derive(Debug)]
pub(crate) struct Matching {
    hosts: Patterns,
    headers: Vec<(String, Patterns)>,
    consumers: Patterns,
    teams: Patterns,
    organisations: Patterns,
    groups: Patterns,
    models: Patterns,
    operations: Patterns,
    body: Option<config::BodySize>,
    images: Option<bool>,
    tools: Option<bool>,
    stream: Option<bool>,
    content: Option<Regex>,
    asks_body: bool,
}

impl Matching {
    /// Of the configuration, which was checked.
    pub(crate) fn new(typed: &config::Match) -> Self {
        let patterns = |list: &[String]| config::patterns(list);
        Self {
            hosts: patterns(&typed.hosts),
            headers: typed.headers.iter().map(|(name, list)| (name.clone(), patterns(list))).collect(),
            consumers: patterns(&typed.consumers),
            teams: patterns(&typed.teams),
            organisations: patterns(&typed.organisations),
            groups: patterns(&typed.groups),
            models: patterns(&typed.models),
            operations: patterns(&typed.operations),
            body: typed.body,
            images: typed.images,
            tools: typed.tools,
            stream: typed.stream,
            content: typed.content.as_deref().and_then(config::expression),
            asks_body: !typed.models.is_empty()
                || typed.body.is_some()
                || typed.images.is_some()
                || typed.tools.is_some()
                || typed.stream.is_some()
                || typed.content.is_some(),
        }
    }

    /// Whether the head fits. Of a header that stands more than once any value may.
    pub(crate) fn fits_head(&self, host: Option<&str>, headers: &HeaderMap) -> bool {
        let fits = |(name, patterns): &(String, Patterns)| {
            let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).peekable();
            match values.peek() {
                None => patterns.fit(None),
                Some(_) => values.any(|value| patterns.fit(Some(value.trim()))),
            }
        };
        self.hosts.fit(host) && self.headers.iter().all(fits)
    }

    /// Whether the caller fits, by what its credential says.
    pub(crate) fn fits_caller(&self, known: &Caller) -> bool {
        fn text(fact: &Option<Attributed>) -> Option<&str> {
            fact.as_ref().map(|fact| fact.value.as_str())
        }
        self.consumers.fit(text(&known.consumer))
            && self.teams.fit(text(&known.team))
            && self.organisations.fit(text(&known.organisation))
            && self.groups.fit_any(known.groups.iter().map(Identifier::as_str))
    }

    /// Whether the operation fits.
    pub(crate) fn fits_operation(&self, operation: &Operation) -> bool {
        self.operations.fit(Some(operation.name()))
    }

    /// Whether anything is asked that only the body tells.
    pub(crate) fn asks_body(&self) -> bool {
        self.asks_body
    }

    /// Whether the body fits. `content` reads it, once, where that is asked.
    pub(crate) fn fits_body<'c>(
        &self,
        facts: &RequestFacts,
        length: u64,
        content: impl FnOnce() -> &'c Content,
    ) -> bool {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let size = self.body.unwrap_or_default();
        let known = self.models.fit(facts.requested_model.as_deref())
            && size.at_least.is_none_or(|least| length >= least)
            && size.at_most.is_none_or(|most| length <= most)
            && fits(self.tools, facts.tools_offered.is_some_and(|count| count > 0))
            && fits(self.stream, facts.stream == Some(true));
        if !known || (self.images.is_none() && self.content.is_none()) {
            return known;
        }
        let content = content();
        fits(self.images, content.images)
            && self.content.as_ref().is_none_or(|expression| expression.is_match(&content.text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use dialects::Dialect;
    use http::{HeaderValue, Method};
    use schemas::record::Source;

    use super::*;

    fn matching(change: impl FnOnce(&mut config::Match)) -> Matching {
        let mut typed = config::Match::default();
        change(&mut typed);
        Matching::new(&typed)
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hosts_and_headers_are_matched_by_pattern() {
        let asks = matching(|typed| {
            typed.hosts = list(&["*.acme.test", "!old.acme.test"]);
            typed.headers.insert("x-tier".into(), list(&["gold*"]));
            typed.headers.insert("x-debug".into(), list(&["!*"]));
        });
        let mut headers = HeaderMap::new();
        headers.append("x-tier", HeaderValue::from_static("silver"));
        assert!(!asks.fits_head(Some("a.acme.test"), &headers));
        headers.append("x-tier", HeaderValue::from_static("gold-1"));
        assert!(asks.fits_head(Some("a.acme.test"), &headers));
        assert!(!asks.fits_head(Some("old.acme.test"), &headers));
        assert!(!asks.fits_head(None, &headers));
        headers.append("x-debug", HeaderValue::from_static("1"));
        assert!(!asks.fits_head(Some("a.acme.test"), &headers));
        assert!(!asks.asks_body());
    }

    #[test]
    fn a_team_is_what_the_key_says() {
        let asks = matching(|typed| typed.teams = list(&["hr"]));
        let said =
            |value: &str| Some(Attributed { value: Identifier::new(value).unwrap(), source: Source::Key });
        assert!(asks.fits_caller(&Caller { team: said("hr"), ..Caller::default() }));
        assert!(!asks.fits_caller(&Caller { team: said("it"), ..Caller::default() }));
        assert!(!asks.fits_caller(&Caller::default()));
        let chat = dialects::operation(Dialect::OpenAi, &Method::POST, "/v1/chat/completions");
        assert!(asks.fits_operation(&chat));
        assert!(!matching(|typed| typed.operations = list(&["embeddings.*"])).fits_operation(&chat));
    }

    #[test]
    fn of_a_callers_groups_one_must_fit_and_none_may_be_excluded() {
        let asks = matching(|typed| typed.groups = list(&["hr-*", "!contractors"]));
        let of = |groups: &[&str]| Caller {
            groups: groups.iter().map(|group| Identifier::new(*group).unwrap()).collect(),
            ..Caller::default()
        };
        assert!(asks.fits_caller(&of(&["it", "hr-eu"])));
        for others in [&["hr-eu", "contractors"][..], &["it"], &[]] {
            assert!(!asks.fits_caller(&of(others)), "{others:?}");
        }
    }

    #[test]
    fn every_condition_on_the_body_must_hold() {
        let facts = RequestFacts {
            requested_model: Some("gpt-4o".into()),
            stream: Some(true),
            tools_offered: Some(1),
            ..RequestFacts::default()
        };
        let content = Content { text: "an INVOICE\n".into(), images: false };
        type Change = fn(&mut config::Match);
        let cases: &[(Change, bool)] = &[
            (|typed| typed.models = list(&["gpt-*", "!gpt-3*"]), true),
            (|typed| typed.models = list(&["claude-*"]), false),
            (|typed| typed.body = Some(config::BodySize { at_least: Some(10), at_most: Some(10) }), true),
            (|typed| typed.body = Some(config::BodySize { at_least: Some(11), at_most: None }), false),
            (|typed| typed.body = Some(config::BodySize { at_least: None, at_most: Some(9) }), false),
            (|typed| typed.tools = Some(true), true),
            (|typed| typed.tools = Some(false), false),
            (|typed| typed.stream = Some(true), true),
            (|typed| typed.stream = Some(false), false),
            (|typed| typed.images = Some(false), true),
            (|typed| typed.images = Some(true), false),
            (|typed| typed.content = Some("(?i)\\binvoice\\b".into()), true),
            (|typed| typed.content = Some("invoice".into()), false),
        ];
        for (number, (change, wanted)) in cases.iter().enumerate() {
            let asks = matching(change);
            assert!(asks.asks_body());
            assert_eq!(asks.fits_body(&facts, 10, || &content), *wanted, "{number}");
        }
        // Nobody reads what nobody asks for.
        let asks = matching(|typed| typed.stream = Some(true));
        assert!(asks.fits_body(&facts, 10, || unreachable!()));
    }
}
