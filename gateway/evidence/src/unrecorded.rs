//! What passed without a record on a route with `fail_mode: open` (CA-3, CA-7): counted, until a `gap` says it.
//!
//! Where no `gap` can be journaled now, the count is kept in a small file beside the journal, so that it outlives the
//! process: recovery makes the `gap` of it. What came behind `close` goes into the gateway's next log.
//!
//! ```text
//! <journal>/<epoch>/unrecorded   {"count":..,"from":..,"taken":[..]}: so many that no `gap` below position `from` tells of,
//!                                with those that were taken over from these epochs
//! <journal>/unrecorded-<epoch>   {"count":..,"from":0}: for the next log
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemas::record::{Body, Gap, GapReason};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::epoch;
use crate::error::OpenError;

/// What stands before the epoch's name where the count is for the next log.
const FOR_NEXT: &str = "unrecorded-";
const MAX_BYTES: u64 = 64 << 10;

/// A count on disk. `count` is absent where the file could not be read: something is missing, nobody knows how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) count: Option<u64>,
    pub(crate) from: u64,
    /// The epochs whose counts for the next log are in it: theirs count no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taken: Vec<String>,
}

impl Kept {
    fn new(count: Option<u64>, from: u64) -> Self {
        Self { count, from, taken: Vec::new() }
    }
}

/// Counts what no record tells of yet.
#[derive(Debug, Default)]
pub(crate) struct Unrecorded {
    /// All since the start.
    total: AtomicU64,
    pending: AtomicU64,
    /// Held while a `gap` is on its way, so that nothing is said twice.
    on_disk: Mutex<OnDisk>,
}

/// The file beside the journal.
#[derive(Debug, Default)]
struct OnDisk {
    is_there: bool,
    /// What it says that no `gap` has told since: 0 where one did, since recovery takes that from what the file says.
    says: u64,
}

/// The `gap` for a count.
pub(crate) fn gap(count: Option<u64>) -> Body {
    Body::Gap(Gap { reason: GapReason::Unrecorded, count, bytes: None })
}

/// No `gap` and no file is written meanwhile.
pub(crate) struct Telling<'a> {
    pending: &'a AtomicU64,
    on_disk: MutexGuard<'a, OnDisk>,
}

impl Unrecorded {
    pub(crate) fn add(&self, exchanges: u64) {
        self.total.fetch_add(exchanges, Ordering::Relaxed);
        self.pending.fetch_add(exchanges, Ordering::Relaxed);
    }

    /// All since the start, and those that no record tells of yet. Waits for nobody.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.total.load(Ordering::Relaxed), self.pending.load(Ordering::Relaxed))
    }

    pub(crate) fn tell(&self) -> Telling<'_> {
        let on_disk = self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        Telling { pending: &self.pending, on_disk }
    }
}

impl Telling<'_> {
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// A durable `gap` says so many.
    pub(crate) fn told(&mut self, count: u64) {
        self.pending.fetch_sub(count, Ordering::Relaxed);
        self.on_disk.says = 0;
    }

    /// Makes the file say what is pending; `journaled` is the position behind the last durable record.
    pub(crate) fn save(&mut self, disk: &dyn Disk, folder: &Path, journaled: u64) -> std::io::Result<()> {
        let path = folder.join(epoch::UNRECORDED);
        match self.pending() {
            0 if !self.on_disk.is_there => Ok(()),
            0 => {
                disk.unlink(&path)?;
                *self.on_disk = OnDisk::default();
                disk.sync_dir(folder)
            }
            count if self.on_disk.says == count => Ok(()),
            count => {
                let kept = Kept::new(Some(count), journaled);
                disk::replace(disk, &path, &serde_json::to_vec(&kept).map_err(std::io::Error::other)?)?;
                *self.on_disk = OnDisk { is_there: true, says: count };
                Ok(())
            }
        }
    }
}

/// What the file in an epoch's folder says. What it has taken over is removed where it was.
pub(crate) fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Kept>, OpenError> {
    let kept = read_at(disk, &folder.join(epoch::UNRECORDED))?;
    if let Some(kept) = &kept {
        remove(disk, disk::parent(folder), &kept.taken)?;
    }
    Ok(kept)
}

/// Removes what these epochs left for the next log, where it is still there; durable on return.
fn remove(disk: &dyn Disk, journal_dir: &Path, epochs: &[String]) -> Result<(), OpenError> {
    let mut removed = false;
    for epoch in epochs {
        let path = journal_dir.join(format!("{FOR_NEXT}{epoch}"));
        match disk.unlink(&path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::io("remove", &path)(error)),
        }
    }
    if !removed {
        return Ok(());
    }
    disk.sync_dir(journal_dir).map_err(OpenError::io("sync", journal_dir))
}

fn read_at(disk: &dyn Disk, path: &Path) -> Result<Option<Kept>, OpenError> {
    if disk.entry(path).map_err(OpenError::io("look at", path))?.is_none() {
        return Ok(None);
    }
    let bytes = disk::read_file(disk, path, MAX_BYTES).map_err(OpenError::io("read", path))?;
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "how many exchanges passed unrecorded cannot be read");
        Kept::new(None, 0)
    })))
}

/// Leaves what came behind an epoch's `close` for the next log; durable on return, and the same when repeated.
pub(crate) fn leave(
    disk: &dyn Disk,
    journal_dir: &Path,
    epoch: &str,
    count: Option<u64>,
) -> Result<(), OpenError> {
    let path = journal_dir.join(format!("{FOR_NEXT}{epoch}"));
    let bytes = serde_json::to_vec(&Kept::new(count, 0)).map_err(|e| OpenError::Format(e.to_string()))?;
    disk::replace(disk, &path, &bytes).map_err(OpenError::io("write", &path))
}

/// Puts what earlier epochs left into the new log by `tell`, and removes it then. `folder` is the new epoch's, `journaled` the
/// position behind its last durable record. Whenever power is lost, it is told once: the new epoch's file says what it took
/// over before it is told, and is removed last.
pub(crate) fn take_over(
    disk: &dyn Disk,
    journal_dir: &Path,
    (folder, journaled): (&Path, u64),
    tell: impl Fn(Body) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let entries = disk.list(journal_dir).map_err(OpenError::io("list", journal_dir))?;
    let (mut taken, mut counts) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let Some(epoch) = entry.name.strip_prefix(FOR_NEXT) else { continue };
        // A half that a crash left counts for nothing: the whole one is there, or is made again.
        if !epoch.ends_with(".new")
            && let Some(kept) = read_at(disk, &journal_dir.join(&entry.name))?
        {
            counts.push(kept.count);
        }
        taken.push(epoch.to_owned());
    }
    if taken.is_empty() {
        return Ok(());
    }
    let own = folder.join(epoch::UNRECORDED);
    if !counts.is_empty() {
        let count = counts.iter().try_fold(0_u64, |sum, count| count.map(|count| sum.saturating_add(count)));
        let kept = Kept { taken: taken.clone(), ..Kept::new(count, journaled) };
        let bytes = serde_json::to_vec(&kept).map_err(|error| OpenError::Format(error.to_string()))?;
        disk::replace(disk, &own, &bytes).map_err(OpenError::io("write", &own))?;
        counts.iter().try_for_each(|count| tell(gap(*count)))?;
    }
    remove(disk, journal_dir, &taken)?;
    if !counts.is_empty() {
        // Where it comes back, recovery takes from it what the log tells.
        disk.unlink(&own).map_err(OpenError::io("remove", &own))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_count_that_equals_one_that_was_told_is_kept_anew() {
        let dir = tempfile::tempdir().unwrap();
        let kept = || read(&RealDisk, dir.path()).unwrap().map(|kept| (kept.count, kept.from));
        let unrecorded = Unrecorded::default();
        unrecorded.add(5);
        unrecorded.tell().save(&RealDisk, dir.path(), 100).unwrap();
        assert_eq!(kept(), Some((Some(5), 100)));
        // The `gap` at position 100 says these; five more pass before the file is looked at again.
        unrecorded.tell().told(5);
        unrecorded.add(5);
        unrecorded.tell().save(&RealDisk, dir.path(), 101).unwrap();
        assert_eq!(kept(), Some((Some(5), 101)), "what is told at 100 is not taken from it");
        unrecorded.tell().save(&RealDisk, dir.path(), 102).unwrap();
        assert_eq!(kept(), Some((Some(5), 101)), "it says so already");
        unrecorded.tell().told(5);
        unrecorded.tell().save(&RealDisk, dir.path(), 102).unwrap();
        assert_eq!(kept(), None);
    }

    #[test]
    fn what_an_earlier_epoch_left_is_told_once_whenever_power_is_lost() {
        use std::cell::RefCell;

        use crate::disk::{Crash, Fault, SimDisk};

        let (journal, new) = (Path::new("/journal"), Path::new("/journal/new"));
        let mut ends = [0; 3];
        for point in 0..40 {
            let disk = SimDisk::new();
            disk::create_dir_all(&disk, new).unwrap();
            leave(&disk, journal, "old", Some(5)).unwrap();
            let told = RefCell::new(Vec::new());
            disk.fault_at_change(point, Fault::PowerOff);
            let tell = |body: Body| {
                told.borrow_mut().push(body);
                Ok(())
            };
            let taken = take_over(&disk, journal, (new, 7), tell)
                .and_then(|()| disk.sync_dir(new).map_err(OpenError::io("sync", new)));
            disk.crash(Crash::DropAll);
            disk.clear_faults();
            // Recovery takes from the epoch's own file what its `gap` says.
            let own = read(&disk, new).unwrap().map(|kept| (kept.count, kept.from));
            let left = disk.entry(&journal.join("unrecorded-old")).unwrap().is_some();
            match (own, left) {
                // Nothing was told, and the next start takes it over.
                (None, true) => ends[0] += u32::from(told.borrow().is_empty()),
                (Some(own), false) => ends[1] += u32::from(own == (Some(5), 7)),
                (None, false) => ends[2] += u32::from(told.borrow().len() == 1 && taken.is_ok()),
                (Some(_), true) => std::panic::panic_any(format!("point {point}: it would be told twice")),
            }
        }
        assert_eq!(ends.iter().sum::<u32>(), 40, "{ends:?}");
        assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
    }
}
