//! How the evidence is: verdict, claims, what is proven, findings, what was not checked.

use super::frame::{Frame, Standing, page, verify_again};
use super::visit::Visit;
use crate::cost::spend::share;
use crate::paper::chart::{self, Unit};
use crate::paper::data::Span;
use crate::paper::html::{Cell, Html, count, number};
use crate::paper::{sections, summary};
use crate::report::{Interval, Report};
use crate::time::{self, DAY};

/// The page.
pub(super) fn write(visit: &Visit, standing: &Standing) -> String {
    let frame = Frame { title: "Evidence", tab: "/", sql: None };
    page(&frame, visit, standing, |html| {
        let (report, data) = (&visit.report, &visit.data);
        let class = if report.verdict.exit_code() == 0 { "verdict good" } else { "verdict bad" };
        html.open("p", &[("class", class)]).element("strong", &[], report.verdict.as_str()).text(" ");
        html.text(summary::verdict(&data.verdict)).close("p").line();
        html.element("p", &[("class", "aside")], &report.first_line()).line();
        earlier(html, report);
        verify_again(html, visit);
        section(html, "claims", "Claims, reached and not");
        sections::claims(html, data);
        section_end(html);
        section(html, "findings", "Findings");
        sections::findings(html, data);
        section_end(html);
        section(html, "volumes", "Exchanges");
        exchanges(html, visit);
        section_end(html);
        section(html, "exposure", "What could be cut off without a trace");
        exposure(html, report);
        section_end(html);
        section(html, "covered", "What the evidence covers");
        sections::covered(html, data);
        section_end(html);
        section(html, "unchecked", "What was not checked");
        sections::unchecked(html, data);
        section_end(html);
    })
}

fn section(html: &mut Html, anchor: &str, title: &str) {
    html.open("section", &[("id", anchor), ("aria-labelledby", &format!("{anchor}-title"))]);
    html.element("h2", &[("id", &format!("{anchor}-title"))], title).line();
}

fn section_end(html: &mut Html) {
    html.close("section").line();
}

/// How much of it was read before this pass.
fn earlier(html: &mut Html, report: &Report) {
    let all: u64 = report.logs().map(|log| log.batches).sum();
    let cached: u64 = report.logs().map(|log| log.batches_from_cache).sum();
    if cached > 0 {
        html.paragraph(&format!(
            "{} of {} were read and proven at an earlier pass: their objects are listed as they were, and were not read again.",
            number(cached),
            count(all, "batch", "batches")
        ));
    }
}

fn exchanges(html: &mut Html, visit: &Visit) {
    let all = visit.exchanges();
    if all == 0 {
        html.paragraph("The proven records hold no exchange.");
        return;
    }
    html.open("p", &[]).element("a", &[("href", "/exchanges")], &count(all, "exchange", "exchanges"));
    html.text(" in proven records.").close("p").line();
    let first = visit.days.first().map_or(0, |(day, _)| *day);
    let last = visit.days.last().map_or(first, |(day, _)| day.saturating_add(DAY));
    let period = Span { from: first, to: last };
    let unit = Unit::of(period).name();
    let bars = chart::bars(period, visit.days.iter().map(|(day, n)| (*day, u128::from(*n))));
    let most = bars.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let (name, about) = (format!("Exchanges a {unit}"), format!("highest bar: {most}"));
    sections::figure(html, period, (&name, &about), &bars, |(at, value)| {
        format!("{}: {value}", sections::date(*at))
    });
    let rows: Vec<Vec<String>> = visit
        .became
        .iter()
        .map(|(became, n)| vec![became.replace('_', " "), number(*n), share((*n).into(), all.into())])
        .collect();
    html.table(
        "How exchanges ended",
        &[("End", Cell::Text), ("Exchanges", Cell::Number), ("Share", Cell::Number)],
        &rows,
    );
}

fn exposure(html: &mut Html, report: &Report) {
    let said = |interval: Option<Interval>| {
        interval
            .map_or("nothing".into(), |span| format!("{} to {}", time::text(span.from), time::text(span.to)))
    };
    let rows: Vec<Vec<String>> = report
        .gateways
        .iter()
        .map(|gateway| {
            let exposed = gateway.exposure.map_or("nothing".to_owned(), |span| {
                format!("{} ({})", said(Some(span)), time::length(span.to.saturating_sub(span.from)))
            });
            vec![gateway.gateway.clone(), said(gateway.asked), said(gateway.proven), exposed]
        })
        .collect();
    html.table(
        "By gateway: the asked and the proven interval, and the time after the newest proven record",
        &[("Gateway", Cell::Text), ("Asked", Cell::Text), ("Proven", Cell::Text), ("Exposed", Cell::Text)],
        &rows,
    );
}
