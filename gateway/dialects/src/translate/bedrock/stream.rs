//! The frames of ConverseStream.

use crate::event_stream::{FrameError, Message, Parser};
use crate::json::{self, integer, name, pick_bytes, present};
use crate::translate::bedrock::answer::{counted, failure, finished, unpacked};
use crate::translate::failure::{EVENT_BYTES, broken};
use crate::translate::form::{Dropped, Event, EventReader, Failure, Kinds, PartKind, Weight};

/// What a block is, of those that come.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
    /// Encrypted thinking, which is given only whole.
    Redacted(Vec<u8>),
    /// What the form has no place for.
    Skipped,
}

/// The block that is open.
#[derive(Debug)]
struct Open {
    /// Its number in the stream.
    block: i64,
    kind: Kind,
    /// Its number among the parts; none for a block that gives none, or none yet.
    index: usize,
}

/// Reads the stream.
pub(super) struct Reading {
    frames: Parser,
    state: State,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { frames: Parser::new(EVENT_BYTES), state: State::default() }
    }
}

impl EventReader for Reading {
    fn feed(&mut self, chunk: &[u8], events: &mut Vec<Event>) {
        let state = &mut self.state;
        self.frames.feed(chunk, &mut |event| {
            if let Some(frame) = event.frame {
                state.message(frame, events);
            }
        });
        if let Some(error) = self.frames.error() {
            state.fail(broken(&error.to_string()), events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.frames.finish();
        // A stream that ends inside a frame was cut, as one that lacks its last frames.
        if let Some(error) = self.frames.error().filter(|error| *error != FrameError::Truncated) {
            self.state.fail(broken(&error.to_string()), events);
        }
        self.state.over = true;
    }

    fn dropped(&mut self) -> Vec<Dropped> {
        self.state.dropped.take()
    }
}

#[derive(Default)]
struct State {
    begun: bool,
    over: bool,
    open: Option<Open>,
    parts: usize,
    dropped: Kinds,
}

impl State {
    fn message(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
        match message.kind {
            "exception" => {
                let [lower, upper] = pick_bytes(message.payload, &["message", "Message"]).unwrap_or_default();
                let told = name(lower).or_else(|| name(upper));
                self.fail(failure(None, text(message.exception), told), events);
            }
            "error" => {
                let failure = failure(None, text(message.error_code), text(message.error_message));
                self.fail(failure, events);
            }
            _ => self.event(message.event, message.payload, events),
        }
    }

    fn event(&mut self, event: &str, payload: &[u8], events: &mut Vec<Event>) {
        match event {
            "messageStart" => self.begin(events),
            "contentBlockStart" => self.start(payload, events),
            "contentBlockDelta" => self.delta(payload, events),
            "contentBlockStop" => self.stop(events),
            "messageStop" => {
                self.begin(events);
                self.stop(events);
                let [reason, fields] =
                    pick_bytes(payload, &["stopReason", "additionalModelResponseFields"]).unwrap_or_default();
                if let Some(reason) = name(reason) {
                    events.push(Event::Finish(finished(&reason, fields)));
                }
            }
            "metadata" => {
                self.begin(events);
                self.stop(events);
                let usage = pick_bytes(payload, &["usage"]).and_then(|[usage]| present(usage));
                events.extend(usage.and_then(counted).map(Event::Usage));
                events.push(Event::End);
                self.over = true;
            }
            _ => {}
        }
    }

    fn begin(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.begun, true) {
            events.push(Event::Begin { id: None, model: None, usage: None });
        }
    }

    fn start(&mut self, payload: &[u8], events: &mut Vec<Event>) {
        let [start, block] = pick_bytes(payload, &["start", "contentBlockIndex"]).unwrap_or_default();
        let block = integer(block).unwrap_or(0);
        let call =
            present(start).and_then(|start| json::pick(start, &["toolUse"])).and_then(|[call]| present(call));
        let told = call.and_then(|call| json::pick(call, &["toolUseId", "name", "type"]));
        match told {
            Some([id, function, kind]) if name(kind).as_deref() != Some("server_tool_use") => {
                let kind = PartKind::ToolUse {
                    id: name(id).unwrap_or_default(),
                    name: name(function).unwrap_or_default(),
                };
                self.open(block, Kind::Call, Some(kind), events);
            }
            // Text and thinking begin with their first piece: this is another kind of block.
            _ => {
                let media = present(start)
                    .and_then(|s| json::pick(s, &["image"]))
                    .is_some_and(|[i]| present(i).is_some());
                self.drop(if media { "media" } else { "server_tool" });
                self.open(block, Kind::Skipped, None, events);
            }
        }
    }

    fn delta(&mut self, payload: &[u8], events: &mut Vec<Event>) {
        let Some([delta, block]) = pick_bytes(payload, &["delta", "contentBlockIndex"]) else { return };
        let block = integer(block).unwrap_or(0);
        let Some([text, call, reasoning, citation]) =
            present(delta).and_then(|d| json::pick(d, &["text", "toolUse", "reasoningContent", "citation"]))
        else {
            return;
        };
        if self.open.as_ref().is_some_and(|open| open.block == block && open.kind == Kind::Skipped) {
            return;
        }
        if let Some(text) = present(text).and_then(json::string) {
            let index = self.ensure(block, Kind::Text, PartKind::Text, events);
            events.push(Event::Delta { index, text: text.into_owned() });
        } else if let Some(call) = present(call) {
            let input = json::pick(call, &["input"]).and_then(|[input]| name(input));
            match self.open.as_ref().filter(|open| open.block == block) {
                Some(Open { kind: Kind::Call, index, .. }) => {
                    events.extend(input.map(|text| Event::Delta { index: *index, text }));
                }
                _ => self
                    .fail(broken("the provider's stream has arguments of a call that was not begun"), events),
            }
        } else if let Some(reasoning) = present(reasoning) {
            self.reasoning(block, reasoning, events);
        } else if present(citation).is_some() {
            self.drop("citations");
        } else {
            self.drop("content");
        }
    }

    fn reasoning(&mut self, block: i64, reasoning: &str, events: &mut Vec<Event>) {
        let [text, signature, redacted] =
            json::pick(reasoning, &["text", "signature", "redactedContent"]).unwrap_or_default();
        if let Some(redacted) = name(redacted) {
            let piece = unpacked(&redacted).unwrap_or_default();
            match self.open.as_mut().filter(|open| open.block == block) {
                Some(Open { kind: Kind::Redacted(bytes), .. }) => bytes.extend(piece),
                _ => self.open(block, Kind::Redacted(piece), None, events),
            }
            return;
        }
        let index = self.ensure(block, Kind::Thinking, PartKind::Thinking, events);
        events.extend(name(text).map(|text| Event::Delta { index, text }));
        events.extend(name(signature).map(|signature| Event::Signature { index, signature }));
    }

    /// The number of the part that `block` is, which begins here where it has not yet.
    fn ensure(&mut self, block: i64, kind: Kind, part: PartKind, events: &mut Vec<Event>) -> usize {
        match self.open.as_ref().filter(|open| open.block == block && open.kind == kind) {
            Some(open) => open.index,
            None => {
                self.open(block, kind, Some(part), events);
                self.parts.saturating_sub(1)
            }
        }
    }

    fn open(&mut self, block: i64, kind: Kind, part: Option<PartKind>, events: &mut Vec<Event>) {
        self.begin(events);
        self.stop(events);
        let index = self.parts;
        if let Some(kind) = part {
            self.parts += 1;
            events.push(Event::PartBegin { index, kind });
        }
        self.open = Some(Open { block, kind, index });
    }

    fn stop(&mut self, events: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        match open.kind {
            Kind::Skipped => {}
            Kind::Redacted(bytes) => match String::from_utf8(bytes) {
                Ok(text) => {
                    let index = self.parts;
                    self.parts += 1;
                    events.push(Event::PartBegin { index, kind: PartKind::Redacted(text) });
                    events.push(Event::PartEnd { index });
                }
                Err(_) => self.drop("content"),
            },
            Kind::Text | Kind::Thinking | Kind::Call => events.push(Event::PartEnd { index: open.index }),
        }
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.over, true) {
            events.push(Event::Error(failure));
        }
    }

    /// Lists what has no place, once a kind.
    fn drop(&mut self, what: &'static str) {
        self.dropped.add("contentBlockDelta", what, Weight::Hint);
    }
}
