//! `reference.parquet`: configurations, price books, policies, dictionaries, each under its SHA-256.

use bytes::Bytes;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::writer::SerializedFileWriter;

use super::column::read_columns;
use super::open::{self, Extra};
use super::schema::REFERENCE_SCHEMA;
use super::write::{self, ColumnData, Values};
use super::{FileError, Limits};
use crate::digest::Sha256Hex;
use crate::verify::{FaultCode, Faults};

/// One thing that records refer to by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceRow {
    /// SHA-256 of `bytes`.
    pub sha256: Sha256Hex,
    /// What the bytes are.
    pub media_type: String,
    /// The bytes, never encrypted; secrets stand in them as fingerprints.
    pub bytes: Vec<u8>,
}

/// Writes a reference file; rows in ascending order of `sha256`, none twice, whatever order they are given in.
///
/// # Errors
/// [`FileError::Row`] where bytes do not hash to their name.
pub fn write_reference(rows: &[ReferenceRow]) -> Result<Vec<u8>, FileError> {
    let schema = &*REFERENCE_SCHEMA;
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema.root.clone(), write::properties(schema.name))?;
    let mut sorted: Vec<&ReferenceRow> = rows.iter().collect();
    sorted.sort_by_key(|row| row.sha256);
    sorted.dedup_by_key(|row| row.sha256);
    for (i, row) in sorted.iter().enumerate() {
        if Sha256Hex::of(&row.bytes) != row.sha256 {
            return Err(FileError::Row { row: i as u64, what: "the hash is not the bytes'".into() });
        }
    }
    if !sorted.is_empty() {
        let hashes = sorted.iter().map(|row| FixedLenByteArray::from(row.sha256.0.to_vec())).collect();
        let types = sorted.iter().map(|row| ByteArray::from(row.media_type.as_bytes().to_vec())).collect();
        let bytes = sorted.iter().map(|row| ByteArray::from(row.bytes.clone())).collect();
        let columns = [
            ColumnData::required(Values::Fixed(hashes)),
            ColumnData::required(Values::Bytes(types)),
            ColumnData::required(Values::Bytes(bytes)),
        ];
        write::write_group(&mut writer, &columns)?;
    }
    Ok(writer.into_inner()?)
}

/// Reads a reference file; every row's bytes hash to their name.
///
/// # Errors
/// [`FileError::Faults`] with all that is wrong.
pub fn read_reference(bytes: &Bytes, limits: &Limits) -> Result<Vec<ReferenceRow>, FileError> {
    let mut faults = Faults::default();
    let rows = read(bytes, limits, &mut faults);
    match rows {
        Some(rows) if faults.is_empty() => Ok(rows),
        _ => Err(FileError::Faults(faults.into_vec())),
    }
}

fn read(bytes: &Bytes, limits: &Limits, faults: &mut Faults) -> Option<Vec<ReferenceRow>> {
    let schema = &*REFERENCE_SCHEMA;
    let (footer, data_end) = open::footer_bytes(bytes, schema.name, limits, faults)?;
    let opened = open::open(&footer, data_end, schema, Extra::Listed, limits, faults)?;
    let mut rows: Vec<ReferenceRow> = Vec::new();
    for (g, group) in opened.groups.iter().enumerate() {
        for chunk in group.chunks.iter().take(3).filter(|chunk| chunk.statistics.is_some()) {
            let place = format!("reference footer, row group {g}");
            faults.add(FaultCode::StatsLie, None, place, "no statistics", format!("{:?}", chunk.statistics));
        }
        let mut columns = read_columns(bytes, schema, group.rows, &group.chunks, g, faults)?.into_iter();
        let (Some(Values::Fixed(hashes)), Some(Values::Bytes(types)), Some(Values::Bytes(contents))) = (
            columns.next().map(|c| c.values),
            columns.next().map(|c| c.values),
            columns.next().map(|c| c.values),
        ) else {
            return None;
        };
        for ((hash, media_type), content) in hashes.into_iter().zip(types).zip(contents) {
            let sha256 = Sha256Hex(hash.data().try_into().ok()?);
            let found = Sha256Hex::of(content.data());
            if found != sha256 {
                faults.add(FaultCode::ReferenceMismatch, None, "reference", sha256, found);
            }
            if rows.last().is_some_and(|before| before.sha256 >= sha256) {
                faults.add(FaultCode::Order, None, "reference", "ascending hashes", sha256);
            }
            let media_type = String::from_utf8_lossy(media_type.data()).into_owned();
            rows.push(ReferenceRow { sha256, media_type, bytes: content.data().to_vec() });
        }
    }
    Some(rows)
}
