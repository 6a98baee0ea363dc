//! Embeddings of OpenAI's API that a test can foresee: a text's vector is the sum of those of its words, so that texts are as
//! near as they have words in common. Asked for with `dimensions`. A text that says `never embed` gets no answer, one that says
//! `refuse to embed` an error.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::api::{json_answer, words};
use super::{Body, pause};

pub(super) async fn answer(request: &Value) -> Response<Body> {
    let texts: Vec<&str> = match &request["input"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    if texts.iter().any(|text| text.contains("never embed")) {
        pause(Duration::from_secs(3600)).await;
    }
    if texts.iter().any(|text| text.contains("refuse to embed")) {
        let mut response =
            json_answer(&json!({ "error": { "message": "scripted", "type": "server_error" } }));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    }
    let length = request["dimensions"].as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(1);
    let item = |(index, text): (usize, &&str)| json!({ "object": "embedding", "index": index, "embedding": vector(text, length) });
    // In another order than asked: the index counts.
    let data: Vec<Value> = texts.iter().enumerate().rev().map(item).collect();
    let tokens = words(request);
    json_answer(&json!({ "object": "list", "data": data, "model": request["model"],
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens } }))
}

fn vector(text: &str, length: usize) -> Vec<f64> {
    let mut vector = vec![0.0; length.max(1)];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word.to_lowercase().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let at = usize::try_from(hash % vector.len() as u64).unwrap_or_default();
        vector[at] += 1.0;
    }
    if vector.iter().all(|part| *part == 0.0) {
        vector[0] = 1.0;
    }
    vector
}
