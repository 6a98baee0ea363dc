//! What was spent: cost by currency, and what stands beside it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::booked::Booked;
use crate::decimal::Decimal;

/// Cost in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Exchanges with a cost.
    pub exchanges: u64,
    /// What they cost.
    pub cost: Decimal,
    /// Those of them whose counts are not the provider's last word.
    pub not_final: u64,
    /// What those cost.
    pub not_final_cost: Decimal,
}

impl Amount {
    /// Counts one exchange.
    pub fn add(&mut self, cost: Decimal, is_final: bool) {
        self.exchanges += 1;
        self.cost = self.cost.plus(cost);
        if !is_final {
            self.not_final += 1;
            self.not_final_cost = self.not_final_cost.plus(cost);
        }
    }
}

/// Cost by currency, and the exchanges that have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spend {
    /// By currency.
    pub by_currency: BTreeMap<String, Amount>,
    /// Exchanges that incurred usage and have no price.
    pub unpriced: u64,
}

impl Spend {
    /// Counts an exchange.
    pub fn add(&mut self, booked: &Booked) {
        match booked.cost() {
            Some((currency, cost)) => {
                self.by_currency.entry(currency.to_owned()).or_default().add(cost, booked.is_final());
            }
            None if booked.incurred() => self.unpriced += 1,
            None => {}
        }
    }

    /// A line for each currency, and one for what has no price.
    pub fn lines(&self) -> Vec<String> {
        let priced: u64 = self.by_currency.values().map(|amount| amount.exchanges).sum();
        let mut lines: Vec<String> = self
            .by_currency
            .iter()
            .map(|(currency, amount)| {
                format!(
                    "{} {currency} in {} exchanges; {} {currency} of it ({}) by counts that are not the provider's last word",
                    amount.cost,
                    amount.exchanges,
                    amount.not_final_cost,
                    share(amount.not_final_cost.0.unsigned_abs(), amount.cost.0.unsigned_abs())
                )
            })
            .collect();
        lines.push(format!(
            "{} of {} exchanges with usage have no price ({})",
            self.unpriced,
            priced + self.unpriced,
            share(self.unpriced.into(), (priced + self.unpriced).into())
        ));
        lines
    }
}

/// `part` of `whole` as a percentage with one digit.
pub fn share(part: u128, whole: u128) -> String {
    let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down_and_nothing_of_nothing_is_nothing() {
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(3, 3), "100.0 %");
        assert_eq!(share(0, 0), "0.0 %");
        assert_eq!(share(u128::MAX, 1), format!("{}.{} %", u128::MAX / 10, u128::MAX % 10));
    }

    #[test]
    fn currencies_are_not_added_together() {
        let mut spend = Spend::default();
        for (currency, cost, is_final) in [("USD", 3, true), ("EUR", 5, false), ("USD", 1, false)] {
            spend.by_currency.entry(currency.into()).or_default().add(Decimal(cost), is_final);
        }
        let usd = spend.by_currency["USD"];
        assert_eq!((usd.exchanges, usd.cost, usd.not_final_cost), (2, Decimal(4), Decimal(1)));
        assert_eq!(spend.by_currency["EUR"].cost, Decimal(5));
        assert_eq!(spend.lines().len(), 3);
    }
}
