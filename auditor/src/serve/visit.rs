//! One verification pass, and the rows that it proved: as files of the visit's own, so that no other auditor waits for this one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tokio::runtime::Handle;

use super::filter::{BECAME, NAMES};
use super::rows;
use super::server::Settings;
use crate::assess::run::{Asked, assess};
use crate::assess::tables::{Proven, Shown};
use crate::cache::Cache;
use crate::commands::evidence::{self, Opened};
use crate::commands::query::verified;
use crate::cost::booked;
use crate::paper::data::{Data, PackLine, Sources};
use crate::paper::volumes::Measured;
use crate::query;
use crate::report::Report;
use crate::scratch::Scratch;

/// Rows that are read together: small, so that a filter by time leaves most of them unread.
const ROW_GROUP: usize = 16_384;
/// Values that a field of the form offers.
const CHOICES: usize = 200;

/// What a verification pass proved.
pub(super) struct Visit {
    /// Its number since the start, from 1.
    pub(super) number: u64,
    /// What was opened for it.
    pub(super) opened: Opened,
    /// Its report.
    pub(super) report: Report,
    /// The same as pages say it.
    pub(super) data: Data,
    /// The tables `records`, `exchanges` and `spent`.
    pub(super) context: SessionContext,
    /// The session that packs ask.
    pub(super) base: SessionContext,
    /// Values that the form offers, by field.
    pub(super) choices: BTreeMap<&'static str, Vec<String>>,
    /// Exchanges by what became of them.
    pub(super) became: Vec<(String, u64)>,
    /// Exchanges by the day on which they began.
    pub(super) days: Vec<(i64, u64)>,
    /// Packs that were asked over it.
    packs: Mutex<BTreeMap<String, Arc<PackLine>>>,
    /// Held while a pack is asked.
    pub(super) asking: Arc<tokio::sync::Mutex<()>>,
    /// The files of the session's `records`, log by log.
    pub(super) records: Vec<PathBuf>,
    // Last: the sessions read from it.
    scratch: Scratch,
}

impl Visit {
    /// A folder for what one question makes; gone with what is returned.
    pub(super) fn scratch(&self) -> std::io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.scratch.join(SPILL))
    }

    /// The answers of packs that were asked.
    pub(super) fn asked(&self) -> BTreeMap<String, Arc<PackLine>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps a pack's answers.
    pub(super) fn keep(&self, pack: &str, line: Arc<PackLine>) {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.to_owned(), line);
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("number", &self.number).finish_non_exhaustive()
    }
}

const SPILL: &str = "spill";

/// Keeps files of the cache under a folder of the visit, each log's in one of their own: another auditor may merge and sweep
/// them where they are.
fn keep(scratch: &Scratch, kind: &str, files: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::with_capacity(files.len());
    for (n, log) in files.chunk_by(|one, other| one.parent() == other.parent()).enumerate() {
        let folder = scratch.join(&format!("{kind}-{n}"));
        fs::create_dir(&folder)?;
        for file in log {
            let kept = folder.join(file.file_name().context("a file of the cache")?);
            fs::hard_link(file, &kept).or_else(|_| fs::copy(file, &kept).map(|_| ()))?;
            out.push(kept);
        }
    }
    Ok(out)
}

/// Verifies, and makes the tables. `all`: reads also what an earlier pass read.
///
/// # Errors
/// Evidence that cannot be opened, a state that cannot be written.
pub(super) fn make(settings: &Settings, number: u64, all: bool, handle: &Handle) -> anyhow::Result<Visit> {
    let opened = evidence::open_settled(&settings.evidence)?;
    let (report, cache) = if all { everything(&opened)? } else { verified(&opened)? };
    let scratch = Scratch::new(opened.state.folder())?;
    let (records, batches) = cache.files();
    let (records, batches) = (keep(&scratch, "records", &records)?, keep(&scratch, "batches", &batches)?);
    drop(cache);
    handle.block_on(async {
        let spill = scratch.join(SPILL);
        fs::create_dir(&spill)?;
        let base = query::session(&records, &batches, &[], settings.memory, &spill).await?;
        let context = SessionContext::new_with_config_rt(base.copied_config(), base.runtime_env());
        query::table(&context, "records", &records, crate::cache::records_schema()).await?;
        let exchanges = "SELECT * FROM exchanges ORDER BY started_at, origin, position";
        for (name, sql) in [("exchanges", exchanges.to_owned()), ("spent", spent())] {
            let path = scratch.join(&format!("{name}.parquet"));
            let schema = write(&base, &sql, &path).await.with_context(|| format!("the table `{name}`"))?;
            query::table(&context, name, &[path], schema).await?;
        }
        let shown = Shown {
            report: &report,
            asked: (opened.from, opened.asked_to),
            bucket: Err("no control asks for it".into()),
        };
        let nothing = Asked { packs: &[], registers: &[], settings: &[], only: &[], exceptions_file: None };
        let proven = Proven { session: &base, records: &records, folder: &spill };
        let assessment = assess(&proven, &shown, &nothing, &mut |_, _, _, _| Ok(())).await?;
        let data = Data::new(Sources {
            report: &report,
            assessment: &assessment,
            measured: Measured::default(),
            period_name: None,
            signer: String::new(),
        });
        let (choices, became, days) =
            (choices(&context).await?, became(&context).await?, days(&context).await?);
        let (packs, asking) = (Mutex::default(), Arc::default());
        anyhow::Ok(Visit {
            number,
            data,
            context,
            base,
            choices,
            became,
            days,
            packs,
            asking,
            opened,
            report,
            records,
            scratch,
        })
    })
}

fn everything(opened: &Opened) -> anyhow::Result<(Report, Cache<'_>)> {
    let (report, mut cache) = opened.verify(true)?;
    if !cache.is_stale() {
        return Ok((report, cache));
    }
    cache.forget_stale();
    drop(cache);
    opened.verify(true)
}

/// The outcomes whose cost is booked, or that have none and should.
fn spent() -> String {
    let unpriced = "cost IS NULL AND usage_role = 'incurred' AND usage_source <> 'not_applicable'";
    format!(
        "SELECT kind, at, currency, cost, CASE WHEN {unpriced} THEN 1 ELSE 0 END AS no_cost, \
         CASE WHEN ({unpriced}) AND usage_source = 'unknown' THEN 1 ELSE 0 END AS no_usage, \
         CASE WHEN usage_source IN ('provider', 'not_applicable') THEN 0 ELSE 1 END AS not_final, \
         {} AS model, team, consumer FROM {} WHERE booking = 1 AND (cost IS NOT NULL OR ({unpriced}))",
        query::MODEL_OF_DISPATCH,
        booked::subquery(None, None)
    )
}

/// Writes the rows of a question to a file.
async fn write(context: &SessionContext, sql: &str, path: &Path) -> anyhow::Result<SchemaRef> {
    let mut stream = query::stream(query::ask(context, sql).await?).await?;
    let schema = stream.schema();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP)).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema.clone(), Some(properties))?;
    while let Some(batch) = stream.next().await {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(schema)
}

async fn choices(context: &SessionContext) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
    let mut out = BTreeMap::new();
    for (name, compared, _) in NAMES {
        let sql = format!(
            "SELECT {compared} AS value, count(*) AS n FROM exchanges WHERE {compared} IS NOT NULL \
             GROUP BY {compared} ORDER BY n DESC, value LIMIT {CHOICES}"
        );
        let found = rows::ask(context, &sql, CHOICES).await?;
        let mut values: Vec<String> = found.iter().filter_map(|row| row.text(0).map(str::to_owned)).collect();
        values.sort();
        out.insert(name, values);
    }
    Ok(out)
}

async fn became(context: &SessionContext) -> anyhow::Result<Vec<(String, u64)>> {
    let sql = format!("SELECT {BECAME} AS became, count(*) FROM exchanges GROUP BY {BECAME} ORDER BY became");
    let found = rows::ask(context, &sql, 100).await?;
    Ok(found.iter().map(|row| (row.text(0).unwrap_or("?").to_owned(), row.count(1))).collect())
}

async fn days(context: &SessionContext) -> anyhow::Result<Vec<(i64, u64)>> {
    let sql = "SELECT CAST(day AS BIGINT) AS day, count(*) FROM exchanges WHERE day IS NOT NULL GROUP BY day ORDER BY day";
    let found = rows::ask(context, sql, 100_000).await?;
    Ok(found.iter().filter_map(|row| Some((row.at(0)?, row.count(1)))).collect())
}

impl Visit {
    /// All exchanges.
    pub(super) fn exchanges(&self) -> u64 {
        self.became.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_two_logs_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        let files: Vec<PathBuf> = ["one/a", "one/b", "two/a"].map(|name| dir.path().join(name)).into();
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, file.as_os_str().as_encoded_bytes()).unwrap();
        }
        let kept = keep(&scratch, "records", &files).unwrap();
        let logs: Vec<usize> =
            kept.chunk_by(|one, other| one.parent() == other.parent()).map(<[PathBuf]>::len).collect();
        assert_eq!(logs, [2, 1]);
        for (file, kept) in files.iter().zip(&kept) {
            assert_eq!(fs::read(kept).unwrap(), file.as_os_str().as_encoded_bytes());
        }
    }
}
