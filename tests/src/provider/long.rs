//! Streams of as many words as the name of the model asks for: `words-110`. Every proxy passes that name on, whatever it does with
//! headers; the events are made once, so that a benchmark measures the proxy.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::Body;

/// In whose words a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    OpenAi,
    Anthropic,
    Gemini,
}

/// The stream that a request asks for; `None` where it asks for another answer.
pub(super) fn answer(path: &str, request: &Value) -> Option<Response<Body>> {
    let (form, model) = if let Some((_, rest)) = path.rsplit_once("/models/") {
        (Form::Gemini, rest.strip_suffix(":streamGenerateContent")?)
    } else if request["stream"] != true {
        return None;
    } else if path.ends_with("/messages") {
        (Form::Anthropic, request["model"].as_str()?)
    } else if path.ends_with("/completions") {
        (Form::OpenAi, request["model"].as_str()?)
    } else {
        return None;
    };
    let count = model.strip_prefix("words-")?.parse().ok()?;
    let stream = futures_util::stream::iter(events(form, count)).then(|event| async {
        // Each event is a write of its own.
        tokio::task::yield_now().await;
        Ok(Frame::data(event))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    Some(response)
}

/// Made at the first asking.
fn events(form: Form, count: u16) -> Vec<Bytes> {
    static MADE: OnceLock<Mutex<HashMap<(Form, u16), Vec<Bytes>>>> = OnceLock::new();
    let Ok(mut made) = MADE.get_or_init(Mutex::default).lock() else { return Vec::new() };
    made.entry((form, count))
        .or_insert_with(|| make(form, count).into_iter().map(Bytes::from).collect())
        .clone()
}

fn make(form: Form, count: u16) -> Vec<String> {
    let words = 0..count;
    match form {
        Form::OpenAi => {
            let chunk = |rest: &str| {
                format!(
                    r#"data: {{"id":"chatcmpl-words","object":"chat.completion.chunk","created":1,"model":"words-{count}",{rest}}}"#
                ) + "\n\n"
            };
            let choice = |delta: &str, end: &str| {
                chunk(&format!(r#""choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":{end}}}]"#))
            };
            let total = u32::from(count) + 7;
            let usage = format!(
                r#""choices":[],"usage":{{"prompt_tokens":7,"completion_tokens":{count},"total_tokens":{total}}}"#
            );
            let words = words.map(|n| choice(&format!(r#""content":"word{n} ""#), "null"));
            let end = [choice("", r#""stop""#), chunk(&usage), "data: [DONE]\n\n".to_owned()];
            words.chain(end).collect()
        }
        Form::Anthropic => {
            let event =
                |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
            let start = format!(
                r#","message":{{"id":"msg_words","type":"message","role":"assistant","model":"words-{count}","content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":7,"output_tokens":1}}}}"#
            );
            let block = r#","index":0,"content_block":{"type":"text","text":""}"#;
            let begin = [event("message_start", &start), event("content_block_start", block)];
            let word = |n| {
                event(
                    "content_block_delta",
                    &format!(r#","index":0,"delta":{{"type":"text_delta","text":"word{n} "}}"#),
                )
            };
            let delta = format!(
                r#","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{count}}}"#
            );
            let end = [
                event("content_block_stop", r#","index":0"#),
                event("message_delta", &delta),
                event("message_stop", ""),
            ];
            begin.into_iter().chain(words.map(word)).chain(end).collect()
        }
        Form::Gemini => {
            let event = |n: u16| {
                let end = if n + 1 == count { r#","finishReason":"STOP""# } else { "" };
                let total = u32::from(n) + 8;
                format!(
                    r#"data: {{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"word{n} "}}]}},"index":0{end}}}],"modelVersion":"words-{count}","responseId":"resp-words","usageMetadata":{{"promptTokenCount":7,"candidatesTokenCount":{},"totalTokenCount":{total}}}}}"#,
                    n + 1
                ) + "\r\n\r\n"
            };
            words.map(event).collect()
        }
    }
}
