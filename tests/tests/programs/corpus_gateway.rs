//! Recorded exchanges through the running gateway: the caller gets the recorded bytes, and the record says what the
//! recording expects.

use std::collections::BTreeMap;

use dialects::{AnswerFacts, Cause, Dialect, Limits, Meter};
use serde_json::{Value, json};
use tests::client::send;
use tests::corpus::{FURTHER, Line, Set, all_lines, set};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

#[path = "../../../gateway/dialects/tests/corpus/expected.rs"]
mod expected;

use expected::{Differences, Recorded, Table};

/// Fields of `expected` and where the outcome's leaf says the same.
const RECORDED: [(&str, &str); 15] = [
    ("model", "/answered/served_model"),
    ("request_model", "/asked/requested_model"),
    ("input_tokens", "/usage/reported/input"),
    ("output_tokens", "/usage/reported/output"),
    ("total_tokens", "/usage/reported/total"),
    ("cached_input_tokens", "/usage/reported/cached_input"),
    ("cache_creation_tokens", "/usage/reported/cache_creation"),
    ("reasoning_tokens", "/usage/reported/reasoning"),
    ("billed_search_units", "/usage/search_units"),
    ("finish_reason", "/answered/finish_reasons/0"),
    ("finish_detail", "/answered/finish_detail"),
    ("tool_calls", "/answered/tool_calls"),
    ("server_tool_calls", "/answered/server_tool_calls"),
    ("error_type", "/answered/error_type"),
    ("error_code", "/answered/error_code"),
];

/// What Cohere bills is its usage in the record. Where it tells none, the record has its tokens there: that none was told is
/// in the content only.
const BILLED: [(&str, &str); 2] =
    [("billed_input_tokens", "/usage/input_tokens"), ("billed_output_tokens", "/usage/output_tokens")];

/// Fields that no record has, and why. They are read from the content that was recorded.
const CONTENT_ONLY: [(&str, &str); 4] = [
    ("error_message", "a provider's free text is content, never a fact (CA-8)"),
    ("transport_input_tokens", "the body's own count is the usage, and where it has none this one is"),
    ("transport_output_tokens", "likewise"),
    ("usage_regressed", "the last usage of a stream is the one that counts"),
];

/// Of answers the head that was recorded, with the counts that AWS puts there.
const HEADERS: &str = "headers: { record_response: [content-type, retry-after, x-request-id, 'x-amzn-*'] }\n";

/// Text as the leaf holds it: outside an identifier's pattern it is a keyed pseudonym (CA-8).
fn is_same(expected: &Value, recorded: &Value) -> bool {
    match expected {
        Value::String(text) => {
            let identifier = (1..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/@+-".contains(&b));
            let pseudonym = recorded.as_str().is_some_and(|r| r.starts_with("p:"));
            recorded == expected || (!identifier && pseudonym)
        }
        _ => recorded == expected,
    }
}

/// What the recorded content says, read again.
fn kept(line: &Line, head: &[u8], body: &[u8]) -> AnswerFacts {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().and_then(|status| status.parse().ok()).expect("the recorded head has a status");
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: http::HeaderName = name.parse().expect("a header's name");
        headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"));
    }
    let spoken = Dialect::ALL.into_iter().find(|dialect| Some(dialect.name()) == line.gateway_dialect());
    let method = line.method.parse().expect("a method");
    let operation = dialects::operation(spoken.expect("a dialect"), &method, &line.path);
    let mut meter = Meter::new(operation, status, &headers, false, Limits::default());
    meter.feed(body, &mut Vec::new());
    meter.end(&mut Vec::new());
    meter.finish(Cause::Complete)
}

/// Every field as the evidence has it: in the outcome's leaf, or in its content only.
fn read(line: &Line, leaf: &Value, content: &AnswerFacts) -> BTreeMap<&'static str, Value> {
    let recorded = |path: &str| leaf.pointer(path).cloned().unwrap_or_default();
    let mut fields: BTreeMap<_, _> =
        RECORDED.into_iter().map(|(field, path)| (field, recorded(path))).collect();
    for ((field, path), told) in BILLED.into_iter().zip([content.billed_input, content.billed_output]) {
        let value = if line.expected[field].is_null() { json!(told) } else { recorded(path) };
        fields.insert(field, value);
    }
    let regressed = content.usage_regressed.then_some(true);
    let of_content = [
        json!(content.error_message),
        json!(content.transport_tokens[0]),
        json!(content.transport_tokens[1]),
        json!(regressed),
    ];
    fields.extend(CONTENT_ONLY.into_iter().map(|(field, _)| field).zip(of_content));
    fields
}

/// How many lines the set has, whatever their dialect.
fn written() -> usize {
    let (Set::Corpus(dir) | Set::Own(dir)) = set();
    let files = std::fs::read_dir(dir).expect("the set").map(|entry| entry.expect("an entry").path());
    let lines = |file| std::fs::read_to_string(file).expect("a file of the set").lines().count();
    files.filter(|file| file.extension().is_some_and(|end| end == "jsonl")).map(lines).sum()
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
    assert_eq!(all.len(), written(), "a line that no dialect reads");
    // To look at one line alone: a part of its name.
    if let Ok(only) = std::env::var("AFFIDAVIT_ONLY") {
        all.retain(|line| line.id.contains(&only));
    }
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start(all.clone()).await;
    // What a recording answers unasked (some providers always send usage) is what the caller shall see.
    let setup = Setup {
        provider: provider.url(),
        // What a recording does not tell is not to be made up here.
        route: "    ask_usage: false\n    estimate: off\n".into(),
        further: FURTHER.to_vec(),
        rest: HEADERS.into(),
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
            let got = send(address, &line.call(&key, &split)).await;
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
    let mut table = Table::default();
    for answers in whole.chunk_by(|one, next| one.0.id == next.0.id) {
        let mut found = Differences::default();
        for (line, id, split) in answers {
            let leaf = evidence.outcome(id).unwrap_or_else(|| {
                std::panic::panic_any(format!(
                    "{} split {split} {id}: no outcome\n{}",
                    line.id,
                    gateway.log()
                ))
            });
            let head = evidence.content(id, "client_request_head").cloned().unwrap_or_default();
            assert!(!head.is_empty(), "{}: no head", line.id);
            let text = String::from_utf8_lossy(&head);
            assert!(!text.contains(&key) && !text.contains("key="), "{}: a key is recorded: {text}", line.id);
            let request = line.request();
            if !request.is_empty() {
                let kept = evidence.content(id, "client_request");
                assert!(kept == Some(&request), "{}: client_request differs", line.id);
            }
            let response = line.response();
            let body = evidence.content(id, "provider_response").cloned().unwrap_or_default();
            assert!(body == response, "{} split {split}: provider_response differs", line.id);
            let head = evidence.content(id, "provider_response_head").cloned().unwrap_or_default();
            let fields = read(line, leaf, &kept(line, &head, &body));
            let place = format!("{} split {split}", line.id);
            let recorded = Recorded {
                id: &place,
                provider: &line.provider,
                kind: &line.dialect,
                path: &line.path,
                content_type: line.request_headers.get("content-type").map_or(&[], |value| value.as_bytes()),
                request: &request,
                expected: &line.expected,
            };
            found.add(&recorded, |field| &fields[field], is_same);
        }
        table.add(&answers[0].0.file, found);
    }
    eprint!("{}", table.text());
    for (field, reason) in CONTENT_ONLY {
        eprintln!("read from the recorded content, as no record has it: {field}: {reason}");
    }
    eprintln!("ran {calls} exchanges of {} lines (long round: {})", all.len(), tests::long_round());
    table.assert_none_wrong();
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("VERIFIED"), "{out}");
}
