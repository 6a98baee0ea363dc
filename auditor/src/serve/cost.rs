//! What was spent: by day, model, team and consumer.

use super::exchanges::time_field;
use super::filter::{Times, where_all};
use super::frame::{Frame, Standing, page};
use super::rows::{self, Row};
use super::visit::Visit;
use crate::cost::spend::share;
use crate::decimal::Decimal;
use crate::paper::chart::{self, Bar, Unit};
use crate::paper::data::Span;
use crate::paper::html::{Cell, Html, number};
use crate::paper::sections;
use crate::time::DAY;

/// Rows by a dimension.
const ROWS: usize = 25;
/// Days of a chart.
const DAYS: usize = 40_000;
/// By what costs are added up.
const BY: [&str; 3] = ["model", "team", "consumer"];

/// What was spent in one currency.
struct Spent {
    currency: String,
    exchanges: u64,
    cost: Decimal,
    not_final: Decimal,
}

/// The page.
///
/// # Errors
/// As queries fail.
pub(super) async fn write(visit: &Visit, standing: &Standing, times: &Times) -> anyhow::Result<String> {
    let within = where_all(&times.conditions("at"));
    let sums =
        "count(CASE WHEN kind = 'outcome' THEN cost END) AS n, sum(cost) AS total, sum(no_cost) AS no_cost";
    let context = &visit.context;
    let all = format!(
        "SELECT currency, {sums}, sum(CASE WHEN not_final = 1 THEN cost END), sum(no_usage) FROM spent{within} GROUP BY currency ORDER BY currency"
    );
    let all = rows::ask(context, &all, 100).await?;
    let days = format!(
        "SELECT CAST(date_trunc('day', at) AS BIGINT) AS day, currency, sum(cost) FROM spent{within} GROUP BY 1, 2 ORDER BY 1, 2"
    );
    let days = rows::ask(context, &days, DAYS).await?;
    let mut by = Vec::new();
    for name in BY {
        let sql = format!(
            "SELECT {name}, currency, {sums} FROM spent{within} GROUP BY {name}, currency \
             ORDER BY total DESC NULLS LAST, {name} NULLS LAST, currency LIMIT {}",
            ROWS + 1
        );
        by.push((name, rows::ask(context, &sql, ROWS + 1).await?));
    }
    let frame = Frame { title: "Cost", tab: "/cost", sql: None };
    Ok(page(&frame, visit, standing, |html| {
        form(html, times);
        html.paragraph(
            "Each answer of a provider counts once, when it was incurred, at the prices of the price book that its record names. Currencies \
             are never added together. `auditor cost` gives the same sums over all of it, and more.",
        );
        let spent: Vec<Spent> = all.iter().filter_map(spent).collect();
        let sum = |column: usize| all.iter().map(|row| row.count(column)).sum();
        totals(html, &spent, sum(3), sum(5));
        for of in &spent {
            by_day(html, times, of, &days);
        }
        for (name, rows) in &by {
            by_name(html, name, rows);
        }
    }))
}

fn spent(row: &Row) -> Option<Spent> {
    let currency = row.text(0)?.to_owned();
    let not_final = row.amount(4).unwrap_or_default();
    Some(Spent { currency, exchanges: row.count(1), cost: row.amount(2).unwrap_or_default(), not_final })
}

fn form(html: &mut Html, times: &Times) {
    html.open("form", &[("method", "get"), ("action", "/cost"), ("class", "filter"), ("role", "search")]);
    html.open("fieldset", &[]).element("legend", &[], "When").line();
    time_field(html, "from", "Ended from", &times.from);
    time_field(html, "to", "Ended before", &times.to);
    html.open("div", &[("class", "send")])
        .element("button", &[("type", "submit")], "Show")
        .close("div")
        .line();
    html.close("fieldset").close("form").line();
}

fn totals(html: &mut Html, spent: &[Spent], unpriced: u64, no_usage: u64) {
    if spent.is_empty() && unpriced == 0 {
        html.paragraph("No exchange of this time has a cost.");
        return;
    }
    let rows: Vec<Vec<String>> = spent
        .iter()
        .map(|of| {
            let part = share(of.not_final.0.unsigned_abs(), of.cost.0.unsigned_abs());
            vec![
                of.currency.clone(),
                number(of.exchanges),
                of.cost.to_string(),
                format!("{} ({part})", of.not_final),
            ]
        })
        .collect();
    if !rows.is_empty() {
        html.table(
            "In all",
            &[
                ("Currency", Cell::Text),
                ("Exchanges", Cell::Number),
                ("Cost", Cell::Number),
                ("Of it by counts that are not the provider's last word", Cell::Number),
            ],
            &rows,
        );
    }
    html.paragraph(&sections::without_cost(unpriced, no_usage));
}

fn units(cost: Decimal) -> u128 {
    u128::try_from(cost.0).unwrap_or(0)
}

fn told(value: u128, currency: &str) -> String {
    format!("{} {currency}", Decimal(i128::try_from(value).unwrap_or(i128::MAX)))
}

fn by_day(html: &mut Html, times: &Times, of: &Spent, days: &[Row]) {
    let days: Vec<Bar> = days
        .iter()
        .filter(|row| row.text(1) == Some(&of.currency))
        .filter_map(|row| Some((row.at(0)?, units(row.amount(2)?))))
        .collect();
    let (Some((first, _)), Some((last, _))) = (days.first(), days.last()) else { return };
    let from = times.from.as_ref().map_or(*first, |typed| typed.at.max(*first));
    let to =
        times.to.as_ref().map_or(last.saturating_add(DAY), |typed| typed.at.min(last.saturating_add(DAY)));
    let period = Span { from, to };
    let bars = chart::bars(period, days.iter().copied());
    let most = bars.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let name = format!("Cost a {}, {}", Unit::of(period).name(), of.currency);
    let about = format!("highest bar: {}", told(most, &of.currency));
    let label = |(at, value): &Bar| format!("{}: {}", sections::date(*at), told(*value, &of.currency));
    sections::figure(html, period, (&name, &about), &bars, label);
}

/// A table whose rows have a bar each: the longest is the dearest of its currency.
fn by_name(html: &mut Html, by: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let most = |currency: Option<&str>| {
        let same = rows.iter().filter(|row| row.text(1) == currency);
        same.filter_map(|row| row.amount(3)).map(units).max().unwrap_or(0)
    };
    html.open("table", &[("class", "costs")]).element("caption", &[], &format!("By {by}")).line();
    html.open("thead", &[]).open("tr", &[]);
    let title = sections::capital(by);
    let columns = [
        (title.as_str(), "text"),
        ("Share of the largest", "bar-cell"),
        ("Cost", "number"),
        ("Exchanges", "number"),
        ("Without a cost", "number"),
    ];
    for (name, class) in columns {
        html.element("th", &[("scope", "col"), ("class", class)], name);
    }
    html.close("tr").close("thead").line().open("tbody", &[]).line();
    for row in rows.iter().take(ROWS) {
        let name = row.text(0).unwrap_or("not recorded");
        html.open("tr", &[]);
        html.element("th", &[("scope", "row"), ("data-label", &title), ("class", "text")], name);
        html.open("td", &[("data-label", columns[1].0), ("class", "bar-cell")]);
        let cost = units(row.amount(3).unwrap_or_default());
        let part = cost.saturating_mul(1000).checked_div(most(row.text(1))).unwrap_or(0);
        let part = u64::try_from(part).unwrap_or(0).min(1000);
        let about = format!("{name}: {} of the largest", share(part.into(), 1000));
        chart::shares(html, &about, &[("bar", part), ("ground", 1000 - part)]);
        html.close("td");
        let money = super::exchanges::cost(row.amount(3), row.text(1));
        for ((label, class), text) in
            columns.iter().skip(2).zip([money, number(row.count(2)), number(row.count(4))])
        {
            html.element("td", &[("data-label", label), ("class", class)], &text);
        }
        html.close("tr").line();
    }
    html.close("tbody").close("table").line();
    if rows.len() > ROWS {
        html.element(
            "p",
            &[("class", "note")],
            &format!("The first {ROWS}; `auditor cost --by {by}` gives all."),
        )
        .line();
    }
}
