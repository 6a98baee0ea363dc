//! Spans and metrics of exchanges, over OTLP/HTTP. A view, and never evidence: what is told here is told again by nobody, and
//! nothing waits for it.
//!
//! - `context`: the caller's trace, and what of it goes on to a provider
//! - `exchange`: what is known of an exchange at its end
//! - `span`, `meters`: the same as spans and histograms; `names` has the conventions' words, `wire` their encoding
//! - `send`: the thread that posts them
//!
//! An exchange's end costs the traffic a copy of its facts and a place in a bounded queue; where that is full its spans are
//! dropped, and counted. They are written and sent by a thread of their own.

mod context;
mod exchange;
mod meters;
mod names;
mod send;
mod span;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dialects::Operation;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;
use schemas::{ExchangeId, Sha256Hex};
use tokio::sync::{mpsc, oneshot};

pub(crate) use context::{Trace, apply};
pub(crate) use exchange::{Dispatched, Times, Told};

use crate::config::{self, Loaded, Ratio};
use crate::dispatch::pool::PoolError;
use crate::record::now_us;
use crate::tap;
use crate::telemetry::OtlpTelemetry;
use meters::Meters;
use send::{Item, Sender, Settings};

/// How long the end of the process waits for the last spans.
const LAST: Duration = Duration::from_secs(3);

/// Why spans and metrics cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] PoolError),
    /// A header.
    #[error("the header `{0}` cannot stand in a request")]
    Header(String),
    /// The thread, or its runtime.
    #[error("its thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The way to a collector, as exchanges see it. Where the last of its owners goes, what it has is sent and its thread ends.
pub(crate) struct Otlp {
    queue: mpsc::Sender<Item>,
    traces: bool,
    metrics: bool,
    ratio: Ratio,
    meters: Arc<Mutex<Meters>>,
    telemetry: OtlpTelemetry,
    made_of: MadeOf,
}

/// What it was made of: where it is the same after a reload, it goes on.
#[derive(PartialEq, Eq)]
struct MadeOf {
    typed: config::Otlp,
    names: [String; 2],
    /// By digest: secrets are not kept twice.
    headers: Vec<(String, Sha256Hex)>,
    roots: Option<Vec<CertificateDer<'static>>>,
    client: Option<(Vec<CertificateDer<'static>>, Sha256Hex)>,
}

impl MadeOf {
    fn of(loaded: &Loaded) -> Option<Self> {
        let (typed, files) = (loaded.config.telemetry.otlp.clone()?, loaded.otlp.as_ref()?);
        let digest = |(name, secret): (&String, &config::Secret)| {
            (name.clone(), Sha256Hex::of(secret.expose().as_bytes()))
        };
        Some(Self {
            typed,
            names: [loaded.config.deployment.clone(), loaded.config.gateway.clone()],
            headers: files.headers.iter().map(digest).collect(),
            roots: files.tls.roots.clone(),
            client: files
                .tls
                .client
                .as_ref()
                .map(|(chain, key)| (chain.clone(), Sha256Hex::of(key.secret_der()))),
        })
    }
}

impl Otlp {
    /// As configured; `before` goes on where nothing of it changed.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub(crate) fn new(
        loaded: &Loaded,
        before: Option<&Arc<Self>>,
        telemetry: &OtlpTelemetry,
    ) -> Result<Option<Arc<Self>>, OtlpError> {
        let (Some(made_of), Some(files)) = (MadeOf::of(loaded), &loaded.otlp) else { return Ok(None) };
        if let Some(before) = before.filter(|before| before.made_of == made_of) {
            return Ok(Some(Arc::clone(before)));
        }
        let typed = &made_of.typed;
        let mut headers = Vec::new();
        for (name, secret) in &files.headers {
            let wrong = || OtlpError::Header(name.clone());
            let key = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
            let mut value = HeaderValue::try_from(secret.expose()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.push((key, value));
        }
        let meters = Arc::new(Mutex::new(Meters::new()));
        let settings = Settings {
            endpoint: typed.endpoint.clone(),
            headers,
            tls: tap::tls::client(&files.tls)?,
            interval: typed.interval,
            timeout: typed.timeout,
            resource: resource(&made_of),
            has_metrics: typed.metrics,
            meters: Arc::clone(&meters),
            telemetry: telemetry.clone(),
        };
        let (queue, items) = mpsc::channel(usize::try_from(typed.queue).unwrap_or(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("otlp".into()).spawn(move || {
            runtime.block_on(async { Sender::new(settings).run(items).await });
        })?;
        let (traces, metrics, ratio) = (typed.traces, typed.metrics, typed.sample_ratio);
        Ok(Some(Arc::new(Self {
            queue,
            traces,
            metrics,
            ratio,
            meters,
            telemetry: telemetry.clone(),
            made_of,
        })))
    }

    /// The trace that a request with these headers belongs to.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Trace> {
        Trace::of(headers)
    }

    /// Whether the trace is sent: as the caller says, else as the share has it.
    pub(crate) fn is_sampled(&self, trace: &Trace, exchange: &ExchangeId) -> bool {
        self.traces
            && trace.parent.map_or_else(|| self.ratio.takes(&trace.id(exchange)), |parent| parent.is_sampled)
    }

    /// Counts an exchange that was let go to a provider, and lets its spans go. Never waits.
    pub(crate) fn tell(&self, told: Told, operation: Option<&Operation>, is_priced: impl Fn(&str) -> bool) {
        if self.metrics && told.dispatched.is_some() {
            let is_inference = operation.is_some_and(names::is_inference);
            self.meters.lock().unwrap_or_else(PoisonError::into_inner).count(&told, is_inference, is_priced);
        }
        if self.is_sampled(&told.trace, &told.exchange)
            && self.queue.try_send(Item::Exchange(Box::new(told))).is_err()
        {
            self.telemetry.count("queue_full", 1);
        }
    }

    /// Waits, for a moment, until what was told is sent.
    pub(crate) async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        let flush = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = sent.await;
            }
        };
        if tokio::time::timeout(LAST, flush).await.is_err() {
            tracing::warn!("the collector did not take the last spans and metrics in time");
        }
    }
}

/// Whether the price book of `loaded` has a row for the model.
pub(crate) fn is_priced(loaded: &Loaded, provider: &str, model: &str) -> bool {
    let book = loaded.prices.as_ref();
    book.is_some_and(|book| book.row(provider, model, now_us(), policies::price::tier(None), 0).is_some())
}

/// The resource's attributes: who sends, then what is configured.
fn resource(made_of: &MadeOf) -> Vec<(String, String)> {
    let [deployment, gateway] = &made_of.names;
    let ours = [
        ("service.name", "affidavit-gateway"),
        ("service.namespace", deployment.as_str()),
        ("service.instance.id", gateway.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let typed = &made_of.typed.resource;
    let ours = ours.into_iter().filter(|(name, _)| !typed.contains_key(*name));
    let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(typed.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}
