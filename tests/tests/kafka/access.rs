//! Every way into the brokers: credentials ship and archive with the rights that deploy/README.md lists, with these nothing
//! else can be done, and what is wrong with a credential is named and loses nothing.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tests::archiver::Archiver;
use tests::deployment::Deployment;
use tests::registrar::{Registrar, directory};
use tests::services::{Allow, Authority, Guard, Kafka, Tokens, Writer, messages};
use tests::shipping::{Bench, RECEIPTS, TOPIC, Way, World};

/// Who comes in.
const USERS: [&str; 2] = ["gw1", "ar1"];

/// One way in: where, and what stands in `kafka` of the gateway's and the archiver's configuration.
#[derive(Debug, Clone)]
struct Door {
    name: &'static str,
    at: SocketAddr,
    gateway: String,
    archiver: String,
}

impl Door {
    fn new(name: &'static str, at: SocketAddr, of: impl Fn(&str) -> String) -> Self {
        let [gateway, archiver] = USERS.map(of);
        Self { name, at, gateway, archiver }
    }

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

/// By the right password.
fn known(guard: &Guard, dir: &Path, mechanism: &str, user: &str) -> String {
    password(guard, mechanism, user, &kept(dir, user, &format!("{user}-secret")))
}

/// By a token that counts.
fn token(guard: &Guard, dir: &Path, user: &str) -> String {
    bearer(guard, &kept(dir, &format!("{user}.token"), &guard.tokens.token(user, 600)))
}

/// What is typed right.
fn doors(guard: &Guard, dir: &Path) -> Vec<Door> {
    let ca = &guard.authority;
    let with = |name, mechanism| Door::new(name, guard.sasl, |user| known(guard, dir, mechanism, user));
    vec![
        Door::new("tls", guard.tls, |_| tls(ca)),
        Door::new("mutual", guard.mutual, |user| mutual(ca, ca, user)),
        with("plain", "plain"),
        with("scram-256", "scram-sha-256"),
        with("scram-512", "scram-sha-512"),
        Door::new("bearer", guard.sasl, |user| token(guard, dir, user)),
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
        let mut archiver = vec![
            Allow::Topic(TOPIC, &["Read"]),
            Allow::Topic(RECEIPTS, &["Write"]),
            Allow::Group("affidavit-registrar-test-registrar"),
        ];
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
    let refused = Writer::with(client(guard, user)).try_send(topic, "x", b"forged");
    let wanted = KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed);
    assert_eq!(refused, Err(wanted), "{user} writes {topic}");
}

fn cannot_read(guard: &Guard, user: &str, topic: &str, own_group: &str) {
    let mut config = client(guard, user);
    config.set("group.id", own_group).set("auto.offset.reset", "earliest");
    let reader: BaseConsumer = config.create().expect("a reader");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).expect("an offset");
    reader.assign(&list).expect("a partition");
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "{user} is not told that he may not read {topic}");
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(_)) => panic!("{user} reads {topic}"),
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed))) => return,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed))) => {
                panic!("{user} has no right to {own_group}")
            }
            Some(Err(_)) | None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn each_way_in_works_with_the_rights_that_are_listed_and_these_let_nobody_do_more() {
    let Bench { kafka, dir, provider } =
        Bench::over(Kafka::guarded(), &[("compression.type", "uncompressed")]).await;
    let guard = kafka.guard();
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
    cannot_read(guard, "gw1", TOPIC, "affidavit-receipts-gw1");
    cannot_read(guard, "ar1", RECEIPTS, "affidavit-archivers-plain");
}

/// A way in that is wrong, how it is made right, and what is to be said meanwhile.
struct Wrong {
    door: Door,
    right: Door,
    says: [&'static str; 2],
}

impl Wrong {
    /// By a token: a file that somebody else keeps fresh, so that what runs is not started anew.
    fn is_token(&self) -> bool {
        self.door.gateway.contains("oauthbearer")
    }

    /// Makes a gateway's configuration right or wrong.
    fn set_gateway(&self, config: &Path, is_right: bool) {
        self.set(config, is_right, |door| &door.gateway);
    }

    /// Makes an archiver's right.
    fn mend_archiver(&self, config: &Path) {
        self.set(config, true, |door| &door.archiver);
    }

    fn set(&self, config: &Path, is_right: bool, of: fn(&Door) -> &str) {
        let (from, to) = if is_right { (&self.door, &self.right) } else { (&self.right, &self.door) };
        let text = std::fs::read_to_string(config).expect("the configuration");
        assert!(text.contains(of(from)), "{text}");
        let text = text.replace(&from.at.to_string(), &to.at.to_string()).replace(of(from), of(to));
        std::fs::write(config, text).expect("the configuration");
    }

    /// What a registrar's configuration says of the topic.
    fn of_registrar(&self, is_right: bool) -> String {
        let door = if is_right { &self.right } else { &self.door };
        let (at, way) = (door.at, &door.archiver);
        format!("kafka: {{ brokers: [\"{at}\"], topic: {TOPIC}, timeout: 5s, {way} }}\n")
    }
}

fn token_file(name: &str, user: &str) -> String {
    format!("{name}.{user}.token")
}

/// Everything that can be wrong with credentials.
fn wrongs(guard: &Guard, dir: &Path, foreign: &Authority) -> Vec<Wrong> {
    const SASL: [&str; 2] = ["`kafka.sasl`: wanted", "uthentication"];
    const TLS: [&str; 2] = ["`kafka.tls`: wanted", "certificate"];
    let ca = &guard.authority;
    let sasl = |name, mechanism: &str, wrong: &dyn Fn(&str) -> String| Wrong {
        door: Door::new(name, guard.sasl, wrong),
        right: Door::new(name, guard.sasl, |user| known(guard, dir, mechanism, user)),
        says: SASL,
    };
    let bad = |mechanism: &'static str| {
        move |user: &str| password(guard, mechanism, user, &kept(dir, "bad", "gw1-Secret"))
    };
    let nobody = |mechanism: &'static str| {
        move |user: &str| password(guard, mechanism, "nobody", &kept(dir, user, &format!("{user}-secret")))
    };
    // Each has files of its own, whose content becomes right.
    let token = |name: &'static str, wrong: &dyn Fn(&str) -> String| {
        let file = |user: &str| bearer(guard, &kept(dir, &token_file(name, user), &wrong(user)));
        let door = Door::new(name, guard.sasl, file);
        Wrong { right: door.clone(), door, says: SASL }
    };
    let tls = |name, at, wrong: &dyn Fn(&str) -> String, right: Door| Wrong {
        door: Door::new(name, at, wrong),
        right,
        says: TLS,
    };
    let mutually = || Door::new("mutual", guard.mutual, |user| mutual(ca, ca, user));
    let one_sided = || Door::new("tls", guard.tls, |_| self::tls(ca));
    vec![
        sasl("plain-password", "plain", &bad("plain")),
        sasl("plain-user", "plain", &nobody("plain")),
        sasl("scram-password", "scram-sha-256", &bad("scram-sha-256")),
        sasl("scram-user", "scram-sha-512", &nobody("scram-sha-512")),
        token("token-ended", &|user| guard.tokens.token(user, -300)),
        token("token-key", &|user| Tokens::new().token(user, 600)),
        token("token-audience", &|user| guard.tokens.token_for(user, "others", 600)),
        tls("client-ca", guard.mutual, &|user| mutual(ca, foreign, user), mutually()),
        tls("client-none", guard.mutual, &|_| self::tls(ca), mutually()),
        tls("broker-ca", guard.tls, &|_| self::tls(foreign), one_sided()),
        tls("broker-host", guard.elsewhere, &|_| self::tls(ca), one_sided()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn a_wrong_credential_is_named_by_each_process_loses_nothing_and_becomes_right_again() {
    let Bench { kafka, dir, provider } =
        Bench::over(Kafka::guarded(), &[("compression.type", "uncompressed")]).await;
    let (guard, foreign, begun) = (kafka.guard(), Authority::new(), Instant::now());
    let wrongs = wrongs(guard, dir.path(), &foreign);
    allow(&kafka, &wrongs.iter().map(|wrong| wrong.door.name).collect::<Vec<_>>());
    let right_tokens = |wrong: &Wrong| {
        for user in USERS.iter().filter(|_| wrong.is_token()) {
            kept(dir.path(), &token_file(wrong.door.name, user), &guard.tokens.token(user, 600));
        }
    };
    let path = |wrong: &Wrong| dir.path().join(wrong.door.name);
    let mut worlds: Vec<World> =
        wrongs.iter().map(|wrong| World::prepare(&path(wrong), &wrong.door.way(), &provider, 1)).collect();
    // A log that registrars find nowhere but in the topic.
    let mut other = World::prepare(&dir.path().join("other"), &Way::plain(&kafka), &provider, 1);
    let deployment = Deployment::new(&dir.path().join("registry"));
    deployment.enroll("gw1", &other.gateway.seal_key());
    let store = |wrong: &Wrong| path(wrong).join("registry");
    let mut registrars: Vec<Registrar> = wrongs
        .iter()
        .map(|wrong| deployment.registrar(wrong.door.name, &directory(&store(wrong)), &[]))
        .collect();
    other.gateway.spawn();
    for ((world, registrar), wrong) in worlds.iter_mut().zip(&mut registrars).zip(&wrongs) {
        world.gateway.spawn();
        world.archivers[0].spawn();
        registrar.spawn_with(&wrong.of_registrar(false));
    }
    // A gateway that knows nothing of its logs ends; who only reads the topic waits for somebody.
    for ((world, registrar), wrong) in worlds.iter_mut().zip(&registrars).zip(&wrongs) {
        let name = wrong.door.name;
        let says = |log: &str| wrong.says.iter().all(|says| log.contains(says));
        world.until(&format!("{name} to be named"), |world| {
            says(&world.gateway.log()) && says(&world.archivers[0].log())
        });
        registrar.until(&format!("{name} to be named"), || says(&registrar.log()));
        let ended = |world: &mut World| world.gateway.process().and_then(|process| process.ended());
        let begun = Instant::now();
        while ended(world).is_none() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let code = ended(world).and_then(|status| status.code());
        assert_eq!(code, Some(1), "{name}: {}", world.gateway.log());
        assert!(world.archivers[0].is_alive(), "{name}: {}", world.archivers[0].log());
        assert!(deployment.newest(&store(wrong)).0 < 4, "{name}: it cannot know the log");
    }
    other.until("the other gateway", |world| world.gateway.ready());
    other.calls(1).await;
    other.all_sent();
    for ((world, registrar), wrong) in worlds.iter_mut().zip(&mut registrars).zip(&wrongs) {
        right_tokens(wrong);
        wrong.set_gateway(&world.gateway.dir.join("gateway.yaml"), true);
        world.gateway.spawn();
        if !wrong.is_token() {
            wrong.mend_archiver(&path(wrong).join("ar1/archive.yaml"));
            world.archivers[0].spawn();
            registrar.spawn_with(&wrong.of_registrar(true));
        }
    }
    for ((world, registrar), wrong) in worlds.iter_mut().zip(&registrars).zip(&wrongs) {
        let name = wrong.door.name;
        world.until(&format!("{name} to be right"), |world| world.gateway.ready());
        world.calls(1).await;
        world.all_archived();
        registrar.until(&format!("{name} to be right"), || deployment.newest(&store(wrong)).0 >= 4);
    }
    drop(registrars);
    // A gateway that knows its logs serves, and keeps what it cannot send: in a short round one of each kind.
    let step = if tests::long_round() { 1 } else { 3 };
    let mut picked: Vec<(World, &Wrong)> = worlds.into_iter().zip(&wrongs).step_by(step).collect();
    for (world, wrong) in &mut picked {
        world.gateway.kill();
        if wrong.is_token() {
            let ended = guard.tokens.token("gw1", -300);
            kept(dir.path(), &token_file(wrong.door.name, "gw1"), &ended);
        }
        wrong.set_gateway(&world.gateway.dir.join("gateway.yaml"), false);
        world.gateway.spawn();
    }
    for (world, wrong) in &mut picked {
        let name = wrong.door.name;
        world.until(&format!("{name} to serve"), |world| !world.readiness().is_empty());
        world.calls(1).await;
        world.until(&format!("{name} to be no way"), |world| {
            world.readiness().contains("the store does not take batches")
        });
        assert!(world.mark("archived") < world.mark("journaled"), "{name}");
        right_tokens(wrong);
        if !wrong.is_token() {
            world.gateway.kill();
            wrong.set_gateway(&world.gateway.dir.join("gateway.yaml"), true);
            world.gateway.spawn();
        }
    }
    let again = picked.len();
    for (world, wrong) in picked {
        let name = wrong.door.name;
        world.until(&format!("{name} to be right again"), |world| world.gateway.ready());
        // The log of the one that was killed is closed, too.
        let journal = world.gateway.dir.join("journal");
        let epochs = || {
            let names = std::fs::read_dir(&journal).into_iter().flatten().flatten();
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with("20")).count()
        };
        world.until(&format!("the earlier log of {name}"), |_| epochs() == 1);
        world.nothing_aside();
        world.verified();
    }
    let (count, took) = (wrongs.len(), begun.elapsed().as_secs());
    println!("{count} wrong credentials at a first start, {again} at a later one, {took} s");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn topics_are_made_by_whom_the_brokers_let_and_who_may_not_is_told_at_the_start() {
    let Bench { kafka, dir, provider } = Bench::over(Kafka::guarded(), &[]).await;
    let guard = kafka.guard();
    let rights = |prefix: &str, made: &[&str]| {
        for kind in ["batches", "receipts"] {
            let name = format!("{prefix}-{kind}");
            let mut operations = vec![if kind == "batches" { "Write" } else { "Read" }, "DescribeConfigs"];
            operations.extend(made.contains(&kind).then_some("Create"));
            kafka.operator().allow("gw1", &[Allow::Topic(&name, &operations)]);
        }
    };
    kafka.operator().allow("gw1", &[Allow::Group("affidavit-receipts-gw1")]);
    let prepare = |prefix: &str, made: &[&str]| {
        rights(prefix, made);
        let gateway = known(guard, dir.path(), "scram-sha-512", "gw1");
        let gateway = format!("{gateway}, create: {{ partitions: 2, replication: 1 }}");
        let (topic, receipts) = (format!("{prefix}-batches"), format!("{prefix}-receipts"));
        let way = Way { gateway, topic, receipts, deployment: prefix.into(), ..Way::at(guard.sasl) };
        let mut world = World::prepare(&dir.path().join(prefix), &way, &provider, 1);
        world.gateway.spawn();
        world
    };
    let mut may = prepare("may", &["batches", "receipts"]);
    let mut half = prepare("half", &["batches"]);
    let mut none = prepare("none", &[]);
    for (world, topic) in [(&mut half, "half-receipts"), (&mut none, "none-batches")] {
        let named = format!("topic `{topic}`, topic: not there, and not made");
        world.until("the refusal", |world| world.gateway.log().contains(&named));
        let log = world.gateway.log();
        assert!(log.contains("the right Create on it") && log.contains("uthorization"), "{log}");
        assert_eq!(world.gateway.stop(), Some(1), "{log}");
    }
    may.until("its topics", |world| world.gateway.ready());
    may.calls(1).await;
    may.all_sent();
    let settings = kafka.operator().settings("may-receipts");
    assert_eq!(settings.get("cleanup.policy").map(String::as_str), Some("delete"));
    assert!(messages(&kafka, "may-batches").iter().all(|took| took.partition < 2));
}
