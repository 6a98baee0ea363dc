//! `auditor show`: the whole story of one exchange.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use futures_util::TryStreamExt as _;
use schemas::{ExchangeId, Origin};
use serde_json::{Value, json};

use super::evidence::Opened;
use super::{evidence, out, query};
use crate::access::{self, Content};
use crate::cache::Cache;
use crate::cli::{Answer, AnswerFormat, ReportFormat, Show};
use crate::content::{self, PartContent, Reader};
use crate::render::hostile;
use crate::time;
use crate::turns::{self, Turn};

/// A proven record of the exchange.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) origin: Origin,
    pub(super) batch: u64,
    pub(super) position: u64,
    pub(super) leaf: Value,
}

/// Finds the exchange's records in the cache of proven rows.
pub(super) fn find(opened: &Opened, cache: &Cache<'_>, exchange: &ExchangeId) -> anyhow::Result<Vec<Found>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = Answer { format: AnswerFormat::Table, out: None, memory: 256 };
    let batches = runtime.block_on(async {
        let (context, _spill) = query::session(opened, cache, &[], &answer).await?;
        let sql = format!(
            "SELECT origin, batch, position, leaf FROM records WHERE exchange = '{exchange}' ORDER BY origin, position"
        );
        let rows = crate::query::stream(crate::query::ask(&context, &sql).await?).await?;
        anyhow::Ok(rows.try_collect::<Vec<_>>().await?)
    })?;
    let mut found = Vec::new();
    for rows in &batches {
        let text =
            |column: usize| arrow::compute::cast(rows.column(column), &arrow::datatypes::DataType::Utf8);
        let (origins, leaves) = (text(0)?, text(3)?);
        let number = |column: usize, row: usize| {
            u64::try_from(rows.column(column).as_primitive::<Int64Type>().value(row))
        };
        for row in 0..rows.num_rows() {
            found.push(Found {
                origin: Origin::new(origins.as_string::<i32>().value(row))?,
                batch: number(1, row)?,
                position: number(2, row)?,
                leaf: serde_json::from_str(leaves.as_string::<i32>().value(row))?,
            });
        }
    }
    Ok(found)
}

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, or an exchange that is not in it.
pub fn run(typed: &Show) -> anyhow::Result<u8> {
    let exchange = ExchangeId::new(typed.exchange.as_str())?;
    if !typed.evidence.key_table.is_empty() {
        typed.why.required("show --key-table")?;
    }
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let found = find(&opened, &cache, &exchange)?;
    if found.is_empty() {
        bail!("exchange {exchange} is in no proven record ({})", report.verdict.as_str());
    }
    let reader = Reader::new(&opened);
    let mut parts = Vec::new();
    let mut batches: Vec<_> = found.iter().map(|row| (row.origin.clone(), row.batch)).collect();
    batches.dedup();
    for (origin, number) in batches {
        let (_, batch) = reader.batch(&origin, number).context("reading the batch again")?;
        reader.parts(&batch, Some(&exchange), &mut |part| {
            parts.push(part);
            true
        })?;
    }
    parts.sort_by_key(|part| (part.position, part.part.part));
    let readable: Vec<_> = parts.iter().filter_map(|part| part.opened.as_ref()).collect();
    if !readable.is_empty() {
        let content = Content {
            command: "show",
            store: report.store.clone(),
            exchanges: vec![exchange.clone()],
            question: None,
            parts: Some(readable.len() as u64),
            bytes: Some(readable.iter().map(|(_, bytes)| bytes.len() as u64).sum()),
        };
        access::release(&opened.state, &typed.why, &content)?;
    }
    match typed.format {
        ReportFormat::Text => out(&story(&exchange, &found, &parts))?,
        ReportFormat::Json => {
            let value = as_json(&exchange, &found, &parts, &report);
            out(&(crate::render::json::harmless(&serde_json::to_string_pretty(&value)?) + "\n"))?;
        }
    }
    query::finish(&report, &[], None)
}

/// What was said in a part, where it is a body of a known form.
pub(crate) fn turns_of(part: &PartContent) -> Option<Vec<Turn>> {
    let text = content::text(part)?;
    use schemas::record::PartName;
    match part.part.part {
        PartName::ClientRequest | PartName::ProviderRequest => turns::request(&text),
        PartName::ProviderResponse | PartName::ClientResponse => turns::response(&text),
        _ => None,
    }
}

fn as_json(
    exchange: &ExchangeId,
    found: &[Found],
    parts: &[PartContent],
    report: &crate::report::Report,
) -> Value {
    let records: Vec<Value> = found
        .iter()
        .map(|row| json!({ "origin": row.origin, "position": row.position, "batch": row.batch, "record": row.leaf }))
        .collect();
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| {
            json!({
                "position": part.position, "part": part.part.part, "length": part.part.length, "state": part.state.as_str(),
                "media_type": part.part.media_type, "text": content::text(part), "turns": turns_of(part),
            })
        })
        .collect();
    json!({ "exchange": exchange, "verdict": report.verdict, "not_judged": report.not_judged, "records": records, "parts": parts })
}

pub(super) fn story(exchange: &ExchangeId, found: &[Found], parts: &[PartContent]) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "exchange {exchange}");
    for row in found {
        let kind = row.leaf.get("kind").and_then(Value::as_str).unwrap_or("?");
        let at = row.leaf.get("at").and_then(Value::as_i64).map(time::text).unwrap_or_default();
        let _ = writeln!(
            text,
            "\n{kind}  {at}  position {} of {}, batch {}",
            row.position, row.origin, row.batch
        );
        facts(&mut text, &row.leaf);
        for part in parts.iter().filter(|part| part.position == row.position) {
            let _ = writeln!(
                text,
                "  content {}: {} bytes, {}{}",
                part.part.part.as_str(),
                part.part.length,
                part.state.as_str(),
                part.part.media_type.as_ref().map(|kind| format!(", {kind}")).unwrap_or_default()
            );
            match (turns_of(part), content::text(part)) {
                (Some(turns), _) => turns.iter().for_each(|turn| say(&mut text, turn)),
                (None, Some(body)) => {
                    for line in hostile::lines(&body).lines().take(200) {
                        let _ = writeln!(text, "    | {line}");
                    }
                }
                (None, None) => {}
            }
        }
    }
    text
}

/// Every fact of a leaf but those that are shown otherwise.
fn facts(out: &mut String, value: &Value) {
    each_fact(value, "", &mut |name, line| {
        let _ = writeln!(out, "  {:<32} {}", hostile::line(name), hostile::line(line));
    });
}

/// Goes through the facts of a leaf: name and value of each. `path`: empty at the top.
pub(crate) fn each_fact(value: &Value, path: &str, see: &mut dyn FnMut(&str, &str)) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if path.is_empty() && ["v", "kind", "at", "exchange", "parts"].contains(&key.as_str()) {
            continue;
        }
        match value {
            Value::Object(inner) => match (inner.get("value"), inner.get("source")) {
                (Some(value), Some(source)) => {
                    see(&name, &format!("{} ({})", plain(value), plain(source)));
                }
                _ => each_fact(value, &name, see),
            },
            Value::Array(list) => see(&name, &list.iter().map(plain).collect::<Vec<_>>().join(", ")),
            value => see(&name, &plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn say(out: &mut String, turn: &Turn) {
    for item in &turn.items {
        let (label, body) = item.said(&turn.role);
        let _ = writeln!(out, "    {}:", hostile::line(&label));
        for line in hostile::lines(&body).lines() {
            let _ = writeln!(out, "      {line}");
        }
    }
}
