//! What a witness remembers: one small file for each log, replaced as a whole.
//!
//! ```text
//! <folder>/witness              the witness's key: made once, with the key; then a line for each log that was cosigned
//! <folder>/<SHA-256 of origin>  affidavit/witness/v1, origin, size, root: a line each
//! ```
//! A witness that forgot would cosign a second history: it does not start on a folder that its key was not made with,
//! nor where the file of a log is gone that it has cosigned. A log's first file is durable before its line is, and both
//! before the cosignature is given: a crash between them leaves a file without a line, which the next start adds. An
//! older copy of the whole folder cannot be told from the newest: never restore one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    /// The file of a log that was cosigned is gone.
    #[error(
        "`{}` is gone: log `{origin}` was cosigned, and how far is not known; put the file back as it was, and never an \
         older one, or make another key with `auditor witness keygen`",
        path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// The log.
        origin: String,
    },
    /// The folder, or its mark, was replaced while it is used.
    #[error("`{}` is not the file that was opened at the start: somebody replaced the state folder", path.display())]
    Replaced {
        /// The folder's mark.
        path: PathBuf,
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
    mark: Mutex<Mark>,
}

/// The mark: open for as long as the lock on it is held.
#[derive(Debug)]
struct Mark {
    file: File,
    /// The logs that it names.
    cosigned: BTreeSet<String>,
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
    sync(folder)
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<(), StateError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

/// Makes a folder and those above it that are missing, each durable in its own.
fn make(folder: &Path) -> Result<(), StateError> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(folder)(error)),
        _ => sync(above),
    }
}

impl StateFolder {
    /// Makes the folder of a new witness.
    ///
    /// # Errors
    /// The disk; a folder that is a witness's already.
    pub fn create(folder: &Path, key: &WitnessKey) -> Result<(), StateError> {
        make(folder)?;
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
        let not_ours = || StateError::NotOurs { path: mark.clone(), wanted: key.to_string() };
        let file = match OpenOptions::new().read(true).append(true).open(&mark) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_ours()),
            Err(error) => return Err(io(&mark)(error)),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::InUse { path: mark });
        }
        let bytes = fs::read(&mark).map_err(io(&mark))?;
        // A line that a crash cut: it is added anew, as the log's own file was there before it.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text =
            bytes.get(..whole).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(not_ours)?;
        let lines = text.strip_prefix(&format!("{key}\n")).ok_or_else(not_ours)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(io(&mark))?;
        }
        let cosigned = lines.lines().map(str::to_owned).collect();
        Ok(Self { folder: folder.to_owned(), mark: Mutex::new(Mark { file, cosigned }) })
    }

    /// Adds a log's line to the mark; durable on return. The mark must still be the file that the lock is on: in another
    /// folder another process may have begun.
    fn mark(&self, origin: &str) -> Result<(), StateError> {
        let path = self.folder.join(MARK);
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |here: fs::Metadata, opened: fs::Metadata| {
            (here.dev(), here.ino()) == (opened.dev(), opened.ino())
        };
        let opened = mark.file.metadata().map_err(io(&path))?;
        if !fs::metadata(&path).is_ok_and(|here| same(here, opened)) {
            return Err(StateError::Replaced { path });
        }
        if mark.cosigned.contains(origin) {
            return Ok(());
        }
        let line = format!("{origin}\n");
        mark.file.write_all(line.as_bytes()).and_then(|()| mark.file.sync_all()).map_err(io(&path))?;
        mark.cosigned.insert(origin.to_owned());
        Ok(())
    }

    fn is_marked(&self, origin: &str) -> bool {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).cosigned.contains(origin)
    }

    pub(super) fn name(origin: &str) -> String {
        Sha256Hex::of(origin.as_bytes()).to_string()
    }

    /// Size and root that are remembered of a log; `None` where nothing was cosigned. A log that was cosigned and whose
    /// file is gone is no new log: [`StateError::Lost`].
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(&self, origin: &str) -> Result<Option<(u64, Hash)>, StateError> {
        let path = self.folder.join(Self::name(origin));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let origin = origin.to_owned();
                return if self.is_marked(&origin) {
                    Err(StateError::Lost { path, origin })
                } else {
                    Ok(None)
                };
            }
            Err(error) => return Err(io(&path)(error)),
        };
        let head = text.strip_prefix(FIRST_LINE).and_then(|text| TreeHead::parse(text).ok());
        match head.filter(|head| head.origin == origin) {
            Some(head) => {
                self.mark(origin)?;
                Ok(Some((head.size, head.root)))
            }
            None => Err(StateError::Form { path, origin: origin.to_owned() }),
        }
    }

    /// Remembers a tree head: durable on return.
    ///
    /// # Errors
    /// The disk: then it is not known which head is remembered.
    pub fn write(&self, head: &TreeHead) -> Result<(), StateError> {
        let text = format!("{FIRST_LINE}{}", head.to_text());
        replace(&self.folder, &Self::name(&head.origin), text.as_bytes())?;
        self.mark(&head.origin)
    }
}
