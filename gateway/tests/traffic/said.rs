//! Answers of 200 that are no stream and say a failure: another target is asked where the route says so.

use std::time::Duration;

use http_body_util::Full;
use schemas::record::{End, PartName};

use crate::provider::{COMPLETION, Provider, pieces, whole};
use crate::rig::{Rig, Setup, next, read};
use crate::routes::{QUESTION, attempts, good, post, provider, raw};
use crate::translated::MESSAGE;

const ERROR: &str = r#"{"error":{"message":"Provider returned error","code":502},"user_id":"u"}"#;
const TOO_LONG: &str =
    r#"{"error":{"message":"This endpoint's maximum context length is 8192 tokens.","code":400}}"#;
const FILTERED: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Some"},"finish_reason":"content_filter"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#;
const BLOCKED: &str = r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"g"}"#;
const GUARDED: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Sorry."}]}},"stopReason":"guardrail_intervened","usage":{"inputTokens":3,"outputTokens":2,"totalTokens":5},"metrics":{"latencyMs":1}}"#;
const GENERATE: &str = r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}"#;
const CONVERSE: &str = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#;

async fn saying(body: &'static str) -> Provider {
    Provider::start(move |_| async move { whole(200, "application/json", body) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_of_200_that_says_failure_is_not_seen_while_a_target_is_left() {
    const CHAT: &str = "/v1/chat/completions";
    let cases = [
        ("error", "openai", CHAT, QUESTION, ERROR, "5xx", "answer_error"),
        ("long", "openai", CHAT, QUESTION, TOO_LONG, "context_window", "context_window"),
        ("filtered", "openai", CHAT, QUESTION, FILTERED, "content_filter", "content_filter"),
        (
            "blocked",
            "gemini",
            "/v1beta/models/g:generateContent",
            GENERATE,
            BLOCKED,
            "content_filter",
            "content_filter",
        ),
        ("guarded", "bedrock", "/model/m/converse", CONVERSE, GUARDED, "content_filter", "content_filter"),
    ];
    let spare = saying(COMPLETION).await;
    let mut setup = Setup::default();
    let mut first = Vec::new();
    for (name, dialect, _, _, body, on, _) in cases {
        let bad = saying(body).await;
        for (name, address) in [(name.to_owned(), bad.address), (format!("{name}-2"), spare.address)] {
            setup.more_providers +=
                &format!("  - {{ name: {name}, dialect: {dialect}, base_url: 'http://{address}' }}\n");
        }
        let targets = format!("targets: [{{ provider: {name} }}, {{ provider: {name}-2, priority: 1 }}]");
        setup.more_routes += &format!(
            "  - {{ name: {name}, path: /{name}, {targets}, estimate: off, retry: {{ attempts: 2, on: [{on}] }} }}\n  \
- {{ name: {name}-not, path: /{name}-not, {targets}, estimate: off, retry: {{ attempts: 2, on: [connect] }} }}\n  \
- {{ name: {name}-one, path: /{name}-one, provider: {name}, estimate: off }}\n"
        );
        first.push(bad);
    }
    let rig = Rig::start(&spare, setup).await;
    for (name, _, path, asked, body, _, _) in cases {
        let (status, _, answer) = post(&rig, &format!("/{name}{path}"), asked).await;
        assert_eq!((status, String::from_utf8_lossy(&answer).as_ref()), (200, COMPLETION), "{name}");
        for route in ["not", "one"] {
            let (status, headers, answer) = post(&rig, &format!("/{name}-{route}{path}"), asked).await;
            assert_eq!((status, String::from_utf8_lossy(&answer).as_ref()), (200, body), "{name}-{route}");
            assert!(headers.get("x-affidavit-reason").is_none(), "{name}");
        }
    }
    assert_eq!(spare.seen().len(), cases.len(), "each was answered by the second target, once");
    let evidence = rig.stop().await;
    let attempts = attempts(&evidence);
    let ended: Vec<_> = attempts.iter().filter(|attempt| attempt.phase.as_str() == "end").collect();
    let words: Vec<_> = ended.iter().map(|attempt| attempt.reason.as_str()).collect();
    assert_eq!(words, cases.map(|(_, _, _, _, _, _, word)| word));
    for (attempt, (name, _, _, _, body, _, _)) in ended.iter().zip(cases) {
        assert_eq!((attempt.status, attempt.end), (Some(200), Some(End::Complete)), "{name}");
        assert_eq!(attempt.parts[0].length, body.len() as u64, "{name}: what it said is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_403_that_a_body_tells_leaves_no_key_alone_and_a_401_does() {
    const FLAGGED: &str = r#"{"error":{"message":"The input was flagged by moderation.","code":403}}"#;
    const NO_KEY: &str = r#"{"error":{"message":"No such key.","code":401}}"#;
    let spare = good().await;
    let mut setup = Setup { more_providers: provider("spare", spare.address), ..Setup::default() };
    let mut asked = Vec::new();
    for (name, body) in [("flagged", FLAGGED), ("no-key", NO_KEY)] {
        let bad = saying(body).await;
        setup.more_providers += &provider(name, bad.address);
        setup.more_routes += &format!(
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name} }}, {{ provider: spare, priority: 1 }}], retry: {{ attempts: 2, on: [403, key_refused] }} }}\n"
        );
        asked.push(bad);
    }
    let rig = Rig::start(&spare, setup).await;
    for name in ["flagged", "no-key"].repeat(2) {
        let (status, _, answer) = post(&rig, &format!("/{name}/v1/chat/completions"), QUESTION).await;
        assert_eq!((status, String::from_utf8_lossy(&answer).as_ref()), (200, COMPLETION), "{name}");
    }
    let times: Vec<usize> = asked.iter().map(|provider| provider.seen().len()).collect();
    assert_eq!(times, [2, 1], "only what can be said of nothing but the key keeps others from its target");
    rig.stop().await;
}

/// Sends these pieces of a JSON answer, each a while behind the one before.
async fn trickling(pieces_of: [&'static str; 2], wait: Duration) -> Provider {
    Provider::start(move |_| async move {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            for (number, piece) in pieces_of.into_iter().enumerate() {
                if number > 0 {
                    tokio::time::sleep(wait).await;
                }
                sender.send(piece).await;
            }
        });
        http::Response::builder().header("content-type", "application/json").body(body).unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_waited_for_only_where_another_target_could_give_a_better_one() {
    let (start, end) = ERROR.split_at(30);
    let slow = trickling([start, end], Duration::from_millis(400)).await;
    let spare = good().await;
    let targets = "targets: [{ provider: slow }, { provider: spare, priority: 1 }]";
    let setup = Setup {
        more_providers: provider("slow", slow.address) + &provider("spare", spare.address),
        more_routes: format!(
            "  - {{ name: held, path: /held, {targets}, retry: {{ attempts: 2, on: [5xx, quota] }} }}\n  \
- {{ name: passed, path: /passed, {targets}, retry: {{ attempts: 2, on: [5xx] }} }}\n  \
- {{ name: again, path: /again, provider: slow, retry: {{ attempts: 2, on: [5xx, quota] }} }}\n"
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&slow, setup).await;
    let (status, _, answer) = post(&rig, "/held/v1/chat/completions", QUESTION).await;
    assert_eq!((status, String::from_utf8_lossy(&answer).as_ref()), (200, COMPLETION));
    for route in ["passed", "again"] {
        let request = rig.post(&format!("/{route}/v1/chat/completions")).body(Full::from(QUESTION)).unwrap();
        let (head, mut body) = rig.send(request).await.into_parts();
        assert_eq!(head.status, 200);
        let first = next(&mut body).await.unwrap().unwrap();
        assert_eq!(first, start.as_bytes(), "{route}: it goes as it comes");
        let mut all = first.to_vec();
        while let Some(piece) = next(&mut body).await {
            all.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&all), ERROR, "{route}");
    }
    assert_eq!(spare.seen().len(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_to_be_held_or_breaks_off_is_no_worse_than_before() {
    let long = Provider::start(|_| async {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            for _ in 0..40 {
                sender.send(vec![b' '; 64 << 10]).await;
            }
            sender.send(ERROR).await;
        });
        http::Response::builder().header("content-type", "application/json").body(body).unwrap()
    })
    .await;
    let broken = Provider::start(|_| async {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            sender.send("{\"id\":").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.cut().await;
        });
        http::Response::builder().header("content-type", "application/json").body(body).unwrap()
    })
    .await;
    let spare = good().await;
    let route = |name: &str| {
        format!(
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name} }}, {{ provider: spare, priority: 1 }}] }}\n"
        )
    };
    let setup = Setup {
        more_providers: provider("long", long.address)
            + &provider("broken", broken.address)
            + &provider("spare", spare.address),
        more_routes: route("long") + &route("broken"),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let (status, _, answer) = post(&rig, "/long/v1/chat/completions", QUESTION).await;
    assert_eq!((status, answer.len()), (200, (40 << 16) + ERROR.len()), "what is not held goes on");
    let request = rig.post("/broken/v1/chat/completions").body(Full::from(QUESTION)).unwrap();
    let (status, _, answer) = read(rig.send(request).await).await;
    assert_eq!(
        (status, &answer[..]),
        (200, COMPLETION.as_bytes()),
        "what breaks off while it is held is none"
    );
    let evidence = rig.stop().await;
    let kept =
        evidence.outcomes()[0].parts.iter().find(|part| part.part == PartName::ProviderResponse).unwrap();
    assert_eq!(kept.length, (40 << 16) + ERROR.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_held_to_its_trailers_goes_in_one_write() {
    let body = format!("{COMPLETION}{}", " ".repeat(300 << 10));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-sum: 1\r\n\r\n",
        body.len()
    );
    let (spare, address) = (good().await, raw(answer.leak().as_bytes(), true).await);
    let setup = Setup {
        more_providers: provider("long", address) + &provider("spare", spare.address),
        more_routes: "  - { name: long, path: /long, targets: [{ provider: long }, { provider: spare, priority: 1 }] }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let (status, _, answer) = post(&rig, "/long/v1/chat/completions", QUESTION).await;
    assert_eq!((status, answer.len()), (200, body.len()));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.delivered, outcome.released), (Some(0), Some(body.len() as u64)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_byte_is_the_providers_however_long_it_is_held() {
    const WAIT: Duration = Duration::from_millis(900);
    let halves = |whole: &'static str| -> [&'static str; 2] { whole.split_at(whole.len() / 2).into() };
    let openai = trickling(halves(COMPLETION), WAIT).await;
    let claude = trickling(halves(MESSAGE), WAIT).await;
    let two = |name: &str| {
        format!("targets: [{{ provider: {name} }}, {{ name: spare, provider: {name}, priority: 1 }}]")
    };
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: claude, dialect: anthropic, base_url: 'http://{}' }}\n",
            claude.address
        ),
        more_routes: format!(
            "  - {{ name: judged, path: /judged, {} }}\n  \
- {{ name: translated, path: /translated, dialect: openai, provider: claude }}\n  \
- {{ name: both, path: /both, dialect: openai, {} }}\n",
            two("openai"),
            two("claude")
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&openai, setup).await;
    for route in ["judged", "translated", "both"] {
        assert_eq!(post(&rig, &format!("/{route}/v1/chat/completions"), QUESTION).await.0, 200, "{route}");
    }
    let evidence = rig.stop().await;
    for outcome in evidence.outcomes() {
        let (first, total) = (outcome.timing.first_byte_us.unwrap(), outcome.timing.total_us.unwrap());
        let behind = Duration::from_micros(u64::try_from(total - first).unwrap());
        assert!(behind > WAIT / 2, "{:?}: {first} of {total}", outcome.asked.route);
    }
}
