//! What is read of a stream behind its caller's back, to know what it cost.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use schemas::record::{End, Outcome, PartName, ProviderEnd, UsageSource};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::provider::{COMPLETION, DONE, Provider, Sender, delta, events, pieces};
use crate::rig::{Evidence, Rig, Setup, next, read_bytes};
use crate::translated::MESSAGE;

const STREAMING: &str =
    r#"{"model":"gpt-4.1-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const USAGE: &str = "data: {\"id\":\"chatcmpl-2\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4.1-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_a_stream_over_its_bound_is_kept_and_its_usage_read() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup { limits: "{ answer: 4KiB }".into(), ..Setup::default() }).await;
    let begins = delta(&"one ".repeat(900));
    let ends = format!("{}{USAGE}{DONE}", delta(&"two ".repeat(100)));
    assert!(begins.len() < 4096 && begins.len() + ends.len() > 4096);
    sender.send(begins.clone()).await;
    let mut response = rig.chat(STREAMING).await;
    read_bytes(response.body_mut(), begins.len()).await;
    sender.send(ends.clone()).await;
    let mut last = Vec::new();
    while let Some(Ok(piece)) = next(response.body_mut()).await {
        last.extend_from_slice(&piece);
    }
    assert!(String::from_utf8_lossy(&last).contains("affidavit_answer_too_large"));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::GatewayAbort);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Provider, Some(7)));
    assert_eq!(provided(outcome), (begins.len() + ends.len()) as u64);
}

/// A gateway with one stream of which the caller took one event and left.
async fn left(provider_setting: &str, limits: &str) -> (Rig, Sender, usize) {
    left_on(provider_setting, "", limits).await
}

/// As [`left`], on a route that says more.
async fn left_on(provider_setting: &str, route: &str, limits: &str) -> (Rig, Sender, usize) {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let setup = Setup {
        provider: provider_setting.into(),
        route: route.into(),
        limits: limits.into(),
        ..Setup::default()
    };
    let rig = Rig::start(&provider, setup).await;
    let event = delta("one");
    sender.send(event.clone()).await;
    leave_after(&rig, STREAMING, event.len()).await;
    (rig, sender, event.len())
}

/// Asks, takes so many bytes of the answer, and goes away.
async fn leave_after(rig: &Rig, body: &'static str, bytes: usize) {
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = rig.post("/openai/v1/chat/completions").body(Full::<Bytes>::from(body)).unwrap();
    let mut response = caller.send_request(request).await.unwrap();
    read_bytes(response.body_mut(), bytes).await;
    connection.abort();
    drop((response, caller));
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Waits until the gateway has let go of the provider's body; how long that took.
async fn let_go(sender: &Sender) -> Duration {
    let start = Instant::now();
    tokio::time::timeout(Duration::from_secs(20), sender.closed()).await.unwrap();
    start.elapsed()
}

fn provided(outcome: &Outcome) -> u64 {
    outcome.parts.iter().find(|part| part.part == PartName::ProviderResponse).unwrap().length
}

fn only(evidence: &Evidence) -> &Outcome {
    let outcomes = evidence.outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].end, End::ClientAbort);
    outcomes[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_that_comes_after_the_caller_left_is_recorded_as_drained() {
    let (rig, sender, delivered) = left("", "").await;
    let mut sent = delivered;
    for event in [delta("two"), delta("three"), format!("{USAGE}{DONE}")] {
        sent += event.len();
        sender.send(event).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let_go(&sender).await;
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!(outcome.usage.source, UsageSource::Drained);
    assert_eq!((outcome.usage.input_tokens, outcome.usage.output_tokens), (Some(5), Some(7)));
    assert_eq!((outcome.delivered, outcome.released), (Some(delivered as u64), Some(0)));
    assert_eq!(provided(outcome), sent as u64, "the content holds what came");
    assert_eq!(outcome.provider_end, Some(ProviderEnd::NotAwaited), "the body was still open");
    let total = outcome.timing.total_us.unwrap();
    assert!(total < 1_000_000, "{total}: the exchange ended for its caller when it left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_ends_while_it_is_drained_is_seen_to_end() {
    let (rig, sender, _) = left("", "").await;
    sender.send(format!("{USAGE}{DONE}")).await;
    drop(sender);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Drained, Some(7)));
    assert_eq!(outcome.provider_end, Some(ProviderEnd::Seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_the_provider_is_cut_at_once() {
    let (rig, sender, delivered) = left(", drain_after_abort: off", "").await;
    assert!(let_go(&sender).await < Duration::from_secs(2));
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Estimated, Some(1)));
    assert_eq!((outcome.provider_end, provided(outcome)), (None, delivered as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_says_otherwise_than_its_provider() {
    let (rig, sender, delivered) = left_on("", ", drain_after_abort: off", "").await;
    assert!(let_go(&sender).await < Duration::from_secs(2));
    let evidence = rig.stop().await;
    assert_eq!((only(&evidence).provider_end, provided(only(&evidence))), (None, delivered as u64));

    let within = ", drain_after_abort: { time: 20s }";
    let (rig, sender, _) = left_on(", drain_after_abort: off", within, "").await;
    sender.send(format!("{USAGE}{DONE}")).await;
    drop(sender);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Drained, Some(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_ends_at_its_bound_of_time() {
    let (rig, sender, _) = left(", drain_after_abort: { time: 1s }", "").await;
    let waited = let_go(&sender).await;
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Estimated, Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_ends_at_its_bound_of_bytes() {
    let (rig, sender, delivered) = left(", drain_after_abort: { bytes: 64KiB }", "").await;
    let event = delta(&"x".repeat(10_000));
    for _ in 0..40 {
        sender.send(event.clone()).await;
    }
    let waited = let_go(&sender).await;
    assert!(waited < Duration::from_secs(5), "{waited:?}: the default bound of time is 30 s");
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert!(provided(outcome) <= (delivered + (64 << 10)) as u64, "{}", provided(outcome));
    assert_eq!(
        (outcome.provider_end, outcome.usage.source),
        (Some(ProviderEnd::Cut), UsageSource::Estimated)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_gateway_does_not_wait_for_usage() {
    let (rig, sender, _) = left("", "").await;
    let start = Instant::now();
    let evidence = rig.stop().await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(only(&evidence).usage.source, UsageSource::Estimated);
    drop(sender);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_places_are_taken_nothing_is_drained() {
    let (rig, sender, _) = left("", "{ concurrent: 1 }").await;
    assert!(let_go(&sender).await < Duration::from_secs(2));
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_exchange_gives_its_place_back() {
    let (rig, sender, _) = left("", "{ concurrent: 2, admission: 0s }").await;
    // One place is the drained exchange's, the other is free.
    let hold = TcpStream::connect(rig.address).await.unwrap();
    drop(hold);
    sender.send(format!("{USAGE}{DONE}")).await;
    drop(sender);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let evidence = rig.stop().await;
    assert_eq!(only(&evidence).usage.source, UsageSource::Drained);
    assert_eq!(evidence.count("refusal"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_known_length_is_read_on_too() {
    let (sender, body) = pieces();
    let answer = format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"gpt-4.1-mini\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}}}",
        "y".repeat(1000)
    );
    let response = http::Response::builder()
        .header("content-type", "application/json")
        .header("content-length", answer.len())
        .body(body)
        .unwrap();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (first, second) = answer.split_at(400);
    sender.send(first.to_owned()).await;
    leave_after(&rig, r#"{"model":"gpt-4.1-mini","messages":[]}"#, 400).await;
    sender.send(second.to_owned()).await;
    drop(sender);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Drained, Some(7)));
    assert_eq!((outcome.delivered, provided(outcome)), (Some(400), answer.len() as u64));
}

/// Asks, and goes away before an answer, when the provider has begun its `n`th.
async fn leave_unanswered(rig: &Rig, path: &str, provider: &Provider, n: usize) {
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut caller, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let asked = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let request = rig.post(path).body(Full::<Bytes>::from(asked)).unwrap();
    let answer = tokio::spawn(async move { caller.send_request(request).await.map(drop) });
    provider.wait(n).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    connection.abort();
    answer.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_got_a_byte_of_is_recorded_and_read_on_too() {
    let (bodies, mut senders) = tokio::sync::mpsc::channel(8);
    let provider = Provider::start(move |seen| {
        let answer = if seen.uri.path() == "/v1/messages" { MESSAGE } else { COMPLETION };
        let bodies = bodies.clone();
        async move {
            let (sender, body) = pieces();
            let (first, second) = answer.split_at(answer.find("\"usage\"").unwrap());
            sender.send(first).await;
            bodies.send((sender, second)).await.unwrap();
            http::Response::builder().header("content-type", "application/json").body(body).unwrap()
        }
    })
    .await;
    let two = |name: &str| {
        format!("targets: [{{ provider: {name} }}, {{ name: spare, provider: {name}, priority: 1 }}]")
    };
    let ways = [
        ("translated", "provider: claude".to_owned(), MESSAGE),
        ("translated-first", two("claude"), MESSAGE),
        ("judged", two("openai"), COMPLETION),
        ("cut", "provider: claude, drain_after_abort: off".to_owned(), MESSAGE),
        ("cut-first", format!("{}, drain_after_abort: off", two("claude")), MESSAGE),
    ];
    let mut setup = Setup {
        more_providers: format!(
            "  - {{ name: claude, dialect: anthropic, base_url: 'http://{}' }}\n",
            provider.address
        ),
        ..Setup::default()
    };
    for (name, targets, _) in &ways {
        setup.more_routes += &format!("  - {{ name: {name}, path: /{name}, dialect: openai, {targets} }}\n");
    }
    let rig = Rig::start(&provider, setup).await;
    for (at, (name, _, _)) in ways.iter().enumerate() {
        leave_unanswered(&rig, &format!("/{name}/v1/chat/completions"), &provider, at + 1).await;
        let (sender, second) = senders.recv().await.unwrap();
        sender.send(second).await;
        drop(sender);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let evidence = rig.stop().await;
    let outcomes = evidence.outcomes();
    assert_eq!((outcomes.len(), evidence.count("attempt")), (ways.len(), 0));
    for (name, _, answer) in &ways {
        let is = |outcome: &&&Outcome| outcome.asked.route.as_ref().unwrap().as_str() == *name;
        let outcome = outcomes.iter().find(is).unwrap();
        assert_eq!((outcome.end, outcome.provider_status), (End::ClientAbort, Some(200)), "{name}");
        assert!(outcome.timing.first_byte_us.is_some(), "{name}");
        if name.starts_with("cut") {
            let first = answer.find("\"usage\"").unwrap();
            assert_eq!((outcome.provider_end, provided(outcome)), (None, first as u64), "{name}");
            assert_eq!(outcome.usage.source, UsageSource::Estimated, "{name}");
        } else {
            assert_eq!(
                (outcome.provider_end, provided(outcome)),
                (Some(ProviderEnd::Seen), answer.len() as u64),
                "{name}"
            );
            assert_eq!(
                (outcome.usage.source, outcome.usage.output_tokens),
                (UsageSource::Drained, Some(3)),
                "{name}"
            );
        }
    }
}
