//! A leaf as an event of the OCSF class API Activity (6003), schema 1.6.0: <https://schema.ocsf.io/1.6.0/classes/api_activity>.
//!
//! What the class has a name for stands under it; the leaf itself, its position, log and hash stand in `unmapped`, so that
//! an event can be held against the evidence. `schemas/json/tap.ocsf.schema.json` says what is written here.

use evidence::tap::{Missed, TapItem, TapLeaf};
use serde_json::{Map, Value, json};

use super::alerts::{self, Severity};

const VERSION: &str = "1.6.0";
const CATEGORY: u32 = 6;
const CLASS: u32 = 6003;

/// The event of an item.
pub(super) fn event(item: &TapItem) -> Value {
    match item {
        TapItem::Leaf(leaf) => of_leaf(leaf),
        TapItem::Missed(missed) => of_missed(missed),
    }
}

fn of_leaf(tapped: &TapLeaf) -> Value {
    let leaf: Value = serde_json::from_slice(&tapped.bytes).unwrap_or(Value::Null);
    let text = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_str);
    let kind = tapped.kind.as_str();
    let severity = alerts::of(kind, &leaf);
    let (activity, activity_name) = activity(kind, text("/asked/method"));
    let provider = went(kind, &leaf, "provider");
    let service = went(kind, &leaf, "target").or(provider);
    let mut event =
        common(item_base(&tapped.origin, tapped.position, kind, tapped.at_us), activity, severity);
    put(&mut event, "activity_name", Some(json!(activity_name)));
    put(&mut event, "message", Some(json!(message(kind, &leaf))));
    put(&mut event, "actor", Some(actor(&leaf, tapped.origin.gateway())));
    put(&mut event, "src_endpoint", Some(source(&leaf, tapped.origin.gateway())));
    put(&mut event, "dst_endpoint", provider.map(|name| json!({ "name": name, "svc_name": service })));
    let status = leaf.get("status").and_then(Value::as_i64);
    let reason = text("/reason").or_else(|| text("/answered/error_type"));
    let mut api = Map::new();
    put(&mut api, "operation", Some(json!(text("/asked/operation").unwrap_or(kind))));
    put(&mut api, "service", provider.map(|name| json!({ "name": name })));
    put(&mut api, "request", text("/exchange").map(|id| json!({ "uid": id })));
    if status.is_some() || reason.is_some() {
        let mut response = Map::new();
        put(&mut response, "code", status.map(|code| json!(code)));
        put(&mut response, "error", reason.map(|reason| json!(reason)));
        put(&mut api, "response", Some(response.into()));
    }
    put(&mut event, "api", Some(api.into()));
    put(
        &mut event,
        "http_request",
        text("/asked/method").map(|method| http_request(method, text("/exchange"))),
    );
    put(&mut event, "http_response", status.map(|code| json!({ "code": code })));
    if matches!(kind, "outcome" | "refusal") {
        let failed = severity > Severity::Informational;
        put(&mut event, "status_id", Some(json!(if failed { 2 } else { 1 })));
        put(&mut event, "status", Some(json!(if failed { "Failure" } else { "Success" })));
        put(&mut event, "status_detail", reason.or_else(|| text("/end")).map(|detail| json!(detail)));
        put(&mut event, "status_code", status.map(|code| json!(code.to_string())));
    }
    let total_us = leaf.pointer("/timing/total_us").or_else(|| leaf.get("total_us")).and_then(Value::as_i64);
    put(&mut event, "duration", total_us.map(|us| json!(us / 1000)));
    if let (Some(metadata), Some(exchange)) =
        (event.get_mut("metadata").and_then(Value::as_object_mut), text("/exchange"))
    {
        metadata.insert("correlation_uid".into(), json!(exchange));
    }
    let unmapped = json!({ "affidavit": {
        "origin": tapped.origin, "position": tapped.position, "kind": kind, "leaf_hash": tapped.hash, "leaf": leaf,
    }});
    put(&mut event, "unmapped", Some(unmapped));
    event.into()
}

fn of_missed(missed: &Missed) -> Value {
    let base = item_base(&missed.origin, missed.from, Missed::KIND, missed.at_us);
    let mut event = common(base, 99, Severity::High);
    let gateway = missed.origin.gateway();
    put(&mut event, "activity_name", Some(json!(Missed::KIND)));
    let message = "leaves that this sink does not get; the evidence has them";
    put(&mut event, "message", Some(json!(message)));
    put(&mut event, "actor", Some(json!({ "app_name": gateway })));
    put(&mut event, "src_endpoint", Some(json!({ "name": gateway })));
    put(&mut event, "api", Some(json!({ "operation": Missed::KIND })));
    let mut gap = Map::new();
    put(&mut gap, "origin", Some(json!(missed.origin)));
    put(&mut gap, "kind", Some(json!(Missed::KIND)));
    put(&mut gap, "position", Some(json!(missed.from)));
    put(&mut gap, "to", missed.to.map(|to| json!(to)));
    put(&mut event, "unmapped", Some(json!({ "affidavit": gap })));
    event.into()
}

/// Metadata and time.
fn item_base(origin: &schemas::Origin, position: u64, kind: &str, at_us: i64) -> Map<String, Value> {
    let mut event = Map::new();
    let metadata = json!({
        "version": VERSION,
        "product": {
            "name": "Affidavit", "vendor_name": "Affidavit", "version": env!("CARGO_PKG_VERSION"),
            "uid": format!("{}/{}", origin.deployment(), origin.gateway()),
        },
        "uid": format!("{origin}/{position}"),
        "event_code": kind,
        "log_name": origin,
        "log_provider": "affidavit",
        "sequence": position,
    });
    put(&mut event, "metadata", Some(metadata));
    put(&mut event, "time", Some(json!(at_us.div_euclid(1000))));
    event
}

/// The classification.
fn common(mut event: Map<String, Value>, activity: u32, severity: Severity) -> Map<String, Value> {
    for (key, value) in [
        ("category_uid", json!(CATEGORY)),
        ("category_name", json!("Application Activity")),
        ("class_uid", json!(CLASS)),
        ("class_name", json!("API Activity")),
        ("activity_id", json!(activity)),
        ("type_uid", json!(CLASS * 100 + activity)),
        ("severity_id", json!(severity as u8)),
        ("severity", json!(severity.name())),
    ] {
        event.insert(key.into(), value);
    }
    event
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.into(), value);
    }
}

/// Of where the record tells: of the attempt that served, of the attempt itself, else of the first dispatch.
fn went<'a>(kind: &str, leaf: &'a Value, what: &str) -> Option<&'a str> {
    let of = match kind {
        "attempt" | "side_call" => leaf,
        _ => leaf.get("served").or_else(|| leaf.get("asked"))?,
    };
    of.get(what).and_then(Value::as_str)
}

/// What kind of activity a call is; the gateway's own records are other ones.
fn activity(kind: &str, method: Option<&str>) -> (u32, String) {
    match method {
        Some("POST") => (1, "Create".into()),
        Some("GET" | "HEAD" | "OPTIONS") => (2, "Read".into()),
        Some("PUT" | "PATCH") => (3, "Update".into()),
        Some("DELETE") => (4, "Delete".into()),
        _ => (99, kind.to_owned()),
    }
}

/// Who: the consumer, else who administered, else the gateway itself; a caller that nobody knows is named so.
fn actor(leaf: &Value, gateway: &str) -> Value {
    let text = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_str);
    if let Some(name) = text("/caller/consumer/value").or_else(|| text("/actor")) {
        let mut user = Map::new();
        put(&mut user, "name", Some(json!(name)));
        put(&mut user, "uid", text("/caller/key").map(|key| json!(key)));
        let org = text("/caller/organisation/value");
        put(&mut user, "org", org.map(|org| json!({ "name": org })));
        let team = text("/caller/team/value");
        put(&mut user, "groups", team.map(|team| json!([{ "name": team }])));
        return json!({ "user": user });
    }
    match leaf.get("kind").and_then(Value::as_str) {
        Some("refusal") => json!({ "app_name": "unauthenticated" }),
        _ => json!({ "app_name": gateway }),
    }
}

/// No record holds an address; the class wants a source by some name.
fn source(leaf: &Value, gateway: &str) -> Value {
    let consumer = leaf.pointer("/caller/consumer/value").and_then(Value::as_str);
    let is_refusal = leaf.get("kind").and_then(Value::as_str) == Some("refusal");
    json!({ "name": consumer.unwrap_or(if is_refusal { "unauthenticated" } else { gateway }) })
}

fn http_request(method: &str, exchange: Option<&str>) -> Value {
    let mut request = Map::new();
    put(&mut request, "http_method", Some(json!(method)));
    put(&mut request, "uid", exchange.map(|id| json!(id)));
    request.into()
}

fn message(kind: &str, leaf: &Value) -> String {
    let text = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_str);
    match (kind, text("/reason"), text("/end")) {
        ("outcome", _, Some(end)) => format!("outcome: {end}"),
        (_, Some(reason), _) => format!("{kind}: {reason}"),
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests fail by panicking")]

    use std::path::Path;

    use super::*;

    fn schema() -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/tap.ocsf.schema.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// What of a value the schema refuses. It knows the words that the schema uses, and refuses others.
    fn faults(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (word, wanted) in schema.as_object().unwrap() {
            let fault = |holds: bool| (!holds).then(|| format!("{path}: {word} {wanted}")).into_iter();
            match (word.as_str(), wanted) {
                ("$schema" | "$defs" | "title" | "properties", _) => {}
                ("type", Value::String(kind)) => found.extend(fault(match kind.as_str() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("{path}: type {other}"),
                })),
                ("const", wanted) => found.extend(fault(value == wanted)),
                ("enum", Value::Array(list)) => found.extend(fault(list.contains(value))),
                ("minimum", least) => found.extend(fault(value.as_i64() >= least.as_i64())),
                ("pattern", Value::String(_)) => {
                    let text = value.as_str().unwrap_or_default();
                    found.extend(fault(text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())));
                }
                ("required", Value::Array(keys)) => {
                    found.extend(fault(keys.iter().all(|key| value.get(key.as_str().unwrap()).is_some())));
                }
                ("additionalProperties", Value::Bool(false)) => {
                    for (key, inner) in value.as_object().into_iter().flatten() {
                        match schema["properties"].get(key) {
                            Some(schema) => {
                                found.extend(faults(root, schema, inner, &format!("{path}/{key}")));
                            }
                            None => found.push(format!("{path}: `{key}` is not in the schema")),
                        }
                    }
                }
                ("items", schema) => {
                    for inner in value.as_array().into_iter().flatten() {
                        found.extend(faults(root, schema, inner, &format!("{path}[]")));
                    }
                }
                ("anyOf", Value::Array(list)) => {
                    found.extend(fault(list.iter().any(|one| faults(root, one, value, path).is_empty())));
                }
                ("$ref", Value::String(place)) => {
                    let schema = root.pointer(place.trim_start_matches('#')).unwrap();
                    found.extend(faults(root, schema, value, path));
                }
                (word, wanted) => panic!("{path}: the test does not know {word} {wanted}"),
            }
        }
        found
    }

    fn judged(event: &Value) -> Vec<String> {
        let schema = schema();
        faults(&schema, &schema, event, "")
    }

    fn leaf(position: u64, value: &Value) -> TapItem {
        let bytes = schemas::canonical::to_vec(value).unwrap();
        TapItem::Leaf(TapLeaf {
            origin: schemas::Origin::new("acme/gw1/e-1").unwrap(),
            position,
            kind: value["kind"].as_str().unwrap().to_owned(),
            at_us: value["at"].as_i64().unwrap(),
            hash: schemas::leaf::hash(&bytes),
            bytes: bytes.into(),
        })
    }

    /// The leaves of the format's golden vectors: every kind.
    fn golden() -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/testdata/v1/leaves.json");
        let text: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut found = Vec::new();
        collect(&text, &mut found);
        found
    }

    fn collect(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(map) if map.contains_key("kind") && map.contains_key("at") => {
                found.push(value.clone());
            }
            Value::Object(map) => map.values().for_each(|value| collect(value, found)),
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            Value::String(text) if text.starts_with('{') => {
                if let Ok(value) = serde_json::from_str::<Value>(text) {
                    collect(&value, found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_kind_of_record_is_an_event_with_all_that_the_class_requires() {
        let golden = golden();
        let kinds: std::collections::BTreeSet<_> =
            golden.iter().map(|leaf| leaf["kind"].as_str().unwrap().to_owned()).collect();
        assert!(kinds.len() >= 12, "{kinds:?}");
        for (position, value) in (0..).zip(&golden) {
            let event = event(&leaf(position, value));
            let faults = judged(&event);
            assert!(faults.is_empty(), "{value}\n{event}\n{faults:?}");
            assert_eq!(event["unmapped"]["affidavit"]["leaf"], *value);
            assert_eq!(event["type_uid"], json!(600_300 + event["activity_id"].as_u64().unwrap()));
        }
    }

    #[test]
    fn an_attempt_and_the_outcome_behind_it_say_where_they_went() {
        let went = |value: Value| {
            let event = event(&leaf(7, &value));
            (
                event["dst_endpoint"].clone(),
                event["api"]["service"]["name"].clone(),
                event["duration"].clone(),
            )
        };
        let of = |name: &str, service: &str| json!({ "name": name, "svc_name": service });
        let attempt = json!({ "kind": "attempt", "at": 0, "provider": "other", "target": "other-us", "number": 1,
            "phase": "end", "total_us": 5000 });
        assert_eq!(went(attempt), (of("other", "other-us"), json!("other"), json!(5)));
        let outcome = json!({ "kind": "outcome", "at": 0, "asked": { "provider": "openai", "target": "eu" },
            "served": { "provider": "other", "target": "other-us", "number": 1 } });
        assert_eq!(went(outcome), (of("other", "other-us"), json!("other"), Value::Null));
        let first = json!({ "kind": "outcome", "at": 0, "asked": { "provider": "openai", "target": "eu" } });
        assert_eq!(went(first), (of("openai", "eu"), json!("openai"), Value::Null));
        let plain = json!({ "kind": "intent", "at": 0, "asked": { "provider": "openai" } });
        assert_eq!(went(plain), (of("openai", "openai"), json!("openai"), Value::Null));
    }

    #[test]
    fn a_refused_call_says_who_what_and_why() {
        let value = json!({ "v": 1, "at": 1_795_169_700_123_456_i64, "config": "00", "kind": "refusal",
            "exchange": "01a1fc23-fcba-7aed-b09b-6a27f061fc4c", "reason": "policy_denied", "status": 403,
            "caller": { "consumer": { "value": "payroll-bot", "source": "key" }, "key": "k-1" },
            "asked": { "provider": "openai", "operation": "chat", "method": "POST" },
            "verdict": { "decision": "deny", "policy": "00", "rules": ["r1"] } });
        let event = event(&leaf(7, &value));
        assert_eq!(event["metadata"]["uid"], "acme/gw1/e-1/7");
        assert_eq!(event["metadata"]["correlation_uid"], "01a1fc23-fcba-7aed-b09b-6a27f061fc4c");
        assert_eq!(event["time"], json!(1_795_169_700_123_i64));
        assert_eq!(event["actor"]["user"], json!({ "name": "payroll-bot", "uid": "k-1" }));
        assert_eq!(event["api"]["operation"], "chat");
        assert_eq!(event["api"]["response"], json!({ "code": 403, "error": "policy_denied" }));
        assert_eq!((&event["severity_id"], &event["status_id"]), (&json!(4), &json!(2)));
        assert_eq!(event["type_uid"], json!(600_301));
    }

    #[test]
    fn a_notice_of_missed_leaves_is_an_event_too() {
        for to in [Some(9), None] {
            let origin = schemas::Origin::new("acme/gw1/e-1").unwrap();
            let missed = Missed { origin, from: 4, to, at_us: 1 };
            let event = event(&TapItem::Missed(missed));
            assert!(judged(&event).is_empty(), "{event}: {:?}", judged(&event));
            assert_eq!(event["metadata"]["event_code"], "tap_gap");
        }
    }

    #[test]
    fn the_schema_refuses_an_event_without_what_the_class_requires() {
        let whole = event(&leaf(0, &golden()[0]));
        assert!(judged(&whole).is_empty());
        for key in [
            "activity_id",
            "actor",
            "api",
            "category_uid",
            "class_uid",
            "metadata",
            "severity_id",
            "src_endpoint",
            "time",
            "type_uid",
        ] {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(!judged(&less).is_empty(), "without `{key}`");
        }
    }
}
