//! Where a log stands: what spool and store hold of it, and whether that agrees with the journal.

use std::collections::BTreeSet;

use bytes::Bytes;
use schemas::files::{self, Limits};
use schemas::seal::{self, SignedSeal};
use schemas::{ObjectName, Origin, Sha256Hex};

use crate::sealer::{Slim, Tip};
use crate::spool::Spool;
use crate::store::{self, SealWord, Store, StoreError};

/// The largest seal and records file that are read.
pub(crate) const MAX_SEAL_BYTES: u64 = 1 << 20;
const MAX_RECORDS_BYTES: u64 = 1 << 30;

/// Why it cannot be told where a log stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TipError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool does not.
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
    /// Something is there that this log did not write, or not so.
    #[error("batch {batch}: {what}")]
    Disagrees {
        /// The batch.
        batch: u64,
        /// How.
        what: String,
    },
}

/// Where a log stands.
pub(crate) struct Standing {
    pub(crate) tip: Tip,
    /// Whether the last sealed record is `close`.
    pub(crate) closed: bool,
}

/// What the journal has of a log.
pub(crate) struct Ours<'a> {
    /// The first position that may be known; batches are compared as far down as that.
    pub(crate) from: u64,
    /// The leaf hash of a position, where it is known.
    pub(crate) hash: &'a mut dyn FnMut(u64) -> Option<Sha256Hex>,
    /// Is shown position and leaf of what is compared and not known.
    pub(crate) more: &'a mut dyn FnMut(u64, &[u8]),
}

/// Reads the newest seals of a log and holds them against what the journal has. `keys` are those that may have signed
/// them.
pub(crate) fn find(
    origin: &Origin,
    keys: &[[u8; 32]],
    store: &dyn Store,
    spool: &Spool,
    mut ours: Ours<'_>,
) -> Result<Standing, TipError> {
    let in_store: BTreeSet<u64> = store
        .list(origin)?
        .iter()
        .filter(|name| matches!(name, ObjectName::Seal { .. }))
        .map(ObjectName::batch)
        .collect();
    let in_spool: BTreeSet<u64> = spool.batches()?.into_iter().collect();
    let mut standing: Option<Standing> = None;
    // Newer than all that is here: batches that are known by an archiver's word only.
    let mut words: Vec<SealWord> = Vec::new();
    for batch in in_store.union(&in_spool).copied().collect::<Vec<_>>().into_iter().rev() {
        let disagrees = |what: String| TipError::Disagrees { batch, what };
        let mut note: Option<Bytes> = None;
        if in_spool.contains(&batch) {
            note = Some(spool.seal(batch)?.into());
        }
        let word = if in_store.contains(&batch) { store.word(origin, batch)? } else { None };
        if let Some(word) = word {
            match &note {
                Some(own) if Sha256Hex::of(own) != word.seal => {
                    return Err(disagrees("a receipt is for another seal than the spool's".into()));
                }
                Some(_) => {}
                None if standing.is_none() => words.push(word),
                None => {}
            }
        } else if in_store.contains(&batch) {
            let name = ObjectName::Seal { origin: origin.clone(), batch };
            let stored = store::read_object(store, &name, MAX_SEAL_BYTES)?;
            match (&note, stored) {
                (Some(own), Some(stored)) if *own != stored => {
                    return Err(disagrees("the store holds another seal than the spool".into()));
                }
                (None, Some(stored)) => note = Some(stored),
                _ => {}
            }
        }
        let Some(note) = note else { continue };
        let sealed = signed(&note, keys).map_err(disagrees)?;
        if sealed.origin != *origin || sealed.batch != batch {
            return Err(disagrees("its seal is another batch's".into()));
        }
        let below = sealed.from <= ours.from;
        if standing.is_none() || sealed.to > ours.from {
            let (tip, closed) = compare(origin, store, spool, &sealed, in_spool.contains(&batch), &mut ours)?;
            if standing.is_none() {
                standing = Some(Standing { tip, closed });
            }
        }
        if below {
            break;
        }
    }
    let standing = standing.unwrap_or_else(|| Standing { tip: Tip::start(), closed: false });
    words.iter().rev().try_fold(standing, |standing, word| follow(standing, word, ours.hash))
}

/// Goes on over a batch of which only an archiver's word is here: the journal must have its records, and they must
/// give its root.
fn follow(
    standing: Standing,
    word: &SealWord,
    journaled: &mut dyn FnMut(u64) -> Option<Sha256Hex>,
) -> Result<Standing, TipError> {
    let disagrees = |what: String| TipError::Disagrees { batch: word.batch, what };
    let Tip { mut tree, next_batch, .. } = standing.tip;
    if (word.batch, word.from) != (next_batch, tree.size()) {
        return Err(disagrees(format!(
            "its receipt is for positions {}..{}, and what is known here ends with batch {next_batch}, position {}: the spool lacks a seal",
            word.from,
            word.to,
            tree.size()
        )));
    }
    for position in word.from..word.to {
        let known = journaled(position);
        tree.append(known.ok_or_else(|| {
            disagrees(format!("it has a receipt, and neither spool nor journal has record {position}"))
        })?);
    }
    if tree.root() != word.root {
        return Err(disagrees("the journal's records do not give the root of its receipt".into()));
    }
    let tip = Tip { tree, next_batch: word.batch + 1, previous: Some(word.seal), time: word.sealed_us };
    Ok(Standing { tip, closed: false })
}

/// The seal, signed by one of the keys.
fn signed(note: &[u8], keys: &[[u8; 32]]) -> Result<SignedSeal, String> {
    let mut why = "no key is known for it".to_owned();
    for key in keys {
        match seal::verify(note, key) {
            Ok(sealed) => return Ok(sealed),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Reads a batch's records and compares them with its seal and with the journal.
fn compare(
    origin: &Origin,
    store: &dyn Store,
    spool: &Spool,
    sealed: &SignedSeal,
    spooled: bool,
    ours: &mut Ours<'_>,
) -> Result<(Tip, bool), TipError> {
    let batch = sealed.batch;
    let disagrees = |what: String| TipError::Disagrees { batch, what };
    let file = sealed
        .file(&schemas::names::FileKind::Records)
        .ok_or_else(|| disagrees("its seal names no records file".into()))?;
    let bytes = if spooled {
        Some(Bytes::from(spool.read(&file.name, MAX_RECORDS_BYTES)?))
    } else {
        let name =
            ObjectName::parse_file(origin, &file.name).map_err(|error| disagrees(error.to_string()))?;
        store::read_object(store, &name, MAX_RECORDS_BYTES)?
    };
    let bytes = bytes.ok_or_else(|| disagrees(format!("`{}` is not in the store", file.name)))?;
    if Sha256Hex::of(&bytes) != file.sha256 {
        return Err(disagrees(format!("`{}` is not what its seal says", file.name)));
    }
    let records =
        files::read_records(&bytes, &Limits::default()).map_err(|error| disagrees(error.to_string()))?;
    let mut tree = sealed.before().map_err(|error| disagrees(error.to_string()))?;
    let mut closed = false;
    for row in &records.rows {
        let position = tree.size();
        if row.position != position {
            return Err(disagrees(format!("position {} where {position} is due", row.position)));
        }
        match (ours.hash)(position) {
            Some(own) if own != row.hash => {
                return Err(disagrees(format!("record {position} is another than the journal's")));
            }
            Some(_) => {}
            None => (ours.more)(position, &row.leaf),
        }
        closed = Slim::read(&row.leaf).is_ok_and(|slim| slim.kind == "close");
        tree.append(row.hash);
    }
    if tree.size() != sealed.to || tree.root() != sealed.root {
        return Err(disagrees("its records do not give its root".into()));
    }
    let tip = Tip { tree, next_batch: batch + 1, previous: Some(sealed.sha256()), time: sealed.time };
    Ok((tip, closed))
}
