//! Beside a response as it passes: what it says, where its output begins, and which bytes wait for the commit.
//!
//! Bytes are forwarded as they come. Held are the terminal event (CA-2) and everything behind it; where usage was
//! asked for on the caller's behalf, each event waits until it is whole, so that the trace of the asking can be
//! taken out. A frame of AWS waits too: no reader can use a part of one. The facts and the forwarded bytes do not depend
//! on how the bytes are cut into chunks.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use schemas::record::{UsageRole, UsageSource};

use crate::coding::{Caps, Decoder, codings};
use crate::facts::{AnswerFacts, Gathered, ProviderError, Unread, error_name, request_id, retry_after_s};
use crate::failure::{self, FailureClass};
use crate::json::{pick_bytes, present};
use crate::operation::Operation;
use crate::ratelimit::rate_limits;
use crate::splice::{Trace, trace_of_asking};
use crate::sse::Event;
use crate::usage::Counts;
use crate::wire::{Close, Frames, Framing, Wire};

/// What to do with bytes of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Forward this range of the wire bytes just given.
    Forward(Range<usize>),
    /// Forward these bytes: kept from earlier wire bytes, or with something taken out.
    Bytes(Bytes),
    /// Keep these bytes until the outcome is committed, then forward them.
    Held(Bytes),
}

/// How much of a response is kept in memory to be read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One event of a stream.
    pub event_bytes: usize,
    /// A whole body.
    pub body_bytes: usize,
    /// A coded body, decoded.
    pub decoded: Caps,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes: 16 << 20, body_bytes: 32 << 20, decoded: Caps { bytes: 1 << 30, ratio: 1000 } }
    }
}

/// How a stream begins, or what a whole answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// With something that is no failure.
    Well,
    /// With a failure before any output: what status it would have had as an answer, and what it means.
    Failed {
        /// 400 to 599.
        status: u16,
        /// What it means, where it is more than its status.
        class: Option<FailureClass>,
    },
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The provider ended it.
    Complete,
    /// It was cut, by whomever.
    Cut,
    /// The caller had gone; it was read on for its usage.
    Drained,
}

#[derive(Debug)]
enum Body {
    /// The first bytes have to tell whether it is a stream.
    Probing(Vec<u8>),
    Stream(Frames),
    Whole(Vec<u8>),
    /// Bytes that say nothing: audio, images, files.
    Opaque,
}

/// Reads one response as it passes.
pub struct Meter {
    wire: &'static dyn Wire,
    operation: Operation,
    status: u16,
    limits: Limits,
    /// Traces of the asking for usage are taken out.
    stripping: bool,
    /// Each event is passed on when it is whole.
    waits: bool,
    decoder: Decoder,
    body: Body,
    gathered: Gathered,
    terminal: bool,
    holding: bool,
    /// Whether an event was read.
    began: bool,
    unread: Option<Unread>,
    /// Wire bytes of an unfinished event, where events wait.
    waiting: Vec<u8>,
    /// The CR that ends a dropped event was a chunk's last byte: its LF is to be dropped too.
    drop_lf: bool,
    /// The name of an error that the head has beside the body.
    error_name: Option<String>,
    request_id: Option<String>,
    retry_after_s: Option<i64>,
    rate_limits: std::collections::BTreeMap<String, i64>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("operation", &self.operation)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Meter {
    /// A meter for the response with this head. `stripping`: usage was asked for on the caller's behalf.
    pub fn new(
        operation: Operation,
        status: u16,
        headers: &HeaderMap,
        stripping: bool,
        limits: Limits,
    ) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (stack, unread) = match codings(headers) {
            Ok(stack) => (stack, None),
            Err(error) => (Vec::new(), Some(Unread::Coding(error))),
        };
        let wire = operation.dialect().wire();
        let framing = wire.framing(&operation, &kind).filter(|_| status < 400);
        // An error holds no trace of the asking, and no frame does.
        let stripping = stripping && status < 400 && framing != Some(Framing::Frames);
        let body = if unread.is_some() {
            Body::Opaque
        } else if let Some(framing) = framing {
            Body::Stream(Frames::new(framing, limits.event_bytes))
        } else if kind.is_empty() || kind.starts_with("text/") || kind.ends_with("json") || status >= 400 {
            // Errors come under any media type.
            Body::Probing(Vec::new())
        } else {
            Body::Opaque
        };
        let decoder = Decoder::new(&stack, limits.decoded);
        let mut gathered = Gathered::default();
        wire.head(&mut gathered, status, headers);
        Self {
            wire,
            operation,
            status,
            limits,
            stripping,
            waits: decoder.is_identity() && (stripping || framing == Some(Framing::Frames)),
            decoder,
            body,
            gathered,
            terminal: false,
            holding: false,
            began: false,
            unread,
            waiting: Vec::new(),
            drop_lf: false,
            error_name: error_name(headers).filter(|_| status >= 400),
            request_id: request_id(headers),
            retry_after_s: retry_after_s(headers),
            rate_limits: rate_limits(operation.dialect(), headers),
        }
    }

    /// Has the answer's words kept for as long as nothing tells its usage.
    pub fn keep_words(&mut self) {
        if self.status < 400 {
            self.gathered.said.get_or_insert_default();
        }
    }

    /// True once model output was seen in a stream.
    pub fn saw_output(&self) -> bool {
        self.gathered.output
    }

    /// How its stream began, once an event of it was read.
    pub fn opened(&self) -> Option<Opened> {
        let failed = said(&self.gathered).filter(|_| !self.gathered.output);
        failed.or(self.began.then_some(Opened::Well))
    }

    /// What a body is that was fed whole: an answer, or a failure under a status that does not say so. One that made nothing, or
    /// that cannot be read, is an answer.
    pub fn whole(mut self) -> Opened {
        if !self.operation.uses_tokens() || self.unread.is_some() || self.status >= 400 {
            return Opened::Well;
        }
        match std::mem::replace(&mut self.body, Body::Opaque) {
            Body::Whole(body) | Body::Probing(body) => {
                self.wire.body(&mut self.gathered, &self.operation, self.status, &body);
                // Beside output it tells what was left out of it.
                if self.gathered.error.is_none() && !self.gathered.output {
                    self.gathered.error = top_error(&body);
                }
                said(&self.gathered).unwrap_or(Opened::Well)
            }
            Body::Stream(_) => self.opened().unwrap_or(Opened::Well),
            Body::Opaque => Opened::Well,
        }
    }

    /// True once the terminal event was parsed.
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// True while more of the body could tell its usage: it is read, and its last word has not come.
    pub fn wants_more(&self) -> bool {
        let read = !matches!(self.body, Body::Opaque) && self.unread.is_none() && self.status < 400;
        let over = self.terminal || self.gathered.final_usage;
        read && !over && self.operation.uses_tokens()
    }

    /// True once bytes are held for the commit.
    pub fn holding(&self) -> bool {
        self.holding
    }

    /// How the body falls into events; `None` where it is no stream, or not known yet to be one.
    pub fn framing(&self) -> Option<Framing> {
        match &self.body {
            Body::Stream(parser) => Some(parser.framing()),
            _ => None,
        }
    }

    /// True for a body under a content coding: nothing can be put in there.
    pub fn is_coded(&self) -> bool {
        !self.decoder.is_identity()
    }

    /// True for a stream that stands between two events: an event of the gateway's own may be put in here.
    pub fn between_events(&self) -> bool {
        match &self.body {
            // An event that is not whole was not passed on.
            Body::Stream(parser) => self.waits || parser.between_events(),
            _ => false,
        }
    }

    /// Takes wire bytes and says in order what to do with them.
    pub fn feed(&mut self, wire: &[u8], out: &mut Vec<Segment>) {
        if wire.is_empty() {
            return;
        }
        if let (Body::Probing(first), true) = (&mut self.body, self.decoder.is_identity()) {
            first.extend_from_slice(wire);
            if let Some(next) = probe(first, self.limits) {
                let first = std::mem::take(first);
                // Bytes of a probe were forwarded already; an event that they begin cannot be held back whole.
                let earlier = first.len() - wire.len();
                self.body = next;
                if matches!(self.body, Body::Stream(_)) {
                    if earlier > 0 {
                        self.waits = false;
                        self.read_events(first.get(..earlier).unwrap_or_default());
                    }
                } else {
                    self.read_decoded(&first);
                    out.push(Segment::Forward(0..wire.len()));
                    return;
                }
            } else {
                out.push(Segment::Forward(0..wire.len()));
                return;
            }
        }
        match (&self.body, self.decoder.is_identity()) {
            (Body::Stream(_), true) if self.waits => self.feed_whole(wire, out),
            (Body::Stream(_), true) => self.feed_stream(wire, out),
            (_, true) => {
                self.read_decoded(wire);
                out.push(Segment::Forward(0..wire.len()));
            }
            (_, false) => self.feed_coded(wire, out),
        }
    }

    fn hold_or_forward(&self, wire: &[u8], cut: usize, out: &mut Vec<Segment>) {
        if cut > 0 {
            out.push(Segment::Forward(0..cut));
        }
        if let Some(held) = wire.get(cut..).filter(|held| !held.is_empty()) {
            out.push(Segment::Held(Bytes::copy_from_slice(held)));
        }
    }

    fn feed_stream(&mut self, wire: &[u8], out: &mut Vec<Segment>) {
        let held_before = self.holding;
        let first_terminal = self.read_events(wire);
        let cut = match (held_before, first_terminal) {
            (true, _) => 0,
            (false, Some(start)) => start,
            (false, None) => self.unfinished_terminal().unwrap_or(wire.len()),
        };
        self.holding |= cut < wire.len();
        self.hold_or_forward(wire, cut, out);
    }

    /// Reads events; where the first one of this chunk begins that is held.
    fn read_events(&mut self, chunk: &[u8]) -> Option<usize> {
        let Body::Stream(parser) = &mut self.body else { return None };
        let (gathered, terminal) = (&mut self.gathered, &mut self.terminal);
        let (wire, operation) = (self.wire, &self.operation);
        let began = &mut self.began;
        let mut first = None;
        parser.feed(chunk, &mut |event| {
            // A comment that keeps the connection alive is none.
            *began |= !event.data.is_empty() || event.frame.is_some();
            let close = read_event(wire, operation, gathered, &event);
            *terminal |= close == Close::Ends;
            if close != Close::No {
                first.get_or_insert(event.start);
            }
        });
        if let Some(unread) = parser.stopped(self.limits.event_bytes) {
            self.unread.get_or_insert(unread);
        }
        first
    }

    /// Where an unfinished event begins that can only be one that is held.
    fn unfinished_terminal(&self) -> Option<usize> {
        let Body::Stream(parser) = &self.body else { return None };
        let event = parser.unfinished()?;
        self.wire.closes(&event).then_some(event.start)
    }

    fn feed_coded(&mut self, wire: &[u8], out: &mut Vec<Segment>) {
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(&[], Caps::default()));
        let read = decoder.feed(wire, &mut |piece| self.read_probing(piece));
        self.decoder = decoder;
        if let Err(error) = read
            && self.unread.is_none()
        {
            self.unread = Some(Unread::Coding(error));
        }
        let hold =
            self.holding || self.terminal || self.gathered.closing || self.unfinished_terminal().is_some();
        self.holding = hold;
        self.hold_or_forward(wire, if hold { 0 } else { wire.len() }, out);
    }

    /// Reads decoded bytes whose kind may not yet be known.
    fn read_probing(&mut self, piece: &[u8]) {
        if let Body::Probing(first) = &mut self.body {
            first.extend_from_slice(piece);
            if let Some(next) = probe(first, self.limits) {
                let first = std::mem::take(first);
                self.body = next;
                self.read_decoded(&first);
            }
        } else {
            self.read_decoded(piece);
        }
    }

    fn read_decoded(&mut self, piece: &[u8]) {
        match &mut self.body {
            Body::Stream(_) => {
                self.read_events(piece);
            }
            Body::Whole(body) => {
                if body.len() + piece.len() > self.limits.body_bytes {
                    self.body = Body::Opaque;
                    self.unread.get_or_insert(Unread::BodyTooLarge { limit: self.limits.body_bytes });
                } else {
                    body.extend_from_slice(piece);
                }
            }
            Body::Probing(_) | Body::Opaque => {}
        }
    }

    /// Passes each event on when it is whole; where usage was asked for, without the trace of the asking.
    fn feed_whole(&mut self, wire: &[u8], out: &mut Vec<Segment>) {
        let mut at = 0;
        if std::mem::take(&mut self.drop_lf) && wire.first() == Some(&b'\n') {
            at = 1;
        }
        if self.holding {
            self.read_events(wire);
            out.push(Segment::Held(Bytes::copy_from_slice(wire.get(at..).unwrap_or_default())));
            return;
        }
        let Body::Stream(parser) = &mut self.body else { return };
        let (gathered, dialect, operation) = (&mut self.gathered, self.wire, &self.operation);
        let stripping = self.stripping;
        let mut events: Vec<Placed> = Vec::new();
        parser.feed(wire, &mut |event| {
            let close = read_event(dialect, operation, gathered, &event);
            let traced = stripping && event.data_lines == 1;
            let trace = if traced { trace_of_asking(event.data) } else { Trace::None };
            events.push(Placed {
                end: event.end,
                open_cr: event.open_cr,
                close,
                edit: Edit::of(trace, event.data),
            });
        });
        let stopped = parser.stopped(self.limits.event_bytes);
        self.began |= !events.is_empty();
        for event in events {
            self.terminal |= event.close == Close::Ends;
            let fresh = wire.get(at..event.end).unwrap_or_default();
            if self.holding || event.close != Close::No {
                // From here on all is held: the rest of this chunk goes with it.
                self.holding = true;
                continue;
            }
            match event.edit {
                Edit::Keep if self.waiting.is_empty() => forward(out, at..event.end),
                Edit::Keep => {
                    self.waiting.extend_from_slice(fresh);
                    out.push(Segment::Bytes(std::mem::take(&mut self.waiting).into()));
                }
                Edit::Drop => {
                    self.waiting.clear();
                    self.drop_lf = event.open_cr;
                }
                Edit::Cut { data, cut } => {
                    self.waiting.extend_from_slice(fresh);
                    let whole = std::mem::take(&mut self.waiting);
                    out.push(Segment::Bytes(without(whole, &data, cut).into()));
                }
            }
            at = event.end;
        }
        let rest = wire.get(at..).unwrap_or_default();
        if let Some(unread) = stopped {
            self.unread.get_or_insert(unread);
            self.waits = false;
        }
        if self.holding || self.unfinished_terminal().is_some() {
            self.holding = true;
            let mut held = std::mem::take(&mut self.waiting);
            held.extend_from_slice(rest);
            out.push(Segment::Held(held.into()));
        } else if !self.waits {
            if !self.waiting.is_empty() {
                out.push(Segment::Bytes(std::mem::take(&mut self.waiting).into()));
            }
            forward(out, at..wire.len());
        } else {
            self.waiting.extend_from_slice(rest);
        }
    }

    /// The provider's bytes have ended: gives those that waited for the end of their event.
    pub fn end(&mut self, out: &mut Vec<Segment>) {
        if !self.waiting.is_empty() {
            out.push(Segment::Bytes(std::mem::take(&mut self.waiting).into()));
        }
    }

    /// The facts. Bytes that [`Meter::end`] did not fetch are lost.
    pub fn finish(mut self, cause: Cause) -> AnswerFacts {
        if cause == Cause::Complete
            && let Err(error) = self.decoder.finish()
        {
            self.unread.get_or_insert(Unread::Coding(error));
        }
        let streamed = matches!(self.body, Body::Stream(_));
        match std::mem::replace(&mut self.body, Body::Opaque) {
            Body::Stream(mut parser) => {
                let (gathered, terminal) = (&mut self.gathered, &mut self.terminal);
                let (wire, operation) = (self.wire, &self.operation);
                parser.finish(&mut |event| {
                    *terminal |= read_event(wire, operation, gathered, &event) == Close::Ends;
                });
                if let Some(unread) = parser.stopped(self.limits.event_bytes)
                    && cause == Cause::Complete
                {
                    self.unread.get_or_insert(unread);
                }
            }
            Body::Whole(body) | Body::Probing(body) => {
                self.wire.body(&mut self.gathered, &self.operation, self.status, &body);
                if self.gathered.counts.is_none()
                    && let Some(said) = &mut self.gathered.said
                {
                    said.body(&body);
                }
            }
            Body::Opaque => {}
        }
        self.wire.settle(&mut self.gathered);
        let convention = self.wire.convention(&self.gathered);
        let gathered = self.gathered;
        let transport = gathered.beside.transport;
        // An error that ends a stream says nothing of what was used until then.
        let last_word = gathered.final_usage || self.terminal && gathered.error.is_none();
        let source = match cause {
            Cause::Complete if streamed && !last_word && self.wire.counts_run() => UsageSource::Partial,
            Cause::Complete => UsageSource::Provider,
            Cause::Cut if last_word => UsageSource::Provider,
            Cause::Drained if last_word => UsageSource::Drained,
            Cause::Cut | Cause::Drained => UsageSource::Partial,
        };
        let mut usage = Counts::usage(gathered.counts.as_ref(), &self.operation, convention, source);
        if self.status >= 400 && gathered.counts.is_none() && usage.role == UsageRole::Incurred {
            // Nothing was made, so there is nothing that it could have incurred.
            usage.role = UsageRole::None;
        }
        let said = gathered.said.filter(|_| gathered.counts.is_none());
        let counts = gathered.counts.unwrap_or_default();
        let error = gathered.error.unwrap_or_default();
        AnswerFacts {
            served_model: gathered.served_model,
            response_id: gathered.response_id,
            request_id: self.request_id,
            finish_reasons: gathered.finish_reasons,
            finish_detail: gathered.finish_detail,
            tool_calls: gathered.calls.count,
            server_tool_calls: gathered.server_calls,
            tool_names: gathered.calls.names,
            error_type: error.kind.or(self.error_name),
            error_code: error.code,
            error_message: error.message,
            service_tier: served_tier(gathered.service_tier, gathered.speed, gathered.inference_geo),
            retry_after_s: self.retry_after_s,
            usage,
            billed_input: counts.billed_input,
            billed_output: counts.billed_output,
            search_units: counts.search_units,
            usage_regressed: counts.regressed_from(&gathered.peak),
            other_model_runs: counts.further.other_models,
            transport_tokens: [
                transport.and_then(|counts| counts.reported.input),
                transport.and_then(|counts| counts.reported.output),
            ],
            rate_limits: self.rate_limits,
            unread: self.unread,
            said,
        }
    }
}

/// What an answer says of its failure, whatever its status.
fn said(gathered: &Gathered) -> Option<Opened> {
    // An empty text beside an answer is no error.
    if let Some(error) = gathered.error.as_ref().filter(|error| error.says_something()) {
        return Some(Opened::Failed { status: failure::status_of(error), class: failure::of_event(error) });
    }
    let filtered = Opened::Failed { status: 400, class: Some(FailureClass::ContentFilter) };
    failure::is_filtered(gathered).then_some(filtered)
}

/// The error that stands at the top of a body in the place of an answer, whoever wrote it.
fn top_error(body: &[u8]) -> Option<ProviderError> {
    let [error] = pick_bytes(body, &["error"])?;
    present(error).and_then(ProviderError::read)
}

/// The facts of a body at hand, coded as its headers say.
pub fn response_facts(operation: &Operation, status: u16, headers: &HeaderMap, body: &[u8]) -> AnswerFacts {
    let mut meter = Meter::new(*operation, status, headers, false, Limits::default());
    meter.feed(body, &mut Vec::new());
    meter.finish(Cause::Complete)
}

/// The tier that served, with a word behind a `/` for what else changes the price: `standard/fast`, `standard/us`,
/// `batch/us`.
fn served_tier(tier: Option<String>, speed: Option<String>, geo: Option<String>) -> Option<String> {
    let speed = speed.filter(|speed| speed != "standard" && !speed.is_empty());
    let geo = geo.filter(|geo| !matches!(geo.as_str(), "global" | "not_available" | ""));
    let words: Vec<String> = [speed, geo].into_iter().flatten().collect();
    if words.is_empty() {
        return tier;
    }
    Some(format!("{}/{}", tier.as_deref().unwrap_or("standard"), words.join("/")))
}

fn read_event(wire: &dyn Wire, operation: &Operation, gathered: &mut Gathered, event: &Event<'_>) -> Close {
    if event.data_lines == 0 {
        return Close::No;
    }
    let close = wire.event(gathered, operation, event);
    if gathered.counts.is_none()
        && let Some(said) = &mut gathered.said
    {
        said.event(event.data);
    }
    gathered.closing |= close != Close::No;
    close
}

/// What the first bytes of a body say that it is; `None` where more are needed.
fn probe(first: &[u8], limits: Limits) -> Option<Body> {
    let begun = first.strip_prefix("\u{feff}".as_bytes()).unwrap_or(first);
    for mark in [&b"data:"[..], b"event:", b": "] {
        if begun.starts_with(mark) {
            return Some(Body::Stream(Frames::new(Framing::ServerSent, limits.event_bytes)));
        }
        if mark.starts_with(begun) {
            return None;
        }
    }
    if "\u{feff}".as_bytes().starts_with(first) {
        return None;
    }
    Some(Body::Whole(Vec::new()))
}

struct Placed {
    end: usize,
    open_cr: bool,
    close: Close,
    edit: Edit,
}

enum Edit {
    Keep,
    Drop,
    /// Take the range `cut` of `data` out of the event's bytes.
    Cut {
        data: Vec<u8>,
        cut: Range<usize>,
    },
}

impl Edit {
    fn of(trace: Trace, data: &[u8]) -> Self {
        match trace {
            Trace::None => Self::Keep,
            Trace::Event => Self::Drop,
            Trace::Member(cut) => Self::Cut { data: data.to_vec(), cut },
        }
    }
}

fn without(mut event: Vec<u8>, data: &[u8], cut: Range<usize>) -> Vec<u8> {
    if let Some(at) = memchr::memmem::find(&event, data) {
        event.drain(at + cut.start..at + cut.end);
    }
    event
}

fn forward(out: &mut Vec<Segment>, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    if let Some(Segment::Forward(last)) = out.last_mut()
        && last.end == range.start
    {
        last.end = range.end;
        return;
    }
    out.push(Segment::Forward(range));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Dialect;

    #[test]
    fn what_changes_the_price_stands_behind_the_tier() {
        let table = [
            (r#""service_tier":"standard""#, Some("standard")),
            (r#""service_tier":"standard","speed":"standard","inference_geo":"global""#, Some("standard")),
            (r#""service_tier":"standard","inference_geo":"not_available""#, Some("standard")),
            (r#""service_tier":"standard","inference_geo":"us""#, Some("standard/us")),
            (r#""service_tier":"batch","inference_geo":"us""#, Some("batch/us")),
            (r#""service_tier":"standard","speed":"fast""#, Some("standard/fast")),
            (r#""speed":"fast","inference_geo":"us""#, Some("standard/fast/us")),
            (r#""speed":null,"inference_geo":null"#, None),
            (r#""service_tier":"standard","speed":7"#, Some("standard/unread")),
            (r#""inference_geo":["us"]"#, Some("standard/unread")),
        ];
        let operation = crate::operation(Dialect::Anthropic, &http::Method::POST, "/v1/messages");
        for (usage, tier) in table {
            let message = format!(
                r#"{{"type":"message","id":"m","model":"claude","content":[],"usage":{{"input_tokens":1,"output_tokens":1,{usage}}}}}"#
            );
            let headers = HeaderMap::new();
            let whole = response_facts(&operation, 200, &headers, message.as_bytes());
            assert_eq!(whole.service_tier.as_deref(), tier, "{usage}");
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
            let start = format!(
                "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\n\n"
            );
            let streamed = response_facts(&operation, 200, &headers, start.as_bytes());
            assert_eq!(streamed.service_tier.as_deref(), tier, "{usage}, streamed");
        }
    }
}
