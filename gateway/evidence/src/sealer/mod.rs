//! The sealer: from journaled records to a signed batch in the spool.
//!
//! One sealer writes one log. It reads records and content back from the journal, so that a running epoch and one that
//! is recovered are sealed by the same code, and holds no more than one batch's leaves and one part's chunk in memory.

mod bases;
mod content;
mod dictionary;
mod slim;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use schemas::files::{self, FileError, LeafRow, ReferenceRow};
use schemas::merkle::CompactRange;
use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::record::PartName;
use schemas::seal::{Seal, SealError};
use schemas::{ExchangeId, Origin, Sha256Hex};

use self::bases::Bases;
use self::content::ContentFiles;
pub(crate) use self::slim::Slim;
use crate::clock::Clock;
use crate::journal::{ReadError, Segments};
use crate::keys::{KeyCache, KeyError};
use crate::next_minor;
use crate::spool::Spool;

/// Leaf bytes of a batch at most.
pub(crate) const BATCH_LEAF_BYTES: usize = 16 << 20;
/// Records of a batch at most.
pub(crate) const BATCH_RECORDS: usize = 50_000;
/// The largest records file of a batch: its leaves, once more in typed columns, and a hash and a few bytes of each.
/// Who reads records files as a whole takes them up to here.
pub(crate) const MAX_RECORDS_BYTES: u64 = 64 << 20;

/// Why a batch could not be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealingError {
    /// The spool's disk refused. Worth trying again.
    #[error("spool: {0}")]
    Spool(#[from] io::Error),
    /// The journal could not be read back.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A data key could not be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be built.
    #[error(transparent)]
    File(#[from] FileError),
    /// The seal could not be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What was journaled is not what the record commits to.
    #[error("record {position}: {what}")]
    Content {
        /// The record that commits.
        position: u64,
        /// What is wrong.
        what: String,
    },
}

impl SealingError {
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Spool(_) | Self::Journal(ReadError::Io { .. }) => true,
            // The Parquet library wraps what the spool's disk says, without its kind.
            Self::File(FileError::Parquet(_)) => true,
            _ => false,
        }
    }
}

/// Where a log's next batch goes on.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    pub(crate) tree: CompactRange,
    pub(crate) next_batch: u64,
    pub(crate) previous: Option<Sha256Hex>,
    pub(crate) time: i64,
}

impl Tip {
    /// A log without batches.
    pub(crate) fn start() -> Self {
        Self { tree: CompactRange::new(), next_batch: 0, previous: None, time: 0 }
    }
}

/// What a sealed batch is.
#[derive(Debug, Clone)]
pub(crate) struct SealedBatch {
    /// Its number.
    pub(crate) batch: u64,
    /// The position behind it.
    pub(crate) to: u64,
}

/// Seals one log.
pub(crate) struct Sealer {
    pub(crate) origin: Origin,
    pub(crate) signer: Arc<Ed25519Signer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) segments: Arc<Segments>,
    /// Records that are not in the journal's groups: recovery's.
    pub(crate) extra: BTreeMap<u64, Bytes>,
    pub(crate) keys: KeyCache,
    pub(crate) spool: Spool,
    pub(crate) tip: Tip,
    /// Content bytes of a batch, from which on it takes no further record.
    pub(crate) batch_bytes: u64,
    /// Damage was accepted: a part whose content is gone is left out, and the auditor will say so.
    pub(crate) lenient: bool,
    bases: Bases,
    dictionary: dictionary::Written,
    open: BTreeSet<u64>,
}

/// What [`Sealer::new`] takes.
pub(crate) struct SealerParts {
    pub(crate) origin: Origin,
    pub(crate) signer: Arc<Ed25519Signer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) extra: BTreeMap<u64, Bytes>,
    pub(crate) keys: KeyCache,
    pub(crate) spool: Spool,
    pub(crate) tip: Tip,
    pub(crate) batch_bytes: u64,
    pub(crate) lenient: bool,
}

impl Sealer {
    pub(crate) fn new(parts: SealerParts) -> Self {
        let SealerParts { origin, signer, clock, segments, extra, keys, spool, tip, batch_bytes, lenient } =
            parts;
        Self {
            origin,
            signer,
            clock,
            segments,
            extra,
            keys,
            spool,
            tip,
            batch_bytes,
            lenient,
            bases: Bases::default(),
            dictionary: dictionary::Written::default(),
            open: BTreeSet::new(),
        }
    }

    /// The position that the next batch begins at.
    pub(crate) fn next(&self) -> u64 {
        self.tip.tree.size()
    }

    /// The intent of the oldest exchange that is open as far as it is sealed.
    pub(crate) fn oldest_open(&self) -> Option<u64> {
        self.open.first().copied()
    }

    /// The records of `range`, from the journal or from recovery.
    fn records(
        &self,
        range: std::ops::Range<u64>,
    ) -> impl Iterator<Item = Result<LeafRow, SealingError>> + use<'_> {
        let mut journal = None;
        range.clone().map(move |position| {
            if let Some(leaf) = self.extra.get(&position) {
                let hash = schemas::leaf::hash(leaf);
                journal = None;
                return Ok(LeafRow { position, leaf: leaf.to_vec(), hash });
            }
            let records = journal.get_or_insert_with(|| self.segments.records(position..range.end));
            match records.next() {
                Some(Ok((position, leaf, hash))) => Ok(LeafRow { position, leaf: leaf.to_vec(), hash }),
                Some(Err(error)) => Err(error.into()),
                None => Err(ReadError::Absent { position }.into()),
            }
        })
    }

    /// Seals records from where the log stands up to at most `end`: as many as a batch holds. On return the batch is
    /// complete in the spool. `None` where there is nothing to seal.
    pub(crate) fn seal(&mut self, end: u64) -> Result<Option<SealedBatch>, SealingError> {
        let from = self.next();
        if from >= end {
            return Ok(None);
        }
        let mut rows: Vec<LeafRow> = Vec::new();
        let (mut leaf_bytes, mut content_bytes) = (0, 0);
        let mut slims = Vec::new();
        for row in self.records(from..end) {
            let row = row?;
            if leaf_bytes > BATCH_LEAF_BYTES
                || rows.len() >= BATCH_RECORDS
                || content_bytes > self.batch_bytes
            {
                break;
            }
            let slim = Slim::read(&row.leaf)
                .map_err(|error| SealingError::Content { position: row.position, what: error.to_string() })?;
            leaf_bytes += row.leaf.len();
            content_bytes += slim.parts.iter().map(|part| part.length).sum::<u64>();
            slims.push(slim);
            rows.push(row);
        }
        let to = from + rows.len() as u64;
        let batch = self.tip.next_batch;
        // Before the content is written: what it may go back to depends on it.
        let time = self.clock.now_us().max(self.tip.time);
        self.bases.begin(batch, time);
        self.dictionary.begin();
        let mut kept: Vec<(ExchangeId, PartName)> = Vec::new();
        let mut built = ContentFiles::new(self.spool.clone());
        for (row, slim) in rows.iter().zip(&slims) {
            if let Some(exchange) = &slim.exchange {
                let mut parts: Vec<_> = slim.parts.iter().filter(|part| part.kept != Some(false)).collect();
                parts.sort_by_key(|part| part.part);
                for part in parts {
                    content::seal_part(self, &mut built, row.position, slim, exchange, part)?;
                    kept.push((exchange.clone(), part.part));
                }
            }
        }
        let mut files = built.finish(batch)?;
        let dictionary = self.dictionary.due(time);
        let with_dictionary = dictionary.is_some();
        files.extend(self.reference_file(from..to, batch, dictionary)?);
        let mut tree = self.tip.tree.clone();
        for row in &rows {
            tree.append(row.hash);
        }
        let (bytes, schema) = next_minor::records_file(&rows)?;
        drop(rows);
        let mut file = self.spool.create("records")?;
        io::Write::write_all(&mut file, &bytes)?;
        drop(bytes);
        files.push(self.spool.keep(file, batch, FileKind::Records)?);
        files.sort();
        let seal = Seal {
            origin: self.origin.clone(),
            batch,
            from,
            to,
            root: tree.root(),
            compact: self.tip.tree.nodes().to_vec(),
            files,
            previous: self.tip.previous,
            schema,
            time,
        };
        let note = seal.sign(&*self.signer)?;
        self.spool.complete(batch, &note)?;
        self.tip = Tip { tree, next_batch: batch + 1, previous: Some(Sha256Hex::of(&note)), time: seal.time };
        self.dictionary.sealed(with_dictionary, time);
        self.segments.sealed(to, &kept);
        for (slim, position) in slims.into_iter().zip(from..) {
            self.note_open(&slim, position);
        }
        Ok(Some(SealedBatch { batch, to }))
    }

    /// Keeps track of which exchanges are open: the journal keeps their intents for a crash.
    fn note_open(&mut self, slim: &Slim, position: u64) {
        match slim.kind.as_str() {
            "intent" => {
                self.open.insert(position);
            }
            "outcome" => {
                if let Some(intent) = slim.intent_position {
                    self.open.remove(&intent);
                }
                // What no record commits to (a part whose writer was lost) needs the journal no longer.
                if let Some(exchange) = &slim.exchange {
                    self.segments.forget(exchange);
                }
            }
            "refusal" => {
                if let Some(exchange) = &slim.exchange {
                    self.segments.forget(exchange);
                }
            }
            _ => {}
        }
    }

    fn reference_file(
        &mut self,
        range: std::ops::Range<u64>,
        batch: u64,
        dictionary: Option<ReferenceRow>,
    ) -> Result<Option<schemas::seal::SealedFile>, SealingError> {
        let mut rows: BTreeMap<Sha256Hex, ReferenceRow> =
            dictionary.into_iter().map(|row| (row.sha256, row)).collect();
        for (_, sha256) in self.segments.references(range) {
            if rows.contains_key(&sha256) {
                continue;
            }
            if let Some((media_type, bytes)) = self.segments.reference(&sha256)? {
                rows.insert(sha256, ReferenceRow { sha256, media_type, bytes: bytes.to_vec() });
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let rows: Vec<ReferenceRow> = rows.into_values().collect();
        let bytes = files::write_reference(&rows)?;
        let mut file = self.spool.create("reference")?;
        io::Write::write_all(&mut file, &bytes)?;
        Ok(Some(self.spool.keep(file, batch, FileKind::Reference)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use schemas::record::MAX_LEAF_BYTES;

    use super::*;

    /// As many leaves of `bytes` bytes each as a batch takes, of noise that no compressor shortens by more than half.
    fn largest(bytes: usize) -> Vec<LeafRow> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut rows = Vec::new();
        let mut taken = 0;
        while taken <= BATCH_LEAF_BYTES && rows.len() < BATCH_RECORDS {
            let around =
                format!(r#"{{"at":1,"config":"{}","kind":"noise","noise":"","v":1}}"#, Sha256Hex([7; 32]));
            let noise: String = std::iter::repeat_with(|| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                char::from(b'0' + (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 59) as u8)
            })
            .map(|found| if found == '\\' { 'z' } else { found })
            .take(bytes - around.len())
            .collect();
            let leaf = around.replace(r#""noise":"""#, &format!(r#""noise":"{noise}""#)).into_bytes();
            taken += leaf.len();
            let hash = schemas::leaf::hash(&leaf);
            rows.push(LeafRow { position: rows.len() as u64, leaf, hash });
        }
        rows
    }

    #[test]
    fn no_batch_has_a_records_file_that_its_readers_refuse() {
        // What a column repeats stands in the leaf: twice the leaves, and a row's hash, position and levels.
        let most = 2 * (BATCH_LEAF_BYTES + MAX_LEAF_BYTES) + BATCH_RECORDS * 128;
        assert!((most as u64) < MAX_RECORDS_BYTES, "{most}");
        for bytes in [MAX_LEAF_BYTES, 340] {
            let rows = largest(bytes);
            let file = files::write_records(&rows).unwrap();
            let leaves: usize = rows.iter().map(|row| row.leaf.len()).sum();
            assert!(leaves <= BATCH_LEAF_BYTES + MAX_LEAF_BYTES && rows.len() <= BATCH_RECORDS);
            assert!(
                file.len() < leaves + rows.len() * 128 && file.len() > leaves / 2,
                "{} of {leaves}",
                file.len()
            );
        }
    }
}
