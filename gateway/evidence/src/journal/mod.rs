//! The journal: a write-ahead log with group commit (CA-1, CA-2, DU-4).
//!
//! One epoch has one journal: a directory of segments, written by one thread and never opened for writing again. What an
//! earlier process left is read by [`recover`].
//!
//! ```text
//! journal = segment-00000000.journal, segment-00000001.journal, ..., spill-<exchange>-<part>-<n>.spill
//! segment = head block (4 KiB: magic, origin, salt, index, length) then groups, each at a multiple of 4 KiB; zeros behind
//! group   = head (64 bytes: magic, tag, sequence, first position, time, length, count, crc) frames, zeros to 4 KiB
//! frame   = length u32, crc32c u32, kind u8, fields          (all integers little-endian)
//! tag     = the first 16 bytes of SHA-256(origin || salt); salt is random per epoch, so that nobody who can put bytes
//!           into the journal can put a group there
//! ```
//!
//! - A segment is allocated zero-filled, its head synced and its name durable, before a group goes there and before the
//!   next segment is made.
//! - A group is written only after the one before it is synced, and no later write touches one of its 4 KiB blocks. So a
//!   group that has a later one is acknowledged: if it is not whole, that is a [`Loss`]. The last one may be cut
//!   ([`Tail::Torn`]).
//! - Records get their positions in the order in which they were submitted; the frames of one submission stay together
//!   and in order. Put content before the record that commits to it. A submission may be spread over groups, and a torn group keeps what
//!   is whole at its beginning: of records that count only together a crash may leave the first few. A plan before them says which.
//! - With a second place ([`Beside`]) each group goes there too, as it is written, and nobody is told of it before both
//!   have it; `journaled` stands behind the last record that was told.
//! - A failed write or sync ends the journal: every waiting and later submission gets [`JournalError::Failed`].
//!
//! ```ignore
//! let journal = Journal::create(disk, &dir, JournalConfig::new(origin, now_us))?;
//! let mut space = journal.reserve(Journal::cost([70_000, 900])).await?;  // CA-7: allocated on disk
//! let synced = journal.submit(&mut space, vec![Frame::Content(..), Frame::Record { leaf, hash }]).await?;
//! synced.positions                                                      // the records' positions
//! journal.submit_unacked(&mut space, Frame::Content(..))?;              // joins the next group, never waits
//! // sealing, from `journal.segments()` or from `recover(..).segments`:
//! for record in segments.records(from..to) { .. }
//! for frame in segments.content(&exchange, PartName::ClientRequest)? { .. }
//! segments.sealed(to, &parts);  segments.archived(to)?;                  // forgets, then deletes whole segments
//! ```

mod append;
mod beside;
mod frame;
mod group;
mod handle;
mod index;
mod rebuild;
mod recover;
mod segments;
mod space;
mod spill;
#[cfg(test)]
mod tests;

pub(crate) use beside::{Beside, Release};
pub use frame::{ContentFrame, Frame, SpillFrame};
pub use handle::{Journal, JournalConfig, Promised, Synced, Ticket};
pub(crate) use rebuild::{Rebuilt, clear, count_records, is_of_journal, read_group};
pub use recover::{Found, Loss, RecoverError, Recovery, Tail, recover};
pub use segments::{ContentFrames, ContentSummary, ReadError, Removed, Segments};
pub use space::Reservation;
pub use spill::SpillWriter;

use std::io;
use std::sync::Arc;

/// Frames of content hold at most this much data, so that nothing in the journal is large.
pub const MAX_CONTENT_BYTES: usize = 256 << 10;

/// Why the journal cannot take or keep frames.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A write or sync failed: this journal takes nothing more, until the next start opens a new epoch (DU-4).
    #[error("the journal failed at {call} of `{file}`: {error}")]
    Failed {
        /// `write`, `sync` or `open`.
        call: &'static str,
        /// The segment.
        file: Arc<str>,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// No space could be allocated. Nothing was written; it is worth trying again later (CA-7).
    #[error("no space for {wanted} bytes of journal: {error}")]
    NoSpace {
        /// Bytes asked for.
        wanted: u64,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// Content that waits for the disk has reached its bound: the disk is slower than the streams.
    #[error("{waiting} bytes of content wait for the disk, at most {limit} may")]
    Behind {
        /// Bytes that wait.
        waiting: usize,
        /// The bound.
        limit: usize,
    },
    /// A frame that no journal takes.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The frame's bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The brokers have not all of it, and cannot be waited for: the lease is over (CA-7).
    #[error("the brokers do not acknowledge: {0}")]
    Uncommitted(Arc<str>),
    /// Another gateway has closed this log: nothing is ever released again.
    #[error("the log was fenced by `{by}`: another gateway closes it")]
    Fenced {
        /// Who wrote the fence.
        by: Arc<str>,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
