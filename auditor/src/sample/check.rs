//! A folder of working papers, against the proven rows: the same draw must come out.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::TryStreamExt as _;
use schemas::trust::Trust;
use schemas::{Origin, Sha256Hex, leaf};
use serde_json::Value;

use super::beacon::{self, Beacon};
use super::draw::{Draw, draw};
use super::method::Method;
use super::papers::{self, METHOD, SAMPLE, SEED, proof_name};
use super::seed::{self, FORMAT, FORMATS, Head};
use crate::proof::{self, Bundle, Check};
use crate::{query, time};

/// The largest file of a folder.
const LIMIT: u64 = 1 << 30;

/// What was checked, and what is only said.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every check.
    pub checks: Vec<Check>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Checked {
    fn done(&mut self, what: impl Into<String>, result: Result<(), String>) {
        self.checks.push(Check { what: what.into(), wrong: result.err() });
    }

    /// Whether all holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.wrong.is_none())
    }
}

/// Reads `method.json` of a folder.
///
/// # Errors
/// There is none, or it is of another form.
pub fn method(folder: &Path) -> anyhow::Result<Method> {
    let shown = folder.join(METHOD).display().to_string();
    let method: Value = serde_json::from_str(&read(folder, METHOD)?).with_context(|| format!("`{shown}`"))?;
    match method.get("format").and_then(Value::as_str) {
        Some(FORMAT) => {}
        Some(other) if other.starts_with(FORMATS) => bail!(
            "`{shown}`: these papers were drawn by `{other}`, and this build draws by `{FORMAT}`: the same draw does not come out. \
             Check them with a build that draws as they were drawn, or draw anew"
        ),
        _ => bail!("`{shown}`: wanted `format`: `{FORMAT}`"),
    }
    serde_json::from_value(method).with_context(|| format!("`{shown}`"))
}

fn read(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    let shown = || format!("`{}`", path.display());
    if fs::metadata(&path).with_context(shown)?.len() > LIMIT {
        bail!("{} has more than {LIMIT} bytes", shown());
    }
    fs::read_to_string(&path).with_context(shown)
}

fn same<T: PartialEq>(found: &T, again: &T, told: impl Fn(&T) -> String) -> Result<(), String> {
    if found == again { Ok(()) } else { Err(format!("{}, again {}", told(found), told(again))) }
}

/// Repeats the draw and compares; every check is listed.
///
/// # Errors
/// A folder that cannot be read, or as the queries.
pub async fn check(
    context: &SessionContext,
    folder: &Path,
    method: &Method,
    trust: &Trust,
) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let parameters = &method.parameters;
    checked.done("deployment", same(&parameters.deployment, &trust.deployment, Clone::clone));
    let text = seed::text(parameters, &method.heads);
    let stands = read(folder, SEED)?;
    let differs = || format!("`{SEED}` is not made of what `{METHOD}` says");
    checked.done("seed's text", if stands == text { Ok(()) } else { Err(differs()) });
    checked.done("seed", same(&method.seed, &Sha256Hex::of(text.as_bytes()), ToString::to_string));
    let newest = method.heads.iter().map(|head| head.sealed_at).max();
    let beacon = Beacon::parse(&parameters.seed_from, parameters.seed_at);
    match beacon.and_then(|beacon| beacon.is_later(newest.unwrap_or(i64::MAX), time::now())) {
        Ok(true) => checked.done("public value later than the newest seal", Ok(())),
        Ok(false) => checked.notes.push("nobody said when the public value came out".into()),
        Err(wrong) => checked.done("public value", Err(wrong)),
    }
    let source = beacon::provenance(&parameters.seed_from);
    checked.notes.push(format!("that this is the public value is not checked here, look it up: {source}"));
    heads(context, &method.heads, &mut checked).await?;
    let again = draw(context, &mut parameters.clone(), &method.heads).await;
    match again {
        Err(error) => checked.done("draw", Err(format!("{error:#}"))),
        Ok(again) => compare(folder, method, &again, trust, &mut checked)?,
    }
    Ok(checked)
}

fn compare(
    folder: &Path,
    method: &Method,
    again: &Draw,
    trust: &Trust,
    checked: &mut Checked,
) -> anyhow::Result<()> {
    checked.done(
        "population",
        same(&method.population, &again.population, |population| {
            format!("{} exchanges, SHA-256 {}", population.exchanges, population.sha256)
        }),
    );
    checked.done("strata", same(&method.strata, &again.strata, |strata| format!("{} strata", strata.len())));
    let units = |units: &Option<super::method::UnitsDrawn>| {
        units.as_ref().map_or("none".into(), |units| format!("{} from {} on", units.total, units.start))
    };
    checked.done("units of money", same(&method.units, &again.units, units));
    let csv = papers::csv(again, &method.parameters.by)?;
    let stands = read(folder, SAMPLE)?;
    let differs = || format!("`{SAMPLE}` is not what is drawn again: {} exchanges", again.drawn.len());
    checked.done("sample", if stands == csv { Ok(()) } else { Err(differs()) });
    let hash = Sha256Hex::of(csv.as_bytes());
    checked.done("sample's hash", same(&method.sample_sha256, &hash, ToString::to_string));
    checked.done("count", same(&method.drawn, &(again.drawn.len() as u64), ToString::to_string));
    for drawn in &again.drawn {
        let item = &drawn.item;
        let what = format!("proof of {}", item.exchange);
        let result = read(folder, &proof_name(&item.exchange))
            .map_err(|error| format!("{error:#}"))
            .and_then(|text| serde_json::from_str::<Bundle>(&text).map_err(|error| error.to_string()))
            .and_then(|bundle| proven(&bundle, item, trust));
        checked.done(what, result);
    }
    Ok(())
}

fn proven(bundle: &Bundle, item: &super::population::Item, trust: &Trust) -> Result<(), String> {
    if bundle.exchange.as_str() != item.exchange {
        return Err(format!("it is of exchange {}", bundle.exchange));
    }
    for check in proof::check(bundle, trust) {
        if let Some(wrong) = check.wrong {
            return Err(format!("{}: {wrong}", check.what));
        }
    }
    let of_log = || bundle.records.iter().filter(|record| record.origin.as_str() == item.origin);
    let has = |hash: &str| of_log().any(|record| leaf::hash(record.leaf.as_bytes()).to_string() == hash);
    if !of_log().any(|record| record.position == item.position) || !has(&item.leaf_hash) {
        return Err("it does not hold the records that were drawn".into());
    }
    Ok(())
}

/// Every head must be a proven tree of its log; what the store held besides by then is told.
async fn heads(context: &SessionContext, heads: &[Head], checked: &mut Checked) -> anyhow::Result<()> {
    let newest = heads.iter().map(|head| head.sealed_at).max().unwrap_or(i64::MIN);
    let mut found: Vec<(Origin, u64, String, i64)> = Vec::new();
    let sql = "SELECT origin, to_position, root, sealed_at FROM batches";
    let rows = query::stream(query::ask(context, sql).await?).await?;
    for batch in rows.try_collect::<Vec<_>>().await? {
        let (origins, roots) =
            (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(2), &DataType::Utf8)?);
        let times = cast(batch.column(3), &DataType::Int64)?;
        for row in 0..batch.num_rows() {
            found.push((
                Origin::new(origins.as_string::<i32>().value(row))?,
                u64::try_from(batch.column(1).as_primitive::<Int64Type>().value(row))?,
                roots.as_string::<i32>().value(row).to_owned(),
                times.as_primitive::<Int64Type>().value(row),
            ));
        }
    }
    for head in heads {
        let what = format!("tree of size {} of {}", head.size, head.origin);
        let is_it = |(origin, size, root, sealed_at): &(Origin, u64, String, i64)| {
            (origin, *size, *sealed_at) == (&head.origin, head.size, head.sealed_at)
                && *root == head.root.to_string()
        };
        let wrong = || Err(format!("no proven batch ends there with root {}", head.root));
        checked.done(what, if found.iter().any(is_it) { Ok(()) } else { wrong() });
    }
    let besides = found.iter().filter(|(origin, size, _, sealed_at)| {
        let head = heads.iter().find(|head| head.origin == *origin);
        *sealed_at <= newest && head.is_none_or(|head| *size > head.size)
    });
    let count = besides.count();
    if count > 0 {
        checked.notes.push(format!(
            "{count} batches that say they were sealed by then are not in the draw: they came to the store later, or were left out"
        ));
    }
    Ok(())
}
