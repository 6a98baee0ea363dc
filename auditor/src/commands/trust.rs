//! `auditor trust show`.

use std::fmt::Write as _;

use super::out;
use crate::cli::TrustCommand;
use crate::render::hostile;

/// Runs the command.
///
/// # Errors
/// A file that is no trust file.
pub fn run(command: &TrustCommand) -> anyhow::Result<u8> {
    let TrustCommand::Show { file } = command;
    let trust = crate::trust::read(file, None)?;
    let mut text =
        format!("fingerprint {}\ndeployment  {}\n", trust.fingerprint()?, hostile::line(&trust.deployment));
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
    }
    out(&text)?;
    Ok(0)
}
