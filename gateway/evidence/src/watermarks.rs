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
    /// Time of the oldest record that is not archived, microseconds UTC.
    pub oldest_unarchived_us: Option<i64>,
    /// Bytes in the spool.
    pub spool_bytes: u64,
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
    /// In how many seconds the spool is over its bound, if it goes on as in the last minutes; `None` where it does not
    /// fill.
    pub spool_full_in_s: Option<u64>,
}
