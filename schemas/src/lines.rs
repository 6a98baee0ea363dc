//! Signed texts, read line by line: one form for each value, nothing beside it.

use crate::canonical::MAX_INTEGER;

/// A line that does not have its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: wanted `{wanted}`")]
pub struct LineError {
    /// Which, from 1.
    pub line: usize,
    /// Its form.
    pub wanted: &'static str,
}

/// The lines of a text, from the first.
pub(crate) struct Lines<'a> {
    lines: std::str::Split<'a, char>,
    line: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { lines: text.split('\n'), line: 0 }
    }

    fn error(&self, wanted: &'static str) -> LineError {
        LineError { line: self.line, wanted }
    }

    pub(crate) fn next(&mut self, wanted: &'static str) -> Result<&'a str, LineError> {
        self.line += 1;
        self.lines.next().ok_or_else(|| self.error(wanted))
    }

    pub(crate) fn parsed<T>(
        &mut self,
        wanted: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, LineError> {
        let line = self.next(wanted)?;
        parse(line).ok_or_else(|| self.error(wanted))
    }

    /// A line that begins with `key` and a space.
    pub(crate) fn keyed<T>(
        &mut self,
        key: &str,
        wanted: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, LineError> {
        self.parsed(wanted, |line| line.strip_prefix(key)?.strip_prefix(' ').and_then(parse))
    }

    pub(crate) fn end(&mut self) -> Result<(), LineError> {
        let wanted = "the end";
        if self.next(wanted)?.is_empty() && self.lines.next().is_none() {
            Ok(())
        } else {
            Err(self.error(wanted))
        }
    }
}

/// A decimal number without sign or leading zeros, at most 2^53.
pub(crate) fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|n| *n <= MAX_INTEGER.unsigned_abs())
}

/// A time in microseconds or seconds UTC, not before 1970.
pub(crate) fn time(text: &str) -> Option<i64> {
    number(text).and_then(|n| i64::try_from(n).ok())
}
