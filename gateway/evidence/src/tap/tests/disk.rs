//! A real disk that refuses chosen calls on chosen paths, and is slow to say what it has listed.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::disk::{Disk, DiskFile, DiskLock, Entry, RealDisk};

/// What is refused: the call, what the path has in it, and with what.
pub(super) type Rule = (&'static str, String, ErrorKind);

#[derive(Debug, Default)]
pub(super) struct Grudging {
    rules: Mutex<Vec<Rule>>,
    /// How often something was refused.
    refused: Mutex<u64>,
    /// How long it takes until what was listed is given, once.
    pub(super) slow_list: Mutex<Option<Duration>>,
}

impl Grudging {
    pub(super) fn refuse(&self, call: &'static str, part: impl Into<String>, kind: ErrorKind) {
        self.rules.lock().unwrap().push((call, part.into(), kind));
    }

    pub(super) fn refused(&self) -> u64 {
        *self.refused.lock().unwrap()
    }

    fn look(&self, call: &str, path: &Path) -> io::Result<()> {
        let text = path.to_string_lossy().into_owned();
        let rules = self.rules.lock().unwrap();
        let Some(rule) = rules.iter().find(|rule| rule.0 == call && text.contains(&rule.1)) else {
            return Ok(());
        };
        *self.refused.lock().unwrap() += 1;
        Err(rule.2.into())
    }
}

impl Disk for Grudging {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.look("create", path)?;
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.look("open_read", path)?;
        RealDisk.open_read(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.look("link", to)?;
        RealDisk.link(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let listed = RealDisk.list(path);
        let wait = self.slow_list.lock().unwrap().take();
        wait.into_iter().for_each(std::thread::sleep);
        listed
    }
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        RealDisk.entry(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        RealDisk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        RealDisk.set_read_only(path)
    }
}
