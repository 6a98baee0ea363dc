//! The evidence against what providers say of usage and cost: their usage and cost reports, bills and invocation logs.
//!
//! ```text
//! export file -> reader (one a format, strict) -> buckets or calls ┐
//! proven rows -> booked outcomes with usage ───────────────────────┴-> cells and matches -> findings, claim
//! ```
//! What the evidence cannot show is thereby bounded: use of the same keys past the gateway stands in the provider's
//! export and in no record. An export is what somebody fetched with the provider's key: it is as true as its way here.

pub mod anthropic;
pub mod azure;
pub mod batches;
pub mod bedrock;
pub mod compare;
pub mod cur;
pub mod edges;
pub mod input;
pub mod keys;
pub mod openai;
pub mod render;
pub mod result;
pub mod vertex;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use schemas::Sha256Hex;
use serde::Serialize;

use crate::decimal::Decimal;
use input::Input;

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// OpenAI, `/v1/organization/usage/completions` and `/embeddings`.
    OpenaiUsage,
    /// OpenAI, `/v1/organization/costs`.
    OpenaiCosts,
    /// Anthropic, `/v1/organizations/usage_report/messages`.
    AnthropicUsage,
    /// Anthropic, `/v1/organizations/cost_report`.
    AnthropicCost,
    /// Amazon Bedrock, model invocation logs.
    BedrockLog,
    /// Azure OpenAI, diagnostic logs of the category `RequestResponse`.
    AzureLog,
    /// Vertex AI, request-response logs.
    VertexLog,
    /// AWS Cost and Usage Report, lines of Amazon Bedrock.
    AwsCur,
}

const FORMATS: [Format; 8] = [
    Format::OpenaiUsage,
    Format::OpenaiCosts,
    Format::AnthropicUsage,
    Format::AnthropicCost,
    Format::BedrockLog,
    Format::AzureLog,
    Format::VertexLog,
    Format::AwsCur,
];

impl Format {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiUsage => "openai-usage",
            Self::OpenaiCosts => "openai-costs",
            Self::AnthropicUsage => "anthropic-usage",
            Self::AnthropicCost => "anthropic-cost",
            Self::BedrockLog => "bedrock-log",
            Self::AzureLog => "azure-log",
            Self::VertexLog => "vertex-log",
            Self::AwsCur => "aws-cur",
        }
    }

    /// Whether it is about exchanges of a dialect, where no provider was named.
    fn is_about(self, dialect: &str) -> bool {
        match self {
            Self::OpenaiUsage | Self::OpenaiCosts => dialect == "openai",
            Self::AnthropicUsage | Self::AnthropicCost => dialect == "anthropic",
            Self::BedrockLog | Self::AwsCur => dialect.starts_with("bedrock"),
            Self::AzureLog => dialect.starts_with("azure"),
            Self::VertexLog => dialect.starts_with("vertex") || dialect.starts_with("gemini"),
        }
    }

    /// Whether it tells of usage: what only tells cost does not show that nothing is missing.
    pub fn tells_usage(self) -> bool {
        !matches!(self, Self::OpenaiCosts | Self::AnthropicCost)
    }

    /// Whether it tells of times without use too: a bill has lines only where something was used.
    fn tells_of_rest(self) -> bool {
        self != Self::AwsCur
    }

    /// Whether the provider logs a sample only where it was told to.
    pub fn may_be_a_sample(self) -> bool {
        self == Self::VertexLog
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        match FORMATS.into_iter().find(|format| format.as_str() == text) {
            Some(format) => Ok(format),
            None => bail!(
                "`{text}` is no form of an export: wanted one of {}",
                FORMATS.map(Format::as_str).join(", ")
            ),
        }
    }
}

/// What was counted. Absent is not told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// All input, with what was read from and written to caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Input read from caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// All output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Cost by currency.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, Decimal>,
}

fn sum(a: &mut Option<u64>, b: Option<u64>) {
    if let Some(b) = b {
        *a = Some(a.unwrap_or(0).saturating_add(b));
    }
}

impl Counts {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        sum(&mut self.requests, other.requests);
        sum(&mut self.input_tokens, other.input_tokens);
        sum(&mut self.cache_read_tokens, other.cache_read_tokens);
        sum(&mut self.output_tokens, other.output_tokens);
        for (currency, cost) in &other.cost {
            let total = self.cost.entry(currency.clone()).or_default();
            *total = total.plus(*cost);
        }
    }

    /// Whether anything was used.
    fn is_any(&self) -> bool {
        let counts = [self.requests, self.input_tokens, self.output_tokens];
        counts.iter().flatten().any(|count| *count > 0) || self.cost.values().any(|cost| cost.0 != 0)
    }

    /// Counts a cost.
    pub fn cost(currency: &str, cost: Decimal) -> Self {
        Self { cost: BTreeMap::from([(currency.to_ascii_uppercase(), cost)]), ..Self::default() }
    }
}

/// A sum over a stretch of time of one day at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its start, microseconds UTC.
    pub from: i64,
    /// Its end, microseconds UTC, not included.
    pub to: i64,
    /// The provider's id of the key.
    pub key: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// What was counted; empty where the stretch is told to have nothing.
    pub counts: Counts,
}

/// One call that a provider logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The line in the file.
    pub line: u64,
    /// Ids by which an exchange may know it.
    pub ids: Vec<String>,
    /// When, microseconds UTC.
    pub at: i64,
    /// The model.
    pub model: Option<String>,
    /// Who called, as the provider says.
    pub caller: Option<String>,
    /// What it used.
    pub counts: Counts,
}

/// What is said of the use of batches that an export tells apart, where one may have been asked for through the gateway. A batch
/// is asked for in one exchange, which tells no usage, and its answers are read in others, as often as somebody likes.
pub const BATCH: &str =
    "sums of batches, whose use the gateway does not book: hold them against the provider's list of batches";

/// What an export tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Sums.
    pub buckets: Vec<Bucket>,
    /// Sums of batches alone.
    pub batches: Vec<Bucket>,
    /// Calls.
    pub calls: Vec<Call>,
    /// The kinds of OpenAI's usage that it tells of; empty: no matter.
    pub kinds: BTreeSet<&'static str>,
    /// What it holds and nothing is compared with, counted.
    pub left_out: BTreeMap<String, u64>,
}

impl Told {
    /// Counts something that nothing is compared with.
    fn leave_out(&mut self, what: impl Into<String>) {
        *self.left_out.entry(what.into()).or_default() += 1;
    }

    /// Adds a sum; one of batches where it is of any.
    fn bucket(&mut self, bucket: Bucket, is_batch: bool) {
        if !is_batch {
            self.buckets.push(bucket);
        } else if bucket.counts.is_any() {
            self.batches.push(bucket);
        }
    }
}

/// An export that was read.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its form.
    pub format: Format,
    /// The configured provider that it is about; absent: every one of the dialect.
    pub provider: Option<String>,
    /// The file.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: Sha256Hex,
    /// What it tells.
    pub told: Told,
}

/// The most calls and buckets of one export: a bound on memory.
const MOST_ROWS: usize = 20_000_000;

impl Export {
    /// Reads `FORMAT[@PROVIDER]=FILE`.
    ///
    /// # Errors
    /// Another form, or a file that is not of the format: with file, line, key, value and the wanted form.
    pub fn open(typed: &str) -> anyhow::Result<Self> {
        let form = || format!("`{typed}` is no export: wanted `FORMAT=FILE` or `FORMAT@PROVIDER=FILE`");
        let (what, file) = typed.split_once('=').with_context(form)?;
        let (format, provider) = match what.split_once('@') {
            Some((_, "")) => bail!("{}", form()),
            Some((format, provider)) => (format, Some(provider.to_owned())),
            None => (what, None),
        };
        let format = Format::parse(format)?;
        let path = PathBuf::from(file);
        let input = Input::open(&path)?;
        let told = Self::read(format, &input)?;
        if told.buckets.len().max(told.calls.len()) > MOST_ROWS {
            bail!("`{file}` has more than {MOST_ROWS} rows: give it in parts, one run each");
        }
        if told.buckets.is_empty() && told.calls.is_empty() {
            bail!("`{file}` tells nothing: no rows of {} in it", format.as_str());
        }
        Ok(Self { format, provider, file: file.to_owned(), sha256: input.sha256, told })
    }

    fn read(format: Format, input: &Input) -> anyhow::Result<Told> {
        let mut told = Told::default();
        let read = match format {
            Format::OpenaiUsage => openai::usage(input, &mut told),
            Format::OpenaiCosts => openai::costs(input, &mut told),
            Format::AnthropicUsage => anthropic::usage(input, &mut told),
            Format::AnthropicCost => anthropic::cost(input, &mut told),
            Format::BedrockLog => bedrock::log(input, &mut told),
            Format::AzureLog => azure::log(input, &mut told),
            Format::VertexLog => vertex::log(input, &mut told),
            Format::AwsCur => cur::report(input, &mut told),
        };
        match read {
            Ok(()) => Ok(told),
            Err(problem) => bail!("{}", problem.in_file(&input.name)),
        }
    }

    /// `openai-usage` or `openai-usage@PROVIDER`.
    pub fn name(&self) -> String {
        match &self.provider {
            Some(provider) => format!("{}@{provider}", self.format.as_str()),
            None => self.format.as_str().to_owned(),
        }
    }

    /// Whether it is about exchanges of a provider and dialect.
    pub fn is_about(&self, provider: &str, dialect: &str) -> bool {
        match &self.provider {
            Some(named) => named == provider,
            None => self.format.is_about(dialect),
        }
    }
}

#[cfg(test)]
mod tests;
