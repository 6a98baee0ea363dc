//! Legal holds over whole systems: kept through a crash, seen by a second gateway through the registry, and judged.

#![allow(clippy::panic, reason = "tests")]

use std::path::Path;

use tests::audited::{auditor, codes, path};
use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::registrar::directory;

async fn one_call(gateway: &Gateway) -> String {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    got.exchange().expect("an exchange's id").to_owned()
}

#[track_caller]
fn does(gateway: &Gateway, words: &[&str]) -> String {
    let (code, said) = gateway.run(words);
    assert_eq!(code, 0, "{words:?}: {said}");
    said
}

#[track_caller]
fn is_held(gateway: &Gateway, words: &[&str], by: &str) {
    let (code, said) = gateway.run(words);
    assert!(
        code == 1 && said.contains(by) && said.contains("nothing was erased"),
        "{words:?}: {code} {said}"
    );
}

fn verify(store: &Path, trust: &Path, keys: &[&Path], state: &Path) -> (i32, serde_json::Value) {
    let mut words =
        vec!["verify", path(store), "--trust", path(trust), "--state", path(state), "--format", "json"];
    for table in keys {
        words.extend(["--key-table", path(table)]);
    }
    auditor(&words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_keeps_content_through_a_crash_until_it_is_released() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let (kept, free) = (one_call(&gateway).await, one_call(&gateway).await);
    let add = ["hold", "add", "--case", "case-17", "--reason", "litigation", "--exchange", &kept];
    assert!(!does(&gateway, &add).contains("no gateway serves here"));
    let erase = ["erase", "--whole-key", "--exchange", &kept];
    is_held(&gateway, &erase, "case-17");
    assert!(does(&gateway, &["erase", "--exchange", &free]).contains("erased"));
    gateway.kill();
    // Nobody serves: it is held all the same, and more is put under it.
    is_held(&gateway, &erase, "case-17");
    does(&gateway, &["hold", "add", "--case", "case-18", "--reason", "audit", "--consumer", "tester"]);
    gateway.serve();
    is_held(&gateway, &erase, "case-17, case-18");
    // Without a key of pseudonyms every gateway has its own: a name would leave out what others recorded.
    let by_name = ["hold", "add", "--case", "case-19", "--reason", "audit", "--subject"];
    let (code, said) = gateway.run(&[&by_name[..], &["ana"]].concat());
    assert!(code == 1 && said.contains("evidence.pseudonym_key"), "{said}");
    let pseudonym = format!("p:{}", "0".repeat(32));
    does(&gateway, &[&by_name[..], &[&pseudonym]].concat());
    let listed = does(&gateway, &["hold", "list"]);
    assert!(listed.contains(&format!("subject {pseudonym}")) && !listed.contains("ana"), "{listed}");
    assert!(listed.contains(&format!("exchange {kept}")) && listed.contains("consumer tester"), "{listed}");
    does(&gateway, &["hold", "release", "--case", "case-17", "--reason", "settled"]);
    is_held(&gateway, &erase, "case-18");
    does(&gateway, &["hold", "release", "--case", "case-18", "--reason", "settled"]);
    let (code, said) = gateway.run(&["hold", "release", "--case", "case-18", "--reason", "settled"]);
    assert!(code == 1 && said.contains("no hold `case-18` is in force"), "{said}");
    assert!(does(&gateway, &erase).contains("erased"));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, report) = verify(
        &gateway.store(),
        &dir.path().join("trust.yaml"),
        &[&dir.path().join("keytable")],
        &dir.path().join("state"),
    );
    assert_eq!(code, 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_keeps_what_the_first_one_put_under_a_hold_and_who_goes_round_it_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let deployment = Deployment::new(&dir.path().join("deployment"));
    let key = deployment.trust().registry.expect("a registry").key;
    let store = dir.path().join("store");
    let setup = |name: &str| Setup {
        name: name.into(),
        provider: provider.url(),
        out: format!("{{ directory: {} }}", store.display()),
        evidence: format!("  registry: {key}\n"),
        ..Setup::default()
    };
    let mut first = Gateway::start(&dir.path().join("gw1"), &setup("gw1"));
    let mut second = Gateway::start(&dir.path().join("gw2"), &setup("gw2"));
    deployment.enroll("gw1", &first.seal_key());
    deployment.enroll("gw2", &second.seal_key());
    let mut registrar = deployment.registrar("registrar", &directory(&store), &[]);
    registrar.spawn();
    let (kept, other) = (one_call(&second).await, one_call(&second).await);
    let own = one_call(&first).await;
    registrar.until("a registry", || first.run(&["hold", "list"]).0 == 0);
    let add = ["hold", "add", "--case", "case-17", "--reason", "litigation", "--exchange", &kept];
    does(&first, &[&add[..], &["--exchange", &own]].concat());
    let erase = ["erase", "--exchange", &kept];
    registrar.until("the hold", || {
        let (code, said) = second.run(&["hold", "list"]);
        code == 0 && said.contains("case-17")
    });
    is_held(&second, &erase, "case-17");
    assert!(does(&second, &["erase", "--exchange", &other]).contains("erased"));

    // Somebody takes the configuration's registry, and with it the hold, out of the gateways' sight.
    assert_eq!(second.stop(), Some(0), "{}", second.log());
    assert_eq!(first.stop(), Some(0), "{}", first.log());
    for name in ["gw1", "gw2"] {
        let file = dir.path().join(name).join("gateway.yaml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        std::fs::write(&file, text.replace(&format!("  registry: {key}\n"), "")).expect("the configuration");
    }
    std::fs::remove_file(dir.path().join("gw1/keytable/holds.json")).expect("its own holds");
    assert!(does(&second, &erase).contains("erased"));
    assert!(does(&first, &["erase", "--exchange", &own]).contains("erased"));
    let (state, trust) = (dir.path().join("state"), deployment.trust_file());
    let tables = [dir.path().join("gw1/keytable"), dir.path().join("gw2/keytable")];
    let tables: Vec<&Path> = tables.iter().map(|table| table.as_path()).collect();
    registrar.until("all entries", || {
        let (_, report) = verify(&store, &trust, &tables, &state);
        codes(&report).contains("ERASED_UNDER_HOLD") && report["registry"]["logs"].as_u64() >= Some(4)
    });
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    let (code, report) = verify(&store, &trust, &tables, &state);
    let found = codes(&report);
    assert_eq!(code, 1, "{report:#}");
    assert!(!found.contains("LEDGER_MISSING") && !found.contains("LEDGER_MISMATCH"), "{found:?}");
    assert!(!found.contains("UNDECLARED_ERASURE"), "{found:?}");
    assert_eq!(report["findings"]["counts"]["ERASED_UNDER_HOLD"], 1, "{report:#}");
    assert!(report["findings"].to_string().contains(&own), "{report:#}");
    // Between two gateways their clocks do not say which of the two was first, so shortly after each other.
    assert_eq!(report["findings"]["counts"]["HOLD_ORDER_UNKNOWN"], 1, "{report:#}");
    assert!(report["findings"].to_string().contains(&kept), "{report:#}");
}
