//! A store that can be shut.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evidence::disk::DiskFile;
use evidence::store::{Put, Receipt, Source};
use evidence::{DirectoryStore, Store, StoreError};
use schemas::{ObjectName, Origin};

use super::Bed;

/// A directory store that can be out of reach for puts.
#[derive(Debug)]
pub struct Gate {
    inner: Arc<DirectoryStore>,
    shut: Arc<AtomicBool>,
}

impl Gate {
    pub fn of(bed: &Bed) -> (Arc<dyn Store>, Arc<AtomicBool>) {
        let shut = Arc::new(AtomicBool::new(true));
        (Arc::new(Self { inner: bed.store(), shut: shut.clone() }), shut)
    }
}

impl Store for Gate {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        if self.shut.load(Ordering::Relaxed) {
            let source = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(StoreError::Io { action: "cannot put", name: name.to_string(), source });
        }
        self.inner.put(name, source)
    }
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.inner.confirm(name, source)
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        self.inner.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.inner.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        self.inner.logs(deployment, gateway)
    }
    fn local_folder(&self) -> Option<&Path> {
        self.inner.local_folder()
    }
}
