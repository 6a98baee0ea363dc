//! What an answer says in words, kept for as long as nobody told its usage. Any dialect.

use base64::Engine as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most text that is kept of an answer; of what is beyond it only the length. Ten thousand long answers at once hold 640 MiB
/// by it, and few answers are as long.
pub const MAX_SAID: usize = 64 << 10;

/// The words of an answer as far as it came: text, thoughts, refusals, and calls of tools by name and arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Their first [`MAX_SAID`] bytes.
    pub text: String,
    /// How many bytes came behind these.
    pub beyond: u64,
}

impl Said {
    /// Takes an event of a stream, without those that say again what others said.
    pub(crate) fn event(&mut self, data: &[u8]) {
        let mark = (self.text.len(), self.beyond);
        if self.read(data).is_some_and(|kind| repeats(&kind)) {
            self.text.truncate(mark.0);
            self.beyond = mark.1;
        }
    }

    /// Takes a whole body, or the beginning of one.
    pub(crate) fn body(&mut self, body: &[u8]) {
        match self.read(body) {
            Some(_) => {}
            None => {
                *self = Self::default();
                self.read(&mended(body));
            }
        }
    }

    /// Takes what is said in one JSON value; its `type`, where the value is whole.
    fn read(&mut self, data: &[u8]) -> Option<String> {
        let text = match std::str::from_utf8(data) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(data.get(..error.valid_up_to())?).ok()?,
        };
        if !text.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let mut kind = String::new();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let walk = Walk { said: self, kind: Some(&mut kind), key: Key::Holder };
        walk.deserialize(&mut deserializer).ok().map(|()| kind)
    }

    fn add(&mut self, text: &str) {
        let room = MAX_SAID.saturating_sub(self.text.len());
        let room = if self.beyond > 0 { 0 } else { room };
        let end = (0..=text.len().min(room)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let (kept, rest) = text.split_at_checked(end).unwrap_or(("", text));
        self.text.push_str(kept);
        self.beyond += rest.len() as u64;
    }
}

/// Whether an event of that `type` says what earlier ones said: the end of a part of a response, or of all of it.
fn repeats(kind: &str) -> bool {
    kind.ends_with(".done")
        || kind.ends_with(".audio.delta")
        || matches!(kind, "response.completed" | "response.incomplete" | "response.failed" | "stream-end")
}

/// JSON that breaks off, closed where it broke off.
fn mended(body: &[u8]) -> Vec<u8> {
    let (mut open, mut in_string, mut escape) = (Vec::new(), false, None);
    for (at, byte) in body.iter().enumerate() {
        match (in_string, byte) {
            (true, _) if escape.is_some_and(|from| at - from < escaped(body, from)) => {}
            (true, b'\\') => escape = Some(at),
            (true, b'"') => in_string = false,
            (false, b'"') => (in_string, escape) = (true, None),
            (false, b'{') => open.push(b'}'),
            (false, b'[') => open.push(b']'),
            (false, b'}' | b']') => drop(open.pop()),
            _ => {}
        }
    }
    let whole = escape.filter(|from| in_string && from + escaped(body, *from) > body.len());
    let text = body.get(..whole.unwrap_or(body.len())).unwrap_or_default();
    // A character that was cut in two goes.
    let text = match std::str::from_utf8(text) {
        Ok(_) => text,
        Err(error) => text.get(..error.valid_up_to()).unwrap_or_default(),
    };
    let mut mended = text.to_vec();
    mended.extend(in_string.then_some(b'"'));
    mended.extend(open.iter().rev());
    mended
}

/// How long the escape is that begins there.
fn escaped(body: &[u8], from: usize) -> usize {
    if body.get(from + 1) == Some(&b'u') { 6 } else { 2 }
}

/// What may stand under a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Words, or what holds some.
    Words,
    /// Thoughts: some providers give the same ones under two names.
    Thoughts,
    /// What holds words.
    Holder,
    /// Arguments: words, or JSON that is counted as it stands.
    Arguments,
    /// A name of a tool, inside of what holds words.
    Name,
    /// What the value is.
    Kind,
    /// The answer of another maker's model, in base64.
    Wrapped,
    Other,
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "completion" | "content" | "delta" | "generated_text" | "outputText" | "partial_json"
            | "refusal" | "response" | "text" | "thinking" | "tool_plan" => Self::Words,
            "candidates" | "choices" | "content_block" | "function" | "functionCall" | "function_call"
            | "generations" | "item" | "message" | "output" | "outputs" | "parts" | "reasoningContent"
            | "reasoningText" | "results" | "start" | "toolUse" | "tool_calls" => Self::Holder,
            "reasoning" | "reasoning_content" => Self::Thoughts,
            "args" | "arguments" | "input" => Self::Arguments,
            "name" => Self::Name,
            "event_type" | "type" => Self::Kind,
            "bytes" => Self::Wrapped,
            _ => Self::Other,
        }
    }
}

/// Reads a key.
struct Known;

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known {
    type Value = Key;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key::of(key))
    }
}

/// One value. `kind` is there for the outermost one, whose `type` is told.
struct Walk<'s, 'k> {
    said: &'s mut Said,
    kind: Option<&'k mut String>,
    key: Key,
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
        if matches!(self.key, Key::Words | Key::Thoughts | Key::Name) {
            self.said.add(text);
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { said, key, .. } = self;
        while seq.next_element_seed(Walk { said: &mut *said, kind: None, key })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { said, mut kind, .. } = self;
        let mut thought = false;
        while let Some(key) = map.next_key_seed(Known)? {
            let again = key == Key::Thoughts && std::mem::replace(&mut thought, true);
            match (key, &mut kind) {
                _ if again => drop(map.next_value::<IgnoredAny>()?),
                (Key::Kind, Some(kind)) => {
                    let value: &RawValue = map.next_value()?;
                    **kind = crate::json::name(Some(value.get())).unwrap_or_default();
                }
                (Key::Wrapped, Some(_)) => {
                    let value: &RawValue = map.next_value()?;
                    let text = crate::json::string(value.get()).unwrap_or_default();
                    if let Ok(inner) = base64::engine::general_purpose::STANDARD.decode(text.as_bytes()) {
                        said.inner(&inner);
                    }
                }
                (Key::Arguments, _) => {
                    let value: &RawValue = map.next_value()?;
                    match crate::json::string(value.get()) {
                        Some(text) => said.add(&text),
                        None if matches!(value.get(), "{}" | "[]" | "null") => {}
                        None => said.add(value.get()),
                    }
                }
                (Key::Words | Key::Thoughts | Key::Holder, _) | (Key::Name, None) => {
                    map.next_value_seed(Walk { said: &mut *said, kind: None, key })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl Said {
    /// Takes an answer that stood within another, in which none stands again.
    fn inner(&mut self, data: &[u8]) {
        if memchr::memmem::find(data, b"\"bytes\"").is_none() {
            self.read(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(events: &[&str]) -> String {
        let mut said = Said::default();
        for event in events {
            said.event(event.as_bytes());
        }
        said.text
    }

    #[test]
    fn the_words_of_every_dialects_stream_are_kept_once() {
        let cases: &[(&[&str], &str)] = &[
            (
                &[
                    r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
                    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":{"content":[{"token":"Hel"}]}}]}"#,
                    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}"#,
                    "[DONE]",
                ],
                "Hello",
            ),
            (
                &[
                    r#"{"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}"#,
                    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
                    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}"#,
                ],
                r#"hmf{"a":1}"#,
            ),
            (&[r#"{"choices":[{"text":"one"}]}"#, r#"{"choices":[{"text":" two"}]}"#], "one two"),
            (
                &[
                    r#"{"type":"response.created","response":{"output":[],"instructions":"be brief"}}"#,
                    r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}"#,
                    r#"{"type":"response.function_call_arguments.delta","delta":"{}"}"#,
                    r#"{"type":"response.function_call_arguments.done","arguments":"{}"}"#,
                    r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
                    r#"{"text":"Hi","type":"response.output_text.done"}"#,
                    r#"{"type":"response.output_item.done","item":{"content":[{"type":"output_text","text":"Hi"}]}}"#,
                ],
                "f{}Hi",
            ),
            (
                &[
                    r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
                    r#"{"type":"response.incomplete","response":{"output":[{"content":[{"text":"Hi"}]}],"usage":null}}"#,
                    r#"{"type":"response.failed","response":{"output":[{"content":[{"text":"Hi"}]}],"usage":null}}"#,
                ],
                "Hi",
            ),
            (
                &[
                    r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{}}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"so"}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"AAAA"}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
                ],
                r#"f{"a"soHi"#,
            ),
            (
                &[
                    r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"},{"functionCall":{"name":"f","args":{"a":1}}}]}}]}"#,
                ],
                r#"Hif{"a":1}"#,
            ),
            (&[r#"{"type":"content-delta","delta":{"message":{"content":{"text":"Hi"}}}}"#], "Hi"),
            (
                &[
                    r#"{"event_type":"text-generation","text":"Hi"}"#,
                    r#"{"event_type":"stream-end","response":{"text":"Hi"}}"#,
                ],
                "Hi",
            ),
            (&[r#"{"message":{"role":"assistant","content":"Hi"},"done":false}"#], "Hi"),
            (&[r#"{"response":"Hi","done":false}"#], "Hi"),
            (&[r#"{"results":[{"generated_text":"Hi"}]}"#], "Hi"),
            (&[r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#], "Hi"),
            (&[r#"{"bytes":"eyJjb21wbGV0aW9uIjoiSGkifQ=="}"#], "Hi"),
        ];
        for (list, text) in cases {
            assert_eq!(&events(list), text, "{list:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_body_says_what_came() {
        let whole = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Grüße, \"world\" \u00e9"},"finish_reason":"stop"}]}"#;
        let mut longest = 0;
        for end in 0..=whole.len() {
            let mut said = Said::default();
            said.body(&whole.as_bytes()[..end]);
            assert!("Grüße, \"world\" é".starts_with(&said.text), "{end}: {}", said.text);
            assert!(said.text.len() >= longest, "{end}: {}", said.text);
            longest = said.text.len();
        }
        assert_eq!(longest, "Grüße, \"world\" é".len());
    }

    #[test]
    fn of_a_long_answer_the_beginning_and_the_length_are_kept() {
        let mut said = Said::default();
        let event = format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "é".repeat(50_000));
        for _ in 0..5 {
            said.event(event.as_bytes());
        }
        assert_eq!((said.text.len(), said.beyond), (MAX_SAID, 500_000 - MAX_SAID as u64));
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(body: Vec<u8>, text: String, deep in 0usize..400) {
            let mut said = Said::default();
            said.body(&body);
            said.event(text.as_bytes());
            said.body(format!("{{\"content\":\"{text}").as_bytes());
            said.body(format!("{}1", "[".repeat(deep)).as_bytes());
            said.event(format!("{{\"bytes\":\"eyJieXRlcyI6IiJ9\",{}", "{\"content\":".repeat(deep)).as_bytes());
        }
    }
}
