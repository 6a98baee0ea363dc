//! Where the admin socket lies: a folder that only its user can enter.
//!
//! The folder is opened once and used by its descriptor: what was checked is what is used, and the socket's address
//! (108 bytes) holds the name only. Whoever puts a socket there or takes it away holds the folder's lock meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evidence::disk::{self, RealDisk};
use rustix::fs::{AtFlags, FlockOperation, Mode};
use rustix::io::Errno;

/// How long another process may hold the folder: it puts a file there or takes one away.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A socket's name in its folder.
#[derive(Debug)]
pub(crate) struct Place {
    folder: File,
    name: OsString,
    path: PathBuf,
}

/// Device and inode of a socket's file.
pub(crate) type FileId = (u64, u64);

impl Place {
    /// For who listens at `path`: the folder is made where it is missing, and must be this user's alone. One that holds
    /// nothing but the socket is closed to others: mounting a volume opens it again on some systems.
    ///
    /// # Errors
    /// Another user's folder, or one with other things that others can enter; or the system's.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let folder = disk::parent(path);
        disk::create_dir_all(&RealDisk, folder)?;
        match Self::open(path, false) {
            Err(error) if is_own(folder) && holds_only(folder, path) => {
                std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
                tracing::warn!(%error, "the folder of the admin socket was open to others; now it has mode 700");
                Self::open(path, false)
            }
            other => other,
        }
    }

    /// For who connects to `path`: root may connect to any user's.
    ///
    /// # Errors
    /// As [`Place::make`]; `NotFound` where there is no such folder.
    pub(crate) fn find(path: &Path) -> io::Result<Self> {
        Self::open(path, rustix::process::geteuid().is_root())
    }

    fn open(path: &Path, as_root: bool) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "wanted: a file's name at its end"))?;
        let parent = disk::parent(path);
        let folder = File::open(parent)?;
        let found = rustix::fs::fstat(&folder)?;
        let user = rustix::process::geteuid().as_raw();
        let (owner, mode) = (found.st_uid, found.st_mode & 0o777);
        if mode & 0o077 != 0 || owner != user && !as_root {
            let told = format!(
                "its folder `{}` has mode {mode:03o} and belongs to user {owner}; wanted: mode 700, user {user}",
                parent.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, told));
        }
        Ok(Self { folder, name: name.to_owned(), path: path.to_owned() })
    }

    /// The whole path, as it was configured.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to who listens there: nobody but the folder's user, or root, could put a socket into it.
    ///
    /// # Errors
    /// Nobody does, or the system's.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.address(&self.name))
    }

    /// Puts a new socket there, whatever there was: whoever connects finds the old one or the new one, listening. The
    /// caller holds the lock.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn put(&self) -> io::Result<tokio::net::UnixListener> {
        let fresh = fresh(&self.name);
        self.remove(&fresh)?;
        let listener = tokio::net::UnixListener::bind(self.address(&fresh))?;
        rustix::fs::chmodat(&self.folder, &fresh, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        rustix::fs::renameat(&self.folder, &fresh, &self.folder, &self.name)?;
        Ok(listener)
    }

    /// Takes the socket away. The caller holds the lock.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.remove(&self.name)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Which file is there.
    pub(crate) fn file(&self) -> Option<FileId> {
        let found = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((found.st_dev, found.st_ino))
    }

    /// Keeps all others from putting or taking away until it is dropped.
    ///
    /// # Errors
    /// Another one has it for long; or the system's.
    pub(crate) fn lock(&self) -> io::Result<Lock<'_>> {
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(&self.folder)),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    let told = "another process holds the lock of its folder";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, told));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn address(&self, name: &OsStr) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(name)
    }
}

fn is_own(folder: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    std::fs::metadata(folder).is_ok_and(|found| found.uid() == user)
}

/// Whether a folder holds nothing but the socket at `path`.
fn holds_only(folder: &Path, path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    let ours = |found: &OsStr| found == name || found == fresh(name);
    std::fs::read_dir(folder)
        .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| ours(&entry.file_name()))))
}

/// The name under which a socket is made, before it is put in place.
fn fresh(name: &OsStr) -> OsString {
    let mut fresh = name.to_owned();
    fresh.push(".new");
    fresh
}

/// The folder's lock.
#[derive(Debug)]
pub(crate) struct Lock<'a>(&'a File);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // The descriptor's end frees it too.
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}
