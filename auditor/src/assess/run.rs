//! Asks all controls of all packs, and puts together what they rest on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::runtime_env::RuntimeEnv;

use super::control::{self, Found, Populations, Question, Shelf, Standing};
use super::fact;
use super::pack::{Control, Kind, Loaded, Pack};
use super::register::{self, Given};
use super::result::{Assessment, Counts, Head, PackResult, VERSION};
use super::rows::{Rows, Value};
use super::tables::{self, Proven, Shown, Tables};
use crate::report::{Interval, Report};
use crate::time;

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The packs.
    pub packs: &'a [Loaded],
    /// The user's registers.
    pub registers: &'a [Given],
    /// The user's own names: setting and value.
    pub settings: &'a [(String, String)],
    /// Only these controls, where there are any.
    pub only: &'a [String],
    /// Where the whole list of exceptions goes, as the assessment tells it.
    pub exceptions_file: Option<PathBuf>,
}

/// Told of every exception: pack, control, columns, row.
pub type Sink<'a> = dyn FnMut(&str, &str, &[String], &[Option<String>]) -> anyhow::Result<()> + 'a;

/// The one row of `settings`.
pub fn settings_row(pack: &Pack, typed: &[(String, String)]) -> Rows {
    let mut rows = Rows::new(pack.columns(fact::SETTINGS).unwrap_or_default());
    rows.push(&values(pack, typed).into_iter().map(|(_, value)| Value::Text(value)).collect::<Vec<_>>());
    rows
}

fn values(pack: &Pack, typed: &[(String, String)]) -> Vec<(String, String)> {
    let value = |(name, setting): (&String, &super::pack::Setting)| {
        let typed = typed.iter().rev().find(|(typed, _)| typed == name).map(|(_, value)| value.clone());
        (name.clone(), typed.unwrap_or_else(|| setting.default.clone()))
    };
    pack.settings.iter().map(value).collect()
}

fn standing(report: &Report) -> Standing {
    let logs = report.logs().count();
    let records: u64 = report.logs().map(|log| log.size).sum();
    let newest = report.logs().map(|log| log.sealed_at).max();
    let until = newest.map_or(String::new(), |at| format!(" up to {}", time::text(at)));
    let found: Vec<String> = report
        .findings
        .counts()
        .iter()
        .filter(|(code, _)| {
            report.findings.iter().any(|f| f.code == **code && f.effect != crate::finding::Effect::Note)
        })
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    let found =
        if found.is_empty() { String::new() } else { format!(", with findings: {}", found.join(", ")) };
    let bucket = report.bucket.as_ref().map_or_else(Shelf::default, |facts| {
        let read = facts.read + facts.read_earlier;
        let text = format!("what the bucket showed of {read} of its {} versions", facts.versions);
        Shelf { text, unread: facts.versions.saturating_sub(read) }
    });
    let unjudged =
        report.findings.iter().filter(|f| f.effect == crate::finding::Effect::Unjudged).count() as u64;
    Standing {
        unjudged,
        verdict: report.verdict,
        proven: format!("proven rows of {logs} logs ({records} records{until}){}{found}", earlier(report)),
        bucket,
    }
}

/// How much of it was read at an earlier visit and not again.
fn earlier(report: &Report) -> String {
    let (all, cached) =
        report.logs().fold((0, 0), |(all, cached), log| (all + log.batches, cached + log.batches_from_cache));
    match cached {
        0 => String::new(),
        _ => format!(
            ", {cached} of {all} batches read at an earlier visit: their objects are listed as they were, and were not read \
            again (`auditor verify` reads all)"
        ),
    }
}

/// Asks.
///
/// # Errors
/// A register of another form, a view that does not plan, `sink`'s own.
pub async fn assess(
    proven: &Proven<'_>,
    shown: &Shown<'_>,
    asked: &Asked<'_>,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Assessment> {
    let report = shown.report;
    let standing = standing(report);
    let sheets = sheets(proven, shown, asked).await?;
    let found = answers(&sheets, &proven.session.runtime_env(), sink).await?;
    let mut packs = Vec::new();
    for (sheet, found) in sheets.iter().zip(&found) {
        let (loaded, pack) = (sheet.loaded, &sheet.loaded.pack);
        let judge = |(control, found): (&&Control, &Answered)| {
            control::judge(control, &sheet.tables, &standing, found)
        };
        packs.push(PackResult {
            name: pack.name.clone(),
            title: pack.title.clone(),
            about: pack.about.clone(),
            from: loaded.from.clone(),
            sha256: loaded.sha256,
            settings: values(pack, asked.settings).into_iter().collect(),
            controls: sheet.controls.iter().zip(found).map(judge).collect(),
            cannot_show: pack.cannot_show.clone(),
        });
    }
    let (from, to) = tables::period(report, shown.asked);
    let mut out = Assessment {
        v: VERSION,
        auditor: env!("CARGO_PKG_VERSION"),
        assessed_at: report.checked_at,
        period: Interval { from, to },
        asked_to: shown.asked.1.filter(|asked| *asked > to),
        verdict: report.verdict,
        first_line: report.first_line(),
        claims: report.claims.clone(),
        findings: report.findings.counts().clone(),
        not_checked: report.not_checked.clone(),
        not_judged: report.not_judged.clone(),
        store: report.store.clone(),
        deployment: report.deployment.clone(),
        trust_fingerprint: report.trust_fingerprint.clone(),
        logs: report
            .logs()
            .map(|log| Head {
                origin: log.origin.clone(),
                size: log.size,
                root: log.root,
                seal: log.seal,
                sealed_at: log.sealed_at,
            })
            .collect(),
        registry: report.registry.as_ref().map(|registry| Head {
            origin: registry.origin.clone(),
            size: registry.size,
            root: registry.root,
            seal: registry.seal,
            sealed_at: registry.sealed_at,
        }),
        registers: asked.registers.to_vec(),
        exceptions_file: asked.exceptions_file.clone(),
        packs,
        counts: Counts::default(),
        exit_code: 2,
    };
    out.settle();
    Ok(out)
}

/// What a control's question gave, or why it failed.
type Answered = Result<Found, String>;

/// A pack with the tables that it may ask, and those of its controls that are asked.
struct Sheet<'a> {
    loaded: &'a Loaded,
    tables: Tables,
    controls: Vec<&'a Control>,
}

async fn sheets<'a>(
    proven: &Proven<'_>,
    shown: &Shown<'_>,
    asked: &Asked<'a>,
) -> anyhow::Result<Vec<Sheet<'a>>> {
    let controls = |loaded: &'a Loaded| {
        let all = loaded.pack.controls.iter();
        all.filter(|control| asked.only.is_empty() || asked.only.contains(&control.id)).collect::<Vec<_>>()
    };
    let needed = asked.packs.iter().flat_map(controls).flat_map(|control| &control.needs);
    let facts = Tables::new(proven, shown, &needed.map(String::as_str).collect()).await?;
    let mut registers = Registers::default();
    let sheet = |loaded: &'a Loaded| {
        let tables = with_registers(&facts, &loaded.pack, asked, &mut registers)?;
        Ok(Sheet { loaded, tables, controls: controls(loaded) })
    };
    asked.packs.iter().map(sheet).collect()
}

/// Asks the controls of all packs: those that ask the same of the same tables are asked once, and each of them is told
/// every exception.
async fn answers(
    sheets: &[Sheet<'_>],
    runtime: &Arc<RuntimeEnv>,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Vec<Vec<Answered>>> {
    let mut same: BTreeMap<Question<'_>, Vec<(usize, usize)>> = BTreeMap::new();
    let mut order = Vec::new();
    for (n, sheet) in sheets.iter().enumerate() {
        for (m, control) in sheet.controls.iter().enumerate() {
            let Some(question) = control::question(control, &sheet.tables) else { continue };
            let those = same.entry(question.clone()).or_default();
            if those.is_empty() {
                order.push(question);
            }
            those.push((n, m));
        }
    }
    let not_asked = || Err("it was not asked".to_owned());
    let mut out: Vec<Vec<Answered>> =
        sheets.iter().map(|sheet| sheet.controls.iter().map(|_| not_asked()).collect()).collect();
    let mut populations = Populations::default();
    for question in &order {
        let those = same.get(question).map_or(&[][..], Vec::as_slice);
        let Some(&(n, m)) = those.first() else { continue };
        let mut all = |columns: &[String], row: &[Option<String>]| {
            those.iter().try_for_each(|&(n, m)| {
                sink(&sheets[n].loaded.pack.name, &sheets[n].controls[m].id, columns, row)
            })
        };
        let (control, tables) = (sheets[n].controls[m], &sheets[n].tables);
        let found = control::ask(control, tables, runtime, &mut populations, &mut all).await?;
        for &(n, m) in those {
            out[n][m] = found.clone();
        }
    }
    Ok(out)
}

/// The tables of registers that were read, by name and wanted columns: packs that want the same share one.
type Registers = Vec<(String, BTreeMap<String, Kind>, Arc<dyn TableProvider>)>;

/// The facts, with a pack's own registers and settings.
fn with_registers(
    facts: &Tables,
    pack: &Pack,
    asked: &Asked<'_>,
    read: &mut Registers,
) -> anyhow::Result<Tables> {
    let mut tables = facts.clone();
    for (name, wanted) in &pack.registers {
        let known = read.iter().find(|(known, columns, _)| known == name && *columns == wanted.columns);
        let known = known.map(|(_, _, table)| table.clone());
        match (known, asked.registers.iter().find(|given| given.name == *name)) {
            (Some(table), _) => tables.put(name, table),
            (None, Some(given)) => {
                let table = given.rows(wanted).map_err(anyhow::Error::msg)?.table()?;
                tables.put(name, table.clone());
                read.push((name.clone(), wanted.columns.clone(), table));
            }
            (None, None) => tables.without(
                name,
                format!(
                    "register `{name}` was not given (`--register {name}=FILE`): {}",
                    register::form(wanted)
                ),
            ),
        }
    }
    if !pack.settings.is_empty() {
        tables.add(fact::SETTINGS, settings_row(pack, asked.settings))?;
    }
    Ok(tables)
}
