//! Reads receipts as callers keep them: one a line, JSON lines, or the heads of answers.

use schemas::ExchangeId;
use schemas::promise::{PREFIX, Promise, PromiseError};
use serde_json::Value;

/// The largest file of receipts.
pub const LIMIT: u64 = 256 << 20;

/// The most receipts of one file.
pub const MOST: usize = 1_000_000;

/// The longest line that is read as JSON.
const LONGEST_JSON: usize = 1 << 20;

/// What the names of the headers begin with.
const HEADER: &str = "x-affidavit-receipt";

/// The header that names the exchange of an answer.
const EXCHANGE: &str = "x-affidavit-exchange";

/// A file that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST} receipts, at line {line}: wanted fewer in one file")]
pub struct TooMany {
    /// The line of the first that is too many.
    pub line: usize,
}

/// Why something is no receipt. Small whatever the file holds: there may be one for each of [`MOST`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Not of the form of a promise.
    #[error(transparent)]
    Promise(#[from] PromiseError),
    /// A JSON object without receipts.
    #[error("a JSON object without `receipt`: a text, a list of texts, or an object of texts")]
    Json,
    /// The exchange that it was kept for is none.
    #[error("the exchange that it was kept for is none: wanted a lower-case hyphenated UUID")]
    Exchange,
    /// A head that is of several answers.
    #[error(
        "its head names several exchanges in `x-affidavit-exchange`: wanted an empty line between two heads"
    )]
    Exchanges,
}

/// A receipt as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The line of the file, from 1.
    pub line: usize,
    /// The exchange that it was kept for, where the file says it.
    pub exchange: Option<ExchangeId>,
    /// The promise, or why it is none.
    pub promise: Result<Promise, Wrong>,
}

/// Every receipt of a file. A line is a receipt, a JSON object with `receipt` (a text, or several, or headers by name) and
/// perhaps `exchange`, or a line of an answer's head, of which those count whose name begins with `x-affidavit-receipt`; they
/// are kept for the exchange that `x-affidavit-exchange` of the same head names. Anything else is a receipt that cannot be
/// read: none is passed over.
///
/// # Errors
/// More than [`MOST`]: a small file of empty entries would take all memory otherwise.
pub fn read(text: &str) -> Result<Vec<Kept>, TooMany> {
    let mut all = All::default();
    for (number, line) in text.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        match Line::of(line) {
            Line::Nothing => all.head_ends(),
            Line::Header { name, value } => all.header(number, name, value)?,
            Line::Receipt => {
                all.head_ends();
                all.push(kept(number, None, line))?;
                all.head_ends();
            }
            Line::Json => {
                all.head_ends();
                all.json(number, line)?;
                all.head_ends();
            }
        }
    }
    all.head_ends();
    Ok(all.found)
}

fn kept(line: usize, exchange: Option<ExchangeId>, text: &str) -> Kept {
    Kept { line, exchange, promise: text.parse::<Promise>().map_err(Wrong::from) }
}

/// What was found so far.
#[derive(Default)]
struct All {
    found: Vec<Kept>,
    /// How many of them stand before the head that is being read.
    before_head: usize,
    /// What that head says of its exchange: behind its receipts perhaps.
    exchange: Option<Result<ExchangeId, Wrong>>,
}

impl All {
    fn push(&mut self, kept: Kept) -> Result<(), TooMany> {
        if self.found.len() >= MOST {
            return Err(TooMany { line: kept.line });
        }
        self.found.push(kept);
        Ok(())
    }

    fn header(&mut self, line: usize, name: &str, value: &str) -> Result<(), TooMany> {
        let name = name.to_ascii_lowercase();
        if name == EXCHANGE {
            let told = ExchangeId::new(value.trim()).map_err(|_| Wrong::Exchange);
            self.exchange = Some(match self.exchange.take() {
                Some(before) if before != told => Err(Wrong::Exchanges),
                _ => told,
            });
        } else if name.starts_with(HEADER) {
            // A client may join several of one name.
            for text in value.split(',') {
                self.push(kept(line, None, text.trim()))?;
            }
        }
        Ok(())
    }

    /// What the head's receipts were kept for is known now.
    fn head_ends(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            for kept in self.found.iter_mut().skip(self.before_head) {
                match &exchange {
                    Ok(exchange) => kept.exchange = Some(exchange.clone()),
                    Err(wrong) => kept.promise = Err(wrong.clone()),
                }
            }
        }
        self.before_head = self.found.len();
    }

    fn json(&mut self, line: usize, text: &str) -> Result<(), TooMany> {
        let wrong = |wrong: Wrong| Kept { line, exchange: None, promise: Err(wrong) };
        let object = Some(text).filter(|text| text.len() <= LONGEST_JSON).and_then(json);
        let Some((exchange, texts)) = object else { return self.push(wrong(Wrong::Json)) };
        let exchange = exchange.as_deref().map(ExchangeId::new).transpose();
        for text in texts {
            self.push(match &exchange {
                Ok(exchange) => kept(line, exchange.clone(), &text),
                Err(_) => wrong(Wrong::Exchange),
            })?;
        }
        Ok(())
    }
}

/// What a line is.
enum Line<'a> {
    Nothing,
    Receipt,
    Header { name: &'a str, value: &'a str },
    Json,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        if line.is_empty() || line.starts_with("HTTP/") {
            return Self::Nothing;
        }
        if line.starts_with('{') {
            return Self::Json;
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match line.split_once(':').filter(|(name, _)| is_name(name)) {
            // A receipt has no space behind its first colon; a header's line has one.
            Some((name, value)) if value.starts_with(' ') && !PREFIX.starts_with(name) => {
                Self::Header { name, value }
            }
            _ => Self::Receipt,
        }
    }
}

fn json(line: &str) -> Option<(Option<String>, Vec<String>)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = match value.get("receipt")? {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>()?,
        Value::Object(map) => map.values().map(text).collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    match value.get("exchange") {
        None | Some(Value::Null) => Some((None, texts)),
        Some(exchange) => Some((Some(text(exchange)?), texts)),
    }
}
