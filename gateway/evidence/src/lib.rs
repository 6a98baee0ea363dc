//! The way of a record from memory to proof.
//!
//! ```text
//! admit -> intent -> (parts) -> outcome      on the request's task: leaf bytes, hashes, encryption
//!   -> journal                               one thread: group commit, one fsync a group
//!   -> seal                                  one thread: batch, Parquet, tree, signature, into the spool
//!   -> ship -> archive                       one thread: into the store, read back, then journal and spool give way
//!   -> kept                                  for a while, so that what the store loses can be put again
//! ```
//! [`Ledger`] is what the gateway sees. A start recovers what an earlier process left before it opens its own log.

pub mod admission;
pub mod archive;
mod attempts;
pub mod body;
mod cipher;
pub mod clock;
pub mod commit;
pub mod disk;
mod epoch;
pub mod erase;
pub mod error;
pub mod exchange;
mod exchange_id;
pub mod hold;
mod inner;
pub mod journal;
pub mod kept;
mod keys;
pub mod ledger;
mod marks;
pub mod next_minor;
mod open;
mod own;
pub mod part;
pub mod random;
mod recovery;
mod refusals;
pub mod registry;
pub mod salvage;
mod sealer;
mod ship;
mod space;
mod spool;
mod stop;
pub mod store;
pub mod tap;
mod threads;
mod tip;
pub mod topic;
mod unrecorded;
pub mod watermarks;

pub use admission::{Admission, KeyScope, NewPart, PartContent};
pub use body::{BodyChunks, BodySink, StoredBody};
pub use commit::{CommitFigures, CommitKey, CommitSettings};
pub use erase::{EraseError, EraseReport, EraseRequest, EraseTarget, Erased, erase_offline};
pub use error::{Cut, OpenError, Reason, Unavailable};
pub use exchange::OpenExchange;
pub use hold::{
    Held, HoldAsked, HoldError, HoldReport, HoldRequest, MAX_SCOPES, RegistryKey, held, hold_offline,
};
pub use kept::{Reship, ReshipError, ReshipReport, Reshipped, ReshippedBatch, reship};
pub use ledger::{ClosingKey, Counters, Ledger, LedgerConfig, Reference};
pub use part::PartWriter;
pub use refusals::PreAuth;
pub use salvage::{Salvaged, salvage, salvage_from_topic};
pub use stop::Stop;
pub use store::{DirectoryStore, KafkaStore, S3Settings, S3Store, Store, StoreError};
pub use watermarks::{EarlierLogs, Room, Watermarks};
