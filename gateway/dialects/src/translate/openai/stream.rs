//! Chunks of chat completions.

use std::borrow::Cow;

use super::answer::{
    call, extra, head, pieces, read_finish, read_usage, thinking_block, write_error, write_finish,
    write_usage,
};
use crate::json::{each, integer, name, pick, pick_bytes, present, string};
use crate::sse::Parser;
use crate::translate::failure::{self, EVENT_BYTES, broken, too_large};
use crate::translate::form::{
    Asked, Dropped, Event, EventReader, EventWriter, Failure, Finish, Kinds, PartKind, Thinking, ToolUse,
    Usage, Weight,
};
use crate::translate::text::Writer;

/// Which part is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Refusal,
    Thinking,
    /// A call, by the provider's place of it.
    Call(i64),
}

/// Reads chunks.
pub(super) struct Reading {
    parser: Parser,
    state: State,
}

#[derive(Default)]
struct State {
    begun: bool,
    open: Option<Open>,
    /// How many parts have begun.
    parts: usize,
    /// The largest place of a call that has begun.
    last_call: Option<i64>,
    /// The id of the latest call.
    call_id: Option<String>,
    refuses: bool,
    finished: bool,
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
        self.parser.feed(chunk, &mut |event| state.chunk(event.data, events));
        if self.parser.stopped() {
            self.state.fail(too_large(), events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let state = &mut self.state;
        self.parser.finish(&mut |event| state.chunk(event.data, events));
        // Not every provider of this dialect says `[DONE]`.
        if self.state.finished {
            self.state.end(events);
        }
    }

    fn dropped(&mut self) -> Vec<Dropped> {
        self.state.dropped.take()
    }
}

impl State {
    fn chunk(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        if data.starts_with(b"[DONE]") {
            self.end(events);
            return;
        }
        let Some([id, model, choices, usage, error, groq]) =
            pick_bytes(data, &["id", "model", "choices", "usage", "error", "x_groq"])
        else {
            return;
        };
        if let Some(error) = present(error) {
            self.fail(failure::event(error), events);
            return;
        }
        // Azure's first chunk tells of filters, and names neither model nor answer.
        let says = present(choices).is_some_and(|choices| choices != "[]") || present(usage).is_some();
        if !self.begun && says {
            self.begun = true;
            events.push(Event::Begin { id: name(id), model: name(model), usage: None });
        }
        if let Some(choices) = present(choices) {
            each(choices, &mut |choice| self.choice(choice, events));
        }
        let groq = present(groq).and_then(|groq| pick(groq, &["usage"])).and_then(|[usage]| present(usage));
        if let Some(usage) = present(usage).or(groq).and_then(read_usage) {
            events.push(Event::Usage(usage));
        }
    }

    fn choice(&mut self, choice: &str, events: &mut Vec<Event>) {
        let Some([index, delta, finish, probabilities]) =
            pick(choice, &["index", "delta", "finish_reason", "logprobs"])
        else {
            return;
        };
        if self.over {
            return;
        }
        if integer(index).unwrap_or(0) != 0 {
            return self.dropped.add("choices", "several_answers", Weight::Meaning);
        }
        if present(probabilities).is_some() {
            self.dropped.add("choices[0].logprobs", "logprobs", Weight::Hint);
        }
        if let Some([annotations, audio]) =
            present(delta).and_then(|delta| pick(delta, &["annotations", "audio"]))
        {
            for (there, what, weight) in
                [(annotations, "annotations", Weight::Hint), (audio, "audio_output", Weight::Meaning)]
            {
                if present(there).is_some_and(|value| value != "[]") {
                    self.dropped.add("choices[0].delta", what, weight);
                }
            }
        }
        if let Some([content, refusal, reasoning, thinking, calls]) = present(delta)
            .and_then(|d| pick(d, &["content", "refusal", "reasoning_content", "reasoning", "tool_calls"]))
        {
            self.piece(Open::Thinking, present(reasoning).or(present(thinking)).and_then(string), events);
            if let Some(content) = present(content) {
                pieces(content, &mut |thinks, text| {
                    let open = if thinks { Open::Thinking } else { Open::Text };
                    self.piece(open, Some(text.into()), events);
                });
            }
            self.piece(Open::Refusal, refusal.and_then(string), events);
            if let Some(calls) = present(calls) {
                each(calls, &mut |piece| self.call(piece, events));
            }
        }
        if let Some(word) = name(present(finish)) {
            self.close(events);
            if !self.finished {
                self.finished = true;
                let finish = match read_finish(&word) {
                    Finish::Stop if self.refuses => Finish::Refused,
                    finish => finish,
                };
                events.push(Event::Finish(finish));
            }
        }
    }

    fn piece(&mut self, open: Open, text: Option<Cow<'_, str>>, events: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        self.refuses |= open == Open::Refusal;
        if self.open != Some(open) {
            let kind = match open {
                Open::Thinking => PartKind::Thinking,
                Open::Refusal => PartKind::Refusal,
                Open::Text | Open::Call(_) => PartKind::Text,
            };
            self.begin(open, kind, events);
        }
        events.push(Event::Delta { index: self.parts.saturating_sub(1), text: text.into_owned() });
    }

    fn call(&mut self, piece: &str, events: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let Some([place, id, function]) = pick(piece, &["index", "id", "function"]) else { return };
        let [called, arguments] =
            present(function).and_then(|f| pick(f, &["name", "arguments"])).unwrap_or_default();
        // Without a place each named call is one of its own.
        let place = integer(place).unwrap_or_else(|| match (name(called), self.last_call) {
            (Some(_), Some(last)) => last.saturating_add(1),
            (_, last) => last.unwrap_or(0),
        });
        let id = name(id);
        let is_open = self.open == Some(Open::Call(place));
        // Servers that give all calls one place tell them apart by id; some give every piece an id of its own, but no name.
        let is_next = is_open && name(called).is_some() && id.is_some() && id != self.call_id;
        if !is_open || is_next {
            if !is_open && self.last_call.is_some_and(|last| place <= last) {
                // What came of it was passed on as whole.
                let why = "the provider's stream went back to a call of a tool that was over";
                self.fail(broken(why), events);
                return;
            }
            self.last_call = Some(place);
            self.call_id.clone_from(&id);
            let id = id.unwrap_or_else(|| format!("call_{place}"));
            let called = name(called).unwrap_or_default();
            self.begin(Open::Call(place), PartKind::ToolUse { id, name: called }, events);
        }
        if let Some(text) = arguments.and_then(string).filter(|text| !text.is_empty()) {
            events.push(Event::Delta { index: self.parts.saturating_sub(1), text: text.into_owned() });
        }
    }

    fn begin(&mut self, open: Open, kind: PartKind, events: &mut Vec<Event>) {
        self.close(events);
        self.open = Some(open);
        events.push(Event::PartBegin { index: self.parts, kind });
        self.parts += 1;
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if self.open.take().is_some() {
            events.push(Event::PartEnd { index: self.parts.saturating_sub(1) });
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if !self.over {
            self.close(events);
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

/// Writes chunks.
pub(super) struct Writing {
    asked: Asked,
    id: Option<String>,
    model: Option<String>,
    /// The open part: its number, what it is, and its place among its like.
    open: Option<(Kind, usize)>,
    /// Whether the open part has a piece yet.
    said: bool,
    calls: usize,
    blocks: usize,
    usage: Usage,
    finish: Option<Finish>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Thinking,
    Call,
}

impl Writing {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            id: None,
            model: None,
            open: None,
            said: false,
            calls: 0,
            blocks: 0,
            usage: Usage::default(),
            finish: None,
        }
    }

    fn head(&self) -> Writer {
        head("chat.completion.chunk", self.id.as_deref(), self.model.as_deref(), &self.asked)
    }

    fn delta(&self, delta: &str, finish: Option<&str>, out: &mut Vec<u8>) {
        let mut choice = Writer::new();
        choice.integer("index", 0).raw("delta", delta).null("logprobs");
        match finish {
            Some(finish) => choice.text("finish_reason", finish),
            None => choice.null("finish_reason"),
        };
        let mut chunk = self.head();
        chunk.raw("choices", &format!("[{}]", choice.end()));
        put(&chunk.end(), out);
    }

    fn begin(&mut self, kind: &PartKind, out: &mut Vec<u8>) {
        self.said = false;
        match kind {
            PartKind::Text => self.open = Some((Kind::Text, 0)),
            PartKind::Refusal => self.open = Some((Kind::Refusal, 0)),
            PartKind::Thinking => {
                self.open = Some((Kind::Thinking, self.blocks));
                self.blocks += 1;
            }
            PartKind::Redacted(data) => {
                let thinking = Thinking { redacted: Some(data.clone()), ..Thinking::default() };
                let block = thinking_block(&thinking, Some(self.blocks));
                self.blocks += 1;
                self.open = None;
                self.delta(&Writer::new().raw("thinking_blocks", &format!("[{block}]")).end(), None, out);
            }
            PartKind::ToolUse { id, name } => {
                let used = ToolUse { id: id.clone(), name: name.clone(), arguments: String::new() };
                let written = call(&used, None, Some(self.calls));
                self.open = Some((Kind::Call, self.calls));
                self.calls += 1;
                self.delta(&Writer::new().raw("tool_calls", &format!("[{written}]")).end(), None, out);
            }
        }
    }

    fn more(&mut self, text: &str, out: &mut Vec<u8>) {
        let Some((kind, place)) = self.open else { return };
        self.said |= !text.is_empty();
        let mut delta = Writer::new();
        match kind {
            Kind::Text => delta.text("content", text),
            Kind::Refusal => delta.text("refusal", text),
            Kind::Thinking => {
                let thinking = Thinking { text: text.to_owned(), ..Thinking::default() };
                let block = thinking_block(&thinking, Some(place));
                delta.text("reasoning_content", text).raw("thinking_blocks", &format!("[{block}]"))
            }
            Kind::Call => {
                let function = Writer::new().text("arguments", text).end();
                let call = placed(place).raw("function", &function).end();
                delta.raw("tool_calls", &format!("[{call}]"))
            }
        };
        self.delta(&delta.end(), None, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        // No arguments at all are an empty object, as in a whole answer.
        if !self.said && matches!(self.open, Some((Kind::Call, _))) {
            self.more("{}", out);
        }
        self.open = None;
    }

    fn signature(&self, signature: &str, out: &mut Vec<u8>) {
        let Some((kind, place)) = self.open else { return };
        let mut delta = Writer::new();
        match kind {
            Kind::Thinking => {
                let thinking = Thinking { signature: Some(signature.to_owned()), ..Thinking::default() };
                delta.raw("thinking_blocks", &format!("[{}]", thinking_block(&thinking, Some(place))));
            }
            Kind::Call => {
                let call = placed(place).raw("extra_content", &extra(signature)).end();
                delta.raw("tool_calls", &format!("[{call}]"));
            }
            Kind::Text | Kind::Refusal => return,
        }
        self.delta(&delta.end(), None, out);
    }
}

fn placed(place: usize) -> Writer {
    let mut call = Writer::new();
    call.integer("index", i64::try_from(place).unwrap_or(i64::MAX));
    call
}

fn put(data: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // JSON may hold line ends between its tokens; an event's line may not.
    out.extend(data.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    out.extend_from_slice(b"\n\n");
}

impl EventWriter for Writing {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Begin { id, model, usage } => {
                (self.id, self.model) = (id.clone(), model.clone());
                if let Some(usage) = usage {
                    self.usage.merge(usage);
                }
                self.delta(r#"{"role":"assistant","content":""}"#, None, out);
            }
            Event::PartBegin { kind, .. } => self.begin(kind, out),
            Event::Delta { text, .. } => self.more(text, out),
            Event::Signature { signature, .. } => self.signature(signature, out),
            Event::PartEnd { .. } => self.close(out),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Usage(usage) => self.usage.merge(usage),
            Event::Error(failure) => put(&write_error(failure), out),
            Event::End => {
                let finish = self.finish.as_ref().map_or("stop", write_finish);
                self.delta("{}", Some(finish), out);
                if self.asked.stream_usage
                    && let Some(usage) = write_usage(&self.usage)
                {
                    let mut chunk = self.head();
                    chunk.raw("choices", "[]").raw("usage", &usage);
                    put(&chunk.end(), out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
    }
}
