//! `leaves.json`: a leaf of every kind with its hash, and texts that no reader may take.

use schemas::content::Salt;
use schemas::record::{Body, PartName};
use schemas::{Sha256Hex, canonical, leaf};
use serde_json::{Value, json};

use super::sample;

fn bodies() -> Vec<(&'static str, Body)> {
    let salt = Salt::from_bytes([5; 32]);
    let parts =
        |names: &[PartName]| names.iter().map(|name| sample::part(*name, b"content", &salt)).collect();
    let key = Some(sample::id("acme/gw1/20261120t101500z-3f9a1c20/000000/0000"));
    let mut unkept = sample::part(PartName::ClientRequest, b"not kept", &salt);
    unkept.kept = Some(false);
    unkept.content_encoding = Some(sample::id("zstd"));
    let mut all = vec![
        ("boot", Body::Boot(sample::boot(&[9; 32]))),
        (
            "config",
            Body::Config(sample::config(
                Sha256Hex::of(b"next"),
                Some(Sha256Hex::of(b"policy")),
                Some(Sha256Hex::of(b"prices")),
            )),
        ),
        (
            "intent",
            Body::Intent(sample::intent(
                1,
                parts(&[PartName::ClientRequestHead, PartName::ClientRequest]),
                key.clone(),
            )),
        ),
        ("intent_not_kept", Body::Intent(sample::intent(2, vec![unkept], None))),
        ("outcome", Body::Outcome(sample::outcome(1, 2, parts(&[PartName::ProviderResponse]), key))),
        ("outcome_interrupted", Body::Outcome(sample::interrupted(2, 3))),
        ("refusal", Body::Refusal(sample::refusal(3))),
        ("refusal_folded", Body::Refusal(sample::folded())),
        ("attempt_open", Body::Attempt(sample::attempt(1, 2, "open"))),
        ("attempt_end", Body::Attempt(sample::attempt(1, 2, "end"))),
        ("side_call", Body::SideCall(sample::attempt(1, 2, "end"))),
    ];
    all.extend(sample::lone());
    all.push(("close", Body::Close(sample::close())));
    all
}

/// Canonical, and yet of a kind or with keys that version 1 does not have today.
fn unknown() -> Vec<(&'static str, String)> {
    let config = Sha256Hex::of(b"config");
    let head = format!("\"at\":{},\"config\":\"{config}\"", sample::START);
    vec![
        (
            "unknown_kind",
            format!(r#"{{{head},"frames":[1,-9007199254740992,{{"a":true}}],"kind":"message","v":1}}"#),
        ),
        ("unknown_key", format!(r#"{{{head},"kind":"gap","reason":"late","severity":"small","v":1}}"#)),
    ]
}

fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let config = Sha256Hex::of(b"config");
    let leaf = |text: &str| text.replace("CONFIG", &config.to_string()).into_bytes();
    vec![
        ("duplicate key", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","v":1,"v":1}"#)),
        ("keys out of order", leaf(r#"{"config":"CONFIG","at":1,"kind":"new","v":1}"#)),
        ("white space", leaf(r#"{"at":1, "config":"CONFIG","kind":"new","v":1}"#)),
        ("newline at the end", leaf("{\"at\":1,\"config\":\"CONFIG\",\"kind\":\"new\",\"v\":1}\n")),
        ("float", leaf(r#"{"at":1,"config":"CONFIG","cost":0.5,"kind":"new","v":1}"#)),
        ("exponent", leaf(r#"{"at":1,"config":"CONFIG","cost":1e3,"kind":"new","v":1}"#)),
        ("null", leaf(r#"{"at":1,"config":"CONFIG","cost":null,"kind":"new","v":1}"#)),
        ("integer beyond 2^53", leaf(r#"{"at":9007199254740993,"config":"CONFIG","kind":"new","v":1}"#)),
        ("minus zero", leaf(r#"{"at":-0,"config":"CONFIG","kind":"new","v":1}"#)),
        ("leading zero", leaf(r#"{"at":01,"config":"CONFIG","kind":"new","v":1}"#)),
        ("needless escape", leaf(r#"{"at":1,"config":"CONFIG","kind":"\u006eew","v":1}"#)),
        ("upper-case escape", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","said":"\u001F","v":1}"#)),
        ("space in a string", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","said":"two words","v":1}"#)),
        ("empty string", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","said":"","v":1}"#)),
        ("not ASCII", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","said":"é","v":1}"#)),
        ("key with a space", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","said so":1,"v":1}"#)),
        (
            "string of 192 characters",
            leaf(&format!(r#"{{"at":1,"config":"CONFIG","kind":"new","said":"{}","v":1}}"#, "a".repeat(192))),
        ),
        ("not UTF-8", [&leaf(r#"{"at":1,"config":"CONFIG","kind":""#)[..], b"\xff\",\"v\":1}"].concat()),
        (
            "byte order mark",
            [b"\xef\xbb\xbf", &leaf(r#"{"at":1,"config":"CONFIG","kind":"new","v":1}"#)[..]].concat(),
        ),
        (
            "33 levels",
            leaf(&format!(
                r#"{{"at":1,"config":"CONFIG","deep":{}{},"kind":"new","v":1}}"#,
                "[".repeat(32),
                "]".repeat(32)
            )),
        ),
        ("another version", leaf(r#"{"at":1,"config":"CONFIG","kind":"new","v":2}"#)),
        ("no kind", leaf(r#"{"at":1,"config":"CONFIG","v":1}"#)),
        ("no config", leaf(r#"{"at":1,"kind":"new","v":1}"#)),
        ("negative time", leaf(r#"{"at":-1,"config":"CONFIG","kind":"new","v":1}"#)),
        ("not an object", b"[]".to_vec()),
        ("nothing", vec![]),
        ("known kind without its key", leaf(r#"{"at":1,"config":"CONFIG","kind":"gap","v":1}"#)),
        (
            "unknown value of an enumeration",
            leaf(r#"{"at":1,"config":"CONFIG","kind":"gap","reason":"bored","v":1}"#),
        ),
        ("wrong type", leaf(r#"{"at":1,"config":"CONFIG","count":"3","kind":"gap","reason":"loss","v":1}"#)),
    ]
}

#[test]
fn leaves_are_written_as_the_vectors_say() {
    let config = Sha256Hex::of(b"config");
    let mut accepted = Vec::new();
    for (name, body) in bodies() {
        let leaf = leaf::encode(&sample::record(accepted.len() as i64, config, body)).unwrap();
        let text = String::from_utf8(leaf.clone()).unwrap();
        accepted.push(json!({"name": name, "leaf": text, "hash": leaf::hash(&leaf)}));
    }
    for (name, text) in unknown() {
        accepted.push(json!({"name": name, "leaf": text, "hash": leaf::hash(text.as_bytes())}));
    }
    let refused: Vec<_> = refused()
        .into_iter()
        .map(|(why, leaf)| json!({"why": why, "leaf_base64": super::base64(&leaf)}))
        .collect();
    super::golden_json("leaves.json", &json!({"accepted": accepted, "refused": refused}));
}

#[test]
fn leaves_of_the_vectors_are_read_and_written_back() {
    let vectors = super::read_json("leaves.json");
    let mut records: Vec<_> = bodies().into_iter().collect();
    for vector in vectors["accepted"].as_array().unwrap() {
        let text = vector["leaf"].as_str().unwrap();
        assert_eq!(leaf::hash(text.as_bytes()).to_string(), vector["hash"].as_str().unwrap());
        let decoded = leaf::decode(text.as_bytes()).unwrap();
        assert_eq!(canonical::to_vec(&canonical::parse(text.as_bytes()).unwrap()).unwrap(), text.as_bytes());
        match (vector["name"].as_str().unwrap(), decoded.record) {
            ("unknown_kind", None) => {}
            ("unknown_key", Some(_)) => assert_eq!(decoded.unknown_keys, ["severity"]),
            (name, Some(record)) => {
                let (wanted, body) = records.remove(0);
                assert_eq!((name, &record.body), (wanted, &body));
                assert_eq!(decoded.unknown_keys, Vec::<String>::new());
                assert_eq!(leaf::encode(&record).unwrap(), text.as_bytes());
            }
            other => std::panic::panic_any(format!("{other:?}")),
        }
    }
    assert!(records.is_empty());
    let refused = vectors["refused"].as_array().unwrap();
    assert_eq!(refused.len(), self::refused().len());
    for vector in refused {
        assert!(leaf::decode(&super::unbase64(&vector["leaf_base64"])).is_err(), "{}", vector["why"]);
    }
}

#[test]
fn the_vectors_hold_every_key_of_every_kind() {
    let mut seen = std::collections::BTreeSet::new();
    fn collect(value: &Value, path: &str, seen: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    seen.insert(format!("{path}.{key}"));
                    collect(value, &format!("{path}.{key}"), seen);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, path, seen)),
            _ => {}
        }
    }
    for vector in super::read_json("leaves.json")["accepted"].as_array().unwrap() {
        let value: Value = serde_json::from_str(vector["leaf"].as_str().unwrap()).unwrap();
        collect(&value, value["kind"].as_str().unwrap(), &mut seen);
    }
    let mut types = super::text::Types::default();
    super::text::kinds(&mut types);
    let mut missing = Vec::new();
    for (kind, name) in super::text::KIND_TYPES {
        types.paths(name, kind, &mut |path| {
            if !seen.contains(&path) {
                missing.push(path);
            }
        });
    }
    // What stands for a failure that none of the vectors shows.
    missing.retain(|path| {
        ![
            "outcome.reason",
            "outcome.answered.error_type",
            "outcome.answered.error_code",
            "outcome.answered.retry_after_s",
        ]
        .contains(&path.as_str())
            && !path.starts_with("refusal.parts")
            && !["refusal.content_key", "refusal.suppression"].contains(&path.as_str())
            && !path.ends_with(".kept")
    });
    assert_eq!(missing, Vec::<String>::new());
}
