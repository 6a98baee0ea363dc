//! Routes with several targets: which one is asked, what it is sent, and that a caller sees no failure while one is left.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::keys::KeyRequest;
use http::{Method, Response};
use http_body_util::Full;
use schemas::record::{Attempt, Body, End, PartName, UsageRole, UsageSource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::provider::{COMPLETION, DONE, Pieces, Provider, delta, events, whole};
use crate::rig::{Evidence, Rig, Setup, issue_asked, next, read, read_bytes};

pub(crate) const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"Hi"}]}"#;
pub(crate) const STREAMED: &str =
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;

/// A provider that answers each request with these bytes, whatever they are, and then closes, or stays as it is.
pub(crate) async fn raw(bytes: &'static [u8], stays: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 8192];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(bytes).await;
                if stays {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    address
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A line of `providers`.
pub(crate) fn provider(name: &str, address: SocketAddr) -> String {
    format!("  - {{ name: {name}, dialect: openai, base_url: \"http://{address}\" }}\n")
}

pub(crate) async fn good() -> Provider {
    Provider::start(|seen| async move {
        if seen.body.windows(13).any(|word| word == b"\"stream\":true") {
            let (sender, response) = events();
            sender.send(delta("x")).await;
            sender.send(DONE).await;
            return response;
        }
        whole(200, "application/json", COMPLETION)
    })
    .await
}

pub(crate) async fn failing(status: u16, body: &'static str) -> Provider {
    Provider::start(move |_| async move { whole(status, "application/json", body) }).await
}

pub(crate) fn attempts(evidence: &Evidence) -> Vec<&Attempt> {
    let attempt = |record: &'_ schemas::record::Record| matches!(record.body, Body::Attempt(_));
    let all = evidence.records.iter().filter(|record| attempt(record));
    all.filter_map(|record| if let Body::Attempt(it) = &record.body { Some(it) } else { None }).collect()
}

pub(crate) async fn post(rig: &Rig, path: &str, body: impl Into<Bytes>) -> (u16, http::HeaderMap, Bytes) {
    read(rig.send(rig.post(path).body(Full::new(body.into())).unwrap()).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_before_the_first_byte_is_never_seen_while_a_target_is_left() {
    let good = good().await;
    let oops = failing(500, "oops").await;
    let limited = Provider::start(|_| async {
        let mut response = whole(429, "application/json", "slow down");
        response.headers_mut().insert("retry-after", "60".parse().unwrap());
        response
    })
    .await;
    let error = r#"{"error":{"message":"m","type":"server_error","code":null}}"#;
    let error_first = Provider::start(move |_| async move {
        let (sender, response) = events();
        sender.send(format!("data: {error}\n\n")).await;
        response
    })
    .await;
    let ways: Vec<(&str, SocketAddr, &str, &str)> = vec![
        ("refused", nobody().await, QUESTION, "connect"),
        ("in-head", raw(b"HTTP/1.1 200 OK\r\ncontent-ty", false).await, QUESTION, "aborted"),
        ("garbage", raw(b"\x16\x03\x01 not http at all\r\n\r\n", false).await, QUESTION, "aborted"),
        ("silent", raw(b"", true).await, QUESTION, "timeout"),
        (
            "no-body",
            raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n", false).await,
            QUESTION,
            "aborted",
        ),
        (
            "stalled",
            raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 90\r\n\r\n: wait\n\n", true).await,
            STREAMED,
            "timeout",
        ),
        (
            "no-event",
            raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 90\r\n\r\ndata: {\"id", false).await,
            STREAMED,
            "aborted",
        ),
        ("error-first", error_first.address, STREAMED, "stream_error"),
        ("oops", oops.address, QUESTION, "status"),
        ("limited", limited.address, QUESTION, "status"),
    ];
    let (mut providers, mut routes) = (provider("good", good.address), String::new());
    for (name, address, _, _) in &ways {
        providers.push_str(&provider(name, *address));
        writeln!(
            routes,
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name}, weight: 1, first_byte: 1s }}, {{ name: spare, provider: good, priority: 1 }}] }}"
        )
        .unwrap();
    }
    let setup = Setup { more_providers: providers, more_routes: routes, ..Setup::default() };
    let rig = Rig::start(&good, setup).await;
    let answers = ways.iter().map(|(name, _, asked, _)| {
        let request = rig.post(&format!("/{name}/v1/chat/completions")).body(Full::from(*asked)).unwrap();
        let address = rig.address;
        async move { read(crate::rig::send(address, request).await).await }
    });
    let answers = futures_util::future::join_all(answers).await;
    for ((name, _, asked, _), (status, headers, body)) in ways.iter().zip(&answers) {
        assert_eq!(*status, 200, "{name}: {}", String::from_utf8_lossy(body));
        let wanted = if *asked == STREAMED { format!("{}{DONE}", delta("x")) } else { COMPLETION.to_owned() };
        assert_eq!(String::from_utf8_lossy(body), wanted, "{name}");
        assert!(headers.get("x-affidavit-reason").is_none(), "{name}");
    }
    assert_eq!(good.seen().len(), ways.len(), "each was answered by the spare target, once");
    let evidence = rig.stop().await;
    let outcomes = evidence.outcomes();
    assert_eq!(outcomes.len(), ways.len());
    assert!(
        outcomes.iter().all(|outcome| outcome.end == End::Complete && outcome.provider_status == Some(200))
    );
    let attempts = attempts(&evidence);
    for (name, _, _, why) in &ways {
        let intent = evidence
            .records
            .iter()
            .find_map(|record| match &record.body {
                Body::Intent(intent) if intent.asked.route.as_ref().unwrap().as_str() == *name => {
                    Some(intent)
                }
                _ => None,
            })
            .unwrap();
        assert_eq!(intent.asked.target.as_ref().unwrap().as_str(), *name);
        assert_eq!(intent.asked.provider.as_ref().unwrap().as_str(), *name);
        let of: Vec<_> = attempts
            .iter()
            .filter(|attempt| attempt.exchange == intent.exchange)
            .map(|attempt| {
                (attempt.number, attempt.phase.as_str(), attempt.target.as_str(), attempt.reason.as_str())
            })
            .collect();
        assert_eq!(of[0], (0, "end", *name, *why), "{name}");
        assert_eq!(of[1], (1, "open", "spare", "fallback"), "{name}");
        let ended = attempts.iter().find(|attempt| attempt.exchange == intent.exchange).unwrap();
        assert_eq!(ended.provider.as_ref().unwrap().as_str(), *name);
        // Of what was not answered nobody knows what it used, unless nothing was sent.
        let usage = ended.usage.as_ref().unwrap();
        match *name {
            "refused" => assert_eq!(usage.role, UsageRole::None),
            "in-head" | "garbage" | "silent" => {
                assert_eq!((usage.source, usage.role), (UsageSource::Unknown, UsageRole::Incurred), "{name}");
            }
            _ => {}
        }
        let kept: Vec<_> = ended.parts.iter().map(|part| (part.part.as_str(), part.length > 0)).collect();
        let wanted: &[_] = match *name {
            "error-first" | "oops" | "limited" | "no-event" => &[("attempt_response_0", true)],
            "no-body" => &[("attempt_response_0", false)],
            "stalled" => &[("attempt_response_0", true)],
            _ => &[],
        };
        assert_eq!(kept, wanted, "{name}");
        let outcome = outcomes.iter().find(|outcome| outcome.exchange == intent.exchange).unwrap();
        let served = outcome.served.as_ref().unwrap();
        assert_eq!((served.number, served.target.as_str()), (1, "spare"));
        assert_eq!(served.provider.as_ref().unwrap().as_str(), "good");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_first_byte_nothing_is_asked_again() {
    let spare = good().await;
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let cut = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let setup = Setup {
        more_providers: provider("cut", cut.address) + &provider("spare", spare.address),
        more_routes: "  - { name: r, path: /r, targets: [{ provider: cut }, { provider: spare, priority: 1 }], retry: { attempts: 5 } }\n".into(),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let event = delta("x");
    sender.send(event.clone()).await;
    let mut response = rig.send(rig.post("/r/v1/chat/completions").body(Full::from(STREAMED)).unwrap()).await;
    assert_eq!(read_bytes(response.body_mut(), event.len()).await, event.as_bytes());
    sender.cut().await;
    assert!(next(response.body_mut()).await.unwrap().is_err(), "the caller sees the cut");
    assert!(spare.seen().is_empty());
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].end, End::ProviderAbort);
    assert!(attempts(&evidence).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_fail_the_caller_gets_the_last_answer_as_it_came() {
    let (one, two) = (failing(500, "one").await, failing(503, "two").await);
    let setup = Setup {
        more_providers: provider("one", one.address)
            + &provider("two", two.address)
            + &provider("gone", nobody().await),
        more_routes: "  - { name: both, path: /both, targets: [{ provider: one }, { provider: two, priority: 1 }] }\n  \
  - { name: gone, path: /gone, targets: [{ provider: one }, { provider: gone, priority: 1 }] }\n  \
  - { name: none, path: /none, targets: [{ provider: gone }, { name: too, provider: gone, priority: 1 }] }\n  \
  - { name: poor, path: /poor, targets: [{ provider: one }, { provider: two, priority: 1 }], retry: { attempts: 2, budget: 0% } }\n  \
  - { name: picky, path: /picky, targets: [{ provider: one }, { provider: two, priority: 1 }], retry: { attempts: 2, on: [connect, 503] } }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&one, setup).await;
    for (route, status, body) in
        [("both", 503, "two"), ("gone", 500, "one"), ("poor", 503, "two"), ("picky", 500, "one")]
    {
        let got = post(&rig, &format!("/{route}/v1/chat/completions"), QUESTION).await;
        assert_eq!((got.0, &got.2[..]), (status, body.as_bytes()), "{route}");
        assert_eq!(got.1["x-request-id"], "req_test_1");
        assert!(got.1.contains_key("x-affidavit-exchange"));
    }
    let (status, headers, _) = post(&rig, "/none/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &headers["x-affidavit-reason"]), (502, &"provider_unreachable".parse().unwrap()));
    assert_eq!(two.seen().len(), 2, "another target needs no budget");
    let evidence = rig.stop().await;
    let ends: Vec<_> = evidence.outcomes().iter().map(|outcome| (outcome.end, outcome.status)).collect();
    assert_eq!(
        ends,
        [
            (End::Complete, Some(503)),
            (End::Unreachable, Some(500)),
            (End::Complete, Some(503)),
            (End::Complete, Some(500)),
            (End::Unreachable, Some(502))
        ]
    );
    let kept =
        evidence.outcomes()[1].parts.iter().find(|part| part.part == PartName::ClientResponse).unwrap();
    assert_eq!(kept.length, 3, "what the caller got is content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_target_is_sent_its_own_and_what_is_not_changed_goes_as_it_came() {
    let (one, two) = (failing(500, "one").await, good().await);
    let setup = Setup {
        more_providers: provider("one", one.address) + &provider("two", two.address),
        more_routes: "  - name: r\n    path: /r\n    models: { fast: gpt-4.1-mini }\n    server_timing: true\n    targets:\n      \
      - { provider: one, models: { gpt-4.1-mini: vendor/mini }, parameters: { defaults: { temperature: 0.5, top_p: 1 }, forced: { user: none } }, headers: { set: { x-team: hr }, remove: [x-debug] } }\n      \
      - { provider: two, priority: 1 }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&one, setup).await;
    let asked = r#"{ "model": "fast", "temperature": 0.70, "user":"ana","messages":[] }"#;
    let request = rig.post("/r/v1/chat/completions").header("x-debug", "1").body(Full::from(asked)).unwrap();
    let (status, headers, _) = read(rig.send(request).await).await;
    assert_eq!(status, 200);
    let timing = headers["server-timing"].to_str().unwrap();
    assert!(
        ["auth;dur=", "commit;dur=", "provider;dur="].iter().all(|part| timing.contains(part)),
        "{timing}"
    );
    let first = &one.seen()[0];
    assert_eq!(
        std::str::from_utf8(&first.body).unwrap(),
        r#"{"top_p":1, "model": "vendor/mini", "temperature": 0.70, "user":"none","messages":[] }"#
    );
    assert_eq!((first.headers["x-team"].to_str().unwrap(), first.headers.get("x-debug")), ("hr", None));
    let second = &two.seen()[0];
    assert_eq!(
        std::str::from_utf8(&second.body).unwrap(),
        r#"{ "model": "gpt-4.1-mini", "temperature": 0.70, "user":"ana","messages":[] }"#
    );
    assert!(second.headers.contains_key("x-debug") && !second.headers.contains_key("x-team"));
    // A body that cannot be read in one way only is not sent where it must be changed.
    let twice = r#"{"model":"fast","model":"gpt-5","messages":[]}"#;
    let (status, headers, _) = post(&rig, "/r/v1/chat/completions", twice).await;
    assert_eq!((status, &headers["x-affidavit-reason"]), (400, &"malformed_body".parse().unwrap()));
    let evidence = rig.stop().await;
    let intent = evidence
        .records
        .iter()
        .find_map(|record| if let Body::Intent(intent) = &record.body { Some(intent) } else { None })
        .unwrap();
    assert_eq!(intent.asked.requested_model.as_ref().unwrap().as_str(), "fast", "as the caller named it");
    let length = |part| intent.parts.iter().find(|found| found.part == part).map(|found| found.length);
    assert_eq!(length(PartName::ClientRequest), Some(asked.len() as u64));
    assert_eq!(length(PartName::ProviderRequest), Some(first.body.len() as u64));
    assert_eq!(intent.asked.sent_model.as_ref().unwrap().as_str(), "vendor/mini");
    let opened = attempts(&evidence)[1];
    let sent: Vec<_> = opened.parts.iter().map(|part| (part.part.as_str(), part.length)).collect();
    assert_eq!(sent, [("attempt_request_1", second.body.len() as u64)]);
    assert_eq!(opened.model.as_ref().unwrap().as_str(), "gpt-4.1-mini");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_by_the_first_route_that_fits_it() {
    let provider = good().await;
    let own = |name: &str, rest: &str| {
        format!(
            "  - {{ name: {name}, path: /r, {rest} targets: [{{ provider: openai, headers: {{ set: {{ x-route: {name} }} }} }}] }}\n"
        )
    };
    let routes = [
        ("host", "match: { hosts: [special.test] },"),
        ("header", "match: { headers: { x-tier: [gold] } },"),
        ("nobody", "match: { consumers: [other] },"),
        ("embeds", "match: { operations: ['embeddings.*'] },"),
        ("model", "match: { models: ['o3*'] },"),
        ("images", "match: { images: true },"),
        ("tools", "match: { tools: true },"),
        ("content", "match: { content: '(?i)\\binvoice\\b' },"),
        ("large", "match: { body: { at_least: 1MiB } }, keep_content: false,"),
        ("rest", ""),
    ];
    let setup = Setup {
        more_routes: routes.iter().map(|(name, rest)| own(name, rest)).collect(),
        ..Setup::default()
    };
    let rig = Rig::start(&provider, setup).await;
    let large = format!(r#"{{"model":"m","messages":[{{"content":"{}"}}]}}"#, "a".repeat(2 << 20));
    let cases: [(&str, &str, &str, &[(&str, &str)]); 9] = [
        ("header", "chat/completions", QUESTION, &[("x-tier", "gold")]),
        ("embeds", "embeddings", r#"{"model":"m","input":"a"}"#, &[]),
        ("model", "chat/completions", r#"{"model":"o3-mini","messages":[]}"#, &[]),
        (
            "images",
            "chat/completions",
            r#"{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
            &[],
        ),
        ("tools", "chat/completions", r#"{"model":"m","tools":[{}],"messages":[]}"#, &[]),
        ("content", "chat/completions", r#"{"model":"m","messages":[{"content":"the Invoice"}]}"#, &[]),
        ("large", "chat/completions", &large, &[]),
        ("rest", "chat/completions", QUESTION, &[("x-tier", "silver")]),
        ("rest", "chat/completions", r#"{"model":"invoice","messages":[]}"#, &[]),
    ];
    for (number, (route, path, body, headers)) in cases.iter().enumerate() {
        let mut request = rig.post(&format!("/r/v1/{path}"));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from((*body).to_owned())).unwrap();
        assert_eq!(read(rig.send(request).await).await.0, 200, "{route}");
        assert_eq!(provider.wait(number + 1).await.headers["x-route"], *route, "{number}");
    }
    let evidence = rig.stop().await;
    let routes: Vec<_> =
        evidence.outcomes().iter().map(|outcome| outcome.asked.route.as_ref().unwrap().as_str()).collect();
    assert_eq!(routes, cases.map(|(route, ..)| route));
    let large = evidence.outcomes()[6];
    assert!(large.parts.iter().all(|part| part.kept == Some(false)), "the route that takes it keeps none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_by_the_route_for_its_host_its_caller_or_its_stream() {
    let provider = good().await;
    let routes = [
        ("host", "match: { hosts: [special.test, '*.special.test'] },"),
        ("consumer", "match: { consumers: ['payroll-*'] },"),
        ("team", "match: { teams: [finance] },"),
        ("organisation", "match: { organisations: [north] },"),
        ("group", "match: { groups: ['staff-*', '!staff-extern'] },"),
        ("stream", "match: { stream: true },"),
        ("whole", "match: { stream: false, models: [asked-whole] },"),
        // What a route adds plays no part.
        ("rest", "attributes: { organisation: north },"),
    ];
    let route = |(name, rest): &(&str, &str)| {
        format!(
            "  - {{ name: {name}, path: /r, {rest} targets: [{{ provider: openai, headers: {{ set: {{ x-route: {name} }} }} }}] }}\n"
        )
    };
    let setup = Setup { more_routes: routes.iter().map(route).collect(), ..Setup::default() };
    let rig = Rig::start(&provider, setup).await;
    let name = |text: &str| schemas::Identifier::new(text).unwrap();
    let issue = |request: KeyRequest| issue_asked(&rig.dir.path().join("keys.yaml"), request);
    let of = |consumer: &str| KeyRequest { consumer: Some(name(consumer)), ..KeyRequest::default() };
    let payroll = issue(of("payroll-bot"));
    let finance = issue(KeyRequest { team: Some(name("finance")), ..of("ledger") });
    let north = issue(KeyRequest { organisation: Some(name("north")), ..of("sales") });
    let staff = issue(KeyRequest { groups: vec![name("others"), name("staff-hr")], ..of("hr") });
    let guest = issue(KeyRequest { groups: vec![name("staff-hr"), name("staff-extern")], ..of("guest") });
    let ask = async |key: &str, host: &str, body: &'static str| {
        let request = http::Request::post("/r/v1/chat/completions")
            .header("host", host)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        read(rig.send(request.body(Full::from(body)).unwrap()).await).await.0
    };
    // The keys file is read again while the gateway runs.
    for _ in 0..200 {
        if ask(&guest, "g", QUESTION).await == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = provider.seen().len();
    let asked_whole = r#"{"model":"asked-whole","messages":[]}"#;
    let cases: [(&str, &str, &str, &'static str); 11] = [
        ("host", &rig.key, "SPECIAL.test:8443", QUESTION),
        ("host", &payroll, "eu.special.test", QUESTION),
        ("rest", &rig.key, "special.test.other", QUESTION),
        ("consumer", &payroll, "g", QUESTION),
        ("team", &finance, "g", QUESTION),
        ("organisation", &north, "g", QUESTION),
        ("group", &staff, "g", QUESTION),
        ("rest", &guest, "g", QUESTION),
        ("stream", &rig.key, "g", STREAMED),
        ("whole", &rig.key, "g", asked_whole),
        ("rest", &rig.key, "g", QUESTION),
    ];
    for (number, (route, key, host, body)) in cases.into_iter().enumerate() {
        assert_eq!(ask(key, host, body).await, 200, "{route}");
        assert_eq!(provider.wait(seen + number + 1).await.headers["x-route"], route, "{number}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_the_policy_refuses_is_never_asked() {
    let (first, second) = (failing(500, "first").await, good().await);
    let policy =
        "mode: enforce\ndefault: allow\nrules:\n  - { id: none, effect: deny, providers: [second] }\n";
    let setup = Setup {
        policy: Some(policy.into()),
        more_providers: provider("first", first.address) + &provider("second", second.address),
        more_routes: "  - { name: r, path: /r, targets: [{ provider: second }, { provider: first, priority: 1 }], retry: { attempts: 4 } }\n  \
  - { name: none, path: /none, targets: [{ provider: second }] }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&first, setup).await;
    let (status, _, body) = post(&rig, "/r/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &body[..]), (500, &b"first"[..]));
    let (status, headers, _) = post(&rig, "/none/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &headers["x-affidavit-reason"]), (403, &"policy_denied".parse().unwrap()));
    assert!(second.seen().is_empty());
    assert_eq!(first.seen().len(), 4, "the same one is asked again");
    let evidence = rig.stop().await;
    assert_eq!(evidence.outcomes()[0].asked.provider.as_ref().unwrap().as_str(), "first");
    assert_eq!(evidence.refusals()[0].asked.as_ref().unwrap().provider.as_ref().unwrap().as_str(), "second");
    let reasons: Vec<_> = attempts(&evidence).iter().map(|attempt| attempt.reason.as_str()).collect();
    assert_eq!(reasons, ["status", "retry", "status", "retry", "status", "retry"]);
}

/// Fails as often as told, then answers.
async fn recovering(times: usize, retry_after: &'static str) -> Provider {
    let left = std::sync::atomic::AtomicUsize::new(times);
    Provider::start(move |_| {
        let fails = left
            .fetch_update(std::sync::atomic::Ordering::Relaxed, std::sync::atomic::Ordering::Relaxed, |n| {
                n.checked_sub(1)
            })
            .is_ok();
        async move {
            if !fails {
                return whole(200, "application/json", COMPLETION);
            }
            let mut response: Response<Pieces> = whole(429, "application/json", "later");
            response.headers_mut().insert("retry-after", retry_after.parse().unwrap());
            response
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_retry_after_is_waited_for_and_a_long_one_goes_to_the_caller() {
    let (short, long) = (recovering(1, "1").await, recovering(1, "30").await);
    let once = |name: &str| {
        format!("  - {{ name: {name}, path: /{name}, provider: {name}, retry: {{ attempts: 2 }} }}\n")
    };
    let setup = Setup {
        more_providers: provider("short", short.address) + &provider("long", long.address),
        more_routes: once("short") + &once("long"),
        ..Setup::default()
    };
    let rig = Rig::start(&short, setup).await;
    let began = Instant::now();
    assert_eq!(post(&rig, "/short/v1/chat/completions", QUESTION).await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let (status, headers, body) = post(&rig, "/long/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &body[..], &headers["retry-after"]), (429, &b"later"[..], &"30".parse().unwrap()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_more_than_tokens_is_not_sent_again_where_it_may_have_arrived() {
    let (bad, spare) = (failing(500, "bad").await, good().await);
    let setup = Setup {
        more_providers: provider("bad", bad.address)
            + &provider("spare", spare.address)
            + &provider("gone", nobody().await),
        more_routes:
            "  - { name: r, path: /r, targets: [{ provider: bad }, { provider: spare, priority: 1 }] }\n  \
  - { name: g, path: /g, targets: [{ provider: gone }, { provider: spare, priority: 1 }] }\n"
                .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&bad, setup).await;
    assert_eq!(post(&rig, "/r/v1/batches", "{}").await.0, 500);
    assert!(spare.seen().is_empty());
    assert_eq!(post(&rig, "/g/v1/batches", "{}").await.0, 200, "nothing of it had been sent");
    let list = rig.post("/r/v1/models").method(Method::GET).body(Full::default()).unwrap();
    assert_eq!(read(rig.send(list).await).await.0, 200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_error_says_counts_where_the_route_asks_for_it() {
    let long = r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    let (small, big) = (failing(400, long).await, good().await);
    let route = |name: &str, on: &str| {
        format!(
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: small }}, {{ provider: big, priority: 1 }}], retry: {{ attempts: 2, on: [{on}] }} }}\n"
        )
    };
    let setup = Setup {
        more_providers: provider("small", small.address) + &provider("big", big.address),
        more_routes: route("a", "context_window") + &route("b", "content_filter"),
        ..Setup::default()
    };
    let rig = Rig::start(&small, setup).await;
    assert_eq!(post(&rig, "/a/v1/chat/completions", QUESTION).await.0, 200);
    let (status, _, body) = post(&rig, "/b/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &body[..]), (400, long.as_bytes()), "read for what it says, and passed on whole");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_does_not_lead_past_the_policy_and_each_attempt_has_its_verdict() {
    let (first, second) = (failing(500, "first").await, good().await);
    let policy =
        "mode: enforce\ndefault: allow\nrules:\n  - { id: none, effect: deny, models: ['vendor-*'] }\n";
    let setup = Setup {
        policy: Some(policy.into()),
        more_providers: provider("first", first.address) + &provider("second", second.address),
        more_routes: "  - { name: a, path: /a, provider: second, models: { gpt-4.1-mini: vendor-x } }\n  \
  - { name: b, path: /b, targets: [{ provider: first }, { name: no, provider: second, model: vendor-y, priority: 1 }, { name: yes, provider: second, priority: 2 }] }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&first, setup).await;
    let (status, headers, _) = post(&rig, "/a/v1/chat/completions", QUESTION).await;
    assert_eq!((status, &headers["x-affidavit-reason"]), (403, &"policy_denied".parse().unwrap()));
    assert_eq!(post(&rig, "/b/v1/chat/completions", QUESTION).await.0, 200);
    let evidence = rig.stop().await;
    let refusal = evidence.refusals()[0];
    let facts = &refusal.verdict.as_ref().unwrap().facts;
    assert_eq!((facts["judged_model"].as_str(), facts["decided_by"].as_str()), ("sent_model", "none"));
    let asked = refusal.asked.as_ref().unwrap();
    assert_eq!(asked.sent_model.as_ref().unwrap().as_str(), "vendor-x");
    let attempts = attempts(&evidence);
    let told: Vec<_> = attempts.iter().map(|it| (it.target.as_str(), it.verdict.is_some())).collect();
    assert_eq!(told, [("first", false), ("yes", true)], "the verdict stands where bytes begin to go");
    assert_eq!(attempts[1].verdict.as_ref().unwrap().decision, schemas::record::Decision::Allow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_answer_that_is_not_read_to_its_end_is_told_as_such() {
    let long = Provider::start(|_| async { whole(500, "text/plain", vec![b'x'; 2 << 20]) }).await;
    let good = good().await;
    let setup = Setup {
        more_providers: provider("long", long.address) + &provider("good", good.address),
        more_routes:
            "  - { name: r, path: /r, targets: [{ provider: long }, { provider: good, priority: 1 }] }\n"
                .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    assert_eq!(post(&rig, "/r/v1/chat/completions", QUESTION).await.0, 200);
    let evidence = rig.stop().await;
    let ended = attempts(&evidence)[0];
    assert_eq!((ended.end, ended.status), (Some(End::GatewayAbort), Some(500)));
    let kept = ended.parts[0].length;
    assert!((256 << 10..2 << 20).contains(&kept), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_own_credential_that_is_refused_cools_no_key_of_the_gateway() {
    let provider = failing(401, "{}").await;
    let setup = Setup {
        more_routes: "  - { name: own, path: /own, provider: openai, credentials: forward }\n".into(),
        ..Setup::default()
    };
    let rig = Rig::start(&provider, setup).await;
    let cooled = |metrics: &str| {
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.contains("key_cool_downs_total") && line.contains("refused"));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    let request = http::Request::post("/own/v1/chat/completions")
        .header("host", "gateway")
        .header("authorization", "Bearer sk-of-the-caller")
        .header("x-affidavit-key", &rig.key)
        .header("content-type", "application/json");
    let answer = read(rig.send(request.body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!(answer.0, 401);
    assert_eq!(provider.seen()[0].headers["authorization"], "Bearer sk-of-the-caller");
    assert_eq!(cooled(&rig.metrics().await).as_deref(), Some("0"));
    assert_eq!(post(&rig, "/openai/v1/chat/completions", QUESTION).await.0, 401);
    assert_eq!(cooled(&rig.metrics().await).as_deref(), Some("1"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_signature_for_aws_is_not_forwarded_and_its_key_for_bedrock_is() {
    let provider = Provider::start(|_| async { whole(200, "application/json", "{}") }).await;
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: bedrock, dialect: bedrock, base_url: 'http://{}' }}\n",
            provider.address
        ),
        more_routes: "  - { name: own, path: /own, provider: bedrock, credentials: forward }\n".into(),
        ..Setup::default()
    };
    let rig = Rig::start(&provider, setup).await;
    let ask = async |credential: &str| {
        let request = http::Request::post("/own/model/m/converse")
            .header("host", "gateway")
            .header("authorization", credential)
            .header("x-affidavit-key", &rig.key)
            .header("content-type", "application/json");
        let asked = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#;
        read(rig.send(request.body(Full::from(asked)).unwrap()).await).await
    };
    let (status, headers, _) = ask(
        "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00",
    )
    .await;
    assert_eq!((status, &headers["x-affidavit-reason"]), (401, &"missing_credential".parse().unwrap()));
    assert!(provider.seen().is_empty());
    assert_eq!(ask("Bearer bedrock-api-key-of-the-caller").await.0, 200);
    assert_eq!(provider.seen()[0].headers["authorization"], "Bearer bedrock-api-key-of-the-caller");
    rig.stop().await;
}
