//! Promises: under one signature a group, of what is on stable storage, and of nothing else.

use std::collections::BTreeMap;

use schemas::note::{Ed25519Signer, Signer as _};

use super::*;
use crate::disk::{Call, Crash, Fault};

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed([33; 32])
}

/// Submits a record behind content and asks for its promise.
fn promised(journal: &Journal, n: u32) -> Result<Synced, JournalError> {
    let frame = record(n);
    let Frame::Record { hash, .. } = &frame else { unreachable!() };
    let hash = *hash;
    let mut reservation = journal.reserve_blocking(40_000)?;
    journal.try_submit_promised(&mut reservation, vec![content(n, 0, 3_000), frame], Some(hash))?.wait()
}

#[test]
fn callers_at_once_get_promises_of_their_own_records_under_few_signatures() {
    let disk = SimDisk::new();
    let journal = Journal::create(shared(&disk), dir(), small_config()).unwrap();
    let threads: Vec<_> = (0..8u32)
        .map(|thread| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                let each = |n: u32| (n, promised(&journal, n).unwrap());
                (0..40).map(|n| each(thread * 40 + n)).collect::<Vec<_>>()
            })
        })
        .collect();
    let told: Vec<(u32, Synced)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let plain = put(&journal, vec![record(999)]).wait().unwrap();
    assert!(plain.promised.is_none(), "nobody asked for it");
    let (mut groups, mut positions) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for (n, synced) in &told {
        let promise = synced.promised.as_ref().unwrap().promise(&signer()).unwrap();
        promise.verify(&signer().public_key()).unwrap();
        assert_eq!((promise.position, &promise.origin), (synced.positions.start, &origin()));
        let Frame::Record { hash, .. } = record(*n) else { unreachable!() };
        assert_eq!(promise.leaf, hash);
        assert!(positions.insert(promise.position));
        groups.insert(promise.signature, promise.count);
    }
    assert_eq!((told.len(), groups.values().sum::<u64>()), (320, 320));
    assert!(groups.len() as u64 <= journal.groups());
    // What was promised is what a start after a loss of power finds.
    disk.crash(Crash::DropAll);
    let (_, frames) = recovered(&disk).unwrap();
    let found: BTreeMap<u64, Frame> =
        frames.into_iter().filter(|(_, frame)| matches!(frame, Frame::Record { .. })).collect();
    assert!(told.iter().all(|(n, synced)| found.get(&synced.positions.start) == Some(&record(*n))));
}

#[test]
fn nothing_is_promised_of_a_group_that_could_not_be_synced() {
    let disk = SimDisk::new();
    let journal = Journal::create(shared(&disk), dir(), small_config()).unwrap();
    assert!(promised(&journal, 0).unwrap().promised.is_some());
    disk.fault_at(Call::SyncData, 0, Fault::Io);
    assert!(matches!(promised(&journal, 1), Err(JournalError::Failed { .. })));
    assert!(promised(&journal, 2).is_err());
}
