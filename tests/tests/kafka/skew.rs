//! A gateway of the next minor version writes to an archiver, a registrar and an auditor of this one: a key in every
//! record, a kind, a column. All of it is archived, kept and proven, and every answer names what it does not know of it.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::archiver::Archiver;
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::registrar::{Registrar, directory};
use tests::services::Kafka;
use tests::shipping::{RECEIPTS, TOPIC, Way};

const NEXT: [(&str, &str); 1] = [("AFFIDAVIT_TEST_NEXT_MINOR", "1")];
/// What every answer about the whole store names: these and more keys.
const UNKNOWN: [&str; 4] =
    ["kind next_kind", "key intent.next_key", "key outcome.next_key", "column next_column"];

/// Makes calls; gives the exchanges.
async fn calls(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut exchanges = Vec::new();
    for n in 0..count {
        let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"hi {n}"}}]}}"#);
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        exchanges.push(got.exchange().expect("an exchange's id").to_owned());
    }
    exchanges
}

fn until(what: &str, gateway: &Gateway, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(90), "waited for {what}:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_archived(gateway: &Gateway) -> bool {
    tests::marks::read(gateway.admin)
        .is_some_and(|[journaled, _, _, archived]| journaled > 0 && archived >= journaled)
}

/// An auditor of today.
struct Auditor<'a> {
    dir: &'a Path,
    store: &'a Path,
    trust: &'a Path,
}

impl Auditor<'_> {
    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(tests::binary("auditor"));
        let output = command.args(arguments).current_dir(self.dir).output().expect("the auditor starts");
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code().unwrap_or(-1), out, err)
    }

    fn on_store(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let text = |path: &Path| path.display().to_string();
        let (store, trust, state) = (text(self.store), text(self.trust), text(&self.dir.join("state")));
        self.run(&[&[command, &store, "--trust", &trust, "--state", &state], more].concat())
    }

    /// A question; what it says of itself names all that is not known.
    fn ask(&self, command: &str, more: &[&str]) -> String {
        let (exit, out, err) = self.on_store(command, more);
        assert_eq!(exit, 0, "{command} {more:?}: {out}{err}");
        assert!(err.contains("verdict   VERIFIED"), "{command}: {err}");
        for name in UNKNOWN {
            assert!(err.contains(&format!("unjudged  {name}, ")), "{command} does not name {name}:\n{err}");
        }
        out
    }
}

/// Every command on a store into which a gateway of the next minor version wrote `exchanges`. `named` is a trust file that
/// names the gateway itself.
fn judged(auditor: &Auditor<'_>, exchanges: &[String], named: &Path) {
    for more in [&[][..], &["--since-last"], &["--anew"]] {
        let (exit, out, err) = auditor.on_store("verify", more);
        assert!(exit == 0 && out.starts_with("VERIFIED signed"), "{out}{err}");
        let unknown = out.split("not judged (hashed and counted)").nth(1).unwrap_or_default();
        for name in UNKNOWN {
            assert!(unknown.contains(name), "{more:?}: {name} is not in\n{out}");
        }
        let (exit, out, _) = auditor.on_store("verify", &[more, &["--format", "json"]].concat());
        let report: Value = serde_json::from_str(&out).expect("a report");
        assert!(
            exit == 0 && UNKNOWN.iter().all(|name| report["not_judged"][*name].as_u64() > Some(0)),
            "{report:#}"
        );
    }
    let count = exchanges.len();
    // Twice: the second time from what was proven before.
    for _ in 0..2 {
        let sql = "SELECT kind, count(*) AS n FROM records GROUP BY 1";
        let rows = auditor.ask("query", &[sql, "--format", "jsonl"]);
        assert!(rows.contains(&format!(r#"{{"kind":"outcome","n":{count}}}"#)), "{rows}");
        let costs = auditor.ask("cost", &["--by", "consumer", "--format", "csv"]);
        assert!(costs.contains("tester"), "{costs}");
    }
    let exchange = &exchanges[0];
    let shown = auditor.ask("show", &[exchange]);
    assert!(shown.contains("\nnext_kind  ") && shown.contains("next_key"), "{shown}");
    let shown: Value =
        serde_json::from_str(&auditor.ask("show", &[exchange, "--format", "json"])).expect("JSON");
    assert!(shown["not_judged"]["kind next_kind"].as_u64() > Some(0), "{shown:#}");
    let proven = auditor.ask("prove", &[exchange, "--out", "proof.json"]);
    assert_eq!(proven, "");
    let check = ["check-proof", "proof.json", "--trust", named.to_str().expect("UTF-8")];
    let (exit, out, err) = auditor.run(&check);
    assert!(exit == 0 && out.starts_with("VERIFIED exchange"), "{out}{err}");
    for name in ["kind next_kind", "key intent.next_key", "key outcome.next_key"] {
        assert!(out.contains(&format!("unjudged  {name}, 1 times")), "{name} is not in\n{out}");
    }
    let (_, out, _) = auditor.run(&[&check[..], &["--format", "json"]].concat());
    let checked: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(checked["not_judged"]["kind next_kind"], 1, "{checked:#}");
    assert_eq!(checked["checks"].as_array().map(|checks| checks.len() >= 4), Some(true), "{checked:#}");
}

/// Waits until the registry says that every log has ended, then ends the registrar.
fn registered(auditor: &Auditor<'_>, registrar: &mut Registrar) {
    registrar.until("the ends of the logs in the registry", || {
        auditor.on_store("verify", &["--since-last"]).0 == 0
    });
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_gateway_wrote_is_kept_proven_and_named_by_every_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let setup = Setup { provider: provider.url(), ..Setup::default() };
    let mut gateway = Gateway::prepare(&dir.path().join("gateway"), &setup);
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &gateway.seal_key());
    let mut registrar = deployment.registrar("registrar", &directory(&gateway.store()), &[]);
    registrar.spawn();
    gateway.set_environment(&NEXT);
    gateway.serve();
    let mut exchanges = calls(&gateway, 3).await;
    until("a batch", &gateway, || is_archived(&gateway));
    exchanges.extend(calls(&gateway, 2).await);
    gateway.kill();
    // Its journal is finished by a gateway of today: the one before is put back.
    gateway.set_environment(&[]);
    gateway.serve();
    exchanges.extend(calls(&gateway, 2).await);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    gateway.set_environment(&NEXT);
    gateway.serve();
    exchanges.extend(calls(&gateway, 1).await);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (store, trust) = (gateway.store(), deployment.trust_file());
    let auditor = Auditor { dir: dir.path(), store: &store, trust: &trust };
    registered(&auditor, &mut registrar);
    judged(&auditor, &exchanges, &gateway.dir.join("trust.yaml"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn what_a_later_gateway_sends_is_archived_and_marked() {
    let kafka = Kafka::start();
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let deployment = Deployment::new(&dir.path().join("deployment"));
    let (store, trust) = (dir.path().join("gateway/store"), deployment.trust_file());
    let mut archiver =
        Archiver::prepare(dir.path(), "ar1", &Way::plain(&kafka), &directory(&store), &trust, "");
    let out = format!(
        "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {TOPIC}\n      receipts: {RECEIPTS}\n      timeout: 5s\n      \
         archivers: [{}]\n      create: {{ partitions: 2, replication: 1 }}\n",
        kafka.address, archiver.line,
    );
    let setup = Setup { provider: provider.url(), out, ..Setup::default() };
    let mut gateway = Gateway::prepare(&dir.path().join("gateway"), &setup);
    deployment.enroll("gw1", &gateway.seal_key());
    let mut registrar = deployment.registrar("registrar", &directory(&store), &[]);
    registrar.spawn();
    registrar.until("the gateway's key", || deployment.newest(&store).0 >= 2);
    gateway.set_environment(&NEXT);
    gateway.serve();
    archiver.spawn();
    let mut exchanges = calls(&gateway, 3).await;
    until("all of it to be archived", &gateway, || is_archived(&gateway));
    gateway.kill();
    gateway.set_environment(&[]);
    gateway.serve();
    exchanges.extend(calls(&gateway, 2).await);
    until("the rest to be archived", &gateway, || is_archived(&gateway));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(archiver.metric("gateway_archive_unknown_total") >= 1.0, "{}", archiver.log());
    let said = archiver.log();
    assert!(said.contains("not all of it is known to this version"), "{said}");
    for name in ["kind next_kind", "next_key", "column next_column"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert_eq!(archiver.quarantine(), Vec::<String>::new(), "{said}");
    let auditor = Auditor { dir: dir.path(), store: &store, trust: &trust };
    registered(&auditor, &mut registrar);
    assert_eq!(archiver.stop(), Some(0), "{}", archiver.log());
    judged(&auditor, &exchanges, &gateway.dir.join("trust.yaml"));
}
