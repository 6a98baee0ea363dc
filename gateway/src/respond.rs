//! The one place where a refusal or a failure becomes a status.
//!
//! Every own answer has the shape of the caller's dialect, the code `affidavit_<reason>`, the header
//! `x-affidavit-reason`, and says who can fix it.

use std::borrow::Cow;

use bytes::Bytes;
use dialects::Dialect;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use schemas::promise::Promise;

use crate::config::Fact;
use crate::identity::TokenFault;
use crate::relay::Flow;
use crate::route::Route;

/// What only the operator can give.
macro_rules! operators_fact {
    ($name:literal) => {
        concat!(
            "This route requires the fact `",
            $name,
            "`. The gateway's operator can give it with the key (`gateway keys issue`), the issuer's `claims` or the \
             route's `attributes`, or name a header in which callers may (`asserted_headers`)."
        )
    };
}

/// The exchange's id, in every answer.
pub(crate) const EXCHANGE: HeaderName = HeaderName::from_static("x-affidavit-exchange");
/// The promise that the exchange's first record, its intent or refusal, is in the log (FORMAT 17).
pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("x-affidavit-receipt");
/// The promise that its outcome is; a trailer where the answer is streamed.
pub(crate) const OUTCOME_RECEIPT: HeaderName = HeaderName::from_static("x-affidavit-receipt-outcome");
/// How long the gateway and the provider took.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Why the gateway answered itself.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-affidavit-reason");
/// What of a request has no translation.
pub(crate) const UNTRANSLATABLE: HeaderName = HeaderName::from_static("x-affidavit-untranslatable");
/// Tells the SDKs not to try again.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why the gateway answered itself, or cut an answer: a closed set, in logs, metrics and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    MissingKey,
    UnknownKey,
    RevokedKey,
    ExpiredKey,
    /// What is wrong with a token.
    Token(TokenFault),
    /// The caller's own credential for the provider is not there.
    MissingCredential,
    UnknownRoute,
    PolicyDenied,
    /// Outside of what the key may be used for.
    NotAllowed,
    /// A fact that the route requires.
    MissingFact(Fact),
    BodyTooLarge,
    UnknownCoding,
    UpgradeRefused,
    MalformedPath,
    MalformedBody,
    /// The provider's dialect has no word for something that matters: a word of a closed set says what.
    Untranslatable(&'static str),
    BodyTimeout,
    ClientAbort,
    Overloaded,
    /// A rule of `quotas` has no room.
    QuotaExceeded,
    /// The store of `quotas` does not answer.
    QuotaUnavailable,
    /// Evidence cannot be written, with the ledger's own word for it (CA-7).
    Evidence(evidence::Reason),
    Draining,
    ProviderUnreachable,
    ProviderTimeout,
    ProviderAborted,
    /// The answer is larger than its bound.
    AnswerTooLarge,
    /// The answer lasts longer than its bound.
    AnswerTooLong,
}

impl Reason {
    /// The name in the code `affidavit_<reason>`, in records and in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::ExpiredKey => "expired_key",
            Self::Token(fault) => token_name(fault),
            Self::MissingCredential => "missing_credential",
            Self::UnknownRoute => "unknown_route",
            Self::PolicyDenied => "policy_denied",
            Self::NotAllowed => "not_allowed",
            Self::MissingFact(_) => "missing_fact",
            Self::BodyTooLarge => "body_too_large",
            Self::UnknownCoding => "unknown_coding",
            Self::UpgradeRefused => "upgrade_refused",
            Self::MalformedPath => "malformed_path",
            Self::MalformedBody => "malformed_body",
            Self::Untranslatable(_) => "untranslatable",
            Self::BodyTimeout => "body_timeout",
            Self::ClientAbort => "client_abort",
            Self::Overloaded => "overloaded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::QuotaUnavailable => "quota_unavailable",
            Self::Evidence(reason) => reason.as_str(),
            Self::Draining => "draining",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::ProviderTimeout => "provider_timeout",
            Self::ProviderAborted => "provider_aborted",
            Self::AnswerTooLarge => "answer_too_large",
            Self::AnswerTooLong => "answer_too_long",
        }
    }

    /// The status that goes with it. 499 stands in a record for a caller that left before any answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Token(TokenFault::Unavailable) => 503,
            Self::MissingKey
            | Self::UnknownKey
            | Self::RevokedKey
            | Self::ExpiredKey
            | Self::Token(_)
            | Self::MissingCredential => 401,
            Self::UnknownRoute => 404,
            Self::PolicyDenied | Self::NotAllowed => 403,
            Self::BodyTooLarge => 413,
            Self::UnknownCoding => 415,
            Self::UpgradeRefused => 501,
            Self::MalformedPath | Self::MalformedBody | Self::MissingFact(_) | Self::Untranslatable(_) => 400,
            Self::BodyTimeout => 408,
            Self::ClientAbort => 499,
            Self::QuotaExceeded => 429,
            Self::Overloaded | Self::QuotaUnavailable | Self::Evidence(_) | Self::Draining => 503,
            Self::ProviderUnreachable | Self::ProviderAborted | Self::AnswerTooLarge => 502,
            Self::ProviderTimeout | Self::AnswerTooLong => 504,
        }
    }

    /// Whether a repeat of the same request is useless: the SDKs are told so.
    fn is_final(self) -> bool {
        matches!(self.status(), 400 | 401 | 403 | 404 | 413 | 415 | 501)
    }

    /// Seconds after which a repeat may help.
    fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::Overloaded => Some(1),
            Self::Evidence(_) | Self::QuotaUnavailable | Self::Token(TokenFault::Unavailable) => Some(5),
            Self::Draining => Some(1),
            _ => None,
        }
    }

    /// What happened and who can fix it. Fixed text: nothing from outside is in it.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::MissingKey => {
                "No gateway key was sent. The caller can fix this: send the key issued by the gateway's operator \
                 as the API key."
            }
            Self::UnknownKey => {
                "The gateway key is not known. The caller can fix this with a key issued by the gateway's operator; \
                 a provider's own key is not accepted here."
            }
            Self::RevokedKey => "The gateway key was revoked. The gateway's operator can issue another.",
            Self::ExpiredKey => "The gateway key has expired. The gateway's operator can issue another.",
            Self::Token(fault) => token_message(fault),
            Self::MissingCredential => {
                "No credential of the provider was sent, and this route sends the caller's own. The caller can fix this: \
                 the provider's key as its SDK sends it, and the gateway key in `x-affidavit-key`."
            }
            Self::NotAllowed => {
                "The gateway key may not be used for this route, provider or model. The gateway's operator can change \
                 what it may be used for (`allow`)."
            }
            Self::MissingFact(fact) => missing_fact(fact),
            Self::UnknownRoute => {
                "No route of the gateway has this path. The caller can fix the base URL; the gateway's operator can \
                 add a route."
            }
            Self::PolicyDenied => {
                "A policy of the gateway refuses this request. The gateway's operator can say which rule, by the \
                 exchange id, and can change it."
            }
            Self::BodyTooLarge => {
                "The request body is larger than the gateway's limit. The caller can send less; the gateway's \
                 operator can raise `limits.body`."
            }
            Self::UnknownCoding => {
                "The request body has a content coding that the gateway cannot read. The caller can fix this: \
                 gzip, deflate, br, zstd or none."
            }
            Self::UpgradeRefused => {
                "Protocol upgrades (WebSocket) are not relayed. The caller can use the API over HTTP requests."
            }
            Self::MalformedPath => {
                "The path has dot segments. The caller can fix this by sending the resolved path."
            }
            Self::MalformedBody => {
                "The request body could not be read as what its type says, and a policy must read it. The caller \
                 can fix this."
            }
            Self::Untranslatable(_) => {
                "The provider behind this route speaks another dialect, which has no word for something that the \
                 request says; the header `x-affidavit-untranslatable` names it. The caller can leave it out; the \
                 gateway's operator can have it dropped (`untranslatable: drop`)."
            }
            Self::BodyTimeout => "The request body stopped coming. The caller can send it again.",
            Self::ClientAbort => "The caller left.",
            Self::Overloaded => {
                "The gateway has no place or memory for another exchange. Try again shortly; the gateway's operator \
                 can raise `limits`."
            }
            Self::QuotaExceeded => {
                "A quota of the gateway has no room for this request. The caller can try again after the time in \
                 `Retry-After`, or ask for less; the gateway's operator can raise the limit."
            }
            Self::QuotaUnavailable => {
                "The gateway cannot count its quotas and therefore sends nothing on. Try again shortly; the \
                 gateway's operator can fix this, see its log."
            }
            Self::Evidence(evidence::Reason::Draining) => Self::Draining.message(),
            Self::Evidence(_) => {
                "The gateway cannot write its evidence and therefore sends nothing on. The gateway's operator can \
                 fix this; see its log and /readyz."
            }
            Self::Draining => "The gateway is shutting down. Try again shortly.",
            Self::ProviderUnreachable => {
                "The provider could not be reached. The gateway's operator can check `providers` and the network."
            }
            Self::ProviderTimeout => {
                "The provider did not answer in time. Try again; the gateway's operator can raise \
                 `limits.first_byte`."
            }
            Self::ProviderAborted => "The provider broke off before a whole answer came. Try again.",
            Self::AnswerTooLarge => {
                "The provider's answer is larger than the gateway's limit. The caller can ask for less; the gateway's \
                 operator can raise `limits.answer`, or the target's `answer`."
            }
            Self::AnswerTooLong => {
                "The provider's answer lasts longer than the gateway's limit. The caller can ask for less; the gateway's \
                 operator can raise `limits.answer_time`, or the target's `answer_time`."
            }
        }
    }
}

/// The names of what is wrong with tokens.
fn token_name(fault: TokenFault) -> &'static str {
    match fault {
        TokenFault::Malformed => "token_malformed",
        TokenFault::TooLarge => "token_too_large",
        TokenFault::Algorithm => "token_algorithm",
        TokenFault::Critical => "token_critical_header",
        TokenFault::Issuer => "token_issuer",
        TokenFault::Audience => "token_audience",
        TokenFault::Kid => "token_kid",
        TokenFault::Signature => "token_signature",
        TokenFault::Expired => "token_expired",
        TokenFault::NotYetValid => "token_not_yet_valid",
        TokenFault::Claims => "token_claims",
        TokenFault::Consumer => "token_consumer",
        TokenFault::Unavailable => "issuer_unavailable",
    }
}

fn token_message(fault: TokenFault) -> &'static str {
    match fault {
        TokenFault::Malformed => {
            "The token is no signed JWT that says who calls. The caller can fix this with a token of a configured issuer."
        }
        TokenFault::TooLarge => {
            "The token is longer than 16 KiB. The issuer's operator can put less into it."
        }
        TokenFault::Algorithm => {
            "The token's signature is of a kind that does not count for its issuer or its key. The gateway's operator \
             can change `algorithms`."
        }
        TokenFault::Critical => {
            "The token has a critical header that the gateway does not know. Its issuer can leave it out."
        }
        TokenFault::Issuer => {
            "The token's issuer is not known. The caller can fix this with a token of another issuer; the gateway's \
             operator can add an issuer."
        }
        TokenFault::Audience => {
            "The token is not for this gateway. The caller can fix this by asking its issuer for the gateway's audience."
        }
        TokenFault::Kid => {
            "The token is signed by a key that its issuer does not show. The caller can fix this with a new token."
        }
        TokenFault::Signature => {
            "The token's signature does not hold. The caller can fix this with a new token."
        }
        TokenFault::Expired => "The token has expired. The caller can fix this with a new token.",
        TokenFault::NotYetValid => {
            "The token does not count yet. The caller can wait; the operators can compare the clocks of issuer and gateway."
        }
        TokenFault::Claims => {
            "The token lacks a claim that must be there, or has it with another value. The issuer's operator can fix this."
        }
        TokenFault::Consumer => {
            "No claim of the token names the caller. The issuer's operator can add it; the gateway's operator can name \
             another in `claims`."
        }
        TokenFault::Unavailable => {
            "The keys of the token's issuer could not be fetched yet. Try again; the gateway's operator can look at its log."
        }
    }
}

/// Who can give a fact that no caller can.
fn missing_fact(fact: Fact) -> &'static str {
    match fact {
        Fact::Subject => {
            "This route requires the fact `subject`, the end user. The caller can fix this in the field of the request \
             that the provider has for it; the gateway's operator can name a header for it (`asserted_headers`)."
        }
        Fact::Team => operators_fact!("team"),
        Fact::Organisation => operators_fact!("organisation"),
        Fact::CostCentre => operators_fact!("cost_centre"),
        Fact::System => operators_fact!("system"),
        Fact::Purpose => operators_fact!("purpose"),
        Fact::DataClass => operators_fact!("data_class"),
    }
}

/// What happened and who can fix it, with the header that the route's configuration names for a missing fact. Nothing from
/// outside is in it.
pub(crate) fn message_on(reason: Reason, route: Option<&Route>) -> Cow<'static, str> {
    let Reason::MissingFact(fact) = reason else { return reason.message().into() };
    let header = route.and_then(|route| route.asserted_headers.get(fact.name()));
    header.map_or_else(
        || reason.message().into(),
        |header| {
            let fact = fact.name();
            format!(
                "This route requires the fact `{fact}`. The caller can fix this: send it in the header `{header}`."
            )
            .into()
        },
    )
}

/// Puts a promise into a head or into trailers, where there is one.
pub(crate) fn promised(headers: &mut HeaderMap, name: HeaderName, promise: Option<&Promise>) {
    if let Some(line) = promise.and_then(|promise| HeaderValue::try_from(promise.to_string()).ok()) {
        headers.insert(name, line);
    }
}

/// The body of an own answer, in the caller's dialect.
pub(crate) fn body(dialect: Dialect, reason: Reason, exchange: Option<&str>) -> Bytes {
    Bytes::from(dialects::own_error(dialect, reason.status(), reason.name(), reason.message(), exchange))
}

/// As [`body`], with another message.
pub(crate) fn body_saying(dialect: Dialect, reason: Reason, exchange: Option<&str>, message: &str) -> Bytes {
    Bytes::from(dialects::own_error(dialect, reason.status(), reason.name(), message, exchange))
}

/// Makes an own answer in the caller's dialect.
pub(crate) fn answer(
    dialect: Dialect,
    reason: Reason,
    exchange: Option<&str>,
    retry_after_s: Option<u64>,
) -> Response<Flow> {
    answer_with(dialect, body(dialect, reason, exchange), reason, exchange, retry_after_s)
}

/// Makes an own answer of a body that was made before.
pub(crate) fn answer_with(
    dialect: Dialect,
    body: Bytes,
    reason: Reason,
    exchange: Option<&str>,
    retry_after_s: Option<u64>,
) -> Response<Flow> {
    let status = reason.status();
    let mut response = Response::new(Flow::whole(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REASON, HeaderValue::from_static(reason.name()));
    if let Reason::Untranslatable(what) = reason {
        headers.insert(UNTRANSLATABLE, HeaderValue::from_static(what));
    }
    if let Some((name, value)) = dialects::own_error_type(dialect, status) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Some(exchange) = exchange.and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert(EXCHANGE, exchange);
    }
    if reason.is_final() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(seconds) = retry_after_s.or_else(|| reason.retry_after_s()) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Reason; 51] = [
        Reason::Token(TokenFault::Malformed),
        Reason::Token(TokenFault::TooLarge),
        Reason::Token(TokenFault::Algorithm),
        Reason::Token(TokenFault::Critical),
        Reason::Token(TokenFault::Issuer),
        Reason::Token(TokenFault::Audience),
        Reason::Token(TokenFault::Kid),
        Reason::Token(TokenFault::Signature),
        Reason::Token(TokenFault::Expired),
        Reason::Token(TokenFault::NotYetValid),
        Reason::Token(TokenFault::Claims),
        Reason::Token(TokenFault::Consumer),
        Reason::Token(TokenFault::Unavailable),
        Reason::MissingCredential,
        Reason::NotAllowed,
        Reason::MissingFact(Fact::Subject),
        Reason::MissingFact(Fact::Team),
        Reason::MissingFact(Fact::Organisation),
        Reason::MissingFact(Fact::CostCentre),
        Reason::MissingFact(Fact::System),
        Reason::MissingFact(Fact::Purpose),
        Reason::MissingFact(Fact::DataClass),
        Reason::MissingKey,
        Reason::UnknownKey,
        Reason::RevokedKey,
        Reason::ExpiredKey,
        Reason::UnknownRoute,
        Reason::PolicyDenied,
        Reason::BodyTooLarge,
        Reason::UnknownCoding,
        Reason::UpgradeRefused,
        Reason::MalformedPath,
        Reason::MalformedBody,
        Reason::Untranslatable("logprobs"),
        Reason::BodyTimeout,
        Reason::ClientAbort,
        Reason::Overloaded,
        Reason::QuotaExceeded,
        Reason::QuotaUnavailable,
        Reason::Draining,
        Reason::ProviderUnreachable,
        Reason::ProviderTimeout,
        Reason::ProviderAborted,
        Reason::Evidence(evidence::Reason::DiskFull),
        Reason::Evidence(evidence::Reason::SpoolFull),
        Reason::Evidence(evidence::Reason::Busy),
        Reason::Evidence(evidence::Reason::Draining),
        Reason::Evidence(evidence::Reason::JournalFailed),
        Reason::Evidence(evidence::Reason::StoreRefused),
        Reason::Evidence(evidence::Reason::SealingFailed),
        Reason::Evidence(evidence::Reason::RecordRefused),
    ];

    #[test]
    fn every_reason_is_an_identifier_and_says_who_can_fix_it() {
        for reason in ALL {
            assert!(schemas::Identifier::new(reason.name()).is_ok(), "{reason:?}");
            assert!(reason.message().ends_with('.'), "{reason:?}");
        }
    }

    #[test]
    fn amazons_sdks_are_told_which_exception_it_is() {
        for reason in ALL {
            let class =
                |dialect| answer(dialect, reason, None, None).headers().get("x-amzn-errortype").cloned();
            assert!(class(Dialect::OpenAi).is_none());
            let wanted = match reason.status() {
                401 | 403 => "AccessDeniedException",
                404 => "ResourceNotFoundException",
                408 => "RequestTimeoutException",
                429 => "ThrottlingException",
                503 => "ServiceUnavailableException",
                504 => "ModelTimeoutException",
                502 => "InternalServerException",
                _ => "ValidationException",
            };
            // 499 stands in records only.
            assert_eq!(class(Dialect::Bedrock).unwrap(), wanted, "{reason:?}");
        }
    }

    #[test]
    fn final_answers_tell_the_sdks_not_to_retry_and_503_says_when() {
        for reason in ALL {
            let response = answer(Dialect::OpenAi, reason, Some("id"), None);
            let headers = response.headers();
            let last = matches!(reason.status(), 400 | 401 | 403 | 404 | 413 | 415 | 501);
            assert_eq!(headers.contains_key(&SHOULD_RETRY), last, "{reason:?}");
            assert_eq!(headers.contains_key(RETRY_AFTER), reason.status() == 503, "{reason:?}");
            assert_eq!(headers.get(&REASON).and_then(|value| value.to_str().ok()), Some(reason.name()));
        }
    }
}
