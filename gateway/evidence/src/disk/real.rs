//! The operating system's disk, by rustix.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskFile, DiskLock, Entry};

/// `IOV_MAX` on Linux.
const MAX_SLICES: usize = 1024;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Prepared space is synced in steps of this, so that who syncs another file meanwhile waits for a step and not for all.
const PREPARED_AT_ONCE: u64 = 1 << 20;

/// The operating system's files and directories. New files are private to the user (mode 0600), directories 0700.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

impl RealFile {
    /// Writes zeros from `at` to `end`.
    fn zero(&self, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            let count = (end - at).min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
            self.0.write_all_at(zeros, at)?;
            at += count;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RealLock {
    /// Holds the `flock`; closing it frees it.
    _file: File,
}

impl DiskLock for RealLock {}

fn open_flags(path: &Path, flags: OFlags) -> io::Result<File> {
    Ok(File::from(fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?))
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(open_flags(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(open_flags(path, OFlags::RDWR)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let other = || io::Error::new(io::ErrorKind::InvalidInput, "not a plain file");
        // `NONBLOCK`: opening a FIFO that nobody writes to would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NXIO) => return Err(other()),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.is_file() { Ok(Box::new(RealFile(file))) } else { Err(other()) }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::mkdir(path, Mode::RWXU)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = open_flags(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(fs::fsync(&dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(from, to)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::linkat(CWD, from, CWD, to, AtFlags::empty())?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlink(path)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::rmdir(path)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // A name may be removed while the directory is read.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let is_dir = metadata.is_dir();
            entries.push(Entry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let stat = match fs::stat(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            other => other?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
        Ok(Some(Entry { name, is_dir, len }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = open_flags(path, OFlags::RDWR | OFlags::CREATE)?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn set_read_only(&self, path: &Path) -> io::Result<()> {
        Ok(fs::chmod(path, Mode::RUSR | Mode::RGRP | Mode::ROTH)?)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for run in parts.chunks(MAX_SLICES) {
            let total: usize = run.iter().map(|part| part.len()).sum();
            let written = match rustix::io::pwritev(&self.0, run, offset) {
                Ok(written) => written,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            if written < total {
                // Rare (a signal, a limit): the rest goes part by part.
                write_rest(&self.0, run, written, offset)?;
            }
            offset += total as u64;
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let old = self.0.metadata()?.len();
        if old >= len {
            return Ok(());
        }
        match fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero(old, len),
            Err(error) => Err(error.into()),
        }
    }

    fn prepare(&self, len: u64) -> io::Result<()> {
        let mut at = self.0.metadata()?.len();
        self.allocate(len)?;
        while at < len {
            let end = len.min(at + PREPARED_AT_ONCE);
            self.zero(at, end)?;
            self.sync_data()?;
            at = end;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated on EINTR either: what a sync that did not return success did is not known (DU-4).
        Ok(fs::fdatasync(&self.0)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

fn write_rest(file: &File, parts: &[IoSlice<'_>], mut skip: usize, mut offset: u64) -> io::Result<()> {
    for part in parts {
        let from = skip.min(part.len());
        skip -= from;
        if let Some(rest) = part.get(from..).filter(|rest| !rest.is_empty()) {
            file.write_all_at(rest, offset + from as u64)?;
        }
        offset += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn prepared_space_is_zero_allocated_and_keeps_what_was_there() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let file = RealDisk.create(&path).unwrap();
        file.write_at(&[IoSlice::new(b"head")], 0).unwrap();
        let len = 2 * PREPARED_AT_ONCE + 5;
        file.prepare(len).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, len);
        assert_eq!(&bytes[..4], b"head");
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= len);
        // Shorter than it is: nothing changes.
        file.prepare(10).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
