//! `auditor query`: verify what is new, then ask the proven rows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

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
use crate::render::table::{self, Writer};
use crate::render::{hostile, rests};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::time;

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, SQL that does not plan, an output that cannot be written.
pub fn run(typed: &Query) -> anyhow::Result<u8> {
    let opened = evidence::open(&typed.evidence)?;
    let copies = Scratch::new(opened.state.folder())?;
    let parse = |table: &String| Register::parse(table, copies.path());
    let registers: Vec<Register> = typed.table.iter().map(parse).collect::<anyhow::Result<_>>()?;
    check(&typed.answer)?;
    if typed.content {
        typed.why.required("query --content")?;
    }
    let (report, cache) = verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (context, _spill) = session(&opened, &cache, &registers, &typed.answer).await?;
        if typed.content {
            let (table, unopened) = crate::content::table(&opened, &report)?;
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
            // The content is out: nothing comes before it is noted.
            released.rows(&opened.state, rows)?;
            let unopened = unopened.load(Ordering::Relaxed);
            if unopened > 0 {
                let _ = writeln!(
                    io::stderr(),
                    "content   {unopened} parts that were read have no key here (`state` is `no_key`): their `text` is \
                     absent; `--key-table` gives keys"
                );
            }
            return Ok(());
        }
        answer(&context, &typed.sql, &typed.answer).await
    })?;
    if let Some(line) = uncut(opened.from, opened.to) {
        writeln!(io::stderr(), "{line}")?;
    }
    finish(&report, &registers, Some(&typed.sql))
}

/// Says that an asked interval does not cut the rows.
fn uncut(from: Option<i64>, to: Option<i64>) -> Option<String> {
    let from = from.map(|at| format!(" from {}", time::text(at)));
    let to = to.map(|at| format!(" to {}", time::text(at)));
    if from.is_none() && to.is_none() {
        return None;
    }
    let asked = from.into_iter().chain(to).collect::<String>();
    Some(format!("rows      are all that are proven, not only those{asked}: a `WHERE` cuts them"))
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
    let failed = |error| harmless(query::told(error, context));
    let frame = query::ask(context, sql).await.map_err(failed)?;
    let mut rows = query::stream(frame).await.map_err(failed)?;
    let mut writer = writer(&rows.schema(), answer)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| failed(error.into()))?;
        count += batch.num_rows() as u64;
        if let Err(error) = writer.write(&batch) {
            return unless_broken(Err(error)).map(|()| count);
        }
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
    let mut writer = writer(schema, answer)?;
    for batch in batches {
        if let Err(error) = writer.write(&batch) {
            return unless_broken(Err(error));
        }
    }
    unless_broken(writer.finish())
}

fn writer(schema: &SchemaRef, answer: &Answer) -> anyhow::Result<Writer<Box<dyn Write + Send>>> {
    table::holds(answer.format, schema)?;
    Writer::new(answer.format, schema, output(answer.out.as_deref())?)
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
    let of_csv = |error: &anyhow::Error| match error.downcast_ref::<csv::Error>()?.kind() {
        csv::ErrorKind::Io(error) => Some(error.kind()),
        _ => None,
    };
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or_else(|| of_csv(error));
    kind == Some(io::ErrorKind::BrokenPipe)
}

fn harmless(error: anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", hostile::lines(&error.to_string()))
}

/// Says on standard error what the answer rests on; the exit code is the verdict's.
pub(super) fn finish(report: &Report, registers: &[Register], sql: Option<&str>) -> anyhow::Result<u8> {
    super::stderr().write_all(rests::text(report, registers, sql).as_bytes())?;
    Ok(report.verdict.exit_code())
}

#[cfg(test)]
mod tests {
    use super::uncut;

    #[test]
    fn an_asked_interval_is_said_not_to_cut_the_rows() {
        assert_eq!(uncut(None, None), None);
        let line = uncut(Some(0), Some(1_000_000)).unwrap();
        assert!(
            line.contains(" from 1970-01-01T00:00:00") && line.contains(" to 1970-01-01T00:00:01"),
            "{line}"
        );
    }
}
