//! Whole answers of the messages API, usage and errors.

use http::Method;
use schemas::record::UsageSource;

use super::block::of_a_model;
use crate::json::{name, pick, present};
use crate::operation::{Dialect, operation};
use crate::translate::form::{
    Answer, Asked, Content, Dropped, Failure, FailureKind, Finish, Json, Part, Thinking, Unreadable, Usage,
};
use crate::translate::text::{Array, Object, Writer};
use crate::usage::{Convention, Counts};

/// What Anthropic's counts mean.
pub(super) fn usage(counts: &Counts) -> Usage {
    let asked = operation(Dialect::Anthropic, &Method::POST, "/v1/messages");
    Usage::from(&Counts::usage(Some(counts), &asked, Convention::Anthropic, UsageSource::Provider))
}

/// The value of `usage`; what is not known and has to be there is 0.
pub(super) fn write_usage(usage: &Usage) -> String {
    let mut written = Writer::new();
    written.integer("input_tokens", usage.uncached_input().unwrap_or(0));
    written.integer("cache_creation_input_tokens", usage.cache_write().unwrap_or(0));
    written.integer("cache_read_input_tokens", usage.cache_read.unwrap_or(0));
    written.integer("output_tokens", usage.output.unwrap_or(0));
    if let Some(reasoning) = usage.reasoning {
        written.raw("output_tokens_details", &Writer::new().integer("thinking_tokens", reasoning).end());
    }
    written.end()
}

/// Why an answer ended, by Anthropic's word.
pub(super) fn read_finish(word: &str, sequence: Option<String>) -> Finish {
    match word {
        "end_turn" => Finish::Stop,
        "stop_sequence" => Finish::StopSequence(sequence),
        "max_tokens" => Finish::Length,
        "model_context_window_exceeded" => Finish::ContextWindow,
        "tool_use" => Finish::ToolUse,
        "refusal" => Finish::Refused,
        "pause_turn" => Finish::Pause,
        other => Finish::Other(other.to_owned()),
    }
}

/// Anthropic's words for why an answer ended: `stop_reason` and `stop_sequence`.
pub(super) fn write_finish(finish: Option<&Finish>, written: &mut Writer) {
    let (word, sequence) = match finish {
        None | Some(Finish::Stop | Finish::Other(_)) => ("end_turn", None),
        Some(Finish::StopSequence(sequence)) => ("stop_sequence", sequence.as_deref()),
        Some(Finish::Length) => ("max_tokens", None),
        Some(Finish::ContextWindow) => ("model_context_window_exceeded", None),
        Some(Finish::ToolUse) => ("tool_use", None),
        Some(Finish::Refused) => ("refusal", None),
        Some(Finish::Pause) => ("pause_turn", None),
    };
    written.text("stop_reason", word);
    match sequence {
        Some(sequence) => written.text("stop_sequence", sequence),
        None => written.null("stop_sequence"),
    };
}

/// Reads a whole answer.
pub(super) fn read(body: &[u8]) -> Result<Answer, Unreadable> {
    let mut message = Object::body(body)?;
    if message.text("type")?.as_deref() != Some("message") {
        return Err(Unreadable::new("type", "message"));
    }
    let mut answer = Answer { id: message.text("id")?, model: message.text("model")?, ..Answer::default() };
    if let Some(text) = message.take("usage") {
        let mut counts = Counts::default();
        counts.merge_anthropic(text, answer.model.as_deref());
        answer.usage = Some(usage(&counts));
    }
    for (path, block) in message.array("content")?.unwrap_or_default() {
        read_block(&path, block, &mut answer)?;
    }
    let sequence = message.text("stop_sequence")?;
    answer.finish = message.text("stop_reason")?.map(|word| read_finish(&word, sequence));
    answer.parts.extend(explanation(message.take("stop_details")).map(|text| Content::Refusal(text).into()));
    Ok(answer)
}

/// Why it was refused, in words for people, where `stop_details` has some.
pub(super) fn explanation(details: Option<&str>) -> Option<String> {
    present(details).and_then(|details| pick(details, &["explanation"])).and_then(|[text]| name(text))
}

fn read_block(path: &str, block: &str, answer: &mut Answer) -> Result<(), Unreadable> {
    let mut block = Object::read(path, block)?;
    let kind = block.wanted("type")?;
    let Some(content) = of_a_model(&kind, &mut block, &mut answer.dropped)? else {
        answer.dropped.push(Dropped::hint(path, "server_tool"));
        return Ok(());
    };
    answer.parts.push(content.into());
    Ok(())
}

/// A block of an answer; none where there is no place for it.
fn write_block(part: &Part) -> Option<String> {
    let mut block = Writer::new();
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => block.text("type", "text").text("text", text),
        Content::Thinking(Thinking { redacted: Some(data), .. }) => {
            block.text("type", "redacted_thinking").text("data", data)
        }
        Content::Thinking(thinking) => block
            .text("type", "thinking")
            .text("thinking", &thinking.text)
            .text("signature", thinking.signature.as_deref().unwrap_or_default()),
        Content::ToolUse(call) => block
            .text("type", "tool_use")
            .text("id", &call.id)
            .text("name", &call.name)
            .json("input", &input(&call.arguments)),
        Content::Image(_) | Content::Document(_) | Content::Audio(_) | Content::ToolResult(_) => return None,
    };
    Some(block.end())
}

/// The arguments of a call. What is no object is wrapped as Anthropic's guide says for invalid JSON of its own.
fn input(arguments: &str) -> Json {
    if arguments.trim().is_empty() {
        return Json::empty_object();
    }
    Json::object(arguments).unwrap_or_else(|| {
        let wrapped = Writer::new().text("INVALID_JSON", arguments).end();
        Json::object(&wrapped).unwrap_or_else(Json::empty_object)
    })
}

/// Writes a whole answer.
pub(super) fn write(answer: &Answer, asked: &Asked) -> String {
    let mut blocks = Array::new();
    for block in answer.parts.iter().filter_map(write_block) {
        blocks.push(&block);
    }
    let mut written = head(answer.id.as_deref(), answer.model.as_deref(), asked);
    written.raw("content", &blocks.end());
    write_finish(answer.finish.as_ref(), &mut written);
    written.raw("usage", &write_usage(&answer.usage.unwrap_or_default()));
    written.end()
}

/// What a message begins with.
pub(super) fn head(id: Option<&str>, model: Option<&str>, asked: &Asked) -> Writer {
    let mut written = Writer::new();
    match id {
        Some(id) => written.text("id", id),
        None => written.text("id", &format!("msg_{}", asked.exchange)),
    };
    written.text("type", "message").text("role", "assistant");
    written.text("model", model.unwrap_or(&asked.model));
    written
}

/// Writes an error.
pub(super) fn write_error(failure: &Failure) -> String {
    let kind = match failure.kind {
        FailureKind::InvalidRequest => "invalid_request_error",
        FailureKind::Authentication => "authentication_error",
        FailureKind::Billing => "billing_error",
        FailureKind::Permission => "permission_error",
        FailureKind::NotFound => "not_found_error",
        FailureKind::TooLarge => "request_too_large",
        FailureKind::RateLimit => "rate_limit_error",
        FailureKind::Overloaded => "overloaded_error",
        FailureKind::Timeout => "timeout_error",
        FailureKind::Api => "api_error",
    };
    let error = Writer::new().text("type", kind).text("message", &failure.message).end();
    Writer::new().text("type", "error").raw("error", &error).end()
}
