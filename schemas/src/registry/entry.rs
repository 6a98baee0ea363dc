//! Entries: the leaves of a registry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::{KeyAction, KeyEntry};
use crate::canonical;
use crate::digest::Sha256Hex;
use crate::leaf::LeafError;
use crate::names::{ExchangeId, Identifier, Origin, is_part};
use crate::record::{Erasure, Heartbeat, Hold, MAX_LEAF_BYTES, VERSION};

/// Why an entry has no leaf, or a leaf is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not a leaf of this format.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// A known kind whose keys do not have the form of FORMAT.md 15.2.
    #[error("kind `{kind}`: {reason}")]
    Form {
        /// The kind.
        kind: String,
        /// What is wrong.
        reason: String,
    },
}

/// One entry: the common keys of leaves and the body of its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Format version, 1.
    pub v: u32,
    /// When the entry was made: microseconds since 1970-01-01 UTC by the registrar's clock.
    pub at: i64,
    /// SHA-256 of the registrar's configuration.
    pub config: Sha256Hex,
    /// The kind and its own keys.
    #[serde(flatten)]
    pub body: EntryBody,
}

/// The kinds of a registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EntryBody {
    /// The registry begins. Always position 0, and only there.
    Registry(Opening),
    /// A gateway has a further key. Root-signed.
    KeyAdded(KeyEntry),
    /// A gateway's key takes the place of another. Root-signed.
    KeyRotated(KeyEntry),
    /// A key counts no longer. Root-signed.
    KeyRevoked(KeyEntry),
    /// A log was opened.
    LogOpened(LogOpened),
    /// A log has come to a size.
    LogHead(LogHead),
    /// A log ended with its `close`.
    LogClosed(LogClosed),
    /// A log is silent past its bound, without `close`.
    LogLost(LogLost),
    /// Evidence of a class is kept for so long.
    RetentionSet(RetentionSet),
    /// A price list is in force.
    PriceList(PriceList),
    /// A log's `hold` record: a legal hold begins or ends.
    LegalHold(LegalHold),
    /// A log's `erasure` record: content was destroyed.
    ContentErased(ContentErased),
    /// An audit was made.
    Audit(Audit),
    /// Signed silence.
    Heartbeat(Heartbeat),
}

impl EntryBody {
    /// The value of the key `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry(_) => "registry",
            Self::KeyAdded(_) => "key_added",
            Self::KeyRotated(_) => "key_rotated",
            Self::KeyRevoked(_) => "key_revoked",
            Self::LogOpened(_) => "log_opened",
            Self::LogHead(_) => "log_head",
            Self::LogClosed(_) => "log_closed",
            Self::LogLost(_) => "log_lost",
            Self::RetentionSet(_) => "retention_set",
            Self::PriceList(_) => "price_list",
            Self::LegalHold(_) => "legal_hold",
            Self::ContentErased(_) => "content_erased",
            Self::Audit(_) => "audit",
            Self::Heartbeat(_) => "heartbeat",
        }
    }
    /// The root-signed part, where the entry is about a key.
    pub fn key(&self) -> Option<(KeyAction, &KeyEntry)> {
        match self {
            Self::KeyAdded(entry) => Some((KeyAction::Add, entry)),
            Self::KeyRotated(entry) => Some((KeyAction::Rotate, entry)),
            Self::KeyRevoked(entry) => Some((KeyAction::Revoke, entry)),
            _ => None,
        }
    }
    /// The entry about a key.
    pub fn of_key(action: KeyAction, entry: KeyEntry) -> Self {
        match action {
            KeyAction::Add => Self::KeyAdded(entry),
            KeyAction::Rotate => Self::KeyRotated(entry),
            KeyAction::Revoke => Self::KeyRevoked(entry),
        }
    }
}

/// `registry`: who keeps this registry, and what it promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opening {
    /// Version of the registrar's binary, as in its package.
    pub gateway_version: Identifier,
    /// The registry's Ed25519 public key, standard base64 of 32 bytes: also in the trust file.
    pub seal_key: String,
    /// The public key of its checkpoints, whose name is the origin.
    pub checkpoint_key: String,
    /// The deployment's root key: also in the trust file.
    pub root_key: String,
    /// The longest time between two entries, in milliseconds (CH-3).
    pub heartbeat_bound_ms: i64,
}

/// `log_opened`: a log exists, under a key that was in force when it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogOpened {
    /// The log.
    pub origin: Origin,
    /// Its public key, standard base64 of 32 bytes.
    pub key: String,
    /// SHA-256 of the seal of its batch 0.
    pub seal: Sha256Hex,
    /// The longest silence that its `boot` allows, in milliseconds.
    pub heartbeat_bound_ms: i64,
    /// The longest time that a record waits for its batch, as in its `boot`, in milliseconds.
    pub batch_age_ms: i64,
    /// SHA-256 of the configuration that it began with.
    pub log_config: Sha256Hex,
    /// The log that its `boot` names as the one before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predecessor: Option<Origin>,
}

/// `log_head`: a seal of a registered log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogHead {
    /// The log.
    pub origin: Origin,
    /// The batch's number.
    pub batch: u64,
    /// The tree's size behind it.
    pub size: u64,
    /// The tree's root there.
    pub root: Sha256Hex,
    /// SHA-256 of the seal.
    pub seal: Sha256Hex,
    /// `true`: the registrar saw it on its way (16.1), and the store did not have it yet; absent: the store had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<bool>,
    /// The records of all batches below this number were read: every `hold` and `erasure` among them has its entry before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
}

/// `log_closed`: the last head of the log ends with `close`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogClosed {
    /// The log.
    pub origin: Origin,
    /// Its final size: that of its last registered head.
    pub size: u64,
    /// The reason that `close` gives.
    pub reason: Identifier,
}

/// `log_lost`: nothing came for longer than the log's bounds. A later head takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLost {
    /// The log.
    pub origin: Origin,
    /// Its size as far as it is known.
    pub size: u64,
    /// The time of its newest seal, microseconds UTC.
    pub silent_since: i64,
}

/// `retention_set`: how long evidence of a class is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetentionSet {
    /// The retention class; `records` for seals and records.
    pub retention: Identifier,
    /// Days.
    pub days: u64,
}

/// `price_list`: a price list is in force from a time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PriceList {
    /// SHA-256 of the price book.
    pub price_book: Sha256Hex,
    /// From when on, microseconds UTC.
    pub from: i64,
}

/// `legal_hold`: a `hold` record was seen in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LegalHold {
    /// The log that holds the `hold` record.
    pub origin: Origin,
    /// The record's position there.
    pub position: u64,
    /// The record's time, microseconds UTC.
    pub recorded_at: i64,
    /// What the record says.
    #[serde(flatten)]
    pub said: Hold,
}

impl LegalHold {
    /// Of a record, by its place and time.
    pub fn of(origin: &Origin, position: u64, recorded_at: i64, record: &Hold) -> Self {
        Self { origin: origin.clone(), position, recorded_at, said: record.clone() }
    }
}

/// `content_erased`: an `erasure` record was seen in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContentErased {
    /// The log that holds the `erasure` record.
    pub origin: Origin,
    /// The record's position there.
    pub position: u64,
    /// The record's time, microseconds UTC.
    pub recorded_at: i64,
    /// The exchange whose content went.
    pub exchange: ExchangeId,
    /// The log that holds the exchange.
    pub of_origin: Origin,
    /// Position of its intent or refusal there.
    pub of_position: u64,
    /// The destroyed data key.
    pub content_key: Identifier,
    /// As in the record.
    pub reason: Identifier,
    /// As in the record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
}

impl ContentErased {
    /// Of a record, by its place and time.
    pub fn of(origin: &Origin, position: u64, recorded_at: i64, record: &Erasure) -> Self {
        let erased = record.clone();
        Self {
            origin: origin.clone(),
            position,
            recorded_at,
            exchange: erased.exchange,
            of_origin: erased.origin,
            of_position: erased.position,
            content_key: erased.content_key,
            reason: erased.reason,
            actor: erased.actor,
        }
    }
}

/// `audit`: somebody audited, and says so here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// Who audited.
    pub auditor: Identifier,
    /// SHA-256 of the report.
    pub report: Sha256Hex,
    /// The verdict's word.
    pub verdict: Identifier,
    /// Start of the proven interval, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<i64>,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<i64>,
}

fn form(entry: &Entry) -> Result<(), EntryError> {
    let wrong = |reason: String| Err(EntryError::Form { kind: entry.body.kind().into(), reason });
    if entry.v != VERSION {
        return Err(LeafError::Version { found: entry.v.into() }.into());
    }
    if entry.at < 0 {
        return Err(LeafError::Envelope { key: "at", wanted: "a time in microseconds" }.into());
    }
    match &entry.body {
        EntryBody::LogHead(head) if head.size == 0 => wrong("`size` is 0".into()),
        EntryBody::LogHead(head) if head.read.is_some_and(|read| read > head.batch.saturating_add(1)) => {
            wrong("`read` is beyond the batch".into())
        }
        EntryBody::RetentionSet(set) if !is_part(set.retention.as_str()) => {
            wrong(format!("`retention` is `{}`, wanted `[a-z0-9][a-z0-9.-]{{0,62}}`", set.retention))
        }
        EntryBody::LegalHold(hold) if !matches!(hold.said.phase.as_str(), "begin" | "end") => {
            wrong(format!("`phase` is `{}`, wanted `begin` or `end`", hold.said.phase))
        }
        _ => Ok(()),
    }
}

/// Writes the leaf of an entry.
///
/// # Errors
/// Text that a leaf may not hold (CA-8), values out of form, more than 65,535 bytes.
pub fn encode(entry: &Entry) -> Result<Vec<u8>, EntryError> {
    form(entry)?;
    let leaf = canonical::to_leaf(entry).map_err(LeafError::from)?;
    if leaf.len() > MAX_LEAF_BYTES {
        return Err(LeafError::TooLong { length: leaf.len() }.into());
    }
    Ok(leaf)
}

/// Reads the leaf of a registry; `None` for a kind that this version does not know. The leaf itself was read strictly
/// before ([`crate::leaf::decode`]).
///
/// # Errors
/// A known kind out of form.
pub fn decode(leaf: &[u8]) -> Result<Option<Entry>, EntryError> {
    const KINDS: [&str; 14] = [
        "registry",
        "key_added",
        "key_rotated",
        "key_revoked",
        "log_opened",
        "log_head",
        "log_closed",
        "log_lost",
        "retention_set",
        "price_list",
        "legal_hold",
        "content_erased",
        "audit",
        "heartbeat",
    ];
    let decoded = crate::leaf::decode(leaf)?;
    let kind = decoded.kind();
    if !KINDS.contains(&kind) {
        return Ok(None);
    }
    let entry: Entry = serde_json::from_slice(leaf)
        .map_err(|error| EntryError::Form { kind: kind.into(), reason: error.to_string() })?;
    form(&entry)?;
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(body: EntryBody) -> Entry {
        Entry { v: 1, at: 5, config: Sha256Hex([7; 32]), body }
    }

    fn head() -> LogHead {
        LogHead {
            origin: Origin::new("acme/gw1/e1").unwrap(),
            batch: 3,
            size: 9,
            root: Sha256Hex([1; 32]),
            seal: Sha256Hex([2; 32]),
            ahead: None,
            read: None,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let silence = Heartbeat { counters: BTreeMap::from([("logs".into(), 3)]) };
        for body in [EntryBody::LogHead(head()), EntryBody::Heartbeat(silence)] {
            let leaf = encode(&entry(body.clone())).unwrap();
            assert_eq!(decode(&leaf).unwrap(), Some(entry(body)));
        }
    }

    #[test]
    fn what_is_out_of_form_is_refused_and_what_is_unknown_is_none() {
        assert!(encode(&entry(EntryBody::LogHead(LogHead { size: 0, ..head() }))).is_err());
        let leaf = String::from_utf8(encode(&entry(EntryBody::LogHead(head()))).unwrap()).unwrap();
        assert_eq!(decode(leaf.replace("log_head", "log_tail").as_bytes()).unwrap(), None);
        assert!(decode(leaf.replace("\"size\":9", "\"size\":\"9\"").as_bytes()).is_err());
        assert!(decode(leaf.replace("\"size\":9", "\"size\":0").as_bytes()).is_err());
        assert!(decode(leaf.replace("\"v\":1", "\"v\":2").as_bytes()).is_err());
        assert!(decode(leaf.replace("acme/gw1/e1", "acme gw1").as_bytes()).is_err());
        let more = leaf.replace("\"v\":1", "\"v\":1,\"w\":2");
        assert!(decode(more.as_bytes()).unwrap().is_some(), "further keys may be added");
    }
}
