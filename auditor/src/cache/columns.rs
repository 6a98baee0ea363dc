//! The columns of proven rows, as the tables `records` and `batches` offer them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use schemas::Origin;
use schemas::columns::{COLUMNS, Cell, ColumnKind};

/// The columns of the table `records`.
pub fn records_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("batch", DataType::Int64, false),
    ];
    fields.extend(COLUMNS.iter().map(|column| Field::new(column.name, data_type(column.kind), true)));
    fields.push(Field::new("leaf", DataType::Utf8, false));
    fields.push(Field::new("leaf_hash", DataType::Utf8, false));
    Arc::new(Schema::new(fields))
}

/// The Arrow type of a kind.
pub(crate) fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Utf8 => DataType::Utf8,
        ColumnKind::Int64 => DataType::Int64,
        ColumnKind::Bool => DataType::Boolean,
        ColumnKind::Decimal => DataType::Decimal128(38, 12),
        ColumnKind::TimestampUs => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The columns of the table `batches`.
pub fn batches_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("batch", DataType::Int64, false),
        Field::new("from_position", DataType::Int64, false),
        Field::new("to_position", DataType::Int64, false),
        Field::new("root", DataType::Utf8, false),
        Field::new("seal", DataType::Utf8, false),
        Field::new("sealed_at", time, false),
        Field::new("files", DataType::Int64, false),
        Field::new("bytes", DataType::Int64, false),
    ]))
}

/// Builds one typed column.
pub(crate) enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Decimal(Decimal128Builder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    pub(crate) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Utf8 => Self::Text(StringBuilder::new()),
            ColumnKind::Int64 => Self::Int(Int64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Decimal => {
                Self::Decimal(Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 12)))
            }
            ColumnKind::TimestampUs => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        }
    }
    pub(crate) fn append(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(to), Cell::Text(text)) => to.append_value(text),
            (Self::Int(to), Cell::Int(n)) => to.append_value(n),
            (Self::Bool(to), Cell::Bool(b)) => to.append_value(b),
            (Self::Decimal(to), Cell::Decimal(n)) => to.append_value(n),
            (Self::Time(to), Cell::Int(n)) => to.append_value(n),
            (Self::Text(to), _) => to.append_null(),
            (Self::Int(to), _) => to.append_null(),
            (Self::Bool(to), _) => to.append_null(),
            (Self::Decimal(to), _) => to.append_null(),
            (Self::Time(to), _) => to.append_null(),
        }
    }
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(from) => Arc::new(from.finish()),
            Self::Int(from) => Arc::new(from.finish()),
            Self::Bool(from) => Arc::new(from.finish()),
            Self::Decimal(from) => Arc::new(from.finish()),
            Self::Time(from) => Arc::new(from.finish()),
        }
    }
}

/// Turns proven leaves into columns.
pub(super) struct Rows {
    origin: StringBuilder,
    position: Int64Builder,
    batch: Int64Builder,
    typed: Vec<Builder>,
    leaf: StringBuilder,
    hash: StringBuilder,
    pub(super) count: usize,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            origin: StringBuilder::new(),
            position: Int64Builder::new(),
            batch: Int64Builder::new(),
            typed: COLUMNS.iter().map(|column| Builder::new(column.kind)).collect(),
            leaf: StringBuilder::new(),
            hash: StringBuilder::new(),
            count: 0,
        }
    }
    pub(super) fn push(&mut self, origin: &Origin, batch: u64, row: &schemas::verify::VerifiedLeaf) {
        self.origin.append_value(origin.as_str());
        self.position.append_value(i64::try_from(row.position()).unwrap_or(i64::MAX));
        self.batch.append_value(i64::try_from(batch).unwrap_or(i64::MAX));
        for (builder, cell) in self.typed.iter_mut().zip(row.cells()) {
            builder.append(cell);
        }
        match std::str::from_utf8(row.leaf()) {
            Ok(leaf) => self.leaf.append_value(leaf),
            Err(_) => self.leaf.append_value(String::from_utf8_lossy(row.leaf())),
        }
        self.hash.append_value(row.hash().to_string());
        self.count += 1;
    }
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.origin.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.batch.finish()),
        ];
        columns.extend(self.typed.iter_mut().map(Builder::finish));
        columns.push(Arc::new(self.leaf.finish()));
        columns.push(Arc::new(self.hash.finish()));
        self.count = 0;
        RecordBatch::try_new(schema.clone(), columns)
    }
}
