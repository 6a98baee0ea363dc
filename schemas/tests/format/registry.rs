//! `registry/`, `registry.json`, `trust-registry.yaml`: a registry that knows the log of `store/`.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::files::{
    LeafRow, Limits, ReferenceRow, read_records, schema_fingerprint, write_records, write_reference,
};
use schemas::merkle::CompactRange;
use schemas::names::FileKind;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Body, Heartbeat};
use schemas::registry::{
    Checkpoint, ContentErased, Entry, EntryBody, KeyAction, KeyStatement, LegalHold, LogClosed, LogHead,
    LogOpened, Opening, State, Until, decode, encode,
};
use schemas::seal::{self, Seal, SealedFile};
use schemas::trust::{Trust, TrustedRegistry, key_text};
use schemas::verify::{BatchInput, SealTail, chain, verify_batch};
use schemas::{Identifier, ObjectName, Origin, Sha256Hex, leaf};
use serde_json::{Value, json};

use super::sample::{START, origin};

const ROOT: [u8; 32] = *b"affidavit test vectors, the root";
const SEED: [u8; 32] = *b"affidavit test vectors, registry";
const CHECKPOINT: [u8; 32] = *b"affidavit test vectors, witness.";
const CONFIG: &[u8] = br#"{"deployment":"acme","role":"registrar"}"#;

fn public(seed: [u8; 32]) -> [u8; 32] {
    Ed25519Signer::from_seed(seed).public_key()
}

fn registry() -> Origin {
    Origin::registry("acme").unwrap()
}

fn statements() -> Vec<KeyStatement> {
    let add = KeyStatement {
        deployment: "acme".into(),
        action: KeyAction::Add,
        gateway: "gw1".into(),
        key: key_text(&public(*b"affidavit test vectors, version1")),
        replaces: None,
        heartbeat_bound_s: Some(300),
        closers: vec![key_text(&[2; 32]), key_text(&[1; 32])],
        until: None,
    };
    let rotate = KeyStatement {
        action: KeyAction::Rotate,
        key: key_text(&[3; 32]),
        replaces: Some(add.key.clone()),
        closers: vec![],
        ..add.clone()
    };
    let revoke = KeyStatement {
        action: KeyAction::Revoke,
        key: add.key.clone(),
        replaces: None,
        heartbeat_bound_s: None,
        until: Some(Until { origin: origin(), size: 20 }),
        ..rotate.clone()
    };
    vec![add, rotate, revoke]
}

fn bodies() -> Vec<Vec<EntryBody>> {
    let root = Ed25519Signer::from_seed(ROOT);
    let key = |statement: &KeyStatement| {
        let note = statement.sign(&root).unwrap();
        let (action, entry) = KeyStatement::verify(&note, "acme", &root.public_key()).unwrap();
        EntryBody::of_key(action, entry)
    };
    let notes: Vec<_> = (0..3)
        .map(|batch| super::read(&format!("store/{}", ObjectName::Seal { origin: origin(), batch })))
        .collect();
    let head = |batch: u64| {
        let note = &notes[batch as usize];
        let seal = seal::parse_unverified(note).unwrap();
        let seal_hash = Sha256Hex::of(note);
        EntryBody::LogHead(LogHead {
            origin: origin(),
            batch,
            size: seal.to,
            root: seal.root,
            seal: seal_hash,
            ahead: None,
            read: Some(batch + 1),
        })
    };
    let opening = EntryBody::Registry(Opening {
        gateway_version: Identifier::new("0.1.0").unwrap(),
        seal_key: key_text(&public(SEED)),
        checkpoint_key: key_text(&public(CHECKPOINT)),
        root_key: key_text(&public(ROOT)),
        heartbeat_bound_ms: 300_000,
    });
    let [add, rotate, revoke] = statements().try_into().unwrap();
    let opened = EntryBody::LogOpened(LogOpened {
        origin: origin(),
        key: add.key.clone(),
        seal: Sha256Hex::of(&notes[0]),
        heartbeat_bound_ms: 300_000,
        batch_age_ms: 10_000,
        log_config: Sha256Hex::of(br#"{"deployment":"acme","gateway":"gw1"}"#),
        predecessor: None,
    });
    let reason = Identifier::new("shutdown").unwrap();
    let closed = EntryBody::LogClosed(LogClosed { origin: origin(), size: 20, reason });
    let silence = Heartbeat { counters: BTreeMap::from([("keys".into(), 2), ("logs".into(), 1)]) };
    let mut second = vec![head(1), key(&rotate)];
    second.extend(ledger(&notes[2]));
    second.extend([head(2), closed, key(&revoke), EntryBody::Heartbeat(silence)]);
    vec![vec![opening, key(&add), opened, head(0)], second]
}

/// The entries about `hold` and `erasure` records of a batch.
fn ledger(note: &[u8]) -> Vec<EntryBody> {
    let sealed = seal::parse_unverified(note).unwrap();
    let name = &sealed.file(&FileKind::Records).unwrap().name;
    let records = Bytes::from(super::read(&format!("store/{}/{name}", origin())));
    let rows = read_records(&records, &Limits::default()).unwrap().rows;
    let of = |row: &LeafRow| {
        let record = leaf::decode(&row.leaf).unwrap().record?;
        match record.body {
            Body::Hold(hold) => {
                Some(EntryBody::LegalHold(LegalHold::of(&origin(), row.position, record.at, &hold)))
            }
            Body::Erasure(erased) => {
                Some(EntryBody::ContentErased(ContentErased::of(&origin(), row.position, record.at, &erased)))
            }
            _ => None,
        }
    };
    rows.iter().filter_map(of).collect()
}

/// Every object by name, the seals' notes, the entries as vectors.
fn build() -> (BTreeMap<String, Vec<u8>>, Vec<Vec<u8>>, Vec<Value>) {
    let (signer, witness) = (Ed25519Signer::from_seed(SEED), Ed25519Signer::from_seed(CHECKPOINT));
    let (mut objects, mut notes, mut entries) = (BTreeMap::new(), Vec::<Vec<u8>>::new(), Vec::new());
    let mut tree = CompactRange::new();
    for (batch, bodies) in (0_u64..).zip(bodies()) {
        let before = tree.clone();
        let mut rows = Vec::new();
        for (position, body) in (before.size()..).zip(bodies) {
            let at = START + 60_000_000 + position as i64 * 1_000_000;
            let leaf = encode(&Entry { v: 1, at, config: Sha256Hex::of(CONFIG), body }).unwrap();
            let hash = leaf::hash(&leaf);
            entries.push(json!({"leaf": String::from_utf8(leaf.clone()).unwrap(), "hash": hash}));
            tree.append(hash);
            rows.push(LeafRow { position, leaf, hash });
        }
        let reference = ReferenceRow {
            sha256: Sha256Hex::of(CONFIG),
            media_type: "application/json".into(),
            bytes: CONFIG.to_vec(),
        };
        let mut files = vec![(FileKind::Records, write_records(&rows).unwrap())];
        if batch == 0 {
            files.push((FileKind::Reference, write_reference(&[reference]).unwrap()));
        }
        let mut sealed = Vec::new();
        for (kind, bytes) in files {
            let sha256 = Sha256Hex::of(&bytes);
            let name = ObjectName::Data { origin: registry(), batch, sha256, kind };
            sealed.push(SealedFile { name: name.file_name(), length: bytes.len() as u64, sha256 });
            objects.insert(name.to_string(), bytes);
        }
        let seal = Seal {
            origin: registry(),
            batch,
            from: before.size(),
            to: tree.size(),
            root: tree.root(),
            compact: before.nodes().to_vec(),
            files: sealed,
            previous: notes.last().map(|note| Sha256Hex::of(note)),
            schema: schema_fingerprint(),
            time: START + 120_000_000 + batch as i64 * 10_000_000,
        };
        let note = seal.sign(&signer).unwrap();
        objects.insert(seal.object_name().to_string(), note.clone());
        let name = ObjectName::Checkpoint { origin: registry(), batch };
        objects.insert(name.to_string(), Checkpoint::of(&seal).sign(&witness).unwrap());
        notes.push(note);
    }
    (objects, notes, entries)
}

fn trust() -> Trust {
    let registry = TrustedRegistry { origin: registry(), key: key_text(&public(SEED)) };
    let root = Some(key_text(&public(ROOT)));
    Trust { v: 1, deployment: "acme".into(), root, registry: Some(registry), ..Trust::default() }
}

#[test]
fn the_registry_is_written_as_the_vectors_say() {
    let (objects, notes, entries) = build();
    if super::bless() {
        let _ = std::fs::remove_dir_all(super::testdata("registry"));
    }
    for (name, bytes) in &objects {
        super::golden(&format!("registry/{name}"), bytes);
    }
    let trust = trust();
    assert_eq!(trust.check(), []);
    let yaml = format!(
        "v: 1\ndeployment: acme\nroot: {}\nregistry:\n  origin: {}\n  key: {}\n",
        key_text(&public(ROOT)),
        registry(),
        key_text(&public(SEED))
    );
    super::golden("trust-registry.yaml", yaml.as_bytes());
    let root = Ed25519Signer::from_seed(ROOT);
    let statements: Vec<_> = statements()
        .iter()
        .map(|statement| Value::from(String::from_utf8(statement.sign(&root).unwrap()).unwrap()))
        .collect();
    let listed: Vec<_> = objects
        .iter()
        .map(|(name, bytes)| json!({"name": name, "length": bytes.len(), "sha256": Sha256Hex::of(bytes)}))
        .collect();
    super::golden_json(
        "registry.json",
        &json!({
            "origin": registry(),
            "root_seed": hex::encode(ROOT),
            "seal_seed": hex::encode(SEED),
            "checkpoint_seed": hex::encode(CHECKPOINT),
            "root_key": key_text(&public(ROOT)),
            "trust_fingerprint": trust.fingerprint().unwrap(),
            "key_statements": statements,
            "entries": entries,
            "seals": notes.iter().map(|note| Sha256Hex::of(note)).collect::<Vec<_>>(),
            "objects": listed,
        }),
    );
}

#[test]
fn the_registry_of_the_vectors_verifies_and_knows_its_log() {
    let key = public(SEED);
    let mut state = State::new("acme", public(ROOT), key);
    let mut tail: Option<SealTail> = None;
    for batch in 0..2 {
        let note = super::read(&format!("registry/{}", ObjectName::Seal { origin: registry(), batch }));
        let sealed = seal::verify(&note, &key).unwrap();
        let records = sealed.file(&FileKind::Records).unwrap();
        let records = Bytes::from(super::read(&format!("registry/{}/{}", registry(), records.name)));
        let input = BatchInput { origin: &registry(), key: &key, seal: &note, records };
        let chained = chain(tail.as_ref(), verify_batch(input).unwrap()).unwrap();
        for row in chained.rows() {
            let entry = decode(row.leaf()).unwrap().unwrap();
            assert_eq!(state.apply(row.position(), &entry), []);
        }
        let name = ObjectName::Checkpoint { origin: registry(), batch };
        let checkpoint = super::read(&format!("registry/{name}"));
        let (said, _) = Checkpoint::verify(&checkpoint, &public(CHECKPOINT)).unwrap();
        assert_eq!(said, Checkpoint::of(&sealed));
        tail = Some(chained.tail());
    }
    let log = &state.logs()[&origin()];
    assert_eq!((log.heads.len(), log.limit, log.closed.as_ref().unwrap().size), (3, Some(20), 20));
    assert_eq!(state.gateways().len(), 2);
}
