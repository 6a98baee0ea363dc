//! A batch's place in its log: it continues the batch before it.

use std::ops::Deref;

use super::{BatchFault, FaultCode, Faults, VerifiedBatch};
use crate::digest::Sha256Hex;
use crate::merkle::{CompactRange, Hash};
use crate::names::Origin;
use crate::seal::SignedSeal;

/// What the next batch is held against: the end of a log as one seal says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealTail {
    /// The log.
    pub origin: Origin,
    /// The batch's number.
    pub batch: u64,
    /// The tree's size behind the batch.
    pub to: u64,
    /// The tree's root at that size.
    pub root: Hash,
    /// The seal's time.
    pub time: i64,
    /// SHA-256 of the seal object.
    pub sha256: Sha256Hex,
    /// Whether the batch ends with `close`; `None` where its records were not read.
    pub closed: Option<bool>,
}

impl SealTail {
    /// The tail of a seal; `closed` as far as its records are known.
    pub fn of(seal: &SignedSeal, closed: Option<bool>) -> Self {
        Self {
            origin: seal.origin.clone(),
            batch: seal.batch,
            to: seal.to,
            root: seal.root,
            time: seal.time,
            sha256: seal.sha256(),
            closed,
        }
    }
}

/// A verified batch that continues the one before it, or begins its log. Only [`chain`] makes one.
#[derive(Debug)]
pub struct ChainedBatch(VerifiedBatch);

impl Deref for ChainedBatch {
    type Target = VerifiedBatch;
    fn deref(&self) -> &VerifiedBatch {
        &self.0
    }
}

/// Holds `batch` against the batch before it; `None` where it should be the first of its log.
///
/// # Errors
/// All faults found. Never empty.
pub fn chain(previous: Option<&SealTail>, batch: VerifiedBatch) -> Result<ChainedBatch, Vec<BatchFault>> {
    let faults = chain_seal(previous, batch.seal());
    if faults.is_empty() { Ok(ChainedBatch(batch)) } else { Err(faults) }
}

/// The same check on seals alone, for batches whose data files have expired. Empty where `seal` continues.
pub fn chain_seal(previous: Option<&SealTail>, seal: &SignedSeal) -> Vec<BatchFault> {
    let mut faults = Faults::default();
    let mut broken = |what: &str, expected: String, found: String| {
        faults.add(
            FaultCode::ChainBroken,
            Some(seal.from),
            format!("batch {}, {what}", seal.batch),
            expected,
            found,
        );
    };
    let none = || "none".to_string();
    let Some(previous) = previous else {
        if seal.batch != 0 {
            broken("number", "0 for the first batch".into(), seal.batch.to_string());
        }
        if seal.from != 0 {
            broken("range", "from 0".into(), seal.from.to_string());
        }
        if let Some(found) = &seal.previous {
            broken("previous", none(), found.to_string());
        }
        return faults.into_vec();
    };
    if seal.origin != previous.origin {
        broken("origin", previous.origin.to_string(), seal.origin.to_string());
    }
    if Some(seal.batch) != previous.batch.checked_add(1) {
        broken("number", format!("the one after {}", previous.batch), seal.batch.to_string());
    }
    if seal.previous != Some(previous.sha256) {
        let found = seal.previous.map_or_else(none, |hash| hash.to_string());
        broken("previous", previous.sha256.to_string(), found);
    }
    if seal.from != previous.to {
        broken("range", format!("from {}", previous.to), seal.from.to_string());
    }
    // Equal roots of equal size have equal subtree roots, or SHA-256 has failed.
    match CompactRange::from_parts(seal.from, seal.compact.clone()) {
        Ok(range) if range.root() == previous.root => {}
        Ok(range) => broken("compact range", format!("root {}", previous.root), range.root().to_string()),
        Err(error) => broken("compact range", format!("root {}", previous.root), error.to_string()),
    }
    if seal.time < previous.time {
        let place = format!("batch {}, time", seal.batch);
        let expected = format!("at least {}", previous.time);
        faults.add(FaultCode::TimeContradiction, Some(seal.from), place, expected, seal.time);
    }
    if previous.closed == Some(true) {
        let place = format!("batch {}", seal.batch);
        faults.add(FaultCode::AfterClose, Some(seal.from), place, "no batch behind `close`", "a batch");
    }
    faults.into_vec()
}
