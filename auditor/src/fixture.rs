//! Small stores for tests, made by the functions of the format.

use std::collections::BTreeMap;
use std::path::PathBuf;

use datafusion::prelude::SessionContext;
use schemas::content::{
    CHUNK_BYTES, DICTIONARY_MEDIA_TYPE, DataKey, Dictionary, Encoding, RowMeta, Salt, commitment, cut,
    seal_row_with,
};
use schemas::files::{
    ContentWriter, LeafRow, ReferenceRow, schema_fingerprint, write_records, write_reference,
};
use schemas::keytable::{KeyId, encode_page, page_path};
use schemas::merkle::CompactRange;
use schemas::names::FileKind;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::promise::Group;
use schemas::record::*;
use schemas::seal::{Seal, SealedFile};
use schemas::trust::{Trust, TrustedGateway, key_text};
use schemas::{ExchangeId, Identifier, ObjectName, Origin, Sha256Hex, leaf};

use crate::cache::{Cache, Continue};
use crate::finding::Findings;
use crate::report::Report;
use crate::source::MemorySource;
use crate::time::SECOND;
use crate::verify::{Options, run};

/// When the first log boots.
pub(crate) const START: i64 = 1_790_000_000 * SECOND;
const KEYS: usize = 64;

pub(crate) fn id(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

/// Writes one log.
pub(crate) struct Writer {
    pub(crate) origin: Origin,
    pub(crate) now: i64,
    pub(crate) config: Sha256Hex,
    pub(crate) store: MemorySource,
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) range: CompactRange,
    pub(crate) previous: Option<Sha256Hex>,
    pub(crate) batch: u64,
    pub(crate) encrypt: bool,
    /// What parts that are no edits are written with.
    pub(crate) dictionary: Option<&'static [u8]>,
    pub(crate) suppression: Vec<Identifier>,
    /// The end user of the exchanges from here on.
    pub(crate) subject: Option<Identifier>,
    /// The team that asks, where it is another one.
    pub(crate) team: Option<Identifier>,
    /// What is asked for, where it is another operation.
    pub(crate) operation: Option<Identifier>,
    pending: Vec<Vec<u8>>,
    content: Vec<schemas::content::Row>,
    references: Vec<ReferenceRow>,
    next_key: u16,
    kinds: BTreeMap<String, u64>,
}

/// The key of an exchange that keeps no content.
pub(crate) fn no_key(writer: &Writer) -> KeyId {
    KeyId { origin: writer.origin.clone(), page: 0, slot: 0 }
}

pub(crate) fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed([7; 32])
}

pub(crate) fn trust() -> Trust {
    Trust {
        v: 1,
        deployment: "acme".into(),
        gateways: vec![TrustedGateway {
            name: "gw1".into(),
            key: key_text(&signer().public_key()),
            ..TrustedGateway::default()
        }],
        ..Trust::default()
    }
}

fn reference(bytes: &[u8], media_type: &str) -> ReferenceRow {
    ReferenceRow { sha256: Sha256Hex::of(bytes), media_type: media_type.into(), bytes: bytes.to_vec() }
}

pub(crate) fn exchange_id(n: u64) -> ExchangeId {
    ExchangeId::new(format!("019f0000-0000-7000-8000-{n:012x}")).unwrap()
}

impl Writer {
    pub(crate) fn boot(epoch: &str, now: i64, predecessor: Option<Predecessor>, store: MemorySource) -> Self {
        Self::boot_with(epoch, now, predecessor, store, Encryption::Aes256Gcm)
    }

    pub(crate) fn boot_with(
        epoch: &str,
        now: i64,
        predecessor: Option<Predecessor>,
        store: MemorySource,
        encryption: Encryption,
    ) -> Self {
        Self::boot_promising(epoch, now, predecessor, store, encryption, None)
    }

    /// A log whose `boot` names a promise key.
    pub(crate) fn boot_promising(
        epoch: &str,
        now: i64,
        predecessor: Option<Predecessor>,
        store: MemorySource,
        encryption: Encryption,
        promise_key: Option<String>,
    ) -> Self {
        Self::without_boot(epoch, now, store).began(predecessor, encryption, promise_key)
    }

    /// The log of another gateway, whose key is the same one.
    pub(crate) fn boot_of(gateway: &str, epoch: &str, now: i64, store: MemorySource) -> Self {
        let mut writer = Self::without_boot(epoch, now, store);
        writer.origin = Origin::join("acme", gateway, epoch).unwrap();
        writer.began(None, Encryption::Aes256Gcm, None)
    }

    fn began(
        mut self,
        predecessor: Option<Predecessor>,
        encryption: Encryption,
        promise_key: Option<String>,
    ) -> Self {
        let writer = &mut self;
        writer.encrypt = encryption == Encryption::Aes256Gcm;
        writer.push(Body::Boot(Boot {
            gateway_version: id("0.1.0"),
            binary_sha256: None,
            seal_key: key_text(&signer().public_key()),
            promise_key,
            heartbeat_bound_ms: 300_000,
            batch_age_ms: 10_000,
            predecessor,
            encryption,
        }));
        let (next, reason) = (writer.config, ConfigReason::Start);
        let book = writer.reference(include_bytes!("../../policies/prices/2026-11.csv"), "text/csv");
        writer.push(Body::Config(Config { next, reason, policy: None, price_book: Some(book) }));
        self
    }

    /// A log that nothing was written to.
    pub(crate) fn without_boot(epoch: &str, now: i64, store: MemorySource) -> Self {
        let config = reference(b"{\"deployment\":\"acme\"}", "application/json");
        Self {
            origin: Origin::join("acme", "gw1", epoch).unwrap(),
            now,
            config: config.sha256,
            store,
            keys: (0..KEYS).map(|n| Sha256Hex::of(format!("{epoch} {n}").as_bytes()).0).collect(),
            range: CompactRange::new(),
            previous: None,
            batch: 0,
            encrypt: true,
            dictionary: None,
            suppression: Vec::new(),
            subject: None,
            team: None,
            operation: None,
            pending: Vec::new(),
            content: Vec::new(),
            references: vec![config],
            next_key: 0,
            kinds: BTreeMap::new(),
        }
    }

    /// Puts a reference into the next batch.
    pub(crate) fn reference(&mut self, bytes: &[u8], media_type: &str) -> Sha256Hex {
        let row = reference(bytes, media_type);
        let hash = row.sha256;
        self.references.push(row);
        hash
    }

    /// A refusal of a caller that nobody knows.
    pub(crate) fn refusal(count: Option<u64>) -> Refusal {
        Refusal {
            exchange: None,
            reason: id("unauthenticated"),
            status: 401,
            count,
            first: None,
            last: None,
            caller: None,
            asked: None,
            verdict: None,
            parts: vec![],
            content_key: None,
            retention: None,
            suppression: vec![],
            limit: None,
            translation: None,
        }
    }

    /// The whole key table, as files.
    pub(crate) fn key_table(&self) -> (String, Vec<u8>) {
        (page_path(&self.origin, 0), encode_page(&self.origin, 0, &self.keys).unwrap().to_vec())
    }

    /// Puts the dictionary into the reference file of the batch that is being made.
    pub(crate) fn keep_dictionary(&mut self, dictionary: &[u8]) {
        self.references.push(reference(dictionary, DICTIONARY_MEDIA_TYPE));
    }

    pub(crate) fn position(&self) -> u64 {
        self.range.size() + self.pending.len() as u64
    }

    pub(crate) fn push(&mut self, body: Body) -> u64 {
        let position = self.position();
        *self.kinds.entry(body.kind().into()).or_default() += 1;
        let record = Record { v: 1, at: self.now, config: self.config, body };
        self.pending.push(leaf::encode(&record).unwrap());
        position
    }

    /// Pushes a leaf as it is.
    pub(crate) fn push_leaf(&mut self, leaf: Vec<u8>) {
        self.pending.push(leaf);
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        [("exchanges", "intent"), ("outcomes", "outcome"), ("refusals", "refusal")]
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), self.kinds.get(kind).copied().unwrap_or(0)))
            .collect()
    }

    pub(crate) fn part(
        &mut self,
        position: u64,
        exchange: &ExchangeId,
        part: PartName,
        key: &KeyId,
        bytes: &[u8],
        base: Option<(&ExchangeId, PartName, &[u8])>,
    ) -> Part {
        let salt = Salt::from_bytes(Sha256Hex::of(format!("{exchange} {part:?}").as_bytes()).0);
        let edits = base.map(|(_, _, base)| schemas::content::delta(base, bytes).unwrap());
        let encoding = match base {
            Some((base_exchange, base_part, _)) => {
                Encoding::Delta { base_exchange: base_exchange.clone(), base_part }
            }
            None => self.dictionary.map_or(Encoding::Zstd, |dictionary| Encoding::ZstdDict {
                dictionary: Sha256Hex::of(dictionary),
            }),
        };
        let dictionaries: Vec<_> =
            self.dictionary.iter().map(|bytes| Dictionary::new(bytes).unwrap()).collect();
        let data_key = DataKey::from_bytes(self.keys[usize::from(key.slot)]);
        for chunk in cut(&salt, edits.as_deref().unwrap_or(bytes)) {
            let meta = RowMeta {
                position,
                exchange: exchange.clone(),
                part,
                chunk: chunk.chunk,
                last: chunk.last,
                encoding: encoding.clone(),
            };
            let key = self.encrypt.then_some((key, &data_key));
            self.content
                .push(seal_row_with(&self.origin, &meta, key, &dictionaries, &chunk.plaintext).unwrap());
        }
        let _ = CHUNK_BYTES;
        Part {
            part,
            media_type: Some(id("application/json")),
            content_encoding: None,
            length: bytes.len() as u64,
            commitment: commitment(&salt, bytes),
            kept: None,
        }
    }

    /// The last row of content is not kept.
    pub(crate) fn forget_row(&mut self) {
        self.content.pop();
    }

    pub(crate) fn key(&mut self) -> KeyId {
        let slot = self.next_key;
        self.next_key += 1;
        KeyId { origin: self.origin.clone(), page: 0, slot }
    }

    pub(crate) fn caller() -> Caller {
        let of = |value: &str| Some(Attributed { value: id(value), source: Source::Key });
        Caller { consumer: of("tester"), team: of("quality"), system: of("sys-1"), ..Caller::default() }
    }

    /// The caller with the end user for whom it asks.
    fn asking(&self) -> Caller {
        let subject = self.subject.clone().map(|value| Attributed { value, source: Source::Asserted });
        let caller = Self::caller();
        let team = self.team.clone().map(|value| Attributed { value, source: Source::Key });
        Caller { subject, team: team.or(caller.team), ..caller }
    }

    /// What is asked from here on.
    pub(crate) fn asked_now(&self) -> Asked {
        let asked = Self::asked();
        Asked { operation: self.operation.clone().or(asked.operation), ..asked }
    }

    /// Promises of all records that are not sealed yet, as one group.
    pub(crate) fn promises(&self, signer: &Ed25519Signer) -> Vec<String> {
        let hashes = self.pending.iter().map(|leaf| leaf::hash(leaf));
        let entries: Vec<_> = (self.range.size()..).zip(hashes).collect();
        let (count, group) = (entries.len(), Group::new(self.origin.clone(), self.now, entries));
        (0..count).map(|index| group.promise(index, signer).unwrap().to_string()).collect()
    }

    pub(crate) fn asked() -> Asked {
        Asked {
            route: Some(id("openai")),
            provider: Some(id("openai")),
            dialect: Some(id("openai")),
            operation: Some(id("chat.completions")),
            method: Some(id("POST")),
            requested_model: Some(id("gpt-4o")),
            stream: Some(false),
            ..Asked::default()
        }
    }

    pub(crate) fn intent(&mut self, n: u64, request: &[u8]) -> (u64, KeyId) {
        let (exchange, key) = (exchange_id(n), self.key());
        let position = self.position();
        let part = self.part(position, &exchange, PartName::ClientRequest, &key, request, None);
        self.intent_with(exchange, key, vec![part])
    }

    /// An intent without content.
    pub(crate) fn intent_of(exchange: ExchangeId) -> Intent {
        Intent {
            exchange,
            caller: Self::caller(),
            asked: Self::asked(),
            verdict: None,
            parts: vec![],
            content_key: None,
            retention: id("standard"),
            translation: None,
            fail_mode: None,
            suppression: vec![],
            choice: None,
        }
    }

    pub(crate) fn intent_with(&mut self, exchange: ExchangeId, key: KeyId, parts: Vec<Part>) -> (u64, KeyId) {
        let content_key = self.encrypt.then(|| key.to_identifier());
        let (caller, asked, suppression) = (self.asking(), self.asked_now(), self.suppression.clone());
        let intent = Intent { caller, asked, parts, content_key, suppression, ..Self::intent_of(exchange) };
        (self.push(Body::Intent(intent)), key)
    }

    pub(crate) fn outcome(&mut self, n: u64, intent_position: u64, key: &KeyId, response: &[u8]) {
        let exchange = exchange_id(n);
        let position = self.position();
        let part = self.part(position, &exchange, PartName::ProviderResponse, key, response, None);
        let usage = Usage {
            input_tokens: Some(1000),
            output_tokens: Some(10),
            ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
        };
        let outcome = self.outcome_of(exchange, intent_position, Some(key), vec![part], usage);
        self.push(Body::Outcome(outcome));
    }

    pub(crate) fn outcome_of(
        &self,
        exchange: ExchangeId,
        intent_position: u64,
        key: Option<&KeyId>,
        parts: Vec<Part>,
        usage: Usage,
    ) -> Outcome {
        Outcome {
            exchange,
            intent_position,
            caller: self.asking(),
            asked: self.asked_now(),
            served: None,
            translation: None,
            answer_dropped: None,
            end: End::Complete,
            provider_end: Some(ProviderEnd::Seen),
            provider_status: Some(200),
            status: Some(200),
            reason: None,
            delivered: Some(0),
            released: Some(10),
            delivered_at_least: None,
            answered: Answered::default(),
            usage,
            cost: None,
            unpriced: Some(Unpriced::NoPrice),
            timing: Timing::default(),
            rate_limits: BTreeMap::new(),
            parts,
            content_key: key.filter(|_| self.encrypt).map(KeyId::to_identifier),
            retention: id("standard"),
        }
    }

    pub(crate) fn exchange(&mut self, n: u64, request: &[u8], response: &[u8]) {
        let (position, key) = self.intent(n, request);
        self.now += SECOND / 10;
        self.outcome(n, position, &key, response);
    }

    /// Exchanges of these numbers whose requests grow, each stored as edits of the one before; `seals` after which one a batch ends.
    pub(crate) fn growing(&mut self, numbers: std::ops::Range<u64>, seals: impl Fn(u64) -> bool) {
        let mut history: Vec<u8> = (0..3000_u32).flat_map(u32::to_le_bytes).collect();
        let mut base: Option<(ExchangeId, Vec<u8>)> = None;
        let key = self.key();
        for n in numbers {
            let (exchange, position) = (exchange_id(n), self.position());
            let edits = base.as_ref().map(|(id, bytes)| (id, PartName::ClientRequest, bytes.as_slice()));
            let part = self.part(position, &exchange, PartName::ClientRequest, &key, &history, edits);
            self.intent_with(exchange.clone(), key.clone(), vec![part]);
            self.outcome(n, position, &key, b"answer");
            base = Some((exchange, history.clone()));
            history.extend_from_slice(format!("turn {n}").as_bytes());
            if seals(n) {
                self.seal();
            }
        }
    }

    /// The erasure of a record's content.
    pub(crate) fn erasure(&self, n: u64, position: u64, key: &KeyId) -> Erasure {
        let (exchange, origin) = (exchange_id(n), self.origin.clone());
        Erasure {
            exchange,
            origin,
            position,
            content_key: key.to_identifier(),
            reason: id("gdpr-17"),
            actor: None,
        }
    }

    pub(crate) fn heartbeat(&mut self) {
        let counters = self.counters();
        self.push(Body::Heartbeat(Heartbeat { counters }));
    }

    pub(crate) fn close(&mut self) {
        let counters = self.counters();
        let alive_until = self.now;
        self.push(Body::Close(Close {
            reason: CloseReason::Shutdown,
            successor: None,
            alive_until,
            counters,
        }));
        self.seal();
    }

    /// As a successor's `boot` names this log.
    pub(crate) fn as_predecessor(&self) -> Predecessor {
        Predecessor {
            origin: self.origin.clone(),
            size: Some(self.range.size()),
            root: Some(self.range.root()),
        }
    }

    fn put(&mut self, kind: FileKind, bytes: Vec<u8>) -> SealedFile {
        let sha256 = Sha256Hex::of(&bytes);
        let name = ObjectName::Data { origin: self.origin.clone(), batch: self.batch, sha256, kind };
        let file = SealedFile { name: name.file_name(), length: bytes.len() as u64, sha256 };
        self.store.put(name.to_string(), bytes);
        file
    }

    pub(crate) fn seal(&mut self) {
        self.seal_with(None);
    }

    /// Seals the batch, with other bytes in the place of its records file.
    pub(crate) fn seal_with(&mut self, records: Option<&[u8]>) {
        self.now += SECOND;
        let before = self.range.clone();
        let from = before.size();
        let rows: Vec<LeafRow> = std::mem::take(&mut self.pending)
            .into_iter()
            .enumerate()
            .map(|(n, leaf)| LeafRow { position: from + n as u64, hash: leaf::hash(&leaf), leaf })
            .collect();
        for row in &rows {
            self.range.append(row.hash);
        }
        let records = records.map_or_else(|| write_records(&rows).unwrap(), <[u8]>::to_vec);
        let mut files = vec![self.put(FileKind::Records, records)];
        let content = std::mem::take(&mut self.content);
        if !content.is_empty() {
            let mut writer = ContentWriter::new(Vec::new()).unwrap();
            for row in content {
                writer.write(row).unwrap();
            }
            let bytes = writer.finish().unwrap();
            files.push(self.put(FileKind::Content("standard".into()), bytes));
        }
        let references = std::mem::take(&mut self.references);
        if !references.is_empty() {
            files.push(self.put(FileKind::Reference, write_reference(&references).unwrap()));
        }
        files.sort();
        let seal = Seal {
            origin: self.origin.clone(),
            batch: self.batch,
            from,
            to: self.range.size(),
            root: self.range.root(),
            compact: before.nodes().to_vec(),
            files,
            previous: self.previous,
            schema: schema_fingerprint(),
            time: self.now,
        };
        let note = seal.sign(&signer()).unwrap();
        self.previous = Some(Sha256Hex::of(&note));
        self.store.put(seal.object_name().to_string(), note);
        self.batch += 1;
    }
}

/// The report of a log, and its proven rows.
pub(crate) struct Evidence {
    pub(crate) report: Report,
    pub(crate) session: SessionContext,
    pub(crate) records: Vec<PathBuf>,
    pub(crate) folder: tempfile::TempDir,
}

/// Verifies a log.
pub(crate) async fn proven(writer: &Writer) -> Evidence {
    let folder = tempfile::tempdir().unwrap();
    let state = crate::state::State::open(&folder.path().join("state")).unwrap();
    let (trust, mandate) = (trust(), crate::mandate::Mandate::default());
    let mut cache = Cache::open(&state, &trust, "memory");
    let options = Options::new(&trust, &mandate, START + 20 * SECOND);
    cache.begin(Continue::Nothing, options.now, &mut Findings::default()).unwrap();
    let (report, _) = run(&writer.store, &options, &mut cache);
    cache.finish(true).unwrap();
    let (records, batches) = cache.files();
    let spill = folder.path().join("spill");
    std::fs::create_dir(&spill).unwrap();
    let session = crate::query::session(&records, &batches, &[], 64, &spill).await.unwrap();
    Evidence { report, session, records, folder }
}

/// A closed log of three batches with two exchanges, and its key table.
pub(crate) fn small() -> Writer {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, br#"{"model":"gpt-4o","messages":[]}"#, br#"{"id":"r1"}"#);
    writer.seal();
    writer.exchange(2, br#"{"model":"gpt-4o","messages":["hello"]}"#, br#"{"id":"r2"}"#);
    writer.heartbeat();
    writer.seal();
    writer.close();
    writer
}
