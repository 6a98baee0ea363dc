//! Signals and commands of the program: reload, erasure with no gateway running, salvage.

use std::time::Duration;

use rustix::process::Signal;
use schemas::record::{Body, CloseReason, ConfigReason, End};

use crate::process::{Process, said};
use crate::provider::{COMPLETION, Provider, delta, events, whole};
use crate::rig::{Setup, read, read_bytes, send};

const QUESTION: &str = r#"{"model":"gpt-4.1-mini","messages":[]}"#;

async fn provider() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reloads_what_no_watch_can_see() {
    let provider = provider().await;
    // The policy lies behind a link that is turned over: nothing changes in the folder that is watched.
    let folders = tempfile::tempdir().unwrap();
    for (name, text) in [("a", "mode: enforce\ndefault: allow\n"), ("b", "mode: enforce\ndefault: deny\n")] {
        std::fs::create_dir(folders.path().join(name)).unwrap();
        std::fs::write(folders.path().join(name).join("policy.yaml"), text).unwrap();
    }
    let link = folders.path().join("link");
    std::os::unix::fs::symlink("a", &link).unwrap();
    let rest = format!("policy: {}/policy.yaml\n", link.display());
    let mut process = Process::start(&provider, Setup { rest, ..Setup::default() }).await;
    let ask = async || read(send(process.address, process.chat(QUESTION)).await).await.0;
    assert_eq!(ask().await, 200);
    std::os::unix::fs::symlink("b", folders.path().join("next")).unwrap();
    std::fs::rename(folders.path().join("next"), &link).unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(ask().await, 200, "not yet told");
    process.signal(Signal::HUP);
    process.wait_for("configuration reloaded").await;
    assert_eq!(ask().await, 403);
    // A configuration that is broken when the signal comes leaves the old one.
    std::fs::write(folders.path().join("b/policy.yaml"), "mode: [").unwrap();
    process.signal(Signal::HUP);
    process.wait_for("reload refused").await;
    assert_eq!(ask().await, 403);
    process.stop().await;
    let records = process.records();
    let reload = records.iter().position(
        |record| matches!(&record.body, Body::Config(config) if config.reason == ConfigReason::Reload),
    );
    let refusal = records.iter().position(|record| matches!(record.body, Body::Refusal(_)));
    assert!(reload.unwrap() < refusal.unwrap(), "CH-4");
    let Body::Config(config) = &records[reload.unwrap()].body else { panic!() };
    assert_eq!(records[refusal.unwrap()].config, config.next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_gateway_running_erase_works_in_an_epoch_of_its_own() {
    let provider = provider().await;
    let mut process = Process::start(&provider, Setup::default()).await;
    let (_, headers, _) = read(send(process.address, process.chat(QUESTION)).await).await;
    let exchange = headers["x-affidavit-exchange"].to_str().unwrap().to_owned();
    let (_, headers, _) = read(send(process.address, process.chat(QUESTION)).await).await;
    let kept = headers["x-affidavit-exchange"].to_str().unwrap().to_owned();
    process.stop().await;

    let arguments = ["erase", "-c", "gateway.yaml", "--exchange", &exchange, "--reason", "art17"];
    let first = process.run(&arguments);
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(String::from_utf8_lossy(&first.stdout), format!("{exchange} erased\n"));
    let again = process.run(&arguments);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(String::from_utf8_lossy(&again.stdout), format!("{exchange} was erased before\n"));
    let unknown = "00000000-0000-7000-8000-000000000000";
    let refused = process.run(&["erase", "-c", "gateway.yaml", "--exchange", unknown]);
    assert!(!refused.status.success(), "{}", said(&refused));

    let records = process.records();
    let erased: Vec<_> = records
        .iter()
        .filter_map(|record| if let Body::Erasure(it) = &record.body { Some(it) } else { None })
        .collect();
    assert!(!erased.is_empty());
    assert!(erased.iter().all(|it| it.exchange.as_str() == exchange && it.reason.as_str() == "art17"));
    assert!(!erased.iter().any(|it| it.exchange.as_str() == kept));
    let count = |kind: &str| records.iter().filter(|record| record.body.kind() == kind).count();
    assert!(count("boot") >= 2, "the erasure has an epoch of its own");
    assert_eq!(count("boot"), count("close"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn salvage_closes_a_dead_hosts_log_and_no_gateway_serves_over_it_again() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take();
        async move { response.unwrap_or_else(|| whole(200, "application/json", COMPLETION)) }
    })
    .await;
    let mut process = Process::start(&provider, Setup::default()).await;
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let mut response = send(process.address, process.chat(asked)).await;
    sender.send(delta("x")).await;
    read_bytes(response.body_mut(), delta("x").len()).await;
    assert_eq!(read(send(process.address, process.chat(QUESTION)).await).await.0, 200);
    process.kill();

    // The dead host's disk, as it is found elsewhere.
    let (journal, found) = (process.dir.path().join("journal"), process.dir.path().join("found"));
    std::fs::rename(&journal, &found).unwrap();
    let salvaged = process.run(&["salvage", "-c", "gateway.yaml", "found"]);
    assert!(salvaged.status.success(), "{}", said(&salvaged));
    let told = String::from_utf8_lossy(&salvaged.stdout).into_owned();
    assert!(told.contains(" closed: ") && told.contains("all of it is in the store"), "{told}");
    let records = process.records();
    let Body::Close(close) = &records.last().unwrap().body else { panic!("the last record is `close`") };
    assert_eq!(close.reason, CloseReason::Salvaged);
    let mut ends: Vec<String> = records
        .iter()
        .filter_map(|record| if let Body::Outcome(it) = &record.body { Some(it.end) } else { None })
        .map(|end: End| format!("{end:?}"))
        .collect();
    ends.sort();
    assert_eq!(ends, ["Complete", "Interrupted"]);

    std::fs::rename(&found, &journal).unwrap();
    let served = process.run(&["serve", "-c", "gateway.yaml"]);
    assert!(!served.status.success(), "a salvaged journal is not served over: {}", said(&served));
    assert_eq!(process.records().len(), records.len());
    let nowhere = process.run(&["salvage", "-c", "gateway.yaml", "nowhere"]);
    assert!(!nowhere.status.success(), "{}", said(&nowhere));
}
