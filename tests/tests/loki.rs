//! The tap's way to Grafana Loki: every leaf of the verified log is there, though Loki and the gateway were killed; what Loki never
//! takes is counted and keeps nothing; every query of the dashboard of logs shows something.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::Dice;
use tests::client::{Call, send};
use tests::corpus::{FURTHER, some_lines};
use tests::dashboards::{Query, queries};
use tests::gateway::{Gateway, Setup};
use tests::oracle::{Evidence, Leaf};
use tests::provider::Provider;
use tests::services::Loki;

const TENANT: &str = "team-a";
const ALL: &str = "{service_name=\"affidavit\"}";
const PATIENCE: Duration = Duration::from_secs(60);

fn setup(loki: &Loki, provider: &Provider) -> Setup {
    let tap = format!(
        "  segment: 1MiB\n  tap:\n    - {{ name: loki, loki: {{ url: \"http://{}\", tenant: {TENANT}, wait: 200ms, timeout: 2s }} }}\n",
        loki.address
    );
    Setup { provider: provider.url(), evidence: tap, ..Setup::default() }
}

fn chat(key: &str, model: &str, stream: bool) -> Call {
    let messages = serde_json::json!([{ "role": "user", "content": "geheimnis" }]);
    let body = serde_json::json!({ "model": model, "stream": stream, "messages": messages });
    Call::post("/openai/v1/chat/completions", key, body.to_string())
}

fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
}

fn passed_by(gateway: &Gateway) -> f64 {
    let of = |reason| {
        metric(gateway, &format!("gateway_tap_passed_by_total{{sink=\"loki\",reason=\"{reason}\"}}"))
    };
    ["too_old", "too_far_behind", "too_large", "other"].map(of).iter().sum()
}

async fn until(what: &str, gateway: &Gateway, loki: &Loki, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}; the gateway:\n{}\nLoki:\n{}", gateway.log(), loki.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What Loki has: labels and structured metadata together, and the line, by log and position. And how many came again.
async fn held(loki: &Loki) -> (HashMap<(String, u64), (Value, String)>, usize) {
    let (mut found, mut again) = (HashMap::new(), 0);
    for stream in loki.query(TENANT, ALL).await.unwrap_or_default() {
        let labels = &stream["stream"];
        let text = |key: &str| labels[key].as_str().unwrap_or_default().to_owned();
        let position = text("position").parse().expect("a position");
        for value in stream["values"].as_array().expect("entries") {
            let line = value[1].as_str().expect("a line").to_owned();
            again += usize::from(found.insert((text("origin"), position), (labels.clone(), line)).is_some());
        }
    }
    (found, again)
}

/// What the entry of a leaf does not say as the leaf does.
fn wrong(leaf: &Leaf, labels: &Value, line: &str) -> Option<String> {
    let of = |pointer: &str| match leaf.value.pointer(pointer) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let first = |one: &str, other: &str| of(one).or_else(|| of(other));
    let hash = schemas::leaf::hash(&leaf.leaf).to_string();
    let wanted = [
        ("leaf_hash", Some(hash)),
        ("deployment", Some(leaf.origin.deployment().to_owned())),
        ("gateway", Some(leaf.origin.gateway().to_owned())),
        ("epoch", Some(leaf.origin.epoch().to_owned())),
        ("kind", of("/kind")),
        ("exchange", of("/exchange")),
        ("provider", of("/asked/provider")),
        ("model", first("/answered/served_model", "/asked/requested_model")),
        ("consumer", of("/caller/consumer/value")),
        ("status", of("/status")),
        ("end", of("/end")),
        ("input_tokens", of("/usage/input_tokens")),
        ("output_tokens", of("/usage/output_tokens")),
        ("cost", of("/cost/total")),
        ("currency", of("/cost/currency")),
    ];
    for (key, wanted) in wanted {
        let said = labels[key].as_str().map(str::to_owned);
        if said != wanted {
            return Some(format!("{key} is {said:?}, wanted {wanted:?}"));
        }
    }
    let place = format!(" position={}", leaf.position);
    (!line.ends_with(&place) || line.len() > 500).then(|| format!("the line is `{line}`"))
}

/// Waits until Loki has all leaves; gives what it has, and how many came again.
async fn wait_for(
    evidence: &Evidence,
    gateway: &Gateway,
    loki: &Loki,
) -> (HashMap<(String, u64), (Value, String)>, usize) {
    let begun = Instant::now();
    loop {
        let (found, again) = held(loki).await;
        let places = evidence.leaves.iter().map(|leaf| (leaf.origin.to_string(), leaf.position));
        let missing: Vec<_> = places.filter(|place| !found.contains_key(place)).collect();
        if missing.is_empty() {
            return (found, again);
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of {} leaves do not come: {:?}\n{}\n{}",
            missing.len(),
            evidence.leaves.len(),
            missing.first(),
            gateway.log(),
            loki.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Loki"]
async fn every_leaf_of_the_verified_log_is_in_loki_though_both_were_killed() {
    let begun = Instant::now();
    let rounds = if tests::long_round() { 30 } else { 4 };
    let mut dice = Dice::new(20_261_121);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut loki = Loki::start("", "");
    let mut gateway = Gateway::prepare(dir.path(), &setup(&loki, &provider));
    for round in 0..rounds {
        gateway.serve();
        let (address, key) = (gateway.address, gateway.key.clone());
        let callers = tokio::spawn(async move {
            while send(address, &chat(&key, "gpt-4o-mini", false)).await.status != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(send(gateway.address, &chat("afk_nobody", "gpt-4o-mini", false)).await.status, 401);
        tokio::time::sleep(Duration::from_millis(300 + dice.below(700))).await;
        loki.kill();
        tokio::time::sleep(Duration::from_millis(300 + dice.below(700))).await;
        // Loki comes back before the gateway dies, or behind it.
        if round % 2 == 0 {
            loki.begin();
            tokio::time::sleep(Duration::from_millis(dice.below(3000))).await;
        }
        gateway.kill();
        callers.await.expect("the callers end with the gateway");
        if round % 2 == 1 {
            loki.begin();
        }
    }
    loki.wait();
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    // What is left of it comes from the next process.
    gateway.serve();
    let (found, again) = wait_for(&evidence, &gateway, &loki).await;
    for leaf in &evidence.leaves {
        let (labels, line) = &found[&(leaf.origin.to_string(), leaf.position)];
        assert_eq!(wrong(leaf, labels, line), None, "{} {}", leaf.origin, leaf.position);
        assert!(!line.contains("geheimnis") && !labels.to_string().contains("geheimnis"));
    }
    assert_eq!(passed_by(&gateway), 0.0, "{}", gateway.log());
    // Nobody else's tenant sees them.
    assert_eq!(loki.query("team-b", ALL).await, Ok(Vec::new()));
    gateway.kill();
    eprintln!(
        "{rounds} kills of Loki and of the gateway, {} leaves, {again} of them twice, {:?}",
        evidence.leaves.len(),
        begun.elapsed()
    );
    assert!(evidence.leaves.len() > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Loki"]
async fn a_log_that_comes_long_behind_the_running_one_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    // A stream takes nothing that is more than two seconds behind its newest.
    let mut loki = Loki::start("", "  max_chunk_age: 4s\n");
    loki.kill();
    let mut gateway = Gateway::start(dir.path(), &setup(&loki, &provider));
    for _ in 0..10 {
        assert_eq!(send(gateway.address, &chat(&gateway.key, "gpt-4o-mini", false)).await.status, 200);
    }
    gateway.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    // The running log has the sink's ear first.
    gateway.serve();
    assert_eq!(send(gateway.address, &chat(&gateway.key, "gpt-4o-mini", false)).await.status, 200);
    loki.resume();
    until("nothing is behind", &gateway, &loki, || {
        metric(&gateway, "gateway_tap_records_behind{sink=\"loki\"}") == 0.0
    })
    .await;
    assert_eq!(passed_by(&gateway), 0.0, "{}", gateway.log());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    let logs: BTreeSet<_> = evidence.leaves.iter().map(|leaf| leaf.origin.to_string()).collect();
    assert_eq!(logs.len(), 2);
    // What is left of it comes from the next process.
    gateway.serve();
    wait_for(&evidence, &gateway, &loki).await;
    assert_eq!(passed_by(&gateway), 0.0, "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Loki"]
async fn what_loki_never_takes_is_counted_and_told_and_keeps_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut loki = Loki::start("  reject_old_samples: true\n  reject_old_samples_max_age: 4s\n", "");
    loki.kill();
    let mut gateway = Gateway::start(dir.path(), &setup(&loki, &provider));
    for _ in 0..20 {
        assert_eq!(send(gateway.address, &chat(&gateway.key, "gpt-4o-mini", false)).await.status, 200);
    }
    until("the sink fails", &gateway, &loki, || {
        metric(&gateway, "gateway_tap_errors_total{sink=\"loki\",reason=\"connect\"}") > 0.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    loki.resume();
    until("nothing is behind", &gateway, &loki, || {
        metric(&gateway, "gateway_tap_records_behind{sink=\"loki\"}") == 0.0
    })
    .await;
    let old = metric(&gateway, "gateway_tap_passed_by_total{sink=\"loki\",reason=\"too_old\"}");
    assert!(old >= 40.0 && (passed_by(&gateway) - old).abs() < 0.5, "{old} of {}", passed_by(&gateway));
    assert!(gateway.log().contains("Loki never takes these leaves"), "{}", gateway.log());
    let got = send(gateway.address, &chat(&gateway.key, "gpt-4o-mini", false)).await;
    let exchange = got.exchange().expect("its exchange").to_owned();
    let fresh = format!(
        "{{service_name=\"affidavit\", kind=\"outcome\"}} | exchange=\"{exchange}\" | status=\"200\""
    );
    let begun = Instant::now();
    while loki.query(TENANT, &fresh).await.is_ok_and(|streams| streams.is_empty()) {
        assert!(begun.elapsed() < PATIENCE, "{}\n{}", gateway.log(), loki.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert_eq!(gateway.verify(&[]).0, 0);
}

/// What is wrong with the answer to a query.
fn fault(query: &Query, answer: Result<Vec<Value>, String>) -> Option<String> {
    let found = match answer {
        Ok(found) => found,
        Err(error) => return Some(error),
    };
    if !query.calm.is_empty() {
        return None;
    }
    let named = |label: &&str| {
        !found.iter().any(|one| one["metric"][label].as_str().is_some_and(|text| !text.is_empty()))
    };
    match query.named().find(named) {
        _ if found.is_empty() => Some("shows nothing".into()),
        Some(label) => Some(format!("has no label `{label}`: {found:?}")),
        None => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Loki"]
async fn every_panel_of_the_dashboard_of_logs_shows_what_happened() {
    let begun = Instant::now();
    let queries = queries("loki");
    let dir = tempfile::tempdir().expect("a folder");
    let lines = some_lines();
    let provider = Provider::start(lines.clone()).await;
    let loki = Loki::start("", "");
    let setup = Setup { further: FURTHER.to_vec(), ..setup(&loki, &provider) };
    let gateway = Gateway::start(dir.path(), &setup);
    // Recorded exchanges, the providers' errors among them; only who is refused is in no recording.
    for line in &lines {
        let got = send(gateway.address, &line.call(&gateway.key, "recorded")).await;
        assert_eq!(got.status, line.status, "{}: {}", line.id, got.text());
    }
    assert_eq!(send(gateway.address, &chat("afk_nobody", "gpt-4o-mini", false)).await.status, 401);
    let waiting = Instant::now();
    loop {
        let mut left = Vec::new();
        for one in &queries {
            if let Some(fault) = fault(one, loki.query(TENANT, &one.asked()).await) {
                left.push(format!("{}: `{}` {fault}", one.panel, one.asked()));
            }
        }
        if left.is_empty() {
            break;
        }
        assert!(waiting.elapsed() < PATIENCE, "{}\n{}", left.join("\n"), gateway.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Each recorded exchange is there, by its provider and as it ended.
    let outcomes = "{service_name=\"affidavit\", kind=\"outcome\"}";
    let waiting = Instant::now();
    let found = loop {
        let streams = loki.query(TENANT, outcomes).await.unwrap_or_default();
        let count = |one: &Value| one["values"].as_array().map_or(0, Vec::len);
        if streams.iter().map(count).sum::<usize>() >= lines.len() {
            break streams;
        }
        assert!(waiting.elapsed() < PATIENCE, "{}\n{}", gateway.log(), loki.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    for line in &lines {
        let (provider, status) = (line.gateway_dialect(), line.status.to_string());
        let is_there = found.iter().any(|one| {
            one["stream"]["provider"].as_str() == provider && one["stream"]["status"] == status.as_str()
        });
        assert!(is_there, "{}: {provider:?} {status}", line.id);
    }
    let panels: BTreeSet<_> = queries.iter().map(|query| &query.panel).collect();
    assert!(panels.len() >= 9);
    eprintln!(
        "{} queries of {} panels on {} recorded exchanges in {:?}",
        queries.len(),
        panels.len(),
        lines.len(),
        begun.elapsed()
    );
}
