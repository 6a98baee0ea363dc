//! Several registrars over one store, and what a round waits for.

use std::sync::Mutex;

use super::*;
use crate::disk::DiskFile;
use crate::store::{Put, Receipt, StoreError};

type Hook = Box<dyn FnOnce() + Send>;

/// A store that does something, once, before it lists the logs.
struct Meanwhile {
    store: Arc<DirectoryStore>,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Meanwhile {
    fn over(place: &Place) -> Arc<Self> {
        Arc::new(Self { store: place.store.clone(), hook: Mutex::default() })
    }

    fn does(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

impl Store for Meanwhile {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.store.put(name, source)
    }
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.store.confirm(name, source)
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        self.store.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.store.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.store.logs(deployment, gateway)
    }
    fn local_folder(&self) -> Option<&Path> {
        self.store.local_folder()
    }
}

#[test]
fn of_two_registrars_one_works_and_the_other_takes_over() {
    let place = Place::new();
    place.add(10);
    let (mut first, mut second) = (place.registrar("a"), place.registrar("b"));
    settle(&mut first);
    assert_eq!(second.round().unwrap(), Round::Idle);
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    // Both derive from the same state; the name of the seal lets one pass.
    let (mine, theirs) = (first.derive().unwrap(), second.derive().unwrap());
    assert!(first.write(&mine).unwrap());
    place.clock.advance(SECOND);
    assert!(!second.write(&theirs).unwrap());
    first.put_checkpoint().unwrap();
    second.standing_by = true;
    assert_eq!(second.round().unwrap(), Round::Idle, "the work is done");
    log.beat();
    assert_eq!(second.round().unwrap(), Round::StandingBy);
    settle(&mut first);
    assert_eq!(second.round().unwrap(), Round::Idle);
    // The first dies.
    drop(first);
    log.beat();
    assert_eq!(second.round().unwrap(), Round::StandingBy);
    place.clock.advance(16 * SECOND);
    assert_eq!(second.round().unwrap(), Round::Stored(1));
    log.close();
    assert_eq!(second.round().unwrap(), Round::Stored(2), "it is the one that works now");
    let heads = place.kinds().iter().filter(|kind| *kind == "log_head").count();
    assert_eq!(heads, 4, "nothing twice, nothing left out");
}

#[test]
fn what_was_derived_from_an_old_state_is_not_put() {
    let place = Place::new();
    place.add(10);
    let meanwhile = Meanwhile::over(&place);
    let (mut first, mut second) = (place.registrar("a"), place.registrar_on(meanwhile.clone(), "b"));
    settle(&mut first);
    assert_eq!(second.round().unwrap(), Round::Idle);
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    // The one that stands by has waited long enough; while it looks at the logs the first, which only was slow, writes.
    second.standing_by = true;
    assert_eq!(second.round().unwrap(), Round::StandingBy);
    place.clock.advance(16 * SECOND);
    let slow = std::sync::mpsc::sync_channel(1);
    meanwhile.does(move || {
        settle(&mut first);
        slow.0.send(first).unwrap();
    });
    assert_eq!(second.round().unwrap(), Round::Refused);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "log_head"]);
    let files = place.registry("");
    let sealed = files.iter().filter(|name| name.ends_with(".seal")).count();
    let records = files.iter().filter(|name| name.ends_with(".records.parquet")).count();
    assert_eq!(records, sealed, "not even a file that no seal names: {files:?}");
    // It stands by, and takes over from what is there then once the first has died.
    drop(slow.1.recv().unwrap());
    log.beat();
    assert_eq!(second.round().unwrap(), Round::StandingBy);
    place.clock.advance(16 * SECOND);
    assert_eq!(second.round().unwrap(), Round::Stored(1));
    let heads = place.kinds().iter().filter(|kind| *kind == "log_head").count();
    assert_eq!(heads, 2, "nothing twice, nothing left out");
}

#[test]
fn one_whose_answer_was_lost_does_not_take_its_own_batch_for_another_registrar_s() {
    let place = Place::new();
    let mut registrar = place.registrar("a");
    let entries = registrar.derive().unwrap();
    // As after a put that came through and whose answer did not: the batch is there, and it does not know.
    let (state, tree) = (registrar.state.clone(), registrar.tree.clone());
    assert!(registrar.write(&entries).unwrap());
    (registrar.state, registrar.tree, registrar.tail) = (state, tree, None);
    registrar.waiting_since = Some(0);
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    assert!(!registrar.standing_by);
}

#[test]
fn what_a_round_waited_for_is_known() {
    let place = Place::new();
    place.add(10);
    let meanwhile = Meanwhile::over(&place);
    let mut registrar = place.registrar_on(meanwhile.clone(), "a");
    let waits = registrar.waits();
    let seen = Arc::new(Mutex::new(None));
    let (asked, told) = (waits.clone(), seen.clone());
    meanwhile.does(move || {
        std::thread::sleep(Duration::from_millis(300));
        *told.lock().unwrap() = asked.running();
    });
    registrar.round().unwrap();
    let (what, since) = seen.lock().unwrap().take().unwrap();
    assert_eq!(what, "list `acme/gw1`");
    assert!(since >= Duration::from_millis(300));
    let spent = waits.spent();
    let (longest, took) = spent.longest.unwrap();
    assert_eq!((longest.as_str(), waits.running()), ("list `acme/gw1`", None));
    assert!(spent.calls > 3 && spent.total >= took && took >= Duration::from_millis(300));
}
