//! What a request says in words, and whether it shows pictures: for routes that ask. Any dialect.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The most text that is gathered; what is beyond it is not looked at.
pub const MAX_TEXT: usize = 1 << 20;

/// What was found in a request's body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The texts of prompts, messages and tool results, one a line; the first [`MAX_TEXT`] bytes.
    pub text: String,
    /// Whether a picture is among them.
    pub images: bool,
}

impl Content {
    /// Reads a body. What is no JSON holds nothing.
    pub fn of(body: &[u8]) -> Self {
        let mut content = Self::default();
        if let Ok(text) = std::str::from_utf8(body) {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            // What came before a fault is what was said.
            let _ = Walk { content: &mut content, key: "", said: false }.deserialize(&mut deserializer);
        }
        content
    }

    fn add(&mut self, text: &str) {
        let room = MAX_TEXT.saturating_sub(self.text.len() + 1);
        let end = (0..=text.len().min(room)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        if let Some(text) = text.get(..end).filter(|text| !text.is_empty()) {
            self.text.push_str(text);
            self.text.push('\n');
        }
    }
}

/// Keys under which words stand, in one dialect or another.
fn is_said(key: &str) -> bool {
    matches!(
        key,
        "text"
            | "content"
            | "contents"
            | "input"
            | "inputs"
            | "inputText"
            | "input_text"
            | "instances"
            | "instructions"
            | "message"
            | "output"
            | "prompt"
            | "query"
            | "documents"
            | "suffix"
            | "system"
            | "texts"
    )
}

/// Keys under which a picture stands.
fn is_shown(key: &str) -> bool {
    matches!(key, "image" | "images" | "image_url" | "input_image" | "imageUrl")
}

/// One value of the body. `said`: a text here is one of the words.
struct Walk<'c, 'k> {
    content: &'c mut Content,
    key: &'k str,
    said: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let key = self.key;
        let is_media = matches!(key, "mimeType" | "mime_type" | "media_type") && text.starts_with("image/");
        if is_media || (key == "type" && is_shown(text)) || (is_shown(key) && !text.is_empty()) {
            self.content.images = true;
        } else if self.said {
            self.content.add(text);
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { content, key, said } = self;
        while seq.next_element_seed(Walk { content: &mut *content, key, said })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let content = self.content;
        content.images |= is_shown(self.key);
        while let Some(key) = map.next_key::<String>()? {
            let said = is_said(&key);
            map.next_value_seed(Walk { content: &mut *content, key: &key, said })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_words_of_every_dialect_are_found_and_no_names() {
        let cases = [
            (
                r#"{"model":"m","messages":[{"role":"user","content":"one"},{"role":"user","content":[{"type":"text","text":"two"}]}]}"#,
                "one\ntwo\n",
                false,
            ),
            (
                r#"{"system":"one","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"tool_result","content":"two"}]}]}"#,
                "one\ntwo\n",
                true,
            ),
            (
                r#"{"contents":[{"role":"user","parts":[{"text":"one"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}]}"#,
                "one\n",
                true,
            ),
            (r#"{"input":["one","two"],"user":"ana"}"#, "one\ntwo\n", false),
            (
                r#"{"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"AA"}}},{"text":"one"}]}]}"#,
                "one\n",
                true,
            ),
            (
                r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x.test/a.png"},{"type":"input_text","text":"one"}]}]}"#,
                "one\n",
                true,
            ),
            (r#"{"prompt":"one","suffix":"two","images":[]}"#, "one\ntwo\n", false),
            (r#"{"prompt":"one","images":["AAAA"]}"#, "one\n", true),
            ("not JSON", "", false),
        ];
        for (body, text, images) in cases {
            assert_eq!(Content::of(body.as_bytes()), Content { text: text.into(), images }, "{body}");
        }
    }

    #[test]
    fn what_is_gathered_is_bounded() {
        let body = serde_json::json!({ "input": ["é".repeat(MAX_TEXT), "more"] }).to_string();
        assert!(Content::of(body.as_bytes()).text.len() <= MAX_TEXT);
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body: Vec<u8>, deep in 0usize..400) {
            Content::of(&body);
            Content::of(format!("{}1", "[".repeat(deep)).as_bytes());
        }
    }
}
