//! What a folder holds, and what it rests on.

use std::collections::BTreeMap;

use schemas::record::PartName;
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::recipients::{self, Recipient};

/// The manifest's first key.
pub const FORMAT: &str = "affidavit/subject/v2";
/// Its name.
pub const MANIFEST: &str = "manifest.json";
/// The signature over it, where there is one.
pub const SIGNATURE: &str = "manifest.json.sig";
/// The table for machines.
pub const TABLE: &str = "exchanges.json";
/// The table for people.
pub const CSV: &str = "exchanges.csv";
/// The page.
pub const PAGE: &str = "index.html";
/// The folder of exchanges.
pub const EXCHANGES: &str = "exchanges";

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Sha256Hex,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The deployment.
    pub deployment: String,
    /// The subject's pseudonym.
    pub subject: Identifier,
    /// Start of what was asked for, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<i64>,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<i64>,
    /// How many exchanges there are.
    pub exchanges: u64,
    /// Who got the data: every target that bytes of any of the exchanges may have gone to.
    pub recipients: Vec<Recipient>,
    /// The first line of the verification.
    pub verdict: String,
    /// The trust file's fingerprint.
    pub trust_fingerprint: String,
    /// When it was made, microseconds UTC.
    pub made_at: i64,
    /// With which auditor.
    pub auditor: String,
    /// Why content was read.
    pub reason: String,
    /// Every other file, by its name in the folder.
    pub files: BTreeMap<String, File>,
}

/// An exchange, as `exchanges.json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Its id.
    pub exchange: ExchangeId,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// Who got its data, as the records say.
    pub recipients: Vec<Recipient>,
    /// Its parts.
    pub parts: Vec<Part>,
    /// The file of its story.
    pub story: String,
    /// The file of its proof.
    pub proof: String,
}

/// A record of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The log.
    pub origin: Origin,
    /// The position.
    pub position: u64,
    /// What it says.
    pub record: Value,
}

/// A part of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The record that commits to it.
    pub position: u64,
    /// Which.
    pub part: PartName,
    /// Bytes of content.
    pub length: u64,
    /// What became of it: `proven`, `erased`, `not_kept`, `no_key`, `missing`, `mismatch`.
    pub state: String,
    /// The media type, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<Identifier>,
    /// The HTTP content coding in which the bytes crossed, and in which the file holds them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_encoding: Option<Identifier>,
    /// The file with the bytes, where they are proven.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
}

impl Exchange {
    /// A fact of its last record that is one of `path`, as text.
    pub fn fact(&self, path: &[&str]) -> Option<String> {
        let tells = |kind: Option<&Value>| kind.is_none_or(|kind| kind != "attempt" && kind != "side_call");
        let records = self.records.iter().rev().filter(|record| tells(record.record.get("kind")));
        records.map(|record| &record.record).find_map(|record| {
            let value = path.iter().try_fold(record, |value, key| value.get(key))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
    }

    /// Who got its data, by its records.
    pub fn told_recipients(&self) -> Vec<Recipient> {
        recipients::of(self.records.iter().map(|record| &record.record))
    }

    /// Who answered, as far as the last record says: of the attempt that served where that was not the first.
    pub fn provider(&self) -> Option<String> {
        self.fact(&["served", "provider"]).or_else(|| self.fact(&["asked", "provider"]))
    }

    /// Which model answered; else what that attempt was sent, or what was asked for.
    pub fn model(&self) -> Option<String> {
        let served = self.fact(&["answered", "served_model"]);
        let sent = || match self.fact(&["served", "number"]) {
            Some(_) => self.fact(&["served", "model"]),
            None => self.fact(&["asked", "sent_model"]),
        };
        served.or_else(sent).or_else(|| self.fact(&["asked", "requested_model"]))
    }

    /// When its first record was made.
    pub fn began_at(&self) -> Option<i64> {
        self.records.first()?.record.get("at")?.as_i64()
    }
}
