//! The table `exchanges` for a run of many questions: made once, in one pass over the rows, and not by a join for each.
//!
//! The rows of a log stand in the order of their positions, and an outcome comes after its intent. So only the intents
//! that have no outcome yet are held, and memory does not grow with the log. An outcome whose intent is not open when it
//! comes has no start here; the verification names every such one that is not explained by rows that are missing.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{
    Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use rayon::prelude::*;

use super::fact::Fact;
use crate::cache::{data_type, records_schema};

/// What a row says of its place in the story; the rest is handed on.
const PLACED: [&str; 10] = [
    "origin",
    "position",
    "kind",
    "at",
    "intent_position",
    "exchange",
    "decision",
    "served_provider",
    "served_target",
    "served_dialect",
];
/// Columns that are made here.
const MADE: [&str; 3] = ["state", "started_at", "ended_at"];
/// Where the bytes went first, whoever answered: beside the columns of the fact, each with the one that holds it.
pub(super) const FIRST: [(&str, &str); 3] =
    [("first_provider", "provider"), ("first_target", "target"), ("first_dialect", "dialect")];
/// Held rows that are let go only together with others: a copy of the rest costs less then.
const SLACK: usize = 8192;

/// Writes the exchanges of `records` (the cache's files, log by log in order) as Parquet files of the columns of `fact` and of [`FIRST`] into
/// `folder`: one for each processor at most. What is held counts against `memory`.
///
/// # Errors
/// A file that cannot be read or written; more exchanges without an end than memory holds.
pub fn write(
    records: &[PathBuf],
    fact: &Fact,
    folder: &Path,
    memory: &Arc<dyn MemoryPool>,
) -> anyhow::Result<(Vec<PathBuf>, SchemaRef)> {
    let fields = fact.fields.iter().map(|field| Field::new(field.name, data_type(field.kind), true));
    let first = FIRST.map(|(name, _)| Field::new(name, arrow::datatypes::DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.chain(first).collect::<Vec<_>>()));
    let logs: Vec<&[PathBuf]> = records.chunk_by(|one, other| one.parent() == other.parent()).collect();
    let share = logs.len().div_ceil(rayon::current_num_threads()).max(1);
    let files = logs
        .par_chunks(share)
        .enumerate()
        .map(|(n, logs)| {
            let file = folder.join(format!("exchanges-{n}.parquet"));
            let mut joining = Joining::new(&file, schema.clone(), memory)?;
            for log in logs {
                joining.log(log)?;
            }
            joining.writer.close()?;
            Ok(file)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok((files, schema))
}

/// How an exchange stands, by the record that says so.
#[derive(Clone, Copy)]
enum State {
    Ended,
    Refused,
    Open,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Open => "open",
        }
    }
}

/// What an outcome does not say again of its intent.
#[derive(Default)]
struct Begun {
    at: Option<i64>,
    decision: Option<Box<str>>,
}

/// Rows of a batch that are exchanges, and how each began.
#[derive(Default)]
struct Chosen {
    rows: Vec<u32>,
    states: Vec<State>,
    begun: Vec<Begun>,
}

impl Chosen {
    fn push(&mut self, row: usize, state: State, begun: Begun) -> anyhow::Result<()> {
        self.rows.push(u32::try_from(row)?);
        self.states.push(state);
        self.begun.push(begun);
        Ok(())
    }
}

struct Joining {
    schema: SchemaRef,
    writer: ArrowWriter<File>,
    /// Intents without an outcome, by position.
    open: HashMap<i64, Begun>,
    /// Their rows, and some of others.
    held: Vec<RecordBatch>,
    reserved: MemoryReservation,
}

impl Joining {
    fn new(file: &Path, schema: SchemaRef, memory: &Arc<dyn MemoryPool>) -> anyhow::Result<Self> {
        let out = File::create(file).with_context(|| format!("`{}`", file.display()))?;
        Ok(Self {
            writer: ArrowWriter::try_new(out, schema.clone(), Some(crate::cache::properties()?))?,
            schema,
            open: HashMap::new(),
            held: Vec::new(),
            reserved: MemoryConsumer::new("exchanges without an end").register(memory),
        })
    }

    /// One log, from its files in order.
    fn log(&mut self, files: &[PathBuf]) -> anyhow::Result<()> {
        for path in files {
            let at = || format!("cache `{}`", path.display());
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).with_context(at)?)?;
            let wanted = self.schema.fields().iter().map(|field| field.name().as_str());
            let wanted = wanted.filter(|name| !MADE.contains(name)).chain(PLACED);
            let wanted = wanted.chain(FIRST.map(|(_, of)| of));
            let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
            for batch in builder.with_projection(mask).build()? {
                self.batch(&batch.with_context(at)?)?;
            }
        }
        self.close()
    }

    fn batch(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let (kinds, exchanges) = (column(batch, "kind"), column(batch, "exchange"));
        let (kinds, exchanges) = (kinds.as_string::<i32>(), exchanges.as_string::<i32>());
        let (positions, intents) = (column(batch, "position"), column(batch, "intent_position"));
        let (positions, intents) =
            (positions.as_primitive::<Int64Type>(), intents.as_primitive::<Int64Type>());
        let times = column(batch, "at");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let decisions = column(batch, "decision");
        let decisions = decisions.as_string::<i32>();
        let mut chosen = Chosen::default();
        let mut begun = Vec::new();
        for row in 0..batch.num_rows() {
            match kinds.value(row) {
                "intent" => {
                    let decision = decisions.is_valid(row).then(|| decisions.value(row).into());
                    self.open.insert(positions.value(row), Begun { at: Some(times.value(row)), decision });
                    begun.push(row);
                }
                "outcome" => {
                    let intent = intents.is_valid(row).then(|| intents.value(row));
                    let begun = intent.and_then(|intent| self.open.remove(&intent));
                    chosen.push(row, State::Ended, begun.unwrap_or_default())?;
                }
                "refusal" if exchanges.is_valid(row) => {
                    let begun = Begun { at: Some(times.value(row)), decision: None };
                    chosen.push(row, State::Refused, begun)?;
                }
                _ => {}
            }
        }
        self.tell(batch, &chosen)?;
        begun.retain(|row| self.open.contains_key(&positions.value(*row)));
        self.hold(batch, &begun)
    }

    /// Holds rows of intents that are open at the end of their batch, and lets go of those that ended.
    fn hold(&mut self, batch: &RecordBatch, rows: &[usize]) -> anyhow::Result<()> {
        if !rows.is_empty() {
            let rows = rows.iter().map(|row| u32::try_from(*row)).collect::<Result<Vec<_>, _>>()?;
            self.held.push(take_record_batch(batch, &UInt32Array::from(rows))?);
        }
        let rows: usize = self.held.iter().map(RecordBatch::num_rows).sum();
        if rows > 2 * self.open.len() + SLACK {
            self.held = self.still_open()?.into_iter().collect();
        }
        let bytes: usize = self.held.iter().map(RecordBatch::get_array_memory_size).sum();
        self.reserved.try_resize(bytes + self.open.len() * 2 * size_of::<(i64, Begun)>())?;
        Ok(())
    }

    fn still_open(&self) -> anyhow::Result<Option<RecordBatch>> {
        let Some(first) = self.held.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &self.held)?;
        let positions = column(&all, "position");
        let open = positions.as_primitive::<Int64Type>().values().iter().zip(0_u32..);
        let open = open.filter(|(position, _)| self.open.contains_key(position)).map(|(_, row)| row);
        let open = UInt32Array::from(open.collect::<Vec<u32>>());
        Ok(Some(take_record_batch(&all, &open)?))
    }

    /// Tells what is open at the end of a log.
    fn close(&mut self) -> anyhow::Result<()> {
        if let Some(rest) = self.still_open()? {
            let times = column(&rest, "at");
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let mut chosen = Chosen::default();
            for row in 0..rest.num_rows() {
                let begun = Begun { at: Some(times.value(row)), decision: None };
                chosen.push(row, State::Open, begun)?;
            }
            self.tell(&rest, &chosen)?;
        }
        self.open.clear();
        self.held.clear();
        self.reserved.free();
        Ok(())
    }

    fn tell(&mut self, batch: &RecordBatch, chosen: &Chosen) -> anyhow::Result<()> {
        if chosen.rows.is_empty() {
            return Ok(());
        }
        let rows = take_record_batch(batch, &UInt32Array::from(chosen.rows.clone()))?;
        let times = column(&rows, "at");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let ended = chosen.states.iter().zip(times.values()).map(|(state, at)| match state {
            State::Ended | State::Refused => Some(*at),
            State::Open => None,
        });
        let utc = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
        let columns = self.schema.fields().iter().map(|field| match field.name().as_str() {
            "state" => {
                let states = chosen.states.iter().map(|state| Some(state.as_str()));
                Arc::new(states.collect::<StringArray>()) as ArrayRef
            }
            "started_at" => utc(chosen.begun.iter().map(|begun| begun.at).collect()),
            "decision" => decisions(&column(&rows, "decision"), &chosen.begun),
            "ended_at" => utc(ended.clone().collect()),
            // Who answered: where the first target did not, one that was tried behind it.
            name @ ("provider" | "target" | "dialect") => {
                first(&column(&rows, &format!("served_{name}")), &column(&rows, name))
            }
            name => {
                let first = FIRST.iter().find(|(first, _)| *first == name);
                column(&rows, first.map_or(name, |(_, of)| of))
            }
        });
        let columns: Vec<ArrayRef> = columns.collect();
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns)?)?;
        Ok(())
    }
}

/// The verdicts of rows: their own, else their intents'.
fn decisions(own: &ArrayRef, begun: &[Begun]) -> ArrayRef {
    let own = own.as_string::<i32>().iter().zip(begun);
    Arc::new(own.map(|(own, begun)| own.or(begun.decision.as_deref())).collect::<StringArray>())
}

/// The texts of `one`, else those of `other`.
fn first(one: &ArrayRef, other: &ArrayRef) -> ArrayRef {
    let both = one.as_string::<i32>().iter().zip(other.as_string::<i32>());
    Arc::new(both.map(|(one, other)| one.or(other)).collect::<StringArray>())
}

/// A column of proven rows; nothing where rows were kept before it was known.
fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    batch.column_by_name(name).cloned().unwrap_or_else(|| {
        let schema = records_schema();
        let kind =
            schema.field_with_name(name).map_or(arrow::datatypes::DataType::Null, |f| f.data_type().clone());
        new_null_array(&kind, batch.num_rows())
    })
}
