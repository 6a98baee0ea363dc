//! Verification of batches: types that cannot be made without the checks.
//!
//! [`verify_batch`] takes a seal and the bytes of its records file and gives a [`VerifiedBatch`], or all faults.
//! [`ChainedBatch`] adds the check against the batch before. Nothing stops at the first fault (AU-4).

mod batch;
mod chain;
mod fault;

pub use batch::{BatchInput, VerifiedBatch, VerifiedLeaf, verify_batch, verify_batch_with};
pub use chain::{ChainedBatch, SealTail, chain, chain_seal};
pub use fault::{BatchFault, FaultCode, Faults, KEPT_PER_CODE};

#[cfg(test)]
mod tests;
