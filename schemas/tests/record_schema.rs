//! The JSON Schema of records: generated from the types, held against the file and against the golden leaves.
//!
//! `BLESS=1 cargo test -p schemas --test record_schema` writes the file anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemas::record::Record;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Record>();
    let mut value = serde_json::to_value(schema).unwrap();
    value["$id"] = json!("https://affidavit.invalid/schemas/record/v1");
    value["title"] = json!("Affidavit record, version 1");
    // The value of `v` is the version; the type only says that it is a number.
    value["properties"]["v"] =
        json!({ "const": schemas::record::VERSION, "description": "Format version, 1." });
    value
}

#[test]
fn the_file_is_what_the_types_say() {
    let text = format!("{}\n", serde_json::to_string_pretty(&generated()).unwrap());
    let path = folder().join("json/record.schema.json");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "schemas/json/record.schema.json differs from the types; run with BLESS=1"
    );
}

/// Why `value` does not keep `schema`. Knows the keywords that the file has, and fails on any other.
fn violation(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let Value::Object(keywords) = schema else {
        return (schema == &Value::Bool(false)).then(|| "nothing is allowed here".to_string());
    };
    for (keyword, rule) in keywords {
        let broken = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "default" | "format" | "readOnly" => None,
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                violation(root, &root["$defs"][name], value)
            }
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("type `{other}` is not expected"),
                };
                let fits = match rule {
                    Value::String(name) => is(name),
                    Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
                    other => panic!("type {other}"),
                };
                (!fits).then(|| format!("{value} is not of type {rule}"))
            }
            "const" => (rule != value).then(|| format!("{value} is not {rule}")),
            "enum" => {
                (!rule.as_array().unwrap().contains(value)).then(|| format!("{value} is not in {rule}"))
            }
            "pattern" => pattern(rule.as_str().unwrap(), value),
            "minimum" => (value.as_i64() < rule.as_i64()).then(|| format!("{value} is below {rule}")),
            "maximum" => (value.as_i64() > rule.as_i64()).then(|| format!("{value} is above {rule}")),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .find(|key| value.get(key.as_str().unwrap()).is_none())
                .map(|key| format!("{key} is missing")),
            "properties" => rule.as_object().unwrap().iter().find_map(|(key, rule)| {
                let found = value.get(key)?;
                violation(root, rule, found).map(|why| format!("{key}: {why}"))
            }),
            "additionalProperties" => value.as_object().and_then(|map| {
                let known = keywords.get("properties").and_then(Value::as_object);
                map.iter()
                    .filter(|(key, _)| !known.is_some_and(|known| known.contains_key(*key)))
                    .find_map(|(key, found)| violation(root, rule, found).map(|why| format!("{key}: {why}")))
            }),
            "items" => {
                value.as_array().and_then(|list| list.iter().find_map(|found| violation(root, rule, found)))
            }
            "anyOf" => {
                let all: Vec<_> =
                    rule.as_array().unwrap().iter().map(|one| violation(root, one, value)).collect();
                all.iter().all(Option::is_some).then(|| format!("none of anyOf: {all:?}"))
            }
            "oneOf" => {
                let all: Vec<_> =
                    rule.as_array().unwrap().iter().map(|one| violation(root, one, value)).collect();
                let fits = all.iter().filter(|why| why.is_none()).count();
                (fits != 1).then(|| format!("{fits} of oneOf fit: {all:?}"))
            }
            other => panic!("keyword `{other}` is not expected"),
        };
        if broken.is_some() {
            return broken;
        }
    }
    None
}

/// The patterns of the newtypes, by the newtypes themselves.
fn pattern(pattern: &str, value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits = match pattern {
        "^[A-Za-z0-9_.:/@+-]{1,128}$" => schemas::Identifier::new(text).is_ok(),
        "^[0-9a-f]{64}$" => schemas::Sha256Hex::parse(text).is_some(),
        p if p.starts_with("^[0-9a-f]{8}-") => schemas::ExchangeId::new(text).is_ok(),
        p if p.starts_with("^[a-z0-9]") => schemas::Origin::new(text).is_ok(),
        other => panic!("pattern `{other}` is not expected"),
    };
    (!fits).then(|| format!("`{text}` does not match {pattern}"))
}

fn golden() -> Vec<Value> {
    let text = fs::read_to_string(folder().join("testdata/v1/leaves.json")).unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    vectors["accepted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| serde_json::from_str(v["leaf"].as_str().unwrap()).unwrap())
        .collect()
}

#[test]
fn golden_leaves_of_known_kinds_keep_the_schema_and_changed_ones_do_not() {
    let root = generated();
    let kinds = [
        "boot",
        "config",
        "intent",
        "outcome",
        "refusal",
        "attempt",
        "side_call",
        "admin",
        "heartbeat",
        "gap",
        "hold",
        "erasure",
        "close",
    ];
    let mut seen = Vec::new();
    for leaf in golden() {
        let kind = leaf["kind"].as_str().unwrap().to_string();
        if !kinds.contains(&kind.as_str()) {
            assert!(violation(&root, &root, &leaf).is_some(), "unknown kind {kind} is not of this schema");
            continue;
        }
        assert_eq!(violation(&root, &root, &leaf), None, "{leaf}");
        for (key, bad) in
            [("at", json!("now")), ("config", json!("x")), ("v", json!(2)), ("kind", json!("nothing"))]
        {
            let mut changed = leaf.clone();
            changed[key] = bad;
            assert!(violation(&root, &root, &changed).is_some(), "{key} of {kind}");
        }
        seen.push(kind);
    }
    for kind in kinds {
        assert!(seen.iter().any(|found| found == kind), "no golden leaf of kind {kind}");
    }
}
