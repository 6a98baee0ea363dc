//! On a real Prometheus (`tests/run prometheus`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod alerts;
mod dashboards;
