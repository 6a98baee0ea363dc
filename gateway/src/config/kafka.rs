//! `evidence.out.kafka`: the brokers, the topics, and whose receipts count.

use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem};
use schemars::JsonSchema;
use schemas::trust::public_key;
use serde::Serialize;

use super::archived::{self, Archived, Confirm};
use super::cluster::{Cluster, Mechanism, cluster};
use super::read::{DAY, PART_FORM, Reader, SECOND, is_part, whole};
use super::units::{duration_schema, duration_text};

/// The topics where nothing is typed.
pub(super) const TOPIC: &str = "affidavit-batches";
pub(super) const RECEIPTS: &str = "affidavit-receipts";

/// Batches through Kafka to `gateway archive`, which puts them into the store and answers with receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaOut {
    /// The brokers.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// The topic of batches.
    #[schemars(default = "default_topic")]
    pub topic: String,
    /// The topic of receipts.
    #[schemars(default = "default_receipts")]
    pub receipts: String,
    /// Archivers whose receipts count: a batch counts as archived by a receipt of one of them.
    pub archivers: Vec<Archiver>,
    /// Where archivers put the batches: read here, never written. `gateway erase` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archived>,
    /// What makes a batch count as archived; `object` needs `archive`.
    #[schemars(default)]
    pub confirm: Confirm,
    /// How topics are made that are not there; absent: they are not. Not with `oauthbearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateTopics>,
    /// How long all archivers may be away: the topic must keep batches as long. `7d` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_outage", schema_with = "duration_schema")]
    pub outage: Duration,
    /// How long a batch waits for its receipt before it is put again. `5m` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_reship_after", schema_with = "duration_schema")]
    pub reship_after: Duration,
    /// The longest wait for an answer of the brokers. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_topic() -> &'static str {
    TOPIC
}

fn default_receipts() -> &'static str {
    RECEIPTS
}

pub(super) fn default_outage() -> &'static str {
    "7d"
}

fn default_reship_after() -> &'static str {
    "5m"
}

pub(super) fn default_timeout() -> &'static str {
    "30s"
}

/// An archiver whose receipts count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Archiver {
    /// Its name, `[a-z0-9][a-z0-9.-]{0,62}`.
    pub name: String,
    /// Its Ed25519 public key in base64.
    pub key: String,
}

/// How topics are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CreateTopics {
    /// Partitions of each topic.
    pub partitions: u32,
    /// Brokers that keep each.
    pub replication: u32,
}

impl CreateTopics {
    /// As the evidence's side takes it. The reader has seen to it that both are small.
    pub(super) fn settings(self) -> evidence::topic::CreateTopics {
        evidence::topic::CreateTopics {
            partitions: i32::try_from(self.partitions).unwrap_or(1),
            replication: i32::try_from(self.replication).unwrap_or(1),
        }
    }
}

impl KafkaOut {
    /// As the store takes it; `secret` is the password.
    pub(crate) fn settings(
        &self,
        deployment: &str,
        gateway: &str,
        secret: Option<&str>,
    ) -> evidence::topic::TopicSettings {
        use evidence::topic;
        let archiver = |one: &Archiver| {
            let key = public_key(&one.key)?;
            Some(schemas::ship::ArchiverKey { name: one.name.clone(), key })
        };
        topic::TopicSettings {
            connection: self.cluster.connection(self.timeout, secret),
            topic: self.topic.clone(),
            receipts: self.receipts.clone(),
            deployment: deployment.to_owned(),
            gateway: gateway.to_owned(),
            archivers: self.archivers.iter().filter_map(archiver).collect(),
            create: self.create.map(CreateTopics::settings),
            outage: self.outage,
            reship_after: self.reship_after,
        }
    }
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaOut> {
    let mut f = Reader::new(node, path, base, problems);
    let cluster = cluster(&mut f);
    let (topic, receipts) = topics(&mut f);
    let archivers = f.list("archivers", "at least one archiver as `{name: ar1, key: BASE64}`", archiver);
    let archive = f.part_of("archive", archived::read);
    let confirms = [("receipt", Confirm::Receipt), ("object", Confirm::Object)];
    let confirm = f.fields.choice("confirm", &confirms).unwrap_or_default();
    if confirm == Confirm::Object && archive.is_none() {
        let (place, key) = (f.fields.place_of("confirm"), f.fields.path("archive"));
        f.fields.report(Problem::at(place, key, "the archivers' store: `confirm` is `object`"));
    }
    let create = f.part_of("create", create);
    let outage = outage(&mut f);
    let reship_after = f.duration("reship_after", SECOND..=DAY, 300 * SECOND);
    let timeout = timeout(&mut f);
    let sasl = cluster.as_ref().and_then(|cluster| cluster.sasl.as_ref());
    if let Some(Some(_)) = &create
        && sasl.is_some_and(|sasl| sasl.mechanism == Mechanism::OAuthBearer)
    {
        let (place, key) = (f.fields.place_of("create"), f.fields.path("create"));
        let wanted = "nothing with `oauthbearer`: topics are made by the cluster's operator";
        f.fields.report(Problem::at(place, key, wanted));
    }
    f.fields.finish();
    Some(KafkaOut {
        cluster: cluster?,
        topic: topic.unwrap_or_else(|| TOPIC.into()),
        receipts: receipts.unwrap_or_else(|| RECEIPTS.into()),
        archivers: archivers?,
        archive: whole(archive)?,
        confirm,
        create: whole(create)?,
        outage,
        reship_after,
        timeout,
    })
}

/// The names of the two topics, where they were typed.
pub(super) fn topics(f: &mut Reader<'_, '_>) -> (Option<String>, Option<String>) {
    let (topic, receipts) = (name(f, "topic", "topic"), name(f, "receipts", "topic"));
    let found = receipts.as_deref().unwrap_or(RECEIPTS);
    if topic.as_deref().unwrap_or(TOPIC) == found {
        let (place, key) = (f.fields.place_of("receipts"), f.fields.path("receipts"));
        f.fields.report(Problem::at(place, key, "another topic than `topic`").value(found));
    }
    (topic, receipts)
}

/// The name of a `what`, a topic or a group, where one was typed.
pub(super) fn name(f: &mut Reader<'_, '_>, key: &'static str, what: &str) -> Option<String> {
    let form = format!("a {what}'s name `[A-Za-z0-9._-]{{1,249}}`");
    f.fields.optional(key, &form, |text| is_name(text).then(|| text.to_owned()))
}

/// How long those that read a topic may be away.
pub(super) fn outage(f: &mut Reader<'_, '_>) -> Duration {
    f.duration("outage", 60 * 60 * SECOND..=3650 * DAY, 7 * DAY)
}

/// The longest wait for an answer of the brokers.
pub(super) fn timeout(f: &mut Reader<'_, '_>) -> Duration {
    f.duration("timeout", SECOND..=300 * SECOND, 30 * SECOND)
}

fn archiver(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Archiver> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.fields.required("name", PART_FORM, |text| is_part(text).then(|| text.to_owned()));
    let form = "an Ed25519 public key: 32 bytes in base64";
    let key = f.fields.required("key", form, |text| public_key(text).map(|_| text.to_owned()));
    f.fields.finish();
    Some(Archiver { name: name?, key: key? })
}

pub(super) fn create(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<CreateTopics> {
    let mut f = Reader::new(node, path, base, problems);
    let count = |most: u32| move |text: &str| text.parse().ok().filter(|n| (1..=most).contains(n));
    let partitions = f.fields.required("partitions", "a whole number from 1 to 1000", count(1000));
    let replication = f.fields.required("replication", "a whole number from 1 to 15", count(15));
    f.fields.finish();
    Some(CreateTopics { partitions: partitions?, replication: replication? })
}

fn is_name(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
