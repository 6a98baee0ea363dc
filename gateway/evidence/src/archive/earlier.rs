//! A batch that the store has already, under another seal.
//!
//! A gateway that died with its machine had sent a batch; who closed its log from the commit topic sealed the same records
//! anew, and may have cut them elsewhere. The store keeps the first. Where one of the two is the beginning of the other
//! nothing is lost or forged: what the second has more comes in a batch behind the first.

use bytes::Bytes;
use schemas::files::{self, Limits};
use schemas::names::FileKind;
use schemas::seal::SignedSeal;
use schemas::verify::VerifiedBatch;
use schemas::{ObjectName, Sha256Hex};

use super::batch::{MAX_RECORDS_BYTES, Whole};
use crate::store::{self, Store, StoreError};
use crate::tip::MAX_SEAL_BYTES;

/// The seal in the store, and its text.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) seal: SignedSeal,
    pub(super) note: Bytes,
}

impl Earlier {
    /// What the store has for a batch, if that is another seal. One that is none, or by another key, is left to the store,
    /// which refuses a second object of its name.
    pub(super) fn of(
        store: &dyn Store,
        batch: &Whole,
        verify: &dyn Fn(&[u8]) -> Option<SignedSeal>,
    ) -> Result<Option<Self>, StoreError> {
        let name = ObjectName::Seal { origin: batch.seal.origin.clone(), batch: batch.seal.batch };
        let Some(note) = store::read_object(store, &name, MAX_SEAL_BYTES)? else { return Ok(None) };
        if note == batch.note {
            return Ok(None);
        }
        let seal = verify(&note).filter(|seal| seal.object_name() == name);
        Ok(seal.map(|seal| Self { seal, note }))
    }

    /// Its data files, then its seal.
    pub(super) fn objects(&self) -> impl Iterator<Item = (ObjectName, Sha256Hex, u64)> {
        let origin = &self.seal.origin;
        let files = self.seal.files.iter().filter_map(|file| {
            Some((ObjectName::parse_file(origin, &file.name).ok()?, file.sha256, file.length))
        });
        let seal = (self.seal.object_name(), Sha256Hex::of(&self.note), self.note.len() as u64);
        files.chain([seal])
    }

    /// Whether one of the two is the beginning of the other.
    pub(super) fn agrees(
        &self,
        store: &dyn Store,
        batch: &Whole,
        verified: &VerifiedBatch,
    ) -> Result<bool, StoreError> {
        let (first, second) = (&self.seal, &batch.seal);
        if (first.from, &first.compact) != (second.from, &second.compact) {
            return Ok(false);
        }
        if first.to <= second.to {
            let hashes = verified.rows().iter().map(|row| *row.hash());
            return Ok(begins(first, second.from, hashes));
        }
        let Some(file) = first.file(&FileKind::Records) else { return Ok(false) };
        let Ok(name) = ObjectName::parse_file(&first.origin, &file.name) else { return Ok(false) };
        let Some(bytes) = store::read_object(store, &name, MAX_RECORDS_BYTES)? else { return Ok(false) };
        if Sha256Hex::of(&bytes) != file.sha256 {
            return Ok(false);
        }
        let Ok(records) = files::read_records(&bytes, &Limits::default()) else { return Ok(false) };
        Ok(begins(second, first.from, records.rows.iter().map(|row| row.hash)))
    }
}

/// Whether leaves that begin at `from` give a seal's root where it ends.
fn begins(seal: &SignedSeal, from: u64, hashes: impl Iterator<Item = Sha256Hex>) -> bool {
    let Ok(mut tree) = seal.before() else { return false };
    let count = usize::try_from(seal.to.saturating_sub(from)).unwrap_or(usize::MAX);
    hashes.take(count).for_each(|hash| tree.append(hash));
    tree.size() == seal.to && tree.root() == seal.root
}
