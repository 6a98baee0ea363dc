//! `evidence.commit`: where a record and its content must be before they count.

use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem, Shape};
use schemars::JsonSchema;
use serde::Serialize;

use super::cluster::{Cluster, cluster};
use super::kafka::{self, default_outage, default_timeout};
use super::read::{Reader, SECOND, whole};
use super::units::{duration_schema, duration_text};
use super::{CreateTopics, Credential, KafkaOut};

/// The topic where nothing is typed.
pub(super) const TOPIC: &str = "affidavit-commit";

/// Where a record, and the content that it commits to, must be before a request goes on or an answer ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Commit {
    /// On this machine's disk.
    #[default]
    Local,
    /// On this machine's disk and on the brokers of a topic, encrypted: losing the machine loses nothing.
    Kafka(Box<KafkaCommit>),
}

/// The topic of groups. Without `brokers` those of `evidence.out.kafka` are taken, with their TLS and authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaCommit {
    /// The brokers, where they are not those of the way out.
    #[serde(flatten)]
    pub cluster: Option<Cluster>,
    /// The topic, of two partitions or more: the first is its index.
    #[schemars(default = "default_topic")]
    pub topic: String,
    /// Where the secret is that all gateways of the deployment share, and nobody else has: 32 bytes in base64, as `gateway
    /// keygen --commit-secret` makes. Messages of the topic that were not written under it are ignored.
    pub secret: Credential,
    /// So long after its last acknowledged sign of life a gateway admits and ends nothing; after twice as long without
    /// one another gateway may close its log. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_lease", schema_with = "duration_schema")]
    pub lease: Duration,
    /// How the topic is made where it is not there; absent: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateTopics>,
    /// How long a dead gateway's log may wait for the one that closes it: the topic must keep it as long. `7d` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_outage", schema_with = "duration_schema")]
    pub outage: Duration,
    /// The longest wait for an answer of the brokers. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_topic() -> &'static str {
    TOPIC
}

fn default_lease() -> &'static str {
    "10s"
}

impl KafkaCommit {
    /// As the evidence's side takes it. `out` is the way out, where it has the brokers; `None` where nothing has them,
    /// which a configuration that was checked never shows.
    pub(crate) fn settings(
        &self,
        who: String,
        out: Option<&KafkaOut>,
        password: Option<&str>,
        secret: &[u8; 32],
    ) -> Option<evidence::CommitSettings> {
        let cluster = self.cluster.as_ref().or(out.map(|out| &out.cluster));
        let connection = cluster.map(|cluster| cluster.connection(self.timeout, password));
        Some(evidence::CommitSettings {
            connection: connection?,
            topic: self.topic.clone(),
            key: evidence::CommitKey::new(secret),
            lease: self.lease,
            create: self.create.map(CreateTopics::settings),
            outage: self.outage,
            who,
        })
    }
}

/// Reads `local` or `{kafka: {...}}`; `None` where it could not be read.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Commit> {
    const FORM: &str = "`local`, or the brokers' topic as `{kafka: {brokers: [...]}}`";
    match (&node.shape, node.text()) {
        (_, Some("local")) => return Some(Commit::Local),
        (Shape::Map(_), _) => {}
        (_, text) => {
            let problem = Problem::at(node.place, path, FORM);
            problems.push(match text {
                Some(text) => problem.value(text),
                None => problem,
            });
            return None;
        }
    }
    let mut f = Reader::new(node, path, base, problems);
    f.fields.required_node("kafka", FORM);
    let kafka = f.part_of("kafka", read_topic);
    f.fields.finish();
    kafka.flatten().map(|kafka| Commit::Kafka(Box::new(kafka)))
}

fn read_topic(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaCommit> {
    let mut f = Reader::new(node, path, base, problems);
    let has_brokers = f.fields.node("brokers").is_some();
    let cluster = has_brokers.then(|| cluster(&mut f));
    for key in ["tls", "sasl"] {
        let is_typed = f.fields.node(key).is_some();
        if is_typed && !has_brokers {
            let (place, key) = (f.fields.place_of(key), f.fields.path(key));
            f.fields.report(Problem::at(
                place,
                key,
                "nothing without `brokers`: those of `evidence.out.kafka` have their own",
            ));
        }
    }
    let topic = kafka::name(&mut f, "topic", "topic");
    f.fields.required_node("secret", "`{env: NAME}` or `{file: PATH}`: where the secret of all gateways is");
    let secret = f.part_of("secret", super::read::credential);
    let lease = f.duration("lease", SECOND..=300 * SECOND, 10 * SECOND);
    let create = f.part_of("create", kafka::create);
    let outage = kafka::outage(&mut f);
    let timeout = kafka::timeout(&mut f);
    f.fields.finish();
    Some(KafkaCommit {
        cluster: whole(cluster)?,
        topic: topic.unwrap_or_else(|| TOPIC.into()),
        secret: secret.flatten()?,
        lease,
        create: whole(create)?,
        outage,
        timeout,
    })
}
