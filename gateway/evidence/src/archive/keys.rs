//! Whose seals count, as the archiver knows it: from a trust file, or from the registry in the store.

use std::fmt::Debug;

use schemas::seal::{self, SignedSeal};
use schemas::trust::{Trust, TrustedGateway};

/// Says who may seal a log.
pub trait Keys: Send + Sync + Debug {
    /// The gateways and their keys, as they are now.
    fn trust(&self) -> std::sync::Arc<Trust>;
}

/// Why a seal does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// Another deployment's.
    #[error("it is of deployment `{0}`")]
    Deployment(String),
    /// No key is known for the log.
    #[error("no key is known for this log")]
    Unknown,
    /// By none of the keys of its log.
    #[error("it is not signed by a key of this log: {0}")]
    NotSigned(String),
    /// By a key that does not count that far.
    #[error("its key does not count for this log up to size {0}")]
    Limit(u64),
}

/// Verifies a seal by the keys of its log; gives the key too.
pub(crate) fn verify(note: &[u8], trust: &Trust) -> Result<(SignedSeal, [u8; 32]), KeyFault> {
    let unsigned = |error: seal::SealError| KeyFault::NotSigned(error.to_string());
    let said = seal::parse_unverified(note).map_err(unsigned)?;
    if said.origin.deployment() != trust.deployment {
        return Err(KeyFault::Deployment(said.origin.deployment().into()));
    }
    let covering: Vec<&TrustedGateway> =
        trust.gateways.iter().filter(|entry| entry.covers(&said.origin)).collect();
    // Where entries list the log they alone speak for it: they know how far its key counts.
    let is_listed = covering.iter().any(|entry| entry.logs.is_some());
    let mut last = KeyFault::Unknown;
    for entry in covering.into_iter().filter(|entry| entry.logs.is_some() == is_listed) {
        let own = entry.public_key().ok().map(|key| (key, entry.counts_for(&said.origin, said.to)));
        let closes = entry.closers_count_for(&said.origin, said.to);
        for (key, counts) in own.into_iter().chain(entry.closing_keys().map(|key| (key, closes))) {
            match seal::verify(note, &key) {
                Ok(sealed) if counts => return Ok((sealed, key)),
                Ok(_) => last = KeyFault::Limit(said.to),
                Err(error) if matches!(last, KeyFault::Unknown) => last = unsigned(error),
                Err(_) => {}
            }
        }
    }
    Err(last)
}
