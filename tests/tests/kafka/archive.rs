//! The real gateway, archiver and auditor with Kafka between them: what was acknowledged is in the store and verifies,
//! through dead archivers, dead brokers, topics made anew and everything that a forger sends.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::time::Duration;

use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::ship::{CHUNK_BYTES, Chunk};
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use tests::archive::{self, check_and_copy};
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::provider::Provider;
use tests::services::{Fault, FaultProxy, Kafka, Minio, S3Server, messages};
use tests::shipping::{Bench, RECEIPTS, TOPIC, Way, World};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn archivers_that_die_at_any_moment_lose_nothing() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.calls(3).await;
    world.all_archived();
    for round in 0..6_u64 {
        world.calls(3).await;
        std::thread::sleep(Duration::from_millis(400 * round));
        world.archivers[0].kill();
        world.calls(1).await;
        world.archivers[0].spawn();
    }
    world.all_archived();
    world.nothing_aside();
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn several_archivers_share_the_work_and_each_takes_over() {
    let Bench { mut kafka, dir, provider } = Bench::start().await;
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 2);
    world.until("both to read", |world| {
        world.archivers.iter().all(|archiver| archiver.metric("gateway_archive_reading") >= 1.0)
    });
    world.calls(4).await;
    world.all_archived();
    // One dies and the other has it all; then the other way round.
    for dead in [0, 1] {
        world.archivers[dead].kill();
        world.calls(3).await;
        world.all_archived();
        world.archivers[dead].spawn();
    }
    world.calls(2).await;
    kafka.pause();
    world.calls(3).await;
    std::thread::sleep(Duration::from_secs(3));
    kafka.resume();
    world.all_archived();
    world.nothing_aside();
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_made_anew_and_offsets_at_the_beginning_are_repeats() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.calls(4).await;
    world.all_archived();
    // The archiver lives on; what is put from now on is in other topics of the same names.
    kafka.operator().make_anew(&[TOPIC, RECEIPTS]);
    world.calls(4).await;
    world.all_archived();
    // Nobody reads, and what was sent is lost with the topic: it is put again.
    world.archivers[0].kill();
    world.calls(3).await;
    world.all_sent();
    kafka.operator().make_anew(&[TOPIC, RECEIPTS]);
    world.archivers[0].spawn();
    world.all_archived();
    // Everything that the topic holds once more: as many receipts, no finding.
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    kafka.operator().forget("affidavit-archivers-test");
    world.archivers[0].spawn();
    world.until("the topic to be archived again", |world| world.batches() >= 1.0);
    world.calls(1).await;
    world.all_archived();
    world.nothing_aside();
    world.verified();
}

/// Each restart of the brokers counts up the term of a partition's leader, and a topic that is made anew begins with the
/// first one again: to who knew the old topic, and did not see that it was gone, all that is said of the new one is old.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_made_anew_are_read_by_who_did_not_see_that_they_were_gone() {
    let Bench { mut kafka, dir, provider } = Bench::start().await;
    kafka.pause();
    kafka.resume();
    let mut world = World::start(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.calls(2).await;
    world.all_archived();
    world.archivers[0].signal("-STOP");
    world.gateway.signal(rustix::process::Signal::STOP);
    kafka.operator().make_anew(&[TOPIC, RECEIPTS]);
    world.archivers[0].signal("-CONT");
    world.gateway.signal(rustix::process::Signal::CONT);
    world.calls(2).await;
    world.all_archived();
    world.nothing_aside();
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn what_a_forger_sends_is_found_and_stops_nothing() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut world = World::prepare(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.gateway.serve();
    world.calls(4).await;
    world.all_sent();
    // The forger reads along, and is before the archiver with everything.
    let forger = kafka.writer();
    let truth = messages(&kafka, TOPIC);
    for took in &truth {
        let (log, message) = (&took.key, &took.value);
        let chunk = Chunk::decode(message).expect("a chunk");
        let bytes = vec![b'x'; chunk.bytes.len()];
        forger.send(TOPIC, log, &Chunk { bytes: &bytes, ..chunk.clone() }.encode().expect("a chunk"));
        if let (ObjectName::Seal { .. }, Ok(said)) = (&chunk.name, seal::parse_unverified(chunk.bytes)) {
            // Another seal for the same batch, by another key.
            let note = said.sign(&Ed25519Signer::from_seed([9; 32])).expect("a seal");
            let (length, sha256) = (note.len() as u64, Sha256Hex::of(&note));
            let forged = Chunk { name: chunk.name.clone(), length, sha256, offset: 0, bytes: &note };
            forger.send(TOPIC, log, &forged.encode().expect("a chunk"));
        }
        forger.send(TOPIC, "test/other/log", message);
        forger.send(TOPIC, log, message);
    }
    let log = truth[0].key.clone();
    forger.send(TOPIC, &log, b"no chunk");
    forger.send(TOPIC, &log, b"");
    forger.send(TOPIC, &log, &vec![0; 950_000]);
    let object = |origin: &Origin, bytes: &[u8], length: u64| {
        let sha256 = Sha256Hex::of(bytes);
        let name = ObjectName::Data { origin: origin.clone(), batch: 999, sha256, kind: FileKind::Records };
        let piece = &bytes[..bytes.len().min(CHUNK_BYTES as usize)];
        Chunk { name, length, sha256, offset: 0, bytes: piece }.encode().expect("a chunk")
    };
    let foreign = Origin::new("other/gw1/20261120t101500z-3f9a1c20").expect("an origin");
    forger.send(TOPIC, foreign.as_str(), &object(&foreign, b"theirs", 6));
    let own = Origin::new(log.clone()).expect("an origin");
    let long = vec![7; CHUNK_BYTES as usize + 5];
    forger.send(TOPIC, &log, &object(&own, &long, long.len() as u64));
    // Receipts by nobody that was pinned.
    forger.send(RECEIPTS, &log, b"affidavit/receipt/v1\n");
    world.archivers[0].spawn();
    world.calls(2).await;
    world.all_archived();
    for fault in ["not_a_chunk", "foreign_key", "forged_piece", "forged_seal", "unfinished"] {
        world.until(fault, |world| world.set_aside(fault) >= 1.0);
    }
    world
        .until("the forged receipt to be seen", |world| world.metric("gateway_receipts_forged_total") >= 1.0);
    for fault in ["invalid_batch", "name_taken", "read_back", "unknown_log"] {
        assert!(world.set_aside(fault) <= 0.0, "{fault}: {:?}", world.archivers[0].quarantine());
    }
    assert!(world.archivers[0].metric("gateway_archive_foreign_messages_total") >= 1.0);
    assert!(world.archivers[0].quarantine().iter().any(|name| name.ends_with("forged_seal.bytes")));
    // Nothing that was sent holds the offset up.
    world.until("everything to be settled", |world| {
        world.archivers[0].metric("gateway_archive_open_messages") == 0.0
    });
    world.verified();
}

/// Everything that is in a folder, into another one.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        // What is just being written there comes and goes.
        if entry.file_name() == ".tmp" {
            continue;
        }
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if !to.exists() {
            std::fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn what_the_archivers_have_is_read_to_erase_and_to_confirm() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let (store, mirror) = (dir.path().join("gateway/store"), dir.path().join("mirror"));
    let out = format!("{{ directory: {} }}", store.display());
    let more = format!("archive: {{ directory: {} }}, confirm: object", mirror.display());
    let way = Way { gateway: more.clone(), ..Way::plain(&kafka) };
    let trust = dir.path().join("gateway/trust.yaml");
    let mut world = World::with(dir.path(), &way, &provider, (1, ""), (&trust, &out));
    world.gateway.serve();
    world.archivers[0].spawn();
    let body =
        serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "secret" }] });
    let call = Call::post("/openai/v1/chat/completions", &world.gateway.key, body.to_string());
    let got = send(world.gateway.address, &call).await;
    world.sent += 1;
    let exchange = got.header("x-affidavit-exchange").expect("its id").to_owned();
    world.calls(2).await;
    // Receipts are there, and the objects are not where the gateway looks for them.
    world.until("archived batches", |world| world.batches() >= 1.0);
    std::thread::sleep(Duration::from_secs(2));
    assert!(world.mark("archived") <= 0.0, "a receipt alone does not count here");
    assert!(!mirror.exists(), "nothing is written there");
    world.until("the objects to count", |world| {
        copy(&store, &mirror);
        world.mark("journaled") > 0.0 && world.mark("archived") >= world.mark("journaled")
    });
    // The erasure waits until all is archived, so that the mirror has to follow meanwhile.
    let erasing = world
        .gateway
        .command(&["erase", "--exchange", &exchange])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut erasing = erasing.expect("the command starts");
    world.until("the erasure to end", |_| {
        copy(&store, &mirror);
        erasing.try_wait().expect("a process").is_some()
    });
    let done = erasing.wait_with_output().expect("its output");
    assert!(done.status.success(), "{}", world.gateway.log());
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("{exchange} erased\n"));
    world.until("everything to be archived", |world| {
        copy(&store, &mirror);
        world.mark("archived") >= world.mark("journaled")
    });
    world.gateway.kill();
    // Without the archive an erasure says what is missing, and erases nothing.
    let config = world.gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace(&format!(", {more}"), "")).expect("the configuration");
    world.gateway.serve();
    let (code, said) = world.gateway.run(&["erase", "--exchange", &exchange]);
    assert!(code == 1 && said.contains("evidence.out.kafka.archive"), "{code} {said}");
    world.calls(1).await;
    world.stop();
    let (code, out, err) = world.gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let content = out.lines().find(|line| line.trim_start().starts_with("content:")).unwrap_or_default();
    assert!(!content.contains(" 0 erased"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn offsets_at_the_end_and_a_small_work_folder_lose_no_batch() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let out = format!("{{ directory: {} }}", dir.path().join("gateway/store").display());
    let trust = dir.path().join("gateway/trust.yaml");
    let settings = "patience: 10s\nwork_bound: 64MiB\n";
    let mut world = World::with(dir.path(), &Way::plain(&kafka), &provider, (1, settings), (&trust, &out));
    world.gateway.serve();
    world.calls(3).await;
    world.all_sent();
    // Junk beside it, as much again as the folder holds: whole objects and first pieces that no seal names.
    let forger = kafka.writer();
    let log = messages(&kafka, TOPIC)[0].key.clone();
    let own = Origin::new(log.clone()).expect("an origin");
    for fill in 0..100_u8 {
        let piece = vec![fill; CHUNK_BYTES as usize];
        let sha256 = Sha256Hex([fill; 32]);
        let name = ObjectName::Data { origin: own.clone(), batch: 900, sha256, kind: FileKind::Records };
        let length = CHUNK_BYTES * 9;
        let chunk = Chunk { name, length, sha256, offset: 0, bytes: &piece }.encode().expect("a chunk");
        forger.send(TOPIC, &log, &chunk);
    }
    world.calls(3).await;
    world.all_sent();
    // The group stands at the end of everything, as an operator may put it.
    kafka.operator().skip("affidavit-archivers-test", TOPIC);
    world.archivers[0].spawn();
    world.all_archived();
    // And at the beginning again: all the junk, and everything that is in the store.
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    kafka.operator().forget("affidavit-archivers-test");
    world.archivers[0].spawn();
    world.calls(2).await;
    world.all_archived();
    let bytes = world.archivers[0].metric("gateway_archive_work_bytes");
    assert!(bytes <= f64::from(64 << 20), "{bytes}");
    world.until("the junk to be given up", |world| {
        world.archivers[0].metric("gateway_archive_open_messages") == 0.0
    });
    for fault in ["invalid_batch", "name_taken", "read_back", "unknown_log", "forged_seal"] {
        assert!(world.set_aside(fault) <= 0.0, "{fault}: {:?}", world.archivers[0].quarantine());
    }
    assert!(world.set_aside("unfinished") >= 100.0, "{:?}", world.archivers[0].quarantine().len());
    world.verified();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_that_lose_batches_are_refused_at_the_start() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    kafka.operator().make(&[TOPIC], &[("cleanup.policy", "compact")]);
    let mut world = World::prepare(dir.path(), &Way::plain(&kafka), &provider, 1);
    world.archivers[0].spawn();
    world.until("the refusal", |world| world.archivers[0].log().contains("cleanup.policy"));
    assert_eq!(world.archivers[0].stop(), Some(1), "{}", world.archivers[0].log());
    // The receipts' topic is not there: somebody else makes it, and that is waited for.
    assert!(world.archivers[0].log().contains("is not there yet"), "{}", world.archivers[0].log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn keys_come_from_the_registry_as_it_grows() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let deployment = Deployment::new(&dir.path().join("deployment"));
    let trust = deployment.trust_file();
    let store = dir.path().join("gateway/store");
    let out = format!("{{ directory: {} }}", store.display());
    let mut world = World::over(dir.path(), &Way::plain(&kafka), &provider, 1, &trust, &out);
    let mut registrar = deployment.registrar("registrar", &out, &[]);
    registrar.spawn();
    registrar.until("the registry to be opened", || deployment.newest(&store).0 >= 1);
    world.gateway.serve();
    world.archivers[0].spawn();
    world.calls(3).await;
    world.until("the unknown log to be set aside", |world| world.set_aside("unknown_log") >= 1.0);
    assert!(world.mark("archived") <= 0.0, "nobody enrolled the key");
    // Once it is enrolled, what the gateway puts again counts.
    deployment.enroll("gw1", &world.gateway.seal_key());
    world.all_archived();
    world.calls(2).await;
    world.all_archived();
    assert_eq!(world.gateway.stop(), Some(0), "{}", world.gateway.log());
    assert_eq!(world.archivers[0].stop(), Some(0), "{}", world.archivers[0].log());
    registrar.until("the end of the log in the registry", || {
        let (code, report) = deployment.verify(&store, &deployment.trust(), &[]);
        code == 0 && report.contains("VERIFIED")
    });
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and MinIO"]
async fn a_bucket_that_goes_away_is_waited_for_and_holds_everything_under_lock() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let mut server = Minio::start();
    server.create_locked_bucket(archive::BUCKET).await;
    let (trust, out) = (dir.path().join("gateway/trust.yaml"), archive::out(&server.endpoint()));
    let mut world = World::over(dir.path(), &Way::plain(&kafka), &provider, 1, &trust, &out);
    world.archivers[0].environment = archive::environment();
    world.gateway.serve();
    world.archivers[0].spawn();
    world.calls(3).await;
    world.all_archived();
    server.pause();
    world.calls(3).await;
    world.until("the store to be missed", |world| {
        world.archivers[0].metric("gateway_archive_store_failures_total") >= 1.0
    });
    // One that dies while the store is away; the next waits for it as well.
    world.archivers[0].kill();
    world.calls(1).await;
    world.archivers[0].spawn();
    std::thread::sleep(Duration::from_secs(2));
    server.resume();
    world.all_archived();
    world.nothing_aside();
    world.stop();
    assert!(check_and_copy(&server, "test/gw1", &world.gateway.store()).await > 4);
    world.judged();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and MinIO"]
async fn what_the_archivers_have_in_a_bucket_is_read_to_erase_and_to_confirm() {
    let Bench { kafka, dir, provider } = Bench::start().await;
    let server = Minio::start();
    server.create_locked_bucket(archive::BUCKET).await;
    // The archiver comes to the bucket straight, the gateway by a way that can be cut.
    let proxy = FaultProxy::start(server.address);
    let more = format!(
        "archive: {{ s3: {{ bucket: {}, prefix: {}, region: us-east-1, endpoint: 'http://{}', path_style: true, \
         timeout: 3s }} }}, confirm: object",
        archive::BUCKET,
        archive::PREFIX,
        proxy.address,
    );
    let way = Way { gateway: more, ..Way::plain(&kafka) };
    let (trust, out) = (dir.path().join("gateway/trust.yaml"), archive::out(&server.endpoint()));
    let mut world = World::over(dir.path(), &way, &provider, 1, &trust, &out);
    world.archivers[0].environment = archive::environment();
    world.gateway.set_environment(&S3Server::environment());
    world.gateway.serve();
    world.archivers[0].spawn();
    let body =
        serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "secret" }] });
    let call = Call::post("/openai/v1/chat/completions", &world.gateway.key, body.to_string());
    let got = send(world.gateway.address, &call).await;
    world.sent += 1;
    let exchange = got.header("x-affidavit-exchange").expect("its id").to_owned();
    world.calls(2).await;
    world.all_archived();
    // Every object was read, and nothing was written by that way.
    let asked = proxy.handled();
    let reads = asked.iter().filter(|one| one.method == http::Method::GET && one.status == Some(206)).count();
    assert!(reads > 4, "{reads} reads");
    let writes = asked.iter().filter(|one| ![http::Method::GET, http::Method::HEAD].contains(&one.method));
    assert_eq!(writes.count(), 0);
    // A receipt alone does not count here: the objects are in the bucket, and the gateway cannot read them.
    proxy.set(Fault::Down);
    let (archived, batches) = (world.mark("archived"), world.batches());
    world.calls(2).await;
    world.until("the archiver to have it", |world| world.batches() > batches);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.mark("archived"), archived, "the receipt alone does not count here");
    proxy.set(Fault::Pass);
    world.all_archived();
    let (code, said) = world.gateway.run(&["erase", "--exchange", &exchange]);
    assert!(code == 0 && said.starts_with(&format!("{exchange} erased\n")), "{code} {said}");
    world.nothing_aside();
    world.stop();
    assert!(check_and_copy(&server, "test/gw1", &world.gateway.store()).await > 4);
    let (code, out, err) = world.gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let content = out.lines().find(|line| line.trim_start().starts_with("content:")).unwrap_or_default();
    assert!(!content.contains(" 0 erased"), "{out}");
}
