//! Ollama's own API: chat and generate, one JSON object a line, embeddings, and the models of the machine.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{boolean, each, integer, keep, name, pick, present};
use crate::operation::Tokens::{Incurs as I, None as N};
use crate::operation::{Dialect, Operation, Row, row};
use crate::request::RequestFacts;
use crate::sse::{Event, Unfinished};
use crate::usage::Counts;
use crate::wire::{Close, Framing, OwnError, Wire};

/// Ollama's format.
pub(crate) struct Ollama;

const OLLAMA: &[Row] = &[
    row("POST", "api/chat", "chat.create", I),
    row("POST", "api/generate", "generate.create", I),
    row("POST", "api/embed", "embeddings.create", I),
    row("POST", "api/embeddings", "embeddings.create", I),
    row("GET", "api/tags", "models.list", N),
    row("GET", "api/ps", "models.list", N),
    row("POST", "api/show", "models.retrieve", N),
    row("GET", "api/version", "organization", N),
    row("POST", "api/create", "models.update", N),
    row("POST", "api/copy", "models.update", N),
    row("POST", "api/pull", "models.update", N),
    row("POST", "api/push", "models.update", N),
    row("DELETE", "api/delete", "models.delete", N),
    row("*", "api/blobs/*", "files.create", N),
];

impl Wire for Ollama {
    fn operations(&self) -> &'static [Row] {
        OLLAMA
    }
    fn also(&self) -> &'static [Dialect] {
        &[Dialect::OpenAi]
    }
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        if matches!(operation.name(), "chat.create" | "generate.create") {
            // What is not said is a stream.
            facts.stream = facts.stream.or(Some(true));
            // Only `options` bounds its output.
            facts.max_output_tokens = None;
        }
        let options = body.and_then(|body| facts.pick_once(body, &["options"]));
        let options = options.and_then(|[options]| present(options));
        let Some([most, temperature]) =
            options.and_then(|options| facts.pick_once(options, &["num_predict", "temperature"]))
        else {
            return;
        };
        facts.max_output_tokens = integer(most).or(facts.max_output_tokens);
        facts.temperature = temperature
            .filter(|t| t.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
            .map(str::to_owned)
            .or(facts.temperature.take());
    }
    fn framing(&self, _: &Operation, media_type: &str) -> Option<Framing> {
        match media_type {
            "text/event-stream" => Some(Framing::ServerSent),
            "application/x-ndjson" => Some(Framing::Values),
            _ => None,
        }
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, event: &Event<'_>) -> Close {
        match std::str::from_utf8(event.data) {
            Ok(text) => Close::ends(object(gathered, text)),
            Err(_) => Close::No,
        }
    }
    fn closes(&self, _: &Unfinished<'_>) -> bool {
        false
    }
    fn body(&self, gathered: &mut Gathered, _: &Operation, status: u16, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        if status >= 400 {
            gathered.error = ProviderError::read_body(text);
        } else {
            object(gathered, text);
            gathered.final_usage = gathered.counts.is_some();
        }
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        let mut body = json!({ "error": error.message, "code": error.code });
        if let (Some(exchange), Some(object)) = (error.exchange, body.as_object_mut()) {
            object.insert("affidavit_exchange".into(), exchange.into());
        }
        body
    }
}

/// An answer, whole or one line of it; true for the last one.
fn object(gathered: &mut Gathered, text: &str) -> bool {
    let Some([model, message, response, done, reason, input, output, error]) = pick(
        text,
        &["model", "message", "response", "done", "done_reason", "prompt_eval_count", "eval_count", "error"],
    ) else {
        return false;
    };
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    keep(&mut gathered.served_model, model);
    gathered.finish(0, reason);
    let filled = |text: Option<&str>| present(text).is_some_and(|text| text != "\"\"" && text != "[]");
    gathered.output |= filled(response);
    if let Some([content, thinking, calls]) =
        present(message).and_then(|m| pick(m, &["content", "thinking", "tool_calls"]))
    {
        gathered.calls.possible();
        gathered.output |= [content, thinking, calls].into_iter().any(filled);
        if let Some(calls) = present(calls) {
            each(calls, &mut |call| {
                let function = pick(call, &["function"]).and_then(|[function]| present(function));
                let tool = function.and_then(|f| pick(f, &["name"])).and_then(|[tool]| name(tool));
                gathered.calls.add(tool);
            });
        }
    }
    let mut counts = Counts::default();
    counts.reported.input = integer(input);
    counts.reported.output = integer(output);
    if counts != Counts::default() {
        gathered.replace_counts(Some(counts));
        gathered.final_usage = true;
    }
    boolean(done) == Some(true)
}
