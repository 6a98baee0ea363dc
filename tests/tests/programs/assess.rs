//! `auditor assess` as a process, over evidence that a real gateway wrote: planted violations are found, and what cannot be
//! judged is told.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tests::audited::{Evidence, auditor, path};
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle;
use tests::process::ran;
use tests::provider::Provider;

/// The gateway's objects in a folder.
fn store(folder: &Path) -> String {
    for (name, bytes) in &Evidence::shared().objects {
        let file = folder.join("store").join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, bytes).expect("an object");
    }
    path(&folder.join("store")).to_owned()
}

fn assess(folder: &Path, store: &str, more: &[&str]) -> (i32, Value) {
    let evidence = Evidence::shared();
    let state = folder.join("state");
    let words =
        ["assess", store, "--trust", path(&evidence.trust), "--to", &evidence.to, "--state", path(&state)];
    auditor(&[&words[..], &["--format", "json"], more].concat())
}

fn control<'a>(assessment: &'a Value, id: &str) -> &'a Value {
    let packs = assessment["packs"].as_array().unwrap_or_else(|| unreachable!("no packs: {assessment}"));
    let mut controls = packs.iter().flat_map(|pack| pack["controls"].as_array().expect("controls"));
    controls.find(|control| control["id"] == id).expect("the control")
}

fn register(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(format!("{name}.csv"));
    std::fs::write(&file, text).expect("a register");
    format!("{name}={}", path(&file))
}

/// The exchanges of the evidence, and the system and purpose under which the gateway recorded the first.
fn exchanges(folder: &Path, store: &str) -> BTreeSet<String> {
    let evidence = Evidence::shared();
    let (answer, state) = (folder.join("exchanges.jsonl"), folder.join("state"));
    let words = [
        "query",
        store,
        "SELECT exchange FROM exchanges WHERE state = 'ended'",
        "--trust",
        path(&evidence.trust),
    ];
    let out = ["--to", &evidence.to, "--state", path(&state), "--format", "jsonl", "--out", path(&answer)];
    assert_eq!(auditor(&[&words[..], &out].concat()).0, 0);
    let text = std::fs::read_to_string(answer).expect("an answer");
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).expect("JSON")["exchange"].as_str().map(str::to_owned)
    };
    text.lines().filter_map(id).collect()
}

#[test]
fn planted_violations_of_several_packs_are_found_with_their_exchanges() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let all = exchanges(folder.path(), &store);
    assert_eq!(all.len(), 2);
    let first = all.first().expect("an exchange");
    let registers = [
        register(folder.path(), "sysreg", "id,high_risk,in_use_from\nghost,true,2026-01-01\n"),
        register(folder.path(), "allowed", "provider,data_class,basis\nnobody,internal,adequacy\n"),
        register(
            folder.path(),
            "erasure_request",
            &format!("exchange,requested_at,refused\n{first},2026-01-01,\n"),
        ),
        register(folder.path(), "changes", "config,author,approver,approved_at\n"),
        register(folder.path(), "models", "system,model\n"),
    ];
    let list = folder.path().join("exceptions.jsonl");
    let mut words =
        vec!["--pack", "gdpr", "--pack", "eu_ai_act", "--pack", "soc2", "--exceptions", path(&list)];
    words.extend(registers.iter().flat_map(|register| ["--register", register]));
    let (exit, assessment) = assess(folder.path(), &store, &words);
    assert_eq!((exit, &assessment["verdict"]), (1, &"VERIFIED".into()), "{assessment:#}");
    let exchanges = |id: &str| -> BTreeSet<String> {
        let shown = control(&assessment, id)["shown"]["exchanges"].as_array().expect("exchanges");
        shown.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for (id, wanted) in [
        ("44-transfers", all.clone()),
        ("12-1-attributed", all.clone()),
        ("12-2-a-models", all.clone()),
        ("17-erased", BTreeSet::from([first.clone()])),
    ] {
        assert_eq!(control(&assessment, id)["status"], "exceptions", "{id}");
        assert_eq!(exchanges(id), wanted, "{id}");
    }
    let ghost = control(&assessment, "12-1-logged");
    assert_eq!((&ghost["status"], &ghost["shown"]["rows"][0][0]), (&"exceptions".into(), &"ghost".into()));
    assert_eq!(control(&assessment, "cc8.1-changes")["status"], "exceptions");
    for met in ["32-callers", "cc6.1-callers", "32-encrypted", "12-2-ended", "5-2-whole"] {
        assert_eq!(control(&assessment, met)["status"], "met", "{met}: {:#}", control(&assessment, met));
    }
    // The rows were read when the exchanges were asked for: what was not read again is told.
    let rests = control(&assessment, "32-callers")["rests"].as_str().expect("text");
    assert!(rests.contains("read at an earlier visit") && rests.contains("were not read again"), "{rests}");
    // A folder shows no locks, and the other registers were not given.
    for (id, why) in [
        ("19-26-6-locked", "folder"),
        ("30-purposes", "--register ropa=FILE"),
        ("cc7.3-incidents", "incidents"),
    ] {
        let control = control(&assessment, id);
        assert_eq!(control["status"], "not_judged", "{id}");
        assert!(control["why"].as_str().is_some_and(|text| text.contains(why)), "{control:#}");
    }
    let written = std::fs::read_to_string(&list).expect("the list");
    let exceptions: u64 = assessment["packs"]
        .as_array()
        .expect("packs")
        .iter()
        .flat_map(|pack| pack["controls"].as_array().expect("controls"))
        .filter_map(|control| control["exceptions"].as_u64())
        .sum();
    assert_eq!(written.lines().count() as u64, exceptions, "{written}");
    println!("{exceptions} exceptions in {} controls", assessment["counts"]["exceptions"]);
}

#[test]
fn over_changed_evidence_nothing_is_met_that_rests_on_its_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let (exit, assessment) = assess(folder.path(), &store, &["--pack", "soc2", "--control", "cc6.1-callers"]);
    assert_eq!((exit, &assessment["counts"]["met"]), (0, &1.into()), "{assessment:#}");
    let records = Evidence::shared().objects.iter().find(|(name, _)| name.ends_with(".records.parquet"));
    let (name, bytes) = records.expect("records");
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(Path::new(&store).join(name), changed).expect("a changed object");
    // Another auditor, who never saw the sound one.
    let other = tempfile::tempdir().expect("a folder");
    let (exit, assessment) = assess(other.path(), &store, &["--pack", "soc2"]);
    assert_eq!((exit, &assessment["verdict"]), (1, &"INVALID".into()), "{assessment:#}");
    assert_eq!(control(&assessment, "cc7.1-whole")["status"], "exceptions");
    for (pack, id) in [("soc2", "cc6.1-callers"), ("soc2", "pi1.4-ended"), ("soc2", "c1.1-encrypted")] {
        let control = control(&assessment, id);
        assert_eq!(control["status"], "not_judged", "{pack}: {control:#}");
    }
}

#[test]
fn every_pack_of_the_program_passes_its_own_check() {
    let (exit, told) = auditor(&["pack", "check", "all"]);
    let told = told.as_str().expect("text").to_owned();
    assert_eq!(exit, 0, "{told}");
    assert!(told.lines().count() >= 13 && told.lines().all(|line| line.contains(" 0 wrong")), "{told}");
    print!("{told}");
}

/// Another keys file in the place of the one of `gateway`.
fn replace_keys(gateway: &Gateway, text: &str) {
    let fresh = gateway.dir.join("keys.fresh");
    std::fs::write(&fresh, text).expect("a file");
    std::fs::rename(fresh, gateway.dir.join("keys.yaml")).expect("a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_a_real_gateway_names_who_did_it_and_is_no_exception_where_another_approved_it() {
    const CHANGED: &str = "gateway keys changed";
    let folder = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(folder.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let (user, file) = (ran(std::process::Command::new("id").arg("-un")), folder.path().join("keys.yaml"));
    let user = user.trim();
    let owner = format!("owner:{user}");
    // What the one who asks says of himself is nobody's word.
    let does = |gateway: &Gateway, words: &[&str]| {
        ran(gateway.command(words).env("USER", "somebody-else").env("LOGNAME", "somebody-else"))
    };
    let keys = || std::fs::read_to_string(&file).expect("the keys file");
    let call = async |gateway: &Gateway, key: &str| {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
        send(gateway.address, &Call::post("/openai/v1/chat/completions", key, body)).await
    };
    let id = gateway.key.split('_').nth(1).expect("the key's id").to_owned();

    let key = does(&gateway, &["keys", "issue", "--consumer", "second", "--id", "k-second"]);
    gateway.wait_for_log(CHANGED, 1).await;
    let got = call(&gateway, key.trim()).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let exchange = got.exchange().expect("an exchange's id").to_owned();
    replace_keys(&gateway, &keys().replacen("\"quality\"", "\"other\"", 1));
    gateway.wait_for_log(CHANGED, 2).await;
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let dated = format!("id: \"k-second\"\n    revoked: \"{date}\"");
    replace_keys(&gateway, &keys().replacen("id: \"k-second\"", &dated, 1));
    gateway.wait_for_log(CHANGED, 3).await;
    does(&gateway, &["keys", "revoke", &id]);
    gateway.wait_for_log(CHANGED, 4).await;
    let sound = keys();
    replace_keys(&gateway, "keys: [broken");
    gateway.wait_for_log("reload refused", 1).await;
    replace_keys(&gateway, &sound);
    let hold = ["--case", "case-17", "--reason", "audit"];
    does(&gateway, &[&["hold", "add", "--exchange", &exchange], &hold[..]].concat());
    does(&gateway, &[&["hold", "release"], &hold[..]].concat());
    does(&gateway, &["erase", "--exchange", &exchange]);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    // Where none serves the command says who it is.
    does(&gateway, &[&["hold", "add", "--all"], &hold[..]].concat());

    let evidence = oracle::Evidence::read(&gateway);
    let text = |leaf: &Value, key: &str| leaf[key].as_str().unwrap_or_default().to_owned();
    let done: Vec<[String; 3]> = evidence
        .of_kind("admin")
        .map(|leaf| ["action", "actor", "object"].map(|key| text(leaf, key)))
        .collect();
    let refused = evidence.of_kind("admin").last().expect("a record");
    let wanted = [
        ["key_issued", user, "k-second"],
        ["key_changed", &owner, &id],
        ["key_revoked", &owner, "k-second"],
        ["key_revoked", user, &id],
        ["config_refused", &owner, refused["config"].as_str().expect("a hash")],
    ];
    assert_eq!(done, wanted);
    let revoked = evidence.of_kind("admin").nth(2).and_then(|leaf| leaf["at"].as_i64());
    assert!(revoked >= Some(date.as_microsecond()), "{revoked:?} is before {date}");
    let asked: Vec<String> = ["hold", "erasure"]
        .iter()
        .flat_map(|kind| evidence.of_kind(kind))
        .map(|leaf| text(leaf, "actor"))
        .collect();
    assert_eq!(asked, [user; 4]);

    let assess = |approver: &str| {
        let approved = format!("k-second,{approver},2026-01-01\n{id},{approver},2026-01-01\n");
        let approvals =
            register(folder.path(), "approvals", &format!("object,approver,approved_at\n{approved}"));
        let (store, trust) = (gateway.store(), folder.path().join("trust.yaml"));
        let state = folder.path().join("state");
        let words = ["assess", path(&store), "--trust", path(&trust), "--state", path(&state)];
        let packs = ["--pack", "soc2", "--pack", "pci_dss", "--register", &approvals, "--format", "json"];
        auditor(&[&words[..], &packs].concat()).1
    };
    let approved = assess("another");
    for id in ["cc6.2-keys", "cc6.3-revoked", "10.2.1.5-credentials", "10.2.2-fields"] {
        let control = control(&approved, id);
        assert_eq!(control["status"], "met", "{control:#}");
    }
    // Nobody approves what he did himself.
    let own = assess(user);
    let issued = control(&own, "cc6.2-keys");
    assert_eq!(issued["status"], "exceptions", "{issued:#}");
    assert!(issued["shown"]["rows"].to_string().contains("k-second"), "{issued:#}");
}
