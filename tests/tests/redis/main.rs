//! On Redis (`tests/run redis`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod amounts;
mod examples;
mod quotas;
