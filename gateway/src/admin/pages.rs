//! The admin address: whether the gateway lives, whether it takes traffic, and its metrics.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use evidence::error::Reason;
use evidence::store::Trouble;
use evidence::{Ledger, Room, Watermarks};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;

use super::connections::Connections;
use crate::accept::tls;
use crate::app::App;
use crate::record::now_us;
use crate::tap::PASSED_BY;
use crate::telemetry::{
    ByFolder, ByListener, ByLog, ByMark, ByReason, BySink, BySinkReason, ByState, PHASES, Telemetry, holds,
};

/// How long a connection may be quiet, and how long the head of its next request may take.
const QUIET: Duration = Duration::from_secs(10);

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

    /// Serves for as long as it is polled.
    pub(crate) async fn run(self) {
        let mut connections = Connections::default();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (app, telemetry) = (Arc::clone(&self.app), Arc::clone(&self.telemetry));
            let asked = connections.begins();
            let asks = asked.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                asks.now();
                let response = page(&app, &telemetry, &request);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(QUIET);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            connections.serve(asked, async move {
                // A broken admin connection concerns nobody.
                let _ = connection.await;
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
            observe(telemetry, app.get().map(|app| &**app));
            let mut response = text(StatusCode::OK, telemetry.show());
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
            let left = waiting(&app.ledger).map(|waiting| format!(": {waiting}"));
            let mut body = format!("ready{}\n", left.unwrap_or_default());
            // Traffic does not wait for them: a note, no more.
            for (sink, _) in app.ledger.tap().into_iter().filter(|(_, counts)| counts.failing) {
                body.push_str(&format!("the tap's sink `{sink}` does not take leaves\n"));
            }
            text(StatusCode::OK, body)
        }
        Err(unavailable) => {
            let why = waiting(&app.ledger).map(|waiting| format!("; {waiting}"));
            let body = format!("{unavailable}{}\n", why.unwrap_or_default());
            if passes_unrecorded(app) {
                return text(
                    StatusCode::OK,
                    format!("ready, unrecorded, on routes with `fail_mode: open` alone: {body}"),
                );
            }
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(unavailable.retry_after_s));
            response
        }
    }
}

/// Whether some traffic passes while no evidence can be written: who takes the gateway out of the traffic then stops what is
/// configured to go on.
fn passes_unrecorded(app: &App) -> bool {
    app.snapshot.load().routes.iter().any(|route| route.fail_open)
}

/// What is in the way of shipping, and how long the spool lasts.
fn waiting(ledger: &Ledger) -> Option<String> {
    let trouble = ledger.watermarks().ship_trouble?;
    let left = ledger.room().full_in_s.map(|seconds| {
        let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
        format!(", the spool is full in about {hours} h {minutes} min")
    });
    Some(format!("the store does not take batches ({trouble}){}", left.unwrap_or_default()))
}

/// Takes into the gauges how things stand now; before the process serves, only that it starts.
fn observe(telemetry: &Telemetry, app: Option<&App>) {
    let phase = match app {
        None => "starting",
        Some(app) if app.is_draining() => "draining",
        Some(_) => "serving",
    };
    holds(&telemetry.phase, |state| ByState { state }, PHASES, Some(phase));
    telemetry.clock.set(now_us() as f64 / 1e6);
    let Some(app) = app else { return };
    telemetry.log.get_or_create(&ByLog { log: app.ledger.origin().to_string() }).set(1);
    let readiness = app.ledger.readiness();
    let serves = readiness.is_ok() || passes_unrecorded(app);
    telemetry.ready.set(i64::from(serves && !app.is_draining()));
    let why = readiness.err().map(|unavailable| unavailable.reason.as_str());
    holds(&telemetry.unavailable, |reason| ByReason { reason }, Reason::ALL.map(Reason::as_str), why);
    let marks = app.ledger.watermarks();
    progress(telemetry, &marks);
    shipping(telemetry, &marks);
    room(telemetry, &app.ledger.room(), &marks);
    observe_tap(app);
    let snapshot = app.snapshot.load();
    for route in snapshot.routes.iter() {
        route.balancer.measure(std::time::Instant::now());
    }
    let config = &snapshot.loaded.config;
    for (listen, tls) in config.listen.iter().zip(&snapshot.loaded.tls) {
        if let Some(end) = tls.as_ref().and_then(tls::expires) {
            let by = ByListener { listen: listen.address.to_string() };
            telemetry.certificate.get_or_create(&by).set(end as f64);
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter that is kept elsewhere.
fn counted(counter: &Counter, count: u64) {
    counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
}

/// How old something is.
fn age_s(since: Option<i64>) -> f64 {
    since.map_or(0.0, |since| (now_us().saturating_sub(since).max(0)) as f64 / 1e6)
}

/// How far evidence has come.
fn progress(telemetry: &Telemetry, marks: &Watermarks) {
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
    telemetry.oldest_unsealed.set(age_s(marks.oldest_unsealed_us));
    telemetry.oldest_unshipped.set(age_s(marks.oldest_unshipped_us));
    telemetry.oldest_unarchived.set(age_s(marks.oldest_unarchived_us));
    let earlier = marks.earlier;
    telemetry.oldest_earlier_log.set(age_s(earlier.oldest_us));
    for (state, count) in
        [("running", earlier.running), ("waiting", earlier.waiting), ("stopped", earlier.stopped)]
    {
        telemetry.earlier_logs.get_or_create(&ByState { state }).set(gauge(count));
    }
    counted(&telemetry.unrecorded, marks.unrecorded);
    telemetry.untold.set(gauge(marks.untold));
    telemetry.erasures_due.set(gauge(marks.erasures_due));
    if let Some(commit) = marks.commit {
        telemetry.lease_age.set(commit.lease_age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        counted(&telemetry.commit_forged, commit.refused);
        telemetry.uncommitted.set(gauge(commit.groups));
        telemetry.uncommitted_bytes.set(gauge(commit.bytes));
    }
}

/// What the store, and who answers for it, say.
fn shipping(telemetry: &Telemetry, marks: &Watermarks) {
    for (trouble, count) in Trouble::ALL.iter().zip(marks.ship_failures) {
        counted(&telemetry.store_failures.get_or_create(&ByReason { reason: trouble.as_str() }), count);
    }
    let trouble = marks.ship_trouble.map(Trouble::as_str);
    holds(&telemetry.store_trouble, |reason| ByReason { reason }, Trouble::ALL.map(Trouble::as_str), trouble);
    counted(&telemetry.receipts_forged, marks.receipts_forged);
    counted(&telemetry.put_again, marks.put_again);
}

/// What journal, spool and key table take, and may still take.
fn room(telemetry: &Telemetry, room: &Room, marks: &Watermarks) {
    telemetry.journal.set(gauge(marks.journal_bytes));
    telemetry.spool.set(gauge(marks.spool_bytes));
    telemetry.reserved.set(gauge(marks.reserved_bytes));
    telemetry.spool_bound.set(gauge(room.spool_bound));
    telemetry.spool_kept.set(gauge(marks.kept_bytes));
    counted(&telemetry.reshipped, marks.reshipped);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    telemetry.spool_full_in.set(room.full_in_s.map_or(f64::INFINITY, |seconds| seconds as f64));
    for (folder, free) in [("journal", room.journal), ("spool", room.spool), ("key_table", room.key_table)] {
        if let Some(free) = free {
            telemetry.disk_free.get_or_create(&ByFolder { folder }).set(gauge(free));
        }
    }
}

/// Takes the figures of the tap's sinks.
fn observe_tap(app: &App) {
    let tap = &app.telemetry.tap;
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
        for reason in PASSED_BY {
            let by = BySinkReason { sink: sink.clone(), reason };
            let count = counts.passed_by.get(reason).copied().unwrap_or(0);
            tap.passed_by.get_or_create(&by).inner().store(count, std::sync::atomic::Ordering::Relaxed);
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
