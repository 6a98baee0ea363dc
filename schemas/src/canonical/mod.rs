//! Restricted canonical JSON: RFC 8785 without floats and null, and with integers within 2^53 only.
//!
//! One value has one text. [`to_vec`] writes it straight into bytes; [`parse`] and [`walk`] accept nothing else,
//! so that two parsers can never read one leaf differently. Format: `FORMAT.md` 2.

mod read;
mod write;

use std::cmp::Ordering;

pub use read::{Sink, parse, walk};
pub(crate) use write::to_leaf;
pub use write::to_vec;

/// The deepest nesting of objects and arrays; the outermost counts as 1.
pub const MAX_DEPTH: u32 = 32;

/// The largest magnitude of an integer: 2^53.
pub const MAX_INTEGER: i64 = 1 << 53;

/// Why a text is not canonical, or why a value has no canonical text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Longer than a leaf may be.
    #[error("{length} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Where.
        offset: usize,
    },
    /// Not JSON.
    #[error("byte {offset}: wanted {wanted}")]
    Syntax {
        /// Where.
        offset: usize,
        /// What may stand there.
        wanted: &'static str,
    },
    /// JSON, but not its one canonical text.
    #[error("byte {offset}: {what} is not canonical")]
    NotCanonical {
        /// Where.
        offset: usize,
        /// What stands there.
        what: &'static str,
    },
    /// A key that stands twice in one object.
    #[error("key `{key}` stands twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key that sorts before the one that it follows.
    #[error("key `{key}` is out of order")]
    KeyOrder {
        /// The key.
        key: String,
    },
    /// A number with fraction or exponent.
    #[error("a float is not allowed; write money as a decimal string, time in integer microseconds")]
    Float,
    /// `null`.
    #[error("null is not allowed; leave the key out")]
    Null,
    /// An integer beyond 2^53.
    #[error("integer beyond 2^53; write it as a string")]
    BigInteger,
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A map key that is not text, bytes, or an error of the type's own `Serialize`.
    #[error("no canonical form: {0}")]
    Type(String),
}

impl serde::ser::Error for CanonicalError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Type(message.to_string())
    }
}

/// The longest key or string in a leaf, in bytes.
pub const MAX_STRING: usize = 191;

/// Whether a leaf may hold `byte` within a key or string: `A-Z a-z 0-9 _ . : / @ + - =` (CA-8).
pub(crate) const fn is_leaf_byte(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-` `.` `/` 0-9 `:` stand side by side.
    let middle = byte.wrapping_sub(b'-') < 14;
    letter | middle | (byte == b'_') | (byte == b'@') | (byte == b'+') | (byte == b'=')
}

/// Whether `text` may be a key or string of a leaf.
pub(crate) fn is_leaf_text(text: &str) -> bool {
    // Without a branch per byte, so that it runs on vectors.
    (1..=MAX_STRING).contains(&text.len()) & text.bytes().fold(true, |good, byte| good & is_leaf_byte(byte))
}

/// The order of keys: by UTF-16 code units (RFC 8785 3.2.3). For ASCII that is byte order.
fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return a.cmp(b);
    }
    match (std::str::from_utf8(a), std::str::from_utf8(b)) {
        (Ok(a), Ok(b)) => a.encode_utf16().cmp(b.encode_utf16()),
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests;
