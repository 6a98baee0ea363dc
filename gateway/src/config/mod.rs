//! The configuration: what was typed (`gateway.yaml`) and what it means, checked once.
//!
//! [`load`] reads the file and everything that it refers to, collects all problems at once and gives a
//! [`Loaded`], or nothing: no bad value becomes a default. A reload swaps one whole `Loaded` for another
//! ([`Loaded::restart_keys`] says what cannot be swapped). The canonical form ([`Loaded::canonical`]), with
//! secrets as keyed fingerprints, goes into the log before it rules; its SHA-256 is in every record (CH-4).

mod archived;
mod aws;
mod canonical;
mod check;
mod cluster;
mod commit;
mod defaults;
mod diff;
mod files;
mod kafka;
mod kafka_in;
mod known;
mod load;
mod read;
mod referred;
mod s3;
mod schema;
mod secret;
mod tap;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use schemas::Identifier;
use serde::Serialize;

pub use archived::{Archived, ArchivedBucket, Confirm};
pub use aws::Aws;
pub use cluster::{Cluster, KafkaSasl, Mechanism};
pub use commit::{Commit, KafkaCommit};
pub use defaults::DEFAULT_ADMIN;
pub use diff::Changes;
pub use kafka::{Archiver, CreateTopics, KafkaOut};
pub(crate) use kafka_in::{KafkaIn, kafka_in};
pub use known::{KNOWN, Known};
pub use load::{AwsKey, Loaded, LoadedFile, OtlpFiles, TapFiles, TlsFiles, keys_path, load, load_with};
pub use policies::document::Problem;
pub(crate) use read::out;
pub(crate) use referred::Referred;
pub use s3::{Bucket, LockMode, S3Out, S3Retention, Sse, WithoutLock};
pub use schema::json_schema;
pub use secret::Secret;
pub use tap::{TapBody, TapFormat, TapKafka, TapKind, TapLoki, TapOnly, TapSink, TapSyslog, TapWebhook};
pub use telemetry::{Otlp, Ratio, Telemetry, TraceContext};
pub use tls::ClientTls;
pub use units::{parse_duration, parse_size};

use defaults::{
    default_admin, default_batch_age, default_batch_size, default_heartbeat, default_retention,
    default_segment, default_spool_bound, default_spool_keep, yes,
};
use units::{duration_schema, duration_text, optional_size_text, size_schema, size_text};

/// The whole configuration of one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// First part of every log's name: `[a-z0-9][a-z0-9.-]{0,62}`. Restart.
    pub deployment: String,
    /// Second part of every log's name, one per running gateway. Restart.
    pub gateway: String,
    /// Where callers connect. Restart.
    pub listen: Vec<Listen>,
    /// Address of `/healthz`, `/readyz` and `/metrics`. Restart.
    #[schemars(default = "default_admin", with = "String")]
    pub admin: SocketAddr,
    /// Unix socket for `gateway erase` and `gateway serve --take-over`; default `admin/admin.sock` in the journal's
    /// folder. Its folder is made where it is missing, and must be this user's with mode 0700. Restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<PathBuf>,
    /// Journal, seals and the way out.
    pub evidence: Evidence,
    /// Bounds on everything that traffic can grow.
    #[schemars(default)]
    pub limits: Limits,
    /// Where requests go.
    pub providers: Vec<Provider>,
    /// Which path leads to which provider.
    pub routes: Vec<Route>,
    /// File of gateway keys, written by `gateway keys`.
    pub keys: PathBuf,
    /// File of the policy; absent: everything is allowed and no verdict is recorded.
    ///
    /// A body whose facts cannot be read (no JSON, a repeated key, an undecodable coding) is refused with
    /// `malformed_body` only where a policy is enforced: it could hide what the policy asks about. Elsewhere there is
    /// nothing to bypass: it goes to the provider as it came, and is recorded byte for byte, without its facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// File of the price book; absent: no cost is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<PathBuf>,
    /// Which headers go on, and which are recorded.
    #[schemars(default)]
    pub headers: Headers,
    /// Spans and metrics for those who watch, and what becomes of callers' trace context.
    #[serde(skip_serializing_if = "Telemetry::is_default")]
    #[schemars(default)]
    pub telemetry: Telemetry,
    /// The gateway's own log lines.
    #[schemars(default)]
    pub log: Log,
}

/// One address where callers connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listen {
    /// IP address and port, `0` for any free port.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// TLS to callers; absent: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// TLS to callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: certificate chain, the gateway's own first.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// PEM file: callers must show a certificate signed by one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// Journal, seals and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Evidence {
    /// Folder of the journal. Restart.
    pub journal: PathBuf,
    /// Folder of batches on their way out. Restart.
    pub spool: PathBuf,
    /// Folder of content keys; keep it outside the evidence store. Restart.
    pub key_table: PathBuf,
    /// File of the key that signs seals, made by `gateway keygen`. Restart.
    pub seal_key: PathBuf,
    /// File of the key of pseudonyms, made by `gateway keygen`; absent: derived from the seal key. Restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pseudonym_key: Option<PathBuf>,
    /// File of the key that signs promises to callers, made by `gateway keygen --promise-key`: for routes with
    /// `receipts: true`; absent: none are made. Another key than the seal key. Restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promise_key: Option<PathBuf>,
    /// The evidence store. Restart.
    pub out: Out,
    /// The public key of the deployment's registry in that store, base64: legal holds that other gateways recorded are read
    /// there before anything is erased. Restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Where a record must be before it counts: `local` (this machine's disk), or `{kafka: {...}}`. Restart.
    #[schemars(default)]
    pub commit: Commit,
    /// The longest time that a record waits for its batch to be sealed; with `out.s3` and `out.kafka` 60s where not typed. Restart.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_batch_age", schema_with = "duration_schema")]
    pub batch_age: Duration,
    /// A batch is sealed early when its content reaches this size. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_batch_size", schema_with = "size_schema")]
    pub batch_size: u64,
    /// The longest silence between two records. Restart.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_heartbeat", schema_with = "duration_schema")]
    pub heartbeat: Duration,
    /// How content is kept. Restart.
    #[schemars(default)]
    pub encryption: Encryption,
    /// Size of one journal segment. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_segment", schema_with = "size_schema")]
    pub segment: u64,
    /// New traffic is refused while the spool holds more than this. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_spool_bound", schema_with = "size_schema")]
    pub spool_bound: u64,
    /// How long a batch stays beside the spool after it is archived, so that `gateway reship` can put it again where the
    /// store loses it: as far as `spool_bound` and the disk have room, and never in the way of traffic; `0s`: not at all.
    /// Restart.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_spool_keep", schema_with = "duration_schema")]
    pub spool_keep: Duration,
    /// Sinks of leaves, for those who must react at once. Restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub tap: Vec<TapSink>,
    /// How much of what is sealed is kept for sinks that are behind; 256MiB where not typed. Restart.
    #[serde(serialize_with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "size_schema")]
    pub tap_keep: Option<u64>,
}

/// Whether stored content is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// AES-256-GCM under keys of the key table.
    #[default]
    On,
    /// Plaintext: cannot be erased before its retention ends.
    Off,
}

/// The evidence store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Out {
    /// A create-only folder.
    Directory(PathBuf),
    /// A bucket under Object Lock.
    S3(Box<S3Out>),
    /// A topic that archivers read.
    Kafka(Box<KafkaOut>),
}

impl Out {
    /// The folder, where it is one.
    pub fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Directory(folder) => Some(folder),
            Self::S3(_) | Self::Kafka(_) => None,
        }
    }
}

/// Bounds on everything that traffic can grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request or response head.
    #[serde(serialize_with = "size_text")]
    #[schemars(schema_with = "size_schema")]
    pub head: u64,
    /// Largest request body.
    #[serde(serialize_with = "size_text")]
    #[schemars(schema_with = "size_schema")]
    pub body: u64,
    /// All bodies held in memory together; beyond it admission waits, then 503.
    #[serde(serialize_with = "size_text")]
    #[schemars(schema_with = "size_schema")]
    pub body_memory: u64,
    /// Exchanges under way at once.
    pub concurrent: u64,
    /// Caller connections at once. Restart.
    pub connections: u64,
    /// Time for a caller to send a request's head.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub header_read: Duration,
    /// Longest pause inside a request's body.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub body_read: Duration,
    /// Longest time that admission waits for memory or a place.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub admission: Duration,
    /// Time to connect to a provider, TLS included.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub connect: Duration,
    /// Time until the first byte of a provider's answer.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub first_byte: Duration,
    /// Longest silence inside a provider's answer, or of a caller that does not read.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub idle: Duration,
    /// How long a caller's idle connection is kept.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub keep_alive: Duration,
    /// How long a stopping gateway waits for running exchanges.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub drain: Duration,
    /// How long it waits behind that until all of its log is archived; what is not the next start ships.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub archive: Duration,
    /// Idle connections kept to each provider. Restart.
    pub provider_idle_connections: u64,
    /// Exchanges at once on one HTTP/2 connection of a caller. Restart.
    pub http2_streams: u32,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Provider {
    /// Its name in records and metrics.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// A provider that is known by name (`gemini`, `mistral`, `groq`, `vllm`, ...): it gives `dialect`, `price_as`, the place
    /// of the key and, where it has one address for everybody, `base_url`. What is typed beside it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub kind: Option<&'static str>,
    /// The wire format that it speaks; where there is no `kind` it must be typed.
    #[schemars(with = "Option<Dialect>")]
    pub dialect: Dialect,
    /// `http://` or `https://`, host, port and path prefix; the request's path is put behind it. Where no `kind` gives it,
    /// it must be typed.
    #[schemars(with = "Option<String>")]
    pub base_url: BaseUrl,
    /// The provider's key; absent: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The header that takes the provider's key; absent: the dialect's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<KeyHeader>,
    /// The access key under which requests are signed (AWS Bedrock, where `credential` is no API key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws>,
    /// PEM file of the roots to trust for it; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether usage is asked for in streams that do not ask (OpenAI chat and completions).
    #[schemars(default = "yes")]
    pub ask_usage: bool,
    /// What becomes of a stream whose caller has left: `off`, or the bounds of reading it on for its usage.
    #[schemars(default)]
    pub drain_after_abort: DrainAfterAbort,
    /// `api-version` put into the query where the caller gives none (Azure OpenAI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<Identifier>,
    /// The provider's name in the price book; absent: its `kind`, else its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_as: Option<Identifier>,
}

impl Provider {
    /// The provider's name in the price book.
    pub fn price_name(&self) -> &str {
        self.price_as.as_ref().map(Identifier::as_str).or(self.kind).unwrap_or(self.name.as_str())
    }
}

/// What becomes of an answer whose caller has left before its end.
///
/// A provider that is read on goes on generating, and charging: what is bought is that the record says what the
/// exchange cost, where it would say `partial` or `unknown`. Most providers stop when they are cut, but charge for
/// what they made until then all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainAfterAbort {
    /// The provider is cut at once.
    Off,
    /// The provider is read on for the usage, within these bounds; nothing more goes to the caller.
    #[serde(untagged)]
    Within(Drain),
}

/// How far an answer is read on after its caller has left. The exchange keeps its place of `limits.concurrent`
/// meanwhile; it is cut at once where all places are taken, and when the gateway stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Drain {
    /// The longest time.
    #[serde(serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub time: Duration,
    /// The most bytes as they come over the wire.
    #[serde(serialize_with = "size_text")]
    #[schemars(schema_with = "size_schema")]
    pub bytes: u64,
}

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI, and whatever speaks its format.
    #[serde(rename = "openai")]
    OpenAi,
    /// Azure OpenAI.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Google's Vertex AI, with the models of all publishers.
    Vertex,
    /// Cohere.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// IBM watsonx.ai.
    Watsonx,
    /// AWS Bedrock: `https://bedrock-runtime.REGION.amazonaws.com`.
    Bedrock,
}

/// A header that takes a provider's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Authorization,
    /// `x-api-key: KEY`.
    XApiKey,
    /// `api-key: KEY`.
    ApiKey,
    /// `x-goog-api-key: KEY`.
    XGoogApiKey,
}

impl KeyHeader {
    /// All of them, as typed in the file.
    pub const ALL: [(&'static str, Self); 4] = [
        ("authorization", Self::Authorization),
        ("x-api-key", Self::XApiKey),
        ("api-key", Self::ApiKey),
        ("x-goog-api-key", Self::XGoogApiKey),
    ];
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OpenAi,
        Self::AzureOpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Cohere,
        Self::Ollama,
        Self::Watsonx,
        Self::Bedrock,
    ];

    /// The header of its key.
    pub fn key_header(self) -> KeyHeader {
        match self {
            Self::OpenAi | Self::Vertex | Self::Cohere | Self::Ollama | Self::Watsonx | Self::Bedrock => {
                KeyHeader::Authorization
            }
            Self::AzureOpenAi => KeyHeader::ApiKey,
            Self::Anthropic => KeyHeader::XApiKey,
            Self::Gemini => KeyHeader::XGoogApiKey,
        }
    }

    /// As typed in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::Watsonx => "watsonx",
            Self::Bedrock => "bedrock",
        }
    }
}

/// A provider's address, taken apart once.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// True for `https`.
    pub tls: bool,
    /// Host, and port where it was typed.
    pub authority: http::uri::Authority,
    /// Path prefix without a trailing `/`; empty for none.
    pub path: String,
}

/// Where a provider's key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// An environment variable.
    Env(String),
    /// A file; white space at its ends is cut.
    File(PathBuf),
}

/// Which path leads to which provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Its name in records and metrics.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// Path prefix that is matched on whole parts and cut off; `/` for everything. The longest match wins.
    pub path: String,
    /// A configured provider's name.
    #[schemars(with = "String")]
    pub provider: Identifier,
    /// Retention class of content: `[a-z0-9][a-z0-9.-]{0,62}`; one content file each.
    #[schemars(default = "default_retention")]
    pub retention: String,
    /// Which exchanges share a content key, and so are erased together.
    #[schemars(default)]
    pub keys: KeyScope,
    /// False: only length and commitment of content are kept.
    #[schemars(default = "yes")]
    pub keep_content: bool,
    /// Overrides the provider's `ask_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_usage: Option<bool>,
    /// What happens while evidence cannot be written.
    #[schemars(default)]
    pub fail_mode: FailMode,
    /// True: callers get signed promises that their exchange is in the log, in the headers `x-affidavit-receipt` and
    /// `x-affidavit-receipt-outcome`; needs `evidence.promise_key`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub receipts: bool,
    /// Facts about every caller of this route, where the key's entry has none (recorded with source `route`).
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    #[schemars(default)]
    pub attributes: Attributes,
    /// Headers in which a caller may assert a fact that neither key nor route gives (recorded with source
    /// `asserted`): `subject`, `team`, `organisation`, `cost_centre`, `system`, `purpose`, `data_class`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub asserted_headers: BTreeMap<String, String>,
}

/// Which exchanges share a content key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Each exchange has its own.
    #[default]
    Exchange,
    /// One per consumer, day and log.
    ConsumerDay,
    /// One per end user (subject), day and log; an exchange without a subject has its own.
    SubjectDay,
}

/// What happens to new exchanges while evidence cannot be written (CA-7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// They are refused with 503.
    #[default]
    Closed,
    /// They pass; a `gap` record counts them. A body over 1 MiB is sent from the journal's disk: where that does not take
    /// it, it is refused here too.
    Open,
}

/// Facts about callers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Attributes {
    /// The caller's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Identifier>,
    /// The organisation that the team belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Identifier>,
    /// Who pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_centre: Option<Identifier>,
    /// The AI system, as in the operator's register.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Identifier>,
    /// The purpose that data is processed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Identifier>,
    /// The class of the data that is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_class: Option<Identifier>,
}

impl Attributes {
    /// True where nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which headers go on, and which are recorded. Names in lower case; a `*` at the end stands for any rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Headers {
    /// Request headers that are not forwarded, beside hop-by-hop ones, credentials and cookies.
    pub deny: Vec<String>,
    /// Request headers whose values are kept in content.
    pub record_request: Vec<String>,
    /// Response headers whose values are kept in content.
    pub record_response: Vec<String>,
}

/// The gateway's own log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Log {
    /// Form of a line. Restart.
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `gateway=debug,info`. Restart.
    pub filter: String,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
