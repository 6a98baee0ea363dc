//! Reading the registry: each batch is verified and chained before its entries count.

use std::fmt;

use bytes::Bytes;
use schemas::names::FileKind;
use schemas::note::Signer as _;
use schemas::verify::{BatchInput, VerifiedBatch, chain_seal, verify_batch};
use schemas::{ObjectName, Origin, registry, seal};

use super::aside::of_object;
use super::{Registrar, RegistrarError};
use crate::store::{self, Store};

/// The largest seal that is read.
const MAX_SEAL_BYTES: u64 = schemas::note::MAX_NOTE_BYTES as u64;
/// The largest records file that is read, into memory as a whole: a gateway makes none that is larger.
pub(super) use crate::sealer::MAX_RECORDS_BYTES;

/// The bytes of a batch's seal; `None` where it is not there.
pub(crate) fn seal_note(
    store: &dyn Store,
    origin: &Origin,
    batch: u64,
) -> Result<Option<Bytes>, RegistrarError> {
    let name = ObjectName::Seal { origin: origin.clone(), batch };
    Ok(store::read_object(store, &name, MAX_SEAL_BYTES)?)
}

/// Why a batch is not proven.
#[derive(Debug)]
pub(super) enum Unproven {
    /// A part of it is not in the store: it may still come.
    Absent(String),
    /// It does not hold.
    Wrong(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Absent(why) | Self::Wrong(why)) = self;
        f.write_str(why)
    }
}

/// Reads and verifies a batch whose seal is known. The outer error is the store's, the inner one the batch's.
pub(crate) fn batch(
    store: &dyn Store,
    origin: &Origin,
    key: &[u8; 32],
    note: &[u8],
) -> Result<Result<VerifiedBatch, String>, RegistrarError> {
    Ok(stored_batch(store, origin, key, note)?.map_err(|why| why.to_string()))
}

/// The same, and what is not there is told from what does not hold.
pub(super) fn stored_batch(
    store: &dyn Store,
    origin: &Origin,
    key: &[u8; 32],
    note: &[u8],
) -> Result<Result<VerifiedBatch, Unproven>, RegistrarError> {
    let wrong = |why: String| Ok(Err(Unproven::Wrong(why)));
    let sealed = match seal::verify(note, key) {
        Ok(sealed) => sealed,
        Err(error) => return wrong(error.to_string()),
    };
    let Some(file) = sealed.file(&FileKind::Records) else { return wrong("no records file".into()) };
    let Ok(name) = ObjectName::parse_file(origin, &file.name) else {
        return wrong(format!("`{}` is not the name of a file of {origin}", file.name));
    };
    if file.length > MAX_RECORDS_BYTES {
        let found = file.length;
        return wrong(format!("`{name}` has {found} bytes: at most {MAX_RECORDS_BYTES} are read"));
    }
    // Another length than the sealed one is not read at all.
    let Some(records) = store::read_object(store, &name, file.length)? else {
        return Ok(Err(Unproven::Absent(format!("`{name}` is not in the store"))));
    };
    let verified = verify_batch(BatchInput { origin, key, seal: note, records });
    Ok(verified.map_err(|faults| {
        Unproven::Wrong(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }))
}

impl Registrar {
    /// Reads the batches that the store has and this registrar has not. Gives how many.
    pub(super) fn read_on(&mut self) -> Result<u64, RegistrarError> {
        let mut read = 0;
        loop {
            let number = self.tail.as_ref().map_or(0, |tail| tail.batch + 1);
            let damaged = |what| RegistrarError::Damaged { batch: number, what };
            // What stands under a name of the registry and cannot be read is not what this key wrote.
            let own = |error| match of_object(&error) {
                Some(what) => damaged(what),
                None => error,
            };
            let note = seal_note(&*self.store, &self.origin, number).map_err(own)?;
            let Some(note) = note else { return Ok(read) };
            let key = self.signer.public_key();
            let verified = batch(&*self.store, &self.origin, &key, &note).map_err(own)?.map_err(damaged)?;
            let faults = chain_seal(self.tail.as_ref(), verified.seal());
            if !faults.is_empty() || verified.seal().batch != number {
                return Err(RegistrarError::damaged(number, &faults));
            }
            for row in verified.rows() {
                let entry = registry::decode(row.leaf())
                    .map_err(|error| RegistrarError::Damaged { batch: number, what: error.to_string() })?;
                let Some(entry) = entry else { continue };
                self.held.insert(entry.config);
                for fault in self.state.apply(row.position(), &entry) {
                    tracing::error!(
                        position = fault.position,
                        expected = fault.expected,
                        found = fault.found,
                        "an entry of the registry does not hold"
                    );
                }
            }
            self.state.keep_last_heads();
            self.tree = verified.after().clone();
            self.tail = Some(verified.tail());
            self.tail_seen = self.settings.clock.elapsed_us();
            self.checkpoint_due = true;
            read += 1;
        }
    }
}
