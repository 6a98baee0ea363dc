//! How it goes, as counts for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch::{Stored, Whole};
use super::desk::Desk;
use super::quarantine::Fault;

/// Counts since the start, and how much is on its way.
#[derive(Debug, Default)]
pub struct ArchiveFigures {
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    unknown: AtomicU64,
    predecessors: AtomicU64,
    store_waits: AtomicU64,
    receipt_waits: AtomicU64,
    foreign: AtomicU64,
    held_bytes: AtomicU64,
    open_messages: AtomicU64,
    reading: AtomicBool,
    quarantine_bytes: AtomicU64,
    quarantine_bound: AtomicU64,
    work_bound: AtomicU64,
    oldest_open_ms: AtomicU64,
    behind_ms: AtomicU64,
    archived_us: AtomicI64,
    set_aside: Mutex<BTreeMap<Fault, u64>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveCounts {
    /// Batches that are in the store and whose receipt is acknowledged; a repeat counts again.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Batches of which this version does not know everything.
    pub unknown: u64,
    /// Batches whose predecessor was not in the store when they came.
    pub predecessors_missing: u64,
    /// Tries that the store did not take.
    pub store_failures: u64,
    /// Receipts that could not be sent at once.
    pub receipt_failures: u64,
    /// Messages of other deployments.
    pub foreign: u64,
    /// Bytes in the work folder.
    pub held_bytes: u64,
    /// Messages that are not settled.
    pub open_messages: u64,
    /// Whether partitions of the topic are read.
    pub is_reading: bool,
    /// Bytes that the work folder holds at most.
    pub work_bound: u64,
    /// Bytes in the quarantine folder.
    pub quarantine_bytes: u64,
    /// Bytes that it holds at most.
    pub quarantine_bound: u64,
    /// How long ago the oldest message that is not settled was read, milliseconds; 0 where all are settled.
    pub oldest_open_ms: u64,
    /// How long the message that was read last had been in the topic, milliseconds; 0 where all of it is read.
    pub behind_ms: u64,
    /// When a receipt was acknowledged last, microseconds UTC; 0: not since the start.
    pub archived_us: i64,
    /// What was set aside, by fault.
    pub set_aside: BTreeMap<Fault, u64>,
}

impl ArchiveFigures {
    pub(super) fn archived(&self, batch: &Whole, stored: &Stored, now_us: i64) {
        self.archived_us.store(now_us, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(batch.seal.to - batch.seal.from, Ordering::Relaxed);
        let bytes = batch.objects.iter().map(|(wanted, _)| wanted.length).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unknown.fetch_add(u64::from(!stored.unknown.is_empty()), Ordering::Relaxed);
        self.predecessors.fetch_add(u64::from(stored.predecessor_missing), Ordering::Relaxed);
    }

    pub(super) fn store_waits(&self) {
        self.store_waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn receipt_waits(&self) {
        self.receipt_waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_reading(&self, reads: bool) {
        self.reading.store(reads, Ordering::Relaxed);
    }

    pub(super) fn set_work_bound(&self, bytes: u64) {
        self.work_bound.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn look(&self, desk: &Desk, behind: Duration) {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (quarantine, bound) = desk.quarantine().held();
        self.quarantine_bytes.store(quarantine, Ordering::Relaxed);
        self.quarantine_bound.store(bound, Ordering::Relaxed);
        let oldest = desk
            .oldest_open()
            .map_or(Duration::ZERO, |since| Instant::now().saturating_duration_since(since));
        self.oldest_open_ms.store(milliseconds(oldest), Ordering::Relaxed);
        self.behind_ms.store(milliseconds(behind), Ordering::Relaxed);
        self.held_bytes.store(desk.held(), Ordering::Relaxed);
        self.open_messages.store(desk.open_messages() as u64, Ordering::Relaxed);
        self.foreign.store(desk.foreign(), Ordering::Relaxed);
        *self.set_aside.lock().unwrap_or_else(PoisonError::into_inner) = desk.quarantine().counts().collect();
    }

    /// The counts now.
    pub fn counts(&self) -> ArchiveCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ArchiveCounts {
            batches: get(&self.batches),
            records: get(&self.records),
            bytes: get(&self.bytes),
            unknown: get(&self.unknown),
            predecessors_missing: get(&self.predecessors),
            store_failures: get(&self.store_waits),
            receipt_failures: get(&self.receipt_waits),
            foreign: get(&self.foreign),
            held_bytes: get(&self.held_bytes),
            open_messages: get(&self.open_messages),
            is_reading: self.reading.load(Ordering::Relaxed),
            work_bound: get(&self.work_bound),
            quarantine_bytes: get(&self.quarantine_bytes),
            quarantine_bound: get(&self.quarantine_bound),
            oldest_open_ms: get(&self.oldest_open_ms),
            behind_ms: get(&self.behind_ms),
            archived_us: self.archived_us.load(Ordering::Relaxed),
            set_aside: self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
