//! Two deployments on one cluster and in one bucket: neither sees keys, messages or receipts of the other.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use tests::archive::{self, check_and_copy_below, versions};
use tests::archiver::Archiver;
use tests::provider::Provider;
use tests::services::{Kafka, Minio, S3Server};
use tests::shipping::{RECEIPTS, TOPIC, Way, World};

/// One of the two.
struct Deployment {
    way: Way,
    prefix: &'static str,
}

async fn side_by_side(dir: &Path, server: &S3Server, provider: &Provider, two: [Deployment; 2]) {
    let is_shared = two[0].way.topic == two[1].way.topic;
    let prepare = |one: &Deployment| {
        let dir = dir.join(&one.way.deployment);
        let (trust, out) =
            (dir.join("gateway/trust.yaml"), archive::out_below(&server.endpoint(), one.prefix));
        let mut world = World::over(&dir, &one.way, provider, 1, &trust, &out);
        world.archivers[0].environment = archive::environment();
        world
    };
    let mut worlds = [prepare(&two[0]), prepare(&two[1])];
    for world in &mut worlds {
        world.gateway.spawn();
        world.archivers.iter_mut().for_each(Archiver::spawn);
    }
    for world in &mut worlds {
        world.until("readiness", |world| world.gateway.ready());
        world.calls(3).await;
    }
    // An archiver that dies and comes again changes nothing of this.
    for world in &mut worlds {
        world.all_archived();
        world.archivers[0].kill();
        world.calls(2).await;
        world.archivers[0].spawn();
    }
    for (world, one) in worlds.iter_mut().zip(&two) {
        world.all_archived();
        world.nothing_aside();
        // What is the other's is counted, and is no alarm.
        let foreign = |world: &World| world.archivers[0].metric("gateway_archive_foreign_messages_total");
        world.until("what is foreign to be counted", |world| !is_shared || foreign(world) >= 1.0);
        assert!(is_shared || foreign(world) <= 0.0, "{}", world.archivers[0].log());
        assert!(world.metric("gateway_receipts_forged_total") <= 0.0, "{}", world.gateway.log());
        world.stop();
        let logs = format!("{}/gw1", one.way.deployment);
        assert!(check_and_copy_below(server, one.prefix, &logs, &world.gateway.store()).await > 4);
        world.judged();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and MinIO"]
async fn deployments_share_topics_and_prefix_or_have_their_own_and_do_not_see_each_other() {
    let kafka = Kafka::start();
    let server = Minio::start();
    server.create_locked_bucket(archive::BUCKET).await;
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    kafka.operator().make(&[TOPIC, RECEIPTS, "d-batches", "d-receipts"], &[]);
    let of = |name: &str| Way { deployment: name.into(), ..Way::plain(&kafka) };
    let shared = ["a", "b"].map(|name| Deployment { way: of(name), prefix: archive::PREFIX });
    side_by_side(dir.path(), &server, &provider, shared).await;
    let own = Way { topic: "d-batches".into(), receipts: "d-receipts".into(), ..of("d") };
    let own =
        [Deployment { way: of("c"), prefix: "c/evidence" }, Deployment { way: own, prefix: "d/evidence" }];
    side_by_side(dir.path(), &server, &provider, own).await;
    // In the bucket each is below its own name, and there is nothing else.
    let (all, _) = versions(&server.client(), "").await;
    let known = ["a", "b"].map(|name| format!("{}/{name}/gw1/", archive::PREFIX));
    let known = known.into_iter().chain(["c/evidence/c/gw1/".into(), "d/evidence/d/gw1/".into()]);
    let known: Vec<String> = known.collect();
    for key in all.keys() {
        assert!(known.iter().any(|below| key.starts_with(below)), "{key}");
    }
}
