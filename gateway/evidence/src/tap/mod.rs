//! The live tap: leaves, never content, to those who must react at once.
//!
//! ```text
//! journal (durable) -> leaves of the running log ----\
//! seal -> spool, and a second name in <spool>/tap ----+-> one thread a sink -> acknowledged -> position, durable
//!                      the store, where it reads ----/
//! ```
//! - A leaf is sent after it is journaled, never instead of it, and nothing waits for a sink: sinks read behind the journal,
//!   not from a queue.
//! - At least once, in the log's order: a position moves only when the sink has acknowledged what is before it, and after a
//!   failure or a death everything behind the position is sent again.
//! - What is sealed is read from a second name of the batch's records, which takes no room of the spool's bound and is
//!   bounded itself ([`Tap::keep_bytes`]). A sink that is behind even that gets it from the store, where that gives it
//!   back, else a notice that says which positions it does not get ([`Missed`]). What may still come into the store is
//!   waited for.
//! - The running log goes first: the logs that dead processes left are sent behind it, one after the other, and one that
//!   cannot be read or is not taken waits by itself, also where the store that it is read from hangs.
//!
//! ```text
//! <spool>/tap/<epoch>/lock                      held by the process that sends this log
//! <spool>/tap/<epoch>/positions                 {"origin":..,"sinks":{NAME:{"next":..,"ended":..}},"end":..}
//! <spool>/tap/<epoch>/<batch>.seal, <batch>-<sha256>.records.parquet
//! ```

mod asking;
mod figures;
mod folder;
mod kafka;
mod keeper;
mod log;
mod rows;
mod sending;
mod store;
#[cfg(test)]
mod tests;
mod window;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::{Origin, Sha256Hex};

use crate::stop::Stop;

pub use figures::{SinkCounts, SinkFigures};
pub use kafka::{KafkaTap, Render};

pub(crate) use folder::{folder, forget, keep};
pub(crate) use keeper::{Shared, begin, start};

/// A leaf on its way to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapLeaf {
    /// Its log.
    pub origin: Origin,
    /// Its position there.
    pub position: u64,
    /// The value of its key `kind`.
    pub kind: String,
    /// The value of its key `at`: microseconds UTC.
    pub at_us: i64,
    /// SHA-256(0x00 || leaf), as in the evidence.
    pub hash: Sha256Hex,
    /// The leaf, verbatim.
    pub bytes: Bytes,
}

/// Leaves that a sink will not get: it was behind what is kept for it, and they cannot be read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The log.
    pub origin: Origin,
    /// The first position.
    pub from: u64,
    /// The position behind the last; absent where the log's end is not known here.
    pub to: Option<u64>,
    /// When this was found: microseconds UTC.
    pub at_us: i64,
}

impl Missed {
    /// The value of the key `kind`: no record has it.
    pub const KIND: &'static str = "tap_gap";

    /// The notice as a JSON object.
    pub fn to_json(&self) -> Vec<u8> {
        let notice = serde_json::json!({
            "v": 1, "kind": Self::KIND, "at": self.at_us, "origin": self.origin, "from": self.from, "to": self.to,
        });
        notice.to_string().into_bytes()
    }
}

/// What a sink gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapItem {
    /// A leaf.
    Leaf(TapLeaf),
    /// What stands for leaves that it will not get.
    Missed(Missed),
}

impl TapItem {
    /// Its log.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Leaf(leaf) => &leaf.origin,
            Self::Missed(missed) => &missed.origin,
        }
    }

    /// Its position, of a notice the first that is missed.
    pub fn position(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.position,
            Self::Missed(missed) => missed.from,
        }
    }

    /// The record's kind, or [`Missed::KIND`].
    pub fn kind(&self) -> &str {
        match self {
            Self::Leaf(leaf) => &leaf.kind,
            Self::Missed(_) => Missed::KIND,
        }
    }
}

/// Why a sink did not take what it was sent. All is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkError {
    /// A word of a closed set, for metrics. After [`SinkError::TIMEOUT`] less is sent at once.
    pub reason: &'static str,
    /// What happened.
    pub detail: String,
    /// How long the sink asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl SinkError {
    /// The reason where the sink did not take it in time.
    pub const TIMEOUT: &'static str = "timeout";

    /// An error without a wish for patience.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None }
    }
}

/// Where leaves go. All calls block; one thread makes them.
pub trait Sink: Send + Debug {
    /// Sends items of one log, in their order. Looks at `stop` where it waits.
    ///
    /// # Errors
    /// After one nothing counts that was not confirmed: it comes again.
    fn send(&mut self, items: &[TapItem], stop: &Stop) -> Result<(), SinkError>;

    /// Whether all that was sent is acknowledged. Where that takes a while it is asked again; `now`: it is not put off any
    /// more, for the process ends, or nothing else is sent before.
    ///
    /// # Errors
    /// As [`Sink::send`].
    fn confirm(&mut self, now: bool, stop: &Stop) -> Result<bool, SinkError> {
        let _ = (now, stop);
        Ok(true)
    }

    /// Something failed: the next call begins anew.
    fn reset(&mut self) {}
}

/// Which leaves a sink wants.
pub type Wanted = Arc<dyn Fn(&TapLeaf) -> bool + Send + Sync>;
/// Makes a sink, for the thread that sends to it.
pub type OpenSink = Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync>;

/// A sink as configured.
#[derive(Clone)]
pub struct TapSink {
    /// Its name, in positions and metrics.
    pub name: String,
    /// Which leaves it wants.
    pub wanted: Wanted,
    /// Makes it.
    pub open: OpenSink,
    /// How it goes.
    pub figures: Arc<SinkFigures>,
}

impl Debug for TapSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapSink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The live tap as configured.
#[derive(Debug, Clone)]
pub struct Tap {
    /// Where leaves go; not empty.
    pub sinks: Vec<TapSink>,
    /// How many bytes of sealed records are kept for sinks that are behind.
    pub keep_bytes: u64,
}
