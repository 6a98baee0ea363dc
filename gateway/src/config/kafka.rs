//! `evidence.out.kafka`: the brokers, the topics, and whose receipts count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Node, Problem, texts};
use schemars::JsonSchema;
use schemas::trust::public_key;
use serde::Serialize;

use super::Credential;
use super::archived::{self, Archived, Confirm};
use super::read::{DAY, PART_FORM, Reader, SECOND, credential, is_part};
use super::units::{duration_schema, duration_text};

/// The topics where nothing is typed.
pub(super) const TOPIC: &str = "affidavit-batches";
pub(super) const RECEIPTS: &str = "affidavit-receipts";

/// Batches through Kafka to `gateway archive`, which puts them into the store and answers with receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaOut {
    /// `host:port` of one or more brokers of the cluster.
    pub brokers: Vec<String>,
    /// The topic of batches.
    #[schemars(default = "default_topic")]
    pub topic: String,
    /// The topic of receipts.
    #[schemars(default = "default_receipts")]
    pub receipts: String,
    /// Archivers whose receipts count: a batch counts as archived by a receipt of one of them.
    pub archivers: Vec<Archiver>,
    /// TLS to the brokers, `{}` for the system's roots; absent: plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// Authentication; absent: none but the certificate of `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// Where archivers put the batches: read here, never written. `gateway erase` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archived>,
    /// What makes a batch count as archived; `object` needs `archive`.
    #[schemars(default)]
    pub confirm: Confirm,
    /// How topics are made that are not there; absent: they are not. Not with `oauthbearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateTopics>,
    /// How long all archivers may be away: the topic must keep batches as long.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_outage", schema_with = "duration_schema")]
    pub outage: Duration,
    /// How long a batch waits for its receipt before it is put again.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_reship_after", schema_with = "duration_schema")]
    pub reship_after: Duration,
    /// The longest wait for an answer of the brokers.
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

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaTls {
    /// PEM file of the roots to trust; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM file of the gateway's certificate, where the brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Authentication to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaSasl {
    /// How.
    pub mechanism: Mechanism,
    /// The user; not with `oauthbearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the password is; with `oauthbearer` a file with the token, read again before the token ends.
    pub secret: Credential,
}

/// How the gateway says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Mechanism {
    /// User and password as they are: over TLS only.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    Scram256,
    /// SCRAM-SHA-512.
    #[serde(rename = "scram-sha-512")]
    Scram512,
    /// A bearer token out of a file, as Kubernetes or an agent puts it there.
    #[serde(rename = "oauthbearer")]
    OAuthBearer,
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
            connection: connection(
                &self.brokers,
                self.tls.as_ref(),
                self.sasl.as_ref(),
                self.timeout,
                secret,
            ),
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

    /// The password's place, where it is read at the start.
    pub(crate) fn password(&self) -> Option<&Credential> {
        self.sasl.as_ref()?.password()
    }
}

/// A connection as the evidence's side takes it; `secret` is the password.
pub(super) fn connection(
    brokers: &[String],
    tls: Option<&KafkaTls>,
    sasl: Option<&KafkaSasl>,
    timeout: Duration,
    secret: Option<&str>,
) -> evidence::topic::Connection {
    use evidence::topic;
    topic::Connection {
        brokers: brokers.to_vec(),
        security: topic::Security {
            tls: tls.map(|tls| topic::Tls {
                ca: tls.ca.clone(),
                client: tls.certificate.clone().zip(tls.key.clone()),
            }),
            sasl: sasl.map(|sasl| sasl.settings(secret.unwrap_or_default())),
        },
        timeout,
    }
}

impl KafkaSasl {
    /// The password's place, where it is read at the start.
    pub(super) fn password(&self) -> Option<&Credential> {
        (self.mechanism != Mechanism::OAuthBearer).then_some(&self.secret)
    }

    fn settings(&self, secret: &str) -> evidence::topic::Sasl {
        use evidence::topic::{Sasl, Scram};
        let user = self.user.clone().unwrap_or_default();
        let password = zeroize::Zeroizing::new(secret.to_owned());
        match (self.mechanism, &self.secret) {
            (Mechanism::Plain, _) => Sasl::Plain { user, password },
            (Mechanism::Scram256, _) => Sasl::Scram { hash: Scram::Sha256, user, password },
            (Mechanism::Scram512, _) => Sasl::Scram { hash: Scram::Sha512, user, password },
            (Mechanism::OAuthBearer, place) => {
                let place = place.clone();
                Sasl::OAuthBearer(std::sync::Arc::new(move || read_secret(&place)))
            }
        }
    }
}

/// The password or token as it is now.
pub(super) fn read_secret(place: &Credential) -> Result<zeroize::Zeroizing<String>, String> {
    let text = match place {
        Credential::File(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))?
        }
        Credential::Env(name) => std::env::var(name).map_err(|_| format!("`{name}` is not set"))?,
    };
    let text = zeroize::Zeroizing::new(text);
    Ok(zeroize::Zeroizing::new(text.trim().to_owned()))
}

/// Reads the part; `None` where a required key is missing or unreadable.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaOut> {
    let mut f = Reader::new(node, path, base, problems);
    let brokers = brokers(&mut f);
    let (topic, receipts) = topics(&mut f);
    let archivers = f.list("archivers", "at least one archiver as `{name: ar1, key: BASE64}`", archiver);
    let tls = f.part_of("tls", tls);
    let sasl = f.part_of("sasl", sasl);
    let archive = f.part_of("archive", archived::read);
    let confirms = [("receipt", Confirm::Receipt), ("object", Confirm::Object)];
    let confirm = f.fields.choice("confirm", &confirms).unwrap_or_default();
    if confirm == Confirm::Object && archive.is_none() {
        let (place, key) = (f.fields.place_of("confirm"), f.fields.path("archive"));
        f.fields.report(Problem::at(place, key, "the archivers' store: `confirm` is `object`"));
    }
    let create = f.part_of("create", create);
    let outage = f.duration("outage", 60 * 60 * SECOND..=3650 * DAY, 7 * DAY);
    let reship_after = f.duration("reship_after", SECOND..=DAY, 300 * SECOND);
    let timeout = f.duration("timeout", SECOND..=300 * SECOND, 30 * SECOND);
    if let (Some(Some(_)), Some(Some(sasl))) = (&create, &sasl)
        && sasl.mechanism == Mechanism::OAuthBearer
    {
        let (place, key) = (f.fields.place_of("create"), f.fields.path("create"));
        let wanted = "nothing with `oauthbearer`: topics are made by the cluster's operator";
        f.fields.report(Problem::at(place, key, wanted));
    }
    f.fields.finish();
    Some(KafkaOut {
        brokers: brokers?,
        topic: topic.unwrap_or_else(|| TOPIC.into()),
        receipts: receipts.unwrap_or_else(|| RECEIPTS.into()),
        archivers: archivers?,
        tls: whole(tls)?,
        sasl: whole(sasl)?,
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
    let form = "a topic's name `[A-Za-z0-9._-]{1,249}`";
    let mut name = |key| f.fields.optional(key, form, |text| is_topic(text).then(|| text.to_owned()));
    let (topic, receipts) = (name("topic"), name("receipts"));
    let found = receipts.as_deref().unwrap_or(RECEIPTS);
    if topic.as_deref().unwrap_or(TOPIC) == found {
        let (place, key) = (f.fields.place_of("receipts"), f.fields.path("receipts"));
        f.fields.report(Problem::at(place, key, "another topic than `topic`").value(found));
    }
    (topic, receipts)
}

/// Nothing typed is fine; something typed must have been read.
pub(super) fn whole<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

pub(super) fn brokers(f: &mut Reader<'_, '_>) -> Option<Vec<String>> {
    const FORM: &str = "brokers as `[kafka1.example:9093, kafka2.example:9093]`";
    let node = f.fields.required_node("brokers", FORM)?;
    let path = f.fields.path("brokers");
    let list = texts(node, &path, f.fields.problems());
    if list.is_empty() {
        f.fields.report(Problem::at(node.place, path, FORM));
        return None;
    }
    let mut is_whole = true;
    for (text, place) in &list {
        if !is_broker(text) {
            is_whole = false;
            f.fields.report(Problem::at(*place, &path, "a broker as `kafka1.example:9093`").value(text));
        }
    }
    is_whole.then(|| list.into_iter().map(|(text, _)| text).collect())
}

fn archiver(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Archiver> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.fields.required("name", PART_FORM, |text| is_part(text).then(|| text.to_owned()));
    let form = "an Ed25519 public key: 32 bytes in base64";
    let key = f.fields.required("key", form, |text| public_key(text).map(|_| text.to_owned()));
    f.fields.finish();
    Some(Archiver { name: name?, key: key? })
}

pub(super) fn tls(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaTls> {
    let mut f = Reader::new(node, path, base, problems);
    let tls = KafkaTls { ca: f.path("ca"), certificate: f.path("certificate"), key: f.path("key") };
    if tls.certificate.is_some() != tls.key.is_some() {
        let (place, key) = (node.place, f.fields.path("key"));
        f.fields.report(Problem::at(place, key, "`certificate` and `key` together, or neither"));
    }
    f.fields.finish();
    Some(tls)
}

pub(super) fn sasl(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaSasl> {
    let mut f = Reader::new(node, path, base, problems);
    let mechanisms = [
        ("plain", Mechanism::Plain),
        ("scram-sha-256", Mechanism::Scram256),
        ("scram-sha-512", Mechanism::Scram512),
        ("oauthbearer", Mechanism::OAuthBearer),
    ];
    f.fields.required_node("mechanism", "one of `plain`, `scram-sha-256`, `scram-sha-512`, `oauthbearer`");
    let mechanism = f.fields.choice("mechanism", &mechanisms);
    let user = f.fields.optional("user", "a user's name", |text| {
        ((1..=256).contains(&text.len()) && !text.contains(['\n', '\r'])).then(|| text.to_owned())
    });
    f.fields.required_node("secret", "`{env: NAME}` or `{file: PATH}`: where the password or token is");
    let secret = f.part_of("secret", credential);
    let is_bearer = mechanism == Some(Mechanism::OAuthBearer);
    if mechanism.is_some() && user.is_some() == is_bearer {
        let (place, key) = (f.fields.place_of("mechanism"), f.fields.path("user"));
        let wanted = if is_bearer { "nothing: the token says who it is" } else { "a user's name" };
        f.fields.report(Problem::at(place, key, wanted));
    }
    f.fields.finish();
    Some(KafkaSasl { mechanism: mechanism?, user, secret: secret?? })
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

pub(super) fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

pub(super) fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
