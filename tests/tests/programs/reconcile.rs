//! What the auditor says of cost, against what the provider itself saw: the real gateway, the real auditor, and exports
//! that are made from the provider's side.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::api::words;
use tests::provider::{Provider, Seen};

const DAY: i64 = 86_400;

fn chat(model: &str, user: &str, stream: bool) -> String {
    json!({ "model": model, "user": user, "stream": stream, "stream_options": stream.then(|| json!({ "include_usage": true })),
        "messages": [{ "role": "user", "content": format!("what is kept of {user} and why") }] })
    .to_string()
}

/// Requests, input and output by model, as the provider counted them.
fn counted(seen: &[Seen], path: &str) -> BTreeMap<String, [i64; 3]> {
    let mut sums: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for request in seen.iter().filter(|request| request.line.contains(path)) {
        let body: Value = serde_json::from_slice(&request.body).expect("the request is JSON");
        let sum = sums.entry(body["model"].as_str().expect("a model").to_owned()).or_default();
        for (sum, more) in sum.iter_mut().zip([1, words(&body), 6]) {
            *sum += more;
        }
    }
    sums
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    i64::try_from(now.as_secs()).expect("a time")
}

fn today() -> i64 {
    now() / DAY * DAY
}

/// The sums are those of one day: no test begins shortly before midnight.
async fn not_before_midnight() {
    while now() % DAY > DAY - 90 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

fn openai_usage(seen: &[Seen]) -> String {
    let results: Vec<Value> = counted(seen, "/chat/completions")
        .into_iter()
        .map(|(model, [requests, input, output])| {
            json!({ "object": "organization.usage.completions.result", "input_tokens": input, "output_tokens": output,
                "input_cached_tokens": 0, "num_model_requests": requests, "api_key_id": "key_gateway", "model": model })
        })
        .collect();
    // A day with nothing is told too.
    let data: Vec<Value> = [(today() - DAY, json!([])), (today(), Value::Array(results))]
        .into_iter()
        .map(|(start, results)| {
            json!({ "object": "bucket", "start_time": start, "end_time": start + DAY, "results": results })
        })
        .collect();
    json!({ "object": "page", "data": data, "has_more": false, "next_page": null }).to_string()
}

fn anthropic(results: &Value) -> String {
    let at = |seconds: i64| jiff::Timestamp::from_second(seconds).expect("a time").to_string();
    json!({ "data": [{ "starting_at": at(today()), "ending_at": at(today() + DAY), "results": results }],
        "has_more": false, "next_page": null })
    .to_string()
}

struct Auditor<'a>(&'a Gateway);

impl Auditor<'_> {
    fn run(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let dir = &self.0.dir;
        let mut args = vec![command.to_owned(), self.0.store().display().to_string()];
        args.extend(["--trust".into(), dir.join("trust.yaml").display().to_string()]);
        args.extend(["--state".into(), dir.join("auditor-state").display().to_string()]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        self.0.auditor(&args)
    }

    fn ask(&self, command: &str, more: &[&str]) -> String {
        let (exit, out, err) = self.run(command, more);
        assert_eq!(exit, 0, "{command} {more:?}: {out}{err}");
        out
    }

    /// Reconciles as a mandate asks for it; exit code and result.
    fn reconcile(&self, exports: &[&str], more: &[&str]) -> (i32, Value) {
        let mut words = vec!["--format", "json", "--partial", "--require", "claim=reconciled"];
        for export in exports {
            words.extend(["--export", export]);
        }
        words.extend(more);
        let (exit, out, err) = self.run("reconcile", &words);
        (exit, serde_json::from_str(&out).unwrap_or_else(|_| panic!("exit {exit}: {out}{err}")))
    }
}

fn codes(result: &Value) -> Vec<String> {
    let list = result["report"]["findings"]["list"].as_array().cloned().unwrap_or_default();
    let counts = list.iter().filter(|finding| finding["effect"] != "note");
    counts.map(|finding| finding["code"].as_str().unwrap_or_default().to_owned()).collect()
}

fn python(script: &str, dir: &Path) -> String {
    let python = std::env::var_os("AFFIDAVIT_PYTHON").expect("AFFIDAVIT_PYTHON, as `tests/run` sets it");
    let output = Command::new(python)
        .arg(tests::root().join("tests/second/exports.py"))
        .arg(script)
        .arg(dir)
        .arg(tests::root().join("schemas/json/tap.ocsf.schema.json"))
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_counted_is_what_was_recorded_and_what_passed_the_gateway_by_is_found() {
    not_before_midnight().await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    for n in 0..12 {
        let model = if n % 3 == 0 { "gpt-4o" } else { "gpt-4o-mini" };
        let body = chat(model, &format!("caller-{n}"), n % 2 == 0);
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let body =
        r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{"role":"user","content":"and this"}]}"#;
    let call =
        Call::post("/anthropic/v1/messages", &gateway.key, body).header("anthropic-version", "2023-06-01");
    assert_eq!(send(gateway.address, &call).await.status, 200);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let auditor = Auditor(&gateway);
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("the export is written");
        path.display().to_string()
    };

    // What both providers counted themselves.
    let seen = provider.seen();
    let openai = format!("openai-usage={}", file("openai.json", &openai_usage(&seen)));
    let (model, [_, input, output]) = counted(&seen, "/messages").pop_first().expect("one model");
    let usage = json!([{ "uncached_input_tokens": input, "cache_read_input_tokens": 30, "output_tokens": output,
        "cache_creation": { "ephemeral_1h_input_tokens": 5, "ephemeral_5m_input_tokens": 15 }, "model": model,
        "api_key_id": "apikey_gateway", "workspace_id": null, "service_tier": null, "context_window": null }]);
    let messages = format!("anthropic-usage={}", file("anthropic.json", &anthropic(&usage)));
    let (exit, result) = auditor.reconcile(&[&openai, &messages], &[]);
    assert_eq!((exit, codes(&result)), (0, vec![]), "{result:#}");
    let line = result["first_line"].as_str().unwrap_or_default();
    assert!(line.contains("; reconciled within 0.5 % with anthropic-usage, openai-usage"), "{line}");
    let cells = result["reconciliation"]["exports"][0]["cells"].as_array().map(Vec::len);
    assert_eq!(cells, Some(2), "{result:#}");

    // Without one of the exports nothing is said of that provider.
    let (exit, result) = auditor.reconcile(&[&openai], &[]);
    assert_eq!(
        (exit, result["reconciliation"]["not_covered"]["anthropic"].as_u64()),
        (1, Some(1)),
        "{result:#}"
    );
    assert_eq!(codes(&result), ["CLAIM_NOT_REACHED"]);

    // The bill of the calls, and one that charges twice.
    let cost = auditor.ask("cost", &["--by", "provider", "--format", "jsonl"]);
    let rows: Vec<Value> = cost.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let charged = rows.iter().find(|row| row["provider"] == "anthropic").expect("a cost");
    let dollars: f64 = charged["cost"].as_str().and_then(|cost| cost.parse().ok()).expect("a number");
    for (cents, exit) in [(dollars * 100.0, 0), (dollars * 200.0, 1)] {
        let bill = json!([{ "currency": "USD", "amount": format!("{cents:.12}"), "cost_type": "tokens", "model": model,
            "description": "Usage" }]);
        let bill = format!("anthropic-cost={}", file("bill.json", &anthropic(&bill)));
        let (found, result) = auditor.reconcile(&[&openai, &messages, &bill], &[]);
        assert_eq!(found, exit, "{result:#}");
        assert_eq!(codes(&result).contains(&"RECONCILE_DIFF".to_owned()), exit == 1, "{result:#}");
    }

    // One call past the gateway, with its key.
    let host = provider.url().trim_start_matches("http://").parse().expect("an address");
    let direct = Call::post(
        "/v1/chat/completions",
        "sk-provider-secret-0123456789",
        chat("gpt-4o", "stranger", false),
    );
    assert_eq!(send(host, &direct).await.status, 200);
    let openai = format!("openai-usage={}", file("openai.json", &openai_usage(&provider.seen())));
    let (exit, result) = auditor.reconcile(&[&openai, &messages], &[]);
    assert_eq!(exit, 1, "{result:#}");
    assert_eq!(codes(&result), ["UNRECORDED_USAGE", "CLAIM_NOT_REACHED"], "{result:#}");
    let (exit, text, _) = auditor.run("reconcile", &["--partial", "--export", &openai]);
    assert!(exit == 1 && text.contains("unrecorded model gpt-4o, "), "{text}");

    // A provider's log of calls, by request id: every answer of this provider has the same one.
    let at = jiff::Timestamp::now().to_string();
    let log = |id: &str| {
        json!({ "time": at, "category": "RequestResponse", "operationName": "ChatCompletions_Create",
            "resultSignature": "200", "correlationId": id, "properties": "{\"modelName\":\"gpt-4o\"}" })
    };
    let calls = json!({ "records": [log("req_0123456789abcdef"), log("a-stranger")] }).to_string();
    let calls = format!("azure-log@openai={}", file("azure.json", &calls));
    let until =
        jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(1)).expect("a time").to_string();
    let (_, result) = auditor.reconcile(&[&calls], &["--to", &until]);
    let calls = &result["reconciliation"]["exports"][0]["calls"];
    assert_eq!(
        (calls["matched"].as_u64(), calls["only_provider_count"].as_u64()),
        (Some(12), Some(1)),
        "{result:#}"
    );
    assert_eq!(calls["only_provider"][0]["id"], "a-stranger");

    // The exports for other tools say the same, checked by others.
    for (format, name) in [("focus", "focus.csv"), ("focus", "focus.parquet"), ("ocsf", "events.jsonl")] {
        let out = dir.path().join(name).display().to_string();
        auditor.ask("export", &["--format", format, "--out", &out]);
    }
    for (name, more) in [
        ("cost.csv", &["--by", "model"][..]),
        ("forecast.csv", &["--forecast"]),
        ("savings.csv", &["--savings"]),
    ] {
        let out = dir.path().join(name).display().to_string();
        auditor.ask("cost", &[&["--format", "csv", "--out", &out], more].concat());
    }
    println!("{}", python("check", dir.path()));
}
