//! Quotas hold for what is sent: under an alias, with what a target puts in, in another dialect; and every answer says what is
//! left.

use std::sync::Arc;
use std::time::Duration;

use gateway::keys::{Allow, KeyRequest, Listed};
use http::HeaderMap;
use http_body_util::Full;
use tokio::sync::Semaphore;

use crate::balanced::{CHAT, is_whole};
use crate::provider::{COMPLETION, Provider, whole};
use crate::rig::{Rig, Setup, issue_asked, read, send};
use crate::routes::{QUESTION, failing, good, nobody, post, provider};

const BOOK: &str = include_str!("../../../policies/prices/2026-11.csv");

/// A chat of so many output tokens at most.
fn asking(model: &str, bound: u32) -> String {
    format!(r#"{{"model":"{model}","max_tokens":{bound},"messages":[{{"role":"user","content":"Hi"}}]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_at_once_under_an_alias_as_many_pass_as_a_budget_holds() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Provider::start({
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                whole(200, "application/json", COMPLETION)
            }
        }
    })
    .await;
    let money = |name: &str, rest: &str| {
        format!(
            "    - {{ name: {name}, {rest}, count: money, currency: USD, limit: 0.05, calendar: month }}\n"
        )
    };
    let setup = Setup {
        more_routes: "  - { name: a, path: /a, provider: openai, models: { smart: gpt-4o } }\n  \
             - { name: m, path: /m, targets: [{ provider: openai, model: gpt-4o }] }\n"
            .into(),
        rest: format!(
            "prices: prices.csv\nquotas:\n  rules:\n{}{}",
            money("of-caller", "match: { routes: [a] }, by: [consumer]"),
            money("of-target", "match: { routes: [m], targets: [openai] }")
        ),
        ..Setup::default()
    };
    let rig = Rig::start_with(&held, setup, &[("prices.csv", BOOK)]).await;
    for (at, route) in ["a", "m"].into_iter().enumerate() {
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let request = rig.post(&format!("/{route}/{CHAT}"));
                let request = request.body(Full::from(asking("smart", 1000))).unwrap();
                let address = rig.address;
                tokio::spawn(async move { read(send(address, request).await).await.0 })
            })
            .collect();
        // Nobody gets an answer before all are let through or refused.
        for _ in 0..1200 {
            let refused = callers.iter().filter(|caller| caller.is_finished()).count();
            if refused + held.seen().len() - 4 * at >= 100 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let passed = held.seen().len() - 4 * at;
        gate.add_permits(passed);
        let told = futures_util::future::join_all(callers).await;
        let (fine, full): (Vec<_>, Vec<_>) = told.into_iter().map(Result::unwrap).partition(|it| *it == 200);
        // Each may cost a cent and a little.
        assert_eq!((passed, fine.len()), (4, 4), "{route}");
        assert!(full.iter().all(|status| *status == 429), "{full:?}");
    }
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_target_puts_into_a_request_is_reserved() {
    let good = good().await;
    let targets = [
        ("plain", "{ provider: openai }"),
        ("bounded", "{ provider: openai, parameters: { max_output: 4000 } }"),
        ("forced", "{ provider: openai, parameters: { forced: { max_tokens: 4000 } } }"),
        ("many", "{ provider: openai, parameters: { forced: { n: 300 } } }"),
        ("default", "{ provider: openai, parameters: { defaults: { max_completion_tokens: 4000 } } }"),
        ("less", "{ provider: openai, parameters: { max_output: 100 } }"),
        ("claude", "{ provider: claude }"),
    ];
    let route = |(name, target): (&str, &str)| {
        format!("  - {{ name: {name}, path: /{name}, dialect: openai, targets: [{target}] }}\n")
    };
    let setup = Setup {
        more_providers: format!(
            "  - {{ name: claude, dialect: anthropic, base_url: \"http://{}\" }}\n",
            nobody().await
        ),
        more_routes: targets.map(route).concat(),
        rest: "quotas:\n  rules:\n    \
             - { name: own, match: { routes: [\"!claude\"] }, by: [route], count: tokens, limit: 2000, calendar: month }\n    \
             - { name: translated, match: { routes: [claude] }, count: output_tokens, limit: 8000, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let unbounded = asking("m", 10).replace(r#""max_tokens":10,"#, "");
    let image = asking("m", 10).replace(
        r#""content":"Hi""#,
        r#""content":[{"type":"image_url","image_url":{"url":"https://a.test/1"}},{"type":"image_url","image_url":{"url":"https://a.test/2"}}]"#,
    );
    let table = [
        ("plain", asking("m", 10), 200),
        ("plain", image, 429),
        ("bounded", asking("m", 10), 429),
        ("forced", asking("m", 10), 429),
        ("many", asking("m", 10), 429),
        ("default", asking("m", 10), 429),
        ("less", asking("m", 4000), 200),
        // What is translated gets a bound where it has none.
        ("claude", unbounded, 429),
        ("claude", asking("m", 10), 502),
    ];
    for (name, body, status) in table {
        assert_eq!(post(&rig, &format!("/{name}/{CHAT}"), body.clone()).await.0, status, "{name} {body}");
    }
    is_whole(&rig.stop().await);
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_what_is_left_by_the_tightest_rule() {
    let good = good().await;
    let oops = failing(500, "{}").await;
    let setup = Setup {
        more_providers: provider("nobody", nobody().await) + &provider("oops", oops.address),
        more_routes: "  - { name: none, path: /none, provider: nobody }\n  \
             - { name: spare, path: /spare, targets: [{ provider: oops }, { provider: nobody, priority: 1 }] }\n"
            .into(),
        rest: "quotas:\n  rules:\n    \
             - { name: of-caller, by: [consumer, route], count: requests, limit: 3, per: 1d, warn_at: [0.3] }\n    \
             - { name: of-target, by: [target], count: requests, limit: 1000000, per: 1m }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    for (path, status, rules) in [("openai", 200, 2), ("none", 502, 1), ("spare", 500, 1)] {
        let (got, headers, _) = post(&rig, &format!("/{path}/{CHAT}"), QUESTION).await;
        assert_eq!(got, status, "{path}");
        let left = (text(&headers, "x-ratelimit-limit"), text(&headers, "x-ratelimit-remaining"));
        assert_eq!(left, ("3", "2"), "{path}: {headers:?}");
        assert!(text(&headers, "ratelimit").starts_with("\"of-caller\";r=2;"), "{path}: {headers:?}");
        assert!(text(&headers, "ratelimit").split(", ").count() >= rules, "{path}: {headers:?}");
        assert!(text(&headers, "ratelimit-policy").contains("\"of-caller\";q=3;"), "{path}");
        assert_eq!(text(&headers, "x-affidavit-quota-warning"), "\"of-caller\";used=0.33", "{path}");
    }
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_leads_past_no_quota_and_no_key() {
    let good = good().await;
    let setup = Setup {
        route: ", models: { smart: gpt-4o, cheap: gpt-4o-mini, odd: o3 }".into(),
        rest: "quotas:\n  rules:\n    \
             - { name: none, match: { models: [gpt-4o] }, count: requests, limit: 0, calendar: month }\n    \
             - { name: each, by: [model], count: requests, limit: 2, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    let path = format!("/openai/{CHAT}");
    let ask = async |key: &str, model: &str| {
        let request = http::Request::post(path.as_str())
            .header("host", "gateway")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        read(rig.send(request.body(Full::from(asking(model, 9))).unwrap()).await).await.0
    };
    for (model, status) in [
        ("gpt-4o", 429),
        ("smart", 429),
        ("cheap", 200),
        ("gpt-4o-mini", 200),
        ("cheap", 429),
        ("gpt-4o-mini", 429),
    ] {
        assert_eq!(ask(&rig.key, model).await, status, "{model}");
    }
    let issue = |patterns: &[&str]| {
        let mut models = Listed::default();
        assert!(patterns.iter().all(|pattern| models.add(pattern)));
        let consumer = Some(schemas::Identifier::new("narrow").unwrap());
        let allow = Allow { models, ..Allow::default() };
        let request = KeyRequest { consumer, allow, ..KeyRequest::default() };
        issue_asked(&rig.dir.path().join("keys.yaml"), request)
    };
    let (without, named, meant) = (issue(&["!o3*"]), issue(&["odd"]), issue(&["o3*"]));
    // The keys file is read again while the gateway runs.
    for _ in 0..200 {
        if ask(&meant, "odd").await != 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (key, model, status) in [
        (&without, "o3", 403),
        (&without, "odd", 403),
        (&without, "other", 200),
        (&named, "o3", 403),
        (&named, "odd", 200),
        (&meant, "odd", 403),
        (&meant, "o3", 200),
    ] {
        assert_eq!(ask(key, model).await, status, "{model}");
    }
    is_whole(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_reserved_for_a_full_target_is_reserved_anew_for_the_next() {
    let good = good().await;
    let target = |name: &str, most: u32, priority: u32| {
        format!(
            "{{ name: {name}, provider: openai, priority: {priority}, parameters: {{ max_output: {most} }} }}"
        )
    };
    let setup = Setup {
        more_routes: format!(
            "  - {{ name: two, path: /two, targets: [{}, {}] }}\n",
            target("small", 10, 0),
            target("large", 4000, 1)
        ),
        rest: "quotas:\n  rules:\n    \
             - { name: once, match: { targets: [small] }, count: requests, limit: 1, calendar: month }\n    \
             - { name: tokens, by: [consumer], count: tokens, limit: 2000, calendar: month }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&good, setup).await;
    for status in [200, 429] {
        assert_eq!(post(&rig, &format!("/two/{CHAT}"), asking("m", 10)).await.0, status);
    }
    let evidence = rig.stop().await;
    is_whole(&evidence);
    let limit = evidence.refusals()[0].limit.clone().unwrap();
    assert_eq!((limit.rule.as_str(), limit.used.as_str()), ("tokens", "12"), "what was given back is free");
}
