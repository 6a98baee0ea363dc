//! `evidence.out.kafka.archive`: where archivers put what went through the topic. It is read here and never written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::read::Reader;
use super::s3::{self, Bucket, default_timeout};
use super::units::{duration_schema, duration_text};

/// The store that archivers write, as far as a gateway reads it: to erase, and to find what an archiver has of a log whose
/// receipts are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Archived {
    /// A folder.
    Directory(PathBuf),
    /// A bucket.
    S3(Box<ArchivedBucket>),
}

/// A bucket that is read. Credentials come from the usual AWS chain; they need to list and to read, no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ArchivedBucket {
    /// Where it is.
    #[serde(flatten)]
    pub at: Bucket,
    /// The longest wait for an answer; transfers get more by their length. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// What makes a batch count as archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// The receipt of a configured archiver.
    #[default]
    Receipt,
    /// The receipt, and every object read in `archive`.
    Object,
}

impl ArchivedBucket {
    /// As a store takes it.
    pub(crate) fn settings(&self) -> evidence::S3Settings {
        self.at.settings(self.timeout)
    }
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Archived> {
    let mut f = Reader::new(node, path, base, problems);
    let bucket = f.part_of("s3", bucket);
    if bucket.is_some() && f.fields.node("directory").is_some() {
        let (place, key) = (f.fields.place_of("directory"), f.fields.path("directory"));
        f.fields.report(Problem::at(place, key, "one store: `directory` or `s3`"));
    }
    let archived = match bucket {
        Some(bucket) => bucket.map(|bucket| Archived::S3(Box::new(bucket))),
        None => f.required_path("directory").map(Archived::Directory),
    };
    f.fields.finish();
    archived
}

fn bucket(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<ArchivedBucket> {
    let mut f = Reader::new(node, path, base, problems);
    let (at, timeout) = (s3::bucket(&mut f), s3::timeout(&mut f));
    f.fields.finish();
    Some(ArchivedBucket { at: at?, timeout })
}
