//! The way out: where sealed batches go (DU-2, DU-3).
//!
//! A store is create-only: a name that is taken keeps its bytes. Data files go before their seal.

mod directory;
mod kafka;
mod s3;
mod trouble;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use schemas::{ObjectName, Origin, Sha256Hex};

use crate::disk::DiskFile;

pub use directory::DirectoryStore;
pub use kafka::{Archive, KafkaStore};
pub use s3::{BucketFault, BucketReport, Retention, S3Settings, S3Store, Sse};
pub use trouble::Trouble;

/// What a put came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, durable.
    Stored,
    /// It was there already, with the same bytes.
    AlreadyThere,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is taken by other bytes: another writer, or a changed store. Never tried again (DU-3).
    #[error("`{name}` is taken: the store holds {found}, this log has {expected}")]
    Taken {
        /// The object.
        name: String,
        /// SHA-256 of what was to be put.
        expected: Sha256Hex,
        /// SHA-256 of what is there.
        found: Sha256Hex,
    },
    /// The file that was to be put is not what its digest says.
    #[error("`{path}` has SHA-256 {found}, wanted {expected}")]
    Source {
        /// The file in the spool.
        path: String,
        /// What it should have.
        expected: Sha256Hex,
        /// What it has.
        found: Sha256Hex,
    },
    /// What the store gives back is not what was put, or not kept as was asked. Someone must look.
    #[error("`{name}` was put, and the store gives back {found}")]
    ReadBack {
        /// The object.
        name: String,
        /// What came.
        found: String,
    },
    /// A store service did not do it. Worth trying again, slowly where someone must act first.
    #[error("{action} `{name}` ({trouble}): {detail}")]
    Service {
        /// What was tried.
        action: &'static str,
        /// On what.
        name: String,
        /// What is in the way.
        trouble: Trouble,
        /// What the service said.
        detail: String,
    },
    /// It is on its way, and the answer is still to come. Nothing is in the way.
    #[error("`{name}` is on its way: no receipt yet")]
    Pending {
        /// The object.
        name: String,
    },
    /// The store has no space. Worth trying again.
    #[error("the store is full: {0}")]
    Full(io::Error),
    /// The store does not answer, or not with success. Worth trying again.
    #[error("{action} `{name}`: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        name: String,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io { .. } | Self::Service { .. } | Self::Pending { .. })
    }

    /// Whether the same call may succeed later without anyone's doing: the store did not answer, or asks for patience.
    pub fn passes(&self) -> bool {
        match self {
            Self::Service { trouble, .. } => !trouble.needs_someone(),
            Self::Pending { .. } => true,
            Self::Io { source, .. } => match Trouble::met(source) {
                Some(trouble) => !trouble.needs_someone(),
                None => source.kind() != io::ErrorKind::PermissionDenied,
            },
            Self::Full(_) | Self::Taken { .. } | Self::Source { .. } | Self::ReadBack { .. } => false,
        }
    }

    /// What is in the way, where the same call may succeed later.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Service { trouble, .. } => Some(*trouble),
            Self::Full(_) => Some(Trouble::Full),
            Self::Io { source, .. } => Some(Trouble::met(source).unwrap_or(Trouble::Local)),
            Self::Taken { .. } | Self::Source { .. } | Self::ReadBack { .. } | Self::Pending { .. } => None,
        }
    }
}

/// A file whose bytes are to be put.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Its SHA-256.
    pub sha256: &'a Sha256Hex,
    /// Its length in bytes.
    pub length: u64,
    /// When its batch was sealed, microseconds UTC: retention counts from it, so a retry asks for the same.
    pub sealed_us: i64,
}

/// What a store says of an object that it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The version that was looked at, where the store has versions.
    pub version: Option<String>,
    /// Until when it cannot be deleted, seconds UTC, where the store enforces that.
    pub retain_until_s: Option<i64>,
}

/// What is said of a batch where the batch itself is not given back: by an archiver's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealWord {
    /// Its number.
    pub batch: u64,
    /// Its first position.
    pub from: u64,
    /// The position behind its last.
    pub to: u64,
    /// Root of the tree of `to` leaves.
    pub root: Sha256Hex,
    /// SHA-256 of its seal's whole note.
    pub seal: Sha256Hex,
    /// The seal's time, microseconds UTC.
    pub sealed_us: i64,
}

/// What a store counts, since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Receipts by nobody who counts.
    pub receipts_forged: u64,
    /// Batches that were put again, for want of an answer.
    pub put_again: u64,
}

/// Keeps objects under names, create-only. All calls block; all may be repeated.
pub trait Store: Send + Sync + Debug {
    /// Puts a file under a name; it is durable on return.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where other bytes have the name; else whether it was put is not known.
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError>;

    /// Asks the store what it keeps under a name: the same bytes, under the retention that was asked for. Only then
    /// the object is archived (DU-2).
    ///
    /// # Errors
    /// [`StoreError::ReadBack`] where it keeps something else, or not so.
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError>;

    /// As [`Store::put`], of what was confirmed before and may be lost: it is put whatever was said of it then.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn put_again(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.put(name, source)
    }

    /// As [`Store::confirm`], of what was put by [`Store::put_again`]: what was said before does not count.
    ///
    /// # Errors
    /// As [`Store::confirm`].
    fn confirm_again(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.confirm(name, source)
    }

    /// The objects of one log that can be read back now, in no order; `None` where that is not known here.
    ///
    /// # Errors
    /// The store does not answer.
    fn stored(&self, origin: &Origin) -> Result<Option<Vec<ObjectName>>, StoreError> {
        self.list(origin).map(Some)
    }

    /// Opens an object for reading; `None` where it is not there.
    ///
    /// # Errors
    /// The store does not answer.
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError>;

    /// The objects of one log, in no order. Names that are no object's are left out.
    ///
    /// # Errors
    /// The store does not answer.
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError>;

    /// The logs of one gateway, in no order.
    ///
    /// # Errors
    /// The store does not answer.
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError>;

    /// What is said of a batch that [`Store::list`] names, where its objects cannot be read back: `None` where they can.
    ///
    /// # Errors
    /// The store does not answer.
    fn word(&self, _origin: &Origin, _batch: u64) -> Result<Option<SealWord>, StoreError> {
        Ok(None)
    }

    /// Whether seals can be read back. Where not, the newest batch stays in the spool, so that a start finds where the
    /// log stands.
    fn gives_back(&self) -> bool {
        true
    }

    /// What it counts.
    fn figures(&self) -> Figures {
        Figures::default()
    }

    /// The folder that the store writes to on this machine, where it has one: its space is reserved too (CA-7).
    fn local_folder(&self) -> Option<&Path>;
}

/// Hashes a file from its start to its end.
pub(crate) fn hash_file(file: &dyn DiskFile) -> io::Result<(u64, Sha256Hex)> {
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    loop {
        let count = crate::disk::read_full(file, &mut buffer, offset)?;
        if count == 0 {
            return Ok((offset, hasher.finish()));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        offset += count as u64;
    }
}

/// Reads a whole object of at most `limit` bytes.
pub(crate) fn read_object(
    store: &dyn Store,
    name: &ObjectName,
    limit: u64,
) -> Result<Option<bytes::Bytes>, StoreError> {
    let Some(file) = store.get(name)? else { return Ok(None) };
    let failed = |source| StoreError::Io { action: "cannot read", name: name.to_string(), source };
    let length = file.len().map_err(failed)?;
    if length > limit {
        return Err(failed(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{length} bytes, at most {limit} are read"),
        )));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let count = crate::disk::read_full(&*file, &mut bytes, 0).map_err(failed)?;
    bytes.truncate(count);
    Ok(Some(bytes.into()))
}
