//! What the evidence of a gateway says, read with the format alone: each batch is verified from its seal and key, and
//! the content is opened with the key table. Held against what the provider and the callers remember.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use schemas::content::{Assembler, DICTIONARY_MEDIA_TYPE, Dictionary, Row, open_row_with};
use schemas::files::{self, Limits};
use schemas::keytable::{self, Slot};
use schemas::names::FileKind;
use schemas::record::PartName;
use schemas::verify::{BatchInput, verify_batch};
use schemas::{ObjectName, Origin};
use serde_json::Value;

use crate::gateway::Gateway;

/// The most bytes of one part that a test stores.
const LIMIT: usize = 256 << 20;

/// One record.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its log.
    pub origin: Origin,
    /// Its position.
    pub position: u64,
    /// Its bytes.
    pub leaf: Vec<u8>,
    /// What they say.
    pub value: Value,
}

/// All evidence of a store.
#[derive(Debug, Default)]
pub struct Evidence {
    /// All records, by log and position.
    pub leaves: Vec<Leaf>,
    contents: HashMap<(String, PartName), Vec<u8>>,
    names: Vec<PathBuf>,
    outcomes: HashMap<String, usize>,
}

fn files_below(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut list: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    list.sort();
    for path in list {
        if path.is_dir() { files_below(&path, out) } else { out.push(path) }
    }
}

/// The seal key of a trust file.
fn trusted_key(path: &Path) -> [u8; 32] {
    let text = std::fs::read_to_string(path).expect("the trust file");
    let line =
        text.lines().find_map(|l| l.trim_start_matches([' ', '-']).strip_prefix("key:")).expect("a key line");
    let coded = line.trim().trim_matches(|c| c == '"' || c == '\'');
    base64::engine::general_purpose::STANDARD
        .decode(coded)
        .ok()
        .and_then(|k| k.try_into().ok())
        .expect("32 bytes of base64")
}

impl Evidence {
    /// Reads and verifies the store of `gateway`, with its content.
    pub fn read(gateway: &Gateway) -> Self {
        Self::read_from(&gateway.store(), &gateway.dir.join("trust.yaml"), &gateway.dir.join("keytable"))
    }

    /// Reads and verifies `store`.
    ///
    /// # Panics
    /// Where a batch does not verify or a part cannot be opened though its key is there: that is a test's failure.
    pub fn read_from(store: &Path, trust: &Path, key_table: &Path) -> Self {
        let key = trusted_key(trust);
        let mut evidence = Self::default();
        files_below(store, &mut evidence.names);
        let mut rows: BTreeMap<(Origin, String, PartName), Vec<Row>> = BTreeMap::new();
        let mut dictionaries = Vec::new();
        for path in evidence.names.clone() {
            let relative = path.strip_prefix(store).expect("below the store").to_string_lossy().into_owned();
            let Ok(ObjectName::Seal { origin, .. }) = ObjectName::parse(&relative) else { continue };
            let seal = std::fs::read(&path).expect("a seal");
            let said = schemas::seal::parse_unverified(&seal).expect("a seal's text");
            for file in &said.files {
                let name = ObjectName::parse_file(&origin, &file.name).expect("a file's name");
                let path = store.join(name.to_string());
                let bytes = Bytes::from(
                    std::fs::read(&path)
                        .unwrap_or_else(|e| std::panic::panic_any(format!("{}: {e}", path.display()))),
                );
                match name {
                    ObjectName::Data { kind: FileKind::Records, .. } => {
                        let batch = verify_batch(BatchInput {
                            origin: &origin,
                            key: &key,
                            seal: &seal,
                            records: bytes,
                        })
                        .unwrap_or_else(|faults| std::panic::panic_any(format!("{relative}: {faults:?}")));
                        for row in batch.rows() {
                            let value: Value = serde_json::from_slice(row.leaf()).expect("a leaf is JSON");
                            evidence.leaves.push(Leaf {
                                origin: origin.clone(),
                                position: row.position(),
                                leaf: row.leaf().to_vec(),
                                value,
                            });
                        }
                    }
                    ObjectName::Data { kind: FileKind::Content(_), .. } => {
                        assert_eq!(schemas::Sha256Hex::of(&bytes), file.sha256, "{}", path.display());
                        for row in files::read_content(bytes, &Limits::default()).expect("a content file") {
                            let row = row.expect("a content row");
                            rows.entry((origin.clone(), row.exchange.to_string(), row.part))
                                .or_default()
                                .push(row);
                        }
                    }
                    _ => {
                        assert_eq!(schemas::Sha256Hex::of(&bytes), file.sha256, "{}", path.display());
                        let found =
                            files::read_reference(&bytes, &Limits::default()).expect("a reference file");
                        let found = found.into_iter().filter(|row| row.media_type == DICTIONARY_MEDIA_TYPE);
                        dictionaries
                            .extend(found.map(|row| Dictionary::new(&row.bytes).expect("a dictionary")));
                    }
                }
            }
        }
        evidence.leaves.sort_by(|a, b| (&a.origin, a.position).cmp(&(&b.origin, b.position)));
        for (n, leaf) in evidence.leaves.iter().enumerate() {
            if leaf.value["kind"] == "outcome" {
                let id = leaf.value["exchange"].as_str().expect("an outcome has an exchange").to_owned();
                assert!(evidence.outcomes.insert(id, n).is_none(), "two outcomes of one exchange");
            }
        }
        evidence.open(&rows, &dictionaries, key_table);
        evidence
    }

    fn open(
        &mut self,
        rows: &BTreeMap<(Origin, String, PartName), Vec<Row>>,
        dictionaries: &[Dictionary],
        key_table: &Path,
    ) {
        let mut pages = HashMap::new();
        let mut pending: Vec<_> = rows.iter().collect();
        // A part may edit another: rounds until nothing moves.
        while !pending.is_empty() {
            let before = pending.len();
            pending.retain(|((origin, exchange, part), rows)| {
                let mut assembler = Assembler::new(LIMIT);
                for row in rows.iter() {
                    let key = row.key_id.as_ref().map(|id| {
                        let path = key_table.join(keytable::page_path(&id.origin, id.page));
                        let page = pages.entry(path.clone()).or_insert_with(|| {
                            let bytes = std::fs::read(&path).expect("a page of the key table");
                            keytable::decode_page(&id.origin, id.page, &bytes)
                                .expect("a page of the key table")
                        });
                        (id, page.key(id.slot))
                    });
                    let key = match &key {
                        Some((id, Slot::Key(key))) => Some((*id, key)),
                        Some(_) => return false, // Erased.
                        None => None,
                    };
                    let plain = open_row_with(origin, row, key, dictionaries)
                        .unwrap_or_else(|e| std::panic::panic_any(format!("{exchange} {part:?}: {e}")));
                    assembler.push(row.chunk, row.last, &row.encoding, &plain).expect("chunks in order");
                }
                let assembled = assembler.finish().expect("a whole part");
                let base = match &assembled.base {
                    Some((exchange, part)) => match self.contents.get(&(exchange.to_string(), *part)) {
                        Some(base) => Some(base.clone()),
                        None => return true,
                    },
                    None => None,
                };
                let content = assembled.content(base.as_deref(), LIMIT).expect("edits that apply");
                self.contents.insert((exchange.clone(), *part), content);
                false
            });
            assert!(
                pending.len() < before,
                "parts whose base is missing: {:?}",
                pending.first().map(|p| p.0)
            );
        }
    }

    /// The outcome's leaf of an exchange.
    pub fn outcome(&self, exchange: &str) -> Option<&Value> {
        self.outcomes.get(exchange).map(|n| &self.leaves[*n].value)
    }

    /// The ids of all exchanges that have a record of `kind`.
    pub fn exchanges(&self, kind: &str) -> Vec<String> {
        self.of_kind(kind).filter_map(|l| l["exchange"].as_str().map(str::to_owned)).collect()
    }

    /// All leaves of `kind`.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.leaves.iter().map(|l| &l.value).filter(move |v| v["kind"] == kind)
    }

    /// The content of a part, named as in a leaf.
    pub fn content(&self, exchange: &str, part: &str) -> Option<&Vec<u8>> {
        let part: PartName = serde_json::from_value(part.into()).expect("a part's name");
        self.contents.get(&(exchange.to_owned(), part))
    }

    /// All contents.
    pub fn contents(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.contents.values()
    }

    /// All files of the store whose name ends so.
    pub fn files(&self, end: &str) -> Vec<PathBuf> {
        self.names.iter().filter(|p| p.to_string_lossy().ends_with(end)).cloned().collect()
    }
}
