//! Rows as tables for people, CSV, JSON lines and Parquet. Text cells are made harmless in all but Parquet.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::bail;
use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::Value;

use super::hostile;
use crate::cli::AnswerFormat;

/// Rows that a table for people holds; more are counted.
const SHOWN: usize = 10_000;

/// Writes rows as they come.
pub enum Writer<W: Write + Send> {
    /// For people.
    Table(Table, usize, W),
    /// CSV.
    Csv(csv::Writer<W>),
    /// JSON lines.
    Jsonl(W, SchemaRef),
    /// Parquet.
    Parquet(Box<parquet::arrow::ArrowWriter<W>>),
}

/// Whether rows can be written in this form: JSON lines and Parquet know columns by their names.
///
/// # Errors
/// Names that two columns have.
pub fn holds(format: AnswerFormat, schema: &SchemaRef) -> anyhow::Result<()> {
    if matches!(format, AnswerFormat::Table | AnswerFormat::Csv) {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let twice: BTreeSet<&str> = names.filter(|name| !seen.insert(*name)).collect();
    if let Some(first) = twice.first() {
        let names: Vec<String> = twice.iter().map(|name| format!("`{}`", hostile::line(name))).collect();
        bail!(
            "more than one column is named {}: give them names with AS, as `{} AS another`",
            names.join(", "),
            hostile::line(first)
        );
    }
    Ok(())
}

impl<W: Write + Send> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl<W: Write + Send> Writer<W> {
    /// Begins an answer.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(format: AnswerFormat, schema: &SchemaRef, out: W) -> anyhow::Result<Self> {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        Ok(match format {
            AnswerFormat::Table => {
                let mut table = Table::new();
                table.load_preset(UTF8_FULL_CONDENSED);
                table.set_header(names().map(|name| hostile::line(name).into_owned()));
                Self::Table(table, 0, out)
            }
            AnswerFormat::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(names().map(|name| hostile::cell(name).into_owned()))?;
                Self::Csv(writer)
            }
            AnswerFormat::Jsonl => Self::Jsonl(out, schema.clone()),
            AnswerFormat::Parquet => {
                Self::Parquet(Box::new(parquet::arrow::ArrowWriter::try_new(out, schema.clone(), None)?))
            }
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        if let Self::Parquet(writer) = self {
            return Ok(writer.write(batch)?);
        }
        let options = FormatOptions::default().with_null("");
        let columns: Vec<(bool, &ArrayRef, ArrayFormatter<'_>)> = batch
            .columns()
            .iter()
            .map(|column| {
                Ok((is_text(column.data_type()), column, ArrayFormatter::try_new(column, &options)?))
            })
            .collect::<Result<_, arrow::error::ArrowError>>()?;
        for row in 0..batch.num_rows() {
            match self {
                Self::Table(table, count, _) => {
                    *count += 1;
                    if *count <= SHOWN {
                        table.add_row(
                            columns
                                .iter()
                                .map(|(_, _, cell)| hostile::line(&cell.value(row).to_string()).into_owned()),
                        );
                    }
                }
                Self::Csv(writer) => {
                    let cells = columns.iter().map(|(text, _, cell)| {
                        let value = cell.value(row).to_string();
                        if *text { hostile::cell(&value).into_owned() } else { value }
                    });
                    writer.write_record(cells)?;
                }
                Self::Jsonl(out, schema) => {
                    let mut object = serde_json::Map::new();
                    for (field, (text, column, cell)) in schema.fields().iter().zip(&columns) {
                        if !column.is_null(row) {
                            object.insert(field.name().clone(), json(*text, column, row, cell));
                        }
                    }
                    let line = serde_json::to_string(&Value::Object(object))?;
                    writeln!(out, "{}", super::json::harmless(&line))?;
                }
                Self::Parquet(_) => {}
            }
        }
        Ok(())
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Table(table, count, mut out) => {
                writeln!(out, "{table}")?;
                if count > SHOWN {
                    writeln!(out, "{SHOWN} of {count} rows; the other formats write all")?;
                }
                out.flush()?;
            }
            Self::Csv(mut writer) => writer.flush()?,
            Self::Jsonl(mut out, _) => out.flush()?,
            Self::Parquet(writer) => _ = writer.close()?,
        }
        Ok(())
    }
}

fn is_text(data_type: &DataType) -> bool {
    !(data_type.is_numeric() || data_type.is_temporal() || *data_type == DataType::Boolean)
}

/// Integers within 2^53 and booleans are JSON's own; decimals, larger numbers and times are strings.
fn json(text: bool, column: &ArrayRef, row: usize, cell: &ArrayFormatter<'_>) -> Value {
    if *column.data_type() == DataType::Boolean {
        return Value::Bool(column.as_boolean().value(row));
    }
    let value = cell.value(row).to_string();
    if !text && column.data_type().is_integer() {
        return match value.parse::<i64>() {
            Ok(number) if number.unsigned_abs() <= 1 << 53 => number.into(),
            _ => Value::String(value),
        };
    }
    Value::String(value)
}
