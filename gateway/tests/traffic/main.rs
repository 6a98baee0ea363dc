//! Traffic through the whole gateway: a real ledger on a folder, a provider in this process, callers over sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cloned_ref_to_slice_refs, reason = "tests")]

mod aborts;
mod answers;
mod balanced;
mod bodies;
mod connections;
mod deploy;
mod disk;
mod drain;
mod ends;
mod estimates;
mod fallback;
mod flow_control;
mod malformed;
mod operator;
mod paths;
mod pki;
mod process;
mod program;
mod provider;
mod quiet;
mod quotas;
mod refusals;
mod reload;
mod rig;
mod routes;
mod said;
mod translated;
mod translated_corpus;
mod upstream;
mod way;
