//! Errors of the dialects that say `error: {type, code, message}`.

use super::form::{Failure, FailureKind};
use crate::facts::ProviderError;

/// The most that one event of a stream may hold.
pub(crate) const EVENT_BYTES: usize = 16 << 20;

/// What a caller is told where a provider's stream cannot be read on.
pub(crate) fn broken(message: &str) -> Failure {
    Failure { status: 502, kind: FailureKind::Api, code: None, message: message.to_owned() }
}

/// What is said of an event over the bound.
pub(crate) fn too_large() -> Failure {
    broken("an event of the provider's stream is too large")
}

/// Reads the body of an error.
pub(crate) fn read(status: u16, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let error = ProviderError::read_body(&text).unwrap_or_default();
    of(Some(status), error)
}

/// Reads the value of the key `error` of an event.
pub(crate) fn event(error: &str) -> Failure {
    of(None, ProviderError::read(error).unwrap_or_default())
}

/// The kind that a status says; that of the name, where there is no status or it says only whose fault it is.
fn of(status: Option<u16>, error: ProviderError) -> Failure {
    let named = error.kind.as_deref().and_then(kind).or_else(|| error.code.as_deref().and_then(kind));
    let told = status.map(FailureKind::of_status);
    let vague = |told: &FailureKind| matches!(told, FailureKind::InvalidRequest | FailureKind::Api);
    let kind = told.filter(|told| !vague(told)).or(named).or(told).unwrap_or(FailureKind::Api);
    Failure {
        status: status.unwrap_or_else(|| kind.status()),
        kind,
        code: error.code.or(error.kind),
        message: error.message.unwrap_or_else(|| "the provider gave no reason".to_owned()),
    }
}

fn kind(name: &str) -> Option<FailureKind> {
    Some(match name {
        "invalid_request_error" => FailureKind::InvalidRequest,
        "authentication_error" | "invalid_api_key" => FailureKind::Authentication,
        "billing_error" => FailureKind::Billing,
        "permission_error" => FailureKind::Permission,
        "not_found_error" | "model_not_found" => FailureKind::NotFound,
        "request_too_large" => FailureKind::TooLarge,
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => FailureKind::RateLimit,
        "overloaded_error" => FailureKind::Overloaded,
        "timeout_error" => FailureKind::Timeout,
        "api_error" | "server_error" => FailureKind::Api,
        _ => return None,
    })
}
