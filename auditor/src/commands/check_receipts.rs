//! `auditor check-receipts`: what callers were promised, against the proven logs.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use super::{evidence, out, query};
use crate::cli::{Answer, AnswerFormat, CheckReceipts, ReportFormat};
use crate::finding::Effect;
use crate::receipts::judge::{self, judge};
use crate::receipts::proven::Proven;
use crate::receipts::read::{LIMIT, read};
use crate::render::hostile;
use crate::report::Verdict;
use crate::time;

/// Runs the command.
///
/// # Errors
/// A file that cannot be read or holds no receipt, evidence that cannot be opened: nothing is judged.
pub fn run(typed: &CheckReceipts) -> anyhow::Result<u8> {
    let name = || format!("receipts `{}`", typed.file.display());
    if std::fs::metadata(&typed.file).with_context(name)?.len() > LIMIT {
        bail!("{} has more than {LIMIT} bytes", name());
    }
    let text = std::fs::read(&typed.file).with_context(name)?;
    let kept = read(&String::from_utf8_lossy(&text)).with_context(name)?;
    if kept.is_empty() {
        bail!(
            "{} holds no receipt: wanted one a line, JSON lines with `receipt`, or headers `x-affidavit-receipt`",
            name()
        );
    }
    let opened = evidence::open(&typed.evidence)?;
    let (report, cache) = query::verified(&opened)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = Answer { format: AnswerFormat::Table, out: None, memory: 256 };
    let now = time::now();
    let gone_before = opened.mandate.retention.map(|kept| now.saturating_sub(kept));
    let proven = runtime.block_on(async {
        let (context, _spill) = query::session(&opened, &cache, &[], &answer).await?;
        Proven::ask(&context, &report, &kept, gone_before).await
    })?;
    let mut result = judge(&kept, &proven, opened.in_force(), now);
    result.findings.sort();
    let verdict = Verdict::from(result.findings.effect());
    match typed.format {
        ReportFormat::Text => out(&told(&result, verdict))?,
        ReportFormat::Json => {
            let value = serde_json::json!({
                "verdict": verdict, "evidence": report.verdict, "receipts": result.receipts,
                "honoured": result.honoured(), "duplicates": result.duplicates(),
                "findings": result.findings.iter().collect::<Vec<_>>(), "counts": result.findings.counts(),
                "trust_fingerprint": report.trust_fingerprint,
            });
            out(&(crate::render::json::harmless(&serde_json::to_string_pretty(&value)?) + "\n"))?;
        }
    }
    let evidence = query::finish(&report, &[], None)?;
    Ok(worse(evidence, verdict.exit_code()))
}

/// Findings go before what could not be judged, and that before nothing.
fn worse(one: u8, other: u8) -> u8 {
    match (one, other) {
        (1, _) | (_, 1) => 1,
        (a, b) => a.max(b),
    }
}

fn told(result: &judge::Result, verdict: Verdict) -> String {
    let (all, honoured, twice) = (result.receipts.len(), result.honoured(), result.duplicates());
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{} {honoured} of {} receipts are honoured: the promised record is in the proven log{}",
        verdict.as_str(),
        all - twice,
        if twice > 0 { format!("; {twice} more stand twice in the file") } else { String::new() }
    );
    for finding in result.findings.iter() {
        let _ = writeln!(text, "  {}  {}", finding.code, hostile::line(&finding.place.to_string()));
        let _ = writeln!(text, "    expected  {}", hostile::line(&finding.expected));
        let _ = writeln!(text, "    found     {}", hostile::line(&finding.found));
        if finding.effect > Effect::Note {
            let _ = writeln!(text, "    hint      {}", finding.hint);
        }
    }
    if result.findings.omitted() > 0 {
        let _ = writeln!(text, "  {} more", result.findings.omitted());
    }
    text
}
