//! The dashboards of `deploy/grafana`: every query of every panel is run against a real Prometheus that reads real processes
//! with recorded traffic and failures on them, and must show something. What recordings alone tell is looked at first.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::answering::Answering;
use tests::archiver::without_brokers;
use tests::client::{Call, Leave, send, send_until};
use tests::corpus::{FURTHER, Line, Set, set, some_lines};
use tests::dashboards::{Query, queries};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::process::free_port;
use tests::prometheus::{query, server};
use tests::provider::Provider;
use tests::registrar::directory;
use tests::tapped::{Mood, WebhookSink};
use tests::witness::Witness;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than Prometheus waits between two looks.
const SCRAPED: Duration = Duration::from_millis(1300);

/// Panels of traffic that no recording can fill: callers that leave, are unknown or still wait, ways to fail below HTTP, a policy
/// that only observes; and what is not of traffic.
const NOT_OF_RECORDINGS: [&str; 11] = [
    "Answers whose caller had left",
    "Under way",
    "Connections",
    "Exchanges under way by gateway",
    "Exchanges that did not end well",
    "Failures below HTTP in this time",
    "Callers without a key that counts",
    "Would be denied",
    "Reloads in this time",
    "Processes",
    "Clocks",
];

/// Panels that the project's own small set has nothing for.
const NOT_OF_OUR_OWN: [&str; 2] = ["Refused as too many (429)", "Exchanges without a price"];

/// Models that the policy is against.
const DENIED: [&str; 2] = ["o1", "text-embedding-"];

fn policy(mode: &str) -> String {
    let [one, other] = DENIED;
    format!(
        "mode: {mode}\ndefault: deny\nrules:\n  - {{ id: not-these, effect: deny, models: [\"{one}*\", \"{other}*\"] }}\n  \
         - {{ id: what-we-know, effect: allow, models: [\"gpt-*\", \"claude-*\", \"fail-*\", \"new-*\"] }}\n  \
         - {{ id: what-else-was-recorded, effect: allow, models: [\"*\"] }}\n"
    )
}

/// A gateway that has, and meets, all that a dashboard shows: prices, a policy, a sink, a provider that is not there, a collector
/// that takes nothing.
fn gateway(dir: &Path, provider: &Provider, sink: &WebhookSink, collector: &Answering) -> Gateway {
    let tap = format!("  tap: [ {{ name: siem, webhook: {{ url: \"http://{}/\" }} }} ]\n", sink.address);
    let setup = Setup {
        provider: provider.url(),
        evidence: tap,
        limits: "  first_byte: 1s\n".into(),
        further: FURTHER.to_vec(),
        rest: format!(
            "policy: {}\ntelemetry: {{ otlp: {{ endpoint: \"http://{}\", interval: 500ms }} }}\n",
            dir.join("policy.yaml").display(),
            collector.address
        ),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir, &setup);
    std::fs::write(dir.join("policy.yaml"), policy("enforce")).expect("a policy");
    let path = dir.join("gateway.yaml");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let (real, nobody) = (format!("azure_openai\n    base_url: {}", provider.url()), free_port());
    assert!(config.contains(&real));
    let config = config.replace(&real, &format!("azure_openai\n    base_url: http://{nobody}"));
    std::fs::write(path, config).expect("the configuration");
    gateway.serve();
    gateway
}

fn chat(gateway: &Gateway, model: &str, stream: bool) -> Call {
    let body =
        json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": "a b c" }] });
    Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string())
}

fn scripted(gateway: &Gateway, script: &str) -> Call {
    chat(gateway, "gpt-4o-mini", true).header("x-replay", format!("script:{script}"))
}

/// The recorded exchanges, once each.
async fn replay(gateway: &Gateway, lines: &[Line]) {
    for line in lines {
        let got = send(gateway.address, &line.call(&gateway.key, "recorded")).await;
        let model = line.expected["request_model"].as_str().unwrap_or_default();
        let is_denied = got.status == 403 && DENIED.iter().any(|denied| model.starts_with(denied));
        assert!(is_denied || got.status == line.status, "{}: {} {}", line.id, got.status, got.text());
    }
}

/// One call of everything that goes well or wrong.
async fn round(gateway: &Gateway, lines: &[Line]) {
    replay(gateway, lines).await;
    let at = gateway.address;
    let status = async |call: Call| send(at, &call).await.status;
    assert_eq!(status(chat(gateway, "gpt-4o-mini", false)).await, 200);
    assert_eq!(status(chat(gateway, "gpt-4o-mini", true)).await, 200);
    let claude = json!({ "model": "claude-sonnet-4-5", "max_tokens": 9, "stream": true,
        "messages": [{ "role": "user", "content": "a b c" }] });
    let claude = Call::post("/anthropic/v1/messages", &gateway.key, claude.to_string())
        .header("anthropic-version", "2023-06-01");
    assert_eq!(status(claude).await, 200);
    // Without a price; against the policy, while it is enforced; a provider that fails, is slow, cuts, and is not there.
    assert_eq!(status(chat(gateway, "new-1", false)).await, 200);
    assert!([200, 403].contains(&status(chat(gateway, "o1-mini", false)).await));
    assert_eq!(status(chat(gateway, "fail-429", false)).await, 429);
    assert_eq!(status(chat(gateway, "fail-500", false)).await, 500);
    assert_eq!(status(scripted(gateway, "silent")).await, 504);
    send(at, &scripted(gateway, "cut:3")).await;
    let azure = "/azure/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21";
    let azure = Call::post(azure, &gateway.key, r#"{"model":"gpt-4o-mini","messages":[]}"#);
    assert_eq!(status(azure).await, 502);
    // Callers that leave, that nobody knows, and that do not speak HTTP.
    let leave = Leave { after_bytes: Some(1), after_silence: Some(Duration::from_secs(5)) };
    send_until(at, &scripted(gateway, "slow:30"), leave).await;
    let nobody = Call::post("/openai/v1/chat/completions", "afk_nobody", "{}");
    assert_eq!(status(nobody).await, 401);
    let mut socket = TcpStream::connect(at).expect("a connection");
    socket.write_all(b"\x16\x03\x01 no http\r\n\r\n").expect("bytes");
}

/// The store goes away until a batch was refused more than once, and Prometheus saw it.
async fn store_goes_and_comes(gateway: &Gateway) {
    let (store, away) = (gateway.store(), gateway.dir.join("away"));
    std::fs::rename(&store, &away).expect("the store goes");
    std::fs::write(&store, "no folder").expect("a file in its place");
    let failures = || {
        let text = gateway.admin_get("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("gateway_store_failures_total{"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>()
    };
    for more in [1, 2] {
        let (begun, before) = (Instant::now(), failures());
        send(gateway.address, &chat(gateway, "gpt-4o-mini", false)).await;
        while failures() < before + more {
            assert!(begun.elapsed() < PATIENCE, "the store is not missed:\n{}", gateway.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(SCRAPED).await;
    }
    std::fs::remove_file(&store).expect("the file goes");
    std::fs::rename(&away, &store).expect("the store comes back");
}

/// Every query that does not show what it should, with the reason.
async fn faults<'a>(prometheus: SocketAddr, queries: impl IntoIterator<Item = &'a Query>) -> Vec<String> {
    let mut found = Vec::new();
    for one in queries {
        if let Some(fault) = one.fault(query(prometheus, &one.asked()).await) {
            found.push(format!("{}, {}: `{}` {fault}", one.dashboard, one.panel, one.asked()));
        }
    }
    found
}

/// With nothing but recorded exchanges on the gateway, every panel of traffic shows them: those of every provider.
async fn recordings_fill_panels(gateway: &Gateway, lines: &[Line], at: SocketAddr, queries: &[Query]) {
    let has_corpus = matches!(set(), Set::Corpus(_));
    let of_traffic: Vec<_> = queries
        .iter()
        .filter(|query| query.dashboard != "evidence" && !NOT_OF_RECORDINGS.contains(&query.panel.as_str()))
        .filter(|query| has_corpus || !NOT_OF_OUR_OWN.contains(&query.panel.as_str()))
        .collect();
    // What is counted from nothing on is not seen to have grown: once is not enough, and a busy machine misses a look.
    let (mut rounds, mut left) = (0, vec![String::new()]);
    while !left.is_empty() && rounds < 6 {
        replay(gateway, lines).await;
        tokio::time::sleep(SCRAPED).await;
        left = faults(at, of_traffic.iter().copied()).await;
        rounds += 1;
    }
    assert!(left.is_empty(), "{} queries:\n{}\n{}", left.len(), left.join("\n"), gateway.log());
    let dialects: BTreeSet<_> = lines.iter().filter_map(Line::gateway_dialect).collect();
    for dialect in &dialects {
        let sent = |line: &&Line| {
            let model = line.expected["request_model"].as_str().unwrap_or_default();
            line.gateway_dialect() == Some(*dialect) && !DENIED.iter().any(|denied| model.starts_with(denied))
        };
        let sent = rounds * lines.iter().filter(sent).count();
        let begun = Instant::now();
        loop {
            let query = format!("gateway_provider_answers_total{{provider=\"{dialect}\"}}");
            let answers = sum(at, &query).await;
            if (answers - sent as f64).abs() < 0.5 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE / 6, "{dialect}: {answers} answers of {sent}");
            tokio::time::sleep(SCRAPED / 4).await;
        }
    }
    eprintln!(
        "{} recorded exchanges of {dialects:?}, {rounds} times: {} queries show them",
        lines.len(),
        of_traffic.len()
    );
}

/// One number.
async fn sum(prometheus: SocketAddr, metric: &str) -> f64 {
    let series = query(prometheus, &format!("sum({metric})")).await.expect("an answer");
    series[0]["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus"]
async fn every_panel_shows_what_really_happened() {
    let begun = Instant::now();
    let queries = queries("prometheus");
    let dir = tempfile::tempdir().expect("a folder");
    let lines = some_lines();
    let provider = Provider::start(lines.clone()).await;
    // Every other POST fails.
    let sink = WebhookSink::start(|n| if n % 2 == 0 { Mood::Fail } else { Mood::Take }).await;
    let collector = Answering::start("400 Bad Request", "");
    let gateway = gateway(&dir.path().join("gw"), &provider, &sink, &collector);
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &gateway.seal_key());
    let mut registrar = deployment.registrar("registrar", &directory(&gateway.store()), &[]);
    let witness = Witness::start(&dir.path().join("w1"), "w1.example/w", &[deployment.log_key()]);
    let (_archiver, archiver) = without_brokers(&dir.path().join("ar"));
    let job = |name: &str, at: SocketAddr| {
        format!("  - job_name: affidavit-{name}\n    static_configs: [{{ targets: [\"{at}\"] }}]\n")
    };
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n{}{}{}",
        job("gateway", gateway.admin),
        job("archive", archiver),
        job("registrar", registrar.metrics)
    );
    let (_prometheus, at) = server(dir.path(), &config);

    tokio::time::sleep(SCRAPED).await;
    recordings_fill_panels(&gateway, &lines, at, &queries).await;
    round(&gateway, &lines).await;
    tokio::time::sleep(SCRAPED).await;
    store_goes_and_comes(&gateway).await;
    registrar.spawn_with(&Witness::asked(&[&witness]));
    deployment.settle(&registrar, &gateway.store());
    round(&gateway, &lines).await;
    // What was refused is only observed from here on.
    std::fs::write(gateway.dir.join("policy.yaml"), policy("observe")).expect("the policy");
    gateway.wait_for_log("configuration reloaded", 1).await;
    tokio::time::sleep(SCRAPED).await;

    // One exchange that stays under way.
    let (address, stalled) = (gateway.address, scripted(&gateway, "stall:2"));
    let stalled = tokio::spawn(async move { send(address, &stalled).await });
    let mut rounds = 2;
    let left = loop {
        round(&gateway, &lines).await;
        rounds += 1;
        tokio::time::sleep(SCRAPED).await;
        let left = faults(at, &queries).await;
        if left.is_empty() || rounds > 8 {
            break left;
        }
    };
    stalled.abort();
    // What is counted by more than one label has one sum.
    tokio::time::sleep(SCRAPED).await;
    let cost = sum(at, "gateway_cost_total").await;
    for other in ["gateway_cost_by_price_total", "gateway_cost_by_team_total"] {
        let other = sum(at, other).await;
        assert!(cost > 0.0 && (cost - other).abs() < 1e-9, "{cost} and {other}");
    }
    let (answers, ended) =
        (sum(at, "gateway_provider_answers_total").await, sum(at, "gateway_exchanges_total").await);
    assert!((answers - ended).abs() < 0.5, "{answers} answers, {ended} exchanges");
    assert!(left.is_empty(), "{} queries:\n{}\n{}", left.len(), left.join("\n"), gateway.log());
    let panels: BTreeSet<_> = queries.iter().map(|query| (&query.dashboard, &query.panel)).collect();
    let calm = queries.iter().filter(|query| !query.calm.is_empty()).count();
    eprintln!(
        "{} queries of {} panels ({calm} of them may show 0) on {rounds} rounds of calls in {:?}",
        queries.len(),
        panels.len(),
        begun.elapsed()
    );
}
