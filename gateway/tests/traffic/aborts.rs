//! Callers and providers that go away, and providers that are silent.

use std::time::Duration;

use http_body_util::Full;
use hyper_util::rt::TokioIo;
use schemas::record::{End, ProviderEnd, UsageSource};
use tokio::net::TcpStream;

use crate::provider::{Provider, delta, events, whole};
use crate::rig::{Rig, Setup, next, read, read_bytes};

const STREAMING: &str =
    r#"{"model":"gpt-4.1-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_mid_stream_is_recorded_with_what_it_got() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let setup = Setup { provider: ", drain_after_abort: off".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request =
        rig.post("/openai/v1/chat/completions").body(Full::<bytes::Bytes>::from(STREAMING)).unwrap();
    let mut response = caller.send_request(request).await.unwrap();
    let mut sent = 0;
    for text in ["one", "two"] {
        let event = delta(text);
        sent += event.len();
        sender.send(event.clone()).await;
        read_bytes(response.body_mut(), event.len()).await;
    }
    connection.abort();
    drop((response, caller));
    sender.closed().await;
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::ClientAbort);
    assert_eq!((outcome.delivered, outcome.released), (Some(sent as u64), Some(0)));
    assert_eq!(outcome.status, Some(200));
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Estimated, Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_before_the_head_is_recorded() {
    let provider = Provider::start(|_| async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        whole(200, "application/json", "{}")
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let gone = tokio::time::timeout(Duration::from_millis(300), async {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        let (mut caller, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let request =
            rig.post("/openai/v1/chat/completions").body(Full::<bytes::Bytes>::from(QUESTION)).unwrap();
        let (_, response) = tokio::join!(connection, caller.send_request(request));
        drop(response);
    })
    .await;
    assert!(gone.is_err());
    provider.wait(1).await;
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.status, outcome.delivered), (End::ClientAbort, None, Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_while_it_sends_is_recorded_as_its_only_record() {
    use tokio::io::AsyncWriteExt as _;
    let provider = Provider::start(|_| async { whole(200, "application/json", "{}") }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"model\":",
        rig.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let evidence = rig.stop().await;
    assert!(provider.seen().is_empty());
    assert_eq!(evidence.count("intent"), 0);
    assert_eq!(evidence.refusals()[0].reason.as_str(), "client_abort");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cuts_its_stream_is_recorded_and_the_caller_gets_no_clean_end() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut response = rig.chat(STREAMING).await;
    let event = delta("half");
    sender.send(event.clone()).await;
    assert_eq!(read_bytes(response.body_mut(), event.len()).await, event.as_bytes());
    sender.cut().await;
    assert!(next(response.body_mut()).await.unwrap().is_err(), "no clean end");
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.provider_end), (End::ProviderAbort, Some(ProviderEnd::Cut)));
    assert_eq!(outcome.delivered, Some(event.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_silent_times_out_with_504() {
    let provider = Provider::start(|_| async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        whole(200, "application/json", "{}")
    })
    .await;
    let setup = Setup { limits: "{ first_byte: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (status, headers, body) = read(rig.chat(QUESTION).await).await;
    assert_eq!(
        (status, &headers["x-affidavit-reason"]),
        (504, &"provider_timeout".parse::<http::HeaderValue>().unwrap())
    );
    assert!(String::from_utf8_lossy(&body).contains("affidavit_provider_timeout"));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.status, outcome.provider_status), (End::Timeout, Some(504), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stalls_is_cut_and_recorded_as_a_timeout() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let setup = Setup { limits: "{ idle: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let mut response = rig.chat(STREAMING).await;
    let event = delta("then silence");
    sender.send(event.clone()).await;
    read_bytes(response.body_mut(), event.len()).await;
    assert!(next(response.body_mut()).await.unwrap().is_err());
    drop(sender);
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].end, End::Timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_provider_is_a_502_with_an_outcome() {
    let provider = Provider::start(|_| async { whole(200, "application/json", "{}") }).await;
    let setup = Setup { base_url: Some("http://127.0.0.1:1".into()), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (status, headers, _) = read(rig.chat(QUESTION).await).await;
    assert_eq!(status, 502);
    assert_eq!(headers["x-affidavit-reason"], "provider_unreachable");
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].end, End::Unreachable);
    assert_eq!(evidence.outcomes()[0].reason.as_ref().unwrap().as_str(), "provider_unreachable");
}
