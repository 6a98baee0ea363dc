//! The admin address: whether the gateway lives, whether it takes traffic, and its metrics.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use evidence::Watermarks;
use evidence::store::Trouble;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::record::now_us;
use crate::telemetry::{ByMark, ByReason, BySink, BySinkReason, Telemetry};

/// The app, once it runs: the admin address answers before recovery is over.
pub(crate) type Starting = Arc<OnceLock<Arc<App>>>;

/// Serves the admin pages.
pub(crate) struct Admin {
    listener: TcpListener,
    app: Starting,
    telemetry: Arc<Telemetry>,
}

impl Admin {
    /// Binds the admin address.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn bind(
        address: SocketAddr,
        app: Starting,
        telemetry: Arc<Telemetry>,
    ) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, app, telemetry })
    }

    /// Over a socket that is bound already.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn over(
        listener: std::net::TcpListener,
        app: Starting,
        telemetry: Arc<Telemetry>,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, app, telemetry })
    }

    /// A further handle of the socket.
    pub(crate) fn handle(&self) -> std::io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The bound address.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as it is polled, at most 64 connections at once.
    pub(crate) async fn run(self) {
        let places = Arc::new(Semaphore::new(64));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (app, telemetry) = (Arc::clone(&self.app), Arc::clone(&self.telemetry));
            let service = service_fn(move |request: Request<Incoming>| {
                let response = page(&app, &telemetry, &request);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // A broken admin connection concerns nobody.
                let _ = connection.await;
                drop(place);
            });
        }
    }
}

fn page(app: &Starting, telemetry: &Telemetry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => ready(app.get()),
        "/metrics" => {
            if let Some(app) = app.get() {
                observe(app);
            }
            let mut response = text(StatusCode::OK, telemetry.encode());
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n".into()),
    }
}

fn ready(app: Option<&Arc<App>>) -> Response<Full<Bytes>> {
    let Some(app) = app else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "starting: recovering the journal\n".into());
    };
    if app.is_draining() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    match app.ledger.readiness() {
        Ok(()) => {
            let left = waiting(&app.ledger.watermarks()).map(|waiting| format!(": {waiting}"));
            let mut body = format!("ready{}\n", left.unwrap_or_default());
            // Traffic does not wait for them: a note, no more.
            for (sink, _) in app.ledger.tap().into_iter().filter(|(_, counts)| counts.failing) {
                body.push_str(&format!("the tap's sink `{sink}` does not take leaves\n"));
            }
            text(StatusCode::OK, body)
        }
        Err(unavailable) => {
            let why = waiting(&app.ledger.watermarks()).map(|waiting| format!("; {waiting}"));
            let body = format!("{unavailable}{}\n", why.unwrap_or_default());
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(unavailable.retry_after_s));
            response
        }
    }
}

/// What is in the way of shipping, and how long the spool lasts.
fn waiting(marks: &Watermarks) -> Option<String> {
    let trouble = marks.ship_trouble?;
    let left = marks.spool_full_in_s.map(|seconds| {
        let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
        format!(", the spool is full in about {hours} h {minutes} min")
    });
    Some(format!("the store does not take batches ({trouble}){}", left.unwrap_or_default()))
}

/// Takes the watermarks into the gauges.
fn observe(app: &App) {
    let telemetry = &app.telemetry;
    let marks = app.ledger.watermarks();
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (mark, at) in [
        ("journaled", marks.journaled),
        ("sealed", marks.sealed),
        ("shipped", marks.shipped),
        ("archived", marks.archived),
    ] {
        telemetry.watermarks.get_or_create(&ByMark { mark }).set(gauge(at));
        if mark != "journaled" {
            telemetry.lag.get_or_create(&ByMark { mark }).set(gauge(marks.journaled.saturating_sub(at)));
        }
    }
    let age_s =
        |since: Option<i64>| since.map_or(0.0, |since| (now_us().saturating_sub(since).max(0)) as f64 / 1e6);
    telemetry.oldest_unsealed.set(age_s(marks.oldest_unsealed_us));
    telemetry.oldest_unarchived.set(age_s(marks.oldest_unarchived_us));
    telemetry.spool.set(gauge(marks.spool_bytes));
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    telemetry.spool_full_in.set(marks.spool_full_in_s.map_or(f64::INFINITY, |seconds| seconds as f64));
    for (trouble, count) in Trouble::ALL.iter().zip(marks.ship_failures) {
        let counter = telemetry.store_failures.get_or_create(&ByReason { reason: trouble.as_str() });
        counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
    }
    for (counter, count) in
        [(&telemetry.receipts_forged, marks.receipts_forged), (&telemetry.put_again, marks.put_again)]
    {
        counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
    }
    telemetry.journal.set(gauge(marks.journal_bytes));
    observe_tap(app);
    telemetry.ready.set(i64::from(app.ledger.readiness().is_ok() && !app.is_draining()));
}

/// Takes the figures of the tap's sinks.
fn observe_tap(app: &App) {
    let tap = &app.telemetry.tap;
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (sink, counts) in app.ledger.tap() {
        let by = BySink { sink: sink.clone() };
        tap.behind.get_or_create(&by).set(gauge(counts.behind));
        let age_us = counts.oldest_us.map_or(0, |oldest| now_us().saturating_sub(oldest));
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        tap.oldest.get_or_create(&by).set(age.as_secs_f64());
        tap.kept.set(gauge(counts.kept_bytes));
        for (family, count) in
            [(&tap.sent, counts.sent), (&tap.gaps, counts.missed), (&tap.gap_records, counts.missed_records)]
        {
            family.get_or_create(&by).inner().store(count, std::sync::atomic::Ordering::Relaxed);
        }
        for (reason, count) in counts.errors {
            let by = BySinkReason { sink: sink.clone(), reason };
            tap.errors.get_or_create(&by).inner().store(count, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
