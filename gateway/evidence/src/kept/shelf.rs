//! The folders of kept batches: what is in them, and what goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use schemas::ObjectName;
use schemas::seal::{self, Seal};

use crate::disk::{self, SharedDisk};
use crate::spool::Spool;

/// The folder of all of them, in the spool's.
const KEPT: &str = "kept";
/// How the name of a kept seal ends.
const SEAL: &str = ".seal";
/// The largest seal that is read.
const MAX_SEAL_BYTES: u64 = 1 << 20;

/// A batch that is kept. In the order in which batches go: what was archived first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeptBatch {
    /// When the store had confirmed it, microseconds UTC.
    pub(crate) archived_us: i64,
    /// The last part of its log's name.
    pub(crate) epoch: String,
    /// Its number.
    pub(crate) batch: u64,
    /// Bytes of its files and its seal.
    pub(crate) bytes: u64,
}

impl KeptBatch {
    fn seal_name(&self) -> String {
        format!("{:010}.{}{SEAL}", self.batch, self.archived_us)
    }
}

/// Of a file's name: the batch, and of a seal when it was archived.
fn parse(name: &str) -> Option<(u64, Option<i64>)> {
    let (batch, rest) = name.split_at_checked(10)?;
    let batch = batch.parse().ok()?;
    match rest.strip_prefix('.') {
        Some(time) => Some((batch, Some(time.strip_suffix(SEAL)?.parse().ok()?))),
        None => rest.starts_with('-').then_some((batch, None)),
    }
}

/// What is kept, as the folders have it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) batches: BTreeSet<KeptBatch>,
    /// Files that no seal is for: of a batch that is being kept now, or was when the process died.
    pub(crate) strays: BTreeSet<PathBuf>,
}

/// The folders.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    disk: SharedDisk,
    root: PathBuf,
}

impl Shelf {
    pub(crate) fn new(disk: SharedDisk, spool_dir: &Path) -> Self {
        Self { disk, root: spool_dir.join(KEPT) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes(disk::parent(&self.root))
    }

    fn folder(&self, epoch: &str) -> PathBuf {
        self.root.join(epoch)
    }

    /// Gives the files of an archived batch a second name, the seal's last. Durable on return.
    pub(crate) fn keep(&self, spool: &Spool, batch: u64, archived_us: i64) -> io::Result<KeptBatch> {
        let note = spool.seal(batch)?;
        let sealed = parsed(&note)?;
        let bytes = sealed.files.iter().map(|file| file.length).sum::<u64>() + note.len() as u64;
        let kept = KeptBatch { archived_us, epoch: sealed.origin.epoch().to_owned(), batch, bytes };
        let folder = self.folder(&kept.epoch);
        disk::create_dir_all(&*self.disk, &folder)?;
        for file in &sealed.files {
            self.link(&spool.path(&file.name), &folder.join(&file.name))?;
        }
        let name = ObjectName::Seal { origin: sealed.origin.clone(), batch }.file_name();
        self.link(&spool.path(&name), &folder.join(kept.seal_name()))?;
        self.disk.sync_dir(&folder)?;
        Ok(kept)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.disk.link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Looks at all folders. Of two seals of one batch, left by a process that died in between, the older goes. Folders
    /// with nothing in them go.
    pub(crate) fn find(&self) -> io::Result<Found> {
        let mut found = Found::default();
        if self.disk.entry(&self.root)?.is_none() {
            return Ok(found);
        }
        for log in self.disk.list(&self.root)?.into_iter().filter(|entry| entry.is_dir) {
            let folder = self.folder(&log.name);
            let entries = self.disk.list(&folder)?;
            if entries.is_empty() {
                // Another process may be about to keep something there.
                let _ = self.disk.remove_dir(&folder);
            }
            let mut seals: BTreeMap<u64, KeptBatch> = BTreeMap::new();
            for entry in &entries {
                let Some((batch, Some(archived_us))) = parse(&entry.name) else { continue };
                let kept = KeptBatch { archived_us, epoch: log.name.clone(), batch, bytes: entry.len };
                if let Some(older) = seals.insert(batch, kept) {
                    self.unlink(&folder.join(older.seal_name()))?;
                }
            }
            for entry in &entries {
                let batch = parse(&entry.name).and_then(|(batch, _)| seals.get_mut(&batch));
                match batch {
                    Some(kept) if !entry.name.ends_with(SEAL) => kept.bytes += entry.len,
                    Some(_) => {}
                    None => _ = found.strays.insert(folder.join(&entry.name)),
                }
            }
            found.batches.extend(seals.into_values());
        }
        Ok(found)
    }

    /// A batch's seal, as it was archived.
    pub(crate) fn seal(&self, kept: &KeptBatch) -> io::Result<(Vec<u8>, Seal)> {
        let note = disk::read_file(&*self.disk, &self.seal_path(kept), MAX_SEAL_BYTES)?;
        let sealed = parsed(&note)?;
        if sealed.origin.epoch() != kept.epoch || sealed.batch != kept.batch {
            return Err(io::Error::other("its seal is another batch's"));
        }
        Ok((note, sealed))
    }

    /// Where the seal is.
    pub(crate) fn seal_path(&self, kept: &KeptBatch) -> PathBuf {
        self.folder(&kept.epoch).join(kept.seal_name())
    }

    /// Where a file of the batch is.
    pub(crate) fn path(&self, kept: &KeptBatch, file: &str) -> PathBuf {
        self.folder(&kept.epoch).join(file)
    }

    /// Removes a batch, its seal first: files without one are strays.
    pub(crate) fn remove(&self, kept: &KeptBatch) -> io::Result<()> {
        let sealed = self.seal(kept);
        self.unlink(&self.seal_path(kept))?;
        // Files of a seal that cannot be read are strays from now on.
        for file in sealed.iter().flat_map(|(_, sealed)| &sealed.files) {
            self.unlink(&self.path(kept, &file.name))?;
        }
        Ok(())
    }

    pub(crate) fn unlink(&self, path: &Path) -> io::Result<()> {
        match self.disk.unlink(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn parsed(note: &[u8]) -> io::Result<Seal> {
    seal::parse_unverified(note).map_err(|error| io::Error::other(error.to_string()))
}
