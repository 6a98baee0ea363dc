//! The real programs under what a machine does to them (`tests/run services`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod bedrock;
mod crash;
mod disk_full;
mod receipts;
mod runbook;
mod sdk;
mod subject;
mod tap;
mod watermarks;
