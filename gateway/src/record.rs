//! What is known of an exchange -> the records' bodies.
//!
//! CA-8 is kept here: every text that a caller, a provider or a model wrote becomes an identifier or its keyed
//! pseudonym, or goes to content.

use std::time::{Duration, Instant};

use dialects::{Operation, RequestFacts};
use evidence::NewPart;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use schemas::Identifier;
use schemas::record::{Asked, Attributed, Caller, Source, Timing};

use crate::app::Pseudonyms;
use crate::route::Route;

/// Microseconds since 1970-01-01 UTC.
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    micros(since)
}

/// A duration as records have it.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// When what happened, from the first sight of the request's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) start: Instant,
    /// The caller was known.
    pub(crate) known: Option<Instant>,
    pub(crate) admitted: Option<Instant>,
    pub(crate) committed: Option<Instant>,
    pub(crate) sent: Option<Instant>,
    pub(crate) head: Option<Instant>,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
    /// Where the record is made later than that: when the end was known.
    pub(crate) ended: Option<Instant>,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            known: None,
            admitted: None,
            committed: None,
            sent: None,
            head: None,
            first_byte: None,
            first_token: None,
            ended: None,
        }
    }

    /// From the request to the provider until the head of its answer.
    pub(crate) fn head_latency(&self) -> Option<Duration> {
        Some(self.head?.saturating_duration_since(self.sent?))
    }

    /// What callers are told of it: milliseconds of `auth`, `commit` (the wait for the disk) and `provider` (until its head).
    pub(crate) fn server_timing(&self) -> String {
        let stations = [
            ("auth", Some(self.start), self.known),
            ("commit", self.admitted, self.committed),
            ("provider", self.sent, self.head),
        ];
        let told = stations.into_iter().filter_map(|(name, from, to)| {
            let took = to?.saturating_duration_since(from?);
            Some(format!("{name};dur={:.3}", took.as_secs_f64() * 1e3))
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// The durations of a record that is made now.
    pub(crate) fn timing(&self) -> Timing {
        let since = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to).map(|(from, to)| micros(to.saturating_duration_since(from)))
        };
        let start = Some(self.start);
        Timing {
            admitted_us: since(start, self.admitted),
            commit_us: since(self.admitted, self.committed),
            provider_head_us: since(self.sent, self.head),
            first_byte_us: since(start, self.first_byte),
            first_token_us: since(start, self.first_token),
            total_us: since(start, Some(self.ended.unwrap_or_else(Instant::now))),
        }
    }
}

/// What is known of a request from its head alone.
pub(crate) fn asked(
    route: Option<&Route>,
    operation: Option<Operation>,
    method: &http::Method,
    names: &Pseudonyms,
) -> Asked {
    // Before a target is chosen it is known only where there is one.
    let only = match route.map(|route| route.targets.as_slice()) {
        Some([only]) => Some(&only.provider),
        _ => None,
    };
    let dialect = only.map(|provider| &provider.dialect_name).or(route.map(|route| &route.dialect_name));
    Asked {
        route: route.map(|route| route.name.clone()),
        provider: only.map(|provider| provider.name.clone()),
        dialect: dialect.cloned().flatten(),
        operation: operation.and_then(|operation| Identifier::new(operation.name()).ok()),
        method: Some(names.identifier(method.as_str())),
        ..Asked::default()
    }
}

/// Adds what the body says.
pub(crate) fn add_facts(asked: &mut Asked, caller: &mut Caller, facts: &RequestFacts, names: &Pseudonyms) {
    facts.fill(asked, &|raw| names.of(raw));
    if caller.subject.is_none() {
        let said = facts.subject.as_deref().filter(|text| !text.is_empty());
        caller.subject = said
            .and_then(|text| names.always(text))
            .map(|value| Attributed { value, source: Source::Asserted });
    }
}

/// The attempts to switch recording off or to choose an id (CA-4), but for headers that are the gateway's own way:
/// its key, and those that the route names.
pub(crate) fn suppression(facts: &RequestFacts, route: Option<&Route>) -> Vec<Identifier> {
    let allowed = |name: &str| {
        name == "x-affidavit-key"
            || route.is_some_and(|route| {
                route.asserted_headers.values().any(|header| header.eq_ignore_ascii_case(name))
            })
    };
    facts.suppression().into_iter().filter(|name| !allowed(name.as_str())).collect()
}

/// Media type and content coding of a body, where a leaf may hold them.
pub(crate) fn described(part: NewPart, headers: &HeaderMap) -> NewPart {
    part.with(media_type(headers), content_coding(headers))
}

/// The media type without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<Identifier> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Identifier::new(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).ok()
}

/// The content codings, joined by `+` where there are more than one.
pub(crate) fn content_coding(headers: &HeaderMap) -> Option<Identifier> {
    let mut names = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().ok()?;
        names.extend(
            text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()),
        );
    }
    if names.is_empty() || names.iter().all(|name| name == "identity") {
        return None;
    }
    Identifier::new(names.join("+")).ok()
}
