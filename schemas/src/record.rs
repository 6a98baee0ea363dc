//! What a leaf says: one struct a record kind, one field a fact.
//!
//! The JSON form is normative in `FORMAT.md` 3; `canonical` makes the bytes. A leaf can never be erased
//! (CA-8): no field here may hold free text from a caller, a provider or a model.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256Hex;
use crate::holds::Scope;
use crate::names::{ExchangeId, Identifier, Origin};

pub use crate::part_name::{AttemptNumber, PartName};

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
    /// The groups that the caller is in, the first 32, by what names the consumer: key, claim or certificate.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<Identifier>,
    /// How many groups, where more than 32.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group_count: Option<u64>,
    /// The caller's own credential at the provider, where the gateway sent it on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub forwarded: Option<Forwarded>,
}

/// A credential of the caller's own that was sent on to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forwarded {
    /// The header that carried it: `authorization`, `x-api-key`, `api-key` or `x-goog-api-key`.
    pub kind: Identifier,
    /// Its keyed pseudonym: the same credential has the same one.
    pub fingerprint: Identifier,
}

/// What was asked, of whom. The same in every record of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The model that the gateway sends, where it is another one than the caller asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent_model: Option<Identifier>,
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

impl Asked {
    /// Where the intent's own dispatch goes, as an attempt's record says it; `target` where none is named here.
    pub fn dispatched(&self, target: &Identifier) -> Served {
        Served {
            number: 0,
            target: self.target.as_ref().unwrap_or(target).clone(),
            provider: self.provider.clone(),
            dialect: self.dialect.clone(),
            model: self.sent_model.as_ref().or(self.requested_model.as_ref()).cloned(),
        }
    }
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
    /// How the request was said in the provider's dialect, where that is another one than the caller's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub translation: Option<Translation>,
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
    /// What the target was chosen by, where it was by what the prompt means.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub choice: Option<Choice>,
}

/// How a target was chosen by what a prompt means. Health and priority count before it: where the one that was meant could not be
/// asked, `asked.target` is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// `semantic`.
    pub by: Identifier,
    /// What it rests on: `matched`; `sticky` (the conversation is at a target already); or why the fallback was meant: `below_threshold`,
    /// `no_text`, `denied`, `ejected`, `not_ready`, `unrecorded`, `timeout`, `failed`.
    pub why: Identifier,
    /// The target that was meant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Identifier>,
    /// The prompt's nearness to the nearest target: the cosine to the nearest of its examples, in millionths.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<i64>,
    /// The exchange in which the prompt was embedded, with the operation `routing`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedded: Option<ExchangeId>,
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
    /// The attempt that this record tells of; absent: the intent's own dispatch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub served: Option<Served>,
    /// As in the record of the request whose answer this one tells of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub translation: Option<Translation>,
    /// What of the answer the caller did not get in its dialect, each word counted once; absent where none was translated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer_dropped: Option<Dropped>,
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

impl Outcome {
    /// The models by which a price book may know it: the one that served, the one that was sent, the one that was asked for.
    pub fn models(&self) -> Vec<&str> {
        let sent = match &self.served {
            Some(served) => &served.model,
            None => &self.asked.sent_model,
        };
        names([&self.answered.served_model, sent, &self.asked.requested_model])
    }

    /// The provider whose answer it tells of.
    pub fn provider(&self) -> Option<&Identifier> {
        self.served.as_ref().and_then(|served| served.provider.as_ref()).or(self.asked.provider.as_ref())
    }
}

fn names<const N: usize>(models: [&Option<Identifier>; N]) -> Vec<&str> {
    models.into_iter().flatten().map(Identifier::as_str).collect()
}

/// A request in another dialect than its caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Translation {
    /// The caller's dialect, spelled as in `asked.dialect`.
    pub from: Identifier,
    /// The provider's.
    pub to: Identifier,
    /// What of the request the provider does not get; in a `refusal`: what cannot be carried.
    pub dropped: Dropped,
}

/// What a translation left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// In how many places something was.
    pub count: u64,
    /// In how many of them that changes what is meant.
    pub meaning: u64,
    /// In how many of them it is a key that the gateway does not know.
    pub unknown: u64,
    /// What, in words that FORMAT.md lists, never in a caller's or a provider's: each once, the first 32.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub what: Vec<Identifier>,
}

/// Where an attempt went, whose answer an outcome tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// Its number, 1 to 15.
    pub number: u64,
    /// The configured target.
    pub target: Identifier,
    /// The configured provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<Identifier>,
    /// The provider's wire format, as in `asked.dialect`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dialect: Option<Identifier>,
    /// The model that was sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<Identifier>,
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
    /// The part of the output that is images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_image_tokens: Option<i64>,
    /// The part of the input that tools of the provider put into the prompt, where it is told apart.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_use_input_tokens: Option<i64>,
    /// Searches that a reranker charges.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub search_units: Option<i64>,
    /// Searches of the web that the provider ran for the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub web_searches: Option<i64>,
    /// Pages of documents that were read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pages: Option<i64>,
    /// Seconds of audio, where they are what is told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audio_seconds: Option<i64>,
    /// The provider's own main counts, unconverted.
    #[serde(skip_serializing_if = "Reported::is_empty", default)]
    pub reported: Reported,
    /// What an estimate was counted by: `cl100k_base`, `o200k_base`, `o200k_harmony`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokenizer: Option<Identifier>,
}

impl Usage {
    /// Usage without a count.
    pub fn of(source: UsageSource, role: UsageRole) -> Self {
        Self {
            source,
            role,
            input_tokens: None,
            uncached_input_tokens: None,
            cache_read_tokens: None,
            cache_write_5m_tokens: None,
            cache_write_1h_tokens: None,
            output_tokens: None,
            reasoning_tokens: None,
            input_audio_tokens: None,
            output_audio_tokens: None,
            input_image_tokens: None,
            output_image_tokens: None,
            tool_use_input_tokens: None,
            search_units: None,
            web_searches: None,
            pages: None,
            audio_seconds: None,
            reported: Reported::default(),
            tokenizer: None,
        }
    }
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
    /// What cannot be said in a provider's dialect, where it was that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub translation: Option<Translation>,
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
    /// The quota that had no room, where it was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<RefusedLimit>,
}

/// A quota that had no room for a request. Amounts are decimal texts: of what is counted, of money in the currency's main
/// unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedLimit {
    /// The rule's name in the configuration.
    pub rule: Identifier,
    /// What it counts: `requests`, `concurrency`, `tokens`, `input_tokens`, `output_tokens`, `money` or `expression`.
    pub count: Identifier,
    /// The facts that its counters are kept by.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub by: Vec<Identifier>,
    /// The limit.
    pub limit: String,
    /// What was spent and reserved of it.
    pub used: String,
    /// What the request would have reserved.
    pub wanted: String,
    /// ISO 4217 code, of money.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub currency: Option<Identifier>,
    /// When the counter begins anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reset: Option<i64>,
}

/// `attempt`, `side_call`: bytes to a further target, and what came back. Section 3.3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Position of its intent.
    pub intent_position: u64,
    /// Counted from 1, at most 15; the intent's own dispatch is 0 and has only an `end`.
    pub number: u64,
    /// `open` before the bytes go, `end` after.
    pub phase: Identifier,
    /// The configured target.
    pub target: Identifier,
    /// The configured provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<Identifier>,
    /// The provider's wire format, as in `asked.dialect`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dialect: Option<Identifier>,
    /// The model that is sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<Identifier>,
    /// Phase `open`: why it is made. Phase `end`: why it does not count.
    pub reason: Identifier,
    /// The policy's verdict on this target, phase `open`; absent where no policy is configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// How the request was said in the provider's dialect, phase `open`, where that is another one than the caller's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub translation: Option<Translation>,
    /// The commitment of the body that is sent, where it is not the first attempt's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment: Option<Sha256Hex>,
    /// How it ended, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<End>,
    /// HTTP status, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<i64>,
    /// Duration in microseconds, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_us: Option<i64>,
    /// What the provider said about its answer, phase `end`.
    #[serde(skip_serializing_if = "Answered::is_empty", default)]
    pub answered: Answered,
    /// Tokens, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// Money, phase `end`; absent where it is unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<Cost>,
    /// Why there is no cost, phase `end`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unpriced: Option<Unpriced>,
    /// The content that this record commits to: what is sent, where it is not what number 0 sent (`open`), and what was
    /// answered (`end`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parts: Vec<Part>,
    /// The data key of the content.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_key: Option<Identifier>,
    /// The retention class of the content: the intent's. There where there are parts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retention: Option<Identifier>,
}

impl Attempt {
    /// Number `number` of an exchange, which goes to `target`. The ledger sets exchange, position and phase.
    pub fn new(exchange: ExchangeId, number: AttemptNumber, target: Identifier, reason: Identifier) -> Self {
        Self {
            exchange,
            intent_position: 0,
            number: number.into(),
            phase: reason.clone(),
            target,
            provider: None,
            dialect: None,
            model: None,
            reason,
            verdict: None,
            translation: None,
            commitment: None,
            end: None,
            status: None,
            total_us: None,
            answered: Answered::default(),
            usage: None,
            cost: None,
            unpriced: None,
            parts: Vec::new(),
            content_key: None,
            retention: None,
        }
    }

    /// The models by which a price book may know it: the one that served, the one that was sent.
    pub fn models(&self) -> Vec<&str> {
        names([&self.answered.served_model, &self.model])
    }

    /// What an outcome says of it that tells of this attempt.
    pub fn served(&self) -> Served {
        Served {
            number: self.number,
            target: self.target.clone(),
            provider: self.provider.clone(),
            dialect: self.dialect.clone(),
            model: self.model.clone(),
        }
    }
}

/// `admin`: what someone did to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Admin {
    /// What: `key_issued`, `key_changed`, `key_revoked`, `config_refused`, `loss_accepted`, `salvaged`.
    pub action: Identifier,
    /// Who: the operating system's user, `owner:` and the owner of the file that changed, or the admin socket's peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
    /// What it was done to: a key id, a configuration's hash, a log.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// In `begin`: what it covers.
    #[serde(flatten)]
    pub scope: Scope,
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
