//! The gateway's own requests to providers with `health.active`: one task for each, as long as its snapshot is in force.
//!
//! A GET asks for nothing that costs and leaves no record. What has a body may be a prompt: it is an exchange of its own
//! ([`super::own`]) with the operation `probe` and without a caller. Where that cannot be recorded it is not sent, and says
//! nothing of the provider.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evidence::KeyScope;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemas::Identifier;
use schemas::record::Caller;
use tokio_util::sync::CancellationToken;

use super::own::{self, Request, Told};
use super::{Seen, Upstream};
use crate::app::{App, Snapshot};
use crate::config::{self, Active};
use crate::dispatch::pool::Provider;
use crate::dispatch::retry_after::retry_after;

/// The operation of a probe in records.
const OPERATION: &str = "probe";

/// The retention class of its content.
const RETENTION: &str = "standard";

/// The most that is read of an answer.
const ANSWER_BYTES: usize = 1 << 20;

/// A provider under each of its keys (they share its connections), with what its targets share.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    /// In the order of the keys.
    pub(crate) providers: Vec<Arc<Provider>>,
    pub(crate) upstream: Arc<Upstream>,
}

/// Begins the probes of the snapshot in force.
pub(crate) fn begin(app: &Arc<App>) {
    let snapshot = app.snapshot.load_full();
    if app.is_draining() {
        return;
    }
    for probing in snapshot.probed() {
        let (owner, stop) = (Arc::downgrade(app), snapshot.probes.clone());
        app.outlive(run(owner, probing, stop));
    }
}

/// Asks until `stop`, which cuts no prompt: what was sent has its outcome, and that says what it cost.
async fn run(app: Weak<App>, probing: Keyed, stop: CancellationToken) {
    let Some(active) = probing.upstream.probed.active().cloned() else { return };
    loop {
        // Several gateways do not ask at one moment.
        let jitter = rand_share(every(&probing, &active) / 10);
        let Some(app) = app.upgrade() else { return };
        let snapshot = app.snapshot.load_full();
        let probe = Probe { app: &app, snapshot: &snapshot, probing: &probing, active: &active };
        let seen = if active.body.is_some() {
            probe.ask().await
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                seen = probe.ask() => seen,
            }
        };
        let (result, change) = probing.upstream.probed.saw(seen);
        let provider = probing.upstream.name.as_str();
        app.telemetry.balance.probed(provider, result, 1);
        match change {
            Some(true) => tracing::info!(provider, "a provider is back, as its probes say"),
            Some(false) => tracing::warn!(provider, ?seen, "a provider fails its probes and is left alone"),
            None if matches!(seen, Seen::Denied | Seen::Unrecorded) => {
                tracing::warn!(provider, result, "a probe was not sent");
            }
            None => {}
        }
        drop((app, snapshot));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every(&probing, &active).saturating_add(jitter)) => {}
        }
    }
}

/// From one probe to the next, as the provider is now.
fn every(probing: &Keyed, active: &Active) -> Duration {
    let away = active.unhealthy.every.filter(|_| !probing.upstream.probed.is_healthy());
    away.unwrap_or(active.every)
}

/// Up to `most`, by chance.
fn rand_share(most: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let share = (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64;
    most.mul_f64(share)
}

/// One probe.
struct Probe<'a> {
    app: &'a Arc<App>,
    snapshot: &'a Snapshot,
    probing: &'a Keyed,
    active: &'a Active,
}

impl Probe<'_> {
    async fn ask(&self) -> Seen {
        let now = Instant::now();
        let keys = &self.probing.upstream.keys;
        let key = keys.take(now);
        let Some(provider) = self.probing.providers.get(key) else { return Seen::Unrecorded };
        let (path, query) = self.path();
        let body = self.active.body.as_ref().map(|body| Bytes::copy_from_slice(body.as_bytes()));
        let request = Request {
            method: self.method(),
            path,
            query,
            target: provider.target(path, query),
            headers: self.headers(),
            body: body.clone().unwrap_or_default(),
            within: self.active.timeout,
            most: ANSWER_BYTES,
        };
        let came = if body.is_some() {
            let Ok(retention) = Identifier::new(RETENTION) else { return Seen::Unrecorded };
            let told = Told {
                operation: OPERATION,
                caller: Caller::default(),
                route: None,
                scope: KeyScope::PerExchange,
                retention,
                keep_content: true,
            };
            match own::recorded(self.app, self.snapshot, provider, &request, told).await {
                Ok((_, came)) => came,
                Err(seen) => return seen,
            }
        } else {
            own::send(provider, &request).await
        };
        if let Some((head, _)) = &came.answer {
            keys.answered(key, head.status.as_u16(), retry_after(&head.headers), Instant::now());
        }
        came.seen
    }

    fn method(&self) -> Method {
        match self.active.method {
            config::Method::Get => Method::GET,
            config::Method::Post => Method::POST,
        }
    }

    fn path(&self) -> (&str, Option<&str>) {
        self.active
            .path
            .split_once('?')
            .map_or((self.active.path.as_str(), None), |(path, query)| (path, Some(query)))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.active.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &self.active.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers
    }
}
