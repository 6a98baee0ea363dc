//! The desk: messages come in, batches that are whole go out to be archived, and offsets follow what is settled.
//!
//! Knows no Kafka and no store, so that a test can give it any order of messages, deaths and losses.
//!
//! The work folder has a bound, and no batch is given up for it. While batches that are whole wait for the store, which
//! will make room, no more is read. Else what is needed least is put back: it leaves the folder, its messages hold the
//! offset, and their partition is read again from there once there is room. What a seal names that counts is needed most,
//! then what was begun first: so whatever else is sent, what was sealed gets through.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::seal::SignedSeal;
use schemas::ship::Chunk;
use schemas::{ObjectName, Origin};

use super::assembly::{Assembly, Dropped, Taken, Wanted};
use super::batch::{self, Whole};
use super::keys::{self, KeyFault, Keys};
use super::offsets::{At, Offsets};
use super::quarantine::{Fault, Quarantine};
use crate::clock::Clock;
use crate::disk::{Disk, RealDisk};

/// How often partitions are read again for batches of which a seal counts, while there is little room.
const AGAIN: Duration = Duration::from_secs(1);
/// The most messages that are not settled: of what is put back a number is kept each.
const MAX_OPEN: usize = 1 << 18;
/// How many times the patience a sealed batch has that was put back.
const LONGER: u32 = 8;

/// What came of looking for room.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// There may be some now.
    Made,
    /// What was to be taken is needed least: it is put back itself.
    Back,
    /// The store will make some.
    Waits,
    /// Nothing else is held: it never fits.
    Never,
}

/// A seal that counts, and the files that it names.
#[derive(Debug)]
struct Sealed {
    seal: SignedSeal,
    key: [u8; 32],
    note: Vec<u8>,
    files: Vec<Wanted>,
    stage: Stage,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Some of it is missing.
    Comes,
    /// All of it is here.
    Whole,
    /// It was handed out.
    AtWork,
}

/// A log and the number of a batch: what an object belongs to.
type Place = (Origin, u64);

/// The files that a seal names.
fn files(seal: &SignedSeal) -> Vec<Wanted> {
    let files = seal.files.iter().filter_map(|file| {
        let name = ObjectName::parse_file(&seal.origin, &file.name).ok()?;
        Some(Wanted { name, sha256: file.sha256, length: file.length })
    });
    files.collect()
}

/// Bytes that the objects of a batch take, the longest beside its pieces.
fn needed(seal: &SignedSeal, note: &[u8]) -> u64 {
    let lengths = seal.files.iter().map(|file| file.length);
    let longest = lengths.clone().max().unwrap_or(0);
    lengths.fold(longest, u64::saturating_add).saturating_add(note.len() as u64)
}

fn place(wanted: &Wanted) -> Place {
    (wanted.name.origin().clone(), wanted.name.batch())
}

/// The log that a message's key names.
fn log(key: &[u8]) -> Option<Origin> {
    Origin::new(std::str::from_utf8(key).ok()?).ok()
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// It was taken, or set aside.
    Taken,
    /// There is no room for it now: it must come again.
    NoRoom,
}

/// Everything that is on its way from the topic to the store.
#[derive(Debug)]
pub(crate) struct Desk {
    keys: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    assembly: Assembly,
    offsets: Offsets,
    quarantine: Quarantine,
    /// The seals of each batch: several only where a gateway's key sealed it twice.
    seals: BTreeMap<Place, BTreeMap<Wanted, Sealed>>,
    /// The batches that nobody works on yet.
    ready: VecDeque<Wanted>,
    foreign: u64,
    /// Batches of which something was put back, by partition.
    put_back: BTreeMap<i32, BTreeSet<Place>>,
    /// When partitions were read again last.
    read_again: Option<Instant>,
    /// Since when nothing can be taken: the time does not count for what is not whole yet.
    stalled: Option<Instant>,
}

impl Desk {
    /// `patience`: how long the pieces of a batch may take to come.
    ///
    /// # Errors
    /// A folder that cannot be used.
    pub(crate) fn open(
        keys: Arc<dyn Keys>,
        clock: Arc<dyn Clock>,
        (work, work_bound): (&std::path::Path, u64),
        (quarantine, quarantine_bound): (&std::path::Path, u64),
        patience: Duration,
    ) -> io::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Ok(Self {
            keys,
            clock,
            patience,
            assembly: Assembly::open(&disk, work, work_bound)?,
            offsets: Offsets::default(),
            quarantine: Quarantine::open(quarantine, quarantine_bound)?,
            seals: BTreeMap::new(),
            ready: VecDeque::new(),
            foreign: 0,
            put_back: BTreeMap::new(),
            read_again: None,
            stalled: None,
        })
    }

    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Bytes of objects that are not settled.
    pub(crate) fn held(&self) -> u64 {
        self.assembly.held()
    }

    /// Messages that are not settled.
    pub(crate) fn open_messages(&self) -> usize {
        self.offsets.open()
    }

    /// When the oldest of them was read.
    pub(crate) fn oldest_open(&self) -> Option<Instant> {
        self.offsets.oldest()
    }

    /// Messages of other deployments that were passed over.
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign
    }

    pub(crate) fn offsets(&mut self) -> &mut Offsets {
        &mut self.offsets
    }

    /// Takes a message. `again`: there was no room for it, or an error.
    ///
    /// # Errors
    /// The disk's: the message must come again.
    pub(crate) fn take(
        &mut self,
        at: At,
        key: Option<&[u8]>,
        message: &[u8],
        now: Instant,
        again: bool,
    ) -> io::Result<Read> {
        if !again && self.offsets.goes_back(at) {
            // Offsets from before do not tell these messages apart: everything is read again.
            self.lose(&[at.partition]);
        }
        if !again && self.offsets.pass_again(at) {
            return Ok(Read::Taken);
        }
        let chunk = match Chunk::decode(message) {
            Ok(chunk) => chunk,
            // Another deployment's, in a form that this version does not know.
            Err(_)
                if key.and_then(log).is_some_and(|log| log.deployment() != self.keys.trust().deployment) =>
            {
                self.foreign += 1;
                self.pass(at);
                return Ok(Read::Taken);
            }
            Err(error) => {
                let about = key.map(String::from_utf8_lossy).unwrap_or_default();
                self.aside(Fault::NotAChunk, &about, &error.to_string(), at, message);
                return Ok(Read::Taken);
            }
        };
        let origin = chunk.name.origin();
        if origin.deployment() != self.keys.trust().deployment {
            self.foreign += 1;
            self.pass(at);
            return Ok(Read::Taken);
        }
        if key != Some(origin.as_str().as_bytes()) {
            let found = key.map(String::from_utf8_lossy).unwrap_or_default();
            let detail = format!("the message's key is `{found}`, wanted the log");
            self.aside(Fault::ForeignKey, &chunk.name.to_string(), &detail, at, message);
            return Ok(Read::Taken);
        }
        let read = self.piece(&chunk, at, message, now);
        match &read {
            Ok(Read::Taken) => {
                if let Some(stalled) = self.stalled.take() {
                    self.assembly.postpone(now.saturating_duration_since(stalled));
                }
            }
            Ok(Read::NoRoom) if !self.waits() => {}
            Ok(Read::NoRoom) | Err(_) => _ = self.stalled.get_or_insert(now),
        }
        read
    }

    fn piece(&mut self, chunk: &Chunk<'_>, at: At, message: &[u8], now: Instant) -> io::Result<Read> {
        let wanted = Wanted { name: chunk.name.clone(), sha256: chunk.sha256, length: chunk.length };
        loop {
            // From here on the message holds the offset, also where it has to come again.
            self.offsets.read(at);
            match self.assembly.take(chunk, at, now)? {
                Taken::Held { forgotten } => {
                    if let Some(forgotten) = forgotten {
                        let detail = "more versions of this piece than are kept: the oldest is forgotten";
                        let (about, now_us) = (chunk.name.to_string(), self.clock.now_us());
                        let (fault, at) = (Fault::TooManyVersions, Some(forgotten));
                        self.quarantine.set_aside(fault, &about, detail, at, &[], now_us);
                        self.offsets.done(forgotten);
                    }
                }
                Taken::Repeat => self.offsets.done(at),
                Taken::Forged => {
                    let detail = "it has not the hash that it says";
                    self.aside(Fault::ForgedPiece, &chunk.name.to_string(), detail, at, message);
                    return Ok(Read::Taken);
                }
                Taken::TooLong => {
                    let detail = format!("its {} bytes do not fit into the work folder twice", wanted.length);
                    self.aside(Fault::Unfinished, &chunk.name.to_string(), &detail, at, &[]);
                    return Ok(Read::Taken);
                }
                Taken::Full => match self.make_room(&wanted, chunk.bytes, now) {
                    Room::Made => continue,
                    Room::Waits => return Ok(Read::NoRoom),
                    Room::Back => {
                        self.put_back(&wanted);
                        self.put_back.entry(at.partition).or_default().insert(place(&wanted));
                        return Ok(Read::Taken);
                    }
                    Room::Never => {
                        let why = "the work folder holds nothing else, and has no room for its pieces";
                        self.give_up(&wanted, false, why);
                        self.offsets.done(at);
                        return Ok(Read::Taken);
                    }
                },
            }
            self.look(&wanted)?;
            return Ok(Read::Taken);
        }
    }

    /// A message that is not needed.
    fn pass(&mut self, at: At) {
        self.offsets.read(at);
        self.offsets.done(at);
    }

    fn aside(&mut self, fault: Fault, about: &str, detail: &str, at: At, bytes: &[u8]) {
        self.quarantine.set_aside(fault, about, detail, Some(at), bytes, self.clock.now_us());
        self.pass(at);
    }

    /// An object may be whole now: a seal is judged, and its batch is ready once all of it is there.
    fn look(&mut self, wanted: &Wanted) -> io::Result<()> {
        let Some(path) = self.assembly.whole(wanted) else { return Ok(()) };
        let place = place(wanted);
        let is_known = self.seals.get(&place).is_some_and(|seals| seals.contains_key(wanted));
        if matches!(wanted.name, ObjectName::Seal { .. }) && !is_known {
            let note = std::fs::read(path)?;
            match self.judge(wanted, &note) {
                Ok((seal, _)) if needed(&seal, &note) > self.assembly.bound() => {
                    self.never_fits(wanted, &seal, &note);
                    return Ok(());
                }
                Ok((seal, key)) => {
                    let files = files(&seal);
                    let sealed = Sealed { seal, key, note, files, stage: Stage::Comes };
                    self.seals.entry(place.clone()).or_default().insert(wanted.clone(), sealed);
                }
                Err(fault) => self.refuse(wanted, &fault, &note),
            }
        }
        for (seal, sealed) in self.seals.get_mut(&place).into_iter().flatten() {
            let has = |wanted| self.assembly.whole(wanted).is_some();
            if sealed.stage == Stage::Comes && sealed.files.iter().all(has) {
                sealed.stage = Stage::Whole;
                self.ready.push_back(seal.clone());
            }
        }
        Ok(())
    }

    /// A batch that the folder cannot hold: told, and put again by its gateway until somebody made the folder larger.
    fn never_fits(&mut self, wanted: &Wanted, seal: &SignedSeal, note: &[u8]) {
        let (needed, bound) = (needed(seal, note), self.assembly.bound());
        let dropped: Vec<Dropped> =
            files(seal).iter().chain([wanted]).filter_map(|one| self.let_go(one)).collect();
        let at = dropped.last().and_then(|dropped| dropped.messages.first().copied());
        let detail = format!("its batch needs {needed} bytes, the work folder holds {bound} (`work_bound`)");
        let (about, now) = (wanted.name.to_string(), self.clock.now_us());
        self.quarantine.set_aside(Fault::Unfinished, &about, &detail, at, note, now);
    }

    fn judge(&self, wanted: &Wanted, note: &[u8]) -> Result<(SignedSeal, [u8; 32]), KeyFault> {
        let (seal, key) = keys::verify(note, &self.keys.trust())?;
        if seal.object_name() != wanted.name {
            return Err(KeyFault::NotSigned(format!("it is the seal {}", seal.object_name())));
        }
        Ok((seal, key))
    }

    fn refuse(&mut self, seal: &Wanted, fault: &KeyFault, note: &[u8]) {
        let at = self.let_go(seal).and_then(|dropped| dropped.messages.first().copied());
        let (about, now) = (seal.name.to_string(), self.clock.now_us());
        let kind = if *fault == KeyFault::Unknown { Fault::UnknownLog } else { Fault::ForgedSeal };
        self.quarantine.set_aside(kind, &about, &fault.to_string(), at, note, now);
    }

    /// Lets an object go, and the messages that brought it.
    fn let_go(&mut self, wanted: &Wanted) -> Option<Dropped> {
        let dropped = self.assembly.drop(wanted)?;
        dropped.messages.iter().for_each(|at| self.offsets.done(*at));
        Some(dropped)
    }

    /// The next batch that is whole and that nobody works on. It is at work from now on.
    ///
    /// Of the seals of one batch one is at work at a time: what becomes of it decides about the others. A batch that
    /// continues none of those that are here with the number before its own waits for what becomes of them: whether it has
    /// a place is seen in the store.
    pub(crate) fn next(&mut self) -> Option<(Wanted, Whole)> {
        for _ in 0..self.ready.len() {
            let wanted = self.ready.pop_front()?;
            let others = self.seals.get(&place(&wanted)).into_iter().flatten();
            if others.into_iter().any(|(_, other)| other.stage == Stage::AtWork) || self.is_astray(&wanted) {
                self.ready.push_back(wanted);
                continue;
            }
            let sealed = self.seals.get_mut(&place(&wanted)).and_then(|seals| seals.get_mut(&wanted));
            // What was lost meanwhile may be here again, and handed out.
            let Some(sealed) = sealed.filter(|sealed| sealed.stage == Stage::Whole) else { continue };
            let all = sealed.files.iter().chain([&wanted]);
            let objects: Option<Vec<(Wanted, PathBuf)>> =
                all.map(|one| Some((one.clone(), self.assembly.whole(one)?.to_owned()))).collect();
            let Some(objects) = objects else { continue };
            sealed.stage = Stage::AtWork;
            let (seal, note) = (sealed.seal.clone(), sealed.note.clone());
            let whole = Whole { seal, key: sealed.key, note, objects };
            return Some((wanted, whole));
        }
        None
    }

    /// Whether batches with the number before a seal's own will reach the store, and it continues none of them. Those that
    /// are not whole do not count: they may never be.
    fn is_astray(&self, wanted: &Wanted) -> bool {
        let (origin, number) = place(wanted);
        let of = |place: &Place| self.seals.get(place).into_iter().flatten();
        let Some(before) = number.checked_sub(1).map(|before| (origin.clone(), before)) else { return false };
        let Some((_, own)) = of(&(origin, number)).find(|(seal, _)| *seal == wanted) else { return false };
        let mut whole = of(&before).filter(|(_, sealed)| sealed.stage > Stage::Comes).peekable();
        whole.peek().is_some()
            && whole.all(|(_, before)| batch::out_of_place(Some(&before.seal), &own.seal).is_some())
    }

    /// A batch is archived and its receipt is sent, or it never will be (`fault`): its messages are not needed any more.
    pub(crate) fn settle(&mut self, seal: &Wanted, fault: Option<(Fault, String)>) {
        let Some(sealed) = self.unseal(seal) else { return };
        if let Some((fault, detail)) = fault {
            let (about, now) = (seal.name.to_string(), self.clock.now_us());
            self.quarantine.set_aside(fault, &about, &detail, None, &sealed.note, now);
        }
        let others = self.seals.get(&place(seal));
        // Files that another seal of this batch names too stay with it.
        let is_shared = |file: &Wanted| others.is_some_and(|o| o.values().any(|s| s.files.contains(file)));
        let files: Vec<Wanted> = sealed.files.into_iter().filter(|file| !is_shared(file)).collect();
        for wanted in files.iter().chain([seal]) {
            self.let_go(wanted);
        }
    }

    fn unseal(&mut self, seal: &Wanted) -> Option<Sealed> {
        let place = place(seal);
        let seals = self.seals.get_mut(&place)?;
        let sealed = seals.remove(seal);
        if seals.is_empty() {
            self.seals.remove(&place);
        }
        sealed
    }

    /// How far the batch of an object is: a seal names it, or is it.
    fn stage(&self, wanted: &Wanted) -> Stage {
        let seals = self.seals.get(&place(wanted)).into_iter().flatten();
        let own = seals.filter(|(seal, sealed)| *seal == wanted || sealed.files.contains(wanted));
        own.map(|(_, sealed)| sealed.stage).max().unwrap_or(Stage::Comes)
    }

    /// Gives up an object. `archived`: its batch is in the store, so that it is what is left of a repeat, and no finding.
    pub(crate) fn give_up(&mut self, wanted: &Wanted, archived: bool, why: &str) {
        self.unseal(wanted);
        let Some(dropped) = self.let_go(wanted) else { return };
        if archived {
            return;
        }
        let at = dropped.messages.first().copied();
        let (about, now) = (dropped.wanted.name.to_string(), self.clock.now_us());
        let have = if dropped.whole { "it is whole, its batch is not" } else { "pieces of it are missing" };
        self.quarantine.set_aside(Fault::Unfinished, &about, &format!("{have}: {why}"), at, &[], now);
    }

    /// What did not become a whole batch in time: its gateway puts it again, as long as no receipt came.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<Wanted> {
        let now = self.stalled.map_or(now, |stalled| stalled.min(now));
        let Some(before) = now.checked_sub(self.patience) else { return Vec::new() };
        let long_before = now.checked_sub(self.patience * LONGER);
        let comes_again = |wanted: &Wanted| {
            self.is_put_back(&place(wanted))
                && self.is_sealed(wanted)
                && self.assembly.since(wanted) > long_before
        };
        self.assembly
            .begun_before(before)
            .into_iter()
            .filter(|wanted| self.stage(wanted) == Stage::Comes && !comes_again(wanted))
            .collect()
    }

    /// Whether batches that are whole wait for the store.
    fn waits(&self) -> bool {
        self.seals.values().flatten().any(|(_, sealed)| sealed.stage > Stage::Comes)
    }

    /// Whether a seal that counts names an object, or is it.
    fn is_sealed(&self, wanted: &Wanted) -> bool {
        let seals = self.seals.get(&place(wanted)).into_iter().flatten();
        seals.into_iter().any(|(seal, sealed)| seal == wanted || sealed.files.contains(wanted))
    }

    fn is_put_back(&self, place: &Place) -> bool {
        self.put_back.values().any(|places| places.contains(place))
    }

    /// Puts back what is needed least: what no seal names, and of that what was begun last.
    fn make_room(&mut self, wanted: &Wanted, bytes: &[u8], now: Instant) -> Room {
        if self.waits() || self.offsets.open() > MAX_OPEN {
            return Room::Waits;
        }
        let is_seal = matches!(wanted.name, ObjectName::Seal { .. }) && self.judge(wanted, bytes).is_ok();
        let since = self.assembly.since(wanted);
        let own = (!is_seal && !self.is_sealed(wanted), since.unwrap_or(now));
        // What was begun just now and no seal names is needed less than anything: nothing else is looked at.
        if own.0 && since.is_none() && self.assembly.objects().next().is_some() {
            return Room::Back;
        }
        let others = self.assembly.objects().filter(|(other, _)| *other != wanted);
        let least = others.map(|(other, since)| ((!self.is_sealed(other), since), other)).max();
        match least {
            None => Room::Never,
            Some((rank, _)) if rank <= own => Room::Back,
            Some((_, other)) => {
                let other = other.clone();
                self.put_back(&other);
                Room::Made
            }
        }
    }

    /// Takes an object out of the folder. Its messages hold the offset, and are read again.
    fn put_back(&mut self, wanted: &Wanted) {
        self.unseal(wanted);
        let Some(dropped) = self.assembly.drop(wanted) else { return };
        for at in dropped.messages {
            self.put_back.entry(at.partition).or_default().insert(place(wanted));
        }
    }

    /// Where partitions are to be read again: there is room, or a seal that counts names what was put back.
    pub(crate) fn again(&mut self, now: Instant) -> Vec<At> {
        if self.read_again.is_some_and(|last| now.saturating_duration_since(last) < AGAIN) || self.waits() {
            return Vec::new();
        }
        let has_room = self.assembly.has_room();
        let due = |places: &BTreeSet<Place>| has_room || places.iter().any(|p| self.seals.contains_key(p));
        let due: Vec<i32> = self.put_back.iter().filter(|(_, p)| due(p)).map(|(n, _)| *n).collect();
        if !due.is_empty() {
            self.read_again = Some(now);
        }
        due.iter().for_each(|partition| _ = self.put_back.remove(partition));
        due.into_iter().filter_map(|partition| self.offsets.again(partition)).collect()
    }

    /// These partitions are another archiver's now, or are read anew: what came from them alone comes again.
    pub(crate) fn lose(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.offsets.lost(*partition);
            self.put_back.remove(partition);
        }
        for wanted in self.assembly.forget(partitions) {
            // What is at work is finished all the same: the store takes it twice.
            if self.stage(&wanted) < Stage::AtWork {
                self.unseal(&wanted);
                self.let_go(&wanted);
            }
        }
    }
}
