//! What is kept of sealed batches for sinks that have not come so far: a second name of their records and seal.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use schemas::names::FileKind;
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, SharedDisk};

const TAP: &str = "tap";
const POSITIONS: &str = "positions";
pub(super) const LOCK: &str = "lock";
const MAX_SEAL_BYTES: u64 = 1 << 20;
const MAX_POSITIONS_BYTES: u64 = 1 << 20;
/// The largest records file that is read: a batch's records are far smaller.
pub(super) const MAX_RECORDS_BYTES: u64 = 1 << 30;

/// The folder of one log.
pub(crate) fn folder(spool_dir: &Path, epoch: &str) -> PathBuf {
    root(spool_dir).join(epoch)
}

/// The folder of all of them.
pub(super) fn root(spool_dir: &Path) -> PathBuf {
    spool_dir.join(TAP)
}

/// Gives the records and the seal of a complete batch a second name in `to`, the seal's last; both or none. Durable on
/// return, but nothing rests on it: what is not there is read from the store, or told as missed.
pub(crate) fn keep(disk: &dyn Disk, from: &Path, to: &Path, note: &[u8]) -> io::Result<()> {
    let sealed = seal::parse_unverified(note).map_err(|error| io::Error::other(error.to_string()))?;
    disk::create_dir_all(disk, to)?;
    let mut names: Vec<String> =
        sealed.file(&FileKind::Records).iter().map(|file| file.name.clone()).collect();
    names.push(ObjectName::Seal { origin: sealed.origin.clone(), batch: sealed.batch }.file_name());
    let mut linked: Vec<&String> = Vec::new();
    for name in &names {
        match disk.link(&from.join(name), &to.join(name)) {
            Ok(()) => linked.push(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                // Records without a seal are kept for nobody, and count to no bound.
                linked.iter().for_each(|name| drop(disk.unlink(&to.join(name))));
                return Err(error);
            }
        }
    }
    disk.sync_dir(to)
}

/// Removes what was kept for a tap that is not configured any more; positions stay.
pub(crate) fn forget(disk: &dyn Disk, spool_dir: &Path) -> io::Result<()> {
    let root = root(spool_dir);
    if disk.entry(&root)?.is_none() {
        return Ok(());
    }
    for log in disk.list(&root)?.into_iter().filter(|entry| entry.is_dir) {
        let folder = root.join(&log.name);
        let Some(_lock) = disk.lock(&folder.join(LOCK))? else { continue };
        for entry in disk.list(&folder)? {
            if entry.name != POSITIONS && entry.name != LOCK {
                disk.unlink(&folder.join(&entry.name))?;
            }
        }
    }
    Ok(())
}

/// A batch that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) batch: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) origin: Origin,
    pub(super) seal: String,
    records: Option<(String, Sha256Hex)>,
    pub(super) bytes: u64,
}

/// How far a sink is in one log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The first position that it has not acknowledged.
    pub(super) next: u64,
    /// It has the log's last record, or was told that it will not get it.
    #[serde(default)]
    pub(super) ended: bool,
}

/// The file `positions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Positions {
    pub(super) origin: Origin,
    pub(super) sinks: BTreeMap<String, Position>,
    /// One past the last position that was ever known here, kept or not; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<u64>,
}

/// The folder of one log.
#[derive(Debug, Clone)]
pub(super) struct TapFolder {
    pub(super) disk: SharedDisk,
    pub(super) path: PathBuf,
}

impl TapFolder {
    /// The positions as they were saved; `None` where they were not, or what is there cannot be read: what is kept is then
    /// sent from its beginning.
    pub(super) fn positions(&self) -> io::Result<Option<Positions>> {
        let path = self.path.join(POSITIONS);
        if self.disk.entry(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = disk::read_file(&*self.disk, &path, MAX_POSITIONS_BYTES)?;
        let read = serde_json::from_slice(&bytes);
        if let Err(error) = &read {
            tracing::error!(file = %path.display(), %error, "the tap's positions cannot be read; what is kept is sent again");
        }
        Ok(read.ok())
    }

    /// Durable on return.
    pub(super) fn save(&self, positions: &Positions) -> io::Result<()> {
        let bytes = serde_json::to_vec(positions).map_err(io::Error::other)?;
        disk::replace(&*self.disk, &self.path.join(POSITIONS), &bytes)
    }

    /// The seals that are kept, by batch.
    pub(super) fn seals(&self) -> io::Result<Vec<String>> {
        let entries = self.disk.list(&self.path)?;
        Ok(entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".seal")).collect())
    }

    /// What a seal that is kept says; `InvalidData` where it says nothing.
    pub(super) fn kept(&self, seal: &str) -> io::Result<Kept> {
        let note = disk::read_file(&*self.disk, &self.path.join(seal), MAX_SEAL_BYTES)?;
        let sealed = seal::parse_unverified(&note).map_err(|error| damaged(seal, &error.to_string()))?;
        let records = sealed.file(&FileKind::Records);
        let bytes = records.map_or(0, |file| file.length) + note.len() as u64;
        Ok(Kept {
            batch: sealed.batch,
            from: sealed.from,
            to: sealed.to,
            origin: sealed.origin.clone(),
            seal: seal.to_owned(),
            records: records.map(|file| (file.name.clone(), file.sha256)),
            bytes,
        })
    }

    /// The records file of a batch; `InvalidData` where it is not the one that the seal names.
    pub(super) fn records(&self, kept: &Kept) -> io::Result<Option<Bytes>> {
        let Some((name, sha256)) = &kept.records else { return Ok(None) };
        let bytes = disk::read_file(&*self.disk, &self.path.join(name), MAX_RECORDS_BYTES)?;
        if Sha256Hex::of(&bytes) != *sha256 {
            return Err(damaged(name, "it is not what its seal names"));
        }
        Ok(Some(bytes.into()))
    }

    /// Removes a batch, its seal first.
    pub(super) fn remove(&self, kept: &Kept) -> io::Result<()> {
        self.unlink(&kept.seal)?;
        kept.records.as_ref().map_or(Ok(()), |(name, _)| self.unlink(name))
    }

    /// Removes a file, where it is there.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        match self.disk.unlink(&self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the folder with all that is in it. Positions and lock go last: who dies here leaves nothing that would be
    /// sent again.
    pub(super) fn remove_all(&self) -> io::Result<()> {
        let names: Vec<String> = self.disk.list(&self.path)?.into_iter().map(|entry| entry.name).collect();
        let is_last = |name: &&String| name.as_str() == POSITIONS || name.as_str() == LOCK;
        for name in names.iter().filter(|name| !is_last(name)) {
            self.unlink(name)?;
        }
        for name in [POSITIONS, LOCK] {
            self.unlink(name)?;
        }
        self.disk.remove_dir(&self.path)
    }
}

fn damaged(name: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{name}`: {what}"))
}
