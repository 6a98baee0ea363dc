//! `auditor sample`: draws exchanges, or repeats a draw.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::evidence::{self, Opened};
use super::{out, query};
use crate::cli::{Answer, AnswerFormat, Sample, SampleValue};
use crate::content::Reader;
use crate::render::hostile;
use crate::report::Report;
use crate::sample::beacon::Beacon;
use crate::sample::check::{self, Checked};
use crate::sample::draw::draw;
use crate::sample::method::RestsOn;
use crate::sample::papers;
use crate::sample::seed::{Head, Parameters};
use crate::time;

/// Runs the command.
///
/// # Errors
/// Evidence that cannot be opened, a public value that is none or too early, a population from which nothing can be drawn
/// as asked, a folder that cannot be written or read.
pub fn run(typed: &Sample) -> anyhow::Result<u8> {
    match &typed.check {
        Some(folder) => again(typed, folder),
        None => anew(typed),
    }
}

fn answer(typed: &Sample) -> Answer {
    Answer { format: AnswerFormat::Table, out: None, memory: typed.memory }
}

fn anew(typed: &Sample) -> anyhow::Result<u8> {
    let (Some(n), Some(public), Some(folder)) = (typed.n, &typed.seed_from, &typed.out) else {
        bail!("wanted `--n`, `--seed-from` and `--out`, or `--check`");
    };
    let at = typed.seed_at.as_deref().map(time::parse).transpose();
    let at = at.map_err(anyhow::Error::msg).context("--seed-at")?;
    let public = Beacon::parse(public, at).map_err(anyhow::Error::msg).context("--seed-from")?;
    papers::is_free(folder)?;
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let heads = heads(&report);
    let newest = heads.iter().map(|head| head.sealed_at).max().context("nothing is proven")?;
    let is_later = public.is_later(newest, time::now()).map_err(anyhow::Error::msg).context("--seed-from")?;
    let mut parameters = parameters(typed, &opened, n, public);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (draw, bundles) = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer(typed)).await?;
        let draw = draw(&context, &mut parameters, &heads).await?;
        let exchanges: Vec<&str> = draw.drawn.iter().map(|drawn| drawn.item.exchange.as_str()).collect();
        let bundles = papers::proofs(&context, &Reader::new(&opened), &exchanges).await?;
        anyhow::Ok((draw, bundles))
    })?;
    let csv = papers::csv(&draw, &parameters.by)?;
    let later = if is_later {
        "it came out later than the newest seal, by that seal's own time"
    } else {
        "nobody said when it came out: whether the operator could know it is not judged"
    };
    let rests_on = RestsOn {
        verdict: report.first_line(),
        later_than_seals: later.into(),
        trust_fingerprint: report.trust_fingerprint.clone(),
        auditor: env!("CARGO_PKG_VERSION").into(),
        drawn_at: report.checked_at,
    };
    let method = papers::method(&draw, parameters, heads, &csv, rests_on);
    papers::write(folder, &method, &csv, &bundles)?;
    out(&papers::method_text(&method))?;
    query::finish(&report, &[], None)
}

/// The newest proven tree of every log.
fn heads(report: &Report) -> Vec<Head> {
    let proven = report.logs().filter(|log| log.batches > 0);
    let mut heads: Vec<Head> = proven
        .map(|log| Head {
            origin: log.origin.clone(),
            size: log.size,
            root: log.root,
            sealed_at: log.sealed_at,
        })
        .collect();
    heads.sort();
    heads
}

fn parameters(typed: &Sample, opened: &Opened, n: u64, public: Beacon) -> Parameters {
    let by = typed.by.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    Parameters {
        deployment: opened.trust.deployment.clone(),
        n,
        by: by.collect(),
        by_value: typed.by_value.map(|SampleValue::Cost| "cost".to_owned()),
        currency: typed.currency.clone(),
        from: opened.from,
        to: opened.to,
        seed_from: public.text,
        seed_at: public.at,
    }
}

fn again(typed: &Sample, folder: &Path) -> anyhow::Result<u8> {
    let method = check::method(folder).context("--check")?;
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let checked = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer(typed)).await?;
        check::check(&context, folder, &method, opened.in_force()).await
    })?;
    out(&told(&checked, method.drawn, method.population.exchanges))?;
    let exit = query::finish(&report, &[], None)?;
    Ok(if checked.holds() { exit } else { 1 })
}

fn told(checked: &Checked, drawn: u64, population: u64) -> String {
    let holds = checked.holds();
    let mut text = match holds {
        true => {
            format!("HOLDS the same {drawn} of {population} exchanges are drawn again, each with a proof\n")
        }
        false => "DOES NOT HOLD\n".to_owned(),
    };
    for check in &checked.checks {
        let result =
            check.wrong.as_deref().map_or("holds".into(), |wrong| format!("WRONG: {}", hostile::line(wrong)));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {}  {result}", hostile::line(&check.what));
    }
    for note in &checked.notes {
        let _ = writeln!(text, "note  {}", hostile::line(note));
    }
    text
}
