//! The pinned writer: equal rows give equal bytes.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::FileError;
use crate::columns::{COLUMNS, ColumnKind};

/// The values of one column of one row group; nulls are absent from `values` and have level 0.
#[derive(Debug)]
pub(crate) struct ColumnData {
    /// 1 where there is a value; `None` for a required column.
    pub(crate) levels: Option<Vec<i16>>,
    pub(crate) values: Values,
}

#[derive(Debug)]
pub(crate) enum Values {
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Bytes(values) => values.len(),
            Self::Fixed(values) => values.len(),
        }
    }
}

impl ColumnData {
    pub(crate) fn required(values: Values) -> Self {
        Self { levels: None, values }
    }
    pub(crate) fn rows(&self) -> usize {
        self.levels.as_ref().map_or_else(|| self.values.len(), Vec::len)
    }
}

/// The settings of version 1. `FORMAT.md` 8.1.
pub(crate) fn properties(schema: &str) -> WriterPropertiesPtr {
    let path = |name: &str| ColumnPath::new(vec![name.to_string()]);
    let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default());
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("affidavit v1".into())
        .set_compression(zstd(3))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_statistics_truncate_length(None)
        .set_offset_index_disabled(true)
        .set_data_page_size_limit(1 << 20)
        .set_dictionary_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(1024)
        .set_max_row_group_row_count(None)
        .set_key_value_metadata(None);
    match schema {
        "records" => {
            // A leaf is half hex digits, in which a longer search finds chance matches that cost more than they save.
            builder = builder.set_column_compression(path("leaf"), zstd(1));
            builder = builder.set_column_encoding(path("position"), Encoding::DELTA_BINARY_PACKED);
            builder = builder.set_column_statistics_enabled(path("position"), EnabledStatistics::Chunk);
            for column in COLUMNS {
                builder = builder.set_column_statistics_enabled(path(column.name), EnabledStatistics::Chunk);
                if column.kind == ColumnKind::Utf8 {
                    builder = builder.set_column_dictionary_enabled(path(column.name), true);
                }
            }
        }
        "content" => {
            // Rows hold zstd frames or ciphertext: compressing them again only costs time.
            builder = builder.set_column_compression(path("data"), Compression::UNCOMPRESSED);
            for name in ["exchange", "part", "encoding", "base_exchange", "base_part", "key_id"] {
                builder = builder.set_column_dictionary_enabled(path(name), true);
            }
        }
        _ => {}
    }
    Arc::new(builder.build())
}

/// Writes one row group; `columns` in the schema's order, all of equal length.
pub(crate) fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: &[ColumnData],
) -> Result<(), FileError> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        let Some(mut out) = group.next_column()? else {
            return Err(FileError::Row { row: 0, what: "more columns than the schema has".into() });
        };
        let levels = column.levels.as_deref();
        match &column.values {
            Values::Int(values) => out.typed::<Int64Type>().write_batch(values, levels, None)?,
            Values::Bool(values) => out.typed::<BoolType>().write_batch(values, levels, None)?,
            Values::Bytes(values) => out.typed::<ByteArrayType>().write_batch(values, levels, None)?,
            Values::Fixed(values) => {
                out.typed::<FixedLenByteArrayType>().write_batch(values, levels, None)?
            }
        };
        out.close()?;
    }
    group.close()?;
    Ok(())
}
