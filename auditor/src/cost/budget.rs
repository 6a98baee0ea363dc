//! Budgets: a file of amounts by period and dimension, and what was spent of them.
//!
//! ```text
//! team,model,period,amount,currency
//! research,*,2026-11,500,USD
//! ,,2026-Q4,4000,USD
//! ```
//! Every other column is a dimension of `--by`; an empty cell or `*` is any value. Lines may overlap: each is held
//! against all that it names. Spend that no line of its period and currency names is listed as not budgeted. An
//! exchange without a price uses up no budget; how many there are stands beside each line.

use std::collections::BTreeMap;

use policies::document::{Place, Problem};
use serde::Serialize;

use super::booked::Booked;
use super::forecast::Outlook;
use super::group::Group;
use super::period::{FORM, Period};
use super::sheet::{Cell, Kind, Sheet};
use super::spend::Amount;
use crate::decimal::Decimal;
use crate::time::DAY;

/// Most lines of a file.
const MOST_LINES: usize = 10_000;

/// One line of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its line in the file.
    pub line: u64,
    /// The values that it is for, as the file's dimensions; absent is any.
    pub by: Vec<Option<String>>,
    /// The period.
    pub period: Period,
    /// How much.
    pub amount: Decimal,
    /// Of what.
    pub currency: String,
}

/// A budget that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its dimensions.
    pub groups: Vec<Group>,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Budget {
    /// Reads a file.
    ///
    /// # Errors
    /// Every problem of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(bytes);
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(_) => {
                return Err(vec![Problem::general("", "a first line of UTF-8 text that names the columns")]);
            }
        };
        let place = |line: u64| Place { line, column: 1 };
        let first = header.position().map_or(1, csv::Position::line);
        let mut problems = Vec::new();
        let (mut groups, mut columns) = (Vec::new(), Vec::new());
        let mut known = BTreeMap::new();
        for (index, name) in header.iter().enumerate() {
            let known_name = ["period", "amount", "currency"].into_iter().find(|known| *known == name);
            match (known_name, Group::parse(name)) {
                _ if header.iter().filter(|other| *other == name).count() > 1 => {
                    problems.push(Problem::at(place(first), name, "each column once"));
                }
                (Some(name), _) => _ = known.insert(name, index),
                (None, Ok(group)) => {
                    groups.push(group);
                    columns.push(index);
                }
                (None, Err(error)) => {
                    problems.push(Problem::at(place(first), name, format!("a dimension: {error}")))
                }
            }
        }
        for name in ["period", "amount", "currency"] {
            if !known.contains_key(name) && !header.iter().any(|other| other == name) {
                problems.push(Problem::at(place(first), name, "this column in the header"));
            }
        }
        let mut lines = Vec::new();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    problems.push(Problem::at(place(line), "", "a CSV line of UTF-8 text"));
                    continue;
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != header.len() {
                let wanted = format!("{} cells, as the header has; found {}", header.len(), record.len());
                problems.push(Problem::at(place(line), "", wanted));
                continue;
            }
            if lines.len() >= MOST_LINES {
                problems.push(Problem::at(place(line), "", format!("at most {MOST_LINES} lines")));
                break;
            }
            let cell = |name: &str| known.get(name).and_then(|index| record.get(*index)).unwrap_or_default();
            let mut problem = |key: &str, wanted: String| {
                problems.push(Problem::at(place(line), key, wanted).value(cell(key)));
            };
            let period = Period::parse(cell("period"));
            if period.is_none() {
                problem("period", FORM.into());
            }
            let amount = Decimal::parse(cell("amount")).filter(|amount| amount.0 >= 0);
            if amount.is_none() {
                problem("amount", "an amount as `500` or `499.90`".into());
            }
            let currency = cell("currency");
            let is_code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
            if !is_code {
                problem("currency", "an ISO 4217 code as `USD`".into());
            }
            let by = columns.iter().map(|index| {
                record.get(*index).filter(|value| !value.is_empty() && *value != "*").map(str::to_owned)
            });
            if let (Some(period), Some(amount), true) = (period, amount, is_code) {
                lines.push(Line { line, by: by.collect(), period, amount, currency: currency.to_owned() });
            }
        }
        if lines.is_empty() && problems.is_empty() {
            problems.push(Problem::general("", "at least one line"));
        }
        if problems.is_empty() { Ok(Self { groups, lines }) } else { Err(problems) }
    }

    /// The time that its lines are about: `[from, to)`, microseconds UTC.
    pub fn span(&self) -> Option<(i64, i64)> {
        let from = self.lines.iter().map(|line| line.period.start()).min()?;
        Some((from, self.lines.iter().map(|line| line.period.end()).max()?))
    }
}

/// What was spent of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// The line; absent for what no line names.
    pub line: Option<Line>,
    /// The currency.
    pub currency: String,
    /// What was spent.
    pub amount: Amount,
    /// How the period will end, where it is not over.
    pub outlook: Outlook,
    /// Exchanges that the line names, with usage and without a price.
    pub unpriced: u64,
}

impl Spent {
    /// `over`, `will be over` by the forecast, or `within`.
    pub fn state(&self) -> &'static str {
        let Some(line) = &self.line else { return "not budgeted" };
        if self.amount.cost > line.amount {
            "over"
        } else if self.outlook.forecast > line.amount {
            "will be over"
        } else {
            "within"
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Sum {
    amount: Amount,
    unpriced: u64,
    daily: BTreeMap<i64, Decimal>,
}

/// Holds what was spent against a budget.
#[derive(Debug)]
pub struct Budgeting {
    budget: Budget,
    now: i64,
    first: Option<i64>,
    sums: Vec<Sum>,
    beside: BTreeMap<String, Amount>,
}

impl Budgeting {
    /// `now`: up to when something is known, microseconds UTC.
    pub fn new(budget: Budget, now: i64) -> Self {
        let sums = vec![Sum::default(); budget.lines.len()];
        Self { budget, now, first: None, sums, beside: BTreeMap::new() }
    }

    /// The first time of which anything is known.
    pub fn known_from(&mut self, at: i64) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
    }

    /// Counts an exchange; its dimensions are those of the budget.
    pub fn add(&mut self, booked: &Booked) {
        self.known_from(booked.at);
        let cost = booked.cost();
        let mut named = false;
        for (line, sum) in self.budget.lines.iter().zip(&mut self.sums) {
            let is_meant =
                |(wanted, found): (&Option<String>, &Option<String>)| wanted.is_none() || wanted == found;
            if !line.by.iter().zip(&booked.by).all(is_meant) {
                continue;
            }
            let inside = line.period.holds(booked.at);
            match cost {
                Some((currency, cost)) if currency == line.currency => {
                    let day = sum.daily.entry(booked.at.div_euclid(DAY)).or_default();
                    *day = day.plus(cost);
                    if inside {
                        named = true;
                        sum.amount.add(cost, booked.word(), booked.exchanges());
                    }
                }
                None if inside && booked.incurred() => sum.unpriced += 1,
                _ => {}
            }
        }
        let budgeted = self.budget.span().is_some_and(|(from, to)| (from..to).contains(&booked.at));
        if let (Some((currency, cost)), false, true) = (cost, named, budgeted) {
            let amount = self.beside.entry(currency.to_owned()).or_default();
            amount.add(cost, booked.word(), booked.exchanges());
        }
    }

    /// The lines in the order of the file, then what none of them names.
    pub fn finish(self) -> Vec<Spent> {
        let today = self.now.div_euclid(DAY);
        let first = self.first.map_or(today, |at| at.div_euclid(DAY));
        let lines = self.budget.lines.into_iter().zip(self.sums).map(|(line, sum)| Spent {
            outlook: Outlook::of(&sum.daily, first, today, &line.period),
            currency: line.currency.clone(),
            line: Some(line),
            amount: sum.amount,
            unpriced: sum.unpriced,
        });
        let beside = self.beside.into_iter().map(|(currency, amount)| Spent {
            line: None,
            currency,
            amount,
            outlook: Outlook::default(),
            unpriced: 0,
        });
        lines.chain(beside).collect()
    }
}

/// As rows.
pub fn sheet(by: &[&str], spent: &[Spent]) -> Sheet {
    let texts = by.iter().copied().chain(["period", "currency", "state"]);
    let mut sheet = Sheet::new(
        texts,
        [
            ("budget", Kind::Money),
            ("actual", Kind::Money),
            ("left", Kind::Money),
            ("used", Kind::Text),
            ("forecast", Kind::Money),
            ("exchanges", Kind::Count),
            ("not_final_cost", Kind::Money),
            ("unpriced", Kind::Count),
        ],
    );
    for spent in spent {
        let values = spent.line.as_ref().map_or_else(|| vec![None; by.len()], |line| line.by.clone());
        let any = |value: Option<String>| Cell::Text(value.unwrap_or_else(|| "*".into()));
        let mut row: Vec<Cell> = values.into_iter().map(any).collect();
        row.extend([
            spent.line.as_ref().map(|line| line.period.to_string()).into(),
            Cell::Text(spent.currency.clone()),
            spent.state().into(),
        ]);
        row.extend(match &spent.line {
            Some(line) => [
                Cell::Money(line.amount),
                Cell::Money(spent.amount.cost),
                Cell::Money(Decimal(line.amount.0.saturating_sub(spent.amount.cost.0))),
                if line.amount.0 == 0 {
                    Cell::Empty
                } else {
                    let used = spent.amount.cost.0.unsigned_abs();
                    Cell::Text(super::spend::share(used, line.amount.0.unsigned_abs()))
                },
                Cell::Money(spent.outlook.forecast),
            ],
            None => [Cell::Empty, Cell::Money(spent.amount.cost), Cell::Empty, Cell::Empty, Cell::Empty],
        });
        row.extend([
            spent.amount.exchanges.into(),
            Cell::Money(spent.amount.not_final_cost),
            if spent.line.is_some() { spent.unpriced.into() } else { Cell::Empty },
        ]);
        sheet.push(row);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_with_its_dimensions_and_open_cells() {
        let text =
            "# ours\nteam,model,period,amount,currency\nresearch,*,2026-11,500.50,USD\n,,2026-Q4,4000,EUR\n";
        let budget = Budget::parse(text.as_bytes()).unwrap();
        assert_eq!(
            budget.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(),
            ["team", "model"]
        );
        let by: Vec<_> = budget.lines.iter().map(|line| line.by.clone()).collect();
        assert_eq!(by, [vec![Some("research".to_owned()), None], vec![None, None]]);
        assert_eq!(budget.lines[0].amount.to_string(), "500.5");
        assert_eq!(
            budget.span(),
            Some((Period::parse("2026-10").unwrap().start(), Period::parse("2026-12").unwrap().end()))
        );
    }

    #[test]
    fn every_problem_of_a_budget_is_named_with_line_key_value_and_wanted_form() {
        for (text, wanted) in [
            ("team,period,amount,currency\na,2026-13,1,USD\n", "period"),
            ("team,period,amount,currency\na,2026-11,-1,USD\n", "an amount as"),
            ("team,period,amount,currency\na,2026-11,1,usd\n", "ISO 4217"),
            ("team,period,amount,currency\na,2026-11,1\n", "4 cells"),
            ("teem,period,amount,currency\na,2026-11,1,USD\n", "`team`"),
            ("team,period,amount\na,2026-11,1\n", "currency"),
            ("team,team,period,amount,currency\n", "each column once"),
            ("team,period,amount,currency\n", "at least one line"),
            ("", "this column"),
        ] {
            let problems = Budget::parse(text.as_bytes()).unwrap_err();
            let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(told.contains(wanted), "{text}\n{told}");
        }
        assert!(Budget::parse(b"\xff\xfe,period\n\xff").is_err());
    }
}
