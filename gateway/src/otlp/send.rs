//! The way to the collector: one thread with a runtime of its own, so that nothing of it runs where traffic does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::INSTANCE;
use super::exchange::Told;
use super::meters::Meters;
use super::span;
use super::wire::{self, Message, Value, attribute};
use crate::config::BaseUrl;
use crate::dispatch;
use crate::telemetry::OtlpTelemetry;

/// The most exchanges of one POST.
const MOST: usize = 256;
/// What is read of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(30);
/// The first wait between two tries; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest wait between two tries, where the receiver asks for none.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest wait that `Retry-After` is believed.
const LONGEST_WAIT_S: u64 = 600;

/// What comes over the queue.
pub(super) enum Item {
    Exchange(Box<Told>),
    /// Sends what there is, once, and says so.
    Flush(oneshot::Sender<()>),
}

impl Item {
    fn told(self) -> Option<Told> {
        match self {
            Self::Exchange(told) => Some(*told),
            Self::Flush(_) => None,
        }
    }
}

/// Waits until then; forever, where there is nothing to wait for.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// What the sender is made of.
pub(super) struct Settings {
    pub(super) endpoint: BaseUrl,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Attributes of the resource.
    pub(super) resource: Vec<(String, String)>,
    /// [`INSTANCE`]; set before there is anything to send.
    pub(super) instance: Arc<OnceLock<String>>,
    /// Whether metrics go this way.
    pub(super) sends_metrics: Arc<AtomicBool>,
    pub(super) meters: Arc<Mutex<Meters>>,
    pub(super) telemetry: OtlpTelemetry,
}

/// What became of a POST.
enum Sent {
    Taken,
    /// It may be taken later: not before as long as the receiver says, where it does.
    Later(Option<Duration>),
    /// It never will be.
    Never,
}

pub(super) struct Sender {
    settings: Settings,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    waiting: Vec<Told>,
    /// No try is made before: the receiver asked for that, or failed.
    not_before: Option<Instant>,
    /// How long the last such wait was; none where the last try was taken. That it is away is said once.
    pause: Option<Duration>,
}

impl Sender {
    pub(super) fn new(settings: Settings) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&settings.tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { settings, client, waiting: Vec::new(), not_before: None, pause: None }
    }

    /// Sends until the queue ends.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut tick = tokio::time::interval(self.settings.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What waits here is bounded too: more stays in the queue, and what the queue has no room for is dropped.
                item = queue.recv(), if self.waiting.len() < MOST => match item {
                    Some(Item::Exchange(told)) => {
                        self.waiting.push(*told);
                        if self.waiting.len() >= MOST {
                            self.spans().await;
                        }
                    }
                    Some(Item::Flush(done)) => {
                        self.not_before = None;
                        self.all().await;
                        // Who asked may have stopped waiting.
                        let _ = done.send(());
                    }
                    None => break,
                },
                _ = tick.tick() => {
                    self.all().await;
                    // Nobody tells anything any more, and what there is is not taken: the thread does not wait for a receiver.
                    if queue.is_closed() && self.waiting.len() >= MOST {
                        break;
                    }
                }
                () = until(self.not_before) => {
                    self.not_before = None;
                    self.all().await;
                }
            }
        }
        self.last(queue).await;
    }

    /// The last try: nobody is left who could wait.
    async fn last(mut self, mut queue: mpsc::Receiver<Item>) {
        loop {
            self.not_before = None;
            self.spans().await;
            if !self.waiting.is_empty() {
                break;
            }
            let next = std::iter::from_fn(|| queue.try_recv().ok()).filter_map(Item::told);
            self.waiting.extend(next.take(MOST));
            if self.waiting.is_empty() {
                break;
            }
        }
        self.metrics().await;
        let left = std::iter::from_fn(|| queue.try_recv().ok()).filter_map(Item::told).count();
        self.settings.telemetry.count("stopped", (self.waiting.len() + left) as u64);
    }

    async fn all(&mut self) {
        self.spans().await;
        self.metrics().await;
    }

    async fn spans(&mut self) {
        if self.waiting.is_empty() || self.not_before.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let mut scope = self.scope();
        for told in &self.waiting {
            span::write(told, &mut scope);
        }
        let sent = self.post("traces", &self.request(&scope)).await;
        let result = match sent {
            Sent::Taken => "sent",
            Sent::Never => "refused",
            Sent::Later(_) => return,
        };
        self.settings.telemetry.count(result, self.waiting.len() as u64);
        self.waiting.clear();
    }

    async fn metrics(&mut self) {
        if !self.settings.sends_metrics.load(Ordering::Acquire)
            || self.not_before.is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        // The lock is held for a copy only.
        let meters = self.settings.meters.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if meters.is_empty() {
            return;
        }
        let mut scope = self.scope();
        meters.write(&mut scope);
        // They are sums: the next try says what this one could not.
        let _ = self.post("metrics", &self.request(&scope)).await;
    }

    /// `ScopeSpans` or `ScopeMetrics`, without what is in it.
    fn scope(&self) -> Message {
        let mut name = Message::default();
        name.bytes(1, b"affidavit.gateway").bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut scope = Message::default();
        scope.message(1, &name);
        scope
    }

    /// `ExportTraceServiceRequest` or `ExportMetricsServiceRequest`: they are built alike.
    fn request(&self, scope: &Message) -> Bytes {
        let mut resource = Message::default();
        for (key, value) in &self.settings.resource {
            attribute(&mut resource, 1, key, &Value::Text(value));
        }
        if let Some(instance) = self.settings.instance.get()
            && !self.settings.resource.iter().any(|(key, _)| key == INSTANCE)
        {
            attribute(&mut resource, 1, INSTANCE, &Value::Text(instance));
        }
        let mut of_resource = Message::default();
        of_resource.message(1, &resource).message(2, scope);
        let mut request = Message::default();
        request.message(1, &of_resource);
        request.into_bytes().into()
    }

    async fn post(&mut self, signal: &'static str, body: &Bytes) -> Sent {
        let tried = tokio::time::timeout(self.settings.timeout, self.try_post(signal, body)).await;
        let (reason, detail, sent) = match tried {
            Ok(Ok(rejected)) => {
                if rejected > 0 {
                    self.settings.telemetry.failed(signal, "partial");
                    tracing::warn!(signal, rejected, "the collector did not take everything");
                }
                self.not_before = None;
                if self.pause.take().is_some() {
                    tracing::info!("the collector takes spans and metrics again");
                }
                return Sent::Taken;
            }
            Ok(Err((reason, detail, sent))) => (reason, detail, sent),
            Err(_) => ("timeout", format!("no answer within {:?}", self.settings.timeout), Sent::Later(None)),
        };
        self.settings.telemetry.failed(signal, reason);
        if self.pause.is_none() {
            tracing::warn!(signal, reason, detail, "the collector does not take what it is sent");
        }
        let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        if let Sent::Later(asked) = sent {
            self.not_before = Some(Instant::now() + asked.unwrap_or(pause));
        }
        sent
    }

    /// Posts once; gives how much of it the receiver says it rejected.
    async fn try_post(&self, signal: &str, body: &Bytes) -> Result<u64, (&'static str, String, Sent)> {
        let BaseUrl { tls, authority, path } = &self.settings.endpoint;
        let scheme = if *tls { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{authority}{path}/v1/{signal}"))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("affidavit/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body.clone()))
            .map_err(|error| ("refused", error.to_string(), Sent::Never))?;
        let answer = self.client.request(request).await.map_err(|error| {
            (
                if error.is_connect() { "connect" } else { "closed" },
                dispatch::chain(&error),
                Sent::Later(None),
            )
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        if head.status.is_success() {
            return Ok(body.map_or(0, |body| wire::rejected(&body.to_bytes())));
        }
        let (reason, sent) = judge(head.status, &head.headers);
        Err((reason, format!("status {}", head.status.as_u16()), sent))
    }
}

/// What OTLP says of a status: 429, 502, 503 and 504 may be tried again, and nothing else may.
fn judge(status: StatusCode, headers: &HeaderMap) -> (&'static str, Sent) {
    match status.as_u16() {
        429 => ("throttled", Sent::Later(retry_after(headers))),
        502..=504 => ("unavailable", Sent::Later(retry_after(headers))),
        401 | 403 => ("credentials", Sent::Never),
        _ => ("refused", Sent::Never),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT_S)))
}
