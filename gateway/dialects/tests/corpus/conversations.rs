//! Turns of one recorded session have one conversation key: what a session is, is told from the bodies' own turns here,
//! not from the key.

use std::collections::{BTreeMap, BTreeSet};

use dialects::{Dialect, conversation_key};
use serde_json::Value;

use super::every_line;

/// The turns of a body, whatever they are called, with the text beside them that holds for all of them.
fn turns(body: &Value) -> Option<(Vec<Value>, Value)> {
    let of = |name: &str| body[name].as_array().cloned();
    let turns = of("messages").or_else(|| of("contents")).or_else(|| of("input"))?;
    let names = ["system", "instructions", "systemInstruction", "system_instruction", "preamble"];
    let system = names.iter().map(|name| body[*name].clone()).collect();
    turns.iter().all(Value::is_object).then_some((turns, system))
}

fn is_user(turn: &Value) -> bool {
    turn["role"].as_str().is_none_or(|role| role.eq_ignore_ascii_case("user")) && turn["type"] != "reasoning"
}

#[test]
fn turns_of_one_session_have_one_key() {
    let mut sessions: BTreeMap<(String, String), Vec<(String, Dialect, Vec<u8>, Vec<Value>)>> =
        BTreeMap::new();
    let (mut with_key, mut keys) = (0, BTreeSet::new());
    every_line(|line| {
        let Ok(body) = serde_json::from_slice::<Value>(&line.request) else { return };
        let dialect = line.operation.dialect();
        if let Some(key) = conversation_key(dialect, &line.request) {
            with_key += 1;
            keys.insert(key);
        }
        let Some((turns, system)) = turns(&body) else { return };
        if !body["previous_response_id"].is_null() || !body["conversation"].is_null() {
            return;
        }
        let of = (format!("{}/{system}", line.file), dialect.name().to_owned());
        sessions.entry(of).or_default().push((line.id.clone(), dialect, line.request.clone(), turns));
    });
    let (mut pairs, mut dialects) = (0, BTreeSet::new());
    for lines in sessions.values() {
        for (first, dialect, first_body, begins) in lines {
            // A session that begins with a turn of the user.
            let Some(user) = begins.iter().position(is_user) else { continue };
            for (later, _, later_body, goes_on) in lines {
                if goes_on.len() <= begins.len() || goes_on.get(..=user) != begins.get(..=user) {
                    continue;
                }
                let one = conversation_key(*dialect, first_body);
                assert_eq!(one, conversation_key(*dialect, later_body), "{first} and {later}");
                pairs += usize::from(one.is_some());
                if one.is_some() {
                    dialects.insert(dialect.name());
                }
            }
        }
    }
    println!("{pairs} pairs of turns in {dialects:?}; {with_key} requests with {} keys", keys.len());
    assert!(keys.len() <= with_key);
    // The project's own small set holds single turns of two conversations only.
    let recorded = with_key >= 100;
    assert!(!recorded || pairs >= 100 && dialects.len() >= 5, "{pairs} {dialects:?} of {with_key}");
    let differing = if recorded { with_key / 4 } else { 2 };
    assert!(keys.len() >= differing, "different conversations have one key: {} of {with_key}", keys.len());
}
