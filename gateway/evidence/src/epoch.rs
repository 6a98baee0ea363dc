//! Epochs: one process life, one log, one folder.
//!
//! ```text
//! <journal>/opening.lock          held while a process starts
//! <journal>/newest                the newest log of this gateway: {"origin":..,"size":..,"root":..}, size and root
//!                                 where it is closed
//! <journal>/<epoch>/lock          held for the epoch's life
//! <journal>/<epoch>/segment-*     the journal
//! <journal>/<epoch>/recovery      what recovery adds to it
//! <journal>/<epoch>/salvaged      the mark of a log that was closed elsewhere
//! <journal>/<epoch>/committed     the mark of a log whose journal is in the commit topic too
//! <journal>/<epoch>/rebuilt       its journal was made again from that topic
//! <journal>/<epoch>/unrecorded    how much passed unrecorded that no record tells of
//! <journal>/fenced.<epoch>        what is here of a log that another gateway has closed
//! <journal>/closing/<gateway>/<epoch>   another gateway's log that is closed here
//! <journal>/unrecorded-<epoch>    the same, where only the next log can tell of it
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::Origin;
use schemas::record::Predecessor;

use crate::disk::{self, Disk, DiskLock};
use crate::error::OpenError;
use crate::watermarks::{EarlierLog, EarlierLogs};

pub(crate) const OPENING_LOCK: &str = "opening.lock";
pub(crate) const LOCK: &str = "lock";
pub(crate) const RECOVERY: &str = "recovery";
pub(crate) const SALVAGED: &str = "salvaged";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const REBUILT: &str = "rebuilt";
/// What a journal's folder has is being replaced by what the commit topic has.
pub(crate) const REPLACED: &str = "replaced";
/// The file `recovery` is what the commit topic says, or nobody else can have another.
pub(crate) const AGREED: &str = "agreed";
pub(crate) const UNRECORDED: &str = "unrecorded";
const NEWEST: &str = "newest";

/// How far ahead of the clock a predecessor's name may be and still be followed: a clock may have been set back, but what
/// a stranger put into the store must not name the logs of years.
const AHEAD_US: i64 = 24 * 3600 * 1_000_000;

/// How often an epoch's folder is emptied, where another process puts something into it meanwhile.
const REMOVALS: u32 = 100;
const BETWEEN_REMOVALS: std::time::Duration = std::time::Duration::from_millis(1);

/// A new epoch's name: start time and chance, never a counter. It sorts behind its predecessor's also where both begin in
/// one second or the clock was set back: the logs of a gateway sort by their names.
pub(crate) fn name(now_us: i64, behind: Option<&str>) -> Result<String, OpenError> {
    let mut random = [0; 4];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| OpenError::Journal("the system gives no random bytes".into()))?;
    let mut random = u32::from_be_bytes(random);
    let mut second = now_us.div_euclid(1_000_000);
    if let Some((started, chance)) = behind.and_then(read)
        && started >= second
        && started <= now_us.saturating_add(AHEAD_US).div_euclid(1_000_000)
    {
        second = started;
        match u32::MAX - chance {
            0 => second = started + 1,
            left => random = chance + 1 + random % left,
        }
    }
    let time = jiff::Timestamp::from_second(second)
        .map_err(|error| OpenError::Journal(format!("the clock says {now_us} us: {error}")))?;
    Ok(format!("{}-{random:08x}", time.strftime("%Y%m%dt%H%M%Sz")))
}

/// The second and the chance in an epoch's name.
fn read(epoch: &str) -> Option<(i64, u32)> {
    let (time, chance) = epoch.split_once('-').filter(|(_, chance)| chance.len() == 8)?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dt%H%M%Sz", time).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((time.timestamp().as_second(), u32::from_str_radix(chance, 16).ok()?))
}

/// The epochs in a journal folder, oldest first.
pub(crate) fn list(disk: &dyn Disk, journal_dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = disk.list(journal_dir).map_err(OpenError::io("list", journal_dir))?;
    let epochs = entries.into_iter().filter(|entry| entry.is_dir && entry.name.contains('-'));
    Ok(epochs.map(|entry| journal_dir.join(entry.name)).collect())
}

/// How many logs of other processes are in a journal folder, for metrics; what cannot be looked at is not counted. The
/// caller holds the opening lock, so that nobody takes a log for one that is written because it is looked at here.
pub(crate) fn earlier(
    disk: &dyn Disk,
    journal_dir: &Path,
    own: &Path,
    (stuck, left): (&BTreeSet<PathBuf>, &BTreeSet<PathBuf>),
) -> EarlierLogs {
    let mut earlier = EarlierLogs::default();
    for folder in list(disk, journal_dir).unwrap_or_default() {
        if folder == own {
            continue;
        }
        let log = match disk.lock(&folder.join(LOCK)) {
            _ if stuck.contains(&folder) => EarlierLog::Stopped,
            // Another gateway cares for it.
            _ if left.contains(&folder) => EarlierLog::Running,
            Ok(None) => EarlierLog::Running,
            Ok(Some(_)) => EarlierLog::Waiting,
            Err(_) => continue,
        };
        earlier.add(log, began_us(&folder));
    }
    earlier
}

/// When the epoch in a folder began, microseconds UTC, by its name.
pub(crate) fn began_us(folder: &Path) -> Option<i64> {
    let (second, _) = read(folder.file_name()?.to_str()?)?;
    Some(second.saturating_mul(1_000_000))
}

/// Takes an epoch for its recovery. `None`: another process writes it, or has ended it since it was listed.
pub(crate) fn lock(disk: &dyn Disk, folder: &Path) -> Result<Option<Box<dyn DiskLock>>, OpenError> {
    let path = folder.join(LOCK);
    match disk.lock(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(OpenError::io("lock", &path)),
    }
}

/// The newest log of this gateway, as the journal folder remembers it.
pub(crate) fn newest(disk: &dyn Disk, journal_dir: &Path) -> Result<Option<Predecessor>, OpenError> {
    let path = journal_dir.join(NEWEST);
    if disk.entry(&path).map_err(OpenError::io("look at", &path))?.is_none() {
        return Ok(None);
    }
    let bytes = disk::read_file(disk, &path, 64 << 10).map_err(OpenError::io("read", &path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| OpenError::Setting {
        key: "evidence.journal",
        value: path.display().to_string(),
        wanted: format!("the file `newest` as this program writes it ({error})"),
    })
}

/// Remembers the newest log; durable on return.
pub(crate) fn remember(disk: &dyn Disk, journal_dir: &Path, newest: &Predecessor) -> Result<(), OpenError> {
    let path = journal_dir.join(NEWEST);
    let bytes = serde_json::to_vec(newest).map_err(|error| OpenError::Format(error.to_string()))?;
    disk::replace(disk, &path, &bytes).map_err(OpenError::io("write", &path))
}

/// Removes an epoch's folder; all of it is archived, or nothing was ever taken into it. Not durable: what a loss of power
/// brings back is recovered and removed again, with the same end. What must not come back behind the next epoch's first
/// records does not: making that epoch's folder syncs the same names.
///
/// Another process may look at the folder meanwhile, or remove it too: whoever tries its lock makes the lock's file anew.
pub(crate) fn remove(disk: &dyn Disk, folder: &Path) -> Result<(), OpenError> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    for left in (0..REMOVALS).rev() {
        let entries = match disk.list(folder) {
            Err(error) if gone(&error) => return Ok(()),
            listed => listed.map_err(OpenError::io("list", folder))?,
        };
        for entry in entries {
            let path = folder.join(&entry.name);
            match disk.unlink(&path) {
                Err(error) if !gone(&error) => return Err(OpenError::io("remove", &path)(error)),
                _ => {}
            }
        }
        match disk.remove_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && left > 0 => {
                std::thread::sleep(BETWEEN_REMOVALS);
            }
            Err(error) if !gone(&error) => return Err(OpenError::io("remove", folder)(error)),
            _ => break,
        }
    }
    Ok(())
}

/// The size and root of a log, as a later one names it.
pub(crate) fn predecessor(origin: &Origin, tree: Option<&schemas::merkle::CompactRange>) -> Predecessor {
    Predecessor {
        origin: origin.clone(),
        size: tree.map(schemas::merkle::CompactRange::size),
        root: tree.map(schemas::merkle::CompactRange::root),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn logs_of_other_processes_are_counted_by_how_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let disk = crate::disk::RealDisk;
        let own = dir.path().join("20261120t101800z-00000001");
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(dir.path().join("admin")).unwrap();
        assert_eq!(
            earlier(&disk, dir.path(), &own, (&BTreeSet::new(), &BTreeSet::new())),
            EarlierLogs::default()
        );
        let stuck = BTreeSet::from([folder("20261120t101500z-00000001")]);
        folder("20261120t101600z-00000001");
        let running = folder("20261120t101700z-00000001");
        let lock = disk.lock(&running.join(LOCK)).unwrap().unwrap();
        let found = earlier(&disk, dir.path(), &own, (&stuck, &BTreeSet::new()));
        let oldest_us = Some(1_795_169_700_000_000);
        assert_eq!(found, EarlierLogs { running: 1, waiting: 1, stopped: 1, oldest_us });
        drop(lock);
        assert_eq!(earlier(&disk, dir.path(), &own, (&stuck, &BTreeSet::new())).waiting, 2);
    }

    #[test]
    fn an_epoch_that_another_process_writes_or_has_just_ended_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("20261120t101500z-00000007");
        assert!(lock(&disk::RealDisk, &folder).unwrap().is_none(), "it is gone");
        std::fs::create_dir(&folder).unwrap();
        let held = lock(&disk::RealDisk, &folder).unwrap();
        assert!(held.is_some() && lock(&disk::RealDisk, &folder).unwrap().is_none(), "it is held");
    }

    #[test]
    fn an_epoch_that_others_look_at_meanwhile_is_removed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        for folder in list(&disk::RealDisk, dir.path()).unwrap() {
                            let _ = lock(&disk::RealDisk, &folder);
                        }
                        // Often enough to meet removals; without it a busy machine gives the remover no turn at all.
                        std::thread::sleep(std::time::Duration::from_micros(100));
                    }
                });
            }
            let removed: Result<(), OpenError> = (0..500).try_for_each(|n| {
                let folder = dir.path().join(format!("20261120t101500z-{n:08x}"));
                std::fs::create_dir(&folder).unwrap();
                std::fs::write(folder.join("segment-0"), b"x").unwrap();
                remove(&disk::RealDisk, &folder)
            });
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            removed.unwrap();
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        remove(&disk::RealDisk, &dir.path().join("20261120t101500z-0000ffff")).unwrap();
    }

    #[test]
    fn an_epoch_is_named_by_its_start_and_chance() {
        let name = name(1_795_169_700_000_000, None).unwrap();
        assert_eq!(&name[..17], "20261120t101500z-");
        assert_eq!(name.len(), 25);
        Origin::join("acme", "gw1", &name).unwrap();
    }

    #[test]
    fn an_epoch_sorts_behind_its_predecessor_in_the_same_second_and_behind_a_clock_that_was_set_back() {
        let now = 1_795_169_700_000_000;
        let mut before = "20261120t101500z-00000007".to_owned();
        for _ in 0..20 {
            let next = name(now, Some(&before)).unwrap();
            assert!(next > before, "{next} behind {before}");
            before = next;
        }
        let next = name(now, Some("20261120t101500z-ffffffff")).unwrap();
        assert_eq!(&next[..17], "20261120t101501z-");
        let next = name(now - 3_600_000_000, Some("20261120t101500z-fffffffe")).unwrap();
        assert_eq!(next, "20261120t101500z-ffffffff");
        for other in
            ["20261120t101459z-ffffffff", "99991231t235959z-00000000", "e1", "20261320t101500z-ffffffff"]
        {
            let next = name(now, Some(other)).unwrap();
            assert_eq!(&next[..17], "20261120t101500z-", "behind {other}");
        }
    }
}
