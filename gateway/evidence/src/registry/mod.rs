//! The registrar: keeps the registry, the log of logs of a deployment (DESIGN 4).
//!
//! ```text
//! round = read what the registry has more -> look at the logs and at the folder of key entries
//!         -> entries -> batch: records file, seal (create-only: the fence), checkpoint
//! ```
//! No journal: the state is what the store holds, and an entry counts once its seal is stored. Who finds the seal's
//! name taken discards its batch, reads again and derives anew; data files of a refused try stay behind, named by
//! nobody. A refused registrar stands by: it acts again only after work has waited longer than `patience`, as it does
//! when the other one has died. Where batches go to the store through a topic it reads that too: a log that no archiver
//! ever archived is known all the same. What somebody else put into the store stops nothing (`aside`); a clock that was set
//! neither stops it nor makes a log lost: how long something takes is told by the monotonic clock, and times in the
//! registry never go back. Format: `schemas/FORMAT.md` 15.

mod anchors;
mod aside;
mod bounds;
mod keys;
pub(crate) mod read;
mod records;
mod scan;
#[cfg(test)]
mod tests;
mod waits;
mod write;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemas::merkle::CompactRange;
use schemas::names::NameError;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Heartbeat, VERSION};
use schemas::registry::{self, Entry, EntryBody, EntryError, Opening, State};
use schemas::trust::{key_text, public_key};
use schemas::verify::{BatchFault, SealTail};
use schemas::{Identifier, Origin, Sha256Hex};

pub use anchors::{Anchors, Head};
pub use waits::{Spent, Waits};

use crate::clock::Clock;
use crate::ledger::Reference;
use crate::store::{Store, StoreError};
use crate::topic::{Registered, TopicBatches};

use bounds::{Bounds, Refused, Room};
use records::ReadOn;
use waits::TimedStore;

/// How far the clock may be behind the registry's last seal before that is told, microseconds.
const BEHIND_US: i64 = 1_000_000;

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
    pub(crate) fn damaged(batch: u64, faults: &[BatchFault]) -> Self {
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
    /// Batches on their way there, where they go through a topic. The registry itself never does.
    pub topic: Option<Arc<TopicBatches>>,
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

/// How the logs of one gateway stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayLogs {
    /// Logs that go on.
    pub open: u64,
    /// Logs that ended with `close`.
    pub closed: u64,
    /// Logs that fell silent and were not closed since.
    pub lost: u64,
    /// When the newest seal of a log that is not closed was made, microseconds UTC.
    pub sealed_us: Option<i64>,
}

/// What is known of one log beyond the registry's own state.
#[derive(Debug, Clone)]
struct Followed {
    tail: SealTail,
    public: [u8; 32],
    /// When this tail was first seen here, by the monotonic clock.
    seen: i64,
    /// Whether the tail's batch ends the log.
    end: End,
}

/// What is known of a batch as the end of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It was read: the reason that `close` gives, where it is one.
    Read(Option<Identifier>),
    /// Not read yet; when it was tried last, by the monotonic clock.
    Unread(Option<i64>),
}

/// Keeps one registry.
#[derive(Debug)]
pub struct Registrar {
    settings: RegistrarConfig,
    origin: Origin,
    signer: Ed25519Signer,
    checkpoint_signer: Arc<Ed25519Signer>,
    state: State,
    tree: CompactRange,
    tail: Option<SealTail>,
    /// Reference documents that the registry holds.
    held: BTreeSet<Sha256Hex>,
    followed: BTreeMap<Origin, Followed>,
    /// How far the records of each log were read for holds and erasures.
    reading: BTreeMap<Origin, ReadOn>,
    /// How much a round does, and how many logs share it.
    bounds: Bounds,
    open_logs: usize,
    /// The store, as rounds use it.
    store: Arc<TimedStore>,
    /// Told once.
    warned: BTreeSet<String>,
    standing_by: bool,
    /// Since when there is work that nobody did, by the monotonic clock.
    waiting_since: Option<i64>,
    /// When the newest seal was first seen here, by the monotonic clock.
    tail_seen: i64,
    /// The seal that was put last: its answer may have been lost.
    tried: Option<Sha256Hex>,
    /// Whether the clock is behind the newest seal.
    behind: bool,
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
        let checkpoint_signer = Arc::new(Ed25519Signer::from_seed(settings.checkpoint_seed));
        let state = State::new(&settings.deployment, settings.root, signer.public_key());
        let store = TimedStore {
            store: settings.store.clone(),
            topic: settings.topic.clone(),
            waits: Arc::default(),
        };
        let tail_seen = settings.clock.elapsed_us();
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
            reading: BTreeMap::new(),
            bounds: Bounds::default(),
            open_logs: 0,
            store: Arc::new(store),
            warned: BTreeSet::new(),
            standing_by: false,
            waiting_since: None,
            tail_seen,
            tried: None,
            behind: false,
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
            checkpoint_signer: self.checkpoint_signer.clone(),
            scratch: self.settings.scratch.clone(),
            step: anchors::STEP,
        }
    }

    /// What the registry says, as far as it was read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How the logs of each gateway stand: of those that have a key, or a log.
    pub fn gateways(&self) -> BTreeMap<String, GatewayLogs> {
        let mut gateways: BTreeMap<String, GatewayLogs> = BTreeMap::new();
        for key in self.state.keys().values() {
            gateways.entry(key.gateway.clone()).or_default();
        }
        for (origin, log) in self.state.logs() {
            let gateway = gateways.entry(origin.gateway().to_owned()).or_default();
            match (&log.closed, log.lost) {
                (Some(_), _) => gateway.closed += 1,
                (None, Some(_)) => gateway.lost += 1,
                (None, None) => gateway.open += 1,
            }
            let newest = self.followed.get(origin).map(|followed| followed.tail.time);
            gateway.sealed_us = gateway.sealed_us.max(newest);
        }
        gateways
    }

    /// When the registry's newest seal was made, microseconds UTC.
    pub fn sealed_us(&self) -> Option<i64> {
        self.tail.as_ref().map(|tail| tail.time)
    }

    /// What the round that runs waits for.
    pub fn waits(&self) -> Arc<Waits> {
        Arc::clone(&self.store.waits)
    }

    /// One round. Blocks; may be repeated after any error.
    ///
    /// # Errors
    /// [`RegistrarError`].
    pub fn round(&mut self) -> Result<Round, RegistrarError> {
        self.store.waits.begin();
        let others = self.read_others()?;
        self.tell_topic();
        self.put_checkpoint()?;
        if others && !self.standing_by && self.waiting_since.is_some() {
            // Somebody else works here.
            self.standing_by = true;
        }
        let entries = self.derive()?;
        if entries.is_empty() {
            self.waiting_since = None;
            return Ok(Round::Idle);
        }
        let now = self.settings.clock.elapsed_us();
        let since = match self.waiting_since {
            Some(since) if !others => since,
            _ => now,
        };
        self.waiting_since = Some(since);
        let patience = i64::try_from(self.settings.patience.as_micros()).unwrap_or(i64::MAX);
        if self.standing_by && now.saturating_sub(since) < patience {
            return Ok(Round::StandingBy);
        }
        // Looking at the logs takes its time. What another registrar stored meanwhile makes these entries old: nothing
        // of them is put, not even as a file that nobody names.
        if self.read_others()? {
            return Ok(self.refused());
        }
        if self.standing_by {
            tracing::warn!(origin = %self.origin, "work has waited too long: taking over");
        }
        let count = entries.len();
        if !self.write(&entries)? {
            return Ok(self.refused());
        }
        (self.waiting_since, self.standing_by) = (None, false);
        self.put_checkpoint()?;
        Ok(Round::Stored(count))
    }

    /// Tells those that read the topic whose seals count, and what of it is not needed any more.
    fn tell_topic(&self) {
        let Some(topic) = &self.settings.topic else { return };
        let mut registered = Registered::default();
        for (text, key) in self.state.keys() {
            let hands = std::iter::once(text).chain(&key.closers).filter_map(|key| public_key(key));
            registered.keys.entry(key.gateway.clone()).or_default().extend(hands);
        }
        for (origin, log) in self.state.logs() {
            if log.closed.is_some() {
                registered.closed.insert(origin.clone());
            } else if let Some((batch, _)) = log.last() {
                registered.heads.insert(origin.clone(), batch);
            }
        }
        topic.tell(registered);
    }

    fn refused(&mut self) -> Round {
        (self.waiting_since, self.standing_by) = (None, true);
        tracing::info!(origin = %self.origin, "another registrar was faster: standing by");
        Round::Refused
    }

    /// Reads on; true where anything was by another registrar than this one.
    fn read_others(&mut self) -> Result<bool, RegistrarError> {
        let read = self.read_on()?;
        let own = self.tail.as_ref().is_some_and(|tail| Some(tail.sha256) == self.tried);
        Ok(read > 1 || (read == 1 && !own))
    }

    /// The time of day, and never before the newest seal (CH: times never go back).
    fn now_us(&mut self) -> i64 {
        let now = self.settings.clock.now_us();
        let Some(tail) = &self.tail else { return now };
        let behind = tail.time.saturating_sub(now) > BEHIND_US;
        if behind && !self.behind {
            tracing::warn!(
                behind_s = tail.time.saturating_sub(now) / 1_000_000,
                "the clock is behind the registry's newest seal: entries get the seal's time until it has caught up"
            );
        }
        self.behind = behind;
        now.max(tail.time)
    }

    /// The entries that are due: none, or all that one batch takes. The next round has what found no room.
    fn derive(&mut self) -> Result<Vec<Entry>, RegistrarError> {
        // Entries are tried on a copy: what does not hold there is not written.
        let mut trial = self.state.clone();
        let mut next = self.tree.size();
        let mut entries = Vec::new();
        let at = self.now_us();
        let config = self.settings.config.sha256();
        let (bounds, mut room, is_full) = (self.bounds, Room::default(), Cell::new(false));
        let mut take = |trial: &mut State, body: EntryBody| -> Result<(), Refused> {
            let entry = Entry { v: VERSION, at, config, body };
            // One that has no leaf would keep all others of its batch out.
            let leaf = registry::encode(&entry).map_err(|error| Refused::Wrong(error.to_string()))?;
            let of_ledger = matches!(entry.body, EntryBody::LegalHold(_) | EntryBody::ContentErased(_));
            if !room.has(&bounds, of_ledger, leaf.len()) {
                is_full.set(is_full.get() || !of_ledger);
                return Err(Refused::Full);
            }
            // Of these there may be many, and one that does not hold changes nothing.
            let faults = if of_ledger {
                trial.apply(next, &entry)
            } else {
                let mut after = trial.clone();
                let faults = after.apply(next, &entry);
                if faults.is_empty() {
                    *trial = after;
                }
                faults
            };
            if let Some(fault) = faults.first() {
                let why = format!("expected {}, found {}", fault.expected, fault.found);
                return Err(Refused::Wrong(why));
            }
            room.add(of_ledger, leaf.len());
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
            take(&mut trial, opening).map_err(|why| RegistrarError::Batch(why.to_string()))?;
        }
        // Logs before keys: a log that a rotation's old key opened is registered before the rotation is; and again
        // after them, for the logs of new keys. Where logs found no room the keys wait for them.
        self.logs(&mut trial, &mut take)?;
        while !is_full.get() && self.keys(&mut trial, &mut take)? {
            self.logs(&mut trial, &mut take)?;
        }
        // By the seal's time, for a registrar that was started anew; by the monotonic clock where the time was set back.
        let seen = self.settings.clock.elapsed_us().saturating_sub(self.tail_seen);
        let silent = self.tail.as_ref().map_or(0, |tail| at.saturating_sub(tail.time).max(seen));
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
}

/// Tries an entry on the state that the entries before it give, and keeps it where it holds.
type Take<'a> = dyn FnMut(&mut State, EntryBody) -> Result<(), Refused> + 'a;
