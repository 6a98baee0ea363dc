//! Writes the page.

use super::data::Data;
use super::html::{Html, time, words};
use super::sections;
use super::summary::{self, Summary};

const STYLE: &str = include_str!("style.css");

/// The sections after the summary: anchor, title.
const SECTIONS: [(&str, &str); 9] = [
    ("claims", "Claims, reached and not"),
    ("covered", "What the evidence covers"),
    ("volumes", "Systems and volumes"),
    ("cost", "Cost"),
    ("controls", "Controls and exceptions"),
    ("findings", "Findings of the verification"),
    ("unchecked", "What was not checked"),
    ("method", "Method"),
    ("hashes", "Hashes"),
];

/// The period as it is called.
pub fn period(data: &Data) -> String {
    let span = format!("{} to {}", time(data.period.from), time(data.period.to));
    match &data.period_name {
        Some(name) => format!("{name} ({span})"),
        None => span,
    }
}

/// The whole page: a function of the data alone.
pub fn page(data: &Data) -> String {
    let name = data.period_name.clone().unwrap_or_else(|| period(data));
    let title = format!("Evidence report: {}, {name}", data.deployment);
    let mut html = Html::document(&title, STYLE);
    html.open("header", &[]).line();
    html.element("h1", &[], &title).line();
    let class = if data.verdict == "VERIFIED" { "verdict good" } else { "verdict bad" };
    html.open("p", &[("class", class)]).element("strong", &[], &data.verdict).text(" ");
    html.text(summary::verdict(&data.verdict)).close("p").line();
    html.open("dl", &[("class", "facts")]).line();
    let cut = data.asked_to.map_or(String::new(), |asked| {
        format!(", asked to {}: cut at the time of the check, what comes later is not settled", time(asked))
    });
    for (name, value) in [
        ("Period", period(data) + &cut),
        ("Checked at", time(data.checked_at)),
        ("Deployment", data.deployment.clone()),
        ("Store", data.store.clone()),
        ("Made by", format!("auditor {}", data.auditor)),
    ] {
        html.open("div", &[]).element("dt", &[], name).element("dd", &[], &value).close("div").line();
    }
    html.close("dl").line();
    html.element(
        "p",
        &[("class", "aside")],
        "All times are UTC; a period's end is not in it. This report says what signed records of traffic to language models \
         support, where they show exceptions, and what they cannot show. It does not say that anybody keeps a rule.",
    )
    .line();
    html.close("header").line().open("main", &[]).line();
    top(&mut html, &summary::summary(data));
    html.open("nav", &[("aria-label", "Sections")]).open("ol", &[]).line();
    for (anchor, title) in SECTIONS {
        html.open("li", &[]).element("a", &[("href", &format!("#{anchor}"))], title).close("li").line();
    }
    html.close("ol").close("nav").line();
    for (anchor, title) in SECTIONS {
        html.open("section", &[("id", anchor)]).element("h2", &[], title).line();
        match anchor {
            "claims" => sections::claims(&mut html, data),
            "covered" => sections::covered(&mut html, data),
            "volumes" => sections::volumes(&mut html, data),
            "cost" => sections::cost(&mut html, data),
            "controls" => sections::controls(&mut html, data),
            "findings" => sections::findings(&mut html, data),
            "unchecked" => sections::unchecked(&mut html, data),
            "method" => sections::method(&mut html, data),
            _ => sections::hashes(&mut html, data),
        }
        html.close("section").line();
    }
    html.close("main").line();
    html.finish()
}

fn top(html: &mut Html, summary: &Summary) {
    html.open("section", &[("id", "summary")]).element("h2", &[], "In five minutes").line();
    html.open("div", &[("class", "three")]).line();
    for (class, title, items, none) in [
        ("proven", "What was proven", &summary.proven, "Nothing."),
        ("open", "What was not", &summary.open, "Nothing is open."),
        ("ask", "What to ask the operator next", &summary.ask, "Nothing comes from the evidence itself."),
    ] {
        html.open("div", &[("class", class)]).element("h3", &[], title).line();
        if items.is_empty() {
            html.paragraph(none);
        }
        html.list(items).close("div").line();
    }
    html.close("div").line().close("section").line();
}

/// A line of a description list.
pub fn described(html: &mut Html, name: &str, text: &str) {
    html.open("div", &[]).element("dt", &[], name).element("dd", &[], &words(text)).close("div").line();
}
