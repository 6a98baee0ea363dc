//! Small but complete forms of the OpenAI and Anthropic APIs, and by [`further`] of others: what their own SDKs need to work
//! whole and streamed, with tools, structured output, with errors (model `fail-<status>`), with coded request bodies. A word
//! `mark-...` of the prompt stands in the answer too: whose answer it is can be told.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, embed, full, further, long, pieces};

/// Answers one request by its path.
pub async fn answer(head: &Parts, body: &Bytes) -> Response<Body> {
    let decoded = decode(head, body);
    let request: Value = serde_json::from_slice(&decoded).unwrap_or(Value::Null);
    let path = head.uri.path();
    if let Some(answer) = long::answer(path, &request) {
        return answer;
    }
    if let Some(answer) = further::answer(path, head.uri.query().unwrap_or_default(), &request) {
        return answer;
    }
    let anthropic = head.headers.contains_key("anthropic-version");
    if let Some(status) =
        request["model"].as_str().and_then(|m| m.strip_prefix("fail-")).and_then(|s| s.parse().ok())
    {
        return failure(anthropic, status);
    }
    let operation = path.rsplit_once("/v1/").map_or(path.trim_start_matches('/'), |(_, p)| p);
    // Azure names the deployment before it.
    let operation = operation
        .strip_prefix("openai/deployments/")
        .map_or(operation, |path| path.split_once('/').map_or(path, |(_, operation)| operation));
    let mut response = match operation {
        "chat/completions" => chat(&request),
        "responses" => responses(&request),
        "embeddings" if request["dimensions"].is_number() => return embed::answer(&request).await,
        "embeddings" => embeddings(&request),
        "messages" => messages(&request),
        "messages/count_tokens" => json_answer(&json!({ "input_tokens": words(&request) })),
        "models" => json_answer(&json!({ "object": "list", "data": [
            { "id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "system" }
        ], "has_more": false })),
        "files" => json_answer(&json!({ "id": "file-abc", "object": "file", "bytes": decoded.len(),
            "created_at": 1, "filename": "upload.txt", "purpose": "assistants", "status": "processed" })),
        "audio/speech" => {
            let mut response = Response::new(full((0..=255u8).cycle().take(70_000).collect::<Vec<_>>()));
            response.headers_mut().insert("content-type", HeaderValue::from_static("audio/mpeg"));
            response
        }
        "moderations" => json_answer(&json!({ "id": "modr-1", "model": "omni-moderation-latest",
            "results": [{ "flagged": false, "categories": {}, "category_scores": {} }] })),
        other if other.starts_with("responses/") => {
            let id = other.trim_start_matches("responses/").split('/').next().unwrap_or_default();
            json_answer(&response_object(id, &response_text("stored answer"), 11, 5))
        }
        _ => failure(anthropic, 404),
    };
    let headers = response.headers_mut();
    let id = if anthropic { "request-id" } else { "x-request-id" };
    headers.entry(id).or_insert(HeaderValue::from_static("req_0123456789abcdef"));
    headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("9999"));
    response
}

fn decode(head: &Parts, body: &Bytes) -> Vec<u8> {
    use std::io::Read as _;
    let mut out = Vec::new();
    let coding = head.headers.get("content-encoding").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(&body[..]).take(1 << 28).read_to_end(&mut out),
        "zstd" => match zstd::stream::read::Decoder::new(&body[..]) {
            Ok(decoder) => decoder.take(1 << 28).read_to_end(&mut out),
            Err(error) => Err(error),
        },
        _ => return body.to_vec(),
    };
    if read.is_err() { Vec::new() } else { out }
}

/// A count that a test can foresee: the words of the request's text.
pub fn words(request: &Value) -> i64 {
    i64::try_from(request.to_string().split_whitespace().count()).unwrap_or(0)
}

pub(super) fn json_answer(value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// The message of an error, in every API the same.
pub(super) fn why(status: u16) -> &'static str {
    match status {
        400 => "the request is not valid",
        401 => "the provider knows no such key",
        404 => "no such thing",
        429 => "too many requests",
        529 => "overloaded",
        _ => "the provider failed",
    }
}

fn failure(anthropic: bool, status: u16) -> Response<Body> {
    let message = why(status);
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let body = if anthropic {
        json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": "req_failed" })
    } else {
        let (kind, code) = match status {
            404 => ("invalid_request_error", "model_not_found".to_owned()),
            500 => ("server_error", "code_500".to_owned()),
            _ => (kind, format!("code_{status}")),
        };
        json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
    };
    let mut response = json_answer(&body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == 429 {
        response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

pub(super) fn events(list: Vec<String>) -> Response<Body> {
    let sizes = list.iter().map(String::len).collect();
    let mut response = Response::new(pieces(Bytes::from(list.concat()), sizes));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response
}

/// The answer in its six pieces: JSON where that is wanted, else a sentence with the prompt's mark in it.
pub(super) fn said(request: &Value, wants_json: bool) -> [String; 6] {
    if wants_json {
        return ["{\"answer\":", "\"kept\"", ",", "\"sure\"", ":true", "}"].map(str::to_owned);
    }
    let text = request.to_string();
    let mark = super::marks(&text).last().unwrap_or("this");
    ["The ", "record ", "of ", &format!("{mark} "), "is ", "kept."].map(str::to_owned)
}

/// True where the caller offers tools and has not yet answered a call.
fn wants_tool(request: &Value, list: &str) -> bool {
    let answered = request[list].as_array().is_some_and(|messages| {
        messages.iter().any(|m| {
            m["role"] == "tool"
                || m["type"] == "function_call_output"
                || m["content"].as_array().is_some_and(|c| c.iter().any(|p| p["type"] == "tool_result"))
        })
    });
    request["tools"].as_array().is_some_and(|t| !t.is_empty()) && !answered
}

/// What a tool is called with, in two pieces: an answer where it takes one, for some SDKs ask for an object so.
pub(super) fn arguments(tool: &Value) -> [&'static str; 2] {
    if tool.to_string().contains("\"answer\":") {
        ["{\"answer\":\"kept\",", "\"sure\":true}"]
    } else {
        ["{\"key\":", "\"a b\"}"]
    }
}

fn chat(request: &Value) -> Response<Body> {
    let model = request["model"].as_str().unwrap_or("gpt-4o-mini");
    let tool = wants_tool(request, "messages");
    let called = request["tools"][0]["function"]["name"].as_str().unwrap_or("lookup");
    let pieces = arguments(&request["tools"][0]);
    let wants_json = request["response_format"]["type"].as_str().is_some_and(|kind| kind.starts_with("json"));
    let said = said(request, wants_json);
    let text = said.concat();
    let prompt = words(request);
    // One answer, one id, where the caller names itself.
    let id = request["user"].as_str().map_or("chatcmpl-api1".into(), |user| format!("chatcmpl-{user}"));
    let usage = json!({ "prompt_tokens": prompt, "completion_tokens": 6, "total_tokens": prompt + 6,
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0 } });
    if request["stream"] != true {
        let message = if tool {
            json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "call_1", "type": "function",
                "function": { "name": called, "arguments": pieces.concat() } }] })
        } else {
            json!({ "role": "assistant", "content": text, "refusal": null })
        };
        return json_answer(&json!({ "id": id, "object": "chat.completion", "created": 1_700_000_000,
            "model": model, "choices": [{ "index": 0, "message": message, "logprobs": null,
                "finish_reason": if tool { "tool_calls" } else { "stop" } }],
            "usage": usage, "service_tier": "default", "system_fingerprint": "fp_1" }));
    }
    let ask = request["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Option<&Value>| {
        let mut chunk = json!({ "id": id, "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": model, "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices });
        if ask {
            chunk["usage"] = usage.cloned().unwrap_or(Value::Null);
        }
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, end: Value| {
        chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": end }]), None)
    };
    let mut list = vec![delta(json!({ "role": "assistant", "content": "" }), Value::Null)];
    if tool {
        let call = |arguments: &str| {
            json!({ "tool_calls": [{ "index": 0, "id": "call_1", "type": "function",
                "function": { "name": called, "arguments": arguments } }] })
        };
        if model.starts_with("mistral") {
            // Mistral gives a call in one piece.
            list.push(delta(call(&pieces.concat()), Value::Null));
        } else {
            list.push(delta(call(""), Value::Null));
            for piece in pieces {
                list.push(delta(
                    json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] }),
                    Value::Null,
                ));
            }
        }
        list.push(delta(json!({}), json!("tool_calls")));
    } else {
        list.extend(said.iter().map(|word| delta(json!({ "content": word }), Value::Null)));
        list.push(delta(json!({}), json!("stop")));
    }
    if ask {
        list.push(chunk(json!([]), Some(&usage)));
    }
    list.push("data: [DONE]\n\n".into());
    events(list)
}

fn response_object(id: &str, item: &Value, input: i64, output: i64) -> Value {
    json!({ "id": id, "object": "response", "created_at": 1_700_000_000, "status": "completed", "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {}, "model": "gpt-4o-mini-2024-07-18",
        "output": [item], "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": { "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": output,
            "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": input + output } })
}

fn response_text(text: &str) -> Value {
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": text, "annotations": [] }] })
}

fn responses(request: &Value) -> Response<Body> {
    let wants_json = request["text"]["format"]["type"].as_str().is_some_and(|kind| kind.starts_with("json"));
    let said = said(request, wants_json);
    let item = if wants_tool(request, "input") {
        let called = request["tools"][0]["name"].as_str().unwrap_or("lookup");
        json!({ "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": called, "status": "completed",
            "arguments": "{\"key\":\"a b\"}" })
    } else {
        response_text(&said.concat())
    };
    let done = response_object("resp_api1", &item, words(request), 6);
    if request["stream"] != true {
        return json_answer(&done);
    }
    let mut started = done.clone();
    started["status"] = json!("in_progress");
    started["output"] = json!([]);
    started["usage"] = Value::Null;
    let mut number = 0;
    let mut event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(number);
        number += 1;
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let mut first = item.clone();
    first["status"] = json!("in_progress");
    let mut list = vec![event("response.created", json!({ "response": started }))];
    if item["type"] == "function_call" {
        first["arguments"] = json!("");
        list.push(event("response.output_item.added", json!({ "output_index": 0, "item": first })));
        let at = |mut data: Value| {
            data["item_id"] = json!("fc_1");
            data["output_index"] = json!(0);
            data
        };
        for piece in ["{\"key\":", "\"a b\"}"] {
            list.push(event("response.function_call_arguments.delta", at(json!({ "delta": piece }))));
        }
        let whole = at(json!({ "name": item["name"], "arguments": item["arguments"] }));
        list.push(event("response.function_call_arguments.done", whole));
    } else {
        first["content"] = json!([]);
        list.push(event("response.output_item.added", json!({ "output_index": 0, "item": first })));
        let at = |mut data: Value| {
            data["item_id"] = json!("msg_1");
            data["output_index"] = json!(0);
            data["content_index"] = json!(0);
            data
        };
        let part = json!({ "type": "output_text", "text": "", "annotations": [] });
        list.push(event("response.content_part.added", at(json!({ "part": part }))));
        for word in &said {
            list.push(event("response.output_text.delta", at(json!({ "delta": word, "logprobs": [] }))));
        }
        let text = at(json!({ "text": said.concat(), "logprobs": [] }));
        list.push(event("response.output_text.done", text));
        list.push(event("response.content_part.done", at(json!({ "part": item["content"][0] }))));
    }
    list.push(event("response.output_item.done", json!({ "output_index": 0, "item": item })));
    list.push(event("response.completed", json!({ "response": done })));
    events(list)
}

fn embeddings(request: &Value) -> Response<Body> {
    let count = request["input"].as_array().map_or(1, Vec::len);
    let embedding = if request["encoding_format"] == "base64" {
        json!("AACAPwAAAEAAAEBA")
    } else {
        json!([1.0, 2.0, 3.0])
    };
    let data: Vec<Value> =
        (0..count).map(|n| json!({ "object": "embedding", "index": n, "embedding": embedding })).collect();
    json_answer(&json!({ "id": "embd-1", "object": "list", "data": data, "model": "text-embedding-3-small",
        "usage": { "prompt_tokens": 8, "total_tokens": 8 } }))
}

fn messages(request: &Value) -> Response<Body> {
    let model = request["model"].as_str().unwrap_or("claude-sonnet-4-5");
    let tool = wants_tool(request, "messages");
    let called = request["tools"][0]["name"].as_str().unwrap_or("lookup");
    let pieces = arguments(&request["tools"][0]);
    let input = words(request);
    // As it is, and as it was in the beta.
    let forms = [&request["output_config"]["format"], &request["output_format"]];
    let said = said(request, forms.iter().any(|form| form.is_object()));
    let stop = if tool { "tool_use" } else { "end_turn" };
    let usage = json!({ "input_tokens": input, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30,
        "cache_creation": { "ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5 },
        "output_tokens": 6, "service_tier": "standard" });
    if request["stream"] != true {
        let content = if tool {
            let input: Value = serde_json::from_str(&pieces.concat()).unwrap_or_default();
            json!([{ "type": "tool_use", "id": "toolu_1", "name": called, "input": input }])
        } else {
            json!([{ "type": "text", "text": said.concat() }])
        };
        return json_answer(
            &json!({ "id": "msg_api1", "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage }),
        );
    }
    let event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let mut first = usage.clone();
    first["output_tokens"] = json!(1);
    let mut list = vec![event(
        "message_start",
        json!({ "message": { "id": "msg_api1", "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null, "usage": first } }),
    )];
    if tool {
        list.push(event(
            "content_block_start",
            json!({ "index": 0, "content_block":
            { "type": "tool_use", "id": "toolu_1", "name": called, "input": {} } }),
        ));
        list.push(event("ping", json!({})));
        for piece in pieces {
            list.push(event(
                "content_block_delta",
                json!({ "index": 0, "delta": { "type": "input_json_delta", "partial_json": piece } }),
            ));
        }
    } else {
        list.push(event(
            "content_block_start",
            json!({ "index": 0, "content_block": { "type": "text", "text": "" } }),
        ));
        list.push(event("ping", json!({})));
        for word in &said {
            list.push(event(
                "content_block_delta",
                json!({ "index": 0, "delta": { "type": "text_delta", "text": word } }),
            ));
        }
    }
    list.push(event("content_block_stop", json!({ "index": 0 })));
    list.push(event(
        "message_delta",
        json!({ "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": 6 } }),
    ));
    list.push(event("message_stop", json!({})));
    events(list)
}
