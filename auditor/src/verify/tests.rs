#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;
use crate::fixture::{START, small, trust};
use crate::source::MemorySource;
use crate::time::SECOND;

/// Just after the small store's end: the gateway is younger than its bounds.
const NOW: i64 = START + 20 * SECOND;

fn verify(store: &MemorySource) -> Report {
    let (trust, mandate) = (trust(), Mandate::default());
    run(store, &Options::new(&trust, &mandate, NOW), &mut NoSink).0
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().filter(|f| f.effect != Effect::Note).map(|f| f.code.as_str()).collect()
}

#[test]
fn a_sound_store_is_verified() {
    let report = verify(&small().store);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.counts.leaves, 8);
    assert!(report.first_line().starts_with("VERIFIED signed; no state kept; NOT witnessed; NOT timestamped; retention not enforced by this store"));
}
