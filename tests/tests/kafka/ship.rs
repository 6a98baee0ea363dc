//! The real gateway with Kafka as its way out, and an archiver of the test's own: what is put together from the topic by
//! the format's text alone is whole, through dead gateways, dead brokers and topics that are made anew.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::ship::{Archived, Chunk, Receipt};
use schemas::trust::key_text;
use schemas::{ObjectName, Sha256Hex, seal};
use tests::client::{Call, Got, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Kafka, Writer};
use tests::shipping::{Bench, RECEIPTS, TOPIC};

const WAIT: Duration = Duration::from_secs(90);

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed([5; 32])
}

/// Reads chunks, writes whole objects below a folder, and answers whole batches. It believes everything.
struct Archiver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    fn start(kafka: &Kafka, store: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut config = kafka.client();
        config.set("group.id", "archivers").set("auto.offset.reset", "earliest");
        config.set("topic.metadata.refresh.interval.ms", "1000");
        let reader: BaseConsumer = config.create().expect("a reader");
        reader.subscribe(&[TOPIC]).expect("a topic");
        let mut work = Work { writer: kafka.writer(), store: store.to_owned(), pieces: BTreeMap::new() };
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
                    work.take(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    writer: Writer,
    store: PathBuf,
    pieces: BTreeMap<String, BTreeMap<u64, Vec<u8>>>,
}

impl Work {
    fn take(&mut self, key: &[u8], message: &[u8]) {
        let chunk = Chunk::decode(message).expect("a chunk");
        assert_eq!(key, chunk.name.origin().as_str().as_bytes());
        let pieces = self.pieces.entry(chunk.name.to_string()).or_default();
        pieces.insert(chunk.offset, chunk.bytes.to_vec());
        if pieces.values().map(|piece| piece.len() as u64).sum::<u64>() < chunk.length {
            return;
        }
        let bytes = self.pieces.remove(&chunk.name.to_string()).unwrap_or_default().into_values().flatten();
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(Sha256Hex::of(&bytes), chunk.sha256);
        let path = self.store.join(chunk.name.to_string());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        match std::fs::read(&path) {
            Ok(known) => assert!(known == bytes, "{} came with other bytes", chunk.name),
            Err(_) => std::fs::write(&path, &bytes).expect("an object"),
        }
        if matches!(chunk.name, ObjectName::Seal { .. }) {
            self.answer(&bytes);
        }
    }

    fn answer(&self, note: &[u8]) {
        let sealed = seal::parse_unverified(note).expect("a seal");
        let mut names: Vec<String> = sealed.files.iter().map(|file| file.name.clone()).collect();
        names.push(sealed.object_name().file_name());
        for name in &names {
            assert!(self.store.join(sealed.origin.as_str()).join(name).exists(), "`{name}` before its seal");
        }
        let objects =
            names.into_iter().map(|name| Archived { name, version: None, retain_until_s: None }).collect();
        let receipt = Receipt::of(&sealed, Sha256Hex::of(note), objects, sealed.time + 1);
        let receipt = receipt.sign("ar1", &signer()).expect("a receipt");
        self.writer.send(RECEIPTS, sealed.origin.as_str(), &receipt);
    }
}

fn setup(provider: &Provider, kafka: &Kafka, more: &str) -> Setup {
    let out = format!(
        "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {TOPIC}\n      receipts: {RECEIPTS}\n      timeout: 5s\n      \
         archivers: [{{ name: ar1, key: \"{}\" }}]\n{more}",
        kafka.address,
        key_text(&signer().public_key()),
    );
    Setup { provider: provider.url(), out, ..Setup::default() }
}

const CREATE: &str = "      create: { partitions: 3, replication: 1 }\n";

async fn calls(gateway: &Gateway, tag: &str, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for n in 0..count {
        // The third does not fit into one message.
        let filler: String = match n {
            2 => (0..200_000_u32).map(|i| format!("{:08x}", i.wrapping_mul(2_654_435_761))).collect(),
            _ => "x".repeat(200),
        };
        let body = serde_json::json!({ "model": "gpt-4o-mini",
            "messages": [{ "role": "user", "content": format!("{tag} {n} {filler}") }] });
        let call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string());
        let got: Got = send(gateway.address, &call).await;
        assert_eq!(got.status, 200, "{}", got.text());
        ids.insert(got.exchange().expect("an exchange's id").to_owned());
    }
    ids
}

fn until(what: &str, gateway: &Gateway, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "waited for {what}; the gateway:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn metric(gateway: &Gateway, line: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
}

fn mark(gateway: &Gateway, mark: &str) -> f64 {
    metric(gateway, &format!("gateway_records{{mark=\"{mark}\"}}"))
}

fn all_archived(gateway: &Gateway) {
    until("everything to be archived", gateway, || mark(gateway, "archived") >= mark(gateway, "journaled"));
}

fn verified(gateway: &mut Gateway, records: usize) {
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    // One line a log, as `records: 1 boot, 4 outcome`.
    let of_log = |part: &str| part.trim().strip_suffix(" outcome")?.trim().parse::<usize>().ok();
    let lines = out.lines().filter_map(|line| line.trim().strip_prefix("records:"));
    let found: usize = lines.flat_map(|line| line.split(',').filter_map(of_log)).sum();
    assert_eq!(found, records, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn what_goes_into_the_topic_is_whole_and_counts_by_receipts_only() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let refused = Gateway::prepare(dir.path(), &setup(&provider, &kafka, ""));
    let mut gateway = refused;
    gateway.spawn();
    until("a start without topics to be refused", &gateway, || gateway.log().contains("not there"));
    gateway.kill();
    let mut gateway = Gateway::start(&dir.path().join("1"), &setup(&provider, &kafka, CREATE));
    calls(&gateway, "one", 5).await;
    until("everything to be shipped", &gateway, || mark(&gateway, "shipped") >= mark(&gateway, "journaled"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(mark(&gateway, "archived") <= 0.0, "nobody has answered");
    let forger = kafka.writer();
    for message in [&b"affidavit/receipt/v1"[..], b""] {
        forger.send(RECEIPTS, "x", message);
    }
    until("forged receipts to be seen", &gateway, || {
        metric(&gateway, "gateway_receipts_forged_total") >= 2.0
    });
    let archiver = Archiver::start(&kafka, &gateway.store());
    all_archived(&gateway);
    verified(&mut gateway, 5);
    drop(archiver);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn dead_gateways_and_dead_brokers_lose_nothing() {
    let mut kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &setup(&provider, &kafka, CREATE));
    let archiver = Archiver::start(&kafka, &gateway.store());
    calls(&gateway, "one", 4).await;
    all_archived(&gateway);
    drop(archiver);
    calls(&gateway, "two", 4).await;
    until("everything to be shipped", &gateway, || mark(&gateway, "shipped") >= mark(&gateway, "journaled"));
    let epochs = std::fs::read_dir(dir.path().join("journal")).expect("a journal").flatten();
    let mut epochs = epochs.filter_map(|entry| entry.file_name().into_string().ok());
    let dead = epochs.find(|name| name.starts_with("20")).expect("the folder of an epoch");
    gateway.kill();
    // The one that recovers finds the receipts, and that some are missing.
    gateway.serve();
    calls(&gateway, "three", 4).await;
    kafka.pause();
    calls(&gateway, "four", 4).await;
    until("the trouble to be named", &gateway, || {
        let ready = gateway.admin_get("/readyz").unwrap_or_default();
        ready.contains("the store does not take batches")
    });
    // A start without a broker: an earlier log waits, and traffic goes on.
    kafka.resume();
    let archiver = Archiver::start(&kafka, &gateway.store());
    all_archived(&gateway);
    until("the log of the dead one to be archived", &gateway, || {
        !dir.path().join("journal").join(&dead).exists()
    });
    verified(&mut gateway, 16);
    drop(archiver);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_that_are_made_anew_are_filled_again() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut gateway = Gateway::start(dir.path(), &setup(&provider, &kafka, "      reship_after: 5s\n"));
    calls(&gateway, "one", 4).await;
    until("everything to be shipped", &gateway, || mark(&gateway, "shipped") >= mark(&gateway, "journaled"));
    kafka.operator().make_anew(&[TOPIC, RECEIPTS]);
    let archiver = Archiver::start(&kafka, &gateway.store());
    all_archived(&gateway);
    assert!(metric(&gateway, "gateway_batches_put_again_total") >= 1.0, "{}", gateway.log());
    calls(&gateway, "two", 4).await;
    verified(&mut gateway, 8);
    drop(archiver);
}
