//! `auditor verify`.

use anyhow::Context as _;

use super::out;
use crate::cli::{ReportFormat, Verify};
use crate::paper::{key, statement};

/// Runs the command.
///
/// # Errors
/// Store, trust file, mandate, key table or state that cannot be used: nothing is judged.
pub fn run(typed: &Verify) -> anyhow::Result<u8> {
    let opened = super::evidence::open(&typed.evidence)?;
    let (report, _) =
        if typed.since_last { super::query::verified(&opened)? } else { opened.verify(typed.anew)? };
    if let Some(path) = &typed.statement {
        let key = key::given_or_of_state(typed.key.as_deref(), opened.state.folder())?;
        let note = statement::sign(&report, &key).context("--statement")?;
        std::fs::write(path, note).with_context(|| format!("--statement `{}`", path.display()))?;
    }
    match typed.format {
        ReportFormat::Text => out(&crate::render::text::report(&report))?,
        ReportFormat::Json => out(&(crate::render::json::report(&report)? + "\n"))?,
    }
    Ok(report.verdict.exit_code())
}
