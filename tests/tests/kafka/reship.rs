//! Through Kafka: the archivers' store loses what it had a receipt for, and the topic has it no more. The gateway's kept
//! batches are all there is of it.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use tests::provider::Provider;
use tests::services::Kafka;
use tests::shipping::{RECEIPTS, TOPIC, Way, World};

/// The log that the gateway writes, as it is named in the store.
fn log(world: &World) -> String {
    let text = world.gateway.admin_get("/metrics").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("gateway_log_info")).expect("the log's name");
    line.split('"').nth(1).expect("its label").to_owned()
}

fn objects(world: &World, log: &str) -> Vec<String> {
    let list = std::fs::read_dir(world.gateway.store().join(log)).into_iter().flatten().flatten();
    let mut names: Vec<String> = list.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The store loses a whole log, and the topic all that it has.
fn lose(world: &World, kafka: &Kafka, log: &str) {
    std::fs::remove_dir_all(world.gateway.store().join(log)).expect("the log's folder");
    kafka.operator().make_anew(&[TOPIC]);
}

async fn world(dir: &Path, kafka: &Kafka, provider: &Provider, reads_archive: bool) -> World {
    let mut way = Way::plain(kafka);
    if reads_archive {
        way.gateway = format!("archive: {{ directory: {} }}", dir.join("gateway/store").display());
    }
    let mut world = World::start(dir, &way, provider, 1);
    world.calls(3).await;
    world.all_archived();
    world.calls(1).await;
    world.all_archived();
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn what_topic_and_store_both_lost_comes_again_out_of_the_spool() {
    let (kafka, provider) = (Kafka::start(), Provider::start([]).await);
    kafka.operator().make(&[TOPIC, RECEIPTS], &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = world(dir.path(), &kafka, &provider, true).await;
    let log = log(&world);
    let before = objects(&world, &log);
    lose(&world, &kafka, &log);
    let (code, out, err) = world.gateway.verify(&[]);
    assert_ne!(code, 0, "{out}{err}");
    let (code, said) = world.gateway.run(&["reship", "--missing"]);
    assert_eq!(code, 0, "{said}\n{}", world.gateway.log());
    assert!(said.contains(&format!("{log} batch 0 put again")), "{said}");
    assert_eq!(objects(&world, &log), before);
    let (code, said) = world.gateway.run(&["reship", "--missing"]);
    assert_eq!((code, said.contains("0 batches put again, 0 were there, 0 failed")), (0, true), "{said}");
    world.nothing_aside();
    // The log goes on behind it, and with the gateway down the command does it alone.
    world.calls(1).await;
    world.all_archived();
    assert_eq!(world.gateway.stop(), Some(0), "{}", world.gateway.log());
    lose(&world, &kafka, &log);
    let (code, said) = world.gateway.run(&["reship", "--missing"]);
    assert_eq!(code, 0, "{said}\n{}", world.archivers[0].log());
    assert!(said.contains("no gateway serves here"), "{said}");
    world.nothing_aside();
    world.judged();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn where_the_archivers_store_is_not_read_a_fresh_receipt_says_that_it_is_there_again() {
    let (kafka, provider) = (Kafka::start(), Provider::start([]).await);
    kafka.operator().make(&[TOPIC, RECEIPTS], &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let mut world = world(dir.path(), &kafka, &provider, false).await;
    let log = log(&world);
    let (code, said) = world.gateway.run(&["reship", "--missing"]);
    assert_eq!((code, said.contains("evidence.out.kafka.archive")), (1, true), "{said}");
    let before = objects(&world, &log);
    std::fs::remove_dir_all(world.gateway.store().join(&log)).expect("the log's folder");
    // Without an archiver the old receipt does not count.
    world.archivers[0].kill();
    let (code, said) = world.gateway.run(&["reship", "--batch", &format!("{log}:0"), "--within", "3s"]);
    assert_eq!((code, said.contains("no receipt yet")), (1, true), "{said}");
    world.archivers[0].spawn();
    let (code, said) = world.gateway.run(&["reship", "--since", "1h"]);
    assert_eq!(code, 0, "{said}\n{}", world.gateway.log());
    assert_eq!(objects(&world, &log), before);
    world.nothing_aside();
    world.verified();
}
