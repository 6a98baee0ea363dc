//! Charts as SVG: shapes only, stretched to the page's width; numbers and names stand beside them as text.

use super::data::Span;
use super::html::Html;
use crate::cost::period::Period;
use crate::time::{self, DAY};

/// Bars that a chart has at most.
const MOST: usize = 400;

/// How long a bar of a chart over time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A day.
    Day,
    /// Seven days from Monday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl Unit {
    /// The one in which a period has bars that can be told apart.
    pub fn of(period: Span) -> Self {
        match period.to.saturating_sub(period.from) / DAY {
            ..=62 => Self::Day,
            63..=730 => Self::Week,
            731..=3660 => Self::Month,
            _ => Self::Year,
        }
    }

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Start and end of the bar that a time is in.
    fn around(self, at: i64) -> (i64, i64) {
        let day = at.div_euclid(DAY);
        // 1970-01-01 was a Thursday.
        let monday = (day + 3).div_euclid(7) * 7 - 3;
        let calendar = |length: usize| {
            let period = time::text(at).get(..length).and_then(Period::parse);
            period.map_or((day, day + 1), |period| (period.from, period.to))
        };
        let (from, to) = match self {
            Self::Day => (day, day + 1),
            Self::Week => (monday, monday + 7),
            Self::Month => calendar(7),
            Self::Year => calendar(4),
        };
        (from.saturating_mul(DAY), to.saturating_mul(DAY))
    }
}

/// A bar: where it begins, and how high it is.
pub type Bar = (i64, u128);

/// Adds up what was measured by day; a bar for every unit of the period, also where there is nothing.
pub fn bars(period: Span, days: impl Iterator<Item = Bar> + Clone) -> Vec<Bar> {
    let unit = Unit::of(period);
    let (mut from, mut last) = (period.from, period.to.saturating_sub(1));
    if unit == Unit::Year {
        // Nobody asked for centuries: from the first measured day to the last.
        from = from.max(days.clone().map(|(day, _)| day).min().unwrap_or(from));
        last = last.min(days.clone().map(|(day, _)| day).max().unwrap_or(from));
    }
    let mut out: Vec<Bar> = Vec::new();
    let mut at = unit.around(from);
    while at.0 <= last && out.len() < MOST {
        let within = days.clone().filter(|(day, _)| (at.0..at.1).contains(day)).map(|(_, value)| value);
        out.push((at.0, within.fold(0, u128::saturating_add)));
        at = unit.around(at.1);
    }
    out
}

/// Hundredths as a decimal.
fn hundredths(value: u128) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

/// Draws bars. `label` says a bar in words, for whoever points at it or listens.
pub fn draw(html: &mut Html, name: &str, bars: &[Bar], label: impl Fn(&Bar) -> String) {
    let most = bars.iter().map(|(_, value)| *value).max().unwrap_or(0).max(1);
    let width = (bars.len().max(1) * 10).to_string();
    let view = format!("0 0 {width} 100");
    html.open(
        "svg",
        &[
            ("class", "bars"),
            ("viewBox", &view),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            ("aria-label", name),
        ],
    )
    .line();
    html.open("line", &[("class", "axis"), ("x1", "0"), ("x2", &width), ("y1", "99.5"), ("y2", "99.5")])
        .close("line")
        .line();
    for (n, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.1 > 0) {
        // At least a line where there is something at all.
        let height = (bar.1.saturating_mul(10_000).checked_div(most).unwrap_or(10_000)).clamp(100, 10_000);
        let (x, y, height) = ((n * 10 + 1).to_string(), hundredths(10_000 - height), hundredths(height));
        html.open("rect", &[("class", "bar"), ("x", &x), ("y", &y), ("width", "8"), ("height", &height)]);
        html.element("title", &[], &label(bar)).close("rect").line();
    }
    html.close("svg").line();
}

/// Draws parts of a whole side by side: class and size of each.
pub fn shares(html: &mut Html, name: &str, parts: &[(&'static str, u64)]) {
    let whole: u64 = parts.iter().map(|(_, size)| *size).sum();
    let mut at = 0;
    let spans = parts.iter().map(|(class, size)| {
        let from = at;
        at += size;
        (*class, place(from, whole), place(at, whole))
    });
    strip(html, name, &spans.collect::<Vec<_>>());
}

/// Draws intervals within a period: class and interval of each.
pub fn intervals(html: &mut Html, name: &str, period: Span, spans: &[(&'static str, Span)]) {
    let whole = u64::try_from(period.to.saturating_sub(period.from)).unwrap_or(0);
    let at = |time: i64| {
        let time = time.clamp(period.from, period.to.max(period.from));
        place(u64::try_from(time.saturating_sub(period.from)).unwrap_or(0), whole)
    };
    let within = spans.iter().filter(|(_, span)| span.to >= period.from && span.from < period.to);
    strip(html, name, &within.map(|(class, span)| (*class, at(span.from), at(span.to))).collect::<Vec<_>>());
}

/// `part` of `whole` in hundred thousandths.
fn place(part: u64, whole: u64) -> u128 {
    (u128::from(part) * 100_000).checked_div(u128::from(whole)).unwrap_or(0)
}

fn strip(html: &mut Html, name: &str, spans: &[(&'static str, u128, u128)]) {
    html.open(
        "svg",
        &[
            ("class", "strip"),
            ("viewBox", "0 0 1000 10"),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            ("aria-label", name),
        ],
    );
    html.open("rect", &[("class", "ground"), ("width", "1000"), ("height", "10")]).close("rect");
    for (class, from, to) in spans {
        // A moment is drawn too.
        let (from, width) = ((*from).min(99_700), to.saturating_sub(*from).max(300));
        let (x, width) = (hundredths(from), hundredths(width.min(100_000 - from)));
        html.open("rect", &[("class", class), ("x", &x), ("width", &width), ("height", "10")]).close("rect");
    }
    html.close("svg").line();
}
