//! JSON that goes through as it stands.

use crate::json;

/// The text of one whole JSON value, kept as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// The value that `text` is; `None` where it is not one whole JSON value.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        json::check(text.as_bytes()).ok().map(|()| Self(text.to_owned()))
    }
    /// The object that `text` is; `None` for anything else.
    pub fn object(text: &str) -> Option<Self> {
        Self::new(text).filter(Self::is_object)
    }
    /// `{}`.
    pub fn empty_object() -> Self {
        Self("{}".to_owned())
    }
    /// The JSON string that holds `text`.
    pub fn string(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string())
    }
    /// An integer.
    pub fn integer(n: i64) -> Self {
        Self(n.to_string())
    }
    /// What `value` is as JSON; its keys come in their sorted order.
    pub fn of(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
    /// The value as a float, where it is a number.
    pub fn number(&self) -> Option<f64> {
        self.0.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| self.0.parse().ok()).flatten()
    }
}
