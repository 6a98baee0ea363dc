//! IBM watsonx.ai: text generated whole and streamed. Its chat has OpenAI's format.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{each, integer, keep, name, pick, present, string};
use crate::operation::Tokens::{Counts as C, Incurs as I, None as N};
use crate::operation::{Dialect, Operation, Row, row};
use crate::request::RequestFacts;
use crate::sse::{Event, Unfinished};
use crate::usage::Counts;
use crate::wire::{Close, OwnError, Wire};

/// The format of watsonx.ai.
pub(crate) struct Watsonx;

const WATSONX: &[Row] = &[
    row("POST", "text/generation", "generate.create", I),
    row("POST", "text/generation_stream", "generate.create", I),
    row("POST", "generation/text", "generate.create", I),
    row("POST", "generation/text_stream", "generate.create", I),
    row("POST", "text/chat", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "text/chat_stream", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "text/embeddings", "embeddings.create", I),
    row("POST", "text/rerank", "rerank.create", I),
    row("POST", "text/tokenization", "tokenize", C),
    row("POST", "deployments/*/text/generation", "generate.create", I),
    row("POST", "deployments/*/text/generation_stream", "generate.create", I),
    row("POST", "deployments/*/text/chat", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "deployments/*/text/chat_stream", "chat.completions", I).speaks(Dialect::OpenAi),
    row("GET", "foundation_model_specs", "models.list", N),
];

impl Wire for Watsonx {
    fn operations(&self) -> &'static [Row] {
        WATSONX
    }
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        if operation.name() == "generate.create" {
            // Only `parameters` bounds its output.
            facts.max_output_tokens = None;
        }
        let Some([model, parameters]) =
            body.and_then(|body| facts.pick_once(body, &["model_id", "parameters"]))
        else {
            return;
        };
        facts.requested_model = name(model).or(facts.requested_model.take());
        if let Some([most]) = present(parameters).and_then(|p| facts.pick_once(p, &["max_new_tokens"])) {
            facts.max_output_tokens = integer(most).or(facts.max_output_tokens);
        }
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, event: &Event<'_>) -> Close {
        match std::str::from_utf8(event.data) {
            Ok(text) if object(gathered, text) => Close::Held,
            _ => Close::No,
        }
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        let whole = event.data.strip_suffix(b"\n").and_then(|data| std::str::from_utf8(data).ok());
        whole.is_some_and(|text| object(&mut Gathered::default(), text))
    }
    fn body(&self, gathered: &mut Gathered, _: &Operation, status: u16, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        object(gathered, text);
        if status >= 400 && gathered.error.is_none() {
            gathered.error = ProviderError::read_body(text);
        }
        gathered.final_usage = gathered.counts.is_some();
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        json!({ "errors": [{ "code": error.code, "message": error.message }], "trace": error.exchange,
            "status_code": error.status })
    }
}

/// An answer, whole or a piece of a stream; true where it says why it stopped.
fn object(gathered: &mut Gathered, text: &str) -> bool {
    let Some([model, results, input, errors]) =
        pick(text, &["model_id", "results", "input_token_count", "errors"])
    else {
        return false;
    };
    keep(&mut gathered.served_model, model);
    if let Some(errors) = present(errors) {
        each(errors, &mut |error| {
            if gathered.error.is_none() {
                gathered.error = ProviderError::read(error);
            }
        });
    }
    let mut counts = gathered.counts.unwrap_or_default();
    // Only the first piece of a stream counts the input, and output is counted from its beginning.
    let more = |old: Option<i64>, new: Option<i64>| old.max(new);
    counts.reported.input = more(counts.reported.input, integer(input));
    let mut stopped = false;
    if let Some(results) = present(results) {
        let mut at = 0;
        each(results, &mut |result| {
            let Some([text, made, read, reason]) = pick(
                result,
                &["generated_text", "generated_token_count", "input_token_count", "stop_reason"],
            ) else {
                return;
            };
            gathered.output |= present(text).is_some_and(|text| text != "\"\"");
            counts.reported.input = more(counts.reported.input, integer(read));
            counts.reported.output = more(counts.reported.output, integer(made));
            if reason.and_then(string).is_some_and(|reason| reason != "not_finished") {
                stopped = true;
                gathered.finish(at, reason);
            }
            at += 1;
        });
    }
    if counts != Counts::default() {
        gathered.counts = Some(counts);
        gathered.final_usage |= stopped;
    }
    stopped
}
