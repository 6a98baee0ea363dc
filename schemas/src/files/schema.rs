//! The schemas of the files of version 1, as Parquet message types, and their fingerprint.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescriptor, TypePtr};

use super::{FileError, write};
use crate::columns::{COLUMNS, ColumnKind};
use crate::digest::Sha256Hex;

/// One file schema.
#[derive(Debug)]
pub(crate) struct FileSchema {
    /// `records`, `content` or `reference`.
    pub(crate) name: &'static str,
    pub(crate) root: TypePtr,
    pub(crate) descriptor: SchemaDescriptor,
    /// The footer of an empty file: what a schema looks like on the wire.
    pub(crate) sample_footer: Vec<u8>,
}

const CONTENT: &str = "message content {
  REQUIRED INT64 position;
  REQUIRED BYTE_ARRAY exchange (STRING);
  REQUIRED BYTE_ARRAY part (STRING);
  REQUIRED INT64 chunk;
  REQUIRED BOOLEAN last;
  REQUIRED BYTE_ARRAY encoding (STRING);
  OPTIONAL BYTE_ARRAY base_exchange (STRING);
  OPTIONAL BYTE_ARRAY base_part (STRING);
  OPTIONAL FIXED_LEN_BYTE_ARRAY (32) dictionary;
  OPTIONAL BYTE_ARRAY key_id (STRING);
  REQUIRED BYTE_ARRAY data;
}
";

const REFERENCE: &str = "message reference {
  REQUIRED FIXED_LEN_BYTE_ARRAY (32) sha256;
  REQUIRED BYTE_ARRAY media_type (STRING);
  REQUIRED BYTE_ARRAY bytes;
}
";

fn records_text() -> String {
    let mut text = String::from(
        "message records {\n  REQUIRED INT64 position;\n  REQUIRED BYTE_ARRAY leaf;\n  \
         REQUIRED FIXED_LEN_BYTE_ARRAY (32) leaf_hash;\n",
    );
    for column in COLUMNS {
        let (physical, logical) = match column.kind {
            ColumnKind::Utf8 => ("BYTE_ARRAY", " (STRING)"),
            ColumnKind::Int64 => ("INT64", ""),
            ColumnKind::Bool => ("BOOLEAN", ""),
            ColumnKind::Decimal => ("FIXED_LEN_BYTE_ARRAY (16)", " (DECIMAL(38,12))"),
            ColumnKind::TimestampUs => ("INT64", " (TIMESTAMP(MICROS,true))"),
        };
        let _ = writeln!(text, "  OPTIONAL {physical} {}{logical};", column.name);
    }
    text.push_str("}\n");
    text
}

/// The message types of all v1 file schemas, one after the other: `records`, `content`, `reference`.
pub fn schema_text() -> String {
    format!("{}{CONTENT}{REFERENCE}", records_text())
}

/// SHA-256 of [`schema_text`]: the `schema` line of a seal.
pub fn schema_fingerprint() -> Sha256Hex {
    static FINGERPRINT: LazyLock<Sha256Hex> = LazyLock::new(|| Sha256Hex::of(schema_text().as_bytes()));
    *FINGERPRINT
}

fn build(name: &'static str, text: &str) -> Result<FileSchema, FileError> {
    let root: TypePtr = Arc::new(parse_message_type(text)?);
    let descriptor = SchemaDescriptor::new(root.clone());
    let empty = SerializedFileWriter::new(Vec::new(), root.clone(), write::properties(name))?.into_inner()?;
    let sample_footer = empty.get(4..empty.len().saturating_sub(8)).unwrap_or_default().to_vec();
    Ok(FileSchema { name, root, descriptor, sample_footer })
}

fn constant(name: &'static str, text: &str) -> FileSchema {
    // Constant text, built by every test.
    build(name, text).expect("the schema text of this module is a message type")
}

pub(crate) static RECORDS_SCHEMA: LazyLock<FileSchema> =
    LazyLock::new(|| constant("records", &records_text()));
pub(crate) static CONTENT_SCHEMA: LazyLock<FileSchema> = LazyLock::new(|| constant("content", CONTENT));
pub(crate) static REFERENCE_SCHEMA: LazyLock<FileSchema> = LazyLock::new(|| constant("reference", REFERENCE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_a_message_type_and_the_text_has_all_columns() {
        assert_eq!(RECORDS_SCHEMA.descriptor.num_columns(), 3 + COLUMNS.len());
        assert_eq!(CONTENT_SCHEMA.descriptor.num_columns(), 11);
        assert_eq!(REFERENCE_SCHEMA.descriptor.num_columns(), 3);
        for column in COLUMNS {
            assert!(schema_text().contains(&format!(" {}", column.name)), "{}", column.name);
        }
    }
}
