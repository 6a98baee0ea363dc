//! What sinks get: of a running log, of one whose process died, behind what is kept, and out of the store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod behind;
mod disk;
mod house;
mod trouble;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use schemas::Identifier;
use schemas::record::{Admin, CloseReason};
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use crate::disk::{RealDisk, SharedDisk};
use crate::ledger::{Ledger, LedgerConfig, Reference};
use crate::store::{DirectoryStore, Store};

/// What a sink took, and whether it takes now.
#[derive(Default)]
struct Taken {
    items: Mutex<Vec<TapItem>>,
    refuses: AtomicBool,
    /// Confirms only what was sent before this is set.
    confirms: AtomicBool,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Test(Arc<Taken>);

impl Sink for Test {
    fn send(&mut self, items: &[TapItem], _stop: &Stop) -> Result<(), SinkError> {
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(SinkError::new("refused", "not now"));
        }
        self.0.items.lock().unwrap().extend(items.iter().cloned());
        Ok(())
    }

    fn confirm(&mut self, now: bool, _stop: &Stop) -> Result<bool, SinkError> {
        Ok(now || self.0.confirms.load(Ordering::Relaxed))
    }
}

struct Bed {
    dir: TempDir,
    taken: Arc<Taken>,
    /// `None`: no tap is configured.
    keep_bytes: Option<u64>,
    figures: Arc<SinkFigures>,
    disk: SharedDisk,
}

impl Bed {
    fn new() -> Self {
        let taken = Arc::new(Taken::default());
        taken.confirms.store(true, Ordering::Relaxed);
        Self {
            dir: tempfile::tempdir().unwrap(),
            taken,
            keep_bytes: Some(64 << 20),
            figures: Arc::default(),
            disk: Arc::new(RealDisk),
        }
    }

    fn store(&self) -> DirectoryStore {
        DirectoryStore::open(Arc::new(RealDisk), &self.dir.path().join("store")).unwrap()
    }

    fn open(&self) -> Ledger {
        self.open_with(Arc::new(self.store()))
    }

    fn open_with(&self, store: Arc<dyn Store>) -> Ledger {
        let taken = Arc::clone(&self.taken);
        self.open_to(store, Arc::new(move || Box::new(Test(Arc::clone(&taken)))))
    }

    fn open_to(&self, store: Arc<dyn Store>, open: OpenSink) -> Ledger {
        let sink = TapSink {
            name: "siem".into(),
            wanted: Arc::new(|_| true),
            open,
            figures: Arc::clone(&self.figures),
        };
        let id = |text: &str| Identifier::new(text).unwrap();
        let folder = |name: &str| self.dir.path().join(name);
        Ledger::open(LedgerConfig {
            registry: None,
            deployment: "acme".into(),
            gateway: "gw1".into(),
            journal_dir: folder("journal"),
            spool_dir: folder("spool"),
            key_table_dir: folder("keys"),
            store,
            commit: None,
            seal_seed: [7; 32],
            promise_seed: None,
            closing: Vec::new(),
            operator: None,
            batch_age: Duration::from_millis(50),
            batch_bytes: 8 << 20,
            heartbeat_bound: Duration::from_secs(300),
            segment_bytes: 1 << 20,
            spool_bound_bytes: 1 << 30,
            spool_keep: Duration::ZERO,
            encryption: false,
            accept_loss: false,
            gateway_version: id("0.1.0"),
            binary_sha256: None,
            config: Reference { media_type: id("application/yaml"), bytes: Bytes::from_static(b"a: b\n") },
            policy: None,
            price_book: None,
            counters: Arc::new(BTreeMap::new),
            disk: Arc::clone(&self.disk),
            clock: Arc::new(SystemClock),
            store_wait: Duration::ZERO,
            stop: Stop::default(),
            tap: self.keep_bytes.map(|keep_bytes| Arc::new(Tap { sinks: vec![sink], keep_bytes })),
        })
        .unwrap()
    }

    /// What came, as `(epoch number, position or range)`, duplicates left out.
    fn came(&self) -> Vec<(Origin, u64)> {
        let mut seen = Vec::new();
        for item in self.taken.items.lock().unwrap().iter() {
            let at = (item.origin().clone(), item.position());
            if !seen.contains(&at) {
                seen.push(at);
            }
        }
        seen
    }

    fn missed(&self) -> Vec<(u64, Option<u64>)> {
        let items = self.taken.items.lock().unwrap();
        let missed = |item: &TapItem| match item {
            TapItem::Missed(missed) => Some((missed.from, missed.to)),
            TapItem::Leaf(_) => None,
        };
        items.iter().filter_map(missed).collect()
    }

    /// The folder of a log below `spool/tap`.
    fn folder(&self, origin: &Origin) -> std::path::PathBuf {
        self.dir.path().join("spool/tap").join(origin.epoch())
    }

    fn positions(&self, origin: &Origin) -> Vec<u64> {
        self.came().into_iter().filter(|(from, _)| from == origin).map(|(_, at)| at).collect()
    }

    fn refuse(&self, refuses: bool) {
        self.taken.refuses.store(refuses, Ordering::Relaxed);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn append(ledger: &Ledger, count: u64) {
    for n in 0..count {
        let object = Identifier::new(format!("n-{n}")).unwrap();
        let action = Identifier::new("key_issued").unwrap();
        ledger.admin(Admin { action, actor: None, object: Some(object) }).await.unwrap();
    }
}

fn kept(dir: &Path) -> usize {
    let logs = std::fs::read_dir(dir.join("spool/tap")).unwrap().map(|log| log.unwrap().path());
    logs.map(|log| kept_in(&log).len()).sum()
}

/// The records files in the folder of a log.
fn kept_in(log: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(log).into_iter().flatten().map(|file| file.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".records.parquet")).collect()
}

/// The journal's leaves of an archived log, out of the directory store.
fn archived(bed: &Bed, origin: &Origin) -> Vec<Sha256Hex> {
    let folder = bed.dir.path().join("store").join(origin.as_str());
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut hashes = Vec::new();
    for file in files.iter().filter(|file| file.to_string_lossy().ends_with(".records.parquet")) {
        let bytes = std::fs::read(file).unwrap().into();
        let records = schemas::files::read_records(&bytes, &schemas::files::Limits::default()).unwrap();
        hashes.extend(records.rows.into_iter().map(|row| row.hash));
    }
    hashes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_gets_all_of_a_log_in_order_with_the_hashes_of_the_evidence_and_nothing_is_kept_behind_it() {
    let bed = Bed::new();
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    append(&ledger, 300).await;
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    let expected = archived(&bed, &origin);
    assert_eq!(bed.positions(&origin), (0..expected.len() as u64).collect::<Vec<_>>());
    let items = bed.taken.items.lock().unwrap().clone();
    for item in &items {
        let TapItem::Leaf(leaf) = item else { panic!("{item:?}") };
        assert_eq!(leaf.hash, expected[usize::try_from(leaf.position).unwrap()]);
        assert_eq!(schemas::leaf::hash(&leaf.bytes), leaf.hash);
    }
    assert_eq!(items.last().unwrap().kind(), "close");
    assert_eq!(bed.figures.counts().sent, items.len() as u64);
    // The next process has nothing to send again, and clears up.
    let next = bed.open();
    until("the old log's folder goes", || !bed.dir.path().join("spool/tap").join(origin.epoch()).exists());
    assert_eq!(
        bed.taken.items.lock().unwrap().iter().filter(|item| *item.origin() == origin).count(),
        items.len()
    );
    next.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_left_comes_from_the_next_one_though_the_sink_was_down() {
    let bed = Bed::new();
    bed.refuse(true);
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    append(&ledger, 40).await;
    until("some of it is sealed and archived", || ledger.watermarks().archived > 10);
    append(&ledger, 20).await;
    assert!(bed.figures.counts().failing);
    assert!(bed.figures.counts().oldest_us.is_some(), "how long it is behind is known while it is down");
    ledger.halt();
    // Its locks go with it.
    drop(ledger);
    assert!(bed.came().is_empty());
    let next = bed.open();
    bed.refuse(false);
    until("the dead log's end comes", || {
        bed.taken.items.lock().unwrap().iter().any(|item| *item.origin() == origin && item.kind() == "close")
    });
    let expected = archived(&bed, &origin);
    assert_eq!(bed.positions(&origin), (0..expected.len() as u64).collect::<Vec<_>>());
    assert!(bed.missed().is_empty());
    next.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_confirmed_comes_again() {
    let bed = Bed::new();
    bed.taken.confirms.store(false, Ordering::Relaxed);
    let ledger = bed.open();
    append(&ledger, 10).await;
    until("it was sent once", || bed.came().len() >= 12);
    let before = bed.taken.items.lock().unwrap().len();
    // A failure: all that was not confirmed is sent again.
    bed.refuse(true);
    append(&ledger, 1).await;
    until("a try fails", || bed.figures.counts().failing);
    bed.refuse(false);
    until("it comes again", || bed.taken.items.lock().unwrap().len() > 2 * before);
    assert_eq!(bed.figures.counts().sent, 0);
    assert!(bed.figures.counts().oldest_us.is_some());
    bed.taken.confirms.store(true, Ordering::Relaxed);
    until("it is confirmed", || bed.figures.counts().sent > before as u64);
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_behind_what_is_kept_reads_the_store() {
    let bed = Bed { keep_bytes: Some(0), ..Bed::new() };
    bed.refuse(true);
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    for _ in 0..3 {
        append(&ledger, 30).await;
        let end = ledger.watermarks().journaled;
        assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    }
    until("nothing is kept", || kept(bed.dir.path()) == 0);
    bed.refuse(false);
    let end = ledger.watermarks().journaled;
    until("all comes out of the store", || bed.positions(&origin).len() as u64 >= end);
    assert_eq!(bed.positions(&origin), (0..end).collect::<Vec<_>>());
    assert!(bed.missed().is_empty());
    ledger.halt();
}

/// A directory store that takes and confirms, and gives nothing back, as a topic does.
#[derive(Debug)]
struct OneWay(DirectoryStore);

impl Store for OneWay {
    fn put(
        &self,
        name: &schemas::ObjectName,
        source: crate::store::Source<'_>,
    ) -> Result<crate::store::Put, crate::StoreError> {
        self.0.put(name, source)
    }
    fn confirm(
        &self,
        name: &schemas::ObjectName,
        source: crate::store::Source<'_>,
    ) -> Result<crate::store::Receipt, crate::StoreError> {
        self.0.confirm(name, source)
    }
    fn get(
        &self,
        name: &schemas::ObjectName,
    ) -> Result<Option<Arc<dyn crate::disk::DiskFile>>, crate::StoreError> {
        self.0.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<schemas::ObjectName>, crate::StoreError> {
        self.0.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, crate::StoreError> {
        self.0.logs(deployment, gateway)
    }
    fn gives_back(&self) -> bool {
        false
    }
    fn local_folder(&self) -> Option<&Path> {
        self.0.local_folder()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_behind_everything_is_told_what_it_misses_and_goes_on() {
    let bed = Bed { keep_bytes: Some(0), ..Bed::new() };
    bed.refuse(true);
    let ledger = bed.open_with(Arc::new(OneWay(bed.store())));
    let origin = ledger.origin().clone();
    for _ in 0..3 {
        append(&ledger, 10).await;
        let end = ledger.watermarks().journaled;
        assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    }
    until("nothing is kept", || kept(bed.dir.path()) == 0);
    // Traffic went on meanwhile.
    append(&ledger, 5).await;
    bed.refuse(false);
    until("the notice comes", || !bed.missed().is_empty());
    append(&ledger, 3).await;
    let end = ledger.watermarks().journaled;
    // What it had read before it was dropped may still come: each position comes, or is told of, once.
    until("what is journaled behind it comes", || {
        let mut next = 0;
        for item in bed.taken.items.lock().unwrap().iter() {
            assert_eq!(item.position(), next);
            next = match item {
                TapItem::Leaf(leaf) => leaf.position + 1,
                TapItem::Missed(missed) => missed.to.unwrap(),
            };
        }
        next == end
    });
    assert!(!bed.positions(&origin).is_empty());
    let counts = bed.figures.counts();
    assert!(counts.missed >= 1 && counts.missed_records >= 10, "{counts:?}");
    ledger.halt();
}

#[test]
fn a_notice_names_origin_and_positions() {
    let origin = Origin::new("acme/gw1/e1").unwrap();
    let missed = Missed { origin, from: 3, to: None, at_us: 9 };
    let value: serde_json::Value = serde_json::from_slice(&missed.to_json()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({ "v": 1, "kind": "tap_gap", "at": 9, "origin": "acme/gw1/e1", "from": 3, "to": null })
    );
}
