//! When the prices changed that costs were computed by, and what changed: of what was used, class by class.

use std::collections::BTreeMap;

use policies::price::Bill;
use schemas::Sha256Hex;
use serde::Serialize;

use super::booked::Booked;
use super::sheet::{Cell, Kind, Sheet};
use super::spend::share;
use crate::decimal::Decimal;
use crate::time;

/// What has one price at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Priced {
    provider: String,
    model: String,
    tier: String,
    input_above: u64,
    class: &'static str,
    currency: String,
}

/// A price and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Price {
    amount: Decimal,
    book: Sha256Hex,
    row: String,
}

/// A change of price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    what: Priced,
    /// When the last exchange at the old price ended, microseconds UTC.
    last_before: i64,
    /// When the first one at the new price ended.
    first_after: i64,
    before: Price,
    after: Price,
}

/// Follows prices in the order of time.
#[derive(Debug, Default)]
pub struct Changes {
    now: BTreeMap<Priced, (i64, Price)>,
    changes: Vec<Change>,
    /// Exchanges with a cost whose book or row cannot be read.
    pub not_known: u64,
}

impl Changes {
    /// Looks at an exchange; they come in the order of time.
    pub fn add(&mut self, booked: &Booked, bill: Option<&Bill<'_>>) {
        let Some(cost) = &booked.outcome.cost else { return };
        let Some(bill) = bill else {
            self.not_known += 1;
            return;
        };
        for item in &bill.items {
            let what = Priced {
                provider: bill.row.provider.clone(),
                model: booked.model().unwrap_or_default().to_owned(),
                tier: booked
                    .outcome
                    .answered
                    .service_tier
                    .as_ref()
                    .map_or_else(|| bill.row.tier.clone(), ToString::to_string),
                input_above: bill.row.input_above,
                class: item.class,
                currency: bill.row.currency.to_string(),
            };
            let amount = Decimal(item.price.units());
            let price = Price { amount, book: cost.price_book, row: cost.price_row.to_string() };
            match self.now.get_mut(&what) {
                Some((at, known)) if known.amount == price.amount => (*at, *known) = (booked.at, price),
                Some((at, known)) => {
                    self.changes.push(Change {
                        what,
                        last_before: *at,
                        first_after: booked.at,
                        before: std::mem::replace(known, price.clone()),
                        after: price,
                    });
                    *at = booked.at;
                }
                None => _ = self.now.insert(what, (booked.at, price)),
            }
        }
    }

    /// The changes, in the order of time.
    pub fn finish(self) -> Vec<Change> {
        self.changes
    }
}

/// As rows.
pub fn sheet(changes: &[Change]) -> Sheet {
    let mut sheet = Sheet::new(
        ["provider", "model", "tier", "class", "currency", "last_before", "first_after"],
        [
            ("input_above", Kind::Count),
            ("before", Kind::Money),
            ("after", Kind::Money),
            ("change", Kind::Text),
            ("row_before", Kind::Text),
            ("row_after", Kind::Text),
            ("book_before", Kind::Text),
            ("book_after", Kind::Text),
        ],
    );
    for change in changes {
        let (before, after) = (change.before.amount.0, change.after.amount.0);
        let by = share(after.abs_diff(before), before.unsigned_abs());
        let sign = if after < before { '-' } else { '+' };
        sheet.push(vec![
            Cell::Text(change.what.provider.clone()),
            Cell::Text(change.what.model.clone()),
            Cell::Text(change.what.tier.clone()),
            change.what.class.into(),
            Cell::Text(change.what.currency.clone()),
            Cell::Text(time::text(change.last_before)),
            Cell::Text(time::text(change.first_after)),
            change.what.input_above.into(),
            change.before.amount.into(),
            change.after.amount.into(),
            if before == 0 { Cell::Empty } else { Cell::Text(format!("{sign}{by}")) },
            Cell::Text(change.before.row.clone()),
            Cell::Text(change.after.row.clone()),
            Cell::Text(change.before.book.to_string()),
            Cell::Text(change.after.book.to_string()),
        ]);
    }
    sheet
}
