//! POSTs to a sink: one connection that is used again, waits that are bounded, and what an answer says.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use evidence::Stop;
use evidence::tap::SinkError;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::request::Builder;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use super::SEND_BUFFER;
use super::wait::{self, Progress};

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(20);
/// What is read of an answer, and for how long, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;
const MAX_ANSWER_TIME: Duration = Duration::from_millis(250);
/// A body goes out in pieces of this size.
const PIECE: usize = 8 << 10;
/// What a connection takes of a body ahead of the socket.
const AHEAD: usize = 4 * PIECE;
/// The longest wait that `Retry-After` is believed.
const LONGEST_WAIT_S: u64 = 600;

/// Posts to one address, from one thread.
pub(super) struct Poster {
    runtime: Option<Runtime>,
    client: Client<HttpsConnector<HttpConnector>, Pieces>,
    timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Its body; empty where that is large, or did not end soon.
    pub(super) body: Bytes,
}

impl Poster {
    pub(super) fn new(tls: &Arc<ClientConfig>, timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        http.set_send_buffer_size(Some(SEND_BUFFER));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(tls))
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(AHEAD)
            .build(connector);
        Self { runtime: wait::runtime(), client, timeout }
    }

    /// Posts a body, and waits for the answer as long as something goes on.
    ///
    /// # Errors
    /// No answer came.
    pub(super) fn post(&self, request: Builder, body: Bytes, stop: &Stop) -> Result<Answer, SinkError> {
        let progress = Progress::begun();
        let request = request
            .header(USER_AGENT, concat!("affidavit/", env!("CARGO_PKG_VERSION")))
            .body(Pieces { rest: body, progress: progress.clone() })
            .map_err(|error| SinkError::new("local", error.to_string()))?;
        let work = async {
            let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
            let (head, body) = answer.into_parts();
            // The head has said whether it was taken. What else comes is not waited for: where it does not end soon the
            // connection is not used again.
            let rest = Limited::new(body, MAX_ANSWER).collect();
            let body = match tokio::time::timeout(MAX_ANSWER_TIME, rest).await {
                Ok(Ok(body)) => body.to_bytes(),
                _ => Bytes::new(),
            };
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        wait::run(self.runtime.as_ref(), self.timeout, stop, &progress, work)
    }
}

/// The value of `Authorization`, which is shown nowhere.
pub(super) fn authorization(scheme: &str, credential: &str) -> Result<HeaderValue, SinkError> {
    let mut value = HeaderValue::try_from(format!("{scheme} {credential}"))
        .map_err(|_| SinkError::new("credentials", "the token cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// How long the sink asks to be left alone.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(seconds);
    seconds.map(Duration::from_secs)
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

/// A body that tells when the connection takes a piece of it.
struct Pieces {
    rest: Bytes,
    progress: Progress,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.progress.made();
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
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
