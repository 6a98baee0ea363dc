//! CA-1 and CA-2: what waits for the disk, and what does not.

use std::io::Write as _;
use std::time::Duration;

use schemas::note::{Ed25519Signer, Signer as _};
use schemas::promise::Promise;
use schemas::record::{End, ProviderEnd};

use crate::provider::{COMPLETION, DONE, Provider, delta, events, pieces, whole};
use crate::rig::{PROMISE_SEED, Rig, Setup, is_silent, next, read, read_bytes};

const STREAMING: &str =
    r#"{"model":"gpt-4.1-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intent_is_durable_before_the_provider_sees_a_byte() {
    let provider = Provider::start(|_| async { whole(200, "application/json", "{}") }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    rig.gate.close();
    let mut answer = Box::pin(rig.chat(QUESTION));
    let early = tokio::time::timeout(Duration::from_millis(300), answer.as_mut()).await;
    assert!(early.is_err(), "no answer while the disk is held up");
    assert!(provider.seen().is_empty(), "CA-1");
    rig.gate.open();
    let (status, ..) = read(answer.await).await;
    assert_eq!((status, provider.seen().len()), (200, 1));
    drop(rig.stop().await);
}

/// A provider that answers once with what the test sends.
async fn once(response: http::Response<crate::provider::Pieces>) -> Provider {
    let response = std::sync::Mutex::new(Some(response));
    Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_event_is_held_until_the_outcome_is_durable_and_nothing_else_is() {
    let (sender, response) = events();
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut response = rig.chat(STREAMING).await;
    rig.gate.close();
    let event = delta("passes");
    sender.send(event.clone()).await;
    assert_eq!(read_bytes(response.body_mut(), event.len()).await, event.as_bytes(), "no other byte waits");
    sender.send(DONE).await;
    drop(sender);
    assert!(is_silent(response.body_mut()).await, "CA-2: [DONE] waits for the outcome");
    rig.gate.open();
    let (_, _, rest) = read(response).await;
    assert_eq!(rest, DONE);
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_known_length_only_the_last_byte_waits_for_the_outcome() {
    let (sender, pieces) = pieces();
    let response = http::Response::builder()
        .header("content-type", "application/octet-stream")
        .header("content-length", 10)
        .body(pieces)
        .unwrap();
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    sender.send("01234").await;
    let mut response = rig.chat(QUESTION).await;
    assert_eq!(read_bytes(response.body_mut(), 5).await, b"01234");
    rig.gate.close();
    sender.send("56789").await;
    drop(sender);
    assert_eq!(read_bytes(response.body_mut(), 4).await, b"5678");
    assert!(is_silent(response.body_mut()).await, "the last byte waits");
    rig.gate.open();
    assert_eq!(read_bytes(response.body_mut(), 1).await, b"9");
    assert!(next(response.body_mut()).await.is_none());
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.delivered, outcome.released), (Some(9), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_unknown_length_the_end_waits_for_the_outcome() {
    let (sender, pieces) = pieces();
    let response = http::Response::builder().header("content-type", "audio/mpeg").body(pieces).unwrap();
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    sender.send("abc").await;
    let mut response = rig.chat(QUESTION).await;
    rig.gate.close();
    assert_eq!(read_bytes(response.body_mut(), 3).await, b"abc");
    drop(sender);
    assert!(is_silent(response.body_mut()).await, "the terminating chunk waits");
    rig.gate.open();
    assert!(next(response.body_mut()).await.is_none());
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_body_and_its_head_wait_together() {
    let provider = Provider::start(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        whole(200, "application/json", "{\"a\":1}")
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut answer = Box::pin(rig.chat(QUESTION));
    let none = tokio::time::timeout(Duration::from_millis(50), answer.as_mut()).await;
    assert!(none.is_err());
    provider.wait(1).await;
    rig.gate.close();
    let none = tokio::time::timeout(Duration::from_millis(300), answer.as_mut()).await;
    assert!(none.is_err(), "the answer waits for its outcome");
    rig.gate.open();
    let (status, headers, body) = read(answer.await).await;
    assert_eq!((status, &body[..]), (200, &b"{\"a\":1}"[..]));
    assert_eq!(headers["content-length"], "7");
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_end_behind_its_terminal_event_is_not_awaited() {
    let (sender, response) = events();
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let response = rig.chat(STREAMING).await;
    sender.send(delta("x")).await;
    sender.send(DONE).await;
    let begun = std::time::Instant::now();
    let (_, _, body) = read(response).await;
    assert!(body.ends_with(DONE.as_bytes()), "a clean end");
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(2));
    sender.closed().await;
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.provider_end), (End::Complete, Some(ProviderEnd::NotAwaited)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_fails_under_a_stream_gives_an_error_event_and_never_a_clean_end() {
    let (sender, response) = events();
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut response = rig.chat(STREAMING).await;
    sender.send(delta("x")).await;
    read_bytes(response.body_mut(), delta("x").len()).await;
    rig.gate.fail();
    sender.send(DONE).await;
    drop(sender);
    let mut got = Vec::new();
    let mut clean = true;
    while let Some(piece) = next(response.body_mut()).await {
        match piece {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(_) => {
                clean = false;
                break;
            }
        }
    }
    let got = String::from_utf8(got).unwrap();
    assert!(!clean, "cut");
    assert!(!got.contains("[DONE]"), "{got}");
    assert!(got.contains("affidavit_journal_failed"), "{got}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coded_stream_that_is_cut_gets_no_event_of_ours_between_its_bytes() {
    let (sender, mut response) = events();
    response.headers_mut().insert("content-encoding", http::HeaderValue::from_static("gzip"));
    let provider = once(response).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let mut response = rig.chat(STREAMING).await;
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    coder.write_all(delta("x").as_bytes()).unwrap();
    coder.flush().unwrap();
    let first = std::mem::take(coder.get_mut());
    sender.send(first.clone()).await;
    assert_eq!(read_bytes(response.body_mut(), first.len()).await, first);
    rig.gate.fail();
    coder.write_all(DONE.as_bytes()).unwrap();
    let rest = coder.finish().unwrap();
    sender.send(rest.clone()).await;
    drop(sender);
    let mut got = Vec::new();
    let mut clean = true;
    while let Some(piece) = next(response.body_mut()).await {
        match piece {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(_) => {
                clean = false;
                break;
            }
        }
    }
    assert!(!clean, "cut");
    assert!(rest.starts_with(&got), "{}", String::from_utf8_lossy(&got));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_outcome_cannot_be_recorded_the_caller_still_gets_the_receipt_of_the_intent() {
    let key = Ed25519Signer::from_seed(PROMISE_SEED).public_key();
    // The provider answers behind the failure, or not in time.
    for answers in [true, false] {
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let wait = gate.clone();
        let provider = Provider::start(move |_| {
            let wait = wait.clone();
            async move {
                let _ = wait.acquire().await;
                whole(200, "application/json", COMPLETION)
            }
        })
        .await;
        let setup = Setup {
            limits: "{ first_byte: 1s }".into(),
            evidence: ", promise_key: promise.key".into(),
            route: ", receipts: true".into(),
            ..Setup::default()
        };
        let rig = Rig::start(&provider, setup).await;
        let (answer, ()) = tokio::join!(rig.chat(QUESTION), async {
            provider.wait(1).await;
            rig.gate.fail();
            gate.add_permits(usize::from(answers));
        });
        let (status, headers, _) = read(answer).await;
        assert_eq!(
            (status, headers["x-affidavit-reason"].as_bytes()),
            (503, &b"journal_failed"[..]),
            "{answers}"
        );
        let receipt = headers.get("x-affidavit-receipt").expect("the intent's receipt").to_str().unwrap();
        receipt.parse::<Promise>().unwrap().verify(&key).unwrap();
        assert!(!headers.contains_key("x-affidavit-receipt-outcome"));
    }
}
