//! A registry in a bucket: the auditor takes keys from it before it judges the bucket, and registrars write it there.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use aws_sdk_s3::types::ObjectLockMode;
use tests::archive::{self, BUCKET, PREFIX, check_and_copy};
use tests::audited::{Case, Evidence, auditor, codes, path};
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Fault, FaultProxy, Liar, Minio, S3Server, Versitygw};

fn compliance() -> Option<ObjectLockMode> {
    Some(ObjectLockMode::Compliance)
}

/// Whether some times of writing were not held against seals.
fn times_unjudged(report: &serde_json::Value) -> bool {
    report["not_checked"].to_string().contains("time of writing")
}

async fn judged_with_the_registry(server: &S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let mut whole = Case::new(server, "whole", compliance()).await;
    whole.put_registry().await;
    assert_eq!(whole.probe(&server.endpoint(), &[]).0, 0);
    // Locked for two days from when it was put: enough from the seal's time on, and not from Last-Modified.
    let (exit, report) = whole.verify(&["--require", "retention_enforced", "--require", "retention=2d"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    assert!(!times_unjudged(&report), "{report:#}");
    assert_eq!(report["registry"]["logs"], 1, "{report:#}");
    let (exit, report) =
        whole.verify(&["--since-last", "--require", "append_only", "--require", "retention=2d"]);
    assert_eq!((exit, &report["bucket"]["read"]), (0, &0.into()), "{}: {report:#}", server.name);

    // 40, 41: times of writing are held against the seals of the keys in force.
    let late = whole.mandate("store: { late: 1s }\n");
    whole.must_find("LATE_WRITE", &["--mandate", path(&late)]);
    let behind = Liar::rewriting(server.address, |asked, answer| {
        if asked.is_listing() {
            let hour = jiff::SignedDuration::from_hours(1);
            let earlier = |text: &str| text.parse::<jiff::Timestamp>().expect("a time") - hour;
            answer.rewrite("LastModified", |text| earlier(text).to_string());
        }
    })
    .await;
    whole.anew().must_find_at(&behind.endpoint, "TIME_CONTRADICTION", &[]);

    // 23, 24: the sealed version is not the oldest: of a log's seal, of the registry's own seal and of its checkpoint.
    let evidence = Evidence::shared();
    let of_registry = |end: &str| {
        let found = evidence.registry.iter().find(|(name, _)| name.ends_with(end));
        found.map(|(name, _)| name.clone()).unwrap_or_else(|| panic!("no {end}"))
    };
    let names = [evidence.seal().0.to_owned(), of_registry("0.seal"), of_registry("0.checkpoint")];
    for (n, name) in names.iter().enumerate() {
        let mut case = Case::empty(server, &format!("older-{n}"));
        case.put(name, b"another", compliance()).await;
        case.put_all(compliance()).await;
        case.put_registry().await;
        let report = case.must_find("SHADOWED", &[]);
        let found = codes(&report);
        let harm = ["SEAL_INVALID", "LOG_MISSING", "UNREGISTERED_LOG", "BATCH_MISSING"];
        assert!(
            !harm.iter().any(|code| found.contains(*code)) && !times_unjudged(&report),
            "{name}: the sealed version is the one that is verified: {report:#}"
        );
    }

    // Without the registry no key is in force: what is not judged for that is said.
    let mut alone = Case::new(server, "alone", compliance()).await;
    alone.trust.clone_from(&evidence.registry_trust);
    let report = alone.must_find("LOG_MISSING", &[]);
    assert!(times_unjudged(&report), "{report:#}");
    assert!(report["not_checked"].to_string().contains("no key of the log is in force"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_bucket_is_judged_with_the_keys_of_its_registry_on_minio() {
    judged_with_the_registry(&Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_bucket_is_judged_with_the_keys_of_its_registry_on_versitygw() {
    judged_with_the_registry(&Versitygw::start()).await;
}

/// One gateway and two registrars over a bucket: the registry is written under lock, each name once, also where a
/// registrar is killed and where an answer is lost after success.
async fn registered_in(server: S3Server) {
    let dir = tempfile::tempdir().expect("a folder");
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultProxy::start(server.address);
    let provider = Provider::start([]).await;
    let setup = Setup {
        provider: provider.url(),
        out: archive::out(&server.endpoint()),
        environment: archive::environment(),
        ..Setup::default()
    };
    let mut gateway = Gateway::start(&dir.path().join("gw1"), &setup);
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &gateway.seal_key());
    let registrar =
        |name| deployment.registrar(name, &archive::out(&proxy.endpoint()), &archive::environment());
    let (mut first, mut second) = (registrar("first"), registrar("second"));
    proxy.mix(vec![(6, Fault::Pass), (2, Fault::CutAfter), (1, Fault::Status(503))], 7);
    first.spawn();
    second.spawn();
    let ask = async |gateway: &Gateway| {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    };
    for n in 0..4 {
        ask(&gateway).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        if n == 1 {
            assert!(first.is_alive() && second.is_alive(), "{}{}", first.log(), second.log());
            first.kill();
        }
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    first.spawn();
    second.kill();
    proxy.set(Fault::Pass);
    let store = format!("s3://{BUCKET}/{PREFIX}");
    let (endpoint, state) = (server.endpoint(), dir.path().join("state"));
    let trust = deployment.trust_file();
    let verify = || {
        let arguments = ["verify", &store, "--trust", path(&trust), "--state", path(&state), "--path-style"];
        auditor(&[&arguments[..], &["--endpoint-url", &endpoint, "--format", "json"]].concat())
    };
    let began = Instant::now();
    let report = loop {
        let (exit, report) = verify();
        // The log is registered with its end: size and seal of the newest head are what `close` left.
        if exit == 0 && report["registry"]["logs"] == 1 {
            break report;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{}{report:#}", first.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(first.stop(), Some(0), "{}", first.log());
    assert!(!times_unjudged(&report), "{report:#}");
    let copy = dir.path().join("copy");
    let objects = check_and_copy(&server, "test/registry/", &copy).await;
    check_and_copy(&server, "test/gw1/", &copy).await;
    let seals =
        proxy.handled().iter().filter(|h| h.method == http::Method::PUT && h.path.contains(".seal")).count();
    let cut = proxy.handled().iter().filter(|h| h.fault == Fault::CutAfter && h.status == Some(200)).count();
    eprintln!(
        "{}: {objects} objects of the registry, {seals} PUTs of its seals, {cut} answers cut",
        server.name
    );
    assert!(objects >= 6 && cut > 0, "the load reached both cases");
    // The copy in a folder verifies too.
    let state = dir.path().join("copy-state");
    let arguments = ["verify", path(&copy), "--trust", path(&trust), "--state", path(&state)];
    let (exit, report) = auditor(&[&arguments[..], &["--format", "json"]].concat());
    assert_eq!(exit, 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn two_registrars_keep_a_registry_in_minio() {
    registered_in(Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn two_registrars_keep_a_registry_in_versitygw() {
    registered_in(Versitygw::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_round_that_a_slow_store_makes_long_says_what_it_waits_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultProxy::start(server.address);
    proxy.set(Fault::Delay(Duration::from_secs(2)));
    let deployment = Deployment::new(dir.path());
    deployment.enroll("gw1", &schemas::trust::key_text(&[9; 32]));
    let out = archive::out(&proxy.endpoint());
    let mut registrar = deployment.registrar("slow", &out, &archive::environment());
    registrar.spawn();
    registrar.until("the end of a long round", || registrar.log().contains("a round took long"));
    let log = registrar.log();
    let running = log.lines().find(|line| line.contains("a round takes long")).expect("told while it runs");
    assert!(running.contains("test/registry/log/0000000000") && running.contains("put"), "{log}");
    let ended = log.lines().find(|line| line.contains("a round took long")).expect("told once it ended");
    assert!(ended.contains("longest") && ended.contains("calls"), "{log}");
    proxy.set(Fault::Pass);
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
}
