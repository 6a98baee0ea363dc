//! What survives: deaths, full disks, failing disks, clones, salvage. Loss of power is in `power.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evidence::disk::{Call, Crash, DiskFile, Fault, SimDisk};
use evidence::store::{Put, Receipt, Source, Trouble};
use evidence::{
    EraseRequest, EraseTarget, KeyScope, Ledger, OpenError, Reason, Salvaged, Store, StoreError, salvage,
};
use schemas::record::{Body, CloseReason, End, GapReason, PartName};
use schemas::{ObjectName, Origin};
use support::{Bed, Client, Content, Gate, SEED, after, begin, end, exchange, id, noise, outcome, verify};

const CLOSE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_just_dies_has_its_log_closed_by_the_next_start() {
    let bed = Bed::real();
    let mut client = Client::default();
    let ledger = Ledger::open(bed.config()).unwrap();
    client.whole(&ledger, 1, 300, 300).await;
    let copy = {
        let open = begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
        client.intents.insert(open.exchange().clone(), Bytes::from_static(b"open"));
        let writer = open.part(PartName::ProviderResponse, None, None);
        let answer = noise(4, 200_000);
        writer.write(&answer, 0).unwrap();
        writer.write(b"", 200_000).unwrap();
        client.partial.insert(open.exchange().clone(), answer.into());
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let copy = clone_of(&bed, &["journal", "spool", "keys", "out"]);
        std::mem::forget((open, writer));
        copy
    };
    let logs = after(&copy).await;
    client.check(&logs);
    let log = &logs[0];
    let outcome = log
        .bodies()
        .find_map(|body| match body {
            Body::Outcome(outcome) if outcome.end == End::Interrupted => Some(outcome),
            _ => None,
        })
        .unwrap();
    assert_eq!(outcome.parts[0].length, 200_000);
    match log.bodies().last() {
        Some(Body::Close(close)) => assert_eq!(close.reason, CloseReason::Crash),
        other => panic!("{other:?}"),
    }
    assert!(!log.kinds().contains(&"gap"), "{:?}", log.kinds());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn clone_of(bed: &Bed, folders: &[&str]) -> Bed {
    let other = Bed::real();
    for folder in folders {
        copy(&bed.root.join(folder), &other.root.join(folder));
    }
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cloned_journal_that_is_started_twice_the_second_is_refused() {
    let one = Bed::real();
    let (gate, shut) = Gate::of(&one);
    let mut client = Client::default();
    let origin = {
        let ledger = Ledger::open(one.config_for(gate.clone())).unwrap();
        client.whole(&ledger, 1, 300, 300).await;
        let open = begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
        client.intents.insert(open.exchange().clone(), Bytes::from_static(b"open"));
        while ledger.watermarks().sealed < ledger.watermarks().journaled {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let origin = ledger.origin().clone();
        // The power goes: nothing is closed.
        std::mem::forget(open);
        origin
    };
    let two = clone_of(&one, &["journal", "spool", "keys"]);
    let first = clone_of(&one, &["journal", "spool", "keys"]);
    // Both recover while the store is out of reach: each makes its own records and seals.
    for bed in [&first, &two] {
        drop(Ledger::open(bed.config_for(gate.clone())).unwrap());
    }
    shut.store(false, Ordering::Relaxed);
    drop(Ledger::open(first.config_for(gate.clone())).unwrap());
    assert!(!first.root.join("journal").join(origin.epoch()).exists(), "the first is archived and cleared");
    drop(Ledger::open(two.config_for(gate.clone())).unwrap());
    assert!(two.root.join("journal").join(origin.epoch()).exists(), "the second keeps its disk");
    let view = support::verify_log(&first_with_store(&first, &one), &one.store(), &origin);
    client.check(&[view]);
}

/// The store of `store`, with the keys of `keys`.
fn first_with_store(keys: &Bed, store: &Bed) -> Bed {
    let mut bed = keys.clone();
    bed.disk = store.disk.clone();
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_name_that_is_taken_stops_the_writer_with_an_alarm() {
    let bed = Bed::real();
    let ledger = Ledger::open(bed.config()).unwrap();
    let folder = bed.root.join("out").join(ledger.origin().as_str());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("0000000000.seal"), b"somebody else's").unwrap();
    ledger.seal_now();
    let mut refused = None;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Err(error) = ledger.readiness() {
            refused = Some(error.reason);
            break;
        }
    }
    assert_eq!(refused, Some(Reason::StoreRefused));
    assert_eq!(ledger.admit(None, KeyScope::PerExchange).await.unwrap_err().reason, Reason::StoreRefused);
    assert_eq!(ledger.watermarks().shipped, 0);
    assert_eq!(std::fs::read(folder.join("0000000000.seal")).unwrap(), b"somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_out_of_reach_stops_nothing_and_gets_everything_later() {
    let bed = Bed::real();
    let (gate, shut) = Gate::of(&bed);
    let ledger = Ledger::open(bed.config_for(gate)).unwrap();
    let mut client = Client::default();
    for n in 0..5 {
        assert!(client.whole(&ledger, n, 500, 500).await);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let marks = ledger.watermarks();
    assert_eq!((marks.shipped, marks.archived), (0, 0));
    assert!(marks.sealed > 0 && marks.spool_bytes > 0);
    shut.store(false, Ordering::Relaxed);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    client.check(&verify(&bed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_before_anything_is_lost_and_traffic_resumes() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut client = Client::default();
    let (gate, shut) = Gate::of(&bed);
    let mut config = bed.config_for(gate);
    config.segment_bytes = 1 << 20;
    let ledger = Ledger::open(config).unwrap();
    disk.set_capacity(Some(disk.used() + (12 << 20)));
    let mut refused = None;
    for n in 0..1000 {
        match begin(&ledger, KeyScope::PerExchange, &noise(n, 30_000)).await {
            Ok(open) => {
                let id = open.exchange().clone();
                client.intents.insert(id.clone(), noise(n, 30_000).into());
                // What was admitted has its space: its end is never refused.
                let answer = noise(n + 7, 60_000);
                end(open, &answer).await.unwrap_or_else(|error| panic!("exchange {n}: {error}"));
                client.outcomes.insert(id, answer.into());
            }
            Err(error) => {
                refused = Some(error.reason);
                break;
            }
        }
    }
    assert_eq!(refused, Some(Reason::DiskFull));
    assert!(client.outcomes.len() > 10, "{}", client.outcomes.len());
    let mut held = Vec::new();
    let full = loop {
        match ledger.admit(None, KeyScope::PerExchange).await {
            Ok(admission) => held.push(admission),
            Err(error) => break error,
        }
    };
    assert_eq!(full.reason, Reason::DiskFull);
    assert_eq!(ledger.readiness().unwrap_err().reason, Reason::DiskFull);
    drop(held);
    disk.set_capacity(None);
    shut.store(false, Ordering::Relaxed);
    let mut resumed = false;
    for n in 0..100 {
        if client.whole(&ledger, 2000 + n, 1000, 1000).await {
            resumed = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(resumed);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    client.check(&verify(&bed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_the_journal_stops_admission_and_loses_nothing_acknowledged() {
    let mut hits = 0;
    for n in 0..6 {
        let disk = SimDisk::new();
        let bed = Bed::sim(&disk);
        let mut client = Client::default();
        let mut config = bed.config();
        // Nothing but the journal syncs while the fault waits.
        config.batch_age = Duration::from_secs(60);
        config.encryption = false;
        let ledger = Ledger::open(config).unwrap();
        client.whole(&ledger, 1, 300, 300).await;
        disk.fault_at(Call::SyncData, n, Fault::Io);
        for i in 2..8 {
            client.whole(&ledger, i, 300, 300).await;
        }
        hits += disk.hits();
        if disk.hits() > 0 {
            assert_eq!(ledger.readiness().unwrap_err().reason, Reason::JournalFailed, "sync {n}");
            assert_eq!(
                ledger.admit(None, KeyScope::PerExchange).await.unwrap_err().reason,
                Reason::JournalFailed
            );
        }
        ledger.halt();
        drop(ledger);
        disk.crash(Crash::DropAll);
        disk.clear_faults();
        client.check(&after(&bed).await);
    }
    assert!(hits >= 4, "{hits} faults were met");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_acknowledged_records_refuses_to_start_until_it_is_accepted_and_recorded() {
    let bed = Bed::real();
    let (gate, _shut) = Gate::of(&bed);
    let mut config = bed.config_for(gate);
    config.batch_age = Duration::from_secs(60);
    let ledger = Ledger::open(config).unwrap();
    let mut last = None;
    for n in 0..5 {
        last = Some(exchange(&ledger, KeyScope::PerExchange, &noise(n, 400), b"ok").await.unwrap());
    }
    let copy = clone_of(&bed, &["journal", "spool", "keys", "out"]);
    let folder = copy.root.join("journal").join(ledger.origin().epoch());
    let segment = folder.join("segment-00000000.journal");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The group of the second exchange or so: behind the head, the boot group, and before the end.
    for byte in &mut bytes[6 * 4096..7 * 4096] {
        *byte ^= 0x55;
    }
    std::fs::write(&segment, &bytes).unwrap();
    let error = Ledger::open(copy.config()).unwrap_err();
    assert!(matches!(error, OpenError::Loss { .. }), "{error}");
    assert!(error.to_string().contains("--accept-loss"));
    let mut accepting = copy.config();
    accepting.accept_loss = true;
    let ledger = Ledger::open(accepting).unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&copy)[0];
    let lost =
        log.bodies().filter(|body| matches!(body, Body::Gap(gap) if gap.reason == GapReason::Loss)).count();
    assert!(lost > 0, "{:?}", log.kinds());
    let admin = log.bodies().find_map(|body| if let Body::Admin(admin) = body { Some(admin) } else { None });
    assert_eq!(admin.map(|admin| admin.action.as_str()), Some("loss_accepted"));
    assert_eq!(log.kinds().last(), Some(&"close"));
    // What came after keeps its position and its content.
    assert!(log.outcome(&last.unwrap()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_hosts_journal_is_closed_elsewhere_and_never_served_again() {
    let bed = Bed::real();
    let mut client = Client::default();
    let ledger = Ledger::open(bed.config()).unwrap();
    client.whole(&ledger, 1, 3000, 3000).await;
    let open = begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
    client.intents.insert(open.exchange().clone(), Bytes::from_static(b"open"));
    let dead = clone_of(&bed, &["journal", "spool", "keys", "out"]);
    let origin = ledger.origin().clone();
    let folder = dead.root.join("journal").join(origin.epoch());
    let mut settings = dead.config();
    settings.operator = Some(id("root"));
    let done = salvage(&settings, &dead.root.join("journal")).unwrap();
    let [Salvaged::Closed { origin: closed, archived: true, .. }] = &done[..] else { panic!("{done:?}") };
    assert_eq!(*closed, origin);
    let logs = verify(&dead);
    client.check(&logs);
    assert!(
        matches!(logs[0].bodies().last(), Some(Body::Close(close)) if close.reason == CloseReason::Salvaged)
    );
    let before_close = logs[0].bodies().rev().nth(1).unwrap();
    let Body::Admin(admin) = before_close else { panic!("{before_close:?}") };
    assert_eq!((admin.action.as_str(), admin.actor.as_ref()), ("salvaged", Some(&id("root"))));
    assert!(folder.join("salvaged").exists());
    assert!(matches!(Ledger::open(dead.config()), Err(OpenError::Salvaged(_))));
    open.outcome(Vec::new(), outcome).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_redone_though_the_log_was_closed_elsewhere() {
    let bed = Bed::real();
    let ledger = Ledger::open(bed.config()).unwrap();
    let erased = exchange(&ledger, KeyScope::PerExchange, b"secret", b"answer").await.unwrap();
    let keys = clone_of(&bed, &["keys"]);
    let request = EraseRequest {
        target: EraseTarget::Exchanges(vec![erased.clone()]),
        whole_key: false,
        reason: id("gdpr-17"),
        actor: None,
    };
    ledger.erase(request).await.unwrap();
    ledger.halt();
    drop(ledger);
    // It was recorded, and the host died before the key was destroyed.
    copy(&keys.root.join("keys"), &bed.root.join("keys"));
    let elsewhere = clone_of(&bed, &["journal", "spool", "keys", "out"]);
    let done = salvage(&elsewhere.config(), &elsewhere.root.join("journal")).unwrap();
    assert!(matches!(&done[..], [Salvaged::Closed { archived: true, .. }]), "{done:?}");
    // The host comes back: the store has the whole log, and the key is here.
    let ledger = Ledger::open(bed.config_for(elsewhere.store())).unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let seen = clone_of(&elsewhere, &["out"]);
    copy(&bed.root.join("keys"), &seen.root.join("keys"));
    let logs = verify(&seen);
    assert_eq!(logs.len(), 2);
    let content = logs.iter().find_map(|log| log.content(&erased, PartName::ClientRequest)).unwrap();
    assert_eq!(*content, Content::KeyDestroyed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_share_a_log() {
    let bed = Bed::real();
    let one = Ledger::open(bed.config()).unwrap();
    // A hand-over: the new process serves while the old one drains.
    let two = Ledger::open(bed.config()).unwrap();
    assert_ne!(one.origin(), two.origin());
    exchange(&one, KeyScope::PerExchange, b"1", b"1").await.unwrap();
    exchange(&two, KeyScope::PerExchange, b"2", b"2").await.unwrap();
    let first = one.origin().clone();
    one.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    two.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    assert_eq!(logs.len(), 2);
    let later = logs.iter().find(|log| log.origin != first).unwrap();
    match &later.records[0].body {
        Body::Boot(boot) => assert_eq!(boot.predecessor.as_ref().unwrap().origin, first),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_key_closes_the_log_of_a_key_that_is_not_here_and_of_no_other() {
    use evidence::ClosingKey;
    use schemas::note::{Ed25519Signer, Signer as _};
    let bed = Bed::real();
    let mut client = Client::default();
    let ledger = Ledger::open(bed.config()).unwrap();
    client.whole(&ledger, 1, 3000, 3000).await;
    ledger.seal_now();
    assert!(ledger.wait_archived(2, CLOSE).await);
    client.whole(&ledger, 2, 3000, 3000).await;
    ledger.halt();
    let public = |seed: [u8; 32]| Ed25519Signer::from_seed(seed).public_key();
    let (origin, of) = (ledger.origin().clone(), public(SEED));
    let salvaged = |closing: Vec<ClosingKey>| {
        let dead = clone_of(&bed, &["journal", "spool", "keys", "out"]);
        let mut settings = dead.config();
        settings.seal_seed = [1; 32];
        settings.closing = closing;
        let done = salvage(&settings, &dead.root.join("journal")).unwrap();
        (dead, done)
    };
    for closing in [vec![], vec![ClosingKey { seed: [2; 32], of: public([3; 32]) }]] {
        let (_, done) = salvaged(closing);
        let [Salvaged::Stuck { why, .. }] = &done[..] else { panic!("{done:?}") };
        assert!(why.contains("closing key"), "{why}");
    }
    let (dead, done) = salvaged(vec![ClosingKey { seed: [2; 32], of }]);
    let [Salvaged::Closed { origin: closed, archived: true, .. }] = &done[..] else { panic!("{done:?}") };
    assert_eq!(*closed, origin);
    // The first batches are the log's own key's, the last are the closing key's; nothing is sealed twice.
    let folder = dead.root.join("out").join(origin.as_str());
    let seals: Vec<bool> = (0..)
        .map_while(|batch| std::fs::read(folder.join(format!("{batch:010}.seal"))).ok())
        .map(|note| schemas::seal::verify(&note, &public([2; 32])).is_ok())
        .collect();
    assert!(seals.first() == Some(&false) && seals.last() == Some(&true) && seals.is_sorted(), "{seals:?}");
    // The own key finds a closer's seal and stops.
    let copy = clone_of(&bed, &["journal", "spool", "keys"]);
    let mut settings = copy.config();
    settings.store = dead.config().store;
    let done = salvage(&settings, &copy.root.join("journal")).unwrap();
    assert!(matches!(&done[..], [Salvaged::Stuck { .. }]), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_over_a_failed_journal_ends_at_once_though_exchanges_are_open() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut config = bed.config();
    config.batch_age = Duration::from_secs(60);
    config.encryption = false;
    let ledger = Ledger::open(config).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(begin(&ledger, KeyScope::PerExchange, b"fails").await.is_err());
    let begun = std::time::Instant::now();
    let ended = ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(60)).await;
    assert_eq!(ended.unwrap_err().reason, Reason::JournalFailed);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(open);
}

/// A store that does not answer for a while, or says no.
#[derive(Debug)]
struct Silent {
    gate: Arc<dyn Store>,
    shut: Arc<AtomicBool>,
    says: Trouble,
    asked: std::sync::atomic::AtomicU64,
}

impl Silent {
    fn new(bed: &Bed, says: Trouble) -> Arc<Self> {
        let (gate, shut) = Gate::of(bed);
        Arc::new(Self { gate, shut, says, asked: 0.into() })
    }

    fn answers(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !self.shut.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (trouble, detail) = (self.says, "as the test says".to_owned());
        Err(StoreError::Service { action: "cannot list", name: "acme".into(), trouble, detail })
    }
}

impl Store for Silent {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        self.gate.put(name, source)
    }
    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        self.gate.confirm(name, source)
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        self.answers()?;
        self.gate.get(name)
    }
    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        self.answers()?;
        self.gate.list(origin)
    }
    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        self.answers()?;
        self.gate.logs(deployment, gateway)
    }
    fn local_folder(&self) -> Option<&Path> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_its_store_opens_when_it_answers() {
    let bed = Bed::real();
    let store = Silent::new(&bed, Trouble::Connection);
    let mut config = bed.config_for(store.clone());
    config.store_wait = Duration::from_secs(30);
    let opening = tokio::task::spawn_blocking(move || Ledger::open(config));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!opening.is_finished() && store.asked.load(Ordering::Relaxed) > 1, "it asks again");
    store.shut.store(false, Ordering::Relaxed);
    let ledger = opening.await.unwrap().unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(verify(&bed).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_ends_when_its_store_says_no_or_nothing_for_too_long_or_when_it_is_asked() {
    for says in [Trouble::Denied, Trouble::NoBucket, Trouble::Timeout] {
        let bed = Bed::real();
        let store = Silent::new(&bed, says);
        let mut config = bed.config_for(store.clone());
        config.store_wait = Duration::from_millis(300);
        let begun = std::time::Instant::now();
        let error = Ledger::open(config).unwrap_err();
        assert!(matches!(error, OpenError::Store(_)) && error.to_string().contains(says.as_str()), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(store.asked.load(Ordering::Relaxed) == 1, says.needs_someone(), "{says}");
    }
    let bed = Bed::real();
    let mut config = bed.config_for(Silent::new(&bed, Trouble::Timeout));
    config.store_wait = Duration::from_secs(60);
    let stop = config.stop.clone();
    let opening = tokio::task::spawn_blocking(move || Ledger::open(config));
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.ask();
    let ended =
        tokio::time::timeout(Duration::from_secs(3), opening).await.expect("it ends when it is asked");
    assert!(matches!(ended.unwrap(), Err(OpenError::Stopped)));
    // Nothing stands in the way of the next one.
    let ledger = Ledger::open(bed.config()).unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_epochs_that_can_wait_for_a_store_that_is_away_one_is_tried() {
    let bed = Bed::real();
    for _ in 0..4 {
        let mut config = bed.config_for(Silent::new(&bed, Trouble::Timeout));
        // The first start must know that there is nothing before it.
        if !bed.root.join("journal/newest").exists() {
            config = bed.config();
        }
        config.batch_age = Duration::from_secs(60);
        let ledger = Ledger::open(config).unwrap();
        exchange(&ledger, KeyScope::PerExchange, b"1", b"1").await.unwrap();
        ledger.halt();
        // Within one second the names of epochs do not tell which was first.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let store = Silent::new(&bed, Trouble::Timeout);
    let mut config = bed.config_for(store.clone());
    config.store_wait = Duration::from_secs(60);
    let ledger = Ledger::open(config).unwrap();
    assert_eq!(
        store.asked.load(Ordering::Relaxed),
        1,
        "four logs wait, and each try may take its whole time"
    );
    ledger.halt();
    drop(ledger);
    let ledger = Ledger::open(bed.config()).unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(verify(&bed).len(), 6);
}
