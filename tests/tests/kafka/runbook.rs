//! The runbook's sections on receipts, quarantine, gaps of the tap and `commit: kafka`, followed on a real broker.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use schemas::note::Ed25519Signer;
use schemas::ship::Chunk;
use schemas::{Sha256Hex, seal};
use tests::archiver::Archiver;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::process::http;
use tests::provider::Provider;
use tests::runbook::Host;
use tests::services::Kafka;
use tests::shipping::{Bench, RECEIPTS, TOPIC, Way};
use tests::tapped::{Mood, WebhookSink};

async fn call(gateway: &Gateway, count: usize) {
    calls(gateway, count, "runbook").await;
}

async fn calls(gateway: &Gateway, count: usize, text: &str) {
    for _ in 0..count {
        let message = serde_json::json!({ "role": "user", "content": text });
        let body = serde_json::json!({ "model": "gpt-4o-mini", "messages": [message] }).to_string();
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
}

fn until(what: &str, host: &Host, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "waited for {what}:\n{}\n{}",
            host.log("gateway"),
            host.log("archive")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The first seal of a log in a store.
fn first_seal(store: &Path) -> Option<Vec<u8>> {
    let log = std::fs::read_dir(store.join("test/gw1")).ok()?.next()?.ok()?.path();
    std::fs::read(log.join("0000000000.seal")).ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn receipts_that_do_not_come_and_what_a_forger_sends() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let store = dir.path().join("store");
    let out = format!("{{ directory: {} }}", store.display());
    let archiver =
        Archiver::prepare(dir.path(), "ar1", &Way::plain(&kafka), &out, &dir.path().join("trust.yaml"), "");
    let out = format!(
        "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {TOPIC}\n      receipts: {RECEIPTS}\n      timeout: 5s\n      \
         reship_after: 2s\n      archivers: [{}]\n",
        kafka.address, archiver.line,
    );
    let rest = "log: { format: json }\n".to_owned();
    let hook = WebhookSink::start(|_| Mood::Fail).await;
    let evidence = format!(
        "  segment: 1MiB\n  tap_keep: 1KiB\n  tap: [ {{ name: siem, webhook: {{ url: \"http://{}/\" }} }} ]\n",
        hook.address
    );
    let setup = Setup { provider: provider.url(), out, rest, evidence, ..Setup::default() };
    let gateway = Gateway::prepare(dir.path(), &setup);
    let mut host = Host::new(dir.path());
    host.serves(&gateway, dir.path());
    let config = dir.path().join("ar1/archive.yaml");
    let text = std::fs::read_to_string(&config).expect("the archiver's configuration");
    let metrics = text.lines().find_map(|line| line.strip_prefix("metrics: ")).expect("its metrics");
    host.set("ARCHIVER", metrics);
    host.set("STORE", store.display());
    host.set("QUARANTINE", dir.path().join("ar1/quarantine").display());
    host.unit("archive", &format!("gateway archive --log-format json -c {}", config.display()));
    host.start_gateway();
    call(&gateway, 3).await;
    let shown = || gateway.admin_get("/metrics").unwrap_or_default();
    until("no receipt", &host, || {
        let count = |line: &str| {
            line.strip_prefix("gateway_store_failures_total{reason=\"unanswered\"} ")?.parse().ok()
        };
        shown().lines().find_map(count).is_some_and(|count: u64| count > 0)
    });
    host.follow_from("stuck-receipts", 0);
    host.follow_from("archiver-lag", 0);
    // Somebody sends a receipt of nobody's, and a seal by another key.
    let note = first_seal(&store).expect("a seal in the store");
    let said = seal::parse_unverified(&note).expect("a seal");
    let forger = kafka.writer();
    forger.send(RECEIPTS, said.origin.as_str(), b"affidavit/receipt/v1\n");
    until("the forged receipt", &host, || shown().contains("gateway_receipts_forged_total 1"));
    host.follow_from("forged-receipts", 0);
    let forged = said.sign(&Ed25519Signer::from_seed([9; 32])).expect("a seal");
    let (length, sha256) = (forged.len() as u64, Sha256Hex::of(&forged));
    let name = schemas::ObjectName::Seal { origin: said.origin.clone(), batch: 0 };
    let chunk = Chunk { name, length, sha256, offset: 0, bytes: &forged };
    forger.send(TOPIC, said.origin.as_str(), &chunk.encode().expect("a chunk"));
    let address = metrics.parse().expect("an address");
    until("the forged seal", &host, || {
        http(address, "GET /metrics", b"")
            .contains("gateway_archive_set_aside_total{fault=\"forged_seal\"} 1")
    });
    call(&gateway, 1).await;
    host.follow_from("quarantine", 0);
    let kept = std::fs::read_dir(dir.path().join("kept")).expect("what was kept").count();
    assert_eq!(kept, 2, "a finding, and its bytes");
    // The sink is away while more is archived than is kept for it.
    calls(&gateway, 6, &"a large request ".repeat(40_000)).await;
    until("nothing but the archive to have it", &host, || {
        let text = shown();
        let of =
            |line: &str| text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
        of("gateway_records_behind{mark=\"archived\"}") == Some(0.0)
            && of("gateway_tap_kept_bytes").is_some_and(|bytes| bytes <= 1024.0)
            && of("gateway_journal_bytes").is_some_and(|bytes| bytes < 3e6)
    });
    hook.set(|_| Mood::Take);
    until("the gap", &host, || shown().contains("gateway_tap_gap_total{sink=\"siem\"} 1"));
    host.follow_from("tap-gap", 0);
    assert!(hook.book.all().iter().any(|tapped| tapped.kind == "tap_gap"));
}

/// A gateway with `commit: kafka`: its disk is its own; store, content keys and the secret are the deployment's.
fn committing(kafka: &Kafka, dir: &Path, name: &str, provider: &Provider) -> Gateway {
    let evidence = format!(
        "  commit:\n    kafka:\n      brokers: [\"{}\"]\n      lease: 3s\n      timeout: 5s\n      \
         secret: {{ file: {} }}\n      create: {{ partitions: 3, replication: 1 }}\n",
        kafka.address,
        tests::commit_secret(dir).display(),
    );
    let setup = Setup {
        name: name.to_owned(),
        provider: provider.url(),
        evidence,
        out: format!("{{ directory: {} }}", dir.join("store").display()),
        evidence_dir: Some(dir.join(format!("{name}-disk"))),
        rest: "log: { format: json }\n".into(),
        ..Setup::default()
    };
    let gateway = Gateway::prepare(&dir.join(name), &setup);
    let config = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let own = format!("{}/keytable", gateway.dir.display());
    let text = text.replace(&own, &dir.join("keytable").display().to_string());
    std::fs::write(&config, text).expect("the configuration");
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn brokers_that_are_away_a_fence_and_what_a_forger_commits() {
    let mut kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let gateway = committing(&kafka, dir.path(), "gw1", &provider);
    let mut survivor = committing(&kafka, dir.path(), "gw2", &provider);
    // One key for both, so that each can close what the other left.
    std::fs::copy(gateway.seal_key(), survivor.seal_key()).expect("a key");
    let mut host = Host::new(dir.path());
    host.serves(&gateway, &dir.path().join("gw1-disk"));
    host.set("STORE", dir.path().join("store").display());
    host.start_gateway();
    call(&gateway, 2).await;
    let forger = kafka.writer();
    for partition in 0..3 {
        forger.send_to("affidavit-commit", partition, "x", b"forged");
    }
    let page = |path: &str| gateway.admin_get(path).unwrap_or_default();
    until("the forged message", &host, || {
        let text = page("/metrics");
        let counted =
            text.lines().find_map(|line| line.strip_prefix("gateway_commit_messages_forged_total "));
        counted.is_some_and(|count| count != "0")
    });
    host.follow_from("forged-commit-messages", 0);
    kafka.pause();
    until("the lease to end", &host, || page("/readyz").contains("no_lease"));
    host.follow("no-lease", 0..1);
    kafka.resume();
    host.follow_from("no-lease", 1);
    call(&gateway, 2).await;
    survivor.serve();
    host.signal("gateway", Signal::STOP);
    until("the survivor to close the log", &host, || {
        survivor.log().contains("a dead gateway's log is closed")
    });
    host.signal("gateway", Signal::CONT);
    until("the fence to be found", &host, || page("/readyz").contains("fenced"));
    assert!(page("/metrics").contains("gateway_evidence_unavailable{reason=\"fenced\"} 1"));
    let one = std::fs::read_to_string(gateway.dir.join("trust.yaml")).expect("a trust file");
    let entry = &one[one.find("  - name:").expect("a gateway")..];
    let both = dir.path().join("both.yaml");
    std::fs::write(&both, format!("{one}{}", entry.replace("gw1", "gw2"))).expect("a trust file");
    host.set("TRUST", both.display());
    host.follow_from("fenced", 0);
    call(&gateway, 2).await;
}
