//! The page: what there is, for people.

use super::manifest::{Exchange, Manifest, Part};
use crate::paper::html::{Html, count, time};
use crate::recipients::Recipient;

const STYLE: &str = include_str!("../paper/style.css");

/// The whole page.
pub fn page(manifest: &Manifest, exchanges: &[Exchange]) -> String {
    let title = format!("Records of one person's use of language models: {}", manifest.deployment);
    let mut html = Html::document(&title, STYLE);
    html.open("header", &[]).line().element("h1", &[], &title).line();
    html.open("dl", &[("class", "facts")]).line();
    let bound = |at: Option<i64>, open: &str| at.map_or_else(|| open.to_owned(), time);
    for (name, value) in [
        ("Person, as records name them", manifest.subject.to_string()),
        ("From", bound(manifest.from, "the beginning of the evidence")),
        ("To", bound(manifest.to, "its end")),
        ("Exchanges", count(exchanges.len() as u64, "exchange", "exchanges")),
        ("Data went to", sent_to(&manifest.recipients)),
        ("Verification", manifest.verdict.clone()),
        ("Reason", manifest.reason.clone()),
        ("Made", time(manifest.made_at)),
        ("Made by", format!("auditor {}", manifest.auditor)),
    ] {
        html.open("div", &[]).element("dt", &[], name).element("dd", &[], &value).close("div").line();
    }
    html.close("dl").line();
    html.paragraph(
        "Every exchange whose proven record names this person is listed, with the bytes that crossed, the story of the exchange and a proof \
         that it is in signed records. manifest.json names every file with its SHA-256. All times are UTC.",
    );
    html.close("header").line().open("main", &[]).line();
    for exchange in exchanges {
        one(&mut html, exchange);
    }
    html.close("main").line();
    html.finish()
}

fn one(html: &mut Html, exchange: &Exchange) {
    let fact = |path: &[&str]| exchange.fact(path).unwrap_or_else(|| "not known".into());
    html.open("section", &[]).line();
    let began = exchange.began_at().map(time).unwrap_or_default();
    html.element("h2", &[], &began).line();
    html.open("dl", &[("class", "facts")]).line();
    for (name, value) in [
        ("Exchange", exchange.exchange.to_string()),
        ("Provider", exchange.provider().unwrap_or_else(|| "not known".into())),
        ("Model", exchange.model().unwrap_or_else(|| "not known".into())),
        ("Sent to", sent_to(&exchange.recipients)),
        ("Operation", fact(&["asked", "operation"])),
        ("Purpose", fact(&["caller", "purpose", "value"])),
        ("End", exchange.fact(&["end"]).unwrap_or_else(|| fact(&["reason"]))),
    ] {
        html.open("div", &[]).element("dt", &[], name).element("dd", &[], &value).close("div").line();
    }
    html.close("dl").line().open("ul", &[]).line();
    for (name, file) in [("story, with the text of the content", &exchange.story), ("proof", &exchange.proof)]
    {
        html.open("li", &[]).element("a", &[("href", file)], name).close("li").line();
    }
    for part in &exchange.parts {
        html.open("li", &[]);
        let name = format!("{}, {}", part.part.as_str(), count(part.length, "byte", "bytes"));
        match &part.file {
            Some(file) => html.element("a", &[("href", file)], &name),
            None => html.text(&format!("{name}: {}", without(part))),
        };
        html.close("li").line();
    }
    html.close("ul").line().close("section").line();
}

/// Every target that got bytes, or may have.
fn sent_to(recipients: &[Recipient]) -> String {
    let told: Vec<String> = recipients.iter().map(Recipient::told).collect();
    if told.is_empty() { "nobody".into() } else { told.join("; ") }
}

/// Why there are no bytes.
fn without(part: &Part) -> &'static str {
    match part.state.as_str() {
        "erased" => "erased; only length and commitment remain",
        "not_kept" => "not kept, as the policy of the route says; only length and commitment remain",
        "no_key" => "not opened: its key is not in the key table that was given",
        "missing" => "not in the store",
        _ => "not what the record commits to: it is not handed over",
    }
}
