//! What was found out about one log: can be stored, and continued with newer batches.

use std::collections::BTreeMap;

use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::content::KeyUse;
use super::prices::Books;
use super::story::Story;
use crate::finding::Findings;
use crate::report::{Counts, Interval};

/// The newest proven seal of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// Its batch.
    pub batch: u64,
    /// The tree's size.
    pub size: u64,
    /// The tree's root.
    pub root: Sha256Hex,
    /// SHA-256 of the seal.
    pub seal: Sha256Hex,
    /// Its time.
    pub time: i64,
}

/// Who went on with a log in the place of its own key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closer {
    /// The closer's public key, base64.
    pub key: String,
    /// The first batch that it sealed.
    pub batch: u64,
    /// The first position of that batch: the log's own key sealed what stands before.
    pub from: u64,
}

/// A data file that the seal of its batch does not name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnamed {
    /// The batch.
    pub batch: u64,
    /// When the batch was sealed, where its seal holds.
    pub sealed: Option<i64>,
    /// The file's name.
    pub file: String,
}

/// Everything that was found out about one log. Can be stored and continued with newer batches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogFold {
    /// The log.
    pub origin: Origin,
    /// Its trusted key, base64.
    pub key: String,
    /// Who sealed its end, where it is not that key.
    #[serde(default)]
    pub closer: Option<Closer>,
    /// What its records say.
    pub story: Story,
    /// Findings about this log.
    pub findings: Findings,
    /// Counts.
    pub counts: CountsOfLog,
    /// The newest proven seal.
    pub newest: Option<Newest>,
    /// Runs of proven records.
    pub proven: Vec<(i64, i64)>,
    /// Time of the newest seal whose records are expired.
    pub expired_until: Option<i64>,
    /// The number of the next batch.
    pub next_batch: u64,
    /// Each batch below that has a seal, with the mark of its objects in the listing it was read by.
    pub marks: BTreeMap<u64, u64>,
    /// How long evidence is kept by the mandate that it was judged with, microseconds.
    pub retention: Option<i64>,
    /// Positions below this are proven, expired or named in a finding.
    pub next_position: u64,
    /// Reference hashes that a reference file of this log holds.
    pub held: std::collections::BTreeSet<Sha256Hex>,
    /// A reference file of this log could not be read.
    pub unread_references: bool,
    /// Data files that the seal of their batch does not name.
    #[serde(default)]
    pub unnamed: Vec<Unnamed>,
    /// Price books of this log.
    pub books: Books,
    /// Policies of this log, as they are stored.
    pub policies: BTreeMap<Sha256Hex, String>,
    /// Exchanges whose data key is destroyed: `(position, key id)`, with the exchange.
    pub destroyed: Vec<KeyUse>,
    /// Parts under keys of logs that the key table does not know.
    pub keyless: u64,
    /// Whether content was looked at with a key table.
    pub with_keys: bool,
    /// The time of the earlier visit with which this log is consistent.
    pub consistent_since: Option<i64>,
    /// SHA-256 of the newest seal of that visit.
    pub met: Option<Sha256Hex>,
    /// Batches that were taken from the cache.
    pub batches_from_cache: u64,
    /// The next proven batch does not continue the run before it.
    pub(super) torn: bool,
}

/// Counts of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsOfLog {
    /// Objects listed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seals checked.
    pub seals: u64,
    /// Bytes hashed.
    pub bytes_hashed: u64,
    /// Leaves hashed.
    pub leaves: u64,
    /// Batches proven.
    pub batches: u64,
    /// Batches expired.
    pub expired: u64,
}

impl CountsOfLog {
    /// Adds them to those of all logs.
    pub fn add_to(&self, all: &mut Counts) {
        all.objects += self.objects;
        all.bytes += self.bytes;
        all.seals += self.seals;
        all.bytes_hashed += self.bytes_hashed;
        all.leaves += self.leaves;
        all.batches += self.batches;
        all.expired += self.expired;
    }
}

impl LogFold {
    /// True where the store holds something of the log that was proven, or named by a finding.
    pub fn is_there(&self) -> bool {
        self.counts.batches + self.counts.expired > 0 || self.findings.effect() > crate::finding::Effect::Note
    }

    /// Nothing is known yet.
    pub fn new(origin: Origin, key: String) -> Self {
        Self {
            story: Story::new(origin.clone(), key.clone()),
            origin,
            key,
            closer: None,
            findings: Findings::default(),
            counts: CountsOfLog::default(),
            newest: None,
            proven: Vec::new(),
            expired_until: None,
            next_batch: 0,
            marks: BTreeMap::new(),
            retention: None,
            next_position: 0,
            held: Default::default(),
            unread_references: false,
            unnamed: Vec::new(),
            books: Books::default(),
            policies: BTreeMap::new(),
            destroyed: Vec::new(),
            keyless: 0,
            with_keys: false,
            consistent_since: None,
            met: None,
            batches_from_cache: 0,
            torn: false,
        }
    }
}

/// Proven runs as intervals.
pub(super) fn intervals(runs: &[(i64, i64)]) -> Vec<Interval> {
    runs.iter().map(|(from, to)| Interval { from: *from, to: *to }).collect()
}
