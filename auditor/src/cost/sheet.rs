//! An answer that was computed: named columns and rows, written as any other answer.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::decimal::{Decimal, SCALE};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Count,
    /// An exact decimal number.
    Money,
    /// A time, UTC.
    Time,
}

/// One cell; a cell of another kind than its column's is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// Text.
    Text(String),
    /// A whole number.
    Count(u64),
    /// An exact decimal number.
    Money(Decimal),
    /// A time, microseconds UTC.
    Time(i64),
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Empty, Self::Text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Decimal> for Cell {
    fn from(amount: Decimal) -> Self {
        Self::Money(amount)
    }
}

impl From<Option<Decimal>> for Cell {
    fn from(amount: Option<Decimal>) -> Self {
        amount.map_or(Self::Empty, Self::Money)
    }
}

/// Columns and rows.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Cell>>,
}

impl Sheet {
    /// With these columns.
    pub fn new<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        more: impl IntoIterator<Item = (&'a str, Kind)>,
    ) -> Self {
        let mut columns: Vec<(String, Kind)> =
            texts.into_iter().map(|name| (name.to_owned(), Kind::Text)).collect();
        columns.extend(more.into_iter().map(|(name, kind)| (name.to_owned(), kind)));
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// The Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let data_type = |kind: Kind| match kind {
            Kind::Text => DataType::Utf8,
            Kind::Count => DataType::Int64,
            Kind::Money => DataType::Decimal128(38, SCALE as i8),
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        };
        let fields = self.columns.iter().map(|(name, kind)| Field::new(name, data_type(*kind), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// As an Arrow batch.
    ///
    /// # Errors
    /// None that is known: every column has a cell for each row.
    pub fn batch(&self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (index, (_, kind)) in self.columns.iter().enumerate() {
            let cells = self.rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Empty));
            arrays.push(match kind {
                Kind::Text => Arc::new(
                    cells
                        .map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None })
                        .collect::<StringArray>(),
                ),
                Kind::Count => {
                    Arc::new(
                        cells
                            .map(|cell| {
                                if let Cell::Count(count) = cell { i64::try_from(*count).ok() } else { None }
                            })
                            .collect::<Int64Array>(),
                    )
                }
                Kind::Time => Arc::new(
                    cells
                        .map(|cell| if let Cell::Time(at) = cell { Some(*at) } else { None })
                        .collect::<TimestampMicrosecondArray>()
                        .with_timezone("UTC"),
                ),
                Kind::Money => Arc::new(
                    cells
                        .map(|cell| if let Cell::Money(amount) = cell { Some(amount.0) } else { None })
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(38, SCALE as i8)?,
                ),
            });
        }
        RecordBatch::try_new(self.schema(), arrays)
    }
}
