//! A sink that is behind what is kept: what it waits for, what it is told that it misses, and what it is not.

use std::sync::atomic::AtomicU64;

use super::super::asking::Asking;
use super::super::folder::{Position, Positions, TapFolder};
use super::super::log::{Log, Places, Read};
use super::super::rows::Cache;
use super::disk::Grudging;
use super::*;
use crate::disk::Disk as _;

/// A directory store that takes nothing while it is shut, and counts how often it is listed.
#[derive(Debug)]
struct Gate {
    store: DirectoryStore,
    is_open: AtomicBool,
    lists: AtomicU64,
}

impl Gate {
    fn new(store: DirectoryStore) -> Arc<Self> {
        Arc::new(Self { store, is_open: AtomicBool::new(false), lists: AtomicU64::new(0) })
    }
}

impl Store for Gate {
    fn put(
        &self,
        name: &schemas::ObjectName,
        source: crate::store::Source<'_>,
    ) -> Result<crate::store::Put, crate::StoreError> {
        let shut = Instant::now();
        while !self.is_open.load(Ordering::Relaxed) && shut.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.store.put(name, source)
    }
    fn confirm(
        &self,
        name: &schemas::ObjectName,
        source: crate::store::Source<'_>,
    ) -> Result<crate::store::Receipt, crate::StoreError> {
        self.store.confirm(name, source)
    }
    fn get(
        &self,
        name: &schemas::ObjectName,
    ) -> Result<Option<Arc<dyn crate::disk::DiskFile>>, crate::StoreError> {
        self.store.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<schemas::ObjectName>, crate::StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.store.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, crate::StoreError> {
        self.store.logs(deployment, gateway)
    }
    fn local_folder(&self) -> Option<&Path> {
        self.store.local_folder()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_into_the_store_is_waited_for_without_asking_the_store_again_and_again() {
    let bed = Bed { keep_bytes: Some(0), ..Bed::new() };
    bed.refuse(true);
    let store = Gate::new(bed.store());
    let ledger = bed.open_with(store.clone());
    let origin = ledger.origin().clone();
    // Several batches: the sink may have one of them in its hands.
    for _ in 0..4 {
        append(&ledger, 10).await;
        let sealed = ledger.watermarks().journaled;
        until("it is sealed", || ledger.watermarks().sealed >= sealed);
    }
    until("nothing is kept", || kept(bed.dir.path()) == 0);
    let first = ledger.watermarks().sealed;
    bed.refuse(false);
    // Traffic goes on: there is always something kept that is newer.
    let before = store.lists.load(Ordering::Relaxed);
    let mut batches = 0;
    for _ in 0..40 {
        append(&ledger, 5).await;
        batches += 1;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(bed.missed().is_empty(), "{:?}", bed.missed());
    let came = bed.positions(&origin);
    assert!(came.iter().copied().eq(0..came.len() as u64) && (came.len() as u64) < first, "{came:?}");
    assert_eq!(store.lists.load(Ordering::Relaxed), before, "nothing can be there yet");
    store.is_open.store(true, Ordering::Relaxed);
    let end = ledger.watermarks().journaled;
    until("all comes out of the store", || bed.positions(&origin).len() as u64 >= end);
    assert_eq!(bed.positions(&origin), (0..end).collect::<Vec<_>>());
    assert!(bed.missed().is_empty(), "{:?}", bed.missed());
    let lists = store.lists.load(Ordering::Relaxed) - before;
    assert!(lists < 10, "{lists} listings for some {batches} batches in a row");
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_while_no_tap_was_configured_is_told_of() {
    let bed = Bed::new();
    bed.refuse(true);
    let store = || Arc::new(OneWay(bed.store()));
    let ledger = bed.open_with(store());
    let origin = ledger.origin().clone();
    append(&ledger, 20).await;
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    let end = archived(&bed, &origin).len() as u64;
    let bed = Bed { keep_bytes: None, ..bed };
    let store = || Arc::new(OneWay(bed.store()));
    let without = bed.open_with(store());
    assert_eq!(kept(bed.dir.path()), 0);
    without.halt();
    drop(without);
    let bed = Bed { keep_bytes: Some(64 << 20), ..bed };
    let ledger = bed.open_with(Arc::new(OneWay(bed.store())));
    until("that the log waits is known", || bed.figures.counts().behind >= end);
    bed.refuse(false);
    until("the notice comes", || !bed.missed().is_empty());
    let missed: Vec<_> = bed.taken.items.lock().unwrap().clone();
    let missed: Vec<_> = missed.iter().filter(|item| *item.origin() == origin).collect();
    let [TapItem::Missed(notice)] = &missed[..] else { panic!("{missed:?}") };
    assert_eq!((notice.from, notice.to), (0, None));
    until("its folder goes", || !bed.folder(&origin).exists());
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_log_of_which_all_that_was_kept_went_is_behind_by_what_it_had() {
    let bed = Bed { keep_bytes: Some(0), ..Bed::new() };
    bed.refuse(true);
    let ledger = bed.open_with(Arc::new(OneWay(bed.store())));
    let origin = ledger.origin().clone();
    append(&ledger, 30).await;
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    let end = archived(&bed, &origin).len() as u64;
    let next = bed.open_with(Arc::new(OneWay(bed.store())));
    until("nothing is kept", || kept(bed.dir.path()) == 0);
    until("it is counted", || bed.figures.counts().behind >= end);
    bed.refuse(false);
    until("the notice comes", || !bed.missed().is_empty());
    next.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_damaged_where_they_are_kept_come_out_of_the_store() {
    let bed = Bed::new();
    bed.refuse(true);
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    append(&ledger, 30).await;
    let end = ledger.watermarks().journaled;
    assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    for path in kept_in(&bed.folder(&origin)) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    bed.refuse(false);
    until("all comes", || bed.positions(&origin).len() as u64 >= end);
    assert_eq!(bed.positions(&origin)[..usize::try_from(end).unwrap()], (0..end).collect::<Vec<_>>());
    assert!(bed.missed().is_empty(), "{:?}", bed.missed());
    ledger.halt();
}

/// A closed log of a few batches, of which the folder of the tap has nothing: its parts, and what is in the store.
pub(super) async fn closed(bed: &Bed) -> (Origin, Vec<std::path::PathBuf>) {
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    for _ in 0..3 {
        append(&ledger, 10).await;
        let end = ledger.watermarks().journaled;
        assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    }
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    let stored = bed.dir.path().join("store").join(origin.as_str());
    let mut files: Vec<_> = std::fs::read_dir(stored).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::create_dir_all(bed.folder(&origin)).unwrap();
    (origin, files)
}

fn log_of(
    bed: &Bed,
    origin: &Origin,
    store: Arc<dyn Store>,
    others: &[(&str, Position)],
    sinks: &[&str],
) -> Log {
    let folder = TapFolder { disk: Arc::clone(&bed.disk), path: bed.folder(origin) };
    let lock = RealDisk.lock(&folder.path.join("lock")).unwrap().unwrap();
    let places = Places {
        disk: Arc::clone(&bed.disk),
        journal_dir: bed.dir.path().join("journal"),
        spool_dir: bed.dir.path().join("spool"),
        store,
        seal_keys: vec![schemas::note::Signer::public_key(&schemas::note::Ed25519Signer::from_seed([7; 32]))],
    };
    let sinks: Vec<String> = sinks.iter().map(|sink| (*sink).to_owned()).collect();
    let others = others.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
    let positions = Positions { origin: origin.clone(), sinks: others, end: None };
    Log::new(places, folder, lock, positions, &sinks, None).unwrap()
}

fn at(log: &Log, position: u64) -> Read {
    let (mut cache, mut asking) = (Cache::default(), Asking::default());
    loop {
        match log.read(position, &mut cache, &mut asking).unwrap() {
            Read::Waits => std::thread::sleep(Duration::from_millis(5)),
            read => return read,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_threads_see_of_the_folder_at_once_stays_kept() {
    let disk = Arc::new(Grudging::default());
    let bed = Bed { disk: disk.clone(), ..Bed::new() };
    let (origin, files) = closed(&bed).await;
    let log = log_of(&bed, &origin, Arc::new(bed.store()), &[], &[]);
    assert_eq!(log.kept_bytes(), 0);
    *disk.slow_list.lock().unwrap() = Some(Duration::from_millis(400));
    std::thread::scope(|scope| {
        // Has listed the folder, and does not know it yet.
        scope.spawn(|| log.look().unwrap());
        std::thread::sleep(Duration::from_millis(150));
        for file in &files {
            std::fs::copy(file, bed.folder(&origin).join(file.file_name().unwrap())).unwrap();
        }
        log.look().unwrap();
        assert!(log.kept_bytes() > 0);
    });
    assert!(log.kept_bytes() > 0, "what came meanwhile went again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_still_being_closed_misses_nothing_and_one_that_never_was_says_nothing() {
    let bed = Bed::new();
    let (origin, files) = closed(&bed).await;
    let end = archived(&bed, &origin).len() as u64;
    let log = log_of(&bed, &origin, Arc::new(OneWay(bed.store())), &[], &[]);
    for folder in [
        format!("journal/{}", origin.epoch()),
        format!("spool/{}", origin.epoch()),
        format!("journal/closing/{}/{}", origin.gateway(), origin.epoch()),
    ] {
        let folder = bed.dir.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let read = at(&log, 0);
        assert!(matches!(read, Read::Nothing), "{folder:?}: {read:?}");
        std::fs::remove_dir(&folder).unwrap();
    }
    let read = at(&log, 0);
    assert!(matches!(read, Read::Missed(None)), "{read:?}");
    drop(log);
    // A store that gives it back; behind its end there is nothing.
    let log = log_of(&bed, &origin, Arc::new(bed.store()), &[], &[]);
    assert!(matches!(at(&log, 0), Read::Leaves(_)));
    assert!(matches!(at(&log, end), Read::Ended));
    drop(log);
    // One batch of the store is gone: what is behind it is not missed with it.
    let seals: Vec<_> = files.iter().filter(|file| file.to_string_lossy().ends_with(".seal")).collect();
    let second = schemas::seal::parse_unverified(&std::fs::read(seals[1]).unwrap()).unwrap();
    std::fs::remove_file(seals[1]).unwrap();
    let log = log_of(&bed, &origin, Arc::new(bed.store()), &[], &[]);
    let read = at(&log, second.from);
    assert!(matches!(read, Read::Missed(Some(to)) if to == second.to), "{read:?}");
    drop(log);
    // No record was ever journaled.
    let never = Origin::new("acme/gw1/20200101t000000z-00000000").unwrap();
    std::fs::create_dir_all(bed.folder(&never)).unwrap();
    let log = log_of(&bed, &never, Arc::new(bed.store()), &[], &[]);
    assert!(matches!(at(&log, 0), Read::Ended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_sink_begins_with_what_is_kept_or_where_the_others_are() {
    let bed = Bed::new();
    let (origin, files) = closed(&bed).await;
    let others = [("a", Position { next: 12, ended: false }), ("b", Position { next: 20, ended: true })];
    let store = || Arc::new(bed.store());
    let log = log_of(&bed, &origin, store(), &others, &["a", "new"]);
    assert_eq!(log.position("new"), others[0].1);
    drop(log);
    let log = log_of(&bed, &origin, store(), &others[1..], &["new"]);
    assert!(log.position("new").ended);
    drop(log);
    for file in files.iter().filter(|file| !file.to_string_lossy().contains("0000000000")) {
        std::fs::copy(file, bed.folder(&origin).join(file.file_name().unwrap())).unwrap();
    }
    let log = log_of(&bed, &origin, store(), &others, &["new"]);
    let first = log.position("new");
    assert!(first.next > 0 && !first.ended, "{first:?}");
}
