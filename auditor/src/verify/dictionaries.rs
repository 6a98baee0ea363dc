//! zstd dictionaries of a log's content: rows name one by its SHA-256, reference files hold it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::OnceLock;

use schemas::content::{DICTIONARY_MEDIA_TYPE, Dictionary, Encoding, MAX_DICTIONARY_BYTES};
use schemas::files::{Limits as FileLimits, read_reference};
use schemas::names::FileKind;
use schemas::{ObjectName, Sha256Hex};

use super::batch::Context;
use crate::finding::{Code, Finding, Place};

/// Of one log at most so many are held: a gateway writes one.
const MOST: usize = 16;

/// The dictionaries of one log, read when a row first names one. What a row decodes to is held against its record's
/// commitment, so they need no other proof than their hash; that the files are the sealed ones is checked elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries(OnceLock<Read>);

/// What the log's reference files hold.
#[derive(Debug, Default)]
struct Read {
    held: BTreeMap<Sha256Hex, Held>,
    /// The first that could not be read: a dictionary that is not held may be there.
    unread: Option<String>,
    /// There are more dictionaries than are held.
    is_full: bool,
}

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
        match self.0.get_or_init(|| read(context)).held.get(dictionary) {
            Some(held) if held.batch <= number => std::slice::from_ref(&held.dictionary),
            _ => &[],
        }
    }

    /// A row cannot be read for want of its dictionary: nothing is said of its content.
    pub(crate) fn absent(&self, dictionary: Sha256Hex, place: Place) -> Finding {
        let read = self.0.get();
        match read.and_then(|read| read.unread.as_deref()) {
            Some(error) => {
                let expected = format!("the log's reference files, for the dictionary {dictionary}");
                Finding::new(Code::CouldNotRead, place, expected, error)
            }
            None if read.is_some_and(|read| read.is_full) => {
                let expected = format!("at most {MOST} dictionaries in a log");
                Finding::new(Code::ResourceLimit, place, expected, "more, the row's perhaps among them")
            }
            None => {
                let expected = format!(
                    "the dictionary {dictionary} in a reference file of this log, of this batch or an earlier one"
                );
                Finding::new(Code::ReferenceMissing, place, expected, "none")
            }
        }
    }
}

fn read(context: &Context<'_>) -> Read {
    let mut out = Read::default();
    let entries = match context.source.entries(context.origin.as_str()) {
        Ok(entries) => entries,
        Err(error) => return Read { unread: Some(error.to_string()), ..out },
    };
    let mut files = Vec::new();
    for entry in entries {
        if let Ok(ObjectName::Data { batch, kind: FileKind::Reference, .. }) =
            ObjectName::parse_file(context.origin, &entry.name)
        {
            files.push((batch, entry.name));
        }
    }
    files.sort();
    for (batch, name) in files {
        let name = format!("{}/{name}", context.origin);
        let bytes = match context.source.read(&name, context.limits.reference_bytes) {
            Ok(bytes) => bytes,
            Err(error) => {
                out.unread.get_or_insert_with(|| error.to_string());
                continue;
            }
        };
        // One that is not a reference file is a finding of its batch.
        let Ok(rows) = read_reference(&bytes, &FileLimits::default()) else { continue };
        for row in rows {
            let fits = row.media_type == DICTIONARY_MEDIA_TYPE && row.bytes.len() <= MAX_DICTIONARY_BYTES;
            let is_full = out.held.len() >= MOST;
            if fits
                && let Entry::Vacant(place) = out.held.entry(row.sha256)
                && let Ok(dictionary) = Dictionary::new(&row.bytes)
            {
                if is_full {
                    out.is_full = true;
                } else {
                    place.insert(Held { batch, dictionary });
                }
            }
        }
    }
    out
}
