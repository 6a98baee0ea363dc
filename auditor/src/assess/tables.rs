//! Makes the facts tables: views over proven rows, rows from the report, the versions of the bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{Array, AsArray as _, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;
use parquet::arrow::ArrowWriter;
use serde_json::Value as Json;

use super::exchanges;
use super::fact::{FACTS, FURTHER, FURTHER_TABLE, Fact, fact};
use super::rows::{Rows, Value};
use crate::bucket::kept::Kept;
use crate::finding::Code;
use crate::mandate::Claim;
use crate::query;
use crate::report::Report;
use crate::source::s3::Listing;
use crate::time::{self, DAY};

/// More days than this are not listed one by one.
const MOST_DAYS: usize = 40_000;

/// The tables of all facts, and why some are not there.
#[derive(Default, Clone)]
pub struct Tables {
    there: BTreeMap<String, Arc<dyn TableProvider>>,
    absent: BTreeMap<String, String>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tables({:?}, without {:?})", self.there.keys(), self.absent)
    }
}

/// The bucket's versions with their locks.
pub type Versions<'a> = (&'a Listing, Kept);

/// Proven rows: a session over them, the files that they stand in, log by log in order, and a private folder for what is made
/// of them once.
pub struct Proven<'a> {
    /// Has the tables `records` and `batches`.
    pub session: &'a SessionContext,
    /// The files of `records`.
    pub records: &'a [PathBuf],
    /// Is removed by whoever made it.
    pub folder: &'a Path,
}

impl std::fmt::Debug for Proven<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proven({} files)", self.records.len())
    }
}

/// What the tables are made of, beside proven rows.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The report of the verification.
    pub report: &'a Report,
    /// The asked interval, as far as it was given.
    pub asked: (Option<i64>, Option<i64>),
    /// The bucket; else why there is none.
    pub bucket: Result<Versions<'a>, String>,
}

impl Tables {
    /// Of every fact that is needed.
    ///
    /// # Errors
    /// A view that does not plan, rows that cannot be read or written.
    pub async fn new(
        proven: &Proven<'_>,
        shown: &Shown<'_>,
        needed: &BTreeSet<&str>,
    ) -> anyhow::Result<Self> {
        let session = query::like(proven.session);
        session.register_udf(leaf_text());
        for name in ["records", "batches"] {
            session.register_table(name, proven.session.table_provider(name).await?)?;
        }
        if let Some(fact) =
            fact("exchange").filter(|_| ["exchange", "sent"].iter().any(|n| needed.contains(n)))
        {
            let memory = &session.runtime_env().memory_pool;
            let (files, schema) = exchanges::write(proven.records, fact, proven.folder, memory)
                .with_context(|| format!("fact `{}`", fact.name))?;
            query::table(&session, "exchanges", &files, schema).await?;
        }
        if needed.contains("sent") {
            let further =
                kept(&session, FURTHER_TABLE, FURTHER, proven.folder).await.context("fact `sent`")?;
            session.register_table(FURTHER_TABLE, further)?;
        }
        let mut out = Self::default();
        for fact in FACTS.iter().filter(|fact| needed.contains(fact.name)) {
            let Some(sql) = view(fact, shown.asked) else { continue };
            let about = || format!("fact `{}`", fact.name);
            let table = match fact.is_rare() {
                true => kept(&session, fact.name, &sql, proven.folder).await,
                false => session.sql(&sql).await.map(|frame| frame.into_view()).map_err(anyhow::Error::from),
            };
            out.there.insert(fact.name.into(), table.with_context(about)?);
        }
        for (name, rows) in told(shown) {
            out.add(name, rows)?;
        }
        match &shown.bucket {
            Ok((listing, kept)) => out.add("obj", objects(listing, kept))?,
            Err(why) => out.without("obj", why),
        }
        Ok(out)
    }

    /// Adds a table of rows.
    ///
    /// # Errors
    /// None in practice.
    pub fn add(&mut self, name: &str, rows: Rows) -> anyhow::Result<()> {
        self.put(name, rows.table()?);
        Ok(())
    }

    /// Adds a table.
    pub fn put(&mut self, name: &str, table: Arc<dyn TableProvider>) {
        self.there.insert(name.into(), table);
    }

    /// Says why a table is not there.
    pub fn without(&mut self, name: &str, why: impl Into<String>) {
        self.absent.insert(name.into(), why.into());
    }

    /// Which tables the names stand for: the same numbers are the same tables. Nothing where one is not there.
    pub fn identity(&self, names: &[String]) -> Option<Vec<usize>> {
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        names.iter().map(|name| self.there.get(*name).map(|table| Arc::as_ptr(table).addr())).collect()
    }

    /// The table of a name; else why there is none.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>, String> {
        let why = || self.absent.get(name).cloned().unwrap_or_else(|| format!("there is no `{name}`"));
        self.there.get(name).cloned().ok_or_else(why)
    }
}

/// The rows of a fact, asked once and written down: later questions neither go through all records again nor read leaves.
async fn kept(
    session: &SessionContext,
    name: &str,
    sql: &str,
    folder: &Path,
) -> anyhow::Result<Arc<dyn TableProvider>> {
    let mut rows = session.sql(sql).await?.execute_stream().await?;
    let schema: SchemaRef = rows.schema();
    let file = folder.join(format!("{name}.parquet"));
    let mut writer =
        ArrowWriter::try_new(File::create(&file)?, schema.clone(), Some(crate::cache::properties()?))?;
    while let Some(batch) = rows.next().await {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(query::parquet(session, &[file], &schema).await?.into_view())
}

/// The view of a fact over proven rows.
fn view(fact: &Fact, (from, to): (Option<i64>, Option<i64>)) -> Option<String> {
    let view = fact.view?;
    let columns: Vec<String> =
        fact.fields.iter().map(|field| format!("{} AS \"{}\"", field.expression, field.name)).collect();
    let mut filter = view.filter.to_owned();
    for (operator, bound) in [(">=", from.filter(|_| !view.lasts)), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND {} {operator} TIMESTAMP '{}'", view.time, time::text(bound)));
        }
    }
    Some(format!("SELECT {} FROM {} WHERE {filter}", columns.join(", "), view.from))
}

/// `leaf_text(leaf, 'a.b')`: the leaf's value at a path as text; lists of texts joined by commas; null where there is none.
pub fn leaf_text() -> ScalarUDF {
    let text = || vec![DataType::Utf8, DataType::Utf8];
    create_udf(
        "leaf_text",
        text(),
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let [leaves, paths] = arrays.as_slice() else {
                return Err(datafusion::error::DataFusionError::Plan(
                    "leaf_text: wanted a leaf and a path".into(),
                ));
            };
            let (leaves, paths) = (leaves.as_string::<i32>(), paths.as_string::<i32>());
            let mut out = StringBuilder::new();
            for row in 0..leaves.len() {
                let there = !leaves.is_null(row) && !paths.is_null(row);
                out.append_option(there.then(|| at_path(leaves.value(row), paths.value(row))).flatten());
            }
            Ok(ColumnarValue::Array(Arc::new(out.finish())))
        }),
    )
}

fn at_path(leaf: &str, path: &str) -> Option<String> {
    let leaf: Json = serde_json::from_str(leaf).ok()?;
    let found = path.split('.').try_fold(&leaf, |value, key| value.get(key))?;
    plain(found)
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        Json::Array(list) if list.is_empty() => None,
        Json::Array(list) => Some(list.iter().filter_map(plain).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

/// The assessed interval: what was asked, else from the first asked moment to the last. It ends with the auditor's clock: what
/// is yet to come is no exception.
pub fn period(report: &Report, asked: (Option<i64>, Option<i64>)) -> (i64, i64) {
    let gateways = || report.gateways.iter().filter_map(|gateway| gateway.asked.or(gateway.proven));
    let from = asked.0.or(gateways().map(|asked| asked.from).min()).unwrap_or(report.checked_at);
    let to = asked.1.or(gateways().map(|asked| asked.to).max()).unwrap_or(report.checked_at);
    (from, to.min(report.checked_at).max(from))
}

/// What the report says, as rows.
fn told(shown: &Shown<'_>) -> Vec<(&'static str, Rows)> {
    let report = shown.report;
    let of = |name: &str| Rows::new(fact(name).map(Fact::columns).unwrap_or_default());
    let text = |text: &str| Value::Text(text.into());
    let mut verdict = of("verdict");
    verdict.push(&[
        text(report.verdict.as_str()),
        text(&report.deployment),
        text(&report.store),
        Value::Int(report.checked_at),
    ]);
    let mut claims = of("claim");
    for claim in &report.claims {
        claims.push(&[text(Claim::as_str(claim.claim)), Value::Bool(claim.reached), text(&claim.text)]);
    }
    let mut findings = of("finding");
    for (code, count) in report.findings.counts() {
        // The one that counts most: an effect may differ from the code's own.
        let worst = report.findings.iter().filter(|finding| finding.code == *code).max_by_key(|f| f.effect);
        let name = |value: Result<Json, serde_json::Error>| Value::text(value.ok().as_ref().and_then(plain));
        findings.push(&[
            text(code.as_str()),
            name(serde_json::to_value(worst.map_or(code.severity(), |worst| worst.severity))),
            name(serde_json::to_value(worst.map_or(code.effect(), |worst| worst.effect))),
            Value::count(*count),
        ]);
    }
    let (mut gateways, mut logs) = (of("gateway"), of("log"));
    for gateway in &report.gateways {
        gateways.push(&[
            text(&gateway.gateway),
            Value::time(gateway.asked.map(|asked| asked.from)),
            Value::time(gateway.asked.map(|asked| asked.to)),
            Value::time(gateway.proven.map(|proven| proven.from)),
            Value::time(gateway.proven.map(|proven| proven.to)),
            Value::Bool(gateway.closed),
        ]);
        for log in &gateway.logs {
            logs.push(&[
                text(log.origin.as_str()),
                text(&gateway.gateway),
                Value::count(log.size),
                Value::Text(log.root.to_string()),
                Value::Int(log.sealed_at),
                Value::text(log.closed.clone()),
                Value::count(log.open_exchanges),
            ]);
        }
    }
    let (from, to) = period(report, shown.asked);
    let mut interval = of("period");
    interval.push(&[Value::Int(from), Value::Int(to), Value::Int(report.checked_at)]);
    let mut days = of("day");
    let first = from.div_euclid(DAY);
    for day in (first..).take_while(|day| day * DAY < to).take(MOST_DAYS) {
        days.push(&[Value::Int(day * DAY)]);
    }
    let mut out = vec![
        ("verdict", verdict),
        ("claim", claims),
        ("finding", findings),
        ("gateway", gateways),
        ("log", logs),
        ("silence", silences(report, (from, to), of("silence"))),
        ("period", interval),
        ("day", days),
    ];
    let (mut registry, mut witnesses, mut stamps) = (of("reg"), of("witness"), of("stamp"));
    if let Some(found) = &report.registry {
        registry.push(&[
            text(found.origin.as_str()),
            Value::count(found.size),
            Value::Int(found.sealed_at),
            Value::count(found.keys),
            Value::count(found.logs),
        ]);
        for witness in &found.witnessed {
            witnesses.push(&[
                text(&witness.organisation),
                text(&witness.witness),
                Value::Int(witness.sealed_at),
                Value::Int(witness.cosigned_at),
            ]);
        }
        if let Some(stamp) = &found.timestamped {
            stamps.push(&[text(&stamp.authority), Value::Int(stamp.sealed_at), Value::Int(stamp.time)]);
        }
    }
    let mut keys = of("seal_key");
    for gateway in &report.trust_in_force.gateways {
        keys.push(&[
            text(&gateway.name),
            text(&gateway.key),
            Value::text(gateway.first_origin.as_ref().map(|origin| origin.as_str())),
            Value::text(gateway.last_origin.as_ref().map(|origin| origin.as_str())),
            Value::Bool(gateway.revoked.is_some()),
        ]);
    }
    out.extend([("reg", registry), ("witness", witnesses), ("stamp", stamps), ("seal_key", keys)]);
    out
}

/// Times without records, as far as they reach into the interval.
fn silences(report: &Report, (from, to): (i64, i64), mut out: Rows) -> Rows {
    let mut holes = Vec::new();
    let mut push = |gateway: &str, kind: &str, start: i64, end: i64| {
        if end > from && start < to {
            let (gateway, kind) = (Value::Text(gateway.into()), Value::Text(kind.into()));
            out.push(&[gateway, kind, Value::Int(start), Value::Int(end)]);
        }
    };
    for gateway in &report.gateways {
        for silence in &gateway.declared_silence {
            push(&gateway.gateway, "declared", silence.from, silence.to);
        }
        for log in &gateway.logs {
            for pair in log.proven.windows(2) {
                push(&gateway.gateway, "hole", pair[0].to, pair[1].from);
                holes.push((gateway.gateway.as_str(), pair[0].to, pair[1].from));
            }
        }
    }
    for finding in report.findings.iter() {
        let Some((start, end)) = finding.during else { continue };
        if matches!(finding.code, Code::Silence | Code::TailUnproven | Code::PeriodNotProven) {
            let place = &finding.place;
            let gateway = match &place.origin {
                Some(origin) => {
                    let of = |name: &&str| report.gateways.iter().any(|gateway| gateway.gateway == **name);
                    origin.split('/').nth(1).filter(of).unwrap_or(origin)
                }
                None => {
                    place.item.as_deref().and_then(|item| item.strip_prefix("gateway ")).unwrap_or_default()
                }
            };
            let told = |hole: &(&str, i64, i64)| hole.0 == gateway && hole.1 <= start && hole.2 >= end;
            if !holes.iter().any(told) {
                push(gateway, "unexplained", start, end);
            }
        }
    }
    out
}

/// The versions of a bucket but those of probes.
fn objects(listing: &Listing, kept: &Kept) -> Rows {
    let mut out = Rows::new(fact("obj").map(Fact::columns).unwrap_or_default());
    for (name, named) in &listing.objects {
        if crate::bucket::is_probe(name) {
            continue;
        }
        for version in &named.versions {
            let seen = kept.seen(name, &version.id);
            out.push(&[
                Value::Text(name.clone()),
                Value::Text(version.id.clone()),
                Value::Text(kind_of(name).into()),
                Value::count(version.length),
                Value::Int(version.last_modified),
                Value::time(seen.and_then(|seen| seen.sealed_at)),
                Value::Text(version.storage_class.clone()),
                Value::Bool(version.latest),
                Value::Bool(seen.is_some()),
                Value::text(seen.map(|seen| seen.mode.clone()).filter(|mode| !mode.is_empty())),
                Value::time(seen.map(|seen| seen.until).filter(|until| *until != 0)),
                seen.map_or(Value::Null, |seen| Value::Bool(seen.hold)),
            ]);
        }
    }
    out
}

/// What an object is, by its name.
fn kind_of(name: &str) -> &'static str {
    if name.ends_with(".seal") {
        "seal"
    } else if name.ends_with(".records.parquet") {
        "records"
    } else if name.ends_with(".reference.parquet") {
        "reference"
    } else if name.ends_with(".parquet") && name.contains(".content") {
        "content"
    } else {
        "other"
    }
}
