//! What leads a request on to another target beyond plain failures: a key that is refused, an answer that cannot be passed on;
//! and what each attempt costs its caller.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use schemas::record::{End, PartName, UsageSource};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::balanced::{CHAT, Mood, ask, is_whole, outcomes_of, told, value};
use crate::provider::{COMPLETION, DONE, Provider, delta, events, pieces, whole};
use crate::rig::{Rig, Setup, read};
use crate::routes::{QUESTION, attempts, failing, good, post, provider};
use crate::translated::MESSAGE;

const STREAMED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}"#;

/// A line of `providers` that speaks Anthropic's dialect.
fn claude(name: &str, it: &Provider) -> String {
    format!("  - {{ name: {name}, dialect: anthropic, base_url: \"http://{}\" }}\n", it.address)
}

/// A route for callers of OpenAI's dialect to `targets`.
fn route(name: &str, targets: &str, rest: &str) -> String {
    format!("  - {{ name: {name}, path: /{name}, dialect: openai, targets: [{targets}]{rest} }}\n")
}

/// One that a provider answers first, and `good` where that fails.
fn with_spare(name: &str, rest: &str) -> String {
    route(name, &format!("{{ provider: {name}{rest} }}, {{ name: spare, provider: good, priority: 1 }}"), "")
}

/// An answer in Anthropic's dialect, whole, of so many bytes.
fn long_message() -> String {
    let mut body = MESSAGE.to_owned();
    body.extend(std::iter::repeat_n(' ', 5000 - body.len()));
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_of_the_gateway_leads_to_the_next_target_and_a_callers_own_does_not() {
    let good = good().await;
    let (mut providers, mut routes) = (provider("good", good.address), String::new());
    let mut refusing = Vec::new();
    for (name, status) in [("p401", 401), ("p402", 402), ("p403", 403), ("typed", 401), ("alone", 401)] {
        let it = failing(status, "{}").await;
        providers.push_str(&provider(name, it.address));
        refusing.push((name, it));
    }
    let own = failing(401, "{\"own\":1}").await;
    providers.push_str(&provider("mine", own.address));
    for name in ["p401", "p402", "p403"] {
        routes.push_str(&with_spare(name, ""));
    }
    let spare = "{ name: spare, provider: good, priority: 1 }";
    routes.push_str(&route(
        "typed",
        &format!("{{ provider: typed }}, {spare}"),
        ", retry: { attempts: 2, on: [5xx] }",
    ));
    routes.push_str(&route("alone", "{ provider: alone }", ", retry: { attempts: 3 }"));
    let twice = "{ provider: mine }, { name: again, provider: mine, priority: 1 }";
    routes.push_str(&route("own", twice, ", credentials: forward"));
    let setup = Setup { more_providers: providers, more_routes: routes, ..Setup::default() };
    let rig = Rig::start(&good, setup).await;
    for (at, name) in ["p401", "p402", "p403"].into_iter().enumerate() {
        // The second one is not sent there: its only key is left alone.
        for _ in 0..2 {
            assert_eq!(ask(&rig, name).await, 200, "{name}");
        }
        assert_eq!(refusing[at].1.seen().len(), 1, "{name}");
        let series = format!(
            "gateway_provider_key_cool_downs_total{{provider=\"{name}\",key=\"\",reason=\"refused\"}}"
        );
        assert_eq!(value(&rig, &series).await, 1);
    }
    assert_eq!(ask(&rig, "typed").await, 401, "what is typed counts");
    assert_eq!(ask(&rig, "alone").await, 401);
    assert_eq!(refusing[4].1.seen().len(), 1, "the same key is not tried again");
    let request = Request::post(format!("/own/{CHAT}"))
        .header("host", "gateway")
        .header("authorization", "Bearer sk-of-the-caller")
        .header("x-affidavit-key", &rig.key)
        .header("content-type", "application/json");
    let (status, _, body) = read(rig.send(request.body(Full::from(QUESTION)).unwrap()).await).await;
    assert_eq!((status, &body[..]), (401, &b"{\"own\":1}"[..]));
    assert_eq!(own.seen().len(), 1);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    for (name, end) in
        [("p401", "status Complete 401"), ("p402", "quota Complete 402"), ("p403", "status Complete 403")]
    {
        let of = outcomes_of(&evidence, name);
        let wanted = [format!("0 end {name} {end}"), "1 open spare fallback".to_owned()];
        assert_eq!(told(&evidence, &of[0].exchange), wanted);
        assert!(told(&evidence, &of[1].exchange).is_empty());
    }
    for name in ["typed", "alone", "own"] {
        let of = outcomes_of(&evidence, name);
        assert_eq!((of[0].status, told(&evidence, &of[0].exchange).len()), (Some(401), 0), "{name}");
    }
}

/// Answers with the beginning of a whole answer in Anthropic's dialect, which then breaks off, or is silent.
async fn half(breaks: bool) -> Provider {
    Provider::start(move |_| async move {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            sender.send(&MESSAGE.as_bytes()[..40]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if breaks { sender.cut().await } else { sender.closed().await }
        });
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    })
    .await
}

/// Answers each request with this whole body.
async fn saying(kind: &'static str, body: String) -> Provider {
    Provider::start(move |_| {
        let body = body.clone();
        async move { whole(200, kind, body) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_passed_on_leads_to_the_next_target() {
    let good = good().await;
    let html = saying("text/html", "<html>".into()).await;
    let large = saying("application/json", long_message()).await;
    let (cut, stalled) = (half(true).await, half(false).await);
    let no_event = Provider::start(|_| async {
        let (sender, response) = events();
        sender.send(": nothing\n\n").await;
        response
    })
    .await;
    let plain = saying("application/json", format!("{COMPLETION}{}", " ".repeat(5000))).await;
    let ways = [
        ("html", QUESTION, "", "aborted ProviderAbort 200"),
        ("large", QUESTION, ", answer: 4KiB", "answer_too_large GatewayAbort 200"),
        ("cut", QUESTION, "", "aborted ProviderAbort 200"),
        ("stalled", QUESTION, ", idle: 1s", "timeout Timeout 200"),
        ("no-event", STREAMED, "", "aborted ProviderAbort 200"),
        ("plain", QUESTION, ", answer: 4KiB", "answer_too_large GatewayAbort 200"),
    ];
    let translated =
        [("html", &html), ("large", &large), ("cut", &cut), ("stalled", &stalled), ("no-event", &no_event)];
    let mut providers = provider("good", good.address) + &provider("plain", plain.address);
    translated.iter().for_each(|(name, it)| providers.push_str(&claude(name, it)));
    let routes: String = ways.iter().map(|(name, _, rest, _)| with_spare(name, rest)).collect();
    let rig =
        Rig::start(&good, Setup { more_providers: providers, more_routes: routes, ..Setup::default() }).await;
    for (name, asked, _, _) in ways {
        let (status, headers, body) = post(&rig, &format!("/{name}/{CHAT}"), asked).await;
        let wanted = if asked == STREAMED { format!("{}{DONE}", delta("x")) } else { COMPLETION.to_owned() };
        assert_eq!((status, String::from_utf8_lossy(&body)), (200, wanted.into()), "{name}");
        assert!(headers.get("x-affidavit-reason").is_none(), "{name}");
    }
    assert_eq!(good.seen().len(), ways.len());
    let evidence = rig.stop().await;
    is_whole(&evidence);
    for (name, _, _, end) in ways {
        let outcome = outcomes_of(&evidence, name)[0];
        let wanted = [format!("0 end {name} {end}"), "1 open spare fallback".to_owned()];
        assert_eq!(told(&evidence, &outcome.exchange), wanted);
        assert_eq!(
            (outcome.end, outcome.status, outcome.provider_status),
            (End::Complete, Some(200), Some(200))
        );
        let ended = attempts(&evidence).into_iter().find(|it| it.exchange == outcome.exchange).unwrap();
        let part = &ended.parts[0];
        assert!(part.part.as_str() == "attempt_response_0" && part.length > 0, "{name}: {part:?}");
        // What it used is known where it told so, whatever became of it.
        let usage = ended.usage.as_ref().unwrap();
        let is_told = ["large", "plain"].contains(&name);
        assert_eq!(
            (usage.source == UsageSource::Provider, usage.output_tokens),
            (is_told, is_told.then_some(3))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_target_is_left_an_answer_that_cannot_be_passed_on_is_told_as_before() {
    let good = good().await;
    let html = saying("text/html", "<html>".into()).await;
    let other = saying("text/html", "<other>".into()).await;
    let large = saying("application/json", long_message()).await;
    let setup = Setup {
        more_providers: provider("good", good.address)
            + &claude("html", &html)
            + &claude("other", &other)
            + &claude("large", &large),
        more_routes: route("all", "{ provider: html }, { provider: other, priority: 1 }", "")
            + &route(
                "typed",
                "{ provider: html }, { provider: good, priority: 1 }",
                ", retry: { attempts: 2, on: [connect] }",
            )
            + &route("alone", "{ provider: large, answer: 4KiB }", ", retry: { attempts: 3 }"),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let ways = [
        ("all", "provider_aborted", End::ProviderAbort, "<other>".len()),
        ("typed", "provider_aborted", End::ProviderAbort, "<html>".len()),
        ("alone", "answer_too_large", End::GatewayAbort, 5000),
    ];
    for (name, reason, _, _) in ways {
        let (status, headers, _) = post(&rig, &format!("/{name}/{CHAT}"), QUESTION).await;
        assert_eq!((status, headers["x-affidavit-reason"].to_str().unwrap()), (502, reason), "{name}");
    }
    assert_eq!((large.seen().len(), good.seen().len()), (1, 0), "what is too much once is too much again");
    let evidence = rig.stop().await;
    is_whole(&evidence);
    for (name, reason, end, length) in ways {
        let outcome = outcomes_of(&evidence, name)[0];
        assert_eq!(
            (outcome.end, outcome.status, outcome.provider_status),
            (end, Some(502), Some(200)),
            "{name}"
        );
        assert_eq!(outcome.reason.as_ref().unwrap().as_str(), reason);
        let part = outcome.parts.iter().find(|part| part.part == PartName::ProviderResponse).unwrap();
        assert_eq!(part.length, length as u64, "{name}: what came is kept");
    }
    let usage = &outcomes_of(&evidence, "alone")[0].usage;
    assert_eq!((usage.source, usage.output_tokens), (UsageSource::Provider, Some(3)));
}

/// Asks, and leaves before an answer.
async fn leaves(rig: &Rig, path: &str, after: Duration) {
    let gone = tokio::time::timeout(after, async {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        let (mut caller, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let request = rig.post(path).body(Full::<Bytes>::from(QUESTION)).unwrap();
        let (_, response) = tokio::join!(connection, caller.send_request(request));
        drop(response);
    })
    .await;
    assert!(gone.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_was_not_sent_takes_nothing_of_the_budget() {
    const LEAVE: usize = 10;
    let asked = AtomicUsize::new(0);
    let busy = Provider::start(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let status = match number {
                0..LEAVE => 429,
                LEAVE => 500,
                _ => 200,
            };
            Mood::new(status).answer().await
        }
    })
    .await;
    let setup = Setup {
        more_providers: provider("busy", busy.address),
        more_routes: route(
            "r",
            "{ provider: busy }",
            ", retry: { attempts: 2, budget: 1%, back_off: { first: 10ms, most: 10ms } }",
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&busy, setup).await;
    let path = format!("/r/{CHAT}");
    // Each has the repeat in hand, and waits for as long as the provider asked for: all that the budget always allows.
    let some = (0..LEAVE).map(|_| leaves(&rig, &path, Duration::from_millis(900)));
    futures_util::future::join_all(some).await;
    assert_eq!(busy.seen().len(), LEAVE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(&rig, "r").await, 200, "they left before it was sent");
    assert_eq!(busy.seen().len(), LEAVE + 2);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let left = outcomes_of(&evidence, "r").iter().filter(|it| it.end == End::ClientAbort).count();
    assert_eq!(left, LEAVE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_attempt_used_is_charged_to_its_caller_and_the_request_once() {
    let (silent, spare) = (Mood::new(0).provider().await, good().await);
    let setup = Setup {
        more_providers: provider("silent", silent.address) + &provider("spare", spare.address),
        more_routes: route("t", "{ provider: silent, first_byte: 1s }, { provider: spare, priority: 1 }", ""),
        rest: "quotas:\n  rules:\n    \
               - { name: tokens, by: [consumer], count: tokens, limit: 5000, calendar: month }\n    \
               - { name: often, by: [consumer], count: requests, limit: 2, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let large = r#"{"model":"m","max_tokens":3000,"messages":[]}"#;
    let path = format!("/t/{CHAT}");
    assert_eq!(post(&rig, &path, large).await.0, 200);
    // Nobody knows what the silent one used, so that all that was reserved is charged.
    assert_eq!(post(&rig, &path, large).await.0, 429);
    let small = r#"{"model":"m","max_tokens":9,"messages":[]}"#;
    assert_eq!(post(&rig, &path, small).await.0, 200);
    assert_eq!(post(&rig, &path, small).await.0, 429);
    assert_eq!((silent.seen().len(), spare.seen().len()), (2, 2));
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let limits: Vec<_> = evidence.refusals().iter().map(|it| it.limit.as_ref().unwrap()).collect();
    let rules: Vec<_> = limits.iter().map(|it| (it.rule.as_str(), it.used.as_str())).collect();
    assert_eq!((rules[0].0, rules[1]), ("tokens", ("often", "2")));
    let used: u64 = rules[0].1.parse().unwrap();
    assert!((3012..3100).contains(&used), "{used}: the reservation, and the 12 of the one that answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_told_that_it_used_is_charged_though_nobody_got_its_answer() {
    let (large, good) = (saying("application/json", long_message()).await, good().await);
    let setup = Setup {
        more_providers: provider("good", good.address) + &claude("large", &large),
        more_routes: with_spare("large", ", answer: 4KiB") + &route("only", "{ provider: large }", ""),
        rest: "quotas:\n  rules:\n    \
               - { name: of-caller, by: [consumer], count: tokens, limit: 20000, calendar: month }\n    \
               - { name: of-target, match: { targets: [large] }, count: tokens, limit: 10000, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    for (name, bound, status) in [("large", 3000, 200), ("only", 15_000, 429), ("only", 30_000, 429)] {
        let asked =
            format!(r#"{{"model":"m","max_tokens":{bound},"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        assert_eq!(post(&rig, &format!("/{name}/{CHAT}"), asked).await.0, status, "{bound}");
    }
    let evidence = rig.stop().await;
    let limits: Vec<_> = evidence.refusals().iter().map(|it| it.limit.as_ref().unwrap()).collect();
    let used: Vec<_> = limits.iter().map(|it| (it.rule.as_str(), it.used.as_str())).collect();
    // 16 of the one, 12 of the other.
    assert_eq!(used, [("of-target", "16"), ("of-caller", "28")]);
}

const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"code\":null}}\n\n";

/// Answers, once it is told to, with a stream that begins with an error and tells a usage.
async fn failing_at(go: &Arc<Notify>) -> Provider {
    let go = Arc::clone(go);
    Provider::start(move |_| {
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            let (sender, response) = events();
            sender.send(format!("{ERROR}{USAGE}{DONE}")).await;
            response
        }
    })
    .await
}

/// Asks on a connection of its own. Aborted: the caller leaves.
fn asking(rig: &Rig, path: &str, body: String) -> JoinHandle<()> {
    let (address, request) = (rig.address, rig.post(path).body(Full::<Bytes>::from(body)).unwrap());
    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut caller, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let (_, response) = tokio::join!(connection, caller.send_request(request));
        drop(response);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_answer_is_recorded_where_its_caller_leaves_while_its_own_body_is_read_back() {
    let (go, good) = (Arc::new(Notify::new()), good().await);
    let late = failing_at(&go).await;
    let setup = Setup {
        more_providers: provider("late", late.address) + &provider("good", good.address),
        more_routes: route(
            "late",
            "{ provider: late, model: other }, { provider: good, priority: 1 }",
            ", estimate: off",
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let large = STREAMED.replace("Hi", &"Hi ".repeat(500_000));
    let caller = asking(&rig, &format!("/late/{CHAT}"), large);
    late.wait(1).await;
    rig.gate.hold_spills(true);
    go.notify_one();
    // Until all of the answer came, or less: it is kept in any case.
    tokio::time::sleep(Duration::from_millis(500)).await;
    caller.abort();
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.gate.hold_spills(false);
    let evidence = rig.stop().await;
    let outcome = outcomes_of(&evidence, "late")[0];
    assert_eq!((outcome.end, outcome.provider_status), (End::ClientAbort, Some(200)));
    assert_eq!((outcome.usage.input_tokens, outcome.usage.output_tokens), (Some(5), Some(7)));
    let part = outcome.parts.iter().find(|part| part.part == PartName::ProviderResponse).unwrap();
    assert_eq!(part.length, (ERROR.len() + USAGE.len() + DONE.len()) as u64);
    assert!(good.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_answer_used_is_charged_once_where_its_caller_leaves_before_the_next_attempt() {
    let (go, good) = (Arc::new(Notify::new()), good().await);
    let late = failing_at(&go).await;
    let setup = Setup {
        more_providers: provider("late", late.address) + &provider("good", good.address),
        more_routes: with_spare("late", "") + &route("only", "{ provider: good }", ""),
        rest: "quotas:\n  rules:\n    \
               - { name: of-caller, by: [consumer], count: tokens, limit: 20000, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let bounded = |most: u32| STREAMED.replacen('{', &format!("{{\"max_tokens\":{most},"), 1);
    let caller = asking(&rig, &format!("/late/{CHAT}"), bounded(3000));
    late.wait(1).await;
    rig.gate.close();
    go.notify_one();
    tokio::time::sleep(Duration::from_millis(500)).await;
    caller.abort();
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.gate.open();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(post(&rig, &format!("/only/{CHAT}"), bounded(30_000)).await.0, 429);
    let tokens = |class| format!("gateway_tokens_total{{route=\"late\",class=\"{class}\"}}");
    assert_eq!((value(&rig, &tokens("input")).await, value(&rig, &tokens("output")).await), (5, 7));
    let evidence = rig.stop().await;
    assert!(good.seen().is_empty());
    assert_eq!(evidence.refusals()[0].limit.as_ref().unwrap().used, "12");
    assert_eq!(outcomes_of(&evidence, "late")[0].end, End::ClientAbort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_that_a_failed_answer_tells_late_is_in_its_record_its_quotas_and_the_metrics() {
    let telling = |first: String| {
        Provider::start(move |_| {
            let first = first.clone();
            async move {
                let (sender, response) = events();
                sender.send(first).await;
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    sender.send(format!("{USAGE}{DONE}")).await;
                });
                response
            }
        })
    };
    let (late, spare) = (telling(ERROR.to_owned()).await, telling(delta("x")).await);
    let setup = Setup {
        more_providers: provider("late", late.address) + &provider("good", spare.address),
        more_routes: with_spare("late", "") + &route("only", "{ provider: late }", ""),
        rest: "quotas:\n  rules:\n    \
               - { name: of-caller, by: [consumer], count: tokens, limit: 20000, calendar: month }\n    \
               - { name: of-target, match: { targets: [late] }, count: tokens, limit: 10000, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    for (name, bound, status) in [("late", 3000, 200), ("only", 15_000, 429), ("only", 30_000, 429)] {
        let asked = STREAMED.replacen('{', &format!("{{\"max_tokens\":{bound},"), 1);
        assert_eq!(post(&rig, &format!("/{name}/{CHAT}"), asked).await.0, status, "{bound}");
    }
    let tokens = |class| format!("gateway_tokens_total{{route=\"late\",class=\"{class}\"}}");
    assert_eq!((value(&rig, &tokens("input")).await, value(&rig, &tokens("output")).await), (10, 14));
    let evidence = rig.stop().await;
    let ended = attempts(&evidence)[0];
    let usage = ended.usage.as_ref().unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(5), Some(7)));
    assert_eq!(ended.parts[0].length, (ERROR.len() + USAGE.len() + DONE.len()) as u64);
    let limits: Vec<_> = evidence.refusals().iter().map(|it| it.limit.as_ref().unwrap()).collect();
    let used: Vec<_> = limits.iter().map(|it| (it.rule.as_str(), it.used.as_str())).collect();
    assert_eq!(used, [("of-target", "12"), ("of-caller", "24")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_answer_is_not_gathered_where_nobody_is_left_to_be_asked() {
    const WHOLE: &str = r#"{"error":{"message":"later"}}"#;
    let busy = Provider::start(|_| async {
        let (sender, body) = pieces();
        let (start, end) = WHOLE.split_at(10);
        sender.send(start).await;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send(end).await;
        });
        let head = Response::builder().status(503).header("retry-after", "60");
        head.header("content-type", "application/json").body(body).unwrap()
    })
    .await;
    let (typed, said) = (", retry: { attempts: 2, on: [5xx] }", ", retry: { attempts: 2 }");
    let setup = Setup {
        more_providers: provider("busy", busy.address),
        more_routes: route("typed", "{ provider: busy }", typed) + &route("said", "{ provider: busy }", said),
        ..Setup::default()
    };
    let rig = Rig::start(&busy, setup).await;
    for name in ["typed", "said"] {
        let (status, _, answer) = post(&rig, &format!("/{name}/{CHAT}"), QUESTION).await;
        assert_eq!((status, &answer[..]), (503, WHOLE.as_bytes()), "{name}");
    }
    let evidence = rig.stop().await;
    for name in ["typed", "said"] {
        let outcome = outcomes_of(&evidence, name)[0];
        assert!(outcome.delivered > Some(0), "{name}: its beginning goes before its end is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_target_is_why_also_beside_one_that_cannot_be_told_the_request() {
    let (one, two) = (good().await, good().await);
    let talks = saying("application/json", MESSAGE.to_owned()).await;
    let mut rules = String::new();
    for name in ["one", "two"] {
        writeln!(rules, "    - {{ name: at-{name}, match: {{ targets: [{name}] }}, count: requests, limit: 1, calendar: month }}").unwrap();
    }
    let setup = Setup {
        more_providers: provider("one", one.address)
            + &provider("two", two.address)
            + &claude("talks", &talks),
        more_routes: route("first", "{ provider: one }, { provider: talks, priority: 1 }", "")
            + &route("last", "{ provider: talks }, { provider: two, priority: 1 }", ""),
        rest: format!("quotas:\n  rules:\n{rules}"),
        ..Setup::default()
    };
    let rig = Rig::start(&one, setup).await;
    let asked = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"logprobs":true}"#;
    for name in ["first", "last"] {
        let path = format!("/{name}/{CHAT}");
        assert_eq!(post(&rig, &path, asked).await.0, 200, "{name}");
        let (status, headers, _) = post(&rig, &path, asked).await;
        assert_eq!(
            (status, &headers["x-affidavit-reason"]),
            (429, &"quota_exceeded".parse().unwrap()),
            "{name}"
        );
        assert!(headers.contains_key("retry-after") && !headers.contains_key("x-affidavit-untranslatable"));
    }
    assert!(talks.seen().is_empty());
    let evidence = rig.stop().await;
    let told: Vec<_> = evidence
        .refusals()
        .iter()
        .map(|it| (it.limit.as_ref().unwrap().rule.as_str(), it.translation.is_some()))
        .collect();
    assert_eq!(told, [("at-one", false), ("at-two", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_in_order_is_asked_for_every_request_while_the_others_are_down() {
    let (one, two, spare) = (failing(500, "one").await, failing(503, "two").await, good().await);
    let setup = Setup {
        more_providers: provider("one", one.address)
            + &provider("two", two.address)
            + &provider("spare", spare.address),
        more_routes: route(
            "r",
            "{ provider: one }, { provider: two, priority: 1 }, { provider: spare, priority: 2 }",
            "",
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    for number in 0..40 {
        assert_eq!(ask(&rig, "r").await, 200, "request {number}");
    }
    assert_eq!([&one, &two, &spare].map(|it| it.seen().len()), [40, 40, 40]);
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_breaks_off_behind_the_first_byte_is_left_alone() {
    let breaking = Provider::start(|_| async {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            sender.send(delta("x")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.cut().await;
        });
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let spare = good().await;
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: breaking, dialect: openai, base_url: \"http://{}\", health: {{ passive: {{ failures: 2, share: 0, eject_for: 60s }} }} }}\n",
            breaking.address
        ) + &provider("spare", spare.address),
        more_routes: route("r", "{ provider: breaking }, { provider: spare, priority: 1 }", ""),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let path = format!("/r/{CHAT}");
    for _ in 0..2 {
        let answer = rig.send(rig.post(&path).body(Full::from(STREAMED)).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
    }
    for _ in 0..3 {
        assert_eq!(ask(&rig, "r").await, 200);
    }
    assert_eq!((breaking.seen().len(), spare.seen().len()), (2, 3));
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_403_for_one_callers_model_takes_no_key_away() {
    const NO_MODEL: &str =
        r#"{"error":{"message":"Project `p` does not have access to model `m`","code":"model_not_found"}}"#;
    let asked = AtomicUsize::new(0);
    let picky = Provider::start(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0 => whole(403, "application/json", NO_MODEL),
                1 | 2 => whole(403, "application/json", r#"{"error":{"message":"no"}}"#),
                _ => whole(200, "application/json", COMPLETION),
            }
        }
    })
    .await;
    let keys = ["one", "two", "three"];
    let listed: Vec<_> =
        keys.iter().map(|key| format!("{{ name: {key}, credential: {{ file: {key}.key }} }}")).collect();
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: picky, dialect: openai, base_url: \"http://{}\", keys: [{}] }}\n",
            picky.address,
            listed.join(", ")
        ),
        more_routes: route("r", "{ provider: picky }", ""),
        ..Setup::default()
    };
    let files = [("one.key", "first"), ("two.key", "second"), ("three.key", "third")];
    let rig = Rig::start_with(&picky, setup, &files).await;
    let cooled = async |rig: &Rig| {
        let mut all = 0;
        for key in keys {
            let series = format!(
                "gateway_provider_key_cool_downs_total{{provider=\"picky\",key=\"{key}\",reason=\"refused\"}}"
            );
            all += value(rig, &series).await;
        }
        all
    };
    assert_eq!(ask(&rig, "r").await, 403);
    assert_eq!((picky.seen().len(), cooled(&rig).await), (1, 0), "any key would get the same");
    assert_eq!(ask(&rig, "r").await, 403);
    assert_eq!((picky.seen().len(), cooled(&rig).await), (3, 1), "a second key shows that it is the request");
    assert_eq!(ask(&rig, "r").await, 200);
    is_whole(&rig.stop().await);
}
