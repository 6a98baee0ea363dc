//! The exchanges that a filter lets through, a page at a time.

use schemas::ExchangeId;

use super::asked::link;
use super::filter::{BECAME, Filter, NAMES, Typed, where_all};
use super::frame::{Frame, Standing, page};
use super::page_key::{Listing, Sort, key};
use super::rows::{self, Row};
use super::table::{self, Entry};
use super::visit::Visit;
use crate::decimal::Decimal;
use crate::paper::html::{Cell, Html, count, number, time};

/// Exchanges on a page.
pub(super) const ROWS: usize = 50;

const COLUMNS: [(&str, Cell); 10] = [
    ("Began", Cell::Word),
    ("Consumer", Cell::Text),
    ("Team", Cell::Text),
    ("Model", Cell::Text),
    ("Provider", Cell::Text),
    ("End", Cell::Word),
    ("Status", Cell::Number),
    ("Tokens in, out", Cell::Number),
    ("Cost", Cell::Number),
    ("Usage from", Cell::Word),
];

/// The question of a page.
pub(super) fn question(filter: &Filter, listing: &Listing) -> String {
    let mut conditions = filter.conditions();
    conditions.extend(listing.after.as_ref().map(|(_, condition)| condition.clone()));
    format!(
        "SELECT CAST(started_at AS BIGINT) AS began, consumer, team, model, provider, {BECAME} AS became, reason, status, input_tokens, \
         output_tokens, cost, currency, usage_source, exchange, {} AS sort_value, origin, position, attempts_cost, attempts_currency FROM exchanges{} ORDER BY {} LIMIT {}",
        listing.sort.key(),
        where_all(&conditions),
        listing.sort.order(),
        ROWS + 1
    )
}

/// The page.
///
/// # Errors
/// As queries fail.
pub(super) async fn write(
    visit: &Visit,
    standing: &Standing,
    filter: &Filter,
    listing: &Listing,
) -> anyhow::Result<String> {
    let counted = format!("SELECT count(*) FROM exchanges{}", where_all(&filter.conditions()));
    let all = match filter.is_empty() {
        true => visit.exchanges(),
        false => rows::ask(&visit.context, &counted, 1).await?.first().map_or(0, |row| row.count(0)),
    };
    let sql = question(filter, listing);
    let found = rows::ask(&visit.context, &sql, ROWS + 1).await?;
    let frame = Frame { title: "Exchanges", tab: "/exchanges", sql: Some(&sql) };
    Ok(page(&frame, visit, standing, |html| {
        form(html, visit, filter, listing);
        html.open("p", &[("class", "actions")]).element("strong", &[], &count(all, "exchange", "exchanges"));
        if !filter.is_empty() {
            html.element("a", &[("href", "/exchanges")], "Show all");
        }
        if all > 0 {
            html.element("a", &[("href", &link("/exchanges.csv", &filter.fields()))], "As CSV");
        }
        html.close("p").line();
        if found.is_empty() {
            html.paragraph("No exchange is like that.");
            return;
        }
        let lines: Vec<Vec<Entry>> = found.iter().take(ROWS).map(line).collect();
        let caption = match listing.after {
            None => format!("The first {}", lines.len()),
            Some(_) => format!("The next {}", lines.len()),
        };
        table::write(html, &caption, &COLUMNS, &lines);
        pages(html, filter, listing, &found);
    }))
}

fn pages(html: &mut Html, filter: &Filter, listing: &Listing, found: &[Row]) {
    let here = |more: Option<String>| {
        let mut fields = filter.fields();
        fields.push(("sort", listing.sort.name().to_owned()));
        fields.extend(more.map(|key| ("after", key)));
        link("/exchanges", &fields)
    };
    html.open("nav", &[("class", "pages"), ("aria-label", "Pages of the list")]);
    if listing.after.is_some() {
        html.element("a", &[("href", &here(None))], "First page");
    }
    if let (true, Some(last)) = (found.len() > ROWS, found.get(ROWS - 1)) {
        let key = key(last.text(14), last.text(15).unwrap_or_default(), last.text(16).unwrap_or_default());
        html.element("a", &[("href", &here(Some(key))), ("rel", "next")], "Next page");
    }
    html.close("nav").line();
}

fn line(row: &Row) -> Vec<Entry> {
    let text = |column: usize| Entry::from(row.text(column).unwrap_or("—").to_owned());
    let began = row.at(0).map_or("not recorded".into(), time);
    let began = match row.text(13).map(ExchangeId::new) {
        Some(Ok(exchange)) => Entry::to(began, format!("/exchange/{exchange}")),
        _ => began.into(),
    };
    let became = row.text(5).unwrap_or("?").replace('_', " ");
    let end = match row.text(6) {
        Some(reason) => format!("{became} ({})", reason.replace('_', " ")),
        None => became,
    };
    let tokens = |column: usize| row.number(column).map_or("—".into(), number);
    vec![
        began,
        text(1),
        text(2),
        text(3),
        text(4),
        end.into(),
        text(7),
        format!("{}, {}", tokens(8), tokens(9)).into(),
        total((row.amount(10), row.text(11)), (row.amount(17), row.text(18))).into(),
        row.text(12).unwrap_or("—").replace('_', " ").into(),
    ]
}

/// An amount with its currency.
pub(super) fn cost(amount: Option<Decimal>, currency: Option<&str>) -> String {
    amount.map_or("—".into(), |amount| format!("{amount} {}", currency.unwrap_or_default()))
}

/// An exchange's cost: of its answer, and of what was tried before. Currencies stand apart.
pub(super) fn total(
    answer: (Option<Decimal>, Option<&str>),
    tried: (Option<Decimal>, Option<&str>),
) -> String {
    match (answer, tried) {
        (answer, (None, _)) => cost(answer.0, answer.1),
        ((None, _), tried) => cost(tried.0, tried.1),
        ((Some(answer), one), (Some(tried), other)) if one == other => cost(Some(answer.plus(tried)), one),
        (answer, tried) => format!("{} + {}", cost(answer.0, answer.1), cost(tried.0, tried.1)),
    }
}

/// A field for a time: a day is picked, a time is typed.
pub(super) fn time_field(html: &mut Html, name: &'static str, label: &str, typed: &Option<Typed>) {
    let value = typed.as_ref().map_or("", |typed| typed.text.as_str());
    let kind = if value.is_empty() || value.len() == 10 { "date" } else { "text" };
    field(html, name, label, &[("type", kind), ("value", value)]);
}

fn field(html: &mut Html, name: &'static str, label: &str, more: &[(&'static str, &str)]) {
    html.open("div", &[]).element("label", &[("for", name)], label);
    let mut attributes = vec![("id", name), ("name", name), ("autocomplete", "off")];
    attributes.extend(more);
    html.open("input", &attributes).close("div").line();
}

fn options(html: &mut Html, values: &[(&str, &str)], chosen: &str) {
    for (value, text) in values {
        if *value == chosen {
            html.element("option", &[("value", value), ("selected", "selected")], text);
        } else {
            html.element("option", &[("value", value)], text);
        }
    }
}

fn form(html: &mut Html, visit: &Visit, filter: &Filter, listing: &Listing) {
    html.open(
        "form",
        &[("method", "get"), ("action", "/exchanges"), ("class", "filter"), ("role", "search")],
    );
    html.open("fieldset", &[]).element("legend", &[], "Which exchanges").line();
    time_field(html, "from", "Began from", &filter.times.from);
    time_field(html, "to", "Began before", &filter.times.to);
    for (name, _, label) in NAMES {
        let chosen = filter.name(name);
        let known = visit.choices.get(name).map(Vec::as_slice).unwrap_or_default();
        if ["end", "usage"].contains(&name) {
            html.open("div", &[]).element("label", &[("for", name)], label);
            html.open("select", &[("id", name), ("name", name)]);
            let mut values = vec![("", "any")];
            values.extend(known.iter().map(|value| (value.as_str(), value.as_str())));
            if !chosen.is_empty() && !known.iter().any(|value| value == chosen) {
                values.push((chosen, chosen));
            }
            options(html, &values, chosen);
            html.close("select").close("div").line();
        } else {
            let list = format!("{name}-list");
            field(html, name, label, &[("list", &list), ("value", chosen)]);
            html.open("datalist", &[("id", &list)]);
            options(html, &known.iter().map(|value| (value.as_str(), "")).collect::<Vec<_>>(), "");
            html.close("datalist").line();
        }
    }
    let status = filter.status.map(|status| status.to_string()).unwrap_or_default();
    field(html, "status", "Status", &[("inputmode", "numeric"), ("value", &status)]);
    html.open("div", &[]).element("label", &[("for", "refused")], "Refused");
    html.open("select", &[("id", "refused"), ("name", "refused")]);
    let chosen = filter.refused.map_or("", |refused| if refused { "yes" } else { "no" });
    options(html, &[("", "any"), ("yes", "yes"), ("no", "no")], chosen);
    html.close("select").close("div").line();
    for (name, label, bound) in
        [("cost_from", "Cost from", filter.cost_from), ("cost_to", "Cost below", filter.cost_to)]
    {
        let value = bound.map(|bound| bound.to_string()).unwrap_or_default();
        field(html, name, label, &[("inputmode", "decimal"), ("value", &value)]);
    }
    html.open("div", &[]).element("label", &[("for", "sort")], "Order");
    html.open("select", &[("id", "sort"), ("name", "sort")]);
    let orders: Vec<(&str, &str)> = Sort::ALL.iter().map(|(_, name, said)| (*name, *said)).collect();
    options(html, &orders, listing.sort.name());
    html.close("select").close("div").line();
    html.open("div", &[("class", "send")])
        .element("button", &[("type", "submit")], "Show")
        .close("div")
        .line();
    html.close("fieldset").close("form").line();
}
