//! The outcomes whose cost is booked: one for each response of a provider and target. An answer that is read again does
//! not cost again; one that is read while it is still made ends before the exchange that it cost, and counts as little.

use std::collections::BTreeMap;

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt as _;
use policies::price::{Bill, PriceBook};
use schemas::record::{Body, Outcome, Unpriced, UsageRole, UsageSource};
use schemas::{Sha256Hex, leaf};

use super::group::Group;
use crate::decimal::Decimal;
use crate::query;
use crate::time;

/// One booked outcome.
#[derive(Debug)]
pub struct Booked {
    /// Its values of the dimensions that were asked for.
    pub by: Vec<Option<String>>,
    /// The log.
    pub origin: String,
    /// Its position there.
    pub position: i64,
    /// When the exchange ended, microseconds UTC.
    pub at: i64,
    /// SHA-256 of the leaf, hexadecimal.
    pub leaf_hash: String,
    /// What was recorded.
    pub outcome: Box<Outcome>,
}

/// The subquery over `records`: outcomes of the interval `[from, to)`, each response once. The windowed column
/// `booking` is 1 for the one that counts.
pub fn subquery(from: Option<i64>, to: Option<i64>) -> String {
    let mut filter = "kind = 'outcome'".to_owned();
    for (operator, bound) in [(">=", from), ("<", to)] {
        if let Some(bound) = bound {
            filter.push_str(&format!(" AND at {operator} TIMESTAMP '{}'", time::text(bound)));
        }
    }
    format!(
        "(SELECT *, row_number() OVER (PARTITION BY provider, target, \
         coalesce(response_id, concat(origin, ' ', cast(position AS VARCHAR))) \
         ORDER BY CASE WHEN usage_role = 'incurred' THEN 0 ELSE 1 END, at, origin, position) AS booking \
         FROM records WHERE {filter})"
    )
}

/// The question whose rows [`each`] goes through.
pub fn question(by: &[Group], from: Option<i64>, to: Option<i64>) -> String {
    let groups: String = by.iter().map(|group| format!(", cast({} AS VARCHAR)", group.expression)).collect();
    format!(
        "SELECT origin, position, leaf, leaf_hash{groups} FROM {} WHERE booking = 1 ORDER BY at, origin, position",
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
        let (origins, leaves, hashes) = (text(0)?, text(2)?, text(3)?);
        let positions = batch.column(1).as_primitive::<Int64Type>();
        let groups = (4..batch.num_columns()).map(text).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let leaf = leaves.as_string::<i32>().value(row);
            let decoded = leaf::decode(leaf.as_bytes()).context("a proven leaf")?;
            let Some(record) = decoded.record else { continue };
            let Body::Outcome(outcome) = record.body else { continue };
            let by = groups.iter().map(|column| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            });
            see(Booked {
                by: by.collect(),
                origin: origins.as_string::<i32>().value(row).to_owned(),
                position: positions.value(row),
                at: record.at,
                leaf_hash: hashes.as_string::<i32>().value(row).to_owned(),
                outcome: outcome.into(),
            })?;
        }
    }
    Ok(())
}

impl Booked {
    /// Whether the exchange incurred its usage.
    pub fn incurred(&self) -> bool {
        self.outcome.usage.role == UsageRole::Incurred
            && self.outcome.usage.source != UsageSource::NotApplicable
    }

    /// Whether the counts are the provider's, whenever they were read.
    pub fn is_told(&self) -> bool {
        self.is_final() || self.outcome.usage.source == UsageSource::Drained
    }

    /// Whether the counts are the provider's last word to a caller who waited for it.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome.usage.source, UsageSource::Provider | UsageSource::NotApplicable)
    }

    /// Currency and cost, where there is one.
    pub fn cost(&self) -> Option<(&str, Decimal)> {
        let cost = self.outcome.cost.as_ref()?;
        Some((cost.currency.as_str(), Decimal::parse(&cost.total)?))
    }

    /// The models by which a book may know the exchange: the one that served first.
    pub fn models(&self) -> Vec<&str> {
        [&self.outcome.answered.served_model, &self.outcome.asked.requested_model]
            .into_iter()
            .filter_map(|model| model.as_ref().map(|model| model.as_str()))
            .collect()
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
        book.bill(&booked.outcome.usage, &row.provider, &booked.models(), booked.at, tier)
    }
}
