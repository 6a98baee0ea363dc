//! How a period will end, by what was spent so far and on the days before.
//!
//! What is left of the period is taken day by day: for a weekday the mean of the weekdays among the last 28 complete
//! days, for a day of a weekend that of the weekends (the mean of all of them where there was none). The band is what
//! the same days cost at the lower and upper quartile of the daily sums. Money is counted in units of 10^-12 and means
//! are rounded towards zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::booked::Booked;
use super::period::Period;
use super::sheet::{Cell, Kind, Sheet};
use super::spend::Amount;
use crate::decimal::Decimal;
use crate::time::DAY;

/// How many complete days the forecast looks back.
pub const LOOKS_BACK_DAYS: i64 = 28;

/// How a period will end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Spent in the period so far.
    pub actual: Decimal,
    /// Complete days before today that the forecast rests on.
    pub days_seen: u64,
    /// Days of the period after today.
    pub days_left: u64,
    /// The period's end by day of the week.
    pub forecast: Decimal,
    /// The period's end at the mean of the days seen.
    pub run_rate: Decimal,
    /// At the lower quartile of the days seen.
    pub low: Decimal,
    /// At the upper quartile.
    pub high: Decimal,
}

/// 1970-01-01 was a Thursday.
fn is_weekend(day: i64) -> bool {
    matches!((day + 3).rem_euclid(7), 5 | 6)
}

fn mean(sums: &[i128]) -> Option<i128> {
    let count = i128::try_from(sums.len()).ok().filter(|count| *count > 0)?;
    Some(sums.iter().fold(0, |sum: i128, day| sum.saturating_add(*day)) / count)
}

impl Outlook {
    /// From daily sums. `first` is the first day of which anything is known, `today` the day that is not over yet: the
    /// days before it are complete, and those without a sum cost nothing.
    pub fn of(daily: &BTreeMap<i64, Decimal>, first: i64, today: i64, period: &Period) -> Self {
        let on = |day: i64| daily.get(&day).map_or(0, |sum| sum.0);
        let sum = |from: i64, to: i64| {
            if from >= to {
                0
            } else {
                daily.range(from..to).fold(0, |sum: i128, (_, day)| sum.saturating_add(day.0))
            }
        };
        let actual = sum(period.from, period.to);
        if today >= period.to {
            let end = Decimal(actual);
            return Self {
                actual: end,
                forecast: end,
                run_rate: end,
                low: end,
                high: end,
                ..Self::default()
            };
        }
        let seen: Vec<i64> = (first.max(today - LOOKS_BACK_DAYS)..today).collect();
        let sums: Vec<i128> = seen.iter().map(|day| on(*day)).collect();
        let of_kind = |weekend: bool| -> Option<i128> {
            let kind: Vec<i128> =
                seen.iter().filter(|day| is_weekend(**day) == weekend).map(|day| on(*day)).collect();
            mean(&kind)
        };
        // Where no day is complete, today's own sum is all that is known.
        let overall = mean(&sums).unwrap_or_else(|| on(today));
        let by_kind = [of_kind(false).unwrap_or(overall), of_kind(true).unwrap_or(overall)];
        let mut sorted = sums;
        sorted.sort_unstable();
        let quartile = |quarters: usize| {
            let last = sorted.len().checked_sub(1)?;
            sorted.get(last * quarters / 4).copied()
        };
        let (lower, upper) = (quartile(1).unwrap_or(overall), quartile(3).unwrap_or(overall));
        let end = |expected: &dyn Fn(i64) -> i128| {
            let left = (today.max(period.from)..period.to).fold(0, |sum: i128, day| {
                // Today has cost at least what it has cost by now.
                let least = if day == today { on(today) } else { 0 };
                sum.saturating_add(expected(day).max(least))
            });
            sum(period.from, today.min(period.to)).saturating_add(left)
        };
        let forecast = end(&|day| by_kind[usize::from(is_weekend(day))]);
        Self {
            actual: Decimal(actual),
            days_seen: seen.len() as u64,
            days_left: u64::try_from(period.to - (today + 1).max(period.from)).unwrap_or(0),
            forecast: Decimal(forecast),
            run_rate: Decimal(end(&|_| overall)),
            low: Decimal(end(&|_| lower).min(forecast)),
            high: Decimal(end(&|_| upper).max(forecast)),
        }
    }
}

/// The forecast of one group and currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The group's values.
    pub by: Vec<Option<String>>,
    /// The currency; absent where nothing has a price.
    pub currency: Option<String>,
    /// The period.
    pub period: Period,
    /// Its end.
    pub outlook: Outlook,
    /// What the period's exchanges cost so far.
    pub amount: Amount,
    /// The group's exchanges in the period that incurred usage and have no price.
    pub unpriced: u64,
}

#[derive(Debug, Default)]
struct Series {
    by_currency: BTreeMap<String, (BTreeMap<i64, Decimal>, Amount)>,
    unpriced: u64,
}

/// Collects daily sums.
#[derive(Debug)]
pub struct Forecasts {
    period: Period,
    /// The day that is not over yet.
    today: i64,
    first: Option<i64>,
    groups: BTreeMap<Vec<Option<String>>, Series>,
}

impl Forecasts {
    /// For a period; `now` (microseconds UTC) is up to when something is known.
    pub fn new(period: Period, now: i64) -> Self {
        Self { period, today: now.div_euclid(DAY), first: None, groups: BTreeMap::new() }
    }

    /// From when on exchanges are needed, microseconds UTC.
    pub fn needed_from(&self) -> i64 {
        self.period.from.min(self.today - LOOKS_BACK_DAYS).saturating_mul(DAY)
    }

    /// The first day of which anything is known: of all groups, so that a new group's days before it are empty ones.
    pub fn known_from(&mut self, at: i64) {
        let day = at.div_euclid(DAY);
        self.first = Some(self.first.map_or(day, |first| first.min(day)));
    }

    /// Counts an exchange.
    pub fn add(&mut self, booked: &Booked) {
        self.known_from(booked.at);
        let series = self.groups.entry(booked.by.clone()).or_default();
        let inside = self.period.holds(booked.at);
        match booked.cost() {
            Some((currency, cost)) => {
                let (daily, amount) = series.by_currency.entry(currency.to_owned()).or_default();
                let sum = daily.entry(booked.at.div_euclid(DAY)).or_default();
                *sum = sum.plus(cost);
                if inside {
                    amount.add(cost, booked.word(), booked.exchanges());
                }
            }
            None if booked.incurred() && inside => series.unpriced += 1,
            None => {}
        }
    }

    /// The forecasts, by group and currency.
    pub fn finish(self) -> Vec<Forecast> {
        let first = self.first.unwrap_or(self.today);
        let mut out = Vec::new();
        for (by, series) in self.groups {
            let unpriced = series.unpriced;
            let row = |currency: Option<String>, outlook, amount| Forecast {
                by: by.clone(),
                currency,
                period: self.period.clone(),
                outlook,
                amount,
                unpriced,
            };
            if series.by_currency.is_empty() && unpriced > 0 {
                out.push(row(None, Outlook::default(), Amount::default()));
            }
            for (currency, (daily, amount)) in series.by_currency {
                let outlook = Outlook::of(&daily, first, self.today, &self.period);
                out.push(row(Some(currency), outlook, amount));
            }
        }
        out
    }
}

/// As rows.
pub fn sheet(by: &[&str], forecasts: &[Forecast]) -> Sheet {
    let texts = by.iter().copied().chain(["period", "currency"]);
    let mut sheet = Sheet::new(
        texts,
        [
            ("exchanges", Kind::Count),
            ("actual", Kind::Money),
            ("forecast", Kind::Money),
            ("low", Kind::Money),
            ("high", Kind::Money),
            ("run_rate", Kind::Money),
            ("days_seen", Kind::Count),
            ("days_left", Kind::Count),
            ("not_final_cost", Kind::Money),
            ("unpriced", Kind::Count),
        ],
    );
    for forecast in forecasts {
        let priced = forecast.currency.is_some();
        let money = |amount: Decimal| if priced { Cell::Money(amount) } else { Cell::Empty };
        let outlook = forecast.outlook;
        let mut row: Vec<Cell> = forecast.by.iter().cloned().map(Cell::from).collect();
        row.extend([
            Cell::Text(forecast.period.to_string()),
            forecast.currency.clone().into(),
            forecast.amount.exchanges.into(),
            money(outlook.actual),
            money(outlook.forecast),
            money(outlook.low),
            money(outlook.high),
            money(outlook.run_rate),
            outlook.days_seen.into(),
            outlook.days_left.into(),
            money(forecast.amount.not_final_cost),
            forecast.unpriced.into(),
        ]);
        sheet.push(row);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn november() -> Period {
        Period::parse("2026-11").unwrap()
    }

    fn day(text: &str) -> i64 {
        Period::parse(text).unwrap().from
    }

    fn units(number: i128) -> Decimal {
        Decimal(number * 1_000_000_000_000)
    }

    #[test]
    fn weekends_are_forecast_by_weekends() {
        assert!(is_weekend(day("2026-11-21")) && is_weekend(day("2026-11-22")));
        assert!(!is_weekend(day("2026-11-20")) && !is_weekend(day("2026-11-23")));
        // 10 on weekdays, 1 on weekends, since long before; today is Monday, 23 November, so far 4.
        let today = day("2026-11-23");
        let mut daily: BTreeMap<i64, Decimal> = (today - 40..today)
            .map(|day| (day, if is_weekend(day) { units(1) } else { units(10) }))
            .collect();
        daily.insert(today, units(4));
        let outlook = Outlook::of(&daily, today - 40, today, &november());
        // 1 to 22 November: 15 weekdays, 7 days of weekends; 23 to 30: 6 weekdays, 2 of a weekend.
        assert_eq!(outlook.actual, units(15 * 10 + 7 + 4));
        assert_eq!(outlook.forecast, units(15 * 10 + 7 + 6 * 10 + 2));
        assert_eq!((outlook.days_seen, outlook.days_left), (28, 7));
        assert_eq!((outlook.low, outlook.high), (units(157 + 4 + 7), units(157 + 80)));
    }

    #[test]
    fn a_period_that_is_over_is_what_it_was_and_a_first_day_counts_as_itself() {
        let daily = BTreeMap::from([(day("2026-10-31"), units(9)), (day("2026-11-30"), units(2))]);
        let over = Outlook::of(&daily, day("2026-10-31"), day("2026-12-01"), &november());
        assert_eq!(
            (over.actual, over.forecast, over.high, over.days_left),
            (units(2), units(2), units(2), 0)
        );
        let today = day("2026-11-30");
        let first = Outlook::of(&BTreeMap::from([(today, units(2))]), today, today, &november());
        assert_eq!((first.forecast, first.days_seen, first.days_left), (units(2), 0, 0));
        // A period that has not begun.
        let before = Outlook::of(
            &BTreeMap::from([(day("2026-10-30"), units(3))]),
            day("2026-10-30"),
            day("2026-10-31"),
            &november(),
        );
        assert_eq!((before.actual, before.forecast, before.days_left), (units(0), units(90), 30));
    }

    proptest! {
        #[test]
        fn an_end_is_never_below_what_was_spent_and_lies_in_its_band(
            sums in proptest::collection::vec(0_i64..1_000_000, 0..70),
            since in 0_i64..60,
        ) {
            let today = day("2026-11-20");
            let daily: BTreeMap<i64, Decimal> =
                sums.iter().zip(today - since..=today).map(|(sum, day)| (day, Decimal((*sum).into()))).collect();
            let outlook = Outlook::of(&daily, today - since, today, &november());
            prop_assert!(outlook.low <= outlook.forecast && outlook.forecast <= outlook.high);
            prop_assert!(outlook.low >= outlook.actual && outlook.run_rate >= outlook.actual);
        }
    }
}
