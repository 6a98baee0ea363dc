//! The active probe: does a bucket enforce what it says? Canaries under `.affidavit-probe/` are locked in COMPLIANCE mode
//! for a short time, and everything is tried that must be refused. What counts is not the store's answer but what a read
//! finds afterwards.

mod rows;
mod transcript;

pub use rows::{ROWS, run};
pub use transcript::{Outcome, Row, Transcript};
