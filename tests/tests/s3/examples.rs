//! `deploy/examples/regulated` over a real bucket under Object Lock.

use std::process::Command;

use serde_json::json;
use tests::archive::{self, BUCKET, PREFIX};
use tests::client::{Call, send};
use tests::examples::Example;
use tests::provider::Provider;
use tests::services::{Minio, S3Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn the_regulated_set_up_locks_promises_holds_and_keeps_no_content_of_one_class() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, server) = (Provider::start([]).await, Minio::start());
    server.create_locked_bucket(BUCKET).await;
    let mut example = Example::copy("regulated", "127.0.0.1:8080", dir.path());
    example.provider("https://api.openai.com", &provider.url());
    let place = format!(
        "region: {}\n      endpoint: '{}'\n      path_style: true",
        S3Server::REGION,
        server.endpoint()
    );
    example.replace("region: eu-central-1", &place);
    example.replace("bucket: acme-evidence", &format!("bucket: {BUCKET}"));
    // Not kept for ten years.
    example.replace("records: 3650d", "records: 3d");
    example.replace("content: 365d", "content: 2d");
    example.replace("advice: 2555d", "advice: 1d");
    example.set(archive::environment());
    let key = example.issue(&["--consumer", "advice", "--team", "advisory", "--data-class", "confidential"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    let words = "a secret about somebody's health";
    let body =
        json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": words }] }).to_string();
    let call = |path: &str| Call::post(&format!("{path}/v1/chat/completions"), &key, body.clone());
    let refused = send(gateway.address, &call("/advice")).await;
    assert_eq!((refused.status, refused.header("x-affidavit-reason")), (400, Some("missing_fact")));
    let advice = call("/advice").header("x-purpose", "advice").header("x-subject", "ana");
    let advice = send(gateway.address, &advice).await;
    let health = send(gateway.address, &call("/health-data").header("x-purpose", "triage")).await;
    for got in [&advice, &health] {
        assert_eq!(got.status, 200, "{}\n{}", got.text(), gateway.log());
        assert!(got.header("x-affidavit-receipt").is_some(), "a receipt");
    }
    let (code, said) =
        gateway.run(&["hold", "add", "--case", "case-17", "--reason", "litigation", "--consumer", "advice"]);
    assert_eq!(code, 0, "{said}");
    let exchange = advice.exchange().expect("an id");
    let (code, said) = gateway.run(&["erase", "--exchange", exchange, "--reason", "request"]);
    assert!(code != 0 && said.contains("case-17"), "{said}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let auditor = |more: &[&str]| {
        let mut command = Command::new(tests::binary("auditor"));
        let file = |name: &str| dir.path().join(name).display().to_string();
        command.args(more).args([&format!("s3://{BUCKET}/{PREFIX}"), "--trust", &file("trust.yaml")]);
        command.args(["--endpoint-url", &server.endpoint(), "--path-style", "--state", &file("state")]);
        let output = command.envs(archive::environment()).output().expect("the auditor");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, said) =
        auditor(&["verify", "--key-table", &dir.path().join("keytable").display().to_string()]);
    assert!(code == Some(0) && said.starts_with("VERIFIED"), "{said}");
    // What was promised is there; of the class without content nothing is.
    std::fs::write(
        dir.path().join("receipts.txt"),
        [&advice, &health]
            .map(|got| format!("{}\n", got.header("x-affidavit-receipt").unwrap_or_default()))
            .concat(),
    )
    .expect("the receipts");
    let (code, said) = auditor(&["check-receipts", &dir.path().join("receipts.txt").display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let kept = dir.path().join("copy");
    let objects = archive::check_and_copy(&server, "acme", &kept).await;
    let evidence = tests::oracle::Evidence::read_from(
        &kept,
        &dir.path().join("trust.yaml"),
        &dir.path().join("keytable"),
    );
    assert!(evidence.content(exchange, "client_request").is_some());
    assert!(evidence.content(health.exchange().expect("an id"), "client_request").is_none());
    println!("{objects} objects under lock");
}
