//! `evidence.out.s3`: the bucket, how objects get there, how long they are kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::BaseUrl;
use super::read::{DAY, PART_FORM, Reader, SECOND, is_part};
use super::units::{DURATION_FORM, duration_schema, duration_text, parse_duration};

/// The longest retention that can be typed.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

/// A bucket, and the service that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Bucket {
    /// The bucket's name.
    pub bucket: String,
    /// What stands before every name, as `evidence` or `team/evidence`; absent: nothing.
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
}

impl Bucket {
    /// As a store takes it that is only read: what writers need says nothing.
    pub(super) fn settings(&self, timeout: Duration) -> evidence::S3Settings {
        use evidence::store;
        evidence::S3Settings {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint.as_ref().map(ToString::to_string),
            path_style: self.path_style,
            sse: store::Sse::Bucket,
            governance: false,
            retention: store::Retention { records: DAY, content: DAY, classes: BTreeMap::new() },
            legal_hold: false,
            without_lock: true,
            timeout,
        }
    }
}

/// `s3://BUCKET/PREFIX`.
impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

/// A bucket under Object Lock, with versioning. Credentials come from the usual AWS chain (environment, profile, web identity,
/// container, instance), never from this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct S3Out {
    /// Where it is.
    #[serde(flatten)]
    pub at: Bucket,
    /// Encryption at rest by the service.
    #[schemars(default)]
    pub sse: Sse,
    /// The KMS key's id or ARN, with `sse: kms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// Lock mode of every object.
    #[schemars(default)]
    pub mode: LockMode,
    /// How long objects are locked.
    pub retention: S3Retention,
    /// Whether every object gets a legal hold too: it stays until someone takes the hold away.
    #[schemars(default)]
    pub legal_hold: bool,
    /// What happens at a bucket without versioning or Object Lock.
    #[schemars(default)]
    pub without_lock: WithoutLock,
    /// The longest wait for an answer; transfers get more by their length. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

pub(super) fn default_timeout() -> &'static str {
    "30s"
}

/// Retention, counted from the time of the batch's seal. Content files are locked a day longer than is said here, since
/// later parts may be edits of earlier ones; reference files 30 days longer than any content and no shorter than
/// records; seals a day longer than all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct S3Retention {
    /// Records files.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub records: Duration,
    /// Content of retention classes that `classes` does not name.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub content: Duration,
    /// Content by retention class (`routes[].retention`).
    #[serde(serialize_with = "durations_text", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, with = "BTreeMap<String, String>")]
    pub classes: BTreeMap<String, Duration>,
}

fn durations_text<S: serde::Serializer>(
    map: &BTreeMap<String, Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(name, duration)| (name, super::units::show_duration(*duration))))
}

/// Encryption at rest by the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sse {
    /// As the bucket says.
    #[default]
    Bucket,
    /// Under keys of S3 itself.
    S3,
    /// Under a KMS key: who destroys it makes locked evidence unreadable.
    Kms,
}

/// Lock mode of every object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Nobody can delete before its time.
    #[default]
    Compliance,
    /// Whoever has `s3:BypassGovernanceRetention` can.
    Governance,
}

/// What happens at a bucket without versioning or Object Lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithoutLock {
    /// The gateway does not start.
    #[default]
    Refuse,
    /// Objects are put without retention, with a warning.
    Accept,
}

impl S3Out {
    /// As the store takes it.
    pub(crate) fn settings(&self) -> evidence::S3Settings {
        use evidence::store;
        evidence::S3Settings {
            sse: match (self.sse, &self.kms_key) {
                (Sse::Kms, Some(key)) => store::Sse::Kms(key.clone()),
                (Sse::S3, _) => store::Sse::S3,
                _ => store::Sse::Bucket,
            },
            governance: self.mode == LockMode::Governance,
            retention: store::Retention {
                records: self.retention.records,
                content: self.retention.content,
                classes: self.retention.classes.clone(),
            },
            legal_hold: self.legal_hold,
            without_lock: self.without_lock == WithoutLock::Accept,
            ..self.at.settings(self.timeout)
        }
    }
}

/// Reads where a bucket is; `None` where a required key is missing or unreadable.
pub(super) fn bucket(f: &mut Reader<'_, '_>) -> Option<Bucket> {
    let form = "a bucket's name: 3 to 63 of `a-z`, `0-9`, `.` and `-`, a letter or digit at each end";
    let bucket = f.fields.required("bucket", form, |text| is_bucket(text).then(|| text.to_owned()));
    let form = "parts `[A-Za-z0-9._-]+` joined by `/`, none at the ends";
    let prefix = f.fields.optional("prefix", form, |text| is_prefix(text).then(|| text.to_owned()));
    let form = "a region as `eu-central-1`";
    let region = f.fields.optional("region", form, |text| is_part(text).then(|| text.to_owned()));
    let form = "`http://` or `https://`, host and port";
    let endpoint = f.fields.optional("endpoint", form, BaseUrl::parse);
    let path_style = f.fields.truth("path_style").unwrap_or(false);
    Some(Bucket { bucket: bucket?, prefix: prefix.unwrap_or_default(), region, endpoint, path_style })
}

/// The longest wait for an answer of a bucket.
pub(super) fn timeout(f: &mut Reader<'_, '_>) -> Duration {
    f.duration("timeout", SECOND..=600 * SECOND, 30 * SECOND)
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<S3Out> {
    let mut f = Reader::new(node, path, base, problems);
    let at = bucket(&mut f);
    let kinds = [("bucket", Sse::Bucket), ("s3", Sse::S3), ("kms", Sse::Kms)];
    let sse = f.fields.choice("sse", &kinds).unwrap_or_default();
    let form = "the id or ARN of a KMS key, with `sse: kms` only";
    let has_kms = sse == Sse::Kms;
    let kms_key = f.fields.optional("kms_key", form, |text| {
        (has_kms && !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
    });
    if has_kms && kms_key.is_none() {
        let place = f.fields.place_of("sse");
        let key = f.fields.path("kms_key");
        f.fields.report(Problem::at(place, key, "the id or ARN of a KMS key: `sse` is `kms`"));
    }
    let modes = [("compliance", LockMode::Compliance), ("governance", LockMode::Governance)];
    let mode = f.fields.choice("mode", &modes).unwrap_or_default();
    f.fields.required_node("retention", "how long objects are locked: `{records: 365d, content: 90d}`");
    let retention = f.part_of("retention", retention);
    let legal_hold = f.fields.truth("legal_hold").unwrap_or(false);
    let choices = [("refuse", WithoutLock::Refuse), ("accept", WithoutLock::Accept)];
    let without_lock = f.fields.choice("without_lock", &choices).unwrap_or_default();
    let timeout = timeout(&mut f);
    f.fields.finish();
    Some(S3Out { at: at?, sse, kms_key, mode, retention: retention??, legal_hold, without_lock, timeout })
}

fn retention(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<S3Retention> {
    let form = format!("{DURATION_FORM}, from 1d to 3650d");
    let mut f = Reader::new(node, path, base, problems);
    let records = f.fields.required("records", &form, kept);
    let content = f.fields.required("content", &form, kept);
    let classes = f.part_of("classes", |node, path, base, problems| {
        let mut classes = BTreeMap::new();
        let f = Reader::new(node, path, base, problems);
        let entries = f.fields.entries();
        for entry in entries {
            let key = format!("{path}.{}", entry.key);
            match entry.value.text().and_then(kept) {
                _ if !is_part(&entry.key) => problems.push(Problem::at(entry.place, key, PART_FORM)),
                None => problems.push(
                    Problem::at(entry.value.place, key, &form).value(entry.value.text().unwrap_or_default()),
                ),
                Some(duration) => {
                    classes.insert(entry.key.clone(), duration);
                }
            }
        }
        classes
    });
    f.fields.finish();
    Some(S3Retention { records: records?, content: content?, classes: classes.unwrap_or_default() })
}

fn kept(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|duration| (DAY..=TEN_YEARS).contains(duration))
}

fn is_bucket(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    (3..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
}

fn is_prefix(text: &str) -> bool {
    text.len() <= 256
        && text.split('/').all(|part| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        })
}
