//! AWS Bedrock: boto3, unmodified, through the running gateway, to a provider that checks each signature with botocore.

use std::path::Path;

use serde_json::Value;
use tests::bedrock::{Bedrock, KEYS, python, write_key};
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;

/// Puts another access key in the place of the first while the gateway runs, and calls with it.
async fn rotate(gateway: &Gateway) {
    let reloaded = gateway.log().matches("configuration reloaded").count();
    write_key(&gateway.dir, KEYS[1]);
    gateway.wait_for_log("configuration reloaded", reloaded + 1).await;
    let call = Call::post("/bedrock/model/m/converse", &gateway.key, r#"{"messages":[]}"#);
    let got = send(gateway.address, &call).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

/// A gateway whose route `/bedrock` signs for `url`, and where it takes TLS: boto3 sends a bearer over nothing else.
fn gateway(dir: &Path, url: &str) -> (Gateway, String) {
    let setup = Setup {
        provider: url.to_owned(),
        providers: tests::bedrock::provider(dir, url),
        routes: "  - { name: bedrock, path: /bedrock, provider: bedrock }\n".into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir, &setup);
    write_key(dir, KEYS[0]);
    let tls = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("tls.crt"), tls.cert.pem()).expect("the certificate");
    std::fs::write(dir.join("tls.key"), tls.signing_key.serialize_pem()).expect("its key");
    let secure = tests::process::free_port();
    let config = dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let listen = format!(
        "listen:\n  - {{ address: '{secure}', tls: {{ certificate: {d}/tls.crt, key: {d}/tls.key }} }}\n",
        d = dir.display()
    );
    std::fs::write(&config, text.replacen("listen:\n", &listen, 1)).expect("the configuration is written");
    gateway.serve();
    (gateway, format!("https://{secure}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python with boto3; the test command installs and runs it"]
async fn boto3_gets_through_the_gateway_what_it_gets_from_bedrock() {
    let dir = tempfile::tempdir().expect("a folder");
    let seen = dir.path().join("seen");
    let bedrock = Bedrock::start(&seen);
    let url = bedrock.url.clone();
    let (mut gateway, secure) = gateway(dir.path(), &url);
    let output = tokio::task::block_in_place(|| {
        python()
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .arg(tests::root().join("tests/bedrock"))
            .env("AFFIDAVIT_PROVIDER", &url)
            .env("AFFIDAVIT_GATEWAY", format!("http://{}", gateway.address))
            .env("AFFIDAVIT_GATEWAY_TLS", secure)
            .env("AFFIDAVIT_CA", dir.path().join("tls.crt"))
            .env("AFFIDAVIT_KEY", &gateway.key)
            .env("AFFIDAVIT_SEEN", &seen)
            .output()
    })
    .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
    rotate(&gateway).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    // Every signature held: the gateway's own, on every request, and none of a caller's went on.
    let seen: Vec<Value> = std::fs::read_to_string(&seen)
        .expect("what the provider saw")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let through: Vec<_> = seen.iter().filter(|line| KEYS.iter().any(|key| line["key"] == key[0])).collect();
    assert_eq!(through.iter().filter(|line| line["key"] == KEYS[1][0]).count(), 1, "the key after the first");
    assert!(through.len() > 60, "{} requests came through", through.len());
    for line in &seen {
        assert!(line["error"].is_null() && line["key"] != "AKIDCALLER", "{line}");
    }
    assert!(
        through.iter().any(|line| line["bytes"].as_u64() > Some(4_000_000)),
        "a body from disk was signed"
    );

    let evidence = Evidence::read(&gateway);
    let outcomes: Vec<_> = evidence.of_kind("outcome").collect();
    assert_eq!(
        outcomes.len(),
        through.len(),
        "outcomes and requests that the provider saw through the gateway"
    );
    let of = |operation: &str| {
        let found = outcomes
            .iter()
            .find(|o| o["asked"]["operation"] == operation && o["status"] == 200 && o["end"] == "complete");
        *found.unwrap_or_else(|| std::panic::panic_any(format!("no whole {operation}: {outcomes:#?}")))
    };
    for operation in ["converse", "converse_stream"] {
        let usage = &of(operation)["usage"];
        let classes = [
            "input_tokens",
            "uncached_input_tokens",
            "cache_read_tokens",
            "cache_write_5m_tokens",
            "output_tokens",
        ];
        assert_eq!(
            classes.map(|class| usage[class].as_i64()),
            [Some(55), Some(12), Some(40), Some(3), Some(6)],
            "{operation}"
        );
        assert_eq!(usage["source"], "provider", "{operation}");
        assert_eq!(of(operation)["answered"]["finish_reasons"][0], "end_turn", "{operation}");
    }
    assert_eq!(of("invoke_model")["usage"]["reported"]["input"], 21);
    let streamed = of("invoke_model_stream");
    assert_eq!(
        (&streamed["usage"]["reported"]["output"], &streamed["answered"]["served_model"]),
        (&6.into(), &"claude-sonnet-4-5".into())
    );
    assert_eq!(of("count_tokens")["usage"]["source"], "not_applicable");
    assert!(outcomes.iter().any(|o| o["end"] == "client_abort"), "the caller that left is recorded as such");
    let thrown = outcomes
        .iter()
        .find(|o| o["answered"]["error_type"] == "throttlingException")
        .expect("thrown in a stream");
    assert_eq!(thrown["status"], 200);
    assert!(evidence.of_kind("refusal").count() >= 1);
    // No key of anyone stands in a record, in content or in a log line.
    let leaves = evidence.leaves.iter().map(|leaf| leaf.leaf.as_slice());
    let secrets: Vec<&str> =
        KEYS.iter().flat_map(|key| &key[1..]).copied().chain([gateway.key.as_str()]).collect();
    for kept in evidence.contents().map(Vec::as_slice).chain(leaves).chain([gateway.log().as_bytes()]) {
        for secret in &secrets {
            assert!(!kept.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} was kept");
        }
    }
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
