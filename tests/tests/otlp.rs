//! Spans and metrics as the real OpenTelemetry Collector takes them, held field by field against the records of the verified
//! log; and a collector that is away, in nobody's way.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::{Call, Got, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tests::services::{Otelcol, Span};
use tests::tapped::Certificates;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVER: i64 = 2;
const CLIENT: i64 = 3;
const NEEDLE: &str = "needle-in-the-prompt";

fn body(model: &str, stream: bool) -> String {
    let options = if stream { json!({ "include_usage": true }) } else { Value::Null };
    let mut body = json!({ "model": model, "stream": stream, "max_tokens": 50, "temperature": 0.5,
        "messages": [{ "role": "user", "content": NEEDLE }] });
    if stream {
        body["stream_options"] = options;
    }
    body.to_string()
}

fn chat(key: &str, stream: bool) -> Call {
    Call::post("/openai/v1/chat/completions", key, body("gpt-4o-mini", stream))
}

fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
}

fn exchanges(gateway: &Gateway, result: &str) -> f64 {
    metric(gateway, &format!("gateway_otlp_exchanges_total{{result=\"{result}\"}}"))
}

/// The record of each exchange that has an end: its outcome, or its refusal.
fn ends(evidence: &Evidence) -> BTreeMap<String, Value> {
    let of = |kind: &str| evidence.of_kind(kind).cloned().collect::<Vec<_>>();
    let all = of("outcome").into_iter().chain(of("refusal"));
    all.filter_map(|value| Some((value["exchange"].as_str()?.to_owned(), value))).collect()
}

/// What stands in a span, and what is to stand there; null: nothing.
#[track_caller]
fn same(span: &Span, key: &str, record: &Value) {
    let found = span.attributes.get(key).unwrap_or(&Value::Null);
    assert_eq!(found, record, "{key} of {}", span.value);
}

/// Holds the span of a caller's request against its record.
fn hold_server(span: &Span, record: &Value) {
    let refused = record["kind"] == "refusal";
    for (key, value) in [
        ("http.request.method", &record["asked"]["method"]),
        ("http.response.status_code", &record["status"]),
        ("affidavit.exchange", &record["exchange"]),
        ("affidavit.route", &record["asked"]["route"]),
        ("affidavit.operation", &record["asked"]["operation"]),
        ("affidavit.consumer", &record["caller"]["consumer"]["value"]),
        ("affidavit.team", &record["caller"]["team"]["value"]),
        ("affidavit.key", &record["caller"]["key"]),
        ("affidavit.end", &record["end"]),
        ("affidavit.reason", &record["reason"]),
        ("affidavit.recorded", &json!(true)),
    ] {
        // A caller that is not known has a record without what it asked.
        if !(key == "http.request.method" && value.is_null()) {
            same(span, key, value);
        }
    }
    let error = if refused { record["reason"].clone() } else { error_of(record) };
    same(span, "error.type", &error);
    assert_eq!(span.resource["service.name"], "affidavit-gateway");
    assert_eq!(span.resource["service.namespace"], "test");
    let instance = span.resource["service.instance.id"].as_str().unwrap_or_default();
    assert!(instance.len() > 20 && instance.starts_with("gw1/2"), "{instance}");
    assert_eq!(span.resource["deployment.environment.name"], "staging");
    if !refused {
        let told = record["timing"]["total_us"].as_i64().unwrap_or(0) * 1000;
        assert!(span.nanoseconds() >= told - 1_000_000, "{} of {record}", span.value);
    }
}

fn error_of(record: &Value) -> Value {
    let status = record["provider_status"].as_i64().unwrap_or(0);
    match record["end"].as_str() {
        Some("complete") if status >= 400 => status.to_string().into(),
        Some("complete") => Value::Null,
        _ => record["end"].clone(),
    }
}

fn is_estimated(record: &Value) -> bool {
    record["usage"]["source"] == "estimated" && record["usage"]["role"] == "incurred"
}

/// Holds the span of the request to a provider against the outcome.
fn hold_client(span: &Span, record: &Value) {
    let (asked, answered, usage) = (&record["asked"], &record["answered"], &record["usage"]);
    let operation = match asked["operation"].as_str().unwrap_or_default() {
        "chat.completions" | "messages.create" | "responses.create" => "chat",
        "embeddings.create" => "embeddings",
        other => other,
    };
    let model = asked["requested_model"].as_str();
    assert_eq!(span.text("name"), model.map_or(operation.to_owned(), |model| format!("{operation} {model}")));
    let provider = match asked["dialect"].as_str() {
        Some("azure_openai") => "azure.ai.openai",
        dialect => dialect.unwrap_or_default(),
    };
    let incurred = |key: &str| if usage["role"] == "incurred" { usage[key].clone() } else { Value::Null };
    let written =
        match (incurred("cache_write_5m_tokens").as_i64(), incurred("cache_write_1h_tokens").as_i64()) {
            (None, None) => Value::Null,
            (short, long) => json!(short.unwrap_or(0) + long.unwrap_or(0)),
        };
    let estimated = if is_estimated(record) { json!(true) } else { Value::Null };
    for (key, value) in [
        ("affidavit.usage.estimated", &estimated),
        ("affidavit.usage.tokenizer", &incurred("tokenizer")),
        ("gen_ai.operation.name", &json!(operation)),
        ("gen_ai.provider.name", &json!(provider)),
        ("gen_ai.request.model", &asked["requested_model"]),
        ("gen_ai.request.stream", &asked["stream"]),
        ("gen_ai.request.max_tokens", &asked["max_output_tokens"]),
        ("gen_ai.response.model", &answered["served_model"]),
        ("gen_ai.response.id", &answered["response_id"]),
        ("gen_ai.response.finish_reasons", &answered["finish_reasons"]),
        ("gen_ai.usage.input_tokens", &incurred("input_tokens")),
        ("gen_ai.usage.output_tokens", &incurred("output_tokens")),
        ("gen_ai.usage.cache_read.input_tokens", &incurred("cache_read_tokens")),
        ("gen_ai.usage.cache_creation.input_tokens", &written),
        ("gen_ai.usage.reasoning.output_tokens", &incurred("reasoning_tokens")),
        ("http.response.status_code", &record["provider_status"]),
        ("affidavit.provider", &asked["provider"]),
        ("affidavit.provider_request_id", &answered["request_id"]),
        ("affidavit.provider_error", &answered["error_type"]),
        ("affidavit.cost", &record["cost"]["total"]),
        ("affidavit.currency", &record["cost"]["currency"]),
        ("error.type", &error_of(record)),
    ] {
        same(span, key, value);
    }
    assert_eq!(span.attributes["server.address"], "127.0.0.1");
    let status = &span.value["status"]["code"];
    assert_eq!(status == 2, !error_of(record).is_null(), "{}", span.value);
    let temperature = asked["temperature"].as_str().and_then(|text| text.parse::<f64>().ok());
    assert_eq!(span.attributes.get("gen_ai.request.temperature").and_then(Value::as_f64), temperature);
}

fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-00f067aa0ba902b7-{flags}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the OpenTelemetry Collector"]
async fn spans_and_metrics_say_what_the_records_say() {
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut collector = Otelcol::prepare(&dir.path().join("collector"));
    collector.serve();
    let rest = format!(
        "telemetry:\n  trace_context: replace\n  otlp:\n    endpoint: http://{}\n    interval: 200ms\n    \
         headers: {{ x-scope-orgid: {{ env: OTLP_TENANT }} }}\n    resource: {{ deployment.environment.name: staging }}\n",
        collector.address
    );
    let environment = vec![("OTLP_TENANT".to_owned(), "Tenant 1".to_owned())];
    let setup = Setup { provider: provider.url(), rest, environment, ..Setup::default() };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    let key = gateway.key.clone();
    let at = gateway.address;
    // Which trace each exchange is to be in, and whether it is sent.
    let mut traces: HashMap<String, (String, bool)> = HashMap::new();
    let mut number = 0u32;
    let mut send_in = async |call: Call, how: &str, leave: Leave| -> Got {
        number += 1;
        let trace = format!("{number:032x}");
        let call = match how {
            "sampled" => call.header("traceparent", parent(&trace, "01")).header("tracestate", "vendor=1"),
            "unsampled" => call.header("traceparent", parent(&trace, "00")),
            "" => call,
            hostile => call.header("traceparent", hostile).header("tracestate", "vendor=2"),
        };
        let got = send_until(at, &call, leave).await;
        let exchange = got.exchange().unwrap_or_default().to_owned();
        let own = matches!(how, "sampled" | "unsampled");
        traces.insert(
            exchange.clone(),
            (if own { trace } else { exchange.replace('-', "") }, how != "unsampled"),
        );
        got
    };
    let whole = Leave::default();
    for how in ["", "sampled", "unsampled"] {
        for stream in [false, true] {
            assert_eq!(send_in(chat(&key, stream), how, whole).await.status, 200);
        }
        assert_eq!(send_in(chat("afk_nobody", false), how, whole).await.status, 401);
        assert_eq!(send_in(Call::post("/nowhere", &key, "{}"), how, whole).await.status, 404);
        let failed = Call::post("/openai/v1/chat/completions", &key, body("fail-429", false));
        assert_eq!(send_in(failed, how, whole).await.status, 429);
        let messages = Call::post("/anthropic/v1/messages", &key, body("claude-sonnet-4-20250514", false));
        assert_eq!(send_in(messages.header("anthropic-version", "2023-06-01"), how, whole).await.status, 200);
        let embeddings = json!({ "model": "text-embedding-3-small", "input": NEEDLE }).to_string();
        let embeddings = Call::post("/openai/v1/embeddings", &key, embeddings);
        assert_eq!(send_in(embeddings, how, whole).await.status, 200);
        let models = Call { method: "GET".into(), ..Call::post("/openai/v1/models", &key, "") };
        assert_eq!(send_in(models, how, whole).await.status, 200);
        let cut = chat(&key, true).header("x-replay", "script:cut:2");
        assert_eq!(send_in(cut, how, whole).await.status, 200);
        let left = Leave { after_bytes: Some(1), after_silence: Some(Duration::from_secs(5)) };
        let slow = chat(&key, true).header("x-replay", "script:slow:200");
        assert_eq!(send_in(slow, how, left).await.status, 200);
    }
    let hostile = [
        "junk",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "<script>alert(1)</script>",
    ];
    for value in hostile.into_iter().chain([&*"x".repeat(6000)]) {
        assert_eq!(send_in(chat(&key, false), value, whole).await.status, 200);
    }
    // Drained for their usage, or cut: everything has its end.
    let open = Instant::now();
    while metric(&gateway, "gateway_exchanges_open") != 0.0 {
        assert!(open.elapsed() < Duration::from_secs(60), "exchanges stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    collector.stop();
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");

    let evidence = Evidence::read(&gateway);
    let records = ends(&evidence);
    assert_eq!(records.len(), traces.len());
    let spans = collector.spans();
    let mut dispatched = HashMap::new();
    for (exchange, record) in &records {
        let (trace, is_sent) = &traces[exchange];
        let of_it: Vec<&Span> = spans.iter().filter(|span| span.text("traceId") == trace).collect();
        if !is_sent {
            assert!(of_it.is_empty(), "{exchange} is not sampled");
            continue;
        }
        let kind = |kind: i64| {
            of_it.iter().copied().filter(move |span| span.value["kind"] == kind).collect::<Vec<_>>()
        };
        let servers = kind(SERVER);
        let [server] = servers[..] else { panic!("{} spans of {record}", servers.len()) };
        hold_server(server, record);
        let own = trace == &exchange.replace('-', "");
        assert_eq!(server.text("parentSpanId"), if own { "" } else { "00f067aa0ba902b7" });
        for below in of_it.iter().filter(|span| span.value["kind"] != SERVER) {
            assert_eq!(below.text("parentSpanId"), server.text("spanId"), "{}", below.value);
        }
        let names = |kind: i64| {
            of_it
                .iter()
                .filter(|span| span.value["kind"] == kind)
                .map(|span| span.text("name"))
                .collect::<Vec<_>>()
        };
        if record["kind"] == "refusal" {
            assert_eq!((names(1), names(CLIENT).len()), (vec!["journal refusal"], 0), "{record}");
        } else {
            assert_eq!(names(1), ["journal intent", "journal outcome"], "{record}");
            let clients = kind(CLIENT);
            let [client] = clients[..] else { panic!("{} requests of {record}", clients.len()) };
            hold_client(client, record);
            dispatched.insert(client.text("spanId").to_owned(), trace.clone());
        }
    }
    let by_trace = |trace: &str| traces.values().any(|(known, is_sent)| known == trace && *is_sent);
    assert!(spans.iter().all(|span| by_trace(span.text("traceId"))), "spans of nothing");

    // What a provider saw of the trace is the gateway's span, and a caller's state only behind a valid parent.
    let (mut with_state, mut seen_spans) = (0, 0);
    for seen in provider.seen() {
        let parent = seen.header("traceparent").expect("the gateway's own");
        let fields: Vec<&str> = parent.split('-').collect();
        if fields[3] == "01" {
            seen_spans += 1;
            assert_eq!(dispatched.get(fields[2]).map(String::as_str), Some(fields[1]), "{parent}");
        }
        with_state += usize::from(seen.header("tracestate") == Some("vendor=1"));
        assert!(seen.header("tracestate").is_none_or(|state| state == "vendor=1"));
    }
    assert_eq!(seen_spans, dispatched.len());
    assert_eq!(with_state, 8);

    // Metrics count every exchange, sent as spans or not.
    let inference =
        |record: &&Value| record["kind"] == "outcome" && record["asked"]["operation"] != "models.list";
    let mut wanted: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut tokens: BTreeMap<(&str, bool), i64> = BTreeMap::new();
    for record in records.values().filter(inference) {
        let error = error_of(record).as_str().unwrap_or_default().to_owned();
        *wanted
            .entry((record["asked"]["route"].as_str().unwrap_or_default().to_owned(), error))
            .or_default() += 1;
        for (kind, key) in [("input", "input_tokens"), ("output", "output_tokens")] {
            if record["usage"]["role"] == "incurred" {
                let Some(count) = record["usage"][key].as_i64() else { continue };
                *tokens.entry((kind, is_estimated(record))).or_default() += count;
            }
        }
    }
    let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (attributes, point) in collector.points("gen_ai.client.operation.duration") {
        let text = |key: &str| attributes.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let count: u64 = point["count"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let buckets = point["bucketCounts"].as_array().into_iter().flatten();
        let sum: u64 = buckets.filter_map(|one| one.as_str()?.parse::<u64>().ok()).sum();
        assert_eq!((count, point["explicitBounds"].as_array().map(Vec::len)), (sum, Some(14)), "{point}");
        *counted.entry((text("affidavit.route"), text("error.type"))).or_default() += count;
        // Not in the price book: no label.
        assert!(!text("gen_ai.request.model").starts_with("fail-"), "{attributes:?}");
    }
    assert_eq!(counted, wanted);
    let mut summed: BTreeMap<(&str, bool), i64> = BTreeMap::new();
    for (attributes, point) in collector.points("gen_ai.client.token.usage") {
        let kind = if attributes["gen_ai.token.type"] == "input" { "input" } else { "output" };
        let sum = point["sum"].as_f64().unwrap_or(0.0) as i64;
        let estimated = attributes.get("affidavit.usage.estimated") == Some(&json!(true));
        *summed.entry((kind, estimated)).or_default() += sum;
    }
    assert_eq!(summed, tokens);
    assert!(tokens.contains_key(&("input", true)), "no usage was estimated: {tokens:?}");
    assert!(!collector.points("gen_ai.client.operation.time_to_first_chunk").is_empty());
    let text = collector.text();
    for secret in [NEEDLE, &key, "Tenant 1", "script>", "vendor="] {
        assert!(!text.contains(secret), "`{secret}` is in what the collector got");
    }
    eprintln!("{} exchanges, {} spans, {:?}", records.len(), spans.len(), begun.elapsed());
}

/// User and system time of the gateway's process so far, in ticks of 10 ms.
fn cpu_ticks(gateway: &mut Gateway) -> u64 {
    let id = gateway.process().map_or(0, |process| process.id());
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the OpenTelemetry Collector"]
async fn a_collector_that_is_away_is_in_nobodys_way_and_what_it_misses_is_counted() {
    let calls = if tests::long_round() { 5000 } else { 400 };
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut collector = Otelcol::prepare(&dir.path().join("collector"));
    let section = |more: &str| {
        format!(
            "telemetry:\n  otlp:\n    endpoint: http://{}\n    interval: 200ms\n    queue: 20\n{more}",
            collector.address
        )
    };
    let setup = Setup { provider: provider.url(), rest: section(""), ..Setup::default() };
    let mut gateway = Gateway::start(&dir.path().join("gw"), &setup);
    let calm = Setup { provider: provider.url(), ..Setup::default() };
    let mut other = Gateway::start(&dir.path().join("calm"), &calm);
    let run = async |gateway: &mut Gateway| {
        let (begun, ticks) = (Instant::now(), cpu_ticks(gateway));
        for _ in 0..calls {
            let got = send(gateway.address, &chat(&gateway.key, false)).await;
            assert_eq!(got.status, 200, "{}", got.text());
        }
        (begun.elapsed(), cpu_ticks(gateway) - ticks)
    };
    let (with, without) = (run(&mut gateway).await, run(&mut other).await);
    eprintln!(
        "{calls} calls in a row: {:?}, {} ms CPU with a collector that is away; {:?}, {} ms CPU without one",
        with.0,
        with.1 * 10,
        without.0,
        without.1 * 10
    );
    assert!(with.0 < 2 * without.0 + Duration::from_secs(2), "{with:?}, without a collector {without:?}");
    let dropped = exchanges(&gateway, "queue_full");
    // What a POST holds, and the queue.
    assert!(dropped >= f64::from(calls) - 276.0 - 20.0 && dropped < f64::from(calls), "{dropped}");
    assert!(metric(&gateway, "gateway_otlp_failures_total{signal=\"traces\",reason=\"connect\"}") > 0.0);
    assert_eq!(gateway.log().matches("the collector does not take").count(), 1);

    collector.serve();
    let begun = Instant::now();
    while exchanges(&gateway, "sent") + exchanges(&gateway, "queue_full") < f64::from(calls) {
        assert!(begun.elapsed() < Duration::from_secs(40), "what waited is not sent:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = run(&mut gateway).await;
    eprintln!("{calls} calls in a row: {:?}, {} ms CPU with a collector that takes", taken.0, taken.1 * 10);
    let calls = 2 * calls;
    while exchanges(&gateway, "sent") + exchanges(&gateway, "queue_full") < f64::from(calls) {
        assert!(begun.elapsed() < Duration::from_secs(60), "what waited is not sent:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let sent = exchanges(&gateway, "sent");
    let servers =
        |collector: &Otelcol| collector.spans().iter().filter(|span| span.value["kind"] == SERVER).count();
    collector.until("all that is counted as sent came", |collector| servers(collector) as f64 == sent).await;
    // Metrics count what spans missed.
    let counted = |collector: &Otelcol| {
        let points = collector.points("gen_ai.client.operation.duration");
        points.iter().filter_map(|(_, point)| point["count"].as_str()?.parse::<u32>().ok()).sum::<u32>()
    };
    collector.until("metrics count every exchange", |collector| counted(collector) == calls).await;

    // A reload: nothing is sampled any more, but what callers sample.
    let config = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("queue: 20", "queue: 21\n    sample_ratio: 0"))
        .expect("the configuration");
    gateway.wait_for_log("configuration reloaded", 1).await;
    let before = servers(&collector);
    for _ in 0..5 {
        assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
    }
    let theirs = chat(&gateway.key, false).header("traceparent", parent(&format!("{:032x}", 7), "01"));
    assert_eq!(send(gateway.address, &theirs).await.status, 200);
    collector.until("the caller's own span comes", |collector| servers(collector) == before + 1).await;
    // Nothing is changed for a provider where nothing is typed.
    let last = provider.seen().pop().expect("a call");
    assert_eq!(last.header("traceparent"), Some(&*parent(&format!("{:032x}", 7), "01")));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert_eq!(servers(&collector), before + 1);
    // The new way goes on with the old one's sums, and nobody else writes them.
    collector.until("metrics go on after a reload", |collector| counted(collector) == calls + 6).await;
    assert_eq!(other.stop(), Some(0));
    collector.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the OpenTelemetry Collector"]
async fn a_collector_shows_and_is_shown_certificates_and_one_of_another_authority_gets_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    Certificates::new().write(dir.path());
    let others = dir.path().join("others");
    std::fs::create_dir_all(&others).expect("a folder");
    Certificates::new().write(&others);
    let ours = dir.path().to_owned();
    let mut collector = Otelcol::secured(&ours.join("collector"), &ours);
    collector.serve();
    for (ca, client, wanted) in [(&ours, &ours, 3), (&others, &ours, 0), (&ours, &others, 0)] {
        let rest = format!(
            "telemetry:\n  otlp:\n    endpoint: https://localhost:{}\n    interval: 100ms\n    timeout: 2s\n    \
             tls: {{ ca: {}/ca.pem, certificate: {c}/client.pem, key: {c}/client.key }}\n",
            collector.address.port(),
            ca.display(),
            c = client.display()
        );
        let setup = Setup { provider: provider.url(), rest, ..Setup::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let mut gateway = Gateway::start(folder.path(), &setup);
        let before = collector.spans().len();
        for _ in 0..3 {
            assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
        }
        let failed = |gateway: &Gateway| {
            let of = |reason| format!("gateway_otlp_failures_total{{signal=\"traces\",reason=\"{reason}\"}}");
            metric(gateway, &of("connect")) + metric(gateway, &of("closed"))
        };
        let begun = Instant::now();
        while exchanges(&gateway, "sent") < f64::from(wanted) || (wanted == 0 && failed(&gateway) == 0.0) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", gateway.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!((exchanges(&gateway, "sent"), failed(&gateway) == 0.0), (f64::from(wanted), wanted > 0));
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        let came = if wanted == 0 { 0 } else { 4 * 3 };
        collector.until("their spans", |collector| collector.spans().len() == before + came).await;
    }
    collector.stop();
}

/// When a receiver got what head.
type Posts = std::sync::Arc<std::sync::Mutex<Vec<(Instant, String)>>>;

/// The head of a request that is here with all of its body, in lower case.
fn whole(got: &[u8]) -> Option<String> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
    (got.len() >= end + length).then_some(head)
}

/// Answers the n-th POST as told; whatever comes behind that is taken.
async fn receiver(answers: &'static [&'static [u8]]) -> (std::net::SocketAddr, Posts) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let posts = Posts::default();
    let seen = posts.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut got, mut piece) = (Vec::new(), [0; 4096]);
            let head = loop {
                if let Some(head) = whole(&got) {
                    break head;
                }
                match socket.read(&mut piece).await {
                    Ok(count) if count > 0 => got.extend_from_slice(&piece[..count]),
                    _ => break String::new(),
                }
            };
            let number = {
                let mut seen = seen.lock().expect("posts");
                seen.push((Instant::now(), head));
                seen.len() - 1
            };
            let taken: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = socket.write_all(answers.get(number).copied().unwrap_or(taken)).await;
        }
    });
    (address, posts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a real process, as those with the OpenTelemetry Collector do"]
async fn what_a_receiver_answers_decides_what_is_tried_again() {
    let (address, posts) = receiver(&[
        b"HTTP/1.1 503 Later\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 429 Slower\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        // A partial success that rejects three spans.
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n\x0a\x02\x08\x03",
        b"HTTP/1.1 400 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ])
    .await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let rest = format!(
        "telemetry:\n  otlp:\n    endpoint: http://{address}/otel/\n    interval: 100ms\n    metrics: false\n    \
         headers: {{ authorization: {{ env: OTLP_HEADER }} }}\n"
    );
    let environment = vec![("OTLP_HEADER".to_owned(), "Bearer abc".to_owned())];
    let setup = Setup { provider: provider.url(), rest, environment, ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    for (result, count) in [("sent", 1.0), ("refused", 1.0), ("refused", 2.0), ("sent", 2.0)] {
        assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
        let begun = Instant::now();
        while exchanges(&gateway, result) < count {
            assert!(begun.elapsed() < Duration::from_secs(30), "{result} {count}:\n{}", gateway.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for reason in ["unavailable", "closed", "throttled", "partial", "refused", "credentials"] {
        let line = format!("gateway_otlp_failures_total{{signal=\"traces\",reason=\"{reason}\"}}");
        assert_eq!(metric(&gateway, &line), 1.0, "{reason}");
    }
    let posts = posts.lock().expect("posts").clone();
    assert_eq!(posts.len(), 7);
    assert!(posts[1].0 - posts[0].0 >= Duration::from_millis(950), "`Retry-After` is heard");
    for (_, head) in &posts {
        assert!(head.starts_with("post /otel/v1/traces http/1.1\r\n"), "{head}");
        let has = |line: &str| head.contains(&format!("{line}\r\n"));
        assert!(has("authorization: bearer abc") && has("content-type: application/x-protobuf"), "{head}");
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(!gateway.log().contains("Bearer abc"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a real process, as those with the OpenTelemetry Collector do"]
async fn after_a_failed_try_the_next_is_soon_and_not_at_the_interval() {
    let (address, posts) =
        receiver(&[b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let rest = format!(
        "telemetry:\n  otlp:\n    endpoint: http://{address}\n    interval: 3s\n    metrics: false\n"
    );
    let mut gateway =
        Gateway::start(dir.path(), &Setup { provider: provider.url(), rest, ..Setup::default() });
    assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
    let begun = Instant::now();
    while exchanges(&gateway, "sent") < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let waited = {
        let posts = posts.lock().expect("posts");
        posts[1].0 - posts[0].0
    };
    assert!((Duration::from_millis(240)..Duration::from_millis(2500)).contains(&waited), "{waited:?}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts a real process, as those with the OpenTelemetry Collector do"]
async fn the_way_to_a_dead_collector_ends_where_a_reload_leads_to_another() {
    let (address, _) = receiver(&[]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let dead = tests::process::free_port();
    let rest = format!("telemetry:\n  otlp:\n    endpoint: http://{dead}\n    interval: 200ms\n");
    let mut gateway =
        Gateway::start(dir.path(), &Setup { provider: provider.url(), rest, ..Setup::default() });
    // More than what waits beside the queue.
    let calls = 300;
    for _ in 0..calls {
        assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
    }
    let config = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace(&dead.to_string(), &address.to_string()))
        .expect("the configuration");
    gateway.wait_for_log("configuration reloaded", 1).await;
    let begun = Instant::now();
    while exchanges(&gateway, "stopped") < f64::from(calls) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(send(gateway.address, &chat(&gateway.key, false)).await.status, 200);
    while exchanges(&gateway, "sent") < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(exchanges(&gateway, "stopped"), f64::from(calls));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}
