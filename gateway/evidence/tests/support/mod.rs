//! A ledger on a disk, and an oracle that reads a store with nothing but `schemas`.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "shared by tests")]

mod client;
mod gate;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evidence::clock::SystemClock;
use evidence::disk::{self, RealDisk, SharedDisk, SimDisk};
use evidence::{
    Admission, DirectoryStore, KeyScope, Ledger, LedgerConfig, NewPart, OpenExchange, Reference, Store,
    Unavailable,
};
use schemas::content::{self, Assembler, Committer};
use schemas::files::{self, Limits, ReferenceRow};
use schemas::keytable::{self, Slot};
use schemas::names::FileKind;
use schemas::record::{
    Answered, Asked, Body, Caller, End, Intent, Outcome, Part, PartName, Record, Timing, Usage, UsageRole,
    UsageSource,
};
use schemas::verify::{BatchInput, SealTail, chain, verify_batch};
use schemas::{ExchangeId, Identifier, ObjectName, Origin, Sha256Hex};

#[allow(unused_imports, reason = "not every test has a client")]
pub use client::Client;
#[allow(unused_imports, reason = "not every test shuts the store")]
pub use gate::Gate;

pub const SEED: [u8; 32] = [42; 32];

pub fn id(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

/// Where a ledger lives.
#[derive(Clone)]
pub struct Bed {
    pub disk: SharedDisk,
    pub root: PathBuf,
    /// Each folder is on a volume of its own.
    apart: bool,
    _dir: Option<Arc<tempfile::TempDir>>,
}

impl Bed {
    pub fn real() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            disk: Arc::new(RealDisk),
            root: dir.path().to_owned(),
            apart: false,
            _dir: Some(Arc::new(dir)),
        }
    }

    pub fn sim(disk: &SimDisk) -> Self {
        let root = PathBuf::from("/host");
        Self { disk: Arc::new(disk.clone()), root, apart: false, _dir: None }
    }

    /// Each folder on a volume of its own, so that no sync for one makes another's name durable too.
    pub fn apart(disk: &SimDisk) -> Self {
        Self { apart: true, root: PathBuf::from("/"), ..Self::sim(disk) }
    }

    /// A disk with the volumes of [`Bed::apart`].
    pub fn volumes() -> SimDisk {
        let disk = SimDisk::new();
        for name in ["journal", "spool", "keys", "out"] {
            disk::create_dir(&disk, disk::parent(&Self::apart(&disk).folder(name))).unwrap();
        }
        disk.crash(disk::Crash::KeepAll);
        disk
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        if self.apart { self.root.join(format!("{name}-volume")).join(name) } else { self.root.join(name) }
    }

    pub fn store(&self) -> Arc<DirectoryStore> {
        Arc::new(DirectoryStore::open(self.disk.clone(), &self.folder("out")).unwrap())
    }

    pub fn config(&self) -> LedgerConfig {
        self.config_for(self.store())
    }

    pub fn config_for(&self, store: Arc<dyn Store>) -> LedgerConfig {
        LedgerConfig {
            registry: None,
            deployment: "acme".into(),
            gateway: "gw1".into(),
            journal_dir: self.folder("journal"),
            spool_dir: self.folder("spool"),
            key_table_dir: self.folder("keys"),
            store,
            seal_seed: SEED,
            promise_seed: None,
            closing: Vec::new(),
            operator: None,
            batch_age: Duration::from_millis(50),
            batch_bytes: 8 << 20,
            heartbeat_bound: Duration::from_secs(300),
            segment_bytes: 4 << 20,
            spool_bound_bytes: 1 << 30,
            spool_keep: Duration::ZERO,
            encryption: true,
            accept_loss: false,
            gateway_version: id("0.1.0"),
            binary_sha256: None,
            config: Reference {
                media_type: id("application/yaml"),
                bytes: Bytes::from_static(b"deployment: acme\n"),
            },
            policy: None,
            price_book: None,
            counters: Arc::new(|| BTreeMap::from([("exchanges".to_string(), 3)])),
            commit: None,
            disk: self.disk.clone(),
            clock: Arc::new(SystemClock),
            store_wait: Duration::ZERO,
            stop: evidence::Stop::default(),
            tap: None,
        }
    }

    pub fn key_table(&self) -> PathBuf {
        self.folder("keys")
    }
}

pub fn intent(parts: Vec<Part>, key: Option<Identifier>) -> Intent {
    Intent {
        exchange: ExchangeId::new("00000000-0000-7000-8000-000000000000").unwrap(),
        caller: Caller::default(),
        asked: asked(),
        verdict: None,
        parts,
        content_key: key,
        retention: id("standard"),
        translation: None,
        fail_mode: None,
        suppression: Vec::new(),
        choice: None,
    }
}

pub fn asked() -> Asked {
    Asked {
        route: Some(id("openai")),
        provider: Some(id("openai")),
        dialect: Some(id("openai")),
        operation: Some(id("chat.completions")),
        method: Some(id("POST")),
        requested_model: Some(id("gpt-5")),
        stream: Some(true),
        ..Asked::default()
    }
}

pub fn outcome(parts: Vec<Part>, key: Option<Identifier>) -> Outcome {
    Outcome {
        exchange: ExchangeId::new("00000000-0000-7000-8000-000000000000").unwrap(),
        intent_position: 0,
        caller: Caller::default(),
        asked: asked(),
        served: None,
        translation: None,
        answer_dropped: None,
        end: End::Complete,
        provider_end: None,
        provider_status: Some(200),
        status: Some(200),
        reason: None,
        delivered: Some(1),
        released: Some(1),
        delivered_at_least: None,
        answered: Answered::default(),
        usage: Usage {
            input_tokens: Some(10),
            uncached_input_tokens: Some(10),
            cache_read_tokens: Some(0),
            output_tokens: Some(5),
            ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
        },
        cost: None,
        unpriced: None,
        timing: Timing::default(),
        rate_limits: BTreeMap::new(),
        parts,
        content_key: key,
        retention: id("standard"),
    }
}

/// Admits an exchange and makes its intent durable.
pub async fn begin(ledger: &Ledger, keys: KeyScope, request: &[u8]) -> Result<OpenExchange, Unavailable> {
    let admission: Admission = ledger.admit(Some(request.len() as u64), keys).await?;
    let mut body = admission.body(PartName::ClientRequest);
    for piece in request.chunks(100_000) {
        body.write(Bytes::copy_from_slice(piece)).await?;
    }
    let body = body.finish().await?;
    let head = NewPart::bytes(PartName::ClientRequestHead, &b"POST /v1/chat/completions\n"[..]);
    admission
        .intent(vec![head, NewPart::stored(&body).with(Some(id("application/json")), None)], intent)
        .await
}

/// Streams an answer and makes the outcome durable.
pub async fn end(open: OpenExchange, answer: &[u8]) -> Result<(), Unavailable> {
    let writer = open.part(PartName::ProviderResponse, Some(id("text/event-stream")), None);
    let mut delivered = 0;
    for piece in answer.chunks(5000) {
        writer.write(piece, delivered).map_err(|cut| cut.0)?;
        delivered += piece.len() as u64;
    }
    let part = writer.finish();
    open.outcome(vec![part], outcome).await.map(|_| ())
}

/// One whole exchange.
pub async fn exchange(
    ledger: &Ledger,
    keys: KeyScope,
    request: &[u8],
    answer: &[u8],
) -> Result<ExchangeId, Unavailable> {
    let open = begin(ledger, keys, request).await?;
    let id = open.exchange().clone();
    end(open, answer).await?;
    Ok(id)
}

/// What a store holds of one log, verified.
pub struct LogView {
    pub origin: Origin,
    pub records: Vec<Record>,
    pub size: u64,
    pub root: Sha256Hex,
    pub contents: HashMap<(ExchangeId, PartName), Content>,
    pub references: Vec<ReferenceRow>,
    pub batches: usize,
    /// Bytes of all objects.
    pub bytes: u64,
    pub content_bytes: u64,
    /// Rows and their bytes by encoding.
    pub encodings: BTreeMap<String, (u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Proven(Bytes),
    KeyDestroyed,
}

impl LogView {
    pub fn bodies(&self) -> impl DoubleEndedIterator<Item = &Body> {
        self.records.iter().map(|record| &record.body)
    }

    /// The rows of all reference files that hold a dictionary, and the others.
    pub fn dictionaries_and_documents(&self) -> (Vec<&ReferenceRow>, Vec<&ReferenceRow>) {
        self.references.iter().partition(|row| row.media_type == content::DICTIONARY_MEDIA_TYPE)
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.bodies().map(Body::kind).collect()
    }

    pub fn intent(&self, exchange: &ExchangeId) -> Option<&Intent> {
        self.bodies().find_map(|body| match body {
            Body::Intent(intent) if intent.exchange == *exchange => Some(intent),
            _ => None,
        })
    }

    pub fn outcome(&self, exchange: &ExchangeId) -> Option<&Outcome> {
        let mut found = self.bodies().filter_map(|body| match body {
            Body::Outcome(outcome) if outcome.exchange == *exchange => Some(outcome),
            _ => None,
        });
        let first = found.next();
        assert!(found.next().is_none(), "two outcomes of {exchange}");
        first
    }

    pub fn content(&self, exchange: &ExchangeId, part: PartName) -> Option<&Content> {
        self.contents.get(&(exchange.clone(), part))
    }
}

fn read(disk: &SharedDisk, path: &Path) -> Bytes {
    disk::read_file(&**disk, path, 1 << 32).unwrap().into()
}

/// Whoever sees a seal in the store finds its files there, whole, also where the gateway never comes up again.
pub fn check_seals(bed: &Bed) {
    let store = bed.store();
    for origin in store.logs("acme", "gw1").unwrap() {
        let folder = store.root().join(origin.as_str());
        for name in store.list(&origin).unwrap() {
            if let ObjectName::Seal { .. } = name {
                let note = read(&bed.disk, &folder.join(name.file_name()));
                for file in schemas::seal::parse_unverified(&note).unwrap().files {
                    assert_eq!(Sha256Hex::of(&read(&bed.disk, &folder.join(&file.name))), file.sha256);
                }
            }
        }
    }
}

/// Verifies every log of the store and all content that has a key. Panics at the first fault.
pub fn verify(bed: &Bed) -> Vec<LogView> {
    let store = bed.store();
    let mut logs = store.logs("acme", "gw1").unwrap();
    logs.sort();
    let mut views: Vec<LogView> = logs.iter().map(|origin| verify_log(bed, &store, origin)).collect();
    // Names do not tell the order of epochs that began in one second.
    views.sort_by_key(|view| view.records[0].at);
    views
}

pub fn verify_log(bed: &Bed, store: &DirectoryStore, origin: &Origin) -> LogView {
    let folder = store.root().join(origin.as_str());
    let key = schemas::note::Signer::public_key(&schemas::note::Ed25519Signer::from_seed(SEED));
    let objects = store.list(origin).unwrap();
    assert_eq!(objects.len(), bed.disk.list(&folder).unwrap().len(), "foreign files in {}", folder.display());
    let mut named = 0;
    let batches = objects.iter().filter(|name| matches!(name, ObjectName::Seal { .. })).count() as u64;
    let mut view = LogView {
        origin: origin.clone(),
        records: Vec::new(),
        size: 0,
        root: schemas::merkle::empty_root(),
        contents: HashMap::new(),
        references: Vec::new(),
        batches: usize::try_from(batches).unwrap(),
        bytes: 0,
        content_bytes: 0,
        encodings: BTreeMap::new(),
    };
    let mut tail: Option<SealTail> = None;
    for batch in 0..batches {
        let note = read(&bed.disk, &folder.join(format!("{batch:010}.seal")));
        let parsed = schemas::seal::parse_unverified(&note).unwrap();
        named += parsed.files.len();
        view.bytes += note.len() as u64 + parsed.files.iter().map(|file| file.length).sum::<u64>();
        let records = parsed.file(&FileKind::Records).unwrap();
        let input = BatchInput {
            origin,
            key: &key,
            seal: &note,
            records: read(&bed.disk, &folder.join(&records.name)),
        };
        let verified = verify_batch(input).unwrap_or_else(|faults| panic!("batch {batch}: {faults:?}"));
        let verified =
            chain(tail.as_ref(), verified).unwrap_or_else(|faults| panic!("batch {batch}: {faults:?}"));
        tail = Some(SealTail::of(verified.seal(), None));
        view.size = verified.seal().to;
        view.root = verified.seal().root;
        let mut rows: HashMap<(ExchangeId, PartName), Vec<content::Row>> = HashMap::new();
        for file in &parsed.files {
            let bytes = read(&bed.disk, &folder.join(&file.name));
            assert_eq!(Sha256Hex::of(&bytes), file.sha256);
            match ObjectName::parse_file(origin, &file.name).unwrap() {
                ObjectName::Data { kind: FileKind::Content(_), .. } => {
                    view.content_bytes += file.length;
                    for row in files::read_content(bytes, &Limits::default()).unwrap() {
                        let row = row.unwrap();
                        let name =
                            format!("{} {:?}", row.encoding.to_string().split(':').next().unwrap(), row.part);
                        let of = view.encodings.entry(name).or_default();
                        *of = (of.0 + 1, of.1 + row.data.len() as u64);
                        rows.entry((row.exchange.clone(), row.part)).or_default().push(row);
                    }
                }
                ObjectName::Data { kind: FileKind::Reference, .. } => {
                    view.references.extend(files::read_reference(&bytes, &Limits::default()).unwrap());
                }
                _ => {}
            }
        }
        let dictionaries: Vec<_> = view
            .references
            .iter()
            .filter(|row| row.media_type == content::DICTIONARY_MEDIA_TYPE)
            .map(|row| content::Dictionary::new(&row.bytes).unwrap())
            .collect();
        for leaf in verified.rows() {
            let record = leaf.decoded().record.clone().unwrap();
            assert_eq!(leaf.position(), view.records.len() as u64);
            let (exchange, parts) = match &record.body {
                Body::Intent(intent) => (Some(&intent.exchange), &intent.parts[..]),
                Body::Outcome(outcome) => (Some(&outcome.exchange), &outcome.parts[..]),
                Body::Refusal(refusal) => (refusal.exchange.as_ref(), &refusal.parts[..]),
                Body::Attempt(attempt) => (Some(&attempt.exchange), &attempt.parts[..]),
                _ => (None, &[][..]),
            };
            for part in parts.iter().filter(|part| part.kept != Some(false)) {
                let key = (exchange.unwrap().clone(), part.part);
                let found = rows.remove(&key).unwrap_or_else(|| panic!("no rows of {key:?}"));
                assert!(found.iter().all(|row| row.position == leaf.position()));
                let content = open_part(bed, origin, part, &found, &dictionaries, &view.contents);
                view.contents.insert(key, content);
            }
            view.records.push(record);
        }
        assert!(rows.is_empty(), "rows that no record commits to: {:?}", rows.keys());
    }
    assert_eq!(named + usize::try_from(batches).unwrap(), objects.len(), "unreferenced objects");
    view
}

fn open_part(
    bed: &Bed,
    origin: &Origin,
    part: &Part,
    rows: &[content::Row],
    dictionaries: &[content::Dictionary],
    known: &HashMap<(ExchangeId, PartName), Content>,
) -> Content {
    let key = rows[0].key_id.as_ref().map(|id| {
        let page = read(&bed.disk, &bed.key_table().join(keytable::page_path(&id.origin, id.page)));
        (id, keytable::decode_page(&id.origin, id.page, &page).unwrap().key(id.slot))
    });
    let key = match &key {
        None => None,
        Some((id, Slot::Key(key))) => Some((*id, key)),
        Some((_, Slot::Destroyed)) => return Content::KeyDestroyed,
        Some((id, slot)) => panic!("key {id}: {slot:?}"),
    };
    let mut assembler = Assembler::new(1 << 30);
    for row in rows {
        let plain = content::open_row_with(origin, row, key, dictionaries).unwrap();
        assembler.push(row.chunk, row.last, &row.encoding, &plain).unwrap();
    }
    let assembled = assembler.finish().unwrap();
    let base = assembled.base.clone().map(|base| match known.get(&base) {
        Some(Content::Proven(bytes)) => bytes.clone(),
        other => panic!("base {base:?} is {other:?}"),
    });
    let salt = assembled.salt;
    let bytes = assembled.content(base.as_deref(), 1 << 30).unwrap();
    let mut committer = Committer::new(&salt);
    committer.update(&bytes);
    assert_eq!(committer.finish(), (part.length, part.commitment), "{:?}", part.part);
    Content::Proven(bytes.into())
}

/// Pseudo-random bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// `None` where the disk does not answer.
pub fn quick(bed: &Bed) -> Option<LedgerConfig> {
    let store = DirectoryStore::open(bed.disk.clone(), &bed.folder("out")).ok()?;
    let mut config = bed.config_for(Arc::new(store));
    config.batch_age = Duration::from_millis(1);
    config.segment_bytes = 1 << 20;
    Some(config)
}

/// Recovers, closes, and hands out what the store holds.
pub async fn after(bed: &Bed) -> Vec<LogView> {
    let ledger = Ledger::open(quick(bed).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    ledger
        .drain_and_close(schemas::record::CloseReason::Shutdown, Duration::from_secs(60))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    ledger.halt();
    verify(bed)
}
