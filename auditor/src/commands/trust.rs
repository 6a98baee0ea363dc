//! `auditor trust show`, `add`, `resolve`.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use schemas::trust::Trust;

use super::{evidence, out};
use crate::cli::TrustCommand;
use crate::render::hostile;
use crate::state::State;

/// Runs the command.
///
/// # Errors
/// A file that is no trust file, or is not the one that was told or pinned.
pub fn run(command: &TrustCommand) -> anyhow::Result<u8> {
    match command {
        TrustCommand::Show { file } => out(&text(&crate::trust::read(file, None)?)?)?,
        TrustCommand::Add { file, fingerprint, replace, state } => {
            let trust = crate::trust::read(file, None)?;
            let state = State::open(&state.clone().map_or_else(evidence::default_state, Ok)?)?;
            return add(&trust, fingerprint.as_deref(), *replace, &state);
        }
        TrustCommand::Resolve { evidence } => {
            let opened = evidence::open(evidence)?;
            let (report, _) = opened.verify(false)?;
            if report.verdict.exit_code() == 0 {
                let resolved = crate::trust::resolved(&report).map_err(anyhow::Error::msg);
                let resolved =
                    resolved.context("what the registry says cannot be written as a trust file")?;
                out(&(serde_json::to_string_pretty(&resolved)? + "\n"))?;
            } else {
                out(&crate::render::text::report(&report))?;
            }
            return Ok(report.verdict.exit_code());
        }
    }
    Ok(0)
}

fn add(trust: &Trust, told: Option<&str>, replace: bool, state: &State) -> anyhow::Result<u8> {
    let fingerprint = trust.fingerprint()?.to_string();
    if let Some(told) = told
        && told != fingerprint
    {
        bail!("the file's fingerprint is {fingerprint}, told was `{told}`: nothing is pinned");
    }
    if let Some(pinned) = crate::trust::pinned(state, &trust.deployment)?
        && pinned != *trust
    {
        out(&difference(&text(&pinned)?, &text(trust)?))?;
        if !replace {
            bail!(
                "another trust file is pinned for `{}`: give `--replace` once you know why",
                trust.deployment
            );
        }
    }
    crate::trust::pin(state, trust)?;
    out(&format!("pinned      {} with fingerprint {fingerprint}\n", trust.deployment))?;
    Ok(0)
}

/// The lines that go, and those that come.
fn difference(old: &str, new: &str) -> String {
    let mut text = String::new();
    for (sign, lines, others) in [('-', old, new), ('+', new, old)] {
        for line in lines.lines().filter(|line| !others.lines().any(|other| other == *line)) {
            let _ = writeln!(text, "{sign} {line}");
        }
    }
    text
}

/// What a trust file says.
fn text(trust: &Trust) -> anyhow::Result<String> {
    let mut text =
        format!("fingerprint {}\ndeployment  {}\n", trust.fingerprint()?, hostile::line(&trust.deployment));
    if let Some(root) = &trust.root {
        let _ = writeln!(text, "root        key {}", hostile::line(root));
    }
    if let Some(registry) = &trust.registry {
        let _ = writeln!(text, "registry    {} key {}", registry.origin, hostile::line(&registry.key));
    }
    if let Some(operator) = &trust.operator {
        let _ = writeln!(text, "operator    {}", hostile::line(operator));
    }
    for witness in &trust.witnesses {
        let (organisation, key) = (hostile::line(&witness.organisation), hostile::line(&witness.key));
        let _ = writeln!(text, "witness     {organisation} key {key}");
        if let Some(url) = &witness.url {
            let _ = writeln!(text, "  asked at    {}", hostile::line(url));
        }
    }
    for authority in &trust.timestamp_authorities {
        let _ = writeln!(text, "timestamps  {}", hostile::line(&authority.name));
        let of = authority.authority();
        for (what, certificates) in [("root", &of.roots), ("below", &of.intermediates)] {
            for der in certificates {
                let _ = writeln!(text, "  {what:<12}certificate {}", schemas::Sha256Hex::of(der));
            }
        }
        if let Some(policy) = &authority.policy {
            let _ = writeln!(text, "  policy      {}", hostile::line(policy));
        }
        for signer in &authority.signers {
            let _ = writeln!(text, "  signer      certificate {signer}");
        }
    }
    for gateway in &trust.gateways {
        let _ = writeln!(
            text,
            "gateway     {} key {}",
            hostile::line(&gateway.name),
            hostile::line(&gateway.key)
        );
        for (name, origin) in [("first log", &gateway.first_origin), ("last log", &gateway.last_origin)] {
            if let Some(origin) = origin {
                let _ = writeln!(text, "  {name:<12}{origin}");
            }
        }
        if let Some(bound) = gateway.heartbeat_bound_s {
            let _ = writeln!(text, "  heartbeat   at least every {bound} s");
        }
        if gateway.closed == Some(true) {
            let _ = writeln!(text, "  out of service");
        }
        if let Some(revoked) = &gateway.revoked {
            let _ = writeln!(text, "  key revoked from size {} of {} on", revoked.size, revoked.origin);
        }
        for closer in &gateway.closers {
            let _ = writeln!(text, "  closer      key {}", hostile::line(closer));
        }
        for log in gateway.logs.iter().flatten() {
            let size = log.size.map(|size| format!(", the key counts up to size {size}")).unwrap_or_default();
            let closed = log.closed.map(|closed| format!(", closed at size {closed}")).unwrap_or_default();
            let _ = writeln!(text, "  only log    {}{size}{closed}", log.origin);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_trust_file_gives_way_only_on_purpose() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let trust = crate::fixture::trust();
        let fingerprint = trust.fingerprint().unwrap().to_string();
        assert!(add(&trust, Some("00"), false, &state).is_err());
        assert_eq!(crate::trust::pinned(&state, "acme").unwrap(), None);
        assert_eq!(add(&trust, Some(&fingerprint), false, &state).unwrap(), 0);
        assert_eq!(add(&trust, None, false, &state).unwrap(), 0);
        let mut other = trust.clone();
        other.gateways[0].key = schemas::trust::key_text(&[9; 32]);
        assert!(add(&other, None, false, &state).is_err());
        assert_eq!(crate::trust::pinned(&state, "acme").unwrap(), Some(trust.clone()));
        let shown = difference(&text(&trust).unwrap(), &text(&other).unwrap());
        assert!(shown.contains(&format!("- gateway     gw1 key {}", trust.gateways[0].key)), "{shown}");
        assert!(shown.contains(&format!("+ gateway     gw1 key {}", other.gateways[0].key)), "{shown}");
        assert_eq!(add(&other, None, true, &state).unwrap(), 0);
        assert_eq!(crate::trust::pinned(&state, "acme").unwrap(), Some(other));
        std::fs::write(dir.path().join("trust-acme.json"), "x").unwrap();
        assert!(crate::trust::pinned(&state, "acme").is_err());
    }
}
