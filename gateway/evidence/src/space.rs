//! Space in the spool for what is admitted (CA-7): held by allocation, in files that give way to batches.
//!
//! What is journaled and not yet archived will need room in the spool, and once more in a directory store on the same
//! file system. That room is held by allocated files `reserve/<epoch>/reserve-<n>`; before a batch is built as many
//! are removed as it may need. Each epoch has a folder of its own: a new process never frees what an old one, which
//! still drains, has promised.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::disk::{self, SharedDisk};
use crate::error::{Reason, Unavailable};

/// The folder of all reserve files, in the spool's.
const RESERVE: &str = "reserve";

/// Holds the spool's room.
#[derive(Debug, Clone)]
pub(crate) struct Space(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: SharedDisk,
    folder: PathBuf,
    /// 2 where spool and store share a file system, else 1.
    copies: u64,
    /// Bytes of one reserve file.
    unit: u64,
    /// Bytes that may wait for the store.
    bound: u64,
    state: Mutex<State>,
    opened: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Promised to admitted exchanges.
    promised: u64,
    /// Journaled and not yet sealed.
    unsealed: u64,
    /// Sealed and not yet archived: real files.
    spooled: u64,
    /// Reserve files that are there: 0..files.
    files: u64,
    /// Bytes for which files give way, while a batch is built or shipped.
    giving_way: u64,
    /// How what waits for the store has grown.
    fill: Fill,
}

/// How fast the spool fills: what waits for the store, over the last minutes.
#[derive(Debug, Default)]
struct Fill {
    /// Seconds and bytes, oldest first.
    samples: VecDeque<(f64, u64)>,
}

impl Fill {
    /// Seconds between two samples, and how many are kept: five minutes.
    const EVERY_S: f64 = 2.0;
    const KEPT: usize = 150;

    fn note(&mut self, now_s: f64, bytes: u64) {
        if self.samples.back().is_some_and(|(at, _)| now_s - at < Self::EVERY_S) {
            return;
        }
        self.samples.push_back((now_s, bytes));
        if self.samples.len() > Self::KEPT {
            self.samples.pop_front();
        }
    }

    /// In how many seconds `bound` is reached; `None` where it does not fill.
    fn full_in_s(&self, bound: u64) -> Option<u64> {
        // From its lowest point: what was archived before is over.
        let low = self.samples.iter().min_by_key(|(_, bytes)| *bytes)?;
        let (now_s, bytes) = self.samples.back()?;
        let (grown, seconds) = (bytes.saturating_sub(low.1), now_s - low.0);
        if grown == 0 || seconds <= 0.0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let left = (bound.saturating_sub(*bytes) as f64 * seconds / grown as f64) as u64;
        Some(left)
    }
}

impl State {
    fn wanted(&self, copies: u64) -> u64 {
        let journal = self.promised + self.unsealed;
        // Content that does not compress, row heads and footers.
        ((journal + journal / 16) * copies).saturating_sub(self.giving_way)
    }
}

fn reserve_name(n: u64) -> String {
    format!("reserve-{n:06}")
}

/// The folder of one epoch's reserve files.
pub(crate) fn folder(spool_dir: &Path, epoch: &str) -> PathBuf {
    spool_dir.join(RESERVE).join(epoch)
}

/// Frees what an epoch held whose process is gone.
pub(crate) fn free(disk: &dyn disk::Disk, spool_dir: &Path, epoch: &str) -> std::io::Result<()> {
    let folder = folder(spool_dir, epoch);
    if disk.entry(&folder)?.is_none() {
        return Ok(());
    }
    for entry in disk.list(&folder)? {
        disk.unlink(&folder.join(&entry.name))?;
    }
    disk.remove_dir(&folder)
}

/// Frees what epochs held whose journal is gone too.
pub(crate) fn free_orphans(
    disk: &dyn disk::Disk,
    spool_dir: &Path,
    journal_dir: &Path,
) -> std::io::Result<()> {
    let reserve = spool_dir.join(RESERVE);
    if disk.entry(&reserve)?.is_none() {
        return Ok(());
    }
    for entry in disk.list(&reserve)? {
        if entry.is_dir && disk.entry(&journal_dir.join(&entry.name))?.is_none() {
            free(disk, spool_dir, &entry.name)?;
        }
    }
    Ok(())
}

impl Space {
    /// Starts to hold room in `folder`, which is this process's own.
    pub(crate) fn open(
        disk: SharedDisk,
        folder: &Path,
        copies: u64,
        unit: u64,
        bound: u64,
    ) -> std::io::Result<Self> {
        // Not durable: after a loss of power nothing is promised any more, and what is held is freed.
        for made in folder.parent().into_iter().chain([folder]) {
            disk::create_dir(&*disk, made)?;
        }
        let state = Mutex::new(State::default());
        let opened = Instant::now();
        Ok(Self(Arc::new(Shared { disk, folder: folder.to_owned(), copies, unit, bound, state, opened })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises room for `bytes` of journal to new traffic: none above the bound.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<SpoolSpace, Unavailable> {
        let waiting = self.waiting();
        if waiting > self.0.bound {
            let detail = format!("{waiting} bytes wait for the store, `spool_bound` is {}", self.0.bound);
            return Err(Unavailable::new(Reason::SpoolFull, detail));
        }
        let mut space = SpoolSpace { space: Some(self.clone()), bytes: 0 };
        space.extend(bytes)?;
        Ok(space)
    }

    fn promise(&self, bytes: u64) -> Result<(), Unavailable> {
        let mut state = self.state();
        state.promised += bytes;
        let held = self.hold(&mut state);
        if held.is_err() {
            state.promised -= bytes;
        }
        held
    }

    /// Makes reserve files until they hold what is wanted.
    fn hold(&self, state: &mut State) -> Result<(), Unavailable> {
        let shared = &*self.0;
        while state.files * shared.unit < state.wanted(shared.copies) {
            let path = shared.folder.join(reserve_name(state.files));
            let made = shared.disk.create(&path).and_then(|file| file.allocate(shared.unit));
            if let Err(error) = made {
                // A file that could not be allocated whole holds nothing.
                let _ = shared.disk.unlink(&path);
                let detail = format!("no space for {} more bytes of spool: {error}", shared.unit);
                return Err(Unavailable::new(Reason::DiskFull, detail));
            }
            state.files += 1;
        }
        Ok(())
    }

    /// Removes reserve files beyond what is wanted, but for one that is likely wanted again.
    fn release(&self, state: &mut State, keep_one: bool) {
        let shared = &*self.0;
        let spare = if keep_one { shared.unit } else { 0 };
        while state.files > 0 && (state.files - 1) * shared.unit >= state.wanted(shared.copies) + spare {
            if shared.disk.unlink(&shared.folder.join(reserve_name(state.files - 1))).is_err() {
                return;
            }
            state.files -= 1;
        }
    }

    /// `bytes` were journaled: what was promised becomes what is to be sealed.
    pub(crate) fn unsealed(&self, bytes: u64) {
        let mut state = self.state();
        state.unsealed = bytes;
        let waiting = state.unsealed + state.spooled;
        state.fill.note(self.0.opened.elapsed().as_secs_f64(), waiting);
        // What was journaled is safe in the journal; where the disk is full now, the next promise says so.
        let _ = self.hold(&mut state);
        self.release(&mut state, true);
    }

    /// A batch of `bytes` of journal is to be built or shipped: its room is given free until [`Space::built`].
    pub(crate) fn give_way(&self, bytes: u64) {
        let mut state = self.state();
        state.giving_way = (bytes + bytes / 16) * self.0.copies + self.0.unit;
        self.release(&mut state, false);
    }

    /// What was built or shipped is there.
    pub(crate) fn built(&self) {
        let mut state = self.state();
        state.giving_way = 0;
        let _ = self.hold(&mut state);
    }

    /// Bytes that wait for the store.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.state();
        state.spooled + state.unsealed
    }

    /// How many bytes are in the spool.
    pub(crate) fn spooled(&self, bytes: u64) {
        self.state().spooled = bytes;
    }

    /// In how many seconds traffic is refused, if the spool goes on filling as in the last minutes: when it is over its
    /// bound, or when `free` bytes of its disk are used up, on which the journal grows by as much.
    pub(crate) fn full_in_s(&self, free: Option<u64>) -> Option<u64> {
        let state = self.state();
        let waiting = state.unsealed + state.spooled;
        let by_disk = free.map_or(u64::MAX, |free| waiting.saturating_add(free / (self.0.copies + 1)));
        state.fill.full_in_s(self.0.bound.min(by_disk))
    }

    pub(crate) fn promised(&self) -> u64 {
        self.state().promised
    }
}

/// Room that is promised; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct SpoolSpace {
    space: Option<Space>,
    bytes: u64,
}

impl SpoolSpace {
    /// Promises more to what was admitted. Only a disk without space refuses that: the bound is for new traffic, and a
    /// stream that runs is not cut for it (CA-7).
    pub(crate) fn extend(&mut self, bytes: u64) -> Result<(), Unavailable> {
        if let Some(space) = &self.space {
            space.promise(bytes)?;
            self.bytes += bytes;
        }
        Ok(())
    }
}

impl Drop for SpoolSpace {
    fn drop(&mut self) {
        if let Some(space) = &self.space {
            let mut state = space.state();
            state.promised = state.promised.saturating_sub(self.bytes);
            space.release(&mut state, true);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::RealDisk;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn promises_are_held_by_files_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::open(Arc::new(RealDisk), dir.path(), 2, 64 << 10, 1 << 30).unwrap();
        assert_eq!(files(dir.path()), 0);
        let one = space.reserve(100 << 10).unwrap();
        // 100 KiB and a sixteenth, twice, in files of 64 KiB.
        assert_eq!(files(dir.path()), 4);
        space.unsealed(100 << 10);
        assert_eq!(files(dir.path()), 7);
        drop(one);
        assert!(files(dir.path()) <= 5);
        space.give_way(100 << 10);
        assert_eq!(files(dir.path()), 0);
        space.unsealed(0);
        space.built();
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn the_time_until_the_spool_is_full_follows_from_its_growth() {
        let mut fill = Fill::default();
        assert_eq!(fill.full_in_s(1000), None);
        for (at, bytes) in [(0.0, 500), (1.0, 700), (2.0, 0), (4.0, 100), (6.0, 200)] {
            fill.note(at, bytes);
        }
        assert_eq!(fill.full_in_s(1000), Some(16), "50 a second since the lowest point, 800 are left");
        fill.note(8.0, 0);
        assert_eq!(fill.full_in_s(1000), None, "it was emptied");
        for at in 5..1000 {
            fill.note(f64::from(at * 2), 7);
        }
        assert_eq!(fill.samples.len(), Fill::KEPT);
        assert_eq!(fill.full_in_s(1000), None, "it stands still");
    }

    #[test]
    fn a_disk_that_is_full_before_the_bound_is_reached_counts() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::open(Arc::new(RealDisk), dir.path(), 1, 64 << 10, 100_000).unwrap();
        for (at, bytes) in [(0.0, 0), (2.0, 1000)] {
            space.state().fill.note(at, bytes);
        }
        space.spooled(1000);
        assert_eq!(space.full_in_s(None), Some(198), "99,000 bytes are left, 500 come a second");
        assert_eq!(space.full_in_s(Some(1 << 40)), Some(198));
        assert_eq!(space.full_in_s(Some(20_000)), Some(20), "10,000 here, as much in the journal");
        assert_eq!(space.full_in_s(Some(0)), Some(0));
    }

    #[test]
    fn a_spool_over_its_bound_refuses_until_it_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::open(Arc::new(RealDisk), dir.path(), 1, 64 << 10, 1000).unwrap();
        space.spooled(1001);
        assert_eq!(space.reserve(1).unwrap_err().reason, Reason::SpoolFull);
        space.spooled(1000);
        let mut admitted = space.reserve(1).unwrap();
        space.spooled(1001);
        admitted.extend(1).unwrap();
    }
}
