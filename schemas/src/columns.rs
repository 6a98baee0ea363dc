//! The typed columns of `records.parquet`: one table, from a path in the leaf to a column.
//!
//! A column's cell is the leaf's value at the column's path where that value has the column's JSON type, else it is
//! null. The rule is total: it also holds for kinds that a reader does not know. Nothing is ever answered from a
//! typed column that was not compared with its leaf (AU-3).

use std::sync::LazyLock;

use serde_json::Value;

/// What a typed column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A JSON string.
    Utf8,
    /// A JSON integer.
    Int64,
    /// A JSON boolean.
    Bool,
    /// A JSON string that holds a decimal of at most 26 integer and 12 fraction digits: DECIMAL(38,12).
    Decimal,
    /// A JSON integer: microseconds since 1970-01-01 UTC.
    TimestampUs,
}

/// One typed column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name in the file.
    pub name: &'static str,
    /// The keys that lead to its value in the leaf; digits index a list.
    pub path: &'static [&'static str],
    /// What it holds.
    pub kind: ColumnKind,
}

const fn column(name: &'static str, kind: ColumnKind, path: &'static [&'static str]) -> Column {
    Column { name, path, kind }
}

use ColumnKind::{Bool, Decimal, Int64, TimestampUs, Utf8};

/// The typed columns of version 1, in the file's order (after `position`, `leaf`, `leaf_hash`).
pub const COLUMNS: &[Column] = &[
    column("kind", Utf8, &["kind"]),
    column("at", TimestampUs, &["at"]),
    column("config", Utf8, &["config"]),
    column("exchange", Utf8, &["exchange"]),
    column("intent_position", Int64, &["intent_position"]),
    column("consumer", Utf8, &["caller", "consumer", "value"]),
    column("consumer_source", Utf8, &["caller", "consumer", "source"]),
    column("team", Utf8, &["caller", "team", "value"]),
    column("organisation", Utf8, &["caller", "organisation", "value"]),
    column("cost_centre", Utf8, &["caller", "cost_centre", "value"]),
    column("system", Utf8, &["caller", "system", "value"]),
    column("purpose", Utf8, &["caller", "purpose", "value"]),
    column("data_class", Utf8, &["caller", "data_class", "value"]),
    column("subject", Utf8, &["caller", "subject", "value"]),
    column("key", Utf8, &["caller", "key"]),
    column("route", Utf8, &["asked", "route"]),
    column("provider", Utf8, &["asked", "provider"]),
    column("target", Utf8, &["asked", "target"]),
    column("dialect", Utf8, &["asked", "dialect"]),
    column("operation", Utf8, &["asked", "operation"]),
    column("method", Utf8, &["asked", "method"]),
    column("requested_model", Utf8, &["asked", "requested_model"]),
    column("sent_model", Utf8, &["asked", "sent_model"]),
    column("served_number", Int64, &["served", "number"]),
    column("served_target", Utf8, &["served", "target"]),
    column("served_provider", Utf8, &["served", "provider"]),
    column("served_dialect", Utf8, &["served", "dialect"]),
    column("served_sent_model", Utf8, &["served", "model"]),
    column("attempt_number", Int64, &["number"]),
    column("phase", Utf8, &["phase"]),
    column("attempt_target", Utf8, &["target"]),
    column("attempt_provider", Utf8, &["provider"]),
    column("attempt_dialect", Utf8, &["dialect"]),
    column("attempt_model", Utf8, &["model"]),
    column("served_model", Utf8, &["answered", "served_model"]),
    column("stream", Bool, &["asked", "stream"]),
    column("end", Utf8, &["end"]),
    column("provider_end", Utf8, &["provider_end"]),
    column("status", Int64, &["status"]),
    column("provider_status", Int64, &["provider_status"]),
    column("reason", Utf8, &["reason"]),
    column("decision", Utf8, &["verdict", "decision"]),
    column("translated_from", Utf8, &["translation", "from"]),
    column("translated_to", Utf8, &["translation", "to"]),
    column("dropped", Int64, &["translation", "dropped", "count"]),
    column("dropped_meaning", Int64, &["translation", "dropped", "meaning"]),
    column("answer_dropped", Int64, &["answer_dropped", "count"]),
    column("delivered", Int64, &["delivered"]),
    column("released", Int64, &["released"]),
    column("response_id", Utf8, &["answered", "response_id"]),
    column("request_id", Utf8, &["answered", "request_id"]),
    column("finish_reason", Utf8, &["answered", "finish_reasons", "0"]),
    column("tool_calls", Int64, &["answered", "tool_calls"]),
    column("error_type", Utf8, &["answered", "error_type"]),
    column("usage_source", Utf8, &["usage", "source"]),
    column("usage_role", Utf8, &["usage", "role"]),
    column("input_tokens", Int64, &["usage", "input_tokens"]),
    column("uncached_input_tokens", Int64, &["usage", "uncached_input_tokens"]),
    column("cache_read_tokens", Int64, &["usage", "cache_read_tokens"]),
    column("cache_write_5m_tokens", Int64, &["usage", "cache_write_5m_tokens"]),
    column("cache_write_1h_tokens", Int64, &["usage", "cache_write_1h_tokens"]),
    column("output_tokens", Int64, &["usage", "output_tokens"]),
    column("reasoning_tokens", Int64, &["usage", "reasoning_tokens"]),
    column("input_audio_tokens", Int64, &["usage", "input_audio_tokens"]),
    column("output_audio_tokens", Int64, &["usage", "output_audio_tokens"]),
    column("input_image_tokens", Int64, &["usage", "input_image_tokens"]),
    column("output_image_tokens", Int64, &["usage", "output_image_tokens"]),
    column("tool_use_input_tokens", Int64, &["usage", "tool_use_input_tokens"]),
    column("search_units", Int64, &["usage", "search_units"]),
    column("web_searches", Int64, &["usage", "web_searches"]),
    column("pages", Int64, &["usage", "pages"]),
    column("audio_seconds", Int64, &["usage", "audio_seconds"]),
    column("cost", Decimal, &["cost", "total"]),
    column("currency", Utf8, &["cost", "currency"]),
    column("price_book", Utf8, &["cost", "price_book"]),
    column("unpriced", Utf8, &["unpriced"]),
    column("commit_us", Int64, &["timing", "commit_us"]),
    column("provider_head_us", Int64, &["timing", "provider_head_us"]),
    column("first_byte_us", Int64, &["timing", "first_byte_us"]),
    column("first_token_us", Int64, &["timing", "first_token_us"]),
    column("total_us", Int64, &["timing", "total_us"]),
    column("count", Int64, &["count"]),
    column("retention", Utf8, &["retention"]),
    column("content_key", Utf8, &["content_key"]),
];

/// How many typed columns there are.
pub const COUNT: usize = COLUMNS.len();

/// The value of one column in one leaf.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Cell<'a> {
    /// The leaf says nothing.
    #[default]
    Null,
    /// Of a [`ColumnKind::Utf8`] column.
    Text(&'a str),
    /// Of an [`ColumnKind::Int64`] or [`ColumnKind::TimestampUs`] column.
    Int(i64),
    /// Of a [`ColumnKind::Bool`] column.
    Bool(bool),
    /// Of a [`ColumnKind::Decimal`] column: units of 10^-12.
    Decimal(i128),
}

/// The cells of one leaf, in the order of [`COLUMNS`].
pub type Cells<'a> = [Cell<'a>; COUNT];

/// Parses a decimal of at most 26 integer and 12 fraction digits into units of 10^-12.
///
/// The form is `-?(0|[1-9][0-9]*)(\.[0-9]+)?`; anything else is `None`.
pub fn parse_decimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (digits, ""),
    };
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || whole.len() > 26 || fraction.len() > 12 {
        return None;
    }
    let mut units: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        units = units * 10 + i128::from(byte - b'0');
    }
    for _ in fraction.len()..12 {
        units *= 10;
    }
    Some(if negative { -units } else { units })
}

/// The leaf's keys that lead to a column, as a tree.
#[derive(Debug, Default)]
pub(crate) struct Node {
    column: Option<usize>,
    children: Vec<(&'static str, Node)>,
}

impl Node {
    fn child(&self, key: &str) -> Option<&Node> {
        self.children.binary_search_by(|(name, _)| (*name).cmp(key)).ok().map(|i| &self.children[i].1)
    }
    fn insert(&mut self, path: &[&'static str], column: usize) {
        let Some((first, rest)) = path.split_first() else {
            self.column = Some(column);
            return;
        };
        let at = match self.children.binary_search_by(|(name, _)| (*name).cmp(first)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (first, Node::default()));
                at
            }
        };
        self.children[at].1.insert(rest, column);
    }
}

pub(crate) static TREE: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::default();
    for (i, column) in COLUMNS.iter().enumerate() {
        root.insert(column.path, i);
    }
    root
});

fn cell(kind: ColumnKind, value: &Value) -> Cell<'_> {
    match (kind, value) {
        (Utf8, Value::String(text)) => Cell::Text(text),
        (Int64 | TimestampUs, Value::Number(number)) => number.as_i64().map_or(Cell::Null, Cell::Int),
        (Bool, Value::Bool(value)) => Cell::Bool(*value),
        (Decimal, Value::String(text)) => parse_decimal(text).map_or(Cell::Null, Cell::Decimal),
        _ => Cell::Null,
    }
}

fn walk<'a>(node: &Node, value: &'a Value, cells: &mut Cells<'a>) {
    if let Some(i) = node.column {
        cells[i] = cell(COLUMNS[i].kind, value);
    }
    if node.children.is_empty() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                // Digits index lists; the table has no object key of digits.
                if !key.starts_with(|c: char| c.is_ascii_digit())
                    && let Some(child) = node.child(key)
                {
                    walk(child, value, cells);
                }
            }
        }
        Value::Array(list) => {
            for (key, child) in &node.children {
                if let Some(value) = key.parse::<usize>().ok().and_then(|i| list.get(i)) {
                    walk(child, value, cells);
                }
            }
        }
        _ => {}
    }
}

/// The cells of a leaf.
pub fn cells(leaf: &Value) -> Cells<'_> {
    let mut cells = [Cell::Null; COUNT];
    walk(&TREE, leaf, &mut cells);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named<'a>(cells: &Cells<'a>, name: &str) -> Cell<'a> {
        cells[COLUMNS.iter().position(|c| c.name == name).unwrap()]
    }

    #[test]
    fn names_and_paths_are_unique() {
        let mut names: Vec<_> = COLUMNS.iter().map(|c| c.name).collect();
        let mut paths: Vec<_> = COLUMNS.iter().map(|c| c.path).collect();
        names.sort_unstable();
        paths.sort_unstable();
        names.dedup();
        paths.dedup();
        assert_eq!((names.len(), paths.len()), (COUNT, COUNT));
    }

    #[test]
    fn decimals_keep_every_digit_and_refuse_what_is_no_decimal() {
        for (text, units) in [
            ("0", Some(0)),
            ("1", Some(1_000_000_000_000)),
            ("-1.5", Some(-1_500_000_000_000)),
            ("0.000000000001", Some(1)),
            (
                "99999999999999999999999999.999999999999",
                Some(99_999_999_999_999_999_999_999_999_999_999_999_999),
            ),
            ("0.0000000000001", None),
            ("100000000000000000000000000", None),
            ("", None),
            ("-", None),
            (".5", None),
            ("5.", None),
            ("1e3", None),
            ("+1", None),
            ("1.-5", None),
            ("--1", None),
            ("01", None),
        ] {
            assert_eq!(parse_decimal(text), units, "{text}");
        }
    }

    #[test]
    fn each_path_leads_to_its_own_column_and_nowhere_else() {
        for (i, column) in COLUMNS.iter().enumerate() {
            let (value, wanted) = match column.kind {
                Utf8 => (json!("x"), Cell::Text("x")),
                Int64 | TimestampUs => (json!(7), Cell::Int(7)),
                Bool => (json!(true), Cell::Bool(true)),
                Decimal => (json!("0.5"), Cell::Decimal(500_000_000_000)),
            };
            let leaf = column.path.iter().rev().fold(value, |inner, key| match key.parse::<usize>() {
                Ok(_) => json!([inner]),
                Err(_) => json!({ *key: inner }),
            });
            let cells = cells(&leaf);
            for (j, cell) in cells.iter().enumerate() {
                assert_eq!(
                    *cell,
                    if i == j { wanted } else { Cell::Null },
                    "{} in {}",
                    COLUMNS[j].name,
                    column.name
                );
            }
        }
    }

    #[test]
    fn a_value_of_another_json_type_is_null() {
        let leaf =
            json!({"kind": 5, "at": "now", "asked": {"stream": 1}, "cost": {"total": 3}, "caller": []});
        assert!(cells(&leaf).iter().all(|cell| *cell == Cell::Null));
        let leaf = json!({"answered": {"finish_reasons": {"0": "stop"}}});
        assert_eq!(named(&cells(&leaf), "finish_reason"), Cell::Null);
    }
}
