//! The footer of a Parquet file, parsed here so that every statement in it is seen.
//!
//! A field that the format does not write (key-value metadata, page index, bloom filter, sort claims, file paths, …)
//! is a fault by itself: other engines act on such fields, and could be led astray by them.

use super::thrift::{self, ThriftError, Value};
use crate::verify::{FaultCode, Faults};

/// Thrift values that a footer may hold: 2500 row groups of content take about a million.
const MAX_NODES: usize = 8 << 20;

/// The footer, field by field; offsets and sizes as claimed.
#[derive(Debug)]
pub(crate) struct Footer<'a> {
    pub(crate) schema: Value<'a>,
    pub(crate) rows: u64,
    pub(crate) groups: Vec<Group<'a>>,
}

/// One row group.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) rows: u64,
    pub(crate) total_bytes: i64,
    pub(crate) chunks: Vec<Chunk<'a>>,
}

/// One column chunk.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) physical: i64,
    pub(crate) encodings: Vec<i64>,
    pub(crate) path: Vec<&'a [u8]>,
    pub(crate) codec: i64,
    pub(crate) values: i64,
    pub(crate) uncompressed: u64,
    pub(crate) compressed: u64,
    pub(crate) data_offset: u64,
    pub(crate) dictionary_offset: Option<u64>,
    pub(crate) statistics: Option<Statistics<'a>>,
    /// (page type, encoding, count)
    pub(crate) encoding_stats: Vec<(i64, i64, i64)>,
    pub(crate) size: Option<Value<'a>>,
}

/// Statistics of a chunk; the deprecated fields too, since some engines read those.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Statistics<'a> {
    pub(crate) old_max: Option<&'a [u8]>,
    pub(crate) old_min: Option<&'a [u8]>,
    pub(crate) nulls: Option<i64>,
    pub(crate) distinct: Option<i64>,
    pub(crate) max: Option<&'a [u8]>,
    pub(crate) min: Option<&'a [u8]>,
}

struct Check<'f> {
    faults: &'f mut Faults,
    file: &'static str,
}

impl Check<'_> {
    /// Reports each field of `value` that is not in `known`.
    fn only(&mut self, what: &str, value: &Value<'_>, known: &[i16]) {
        let Value::Struct(fields) = value else {
            self.drift(what, "a struct", "another type");
            return;
        };
        for (id, _) in fields {
            if !known.contains(id) {
                let code = match (what, id) {
                    ("column chunk", 4..=7) | ("column metadata", 14 | 15) => FaultCode::StatsLie,
                    _ => FaultCode::SchemaDrift,
                };
                let place = format!("{} footer, {what}", self.file);
                self.faults.add(
                    code,
                    None,
                    place,
                    "no such field",
                    format!("{} (field {id})", field_name(what, *id)),
                );
            }
        }
    }
    fn drift(&mut self, what: &str, expected: &str, found: &str) {
        self.faults.add(
            FaultCode::SchemaDrift,
            None,
            format!("{} footer, {what}", self.file),
            expected,
            found,
        );
    }
    fn int(&mut self, what: &str, value: &Value<'_>, id: i16) -> i64 {
        value.int_field(id).unwrap_or_else(|| {
            self.drift(what, &format!("an integer in field {id}"), "none");
            0
        })
    }
    fn unsigned(&mut self, what: &str, value: &Value<'_>, id: i16) -> u64 {
        let found = self.int(what, value, id);
        u64::try_from(found).unwrap_or_else(|_| {
            self.drift(what, &format!("no negative number in field {id}"), &found.to_string());
            0
        })
    }
}

fn field_name(what: &str, id: i16) -> &'static str {
    match (what, id) {
        ("file", 5) | ("column metadata", 8) => "key-value metadata",
        ("file", 8 | 9) | ("column chunk", 8 | 9) => "encryption",
        ("row group", 4) => "sorting columns",
        ("column chunk", 1) => "a path to another file",
        ("column chunk", 4 | 5) => "offset index",
        ("column chunk", 6 | 7) => "column index",
        ("column metadata", 10) => "index page",
        ("column metadata", 14 | 15) => "bloom filter",
        ("column metadata", 17) => "geospatial statistics",
        _ => "unknown",
    }
}

/// Parses a footer. Faults are added; `Err` where nothing more can be said.
pub(crate) fn parse<'a>(
    bytes: &'a [u8],
    file: &'static str,
    faults: &mut Faults,
) -> Result<Footer<'a>, ThriftError> {
    let (value, used) = thrift::read_struct(bytes, MAX_NODES)?;
    let mut check = Check { faults, file };
    if used != bytes.len() {
        check.drift("file", "nothing behind the footer's struct", &format!("{} bytes", bytes.len() - used));
    }
    check.only("file", &value, &[1, 2, 3, 4, 6, 7]);
    let columns = value.field(2).map_or(0, |schema| schema.list().len().saturating_sub(1));
    let orders = value.field(7).map(Value::list).unwrap_or_default();
    let type_order = Value::Struct(vec![(1, Value::Struct(Vec::new()))]);
    if orders.len() != columns || orders.iter().any(|order| *order != type_order) {
        check.drift("column orders", "the type's own order for each column", "another");
    }
    let rows = check.unsigned("file", &value, 3);
    let mut groups = Vec::new();
    for group in value.field(4).map(Value::list).unwrap_or_default() {
        groups.push(parse_group(&mut check, group));
    }
    let schema = value.field(2).cloned().unwrap_or(Value::List(Vec::new()));
    Ok(Footer { schema, rows, groups })
}

fn parse_group<'a>(check: &mut Check<'_>, value: &Value<'a>) -> Group<'a> {
    check.only("row group", value, &[1, 2, 3, 5, 6, 7]);
    let rows = check.unsigned("row group", value, 3);
    let total_bytes = check.int("row group", value, 2);
    let chunks = value.field(1).map(Value::list).unwrap_or_default();
    Group { rows, total_bytes, chunks: chunks.iter().map(|chunk| parse_chunk(check, chunk)).collect() }
}

fn parse_chunk<'a>(check: &mut Check<'_>, chunk: &Value<'a>) -> Chunk<'a> {
    check.only("column chunk", chunk, &[2, 3]);
    let empty = Value::Struct(Vec::new());
    let value = chunk.field(3).unwrap_or(&empty);
    let what = "column metadata";
    check.only(what, value, &[1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 16]);
    let statistics = value.field(12).map(|statistics| {
        check.only("statistics", statistics, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let bytes = |id| statistics.field(id).and_then(Value::binary);
        Statistics {
            old_max: bytes(1),
            old_min: bytes(2),
            nulls: statistics.int_field(3),
            distinct: statistics.int_field(4),
            max: bytes(5),
            min: bytes(6),
        }
    });
    let ints = |id: i16| {
        value.field(id).map(Value::list).unwrap_or_default().iter().filter_map(Value::int).collect()
    };
    let encoding_stats = value.field(13).map(Value::list).unwrap_or_default().iter();
    Chunk {
        physical: check.int(what, value, 1),
        encodings: ints(2),
        path: value.field(3).map(Value::list).unwrap_or_default().iter().filter_map(Value::binary).collect(),
        codec: check.int(what, value, 4),
        values: check.int(what, value, 5),
        uncompressed: check.unsigned(what, value, 6),
        compressed: check.unsigned(what, value, 7),
        data_offset: check.unsigned(what, value, 9),
        dictionary_offset: value.field(11).map(|_| check.unsigned(what, value, 11)),
        statistics,
        encoding_stats: encoding_stats
            .map(|s| {
                (s.int_field(1).unwrap_or(-1), s.int_field(2).unwrap_or(-1), s.int_field(3).unwrap_or(-1))
            })
            .collect(),
        size: value.field(16).cloned(),
    }
}
