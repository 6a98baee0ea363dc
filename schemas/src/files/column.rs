//! Reading one column chunk, and holding the footer's words about it against its values.

use std::collections::BTreeSet;

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArrayType, DataType, FixedLenByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnDescPtr;

use super::contained::contained;
use super::footer::{Chunk, Statistics};
use super::pages::{self, Claim, PageList, Seen, UNCOMPRESSED, ZSTD};
use super::schema::FileSchema;
use super::thrift::Value;
use super::write::{ColumnData, Values};
use crate::verify::{FaultCode, Faults};

/// The column `data` of a content file: not compressed again.
pub(crate) const CONTENT_DATA: usize = 10;

/// Whether a column may carry statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stats {
    /// They must be true.
    Checked,
    /// There must be none.
    None,
}

/// Where a chunk stands, for faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) schema: &'a FileSchema,
    pub(crate) group: usize,
    pub(crate) column: usize,
}

impl Place<'_> {
    fn text(&self) -> String {
        let name = self.schema.descriptor.column(self.column).name().to_string();
        format!("{} row group {}, column {name}", self.schema.name, self.group)
    }
}

/// Reads and checks one chunk; `None` with a fault where it cannot be read.
pub(crate) fn read(
    bytes: &Bytes,
    chunk: &Chunk<'_>,
    rows: u64,
    codec: i64,
    stats: Stats,
    place: Place<'_>,
    faults: &mut Faults,
) -> Option<ColumnData> {
    if chunk.codec != codec {
        faults.add(FaultCode::SchemaDrift, None, place.text(), format!("codec {codec}"), chunk.codec);
    }
    let begins = chunk.dictionary_offset.unwrap_or(chunk.data_offset);
    let claim = Claim {
        rows,
        codec: chunk.codec,
        uncompressed: chunk.uncompressed,
        data_offset: chunk.data_offset - begins,
    };
    let descriptor = place.schema.descriptor.column(place.column);
    let decoded = contained(|| {
        let (pages, seen) = pages::split(bytes, claim)?;
        decode(descriptor, pages, rows as usize).map(|data| (data, seen)).map_err(|error| error.to_string())
    });
    let (data, seen) = match decoded.unwrap_or_else(|| Err("pages that break the decoder".to_owned())) {
        Ok(decoded) => decoded,
        Err(error) => {
            faults.add(FaultCode::Unreadable, None, place.text(), "decodable pages", error);
            return None;
        }
    };
    let mut check = Check { place, faults };
    check.pages(chunk, &seen);
    match (stats, &chunk.statistics) {
        (Stats::None, Some(_)) => check.lie("statistics", "none", "some"),
        (Stats::Checked, Some(found)) => check.statistics(found, &data),
        (_, None) => {}
    }
    if let Some(size) = &chunk.size {
        check.size(size, &data);
    }
    Some(data)
}

/// Reads the columns of one row group of a file whose columns have no statistics.
pub(crate) fn read_columns<R: ChunkReader>(
    reader: &R,
    schema: &FileSchema,
    rows: u64,
    chunks: &[Chunk<'_>],
    group: usize,
    faults: &mut Faults,
) -> Option<Vec<ColumnData>> {
    let mut columns = Vec::new();
    for (column, chunk) in chunks.iter().enumerate().take(schema.descriptor.num_columns()) {
        let begins = chunk.dictionary_offset.unwrap_or(chunk.data_offset);
        let bytes = match reader.get_bytes(begins, chunk.compressed as usize) {
            Ok(bytes) => bytes,
            Err(error) => {
                faults.add(FaultCode::Unreadable, None, schema.name, "readable bytes", error);
                return None;
            }
        };
        let codec = if schema.name == "content" && column == CONTENT_DATA { UNCOMPRESSED } else { ZSTD };
        columns.push(read(&bytes, chunk, rows, codec, Stats::None, Place { schema, group, column }, faults)?);
    }
    Some(columns)
}

fn decode(
    descriptor: ColumnDescPtr,
    pages: Vec<parquet::column::page::Page>,
    rows: usize,
) -> Result<ColumnData, ParquetError> {
    let physical = descriptor.physical_type();
    let pages = PageList(pages.into_iter());
    Ok(match physical {
        Type::INT64 => {
            let (levels, values) = take::<Int64Type>(descriptor, pages, rows)?;
            ColumnData { levels, values: Values::Int(values) }
        }
        Type::BOOLEAN => {
            let (levels, values) = take::<BoolType>(descriptor, pages, rows)?;
            ColumnData { levels, values: Values::Bool(values) }
        }
        Type::BYTE_ARRAY => {
            let (levels, values) = take::<ByteArrayType>(descriptor, pages, rows)?;
            // Touches every value, so that one without data stays within the caller's guard.
            if values.iter().any(|value| value.data().len() > i32::MAX as usize) {
                return Err(ParquetError::General("a value of more than 2 GiB".into()));
            }
            ColumnData { levels, values: Values::Bytes(values) }
        }
        Type::FIXED_LEN_BYTE_ARRAY => {
            let length = descriptor.type_length();
            let (levels, values) = take::<FixedLenByteArrayType>(descriptor, pages, rows)?;
            if values.iter().any(|value| i32::try_from(value.data().len()) != Ok(length)) {
                return Err(ParquetError::General(format!("a value that has not {length} bytes")));
            }
            ColumnData { levels, values: Values::Fixed(values) }
        }
        other => return Err(ParquetError::General(format!("type {other} is not used by this format"))),
    })
}

type Taken<T> = (Option<Vec<i16>>, Vec<<T as DataType>::T>);

fn take<T: DataType>(
    descriptor: ColumnDescPtr,
    pages: PageList,
    rows: usize,
) -> Result<Taken<T>, ParquetError> {
    let optional = descriptor.max_def_level() > 0;
    let mut reader = ColumnReaderImpl::<T>::new(descriptor, Box::new(pages));
    let mut levels = optional.then(|| Vec::with_capacity(rows.min(1 << 16)));
    let mut values = Vec::new();
    let (read, _, _) = reader.read_records(rows, levels.as_mut(), None, &mut values)?;
    if read != rows {
        return Err(ParquetError::General(format!("{read} values of {rows}")));
    }
    Ok((levels, values))
}

struct Check<'a, 'f> {
    place: Place<'a>,
    faults: &'f mut Faults,
}

impl Check<'_, '_> {
    fn lie(&mut self, what: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) {
        let place = format!("{}, {what}", self.place.text());
        self.faults.add(FaultCode::StatsLie, None, place, expected, found);
    }

    fn pages(&mut self, chunk: &Chunk<'_>, seen: &Seen) {
        if seen.page_statistics {
            self.lie("statistics in a page header", "none", "some");
        }
        if seen.uncompressed != chunk.uncompressed {
            self.lie("uncompressed size", seen.uncompressed, chunk.uncompressed);
        }
        // Other engines skip pages by what these two lists say of dictionaries.
        if !chunk.encoding_stats.is_empty() {
            let mut claimed = std::collections::BTreeMap::new();
            for (page, encoding, count) in &chunk.encoding_stats {
                *claimed.entry((*page, *encoding)).or_insert(0) += count;
            }
            if claimed != seen.encodings {
                self.lie("page encodings", format!("{:?}", seen.encodings), format!("{claimed:?}"));
            }
        }
        let mut wanted: BTreeSet<i64> = seen.encodings.keys().map(|(_, encoding)| *encoding).collect();
        wanted.insert(3); // levels
        let claimed: BTreeSet<i64> = chunk.encodings.iter().copied().collect();
        if claimed != wanted {
            self.lie("encodings", format!("{wanted:?}"), format!("{claimed:?}"));
        }
    }

    fn statistics(&mut self, found: &Statistics<'_>, data: &ColumnData) {
        let nulls = data.rows() - data.values.len();
        if let Some(claimed) = found.nulls
            && i64::try_from(nulls) != Ok(claimed)
        {
            self.lie("null count", nulls, claimed);
        }
        if let Some(distinct) = found.distinct {
            self.lie("distinct count", "none", distinct);
        }
        let (min, max) = bounds(&data.values);
        for (what, claimed, wanted) in [
            ("smallest value", found.min, &min),
            ("largest value", found.max, &max),
            ("smallest value, deprecated field", found.old_min, &min),
            ("largest value, deprecated field", found.old_max, &max),
        ] {
            if let Some(claimed) = claimed
                && Some(claimed) != wanted.as_deref()
            {
                let wanted = wanted.as_deref().map_or_else(|| "none".into(), |bytes| self.text(bytes));
                let claimed = self.text(claimed);
                self.lie(what, wanted, claimed);
            }
        }
    }

    fn text(&self, bytes: &[u8]) -> String {
        let column = self.place.schema.descriptor.column(self.place.column);
        match (column.physical_type(), bytes.len()) {
            (Type::INT64, 8) => {
                let mut raw = [0; 8];
                raw.copy_from_slice(bytes);
                i64::from_le_bytes(raw).to_string()
            }
            (Type::BYTE_ARRAY, _) => format!("`{}`", String::from_utf8_lossy(bytes)),
            _ => hex::encode(bytes),
        }
    }

    fn size(&mut self, size: &Value<'_>, data: &ColumnData) {
        let bytes = match &data.values {
            Values::Bytes(values) => Some(values.iter().map(|value| value.len() as i64).sum::<i64>()),
            _ => None,
        };
        if let Some(claimed) = size.int_field(1)
            && bytes != Some(claimed)
        {
            self.lie("unencoded bytes", format!("{bytes:?}"), claimed);
        }
        let present = data.values.len() as i64;
        let nulls = data.rows() as i64 - present;
        for (id, wanted) in [(2, vec![data.rows() as i64]), (3, vec![nulls, present])] {
            let Some(histogram) = size.field(id) else { continue };
            let claimed: Vec<i64> = histogram.list().iter().filter_map(Value::int).collect();
            if !claimed.is_empty() && claimed != wanted {
                self.lie("level histogram", format!("{wanted:?}"), format!("{claimed:?}"));
            }
        }
    }
}

/// Smallest and largest value in the form that statistics have.
fn bounds(values: &Values) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    fn ends<T: Ord + Copy>(values: impl Iterator<Item = T> + Clone) -> (Option<T>, Option<T>) {
        (values.clone().min(), values.max())
    }
    match values {
        Values::Int(values) => {
            let (min, max) = ends(values.iter().copied());
            (min.map(|v| v.to_le_bytes().to_vec()), max.map(|v| v.to_le_bytes().to_vec()))
        }
        Values::Bool(values) => {
            let (min, max) = ends(values.iter().copied());
            (min.map(|v| vec![u8::from(v)]), max.map(|v| vec![u8::from(v)]))
        }
        Values::Bytes(values) => {
            let (min, max) = ends(values.iter().map(|value| value.data()));
            (min.map(<[u8]>::to_vec), max.map(<[u8]>::to_vec))
        }
        // The only ones with statistics are decimals of 16 bytes.
        Values::Fixed(values) => {
            let (min, max) = ends(values.iter().map(|value| decimal(value.data())));
            (min.map(|v| v.to_be_bytes().to_vec()), max.map(|v| v.to_be_bytes().to_vec()))
        }
    }
}

/// A DECIMAL(38,12) of 16 big-endian bytes.
pub(crate) fn decimal(bytes: &[u8]) -> i128 {
    let mut raw = [0; 16];
    let len = bytes.len().min(16);
    raw[16 - len..].copy_from_slice(&bytes[bytes.len() - len..]);
    i128::from_be_bytes(raw)
}
