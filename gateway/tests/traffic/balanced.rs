//! Requests spread over targets and keys that come and go: what callers see of it, and that the records tell all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use schemas::ExchangeId;
use schemas::record::{Attempt, Body, Decision, End, Intent, Outcome, UsageRole, UsageSource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::provider::{COMPLETION, DONE, Pieces, Provider, Seen, delta, events, pieces, whole};
use crate::rig::{Evidence, Rig, Setup, issue_key, next, read, read_bytes, send};
use crate::routes::{QUESTION, STREAMED, attempts, failing, good, nobody, post, provider, raw};

pub(crate) const CHAT: &str = "v1/chat/completions";

/// What a provider answers from now on: a status, 0 for silence.
#[derive(Clone)]
pub(crate) struct Mood(Arc<AtomicU16>);

impl Mood {
    pub(crate) fn new(status: u16) -> Self {
        Self(Arc::new(AtomicU16::new(status)))
    }

    fn is(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }

    /// An answer as it is now; with a 429 goes a `Retry-After` of two seconds.
    pub(crate) async fn answer(&self) -> Response<Pieces> {
        let status = self.0.load(Ordering::SeqCst);
        match status {
            0 => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                whole(200, "application/json", COMPLETION)
            }
            200 => whole(200, "application/json", COMPLETION),
            429 => {
                let mut response = whole(429, "application/json", "{}");
                response.headers_mut().insert("retry-after", "2".parse().unwrap());
                response
            }
            status => whole(status, "application/json", "{}"),
        }
    }

    /// A provider of this mood.
    pub(crate) async fn provider(&self) -> Provider {
        let mood = self.clone();
        Provider::start(move |_| {
            let mood = mood.clone();
            async move { mood.answer().await }
        })
        .await
    }
}

/// A value of `/metrics`.
pub(crate) async fn value(rig: &Rig, series: &str) -> u64 {
    // Asked often: no connection is kept.
    let request = Request::get("/metrics").header("host", "admin").header("connection", "close");
    let answer = send(rig.gateway.admin_address(), request.body(Full::default()).unwrap()).await;
    let text = String::from_utf8_lossy(&read(answer).await.2).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).map(str::trim);
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

async fn is_in(rig: &Rig, route: &str, target: &str, state: &str) -> bool {
    let series = format!(
        "gateway_target_state{{route=\"{route}\",target=\"{target}\",provider=\"{target}\",state=\"{state}\"}}"
    );
    value(rig, &series).await == 1
}

async fn until(rig: &Rig, route: &str, target: &str, state: &str) {
    for _ in 0..200 {
        if is_in(rig, route, target, state).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{target} of {route} was never {state}");
}

/// Asks a route's chat; gives the status.
pub(crate) async fn ask(rig: &Rig, route: &str) -> u16 {
    post(rig, &format!("/{route}/{CHAT}"), QUESTION).await.0
}

/// Asks it as often as told, at most sixteen times at once; all must be answered.
async fn ask_often(rig: &Rig, route: &str, times: usize) {
    for begun in (0..times).step_by(16) {
        let some = (begun..times.min(begun + 16)).map(|_| ask(rig, route));
        assert!(futures_util::future::join_all(some).await.iter().all(|status| *status == 200));
    }
}

fn intents(evidence: &Evidence) -> Vec<&Intent> {
    let all = evidence.records.iter();
    all.filter_map(|record| if let Body::Intent(it) = &record.body { Some(it) } else { None }).collect()
}

/// The outcomes of a route, in order.
pub(crate) fn outcomes_of<'a>(evidence: &'a Evidence, route: &str) -> Vec<&'a Outcome> {
    let is = |outcome: &&Outcome| outcome.asked.route.as_ref().is_some_and(|name| name.as_str() == route);
    evidence.outcomes().into_iter().filter(is).collect()
}

/// The target that answered.
fn served(outcome: &Outcome) -> &str {
    let first = || outcome.asked.target.as_ref().unwrap();
    outcome.served.as_ref().map_or_else(first, |served| &served.target).as_str()
}

/// What the records say of the attempts of an exchange, a line each.
pub(crate) fn told(evidence: &Evidence, exchange: &ExchangeId) -> Vec<String> {
    let line = |it: &Attempt| {
        let status = it.status.map(|status| format!(" {status}")).unwrap_or_default();
        let end = it.end.map(|end| format!(" {end:?}{status}")).unwrap_or_default();
        format!("{} {} {} {}{end}", it.number, it.phase, it.target, it.reason)
    };
    attempts(evidence).into_iter().filter(|it| it.exchange == *exchange).map(line).collect()
}

/// Every attempt that began has ended, by its own record or by the outcome, and no exchange is without one.
pub(crate) fn is_whole(evidence: &Evidence) {
    let outcomes = evidence.outcomes();
    assert_eq!(intents(evidence).len(), outcomes.len());
    for outcome in outcomes {
        let of = attempts(evidence).into_iter().filter(|it| it.exchange == outcome.exchange);
        let (open, ended): (Vec<_>, Vec<_>) = of.partition(|it| it.phase.as_str() == "open");
        let numbers = |some: &[&Attempt]| some.iter().map(|it| it.number).collect::<Vec<_>>();
        let count = u64::try_from(open.len()).unwrap();
        assert_eq!(numbers(&open), (1..=count).collect::<Vec<_>>());
        assert_eq!(numbers(&ended), (0..count).collect::<Vec<_>>());
        assert_eq!(outcome.served.as_ref().map_or(0, |served| served.number), count);
    }
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// How often the provider saw each of its targets.
fn by_target(provider: &Provider) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seen in provider.seen() {
        *counts.entry(header(&seen, "x-target").to_owned()).or_default() += 1;
    }
    counts
}

/// A target of the provider `openai` that is told by a header.
fn marked(name: &str, rest: &str) -> String {
    format!("{{ name: {name}, provider: openai, headers: {{ set: {{ x-target: {name} }} }}{rest} }}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_taken_is_left_alone_unseen_and_comes_back() {
    let statuses = [401, 402, 403, 429];
    let (mut providers, mut moods, mut setup) = (Vec::new(), Vec::new(), Setup::default());
    for status in statuses {
        let (bad, own) = (Mood::new(status), Mood::new(200));
        moods.push(bad.clone());
        let keyed = Provider::start(move |seen| {
            let mood =
                if header(&seen, "authorization") == "Bearer first" { bad.clone() } else { own.clone() };
            async move { mood.answer().await }
        })
        .await;
        writeln!(
            setup.more_providers,
            "  - {{ name: p{status}, dialect: openai, base_url: \"http://{}\", keys: [{{ name: one, credential: {{ file: one.key }} }}, {{ name: two, credential: {{ file: two.key }} }}], cool_down: {{ refused: 2s, limited: 1h }} }}",
            keyed.address
        )
        .unwrap();
        writeln!(setup.more_routes, "  - {{ name: r{status}, path: /r{status}, provider: p{status} }}")
            .unwrap();
        providers.push(keyed);
    }
    let plain = good().await;
    let rig = Rig::start_with(&plain, setup, &[("one.key", "first"), ("two.key", "second")]).await;
    let under = |provider: &Provider, key: &str| {
        let wanted = format!("Bearer {key}");
        provider.seen().iter().filter(|seen| header(seen, "authorization") == wanted).count()
    };
    for (status, provider) in statuses.iter().zip(&providers) {
        for _ in 0..5 {
            assert_eq!(ask(&rig, &format!("r{status}")).await, 200, "{status}");
        }
        assert_eq!((under(provider, "first"), under(provider, "second")), (1, 5), "{status}");
        let reason = if *status == 429 { "limited" } else { "refused" };
        let series = format!(
            "gateway_provider_key_cool_downs_total{{provider=\"p{status}\",key=\"one\",reason=\"{reason}\"}}"
        );
        assert_eq!(value(&rig, &series).await, 1);
        assert!(is_in(&rig, &format!("r{status}"), &format!("p{status}"), "healthy").await);
    }
    moods.iter().for_each(|mood| mood.is(200));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for (status, provider) in statuses.iter().zip(&providers) {
        for _ in 0..4 {
            assert_eq!(ask(&rig, &format!("r{status}")).await, 200);
        }
        assert_eq!((under(provider, "first"), under(provider, "second")), (3, 7), "{status}: it is back");
    }
    // What is no answer of the key's is not sent again: the route has one target, and no `retry`.
    moods[0].is(500);
    let answers = [ask(&rig, "r401").await, ask(&rig, "r401").await];
    assert_eq!(BTreeSet::from(answers), BTreeSet::from([200, 500]));
    let evidence = rig.stop().await;
    is_whole(&evidence);
    for status in statuses {
        let of = outcomes_of(&evidence, &format!("r{status}"));
        let changed: Vec<_> = of.iter().filter(|outcome| outcome.served.is_some()).collect();
        assert_eq!(changed.len(), 1, "{status}");
        let wanted = [format!("0 end p{status} status Complete {status}"), format!("1 open p{status} retry")];
        assert_eq!(told(&evidence, &changed[0].exchange), wanted);
        assert_eq!((changed[0].status, changed[0].end), (Some(200), End::Complete));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_provider_refuses_says_nothing_of_anothers_key_and_a_free_key_goes_to_the_same_target() {
    let keyed = |status: u16| {
        Provider::start(move |seen| {
            let status = if header(&seen, "authorization") == "Bearer first" { status } else { 200 };
            async move { whole(status, "application/json", COMPLETION) }
        })
    };
    let (gone, other, spare) = (failing(403, "{}").await, keyed(403).await, good().await);
    let refused = keyed(401).await;
    let with_keys = |name: &str, address| {
        format!(
            "  - {{ name: {name}, dialect: openai, base_url: \"http://{address}\", keys: [{{ name: one, credential: {{ file: one.key }} }}, {{ name: two, credential: {{ file: two.key }} }}] }}\n"
        )
    };
    let setup = Setup {
        more_providers: provider("gone", gone.address)
            + &provider("spare", spare.address)
            + &with_keys("other", other.address)
            + &with_keys("refused", refused.address),
        more_routes:
            "  - { name: m, path: /m, targets: [{ provider: gone }, { provider: other, priority: 1 }] }\n  \
  - { name: n, path: /n, targets: [{ provider: refused }, { provider: spare }], retry: { attempts: 1 } }\n"
                .into(),
        ..Setup::default()
    };
    let rig = Rig::start_with(&spare, setup, &[("one.key", "first"), ("two.key", "second")]).await;
    assert_eq!(ask(&rig, "m").await, 200);
    assert_eq!(ask(&rig, "n").await, 200);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = |route: &str| told(&evidence, &outcomes_of(&evidence, route)[0].exchange);
    let wanted = [
        "0 end gone status Complete 403",
        "1 open other fallback",
        "1 end other status Complete 403",
        "2 open other retry",
    ];
    assert_eq!(of("m"), wanted);
    assert_eq!(of("n"), ["0 end refused status Complete 401", "1 open refused retry"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_ejected_is_asked_for_want_of_a_better_one_within_the_budget() {
    let (first, second) = (failing(500, "{}").await, failing(500, "{}").await);
    let watched = |name: &str, address| {
        format!(
            "  - {{ name: {name}, dialect: openai, base_url: \"http://{address}\", health: {{ passive: {{ failures: 1, within: 60s, share: 1, eject_for: 60s }} }} }}\n"
        )
    };
    let setup = Setup {
        more_providers: watched("first", first.address) + &watched("second", second.address),
        more_routes: "  - { name: e, path: /e, targets: [{ provider: first }, { provider: second, priority: 1 }], retry: { attempts: 2, budget: 0% } }\n".into(),
        ..Setup::default()
    };
    let rig = Rig::start(&first, setup).await;
    for _ in 0..3 {
        assert_eq!(ask(&rig, "e").await, 500);
    }
    // The first request ejected both.
    assert_eq!((first.seen().len(), second.seen().len()), (3, 1));
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spent_quota_leads_to_the_next_target_and_all_spent_to_a_refusal() {
    let (one, two) = (good().await, good().await);
    let claude = Provider::start(|_| async { whole(200, "application/json", "{}") }).await;
    let rule = |name: &str, limit: u64| {
        format!(
            "    - {{ name: at-{name}, match: {{ targets: [{name}] }}, count: requests, limit: {limit}, calendar: month }}\n"
        )
    };
    let setup = Setup {
        more_providers: provider("a", one.address)
            + &provider("b", two.address)
            + &format!(
                "  - {{ name: claude, dialect: anthropic, base_url: \"http://{}\" }}\n",
                claude.address
            ),
        more_routes:
            "  - { name: q, path: /q, targets: [{ provider: a }, { provider: b, priority: 1 }] }\n  \
  - { name: c, path: /c, targets: [{ provider: claude }] }\n"
                .into(),
        rest: format!("quotas:\n  rules:\n{}{}{}", rule("a", 2), rule("b", 3), rule("claude", 1)),
        ..Setup::default()
    };
    let rig = Rig::start(&one, setup).await;
    for _ in 0..5 {
        assert_eq!(ask(&rig, "q").await, 200);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 3));
    let (status, headers, body) = post(&rig, &format!("/q/{CHAT}"), QUESTION).await;
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, said["error"]["type"].as_str()), (429, Some("rate_limit_error")), "{said}");
    let waits = |headers: &HeaderMap| headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0;
    assert!(waits(&headers) && headers["x-affidavit-reason"] == "quota_exceeded");
    let asked = r#"{"model":"claude-x","max_tokens":9,"messages":[]}"#;
    assert_eq!(post(&rig, "/c/v1/messages", asked).await.0, 200);
    let (status, headers, body) = post(&rig, "/c/v1/messages", asked).await;
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, said["type"].as_str()), (429, Some("error")), "{said}");
    assert_eq!(said["error"]["type"], "rate_limit_error");
    assert!(waits(&headers));
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let at: Vec<_> = outcomes_of(&evidence, "q").iter().map(|outcome| served(outcome).to_owned()).collect();
    assert_eq!(at, ["a", "a", "b", "b", "b"]);
    assert!(attempts(&evidence).is_empty(), "nothing was sent in vain");
    let rules: Vec<_> = evidence
        .refusals()
        .iter()
        .map(|it| (it.status, it.reason.as_str(), it.limit.as_ref().unwrap().rule.as_str()))
        .collect();
    assert_eq!(rules, [(429, "quota_exceeded", "at-b"), (429, "quota_exceeded", "at-claude")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_charged_to_the_target_that_it_went_to() {
    let (fails, silent, spare) = (failing(500, "{}").await, Mood::new(0).provider().await, good().await);
    let left = Arc::new(AtomicUsize::new(1));
    let once = Provider::start(move |_| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        async move { whole(if fails { 500 } else { 200 }, "application/json", COMPLETION) }
    })
    .await;
    let rules = [
        ("fails", "count: requests, limit: 2, calendar: month"),
        ("silent", "count: tokens, limit: 5000, calendar: month"),
        ("once", "count: concurrency, limit: 1"),
        ("other", "count: requests, limit: 1, calendar: month"),
        ("bad", "count: requests, limit: 2, calendar: month"),
    ];
    let rule = |(name, rest): (&str, &str)| {
        format!("    - {{ name: at-{name}, match: {{ targets: [{name}] }}, {rest} }}\n")
    };
    let setup = Setup {
        more_providers: provider("fails", fails.address)
            + &provider("silent", silent.address)
            + &provider("once", once.address)
            + &provider("spare", spare.address),
        more_routes: "  - { name: f, path: /f, targets: [{ provider: fails }, { provider: spare, priority: 1 }] }\n  \
  - { name: t, path: /t, targets: [{ provider: silent, first_byte: 1s }, { provider: spare, priority: 1 }] }\n  \
  - { name: o, path: /o, targets: [{ provider: once }], retry: { attempts: 2, back_off: { first: 10ms } } }\n  \
  - { name: poor, path: /poor, targets: [{ name: bad, provider: fails }, { name: other, provider: spare, priority: 1 }], retry: { attempts: 2, budget: 0% } }\n  \
  - { name: rich, path: /rich, targets: [{ name: other, provider: spare }] }\n"
            .into(),
        rest: format!("quotas:\n  rules:\n{}", rules.map(rule).concat()),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    for _ in 0..3 {
        assert_eq!(ask(&rig, "f").await, 200);
    }
    assert_eq!(fails.seen().len(), 2, "what failed is a request all the same");
    let large = r#"{"model":"m","max_tokens":3000,"messages":[]}"#;
    for _ in 0..2 {
        assert_eq!(post(&rig, &format!("/t/{CHAT}"), large).await.0, 200);
    }
    assert_eq!(silent.seen().len(), 1, "nobody knows what it used: it stays charged");
    assert_eq!(ask(&rig, "o").await, 200, "the failed attempt's place is free for the next one");
    assert_eq!((ask(&rig, "rich").await, ask(&rig, "rich").await), (200, 429));
    // The other target has no room, and there is no budget for a repeat.
    for _ in 0..2 {
        assert_eq!(ask(&rig, "poor").await, 500, "a target that was not asked again is not charged again");
    }
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = |route: &str| -> Vec<Vec<String>> {
        outcomes_of(&evidence, route).iter().map(|outcome| told(&evidence, &outcome.exchange)).collect()
    };
    let turned = vec!["0 end fails status Complete 500".to_owned(), "1 open spare fallback".to_owned()];
    assert_eq!(of("f"), [turned.clone(), turned, Vec::new()]);
    let late = vec!["0 end silent timeout Timeout".to_owned(), "1 open spare fallback".to_owned()];
    assert_eq!(of("t"), [late, Vec::new()]);
    assert_eq!(of("o"), [["0 end once status Complete 500", "1 open once retry"]]);
    assert_eq!(of("poor"), [Vec::<String>::new(), Vec::new()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_callers_is_left_alone_tried_again_and_comes_back() {
    let mood = Mood::new(500);
    let (flaky, spare) = (mood.provider().await, good().await);
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: flaky, dialect: openai, base_url: \"http://{}\", health: {{ passive: {{ failures: 2, within: 10s, share: 1, eject_for: 1s }} }} }}\n",
            flaky.address
        ) + &provider("spare", spare.address),
        more_routes:
            "  - { name: r, path: /r, targets: [{ provider: flaky }, { provider: spare, priority: 1 }] }\n"
                .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    ask_often(&rig, "r", 1).await;
    ask_often(&rig, "r", 1).await;
    assert!(is_in(&rig, "r", "flaky", "ejected").await);
    ask_often(&rig, "r", 8).await;
    assert_eq!((flaky.seen().len(), spare.seen().len()), (2, 10));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(is_in(&rig, "r", "flaky", "half_open").await);
    // One of many at once tries it, and fails: it is left alone for twice the time.
    ask_often(&rig, "r", 8).await;
    assert_eq!((flaky.seen().len(), spare.seen().len()), (3, 18));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(is_in(&rig, "r", "flaky", "ejected").await);
    mood.is(200);
    until(&rig, "r", "flaky", "half_open").await;
    for _ in 0..4 {
        ask_often(&rig, "r", 1).await;
    }
    assert_eq!((flaky.seen().len(), spare.seen().len()), (7, 18));
    assert!(is_in(&rig, "r", "flaky", "healthy").await);
    for (family, count) in [("ejections", 2), ("recoveries", 1)] {
        let series = format!("gateway_target_{family}_total{{route=\"r\",target=\"flaky\"}}");
        assert_eq!(value(&rig, &series).await, count, "{family}");
    }
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = outcomes_of(&evidence, "r");
    let turned: Vec<_> = of.iter().filter(|outcome| outcome.served.is_some()).collect();
    assert_eq!((of.len(), turned.len()), (22, 3));
    for outcome in turned {
        let wanted = ["0 end flaky status Complete 500", "1 open spare fallback"];
        assert_eq!(told(&evidence, &outcome.exchange), wanted);
    }
    let at = |name: &str| of.iter().filter(|outcome| served(outcome) == name).count();
    assert_eq!((at("flaky"), at("spare")), (4, 18));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_leaves_a_provider_alone_and_brings_it_back_also_behind_a_reload() {
    let (listed, asked) = (Mood::new(200), Mood::new(200));
    let (got, posted, spare) = (listed.provider().await, asked.provider().await, good().await);
    let probed = |name: &str, address: SocketAddr, how: &str| {
        format!(
            "  - {{ name: {name}, dialect: openai, base_url: \"http://{address}\", health: {{ active: {{ {how}, headers: {{ x-probe: 'yes' }}, every: 1s, timeout: 500ms, healthy: {{ successes: 1 }}, unhealthy: {{ failures: 1, timeouts: 1 }} }} }} }}\n"
        )
    };
    let prompt = r#"{"model":"m","max_tokens":1,"messages":[]}"#;
    let route = |name: &str| {
        format!(
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name} }}, {{ provider: spare, priority: 1 }}] }}\n"
        )
    };
    let setup = Setup {
        more_providers: probed("got", got.address, "path: '/v1/models?x=1'")
            + &probed(
                "posted",
                posted.address,
                &format!("path: /v1/chat/completions, method: POST, body: '{prompt}'"),
            )
            + &provider("spare", spare.address),
        more_routes: route("got") + &route("posted"),
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let of_callers = |provider: &Provider| {
        provider.seen().iter().filter(|seen| header(seen, "x-probe").is_empty()).count()
    };
    let both = async |state: &str| {
        until(&rig, "got", "got", state).await;
        until(&rig, "posted", "posted", state).await;
    };
    let ask_both = async || {
        for route in ["got", "posted"] {
            assert_eq!(ask(&rig, route).await, 200);
        }
        (of_callers(&got), of_callers(&posted), of_callers(&spare))
    };
    assert_eq!(ask_both().await, (1, 1, 0));
    listed.is(503);
    asked.is(503);
    both("ejected").await;
    assert_eq!(ask_both().await, (1, 1, 2), "no caller finds out");
    listed.is(200);
    asked.is(200);
    both("healthy").await;
    assert_eq!(ask_both().await, (2, 2, 2));
    // One that does not answer in time is none.
    listed.is(0);
    asked.is(0);
    both("ejected").await;
    let path = rig.dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&path).unwrap() + "telemetry: { trace_context: off }\n";
    std::fs::write(&path, text).unwrap();
    for _ in 0..200 {
        if value(&rig, "gateway_reloads_total{result=\"taken\"}").await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(value(&rig, "gateway_reloads_total{result=\"taken\"}").await, 1);
    both("ejected").await;
    assert_eq!(ask_both().await, (2, 2, 4), "what is known of it goes on");
    listed.is(200);
    asked.is(200);
    both("healthy").await;
    assert_eq!(ask_both().await, (3, 3, 4));
    listed.is(500);
    asked.is(500);
    both("ejected").await;
    assert!(got.seen().iter().all(|seen| header(seen, "x-probe").is_empty() || seen.uri == "/v1/models?x=1"));
    let evidence = rig.stop().await;
    is_whole(&evidence);
    assert!(attempts(&evidence).is_empty());
    let is_probe = |outcome: &&&Outcome| outcome.asked.operation.as_ref().unwrap().as_str() == "probe";
    let outcomes = evidence.outcomes();
    let probes: Vec<_> = outcomes.iter().filter(is_probe).collect();
    assert!(probes.iter().all(|it| it.asked.provider.as_ref().unwrap().as_str() == "posted"));
    assert!(probes.iter().all(|it| it.caller.consumer.is_none() && it.delivered == Some(0)));
    let ends: BTreeSet<_> =
        probes.iter().map(|it| (format!("{:?}", it.end), it.provider_status.unwrap_or(0))).collect();
    let wanted = [("Complete", 200), ("Complete", 500), ("Complete", 503), ("Timeout", 0)];
    assert!(wanted.iter().all(|(end, status)| ends.contains(&((*end).to_owned(), *status))), "{ends:?}");
    let sent = posted.seen().iter().filter(|seen| !header(seen, "x-probe").is_empty()).count();
    assert_eq!(probes.len(), sent, "each prompt is in the log");
}

/// Answers probes as its mood says, and embeds everything alike whatever its mood is.
async fn embedder(mood: &Mood) -> Provider {
    let mood = mood.clone();
    Provider::start(move |seen| {
        let mood = mood.clone();
        async move {
            if seen.uri.path() != EMBEDDINGS {
                return mood.answer().await;
            }
            let vector =
                r#"{"data":[{"index":0,"embedding":[1,0]}],"usage":{"prompt_tokens":1,"total_tokens":1}}"#;
            whole(200, "application/json", vector)
        }
    })
    .await
}

const EMBEDDINGS: &str = "/v1/embeddings";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_only_embeds_is_probed_and_not_asked_while_it_fails_its_probes() {
    let mood = Mood::new(200);
    let (embeds, chats) = (embedder(&mood).await, good().await);
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: embeds, dialect: openai, base_url: \"http://{}\", health: {{ active: {{ path: /v1/models, every: 1s, timeout: 500ms, healthy: {{ successes: 1 }}, unhealthy: {{ failures: 1 }} }} }} }}\n",
            embeds.address
        ),
        more_routes: "  - { name: pick, path: /pick, targets: [{ name: near, provider: openai, examples: [hello] }, { name: far, provider: openai }], \
                      balance: { by: semantic, semantic: { provider: embeds, model: m, threshold: 0.5, fallback: far } } }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&chats, setup).await;
    let embedded = || embeds.seen().iter().filter(|seen| seen.uri.path() == EMBEDDINGS).count();
    let asked = async |words: &str| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{words}"}}]}}"#);
        assert_eq!(post(&rig, &format!("/pick/{CHAT}"), body).await.0, 200);
    };
    let comes = async |what: &str, count: usize| {
        for _ in 0..200 {
            if embedded() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: {} embeddings", embedded());
    };
    let probed = async |result: &str, least: u64| {
        let series = format!("gateway_provider_probes_total{{provider=\"embeds\",result=\"{result}\"}}");
        for _ in 0..200 {
            if value(&rig, &series).await >= least {
                return value(&rig, &series).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("fewer than {least} probes are {result}");
    };
    comes("the example", 1).await;
    asked("in order").await;
    comes("a prompt", 2).await;
    let healthy = probed("healthy", 1).await;

    mood.is(503);
    probed("unhealthy", 1).await;
    asked("ejected").await;
    // Nor is an example that is new.
    let path = rig.dir.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("[hello]", "[hello there]");
    std::fs::write(&path, text).unwrap();
    for _ in 0..200 {
        if value(&rig, "gateway_reloads_total{result=\"taken\"}").await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    asked("ejected still").await;
    probed("unhealthy", 3).await;
    assert_eq!(embedded(), 2, "it fails its probes, and is asked all the same");

    mood.is(200);
    probed("healthy", healthy + 1).await;
    comes("the new example", 3).await;
    asked("back").await;
    comes("a prompt again", 4).await;
    let ejected = value(&rig, "gateway_semantic_choices_total{route=\"pick\",why=\"ejected\"}").await;
    assert_eq!(ejected, 2);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let told: Vec<_> = intents(&evidence)
        .into_iter()
        .filter_map(|intent| {
            let choice = intent.choice.as_ref()?;
            Some((choice.why.as_str(), intent.asked.target.as_ref()?.as_str(), choice.embedded.is_some()))
        })
        .collect();
    let (matched, ejected) = (("matched", "near", true), ("ejected", "far", false));
    assert_eq!(told, [matched, ejected, ejected, matched]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_priorities_and_weight_0_hold_for_many_at_once() {
    let mood = Mood::new(200);
    let (all, bad) = (mood.provider().await, failing(500, "{}").await);
    let weighed = ["a", "b", "c"].iter().zip([5, 3, 2]);
    let weighed: Vec<_> =
        weighed.map(|(name, weight)| marked(name, &format!(", weight: {weight}"))).collect();
    let setup = Setup {
        more_providers: provider("bad", bad.address),
        more_routes: format!(
            "  - {{ name: w, path: /w, targets: [{}, {}, {}] }}\n",
            weighed.join(", "),
            marked("zero", ", weight: 0"),
            marked("low", ", priority: 1")
        ) + &format!(
            "  - {{ name: last, path: /last, targets: [{}, {{ name: high, provider: bad }}, {{ name: low, provider: bad, priority: 1 }}], retry: {{ attempts: 3 }} }}\n",
            marked("rest", ", weight: 0")
        ),
        ..Setup::default()
    };
    let rig = Rig::start(&all, setup).await;
    ask_often(&rig, "w", 200).await;
    let wanted = [("a", 100), ("b", 60), ("c", 40)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(by_target(&all), BTreeMap::from(wanted), "exact over the sum of the weights");
    assert_eq!(ask(&rig, "last").await, 200);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let mut counts = BTreeMap::new();
    for outcome in outcomes_of(&evidence, "w") {
        *counts.entry(served(outcome).to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts, by_target_of(&[("a", 100), ("b", 60), ("c", 40)]));
    let wanted = [
        "0 end high status Complete 500",
        "1 open low fallback",
        "1 end low status Complete 500",
        "2 open rest fallback",
    ];
    assert_eq!(told(&evidence, &outcomes_of(&evidence, "last")[0].exchange), wanted, "weight 0 comes last");
}

fn by_target_of(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Three providers `a`, `b`, `c`, the last of which has a mood, with their lines.
async fn three() -> (Vec<Provider>, Mood, String) {
    let mood = Mood::new(200);
    let all = vec![good().await, good().await, mood.provider().await];
    let lines = ["a", "b", "c"].iter().zip(&all).map(|(name, it)| provider(name, it.address)).collect();
    (all, mood, lines)
}

const THREE: &str = "targets: [{ provider: a }, { provider: b }, { provider: c }]";

/// Sends each request and gives the target that the provider of the next seen one has, by how many each saw.
async fn targets_of(all: &[Provider], rig: &Rig, requests: Vec<Request<Full<Bytes>>>) -> Vec<usize> {
    let mut targets = Vec::new();
    for request in requests {
        let before: Vec<usize> = all.iter().map(|it| it.seen().len()).collect();
        assert_eq!(read(rig.send(request).await).await.0, 200);
        let after = all.iter().map(|it| it.seen().len());
        // Where one failed, the later one of the two answered: only the last is in a mood.
        targets.push(after.zip(before).position(|(after, before)| after > before).unwrap());
    }
    targets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_value_leads_to_the_same_target_and_only_a_leaving_ones_move() {
    let (all, mood, lines) = three().await;
    let route = |name: &str, hash: &str| {
        format!("  - {{ name: {name}, path: /{name}, {THREE}, balance: {{ by: hash, hash: {hash} }} }}\n")
    };
    let setup = Setup {
        more_providers: lines,
        more_routes: route("h", "'header:x-session'") + &route("u", "consumer") + &route("k", "conversation"),
        ..Setup::default()
    };
    let rig = Rig::start(&all[0], setup).await;
    let of_session = |session: usize| {
        let request = rig.post(&format!("/h/{CHAT}")).header("x-session", format!("session {session}"));
        request.body(Full::from(QUESTION)).unwrap()
    };
    let sessions = || (0..45).map(of_session).collect::<Vec<_>>();
    let first = targets_of(&all, &rig, sessions()).await;
    let share = |target: usize| first.iter().filter(|it| **it == target).count();
    assert!((0..3).all(|target| (6..=26).contains(&share(target))), "{first:?}");
    assert_eq!(targets_of(&all, &rig, sessions()).await, first);
    mood.is(503);
    let without = targets_of(&all, &rig, sessions()).await;
    for (before, after) in first.iter().zip(&without) {
        assert!(*after != 2 && (*before == 2 || before == after), "{first:?} {without:?}");
    }
    let moved: BTreeSet<_> =
        first.iter().zip(&without).filter(|(was, _)| **was == 2).map(|(_, is)| *is).collect();
    assert_eq!(moved, BTreeSet::from([0, 1]), "its share goes to both others");
    mood.is(200);
    assert_eq!(targets_of(&all, &rig, sessions()).await, first, "and back");
    // Without the header: in turn.
    let plain = || rig.post(&format!("/h/{CHAT}")).body(Full::from(QUESTION)).unwrap();
    let mut turn = targets_of(&all, &rig, (0..3).map(|_| plain()).collect()).await;
    turn.sort_unstable();
    assert_eq!(turn, [0, 1, 2]);

    let keys: Vec<String> =
        (0..8).map(|n| issue_key(&rig.dir.path().join("keys.yaml"), &format!("consumer-{n}"))).collect();
    let by = |key: &String| {
        let request = Request::post(format!("/u/{CHAT}")).header("host", "gateway");
        let request = request.header("authorization", format!("Bearer {key}"));
        request.header("content-type", "application/json").body(Full::from(QUESTION)).unwrap()
    };
    for _ in 0..200 {
        if read(send(rig.address, by(&keys[7])).await).await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = targets_of(&all, &rig, keys.iter().map(by).collect()).await;
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 1, "{first:?}");
    assert_eq!(targets_of(&all, &rig, keys.iter().map(by).collect()).await, first);

    let turn = |number: usize, more: &str| {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"question {number}"}}{more}]}}"#
        );
        rig.post(&format!("/k/{CHAT}")).body(Full::from(body)).unwrap()
    };
    let first = targets_of(&all, &rig, (0..12).map(|number| turn(number, "")).collect()).await;
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
    let more = r#",{"role":"assistant","content":"a"},{"role":"user","content":"and then?"}"#;
    let second = targets_of(&all, &rig, (0..12).map(|number| turn(number, more)).collect()).await;
    assert_eq!(second, first);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = outcomes_of(&evidence, "h");
    assert_eq!(of.len(), 4 * 45 + 3);
    let at_c = |some: &[&Outcome]| some.iter().filter(|outcome| served(outcome) == "c").count();
    assert_eq!(at_c(&of[..45]), share_of(&of[45..90], "c"));
    assert_eq!(at_c(&of[90..135]), 0);
    let turned = of.iter().filter(|outcome| outcome.served.is_some()).count();
    assert_eq!(turned, at_c(&of[..45]), "each of them was tried where it belongs");
}

fn share_of(some: &[&Outcome], target: &str) -> usize {
    some.iter().filter(|outcome| served(outcome) == target).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_keeps_its_target_and_one_that_had_to_move_stays_there() {
    let (all, mood, lines) = three().await;
    let setup = Setup {
        more_providers: lines,
        more_routes: format!("  - {{ name: s, path: /s, {THREE}, balance: {{ sticky: conversation }} }}\n"),
        ..Setup::default()
    };
    let rig = Rig::start(&all[0], setup).await;
    let turns = |turn: usize| -> Vec<_> {
        let more = r#",{"role":"assistant","content":"a"},{"role":"user","content":"more"}"#.repeat(turn);
        let body = |number: usize| {
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"question {number}"}}{more}]}}"#)
        };
        let request = |body: String| rig.post(&format!("/s/{CHAT}")).body(Full::from(body)).unwrap();
        (0..9).map(|number| request(body(number))).collect()
    };
    let first = targets_of(&all, &rig, turns(0)).await;
    assert!((0..3).all(|target| first.iter().filter(|it| **it == target).count() == 3), "{first:?}");
    assert_eq!(targets_of(&all, &rig, turns(1)).await, first);
    mood.is(500);
    let moved = targets_of(&all, &rig, turns(2)).await;
    assert!(first.iter().zip(&moved).all(|(was, is)| *is != 2 && (*was == 2 || was == is)));
    mood.is(200);
    assert_eq!(targets_of(&all, &rig, turns(3)).await, moved);
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = outcomes_of(&evidence, "s");
    assert_eq!(of.iter().filter(|outcome| outcome.served.is_some()).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quicker_the_cheaper_and_the_sounder_target_gets_the_requests() {
    let plain = good().await;
    let slow = Provider::start(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        whole(200, "application/json", COMPLETION)
    })
    .await;
    let failed = Mood::new(500);
    let flaky = failed.provider().await;
    let row = |model: &str, price: u64| {
        format!(
            "{model},openai,{model},standard,,2020-01-01,,USD,{price},,,,{price},,,,https://x.test,2026-01-01,\n"
        )
    };
    let book = "id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,\
        cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note\n"
        .to_owned()
        + &row("dear", 9)
        + &row("cheap", 2);
    let priced = ["unknown", "dear", "cheap"].map(|name| marked(name, &format!(", model: {name}")));
    let setup = Setup {
        more_providers: provider("slow", slow.address) + &provider("flaky", flaky.address),
        more_routes: format!(
            "  - {{ name: l, path: /l, targets: [{{ provider: slow }}, {}], balance: {{ by: latency }} }}\n",
            marked("quick", "")
        ) + &format!(
            "  - {{ name: p, path: /p, targets: [{}], balance: {{ by: cost }} }}\n",
            priced.join(", ")
        ) + &format!(
            "  - {{ name: e, path: /e, targets: [{{ provider: flaky }}, {}], balance: {{ by: errors }} }}\n",
            marked("sound", "")
        ),
        rest: "prices: prices.csv\n".into(),
        ..Setup::default()
    };
    let rig = Rig::start_with(&plain, setup, &[("prices.csv", &book)]).await;
    for _ in 0..40 {
        assert_eq!(ask(&rig, "l").await, 200);
    }
    let seen = slow.seen().len();
    assert!((1..=8).contains(&seen), "{seen} of 40 to the slow one");
    for _ in 0..10 {
        assert_eq!(ask(&rig, "p").await, 200);
    }
    assert_eq!(by_target(&plain).get("cheap"), Some(&10), "{:?}", by_target(&plain));
    for _ in 0..10 {
        assert_eq!(ask(&rig, "e").await, 200);
        failed.is(200);
    }
    let seen = flaky.seen().len();
    assert_eq!((seen, by_target(&plain)["sound"]), (1, 10), "what failed is not soon forgotten");
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let of = outcomes_of(&evidence, "p");
    assert!(of.iter().all(|it| it.cost.as_ref().is_some_and(|cost| cost.price_row.as_str() == "cheap")));
    let of = outcomes_of(&evidence, "e");
    let wanted = ["0 end flaky status Complete 500", "1 open sound fallback"];
    assert_eq!(told(&evidence, &of[0].exchange), wanted);
    assert!(of.iter().all(|outcome| served(outcome) == "sound"));
}

/// Answers Responses, each under another id, as a stream where it is asked for.
async fn responding(failing_once: bool) -> Provider {
    let (number, left) = (AtomicUsize::new(0), AtomicUsize::new(usize::from(failing_once)));
    Provider::start(move |seen| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let id = format!(
            "resp_{}_{}",
            seen.headers["host"].to_str().unwrap().len(),
            number.fetch_add(1, Ordering::SeqCst)
        );
        let id = format!("{id}_{}", header(&seen, "host").rsplit(':').next().unwrap_or_default());
        let streams = seen.body.windows(13).any(|word| word == b"\"stream\":true");
        async move {
            if fails {
                return whole(500, "application/json", "{}");
            }
            let usage = r#""usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}"#;
            let response = format!(
                r#"{{"id":"{id}","object":"response","status":"completed","model":"m","output":[],{usage}}}"#
            );
            if !streams {
                return whole(200, "application/json", response);
            }
            let (sender, answer) = events();
            for kind in ["response.created", "response.completed"] {
                sender
                    .send(format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{response}}}\n\n"))
                    .await;
            }
            answer
        }
    })
    .await
}

/// The id of a response, whole or streamed.
fn id_of(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let from = text.find("\"id\":\"").unwrap() + 6;
    text[from..].split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_responses_goes_on_where_it_was_served() {
    let all = [responding(false).await, responding(false).await, responding(true).await];
    let lines: Vec<_> =
        ["a", "b", "c"].iter().zip(&all).map(|(name, it)| provider(name, it.address)).collect();
    let route = |name: &str, balance: &str| {
        format!(
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: c }}, {{ provider: a }}, {{ provider: b }}], balance: {{ {balance} }} }}\n"
        )
    };
    let setup = Setup {
        more_providers: lines.concat(),
        more_routes: route("s", "sticky: conversation") + &route("k", "by: hash, hash: conversation"),
        ..Setup::default()
    };
    let rig = Rig::start(&all[0], setup).await;
    // The next turn is known only where its beginning was made.
    let where_made =
        |id: &str| all.iter().position(|it| id.ends_with(&it.address.port().to_string())).unwrap();
    for route in ["s", "k"] {
        let mut chains: Vec<(String, usize)> = Vec::new();
        for number in 0..9 {
            let stream = if number % 3 == 0 { r#","stream":true"# } else { "" };
            let body = format!(r#"{{"model":"m","input":"question {number}"{stream}}}"#);
            let (status, _, body) = post(&rig, &format!("/{route}/v1/responses"), body).await;
            assert_eq!(status, 200);
            let id = id_of(&body);
            chains.push((id.clone(), where_made(&id)));
        }
        let places: BTreeSet<usize> = chains.iter().map(|(_, place)| *place).collect();
        assert_eq!(places.len(), 3, "{route}: {chains:?}");
        for turn in 0..3 {
            for (id, place) in &mut chains {
                let stream = if turn == 1 { r#","stream":true"# } else { "" };
                let body = format!(r#"{{"model":"m","previous_response_id":"{id}","input":"more"{stream}}}"#);
                let (status, _, body) = post(&rig, &format!("/{route}/v1/responses"), body).await;
                assert_eq!(status, 200);
                *id = id_of(&body);
                assert_eq!(where_made(id), *place, "{route} {turn}");
            }
        }
    }
    let evidence = rig.stop().await;
    is_whole(&evidence);
    assert_eq!(evidence.outcomes().len(), 2 * 9 * 4);
    let turned: Vec<_> = evidence.outcomes().into_iter().filter(|it| it.served.is_some()).collect();
    assert_eq!(turned.len(), 1, "the first one failed before it was made, and went on where it was served");
    assert_eq!(told(&evidence, &turned[0].exchange)[0], "0 end c status Complete 500");
}

/// A provider that sends `head`, then `again` until it is let go; the count of connections that have ended.
async fn endless(
    head: &'static [u8],
    again: &'static [u8],
    pause: Duration,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 8192];
                let _ = stream.read(&mut buffer).await;
                let mut sent = stream.write_all(head).await;
                while sent.is_ok() {
                    tokio::select! {
                        read = stream.read(&mut buffer) => match read {
                            Ok(0) | Err(_) => break,
                            Ok(_) => {}
                        },
                        () = tokio::time::sleep(pause) => sent = stream.write_all(again).await,
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, ended)
}

/// A provider that resets each connection in the middle of the head.
async fn resetting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // What is closed with bytes unread is reset.
            let _ = stream.readable().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-").await;
        }
    });
    address
}

const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_gets_past_every_way_to_fail_and_each_attempt_is_in_the_log() {
    let (good, oops) = (good().await, failing(500, "oops").await);
    let limited = Mood::new(429).provider().await;
    let error = r#"{"error":{"message":"m","type":"server_error","code":null}}"#;
    let error_first = Provider::start(move |_| async move {
        let (sender, response) = events();
        sender.send(format!("data: {error}\n\n")).await;
        response
    })
    .await;
    let moment = Duration::from_millis(20);
    let (comments, comments_ended) = endless(EVENTS, b": wait\n\n", moment).await;
    let (heads, heads_ended) = endless(b"HTTP/1.1 200 OK\r\n", &[b'x'; 1 << 16], moment).await;
    let ways: Vec<(&str, SocketAddr, &str)> = vec![
        ("refused", nobody().await, "connect Unreachable"),
        ("reset", resetting().await, "aborted ProviderAbort"),
        ("no-http", raw(b"\x16\x03\x01 not http at all\r\n\r\n", false).await, "aborted ProviderAbort"),
        ("heads", heads, "aborted ProviderAbort"),
        (
            "no-chunk",
            raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", true).await,
            "aborted ProviderAbort 200",
        ),
        ("silent", raw(b"", true).await, "timeout Timeout"),
        ("comments", comments, "timeout Timeout 200"),
        ("limited", limited.address, "status Complete 429"),
        ("oops", oops.address, "status Complete 500"),
        ("error-first", error_first.address, "stream_error GatewayAbort 200"),
    ];
    let (mut providers, mut targets) = (provider("good", good.address), String::new());
    for (priority, (name, address, _)) in ways.iter().enumerate() {
        providers.push_str(&provider(name, *address));
        write!(targets, "{{ provider: {name}, priority: {priority}, first_byte: 1s }}, ").unwrap();
    }
    // Of a body that breaks off at once nothing goes to the caller.
    let halves: [(&str, &'static [u8]); 2] = [
        ("garbage", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"id\"\r\nzz\r\n"),
        ("cut", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"id\"\r\n0\r\nx\r\n\r\n"),
    ];
    let mut routes = format!(
        "  - {{ name: all, path: /all, targets: [{targets}{{ provider: good, priority: 99 }}], retry: {{ attempts: 16, budget: 100% }} }}\n"
    );
    for (name, bytes) in halves {
        providers.push_str(&provider(name, raw(bytes, true).await));
        writeln!(
            routes,
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name} }}, {{ provider: good, priority: 1 }}] }}"
        )
        .unwrap();
    }
    let setup = Setup {
        policy: Some("mode: enforce\ndefault: allow\n".into()),
        more_providers: providers,
        more_routes: routes,
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let (status, headers, body) = post(&rig, &format!("/all/{CHAT}"), STREAMED).await;
    assert_eq!((status, String::from_utf8_lossy(&body)), (200, format!("{}{DONE}", delta("x")).into()));
    assert!(headers.get("x-affidavit-reason").is_none());
    for (name, _) in halves {
        let (status, _, body) = post(&rig, &format!("/{name}/{CHAT}"), QUESTION).await;
        assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()), "{name}");
    }
    for (name, ended) in [("comments", comments_ended), ("heads", heads_ended)] {
        let let_go = wait_for(|| ended.load(Ordering::SeqCst) > 0).await;
        assert!(let_go, "{name} was not let go");
    }
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let outcome = outcomes_of(&evidence, "all")[0];
    let mut wanted = Vec::new();
    for (number, (name, _, end)) in ways.iter().enumerate() {
        if number > 0 {
            wanted.push(format!("{number} open {name} fallback"));
        }
        wanted.push(format!("{number} end {name} {end}"));
    }
    wanted.push(format!("{} open good fallback", ways.len()));
    let mut told = told(&evidence, &outcome.exchange);
    // Whether a stream's end comes in time to be read with its error is not said.
    for line in &mut told {
        *line = line.replace("stream_error Complete", "stream_error GatewayAbort");
    }
    assert_eq!(told, wanted);
    assert_eq!((served(outcome), outcome.end, outcome.provider_status), ("good", End::Complete, Some(200)));
    for attempt in attempts(&evidence) {
        match attempt.phase.as_str() {
            "open" => assert_eq!(attempt.verdict.as_ref().unwrap().decision, Decision::Allow),
            _ => {
                let usage = attempt.usage.as_ref().unwrap();
                let is_unknown = (usage.source, usage.role) == (UsageSource::Unknown, UsageRole::Incurred);
                let used = !["connect", "status"].contains(&attempt.reason.as_str());
                assert!(is_unknown || !used, "{}: {usage:?}", attempt.target);
                assert!(attempt.total_us.is_some());
            }
        }
    }
    for (name, _) in halves {
        let outcome = outcomes_of(&evidence, name)[0];
        let wanted = [format!("0 end {name} aborted ProviderAbort 200"), "1 open good fallback".to_owned()];
        assert_eq!(self::told(&evidence, &outcome.exchange), wanted);
    }
}

async fn wait_for(holds: impl Fn() -> bool) -> bool {
    for _ in 0..200 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_first_byte_every_failure_is_a_cut_and_no_other_target_is_asked() {
    let spare = good().await;
    let event = delta("x");
    let first: &'static str = Box::leak(format!("{:x}\r\n{event}\r\n", event.len()).into_boxed_str());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let begun: &'static str = Box::leak(format!("{head}{first}").into_boxed_str());
    let (broken, _) = endless(begun.as_bytes(), b"zz\r\n", Duration::from_millis(200)).await;
    let (stalled, stalled_ended) = endless(begun.as_bytes(), b"", Duration::from_millis(50)).await;
    let (streams, streams_ended) =
        endless(begun.as_bytes(), first.as_bytes(), Duration::from_millis(5)).await;
    let known = Provider::start(|_| async {
        let (sender, body) = pieces();
        tokio::spawn(async move {
            sender.send(&b"{\"id\":"[..]).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            sender.cut().await;
        });
        let response = Response::builder().header("content-type", "application/json");
        response.header("content-length", 100).body(body).unwrap()
    })
    .await;
    let (mut providers, mut routes) = (provider("spare", spare.address), String::new());
    for (name, address) in
        [("broken", broken), ("stalled", stalled), ("streams", streams), ("known", known.address)]
    {
        writeln!(
            providers,
            "  - {{ name: {name}, dialect: openai, base_url: \"http://{address}\", drain_after_abort: {{ time: 1s, bytes: 1KiB }} }}"
        )
        .unwrap();
        // Named, `aborted` waits for whole JSON: then nothing of it is behind the first byte.
        let aborted = if name == "known" { "" } else { "aborted, " };
        writeln!(
            routes,
            "  - {{ name: {name}, path: /{name}, targets: [{{ provider: {name} }}, {{ provider: spare, priority: 1 }}], retry: {{ attempts: 2, on: [connect, timeout, {aborted}429, 5xx] }} }}"
        )
        .unwrap();
    }
    let setup = Setup {
        limits: "{ idle: 1s }".into(),
        more_providers: providers,
        more_routes: routes,
        ..Setup::default()
    };
    let rig = Rig::start(&spare, setup).await;
    let mut got = BTreeMap::new();
    for (name, asked) in [("broken", STREAMED), ("stalled", STREAMED), ("known", QUESTION)] {
        let request = rig.post(&format!("/{name}/{CHAT}")).body(Full::from(asked)).unwrap();
        let mut response = rig.send(request).await;
        assert_eq!(response.status(), 200, "{name}");
        let mut bytes = Vec::new();
        let begun = Instant::now();
        let error = loop {
            match next(response.body_mut()).await {
                Some(Ok(piece)) => bytes.extend_from_slice(&piece),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(error.is_some(), "{name} has a clean end: {}", String::from_utf8_lossy(&bytes));
        assert!(begun.elapsed() < Duration::from_secs(3), "{name}");
        got.insert(name, bytes.len() as u64);
    }
    assert!(wait_for(|| stalled_ended.load(Ordering::SeqCst) > 0).await, "what stalls is let go");
    // A caller leaves a stream that never ends.
    let stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut caller, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = rig.post(&format!("/streams/{CHAT}")).body(Full::<Bytes>::from(STREAMED)).unwrap();
    let mut response = caller.send_request(request).await.unwrap();
    let seen = read_bytes(response.body_mut(), 3 * event.len()).await.len() as u64;
    assert_eq!(streams_ended.load(Ordering::SeqCst), 0);
    connection.abort();
    drop((response, caller));
    assert!(wait_for(|| streams_ended.load(Ordering::SeqCst) > 0).await, "what never ends is let go");
    assert!(spare.seen().is_empty());
    let evidence = rig.stop().await;
    is_whole(&evidence);
    assert!(attempts(&evidence).is_empty());
    let end = |name: &str| {
        let of = outcomes_of(&evidence, name);
        (of[0].end, of[0].status, of[0].provider_status)
    };
    assert_eq!(end("broken"), (End::ProviderAbort, Some(200), Some(200)));
    assert_eq!(end("stalled"), (End::Timeout, Some(200), Some(200)));
    assert_eq!(end("known"), (End::ProviderAbort, Some(200), Some(200)));
    assert_eq!(end("streams"), (End::ClientAbort, Some(200), Some(200)));
    for (name, bytes) in got {
        let outcome = outcomes_of(&evidence, name)[0];
        assert_eq!((outcome.delivered, outcome.released), (Some(bytes), Some(0)), "{name}");
    }
    let outcome = outcomes_of(&evidence, "streams")[0];
    assert!(outcome.delivered >= Some(seen));
    let kept = outcome.parts.iter().find(|part| part.part.as_str() == "provider_response").unwrap().length;
    let delivered = outcome.delivered.unwrap();
    assert!(
        (delivered..=delivered + 4096).contains(&kept),
        "{kept} kept of {delivered}: bounded as configured"
    );
}
