//! All of it at once on real Kafka and a real bucket: three gateways, two archivers, a registrar, load from many callers.
//! Each part is killed at random while one fault comes after the other: the broker is away, its topics are deleted, the
//! archivers' offsets reset, the bucket is away, refuses, or answers too late, the network is cut between any two, and the
//! disk of a gateway that commits to the brokers is thrown away.
//! Once all is well again everything that was acknowledged is archived once and under lock, and an auditor who knows
//! nothing but root and registry says so, with the provider's own figures.
//!
//! `AFFIDAVIT_SEED` repeats a round; `AFFIDAVIT_LONG=1` runs many, with a broker that is away for a minute.

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod faults;
mod fleet;
mod judge;
mod load;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::Dice;

use self::faults::Kind;
use self::fleet::Fleet;
use self::load::Memory;

/// What was done to the fleet.
#[derive(Debug, Default)]
struct Done {
    kills: BTreeMap<&'static str, u64>,
    ended: Vec<String>,
    faults: BTreeMap<String, u64>,
}

/// Kills one part after the other until told to stop, and starts again what ended by itself, as a supervisor does.
fn kill(fleet: &Fleet, mut dice: Dice, stop: &AtomicBool) -> (BTreeMap<&'static str, u64>, Vec<String>) {
    let (mut kills, mut ended) = (BTreeMap::new(), Vec::new());
    let mut due = Instant::now() + Duration::from_secs(1);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        ended.extend(fleet.supervise());
        if Instant::now() >= due {
            let part = fleet.parts()[dice.below(fleet.parts().len() as u64) as usize];
            fleet.kill(part);
            *kills.entry(part.name()).or_default() += 1;
            due = Instant::now() + Duration::from_millis(300 + dice.below(1500));
        }
    }
    (kills, ended)
}

/// Every kind of fault in an order of its own, so many times.
fn disturb(fleet: &Fleet, mut dice: Dice, rounds: u64) -> BTreeMap<String, u64> {
    let mut done = BTreeMap::new();
    for _ in 0..rounds {
        let mut kinds = Kind::ALL.to_vec();
        while !kinds.is_empty() {
            let kind = kinds.swap_remove(dice.below(kinds.len() as u64) as usize);
            *done.entry(kind.strike(fleet, &mut dice)).or_default() += 1;
            std::thread::sleep(Duration::from_millis(200 + dice.below(800)));
        }
    }
    done
}

/// Load, kills and faults at once, until every fault was there so many times.
async fn unsettle(fleet: &Arc<Fleet>, dice: &mut Dice, rounds: u64, memory: &Memory) -> Done {
    let stop = Arc::new(AtomicBool::new(false));
    let callers = load::start(fleet, dice, &stop, memory);
    let killer = {
        let (fleet, dice, stop) = (Arc::clone(fleet), Dice::new(dice.next()), Arc::clone(&stop));
        tokio::task::spawn_blocking(move || kill(&fleet, dice, &stop))
    };
    let faults = {
        let (fleet, dice) = (Arc::clone(fleet), Dice::new(dice.next()));
        tokio::task::spawn_blocking(move || disturb(&fleet, dice, rounds))
    };
    let faults = faults.await;
    stop.store(true, Ordering::Relaxed);
    let (kills, ended) = killer.await.expect("who kills");
    callers.join_all().await;
    Done { kills, ended, faults: faults.expect("who disturbs") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka, S3"]
async fn whatever_dies_or_is_cut_off_what_was_acknowledged_is_archived_once_and_verifies() {
    let from = |name: &str, or: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let seed = from("AFFIDAVIT_SEED", 20_261_121);
    let rounds = from("AFFIDAVIT_ROUNDS", if tests::long_round() { 8 } else { 1 });
    eprintln!("seed {seed}, {rounds} rounds of {} kinds of faults", Kind::ALL.len());
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let fleet = Arc::new(Fleet::start().await);
    let memory = Memory::default();
    let done = unsettle(&fleet, &mut dice, rounds, &memory).await;
    let unsettled = begun.elapsed();
    let settling = Arc::clone(&fleet);
    tokio::task::spawn_blocking(move || settling.settle()).await.expect("a fleet that settles");
    let settled = begun.elapsed() - unsettled;
    let memory = std::mem::take(&mut *memory.lock().expect("no caller died"));
    let told = judge::judge(&fleet, &memory).await;
    eprintln!(
        "{}; kills {:?}, {} starts that ended by themselves; faults {:?}; {} s unsettled, {} s to settle, {} s in all, seed {seed}",
        told,
        done.kills,
        done.ended.len(),
        done.faults,
        unsettled.as_secs(),
        settled.as_secs(),
        begun.elapsed().as_secs(),
    );
    for ended in &done.ended {
        eprintln!("ended by itself: {ended}");
    }
    let lost: u64 =
        done.faults.iter().filter(|(name, _)| name.starts_with("DiskLost")).map(|(_, count)| count).sum();
    assert_eq!(lost, rounds, "disks were lost: {:?}", done.faults);
    for part in ["gateway", "archiver", "registrar"] {
        assert!(
            done.kills.get(part).is_some_and(|kills| *kills > 0),
            "no {part} was killed: {:?}",
            done.kills
        );
    }
}
