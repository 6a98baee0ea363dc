//! What stands around every page: where one is, how the evidence stands, and what the page rests on.

use super::asked::link;
use super::visit::Visit;
use crate::paper::html::{Html, time};
use crate::render::rests;

/// The style of all pages: the printed report's, and what pages need besides.
pub(super) const STYLE: &str = concat!(include_str!("../paper/style.css"), include_str!("style.css"));

/// Lines of what a page rests on; a deployment may have thousands of logs.
const RESTS: usize = 60;

/// The pages that are always in reach.
const TABS: [(&str, &str); 4] =
    [("/", "Evidence"), ("/exchanges", "Exchanges"), ("/cost", "Cost"), ("/controls", "Controls")];

/// How the passes stand, beside the visit that is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Since when another pass is under way.
    pub(super) since: Option<i64>,
    /// When the last pass could not be made, and why.
    pub(super) failed: Option<(i64, String)>,
}

/// A page's own part of the frame.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The title.
    pub(super) title: &'a str,
    /// The path of the tab that it belongs to.
    pub(super) tab: &'a str,
    /// The question that it answers, where it is one that `auditor query` can be asked.
    pub(super) sql: Option<&'a str>,
}

/// Writes a page.
pub(super) fn page(
    frame: &Frame<'_>,
    visit: &Visit,
    standing: &Standing,
    body: impl FnOnce(&mut Html),
) -> String {
    let report = &visit.report;
    let mut html = Html::served(&format!("{}: {}", frame.title, report.deployment), STYLE);
    html.element("a", &[("class", "skip"), ("href", "#main")], "To the content").line();
    html.open("header", &[("class", "top")]).line();
    html.open("p", &[("class", "site")]).element(
        "a",
        &[("href", "/")],
        &format!("Evidence of {}", report.deployment),
    );
    html.close("p").line().open("nav", &[("aria-label", "Pages")]).open("ul", &[]).line();
    for (path, name) in TABS {
        html.open("li", &[]);
        if path == frame.tab {
            html.element("a", &[("href", path), ("aria-current", "page")], name);
        } else {
            html.element("a", &[("href", path)], name);
        }
        html.close("li").line();
    }
    html.close("ul").close("nav").line();
    let class = if report.verdict.exit_code() == 0 { "standing good" } else { "standing bad" };
    html.open("p", &[("class", class)]).element("strong", &[], report.verdict.as_str());
    html.text(&format!(" checked at {} UTC", time(report.checked_at))).close("p").line();
    html.close("header").line();
    notices(&mut html, standing);
    html.open("main", &[("id", "main")]).line().element("h1", &[], frame.title).line();
    body(&mut html);
    html.close("main").line();
    html.open("footer", &[]).element("h2", &[], "What this page rests on").line();
    let text = rests::text(report, &[], frame.sql);
    // Its first line is the title of what follows.
    let lines: Vec<&str> = text.lines().skip(1).collect();
    html.open("ul", &[("class", "rests")]).line();
    for line in lines.iter().take(RESTS) {
        html.open("li", &[]);
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        html.element("span", &[], name).text(" ").text(rest.trim_start()).close("li").line();
    }
    html.close("ul").line();
    if lines.len() > RESTS {
        html.paragraph(&format!("And {} more lines: `auditor query` says them all.", lines.len() - RESTS));
    }
    if let Some(sql) = frame.sql {
        html.paragraph("To ask the same without this page, give `auditor query` this question:");
        html.open("pre", &[("class", "code")]).element("code", &[], sql).close("pre").line();
    }
    html.paragraph("All times are UTC. This page reads, and changes nothing in the store.");
    html.close("footer").line();
    html.finish()
}

fn notices(html: &mut Html, standing: &Standing) {
    if let Some(since) = standing.since {
        html.open("p", &[("class", "notice"), ("role", "status")]);
        html.text(&format!(
            "The evidence is being verified again since {} UTC. Load the page again to see what came of it; until then it shows the pass before.",
            time(since)
        ));
        html.close("p").line();
    }
    if let Some((at, why)) = &standing.failed {
        html.open("p", &[("class", "notice bad"), ("role", "alert")]);
        html.text(&format!("At {} UTC the evidence could not be verified again: {why}. What stands here is of the pass before.", time(*at)));
        html.close("p").line();
    }
}

/// The links that verify again.
pub(super) fn verify_again(html: &mut Html, visit: &Visit) {
    let after = ("after", visit.number.to_string());
    html.open("p", &[("class", "actions")]);
    html.element("a", &[("href", &link("/verify", std::slice::from_ref(&after)))], "Verify what is new");
    html.element(
        "a",
        &[("href", &link("/verify", &[after, ("all", "yes".to_owned())]))],
        "Read everything again",
    );
    html.close("p").line();
}

/// A page that says why there is no other.
pub(super) fn refusal(title: &str, text: &str) -> String {
    let mut html = Html::served(title, STYLE);
    html.open("main", &[("id", "main")]).line().element("h1", &[], title).line().paragraph(text);
    html.open("p", &[]).element("a", &[("href", "/")], "To the evidence").close("p").line();
    html.close("main").line();
    html.finish()
}
