//! All of it at once on a real S3 server: three gateways and two registrars, each killed at random, a network and a store
//! that fail, load from many callers. Afterwards everything that was acknowledged is archived once and under lock, and an
//! auditor who knows nothing but root and registry says so.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tests::Dice;
use tests::archive::{self, BUCKET, PREFIX, check_and_copy, versions};
use tests::audited::{auditor, path, probe};
use tests::client::{Call, Got, Leave, send_until};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tests::registrar::Registrar;
use tests::services::{Fault, FaultProxy, Minio, S3Server, Versitygw};

const GATEWAYS: [&str; 3] = ["gw1", "gw2", "gw3"];

/// One call to a gateway, and what its caller got.
struct Remembered {
    gateway: usize,
    tag: String,
    got: Got,
}

type Memory = Arc<Mutex<Vec<Remembered>>>;

fn weather() -> Vec<(u64, Fault)> {
    vec![
        (20, Fault::Pass),
        (3, Fault::Status(503)),
        (2, Fault::Delay(Duration::from_millis(200))),
        (4, Fault::CutAfter),
        (2, Fault::CutBefore),
        (1, Fault::LateAnswer(Duration::from_secs(4))),
    ]
}

fn call(key: &str, tag: &str, dice: &mut Dice) -> Call {
    let filler: String = (0..dice.below(100)).map(|_| format!("{:016x}", dice.next())).collect();
    let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": dice.below(2) == 0,
        "messages": [{ "role": "user", "content": format!("{tag} {filler}") }] });
    Call::post("/openai/v1/chat/completions", key, body.to_string())
}

/// A gateway is started, loaded and killed so many times.
async fn live(mut gateway: Gateway, number: usize, lives: u64, mut dice: Dice, memory: Memory) -> Gateway {
    for life in 0..lives {
        gateway = served(gateway).await;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..2 {
            let mut dice = Dice::new(dice.next());
            let (memory, key, address) = (memory.clone(), gateway.key.clone(), gateway.address);
            callers.spawn(async move {
                for n in 0.. {
                    let tag = format!("tag-{number}-{life}-{caller}-{n}-end");
                    let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(20)) };
                    let got = send_until(address, &call(&key, &tag, &mut dice), leave).await;
                    let dead = got.status == 0;
                    memory.lock().expect("no caller died").push(Remembered { gateway: number, tag, got });
                    if dead {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(800 + dice.below(2000))).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
    }
    gateway
}

async fn served(mut gateway: Gateway) -> Gateway {
    let serve = move || {
        gateway.serve_supervised();
        gateway
    };
    tokio::task::spawn_blocking(serve).await.expect("a gateway that gets ready")
}

/// Kills one registrar after the other until told to stop; both run then.
async fn unsettle(
    mut registrars: [Registrar; 2],
    mut dice: Dice,
    stop: Arc<AtomicBool>,
) -> ([Registrar; 2], u64) {
    let mut kills = 0;
    registrars.iter_mut().for_each(Registrar::spawn);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(1500))).await;
        let one = &mut registrars[usize::from(dice.below(2) == 1)];
        one.kill();
        one.spawn();
        kills += 1;
    }
    (registrars, kills)
}

async fn end_to_end(server: S3Server) {
    let lives = if tests::long_round() { 30 } else { 3 };
    let seed = std::env::var("AFFIDAVIT_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(20_261_121);
    let mut dice = Dice::new(seed);
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("a folder");
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    let (proxy, registry_proxy) = (FaultProxy::start(server.address), FaultProxy::start(server.address));
    let deployment = Deployment::new(&dir.path().join("deployment"));
    let gateways: Vec<Gateway> = GATEWAYS
        .iter()
        .map(|name| {
            let setup = Setup {
                name: (*name).into(),
                provider: provider.url(),
                out: archive::out(&proxy.endpoint()),
                environment: archive::environment(),
                evidence: "  segment: 4MiB\n".into(),
                ..Setup::default()
            };
            let gateway = Gateway::prepare(&dir.path().join(name), &setup);
            deployment.enroll(name, &gateway.seal_key());
            gateway
        })
        .collect();
    let out = archive::out(&registry_proxy.endpoint());
    let registrars = ["one", "two"].map(|name| deployment.registrar(name, &out, &archive::environment()));
    proxy.mix(weather(), seed);
    registry_proxy.mix(weather(), seed + 1);

    let memory = Memory::default();
    let stop = Arc::new(AtomicBool::new(false));
    let registrars = tokio::spawn(unsettle(registrars, Dice::new(dice.next()), stop.clone()));
    let running: Vec<_> = gateways
        .into_iter()
        .enumerate()
        .map(|(n, gateway)| tokio::spawn(live(gateway, n, lives, Dice::new(dice.next()), memory.clone())))
        .collect();
    let mut gateways = Vec::new();
    for gateway in running {
        gateways.push(gateway.await.expect("a gateway's lives"));
    }
    stop.store(true, Ordering::Relaxed);
    let (mut registrars, registrar_kills) = registrars.await.expect("the registrars");

    // The weather clears; everything is shipped and registered.
    proxy.set(Fault::Pass);
    registry_proxy.set(Fault::Pass);
    for gateway in &mut gateways {
        gateway.serve();
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    }
    let (found, _) = versions(&server.client(), &format!("{PREFIX}/test/gw")).await;
    let logs: BTreeSet<&str> = found.keys().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
    let trust = deployment.trust_file();
    let store = format!("s3://{BUCKET}/{PREFIX}");
    let (endpoint, state) = (server.endpoint(), dir.path().join("state"));
    let tables: Vec<String> =
        gateways.iter().map(|gateway| gateway.dir.join("keytable").display().to_string()).collect();
    let verify = |more: &[&str]| {
        let mut arguments =
            vec!["verify", &store, "--trust", path(&trust), "--state", path(&state), "--path-style"];
        arguments.extend(["--endpoint-url", &endpoint]);
        arguments.extend(tables.iter().flat_map(|table| ["--key-table", table.as_str()]));
        auditor(&[&arguments[..], more].concat())
    };
    let waited = Instant::now();
    loop {
        let (_, report) = verify(&["--since-last", "--format", "json"]);
        if report["registry"]["logs"].as_u64() == Some(logs.len() as u64) {
            break;
        }
        assert!(
            waited.elapsed() < Duration::from_secs(60),
            "{} logs: {report:#}\n{}",
            logs.len(),
            registrars[0].log()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for registrar in &mut registrars {
        assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    }

    // Every name once, under lock; every answer that a caller got whole is recorded as it was, once.
    let mut objects = check_and_copy(&server, "test/registry/", &dir.path().join("registry-copy")).await;
    let mut evidence = Vec::new();
    for (name, gateway) in GATEWAYS.iter().zip(&gateways) {
        objects += check_and_copy(&server, &format!("test/{name}/"), &gateway.store()).await;
        evidence.push(Evidence::read(gateway));
    }
    let memory = memory.lock().expect("no caller died");
    let mut whole = [0; 3];
    for Remembered { gateway, tag, got } in memory.iter().filter(|r| r.got.whole && r.got.status == 200) {
        whole[*gateway] += 1;
        let (id, evidence) = (got.exchange().expect("an exchange's id"), &evidence[*gateway]);
        let outcome = evidence.outcome(id);
        assert_eq!(outcome.map(|o| o["end"].as_str()), Some(Some("complete")), "{tag} {id}");
        let recorded = evidence.content(id, "client_response").or(evidence.content(id, "provider_response"));
        assert!(
            recorded.is_some_and(|recorded| *recorded == got.body),
            "{tag}: the recorded answer is not the one that the caller got"
        );
        let asked = evidence.content(id, "client_request").map(Vec::as_slice).unwrap_or_default();
        assert!(String::from_utf8_lossy(asked).contains(tag.as_str()), "{tag}: its request is another one's");
    }
    let handled: Vec<_> = [proxy.handled(), registry_proxy.handled()].concat();
    let cut = handled.iter().filter(|h| h.fault == Fault::CutAfter && h.status == Some(200)).count();
    eprintln!(
        "{}: {} gateway kills, {registrar_kills} registrar kills, {} logs, {} calls, {whole:?} whole, {objects} objects, \
         {} S3 requests, {cut} answers cut after success, {} s, seed {seed}",
        server.name,
        lives * 3,
        logs.len(),
        memory.len(),
        handled.len(),
        begun.elapsed().as_secs()
    );
    assert!(whole.iter().all(|n| *n > 10) && cut > 0, "the load reached every gateway and both cases");

    // What an auditor says who has root and registry, after a probe.
    let (exit, transcript) = probe(&endpoint, &format!("s3://{BUCKET}"), &state, &[]);
    assert_eq!(exit, 0, "{transcript:#}");
    let claims = ["signed", "content", "append_only", "retention_enforced", "retention=1d"];
    let required: Vec<&str> = claims.iter().flat_map(|claim| ["--require", *claim]).collect();
    for more in [&[][..], &["--since-last"]] {
        let (exit, said) = verify(&[&required, more].concat());
        let said = said.as_str().unwrap_or_default();
        assert!(exit == 0 && said.starts_with("VERIFIED signed"), "{said}");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.contains("retention enforced: ") && first.contains("probed at"), "{first}");
        assert!(!said.contains("time of writing"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn three_gateways_and_their_registry_are_whole_in_minio_after_kills_and_faults() {
    end_to_end(Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn three_gateways_and_their_registry_are_whole_in_versitygw_after_kills_and_faults() {
    end_to_end(Versitygw::start()).await;
}
