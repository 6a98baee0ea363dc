//! Receipts of callers with `commit: kafka`: a machine is lost with its disk, and what it promised is in the log all the same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tests::client::{Call, Leave, send_until};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::Kafka;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn every_receipt_of_a_machine_that_is_lost_with_its_disk_is_in_the_log_that_was_closed_from_the_brokers()
 {
    let rounds = if tests::long_round() { 8 } else { 2 };
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    let provider = Provider::start([]).await;
    let (disk, store) = (dir.path().join("disk"), dir.path().join("store"));
    let evidence = format!(
        "  commit:\n    kafka:\n      brokers: [\"{}\"]\n      lease: 2s\n      timeout: 5s\n      secret: {{ file: {} }}\n      \
         create: {{ partitions: 3, replication: 1 }}\n  segment: 4MiB\n",
        kafka.address,
        tests::commit_secret(dir.path()).display(),
    );
    let setup = Setup {
        provider: provider.url(),
        evidence,
        out: format!("{{ directory: {} }}", store.display()),
        evidence_dir: Some(disk.clone()),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare_promising(&dir.path().join("gw1"), &setup);
    let held: Arc<Mutex<Vec<String>>> = Arc::default();
    for round in 0..rounds {
        gateway.serve();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (held, address, key) = (held.clone(), gateway.address, gateway.key.clone());
            callers.spawn(async move {
                let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}"#;
                let call = Call::post("/openai/v1/chat/completions", &key, body);
                let leave = Leave { after_silence: Some(Duration::from_secs(20)), ..Leave::default() };
                loop {
                    let got = send_until(address, &call, leave).await;
                    if got.status == 0 {
                        break;
                    }
                    let headers =
                        got.headers.iter().filter(|(name, _)| name.starts_with("x-affidavit-receipt"));
                    let mut held = held.lock().expect("no caller died");
                    held.extend(headers.map(|(name, value)| format!("{name}: {value}")));
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(700 + 200 * round)).await;
        gateway.kill();
        while callers.join_next().await.is_some() {}
        std::fs::remove_dir_all(&disk).expect("a disk");
    }
    gateway.serve();
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let held = held.lock().expect("no caller died");
    std::fs::write(gateway.dir.join("receipts"), held.join("\n")).expect("a file");
    let path = |name: &str| gateway.dir.join(name).display().to_string();
    let (code, out, err) = gateway.auditor(&[
        "check-receipts".into(),
        path("receipts"),
        store.display().to_string(),
        "--trust".into(),
        path("trust.yaml"),
        "--state".into(),
        path("auditor-state"),
    ]);
    eprintln!("{rounds} machines lost, {} receipts, {} s", held.len(), begun.elapsed().as_secs());
    assert!(held.len() > 40, "{} receipts", held.len());
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with(&format!("VERIFIED {0} of {0} receipts", held.len())), "{out}");
}
