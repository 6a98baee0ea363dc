//! Reference files: configurations, policies and price books, each under its hash.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::Sha256Hex;
use schemas::files::{FileError, Limits, ReferenceRow, read_reference};

use super::batch::finding;
use super::log::LogFold;
use crate::finding::{Code, Findings, Place};

/// What a batch's reference file holds.
#[derive(Debug, Default)]
pub(crate) struct ReferenceFacts {
    rows: BTreeMap<Sha256Hex, ReferenceRow>,
    /// There is a reference file, and it could not be read.
    pub(super) unread: bool,
}

/// Reads a reference file whose hash was checked.
pub(super) fn read(bytes: &Bytes, place: &Place, findings: &mut Findings) -> ReferenceFacts {
    let mut facts = ReferenceFacts::default();
    match read_reference(bytes, &Limits::default()) {
        Ok(rows) => facts.rows.extend(rows.into_iter().map(|row| (row.sha256, row))),
        Err(FileError::Faults(faults)) => {
            for fault in faults {
                findings.push(finding(fault, place.clone()));
            }
        }
        Err(error) => findings.add(Code::Unreadable, place.clone(), "a reference file", error.to_string()),
    }
    facts
}

impl ReferenceFacts {
    /// Tells the log what it holds. Called after the batch's records were told.
    pub(super) fn merge(self, fold: &mut LogFold) {
        fold.unread_references |= self.unread;
        for (hash, row) in self.rows {
            let named = fold.story.named.get(&hash).is_some_and(|named| named.what == "price book");
            // A book may be stored before the record that names it.
            if named || row.media_type == "text/csv" {
                fold.books.add(hash, &row);
            }
            let configures = fold.story.named.get(&hash).is_some_and(|named| named.what == "configuration");
            if configures || row.media_type == "application/json" {
                fold.books.configuration(hash, &row);
            }
            let rules = fold.story.named.get(&hash).is_some_and(|named| named.what == "policy");
            if (rules || row.media_type == "application/yaml")
                && let Ok(text) = String::from_utf8(row.bytes)
            {
                fold.policies.insert(hash, text);
            }
            fold.held.insert(hash);
        }
    }
}
