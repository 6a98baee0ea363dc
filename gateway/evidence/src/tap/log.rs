//! One log as the tap reads it: the running one from the journal, then what is kept, then the store.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use schemas::files::{self, Limits};
use schemas::names::FileKind;
use schemas::seal::SignedSeal;
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use serde::Deserialize;

use super::TapLeaf;
use super::folder::{Kept, MAX_RECORDS_BYTES, Position, Positions, TapFolder};
use crate::disk::{DiskLock, SharedDisk};
use crate::journal::{Journal, ReadError};
use crate::marks::Marks;
use crate::store::{Store, StoreError, read_object};

/// How many leaves go to a sink at once, and how many bytes of them: one leaf more at most.
const LEAVES: u64 = 256;
const BYTES: usize = 512 << 10;
const MAX_SEAL_BYTES: u64 = 1 << 20;

/// What is behind a position.
#[derive(Debug)]
pub(super) enum Read {
    /// Leaves without a hole, from the position on.
    Leaves(Vec<TapLeaf>),
    /// They are nowhere to be read; `None`: nor is known where the log ends.
    Missed(Option<u64>),
    /// Nothing more for now.
    Nothing,
    /// Nothing was ever in it.
    Ended,
}

/// Why it cannot be said what is behind a position. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotRead {
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("what is kept for the tap: {0}")]
    Kept(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("records of batch {batch}: {detail}")]
    Records { batch: u64, detail: String },
}

/// The last sealed batch that a sink has read from.
#[derive(Debug, Default)]
pub(super) struct Cache {
    rows: Option<Rows>,
}

#[derive(Debug)]
struct Rows {
    origin: Origin,
    from: u64,
    leaves: Vec<(Bytes, Sha256Hex)>,
}

/// Where the logs of a journal folder are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) disk: SharedDisk,
    pub(super) journal_dir: PathBuf,
    pub(super) spool_dir: PathBuf,
    pub(super) store: Arc<dyn Store>,
    pub(super) seal_key: [u8; 32],
}

/// One log, whose folder this process has locked.
pub(super) struct Log {
    pub(super) origin: Origin,
    places: Places,
    folder: TapFolder,
    /// The journal of the running log.
    live: Option<(Journal, Arc<Marks>)>,
    kept: Mutex<BTreeMap<u64, Kept>>,
    /// And whether they are saved.
    positions: Mutex<(Positions, bool)>,
    _lock: Box<dyn DiskLock>,
}

#[derive(Deserialize)]
struct Head {
    kind: String,
    at: i64,
}

impl Log {
    /// `sinks` begin where they were, and those that were not there yet with what is kept.
    pub(super) fn new(
        places: Places,
        folder: TapFolder,
        lock: Box<dyn DiskLock>,
        mut positions: Positions,
        sinks: &[String],
        live: Option<(Journal, Arc<Marks>)>,
    ) -> io::Result<Self> {
        let origin = positions.origin.clone();
        let mut kept = BTreeMap::new();
        for seal in folder.seals()? {
            let found = folder.kept(&seal)?;
            kept.insert(found.batch, found);
        }
        let first = if live.is_some() { 0 } else { kept.values().next().map_or(0, |kept| kept.from) };
        for sink in sinks {
            positions.sinks.entry(sink.clone()).or_insert(Position { next: first, ended: false });
        }
        let (kept, positions) = (Mutex::new(kept), Mutex::new((positions, false)));
        Ok(Self { origin, places, folder, live, kept, positions, _lock: lock })
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn positions(&self) -> MutexGuard<'_, (Positions, bool)> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// How far a sink is.
    pub(super) fn position(&self, sink: &str) -> Position {
        self.positions().0.sinks.get(sink).copied().unwrap_or_default()
    }

    /// A sink has acknowledged everything before `position`.
    pub(super) fn set(&self, sink: &str, position: Position) {
        let mut held = self.positions();
        if held.0.sinks.get(sink) != Some(&position) {
            held.0.sinks.insert(sink.to_owned(), position);
            held.1 = false;
        }
    }

    /// One past the last position that is known.
    pub(super) fn end(&self) -> u64 {
        let kept = self.kept().values().last().map_or(0, |kept| kept.to);
        self.live.as_ref().map_or(kept, |(journal, _)| journal.journaled())
    }

    /// Takes in what was sealed since, and what was removed.
    pub(super) fn look(&self) -> io::Result<()> {
        let seals = self.folder.seals()?;
        let mut kept = self.kept();
        kept.retain(|_, kept| seals.contains(&kept.seal));
        for seal in seals {
            if kept.values().all(|kept| kept.seal != seal) {
                match self.folder.kept(&seal) {
                    Ok(found) => {
                        kept.insert(found.batch, found);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes the positions durable, and removes what is behind all of `sinks`.
    pub(super) fn save(&self, sinks: &[String]) -> io::Result<()> {
        let (positions, is_saved) = self.positions().clone();
        if !is_saved {
            self.folder.save(&positions)?;
            let mut held = self.positions();
            held.1 = held.0 == positions;
        }
        let of = |sink: &String| positions.sinks.get(sink).copied().unwrap_or_default();
        let ended = sinks.iter().all(|sink| of(sink).ended);
        let behind = sinks.iter().map(of).filter(|at| !at.ended).map(|at| at.next).min();
        let done = |kept: &&Kept| ended || behind.is_some_and(|behind| kept.to <= behind);
        let done: Vec<Kept> = self.kept().values().filter(done).cloned().collect();
        for kept in done {
            self.remove(&kept)?;
        }
        Ok(())
    }

    fn remove(&self, kept: &Kept) -> io::Result<()> {
        self.folder.remove(kept)?;
        self.kept().remove(&kept.batch);
        Ok(())
    }

    /// Removes the oldest batch that is kept; whether there was one.
    pub(super) fn drop_oldest(&self) -> io::Result<bool> {
        let oldest = self.kept().values().next().cloned();
        let Some(oldest) = oldest else { return Ok(false) };
        {
            let mut held = self.positions();
            held.1 &= held.0.dropped;
            held.0.dropped = true;
        }
        self.remove(&oldest)?;
        Ok(true)
    }

    /// Bytes that are kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept().values().map(|kept| kept.bytes).sum()
    }

    /// Removes the folder where all of `sinks` have the log's end and nothing can be kept of it again; whether it did.
    pub(super) fn remove_if_done(&self, sinks: &[String]) -> io::Result<bool> {
        let disk = &self.places.disk;
        let epoch = self.origin.epoch();
        if self.is_live()
            || !sinks.iter().all(|sink| self.position(sink).ended)
            || disk.entry(&self.places.journal_dir.join(epoch))?.is_some()
            || disk.entry(&self.places.spool_dir.join(epoch))?.is_some()
        {
            return Ok(false);
        }
        self.folder.remove_all()?;
        Ok(true)
    }

    /// What is at `position` and behind it.
    pub(super) fn read(&self, position: u64, cache: &mut Cache) -> Result<Read, CannotRead> {
        if let Some((journal, _)) = &self.live {
            let end = journal.journaled();
            if position >= end {
                return Ok(Read::Nothing);
            }
            if let Some(leaves) = self.journaled(journal, position, end)? {
                return Ok(Read::Leaves(leaves));
            }
        }
        if let Some(leaves) = self.cached(position, cache) {
            return Ok(Read::Leaves(leaves));
        }
        self.look()?;
        let (at, next) = {
            let kept = self.kept();
            let at = kept.values().find(|kept| (kept.from..kept.to).contains(&position)).cloned();
            (at, kept.values().map(|kept| kept.from).find(|from| *from > position))
        };
        if let Some(kept) = at {
            match self.folder.records(&kept) {
                Ok(Some(bytes)) => {
                    cache.rows = Some(self.rows(kept.batch, kept.from, &bytes)?);
                    return Ok(self.cached(position, cache).map_or(Read::Nothing, Read::Leaves));
                }
                // A batch without records is none; one that went meanwhile is looked for in the store.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if next.is_none() && !self.is_live() && self.may_be_recovered()? {
            return Ok(Read::Nothing);
        }
        if let Some(rows) = self.stored(position)? {
            cache.rows = Some(rows);
            return Ok(self.cached(position, cache).map_or(Read::Nothing, Read::Leaves));
        }
        Ok(self.nowhere(position, next))
    }

    /// What it means that a position is neither in the journal nor kept nor in the store.
    fn nowhere(&self, position: u64, next: Option<u64>) -> Read {
        if let Some(next) = next {
            return Read::Missed(Some(next));
        }
        match &self.live {
            None if position == 0 && !self.positions().0.dropped => Read::Ended,
            None => Read::Missed(None),
            Some((_, marks)) => {
                let marks = marks.snapshot();
                let may_come = self.places.store.gives_back() && marks.archived <= position;
                // Sealed a moment ago, or on its way into the store.
                if may_come || marks.sealed <= position {
                    Read::Nothing
                } else {
                    Read::Missed(Some(marks.sealed))
                }
            }
        }
    }

    /// A journal that is there is recovered, sealed and kept first.
    fn may_be_recovered(&self) -> io::Result<bool> {
        let folder = self.places.journal_dir.join(self.origin.epoch());
        Ok(self.places.disk.entry(&folder)?.is_some())
    }

    /// Leaves that are not sealed; `None` where the first is.
    fn journaled(
        &self,
        journal: &Journal,
        position: u64,
        end: u64,
    ) -> Result<Option<Vec<TapLeaf>>, ReadError> {
        let mut leaves = Vec::new();
        let mut bytes = 0;
        for record in journal.segments().records(position..end.min(position + LEAVES)) {
            match record {
                Ok((position, leaf, hash)) => {
                    bytes += leaf.len();
                    leaves.push(self.leaf(position, leaf, hash));
                }
                Err(ReadError::Absent { .. }) => break,
                // Behind what was read: it is told of when it is the first.
                Err(_) if !leaves.is_empty() => break,
                // Its segment went while it was read: it is sealed, and archived.
                Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
            if bytes >= BYTES {
                break;
            }
        }
        Ok((!leaves.is_empty()).then_some(leaves))
    }

    fn leaf(&self, position: u64, bytes: Bytes, hash: Sha256Hex) -> TapLeaf {
        // Both are in every leaf that was ever encoded; a leaf goes out whatever can be read of it.
        let head: Option<Head> = serde_json::from_slice(&bytes).ok();
        let (kind, at_us) = head.map_or_else(|| ("unknown".into(), 0), |head| (head.kind, head.at));
        TapLeaf { origin: self.origin.clone(), position, kind, at_us, hash, bytes }
    }

    fn cached(&self, position: u64, cache: &Cache) -> Option<Vec<TapLeaf>> {
        let rows = cache.rows.as_ref().filter(|rows| rows.origin == self.origin)?;
        let at = usize::try_from(position.checked_sub(rows.from)?).ok()?;
        let mut bytes = 0;
        let within = |(leaf, _): &&(Bytes, Sha256Hex)| {
            let fits = bytes < BYTES;
            bytes += leaf.len();
            fits
        };
        let found = rows.leaves.get(at..).filter(|found| !found.is_empty())?.iter().take_while(within);
        let leaves = found.take(usize::try_from(LEAVES).unwrap_or(usize::MAX)).zip(position..);
        Some(leaves.map(|((leaf, hash), position)| self.leaf(position, leaf.clone(), *hash)).collect())
    }

    fn rows(&self, batch: u64, from: u64, bytes: &Bytes) -> Result<Rows, CannotRead> {
        let fault = |detail: String| CannotRead::Records { batch, detail };
        let records =
            files::read_records(bytes, &Limits::default()).map_err(|error| fault(error.to_string()))?;
        if !records.rows.iter().zip(from..).all(|(row, position)| row.position == position) {
            return Err(fault("positions are not the seal's".into()));
        }
        let leaves =
            records.rows.into_iter().map(|row| (Bytes::from(row.leaf), Sha256Hex(row.hash.0))).collect();
        Ok(Rows { origin: self.origin.clone(), from, leaves })
    }

    /// The batch that holds a position, out of the store; `None` where the store does not have it, does not give it back, or
    /// gives what another key sealed.
    fn stored(&self, position: u64) -> Result<Option<Rows>, CannotRead> {
        let store = &*self.places.store;
        if !store.gives_back() {
            return Ok(None);
        }
        let mut batches: Vec<u64> = store
            .list(&self.origin)?
            .iter()
            .filter(|name| matches!(name, ObjectName::Seal { .. }))
            .map(ObjectName::batch)
            .collect();
        batches.sort_unstable();
        // Batches are in the order of their positions.
        let (mut low, mut high) = (0, batches.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(batch) = batches.get(middle) else { break };
            let Some(sealed) = self.stored_seal(*batch)? else { return Ok(None) };
            if sealed.to <= position {
                low = middle + 1;
            } else if sealed.from > position {
                high = middle;
            } else {
                return self.stored_rows(&sealed);
            }
        }
        Ok(None)
    }

    fn stored_seal(&self, batch: u64) -> Result<Option<SignedSeal>, CannotRead> {
        let name = ObjectName::Seal { origin: self.origin.clone(), batch };
        let note = read_object(&*self.places.store, &name, MAX_SEAL_BYTES)?;
        let sealed = note.and_then(|note| seal::verify(&note, &self.places.seal_key).ok());
        Ok(sealed.filter(|sealed| sealed.origin == self.origin && sealed.batch == batch))
    }

    fn stored_rows(&self, sealed: &SignedSeal) -> Result<Option<Rows>, CannotRead> {
        let Some(file) = sealed.file(&FileKind::Records) else { return Ok(None) };
        let Ok(name) = ObjectName::parse_file(&self.origin, &file.name) else { return Ok(None) };
        let Some(bytes) = read_object(&*self.places.store, &name, MAX_RECORDS_BYTES)? else {
            return Ok(None);
        };
        if Sha256Hex::of(&bytes) != file.sha256 {
            return Ok(None);
        }
        self.rows(sealed.batch, sealed.from, &bytes).map(Some)
    }
}
