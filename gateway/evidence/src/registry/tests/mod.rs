#![allow(clippy::unwrap_used, reason = "tests")]

mod clocks;
mod hostile;
mod ledger;
mod mute;
mod several;
mod topic;

use std::path::Path;

use bytes::Bytes;
use schemas::ObjectName;
use schemas::files::{LeafRow, schema_fingerprint, write_records};
use schemas::leaf;
use schemas::names::FileKind;
use schemas::record::{Body, Boot, Close, CloseReason, Encryption, Record};
use schemas::registry::{Checkpoint, KeyAction, KeyStatement, Until, decode};
use schemas::seal::{Seal, SealedFile};
use schemas::verify::{BatchInput, verify_batch};

use super::*;
use crate::clock::ManualClock;
use crate::disk::RealDisk;
use crate::store::{DirectoryStore, Source};

const START: i64 = 1_795_169_700_000_000;
const SECOND: i64 = 1_000_000;

struct Place {
    dir: tempfile::TempDir,
    store: Arc<DirectoryStore>,
    clock: Arc<ManualClock>,
}

fn root() -> Ed25519Signer {
    Ed25519Signer::from_seed([1; 32])
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(Arc::new(RealDisk), &dir.path().join("store")).unwrap();
        std::fs::create_dir(dir.path().join("entries")).unwrap();
        Self { dir, store: Arc::new(store), clock: Arc::new(ManualClock::at(START)) }
    }

    fn registrar(&self, scratch: &str) -> Registrar {
        self.registrar_on(self.store.clone(), scratch)
    }

    fn registrar_on(&self, store: Arc<dyn Store>, scratch: &str) -> Registrar {
        self.registrar_with(store, scratch, None)
    }

    fn registrar_with(
        &self,
        store: Arc<dyn Store>,
        scratch: &str,
        topic: Option<Arc<TopicBatches>>,
    ) -> Registrar {
        Registrar::new(RegistrarConfig {
            deployment: "acme".into(),
            store,
            topic,
            seal_seed: [2; 32],
            checkpoint_seed: [3; 32],
            root: root().public_key(),
            entries: self.dir.path().join("entries"),
            scratch: self.dir.path().join(scratch),
            heartbeat_bound: Duration::from_secs(300),
            patience: Duration::from_secs(15),
            version: Identifier::new("0.1.0").unwrap(),
            config: Reference {
                media_type: Identifier::new("application/json").unwrap(),
                bytes: Bytes::from_static(b"{}"),
            },
            clock: self.clock.clone(),
        })
        .unwrap()
    }

    fn statement(&self, name: &str, statement: &KeyStatement, signer: &Ed25519Signer) {
        std::fs::write(self.dir.path().join("entries").join(name), statement.sign(signer).unwrap()).unwrap();
    }

    fn add(&self, seed: u8) {
        self.statement(&format!("add-{seed}"), &about(KeyAction::Add, seed), &root());
    }

    /// The names of the registry's objects that end so.
    fn registry(&self, end: &str) -> Vec<String> {
        let folder = self.store.root().join("acme/registry/log");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(end));
        names.sort();
        names
    }

    /// The kinds of all entries in the store, each batch verified, each with its checkpoint.
    fn kinds(&self) -> Vec<String> {
        let origin = Origin::registry("acme").unwrap();
        let key = Ed25519Signer::from_seed([2; 32]).public_key();
        let folder = self.store.root().join(origin.as_str());
        let mut kinds = Vec::new();
        for batch in 0.. {
            let name = ObjectName::Seal { origin: origin.clone(), batch };
            let Ok(note) = std::fs::read(self.store.root().join(name.to_string())) else { break };
            let sealed = schemas::seal::verify(&note, &key).unwrap();
            let records = &sealed.file(&FileKind::Records).unwrap().name;
            let records = std::fs::read(folder.join(records)).unwrap().into();
            let verified =
                verify_batch(BatchInput { origin: &origin, key: &key, seal: &note, records }).unwrap();
            for row in verified.rows() {
                kinds.push(decode(row.leaf()).unwrap().unwrap().body.kind().to_owned());
            }
            let note = std::fs::read(folder.join(format!("{batch:010}.checkpoint"))).unwrap();
            let witness = Ed25519Signer::from_seed([3; 32]).public_key();
            assert_eq!(Checkpoint::verify(&note, &witness).unwrap().0, Checkpoint::of(&sealed));
        }
        kinds
    }
}

fn about(action: KeyAction, seed: u8) -> KeyStatement {
    KeyStatement {
        deployment: "acme".into(),
        action,
        gateway: "gw1".into(),
        key: key_text(&Ed25519Signer::from_seed([seed; 32]).public_key()),
        replaces: None,
        heartbeat_bound_s: None,
        closers: vec![],
        until: None,
    }
}

/// A log that grows batch by batch, as a gateway writes it.
struct Log<'a> {
    place: &'a Place,
    origin: Origin,
    seed: u8,
    tree: CompactRange,
    previous: Option<Sha256Hex>,
    batch: u64,
    /// The length that seals state of the records file, where it is not its own.
    length: Option<u64>,
    /// The records file that was put last.
    file: String,
}

impl<'a> Log<'a> {
    fn new(place: &'a Place, epoch: &str, seed: u8) -> Self {
        let origin = Origin::join("acme", "gw1", epoch).unwrap();
        Self {
            place,
            origin,
            seed,
            tree: CompactRange::new(),
            previous: None,
            batch: 0,
            length: None,
            file: String::new(),
        }
    }

    fn boot(&mut self) {
        let public = Ed25519Signer::from_seed([self.seed; 32]).public_key();
        self.seal(Body::Boot(Boot {
            gateway_version: Identifier::new("0.1.0").unwrap(),
            binary_sha256: None,
            seal_key: key_text(&public),
            promise_key: None,
            heartbeat_bound_ms: 300_000,
            batch_age_ms: 10_000,
            predecessor: None,
            encryption: Encryption::Off,
        }));
    }

    fn beat(&mut self) {
        self.seal(Body::Heartbeat(Heartbeat { counters: BTreeMap::new() }));
    }

    fn close(&mut self) {
        let (reason, alive_until) = (CloseReason::Shutdown, self.place.clock.now_us());
        self.seal(Body::Close(Close { reason, successor: None, alive_until, counters: BTreeMap::new() }));
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) {
        let path = self.place.dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let sha256 = Sha256Hex::of(bytes);
        let source = Source { path: &path, sha256: &sha256, length: bytes.len() as u64, sealed_us: 0 };
        self.place.store.put(name, source).unwrap();
    }

    fn seal(&mut self, body: Body) {
        let at = self.place.clock.now_us();
        let record = Record { v: 1, at, config: Sha256Hex([7; 32]), body };
        let (from, before) = (self.tree.size(), self.tree.nodes().to_vec());
        let leaf = leaf::encode(&record).unwrap();
        let hash = leaf::hash(&leaf);
        self.tree.append(hash);
        let records = write_records(&[LeafRow { position: from, leaf, hash }]).unwrap();
        let (origin, batch, sha256) = (self.origin.clone(), self.batch, Sha256Hex::of(&records));
        let name = ObjectName::Data { origin, batch, sha256, kind: FileKind::Records };
        self.put(&name, &records);
        self.file = name.file_name();
        let length = self.length.unwrap_or(records.len() as u64);
        let seal = Seal {
            origin: self.origin.clone(),
            batch,
            from,
            to: self.tree.size(),
            root: self.tree.root(),
            compact: before,
            files: vec![SealedFile { name: name.file_name(), length, sha256 }],
            previous: self.previous,
            schema: schema_fingerprint(),
            time: at,
        };
        let note = seal.sign(&Ed25519Signer::from_seed([self.seed; 32])).unwrap();
        self.put(&seal.object_name(), &note);
        self.previous = Some(Sha256Hex::of(&note));
        self.batch += 1;
    }
}

fn settle(registrar: &mut Registrar) -> usize {
    let mut entries = 0;
    loop {
        match registrar.round().unwrap() {
            Round::Stored(count) => entries += count,
            _ => return entries,
        }
    }
}

#[test]
fn a_log_is_registered_followed_and_closed() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    assert_eq!(settle(&mut registrar), 2);
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    log.beat();
    assert_eq!(settle(&mut registrar), 2);
    log.beat();
    log.close();
    settle(&mut registrar);
    let wanted = ["registry", "key_added", "log_opened", "log_head", "log_head", "log_closed"];
    assert_eq!(place.kinds(), wanted);
    assert_eq!(registrar.round().unwrap(), Round::Idle);
    let mut again = place.registrar("b");
    assert_eq!(
        again.round().unwrap(),
        Round::Idle,
        "a restart derives the same state and says nothing twice"
    );
    assert_eq!(again.state().logs()[&log.origin].closed.as_ref().unwrap().size, 4);
}

#[test]
fn only_what_an_enrolled_key_signed_is_registered() {
    let place = Place::new();
    place.add(10);
    place.statement("forged", &about(KeyAction::Add, 11), &Ed25519Signer::from_seed([9; 32]));
    std::fs::write(place.dir.path().join("entries/readme"), "no entry").unwrap();
    Log::new(&place, "20261120t101500z-00000001", 11).boot();
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added"]);
    let mut log = Log::new(&place, "20261120t101501z-00000002", 10);
    log.boot();
    log.seed = 11;
    log.beat();
    settle(&mut registrar);
    assert_eq!(place.kinds(), ["registry", "key_added", "log_opened", "log_head"]);
    assert_eq!(registrar.state().logs()[&log.origin].last().unwrap().1.size, 1, "up to the good seal only");
}

#[test]
fn keys_are_rotated_while_the_old_log_drains_and_revoked_up_to_a_size() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut old = Log::new(&place, "20261120t101500z-00000001", 10);
    old.boot();
    let replaces = Some(about(KeyAction::Add, 10).key);
    // The rotation's file sorts before that of the key which it replaces.
    place.statement("a", &KeyStatement { replaces, ..about(KeyAction::Rotate, 11) }, &root());
    settle(&mut registrar);
    let mut new = Log::new(&place, "20261120t102000z-00000002", 11);
    new.boot();
    old.beat();
    old.close();
    settle(&mut registrar);
    assert_eq!(registrar.state().gateways().len(), 2);
    assert!(registrar.state().logs()[&old.origin].closed.is_some(), "the old log drains under the old key");
    let until = Some(Until { origin: new.origin.clone(), size: 1 });
    place.statement("revoke", &KeyStatement { until, ..about(KeyAction::Revoke, 11) }, &root());
    settle(&mut registrar);
    new.beat();
    assert_eq!(settle(&mut registrar), 0, "nothing beyond the size of the revocation");
    assert_eq!(registrar.state().logs()[&new.origin].last().unwrap().1.size, 1);
    assert!(!place.kinds().contains(&"log_lost".to_owned()));
}

#[test]
fn a_silent_log_is_lost_once_and_comes_back() {
    let place = Place::new();
    place.add(10);
    let mut registrar = place.registrar("a");
    let mut log = Log::new(&place, "20261120t101500z-00000001", 10);
    log.boot();
    settle(&mut registrar);
    place.clock.advance(320 * SECOND);
    settle(&mut registrar);
    settle(&mut registrar);
    let (silent, before) = (registrar.gateways()["gw1"], registrar.followed[&log.origin].tail.time);
    assert_eq!(silent, GatewayLogs { lost: 1, sealed_us: Some(before), ..GatewayLogs::default() });
    log.beat();
    settle(&mut registrar);
    let kinds = place.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "log_lost").count(), 1, "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "log_head");
    assert_eq!(registrar.state().logs()[&log.origin].lost, None);
    let back = registrar.gateways()["gw1"];
    assert!((back.open, back.lost) == (1, 0) && back.sealed_us > Some(before), "{back:?}");
}

#[test]
fn an_idle_registry_signs_its_silence() {
    let place = Place::new();
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    place.clock.advance(200 * SECOND);
    assert_eq!(settle(&mut registrar), 0);
    place.clock.advance(100 * SECOND);
    assert_eq!(settle(&mut registrar), 1);
    assert_eq!(place.kinds(), ["registry", "heartbeat"]);
}

#[test]
fn a_crash_between_seal_and_checkpoint_is_made_good() {
    let place = Place::new();
    let mut registrar = place.registrar("a");
    let entries = registrar.derive().unwrap();
    assert!(registrar.write(&entries).unwrap());
    drop(registrar);
    let mut again = place.registrar("b");
    assert_eq!(again.round().unwrap(), Round::Idle);
    assert_eq!(place.kinds(), ["registry"]);
}

#[test]
fn a_registry_of_another_key_or_with_damage_stops_the_registrar() {
    let place = Place::new();
    settle(&mut place.registrar("a"));
    let mut other = place.registrar("b");
    other.signer = Ed25519Signer::from_seed([8; 32]);
    assert!(matches!(other.round(), Err(RegistrarError::Damaged { batch: 0, .. })));
    let folder = place.store.root().join("acme/registry/log");
    let is_records = |path: &Path| path.to_string_lossy().ends_with("records.parquet");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let path = files.into_iter().find(|path| is_records(path)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(place.registrar("c").round(), Err(RegistrarError::Damaged { batch: 0, .. })));
}

#[test]
fn a_witness_is_brought_forward_from_every_size_that_was_sealed_and_from_no_other() {
    let place = Place::new();
    let mut registrar = place.registrar("a");
    settle(&mut registrar);
    for seed in 10..20 {
        place.add(seed);
        settle(&mut registrar);
    }
    let head = registrar.head().unwrap().clone();
    assert_eq!((head.batch, head.size), (10, 11));
    let mut anchors = registrar.anchors();
    let root = |batch: u64| {
        let name = ObjectName::Checkpoint { origin: registrar.origin().clone(), batch };
        let note = std::fs::read(place.store.root().join(name.to_string())).unwrap();
        Checkpoint::verify(&note, &Ed25519Signer::from_seed([3; 32]).public_key()).unwrap().0
    };
    for step in [1, 3, 100] {
        anchors.step = step;
        for batch in 0..=10 {
            let old = root(batch);
            let (target, body) = anchors.submission(&head, old.size).unwrap().unwrap();
            let read = schemas::tlog::Submission::parse(&body).unwrap();
            assert_eq!((read.old, target.size), (old.size, 11.min(old.size + step)), "step {step}");
            assert_eq!(read.checkpoint, &target.note[..]);
            let new = root(target.batch);
            assert_eq!(target.text(registrar.origin()), new.to_text());
            schemas::merkle::verify_consistency(old.size, &old.root, new.size, &new.root, &read.proof)
                .unwrap();
        }
    }
    let (whole, body) = anchors.submission(&head, 0).unwrap().unwrap();
    assert!(whole == head && body.starts_with(b"old 0\n\n"));
    assert_eq!(anchors.submission(&head, 12).unwrap(), None, "beyond the registry");
    // Two entries in one batch: the size between them was never sealed.
    place.add(20);
    place.add(21);
    settle(&mut registrar);
    let head = registrar.head().unwrap().clone();
    assert_eq!(head.size, 13);
    assert_eq!(anchors.submission(&head, 12).unwrap(), None);
    let name = anchors.keep(&head, schemas::names::AnchorKind::Cosignature, b"words").unwrap();
    assert_eq!(anchors.keep(&head, schemas::names::AnchorKind::Cosignature, b"words").unwrap(), name);
    assert_eq!(std::fs::read(place.store.root().join(name.to_string())).unwrap(), b"words");
    assert_eq!(place.registrar("b").round().unwrap(), Round::Idle, "others read the registry as before");
}
