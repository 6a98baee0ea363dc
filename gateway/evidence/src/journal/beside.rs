//! A second place that must have each group before anybody is told of it: the brokers, under `commit: kafka`.

use std::fmt::Debug;

use super::JournalError;

/// What is told when a group is where it must be: `Ok`, or why it never will be.
pub(crate) type Release = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Takes each group and each spill file of one journal.
pub(crate) trait Beside: Send + Sync + Debug {
    /// The journal begins, with this salt. Blocks until the other place knows of it.
    ///
    /// # Errors
    /// It does not take it.
    fn begin(&self, salt: [u8; 32]) -> Result<(), JournalError>;

    /// A group, head and frames, that is about to be written to `segment`. Does not wait.
    fn send(&self, sequence: u64, segment: u32, group: Vec<u8>);

    /// The group of this sequence is on this disk: `release` is called once the other place has it too, and all before
    /// it.
    fn synced(&self, sequence: u64, release: Release);

    /// Bytes of a spill file. Blocks where much is on its way.
    ///
    /// # Errors
    /// The other place does not take them now.
    fn spill(&self, file: &str, offset: u64, bytes: Vec<u8>) -> Result<(), JournalError>;

    /// Waits until all bytes of a spill file are there.
    ///
    /// # Errors
    /// The other place does not take them now.
    fn spilled(&self, file: &str) -> Result<(), JournalError>;

    /// Why nothing will ever be released again, where that is so.
    fn ended(&self) -> Option<JournalError>;

    /// Nothing is sent any more.
    fn close(&self);
}
