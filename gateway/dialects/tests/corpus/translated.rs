//! Recorded answers of Gemini, Vertex AI and Bedrock, as callers of OpenAI's and Anthropic's dialects get them.

use std::collections::BTreeMap;

use dialects::Dialect;
use dialects::translate::Pair;
use dialects::translate::form::Asked;
use serde_json::Value;

use super::every_line;
use super::support::Line;

/// What the caller gets: whole, or the data of a stream's events.
struct Got {
    status: u16,
    values: Vec<Value>,
    ended: bool,
}

fn asked() -> Asked {
    Asked { model: "m".into(), stream_usage: true, created: 1, exchange: "x".into() }
}

fn translated(line: &Line, pair: Pair) -> Got {
    if !line.streaming {
        let whole = pair.answer(line.status, &line.headers, &line.response, &asked());
        let whole = whole.unwrap_or_else(|e| panic!("{}: {e}", line.id));
        let value = serde_json::from_slice(&whole.body).unwrap();
        return Got { status: whole.status, values: vec![value], ended: true };
    }
    let run = |chunks: &mut dyn Iterator<Item = &[u8]>| {
        let (mut translator, mut out) = (pair.stream(asked()), Vec::new());
        for chunk in chunks {
            translator.feed(chunk, &mut out);
        }
        translator.end(&mut out);
        assert_eq!(translator.failed(), line.expected["error_type"].is_string(), "{}", line.id);
        (out, translator.ended())
    };
    let whole = run(&mut std::iter::once(line.response.as_slice()));
    assert_eq!(run(&mut line.response.chunks(7)), whole, "{}: in pieces", line.id);
    let text = String::from_utf8(whole.0).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let values = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    Got { status: line.status, values, ended: whole.1 }
}

/// Input, output, cached input and reasoning as OpenAI counts them, of what the recording reports.
fn wanted(line: &Line) -> Option<[Option<i64>; 4]> {
    let n = |name: &str| line.expected[name].as_i64();
    let (input, output, total) = (n("input_tokens"), n("output_tokens"), n("total_tokens"));
    let (cached, reasoning) = (n("cached_input_tokens"), n("reasoning_tokens"));
    if line.operation.dialect() == Dialect::Bedrock {
        let written = n("cache_creation_tokens").unwrap_or(0);
        return Some([Some(input? + cached.unwrap_or(0) + written), output, cached, reasoning]);
    }
    let output = match (output, reasoning) {
        (None, None) => total? - input?,
        (output, reasoning) => output.unwrap_or(0) + reasoning.unwrap_or(0),
    };
    // The rest of the total is input: with what tools put into the prompt.
    Some([Some(total.map_or(input?, |total| total - output)), Some(output), cached, reasoning])
}

fn usage(values: &[Value]) -> Option<[Option<i64>; 4]> {
    let usage = values.iter().rev().map(|value| &value["usage"]).find(|usage| usage.is_object())?;
    let n = |value: &Value| value.as_i64();
    Some([
        n(&usage["prompt_tokens"]),
        n(&usage["completion_tokens"]),
        n(&usage["prompt_tokens_details"]["cached_tokens"]),
        n(&usage["completion_tokens_details"]["reasoning_tokens"]),
    ])
}

fn calls(values: &[Value]) -> usize {
    let lists = values.iter().flat_map(|value| {
        let choice = &value["choices"][0];
        [&choice["message"]["tool_calls"], &choice["delta"]["tool_calls"]].map(|list| list.as_array())
    });
    lists.flatten().flatten().filter(|call| call["id"].is_string()).count()
}

/// The word that stands for the provider's in OpenAI's dialect.
fn finish(word: &str, calls: usize) -> &'static str {
    match word {
        "tool_use" => "tool_calls",
        "STOP" | "1" if calls > 0 => "tool_calls",
        "MAX_TOKENS" | "2" | "max_tokens" => "length",
        "MODEL_ARMOR" | "SAFETY" | "guardrail_intervened" => "content_filter",
        _ => "stop",
    }
}

#[test]
fn every_answer_of_gemini_and_bedrock_is_translated_with_its_usage() {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    every_line(|line| {
        if !matches!(line.kind.as_str(), "gemini-generate" | "bedrock-converse") {
            return;
        }
        let dialect = line.operation.dialect();
        let mut count = |what: &'static str| *counts.entry((dialect.name(), what)).or_default() += 1;
        for caller in [Dialect::OpenAi, Dialect::Anthropic] {
            let pair = Pair::of(caller, dialect).unwrap();
            let got = translated(line, pair);
            if line.status >= 400 {
                assert!(got.status >= 400, "{}", line.id);
                assert_eq!(got.values[0]["error"]["message"], line.expected["error_message"], "{}", line.id);
                count("errors");
                continue;
            }
            if line.expected["error_type"].is_string() {
                assert!(!got.ended, "{}: ends behind an error", line.id);
                count("errors within streams");
                continue;
            }
            assert!(got.ended, "{}: has no end", line.id);
            count(if line.streaming { "streams" } else { "whole" });
            if caller == Dialect::Anthropic {
                continue;
            }
            assert_eq!(usage(&got.values), wanted(line), "{}", line.id);
            let called = calls(&got.values);
            assert_eq!(called as i64, line.expected["tool_calls"].as_i64().unwrap_or(0), "{}", line.id);
            count("usage and calls as recorded");
            let told = got.values.iter().rev().find_map(|v| v["choices"][0]["finish_reason"].as_str());
            if let Some(word) = line.expected["finish_reason"].as_str() {
                assert_eq!(told, Some(finish(word, called)), "{}: {word}", line.id);
                count("reasons");
            }
        }
    });
    for ((dialect, what), count) in counts {
        println!("{dialect}: {count} {what}");
    }
}
