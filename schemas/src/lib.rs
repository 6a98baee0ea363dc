//! Affidavit's evidence format, version 1: records, leaves, the Merkle tree, seals, content, files and their
//! verification, as types and pure functions. Normative text: `FORMAT.md` beside this crate.
//!
//! Knows no network, disk, clock or runtime. `gateway` writes with it, `auditor` checks with it.

pub mod canonical;
pub mod columns;
pub mod content;
pub mod digest;
pub mod files;
pub mod holds;
pub mod keytable;
pub mod leaf;
mod lines;
pub mod merkle;
pub mod names;
#[cfg(debug_assertions)]
pub mod next;
pub mod note;
pub mod part_name;
pub mod promise;
pub mod record;
pub mod registry;
pub mod seal;
pub mod ship;
pub mod timestamp;
pub mod tlog;
pub mod trust;
pub mod verify;

pub use digest::Sha256Hex;
pub use lines::LineError;
pub use names::{ExchangeId, Identifier, ObjectName, Origin};
