//! `holds.json`: what was said of holds by the gateway that owns a key table.

use std::path::{Path, PathBuf};

use schemas::holds::Said;
use serde::{Deserialize, Serialize};

use super::HoldError;
use crate::disk::{self, SharedDisk};

const NAME: &str = "holds.json";
/// The largest file that is read.
const LIMIT: u64 = 256 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct HoldFile {
    disk: SharedDisk,
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Written<T> {
    v: u32,
    said: T,
}

impl HoldFile {
    pub(super) fn new(disk: SharedDisk, key_table: &Path) -> Self {
        Self { disk, path: key_table.join(NAME) }
    }

    fn failed(&self, error: impl std::fmt::Display) -> HoldError {
        HoldError::Failed(format!("`{}`: {error}: what is under a hold is not known", self.path.display()))
    }

    /// What was said; nothing where there is no file.
    pub(super) fn read(&self) -> Result<Vec<Said>, HoldError> {
        if self.disk.entry(&self.path).map_err(|error| self.failed(error))?.is_none() {
            return Ok(Vec::new());
        }
        let bytes = disk::read_file(&*self.disk, &self.path, LIMIT).map_err(|error| self.failed(error))?;
        let written: Written<Vec<Said>> =
            serde_json::from_slice(&bytes).map_err(|error| self.failed(error))?;
        match written.v {
            1 => Ok(written.said),
            other => Err(self.failed(format_args!("version {other}, wanted 1"))),
        }
    }

    /// Writes all anew; durable on return.
    pub(super) fn write(&self, said: &[Said]) -> Result<(), HoldError> {
        let bytes = serde_json::to_vec(&Written { v: 1, said }).map_err(|error| self.failed(error))?;
        disk::replace(&*self.disk, &self.path, &bytes).map_err(|error| self.failed(error))
    }
}
