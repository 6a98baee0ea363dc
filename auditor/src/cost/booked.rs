//! What is booked: each outcome and each attempt that incurred use. What reads an answer that was made before does not cost again; one
//! that is read while it is still made ends before the exchange that it cost, and counts as little. Two that incurred use are two,
//! whatever their responses are called: some servers draw those names from a thousand.
//!
//! An exchange that was told nothing of what it cost (its answer was made in the background, or cut) is booked by what the reads of
//! that answer tell, unless they have no cost where it has one: at its own time and for its own caller, so that each interval has it once, and sums over intervals too.
//! Reads by themselves book nothing: what they tell was incurred by an exchange of another interval, or by none that passed here.

use std::collections::BTreeMap;

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;
use policies::price::{Bill, PriceBook};
use schemas::columns::Column;
use schemas::record::{
    Asked, Attempt, Body, Caller, End, Outcome, Record, Timing, Unpriced, Usage, UsageRole, UsageSource,
};
use schemas::{Sha256Hex, leaf};

use super::group::Group;
use super::spend::Word;
use crate::decimal::Decimal;
use crate::query;
use crate::time;

/// One booked outcome, or attempt.
#[derive(Debug)]
pub struct Booked {
    /// Its values of the dimensions that were asked for.
    pub by: Vec<Option<String>>,
    /// The log.
    pub origin: String,
    /// Its position there.
    pub position: i64,
    /// When it ended, microseconds UTC.
    pub at: i64,
    /// The time whose prices were charged, microseconds UTC: its end, or that of the read that told its usage.
    pub priced_at: i64,
    /// SHA-256 of the leaf, hexadecimal.
    pub leaf_hash: String,
    /// Whether it is an attempt, whose exchange has an outcome besides.
    pub is_attempt: bool,
    /// What was recorded; an attempt as the outcome that it would be: who and what of its intent, `served` the attempt
    /// itself.
    pub outcome: Box<Outcome>,
}

/// How far clocks of gateways may be apart, microseconds: a read may seem to be that much before what it reads.
const APART: i64 = 3_600_000_000;

/// A column of what an exchange used and cost, but for who incurred it.
fn is_told(column: &Column) -> bool {
    matches!(column.path, ["cost", ..]) || matches!(column.path, ["usage", what] if *what != "role")
}

/// The subquery over `records`: outcomes and attempts of the interval `[from, to)`. The column `booking` is 1 for those that count;
/// `told_leaf` is the read that tells what it cost, where it was told nothing itself: one read tells it of one.
pub fn subquery(from: Option<i64>, to: Option<i64>) -> String {
    subquery_of("records", from, to)
}

/// The same over a table of the columns of `records`.
fn subquery_of(records: &str, from: Option<i64>, to: Option<i64>) -> String {
    let mut filter = "true".to_owned();
    for (operator, bound) in [(">=", from), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND at {operator} TIMESTAMP '{}'", time::text(bound)));
        }
    }
    let columns: String = query::columns_of_dispatch()
        .map(|column| {
            let name = column.name;
            let of = match name {
                "unpriced" => {
                    "CASE WHEN t.told_response IS NULL THEN d.\"unpriced\" WHEN t.\"told_cost\" IS NULL THEN 'no_price' END"
                        .to_owned()
                }
                "served_model" => "coalesce(t.\"told_served_model\", d.\"served_model\")".to_owned(),
                "usage_source" => "coalesce(t.\"told_usage_source\", d.\"usage_source\")".to_owned(),
                _ if is_told(column) => format!(
                    "CASE WHEN t.told_response IS NOT NULL THEN t.\"told_{name}\" WHEN d.usage_role = 'retrieved' THEN NULL \
                     ELSE d.\"{name}\" END"
                ),
                _ => format!("d.\"{name}\""),
            };
            format!(", {of} AS \"{name}\"")
        })
        .collect();
    format!(
        "(SELECT d.origin, d.position, d.leaf, d.leaf_hash, d.intent_leaf, t.told_response, t.told_leaf{columns}, \
         CASE WHEN d.usage_role = 'incurred' THEN 1 ELSE d.place END AS booking \
         FROM ({told}) t RIGHT JOIN (SELECT *, row_number() OVER (PARTITION BY provider, target, \
         coalesce(response_id, concat(origin, ' ', cast(position AS VARCHAR))) \
         ORDER BY {untold} DESC, usage_role = 'incurred' DESC, at, origin, position) AS place FROM ({dispatches})) d \
         ON {untold_d} AND d.place = 1 AND t.told_response = d.response_id AND t.told_provider = coalesce(d.provider, '') AND t.told_target = coalesce(d.target, '') \
         AND (t.\"told_cost\" IS NOT NULL OR d.\"cost\" IS NULL))",
        told = told(records, from),
        untold = untold(""),
        untold_d = untold("d."),
        dispatches = query::dispatches(records, &filter),
    )
}

/// Whether an outcome was told nothing of what it used, or only in part.
fn untold(table: &str) -> String {
    format!(
        "({table}kind = 'outcome' AND {table}usage_role = 'incurred' AND {table}usage_source IN ('unknown', 'estimated', 'partial'))"
    )
}

/// The table `exchanges` with what was booked. `cost`, `currency`, `price_book` and `unpriced` are those of an exchange's answer, which
/// where it was told nothing itself are what a read of it tells; `attempts_cost` and `attempts_currency` are the sum over attempts that
/// ended before, absent where these have several currencies. `records` and `more` as in [`query::exchanges_of`].
///
/// Only what is not booked as its outcome says is joined, by keys that are one in it: a question that does not ask for these columns does
/// without.
pub fn exchanges(records: &str, more: &[&str]) -> String {
    let booked = subquery_of(records, None, None);
    let columns = ["cost", "currency", "price_book", "unpriced"];
    let otherwise = columns.map(|name| format!("max(\"{name}\") AS \"{name}\""));
    let either = columns.map(|name| {
        format!("CASE WHEN b.position IS NULL THEN e.\"{name}\" ELSE b.\"{name}\" END AS \"{name}\"")
    });
    let of_one = |what: &str| format!("CASE WHEN min(currency) = max(currency) THEN {what} END");
    format!(
        "SELECT e.* REPLACE ({either}), t.attempts_cost, t.attempts_currency \
         FROM (SELECT origin, intent_position, {sum} AS attempts_cost, {currency} AS attempts_currency FROM ({attempts}) \
         WHERE cost IS NOT NULL GROUP BY origin, intent_position) t \
         RIGHT JOIN ((SELECT origin, position, {otherwise} FROM {booked} WHERE kind = 'outcome' AND told_response IS NOT NULL \
         GROUP BY origin, position) b \
         RIGHT JOIN ({of}) e ON b.origin = e.origin AND b.position = e.position) \
         ON t.origin = e.origin AND t.intent_position = e.intent_position",
        either = either.join(", "),
        otherwise = otherwise.join(", "),
        sum = of_one("sum(cost)"),
        currency = of_one("max(currency)"),
        attempts = query::dispatches(records, "kind = 'attempt'"),
        of = query::exchanges_of(records, more),
    )
}

/// The reads that tell what an answer cost, one for each answer: the one that tells of the most, since an answer that is
/// still made is told in part, and of these the first. They may be later than what is asked for, and are never much earlier.
fn told(records: &str, from: Option<i64>) -> String {
    let after = from.map_or_else(String::new, |from| {
        format!(" AND at >= TIMESTAMP '{}'", time::text(from.saturating_sub(APART)))
    });
    let columns: String = query::columns_of_dispatch()
        .filter(|column| is_told(column) || column.name == "served_model")
        .map(|column| format!(", \"{0}\" AS \"told_{0}\"", column.name))
        .collect();
    format!(
        "SELECT * FROM (SELECT leaf AS told_leaf, response_id AS told_response, coalesce(served_provider, provider, '') AS told_provider, \
         coalesce(served_target, target, '') AS told_target{columns}, row_number() OVER (\
         PARTITION BY coalesce(served_provider, provider), coalesce(served_target, target), response_id \
         ORDER BY output_tokens DESC NULLS LAST, input_tokens DESC NULLS LAST, cost IS NULL, at, origin, position) AS told_by \
         FROM {records} WHERE kind = 'outcome' AND usage_role = 'retrieved' AND usage_source = 'provider' \
         AND response_id IS NOT NULL{after}) WHERE told_by = 1"
    )
}

/// The question whose rows [`each`] goes through.
pub fn question(by: &[Group], from: Option<i64>, to: Option<i64>) -> String {
    let groups: String = by.iter().map(|group| format!(", cast({} AS VARCHAR)", group.expression)).collect();
    format!(
        "SELECT origin, position, leaf, leaf_hash, intent_leaf, told_leaf{groups} FROM {} WHERE booking = 1 \
         ORDER BY at, origin, position",
        subquery(from, to)
    )
}

/// Goes through the booked outcomes in the order of time.
///
/// # Errors
/// As the query, or as `see`.
pub async fn each(
    context: &SessionContext,
    sql: &str,
    mut see: impl FnMut(Booked) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut rows = query::stream(query::ask(context, sql).await?).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let (origins, leaves, hashes, intents, reads) = (text(0)?, text(2)?, text(3)?, text(4)?, text(5)?);
        let positions = batch.column(1).as_primitive::<Int64Type>();
        let groups = (6..batch.num_columns()).map(text).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let Some(record) = decoded(leaves.as_string::<i32>().value(row))? else { continue };
            let reads = reads.as_string::<i32>();
            let read = if reads.is_valid(row) { decoded(reads.value(row))? } else { None };
            let intents = intents.as_string::<i32>();
            let (is_attempt, mut outcome) = match record.body {
                Body::Outcome(outcome) => (false, outcome),
                Body::Attempt(attempt) => {
                    let intent = if intents.is_valid(row) { decoded(intents.value(row))? } else { None };
                    let (caller, asked) = match intent.map(|record| record.body) {
                        Some(Body::Intent(intent)) => (intent.caller, intent.asked),
                        // Its intent is missing, and it cost all the same.
                        _ => Default::default(),
                    };
                    (true, as_outcome(attempt, caller, asked))
                }
                _ => continue,
            };
            let priced_at = read.as_ref().map_or(record.at, |read| read.at);
            match read.map(|read| read.body) {
                Some(Body::Outcome(read)) => by_read(&mut outcome, read),
                // What another exchange incurred is told, and booked, there.
                _ if outcome.usage.role == UsageRole::Retrieved => outcome.cost = None,
                _ => {}
            }
            let by = groups.iter().map(|column| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            });
            see(Booked {
                by: by.collect(),
                origin: origins.as_string::<i32>().value(row).to_owned(),
                position: positions.value(row),
                at: record.at,
                priced_at,
                leaf_hash: hashes.as_string::<i32>().value(row).to_owned(),
                is_attempt,
                outcome: outcome.into(),
            })?;
        }
    }
    Ok(())
}

fn decoded(leaf: &str) -> anyhow::Result<Option<Record>> {
    Ok(leaf::decode(leaf.as_bytes()).context("a proven leaf")?.record)
}

/// Has an outcome that was told nothing of what it cost tell what a read of its answer tells.
fn by_read(outcome: &mut Outcome, read: Outcome) {
    outcome.usage = Usage { role: outcome.usage.role, ..read.usage };
    outcome.unpriced = read.cost.is_none().then_some(Unpriced::NoPrice);
    outcome.cost = read.cost;
    outcome.answered.service_tier = read.answered.service_tier;
    // The prices are those of the model that the read names.
    if read.answered.served_model.is_some() {
        outcome.answered.served_model = read.answered.served_model;
    }
}

/// An attempt as the outcome that it would be. One that tells of no usage is booked where bytes went to it: what it cost is
/// unknown.
fn as_outcome(attempt: Attempt, caller: Caller, asked: Asked) -> Outcome {
    let served = attempt.served();
    let unpriced = attempt.usage.is_none().then_some(Unpriced::NoUsage);
    let unknown = || Usage::of(UsageSource::Unknown, UsageRole::Incurred);
    Outcome {
        exchange: attempt.exchange,
        intent_position: attempt.intent_position,
        caller,
        asked,
        served: Some(served),
        translation: None,
        answer_dropped: None,
        end: attempt.end.unwrap_or(End::Interrupted),
        provider_end: None,
        provider_status: attempt.status,
        status: None,
        reason: Some(attempt.reason.clone()),
        delivered: None,
        released: None,
        delivered_at_least: None,
        answered: attempt.answered,
        usage: attempt.usage.unwrap_or_else(unknown),
        cost: attempt.cost,
        unpriced: attempt.unpriced.or(unpriced),
        timing: Timing { total_us: attempt.total_us, ..Timing::default() },
        rate_limits: BTreeMap::new(),
        parts: attempt.parts,
        content_key: attempt.content_key,
        // No question about cost asks for it; it stands in the intent.
        retention: attempt.retention.unwrap_or(attempt.reason),
    }
}

impl Booked {
    /// Whether the exchange incurred its usage.
    pub fn incurred(&self) -> bool {
        self.outcome.usage.role == UsageRole::Incurred
            && self.outcome.usage.source != UsageSource::NotApplicable
    }

    /// When it began, microseconds UTC, as far as that was recorded.
    pub fn began(&self) -> i64 {
        self.at.saturating_sub(self.outcome.timing.total_us.unwrap_or(0).max(0))
    }

    /// What it adds to a count of exchanges: an attempt's exchange is counted with its outcome.
    pub fn exchanges(&self) -> u64 {
        u64::from(!self.is_attempt)
    }

    /// Whether the counts are the provider's, whenever they were read.
    pub fn is_told(&self) -> bool {
        self.is_final() || self.outcome.usage.source == UsageSource::Drained
    }

    /// Whether the counts are the provider's last word to a caller who waited for it.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome.usage.source, UsageSource::Provider | UsageSource::NotApplicable)
    }

    /// Whose word the counts are.
    pub fn word(&self) -> Word {
        match self.outcome.usage.source {
            UsageSource::Estimated => Word::Estimated,
            _ if self.is_final() => Word::Final,
            _ => Word::Other,
        }
    }

    /// Currency and cost, where there is one.
    pub fn cost(&self) -> Option<(&str, Decimal)> {
        let cost = self.outcome.cost.as_ref()?;
        Some((cost.currency.as_str(), Decimal::parse(&cost.total)?))
    }

    /// The models by which a book may know the exchange: the one that served first.
    pub fn models(&self) -> Vec<&str> {
        self.outcome.models()
    }

    /// The model that served, else the one that was asked for.
    pub fn model(&self) -> Option<&str> {
        self.models().first().copied()
    }
}

/// The price books that the evidence holds, read when they are first asked for.
#[derive(Debug)]
pub struct Books<'a> {
    texts: &'a BTreeMap<Sha256Hex, String>,
    parsed: BTreeMap<Sha256Hex, Option<PriceBook>>,
}

impl<'a> Books<'a> {
    /// Of these texts.
    pub fn new(texts: &'a BTreeMap<Sha256Hex, String>) -> Self {
        Self { texts, parsed: BTreeMap::new() }
    }

    /// A book, where the evidence holds it and it can be read.
    pub fn book(&mut self, hash: Sha256Hex) -> Option<&PriceBook> {
        let texts = self.texts;
        let read = || PriceBook::parse(texts.get(&hash)?.as_bytes()).ok();
        self.parsed.entry(hash).or_insert_with(read).as_ref()
    }

    /// The cost of an outcome, computed again by the book that it names.
    ///
    /// # Errors
    /// No cost, no such book or row, or the book gives none.
    pub fn bill(&mut self, booked: &Booked) -> Result<Bill<'_>, Unpriced> {
        let cost = booked.outcome.cost.as_ref().ok_or(Unpriced::NoPrice)?;
        let book = self.book(cost.price_book).ok_or(Unpriced::NoPrice)?;
        // The book's name of the provider is the row's; the record's is the configured one.
        let row = book.rows().iter().find(|row| row.id == cost.price_row).ok_or(Unpriced::NoPrice)?;
        let tier = booked.outcome.answered.service_tier.as_ref().map(|tier| tier.as_str());
        book.bill(&booked.outcome.usage, &row.provider, &booked.models(), booked.priced_at, tier)
    }
}
