//! What provider-side prompt caches saved: input that was read from a cache at its price, against the same input at the
//! price of input; less what writing to the cache cost above that.

use std::collections::BTreeMap;

use policies::price::Bill;
use serde::Serialize;

use super::booked::Booked;
use super::sheet::{Cell, Kind, Sheet};
use crate::decimal::Decimal;

/// The classes that are tokens of input.
const INPUT: [&str; 6] =
    ["input", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio", "input_image"];

/// The savings of one group and currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Savings {
    /// Exchanges whose outcome has a cost.
    pub exchanges: u64,
    /// What they cost, with answers that did not count.
    pub cost: Decimal,
    /// All their input.
    pub input_tokens: u64,
    /// What of it was read from caches.
    pub cache_read_tokens: u64,
    /// What was written to caches.
    pub cache_write_tokens: u64,
    /// What reading from caches saved.
    pub saved: Decimal,
    /// What writing to caches cost above the price of input; negative where a book has it below.
    pub paid: Decimal,
    /// Exchanges whose book or row cannot be read: their savings are not known.
    pub not_known: u64,
    /// Cost by counts that are not the provider's last word.
    pub not_final_cost: Decimal,
}

impl Savings {
    /// Saved less paid.
    pub fn net(&self) -> Decimal {
        Decimal(self.saved.0.saturating_sub(self.paid.0))
    }

    fn add(&mut self, booked: &Booked, cost: Decimal, bill: Option<&Bill<'_>>) {
        self.exchanges += booked.exchanges();
        self.cost = self.cost.plus(cost);
        if !booked.is_final() {
            self.not_final_cost = self.not_final_cost.plus(cost);
        }
        let known = bill.and_then(|bill| self.classes(bill));
        if known.is_none() {
            self.not_known += 1;
        }
    }

    fn classes(&mut self, bill: &Bill<'_>) -> Option<()> {
        let input = bill.prices.input;
        for item in &bill.items {
            let full = || Some(Decimal(input?.per_million(item.tokens)?.units()));
            let cost = Decimal(item.cost.units());
            match item.class {
                "cache_read" => {
                    self.saved = self.saved.plus(Decimal(full()?.0.saturating_sub(cost.0)));
                    self.cache_read_tokens = self.cache_read_tokens.saturating_add(item.tokens);
                }
                "cache_write_5m" | "cache_write_1h" => {
                    self.paid = self.paid.plus(Decimal(cost.0.saturating_sub(full()?.0)));
                    self.cache_write_tokens = self.cache_write_tokens.saturating_add(item.tokens);
                }
                _ => {}
            }
            if INPUT.contains(&item.class) {
                self.input_tokens = self.input_tokens.saturating_add(item.tokens);
            }
        }
        Some(())
    }
}

/// By group and currency.
pub type All = BTreeMap<(Vec<Option<String>>, String), Savings>;

/// Counts an exchange.
pub fn add(all: &mut All, booked: &Booked, bill: Option<&Bill<'_>>) {
    let Some((currency, cost)) = booked.cost() else { return };
    let savings = all.entry((booked.by.clone(), currency.to_owned())).or_default();
    savings.add(booked, cost, bill);
}

/// As rows.
pub fn sheet(by: &[&str], all: &All) -> Sheet {
    let texts = by.iter().copied().chain(["currency"]);
    let mut sheet = Sheet::new(
        texts,
        [
            ("exchanges", Kind::Count),
            ("cost", Kind::Money),
            ("input_tokens", Kind::Count),
            ("cache_read_tokens", Kind::Count),
            ("read_share", Kind::Text),
            ("cache_write_tokens", Kind::Count),
            ("saved_by_reads", Kind::Money),
            ("paid_for_writes", Kind::Money),
            ("net_saving", Kind::Money),
            ("without_cache", Kind::Money),
            ("not_final_cost", Kind::Money),
            ("not_known", Kind::Count),
        ],
    );
    for ((values, currency), savings) in all {
        let mut row: Vec<Cell> = values.iter().cloned().map(Cell::from).collect();
        row.extend([
            Cell::Text(currency.clone()),
            savings.exchanges.into(),
            savings.cost.into(),
            savings.input_tokens.into(),
            savings.cache_read_tokens.into(),
            Cell::Text(super::spend::share(savings.cache_read_tokens.into(), savings.input_tokens.into())),
            savings.cache_write_tokens.into(),
            savings.saved.into(),
            savings.paid.into(),
            savings.net().into(),
            savings.cost.plus(savings.net()).into(),
            savings.not_final_cost.into(),
            savings.not_known.into(),
        ]);
        sheet.push(row);
    }
    sheet
}
