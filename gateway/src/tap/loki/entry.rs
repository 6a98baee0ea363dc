//! A leaf as an entry of a stream: what finds it stands in few labels, what it says in structured metadata and in a short line.
//!
//! Each log has streams of its own (`epoch`), one for each kind: Loki takes no entry that is more than an hour behind the newest
//! of its stream, and logs that dead processes left come behind the running one.

use evidence::tap::{Missed, TapItem, TapLeaf};
use schemas::Origin;
use serde_json::{Map, Value, json};

use crate::tap::alerts::{self, Severity};

/// Keeps Loki from making a name of its own of the other labels.
const SERVICE: &str = "affidavit";

/// What is written of a record: name, and where in the leaf it stands. The first that is there counts; all but the last
/// four are in the line too.
const FIELDS: [(&str, &[&str]); 20] = [
    ("status", &["/status"]),
    ("end", &["/end"]),
    ("reason", &["/reason"]),
    ("error", &["/answered/error_type", "/answered/error_code"]),
    ("provider_status", &["/provider_status"]),
    ("decision", &["/verdict/decision"]),
    ("provider", &["/asked/provider"]),
    ("operation", &["/asked/operation"]),
    ("model", &["/answered/served_model", "/asked/requested_model"]),
    ("consumer", &["/caller/consumer/value"]),
    ("team", &["/caller/team/value"]),
    ("input_tokens", &["/usage/input_tokens"]),
    ("output_tokens", &["/usage/output_tokens"]),
    ("cost", &["/cost/total"]),
    ("currency", &["/cost/currency"]),
    ("unpriced", &["/unpriced"]),
    ("route", &["/asked/route"]),
    ("count", &["/count"]),
    ("action", &["/action"]),
    ("object", &["/object"]),
];
/// How many of them are in the line.
const IN_LINE: usize = 16;
/// Times, which are microseconds in a leaf.
const TIMES: [(&str, &str); 2] =
    [("first_token_ms", "/timing/first_token_us"), ("total_ms", "/timing/total_us")];

/// A stream: the items of one kind of one log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stream {
    pub(super) origin: Origin,
    pub(super) kind: String,
}

impl Stream {
    pub(super) fn of(item: &TapItem) -> Self {
        Self { origin: item.origin().clone(), kind: item.kind().to_owned() }
    }

    /// Its labels.
    pub(super) fn labels(&self) -> Value {
        json!({
            "service_name": SERVICE, "deployment": self.origin.deployment(), "gateway": self.origin.gateway(),
            "epoch": self.origin.epoch(), "kind": self.kind,
        })
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) at_us: i64,
    line: String,
    metadata: Map<String, Value>,
}

impl Entry {
    pub(super) fn of(item: &TapItem) -> Self {
        match item {
            TapItem::Leaf(leaf) => of_leaf(leaf),
            TapItem::Missed(missed) => of_missed(missed),
        }
    }

    /// As it is pushed: nanoseconds, line, structured metadata.
    pub(super) fn value(&self) -> Value {
        let at_ns = i128::from(self.at_us) * 1000;
        json!([at_ns.to_string(), self.line, self.metadata])
    }

    /// Bytes that it takes, more or less.
    pub(super) fn size(&self) -> usize {
        let metadata =
            self.metadata.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
        64 + self.line.len() + metadata.sum::<usize>()
    }
}

fn of_leaf(tapped: &TapLeaf) -> Entry {
    let leaf: Value = serde_json::from_slice(&tapped.bytes).unwrap_or(Value::Null);
    let mut line = format!("kind={}", plain(&tapped.kind));
    let mut metadata = Map::new();
    // The cost of an answer that was only read is that of another exchange: whoever adds up entries would count it twice.
    let is_read = leaf.pointer("/usage/role").and_then(Value::as_str) == Some("retrieved");
    for (index, (name, places)) in FIELDS.iter().enumerate() {
        if is_read && matches!(*name, "cost" | "currency") {
            continue;
        }
        let Some(value) = places.iter().find_map(|place| text(leaf.pointer(place)?)) else { continue };
        if index < IN_LINE {
            line.push_str(&format!(" {name}={}", plain(&value)));
        }
        metadata.insert((*name).into(), value.into());
    }
    for (name, place) in TIMES {
        if let Some(us) = leaf.pointer(place).and_then(Value::as_i64) {
            line.push_str(&format!(" {name}={}", us / 1000));
            metadata.insert(name.into(), (us / 1000).to_string().into());
        }
    }
    if let Some(exchange) = leaf.get("exchange").and_then(text) {
        line.push_str(&format!(" exchange={}", plain(&exchange)));
        metadata.insert("exchange".into(), exchange.into());
    }
    line.push_str(&format!(" position={}", tapped.position));
    metadata.insert("leaf_hash".into(), tapped.hash.to_string().into());
    let severity = alerts::of(&tapped.kind, &leaf);
    entry(&tapped.origin, tapped.position, tapped.at_us, severity, line, metadata)
}

fn of_missed(missed: &Missed) -> Entry {
    let mut line = format!("kind={} position={}", Missed::KIND, missed.from);
    let mut metadata = Map::new();
    if let Some(to) = missed.to {
        line.push_str(&format!(" to={to}"));
        metadata.insert("to".into(), to.to_string().into());
    }
    entry(&missed.origin, missed.from, missed.at_us, Severity::High, line, metadata)
}

fn entry(
    origin: &Origin,
    position: u64,
    at_us: i64,
    severity: Severity,
    line: String,
    mut metadata: Map<String, Value>,
) -> Entry {
    metadata.insert("level".into(), level(severity).into());
    metadata.insert("origin".into(), origin.to_string().into());
    metadata.insert("position".into(), position.to_string().into());
    Entry { position, at_us, line, metadata }
}

/// As Grafana colours it.
fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "info",
        Severity::Medium => "warn",
        Severity::High => "error",
        Severity::Critical => "critical",
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

/// A value of logfmt: in quotes where it would not stay one word.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    match !text.is_empty() && text.chars().all(fits) {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tap::loki) fn leaf(position: u64, kind: &str, at_us: i64, mut leaf: Value) -> TapItem {
        leaf["kind"] = kind.into();
        let bytes = bytes::Bytes::from(leaf.to_string());
        TapItem::Leaf(TapLeaf {
            origin: Origin::new("acme/gw1/20261121t120000z-0a0b0c0d").unwrap(),
            position,
            kind: kind.into(),
            at_us,
            hash: schemas::leaf::hash(&bytes),
            bytes,
        })
    }

    #[test]
    fn an_outcome_is_a_short_line_and_metadata_and_its_stream_has_few_labels() {
        let outcome = json!({
            "exchange": "01a1fc23-fcba-7aed-b09b-6a27f061fc4c", "end": "complete", "status": 200,
            "asked": { "provider": "openai", "route": "openai", "operation": "chat.completions", "requested_model": "gpt-4o" },
            "answered": { "served_model": "gpt=4o-2024" },
            "caller": { "consumer": { "value": "payroll-bot" }, "team": { "value": "hr" } },
            "usage": { "input_tokens": 0, "output_tokens": 6 }, "cost": { "total": "0.00041", "currency": "USD" },
            "timing": { "first_token_us": 12_345, "total_us": 840_999 }, "parts": [{ "length": 5 }],
        });
        let item = leaf(12, "outcome", 1_795_169_700_000_001, outcome);
        let entry = Entry::of(&item);
        assert_eq!(
            entry.line,
            "kind=outcome status=200 end=complete provider=openai operation=chat.completions model=\"gpt=4o-2024\" \
             consumer=payroll-bot team=hr input_tokens=0 output_tokens=6 cost=0.00041 currency=USD first_token_ms=12 total_ms=840 \
             exchange=01a1fc23-fcba-7aed-b09b-6a27f061fc4c position=12"
        );
        let TapItem::Leaf(tapped) = &item else { panic!("no leaf") };
        for (key, value) in [
            ("model", "gpt=4o-2024"),
            ("route", "openai"),
            ("level", "info"),
            ("position", "12"),
            ("origin", "acme/gw1/20261121t120000z-0a0b0c0d"),
            ("leaf_hash", tapped.hash.to_string().as_str()),
            ("total_ms", "840"),
        ] {
            assert_eq!(entry.metadata[key], value);
        }
        assert_eq!(entry.value()[0], "1795169700000001000");
        assert_eq!(
            Stream::of(&item).labels(),
            json!({ "service_name": "affidavit", "deployment": "acme", "gateway": "gw1", "epoch": "20261121t120000z-0a0b0c0d",
                "kind": "outcome" })
        );
    }

    #[test]
    fn the_cost_of_an_answer_that_was_only_read_is_in_no_entry() {
        for (role, has_cost) in [("incurred", true), ("retrieved", false)] {
            let outcome = json!({
                "usage": { "role": role, "output_tokens": 6 }, "cost": { "total": "0.00041", "currency": "USD" },
            });
            let entry = Entry::of(&leaf(12, "outcome", 1_795_169_700_000_001, outcome));
            for name in ["cost", "currency"] {
                assert_eq!(entry.metadata.contains_key(name), has_cost, "{role}: {}", entry.line);
                assert_eq!(entry.line.contains(&format!(" {name}=")), has_cost, "{role}: {}", entry.line);
            }
        }
    }

    #[test]
    fn a_leaf_that_cannot_be_read_and_a_notice_are_entries_too() {
        let broken = TapItem::Leaf(TapLeaf {
            origin: Origin::new("acme/gw1/e1").unwrap(),
            position: 3,
            kind: "unknown".into(),
            at_us: 0,
            hash: schemas::leaf::hash(b"{"),
            bytes: bytes::Bytes::from_static(b"{"),
        });
        assert_eq!(Entry::of(&broken).line, "kind=unknown position=3");
        let missed = Missed { origin: Origin::new("acme/gw1/e1").unwrap(), from: 5, to: Some(9), at_us: 7 };
        let entry = Entry::of(&TapItem::Missed(missed));
        assert_eq!(entry.line, "kind=tap_gap position=5 to=9");
        assert_eq!((&entry.metadata["level"], &entry.metadata["to"]), (&json!("error"), &json!("9")));
        assert_eq!((plain("a b"), plain("")), ("\"a b\"".to_owned(), "\"\"".to_owned()));
    }
}
