//! What a provider's error means for those who would ask another one: too much for this model, refused by a filter, or no
//! credit left. Told by the error's code where the dialect has one, else by its words.

use crate::facts::{Gathered, ProviderError};
use crate::operation::Dialect;

/// The most of an error's body that is read.
pub const MAX_ERROR: usize = 64 << 10;

/// What an error means that another target may not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The request is longer than the model takes.
    ContextWindow,
    /// A filter of the provider refused what was asked.
    ContentFilter,
    /// The account has nothing left to spend.
    Quota,
}

impl FailureClass {
    /// The name in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContextWindow => "context_window",
            Self::ContentFilter => "content_filter",
            Self::Quota => "quota",
        }
    }
}

/// Codes and types, in lower case, that say it by themselves.
const CODES: &[(&str, FailureClass)] = &[
    // OpenAI and Azure, and most that are compatible.
    ("context_length_exceeded", FailureClass::ContextWindow),
    ("string_above_max_length", FailureClass::ContextWindow),
    ("content_filter", FailureClass::ContentFilter),
    ("content_policy_violation", FailureClass::ContentFilter),
    ("moderation_blocked", FailureClass::ContentFilter),
    ("responsibleaipolicyviolation", FailureClass::ContentFilter),
    ("insufficient_quota", FailureClass::Quota),
    ("billing_hard_limit_reached", FailureClass::Quota),
    ("billing_not_active", FailureClass::Quota),
    // Anthropic.
    ("request_too_large", FailureClass::ContextWindow),
    ("billing_error", FailureClass::Quota),
    // Cohere.
    ("too_many_tokens", FailureClass::ContextWindow),
    // AWS.
    ("servicequotaexceededexception", FailureClass::Quota),
    // DeepSeek, Mistral, Together.
    ("insufficient_balance", FailureClass::Quota),
    ("credit_limit", FailureClass::Quota),
];

/// Words of messages, in lower case, where the code says no more than that the request is not good.
const WORDS: &[(&str, FailureClass)] = &[
    ("maximum context length", FailureClass::ContextWindow),
    ("context length exceeded", FailureClass::ContextWindow),
    ("context_length_exceeded", FailureClass::ContextWindow),
    ("exceeds the context window", FailureClass::ContextWindow),
    ("exceed context limit", FailureClass::ContextWindow),
    ("prompt is too long", FailureClass::ContextWindow),
    ("input is too long", FailureClass::ContextWindow),
    ("input length and `max_tokens` exceed", FailureClass::ContextWindow),
    ("input tokens exceeded", FailureClass::ContextWindow),
    ("too many input tokens", FailureClass::ContextWindow),
    ("too many tokens: size limit", FailureClass::ContextWindow),
    ("input token count", FailureClass::ContextWindow),
    ("maximum number of tokens allowed", FailureClass::ContextWindow),
    ("prompt contains", FailureClass::ContextWindow),
    ("content management policy", FailureClass::ContentFilter),
    ("content filtering policy", FailureClass::ContentFilter),
    ("content violates usage guidelines", FailureClass::ContentFilter),
    ("blocked by our safety system", FailureClass::ContentFilter),
    ("rejected as a result of our safety system", FailureClass::ContentFilter),
    ("blocked by content filter", FailureClass::ContentFilter),
    ("safety_check_type", FailureClass::ContentFilter),
    ("credit balance is too low", FailureClass::Quota),
    ("insufficient credits", FailureClass::Quota),
    ("insufficient balance", FailureClass::Quota),
    ("check your plan and billing", FailureClass::Quota),
    ("billing", FailureClass::Quota),
    ("used all available credits", FailureClass::Quota),
    ("reached its spending limit", FailureClass::Quota),
];

/// What the error `body` of a `status` says beyond it; `None` where it says nothing of the kind. `body` is decoded and holds at
/// most [`MAX_ERROR`] bytes of what came.
pub fn failure_class(dialect: Dialect, status: u16, body: &[u8]) -> Option<FailureClass> {
    if status < 400 {
        return None;
    }
    let text = String::from_utf8_lossy(body.get(..body.len().min(MAX_ERROR)).unwrap_or_default());
    let error = ProviderError::read_body(&text).unwrap_or_default();
    of_error(&error, &text).or_else(|| of_status(dialect, status))
}

/// Codes, in lower case, of a request for a model that the account may not use, or that is not there.
const OF_THE_MODEL: &[&str] = &["model_not_found", "model_not_available", "model_access_denied"];

/// Words of messages, in lower case, that say so.
const WORDS_OF_THE_MODEL: &[&str] =
    &["access to model", "access to the model", "access to this model", "access to the requested model"];

/// Whether the error `body` of a `status` is about what was asked, as far as it says so: a filter's word, or a model that is not for
/// this account. Another key of the account would get the same.
pub fn is_of_the_request(dialect: Dialect, status: u16, body: &[u8]) -> bool {
    match failure_class(dialect, status, body) {
        Some(FailureClass::ContextWindow | FailureClass::ContentFilter) => return true,
        Some(FailureClass::Quota) => return false,
        None => {}
    }
    let text =
        String::from_utf8_lossy(body.get(..body.len().min(MAX_ERROR)).unwrap_or_default()).to_lowercase();
    let is_code = |code: &&str| text.contains(&format!("\"{code}\""));
    OF_THE_MODEL.iter().any(is_code) || WORDS_OF_THE_MODEL.iter().any(|words| text.contains(words))
}

/// Why an answer ended, as providers say that a filter of theirs ended it.
const FILTERED: &[&str] = &[
    // OpenAI, Azure and most that are compatible; Bedrock (a guardrail that only masks says so too); Cohere.
    "content_filter",
    "guardrail_intervened",
    "content_filtered",
    "ERROR_TOXIC",
];

/// The same at Gemini and Vertex AI.
pub(crate) const FILTERED_BY_GOOGLE: &[&str] = &[
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "MODEL_ARMOR",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
];

/// Whether an answer is none because a filter took it: the prompt was blocked, or its first choice ended so.
pub(crate) fn is_filtered(gathered: &Gathered) -> bool {
    let first = gathered.finish_reasons.get(&0).map(String::as_str);
    // The Responses API says `incomplete`, and why beside it.
    let closer = gathered.finish_detail.as_deref().filter(|_| first == Some("incomplete"));
    gathered.blocked
        || first
            .into_iter()
            .chain(closer)
            .any(|reason| FILTERED.contains(&reason) || FILTERED_BY_GOOGLE.contains(&reason))
}

/// The same of an error that is an event of a stream.
pub(crate) fn of_event(error: &ProviderError) -> Option<FailureClass> {
    of_error(error, "")
}

fn of_error(error: &ProviderError, text: &str) -> Option<FailureClass> {
    let codes = [&error.code, &error.kind].into_iter().flatten().map(|code| code.to_ascii_lowercase());
    let by_code = codes
        .filter_map(|code| CODES.iter().find(|(known, _)| *known == code).map(|(_, class)| *class))
        .next();
    // Inner codes (Azure's `innererror`, a gateway's `raw`) stand in the text only.
    let lower = text.to_ascii_lowercase();
    let quoted = |code: &str| lower.contains(&format!("\"{code}\""));
    let message = error.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    by_code.or_else(|| CODES.iter().find(|(code, _)| quoted(code)).map(|(_, class)| *class)).or_else(|| {
        let said = if message.is_empty() { &lower } else { &message };
        WORDS
            .iter()
            .find(|(words, class)| match *words {
                "prompt contains" => said.contains(words) && said.contains("tokens"),
                "billing" => said.contains("quota") && said.contains(words),
                // What lies deeper than the message is a gateway's own word for another provider's error.
                _ => said.contains(words) || (*class == FailureClass::ContentFilter && lower.contains(words)),
            })
            .map(|(_, class)| *class)
    })
}

fn of_status(dialect: Dialect, status: u16) -> Option<FailureClass> {
    match (dialect, status) {
        (_, 402) => Some(FailureClass::Quota),
        (Dialect::Anthropic, 413) => Some(FailureClass::ContextWindow),
        _ => None,
    }
}

/// The status that an error would have had as an answer, where it comes in a stream.
pub(crate) fn status_of(error: &ProviderError) -> u16 {
    let code = error.code.as_deref().and_then(|code| code.parse::<u16>().ok());
    if let Some(status) = code.filter(|status| (400..=599).contains(status)) {
        return status;
    }
    let kind = [&error.kind, &error.code].into_iter().flatten().map(|word| word.to_ascii_lowercase());
    for word in kind {
        let says = |words: &[&str]| words.iter().any(|known| word.contains(known));
        if says(&["rate_limit", "throttl", "resource_exhausted", "too_many_requests", "insufficient_quota"]) {
            return 429;
        }
        if says(&["overloaded"]) {
            return 529;
        }
        if says(&["unavailable"]) {
            return 503;
        }
        if says(&["timeout", "timedout", "deadline_exceeded"]) {
            return 504;
        }
        if says(&["authentication", "unauthenticated"]) {
            return 401;
        }
        if says(&["permission", "accessdenied"]) {
            return 403;
        }
        if says(&["not_found", "notfound"]) {
            return 404;
        }
        if says(&["invalid_request", "invalid_argument", "validation", "context_length", "content_filter"]) {
            return 400;
        }
    }
    500
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_about_the_model_or_what_was_said_is_of_the_request_and_not_of_the_key() {
        let cases = [
            (
                r#"{"error":{"message":"Project `p` does not have access to model `gpt-5`","type":"invalid_request_error","code":"model_not_found"}}"#,
                true,
            ),
            (r#"{"message":"You don't have access to the model with the specified model ID."}"#, true),
            (r#"{"error":{"code":"content_policy_violation","message":"x"}}"#, true),
            (
                r#"{"error":{"message":"Your account is not active, please check your billing details","code":"billing_not_active"}}"#,
                false,
            ),
            (
                r#"{"error":{"message":"Country, region, or territory not supported","code":"unsupported_country_region_territory"}}"#,
                false,
            ),
            ("", false),
            ("\u{0}\u{ff}", false),
        ];
        for (body, wanted) in cases {
            assert_eq!(is_of_the_request(Dialect::OpenAi, 403, body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn errors_of_the_providers_mean_what_they_say() {
        use Dialect::{Anthropic, AzureOpenAi, Bedrock, Cohere, Gemini, OpenAi};
        use FailureClass::{ContentFilter, ContextWindow, Quota};
        let cases: &[(Dialect, u16, &str, Option<FailureClass>)] = &[
            (
                OpenAi,
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                Some(ContextWindow),
            ),
            (
                OpenAi,
                429,
                r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                Some(Quota),
            ),
            (
                OpenAi,
                429,
                r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
                None,
            ),
            (
                AzureOpenAi,
                400,
                r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}"#,
                Some(ContentFilter),
            ),
            (
                Anthropic,
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 3333404 tokens > 200000 maximum"},"request_id":"req_011CeCGmMJJGRCp7xgjqapmJ"}"#,
                Some(ContextWindow),
            ),
            (
                Anthropic,
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#,
                Some(Quota),
            ),
            (
                Anthropic,
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#,
                Some(ContentFilter),
            ),
            (
                Anthropic,
                413,
                r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
                Some(ContextWindow),
            ),
            (
                Anthropic,
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: roles must alternate"}}"#,
                None,
            ),
            (
                Gemini,
                429,
                r#"{ "error": { "code": 429, "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.", "status": "RESOURCE_EXHAUSTED" } }"#,
                Some(Quota),
            ),
            (
                Gemini,
                400,
                r#"{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#,
                Some(ContextWindow),
            ),
            (
                Bedrock,
                400,
                r#"{"message":"The model returned the following errors: Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input to try again."}"#,
                Some(ContextWindow),
            ),
            (Bedrock, 400, r#"{"message":"Input is too long for requested model."}"#, Some(ContextWindow)),
            (
                Cohere,
                400,
                r#"{"error_type":"TOO_MANY_TOKENS","id":"c167e04b","message":"too many tokens: size limit exceeded by 25836 tokens. Try using shorter or fewer inputs. The limit for this model is 288000 tokens."}"#,
                Some(ContextWindow),
            ),
            (
                OpenAi,
                400,
                r#"{"object":"error","message":"Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length","type":"invalid_request_error","param":null,"code":"3051"}"#,
                Some(ContextWindow),
            ),
            (
                OpenAi,
                403,
                r#"{"error":{"code":403,"message":"Provider returned error","metadata":{"provider_name":"xAI","raw":"{\"error\":\"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_DATA_LEAKAGE\"}"}}}"#,
                Some(ContentFilter),
            ),
            (
                OpenAi,
                400,
                r#"{"error":{"message":"This endpoint's maximum context length is 200000 tokens. However, you requested about 2500021 tokens.","code":400}}"#,
                Some(ContextWindow),
            ),
            (
                OpenAi,
                402,
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
                Some(Quota),
            ),
            (OpenAi, 402, "", Some(Quota)),
            (OpenAi, 500, "oops", None),
            (OpenAi, 200, r#"{"error":{"code":"insufficient_quota"}}"#, None),
        ];
        for (dialect, status, body, wanted) in cases {
            assert_eq!(failure_class(*dialect, *status, body.as_bytes()), *wanted, "{body}");
        }
    }

    #[test]
    fn an_answer_that_a_filter_ended_is_none() {
        let ended = |reason: &str| {
            let mut gathered = Gathered::default();
            gathered.finish_reasons.insert(0, reason.to_owned());
            is_filtered(&gathered)
        };
        for reason in ["content_filter", "guardrail_intervened", "SAFETY", "RECITATION", "ESCALATION"] {
            assert!(ended(reason), "{reason}");
        }
        for reason in ["stop", "STOP", "MAX_TOKENS", "OTHER"] {
            assert!(!ended(reason), "{reason}");
        }
    }

    #[test]
    fn an_error_in_a_stream_has_the_status_that_it_would_have_had() {
        let read = |text: &str| status_of(&ProviderError::read(text).unwrap());
        assert_eq!(read(r#"{"type":"overloaded_error","message":"Overloaded"}"#), 529);
        assert_eq!(read(r#"{"type":"rate_limit_error","message":"m"}"#), 429);
        assert_eq!(read(r#"{"message":"m","type":"server_error","code":null}"#), 500);
        assert_eq!(read(r#"{"message":"m","type":"invalid_request_error","code":"bad"}"#), 400);
        assert_eq!(read(r#"{"code":503,"message":"m","status":"UNAVAILABLE"}"#), 503);
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body: Vec<u8>, status in 0u16..700) {
            failure_class(Dialect::OpenAi, status, &body);
        }
    }
}
