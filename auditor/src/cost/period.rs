//! Calendar periods: a year, a quarter, a month or a day, UTC.

use std::fmt;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::{Serialize, Serializer};

use crate::time::{self, DAY};

/// A calendar period: `[from, to)` in days since 1970-01-01.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    name: String,
    /// First day.
    pub from: i64,
    /// The day after the last.
    pub to: i64,
}

/// How a period is typed.
pub const FORM: &str = "`2026`, `2026-Q4`, `2026-11` or `2026-11-20`";

fn day_of(date: Date) -> Option<i64> {
    Some(date.since(Date::new(1970, 1, 1).ok()?).ok()?.get_days().into())
}

impl Period {
    /// Reads `2026`, `2026-Q4`, `2026-11` or `2026-11-20`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, length: usize| -> Option<i8> {
            (text.len() == length && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
        };
        let (year, rest) = text.split_at_checked(4)?;
        let year: i16 = year.bytes().all(|b| b.is_ascii_digit()).then(|| year.parse().ok())??;
        let start = |month: i8, day: i8| Date::new(year, month, day).ok();
        let (from, length) = match rest.strip_prefix('-') {
            None if rest.is_empty() => (start(1, 1)?, 1.year()),
            None => return None,
            Some(rest) => match (rest.strip_prefix('Q'), rest.split_once('-')) {
                (Some(quarter), _) => {
                    let quarter = digits(quarter, 1).filter(|quarter| (1..=4).contains(quarter))?;
                    (start(quarter * 3 - 2, 1)?, 3.months())
                }
                (None, Some((month, day))) => (start(digits(month, 2)?, digits(day, 2)?)?, 1.day()),
                (None, None) => (start(digits(rest, 2)?, 1)?, 1.month()),
            },
        };
        let to = from.checked_add(length).ok()?;
        Some(Self { name: text.to_owned(), from: day_of(from)?, to: day_of(to)? })
    }

    /// The month that a time (microseconds UTC) is in.
    pub fn month_of(at: i64) -> Option<Self> {
        Self::parse(time::text(at).get(..7)?)
    }

    /// Whether a time (microseconds UTC) is in it.
    pub fn holds(&self, at: i64) -> bool {
        (self.from..self.to).contains(&at.div_euclid(DAY))
    }

    /// Its start, microseconds UTC.
    pub fn start(&self) -> i64 {
        self.from.saturating_mul(DAY)
    }

    /// Its end, microseconds UTC.
    pub fn end(&self) -> i64 {
        self.to.saturating_mul(DAY)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_calendar_periods_of_utc() {
        for (text, days, start) in [
            ("2026", 365, "2026-01-01T00:00:00Z"),
            ("2024", 366, "2024-01-01T00:00:00Z"),
            ("2026-Q4", 92, "2026-10-01T00:00:00Z"),
            ("2026-02", 28, "2026-02-01T00:00:00Z"),
            ("2026-12", 31, "2026-12-01T00:00:00Z"),
            ("2026-11-20", 1, "2026-11-20T00:00:00Z"),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!((period.to - period.from, time::text(period.start())), (days, start.into()), "{text}");
            assert!(period.holds(period.start()) && !period.holds(period.end()));
        }
        for bad in [
            "",
            "26",
            "2026-",
            "2026-13",
            "2026-Q5",
            "2026-Q",
            "2026-1",
            "2026-02-30",
            "2026-11-2x",
            "Ünix",
            "٢٠٢٦",
        ] {
            assert_eq!(Period::parse(bad), None, "{bad}");
        }
        assert_eq!(Period::month_of(0).unwrap().to_string(), "1970-01");
    }
}
