//! `auditor reconcile`: the evidence against providers' exports.

use anyhow::Context as _;

use super::{evidence, out, query};
use crate::cli::{Answer, AnswerFormat, Reconcile, ReportFormat};
use crate::cost::booked;
use crate::reconcile::batches::AskedFor;
use crate::reconcile::compare::{Comparing, Tolerance};
use crate::reconcile::edges::{self, Edges};
use crate::reconcile::input::Input;
use crate::reconcile::keys::Keys;
use crate::reconcile::result::Reconciliation;
use crate::reconcile::{Export, render};
use crate::render::json;
use crate::report::{Interval, Report};

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, or an export that is not of its format.
pub fn run(typed: &Reconcile) -> anyhow::Result<u8> {
    let (reconciliation, report) = reconciled(typed)?;
    match typed.format {
        ReportFormat::Text => out(&render::text(&reconciliation, &report))?,
        ReportFormat::Json => {
            let value = serde_json::json!({
                "first_line": report.first_line(), "report": report, "reconciliation": reconciliation,
            });
            out(&(json::harmless(&serde_json::to_string_pretty(&value)?) + "\n"))?;
        }
    }
    query::finish(&report, &[], None)
}

/// What comes of it.
pub(super) fn reconciled(typed: &Reconcile) -> anyhow::Result<(Reconciliation, Report)> {
    let tolerance = Tolerance::parse(&typed.tolerance).map_err(anyhow::Error::msg).context("--tolerance")?;
    let keys = typed.keys.as_deref().map(|path| -> anyhow::Result<Keys> {
        let input = Input::open(path).context("--keys")?;
        Keys::read(&input).map_err(|problem| anyhow::anyhow!("--keys: {}", problem.in_file(&input.name)))
    });
    let keys = keys.transpose()?;
    let exports = typed
        .export
        .iter()
        .map(|export| Export::open(export).context("--export"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let opened = evidence::open(&typed.evidence)?;
    let (mut report, cache) = query::verified(&opened)?;
    let asked = asked(&report);
    let mut comparing = Comparing::new(&exports, keys.as_ref(), asked, tolerance, typed.partial);
    let answer = Answer { format: AnswerFormat::Table, out: None, memory: 512 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (asked_for, edges) = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer).await?;
        let sql = booked::question(&[], opened.from, opened.to);
        booked::each(&context, &sql, |booked| {
            comparing.add(&booked);
            Ok(())
        })
        .await?;
        if comparing.has_calls() {
            edges::known(&context, asked.from, |known| comparing.find(&known)).await?;
        }
        let edges = Edges::read(&context, &report).await?;
        anyhow::Ok((AskedFor::read(&context, asked.from).await?, edges))
    })?;
    let reconciliation = comparing.finish(&asked_for, &edges);
    reconciliation.settle(&mut report);
    Ok((reconciliation, report))
}

/// From the first asked interval's start to the last one's end.
fn asked(report: &Report) -> Interval {
    let asked = || report.gateways.iter().filter_map(|gateway| gateway.asked);
    Interval {
        from: asked().map(|asked| asked.from).min().unwrap_or(0),
        to: asked().map(|asked| asked.to).max().unwrap_or(0),
    }
}
