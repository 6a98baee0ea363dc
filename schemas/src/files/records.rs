//! `records.parquet`: the leaves of a batch, their hashes, and typed columns for other engines.

use bytes::Bytes;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;
use rayon::prelude::*;

use super::column::{self, Place, Stats};
use super::open::{self, Extra};
use super::pages::ZSTD;
use super::schema::RECORDS_SCHEMA;
use super::write::{self, ColumnData, Values};
use super::{FileError, Limits};
use crate::canonical;
use crate::columns::{self, COLUMNS, COUNT, Cell, ColumnKind};
use crate::leaf::{self, Decoded, LeafError};
use crate::merkle::Hash;
use crate::verify::{FaultCode, Faults};

/// A row group ends when it has this many rows or leaf bytes.
const GROUP_ROWS: usize = 16_384;
const GROUP_BYTES: usize = 16 << 20;
/// Rows that one core looks at before it is asked again.
const ROWS_A_TASK: usize = 256;

/// What a row of `records.parquet` rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRow {
    /// The record's position in its log.
    pub position: u64,
    /// The leaf, verbatim.
    pub leaf: Vec<u8>,
    /// SHA-256(0x00 || leaf).
    pub hash: Hash,
}

/// A `records.parquet` that holds together by itself: every hash and typed column is its leaf's.
///
/// That says nothing about who wrote it; `verify::verify_batch` does.
#[derive(Debug)]
pub struct RecordsFile {
    /// The rows, in the file's order.
    pub rows: Vec<LeafRow>,
    /// Columns that this version does not know: not judged.
    pub unknown_columns: Vec<String>,
}

/// Writes the records of one batch.
///
/// `rows` are in the order of their positions, without a gap. Equal rows give equal bytes.
///
/// # Errors
/// [`FileError::Row`] for a gap, a hash that is not the leaf's, or a leaf that is not canonical.
pub fn write_records(rows: &[LeafRow]) -> Result<Vec<u8>, FileError> {
    write_rows(rows, RECORDS_SCHEMA.root.clone(), |_| Vec::new())
}

/// Writes rows with columns that stand behind the known ones.
fn write_rows(
    rows: &[LeafRow],
    root: TypePtr,
    further: impl Fn(&[LeafRow]) -> Vec<ColumnData>,
) -> Result<Vec<u8>, FileError> {
    let properties = write::properties(RECORDS_SCHEMA.name);
    let mut writer = SerializedFileWriter::new(Vec::new(), root, properties)?;
    let mut begins = 0;
    while begins < rows.len() {
        let mut bytes = 0;
        let mut ends = begins;
        while ends < rows.len() && ends - begins < GROUP_ROWS && bytes < GROUP_BYTES {
            bytes += rows[ends].leaf.len();
            ends += 1;
        }
        let mut columns = group_columns(rows, begins, ends)?;
        columns.extend(further(&rows[begins..ends]));
        write::write_group(&mut writer, &columns)?;
        begins = ends;
    }
    Ok(writer.into_inner()?)
}

/// As [`write_records`], with a column of this name behind the known ones: the length of each leaf.
#[cfg(debug_assertions)]
pub(crate) fn write_records_with(rows: &[LeafRow], column: &str) -> Result<Vec<u8>, FileError> {
    use parquet::basic::{Repetition, Type as Physical};
    use parquet::schema::types::Type;

    let column = Type::primitive_type_builder(column, Physical::INT64)
        .with_repetition(Repetition::REQUIRED)
        .build()?;
    let mut fields = RECORDS_SCHEMA.root.get_fields().to_vec();
    fields.push(column.into());
    let root = Type::group_type_builder(RECORDS_SCHEMA.name).with_fields(fields).build()?;
    write_rows(rows, root.into(), |rows| {
        let lengths = rows.iter().map(|row| i64::try_from(row.leaf.len()).unwrap_or(i64::MAX)).collect();
        vec![ColumnData::required(Values::Int(lengths))]
    })
}

struct Builder {
    levels: Vec<i16>,
    values: Values,
}

impl Builder {
    fn new(kind: ColumnKind) -> Self {
        let values = match kind {
            ColumnKind::Utf8 => Values::Bytes(Vec::new()),
            ColumnKind::Int64 | ColumnKind::TimestampUs => Values::Int(Vec::new()),
            ColumnKind::Bool => Values::Bool(Vec::new()),
            ColumnKind::Decimal => Values::Fixed(Vec::new()),
        };
        Self { levels: Vec::new(), values }
    }
    fn push(&mut self, cell: Cell<'_>) {
        let present = match (&mut self.values, cell) {
            (Values::Bytes(values), Cell::Text(text)) => {
                values.push(ByteArray::from(text.as_bytes().to_vec()));
                true
            }
            (Values::Int(values), Cell::Int(value)) => {
                values.push(value);
                true
            }
            (Values::Bool(values), Cell::Bool(value)) => {
                values.push(value);
                true
            }
            (Values::Fixed(values), Cell::Decimal(value)) => {
                values.push(FixedLenByteArray::from(value.to_be_bytes().to_vec()));
                true
            }
            _ => false,
        };
        self.levels.push(i16::from(present));
    }
}

fn group_columns(rows: &[LeafRow], begins: usize, ends: usize) -> Result<Vec<ColumnData>, FileError> {
    let first = rows.first().map_or(0, |row| row.position);
    let mut positions = Vec::with_capacity(ends - begins);
    let mut leaves = Vec::with_capacity(ends - begins);
    let mut hashes = Vec::with_capacity(ends - begins);
    let mut typed: Vec<Builder> = COLUMNS.iter().map(|column| Builder::new(column.kind)).collect();
    for (i, row) in rows.iter().enumerate().take(ends).skip(begins) {
        let refuse = |what: String| FileError::Row { row: i as u64, what };
        if Some(row.position) != first.checked_add(i as u64) {
            return Err(refuse(format!("position {} does not follow", row.position)));
        }
        let position = i64::try_from(row.position).map_err(|_| refuse("position is too large".into()))?;
        if leaf::hash(&row.leaf) != row.hash {
            return Err(refuse("the hash is not the leaf's".into()));
        }
        let value = canonical::parse(&row.leaf).map_err(|error| refuse(error.to_string()))?;
        positions.push(position);
        leaves.push(ByteArray::from(row.leaf.clone()));
        hashes.push(FixedLenByteArray::from(row.hash.0.to_vec()));
        for (builder, cell) in typed.iter_mut().zip(columns::cells(&value)) {
            builder.push(cell);
        }
    }
    let mut columns = vec![
        ColumnData::required(Values::Int(positions)),
        ColumnData::required(Values::Bytes(leaves)),
        ColumnData::required(Values::Fixed(hashes)),
    ];
    columns.extend(typed.into_iter().map(|b| ColumnData { levels: Some(b.levels), values: b.values }));
    Ok(columns)
}

/// A row whose leaf was decoded and whose columns were compared.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) position: u64,
    pub(crate) leaf: ByteArray,
    /// Recomputed from the leaf.
    pub(crate) hash: Hash,
    /// `None` where a fault says why.
    pub(crate) decoded: Option<Decoded>,
}

/// Reads and checks a whole file by itself. Rows are there as far as they could be read.
pub(crate) fn inspect(
    bytes: &Bytes,
    extra: Extra,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<(Vec<Inspected>, Vec<String>)> {
    let schema = &*RECORDS_SCHEMA;
    let (footer, data_end) = open::footer_bytes(bytes, schema.name, limits, faults)?;
    let opened = open::open(&footer, data_end, schema, extra, limits, faults)?;
    let mut rows = Vec::new();
    for (g, group) in opened.groups.iter().enumerate() {
        let read = |column: usize, stats: Stats, faults: &mut Faults| {
            let chunk = &group.chunks[column];
            let begins = chunk.dictionary_offset.unwrap_or(chunk.data_offset) as usize;
            let data = bytes.slice(begins..begins + chunk.compressed as usize);
            column::read(&data, chunk, group.rows, ZSTD, stats, Place { schema, group: g, column }, faults)
        };
        let positions = read(0, Stats::Checked, faults);
        let leaves = read(1, Stats::None, faults);
        let hashes = read(2, Stats::None, faults);
        let (Some(Values::Int(positions)), Some(Values::Bytes(leaves)), Some(Values::Fixed(hashes))) =
            (positions.map(|c| c.values), leaves.map(|c| c.values), hashes.map(|c| c.values))
        else {
            return None;
        };
        let begins = rows.len();
        let given: Vec<_> = positions.into_iter().zip(leaves).zip(hashes).collect();
        let inspected: Vec<(Inspected, Faults)> = given
            .into_par_iter()
            .with_min_len(ROWS_A_TASK)
            .map(|((position, leaf), stored)| {
                let mut faults = Faults::default();
                (inspect_leaf(position, leaf, &stored, &mut faults), faults)
            })
            .collect();
        for (row, found) in inspected {
            faults.append(found);
            rows.push(row);
        }
        let rows = &rows[begins..];
        for (i, wanted) in wanted(rows).iter().enumerate() {
            if let Some(data) = read(3 + i, Stats::Checked, faults) {
                compare(COLUMNS[i].name, wanted, rows, &data, faults);
            }
        }
    }
    Some((rows, opened.extra))
}

fn inspect_leaf(
    position: i64,
    leaf: ByteArray,
    stored: &FixedLenByteArray,
    faults: &mut Faults,
) -> Inspected {
    let hash = leaf::hash(leaf.data());
    let at = u64::try_from(position).unwrap_or_else(|_| {
        faults.add(FaultCode::ForeignRecord, None, "position", "no negative number", position);
        u64::MAX
    });
    if stored.data() != hash.0 {
        faults.add(FaultCode::LeafMismatch, Some(at), "leaf_hash", hash, hex::encode(stored.data()));
    }
    let decoded = match leaf::decode(leaf.data()) {
        Ok(decoded) => Some(decoded),
        Err(error) => {
            let code = match error {
                LeafError::Canonical(_) => FaultCode::NonCanonicalLeaf,
                _ => FaultCode::LeafInvalid,
            };
            faults.add(code, Some(at), "leaf", "a leaf of version 1", error);
            None
        }
    };
    Inspected { position: at, leaf, hash, decoded }
}

/// The cells of one column that the leaves of a row group give.
struct Wanted<'a> {
    levels: Vec<i16>,
    values: WantedValues<'a>,
}

enum WantedValues<'a> {
    Text(Vec<&'a str>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Decimal(Vec<i128>),
}

impl<'a> Wanted<'a> {
    fn new(kind: ColumnKind, rows: usize) -> Self {
        let values = match kind {
            ColumnKind::Utf8 => WantedValues::Text(Vec::new()),
            ColumnKind::Int64 | ColumnKind::TimestampUs => WantedValues::Int(Vec::new()),
            ColumnKind::Bool => WantedValues::Bool(Vec::new()),
            ColumnKind::Decimal => WantedValues::Decimal(Vec::new()),
        };
        Self { levels: Vec::with_capacity(rows), values }
    }
    fn push(&mut self, cell: Cell<'a>) {
        match (&mut self.values, cell) {
            (WantedValues::Text(values), Cell::Text(value)) => values.push(value),
            (WantedValues::Int(values), Cell::Int(value)) => values.push(value),
            (WantedValues::Bool(values), Cell::Bool(value)) => values.push(value),
            (WantedValues::Decimal(values), Cell::Decimal(value)) => values.push(value),
            _ => {
                self.levels.push(0);
                return;
            }
        }
        self.levels.push(1);
    }
    fn same(&self, data: &ColumnData) -> bool {
        data.levels.as_ref() == Some(&self.levels)
            && match (&self.values, &data.values) {
                (WantedValues::Text(wanted), Values::Bytes(found)) => {
                    wanted.len() == found.len()
                        && wanted.iter().zip(found).all(|(w, f)| w.as_bytes() == f.data())
                }
                (WantedValues::Int(wanted), Values::Int(found)) => wanted == found,
                (WantedValues::Bool(wanted), Values::Bool(found)) => wanted == found,
                (WantedValues::Decimal(wanted), Values::Fixed(found)) => {
                    wanted.len() == found.len()
                        && wanted.iter().zip(found).all(|(w, f)| *w == column::decimal(f.data()))
                }
                _ => false,
            }
    }
    fn show(&self, at: usize) -> String {
        match &self.values {
            WantedValues::Text(values) => format!("{:?}", values[at]),
            WantedValues::Int(values) => values[at].to_string(),
            WantedValues::Bool(values) => values[at].to_string(),
            WantedValues::Decimal(values) => format!("{}e-12", values[at]),
        }
    }
}

/// What the leaves of a row group say in each typed column. A leaf that could not be decoded says nothing.
fn wanted(rows: &[Inspected]) -> Vec<Wanted<'_>> {
    let mut columns: Vec<Wanted<'_>> =
        COLUMNS.iter().map(|column| Wanted::new(column.kind, rows.len())).collect();
    for row in rows {
        let cells =
            row.decoded.as_ref().map_or([Cell::Null; COUNT], |decoded| decoded.cells(row.leaf.data()));
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    columns
}

/// Names each row in which a typed column differs from its leaf.
fn compare(name: &str, wanted: &Wanted<'_>, rows: &[Inspected], data: &ColumnData, faults: &mut Faults) {
    if wanted.same(data) {
        return;
    }
    let levels = data.levels.as_deref().unwrap_or_default();
    let (mut next_wanted, mut next_found) = (0, 0);
    for ((row, wanted_level), found_level) in rows.iter().zip(&wanted.levels).zip(levels) {
        let (w, f) = (next_wanted, next_found);
        next_wanted += usize::from(*wanted_level == 1);
        next_found += usize::from(*found_level == 1);
        if row.decoded.is_none() {
            continue;
        }
        let expected = if *wanted_level == 1 { wanted.show(w) } else { "null".into() };
        let found = if *found_level == 1 { show(&data.values, f) } else { "null".into() };
        if expected != found {
            faults.add(FaultCode::ColumnNotLeaf, Some(row.position), name, expected, found);
        }
    }
}

fn show(values: &Values, at: usize) -> String {
    match values {
        Values::Int(values) => values[at].to_string(),
        Values::Bool(values) => values[at].to_string(),
        Values::Bytes(values) => match std::str::from_utf8(values[at].data()) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("bytes {}", hex::encode(values[at].data())),
        },
        Values::Fixed(values) => format!("{}e-12", column::decimal(values[at].data())),
    }
}

/// Reads a `records.parquet` and checks that it holds together by itself.
///
/// # Errors
/// [`FileError::Faults`] with all that is wrong.
pub fn read_records(bytes: &Bytes, limits: &Limits) -> Result<RecordsFile, FileError> {
    let mut faults = Faults::default();
    let read = inspect(bytes, Extra::Listed, limits, &mut faults);
    match read {
        Some((rows, unknown_columns)) if faults.is_empty() => Ok(RecordsFile {
            rows: rows
                .into_iter()
                .map(|row| LeafRow { position: row.position, leaf: row.leaf.data().to_vec(), hash: row.hash })
                .collect(),
            unknown_columns,
        }),
        _ => Err(FileError::Faults(faults.into_vec())),
    }
}

/// Files as the format's writer would never make them.
#[cfg(test)]
pub(crate) mod test {
    use std::sync::Arc;

    use parquet::basic::{Repetition, Type as Physical};
    use parquet::file::metadata::{KeyValue, SortingColumn};
    use parquet::file::properties::{EnabledStatistics, WriterPropertiesPtr};
    use parquet::schema::types::{ColumnPath, Type, TypePtr};

    use super::*;

    fn file(
        root: TypePtr,
        properties: WriterPropertiesPtr,
        columns: &[ColumnData],
    ) -> Result<Vec<u8>, FileError> {
        let mut writer = SerializedFileWriter::new(Vec::new(), root, properties)?;
        write::write_group(&mut writer, columns)?;
        Ok(writer.into_inner()?)
    }

    /// Leaves of `rows`, typed columns of `shown`.
    pub(crate) fn columns_of(rows: &[LeafRow], shown: &[LeafRow]) -> Result<Vec<u8>, FileError> {
        let mut columns = group_columns(rows, 0, rows.len())?;
        let other = group_columns(shown, 0, shown.len())?;
        columns.truncate(3);
        columns.extend(other.into_iter().skip(3));
        file(RECORDS_SCHEMA.root.clone(), write::properties("records"), &columns)
    }

    /// Rows as they stand, whatever their positions, hashes and leaves; columns as far as a leaf can be read.
    pub(crate) fn as_given(rows: &[LeafRow]) -> Result<Vec<u8>, FileError> {
        let mut typed: Vec<Builder> = COLUMNS.iter().map(|column| Builder::new(column.kind)).collect();
        for row in rows {
            let value = serde_json::from_slice(&row.leaf).unwrap_or_default();
            for (builder, cell) in typed.iter_mut().zip(columns::cells(&value)) {
                builder.push(cell);
            }
        }
        let mut columns = vec![
            ColumnData::required(Values::Int(rows.iter().map(|row| row.position as i64).collect())),
            ColumnData::required(Values::Bytes(
                rows.iter().map(|row| ByteArray::from(row.leaf.clone())).collect(),
            )),
            ColumnData::required(Values::Fixed(
                rows.iter().map(|row| FixedLenByteArray::from(row.hash.0.to_vec())).collect(),
            )),
        ];
        columns.extend(typed.into_iter().map(|b| ColumnData { levels: Some(b.levels), values: b.values }));
        file(RECORDS_SCHEMA.root.clone(), write::properties("records"), &columns)
    }

    /// True rows in a file that has `what` too much or otherwise.
    pub(crate) fn odd(rows: &[LeafRow], what: &str) -> Result<Vec<u8>, FileError> {
        let mut columns = group_columns(rows, 0, rows.len())?;
        let mut fields = RECORDS_SCHEMA.root.get_fields().to_vec();
        let mut properties = write::properties("records").as_ref().clone().into_builder();
        let path = |name: &str| ColumnPath::new(vec![name.to_string()]);
        let plain = |name: &str, physical, repetition| {
            Type::primitive_type_builder(name, physical).with_repetition(repetition).build().map(Arc::new)
        };
        match what {
            "key_value" => {
                let pair = KeyValue::new("pandas".into(), "{}".to_string());
                properties = properties.set_key_value_metadata(Some(vec![pair]));
            }
            "page_index" => {
                properties = properties
                    .set_offset_index_disabled(false)
                    .set_column_statistics_enabled(path("status"), EnabledStatistics::Page);
            }
            "bloom" => properties = properties.set_column_bloom_filter_enabled(path("provider"), true),
            "sorting" => {
                let sorted = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
                properties = properties.set_sorting_columns(Some(vec![sorted]));
            }
            "leaf_statistics" => {
                properties =
                    properties.set_column_statistics_enabled(path("leaf_hash"), EnabledStatistics::Chunk);
            }
            "page_statistics" => {
                properties = properties
                    .set_column_statistics_enabled(path("status"), EnabledStatistics::Page)
                    .set_column_write_page_header_statistics(path("status"), true);
            }
            "extra_column" => {
                fields.push(plain("extra", Physical::INT64, Repetition::REQUIRED)?);
                columns.push(ColumnData::required(Values::Int((0..rows.len() as i64).collect())));
            }
            "other_type" => {
                fields[0] = plain("position", Physical::INT64, Repetition::REQUIRED).and_then(|_| {
                    Type::primitive_type_builder("position", Physical::INT64)
                        .with_repetition(Repetition::REQUIRED)
                        .with_converted_type(parquet::basic::ConvertedType::UINT_64)
                        .build()
                        .map(Arc::new)
                })?
            }
            "other_name" => fields[0] = plain("seq", Physical::INT64, Repetition::REQUIRED)?,
            "swapped" => {
                fields.swap(8, 9);
                columns.swap(8, 9);
            }
            _ => {}
        }
        let root = Arc::new(Type::group_type_builder("records").with_fields(fields).build()?);
        file(root, Arc::new(properties.build()), &columns)
    }
}
