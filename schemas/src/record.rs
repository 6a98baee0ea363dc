//! What a leaf says: one struct a record kind, one field a fact.
//!
//! The JSON form is normative in `FORMAT.md` 3; `canonical` makes the bytes. A leaf can never be erased
//! (CA-8): no field here may hold free text from a caller, a provider or a model.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256Hex;
use crate::names::{ExchangeId, Identifier, Origin};

/// The version in every leaf's first-level key `v`.
pub const VERSION: u32 = 1;

/// The longest leaf in bytes (C2SP tlog-tiles entries carry a 16-bit length).
pub const MAX_LEAF_BYTES: usize = 65_535;

/// The longest list in a leaf; what is beyond it is only counted (CA-8).
pub const MAX_LIST: usize = 32;

/// One record: the common keys and the body of its kind.
///
/// A leaf carries neither position nor origin: the tree binds both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Format version, 1.
    pub v: u32,
    /// When the record was made: microseconds since 1970-01-01 UTC by the gateway's clock.
    pub at: i64,
    /// SHA-256 of the configuration in force (CH-4).
    pub config: Sha256Hex,
    /// The kind and its own keys.
    #[serde(flatten)]
    pub body: Body,
}

/// The kinds of version 1. `message` is reserved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "records live briefly and are encoded at once")]
pub enum Body {
    /// An epoch begins. Always position 0 of its log.
    Boot(Boot),
    /// A configuration takes effect after this record.
    Config(Config),
    /// An exchange is about to go to a provider (CA-1).
    Intent(Intent),
    /// An exchange that had an intent has ended (CA-2).
    Outcome(Outcome),
    /// An exchange was refused before any intent; its only record (CA-3).
    Refusal(Refusal),
    /// Bytes go to a further target, or came back from it.
    Attempt(Attempt),
    /// The gateway itself calls something on behalf of an exchange.
    SideCall(Attempt),
    /// Someone administered the gateway.
    Admin(Admin),
    /// Signed silence, with cumulative counters (CH-3).
    Heartbeat(Heartbeat),
    /// Something that should be in the log is not, and this says so.
    Gap(Gap),
    /// A legal hold begins or ends.
    Hold(Hold),
    /// The content key of an exchange is destroyed after this record.
    Erasure(Erasure),
    /// The epoch ends. Always the last record of its log.
    Close(Close),
}

impl Body {
    /// The value of the key `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Boot(_) => "boot",
            Self::Config(_) => "config",
            Self::Intent(_) => "intent",
            Self::Outcome(_) => "outcome",
            Self::Refusal(_) => "refusal",
            Self::Attempt(_) => "attempt",
            Self::SideCall(_) => "side_call",
            Self::Admin(_) => "admin",
            Self::Heartbeat(_) => "heartbeat",
            Self::Gap(_) => "gap",
            Self::Hold(_) => "hold",
            Self::Erasure(_) => "erasure",
            Self::Close(_) => "close",
        }
    }
}

/// `boot`: who writes this log and what it promises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Boot {
    /// Version of the gateway binary, as in its package.
    pub gateway_version: Identifier,
    /// SHA-256 of the running binary, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub binary_sha256: Option<Sha256Hex>,
    /// The log's Ed25519 public key, standard base64 of 32 bytes: also in the trust file.
    pub seal_key: String,
    /// The key for promises to callers (`<origin>/promise`), where the gateway gives any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub promise_key: Option<String>,
    /// The longest time between two records of this log, in milliseconds (CH-3).
    pub heartbeat_bound_ms: i64,
    /// The longest time that a record waits for its batch to be sealed, in milliseconds.
    pub batch_age_ms: i64,
    /// The log that this gateway wrote before; absent for its first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predecessor: Option<Predecessor>,
    /// How content is kept: `aes_256_gcm` or `off`.
    pub encryption: Encryption,
}

/// The log before this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predecessor {
    /// Its origin.
    pub origin: Origin,
    /// Its final tree size, where it is closed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Its final root, where it is closed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<Sha256Hex>,
}

/// How content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// AES-256-GCM under data keys of the key table.
    #[serde(rename = "aes_256_gcm")]
    Aes256Gcm,
    /// Plaintext: cannot be erased before its retention ends.
    Off,
}

/// `config`: what rules from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// SHA-256 of the new configuration; the record's own `config` is the one in force before.
    pub next: Sha256Hex,
    /// Why it changed.
    pub reason: ConfigReason,
    /// SHA-256 of the policy that it holds, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Sha256Hex>,
    /// SHA-256 of the price book that it uses, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price_book: Option<Sha256Hex>,
}

/// Why a configuration took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigReason {
    /// The process started.
    Start,
    /// The process was told to reload (SIGHUP), or saw its file change.
    Reload,
}

/// A fact about who or why, with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attributed {
    /// A configured name, or an identifier (else its keyed pseudonym) asserted by the caller.
    pub value: Identifier,
    /// Where the value comes from.
    pub source: Source,
}

/// Where a fact about who or why comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The entry of the gateway key that authenticated the caller: proven.
    Key,
    /// The route's configuration: proven.
    Route,
    /// A verified token's claim.
    Claim,
    /// A certificate that the TLS layer verified.
    Certificate,
    /// The caller's own word, in a named header or body field.
    Asserted,
}

/// Who asked, and why. The same in every record of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    /// The authenticated caller.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<Attributed>,
    /// The caller's team.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub team: Option<Attributed>,
    /// The organisation that the team belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub organisation: Option<Attributed>,
    /// Who pays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost_centre: Option<Attributed>,
    /// The AI system that the exchange belongs to, as in the operator's register.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub system: Option<Attributed>,
    /// The purpose that the data is processed for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purpose: Option<Attributed>,
    /// The class of the data that is sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_class: Option<Attributed>,
    /// Keyed pseudonym of the end user, where the caller names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Attributed>,
    /// The id of the gateway key that authenticated the caller (never the key).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<Identifier>,
}

/// What was asked, of whom. The same in every record of an exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// The configured route.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<Identifier>,
    /// The configured provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<Identifier>,
    /// The configured target of the provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Identifier>,
    /// The provider's wire format, one of those that FORMAT.md lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dialect: Option<Identifier>,
    /// The operation of the provider's API, one of those that FORMAT.md lists, or `other`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<Identifier>,
    /// The HTTP method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<Identifier>,
    /// The model that the caller asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requested_model: Option<Identifier>,
    /// Whether the caller asked for a stream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<bool>,
    /// The largest output in tokens that the caller allowed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_output_tokens: Option<i64>,
    /// How many answers the caller asked for (`n`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub choices: Option<i64>,
    /// How many tools the caller offered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tools_offered: Option<i64>,
    /// The service tier that the caller asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service_tier: Option<Identifier>,
    /// Sampling temperature, the number's text as received.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature: Option<Identifier>,
    /// Whether the caller asked the provider to store the response, or to work in the background.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub background: Option<bool>,
    /// The response id that a request reads, resumes, cancels or continues.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refers_to: Option<Identifier>,
}

/// One stored part of an exchange's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Which part.
    pub part: PartName,
    /// The media type without parameters where it is an identifier, else absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<Identifier>,
    /// The HTTP content coding in which the bytes crossed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_encoding: Option<Identifier>,
    /// Bytes of content.
    pub length: u64,
    /// SHA-256(salt (32 bytes) || content).
    pub commitment: Sha256Hex,
    /// False where a policy said not to keep the content: only length and commitment stay.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept: Option<bool>,
}

/// The parts of an exchange's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartName {
    /// Request line and recorded headers as the caller sent them, one `name: value` a line.
    ClientRequestHead,
    /// The caller's body.
    ClientRequest,
    /// The body sent to the provider; absent where it is the caller's, byte for byte.
    ProviderRequest,
    /// Status and recorded headers of the provider's answer.
    ProviderResponseHead,
    /// The provider's body.
    ProviderResponse,
    /// The body sent to the caller; absent where it is the provider's, byte for byte.
    ClientResponse,
    /// The text of an error that the gateway met.
    Error,
}

impl PartName {
    /// Every part.
    pub const ALL: [Self; 7] = [
        Self::ClientRequestHead,
        Self::ClientRequest,
        Self::ProviderRequest,
        Self::ProviderResponseHead,
        Self::ProviderResponse,
        Self::ClientResponse,
        Self::Error,
    ];

    /// The part's name in leaves, rows and encodings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientRequestHead => "client_request_head",
            Self::ClientRequest => "client_request",
            Self::ProviderRequest => "provider_request",
            Self::ProviderResponseHead => "provider_response_head",
            Self::ProviderResponse => "provider_response",
            Self::ClientResponse => "client_response",
            Self::Error => "error",
        }
    }

    /// Reads a part's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == text)
    }
}

/// A policy's decision and what it rested on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// What was decided.
    pub decision: Decision,
    /// SHA-256 of the policy.
    pub policy: Sha256Hex,
    /// The ids of the rules that matched, the first 32.
    pub rules: Vec<Identifier>,
    /// How many matched, where more than 32.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule_count: Option<u64>,
    /// The facts that the rules saw and that are not already in this record.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub facts: BTreeMap<String, Identifier>,
}

/// What a policy decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing stood against it.
    Allow,
    /// Refused.
    Deny,
    /// A rule would have refused, but the policy only observes.
    WouldDeny,
}

/// `intent`: what is about to be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Intent {
    /// The exchange (UUIDv7, made by the gateway).
    pub exchange: ExchangeId,
    /// Who and why.
    pub caller: Caller,
    /// What, of whom.
    pub asked: Asked,
    /// The policy's verdict; absent where no policy is configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// The content that this record commits to.
    pub parts: Vec<Part>,
    /// The data key under which the exchange's content is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_key: Option<Identifier>,
    /// The retention class of the content.
    pub retention: Identifier,
    /// `open` where evidence may fail without stopping traffic; absent: closed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fail_mode: Option<Identifier>,
    /// The caller tried to switch recording off or to choose a record id (CA-4): the names of the headers or fields.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suppression: Vec<Identifier>,
}

/// `outcome`: how an exchange ended. Repeats who and what, so that cost questions need no join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Position of its intent.
    pub intent_position: u64,
    /// Who and why.
    pub caller: Caller,
    /// What, of whom.
    pub asked: Asked,
    /// How it ended.
    pub end: End,
    /// Whether the provider's end was seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_end: Option<ProviderEnd>,
    /// HTTP status that the provider answered; absent where none came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_status: Option<i64>,
    /// HTTP status that the caller got.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<i64>,
    /// The gateway's own reason, where it answered itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Identifier>,
    /// Body bytes handed to the caller's connection before this record was committed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivered: Option<u64>,
    /// Body bytes that this commit lets go.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub released: Option<u64>,
    /// After a crash: the last delivered count that was journaled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivered_at_least: Option<u64>,
    /// What the provider said about itself.
    #[serde(skip_serializing_if = "Answered::is_empty", default)]
    pub answered: Answered,
    /// Tokens.
    pub usage: Usage,
    /// Money; absent where it is unknown, never zero for unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<Cost>,
    /// Why there is no cost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unpriced: Option<Unpriced>,
    /// Times.
    pub timing: Timing,
    /// What the provider's rate-limit headers said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub rate_limits: BTreeMap<String, i64>,
    /// The content that this record commits to.
    pub parts: Vec<Part>,
    /// The data key under which the exchange's content is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_key: Option<Identifier>,
    /// The retention class of the content.
    pub retention: Identifier,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The answer came whole.
    Complete,
    /// The caller went away.
    ClientAbort,
    /// The provider cut the answer, or sent bytes that are no HTTP.
    ProviderAbort,
    /// The provider could not be reached.
    Unreachable,
    /// The provider was silent past the first-byte or idle bound.
    Timeout,
    /// The gateway cut it: a size bound, drain, or evidence that could not be written.
    GatewayAbort,
    /// The gateway died; written by recovery.
    Interrupted,
}

/// Whether the provider's end was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderEnd {
    /// The provider ended its body.
    Seen,
    /// The terminal event came, the end did not within 250 ms (CA-2).
    NotAwaited,
    /// The body was cut.
    Cut,
}

/// What the provider said about its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// The model that served.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub served_model: Option<Identifier>,
    /// The provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_id: Option<Identifier>,
    /// The provider's id of the request (header).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<Identifier>,
    /// Finish reasons by choice, as spelled by the provider, the first 32.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub finish_reasons: Vec<Identifier>,
    /// The closer reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish_detail: Option<Identifier>,
    /// How many calls of the caller's tools the answer holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_calls: Option<i64>,
    /// How many calls of tools that the provider runs itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_tool_calls: Option<i64>,
    /// The names of the called tools, the first 32, each an identifier or its keyed pseudonym.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tool_names: Vec<Identifier>,
    /// The error's symbolic name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_type: Option<Identifier>,
    /// The error's code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_code: Option<Identifier>,
    /// The service tier that served.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service_tier: Option<Identifier>,
    /// `Retry-After` in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_s: Option<i64>,
}

impl Answered {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Tokens in one taxonomy, and the provider's own counts beside it. Absent is unknown; 0 is counted zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Where the counts come from.
    pub source: UsageSource,
    /// Whether this exchange incurred them.
    pub role: UsageRole,
    /// All input, with what was read from and written to a cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_tokens: Option<i64>,
    /// Input that was neither read from nor written to a cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uncached_input_tokens: Option<i64>,
    /// Input read from a cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_read_tokens: Option<i64>,
    /// Input written to a cache that lives 5 minutes (or whose life is not told).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_write_5m_tokens: Option<i64>,
    /// Input written to a cache that lives an hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_write_1h_tokens: Option<i64>,
    /// All output, with reasoning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_tokens: Option<i64>,
    /// The part of the output that is reasoning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reasoning_tokens: Option<i64>,
    /// The part of the input that is audio.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_audio_tokens: Option<i64>,
    /// The part of the output that is audio.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_audio_tokens: Option<i64>,
    /// The part of the input that is images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_image_tokens: Option<i64>,
    /// The provider's own main counts, unconverted.
    #[serde(skip_serializing_if = "Reported::is_empty", default)]
    pub reported: Reported,
}

/// The provider's own counts: names of one meaning, values unconverted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reported {
    /// The main input count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input: Option<i64>,
    /// The main output count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<i64>,
    /// The total.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<i64>,
    /// Input read from a cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cached_input: Option<i64>,
    /// Input written to a cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache_creation: Option<i64>,
    /// Reasoning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reasoning: Option<i64>,
}

impl Reported {
    /// True where the provider reported nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where token counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider's final usage.
    Provider,
    /// The provider's usage, read after the caller had gone.
    Drained,
    /// Counts that the provider gave before a stream was cut: a lower bound.
    Partial,
    /// The gateway's own estimate.
    Estimated,
    /// Nobody knows.
    Unknown,
    /// The operation uses no tokens.
    NotApplicable,
}

/// Whether an exchange incurred the usage that its answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageRole {
    /// It did.
    Incurred,
    /// It only read a stored or background result.
    Retrieved,
    /// There is none.
    None,
}

/// Money by token class. Decimal strings in the currency's main unit, at most 12 fraction digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// ISO 4217 code.
    pub currency: Identifier,
    /// The sum of the classes.
    pub total: String,
    /// Cost of each class that has tokens and a price.
    pub classes: BTreeMap<String, String>,
    /// SHA-256 of the price book.
    pub price_book: Sha256Hex,
    /// The id of the book's row.
    pub price_row: Identifier,
}

/// Why there is no cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// The book has no price for provider, model, day and a class that has tokens.
    NoPrice,
    /// The usage is unknown.
    NoUsage,
    /// The usage was incurred by another exchange, or the operation costs nothing by tokens.
    NotIncurred,
}

/// Durations in microseconds from the first byte of the request's head, where not said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Reading the request, authenticating, routing, policy: until the intent was handed to the journal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_us: Option<i64>,
    /// How long the intent's commit took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit_us: Option<i64>,
    /// From the first byte to the provider until its response head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_head_us: Option<i64>,
    /// Until the first body byte of the provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_byte_us: Option<i64>,
    /// Until the first event with model output.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_token_us: Option<i64>,
    /// Until the end was known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_us: Option<i64>,
}

/// `refusal`: the only record of an exchange that was refused before its intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The exchange; absent where refusals were folded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<ExchangeId>,
    /// The closed reason, as in the code `affidavit_<reason>`.
    pub reason: Identifier,
    /// HTTP status that the caller got.
    pub status: i64,
    /// How many refusals this record stands for, where folded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// Time of the first, where folded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<i64>,
    /// Time of the last, where folded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<i64>,
    /// Who, as far as known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caller: Option<Caller>,
    /// What, as far as known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<Asked>,
    /// The policy's verdict, where it was the policy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// The content, where the caller was authenticated.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parts: Vec<Part>,
    /// The data key of the content.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_key: Option<Identifier>,
    /// The retention class of the content.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retention: Option<Identifier>,
    /// As in `intent`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suppression: Vec<Identifier>,
}

/// `attempt`, `side_call`: bytes to a further target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Position of its intent.
    pub intent_position: u64,
    /// Counted from 1; the intent's own dispatch is 0.
    pub number: u64,
    /// `open` before the bytes go, `end` after.
    pub phase: Identifier,
    /// The configured target.
    pub target: Identifier,
    /// Why it is made.
    pub reason: Identifier,
    /// The commitment of the body that is sent, where it is not the first attempt's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment: Option<Sha256Hex>,
    /// HTTP status, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<i64>,
    /// Duration in microseconds, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_us: Option<i64>,
    /// Tokens, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

/// `admin`: what someone did to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Admin {
    /// What: `key_issued`, `key_changed`, `key_revoked`, `config_refused`, `loss_accepted`, `salvaged`.
    pub action: Identifier,
    /// Who: the operating system's user, or the admin socket's peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
    /// What it was done to: a key id, a configuration's hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<Identifier>,
}

/// `heartbeat`: signed silence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Cumulative counters since `boot`; names are in FORMAT.md.
    pub counters: BTreeMap<String, u64>,
}

/// `gap`: what is not in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// How many records, or exchanges for `unrecorded`, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// Bytes of journal that were cut or could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
}

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The last group was not whole after a crash: nothing of it was acknowledged.
    TornTail,
    /// Acknowledged records are damaged.
    Loss,
    /// Exchanges passed on a route with `fail_mode: open` while evidence could not be written.
    Unrecorded,
    /// Records found behind a fence.
    Late,
}

/// `hold`: a legal hold begins, or covers more; or it ends. Section 3.11.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// The hold's name: that of a case.
    pub hold: Identifier,
    /// `begin` or `end`.
    pub phase: Identifier,
    /// Why: an identifier that the operator gives.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Identifier>,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
    /// In `begin`: only this exchange.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<ExchangeId>,
    /// In `begin`: only exchanges of this subject.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Identifier>,
    /// In `begin`: only exchanges of this consumer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<Identifier>,
    /// In `begin`: only exchanges that began then or later, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<i64>,
    /// In `begin`: only exchanges that began before, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<i64>,
}

/// `erasure`: content keys that are destroyed after this record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Erasure {
    /// The exchange whose content goes.
    pub exchange: ExchangeId,
    /// The log that holds it.
    pub origin: Origin,
    /// Position of its intent or refusal there.
    pub position: u64,
    /// The data key.
    pub content_key: Identifier,
    /// Why: an identifier that the operator gives.
    pub reason: Identifier,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
}

/// `close`: the log's last record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Close {
    /// Why.
    pub reason: CloseReason,
    /// The next log of this gateway, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub successor: Option<Origin>,
    /// The last time at which the process is known to have lived, microseconds UTC.
    pub alive_until: i64,
    /// The counters at the end, as in `heartbeat`; absent after a crash.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub counters: BTreeMap<String, u64>,
}

/// Why a log was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The process was told to stop.
    Shutdown,
    /// The process died; written by recovery.
    Crash,
    /// The process gave up because its disk failed.
    Failed,
    /// A dead host's journal was closed elsewhere.
    Salvaged,
}
