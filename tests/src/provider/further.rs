//! Small but complete forms of Gemini's, Vertex AI's, Cohere's and Ollama's APIs: what their own SDKs need to work whole and
//! streamed, with tools, structured output, embeddings and errors (model `fail-<status>`).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::api::{arguments, events, json_answer, said, why, words};
use super::{Body, pieces};

/// Answers a request on a path of one of these APIs; `None` on all others.
pub(super) fn answer(path: &str, query: &str, request: &Value) -> Option<Response<Body>> {
    if let Some((_, model)) = path.rsplit_once("/models/")
        && let Some((model, verb)) = model.split_once(':')
    {
        return Some(gemini(model, verb, query, request));
    }
    if let Some((_, operation)) = path.split_once("/v2/") {
        return Some(cohere(operation, request));
    }
    path.rsplit_once("/api/").map(|(_, operation)| ollama(operation, request))
}

/// The status that a model's name asks for.
fn fails(model: &str) -> Option<u16> {
    model.strip_prefix("fail-")?.parse().ok()
}

fn failed(status: u16, body: &Value) -> Response<Body> {
    let mut response = json_answer(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    if status == 429 {
        response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

/// Whether a message of `role` is in the conversation already.
fn is_answered(messages: &Value, role: &str) -> bool {
    messages.as_array().is_some_and(|messages| messages.iter().any(|message| message["role"] == role))
}

fn gemini(model: &str, verb: &str, query: &str, request: &Value) -> Response<Body> {
    if let Some(status) = fails(model) {
        let kind = match status {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            _ => "INTERNAL",
        };
        let error = json!({ "code": status, "message": why(status), "status": kind });
        return failed(status, &json!({ "error": error }));
    }
    let prompt = words(request);
    match verb {
        "generateContent" => json_answer(&gemini_part(model, request, None)),
        "streamGenerateContent" => {
            let list: Vec<Value> = match gemini_call(request) {
                Some(_) => vec![gemini_part(model, request, None)],
                None => (0..6).map(|n| gemini_part(model, request, Some(n))).collect(),
            };
            if query.contains("alt=sse") {
                return events(list.iter().map(|part| format!("data: {part}\r\n\r\n")).collect());
            }
            json_answer(&Value::Array(list))
        }
        "countTokens" => json_answer(&json!({ "totalTokens": prompt })),
        "embedContent" => json_answer(&json!({ "embedding": { "values": [0.25, 0.5, -1.0] } })),
        "batchEmbedContents" => {
            let count = request["requests"].as_array().map_or(1, Vec::len);
            let one = json!({ "values": [0.25, 0.5, -1.0] });
            json_answer(&json!({ "embeddings": vec![one; count] }))
        }
        "predict" => {
            let count = request["instances"].as_array().map_or(1, Vec::len);
            let one = json!({ "embeddings": { "values": [0.25, 0.5, -1.0],
                "statistics": { "truncated": false, "token_count": 3 } } });
            json_answer(&json!({ "predictions": vec![one; count] }))
        }
        _ => failed(
            404,
            &json!({ "error": { "code": 404, "message": "no such thing", "status": "NOT_FOUND" } }),
        ),
    }
}

/// The tool that is called: the first that is offered, until it has been answered.
fn gemini_call(request: &Value) -> Option<&str> {
    let parts = request["contents"].as_array()?.iter().filter_map(|content| content["parts"].as_array());
    let answered = parts.flatten().any(|part| !part["functionResponse"].is_null());
    let tool = &request["tools"][0]["functionDeclarations"][0]["name"];
    tool.as_str().filter(|_| !answered)
}

/// The whole answer, or its nth piece.
fn gemini_part(model: &str, request: &Value, piece: Option<usize>) -> Value {
    let is_last = piece.is_none_or(|n| n == 5);
    let said = said(request, request["generationConfig"]["responseMimeType"] == "application/json");
    let part = match (gemini_call(request), piece) {
        (Some(tool), _) => {
            let offered = &request["tools"][0]["functionDeclarations"][0];
            let args: Value = serde_json::from_str(&arguments(offered).concat()).unwrap_or_default();
            json!({ "functionCall": { "name": tool, "args": args } })
        }
        (None, Some(n)) => json!({ "text": said.get(n) }),
        (None, None) => json!({ "text": said.concat() }),
    };
    let mut candidate = json!({ "content": { "role": "model", "parts": [part] }, "index": 0 });
    if is_last {
        candidate["finishReason"] = json!("STOP");
    }
    let (prompt, out) = (words(request), piece.map_or(6, |n| n + 1));
    json!({ "candidates": [candidate], "modelVersion": model, "responseId": "resp-gemini-1",
        "usageMetadata": { "promptTokenCount": prompt, "candidatesTokenCount": out,
            "totalTokenCount": prompt + i64::try_from(out).unwrap_or(0),
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }] } })
}

fn cohere(operation: &str, request: &Value) -> Response<Body> {
    if let Some(status) = request["model"].as_str().and_then(fails) {
        return failed(status, &json!({ "id": "err-1", "message": why(status) }));
    }
    let prompt = words(request);
    let usage = json!({ "billed_units": { "input_tokens": prompt, "output_tokens": 6 },
        "tokens": { "input_tokens": prompt + 60, "output_tokens": 8 } });
    match operation {
        "chat" if request["stream"] == true => cohere_stream(request, &usage),
        "chat" => {
            let tool = cohere_call(request);
            let mut message = json!({ "role": "assistant" });
            match tool {
                Some(call) => message["tool_calls"] = json!([call]),
                None => {
                    let wants_json = request["response_format"]["type"] == "json_object";
                    let text = said(request, wants_json).concat();
                    message["content"] = json!([{ "type": "text", "text": text }]);
                }
            }
            let finish = if message["tool_calls"].is_null() { "COMPLETE" } else { "TOOL_CALL" };
            json_answer(
                &json!({ "id": "cohere-1", "message": message, "finish_reason": finish, "usage": usage }),
            )
        }
        "embed" => {
            let count = request["texts"].as_array().map_or(1, Vec::len);
            json_answer(&json!({ "id": "embed-1", "texts": request["texts"],
                "embeddings": { "float": vec![json!([0.25, 0.5, -1.0]); count] },
                "meta": { "api_version": { "version": "2" }, "billed_units": { "input_tokens": 5 } } }))
        }
        "rerank" => json_answer(&json!({ "id": "rerank-1",
            "results": [{ "index": 1, "relevance_score": 0.75 }, { "index": 0, "relevance_score": 0.25 }],
            "meta": { "api_version": { "version": "2" }, "billed_units": { "search_units": 1 } } })),
        _ => failed(404, &json!({ "message": "no such thing" })),
    }
}

fn cohere_call(request: &Value) -> Option<Value> {
    let tool = request["tools"][0]["function"]["name"].as_str()?;
    let function = json!({ "name": tool, "arguments": "{\"key\":\"a b\"}" });
    let call = json!({ "id": "call_1", "type": "function", "function": function });
    (!is_answered(&request["messages"], "tool")).then_some(call)
}

fn cohere_stream(request: &Value, usage: &Value) -> Response<Body> {
    let event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let mut list = vec![event(
        "message-start",
        json!({ "id": "cohere-1", "delta": { "message": { "role": "assistant", "content": [], "tool_plan": "",
            "tool_calls": [], "citations": [] } } }),
    )];
    let call = cohere_call(request);
    let finish = if call.is_some() { "TOOL_CALL" } else { "COMPLETE" };
    if let Some(mut call) = call {
        let text = call["function"]["arguments"].take();
        call["function"]["arguments"] = json!("");
        list.push(event(
            "tool-call-start",
            json!({ "index": 0, "delta": { "message": { "tool_calls": call } } }),
        ));
        let delta = json!({ "tool_calls": { "function": { "arguments": text } } });
        list.push(event("tool-call-delta", json!({ "index": 0, "delta": { "message": delta } })));
        list.push(event("tool-call-end", json!({ "index": 0 })));
    } else {
        let start = json!({ "content": { "type": "text", "text": "" } });
        list.push(event("content-start", json!({ "index": 0, "delta": { "message": start } })));
        for word in said(request, request["response_format"]["type"] == "json_object") {
            let delta = json!({ "content": { "text": word } });
            list.push(event("content-delta", json!({ "index": 0, "delta": { "message": delta } })));
        }
        list.push(event("content-end", json!({ "index": 0 })));
    }
    list.push(event("message-end", json!({ "delta": { "finish_reason": finish, "usage": usage } })));
    events(list)
}

fn ollama(operation: &str, request: &Value) -> Response<Body> {
    let model = request["model"].as_str().unwrap_or_default();
    if let Some(status) = fails(model) {
        return failed(status, &json!({ "error": why(status) }));
    }
    let prompt = words(request);
    let end = json!({ "done": true, "done_reason": "stop", "total_duration": 9, "load_duration": 1,
        "prompt_eval_count": prompt, "prompt_eval_duration": 2, "eval_count": 6, "eval_duration": 3 });
    let base = json!({ "model": model, "created_at": "2026-11-21T00:00:00.000000Z" });
    let joined = |parts: &[&Value]| {
        let fields = parts.iter().filter_map(|part| part.as_object()).flatten();
        Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let words = said(request, !request["format"].is_null());
    let said = |text: &str| match operation {
        "generate" => json!({ "response": text }),
        _ => json!({ "message": { "role": "assistant", "content": text } }),
    };
    let tool = request["tools"][0]["function"]["name"].as_str();
    let tool = tool.filter(|_| !is_answered(&request["messages"], "tool"));
    let calls = tool.map(|tool| {
        json!({ "message": { "role": "assistant", "content": "",
            "tool_calls": [{ "function": { "name": tool, "arguments": { "key": "a b" } } }] } })
    });
    match operation {
        "chat" | "generate" if request["stream"] == false => {
            json_answer(&joined(&[&base, &calls.unwrap_or_else(|| said(&words.concat())), &end]))
        }
        "chat" | "generate" => {
            let more = json!({ "done": false });
            let mut list: Vec<Value> = match &calls {
                Some(calls) => vec![joined(&[&base, calls, &more])],
                None => words.iter().map(|word| joined(&[&base, &said(word), &more])).collect(),
            };
            list.push(joined(&[&base, &said(""), &end]));
            let lines: Vec<String> = list.iter().map(|line| format!("{line}\n")).collect();
            let sizes = lines.iter().map(String::len).collect();
            let mut response = Response::new(pieces(Bytes::from(lines.concat()), sizes));
            let kind = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert("content-type", kind);
            response
        }
        "embed" => {
            let count = request["input"].as_array().map_or(1, Vec::len);
            json_answer(&json!({ "model": model, "embeddings": vec![json!([0.25, 0.5, -1.0]); count],
                "total_duration": 9, "load_duration": 1, "prompt_eval_count": 4 }))
        }
        _ => failed(404, &json!({ "error": "no such thing" })),
    }
}
