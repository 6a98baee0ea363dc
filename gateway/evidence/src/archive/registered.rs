//! Keys out of the registry in the store, verified as a log and followed as it grows.

use schemas::registry::{self, State};
use schemas::trust::{Trust, TrustedGateway, public_key};
use schemas::verify::{SealTail, chain_seal};

use crate::registry::RegistrarError;
use crate::registry::read;
use crate::store::Store;

/// The registry that a trust file names, as far as it was read.
#[derive(Debug)]
pub struct Registered {
    trust: Trust,
    key: [u8; 32],
    state: State,
    tail: Option<SealTail>,
}

impl Registered {
    /// Of no entry yet; `None` where the trust file names no registry, or one that is out of form.
    pub fn of(trust: &Trust) -> Option<Self> {
        let key = public_key(&trust.registry.as_ref()?.key)?;
        let root = public_key(trust.root.as_deref()?)?;
        let state = State::new(&trust.deployment, root, key);
        Some(Self { trust: trust.clone(), key, state, tail: None })
    }

    /// Reads on to the registry's end. Gives how many batches came.
    ///
    /// # Errors
    /// The store does not answer, or a batch of the registry does not hold: what was read before it counts.
    pub fn read_on(&mut self, store: &dyn Store) -> Result<u64, RegistrarError> {
        let Some(origin) = self.trust.registry.as_ref().map(|registry| &registry.origin) else {
            return Ok(0);
        };
        let mut read = 0;
        loop {
            let number = self.tail.as_ref().map_or(0, |tail| tail.batch + 1);
            let Some(note) = read::seal_note(store, origin, number)? else { return Ok(read) };
            let verified = read::batch(store, origin, &self.key, &note)?
                .map_err(|what| RegistrarError::Damaged { batch: number, what })?;
            let faults = chain_seal(self.tail.as_ref(), verified.seal());
            if !faults.is_empty() || verified.seal().batch != number {
                return Err(RegistrarError::damaged(number, &faults));
            }
            for row in verified.rows() {
                let entry = registry::decode(row.leaf())
                    .map_err(|error| RegistrarError::Damaged { batch: number, what: error.to_string() })?;
                // An entry that does not hold has no effect; the registrar and auditors name it.
                if let Some(entry) = entry {
                    self.state.apply(row.position(), &entry);
                }
            }
            self.state.keep_last_heads();
            self.tail = Some(verified.tail());
            read += 1;
        }
    }

    /// Whose seals are archived. A log is registered only once it is in the store, so that each key that was not revoked
    /// speaks for any log of its gateway, and a revoked one for those that the registry lists.
    pub fn trust(&self) -> Trust {
        let revoked = |text: &String| self.state.keys().get(text).is_none_or(|key| key.revoked);
        let listed =
            self.state.gateways().into_iter().filter(|entry| entry.logs.is_some() && revoked(&entry.key));
        let in_force =
            self.state.keys().iter().filter(|(_, key)| !key.revoked).map(|(text, key)| TrustedGateway {
                name: key.gateway.clone(),
                key: text.clone(),
                closers: key.closers.clone(),
                ..TrustedGateway::default()
            });
        Trust { gateways: listed.chain(in_force).collect(), ..self.trust.clone() }
    }
}
