#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::files::{self, LeafRow};
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::seal::{self, SealedFile};
use schemas::ship::{ArchiverKey, Chunk, Receipt, pieces};
use schemas::trust::{Trust, TrustedGateway, key_text};
use schemas::{ObjectName, Origin, Sha256Hex};

use super::assembly::Wanted;
use super::batch::{Hand, NotStored, Whole};
use super::desk::{Desk, Read};
use super::keys::Keys;
use super::offsets::At;
use super::quarantine::Fault;
use crate::clock::SystemClock;
use crate::disk::RealDisk;
use crate::store::DirectoryStore;

const SEED: [u8; 32] = *b"affidavit test vectors, version1";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Fixed(Arc<Trust>);

impl Keys for Fixed {
    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.0)
    }
}

fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

fn keys() -> Arc<dyn Keys> {
    let key = key_text(&Ed25519Signer::from_seed(SEED).public_key());
    let gateway = TrustedGateway { name: "gw1".into(), key, ..TrustedGateway::default() };
    Arc::new(Fixed(Arc::new(Trust {
        v: 1,
        deployment: "acme".into(),
        root: None,
        registry: None,
        operator: None,
        witnesses: Vec::new(),
        timestamp_authorities: Vec::new(),
        gateways: vec![gateway],
    })))
}

/// The store of the golden vectors: three batches.
fn objects() -> BTreeMap<ObjectName, Vec<u8>> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/testdata/v1/store");
    let folder = store.join(origin().as_str());
    let read = |entry: std::fs::DirEntry| {
        let name = ObjectName::parse_file(&origin(), entry.file_name().to_str().unwrap()).unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect()
}

fn messages(objects: &BTreeMap<ObjectName, Vec<u8>>) -> Vec<Vec<u8>> {
    let cut = |(name, bytes): (&ObjectName, &Vec<u8>)| -> Vec<Vec<u8>> {
        let (length, sha256) = (bytes.len() as u64, Sha256Hex::of(bytes));
        let piece = |(offset, count): (u64, u64)| {
            let bytes = &bytes[offset as usize..(offset + count) as usize];
            Chunk { name: name.clone(), length, sha256, offset, bytes }.encode().unwrap()
        };
        pieces(length).map(piece).collect()
    };
    objects.iter().flat_map(cut).collect()
}

struct Rig {
    desk: Desk,
    folder: tempfile::TempDir,
    next: i64,
    settled: Vec<u64>,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let desk = Self::desk(folder.path());
        Self { desk, folder, next: 0, settled: Vec::new() }
    }

    fn desk(folder: &Path) -> Desk {
        let (work, quarantine) = (folder.join("work"), folder.join("quarantine"));
        let clock = Arc::new(SystemClock);
        Desk::open(keys(), clock, (&work, 1 << 30), (&quarantine, 1 << 20), PATIENCE).unwrap()
    }

    fn give(&mut self, message: &[u8]) {
        let at = At { partition: 0, offset: self.next };
        self.next += 1;
        let read =
            self.desk.take(at, Some(origin().as_str().as_bytes()), message, Instant::now(), false).unwrap();
        assert_eq!(read, Read::Taken);
    }

    fn settle_all(&mut self) {
        while let Some((seal, batch)) = self.desk.next() {
            self.settled.push(batch.seal.batch);
            self.desk.settle(&seal, None);
        }
    }

    fn faults(&self) -> Vec<(Fault, u64)> {
        self.desk.quarantine().counts().filter(|(_, count)| *count > 0).collect()
    }

    /// Where a reader would go on after a death now.
    fn committed(&mut self) -> Option<i64> {
        self.desk.offsets().due_commits().last().map(|at| at.offset)
    }
}

/// A small generator, so that an order can be given again.
fn shuffled(messages: &[Vec<u8>], seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut roll = move |below: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) % below as u64) as usize
    };
    let mut out = messages.to_vec();
    for at in (1..out.len()).rev() {
        out.swap(at, roll(at + 1));
    }
    for _ in 0..roll(5) {
        let again = out[roll(out.len())].clone();
        out.insert(roll(out.len() + 1), again);
    }
    out
}

#[test]
fn in_any_order_and_repeated_every_batch_comes_out_and_offsets_follow() {
    let messages = messages(&objects());
    for seed in 0..200 {
        let mut rig = Rig::new();
        for message in shuffled(&messages, seed) {
            rig.give(&message);
            rig.settle_all();
        }
        let mut settled = rig.settled.clone();
        settled.sort_unstable();
        settled.dedup();
        assert_eq!(settled, [0, 1, 2], "seed {seed}");
        assert_eq!(rig.faults(), [], "seed {seed}");
        // What a repeat left behind settled batches is given up once it is overdue.
        for wanted in rig.desk.overdue(Instant::now() + PATIENCE * 2) {
            rig.desk.give_up(&wanted, true, "a repeat");
        }
        assert_eq!(rig.committed(), Some(rig.next), "seed {seed}");
        assert_eq!((rig.desk.held(), rig.desk.open_messages()), (0, 0), "seed {seed}");
    }
}

#[test]
fn after_a_death_at_any_message_nothing_is_lost() {
    let messages = shuffled(&messages(&objects()), 7);
    for death in 0..=messages.len() {
        let mut rig = Rig::new();
        for message in &messages[..death] {
            rig.give(message);
            rig.settle_all();
        }
        let from = usize::try_from(rig.committed().unwrap_or(0)).unwrap();
        // The next one has an empty folder, and reads from what was committed.
        rig.desk = Rig::desk(&rig.folder.path().join("next"));
        rig.next = from as i64;
        for message in &messages[from..] {
            rig.give(message);
            rig.settle_all();
        }
        let mut settled = rig.settled.clone();
        settled.sort_unstable();
        settled.dedup();
        assert_eq!(settled, [0, 1, 2], "death at {death}");
    }
}

#[test]
fn what_does_not_hold_is_set_aside_and_stops_nothing() {
    let objects = objects();
    let mut rig = Rig::new();
    let stranger = Ed25519Signer::from_seed([9; 32]);
    let first = ObjectName::Seal { origin: origin(), batch: 0 };
    let forged = seal::parse_unverified(&objects[&first]).unwrap().sign(&stranger).unwrap();
    rig.give(b"no chunk at all");
    for message in self::messages(&BTreeMap::from([(first.clone(), forged)])) {
        rig.give(&message);
    }
    let foreign = Origin::new("other/gw1/20261120t101500z-3f9a1c20").unwrap();
    let theirs = ObjectName::Seal { origin: foreign, batch: 0 };
    for message in self::messages(&BTreeMap::from([(theirs, b"theirs".to_vec())])) {
        rig.give(&message);
    }
    let elsewhere = Origin::new("acme/gw2/20261120t101500z-3f9a1c20").unwrap();
    let misplaced = ObjectName::Seal { origin: elsewhere, batch: 0 };
    for message in self::messages(&BTreeMap::from([(misplaced, b"x".to_vec())])) {
        rig.give(&message);
    }
    for message in self::messages(&objects) {
        rig.give(&message);
        rig.settle_all();
    }
    rig.settled.sort_unstable();
    assert_eq!(rig.settled, [0, 1, 2]);
    assert_eq!(rig.faults(), [(Fault::NotAChunk, 1), (Fault::ForeignKey, 1), (Fault::ForgedSeal, 1)]);
    assert_eq!((rig.desk.foreign(), rig.committed()), (1, Some(rig.next)));
    // What another deployment sends in a form of its own is no finding of this one.
    let at = At { partition: 0, offset: rig.next };
    let key = Some(&b"other/gw1/20261120t101500z-3f9a1c20"[..]);
    let read = rig.desk.take(at, key, b"affidavit/chunk/v2", Instant::now(), false).unwrap();
    assert_eq!((read, rig.desk.foreign()), (Read::Taken, 2));
    assert_eq!(rig.faults(), [(Fault::NotAChunk, 1), (Fault::ForeignKey, 1), (Fault::ForgedSeal, 1)]);
}

#[test]
fn what_stays_incomplete_is_a_finding_and_frees_the_offset() {
    let all = messages(&objects());
    let mut rig = Rig::new();
    rig.give(&all[0]);
    assert_eq!(rig.committed(), Some(0));
    let overdue = rig.desk.overdue(Instant::now() + PATIENCE * 2);
    assert_eq!(overdue.len(), 1);
    assert_eq!(rig.desk.overdue(Instant::now()), []);
    rig.desk.give_up(&overdue[0], false, "overdue");
    assert_eq!((rig.faults(), rig.committed()), (vec![(Fault::Unfinished, 1)], Some(1)));
}

#[test]
fn a_lost_partition_is_another_archivers() {
    let all = messages(&objects());
    let mut rig = Rig::new();
    for message in &all[..all.len() - 1] {
        rig.give(message);
    }
    rig.desk.lose(&[0]);
    assert_eq!((rig.desk.held(), rig.committed(), rig.faults()), (0, None, vec![]));
    assert!(rig.desk.next().is_none());
}

#[test]
fn a_topic_that_was_made_anew_is_never_committed_past_what_is_needed() {
    let all = messages(&objects());
    let mut rig = Rig::new();
    // Batches of the old topic are at the store when the new one's messages have the same offsets.
    for message in &all {
        rig.give(message);
    }
    let at_work: Vec<_> = std::iter::from_fn(|| rig.desk.next()).collect();
    assert_eq!(at_work.len(), 3);
    rig.next = 0;
    for message in &all[..4] {
        rig.give(message);
    }
    let batch = |message: &Vec<u8>| Chunk::decode(message).unwrap().name.batch();
    let mut needed: Vec<u64> = all[..4].iter().map(batch).collect();
    let mut committed = rig.committed().unwrap_or(0);
    for (seal, whole) in &at_work {
        rig.desk.settle(seal, None);
        committed = rig.committed().unwrap_or(committed);
        needed.iter_mut().filter(|batch| **batch == whole.seal.batch).for_each(|batch| *batch = u64::MAX);
        let first = needed.iter().position(|batch| *batch != u64::MAX).unwrap_or(4);
        assert_eq!(committed, first as i64, "the first of those that are still needed: {needed:?}");
    }
    assert_eq!((rig.desk.open_messages(), rig.desk.held()), (0, 0));
}

#[test]
fn a_batch_at_the_store_holds_the_offset_also_after_its_partition_came_back() {
    let all = messages(&objects());
    let mut rig = Rig::new();
    for message in &all {
        rig.give(message);
    }
    let at_work: Vec<_> = std::iter::from_fn(|| rig.desk.next()).collect();
    rig.desk.lose(&[0]);
    assert_eq!(rig.desk.open_messages(), 0);
    rig.next = 0;
    for message in &all {
        rig.give(message);
    }
    assert!(rig.desk.next().is_none(), "nothing is handed out twice");
    assert_eq!((rig.desk.open_messages(), rig.committed()), (all.len(), Some(0)));
    for (seal, _) in &at_work {
        rig.desk.settle(seal, None);
    }
    assert_eq!((rig.desk.open_messages(), rig.committed(), rig.faults()), (0, Some(rig.next), vec![]));
}

/// A partition of a topic, and a desk with a small work folder that reads it.
struct Partition {
    desk: Desk,
    topic: Vec<Vec<u8>>,
    at: usize,
    now: Instant,
    settled: Vec<u64>,
    bound: u64,
    _folder: tempfile::TempDir,
}

impl Partition {
    fn new(topic: Vec<Vec<u8>>, bound: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (work, quarantine) = (folder.path().join("work"), folder.path().join("quarantine"));
        let clock = Arc::new(SystemClock);
        let desk = Desk::open(keys(), clock, (&work, bound), (&quarantine, 1 << 20), PATIENCE).unwrap();
        let (now, settled) = (Instant::now(), Vec::new());
        Self { desk, topic, at: 0, now, settled, bound, _folder: folder }
    }

    fn next(&mut self, again: bool) -> Read {
        let at = At { partition: 0, offset: self.at as i64 };
        let read =
            self.desk.take(at, Some(origin().as_str().as_bytes()), &self.topic[self.at], self.now, again);
        assert!(self.desk.held() <= self.bound, "{} of {}", self.desk.held(), self.bound);
        let read = read.unwrap();
        self.at += usize::from(read == Read::Taken);
        read
    }

    fn settle(&mut self) {
        while let Some((seal, batch)) = self.desk.next() {
            self.settled.push(batch.seal.batch);
            self.desk.settle(&seal, None);
        }
    }

    /// Reads to the end, and again what is to be read again.
    fn read(&mut self) {
        for _ in 0..50 {
            while self.at < self.topic.len() {
                assert_eq!(self.next(false), Read::Taken, "nothing waits for a store here");
                self.settle();
            }
            self.now += Duration::from_secs(2);
            let Some(from) = self.desk.again(self.now).pop() else { return };
            self.at = usize::try_from(from.offset).unwrap();
        }
        std::panic::panic_any("it reads for ever");
    }

    fn faults(&self) -> Vec<(Fault, u64)> {
        self.desk.quarantine().counts().filter(|(_, count)| *count > 0).collect()
    }
}

/// A whole object of no batch that anybody sealed.
fn junk(fill: u8) -> Vec<u8> {
    let bytes = vec![fill; 900];
    let sha256 = Sha256Hex::of(&bytes);
    let kind = schemas::names::FileKind::Records;
    let name = ObjectName::Data { origin: origin(), batch: 77, sha256, kind };
    messages(&BTreeMap::from([(name, bytes)])).remove(0)
}

fn bytes_of(objects: &BTreeMap<ObjectName, Vec<u8>>) -> u64 {
    objects.values().map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn no_batch_is_given_up_for_room_whatever_else_is_sent() {
    let objects = objects();
    let good = messages(&objects);
    let bound = bytes_of(&objects);
    let fills = u8::try_from(bound / 900 + 2).unwrap_or(u8::MAX);
    let flood: Vec<Vec<u8>> = (0..fills).map(junk).collect();
    assert!(flood.len() as u64 * 900 > bound, "more junk than the folder holds");
    let between = good.iter().enumerate().flat_map(|(n, message)| [junk(200 + n as u8), message.clone()]);
    let topic: Vec<Vec<u8>> = flood.iter().cloned().chain(between).collect();
    let mut partition = Partition::new(topic, bound);
    partition.read();
    partition.settled.sort_unstable();
    assert_eq!(partition.settled, [0, 1, 2]);
    assert_eq!(partition.faults(), [], "nothing was set aside");
    // What nobody sealed holds the offset as long as it may still become a batch, and no longer.
    for _ in 0..20 {
        partition.now += PATIENCE * 2;
        for wanted in partition.desk.overdue(partition.now) {
            assert_eq!(wanted.name.batch(), 77);
            partition.desk.give_up(&wanted, false, "overdue");
        }
        partition.read();
    }
    assert_eq!(partition.faults(), [(Fault::Unfinished, partition.topic.len() as u64 - good.len() as u64)]);
    assert_eq!((partition.desk.held(), partition.desk.open_messages()), (0, 0));
    let committed = partition.desk.offsets().due_commits().pop().unwrap();
    assert_eq!(committed.offset, partition.topic.len() as i64);
    assert_eq!(partition.settled, [0, 1, 2], "nothing was archived twice");
}

#[test]
fn batches_that_come_all_at_once_get_through_one_after_the_other() {
    let objects = objects();
    // The first piece of every object, then the seals: nothing is whole before the folder is full.
    let (seals, files): (Vec<_>, Vec<_>) =
        objects.clone().into_iter().partition(|(name, _)| matches!(name, ObjectName::Seal { .. }));
    let topic: Vec<Vec<u8>> =
        [files, seals].into_iter().flat_map(|some| messages(&some.into_iter().collect())).collect();
    let of_batch = |batch: u64| {
        let lengths = objects.iter().filter(|(name, _)| name.batch() == batch).map(|(_, b)| b.len() as u64);
        lengths.clone().sum::<u64>() + lengths.max().unwrap()
    };
    let bound = (0..3).map(of_batch).max().unwrap();
    assert!(bound < bytes_of(&objects));
    let mut partition = Partition::new(topic, bound);
    partition.read();
    partition.settled.sort_unstable();
    assert_eq!((partition.settled.clone(), partition.faults()), (vec![0, 1, 2], vec![]));
    assert_eq!(partition.desk.open_messages(), 0);
}

#[test]
fn while_batches_wait_for_the_store_nothing_is_read_and_no_time_counts() {
    let objects = objects();
    let first = |name: &&ObjectName| name.batch() == 0;
    let batch = objects.keys().filter(first).map(|name| (name.clone(), objects[name].clone())).collect();
    let bound = bytes_of(&batch) * 2;
    let junk = (0..=u8::MAX).map(junk);
    let mut partition = Partition::new(messages(&batch).into_iter().chain(junk).collect(), bound);
    while partition.next(false) == Read::Taken {}
    let (seal, _) = partition.desk.next().unwrap();
    partition.now += PATIENCE * 9;
    assert_eq!(partition.next(true), Read::NoRoom);
    assert_eq!(partition.desk.overdue(partition.now), [], "nothing could be read meanwhile");
    assert_eq!(partition.desk.again(partition.now), []);
    partition.desk.settle(&seal, None);
    assert_eq!(partition.next(true), Read::Taken);
    assert_eq!(partition.desk.overdue(partition.now), [], "its time goes on from where it stood");
    assert!(!partition.desk.overdue(partition.now + PATIENCE * 2).is_empty());
    assert_eq!(partition.faults(), []);
}

#[test]
fn a_batch_that_the_folder_cannot_hold_is_said_and_stops_no_other() {
    let objects = objects();
    let most = objects.keys().map(|name| (name.batch(), objects[name].len() as u64));
    let mut of_batch = BTreeMap::<u64, u64>::new();
    most.for_each(|(batch, bytes)| *of_batch.entry(batch).or_default() += bytes);
    let largest = of_batch.iter().max_by_key(|(_, bytes)| **bytes).map(|(batch, _)| *batch).unwrap();
    let topic = |which: &dyn Fn(u64) -> bool| {
        let some = objects.iter().filter(|(name, _)| which(name.batch()));
        messages(&some.map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    };
    let mut partition = Partition::new(topic(&|batch| batch == largest), of_batch[&largest]);
    partition.read();
    assert_eq!(partition.settled, Vec::<u64>::new());
    partition.now += PATIENCE * 2;
    for wanted in partition.desk.overdue(partition.now) {
        partition.desk.give_up(&wanted, false, "overdue");
    }
    assert!(
        partition.faults().iter().all(|(fault, _)| *fault == Fault::Unfinished),
        "{:?}",
        partition.faults()
    );
    assert!(!partition.faults().is_empty());
    let small = partition.topic.len();
    partition.topic.extend(topic(&|batch| batch != largest && of_batch[&batch] * 2 <= of_batch[&largest]));
    partition.read();
    assert_eq!(partition.settled.is_empty(), partition.topic.len() == small);
    assert_eq!(partition.desk.held(), 0);
}

#[test]
fn a_log_without_a_known_key_is_no_forgery() {
    let stranger = Origin::new("acme/gw9/20261120t101500z-3f9a1c20").unwrap();
    let mut said =
        seal::parse_unverified(&objects()[&ObjectName::Seal { origin: origin(), batch: 0 }]).unwrap();
    said.origin = stranger.clone();
    let Ok(note) = said.sign(&Ed25519Signer::from_seed([9; 32])) else { std::panic::panic_any("not signed") };
    let mut rig = Rig::new();
    let objects = BTreeMap::from([(ObjectName::Seal { origin: stranger.clone(), batch: 0 }, note)]);
    for message in messages(&objects) {
        let at = At { partition: 0, offset: 0 };
        rig.desk.take(at, Some(stranger.as_str().as_bytes()), &message, Instant::now(), false).unwrap();
    }
    assert_eq!((rig.faults(), rig.committed()), (vec![(Fault::UnknownLog, 1)], Some(1)));
}

fn hand(folder: &Path) -> Hand {
    Hand {
        name: "ar1".into(),
        signer: Arc::new(Ed25519Signer::from_seed([3; 32])),
        store: Arc::new(DirectoryStore::open(Arc::new(RealDisk), &folder.join("store")).unwrap()),
        clock: Arc::new(SystemClock),
        keys: keys(),
    }
}

/// The batches, as the desk hands them out.
fn batches(rig: &mut Rig, objects: &BTreeMap<ObjectName, Vec<u8>>) -> Vec<(Wanted, Whole)> {
    for message in messages(objects) {
        rig.give(&message);
    }
    let mut batches: Vec<_> = std::iter::from_fn(|| rig.desk.next()).collect();
    batches.sort_by_key(|(_, batch)| batch.seal.batch);
    batches
}

#[test]
fn an_archived_batch_has_a_receipt_and_a_repeat_has_the_same() {
    let mut rig = Rig::new();
    let hand = hand(rig.folder.path());
    let pinned = [ArchiverKey { name: "ar1".into(), key: Ed25519Signer::from_seed([3; 32]).public_key() }];
    let objects = objects();
    for (_, batch) in batches(&mut rig, &objects) {
        for _ in 0..2 {
            let stored = hand.archive(&batch).unwrap();
            let receipt = Receipt::verify(&stored.receipt, &pinned).unwrap();
            assert!(receipt.answers(&batch.seal, Sha256Hex::of(&batch.note)));
            assert_eq!((stored.unknown.len(), stored.predecessor_missing), (0, false));
        }
    }
    let mut names = hand.store.list(&origin()).unwrap();
    names.sort();
    assert_eq!(names, objects.into_keys().collect::<Vec<_>>());
}

#[test]
fn a_batch_that_lacks_its_predecessor_is_archived_and_said() {
    let mut rig = Rig::new();
    let hand = hand(rig.folder.path());
    let batches = batches(&mut rig, &objects());
    let (_, last) = batches.iter().find(|(_, batch)| batch.seal.batch == 2).unwrap();
    assert!(hand.archive(last).unwrap().predecessor_missing);
}

/// A batch of the golden vectors, sealed by its log's key as the continuation of another one.
fn fork(batch: u64) -> BTreeMap<ObjectName, Vec<u8>> {
    let mut objects: BTreeMap<_, _> =
        objects().into_iter().filter(|(name, _)| name.batch() == batch).collect();
    let name = ObjectName::Seal { origin: origin(), batch };
    let mut said = seal::parse_unverified(&objects[&name]).unwrap();
    said.previous = Some(Sha256Hex::of(b"another batch"));
    objects.insert(name, said.sign(&Ed25519Signer::from_seed(SEED)).unwrap());
    objects
}

#[test]
fn a_batch_that_does_not_continue_the_one_before_it_is_set_aside_and_takes_no_name() {
    let (mut rig, mut other) = (Rig::new(), Rig::new());
    let hand = hand(rig.folder.path());
    let batches = batches(&mut rig, &objects());
    let (_, fork) = self::batches(&mut other, &fork(1)).remove(0);
    hand.archive(&batches[0].1).unwrap();
    let before = hand.store.list(&origin()).unwrap();
    let refused = hand.archive(&fork);
    let Err(NotStored::Never(Fault::ChainBroken, detail)) = refused else {
        std::panic::panic_any(format!("{refused:?}"))
    };
    assert!(detail.contains("batch 1, previous"), "{detail}");
    assert_eq!(hand.store.list(&origin()).unwrap(), before, "nothing of it was put");
    for (_, batch) in &batches[1..] {
        assert!(!hand.archive(batch).unwrap().predecessor_missing);
    }
}

#[test]
fn a_batch_that_came_before_its_predecessor_keeps_its_place_and_its_receipt() {
    let (mut rig, mut other) = (Rig::new(), Rig::new());
    let hand = hand(rig.folder.path());
    let first = batches(&mut rig, &objects()).remove(0).1;
    let (_, fork) = batches(&mut other, &fork(1)).remove(0);
    assert!(hand.archive(&fork).unwrap().predecessor_missing);
    hand.archive(&first).unwrap();
    let stored = hand.archive(&fork).unwrap();
    let pinned = [ArchiverKey { name: "ar1".into(), key: Ed25519Signer::from_seed([3; 32]).public_key() }];
    let receipt = Receipt::verify(&stored.receipt, &pinned).unwrap();
    assert!(receipt.answers(&fork.seal, Sha256Hex::of(&fork.note)));
}

#[test]
fn what_is_no_seal_of_the_log_holds_up_no_batch_behind_it() {
    for junk in [b"no seal".to_vec(), vec![b'x'; (1 << 20) + 1]] {
        let mut rig = Rig::new();
        let hand = hand(rig.folder.path());
        let second = batches(&mut rig, &objects()).remove(1).1;
        let folder = rig.folder.path().join("store").join(origin().as_str());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("0000000000.seal"), junk).unwrap();
        hand.archive(&second).unwrap();
    }
}

#[test]
fn a_batch_that_continues_none_that_is_on_its_way_waits_for_it() {
    let first = objects().into_iter().filter(|(name, _)| name.batch() == 0).collect();
    let second = objects().into_iter().filter(|(name, _)| name.batch() == 1).collect();
    for (then, waits) in [(second, false), (fork(1), true)] {
        let mut rig = Rig::new();
        let at_work = batches(&mut rig, &first).remove(0).0;
        let behind = batches(&mut rig, &then);
        assert_eq!(behind.is_empty(), waits);
        rig.desk.settle(&at_work, None);
        assert_eq!(rig.desk.next().is_some(), waits);
    }
}

/// The records of a batch of the golden vectors.
fn rows(batch: u64) -> Vec<LeafRow> {
    let is_it = |name: &ObjectName| {
        name.batch() == batch
            && matches!(name, ObjectName::Data { kind: schemas::names::FileKind::Records, .. })
    };
    let file = objects().into_iter().find(|(name, _)| is_it(name)).unwrap().1;
    files::read_records(&file.into(), &files::Limits::default()).unwrap().rows
}

/// The first batch of the log, with these records.
fn batch_of(rigs: &mut Vec<Rig>, rows: &[LeafRow], later_us: i64) -> Whole {
    let file = files::write_records(rows).unwrap();
    let sha256 = Sha256Hex::of(&file);
    let kind = schemas::names::FileKind::Records;
    let data = ObjectName::Data { origin: origin(), batch: 0, sha256, kind };
    let name = ObjectName::Seal { origin: origin(), batch: 0 };
    let mut tree = schemas::merkle::CompactRange::new();
    rows.iter().for_each(|row| tree.append(row.hash));
    let mut said = seal::parse_unverified(&objects()[&name]).unwrap();
    said.files = vec![SealedFile { name: data.file_name(), length: file.len() as u64, sha256 }];
    said.to = rows.len() as u64;
    said.time += later_us;
    said.root = tree.root();
    let seal = said.sign(&Ed25519Signer::from_seed(SEED)).unwrap();
    let mut rig = Rig::new();
    let whole = batches(&mut rig, &BTreeMap::from([(data, file), (name, seal)])).remove(0).1;
    // Its files are there as long as its rig.
    rigs.push(rig);
    whole
}

#[test]
fn a_log_that_was_sealed_again_with_other_cuts_keeps_its_first_batch_and_its_receipt() {
    let rows = rows(0);
    for (stored, again) in [(rows.len() - 1, rows.len()), (rows.len(), rows.len() - 1), (2, 2)] {
        let (rig, mut rigs) = (Rig::new(), Vec::new());
        let hand = hand(rig.folder.path());
        let pinned =
            [ArchiverKey { name: "ar1".into(), key: Ed25519Signer::from_seed([3; 32]).public_key() }];
        let first = batch_of(&mut rigs, &rows[..stored], 0);
        hand.archive(&first).unwrap();
        let before = hand.store.list(&origin()).unwrap();
        let second = batch_of(&mut rigs, &rows[..again], 1);
        let answer = hand.archive(&second).unwrap();
        assert!(answer.repeats, "{stored} {again}");
        let receipt = Receipt::verify(&answer.receipt, &pinned).unwrap();
        assert!(receipt.answers(&first.seal, Sha256Hex::of(&first.note)), "it tells what the store has");
        assert_eq!(hand.store.list(&origin()).unwrap(), before, "nothing was put");
    }
}

#[test]
fn a_batch_that_its_own_key_sealed_wrongly_and_another_one_under_its_name_are_refused() {
    let (mut rig, mut rigs) = (Rig::new(), Vec::new());
    let hand = hand(rig.folder.path());
    let signer = Ed25519Signer::from_seed(SEED);
    let rows = rows(0);
    hand.archive(&batch_of(&mut rigs, &rows, 0)).unwrap();
    // Other records.
    let strange = LeafRow { position: 1, ..self::rows(1)[0].clone() };
    let others = [rows[0].clone(), strange.clone(), LeafRow { position: 2, ..strange }];
    let before = hand.store.list(&origin()).unwrap();
    for others in [&others[..], &others[..2]] {
        let refused = hand.archive(&batch_of(&mut rigs, others, 0));
        assert!(matches!(refused, Err(NotStored::Never(Fault::NameTaken, _))), "{refused:?}");
    }
    let first = ObjectName::Seal { origin: origin(), batch: 0 };
    let mut said = seal::parse_unverified(&objects()[&first]).unwrap();
    // A seal over a records file that is none.
    let junk = b"not parquet".to_vec();
    let sha256 = Sha256Hex::of(&junk);
    let kind = schemas::names::FileKind::Records;
    let name = ObjectName::Data { origin: origin(), batch: 0, sha256, kind };
    said.files = vec![SealedFile { name: name.file_name(), length: junk.len() as u64, sha256 }];
    let wrong = BTreeMap::from([(first, said.sign(&signer).unwrap()), (name, junk)]);
    let wrong = batches(&mut rig, &wrong).remove(0).1;
    assert!(matches!(hand.archive(&wrong), Err(NotStored::Never(Fault::InvalidBatch, _))));
    assert_eq!(hand.store.list(&origin()).unwrap(), before, "nothing of them was put");
}
