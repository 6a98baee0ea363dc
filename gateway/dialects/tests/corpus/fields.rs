//! Field by field: what the meter reads is what `expected` says.

use std::collections::BTreeMap;

use dialects::{AnswerFacts, RequestFacts, request_facts};
use serde_json::{Value, json};

use super::every_line;
use super::support::{Line, pass};

#[derive(Default)]
struct Tally {
    lines: u32,
    exact: u32,
    explained: u32,
    wrong: u32,
}

/// Fields that only dialects of other providers report.
const FOREIGN: [&str; 0] = [];

fn read(request: &RequestFacts, facts: &AnswerFacts) -> BTreeMap<&'static str, Value> {
    let reported = &facts.usage.reported;
    BTreeMap::from([
        ("model", json!(facts.served_model)),
        ("request_model", json!(request.requested_model)),
        ("input_tokens", json!(reported.input)),
        ("output_tokens", json!(reported.output)),
        ("total_tokens", json!(reported.total)),
        ("cached_input_tokens", json!(reported.cached_input)),
        ("cache_creation_tokens", json!(reported.cache_creation)),
        ("reasoning_tokens", json!(reported.reasoning)),
        ("billed_input_tokens", json!(facts.billed_input)),
        ("billed_output_tokens", json!(facts.billed_output)),
        ("billed_search_units", json!(facts.search_units)),
        ("finish_reason", json!(facts.finish_reason())),
        ("finish_detail", json!(facts.finish_detail)),
        ("tool_calls", json!(facts.tool_calls)),
        ("server_tool_calls", json!(facts.server_tool_calls)),
        ("error_type", json!(facts.error_type)),
        ("error_code", json!(facts.error_code)),
        ("error_message", json!(facts.error_message)),
        ("transport_input_tokens", json!(facts.transport_tokens[0])),
        ("transport_output_tokens", json!(facts.transport_tokens[1])),
        ("usage_regressed", if facts.usage_regressed { json!(true) } else { Value::Null }),
    ])
}

/// Where we mean to differ, and why.
fn explained(line: &Line, field: &str, got: &Value, wanted: &Value) -> Option<&'static str> {
    if field == "model" && line.kind == "mistral-ocr" && wanted.is_null() {
        return Some("the answer names its model, which `expected` does not read");
    }
    if field == "server_tool_calls" && line.kind == "bedrock-invoke" && *got == 0 && wanted.is_null() {
        return Some("Anthropic's body on Bedrock shows calls of its own tools as at Anthropic");
    }
    if field != "request_model" {
        return None;
    }
    if line.kind == "watsonx-generate" && wanted.is_null() {
        return Some("the model is in `model_id`, which `expected` does not read");
    }
    let deployment = line.path.strip_prefix("/openai/deployments/").and_then(|rest| rest.split('/').next());
    let body: Value = serde_json::from_slice(&line.request).unwrap_or_default();
    if deployment.is_some_and(|d| got == d) && body["model"] == *wanted {
        return Some(
            "Azure serves the deployment of the path; `expected` has the body's model, which Azure ignores",
        );
    }
    let multipart =
        line.request_headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"multipart/"));
    let field = format!("name=\"model\"\r\n\r\n{}\r\n", got.as_str().unwrap_or_default());
    if multipart && wanted.is_null() && memchr::memmem::find(&line.request, field.as_bytes()).is_some() {
        return Some("the model is in the multipart form, which `expected` does not read");
    }
    None
}

#[test]
fn every_expected_field_is_met() {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut reasons: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut shown = 0;
    every_line(|line| {
        let tally = tallies.entry(line.file.clone()).or_default();
        tally.lines += 1;
        let request = request_facts(
            &line.operation,
            &line.request_headers,
            &line.path,
            line.query.as_deref(),
            &line.request,
        );
        let passed = pass(line, &line.response, &[], false);
        let got = read(&request, &passed.facts);
        let (mut wrong, mut differs) = (false, false);
        for (field, wanted) in line.expected.as_object().unwrap() {
            let null = Value::Null;
            let got = got.get(field.as_str()).unwrap_or_else(|| {
                assert!(FOREIGN.contains(&field.as_str()), "unknown field {field}");
                &null
            });
            let wanted = if *field == "usage_regressed" && *wanted == false { &null } else { wanted };
            if got == wanted {
                continue;
            }
            if let Some(reason) = explained(line, field, got, wanted) {
                *reasons.entry(reason).or_default() += 1;
                differs = true;
            } else {
                wrong = true;
                shown += 1;
                if shown <= 60 {
                    println!(
                        "{} ({} {}): {field}: got {got}, wanted {wanted}",
                        line.id, line.provider, line.kind
                    );
                }
            }
        }
        if wrong {
            tally.wrong += 1;
        } else if differs {
            tally.explained += 1;
        } else {
            tally.exact += 1;
        }
    });
    println!("{:<32} {:>6} {:>6} {:>9} {:>6}", "file", "lines", "exact", "explained", "wrong");
    let mut sum = Tally::default();
    for (file, t) in &tallies {
        println!("{file:<32} {:>6} {:>6} {:>9} {:>6}", t.lines, t.exact, t.explained, t.wrong);
        sum.lines += t.lines;
        sum.exact += t.exact;
        sum.explained += t.explained;
        sum.wrong += t.wrong;
    }
    println!("{:<32} {:>6} {:>6} {:>9} {:>6}", "all", sum.lines, sum.exact, sum.explained, sum.wrong);
    for (reason, count) in &reasons {
        println!("explained {count}: {reason}");
    }
    assert!(sum.lines >= 20, "only {} lines", sum.lines);
    assert_eq!(sum.wrong, 0, "fields differ from what the recordings say");
}
