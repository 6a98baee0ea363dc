//! The active probe: does a bucket enforce what it says? Canaries under `.affidavit-probe/` are locked in COMPLIANCE mode
//! for a short time, and everything is tried that must be refused. What counts is not the store's answer but what a read
//! finds afterwards; and a refusal counts only where the same caller could do the same to a version that no such lock
//! holds, so that a role or bucket policy is not taken for the lock.

mod canary;
mod rows;
mod run;
mod transcript;

pub use rows::{ENFORCES, ROWS};
pub use run::run;
pub use transcript::{Outcome, Row, Transcript};
