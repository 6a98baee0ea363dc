//! SQL over proven rows: DataFusion on the cache's files, never on the store's.
//!
//! Tables: `records` (one row a record), `exchanges` (one row an exchange), `batches` (one row a sealed batch), the
//! user's own registers, and `content` where it was asked for; `leaf_text(leaf, 'caller.groups')` gives what is no column. Bounded memory; what is beyond it goes to disk.

mod fault;

pub use fault::told;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SQLOptions, SessionConfig, SessionContext,
};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use schemas::Sha256Hex;
use schemas::columns::{COLUMNS, Column};

use crate::assess::tables::leaf_text;
use crate::cache;
use crate::cost::booked;

/// A register of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The table's name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// SHA-256 of the file as it was copied.
    pub sha256: Sha256Hex,
    /// The copy: what is asked is what was hashed, whatever becomes of the file, and whatever its name holds.
    copy: PathBuf,
}

impl Register {
    /// Parses `name=file`, and copies and hashes the file. `folder`: where the copy goes.
    ///
    /// # Errors
    /// Another form, a name that is none, or a file that cannot be read.
    pub fn parse(typed: &str, folder: &Path) -> anyhow::Result<Self> {
        let wanted = || format!("`{typed}` is not a table: wanted `name=file.csv`");
        let (name, file) = typed.split_once('=').with_context(wanted)?;
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_name || ["records", "exchanges", "batches", "content"].contains(&name) {
            bail!("`{name}` cannot name a table: wanted `[a-z0-9_]+`, not one of the auditor's own");
        }
        let file = PathBuf::from(file);
        let extension = file.extension().and_then(|extension| extension.to_str());
        let Some(extension @ ("csv" | "parquet" | "jsonl" | "ndjson" | "json")) = extension else {
            bail!("table `{name}`: wanted a file that ends in `.csv`, `.parquet` or `.jsonl`");
        };
        let copy = folder.join(format!("{name}.{extension}"));
        let sha256 = copied(&file, &copy).with_context(|| format!("table `{name}`: `{}`", file.display()))?;
        Ok(Self { name: name.into(), file, sha256, copy })
    }

    async fn register(&self, context: &SessionContext) -> anyhow::Result<()> {
        let url = url(&self.copy)?;
        match self.copy.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => context.register_csv(&self.name, &url, CsvReadOptions::new()).await?,
            Some("parquet") => {
                context.register_parquet(&self.name, &url, ParquetReadOptions::default()).await?
            }
            extension => {
                let extension = format!(".{}", extension.unwrap_or_default());
                let options = JsonReadOptions::default().file_extension(&extension);
                context.register_json(&self.name, &url, options).await?;
            }
        }
        Ok(())
    }
}

/// Copies a file; gives the SHA-256 of what was copied.
fn copied(from: &Path, to: &Path) -> io::Result<Sha256Hex> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut hasher = schemas::digest::Hasher::default();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
    }
}

/// The URL of one file. A bare path in which `[`, `*` or `?` stands would be a pattern of many.
fn url(file: &Path) -> anyhow::Result<String> {
    let path = file.canonicalize().with_context(|| format!("`{}`", file.display()))?;
    let Some(path) = path.to_str() else {
        bail!(
            "`{}`: a path that is no UTF-8 cannot be asked; give another folder with `--state`",
            path.display()
        );
    };
    let mut out = "file://".to_owned();
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// Opens a session over proven rows.
///
/// # Errors
/// A file that cannot be read.
pub async fn session(
    records: &[PathBuf],
    batches: &[PathBuf],
    registers: &[Register],
    memory_mib: usize,
    spill: &Path,
) -> anyhow::Result<SessionContext> {
    let mut config = SessionConfig::new().with_information_schema(true);
    config.options_mut().execution.parquet.pushdown_filters = true;
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_mib << 20)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_udf(leaf_text());
    table(&context, "records", records, cache::records_schema()).await?;
    table(&context, "batches", batches, cache::batches_schema()).await?;
    let exchanges = format!("CREATE VIEW exchanges AS {}", booked::exchanges("records", &[]));
    context.sql(&exchanges).await?.collect().await?;
    for register in registers {
        register.register(&context).await?;
    }
    Ok(context)
}

/// A session with the settings, the memory and the spill folder of another, and without its tables.
pub fn like(context: &SessionContext) -> SessionContext {
    SessionContext::new_with_config_rt(context.copied_config(), context.runtime_env())
}

/// Registers Parquet files as a table; none of them are a table without rows.
///
/// # Errors
/// A file that cannot be read.
pub async fn table(
    context: &SessionContext,
    name: &str,
    files: &[PathBuf],
    schema: SchemaRef,
) -> anyhow::Result<()> {
    if files.is_empty() {
        let empty = datafusion::datasource::MemTable::try_new(
            schema.clone(),
            vec![vec![RecordBatch::new_empty(schema)]],
        )?;
        context.register_table(name, Arc::new(empty))?;
        return Ok(());
    }
    context.register_table(name, parquet(context, files, &schema).await?.into_view())?;
    Ok(())
}

/// The rows of Parquet files: all of them.
///
/// # Errors
/// A file that cannot be read, or rows that the engine does not find.
pub async fn parquet(
    context: &SessionContext,
    files: &[PathBuf],
    schema: &SchemaRef,
) -> anyhow::Result<DataFrame> {
    let urls: Vec<String> = files.iter().map(|file| url(file)).collect::<anyhow::Result<_>>()?;
    let rows = context.read_parquet(urls, ParquetReadOptions::default().schema(schema)).await?;
    let wanted = files.iter().map(|file| rows_of(file)).sum::<anyhow::Result<i64>>()?;
    // From the files' own footers: nothing is scanned.
    let found = i64::try_from(rows.clone().count().await?)?;
    if found != wanted {
        bail!(
            "{found} of {wanted} proven rows are found in {} files: no answer can rest on them",
            files.len()
        );
    }
    Ok(rows)
}

/// How many rows a Parquet file says that it has.
fn rows_of(file: &Path) -> anyhow::Result<i64> {
    let about = || format!("`{}`", file.display());
    let reader = SerializedFileReader::new(File::open(file).with_context(about)?).with_context(about)?;
    Ok(reader.metadata().file_metadata().num_rows())
}

/// Columns that only attempts (and holds) have.
const ATTEMPT: [&str; 6] =
    ["attempt_number", "phase", "attempt_target", "attempt_provider", "attempt_dialect", "attempt_model"];

/// What was sent to the target of which a record tells: where it is not number 0, not what number 0 was sent.
fn sent_model(table: &str) -> String {
    format!(
        "CASE WHEN {table}.served_number IS NULL THEN {table}.sent_model ELSE {table}.served_sent_model END"
    )
}

/// The model of a row of [`dispatches`]: that which served, was sent, was asked for.
pub const MODEL_OF_DISPATCH: &str = "coalesce(served_model, sent_model, requested_model)";

/// Why attempts end that nothing was sent for: nobody can charge them.
const NOT_SENT: &str = "'connect'";

/// A column of what an exchange cost, of a record of `table`; none where the exchange read an answer that another one incurred: every
/// read of it tells the same cost, and it is that other exchange's.
fn incurred(table: &str, name: &str) -> String {
    format!("CASE WHEN {table}.usage_role = 'retrieved' THEN NULL ELSE {table}.\"{name}\" END")
}

/// Columns that say what an exchange cost.
const COST: [&str; 3] = ["cost", "currency", "price_book"];

/// The columns of [`dispatches`] behind origin, position and leaves.
pub fn columns_of_dispatch() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|column| !ATTEMPT.contains(&column.name) || column.name == "attempt_number")
}

/// What was paid for, of the table `records`: each outcome, and each attempt that ended with usage, with who and what of
/// its intent; one whose intent is missing has nobody. An attempt that ended without an answer after bytes went to it may cost: its
/// usage is incurred and unknown. `provider`, `target`, `dialect` and `sent_model` are those that the bytes went to. `records`: a table of
/// its columns; `filter` is a condition on what ended.
pub fn dispatches(records: &str, filter: &str) -> String {
    let first = |one: &str, other: &str| format!("coalesce({one}, {other})");
    let (mut of_outcome, mut of_attempt) = (Vec::new(), Vec::new());
    for column in columns_of_dispatch() {
        let name = column.name;
        let (outcome, attempt) = match name {
            _ if COST.contains(&name) => (incurred("o", name), incurred("a", name)),
            "provider" | "target" | "dialect" => (
                first(&format!("o.served_{name}"), &format!("o.{name}")),
                first(&format!("a.attempt_{name}"), &format!("i.{name}")),
            ),
            "sent_model" => (
                sent_model("o"),
                "CASE WHEN a.attempt_number = 0 THEN coalesce(a.attempt_model, i.sent_model) ELSE a.attempt_model END"
                    .to_owned(),
            ),
            "attempt_number" => (first("o.served_number", "0"), "a.attempt_number".to_owned()),
            "usage_role" => ("o.usage_role".to_owned(), first("a.usage_role", "'incurred'")),
            "usage_source" => ("o.usage_source".to_owned(), first("a.usage_source", "'unknown'")),
            _ => {
                let from = if matches!(column.path, ["caller" | "asked", ..]) { "i" } else { "a" };
                (format!("o.\"{name}\""), format!("{from}.\"{name}\""))
            }
        };
        of_outcome.push(format!("{outcome} AS \"{name}\""));
        of_attempt.push(format!("{attempt} AS \"{name}\""));
    }
    format!(
        r#"SELECT o.origin, o.position, o.leaf, o.leaf_hash, CAST(NULL AS VARCHAR) AS intent_leaf, {}
          FROM (SELECT * FROM {records} WHERE kind = 'outcome' AND {filter}) o
        UNION ALL
        SELECT a.origin, a.position, a.leaf, a.leaf_hash, i.leaf AS intent_leaf, {}
          FROM (SELECT * FROM {records} WHERE kind = 'attempt' AND phase = 'end'
                AND (usage_role IS NOT NULL OR reason NOT IN ({NOT_SENT})) AND {filter}) a
          LEFT JOIN (SELECT * FROM {records} WHERE kind = 'intent') i
            ON a.origin = i.origin AND a.intent_position = i.position"#,
        of_outcome.join(", "),
        of_attempt.join(", "),
    )
}

/// One row an exchange: its outcome, its refusal, or its intent where it has no outcome yet, and what the outcome says that it
/// cost. `records`: a table of its columns; `more`: columns of that table to hand on.
pub fn exchanges_of(records: &str, more: &[&str]) -> String {
    let skip = ["kind", "at", "count", "intent_position"].into_iter().chain(ATTEMPT).collect::<Vec<_>>();
    let known = COLUMNS.iter().map(|column| column.name).filter(|name| !skip.contains(name));
    let columns: Vec<&str> = known.chain(more.iter().copied()).collect();
    let of =
        |table: &str| columns.iter().map(|name| format!("{table}.\"{name}\"")).collect::<Vec<_>>().join(", ");
    // The policy was asked before anything went out: an outcome does not say it again.
    let mut ended =
        of("o").replace("o.\"decision\"", "coalesce(o.\"decision\", i.\"decision\") AS \"decision\"");
    // Who answered: where the first target did not, one that was tried behind it.
    for name in ["provider", "target", "dialect"] {
        let served = format!("coalesce(o.\"served_{name}\", o.\"{name}\") AS \"{name}\"");
        ended = ended.replace(&format!("o.\"{name}\""), &served);
    }
    for name in COST {
        let cost = format!("{} AS \"{name}\"", incurred("o", name));
        ended = ended.replace(&format!("o.\"{name}\""), &cost);
    }
    // The nearest first: what the answer says, what was sent, what was asked for.
    let model = |table: &str| {
        let sent = sent_model(table);
        format!("coalesce({table}.served_model, {sent}, {table}.requested_model) AS model")
    };
    format!(
        r#"SELECT o.origin, o.position, o.intent_position, i.at AS started_at, o.at AS ended_at, 'ended' AS state,
               date_trunc('day', coalesce(i.at, o.at)) AS day, {model_o}, {ended}
          FROM (SELECT * FROM {records} WHERE kind = 'outcome') o
          LEFT JOIN (SELECT origin, position, at, decision FROM {records} WHERE kind = 'intent') i
            ON o.origin = i.origin AND o.intent_position = i.position
        UNION ALL
        SELECT r.origin, r.position, NULL AS intent_position, r.at AS started_at, r.at AS ended_at, 'refused' AS state,
               date_trunc('day', r.at) AS day, {model_r}, {columns_r}
          FROM {records} r WHERE r.kind = 'refusal' AND r.exchange IS NOT NULL
        UNION ALL
        SELECT n.origin, n.position, n.position AS intent_position, n.at AS started_at, NULL AS ended_at, 'open' AS state,
               date_trunc('day', n.at) AS day, {model_n}, {columns_n}
          FROM (SELECT * FROM {records} WHERE kind = 'intent') n
          LEFT ANTI JOIN (SELECT origin, intent_position FROM {records} WHERE kind = 'outcome') d
            ON n.origin = d.origin AND n.position = d.intent_position"#,
        model_o = model("o"),
        model_r = model("r"),
        model_n = model("n"),
        columns_r = of("r"),
        columns_n = of("n"),
    )
}

/// Plans a question. Only reading is allowed.
///
/// # Errors
/// SQL that does not plan, or that would change something.
pub async fn ask(context: &SessionContext, sql: &str) -> anyhow::Result<DataFrame> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    Ok(context.sql_with_options(sql, options).await?)
}

/// Runs a planned question.
///
/// # Errors
/// As the plan meets them.
pub async fn stream(frame: DataFrame) -> anyhow::Result<SendableRecordBatchStream> {
    Ok(frame.execute_stream().await?)
}

/// The columns of the table `content`.
pub fn content_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("exchange", DataType::Utf8, false),
        Field::new("part", DataType::Utf8, false),
        Field::new("media_type", DataType::Utf8, true),
        Field::new("content_encoding", DataType::Utf8, true),
        Field::new("length", DataType::Int64, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}
