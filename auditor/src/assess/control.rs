//! Asks one control: what there is to look at, then the exceptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::Array as _;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::StreamExt as _;
use schemas::Sha256Hex;

use super::fact::{Rests, fact, is_evidence};
use super::pack::Control;
use super::result::{ControlResult, Shown, Status};
use super::tables::Tables;
use crate::query;
use crate::render::hostile;
use crate::report::Verdict;

/// Exceptions that are kept with the result.
pub const SHOWN: usize = 20;
/// Exchanges that are named with the result.
pub const EXCHANGES: usize = 100;

/// What the answers rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The verdict of the verification.
    pub verdict: Verdict,
    /// What was proven, in words.
    pub proven: String,
    /// What the bucket showed.
    pub bucket: Shelf,
    /// Findings that say that something could not be judged: a verdict may name something worse and leave them out.
    pub unjudged: u64,
}

/// What the bucket showed of its versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    /// In words.
    pub text: String,
    /// How many versions' locks were not read.
    pub unread: u64,
}

impl Standing {
    /// Why no exceptions are no pass: rows or versions may be missing or changed beyond what was proven.
    fn open(&self, kinds: &BTreeSet<Rests>) -> Option<String> {
        if kinds.is_empty() {
            return None;
        }
        let bucket = kinds.contains(&Rests::Bucket);
        if !matches!(self.verdict, Verdict::Verified | Verdict::Policy) {
            let verdict = self.verdict.as_str();
            return Some(format!(
                "no exceptions in what was proven, but the verdict is {verdict}: what is not proven may hold some"
            ));
        }
        if self.unjudged > 0 {
            return Some(format!(
                "no exceptions in what was proven, but {} findings say that something could not be judged: it may hold some",
                self.unjudged
            ));
        }
        (bucket && self.bucket.unread > 0)
            .then(|| format!("no exceptions, but the locks of {} versions were not read", self.bucket.unread))
    }

    /// On what an answer over these facts rests.
    fn text(&self, needs: &[String]) -> (BTreeSet<Rests>, String) {
        let kinds: BTreeSet<Rests> = needs
            .iter()
            .filter(|name| is_evidence(name))
            .filter_map(|name| Some(fact(name)?.rests))
            .collect();
        let mut parts = vec![format!("verdict {}", self.verdict.as_str())];
        for kind in &kinds {
            parts.push(match kind {
                Rests::Records => self.proven.clone(),
                Rests::Report if kinds.contains(&Rests::Records) => "what the verification reports".into(),
                Rests::Report => format!("what the verification reports of {}", self.proven),
                Rests::Bucket => self.bucket.text.clone(),
            });
        }
        let registers: Vec<&str> = needs
            .iter()
            .map(String::as_str)
            .filter(|name| fact(name).is_none() && *name != super::fact::SETTINGS)
            .collect();
        if !registers.is_empty() {
            parts.push(format!("the user's {}, no evidence", registers.join(", ")));
        }
        (kinds, parts.join("; "))
    }
}

/// What is told of every exception: the columns and the row.
pub type Sink<'a> = dyn FnMut(&[String], &[Option<String>]) -> anyhow::Result<()> + 'a;

/// What asking gave.
#[derive(Debug, Clone)]
pub struct Found {
    population: u64,
    exceptions: u64,
    shown: Shown,
}

/// Populations that were counted in this run: many controls look at the same things.
#[derive(Debug, Default)]
pub struct Populations(BTreeMap<(String, Vec<usize>), u64>);

/// What two controls have in common that ask the same of the same tables: their questions, and which tables these are.
pub type Question<'a> = (&'a str, &'a str, Vec<usize>);

/// The question of a control; nothing where a table is not there.
pub fn question<'a>(control: &'a Control, tables: &Tables) -> Option<Question<'a>> {
    Some((control.population.as_str(), control.finds.as_str(), tables.identity(&control.needs)?))
}

/// Asks a control; every exception goes to `sink`.
///
/// # Errors
/// `sink`'s own. A question that fails is a control that is not judged.
pub async fn run(
    control: &Control,
    tables: &Tables,
    runtime: &Arc<RuntimeEnv>,
    standing: &Standing,
    sink: &mut Sink<'_>,
) -> anyhow::Result<ControlResult> {
    let found = ask(control, tables, runtime, &mut Populations::default(), sink).await?;
    Ok(judge(control, tables, standing, &found))
}

/// Asks a control's question; every exception goes to `sink`. A question that fails is told as a text.
///
/// # Errors
/// `sink`'s own.
pub async fn ask(
    control: &Control,
    tables: &Tables,
    runtime: &Arc<RuntimeEnv>,
    populations: &mut Populations,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Result<Found, String>> {
    let mut failed = None;
    let mut told = |columns: &[String], row: &[Option<String>]| {
        let told = sink(columns, row);
        let wrong = told.is_err();
        if let Err(error) = told {
            failed = Some(error);
        }
        !wrong
    };
    let found = find(control, tables, runtime, populations, &mut told).await;
    match failed {
        Some(error) => Err(error),
        None => Ok(found.map_err(|error| hostile::line(&format!("{error:#}")).into_owned())),
    }
}

/// What an answer says of a control.
pub fn judge(
    control: &Control,
    tables: &Tables,
    standing: &Standing,
    found: &Result<Found, String>,
) -> ControlResult {
    let (kinds, rests) = standing.text(&control.needs);
    let mut out = ControlResult {
        id: control.id.clone(),
        title: control.title.clone(),
        rule: control.rule.clone(),
        asks: control.asks.clone(),
        status: Status::NotJudged,
        why: None,
        population: None,
        exceptions: 0,
        shown: Shown::default(),
        rests,
        supports: control.supports.clone(),
        leaves_open: control.leaves_open.clone(),
        fails: control.fails.clone(),
        question: control.finds.clone(),
        question_sha256: Sha256Hex::of(control.finds.as_bytes()),
    };
    let absent: Vec<String> = control.needs.iter().filter_map(|name| tables.table(name).err()).collect();
    if !absent.is_empty() {
        out.why = Some(absent.join("; "));
        return out;
    }
    match found {
        Err(error) => out.why = Some(format!("the question failed: {error}")),
        Ok(found) => {
            (out.population, out.exceptions, out.shown) =
                (Some(found.population), found.exceptions, found.shown.clone());
            if found.exceptions > 0 {
                out.status = Status::Exceptions;
            } else if found.population == 0 {
                out.why = Some("there was nothing to look at: a question over no rows is no pass".into());
            } else if let Some(why) = standing.open(&kinds) {
                out.why = Some(why);
            } else if kinds.is_empty() {
                out.status = Status::Stated;
            } else {
                out.status = Status::Met;
            }
        }
    }
    out
}

/// A session with the facts that the control names, and no others.
fn session(control: &Control, tables: &Tables, runtime: &Arc<RuntimeEnv>) -> anyhow::Result<SessionContext> {
    let mut config = SessionConfig::new();
    // As in `query`: rows of other kinds are left out while a file is read.
    config.options_mut().execution.parquet.pushdown_filters = true;
    let context = SessionContext::new_with_config_rt(config, runtime.clone());
    for name in &control.needs {
        context.register_table(name.as_str(), tables.table(name).map_err(anyhow::Error::msg)?)?;
    }
    Ok(context)
}

async fn find(
    control: &Control,
    tables: &Tables,
    runtime: &Arc<RuntimeEnv>,
    populations: &mut Populations,
    told: &mut dyn FnMut(&[String], &[Option<String>]) -> bool,
) -> anyhow::Result<Found> {
    let context = session(control, tables, runtime)?;
    let counted = (control.population.clone(), tables.identity(&control.needs).unwrap_or_default());
    let population = match populations.0.get(&counted) {
        Some(known) => *known,
        None => population(&context, &control.population).await.context("`population`")?,
    };
    populations.0.insert(counted, population);
    let mut out = Found { population, exceptions: 0, shown: Shown::default() };
    let frame = query::ask(&context, &control.finds).await.context("`finds`")?;
    let mut rows = query::stream(frame).await.context("`finds`")?;
    out.shown.columns = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let exchange = out.shown.columns.iter().position(|name| name == "exchange");
    let mut seen = BTreeSet::new();
    while let Some(batch) = rows.next().await {
        for row in texts(&batch.context("`finds`")?)? {
            out.exceptions += 1;
            if !told(&out.shown.columns, &row) {
                return Ok(out);
            }
            let id = exchange.and_then(|place| row.get(place)?.clone());
            if let Some(id) = id.filter(|id| seen.len() < EXCHANGES && !seen.contains(id)) {
                seen.insert(id.clone());
                out.shown.exchanges.push(id);
            }
            if out.shown.rows.len() < SHOWN {
                out.shown.rows.push(row);
            }
        }
    }
    Ok(out)
}

/// The one number that a question gives.
async fn population(context: &SessionContext, sql: &str) -> anyhow::Result<u64> {
    let batches = query::ask(context, sql).await?.collect().await?;
    let rows: Vec<_> = batches.iter().map(texts).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let number = match rows.as_slice() {
        [row] if row.len() == 1 => row[0].as_deref().and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.context("wanted one row with one number, as `SELECT count(*) FROM intent`")
}

/// The rows of a batch as texts.
fn texts(batch: &RecordBatch) -> anyhow::Result<Vec<Vec<Option<String>>>> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| Ok((column, ArrayFormatter::try_new(column, &options)?)))
        .collect::<Result<_, arrow::error::ArrowError>>()?;
    let row = |n: usize| {
        let cell = |(column, text): &(&arrow::array::ArrayRef, ArrayFormatter<'_>)| {
            (!column.is_null(n)).then(|| text.value(n).to_string())
        };
        columns.iter().map(cell).collect()
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
