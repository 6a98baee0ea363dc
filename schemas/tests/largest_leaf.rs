//! CA-8: no input makes a leaf exceed 65,535 bytes. The largest record of each kind is made from the JSON Schema of records,
//! so that a key or kind that is added is measured too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use schemas::record::{MAX_LEAF_BYTES, MAX_LIST};
use schemas::{canonical, leaf};
use serde_json::{Map, Value, json};

/// The largest integer of a leaf: 2^53.
const MAX_INTEGER: i64 = 9_007_199_254_740_992;

/// The largest value that a schema allows in a leaf, for `key`.
fn largest(root: &Value, schema: &Value, key: &str) -> Value {
    let mut object = Map::new();
    let mut found = None;
    if let Some(reference) = schema.get("$ref") {
        let name = reference.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
        found = Some(largest(root, &root["$defs"][name], key));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        object.insert(name.clone(), largest(root, property, name));
    }
    if let Some(values) = schema.get("additionalProperties") {
        for n in 0..MAX_LIST {
            object.insert(format!("{n:0>191}"), largest(root, values, key));
        }
    }
    let variants = ["oneOf", "anyOf", "enum"].into_iter().find_map(|word| schema.get(word)?.as_array());
    // Absent is never the longest.
    for variant in variants.into_iter().flatten().filter(|variant| variant["type"] != "null") {
        let variant = if variant.is_object() { largest(root, variant, key) } else { variant.clone() };
        found = found.filter(|best| length(best) >= length(&variant)).or(Some(variant));
    }
    if let Some(value) = schema.get("const") {
        found = Some(value.clone());
    }
    match found {
        Some(Value::Object(more)) => object.extend(more),
        Some(value) => return value,
        None if object.is_empty() => return scalar(root, schema, key),
        None => {}
    }
    Value::Object(object)
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}

fn scalar(root: &Value, schema: &Value, key: &str) -> Value {
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap(),
        other => panic!("{key}: no type but {other}"),
    };
    match kind {
        "array" => Value::Array(vec![largest(root, &schema["items"], key); MAX_LIST]),
        "boolean" => json!(false),
        // An exchange has at most 16 attempts (FORMAT.md 3.3).
        "integer" if key == "number" => json!(15),
        "integer" if key == "at" || schema.get("minimum").is_some() => json!(MAX_INTEGER),
        "integer" => json!(-MAX_INTEGER),
        "string" => match schema.get("pattern").and_then(Value::as_str) {
            // What a quota allows is a decimal (FORMAT.md 3.1).
            _ if ["limit", "used", "wanted"].contains(&key) => {
                json!(format!("-{}.{}", "9".repeat(26), "9".repeat(12)))
            }
            // A retention class has a form of its own (FORMAT.md 1).
            _ if key == "retention" => json!("r".repeat(63)),
            Some(pattern) if pattern.ends_with("{1,128}$") => json!("i".repeat(128)),
            Some("^[0-9a-f]{64}$") => json!("f".repeat(64)),
            Some(pattern) if pattern.starts_with("^[0-9a-f]{8}-") => {
                json!("01a1fc23-fcba-7aed-b09b-6a27f061fc4c")
            }
            Some(pattern) if pattern.ends_with("{2}$") => {
                json!(format!("{}/{}/20261120t101500z-3f9a1c20", "d".repeat(63), "g".repeat(20)))
            }
            None => json!("t".repeat(191)),
            Some(other) => panic!("{key}: pattern `{other}` is not expected"),
        },
        other => panic!("{key}: type `{other}` is not expected"),
    }
}

/// Money has a form of its own (FORMAT.md 3.1), and classes sum to the total: half of them and one more are below zero.
fn set_costs(record: &mut Value) {
    let Some(cost) = record.get_mut("cost") else { return };
    let amount = |digits: [&str; 2]| format!("{}.{}", digits[0].repeat(26), digits[1].repeat(12));
    for (n, class) in cost["classes"].as_object_mut().unwrap().values_mut().enumerate() {
        *class = json!(format!(
            "{}{}",
            if n % 2 == 0 || n == MAX_LIST - 1 { "-" } else { "" },
            amount(["4", "1"])
        ));
    }
    cost["total"] = json!(format!("-{}", amount(["8", "2"])));
}

#[test]
fn the_largest_record_of_each_kind_is_a_leaf() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/json/record.schema.json");
    let root: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut longest = (0, String::new());
    let kinds = root["oneOf"].as_array().unwrap();
    assert!(kinds.len() >= 13);
    for kind in kinds {
        let mut record = json!({});
        for part in [&json!({ "properties": root["properties"] }), kind] {
            record.as_object_mut().unwrap().extend(largest(&root, part, "").as_object().unwrap().clone());
        }
        set_costs(&mut record);
        if record["kind"] == "side_call" {
            // It has no money (FORMAT.md 3.3).
            record.as_object_mut().unwrap().retain(|key, _| !["usage", "cost", "unpriced"].contains(&&**key));
        }
        let bytes = canonical::to_vec(&record).unwrap();
        let name = record["kind"].as_str().unwrap();
        assert!(bytes.len() <= MAX_LEAF_BYTES, "a leaf of kind `{name}` of {} bytes", bytes.len());
        let decoded = leaf::decode(&bytes).unwrap_or_else(|error| panic!("`{name}`: {error}"));
        assert!(decoded.unknown_keys.is_empty(), "`{name}`: {:?}", decoded.unknown_keys);
        assert_eq!(leaf::encode(&decoded.record.unwrap()).unwrap(), bytes, "`{name}`");
        eprintln!("{name}: {}", bytes.len());
        longest = longest.max((bytes.len(), name.to_owned()));
    }
    assert!(["outcome", "side_call", "attempt"].contains(&longest.1.as_str()), "{longest:?}");
    assert!(longest.0 > 30_000, "lists and texts are at their largest: {longest:?}");
}
