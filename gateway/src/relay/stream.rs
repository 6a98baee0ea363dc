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
use dialects::translate::Translator;
use dialects::{Framing, Meter, Operation, Segment};
use evidence::{Cut, Unavailable};
use http::HeaderMap;
use http_body::Frame;
use schemas::promise::Promise;
use schemas::record::{End, ProviderEnd};
use tokio::time::{Instant, Sleep};

use super::flow::CutOff;
use super::live::{Ending, Live, Open};
use super::outlive::Outliving;
use super::rest::Rest;
use super::{back, drain};
use crate::app::App;
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
    body: Option<Rest>,
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
    /// What of the bound of its bytes is left, where it has one.
    room: Option<u64>,
    /// Runs out when the answer has lasted as long as it may.
    time: Option<Pin<Box<Sleep>>>,
    /// How the body falls into events, where it does: one of the gateway's own may be put in.
    events: Option<Framing>,
    /// Whether the cut came in the middle of an event.
    half_event: bool,
    operation: Operation,
    exchange: String,
    /// The caller speaks another dialect than the provider.
    translator: Option<Translator>,
    /// What the caller gets behind the commit of an answer that broke off.
    last_words: Vec<Bytes>,
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
        body: Rest,
        chunks: Vec<Bytes>,
        (known, trails): (Option<u64>, bool),
        events: Option<Framing>,
        translator: Option<Translator>,
    ) -> Self {
        let bounds = live.open().map(|open| open.intended.target.bounds(&open.snapshot.limits));
        let bound = bounds.map_or(END_WITHIN, |bounds| bounds.idle);
        let time = bounds.and_then(|bounds| bounds.time);
        let (operation, exchange, is_coded) = match live.open() {
            Some(open) => {
                let is_coded = open.meter.as_ref().is_some_and(Meter::is_coded);
                (open.intended.operation, open.exchange.as_str().to_owned(), is_coded)
            }
            None => (Operation::OTHER, String::new(), false),
        };
        // Between coded bytes nothing can be said.
        let events = events.filter(|_| !is_coded);
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
            room: bounds.and_then(|bounds| bounds.bytes),
            time: time.map(|time| Box::pin(tokio::time::sleep(time))),
            state: State::Flowing,
            events,
            half_event: false,
            operation,
            exchange,
            translator,
            last_words: Vec::new(),
        };
        let mut left = chunks.as_slice();
        while let [_, behind @ ..] = left
            && matches!(stream.state, State::Flowing)
        {
            stream.comes(left);
            left = behind;
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

    /// Takes the first of these bytes of the provider, or cuts the answer where they are too many or cannot be journaled: then all
    /// of them, of which none goes any further, may still tell the usage.
    fn comes(&mut self, chunks: &[Bytes]) {
        let Some((bytes, behind)) = chunks.split_first() else { return };
        if let Some(room) = &mut self.room {
            match room.checked_sub(bytes.len() as u64) {
                Some(left) => *room = left,
                None => return self.exceeds(Reason::AnswerTooLarge, chunks),
            }
        }
        if let Err(cut) = self.live.as_mut().and_then(Live::open).map_or(Ok(()), |open| open.came(bytes)) {
            self.cut(&cut, chunks);
        } else if let Err(cut) = self.take(bytes) {
            self.cut(&cut, behind);
        }
    }

    /// Takes bytes of the provider that are journaled, and sorts them into what goes and what is held.
    fn take(&mut self, bytes: &Bytes) -> Result<(), Cut> {
        let Some(open) = self.live.as_mut().and_then(Live::open) else { return Ok(()) };
        open.saw_byte();
        self.segments.clear();
        match &mut open.meter {
            Some(meter) => meter.feed(bytes, &mut self.segments),
            None => self.segments.push(Segment::Forward(0..bytes.len())),
        }
        open.saw_output();
        let translator = self.translator.as_mut();
        sort(&mut self.segments, bytes, open, translator, (&mut self.queue, &mut self.held))?;
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
        let translator = self.translator.as_mut();
        sort(&mut self.segments, &Bytes::new(), open, translator, (&mut self.queue, &mut self.held))?;
        if let Some(translator) = &mut self.translator {
            let mut last = Vec::new();
            translator.end(&mut last);
            if !last.is_empty() {
                open.goes(&last)?;
                // The outcome is committed before any of it goes.
                self.held.push(Bytes::from(last));
            }
        }
        Ok(())
    }

    /// Has the outcome say what of the stream so far the caller did not get.
    fn tell_lost(&mut self) {
        if let (Some(translator), Some(open)) =
            (&mut self.translator, self.live.as_mut().and_then(Live::open))
        {
            open.loses(&translator.dropped());
        }
    }

    /// The exchange has ended: commits its outcome.
    fn end(&mut self, mut ending: Ending, then: Then) {
        self.tell_lost();
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

    fn cut(&mut self, cut: &Cut, unread: &[Bytes]) {
        self.breaks(Reason::Evidence(cut.0.reason), cut.to_string(), unread);
    }

    /// The answer is larger, or lasts longer, than it may; of what came this is `unread`.
    fn exceeds(&mut self, reason: Reason, unread: &[Bytes]) {
        if self.end_within.is_some() {
            // The terminal event came: the answer is whole, where a translator says so too.
            return match self.translator {
                Some(_) => self.over(ProviderEnd::Cut),
                None => self.complete(ProviderEnd::Cut),
            };
        }
        self.breaks(reason, "the answer exceeds its bound".to_owned(), unread);
    }

    /// The gateway cuts the answer, and says so where the dialect has a place for it.
    fn breaks(&mut self, reason: Reason, error: String, unread: &[Bytes]) {
        let meter = self.live.as_mut().and_then(Live::open).and_then(|open| open.meter.as_ref());
        // What is translated goes event by event.
        self.half_event = self.translator.is_none() && !meter.is_none_or(Meter::between_events);
        if let Some(live) = &mut self.live {
            back::took(live, unread);
        }
        let (event, released) = match reason {
            // Nothing is recorded any more, this neither.
            Reason::Evidence(_) => (self.events, 0),
            _ if self.translator.is_some() && self.translated_all() => (None, 0),
            _ => (None, self.says_why(reason)),
        };
        let ending = Ending {
            provider_end: Some(ProviderEnd::Cut),
            reason: Some(reason),
            error: Some(error),
            released,
            ..Ending::new(End::GatewayAbort)
        };
        self.end(ending, Then::Break { reason, event });
    }

    fn fail(&mut self, end: End, reason: Reason, error: String) {
        if self.end_within.is_some() && self.translated_all() {
            // The terminal event came: the answer is whole, whatever the connection did then.
            return self.complete(ProviderEnd::Cut);
        }
        // A translation goes in whole events, so that there is always a place for one more.
        let released = if self.translated_all() { 0 } else { self.says_why(reason) };
        let ending = Ending {
            provider_end: Some(ProviderEnd::Cut),
            reason: Some(reason),
            error: Some(error),
            released,
            ..Ending::new(end)
        };
        self.end(ending, Then::Break { reason, event: None });
    }

    /// Whether the caller of a translation got the end of its dialect, or an error. Without a translation nobody can tell.
    fn translated_all(&self) -> bool {
        self.translator.as_ref().is_none_or(|translator| translator.ended() || translator.failed())
    }

    /// Has the caller read why the answer broke off, behind what is on its way to it. Gives the length of what it gets behind the
    /// commit.
    fn says_why(&mut self, reason: Reason) -> u64 {
        let Some(framing) = self.events else { return 0 };
        let Some(event) = self.error_event(framing, reason) else { return 0 };
        let kept = self.live.as_mut().and_then(Live::open).map(|open| open.goes(&event));
        if let Some(Err(error)) = kept {
            tracing::warn!(%error, "an error event is not kept");
            return 0;
        }
        self.last_words.extend(self.queue.drain(..));
        self.last_words.push(event);
        self.last_words.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The provider's body is over, or nothing of it is awaited any more. A translated stream without its dialect's own end
    /// has none for its caller either.
    fn over(&mut self, provider_end: ProviderEnd) {
        if let Err(cut) = self.take_rest() {
            return self.cut(&cut, &[]);
        }
        if self.translated_all() {
            return self.complete(provider_end);
        }
        let error = "the provider's stream ended without its end".to_owned();
        self.fail(End::ProviderAbort, Reason::ProviderAborted, error);
    }

    /// Polls for more of the provider's bytes, or its end.
    fn poll_provider(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.time.as_mut().is_some_and(|time| time.as_mut().poll(cx).is_ready()) {
            self.exceeds(Reason::AnswerTooLong, &[]);
            return Poll::Ready(());
        }
        let Some(body) = &mut self.body else { return Poll::Pending };
        match body.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.touched();
                match frame.into_data() {
                    Ok(data) => self.comes(&[data]),
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
                self.over(ProviderEnd::Seen);
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail(End::ProviderAbort, Reason::ProviderAborted, error);
                Poll::Ready(())
            }
            Poll::Pending => {
                if let Some(within) = &mut self.end_within {
                    std::task::ready!(within.as_mut().poll(cx));
                    match self.translator {
                        Some(_) => self.over(ProviderEnd::NotAwaited),
                        None => self.complete(ProviderEnd::NotAwaited),
                    }
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
        self.queue.extend(self.last_words.drain(..));
        self.state = State::Breaking(Box::pin(tokio::time::sleep(LAST_WORDS)), reason);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tell_lost();
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
    mut translator: Option<&mut Translator>,
    (queue, held): (&mut VecDeque<Bytes>, &mut Vec<Bytes>),
) -> Result<(), Cut> {
    for segment in segments.drain(..) {
        let (piece, hold) = match segment {
            Segment::Forward(range) => (bytes.slice(range), false),
            Segment::Bytes(piece) => (piece, false),
            Segment::Held(piece) => (piece, true),
        };
        let piece = match &mut translator {
            Some(translator) => {
                let mut translated = Vec::new();
                translator.feed(&piece, &mut translated);
                Bytes::from(translated)
            }
            None => piece,
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
