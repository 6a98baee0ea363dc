//! A body that passes as it comes, and whose end waits for the outcome (CA-2).
//!
//! It ends exactly once: complete, failed, or dropped by the connection (then [`drain`] takes what is left of it).
//!
//! Bytes are journaled before they are passed on and wait for nothing. What is held back is: the last byte where
//! the length is known, the terminal event of a known dialect and all behind it, and the end itself.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dialects::{Framing, Meter, Operation, Segment};
use evidence::{Cut, Unavailable};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use schemas::promise::Promise;
use schemas::record::{End, ProviderEnd};
use tokio::time::{Instant, Sleep};

use super::drain;
use super::flow::CutOff;
use super::live::{Ending, Live, Open};
use super::outlive::Outliving;
use crate::app::App;
use crate::dispatch;
use crate::respond::{self, Reason};

/// How long the provider's end is awaited behind its terminal event (CA-2).
pub(super) const END_WITHIN: Duration = Duration::from_millis(250);

/// How long the connection has to send what it was given before it is cut.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The body of an answer that passes as it comes.
pub(crate) struct Stream {
    app: Arc<App>,
    live: Option<Live>,
    /// The provider's body, until the caller leaves.
    body: Option<Incoming>,
    /// Free to go.
    queue: VecDeque<Bytes>,
    /// Waits for the outcome.
    held: Vec<Bytes>,
    segments: Vec<Segment>,
    /// Bytes that are still to come, where the length is known.
    left: Option<u64>,
    trailers: Option<HeaderMap>,
    /// The outcome's promise goes in the trailers.
    trails: bool,
    idle: Idle,
    /// Runs from the terminal event on.
    end_within: Option<Pin<Box<Sleep>>>,
    state: State,
    /// How the body falls into events, where it does: one of the gateway's own may be put in.
    events: Option<Framing>,
    /// Whether the cut came in the middle of an event.
    half_event: bool,
    operation: Operation,
    exchange: String,
}

enum State {
    /// Bytes pass.
    Flowing,
    /// The outcome is on its way to the disk.
    Committing(Outliving<Result<Option<Promise>, Unavailable>>, Then),
    /// The outcome is durable: the end goes.
    Releasing,
    /// The connection gets a moment to send what it has, then it is cut.
    Breaking(Pin<Box<Sleep>>, Reason),
    /// Nothing comes any more.
    Over,
}

/// What follows the commit.
#[derive(Clone, Copy)]
enum Then {
    Release,
    Break { reason: Reason, event: Option<Framing> },
}

impl Stream {
    /// Passes `body` on, behind the `chunks` of it that came already. `known` is its whole length; with `trails` the caller
    /// gets the outcome's promise in a trailer.
    pub(crate) fn new(
        app: Arc<App>,
        mut live: Live,
        body: Incoming,
        chunks: Vec<Bytes>,
        (known, trails): (Option<u64>, bool),
        events: Option<Framing>,
    ) -> Self {
        let bound = live.open().map_or(END_WITHIN, |open| open.snapshot.limits.idle);
        let (operation, exchange) = match live.open() {
            Some(open) => (open.intended.operation, open.exchange.as_str().to_owned()),
            None => (Operation::OTHER, String::new()),
        };
        let mut stream = Self {
            app,
            live: Some(live),
            body: Some(body),
            queue: VecDeque::new(),
            held: Vec::new(),
            segments: Vec::new(),
            left: known,
            trailers: None,
            trails,
            idle: Idle::new(bound),
            end_within: None,
            state: State::Flowing,
            events,
            half_event: false,
            operation,
            exchange,
        };
        for chunk in chunks {
            if let Err(cut) = stream.take(&chunk) {
                stream.cut(&cut);
                break;
            }
        }
        stream
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The gateway's own last event; `None` where the dialect has no place for it.
    fn error_event(&self, framing: Framing, reason: Reason) -> Option<Bytes> {
        let event = dialects::own_error_event(
            &self.operation,
            framing,
            self.half_event,
            reason.status(),
            reason.name(),
            reason.message(),
            Some(&self.exchange),
        );
        event.map(Bytes::from)
    }

    /// Takes bytes of the provider: journals them, and sorts them into what goes and what is held.
    fn take(&mut self, bytes: &Bytes) -> Result<(), Cut> {
        let Some(open) = self.live.as_mut().and_then(Live::open) else { return Ok(()) };
        open.saw_byte();
        open.came(bytes)?;
        self.segments.clear();
        match &mut open.meter {
            Some(meter) => meter.feed(bytes, &mut self.segments),
            None => self.segments.push(Segment::Forward(0..bytes.len())),
        }
        open.saw_output();
        sort(&mut self.segments, bytes, open, &mut self.queue, &mut self.held)?;
        if self.end_within.is_none() && open.meter.as_ref().is_some_and(Meter::terminal) {
            self.end_within = Some(Box::pin(tokio::time::sleep(END_WITHIN)));
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes.len() as u64);
            if *left == 0 && self.held.is_empty() {
                // The last byte is the end: only it waits.
                if let Some(mut last) = self.queue.pop_back() {
                    let end = last.split_off(last.len().saturating_sub(1));
                    if !last.is_empty() {
                        self.queue.push_back(last);
                    }
                    self.held.push(end);
                }
            }
        }
        Ok(())
    }

    /// The provider's bytes have ended: what waited for the end of its event goes too.
    fn take_rest(&mut self) -> Result<(), Cut> {
        let Some(open) = self.live.as_mut().and_then(Live::open) else { return Ok(()) };
        self.segments.clear();
        if let Some(meter) = &mut open.meter {
            meter.end(&mut self.segments);
        }
        sort(&mut self.segments, &Bytes::new(), open, &mut self.queue, &mut self.held)
    }

    /// The exchange has ended: commits its outcome.
    fn end(&mut self, mut ending: Ending, then: Then) {
        let Some(live) = self.live.take() else {
            self.state = State::Over;
            return;
        };
        let complete = matches!(then, Then::Release);
        if complete {
            // What was not handed over yet is let go by the commit.
            let late: Vec<Bytes> = self.queue.drain(..).collect();
            self.held.splice(..0, late);
            ending.released = self.held.iter().map(|piece| piece.len() as u64).sum();
        }
        let mut commit = Outliving::new(&self.app, live.conclude(ending));
        if complete {
            commit = commit.when_left(|app| app.telemetry.released_lost());
        } else {
            self.queue.clear();
        }
        self.state = State::Committing(commit, then);
    }

    fn complete(&mut self, provider_end: ProviderEnd) {
        self.end(Ending { provider_end: Some(provider_end), ..Ending::new(End::Complete) }, Then::Release);
    }

    fn cut(&mut self, cut: &Cut) {
        let meter = self.live.as_mut().and_then(Live::open).and_then(|open| open.meter.as_ref());
        let event = self.events.filter(|_| !meter.is_some_and(Meter::is_coded));
        self.half_event = !meter.is_none_or(Meter::between_events);
        let reason = Reason::Evidence(cut.0.reason);
        let ending = Ending {
            provider_end: Some(ProviderEnd::Cut),
            reason: Some(reason),
            error: Some(cut.to_string()),
            ..Ending::new(End::GatewayAbort)
        };
        self.end(ending, Then::Break { reason, event });
    }

    fn fail(&mut self, end: End, reason: Reason, error: String) {
        if self.end_within.is_some() {
            // The terminal event came: the answer is whole, whatever the connection did then.
            return self.complete(ProviderEnd::Cut);
        }
        let ending = Ending {
            provider_end: Some(ProviderEnd::Cut),
            reason: Some(reason),
            error: Some(error),
            ..Ending::new(end)
        };
        self.end(ending, Then::Break { reason, event: None });
    }

    /// Polls for more of the provider's bytes, or its end.
    fn poll_provider(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Pending };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.touched();
                match frame.into_data() {
                    Ok(data) => {
                        if let Err(cut) = self.take(&data) {
                            self.cut(&cut);
                        }
                    }
                    Err(frame) => {
                        let open = self.live.as_mut().and_then(Live::open);
                        self.trailers = open
                            .zip(frame.into_trailers().ok())
                            .and_then(|(open, trailers)| open.snapshot.filter.trailers(trailers));
                    }
                }
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                match self.take_rest() {
                    Ok(()) => self.complete(ProviderEnd::Seen),
                    Err(cut) => self.cut(&cut),
                }
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail(End::ProviderAbort, Reason::ProviderAborted, dispatch::chain(&error));
                Poll::Ready(())
            }
            Poll::Pending => {
                if let Some(within) = &mut self.end_within {
                    std::task::ready!(within.as_mut().poll(cx));
                    self.complete(ProviderEnd::NotAwaited);
                    return Poll::Ready(());
                }
                std::task::ready!(self.idle.poll(cx));
                let text = format!("no byte of the provider within {} s", self.idle.bound.as_secs_f64());
                self.fail(End::Timeout, Reason::ProviderTimeout, text);
                Poll::Ready(())
            }
        }
    }

    /// As [`http_body::Body::poll_frame`].
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        loop {
            if let Some(bytes) = self.queue.pop_front() {
                if let Some(open) = self.live.as_mut().and_then(Live::open) {
                    open.delivered += bytes.len() as u64;
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match &mut self.state {
                State::Flowing => std::task::ready!(self.poll_provider(cx)),
                State::Committing(commit, then) => {
                    let then = *then;
                    let committed = std::task::ready!(Pin::new(commit).poll(cx));
                    self.committed(committed, then);
                }
                State::Releasing => {
                    self.state = State::Over;
                    return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                State::Breaking(moment, reason) => {
                    let reason = *reason;
                    std::task::ready!(moment.as_mut().poll(cx));
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(CutOff { reason })));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn committed(&mut self, committed: Result<Option<Promise>, Unavailable>, then: Then) {
        let (reason, event) = match (committed, then) {
            (Ok(promise), Then::Release) => {
                if let Some(promise) = promise.filter(|_| self.trails) {
                    let trailers = self.trailers.get_or_insert_default();
                    respond::promised(trailers, respond::OUTCOME_RECEIPT, Some(&promise));
                }
                self.queue.extend(self.held.drain(..));
                self.state = State::Releasing;
                return;
            }
            (Err(unavailable), Then::Release) => (Reason::Evidence(unavailable.reason), self.events),
            (_, Then::Break { reason, event }) => (reason, event),
        };
        self.held.clear();
        let event = event.and_then(|framing| self.error_event(framing, reason));
        self.queue.extend(event);
        self.state = State::Breaking(Box::pin(tokio::time::sleep(LAST_WORDS)), reason);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            drain::left(&self.app, live, self.body.take());
        }
        if matches!(self.state, State::Releasing) && !self.queue.is_empty() {
            self.app.telemetry.released_lost();
        }
    }
}

/// Sorts what the meter says of `bytes` into what goes and what is held.
fn sort(
    segments: &mut Vec<Segment>,
    bytes: &Bytes,
    open: &mut Open,
    queue: &mut VecDeque<Bytes>,
    held: &mut Vec<Bytes>,
) -> Result<(), Cut> {
    for segment in segments.drain(..) {
        let (piece, hold) = match segment {
            Segment::Forward(range) => (bytes.slice(range), false),
            Segment::Bytes(piece) => (piece, false),
            Segment::Held(piece) => (piece, true),
        };
        if piece.is_empty() {
            continue;
        }
        open.goes(&piece)?;
        if hold || !held.is_empty() { held.push(piece) } else { queue.push_back(piece) }
    }
    Ok(())
}

/// Time without a byte. The timer is set when first waited on, and moved only when it fires early.
struct Idle {
    bound: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(bound: Duration) -> Self {
        Self { bound, last: Instant::now(), timer: None }
    }

    fn touched(&mut self) {
        self.last = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.last + self.bound;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
