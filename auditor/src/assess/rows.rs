//! Rows of a fact, from what is not Arrow yet: the report, the user's registers, a case's rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use schemas::columns::{Cell, ColumnKind, parse_decimal};

use crate::cache::{Builder, data_type};
use crate::time;

/// A column's name and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// How a kind is written in packs.
pub fn kind_name(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Utf8 => "text",
        ColumnKind::Int64 => "integer",
        ColumnKind::Bool => "boolean",
        ColumnKind::Decimal => "decimal",
        ColumnKind::TimestampUs => "time",
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing is known.
    Null,
    /// Text.
    Text(String),
    /// A number, or a time in microseconds UTC.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// Units of 10^-12.
    Decimal(i128),
}

impl Value {
    /// Text, where there is some.
    pub fn text(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }
    /// A count.
    pub fn count(count: u64) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
    /// A time, where there is one.
    pub fn time(at: Option<i64>) -> Self {
        at.map_or(Self::Null, Self::Int)
    }
    /// Reads a value as it is typed in a register or a case; empty is null.
    ///
    /// # Errors
    /// The value with the wanted form.
    pub fn parse(kind: ColumnKind, text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let wrong = |wanted: &str| format!("`{text}`: wanted {wanted}");
        match kind {
            ColumnKind::Utf8 => Ok(Self::Text(text.into())),
            ColumnKind::Int64 => text.parse().map(Self::Int).map_err(|_| wrong("a whole number, as `42`")),
            ColumnKind::Bool => match text {
                "true" => Ok(Self::Bool(true)),
                "false" => Ok(Self::Bool(false)),
                _ => Err(wrong("`true` or `false`")),
            },
            ColumnKind::Decimal => {
                parse_decimal(text).map(Self::Decimal).ok_or_else(|| wrong("a decimal, as `0.25`"))
            }
            ColumnKind::TimestampUs => time::parse(text).map(Self::Int),
        }
    }
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Text(text) => Cell::Text(text),
            Self::Int(n) => Cell::Int(*n),
            Self::Bool(b) => Cell::Bool(*b),
            Self::Decimal(n) => Cell::Decimal(*n),
        }
    }
}

/// Collects rows for a table in memory.
pub struct Rows {
    columns: Vec<Column>,
    builders: Vec<Builder>,
    count: u64,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({})", self.count)
    }
}

impl Rows {
    /// Of these columns.
    pub fn new(columns: Vec<Column>) -> Self {
        let builders = columns.iter().map(|column| Builder::new(column.kind)).collect();
        Self { columns, builders, count: 0 }
    }
    /// Adds a row: one value a column, in their order.
    pub fn push(&mut self, values: &[Value]) {
        let missing = std::iter::repeat(&Value::Null);
        for (builder, value) in self.builders.iter_mut().zip(values.iter().chain(missing)) {
            builder.append(value.cell());
        }
        self.count += 1;
    }
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
    /// The table.
    ///
    /// # Errors
    /// None in practice: columns and values are of one kind.
    pub fn table(mut self) -> Result<Arc<MemTable>, DataFusionError> {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, data_type(column.kind), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let batch: Result<RecordBatch, ArrowError> = RecordBatch::try_new(schema.clone(), arrays);
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch?]])?))
    }
}
