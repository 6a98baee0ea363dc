//! How requests are spread over targets, when one of them is left alone, and the keys of a provider.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use policies::document::{Node, Problem, Shape, texts};
use schemars::JsonSchema;
use schemas::Identifier;
use serde::{Serialize, Serializer};

use super::Credential;
use super::read::{DAY, Reader, SECOND, credential, is_header, whole};
use super::semantic::Semantic;
use super::units::{DURATION_FORM, duration_schema, duration_text, optional_duration_text, parse_duration};
use crate::authenticate::is_credential;

/// How the requests of a route are spread over its targets.
///
/// Targets of a lower priority get some only where none of a higher one can be asked, those of weight 0 where no other can. Where no target at all is in order,
/// all of them are asked all the same: a wrong verdict of a health check stops nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Balance {
    /// What decides.
    #[schemars(default)]
    pub by: By,
    /// What is hashed, with `by: hash`: `header:NAME`, `consumer`, `subject`, `team`, `model` (that is asked for) or
    /// `conversation`; several together with `+` between them: `team+model`. A request that does not have all of it is spread by
    /// weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub hash: Option<HashOf>,
    /// `conversation`: its turns go to one target as long as that is in order. This gateway remembers the last 65,536 or
    /// more; several gateways agree only with `by: hash`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// How a prompt's meaning is found, with `by: semantic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<Semantic>,
}

/// What decides between targets of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// In turn, as often as their weights say, interleaved.
    #[default]
    Weight,
    /// A hash: the same value leads to the same target, and where a target leaves only its own values move.
    Hash,
    /// The time until answers begin: the better one of two that are drawn.
    Latency,
    /// The price of the model that is asked for; those without a price last.
    Cost,
    /// The share of requests that failed.
    Errors,
    /// What the prompt means: the target with the nearest example.
    Semantic,
}

/// What is hashed: all of these together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashOf(pub Vec<Hashed>);

/// One thing that is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hashed {
    /// A request header's value.
    Header(String),
    /// Who calls.
    Consumer,
    /// The end user.
    Subject,
    /// The caller's team.
    Team,
    /// The model that is asked for.
    Model,
    /// The beginning of the conversation, or the id of a stored one.
    Conversation,
}

/// What keeps its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// The turns of a conversation.
    Conversation,
}

/// When a provider is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Health {
    /// By what becomes of callers' requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<Passive>,
    /// By requests of the gateway's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<Active>,
}

/// Ejects a target by what becomes of callers' requests: no answer at all (not reached, no head in time, broken off), or
/// one of `statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Passive {
    /// So many failures eject it,
    pub failures: u32,
    /// where they came within this time,
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub within: Duration,
    /// and are at least this share of its requests of that time, in percent.
    pub share: u32,
    /// Statuses that are failures: `429`, `5xx`, `500-504`.
    #[schemars(with = "Vec<String>")]
    pub statuses: Statuses,
    /// How long it is left alone. Doubled each time that it is not in order then.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub eject_for: Duration,
    /// The longest that doubling leads to.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub eject_at_most: Duration,
    /// How many requests at once try it afterwards; the first that does not fail brings it back.
    pub half_open: u32,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 5,
            within: 30 * SECOND,
            share: 20,
            statuses: Statuses::of(&[(500, 599)]),
            eject_for: 30 * SECOND,
            eject_at_most: 600 * SECOND,
            half_open: 1,
        }
    }
}

/// Asks the provider itself, over its own connections and with its own key.
///
/// A GET asks for nothing that costs: it shows in metrics only. A POST with a body may be a prompt: each is an exchange of
/// its own in the log, with the operation `probe` and without a caller; a policy that denies it keeps it from being sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Active {
    /// Path behind the provider's `base_url`, with its query: `/v1/models`.
    pub path: String,
    /// How.
    #[schemars(default)]
    pub method: Method,
    /// The body of a POST: JSON as one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Further headers; no credentials: the provider's own is sent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub headers: BTreeMap<String, String>,
    /// From one to the next. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_every", schema_with = "duration_schema")]
    pub every: Duration,
    /// The longest time to the end of its answer. `5s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
    /// What brings the provider back.
    #[schemars(default)]
    pub healthy: Healthy,
    /// What ejects it.
    #[schemars(default)]
    pub unhealthy: Unhealthy,
}

/// What brings a provider back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Healthy {
    /// Statuses that say that it is in order.
    #[schemars(with = "Vec<String>")]
    pub statuses: Statuses,
    /// So many in a row.
    pub successes: u32,
}

impl Default for Healthy {
    fn default() -> Self {
        Self { statuses: Statuses::of(&[(200, 299)]), successes: 2 }
    }
}

/// What ejects a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Unhealthy {
    /// Statuses that say that it is not in order. One that is in neither list says nothing.
    #[schemars(with = "Vec<String>")]
    pub statuses: Statuses,
    /// So many of these, or connections that failed, in a row.
    pub failures: u32,
    /// So many without an answer in time in a row.
    pub timeouts: u32,
    /// From one probe to the next while it is left alone; absent: as else.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub every: Option<Duration>,
}

impl Default for Unhealthy {
    fn default() -> Self {
        let statuses = Statuses::of(&[(401, 401), (403, 404), (429, 429), (500, 599)]);
        Self { statuses, failures: 3, timeouts: 3, every: None }
    }
}

/// The method of a probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Without a body.
    #[default]
    Get,
    /// With one.
    Post,
}

/// One of several keys of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProviderKey {
    /// Its name in metrics.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// Where it is.
    pub credential: Credential,
}

/// How long a key is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct CoolDown {
    /// Statuses that say that the key is not taken: it is left alone for `refused`.
    #[schemars(with = "Vec<String>")]
    pub statuses: Statuses,
    /// After one of `statuses`.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub refused: Duration,
    /// After a 429 that has no `Retry-After`; one that has is taken at its word, up to an hour.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub limited: Duration,
}

impl Default for CoolDown {
    fn default() -> Self {
        let statuses = Statuses::of(&[(401, 403)]);
        Self { statuses, refused: 300 * SECOND, limited: 30 * SECOND }
    }
}

impl CoolDown {
    /// Whether nothing else was typed.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn default_every() -> &'static str {
    "30s"
}

fn default_timeout() -> &'static str {
    "5s"
}

/// A set of HTTP statuses, as ranges with both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Of ranges with both ends included.
    pub fn of(ranges: &[(u16, u16)]) -> Self {
        Self(ranges.to_vec())
    }

    /// Whether `status` is one of them.
    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

/// `429`, `5xx`, `500-504`.
fn range(text: &str) -> Option<(u16, u16)> {
    let one = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|status| digits && (100..=599).contains(status))
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = one(&format!("{class}00"))?;
        return Some((first, first + 99));
    }
    match text.split_once('-') {
        None => one(text).map(|status| (status, status)),
        Some((low, high)) => {
            let (low, high) = (one(low.trim())?, one(high.trim())?);
            (low <= high).then_some((low, high))
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(low, high)| match (low, high) {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        }))
    }
}

impl FromStr for HashOf {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<Hashed> = text.split('+').map(Hashed::parse).collect::<Option<_>>().ok_or(())?;
        let again = parts.iter().enumerate().any(|(at, part)| parts[..at].contains(part));
        (!again).then_some(Self(parts)).ok_or(())
    }
}

impl Hashed {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(':') {
            None if text == "consumer" => Self::Consumer,
            None if text == "subject" => Self::Subject,
            None if text == "team" => Self::Team,
            None if text == "model" => Self::Model,
            None if text == "conversation" => Self::Conversation,
            Some(("header", name)) if is_header(name) && !is_credential(name) => {
                Self::Header(name.to_owned())
            }
            _ => return None,
        })
    }
}

impl fmt::Display for HashOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("+")?;
            }
            match part {
                Hashed::Header(name) => write!(f, "header:{name}")?,
                Hashed::Consumer => f.write_str("consumer")?,
                Hashed::Subject => f.write_str("subject")?,
                Hashed::Team => f.write_str("team")?,
                Hashed::Model => f.write_str("model")?,
                Hashed::Conversation => f.write_str("conversation")?,
            }
        }
        Ok(())
    }
}

impl Serialize for HashOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the `balance` of a route.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Balance {
    let mut f = Reader::new(node, path, base, problems);
    let ways = [
        ("weight", By::Weight),
        ("hash", By::Hash),
        ("latency", By::Latency),
        ("cost", By::Cost),
        ("errors", By::Errors),
        ("semantic", By::Semantic),
    ];
    let by = f.fields.choice("by", &ways).unwrap_or_default();
    let form = "`header:NAME` (in lower case, of none that carries a credential), `consumer`, `subject`, `team`, `model` or `conversation`, or several with `+` between them";
    let typed = f.fields.node("hash").is_some();
    let hash = f.fields.optional("hash", form, |text| text.parse().ok());
    if by == By::Hash && !typed {
        let wanted = format!("{form}, with `by: hash`; the key is missing");
        f.fields.report(Problem::at(f.fields.place(), format!("{path}.hash"), wanted));
    } else if by != By::Hash && typed {
        let place = f.fields.place_of("hash");
        f.fields.report(Problem::at(place, format!("{path}.hash"), "no such key without `by: hash`"));
    }
    let sticky = f.fields.choice("sticky", &[("conversation", Sticky::Conversation)]);
    let has_semantic = f.fields.node("semantic").is_some();
    let semantic = f.part_of("semantic", super::semantic::read).flatten();
    if (by == By::Semantic) != has_semantic {
        let place = if has_semantic { f.fields.place_of("semantic") } else { f.fields.place() };
        let wanted = if has_semantic {
            "no such key without `by: semantic`"
        } else {
            "`provider`, `model`, `threshold` and `fallback`, with `by: semantic`; the key is missing"
        };
        f.fields.report(Problem::at(place, format!("{path}.semantic"), wanted));
    }
    f.fields.finish();
    Balance { by, hash, sticky, semantic }
}

/// Reads the `health` of a provider.
pub(super) fn health(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Health> {
    let mut f = Reader::new(node, path, base, problems);
    let passive = f.part_of("passive", passive);
    let active = f.part_of("active", active);
    f.fields.finish();
    Some(Health { passive, active: whole(active)? })
}

fn passive(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Passive {
    let default = Passive::default();
    let mut f = Reader::new(node, path, base, problems);
    let passive = Passive {
        failures: small(&mut f, "failures", 1..=10_000, default.failures),
        within: f.duration("within", SECOND..=60 * 60 * SECOND, default.within),
        share: small(&mut f, "share", 0..=100, default.share),
        statuses: statuses(&mut f, default.statuses),
        eject_for: f.duration("eject_for", SECOND..=DAY, default.eject_for),
        eject_at_most: f.duration("eject_at_most", SECOND..=DAY, default.eject_at_most),
        half_open: small(&mut f, "half_open", 1..=1000, default.half_open),
    };
    if passive.eject_at_most < passive.eject_for {
        let key = if f.fields.node("eject_at_most").is_some() { "eject_at_most" } else { "eject_for" };
        let place = f.fields.place_of(key);
        let wanted = "`eject_at_most` not below `eject_for`";
        f.fields.report(Problem::at(place, format!("{path}.{key}"), wanted));
    }
    f.fields.finish();
    passive
}

fn active(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Active> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "a path with its query as `/v1/models`, without `#` and spaces";
    let at = f.fields.required("path", form, |text| {
        let fits = text.starts_with('/') && !text.contains('#');
        let fits = fits && text.parse::<http::uri::PathAndQuery>().is_ok();
        fits.then(|| text.to_owned())
    });
    let method =
        f.fields.choice("method", &[("GET", Method::Get), ("POST", Method::Post)]).unwrap_or_default();
    let form = "the JSON of the body as one text in quotes, at most 64 KiB";
    let body = f.fields.optional("body", form, |text| {
        let fits = text.len() <= 64 << 10 && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        fits.then(|| text.to_owned())
    });
    let has_body = f.fields.node("body").is_some();
    if has_body != (method == Method::Post) {
        let place = if has_body { f.fields.place_of("body") } else { f.fields.place() };
        let wanted = "a body with `method: POST`, and none with `GET`";
        f.fields.report(Problem::at(place, format!("{path}.body"), wanted));
    }
    let headers = f.part_of("headers", headers).unwrap_or_default();
    let every = f.duration("every", SECOND..=DAY, 30 * SECOND);
    let timeout = f.duration("timeout", Duration::from_millis(100)..=120 * SECOND, 5 * SECOND);
    let healthy = f.part_of("healthy", healthy).unwrap_or_default();
    let unhealthy = f.part_of("unhealthy", unhealthy).unwrap_or_default();
    f.fields.finish();
    Some(Active { path: at?, method, body, headers, every, timeout, healthy, unhealthy })
}

fn healthy(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Healthy {
    let default = Healthy::default();
    let mut f = Reader::new(node, path, base, problems);
    let healthy = Healthy {
        statuses: statuses(&mut f, default.statuses),
        successes: small(&mut f, "successes", 1..=100, default.successes),
    };
    f.fields.finish();
    healthy
}

fn unhealthy(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Unhealthy {
    let default = Unhealthy::default();
    let mut f = Reader::new(node, path, base, problems);
    let unhealthy = Unhealthy {
        statuses: statuses(&mut f, default.statuses),
        failures: small(&mut f, "failures", 1..=100, default.failures),
        timeouts: small(&mut f, "timeouts", 1..=100, default.timeouts),
        every: f.fields.optional("every", &format!("{DURATION_FORM}, from 1s to 1d"), |text| {
            parse_duration(text).filter(|every| (SECOND..=DAY).contains(every))
        }),
    };
    f.fields.finish();
    unhealthy
}

fn headers(node: &Node, path: &str, _: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, "headers as `{name: value}`"));
        return headers;
    };
    for entry in entries {
        let key = format!("{path}.{}", entry.key);
        let secret = is_credential(&entry.key);
        let own =
            matches!(entry.key.as_str(), "host" | "content-length" | "transfer-encoding" | "connection");
        if !is_header(&entry.key) || secret || own {
            let wanted =
                "a header's name in lower case, of none that carries a credential or that HTTP itself sets";
            problems.push(Problem::at(entry.place, key, wanted));
            continue;
        }
        match entry.value.text().filter(|text| http::HeaderValue::from_str(text).is_ok()) {
            Some(text) => drop(headers.insert(entry.key.clone(), text.to_owned())),
            None => problems.push(Problem::at(entry.value.place, key, "a header's value: visible ASCII")),
        }
    }
    headers
}

/// Reads the `cool_down` of a provider.
pub(super) fn cool_down(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> CoolDown {
    let default = CoolDown::default();
    let mut f = Reader::new(node, path, base, problems);
    let cool_down = CoolDown {
        statuses: statuses(&mut f, default.statuses),
        refused: f.duration("refused", SECOND..=DAY, default.refused),
        limited: f.duration("limited", SECOND..=60 * 60 * SECOND, default.limited),
    };
    f.fields.finish();
    cool_down
}

/// Reads one of the `keys` of a provider.
pub(super) fn key(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<ProviderKey> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.name("name");
    f.fields.required_node("credential", "`{env: NAME}` or `{file: PATH}`: where it is");
    let credential = f.part_of("credential", credential);
    f.fields.finish();
    Some(ProviderKey { name: name?, credential: credential?? })
}

fn statuses(f: &mut Reader<'_, '_>, default: Statuses) -> Statuses {
    let Some(node) = f.fields.node("statuses") else { return default };
    let path = f.fields.path("statuses");
    let typed = texts(node, &path, f.fields.problems());
    let mut ranges = Vec::with_capacity(typed.len());
    for (text, place) in typed {
        match range(&text) {
            Some(range) => ranges.push(range),
            None => {
                let wanted = "statuses from 100 to 599 as `429`, `5xx` or `500-504`";
                f.fields.report(Problem::at(place, &path, wanted).value(text));
            }
        }
    }
    Statuses(ranges)
}

fn small(
    f: &mut Reader<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u32>,
    default: u32,
) -> u32 {
    let wide = u64::from(*range.start())..=u64::from(*range.end());
    u32::try_from(f.number(key, wide, default.into())).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_classes_or_ranges() {
        let table = [
            ("429", Some((429, 429))),
            ("5xx", Some((500, 599))),
            ("500-504", Some((500, 504))),
            ("500 - 504", Some((500, 504))),
            ("6xx", None),
            ("99", None),
            ("600", None),
            ("504-500", None),
            ("+50", None),
            ("x", None),
            ("", None),
            ("-", None),
            ("é00", None),
        ];
        for (text, wanted) in table {
            assert_eq!(range(text), wanted, "{text}");
        }
        let statuses = Statuses::of(&[(401, 403), (500, 599)]);
        assert!(statuses.has(402) && statuses.has(599) && !statuses.has(404) && !statuses.has(600));
        assert_eq!(
            serde_json::to_string(&Statuses::of(&[(429, 429), (500, 599)])).unwrap(),
            r#"["429","500-599"]"#
        );
    }

    #[test]
    fn what_is_hashed_is_read_back() {
        for text in
            ["header:x-session", "consumer", "conversation", "subject", "team+model", "header:x-a+consumer"]
        {
            assert_eq!(text.parse::<HashOf>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "header",
            "header:",
            "header:authorization",
            "header:x-affidavit-key",
            "header:X-Session",
            "header:a b",
            "cookie:x",
            "organisation",
            "consumer+",
            "consumer+consumer",
            "consumer+header:cookie",
        ] {
            assert!(text.parse::<HashOf>().is_err(), "{text}");
        }
    }
}
