//! A reader that accepts canonical text and nothing else.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{CanonicalError, MAX_DEPTH, MAX_INTEGER, compare_keys};
use crate::record::MAX_LEAF_BYTES;

/// What [`walk`] tells while it reads. Every method has an empty default.
pub trait Sink {
    /// An object begins.
    fn begin_object(&mut self) {}
    /// The key of the member that follows.
    fn key(&mut self, key: &str) {
        let _ = key;
    }
    /// An object ends.
    fn end_object(&mut self) {}
    /// An array begins.
    fn begin_array(&mut self) {}
    /// An array ends.
    fn end_array(&mut self) {}
    /// A string.
    fn string(&mut self, value: &str) {
        let _ = value;
    }
    /// An integer.
    fn integer(&mut self, value: i64) {
        let _ = value;
    }
    /// A boolean.
    fn boolean(&mut self, value: bool) {
        let _ = value;
    }
}

/// Reads canonical text into a value.
///
/// # Errors
/// More than 65,535 bytes, or anything that [`super::to_vec`] does not write.
pub fn parse(leaf: &[u8]) -> Result<Value, CanonicalError> {
    let mut builder = Builder::default();
    walk(leaf, &mut builder)?;
    builder.finish()
}

/// Reads canonical text and tells `sink` what it holds, without building anything.
///
/// # Errors
/// As [`parse`]. What was told before an error stands for nothing.
pub fn walk<S: Sink>(leaf: &[u8], sink: &mut S) -> Result<(), CanonicalError> {
    if leaf.len() > MAX_LEAF_BYTES {
        return Err(CanonicalError::TooLong { length: leaf.len(), limit: MAX_LEAF_BYTES });
    }
    let text =
        std::str::from_utf8(leaf).map_err(|error| CanonicalError::NotUtf8 { offset: error.valid_up_to() })?;
    let mut reader = Reader { text, at: 0, depth: 0 };
    reader.value(sink)?;
    if reader.at < leaf.len() {
        return Err(reader.unexpected("the end"));
    }
    Ok(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, wanted: &'static str) -> CanonicalError {
        match self.peek() {
            Some(b' ' | b'\t' | b'\n' | b'\r') => self.not_canonical("white space"),
            _ => CanonicalError::Syntax { offset: self.at, wanted },
        }
    }

    fn not_canonical(&self, what: &'static str) -> CanonicalError {
        CanonicalError::NotCanonical { offset: self.at, what }
    }

    fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), CanonicalError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.unexpected(wanted))
        }
    }

    fn word(&mut self, word: &str) -> Result<(), CanonicalError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.unexpected("a value"))
        }
    }

    fn enter(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(CanonicalError::TooDeep) } else { Ok(()) }
    }

    fn value<S: Sink>(&mut self, sink: &mut S) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'{') => self.object(sink),
            Some(b'[') => self.array(sink),
            Some(b'"') => {
                let text = self.string()?;
                sink.string(&text);
                Ok(())
            }
            Some(b't') => {
                self.word("true")?;
                sink.boolean(true);
                Ok(())
            }
            Some(b'f') => {
                self.word("false")?;
                sink.boolean(false);
                Ok(())
            }
            Some(b'n') => {
                self.word("null")?;
                Err(CanonicalError::Null)
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = self.integer()?;
                sink.integer(number);
                Ok(())
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn object<S: Sink>(&mut self, sink: &mut S) -> Result<(), CanonicalError> {
        self.enter()?;
        sink.begin_object();
        let mut last: Option<Cow<'a, str>> = None;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a key"));
                }
                let key = self.string()?;
                if let Some(last) = &last {
                    match compare_keys(last.as_bytes(), key.as_bytes()) {
                        Ordering::Less => {}
                        Ordering::Equal => {
                            return Err(CanonicalError::DuplicateKey { key: key.into_owned() });
                        }
                        Ordering::Greater => return Err(CanonicalError::KeyOrder { key: key.into_owned() }),
                    }
                }
                self.expect(b':', "`:`")?;
                sink.key(&key);
                last = Some(key);
                self.value(sink)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.unexpected("`,` or `}`")),
                }
            }
        }
        self.depth -= 1;
        sink.end_object();
        Ok(())
    }

    fn array<S: Sink>(&mut self, sink: &mut S) -> Result<(), CanonicalError> {
        self.enter()?;
        sink.begin_array();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.value(sink)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.unexpected("`,` or `]`")),
                }
            }
        }
        self.depth -= 1;
        sink.end_array();
        Ok(())
    }

    fn integer(&mut self) -> Result<i64, CanonicalError> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let first = self.at;
        let mut magnitude: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            magnitude = magnitude.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(CanonicalError::Float);
        }
        let digits = &self.text.as_bytes()[first..self.at];
        if digits.is_empty() {
            return Err(self.unexpected("a digit"));
        }
        if digits[0] == b'0' && (digits.len() > 1 || negative) {
            self.at = start;
            return Err(self.not_canonical("a leading zero, or minus zero,"));
        }
        if magnitude > MAX_INTEGER {
            return Err(CanonicalError::BigInteger);
        }
        Ok(if negative { -magnitude } else { magnitude })
    }

    /// Reads a string from its opening quote on.
    fn string(&mut self) -> Result<Cow<'a, str>, CanonicalError> {
        self.at += 1;
        let text: &'a str = self.text;
        let bytes = text.as_bytes();
        let mut start = self.at;
        let mut owned = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let tail = &text[start..self.at];
                    self.at += 1;
                    if owned.is_empty() {
                        return Ok(Cow::Borrowed(tail));
                    }
                    owned.push_str(tail);
                    return Ok(Cow::Owned(owned));
                }
                Some(b'\\') => {
                    owned.push_str(&text[start..self.at]);
                    let (character, length) = match bytes.get(self.at + 1) {
                        Some(b'"') => ('"', 2),
                        Some(b'\\') => ('\\', 2),
                        Some(b'b') => ('\u{8}', 2),
                        Some(b't') => ('\t', 2),
                        Some(b'n') => ('\n', 2),
                        Some(b'f') => ('\u{c}', 2),
                        Some(b'r') => ('\r', 2),
                        Some(b'u') => (self.control()?, 6),
                        Some(_) => return Err(self.not_canonical("this escape")),
                        None => return Err(self.unexpected("an escape")),
                    };
                    owned.push(character);
                    self.at += length;
                    start = self.at;
                }
                Some(0..=0x1f) => return Err(self.not_canonical("an unescaped control character")),
                Some(_) => self.at += 1,
                None => return Err(self.unexpected("a closing quote")),
            }
        }
    }

    /// `\u00xx` of a control character that has no shorter escape: the only `\u` that is canonical.
    fn control(&self) -> Result<char, CanonicalError> {
        let wrong = || self.not_canonical("this escape");
        let hex = self.text.as_bytes().get(self.at + 2..self.at + 6).ok_or_else(wrong)?;
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        match (hex, nibble(hex[3])) {
            ([b'0', b'0', high @ (b'0' | b'1'), _], Some(low)) => {
                let code = (high - b'0') << 4 | low;
                if matches!(code, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d) {
                    Err(wrong())
                } else {
                    Ok(char::from(code))
                }
            }
            _ => Err(wrong()),
        }
    }
}

/// Builds a [`Value`] from what [`walk`] tells.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    done: Option<Value>,
}

enum Open {
    Object(Map<String, Value>, String),
    Array(Vec<Value>),
}

impl Builder {
    /// The value, after a walk that went well.
    fn finish(self) -> Result<Value, CanonicalError> {
        self.done.ok_or(CanonicalError::Syntax { offset: 0, wanted: "a value" })
    }
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some(Open::Object(map, key)) => {
                map.insert(std::mem::take(key), value);
            }
            Some(Open::Array(items)) => items.push(value),
            None => self.done = Some(value),
        }
    }
    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Object(map, _)) => self.put(Value::Object(map)),
            Some(Open::Array(items)) => self.put(Value::Array(items)),
            None => {}
        }
    }
}

impl Sink for Builder {
    fn begin_object(&mut self) {
        self.open.push(Open::Object(Map::new(), String::new()));
    }
    fn key(&mut self, key: &str) {
        if let Some(Open::Object(_, slot)) = self.open.last_mut() {
            *slot = key.to_owned();
        }
    }
    fn end_object(&mut self) {
        self.close();
    }
    fn begin_array(&mut self) {
        self.open.push(Open::Array(Vec::new()));
    }
    fn end_array(&mut self) {
        self.close();
    }
    fn string(&mut self, value: &str) {
        self.put(Value::String(value.to_owned()));
    }
    fn integer(&mut self, value: i64) {
        self.put(Value::from(value));
    }
    fn boolean(&mut self, value: bool) {
        self.put(Value::Bool(value));
    }
}
