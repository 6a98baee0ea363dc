//! Keeping house where something cannot be written: what one log, or a full disk, does not stand in the way of.

use std::io::ErrorKind;

use super::disk::Grudging;
use super::*;

fn positions(bed: &Bed, origin: &Origin) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(bed.folder(origin).join("positions")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_positions_cannot_be_saved_keeps_no_other_from_it() {
    let disk = Arc::new(Grudging::default());
    let bed = Bed { disk: disk.clone(), ..Bed::new() };
    bed.refuse(true);
    let ledger = bed.open();
    let dead = ledger.origin().clone();
    append(&ledger, 20).await;
    ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    drop(ledger);
    disk.refuse("create", format!("{}/positions.new", dead.epoch()), ErrorKind::PermissionDenied);
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    bed.refuse(false);
    append(&ledger, 20).await;
    let end = ledger.watermarks().journaled;
    assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    until("the running log's positions are saved", || {
        positions(&bed, &origin)["sinks"]["siem"]["next"] == end
    });
    assert_eq!(positions(&bed, &origin)["end"], end);
    until("nothing of it is kept", || kept_in(&bed.folder(&origin)).is_empty());
    until("the dead log, which every sink has now, is cleared up", || !bed.folder(&dead).exists());
    assert!(disk.refused() > 0);
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_what_every_sink_has_gives_way_and_the_rest_stays_within_its_bound() {
    let disk = Arc::new(Grudging::default());
    let mut bed = Bed { disk: disk.clone(), ..Bed::new() };
    let ledger = bed.open();
    let origin = ledger.origin().clone();
    disk.refuse("create", "positions.new", ErrorKind::StorageFull);
    append(&ledger, 20).await;
    let end = ledger.watermarks().journaled;
    assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    until("the sink has it", || bed.positions(&origin).len() as u64 >= end);
    until("nothing is kept, though no position can be saved", || kept_in(&bed.folder(&origin)).is_empty());
    assert!(disk.refused() > 0);
    // Nor does it keep anything from being dropped.
    bed.refuse(true);
    append(&ledger, 20).await;
    let end = ledger.watermarks().journaled;
    assert!(ledger.wait_archived(end, Duration::from_secs(20)).await);
    ledger.halt();
    drop(ledger);
    assert!(!kept_in(&bed.folder(&origin)).is_empty());
    bed.keep_bytes = Some(0);
    let spared = Arc::new(Grudging::default());
    spared.refuse("create", format!("{}/positions.new", origin.epoch()), ErrorKind::StorageFull);
    bed.disk = spared;
    let next = bed.open();
    until("the rest is dropped", || kept_in(&bed.folder(&origin)).is_empty());
    bed.refuse(false);
    until("it comes out of the store", || {
        bed.taken.items.lock().unwrap().iter().any(|item| *item.origin() == origin && item.kind() == "close")
    });
    assert!(bed.missed().is_empty());
    next.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_taken_over_keeps_no_other_from_it() {
    let disk = Arc::new(Grudging::default());
    let bed = Bed { disk: disk.clone(), ..Bed::new() };
    bed.refuse(true);
    let mut dead = Vec::new();
    for _ in 0..2 {
        let ledger = bed.open();
        dead.push(ledger.origin().clone());
        append(&ledger, 5).await;
        ledger.drain_and_close(CloseReason::Shutdown, Duration::from_secs(20)).await.unwrap();
    }
    disk.refuse("open_read", format!("tap/{}/positions", dead[0].epoch()), ErrorKind::PermissionDenied);
    bed.refuse(false);
    let ledger = bed.open();
    until("the other one comes", || {
        bed.taken.items.lock().unwrap().iter().any(|item| *item.origin() == dead[1] && item.kind() == "close")
    });
    assert!(bed.positions(&dead[0]).is_empty());
    ledger.halt();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_kept_with_its_seal_or_not_at_all() {
    let bed = Bed::new();
    let (origin, files) = super::behind::closed(&bed).await;
    let seal = files.iter().find(|file| file.to_string_lossy().ends_with(".seal")).unwrap();
    let (from, note) = (seal.parent().unwrap(), std::fs::read(seal).unwrap());
    let disk = Grudging::default();
    disk.refuse("link", ".seal", ErrorKind::StorageFull);
    let to = bed.folder(&origin).join("other");
    std::fs::create_dir(&to).unwrap();
    assert!(keep(&disk, from, &to, &note).is_err());
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0);
    keep(&RealDisk, from, &to, &note).unwrap();
    keep(&RealDisk, from, &to, &note).unwrap();
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 2);
}
