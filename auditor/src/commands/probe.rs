//! `auditor probe`: try whether a bucket enforces retention.

use anyhow::Context as _;

use super::evidence::{default_state, known, settings};
use super::out;
use crate::bucket::probed::{self, Probed};
use crate::cli::{Probe, ReportFormat};
use crate::probe;
use crate::source::S3Source;
use crate::source::s3::Address;
use crate::state::State;
use crate::time;

/// Runs the command.
///
/// # Errors
/// A store that is no bucket, a canary that cannot be written: nothing is judged.
pub fn run(typed: &Probe) -> anyhow::Result<u8> {
    let address = Address::parse(&typed.store).map_err(anyhow::Error::msg)?;
    let address = address.with_context(|| format!("store `{}`: wanted `s3://BUCKET/PREFIX`", typed.store))?;
    let lock = time::parse_duration(&typed.lock).map_err(anyhow::Error::msg).context("--lock")?;
    let unknown: Vec<&str> =
        typed.skip.iter().map(String::as_str).filter(|name| !probe::ROWS.contains(name)).collect();
    anyhow::ensure!(
        unknown.is_empty(),
        "--skip {}: wanted one of {}",
        unknown.join(", "),
        probe::ROWS.join(", ")
    );
    let (bucket, runtime) = S3Source::connect(&address, &settings(&typed.remote))?;
    let transcript = runtime.block_on(probe::run(&bucket, lock, &typed.skip))?;
    let json = serde_json::to_string_pretty(&transcript)? + "\n";
    if let Some(path) = &typed.out {
        std::fs::write(path, &json).with_context(|| format!("`{}`", path.display()))?;
    }
    match typed.format {
        ReportFormat::Text => out(&transcript.text())?,
        ReportFormat::Json => out(&json)?,
    }
    let state = State::open(&typed.state.clone().map_or_else(default_state, Ok)?)?;
    let mut visits = known(&state)?;
    if transcript.judged() {
        let (passed, failed) = (transcript.passed(), transcript.failed());
        let (at, canaries) = (transcript.at, transcript.canaries.clone());
        // Of stores it says nothing: whoever visits one at this time does.
        visits.stores.clear();
        visits.probes.insert(probed::id(&bucket), Probed { at, canaries, passed, failed });
        state.remember(&visits)?;
    }
    Ok(transcript.exit_code())
}
