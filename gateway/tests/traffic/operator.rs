//! The operator's side: admin pages, reload, drain, erasure.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::Full;
use schemas::record::{Body, CloseReason, ConfigReason, End};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::provider::{COMPLETION, DONE, Provider, delta, events, whole};
use crate::rig::{Rig, Setup, issue_key, read, read_bytes, send};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[],"user":"alice@example.com"}"#;

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

async fn page(rig: &Rig, path: &str) -> (u16, String) {
    let request = Request::get(path).header("host", "admin").body(Full::default()).unwrap();
    let (status, _, body) = read(send(rig.gateway.admin_address(), request).await).await;
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_pages_tell_life_readiness_and_metrics() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    read(rig.chat(QUESTION).await).await;
    assert_eq!(page(&rig, "/healthz").await.0, 200);
    assert_eq!(page(&rig, "/readyz").await.0, 200);
    let (_, metrics) = page(&rig, "/metrics").await;
    for line in [
        "gateway_exchanges_total{route=\"openai\",end=\"complete\",status=\"2xx\"} 1",
        "gateway_tokens_total{route=\"openai\",class=\"output\"} 3",
        "gateway_records{mark=\"journaled\"}",
        "gateway_intent_commit_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("alice"));
    rig.gate.fail();
    read(rig.chat(QUESTION).await).await;
    assert_eq!(page(&rig, "/readyz").await.0, 503);
    assert!(page(&rig, "/metrics").await.1.contains("\ngateway_ready 0\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_says_what_would_be_done_where_some_routes_go_on_without_evidence() {
    let provider = provider().await;
    let more_routes = "  - { name: closed, path: /closed, provider: openai }\n".to_owned();
    let setup = Setup { route: ", fail_mode: open".into(), more_routes, ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let asked = async |path: &str| {
        let request = rig.post(path).body(Full::from(QUESTION)).unwrap();
        read(rig.send(request).await).await.0
    };
    assert_eq!(page(&rig, "/readyz").await, (200, "ready\n".into()));
    rig.gate.fail();
    assert_eq!(asked("/openai/v1/chat/completions").await, 200);
    assert_eq!(asked("/openai/v1/chat/completions").await, 200);
    assert_eq!(asked("/closed/v1/chat/completions").await, 503);
    let (status, said) = page(&rig, "/readyz").await;
    assert!(status == 200 && said.contains("`fail_mode: open`") && said.contains("journal_failed"), "{said}");
    let metrics = page(&rig, "/metrics").await.1;
    for line in ["gateway_ready 1", "gateway_evidence_unavailable{reason=\"journal_failed\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_admin_connections_keep_nobody_out_and_end_soon() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let admin = rig.gateway.admin_address();
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        is_alive(&mut stream).await;
        idle.push(stream);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let asked = tokio::time::timeout(Duration::from_secs(5), page(&rig, path)).await;
        assert_eq!(asked.map(|(status, _)| status), Ok(200), "{path}");
    }
    // Those that asked last are still there.
    is_alive(&mut idle[63]).await;
    let begun = Instant::now();
    for stream in &mut idle {
        let over = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        assert!(over.is_ok(), "an idle connection is kept");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Asks on a connection, and leaves it open.
async fn is_alive(stream: &mut TcpStream) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nalive\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_keys_file_rules_without_a_restart_and_is_in_the_log_first() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let other = issue_key(&rig.dir.path().join("keys.yaml"), "second");
    let request = || {
        Request::post("/openai/v1/chat/completions")
            .header("host", "g")
            .header("x-api-key", &other)
            .header("content-type", "application/json")
            .body(Full::from(QUESTION))
            .unwrap()
    };
    let mut status = 0;
    for _ in 0..100 {
        status = read(rig.send(request()).await).await.0;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);
    let evidence = rig.stop().await;
    let reload = evidence
        .records
        .iter()
        .position(
            |record| matches!(&record.body, Body::Config(config) if config.reason == ConfigReason::Reload),
        )
        .unwrap();
    let intent = evidence.records.iter().position(|record| matches!(record.body, Body::Intent(_))).unwrap();
    assert!(reload < intent, "CH-4");
    let Body::Config(config) = &evidence.records[reload].body else { panic!() };
    assert_eq!(evidence.records[intent].config, config.next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_configuration_is_refused_recorded_and_the_old_one_stays() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    std::fs::write(rig.dir.path().join("gateway.yaml"), "deployment: [").unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    let evidence = rig.stop().await;
    let refused = evidence.records.iter().any(
        |record| matches!(&record.body, Body::Admin(admin) if admin.action.as_str() == "config_refused"),
    );
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_running_streams_finish_and_closes_the_log() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut response = rig
        .chat(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#)
        .await;
    sender.send(delta("x")).await;
    read_bytes(response.body_mut(), delta("x").len()).await;
    let stopping = tokio::spawn(rig.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!stopping.is_finished(), "the drain waits for the stream");
    sender.send(DONE).await;
    drop(sender);
    let (_, _, rest) = read(response).await;
    assert_eq!(rest, DONE);
    let evidence = stopping.await.unwrap();
    assert_eq!(evidence.outcomes()[0].end, End::Complete);
    let Body::Close(close) = &evidence.records.last().unwrap().body else {
        panic!("the last record is `close`")
    };
    assert_eq!(close.reason, CloseReason::Shutdown);
    assert_eq!(close.counters.get("outcomes"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_lasts_too_long_cuts_the_stream_and_says_so() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let setup = Setup { limits: "{ drain: 300ms }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let mut response = rig
        .chat(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#)
        .await;
    sender.send(delta("x")).await;
    read_bytes(response.body_mut(), delta("x").len()).await;
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::GatewayAbort);
    assert_eq!(outcome.reason.as_ref().unwrap().as_str(), "draining");
    assert_eq!(outcome.delivered, Some(delta("x").len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_is_erased_over_the_admin_socket_by_the_name_that_callers_use() {
    use gateway::admin::socket::{EraseAsked, Request, Response, call};
    let provider = provider().await;
    let setup = Setup { route: ", keys: exchange".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (_, headers, _) = read(rig.chat(QUESTION).await).await;
    let exchange = headers["x-affidavit-exchange"].to_str().unwrap().to_owned();
    let socket = rig.dir.path().join("journal/admin/admin.sock");
    let asked = EraseAsked {
        subject: Some("alice@example.com".into()),
        reason: "art17".into(),
        ..EraseAsked::default()
    };
    let response =
        tokio::task::spawn_blocking(move || call(&socket, &Request::Erase(asked)).unwrap()).await.unwrap();
    let Response::Erased { erased, .. } = response else { panic!("{response:?}") };
    assert_eq!(erased, [exchange.clone()]);
    let evidence = rig.stop().await;
    let erasure = evidence
        .records
        .iter()
        .find_map(|record| if let Body::Erasure(erasure) = &record.body { Some(erasure) } else { None })
        .unwrap();
    assert_eq!(erasure.exchange.as_str(), exchange);
    assert!(!serde_json::to_string(&evidence.records).unwrap().contains("alice"), "CA-8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_route_that_fails_open_exchanges_pass_when_evidence_cannot_be_written() {
    let provider = provider().await;
    let setup = Setup { route: ", fail_mode: open".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200);
    rig.gate.fail();
    for _ in 0..2 {
        let (status, _, body) = read(rig.chat(QUESTION).await).await;
        assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
    }
    assert_eq!(provider.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_over_a_failed_journal_cuts_what_is_open_at_once() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take();
        async move { response.unwrap_or_else(|| whole(200, "application/json", COMPLETION)) }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let asked = r#"{"model":"gpt-4.1-mini","stream":true,"messages":[]}"#;
    let mut response = rig.chat(asked).await;
    sender.send(delta("one")).await;
    read_bytes(response.body_mut(), delta("one").len()).await;
    rig.gate.fail();
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 503);
    let Rig { gateway, dir, gate, .. } = rig;
    let begun = std::time::Instant::now();
    // `limits.drain` is 30 s, and the provider says nothing more.
    gateway.stop(std::future::pending()).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop((response, sender));
    // The next start closes the exchange, and the one whose intent was written and never synced.
    gate.open();
    let loaded = gateway::config::load(&dir.path().join("gateway.yaml")).unwrap();
    let next = gateway::serve::Gateway::start(loaded, gateway::serve::Start::default()).await.unwrap();
    next.stop(std::future::pending()).await;
    let records = crate::rig::records(&dir.path().join("store"));
    let ends: Vec<End> = records
        .iter()
        .filter_map(|record| if let Body::Outcome(it) = &record.body { Some(it.end) } else { None })
        .collect();
    assert!(matches!(ends.len(), 1 | 2) && ends.iter().all(|end| *end == End::Interrupted), "{ends:?}");
}
