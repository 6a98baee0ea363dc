//! Where logs are, and that who finds a log's folder gone finds the log closed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use schemas::{Identifier, Origin};

use super::close::{self, tell};
use super::message::{Opening, Said};
use super::*;
use crate::clock::SystemClock;
use crate::disk::{Call, Fault, SimDisk};
use crate::epoch;
use crate::ledger::{LedgerConfig, Reference};
use crate::recovery::Recovered;
use crate::store::DirectoryStore;
use crate::topic::Security;

const EPOCH: &str = "20261120t101500z-3f9a1c20";
const JOURNAL: &str = "/j";

/// A topic that the library itself keeps, with one log in it.
struct Bed {
    _brokers: MockCluster<'static, DefaultProducerContext>,
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
        let opening =
            Opening { partition: 1, offset: 0, lease_ms: 1, salt: [1; 32], key: [2; 32], encrypted: false };
        for partition in [1, INDEX] {
            tell(&commit, partition, &origin, &Said::Open(opening.clone())).unwrap();
        }
        let settings = settings(&disk, &commit);
        Self { _brokers: brokers, disk, settings, commit, origin }
    }

    fn folder(&self) -> PathBuf {
        Path::new(JOURNAL).join(EPOCH)
    }

    fn is_closed(&self) -> bool {
        close::refreshed(&self.commit).unwrap().logs[&self.origin].closed
    }

    fn is_fenced(&self) -> bool {
        let seen = close::reader(&self.commit).unwrap().fence(1, &self.origin, (0, 0), None).unwrap();
        seen.fence.is_some()
    }
}

fn settings(disk: &SimDisk, commit: &CommitSettings) -> LedgerConfig {
    let id = |text: &str| Identifier::new(text).unwrap();
    let disk: crate::disk::SharedDisk = Arc::new(disk.clone());
    LedgerConfig {
        registry: None,
        deployment: "acme".into(),
        gateway: "gw1".into(),
        journal_dir: JOURNAL.into(),
        spool_dir: "/s".into(),
        key_table_dir: "/k".into(),
        store: Arc::new(DirectoryStore::open(Arc::clone(&disk), Path::new("/out")).unwrap()),
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
fn logs_stay_out_of_the_index_where_there_is_another_partition() {
    let origin = |n: u32| Origin::new(format!("acme/gw{n}/20261120t101500z-3f9a1c20")).unwrap();
    let mut used = std::collections::BTreeSet::new();
    for n in 0..200 {
        assert_eq!(partition_of(&origin(n), 1), 0);
        used.insert(partition_of(&origin(n), 4));
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}
