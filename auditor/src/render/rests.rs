//! What an answer rests on: verdict, interval, logs, roots, registers, and what was not judged.

use std::fmt::Write as _;

use super::hostile;
use crate::finding::Effect;
use crate::query::Register;
use crate::report::Report;
use crate::time;

/// Writes it.
pub fn text(report: &Report, registers: &[Register], sql: Option<&str>) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "-- this answer rests on");
    let _ = writeln!(out, "verdict   {}", report.first_line());
    for gateway in &report.gateways {
        let interval = |found: Option<crate::report::Interval>| {
            found.map_or("nothing".into(), |i| format!("{} to {}", time::text(i.from), time::text(i.to)))
        };
        let _ = writeln!(
            out,
            "gateway   {}: asked {}, proven {}",
            gateway.gateway,
            interval(gateway.asked),
            interval(gateway.proven)
        );
        for log in &gateway.logs {
            let _ = writeln!(out, "log       {} size {} root {}", log.origin, log.size, log.root);
        }
    }
    for register in registers {
        let _ = writeln!(
            out,
            "table     {} = {} (yours, not evidence), SHA-256 {}",
            register.name,
            register.file.display(),
            register.sha256
        );
    }
    for (code, count) in report.findings.counts() {
        let effect =
            report.findings.iter().find(|finding| finding.code == *code).map(|finding| finding.effect);
        if effect.is_some_and(|effect| effect != Effect::Note) {
            let _ = writeln!(out, "finding   {code}: {count}; run `auditor verify` for places");
        }
    }
    for (name, count) in &report.not_judged {
        let _ = writeln!(
            out,
            "unjudged  {}, {count} times: rows that hold it may mean more than this answer says",
            hostile::line(name)
        );
    }
    if let Some(sql) = sql {
        let _ = writeln!(out, "question  SHA-256 {}", schemas::Sha256Hex::of(sql.as_bytes()));
    }
    let _ = writeln!(
        out,
        "by        auditor {}, trust file {}",
        env!("CARGO_PKG_VERSION"),
        report.trust_fingerprint
    );
    out
}
