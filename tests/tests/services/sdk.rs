//! The providers' own SDKs from PyPI, unmodified, through the running gateway.

use std::process::Command;

use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

/// Requests for these models find their quota used up: until the minute's end, or the month's.
const QUOTAS: &str = "\
quotas:
  rules:
    - { name: month, match: { models: [over-month] }, count: requests, limit: 0, calendar: month }
    - { name: second, match: { models: [over-second] }, count: requests, limit: 1, per: 2s }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python with openai and anthropic; the test command installs and runs them"]
async fn sdks_get_through_the_gateway_what_they_get_from_the_provider() {
    let python = std::env::var("AFFIDAVIT_PYTHON")
        .expect("AFFIDAVIT_PYTHON names a Python with tests/requirements.txt");
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    // Each dialect's callers in front of the other one's provider too.
    let routes = "  - { name: claude, path: /claude, dialect: openai, provider: anthropic }\n  \
                  - { name: gpt, path: /gpt, dialect: anthropic, provider: openai }\n"
        .to_owned();
    // With receipts: to an SDK they are headers like others.
    let mut gateway = Gateway::prepare_promising(
        dir.path(),
        &Setup { provider: provider.url(), routes, rest: QUOTAS.into(), ..Setup::default() },
    );
    gateway.serve();
    let command = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests::root().join("tests/sdk"))
        .env("AFFIDAVIT_PROVIDER", provider.url())
        .env("AFFIDAVIT_GATEWAY", format!("http://{}", gateway.address))
        .env("AFFIDAVIT_KEY", &gateway.key)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let output = tokio::task::block_in_place(|| command).expect("Python starts");
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let evidence = Evidence::read(&gateway);
    let outcomes: Vec<_> = evidence.of_kind("outcome").collect();
    // Every request that reached the provider with the gateway's own credential has an outcome.
    let through = provider
        .seen()
        .iter()
        .filter(|s| {
            s.header("authorization").is_some_and(|v| v.contains("sk-provider-secret"))
                || s.header("x-api-key").is_some_and(|v| v.contains("sk-provider-secret"))
        })
        .count();
    assert_eq!(outcomes.len(), through, "outcomes and requests that the provider saw through the gateway");
    assert!(outcomes.len() > 80, "{} outcomes", outcomes.len());
    assert!(evidence.of_kind("refusal").count() >= 2, "the wrong keys were refused and recorded");
    assert!(outcomes.iter().any(|o| o["end"] == "client_abort"), "the caller that left is recorded as such");
    // The provider's credential stands in no record, no content, no log line.
    for content in
        evidence.contents().map(Vec::as_slice).chain(evidence.leaves.iter().map(|l| l.leaf.as_slice()))
    {
        assert!(
            !content.windows(18).any(|w| w == b"sk-provider-secret"),
            "the provider's credential was recorded"
        );
    }
    assert!(!gateway.log().contains("sk-provider-secret"));
    for content in evidence.contents() {
        assert!(
            !content.windows(gateway.key.len()).any(|w| w == gateway.key.as_bytes()),
            "a gateway key was recorded"
        );
    }
    // Usage that streams did not ask for was asked for, and is recorded.
    let streamed: Vec<_> = outcomes
        .iter()
        .filter(|o| {
            o["asked"]["stream"] == true
                && o["asked"]["operation"] == "chat.completions"
                && o["end"] == "complete"
        })
        .collect();
    assert!(!streamed.is_empty());
    assert!(
        streamed.iter().all(|o| o["usage"]["reported"]["output"].is_i64() || o["status"] != 200),
        "{streamed:#?}"
    );
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
