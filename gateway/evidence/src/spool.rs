//! The spool: sealed batches on their way to the store, one folder an epoch.
//!
//! A batch is complete when its seal is renamed in, last: then its files are shipped verbatim and never rebuilt. Files
//! without a seal were never put into a store; they are removed and built anew (DU-3). What is archived goes; for a while
//! it is kept beside the spool (`kept`).

use std::collections::BTreeSet;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};

use schemas::names::FileKind;
use schemas::seal::SealedFile;
use schemas::{ObjectName, Origin};

use crate::disk::{self, DiskFile, SharedDisk};

/// Files that are being written.
const TEMPORARY: &str = "tmp-";
/// The largest seal: 64 nodes and 1000 files fit many times.
const MAX_SEAL_BYTES: u64 = 1 << 20;

/// One log's part of the spool.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    disk: SharedDisk,
    folder: PathBuf,
    origin: Origin,
    /// Where complete batches are kept for the tap, too.
    tap: Option<PathBuf>,
}

impl Spool {
    /// Opens a log's folder, and makes it where it is missing.
    pub(crate) fn open(disk: SharedDisk, spool: &Path, origin: &Origin) -> io::Result<Self> {
        let folder = spool.join(origin.epoch());
        disk::create_dir_all(&*disk, &folder)?;
        Ok(Self { disk, folder, origin: origin.clone(), tap: None })
    }

    /// Keeps what is complete for the tap too, in its folder of this log.
    pub(crate) fn tapped(self, tap: Option<PathBuf>) -> Self {
        Self { tap, ..self }
    }

    /// The log.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    fn keep_for_tap(&self, note: &[u8]) {
        if let Some(tap) = &self.tap
            && let Err(error) = crate::tap::keep(&*self.disk, &self.folder, tap, note)
        {
            tracing::warn!(origin = %self.origin, %error, "a batch is not kept for the tap; it may have to read the store");
        }
    }

    /// Begins a file.
    pub(crate) fn create(&self, tag: &str) -> io::Result<SpoolFile> {
        let path = self.folder.join(format!("{TEMPORARY}{tag}"));
        match self.disk.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&path)?;
        Ok(SpoolFile {
            file,
            path,
            length: 0,
            hasher: schemas::digest::Hasher::default(),
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Syncs a file and gives it its name.
    pub(crate) fn keep(&self, mut file: SpoolFile, batch: u64, kind: FileKind) -> io::Result<SealedFile> {
        file.flush()?;
        file.file.sync_data()?;
        let sha256 = file.hasher.finish();
        let name = ObjectName::Data { origin: self.origin.clone(), batch, sha256, kind }.file_name();
        self.disk.rename(&file.path, &self.folder.join(&name))?;
        Ok(SealedFile { name, length: file.length, sha256 })
    }

    /// Completes a batch. All its files must be kept.
    pub(crate) fn complete(&self, batch: u64, seal: &[u8]) -> io::Result<()> {
        self.disk.sync_dir(&self.folder)?;
        let mut file = self.create("seal")?;
        file.write_all(seal)?;
        file.flush()?;
        file.file.sync_data()?;
        self.disk.rename(&file.path, &self.seal_path(batch))?;
        self.disk.sync_dir(&self.folder)?;
        self.keep_for_tap(seal);
        Ok(())
    }

    fn seal_path(&self, batch: u64) -> PathBuf {
        self.folder.join(ObjectName::Seal { origin: self.origin.clone(), batch }.file_name())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn objects(&self) -> io::Result<Vec<(ObjectName, String, u64)>> {
        let entries = self.disk.list(&self.folder)?;
        let parsed = entries.into_iter().filter_map(|entry| {
            let name = ObjectName::parse_file(&self.origin, &entry.name).ok()?;
            Some((name, entry.name, entry.len))
        });
        Ok(parsed.collect())
    }

    /// The complete batches, in order.
    pub(crate) fn batches(&self) -> io::Result<Vec<u64>> {
        let objects = self.objects()?;
        let mut batches: Vec<u64> = objects
            .iter()
            .filter(|(name, ..)| matches!(name, ObjectName::Seal { .. }))
            .map(|(name, ..)| name.batch())
            .collect();
        batches.sort_unstable();
        Ok(batches)
    }

    /// A complete batch's seal.
    pub(crate) fn seal(&self, batch: u64) -> io::Result<Vec<u8>> {
        disk::read_file(&*self.disk, &self.seal_path(batch), MAX_SEAL_BYTES)
    }

    /// A file of a complete batch.
    pub(crate) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        disk::read_file(&*self.disk, &self.folder.join(name), limit)
    }

    /// Removes what belongs to no complete batch: it was never put into a store.
    pub(crate) fn clean(&self) -> io::Result<()> {
        let complete: BTreeSet<u64> = self.batches()?.into_iter().collect();
        for entry in self.disk.list(&self.folder)? {
            let stale = match ObjectName::parse_file(&self.origin, &entry.name) {
                Ok(name) => !complete.contains(&name.batch()),
                Err(_) => entry.name.starts_with(TEMPORARY),
            };
            if stale && !entry.is_dir {
                self.disk.unlink(&self.folder.join(&entry.name))?;
            }
        }
        // Who made them may have died before they were kept.
        if self.tap.is_some() {
            for batch in complete {
                self.keep_for_tap(&self.seal(batch)?);
            }
        }
        Ok(())
    }

    /// Removes an archived batch, its seal first and durably: what is left by a crash is then stale, not a broken
    /// batch.
    pub(crate) fn remove(&self, batch: u64) -> io::Result<()> {
        self.unlink_seals_first(|name| name.batch() == batch)
    }

    fn unlink_seals_first(&self, which: impl Fn(&ObjectName) -> bool) -> io::Result<()> {
        let objects = self.objects()?.into_iter().filter(|(name, ..)| which(name));
        let (seals, others): (Vec<_>, Vec<_>) =
            objects.partition(|(name, ..)| matches!(name, ObjectName::Seal { .. }));
        for (_, file, _) in &seals {
            self.disk.unlink(&self.folder.join(file))?;
        }
        if !seals.is_empty() {
            self.disk.sync_dir(&self.folder)?;
        }
        for (_, file, _) in &others {
            self.disk.unlink(&self.folder.join(file))?;
        }
        Ok(())
    }

    /// Bytes of all objects.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(self.objects()?.iter().map(|(.., bytes)| bytes).sum())
    }

    /// Removes the folder; everything in it is archived.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        self.unlink_seals_first(|_| true)?;
        for entry in self.disk.list(&self.folder)? {
            self.disk.unlink(&self.folder.join(&entry.name))?;
        }
        self.disk.remove_dir(&self.folder)
    }
}

/// Removes the folder of an epoch of which nothing was sealed; where something is in it, it stays.
pub(crate) fn remove_empty(disk: &dyn disk::Disk, folder: &Path) -> io::Result<()> {
    match disk.remove_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        removed => removed,
    }
}

const BUFFER: usize = 256 << 10;

/// A file of the spool while it is written: hashed on the way.
pub(crate) struct SpoolFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    length: u64,
    hasher: schemas::digest::Hasher,
    buffer: Vec<u8>,
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.hasher.update(&self.buffer);
        self.file.write_at(&[IoSlice::new(&self.buffer)], self.length)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::RealDisk;
    use schemas::Sha256Hex;
    use std::sync::Arc;

    #[test]
    fn a_batch_counts_only_with_its_seal_and_stale_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let spool = Spool::open(Arc::new(RealDisk), dir.path(), &origin).unwrap();
        let keep = |batch: u64, bytes: &[u8]| {
            let mut file = spool.create("records").unwrap();
            file.write_all(bytes).unwrap();
            spool.keep(file, batch, FileKind::Records).unwrap()
        };
        let kept = keep(0, b"records of 0");
        assert_eq!(kept.sha256, Sha256Hex::of(b"records of 0"));
        assert_eq!(kept.length, 12);
        assert!(spool.batches().unwrap().is_empty());
        spool.complete(0, b"seal 0").unwrap();
        keep(1, b"records of 1");
        drop(spool.create("content").unwrap());
        spool.clean().unwrap();
        assert_eq!(spool.batches().unwrap(), vec![0]);
        assert_eq!(std::fs::read_dir(dir.path().join("e1")).unwrap().count(), 2);
        assert_eq!(spool.read(&kept.name, 100).unwrap(), b"records of 0");
        assert_eq!(spool.bytes().unwrap(), 18);
        spool.remove(0).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("e1")).unwrap().count(), 0);
    }
}
