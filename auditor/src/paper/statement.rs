//! The short form of a report: a signed note of verdict, claims and ends of the logs.
//!
//! ```text
//! affidavit-statement v1
//! deployment acme
//! store directory /evidence
//! trust <fingerprint>
//! checked 2026-10-02T09:00:00Z
//! verdict VERIFIED
//! claim signed reached: signed
//! gateway gw1 proven 2026-07-01T00:00:00Z 2026-09-30T23:59:59Z
//! log acme/gw1/20260701t000000z-00000001 size 7 root <root> seal <SHA-256>
//! finding TAIL_UNPROVEN 1
//!
//! — affidavit-auditor <signature>
//! ```

use std::fmt::Write as _;

use schemas::note::{self, NoteError};

use super::key::ReportKey;
use crate::render::hostile;
use crate::report::Report;
use crate::time;

/// The first line.
pub const HEAD: &str = "affidavit-statement v1";

/// What is signed.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{HEAD}\ndeployment {}", hostile::line(&report.deployment));
    let _ = writeln!(out, "store {}", hostile::line(&report.store));
    let _ = writeln!(out, "trust {}", report.trust_fingerprint);
    let _ = writeln!(out, "checked {}", time::text(report.checked_at));
    let _ = writeln!(out, "verdict {}", report.verdict.as_str());
    for claim in &report.claims {
        let reached = if claim.reached { "reached" } else { "not reached" };
        let _ = writeln!(out, "claim {} {reached}: {}", claim.claim.as_str(), hostile::line(&claim.text));
    }
    for gateway in &report.gateways {
        let proven = gateway.proven.map_or("nothing".into(), |proven| {
            format!("{} {}", time::text(proven.from), time::text(proven.to))
        });
        let _ = writeln!(out, "gateway {} proven {proven}", hostile::line(&gateway.gateway));
        for log in &gateway.logs {
            let _ = writeln!(out, "log {} size {} root {} seal {}", log.origin, log.size, log.root, log.seal);
        }
    }
    for (code, count) in report.findings.counts() {
        let _ = writeln!(out, "finding {code} {count}");
    }
    out
}

/// Signs it.
///
/// # Errors
/// More logs than a note has room for.
pub fn sign(report: &Report, key: &ReportKey) -> Result<Vec<u8>, NoteError> {
    note::sign(&text(report), &[(key.verifier.name(), &key.signer)])
}
