//! What the brokers' own interface does to topics and groups.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaErrorCode;
use tests::services::Kafka;
use tests::shipping::{RECEIPTS, TOPIC};

/// How long something is tried that the brokers do not do at once.
const PATIENCE: Duration = Duration::from_secs(60);

type Admin = AdminClient<DefaultClientContext>;

/// Tries until the brokers do it, on a thread of its own.
fn until(
    kafka: &Kafka,
    what: &str,
    work: impl Fn(&Admin, &tokio::runtime::Runtime) -> KafkaResult<Vec<TopicResult>> + Sync,
) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address.to_string());
    let work = || {
        let admin: Admin = config.create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let begun = Instant::now();
        loop {
            let done = work(&admin, &runtime);
            if done.as_ref().is_ok_and(|done| done.iter().all(Result::is_ok)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {done:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    std::thread::scope(|scope| scope.spawn(work).join()).expect("the brokers do it");
}

/// Makes topics.
pub(crate) fn make(kafka: &Kafka, topics: &[&str]) {
    let new: Vec<NewTopic<'_>> =
        topics.iter().map(|name| NewTopic::new(name, 4, TopicReplication::Fixed(1))).collect();
    until(kafka, "topics are made", |admin, runtime| {
        runtime.block_on(admin.create_topics(&new, &AdminOptions::new()))
    });
}

/// Deletes topics.
pub(crate) fn delete(kafka: &Kafka, topics: &[&str]) {
    until(kafka, "topics are deleted", |admin, runtime| {
        runtime.block_on(admin.delete_topics(topics, &AdminOptions::new()))
    });
}

/// Forgets how far the archivers have read: also where they have not said anything of it yet.
pub(crate) fn reset(kafka: &Kafka) {
    let gone = |group: TopicResult| match group {
        Err((name, RDKafkaErrorCode::GroupIdNotFound)) => Ok(name),
        other => other,
    };
    until(kafka, "the group is deleted", |admin, runtime| {
        let groups =
            runtime.block_on(admin.delete_groups(&["affidavit-archivers-test"], &AdminOptions::new()));
        groups.map(|groups| groups.into_iter().map(gone).collect())
    });
}

/// The topics of the fleet.
pub(crate) const ALL: [&str; 2] = [TOPIC, RECEIPTS];
