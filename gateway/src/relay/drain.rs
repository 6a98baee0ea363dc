//! What is still read of an answer when its caller has left: the usage stands at its end (CA-6).
//!
//! Nothing more is delivered, so `delivered` stays what the caller got; `provider_response` holds what came, also
//! behind that. Bounded in bytes and time by the route's or provider's `drain_after_abort`. The exchange keeps its place
//! meanwhile, and its outcome is recorded when the reading ends.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use dialects::Meter;
use schemas::record::{End, ProviderEnd};

use super::live::{Ending, Live};
use super::rest::Rest;
use super::stream::END_WITHIN;
use crate::app::App;
use crate::config::Drain;

/// Takes an exchange whose caller has left in the middle of the answer: reads `body` on where its usage is still to
/// come and the setting lets it, else records the outcome at once.
pub(super) fn left(app: &Arc<App>, mut live: Live, body: Option<Rest>) {
    let (Some(bounds), Some(body)) = (bounds(app, &mut live), body) else {
        // It concludes itself.
        drop(live);
        return;
    };
    if let Some(open) = live.open() {
        open.intended.clock.ended = Some(Instant::now());
    }
    let owner = Arc::clone(app);
    app.outlive(async move {
        let (provider_end, drained) = drain(&owner, &mut live, body, bounds).await;
        let ending = Ending { provider_end: Some(provider_end), drained, ..Ending::new(End::ClientAbort) };
        // The ledger said why in its own log; the caller is gone.
        let _ = live.conclude(ending).await;
    });
}

/// How far to read on; `None`: not at all.
fn bounds(app: &App, live: &mut Live) -> Option<Drain> {
    if app.is_cutting() || app.over.is_cancelled() {
        return None;
    }
    let open = live.open()?;
    let wanted = open.meter.as_ref().is_some_and(Meter::wants_more);
    // Callers that wait come before what nobody waits for.
    let room = open.snapshot.places.available_permits() > 0;
    open.intended.target.drain.filter(|_| wanted && room)
}

/// Reads on until the usage is known and the provider has ended, or a bound is met. Gives how the provider's body
/// ended, and whether any byte was read.
async fn drain(app: &App, live: &mut Live, mut body: Rest, bounds: Drain) -> (ProviderEnd, bool) {
    let mut deadline = pin!(tokio::time::sleep(bounds.time));
    let (mut left, mut known, mut segments) = (bounds.bytes, false, Vec::new());
    loop {
        let read = left < bounds.bytes;
        let frame = tokio::select! {
            biased;
            () = app.over.cancelled() => return (ProviderEnd::Cut, read),
            frame = body.frame() => frame,
            () = deadline.as_mut() => {
                let end = if is_terminal(live) { ProviderEnd::NotAwaited } else { ProviderEnd::Cut };
                return (end, read);
            }
        };
        let data = match frame {
            None => return (ProviderEnd::Seen, read),
            Some(Err(_)) => return (ProviderEnd::Cut, read),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let Some(rest) = left.checked_sub(data.len() as u64) else { return (ProviderEnd::Cut, read) };
        let Some(open) = live.open() else { return (ProviderEnd::Cut, read) };
        let kept = open.came(&data);
        left = rest;
        if let Some(meter) = &mut open.meter {
            meter.feed(&data, &mut segments);
            segments.clear();
            if !known && !meter.wants_more() {
                // Its end, close behind, leaves a connection that can be used again.
                known = true;
                let soon = tokio::time::Instant::now() + END_WITHIN;
                let earlier = soon.min(deadline.deadline());
                deadline.as_mut().reset(earlier);
            }
        }
        if kept.is_err() {
            return (ProviderEnd::Cut, true);
        }
    }
}

fn is_terminal(live: &mut Live) -> bool {
    live.open().and_then(|open| open.meter.as_ref()).is_some_and(Meter::terminal)
}
