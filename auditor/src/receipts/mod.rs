//! What callers were promised, held against the proven log (FORMAT 17).
//!
//! ```text
//! FILE -> read -> kept (a line each) -> judge, with what is proven: promise keys by log, records by position
//! ```
//! A receipt counts by the promise key that the log's own, proven `boot` names, never by one that came with it
//! (AU-1); where that `boot` is not proven, by one that another log of the gateway names.

pub mod judge;
pub mod proven;
pub mod read;

#[cfg(test)]
mod tests;
