//! How a log ends: what stands before its `close`, that nothing stands behind it, and what passed without a record.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use evidence::clock::{Clock, SystemClock};
use evidence::disk::{Call, Crash, Fault, SimDisk};
use evidence::{KeyScope, Ledger, Reference, Salvaged, salvage};
use schemas::record::{Body, CloseReason, ConfigReason, End, GapReason, PartName};
use support::{Bed, Client, Gate, LogView, after, begin, id, noise, outcome, verify};

const CLOSE: Duration = Duration::from_secs(60);

/// A clock that is slow on the thread that closes abandoned exchanges.
#[derive(Debug)]
struct Slow;

impl Clock for Slow {
    fn now_us(&self) -> i64 {
        if std::thread::current().name() == Some("evidence-time") {
            std::thread::sleep(Duration::from_millis(5));
        }
        SystemClock.now_us()
    }

    fn elapsed_us(&self) -> i64 {
        SystemClock.elapsed_us()
    }
}

/// How many passed unrecorded, as the logs tell.
fn passed(logs: &[LogView]) -> u64 {
    let bodies = logs.iter().flat_map(LogView::bodies);
    let told = bodies.filter_map(|body| match body {
        Body::Gap(gap) if gap.reason == GapReason::Unrecorded => gap.count,
        _ => None,
    });
    told.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn close_stands_behind_the_outcome_of_every_abandoned_exchange() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut config = bed.config();
    config.clock = Arc::new(Slow);
    let ledger = Ledger::open(config).unwrap();
    let mut client = Client::default();
    let mut open = Vec::new();
    for _ in 0..60 {
        let one = begin(&ledger, KeyScope::PerExchange, b"left").await.unwrap();
        client.intents.insert(one.exchange().clone(), Bytes::from_static(b"left"));
        open.push(one);
    }
    drop(open);
    // The ledger's thread is at it.
    tokio::time::sleep(Duration::from_millis(130)).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    client.check(&logs);
    let ends = logs[0].bodies().filter(|body| matches!(body, Body::Outcome(o) if o.end == End::GatewayAbort));
    assert_eq!(ends.count(), 60);
}

/// The last byte of a file that is not zero.
fn last_byte(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_adds_nothing_behind_close() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let (gate, _shut) = Gate::of(&bed);
    let ledger = Ledger::open(bed.config_for(gate)).unwrap();
    let mut client = Client::default();
    client.whole(&ledger, 1, 300, 300).await;
    let segment = bed.root.join("journal").join(ledger.origin().epoch()).join("segment-00000000.journal");
    let ended = ledger.drain_and_close(CloseReason::Shutdown, Duration::from_millis(300)).await;
    assert!(ended.is_err(), "the store took nothing");
    drop(ledger);
    // Something was begun behind `close`, and told to nobody.
    disk.poke(&segment, |bytes| {
        let next = (last_byte(bytes) / 4096 + 1) * 4096;
        bytes[next..next + 100].fill(0xaa);
    });
    disk.crash(Crash::DropAll);
    let logs = after(&bed).await;
    client.check(&logs);
    assert_eq!(logs[0].kinds(), ["boot", "config", "intent", "outcome", "close"]);
}

/// Every file of the journal's segments, with its bytes.
fn segments(disk: &SimDisk, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = (0..100).map(|n| folder.join(format!("segment-{n:08}.journal")));
    files.filter_map(|path| disk.peek(&path).map(|bytes| (path, bytes))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_salvage_leaves_the_dead_hosts_journal_whatever_becomes_of_it() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut client = Client::default();
    let ledger = Ledger::open(bed.config()).unwrap();
    client.whole(&ledger, 1, 3000, 3000).await;
    ledger.seal_now();
    assert!(ledger.wait_archived(2, CLOSE).await);
    client.whole(&ledger, 2, 3000, 3000).await;
    let open = begin(&ledger, KeyScope::PerExchange, b"open").await.unwrap();
    client.intents.insert(open.exchange().clone(), Bytes::from_static(b"open"));
    let folder = bed.root.join("journal").join(ledger.origin().epoch());
    let dead = disk.fork();
    dead.crash(Crash::DropAll);
    let before = segments(&dead, &folder);
    assert!(!before.is_empty());

    // Its store is away: what is sealed waits, the journal stays.
    let disk = dead.fork();
    let bed = Bed::sim(&disk);
    let (gate, shut) = Gate::of(&bed);
    let config = bed.config_for(gate);
    let done = salvage(&config, &config.journal_dir).unwrap();
    assert!(matches!(&done[..], [Salvaged::Closed { archived: false, .. }]), "{done:?}");
    assert_eq!(segments(&disk, &folder), before);
    shut.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        let done = salvage(&config, &config.journal_dir).unwrap();
        assert!(matches!(&done[..], [Salvaged::Closed { archived: true, .. }]), "{done:?}");
        assert_eq!(segments(&disk, &folder), before, "its operator removes it");
        client.check(&verify(&bed));
    }

    // It is killed at any step.
    for step in (0..80).step_by(4) {
        let disk = dead.fork();
        let bed = Bed::sim(&disk);
        let config = bed.config();
        disk.fault_at_change(step, Fault::PowerOff);
        let _ = salvage(&config, &config.journal_dir);
        disk.crash(Crash::Random { seed: step, sector: 512 });
        let config = bed.config();
        let done = salvage(&config, &config.journal_dir).unwrap();
        assert!(matches!(&done[..], [Salvaged::Closed { archived: true, .. }]), "step {step}: {done:?}");
        assert_eq!(segments(&disk, &folder), before, "step {step}");
        client.check(&verify(&bed));
    }
    open.outcome(Vec::new(), outcome).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_while_the_journal_had_failed_stands_before_close() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut client = Client::default();
    let mut config = bed.config();
    // Nothing but the journal syncs while the fault waits.
    config.batch_age = Duration::from_secs(60);
    config.encryption = false;
    let ledger = Ledger::open(config).unwrap();
    client.whole(&ledger, 1, 300, 300).await;
    ledger.count_unrecorded(4);
    tokio::time::sleep(Duration::from_millis(900)).await;
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(begin(&ledger, KeyScope::PerExchange, b"fails").await.is_err());
    ledger.count_unrecorded(3);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ledger.count_unrecorded(2);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // The process dies just so.
    let dead = disk.fork();
    dead.crash(Crash::DropAll);
    let bed = Bed::sim(&dead);
    let logs = after(&bed).await;
    client.check(&logs);
    assert_eq!(passed(&logs), 9, "{:?}", logs[0].kinds());
    // Said once: by the process while it could, by recovery where it could not.
    assert_eq!(logs[0].kinds(), ["boot", "config", "intent", "outcome", "gap", "gap", "close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_is_told_once_though_the_process_dies_on_a_full_disk() {
    for dies in [false, true] {
        let disk = SimDisk::new();
        let bed = Bed::sim(&disk);
        let ledger = Ledger::open(bed.config()).unwrap();
        disk.set_capacity(Some(disk.used() + (16 << 10)));
        let mut held = Vec::new();
        while let Ok(admission) = ledger.admit(None, KeyScope::PerExchange).await {
            held.push(admission);
        }
        // More often than there is space for records.
        for _ in 0..24 {
            ledger.count_unrecorded(1);
            tokio::time::sleep(Duration::from_millis(520)).await;
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
        drop(held);
        if dies {
            let dead = disk.fork();
            dead.set_capacity(None);
            dead.crash(Crash::DropAll);
            assert_eq!(passed(&after(&Bed::sim(&dead)).await), 24);
        } else {
            disk.set_capacity(None);
            tokio::time::sleep(Duration::from_millis(1200)).await;
            ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
            assert_eq!(passed(&verify(&bed)), 24);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_behind_close_stands_in_the_next_log() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let (gate, shut) = Gate::of(&bed);
    let ledger = Ledger::open(bed.config_for(gate.clone())).unwrap();
    let closing = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    ledger.count_unrecorded(2);
    shut.store(false, Ordering::Relaxed);
    closing.await.unwrap().unwrap();
    // The next one dies behind its `close` too.
    shut.store(true, Ordering::Relaxed);
    let next = Ledger::open(bed.config_for(gate)).unwrap();
    let ended = next.drain_and_close(CloseReason::Shutdown, Duration::from_millis(300)).await;
    assert!(ended.is_err());
    next.count_unrecorded(5);
    next.halt();
    drop((ledger, next));
    disk.crash(Crash::DropAll);
    let logs = after(&bed).await;
    assert_eq!(logs.len(), 3);
    let told: Vec<u64> = logs.iter().map(|log| passed(std::slice::from_ref(log))).collect();
    assert_eq!(told, [0, 2, 5]);
    assert!(logs.iter().all(|log| log.kinds().last() == Some(&"close")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_behind_close_is_told_once_though_the_store_stays_away() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let (gate, shut) = Gate::of(&bed);
    let ledger = Ledger::open(bed.config_for(gate.clone())).unwrap();
    assert!(ledger.drain_and_close(CloseReason::Shutdown, Duration::from_millis(300)).await.is_err());
    ledger.count_unrecorded(5);
    ledger.halt();
    drop(ledger);
    for _ in 0..2 {
        // Each start finds the closed log again, and cannot ship it.
        let next = Ledger::open(bed.config_for(gate.clone())).unwrap();
        next.halt();
        drop(next);
    }
    shut.store(false, Ordering::Relaxed);
    assert_eq!(passed(&after(&bed).await), 5);
    assert_eq!(passed(&after(&bed).await), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_a_full_disk_refuses_is_in_no_record() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    disk.set_capacity(Some(disk.used() + (16 << 10)));
    let mut held = Vec::new();
    while let Ok(admission) = ledger.admit(None, KeyScope::PerExchange).await {
        held.push(admission);
    }
    let mut refused = 0;
    for n in 0..400 {
        let bytes = Bytes::from(noise(n, 60_000));
        let next = Reference { media_type: id("application/yaml"), bytes };
        let before = ledger.config_in_force();
        if ledger.config_changes(next, ConfigReason::Reload, None, None).await.is_err() {
            refused += 1;
            assert_eq!(ledger.config_in_force(), before);
        }
    }
    assert!(refused > 5, "{refused} were refused");
    drop(held);
    disk.set_capacity(None);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    let mut in_force = log.records[0].config;
    for record in &log.records {
        assert_eq!(record.config, in_force, "{}", record.body.kind());
        if let Body::Config(config) = &record.body {
            in_force = config.next;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_not_shipped_before_its_last_sync_succeeded() {
    for n in 0..8 {
        let disk = SimDisk::new();
        let bed = Bed::sim(&disk);
        let ledger = Ledger::open(bed.config()).unwrap();
        let mut client = Client::default();
        // Segments and keys are made ahead by now.
        tokio::time::sleep(Duration::from_millis(300)).await;
        disk.fault_at(Call::SyncDir, n, Fault::Io);
        for i in 0..4 {
            client.whole(&ledger, i, 300, 300).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap_or_else(|error| {
            panic!("failed sync {n}: {error}");
        });
        assert_eq!(disk.hits(), 1, "failed sync {n}");
        client.check(&verify(&bed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_of_streams_is_not_cut_while_the_disk_has_space() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut config = bed.config();
    config.segment_bytes = 2 << 20;
    config.batch_age = Duration::from_secs(5);
    let ledger = Ledger::open(config).unwrap();
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(begin(&ledger, KeyScope::PerExchange, b"burst").await.unwrap());
    }
    let streams = open.into_iter().map(|one| {
        tokio::spawn(async move {
            let writer = one.part(PartName::ProviderResponse, None, None);
            let second = one.part(PartName::ClientResponse, None, None);
            let piece = [7; 5000];
            for n in 0..20 {
                for writer in [&writer, &second] {
                    writer.write(&piece, n * 5000).unwrap_or_else(|cut| panic!("piece {n}: {cut}"));
                }
                tokio::task::yield_now().await;
            }
            let parts = vec![writer.finish(), second.finish()];
            one.outcome(parts, outcome).await.unwrap();
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let log = &verify(&bed)[0];
    assert_eq!(log.kinds().iter().filter(|kind| **kind == "outcome").count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_segment_takes_a_body_in_memory() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut config = bed.config();
    config.segment_bytes = 1 << 20;
    let ledger = Ledger::open(config).unwrap();
    let mut client = Client::default();
    assert!(client.whole(&ledger, 1, 500_000, 300_000).await);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    client.check(&verify(&bed));
}
