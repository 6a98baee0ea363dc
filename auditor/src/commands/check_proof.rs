//! `auditor check-proof`: a bundle against a trust file, offline.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use super::out;
use crate::cli::{CheckProof, ReportFormat};
use crate::proof::{self, Bundle};
use crate::render::{hostile, rests};

/// The largest bundle.
const LIMIT: u64 = 1 << 30;

/// Runs the command.
///
/// # Errors
/// Bundle or trust file that cannot be read: nothing is judged.
pub fn run(typed: &CheckProof) -> anyhow::Result<u8> {
    let trust = crate::trust::read(&typed.trust, None)?;
    let name = || format!("bundle `{}`", typed.bundle.display());
    if std::fs::metadata(&typed.bundle).with_context(name)?.len() > LIMIT {
        bail!("{} has more than {LIMIT} bytes", name());
    }
    let text = std::fs::read_to_string(&typed.bundle).with_context(name)?;
    let bundle: Bundle = serde_json::from_str(&text).with_context(name)?;
    let checks = proof::check(&bundle, &trust);
    let holds = checks.iter().all(|check| check.wrong.is_none());
    let not_judged = proof::not_judged(&bundle);
    let verdict = if holds { "VERIFIED" } else { "INVALID" };
    if typed.format == ReportFormat::Json {
        let fingerprint = trust.fingerprint()?;
        let value = serde_json::json!({ "verdict": verdict, "exchange": bundle.exchange, "checks": checks,
            "not_judged": not_judged, "trust_fingerprint": fingerprint });
        out(&(crate::render::json::harmless(&serde_json::to_string_pretty(&value)?) + "\n"))?;
        return Ok(u8::from(!holds));
    }
    let mut text = format!(
        "{verdict} exchange {}: signed and included; whether the log is whole is not shown by a bundle\n",
        bundle.exchange
    );
    if !holds {
        text = format!("{verdict} exchange {}\n", bundle.exchange);
    }
    for check in &checks {
        let result =
            check.wrong.as_deref().map_or("holds".into(), |wrong| format!("WRONG: {}", hostile::line(wrong)));
        let _ = writeln!(text, "  {}  {result}", hostile::line(&check.what));
    }
    text.push_str(&rests::unjudged(&not_judged));
    let _ = writeln!(text, "trust file fingerprint {}", trust.fingerprint()?);
    out(&text)?;
    Ok(u8::from(!holds))
}
