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

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dialects::Operation;
use http::{HeaderMap, HeaderName, HeaderValue};
use policies::price::PriceBook;
use rustls_pki_types::CertificateDer;
use schemas::{ExchangeId, Identifier, Sha256Hex};
use tokio::sync::{mpsc, oneshot};

pub(crate) use context::{Trace, apply};
pub(crate) use exchange::{Dispatched, Times, Told};

use crate::config::{self, Loaded, Ratio};
use crate::dispatch::pool::PoolError;
use crate::record::now_us;
use crate::tap;
use crate::telemetry::OtlpTelemetry;
use meters::{Meters, Models};
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
    /// Whether its thread sends the metrics: one way does at a time, or a series would have two writers.
    sends_metrics: Arc<AtomicBool>,
    /// `service.instance.id`, when the log is known.
    instance: Arc<OnceLock<String>>,
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
    /// As configured; `before` goes on where nothing of it changed, and its metrics do where something did.
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
        let meters =
            before.map_or_else(|| Arc::new(Mutex::new(Meters::new())), |before| Arc::clone(&before.meters));
        let (sends_metrics, instance) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let settings = Settings {
            endpoint: typed.endpoint.clone(),
            headers,
            tls: tap::tls::client(&files.tls)?,
            interval: typed.interval,
            timeout: typed.timeout,
            resource: resource(&made_of),
            instance: Arc::clone(&instance),
            sends_metrics: Arc::clone(&sends_metrics),
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
            sends_metrics,
            instance,
            telemetry: telemetry.clone(),
            made_of,
        })))
    }

    /// From now on exchanges come this way, and metrics go it: `before` sends none any more. `epoch` is that of the process's log: while
    /// one gateway hands over to another, both are here under names of their own.
    pub(crate) fn begins(&self, epoch: &str, before: Option<&Self>) {
        let [_, gateway] = &self.made_of.names;
        // Set once: a way that goes on has its name.
        let _ = self.instance.set(format!("{gateway}/{epoch}"));
        if self.metrics {
            if let Some(before) = before {
                before.sends_metrics.store(false, Ordering::Release);
            }
            self.sends_metrics.store(true, Ordering::Release);
        }
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
    pub(crate) fn tell(
        &self,
        told: Told,
        operation: Option<&Operation>,
        label: impl Fn(&str) -> Option<Identifier>,
    ) {
        if let Some(dispatched) = &told.dispatched
            && self.metrics
            && operation.is_some_and(names::is_inference)
        {
            let label = |model: &Option<Identifier>| model.as_ref().and_then(|model| label(model.as_str()));
            let (requested, served) = (&told.asked.requested_model, &dispatched.answered.served_model);
            let models = Models { requested: label(requested), served: label(served) };
            self.meters.lock().unwrap_or_else(PoisonError::into_inner).count(&told, models);
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

/// How metrics name a model: as itself where the price book does, else as the row whose pattern fits, which are as many as the book
/// has. None where it has no row.
pub(crate) fn model_label(loaded: &Loaded, provider: &str, model: &str) -> Option<Identifier> {
    label_of(loaded.prices.as_ref()?, provider, model, now_us())
}

fn label_of(book: &PriceBook, provider: &str, model: &str, at_us: i64) -> Option<Identifier> {
    let row = book.row(provider, model, at_us, policies::price::tier(None), 0)?;
    let is_named = row.models.iter().any(|pattern| pattern.is_exact() && pattern.matches(model));
    if is_named { Identifier::new(model).ok() } else { Some(row.id.clone()) }
}

/// The name of the resource's attribute that is this process's own.
const INSTANCE: &str = "service.instance.id";

/// The resource's attributes: who sends, then what is configured. Without [`INSTANCE`], where nothing is configured for it.
fn resource(made_of: &MadeOf) -> Vec<(String, String)> {
    let [deployment, _] = &made_of.names;
    let ours = [
        ("service.name", "affidavit-gateway"),
        ("service.namespace", deployment.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let typed = &made_of.typed.resource;
    let ours = ours.into_iter().filter(|(name, _)| !typed.contains_key(*name));
    let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(typed.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_label_only_where_the_book_names_it_as_it_is() {
        let book = PriceBook::parse(
            b"id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,\
              input_audio,output_audio,input_image,source,read_on,note\n\
              exact-1,openai,gpt-4o gpt-4o-2024-*,standard,,2024-01-01,,USD,2.50,1.25,,,10,,,,https://a.example,2026-11-01,\n\
              wide-1,openai,gpt-4o-*,standard,,2024-01-01,,USD,2.50,1.25,,,10,,,,https://a.example,2026-11-01,\n",
        )
        .unwrap();
        let label = |model: &str| label_of(&book, "openai", model, 1_790_000_000_000_000);
        for (model, wanted) in [
            ("gpt-4o", Some("gpt-4o")),
            ("gpt-4o-2024-08-06", Some("exact-1")),
            ("gpt-4o-41f0a9", Some("wide-1")),
            ("gpt-4o-*", Some("wide-1")),
            ("other", None),
        ] {
            assert_eq!(label(model).as_ref().map(Identifier::as_str), wanted, "{model}");
        }
    }
}
