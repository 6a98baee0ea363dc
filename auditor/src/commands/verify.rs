//! `auditor verify`.

use super::out;
use crate::cli::{ReportFormat, Verify};

/// Runs the command.
///
/// # Errors
/// Store, trust file, mandate, key table or state that cannot be used: nothing is judged.
pub fn run(typed: &Verify) -> anyhow::Result<u8> {
    let opened = super::evidence::open(&typed.evidence)?;
    let (report, _) =
        if typed.since_last { super::query::verified(&opened)? } else { opened.verify(typed.anew)? };
    match typed.format {
        ReportFormat::Text => out(&crate::render::text::report(&report))?,
        ReportFormat::Json => out(&(crate::render::json::report(&report)? + "\n"))?,
    }
    Ok(report.verdict.exit_code())
}
