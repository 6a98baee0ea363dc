//! Traffic through the whole gateway: a real ledger on a folder, a provider in this process, callers over sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cloned_ref_to_slice_refs, reason = "tests")]

mod aborts;
mod answers;
mod bodies;
mod connections;
mod disk;
mod ends;
mod operator;
mod provider;
mod refusals;
mod rig;
