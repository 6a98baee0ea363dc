//! Whole answers of chat completions, usage and errors.

use http::Method;
use schemas::record::UsageSource;

use crate::json;
use crate::operation::{Dialect, operation};
use crate::translate::failure;
use crate::translate::form::{
    Answer, Asked, Content, Dropped, Failure, FailureKind, Finish, Part, Thinking, ToolUse, Unreadable,
    Usage, Weight,
};
use crate::translate::text::{Array, Object, Writer};
use crate::usage::{Convention, Counts};

/// Reads OpenAI's `usage`.
pub(super) fn read_usage(text: &str) -> Option<Usage> {
    let counts = Counts::openai(text)?;
    let asked = operation(Dialect::OpenAi, &Method::POST, "/v1/chat/completions");
    let usage = Counts::usage(Some(&counts), &asked, Convention::OpenAi, UsageSource::Provider);
    Some(Usage::from(&usage))
}

/// The value of `usage`; none where a main count is not known, since clients rely on both.
pub(super) fn write_usage(usage: &Usage) -> Option<String> {
    let (input, output) = (usage.input?, usage.output?);
    let mut written = Writer::new();
    written.integer("prompt_tokens", input).integer("completion_tokens", output);
    written.integer("total_tokens", input.saturating_add(output));
    let mut of_input = Writer::new();
    if let Some(cached) = usage.cache_read {
        of_input.integer("cached_tokens", cached);
    }
    if let Some(cached) = usage.cache_write() {
        of_input.integer("cache_write_tokens", cached);
    }
    if let Some(audio) = usage.input_audio {
        of_input.integer("audio_tokens", audio);
    }
    if !of_input.is_empty() {
        written.raw("prompt_tokens_details", &of_input.end());
    }
    let mut of_output = Writer::new();
    if let Some(reasoning) = usage.reasoning {
        of_output.integer("reasoning_tokens", reasoning);
    }
    if let Some(audio) = usage.output_audio {
        of_output.integer("audio_tokens", audio);
    }
    if !of_output.is_empty() {
        written.raw("completion_tokens_details", &of_output.end());
    }
    Some(written.end())
}

/// Why an answer ended, by OpenAI's word.
pub(super) fn read_finish(word: &str) -> Finish {
    match word {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolUse,
        "content_filter" => Finish::Refused,
        other => Finish::Other(other.to_owned()),
    }
}

/// OpenAI's word for why an answer ended.
pub(super) fn write_finish(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Pause | Finish::Other(_) => "stop",
        Finish::Length | Finish::ContextWindow => "length",
        Finish::ToolUse => "tool_calls",
        Finish::Refused => "content_filter",
    }
}

/// Reads a whole answer: its first choice.
pub(super) fn read(body: &[u8]) -> Result<Answer, Unreadable> {
    let mut whole = Object::body(body)?;
    let mut answer = Answer { id: whole.text("id")?, model: whole.text("model")?, ..Answer::default() };
    // Groq's own place for it counts where the usual one is empty.
    let groq = whole.take("x_groq").and_then(|groq| json::pick(groq, &["usage"])).and_then(|[usage]| usage);
    answer.usage = whole.take("usage").or(groq).and_then(read_usage);
    if let Some(error) = whole.take("error") {
        return Ok(Answer { failure: Some(failure::event(error)), ..answer });
    }
    let choices = whole.array("choices")?.unwrap_or_default();
    let Some((path, choice)) = choices.first() else {
        return Err(Unreadable::new("choices", "an array with an answer"));
    };
    if choices.len() > 1 {
        answer.dropped.push(Dropped::meaning("choices", "several_answers"));
    }
    let mut choice = Object::read(path, choice)?;
    if let Some(error) = choice.take("error") {
        return Ok(Answer { failure: Some(failure::event(error)), ..answer });
    }
    let wanted = || Unreadable::new(format!("{path}.message"), "an object");
    let mut message = choice.object("message")?.ok_or_else(wanted)?;
    read_message(&mut message, &mut answer)?;
    answer.finish = choice.text("finish_reason")?.map(|word| read_finish(&word));
    let refuses = answer.parts.iter().any(|part| matches!(part.content, Content::Refusal(_)));
    if refuses && answer.finish == Some(Finish::Stop) {
        answer.finish = Some(Finish::Refused);
    }
    let known = [
        ("annotations", "annotations", Weight::Hint),
        ("audio", "audio_output", Weight::Meaning),
        ("reasoning_details", "thinking", Weight::Hint),
    ];
    message.take("role");
    message.rest(&known, &mut answer.dropped);
    if choice.take("logprobs").is_some() {
        answer.dropped.push(Dropped::hint("choices[0].logprobs", "logprobs"));
    }
    Ok(answer)
}

fn read_message(message: &mut Object<'_>, answer: &mut Answer) -> Result<(), Unreadable> {
    let other = message.text("reasoning")?;
    if let Some(text) = message.text("reasoning_content")?.or(other).filter(|text| !text.is_empty()) {
        answer.parts.push(Content::Thinking(Thinking { text, ..Thinking::default() }).into());
    }
    if let Some(content) = message.take("content") {
        let whole = pieces(content, &mut |thinks, text| {
            answer.parts.push(if thinks {
                Content::Thinking(Thinking { text, ..Thinking::default() }).into()
            } else {
                Part::text(text)
            });
        });
        if !whole {
            return Err(Unreadable::new(message.path("content"), "a string or an array of parts"));
        }
    }
    if let Some(text) = message.text("refusal")?.filter(|text| !text.is_empty()) {
        answer.parts.push(Content::Refusal(text).into());
    }
    for (path, call) in message.array("tool_calls")?.unwrap_or_default() {
        let mut call = Object::read(&path, call)?;
        let Some(mut function) = call.object("function")? else {
            answer.dropped.push(Dropped::meaning(path, "custom_tool"));
            continue;
        };
        let name = function.wanted("name")?;
        let arguments = match function.take("arguments") {
            // Some providers write the object itself.
            Some(text) => json::string(text).map_or_else(|| text.to_owned(), std::borrow::Cow::into_owned),
            None => String::new(),
        };
        let id = call.text("id")?.unwrap_or_else(|| format!("call_{}", answer.parts.len()));
        answer.parts.push(Content::ToolUse(ToolUse { id, name, arguments }).into());
    }
    Ok(())
}

/// The texts of `content`, and whether each is a thought: a string, or Mistral's array of texts and thoughts. False where it
/// is neither.
pub(super) fn pieces(content: &str, each: &mut dyn FnMut(bool, String)) -> bool {
    let mut give = |thinks, text: Option<std::borrow::Cow<'_, str>>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            each(thinks, text.into_owned());
        }
    };
    if let Some(text) = json::string(content) {
        give(false, Some(text));
        return true;
    }
    json::each(content, &mut |part| {
        let [text, thinking] = json::pick(part, &["text", "thinking"]).unwrap_or_default();
        give(false, text.and_then(json::string));
        let Some(thinking) = thinking else { return };
        if !json::each(thinking, &mut |inner| {
            give(true, json::pick(inner, &["text"]).and_then(|[text]| text).and_then(json::string));
        }) {
            give(true, json::string(thinking));
        }
    })
}

/// A call of a tool; in a stream with its place.
pub(super) fn call(call: &ToolUse, signature: Option<&str>, place: Option<usize>) -> String {
    let mut written = Writer::new();
    if let Some(place) = place {
        written.integer("index", i64::try_from(place).unwrap_or(i64::MAX));
    }
    // No arguments at all are an empty object here.
    let arguments = if call.arguments.is_empty() && place.is_none() { "{}" } else { &call.arguments };
    let function = Writer::new().text("name", &call.name).text("arguments", arguments).end();
    written.text("id", &call.id).text("type", "function").raw("function", &function);
    if let Some(signature) = signature {
        written.raw("extra_content", &extra(signature));
    }
    written.end()
}

/// Google's own place in this dialect for the signature of a call.
pub(super) fn extra(signature: &str) -> String {
    let google = Writer::new().text("thought_signature", signature).end();
    Writer::new().raw("google", &google).end()
}

/// A block of `thinking_blocks`; in a stream with its place.
pub(super) fn thinking_block(thinking: &Thinking, place: Option<usize>) -> String {
    let mut block = Writer::new();
    if let Some(place) = place {
        block.integer("index", i64::try_from(place).unwrap_or(i64::MAX));
    }
    match (&thinking.redacted, &thinking.signature) {
        (Some(data), _) => block.text("type", "redacted_thinking").text("data", data),
        (None, signature) => {
            block.text("type", "thinking").text("thinking", &thinking.text);
            if let Some(signature) = signature {
                block.text("signature", signature);
            }
            &mut block
        }
    };
    block.end()
}

/// The value of `message`.
fn write_message(answer: &Answer) -> String {
    let (mut text, mut refusal, mut thoughts) = (None::<String>, None::<String>, String::new());
    let (mut blocks, mut calls) = (Array::new(), Array::new());
    for part in &answer.parts {
        match &part.content {
            Content::Text(piece) => text.get_or_insert_default().push_str(piece),
            Content::Refusal(piece) => refusal.get_or_insert_default().push_str(piece),
            Content::Thinking(thinking) => {
                thoughts.push_str(&thinking.text);
                if thinking.signature.is_some() || thinking.redacted.is_some() {
                    blocks.push(&thinking_block(thinking, None));
                }
            }
            Content::ToolUse(used) => calls.push(&call(used, part.signature.as_deref(), None)),
            Content::Image(_) | Content::Document(_) | Content::Audio(_) | Content::ToolResult(_) => {}
        }
    }
    let mut message = Writer::new();
    message.text("role", "assistant");
    match &text {
        Some(text) => message.text("content", text),
        None => message.null("content"),
    };
    match &refusal {
        Some(refusal) => message.text("refusal", refusal),
        None => message.null("refusal"),
    };
    if !thoughts.is_empty() {
        message.text("reasoning_content", &thoughts);
    }
    if !blocks.is_empty() {
        message.raw("thinking_blocks", &blocks.end());
    }
    if !calls.is_empty() {
        message.raw("tool_calls", &calls.end());
    }
    message.end()
}

/// Writes a whole answer.
pub(super) fn write(answer: &Answer, asked: &Asked) -> String {
    let mut choice = Writer::new();
    choice.integer("index", 0).raw("message", &write_message(answer)).null("logprobs");
    choice.text("finish_reason", answer.finish.as_ref().map_or("stop", write_finish));
    let mut written = head("chat.completion", answer.id.as_deref(), answer.model.as_deref(), asked);
    written.raw("choices", &format!("[{}]", choice.end()));
    if let Some(usage) = answer.usage.as_ref().and_then(write_usage) {
        written.raw("usage", &usage);
    }
    written.end()
}

/// What every answer and every chunk begins with.
pub(super) fn head(object: &str, id: Option<&str>, model: Option<&str>, asked: &Asked) -> Writer {
    let mut written = Writer::new();
    match id {
        Some(id) => written.text("id", id),
        None => written.text("id", &format!("chatcmpl-{}", asked.exchange)),
    };
    written.text("object", object).integer("created", asked.created);
    written.text("model", model.unwrap_or(&asked.model));
    written
}

/// Writes an error.
pub(super) fn write_error(failure: &Failure) -> String {
    let kind = match failure.kind {
        FailureKind::InvalidRequest | FailureKind::TooLarge | FailureKind::NotFound => {
            "invalid_request_error"
        }
        FailureKind::Authentication => "authentication_error",
        FailureKind::Billing => "insufficient_quota",
        FailureKind::Permission => "permission_error",
        FailureKind::RateLimit => "rate_limit_error",
        FailureKind::Overloaded | FailureKind::Timeout | FailureKind::Api => "server_error",
    };
    let mut error = Writer::new();
    error.text("message", &failure.message).text("type", kind).null("param");
    match &failure.code {
        // Clients tell by this word that it was no other fault of the request; only a model can be missing here.
        _ if failure.kind == FailureKind::NotFound => error.text("code", "model_not_found"),
        Some(code) => error.text("code", code),
        None => error.null("code"),
    };
    Writer::new().raw("error", &error.end()).end()
}
