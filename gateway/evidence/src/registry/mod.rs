//! The registrar: keeps the registry, the log of logs of a deployment (DESIGN 4).
//!
//! ```text
//! round = read what the registry has more -> look at the logs and at the folder of key entries
//!         -> entries -> batch: records file, seal (create-only: the fence), checkpoint
//! ```
//! No journal: the state is what the store holds, and an entry counts once its seal is stored. Who finds the seal's
//! name taken discards its batch, reads again and derives anew; data files of a refused try stay behind, named by
//! nobody. A refused registrar stands by: it acts again only after work has waited longer than `patience`, as it does
//! when the other one has died. Format: `schemas/FORMAT.md` 15.

mod anchors;
mod keys;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemas::merkle::CompactRange;
use schemas::names::NameError;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Heartbeat, VERSION};
use schemas::registry::{Entry, EntryBody, EntryError, Opening, State};
use schemas::trust::key_text;
use schemas::verify::{BatchFault, SealTail};
use schemas::{Identifier, Origin, Sha256Hex};

pub use anchors::{Anchors, Head};

use crate::clock::Clock;
use crate::ledger::Reference;
use crate::store::{Store, StoreError};

/// Why a round came to nothing. Nothing of it is in the registry then, or all of it.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// The store does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of key entries, or the scratch folder.
    #[error("`{}`: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The registry in the store is not one that this key wrote. Never repaired: someone must look.
    #[error("the registry's batch {batch}: {what}")]
    Damaged {
        /// The batch.
        batch: u64,
        /// How.
        what: String,
    },
    /// A batch could not be made.
    #[error("a batch of the registry: {0}")]
    Batch(String),
    /// The deployment's name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entry has no leaf.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl RegistrarError {
    fn damaged(batch: u64, faults: &[BatchFault]) -> Self {
        let what = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self::Damaged { batch, what }
    }
}

/// What a registrar works with.
#[derive(Debug, Clone)]
pub struct RegistrarConfig {
    /// The deployment.
    pub deployment: String,
    /// Where logs and registry are.
    pub store: Arc<dyn Store>,
    /// The registry's seal key.
    pub seal_seed: [u8; 32],
    /// The key of its checkpoints.
    pub checkpoint_seed: [u8; 32],
    /// The deployment's root key, public.
    pub root: [u8; 32],
    /// The folder of root-signed key entries; every file in it is one.
    pub entries: PathBuf,
    /// A folder for files on their way into the store.
    pub scratch: PathBuf,
    /// The longest time between two entries.
    pub heartbeat_bound: Duration,
    /// How long work waits before a registrar that stands by does it.
    pub patience: Duration,
    /// Version of the binary.
    pub version: Identifier,
    /// The configuration of record.
    pub config: Reference,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Nothing to say.
    Idle,
    /// There is work, and another registrar is thought to be at it.
    StandingBy,
    /// A batch with so many entries is stored.
    Stored(usize),
    /// Another registrar was faster; what it wrote is read next.
    Refused,
}

/// What is known of one log beyond the registry's own state.
#[derive(Debug, Clone)]
struct Followed {
    tail: SealTail,
    public: [u8; 32],
}

/// Keeps one registry.
#[derive(Debug)]
pub struct Registrar {
    settings: RegistrarConfig,
    origin: Origin,
    signer: Ed25519Signer,
    checkpoint_signer: Ed25519Signer,
    state: State,
    tree: CompactRange,
    tail: Option<SealTail>,
    /// Reference documents that the registry holds.
    held: BTreeSet<Sha256Hex>,
    followed: BTreeMap<Origin, Followed>,
    /// Warned of once.
    warned: BTreeSet<String>,
    standing_by: bool,
    /// Since when there is work that nobody did.
    waiting_since: Option<i64>,
    checkpoint_due: bool,
    /// The newest checkpoint that is stored.
    head: Option<Head>,
}

impl Registrar {
    /// A registrar that has read nothing yet.
    ///
    /// # Errors
    /// A deployment that cannot have a registry, a scratch folder that cannot be made.
    pub fn new(settings: RegistrarConfig) -> Result<Self, RegistrarError> {
        let origin = Origin::registry(&settings.deployment)?;
        std::fs::create_dir_all(&settings.scratch)
            .map_err(|source| RegistrarError::Folder { path: settings.scratch.clone(), source })?;
        let signer = Ed25519Signer::from_seed(settings.seal_seed);
        let checkpoint_signer = Ed25519Signer::from_seed(settings.checkpoint_seed);
        let state = State::new(&settings.deployment, settings.root, signer.public_key());
        Ok(Self {
            settings,
            origin,
            signer,
            checkpoint_signer,
            state,
            tree: CompactRange::new(),
            tail: None,
            held: BTreeSet::new(),
            followed: BTreeMap::new(),
            warned: BTreeSet::new(),
            standing_by: false,
            waiting_since: None,
            checkpoint_due: false,
            head: None,
        })
    }

    /// The registry's origin.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The newest checkpoint, once it is in the store.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// What others than the registrar's rounds need, to ask for words on a head and to keep them.
    pub fn anchors(&self) -> Anchors {
        Anchors {
            store: self.settings.store.clone(),
            origin: self.origin.clone(),
            key: self.signer.public_key(),
            scratch: self.settings.scratch.clone(),
            step: anchors::STEP,
        }
    }

    /// What the registry says, as far as it was read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// One round. Blocks; may be repeated after any error.
    ///
    /// # Errors
    /// [`RegistrarError`].
    pub fn round(&mut self) -> Result<Round, RegistrarError> {
        let read = self.read_on()?;
        self.put_checkpoint()?;
        if read > 0 && !self.standing_by && self.waiting_since.is_some() {
            // Somebody else works here.
            self.standing_by = true;
        }
        let entries = self.derive()?;
        if entries.is_empty() {
            self.waiting_since = None;
            return Ok(Round::Idle);
        }
        let now = self.settings.clock.now_us();
        let since = match self.waiting_since {
            Some(since) if read == 0 => since,
            _ => now,
        };
        self.waiting_since = Some(since);
        let patience = i64::try_from(self.settings.patience.as_micros()).unwrap_or(i64::MAX);
        if self.standing_by && now.saturating_sub(since) < patience {
            return Ok(Round::StandingBy);
        }
        if self.standing_by {
            tracing::warn!(origin = %self.origin, "work has waited too long: taking over");
        }
        let count = entries.len();
        let stored = self.write(&entries)?;
        self.waiting_since = None;
        self.standing_by = !stored;
        if !stored {
            tracing::info!(origin = %self.origin, "another registrar was faster: standing by");
            return Ok(Round::Refused);
        }
        self.put_checkpoint()?;
        Ok(Round::Stored(count))
    }

    /// The entries that are due: none, or all that one batch takes.
    fn derive(&mut self) -> Result<Vec<Entry>, RegistrarError> {
        // Entries are tried on a copy: what does not hold there is not written.
        let mut trial = self.state.clone();
        let mut next = self.tree.size();
        let mut entries = Vec::new();
        let at = self.settings.clock.now_us();
        let config = self.settings.config.sha256();
        let mut take = |trial: &mut State, body: EntryBody| -> Result<(), String> {
            let entry = Entry { v: VERSION, at, config, body };
            let mut after = trial.clone();
            let faults = after.apply(next, &entry);
            if let Some(fault) = faults.first() {
                return Err(format!("expected {}, found {}", fault.expected, fault.found));
            }
            *trial = after;
            next += 1;
            entries.push(entry);
            Ok(())
        };
        if self.state.opening().is_none() {
            let opening = EntryBody::Registry(Opening {
                gateway_version: self.settings.version.clone(),
                seal_key: key_text(&self.signer.public_key()),
                checkpoint_key: key_text(&self.checkpoint_signer.public_key()),
                root_key: key_text(&self.settings.root),
                heartbeat_bound_ms: i64::try_from(self.settings.heartbeat_bound.as_millis())
                    .unwrap_or(i64::MAX),
            });
            take(&mut trial, opening).map_err(RegistrarError::Batch)?;
        }
        // Logs before keys: a log that a rotation's old key opened is registered before the rotation is; and again
        // after them, for the logs of new keys.
        self.logs(&mut trial, &mut take)?;
        while self.keys(&mut trial, &mut take)? {
            self.logs(&mut trial, &mut take)?;
        }
        let silent = self.tail.as_ref().map_or(0, |tail| at.saturating_sub(tail.time));
        let bound = i64::try_from(self.settings.heartbeat_bound.as_micros()).unwrap_or(i64::MAX);
        let quiet = entries.is_empty() && silent > bound / 4 * 3;
        if quiet {
            let counters = BTreeMap::from([
                ("keys".to_owned(), self.state.keys().len() as u64),
                ("logs".to_owned(), self.state.logs().len() as u64),
            ]);
            entries.push(Entry {
                v: VERSION,
                at,
                config,
                body: EntryBody::Heartbeat(Heartbeat { counters }),
            });
        }
        Ok(entries)
    }

    fn warn_once(&mut self, about: String, what: &str) {
        if self.warned.insert(format!("{about} {what}")) {
            tracing::warn!(about, what, "not registered");
        }
    }
}

/// Tries an entry on the state that the entries before it give, and keeps it where it holds.
type Take<'a> = dyn FnMut(&mut State, EntryBody) -> Result<(), String> + 'a;
