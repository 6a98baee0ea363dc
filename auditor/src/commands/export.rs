//! `auditor export`: proven rows in the forms of others.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;

use super::evidence::Opened;
use super::{evidence, query};
use crate::cli::{Answer, AnswerFormat, Export, ExportFormat};
use crate::cost::booked::{self, Books};
use crate::cost::spend::Spend;
use crate::export::{focus, ocsf};
use crate::render::json;
use crate::render::table::Writer;
use crate::report::Report;
use crate::{query as sql_query, time};

/// Rows that are written at once.
const BATCH_ROWS: usize = 8192;

/// Runs the command.
///
/// # Errors
/// As `query`.
pub fn run(typed: &Export) -> anyhow::Result<u8> {
    if typed.format == ExportFormat::Parquet && typed.out.is_none() {
        bail!("`--format parquet` needs `--out FILE`");
    }
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = |format| Answer { format, out: typed.out.clone(), memory: typed.memory };
    let sql = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer(AnswerFormat::Csv)).await?;
        match typed.format {
            ExportFormat::Focus => focus(&context, &opened, &report, typed).await,
            ExportFormat::Ocsf => ocsf(&context, &opened, typed).await,
            format => {
                let sql = format!(
                    "SELECT * FROM exchanges{} ORDER BY origin, position",
                    during("coalesce(ended_at, started_at)", &opened)
                );
                let format = match format {
                    ExportFormat::Parquet => AnswerFormat::Parquet,
                    ExportFormat::Jsonl => AnswerFormat::Jsonl,
                    _ => AnswerFormat::Csv,
                };
                query::answer(&context, &sql, &answer(format)).await?;
                Ok(sql)
            }
        }
    })?;
    query::finish(&report, &[], Some(&sql))
}

fn during(column: &str, opened: &Opened) -> String {
    let bounds: Vec<String> = [(">=", opened.from), ("<", opened.to)]
        .into_iter()
        .filter_map(|(operator, bound)| {
            Some(format!("{column} {operator} TIMESTAMP '{}'", time::text(bound?)))
        })
        .collect();
    if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) }
}

async fn focus(
    context: &SessionContext,
    opened: &Opened,
    report: &Report,
    typed: &Export,
) -> anyhow::Result<String> {
    let sql = booked::question(&[], opened.from, opened.to);
    let is_parquet =
        typed.out.as_ref().is_some_and(|out| out.extension().is_some_and(|end| end == "parquet"));
    let format = if is_parquet { AnswerFormat::Parquet } else { AnswerFormat::Csv };
    let mut sheet = focus::sheet();
    let mut writer = Writer::new(format, &sheet.schema(), query::output(typed.out.as_deref())?)?;
    let mut books = Books::new(&report.price_books);
    let account = typed.billing_account.as_deref().unwrap_or(&report.deployment);
    let mut spend = Spend::default();
    let written = booked::each(context, &sql, |booked| {
        spend.add(&booked);
        focus::add(&mut sheet, account, &booked, books.bill(&booked).ok().as_ref());
        if sheet.rows().len() >= BATCH_ROWS {
            writer.write(&sheet.batch()?)?;
            sheet = focus::sheet();
        }
        Ok(())
    })
    .await
    .and_then(|()| writer.write(&sheet.batch()?))
    .and_then(|()| writer.finish());
    query::unless_broken(written)?;
    let mut stderr = super::stderr();
    for line in spend.lines() {
        writeln!(stderr, "spent     {line}")?;
    }
    if spend.unpriced > 0 {
        writeln!(stderr, "left out  {} answers: FOCUS has no row without a cost", spend.unpriced)?;
    }
    Ok(sql)
}

async fn ocsf(context: &SessionContext, opened: &Opened, typed: &Export) -> anyhow::Result<String> {
    let sql = format!(
        "SELECT origin, position, kind, at, leaf_hash, leaf FROM records{} ORDER BY origin, position",
        during("at", opened)
    );
    let mut rows = sql_query::stream(sql_query::ask(context, &sql).await?).await?;
    let mut out = query::output(typed.out.as_deref())?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let (origins, kinds, hashes, leaves) = (text(0)?, text(2)?, text(4)?, text(5)?);
        let positions = batch.column(1).as_primitive::<Int64Type>();
        let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let leaf = leaves.as_string::<i32>().value(row);
            let record = ocsf::Record {
                origin: origins.as_string::<i32>().value(row),
                position: u64::try_from(positions.value(row)).unwrap_or(0),
                kind: kinds.as_string::<i32>().value(row),
                at: times.value(row),
                leaf_hash: hashes.as_string::<i32>().value(row),
                leaf: serde_json::from_str(leaf).context("a proven leaf")?,
            };
            let line = serde_json::to_string(&record.event())?;
            if let Err(error) = writeln!(out, "{}", json::harmless(&line)) {
                query::unless_broken(Err(error.into()))?;
                return Ok(sql);
            }
        }
    }
    query::unless_broken(out.flush().map_err(Into::into))?;
    Ok(sql)
}
