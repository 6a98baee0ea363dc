//! zstd dictionaries of a log's content: rows name one by its SHA-256, reference files hold it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemas::content::{DICTIONARY_MEDIA_TYPE, Dictionary, Encoding, MAX_DICTIONARY_BYTES};
use schemas::files::{Limits as FileLimits, read_reference};
use schemas::names::FileKind;
use schemas::{ObjectName, Sha256Hex};

use super::batch::Context;

/// Of one log at most so many are held: a gateway writes one.
const MOST: usize = 16;

/// The dictionaries of one log, read when a row first names one. What a row decodes to is held against its record's
/// commitment, so they need no other proof than their hash; that the files are the sealed ones is checked elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries(OnceLock<BTreeMap<Sha256Hex, Held>>);

/// A dictionary, and the first batch whose reference file holds it.
#[derive(Debug)]
struct Held {
    batch: u64,
    dictionary: Dictionary,
}

impl Dictionaries {
    /// The dictionary that a row of batch `number` names; none where neither that batch nor an earlier one holds it.
    pub(crate) fn of(&self, context: &Context<'_>, number: u64, encoding: &Encoding) -> &[Dictionary] {
        let Encoding::ZstdDict { dictionary } = encoding else { return &[] };
        match self.0.get_or_init(|| read(context)).get(dictionary) {
            Some(held) if held.batch <= number => std::slice::from_ref(&held.dictionary),
            _ => &[],
        }
    }
}

/// What cannot be read is not there: the rows that need it say so.
fn read(context: &Context<'_>) -> BTreeMap<Sha256Hex, Held> {
    let mut out = BTreeMap::new();
    let mut files = Vec::new();
    for entry in context.source.entries(context.origin.as_str()).unwrap_or_default() {
        if let Ok(ObjectName::Data { batch, kind: FileKind::Reference, .. }) =
            ObjectName::parse_file(context.origin, &entry.name)
        {
            files.push((batch, entry.name));
        }
    }
    files.sort();
    for (batch, name) in files {
        let name = format!("{}/{name}", context.origin);
        let Ok(bytes) = context.source.read(&name, context.limits.reference_bytes) else { continue };
        let Ok(rows) = read_reference(&bytes, &FileLimits::default()) else { continue };
        for row in rows {
            let fits = row.media_type == DICTIONARY_MEDIA_TYPE && row.bytes.len() <= MAX_DICTIONARY_BYTES;
            if fits
                && out.len() < MOST
                && !out.contains_key(&row.sha256)
                && let Ok(dictionary) = Dictionary::new(&row.bytes)
            {
                out.insert(row.sha256, Held { batch, dictionary });
            }
        }
    }
    out
}
