//! `auditor query`: verify what is new, then ask the proven rows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;

use super::evidence::{self, Opened};
use crate::access::{self, Content};
use crate::cache::Cache;
use crate::cli::{Answer, AnswerFormat, Query};
use crate::query::{self, Register};
use crate::render::table::Writer;
use crate::render::{hostile, rests};
use crate::report::Report;
use crate::scratch::Scratch;

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, SQL that does not plan, an output that cannot be written.
pub fn run(typed: &Query) -> anyhow::Result<u8> {
    let opened = evidence::open(&typed.evidence)?;
    let registers: Vec<Register> =
        typed.table.iter().map(|table| Register::parse(table)).collect::<anyhow::Result<_>>()?;
    check(&typed.answer)?;
    if typed.content {
        typed.why.required("query --content")?;
    }
    let (report, cache) = verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (context, _spill) = session(&opened, &cache, &registers, &typed.answer).await?;
        if typed.content {
            let table = crate::content::table(&opened, &report)?;
            context.register_table("content", table)?;
            let content = Content {
                command: "query",
                store: report.store.clone(),
                exchanges: Vec::new(),
                question: Some(&typed.sql),
                parts: None,
                bytes: None,
            };
            let released = access::release(&opened.state, &typed.why, &content)?;
            let rows = answer_counted(&context, &typed.sql, &typed.answer).await?;
            return released.rows(&opened.state, rows);
        }
        answer(&context, &typed.sql, &typed.answer).await
    })?;
    finish(&report, &registers, Some(&typed.sql))
}

/// Verifies what is new; where the cache turns out to hold another log, everything.
pub(crate) fn verified(opened: &Opened) -> anyhow::Result<(Report, Cache<'_>)> {
    let (report, mut cache) = opened.verify_new()?;
    if !cache.is_stale() {
        return Ok((report, cache));
    }
    cache.forget_stale();
    // It is locked until then.
    drop(cache);
    opened.verify_new()
}

pub(super) fn check(answer: &Answer) -> anyhow::Result<()> {
    if answer.format == AnswerFormat::Parquet && answer.out.is_none() {
        bail!("`--format parquet` needs `--out FILE`");
    }
    Ok(())
}

/// A session over the proven rows, and the folder where it may spill.
pub(super) async fn session(
    opened: &Opened,
    cache: &Cache<'_>,
    registers: &[Register],
    answer: &Answer,
) -> anyhow::Result<(SessionContext, Scratch)> {
    let (records, batches) = cache.files();
    let spill = Scratch::new(opened.state.folder())?;
    let context = query::session(&records, &batches, registers, answer.memory, spill.path()).await?;
    Ok((context, spill))
}

/// Asks, and writes the rows as they come.
pub(super) async fn answer(context: &SessionContext, sql: &str, answer: &Answer) -> anyhow::Result<()> {
    answer_counted(context, sql, answer).await.map(drop)
}

/// As [`answer`]; gives how many rows there were.
async fn answer_counted(context: &SessionContext, sql: &str, answer: &Answer) -> anyhow::Result<u64> {
    let frame = query::ask(context, sql).await.map_err(harmless)?;
    let mut rows = query::stream(frame).await.map_err(harmless)?;
    let mut writer = Writer::new(answer.format, &rows.schema(), output(answer.out.as_deref())?)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| harmless(error.into()))?;
        count += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    unless_broken(writer.finish())?;
    Ok(count)
}

/// Writes rows that were computed.
pub(super) fn write_batches(
    schema: &SchemaRef,
    batches: impl IntoIterator<Item = RecordBatch>,
    answer: &Answer,
) -> anyhow::Result<()> {
    let mut writer = Writer::new(answer.format, schema, output(answer.out.as_deref())?)?;
    for batch in batches {
        writer.write(&batch)?;
    }
    unless_broken(writer.finish())
}

/// The file, or standard output.
pub(super) fn output(path: Option<&Path>) -> anyhow::Result<Box<dyn Write + Send>> {
    Ok(match path {
        Some(path) => {
            Box::new(BufWriter::new(File::create(path).with_context(|| format!("`{}`", path.display()))?))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    })
}

/// A reader that went away is no error.
pub(super) fn unless_broken(written: anyhow::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn harmless(error: anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", hostile::lines(&error.to_string()))
}

/// Says on standard error what the answer rests on; the exit code is the verdict's.
pub(super) fn finish(report: &Report, registers: &[Register], sql: Option<&str>) -> anyhow::Result<u8> {
    super::stderr().write_all(rests::text(report, registers, sql).as_bytes())?;
    Ok(report.verdict.exit_code())
}
