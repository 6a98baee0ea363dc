//! The real gateway, archiver, registrar and auditor with Kafka: what no archiver has archived is in the registry all the
//! same, and an auditor finds that it is missing.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::path::Path;
use std::time::{Duration, Instant};

use schemas::files::{Limits, read_records};
use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::registry::{EntryBody, decode};
use schemas::ship::{CHUNK_BYTES, Chunk};
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use tests::archiver::Archiver;
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::registrar::directory;
use tests::services::Kafka;
use tests::shipping::{RECEIPTS, TOPIC, Way};

const WAIT: Duration = Duration::from_secs(90);

/// The entries of the registry in a store, none of which is verified here.
fn entries(deployment: &Deployment, store: &Path) -> Vec<EntryBody> {
    let mut found = Vec::new();
    for file in deployment.objects(store, ".records.parquet") {
        let Ok(bytes) = std::fs::read(file) else { continue };
        let Ok(records) = read_records(&bytes.into(), &Limits::default()) else { continue };
        found.extend(
            records.rows.iter().filter_map(|row| decode(&row.leaf).ok().flatten()).map(|entry| entry.body),
        );
    }
    found
}

fn until(what: &str, said: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "waited for {what}:\n{}", said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn calls(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        let body =
            serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "x" }] });
        let call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string());
        let got = send(gateway.address, &call).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
}

fn mark(gateway: &Gateway, mark: &str) -> f64 {
    let text = gateway.admin_get("/metrics").unwrap_or_default();
    let line = format!("gateway_records{{mark=\"{mark}\"}}");
    text.lines().find_map(|l| l.strip_prefix(&line)?.trim().parse().ok()).unwrap_or(-1.0)
}

/// Sends what no gateway would: seals by nobody, pieces of nothing, and noise.
fn forge(kafka: &Kafka, log: &Origin) {
    let forger = kafka.writer();
    let give = |message: &[u8]| forger.send(TOPIC, log.as_str(), message);
    give(b"");
    give(&vec![0; 900_000]);
    let (tree, config) = (schemas::merkle::CompactRange::new(), Sha256Hex([1; 32]));
    for batch in 0..50 {
        let said = seal::Seal {
            origin: log.clone(),
            batch,
            from: batch,
            to: batch + 1,
            root: tree.root(),
            compact: vec![],
            files: vec![],
            previous: (batch > 0).then_some(config),
            schema: config,
            time: 1,
        };
        let Ok(note) = said.sign(&Ed25519Signer::from_seed([9; 32])) else { continue };
        let (length, sha256) = (note.len() as u64, Sha256Hex::of(&note));
        let name = said.object_name();
        give(&Chunk { name, length, sha256, offset: 0, bytes: &note }.encode().expect("a chunk"));
        let sha256 = Sha256Hex([batch as u8; 32]);
        let name = ObjectName::Data { origin: log.clone(), batch, sha256, kind: FileKind::Records };
        let piece = vec![7; CHUNK_BYTES as usize];
        let chunk = Chunk { name, length: CHUNK_BYTES * 2, sha256, offset: 0, bytes: &piece };
        give(&chunk.encode().expect("a chunk"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn what_no_archiver_archives_is_registered_and_found_missing() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let deployment = Deployment::new(&dir.path().join("deployment"));
    let store = dir.path().join("gateway/store");
    let out = format!("{{ directory: {} }}", store.display());
    let mut archiver =
        Archiver::prepare(dir.path(), "ar1", &Way::plain(&kafka), &out, &deployment.trust_file(), "");
    let setup = Setup {
        provider: provider.url(),
        out: format!(
            "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {TOPIC}\n      receipts: {RECEIPTS}\n      timeout: 5s\n      \
             reship_after: 5s\n      create: {{ partitions: 4, replication: 1 }}\n      archivers: [{}]\n",
            kafka.address, archiver.line
        ),
        evidence: "  heartbeat: 3s\n".into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(&dir.path().join("gateway"), &setup);
    deployment.enroll("gw1", &gateway.seal_key());
    let mut registrar = deployment.registrar("registrar", &out, &[]);
    let topic = format!("kafka: {{ brokers: [\"{}\"], topic: {TOPIC}, timeout: 5s }}\n", kafka.address);
    registrar.spawn_with(&topic);
    gateway.serve();
    calls(&gateway, 2).await;
    // Nobody archives anything.
    let is_known = |entries: &[EntryBody]| entries.iter().any(|body| matches!(body, EntryBody::LogHead(_)));
    until("the log", || registrar.log(), || is_known(&entries(&deployment, &store)));
    let log = entries(&deployment, &store).into_iter().find_map(|body| match body {
        EntryBody::LogHead(head) => Some(head),
        _ => None,
    });
    let log = log.expect("a head");
    assert_eq!(log.ahead, Some(true));
    assert!(!store.join(log.origin.as_str()).exists(), "nothing of it is in the store");
    forge(&kafka, &log.origin);
    std::thread::sleep(Duration::from_secs(6));
    let (code, report) = deployment.verify(&store, &deployment.trust(), &[]);
    assert!(code == 1 && report.contains("LOG_MISSING"), "{code} {report}");
    // One does, for a while: then what is ahead of the store is missing, and nothing was rolled back.
    archiver.spawn();
    until("the archiver", || archiver.log(), || mark(&gateway, "archived") >= 4.0);
    archiver.kill();
    calls(&gateway, 2).await;
    let newest = |body: &EntryBody| match body {
        EntryBody::LogHead(head) if head.ahead == Some(true) => Some(head.batch),
        _ => None,
    };
    let archived = || {
        std::fs::read_dir(store.join(log.origin.as_str())).map_or(0, |list| {
            list.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".seal")).count()
                as u64
        })
    };
    until(
        "a head ahead of the store",
        || registrar.log(),
        || entries(&deployment, &store).iter().filter_map(newest).max() > Some(archived()),
    );
    std::thread::sleep(Duration::from_secs(6));
    let (code, report) = deployment.verify(&store, &deployment.trust(), &[]);
    assert!(code == 1 && report.contains("BATCH_MISSING") && !report.contains("ROLLBACK"), "{code} {report}");
    // The gateway dies: the log is lost, also by a registrar that was started anew.
    registrar.spawn_with(&topic);
    gateway.kill();
    let is_lost = |entries: &[EntryBody]| entries.iter().any(|body| matches!(body, EntryBody::LogLost(_)));
    until("the log to be lost", || registrar.log(), || is_lost(&entries(&deployment, &store)));
    // Everything comes back, and is whole.
    archiver.spawn();
    gateway.serve();
    calls(&gateway, 1).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    registrar.until("the ends of the logs in the registry", || {
        let (code, report) = deployment.verify(&store, &deployment.trust(), &[]);
        code == 0 && report.contains("VERIFIED")
    });
    assert_eq!(archiver.stop(), Some(0), "{}", archiver.log());
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    let opened =
        entries(&deployment, &store).iter().filter(|body| matches!(body, EntryBody::LogOpened(_))).count();
    assert_eq!(opened, 2, "a log for each life, and none that was forged");
}

/// Fills the topic as gateways do: of each batch a seal and records file of their own size, and pieces of content.
fn fill(kafka: &Kafka, log: &Origin, bytes: u64) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address.to_string()).set("linger.ms", "50");
    let producer: BaseProducer = config.create().expect("a producer");
    let (mut sent, mut batches) = (0, 0_u64);
    let piece: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at * 131 % 251) as u8).collect();
    while sent < bytes {
        let sha256 = Sha256Hex([batches as u8; 32]);
        for (kind, length, pieces) in
            [(FileKind::Content("std".into()), CHUNK_BYTES, 5), (FileKind::Records, 64 << 10, 1)]
        {
            let name = ObjectName::Data { origin: log.clone(), batch: batches, sha256, kind };
            for number in 0..pieces {
                let bytes = &piece[..length as usize];
                let chunk = Chunk {
                    name: name.clone(),
                    length: length * pieces,
                    sha256,
                    offset: number * length,
                    bytes,
                };
                let message = chunk.encode().expect("a chunk");
                sent += message.len() as u64;
                while let Err((error, _)) =
                    producer.send(BaseRecord::to(TOPIC).key(log.as_str()).payload(&message))
                {
                    assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
                    producer.poll(Duration::from_millis(20));
                }
                producer.poll(Duration::ZERO);
            }
        }
        batches += 1;
    }
    producer.flush(Duration::from_secs(120)).expect("the broker takes it");
    batches
}

/// The number behind `name=` of the last line that says that the topic was read.
fn told(log: &str, name: &str) -> Option<u64> {
    let line = log.lines().rfind(|line| line.contains("the topic was read to its end"))?;
    let text = line.split_once(&format!("{name}="))?.1;
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Every start reads the whole topic, beside its rounds: how fast is what an operator has to know.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn a_start_reads_the_whole_topic_and_says_how_long_it_took() {
    let bytes: u64 = if std::env::var_os("AFFIDAVIT_LONG").is_some() { 8 << 30 } else { 256 << 20 };
    let kafka = Kafka::start();
    kafka.operator().make(&[TOPIC], &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &deployment.key("gw1.key").display().to_string());
    let log = Origin::new("test/gw1/20261120t101500z-00000001").expect("an origin");
    let batches = fill(&kafka, &log, bytes);
    let out = directory(&dir.path().join("store"));
    let mut registrar = deployment.registrar("reader", &out, &[]);
    registrar.spawn_with(&format!("kafka: {{ brokers: [\"{}\"], topic: {TOPIC} }}\n", kafka.address));
    until("the topic's end", || registrar.log(), || told(&registrar.log(), "messages") == Some(batches * 6));
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    let (read, took_ms) = (told(&registrar.log(), "bytes"), told(&registrar.log(), "took_ms"));
    let (read, took_ms) = (read.expect("bytes"), took_ms.expect("milliseconds").max(1));
    assert!(read >= bytes, "{read} of {bytes}");
    eprintln!(
        "{batches} batches, {} messages, {read} bytes read in {took_ms} ms: {} MB/s",
        batches * 6,
        read / 1000 / took_ms
    );
}
