//! How long and how large an answer may be, and what of the way to a provider is its own.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

const QUESTION: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_large_or_too_long_is_cut_and_the_record_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let routes = "  - name: small\n    path: /small\n    targets: [ { name: t, provider: openai, answer: 4KiB } ]\n  \
                  - name: brief\n    path: /brief\n    targets: [ { name: t, provider: openai, answer_time: 1s } ]\n  \
                  - name: still\n    path: /still\n    targets: [ { name: t, provider: openai, idle: 1s } ]\n  \
                  - name: free\n    path: /free\n    provider: openai\n"
        .to_owned();
    let limits = "  answer: 1MiB\n".to_owned();
    let setup = Setup { provider: provider.url(), routes, limits, ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let ask = async |route: &str, script: &str| {
        let path = format!("/{route}/v1/chat/completions");
        let call = Call::post(&path, &gateway.key, QUESTION).header("x-replay", format!("script:{script}"));
        let begun = Instant::now();
        (send(gateway.address, &call).await, begun.elapsed())
    };
    let (whole, _) = ask("small", "large:5000").await;
    assert_eq!((whole.status, whole.header("x-affidavit-reason")), (502, Some("answer_too_large")));
    let (fits, _) = ask("small", "large:4096").await;
    assert_eq!((fits.status, fits.body.len()), (200, 4096));
    let (free, _) = ask("free", "large:5000").await;
    assert_eq!((free.status, free.body.len()), (200, 5000));
    let (over, _) = ask("free", "large:2000000").await;
    assert_eq!(over.header("x-affidavit-reason"), Some("answer_too_large"));
    let (many, _) = ask("small", "fast:2000").await;
    assert!(many.status == 200 && many.body.len() <= 5000, "{}", many.body.len());
    assert!(many.text().contains("affidavit_answer_too_large"), "{}", many.text());
    let (slow, took) = ask("brief", "slow:2000").await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    assert!(slow.text().contains("affidavit_answer_too_long"), "{}", slow.text());
    let (short, _) = ask("small", "fast:3").await;
    assert!(short.status == 200 && short.text().contains("[DONE]"), "{}", short.text());
    let (silent, took) = ask("still", "stall:2").await;
    assert!(took < Duration::from_secs(8) && !silent.text().contains("[DONE]"), "{took:?}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let told = |got: &tests::client::Got| {
        let outcome = evidence.outcome(got.exchange().expect("an id")).expect("an outcome");
        (outcome["end"].as_str().unwrap_or_default(), outcome["reason"].as_str().unwrap_or_default())
    };
    assert_eq!(told(&whole), ("gateway_abort", "answer_too_large"));
    assert_eq!(told(&many), ("gateway_abort", "answer_too_large"));
    assert_eq!(told(&slow), ("gateway_abort", "answer_too_long"));
    assert_eq!(told(&silent), ("timeout", "provider_timeout"));
    assert_eq!(told(&short), ("complete", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_s_own_path_is_asked_for_what_uses_tokens_and_no_connection_is_kept_where_none_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let providers = format!(
        "  - {{ name: served, dialect: openai, base_url: \"{}/base\", keep_alive: 0s, connect: 2s, idle_connections: 4, price_as: openai }}\n",
        provider.url()
    );
    let routes = "  - name: served\n    path: /served\n    targets: [ { name: t, provider: served, path: '/endpoints/chat/v1/chat/completions?region=eu' } ]\n  \
                  - name: spoken\n    path: /spoken\n    dialect: anthropic\n    targets: [ { name: t, provider: served, path: '/endpoints/chat/v1/chat/completions?region=eu' } ]\n"
        .to_owned();
    let setup = Setup { provider: provider.url(), providers, routes, ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let question =
        json!({ "model": "gpt-4o-mini", "max_tokens": 9, "messages": [{ "role": "user", "content": "Hi" }] });
    for path in ["/served/v1/chat/completions?a=1", "/spoken/v1/messages"] {
        let got = send(gateway.address, &Call::post(path, &gateway.key, question.to_string())).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let list = Call { method: "GET".into(), ..Call::post("/served/v1/models", &gateway.key, "") };
    send(gateway.address, &list).await;
    let lines: Vec<String> = provider.seen().iter().map(|seen| seen.line.clone()).collect();
    let own = "POST /base/endpoints/chat/v1/chat/completions?region=eu";
    assert_eq!(lines, [own, own, "GET /base/v1/models"]);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}
