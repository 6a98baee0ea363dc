//! `evidence.out.kafka.archive`: where archivers put what went through the topic. It is read here and never written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::BaseUrl;
use super::read::{Reader, SECOND, is_part};
use super::s3;
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
    /// The bucket.
    pub bucket: String,
    /// What stands before every name; absent: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(default)]
    pub prefix: String,
    /// Region; absent: as the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of the service; absent: AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<BaseUrl>,
    /// The bucket as first part of the path instead of the host; for services other than AWS.
    #[schemars(default)]
    pub path_style: bool,
    /// The longest wait for an answer; transfers get more by their length.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_timeout() -> &'static str {
    "30s"
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
    /// As a store takes it. What only writers need says nothing.
    pub(crate) fn settings(&self) -> evidence::S3Settings {
        use evidence::store;
        let day = Duration::from_secs(86_400);
        evidence::S3Settings {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint.as_ref().map(ToString::to_string),
            path_style: self.path_style,
            sse: store::Sse::Bucket,
            governance: false,
            retention: store::Retention { records: day, content: day, classes: Default::default() },
            legal_hold: false,
            without_lock: true,
            timeout: self.timeout,
        }
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
    let (bucket, prefix) = s3::names(&mut f);
    let form = "a region as `eu-central-1`";
    let region = f.fields.optional("region", form, |text| is_part(text).then(|| text.to_owned()));
    let form = "`http://` or `https://`, host and port";
    let endpoint = f.fields.optional("endpoint", form, BaseUrl::parse);
    let path_style = f.fields.truth("path_style").unwrap_or(false);
    let timeout = f.duration("timeout", SECOND..=600 * SECOND, 30 * SECOND);
    f.fields.finish();
    let prefix = prefix.unwrap_or_default();
    Some(ArchivedBucket { bucket: bucket?, prefix, region, endpoint, path_style, timeout })
}
