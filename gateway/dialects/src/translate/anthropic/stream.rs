//! Events of the messages API.

use std::collections::BTreeMap;

use super::answer::{explanation, head, read_finish, usage, write_error, write_finish, write_usage};
use crate::json::{integer, name, pick, pick_bytes, present, string};
use crate::sse::Parser;
use crate::translate::failure::{self, EVENT_BYTES, too_large};
use crate::translate::form::{
    Asked, Dropped, Event, EventReader, EventWriter, Failure, Finish, Kinds, PartKind, Usage, Weight,
};
use crate::translate::text::Writer;
use crate::usage::Counts;

/// The most blocks that may be open at once; the API has one.
const OPEN_BLOCKS: usize = 64;

/// Reads events.
pub(super) struct Reading {
    parser: Parser,
    state: State,
}

#[derive(Default)]
struct State {
    model: Option<String>,
    counts: Counts,
    /// The parts of the blocks that are open.
    open: BTreeMap<i64, usize>,
    parts: usize,
    over: bool,
    dropped: Kinds,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { parser: Parser::new(EVENT_BYTES), state: State::default() }
    }
}

impl EventReader for Reading {
    fn feed(&mut self, chunk: &[u8], events: &mut Vec<Event>) {
        let state = &mut self.state;
        self.parser.feed(chunk, &mut |event| state.event(event.name, event.data, events));
        if self.parser.stopped() {
            self.state.fail(too_large(), events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let state = &mut self.state;
        self.parser.finish(&mut |event| state.event(event.name, event.data, events));
    }

    fn dropped(&mut self) -> Vec<Dropped> {
        self.state.dropped.take()
    }
}

impl State {
    fn event(&mut self, event_name: &[u8], data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let picked =
            pick_bytes(data, &["type", "message", "index", "content_block", "delta", "usage", "error"]);
        let Some([kind, message, index, block, delta, counts, error]) = picked else {
            if event_name == b"message_stop" {
                self.end(events);
            }
            return;
        };
        let index = integer(index).unwrap_or(0);
        match name(kind).as_deref().unwrap_or_default() {
            "message_start" => self.begin(present(message).unwrap_or("{}"), events),
            "content_block_start" => self.block(index, present(block).unwrap_or("{}"), events),
            "content_block_delta" => self.delta(index, present(delta).unwrap_or("{}"), events),
            "content_block_stop" => {
                if let Some(part) = self.open.remove(&index) {
                    events.push(Event::PartEnd { index: part });
                }
            }
            "message_delta" => {
                let [reason, sequence, details] = present(delta)
                    .and_then(|delta| pick(delta, &["stop_reason", "stop_sequence", "stop_details"]))
                    .unwrap_or_default();
                if let Some(counts) = present(counts) {
                    self.counts.merge_anthropic(counts, self.model.as_deref());
                    events.push(Event::Usage(usage(&self.counts)));
                }
                if let Some(text) = explanation(details) {
                    let index = self.parts;
                    self.parts += 1;
                    events.push(Event::PartBegin { index, kind: PartKind::Refusal });
                    events.push(Event::Delta { index, text });
                    events.push(Event::PartEnd { index });
                }
                if let Some(word) = name(present(reason)) {
                    events.push(Event::Finish(read_finish(&word, name(present(sequence)))));
                }
            }
            "message_stop" => self.end(events),
            "error" => self.fail(failure::event(present(error).unwrap_or("{}")), events),
            _ => {}
        }
    }

    fn begin(&mut self, message: &str, events: &mut Vec<Event>) {
        let [id, model, counts] = pick(message, &["id", "model", "usage"]).unwrap_or_default();
        self.model = name(model);
        let usage = present(counts).map(|counts| {
            self.counts.merge_anthropic(counts, self.model.as_deref());
            usage(&self.counts)
        });
        events.push(Event::Begin { id: name(id), model: self.model.clone(), usage });
    }

    fn block(&mut self, index: i64, block: &str, events: &mut Vec<Event>) {
        let [kind, id, called, text, thinking, data, input] =
            pick(block, &["type", "id", "name", "text", "thinking", "data", "input"]).unwrap_or_default();
        let (kind, first) = match name(kind).as_deref() {
            Some("text") => (PartKind::Text, text.and_then(string)),
            Some("thinking") => (PartKind::Thinking, thinking.and_then(string)),
            Some("redacted_thinking") => (PartKind::Redacted(name(data).unwrap_or_default()), None),
            Some("tool_use") => {
                let (id, name) = (name(id).unwrap_or_default(), name(called).unwrap_or_default());
                // The pieces that follow are the whole of it, unless all of it stands here.
                let whole = present(input).filter(|input| input.len() > 2).map(Into::into);
                (PartKind::ToolUse { id, name }, whole)
            }
            // What the provider's own tools do has no place in other dialects.
            _ => return self.dropped.add("content", "server_tool", Weight::Hint),
        };
        if self.open.len() >= OPEN_BLOCKS {
            return;
        }
        let part = self.parts;
        self.parts += 1;
        self.open.insert(index, part);
        events.push(Event::PartBegin { index: part, kind });
        if let Some(text) = first.filter(|text| !text.is_empty()) {
            events.push(Event::Delta { index: part, text: text.into_owned() });
        }
    }

    fn delta(&mut self, index: i64, delta: &str, events: &mut Vec<Event>) {
        let Some(&part) = self.open.get(&index) else { return };
        let [kind, text, thinking, json, signature] =
            pick(delta, &["type", "text", "thinking", "partial_json", "signature"]).unwrap_or_default();
        let piece = match name(kind).as_deref() {
            Some("text_delta") => text,
            Some("thinking_delta") => thinking,
            Some("input_json_delta") => json,
            Some("signature_delta") => {
                if let Some(signature) = signature.and_then(string).filter(|s| !s.is_empty()) {
                    events.push(Event::Signature { index: part, signature: signature.into_owned() });
                }
                return;
            }
            Some("citations_delta") => return self.dropped.add("content", "citations", Weight::Hint),
            _ => return,
        };
        if let Some(text) = piece.and_then(string).filter(|text| !text.is_empty()) {
            events.push(Event::Delta { index: part, text: text.into_owned() });
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if !self.over {
            events.push(Event::End);
            self.over = true;
        }
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        if !self.over {
            events.push(Event::Error(failure));
            self.over = true;
        }
    }
}

/// Writes events.
pub(super) struct Writing {
    asked: Asked,
    begun: bool,
    open: Option<Open>,
    usage: Usage,
    finish: Option<Finish>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Redacted,
    Call,
}

impl Writing {
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked, begun: false, open: None, usage: Usage::default(), finish: None }
    }

    fn begin(&mut self, id: Option<&str>, model: Option<&str>, out: &mut Vec<u8>) {
        self.begun = true;
        let mut message = head(id, model, &self.asked);
        message.raw("content", "[]").null("stop_reason").null("stop_sequence");
        message.raw("usage", &write_usage(&self.usage));
        put("message_start", Writer::new().text("type", "message_start").raw("message", &message.end()), out);
    }

    fn part(&mut self, index: usize, kind: &PartKind, out: &mut Vec<u8>) {
        let mut block = Writer::new();
        self.open = Some(match kind {
            PartKind::Text | PartKind::Refusal => {
                block.text("type", "text").text("text", "");
                Open::Text
            }
            PartKind::Thinking => {
                block.text("type", "thinking").text("thinking", "").text("signature", "");
                Open::Thinking
            }
            PartKind::Redacted(data) => {
                block.text("type", "redacted_thinking").text("data", data);
                Open::Redacted
            }
            PartKind::ToolUse { id, name } => {
                block.text("type", "tool_use").text("id", id).text("name", name).raw("input", "{}");
                Open::Call
            }
        });
        let mut event = placed("content_block_start", index);
        put("content_block_start", event.raw("content_block", &block.end()), out);
    }

    fn delta(&self, index: usize, text: &str, out: &mut Vec<u8>) {
        let mut delta = Writer::new();
        match self.open {
            Some(Open::Text) => delta.text("type", "text_delta").text("text", text),
            Some(Open::Thinking) => delta.text("type", "thinking_delta").text("thinking", text),
            Some(Open::Call) => delta.text("type", "input_json_delta").text("partial_json", text),
            Some(Open::Redacted) | None => return,
        };
        let mut event = placed("content_block_delta", index);
        put("content_block_delta", event.raw("delta", &delta.end()), out);
    }
}

fn placed(kind: &str, index: usize) -> Writer {
    let mut event = Writer::new();
    event.text("type", kind).integer("index", i64::try_from(index).unwrap_or(i64::MAX));
    event
}

fn put(kind: &str, data: &Writer, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data.end().as_bytes());
    out.extend_from_slice(b"\n\n");
}

impl EventWriter for Writing {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !self.begun && !matches!(event, Event::Begin { .. } | Event::Error(_) | Event::Usage(_)) {
            self.begin(None, None, out);
        }
        match event {
            Event::Begin { id, model, usage } => {
                if let Some(usage) = usage {
                    self.usage.merge(usage);
                }
                self.begin(id.as_deref(), model.as_deref(), out);
            }
            Event::PartBegin { index, kind } => self.part(*index, kind, out),
            Event::Delta { index, text } => self.delta(*index, text, out),
            Event::Signature { index, signature } if self.open == Some(Open::Thinking) => {
                let delta = Writer::new().text("type", "signature_delta").text("signature", signature).end();
                let mut event = placed("content_block_delta", *index);
                put("content_block_delta", event.raw("delta", &delta), out);
            }
            // No block but a thinking one has a signature here.
            Event::Signature { .. } => {}
            Event::PartEnd { index } => {
                self.open = None;
                put("content_block_stop", &placed("content_block_stop", *index), out);
            }
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Usage(usage) => self.usage.merge(usage),
            Event::Error(failure) => {
                out.extend_from_slice(b"event: error\ndata: ");
                out.extend_from_slice(write_error(failure).as_bytes());
                out.extend_from_slice(b"\n\n");
            }
            Event::End => {
                let mut delta = Writer::new();
                write_finish(self.finish.as_ref(), &mut delta);
                let mut event = Writer::new();
                event.text("type", "message_delta").raw("delta", &delta.end());
                put("message_delta", event.raw("usage", &write_usage(&self.usage)), out);
                put("message_stop", Writer::new().text("type", "message_stop"), out);
            }
        }
    }
}
