//! The configuration: what was typed (`gateway.yaml`) and what it means, checked once.
//!
//! [`load`] reads the file and everything that it refers to, collects all problems at once and gives a
//! [`Loaded`], or nothing: no bad value becomes a default. A reload swaps one whole `Loaded` for another
//! ([`Loaded::restart_keys`] says what cannot be swapped). The canonical form ([`Loaded::canonical`]), with
//! secrets as keyed fingerprints, goes into the log before it rules; its SHA-256 is in every record (CH-4).

mod archived;
mod aws;
mod balance;
mod canonical;
mod check;
mod cluster;
mod commit;
mod defaults;
mod diff;
mod fact;
mod files;
mod identity;
mod kafka;
mod kafka_in;
mod known;
mod load;
mod matching;
mod quotas;
mod read;
mod referred;
mod retry;
mod s3;
mod schema;
mod secret;
mod semantic;
mod tap;
mod target;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod upstream;
mod upstream_files;
mod vault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dialects::change::ChatBound;
use schemars::JsonSchema;
use schemas::Identifier;
use serde::Serialize;

pub use archived::{Archived, ArchivedBucket, Confirm};
pub use aws::Aws;
pub use balance::{
    Active, Balance, By, CoolDown, HashOf, Hashed, Health, Healthy, Method, Passive, ProviderKey, Statuses,
    Sticky, Unhealthy,
};
pub use cluster::{Cluster, KafkaSasl, Mechanism};
pub use commit::{Commit, KafkaCommit};
pub use defaults::DEFAULT_ADMIN;
pub use dialects::Dialect;
pub use diff::Changes;
pub use fact::Fact;
pub(crate) use identity::groups_of;
pub use identity::{
    Algorithm, CertificateName, Certificates, Identity, Jwks, JwtIssuer, ListenerCertificates, Mapped,
};
pub use kafka::{Archiver, CreateTopics, KafkaOut};
pub(crate) use kafka_in::{KafkaIn, kafka_in};
pub use known::{KNOWN, Known};
pub(crate) use load::load_after;
pub use load::{
    AwsKey, IssuerFiles, Loaded, LoadedFile, OtlpFiles, TapFiles, TlsFiles, keys_path, load, load_with,
};
pub use matching::{BodySize, Match};
pub(crate) use matching::{expression, patterns};
pub use policies::document::Problem;
pub use quotas::{
    Calendar, Count, CountedBy, MAX_LIMIT, NANO, QuotaMatch, QuotaRedis, QuotaRule, QuotaStore, Quotas,
    RedisCluster, RedisSentinel, RedisUrl, Then, WhenDown, WindowKind,
};
pub(crate) use read::out;
pub(crate) use referred::Referred;
pub(crate) use retry::MAX_ATTEMPTS;
pub use retry::{BackOff, Budget, On, Retry};
pub use s3::{Bucket, LockMode, S3Out, S3Retention, Sse, WithoutLock};
pub use schema::json_schema;
pub use secret::Secret;
pub use semantic::{Score, Semantic};
pub use tap::{TapBody, TapFormat, TapKafka, TapKind, TapLoki, TapOnly, TapSink, TapSyslog, TapWebhook};
pub(crate) use target::translates;
pub use target::{Parameters, Target, TargetHeaders};
pub use telemetry::{Otlp, Ratio, Telemetry, TraceContext};
pub use tls::ClientTls;
pub use units::{parse_duration, parse_size};
pub use upstream::{ClientCertificate, Google, OAuth, ProxyAt, UpstreamProxy};
pub use upstream_files::{Grant, Pair, ProxyRules, TokenFiles, Upstream};
pub use vault::{Vault, VaultApprole, VaultAuth, VaultKubernetes, VaultSecret};

use defaults::{
    default_admin, default_batch_age, default_batch_size, default_heartbeat, default_retention,
    default_segment, default_spool_bound, default_spool_keep, yes,
};
use units::{
    duration_schema, duration_text, optional_duration_text, optional_size_text, size_schema, size_text,
};

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
    /// How much who may use, in which time.
    #[serde(skip_serializing_if = "Quotas::is_default")]
    #[schemars(default)]
    pub quotas: Quotas,
    /// Where requests go.
    pub providers: Vec<Provider>,
    /// The proxy that stands before providers, where one has no own `upstream_proxy`: `off`, `environment`, or where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_proxy: Option<UpstreamProxy>,
    /// Which path leads to which provider.
    pub routes: Vec<Route>,
    /// File of gateway keys, written by `gateway keys`, with the user who issued or revoked each.
    pub keys: PathBuf,
    /// Who calls without a gateway key: by tokens, by certificates.
    #[serde(skip_serializing_if = "Identity::is_empty")]
    #[schemars(default)]
    pub identity: Identity,
    /// Where secrets are that are named by `{vault: ...}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault: Option<Vault>,
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
    /// A batch is sealed early when its content reaches this size. `64MiB` where not typed. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_batch_size", schema_with = "size_schema")]
    pub batch_size: u64,
    /// The longest silence between two records. `5m` where not typed. Restart.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_heartbeat", schema_with = "duration_schema")]
    pub heartbeat: Duration,
    /// How content is kept. Restart.
    #[schemars(default)]
    pub encryption: Encryption,
    /// Size of one journal segment. `64MiB` where not typed. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_segment", schema_with = "size_schema")]
    pub segment: u64,
    /// New traffic is refused while the spool holds more than this. `10GiB` where not typed. Restart.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_spool_bound", schema_with = "size_schema")]
    pub spool_bound: u64,
    /// How long a batch stays beside the spool after it is archived, so that `gateway reship` can put it again where the
    /// store loses it: as far as `spool_bound` and the disk have room, and never in the way of traffic; `0s`: not at all.
    /// `24h` where not typed. Restart.
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
    /// Largest answer of a provider; a larger one is not passed on, or cut where it has begun. Absent: no bound.
    #[serde(serialize_with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub answer: Option<u64>,
    /// Longest time from the head of a provider's answer to its end; one that lasts longer is cut. Absent: no bound.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub answer_time: Option<Duration>,
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
    /// Several keys in the place of `credential`: requests go round them, and one that the provider does not take is left
    /// alone for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub keys: Vec<ProviderKey>,
    /// How long a key is left alone.
    #[serde(skip_serializing_if = "CoolDown::is_default")]
    #[schemars(default)]
    pub cool_down: CoolDown,
    /// When the provider is left alone; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The header that takes the provider's key; absent: the dialect's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<KeyHeader>,
    /// The access key under which requests are signed (AWS Bedrock, where `credential` is no API key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws>,
    /// Where Google's access tokens come from, in the place of `credential` (dialects `vertex` and `gemini`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub google: Option<Google>,
    /// Where access tokens by OAuth 2.0 come from, in the place of `credential` (Entra ID for Azure, IBM Cloud for watsonx).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuth>,
    /// PEM file of the roots to trust for it; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows to it, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// The proxy that stands before it; absent: the one of the whole configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_proxy: Option<UpstreamProxy>,
    /// Whether usage is asked for in streams that do not ask (OpenAI chat and completions).
    #[schemars(default = "yes")]
    pub ask_usage: bool,
    /// What becomes of an answer whose caller has left: `off`, or the bounds of reading it on for its usage. A route can say
    /// otherwise.
    #[schemars(default)]
    pub drain_after_abort: DrainAfterAbort,
    /// Time to connect to it, TLS included, in the place of `limits.connect`.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub connect: Option<Duration>,
    /// How long an idle connection to it is kept; absent: 50s. `0s`: each request has its own.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub keep_alive: Option<Duration>,
    /// Idle connections kept to it, in the place of `limits.provider_idle_connections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_connections: Option<u64>,
    /// `api-version` put into the query where the caller gives none (Azure OpenAI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<Identifier>,
    /// The provider's name in the price book; absent: its `kind`, else its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_as: Option<Identifier>,
    /// The word by which a chat of OpenAI's dialect is bounded there, in translation and for `parameters.max_output`; absent: that
    /// of its `kind`. Without a `kind` it is `max_completion_tokens` at OpenAI's and Azure's own hosts, else `max_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_as: Option<MaxOutputAs>,
}

/// The word by which a chat is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaxOutputAs {
    /// OpenAI's own; its reasoning models take no other.
    MaxCompletionTokens,
    /// What compatible servers know.
    MaxTokens,
}

impl MaxOutputAs {
    /// All of them, as typed in the file.
    pub const ALL: [(&'static str, Self); 2] =
        [("max_completion_tokens", Self::MaxCompletionTokens), ("max_tokens", Self::MaxTokens)];
}

impl Provider {
    /// The word by which its chat of OpenAI's dialect is bounded.
    pub(crate) fn chat_bound(&self) -> ChatBound {
        match self.max_output_as {
            Some(MaxOutputAs::MaxCompletionTokens) => return ChatBound::MaxCompletionTokens,
            Some(MaxOutputAs::MaxTokens) => return ChatBound::MaxTokens,
            None => {}
        }
        if let Some(known) = self.kind.and_then(|kind| KNOWN.iter().find(|known| known.name == kind)) {
            return known.chat_bound;
        }
        let host = self.base_url.authority.host().to_ascii_lowercase();
        let is_below = |domain| {
            host.strip_suffix(domain).is_some_and(|front: &str| front.is_empty() || front.ends_with('.'))
        };
        let is_own = self.dialect == Dialect::AzureOpenAi || is_below("openai.com") || is_below("azure.com");
        if is_own { ChatBound::MaxCompletionTokens } else { ChatBound::MaxTokens }
    }

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

impl DrainAfterAbort {
    /// How far is read on; `None`: not at all.
    pub(crate) fn bounds(self) -> Option<Drain> {
        match self {
            Self::Off => None,
            Self::Within(drain) => Some(drain),
        }
    }
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

    /// Where a dialect's own SDKs put the key.
    pub fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi
            | Dialect::Vertex
            | Dialect::Cohere
            | Dialect::Ollama
            | Dialect::Watsonx
            | Dialect::Bedrock => Self::Authorization,
            Dialect::AzureOpenAi => Self::ApiKey,
            Dialect::Anthropic => Self::XApiKey,
            Dialect::Gemini => Self::XGoogApiKey,
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
    /// A secret of `vault`: `{path: llm/openai, key: api_key}`.
    Vault(VaultSecret),
}

/// Which path leads to which provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Its name in records and metrics.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// Path prefix that is matched on whole parts and cut off; `/` for everything. The longest is tried first, and those of
    /// one length in the order of the file.
    pub path: String,
    /// What else a request must be; where it is not the next route is tried. Absent: every request.
    ///
    /// What is said of the body is known once the body is read. Until then the first route counts whose other conditions
    /// hold: its `fail_mode` says whether a body is read at all while evidence cannot be written, and a body over 1 MiB is
    /// stored under its `keys` and `retention`, and without content where it or the route that takes the request keeps none.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Match>,
    /// A configured provider's name: the only target. Either this or `targets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub provider: Option<Identifier>,
    /// The providers that may be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub targets: Vec<Target>,
    /// How its requests are spread over its targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// The wire format that callers speak; absent: that of the first target's provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// Alias -> model that is sent in its place. A `*` at the end of an alias is any rest, and a `*` at the end of its model
    /// stands for that rest: `openai/*: '*'`. An exact alias counts before a longer pattern, that before a shorter one.
    /// Policies judge both names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub models: BTreeMap<String, String>,
    /// When a request that failed before its caller got anything is sent again; absent: twice in all where there are several
    /// targets, else once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// True: answers carry `Server-Timing` with the milliseconds of `auth`, `commit` and `provider`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub server_timing: bool,
    /// What happens to a request that says what the dialect of its target has no word for.
    #[serde(skip_serializing_if = "Untranslatable::is_refuse")]
    #[schemars(default)]
    pub untranslatable: Untranslatable,
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
    /// What becomes of an answer of this route whose caller has left, in the place of the provider's `drain_after_abort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_after_abort: Option<DrainAfterAbort>,
    /// What the record of an exchange says whose provider told no usage.
    #[serde(skip_serializing_if = "Estimate::is_on")]
    #[schemars(default)]
    pub estimate: Estimate,
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
    /// Facts without which a call is refused (400 `missing_fact`): `subject`, `team`, `organisation`, `cost_centre`,
    /// `system`, `purpose`, `data_class`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub require: Vec<Fact>,
    /// With which credential the provider is asked.
    #[serde(skip_serializing_if = "Credentials::is_replace")]
    #[schemars(default)]
    pub credentials: Credentials,
}

/// With which credential a provider is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// The gateway's, in the place of the caller's gateway key.
    #[default]
    Replace,
    /// The caller's own, to this route's provider and nobody else. Who calls is said by `x-affidavit-key` or a
    /// certificate, and the record names the credential by a fingerprint.
    Forward,
}

impl Credentials {
    fn is_replace(&self) -> bool {
        *self == Self::Replace
    }
}

impl Route {
    /// Its targets, also where only a provider is typed.
    pub(crate) fn all_targets(&self) -> Vec<Target> {
        match &self.provider {
            Some(provider) => vec![Target::of(provider)],
            None => self.targets.clone(),
        }
    }

    /// The names of the providers that it may ask.
    pub(crate) fn providers(&self) -> impl Iterator<Item = &Identifier> {
        self.provider.iter().chain(self.targets.iter().map(|target| &target.provider))
    }

    /// When a request is sent again, also where nothing is typed.
    pub(crate) fn retries(&self) -> Retry {
        let attempts = retry::once_each(self.targets.len());
        self.retry.clone().unwrap_or(Retry { attempts, ..Retry::default() })
    }
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

/// What happens to a request that says what the dialect of its target has no word for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Untranslatable {
    /// It is refused with 400 where the answer would be another one; what only helps (caching, labels) is left out.
    #[default]
    Refuse,
    /// It is left out, whatever it means.
    Drop,
}

impl Untranslatable {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// What the record of an exchange says whose provider told no usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// An estimate, marked as one (`usage.source: estimated`): of text alone, by the tokenizer that it names.
    #[default]
    On,
    /// That nobody knows it.
    Off,
}

impl Estimate {
    fn is_on(&self) -> bool {
        *self == Self::On
    }
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
