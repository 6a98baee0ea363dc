//! One log of the quarter: leaves into a tree, batches into a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemas::files::{LeafRow, ReferenceRow, schema_fingerprint, write_records, write_reference};
use schemas::merkle::CompactRange;
use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::record::{Body, Predecessor, Record};
use schemas::seal::{Seal, SealedFile};
use schemas::{ObjectName, Origin, Sha256Hex, leaf};

use super::SECOND;

/// More records than this are not sealed together.
const MOST: usize = 8192;

/// A log that is being written.
pub(super) struct Log {
    pub(super) origin: Origin,
    pub(super) config: Sha256Hex,
    pub(super) bytes: u64,
    store: PathBuf,
    signer: Ed25519Signer,
    range: CompactRange,
    previous: Option<Sha256Hex>,
    batch: u64,
    pending: Vec<Vec<u8>>,
    references: Vec<ReferenceRow>,
    kinds: BTreeMap<&'static str, u64>,
    /// The time of the newest record.
    pub(super) last: i64,
}

impl Log {
    pub(super) fn new(store: &Path, origin: Origin, config: Sha256Hex, signer: Ed25519Signer) -> Self {
        std::fs::create_dir_all(store.join(origin.as_str())).expect("a folder");
        Self {
            origin,
            config,
            bytes: 0,
            store: store.to_owned(),
            signer,
            range: CompactRange::new(),
            previous: None,
            batch: 0,
            pending: Vec::new(),
            references: Vec::new(),
            kinds: BTreeMap::new(),
            last: 0,
        }
    }

    /// The position of the next record.
    pub(super) fn position(&self) -> u64 {
        self.range.size() + self.pending.len() as u64
    }

    pub(super) fn push(&mut self, at: i64, body: Body) -> u64 {
        let position = self.position();
        *self.kinds.entry(body.kind()).or_default() += 1;
        let record = Record { v: 1, at, config: self.config, body };
        self.pending.push(leaf::encode(&record).expect("a leaf"));
        self.last = self.last.max(at);
        if self.pending.len() >= MOST {
            self.seal();
        }
        position
    }

    /// Puts bytes that records name into the reference file of the batch.
    pub(super) fn reference(&mut self, bytes: &[u8], media_type: &str) -> Sha256Hex {
        let sha256 = Sha256Hex::of(bytes);
        self.references.push(ReferenceRow { sha256, media_type: media_type.into(), bytes: bytes.to_vec() });
        sha256
    }

    /// The counters of a heartbeat.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        [("exchanges", "intent"), ("outcomes", "outcome"), ("refusals", "refusal")]
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), self.kinds.get(kind).copied().unwrap_or(0)))
            .collect()
    }

    pub(super) fn as_predecessor(&self) -> Predecessor {
        Predecessor {
            origin: self.origin.clone(),
            size: Some(self.range.size()),
            root: Some(self.range.root()),
        }
    }

    /// Seals what is pending.
    pub(super) fn seal(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let before = self.range.clone();
        let rows: Vec<LeafRow> = std::mem::take(&mut self.pending)
            .into_iter()
            .zip(before.size()..)
            .map(|(leaf, position)| LeafRow { position, hash: leaf::hash(&leaf), leaf })
            .collect();
        for row in &rows {
            self.range.append(row.hash);
        }
        let mut files = vec![self.put(FileKind::Records, &write_records(&rows).expect("records"))];
        let references = std::mem::take(&mut self.references);
        if !references.is_empty() {
            files.push(self.put(FileKind::Reference, &write_reference(&references).expect("references")));
        }
        files.sort();
        let seal = Seal {
            origin: self.origin.clone(),
            batch: self.batch,
            from: before.size(),
            to: self.range.size(),
            root: self.range.root(),
            compact: before.nodes().to_vec(),
            files,
            previous: self.previous,
            schema: schema_fingerprint(),
            time: self.last + SECOND,
        };
        let note = seal.sign(&self.signer).expect("a seal");
        self.previous = Some(Sha256Hex::of(&note));
        self.write(&seal.object_name(), &note);
        self.batch += 1;
    }

    fn put(&mut self, kind: FileKind, bytes: &[u8]) -> SealedFile {
        let sha256 = Sha256Hex::of(bytes);
        let name = ObjectName::Data { origin: self.origin.clone(), batch: self.batch, sha256, kind };
        self.write(&name, bytes);
        SealedFile { name: name.file_name(), length: bytes.len() as u64, sha256 }
    }

    fn write(&mut self, name: &ObjectName, bytes: &[u8]) {
        std::fs::write(self.store.join(name.to_string()), bytes).expect("an object");
        self.bytes += bytes.len() as u64;
    }
}
