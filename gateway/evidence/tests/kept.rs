//! What is archived is kept for a while: what the store loses is put again, and nobody is refused for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use evidence::disk::SimDisk;
use evidence::{KeyScope, Ledger, LedgerConfig, Reason, Reship, Reshipped, reship};
use schemas::record::CloseReason;
use schemas::{ObjectName, Origin};
use support::{Bed, exchange, noise, verify};

const CLOSE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn keeping(bed: &Bed) -> LedgerConfig {
    LedgerConfig { spool_keep: DAY, ..bed.config() }
}

/// An exchange in a batch of its own, which is archived.
async fn batch(ledger: &Ledger, n: u64) {
    let request = format!("request {n}");
    exchange(ledger, KeyScope::PerExchange, request.as_bytes(), &noise(n, 20_000)).await.unwrap();
    let at = ledger.watermarks().journaled;
    ledger.seal_now();
    assert!(ledger.wait_archived(at, CLOSE).await);
}

fn missing() -> Reship {
    Reship { missing: true, since_us: None, batches: Vec::new(), within: CLOSE }
}

/// What became of the batches, by number.
fn became(done: Result<evidence::ReshipReport, evidence::ReshipError>) -> Vec<(u64, Reshipped)> {
    done.unwrap().batches.into_iter().map(|one| (one.batch, one.became)).collect()
}

/// The objects of a batch in the store.
fn objects(bed: &Bed, origin: &Origin, batch: u64) -> Vec<PathBuf> {
    let folder = bed.folder("out").join(origin.as_str());
    let names =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of =
        names.filter(|name| ObjectName::parse_file(origin, name).is_ok_and(|name| name.batch() == batch));
    of.map(|name| folder.join(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_lost_is_put_again_byte_for_byte() {
    let bed = Bed::real();
    let ledger = Ledger::open(keeping(&bed)).unwrap();
    for n in 0..4 {
        batch(&ledger, n).await;
    }
    let origin = ledger.origin().clone();
    assert_eq!(became(ledger.reship(missing()).await), [], "nothing is missing");
    assert!(ledger.watermarks().kept_bytes > 4 * 20_000);
    assert_eq!(ledger.watermarks().spool_bytes, 0);

    // All of one batch, one object of another.
    let lost: Vec<PathBuf> = [objects(&bed, &origin, 1), vec![objects(&bed, &origin, 2)[0].clone()]].concat();
    let before: Vec<Vec<u8>> = lost.iter().map(|path| std::fs::read(path).unwrap()).collect();
    lost.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let whole = lost.len() as u64 - 1;
    let again = |objects| Reshipped::Again { objects };
    assert_eq!(became(ledger.reship(missing()).await), [(1, again(whole)), (2, again(1))]);
    let after: Vec<Vec<u8>> = lost.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(before == after);
    assert_eq!(ledger.watermarks().reshipped, 2);

    // By name and by time: what is there is said to be there, what is not kept is said not to be.
    let named =
        Reship { missing: false, batches: vec![(origin.clone(), 0), (origin.clone(), 99)], ..missing() };
    assert_eq!(became(ledger.reship(named.clone()).await), [(0, Reshipped::There), (99, Reshipped::NotKept)]);
    let named = Reship { missing: true, ..named };
    assert_eq!(became(ledger.reship(named).await), [(0, Reshipped::There), (99, Reshipped::NotKept)]);
    let since = Reship { missing: false, since_us: Some(i64::MAX), ..missing() };
    assert_eq!(became(ledger.reship(since).await), []);

    // Other bytes under the name are not overwritten.
    let path = objects(&bed, &origin, 3).into_iter().next().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "forged").unwrap();
    let all = Reship { missing: false, ..missing() };
    let told = became(ledger.reship(all).await);
    assert!(matches!(&told[3], (3, Reshipped::Failed(why)) if why.contains("is taken")), "{told:?}");
    assert!(told[..3].iter().all(|(_, became)| *became == Reshipped::There), "{told:?}");
    std::fs::remove_file(&path).unwrap();

    // Closed, and with no process: what is kept stays, the closing batch too.
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    drop(ledger);
    std::fs::remove_dir_all(bed.folder("out").join(origin.as_str())).unwrap();
    let told = became(reship(&keeping(&bed), &missing()));
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told.iter().all(|(_, became)| matches!(became, Reshipped::Again { .. })), "{told:?}");
    assert_eq!(verify(&bed)[0].batches, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recovery_ships_is_kept_too() {
    let bed = Bed::real();
    let ledger = Ledger::open(keeping(&bed)).unwrap();
    exchange(&ledger, KeyScope::PerExchange, b"one", b"two").await.unwrap();
    let dead = ledger.origin().clone();
    ledger.halt();
    drop(ledger);
    let ledger = Ledger::open(keeping(&bed)).unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    drop(ledger);
    std::fs::remove_dir_all(bed.folder("out").join(dead.as_str())).unwrap();
    let told = reship(&keeping(&bed), &missing()).unwrap();
    assert!(!told.batches.is_empty() && told.batches.iter().all(|one| one.origin == dead), "{told:?}");
    assert_eq!(verify(&bed).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_a_start_removes_what_was() {
    let bed = Bed::real();
    let ledger = Ledger::open(keeping(&bed)).unwrap();
    batch(&ledger, 1).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    drop(ledger);
    assert!(reship(&keeping(&bed), &missing()).unwrap().kept > 0);
    let ledger = Ledger::open(bed.config()).unwrap();
    batch(&ledger, 2).await;
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(reship(&keeping(&bed), &missing()).unwrap().kept, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_for_want_of_space_while_anything_is_kept() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(LedgerConfig { segment_bytes: 1 << 20, ..keeping(&bed) }).unwrap();
    for n in 0..8 {
        let answer = noise(n, 1 << 20);
        exchange(&ledger, KeyScope::PerExchange, b"{}", &answer).await.unwrap();
        let at = ledger.watermarks().journaled;
        ledger.seal_now();
        assert!(ledger.wait_archived(at, CLOSE).await);
    }
    let kept = ledger.watermarks().kept_bytes;
    assert!(kept > 8 << 20, "{kept}");
    disk.set_capacity(Some(disk.used() + (1 << 20)));
    let (mut more, mut seen) = (0, BTreeSet::new());
    let refused = loop {
        let answer = noise(100 + more, 512 << 10);
        match exchange(&ledger, KeyScope::PerExchange, b"{}", &answer).await {
            Ok(_) => more += 1,
            Err(refused) => break refused,
        }
        seen.insert(ledger.watermarks().kept_bytes);
        assert!(more < 200, "the disk is not full: {seen:?}");
    };
    assert_eq!(refused.reason, Reason::DiskFull, "{refused}");
    assert_eq!(ledger.watermarks().kept_bytes, 0, "refused while something was kept: {refused}");
    // Each needs room in journal, spool and store; without what was kept there would be none for the first.
    assert!(more >= 3, "{more} more exchanges; {seen:?}");
    disk.set_capacity(None);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    drop(ledger);
    let logs = verify(&bed);
    let outcomes = logs[0].kinds().into_iter().filter(|kind| *kind == "outcome").count() as u64;
    assert!(outcomes >= 8 + more, "{outcomes}");
}
