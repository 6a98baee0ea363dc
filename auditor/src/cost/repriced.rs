//! What exchanges would have cost at another model's prices: the recorded counts, by the other model's row of the day.
//!
//! The counts are those that the model that served told. Another model cuts text into other tokens, reasons more or
//! less, and caches by other rules: this is a comparison of price lists, not of models.

use std::collections::BTreeMap;

use policies::price::PriceBook;
use serde::Serialize;

use super::booked::Booked;
use super::sheet::{Cell, Kind, Sheet};
use crate::decimal::Decimal;

/// The model that is asked about: `openai/gpt-4o-mini`, the provider as the price book calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// The provider in the book.
    pub provider: String,
    /// The model.
    pub model: String,
}

impl Other {
    /// Reads `PROVIDER/MODEL`.
    ///
    /// # Errors
    /// Another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self { provider: provider.to_owned(), model: model.to_owned() })
            }
            _ => Err(format!(
                "`{text}` is no model of a price book: wanted `PROVIDER/MODEL`, as `openai/gpt-4o-mini`"
            )),
        }
    }

    /// Whether the book has a row for it.
    pub fn is_in(&self, book: &PriceBook) -> bool {
        book.rows().iter().any(|row| {
            row.provider == self.provider && row.models.iter().any(|pattern| pattern.matches(&self.model))
        })
    }

    /// What an exchange would have cost, in which currency.
    fn cost(&self, book: &PriceBook, booked: &Booked) -> Option<(String, Decimal)> {
        let bill = book.bill(&booked.outcome.usage, &self.provider, &[&self.model], booked.at, None).ok()?;
        Some((bill.row.currency.to_string(), Decimal(bill.total.units())))
    }
}

/// One group's comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Exchanges whose outcome has both costs.
    pub exchanges: u64,
    /// Answers that have both costs: these, and those of targets that did not count.
    pub answers: u64,
    /// What they cost.
    pub cost: Decimal,
    /// What they would have cost.
    pub other: Decimal,
    /// Of their cost: by counts that are not the provider's last word.
    pub not_final_cost: Decimal,
    /// Exchanges with usage that have no cost of their own.
    pub unpriced: u64,
    /// Exchanges for whose tokens the other model has no price.
    pub other_unpriced: u64,
}

/// By group, currency, and the other currency.
pub type All = BTreeMap<(Vec<Option<String>>, Option<String>, Option<String>), Comparison>;

/// Counts an exchange.
pub fn add(all: &mut All, other: &Other, book: &PriceBook, booked: &Booked) {
    if !booked.incurred() {
        return;
    }
    let (cost, would) = (booked.cost(), other.cost(book, booked));
    let key = (
        booked.by.clone(),
        cost.map(|(currency, _)| currency.to_owned()),
        would.as_ref().map(|(currency, _)| currency.clone()),
    );
    let comparison = all.entry(key).or_default();
    match (cost, would) {
        (Some((_, cost)), Some((_, would))) => {
            comparison.exchanges += booked.exchanges();
            comparison.answers += 1;
            comparison.cost = comparison.cost.plus(cost);
            comparison.other = comparison.other.plus(would);
            if !booked.is_final() {
                comparison.not_final_cost = comparison.not_final_cost.plus(cost);
            }
        }
        (Some(_), None) => comparison.other_unpriced += 1,
        (None, Some(_)) => comparison.unpriced += 1,
        (None, None) => {
            comparison.unpriced += 1;
            comparison.other_unpriced += 1;
        }
    }
}

/// As rows.
pub fn sheet(by: &[&str], all: &All) -> Sheet {
    let texts = by.iter().copied().chain(["currency", "other_currency"]);
    let mut sheet = Sheet::new(
        texts,
        [
            ("exchanges", Kind::Count),
            ("cost", Kind::Money),
            ("other_cost", Kind::Money),
            ("difference", Kind::Money),
            ("not_final_cost", Kind::Money),
            ("unpriced", Kind::Count),
            ("other_unpriced", Kind::Count),
        ],
    );
    for ((values, currency, other), comparison) in all {
        let mut row: Vec<Cell> = values.iter().cloned().map(Cell::from).collect();
        let money = |amount: Decimal| if comparison.answers > 0 { Cell::Money(amount) } else { Cell::Empty };
        let difference = Decimal(comparison.other.0.saturating_sub(comparison.cost.0));
        row.extend([
            currency.clone().into(),
            other.clone().into(),
            comparison.exchanges.into(),
            money(comparison.cost),
            money(comparison.other),
            if currency == other { money(difference) } else { Cell::Empty },
            money(comparison.not_final_cost),
            comparison.unpriced.into(),
            comparison.other_unpriced.into(),
        ]);
        sheet.push(row);
    }
    sheet
}
