//! What an erasure of several exchanges is about to record, journaled ahead of its records.
//!
//! A key goes for all that it holds, so that a record of one exchange alone would leave the others without a word. A crash may leave the
//! first few records of a submission: its groups are written one after the other, and a torn group keeps what is whole at its
//! beginning. The plan is before all of them, so that whoever finds one of the records can make those that lack.

use schemas::record::Erasure;

use crate::error::{Reason, Unavailable};
use crate::journal::Frame;

/// Erasures in one frame: with the longest names less than a frame holds.
const OF_FRAME: usize = 256;

/// The frames that go before the records; none where one record is all.
pub(crate) fn frames(erasures: &[Erasure]) -> Result<Vec<Frame>, Unavailable> {
    if erasures.len() < 2 {
        return Ok(Vec::new());
    }
    let frame = |some: &[Erasure]| serde_json::to_vec(some).map(|bytes| Frame::Plan(bytes.into()));
    let frames: Result<Vec<Frame>, _> = erasures.chunks(OF_FRAME).map(frame).collect();
    frames.map_err(|error| Unavailable::new(Reason::RecordRefused, error.to_string()))
}

/// What a frame says.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Erasure>, serde_json::Error> {
    serde_json::from_slice(bytes)
}
