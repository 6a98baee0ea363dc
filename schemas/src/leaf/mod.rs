//! Leaves: the canonical bytes of a record, and their strict decoding.
//!
//! A leaf is an object of canonical JSON in which every key and every string is 1 to 191 characters of
//! `A-Z a-z 0-9 _ . : / @ + - =` (CA-8: there is no room for free text). Format: `FORMAT.md` 3.

mod check;
mod known;
mod scan;

use serde::Deserialize;
use serde_json::Value;

use self::check::{TextCheck, check};
use self::scan::{CellRef, Head, Scanned};
use crate::canonical::{self, CanonicalError};
use crate::columns::{COUNT, Cells};
use crate::digest::{Hasher, Sha256Hex};
use crate::record::{Body, MAX_LEAF_BYTES, Record, VERSION};

pub use crate::canonical::MAX_STRING;

/// Why a record has no leaf, or a leaf no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not the one canonical text of any value.
    #[error("not canonical: {0}")]
    Canonical(#[from] CanonicalError),
    /// Larger than 65,535 bytes.
    #[error("leaf of {length} bytes, at most {MAX_LEAF_BYTES} are allowed")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// A key or string outside `[A-Za-z0-9_.:/@+=-]{1,191}` (CA-8).
    #[error("`{key}` holds text that a leaf may not hold: wanted `[A-Za-z0-9_.:/@+=-]{{1,191}}`")]
    Text {
        /// The key that holds it, or that is it.
        key: String,
    },
    /// Not an object, or no `v`, `kind`, `at`, `config`.
    #[error("key `{key}` is missing or is not {wanted}")]
    Envelope {
        /// The key.
        key: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A version that this crate does not know.
    #[error("version {found}, wanted {VERSION}")]
    Version {
        /// The version found.
        found: i64,
    },
    /// A known kind whose keys do not have the form of FORMAT.md 3.
    #[error("kind `{kind}`: {reason}")]
    Form {
        /// The kind.
        kind: String,
        /// What is wrong.
        reason: String,
    },
}

/// A leaf that was read strictly. It does not keep the leaf's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The record; `None` for a kind that this crate does not know.
    pub record: Option<Record>,
    /// Paths (`a.b`) of keys that the record does not hold: not judged. Empty where the kind is unknown.
    pub unknown_keys: Vec<String>,
    /// The kind, where it is unknown.
    unknown_kind: Box<str>,
    cells: Box<[CellRef; COUNT]>,
}

impl Decoded {
    /// The value of the key `kind`.
    pub fn kind(&self) -> &str {
        self.record.as_ref().map_or(&self.unknown_kind, |record| record.body.kind())
    }

    /// The cells of the typed columns: what [`crate::columns::cells`] makes of the value, without making the value.
    ///
    /// `leaf` is the leaf that this was decoded from.
    pub fn cells<'a>(&self, leaf: &'a [u8]) -> Cells<'a> {
        scan::cells(leaf, &self.cells)
    }
}

/// Writes the leaf of `record`.
///
/// # Errors
/// Text outside CA-8, lists beyond 32, malformed decimals, more than 65,535 bytes. Callers cut and replace before:
/// an error here is a defect of the caller.
pub fn encode(record: &Record) -> Result<Vec<u8>, LeafError> {
    check(record)?;
    let leaf = match canonical::to_leaf(record) {
        Ok(leaf) => leaf,
        Err(error) => {
            // Says which key it is.
            let leaf = canonical::to_vec(record)?;
            let mut text = TextCheck::default();
            canonical::walk(&leaf, &mut text)?;
            text.finish()?;
            return Err(error.into());
        }
    };
    if leaf.len() > MAX_LEAF_BYTES {
        return Err(LeafError::TooLong { length: leaf.len() });
    }
    Ok(leaf)
}

/// Reads a leaf strictly.
///
/// # Errors
/// Anything that no v1 writer may write. Unknown kinds and unknown keys are no error: they are listed.
pub fn decode(leaf: &[u8]) -> Result<Decoded, LeafError> {
    match scan::scan(leaf) {
        Some(scanned) => decode_scanned(leaf, scanned),
        // Whatever is wrong is named by the readers that take their time.
        None => {
            let mut text = TextCheck::default();
            canonical::walk(leaf, &mut text)?;
            text.finish()?;
            envelope(&canonical::parse(leaf)?)?;
            Err(LeafError::Envelope { key: "v", wanted: "a leaf" })
        }
    }
}

fn decode_scanned(leaf: &[u8], scanned: Scanned) -> Result<Decoded, LeafError> {
    let Some(Head { at, config, kind }) = scanned.head(leaf) else {
        // Says what is wrong.
        envelope(&canonical::parse(leaf)?)?;
        return Err(LeafError::Envelope { key: "v", wanted: "a leaf" });
    };
    let cells = scanned.cells;
    let Some(body) = body(kind, leaf) else {
        return Ok(Decoded { record: None, unknown_keys: Vec::new(), unknown_kind: kind.into(), cells });
    };
    let body = body.map_err(|error| LeafError::Form { kind: kind.into(), reason: error.to_string() })?;
    let record = Record { v: VERSION, at, config, body };
    check(&record)?;
    let mut unknown_keys = Vec::new();
    if !known::covers(kind, scanned.kinds) || scanned.empty {
        let known = canonical::to_vec(&record)?;
        if known != leaf {
            differences(&canonical::parse(leaf)?, &canonical::parse(&known)?, "", &mut unknown_keys);
        }
    }
    Ok(Decoded { record: Some(record), unknown_keys, unknown_kind: "".into(), cells })
}

/// Checks what every leaf holds, and names what it does not.
fn envelope(value: &Value) -> Result<(), LeafError> {
    if !value.is_object() {
        return Err(LeafError::Envelope { key: "v", wanted: "the version, in an object" });
    }
    let v = value
        .get("v")
        .and_then(Value::as_i64)
        .ok_or(LeafError::Envelope { key: "v", wanted: "an integer" })?;
    if v != i64::from(VERSION) {
        return Err(LeafError::Version { found: v });
    }
    if value.get("at").and_then(Value::as_i64).is_none_or(|at| at < 0) {
        return Err(LeafError::Envelope { key: "at", wanted: "a time in microseconds" });
    }
    if value.get("config").and_then(Value::as_str).and_then(Sha256Hex::parse).is_none() {
        return Err(LeafError::Envelope { key: "config", wanted: "64 lower-case hex digits" });
    }
    if !value.get("kind").is_some_and(Value::is_string) {
        return Err(LeafError::Envelope { key: "kind", wanted: "a string" });
    }
    Ok(())
}

/// The leaf hash: SHA-256(0x00 || leaf) (RFC 6962 2.1).
pub fn hash(leaf: &[u8]) -> Sha256Hex {
    let mut hasher = Hasher::default();
    hasher.update([0]);
    hasher.update(leaf);
    hasher.finish()
}

/// Reads the body of a known kind; `None` for an unknown one.
fn body(kind: &str, leaf: &[u8]) -> Option<Result<Body, serde_json::Error>> {
    fn read<'a, T: Deserialize<'a>>(leaf: &'a [u8], make: fn(T) -> Body) -> Result<Body, serde_json::Error> {
        serde_json::from_slice(leaf).map(make)
    }
    Some(match kind {
        "boot" => read(leaf, Body::Boot),
        "config" => read(leaf, Body::Config),
        "intent" => read(leaf, Body::Intent),
        "outcome" => read(leaf, Body::Outcome),
        "refusal" => read(leaf, Body::Refusal),
        "attempt" => read(leaf, Body::Attempt),
        "side_call" => read(leaf, Body::SideCall),
        "admin" => read(leaf, Body::Admin),
        "heartbeat" => read(leaf, Body::Heartbeat),
        "gap" => read(leaf, Body::Gap),
        "hold" => read(leaf, Body::Hold),
        "erasure" => read(leaf, Body::Erasure),
        "close" => read(leaf, Body::Close),
        _ => return None,
    })
}

/// Lists the paths of what `found` holds and `known` does not.
fn differences(found: &Value, known: &Value, path: &str, out: &mut Vec<String>) {
    match (found, known) {
        (Value::Object(found), Value::Object(known)) => {
            for (key, value) in found {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => differences(value, known, &path, out),
                    None => out.push(path),
                }
            }
        }
        (Value::Array(found), Value::Array(known)) if found.len() == known.len() => {
            for (found, known) in found.iter().zip(known) {
                differences(found, known, path, out);
            }
        }
        _ if found == known => {}
        _ => out.push(path.into()),
    }
    out.dedup();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::{ExchangeId, Identifier, Origin};
    use crate::record::{
        Answered, Asked, Caller, Close, CloseReason, Cost, End, Outcome, Part, PartName, Timing, Usage,
        UsageRole, UsageSource,
    };

    fn id(text: &str) -> Identifier {
        Identifier::new(text).unwrap()
    }

    fn record(body: Body) -> Record {
        Record { v: 1, at: 1_700_000_000_000_000, config: Sha256Hex([7; 32]), body }
    }

    fn outcome() -> Outcome {
        Outcome {
            exchange: ExchangeId::new("018f0000-0000-7000-8000-000000000001").unwrap(),
            intent_position: 3,
            caller: Caller::default(),
            asked: Asked {
                route: Some(id("openai")),
                requested_model: Some(id("gpt-5")),
                stream: Some(true),
                ..Asked::default()
            },
            served: None,
            translation: None,
            answer_dropped: None,
            end: End::Complete,
            provider_end: None,
            provider_status: Some(200),
            status: Some(200),
            reason: None,
            delivered: Some(10),
            released: Some(0),
            delivered_at_least: None,
            answered: Answered::default(),
            usage: Usage {
                input_tokens: Some(0),
                output_tokens: Some(5),
                ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
            },
            cost: Some(Cost {
                currency: id("USD"),
                total: "0.000000000003".into(),
                classes: BTreeMap::from([("output".into(), "0.000000000003".into())]),
                price_book: Sha256Hex([1; 32]),
                price_row: id("openai/gpt-5/2026-01-01"),
            }),
            unpriced: None,
            timing: Timing::default(),
            rate_limits: BTreeMap::new(),
            parts: vec![Part {
                part: PartName::ProviderResponse,
                media_type: Some(id("text/event-stream")),
                content_encoding: None,
                length: 10,
                commitment: Sha256Hex([2; 32]),
                kept: None,
            }],
            content_key: Some(id("acme/gw1/20261120t101500z-3f9a1c20/000000/0001")),
            retention: id("standard"),
        }
    }

    #[test]
    fn a_leaf_decodes_to_the_record_that_it_was_made_from() {
        let close = Close {
            reason: CloseReason::Shutdown,
            successor: Some(Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()),
            alive_until: 5,
            counters: BTreeMap::new(),
        };
        for body in [Body::Outcome(outcome()), Body::Close(close)] {
            let record = record(body);
            let leaf = encode(&record).unwrap();
            let decoded = decode(&leaf).unwrap();
            assert_eq!(decoded.record.as_ref(), Some(&record));
            assert_eq!(decoded.unknown_keys, Vec::<String>::new());
            assert_eq!(decoded.kind(), record.body.kind());
        }
    }

    #[test]
    fn unknown_keys_are_listed_by_path_and_change_nothing_else() {
        let leaf = encode(&record(Body::Outcome(outcome()))).unwrap();
        let text = String::from_utf8(leaf).unwrap();
        let text = text
            .replacen("\"asked\":{", "\"asked\":{\"a_new_key\":7,", 1)
            .replacen("\"text/event-stream\",", "\"text/event-stream\",\"new\":true,", 1)
            .replacen("\"v\":1", "\"v\":1,\"w\":[1]", 1);
        let decoded = decode(text.as_bytes()).unwrap();
        assert_eq!(decoded.unknown_keys, ["asked.a_new_key", "parts.new", "w"]);
        assert_eq!(decoded.record, Some(record(Body::Outcome(outcome()))));
    }

    #[test]
    fn unknown_kinds_are_no_error_and_no_record() {
        let config = Sha256Hex([7; 32]);
        let leaf = format!(r#"{{"at":1,"config":"{config}","frames":3,"kind":"message","v":1}}"#);
        let decoded = decode(leaf.as_bytes()).unwrap();
        assert_eq!((decoded.kind(), &decoded.record), ("message", &None));
    }

    #[test]
    fn what_no_writer_may_write_is_refused() {
        let config = Sha256Hex([7; 32]);
        let cases = [
            (r#"{"at":1,"config":"C","counters":{"a b":1},"kind":"heartbeat","v":1}"#, "Text"),
            (r#"{"at":1,"config":"C","counters":{"é":1},"kind":"heartbeat","v":1}"#, "Text"),
            (r#"{"at":1,"config":"C","kind":"new","said":"","v":1}"#, "Text"),
            (r#"{"at":1,"config":"C","counters":{},"kind":"heartbeat","v":2}"#, "Version"),
            (r#"{"at":-1,"config":"C","counters":{},"kind":"heartbeat","v":1}"#, "Envelope"),
            (r#"{"at":1,"config":"c","counters":{},"kind":"heartbeat","v":1}"#, "Envelope"),
            (r#"{"at":1,"config":"C","kind":3,"v":1}"#, "Envelope"),
            (r#"[]"#, "Envelope"),
            (r#"{"at":1,"config":"C","kind":"heartbeat","v":1}"#, "Form"),
            (r#"{"at":1,"config":"C","counters":{"a":-1},"kind":"heartbeat","v":1}"#, "Form"),
            (r#"{"at":1,"config":"C","kind":"gap","reason":"bored","v":1}"#, "Form"),
            (r#"{"at":1,"config":"C","kind":"gap","v":1,"reason":"loss"}"#, "Canonical"),
        ];
        for (leaf, wanted) in cases {
            let leaf = leaf.replace("\"C\"", &format!("\"{config}\""));
            let error = decode(leaf.as_bytes()).unwrap_err();
            assert!(format!("{error:?}").starts_with(wanted), "{leaf}: {error:?}");
        }
        let long =
            format!(r#"{{"at":1,"config":"{config}","kind":"new","said":"{}","v":1}}"#, "a".repeat(192));
        assert!(matches!(decode(long.as_bytes()), Err(LeafError::Text { key }) if key == "said"));
    }

    #[test]
    fn free_text_lists_and_money_are_checked_before_writing() {
        let mut wrong = outcome();
        wrong.rate_limits.insert("with space".into(), 1);
        assert!(matches!(encode(&record(Body::Outcome(wrong))), Err(LeafError::Text { .. })));
        let mut wrong = outcome();
        wrong.answered.tool_names = vec![id("t"); 33];
        assert!(matches!(encode(&record(Body::Outcome(wrong))), Err(LeafError::Form { .. })));
        let wrong = Outcome { retention: id("Standard/1"), ..outcome() };
        assert!(matches!(encode(&record(Body::Outcome(wrong))), Err(LeafError::Form { .. })));
        for (total, class) in [("1", "2"), ("1.0000000000001", "1"), ("+1", "1"), ("1e3", "1000")] {
            let mut wrong = outcome();
            if let Some(cost) = &mut wrong.cost {
                cost.total = total.into();
                cost.classes = BTreeMap::from([("output".into(), class.into())]);
            }
            assert!(matches!(encode(&record(Body::Outcome(wrong))), Err(LeafError::Form { .. })), "{total}");
        }
    }

    #[test]
    fn leaf_hash_has_the_rfc_6962_prefix() {
        let wanted = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(hash(b"").to_string(), wanted);
    }
}
