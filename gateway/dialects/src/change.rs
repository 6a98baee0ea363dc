//! Changes a request's body: the model, and parameters that are put in. Every byte that is not concerned stays as it is.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::json::{members, offset};
use crate::multipart;
use crate::operation::{Dialect, Operation};

/// How deep objects are merged into each other; what lies deeper is replaced whole.
const MAX_DEPTH: usize = 32;

/// The object `body` with `model` as its member `model`, also where it has none; `None` where it is not one whole object.
pub fn with_model(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let mut forced = Map::new();
    forced.insert("model".into(), Value::String(model.to_owned()));
    merged(body, &forced, true)
}

/// The multipart `body` with `model` as its field `model`; `None` where it has no such field.
pub fn form_with_model(content_type: &str, body: &[u8], model: &str) -> Option<Vec<u8>> {
    let boundary = multipart::boundary(content_type)?;
    let (parts, whole) = multipart::parts(&boundary, body);
    let field = parts.iter().find(|part| part.name == "model" && !part.is_file).filter(|_| whole)?;
    let at = (field.content.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    Some(spliced(body, vec![(at..at + field.content.len(), model.to_owned())]))
}

/// The object `body` with the members of `more` put in: objects member by member, everything else whole. With `force` they
/// take the place of what the caller sent, and one that is `null` is taken out (RFC 7396); else they fill in what the caller
/// left out. `None` where `body` is not one whole object.
pub fn merged(body: &[u8], more: &Map<String, Value>, force: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut splices = Vec::new();
    merge(text, text, more, force, 0, &mut splices)?;
    Some(spliced(body, splices))
}

/// The word for the most tokens of an answer in a chat of OpenAI's dialect. OpenAI's reasoning models take the newer one only;
/// most compatible servers know the older one, and refuse the newer or pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatBound {
    /// `max_completion_tokens`.
    #[default]
    MaxCompletionTokens,
    /// `max_tokens`.
    MaxTokens,
}

impl ChatBound {
    /// The word, and the other one.
    pub(crate) fn words(self) -> [&'static str; 2] {
        match self {
            Self::MaxCompletionTokens => ["max_completion_tokens", "max_tokens"],
            Self::MaxTokens => ["max_tokens", "max_completion_tokens"],
        }
    }
}

/// What is forced into a request for `operation` so that its answer has at most `most` tokens; `None` where the operation has no
/// word for it. A chat of OpenAI's dialect is bounded by the word `chat`.
pub fn max_output(operation: &Operation, most: u64, chat: ChatBound) -> Option<Map<String, Value>> {
    let words = match (operation.dialect(), operation.name()) {
        (Dialect::OpenAi | Dialect::AzureOpenAi, "chat.completions") => {
            let [word, other] = chat.words();
            // The other word beside it would be refused, or count.
            json!({ word: most, other: null })
        }
        (Dialect::OpenAi | Dialect::AzureOpenAi, "responses.create") => json!({ "max_output_tokens": most }),
        (Dialect::OpenAi | Dialect::AzureOpenAi, "completions")
        | (Dialect::Anthropic, "messages.create")
        | (Dialect::Cohere, "chat.create")
        | (Dialect::Watsonx, "chat.completions") => json!({ "max_tokens": most }),
        (Dialect::Gemini | Dialect::Vertex, "models.generate_content" | "models.stream_generate_content") => {
            // Either spelling counts there.
            let none = json!({ "maxOutputTokens": null, "max_output_tokens": null });
            json!({ "generationConfig": { "maxOutputTokens": most, "max_output_tokens": null }, "generation_config": none })
        }
        (Dialect::Bedrock, "converse" | "converse_stream") => {
            json!({ "inferenceConfig": { "maxTokens": most } })
        }
        (Dialect::Ollama, "chat.create" | "generate.create") => json!({ "options": { "num_predict": most } }),
        _ => return None,
    };
    match words {
        Value::Object(words) => Some(words),
        _ => None,
    }
}

/// Collects what is to be replaced in `whole`, of which `object` is a part.
fn merge(
    whole: &str,
    object: &str,
    more: &Map<String, Value>,
    force: bool,
    depth: usize,
    splices: &mut Vec<(Range<usize>, String)>,
) -> Option<()> {
    let members = members(object)?;
    let mut new = Vec::new();
    let mut out = vec![false; members.len()];
    for (name, value) in more {
        let mut is_there = false;
        // A name that is repeated is replaced wherever it stands: which one counts is not defined.
        for ((_, found), out) in members.iter().zip(&mut out).filter(|((found, _), _)| found == name) {
            is_there = true;
            match value {
                Value::Null if force => *out = true,
                Value::Object(inner) if found.starts_with('{') && depth < MAX_DEPTH => {
                    merge(whole, found, inner, force, depth + 1, splices)?;
                }
                _ if force => {
                    let at = offset(whole, found)?;
                    let text = without_nulls(value).unwrap_or_else(|| Map::new().into()).to_string();
                    if text != *found {
                        splices.push((at..at + found.len(), text));
                    }
                }
                _ => {}
            }
        }
        let put = if force { without_nulls(value) } else { Some(value.clone()) };
        if let Some(value) = put.filter(|_| !is_there) {
            new.push(format!("{}:{value}", Value::String(name.clone())));
        }
    }
    let open = offset(whole, object)? + object.find('{')? + 1;
    if !new.is_empty() {
        let comma = if out.iter().all(|out| *out) { "" } else { "," };
        splices.push((open..open, format!("{}{comma}", new.join(","))));
    }
    take_out(whole, open, &members, &out, splices)
}

/// What of a forced `value` is put in where there is nothing yet; `None` where all of it only takes out.
fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) if !members.is_empty() => {
            let kept: Map<_, _> = members
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), without_nulls(value)?)))
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        _ => Some(value.clone()),
    }
}

/// Takes the members that are `out` from the object whose first member begins behind `open`, each with the comma that parts it
/// from one that stays.
fn take_out(
    whole: &str,
    open: usize,
    members: &[(String, &str)],
    out: &[bool],
    splices: &mut Vec<(Range<usize>, String)>,
) -> Option<()> {
    // Where what is taken out begins: behind the value before it, or where the object begins.
    let mut end = open;
    let mut stays = false;
    for (at, ((_, value), is_out)) in members.iter().zip(out).enumerate() {
        let behind = offset(whole, value)? + value.len();
        if *is_out {
            let comma = match members.get(at + 1) {
                // The comma behind it goes with it, as none before it does.
                Some(_) if !stays => whole.get(behind..)?.find(',').map(|comma| comma + 1)?,
                _ => 0,
            };
            splices.push((end..behind + comma, String::new()));
            end = behind + comma;
        } else {
            stays = true;
            end = behind;
        }
    }
    Some(())
}

fn spliced(body: &[u8], mut splices: Vec<(Range<usize>, String)>) -> Vec<u8> {
    // What is put in at a place comes before what is taken out from there on.
    splices.sort_by_key(|(place, _)| (place.start, place.end));
    let mut out = Vec::with_capacity(body.len() + 256);
    let mut at = 0;
    for (place, with) in splices {
        out.extend_from_slice(body.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(with.as_bytes());
        at = place.end;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    fn put(body: &str, more: &str, force: bool) -> Option<String> {
        merged(body.as_bytes(), &map(more), force).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_model_takes_the_place_of_another_and_no_other_byte_changes() {
        let cases = [
            (r#"{ "a": 1.10, "model" : "fast" ,"b":[]}"#, r#"{ "a": 1.10, "model" : "m-1" ,"b":[]}"#),
            (r#"{"messages":[{"model":"fast"}]}"#, r#"{"model":"m-1","messages":[{"model":"fast"}]}"#),
            ("{}", r#"{"model":"m-1"}"#),
            (r#"{"model":"a","model":"b"}"#, r#"{"model":"m-1","model":"m-1"}"#),
        ];
        for (body, wanted) in cases {
            let changed = with_model(body.as_bytes(), "m-1").map(|body| String::from_utf8(body).unwrap());
            assert_eq!(changed.as_deref(), Some(wanted), "{body}");
        }
        for broken in ["", "[]", "{", "{}x", "\"a\""] {
            assert_eq!(with_model(broken.as_bytes(), "m"), None, "{broken}");
        }
    }

    #[test]
    fn parameters_fill_in_or_take_the_place_member_by_member() {
        let body = r#"{"temperature":0.70,"options":{"a":1,"deep":{"x":[1,2]}},"stop":["a","b"]}"#;
        let more = r#"{"temperature":1,"options":{"a":2,"b":3,"deep":{"y":true}},"stop":["c"],"top_p":0.5}"#;
        assert_eq!(
            put(body, more, false).unwrap(),
            r#"{"top_p":0.5,"temperature":0.70,"options":{"b":3,"a":1,"deep":{"y":true,"x":[1,2]}},"stop":["a","b"]}"#
        );
        assert_eq!(
            put(body, more, true).unwrap(),
            r#"{"top_p":0.5,"temperature":1,"options":{"b":3,"a":2,"deep":{"y":true,"x":[1,2]}},"stop":["c"]}"#
        );
        assert_eq!(put(body, "{}", true).unwrap(), body);
        assert_eq!(put(r#"{"a":null}"#, r#"{"a":{"b":1}}"#, true).unwrap(), r#"{"a":{"b":1}}"#);
        assert_eq!(put(r#"{"a":null}"#, r#"{"a":{"b":1}}"#, false).unwrap(), r#"{"a":null}"#);
    }

    #[test]
    fn a_forced_null_takes_a_member_out_with_its_comma() {
        let cases = [
            (r#"{"a":1,"b":2}"#, r#"{"a":null}"#, r#"{"b":2}"#),
            (r#"{ "a" : 1 , "b" : 2 , "c" : 3 }"#, r#"{"b":null}"#, r#"{ "a" : 1 , "c" : 3 }"#),
            (r#"{ "a" : 1 , "b" : 2 }"#, r#"{"b":null}"#, r#"{ "a" : 1 }"#),
            (r#"{"a":[1,2],"b":{"x":","},"c":3}"#, r#"{"a":null,"b":null}"#, r#"{"c":3}"#),
            (r#"{"a":1,"b":2,"c":3}"#, r#"{"a":null,"c":null}"#, r#"{"b":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":null,"b":null}"#, "{}"),
            (r#"{"a":1}"#, r#"{"b":null}"#, r#"{"a":1}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":null,"c":3}"#, r#"{"c":3,"b":2}"#),
            (r#"{"a":1}"#, r#"{"a":null,"c":3}"#, r#"{"c":3}"#),
            (r#"{"a":1,"b":2}"#, r#"{"b":null,"c":3}"#, r#"{"c":3,"a":1}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":null}"#, r#"{"b":2}"#),
            (r#"{"\u0061":1,"b":2}"#, r#"{"a":null}"#, r#"{"b":2}"#),
            (r#"{"o":{"a":1,"b":2},"c":3}"#, r#"{"o":{"a":null,"d":4}}"#, r#"{"o":{"d":4,"b":2},"c":3}"#),
            (r#"{"c":3}"#, r#"{"o":{"a":null}}"#, r#"{"c":3}"#),
            (r#"{"c":3}"#, r#"{"o":{"a":null,"b":1},"p":{}}"#, r#"{"o":{"b":1},"p":{},"c":3}"#),
            (r#"{"o":3}"#, r#"{"o":{"a":null}}"#, r#"{"o":{}}"#),
        ];
        for (body, more, wanted) in cases {
            assert_eq!(put(body, more, true).as_deref(), Some(wanted), "{body} with {more}");
        }
        assert_eq!(put(r#"{"a":1}"#, r#"{"a":null,"b":null}"#, false).unwrap(), r#"{"b":null,"a":1}"#);
    }

    #[test]
    fn a_forced_parameter_cannot_be_kept_by_repeating_or_escaping_its_name() {
        let body = r#"{"max_tokens":9,"max_tok\u0065ns":10,"max_tokens":11}"#;
        let changed: Value = serde_json::from_str(&put(body, r#"{"max_tokens":1}"#, true).unwrap()).unwrap();
        assert_eq!(changed["max_tokens"], 1);
        assert!(!put(body, r#"{"max_tokens":1}"#, true).unwrap().contains("10"));
    }

    #[test]
    fn the_most_tokens_of_an_answer_are_said_in_the_operation_s_own_words() {
        let cases = [
            (
                Dialect::OpenAi,
                "/v1/chat/completions",
                r#"{"max_tokens":9}"#,
                r#"{"max_completion_tokens":5}"#,
            ),
            (
                Dialect::AzureOpenAi,
                "/openai/deployments/d/chat/completions",
                "{}",
                r#"{"max_completion_tokens":5}"#,
            ),
            (Dialect::OpenAi, "/v1/responses", "{}", r#"{"max_output_tokens":5}"#),
            (Dialect::OpenAi, "/v1/completions", r#"{"max_tokens":9}"#, r#"{"max_tokens":5}"#),
            (Dialect::OpenAi, "/v1/messages", r#"{"max_tokens":9}"#, r#"{"max_tokens":5}"#),
            (Dialect::Anthropic, "/v1/messages", r#"{"max_tokens":9}"#, r#"{"max_tokens":5}"#),
            (
                Dialect::Gemini,
                "/v1beta/models/g:generateContent",
                r#"{"generationConfig":{"topK":1}}"#,
                r#"{"generationConfig":{"maxOutputTokens":5,"topK":1}}"#,
            ),
            (
                Dialect::Vertex,
                "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
                r#"{"generationConfig":{"max_output_tokens":9}}"#,
                r#"{"generationConfig":{"maxOutputTokens":5}}"#,
            ),
            (Dialect::Bedrock, "/model/m/converse", "{}", r#"{"inferenceConfig":{"maxTokens":5}}"#),
            (Dialect::Ollama, "/api/chat", "{}", r#"{"options":{"num_predict":5}}"#),
            (Dialect::Cohere, "/v2/chat", "{}", r#"{"max_tokens":5}"#),
        ];
        for (dialect, path, body, wanted) in cases {
            let operation = crate::operation(dialect, &http::Method::POST, path);
            let words = max_output(&operation, 5, ChatBound::default()).unwrap();
            let put = merged(body.as_bytes(), &words, true).unwrap();
            assert_eq!(String::from_utf8(put).unwrap(), wanted, "{path}");
        }
        for (dialect, path) in [
            (Dialect::OpenAi, "/v1/embeddings"),
            (Dialect::OpenAi, "/v1/nothing"),
            (Dialect::Bedrock, "/model/m/invoke"),
            (Dialect::Gemini, "/v1beta/models/g:embedContent"),
        ] {
            let operation = crate::operation(dialect, &http::Method::POST, path);
            assert_eq!(max_output(&operation, 5, ChatBound::default()), None, "{path}");
        }
    }

    #[test]
    fn a_chat_of_a_compatible_server_is_bounded_by_the_word_that_it_knows() {
        let operation = |path| crate::operation(Dialect::OpenAi, &http::Method::POST, path);
        let put = |path, body: &str| {
            let words = max_output(&operation(path), 5, ChatBound::MaxTokens).unwrap();
            String::from_utf8(merged(body.as_bytes(), &words, true).unwrap()).unwrap()
        };
        for body in [r#"{"max_completion_tokens":9}"#, r#"{"max_tokens":9,"max_completion_tokens":9}"#, "{}"]
        {
            assert_eq!(put("/v1/chat/completions", body), r#"{"max_tokens":5}"#, "{body}");
        }
        assert_eq!(put("/v1/responses", "{}"), r#"{"max_output_tokens":5}"#);
    }

    #[test]
    fn the_field_of_a_form_is_replaced() {
        let kind = "multipart/form-data; boundary=b";
        let body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nmodel\r\n--b\r\n\
                    Content-Disposition: form-data; name=\"model\"\r\n\r\nfast\r\n--b--\r\n";
        let changed = form_with_model(kind, body.as_bytes(), "whisper-1").unwrap();
        assert_eq!(String::from_utf8(changed).unwrap(), body.replacen("fast", "whisper-1", 1));
        assert_eq!(form_with_model(kind, b"--b--\r\n", "m"), None);
        assert_eq!(form_with_model("application/json", body.as_bytes(), "m"), None);
    }

    proptest! {
        #[test]
        fn what_is_merged_is_what_a_tree_would_hold(a in "[a-c]", b in "[a-c]", n in 0i64..9, force: bool) {
            let body = format!(r#"{{ "{a}" : {{"{b}":{n}}}, "z":[{n}] }}"#);
            let more = format!(r#"{{"a":{{"a":"x"}},"b":{n},"z":[]}}"#);
            let found: Value = serde_json::from_str(&put(&body, &more, force).unwrap()).unwrap();
            let mut wanted: Value = serde_json::from_str(&body).unwrap();
            for (name, value) in map(&more) {
                let there = wanted.get(&name).cloned();
                wanted[&name] = match (there, value) {
                    (Some(Value::Object(mut inner)), Value::Object(more)) => {
                        for (key, value) in more {
                            if force || !inner.contains_key(&key) { inner.insert(key, value); }
                        }
                        inner.into()
                    }
                    (Some(there), _) if !force => there,
                    (_, value) => value,
                };
            }
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn what_is_taken_out_leaves_what_a_tree_would_hold(
            members in proptest::collection::vec(("[a-d]", "[ \n]{0,2}", 0i64..9), 0..6),
            more in proptest::collection::btree_map("[a-e]", proptest::option::of(0i64..9), 0..4),
        ) {
            let body: Vec<String> = members
                .iter()
                .map(|(name, space, n)| format!(r#"{space}"{name}"{space}:{space}{{"n":[{n},","]}}{space}"#))
                .collect();
            let body = format!("{{{}}}", body.join(","));
            let more: Map<String, Value> =
                more.into_iter().map(|(name, n)| (name, n.map_or(Value::Null, Value::from))).collect();
            let found = merged(body.as_bytes(), &more, true).unwrap();
            let found: Value = serde_json::from_slice(&found).unwrap();
            let mut wanted: Map<String, Value> = serde_json::from_str(&body).unwrap();
            for (name, value) in more {
                match value {
                    Value::Null => _ = wanted.remove(&name),
                    value => _ = wanted.insert(name, value),
                }
            }
            prop_assert_eq!(found, Value::Object(wanted));
        }

        #[test]
        fn hostile_bodies_never_panic(body: Vec<u8>) {
            let _ = merged(&body, &map(r#"{"a":null,"b":{"c":null}}"#), true);
            let _ = merged(&body, &map(r#"{"a":{"b":1}}"#), true);
            let _ = form_with_model("multipart/form-data; boundary=b", &body, "m");
        }
    }
}
