//! One auditor at a time works on a cache: its files have fixed names while they are written, and what one sweeps away
//! another may be reading. The lock's file says when the cache was last used; those that nobody used for long go.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

const FILE: &str = "lock";

/// A cache that was not used for so long is removed: what it held is proven anew.
const UNUSED: Duration = Duration::from_secs(90 * 86_400);

/// A cache that no other auditor works on, until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; waits where another auditor has it, and says so on standard error.
    pub(super) fn take(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(FILE);
        let of = || format!("cache `{}`", root.display());
        loop {
            fs::create_dir_all(root).with_context(of)?;
            let file = match open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.with_context(of)?,
            };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let _ = writeln!(
                        io::stderr(),
                        "waiting: another auditor works with the {}; give `--state` to have one of its own",
                        of()
                    );
                    file.lock().with_context(of)?;
                }
                tried => tried.with_context(of)?,
            }
            // Whoever removed the cache had locked the file that stood here before.
            if is_at(&file, &path).with_context(of)? {
                file.set_modified(SystemTime::now()).with_context(of)?;
                return Ok(Self { _file: file });
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether this file is the one that stands under the name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the caches beside `own` that nobody used for long. What cannot be removed now is tried again next time.
pub(super) fn sweep(own: &Path, now: SystemTime) {
    let Some(entries) = own.parent().and_then(|caches| fs::read_dir(caches).ok()) else { return };
    for folder in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if folder != own && folder.is_dir() && is_unused(&folder, now) {
            let locked = open(&folder.join(FILE)).is_ok_and(|file| match file.try_lock() {
                Ok(()) => fs::remove_dir_all(&folder).is_ok(),
                Err(_) => false,
            });
            tracing::debug!(folder = %folder.display(), removed = locked, "a cache that was not used for long");
        }
    }
}

fn is_unused(folder: &Path, now: SystemTime) -> bool {
    // Earlier versions had no lock: their folder changed with each verification.
    let used = fs::metadata(folder.join(FILE)).or_else(|_| fs::metadata(folder)).and_then(|of| of.modified());
    used.is_ok_and(|used| now.duration_since(used).is_ok_and(|ago| ago > UNUSED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_that_nobody_used_for_long_go_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let [own, old, busy, new] = ["own", "old", "busy", "new"].map(|name| dir.path().join(name));
        let locks: Vec<Lock> = [&own, &old, &busy, &new].map(|root| Lock::take(root).unwrap()).into();
        let [own_lock, old_lock, busy_lock, new_lock] = <[Lock; 4]>::try_from(locks).unwrap();
        drop((old_lock, new_lock));
        let now = SystemTime::now();
        let long_ago = now - UNUSED - Duration::from_secs(60);
        for root in [&old, &busy] {
            open(&root.join(FILE)).unwrap().set_modified(long_ago).unwrap();
            fs::create_dir_all(root.join("acme/gw1/log")).unwrap();
        }
        sweep(&own, now);
        assert_eq!([&own, &old, &busy, &new].map(|root| root.exists()), [true, false, true, true]);
        drop((own_lock, busy_lock));
        sweep(&own, now);
        assert!(!busy.exists() && own.exists());
    }

    #[test]
    fn a_lock_whose_file_was_removed_meanwhile_is_taken_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        let first = Lock::take(&root).unwrap();
        let waiting = std::thread::spawn({
            let root = root.clone();
            move || Lock::take(&root).unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        fs::remove_dir_all(&root).unwrap();
        drop(first);
        let second = waiting.join().unwrap();
        assert!(is_at(&second._file, &root.join(FILE)).unwrap());
    }
}
