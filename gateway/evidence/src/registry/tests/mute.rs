//! A store that finds objects, and fails while it sends them.

use std::io::{self, IoSlice};
use std::sync::Mutex;

use super::*;
use crate::disk::DiskFile;
use crate::store::{Put, Receipt, StoreError, Trouble};

/// Does not send objects whose names begin so.
#[derive(Debug)]
struct Mute {
    store: Arc<DirectoryStore>,
    about: Mutex<Option<&'static str>>,
}

#[derive(Debug)]
struct Unsent(Arc<dyn DiskFile>);

impl DiskFile for Unsent {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(Trouble::Unavailable.of_read("status 503".into()))
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(parts, offset)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Store for Mute {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.store.put(name, source)
    }
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.store.confirm(name, source)
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let about = *self.about.lock().unwrap();
        let is_mute = about.is_some_and(|about| name.to_string().starts_with(about));
        let found = self.store.get(name)?;
        Ok(found.map(|file| -> Arc<dyn DiskFile> {
            if is_mute { Arc::new(Unsent(file)) } else { file }
        }))
    }
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.store.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        self.store.logs(deployment, gateway)
    }
    fn local_folder(&self) -> Option<&Path> {
        self.store.local_folder()
    }
}

#[test]
fn a_store_that_fails_while_it_sends_an_object_accuses_nobody() {
    let place = Place::new();
    place.add(10);
    settle(&mut place.registrar("a"));
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    let store = Arc::new(Mute { store: place.store.clone(), about: Mutex::new(Some("acme/registry/")) });
    let mut registrar = place.registrar_on(store.clone(), "b");
    let error = registrar.round().unwrap_err();
    assert!(matches!(&error, RegistrarError::Store(error) if error.passes()), "{error}");
    assert_eq!(registrar.set_aside(), 0);
    // An object of a log holds up nothing else, and counts once it comes.
    *store.about.lock().unwrap() = Some("acme/gw1/");
    for _ in 0..3 {
        assert!(registrar.round().is_ok());
    }
    assert!(registrar.warned.iter().all(|thing| thing.ends_with(", for now")), "{:?}", registrar.warned);
    *store.about.lock().unwrap() = None;
    settle(&mut registrar);
    assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().1.size, 1);
}
