//! One log as the tap reads it: the running one from the journal, then what is kept, then the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::Origin;

use super::TapLeaf;
use super::asking::{Asking, Question};
use super::folder::{Kept, Position, Positions, TapFolder};
use super::rows::{self, BYTES, Cache, LEAVES, Rows};
use super::store::{Held, InStore, Stored};
use crate::disk::{DiskLock, SharedDisk};
use crate::journal::{Journal, ReadError};
use crate::marks::Marks;
use crate::store::{Store, StoreError};

/// What is behind a position.
#[derive(Debug)]
pub(super) enum Read {
    /// Leaves without a hole, from the position on.
    Leaves(Vec<TapLeaf>),
    /// They are nowhere to be read; `None`: nor is known where the log ends.
    Missed(Option<u64>),
    /// Nothing more for now.
    Nothing,
    /// The store has not answered yet.
    Waits,
    /// The log ends here, or there never was one.
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

/// Where the logs of a journal folder are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) disk: SharedDisk,
    pub(super) journal_dir: PathBuf,
    pub(super) spool_dir: PathBuf,
    pub(super) store: Arc<dyn Store>,
    /// Who may have sealed what is in the store.
    pub(super) seal_keys: Vec<[u8; 32]>,
}

impl Places {
    /// Whether something of a log may still be sealed, kept or archived: who does that leaves its folder of the spool, and of
    /// the journal, until all of it is in the store.
    pub(super) fn is_unfinished(&self, epoch: &str) -> io::Result<bool> {
        Ok(self.has(self.journal_dir.join(epoch))? || self.has(self.spool_dir.join(epoch))?)
    }

    /// Whether another gateway's log is being closed here.
    fn is_closing(&self, origin: &Origin) -> io::Result<bool> {
        self.has(self.journal_dir.join("closing").join(origin.gateway()).join(origin.epoch()))
    }

    fn has(&self, folder: PathBuf) -> io::Result<bool> {
        Ok(self.disk.entry(&folder)?.is_some())
    }
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

impl Log {
    /// `sinks` begin where they were, and those that were not there yet with what is kept.
    pub(super) fn new(
        places: Places,
        folder: TapFolder,
        lock: Box<dyn DiskLock>,
        positions: Positions,
        sinks: &[String],
        live: Option<(Journal, Arc<Marks>)>,
    ) -> io::Result<Self> {
        let origin = positions.origin.clone();
        let (kept, positions) = (Mutex::default(), Mutex::new((positions, false)));
        let log = Self { origin, places, folder, live, kept, positions, _lock: lock };
        log.look()?;
        log.begin(sinks);
        Ok(log)
    }

    fn begin(&self, sinks: &[String]) {
        let kept = self.kept().values().next().map(|kept| Position { next: kept.from, ended: false });
        let mut held = self.positions();
        let first = match kept {
            _ if self.is_live() => Position::default(),
            Some(kept) => kept,
            // Nothing is kept behind the others.
            None => {
                let others = held.0.sinks.values().copied();
                others.min_by_key(|other| (other.ended, other.next)).unwrap_or_default()
            }
        };
        for sink in sinks {
            held.0.sinks.entry(sink.clone()).or_insert(first);
        }
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
        let journaled = self.live.as_ref().map_or(0, |(journal, _)| journal.journaled());
        self.known_end().max(journaled)
    }

    fn known_end(&self) -> u64 {
        self.positions().0.end.unwrap_or(0)
    }

    /// The log goes as far as `end` at least.
    fn goes_to(&self, end: u64) {
        let mut held = self.positions();
        if held.0.end < Some(end) {
            held.0.end = Some(end);
            held.1 = false;
        }
    }

    /// Takes in what was sealed since, and what was removed. Where a seal cannot be read now, all others are in.
    pub(super) fn look(&self) -> io::Result<()> {
        let mut done = Ok(());
        // Before the folder is: what another thread takes in meanwhile would count as removed.
        let mut kept = self.kept();
        let mut new: BTreeSet<String> = self.folder.seals()?.into_iter().collect();
        kept.retain(|_, kept| new.remove(&kept.seal));
        for seal in new {
            match self.folder.kept(&seal) {
                Ok(found) => {
                    kept.insert(found.batch, found);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_damage(&error) => {
                    tracing::warn!(origin = %self.origin, %error, "a seal that is kept for the tap is damaged, and not kept any more");
                    done = done.and(self.folder.unlink(&seal));
                }
                Err(error) => done = Err(error),
            }
        }
        let end = kept.values().last().map(|kept| kept.to);
        drop(kept);
        end.into_iter().for_each(|end| self.goes_to(end));
        done
    }

    /// Makes the positions durable, and removes what is behind all of `sinks`.
    pub(super) fn save(&self, sinks: &[String]) -> io::Result<()> {
        self.goes_to(self.end());
        loop {
            let (positions, is_saved) = self.positions().clone();
            let saved = if is_saved { Ok(()) } else { self.folder.save(&positions) };
            let done = self.done(&positions, sinks);
            match saved {
                Ok(()) => {
                    let mut held = self.positions();
                    held.1 = held.0 == positions;
                    drop(held);
                    return done.iter().try_for_each(|kept| self.remove(kept));
                }
                // What everybody has gives way first, or a full disk would stay full.
                Err(error) if is_full(&error) => match done.first() {
                    Some(oldest) => self.remove(oldest)?,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// What is kept and behind all of `sinks`, oldest first.
    fn done(&self, positions: &Positions, sinks: &[String]) -> Vec<Kept> {
        let of = |sink: &String| positions.sinks.get(sink).copied().unwrap_or_default();
        let behind = sinks.iter().map(of).filter(|at| !at.ended).map(|at| at.next).min();
        let is_done = |kept: &&Kept| behind.is_none_or(|behind| kept.to <= behind);
        self.kept().values().filter(is_done).cloned().collect()
    }

    fn remove(&self, kept: &Kept) -> io::Result<()> {
        self.folder.remove(kept)?;
        self.kept().remove(&kept.batch);
        Ok(())
    }

    /// Removes the oldest batch that is kept; its bytes, where there was one.
    pub(super) fn drop_oldest(&self) -> io::Result<Option<u64>> {
        let oldest = self.kept().values().next().cloned();
        let Some(oldest) = oldest else { return Ok(None) };
        self.remove(&oldest)?;
        Ok(Some(oldest.bytes))
    }

    /// Bytes that are kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept().values().map(|kept| kept.bytes).sum()
    }

    /// Removes the folder where all of `sinks` have the log's end and nothing can be kept of it again; whether it did.
    pub(super) fn remove_if_done(&self, sinks: &[String]) -> io::Result<bool> {
        if self.is_live() || !sinks.iter().all(|sink| self.position(sink).ended) || self.is_unfinished()? {
            return Ok(false);
        }
        self.folder.remove_all()?;
        Ok(true)
    }

    /// What is at `position` and behind it.
    pub(super) fn read(
        &self,
        position: u64,
        cache: &mut Cache,
        asking: &mut Asking,
    ) -> Result<Read, CannotRead> {
        if let Some(leaves) = cache.leaves(&self.origin, position) {
            return Ok(Read::Leaves(leaves));
        }
        if self.live.as_ref().is_some_and(|(journal, _)| position >= journal.journaled()) {
            return Ok(Read::Nothing);
        }
        // Said before it is looked anywhere: what comes to its place meanwhile is found the next time.
        let settled = self.settled()?;
        if let Some((journal, _)) = &self.live
            && let Some(leaves) = self.journaled(journal, position)?
        {
            return Ok(Read::Leaves(leaves));
        }
        let rows = match self.kept_rows(position)? {
            Some(rows) => rows,
            None if position >= settled => return Ok(Read::Nothing),
            None => {
                let before = cache.before(&self.origin, position);
                // What was settled when the store was asked: what came there since, the answer does not know.
                match asking.ask(self.in_store(), Question { position, before, settled })? {
                    None => return Ok(Read::Waits),
                    Some((Stored::Rows(rows), _)) => rows,
                    Some((Stored::Behind { next }, settled)) => {
                        return Ok(Read::Missed(self.goes_on(position, Some(next), settled)));
                    }
                    Some((Stored::Absent(held), settled)) => {
                        return match self.goes_on(position, None, settled) {
                            Some(next) => Ok(Read::Missed(Some(next))),
                            None => Ok(self.missing(position, held?)),
                        };
                    }
                }
            }
        };
        self.goes_to(rows.to);
        cache.put(rows);
        Ok(cache.leaves(&self.origin, position).map_or(Read::Nothing, Read::Leaves))
    }

    /// What is before this position, neither in the journal nor kept, comes to none of its places any more. Behind it is what
    /// is not sealed, or on its way into a store that gives it back; of a log that does not run, all of it while it may
    /// still be recovered.
    fn settled(&self) -> io::Result<u64> {
        match &self.live {
            Some((_, marks)) => {
                let marks = marks.snapshot();
                Ok(if self.places.store.gives_back() {
                    marks.archived.min(marks.sealed)
                } else {
                    marks.sealed
                })
            }
            None => Ok(if self.is_unfinished()? { 0 } else { u64::MAX }),
        }
    }

    fn is_unfinished(&self) -> io::Result<bool> {
        Ok(self.places.is_unfinished(self.origin.epoch())? || self.places.is_closing(&self.origin)?)
    }

    /// Where leaves go on behind one that will never be read: what begins at `stored` in the store, or is kept, or is not
    /// settled, is not missed with it.
    fn goes_on(&self, position: u64, stored: Option<u64>, settled: u64) -> Option<u64> {
        let kept = self.kept().values().map(|kept| kept.from).find(|from| *from > position);
        let settled = self.is_live().then_some(settled);
        [stored, kept, settled].into_iter().flatten().min()
    }

    /// What it means that a position will never be read, and nothing behind it.
    fn missing(&self, position: u64, held: Held) -> Read {
        if let Held::To(end) = held {
            self.goes_to(end);
        }
        let known = self.known_end();
        match held {
            Held::Nothing if position.max(known) == 0 => Read::Ended,
            Held::To(_) if position >= known => Read::Ended,
            Held::To(_) => Read::Missed(Some(known)),
            Held::Nothing | Held::Something => Read::Missed(None),
        }
    }

    /// Leaves that are not sealed; `None` where the first is.
    fn journaled(&self, journal: &Journal, position: u64) -> Result<Option<Vec<TapLeaf>>, ReadError> {
        let end = journal.journaled().min(position + LEAVES);
        let mut leaves = Vec::new();
        let mut bytes = 0;
        for record in journal.segments().records(position..end) {
            match record {
                Ok((position, leaf, hash)) => {
                    bytes += leaf.len();
                    leaves.push(rows::leaf(&self.origin, position, leaf, hash));
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

    fn kept_with(&self, position: u64) -> Option<Kept> {
        self.kept().values().find(|kept| (kept.from..kept.to).contains(&position)).cloned()
    }

    /// The batch that holds a position, where it is kept.
    fn kept_rows(&self, position: u64) -> Result<Option<Rows>, CannotRead> {
        let mut found = self.kept_with(position);
        if found.is_none() {
            self.look()?;
            found = self.kept_with(position);
        }
        let Some(kept) = found else { return Ok(None) };
        match self.folder.records(&kept) {
            Ok(Some(bytes)) => Rows::read(&self.origin, kept.batch, (kept.from, kept.to), &bytes).map(Some),
            // A batch without records is none; one that went meanwhile is looked for in the store.
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if is_damage(&error) => {
                tracing::warn!(origin = %self.origin, batch = kept.batch, %error, "records that are kept for the tap are damaged, and not kept any more");
                self.remove(&kept)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn in_store(&self) -> InStore {
        let Places { store, seal_keys, .. } = &self.places;
        InStore { store: Arc::clone(store), origin: self.origin.clone(), keys: seal_keys.clone() }
    }
}

/// What is there is not what was put there, and will not be.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput};
    matches!(error.kind(), InvalidData | InvalidInput | FileTooLarge)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
