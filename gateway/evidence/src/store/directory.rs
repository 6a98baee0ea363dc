//! A directory as store: create-only by `link(2)`, read-only by mode.
//!
//! ```text
//! put = write <root>/.tmp/<random>, fsync, chmod 0444, link to <root>/<origin>/<name>, fsync the folder, unlink
//! ```
//! A name that is taken keeps its bytes: equal ones are success, others the alarm. New folders are made durable in
//! their parents before anything is linked into them. What a crash leaves in `.tmp` is nobody's object and is removed
//! by the next open.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::{ObjectName, Origin, Sha256Hex};

use super::{Put, Receipt, Source, Store, StoreError, hash_file};
use crate::disk::{self, DiskFile, SharedDisk};

const TEMPORARY: &str = ".tmp";

/// Objects as files below one folder.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    disk: SharedDisk,
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens the store below `root`, and makes the folder where it is missing.
    ///
    /// # Errors
    /// As the disk says.
    pub fn open(disk: SharedDisk, root: &Path) -> io::Result<Self> {
        let store = Self { disk, root: root.to_owned() };
        disk::create_dir_all(&*store.disk, &store.root)?;
        store.make_temporary()?;
        Ok(store)
    }

    /// The store below `root`, to be read: nothing is made, and one that is not there holds nothing.
    pub fn to_read(disk: SharedDisk, root: &Path) -> Self {
        Self { disk, root: root.to_owned() }
    }

    /// Makes the folder for temporary files where it is missing. Only what it is in need be durable: nothing in it is.
    ///
    /// The store's own folder is made by [`Self::open`] alone: one that went (a mount that is gone) is not begun anew
    /// where it was.
    fn make_temporary(&self) -> io::Result<()> {
        disk::create_dir(&*self.disk, &self.root.join(TEMPORARY))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.origin().as_str()).join(name.file_name())
    }

    /// Copies the source to a temporary file, checking it on the way.
    fn copy(&self, from: Source<'_>, to: &Path) -> Result<(), StoreError> {
        let failed = |action, path: &Path| {
            let name = path.display().to_string();
            move |error: io::Error| sort(action, name, error)
        };
        let source = self.disk.open_read(from.path).map_err(failed("cannot open", from.path))?;
        let file = self.disk.create(to).map_err(failed("cannot create", to))?;
        let mut buffer = vec![0; 256 << 10];
        let (mut offset, mut hasher) = (0, schemas::digest::Hasher::default());
        loop {
            let count =
                disk::read_full(&*source, &mut buffer, offset).map_err(failed("cannot read", from.path))?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            file.write_at(&[IoSlice::new(bytes)], offset).map_err(failed("cannot write", to))?;
            offset += count as u64;
        }
        let found = hasher.finish();
        if found != *from.sha256 || offset != from.length {
            let path = from.path.display().to_string();
            return Err(StoreError::Source { path, expected: *from.sha256, found });
        }
        file.sync_data().map_err(failed("cannot sync", to))?;
        self.disk.set_read_only(to).map_err(failed("cannot protect", to))
    }

    fn there(&self, name: &ObjectName, sha256: &Sha256Hex) -> Result<Option<Put>, StoreError> {
        let Some(file) = self.get(name)? else { return Ok(None) };
        let (_, found) = hash_file(&*file).map_err(|error| sort("cannot read", name.to_string(), error))?;
        if found == *sha256 {
            // An earlier try may have died before it made the name durable.
            let folder = self.root.join(name.origin().as_str());
            self.disk.sync_dir(&folder).map_err(|error| sort("cannot sync", name.to_string(), error))?;
            Ok(Some(Put::AlreadyThere))
        } else {
            Err(StoreError::Taken { name: name.to_string(), expected: *sha256, found })
        }
    }
}

fn sort(action: &'static str, name: String, source: io::Error) -> StoreError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return StoreError::Full(source);
    }
    StoreError::Io { action, name, source }
}

impl Store for DirectoryStore {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        if let Some(put) = self.there(name, source.sha256)? {
            return Ok(put);
        }
        let path = self.path(name);
        let folder = disk::parent(&path);
        let failed = |action| move |error: io::Error| sort(action, name.to_string(), error);
        self.make_temporary().map_err(failed("cannot make `.tmp` for"))?;
        disk::create_dir_all(&*self.disk, folder).map_err(failed("cannot make the folder of"))?;
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| {
            sort("no random bytes for", name.to_string(), io::Error::other("the system gives none"))
        })?;
        let temporary = self.root.join(TEMPORARY).join(hex::encode(random));
        let linked = self.copy(source, &temporary).and_then(|()| match self.disk.link(&temporary, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true).map_err(failed("cannot link")),
        });
        if linked.is_ok() {
            self.disk.sync_dir(folder).map_err(failed("cannot sync the folder of"))?;
        }
        // Left-over temporary files are harmless; their removal is not worth a failed put.
        let _ = self.disk.unlink(&temporary);
        if linked? {
            return Ok(Put::Stored);
        }
        match self.there(name, source.sha256)? {
            Some(put) => Ok(put),
            None => Err(sort("cannot link", name.to_string(), io::ErrorKind::NotFound.into())),
        }
    }

    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        let wrong = |found: String| StoreError::ReadBack { name: name.to_string(), found };
        let Some(file) = self.get(name)? else {
            // A folder that is not there says nothing about what is in it.
            let root = || self.root.display().to_string();
            return match self.disk.entry(&self.root).map_err(|error| sort("cannot look at", root(), error))? {
                Some(_) => Err(wrong("nothing".into())),
                None => Err(sort("cannot find", root(), io::ErrorKind::NotFound.into())),
            };
        };
        let (length, found) =
            hash_file(&*file).map_err(|error| sort("cannot read", name.to_string(), error))?;
        if (length, &found) == (source.length, source.sha256) {
            return Ok(Receipt::default());
        }
        Err(wrong(format!("{length} bytes with SHA-256 {found}")))
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        match self.disk.open_read(&self.path(name)) {
            Ok(file) => Ok(Some(file.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(sort("cannot open", name.to_string(), error)),
        }
    }

    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        let folder = self.root.join(origin.as_str());
        match self.disk.list(&folder) {
            Ok(entries) => Ok(entries
                .iter()
                .filter(|entry| !entry.is_dir)
                .filter_map(|entry| ObjectName::parse_file(origin, &entry.name).ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(sort("cannot list", folder.display().to_string(), error)),
        }
    }

    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        let folder = self.root.join(deployment).join(gateway);
        match self.disk.list(&folder) {
            Ok(entries) => Ok(entries
                .iter()
                .filter(|entry| entry.is_dir)
                .filter_map(|entry| Origin::join(deployment, gateway, &entry.name).ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(sort("cannot list", folder.display().to_string(), error)),
        }
    }

    fn local_folder(&self) -> Option<&Path> {
        Some(&self.root)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::RealDisk;

    fn name(batch: u64) -> ObjectName {
        ObjectName::Seal { origin: Origin::new("acme/gw1/e1").unwrap(), batch }
    }

    fn put(store: &DirectoryStore, dir: &Path, batch: u64, bytes: &[u8]) -> Result<Put, StoreError> {
        let path = dir.join("source");
        std::fs::write(&path, bytes).unwrap();
        let sha256 = Sha256Hex::of(bytes);
        store.put(
            &name(batch),
            Source { path: &path, sha256: &sha256, length: bytes.len() as u64, sealed_us: 0 },
        )
    }

    #[test]
    fn a_name_keeps_its_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(Arc::new(RealDisk), &dir.path().join("out")).unwrap();
        assert_eq!(put(&store, dir.path(), 0, b"one").unwrap(), Put::Stored);
        assert_eq!(put(&store, dir.path(), 0, b"one").unwrap(), Put::AlreadyThere);
        assert!(matches!(put(&store, dir.path(), 0, b"two"), Err(StoreError::Taken { .. })));
        let found = super::super::read_object(&store, &name(0), 100).unwrap().unwrap();
        assert_eq!(&found[..], b"one");
        assert_eq!(store.list(name(0).origin()).unwrap(), vec![name(0)]);
        assert_eq!(store.logs("acme", "gw1").unwrap(), vec![Origin::new("acme/gw1/e1").unwrap()]);
        assert!(super::super::read_object(&store, &name(1), 100).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path().join("out/.tmp")).unwrap().count(), 0);
    }

    #[test]
    fn objects_are_read_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(Arc::new(RealDisk), &dir.path().join("out")).unwrap();
        put(&store, dir.path(), 0, b"one").unwrap();
        let mode = std::fs::metadata(store.path(&name(0))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }

    #[test]
    fn a_source_that_is_not_what_it_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(Arc::new(RealDisk), &dir.path().join("out")).unwrap();
        let path = dir.path().join("source");
        std::fs::write(&path, b"other").unwrap();
        let source = Source { path: &path, sha256: &Sha256Hex::of(b"one"), length: 3, sealed_us: 0 };
        assert!(matches!(store.put(&name(0), source), Err(StoreError::Source { .. })));
        assert!(store.get(&name(0)).unwrap().is_none());
    }

    #[test]
    fn what_is_not_there_or_other_is_not_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(Arc::new(RealDisk), &dir.path().join("out")).unwrap();
        put(&store, dir.path(), 0, b"one").unwrap();
        let confirm = |batch, bytes: &[u8]| {
            let sha256 = Sha256Hex::of(bytes);
            let length = bytes.len() as u64;
            store.confirm(&name(batch), Source { path: dir.path(), sha256: &sha256, length, sealed_us: 0 })
        };
        assert_eq!(confirm(0, b"one").unwrap(), Receipt::default());
        assert!(matches!(confirm(0, b"two"), Err(StoreError::ReadBack { .. })));
        assert!(matches!(confirm(1, b"one"), Err(StoreError::ReadBack { .. })));
    }

    #[test]
    fn a_folder_that_is_gone_is_waited_for_and_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (root, away) = (dir.path().join("out"), dir.path().join("away"));
        let store = DirectoryStore::open(Arc::new(RealDisk), &root).unwrap();
        put(&store, dir.path(), 0, b"one").unwrap();
        std::fs::rename(&root, &away).unwrap();
        let sha256 = Sha256Hex::of(b"one");
        let source = || Source { path: dir.path(), sha256: &sha256, length: 3, sealed_us: 0 };
        let error = store.confirm(&name(0), source()).unwrap_err();
        assert!(error.is_transient(), "{error}");
        let error = put(&store, dir.path(), 1, b"two").unwrap_err();
        assert!(error.is_transient() && !root.exists(), "{error}");
        std::fs::rename(&away, &root).unwrap();
        assert_eq!(store.confirm(&name(0), source()).unwrap(), Receipt::default());
        assert_eq!(put(&store, dir.path(), 1, b"two").unwrap(), Put::Stored);
    }
}
