//! Folders in the auditor's state for what a process makes while it answers: gone with it, or, where it died, with the next
//! one that makes such a folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const PREFIX: &str = "scratch-";
const LOCK: &str = "lock";
/// A folder without a lock is another one's that is being made, unless it is this old.
const UNLOCKED: Duration = Duration::from_secs(3600);

/// A folder, held by a lock for as long as this lives.
#[derive(Debug)]
pub struct Scratch {
    _lock: File,
    dir: tempfile::TempDir,
}

impl Scratch {
    /// Makes one in the state's folder, and removes those of dead processes.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(state: &Path) -> std::io::Result<Self> {
        sweep(state, SystemTime::now());
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(state)?;
        let lock = File::create(dir.path().join(LOCK))?;
        lock.lock()?;
        Ok(Self { _lock: lock, dir })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

fn sweep(state: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(state) else { return };
    for entry in entries.filter_map(Result::ok) {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let folder = entry.path();
        let dead = match File::open(folder.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => {
                let made = fs::metadata(&folder).and_then(|of| of.modified());
                made.is_ok_and(|made| now.duration_since(made).is_ok_and(|ago| ago > UNLOCKED))
            }
        };
        if dead && let Err(error) = fs::remove_dir_all(&folder) {
            tracing::debug!(folder = %folder.display(), %error, "what a dead process left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_goes_and_what_a_living_one_uses_stays() {
        let state = tempfile::tempdir().unwrap();
        let living = Scratch::new(state.path()).unwrap();
        let dead = state.path().join("scratch-dead");
        let fresh = state.path().join("scratch-fresh");
        for folder in [&dead, &fresh] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(dead.join(LOCK), "").unwrap();
        sweep(state.path(), SystemTime::now());
        assert!(living.path().exists() && fresh.exists() && !dead.exists());
        sweep(state.path(), SystemTime::now() + UNLOCKED * 2);
        assert!(living.path().exists() && !fresh.exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }
}
