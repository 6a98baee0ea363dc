//! The controls of packs: asked when somebody looks, and kept as long as the visit is shown.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use schemas::ExchangeId;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::frame::{Frame, Standing, page};
use super::listen::tell;
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

/// How long the page of a pack waits for its answers; less than a page may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(50);

/// What there is of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// There is no such pack.
    NoPack,
    /// It, or another, is being asked; its answers are kept when they come.
    Asking,
    /// Its answers.
    Is(T),
}

/// The list of packs.
pub(super) fn list(visit: &Visit, standing: &Standing, settings: &Settings) -> String {
    let asked = visit.asked();
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

/// The controls of a pack. Waits so long for its answers.
///
/// # Errors
/// As questions fail.
pub(super) async fn pack(
    visit: &Arc<Visit>,
    standing: &Standing,
    settings: &Arc<Settings>,
    name: &str,
    patience: Duration,
) -> anyhow::Result<Answer<String>> {
    let pack = match asked(visit, settings, name, patience).await? {
        Answer::Is(pack) => pack,
        Answer::Asking => return Ok(Answer::Asking),
        Answer::NoPack => return Ok(Answer::NoPack),
    };
    let title = words(&pack.title);
    let frame = Frame { title: &title, tab: "/controls", sql: None };
    Ok(Answer::Is(page(&frame, visit, standing, |html| write(html, &pack))))
}

/// Asks a pack, unless it was asked. One is asked at a time, and to its end: who waits no longer finds its answers later.
async fn asked(
    visit: &Arc<Visit>,
    settings: &Arc<Settings>,
    name: &str,
    patience: Duration,
) -> anyhow::Result<Answer<Arc<PackLine>>> {
    if !settings.questions.asked().packs.iter().any(|loaded| loaded.pack.name == name) {
        return Ok(Answer::NoPack);
    }
    if let Some(line) = visit.asked().remove(name) {
        return Ok(Answer::Is(line));
    }
    let Ok(turn) = Arc::clone(&visit.asking).try_lock_owned() else { return Ok(Answer::Asking) };
    // Somebody's answers may have come just now.
    if let Some(line) = visit.asked().remove(name) {
        return Ok(Answer::Is(line));
    }
    let answered = spawn(visit, settings, name, turn);
    match tokio::time::timeout(patience, answered).await {
        Ok(answer) => Ok(Answer::Is(answer.context("the pack was asked, and the auditor failed")??)),
        Err(_) => Ok(Answer::Asking),
    }
}

/// Asks a pack in a task of its own, which keeps the answers.
fn spawn(
    visit: &Arc<Visit>,
    settings: &Arc<Settings>,
    name: &str,
    turn: OwnedMutexGuard<()>,
) -> oneshot::Receiver<anyhow::Result<Arc<PackLine>>> {
    let (tell_it, told) = oneshot::channel();
    let (visit, settings, name) = (Arc::clone(visit), Arc::clone(settings), name.to_owned());
    let handle = tokio::runtime::Handle::current();
    drop(tokio::task::spawn_blocking(move || {
        let answer = handle.block_on(ask(&visit, &settings, &name));
        if let Ok(line) = &answer {
            visit.keep(&name, line.clone());
        }
        drop(turn);
        // Nobody waits any more.
        if let Err(Err(error)) = tell_it.send(answer) {
            tell(&format!("the pack `{name}` could not be asked: {error:#}"));
        }
    }));
    told
}

async fn ask(visit: &Visit, settings: &Settings, name: &str) -> anyhow::Result<Arc<PackLine>> {
    let all = settings.questions.asked();
    let loaded = all.packs.iter().find(|loaded| loaded.pack.name == name).context("the pack")?;
    let bucket =
        match loaded.pack.controls.iter().any(|control| control.needs.iter().any(|need| need == "obj")) {
            true => visit.opened.bucket_versions(),
            false => Err("no control asks for it".into()),
        };
    let shown = Shown { report: &visit.report, asked: (visit.opened.from, visit.opened.asked_to), bucket };
    let one = Asked { packs: std::slice::from_ref(loaded), ..all };
    let made = visit.scratch()?;
    let proven = Proven { session: &visit.base, records: &visit.records, folder: made.path() };
    let assessment = assess(&proven, &shown, &one, &mut |_, _, _, _| Ok(())).await?;
    Ok(Arc::new(PackLine::from(assessment.packs.first().context("the pack's answers")?)))
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
