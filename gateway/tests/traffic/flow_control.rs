//! HTTP/2 callers that grant no flow-control window.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use schemas::record::End;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::provider::{COMPLETION, Provider, whole};
use crate::rig::{Rig, Setup};

type Caller = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// A connection that grants each stream `window` bytes, and no more until they are read.
async fn caller(rig: &Rig, window: u32) -> (Caller, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, connection)
}

fn question(rig: &Rig) -> Request<Full<Bytes>> {
    Request::post("http://gateway/openai/v1/chat/completions")
        .header("authorization", format!("Bearer {}", rig.key))
        .header("content-type", "application/json")
        .body(Full::from(r#"{"model":"m","messages":[]}"#))
        .unwrap()
}

/// An answer that is no stream of events and too long for one write.
fn long() -> String {
    format!("{{\"text\":\"{}\"}}", "z".repeat(1 << 20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_grants_no_window_is_cut_at_the_idle_bound_and_its_connection_lives() {
    let provider = Provider::start(|seen| async move {
        let body = if seen.uri.path().ends_with("completions") { long() } else { COMPLETION.into() };
        whole(200, "application/json", body)
    })
    .await;
    let setup = Setup { limits: "{ idle: 1s, concurrent: 4 }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (mut sender, _connection) = caller(&rig, 1000).await;
    let start = Instant::now();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        sender.ready().await.unwrap();
        let mut response = sender.send_request(question(&rig)).await.unwrap();
        assert_eq!(response.status(), 200);
        // The first window is taken, and not given back.
        let first = response.body_mut().frame().await.unwrap().unwrap();
        stuck.push((response, first));
    }
    // All places are taken: only when the streams are cut does another exchange pass.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (mut other, _other) = caller(&rig, 8 << 20).await;
    let answer = other.send_request(question(&rig)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), long().len());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // The connection of the stuck streams lives.
    sender.ready().await.unwrap();
    assert_eq!(sender.send_request(question(&rig)).await.unwrap().status(), 200);
    drop((sender, other, stuck));
    let evidence = rig.stop().await;
    let ends: Vec<End> = evidence.outcomes().iter().map(|outcome| outcome.end).collect();
    assert_eq!(ends.iter().filter(|end| **end == End::Complete).count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| **end == End::ClientAbort).count(), 5, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_caller_that_reads_is_not_cut() {
    let provider = Provider::start(|_| async { whole(200, "application/json", long()) }).await;
    let setup = Setup { limits: "{ idle: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (mut sender, _connection) = caller(&rig, 64 << 10).await;
    let mut body = sender.send_request(question(&rig)).await.unwrap().into_body();
    let (mut total, mut pauses) = (0, 0);
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().into_data().unwrap().len();
        if total > (pauses + 1) * (256 << 10) {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }
    assert_eq!((total, pauses), (long().len(), 4));
    drop(sender);
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].end, End::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_connection_that_answers_pings_and_asks_nothing_is_closed() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let setup = Setup { limits: "{ keep_alive: 1s, idle: 1s }".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (mut sender, connection) = caller(&rig, 64 << 10).await;
    let answer = sender.send_request(question(&rig)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), COMPLETION);
    // The caller's side answers PINGs by itself, and holds the connection.
    tokio::time::timeout(Duration::from_secs(8), connection).await.unwrap().unwrap();
    drop(sender);
    drop(rig.stop().await);
}
