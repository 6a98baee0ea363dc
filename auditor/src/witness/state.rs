//! What a witness remembers: one small file for each log, replaced as a whole.
//!
//! ```text
//! <folder>/witness              the witness's key: made once, with the key
//! <folder>/<SHA-256 of origin>  affidavit/witness/v1, origin, size, root: a line each
//! ```
//! A witness that forgot would cosign a second history: it does not start on a folder that its key was not made with.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use schemas::Sha256Hex;
use schemas::merkle::Hash;
use schemas::tlog::{TreeHead, WitnessKey};

const FIRST_LINE: &str = "affidavit/witness/v1\n";
const MARK: &str = "witness";

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk.
    #[error("`{}`: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A file that this witness did not write.
    #[error("`{}` is not a state file of log `{origin}`", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The log.
        origin: String,
    },
    /// The folder was not made with the key.
    #[error(
        "`{}` is not the state of witness {wanted}: one that lost its state must not go on under its key; make another \
         key with `auditor witness keygen`",
        path.display()
    )]
    NotOurs {
        /// The folder's mark.
        path: PathBuf,
        /// The witness.
        wanted: String,
    },
    /// Another process uses it.
    #[error("`{}` is used by another process", path.display())]
    InUse {
        /// The folder's mark.
        path: PathBuf,
    },
}

/// The folder, held for this process alone.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
    _lock: File,
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |error| StateError::Io { path, error }
}

/// Writes a file as a whole: durable under its name, or not there.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StateError> {
    let (new, path) = (folder.join(format!(".{name}.new")), folder.join(name));
    let mut file = File::create(&new).map_err(io(&new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&new))?;
    fs::rename(&new, &path).map_err(io(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

impl StateFolder {
    /// Makes the folder of a new witness.
    ///
    /// # Errors
    /// The disk; a folder that is a witness's already.
    pub fn create(folder: &Path, key: &WitnessKey) -> Result<(), StateError> {
        fs::create_dir_all(folder).map_err(io(folder))?;
        let mark = folder.join(MARK);
        if mark.exists() {
            return Err(StateError::NotOurs { path: mark, wanted: key.to_string() });
        }
        replace(folder, MARK, format!("{key}\n").as_bytes())
    }

    /// Opens the folder of this witness, and keeps other processes out of it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(folder: &Path, key: &WitnessKey) -> Result<Self, StateError> {
        let mark = folder.join(MARK);
        let text = match fs::read_to_string(&mark) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io(&mark)(error)),
        };
        if text != format!("{key}\n") {
            return Err(StateError::NotOurs { path: mark, wanted: key.to_string() });
        }
        let lock = File::open(&mark).map_err(io(&mark))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::InUse { path: mark });
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    pub(super) fn name(origin: &str) -> String {
        Sha256Hex::of(origin.as_bytes()).to_string()
    }

    /// Size and root that are remembered of a log; `None` where nothing was cosigned.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(&self, origin: &str) -> Result<Option<(u64, Hash)>, StateError> {
        let path = self.folder.join(Self::name(origin));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path)(error)),
        };
        let head = text.strip_prefix(FIRST_LINE).and_then(|text| TreeHead::parse(text).ok());
        match head.filter(|head| head.origin == origin) {
            Some(head) => Ok(Some((head.size, head.root))),
            None => Err(StateError::Form { path, origin: origin.to_owned() }),
        }
    }

    /// Remembers a tree head: durable on return.
    ///
    /// # Errors
    /// The disk: then it is not known which head is remembered.
    pub fn write(&self, head: &TreeHead) -> Result<(), StateError> {
        let text = format!("{FIRST_LINE}{}", head.to_text());
        replace(&self.folder, &Self::name(&head.origin), text.as_bytes())
    }
}
