//! POSTs of leaves: 2xx acknowledges, everything else is tried again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use evidence::Stop;
use evidence::tap::{Render, Sink, SinkError, TapItem};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ring::hmac;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use super::wait;
use crate::config::{Secret, TapBody, TapFormat, TapWebhook};

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(20);
/// What is read of an answer, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;
/// The largest number of leaves in one POST.
const MOST: usize = 256;
/// The longest wait that `Retry-After` is believed.
const LONGEST_WAIT_S: u64 = 600;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) typed: TapWebhook,
    pub(super) format: TapFormat,
    pub(super) secret: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) render: Render,
}

/// An address that takes POSTs.
pub(super) struct Webhook {
    settings: Settings,
    runtime: Option<Runtime>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// How many leaves go into one POST: fewer after 413.
    most: usize,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.settings.typed.url).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn new(settings: Settings) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.typed.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&settings.tls))
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { settings, runtime: wait::runtime(), client, most: MOST }
    }

    /// Posts some items of one log.
    fn post(&self, items: &[TapItem], stop: &Stop) -> Result<(), Refused> {
        let request = request(&self.settings, items)?;
        let work = async {
            let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
            let (head, body) = answer.into_parts();
            // What it says is not shown, and not kept.
            let _ = Limited::new(body, MAX_ANSWER).collect().await;
            Ok((head.status, head.headers))
        };
        let (status, headers) = wait::run(self.runtime.as_ref(), self.settings.typed.timeout, stop, work)?;
        judge(status, &headers)
    }
}

impl Sink for Webhook {
    fn send(&mut self, items: &[TapItem], stop: &Stop) -> Result<(), SinkError> {
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.most.clamp(1, rest.len()));
            match self.post(now, stop) {
                Ok(()) => rest = later,
                Err(Refused::TooLarge) if now.len() > 1 => self.most = now.len() / 2,
                Err(Refused::TooLarge) => {
                    return Err(SinkError::new("refused", "413 to a single leaf"));
                }
                Err(Refused::Other(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Why a POST was not acknowledged.
#[derive(Debug)]
enum Refused {
    /// Fewer leaves may fit.
    TooLarge,
    Other(SinkError),
}

impl From<SinkError> for Refused {
    fn from(error: SinkError) -> Self {
        Self::Other(error)
    }
}

fn failed(error: &hyper_util::client::legacy::Error) -> SinkError {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        detail.push_str(": ");
        detail.push_str(&inner.to_string());
        source = inner.source();
    }
    SinkError::new(if error.is_connect() { "connect" } else { "closed" }, detail)
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Refused> {
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Err(Refused::TooLarge);
    }
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS => "throttled",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "credentials",
        _ if status.is_server_error() => "unavailable",
        _ => "refused",
    };
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(seconds);
    let detail = format!("status {}", status.as_u16());
    Err(SinkError { retry_after: retry_after.map(Duration::from_secs), ..SinkError::new(reason, detail) }
        .into())
}

/// `Retry-After`: seconds, or a date.
fn seconds(text: &str) -> Option<u64> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
            u64::try_from(at.as_second() - jiff::Timestamp::now().as_second()).unwrap_or(0)
        }
    };
    Some(seconds.min(LONGEST_WAIT_S))
}

fn request(settings: &Settings, items: &[TapItem]) -> Result<Request<Full<Bytes>>, SinkError> {
    let typed = &settings.typed;
    let body = body(settings, items);
    let path = if typed.url.path.is_empty() { "/" } else { &typed.url.path };
    let scheme = if typed.url.tls { "https" } else { "http" };
    let kind = match typed.body {
        TapBody::Ndjson => "application/x-ndjson",
        TapBody::Array => "application/json",
    };
    let mut request = Request::post(format!("{scheme}://{}{path}", typed.url.authority))
        .header(CONTENT_TYPE, kind)
        .header(USER_AGENT, concat!("affidavit/", env!("CARGO_PKG_VERSION")))
        .header("idempotency-key", idempotency_key(items));
    if let Some(secret) = &settings.secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        request = request.header("x-affidavit-signature", signature(secret, now, &body));
    }
    if let Some(token) = &settings.token {
        let value = HeaderValue::try_from(format!("{} {}", typed.scheme, token.expose())).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let value = value.map_err(|_| SinkError::new("credentials", "the token cannot stand in a header"))?;
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Full::new(body)).map_err(|error| SinkError::new("local", error.to_string()))
}

/// Equal for equal bodies: the log, and its first and last position.
fn idempotency_key(items: &[TapItem]) -> String {
    match (items.first(), items.last()) {
        (Some(first), Some(last)) => {
            format!("\"{}:{}-{}\"", first.origin(), first.position(), last.position())
        }
        _ => "\"\"".into(),
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 over `SECONDS.BODY`. The time is signed so that a receiver can refuse an old one.
fn signature(secret: &Secret, now: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()));
    context.update(format!("{now}.").as_bytes());
    context.update(body);
    format!("t={now},v1={}", hex::encode(context.sign().as_ref()))
}

fn body(settings: &Settings, items: &[TapItem]) -> Bytes {
    let (open, between, close): (&[u8], &[u8], &[u8]) = match settings.typed.body {
        TapBody::Ndjson => (b"", b"\n", b"\n"),
        TapBody::Array => (b"[", b",", b"]"),
    };
    let mut body = open.to_vec();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(between);
        }
        body.extend_from_slice(&object(settings, item));
    }
    body.extend_from_slice(close);
    body.into()
}

/// An event, or a leaf, byte for byte, beside its place.
fn object(settings: &Settings, item: &TapItem) -> Vec<u8> {
    let rendered = (settings.render)(item);
    let TapItem::Leaf(leaf) = item else { return rendered };
    if settings.format == TapFormat::Ocsf {
        return rendered;
    }
    let kind = serde_json::Value::from(leaf.kind.as_str());
    let mut object = format!(
        "{{\"origin\":\"{}\",\"position\":{},\"kind\":{kind},\"leaf_hash\":\"{}\",\"leaf\":",
        leaf.origin, leaf.position, leaf.hash
    )
    .into_bytes();
    object.extend_from_slice(&rendered);
    object.push(b'}');
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_acknowledges_and_retry_after_is_heard() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            headers
        };
        assert!(judge(StatusCode::ACCEPTED, &HeaderMap::new()).is_ok());
        let reason = |status: StatusCode, headers: &HeaderMap| match judge(status, headers) {
            Err(Refused::Other(error)) => (error.reason, error.retry_after.map(|wait| wait.as_secs())),
            other => panic!("{status}: {other:?}"),
        };
        assert_eq!(reason(StatusCode::TOO_MANY_REQUESTS, &with("7")), ("throttled", Some(7)));
        assert_eq!(reason(StatusCode::SERVICE_UNAVAILABLE, &with("99999")), ("unavailable", Some(600)));
        let past = with("Fri, 20 Nov 2015 10:15:00 GMT");
        assert_eq!(reason(StatusCode::BAD_GATEWAY, &past), ("unavailable", Some(0)));
        assert_eq!(reason(StatusCode::FOUND, &with("soon")), ("refused", None));
        assert_eq!(reason(StatusCode::FORBIDDEN, &HeaderMap::new()), ("credentials", None));
        assert!(matches!(judge(StatusCode::PAYLOAD_TOO_LARGE, &HeaderMap::new()), Err(Refused::TooLarge)));
    }

    #[test]
    fn the_signature_is_over_time_and_body() {
        let secret = Secret::new("whsec").unwrap();
        let one = signature(&secret, 1_795_169_700, b"{}\n");
        // printf '1795169700.{}\n' | openssl dgst -sha256 -hmac whsec
        assert!(one.starts_with("t=1795169700,v1="));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec");
        let tag = hex::decode(one.rsplit('=').next().unwrap()).unwrap();
        assert!(hmac::verify(&key, b"1795169700.{}\n", &tag).is_ok());
        assert_ne!(one, signature(&secret, 1_795_169_701, b"{}\n"));
    }
}
