//! What is kept, for how long, and what gives way.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::path::Path;

use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::seal::Seal;
use schemas::{Origin, Sha256Hex};

use super::*;
use crate::clock::ManualClock;
use crate::disk::{Crash, Fault, RealDisk, SharedDisk, SimDisk};

const HOUR_US: i64 = 3_600_000_000;
const NOW_US: i64 = 1_795_000_000_000_000;

/// A spool whose batches are kept.
struct Bed {
    disk: SharedDisk,
    dir: PathBuf,
    origin: Origin,
    clock: Arc<ManualClock>,
    kept: Arc<Kept>,
}

impl Bed {
    fn new(disk: SharedDisk, dir: &Path, bound: u64) -> Self {
        let clock = Arc::new(ManualClock::at(NOW_US));
        let kept = Arc::new(Kept {
            shelf: Shelf::new(disk.clone(), dir),
            clock: clock.clone(),
            time: Duration::from_secs(24 * 3600),
            bound,
            state: Mutex::default(),
        });
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        Self { disk, dir: dir.to_owned(), origin, clock, kept }
    }

    fn spool(&self) -> Spool {
        Spool::open(self.disk.clone(), &self.dir, &self.origin).unwrap()
    }

    /// A batch of so many bytes is complete in the spool.
    fn spooled(&self, batch: u64, bytes: usize) -> io::Result<()> {
        let spool = self.spool();
        let mut file = spool.create("records")?;
        file.write_all(&vec![u8::try_from(batch).unwrap(); bytes])?;
        let file = spool.keep(file, batch, FileKind::Records)?;
        let seal = Seal {
            origin: self.origin.clone(),
            batch,
            from: batch,
            to: batch + 1,
            root: Sha256Hex::of(b"root"),
            compact: vec![Sha256Hex::of(b"node"); batch.count_ones() as usize],
            files: vec![file],
            previous: (batch > 0).then(|| Sha256Hex::of(b"before")),
            schema: Sha256Hex::of(b"schema"),
            time: NOW_US,
        };
        let note = seal.sign(&Ed25519Signer::from_seed([7; 32])).unwrap();
        spool.complete(batch, &note)
    }

    /// As the shipper does with what is archived.
    fn archived(&self, batch: u64) -> io::Result<()> {
        let spool = self.spool();
        self.kept.keep(&spool, batch);
        spool.remove(batch)
    }

    fn batch(&self, batch: u64, bytes: usize) {
        self.spooled(batch, bytes).unwrap();
        self.archived(batch).unwrap();
    }

    /// The numbers that are kept, each whole.
    fn whole(&self) -> Vec<u64> {
        let found = self.kept.shelf.find().unwrap();
        let mut numbers: Vec<u64> = found
            .batches
            .iter()
            .map(|kept| {
                let (_, sealed) = self.kept.shelf.seal(kept).unwrap();
                for file in &sealed.files {
                    let bytes =
                        disk::read_file(&*self.disk, &self.kept.shelf.path(kept, &file.name), 1 << 30);
                    assert_eq!(Sha256Hex::of(&bytes.unwrap()), file.sha256);
                }
                kept.batch
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

#[test]
fn what_is_archived_leaves_the_spool_and_is_kept_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(Arc::new(RealDisk), dir.path(), 1 << 30);
    bed.batch(0, 1000);
    assert_eq!(bed.spool().bytes().unwrap(), 0);
    bed.clock.advance(HOUR_US);
    bed.batch(1, 1000);
    bed.kept.tidy(0).unwrap();
    assert_eq!(bed.whole(), [0, 1]);
    // Another process finds the same.
    let other = Bed::new(Arc::new(RealDisk), dir.path(), 1 << 30);
    other.kept.tidy(0).unwrap();
    assert_eq!(other.kept.bytes(), bed.kept.bytes());
    assert!(bed.kept.bytes() > 2000);
    bed.clock.advance(23 * HOUR_US);
    bed.kept.tidy(0).unwrap();
    assert_eq!(bed.whole(), [1], "24 h after it was archived the first goes");
    bed.clock.advance(HOUR_US);
    bed.kept.tidy(0).unwrap();
    assert_eq!((bed.whole(), bed.kept.bytes()), (vec![], 0));
}

#[test]
fn what_waits_for_the_store_pushes_out_what_is_kept_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(Arc::new(RealDisk), dir.path(), 12_000);
    (0..4).for_each(|batch| bed.batch(batch, 2000));
    bed.kept.tidy(0).unwrap();
    assert_eq!(bed.whole().len(), 4);
    bed.kept.tidy(4000).unwrap();
    assert_eq!(bed.whole(), [2, 3]);
    bed.kept.tidy(20_000).unwrap();
    assert_eq!(bed.whole(), [0_u64; 0]);
}

#[test]
fn no_more_is_kept_than_half_of_what_is_free() {
    let disk = SimDisk::new();
    let bed = Bed::new(Arc::new(disk.clone()), Path::new("/spool"), 1 << 30);
    (0..6).for_each(|batch| bed.batch(batch, 100_000));
    disk.set_capacity(Some(disk.used() + 310_000));
    bed.kept.tidy(0).unwrap();
    // Some 604,000 bytes are kept and 310,000 free: when three are gone these are 302,000 and 612,000.
    assert_eq!(bed.whole(), [3, 4, 5]);
}

#[test]
fn a_full_disk_gives_up_what_is_kept_before_it_refuses_anything() {
    let disk = SimDisk::new();
    let bed = Bed::new(Arc::new(disk.clone()), Path::new("/spool"), 1 << 30);
    (0..4).for_each(|batch| bed.batch(batch, 3 << 20));
    disk.set_capacity(Some(disk.used()));
    let roomy = Roomy::over(bed.disk.clone(), Arc::clone(&bed.kept));
    let file = roomy.create(Path::new("/spool/reserve")).unwrap();
    file.allocate(1 << 20).unwrap();
    // The least that goes at a time is 4 MiB: two of them.
    assert_eq!(bed.whole(), [2, 3]);
    file.write_at(&[std::io::IoSlice::new(&vec![1; 5 << 20])], 1 << 20).unwrap();
    let segment = roomy.create(Path::new("/spool/segment")).unwrap();
    segment.prepare(6 << 20).unwrap();
    assert_eq!(bed.whole(), [0_u64; 0]);
    // Now it is full.
    let refused = roomy.create(Path::new("/spool/last")).unwrap().allocate(100 << 20).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(bed.kept.bytes(), 0);
}

#[test]
fn a_disk_that_cannot_keep_a_batch_hinders_nobody() {
    let disk = SimDisk::new();
    let bed = Bed::new(Arc::new(disk.clone()), Path::new("/spool"), 1 << 30);
    bed.spooled(0, 1000).unwrap();
    disk.fault_at(disk::Call::Link, 0, Fault::NoSpace);
    bed.archived(0).unwrap();
    assert_eq!(disk.hits(), 1);
    assert_eq!((bed.spool().bytes().unwrap(), bed.kept.bytes()), (0, 0));
}

#[test]
fn what_is_not_to_be_kept_any_more_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(Arc::new(RealDisk), dir.path(), 1 << 30);
    (0..3).for_each(|batch| bed.batch(batch, 100));
    std::fs::write(bed.kept.shelf.root().join(bed.origin.epoch()).join("0000000009-left"), "over").unwrap();
    bed.kept.forget().unwrap();
    assert_eq!(std::fs::read_dir(bed.kept.shelf.root()).unwrap().count(), 0);
}

#[test]
fn after_power_is_lost_at_any_step_an_archived_batch_is_in_the_spool_or_kept_and_whole() {
    let mut cut = 0;
    for point in 0..60 {
        for crash in [Crash::DropAll, Crash::KeepAll, Crash::Random { seed: point, sector: 512 }] {
            let disk = SimDisk::new();
            disk::create_dir_all(&disk, Path::new("/spool")).unwrap();
            let bed = Bed::new(Arc::new(disk.clone()), Path::new("/spool"), 1 << 30);
            bed.batch(0, 1000);
            bed.spooled(1, 1000).unwrap();
            let before = disk.changes();
            disk.fault_at_change(point, Fault::PowerOff);
            let _ = bed.archived(1);
            cut += u64::from(disk.is_off());
            assert!(disk.changes() > before);
            disk.crash(crash);
            // The next start ships again what is in the spool, and keeps it.
            let next = Bed::new(bed.disk.clone(), Path::new("/spool"), 1 << 30);
            let spool = next.spool();
            spool.clean().unwrap();
            for batch in spool.batches().unwrap() {
                next.archived(batch).unwrap();
            }
            next.kept.tidy(0).unwrap();
            assert_eq!(next.whole(), [0, 1], "at {point}, {crash:?}");
        }
    }
    assert!(cut > 10, "power was lost {cut} times");
}

#[test]
fn of_a_batch_that_was_kept_twice_one_stays_and_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(Arc::new(RealDisk), dir.path(), 1 << 30);
    bed.spooled(0, 1000).unwrap();
    bed.kept.keep(&bed.spool(), 0);
    // The process dies before the spool gives it up.
    bed.clock.advance(HOUR_US);
    let next = Bed::new(Arc::new(RealDisk), dir.path(), 1 << 30);
    next.clock.advance(HOUR_US);
    next.archived(0).unwrap();
    next.kept.tidy(0).unwrap();
    assert_eq!(next.whole(), [0]);
    let folder = next.kept.shelf.root().join(next.origin.epoch());
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2, "the records and one seal");
    assert!(next.kept.state().batches.first().unwrap().archived_us >= NOW_US + HOUR_US);
}
