//! Batches on their way through the topic, as far as a registrar needs them: seals that a key of their gateway signed, and
//! the small records files of a log's first and newest batch.
//!
//! Anybody may write to the topic. Of a seal nothing is kept before a key that counts has verified it, of a records file
//! nothing that has not the hash in its name; everything has a bound, and what finds no room is left to the store. So what
//! is sent by others can at most delay an entry until an archiver has the batch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use schemas::names::FileKind;
use schemas::seal;
use schemas::ship::Chunk;
use schemas::{ObjectName, Origin, Sha256Hex};

use super::client::{Connection, Failed};
use super::read::{Listener, TopicReader};
use crate::disk::DiskFile;

/// The longest records file that is kept.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Bytes of seals, and of records files that a seal names.
const MAX_KEPT_BYTES: usize = 128 << 20;
/// Bytes of records files that no seal names yet.
const MAX_LOOSE_BYTES: usize = 64 << 20;
/// How many of them.
const MAX_LOOSE: usize = 4096;

/// A topic that gives nothing for so long is read no further: its brokers are away.
const STALLED: Duration = Duration::from_secs(60);

/// What a registry says of the logs: told anew each round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    /// By gateway: all keys that may have sealed a batch of it.
    pub(crate) keys: BTreeMap<String, BTreeSet<[u8; 32]>>,
    /// By log: the number of its registered head.
    pub(crate) heads: BTreeMap<Origin, u64>,
    /// Logs that nothing more is said of.
    pub(crate) closed: BTreeSet<Origin>,
}

/// A records file that no seal names yet.
#[derive(Debug)]
struct Loose {
    name: ObjectName,
    length: u64,
    pieces: BTreeMap<u64, Bytes>,
}

impl Loose {
    fn held(&self) -> usize {
        self.pieces.values().map(Bytes::len).sum()
    }

    /// The whole file, once all pieces are there; another hash than the name's is nobody's file.
    fn whole(&self) -> Option<Result<Bytes, ()>> {
        if self.held() as u64 != self.length {
            return None;
        }
        let mut whole = BytesMut::with_capacity(self.held());
        self.pieces.values().for_each(|piece| whole.extend_from_slice(piece));
        let ObjectName::Data { sha256, .. } = &self.name else { return Some(Err(())) };
        Some(if Sha256Hex::of(&whole) == *sha256 { Ok(whole.freeze()) } else { Err(()) })
    }
}

/// One log.
#[derive(Debug, Default)]
struct Log {
    /// By batch: the seal, and the name of its records file.
    seals: BTreeMap<u64, (Bytes, Option<ObjectName>)>,
    /// Records files of the first and the newest batch.
    records: BTreeMap<ObjectName, Bytes>,
}

impl Log {
    fn held(&self) -> usize {
        let seals: usize = self.seals.values().map(|(note, _)| note.len()).sum();
        seals + self.records.values().map(Bytes::len).sum::<usize>()
    }

    /// Whether a records file is one of those that are needed.
    fn needs(&self, name: &ObjectName) -> bool {
        let newest = self.seals.last_key_value().map(|(batch, _)| *batch);
        let named = self.seals.get(&name.batch()).is_some_and(|(_, records)| records.as_ref() == Some(name));
        named && (name.batch() == 0 || Some(name.batch()) == newest)
    }
}

#[derive(Debug, Default)]
struct State {
    /// `None`: nothing was told yet, so that nothing can be judged.
    registered: Option<Registered>,
    logs: BTreeMap<Origin, Log>,
    /// Bytes of the logs.
    kept: usize,
    loose: VecDeque<Loose>,
    /// Something was passed over that may count by now: the topic is read again.
    passed_over: bool,
    begins_anew: bool,
    reading: Reading,
}

/// How far the topic is read, from its beginning.
#[derive(Debug)]
struct Reading {
    begun: Instant,
    /// When a message came last.
    last: Instant,
    messages: u64,
    bytes: u64,
    is_at_end: bool,
}

impl Default for Reading {
    fn default() -> Self {
        let begun = Instant::now();
        Self { begun, last: begun, messages: 0, bytes: 0, is_at_end: false }
    }
}

/// What is on its way.
#[derive(Debug)]
pub struct TopicBatches {
    deployment: String,
    state: Mutex<State>,
    /// Bytes of what is kept, and of what is loose.
    bounds: (usize, usize),
}

/// Reads the topic; it ends soon after this is dropped.
#[derive(Debug)]
pub struct Following {
    _reader: TopicReader,
}

impl TopicBatches {
    /// Of a deployment; nothing is read yet.
    pub fn new(deployment: &str) -> Arc<Self> {
        Self::within(deployment, (MAX_KEPT_BYTES, MAX_LOOSE_BYTES))
    }

    pub(crate) fn within(deployment: &str, bounds: (usize, usize)) -> Arc<Self> {
        Arc::new(Self { deployment: deployment.into(), state: Mutex::default(), bounds })
    }

    /// Begins to read a topic, all partitions from the beginning of what is kept.
    ///
    /// # Errors
    /// The system has no threads.
    pub fn follow(self: &Arc<Self>, connection: Connection, topic: &str) -> io::Result<Following> {
        let who = format!("{}-registrar", self.deployment);
        let reader = TopicReader::start(connection, topic, &who, "registrar", Arc::clone(self) as _)?;
        Ok(Following { _reader: reader })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what the registry says by now: whose seals count, and what is not needed any more.
    pub(crate) fn tell(&self, registered: Registered) {
        let mut state = self.state();
        let state = &mut *state;
        let known = state.registered.as_ref();
        // What nobody's key had signed may count under a key that is new.
        state.begins_anew |= known.is_none_or(|known| known.keys != registered.keys);
        state.logs.retain(|origin, log| {
            let head = registered.heads.get(origin).copied();
            log.seals.retain(|batch, _| head.is_none_or(|head| *batch >= head));
            // What was registered was read by then.
            log.records.retain(|name, _| head.is_none_or(|head| name.batch() > head));
            !registered.closed.contains(origin) && !log.seals.is_empty()
        });
        state.registered = Some(registered);
        state.kept = state.logs.values().map(Log::held).sum();
        if state.passed_over && state.kept <= self.bounds.0 / 2 {
            (state.passed_over, state.begins_anew) = (false, true);
        }
    }

    /// The logs of a gateway that have a seal on its way.
    pub(crate) fn logs(&self, deployment: &str, gateway: &str) -> Vec<Origin> {
        let state = self.state();
        let own = |origin: &&Origin| origin.deployment() == deployment && origin.gateway() == gateway;
        state.logs.keys().filter(own).cloned().collect()
    }

    /// An object that is on its way.
    pub(crate) fn object(&self, name: &ObjectName) -> Option<Bytes> {
        let state = self.state();
        let log = state.logs.get(name.origin())?;
        match name {
            ObjectName::Seal { batch, .. } => log.seals.get(batch).map(|(note, _)| note.clone()),
            other => log.records.get(other).cloned(),
        }
    }

    /// Whether what is on its way is only read by now: that nothing came of a log says nothing yet. It takes as long as the
    /// topic is, for everything in it is read at each start.
    pub(crate) fn is_read_still(&self) -> bool {
        let state = self.state();
        (!state.reading.is_at_end || state.begins_anew) && state.reading.last.elapsed() < STALLED
    }

    /// Takes a message of the topic.
    pub(crate) fn message(&self, key: Option<&[u8]>, message: &[u8]) {
        let Ok(chunk) = Chunk::decode(message) else { return };
        let origin = chunk.name.origin();
        if origin.deployment() != self.deployment || key != Some(origin.as_str().as_bytes()) {
            return;
        }
        let mut state = self.state();
        let Some(registered) = &state.registered else { return };
        let head = registered.heads.get(origin).copied();
        // The seal of the head itself is where one that is started anew goes on.
        let first = match &chunk.name {
            ObjectName::Seal { .. } => head.unwrap_or(0),
            _ => head.map_or(0, |head| head.saturating_add(1)),
        };
        if chunk.name.batch() < first || registered.closed.contains(origin) {
            return;
        }
        match &chunk.name {
            ObjectName::Seal { .. } => self.seal(&mut state, &chunk),
            ObjectName::Data { kind: FileKind::Records, .. } => self.piece(&mut state, &chunk),
            _ => {}
        }
    }

    fn seal(&self, state: &mut State, chunk: &Chunk<'_>) {
        let (origin, batch) = (chunk.name.origin(), chunk.name.batch());
        let keys = state.registered.as_ref().and_then(|registered| registered.keys.get(origin.gateway()));
        // A seal is never cut: the longest is shorter than a piece.
        let sealed = keys.into_iter().flatten().find_map(|key| seal::verify(chunk.bytes, key).ok());
        let Some(sealed) = sealed.filter(|sealed| sealed.object_name() == chunk.name) else { return };
        if state.logs.get(origin).is_some_and(|log| log.seals.contains_key(&batch)) {
            return;
        }
        if state.kept + chunk.bytes.len() > self.bounds.0 {
            state.passed_over = true;
            return;
        }
        let records = sealed.file(&FileKind::Records);
        let records = records.and_then(|file| ObjectName::parse_file(origin, &file.name).ok());
        let log = state.logs.entry(origin.clone()).or_default();
        let before = log.held();
        log.seals.insert(batch, (Bytes::copy_from_slice(chunk.bytes), records.clone()));
        let needed: Vec<ObjectName> = log.records.keys().filter(|name| log.needs(name)).cloned().collect();
        log.records.retain(|name, _| needed.contains(name));
        state.kept = (state.kept + log.held()).saturating_sub(before);
        if let Some(name) = records {
            self.join(state, &name);
        }
    }

    fn piece(&self, state: &mut State, chunk: &Chunk<'_>) {
        let known =
            state.registered.as_ref().is_some_and(|r| r.keys.contains_key(chunk.name.origin().gateway()));
        let is_there =
            state.logs.get(chunk.name.origin()).is_some_and(|log| log.records.contains_key(&chunk.name));
        if !known || is_there || chunk.length > MAX_FILE_BYTES {
            return;
        }
        let is_it = |loose: &Loose| loose.name == chunk.name && loose.length == chunk.length;
        let at = state.loose.iter().position(is_it).unwrap_or_else(|| {
            let (name, length) = (chunk.name.clone(), chunk.length);
            state.loose.push_back(Loose { name, length, pieces: BTreeMap::new() });
            state.loose.len() - 1
        });
        if let Some(loose) = state.loose.get_mut(at) {
            // What comes again counts: forged pieces before it go.
            loose.pieces.insert(chunk.offset, Bytes::copy_from_slice(chunk.bytes));
        }
        self.join(state, &chunk.name);
        let mut held: usize = state.loose.iter().map(Loose::held).sum();
        while held > self.bounds.1 || state.loose.len() > MAX_LOOSE {
            let Some(oldest) = state.loose.pop_front() else { break };
            held -= oldest.held();
        }
    }

    /// Takes a whole records file to its log, where a seal there names it and needs it.
    fn join(&self, state: &mut State, name: &ObjectName) {
        let Some(log) = state.logs.get(name.origin()) else { return };
        if !log.needs(name) || log.records.contains_key(name) {
            return;
        }
        let whole = state.loose.iter().enumerate().filter(|(_, loose)| loose.name == *name);
        let whole = whole.filter_map(|(at, loose)| Some((at, loose.whole()?.ok()?))).next();
        let Some((at, bytes)) = whole else { return };
        state.loose.remove(at);
        if state.kept + bytes.len() > self.bounds.0 {
            state.passed_over = true;
        } else if let Some(log) = state.logs.get_mut(name.origin()) {
            state.kept += bytes.len();
            log.records.insert(name.clone(), bytes);
        }
    }

    /// Whether the topic would be read again now.
    #[cfg(test)]
    pub(crate) fn is_read_anew(&self) -> bool {
        self.begins_anew()
    }

    /// The topic was read from its beginning to its end.
    #[cfg(test)]
    pub(crate) fn end_is_met(&self) {
        self.begins_anew();
        self.read_to_end();
    }

    /// Bytes that are kept, and that are loose.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.kept, state.loose.iter().map(Loose::held).sum())
    }
}

impl Listener for TopicBatches {
    fn take(&self, key: Option<&[u8]>, message: &[u8]) {
        {
            let reading = &mut self.state().reading;
            reading.last = Instant::now();
            reading.messages += 1;
            reading.bytes += message.len() as u64;
        }
        self.message(key, message);
    }

    fn failed(&self, failed: Failed) {
        tracing::debug!(reason = %failed.trouble, detail = failed.detail, "batches on their way");
    }

    fn read_to_end(&self) {
        let mut state = self.state();
        let reading = &mut state.reading;
        if !std::mem::replace(&mut reading.is_at_end, true) {
            let (messages, bytes, took_ms) =
                (reading.messages, reading.bytes, reading.begun.elapsed().as_millis());
            tracing::info!(messages, bytes, took_ms, "batches on their way: the topic was read to its end");
        }
    }

    fn begins_anew(&self) -> bool {
        let mut state = self.state();
        let anew = std::mem::take(&mut state.begins_anew);
        if anew {
            state.reading = Reading::default();
        }
        anew
    }
}

/// An object out of the topic, as a store gives it.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Bytes);

impl DiskFile for Held {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let rest = self.0.get(from..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(bytes)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(bytes);
        }
        Ok(count)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
