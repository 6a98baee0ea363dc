//! What a person looks at, in Chromium (`tests/run browser`); and what needs none.

#![allow(clippy::panic, reason = "tests fail by panicking")]

mod reading;
mod report;
mod serve;
