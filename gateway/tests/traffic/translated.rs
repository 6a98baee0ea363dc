//! Callers of one dialect in front of a provider of another: both sides are recorded, and CA-2 holds for what the caller
//! gets.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use schemas::record::{Body, Dropped, End, Intent, PartName, UsageSource};
use serde_json::{Value, json};

use crate::provider::{COMPLETION, Provider, Sender, delta, events, pieces, whole};
use crate::rig::{Evidence, Rig, Setup, is_silent, next, read};

const QUESTION: &str = r#"{"model":"claude","messages":[{"role":"system","content":"Be short."},{"role":"user","content":"Hi"}],"seed":7}"#;
const STREAMED: &str = r#"{"model":"claude","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}"#;
const ASKED: &str = r#"{"model":"gpt-4.1-mini","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
pub(crate) const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":9,"cache_read_input_tokens":4,"output_tokens":3}}"#;
const BEGIN: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-5\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello.\"}}\n\n";
const LAST: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Callers of OpenAI's format in front of a provider of Anthropic's.
fn to_anthropic(route: &str) -> Setup {
    Setup { dialect: Some("anthropic"), route: format!(", dialect: openai{route}"), ..Setup::default() }
}

/// A provider that answers once, with what the test sends.
async fn streaming() -> (Sender, Provider) {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    (sender, provider)
}

async fn post(rig: &Rig, path: &str, body: &'static str) -> (u16, HeaderMap, Bytes) {
    read(rig.send(rig.post(path).body(Full::from(body)).unwrap()).await).await
}

fn intent(evidence: &Evidence) -> &Intent {
    let mut all = evidence.records.iter();
    all.find_map(|record| if let Body::Intent(it) = &record.body { Some(it) } else { None }).unwrap()
}

fn names(parts: &[schemas::record::Part]) -> Vec<PartName> {
    parts.iter().map(|part| part.part).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_goes_out_and_its_answer_comes_back_in_another_dialect() {
    let provider = Provider::start(|_| async {
        let mut answer = whole(200, "application/json", MESSAGE);
        answer.headers_mut().insert("request-id", "req_1".parse().unwrap());
        answer
    })
    .await;
    let rig = Rig::start(&provider, to_anthropic("")).await;
    let (status, headers, body) = post(&rig, "/openai/v1/chat/completions", QUESTION).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &headers["content-type"]), (200, &"application/json".parse().unwrap()));
    assert_eq!(headers["x-request-id"], "req_1");
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello.");
    assert_eq!(answer["usage"]["prompt_tokens"], 13);

    let seen = provider.wait(1).await;
    assert_eq!(
        (seen.uri.path(), &seen.headers["anthropic-version"]),
        ("/v1/messages", &"2023-06-01".parse().unwrap())
    );
    assert!(seen.headers.get("accept-encoding").is_none(), "what is coded cannot be translated as it comes");
    let asked: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((&asked["system"], &asked["max_tokens"]), (&json!("Be short."), &json!(8192)));

    let evidence = rig.stop().await;
    assert_eq!(
        names(&intent(&evidence).parts),
        [PartName::ClientRequestHead, PartName::ClientRequest, PartName::ProviderRequest]
    );
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.status, outcome.provider_status), (End::Complete, Some(200), Some(200)));
    let kept = names(&outcome.parts);
    assert!(
        kept.contains(&PartName::ProviderResponse) && kept.contains(&PartName::ClientResponse),
        "{kept:?}"
    );
    let length = |name| outcome.parts.iter().find(|part| part.part == name).unwrap().length;
    assert_eq!(length(PartName::ProviderResponse), MESSAGE.len() as u64);
    assert_eq!(length(PartName::ClientResponse), body.len() as u64);
    // The counts are those of the provider's own bytes.
    assert_eq!((outcome.usage.input_tokens, outcome.usage.cache_read_tokens), (Some(13), Some(4)));
    assert_eq!(outcome.answered.served_model.as_ref().unwrap().as_str(), "claude-opus-5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_way_round_it_is_the_same() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    // A base path that ends with a version keeps it.
    let base_url = Some(format!("http://{}/api/v4", provider.address));
    let setup = Setup { route: ", dialect: anthropic".into(), base_url, ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (status, _, body) = post(&rig, "/openai/v1/messages", ASKED).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["type"]), (200, &json!("message")));
    assert_eq!(answer["content"], json!([{ "type": "text", "text": "Hello." }]));
    assert_eq!(provider.wait(1).await.uri.path(), "/api/v4/chat/completions");
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_terminal_event_waits_for_the_outcome_and_nothing_else_does() {
    let (sender, provider) = streaming().await;
    let rig = Rig::start(&provider, to_anthropic("")).await;
    sender.send(BEGIN).await;
    let mut response =
        rig.send(rig.post("/openai/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    rig.gate.close();
    sender.send(DELTA).await;
    let mut text = String::new();
    while !text.contains("Hello.") {
        text.push_str(&String::from_utf8_lossy(&next(response.body_mut()).await.unwrap().unwrap()));
    }
    assert!(text.starts_with("data: {\"id\":\"msg_1\",\"object\":\"chat.completion.chunk\""), "{text}");
    sender.send(LAST).await;
    sender.send(STOP).await;
    drop(sender);
    assert!(is_silent(response.body_mut()).await, "CA-2: [DONE] waits for the outcome");
    rig.gate.open();
    let (_, _, rest) = read(response).await;
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    assert!(rest.contains("\"finish_reason\":\"stop\"") && rest.contains("\"total_tokens\":12"), "{rest}");
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::Complete);
    let length = |name| outcome.parts.iter().find(|part| part.part == name).unwrap().length;
    assert_eq!(
        length(PartName::ProviderResponse),
        (BEGIN.len() + DELTA.len() + LAST.len() + STOP.len()) as u64
    );
    assert_eq!(length(PartName::ClientResponse), (text.len() + rest.len()) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_has_no_terminal_event() {
    let (sender, provider) = streaming().await;
    let rig = Rig::start(&provider, to_anthropic("")).await;
    sender.send(BEGIN).await;
    let mut response =
        rig.send(rig.post("/openai/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
    sender.send(DELTA).await;
    let mut text = String::new();
    while !text.contains("Hello.") {
        text.push_str(&String::from_utf8_lossy(&next(response.body_mut()).await.unwrap().unwrap()));
    }
    sender.cut().await;
    let mut broke = false;
    while let Some(piece) = next(response.body_mut()).await {
        match piece {
            Ok(piece) => text.push_str(&String::from_utf8_lossy(&piece)),
            Err(_) => {
                broke = true;
                break;
            }
        }
    }
    assert!(broke && !text.contains("[DONE]") && !text.contains("finish_reason\":\"stop"), "{text}");
    let (event, code) = (text.rsplit("data: ").next().unwrap(), "affidavit_provider_aborted");
    let event: Value = serde_json::from_str(event.trim_end()).unwrap();
    assert_eq!(event["error"]["code"], code, "the caller reads why, in its own dialect");
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::ProviderAbort);
    let length = |name| outcome.parts.iter().find(|part| part.part == name).unwrap().length;
    assert_eq!(length(PartName::ClientResponse), text.len() as u64);
    assert!(outcome.delivered.unwrap() + outcome.released.unwrap() >= text.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_without_its_end_has_none_in_anthropics_dialect_either() {
    let (sender, provider) = streaming().await;
    let setup = Setup { route: ", dialect: anthropic".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    sender.send(delta("Hello.")).await;
    drop(sender);
    let asked = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let mut response = rig.send(rig.post("/openai/v1/messages").body(Full::from(asked)).unwrap()).await;
    let (mut text, mut broke) = (String::new(), false);
    while let Some(piece) = next(response.body_mut()).await {
        match piece {
            Ok(piece) => text.push_str(&String::from_utf8_lossy(&piece)),
            Err(_) => {
                broke = true;
                break;
            }
        }
    }
    assert!(broke && text.contains("Hello.") && !text.contains("message_stop"), "{text}");
    let last = text.rsplit("event: ").next().unwrap();
    assert!(last.starts_with("error\n") && last.contains("affidavit_provider_aborted"), "{text}");
    assert_eq!(rig.stop().await.outcomes()[0].end, End::ProviderAbort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_is_recorded_as_such() {
    let (sender, provider) = streaming().await;
    let setup = Setup { provider: ", drain_after_abort: off".into(), ..to_anthropic("") };
    let rig = Rig::start(&provider, setup).await;
    sender.send(BEGIN).await;
    let mut response =
        rig.send(rig.post("/openai/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
    next(response.body_mut()).await.unwrap().unwrap();
    drop(response);
    sender.closed().await;
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.usage.input_tokens), (End::ClientAbort, Some(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_said_is_refused_before_a_byte_is_sent_or_dropped_where_the_route_says_so() {
    let provider = Provider::start(|_| async { whole(200, "application/json", MESSAGE) }).await;
    let rig = Rig::start(&provider, to_anthropic("")).await;
    let body = r#"{"model":"claude","messages":[{"role":"user","content":"Hi"}],"logprobs":true}"#;
    let (status, headers, answer) = post(&rig, "/openai/v1/chat/completions", body).await;
    assert_eq!((status, &headers["x-affidavit-untranslatable"]), (400, &"logprobs".parse().unwrap()));
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["error"]["code"], "affidavit_untranslatable");
    let (status, headers, _) = post(&rig, "/openai/v1/embeddings", r#"{"model":"m","input":"x"}"#).await;
    assert_eq!((status, &headers["x-affidavit-untranslatable"]), (400, &"operation".parse().unwrap()));
    assert!(provider.seen().is_empty());
    let evidence = rig.stop().await;
    let reasons: Vec<&str> = evidence.refusals().iter().map(|refusal| refusal.reason.as_str()).collect();
    assert_eq!(reasons, ["untranslatable", "untranslatable"]);
    let said = evidence.refusals()[0].translation.as_ref().unwrap();
    assert_eq!((said.from.as_str(), said.to.as_str()), ("openai", "anthropic"));
    assert_eq!((said.dropped.meaning, words(&said.dropped).as_str()), (1, "logprobs"));

    let rig = Rig::start(&provider, to_anthropic(", untranslatable: drop")).await;
    let (status, ..) = post(&rig, "/openai/v1/chat/completions", body).await;
    assert_eq!((status, provider.seen().len()), (200, 1));
    let evidence = rig.stop().await;
    let said = &intent(&evidence).translation.as_ref().unwrap().dropped;
    assert_eq!((said.count, said.meaning, words(said).as_str()), (1, 1, "logprobs"));
}

/// What was left out, in the words of the records.
fn words(dropped: &Dropped) -> String {
    dropped.what.iter().map(schemas::Identifier::as_str).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_or_a_provider_names_stands_in_no_record() {
    let message = MESSAGE.replace(r#""content":["#, r#""content":[{"type":"MARKER-answer","MARKER-key":1},"#);
    let provider = Provider::start(move |_| {
        let message = message.clone();
        async move { whole(200, "application/json", message) }
    })
    .await;
    let rig = Rig::start(&provider, to_anthropic(", untranslatable: drop")).await;
    let body = r#"{"model":"claude","MARKER-a":1,"MARKER-b":{"c":2},"seed":7,"messages":[{"role":"user","content":"Hi","MARKER-c":3}]}"#;
    let (status, _, answer) = post(&rig, "/openai/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer:?}");
    let evidence = rig.stop().await;
    let said = &intent(&evidence).translation.as_ref().unwrap().dropped;
    assert_eq!((said.count, said.meaning, said.unknown, words(said).as_str()), (4, 3, 3, "seed unknown_key"));
    let lost = evidence.outcomes()[0].answer_dropped.as_ref().unwrap();
    assert_eq!((lost.count, words(lost).as_str()), (1, "server_tool"));
    for record in &evidence.records {
        let leaf = String::from_utf8(schemas::leaf::encode(record).unwrap()).unwrap();
        assert!(!leaf.contains("MARKER"), "{leaf}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_a_stream_is_no_answer() {
    for garbage in
        ["<html>\n\n", "data: {\"choices\":[\n\n", "event: message_delta\ndata: 17\n\n", "\0\u{1}\u{2}"]
    {
        let (sender, provider) = streaming().await;
        let rig = Rig::start(&provider, to_anthropic("")).await;
        sender.send(garbage).await;
        drop(sender);
        let mut response =
            rig.send(rig.post("/openai/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
        let (mut text, mut broke) = (String::new(), false);
        while let Some(piece) = next(response.body_mut()).await {
            match piece {
                Ok(piece) => text.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => {
                    broke = true;
                    break;
                }
            }
        }
        assert!(broke && text.contains("affidavit_provider_aborted"), "{garbage:?}: {text}");
        let evidence = rig.stop().await;
        let outcome = evidence.outcomes()[0];
        assert_eq!(outcome.end, End::ProviderAbort, "{garbage:?}");
        let length = |name| outcome.parts.iter().find(|part| part.part == name).unwrap().length;
        assert_eq!(length(PartName::ProviderResponse), garbage.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_caller_reads_when_to_come_back_in_its_own_dialect() {
    let error = r#"{"error":{"message":"Slow down.","type":"requests","code":"rate_limit_exceeded"}}"#;
    let provider = Provider::start(move |_| async move {
        let mut answer = whole(429, "application/json", error);
        answer.headers_mut().insert("retry-after", "17".parse().unwrap());
        answer
    })
    .await;
    let setup = Setup { route: ", dialect: anthropic".into(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let (status, headers, body) = post(&rig, "/openai/v1/messages", ASKED).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &headers["retry-after"]), (429, &"17".parse().unwrap()));
    assert_eq!(answer["error"], json!({ "type": "rate_limit_error", "message": "Slow down." }));
    let evidence = rig.stop().await;
    let answered = &evidence.outcomes()[0].answered;
    assert_eq!(answered.retry_after_s, Some(17));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_translated_whole_takes_its_room_of_the_memory_for_bodies() {
    let text = "x".repeat(2 << 20);
    let message = MESSAGE.replace("Hello.", &text);
    let provider = Provider::start(move |_| {
        let message = message.clone();
        async move { whole(200, "application/json", message) }
    })
    .await;
    for (memory, wanted) in [("4MiB", 503), ("16MiB", 200)] {
        let limits = format!("{{ body_memory: {memory}, admission: 100ms }}");
        let rig = Rig::start(&provider, Setup { limits, ..to_anthropic("") }).await;
        // It is given back: else the second and third would find none.
        for _ in 0..3 {
            let (status, headers, body) = post(&rig, "/openai/v1/chat/completions", QUESTION).await;
            assert_eq!(status, wanted, "{memory}");
            if wanted == 200 {
                assert!(body.len() > text.len());
            } else {
                assert_eq!(headers["x-affidavit-reason"], "overloaded");
            }
        }
        let evidence = rig.stop().await;
        let outcome = evidence.outcomes()[2];
        let end = if wanted == 200 { End::Complete } else { End::GatewayAbort };
        assert_eq!((outcome.end, outcome.status), (end, Some(wanted.into())));
        assert!(outcome.parts.iter().any(|part| part.part == PartName::ProviderResponse && part.length > 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_come_in_the_callers_words_and_what_is_no_answer_as_502() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for (status, kind, body, wanted, message) in [
        (529, "application/json", error, 503, "Overloaded"),
        (502, "text/html", "<html>", 502, "the provider gave no reason"),
        (200, "text/html", "<html>", 502, ""),
    ] {
        let provider = Provider::start(move |_| async move { whole(status, kind, body) }).await;
        let rig = Rig::start(&provider, to_anthropic("")).await;
        let (status, _, body) = post(&rig, "/openai/v1/chat/completions", QUESTION).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &answer["error"]["type"]), (wanted, &json!("server_error")), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
        drop(rig.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_of_another_dialect_stands_in_for_one_that_fails() {
    let failing = Provider::start(|_| async { whole(500, "application/json", "oops") }).await;
    let good = Provider::start(|_| async { whole(200, "application/json", MESSAGE) }).await;
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: claude, dialect: anthropic, base_url: \"http://{}\" }}\n",
            good.address
        ),
        more_routes: "  - name: two\n    path: /two\n    retry: { on: [5xx] }\n    targets:\n      \
             - { provider: openai }\n      - { provider: claude, priority: 1, model: claude-opus-5 }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&failing, setup).await;
    let (status, _, body) = post(&rig, "/two/v1/chat/completions", QUESTION).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")), "{answer}");
    let sent: Value = serde_json::from_slice(&good.wait(1).await.body).unwrap();
    assert_eq!(sent["model"], "claude-opus-5");
    let evidence = rig.stop().await;
    assert_eq!(intent(&evidence).translation, None, "the first target speaks as the caller does");
    let mut attempts = evidence.records.iter().filter_map(|record| match &record.body {
        Body::Attempt(it) if it.phase.as_str() == "open" => it.translation.as_ref(),
        _ => None,
    });
    let said = attempts.next().unwrap();
    assert_eq!((said.to.as_str(), words(&said.dropped).as_str()), ("anthropic", "seed"));
    let outcome = evidence.outcomes()[0];
    assert_eq!(
        (outcome.translation.as_ref(), outcome.answer_dropped.as_ref().unwrap().count),
        (Some(said), 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_target_answered_says_nothing_of_the_last_ones_translation() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let failing = Provider::start(move |_| async move { whole(529, "application/json", error) }).await;
    let setup = Setup {
        dialect: Some("anthropic"),
        more_providers: "  - { name: nowhere, dialect: openai, base_url: \"http://127.0.0.1:1\" }\n".into(),
        more_routes: "  - name: two\n    path: /two\n    dialect: openai\n    retry: { on: [5xx] }\n    targets:\n      \
             - { provider: openai }\n      - { provider: nowhere, priority: 1 }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&failing, setup).await;
    let (_, _, body) = post(&rig, "/two/v1/chat/completions", QUESTION).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["error"]["message"], "Overloaded", "{answer}");
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, &outcome.translation), (End::Unreachable, &None));
    assert_eq!(outcome.answer_dropped, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_answer_that_is_too_large_what_came_is_kept_and_its_usage_read() {
    for translates in [false, true] {
        let mut body = if translates { MESSAGE } else { COMPLETION }.to_owned();
        body.extend(std::iter::repeat_n(' ', 5000 - body.len()));
        let provider = Provider::start(move |_| {
            let body = body.clone();
            async move { whole(200, "application/json", body) }
        })
        .await;
        let setup = if translates { to_anthropic("") } else { Setup::default() };
        let rig = Rig::start(&provider, Setup { limits: "{ answer: 4KiB }".into(), ..setup }).await;
        let (status, headers, _) = post(&rig, "/openai/v1/chat/completions", QUESTION).await;
        assert_eq!((status, &headers["x-affidavit-reason"]), (502, &"answer_too_large".parse().unwrap()));
        let evidence = rig.stop().await;
        let outcome = evidence.outcomes()[0];
        assert_eq!(outcome.end, End::GatewayAbort);
        let part = outcome.parts.iter().find(|part| part.part == PartName::ProviderResponse);
        assert_eq!(part.map(|part| part.length), Some(5000), "{translates}");
        assert_eq!((outcome.usage.source, outcome.usage.output_tokens), (UsageSource::Provider, Some(3)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_reads_of_a_stream_that_is_too_large_is_what_the_outcome_lets_go() {
    for translates in [false, true] {
        let (sender, provider) = streaming().await;
        let setup = if translates { to_anthropic("") } else { Setup::default() };
        let rig = Rig::start(&provider, Setup { limits: "{ answer: 4KiB }".into(), ..setup }).await;
        let piece = if translates { DELTA.to_owned() } else { delta("Hello.") };
        tokio::spawn(async move {
            if translates {
                sender.send(BEGIN).await;
            }
            for _ in 0..200 {
                sender.send(piece.clone()).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut response =
            rig.send(rig.post("/openai/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
        let mut text = String::new();
        while let Some(Ok(piece)) = next(response.body_mut()).await {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        let last = text.rsplit("data: ").next().unwrap();
        assert!(last.contains("affidavit_answer_too_large"), "{text}");
        let evidence = rig.stop().await;
        let outcome = evidence.outcomes()[0];
        let let_go = outcome.delivered.unwrap() + outcome.released.unwrap();
        assert!(let_go >= text.len() as u64, "{translates}: {let_go} of {}", text.len());
        if translates {
            let kept = outcome.parts.iter().find(|part| part.part == PartName::ClientResponse);
            assert_eq!(kept.unwrap().length, text.len() as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_translated_whole_may_be_slow_but_neither_silent_nor_too_long() {
    for (limits, pieces_to_come, status, wanted, end) in [
        ("{ idle: 1s }", 4, 200, None, End::Complete),
        ("{ idle: 1s }", 1, 504, Some("provider_timeout"), End::Timeout),
        ("{ idle: 2s, answer_time: 1s }", 4, 504, Some("answer_too_long"), End::GatewayAbort),
    ] {
        let provider = Provider::start(move |_| async move {
            let (sender, body) = pieces();
            tokio::spawn(async move {
                for piece in MESSAGE.as_bytes().chunks(MESSAGE.len().div_ceil(4)).take(pieces_to_come) {
                    sender.send(piece).await;
                    tokio::time::sleep(Duration::from_millis(450)).await;
                }
                if pieces_to_come < 4 {
                    sender.closed().await;
                }
            });
            http::Response::builder().header("content-type", "application/json").body(body).unwrap()
        })
        .await;
        let rig = Rig::start(&provider, Setup { limits: limits.into(), ..to_anthropic("") }).await;
        let (got, headers, body) = post(&rig, "/openai/v1/chat/completions", QUESTION).await;
        assert_eq!(got, status, "{limits}: {body:?}");
        let reason = headers.get("x-affidavit-reason").and_then(|reason| reason.to_str().ok());
        assert_eq!(reason, wanted, "{limits}");
        assert_eq!(rig.stop().await.outcomes()[0].end, end, "{limits}");
    }
}

/// A route with OpenAI and Azure as its targets, for callers of `dialect`; the first one always fails.
fn siblings(dialect: &str, first: &Provider, (second, model): (&Provider, &str)) -> Setup {
    let (one, other) =
        if dialect == "openai" { ("openai", "azure_openai") } else { ("azure_openai", "openai") };
    Setup {
        more_providers: format!(
            "  - {{ name: one, dialect: {one}, base_url: \"http://{}\" }}\n  \
             - {{ name: other, dialect: {other}, base_url: \"http://{}\" }}\n",
            first.address, second.address
        ),
        more_routes: format!(
            "  - name: two\n    path: /two\n    dialect: {dialect}\n    retry: {{ on: [5xx] }}\n    targets:\n      \
             - {{ provider: one }}\n      - {{ provider: other, priority: 1{model} }}\n"
        ),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_and_azure_stand_in_for_each_other_with_the_body_as_it_was() {
    let failing = Provider::start(|_| async { whole(500, "application/json", "oops") }).await;
    let good = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let body = r#"{ "model": "gpt-4.1-mini",  "messages":[{"role":"user","content":"Hi"}], "new": [1.50] }"#;
    let deployment = r#"{ "messages":[{"role":"user","content":"Hi"}], "new": [1.50] }"#;
    let mut n = 0;
    for (dialect, path, body, model, wanted, sent) in [
        ("openai", "/v1/chat/completions", body, "", "/openai/v1/chat/completions", body.to_owned()),
        (
            "openai",
            "/v1/chat/completions",
            body,
            ", model: mine",
            "/openai/v1/chat/completions",
            body.replace("gpt-4.1-mini", "mine"),
        ),
        ("azure_openai", "/openai/v1/chat/completions", body, "", "/v1/chat/completions", body.to_owned()),
        (
            "azure_openai",
            "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
            deployment,
            "",
            "/v1/chat/completions",
            deployment.replace("{ \"messages", "{\"model\":\"mine\", \"messages"),
        ),
    ] {
        let rig = Rig::start(&failing, siblings(dialect, &failing, (&good, model))).await;
        let (status, _, answer) = post(&rig, &format!("/two{path}"), body).await;
        assert_eq!((status, &answer[..]), (200, COMPLETION.as_bytes()), "{path}");
        n += 1;
        let seen = good.wait(n).await;
        assert_eq!(seen.uri.to_string(), wanted);
        assert_eq!(String::from_utf8_lossy(&seen.body), sent, "{path}");
        let evidence = rig.stop().await;
        let outcome = evidence.outcomes()[0];
        let other = if dialect == "openai" { "azure_openai" } else { "openai" };
        assert_eq!(outcome.served.as_ref().unwrap().dialect.as_ref().unwrap().as_str(), other);
        assert_eq!((&outcome.translation, outcome.usage.input_tokens), (&None, Some(9)));
        let names: Vec<PartName> = names(&outcome.parts);
        assert!(!names.contains(&PartName::ClientResponse), "the answer passes as it is: {names:?}");
    }
}
