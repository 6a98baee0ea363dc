//! A store that takes batches and answers later, by receipts, and gives nothing back: shipping, and what a start makes
//! of receipts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evidence::disk::DiskFile;
use evidence::store::{Put, Receipt, SealWord, Source};
use evidence::{DirectoryStore, KeyScope, Ledger, Reason, Store, StoreError};
use schemas::record::CloseReason;
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use support::{Bed, Client, verify};

const CLOSE: Duration = Duration::from_secs(60);

/// What an archiver has said: in its store is what was put, and it answers while it is there.
#[derive(Debug)]
struct Archived {
    inner: Arc<DirectoryStore>,
    words: Mutex<BTreeMap<(Origin, u64), SealWord>>,
    is_there: AtomicBool,
}

impl Archived {
    fn new(bed: &Bed, is_there: bool) -> Arc<Self> {
        let is_there = AtomicBool::new(is_there);
        Arc::new(Self { inner: bed.store(), words: Mutex::default(), is_there })
    }

    fn say(&self, origin: &Origin, batch: u64, note: &[u8]) {
        let sealed = seal::parse_unverified(note).unwrap();
        let word = SealWord {
            batch,
            from: sealed.from,
            to: sealed.to,
            root: sealed.root,
            seal: Sha256Hex::of(note),
            sealed_us: sealed.time,
        };
        self.words.lock().unwrap().entry((origin.clone(), batch)).or_insert(word);
    }
}

impl Store for Archived {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.inner.put(name, source)
    }
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        let ObjectName::Seal { origin, batch } = name else { return Ok(Receipt::default()) };
        let note = std::fs::read(source.path).unwrap();
        let word = self.word(origin, *batch)?;
        let Some(word) = word else {
            if self.is_there.load(Ordering::Relaxed) {
                self.say(origin, *batch, &note);
            }
            return Err(StoreError::Pending { name: name.to_string() });
        };
        if word.seal != Sha256Hex::of(&note) {
            let (expected, found) = (Sha256Hex::of(&note), word.seal);
            return Err(StoreError::Taken { name: name.to_string(), expected, found });
        }
        Ok(Receipt::default())
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let source = io::Error::from(io::ErrorKind::Unsupported);
        Err(StoreError::Io { action: "cannot read", name: name.to_string(), source })
    }
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        let words = self.words.lock().unwrap();
        let of = words.keys().filter(|(log, _)| log == origin);
        Ok(of.map(|(log, batch)| ObjectName::Seal { origin: log.clone(), batch: *batch }).collect())
    }
    fn logs(&self, _: &str, _: &str) -> Result<Vec<Origin>, StoreError> {
        Ok(self.words.lock().unwrap().keys().map(|(log, _)| log.clone()).collect())
    }
    fn word(&self, origin: &Origin, batch: u64) -> Result<Option<SealWord>, StoreError> {
        Ok(self.words.lock().unwrap().get(&(origin.clone(), batch)).copied())
    }
    fn gives_back(&self) -> bool {
        false
    }
    fn local_folder(&self) -> Option<&Path> {
        None
    }
}

async fn until(ledger: &Ledger, mut holds: impl FnMut(&evidence::Watermarks) -> bool) {
    for _ in 0..1000 {
        if holds(&ledger.watermarks()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 20 s: {:?}", ledger.watermarks());
}

/// A ledger that dies with everything archived that it had, but for one exchange that is open.
async fn dies(bed: &Bed, store: &Arc<Archived>, client: &mut Client) -> Origin {
    let ledger = Ledger::open(bed.config_for(store.clone())).unwrap();
    for n in 0..4 {
        assert!(client.whole(&ledger, n, 300, 300).await);
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let open = support::begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
    client.intents.insert(open.exchange().clone(), b"open".as_slice().into());
    ledger.seal_now();
    until(&ledger, |marks| marks.archived == marks.journaled).await;
    let origin = ledger.origin().clone();
    ledger.halt();
    drop(open);
    origin
}

async fn starts_and_ends(bed: &Bed, store: &Arc<Archived>, client: &mut Client) {
    let ledger = Ledger::open(bed.config_for(store.clone())).unwrap();
    assert!(client.whole(&ledger, 77, 300, 300).await);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_batch_without_a_receipt_is_put_and_nothing_is_in_the_way() {
    let bed = Bed::real();
    let store = Archived::new(&bed, false);
    let ledger = Ledger::open(bed.config_for(store.clone())).unwrap();
    let mut client = Client::default();
    for n in 0..5 {
        assert!(client.whole(&ledger, n, 500, 500).await);
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    ledger.seal_now();
    until(&ledger, |marks| marks.shipped == marks.journaled).await;
    let marks = ledger.watermarks();
    assert_eq!((marks.archived, marks.ship_trouble, marks.ship_retries), (0, None, 0));
    assert!(store.inner.list(ledger.origin()).unwrap().len() >= 4, "more than one batch was put");
    store.is_there.store(true, Ordering::Relaxed);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert!(
        !bed.root
            .join("spool")
            .read_dir()
            .unwrap()
            .flatten()
            .any(|entry| { entry.file_name().to_str() == Some(ledger.origin().epoch()) })
    );
    client.check(&verify(&bed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_behind_the_last_batch_that_has_a_receipt() {
    let bed = Bed::real();
    let store = Archived::new(&bed, true);
    let mut client = Client::default();
    let origin = dies(&bed, &store, &mut client).await;
    let spool = bed.root.join("spool").join(origin.epoch());
    let seals = std::fs::read_dir(&spool)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".seal"));
    assert_eq!(seals.count(), 1, "the newest batch stays in the spool, and no other");
    // Recovery seals and puts; its receipts come while the next epoch runs or starts.
    starts_and_ends(&bed, &store, &mut client).await;
    starts_and_ends(&bed, &store, &mut client).await;
    assert!(!bed.root.join("journal").join(origin.epoch()).exists(), "it is archived and cleared");
    client.check(&verify(&bed));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_spool_is_lost_receipts_and_journal_say_where_the_log_stands() {
    let bed = Bed::real();
    let store = Archived::new(&bed, true);
    let mut client = Client::default();
    let origin = dies(&bed, &store, &mut client).await;
    std::fs::remove_dir_all(bed.root.join("spool")).unwrap();
    starts_and_ends(&bed, &store, &mut client).await;
    starts_and_ends(&bed, &store, &mut client).await;
    assert!(!bed.root.join("journal").join(origin.epoch()).exists(), "it is archived and cleared");
    client.check(&verify(&bed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_the_journal_contradicts_stops_that_log_and_keeps_its_disk() {
    let bed = Bed::real();
    let store = Archived::new(&bed, true);
    let mut client = Client::default();
    let origin = dies(&bed, &store, &mut client).await;
    std::fs::remove_dir_all(bed.root.join("spool")).unwrap();
    for (key, word) in store.words.lock().unwrap().iter_mut() {
        if key.0 == origin {
            word.root = Sha256Hex([9; 32]);
        }
    }
    starts_and_ends(&bed, &store, &mut client).await;
    assert!(bed.root.join("journal").join(origin.epoch()).exists(), "its disk is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_another_seal_stops_the_writer_with_an_alarm() {
    let bed = Bed::real();
    let store = Archived::new(&bed, false);
    let ledger = Ledger::open(bed.config_for(store.clone())).unwrap();
    ledger.seal_now();
    until(&ledger, |marks| marks.shipped > 0).await;
    let word = SealWord {
        batch: 0,
        from: 0,
        to: 2,
        root: Sha256Hex([1; 32]),
        seal: Sha256Hex([2; 32]),
        sealed_us: 0,
    };
    store.words.lock().unwrap().insert((ledger.origin().clone(), 0), word);
    for _ in 0..500 {
        if ledger.readiness().is_err_and(|error| error.reason == Reason::StoreRefused) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no alarm: {:?}", ledger.watermarks());
}
