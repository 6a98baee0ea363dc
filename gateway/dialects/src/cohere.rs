//! Cohere's answers: chat of both versions whole and streamed, the older generate, embeddings, reranking.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{each, integer, keep, name, pick, present, string, whole_type};
use crate::operation::Tokens::{Incurs as I, None as N};
use crate::operation::{Dialect, Operation, Row, row};
use crate::request::RequestFacts;
use crate::sse::{Event, Unfinished};
use crate::usage::{Convention, Counts};
use crate::wire::{Close, Framing, OwnError, Wire};

/// Cohere's format.
pub(crate) struct Cohere;

const COHERE: &[Row] = &[
    row("POST", "chat", "chat.create", I),
    row("POST", "generate", "generate.create", I),
    row("POST", "summarize", "generate.create", I),
    row("POST", "embed", "embeddings.create", I),
    row("POST", "rerank", "rerank.create", I),
    row("POST", "classify", "classify.create", I),
    row("POST", "tokenize", "tokenize", N),
    row("POST", "detokenize", "tokenize", N),
    row("POST", "check-api-key", "organization", N),
    row("GET", "models", "models.list", N),
    row("GET", "models/*", "models.retrieve", N),
    row("*", "embed-jobs", "batches.create", N),
    row("*", "embed-jobs/**", "batches.retrieve", N),
    row("*", "datasets", "files.create", N),
    row("*", "datasets/**", "files.retrieve", N),
    row("*", "finetuning/**", "fine_tuning", N),
];

impl Wire for Cohere {
    fn operations(&self) -> &'static [Row] {
        COHERE
    }
    fn also(&self) -> &'static [Dialect] {
        // `/compatibility/v1/chat/completions`
        &[Dialect::OpenAi]
    }
    fn request(&self, facts: &mut RequestFacts, _: &Operation, body: Option<&str>) {
        let picked = body.and_then(|body| facts.pick_once(body, &["num_generations", "conversation_id"]));
        let Some([choices, conversation]) = picked else { return };
        facts.choices = integer(choices);
        facts.conversation = name(conversation).or(facts.conversation.take());
    }
    fn framing(&self, _: &Operation, media_type: &str) -> Option<Framing> {
        match media_type {
            "text/event-stream" => Some(Framing::ServerSent),
            "application/stream+json" | "application/x-ndjson" => Some(Framing::Values),
            _ => None,
        }
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, event: &Event<'_>) -> Close {
        if event.data.starts_with(b"[DONE]") {
            return Close::Ends;
        }
        let Ok(text) = std::str::from_utf8(event.data) else { return Close::No };
        event_of(gathered, text)
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        event.name == b"message-end"
            || event.data.starts_with(b"[DONE]")
            || (event.name.is_empty() && whole_type(event.data).is_some_and(|kind| kind == "message-end"))
    }
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        if status >= 400 {
            gathered.error = ProviderError::read_body(text);
        } else {
            whole(gathered, text, operation.name() == "chat.create");
            gathered.final_usage = gathered.counts.is_some();
        }
    }
    fn convention(&self, _: &Gathered) -> Convention {
        Convention::Cohere
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        let mut body = json!({ "message": error.message, "code": error.code });
        if let (Some(exchange), Some(object)) = (error.exchange, body.as_object_mut()) {
            object.insert("id".into(), exchange.into());
        }
        body
    }
    fn own_event(&self, _: &Operation, error: &OwnError<'_>) -> String {
        let data = json!({ "type": "message-end", "delta": { "finish_reason": "ERROR", "error": error.message },
            "code": error.code });
        format!("event: message-end\ndata: {data}\n\n")
    }
}

/// One event: `type` names it in the second version, `event_type` in the first.
fn event_of(gathered: &mut Gathered, text: &str) -> Close {
    let Some([kind, older, id, index, delta, response, finish, generation]) = pick(
        text,
        &["type", "event_type", "id", "index", "delta", "response", "finish_reason", "generation_id"],
    ) else {
        return Close::No;
    };
    let kind = kind.or(older).and_then(string).unwrap_or_default();
    gathered.calls.possible();
    match kind.as_ref() {
        "message-start" => keep(&mut gathered.response_id, id),
        "stream-start" => keep(&mut gathered.response_id, generation),
        "content-delta" | "tool-plan-delta" | "tool-call-delta" | "text-generation" | "tool-calls-chunk" => {
            gathered.output = true;
        }
        "tool-call-start" => {
            gathered.output = true;
            let call = present(delta)
                .and_then(|delta| pick(delta, &["message"]))
                .and_then(|[message]| pick(present(message)?, &["tool_calls"]))
                .and_then(|[call]| present(call));
            let tool = call.and_then(called);
            gathered.calls.piece(0, integer(index).unwrap_or(0), tool);
        }
        "message-end" => {
            if let Some([finish, usage, error]) =
                present(delta).and_then(|delta| pick(delta, &["finish_reason", "usage", "error"]))
            {
                gathered.finish(0, finish);
                if let Some(error) = present(error) {
                    gathered.error = ProviderError::read(error);
                }
                gathered.replace_counts(present(usage).and_then(counts));
                gathered.final_usage = gathered.counts.is_some();
            }
            return Close::Ends;
        }
        "stream-end" => {
            if let Some(response) = present(response) {
                whole(gathered, response, true);
            }
            gathered.finish(0, finish);
            gathered.final_usage = gathered.counts.is_some();
            return Close::Ends;
        }
        _ => {}
    }
    Close::No
}

/// The name of a called tool: in a `function` of the second version, at the top in the first.
fn called(call: &str) -> Option<String> {
    let [function, tool] = pick(call, &["function", "name"])?;
    let inner = present(function).and_then(|function| pick(function, &["name"]));
    name(tool).or_else(|| inner.and_then(|[tool]| name(tool)))
}

/// A whole answer of any operation.
fn whole(gathered: &mut Gathered, text: &str, is_chat: bool) {
    let Some([id, response_id, message, finish, usage, meta, generations, calls]) = pick(
        text,
        &["id", "response_id", "message", "finish_reason", "usage", "meta", "generations", "tool_calls"],
    ) else {
        return;
    };
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.response_id, response_id);
    gathered.finish(0, finish);
    if is_chat {
        gathered.calls.possible();
    }
    let inner = present(message).and_then(|message| pick(message, &["tool_calls"])).and_then(|[calls]| calls);
    if let Some(calls) = present(calls).or(present(inner)) {
        each(calls, &mut |call| gathered.calls.add(called(call)));
    }
    if let Some(generations) = present(generations) {
        let mut at = 0;
        each(generations, &mut |generation| {
            if let Some([finish]) = pick(generation, &["finish_reason"]) {
                gathered.finish(at, finish);
            }
            at += 1;
        });
    }
    gathered.replace_counts(present(usage).or(present(meta)).and_then(counts));
}

/// `usage` of the second version, `meta` of the first: what the model read and wrote, and what is charged.
fn counts(usage: &str) -> Option<Counts> {
    let [billed, tokens, cached] = pick(usage, &["billed_units", "tokens", "cached_tokens"])?;
    let mut counts = Counts::default();
    if let Some([input, output, reasoning, image]) = present(tokens)
        .and_then(|t| pick(t, &["input_tokens", "output_tokens", "reasoning_tokens", "image_tokens"]))
    {
        counts.reported.input = integer(input);
        counts.reported.output = integer(output);
        counts.reported.reasoning = integer(reasoning);
        counts.input_image = integer(image);
    }
    if let Some([input, output, searches]) =
        present(billed).and_then(|b| pick(b, &["input_tokens", "output_tokens", "search_units"]))
    {
        counts.billed_input = integer(input);
        counts.billed_output = integer(output);
        counts.search_units = integer(searches);
    }
    counts.reported.cached_input = integer(cached);
    (counts != Counts::default()).then_some(counts)
}
