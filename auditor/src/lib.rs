//! Verifies Affidavit evidence and answers questions from proven rows only.
//!
//! ```text
//! source (read only) -> verify (batch, log, gateway) -> report
//!                          |-> cache of proven rows -> query, cost, show, assess, report, serve
//! ```
//! The auditor trusts nothing that it has not checked (AU-1), collects every finding (AU-4), and shares no code with
//! the gateway but the evidence format and the price book (AU-5).

pub mod access;
pub mod assess;
pub mod bucket;
pub mod cache;
pub mod cli;
pub mod commands;
pub mod content;
pub mod cost;
pub mod decimal;
pub mod export;
pub mod finding;
pub mod interrupt;
pub mod mandate;
pub mod paper;
pub mod probe;
pub mod proof;
pub mod query;
pub mod receipts;
pub mod recipients;
pub mod reconcile;
pub mod registry;
pub mod render;
pub mod reperform;
pub mod report;
pub mod sample;
pub mod scratch;
pub mod serve;
pub mod source;
pub mod state;
pub mod subject;
pub mod time;
pub mod trust;
pub mod turns;
pub mod verify;
pub mod witness;

#[cfg(test)]
mod fixture;
