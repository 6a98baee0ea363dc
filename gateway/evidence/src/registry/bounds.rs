//! How much one round does: heads and revocations wait neither for a long ledger nor for a long way through old batches,
//! and no batch of the registry gets larger than readers take.

use std::fmt;

use crate::sealer::{BATCH_LEAF_BYTES, BATCH_RECORDS};

/// What a round does at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries of a batch, and bytes of their leaves.
    pub(super) entries: (usize, usize),
    /// How much of that may be entries about holds and erasures, so that there is room for the rest.
    pub(super) ledger: (usize, usize),
    /// How many batches of all logs are read for holds and erasures.
    pub(super) reads: usize,
    /// For how long, microseconds.
    pub(super) reading_us: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: (BATCH_RECORDS, BATCH_LEAF_BYTES),
            ledger: (10_000, BATCH_LEAF_BYTES / 2),
            reads: 1024,
            reading_us: 5_000_000,
        }
    }
}

/// What one log has of it: no log's backlog keeps another's holds waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Entries about its holds and erasures.
    pub(super) ledger: usize,
    /// Its batches that are read.
    pub(super) reads: usize,
    /// For how long, microseconds; one is read in any case.
    pub(super) reading_us: i64,
}

impl Bounds {
    /// The share of one of so many logs.
    pub(super) fn share(&self, logs: usize) -> Share {
        let logs = logs.max(1);
        Share {
            ledger: (self.ledger.0 / logs).max(1),
            reads: (self.reads / logs).max(1),
            reading_us: self.reading_us / i64::try_from(logs).unwrap_or(i64::MAX),
        }
    }
}

/// What the entries of a round take by now.
#[derive(Debug, Default)]
pub(super) struct Room {
    entries: (usize, usize),
    ledger: (usize, usize),
}

impl Room {
    /// Whether an entry with a leaf of so many bytes has room.
    pub(super) fn has(&self, bounds: &Bounds, of_ledger: bool, bytes: usize) -> bool {
        let fits = |used: (usize, usize), most: (usize, usize)| used.0 < most.0 && used.1 + bytes <= most.1;
        fits(self.entries, bounds.entries) && (!of_ledger || fits(self.ledger, bounds.ledger))
    }

    pub(super) fn add(&mut self, of_ledger: bool, bytes: usize) {
        self.entries = (self.entries.0 + 1, self.entries.1 + bytes);
        if of_ledger {
            self.ledger = (self.ledger.0 + 1, self.ledger.1 + bytes);
        }
    }
}

/// Why an entry was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// The batch is full: it is due again in the next round.
    Full,
    /// It does not hold, or has no leaf.
    Wrong(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the batch is full"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}
