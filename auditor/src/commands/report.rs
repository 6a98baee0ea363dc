//! `auditor report`, `check-report`, `report-key`.

use anyhow::Context as _;
use schemas::note::VerifyingKey;

use super::assess::{self, Questions};
use super::{cost, evidence, out};
use crate::cli::{CheckReport, Report, ReportKey};
use crate::cost::period::{FORM, Period};
use crate::paper::data::{Data, Sources, Span};
use crate::paper::{key, signed, statement, volumes};
use crate::render::hostile;
use crate::state::State;
use crate::time;

/// Runs `auditor report`.
///
/// # Errors
/// Evidence, a pack, a register or a key that cannot be used, an output that cannot be written.
pub fn run(typed: &Report) -> anyhow::Result<u8> {
    let questions = Questions::read(&typed.pack, &typed.asking)?;
    let mut wanted = typed.evidence.clone();
    if let Some(text) = &typed.period {
        let period =
            Period::parse(text).with_context(|| format!("--period: `{text}` is no period: wanted {FORM}"))?;
        wanted.from = Some(time::text(period.start()));
        wanted.to = Some(time::text(period.end()));
    }
    let opened = evidence::open_settled(&wanted)?;
    let key = key::given_or_of_state(typed.key.as_deref(), opened.state.folder())?;
    let mut measured = volumes::Measured::default();
    let (report, assessment) =
        assess::assess(&opened, &questions.asked(), questions.memory, async |context, assessment| {
            let period: Span = assessment.period.into();
            let spend = cost::total(context, Some(period.from), Some(period.to)).await?;
            measured = volumes::measure(context, period, &spend).await?;
            Ok(())
        })?;
    let data = Data::new(Sources {
        report: &report,
        assessment: &assessment,
        measured,
        period_name: typed.period.clone(),
        signer: key.verifier.to_string(),
    });
    let sha256 = signed::write(&typed.out, &data, &key)?;
    let shown = typed.out.display().to_string();
    let shown = hostile::line(&shown);
    out(&format!(
        "{}\n{}\nreport    {shown}, SHA-256 {sha256}; data {shown}.json, signature {shown}.sig\nsigned by {}\n",
        hostile::line(&assessment.first_line),
        assessment.summary(),
        key.verifier
    ))?;
    Ok(assessment.exit_code)
}

/// Runs `auditor check-report`.
///
/// # Errors
/// A file or key that cannot be read.
pub fn check(typed: &CheckReport) -> anyhow::Result<u8> {
    let key = key::verifier(&typed.key)?;
    let page = signed::read(&typed.report)?;
    if page.starts_with(statement::HEAD.as_bytes()) {
        return check_statement(&page, &key);
    }
    let json = signed::read(&signed::data_path(&typed.report))?;
    let note = signed::read(&signed::note_path(&typed.report))?;
    let checked = signed::check(&page, &json, &note, &key);
    let (head, exit) = match (checked.wrong.is_empty(), checked.open.is_empty()) {
        (false, _) => ("INVALID", 1),
        (true, false) => ("COULD-NOT-JUDGE", 2),
        (true, true) => ("VERIFIED", 0),
    };
    let mut text = format!(
        "{head} report as signed; whether the evidence still is what it says, `auditor verify` tells\n"
    );
    for (name, lines) in [("wrong", &checked.wrong), ("open ", &checked.open), ("holds", &checked.holds)] {
        for line in lines {
            text.push_str(&format!("  {name}  {}\n", hostile::line(line)));
        }
    }
    out(&text)?;
    Ok(exit)
}

fn check_statement(note: &[u8], key: &VerifyingKey) -> anyhow::Result<u8> {
    match schemas::note::verify(note, std::slice::from_ref(key)) {
        Ok(verified) => {
            out(&format!("VERIFIED statement signed by {key}\n{}", hostile::lines(verified.text)))?;
            Ok(0)
        }
        Err(why) => {
            out(&format!("INVALID statement: {}\n", hostile::line(&why.to_string())))?;
            Ok(1)
        }
    }
}

/// Runs `auditor report-key`.
///
/// # Errors
/// A key that cannot be made or read.
pub fn report_key(typed: &ReportKey) -> anyhow::Result<u8> {
    let path = match &typed.out {
        Some(path) => path.clone(),
        None => {
            let state = State::open(&typed.state.clone().map_or_else(evidence::default_state, Ok)?)?;
            key::of_state(state.folder())
        }
    };
    let verifier = match path.exists() {
        true => key::read(&path)?.verifier,
        false => key::make(&path, typed.name.as_deref().unwrap_or(key::NAME))?,
    };
    if let Some(name) = typed.name.as_deref().filter(|name| *name != verifier.name()) {
        anyhow::bail!("--name `{name}`: `{}` is the key of `{}`", path.display(), verifier.name());
    }
    out(&format!("{verifier}\n"))?;
    Ok(0)
}
