//! Where logs are, and that who finds a log's folder gone finds the log closed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use schemas::holds::{Moment, Said as HoldSaid, Scope};
use schemas::keytable::KeyId;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Body, Boot, Encryption, Erasure};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

use super::close::{self, tell};
use super::message::{Opening, Said};
use super::*;
use crate::clock::SystemClock;
use crate::disk::{Call, Disk as _, DiskLock, Fault, SimDisk};
use crate::epoch;
use crate::erase::{EraseError, EraseRequest, EraseTarget, plan};
use crate::error::Reason;
use crate::journal::{Journal, JournalConfig, MAX_CONTENT_BYTES};
use crate::keys::{KeyFolder, KeyTable, Looked};
use crate::ledger::{Ledger, LedgerConfig, Reference};
use crate::recovery::Recovered;
use crate::refusals::folded;
use crate::store::DirectoryStore;
use crate::topic::Security;

const EPOCH: &str = "20261120t101500z-3f9a1c20";
const JOURNAL: &str = "/j";
const SEED: [u8; 32] = [7; 32];

/// A topic that the library itself keeps, with one log in it.
struct Bed {
    brokers: MockCluster<'static, DefaultProducerContext>,
    disk: SimDisk,
    settings: LedgerConfig,
    commit: CommitSettings,
    origin: Origin,
}

impl Bed {
    fn new() -> Self {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("commit", 2, 1).unwrap();
        let disk = SimDisk::new();
        for folder in [JOURNAL, "/s", "/k", "/out"] {
            crate::disk::create_dir(&disk, Path::new(folder)).unwrap();
        }
        let connection = Connection {
            brokers: vec![brokers.bootstrap_servers()],
            security: Security::default(),
            timeout: Duration::from_secs(5),
        };
        let commit = CommitSettings {
            connection,
            topic: "commit".into(),
            key: CommitKey::new(&[3; 32]),
            lease: Duration::from_millis(1),
            create: None,
            outage: Duration::from_secs(60),
            who: "gw1".into(),
        };
        let origin = Origin::join("acme", "gw1", EPOCH).unwrap();
        let settings = settings(&disk, &commit);
        let bed = Self { brokers, disk, settings, commit, origin };
        bed.open(&bed.origin);
        bed
    }

    /// Begins a log in the topic, under our own key.
    fn open(&self, origin: &Origin) {
        let key = Ed25519Signer::from_seed(SEED).public_key();
        let opening = Opening { partition: 1, offset: 0, lease_ms: 1, salt: [1; 32], key, encrypted: false };
        for partition in [1, INDEX] {
            tell(&self.commit, partition, origin, &Said::Open(opening.clone())).unwrap();
        }
    }

    fn folder(&self) -> PathBuf {
        Path::new(JOURNAL).join(EPOCH)
    }

    fn is_closed(&self) -> bool {
        self.has_closed(&self.origin)
    }

    fn has_closed(&self, origin: &Origin) -> bool {
        close::refreshed(&self.commit).unwrap().logs[origin].closed
    }

    /// The lock of the holds, where nobody has it.
    fn lock(&self) -> Option<Box<dyn DiskLock>> {
        self.disk.lock(Path::new("/k/holds.lock")).unwrap()
    }

    fn has_key(&self, key: &Identifier) -> bool {
        let keys = KeyFolder::new(Arc::new(self.disk.clone()), Path::new("/k"));
        matches!(keys.look(key).unwrap(), Looked::Key(_))
    }

    /// The log as it was made again from the topic, where it ends in the middle of an erasure of two exchanges under one key: the
    /// first is recorded.
    fn ends_in_an_erasure(&self) -> Identifier {
        KeyTable::create(Arc::new(self.disk.clone()), Path::new("/k"), self.origin.clone()).unwrap();
        let key = KeyId { origin: self.origin.clone(), page: 0, slot: 0 }.to_identifier();
        let erasures = [0, 1].map(|n| Erasure {
            exchange: exchange(n),
            origin: self.origin.clone(),
            position: n,
            content_key: key.clone(),
            reason: id("gdpr-17"),
            actor: None,
        });
        let boot = Boot {
            gateway_version: id("0.1.0"),
            binary_sha256: None,
            seal_key: schemas::trust::key_text(&Ed25519Signer::from_seed(SEED).public_key()),
            promise_key: None,
            heartbeat_bound_ms: 300_000,
            batch_age_ms: 50,
            predecessor: None,
            encryption: Encryption::Aes256Gcm,
        };
        let record = |body| crate::inner::encode(NOW, Sha256Hex([1; 32]), body).unwrap();
        let mut frames = vec![record(Body::Boot(boot))];
        frames.extend(plan::frames(&erasures).unwrap());
        frames.push(record(Body::Erasure(erasures[0].clone())));
        let folder = Path::new(JOURNAL).join("closing").join(self.origin.gateway()).join(EPOCH);
        let config = JournalConfig {
            segment_bytes: 1 << 20,
            ahead_bytes: 1 << 20,
            group_bytes: 128 << 10,
            frame_bytes: MAX_CONTENT_BYTES,
            ..JournalConfig::new(self.origin.clone(), Arc::new(|| NOW))
        };
        let disk: crate::disk::SharedDisk = Arc::new(self.disk.clone());
        let journal = Journal::create(Arc::clone(&disk), &folder, config).unwrap();
        journal.submit(&mut journal.reserve_nothing(), frames).wait().unwrap();
        journal.close();
        crate::disk::replace(&*disk, &folder.join(epoch::REBUILT), b"as the test says\n").unwrap();
        key
    }

    fn is_fenced(&self) -> bool {
        let seen = close::reader(&self.commit).unwrap().fence(1, &self.origin, (0, 0), None).unwrap();
        seen.fence.is_some()
    }
}

const NOW: i64 = 1_795_169_700_000_000;

fn id(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

fn exchange(n: u64) -> ExchangeId {
    ExchangeId::new(format!("00000000-0000-7000-8000-{n:012}")).unwrap()
}

fn settings(disk: &SimDisk, commit: &CommitSettings) -> LedgerConfig {
    let disk: crate::disk::SharedDisk = Arc::new(disk.clone());
    LedgerConfig {
        registry: None,
        deployment: "acme".into(),
        gateway: "gw1".into(),
        journal_dir: JOURNAL.into(),
        spool_dir: "/s".into(),
        key_table_dir: "/k".into(),
        store: Arc::new(DirectoryStore::open(Arc::clone(&disk), Path::new("/out")).unwrap()),
        seal_seed: SEED,
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
        commit: Some(commit.clone()),
        disk,
        clock: Arc::new(SystemClock),
        store_wait: Duration::ZERO,
        stop: crate::Stop::default(),
        tap: None,
    }
}

#[test]
fn a_log_that_was_closed_since_the_index_was_read_is_not_closed_again() {
    let bed = Bed::new();
    let looks = || {
        let mut closing = Closing::new(bed.settings.clone()).unwrap();
        closing.refresh().unwrap();
        closing
    };
    let (mut before, mut again) = (looks(), looks());
    tell(&bed.commit, INDEX, &bed.origin, &Said::Closed).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(before.close_absent(&bed.origin, false).unwrap(), None);
    assert!(!bed.is_fenced(), "it is closed: nobody fences it");
    // What keeps it from that is the index alone.
    let entry = again.entry(&bed.origin);
    again.close(&bed.origin, &entry, false).unwrap();
    assert!(bed.is_fenced());
}

#[test]
fn a_log_is_closed_in_the_index_before_its_folder_goes() {
    let bed = Bed::new();
    crate::disk::create_dir_all(&bed.disk, &bed.folder()).unwrap();
    mark_committed(&bed.settings, &bed.folder()).unwrap();
    assert!(!bed.is_closed());
    bed.disk.fault_at(Call::RemoveDir, 0, Fault::Io);
    crate::open::note(&bed.settings, &mut None, &bed.folder(), &Recovered::Nothing).unwrap_err();
    assert!(bed.is_closed(), "whether its folder could go or not");
    crate::open::note(&bed.settings, &mut None, &bed.folder(), &Recovered::Nothing).unwrap();
    assert!(!close::has(&bed.settings, Path::new(JOURNAL), EPOCH).unwrap());
    assert!(epoch::list(&bed.disk, Path::new(JOURNAL)).unwrap().is_empty());
}

#[test]
fn an_erasure_that_a_dead_gateway_recorded_in_part_waits_for_the_lock_of_the_holds_and_no_other_log_does() {
    for is_held in [false, true] {
        let bed = Bed::new();
        let key = bed.ends_in_an_erasure();
        let other = Origin::join("acme", "gw3", EPOCH).unwrap();
        bed.open(&other);
        let mut closing = Closing::new(bed.settings.clone()).unwrap();
        closing.refresh().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let lock = bed.lock().unwrap();
        for _ in 0..2 {
            let survived = closing.look(None, false).unwrap();
            let [Survived::Stuck { origin, why }] = &survived[..] else { panic!("{survived:?}") };
            assert!(*origin == bed.origin && why.contains("`/k/holds.lock`"), "{why}");
            assert_eq!((bed.is_closed(), bed.has_closed(&other)), (false, true));
            assert!(bed.has_key(&key));
        }
        // Who has the lock says that it is held.
        if is_held {
            let scope = Scope { exchange: Some(exchange(1)), ..Scope::default() };
            let (reason, actor, moment) = (None, None, Moment::at(NOW + 1));
            let said = HoldSaid { hold: id("case-17"), begins: true, scope, moment, reason, actor };
            let file = serde_json::json!({"v": 1, "said": [said]}).to_string();
            crate::disk::replace(&bed.disk, Path::new("/k/holds.json"), file.as_bytes()).unwrap();
        }
        drop(lock);
        let survived = closing.look(None, false).unwrap();
        let [Survived::Closed { size, archived: true, .. }] = survived[..] else { panic!("{survived:?}") };
        // `boot`, the erasures, who closed it, and `close`.
        assert_eq!((size, bed.has_key(&key)), if is_held { (4, true) } else { (5, false) });
        assert!(bed.is_closed() && bed.lock().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_fenced_leaves_an_erasure_and_the_lock_of_the_holds_to_who_fenced_it() {
    let bed = Bed::new();
    let commit = CommitSettings { lease: Duration::from_secs(1), who: "gw2".into(), ..bed.commit.clone() };
    let ledger = {
        let settings = LedgerConfig {
            gateway: "gw2".into(),
            encryption: true,
            commit: Some(commit),
            ..bed.settings.clone()
        };
        tokio::task::spawn_blocking(|| Ledger::open(settings)).await.unwrap().unwrap()
    };
    let key = KeyId { origin: ledger.origin().clone(), page: 0, slot: 0 }.to_identifier();
    let mut refusal = folded(id("denied"), 403, None);
    (refusal.exchange, refusal.content_key) = (Some(exchange(7)), Some(key.clone()));
    let position = ledger.inner.append(Body::Refusal(refusal)).await.unwrap();
    ledger.seal_now();
    assert!(ledger.wait_archived(position + 1, Duration::from_secs(60)).await);
    bed.brokers.broker_down(1).unwrap();
    let target = EraseTarget::Exchanges(vec![exchange(7)]);
    let request = EraseRequest { target, whole_key: false, reason: id("gdpr-17"), actor: None };
    let refused = ledger.erase(request).await;
    let Err(EraseError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert_eq!((why.reason, bed.lock().is_none()), (Reason::NoLease, true));
    assert_eq!(ledger.watermarks().erasures_due, 1);
    ledger.inner.committer.as_ref().unwrap().fenced_by_hand("gw1");
    let until = Instant::now() + Duration::from_secs(30);
    while ledger.watermarks().erasures_due > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ledger.watermarks().erasures_due, 0);
    assert!(bed.lock().is_some() && bed.has_key(&key));
    bed.brokers.broker_up(1).unwrap();
    tokio::task::spawn_blocking(move || ledger.halt()).await.unwrap();
}

#[test]
fn logs_stay_out_of_the_index_where_there_is_another_partition() {
    let origin = |n: u32| Origin::new(format!("acme/gw{n}/20261120t101500z-3f9a1c20")).unwrap();
    let mut used = std::collections::BTreeSet::new();
    for n in 0..200 {
        assert_eq!(partition_of(&origin(n), 1), 0);
        used.insert(partition_of(&origin(n), 4));
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}
