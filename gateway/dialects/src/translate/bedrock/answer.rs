//! Whole answers of Converse, its usage, and errors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use schemas::record::UsageSource;

use crate::bedrock::{Beside, converse_counts, error};
use crate::json::{each, name, pick, present, string};
use crate::operation::{Dialect, operation};
use crate::translate::form::{
    Answer, Content, Dropped, Failure, FailureKind, Finish, Part, Thinking, ToolUse, Unreadable, Usage,
};
use crate::usage::{Convention, Counts};

pub(super) fn read(body: &[u8]) -> Result<Answer, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::new("body", "a JSON object in UTF-8"))?;
    let [output, reason, usage, fields] =
        pick(text, &["output", "stopReason", "usage", "additionalModelResponseFields"])
            .ok_or_else(|| Unreadable::new("body", "a JSON object"))?;
    let content = present(output)
        .and_then(|output| pick(output, &["message"]))
        .and_then(|[message]| pick(present(message)?, &["content"]))
        .and_then(|[content]| present(content))
        .ok_or_else(|| Unreadable::new("output.message.content", "a list"))?;
    let mut answer = Answer { usage: present(usage).and_then(counted), ..Answer::default() };
    let mut at = 0_usize;
    each(content, &mut |found| {
        block(&mut answer, &format!("output.message.content[{at}]"), found);
        at += 1;
    });
    answer.finish = name(reason).map(|reason| finished(&reason, fields));
    Ok(answer)
}

fn block(answer: &mut Answer, path: &str, block: &str) {
    let Some([text, call, reasoning, cited]) =
        pick(block, &["text", "toolUse", "reasoningContent", "citationsContent"])
    else {
        return;
    };
    if let Some(text) = present(text).and_then(string) {
        answer.parts.push(Part::text(text));
    } else if let Some(call) = present(call) {
        match tool_use(call) {
            Some(call) => answer.parts.push(Content::ToolUse(call).into()),
            None => answer.dropped.push(Dropped::hint(path, "server_tool")),
        }
    } else if let Some(thinking) = present(reasoning).and_then(thinking) {
        answer.parts.push(Content::Thinking(thinking).into());
    } else if let Some(cited) = present(cited) {
        let [content, citations] = pick(cited, &["content", "citations"]).unwrap_or_default();
        let mut text = String::new();
        each(present(content).unwrap_or_default(), &mut |piece| {
            text.push_str(&pick(piece, &["text"]).and_then(|[text]| name(text)).unwrap_or_default());
        });
        answer.parts.push(Part::text(text));
        if present(citations).is_some() {
            answer.dropped.push(Dropped::hint(path, "citations"));
        }
    } else {
        answer.dropped.push(Dropped::hint(path, place(block)));
    }
}

/// What a block is that the form has no place for.
fn place(block: &str) -> &'static str {
    let [image, audio, video, result] =
        pick(block, &["image", "audio", "video", "toolResult"]).unwrap_or_default();
    if present(result).is_some() {
        return "server_tool";
    }
    if [image, audio, video].into_iter().any(|media| present(media).is_some()) { "media" } else { "content" }
}

/// A call of one of the caller's tools; `None` for those that the provider runs.
fn tool_use(call: &str) -> Option<ToolUse> {
    let [id, function, input, kind] = pick(call, &["toolUseId", "name", "input", "type"])?;
    if name(kind).as_deref() == Some("server_tool_use") {
        return None;
    }
    Some(ToolUse {
        id: name(id).unwrap_or_default(),
        name: name(function).unwrap_or_default(),
        arguments: present(input).unwrap_or("{}").to_owned(),
    })
}

fn thinking(reasoning: &str) -> Option<Thinking> {
    let [text, redacted] = pick(reasoning, &["reasoningText", "redactedContent"])?;
    if let Some(text) = present(text) {
        let [text, signature] = pick(text, &["text", "signature"])?;
        let text = name(text).unwrap_or_default();
        return Some(Thinking { text, signature: name(signature), redacted: None });
    }
    let redacted = String::from_utf8(unpacked(&name(redacted)?)?).ok()?;
    Some(Thinking { redacted: Some(redacted), ..Thinking::default() })
}

/// The bytes of a blob. What Anthropic encrypts is text, and Bedrock packs it once more.
pub(super) fn unpacked(blob: &str) -> Option<Vec<u8>> {
    STANDARD.decode(blob).ok()
}

/// Why it ended. `fields`: what the model's own API says beside, where it was asked for.
pub(super) fn finished(reason: &str, fields: Option<&str>) -> Finish {
    match reason {
        "end_turn" => Finish::Stop,
        "tool_use" => Finish::ToolUse,
        "max_tokens" => Finish::Length,
        "stop_sequence" => {
            let told = present(fields).and_then(|fields| pick(fields, &["stop_sequence"]));
            Finish::StopSequence(told.and_then(|[stop]| name(stop)))
        }
        "guardrail_intervened" | "content_filtered" => Finish::Refused,
        "model_context_window_exceeded" => Finish::ContextWindow,
        other => Finish::Other(other.into()),
    }
}

/// The tokens that `usage` tells.
pub(super) fn counted(usage: &str) -> Option<Usage> {
    let counts = converse_counts(usage)?;
    let operation = operation(Dialect::Bedrock, &http::Method::POST, "/model/m/converse");
    let recorded = Counts::usage(Some(&counts), &operation, Convention::Anthropic, UsageSource::Provider);
    Some(Usage::from(&recorded))
}

pub(super) fn read_error(status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let told = error(Beside::read(headers).error(), &text).unwrap_or_default();
    failure(Some(status), told.kind.or(told.code), told.message)
}

/// An error by the name of its exception, which stands with a small letter in a stream.
pub(super) fn failure(status: Option<u16>, exception: Option<String>, message: Option<String>) -> Failure {
    let kind = exception.as_deref().and_then(kind);
    let kind = kind.or(status.map(FailureKind::of_status)).unwrap_or(FailureKind::Api);
    Failure {
        // An unknown key is a 403 there, and a quota a 400.
        status: status
            .filter(|status| FailureKind::of_status(*status) == kind)
            .unwrap_or_else(|| kind.status()),
        kind,
        code: exception,
        message: message.unwrap_or_else(|| "the provider gave no reason".to_owned()),
    }
}

fn kind(exception: &str) -> Option<FailureKind> {
    let name = exception.strip_suffix("Exception").unwrap_or(exception).to_ascii_lowercase();
    Some(match name.as_str() {
        "validation" | "conflict" => FailureKind::InvalidRequest,
        "unrecognizedclient"
        | "expiredtoken"
        | "invalidsignature"
        | "incompletesignature"
        | "missingauthenticationtoken"
        | "invalidclienttokenid" => FailureKind::Authentication,
        "accessdenied" => FailureKind::Permission,
        "resourcenotfound" => FailureKind::NotFound,
        "throttling" | "servicequotaexceeded" | "toomanyrequests" => FailureKind::RateLimit,
        "serviceunavailable" | "modelnotready" => FailureKind::Overloaded,
        "modeltimeout" | "requesttimeout" => FailureKind::Timeout,
        "internalserver" | "internalfailure" | "modelerror" | "modelstreamerror" => FailureKind::Api,
        _ => return None,
    })
}
