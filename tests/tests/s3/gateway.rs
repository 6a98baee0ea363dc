//! The real gateway with a bucket under Object Lock as its way out: what is archived is locked, once, and stays so
//! through kills and whatever a network and a store do.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::Dice;
use tests::archive::{self, BUCKET, check_and_copy};
use tests::client::{Call, Got, Leave, send, send_until};
use tests::gateway::{Gateway, Setup};
use tests::marks::Watch;
use tests::oracle::Evidence;
use tests::process::Process;
use tests::provider::Provider;
use tests::services::{Fault, FaultProxy, Minio, S3Server, Versitygw};

fn setup(provider: &Provider, endpoint: &str, evidence: &str) -> Setup {
    Setup {
        provider: provider.url(),
        out: archive::out(endpoint),
        environment: archive::environment(),
        evidence: format!("  segment: 4MiB\n{evidence}"),
        ..Setup::default()
    }
}

fn call(key: &str, tag: &str, filler: usize, dice: &mut Dice) -> Call {
    let filler: String = (0..filler / 16).map(|_| format!("{:016x}", dice.next())).collect();
    let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": dice.below(2) == 0,
        "messages": [{ "role": "user", "content": format!("{tag} {filler}") }] });
    Call::post("/openai/v1/chat/completions", key, body.to_string())
}

fn metric(gateway: &Gateway, line: &str) -> Option<f64> {
    let text = gateway.admin_get("/metrics")?;
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

async fn archived_under_lock(server: S3Server) {
    let dir = tempfile::tempdir().expect("a folder");
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &setup(&provider, &server.endpoint(), ""));
    let mut dice = Dice::new(7);
    let mut ids = HashSet::new();
    for n in 0..20 {
        let filler = if n == 5 { 3 << 20 } else { 200 };
        let got =
            send(gateway.address, &call(&gateway.key, &format!("tag-{n}-end"), filler, &mut dice)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert!(ids.insert(got.exchange().expect("an exchange's id").to_owned()));
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("everything is archived"), "{}", gateway.log());
    assert_eq!(
        std::fs::read_dir(dir.path().join("spool")).map(|l| l.flatten().count()).unwrap_or(0),
        2,
        "the empty reserve, and what is kept after its confirmation"
    );
    let objects = check_and_copy(&server, "", &gateway.store()).await;
    let evidence = Evidence::read(&gateway);
    for id in &ids {
        assert_eq!(evidence.outcome(id).map(|o| o["end"].as_str()), Some(Some("complete")), "{id}");
    }
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    // A second life reads the first one's end from the bucket.
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(check_and_copy(&server, "", &gateway.store()).await > objects);
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn traffic_is_archived_under_lock_in_minio() {
    archived_under_lock(Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn traffic_is_archived_under_lock_in_versitygw() {
    archived_under_lock(Versitygw::start()).await;
}

/// One call and what its caller got.
struct Remembered {
    tag: String,
    got: Got,
}

async fn killed_under_faults(server: S3Server) {
    let rounds = if tests::long_round() { 40 } else { 6 };
    let seed = std::env::var("AFFIDAVIT_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(20_261_121);
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().expect("a folder");
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultProxy::start(server.address);
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::prepare(dir.path(), &setup(&provider, &proxy.endpoint(), ""));
    let remembered = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let mut behind = 0;
    for round in 0..rounds {
        let watch = Watch::start(gateway.admin);
        gateway.serve();
        let weather = if round % 3 == 2 {
            vec![(1, Fault::Down)]
        } else {
            vec![
                (10, Fault::Pass),
                (3, Fault::Status(503)),
                (2, Fault::Delay(Duration::from_millis(300))),
                (4, Fault::CutAfter),
                (2, Fault::CutBefore),
                (1, Fault::LateAnswer(Duration::from_secs(4))),
            ]
        };
        proxy.mix(weather, seed + round);
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..4u64 {
            let mut dice = Dice::new(seed + round * 100 + caller);
            let (remembered, key, address) = (remembered.clone(), gateway.key.clone(), gateway.address);
            callers.spawn(async move {
                for n in 0.. {
                    let tag = format!("tag-{round}-{caller}-{n}-end");
                    let filler = dice.below(2000) as usize;
                    let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(20)) };
                    let got = send_until(address, &call(&key, &tag, filler, &mut dice), leave).await;
                    let dead = got.status == 0;
                    remembered.lock().expect("no caller died").push(Remembered { tag, got });
                    if dead {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(1500 + dice.below(2500))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
        behind += watch.end().iter().filter(|[journaled, .., archived]| journaled > archived).count();
    }
    let cut = proxy.handled().iter().filter(|h| h.fault == Fault::CutAfter && h.status == Some(200)).count();
    proxy.set(Fault::Pass);
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let objects = check_and_copy(&server, "", &gateway.store()).await;
    let evidence = Evidence::read(&gateway);
    let remembered = remembered.lock().expect("no caller died");
    let mut whole = 0;
    for Remembered { tag, got } in remembered.iter().filter(|r| r.got.whole && r.got.status == 200) {
        whole += 1;
        let id = got.exchange().expect("an exchange's id");
        let outcome = evidence.outcome(id);
        assert_eq!(outcome.map(|o| o["end"].as_str()), Some(Some("complete")), "{tag} {id}");
        let recorded = evidence
            .content(id, "client_response")
            .or(evidence.content(id, "provider_response"))
            .map(Vec::as_slice)
            .unwrap_or_default();
        assert!(recorded == got.body, "{tag}: the recorded answer is not the one that the caller got");
        let asked = evidence.content(id, "client_request").map(Vec::as_slice).unwrap_or_default();
        assert!(String::from_utf8_lossy(asked).contains(tag.as_str()), "{tag}: its request is another one's");
    }
    eprintln!(
        "{}: {rounds} kills, {} calls, {whole} whole, {objects} objects, {} S3 requests, {cut} answers cut after success, {} s, seed {seed}",
        server.name,
        remembered.len(),
        proxy.handled().len(),
        begun.elapsed().as_secs()
    );
    assert!(whole > 50 && cut > 0, "the load reached both cases");
    assert!(behind > 20, "the watermarks were read while the bucket was away: {behind} times");
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn what_was_acknowledged_is_archived_once_in_minio_through_kills_and_faults() {
    killed_under_faults(Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn what_was_acknowledged_is_archived_once_in_versitygw_through_kills_and_faults() {
    killed_under_faults(Versitygw::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_full_spool_refuses_until_the_bucket_is_back_and_loses_nothing() {
    let server = Versitygw::start();
    let dir = tempfile::tempdir().expect("a folder");
    server.create_locked_bucket(BUCKET).await;
    let proxy = FaultProxy::start(server.address);
    let provider = Provider::start([]).await;
    let more = "  batch_size: 4MiB\n  spool_bound: 16MiB\n";
    let mut gateway = Gateway::start(dir.path(), &setup(&provider, &proxy.endpoint(), more));
    let mut dice = Dice::new(3);
    let mut ids = HashSet::new();
    let mut ask = async |n: usize| {
        let got =
            send(gateway.address, &call(&gateway.key, &format!("tag-{n}-end"), 1 << 20, &mut dice)).await;
        if got.status == 200 {
            ids.insert(got.exchange().expect("an exchange's id").to_owned());
        }
        got
    };
    assert_eq!(ask(0).await.status, 200);
    proxy.set(Fault::Status(503));
    let mut refused = None;
    let mut told = String::new();
    for n in 1..200 {
        let got = ask(n).await;
        if got.status == 503 {
            refused = Some(got);
            break;
        }
        let ready = gateway.admin_get("/readyz").unwrap_or_default();
        if ready.contains("\nready: ") && ready.contains("the spool is full in about") {
            told = ready;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let refused = refused.expect("traffic is refused at the bound");
    assert_eq!(refused.header("x-affidavit-reason"), Some("spool_full"), "{}", refused.text());
    assert!(told.contains("ready: the store does not take batches (unavailable)"), "{told}");
    let ready = gateway.admin_get("/readyz").unwrap_or_default();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("spool_full"), "{ready}");
    assert!(
        metric(&gateway, r#"gateway_store_failures_total{reason="unavailable"}"#).is_some_and(|n| n > 0.0)
    );
    proxy.set(Fault::Pass);
    let begun = Instant::now();
    while ask(500).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let ids = ids.clone();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    check_and_copy(&server, "", &gateway.store()).await;
    let evidence = Evidence::read(&gateway);
    for id in &ids {
        assert_eq!(evidence.outcome(id).map(|o| o["end"].as_str()), Some(Some("complete")), "{id}");
    }
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_start_that_waits_for_its_bucket_serves_when_it_answers() {
    let server = Versitygw::start();
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    for away in [Fault::Down, Fault::Delay(Duration::from_secs(60)), Fault::Status(503)] {
        let dir = tempfile::tempdir().expect("a folder");
        let proxy = FaultProxy::start(server.address);
        proxy.set(away);
        let mut gateway = Gateway::prepare(dir.path(), &setup(&provider, &proxy.endpoint(), ""));
        gateway.spawn();
        gateway.wait_for_log("the start waits for the store", 2).await;
        gateway.process().expect("a process").signal(Signal::HUP);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ended = gateway.process().and_then(Process::ended);
        assert!(ended.is_none(), "{away:?}: {}", gateway.log());
        let ready = gateway.admin_get("/readyz").unwrap_or_default();
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        proxy.set(Fault::Pass);
        let begun = Instant::now();
        while !gateway.ready() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{away:?}: {}", gateway.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let call = call(&gateway.key, "tag-1-end", 100, &mut Dice::new(1));
        assert_eq!(send(gateway.address, &call).await.status, 200);
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        assert!(gateway.log().contains("everything is archived"), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_start_that_waits_for_its_bucket_ends_when_it_is_told_to_or_told_no() {
    let server = Versitygw::start();
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let proxy = FaultProxy::start(server.address);
    for away in [Fault::Down, Fault::Delay(Duration::from_secs(60))] {
        proxy.set(away);
        let mut gateway =
            Gateway::prepare(&dir.path().join(format!("{away:?}")), &setup(&provider, &proxy.endpoint(), ""));
        gateway.spawn();
        gateway.wait_for_log("the start waits for the store", 1).await;
        let begun = Instant::now();
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        assert!(begun.elapsed() < Duration::from_secs(8), "{away:?}: {:?}", begun.elapsed());
        // The next start finds nothing in its way.
        proxy.set(Fault::Pass);
        gateway.serve();
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    }
    for (status, code, wanted) in [
        (403, "AccessDenied", "`s3:ListBucket`"),
        (403, "InvalidAccessKeyId", "credentials"),
        (404, "NoSuchBucket", "`evidence.out.s3.bucket` is `evidence`"),
    ] {
        proxy.set(Fault::Answer(status, code));
        let gateway = Gateway::prepare(&dir.path().join(code), &setup(&provider, &proxy.endpoint(), ""));
        let begun = Instant::now();
        let (ended, said) = tokio::task::block_in_place(|| gateway.run(&["serve"]));
        assert!(ended == 1 && said.contains(code) && said.contains(wanted), "{ended} {said}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{code}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_bucket_that_is_away_keeps_no_gateway_that_knows_its_logs_from_serving() {
    let server = Versitygw::start();
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let proxy = FaultProxy::start(server.address);
    let mut gateway = Gateway::start(dir.path(), &setup(&provider, &proxy.endpoint(), ""));
    proxy.set(Fault::Delay(Duration::from_secs(60)));
    // Each leaves a log that waits for the bucket.
    for _ in 0..4 {
        let call = call(&gateway.key, "tag-1-end", 100, &mut Dice::new(1));
        assert_eq!(send(gateway.address, &call).await.status, 200);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        gateway.kill();
        let begun = Instant::now();
        gateway.serve();
        // One judgement of the bucket and one try of a log, 3 s each.
        assert!(begun.elapsed() < Duration::from_secs(11), "{:?}\n{}", begun.elapsed(), gateway.log());
    }
    proxy.set(Fault::Pass);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    check_and_copy(&server, "", &gateway.store()).await;
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_bucket_that_cannot_lock_is_refused_by_name() {
    let server = Versitygw::start();
    let dir = tempfile::tempdir().expect("a folder");
    server.client().create_bucket().bucket(BUCKET).send().await.expect("a bucket");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::prepare(dir.path(), &setup(&provider, &server.endpoint(), ""));
    gateway.spawn();
    let begun = Instant::now();
    while !gateway.log().contains("without_lock") {
        assert!(begun.elapsed() < Duration::from_secs(30) && !gateway.ready(), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = gateway.log();
    assert!(log.contains("bucket `evidence`, object lock: off"), "{log}");
}
