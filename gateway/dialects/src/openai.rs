//! OpenAI's answers: chat completions, completions, Responses, embeddings, images, audio, and what compatible
//! providers make of them. Shapes are told by their fields, not by their path: the same reader serves them all.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{self, each, integer, keep, name, pick, pick_bytes, present, whole_type};
use crate::operation::{OPENAI, Operation, Row, Tokens, after_deployment};
use crate::request::{RequestFacts, percent_decoded};
use crate::sse::{Event, Unfinished};
use crate::usage::Counts;
use crate::wire::{Close, OwnError, Wire};

/// OpenAI's format, also as Azure serves it: a base URL of either dialect may lead to Azure.
pub(crate) struct OpenAi;

impl Wire for OpenAi {
    fn operations(&self) -> &'static [Row] {
        OPENAI
    }
    fn behind_deployment<'p>(&self, path: &'p str) -> &'p str {
        after_deployment(path).map_or(path, |(_, rest)| rest)
    }
    fn path_model(&self, path: &str) -> Option<String> {
        // What Azure serves is the path's deployment, whatever the body says: policies must see that one.
        after_deployment(path).map(|(deployment, _)| percent_decoded(deployment))
    }
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        if operation.runs_conversation() {
            run(facts, body);
        }
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, seen: &Event<'_>) -> Close {
        Close::ends(event(gathered, seen.name, seen.data))
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        let line = event.line.strip_prefix(b"data:").map(|v| v.strip_prefix(b" ").unwrap_or(v));
        is_terminal_type(event.name)
            || is_terminal_data(event.data)
            || (event.data.is_empty() && line.is_some_and(is_terminal_data))
            || (event.name.is_empty()
                && whole_type(event.data).is_some_and(|t| is_terminal_type(t.as_bytes())))
    }
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, bytes: &[u8]) {
        body(gathered, operation, status, bytes);
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        json!({ "error": own_error(error) })
    }
    fn own_event(&self, operation: &Operation, error: &OwnError<'_>) -> String {
        if !operation.is_responses() {
            return format!("data: {}\n\n", self.own_error(error));
        }
        let data = json!({
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": null,
            "error": own_error(error),
        });
        format!("event: error\ndata: {data}\n\n")
    }
}

/// What bounds a run of a conversation (Mistral): what stands beside `completion_args` does not.
fn run(facts: &mut RequestFacts, body: Option<&str>) {
    facts.max_output_tokens = None;
    let arguments =
        body.and_then(|body| facts.pick_once(body, &["completion_args"])).and_then(|[args]| present(args));
    let Some([most, temperature]) =
        arguments.and_then(|args| facts.pick_once(args, &["max_tokens", "temperature"]))
    else {
        return;
    };
    facts.max_output_tokens = integer(most);
    facts.temperature = temperature
        .filter(|t| t.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
        .map(str::to_owned)
        .or(facts.temperature.take());
}

/// The value of the key `error`.
fn own_error(own: &OwnError<'_>) -> Value {
    let kind = match own.status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let mut error = json!({ "message": own.message, "type": kind, "param": null, "code": own.code });
    if let (Some(exchange), Some(object)) = (own.exchange, error.as_object_mut()) {
        object.insert("affidavit_exchange".into(), exchange.into());
    }
    error
}

/// True for the events that end a stream (CA-2), by name or by the `type` of the data.
fn is_terminal_type(kind: &[u8]) -> bool {
    matches!(kind, b"response.completed" | b"response.failed" | b"response.incomplete")
}

/// True for data that ends a stream, or that is about to.
fn is_terminal_data(data: &[u8]) -> bool {
    data.starts_with(b"[DONE]")
}

/// Reads one event of a stream; true where it ends the stream.
pub(crate) fn event(gathered: &mut Gathered, event_name: &[u8], data: &[u8]) -> bool {
    if is_terminal_data(data) {
        return true;
    }
    let Some([kind, id, model, choices, usage, error, groq, response, item, tier, object]) = pick_bytes(
        data,
        &[
            "type",
            "id",
            "model",
            "choices",
            "usage",
            "error",
            "x_groq",
            "response",
            "item",
            "service_tier",
            "object",
        ],
    ) else {
        return is_terminal_type(event_name);
    };
    let kind = kind.and_then(json::string).unwrap_or_default();
    let object = object.and_then(json::string).unwrap_or_default();
    if object.starts_with("thread.") {
        return thread(gathered, id, model, usage, data);
    }
    if !kind.is_empty() && kind != "error" && choices.is_none() {
        typed(gathered, &kind, model, usage, response, item, data);
        if let Some(error) = present(error) {
            gathered.error = ProviderError::read(error);
        }
        return is_terminal_type(kind.as_bytes()) || is_terminal_type(event_name);
    }
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    } else if kind == "error" {
        // The Responses API's own `error` event has its code and message at the top.
        let [code, message] =
            pick_bytes(data, &["code", "message"]).unwrap_or_default().map(|t| json::scalar(present(t)));
        gathered.error = Some(ProviderError { kind: code.clone(), code, message });
    }
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, model);
    keep(&mut gathered.service_tier, tier);
    let mut ended = false;
    let mut empty = true;
    if let Some(choices) = present(choices) {
        each(choices, &mut |choice| {
            empty = false;
            ended |= chunk_choice(gathered, choice);
        });
    }
    let groq = present(groq).and_then(|g| pick(g, &["usage"])).and_then(|[usage]| present(usage));
    if let Some(usage) = present(usage).or(groq) {
        gathered.replace_counts(Counts::openai(usage));
        gathered.final_usage = empty || ended;
    }
    is_terminal_type(event_name)
}

/// One choice of a chat or completion chunk; true where it is finished.
fn chunk_choice(gathered: &mut Gathered, choice: &str) -> bool {
    let Some([index, finish, native, delta, message, text, error]) = pick(
        choice,
        &["index", "finish_reason", "native_finish_reason", "delta", "message", "text", "error"],
    ) else {
        return false;
    };
    let index = integer(index).unwrap_or(0);
    gathered.finish(index, finish);
    if index == 0 {
        keep(&mut gathered.finish_detail, native);
    }
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    if text.and_then(json::string).is_some_and(|t| !t.is_empty()) {
        gathered.output = true;
    }
    if let Some(delta) = present(delta).or(present(message)) {
        gathered.calls.possible();
        chunk_delta(gathered, index, delta);
    }
    present(finish).is_some()
}

/// The place of the one call that the older `function_call` can hold.
const OLD_CALL: i64 = -1;

/// The name of the called function in the older `function_call`.
fn old_call(function: Option<&str>) -> Option<String> {
    present(function).and_then(|f| pick(f, &["name"])).and_then(|[n]| name(n))
}

fn chunk_delta(gathered: &mut Gathered, choice: i64, delta: &str) {
    let Some([calls, function, content, reasoning, thinking, refusal, audio]) = pick(
        delta,
        &["tool_calls", "function_call", "content", "reasoning", "reasoning_content", "refusal", "audio"],
    ) else {
        return;
    };
    if !gathered.output {
        let text = |t: Option<&str>| present(t).is_some_and(|t| t != "\"\"" && t != "[]");
        gathered.output =
            [content, reasoning, thinking, refusal, audio, calls, function].into_iter().any(text);
    }
    // Some providers send an empty one beside `tool_calls`.
    if let Some(tool) = old_call(function)
        && present(calls).is_none()
    {
        gathered.calls.piece(choice, OLD_CALL, Some(tool));
    }
    let Some(calls) = present(calls) else { return };
    let mut at = 0_i64;
    each(calls, &mut |call| {
        let Some([index, function]) = pick(call, &["index", "function"]) else { return };
        let place = integer(index).unwrap_or(at);
        at += 1;
        let tool = present(function).and_then(|f| pick(f, &["name"])).and_then(|[n]| name(n));
        gathered.calls.piece(choice, place, tool);
    });
}

/// Events with a `type`: Responses, images, audio.
fn typed(
    gathered: &mut Gathered,
    kind: &str,
    model: Option<&str>,
    usage: Option<&str>,
    response: Option<&str>,
    item: Option<&str>,
    data: &[u8],
) {
    if kind.ends_with(".delta") {
        gathered.output = true;
        return;
    }
    keep(&mut gathered.served_model, model);
    if let Some(response) = present(response) {
        response_object(gathered, response, is_terminal_type(kind.as_bytes()));
    } else if kind == "response.output_item.done" {
        if let Some(item) = present(item) {
            output_item(gathered, item);
        }
    } else if kind == "image_generation.partial_image" || kind == "image_edit.partial_image" {
        gathered.output = true;
    } else if let Some(usage) = present(usage) {
        gathered.output = true;
        gathered.replace_counts(Counts::openai(usage));
        gathered.final_usage = true;
    } else if kind == "response.error" {
        gathered.error = std::str::from_utf8(data).ok().and_then(ProviderError::read_body);
    }
}

/// Events of the Assistants API: `thread.run` objects carry the usage.
fn thread(
    gathered: &mut Gathered,
    id: Option<&str>,
    model: Option<&str>,
    usage: Option<&str>,
    data: &[u8],
) -> bool {
    let Some([object, status, error]) = pick_bytes(data, &["object", "status", "last_error"]) else {
        return false;
    };
    match name(object).as_deref() {
        Some("thread.run") => {
            keep(&mut gathered.response_id, id);
            keep(&mut gathered.served_model, model);
            gathered.finish(0, status);
            if let Some(error) = present(error) {
                gathered.error = ProviderError::read(error);
            }
            if let Some(usage) = present(usage) {
                gathered.replace_counts(Counts::openai(usage));
                gathered.final_usage = true;
            }
        }
        Some("thread.message.delta" | "thread.run.step.delta") => gathered.output = true,
        _ => {}
    }
    false
}

/// An item of a response's output: a call of the caller's tool, of the provider's own, or neither.
fn output_item(gathered: &mut Gathered, item: &str) {
    gathered.calls.possible();
    let server = gathered.server_calls.get_or_insert(0);
    let Some([kind, tool]) = pick(item, &["type", "name"]) else { return };
    match name(kind).as_deref() {
        Some(
            "function_call" | "custom_tool_call" | "computer_call" | "local_shell_call" | "apply_patch_call",
        ) => {
            gathered.calls.add(name(tool));
        }
        Some(kind) if kind.ends_with("_call") || kind == "mcp_list_tools" => {
            *server = server.saturating_add(1)
        }
        _ => {}
    }
}

/// A `response` object, whole or in an event. `last`: no later event can say more.
fn response_object(gathered: &mut Gathered, response: &str, last: bool) {
    let Some([id, model, status, incomplete, output, usage, error, tier]) = pick(
        response,
        &["id", "model", "status", "incomplete_details", "output", "usage", "error", "service_tier"],
    ) else {
        return;
    };
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, model);
    keep(&mut gathered.service_tier, tier);
    gathered.finish(0, status);
    if let Some([reason]) = present(incomplete).and_then(|d| pick(d, &["reason"])) {
        keep(&mut gathered.finish_detail, reason);
    }
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    if let Some(usage) = present(usage) {
        gathered.replace_counts(Counts::openai(usage));
        gathered.final_usage |= last;
    }
    if let Some(output) = present(output) {
        let mut any = false;
        each(output, &mut |_| any = true);
        gathered.calls.possible();
        gathered.server_calls.get_or_insert(0);
        // The final list says it all; what the single items said is in it.
        if any {
            gathered.calls = crate::facts::Calls::default();
            gathered.calls.possible();
            gathered.server_calls = Some(0);
            each(output, &mut |item| output_item(gathered, item));
        }
    }
}

/// Reads a whole JSON body.
fn body(gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let Some([id, model, choices, usage, info, error, object, tier, output]) = pick(
        text,
        &["id", "model", "choices", "usage", "usage_info", "error", "object", "service_tier", "output"],
    ) else {
        if status >= 400 {
            gathered.error = ProviderError::read_body(text);
        }
        return;
    };
    if status >= 400 {
        gathered.error = ProviderError::read_body(text);
        return;
    }
    let object = object.and_then(json::string).unwrap_or_default();
    if object == "response"
        || object == "response.compaction"
        || (operation.is_responses() && present(output).is_some())
    {
        response_object(gathered, text, true);
        return;
    }
    if operation.tokens() == Tokens::Counts {
        gathered.replace_counts(Counts::openai(text));
        return;
    }
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, model);
    keep(&mut gathered.service_tier, tier);
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read_body(text).or(ProviderError::read(error));
    }
    if let Some(choices) = present(choices) {
        each(choices, &mut |choice| whole_choice(gathered, choice));
    }
    if object == "thread.run" {
        let [status] = pick(text, &["status"]).unwrap_or_default();
        gathered.finish(0, status);
    }
    // `usage_info` is Mistral's, of pages.
    if let Some(usage) = present(usage).or(present(info)) {
        gathered.replace_counts(Counts::openai(usage));
        gathered.final_usage = true;
    }
}

fn whole_choice(gathered: &mut Gathered, choice: &str) {
    let Some([index, finish, native, message, error]) =
        pick(choice, &["index", "finish_reason", "native_finish_reason", "message", "error"])
    else {
        return;
    };
    let index = integer(index).unwrap_or(0);
    gathered.finish(index, finish);
    if index == 0 {
        keep(&mut gathered.finish_detail, native);
    }
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    if let Some(message) = present(message) {
        gathered.calls.possible();
        let [calls, function] = pick(message, &["tool_calls", "function_call"]).unwrap_or_default();
        if let Some(tool) = old_call(function)
            && present(calls).is_none()
        {
            gathered.calls.add(Some(tool));
        }
        if let Some(calls) = present(calls) {
            each(calls, &mut |call| {
                let tool = pick(call, &["function"])
                    .and_then(|[f]| present(f))
                    .and_then(|f| pick(f, &["name"]))
                    .and_then(|[n]| name(n));
                gathered.calls.add(tool);
            });
        }
    }
}
