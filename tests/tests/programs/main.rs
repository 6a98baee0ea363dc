//! The real programs, by themselves (`tests/run integration`).

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod assess;
mod attacks;
mod bounds;
mod corpus_gateway;
mod dependencies;
mod examples;
mod fuzz;
mod hand_over;
mod holds;
mod lease;
mod marker;
mod metrics;
mod probes;
mod quarter;
mod quotas;
mod reconcile;
mod reship;
mod routes;
mod sample;
mod scale;
mod semantic;
mod starter_book;
mod timestamp;
