//! `gateway reship`

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use super::{loaded, now_us};
use crate::admin::socket::ReshipAsked;
use crate::cli::Reship;
use crate::config::parse_duration;

/// Puts kept batches again.
///
/// # Errors
/// What was not put, and why.
pub(super) fn run(args: &Reship) -> Result<()> {
    let asked = asked(args, now_us())?;
    crate::serve::reship(loaded(&args.file.config)?, asked)
}

fn asked(args: &Reship, now_us: i64) -> Result<ReshipAsked> {
    let since_us = args.since.as_deref().map(|text| since(text, now_us)).transpose()?;
    let within = parse_duration(&args.within)
        .with_context(|| format!("`--within {}`: wanted a duration as `2m`", args.within))?;
    let (missing, batches, within_s) = (args.missing, args.batch.clone(), within.as_secs());
    let asked = ReshipAsked { missing, since_us, batches, within_s };
    // Said before anything is asked.
    asked.request().map_err(anyhow::Error::msg)?;
    Ok(asked)
}

/// A time, or a duration before now.
fn since(text: &str, now_us: i64) -> Result<i64> {
    if let Some(duration) = parse_duration(text) {
        let us = i64::try_from(duration.as_micros()).context("a duration of at most 10 years")?;
        return Ok(now_us.saturating_sub(us));
    }
    let time: Timestamp = text.parse().with_context(|| {
        format!("`--since {text}`: wanted a time as `2026-11-20T10:00:00Z` or a duration as `6h`")
    })?;
    ensure!(time.as_microsecond() <= now_us, "`--since {text}`: wanted a time that is over");
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    fn typed(words: &[&str]) -> Result<ReshipAsked> {
        let parsed = Cli::try_parse_from([&["gateway", "reship"], words].concat())?;
        let Command::Reship(args) = parsed.command else { anyhow::bail!("another command") };
        asked(&args, 1_000_000_000_000_000)
    }

    #[test]
    fn what_is_typed_says_which_batches_are_put_again() {
        let log = "acme/gw1/20261120t101500z-3f9a1c20";
        let asked = typed(&["--missing", "--since", "1h", "--batch", &format!("{log}:7")]).unwrap();
        assert_eq!((asked.missing, asked.since_us, asked.within_s), (true, Some(999_996_400_000_000), 120));
        let request = asked.request().unwrap();
        assert_eq!(request.batches.len(), 1);
        assert_eq!((request.batches[0].0.as_str(), request.batches[0].1), (log, 7));
        let all = typed(&["--all", "--within", "10s"]).unwrap();
        assert_eq!((all.missing, all.since_us, all.batches.len(), all.within_s), (false, None, 0, 10));
        let since = typed(&["--since", "2001-09-09T01:46:39Z"]).unwrap().since_us;
        assert_eq!(since, Some(999_999_999_000_000));
    }

    #[test]
    fn nothing_is_put_again_that_was_not_chosen() {
        for (words, said) in [
            (&[][..], "required"),
            (&["--all", "--missing"], "cannot be used with"),
            (&["--since", "soon"], "--since soon"),
            (&["--since", "2100-01-01T00:00:00Z"], "a time that is over"),
            (&["--batch", "acme/gw1:7"], "no batch"),
            (&["--batch", "acme/gw1/20261120t101500z-3f9a1c20"], "no batch"),
            (&["--missing", "--within", "long"], "--within long"),
        ] {
            let told = format!("{:#}", typed(words).unwrap_err());
            assert!(told.contains(said), "{words:?}: {told}");
        }
    }
}
