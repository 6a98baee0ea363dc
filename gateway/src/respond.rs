//! The one place where a refusal or a failure becomes a status.
//!
//! Every own answer has the shape of the caller's dialect, the code `affidavit_<reason>`, the header
//! `x-affidavit-reason`, and says who can fix it.

use bytes::Bytes;
use dialects::Dialect;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use schemas::promise::Promise;

use crate::relay::Flow;

/// The exchange's id, in every answer.
pub(crate) const EXCHANGE: HeaderName = HeaderName::from_static("x-affidavit-exchange");
/// The promise that the exchange's first record, its intent or refusal, is in the log (FORMAT 17).
pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("x-affidavit-receipt");
/// The promise that its outcome is; a trailer where the answer is streamed.
pub(crate) const OUTCOME_RECEIPT: HeaderName = HeaderName::from_static("x-affidavit-receipt-outcome");
/// Why the gateway answered itself.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-affidavit-reason");
/// Tells the SDKs not to try again.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why the gateway answered itself, or cut an answer: a closed set, in logs, metrics and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    MissingKey,
    UnknownKey,
    RevokedKey,
    ExpiredKey,
    UnknownRoute,
    PolicyDenied,
    BodyTooLarge,
    UnknownCoding,
    UpgradeRefused,
    MalformedPath,
    MalformedBody,
    BodyTimeout,
    ClientAbort,
    Overloaded,
    /// Evidence cannot be written, with the ledger's own word for it (CA-7).
    Evidence(evidence::Reason),
    Draining,
    ProviderUnreachable,
    ProviderTimeout,
    ProviderAborted,
}

impl Reason {
    /// The name in the code `affidavit_<reason>`, in records and in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::ExpiredKey => "expired_key",
            Self::UnknownRoute => "unknown_route",
            Self::PolicyDenied => "policy_denied",
            Self::BodyTooLarge => "body_too_large",
            Self::UnknownCoding => "unknown_coding",
            Self::UpgradeRefused => "upgrade_refused",
            Self::MalformedPath => "malformed_path",
            Self::MalformedBody => "malformed_body",
            Self::BodyTimeout => "body_timeout",
            Self::ClientAbort => "client_abort",
            Self::Overloaded => "overloaded",
            Self::Evidence(reason) => reason.as_str(),
            Self::Draining => "draining",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::ProviderTimeout => "provider_timeout",
            Self::ProviderAborted => "provider_aborted",
        }
    }

    /// The status that goes with it. 499 stands in a record for a caller that left before any answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::MissingKey | Self::UnknownKey | Self::RevokedKey | Self::ExpiredKey => 401,
            Self::UnknownRoute => 404,
            Self::PolicyDenied => 403,
            Self::BodyTooLarge => 413,
            Self::UnknownCoding => 415,
            Self::UpgradeRefused => 501,
            Self::MalformedPath | Self::MalformedBody => 400,
            Self::BodyTimeout => 408,
            Self::ClientAbort => 499,
            Self::Overloaded | Self::Evidence(_) | Self::Draining => 503,
            Self::ProviderUnreachable | Self::ProviderAborted => 502,
            Self::ProviderTimeout => 504,
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
            Self::Evidence(_) => Some(5),
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
            Self::BodyTimeout => "The request body stopped coming. The caller can send it again.",
            Self::ClientAbort => "The caller left.",
            Self::Overloaded => {
                "The gateway has no place or memory for another exchange. Try again shortly; the gateway's operator \
                 can raise `limits`."
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
        }
    }
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

    const ALL: [Reason; 26] = [
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
        Reason::BodyTimeout,
        Reason::ClientAbort,
        Reason::Overloaded,
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
