//! What an answer says about itself, gathered while it passes.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use schemas::Identifier;
use schemas::record::{Answered, MAX_LIST, Usage};

use crate::bedrock::Beside;
use crate::coding::CodingError;
use crate::event_stream::FrameError;
use crate::identifier;
use crate::json::{self, name, pick, present, scalar};
use crate::said::Said;
use crate::usage::Counts;

/// The facts of one answer. Texts stand as received: [`AnswerFacts::answered`] makes them fit for a leaf (CA-8).
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerFacts {
    /// The model that served.
    pub served_model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// The provider's id of the request (header).
    pub request_id: Option<String>,
    /// Finish reasons by choice; for the Responses API the one `status`.
    pub finish_reasons: BTreeMap<i64, String>,
    /// The closer reason: stop sequence, incomplete details, native finish reason.
    pub finish_detail: Option<String>,
    /// Calls of the caller's tools; absent where the answer cannot hold one.
    pub tool_calls: Option<i64>,
    /// Calls of tools that the provider runs itself, where the dialect shows them.
    pub server_tool_calls: Option<i64>,
    /// Names of the called tools, the first 32.
    pub tool_names: Vec<String>,
    /// The error's symbolic name.
    pub error_type: Option<String>,
    /// The error's code.
    pub error_code: Option<String>,
    /// The error's text: for content only, never for a leaf.
    pub error_message: Option<String>,
    /// The service tier that served, with a word behind a `/` for what else changes the price: `standard/us`.
    pub service_tier: Option<String>,
    /// `Retry-After` in whole seconds, rounded up.
    pub retry_after_s: Option<i64>,
    /// Tokens.
    pub usage: Usage,
    /// Input that is charged, where the provider tells it apart (Cohere).
    pub billed_input: Option<i64>,
    /// Output that is charged, likewise.
    pub billed_output: Option<i64>,
    /// Searches that are charged (reranking).
    pub search_units: Option<i64>,
    /// An earlier usage of the stream held a larger count than the one given.
    pub usage_regressed: bool,
    /// Runs of other models that the answer reports and `usage` leaves out (Anthropic's advisor).
    pub other_model_runs: i64,
    /// Input and output that the transport counted beside the body (Bedrock's InvokeModel), where it did.
    pub transport_tokens: [Option<i64>; 2],
    /// The rate-limit headers, by the names of [`crate::ratelimit`].
    pub rate_limits: BTreeMap<String, i64>,
    /// Why facts may be missing although the bytes passed.
    pub unread: Option<Unread>,
    /// Its words, where it has no counts and they were to be kept.
    pub said: Option<Said>,
}

/// Why an answer was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Its content coding could not be undone.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// An event of its stream was over the bound.
    #[error("an event of the stream is over {limit} bytes")]
    EventTooLarge {
        /// The bound.
        limit: usize,
    },
    /// A frame of its event stream is damaged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It was over the bound.
    #[error("the body is over {limit} bytes")]
    BodyTooLarge {
        /// The bound.
        limit: usize,
    },
}

impl Unread {
    /// A stable short name, for records and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Coding(CodingError::Unknown(_)) => "coding_unknown",
            Self::Coding(CodingError::TooLarge { .. }) => "decoded_too_large",
            Self::Coding(CodingError::Corrupt(_)) => "coding_corrupt",
            Self::Coding(CodingError::Truncated(_)) => "coding_truncated",
            Self::EventTooLarge { .. } => "event_too_large",
            Self::Frame(error) => error.name(),
            Self::BodyTooLarge { .. } => "body_too_large",
        }
    }
}

impl AnswerFacts {
    /// The finish reason of the first choice.
    pub fn finish_reason(&self) -> Option<&str> {
        self.finish_reasons.get(&0).map(String::as_str)
    }

    /// The facts as a leaf may hold them: text outside the identifier pattern becomes its keyed pseudonym.
    pub fn answered(&self, pseudonym: &dyn Fn(&str) -> String) -> Answered {
        let identifier = |text: &Option<String>| text.as_deref().map(|text| identifier(text, pseudonym));
        let list = |texts: &mut dyn Iterator<Item = &String>| -> Vec<Identifier> {
            texts.take(MAX_LIST).map(|text| crate::identifier(text, pseudonym)).collect()
        };
        Answered {
            served_model: identifier(&self.served_model),
            response_id: identifier(&self.response_id),
            request_id: identifier(&self.request_id),
            finish_reasons: list(&mut self.finish_reasons.values()),
            finish_detail: identifier(&self.finish_detail),
            tool_calls: self.tool_calls,
            server_tool_calls: self.server_tool_calls,
            tool_names: list(&mut self.tool_names.iter()),
            error_type: identifier(&self.error_type),
            error_code: identifier(&self.error_code),
            service_tier: identifier(&self.service_tier),
            retry_after_s: self.retry_after_s,
        }
    }
}

/// The name of an error that AWS puts into its head, as `ValidationException:http://internal.amazon.com/...`: also on paths
/// where its body has another provider's shape, or no name.
pub(crate) fn error_name(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-amzn-errortype")?.to_str().ok()?.trim();
    let name = text.split(':').next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The provider's id of a request, from its answer's headers. Azure's first: it sends `x-request-id` too, and only by
/// `apim-request-id` do its own logs (`correlationId`) know the call.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["apim-request-id", "x-request-id", "request-id", "x-ms-request-id", "x-amzn-requestid"]
        .iter()
        .find_map(|name| headers.get(*name))
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// `Retry-After` in seconds, rounded up; a date is not read.
pub(crate) fn retry_after_s(headers: &HeaderMap) -> Option<i64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok().map(i64::from);
    number("retry-after").or_else(|| number("retry-after-ms").map(|ms| (ms + 999) / 1000))
}

/// What is known so far, filled by the dialects.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) served_model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) finish_reasons: BTreeMap<i64, String>,
    pub(crate) finish_detail: Option<String>,
    pub(crate) calls: Calls,
    pub(crate) server_calls: Option<i64>,
    pub(crate) error: Option<ProviderError>,
    pub(crate) service_tier: Option<String>,
    /// Anthropic's `usage.speed`.
    pub(crate) speed: Option<String>,
    /// Anthropic's `usage.inference_geo`.
    pub(crate) inference_geo: Option<String>,
    pub(crate) counts: Option<Counts>,
    /// The largest of each count that an earlier usage object held.
    pub(crate) peak: Counts,
    /// What the head of Bedrock's answer says beside the body.
    pub(crate) beside: Beside,
    /// Model output was seen.
    pub(crate) output: bool,
    /// The prompt was blocked: there is no output.
    pub(crate) blocked: bool,
    /// An event was seen that is held.
    pub(crate) closing: bool,
    /// The counts are the provider's last word, even if the stream is cut behind them.
    pub(crate) final_usage: bool,
    /// Its words, where they are to be kept.
    pub(crate) said: Option<Said>,
}

impl Gathered {
    pub(crate) fn finish(&mut self, index: i64, reason: Option<&str>) {
        if let Some(reason) = scalar(reason).filter(|r| !r.is_empty())
            && (self.finish_reasons.len() < MAX_LIST || self.finish_reasons.contains_key(&index))
        {
            self.finish_reasons.insert(index, reason);
        }
    }

    /// Puts a whole usage object in the place of an earlier one: running values are not added up.
    pub(crate) fn replace_counts(&mut self, counts: Option<Counts>) {
        if counts.is_some() {
            self.peak.raise(self.counts.as_ref());
            self.counts = counts;
        }
    }
}

/// Calls of the caller's tools.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Absent until the answer showed that it can hold calls.
    pub(crate) count: Option<i64>,
    seen: BTreeSet<(i64, i64)>,
    pub(crate) names: Vec<String>,
}

impl Calls {
    /// The answer can hold calls.
    pub(crate) fn possible(&mut self) {
        self.count.get_or_insert(0);
    }
    /// One more call.
    pub(crate) fn add(&mut self, tool: Option<String>) {
        self.count = Some(self.count.unwrap_or(0).saturating_add(1));
        self.name(tool);
    }
    pub(crate) fn name(&mut self, tool: Option<String>) {
        if let Some(tool) = tool
            && self.names.len() < MAX_LIST
        {
            self.names.push(tool);
        }
    }
    /// A piece of the call at `place` of a choice; counts it once. At most 4,096 places are told apart.
    pub(crate) fn piece(&mut self, choice: i64, place: i64, tool: Option<String>) {
        if self.seen.contains(&(choice, place)) || self.seen.len() >= 4096 {
            return;
        }
        self.seen.insert((choice, place));
        self.add(tool);
    }
}

/// An error that an answer reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProviderError {
    pub(crate) kind: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

impl ProviderError {
    /// Whether it has a name, a code or a text.
    pub(crate) fn says_something(&self) -> bool {
        let message = self.message.as_ref().is_some_and(|message| !message.is_empty());
        self.kind.is_some() || self.code.is_some() || message
    }

    /// Reads the value of a member `error`, or a whole body that is an error itself.
    ///
    /// The type is `type`, else Google's `status`, else a code that is not a number.
    pub(crate) fn read(error: &str) -> Option<Self> {
        if let Some(message) = json::string(error) {
            return Some(Self { message: Some(message.into_owned()), ..Self::default() });
        }
        let [kind, status, code, message] = pick(error, &["type", "status", "code", "message"])?;
        let code = scalar(code).filter(|c| !c.is_empty());
        let kind = name(kind).or_else(|| name(status)).or_else(|| symbolic(code.as_deref()));
        let message = present(message).and_then(|m| scalar(Some(m)));
        let read = Self { kind, code, message };
        (read != Self::default()).then_some(read)
    }

    /// Reads a body of which nothing but the status says that it is an error.
    pub(crate) fn read_body(body: &str) -> Option<Self> {
        let first = body.trim_start();
        if first.starts_with('[') {
            let mut found = None;
            json::each(first, &mut |element| {
                // Not an array in an array: how deep the nesting goes is the provider's word.
                if found.is_none() && !element.starts_with('[') {
                    found = Self::read_body(element);
                }
            });
            return found;
        }
        let [error, code, detail] = pick(body, &["error", "code", "detail"])?;
        if let Some(error) = present(error) {
            let mut read = Self::read(error)?;
            if read.code.is_none() && read.kind.is_none() {
                read.code = scalar(code).filter(|c| !c.is_empty());
                read.kind = symbolic(read.code.as_deref());
            }
            return Some(read);
        }
        if let Some(detail) = detail.and_then(json::string) {
            return Some(Self { message: Some(detail.into_owned()), ..Self::default() });
        }
        Self::read(body)
    }
}

/// A code that is a name, not a number.
fn symbolic(code: Option<&str>) -> Option<String> {
    code.filter(|code| {
        !code.is_empty() && !code.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'.')
    })
    .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deeply_nested_error_is_not_followed() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(ProviderError::read_body(&deep), None);
        let first = ProviderError::read_body(r#"[{"error":{"code":7,"message":"m"}}]"#).unwrap();
        assert_eq!((first.code.as_deref(), first.message.as_deref()), (Some("7"), Some("m")));
    }

    #[test]
    fn azures_calls_are_known_by_the_id_that_its_own_logs_have() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, id)| (name.parse().unwrap(), id.parse().unwrap())).collect()
        };
        let both = headers(&[("x-request-id", "other"), ("apim-request-id", "correlation")]);
        assert_eq!(request_id(&both).as_deref(), Some("correlation"));
        assert_eq!(request_id(&headers(&[("x-request-id", "req_1")])).as_deref(), Some("req_1"));
        assert_eq!(request_id(&headers(&[("request-id", "req_2")])).as_deref(), Some("req_2"));
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
