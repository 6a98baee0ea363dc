//! Recorded exchanges through the running gateway: the caller gets the recorded bytes, and the record says what the
//! recording expects.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::client::{Call, send};
use tests::corpus::{Line, all_lines};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

/// Fields of `expected` and where the outcome's leaf says the same.
const FIELDS: [(&str, &[&str]); 14] = [
    ("model", &["answered", "served_model"]),
    ("request_model", &["asked", "requested_model"]),
    ("input_tokens", &["usage", "reported", "input"]),
    ("output_tokens", &["usage", "reported", "output"]),
    ("total_tokens", &["usage", "reported", "total"]),
    ("cached_input_tokens", &["usage", "reported", "cached_input"]),
    ("cache_creation_tokens", &["usage", "reported", "cache_creation"]),
    ("reasoning_tokens", &["usage", "reported", "reasoning"]),
    ("billed_input_tokens", &["usage", "input_tokens"]),
    ("billed_output_tokens", &["usage", "output_tokens"]),
    ("tool_calls", &["answered", "tool_calls"]),
    ("server_tool_calls", &["answered", "server_tool_calls"]),
    ("error_type", &["answered", "error_type"]),
    ("finish_detail", &["answered", "finish_detail"]),
];

fn at<'a>(leaf: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(leaf, |value, key| &value[*key])
}

/// Text as the leaf holds it: outside an identifier's pattern it is a keyed pseudonym (CA-8).
fn matches(expected: &Value, recorded: &Value) -> bool {
    match expected {
        Value::String(text) => {
            let identifier = (1..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/@+-".contains(&b));
            if identifier {
                recorded == expected
            } else {
                recorded.as_str().is_some_and(|r| r.starts_with("p:"))
            }
        }
        _ => recorded == expected,
    }
}

fn call(line: &Line, key: &str, split: &str) -> Call {
    let dialect = line.gateway_dialect().expect("only lines with a dialect");
    let route = if dialect == "azure_openai" { "azure" } else { dialect };
    // The gateway's key goes where the recorded caller had its own.
    let in_query = line.query.contains("key=REDACTED");
    let query = line.query.replace("key=REDACTED", &format!("key={key}"));
    let query = if query.is_empty() { query } else { format!("?{query}") };
    let mut call = Call {
        method: line.method.clone(),
        path: format!("/{route}{}{query}", line.path),
        headers: vec![("x-replay".into(), format!("{};split={split}", line.id))],
        body: line.request(),
    };
    let header = if dialect == "gemini" { "x-goog-api-key" } else { "x-affidavit-key" };
    if !in_query {
        call.headers.push((header.into(), key.into()));
    }
    for name in ["content-type", "anthropic-version", "anthropic-beta", "openai-beta"] {
        if let Some(value) = line.request_headers.get(name) {
            call.headers.push((name.into(), value.clone()));
        }
    }
    call
}

/// For the benchmark of stored bytes: the store and the same exchanges as JSON lines, where `AFFIDAVIT_KEEP` says.
fn keep(gateway: &Gateway, lines: &[Line]) {
    let Some(to) = std::env::var_os("AFFIDAVIT_KEEP").map(std::path::PathBuf::from) else { return };
    let mut text = String::new();
    for line in lines {
        let exchange = serde_json::json!({ "id": line.id, "path": line.path, "request_headers": line.request_headers,
            "request": String::from_utf8_lossy(&line.request()), "status": line.status,
            "response_headers": line.response_headers, "response": String::from_utf8_lossy(&line.response()) });
        text.push_str(&format!("{exchange}\n"));
    }
    std::fs::write(to.join("exchanges.jsonl"), text).expect("the JSON lines");
    std::fs::write(to.join("exchanges"), lines.len().to_string()).expect("the count");
    let done = std::process::Command::new("cp").arg("-r").arg(gateway.store()).arg(to.join("store")).status();
    assert!(done.is_ok_and(|s| s.success()), "the store is copied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_exchange_passes_unchanged_and_is_recorded_as_expected() {
    let mut all = all_lines();
    // To look at one line alone: a part of its name.
    if let Ok(only) = std::env::var("AFFIDAVIT_ONLY") {
        all.retain(|line| line.id.contains(&only));
    }
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start(all.clone()).await;
    // What a recording answers unasked (some providers always send usage) is what the caller shall see.
    let setup = Setup {
        provider: provider.url(),
        route: "    ask_usage: false\n".into(),
        further: vec!["gemini", "vertex", "cohere", "ollama", "watsonx", "bedrock"],
        ..Setup::default()
    };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let (address, key) = (gateway.address, gateway.key.clone());

    let mut calls = 0;
    let mut whole = Vec::new();
    for (n, line) in all.iter().enumerate() {
        let mut splits = vec!["whole".to_owned()];
        if line.streaming && std::env::var_os("AFFIDAVIT_KEEP").is_none() {
            let long = tests::long_round();
            if long || n % 8 == 0 {
                if line.response().len() <= if long { 64_000 } else { 2_000 } {
                    splits.push("bytes".into());
                }
                splits.push("recorded".into());
                let randoms = if long { 4 } else { 1 };
                splits.extend((0..randoms).map(|r| format!("random:{}", n * 7 + r + 1)));
            }
        }
        for split in splits {
            calls += 1;
            let got = send(address, &call(line, &key, &split)).await;
            let id = got.exchange().unwrap_or_default().to_owned();
            assert!(got.whole, "{} split {split}: the answer was cut (status {})", line.id, got.status);
            assert_eq!(got.status, line.status, "{} split {split}: {}", line.id, got.text());
            assert!(
                got.body == line.response(),
                "{} split {split}: the caller's bytes are not the recorded ones",
                line.id
            );
            whole.push((line, id, split));
        }
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let seen = provider.seen();
    assert_eq!(seen.len(), calls, "the provider saw each request once");
    assert!(seen.iter().all(|request| !request.line.contains(&key)), "a gateway key in a path");

    keep(&gateway, &all);
    let evidence = Evidence::read(&gateway);
    let mut table: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (line, id, split) in &whole {
        let leaf = evidence.outcome(id).unwrap_or_else(|| {
            std::panic::panic_any(format!("{} split {split} {id}: no outcome\n{}", line.id, gateway.log()))
        });
        let row = table.entry(&line.file).or_default();
        let mut bad = false;
        for (field, path) in FIELDS {
            let expected = &line.expected[field];
            // Azure's model is the deployment in the path; a recording's `request_model` is a field that Azure ignores.
            if field == "request_model" && line.path.contains("/openai/deployments/") {
                continue;
            }
            // What a request does not say cannot be asked of the record; what an answer does not say is absent.
            if expected.is_null() || matches(expected, at(leaf, path)) {
                continue;
            }
            bad = true;
            wrong.push(format!(
                "{} split {split}: {field}: expected {expected}, recorded {}",
                line.id,
                at(leaf, path)
            ));
        }
        if let Some(reason) = line.expected["finish_reason"].as_str()
            && !matches(&Value::from(reason), &leaf["answered"]["finish_reasons"][0])
        {
            bad = true;
            wrong.push(format!(
                "{} split {split}: finish_reason: expected {reason}, recorded {}",
                line.id, leaf["answered"]
            ));
        }
        let head = evidence.content(id, "client_request_head").cloned().unwrap_or_default();
        assert!(!head.is_empty(), "{}: no head", line.id);
        let text = String::from_utf8_lossy(&head);
        assert!(!text.contains(&key) && !text.contains("key="), "{}: a key is recorded: {text}", line.id);
        let request = line.request();
        if !request.is_empty() {
            assert!(
                evidence.content(id, "client_request") == Some(&request),
                "{}: client_request differs",
                line.id
            );
        }
        assert!(
            evidence
                .content(id, "provider_response")
                .map_or(line.response().is_empty(), |c| *c == line.response()),
            "{} split {split}: provider_response differs",
            line.id
        );
        row.0 += 1;
        row.1 += u32::from(bad);
    }
    for (file, (lines, wrong)) in &table {
        eprintln!("{file:40} {lines:5} answers, {wrong} wrong");
    }
    eprintln!("ran {calls} exchanges of {} lines (long round: {})", all.len(), tests::long_round());
    assert!(wrong.is_empty(), "{} fields wrong:\n{}", wrong.len(), wrong.join("\n"));
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("VERIFIED"), "{out}");
}
