//! Reads receipts as callers keep them: one a line, JSON lines, or the headers of answers.

use schemas::ExchangeId;
use schemas::promise::{PREFIX, Promise};
use serde_json::Value;

/// The largest file of receipts.
pub const LIMIT: u64 = 256 << 20;

/// The longest line that is read as JSON.
const LONGEST_JSON: usize = 1 << 20;

/// What the names of the headers begin with.
const HEADER: &str = "x-affidavit-receipt";

/// A receipt as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The line of the file, from 1.
    pub line: usize,
    /// The exchange that it was kept for, where the file says it.
    pub exchange: Option<ExchangeId>,
    /// The promise, or why it is none.
    pub promise: Result<Promise, String>,
}

/// Every receipt of a file. A line is a receipt, a JSON object with `receipt` (a text, or several, or headers by name) and
/// perhaps `exchange`, or a line of an answer's head, of which those count whose name begins with `x-affidavit-receipt`.
/// Anything else is a receipt that cannot be read: none is passed over.
pub fn read(text: &str) -> Vec<Kept> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        match Line::of(line) {
            Line::Nothing => {}
            Line::Receipts(texts) => {
                texts.iter().for_each(|text| found.push(kept(number, None, text)));
            }
            Line::Json(Some((exchange, texts))) => {
                let exchange = exchange.as_deref().map(ExchangeId::new).transpose();
                for text in texts {
                    found.push(match &exchange {
                        Ok(exchange) => kept(number, exchange.clone(), &text),
                        Err(error) => Kept { line: number, exchange: None, promise: Err(error.to_string()) },
                    });
                }
            }
            Line::Json(None) => {
                let promise =
                    Err("a JSON object without `receipt`: a text, a list of texts, or an object of texts"
                        .into());
                found.push(Kept { line: number, exchange: None, promise });
            }
        }
    }
    found
}

fn kept(line: usize, exchange: Option<ExchangeId>, text: &str) -> Kept {
    let promise = text.parse::<Promise>().map_err(|error| error.to_string());
    Kept { line, exchange, promise }
}

/// What a line is.
enum Line {
    Nothing,
    Receipts(Vec<String>),
    Json(Option<(Option<String>, Vec<String>)>),
}

impl Line {
    fn of(line: &str) -> Self {
        if line.is_empty() || line.starts_with("HTTP/") {
            return Self::Nothing;
        }
        if line.starts_with('{') {
            return Self::Json(if line.len() > LONGEST_JSON { None } else { json(line) });
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match line.split_once(':').filter(|(name, _)| is_name(name)) {
            // A receipt has no space behind its first colon; a header's line has one.
            Some((name, value)) if value.starts_with(' ') && !PREFIX.starts_with(name) => {
                if name.to_ascii_lowercase().starts_with(HEADER) {
                    // A client may join several of one name.
                    return Self::Receipts(value.split(',').map(|text| text.trim().to_owned()).collect());
                }
                Self::Nothing
            }
            _ => Self::Receipts(vec![line.to_owned()]),
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
