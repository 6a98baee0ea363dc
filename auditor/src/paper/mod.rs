//! The report that people read and print: one HTML file without scripts, its data beside it, and a signature over both.
//!
//! ```text
//! report, assessment, proven rows ─▶ data (serialisable) ─▶ page (HTML, charts as SVG) ─┐
//!                                     │                                                ├─▶ signed (a note)
//!                                     └── FILE.json ───────────────────────────────────┘
//! ```
//! The page is a function of the data alone: no clock, no locale, no map without an order. Whoever holds the data can make
//! the same bytes again, and `auditor check-report` does.

pub mod chart;
pub mod data;
pub mod html;
pub mod key;
pub mod page;
pub mod sections;
pub mod signed;
pub mod statement;
pub mod summary;
pub mod volumes;

pub use data::Data;

#[cfg(test)]
mod tests;
