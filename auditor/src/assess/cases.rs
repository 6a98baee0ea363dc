//! Runs the cases of a pack: its own rows in, its exceptions out, by the engine that asks the evidence.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;

use super::control::{self, Shelf, Standing};
use super::fact;
use super::pack::{Case, Control, Pack, Scalar};
use super::result::{ControlResult, Status};
use super::rows::{Rows, Value};
use super::run::settings_row;
use super::tables::Tables;
use crate::report::Verdict;

/// How many cases a pack has.
pub fn count(pack: &Pack) -> usize {
    pack.controls.iter().map(|control| control.cases.len()).sum()
}

/// Runs every case; gives what did not come out as it says.
pub async fn run(pack: &Pack, runtime: &Arc<RuntimeEnv>) -> Vec<String> {
    let mut out = Vec::new();
    for control in &pack.controls {
        for case in &control.cases {
            if let Err(problem) = check(pack, control, case, runtime).await {
                out.push(format!("controls.{}.cases[{}]: {problem:#}", control.id, case.name));
            }
        }
    }
    out
}

async fn check(pack: &Pack, control: &Control, case: &Case, runtime: &Arc<RuntimeEnv>) -> anyhow::Result<()> {
    let tables = tables(pack, control, case)?;
    let standing = Standing {
        verdict: Verdict::Verified,
        proven: "a case".into(),
        bucket: Shelf::default(),
        unjudged: 0,
    };
    let mut rows = Vec::new();
    let mut sink = |_: &[String], row: &[Option<String>]| {
        rows.push(row.to_vec());
        Ok(())
    };
    let result = control::run(control, &tables, runtime, &standing, &mut sink).await?;
    compare(case, &result, rows).map_err(anyhow::Error::msg)
}

/// The tables of a case: those that it leaves out are empty.
fn tables(pack: &Pack, control: &Control, case: &Case) -> anyhow::Result<Tables> {
    let mut out = Tables::default();
    for name in &control.needs {
        let columns = pack.columns(name).unwrap_or_default();
        let given = case.rows.get(name);
        if name == fact::SETTINGS && given.is_none() {
            out.add(name, settings_row(pack, &[]))?;
            continue;
        }
        let mut rows = Rows::new(columns.clone());
        for row in given.into_iter().flatten() {
            let value = |column: &super::rows::Column| {
                let typed = row.get(&column.name).map(Scalar::to_string).unwrap_or_default();
                Value::parse(column.kind, &typed).map_err(anyhow::Error::msg)
            };
            rows.push(&columns.iter().map(value).collect::<anyhow::Result<Vec<_>>>()?);
        }
        out.add(name, rows)?;
    }
    Ok(out)
}

fn compare(case: &Case, result: &ControlResult, mut rows: Vec<Vec<Option<String>>>) -> Result<(), String> {
    let wanted = match (case.not_judged, case.finds.is_empty()) {
        (true, _) => Status::NotJudged,
        (false, true) => Status::Met,
        (false, false) => Status::Exceptions,
    };
    let why = result.why.as_deref().unwrap_or_default();
    let all = format!("{rows:?}");
    for finds in &case.finds {
        if let Some(name) = finds.keys().find(|name| !result.shown.columns.contains(name)) {
            return Err(format!(
                "finds.{name}: no column of the answer, which has {:?}; {why}",
                result.shown.columns
            ));
        }
        let fits = |row: &Vec<Option<String>>| {
            finds.iter().all(|(name, value)| {
                let place = result.shown.columns.iter().position(|column| column == name);
                let found = place.and_then(|place| row.get(place)?.as_deref()).unwrap_or_default();
                found == value.to_string()
            })
        };
        match rows.iter().position(fits) {
            Some(place) => _ = rows.remove(place),
            None => return Err(format!("wanted the exception {finds:?}, found {all} {why}")),
        }
    }
    if !rows.is_empty() {
        return Err(format!("found exceptions that it does not name: {rows:?}"));
    }
    let stated = wanted == Status::Met && result.status == Status::Stated;
    if result.status != wanted && !stated {
        return Err(format!("wanted `{}`, found `{}`: {why}", wanted.as_str(), result.status.as_str()));
    }
    Ok(())
}
