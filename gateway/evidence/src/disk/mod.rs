//! The disk as evidence needs it: files, directories, and exactly which calls make what durable.
//!
//! Everything that keeps evidence (journal, spill files, spool, key table, directory store) goes through [`Disk`], so
//! that tests can run it on [`SimDisk`], which forgets what was not synced, tears sectors and fails any call.
//! [`RealDisk`] is the operating system.
//!
//! The rules that callers rest on, and that [`SimDisk`] enforces:
//! - Bytes of a file are durable after [`DiskFile::sync_data`] returned success, not before.
//! - A new, renamed or removed name is durable after [`Disk::sync_dir`] on its directory, not before; syncing the file
//!   does not sync its name.
//! - After a failed sync nothing is known about the bytes written since the last good one, and no later sync of that
//!   file makes them known (DU-4).

mod real;
mod sim;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;
pub use sim::{Call, Crash, Fault, SimDisk, Site};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of a file; 0 for a directory.
    pub len: u64,
}

/// Files and directories. All calls block.
pub trait Disk: Send + Sync + Debug {
    /// Creates a file for reading and writing; refuses a name that is taken (`AlreadyExists`).
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading only. Anybody may have put something else under the name: a link is not followed, and
    /// what would block is not waited for.
    ///
    /// # Errors
    /// `InvalidInput` where it is not a plain file, else as the operating system says.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates one directory (mode 0700 on a real disk); refuses a name that is taken.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames within one file system; replaces a file under the new name.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; refuses a name that is taken.
    ///
    /// # Errors
    /// As the operating system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    ///
    /// # Errors
    /// As the operating system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, sorted by name. Names that are not UTF-8 are left out: evidence makes none.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// What a path is; `None` where nothing is there.
    ///
    /// # Errors
    /// As the operating system says.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;
    /// Takes the exclusive lock of the file at `path`, creating it where it is missing; `None` where another holds it.
    /// Dropping the lock frees it, and so does the end of the process.
    ///
    /// # Errors
    /// As the operating system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
    /// Bytes that can still be allocated on the file system that holds `path`.
    ///
    /// # Errors
    /// As the operating system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes all write permission from a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_read_only(&self, path: &Path) -> io::Result<()>;
}

/// An open file. Positions are absolute; there is no cursor.
#[expect(clippy::len_without_is_empty, reason = "nobody asks a file on disk whether it is empty")]
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 is the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one after the other, at `offset`.
    ///
    /// # Errors
    /// As the operating system says; some of the bytes may be written.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the file at least `len` bytes long, zero-filled and allocated, so that writing below `len` cannot run out
    /// of space.
    ///
    /// # Errors
    /// As the operating system says.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// As [`DiskFile::allocate`], for a file that is about to be written in many small steps, each of them synced: where a
    /// file system marks allocated blocks as never written, the first sync of each would have to unmark them in its own
    /// journal, which costs more than the data. They are written once beforehand.
    ///
    /// # Errors
    /// As the operating system says; the file is of no use then.
    fn prepare(&self, len: u64) -> io::Result<()> {
        self.allocate(len)
    }
    /// Makes content and length durable (`fdatasync`).
    ///
    /// # Errors
    /// As the operating system says; never call it again on this file then (DU-4).
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;
}

/// A lock that is held until it is dropped.
pub trait DiskLock: Send + Sync + Debug {}

/// Fills `buffer` from `offset` on; returns how much was there before the end of the file.
///
/// # Errors
/// As the disk says.
pub fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// A longer file (`FileTooLarge`), or as the disk says.
pub fn read_file(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("`{}` has {len} bytes, wanted at most {limit}", path.display()),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let count = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Writes a new file and makes its bytes durable. Its name is durable after a [`Disk::sync_dir`].
///
/// # Errors
/// A name that is taken, or as the disk says.
pub fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(path)?;
    file.write_at(&[IoSlice::new(bytes)], 0)?;
    file.sync_data()
}

/// Writes `<path>.new`, makes it durable, renames it to `path` and makes the name durable: after a crash the old file
/// or the whole new one is there.
///
/// # Errors
/// As the disk says.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    match disk.unlink(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(disk, new, bytes)?;
    disk.rename(new, path)?;
    disk.sync_dir(parent(path))
}

/// Creates a directory and its missing parents, each durable in its own parent on return.
///
/// # Errors
/// As the disk says.
pub fn create_dir_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path == Path::new("/") || path == Path::new(".") {
        return Ok(());
    }
    if disk.entry(path)?.is_some_and(|entry| entry.is_dir) {
        return Ok(());
    }
    let above = parent(path);
    create_dir_all(disk, above)?;
    create_dir(disk, path)?;
    disk.sync_dir(above)
}

/// Creates one directory where it is missing. It is not durable: for what means nothing after a loss of power.
///
/// # Errors
/// As the disk says.
pub fn create_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// A disk shared by all parts of the evidence path.
pub type SharedDisk = Arc<dyn Disk>;
