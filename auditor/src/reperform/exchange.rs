//! What proven records say of an exchange that the policy looked at: of its first dispatch, or of a further attempt, each of
//! which has a verdict of its own.

use std::collections::BTreeMap;

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::{StreamExt as _, TryStreamExt as _};
use policies::policy::{Facts, Policy};
use schemas::record::{Asked, Attributed, Body, Caller, Record, Verdict};
use schemas::{Identifier, Sha256Hex, leaf};

use crate::decimal::Decimal;
use crate::{query, time};

/// A further attempt of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Further {
    /// Its number.
    pub number: u64,
    /// The position of its `open`.
    pub position: u64,
    /// When that was made, microseconds UTC.
    pub at: i64,
}

/// An exchange's first record: its intent, or its refusal. Or an attempt of it: then provider, target, sent model and verdict
/// are the attempt's.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The log.
    pub origin: String,
    /// The first record's position there.
    pub position: u64,
    /// Which attempt it is, where not the first dispatch.
    pub further: Option<Further>,
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
    /// Currency and cost of the dispatch, where there is one.
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
            groups: &caller.groups,
            route: asked.route.as_ref().map(Identifier::as_str),
            provider: asked.provider.as_ref().map(Identifier::as_str),
            model: asked.requested_model.as_ref().map(Identifier::as_str),
            sent_model: asked.sent_model.as_ref().map(Identifier::as_str),
            operation: Some(operation.as_str()),
            max_output_tokens: asked.max_output_tokens,
            choices: asked.choices,
        })
    }

    /// Whether a policy that the record was not made under may have asked about groups that it does not hold.
    ///
    /// # Errors
    /// It may.
    pub fn holds_groups_for(&self, policy: &Policy) -> Result<(), String> {
        let (held, all) = (self.caller.groups.len() as u64, self.caller.group_count.unwrap_or(0));
        let is_its_own = self.verdict.as_ref().is_some_and(|verdict| verdict.policy == policy.hash());
        if all <= held || is_its_own || policy.groups().next().is_none() {
            return Ok(());
        }
        Err(format!(
            "the record holds {held} of the caller's {all} groups, those that its own policy asked about"
        ))
    }

    /// The attempt that a proven leaf opens, as an exchange with its target; `None` where it opens none.
    ///
    /// # Errors
    /// A leaf that is none.
    pub(super) fn further(&self, position: u64, leaf: &[u8]) -> anyhow::Result<Option<Self>> {
        let decoded = leaf::decode(leaf).context("a proven leaf")?;
        let of_verdict = |key: &&String| key.split('.').next() == Some("verdict");
        let unknown_key = decoded.unknown_keys.iter().find(of_verdict).cloned();
        let Some(Record { at, body: Body::Attempt(attempt), .. }) = decoded.record else { return Ok(None) };
        let mut of = self.clone();
        if let Some(asked) = &mut of.asked {
            let is_other = |model: &Identifier| asked.requested_model.as_ref() != Some(model);
            asked.sent_model = attempt.model.filter(is_other);
            (asked.provider, asked.target) = (attempt.provider, Some(attempt.target));
        }
        of.unknown_key = of.unknown_key.filter(|key| !key.starts_with("verdict")).or(unknown_key);
        // It was judged with its exchange, by the policy of that time.
        of.further = Some(Further { number: attempt.number, position, at });
        (of.verdict, of.cost) = (attempt.verdict, None);
        Ok(Some(of))
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

/// The question whose rows [`each`] goes through: every intent and refusal of `[from, to)`, and what was tried behind it, each with the
/// cost of what it sent.
pub(super) fn question(from: Option<i64>, to: Option<i64>) -> String {
    let mut filter = "kind IN ('intent', 'refusal')".to_owned();
    for (operator, bound) in [(">=", from), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND at {operator} TIMESTAMP '{}'", time::text(bound)));
        }
    }
    format!(
        "WITH first AS (SELECT origin, position, leaf FROM records WHERE {filter}), \
         tried AS (SELECT origin, position, leaf, CAST(0 AS BIGINT) AS number, CAST(NULL AS BIGINT) AS opened, \
                   CAST(NULL AS VARCHAR) AS attempt FROM first \
         UNION ALL SELECT n.origin, n.position, n.leaf, a.attempt_number, a.position, CAST(a.leaf AS VARCHAR) FROM first n \
                   JOIN (SELECT * FROM records WHERE kind = 'attempt' AND phase = 'open') a \
                   ON n.origin = a.origin AND n.position = a.intent_position) \
         SELECT t.origin, t.position, t.leaf, d.currency, cast(d.cost AS VARCHAR) AS cost, t.opened, t.attempt FROM tried t \
         LEFT JOIN (SELECT origin, intent_position, attempt_number, currency, cost FROM ({}) WHERE cost IS NOT NULL) d \
         ON t.origin = d.origin AND t.position = d.intent_position AND t.number = d.attempt_number \
         ORDER BY t.origin, t.position, t.number",
        query::dispatches("records", "true")
    )
}

/// Goes through the exchanges, log by log in order, and through the attempts of each.
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
        let (origins, leaves, currencies, costs, attempts) =
            (text(0)?, text(2)?, text(3)?, text(4)?, text(6)?);
        let (currencies, costs) = (currencies.as_string::<i32>(), costs.as_string::<i32>());
        let attempts = attempts.as_string::<i32>();
        let number = |column: usize, row: usize| {
            u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row))
        };
        for row in 0..batch.num_rows() {
            let leaf = leaves.as_string::<i32>().value(row).as_bytes();
            let place = (origins.as_string::<i32>().value(row), number(1, row)?);
            let Some(mut exchange) = read(place, leaf)? else { continue };
            if attempts.is_valid(row) {
                let further = exchange.further(number(5, row)?, attempts.value(row).as_bytes())?;
                let Some(further) = further else { continue };
                exchange = further;
            }
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
            further: None,
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
            further: None,
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
