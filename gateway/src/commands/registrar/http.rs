//! HTTP of the registrar: asking witnesses and timestamp authorities.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::asking::Trouble;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may take of that: one that is not taken is tried again sooner.
const CONNECTING: Duration = Duration::from_secs(5);

/// Asks, each time over a connection of its own: between two checkpoints one that is kept would mostly be closed, and
/// that it is would be found out by asking in vain. Trusts the system's roots (`SSL_CERT_FILE` names others).
#[derive(Debug, Clone)]
pub(super) struct Client(Pool<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// An answer that came whole.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Answered {
    /// Its status is not the one that was wanted.
    pub(super) fn refused(&self) -> Trouble {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Trouble::new("refused", format!("status {}: {}", self.status, text.trim_end()))
    }
}

impl Client {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECTING));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self(Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    /// Posts; `limit` bounds the answer's body, in bytes.
    pub(super) async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Answered, Trouble> {
        let silent = |what: String| Trouble::new("no_answer", what);
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| silent(error.to_string()))?;
        let asked = async {
            let answer = self.0.request(request).await.map_err(|error| silent(chain(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, limit).collect().await;
            let body = body.map_err(|error| Trouble::new("bad_answer", error))?;
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Ok(Answered {
                status: head.status,
                content_type: content_type.unwrap_or_default().to_owned(),
                body: body.to_bytes(),
            })
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(silent(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
