//! Loss of power at every step of a whole ledger's life, and of its recovery, over the simulated disk.
//!
//! Each case is one life on a disk of its own: it loses power before one changing call, the disk comes up with some of
//! what was not synced, and the next start must find everything that was acknowledged. The normal round takes the same
//! sample of cases each time, `AFFIDAVIT_SEED=N` another one, `AFFIDAVIT_LONG=1` all.
//!
//! And each kind of sync is left out in turn, with power lost where just that loses something: see `syncs`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;
mod syncs;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evidence::disk::{Crash, Fault, SimDisk};
use evidence::{KeyScope, Ledger};
use schemas::record::{CloseReason, PartName};
use support::{Bed, Client, after, begin, check_seals, noise, quick};

const CLOSE: Duration = Duration::from_secs(60);
/// Cases at a time, for each core: most of a case is waiting for the ledger's threads.
const AT_ONCE: usize = 3;
/// The normal round takes so many cases, and begins no further one after so long.
const SAMPLE: usize = 40;
const ROUND: Duration = Duration::from_secs(20);

fn at_once() -> usize {
    AT_ONCE * std::thread::available_parallelism().map_or(2, usize::from)
}

fn long() -> bool {
    std::env::var("AFFIDAVIT_LONG").is_ok_and(|value| value == "1")
}

fn seed() -> u64 {
    let seed = std::env::var("AFFIDAVIT_SEED").map_or(1, |value| value.parse().unwrap());
    eprintln!("AFFIDAVIT_SEED={seed}");
    seed
}

/// All cases, in an order of chance.
fn shuffled<T>(mut cases: Vec<T>, seed: u64) -> Vec<T> {
    let chance = noise(seed, cases.len() * 4);
    for (at, random) in (0..cases.len()).zip(chance.chunks_exact(4)).rev() {
        let random = u32::from_le_bytes(random.try_into().unwrap()) as usize;
        cases.swap(at, random % (at + 1));
    }
    cases
}

/// Runs cases, some at a time; hands out what came of each that was begun in time. A case that panics ends the test.
fn run<C: Send + Sync + std::fmt::Debug, T: Send>(
    mut cases: Vec<C>,
    case: impl Fn(&C) -> T + Sync,
) -> Vec<T> {
    let all = cases.len();
    if !long() {
        cases.truncate(SAMPLE);
    }
    let begun = Instant::now();
    let queue = Mutex::new(VecDeque::from(cases));
    let done = Mutex::new(Vec::new());
    let slowest = Mutex::new(Duration::ZERO);
    std::thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(|| {
                while long() || begun.elapsed() < ROUND {
                    let Some(next) = queue.lock().unwrap().pop_front() else { return };
                    let from = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| case(&next)));
                    let result = result.unwrap_or_else(|_| {
                        queue.lock().unwrap().clear();
                        panic!("in the case {next:?}")
                    });
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = from.elapsed().max(*slowest);
                    let mut done = done.lock().unwrap();
                    done.push(result);
                    if long() && done.len() % 100 == 0 {
                        say(done.len(), all, begun.elapsed());
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let (took, slowest) = (begun.elapsed().as_secs_f64(), slowest.into_inner().unwrap().as_secs_f64());
    eprintln!("{} of {all} cases in {took:.1} s, the slowest {slowest:.1} s", done.len());
    done
}

/// How far a long round has come.
fn say(done: usize, all: usize, took: Duration) {
    let each = took.as_secs_f64() / done as f64;
    let left = each * (all - done) as f64;
    eprintln!("{done} of {all} cases in {:.0} s, {left:.0} s more", took.as_secs_f64());
}

/// Runs one life of a process: when this returns, nothing of it runs any more.
fn process<T>(life: impl Future<Output = T>) -> T {
    process_of(tokio::runtime::Builder::new_current_thread().enable_all(), life)
}

fn process_of<T>(runtime: &mut tokio::runtime::Builder, life: impl Future<Output = T>) -> T {
    // Dropping the runtime waits for its blocking tasks.
    runtime.build().unwrap().block_on(life)
}

/// Waits until power is lost.
async fn off(disk: &SimDisk) {
    while !disk.is_off() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A short life: two whole exchanges, one stream that is left open, one more exchange, and a close.
async fn live(ledger: &Ledger, client: &mut Client) {
    client.whole(ledger, 1, 300, 500).await;
    let stream = begin(ledger, KeyScope::PerExchange, b"stream").await.ok();
    let writer = stream.as_ref().map(|open| {
        client.intents.insert(open.exchange().clone(), Bytes::from_static(b"stream"));
        open.part(PartName::ProviderResponse, None, None)
    });
    client.whole(ledger, 2, 200_000, 100_000).await;
    if let (Some(open), Some(writer)) = (&stream, &writer) {
        let answer = noise(9, 150_000);
        let mut given = 0;
        for piece in answer.chunks(10_000) {
            if writer.write(piece, given as u64).is_err() {
                break;
            }
            given += piece.len();
        }
        client.partial.insert(open.exchange().clone(), Bytes::copy_from_slice(&answer[..given]));
    }
    client.whole(ledger, 3, 300, 70_000).await;
    ledger.seal_now();
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop((writer, stream));
    let _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await;
}

/// Opens a ledger and lets it live until its end, or until power is lost.
fn life(disk: &SimDisk, client: &mut Client) {
    process(async {
        let Some(ledger) = quick(&Bed::sim(disk)).and_then(|config| Ledger::open(config).ok()) else {
            return;
        };
        tokio::select! {
            () = live(&ledger, client) => {}
            () = off(disk) => {}
        }
        ledger.halt();
    });
}

/// A start that only recovers and closes, until its end, or until power is lost.
fn recover(disk: &SimDisk) {
    process(async {
        let Some(ledger) = quick(&Bed::sim(disk)).and_then(|config| Ledger::open(config).ok()) else {
            return;
        };
        tokio::select! {
            _ = ledger.drain_and_close(CloseReason::Shutdown, CLOSE) => {}
            () = off(disk) => {}
        }
        ledger.halt();
    });
}

/// The start that must find everything.
fn check(disk: &SimDisk, client: &Client) {
    check_seals(&Bed::sim(disk));
    client.check(&process(after(&Bed::sim(disk))));
}

/// How many changes to the disk a life makes.
fn changes_of_a_life() -> u64 {
    let disk = SimDisk::new();
    life(&disk, &mut Client::default());
    disk.changes()
}

fn crash_mode(n: u64) -> Crash {
    match n % 4 {
        0 => Crash::DropAll,
        1 => Crash::KeepAll,
        2 => Crash::Random { seed: n, sector: 512 },
        _ => Crash::Random { seed: n, sector: 4096 },
    }
}

#[test]
fn whatever_was_acknowledged_is_in_the_store_after_power_is_lost_at_any_step() {
    let seed = seed();
    let all = changes_of_a_life();
    assert!(all > 100, "{all} changes");
    let modes = |point: u64| (0..4).map(move |mode| (point, mode + (point ^ seed) / 4 * 4));
    let cases = (0..all).flat_map(modes).collect();
    let hits = run(shuffled(cases, seed), |&(point, mode)| {
        let disk = SimDisk::new();
        let mut client = Client::default();
        disk.fault_at_change(point, Fault::PowerOff);
        life(&disk, &mut client);
        disk.crash(crash_mode(mode));
        check(&disk, &client);
        disk.hits()
    });
    let cut: u64 = hits.iter().sum();
    assert!(cut > 0 && cut >= hits.len() as u64 / 2, "power was lost {cut} times in {} cases", hits.len());
}

#[test]
fn a_recovery_that_loses_power_itself_is_repeated_to_the_same_end() {
    let seed = seed();
    let all = changes_of_a_life();
    // A recovery makes fewer changes than a life; the latest points are not met.
    let cases =
        (0..all).step_by(5).flat_map(|first| (0..all * 2 / 3).step_by(3).map(move |second| (first, second)));
    let hits = run(shuffled(cases.collect(), seed), |&(first, second)| {
        let disk = SimDisk::new();
        let mut client = Client::default();
        disk.fault_at_change(first, Fault::PowerOff);
        life(&disk, &mut client);
        disk.crash(crash_mode(seed ^ first));
        disk.fault_at_change(second, Fault::PowerOff);
        let before = disk.hits();
        recover(&disk);
        let cut = disk.hits() - before;
        disk.crash(crash_mode(seed ^ second));
        check(&disk, &client);
        cut
    });
    let cut: u64 = hits.iter().sum();
    assert!(cut > 0 && cut >= hits.len() as u64 / 4, "power was lost {cut} times in {} cases", hits.len());
}
