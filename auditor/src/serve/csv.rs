//! The exchanges that a filter lets through, as CSV: sent as they are read, never held as a whole.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::filter::{Filter, where_all};
use super::visit::Visit;
use crate::cli::AnswerFormat;
use crate::query;
use crate::render::table::Writer;
use crate::time;

/// Bytes that are sent together.
const CHUNK: usize = 64 << 10;
/// How long a reader may take for one chunk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Chunks on their way to a reader.
pub(super) type Chunks = Sender<Result<Bytes, io::Error>>;

/// The file's name: it says of when the evidence is, and what its verdict was where that was not VERIFIED.
pub(super) fn name(visit: &Visit) -> String {
    let at = time::text(visit.report.checked_at.div_euclid(time::SECOND).saturating_mul(time::SECOND));
    let at: String = at.chars().filter(char::is_ascii_alphanumeric).collect();
    match visit.report.verdict.exit_code() {
        0 => format!("exchanges-{at}.csv"),
        _ => format!("exchanges-{}-{at}.csv", visit.report.verdict.as_str()),
    }
}

/// Sends the rows.
///
/// # Errors
/// As the query fails, or as the reader goes away or is too slow.
pub(super) async fn send(visit: &Visit, filter: &Filter, chunks: &Chunks) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT * FROM exchanges{} ORDER BY started_at, origin, position",
        where_all(&filter.conditions())
    );
    let mut rows = query::stream(query::ask(&visit.context, &sql).await?).await?;
    let written = Written::default();
    let mut writer = Writer::new(AnswerFormat::Csv, &rows.schema(), written.clone())?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch?)?;
        written.send(chunks).await?;
    }
    writer.finish()?;
    written.send(chunks).await
}

/// What was written and not sent yet: the rows of one batch at most.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    async fn send(&self, chunks: &Chunks) -> anyhow::Result<()> {
        let written = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rest = Bytes::from(written);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            timeout(PATIENCE, chunks.send(Ok(chunk)))
                .await
                .context("the reader is too slow")?
                .context("the reader went away")?;
        }
        Ok(())
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
