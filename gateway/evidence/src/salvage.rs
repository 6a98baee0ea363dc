//! Salvage: a dead host's journal is closed on another machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas::note::Ed25519Signer;
use schemas::record::CloseReason;
use schemas::{Origin, Sha256Hex};

use crate::commit::{self, Survived};
use crate::disk;
use crate::epoch;
use crate::error::OpenError;
use crate::ledger::LedgerConfig;
use crate::recovery::{self, Recovered};

/// What became of one epoch's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Salvaged {
    /// The folder holds no record.
    Nothing {
        /// The folder.
        folder: PathBuf,
    },
    /// The log is closed.
    Closed {
        /// The log.
        origin: Origin,
        /// Its final size.
        size: u64,
        /// Its final root.
        root: Sha256Hex,
        /// Whether all of it is in the store.
        archived: bool,
    },
    /// The log could not be completed; its disk is as it was, but for the mark.
    Stuck {
        /// The log.
        origin: Origin,
        /// Why.
        why: String,
    },
}

/// Closes the logs of the journal folder (or of one epoch's folder) `dir`, which another host left.
///
/// Leaves the mark `salvaged` first, so that no `serve` uses the folder again. `settings` name the log's own seal key
/// or a closing key of it, spool, key table and store; its `journal_dir` is not used. Nothing of the journal is removed.
///
/// # Errors
/// The folder is in use, or could not be read.
pub fn salvage(settings: &LedgerConfig, dir: &Path) -> Result<Vec<Salvaged>, OpenError> {
    let disk = &settings.disk;
    let is_epoch = disk
        .list(dir)
        .map_err(OpenError::io("list", dir))?
        .iter()
        .any(|entry| entry.name.starts_with("segment-"));
    let folders = if is_epoch { vec![dir.to_owned()] } else { epoch::list(&**disk, dir)? };
    let signer = Arc::new(Ed25519Signer::from_seed(settings.seal_seed));
    let mut salvaged = Vec::new();
    for folder in folders {
        let lock_path = folder.join(epoch::LOCK);
        let lock = disk.lock(&lock_path).map_err(OpenError::io("lock", &lock_path))?;
        let Some(_lock) = lock else { return Err(OpenError::Locked(folder.display().to_string())) };
        recovery::mark_salvaged(disk, &folder)?;
        salvaged.push(match recovery::recover_as(settings, &signer, &folder, CloseReason::Salvaged)? {
            Recovered::Nothing => Salvaged::Nothing { folder },
            Recovered::Closed { origin, tree, archived, .. } => {
                Salvaged::Closed { origin, size: tree.size(), root: tree.root(), archived }
            }
            Recovered::Stuck { origin, why, .. } => Salvaged::Stuck { origin, why },
        });
    }
    Ok(salvaged)
}

/// Closes, from the commit topic, the logs of the deployment that are silent there and that this configuration's keys
/// may close, also those that another gateway has fenced and does not close.
///
/// # Errors
/// The brokers or the disk.
pub fn salvage_from_topic(settings: &LedgerConfig) -> Result<Vec<Salvaged>, OpenError> {
    for folder in [&settings.journal_dir, &settings.spool_dir, &settings.key_table_dir] {
        disk::create_dir_all(&*settings.disk, folder).map_err(OpenError::io("make", folder))?;
    }
    let survived = commit::survive(settings)?;
    Ok(survived
        .into_iter()
        .map(|one| match one {
            Survived::Closed { origin, size, root, archived } => {
                Salvaged::Closed { origin, size, root, archived }
            }
            Survived::Stuck { origin, why } => Salvaged::Stuck { origin, why },
        })
        .collect())
}
