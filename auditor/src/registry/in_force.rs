//! Which key seals which log: as the trust file says, or as the registry that it names does.

use schemas::Origin;
use schemas::trust::{Trust, TrustedGateway, public_key};

use super::{Reading, Registry};
use crate::finding::Findings;

/// The keys that count, and what was found while the registry was read for them.
#[derive(Debug, Clone)]
pub struct InForce {
    /// Gateways and their keys: the trust file's own, or the registry's.
    pub trust: Trust,
    /// The registry's origin and seal key, where the trust file names one.
    named: Option<(Origin, [u8; 32])>,
    pub(crate) registry: Option<Registry>,
    pub(crate) findings: Findings,
}

impl InForce {
    /// What the trust file says by itself. Of a deployment with a registry that is the registry's own key and no more.
    pub fn of(trust: &Trust) -> Self {
        let named = trust.registry.as_ref();
        let named = named.and_then(|registry| Some((registry.origin.clone(), public_key(&registry.key)?)));
        Self { trust: trust.clone(), named, registry: None, findings: Findings::default() }
    }

    /// Reads the registry, where the trust file names one.
    pub(crate) fn read(reading: &Reading<'_>) -> Self {
        let mut out = Self::of(reading.trust);
        out.registry = super::read(reading, &mut out.findings);
        if let Some(registry) = &out.registry {
            out.trust = registry.trust(reading.trust);
        }
        out
    }

    /// The entry that speaks for a log: the registered one before others of its gateway.
    pub(crate) fn entry(&self, origin: &Origin) -> Option<&TrustedGateway> {
        let registered = self.registry.as_ref().and_then(|registry| registry.entry(&self.trust, origin));
        registered.or_else(|| self.trust.gateway(origin))
    }

    /// The keys whose seals count for a log, its own before those that may close it; none for a log of nobody's.
    pub fn keys(&self, origin: &Origin) -> Vec<[u8; 32]> {
        if let Some((_, key)) = self.named.as_ref().filter(|(registry, _)| registry == origin) {
            return vec![*key];
        }
        let Some(entry) = self.entry(origin) else { return Vec::new() };
        entry.public_key().into_iter().chain(entry.closing_keys()).collect()
    }

    /// The key of the registry's checkpoints, once its first entry is known.
    pub fn checkpoint_key(&self) -> Option<[u8; 32]> {
        public_key(&self.registry.as_ref()?.state.opening()?.checkpoint_key)
    }
}
