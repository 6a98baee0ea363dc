//! What was spent: cost by currency, and what stands beside it.

use std::collections::BTreeMap;

use schemas::record::UsageSource;
use serde::Serialize;

use super::booked::Booked;
use crate::decimal::Decimal;

/// Cost in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Exchanges whose outcome has a cost.
    pub exchanges: u64,
    /// Answers with a cost: these, and those of targets that did not count.
    pub answers: u64,
    /// What they cost.
    pub cost: Decimal,
    /// Those answers whose counts are not the provider's last word.
    pub not_final: u64,
    /// What those cost.
    pub not_final_cost: Decimal,
    /// What of that is cost by the gateway's own estimates.
    pub estimated_cost: Decimal,
}

/// Whose word the counts of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The provider's last one.
    Final,
    /// The gateway's, which estimated them.
    Estimated,
    /// Any other.
    Other,
}

impl Amount {
    /// Counts one answer; `exchanges`: what it adds to these.
    pub fn add(&mut self, cost: Decimal, word: Word, exchanges: u64) {
        self.exchanges += exchanges;
        self.answers += 1;
        self.cost = self.cost.plus(cost);
        if word != Word::Final {
            self.not_final += 1;
            self.not_final_cost = self.not_final_cost.plus(cost);
        }
        if word == Word::Estimated {
            self.estimated_cost = self.estimated_cost.plus(cost);
        }
    }
}

/// Cost by currency, and the answers that have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spend {
    /// By currency.
    pub by_currency: BTreeMap<String, Amount>,
    /// Answers that incurred usage and have no price.
    pub unpriced: u64,
    /// Those of them of whose usage nobody knows.
    pub no_usage: u64,
}

impl Spend {
    /// Counts an answer.
    pub fn add(&mut self, booked: &Booked) {
        match booked.cost() {
            Some((currency, cost)) => {
                let amount = self.by_currency.entry(currency.to_owned()).or_default();
                amount.add(cost, booked.word(), booked.exchanges());
            }
            None if booked.incurred() => {
                self.unpriced += 1;
                self.no_usage += u64::from(booked.outcome.usage.source == UsageSource::Unknown);
            }
            None => {}
        }
    }

    /// A line for each currency, and one for what has no price.
    pub fn lines(&self) -> Vec<String> {
        let priced: u64 = self.by_currency.values().map(|amount| amount.answers).sum();
        let mut lines: Vec<String> = self
            .by_currency
            .iter()
            .map(|(currency, amount)| {
                format!(
                    "{} {currency} in {} exchanges; {} {currency} of it ({}) by counts that are not the provider's last word, \
                     {} {currency} ({}) by estimates",
                    amount.cost,
                    amount.exchanges,
                    amount.not_final_cost,
                    share(amount.not_final_cost.0.unsigned_abs(), amount.cost.0.unsigned_abs()),
                    amount.estimated_cost,
                    share(amount.estimated_cost.0.unsigned_abs(), amount.cost.0.unsigned_abs())
                )
            })
            .collect();
        let all = priced + self.unpriced;
        let known = self.unpriced - self.no_usage;
        lines.push(format!(
            "{known} of {all} answers have usage and no price ({}), {} have unknown usage ({})",
            share(known.into(), all.into()),
            self.no_usage,
            share(self.no_usage.into(), all.into())
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
        for (currency, cost, word) in
            [("USD", 3, Word::Final), ("EUR", 5, Word::Other), ("USD", 1, Word::Estimated)]
        {
            spend.by_currency.entry(currency.into()).or_default().add(Decimal(cost), word, 1);
        }
        // An answer that did not count, of an exchange that is counted with its outcome.
        spend.by_currency.entry("USD".into()).or_default().add(Decimal(2), Word::Final, 0);
        let usd = spend.by_currency["USD"];
        assert_eq!((usd.exchanges, usd.answers), (2, 3));
        assert_eq!((usd.cost, usd.not_final_cost), (Decimal(6), Decimal(1)));
        assert_eq!(usd.estimated_cost, Decimal(1));
        let eur = spend.by_currency["EUR"];
        assert_eq!((eur.cost, eur.not_final_cost, eur.estimated_cost), (Decimal(5), Decimal(5), Decimal(0)));
        assert_eq!(spend.lines().len(), 3);
        (spend.unpriced, spend.no_usage) = (6, 4);
        let last = "2 of 10 answers have usage and no price (20.0 %), 4 have unknown usage (40.0 %)";
        assert_eq!(spend.lines()[2], last);
    }
}
