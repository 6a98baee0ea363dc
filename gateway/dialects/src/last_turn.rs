//! What a request asks last, in words: for those who choose by what a prompt means. Any dialect.

use crate::content::Content;
use crate::json::{each, name, pick, present, string};

/// The words of the last user turn, or of a prompt without turns; at most `most` bytes of them. Results of tools are no
/// words of the user's. `None` where there are none, or where the body is no JSON.
pub fn last_turn(body: &[u8], most: usize) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let [messages, contents, input, message] = pick(text, &["messages", "contents", "input", "message"])?;
    for (turns, is_google) in [(messages, false), (contents, true), (input, false)] {
        let Some(turns) = present(turns) else { continue };
        let mut users = Vec::new();
        each(turns, &mut |turn| {
            let Some([role]) = pick(turn, &["role"]) else { return };
            let role = name(role).map(|role| role.to_ascii_lowercase());
            // Google's turns may leave the role out: then it is the user's.
            let is_user = role.as_deref().map_or(is_google, |role| matches!(role, "user" | "human"));
            if is_user {
                users.push(turn);
            }
        });
        if let Some(words) = users.into_iter().rev().map(words).find(|words| !words.is_empty()) {
            return Some(cut(words, most));
        }
    }
    if let Some(said) = present(message).and_then(string).filter(|said| !said.trim().is_empty()) {
        return Some(cut(said.into_owned(), most));
    }
    // What has turns, and none of the user's with words, asks nothing in words.
    if present(messages).is_some() || present(contents).is_some() {
        return None;
    }
    let words = Content::of(body).text.trim().to_owned();
    (!words.is_empty()).then(|| cut(words, most))
}

fn words(turn: &str) -> String {
    let Some([content, parts]) = pick(turn, &["content", "parts"]) else { return String::new() };
    let Some(said) = present(content).or(present(parts)) else { return String::new() };
    let mut words = String::new();
    let mut add = |block: &str| {
        let is_result = pick(block, &["type", "toolResult", "functionResponse"]).is_some_and(
            |[kind, bedrock, google]| {
                name(kind).as_deref() == Some("tool_result") || bedrock.is_some() || google.is_some()
            },
        );
        if !is_result {
            words.push_str(&Content::of(format!("{{\"content\":{block}}}").as_bytes()).text);
        }
    };
    if !each(said, &mut add) {
        add(said);
    }
    words.trim().to_owned()
}

fn cut(mut words: String, most: usize) -> String {
    let end = (0..=words.len().min(most)).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
    words.truncate(end);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_user_turn_is_found_in_every_dialect() {
        let table = [
            (
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"one"},{"role":"assistant","content":"a"},{"role":"user","content":"two"}]}"#,
                Some("two"),
            ),
            (
                r#"{"messages":[{"role":"user","content":"one"},{"role":"assistant","content":null},{"role":"tool","content":"result"}]}"#,
                Some("one"),
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"one"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"}]}]}"#,
                Some("one"),
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"text":"one"},{"toolResult":{"content":[{"text":"r"}]}}]}]}"#,
                Some("one"),
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.test"}},{"type":"text","text":"one"}]}]}"#,
                Some("one"),
            ),
            (
                r#"{"contents":[{"parts":[{"text":"one"}]},{"role":"model","parts":[{"text":"m"}]},{"role":"user","parts":[{"text":"two"},{"text":"three"}]}]}"#,
                Some("two\nthree"),
            ),
            (r#"{"instructions":"s","input":"one"}"#, Some("s\none")),
            (
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"one"}]},{"type":"function_call_output","output":"r"}]}"#,
                Some("one"),
            ),
            (r#"{"message":"one","preamble":"s"}"#, Some("one")),
            (r#"{"prompt":"one"}"#, Some("one")),
            (r#"{"input":["one","two"]}"#, Some("one\ntwo")),
            (r#"{"messages":[{"role":"system","content":"s"}]}"#, None),
            (r#"{"messages":[{"role":"user","content":"  "}]}"#, None),
            ("{}", None),
            ("no JSON", None),
        ];
        for (body, wanted) in table {
            assert_eq!(last_turn(body.as_bytes(), 100).as_deref(), wanted, "{body}");
        }
        let long = serde_json::json!({ "messages": [{ "role": "user", "content": "é".repeat(100) }] });
        assert_eq!(last_turn(long.to_string().as_bytes(), 11).as_deref(), Some("ééééé"));
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body: Vec<u8>, text in ".{0,200}") {
            last_turn(&body, 20);
            last_turn(text.as_bytes(), 20);
            let _ = last_turn(format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{text}}}]}}").as_bytes(), 20);
        }
    }
}
