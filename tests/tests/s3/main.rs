//! On servers that enforce Object Lock (`tests/run s3`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod assess;
mod auditor;
mod end_to_end;
mod examples;
mod gateway;
mod lies;
mod registry;
mod roles;
mod salvage;
mod services;
mod store;
