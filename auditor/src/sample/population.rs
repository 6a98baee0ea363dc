//! What is drawn from: the exchanges of the proven rows below the heads, in order.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;

use super::seed::{Head, Parameters};
use crate::cost::booked;
use crate::cost::group::Group;
use crate::decimal::Decimal;
use crate::{query, time};

/// An exchange of the population.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its values of the strata's columns.
    pub stratum: Vec<Option<String>>,
    /// The log.
    pub origin: String,
    /// The position of its intent or refusal.
    pub position: u64,
    /// The exchange.
    pub exchange: String,
    /// `ended`, `refused` or `open`, as of the heads.
    pub state: String,
    /// When it began, microseconds UTC.
    pub started_at: Option<i64>,
    /// What was booked for its answer and for what was tried before, by currency.
    pub cost: BTreeMap<String, Decimal>,
    /// SHA-256 of its newest leaf.
    pub leaf_hash: String,
}

/// The SQL expression over `exchanges` of a column that strata may be made of.
fn expression(name: &str) -> anyhow::Result<String> {
    let group = Group::parse(name)?;
    Ok(match group.name.as_str() {
        "hour" | "day" | "week" | "month" | "year" => {
            format!("date_trunc('{}', coalesce(started_at, ended_at))", group.name)
        }
        "model" | "origin" => format!("\"{}\"", group.name),
        "kind" | "at" | "count" | "intent_position" | "exchange" => {
            bail!("--by {name}: not a column of `exchanges` that strata can be made of")
        }
        _ => group.expression,
    })
}

/// The question whose rows [`each`] goes through.
///
/// # Errors
/// A column that there is not.
pub fn question(parameters: &Parameters, heads: &[Head]) -> anyhow::Result<String> {
    let below: Vec<String> = heads
        .iter()
        .map(|head| format!("(origin = '{}' AND \"position\" < {})", head.origin, head.size))
        .collect();
    let mut filter = "true".to_owned();
    for (operator, bound) in [(">=", parameters.from), ("<", parameters.to)] {
        if let Some(bound) = bound {
            let bound = time::text(bound);
            filter.push_str(&format!(" AND coalesce(started_at, ended_at) {operator} TIMESTAMP '{bound}'"));
        }
    }
    let mut by = String::new();
    for name in &parameters.by {
        by.push_str(&format!(", cast({} AS VARCHAR)", expression(name)?));
    }
    let below = if below.is_empty() { "false".to_owned() } else { below.join(" OR ") };
    Ok(format!(
        "WITH proven AS (SELECT * FROM records WHERE {below}) \
         SELECT origin, coalesce(intent_position, \"position\") AS item, exchange, state, \
         coalesce(started_at, ended_at), currency, cost, attempts_currency, attempts_cost, leaf_hash{by} FROM ({}) \
         WHERE {filter} ORDER BY origin, item",
        booked::exchanges("proven", &["leaf_hash"])
    ))
}

/// Goes through the population, log by log in order.
///
/// # Errors
/// As the query, or as `see`.
pub async fn each(
    context: &SessionContext,
    sql: &str,
    mut see: impl FnMut(Item) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut rows = query::stream(query::ask(context, sql).await?).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let (origins, exchanges, states, hashes) = (text(0)?, text(2)?, text(3)?, text(9)?);
        let positions = batch.column(1).as_primitive::<Int64Type>();
        let times = cast(batch.column(4), &DataType::Int64)?;
        let times = times.as_primitive::<Int64Type>();
        let costs = [(text(5)?, batch.column(6)), (text(7)?, batch.column(8))];
        let groups = (10..batch.num_columns()).map(text).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let value = |column: &arrow::array::ArrayRef| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            let mut cost = BTreeMap::<String, Decimal>::new();
            for (currencies, amounts) in &costs {
                let amounts = amounts.as_primitive::<Decimal128Type>();
                if let Some(currency) = value(currencies)
                    && amounts.is_valid(row)
                {
                    let sum = cost.entry(currency).or_default();
                    *sum = sum.plus(Decimal(amounts.value(row)));
                }
            }
            see(Item {
                stratum: groups.iter().map(value).collect(),
                origin: value(&origins).context("an exchange without a log")?,
                position: u64::try_from(positions.value(row))?,
                exchange: value(&exchanges).context("an exchange without an id")?,
                state: value(&states).unwrap_or_default(),
                started_at: times.is_valid(row).then(|| times.value(row)),
                cost,
                leaf_hash: value(&hashes).unwrap_or_default(),
            })?;
        }
    }
    Ok(())
}
