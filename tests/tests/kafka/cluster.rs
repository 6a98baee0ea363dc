//! A cluster of three brokers: its topics are judged at each start, and it may lose one of them.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use evidence::KafkaStore;
use evidence::topic::{Connection, CreateTopics, Security, TopicReport, TopicSettings};
use tests::provider::Provider;
use tests::services::Kafka;
use tests::shipping::{RECEIPTS, TOPIC, Way, World};

fn judge(kafka: &Kafka, topic: &str, create: Option<CreateTopics>) -> TopicReport {
    let settings = TopicSettings {
        connection: Connection {
            brokers: kafka.addresses().iter().map(ToString::to_string).collect(),
            security: Security::default(),
            timeout: Duration::from_secs(10),
        },
        topic: topic.into(),
        receipts: "good".into(),
        deployment: "test".into(),
        gateway: "gw1".into(),
        archivers: Vec::new(),
        create,
        outage: Duration::from_secs(7 * 86_400),
        reship_after: Duration::from_secs(300),
    };
    KafkaStore::judge(&settings).expect("the brokers answer")
}

/// Each setting by which a batch is lost or never gets through is named, and nothing else.
fn judged(kafka: &Kafka) {
    const GOOD: [(&str, &str); 2] = [("min.insync.replicas", "2"), ("compression.type", "uncompressed")];
    kafka.operator().make(&["good"], &GOOD);
    assert_eq!(judge(kafka, "good", None), TopicReport::default());
    for (n, (setting, value, is_fault)) in [
        ("max.message.bytes", "900000", true),
        ("cleanup.policy", "compact", true),
        ("cleanup.policy", "compact,delete", true),
        ("compression.type", "zstd", true),
        ("min.insync.replicas", "4", true),
        ("compression.type", "producer", false),
        ("retention.ms", "3600000", false),
        ("retention.bytes", "1000000000", false),
        ("unclean.leader.election.enable", "true", false),
        ("min.insync.replicas", "1", false),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("bad-{n}");
        let others = GOOD.into_iter().filter(|(good, _)| *good != setting);
        let all: Vec<(&str, &str)> = others.chain([(setting, value)]).collect();
        kafka.operator().make(&[&topic], &all);
        let report = judge(kafka, &topic, None);
        let (named, quiet) =
            if is_fault { (&report.faults, &report.warnings) } else { (&report.warnings, &report.faults) };
        assert!(quiet.is_empty(), "{setting}: {report:?}");
        let named: Vec<_> =
            named.iter().map(|one| (one.topic.as_str(), one.setting, one.found.as_str())).collect();
        assert_eq!(named, [(topic.as_str(), setting, value)]);
    }
    kafka.operator().make_with(&["one"], 1, &[("min.insync.replicas", "1"), GOOD[1]]);
    let report = judge(kafka, "one", None);
    assert_eq!((report.faults.len(), report.warnings[0].setting), (0, "replication factor"), "{report:?}");
    // What is missing is a fault, and made well where that is asked for.
    let report = judge(kafka, "new", None);
    assert_eq!((report.faults[0].topic.as_str(), report.faults[0].found.as_str()), ("new", "not there"));
    let report = judge(kafka, "new", Some(CreateTopics { partitions: 4, replication: 4 }));
    assert!(report.faults[0].found.contains("not there, and not made"), "{report:?}");
    let report = judge(kafka, "new", Some(CreateTopics { partitions: 4, replication: 3 }));
    assert_eq!(report, TopicReport { made: vec!["new".into()], ..TopicReport::default() });
    let settings = kafka.operator().settings("new");
    for (setting, value) in [
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("retention.ms", "604800000"),
        ("cleanup.policy", "delete"),
        ("compression.type", "uncompressed"),
    ] {
        assert_eq!(settings.get(setting).map(String::as_str), Some(value), "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn a_cluster_is_judged_at_start_and_loses_a_broker_and_no_batch() {
    let mut kafka = Kafka::cluster();
    judged(&kafka);
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let gateway = "create: { partitions: 4, replication: 3 }".to_owned();
    let way = Way { gateway, topic: TOPIC.into(), receipts: RECEIPTS.into(), ..Way::plain(&kafka) };
    let mut world = World::start(dir.path(), &way, &provider, 2);
    world.calls(3).await;
    world.all_archived();
    // One is away, in a long round each, while calls go on.
    let rounds = if tests::long_round() { 3 } else { 1 };
    println!("{rounds} of three brokers were away in turn");
    for broker in 0..rounds {
        kafka.pause_one(broker);
        world.calls(2).await;
        world.all_archived();
        kafka.resume();
    }
    // One of three takes nothing: what is acknowledged waits on the gateway's disk.
    kafka.pause_one(0);
    kafka.pause_one(1);
    world.calls(2).await;
    world.until("the trouble to be named", |world| {
        world.readiness().contains("the store does not take batches")
    });
    kafka.resume();
    world.all_archived();
    world.nothing_aside();
    world.verified();
}
