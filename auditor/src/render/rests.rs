//! What an answer rests on: verdict, interval, logs, roots, registers, and what was not judged.

use std::collections::BTreeMap;
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
            let _ = match log.is_empty() {
                true => writeln!(out, "log       {} nothing proven", log.origin),
                false => writeln!(out, "log       {} size {} root {}", log.origin, log.size, log.root),
            };
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
    out.push_str(&unjudged(&report.not_judged));
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

/// A line for each thing that this version does not know, and that the answer may depend on.
pub fn unjudged(not_judged: &BTreeMap<String, u64>) -> String {
    let line = |(name, count): (&String, &u64)| {
        let name = hostile::line(name);
        format!("unjudged  {name}, {count} times: rows that hold it may mean more than this answer says\n")
    };
    not_judged.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use schemas::Sha256Hex;

    use super::*;
    use crate::finding::{Code, Place};
    use crate::fixture::{START, small, trust};
    use crate::mandate::Mandate;
    use crate::time::SECOND;
    use crate::verify::{NoSink, Options, run};

    #[test]
    fn an_answer_says_what_it_rests_on_and_what_it_leaves_open() {
        let (writer, trust, mandate) = (small(), trust(), Mandate::default());
        let options = Options::new(&trust, &mandate, START + 20 * SECOND);
        let (mut report, _) = run(&writer.store, &options, &mut NoSink);
        report.findings.add(Code::LeafMismatch, Place::default(), "", "");
        report.findings.add(Code::BenignRetry, Place::default(), "", "");
        report.not_judged.insert("kind \u{1b}[31mred".into(), 3);
        report.settle();
        let folder = tempfile::tempdir().unwrap();
        let owners = folder.path().join("owners.csv");
        std::fs::write(&owners, "team,owner\n").unwrap();
        let (sha256, owners) = (Sha256Hex::of(b"team,owner\n"), owners.display().to_string());
        let copies = tempfile::tempdir().unwrap();
        let register = Register::parse(&format!("owners={owners}"), copies.path()).unwrap();
        let text = text(&report, &[register], Some("SELECT 1"));
        let log = report.logs().next().unwrap();
        for wanted in [
            "-- this answer rests on\nverdict   INVALID ".to_owned(),
            format!("log       {} size {} root {}\n", log.origin, log.size, log.root),
            format!("gateway   gw1: asked {} to ", time::text(START)),
            format!("table     owners = {owners} (yours, not evidence), SHA-256 {sha256}\n"),
            "finding   LEAF_MISMATCH: 1; ".to_owned(),
            "3 times: rows that hold it may mean more than this answer says\n".to_owned(),
            format!("question  SHA-256 {}\n", Sha256Hex::of(b"SELECT 1")),
            format!("trust file {}\n", report.trust_fingerprint),
        ] {
            assert!(text.contains(&wanted), "{wanted} not in\n{text}");
        }
        assert!(!text.contains("BENIGN_RETRY") && !text.contains('\u{1b}'), "{text}");
    }
}
