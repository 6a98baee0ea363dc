//! Answers of Gemini: whole, streamed, and errors.

use crate::facts::Gathered;
use crate::failure::FILTERED_BY_GOOGLE;
use crate::gemini::usage_metadata;
use crate::json::{boolean, each, name, pick, present, scalar, string};
use crate::operation::{Dialect, operation};
use crate::sse;
use crate::translate::assemble::assembled;
use crate::translate::failure::{EVENT_BYTES, broken};
use crate::translate::form::{
    Answer, Dropped, Event, EventReader, Failure, FailureKind, Finish, Kinds, PartKind, Unreadable, Usage,
    Weight,
};
use crate::usage::{Convention, Counts};
use crate::wire::{Frames, Framing};
use schemas::record::UsageSource;

/// Reads a whole answer: it is a stream of one piece.
pub(super) fn read(vertex: bool, body: &[u8]) -> Result<Answer, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::new("body", "a JSON object in UTF-8"))?;
    let [candidates, feedback, error] = pick(text, &["candidates", "promptFeedback", "error"])
        .ok_or_else(|| Unreadable::new("body", "a JSON object"))?;
    if present(candidates).or(present(feedback)).or(present(error)).is_none() {
        return Err(Unreadable::new("candidates", "a list"));
    }
    let (mut pieces, mut events) = (Pieces::new(vertex), Vec::new());
    pieces.take(text, &mut events);
    pieces.end(&mut events);
    let mut answer = assembled(&events);
    answer.dropped = pieces.dropped.take();
    Ok(answer)
}

/// Reads a `google.rpc.Status`, alone or the element of an array.
pub(super) fn read_error(status: u16, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let mut error = None;
    let mut of = |text: &str| {
        error = error.take().or_else(|| pick(text, &["error"]).and_then(|[e]| present(e)).map(str::to_owned));
    };
    if text.trim_start().starts_with('[') {
        each(&text, &mut of);
    } else {
        of(&text);
    }
    failure(Some(status), error.as_deref().unwrap_or(text.trim()))
}

/// The failure that the value of a key `error` tells.
fn failure(status: Option<u16>, error: &str) -> Failure {
    let [code, message, symbol, details] =
        pick(error, &["code", "message", "status", "details"]).unwrap_or_default();
    let symbol = name(symbol);
    let code = scalar(code);
    let told = code.as_deref().and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let status = status.or(told);
    let reason = present(details).and_then(reason);
    let kind = kind(reason.as_deref(), symbol.as_deref())
        .or(status.map(FailureKind::of_status))
        .unwrap_or(FailureKind::Api);
    Failure {
        // A wrong key is a 400 there.
        status: status
            .filter(|status| FailureKind::of_status(*status) == kind)
            .unwrap_or_else(|| kind.status()),
        kind,
        code: reason.or(symbol).or(code),
        message: name(message)
            .or_else(|| name(Some(error)))
            .unwrap_or_else(|| "the provider gave no reason".to_owned()),
    }
}

/// `reason` of a `google.rpc.ErrorInfo`.
fn reason(details: &str) -> Option<String> {
    let mut found = None;
    each(details, &mut |detail| {
        if let Some([reason]) = pick(detail, &["reason"]) {
            found = found.take().or_else(|| name(reason));
        }
    });
    found
}

fn kind(reason: Option<&str>, symbol: Option<&str>) -> Option<FailureKind> {
    if matches!(reason, Some("API_KEY_INVALID" | "API_KEY_EXPIRED" | "ACCESS_TOKEN_EXPIRED")) {
        return Some(FailureKind::Authentication);
    }
    Some(match symbol? {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => FailureKind::InvalidRequest,
        "UNAUTHENTICATED" => FailureKind::Authentication,
        "PERMISSION_DENIED" => FailureKind::Permission,
        "NOT_FOUND" => FailureKind::NotFound,
        "RESOURCE_EXHAUSTED" => FailureKind::RateLimit,
        "UNAVAILABLE" => FailureKind::Overloaded,
        "DEADLINE_EXCEEDED" => FailureKind::Timeout,
        "INTERNAL" | "UNKNOWN" | "DATA_LOSS" | "ABORTED" | "CANCELLED" | "UNIMPLEMENTED" => FailureKind::Api,
        _ => return None,
    })
}

/// A stream, as server-sent events or as one array: which of them, its first byte tells.
pub(super) struct Reading {
    frames: Option<Frames>,
    pieces: Pieces,
}

impl Reading {
    pub(super) fn new(vertex: bool) -> Self {
        Self { frames: None, pieces: Pieces::new(vertex) }
    }
}

impl EventReader for Reading {
    fn feed(&mut self, chunk: &[u8], events: &mut Vec<Event>) {
        // White space before the first event belongs to neither.
        let chunk = if self.frames.is_none() { chunk.trim_ascii_start() } else { chunk };
        let Some(first) = chunk.first() else { return };
        let limit = EVENT_BYTES;
        let framing = if matches!(first, b'[' | b'{') { Framing::Values } else { Framing::ServerSent };
        let frames = self.frames.get_or_insert_with(|| Frames::new(framing, limit));
        let pieces = &mut self.pieces;
        frames.feed(chunk, &mut |event: sse::Event<'_>| pieces.event(event.data, events));
        if let Some(unread) = frames.stopped(limit) {
            pieces.fail(broken(&unread.to_string()), events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let pieces = &mut self.pieces;
        if let Some(frames) = &mut self.frames {
            frames.finish(&mut |event: sse::Event<'_>| pieces.event(event.data, events));
        }
        pieces.end(events);
    }

    fn dropped(&mut self) -> Vec<Dropped> {
        self.pieces.dropped.take()
    }
}

/// The part that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    index: usize,
    thought: bool,
}

/// What the pieces of an answer come to.
struct Pieces {
    vertex: bool,
    begun: bool,
    over: bool,
    id: Option<String>,
    open: Option<Open>,
    parts: usize,
    calls: usize,
    finish: Option<Finish>,
    usage: Option<Usage>,
    dropped: Kinds,
}

impl Pieces {
    fn new(vertex: bool) -> Self {
        Self {
            vertex,
            begun: false,
            over: false,
            id: None,
            open: None,
            parts: 0,
            calls: 0,
            finish: None,
            usage: None,
            dropped: Kinds::default(),
        }
    }

    fn event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if let Ok(text) = std::str::from_utf8(data)
            && !text.is_empty()
        {
            self.take(text, events);
        }
    }

    /// Takes one piece.
    fn take(&mut self, text: &str, events: &mut Vec<Event>) {
        let Some([candidates, feedback, usage, model, id, error]) = pick(
            text,
            &["candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "error"],
        )
        .filter(|_| !self.over) else {
            return;
        };
        if let Some(error) = present(error) {
            self.fail(failure(None, error), events);
            return;
        }
        self.usage = present(usage).and_then(|usage| counted(self.vertex, usage)).or(self.usage);
        if !self.begun {
            self.begun = true;
            self.id = name(id);
            events.push(Event::Begin { id: self.id.clone(), model: name(model), usage: self.usage });
        }
        if let Some([reason, message]) =
            present(feedback).and_then(|f| pick(f, &["blockReason", "blockReasonMessage"]))
            && present(reason).is_some()
        {
            self.finish = Some(Finish::Refused);
            self.drop("promptFeedback.blockReason", "block_reason", reason.or(message));
        }
        let mut at = 0_usize;
        if let Some(candidates) = present(candidates) {
            each(candidates, &mut |candidate| {
                if at == 0 {
                    self.candidate(candidate, events);
                } else {
                    self.drop("candidates", "choices", Some(candidate));
                }
                at += 1;
            });
        }
    }

    fn candidate(&mut self, candidate: &str, events: &mut Vec<Event>) {
        let Some([content, finish, citations, grounding, urls, probabilities]) = pick(
            candidate,
            &[
                "content",
                "finishReason",
                "citationMetadata",
                "groundingMetadata",
                "urlContextMetadata",
                "logprobsResult",
            ],
        ) else {
            return;
        };
        if let Some(parts) =
            present(content).and_then(|content| pick(content, &["parts"])).and_then(|[p]| present(p))
        {
            each(parts, &mut |part| self.part(part, events));
        }
        if let Some(reason) = scalar(present(finish)) {
            self.finish = finished(&reason, self.vertex).or(self.finish.take());
        }
        self.drop("candidates[0].citationMetadata", "citations", citations);
        self.drop("candidates[0].groundingMetadata", "grounding", grounding);
        self.drop("candidates[0].urlContextMetadata", "grounding", urls);
        self.drop("candidates[0].logprobsResult", "logprobs", probabilities);
    }

    fn part(&mut self, part: &str, events: &mut Vec<Event>) {
        let Some([text, thought, signature, snake, call]) =
            pick(part, &["text", "thought", "thoughtSignature", "thought_signature", "functionCall"])
        else {
            return;
        };
        let signature = name(signature).or_else(|| name(snake));
        if let Some(call) = present(call) {
            self.call(call, signature, events);
        } else if let Some(text) = present(text).and_then(string) {
            self.text(&text, boolean(thought) == Some(true), signature, events);
        } else {
            let kinds = [
                "inlineData",
                "fileData",
                "executableCode",
                "codeExecutionResult",
                "toolCall",
                "toolResponse",
            ];
            let found = pick(part, &kinds).unwrap_or_default();
            let kind = kinds.iter().zip(found).find(|(_, value)| present(*value).is_some());
            match kind {
                Some((&("inlineData" | "fileData"), value)) => {
                    self.drop("candidates[0].content.parts", "media", value);
                }
                Some((_, value)) => self.drop("candidates[0].content.parts", "server_tool", value),
                // A signature alone belongs to what was said before.
                None if signature.is_some() => self.text("", false, signature, events),
                None => self.drop("candidates[0].content.parts", "content", Some(part)),
            }
        }
    }

    /// A piece of text, or of a thought. A signature ends its part: it signs all of it.
    fn text(&mut self, text: &str, thought: bool, signature: Option<String>, events: &mut Vec<Event>) {
        if text.is_empty() && signature.is_none() {
            return;
        }
        let open = match self.open.filter(|open| open.thought == thought) {
            Some(open) => open,
            None => {
                self.close(events);
                let kind = if thought { PartKind::Thinking } else { PartKind::Text };
                let open = Open { index: self.begin(kind, events), thought };
                self.open = Some(open);
                open
            }
        };
        if !text.is_empty() {
            events.push(Event::Delta { index: open.index, text: text.to_owned() });
        }
        if let Some(signature) = signature {
            events.push(Event::Signature { index: open.index, signature });
            self.close(events);
        }
    }

    fn call(&mut self, call: &str, signature: Option<String>, events: &mut Vec<Event>) {
        self.close(events);
        let [id, function, args] = pick(call, &["id", "name", "args"]).unwrap_or_default();
        let id = name(id).unwrap_or_else(|| self.call_id());
        self.calls += 1;
        let index = self.begin(PartKind::ToolUse { id, name: name(function).unwrap_or_default() }, events);
        events.push(Event::Delta { index, text: present(args).unwrap_or("{}").to_owned() });
        if let Some(signature) = signature {
            events.push(Event::Signature { index, signature });
        }
        events.push(Event::PartEnd { index });
    }

    /// An id for a call that has none: that of the answer, and the call's number.
    fn call_id(&self) -> String {
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let answer: String = self.id.iter().flat_map(|id| id.chars()).filter(plain).take(48).collect();
        format!("call_{answer}_{}", self.calls)
    }

    fn begin(&mut self, kind: PartKind, events: &mut Vec<Event>) -> usize {
        let index = self.parts;
        self.parts += 1;
        events.push(Event::PartBegin { index, kind });
        index
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if let Some(open) = self.open.take() {
            events.push(Event::PartEnd { index: open.index });
        }
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        if !self.over {
            self.over = true;
            events.push(Event::Error(failure));
        }
    }

    /// Lists what has no place, once a kind.
    fn drop(&mut self, path: &str, what: &'static str, value: Option<&str>) {
        if present(value).is_some() {
            self.dropped.add(path, what, Weight::Hint);
        }
    }

    /// The body is over. There is no event that says so: an answer with a reason for its end is whole.
    fn end(&mut self, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let whole = self.finish.is_some();
        if whole {
            self.close(events);
        }
        if let Some(finish) = self.finish.take() {
            let calls = finish == Finish::Stop && self.calls > 0;
            events.push(Event::Finish(if calls { Finish::ToolUse } else { finish }));
        }
        if let Some(usage) = self.usage {
            events.push(Event::Usage(usage));
        }
        if whole {
            events.push(Event::End);
        }
    }
}

/// What a finish reason, by name or (at Vertex AI) by number, stands for.
fn finished(reason: &str, vertex: bool) -> Option<Finish> {
    Some(match (reason, vertex) {
        ("" | "FINISH_REASON_UNSPECIFIED" | "0", _) => return None,
        ("STOP" | "1", _) => Finish::Stop,
        ("MAX_TOKENS" | "CONTINUATION" | "2", _) => Finish::Length,
        (reason, _) if FILTERED_BY_GOOGLE.contains(&reason) => Finish::Refused,
        ("3" | "4" | "6" | "7" | "8", _) | ("9", false) | ("10", true) => Finish::Refused,
        ("9", true) | ("10", false) => Finish::Other("MALFORMED_FUNCTION_CALL".into()),
        ("5", _) => Finish::Other("OTHER".into()),
        (other, _) => Finish::Other(other.into()),
    })
}

/// The tokens that `usageMetadata` tells.
fn counted(vertex: bool, usage: &str) -> Option<Usage> {
    let mut gathered = Gathered::default();
    usage_metadata(&mut gathered, usage);
    let dialect = if vertex { Dialect::Vertex } else { Dialect::Gemini };
    let path = if vertex { "publishers/google/models/m:generateContent" } else { "models/m:generateContent" };
    let operation = operation(dialect, &http::Method::POST, path);
    let counts = gathered.counts?;
    let recorded = Counts::usage(Some(&counts), &operation, Convention::Gemini, UsageSource::Provider);
    let mut usage = Usage::from(&recorded);
    // A count of nothing is left out there: the total tells it.
    if let (None, Some(total), Some(input)) = (usage.output, counts.reported.total, usage.input) {
        usage.output = Some(total.saturating_sub(input)).filter(|output| *output >= 0);
    }
    Some(usage)
}
