//! Journal space for the records of the log itself (CA-7).
//!
//! It is allocated when the epoch opens, so that a log can be closed on a full disk. What `close` needs stands apart:
//! nothing else takes from it. Of the rest one half is for erasures alone; what can wait, or can be refused (heartbeats,
//! counts, a new configuration, what someone did), leaves it alone. What was taken comes back when the disk has space.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::{Frame, Journal, JournalError, Reservation, Ticket};

/// For one record.
const RECORD_BYTES: u64 = 16 << 10;
/// For about 16 records.
const RECORDS_BYTES: u64 = 16 * RECORD_BYTES;
/// Of these, what only erasures take.
const ERASURES_BYTES: u64 = RECORDS_BYTES / 2;
/// For `close`, with what was counted until then.
const CLOSE_BYTES: u64 = 128 << 10;

/// What a record of the log itself is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It can wait or be refused where the disk is full.
    Record,
    /// An erasure.
    Erasure,
    /// The end of the log.
    Close,
}

/// The space; empty before [`OwnSpace::keep`].
#[derive(Debug, Default)]
pub(crate) struct OwnSpace(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    records: Reservation,
    close: Reservation,
}

impl OwnSpace {
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the space. Blocks.
    pub(crate) fn keep(&self, journal: &Journal) -> Result<(), JournalError> {
        let records = journal.reserve_blocking(RECORDS_BYTES)?;
        let close = journal.reserve_blocking(CLOSE_BYTES)?;
        *self.kept() = Some(Kept { records, close });
        Ok(())
    }

    /// Submits frames: from free space, and where there is none from what is kept for their purpose.
    ///
    /// # Errors
    /// They are not in the journal's queue.
    pub(crate) fn submit(
        &self,
        journal: &Journal,
        purpose: Purpose,
        frames: Vec<Frame>,
    ) -> Result<Ticket, JournalError> {
        let mut kept = self.kept();
        let Some(kept) = kept.as_mut() else {
            return journal.try_submit(&mut journal.reserve_nothing(), frames);
        };
        let (space, full, spared) = match purpose {
            Purpose::Record => (&mut kept.records, RECORDS_BYTES, ERASURES_BYTES),
            Purpose::Erasure => (&mut kept.records, RECORDS_BYTES, 0),
            Purpose::Close => (&mut kept.close, CLOSE_BYTES, 0),
        };
        let cost = Journal::cost(frames.iter().map(Frame::payload_bytes));
        if let Err(error) = space.try_extend(cost) {
            if space.left() < cost + spared && purpose != Purpose::Close {
                return Err(error);
            }
            tracing::warn!(
                left = space.left(),
                "the disk is full; a record of the log itself takes from its own space"
            );
        }
        let ticket = journal.try_submit(space, frames);
        // The cost is an upper bound: what was not charged does not pile up.
        space.keep_at_most(full);
        ticket
    }

    /// Takes back what a full disk made it give. Whether records that can wait may be written.
    pub(crate) fn refill(&self) -> bool {
        let mut kept = self.kept();
        let Some(kept) = kept.as_mut() else { return true };
        for (space, full) in [(&mut kept.close, CLOSE_BYTES), (&mut kept.records, RECORDS_BYTES)] {
            let lacking = full.saturating_sub(space.left());
            if lacking > 0 && space.try_extend(lacking).is_err() {
                break;
            }
        }
        kept.records.left() >= ERASURES_BYTES + RECORD_BYTES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;
    use std::sync::Arc;

    use schemas::Origin;

    use super::*;
    use crate::disk::SimDisk;
    use crate::journal::JournalConfig;

    fn journal(disk: &SimDisk) -> Journal {
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        let config = JournalConfig {
            segment_bytes: 1 << 20,
            frame_bytes: 64 << 10,
            group_bytes: 128 << 10,
            ahead_bytes: 512 << 10,
            ..JournalConfig::new(origin, Arc::new(|| 1))
        };
        Journal::create(Arc::new(disk.clone()), Path::new("/j"), config).unwrap()
    }

    fn record(bytes: usize) -> Vec<Frame> {
        let leaf = bytes::Bytes::from(vec![b'x'; bytes]);
        vec![Frame::Record { hash: schemas::Sha256Hex::of(&leaf), leaf }]
    }

    /// Takes all space that is free and can be had.
    fn fill(disk: &SimDisk, journal: &Journal) -> Vec<Reservation> {
        disk.set_capacity(Some(disk.used()));
        let mut held: Vec<_> = journal.reserve_blocking(256 << 10).into_iter().collect();
        for bytes in [64 << 10, 4 << 10, 64, 1] {
            while let Ok(reservation) = journal.try_reserve(bytes) {
                held.push(reservation);
            }
        }
        held
    }

    #[test]
    fn on_a_full_disk_no_record_takes_what_erasures_and_close_need() {
        let disk = SimDisk::new();
        let journal = journal(&disk);
        let own = OwnSpace::default();
        own.keep(&journal).unwrap();
        let held = fill(&disk, &journal);
        let mut written = 0;
        while let Ok(ticket) = own.submit(&journal, Purpose::Record, record(1000)) {
            ticket.wait().unwrap();
            written += 1;
            assert!(written < 100, "a record takes without end");
        }
        assert!(written > 0 && !own.refill());
        let mut erased = 0;
        while let Ok(ticket) = own.submit(&journal, Purpose::Erasure, record(500)) {
            ticket.wait().unwrap();
            erased += 1;
            assert!(erased < 100, "an erasure takes without end");
        }
        assert!(erased >= 8, "{erased} erasures");
        // The largest leaf.
        own.submit(&journal, Purpose::Close, record(60_000)).unwrap().wait().unwrap();
        drop(held);
        assert!(own.refill(), "space came back");
        own.submit(&journal, Purpose::Record, record(1000)).unwrap().wait().unwrap();
    }

    #[test]
    fn records_do_not_hold_on_to_more_and_more_space() {
        let disk = SimDisk::new();
        let journal = journal(&disk);
        let own = OwnSpace::default();
        own.keep(&journal).unwrap();
        for _ in 0..200 {
            while !own.refill() {
                std::thread::yield_now();
            }
            own.submit(&journal, Purpose::Record, record(300)).unwrap().wait().unwrap();
            let kept = own.kept();
            assert!(kept.as_ref().unwrap().records.left() <= RECORDS_BYTES);
        }
    }
}
