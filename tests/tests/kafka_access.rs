//! Every way into the brokers: credentials ship and archive with the rights that deploy/README.md lists, and with these nothing
//! else can be done.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tests::archiver::Archiver;
use tests::provider::Provider;
use tests::services::{Allow, Authority, Guard, Kafka, messages};
use tests::shipping::{RECEIPTS, TOPIC, Way, World};

/// One way in: where, and what stands in `kafka` of the gateway's and the archiver's configuration.
struct Door {
    name: &'static str,
    at: SocketAddr,
    gateway: String,
    archiver: String,
}

impl Door {
    fn way(&self) -> Way {
        let (gateway, archiver) = (self.gateway.clone(), self.archiver.clone());
        let way = Way { gateway, archiver, ..Way::at(self.at) };
        Way { deployment: self.name.into(), ..way }
    }
}

fn kept(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("its mode");
    path
}

fn tls(ca: &Authority) -> String {
    format!("tls: {{ ca: {} }}", ca.ca().display())
}

fn mutual(ca: &Authority, by: &Authority, user: &str) -> String {
    let own = by.certificate(user, "client.example");
    let (certificate, key) = (own.certificate.display(), own.key.display());
    format!("tls: {{ ca: {}, certificate: {certificate}, key: {key} }}", ca.ca().display())
}

fn password(guard: &Guard, mechanism: &str, user: &str, file: &Path) -> String {
    let (tls, file) = (tls(&guard.authority), file.display());
    format!("{tls}, sasl: {{ mechanism: {mechanism}, user: {user}, secret: {{ file: {file} }} }}")
}

fn bearer(guard: &Guard, file: &Path) -> String {
    let (tls, file) = (tls(&guard.authority), file.display());
    format!("{tls}, sasl: {{ mechanism: oauthbearer, secret: {{ file: {file} }} }}")
}

/// What is typed right.
fn doors(guard: &Guard, dir: &Path) -> Vec<Door> {
    let users = ["gw1", "ar1"];
    let of = |name, at, [gateway, archiver]: [String; 2]| Door { name, at, gateway, archiver };
    let secret = |user| kept(dir, user, &format!("{user}-secret"));
    let token = |user: &str| kept(dir, &format!("{user}.token"), &guard.tokens.token(user, 600));
    let with = |mechanism: &'static str| users.map(|user| password(guard, mechanism, user, &secret(user)));
    let ca = &guard.authority;
    vec![
        of("tls", guard.tls, users.map(|_| tls(ca))),
        of("mutual", guard.mutual, users.map(|user| mutual(ca, ca, user))),
        of("plain", guard.sasl, with("plain")),
        of("scram-256", guard.sasl, with("scram-sha-256")),
        of("scram-512", guard.sasl, with("scram-sha-512")),
        of("bearer", guard.sasl, users.map(|user| bearer(guard, &token(user)))),
    ]
}

/// The rights of deploy/README.md.
fn allow(kafka: &Kafka, deployments: &[&str]) {
    for prefix in ["", "CN="] {
        let topic = Allow::Topic(TOPIC, &["Write", "DescribeConfigs"]);
        let receipts = Allow::Topic(RECEIPTS, &["Read", "DescribeConfigs"]);
        let gateway = [topic, receipts, Allow::Group("affidavit-receipts-gw1")];
        kafka.operator().allow(&format!("{prefix}gw1"), &gateway);
        let groups: Vec<String> =
            deployments.iter().map(|name| format!("affidavit-archivers-{name}")).collect();
        let mut archiver = vec![Allow::Topic(TOPIC, &["Read"]), Allow::Topic(RECEIPTS, &["Write"])];
        archiver.extend(groups.iter().map(|group| Allow::Group(group)));
        kafka.operator().allow(&format!("{prefix}ar1"), &archiver);
    }
}

/// What a client can do that has the password of a user.
fn client(guard: &Guard, user: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", guard.sasl.to_string())
        .set("security.protocol", "sasl_ssl")
        .set("ssl.ca.location", guard.authority.ca().display().to_string())
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", user)
        .set("sasl.password", format!("{user}-secret"));
    config
}

fn cannot_write(guard: &Guard, user: &str, topic: &str) {
    let producer: BaseProducer = client(guard, user).create().expect("a producer");
    producer.send(BaseRecord::<str, [u8]>::to(topic).key("x").payload(b"forged")).expect("room");
    let _ = producer.flush(Duration::from_secs(5));
}

fn cannot_read(guard: &Guard, user: &str, topic: &str) {
    let mut config = client(guard, user);
    config.set("group.id", "affidavit-receipts-gw1").set("auto.offset.reset", "earliest");
    let reader: BaseConsumer = config.create().expect("a reader");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).expect("an offset");
    reader.assign(&list).expect("a partition");
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "{user} is not told that he may not read {topic}");
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(_)) => panic!("{user} reads {topic}"),
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ))) => return,
            Some(Err(_)) | None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn each_way_in_works_with_the_rights_that_are_listed_and_these_let_nobody_do_more() {
    let kafka = Kafka::guarded();
    let guard = kafka.guard();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    kafka.operator().make(&[TOPIC, RECEIPTS], &[("compression.type", "uncompressed")]);
    let doors = doors(guard, dir.path());
    allow(&kafka, &doors.iter().map(|door| door.name).collect::<Vec<_>>());
    let mut worlds: Vec<World> = doors
        .iter()
        .map(|door| World::prepare(&dir.path().join(door.name), &door.way(), &provider, 1))
        .collect();
    for world in &mut worlds {
        world.gateway.spawn();
        world.archivers.iter_mut().for_each(Archiver::spawn);
    }
    for (world, door) in worlds.iter_mut().zip(&doors) {
        world.until(door.name, |world| world.gateway.ready());
        world.calls(2).await;
    }
    for (world, door) in worlds.into_iter().zip(&doors) {
        let log = world.gateway.log();
        assert!(
            !log.contains("cannot be judged") && !log.contains("cannot be read now"),
            "{}: {log}",
            door.name
        );
        world.verified();
    }
    for (user, topic) in [("gw1", RECEIPTS), ("ar1", TOPIC)] {
        cannot_write(guard, user, topic);
        assert!(messages(&kafka, topic).iter().all(|took| took.value != b"forged"), "{user} writes {topic}");
    }
    cannot_read(guard, "gw1", TOPIC);
    cannot_read(guard, "ar1", RECEIPTS);
}
