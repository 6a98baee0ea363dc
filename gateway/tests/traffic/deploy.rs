//! What `deploy/` and the README tell operators to write is what the program takes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway::{output, secrets};
use schemas::note::{Ed25519Signer, Signer as _};
use serde_json::Value;

use crate::process::said;
use crate::rig::issue_key;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// An example in a folder of its own, with the files that it names.
fn example(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let state = path.join("state");
    let yaml = text(&format!("deploy/examples/{name}"));
    assert!(yaml.contains("/var/lib/affidavit/"), "the paths of the unit's state folder");
    let yaml = yaml.replace("/var/lib/affidavit", state.to_str().unwrap());
    std::fs::create_dir(state).unwrap();
    std::fs::write(path.join("gateway.yaml"), yaml).unwrap();
    let public = Ed25519Signer::from_seed([7; 32]).public_key();
    let seal = secrets::seal_key_text(&[7; 32], &public, "acme/gw1");
    output::write_new(&path.join("seal.key"), seal.as_bytes(), 0o600).unwrap();
    let secret = secrets::commit_secret_text(&[9; 32]);
    output::write_new(&path.join("commit.secret"), secret.as_bytes(), 0o600).unwrap();
    issue_key(&path.join("keys.yaml"), "app");
    std::fs::copy(root().join("policies/prices/2026-11.csv"), path.join("prices.csv")).unwrap();
    dir
}

fn check(folder: &Path, variables: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["check", "-c"]).arg(folder.join("gateway.yaml")).env_clear();
    command.envs(variables.iter().map(|name| (*name, "sk-0123456789")));
    command.output().unwrap()
}

#[test]
fn the_examples_are_sound_once_their_files_and_variables_are_there() {
    for name in ["gateway.yaml", "gateway-s3.yaml"] {
        let dir = example(name);
        let variables = ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"];
        let done = check(dir.path(), &variables);
        assert!(done.status.success(), "{name}: {}", said(&done));
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(told.contains("is sound") && !told.contains("no cost is recorded"), "{name}: {told}");
        let missing = check(dir.path(), &variables[1..]);
        assert!(!missing.status.success(), "a credential that is not there is a problem");
        assert!(said(&missing).contains("OPENAI_API_KEY"), "{}", said(&missing));
        std::fs::remove_file(dir.path().join("prices.csv")).unwrap();
        let missing = said(&check(dir.path(), &variables));
        assert!(missing.contains("prices.csv"), "{missing}");
    }
}

#[test]
fn the_example_with_kafka_is_sound_too() {
    let dir = example("gateway-kafka.yaml");
    let ca = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap().cert.pem();
    std::fs::write(dir.path().join("kafka-ca.pem"), ca).unwrap();
    let variables = ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "KAFKA_PASSWORD"];
    let done = check(dir.path(), &variables);
    assert!(done.status.success(), "{}", said(&done));
    let missing = check(dir.path(), &variables[..3]);
    assert!(said(&missing).contains("evidence.out.kafka.sasl.secret.env"), "{}", said(&missing));
}

/// The names of all properties anywhere in a schema.
fn properties(schema: &Value, out: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                out.extend(properties.keys().cloned());
            }
            map.values().for_each(|part| properties(part, out));
        }
        Value::Array(items) => items.iter().for_each(|part| properties(part, out)),
        _ => {}
    }
}

/// What stands between backticks and begins as a key does: `key: value`.
fn keys_told(text: &str) -> BTreeSet<String> {
    let snippets = text.split('`').skip(1).step_by(2);
    let key = |snippet: &str| {
        let (key, value) = snippet.split_once(": ")?;
        let name = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (name && !value.is_empty() && !snippet.contains('\n')).then(|| key.to_owned())
    };
    snippets.filter_map(key).collect()
}

#[test]
fn every_key_that_the_documents_tell_is_in_the_schema() {
    let mut known = BTreeSet::new();
    properties(&serde_json::from_str(&gateway::config::json_schema()).unwrap(), &mut known);
    assert!(known.contains("fail_mode") && known.contains("drain_after_abort"));
    let mut told = BTreeSet::new();
    // The README's code blocks are fences, not backticks of their own.
    let units = UNITS.map(|unit| format!("deploy/systemd/{unit}"));
    for file in ["README.md", "deploy/README.md"].iter().copied().chain(units.iter().map(String::as_str)) {
        told.extend(keys_told(&text(file).replace("```", "")));
    }
    assert!(told.contains("fail_mode") && told.contains("credential"), "{told:?}");
    let unknown: Vec<_> = told.difference(&known).collect();
    assert!(unknown.is_empty(), "told, but no key of gateway.yaml: {unknown:?}");
}

/// One instance, and two that take over from each other.
const UNITS: [&str; 2] = ["affidavit-gateway.service", "affidavit-gateway@.service"];

#[test]
fn both_units_harden_alike() {
    let [one, two] = UNITS.map(|unit| {
        let unit = text(&format!("deploy/systemd/{unit}"));
        unit.find("StateDirectory=").map(|at| unit[at..].to_owned())
    });
    assert!(one.as_ref().is_some_and(|lines| lines.contains("ProtectSystem=strict")));
    assert_eq!(one, two);
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_units_are_ones_that_systemd_takes() {
    for name in UNITS {
        let dir = tempfile::tempdir().unwrap();
        let unit = text(&format!("deploy/systemd/{name}"));
        let installed = "/usr/local/bin/gateway";
        assert!(unit.matches(installed).count() >= 2);
        let verify = |unit: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, unit).unwrap();
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap()
        };
        // The program stands where it was built, not where it is to be installed.
        let here = unit.replace(installed, env!("CARGO_BIN_EXE_gateway"));
        let done = verify(&here);
        let told = said(&done);
        assert!(done.status.success(), "{told}");
        assert!(!told.contains("affidavit-gateway"), "{told}");
        let broken = verify(&here.replace("PrivateTmp=yes", "PrivateTemp=yes"));
        assert!(said(&broken).contains("PrivateTemp"), "an unknown key is told: {}", said(&broken));
    }
}
