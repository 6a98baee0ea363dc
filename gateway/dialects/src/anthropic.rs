//! Anthropic's answers: messages whole and streamed, token counts, the older completions.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{self, each, keep, name, pick, pick_bytes, present, whole_type};
use crate::operation::{ANTHROPIC, Operation, Row, Tokens};
use crate::request::RequestFacts;
use crate::sse::{Event, Unfinished};
use crate::usage::{Convention, Counts};
use crate::wire::{Close, OwnError, Wire};

/// Anthropic's format.
pub(crate) struct Anthropic;

impl Wire for Anthropic {
    fn operations(&self) -> &'static [Row] {
        ANTHROPIC
    }
    fn request(&self, facts: &mut RequestFacts, _: &Operation, _: Option<&str>) {
        facts.choices = None;
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, seen: &Event<'_>) -> Close {
        Close::ends(event(gathered, seen.name, seen.data))
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        is_terminal_type(event.name)
            || (event.name.is_empty()
                && whole_type(event.data).is_some_and(|t| is_terminal_type(t.as_bytes())))
    }
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, bytes: &[u8]) {
        body(gathered, operation, status, bytes);
    }
    fn convention(&self, _: &Gathered) -> Convention {
        Convention::Anthropic
    }
    fn counts_run(&self) -> bool {
        true
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        own_error(error)
    }
    fn own_event(&self, _: &Operation, error: &OwnError<'_>) -> String {
        format!("event: error\ndata: {}\n\n", own_error(error))
    }
}

fn own_error(own: &OwnError<'_>) -> Value {
    let kind = match own.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    let mut body =
        json!({ "type": "error", "error": { "type": kind, "message": own.message, "code": own.code } });
    if let (Some(exchange), Some(object)) = (own.exchange, body.as_object_mut()) {
        object.insert("request_id".into(), exchange.into());
    }
    body
}

/// True for the event that ends a stream (CA-2).
fn is_terminal_type(kind: &[u8]) -> bool {
    kind == b"message_stop"
}

/// Reads one event of a stream; true where it ends the stream.
pub(crate) fn event(gathered: &mut Gathered, event_name: &[u8], data: &[u8]) -> bool {
    let Some([kind, message, block, delta, usage, error]) =
        pick_bytes(data, &["type", "message", "content_block", "delta", "usage", "error"])
    else {
        return is_terminal_type(event_name);
    };
    match kind.and_then(json::string).unwrap_or_default().as_ref() {
        "content_block_delta" => gathered.output = true,
        "message_start" => {
            if let Some(message) = present(message) {
                message_object(gathered, message);
            }
        }
        "content_block_start" => {
            if let Some(block) = present(block) {
                content_block(gathered, block);
            }
        }
        "message_delta" => {
            if let Some([reason, sequence]) =
                present(delta).and_then(|d| pick(d, &["stop_reason", "stop_sequence"]))
            {
                gathered.finish(0, reason);
                keep(&mut gathered.finish_detail, sequence);
                gathered.final_usage |= present(reason).is_some();
            }
            merge(gathered, usage);
        }
        "completion" => completion(gathered, data),
        "error" => gathered.error = present(error).and_then(ProviderError::read),
        "message_stop" => return true,
        _ => {}
    }
    is_terminal_type(event_name)
}

fn merge(gathered: &mut Gathered, usage: Option<&str>) {
    let Some(usage) = present(usage) else { return };
    let before = gathered.counts.unwrap_or_default();
    let mut counts = before;
    counts.merge_anthropic(usage, gathered.served_model.as_deref());
    gathered.peak.raise(Some(&before));
    gathered.counts = (counts != Counts::default()).then_some(counts);
    if let Some([tier, speed, geo]) = pick(usage, &["service_tier", "speed", "inference_geo"]) {
        keep_word(&mut gathered.service_tier, tier);
        keep_word(&mut gathered.speed, speed);
        keep_word(&mut gathered.inference_geo, geo);
    }
}

/// Keeps a word that changes the price. What is there and no text is a word that nobody knows: it must not look as if
/// nothing were said.
fn keep_word(place: &mut Option<String>, told: Option<&str>) {
    keep(place, told);
    let is_text = |told: &str| told.starts_with('"') || told == "null";
    if told.is_some_and(|told| !is_text(told.trim())) {
        *place = Some("unread".to_owned());
    }
}

fn content_block(gathered: &mut Gathered, block: &str) {
    let Some([kind, tool]) = pick(block, &["type", "name"]) else { return };
    match name(kind).as_deref() {
        Some("tool_use") => gathered.calls.add(name(tool)),
        Some("server_tool_use" | "mcp_tool_use") => {
            gathered.server_calls = Some(gathered.server_calls.unwrap_or(0).saturating_add(1));
        }
        _ => {}
    }
}

fn message_object(gathered: &mut Gathered, message: &str) {
    let Some([id, model, content, reason, sequence, usage]) =
        pick(message, &["id", "model", "content", "stop_reason", "stop_sequence", "usage"])
    else {
        return;
    };
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, model);
    gathered.finish(0, reason);
    keep(&mut gathered.finish_detail, sequence);
    gathered.calls.possible();
    gathered.server_calls.get_or_insert(0);
    if let Some(content) = present(content) {
        each(content, &mut |block| content_block(gathered, block));
    }
    merge(gathered, usage);
}

fn completion(gathered: &mut Gathered, data: &[u8]) {
    let Some([id, model, reason, stop, text]) =
        pick_bytes(data, &["id", "model", "stop_reason", "stop", "completion"])
    else {
        return;
    };
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, model);
    gathered.finish(0, reason);
    keep(&mut gathered.finish_detail, stop);
    gathered.output |= text.is_some_and(|t| t != "\"\"");
}

/// Reads a whole message, or completion.
pub(crate) fn whole(gathered: &mut Gathered, kind: &str, text: &str) {
    if kind == "message" {
        message_object(gathered, text);
        gathered.final_usage = true;
    } else {
        completion(gathered, text.as_bytes());
    }
}

/// Reads a whole JSON body.
fn body(gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let kind = pick(text, &["type"]).and_then(|[kind]| name(kind));
    if status >= 400 || kind.as_deref() == Some("error") {
        gathered.error = ProviderError::read_body(text);
        return;
    }
    match kind.as_deref() {
        Some(kind @ ("message" | "completion")) => whole(gathered, kind, text),
        _ if operation.tokens() == Tokens::Counts => merge(gathered, Some(text)),
        _ => {}
    }
}
