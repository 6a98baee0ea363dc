//! Volumes and cost of a period, asked of proven rows.

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;
use schemas::Sha256Hex;
use serde::{Deserialize, Serialize};

use super::data::Span;
use crate::cost::booked;
use crate::cost::group::Group;
use crate::cost::spend::Spend;
use crate::decimal::Decimal;
use crate::{query, time};

/// Rows of a table; the questions of `auditor query` and `auditor cost` give all.
pub const ROWS: usize = 25;

/// By what exchanges are counted.
const VOLUMES_BY: [&str; 4] = ["system", "consumer", "provider", "model"];
/// By what cost is added up.
const COST_BY: [&str; 3] = ["system", "team", "model"];

/// Volumes and cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Exchanges that began in the period, by what became of them.
    pub became: BTreeMap<String, u64>,
    /// Days with exchanges: their start, and how many.
    pub days: Vec<(i64, u64)>,
    /// Exchanges by system, consumer, provider, model.
    pub volumes: Vec<Volumes>,
    /// What was spent, by currency.
    pub spent: BTreeMap<String, Spent>,
    /// Answers that incurred usage and have no cost.
    pub unpriced: u64,
    /// Those of them whose usage is unknown.
    #[serde(default)]
    pub no_usage: u64,
    /// Days with cost: their start, currency, cost.
    pub cost_days: Vec<(i64, String, Decimal)>,
    /// Cost by system, team, model.
    pub costs: Vec<Costs>,
    /// SHA-256 of the questions, by what they are about.
    pub questions: BTreeMap<String, Sha256Hex>,
}

/// Exchanges by one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volumes {
    /// The column.
    pub by: String,
    /// The largest, largest first.
    pub rows: Vec<Volume>,
    /// Whether there are more.
    pub more: bool,
}

/// Exchanges with one value of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The value, where there is one.
    pub name: Option<String>,
    /// Exchanges.
    pub exchanges: u64,
    /// Those of them that the gateway refused.
    pub refused: u64,
    /// Input tokens, with those of answers that did not count.
    pub input_tokens: u64,
    /// Output tokens, with those of answers that did not count.
    pub output_tokens: u64,
}

/// What was spent in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Exchanges whose outcome has a cost.
    pub exchanges: u64,
    /// What they cost, with answers that did not count.
    pub cost: Decimal,
    /// What of it rests on counts that are not the provider's last word.
    pub not_final_cost: Decimal,
}

/// Cost by one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The column.
    pub by: String,
    /// The largest, largest first.
    pub rows: Vec<Cost>,
    /// Whether there are more.
    pub more: bool,
}

/// Cost with one value of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The value, where there is one.
    pub name: Option<String>,
    /// The currency, where something has a cost.
    pub currency: Option<String>,
    /// Exchanges with a cost.
    pub exchanges: u64,
    /// What they cost.
    pub cost: Decimal,
    /// Answers that incurred usage and have no cost.
    pub unpriced: u64,
}

/// Measures a period. `spend` is what `auditor cost` adds up for it.
///
/// # Errors
/// As queries fail.
pub async fn measure(context: &SessionContext, period: Span, spend: &Spend) -> anyhow::Result<Measured> {
    let mut out = Measured { unpriced: spend.unpriced, no_usage: spend.no_usage, ..Measured::default() };
    for (currency, amount) in &spend.by_currency {
        let spent =
            Spent { exchanges: amount.exchanges, cost: amount.cost, not_final_cost: amount.not_final_cost };
        out.spent.insert(currency.clone(), spent);
    }
    let began = format!(
        "started_at >= TIMESTAMP '{}' AND started_at < TIMESTAMP '{}'",
        time::text(period.from),
        time::text(period.to)
    );
    let booked = format!("{} WHERE booking = 1", booked::subquery(Some(period.from), Some(period.to)));
    let became = format!(
        "SELECT CASE WHEN state = 'ended' THEN coalesce(\"end\", 'ended') ELSE state END AS became, count(*) \
         FROM exchanges WHERE {began} GROUP BY 1 ORDER BY 1"
    );
    for row in ask(context, &mut out, "exchanges by what became of them", &became).await? {
        out.became.insert(text(&row, 0).unwrap_or_default(), count(&row, 1));
    }
    let days = format!("SELECT day, count(*) FROM exchanges WHERE {began} GROUP BY day ORDER BY day");
    for row in ask(context, &mut out, "exchanges by day", &days).await? {
        if let Some(day) = day(&row) {
            out.days.push((day, count(&row, 1)));
        }
    }
    for by in VOLUMES_BY {
        let column = if by == "model" { "model".to_owned() } else { format!("\"{by}\"") };
        let tried = Group::parse(by)?.expression;
        // Tokens are those that are booked: an answer that did not count cost its own and is no exchange, and one that is
        // read again cost none.
        let sql = format!(
            "SELECT name, sum(one) AS n, sum(refused), sum(input_tokens), sum(output_tokens) FROM ( \
             SELECT {column} AS name, 1 AS one, CASE WHEN state = 'refused' THEN 1 ELSE 0 END AS refused, \
             CAST(NULL AS BIGINT) AS input_tokens, CAST(NULL AS BIGINT) AS output_tokens FROM exchanges WHERE {began} \
             UNION ALL SELECT {tried} AS name, 0 AS one, 0 AS refused, input_tokens, output_tokens FROM {booked}) \
             GROUP BY name ORDER BY n DESC, name NULLS LAST LIMIT {}",
            ROWS + 1
        );
        let found = ask(context, &mut out, &format!("exchanges by {by}"), &sql).await?;
        let rows = found.iter().take(ROWS).map(|row| Volume {
            name: text(row, 0),
            exchanges: count(row, 1),
            refused: count(row, 2),
            input_tokens: count(row, 3),
            output_tokens: count(row, 4),
        });
        out.volumes.push(Volumes { by: by.into(), rows: rows.collect(), more: found.len() > ROWS });
    }
    let days = format!(
        "SELECT date_trunc('day', at) AS day, currency, sum(cost) FROM {booked} AND cost IS NOT NULL \
         GROUP BY 1, 2 ORDER BY 1, 2"
    );
    for row in ask(context, &mut out, "cost by day", &days).await? {
        if let (Some(day), Some(currency)) = (day(&row), text(&row, 1)) {
            out.cost_days.push((day, currency, money(&row, 2)));
        }
    }
    for by in COST_BY {
        let column = Group::parse(by)?.expression;
        let unpriced = "CASE WHEN cost IS NULL AND usage_role = 'incurred' AND usage_source <> 'not_applicable' THEN 1 ELSE 0 END";
        let sql = format!(
            "SELECT * FROM (SELECT {column} AS name, currency, count(CASE WHEN kind = 'outcome' THEN cost END) AS n, sum(cost) AS total, sum({unpriced}) AS unpriced \
             FROM {booked} GROUP BY {column}, currency) WHERE total IS NOT NULL OR unpriced > 0 \
             ORDER BY total DESC NULLS LAST, name NULLS LAST, currency LIMIT {}",
            ROWS + 1
        );
        let found = ask(context, &mut out, &format!("cost by {by}"), &sql).await?;
        let rows = found.iter().take(ROWS).map(|row| Cost {
            name: text(row, 0),
            currency: text(row, 1),
            exchanges: count(row, 2),
            cost: money(row, 3),
            unpriced: count(row, 4),
        });
        out.costs.push(Costs { by: by.into(), rows: rows.collect(), more: found.len() > ROWS });
    }
    Ok(out)
}

type Row = Vec<Option<String>>;

async fn ask(
    context: &SessionContext,
    out: &mut Measured,
    about: &str,
    sql: &str,
) -> anyhow::Result<Vec<Row>> {
    out.questions.insert(about.to_owned(), Sha256Hex::of(sql.as_bytes()));
    let mut stream = query::stream(query::ask(context, sql).await?).await?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let columns: Vec<_> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow::array::ArrayRef| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            rows.push(columns.iter().map(cell).collect());
        }
    }
    Ok(rows)
}

fn text(row: &Row, column: usize) -> Option<String> {
    row.get(column).cloned().flatten()
}

fn count(row: &Row, column: usize) -> u64 {
    text(row, column).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn money(row: &Row, column: usize) -> Decimal {
    text(row, column).and_then(|text| Decimal::parse(&text)).unwrap_or_default()
}

fn day(row: &Row) -> Option<i64> {
    time::parse(text(row, 0)?.get(..10)?).ok()
}
