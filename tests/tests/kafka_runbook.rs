//! The runbook's sections on receipts and quarantine, followed on a real broker.

use std::path::Path;
use std::time::{Duration, Instant};

use schemas::note::Ed25519Signer;
use schemas::ship::Chunk;
use schemas::{Sha256Hex, seal};
use tests::archiver::Archiver;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::process::http;
use tests::runbook::Host;
use tests::shipping::{Bench, RECEIPTS, TOPIC, Way};

async fn call(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"runbook"}]}"#;
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
    let gateway =
        Gateway::prepare(dir.path(), &Setup { provider: provider.url(), out, rest, ..Setup::default() });
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
}
