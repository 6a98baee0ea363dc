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
    limit: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Written<T> {
    v: u32,
    said: T,
}

impl HoldFile {
    pub(super) fn new(disk: SharedDisk, key_table: &Path) -> Self {
        Self { disk, path: key_table.join(NAME), limit: LIMIT }
    }

    fn failed(&self, error: impl std::fmt::Display) -> HoldError {
        HoldError::Failed(format!("`{}`: {error}: what is under a hold is not known", self.path.display()))
    }

    /// What was said; nothing where there is no file.
    pub(super) fn read(&self) -> Result<Vec<Said>, HoldError> {
        if self.disk.entry(&self.path).map_err(|error| self.failed(error))?.is_none() {
            return Ok(Vec::new());
        }
        let bytes =
            disk::read_file(&*self.disk, &self.path, self.limit).map_err(|error| self.failed(error))?;
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

    /// As [`Self::write`], where more begins. It stays well below what is read, so that what begins now can be recorded, and can end.
    pub(super) fn write_more(&self, said: &[Said]) -> Result<(), HoldError> {
        let bytes =
            serde_json::to_vec(&Written { v: 1, said }).map_err(|error| self.failed(error))?.len() as u64;
        if bytes > self.limit / 2 {
            return Err(HoldError::Failed(format!(
                "`{}`: {} holds and releases take {bytes} bytes, wanted at most {}; nothing was done",
                self.path.display(),
                said.len(),
                self.limit / 2
            )));
        }
        self.write(said)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use schemas::Identifier;
    use schemas::holds::{Moment, Scope};

    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn a_hold_that_nobody_could_read_again_does_not_begin() {
        let folder = Path::new("/keys");
        let disk: SharedDisk = Arc::new(SimDisk::new());
        disk::create_dir_all(&*disk, folder).unwrap();
        let file = HoldFile { limit: 2000, ..HoldFile::new(disk, folder) };
        let hold = Identifier::new("case-1").unwrap();
        let (scope, moment) = (Scope::default(), Moment::at(1));
        let one = Said { hold, begins: true, scope, moment, reason: None, actor: None };
        file.write_more(std::slice::from_ref(&one)).unwrap();
        let refused = file.write_more(&vec![one.clone(); 100]).unwrap_err().to_string();
        assert!(refused.contains("wanted at most 1000"), "{refused}");
        assert_eq!(file.read().unwrap(), [one]);
    }
}
