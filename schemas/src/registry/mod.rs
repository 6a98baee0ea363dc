//! The registry: the log of logs of a deployment. Its batches and seals are those of any log; its leaves are entries.
//!
//! An entry is a leaf (`FORMAT.md` 3.1) of a kind of its own. Entries about keys count only with the signature of the
//! deployment's root key over a text of their own ([`KeyStatement`]), so that the root can stay offline. Beside each
//! seal stands a C2SP checkpoint ([`Checkpoint`]). [`State`] tells what the entries say together.
//! Format: `FORMAT.md` 15.

mod checkpoint;
mod entry;
mod key;
mod state;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{
    Audit, ContentErased, Entry, EntryBody, EntryError, LegalHold, LogClosed, LogHead, LogLost, LogOpened,
    Opening, PriceList, RetentionSet, decode, encode,
};
pub use key::{KEY_FIRST_LINE, KeyAction, KeyEntry, KeyError, KeyStatement, Until, root_key_name};
pub use state::{EntryFault, FaultKind, Head, KeyState, Ledger, LogState, State};
