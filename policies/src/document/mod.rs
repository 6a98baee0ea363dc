//! YAML read into a tree that knows its places, and a reader that collects every problem instead of the first.
//!
//! Scalars keep the text that was typed, so that `0123`, `1.10` and `off` mean what they say; anchors, aliases
//! and tags are refused, for a reviewer reads the file as it stands.

use std::fmt;

use granit_parser::Span;

mod fields;
mod parse;
#[cfg(test)]
mod tests;

pub use fields::{Fields, texts};
pub use parse::parse;

/// Something in a file that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, where the reader was told.
    pub file: Option<String>,
    /// Line, from 1; 0 where the problem has no place in the file.
    pub line: u64,
    /// Column, from 1; 0 where the problem has no place in the file.
    pub column: u64,
    /// The key, as a path: `routes[0].provider`.
    pub key: String,
    /// The value found, where there is one and it is no secret.
    pub value: Option<String>,
    /// What was wanted instead.
    pub wanted: String,
    /// A known name that looks like the one found.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: Place, key: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            file: None,
            line: place.line,
            column: place.column,
            key: key.into(),
            value: None,
            wanted: wanted.into(),
            suggestion: None,
        }
    }
    /// A problem without a place.
    pub fn general(key: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::at(Place::default(), key, wanted)
    }
    /// With the value found, cut to 120 characters.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        let value: String = value.into();
        self.value = Some(if value.chars().count() > 120 {
            value.chars().take(119).chain(['…']).collect()
        } else {
            value
        });
        self
    }
    /// With a suggestion from the names known here.
    #[must_use]
    pub fn suggest<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = closest(found, known);
        self
    }
    /// With the file that it is in.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.file.is_some() || self.line > 0 {
            write!(f, " ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        match &self.value {
            Some(value) => write!(f, "found `{}`, wanted {}", value.escape_debug(), self.wanted)?,
            None => write!(f, "wanted {}", self.wanted)?,
        }
        match &self.suggestion {
            Some(name) => write!(f, " (did you mean `{name}`?)"),
            None => Ok(()),
        }
    }
}

/// The known name that is nearest to `found`, where one is near enough to be meant.
pub fn closest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// Line and column, both from 1; 0 is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Self { line: span.start.line() as u64, column: span.start.col() as u64 + 1 }
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Text, as typed.
    Scalar {
        /// The text, after YAML's own escapes.
        text: String,
        /// True where it stood without quotes: only such can be a number, a truth value or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order of the file.
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// What it is, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.shape {
            Shape::Scalar { .. } if self.is_empty() => "nothing",
            Shape::Scalar { .. } => "a value",
            Shape::List(_) => "a list",
            Shape::Map(_) => "keys with values",
        }
    }
    /// True for `key:` with nothing behind it, `~` and `null`.
    pub fn is_empty(&self) -> bool {
        matches!(&self.shape, Shape::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
    /// Its text, where it is a scalar and not empty.
    pub fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar { text, .. } if !self.is_empty() => Some(text),
            _ => None,
        }
    }
    pub(crate) fn found(&self) -> String {
        self.text().unwrap_or(self.describe()).to_owned()
    }
}
