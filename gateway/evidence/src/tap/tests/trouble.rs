//! Sinks that are slow, refuse one log, or are at work when the process ends; a log that cannot be read.

use std::io::ErrorKind;
use std::sync::atomic::AtomicUsize;

use super::disk::Grudging;
use super::*;

/// Refuses the leaves of one log, and takes all others.
#[derive(Debug)]
struct Picky(Arc<Taken>, Origin);

impl Sink for Picky {
    fn send(&mut self, items: &[TapItem], _stop: &Stop) -> Result<(), SinkError> {
        if items.iter().any(|item| *item.origin() == self.1) {
            return Err(SinkError::new("refused", "a leaf that it does not like"));
        }
        self.0.items.lock().unwrap().extend(items.iter().cloned());
        Ok(())
    }
}

async fn dead(bed: &Bed) -> Origin {
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    append(&ledger, 20).await;
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    origin
}

fn has_end(bed: &Bed, origin: &Origin) -> bool {
    bed.taken.items.lock().unwrap().iter().any(|item| item.origin() == origin && item.kind() == "close")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_log_that_is_refused_for_good_neither_holds_up_others_nor_has_them_sent_again() {
    let bed = Bed::new();
    bed.refuse(true);
    let (refused, other) = (dead(&bed).await, dead(&bed).await);
    let picky = (Arc::clone(&bed.taken), refused.clone());
    let open: OpenSink = Arc::new(move || Box::new(Picky(Arc::clone(&picky.0), picky.1.clone())));
    let ledger = bed.open_to(Arc::new(bed.store()), open);
    let origin = ledger.origin().clone();
    for _ in 0..20 {
        append(&ledger, 3).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let end = ledger.watermarks().journaled;
    until("the running log comes", || bed.positions(&origin).len() as u64 >= end);
    until("the other dead log comes", || has_end(&bed, &other));
    let items = bed.taken.items.lock().unwrap().len();
    assert_eq!(bed.came().len(), items, "something came again");
    until("it is acknowledged", || bed.figures.counts().sent == items as u64);
    let counts = bed.figures.counts();
    assert!(counts.errors["refused"] < 12, "{counts:?}");
    until("what is refused is behind", || bed.figures.counts().behind > 20);
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_log_that_cannot_be_read_is_tried_now_and_then_and_is_not_the_sinks_fault() {
    let disk = Arc::new(Grudging::default());
    let bed = Bed { disk: disk.clone(), ..Bed::new() };
    bed.refuse(true);
    let (unread, other) = (dead(&bed).await, dead(&bed).await);
    disk.refuse("open_read", format!("tap/{}/0000000000-", unread.epoch()), ErrorKind::PermissionDenied);
    bed.refuse(false);
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    let begun = Instant::now();
    until("the other dead log comes", || has_end(&bed, &other));
    while begun.elapsed() < Duration::from_secs(2) {
        append(&ledger, 1).await;
        let end = ledger.watermarks().journaled;
        until("the running log comes at once", || bed.positions(&origin).len() as u64 >= end);
        assert!(!bed.figures.counts().failing);
    }
    let counts = bed.figures.counts();
    assert!((1..8).contains(&counts.errors["read"]), "{counts:?}");
    assert!(bed.positions(&unread).is_empty());
    ledger.halt();
}

/// A directory store of which no read ends while it hangs.
#[derive(Debug)]
struct Hangs {
    store: DirectoryStore,
    hangs: AtomicBool,
    asked: AtomicBool,
}

impl Hangs {
    fn wait(&self) {
        let begun = Instant::now();
        while self.hangs.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
            self.asked.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Store for Hangs {
    fn put(
        &self,
        name: &schemas::ObjectName,
        source: crate::store::Source<'_>,
    ) -> Result<crate::store::Put, crate::StoreError> {
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
        self.wait();
        self.store.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<schemas::ObjectName>, crate::StoreError> {
        self.wait();
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
async fn a_store_that_hangs_holds_up_the_dead_logs_that_are_read_from_it_and_no_other() {
    let bed = Bed::new();
    bed.refuse(true);
    let dead = [dead(&bed).await, dead(&bed).await];
    for path in dead.iter().flat_map(|origin| kept_in(&bed.folder(origin))) {
        std::fs::remove_file(path).unwrap();
    }
    let (hangs, asked) = (AtomicBool::new(false), AtomicBool::new(false));
    let store = Arc::new(Hangs { store: bed.store(), hangs, asked });
    let ledger = bed.open_with(store.clone());
    store.hangs.store(true, Ordering::Relaxed);
    bed.refuse(false);
    let origin = ledger.origin().clone();
    until("the store is asked", || store.asked.load(Ordering::Relaxed));
    for _ in 0..5 {
        append(&ledger, 1).await;
        let end = ledger.watermarks().journaled;
        until("the running log comes", || bed.positions(&origin).len() as u64 >= end);
    }
    assert!(dead.iter().all(|origin| bed.positions(origin).is_empty()));
    store.hangs.store(false, Ordering::Relaxed);
    until("the dead logs come", || dead.iter().all(|origin| has_end(&bed, origin)));
    assert!(bed.missed().is_empty(), "{:?}", bed.missed());
    ledger.halt();
}

/// Takes so many items at most before its time is over, as a webhook does in one POST, or at the end of a connection.
#[derive(Debug)]
struct Slow {
    taken: Arc<Taken>,
    out: Vec<TapItem>,
    since: Option<Instant>,
    at_end: bool,
    times: Arc<AtomicUsize>,
}

const TAKES: usize = 10;

impl Slow {
    fn time(&self, items: usize) -> Result<(), SinkError> {
        if items <= TAKES {
            return Ok(());
        }
        self.times.fetch_add(1, Ordering::Relaxed);
        Err(SinkError::new(SinkError::TIMEOUT, "no answer in time"))
    }
}

impl Sink for Slow {
    fn send(&mut self, items: &[TapItem], _stop: &Stop) -> Result<(), SinkError> {
        if !self.at_end {
            self.time(items.len())?;
        }
        self.out.extend(items.iter().cloned());
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn confirm(&mut self, now: bool, _stop: &Stop) -> Result<bool, SinkError> {
        let Some(since) = self.since else { return Ok(true) };
        if self.at_end && !now && since.elapsed() < Duration::from_millis(200) {
            return Ok(false);
        }
        if self.at_end {
            self.time(self.out.len())?;
        }
        self.taken.items.lock().unwrap().append(&mut self.out);
        self.since = None;
        Ok(true)
    }

    fn reset(&mut self) {
        self.out.clear();
        self.since = None;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_sink_gets_on() {
    for at_end in [false, true] {
        let bed = Bed::new();
        let times = Arc::new(AtomicUsize::new(0));
        let (taken, counted) = (Arc::clone(&bed.taken), Arc::clone(&times));
        let open: OpenSink = Arc::new(move || {
            let (taken, times) = (Arc::clone(&taken), Arc::clone(&counted));
            Box::new(Slow { taken, out: Vec::new(), since: None, at_end, times })
        });
        bed.refuse(true);
        let refusing = bed.open();
        append(&refusing, 40).await;
        refusing.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
        let old = refusing.origin().clone();
        drop(refusing);
        let ledger = bed.open_to(Arc::new(bed.store()), open);
        let origin = ledger.origin().clone();
        append(&ledger, 40).await;
        let end = ledger.watermarks().journaled;
        until("the running log comes", || bed.positions(&origin).len() as u64 >= end);
        until("the dead log comes", || has_end(&bed, &old));
        let first = bed.positions(&origin);
        assert!(first.iter().copied().eq(0..first.len() as u64) && first.len() >= TAKES, "{first:?}");
        assert!((1..12).contains(&times.load(Ordering::Relaxed)), "{times:?} times over");
        ledger.halt();
    }
}

/// Waits for an answer until the process ends.
#[derive(Debug)]
struct AtWork(Arc<AtomicBool>);

impl Sink for AtWork {
    fn send(&mut self, _items: &[TapItem], stop: &Stop) -> Result<(), SinkError> {
        self.0.store(true, Ordering::Relaxed);
        while !stop.asked() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(SinkError::new("stopped", "the gateway ends"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_when_the_process_ended_is_no_error() {
    let bed = Bed::new();
    let at_work = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&at_work);
    let ledger = bed.open_to(Arc::new(bed.store()), Arc::new(move || Box::new(AtWork(Arc::clone(&told)))));
    until("it sends", || at_work.load(Ordering::Relaxed));
    ledger.halt();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let counts = bed.figures.counts();
    assert!(counts.errors.is_empty() && !counts.failing, "{counts:?}");
}

#[test]
fn that_a_sink_fails_and_that_it_takes_again_is_said_once() {
    let figures = SinkFigures::default();
    assert!(!figures.acknowledged(1));
    assert!(figures.failed());
    assert!(!figures.failed());
    assert!(figures.acknowledged(1));
    assert!(!figures.acknowledged(1));
}
