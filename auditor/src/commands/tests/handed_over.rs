//! Folders of one end user.

use std::collections::BTreeSet;

use schemas::holds::Scope;
use schemas::record::{
    Attempt, AttemptNumber, Body, End, Hold, Outcome, Part, PartName, Usage, UsageRole, UsageSource,
};
use schemas::{Identifier, Sha256Hex};
use serde_json::{Value, json};

use super::*;
use crate::fixture::id;

const ALICE: &str = "p:00000000000000000000000000000001";
const BOB: &str = "p:00000000000000000000000000000002";

/// A log in which two people asked, and one exchange is under a legal hold.
fn of_two() -> Place {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for (n, who, said) in [(1, ALICE, "mine"), (2, BOB, "another's"), (3, ALICE, "also mine")] {
        writer.subject = Some(Identifier::new(who).unwrap());
        writer.exchange(n, format!("{{\"said\":\"{said}\"}}").as_bytes(), b"{\"id\":\"<script>\"}");
        writer.now += SECOND / 2;
    }
    writer.push(Body::Hold(Hold {
        hold: id("case-9"),
        phase: id("begin"),
        reason: Some(id("litigation")),
        actor: Some(id("counsel-mary")),
        scope: Scope { exchange: Some(exchange_id(1)), ..Scope::default() },
    }));
    writer.seal();
    writer.now += 2 * SECOND;
    writer.close();
    Place::new(&writer)
}

fn hand_over(place: &Place, more: &[&str]) -> anyhow::Result<u8> {
    let (keys, out) = (place.path("keys"), place.path("out"));
    let words = ["--key-table", keys.to_str().unwrap(), "--out", out.to_str().unwrap()];
    place.run("subject", &[&words[..], more].concat())
}

fn holds(place: &Place) -> u8 {
    let (out, trust) = (place.path("out"), place.path("trust.yaml"));
    let words = ["auditor", "check-subject", out.to_str().unwrap(), "--trust", trust.to_str().unwrap()];
    super::super::run(&Cli::try_parse_from(words).unwrap()).unwrap_or(2)
}

#[test]
fn a_folder_holds_all_of_one_person_and_nothing_of_another() {
    let place = of_two();
    assert_eq!(hand_over(&place, &["--subject", ALICE, "--reason", "access request 17"]).unwrap(), 0);
    let files = place.files("out");
    let all: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    let has = |text: &str| all.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("also mine") && has(exchange_id(1).as_str()) && has("access request 17"));
    assert!(!has("another's") && !has(exchange_id(2).as_str()) && !has(BOB));
    assert!(
        !has("case-9") && !has("litigation") && !has("counsel-mary"),
        "who is held against does not learn of it"
    );
    let content =
        place.path("out/exchanges").join(exchange_id(1).as_str()).join("0000000002-client_request.json");
    assert_eq!(std::fs::read_to_string(content).unwrap(), "{\"said\":\"mine\"}");
    let page = std::fs::read_to_string(place.path("out/index.html")).unwrap();
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(holds(&place), 0);
    // Not twice into one folder.
    assert!(hand_over(&place, &["--subject", ALICE, "--reason", "again"]).is_err());
}

#[test]
fn a_folder_without_keys_says_so_and_one_without_a_reason_is_not_made() {
    let place = of_two();
    assert!(hand_over(&place, &["--subject", ALICE]).is_err());
    for reason in ["", "  ", "two\nlines"] {
        assert!(hand_over(&place, &["--subject", ALICE, "--reason", reason]).is_err(), "{reason:?}");
    }
    assert!(
        hand_over(&place, &["--subject", "p:00000000000000000000000000000009", "--reason", "x"]).is_err()
    );
    assert!(!place.path("out").exists());
    let out = place.path("out");
    let words = ["--subject", ALICE, "--reason", "x", "--out", out.to_str().unwrap()];
    assert_eq!(place.run("subject", &words).unwrap(), 0);
    let table = std::fs::read_to_string(place.path("out/exchanges.json")).unwrap();
    assert!(table.contains("\"state\": \"no_key\"") && !table.contains("\"file\""), "{table}");
    assert_eq!(holds(&place), 0);
}

#[test]
fn only_what_began_in_the_asked_time_is_handed_over() {
    let place = of_two();
    let (from, text) =
        (time::text(START + SECOND), |name: &str| place.path(name).to_str().unwrap().to_owned());
    let words =
        ["auditor", "subject", &text("store"), "--trust", &text("trust.yaml"), "--state", &text("state")];
    let to = time::text(START + 3 * SECOND);
    let more = ["--key-table", &text("keys"), "--out", &text("out"), "--subject", ALICE, "--reason", "x"];
    let between = ["--from", &from, "--to", &to];
    let words = words.iter().chain(&more).chain(&between).copied();
    assert_eq!(super::super::run(&Cli::try_parse_from(words).unwrap()).unwrap(), 0);
    let folders = std::fs::read_dir(place.path("out/exchanges")).unwrap().count();
    assert_eq!(folders, 1);
    assert!(place.path("out/exchanges").join(exchange_id(3).as_str()).is_dir());
}

#[test]
fn a_folder_of_which_anything_was_changed_removed_or_added_does_not_hold() {
    let place = of_two();
    assert_eq!(hand_over(&place, &["--subject", ALICE, "--reason", "x"]).unwrap(), 0);
    let files = place.files("out");
    assert!(files.len() > 10, "{files:?}");
    for file in files.iter().filter(|file| !file.ends_with("manifest.json")) {
        let bytes = std::fs::read(file).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(file, changed).unwrap();
        assert_eq!(holds(&place), 1, "{} changed", file.display());
        std::fs::remove_file(file).unwrap();
        assert_eq!(holds(&place), 1, "{} removed", file.display());
        std::fs::write(file, bytes).unwrap();
    }
    assert_eq!(holds(&place), 0);
    std::fs::write(place.path("out/more.txt"), "x").unwrap();
    assert_eq!(holds(&place), 1);
    std::fs::remove_file(place.path("out/more.txt")).unwrap();
    let manifest = place.path("out/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    for (from, to) in
        [(ALICE, BOB), ("exchanges.csv", "../../exchanges.csv"), ("\"exchanges\": 2", "\"exchanges\": 3")]
    {
        std::fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        assert_eq!(holds(&place), 1, "{from}");
    }
    std::fs::write(&manifest, "{}").unwrap();
    assert_eq!(holds(&place), 2);
}

/// What `check-subject` says where the lists of content are told otherwise, with files and manifest that fit: nobody signed these.
fn retold(place: &Place, change: impl FnOnce(&mut Value)) -> u8 {
    let path = |name: &str| place.path("out").join(name);
    let read = |name: &str| serde_json::from_slice::<Value>(&std::fs::read(path(name)).unwrap()).unwrap();
    let files = |table: &Value| -> BTreeSet<String> {
        let parts =
            table.as_array().unwrap().iter().flat_map(|exchange| exchange["parts"].as_array().unwrap());
        parts.filter_map(|part| Some(part.get("file")?.as_str()?.to_owned())).collect()
    };
    let (mut table, mut manifest) = (read("exchanges.json"), read("manifest.json"));
    let before = files(&table);
    change(&mut table);
    let gone: Vec<String> = before.difference(&files(&table)).cloned().collect();
    let named = gone.iter().map(String::as_str).chain(["exchanges.json", "manifest.json"]);
    let kept: Vec<_> = named.map(|name| (path(name), std::fs::read(path(name)).unwrap())).collect();
    let text = serde_json::to_vec(&table).unwrap();
    for name in &gone {
        std::fs::remove_file(path(name)).unwrap();
        manifest["files"].as_object_mut().unwrap().remove(name);
    }
    manifest["files"]["exchanges.json"] =
        json!({ "bytes": text.len(), "sha256": Sha256Hex::of(&text).to_string() });
    std::fs::write(path("exchanges.json"), text).unwrap();
    std::fs::write(path("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let said = holds(place);
    kept.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    said
}

#[test]
fn a_list_of_content_that_is_told_otherwise_than_the_records_does_not_hold() {
    let place = of_two();
    assert_eq!(hand_over(&place, &["--subject", ALICE, "--reason", "x"]).unwrap(), 0);
    assert_eq!(retold(&place, |_| ()), 0);
    assert_eq!(retold(&place, |table| table[0]["parts"] = json!([])), 1, "no content");
    let part = |table: &mut Value, change: &dyn Fn(&mut Value)| change(&mut table[0]["parts"][0]);
    let without_file = |part: &mut Value, state: &str| {
        part["state"] = json!(state);
        part.as_object_mut().unwrap().remove("file");
    };
    for state in ["not_kept", "erased", "missing", "proven", "gone"] {
        assert_eq!(retold(&place, |table| part(table, &|part| without_file(part, state))), 1, "{state}");
    }
    for (key, value) in [
        ("length", json!(1)),
        ("media_type", json!("text/plain")),
        ("content_encoding", json!("gzip")),
        ("position", json!(1)),
        ("part", json!("error")),
        ("state", json!("erased")),
    ] {
        assert_eq!(retold(&place, |table| part(table, &|part| part[key] = value.clone())), 1, "{key}");
    }
    let twice = |table: &mut Value| {
        let parts = table[0]["parts"].as_array_mut().unwrap();
        parts.push(parts[0].clone());
    };
    assert_eq!(retold(&place, twice), 1, "a part twice");
    // A file that the manifest alone names.
    let (name, manifest) = (place.path("out/more.txt"), place.path("out/manifest.json"));
    std::fs::write(name, "x").unwrap();
    let mut told: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    told["files"]["more.txt"] = json!({ "bytes": 1, "sha256": Sha256Hex::of(b"x").to_string() });
    std::fs::write(&manifest, serde_json::to_vec(&told).unwrap()).unwrap();
    assert_eq!(holds(&place), 1);
}

/// One person's exchange that two providers got.
fn of_two_providers() -> Place {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.subject = Some(Identifier::new(ALICE).unwrap());
    let (position, key) = writer.intent(1, b"mine");
    let attempt = |number: u64, phase: &str, target: &str, provider: &str| Attempt {
        intent_position: position,
        phase: id(phase),
        provider: Some(id(provider)),
        dialect: Some(id("openai")),
        model: Some(id("gpt-4o")),
        ..Attempt::new(exchange_id(1), AttemptNumber::new(number).unwrap(), id(target), id("fallback"))
    };
    writer.push(Body::Attempt(Attempt {
        reason: id("status"),
        end: Some(End::GatewayAbort),
        usage: Some(Usage::of(UsageSource::Unknown, UsageRole::Incurred)),
        ..attempt(0, "end", "openai-eu", "openai")
    }));
    let second = attempt(1, "open", "other-us", "other");
    let served = Some(second.served());
    writer.push(Body::Attempt(second));
    let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
    let outcome = writer.outcome_of(exchange_id(1), position, Some(&key), vec![], usage);
    writer.push(Body::Outcome(Outcome { served, ..outcome }));
    writer.seal();
    writer.now += 2 * SECOND;
    writer.close();
    Place::new(&writer)
}

#[test]
fn everybody_whom_a_persons_data_went_to_is_named() {
    let place = of_two_providers();
    assert_eq!(hand_over(&place, &["--subject", ALICE, "--reason", "x"]).unwrap(), 0);
    let read = |name: &str| std::fs::read_to_string(place.path("out").join(name)).unwrap();
    let (first, second) = ("openai, target openai-eu, model gpt-4o", "other, target other-us, model gpt-4o");
    let both = format!("{first}; {second}");
    assert!(read("exchanges.csv").contains(&both), "{}", read("exchanges.csv"));
    assert_eq!(read("index.html").matches(&both).count(), 2, "{}", read("index.html"));
    let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    let named: Vec<_> =
        manifest["recipients"].as_array().unwrap().iter().map(|one| &one["provider"]).collect();
    assert_eq!(named, ["openai", "other"]);
    assert_eq!(holds(&place), 0);
    let forget = |table: &mut Value| _ = table[0]["recipients"].as_array_mut().unwrap().remove(0);
    assert_eq!(retold(&place, forget), 1, "one of them is left out of the table");
    let path = place.path("out/manifest.json");
    std::fs::write(&path, read("manifest.json").replacen("\"other-us\"", "\"other-eu\"", 1)).unwrap();
    assert_eq!(holds(&place), 1, "and so is one of the manifest");
}

#[test]
fn a_manifest_is_signed_by_the_given_key_and_no_other_manifest_passes_for_it() {
    let place = of_two();
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let verifier = crate::paper::key::make(&place.path("report.key"), "acme-audit").unwrap().to_string();
    let other = crate::paper::key::make(&place.path("other.key"), "acme-audit").unwrap().to_string();
    let key = text("report.key");
    assert_eq!(hand_over(&place, &["--subject", ALICE, "--reason", "x", "--key", &key]).unwrap(), 0);
    let check = |key: &str| {
        let (out, trust) = (text("out"), text("trust.yaml"));
        let words = ["auditor", "check-subject", &out, "--trust", &trust, "--key", key];
        super::super::run(&Cli::try_parse_from(words).unwrap()).unwrap_or(2)
    };
    assert_eq!((check(&verifier), check(&key), check(&other), holds(&place)), (0, 0, 1, 0));
    let manifest = place.path("out/manifest.json");
    let signed = std::fs::read_to_string(&manifest).unwrap();
    let note = std::fs::read(place.path("out/manifest.json.sig")).unwrap();
    // What nothing but the signature holds.
    std::fs::write(&manifest, signed.replacen("\"reason\": \"x\"", "\"reason\": \"y\"", 1)).unwrap();
    assert_eq!((check(&verifier), holds(&place)), (1, 1), "without a key too: another manifest was signed");
    std::fs::write(place.path("out/manifest.json.sig"), "no note").unwrap();
    assert_eq!(holds(&place), 1);
    std::fs::write(&manifest, signed).unwrap();
    std::fs::write(place.path("out/manifest.json.sig"), note).unwrap();
    assert_eq!((check(&verifier), holds(&place)), (0, 0));
    std::fs::remove_file(place.path("out/manifest.json.sig")).unwrap();
    assert_eq!((check(&verifier), holds(&place)), (1, 0), "it is not signed");
}

#[test]
fn content_that_was_not_opened_or_not_kept_is_no_fault_of_the_folder() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.subject = Some(Identifier::new(ALICE).unwrap());
    let (exchange, key) = (exchange_id(1), writer.key());
    let at = writer.position();
    let part = writer.part(at, &exchange, PartName::ClientRequest, &key, b"kept", None);
    let not_kept = Part { kept: Some(false), part: PartName::ProviderRequest, ..part.clone() };
    let (position, key) = writer.intent_with(exchange, key, vec![part, not_kept]);
    writer.outcome(1, position, &key, b"answer");
    writer.seal();
    writer.now += 2 * SECOND;
    writer.close();
    let place = Place::new(&writer);
    hand_over(&place, &["--subject", ALICE, "--reason", "x"]).unwrap();
    let table = std::fs::read_to_string(place.path("out/exchanges.json")).unwrap();
    assert!(table.contains("\"state\": \"not_kept\""), "{table}");
    assert_eq!(holds(&place), 0);
    let kept = |table: &mut Value| {
        let parts = table[0]["parts"].as_array_mut().unwrap();
        let part = parts.iter_mut().find(|part| part["state"] == "not_kept").unwrap();
        part["state"] = json!("erased");
    };
    assert_eq!(retold(&place, kept), 1, "what was never kept was not erased");
}
