//! What was spent, and the questions of whoever pays: by any dimension, how a month will end, against a budget, what
//! caches saved, when prices changed, what another model would have cost.
//!
//! ```text
//! proven rows -> booked (each use once) -> one question -> sheet (table, CSV, JSON lines, Parquet)
//! ```
//! Currencies are never added together. Whatever an answer cannot know stands beside it: exchanges that incurred usage
//! and have no price, and cost that rests on counts that are not the provider's last word.

pub mod booked;
pub mod budget;
pub mod changes;
pub mod forecast;
pub mod group;
pub mod period;
pub mod repriced;
pub mod savings;
pub mod sheet;
pub mod spend;
