//! The way to a provider: which target is asked, what is sent to it, and what happens where it fails.
//!
//! - [`original`]: the request as it came, and what of it is sent to a target, made anew for each
//! - [`target`], [`alias`]: a provider that a route may ask, and what is changed for it
//! - [`spread`]: what a request says of the target that it should get; [`crate::balance`] chooses
//! - [`attempts`], [`failure`], [`budget`], [`retry_after`]: the next one where it fails before the caller got anything
//! - [`headers`], [`forward`], [`upload`], [`sign`], [`tokens`]: what goes on, under which credential, and from where
//! - [`paths`], [`pool`], [`proxy`]: to which path, over which connections

pub(crate) mod alias;
pub(crate) mod attempts;
pub(crate) mod budget;
mod failure;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod original;
mod paths;
pub(crate) mod pool;
mod proxy;
pub(crate) mod retry_after;
pub(crate) mod sign;
pub(crate) mod spread;
pub(crate) mod target;
mod tokens;
pub(crate) mod upload;

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;

use crate::respond::Reason;
use forward::Forwarded;
use pool::Provider;
use sign::Going;
use upload::Upload;

/// What is sent to a provider.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    /// Filtered already; the provider's credential is put in here.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Upload,
    /// SHA-256 of the body, where the provider's requests are signed.
    pub(crate) payload: Option<[u8; 32]>,
    /// The caller's own credential, where that goes on instead of the gateway's.
    pub(crate) forwarded: Option<Forwarded>,
    /// Whether the answer must come uncoded, so that events can be taken out of it.
    pub(crate) uncoded: bool,
}

/// Why no answer came, and the text for the exchange's content (never for a caller).
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

/// Sends a request and waits for the head of its answer.
///
/// Call it only when the exchange's intent is durable (CA-1). A request of which no byte was sent on a pooled
/// connection that had died is sent again on another: it is the same attempt.
///
/// # Errors
/// Why no answer came.
pub(crate) async fn send(
    provider: &Provider,
    outgoing: Outgoing,
    first_byte: Duration,
) -> Result<Response<Incoming>, NoAnswer> {
    let Outgoing { method, target, mut headers, body, payload, forwarded, uncoded } = outgoing;
    if uncoded {
        headers.remove(ACCEPT_ENCODING);
    }
    match (&forwarded, &provider.credential) {
        // Where it is for another provider nothing goes: neither it nor what the caller did not ask with.
        (Some(forwarded), _) => forwarded.put(&provider.name, &mut headers),
        (None, Some((name, value))) => {
            headers.insert(name.clone(), value.clone());
        }
        (None, None) => {}
    }
    if let (Some(signing), Some(payload)) = (&provider.signing, payload) {
        let (scheme, authority) = (&provider.scheme, &provider.authority);
        let going = Going { method: &method, scheme, authority, target: &target, payload };
        signing
            .sign(&going, &mut headers, jiff::Timestamp::now())
            .map_err(|error| NoAnswer { reason: Reason::ProviderUnreachable, text: error.to_string() })?;
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(provider.scheme.clone());
    parts.authority = Some(provider.authority.clone());
    parts.path_and_query = Some(target);
    let uri = Uri::from_parts(parts)
        .map_err(|error| NoAnswer { reason: Reason::ProviderUnreachable, text: error.to_string() })?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    match tokio::time::timeout(first_byte, provider.request(request, forwarded.is_some())).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let reason =
                if error.is_connect() { Reason::ProviderUnreachable } else { Reason::ProviderAborted };
            Err(NoAnswer { reason, text: chain(&error) })
        }
        Err(_) => Err(NoAnswer {
            reason: Reason::ProviderTimeout,
            text: format!("no answer within {} s", first_byte.as_secs_f64()),
        }),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
