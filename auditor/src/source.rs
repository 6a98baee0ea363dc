//! Where evidence is read from. Read-only: nothing here can write.
//!
//! [`DirectorySource`] reads a directory store, [`MemorySource`] a store in memory (tests). Links are listed and never
//! followed; every name under the prefix is listed, whatever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::file::reader::{ChunkReader, Length};
use rustix::fs::{CWD, Mode, OFlags};

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such object.
    #[error("`{0}` is not there")]
    Absent(String),
    /// The operating system refused.
    #[error("`{name}` cannot be read: {error}")]
    Io {
        /// The object or folder.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// The object is larger than this auditor reads at once.
    #[error("`{name}` has {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The object.
        name: String,
        /// The largest size.
        limit: u64,
        /// Its size.
        found: u64,
    },
}

/// What a name in the store stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A symbolic link (not followed).
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// A name in a folder of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the name. A name that is no UTF-8 has its bad bytes replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its length in bytes.
    pub length: u64,
}

/// An opened object: read in parts, more than once.
#[derive(Debug)]
pub enum Opened {
    /// A file.
    File(File),
    /// Bytes.
    Memory(Bytes),
}

impl Length for Opened {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

/// Reads an [`Opened`] object from some offset on.
#[derive(Debug)]
pub enum OpenedRead {
    /// A file.
    File(io::BufReader<File>),
    /// Bytes.
    Memory(io::Cursor<Bytes>),
}

impl io::Read for OpenedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Memory(bytes) => bytes.read(buffer),
        }
    }
}

impl ChunkReader for Opened {
    type T = OpenedRead;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        match self {
            Self::File(file) => file.get_read(start).map(OpenedRead::File),
            Self::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                Ok(OpenedRead::Memory(io::Cursor::new(bytes.slice(start..))))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                match start.checked_add(length) {
                    Some(end) if end <= bytes.len() => Ok(bytes.slice(start..end)),
                    _ => Err(parquet::errors::ParquetError::EOF("range beyond the end of the file".into())),
                }
            }
        }
    }
}

/// A store that can be listed and read.
pub trait Source: Sync {
    /// How the store is named in reports.
    fn describe(&self) -> String;
    /// Every folder that holds at least one entry that is no folder, relative to the prefix; `""` is the prefix itself.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    fn folders(&self) -> Result<Vec<String>, SourceError>;
    /// Every entry of a folder that is no folder, in byte order of names.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError>;
    /// Opens an object.
    ///
    /// # Errors
    /// An object that is absent, is no plain file, or cannot be opened.
    fn open(&self, name: &str) -> Result<Opened, SourceError>;
    /// Reads an object whole.
    ///
    /// # Errors
    /// As [`Source::open`], and an object of more than `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Result<Bytes, SourceError> {
        let opened = self.open(name)?;
        let found = opened.len();
        if found > limit {
            return Err(SourceError::TooLarge { name: name.into(), limit, found });
        }
        match opened {
            Opened::Memory(bytes) => Ok(bytes),
            Opened::File(mut file) => {
                let mut out = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
                let read = io::Read::read_to_end(&mut io::Read::take(&mut file, limit + 1), &mut out);
                read.map_err(|error| SourceError::Io { name: name.into(), error })?;
                if out.len() as u64 > limit {
                    return Err(SourceError::TooLarge { name: name.into(), limit, found: out.len() as u64 });
                }
                Ok(out.into())
            }
        }
    }
}

/// A directory store.
#[derive(Debug, Clone)]
pub struct DirectorySource {
    root: PathBuf,
}

impl DirectorySource {
    /// The store under `root`.
    ///
    /// # Errors
    /// A path that is no folder.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder"));
        }
        Ok(Self { root })
    }

    /// The store's folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Source for DirectorySource {
    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }

    fn folders(&self) -> Result<Vec<String>, SourceError> {
        let mut out = Vec::new();
        let mut todo = vec![(String::new(), self.root.clone())];
        while let Some((name, path)) = todo.pop() {
            let failed = |error| SourceError::Io { name: path.display().to_string(), error };
            let mut holds = false;
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    let file_name = entry.file_name();
                    let last = file_name.to_string_lossy();
                    let child = if name.is_empty() { last.into_owned() } else { format!("{name}/{last}") };
                    todo.push((child, entry.path()));
                } else {
                    holds = true;
                }
            }
            if holds {
                out.push(name);
            }
        }
        out.sort();
        Ok(out)
    }

    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let path = self.path(folder);
        let failed = |error| SourceError::Io { name: path.display().to_string(), error };
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                continue;
            }
            let kind = match kind {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_symlink() => EntryKind::Symlink,
                _ => EntryKind::Other,
            };
            let length = entry.metadata().map_err(failed)?.len();
            out.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind, length });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(CWD, self.path(name), flags, Mode::empty());
        let file = match opened {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Err(SourceError::Absent(name.into())),
            Err(error) => return Err(SourceError::Io { name: name.into(), error: error.into() }),
        };
        let metadata = file.metadata().map_err(|error| SourceError::Io { name: name.into(), error })?;
        if !metadata.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain file");
            return Err(SourceError::Io { name: name.into(), error });
        }
        Ok(Opened::File(file))
    }
}

/// A store in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemorySource {
    /// Name relative to the prefix, and bytes.
    pub objects: BTreeMap<String, Bytes>,
    /// Names that are symbolic links.
    pub links: BTreeSet<String>,
}

impl MemorySource {
    /// Puts an object.
    pub fn put(&mut self, name: impl Into<String>, bytes: impl Into<Bytes>) {
        self.objects.insert(name.into(), bytes.into());
    }
    /// Reads a folder with everything under it.
    ///
    /// # Errors
    /// Anything that cannot be read.
    pub fn load(source: &dyn Source) -> Result<Self, SourceError> {
        let mut out = Self::default();
        for folder in source.folders()? {
            for entry in source.entries(&folder)? {
                let name = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
                if entry.kind == EntryKind::File {
                    out.put(name.clone(), source.read(&name, u64::MAX - 1)?);
                }
            }
        }
        Ok(out)
    }
    fn split(name: &str) -> (&str, &str) {
        name.rsplit_once('/').unwrap_or(("", name))
    }
}

impl Source for MemorySource {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn folders(&self) -> Result<Vec<String>, SourceError> {
        let names = self.objects.keys().chain(&self.links);
        let folders: BTreeSet<&str> = names.map(|name| Self::split(name).0).collect();
        Ok(folders.into_iter().map(str::to_owned).collect())
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let here = |name: &&str| Self::split(name).0 == folder;
        let files = self.objects.iter().filter(|(name, _)| here(&name.as_str())).map(|(name, bytes)| Entry {
            name: Self::split(name).1.into(),
            kind: EntryKind::File,
            length: bytes.len() as u64,
        });
        let links = self.links.iter().filter(|name| here(&name.as_str())).map(|name| Entry {
            name: Self::split(name).1.into(),
            kind: EntryKind::Symlink,
            length: 0,
        });
        let mut out: Vec<_> = files.chain(links).collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        self.objects.get(name).cloned().map(Opened::Memory).ok_or_else(|| SourceError::Absent(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_lists_everything_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/x"), b"12").unwrap();
        std::fs::write(dir.path().join("top"), b"1").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/link")).unwrap();
        let source = DirectorySource::new(dir.path()).unwrap();
        assert_eq!(source.folders().unwrap(), ["", "a", "a/b"]);
        assert_eq!(source.entries("a").unwrap()[0].kind, EntryKind::Symlink);
        assert!(source.open("a/link").is_err());
        assert_eq!(&source.read("a/b/x", 2).unwrap()[..], b"12");
        assert!(matches!(source.read("a/b/x", 1), Err(SourceError::TooLarge { found: 2, .. })));
        assert!(matches!(source.open("none"), Err(SourceError::Absent(_))));
    }
}
