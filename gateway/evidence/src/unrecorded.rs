//! What passed without a record on a route with `fail_mode: open` (CA-3, CA-7): counted, until a `gap` says it.
//!
//! Where no `gap` can be journaled now, the count is kept in a small file beside the journal, so that it outlives the
//! process: recovery makes the `gap` of it. What came behind `close` goes into the gateway's next log.
//!
//! ```text
//! <journal>/<epoch>/unrecorded   {"count":..,"from":..}: so many that no `gap` below position `from` tells of
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
const MAX_BYTES: u64 = 4096;

/// A count on disk. `count` is absent where the file could not be read: something is missing, nobody knows how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) count: Option<u64>,
    pub(crate) from: u64,
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
                let kept = Kept { count: Some(count), from: journaled };
                disk::replace(disk, &path, &serde_json::to_vec(&kept).map_err(std::io::Error::other)?)?;
                *self.on_disk = OnDisk { is_there: true, says: count };
                Ok(())
            }
        }
    }
}

/// What the file in an epoch's folder says.
pub(crate) fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Kept>, OpenError> {
    read_at(disk, &folder.join(epoch::UNRECORDED))
}

fn read_at(disk: &dyn Disk, path: &Path) -> Result<Option<Kept>, OpenError> {
    if disk.entry(path).map_err(OpenError::io("look at", path))?.is_none() {
        return Ok(None);
    }
    let bytes = disk::read_file(disk, path, MAX_BYTES).map_err(OpenError::io("read", path))?;
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "how many exchanges passed unrecorded cannot be read");
        Kept { count: None, from: 0 }
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
    let bytes = serde_json::to_vec(&Kept { count, from: 0 }).map_err(|e| OpenError::Format(e.to_string()))?;
    disk::replace(disk, &path, &bytes).map_err(OpenError::io("write", &path))
}

/// Puts what earlier epochs left into the new log by `tell`, and removes it then; durably only with the next sync of the
/// folder, by [`epoch::remember`].
pub(crate) fn take_over(
    disk: &dyn Disk,
    journal_dir: &Path,
    tell: impl Fn(Body) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let entries = disk.list(journal_dir).map_err(OpenError::io("list", journal_dir))?;
    for entry in entries.iter().filter(|entry| !entry.is_dir && entry.name.starts_with(FOR_NEXT)) {
        // A half that a crash left; the whole one is there, or is made again.
        let path = journal_dir.join(&entry.name);
        if !entry.name.ends_with(".new")
            && let Some(kept) = read_at(disk, &path)?
        {
            tell(gap(kept.count))?;
        }
        disk.unlink(&path).map_err(OpenError::io("remove", &path))?;
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
}
