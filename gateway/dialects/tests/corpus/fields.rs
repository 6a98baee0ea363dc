//! Field by field: what the meter reads is what `expected` says.

use std::collections::BTreeMap;

use dialects::{AnswerFacts, RequestFacts, request_facts};
use serde_json::{Value, json};

use super::every_line;
use super::expected::{Differences, Recorded, Table};
use super::support::pass;

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

#[test]
fn every_expected_field_is_met() {
    let (mut table, mut lines) = (Table::default(), 0);
    every_line(|line| {
        lines += 1;
        let request = request_facts(
            &line.operation,
            &line.request_headers,
            &line.path,
            line.query.as_deref(),
            &line.request,
        );
        let passed = pass(line, &line.response, &[], false);
        let got = read(&request, &passed.facts);
        let recorded = Recorded {
            id: &line.id,
            provider: &line.provider,
            kind: &line.kind,
            path: &line.path,
            content_type: line.request_headers.get("content-type").map_or(&[], |value| value.as_bytes()),
            request: &line.request,
            expected: &line.expected,
        };
        let mut found = Differences::default();
        found.add(&recorded, |field| &got[field], |wanted, got| wanted == got);
        table.add(&line.file, found);
    });
    print!("{}", table.text());
    table.assert_none_wrong();
    assert!(lines >= 20, "only {lines} lines");
}
