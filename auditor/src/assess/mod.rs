//! Compliance packs: questions about proven rows, and what their answers support.
//!
//! ```text
//! pack (data: rule, question, facts it needs, words, cases) ─┐
//! proven rows, report, bucket ─▶ fact (a table each) ────────┼─▶ control (one question) ─▶ Assessment ─▶ text, JSON, CSV
//! the user's registers ───────▶ register (read strictly) ────┘
//! ```
//! A question gives the rows that are exceptions: no row where all is well. One that had nothing to look at is not
//! judged, and so is one without exceptions over evidence that is not whole; neither is ever a pass, and where only the
//! user's own registers were looked at the answer says that they alone state it. No pack and no
//! report says that somebody keeps a rule: evidence supports it, or shows exceptions, or cannot show it.

pub mod cases;
pub mod control;
pub mod exchanges;
pub mod fact;
pub mod pack;
pub mod packs;
pub mod register;
pub mod render;
pub mod result;
pub mod rows;
pub mod run;
pub mod tables;

pub use pack::Pack;
pub use result::Assessment;

#[cfg(test)]
mod tests;
