//! `auditor subject`: everything of one end user, to hand over; `auditor check-subject`: whether a folder still holds that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;
use schemas::verify::VerifiedBatch;
use schemas::{ExchangeId, Identifier, Origin};
use serde_json::Value;

use super::evidence::{self, Opened};
use super::show::{self, Found};
use super::{out, query};
use crate::access::{self, Content};
use crate::cli::{Answer, AnswerFormat, CheckSubject, Subject};
use crate::content::Reader;
use crate::paper::key;
use crate::proof::Bundle;
use crate::recipients;
use crate::render::hostile;
use crate::subject::folder::Folder;
use crate::subject::last::Last;
use crate::subject::manifest::{Exchange, FORMAT, Manifest, Record, SIGNATURE};
use crate::subject::{check as holds, is_handed_over, who};
use crate::time;

/// Exchanges that one question asks for.
const AT_ONCE: usize = 500;

/// Verified batches that are kept: exchanges come in the order of their time, and those that follow each other stand in one batch.
const BATCHES: usize = 4;

/// Runs `subject`.
///
/// # Errors
/// Evidence that cannot be opened, a subject that is in no proven record, a folder that cannot be written.
pub fn run(typed: &Subject) -> anyhow::Result<u8> {
    let subject = who::subject(&typed.subject, typed.pseudonym_key.as_deref())?;
    typed.why.required("subject")?;
    let key = typed.key.as_deref().map(key::read).transpose().context("--key")?;
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = Answer { format: AnswerFormat::Table, out: None, memory: typed.memory };
    let found = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer).await?;
        let exchanges = exchanges(&context, &subject, &opened).await?;
        records(&context, &exchanges).await
    })?;
    if found.is_empty() {
        bail!("subject {subject} is in no proven record of the interval ({})", report.verdict.as_str());
    }
    // Before the first byte of content is read.
    let content = Content {
        command: "subject",
        store: report.store.clone(),
        exchanges: found.keys().cloned().collect(),
        question: None,
        parts: None,
        bytes: None,
    };
    access::release(&opened.state, &typed.why, &content)?;
    let mut folder = Folder::new(&typed.out)?;
    let reader = Reader::new(&opened);
    let mut told = Vec::with_capacity(found.len());
    let mut batches = Last::new(BATCHES);
    for (exchange, rows) in &found {
        told.push(one(&mut folder, &reader, &mut batches, exchange, rows)?);
    }
    told.sort_by_key(|exchange| (exchange.began_at(), exchange.exchange.clone()));
    let manifest = Manifest {
        format: FORMAT.into(),
        deployment: opened.trust.deployment.clone(),
        subject,
        from: opened.from,
        to: opened.to,
        exchanges: told.len() as u64,
        recipients: recipients::once(told.iter().flat_map(|exchange| exchange.recipients.iter().cloned())),
        verdict: report.first_line(),
        trust_fingerprint: report.trust_fingerprint.clone(),
        made_at: report.checked_at,
        auditor: env!("CARGO_PKG_VERSION").into(),
        reason: typed.why.reason.clone().unwrap_or_default(),
        files: BTreeMap::new(),
    };
    let line = format!("{} exchanges of {} in `{}`\n", told.len(), manifest.subject, typed.out.display());
    folder.finish(manifest, &told, key.as_ref())?;
    let signed = key.map(|key| format!("manifest signed by {}\n", key.verifier)).unwrap_or_default();
    out(&(line + &signed))?;
    query::finish(&report, &[], None)
}

/// The exchanges whose proven records name the subject.
async fn exchanges(
    context: &SessionContext,
    subject: &Identifier,
    opened: &Opened,
) -> anyhow::Result<Vec<ExchangeId>> {
    let mut sql = format!("SELECT DISTINCT exchange FROM exchanges WHERE subject = '{subject}'");
    for (sign, at) in [(">=", opened.from), ("<", opened.to)] {
        if let Some(at) = at {
            let _ = write!(sql, " AND coalesce(started_at, ended_at) {sign} TIMESTAMP '{}'", time::text(at));
        }
    }
    let mut found = BTreeSet::new();
    for rows in
        crate::query::stream(crate::query::ask(context, &sql).await?).await?.try_collect::<Vec<_>>().await?
    {
        let ids = cast(rows.column(0), &DataType::Utf8)?;
        for row in 0..rows.num_rows() {
            found.insert(ExchangeId::new(ids.as_string::<i32>().value(row))?);
        }
    }
    Ok(found.into_iter().collect())
}

/// All records of these exchanges that are handed over, in order.
async fn records(
    context: &SessionContext,
    exchanges: &[ExchangeId],
) -> anyhow::Result<BTreeMap<ExchangeId, Vec<Found>>> {
    let mut found: BTreeMap<ExchangeId, Vec<Found>> = BTreeMap::new();
    for some in exchanges.chunks(AT_ONCE) {
        let list: Vec<String> = some.iter().map(|exchange| format!("'{exchange}'")).collect();
        let sql = format!(
            "SELECT exchange, origin, batch, position, leaf FROM records WHERE exchange IN ({}) ORDER BY origin, position",
            list.join(", ")
        );
        for rows in crate::query::stream(crate::query::ask(context, &sql).await?)
            .await?
            .try_collect::<Vec<_>>()
            .await?
        {
            let text = |column: usize| cast(rows.column(column), &DataType::Utf8);
            let (ids, origins, leaves) = (text(0)?, text(1)?, text(4)?);
            let number = |column: usize, row: usize| {
                u64::try_from(rows.column(column).as_primitive::<Int64Type>().value(row))
            };
            for row in 0..rows.num_rows() {
                let exchange = ExchangeId::new(ids.as_string::<i32>().value(row))?;
                let leaf = serde_json::from_str::<Value>(leaves.as_string::<i32>().value(row))?;
                if !is_handed_over(&leaf) {
                    continue;
                }
                found.entry(exchange).or_default().push(Found {
                    origin: Origin::new(origins.as_string::<i32>().value(row))?,
                    batch: number(2, row)?,
                    position: number(3, row)?,
                    leaf,
                });
            }
        }
    }
    Ok(found)
}

/// Writes one exchange: content, story, proof.
fn one(
    folder: &mut Folder,
    reader: &Reader,
    verified: &mut Last<(Origin, u64), (Bytes, VerifiedBatch)>,
    exchange: &ExchangeId,
    rows: &[Found],
) -> anyhow::Result<Exchange> {
    let mut bundle = Bundle::new(exchange.clone());
    let mut parts = Vec::new();
    let mut batches: Vec<_> = rows.iter().map(|row| (row.origin.clone(), row.batch)).collect();
    batches.dedup();
    for (origin, number) in batches {
        let read = |(origin, number): &(Origin, u64)| reader.batch(origin, *number);
        let (note, batch) = verified.of((origin.clone(), number), read).context("reading the batch again")?;
        bundle.add_where(batch, note, |leaf| {
            serde_json::from_slice(leaf).is_ok_and(|leaf| is_handed_over(&leaf))
        })?;
        reader.parts(batch, Some(exchange), &mut |part| {
            bundle.open(&origin, &part);
            parts.push(part);
            true
        })?;
    }
    parts.sort_by_key(|part| (part.position, part.part.part));
    let (story, proof) = folder.papers(&show::story(exchange, rows, &parts), &bundle)?;
    let records = rows
        .iter()
        .map(|row| Record { origin: row.origin.clone(), position: row.position, record: row.leaf.clone() })
        .collect();
    let parts = folder.parts(exchange, &parts)?;
    let recipients = recipients::of(rows.iter().map(|row| &row.leaf));
    Ok(Exchange { exchange: exchange.clone(), records, recipients, parts, story, proof })
}

/// What it means that a folder holds, and what not.
fn held(is_signed: bool, folder: &std::path::Path) -> String {
    let by = match is_signed {
        true => "which is signed by the given key",
        false if folder.join(SIGNATURE).exists() => {
            "which a signature names that was not checked: give `--key`"
        }
        false => "which nobody signed",
    };
    format!(
        "every record in it is signed, and all content is what they commit to; story, page and tables are held against the manifest \
         only, {by}"
    )
}

/// Runs `check-subject`.
///
/// # Errors
/// A folder or trust file that cannot be read: nothing is judged.
pub fn check(typed: &CheckSubject) -> anyhow::Result<u8> {
    let trust = crate::trust::read(&typed.trust, None)?;
    let key = typed.key.as_deref().map(key::verifier).transpose()?;
    let (manifest, checks) = holds::check(&typed.folder, &trust, key.as_ref())?;
    let wrong: Vec<_> = checks.iter().filter(|check| check.wrong.is_some()).collect();
    let mut text = format!(
        "{} {} exchanges of {}, {} files, made {}: {}\n",
        if wrong.is_empty() { "HOLDS" } else { "DOES NOT HOLD" },
        manifest.exchanges,
        manifest.subject,
        manifest.files.len(),
        time::text(manifest.made_at),
        if wrong.is_empty() { held(key.is_some(), &typed.folder) } else { "as follows".into() },
    );
    for check in &wrong {
        // Writing into a String cannot fail.
        let wrong = check.wrong.as_deref().unwrap_or_default();
        let _ = writeln!(text, "  {}  WRONG: {}", hostile::line(&check.what), hostile::line(wrong));
    }
    let _ = writeln!(text, "trust file fingerprint {}", trust.fingerprint()?);
    out(&text)?;
    Ok(u8::from(!wrong.is_empty()))
}
