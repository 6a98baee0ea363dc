//! A disk on which kept batches give way: where it is full, they go before anything is refused.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Kept;
use crate::disk::{Disk, DiskFile, DiskLock, Entry, SharedDisk};

/// What goes at least, so that not each small write has to ask.
const AT_LEAST: u64 = 4 << 20;

/// Another disk, and what gives way on it.
#[derive(Debug)]
pub(crate) struct Roomy {
    disk: SharedDisk,
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct RoomyFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    kept: Arc<Kept>,
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Does what may fail for want of space, and does it again for as long as something gives way. Never a sync: one that
/// failed is not repeated (DU-4).
fn with_room<T>(
    kept: &Kept,
    path: &Path,
    bytes: u64,
    mut work: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if is_full(&error) && kept.is_beside(path) && kept.give_up(bytes.max(AT_LEAST)) => {}
            other => return other,
        }
    }
}

impl Roomy {
    pub(crate) fn over(disk: SharedDisk, kept: Arc<Kept>) -> SharedDisk {
        Arc::new(Self { disk, kept })
    }

    fn file(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RoomyFile { file, path: path.to_owned(), kept: Arc::clone(&self.kept) })
    }
}

impl Disk for Roomy {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = with_room(&self.kept, path, 0, || self.disk.create(path))?;
        Ok(self.file(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.file(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open_read(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        with_room(&self.kept, path, 0, || self.disk.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(path)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.disk.entry(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        self.disk.set_read_only(path)
    }
}

impl DiskFile for RoomyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = || parts.iter().map(|part| part.len() as u64).sum();
        match self.file.write_at(parts, offset) {
            Err(error) if is_full(&error) => {
                with_room(&self.kept, &self.path, bytes(), || self.file.write_at(parts, offset))
            }
            other => other,
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        with_room(&self.kept, &self.path, len, || self.file.allocate(len))
    }

    /// It syncs on its way, so it is not repeated: room is made before.
    fn prepare(&self, len: u64) -> io::Result<()> {
        let wanted = len.saturating_add(AT_LEAST);
        while self.kept.bytes() > 0 && self.kept.is_beside(&self.path) {
            let free = self.kept.shelf.free_bytes()?;
            if free >= wanted || !self.kept.give_up(wanted - free) {
                break;
            }
        }
        self.file.prepare(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
