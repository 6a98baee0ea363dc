//! `routes[].retry`: when a failed request is sent again, and how often.

use std::path::Path;
use std::time::Duration;

use dialects::FailureClass;
use policies::document::{Node, Problem, texts};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::read::{DAY, Reader};
use super::units::{
    DURATION_FORM, duration_schema, duration_text, optional_duration_text, parse_duration, show_duration,
};

/// The most times that one exchange is sent.
pub(crate) const MAX_ATTEMPTS: u64 = 16;

/// When a request that failed before its caller got anything is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// How often a request is sent in all; where nothing is typed once for each target, at most 16 times. One whose key is not taken
    /// goes under another free key of the provider besides.
    pub attempts: u64,
    /// Which failures count: `connect`, `timeout`, `aborted` (also an answer that cannot be passed on: it has no translation, or
    /// exceeds its bounds), `key_refused` (a status of the provider's `cool_down.statuses` to a key of the gateway's: another
    /// target is asked, never the same), `5xx`, a status from 400 to 599, and what the error says: `context_window`,
    /// `content_filter`, `quota`.
    #[schemars(default = "default_on")]
    pub on: Vec<On>,
    /// Only failures that came within this time.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub within: Option<Duration>,
    /// How long is waited before a target is asked again that failed in the same exchange; another one is asked at once.
    #[schemars(default)]
    pub back_off: BackOff,
    /// The share of the route's requests that may go to a target again that failed in the same exchange, or to one that is out of
    /// order where none is left that is in order; a few are always allowed. A target in order that was not asked yet takes nothing of it.
    #[schemars(default)]
    pub budget: Budget,
}

fn default_on() -> Vec<On> {
    Retry::default().on
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: vec![
                On::Connect,
                On::Timeout,
                On::Aborted,
                On::KeyRefused,
                On::Status(429),
                On::ServerErrors,
                On::Class(FailureClass::Quota),
            ],
            within: None,
            back_off: BackOff::default(),
            budget: Budget::default(),
        }
    }
}

/// A failure that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// No connection came about: nothing was sent.
    Connect,
    /// No answer began in time.
    Timeout,
    /// The connection broke before an answer was whole enough to pass on, or one came that cannot be.
    Aborted,
    /// The provider does not take the gateway's own key.
    KeyRefused,
    /// Any status from 500 to 599.
    ServerErrors,
    /// One status.
    Status(u16),
    /// What the error says.
    Class(FailureClass),
}

impl On {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "connect" => Self::Connect,
            "timeout" => Self::Timeout,
            "aborted" => Self::Aborted,
            "key_refused" => Self::KeyRefused,
            "5xx" => Self::ServerErrors,
            "context_window" => Self::Class(FailureClass::ContextWindow),
            "content_filter" => Self::Class(FailureClass::ContentFilter),
            "quota" => Self::Class(FailureClass::Quota),
            status => Self::Status(status.parse().ok().filter(|status| (400..=599).contains(status))?),
        })
    }
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Timeout => f.write_str("timeout"),
            Self::Aborted => f.write_str("aborted"),
            Self::KeyRefused => f.write_str("key_refused"),
            Self::ServerErrors => f.write_str("5xx"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Class(class) => f.write_str(class.name()),
        }
    }
}

impl Serialize for On {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^(connect|timeout|aborted|key_refused|5xx|[45][0-9][0-9]|context_window|content_filter|quota)$",
            "minimum": 400,
            "maximum": 599
        })
    }
}

/// How long is waited: the first time, then twice as long each time, at most `most`; each by chance down to half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct BackOff {
    /// The first time.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub first: Duration,
    /// The longest.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub most: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(2) }
    }
}

/// A share in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// 0 to 100.
    pub percent: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: 20 }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.percent))
    }
}

impl JsonSchema for Budget {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Budget".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]{1,2}|100)%$" })
    }
}

/// As many attempts as there are `targets`, as far as may be.
pub(super) fn once_each(targets: usize) -> u64 {
    (targets as u64).clamp(1, MAX_ATTEMPTS)
}

/// Reads the section; `targets` is how many the route has.
pub(super) fn read(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
    targets: usize,
) -> Retry {
    let default = Retry::default();
    let mut f = Reader::new(node, path, base, problems);
    let attempts = f.number("attempts", 1..=MAX_ATTEMPTS, once_each(targets));
    let on = match f.fields.node("on") {
        None => default.on,
        Some(node) => {
            let path = f.fields.path("on");
            let found = texts(node, &path, f.fields.problems());
            if found.is_empty() {
                f.fields.report(Problem::at(node.place, &path, "at least one failure, or `attempts: 1`"));
            }
            let read = |(text, place): (String, _)| {
                let on = On::parse(&text);
                if on.is_none() {
                    let wanted = "`connect`, `timeout`, `aborted`, `key_refused`, `5xx`, a status from 400 to 599, `context_window`, `content_filter` or `quota`";
                    let names = [
                        "connect",
                        "timeout",
                        "aborted",
                        "key_refused",
                        "5xx",
                        "context_window",
                        "content_filter",
                        "quota",
                    ];
                    f.fields.report(Problem::at(place, &path, wanted).value(&text).suggest(&text, names));
                }
                on
            };
            found.into_iter().filter_map(read).collect()
        }
    };
    let wanted = format!("{DURATION_FORM}, to 1d");
    let within = f.fields.optional("within", &wanted, |text| {
        parse_duration(text).filter(|within| !within.is_zero() && *within <= DAY)
    });
    let back_off = f.part_of("back_off", back_off).unwrap_or_default();
    let budget = f.fields.optional("budget", "a share as `20%`, from 0% to 100%", |text| {
        let percent = text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)?;
        Some(Budget { percent })
    });
    f.fields.finish();
    Retry { attempts, on, within, back_off, budget: budget.unwrap_or_default() }
}

fn back_off(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> BackOff {
    let default = BackOff::default();
    let mut f = Reader::new(node, path, base, problems);
    let minute = Duration::from_secs(60);
    let first = f.duration("first", Duration::ZERO..=minute, default.first);
    let most = f.duration("most", Duration::ZERO..=minute, default.most.max(first));
    if most < first {
        let place = f.fields.place_of("most");
        let wanted = format!("no less than `first`, which is {}", show_duration(first));
        f.fields.report(Problem::at(place, format!("{path}.most"), wanted).value(show_duration(most)));
    }
    f.fields.finish();
    BackOff { first, most }
}
