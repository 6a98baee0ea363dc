//! Progress: four counts of records that only move forward (DU-1).

use crate::commit::CommitFigures;
use crate::store::Trouble;

/// How far evidence has come. Each count is the position behind the last record that got there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// On stable storage in the journal.
    pub journaled: u64,
    /// In a signed batch in the spool, on stable storage.
    pub sealed: u64,
    /// Put into the store.
    pub shipped: u64,
    /// Read back from the store and compared.
    pub archived: u64,
    /// Time of the oldest record that is not sealed, microseconds UTC.
    pub oldest_unsealed_us: Option<i64>,
    /// Time of the oldest record that is not put into the store, microseconds UTC.
    pub oldest_unshipped_us: Option<i64>,
    /// Time of the oldest record that is not archived, microseconds UTC.
    pub oldest_unarchived_us: Option<i64>,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Bytes of archived batches that are kept for a store that loses them.
    pub kept_bytes: u64,
    /// Kept batches that were put again, and that the store had lost.
    pub reshipped: u64,
    /// Bytes of the journal's segments.
    pub journal_bytes: u64,
    /// Bytes reserved for admitted exchanges.
    pub reserved_bytes: u64,
    /// Exchanges that have an intent and no outcome yet.
    pub open_exchanges: u64,
    /// How often shipping failed and is to be tried again.
    pub ship_retries: u64,
    /// The same by reason, in the order of [`Trouble::ALL`].
    pub ship_failures: [u64; Trouble::ALL.len()],
    /// What is in the way of shipping now.
    pub ship_trouble: Option<Trouble>,
    /// Receipts by nobody who counts, found among those that answer batches.
    pub receipts_forged: u64,
    /// Batches that were put again, for want of a receipt.
    pub put_again: u64,
    /// Under `commit: kafka`: how far the brokers are behind.
    pub commit: Option<CommitFigures>,
    /// Exchanges that passed, or were refused, unrecorded on routes with `fail_mode: open`, since the start.
    pub unrecorded: u64,
    /// Those of them that no `gap` record tells of yet.
    pub untold: u64,
    /// Data keys whose erasure is recorded and that are not destroyed yet.
    pub erasures_due: u64,
    /// The logs that earlier processes left in the journal folder.
    pub earlier: EarlierLogs,
}

/// Logs in the journal folder that are not this process's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EarlierLogs {
    /// Another process still writes it: it drains.
    pub running: u64,
    /// Not recovered, or not all in the store yet.
    pub waiting: u64,
    /// Stopped, with its disk kept: someone must look.
    pub stopped: u64,
    /// When the oldest of them began, microseconds UTC.
    pub oldest_us: Option<i64>,
}

/// What is known of a log in the journal folder that is not this process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlierLog {
    Running,
    Waiting,
    Stopped,
}

impl EarlierLogs {
    /// One more, that began at `began_us`.
    pub(crate) fn add(&mut self, log: EarlierLog, began_us: Option<i64>) {
        *match log {
            EarlierLog::Running => &mut self.running,
            EarlierLog::Waiting => &mut self.waiting,
            EarlierLog::Stopped => &mut self.stopped,
        } += 1;
        self.oldest_us = [self.oldest_us, began_us].into_iter().flatten().min();
    }
}

/// How much the disks still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Free bytes where the journal is; `None` where the system does not say.
    pub journal: Option<u64>,
    /// Free bytes where the spool is.
    pub spool: Option<u64>,
    /// Free bytes where the key table is.
    pub key_table: Option<u64>,
    /// Bytes that may wait for the store before traffic is refused.
    pub spool_bound: u64,
    /// In how many seconds traffic is refused for want of room, if it goes on as in the last minutes: by the bound, or by
    /// the spool's disk where that is full before. `None` where nothing fills.
    pub full_in_s: Option<u64>,
}
