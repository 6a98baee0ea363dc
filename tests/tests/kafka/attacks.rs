//! Kafka as an enemy: whoever may write to the topics, and whoever runs them. Each thing that they do is found or harmless
//! (deploy/ATTACKS.md).

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::names::FileKind;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::ship::{Archived, CHUNK_BYTES, Chunk, MAX_OBJECT_BYTES, Receipt};
use schemas::trust::key_text;
use schemas::{ObjectName, Sha256Hex, seal};
use tests::provider::Provider;
use tests::services::{Kafka, Writer, messages};
use tests::shipping::{Bench, RECEIPTS, TOPIC, Way, World};

const PATIENCE: Duration = Duration::from_secs(20);
const WORK_BOUND: f64 = (64 << 20) as f64;
const GROUP: &str = "affidavit-archivers-test";

/// An archiver whose key counts, and that lies.
fn liar() -> Ed25519Signer {
    Ed25519Signer::from_seed([5; 32])
}

/// The notes of the seals in the topic.
fn notes(kafka: &Kafka) -> Vec<Vec<u8>> {
    let note = |value: &[u8]| {
        let chunk = Chunk::decode(value).ok()?;
        matches!(chunk.name, ObjectName::Seal { .. }).then(|| chunk.bytes.to_vec())
    };
    messages(kafka, TOPIC).iter().filter_map(|took| note(&took.value)).collect()
}

/// A receipt for a seal, by the key of `signer` under the name of `archiver`.
fn receipt(note: &[u8], archiver: &str, signer: &Ed25519Signer) -> Vec<u8> {
    let sealed = seal::parse_unverified(note).expect("a seal");
    let names = sealed.files.iter().map(|file| file.name.clone()).chain([sealed.object_name().file_name()]);
    let objects = names.map(|name| Archived { name, version: None, retain_until_s: None }).collect();
    let receipt = Receipt::of(&sealed, Sha256Hex::of(note), objects, sealed.time + 1);
    receipt.sign(archiver, signer).expect("a receipt")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn receipts_that_are_forged_changed_or_old_count_for_nothing_and_a_lie_is_an_alarm() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let known = vec![format!("{{ name: liar, key: \"{}\" }}", key_text(&liar().public_key()))];
    let way = Way { known, ..Way::plain(&kafka) };
    let mut world = World::prepare(dir.path(), &way, &provider, 1);
    world.gateway.serve();
    world.calls(2).await;
    world.all_sent();
    let (writer, stranger) = (kafka.writer(), Ed25519Signer::from_seed([6; 32]));
    let all = notes(&kafka);
    let log = seal::parse_unverified(&all[0]).expect("a seal").origin.to_string();
    let mut forged = 0.0;
    for note in &all {
        for name in ["ar1", "liar", "nobody"] {
            writer.send(RECEIPTS, &log, &receipt(note, name, &stranger));
            forged += 1.0;
        }
        // One that counts, with one byte changed anywhere.
        for at in [1, 30, 200] {
            let mut changed = receipt(note, "liar", &liar());
            let at = at.min(changed.len() - 1);
            changed[at] ^= 1;
            writer.send(RECEIPTS, &log, &changed);
            forged += 1.0;
        }
    }
    let seen = |world: &World| world.metric("gateway_receipts_forged_total");
    world.until("the forged ones to be seen", |world| seen(world) >= forged);
    assert!(world.mark("archived") <= 0.0, "nobody has archived anything");
    world.archivers[0].spawn();
    world.all_archived();
    // Everything that the topic holds once more, under other keys too, while another batch waits for its receipt.
    world.archivers[0].kill();
    world.calls(1).await;
    world.all_sent();
    let (archived, before) = (world.mark("archived"), seen(&world));
    for took in messages(&kafka, RECEIPTS) {
        for key in [log.as_str(), "x", "test/gw2/log"] {
            writer.send(RECEIPTS, key, &took.value);
        }
    }
    world.until("the old ones to be read", |world| seen(world) >= before + forged * 2.0);
    assert_eq!(world.mark("archived"), archived, "an old receipt is for an old batch");
    world.archivers[0].spawn();
    world.all_archived();
    // A key that counts, and a seal that the gateway never made.
    world.archivers[0].kill();
    world.calls(1).await;
    world.all_sent();
    let all = notes(&kafka).into_iter().filter_map(|note| seal::parse_unverified(&note).ok());
    let mut other = all.max_by_key(|sealed| sealed.batch).expect("a seal");
    other.root = Sha256Hex::of(b"another history");
    let other = other.sign(&stranger).expect("a seal");
    let archived = world.mark("archived");
    writer.send(RECEIPTS, &log, &receipt(&other, "liar", &liar()));
    world.until("the alarm", |world| !world.gateway.ready());
    assert!(world.readiness().contains("is taken"), "{}", world.readiness());
    assert_eq!(world.mark("archived"), archived);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn torn_and_huge_objects_fill_no_disk_and_stop_no_batch() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.calls(2).await;
    world.all_archived();
    let origin = seal::parse_unverified(&notes(&kafka)[0]).expect("a seal").origin;
    let (writer, piece) = (kafka.writer(), vec![7; CHUNK_BYTES as usize]);
    let bounded = |world: &World| {
        let held = world.archivers[0].metric("gateway_archive_work_bytes");
        assert!(held <= WORK_BOUND, "{held} bytes in the work folder");
    };
    for n in 0..100_u64 {
        // The first of two pieces, each of another batch; or of the most that an object may be.
        let length = if n % 10 == 0 { MAX_OBJECT_BYTES } else { CHUNK_BYTES * 2 };
        let sha256 = Sha256Hex::of(&n.to_be_bytes());
        let name =
            ObjectName::Data { origin: origin.clone(), batch: 1000 + n, sha256, kind: FileKind::Records };
        let chunk = Chunk { name, length, sha256, offset: 0, bytes: &piece };
        writer.send(TOPIC, origin.as_str(), &chunk.encode().expect("a chunk"));
        if n % 25 == 5 {
            bounded(&world);
            world.calls(2).await;
        }
    }
    world.until("everything to be archived", |world| {
        bounded(world);
        world.mark("archived") >= world.mark("journaled")
    });
    assert!(world.set_aside("unfinished") >= 1.0, "{:?}", world.archivers[0].quarantine());
    // What is left of them goes in its time, and holds up no offset.
    let is_long = tests::long_round();
    println!("100 torn objects{}", if is_long { ", until the last is given up" } else { "" });
    world.until("the rest to be given up", |world| {
        bounded(world);
        !is_long || world.archivers[0].metric("gateway_archive_open_messages") == 0.0
    });
    for fault in ["invalid_batch", "name_taken", "forged_seal", "unknown_log"] {
        assert!(world.set_aside(fault) <= 0.0, "{fault}");
    }
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_cut_reordered_and_deleted_and_offsets_moved_lose_nothing() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.calls(2).await;
    world.all_archived();
    // What nobody has read is cut off, and the receipts are.
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    world.calls(2).await;
    world.all_sent();
    kafka.operator().truncate(TOPIC);
    kafka.operator().truncate(RECEIPTS);
    world.archivers[0].spawn();
    world.all_archived();
    assert!(world.metric("gateway_batches_put_again_total") >= 1.0, "{}", world.gateway.log());
    // The group is told that it has read everything; what it is given instead is doubled and backwards.
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    world.calls(3).await;
    world.all_sent();
    let truth = messages(&kafka, TOPIC);
    kafka.operator().skip(GROUP, TOPIC);
    let writer = kafka.writer();
    for took in truth.iter().rev().chain(&truth) {
        writer.send(TOPIC, &took.key, &took.value);
    }
    world.archivers[0].spawn();
    world.all_archived();
    // Told so once more, and nothing comes: it is put again, and meanwhile the gateway says what is missing.
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    world.calls(2).await;
    world.all_sent();
    kafka.operator().skip(GROUP, TOPIC);
    world.until("the silence to be named", |world| world.readiness().contains("(unanswered)"));
    world.archivers[0].spawn();
    world.all_archived();
    // Topics that are gone, and come again empty.
    world.archivers[0].kill();
    world.calls(2).await;
    world.all_sent();
    kafka.operator().delete(&[TOPIC, RECEIPTS]);
    world.calls(1).await;
    world.until("the missing topic to be named", |world| world.readiness().contains("(no_topic)"));
    kafka.operator().make(&[TOPIC, RECEIPTS], &[]);
    world.archivers[0].spawn();
    world.all_archived();
    world.nothing_aside();
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn an_open_transaction_and_packed_messages_hold_nothing_up() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let gateway = "create: { partitions: 4, replication: 1 }".to_owned();
    let way = Way { gateway, ..Way::plain(&kafka) };
    let mut world = World::start(&dir.path().join("made"), &way, &provider, 1);
    world.calls(1).await;
    world.all_archived();
    let mut config = kafka.client();
    config.set("transactional.id", "forger").set("transaction.timeout.ms", "600000");
    let open: BaseProducer = config.create().expect("a producer");
    open.init_transactions(PATIENCE).expect("transactions");
    open.begin_transaction().expect("a transaction");
    for topic in [TOPIC, RECEIPTS] {
        for partition in 0..4 {
            let record = BaseRecord::to(topic).partition(partition).key("x").payload(b"open");
            open.send(record).expect("room for a message");
        }
    }
    open.flush(PATIENCE).expect("the broker takes them");
    // A small message that unpacks to a large one: a topic that the gateway made takes none.
    let mut config = kafka.client();
    config.set("compression.type", "gzip").set("message.max.bytes", "200000000");
    let refused = Writer::with(config).try_send(TOPIC, "x", &vec![0; 64 << 20]);
    let wanted = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
    assert_eq!(refused, Err(wanted));
    assert!(messages(&kafka, TOPIC).iter().all(|took| took.value.len() < 1 << 20), "the broker took it");
    world.calls(3).await;
    world.all_archived();
    assert_eq!(world.set_aside("not_a_chunk"), 4.0, "{:?}", world.archivers[0].quarantine());
    world.until("what is no receipt", |world| world.metric("gateway_receipts_forged_total") >= 4.0);
    world.verified();
    drop(open);
    // A topic that takes what its writers packed, and a kind that cannot be unpacked here: the other partitions go on.
    kafka.operator().make(&["p-batches", "p-receipts"], &[]);
    let way = Way { topic: "p-batches".into(), receipts: "p-receipts".into(), ..Way::plain(&kafka) };
    let mut world = World::start(&dir.path().join("packed"), &way, &provider, 1);
    assert!(world.gateway.log().contains("what a writer packs itself"), "{}", world.gateway.log());
    world.calls(1).await;
    world.all_archived();
    let own = messages(&kafka, "p-batches")[0].partition;
    let writer = kafka.writer();
    (0..20).for_each(|n| writer.send("p-batches", &format!("k{n}"), b"x"));
    let other = messages(&kafka, "p-batches").into_iter().find(|took| took.partition != own);
    let key = other.expect("one of twenty keys is of another partition").key;
    kafka.operator().send_packed("p-batches", &key, "packed");
    world.until("it to be named", |world| world.archivers[0].log().contains("cannot be unpacked"));
    for _ in 0..3 {
        world.calls(1).await;
        world.all_archived();
    }
    assert!(!world.archivers[0].log().contains("cannot be read now"), "{}", world.archivers[0].log());
    world.verified();
}
