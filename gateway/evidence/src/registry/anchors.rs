//! What others say of the registry's checkpoints: how they are asked, and how their answers are kept.
//!
//! ```text
//! Head (newest checkpoint) -> submission to a witness, with the proof from what it saw last
//!                          -> cosignature, timestamp token -> an object beside the checkpoint, create-only
//! ```
//! No answer is waited for by the registry: a registrar's rounds go on, and who asks does it beside them, from what the
//! store holds. Format: `schemas/FORMAT.md` 15.6.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use schemas::merkle::{CompactRange, Hash, consistency_from};
use schemas::names::AnchorKind;
use schemas::note::Ed25519Signer;
use schemas::registry::Checkpoint;
use schemas::seal::{self, Seal};
use schemas::tlog::Submission;
use schemas::{ObjectName, Origin, Sha256Hex};

use super::RegistrarError;
use super::read::{batch, seal_note};
use crate::store::{Source, Store};

/// The most batches that are read for one proof: a witness that is further behind is brought forward in steps.
pub(super) const STEP: u64 = 2048;

/// A checkpoint of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The batch that it stands beside.
    pub batch: u64,
    /// The tree's size.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The time of the batch's seal, microseconds UTC.
    pub sealed_us: i64,
    /// The checkpoint, as stored.
    pub note: Bytes,
}

impl Head {
    /// The head that a batch ends with: number, size, root and the time of its seal. The checkpoint's bytes are the
    /// same whenever it is signed.
    pub(super) fn new(
        origin: &Origin,
        (batch, size, root, sealed_us): (u64, u64, Hash, i64),
        signer: &Ed25519Signer,
    ) -> Result<Self, RegistrarError> {
        let note = Checkpoint { origin: origin.clone(), size, root }.sign(signer);
        let note = note.map_err(|error| RegistrarError::Batch(error.to_string()))?;
        Ok(Self { batch, size, root, sealed_us, note: note.into() })
    }

    /// What witnesses sign: the note's text.
    pub fn text(&self, origin: &Origin) -> String {
        Checkpoint { origin: origin.clone(), size: self.size, root: self.root }.to_text()
    }
}

/// Reads proofs from the store, and keeps what others answered there. All calls block.
#[derive(Debug, Clone)]
pub struct Anchors {
    pub(super) store: Arc<dyn Store>,
    pub(super) origin: Origin,
    /// The registry's seal key, public.
    pub(super) key: [u8; 32],
    pub(super) checkpoint_signer: Arc<Ed25519Signer>,
    pub(super) scratch: PathBuf,
    /// The most batches that are read for one proof.
    pub(super) step: u64,
}

impl Anchors {
    /// The registry's origin.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn seal(&self, number: u64) -> Result<Seal, RegistrarError> {
        let damaged = |what: String| RegistrarError::Damaged { batch: number, what };
        let note = seal_note(&*self.store, &self.origin, number)?
            .ok_or_else(|| damaged("its seal is not in the store".into()))?;
        let sealed = seal::verify(&note, &self.key).map_err(|error| damaged(error.to_string()))?;
        Ok((*sealed).clone())
    }

    /// The batch that begins at this size, at most one behind `newest`; `None` where none does: the registry was never
    /// sealed at this size.
    fn begins_at(&self, size: u64, newest: u64) -> Result<Option<u64>, RegistrarError> {
        let (mut low, mut high) = (0, newest);
        while low <= high {
            let middle = low + (high - low) / 2;
            let from = self.seal(middle)?.from;
            if from == size {
                return Ok(Some(middle));
            }
            if from < size {
                low = middle + 1;
            } else if middle == 0 {
                return Ok(None);
            } else {
                high = middle - 1;
            }
        }
        Ok(None)
    }

    /// What to submit to a witness that is at size `old`: the head itself, or one on the way to it where the witness
    /// is far behind. `None` where the registry was never sealed at that size: the witness saw another tree.
    ///
    /// # Errors
    /// The store, or a registry that is not sound.
    pub fn submission(&self, head: &Head, old: u64) -> Result<Option<(Head, Vec<u8>)>, RegistrarError> {
        let body =
            |head: &Head, proof: Vec<Hash>| Submission { old, proof, checkpoint: &head.note }.to_bytes();
        if old == head.size || old == 0 {
            return Ok(Some((head.clone(), body(head, Vec::new()))));
        }
        let Some(first) = self.begins_at(old, head.batch)?.filter(|_| old < head.size) else {
            return Ok(None);
        };
        let last = head.batch.min(first + self.step - 1);
        let (mut before, mut leaves, mut reached) = (CompactRange::new(), Vec::new(), None);
        for number in first..=last {
            let damaged = |what: String| RegistrarError::Damaged { batch: number, what };
            let note = seal_note(&*self.store, &self.origin, number)?
                .ok_or_else(|| damaged("its seal is not in the store".into()))?;
            let verified = batch(&*self.store, &self.origin, &self.key, &note)?.map_err(damaged)?;
            let sealed = verified.seal();
            if number == first {
                before = CompactRange::from_parts(sealed.from, sealed.compact.clone())
                    .map_err(|error| damaged(error.to_string()))?;
            }
            leaves.extend(verified.rows().iter().map(|row| row.hash()));
            reached = Some((sealed.to, sealed.root, sealed.time));
        }
        let head = match reached {
            // Made anew and not read: what stands under its name in the store may be somebody else's.
            Some((size, root, sealed_us)) if last < head.batch => {
                Head::new(&self.origin, (last, size, root, sealed_us), &self.checkpoint_signer)?
            }
            _ => head.clone(),
        };
        let proof = consistency_from(&before, &leaves);
        Ok(Some((head.clone(), body(&head, proof))))
    }

    /// Keeps an answer beside the head's checkpoint. A repeat is harmless: the name is made of the bytes.
    ///
    /// # Errors
    /// The store or the scratch folder.
    pub fn keep(&self, head: &Head, kind: AnchorKind, bytes: &[u8]) -> Result<ObjectName, RegistrarError> {
        let sha256 = Sha256Hex::of(bytes);
        let name = ObjectName::Anchor { origin: self.origin.clone(), batch: head.batch, sha256, kind };
        let path = self.scratch.join(format!("{}-{}", std::process::id(), name.file_name()));
        let failed = |source| RegistrarError::Folder { path: path.clone(), source };
        fs::write(&path, bytes).map_err(failed)?;
        let source =
            Source { path: &path, sha256: &sha256, length: bytes.len() as u64, sealed_us: head.sealed_us };
        let put = self.store.put(&name, source);
        // What is left in the scratch folder is nobody's.
        let _ = fs::remove_file(&path);
        put?;
        Ok(name)
    }
}
