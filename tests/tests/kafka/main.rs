//! On Apache Kafka (`tests/run kafka`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod access;
mod archive;
mod attacks;
mod cluster;
mod commit;
mod compose;
mod receipts;
mod registry;
mod reship;
mod runbook;
mod service;
mod shared;
mod ship;
mod skew;
mod tap;
mod together;
