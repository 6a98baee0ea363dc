//! Usage that no provider told: the record has an estimate, marked as one, and its numbers are the tokenizer's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use schemas::record::{End, Outcome, UsageRole, UsageSource};
use tokens::Tokenizer;
use tokio::net::TcpStream;

use crate::provider::{DONE, Provider, delta, events, whole};
use crate::rig::{Evidence, Rig, Setup, read, read_bytes};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"What is the boiling point of water at sea level?"}]}"#;
const STREAMING: &str = r#"{"model":"llama-3.3-70b","stream":true,"messages":[{"role":"user","content":"What is the boiling point of water at sea level?"}]}"#;
const PROMPT: &str = "What is the boiling point of water at sea level?";
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4.1-mini","choices":[{"index":0,"message":{"role":"assistant","content":"It boils at 100 degrees."},"finish_reason":"stop"}]}"#;
const SAID: &str = "It boils at 100 degrees.";

/// What the prompt is: its text and role, three tokens around it and three for the answer.
fn prompt() -> i64 {
    count(PROMPT) + 1 + 3 + 3
}

fn count(text: &str) -> i64 {
    i64::try_from(Tokenizer::O200kBase.count(text)).unwrap()
}

fn only(evidence: &Evidence) -> &Outcome {
    let outcomes = evidence.outcomes();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

fn numbers(outcome: &Outcome) -> (UsageSource, Option<i64>, Option<i64>, Option<&str>) {
    let usage = &outcome.usage;
    let tokenizer = usage.tokenizer.as_ref().map(schemas::Identifier::as_str);
    (usage.source, usage.input_tokens, usage.output_tokens, tokenizer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_without_usage_is_estimated() {
    let provider = Provider::start(|_| async { whole(200, "application/json", ANSWER) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    // Of the second one the prompt is counted while the answer comes.
    for _ in 0..2 {
        let (status, _, body) = read(rig.chat(QUESTION).await).await;
        assert_eq!((status, body), (200, Bytes::from(ANSWER)));
    }
    let metrics = rig.metrics().await;
    assert!(metrics.contains("gateway_usage_estimates_total{result=\"whole\"} 2"), "{metrics}");
    let counted =
        format!("gateway_estimated_tokens_total{{route=\"openai\",class=\"input\"}} {}", 2 * prompt());
    assert!(metrics.contains(&counted), "{metrics}");
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes().len(), 2);
    for outcome in evidence.outcomes() {
        let wanted = (UsageSource::Estimated, Some(prompt()), Some(count(SAID)), Some("o200k_base"));
        assert_eq!(numbers(outcome), wanted);
        assert_eq!((outcome.end, outcome.usage.role), (End::Complete, UsageRole::Incurred));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_usage_is_estimated_by_the_nearest_tokenizer() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    // A gateway that asks for usage and a provider that gives none all the same.
    let rig = Rig::start(&provider, Setup::default()).await;
    for text in ["It boils", " at 100", " degrees."] {
        sender.send(delta(text).replace("gpt-4.1-mini", "llama-3.3-70b")).await;
    }
    sender.send(DONE).await;
    drop(sender);
    read(rig.chat(STREAMING).await).await;
    let evidence = rig.stop().await;
    let wanted = (UsageSource::Estimated, Some(prompt()), Some(count(SAID)), Some("o200k_base"));
    assert_eq!(numbers(only(&evidence)), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_left_in_the_middle_of_is_estimated_from_what_came() {
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
    let request = rig.post("/openai/v1/chat/completions").body(Full::<Bytes>::from(STREAMING)).unwrap();
    let mut response = caller.send_request(request).await.unwrap();
    let event = delta("It boils at");
    sender.send(event.clone()).await;
    read_bytes(response.body_mut(), event.len()).await;
    connection.abort();
    drop((response, caller));
    sender.closed().await;
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!(outcome.end, End::ClientAbort);
    let wanted = (UsageSource::Estimated, Some(prompt()), Some(count("It boils at")), Some("o200k_base"));
    assert_eq!(numbers(outcome), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cuts_its_answer_is_estimated_from_what_came() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    sender.send(delta("It boils at")).await;
    let cutting = sender.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cutting.cut().await;
    });
    let mut response = rig.chat(STREAMING).await;
    while let Some(Ok(_)) = crate::rig::next(response.body_mut()).await {}
    let evidence = rig.stop().await;
    let outcome = only(&evidence);
    assert_eq!(outcome.end, End::ProviderAbort);
    let wanted = (UsageSource::Estimated, Some(prompt()), Some(count("It boils at")), Some("o200k_base"));
    assert_eq!(numbers(outcome), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_provider_tells_is_never_estimated_and_a_route_can_do_without() {
    let provider =
        Provider::start(|_| async { whole(200, "application/json", crate::provider::COMPLETION) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    read(rig.chat(QUESTION).await).await;
    let evidence = rig.stop().await;
    assert_eq!(numbers(only(&evidence)), (UsageSource::Provider, Some(9), Some(3), None));

    let silent = Provider::start(|_| async { whole(200, "application/json", ANSWER) }).await;
    let setup = Setup { route: ", estimate: off".into(), ..Setup::default() };
    let rig = Rig::start(&silent, setup).await;
    read(rig.chat(QUESTION).await).await;
    let evidence = rig.stop().await;
    assert_eq!(numbers(only(&evidence)), (UsageSource::Unknown, None, None, None));

    let broken = Provider::start(|_| async { whole(500, "application/json", "{}") }).await;
    let rig = Rig::start(&broken, Setup::default()).await;
    read(rig.chat(QUESTION).await).await;
    let evidence = rig.stop().await;
    assert_eq!(numbers(only(&evidence)), (UsageSource::Unknown, None, None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_prompt_with_an_image_only_the_answer_is_estimated() {
    let provider = Provider::start(|_| async { whole(200, "application/json", ANSWER) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let shown = r#"{"model":"gpt-4.1-mini","messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"https://x.test/a.png"}}]}]}"#;
    read(rig.chat(shown).await).await;
    let evidence = rig.stop().await;
    let wanted = (UsageSource::Estimated, None, Some(count(SAID)), Some("o200k_base"));
    assert_eq!(numbers(only(&evidence)), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_response_that_is_still_to_be_made_only_the_prompt_is_estimated() {
    const QUEUED: &str = r#"{"id":"resp_1","object":"response","status":"queued","background":true,"model":"gpt-4.1-mini","output":[],"text":{"format":{"type":"text"}},"usage":null}"#;
    let provider = Provider::start(|_| async { whole(200, "application/json", QUEUED) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let asked = format!(r#"{{"model":"gpt-4.1-mini","background":true,"input":"{PROMPT}"}}"#);
    let request = rig.post("/openai/v1/responses").body(Full::from(asked)).unwrap();
    read(rig.send(request).await).await;
    let evidence = rig.stop().await;
    let wanted = (UsageSource::Estimated, Some(prompt()), None, Some("o200k_base"));
    assert_eq!(numbers(only(&evidence)), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_whole_read_of_what_was_made_in_the_background_tells_its_cost_and_nothing_counts_it() {
    let made = |status: &str, usage: &str| {
        format!(
            r#"{{"id":"resp_1","object":"response","status":"{status}","background":true,"model":"gpt-4.1-mini","output":[],"usage":{usage}}}"#
        )
    };
    let told = r#"{"input_tokens":1000,"output_tokens":500,"total_tokens":1500}"#;
    let (queued, done) = (made("queued", "null"), made("completed", told));
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let provider = Provider::start(move |seen| {
        let read = seen.method == http::Method::GET;
        let is_done = read && reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        let answer = if is_done { done.clone() } else { queued.clone() };
        async move { whole(200, "application/json", answer) }
    })
    .await;
    let setup = Setup { rest: "prices: prices.csv\n".into(), ..Setup::default() };
    let book = include_str!("../../../policies/prices/2026-11.csv");
    let rig = Rig::start_with(&provider, setup, &[("prices.csv", book)]).await;
    let asked = format!(r#"{{"model":"gpt-4.1-mini","background":true,"input":"{PROMPT}"}}"#);
    let request = rig.post("/openai/v1/responses").body(Full::from(asked)).unwrap();
    read(rig.send(request).await).await;
    // Still to be made, then made, and read once more.
    for _ in 0..3 {
        let request = rig.post("/openai/v1/responses/resp_1").method("GET").body(Full::default()).unwrap();
        assert_eq!(read(rig.send(request).await).await.0, 200);
    }
    let metrics = rig.metrics().await;
    for name in ["gateway_cost_total{", "gateway_cost_by_team_total{", "gateway_cost_by_price_total{"] {
        assert!(!metrics.contains(name), "{metrics}");
    }
    let evidence = rig.stop().await;
    let outcomes = evidence.outcomes();
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let usage = &outcome.usage;
            (
                usage.role,
                usage.source,
                usage.output_tokens,
                outcome.cost.as_ref().map(|cost| cost.total.as_str()),
            )
        })
        .collect();
    let whole = (UsageRole::Retrieved, UsageSource::Provider, Some(500), Some("0.0012"));
    assert_eq!(
        rows,
        [
            (UsageRole::Incurred, UsageSource::Estimated, None, None),
            (UsageRole::Retrieved, UsageSource::Unknown, None, None),
            whole,
            whole
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_prompts_of_20_megabytes_stall_nobody() {
    let provider = Provider::start(|_| async { whole(200, "application/json", ANSWER) }).await;
    let rig = std::sync::Arc::new(Rig::start(&provider, Setup::default()).await);
    let hostile = |length: usize| {
        let text = "a".repeat(length);
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#)
    };
    let mut running = Vec::new();
    for length in [20 << 20, 7 << 20, 7 << 20, 900 << 10, 900 << 10] {
        let (rig, body) = (std::sync::Arc::clone(&rig), hostile(length));
        running.push(tokio::spawn(async move {
            let request = rig.post("/openai/v1/chat/completions").body(Full::from(body)).unwrap();
            read(rig.send(request).await).await.0
        }));
    }
    let mut slowest = Duration::ZERO;
    while running.iter().any(|task| !task.is_finished()) {
        let started = Instant::now();
        let models = rig.post("/openai/v1/embeddings").body(Full::from("{}")).unwrap();
        read(rig.send(models).await).await;
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for task in running {
        assert_eq!(task.await.unwrap(), 200);
    }
    println!("the slowest of the others took {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let rig = std::sync::Arc::into_inner(rig).unwrap();
    let evidence = rig.stop().await;
    let chats: Vec<_> = evidence
        .outcomes()
        .into_iter()
        .filter(|outcome| {
            outcome.asked.operation.as_ref().is_some_and(|name| name.as_str() == "chat.completions")
        })
        .collect();
    assert_eq!(chats.len(), 5);
    for outcome in chats {
        // Late ones are not known, and no number is made up for them.
        let (source, input, ..) = numbers(outcome);
        assert!(matches!(source, UsageSource::Estimated | UsageSource::Unknown), "{source:?}");
        assert!(input.is_none_or(|input| input > 100_000), "{input:?}");
    }
}
