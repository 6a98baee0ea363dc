//! How it goes with one sink, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is counted of one sink since the process started.
#[derive(Debug, Default)]
pub struct SinkFigures {
    behind: AtomicU64,
    oldest_us: AtomicI64,
    sent: AtomicU64,
    missed: AtomicU64,
    missed_records: AtomicU64,
    kept_bytes: AtomicU64,
    errors: Mutex<BTreeMap<&'static str, u64>>,
    passed_by: Mutex<BTreeMap<&'static str, u64>>,
    failing: AtomicBool,
}

/// [`SinkFigures`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Records journaled or sealed that the sink has not acknowledged, those that it does not want included.
    pub behind: u64,
    /// Time of the oldest leaf that is on its way, microseconds UTC.
    pub oldest_us: Option<i64>,
    /// Leaves and notices that were acknowledged.
    pub sent: u64,
    /// Notices of missed leaves.
    pub missed: u64,
    /// The records that they name, where their count is known.
    pub missed_records: u64,
    /// Bytes of sealed records that are kept, for all sinks together.
    pub kept_bytes: u64,
    /// Tries that failed, by reason; `read` where leaves could not be read for it.
    pub errors: BTreeMap<&'static str, u64>,
    /// Leaves that the sink will never take and that were passed by, by reason.
    pub passed_by: BTreeMap<&'static str, u64>,
    /// Whether the sink did not take what it was sent last of the running log.
    pub failing: bool,
}

impl SinkFigures {
    /// What they are now.
    pub fn counts(&self) -> SinkCounts {
        let oldest_us = self.oldest_us.load(Ordering::Relaxed);
        SinkCounts {
            behind: self.behind.load(Ordering::Relaxed),
            oldest_us: (oldest_us != 0).then_some(oldest_us),
            sent: self.sent.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
            missed_records: self.missed_records.load(Ordering::Relaxed),
            kept_bytes: self.kept_bytes.load(Ordering::Relaxed),
            errors: self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            passed_by: self.passed_by.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            failing: self.failing.load(Ordering::Relaxed),
        }
    }

    /// The sink will never take so many leaves, and they count as acknowledged.
    pub fn passed_by(&self, reason: &'static str, leaves: u64) {
        let mut passed_by = self.passed_by.lock().unwrap_or_else(PoisonError::into_inner);
        *passed_by.entry(reason).or_default() += leaves;
    }

    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// The sink did not take leaves of the running log; whether it did before.
    pub(super) fn failed(&self) -> bool {
        !self.failing.swap(true, Ordering::Relaxed)
    }

    pub(super) fn error(&self, reason: &'static str) {
        *self.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// The sink has taken so many; whether it did not before.
    pub(super) fn acknowledged(&self, items: u64) -> bool {
        self.sent.fetch_add(items, Ordering::Relaxed);
        self.failing.swap(false, Ordering::Relaxed)
    }

    pub(super) fn missed(&self, records: u64) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.missed_records.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn on_its_way_since(&self, oldest_us: Option<i64>) {
        self.oldest_us.store(oldest_us.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn observe(&self, behind: u64, kept_bytes: u64) {
        self.behind.store(behind, Ordering::Relaxed);
        self.kept_bytes.store(kept_bytes, Ordering::Relaxed);
    }
}
