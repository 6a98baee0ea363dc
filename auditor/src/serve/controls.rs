//! The controls of packs: asked when somebody looks, and kept as long as the visit is shown.

use std::sync::Arc;

use anyhow::Context as _;
use schemas::ExchangeId;

use super::frame::{Frame, Standing, page};
use super::server::Settings;
use super::table::{self, Entry};
use super::visit::Visit;
use crate::assess::pack::Loaded;
use crate::assess::run::{Asked, assess};
use crate::assess::tables::{Proven, Shown};
use crate::paper::chart;
use crate::paper::data::{Became, ControlLine, PackLine};
use crate::paper::html::{Cell, Html, count, number, words};
use crate::paper::sections::judged;

/// The list of packs.
pub(super) async fn list(visit: &Visit, standing: &Standing, settings: &Settings) -> String {
    let asked = visit.packs.lock().await.clone();
    let frame = Frame { title: "Controls", tab: "/controls", sql: None };
    page(&frame, visit, standing, |html| {
        html.paragraph(
            "A pack holds the controls of a rule book: questions whose rows are exceptions. A pack is asked when it is opened, which can \
             take some seconds, and its answers are kept until the evidence is verified again.",
        );
        let rows: Vec<Vec<Entry>> = settings
            .questions
            .asked()
            .packs
            .iter()
            .map(|loaded| {
                let pack = &loaded.pack;
                let said = asked.get(&pack.name).map_or("not asked yet".to_owned(), |line| summary(line));
                let controls = number(pack.controls.len() as u64);
                vec![
                    Entry::to(words(&pack.title), path(loaded)),
                    pack.name.clone().into(),
                    controls.into(),
                    said.into(),
                ]
            })
            .collect();
        table::write(
            html,
            "Packs",
            &[("Pack", Cell::Text), ("Name", Cell::Text), ("Controls", Cell::Number), ("Result", Cell::Text)],
            &rows,
        );
    })
}

fn path(loaded: &Loaded) -> String {
    format!("/controls/{}", loaded.pack.name)
}

fn counted(pack: &PackLine, became: Became) -> u64 {
    pack.controls.iter().filter(|control| control.became == became).count() as u64
}

const ALL: [Became; 4] = [Became::Met, Became::Stated, Became::Exceptions, Became::NotJudged];

fn summary(pack: &PackLine) -> String {
    let said = ALL.iter().map(|became| (counted(pack, *became), became.words())).filter(|(n, _)| *n > 0);
    said.map(|(n, words)| format!("{} {words}", number(n))).collect::<Vec<_>>().join(", ")
}

/// The controls of a pack; none where there is no such pack.
///
/// # Errors
/// As questions fail.
pub(super) async fn pack(
    visit: &Visit,
    standing: &Standing,
    settings: &Settings,
    name: &str,
) -> anyhow::Result<Option<String>> {
    let Some(pack) = asked(visit, settings, name).await? else { return Ok(None) };
    let title = words(&pack.title);
    let frame = Frame { title: &title, tab: "/controls", sql: None };
    Ok(Some(page(&frame, visit, standing, |html| write(html, &pack))))
}

/// Asks a pack, unless it was asked; another who wants one meanwhile waits.
async fn asked(visit: &Visit, settings: &Settings, name: &str) -> anyhow::Result<Option<Arc<PackLine>>> {
    let all = settings.questions.asked();
    let Some(loaded) = all.packs.iter().find(|loaded| loaded.pack.name == name) else { return Ok(None) };
    let mut kept = visit.packs.lock().await;
    if let Some(line) = kept.get(name) {
        return Ok(Some(line.clone()));
    }
    let bucket =
        match loaded.pack.controls.iter().any(|control| control.needs.iter().any(|need| need == "obj")) {
            true => visit.opened.bucket_versions(),
            false => Err("no control asks for it".into()),
        };
    let shown = Shown { report: &visit.report, asked: (visit.opened.from, visit.opened.to), bucket };
    let one = Asked { packs: std::slice::from_ref(loaded), ..all };
    let made = visit.scratch()?;
    let proven = Proven { session: &visit.base, records: &visit.records, folder: made.path() };
    let assessment = assess(&proven, &shown, &one, &mut |_, _, _, _| Ok(())).await?;
    let line = Arc::new(PackLine::from(assessment.packs.first().context("the pack's answers")?));
    kept.insert(name.to_owned(), line.clone());
    Ok(Some(line))
}

fn write(html: &mut Html, pack: &PackLine) {
    html.paragraph(&pack.about);
    html.open("figure", &[]).element("figcaption", &[], "Controls by what became of them").line();
    let parts = ALL.map(|became| (became.class(), counted(pack, became)));
    chart::shares(html, "Controls by what became of them", &parts);
    html.open("div", &[("class", "key")]);
    for became in ALL {
        let text = format!("{} {}", number(counted(pack, became)), became.words());
        html.element("span", &[("class", became.class())], &text);
    }
    html.close("div").close("figure").line();
    let rows: Vec<Vec<Entry>> = pack
        .controls
        .iter()
        .enumerate()
        .map(|(n, control)| {
            vec![
                Entry::to(control.id.clone(), format!("#control-{n}")),
                words(&control.title).into(),
                control.became.words().to_owned().into(),
                control.population.map_or("nothing counted".into(), number).into(),
                number(control.exceptions).into(),
            ]
        })
        .collect();
    table::write(
        html,
        "Controls",
        &[
            ("Control", Cell::Text),
            ("About", Cell::Text),
            ("Result", Cell::Word),
            ("Looked at", Cell::Number),
            ("Exceptions", Cell::Number),
        ],
        &rows,
    );
    html.element("h2", &[], "Each control").line();
    for (n, control) in pack.controls.iter().enumerate() {
        html.open("div", &[("id", &format!("control-{n}"))]);
        self::control(html, control);
        html.close("div").line();
    }
    if !pack.cannot_show.is_empty() {
        let rows: Vec<Vec<String>> =
            pack.cannot_show.iter().map(|entry| vec![words(&entry.article), words(&entry.why)]).collect();
        html.table(
            "What this evidence cannot show",
            &[("Part of the rules", Cell::Text), ("Why not", Cell::Text)],
            &rows,
        );
    }
}

fn control(html: &mut Html, control: &ControlLine) {
    judged(html, control);
    if !control.rows.is_empty() {
        let columns: Vec<(&str, Cell)> =
            control.columns.iter().map(|name| (name.as_str(), Cell::Text)).collect();
        let rows: Vec<Vec<Entry>> = control
            .rows
            .iter()
            .map(|row| {
                control
                    .columns
                    .iter()
                    .zip(row)
                    .map(|(column, cell)| exception(column, cell.as_deref()))
                    .collect()
            })
            .collect();
        table::write(html, &format!("Exceptions of {}", control.id), &columns, &rows);
        let beyond = control.exceptions.saturating_sub(control.rows.len() as u64);
        if beyond > 0 {
            let text = format!(
                "And {}: `auditor assess --exceptions FILE` writes all.",
                count(beyond, "more", "more")
            );
            html.element("p", &[("class", "note")], &text).line();
        }
    }
    html.close("article").line();
}

/// A cell of an exception; an exchange's leads to its story.
fn exception(column: &str, cell: Option<&str>) -> Entry {
    let text = cell.unwrap_or("—").to_owned();
    match (column, ExchangeId::new(text.as_str())) {
        ("exchange", Ok(exchange)) => Entry::to(text, format!("/exchange/{exchange}")),
        _ => text.into(),
    }
}
