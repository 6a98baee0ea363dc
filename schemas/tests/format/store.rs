//! `store/`, `keys/`, `trust.yaml`: a whole log of three batches, with every kind of record and of file.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::content::{
    self, Assembled, Assembler, DataKey, Dictionary, Encoding, RowMeta, Salt, cut, open_row_with,
    seal_row_with,
};
use schemas::files::{
    ContentWriter, LeafRow, Limits, ReferenceRow, read_content, read_reference, schema_fingerprint,
    write_records, write_reference,
};
use schemas::keytable::{self, KeyId, Slot};
use schemas::merkle::{self, CompactRange};
use schemas::names::FileKind;
use schemas::note::{Ed25519Signer, Signer as _, VerifyingKey};
use schemas::record::{AttemptNumber, Body, End, Outcome, PartName, Record};
use schemas::seal::{self, Seal, SealedFile};
use schemas::trust::{Trust, TrustedGateway, key_text};
use schemas::verify::{BatchInput, SealTail, chain, verify_batch};
use schemas::{ExchangeId, ObjectName, Sha256Hex, leaf};
use serde_json::json;

use super::sample::{self, START, exchange, origin};

const SEED: [u8; 32] = *b"affidavit test vectors, version1";
/// Kept, destroyed after its `erasure`, shared by nobody.
const KEYS: [[u8; 32]; 3] = [[0x11; 32], [0x22; 32], [0x33; 32]];

const CONFIG: &[u8] = br#"{"deployment":"acme","gateway":"gw1"}"#;
const POLICY: &[u8] = b"mode: observe\ndefault: allow\n";
const PRICES: &[u8] = b"id,provider,model\nopenai/gpt-5/2026-08-07,openai,gpt-5\n";
const DICTIONARY: &[u8] = b"{\"id\":\"chatcmpl-\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0";

/// A part's content with how it is stored.
struct Stored {
    part: PartName,
    content: Vec<u8>,
    encoding: Encoding,
    stream: Vec<u8>,
    salt: Salt,
}

struct Entry {
    body: Body,
    key: Option<u16>,
    stored: Vec<Stored>,
}

fn key_id(slot: u16) -> KeyId {
    KeyId { origin: origin(), page: 0, slot }
}

fn history(turns: usize) -> Vec<u8> {
    let turns = (0..turns).map(|i| format!("{{\"role\":\"user\",\"content\":\"turn {i} of a talk\"}}"));
    format!("{{\"model\":\"gpt-5\",\"messages\":[{}]}}", turns.collect::<Vec<_>>().join(",")).into_bytes()
}

fn answer() -> Vec<u8> {
    let choice = r#"{"index":0,"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}"#;
    format!("{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"choices\":[{choice}]}}").into_bytes()
}

fn stored(part: PartName, content: Vec<u8>, encoding: Encoding, salt: u8) -> Stored {
    Stored { part, stream: content.clone(), content, encoding, salt: Salt::from_bytes([salt; 32]) }
}

/// The log: positions 0..2, 2..9 and 9..20.
fn batches(key: &[u8; 32]) -> Vec<Vec<Entry>> {
    let lone = |body| Entry { body, key: None, stored: vec![] };
    let of = |stored: &[Stored]| stored.iter().map(|s| sample::part(s.part, &s.content, &s.salt)).collect();
    let identifier = |slot: u16| Some(key_id(slot).to_identifier());
    let intent = |n: u32, slot: u16, stored: Vec<Stored>| Entry {
        body: Body::Intent(sample::intent(n, of(&stored), identifier(slot))),
        key: Some(slot),
        stored,
    };
    let outcome = |n: u32, position: u64, slot: u16, stored: Vec<Stored>| Entry {
        body: Body::Outcome(sample::outcome(n, position, of(&stored), identifier(slot))),
        key: Some(slot),
        stored,
    };
    let attempt = |number: u64, phase: &str, stored: Stored| Entry {
        body: Body::Attempt(sample::attempt(
            (3, 4),
            number,
            phase,
            vec![sample::part(stored.part, &stored.content, &stored.salt)],
            identifier(0),
        )),
        key: Some(0),
        stored: vec![stored],
    };
    let head = b"POST /openai/v1/chat/completions\ncontent-type: application/json\n".to_vec();
    let config =
        sample::config(Sha256Hex::of(CONFIG), Some(Sha256Hex::of(POLICY)), Some(Sha256Hex::of(PRICES)));
    let dictionary = Encoding::ZstdDict { dictionary: Sha256Hex::of(DICTIONARY) };
    let (short, long) = (history(8), history(9));
    let mut resent = stored(
        PartName::ClientRequest,
        long.clone(),
        Encoding::Delta { base_exchange: exchange(1), base_part: PartName::ClientRequest },
        4,
    );
    resent.stream = content::delta(&short, &long).unwrap();
    let other = String::from_utf8(long.clone()).unwrap().replace("gpt-5", "gpt-5-mini").into_bytes();
    let mut rerouted = stored(
        PartName::AttemptRequest(AttemptNumber::new(1).unwrap()),
        other.clone(),
        Encoding::Delta { base_exchange: exchange(3), base_part: PartName::ClientRequest },
        8,
    );
    rerouted.stream = content::delta(&long, &other).unwrap();
    let overloaded = br#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#.to_vec();
    let first = vec![lone(Body::Boot(sample::boot(key))), lone(Body::Config(config))];
    let second = vec![
        intent(
            1,
            0,
            vec![
                stored(PartName::ClientRequestHead, head.clone(), Encoding::Zstd, 1),
                stored(PartName::ClientRequest, short, Encoding::Zstd, 2),
            ],
        ),
        outcome(1, 2, 0, vec![stored(PartName::ProviderResponse, answer(), dictionary, 3)]),
        intent(3, 0, vec![resent]),
        intent(2, 1, vec![stored(PartName::ClientRequest, b"to be erased".to_vec(), Encoding::Plain, 5)]),
        attempt(
            0,
            "end",
            stored(PartName::AttemptResponse(AttemptNumber::FIRST), overloaded, Encoding::Zstd, 7),
        ),
        attempt(1, "open", rerouted),
        outcome(2, 5, 1, vec![stored(PartName::ProviderResponse, vec![], Encoding::Plain, 6)]),
    ];
    let mut third = vec![
        lone(Body::SideCall(sample::side_call((3, 4)))),
        lone(Body::Outcome(Outcome {
            end: End::GatewayAbort,
            served: Some(sample::served()),
            translation: Some(sample::translation()),
            answer_dropped: Some(sample::answer_dropped()),
            ..sample::interrupted(3, 4)
        })),
        lone(Body::Refusal(sample::refusal(4))),
        lone(Body::Refusal(sample::folded())),
    ];
    // No loss here: this log is to verify.
    let harmless =
        sample::lone().into_iter().filter(|(name, _)| !["gap_loss", "gap_unrecorded"].contains(name));
    third.extend(harmless.map(|(_, body)| lone(body)));
    third.push(lone(Body::Close(sample::close())));
    vec![first, second, third]
}

fn data_key(slot: u16) -> DataKey {
    DataKey::from_bytes(KEYS[usize::from(slot)])
}

fn content_file(from: u64, batch: &[Entry]) -> Option<Vec<u8>> {
    let dictionaries = [Dictionary::new(DICTIONARY).unwrap()];
    let mut writer = ContentWriter::new(Vec::new()).unwrap();
    for (i, entry) in batch.iter().enumerate() {
        let exchange = match &entry.body {
            Body::Intent(intent) => &intent.exchange,
            Body::Outcome(outcome) => &outcome.exchange,
            Body::Attempt(attempt) => &attempt.exchange,
            _ => continue,
        };
        for stored in &entry.stored {
            for chunk in cut(&stored.salt, &stored.stream) {
                let meta = RowMeta {
                    position: from + i as u64,
                    exchange: exchange.clone(),
                    part: stored.part,
                    chunk: chunk.chunk,
                    last: chunk.last,
                    encoding: stored.encoding.clone(),
                };
                let key = entry.key.map(|slot| (key_id(slot), data_key(slot)));
                let key = key.as_ref().map(|(id, key)| (id, key));
                writer
                    .write(seal_row_with(&origin(), &meta, key, &dictionaries, &chunk.plaintext).unwrap())
                    .unwrap();
            }
        }
    }
    (writer.rows() > 0).then(|| writer.finish().unwrap())
}

fn reference_file(batch: u64) -> Option<Vec<u8>> {
    let row = |media_type: &str, bytes: &[u8]| ReferenceRow {
        sha256: Sha256Hex::of(bytes),
        media_type: media_type.into(),
        bytes: bytes.to_vec(),
    };
    let rows = match batch {
        0 => vec![row("application/json", CONFIG), row("application/yaml", POLICY), row("text/csv", PRICES)],
        1 => vec![row("application/zstd-dictionary", DICTIONARY)],
        _ => return None,
    };
    Some(write_reference(&rows).unwrap())
}

/// Every object of the store by name, and the seals' notes in order.
fn build() -> (BTreeMap<String, Vec<u8>>, Vec<Vec<u8>>) {
    let signer = Ed25519Signer::from_seed(SEED);
    let config = Sha256Hex::of(CONFIG);
    let mut objects = BTreeMap::new();
    let mut seals: Vec<Vec<u8>> = Vec::new();
    let mut tree = CompactRange::new();
    for (number, entries) in batches(&signer.public_key()).into_iter().enumerate() {
        let before = tree.clone();
        let mut rows = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let position = before.size() + i as u64;
            let record = sample::record(position as i64 * 1_000_000, config, entry.body.clone());
            let leaf = leaf::encode(&record).unwrap();
            let hash = leaf::hash(&leaf);
            tree.append(hash);
            rows.push(LeafRow { position, leaf, hash });
        }
        let batch = number as u64;
        let files = [
            (FileKind::Records, Some(write_records(&rows).unwrap())),
            (FileKind::Content("standard".into()), content_file(before.size(), &entries)),
            (FileKind::Reference, reference_file(batch)),
        ];
        let mut sealed = Vec::new();
        for (kind, bytes) in files {
            let Some(bytes) = bytes else { continue };
            let sha256 = Sha256Hex::of(&bytes);
            let name = ObjectName::Data { origin: origin(), batch, sha256, kind };
            sealed.push(SealedFile { name: name.file_name(), length: bytes.len() as u64, sha256 });
            objects.insert(name.to_string(), bytes);
        }
        let seal = Seal {
            origin: origin(),
            batch,
            from: before.size(),
            to: tree.size(),
            root: tree.root(),
            compact: before.nodes().to_vec(),
            files: sealed,
            previous: seals.last().map(|note| Sha256Hex::of(note)),
            schema: schema_fingerprint(),
            time: START + 70_000_000 + batch as i64 * 10_000_000,
        };
        let note = seal.sign(&signer).unwrap();
        objects.insert(seal.object_name().to_string(), note.clone());
        seals.push(note);
    }
    (objects, seals)
}

fn trust() -> Trust {
    let key = key_text(&Ed25519Signer::from_seed(SEED).public_key());
    let gateway = TrustedGateway {
        name: "gw1".into(),
        key,
        first_origin: Some(origin()),
        heartbeat_bound_s: Some(300),
        closed: Some(true),
        ..TrustedGateway::default()
    };
    Trust { v: 1, deployment: "acme".into(), gateways: vec![gateway], ..Trust::default() }
}

fn page() -> Vec<u8> {
    let mut page = keytable::encode_page(&origin(), 0, &KEYS).unwrap().to_vec();
    let slot = keytable::slot_offset(1) as usize;
    page[slot..slot + keytable::SLOT_BYTES].copy_from_slice(&keytable::DESTROYED);
    page
}

#[test]
fn the_store_is_written_as_the_vectors_say() {
    let (objects, seals) = build();
    if super::bless() {
        // Names hold hashes: what is of an older draft must go.
        let _ = std::fs::remove_dir_all(super::testdata("store"));
    }
    for (name, bytes) in &objects {
        super::golden(&format!("store/{name}"), bytes);
    }
    super::golden(&format!("keys/{}", keytable::page_path(&origin(), 0)), &page());
    let trust = trust();
    let gateway = &trust.gateways[0];
    let yaml = format!(
        "v: 1\ndeployment: acme\ngateways:\n  - name: gw1\n    key: {}\n    first_origin: {}\n    heartbeat_bound_s: 300\n    closed: true\n",
        gateway.key,
        origin()
    );
    super::golden("trust.yaml", yaml.as_bytes());
    let key = Ed25519Signer::from_seed(SEED).public_key();
    let verifier = VerifyingKey::new(origin().seal_key_name(), key).unwrap();
    super::golden_json(
        "store.json",
        &json!({
            "origin": origin(),
            "seal_seed": hex::encode(SEED),
            "verifier_key": verifier.to_string(),
            "trust_fingerprint": trust.fingerprint().unwrap(),
            "data_keys": {key_id(0).to_string(): hex::encode(KEYS[0]), key_id(2).to_string(): hex::encode(KEYS[2])},
            "destroyed": [key_id(1).to_string()],
            "seals": seals.iter().map(|note| Sha256Hex::of(note)).collect::<Vec<_>>(),
            "objects": objects.iter().map(|(name, bytes)| json!({"name": name, "length": bytes.len(),
                "sha256": Sha256Hex::of(bytes)})).collect::<Vec<_>>(),
        }),
    );
}

/// All that is in the folder of the vectors' store.
fn stored_names() -> Vec<String> {
    let folder = super::testdata("store").join(origin().as_str());
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!("{}/{}", origin(), entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.sort();
    names
}

#[test]
fn the_store_of_the_vectors_verifies() {
    let wanted: Vec<_> = build().0.into_keys().collect();
    assert_eq!(stored_names(), wanted);
    let trust = trust();
    assert_eq!(trust.check(), []);
    let key = trust.gateway(&origin()).unwrap().public_key().unwrap();
    let mut tail: Option<SealTail> = None;
    let mut records: Vec<Record> = Vec::new();
    let mut hashes = Vec::new();
    for batch in 0..3 {
        let name = ObjectName::Seal { origin: origin(), batch };
        let note = super::read(&format!("store/{name}"));
        let seal = seal::verify(&note, &key).unwrap();
        for file in &seal.files {
            let bytes = super::read(&format!("store/{}/{}", origin(), file.name));
            assert_eq!((bytes.len() as u64, Sha256Hex::of(&bytes)), (file.length, file.sha256));
        }
        let file = seal.file(&FileKind::Records).unwrap();
        let bytes = Bytes::from(super::read(&format!("store/{}/{}", origin(), file.name)));
        let input = BatchInput { origin: &origin(), key: &key, seal: &note, records: bytes };
        let verified = chain(tail.as_ref(), verify_batch(input).unwrap()).unwrap();
        hashes.extend(verified.rows().iter().map(|row| *row.hash()));
        records.extend(verified.rows().iter().map(|row| row.decoded().record.clone().unwrap()));
        assert_eq!(verified.closed(), batch == 2);
        // A proof from the batch alone leads to the seal's root.
        let batch_hashes = &hashes[seal.from as usize..];
        for (i, hash) in batch_hashes.iter().enumerate() {
            let proof = merkle::inclusion_in_batch(&seal.before().unwrap(), batch_hashes, i as u64);
            merkle::verify_inclusion(hash, seal.from + i as u64, seal.to, &proof, &seal.root).unwrap();
        }
        tail = Some(verified.tail());
    }
    let made: Vec<_> = batches(&key).into_iter().flatten().map(|entry| entry.body).collect();
    assert_eq!(records.into_iter().map(|record| record.body).collect::<Vec<_>>(), made);
}

#[test]
fn the_content_of_the_vectors_is_what_the_leaves_commit_to() {
    let key = Ed25519Signer::from_seed(SEED).public_key();
    let page = super::read(&format!("keys/{}", keytable::page_path(&origin(), 0)));
    let page = keytable::decode_page(&origin(), 0, &page).unwrap();
    let note = super::read(&format!("store/{}", ObjectName::Seal { origin: origin(), batch: 1 }));
    let seal = seal::verify(&note, &key).unwrap();
    let bytes = |kind| {
        let file = seal.file(&kind).unwrap();
        Bytes::from(super::read(&format!("store/{}/{}", origin(), file.name)))
    };
    let limits = Limits::default();
    let references = read_reference(&bytes(FileKind::Reference), &limits).unwrap();
    let dictionaries: Vec<_> = references.iter().map(|row| Dictionary::new(&row.bytes).unwrap()).collect();
    let mut parts: Vec<(u64, ExchangeId, PartName, Option<Assembled>)> = Vec::new();
    for row in read_content(bytes(FileKind::Content("standard".into())), &limits).unwrap() {
        let row = row.unwrap();
        assert!(row.chunk == 0 && row.last, "every part of the vectors' store has one chunk");
        let id = row.key_id.clone().unwrap();
        let assembled = match page.key(id.slot) {
            Slot::Key(key) => {
                let plain = open_row_with(&origin(), &row, Some((&id, &key)), &dictionaries).unwrap();
                let mut assembler = Assembler::new(1 << 20);
                assembler.push(row.chunk, row.last, &row.encoding, &plain).unwrap();
                Some(assembler.finish().unwrap())
            }
            Slot::Destroyed => {
                assert_eq!(id, key_id(1));
                None
            }
            other => std::panic::panic_any(format!("{other:?}")),
        };
        parts.push((row.position, row.exchange, row.part, assembled));
    }
    let second = batches(&key).into_iter().nth(1).unwrap();
    let wanted: Vec<_> = second
        .iter()
        .enumerate()
        .flat_map(|(i, entry)| entry.stored.iter().map(move |stored| (i as u64 + 2, entry.key, stored)))
        .collect();
    assert_eq!(parts.len(), wanted.len());
    for ((position, _, part, assembled), (at, slot, stored)) in parts.into_iter().zip(wanted) {
        assert_eq!((position, part), (at, stored.part));
        let Some(assembled) = assembled else {
            assert_eq!(slot, Some(1));
            continue;
        };
        assert_eq!(assembled.salt, stored.salt);
        assert_eq!(assembled.base.is_some(), matches!(stored.encoding, Encoding::Delta { .. }));
        let salt = assembled.salt;
        let turns = if assembled.base.as_ref().is_some_and(|(of, _)| *of == exchange(3)) { 9 } else { 8 };
        let content = assembled.content(Some(&history(turns)), 1 << 20).unwrap();
        assert_eq!(content, stored.content);
        let commitment = content::commitment(&salt, &content);
        let committed = match &second[(position - 2) as usize].body {
            Body::Intent(intent) => &intent.parts,
            Body::Outcome(outcome) => &outcome.parts,
            Body::Attempt(attempt) => &attempt.parts,
            other => std::panic::panic_any(format!("{other:?}")),
        };
        assert!(committed.iter().any(|p| p.part == part && p.commitment == commitment));
    }
}

#[test]
fn any_changed_byte_of_a_seal_or_of_its_order_is_found() {
    let key = Ed25519Signer::from_seed(SEED).public_key();
    let notes: Vec<_> = (0..3)
        .map(|batch| super::read(&format!("store/{}", ObjectName::Seal { origin: origin(), batch })))
        .collect();
    for note in &notes {
        for i in 0..note.len() {
            let mut changed = note.clone();
            changed[i] ^= 1;
            assert!(seal::verify(&changed, &key).is_err(), "byte {i}");
        }
    }
    let tails: Vec<_> =
        notes.iter().map(|note| SealTail::of(&seal::verify(note, &key).unwrap(), None)).collect();
    for (i, before) in tails.iter().enumerate() {
        for (j, note) in notes.iter().enumerate() {
            let faults = schemas::verify::chain_seal(Some(before), &seal::verify(note, &key).unwrap());
            assert_eq!(faults.is_empty(), j == i + 1, "{i} before {j}: {faults:?}");
        }
    }
}
