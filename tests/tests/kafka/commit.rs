//! `commit: kafka` with the real gateway and Apache Kafka: machines that are lost with their disks, brokers that go away,
//! gateways that are frozen for longer than a lease, two that would close the same log, and somebody who writes to the topic
//! and has not the deployment's secret.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tests::Dice;
use tests::archiver::Archiver;
use tests::client::{Call, Leave, send, send_until};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tests::services::{Kafka, Writer};
use tests::shipping::{self, RECEIPTS, Way};

/// The lease in these tests.
const LEASE: Duration = Duration::from_secs(2);
const TOPIC: &str = "affidavit-commit";
const WAIT: Duration = Duration::from_secs(60);

/// A cluster, a provider, and gateways that share a key table and a store, each with a disk of its own.
struct Bed {
    kafka: Kafka,
    provider: Provider,
    dir: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { kafka: Kafka::start(), provider: Provider::start([]).await, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    fn prepare(&self, name: &str) -> Gateway {
        self.prepare_out(name, format!("{{ directory: {} }}", self.store().display()))
    }

    fn prepare_out(&self, name: &str, out: String) -> Gateway {
        let evidence = format!(
            "  commit:\n    kafka:\n      brokers: [\"{}\"]\n      lease: {}s\n      timeout: 5s\n      secret: {{ file: {} }}\n      create: {{ partitions: 3, replication: 1 }}\n  segment: 4MiB\n",
            self.kafka.address,
            LEASE.as_secs(),
            tests::commit_secret(self.dir.path()).display(),
        );
        let setup = Setup {
            name: name.to_owned(),
            provider: self.provider.url(),
            evidence,
            out,
            evidence_dir: Some(self.path(&format!("{name}-disk"))),
            // Scripted streams tell no usage; their outcomes wait for no estimate.
            route: "    estimate: off\n".into(),
            ..Setup::default()
        };
        let gateway = Gateway::prepare(&self.path(name), &setup);
        // The keys of content outlive a machine.
        let config = gateway.dir.join("gateway.yaml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let own = format!("{}/keytable", gateway.dir.display());
        std::fs::write(&config, text.replace(&own, &self.keys().display().to_string()))
            .expect("the configuration");
        gateway
    }

    fn keys(&self) -> PathBuf {
        self.path("keytable")
    }

    /// A machine is gone, and what was on its disk.
    fn lose(&self, gateway: &mut Gateway, name: &str) {
        gateway.kill();
        std::fs::remove_dir_all(self.path(&format!("{name}-disk"))).expect("a disk");
    }

    fn evidence(&self, trust: &Path) -> Evidence {
        Evidence::read_from(&self.store(), trust, &self.keys())
    }

    fn verify(&self, gateway: &Gateway, trust: &Path) -> (i32, String) {
        let text = |path: &Path| path.display().to_string();
        let (code, out, err) = gateway.auditor(&[
            "verify".into(),
            text(&self.store()),
            "--trust".into(),
            text(trust),
            "--key-table".into(),
            text(&self.keys()),
            "--state".into(),
            text(&self.path("auditor-state")),
        ]);
        (code, format!("{out}{err}"))
    }
}

async fn call(gateway: &Gateway, text: &str) -> (u16, Option<String>, String) {
    let body =
        serde_json::json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": text }] });
    let call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_string());
    let got = send(gateway.address, &call).await;
    let id = got.exchange().map(str::to_owned);
    (got.status, id.filter(|_| got.whole), got.header("x-affidavit-reason").unwrap_or_default().to_owned())
}

async fn calls(gateway: &Gateway, tag: &str, count: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for n in 0..count {
        // One does not fit into a message, nor into memory.
        let filler = if n == 2 { "a large request ".repeat(150_000) } else { String::new() };
        let (status, id, reason) = call(gateway, &format!("{tag} {n} {filler}")).await;
        assert_eq!(status, 200, "{reason}\n{}", gateway.log());
        ids.extend(id);
    }
    assert_eq!(ids.len(), count);
    ids
}

fn until(what: &str, gateway: &Gateway, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "waited for {what}; the gateway:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn closed(evidence: &Evidence, reason: &str) -> usize {
    evidence.of_kind("close").filter(|close| close["reason"] == reason).count()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn public_key(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a key's file");
    let line = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("its public key");
    line.trim().to_owned()
}

fn signal(gateway: &Gateway, name: &str) {
    let pid = gateway.pid().expect("a process").to_string();
    assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
}

fn count_of(text: &str, kind: &str) -> usize {
    let of_log = |part: &str| part.trim().strip_suffix(kind)?.trim().parse::<usize>().ok();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("records:"));
    lines.flat_map(|line| line.split(',').filter_map(of_log)).sum()
}

/// Load until the gateway is gone; what its callers got whole.
fn load(
    gateway: &Gateway,
    callers: u64,
    seed: u64,
    replay: Option<&'static str>,
) -> (tokio::task::JoinSet<()>, Arc<Mutex<Vec<String>>>) {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut set = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (address, key, acknowledged) = (gateway.address, gateway.key.clone(), Arc::clone(&acknowledged));
        let mut dice = Dice::new(seed + caller);
        set.spawn(async move {
            for n in 0.. {
                let filler = "middle ".repeat(if dice.below(10) == 0 { 300_000 } else { 200 });
                let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": dice.below(2) == 0,
                    "messages": [{ "role": "user", "content": format!("{caller} {n} {filler}") }] });
                let call = Call::post("/openai/v1/chat/completions", &key, body.to_string());
                let call = match replay {
                    Some(replay) => call.header("x-replay", replay),
                    None => call,
                };
                let leave = Leave { after_bytes: None, after_silence: Some(Duration::from_secs(20)) };
                let got = send_until(address, &call, leave).await;
                if got.status == 200 && got.whole {
                    acknowledged.lock().expect("no caller died").extend(got.exchange().map(str::to_owned));
                }
                if got.status == 0 {
                    break;
                }
            }
        });
    }
    (set, acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_machine_that_is_lost_under_load_has_lost_nothing_when_its_gateway_starts_on_an_empty_disk() {
    let rounds = if tests::long_round() { 30 } else { 2 };
    let bed = Bed::new().await;
    let mut gateway = bed.prepare("gw1");
    let mut dice = Dice::new(20_261_121);
    let mut all = Vec::new();
    let begun = Instant::now();
    for round in 0..rounds {
        gateway.serve();
        let (mut callers, acknowledged) = load(&gateway, 6, round * 100, None);
        tokio::time::sleep(Duration::from_millis(700 + dice.below(1500))).await;
        bed.lose(&mut gateway, "gw1");
        while callers.join_next().await.is_some() {}
        all.append(&mut acknowledged.lock().expect("no caller died"));
    }
    gateway.serve();
    calls(&gateway, "the end", 3).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let trust = gateway.dir.join("trust.yaml");
    let (code, text) = bed.verify(&gateway, &trust);
    assert!(code == 0 && text.starts_with("VERIFIED"), "{text}\n{}", gateway.log());
    let evidence = bed.evidence(&trust);
    assert!(all.len() > 10, "the load reached the gateway: {}", all.len());
    for id in &all {
        let outcome =
            evidence.outcome(id).unwrap_or_else(|| panic!("{id} was acknowledged and has no outcome"));
        assert_eq!(outcome["end"], "complete", "{id}");
        assert!(evidence.content(id, "client_request").is_some(), "{id} has no content");
    }
    assert_eq!(closed(&evidence, "crash"), usize::try_from(rounds).expect("a few"));
    eprintln!(
        "{rounds} machines lost, {} acknowledged exchanges kept, {} s",
        all.len(),
        begun.elapsed().as_secs()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn one_of_two_survivors_closes_a_dead_gateways_log_with_its_closing_key() {
    let bed = Bed::new().await;
    let mut dead = bed.prepare("gw1");
    let deployment = Deployment::new(&bed.path("registry"));
    let closing = deployment.key("closing.key");
    let text = |path: &Path| path.display().to_string();
    let entry = deployment
        .sign("add", &["enroll", "--gateway", "gw1", "--key", &dead.seal_key(), "--closer", &text(&closing)]);
    let root = deployment.dir.join("root.pub");
    let more = [
        "--closing-key".to_owned(),
        text(&closing),
        "--enrolled-by".to_owned(),
        text(&entry),
        "--root-key".to_owned(),
        text(&root),
    ];
    let mut survivors = Vec::new();
    for name in ["gw2", "gw3"] {
        let mut gateway = bed.prepare(name);
        deployment.enroll(name, &gateway.seal_key());
        gateway.serve_with(&more.iter().map(String::as_str).collect::<Vec<_>>());
        survivors.push(gateway);
    }
    let mut registrar = deployment.registrar("registrar", &tests::registrar::directory(&bed.store()), &[]);
    registrar.spawn();
    dead.serve();
    let told = calls(&dead, "before the end", 12).await;
    bed.lose(&mut dead, "gw1");
    let begun = Instant::now();
    let done = |gateway: &Gateway| gateway.log().contains("a dead gateway's log is closed");
    until("a survivor to close the log", &survivors[0], || survivors.iter().any(done));
    eprintln!(
        "closed {} ms after the machine was lost, with a lease of {LEASE:?}",
        begun.elapsed().as_millis()
    );
    // The other leaves it: what would be a second close is none.
    tokio::time::sleep(3 * LEASE).await;
    assert_eq!(survivors.iter().filter(|gateway| done(gateway)).count(), 1);
    for gateway in &mut survivors {
        calls(gateway, "they serve", 3).await;
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    }
    let trust = deployment.trust_file();
    let wanted = |code: i32, text: &str| {
        code == 0 && text.contains(&format!("closed (salvaged by the closer {})", public_key(&closing)))
    };
    let text = registrar.until_said(&|| bed.verify(&dead, &trust), &wanted);
    assert!(text.starts_with("VERIFIED"), "{text}");
    assert_eq!(count_of(&text, "outcome"), told.len() + 6, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn while_the_brokers_are_away_nothing_is_admitted_and_nothing_ends_and_then_it_goes_on() {
    let mut bed = Bed::new().await;
    let mut gateway = bed.prepare("gw1");
    gateway.serve();
    calls(&gateway, "before", 3).await;
    bed.kafka.pause();
    let away = Instant::now();
    // Who is under way when they go waits at most until the lease is over.
    let (status, _, reason) = call(&gateway, "under way").await;
    assert_eq!((status, reason.as_str()), (503, "no_lease"), "{}", gateway.log());
    assert!(away.elapsed() < 2 * LEASE, "{:?}", away.elapsed());
    let (status, _, reason) = call(&gateway, "refused").await;
    assert_eq!((status, reason.as_str()), (503, "no_lease"));
    assert!(!gateway.ready(), "not ready");
    let ready = gateway.admin_get("/readyz").unwrap_or_default();
    assert!(ready.contains("no_lease"), "{ready}");
    bed.kafka.resume();
    until("the gateway to be ready again", &gateway, || gateway.ready());
    calls(&gateway, "behind", 3).await;
    let metrics = gateway.admin_get("/metrics").unwrap_or_default();
    assert!(metrics.contains("gateway_commit_lease_age_seconds "), "{metrics}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let trust = gateway.dir.join("trust.yaml");
    let (code, text) = bed.verify(&gateway, &trust);
    assert!(code == 0 && text.starts_with("VERIFIED"), "{text}");
    let evidence = bed.evidence(&trust);
    assert_eq!(closed(&evidence, "shutdown"), 1, "one log, closed once");
    assert_eq!(bed.provider.seen().len(), 6, "what was refused went nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_gateway_that_was_frozen_for_too_long_finds_its_fence_and_what_it_still_wrote_is_a_gap() {
    let bed = Bed::new().await;
    let mut frozen = bed.prepare("gw1");
    let mut survivor = bed.prepare("gw2");
    // The survivor has the key itself: the same deployment, another name.
    std::fs::copy(frozen.dir.join("seal.key"), survivor.dir.join("seal.key")).expect("a key");
    survivor.serve();
    frozen.serve();
    let told = calls(&frozen, "before", 4).await;
    // Streams that are under way when it freezes: their outcomes come behind the fence.
    let (mut callers, acknowledged) = load(&frozen, 6, 7, Some("script:slow:400"));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    signal(&frozen, "-STOP");
    until("the survivor to close the log", &survivor, || {
        survivor.log().contains("a dead gateway's log is closed")
    });
    let before: BTreeSet<String> = acknowledged.lock().expect("no caller died").iter().cloned().collect();
    let seen = bed.provider.seen().len();
    signal(&frozen, "-CONT");
    until("the frozen gateway to find its fence", &frozen, || frozen.log().contains("the log was fenced"));
    let (status, _, reason) = call(&frozen, "behind the fence").await;
    assert_eq!((status, reason.as_str()), (503, "fenced"), "{}", frozen.log());
    until("late records to be counted", &survivor, || {
        survivor.log().contains("records behind a fence: they were told to nobody")
    });
    frozen.kill();
    while callers.join_next().await.is_some() {}
    assert_eq!(survivor.stop(), Some(0), "{}", survivor.log());
    // Both gateways have the one key.
    let trust = bed.path("both.yaml");
    let one = std::fs::read_to_string(frozen.dir.join("trust.yaml")).expect("a trust file");
    let gateway = &one[one.find("  - name:").expect("a gateway")..];
    std::fs::write(&trust, format!("{one}{}", gateway.replace("gw1", "gw2"))).expect("a trust file");
    let evidence = bed.evidence(&trust);
    let late: Vec<_> = evidence.of_kind("gap").filter(|gap| gap["reason"] == "late").collect();
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(closed(&evidence, "salvaged"), 1);
    // Whatever a caller got whole has its outcome before the fence, also what was in flight when it froze.
    for id in told.iter().chain(acknowledged.lock().expect("no caller died").iter()) {
        let outcome = evidence.outcome(id).unwrap_or_else(|| panic!("{id} was told and has no outcome"));
        assert_eq!(outcome["end"], "complete", "{id}");
    }
    eprintln!(
        "{} exchanges told before it froze, {} after, {} late records, {seen} requests seen by then",
        before.len() + told.len(),
        acknowledged.lock().expect("no caller died").len() - before.len(),
        late[0]["count"]
    );
    // It starts again on its own disk: the log is another's already, and stays as it was closed.
    frozen.serve();
    calls(&frozen, "a new life", 3).await;
    assert_eq!(frozen.stop(), Some(0), "{}", frozen.log());
    let (code, text) = bed.verify(&frozen, &trust);
    assert!(code == 0 && text.contains("closed (salvaged)"), "{text}\n{}", frozen.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_log_without_a_disk_is_closed_by_hand_and_not_without_its_content_keys() {
    let bed = Bed::new().await;
    let mut dead = bed.prepare("gw1");
    dead.serve();
    let told = calls(&dead, "before the end", 5).await;
    bed.lose(&mut dead, "gw1");
    let apart = bed.path("apart");
    std::fs::rename(bed.keys(), &apart).expect("the key table is elsewhere");
    let output = dead.command(&["salvage", "--from-kafka"]).output().expect("the gateway's binary");
    assert!(said(&output).contains("its data keys are not here"), "{}", said(&output));
    std::fs::remove_dir_all(bed.keys()).ok();
    std::fs::rename(&apart, bed.keys()).expect("the key table is back");
    let output = dead.command(&["salvage", "--from-kafka"]).output().expect("the gateway's binary");
    assert!(
        output.status.success() && said(&output).contains("all of it is in the store"),
        "{}",
        said(&output)
    );
    let trust = dead.dir.join("trust.yaml");
    let evidence = bed.evidence(&trust);
    assert_eq!(closed(&evidence, "salvaged"), 1);
    for id in &told {
        assert_eq!(evidence.outcome(id).expect("an outcome")["end"], "complete");
    }
    // A repeat finds nothing to do.
    let output = dead.command(&["salvage", "--from-kafka"]).output().expect("the gateway's binary");
    assert!(output.status.success() && said(&output).contains("no open log"), "{}", said(&output));
}

/// Where a message stands in the commit topic, and what it is.
type Message = (i32, i64, Vec<u8>);

/// Whoever may write to the commit topic, and has not the deployment's secret.
struct Hostile {
    writer: Writer,
    sent: std::cell::Cell<u64>,
}

impl Hostile {
    fn new(kafka: &Kafka) -> Self {
        Self { writer: kafka.writer(), sent: std::cell::Cell::default() }
    }

    fn put(&self, partition: i32, origin: &str, message: &[u8]) {
        self.writer.send_to(TOPIC, partition, origin, message);
        self.sent.set(self.sent.get() + 1);
    }

    /// A message as a gateway would write it, with a code that is made up, and without one.
    fn forge(&self, partition: i32, origin: &str, said: &str, bytes: &[u8]) {
        for head in [format!("affidavit/commit/v2 {} ", "5a".repeat(32)), "affidavit/commit/v2 ".into()] {
            self.put(partition, origin, &[head.as_bytes(), said.as_bytes(), b"\n", bytes].concat());
        }
    }
}

/// All of the commit topic.
fn messages(kafka: &Kafka) -> Vec<Message> {
    let all = tests::services::messages(kafka, TOPIC);
    all.into_iter().map(|took| (took.partition, took.offset, took.value)).collect()
}

/// Kind, log and fields of a message, and its bytes.
fn parts(message: &[u8]) -> (Vec<String>, &[u8]) {
    let end = message.iter().position(|byte| *byte == b'\n').expect("a first line");
    let line = String::from_utf8_lossy(&message[..end]);
    (line.split(' ').skip(2).map(str::to_owned).collect(), &message[end + 1..])
}

/// The messages of a kind of a gateway's log, in its partition.
fn of_log<'a>(all: &'a [Message], gateway: &str, kind: &str) -> Vec<(i32, Vec<String>, &'a [u8])> {
    let of = |(partition, _, message): &'a Message| {
        let (words, bytes) = parts(message);
        let is_it = words[0] == kind && words[1].contains(&format!("/{gateway}/")) && *partition > 0;
        is_it.then_some((*partition, words, bytes))
    };
    all.iter().filter_map(of).collect()
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// The same group under the next number, at the next position, whole in every check sum.
fn next_group(group: &[u8], number: u64) -> Vec<u8> {
    let mut group = group.to_vec();
    let position = u64::from_le_bytes(group[32..40].try_into().expect("8 bytes"));
    let frames = u32::from_le_bytes(group[52..56].try_into().expect("4 bytes"));
    group[24..32].copy_from_slice(&number.to_le_bytes());
    group[32..40].copy_from_slice(&(position + u64::from(frames)).to_le_bytes());
    let crc = crc32c(&group[..60]).to_le_bytes();
    group[60..64].copy_from_slice(&crc);
    group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn what_somebody_without_the_secret_writes_is_counted_and_stops_nobody_and_is_sealed_nowhere() {
    let mut bed = Bed::new().await;
    let mut dead = bed.prepare("gw1");
    let mut survivor = bed.prepare("gw2");
    std::fs::copy(dead.dir.join("seal.key"), survivor.dir.join("seal.key")).expect("a key");
    survivor.serve();
    dead.serve();
    let mut told = calls(&dead, "before", 6).await;
    told.append(&mut calls(&survivor, "beside it", 4).await);
    bed.lose(&mut dead, "gw1");

    let (hostile, all) = (Hostile::new(&bed.kafka), messages(&bed.kafka));
    let groups = of_log(&all, "gw1", "group");
    let (partition, newest, bytes) = groups.last().expect("groups of the dead");
    let (partition, log) = (*partition, newest[1].clone());
    let number = newest[2].parse::<u64>().expect("a number") + 1;
    for number in number..number + 3 {
        let forged = next_group(bytes, number);
        hostile.forge(partition, &log, &format!("group {log} {number} 0 1"), &forged);
    }
    // What another log wrote, as it is and under this one's name; what this one wrote, in another partition.
    let others = of_log(&all, "gw2", "group");
    for (at, words, bytes) in others.iter().chain(&groups) {
        let is_own = words[1] == log;
        let code = all.iter().find(|(_, _, message)| parts(message) == (words.clone(), *bytes));
        let message = &code.expect("it was read").2;
        let line =
            String::from_utf8_lossy(&message[..message.len() - bytes.len()]).replacen(&words[1], &log, 1);
        if is_own {
            hostile.put(3 - partition, &log, message);
        } else {
            hostile.put(partition, &log, &[line.as_bytes(), *bytes].concat());
            if *at != partition {
                hostile.put(partition, &log, message);
            }
        }
    }
    // Fences of both, and words of the index that would hide a log or break a start.
    for (gateway, by) in [("gw1", "test/gw2"), ("gw1", "evil"), ("gw2", "evil")] {
        let (at, words, _) = of_log(&all, gateway, "group").pop().expect("groups");
        for lease in 0..20 {
            hostile.forge(at, &words[1], &format!("fence {} {lease} {by}", words[1]), b"");
        }
    }
    for said in
        [format!("closed {log}"), format!("at {log} 1000000 0 900000000 77"), format!("fenced {log} 1")]
    {
        hostile.forge(0, &log, &said, b"");
    }
    hostile.put(0, "x", b"");
    hostile.put(0, "x", &[0xff; 4000]);
    let mut lease = 1000;
    until("the survivor to close the log", &survivor, || {
        // The dead one seems to live.
        lease += 1;
        hostile.forge(partition, &log, &format!("lease {log} {lease} 9000"), b"");
        hostile.forge(0, &log, &format!("at {log} {lease} 0 0 0"), b"");
        survivor.log().contains("a dead gateway's log is closed")
    });
    // Whose lease has ended must look at its partition, where the forged fences are.
    bed.kafka.pause();
    until("the lease to end", &survivor, || !survivor.ready());
    bed.kafka.resume();
    until("the survivor to be ready again", &survivor, || survivor.ready());
    told.append(&mut calls(&survivor, "it goes on", 3).await);
    let metrics = survivor.admin_get("/metrics").unwrap_or_default();
    let counted = metrics.lines().find_map(|line| line.strip_prefix("gateway_commit_messages_forged_total "));
    let counted: u64 = counted.and_then(|count| count.parse().ok()).expect("the metric");
    assert!(counted > 50 && counted <= hostile.sent.get(), "{counted} of {}", hostile.sent.get());
    assert!(survivor.log().contains("carries no code of this deployment's secret"), "{}", survivor.log());
    assert!(!survivor.log().contains("the log was fenced"), "{}", survivor.log());
    assert_eq!(survivor.stop(), Some(0), "{}", survivor.log());
    survivor.serve();
    told.append(&mut calls(&survivor, "it starts", 3).await);
    assert_eq!(survivor.stop(), Some(0), "{}", survivor.log());

    let trust = bed.path("both.yaml");
    let one = std::fs::read_to_string(dead.dir.join("trust.yaml")).expect("a trust file");
    let gateway = &one[one.find("  - name:").expect("a gateway")..];
    std::fs::write(&trust, format!("{one}{}", gateway.replace("gw1", "gw2"))).expect("a trust file");
    let (code, text) = bed.verify(&dead, &trust);
    assert!(code == 0 && text.starts_with("VERIFIED"), "{text}\n{}", survivor.log());
    let evidence = bed.evidence(&trust);
    assert_eq!((closed(&evidence, "salvaged"), closed(&evidence, "shutdown")), (1, 2));
    assert_eq!(evidence.of_kind("gap").count(), 0, "nothing is late, and nothing is missing");
    assert_eq!(evidence.of_kind("intent").count(), told.len());
    assert_eq!(evidence.of_kind("outcome").count(), told.len());
    for id in &told {
        assert_eq!(evidence.outcome(id).expect("an outcome")["end"], "complete", "{id}");
    }
    eprintln!("{} hostile messages, {counted} counted, {} exchanges kept", hostile.sent.get(), told.len());
}

/// The same topic on another broker, each of these messages at its place.
fn copy(all: &[Message], kafka: &Kafka) {
    kafka.operator().make_of(&[TOPIC], (3, 1), &[]);
    let writer = kafka.writer();
    for (partition, _, message) in all {
        // One after the other: on a topic that was just made a first message may be tried again behind later ones.
        writer.send_to(TOPIC, *partition, "", message);
    }
    let places =
        |all: &[Message]| all.iter().map(|(partition, offset, _)| (*partition, *offset)).collect::<Vec<_>>();
    assert_eq!(places(&messages(kafka)), places(all));
}

/// A gateway that puts nothing into the store for a minute: what is there already is no loss.
fn seals_late(gateway: &Gateway) {
    let config = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("batch_age: 1s", "batch_age: 60s")).expect("the configuration");
}

/// From its next start on a gateway goes to another broker.
fn moved(bed: &mut Bed, gateway: &Gateway, to: Kafka) {
    let config = gateway.dir.join("gateway.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let moved = text.replace(&bed.kafka.address.to_string(), &to.address.to_string());
    std::fs::write(&config, moved).expect("the configuration");
    bed.kafka = to;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_group_that_an_administrator_removed_is_a_loss_that_the_log_tells_of() {
    let mut bed = Bed::new().await;
    let mut dead = bed.prepare("gw1");
    seals_late(&dead);
    dead.serve();
    calls(&dead, "before", 6).await;
    // By then a lease says of how many groups somebody was told.
    tokio::time::sleep(LEASE).await;
    bed.lose(&mut dead, "gw1");
    let mut all = messages(&bed.kafka);
    let groups = of_log(&all, "gw1", "group");
    let removed = groups[groups.len() / 2].1[2].clone();
    for (_, _, message) in &mut all {
        let (words, _) = parts(message);
        if words[0] == "group" && words[2] == removed {
            *message = b"removed".to_vec();
        }
    }
    let other = Kafka::start();
    copy(&all, &other);
    moved(&mut bed, &dead, other);
    let output = dead.command(&["salvage", "--from-kafka"]).output().expect("the gateway's binary");
    assert!(!output.status.success() && said(&output).contains("acknowledged records"), "{}", said(&output));
    let output =
        dead.command(&["salvage", "--from-kafka", "--accept-loss"]).output().expect("the gateway's binary");
    assert!(output.status.success(), "{}", said(&output));
    let trust = dead.dir.join("trust.yaml");
    let (code, text) = bed.verify(&dead, &trust);
    assert!(code != 0 && text.contains("INCOMPLETE"), "{text}");
    let evidence = bed.evidence(&trust);
    let lost = evidence.of_kind("gap").filter(|gap| gap["reason"] == "loss").count();
    assert!(lost > 0 && closed(&evidence, "salvaged") == 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_partition_whose_end_was_removed_is_not_taken_for_the_whole_log() {
    let mut bed = Bed::new().await;
    let mut dead = bed.prepare("gw1");
    seals_late(&dead);
    dead.serve();
    calls(&dead, "before", 6).await;
    // By then the index names a lease behind them.
    tokio::time::sleep(LEASE).await;
    bed.lose(&mut dead, "gw1");
    let mut all = messages(&bed.kafka);
    let partition = of_log(&all, "gw1", "group")[0].0;
    let pointed = all.iter().filter(|(at, ..)| *at == 0).filter_map(|(_, _, message)| {
        let (words, _) = parts(message);
        (words[0] == "at").then(|| words[3].parse::<i64>().expect("an offset"))
    });
    let pointed = pointed.max().expect("a lease that the index names");
    all.retain(|(at, offset, _)| *at != partition || *offset < pointed);
    let other = Kafka::start();
    copy(&all, &other);
    moved(&mut bed, &dead, other);
    let output = dead.command(&["salvage", "--from-kafka"]).output().expect("the gateway's binary");
    assert!(
        !output.status.success() && said(&output).contains("ends before the newest lease"),
        "{}",
        said(&output)
    );
    // Its own start says so too, and begins another log.
    dead.serve();
    assert!(dead.log().contains("what was not archived is lost"), "{}", dead.log());
    calls(&dead, "behind", 1).await;
    assert_eq!(dead.stop(), Some(0), "{}", dead.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_lost_machine_whose_batches_went_through_kafka_too_has_lost_nothing() {
    lose_two_machines(0).await;
}

/// The first log is recovered on three machines, and named by the second one's `boot`, before anything of it is archived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_log_that_is_recovered_again_and_again_before_it_is_archived_has_one_end() {
    lose_two_machines(2).await;
}

/// Two machines are lost, one after the other; the archiver begins in the round `archived_from`.
async fn lose_two_machines(archived_from: u64) {
    let bed = Bed::new().await;
    let trust = bed.path("gw1").join("trust.yaml");
    let store = format!("{{ directory: {} }}", bed.store().display());
    let mut archiver = Archiver::prepare(bed.dir.path(), "ar1", &Way::plain(&bed.kafka), &store, &trust, "");
    let out = format!(
        "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {}\n      receipts: {}\n      timeout: 5s\n      reship_after: 2s\n      \
         archivers: [{}]\n      create: {{ partitions: 2, replication: 1 }}",
        bed.kafka.address,
        shipping::TOPIC,
        RECEIPTS,
        archiver.line,
    );
    let mut gateway = bed.prepare_out("gw1", out);
    let mut all = Vec::new();
    for round in 0..2 {
        gateway.serve();
        if round == archived_from {
            archiver.spawn();
        }
        let (mut callers, acknowledged) = load(&gateway, 4, round * 100, None);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        bed.lose(&mut gateway, "gw1");
        while callers.join_next().await.is_some() {}
        all.append(&mut acknowledged.lock().expect("no caller died"));
    }
    gateway.serve();
    if archived_from == 2 {
        archiver.spawn();
    }
    all.extend(calls(&gateway, "the end", 3).await);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let mut said = String::new();
    let begun = Instant::now();
    while !said.starts_with("VERIFIED") {
        assert!(
            begun.elapsed() < WAIT,
            "waited for all of it to be archived; the auditor says:\n{said}\nthe gateway:\n{}",
            gateway.log()
        );
        said = bed.verify(&gateway, &trust).1;
    }
    let evidence = bed.evidence(&trust);
    assert!(all.len() > 10, "the load reached the gateway: {}", all.len());
    for id in &all {
        let outcome =
            evidence.outcome(id).unwrap_or_else(|| panic!("{id} was acknowledged and has no outcome"));
        assert_eq!(outcome["end"], "complete", "{id}");
    }
    assert_eq!(closed(&evidence, "crash"), 2);
    assert_eq!(archiver.quarantine(), [""; 0]);
    eprintln!("2 machines lost, {} acknowledged exchanges kept through the archiver", all.len());
}
