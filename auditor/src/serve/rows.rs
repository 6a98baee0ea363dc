//! Rows of a question as text.

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;

use crate::decimal::Decimal;
use crate::query;

/// A row: absent values are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row(pub(super) Vec<Option<String>>);

impl Row {
    /// A cell, where there is something in it.
    pub(super) fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }
    /// A number; 0 where there is none.
    pub(super) fn count(&self, column: usize) -> u64 {
        self.number(column).unwrap_or(0)
    }
    /// A number, where there is one.
    pub(super) fn number(&self, column: usize) -> Option<u64> {
        self.text(column)?.parse().ok()
    }
    /// A time, where there is one.
    pub(super) fn at(&self, column: usize) -> Option<i64> {
        self.text(column)?.parse().ok()
    }
    /// An amount, where there is one.
    pub(super) fn amount(&self, column: usize) -> Option<Decimal> {
        Decimal::parse(self.text(column)?)
    }
}

/// Asks, and gives at most so many rows.
///
/// # Errors
/// As the question fails.
pub(super) async fn ask(context: &SessionContext, sql: &str, most: usize) -> anyhow::Result<Vec<Row>> {
    let mut stream = query::stream(query::ask(context, sql).await?).await?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let columns: Vec<ArrayRef> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            if rows.len() == most {
                return Ok(rows);
            }
            let cell = |column: &ArrayRef| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            rows.push(Row(columns.iter().map(cell).collect()));
        }
    }
    Ok(rows)
}
