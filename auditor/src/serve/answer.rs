//! Answers, with the headers that all of them have.

use std::io;
use std::sync::LazyLock;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use sha2::{Digest as _, Sha256};

use super::frame::STYLE;

/// What is sent.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Nothing is loaded, and nothing runs: but the page's own style, known by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    // The element begins with a line feed.
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(format!("\n{STYLE}")));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

const ALWAYS: [(HeaderName, &str); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// An answer with a body of its own.
pub(super) fn with(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page.
pub(super) fn page(status: StatusCode, html: String) -> Response<Body> {
    let body = Full::new(Bytes::from(html)).map_err(|never| match never {}).boxed_unsync();
    with(status, "text/html; charset=utf-8", body)
}

/// Sends a browser to another page of this program.
pub(super) fn see(path: &'static str) -> Response<Body> {
    let mut response = page(StatusCode::SEE_OTHER, String::new());
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(path));
    response
}
