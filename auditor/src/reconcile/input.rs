//! Files of providers: JSON documents and CSV tables, plain or gzip'd, read with bounds. A value that is not as it must
//! be is refused with its line, key and the wanted form; nothing that a file holds makes the reader panic.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use policies::document::{Place, Problem};
use schemas::Sha256Hex;
use serde_json::Value;

use crate::decimal::{Decimal, SCALE};
use crate::time::{self, SECOND};

/// The longest file, unpacked.
const MOST_BYTES: u64 = 2 << 30;

/// A problem, boxed: results stay small.
pub type Refused = Box<Problem>;

/// A file that was read.
#[derive(Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file as it is.
    pub sha256: Sha256Hex,
    bytes: Vec<u8>,
}

impl Input {
    /// Reads a file; one that begins like gzip is unpacked.
    ///
    /// # Errors
    /// A file that cannot be read, or is too long.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).with_context(|| format!("`{name}`"))?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("`{name}`"))?;
        Self::of(name, bytes)
    }

    /// Of bytes.
    ///
    /// # Errors
    /// Damaged gzip, or too many bytes.
    pub fn of(name: String, bytes: Vec<u8>) -> anyhow::Result<Self> {
        let sha256 = Sha256Hex::of(&bytes);
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut out = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .take(MOST_BYTES + 1)
                .read_to_end(&mut out)
                .with_context(|| format!("`{name}` begins like gzip"))?;
            out
        } else {
            bytes
        };
        if bytes.len() as u64 > MOST_BYTES {
            bail!("`{name}` has more than {MOST_BYTES} bytes: give it in parts, one run each");
        }
        Ok(Self { name, sha256, bytes })
    }

    /// Goes through its JSON documents: one, several, one a line, or the elements of one list.
    ///
    /// # Errors
    /// Text that is no JSON, or as `see`.
    pub fn documents(&self, mut see: impl FnMut(At<'_>) -> Result<(), Refused>) -> Result<(), Refused> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes);
        let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        let (mut line, mut counted) = (1, 0);
        loop {
            let begin = documents.byte_offset();
            let begin = begin + bytes[begin..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            line += bytes[counted..begin].iter().filter(|byte| **byte == b'\n').count() as u64;
            counted = begin;
            match documents.next() {
                None => return Ok(()),
                Some(Ok(Value::Array(list))) => {
                    for (index, value) in list.iter().enumerate() {
                        see(At { value, path: format!("[{index}]"), line })?;
                    }
                }
                Some(Ok(value)) => see(At { value: &value, path: String::new(), line })?,
                Some(Err(error)) => {
                    // Its line is counted from the start of all documents.
                    let place = Place { line: error.line() as u64, column: error.column() as u64 };
                    let wanted = format!("JSON ({error})");
                    return Err(Problem::at(place, "", wanted).into());
                }
            }
        }
    }

    /// Reads a CSV table with the named columns: each may have several names, of which one must be there.
    ///
    /// # Errors
    /// A missing column, a line of another length, or as `see`.
    pub fn table<const N: usize>(
        &self,
        columns: [&[&str]; N],
        optional: &[&str],
        mut see: impl FnMut(&Row<'_, N>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes);
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header = reader
            .headers()
            .map_err(|_| Problem::general("", "a first line of UTF-8 text that names the columns"))?
            .clone();
        let mut found = [None; N];
        for (index, names) in columns.iter().enumerate() {
            found[index] = header.iter().position(|column| names.contains(&column.trim()));
            if found[index].is_none() && !names.iter().any(|name| optional.contains(name)) {
                let place = Place { line: 1, column: 1 };
                let wanted = format!("this column in the header (or {})", names.join(", "));
                return Err(Problem::at(place, names.first().copied().unwrap_or_default(), wanted).into());
            }
        }
        for record in reader.records() {
            let record = record.map_err(|error| {
                let place = Place { line: error.position().map_or(0, csv::Position::line), column: 1 };
                Problem::at(place, "", "a CSV line of UTF-8 text")
            })?;
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != header.len() {
                let wanted = format!("{} cells, as the header has; found {}", header.len(), record.len());
                return Err(Problem::at(Place { line, column: 1 }, "", wanted).into());
            }
            see(&Row { record: &record, found: &found, names: &columns, line })?;
        }
        Ok(())
    }
}

/// A row of a table.
#[derive(Debug)]
pub struct Row<'a, const N: usize> {
    record: &'a csv::StringRecord,
    found: &'a [Option<usize>; N],
    names: &'a [&'a [&'a str]; N],
    line: u64,
}

impl<const N: usize> Row<'_, N> {
    /// The text of a column; empty where it is not there.
    pub fn text(&self, column: usize) -> &str {
        let index = self.found.get(column).copied().flatten();
        index.and_then(|index| self.record.get(index)).unwrap_or_default().trim()
    }

    /// What is wrong with a column.
    pub fn refuse(&self, column: usize, wanted: &str) -> Refused {
        let name = self.names.get(column).and_then(|names| names.first()).copied().unwrap_or_default();
        Problem::at(Place { line: self.line, column: 1 }, name, wanted).value(self.text(column)).into()
    }

    /// A time.
    ///
    /// # Errors
    /// Another form.
    pub fn time(&self, column: usize) -> Result<i64, Refused> {
        instant(self.text(column)).ok_or_else(|| self.refuse(column, TIME))
    }

    /// A number.
    ///
    /// # Errors
    /// Another form.
    pub fn number(&self, column: usize) -> Result<Decimal, Refused> {
        decimal(self.text(column)).ok_or_else(|| self.refuse(column, "a decimal number"))
    }
}

const TIME: &str = "a time as `2026-11-20T10:15:00Z`";

/// A value in a document, and where it is.
#[derive(Debug)]
pub struct At<'a> {
    value: &'a Value,
    path: String,
    /// The line on which its document begins.
    pub line: u64,
}

impl<'a> At<'a> {
    /// What is wrong with it.
    pub fn refuse(&self, wanted: impl Into<String>) -> Refused {
        let problem = Problem::at(Place { line: self.line, column: 1 }, self.path.clone(), wanted);
        match self.value {
            Value::Object(_) => problem.value("an object"),
            Value::Array(_) => problem.value("a list"),
            Value::String(text) => problem.value(text.as_str()),
            value => problem.value(value.to_string()),
        }
        .into()
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { value, path, line: self.line }
    }

    /// A key's value; `None` where it is not there or null.
    pub fn get(&self, key: &str) -> Option<Self> {
        self.value.get(key).filter(|value| !value.is_null()).map(|value| self.child(key, value))
    }

    /// A key's value.
    ///
    /// # Errors
    /// It is not there.
    pub fn need(&self, key: &str) -> Result<Self, Refused> {
        self.get(key).ok_or_else(|| {
            let path = self.child(key, self.value).path;
            Problem::at(Place { line: self.line, column: 1 }, path, "this key").into()
        })
    }

    /// The elements of a list.
    ///
    /// # Errors
    /// Something else.
    pub fn list(&self) -> Result<Vec<Self>, Refused> {
        let list = self.value.as_array().ok_or_else(|| self.refuse("a list"))?;
        let at = |(index, value)| Self { value, path: format!("{}[{index}]", self.path), line: self.line };
        Ok(list.iter().enumerate().map(at).collect())
    }

    /// Text.
    ///
    /// # Errors
    /// Something else.
    pub fn text(&self) -> Result<&'a str, Refused> {
        self.value.as_str().ok_or_else(|| self.refuse("text"))
    }

    /// Text, or a number as its digits.
    ///
    /// # Errors
    /// Something else.
    pub fn id(&self) -> Result<String, Refused> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(self.refuse("an id: text or a number")),
        }
    }

    /// A count: a whole number that is not negative, or its digits as text.
    ///
    /// # Errors
    /// Something else.
    pub fn count(&self) -> Result<u64, Refused> {
        let number = match self.value {
            Value::Number(number) => number.as_u64().or_else(|| {
                let value = number.as_f64().filter(|value| value.fract() == 0.0)?;
                (0.0..9e15).contains(&value).then_some(value as u64)
            }),
            Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.refuse("a whole number that is not negative"))
    }

    /// The value itself; text is read as JSON, as logs nest it.
    ///
    /// # Errors
    /// Text that is no JSON.
    pub fn parsed(&self) -> Result<Value, Refused> {
        match self.value {
            Value::String(text) => {
                serde_json::from_str(text).map_err(|_| self.refuse("JSON, or JSON as text"))
            }
            value => Ok(value.clone()),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(&self) -> Result<bool, Refused> {
        self.value.as_bool().ok_or_else(|| self.refuse("`true` or `false`"))
    }

    /// A decimal number, or its text.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&self) -> Result<Decimal, Refused> {
        let number = match self.value {
            Value::Number(number) => decimal(&number.to_string()),
            Value::String(text) => decimal(text),
            _ => None,
        };
        number.ok_or_else(|| self.refuse("a decimal number"))
    }

    /// A time as RFC 3339 says, microseconds UTC.
    ///
    /// # Errors
    /// Something else.
    pub fn time(&self) -> Result<i64, Refused> {
        self.value.as_str().and_then(instant).ok_or_else(|| self.refuse(TIME))
    }

    /// A time in whole seconds since 1970-01-01, microseconds UTC.
    ///
    /// # Errors
    /// Something else.
    pub fn seconds(&self) -> Result<i64, Refused> {
        let seconds = self.value.as_i64().filter(|seconds| (0..=253_402_300_799).contains(seconds));
        let seconds = seconds.ok_or_else(|| self.refuse("seconds since 1970-01-01, as 1795132800"))?;
        Ok(seconds * SECOND)
    }
}

/// RFC 3339; also with a blank for the `T` and without a zone (UTC), as AWS and BigQuery write it.
pub fn instant(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_microsecond());
    }
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond());
    }
    time::parse(text).ok()
}

/// A decimal number, with an exponent or without, rounded half to even to 12 fraction digits.
pub fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if whole.is_empty() || all.len() > 60 || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let all = all.trim_start_matches('0');
    if all.is_empty() {
        return Some(Decimal(0));
    }
    // Units of 10^-12: the digits, shifted.
    let shift = i64::from(SCALE) + i64::from(exponent) - fraction.len() as i64;
    let units: i128 = if shift >= 0 {
        let shift = u32::try_from(shift).ok().filter(|shift| *shift <= 38)?;
        let value: i128 = all.parse().ok()?;
        value.checked_mul(10_i128.checked_pow(shift)?)?
    } else {
        let cut = usize::try_from(-shift).ok()?;
        let Some(keep) = all.len().checked_sub(cut) else { return Some(Decimal(0)) };
        let (kept, rest) = all.split_at_checked(keep)?;
        let value: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
        let half = format!("5{}", "0".repeat(cut - 1));
        let up = match rest.cmp(half.as_str()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => value % 2 == 1,
        };
        value.checked_add(i128::from(up))?
    };
    (units < 10_i128.pow(38)).then_some(Decimal(if negative { -units } else { units }))
}
