//! Quotas of the real gateway: what is refused and how callers see it, what records and metrics say, and that what is spent
//! is never over the limit.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Call, Got, send};
use tests::corpus::Line;
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

const RULES: &str = "\
quotas:
  rules:
    - name: three
      match: { models: [three-*] }
      by: [consumer, model]
      count: requests
      limit: 3
      calendar: month
      time_zone: Europe/Vienna
      warn_at: [0.6]
      message: Ask \"llm-platform\" for more.
    - { name: none, match: { models: [none] }, count: tokens, limit: 0, per: 1m }
    - { name: watched, match: { models: [three-*] }, count: requests, limit: 1, per: 1d, then: observe }
    - { name: one, match: { models: [slow] }, count: concurrency, limit: 1 }
    - { name: cents, match: { models: [gpt-4o-mini] }, by: [team], count: money, currency: USD, limit: 0.004, per: 1d, warn_at: [0.1] }
";

fn ask(gateway: &Gateway, model: &str, more: &str) -> Call {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"x"}}]{more}}}"#);
    Call::post("/openai/v1/chat/completions", &gateway.key, body)
}

async fn asked(gateway: &Gateway, model: &str) -> Got {
    send(gateway.address, &ask(gateway, model, "")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_told_and_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), rest: RULES.into(), ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);

    for left in ["2", "1", "0"] {
        let got = asked(&gateway, "three-a").await;
        assert_eq!((got.status, got.header("x-ratelimit-remaining")), (200, Some(left)), "{}", gateway.log());
        assert_eq!(got.header("x-ratelimit-limit"), Some("3"));
        assert!(got.header("ratelimit-policy").is_some_and(|text| text.starts_with("\"three\";q=3;w=2")));
        let warned = got.header("x-affidavit-quota-warning").is_some();
        assert_eq!(warned, left != "2", "the second is over 0.6");
    }
    let refused = asked(&gateway, "three-a").await;
    assert_eq!((refused.status, refused.header("x-affidavit-reason")), (429, Some("quota_exceeded")));
    assert_eq!(refused.header("x-should-retry"), Some("false"), "a month is not waited for");
    assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)));
    assert!(refused.text().contains("rate_limit_error"), "{}", refused.text());
    let told: serde_json::Value = serde_json::from_slice(&refused.body).expect("JSON");
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("no room") && message.ends_with("Ask \"llm-platform\" for more."), "{message}");
    // Another model has a counter of its own; one without a rule has no header.
    assert_eq!(asked(&gateway, "three-b").await.status, 200);
    assert_eq!(asked(&gateway, "other").await.header("x-ratelimit-limit"), None);
    assert_eq!(asked(&gateway, "none").await.status, 429);

    // One at once: the second is refused until the first has ended.
    let slow = ask(&gateway, "slow", r#","stream":true"#).header("x-replay", "script:slow:200");
    let streamed = send(gateway.address, &slow);
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        asked(&gateway, "slow").await
    };
    let (first, second) = tokio::join!(streamed, second);
    assert_eq!((first.status, second.status), (200, 429));
    let mut status = 429;
    for _ in 0..100 {
        status = asked(&gateway, "slow").await.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 200, "its place is free again:\n{}", gateway.log());

    // Fifty at once on a budget for one or two: each reserves 0.0024 and more, and uses a thousandth of it.
    let call = ask(&gateway, "gpt-4o-mini", r#","max_tokens":4000"#);
    let all = futures_util::future::join_all((0..50).map(|_| send(gateway.address, &call))).await;
    let passed = all.iter().filter(|got| got.status == 200).count();
    assert!(all.iter().all(|got| [200, 429].contains(&got.status)));
    assert!(passed >= 1, "{passed}");
    let text = gateway.admin_get("/metrics").expect("metrics");
    for line in [
        "gateway_quota_full_total{rule=\"three\",result=\"refused\"} 1",
        "gateway_quota_full_total{rule=\"watched\",result=\"observed\"}",
        "gateway_quota_warnings_total{rule=\"three\",at=\"0.6\"}",
        "gateway_refusals_total{reason=\"quota_exceeded\"}",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    let limits: Vec<_> = evidence.of_kind("refusal").map(|refusal| refusal["limit"].clone()).collect();
    let three = limits.iter().find(|limit| limit["rule"] == "three").expect("the refusal names its rule");
    assert_eq!((&three["by"], &three["count"]), (&json!(["consumer", "model"]), &json!("requests")));
    assert_eq!((&three["limit"], &three["used"], &three["wanted"]), (&json!("3"), &json!("3"), &json!("1")));
    assert!(three["reset"].is_i64() && limits.iter().all(|limit| limit["rule"].is_string()));
    if let Some(cents) = limits.iter().find(|limit| limit["rule"] == "cents") {
        assert_eq!((&cents["currency"], &cents["limit"]), (&json!("USD"), &json!("0.004")));
    }
    let (code, text, _) = gateway.verify(&[]);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_a_limit_and_keeps_its_counter() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let rule = |limit: u64| {
        format!("quotas:\n  rules:\n    - {{ name: r, count: requests, limit: {limit}, per: 1d }}\n")
    };
    let setup = Setup { provider: provider.url(), rest: rule(2), ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    for status in [200, 200, 429] {
        assert_eq!(asked(&gateway, "gpt-4o-mini").await.status, status);
    }
    let path = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, text.replace(&rule(2), &rule(3))).expect("the configuration");
    gateway.wait_for_log("configuration reloaded", 1).await;
    for status in [200, 429] {
        assert_eq!(asked(&gateway, "gpt-4o-mini").await.status, status, "{}", gateway.log());
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

/// An answer of status 200 that `x-replay: ID` asks for.
fn answer(id: &str, kind: &str, body: &str) -> Line {
    let line = json!({ "id": id, "provider": "p", "dialect": "openai-chat", "method": "POST", "path": "/", "status": 200,
        "response_headers": { "content-type": kind }, "response_body": body });
    serde_json::from_value(line).expect("a line")
}

/// The records of this kind whose exchange asked for `model`.
fn of_model(evidence: &Evidence, kind: &str, model: &str) -> Vec<Value> {
    let intents = evidence.of_kind("intent").filter(|leaf| leaf["asked"]["requested_model"] == model);
    let asked: Vec<_> = intents.map(|leaf| leaf["exchange"].clone()).collect();
    evidence.of_kind(kind).filter(|leaf| asked.contains(&leaf["exchange"])).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_table_knows_passes_is_recorded_and_is_limited() {
    let dir = tempfile::tempdir().expect("a folder");
    let told = r#"{"output":{"text":"Hi"},"usage":{"input_tokens":5,"output_tokens":6,"total_tokens":11},"request_id":"1"}"#;
    let provider = Provider::start([
        answer("untold", "application/json", r#"{"content":"Hi","stop":true}"#),
        answer("told", "application/json", told),
    ])
    .await;
    let rest = "quotas:\n  default_output: 100\n  rules:\n    \
                - { name: tokens, match: { operations: [other] }, by: [model], count: tokens, limit: 250, per: 1d }\n";
    let setup = Setup { provider: provider.url(), rest: rest.into(), ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let call = |path: &str, model: &str, replay: &str| {
        let body = format!(r#"{{"model":"{model}","prompt":"Hi"}}"#);
        Call::post(&format!("/openai{path}"), &gateway.key, body).header("x-replay", replay)
    };
    // llama.cpp tells nothing: each keeps what it reserved, a third of its bytes and the default output.
    for (left, status) in [(Some("139"), 200), (Some("28"), 200), (Some("28"), 429)] {
        let got = send(gateway.address, &call("/completion", "llama", "untold")).await;
        let seen = (got.header("x-ratelimit-remaining"), got.status);
        assert_eq!(seen, (left, status), "{}\n{}", got.text(), gateway.log());
    }
    // What only reads takes nothing.
    let read = Call { method: "GET".into(), ..call("/slots", "llama", "untold") };
    assert_eq!(send(gateway.address, &read).await.status, 200);
    // DashScope tells what it used: that is charged.
    let generation = "/api/v1/services/aigc/text-generation/generation";
    for _ in 0..8 {
        let mut status = 429;
        for _ in 0..100 {
            status = send(gateway.address, &call(generation, "qwen", "told")).await.status;
            if status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(status, 200, "{}", gateway.log());
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, text, _) = gateway.verify(&[]);
    assert_eq!(code, 0, "{text}");
    let evidence = Evidence::read(&gateway);
    assert!(evidence.of_kind("intent").all(|intent| intent["asked"]["operation"] == "other"));
    let usage = |model| -> Vec<Value> {
        of_model(&evidence, "outcome", model).iter().map(|outcome| outcome["usage"].clone()).collect()
    };
    assert_eq!(usage("llama").len(), 3);
    assert!(usage("llama").iter().all(|usage| usage["source"] == "unknown"));
    assert_eq!(usage("qwen").len(), 8);
    for usage in usage("qwen") {
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(5), &json!(6)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_counted_where_it_is_run_and_not_where_it_is_stored() {
    let dir = tempfile::tempdir().expect("a folder");
    let usage =
        r#""usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":90,"connector_tokens":40}"#;
    let whole = format!(r#"{{"object":"conversation.response","conversation_id":"c","outputs":[],{usage}}}"#);
    let streamed = format!(
        "event: conversation.response.started\ndata: {{\"type\":\"conversation.response.started\",\"conversation_id\":\"c\"}}\n\n\
         event: message.output.delta\ndata: {{\"type\":\"message.output.delta\",\"content\":\"Hi\"}}\n\n\
         event: conversation.response.done\ndata: {{\"type\":\"conversation.response.done\",{usage}}}\n\n"
    );
    let provider = Provider::start([
        answer("whole", "application/json", &whole),
        answer("streamed", "text/event-stream", &streamed),
        answer("stored", "application/json", r#"{"id":"conv_1","object":"conversation"}"#),
    ])
    .await;
    let rest = "quotas:\n  default_output: 100\n  rules:\n    \
                - { name: tokens, by: [model], count: tokens, limit: 210, per: 1d }\n";
    let key = dir.path().join("provider.key");
    let setup = Setup {
        provider: provider.url(),
        providers: format!(
            "  - {{ name: mistral, kind: mistral, base_url: '{}', credential: {{ file: {} }} }}\n",
            provider.url(),
            key.display()
        ),
        routes: "  - { name: mistral, path: /mistral, provider: mistral }\n".into(),
        rest: rest.into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let call = |path: &str, model: &str, replay: &str| {
        let body = format!(r#"{{"model":"{model}","inputs":"Hi"}}"#);
        Call::post(path, &gateway.key, body).header("x-replay", replay)
    };
    let run = [
        ("/mistral/v1/conversations", "start", "whole"),
        ("/mistral/v1/conversations/c", "append", "streamed"),
        ("/mistral/v1/conversations/c/restart", "restart", "whole"),
    ];
    for (path, model, replay) in run {
        let got = send(gateway.address, &call(path, model, replay)).await;
        let left: i64 = got.header("x-ratelimit-remaining").and_then(|n| n.parse().ok()).unwrap_or(-1);
        assert!(got.status == 200 && left < 100, "{path}: {left}\n{}\n{}", got.text(), gateway.log());
    }
    // Each uses 90 and reserves more: a third of them finds no room.
    let again = async || send(gateway.address, &call(run[0].0, "start", "whole")).await.status;
    assert_eq!((again().await, again().await), (200, 429), "{}", gateway.log());
    let stored = send(gateway.address, &call("/openai/v1/conversations", "stored", "stored")).await;
    assert_eq!((stored.status, stored.header("x-ratelimit-remaining")), (200, Some("210")));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, text, _) = gateway.verify(&[]);
    assert_eq!(code, 0, "{text}");
    let evidence = Evidence::read(&gateway);
    for (_, model, _) in run {
        let intent = &of_model(&evidence, "intent", model)[0];
        assert_eq!(intent["asked"]["operation"], format!("conversations.{model}"));
        let usage = &of_model(&evidence, "outcome", model)[0]["usage"];
        let counts = ["input_tokens", "tool_use_input_tokens", "output_tokens"].map(|key| usage[key].clone());
        assert_eq!(counts, [json!(60), json!(40), json!(30)], "{model}: {usage}");
    }
    let usage = &of_model(&evidence, "outcome", "stored")[0]["usage"];
    assert_eq!(usage["source"], "not_applicable");
}
