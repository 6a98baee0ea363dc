//! The sending side: groups, spill files and leases of this process's own log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use schemas::Origin;

use super::lease::{Acked, Lease};
use super::message::{Opening, PIECE_BYTES, Said, encode};
use super::read::Reader;
use super::{CommitFigures, CommitSettings, INDEX, partition_of};
use crate::disk::SharedDisk;
use crate::journal::{Beside, JournalError, Release};
use crate::topic::{Context, Failed};

/// Messages of spill files that are on their way at once: their bytes are in memory.
const SPILL_WINDOW: usize = 8;

/// Sends what one log's journal writes, and keeps its lease.
pub(crate) struct Committer {
    core: Arc<Core>,
    producer: ThreadedProducer<Delivering>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("origin", &self.core.origin).finish_non_exhaustive()
    }
}

struct Core {
    origin: Origin,
    settings: CommitSettings,
    /// What `open` says besides salt and place.
    key: [u8; 32],
    encrypted: bool,
    disk: SharedDisk,
    folder: PathBuf,
    partition: i32,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lease: Lease,
    /// Groups that are not told yet, by sequence.
    groups: BTreeMap<u64, Pending>,
    /// The first group that nobody was told of.
    told: u64,
    /// Of each segment: the place and sequence of its first group.
    firsts: BTreeMap<u32, (i64, u64)>,
    /// Of each spill file: where its first piece stands.
    spills: BTreeMap<String, Spill>,
    /// The lease whose acknowledgement is to be looked at.
    look: Option<Look>,
    /// Where `open` stands.
    opened: Option<i64>,
    /// Why nothing is told any more.
    ended: Option<JournalError>,
    /// Why the last message did not arrive.
    trouble: Option<Failed>,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    number: u64,
    offset: i64,
    from: i64,
    /// The number of the lease that stands there.
    floor: u64,
}

struct Pending {
    bytes: Arc<Vec<u8>>,
    segment: u32,
    /// Pieces that are not acknowledged.
    missing: BTreeSet<u32>,
    /// A piece did not arrive: all that are missing are sent again.
    failed: bool,
    release: Option<Release>,
}

#[derive(Debug, Default)]
struct Spill {
    first: Option<i64>,
    on_way: usize,
    failed: bool,
}

/// What a message on its way is.
enum What {
    Open,
    Lease(u64),
    Group { sequence: u64, piece: u32 },
    Spill { file: String, offset: u64 },
    Other,
}

/// Hears what became of each message.
struct Delivering {
    base: Context,
    core: Arc<Core>,
}

impl ClientContext for Delivering {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.base.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.base.generate_oauth_token(config)
    }
}

impl ProducerContext for Delivering {
    type DeliveryOpaque = Box<What>;

    fn delivery(&self, result: &DeliveryResult<'_>, what: Box<What>) {
        let result = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(self.base.failed(error)),
        };
        self.core.delivered(*what, result);
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delivered(&self, what: What, result: Result<i64, Failed>) {
        let now = Instant::now();
        let mut state = self.state();
        match (&what, &result) {
            (What::Open, Ok(offset)) => {
                state.opened = Some(*offset);
                state.answered(0, *offset, now);
            }
            (What::Lease(number), Ok(offset)) => state.answered(*number, *offset, now),
            (What::Group { sequence, piece }, Ok(offset)) => state.arrived(*sequence, *piece, *offset),
            (What::Group { sequence, .. }, Err(_)) => {
                if let Some(group) = state.groups.get_mut(sequence) {
                    group.failed = true;
                }
            }
            (What::Spill { file, offset }, result) => {
                if let Some(spill) = state.spills.get_mut(file) {
                    spill.on_way = spill.on_way.saturating_sub(1);
                    match result {
                        Ok(at) if *offset == 0 => spill.first = Some(*at),
                        Ok(_) => {}
                        Err(_) => spill.failed = true,
                    }
                }
            }
            (What::Open | What::Lease(_) | What::Other, _) => {}
        }
        match result {
            Ok(_) => state.trouble = None,
            Err(failed) => {
                tracing::debug!(detail = failed.detail, "a message of the commit topic did not arrive");
                state.trouble = Some(failed);
            }
        }
        drop(state);
        self.changed.notify_all();
        self.release();
    }

    /// Tells those who may know: of groups that are here and there, in their order, while a lease holds.
    fn release(&self) {
        let mut told = Vec::new();
        {
            let mut state = self.state();
            let now = Instant::now();
            while state.ended.is_none()
                && state.lease.holds(now)
                && state.groups.first_key_value().is_some_and(|(_, group)| group.is_whole())
            {
                if let Some((sequence, group)) = state.groups.pop_first() {
                    state.told = state.told.max(sequence + 1);
                    told.extend(group.release);
                }
            }
        }
        told.into_iter().for_each(|release| release(Ok(())));
    }

    /// Nothing is released any more.
    fn end(&self, why: JournalError) {
        let groups = {
            let mut state = self.state();
            state.ended.get_or_insert_with(|| why.clone());
            std::mem::take(&mut state.groups)
        };
        self.changed.notify_all();
        for release in groups.into_values().filter_map(|group| group.release) {
            release(Err(why.clone()));
        }
    }

    fn uncommitted(state: &State) -> JournalError {
        let why = state.trouble.as_ref().map_or_else(
            || "no answer in time".to_owned(),
            |failed| format!("{}: {}", failed.trouble, failed.detail),
        );
        JournalError::Uncommitted(why.into())
    }
}

impl Pending {
    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.release.is_some()
    }
}

impl State {
    /// A lease record is acknowledged.
    fn answered(&mut self, number: u64, offset: i64, now: Instant) {
        let floor = self.lease.held().map_or(number, |held| held.number);
        match self.lease.acked(number, offset, now) {
            Acked::Counts => self.look = None,
            Acked::Look { from } => self.look = Some(Look { number, offset, from, floor }),
            Acked::Ignored => {}
        }
    }

    /// A piece of a group is there.
    fn arrived(&mut self, sequence: u64, piece: u32, offset: i64) {
        let Some(group) = self.groups.get_mut(&sequence) else { return };
        group.missing.remove(&piece);
        let first = self.firsts.entry(group.segment).or_insert((offset, sequence));
        *first = (first.0.min(offset), first.1.min(sequence));
    }

    /// From where on the log is needed: place and sequence. `segment` is the oldest that is still there.
    fn needed(&mut self, segment: Option<u32>, is_there: impl Fn(&str) -> bool) -> Option<(i64, u64)> {
        if let Some(segment) = segment {
            self.firsts = self.firsts.split_off(&segment);
        }
        self.spills.retain(|file, spill| spill.on_way > 0 || is_there(file));
        let (mut from, sequence) = self.firsts.first_key_value().map(|(_, first)| *first)?;
        // A spill file is named by a group, and may begin long before it.
        for first in self.spills.values().filter_map(|spill| spill.first) {
            from = from.min(first);
        }
        if sequence == 0 {
            from = from.min(self.opened?);
        }
        Some((from, sequence))
    }
}

/// What a log is called, and who writes it.
pub(crate) struct Who {
    pub(crate) origin: Origin,
    /// The public key of its seals.
    pub(crate) key: [u8; 32],
    pub(crate) encrypted: bool,
    /// The folder of its journal.
    pub(crate) disk: SharedDisk,
    pub(crate) folder: PathBuf,
}

impl Committer {
    /// Finds the topic. Nothing is sent before [`Beside::begin`].
    pub(crate) fn open(settings: &CommitSettings, who: Who) -> Result<Arc<Self>, Failed> {
        let partitions = Reader::open(settings)?.partitions()?;
        let Who { origin, key, encrypted, disk, folder } = who;
        let state = State {
            lease: Lease::new(settings.lease),
            groups: BTreeMap::new(),
            told: 0,
            firsts: BTreeMap::new(),
            spills: BTreeMap::new(),
            look: None,
            opened: None,
            ended: None,
            trouble: None,
            closed: false,
        };
        let core = Arc::new(Core {
            partition: partition_of(&origin, partitions),
            origin,
            settings: settings.clone(),
            key,
            encrypted,
            disk,
            folder,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let base = settings.connection.context();
        let context = Delivering { base, core: Arc::clone(&core) };
        let made = super::producing(settings).create_with_context(context);
        let producer =
            made.map_err(|error: KafkaError| Failed::new(crate::topic::trouble(&error), error.to_string()))?;
        Ok(Arc::new(Self { core, producer }))
    }

    /// Hands a message to the library; false where its queue is full.
    fn enqueue(&self, partition: i32, said: &Said<'_>, what: What) -> bool {
        let settings = &self.core.settings;
        let code = settings.key.of(&settings.topic, partition);
        let (message, key) = (encode(&code, &self.core.origin, said), self.core.origin.as_str());
        let record = BaseRecord::with_opaque_to(&settings.topic, Box::new(what))
            .partition(partition)
            .key(key)
            .payload(&message);
        match self.producer.send(record) {
            Ok(()) => true,
            Err((error, _)) => {
                self.core.state().trouble = Some(self.producer.client().context().base.failed(&error));
                false
            }
        }
    }

    fn send_pieces(&self, sequence: u64, bytes: &[u8], wanted: &BTreeSet<u32>) -> bool {
        let pieces = u32::try_from(bytes.len().div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        bytes.chunks(PIECE_BYTES).zip(0..).filter(|(_, piece)| wanted.contains(piece)).all(
            |(bytes, piece)| {
                let said = Said::Group { sequence, piece, pieces, bytes };
                self.enqueue(self.core.partition, &said, What::Group { sequence, piece })
            },
        )
    }

    fn opening(&self, salt: [u8; 32], offset: i64) -> Said<'static> {
        let core = &self.core;
        let lease_ms = u64::try_from(core.settings.lease.as_millis()).unwrap_or(u64::MAX);
        let (partition, key, encrypted) = (core.partition, core.key, core.encrypted);
        Said::Open(Opening { partition, offset, lease_ms, salt, key, encrypted })
    }

    /// Keeps the lease, sends again what did not arrive, and looks for a fence where it must. Until it is closed.
    pub(crate) fn run(&self, oldest_segment: impl Fn() -> Option<u32>) {
        let tick =
            (self.core.settings.lease / 12).clamp(Duration::from_millis(20), Duration::from_millis(500));
        let mut pointed = None;
        loop {
            {
                let state = self.core.state();
                if state.closed || state.ended.is_some() {
                    return;
                }
                drop(self.core.changed.wait_timeout_while(state, tick, |state| !state.closed));
            }
            self.renew();
            self.send_again();
            self.look();
            self.core.release();
            let held = self.core.state().lease.held();
            if let Some(held) = held.filter(|held| pointed != Some(held.number))
                && self.point(held.number, held.offset, &oldest_segment)
            {
                pointed = Some(held.number);
            }
        }
    }

    fn renew(&self) {
        let due = {
            let mut state = self.core.state();
            state.lease.due(Instant::now()).map(|number| (number, state.told))
        };
        if let Some((number, told)) = due {
            self.enqueue(self.core.partition, &Said::Lease { number, told }, What::Lease(number));
        }
    }

    fn send_again(&self) {
        let failed: Vec<(u64, Arc<Vec<u8>>, BTreeSet<u32>)> = {
            let mut state = self.core.state();
            let groups = state.groups.iter_mut().filter(|(_, group)| group.failed);
            groups
                .map(|(sequence, group)| {
                    group.failed = false;
                    (*sequence, Arc::clone(&group.bytes), group.missing.clone())
                })
                .collect()
        };
        for (sequence, bytes, missing) in failed {
            if !self.send_pieces(sequence, &bytes, &missing)
                && let Some(group) = self.core.state().groups.get_mut(&sequence)
            {
                group.failed = true;
            }
        }
    }

    /// Reads the partition from the last lease that counts to the newest one, where that must be.
    fn look(&self) {
        let Some(look) = self.core.state().look else { return };
        let core = &self.core;
        let found = Reader::open(&core.settings).and_then(|reader| {
            reader.fence(core.partition, &core.origin, (look.floor, look.from), Some(look.offset))
        });
        match found {
            Err(failed) => tracing::debug!(detail = failed.detail, "the log's partition cannot be read now"),
            Ok(seen) => match seen.fence {
                None => {
                    let mut state = core.state();
                    state.lease.looked(look.number, look.offset);
                    if state.look.is_some_and(|newer| newer.number == look.number) {
                        state.look = None;
                    }
                }
                Some(fence) => {
                    tracing::error!(origin = %core.origin, by = fence.by, "the log was fenced: another gateway closes it, and nothing is admitted or released here any more");
                    self.enqueue(INDEX, &Said::Fenced { offset: fence.offset }, What::Other);
                    core.end(JournalError::Fenced { by: fence.by.into() });
                }
            },
        }
    }

    /// Says in the index that the log lives, and from where on it is needed.
    fn point(&self, number: u64, offset: i64, oldest_segment: &impl Fn() -> Option<u32>) -> bool {
        let core = &self.core;
        let is_there = |file: &str| !matches!(core.disk.entry(&core.folder.join(file)), Ok(None));
        let needed = {
            let mut state = core.state();
            let oldest = oldest_segment();
            let opened = state.opened;
            state.needed(oldest, is_there).or(opened.map(|at| (at, 0)))
        };
        let Some((from, sequence)) = needed else { return false };
        self.enqueue(INDEX, &Said::At { number, offset, from, sequence }, What::Other)
    }

    /// Whether something may be admitted and released now.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let state = self.core.state();
        match &state.ended {
            Some(ended) => Err(ended.clone()),
            None if state.lease.holds(Instant::now()) => Ok(()),
            None => Err(Core::uncommitted(&state)),
        }
    }

    /// Whether its journal was closed.
    pub(crate) fn is_closed(&self) -> bool {
        let state = self.core.state();
        state.closed && state.ended.is_none()
    }

    /// As where a look finds a fence.
    #[cfg(test)]
    pub(crate) fn fenced_by_hand(&self, by: &str) {
        self.core.end(JournalError::Fenced { by: by.into() });
    }

    pub(crate) fn figures(&self) -> CommitFigures {
        let state = self.core.state();
        CommitFigures {
            refused: self.core.settings.key.refused(),
            lease_age: state.lease.age(Instant::now()),
            groups: state.groups.len() as u64,
            bytes: state.groups.values().map(|group| group.bytes.len() as u64).sum(),
        }
    }
}

impl Beside for Committer {
    fn begin(&self, salt: [u8; 32]) -> Result<(), JournalError> {
        let core = &self.core;
        let until = Instant::now() + core.settings.connection.timeout;
        // The first lease: sent from here on, it holds from here on.
        core.state().lease.due(Instant::now());
        self.enqueue(core.partition, &self.opening(salt, 0), What::Open);
        let state = core.state();
        let left = until.saturating_duration_since(Instant::now());
        let (state, _) = core
            .changed
            .wait_timeout_while(state, left, |state| state.opened.is_none() && state.trouble.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(opened) = state.opened else { return Err(Core::uncommitted(&state)) };
        drop(state);
        // Its groups are found by this: nobody may be told of one before it is there.
        let flush = self.enqueue(INDEX, &self.opening(salt, opened), What::Other)
            && self.producer.flush(core.settings.connection.timeout).is_ok()
            && core.state().trouble.is_none();
        if flush { Ok(()) } else { Err(Core::uncommitted(&core.state())) }
    }

    fn send(&self, sequence: u64, segment: u32, group: Vec<u8>) {
        let bytes = Arc::new(group);
        let pieces = u32::try_from(bytes.len().div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        let missing: BTreeSet<u32> = (0..pieces).collect();
        let pending = Pending {
            bytes: Arc::clone(&bytes),
            segment,
            missing: missing.clone(),
            failed: false,
            release: None,
        };
        {
            let mut state = self.core.state();
            if state.ended.is_some() {
                return;
            }
            state.groups.insert(sequence, pending);
        }
        if !self.send_pieces(sequence, &bytes, &missing)
            && let Some(group) = self.core.state().groups.get_mut(&sequence)
        {
            group.failed = true;
        }
    }

    fn synced(&self, sequence: u64, release: Release) {
        let mut state = self.core.state();
        if let Some(ended) = state.ended.clone() {
            drop(state);
            return release(Err(ended));
        }
        match state.groups.get_mut(&sequence) {
            Some(group) => group.release = Some(release),
            None => {
                drop(state);
                return release(Err(JournalError::Closed));
            }
        }
        drop(state);
        self.core.release();
    }

    fn spill(&self, file: &str, offset: u64, bytes: Vec<u8>) -> Result<(), JournalError> {
        self.core.state().spills.entry(file.to_owned()).or_default().on_way += 1;
        let said = Said::Spill { file, offset, bytes: &bytes };
        let what = What::Spill { file: file.to_owned(), offset };
        if !self.enqueue(self.core.partition, &said, what) {
            let mut state = self.core.state();
            if let Some(spill) = state.spills.get_mut(file) {
                spill.on_way -= 1;
            }
            return Err(Core::uncommitted(&state));
        }
        self.wait_for_spill(file, SPILL_WINDOW)
    }

    fn spilled(&self, file: &str) -> Result<(), JournalError> {
        self.wait_for_spill(file, 1)
    }

    fn ended(&self) -> Option<JournalError> {
        self.core.state().ended.clone()
    }

    fn close(&self) {
        self.core.state().closed = true;
        self.core.changed.notify_all();
    }
}

impl Committer {
    /// Waits until fewer than `count` pieces of a spill file are on their way.
    fn wait_for_spill(&self, file: &str, count: usize) -> Result<(), JournalError> {
        let busy = |state: &mut State| {
            let waits = state.spills.get(file).is_some_and(|spill| !spill.failed && spill.on_way >= count);
            waits && state.ended.is_none()
        };
        let timeout = self.core.settings.connection.timeout;
        let (state, _) = self
            .core
            .changed
            .wait_timeout_while(self.core.state(), timeout, busy)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        match state.spills.get(file) {
            Some(spill) if !spill.failed && spill.on_way < count => Ok(()),
            _ => Err(Core::uncommitted(&state)),
        }
    }
}
