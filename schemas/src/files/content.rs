//! Content files: chunks of parts, written and read in bounded memory.
//!
//! No column has statistics: nothing is ever pruned by a claim. Rows stand in the order of positions, then parts,
//! then chunks, as the writer was given them.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;

use super::column;
use super::footer::{Chunk, Group};
use super::open::{self, Extra};
use super::schema::CONTENT_SCHEMA;
use super::write::{self, ColumnData, Values};
use super::{FileError, Limits};
use crate::content::{CHUNK_BYTES, Encoding, KeyId, Row};
use crate::digest::Sha256Hex;
use crate::names::{ExchangeId, Identifier};
use crate::record::PartName;
use crate::verify::{FaultCode, Faults};

/// A row group ends when it has this many rows or bytes of data.
const GROUP_ROWS: usize = 4096;
const GROUP_BYTES: usize = 4 << 20;

/// The longest `data` of a row: a chunk, its salt, nonce and tag, and what zstd adds to the incompressible.
const MAX_DATA: usize = CHUNK_BYTES + (CHUNK_BYTES >> 7) + 1024;

fn text(text: &str) -> ByteArray {
    ByteArray::from(text.as_bytes().to_vec())
}

/// Writes a content file row group by row group: holds at most one row group of about 4 MiB.
#[derive(Debug)]
pub struct ContentWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Row>,
    bytes: usize,
    written: u64,
}

impl<W: Write + Send> ContentWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What `out` answers to a write.
    pub fn new(out: W) -> Result<Self, FileError> {
        let schema = &*CONTENT_SCHEMA;
        let writer = SerializedFileWriter::new(out, schema.root.clone(), write::properties(schema.name))?;
        Ok(Self { writer, rows: Vec::new(), bytes: 0, written: 0 })
    }

    /// Adds one row; may write a row group.
    ///
    /// # Errors
    /// A row over the bounds, or what the output answers to a write.
    pub fn write(&mut self, row: Row) -> Result<(), FileError> {
        if row.data.len() > MAX_DATA {
            let what = format!("{} bytes of data, at most {MAX_DATA} are allowed", row.data.len());
            return Err(FileError::Row { row: self.written + self.rows.len() as u64, what });
        }
        self.bytes += row.data.len();
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// How many rows were given so far.
    pub fn rows(&self) -> u64 {
        self.written + self.rows.len() as u64
    }

    fn flush(&mut self) -> Result<(), FileError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let begins = self.written;
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        self.written += rows.len() as u64;
        write::write_group(&mut self.writer, &columns(rows, begins)?)
    }

    /// Ends the file and gives the output back (not flushed to disk).
    ///
    /// # Errors
    /// What the output answers to a write.
    pub fn finish(mut self) -> Result<W, FileError> {
        self.flush()?;
        Ok(self.writer.into_inner()?)
    }
}

fn optional(values: Vec<Option<ByteArray>>) -> ColumnData {
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    ColumnData { levels: Some(levels), values: Values::Bytes(values.into_iter().flatten().collect()) }
}

fn columns(rows: Vec<Row>, begins: u64) -> Result<Vec<ColumnData>, FileError> {
    let n = rows.len();
    let (mut positions, mut chunks, mut last) =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut exchanges, mut parts, mut encodings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut base_exchanges, mut base_parts, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut dictionary_levels, mut dictionaries) = (Vec::new(), Vec::new());
    let mut data = Vec::with_capacity(n);
    for (i, row) in rows.into_iter().enumerate() {
        let position = i64::try_from(row.position)
            .map_err(|_| FileError::Row { row: begins + i as u64, what: "position is too large".into() })?;
        positions.push(position);
        exchanges.push(text(row.exchange.as_str()));
        parts.push(text(row.part.as_str()));
        chunks.push(i64::from(row.chunk));
        last.push(row.last);
        let (name, base, dictionary) = match &row.encoding {
            Encoding::Plain => ("plain", None, None),
            Encoding::Zstd => ("zstd", None, None),
            Encoding::ZstdDict { dictionary } => ("zstd_dict", None, Some(dictionary)),
            Encoding::Delta { base_exchange, base_part } => ("delta", Some((base_exchange, base_part)), None),
        };
        encodings.push(text(name));
        base_exchanges.push(base.map(|(exchange, _)| text(exchange.as_str())));
        base_parts.push(base.map(|(_, part)| text(part.as_str())));
        dictionary_levels.push(i16::from(dictionary.is_some()));
        dictionaries.extend(dictionary.map(|hash| FixedLenByteArray::from(hash.0.to_vec())));
        keys.push(row.key_id.as_ref().map(|key| text(key.to_identifier().as_str())));
        data.push(ByteArray::from(row.data));
    }
    Ok(vec![
        ColumnData::required(Values::Int(positions)),
        ColumnData::required(Values::Bytes(exchanges)),
        ColumnData::required(Values::Bytes(parts)),
        ColumnData::required(Values::Int(chunks)),
        ColumnData::required(Values::Bool(last)),
        ColumnData::required(Values::Bytes(encodings)),
        optional(base_exchanges),
        optional(base_parts),
        ColumnData { levels: Some(dictionary_levels), values: Values::Fixed(dictionaries) },
        optional(keys),
        ColumnData::required(Values::Bytes(data)),
    ])
}

/// Reads a content file row by row; holds one row group.
#[derive(Debug)]
pub struct ContentReader<R> {
    reader: R,
    groups: std::vec::IntoIter<OwnedGroup>,
    next_group: usize,
    rows: std::vec::IntoIter<Row>,
    failed: bool,
}

/// The parts of a footer's row group that reading needs, without the footer's bytes.
#[derive(Debug)]
struct OwnedGroup {
    rows: u64,
    chunks: Vec<Chunk<'static>>,
}

fn own(group: &Group<'_>) -> OwnedGroup {
    let chunks = group.chunks.iter().map(|chunk| Chunk {
        physical: chunk.physical,
        encodings: chunk.encodings.clone(),
        path: Vec::new(),
        codec: chunk.codec,
        values: chunk.values,
        uncompressed: chunk.uncompressed,
        compressed: chunk.compressed,
        data_offset: chunk.data_offset,
        dictionary_offset: chunk.dictionary_offset,
        statistics: None,
        encoding_stats: chunk.encoding_stats.clone(),
        size: None,
    });
    OwnedGroup { rows: group.rows, chunks: chunks.collect() }
}

/// A reader that remembers what the system said where it refused bytes: a file that was not seen has no faults.
#[derive(Debug)]
struct Heard<'a, R> {
    reader: &'a R,
    refused: Mutex<Option<String>>,
}

impl<'a, R> Heard<'a, R> {
    fn new(reader: &'a R) -> Self {
        Self { reader, refused: Mutex::default() }
    }

    /// The system's word, where it refused; else what is wrong with the file.
    fn error(self, faults: Faults) -> FileError {
        match self.refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(refused) => FileError::Read(refused),
            None => FileError::Faults(faults.into_vec()),
        }
    }

    fn hear<T>(&self, got: parquet::errors::Result<T>) -> parquet::errors::Result<T> {
        // What lies behind the end is the file's own fault.
        if let Err(ParquetError::External(error)) = &got {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| error.to_string());
        }
        got
    }
}

impl<R: Length> Length for Heard<'_, R> {
    fn len(&self) -> u64 {
        self.reader.len()
    }
}

impl<R: ChunkReader> ChunkReader for Heard<'_, R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.hear(self.reader.get_read(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.hear(self.reader.get_bytes(start, length))
    }
}

/// Opens a content file: footer and schema are checked here, rows as they are read.
///
/// # Errors
/// [`FileError::Faults`] with all that is wrong with the footer; [`FileError::Read`] where the system refused bytes.
pub fn read_content<R: ChunkReader>(reader: R, limits: &Limits) -> Result<ContentReader<R>, FileError> {
    let schema = &*CONTENT_SCHEMA;
    let mut faults = Faults::default();
    let heard = Heard::new(&reader);
    let opened =
        open::footer_bytes(&heard, schema.name, limits, &mut faults).and_then(|(footer, data_end)| {
            let opened = open::open(&footer, data_end, schema, Extra::Listed, limits, &mut faults)?;
            for (g, group) in opened.groups.iter().enumerate() {
                let place = format!("content footer, row group {g}");
                for chunk in group.chunks.iter().take(schema.descriptor.num_columns()) {
                    if chunk.statistics.is_some() {
                        faults.add(FaultCode::StatsLie, None, place.as_str(), "no statistics", "some");
                    }
                }
                if group.rows > GROUP_ROWS as u64 {
                    faults.add(
                        FaultCode::SchemaDrift,
                        None,
                        place.as_str(),
                        format!("at most {GROUP_ROWS} rows"),
                        group.rows,
                    );
                }
                let bytes = group.chunks.get(column::CONTENT_DATA).map_or(0, |chunk| chunk.uncompressed);
                let most = (GROUP_BYTES + MAX_DATA + GROUP_ROWS * 8) as u64;
                if bytes > most {
                    faults.add(
                        FaultCode::SchemaDrift,
                        None,
                        place,
                        format!("at most {most} bytes of data"),
                        bytes,
                    );
                }
            }
            Some(opened.groups.iter().map(own).collect::<Vec<_>>())
        });
    let groups = match opened {
        Some(groups) if faults.is_empty() => groups.into_iter(),
        _ => return Err(heard.error(faults)),
    };
    Ok(ContentReader { reader, groups, next_group: 0, rows: Vec::new().into_iter(), failed: false })
}

impl<R: ChunkReader> Iterator for ContentReader<R> {
    type Item = Result<Row, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            if self.failed {
                return None;
            }
            let group = self.groups.next()?;
            match read_group(&self.reader, &group, self.next_group) {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
            self.next_group += 1;
        }
    }
}

fn read_group<R: ChunkReader>(reader: &R, group: &OwnedGroup, number: usize) -> Result<Vec<Row>, FileError> {
    let mut faults = Faults::default();
    let heard = Heard::new(reader);
    let columns =
        column::read_columns(&heard, &CONTENT_SCHEMA, group.rows, &group.chunks, number, &mut faults);
    let rows = match columns {
        Some(columns) if faults.is_empty() => assemble(columns, number, &mut faults),
        _ => None,
    };
    match rows {
        Some(rows) if faults.is_empty() => Ok(rows),
        _ => Err(heard.error(faults)),
    }
}

/// The column's cells, one a row.
fn cells(column: ColumnData) -> Vec<Option<ByteArray>> {
    let values: Vec<ByteArray> = match column.values {
        Values::Bytes(values) => values,
        Values::Fixed(values) => values.into_iter().map(ByteArray::from).collect(),
        Values::Int(_) | Values::Bool(_) => Vec::new(),
    };
    let mut values = values.into_iter();
    match column.levels {
        None => values.map(Some).collect(),
        Some(levels) => {
            levels.into_iter().map(|level| if level == 1 { values.next() } else { None }).collect()
        }
    }
}

fn assemble(columns: Vec<ColumnData>, group: usize, faults: &mut Faults) -> Option<Vec<Row>> {
    let mut columns = columns.into_iter();
    let mut next = || columns.next();
    let Values::Int(positions) = next()?.values else { return None };
    let exchanges = cells(next()?);
    let parts = cells(next()?);
    let Values::Int(chunks) = next()?.values else { return None };
    let Values::Bool(last) = next()?.values else { return None };
    let encodings = cells(next()?);
    let base_exchanges = cells(next()?);
    let base_parts = cells(next()?);
    let dictionaries = cells(next()?);
    let keys = cells(next()?);
    let data = cells(next()?);
    let mut rows = Vec::with_capacity(positions.len());
    for (i, data) in data.into_iter().enumerate() {
        let bytes = |column: &[Option<ByteArray>]| column.get(i).cloned().flatten();
        let word = |column: &[Option<ByteArray>]| {
            bytes(column).and_then(|b| String::from_utf8(b.data().to_vec()).ok())
        };
        let row = (|| {
            let base = (word(&base_exchanges), word(&base_parts));
            let absent = (bytes(&base_exchanges).is_none(), bytes(&base_parts).is_none());
            let dictionary = bytes(&dictionaries);
            let encoding = match (word(&encodings)?.as_str(), base, dictionary) {
                ("plain", _, None) if absent == (true, true) => Encoding::Plain,
                ("zstd", _, None) if absent == (true, true) => Encoding::Zstd,
                ("zstd_dict", _, Some(hash)) if absent == (true, true) => {
                    Encoding::ZstdDict { dictionary: Sha256Hex(hash.data().try_into().ok()?) }
                }
                ("delta", (Some(exchange), Some(part)), None) => Encoding::Delta {
                    base_exchange: ExchangeId::new(exchange).ok()?,
                    base_part: PartName::parse(&part)?,
                },
                _ => return None,
            };
            let key_id = match bytes(&keys) {
                None => None,
                Some(_) => Some(KeyId::parse(&Identifier::new(word(&keys)?).ok()?).ok()?),
            };
            let data = data?;
            Some(Row {
                position: u64::try_from(*positions.get(i)?).ok()?,
                exchange: ExchangeId::new(word(&exchanges)?).ok()?,
                part: PartName::parse(&word(&parts)?)?,
                chunk: u32::try_from(*chunks.get(i)?).ok()?,
                last: *last.get(i)?,
                encoding,
                key_id,
                data: (data.len() <= MAX_DATA).then(|| data.data().to_vec())?,
            })
        })();
        match row {
            Some(row) => rows.push(row),
            None => {
                let place = format!("content row group {group}, row {i}");
                faults.add(FaultCode::Unreadable, None, place, "a content row", "values that are none");
                return None;
            }
        }
    }
    Some(rows)
}
