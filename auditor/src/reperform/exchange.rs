//! What a proven record says of an exchange that the policy looked at.

use std::collections::BTreeMap;

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::{StreamExt as _, TryStreamExt as _};
use policies::policy::{Facts, writes_output};
use schemas::record::{Asked, Attributed, Body, Caller, Verdict};
use schemas::{Identifier, Sha256Hex, leaf};

use crate::decimal::Decimal;
use crate::{query, time};

/// An exchange's first record: its intent, or its refusal.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The log.
    pub origin: String,
    /// Its position there.
    pub position: u64,
    /// When the record was made, microseconds UTC.
    pub at: i64,
    /// The configuration in force.
    pub config: Sha256Hex,
    /// The exchange; absent where refusals were folded.
    pub id: Option<String>,
    /// Why it was refused; absent: it was sent.
    pub refused: Option<String>,
    /// How many exchanges the record stands for.
    pub count: u64,
    /// Who.
    pub caller: Caller,
    /// What; absent where nobody knew.
    pub asked: Option<Asked>,
    /// What the policy said.
    pub verdict: Option<Verdict>,
    /// A key of caller, asked or verdict that this version does not know.
    pub unknown_key: Option<String>,
    /// Currency and cost of its outcome, where there is one.
    pub cost: Option<(String, Decimal)>,
}

impl Exchange {
    /// The facts as the policy saw them; the record holds them all.
    ///
    /// # Errors
    /// Why they are not.
    pub fn facts(&self) -> Result<Facts<'_>, String> {
        fn text(fact: &Option<Attributed>) -> Option<&str> {
            fact.as_ref().map(|fact| fact.value.as_str())
        }
        if let Some(key) = &self.unknown_key {
            return Err(format!("the record's key `{key}` is not known to this version"));
        }
        let asked = self.asked.as_ref().ok_or("the record does not say what was asked")?;
        let operation = asked.operation.as_ref().ok_or("the operation is not in the record")?;
        let caller = &self.caller;
        Ok(Facts {
            consumer: text(&caller.consumer),
            team: text(&caller.team),
            organisation: text(&caller.organisation),
            cost_centre: text(&caller.cost_centre),
            system: text(&caller.system),
            purpose: text(&caller.purpose),
            data_class: text(&caller.data_class),
            key: caller.key.as_ref().map(Identifier::as_str),
            route: asked.route.as_ref().map(Identifier::as_str),
            provider: asked.provider.as_ref().map(Identifier::as_str),
            model: asked.requested_model.as_ref().map(Identifier::as_str),
            operation: Some(operation.as_str()),
            generates: writes_output(operation.as_str()),
            max_output_tokens: asked.max_output_tokens,
            choices: asked.choices,
        })
    }

    /// The caller's team.
    pub fn team(&self) -> Option<&str> {
        self.caller.team.as_ref().map(|team| team.value.as_str())
    }

    /// The model that was asked for.
    pub fn model(&self) -> Option<&str> {
        self.asked.as_ref()?.requested_model.as_ref().map(Identifier::as_str)
    }
}

/// How long a request may come in: one that began before a configuration changed is judged by the policy before, and its
/// record already names the configuration after.
pub const COMES_IN: i64 = 10 * 60 * time::SECOND;

/// A configuration that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// The position of the record that says so.
    pub position: u64,
    /// When, microseconds UTC.
    pub at: i64,
    /// The configuration.
    pub config: Sha256Hex,
    /// The policy that it holds.
    pub policy: Option<Sha256Hex>,
}

/// Which configurations took effect, by log, in order.
#[derive(Debug, Clone, Default)]
pub struct InForce(pub BTreeMap<String, Vec<Took>>);

impl InForce {
    /// The policies by which the exchange may have been judged, that of its configuration first; `None` among them: no
    /// policy at all. Absent where no proven record says.
    pub fn ruling(&self, exchange: &Exchange) -> Option<Vec<Option<Sha256Hex>>> {
        let log = self.0.get(&exchange.origin)?;
        let own = log
            .iter()
            .rposition(|took| took.position < exchange.position && took.config == exchange.config)?;
        let mut policies = vec![log.get(own)?.policy];
        let young = exchange.at.saturating_sub(log.get(own)?.at) <= COMES_IN;
        if let Some(before) = own.checked_sub(1).and_then(|before| log.get(before)).filter(|_| young) {
            policies.push(before.policy);
        }
        Some(policies)
    }
}

/// Reads which policy was in force under which configuration.
///
/// # Errors
/// As the query.
pub async fn in_force(context: &SessionContext) -> anyhow::Result<InForce> {
    let sql = "SELECT origin, position, leaf FROM records WHERE kind = 'config' ORDER BY origin, position";
    let rows = query::stream(query::ask(context, sql).await?).await?;
    let mut found = InForce::default();
    for batch in rows.try_collect::<Vec<_>>().await? {
        let (origins, leaves) =
            (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(2), &DataType::Utf8)?);
        let (origins, leaves) = (origins.as_string::<i32>(), leaves.as_string::<i32>());
        let positions = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let decoded = leaf::decode(leaves.value(row).as_bytes()).context("a proven leaf")?;
            let Some(record) = decoded.record else { continue };
            if let Body::Config(config) = record.body {
                let position = u64::try_from(positions.value(row))?;
                let (config, policy) = (config.next, config.policy);
                let log = found.0.entry(origins.value(row).to_owned()).or_default();
                log.push(Took { position, at: record.at, config, policy });
            }
        }
    }
    Ok(found)
}

/// The question whose rows [`each`] goes through: every intent and refusal of `[from, to)`, with the cost of its outcome.
fn question(from: Option<i64>, to: Option<i64>) -> String {
    let mut filter = "kind IN ('intent', 'refusal')".to_owned();
    for (operator, bound) in [(">=", from), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND at {operator} TIMESTAMP '{}'", time::text(bound)));
        }
    }
    format!(
        "SELECT n.origin, n.position, n.leaf, o.currency, cast(o.cost AS VARCHAR) AS cost \
         FROM (SELECT origin, position, leaf FROM records WHERE {filter}) n \
         LEFT JOIN (SELECT origin, intent_position, currency, cost FROM records WHERE kind = 'outcome') o \
         ON n.origin = o.origin AND n.position = o.intent_position ORDER BY n.origin, n.position"
    )
}

/// Goes through the exchanges, log by log in order.
///
/// # Errors
/// As the query.
pub async fn each(
    context: &SessionContext,
    (from, to): (Option<i64>, Option<i64>),
    mut see: impl FnMut(&Exchange),
) -> anyhow::Result<()> {
    let mut rows = query::stream(query::ask(context, &question(from, to)).await?).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let (origins, leaves, currencies, costs) = (text(0)?, text(2)?, text(3)?, text(4)?);
        let (currencies, costs) = (currencies.as_string::<i32>(), costs.as_string::<i32>());
        let positions = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let leaf = leaves.as_string::<i32>().value(row).as_bytes();
            let place = (origins.as_string::<i32>().value(row), u64::try_from(positions.value(row))?);
            let Some(mut exchange) = read(place, leaf)? else { continue };
            if currencies.is_valid(row) && costs.is_valid(row) {
                let cost = Decimal::parse(costs.value(row));
                exchange.cost = cost.map(|cost| (currencies.value(row).to_owned(), cost));
            }
            see(&exchange);
        }
    }
    Ok(())
}

/// Reads a proven leaf; `None` where it begins no exchange.
pub(super) fn read((origin, position): (&str, u64), leaf: &[u8]) -> anyhow::Result<Option<Exchange>> {
    let decoded = leaf::decode(leaf).context("a proven leaf")?;
    let unknown_key = decoded
        .unknown_keys
        .iter()
        .find(|key| ["caller", "asked", "verdict"].contains(&key.split('.').next().unwrap_or_default()));
    let unknown_key = unknown_key.cloned();
    let Some(record) = decoded.record else { return Ok(None) };
    let origin = origin.to_owned();
    let (at, config) = (record.at, record.config);
    Ok(match record.body {
        Body::Intent(intent) => Some(Exchange {
            origin,
            position,
            at,
            config,
            id: Some(intent.exchange.to_string()),
            refused: None,
            count: 1,
            caller: intent.caller,
            asked: Some(intent.asked),
            verdict: intent.verdict,
            unknown_key,
            cost: None,
        }),
        Body::Refusal(refusal) => Some(Exchange {
            origin,
            position,
            at,
            config,
            id: refusal.exchange.map(|id| id.to_string()),
            refused: Some(refusal.reason.to_string()),
            count: refusal.count.unwrap_or(1),
            caller: refusal.caller.unwrap_or_default(),
            asked: refusal.asked,
            verdict: refusal.verdict,
            unknown_key,
            cost: None,
        }),
        _ => None,
    })
}
