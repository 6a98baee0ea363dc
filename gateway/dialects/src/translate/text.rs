//! JSON objects read key by key, with what nobody asked for listed; and JSON written in the order that it is said.

use std::fmt::Write as _;

use super::form::{Dropped, Json, Unreadable, Weight};
use crate::json;

/// An object that is read key by key. Paths are those of messages to a caller: `messages[2].content`.
pub(crate) struct Object<'a> {
    path: String,
    members: Vec<(String, &'a str)>,
}

/// The path of `key` in what stands at `path`.
pub(crate) fn under(path: &str, key: &str) -> String {
    // A key is the caller's text: what is not a plain word is not repeated.
    let plain = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_graphic() && b != b'`');
    let key = if plain { key } else { "?" };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'a> Object<'a> {
    /// The object that `text` is.
    pub(crate) fn read(path: &str, text: &'a str) -> Result<Self, Unreadable> {
        let members = json::members(text).ok_or_else(|| Unreadable::new(named(path), "a JSON object"))?;
        Ok(Self { path: path.to_owned(), members })
    }

    /// The object that a body is.
    pub(crate) fn body(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| Unreadable::new("body", "a JSON object in UTF-8"))?;
        Self::read("", text)
    }

    pub(crate) fn path(&self, key: &str) -> String {
        under(&self.path, key)
    }

    /// The value of `key`, which is not there any more then. `null` is as good as nothing. Of a repeated key the last
    /// counts.
    pub(crate) fn take(&mut self, key: &str) -> Option<&'a str> {
        let mut found = None;
        self.members.retain(|(name, value)| {
            if name == key {
                found = Some(*value);
            }
            name != key
        });
        found.filter(|value| *value != "null")
    }

    /// A string.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let text = json::string(value).ok_or_else(|| Unreadable::new(self.path(key), "a string"))?;
        Ok(Some(text.into_owned()))
    }

    /// A string that has to be there.
    pub(crate) fn wanted(&mut self, key: &str) -> Result<String, Unreadable> {
        self.text(key)?.ok_or_else(|| Unreadable::new(self.path(key), "a string"))
    }

    /// A count.
    pub(crate) fn integer(&mut self, key: &str) -> Result<Option<i64>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        json::integer(Some(value)).map(Some).ok_or_else(|| Unreadable::new(self.path(key), "an integer"))
    }

    /// A number, as it stands.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<Json>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = Json::new(value).filter(|value| value.number().is_some());
        number.map(Some).ok_or_else(|| Unreadable::new(self.path(key), "a number"))
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        json::boolean(Some(value)).map(Some).ok_or_else(|| Unreadable::new(self.path(key), "true or false"))
    }

    /// The elements of an array, with their paths.
    pub(crate) fn array(&mut self, key: &str) -> Result<Option<Vec<(String, &'a str)>>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let path = self.path(key);
        elements(&path, value).map(Some)
    }

    /// An object.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Object<'a>>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        Object::read(&self.path(key), value).map(Some)
    }

    /// An object as it stands.
    pub(crate) fn raw_object(&mut self, key: &str) -> Result<Option<Json>, Unreadable> {
        let Some(value) = self.take(key) else { return Ok(None) };
        Json::object(value).map(Some).ok_or_else(|| Unreadable::new(self.path(key), "a JSON object"))
    }

    /// What nobody took: with its word and weight where `known` has it, else as an unknown key.
    pub(crate) fn rest(self, known: &[(&str, &'static str, Weight)], dropped: &mut Vec<Dropped>) {
        for (name, value) in &self.members {
            if matches!(*value, "null" | "[]" | "{}" | "false") {
                continue;
            }
            let (what, weight) = known
                .iter()
                .find(|(key, ..)| key == name)
                .map_or(("unknown_key", Weight::Meaning), |(_, what, weight)| (*what, *weight));
            dropped.push(Dropped::new(self.path(name), what, weight));
        }
    }
}

fn named(path: &str) -> &str {
    if path.is_empty() { "body" } else { path }
}

/// The elements of the array `text`, with their paths.
pub(crate) fn elements<'a>(path: &str, text: &'a str) -> Result<Vec<(String, &'a str)>, Unreadable> {
    let mut all = Vec::new();
    let whole = json::each(text, &mut |element| {
        all.push((format!("{path}[{}]", all.len()), element));
    });
    if whole { Ok(all) } else { Err(Unreadable::new(path, "an array")) }
}

/// Writes an object, key by key.
#[derive(Debug)]
pub(crate) struct Writer(String);

impl Writer {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// `text` is one whole JSON value.
    pub(crate) fn raw(&mut self, key: &str, text: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(key, &mut self.0);
        self.0.push(':');
        self.0.push_str(text);
        self
    }
    pub(crate) fn json(&mut self, key: &str, value: &Json) -> &mut Self {
        self.raw(key, value.text())
    }
    pub(crate) fn maybe(&mut self, key: &str, value: Option<&Json>) -> &mut Self {
        if let Some(value) = value {
            self.json(key, value);
        }
        self
    }
    pub(crate) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        let mut quoted = String::with_capacity(text.len() + 2);
        quote(text, &mut quoted);
        self.raw(key, &quoted)
    }
    pub(crate) fn texts(&mut self, key: &str, texts: &[String]) -> &mut Self {
        let mut array = Array::new();
        for text in texts {
            array.push(Json::string(text).text());
        }
        self.raw(key, &array.end())
    }
    pub(crate) fn integer(&mut self, key: &str, n: i64) -> &mut Self {
        self.raw(key, &n.to_string())
    }
    pub(crate) fn boolean(&mut self, key: &str, yes: bool) -> &mut Self {
        self.raw(key, if yes { "true" } else { "false" })
    }
    pub(crate) fn null(&mut self, key: &str) -> &mut Self {
        self.raw(key, "null")
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }
    pub(crate) fn end(&self) -> String {
        format!("{}}}", self.0)
    }
}

/// Writes an array.
#[derive(Debug)]
pub(crate) struct Array(String);

impl Array {
    pub(crate) fn new() -> Self {
        Self("[".to_owned())
    }
    /// `text` is one whole JSON value.
    pub(crate) fn push(&mut self, text: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(text);
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }
    pub(crate) fn end(&self) -> String {
        format!("{}]", self.0)
    }
}

/// `{"key":text}`.
pub(crate) fn single(key: &str, text: &str) -> String {
    Writer::new().raw(key, text).end()
}

/// An array of elements that are JSON text.
pub(crate) fn list(elements: &[String]) -> String {
    let mut array = Array::new();
    for element in elements {
        array.push(element);
    }
    array.end()
}

/// Puts `text` behind `out` as a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            c if (c as u32) < 0x20 => None,
            _ => continue,
        };
        out.push_str(text.get(plain..at).unwrap_or_default());
        match escape {
            Some(escape) => out.push_str(escape),
            None => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
        }
        plain = at + c.len_utf8();
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_serde_does_it() {
        for text in ["", "a\"b\\c", "\n\r\t\u{1}\u{1f}é\u{2028}💥", "plain"] {
            let mut quoted = String::new();
            quote(text, &mut quoted);
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
    }

    #[test]
    fn what_nobody_took_is_listed_with_its_path() {
        let mut object = Object::read("messages[0]", r#"{"a":1,"x":2,"y":null,"z z":3,"k":4}"#).unwrap();
        assert_eq!(object.take("a"), Some("1"));
        let mut dropped = Vec::new();
        object.rest(&[("k", "seed", Weight::Hint)], &mut dropped);
        let paths: Vec<_> = dropped.iter().map(|d| (d.path.as_str(), d.what)).collect();
        assert_eq!(
            paths,
            [("messages[0].x", "unknown_key"), ("messages[0].?", "unknown_key"), ("messages[0].k", "seed")]
        );
    }
}
