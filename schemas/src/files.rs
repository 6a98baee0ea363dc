//! Files: Parquet bytes <-> rows, with pinned writer settings and strict readers.
//!
//! Writing: equal rows give equal bytes. zstd level 3, data pages of version 1, no page index, no bloom filter, no
//! key-value metadata, statistics only on the typed columns of records. `FORMAT.md` 8.
//!
//! Reading takes bytes from a stranger. The footer and every page header are parsed here, with bounds, before the
//! Parquet library sees a page; a footer field that the format does not have is a fault, a footer statement that the
//! values do not bear out is a fault (AU-3). Nothing here panics on any input.

mod column;
mod contained;
mod content;
mod footer;
mod open;
mod pages;
mod records;
mod reference;
mod schema;
mod thrift;
mod write;

use crate::verify::BatchFault;

pub use contained::hush_decoders;
pub use content::{ContentReader, ContentWriter, read_content};
pub(crate) use open::Extra;
#[cfg(test)]
pub(crate) use records::test;
#[cfg(debug_assertions)]
pub(crate) use records::write_records_with;
pub(crate) use records::{Inspected, inspect};
pub use records::{LeafRow, RecordsFile, read_records, write_records};
pub use reference::{ReferenceRow, read_reference, write_reference};
pub use schema::{schema_fingerprint, schema_text};

/// Bounds for reading files from a stranger. Over a bound is "could not judge", never "sound".
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a footer.
    pub footer_bytes: u64,
    /// Rows of a file.
    pub rows: u64,
    /// Decompressed bytes of one column of one row group.
    pub column_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { footer_bytes: 16 << 20, rows: 16 << 20, column_bytes: 128 << 20 }
    }
}

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Rows that the format cannot hold.
    #[error("row {row} cannot be written: {what}")]
    Row {
        /// Index of the row.
        row: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The Parquet library refused to write.
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The file is not of this format; all that is wrong with it.
    #[error("{} faults, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Faults(Vec<BatchFault>),
    /// The system did not give the file's bytes: nothing is said of the file.
    #[error("it cannot be read: {0}")]
    Read(String),
}
