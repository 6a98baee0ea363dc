//! One batch, from whole objects to a receipt.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::seal::SignedSeal;
use schemas::ship::{Archived, Receipt};
use schemas::verify::{BatchInput, FaultCode, SealTail, VerifiedBatch, chain_seal, verify_batch};
use schemas::{ObjectName, Sha256Hex};

use super::assembly::Wanted;
use super::earlier::Earlier;
use super::keys::{self, Keys};
use super::quarantine::Fault;
use crate::clock::Clock;
use crate::store::{self, Source, Store, StoreError};
use crate::tip::MAX_SEAL_BYTES;

/// The largest records file that is read: it is verified in memory. Far above what a gateway makes.
pub(super) const MAX_RECORDS_BYTES: u64 = 1 << 30;
const _: () = assert!(crate::sealer::MAX_RECORDS_BYTES <= MAX_RECORDS_BYTES);

/// A batch whose objects are all whole.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    pub(crate) seal: SignedSeal,
    pub(crate) key: [u8; 32],
    pub(crate) note: Vec<u8>,
    /// The data files, then the seal, with where their bytes are.
    pub(crate) objects: Vec<(Wanted, PathBuf)>,
}

/// A batch that is in the store.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The signed receipt.
    pub(crate) receipt: Vec<u8>,
    /// What of it this version does not know: kept, and marked.
    pub(crate) unknown: Vec<String>,
    /// The batch before it is not in the store: on its way, or lost.
    pub(crate) predecessor_missing: bool,
    /// The store has these records, or their beginning, under an earlier seal: the receipt is for that one, and nothing
    /// of this batch was put.
    pub(crate) repeats: bool,
}

/// Why a batch is not in the store.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// It may work later.
    Later(StoreError),
    /// It never will.
    Never(Fault, String),
}

/// How a batch stands to the one before it.
#[derive(Debug)]
enum Before {
    /// It continues it, or is the log's first.
    Continued,
    /// The store has none, or what has its name is no seal of this log: the auditor tells.
    Missing,
    /// It continues another one.
    Broken(String),
}

/// Who archives, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Hand {
    pub(crate) name: String,
    pub(crate) signer: Arc<Ed25519Signer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: Arc<dyn Keys>,
}

impl Hand {
    /// Verifies a batch on its own proof, puts its files and then its seal, and has the store show each of them.
    pub(crate) fn archive(&self, batch: &Whole) -> Result<Stored, NotStored> {
        let verified = judge(batch)?;
        let unknown = unknown(&verified);
        if let Some(receipt) = self.repeats(batch, &verified)? {
            return Ok(Stored { receipt, unknown, predecessor_missing: false, repeats: true });
        }
        let before = self.before(batch)?;
        // What the store has already stays there, and is answered for.
        if let Before::Broken(what) = &before
            && self.store.get(&batch.seal.object_name()).map_err(refused)?.is_none()
        {
            return Err(NotStored::Never(Fault::ChainBroken, what.clone()));
        }
        for (wanted, path) in &batch.objects {
            match self.store.put(&wanted.name, source(batch, wanted, path)) {
                Ok(_) => {}
                // Another archiver was faster, with another seal.
                Err(error @ StoreError::Taken { .. }) if wanted.name == batch.seal.object_name() => {
                    let receipt = self.repeats(batch, &verified)?.ok_or_else(|| refused(error))?;
                    return Ok(Stored { receipt, unknown, predecessor_missing: false, repeats: true });
                }
                Err(error) => return Err(refused(error)),
            }
        }
        let mut kept = Vec::with_capacity(batch.objects.len());
        for (wanted, path) in &batch.objects {
            let shown = self.store.confirm(&wanted.name, source(batch, wanted, path)).map_err(refused)?;
            kept.push(Archived {
                name: wanted.name.file_name(),
                version: shown.version,
                retain_until_s: shown.retain_until_s,
            });
        }
        let receipt = self.receipt(&batch.seal, &batch.note, kept)?;
        let predecessor_missing = matches!(before, Before::Missing) && self.lacks_predecessor(batch);
        Ok(Stored { receipt, unknown, predecessor_missing, repeats: false })
    }

    fn receipt(&self, seal: &SignedSeal, note: &[u8], kept: Vec<Archived>) -> Result<Vec<u8>, NotStored> {
        let receipt = Receipt::of(seal, Sha256Hex::of(note), kept, self.clock.now_us());
        receipt.sign(&self.name, &*self.signer).map_err(|error| {
            NotStored::Never(Fault::ReadBack, format!("its receipt cannot be written: {error}"))
        })
    }

    /// Where the store has this batch under another seal of its log: the receipt for that one.
    fn repeats(&self, batch: &Whole, verified: &VerifiedBatch) -> Result<Option<Vec<u8>>, NotStored> {
        let trust = self.keys.trust();
        let verify = |note: &[u8]| keys::verify(note, &trust).ok().map(|(seal, _)| seal);
        let Some(earlier) = Earlier::of(&*self.store, batch, &verify).map_err(refused)? else {
            return Ok(None);
        };
        if !earlier.agrees(&*self.store, batch, verified).map_err(refused)? {
            let (size, root) = (earlier.seal.to, earlier.seal.root);
            let what = format!("the store has other records under it: size {size}, root {root}");
            return Err(NotStored::Never(Fault::NameTaken, what));
        }
        self.receipt_again(&earlier).map(Some)
    }

    /// The receipt of a batch that the store has: whoever sealed it anew may never have heard of it.
    fn receipt_again(&self, earlier: &Earlier) -> Result<Vec<u8>, NotStored> {
        let mut kept = Vec::new();
        for (name, sha256, length) in earlier.objects() {
            let source =
                Source { path: Path::new(""), sha256: &sha256, length, sealed_us: earlier.seal.time };
            let shown = self.store.confirm(&name, source).map_err(refused)?;
            kept.push(Archived {
                name: name.file_name(),
                version: shown.version,
                retain_until_s: shown.retain_until_s,
            });
        }
        self.receipt(&earlier.seal, &earlier.note, kept)
    }

    /// Holds a batch against the one before it, where the store has that.
    fn before(&self, batch: &Whole) -> Result<Before, NotStored> {
        let Some(name) = predecessor(&batch.seal) else {
            return Ok(out_of_place(None, &batch.seal).map_or(Before::Continued, Before::Broken));
        };
        let note = match store::read_object(&*self.store, &name, MAX_SEAL_BYTES) {
            Ok(note) => note,
            // No seal is that large.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::FileTooLarge => None,
            Err(error) => return Err(refused(error)),
        };
        let sealed = note.and_then(|note| keys::verify(&note, &self.keys.trust()).ok());
        let Some((before, _)) = sealed.filter(|(seal, _)| seal.object_name() == name) else {
            return Ok(Before::Missing);
        };
        Ok(out_of_place(Some(&before), &batch.seal).map_or(Before::Continued, Before::Broken))
    }

    /// Whether the store shows no seal of the batch before. Where it does not answer, nothing is said.
    fn lacks_predecessor(&self, batch: &Whole) -> bool {
        predecessor(&batch.seal).is_some_and(|name| matches!(self.store.get(&name), Ok(None)))
    }
}

fn predecessor(seal: &SignedSeal) -> Option<ObjectName> {
    let batch = seal.batch.checked_sub(1)?;
    Some(ObjectName::Seal { origin: seal.origin.clone(), batch })
}

/// Why a batch does not continue the one before it, where it does not; one of number 0 has none. What else is wrong between
/// the two, as times, is for the auditor.
pub(super) fn out_of_place(before: Option<&SignedSeal>, seal: &SignedSeal) -> Option<String> {
    let tail = before.map(|before| SealTail::of(before, None));
    let faults = chain_seal(tail.as_ref(), seal);
    let broken = faults.iter().filter(|fault| fault.code == FaultCode::ChainBroken);
    let broken: Vec<String> = broken.map(ToString::to_string).collect();
    (!broken.is_empty()).then(|| broken.join("; "))
}

fn source<'a>(batch: &Whole, wanted: &'a Wanted, path: &'a std::path::Path) -> Source<'a> {
    Source { path, sha256: &wanted.sha256, length: wanted.length, sealed_us: batch.seal.time }
}

fn refused(error: StoreError) -> NotStored {
    match &error {
        StoreError::Taken { .. } => NotStored::Never(Fault::NameTaken, error.to_string()),
        StoreError::ReadBack { .. } => NotStored::Never(Fault::ReadBack, error.to_string()),
        // The copy in the work folder is not what it was. No receipt is sent, so that its gateway puts the batch again.
        StoreError::Source { .. } => NotStored::Never(Fault::Unfinished, error.to_string()),
        _ => NotStored::Later(error),
    }
}

/// Whether the batch holds by its own seal.
fn judge(batch: &Whole) -> Result<VerifiedBatch, NotStored> {
    let invalid = |what: String| NotStored::Never(Fault::InvalidBatch, what);
    let records = batch
        .objects
        .iter()
        .find(|(wanted, _)| matches!(&wanted.name, ObjectName::Data { kind: FileKind::Records, .. }));
    let (wanted, path) = records.ok_or_else(|| invalid("no records file".into()))?;
    if wanted.length > MAX_RECORDS_BYTES {
        return Err(invalid(format!(
            "a records file of {} bytes, at most {MAX_RECORDS_BYTES} are read",
            wanted.length
        )));
    }
    let bytes = std::fs::read(path).map_err(|source| {
        let name = path.display().to_string();
        NotStored::Later(StoreError::Io { action: "cannot read", name, source })
    })?;
    let input = BatchInput {
        origin: &batch.seal.origin,
        key: &batch.key,
        seal: &batch.note,
        records: Bytes::from(bytes),
    };
    verify_batch(input)
        .map_err(|faults| invalid(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// What of a batch this version does not know.
fn unknown(verified: &VerifiedBatch) -> Vec<String> {
    let mut unknown: Vec<String> =
        verified.unknown_columns().iter().map(|column| format!("column {column}")).collect();
    for row in verified.rows() {
        let decoded = row.decoded();
        if decoded.record.is_none() {
            unknown.push(format!("kind {}", decoded.kind()));
        }
        unknown.extend(decoded.unknown_keys.iter().map(|key| format!("key {key}")));
    }
    unknown.sort();
    unknown.dedup();
    unknown
}
