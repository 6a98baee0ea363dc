//! Where evidence is read from. Read-only: nothing here can write.
//!
//! [`DirectorySource`] reads a directory store, [`S3Source`] a bucket, [`MemorySource`] a store in memory (tests). Links
//! are listed and never followed; every name under the prefix is listed, whatever it is.

mod directory;
mod memory;
pub mod s3;

pub use directory::DirectorySource;
pub(crate) use directory::LEFTOVERS;
pub use memory::MemorySource;
pub use s3::S3Source;

use std::fs::File;
use std::io;

use bytes::Bytes;
use parquet::file::reader::{ChunkReader, Length};

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
    /// What the store says of its state: another one means that it was written or changed since.
    pub stamp: String,
}

/// The folders of a store.
#[derive(Debug, Default)]
pub struct Folders {
    /// Every folder that holds at least one entry that is no folder, relative to the prefix; `""` is the prefix itself.
    pub names: Vec<String>,
    /// The entries of folders whose names are no UTF-8, with bad bytes replaced: they cannot be asked for.
    pub strangers: Vec<(String, EntryKind)>,
    /// Folders that could not be listed, and why: nothing is known of what is below them.
    pub unlisted: Vec<(String, SourceError)>,
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
pub trait Source: std::fmt::Debug + Send + Sync {
    /// How the store is named in reports.
    fn describe(&self) -> String;
    /// Its folders.
    fn folders(&self) -> Folders;
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
