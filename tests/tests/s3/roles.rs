//! The roles and the policy of `deploy/s3`, on servers that judge policies: what each role needs works, what it must not do is
//! refused, and the programs do their work under them.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use tests::archive::{self, BUCKET, PREFIX, check_and_copy};
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Minio, S3Server, Versitygw};

fn python(server: &S3Server) -> Command {
    let python = std::env::var("AFFIDAVIT_PYTHON").expect("AFFIDAVIT_PYTHON, as `tests/run` sets it");
    let mut command = Command::new(python);
    command
        .envs(S3Server::environment())
        .env("AWS_DEFAULT_REGION", S3Server::REGION)
        .env("AFFIDAVIT_S3", server.endpoint())
        .env("AFFIDAVIT_S3_NAME", server.name)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a file of `tests/roles` against a server.
fn pass(server: &S3Server, file: &str) {
    let output = python(server)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests::root().join("tests/roles").join(file))
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{}: {said}", server.name);
    assert!(output.status.success(), "{said}{}\n{}", String::from_utf8_lossy(&output.stderr), server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn each_role_may_what_it_needs_and_nothing_that_harms() {
    let server = Minio::start();
    tokio::task::block_in_place(|| pass(&server, "test_roles.py"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn the_bucket_s_policy_does_what_deploy_s3_says_of_each_server() {
    for server in [Minio::start(), Versitygw::start()] {
        tokio::task::block_in_place(|| pass(&server, "test_bucket_policy.py"));
    }
}

/// The variables of a process in a role.
fn session(server: &S3Server, role: &str) -> Vec<(String, String)> {
    let output = python(server)
        .arg(tests::root().join("tests/roles/roles.py"))
        .args([role, BUCKET, PREFIX, "test"])
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let keys: std::collections::BTreeMap<String, String> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| std::panic::panic_any(format!("{e}: {said}")));
    archive::environment().into_iter().chain(keys).collect()
}

/// The auditor in a role: exit code and what it printed.
fn auditor(environment: &[(String, String)], args: &[&str]) -> (i32, String) {
    let output = Command::new(tests::binary("auditor"))
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the auditor's binary");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn gateway_registrar_prober_and_auditor_do_their_work_in_their_roles() {
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let endpoint = server.endpoint();
    let setup = Setup {
        provider: provider.url(),
        out: archive::out(&endpoint),
        environment: session(&server, "gateway"),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(&dir.path().join("gateway"), &setup);
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &gateway.seal_key());
    // Two lives: the second reads what the first one left.
    for _ in 0..2 {
        gateway.serve();
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
        let call = Call::post("/openai/v1/chat/completions", &gateway.key, body);
        let got = send(gateway.address, &call).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    }
    let log = gateway.log();
    assert!(log.contains("everything is archived") && !log.contains("cannot be read"), "{log}");
    let mut registrar =
        deployment.registrar("registrar", &archive::out(&endpoint), &session(&server, "registrar"));
    registrar.spawn();
    let state = dir.path().join("state").display().to_string();
    let at = ["--endpoint-url", &endpoint, "--path-style", "--state", &state];
    let bucket = format!("s3://{BUCKET}");
    let probe = ["probe", &bucket, "--skip", "suspend_versioning"];
    let (code, said) = auditor(&session(&server, "prober"), &[&probe[..], &at].concat());
    assert_eq!(code, 0, "{said}");
    let store = format!("s3://{BUCKET}/{PREFIX}");
    let trust = deployment.trust_file().display().to_string();
    let verify = [&["verify", &store, "--trust", &trust][..], &at].concat();
    let reader = session(&server, "auditor");
    let began = Instant::now();
    let said = loop {
        let (code, said) = auditor(&reader, &verify);
        assert!(!said.contains("PERMISSION_MISSING"), "{said}");
        if code == 0 {
            break said;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{said}\n{}", registrar.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(said.starts_with("VERIFIED signed") && said.contains("; retention enforced: "), "{said}");
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    assert!(!registrar.log().contains("cannot be read"), "{}", registrar.log());
    check_and_copy(&server, "test/", &dir.path().join("copy")).await;
    // The prober's role reads no evidence, and says so.
    let (code, said) = auditor(&session(&server, "prober"), &verify);
    assert_eq!(code, 2, "{said}");
}
