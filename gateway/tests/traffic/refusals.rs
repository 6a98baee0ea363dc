//! What the gateway refuses, how it says so, and what it records.

use std::time::Duration;

use http::{HeaderMap, Request};
use http_body_util::Full;
use schemas::record::{Decision, PartName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::provider::{COMPLETION, Provider, whole};
use crate::rig::{Rig, Setup, read, send};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

fn is_final(headers: &HeaderMap, reason: &str) {
    assert_eq!(headers["x-affidavit-reason"], reason);
    assert_eq!(headers["x-should-retry"], "false");
}

/// Sends raw bytes and reads what comes until the other side closes or is silent.
pub(crate) async fn raw(rig: &Rig, text: &str) -> String {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(1700), stream.read(&mut buffer)).await
    {
        if read == 0 {
            break;
        }
        got.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_unknown_key_is_401_recorded_without_content() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let request = Request::post("/openai/v1/chat/completions").header("host", "g");
    let (status, headers, body) = read(rig.send(request.body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!(status, 401);
    is_final(&headers, "missing_key");
    assert!(headers.contains_key("x-affidavit-exchange"));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "affidavit_missing_key");
    let request = Request::post("/openai/v1/chat/completions")
        .header("host", "g")
        .header("authorization", "Bearer sk-a-providers-own-key-0123456789");
    let (status, headers, _) = read(rig.send(request.body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!(status, 401);
    is_final(&headers, "unknown_key");
    assert!(provider.seen().is_empty());
    let evidence = rig.stop().await;
    let refusals = evidence.refusals();
    assert_eq!(refusals.len(), 2);
    assert!(refusals.iter().all(|refusal| refusal.parts.is_empty() && refusal.exchange.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_keys_is_folded_and_every_one_is_counted() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..60 {
        caller.ready().await.unwrap();
        let request = Request::get("/openai/v1/models").header("host", "g").header("x-api-key", "afk_no");
        let response =
            caller.send_request(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
        let (status, ..) = read(response).await;
        assert_eq!(status, 401);
    }
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let evidence = rig.stop().await;
    let counted: u64 = evidence.refusals().iter().map(|refusal| refusal.count.unwrap_or(1)).sum();
    assert_eq!(counted, 60);
    assert!(evidence.refusals().len() < 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_413_recorded_whether_declared_or_not() {
    let provider = provider().await;
    let setup = Setup { limits: "{ body: 64KiB }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let large = vec![b' '; 100 << 10];
    let request = rig.post("/openai/v1/chat/completions").body(Full::from(large.clone())).unwrap();
    let (status, headers, body) = read(rig.send(request).await).await;
    assert_eq!(status, 413);
    is_final(&headers, "body_too_large");
    assert!(String::from_utf8_lossy(&body).contains("limits.body"), "who can fix it");
    let chunked = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        rig.key,
        large.len(),
        String::from_utf8_lossy(&large),
    );
    assert!(raw(&rig, &chunked).await.starts_with("HTTP/1.1 413"));
    assert!(provider.seen().is_empty());
    let evidence = rig.stop().await;
    assert_eq!(evidence.refusals().len(), 2);
    let refusal = evidence.refusals()[0];
    assert_eq!((refusal.reason.as_str(), refusal.status), ("body_too_large", 413));
    assert_eq!(refusal.parts[0].part, PartName::ClientRequestHead);
    assert_eq!(refusal.caller.as_ref().unwrap().consumer.as_ref().unwrap().value.as_str(), "tester");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_coding_is_415_an_unknown_path_404_an_upgrade_501_all_recorded() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let request = rig.post("/openai/v1/chat/completions").header("content-encoding", "lzma");
    let (status, headers, _) = read(rig.send(request.body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!(status, 415);
    is_final(&headers, "unknown_coding");
    let (status, headers, _) =
        read(rig.send(rig.post("/nowhere").body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!(status, 404);
    is_final(&headers, "unknown_route");
    let request =
        rig.post("/openai/v1/realtime").header("connection", "upgrade").header("upgrade", "websocket");
    let (status, headers, _) = read(rig.send(request.body(Full::default()).unwrap()).await).await;
    assert_eq!(status, 501);
    is_final(&headers, "upgrade_refused");
    let request = rig.post("/openai/v1/files/%2e%2E/chat/completions").body(Full::from(QUESTION)).unwrap();
    let (status, headers, _) = read(rig.send(request).await).await;
    assert_eq!(status, 400);
    is_final(&headers, "malformed_path");
    assert!(provider.seen().is_empty());
    let evidence = rig.stop().await;
    let reasons: Vec<_> = evidence.refusals().iter().map(|refusal| refusal.reason.as_str()).collect();
    assert_eq!(reasons, ["unknown_coding", "unknown_route", "upgrade_refused", "malformed_path"]);
}

const POLICY: &str =
    "mode: enforce\ndefault: deny\nrules:\n  - id: small-only\n    effect: allow\n    models: [\"*-mini\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_denies_is_403_with_the_verdict_and_the_content_recorded() {
    let provider = provider().await;
    let setup = Setup { policy: Some(POLICY.into()), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (status, ..) = read(rig.chat(QUESTION).await).await;
    assert_eq!(status, 200);
    let denied = r#"{"model":"gpt-5","messages":[]}"#;
    let (status, headers, _) = read(rig.chat(denied).await).await;
    assert_eq!(status, 403);
    is_final(&headers, "policy_denied");
    let twice = r#"{"model":"gpt-4.1-mini","model":"gpt-5","messages":[]}"#;
    let (status, headers, _) = read(rig.chat(twice).await).await;
    assert!(status == 400 || status == 403, "{status}: a body that can be read in two ways does not pass");
    assert!(headers.contains_key("x-affidavit-reason"));
    assert_eq!(provider.seen().len(), 1);
    let evidence = rig.stop().await;
    let refusal = evidence.refusals()[0];
    assert_eq!(refusal.verdict.as_ref().unwrap().decision, Decision::Deny);
    assert_eq!(refusal.asked.as_ref().unwrap().requested_model.as_ref().unwrap().as_str(), "gpt-5");
    let body = refusal.parts.iter().find(|part| part.part == PartName::ClientRequest).unwrap();
    assert_eq!(body.length, denied.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_evidence_cannot_be_written_traffic_is_refused_with_503_and_a_reason() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    rig.gate.fail();
    for _ in 0..2 {
        let (status, headers, body) = read(rig.chat(QUESTION).await).await;
        assert_eq!(status, 503);
        assert!(headers.contains_key("retry-after"));
        assert!(!headers.contains_key("x-should-retry"));
        assert_eq!(headers["x-affidavit-reason"], "journal_failed");
        assert!(String::from_utf8_lossy(&body).contains("affidavit_journal_failed"));
    }
    assert!(provider.seen().is_empty(), "CA-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_places_admission_waits_and_then_refuses_with_503() {
    let provider = Provider::start(|_| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        whole(200, "application/json", COMPLETION)
    })
    .await;
    let setup = Setup { limits: "{ concurrent: 1, admission: 100ms }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let first = tokio::spawn(send(
        rig.address,
        rig.post("/openai/v1/chat/completions").body(Full::from(QUESTION)).unwrap(),
    ));
    provider.wait(1).await;
    let (status, headers, _) = read(rig.chat(QUESTION).await).await;
    assert_eq!(
        (status, &headers["x-affidavit-reason"]),
        (503, &"overloaded".parse::<http::HeaderValue>().unwrap())
    );
    assert!(headers.contains_key("retry-after"));
    assert_eq!(read(first.await.unwrap()).await.0, 200);
    let evidence = rig.stop().await;
    assert_eq!(evidence.refusals()[0].reason.as_str(), "overloaded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops_coming_is_408() {
    let provider = provider().await;
    let setup = Setup { limits: "{ body_read: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let text = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        rig.key
    );
    assert!(raw(&rig, &text).await.starts_with("HTTP/1.1 408"));
    let evidence = rig.stop().await;
    assert_eq!(evidence.refusals()[0].reason.as_str(), "body_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_continue_is_answered_for_a_known_caller_and_refused_for_an_unknown_one() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let head = |key: &str| {
        format!(
            "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            QUESTION.len()
        )
    };
    let refused = raw(&rig, &head("nobody")).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}: no body was asked for");
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(head(&rig.key).as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 100"));
    stream.write_all(QUESTION.as_bytes()).await.unwrap();
    let read = stream.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
    assert_eq!(provider.seen()[0].body, QUESTION);
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_the_limit_is_431_and_a_signed_counter() {
    let provider = provider().await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let text = format!("GET / HTTP/1.1\r\nhost: g\r\nx: {}\r\n\r\n", "x".repeat(100 << 10));
    assert!(raw(&rig, &text).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&rig, "no http at all\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let evidence = rig.stop().await;
    let text = serde_json::to_string(&evidence.records).unwrap();
    assert!(
        text.contains("\"failed_head_too_large\":1") && text.contains("\"failed_malformed_http\":1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_memory_for_bodies_is_taken_admission_waits_and_then_refuses_with_503() {
    let provider = provider().await;
    let setup =
        Setup { limits: "{ body: 1MiB, body_memory: 1MiB, admission: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let mut slow = TcpStream::connect(rig.address).await.unwrap();
    let head = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-length: 1048576\r\n\r\n{{",
        rig.key
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, headers, _) = read(rig.chat(QUESTION).await).await;
    assert_eq!(
        (status, &headers["x-affidavit-reason"]),
        (503, &"overloaded".parse::<http::HeaderValue>().unwrap())
    );
    drop(slow);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(read(rig.chat(QUESTION).await).await.0, 200, "the memory is given back");
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropic_callers_get_errors_in_their_own_shape() {
    let provider = provider().await;
    let setup = Setup { dialect: Some("anthropic"), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let request = Request::post("/openai/v1/messages").header("host", "g").header("x-api-key", "afk_wrong");
    let (status, _, body) = read(rig.send(request.body(Full::from("{}")).unwrap()).await).await;
    assert_eq!(status, 401);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"authentication_error".into()));
    drop(rig.stop().await);
}
