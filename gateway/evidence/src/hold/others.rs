//! Holds that other gateways recorded, as the registry tells of them.
//!
//! Its batches are verified by the configured key, each as the continuation of the one before. How far it was read is kept
//! beside the keys, so that it is read once; a registry that was cut back or replaced is refused, as one that cannot be read.

use std::time::{Duration, Instant};

use schemas::holds::{Moment, Said};
use schemas::registry::{self, EntryBody};
use schemas::verify::{SealTail, chain_seal};
use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::HoldError;
use crate::disk::{self, DiskLock};
use crate::ledger::LedgerConfig;
use crate::registry::read::{batch, seal_note};

const NAME: &str = "holds.registry.json";
/// The largest file that is read.
const LIMIT: u64 = 256 << 20;
/// How long one command reads.
const READ_FOR: Duration = Duration::from_secs(120);

/// The public key of a registry's seals.
pub type RegistryKey = [u8; 32];

/// How far the registry was read, and what it said of holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Followed {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tail: Option<Tail>,
    said: Vec<Said>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tail {
    key: String,
    batch: u64,
    to: u64,
    root: Sha256Hex,
    time: i64,
    sha256: Sha256Hex,
}

fn failed(error: impl std::fmt::Display) -> HoldError {
    HoldError::Failed(format!("holds of other gateways are not known: the registry: {error}"))
}

/// Reads what the registry has more, and keeps how far that is where it is `alone`. Nothing where no key is configured.
pub(super) fn read_on(settings: &LedgerConfig, alone: Option<&dyn DiskLock>) -> Result<Vec<Said>, HoldError> {
    let Some(key) = &settings.registry else { return Ok(Vec::new()) };
    let path = settings.key_table_dir.join(NAME);
    let mut followed = match settings.disk.entry(&path).map_err(failed)? {
        None => Followed::default(),
        Some(_) => {
            let bytes = disk::read_file(&*settings.disk, &path, LIMIT).map_err(failed)?;
            serde_json::from_slice(&bytes).map_err(failed)?
        }
    };
    let text = schemas::trust::key_text(key);
    if followed.tail.as_ref().is_some_and(|tail| tail.key != text) {
        followed = Followed::default();
    }
    let origin = Origin::registry(&settings.deployment).map_err(failed)?;
    let began = Instant::now();
    let before = followed.tail.as_ref().map(|tail| tail.batch);
    let done = loop {
        match next(settings, key, &origin, &mut followed) {
            Ok(true) if began.elapsed() < READ_FOR => {}
            Ok(true) => {
                let batch = followed.tail.as_ref().map_or(0, |tail| tail.batch);
                break Err(failed(format_args!("read to batch {batch}, there are more; ask again")));
            }
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if alone.is_some() && followed.tail.as_ref().map(|tail| tail.batch) != before {
        let bytes = serde_json::to_vec(&followed).map_err(failed)?;
        disk::replace(&*settings.disk, &path, &bytes).map_err(failed)?;
    }
    done?;
    if followed.tail.is_none() {
        return Err(failed("the store holds none"));
    }
    Ok(followed.said)
}

/// Reads the next batch; false where there is none.
fn next(
    settings: &LedgerConfig,
    key: &RegistryKey,
    origin: &Origin,
    followed: &mut Followed,
) -> Result<bool, HoldError> {
    let store = &*settings.store;
    let tail = followed.tail.as_ref().map(|tail| SealTail {
        origin: origin.clone(),
        batch: tail.batch,
        to: tail.to,
        root: tail.root,
        time: tail.time,
        sha256: tail.sha256,
        closed: None,
    });
    let number = tail.as_ref().map_or(0, |tail| tail.batch + 1);
    if let Some(tail) = &tail
        && number == tail.batch + 1
        && seal_note(store, origin, tail.batch).map_err(failed)?.map(|note| Sha256Hex::of(&note))
            != Some(tail.sha256)
    {
        return Err(failed(format_args!("batch {} is not the one that was read before", tail.batch)));
    }
    let Some(note) = seal_note(store, origin, number).map_err(failed)? else { return Ok(false) };
    let verified = batch(store, origin, key, &note).map_err(failed)?.map_err(failed)?;
    let faults = chain_seal(tail.as_ref(), verified.seal());
    if let Some(fault) = faults.first() {
        return Err(failed(format_args!("batch {number}: {fault}")));
    }
    if verified.seal().batch != number {
        return Err(failed(format_args!("batch {number} is another")));
    }
    for row in verified.rows() {
        let entry = registry::decode(row.leaf()).map_err(failed)?;
        if let Some(EntryBody::LegalHold(entry)) = entry.map(|entry| entry.body) {
            let place = Some((entry.origin.clone(), entry.position));
            followed.said.extend(Said::of(&entry.said, Moment { at: entry.recorded_at, place }));
        }
    }
    let after = verified.tail();
    followed.tail = Some(Tail {
        key: schemas::trust::key_text(key),
        batch: after.batch,
        to: after.to,
        root: after.root,
        time: after.time,
        sha256: after.sha256,
    });
    Ok(true)
}
