//! A reconciliation for people.

use std::fmt::Write as _;

use super::result::{Facts, KEPT, NARROWER, Reconciliation, State, say};
use crate::render::hostile;
use crate::report::{Interval, Report};
use crate::time;

/// Calls of a sort that are printed; the JSON form names all.
const SHOWN: usize = 20;

/// Says how many calls of a sort are not printed.
fn more(out: &mut String, count: u64) {
    let more = count.saturating_sub(SHOWN as u64);
    if more > 0 {
        let named =
            if count > KEPT as u64 { format!("the first {KEPT} of all: {NARROWER}") } else { "each".into() };
        let _ = writeln!(out, "               and {more} more; `--format json` names {named}");
    }
}

/// Writes it: the verdict's first line, each export, what does not agree.
pub fn text(reconciliation: &Reconciliation, report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", report.first_line());
    let asked = reconciliation.asked;
    let _ = writeln!(out, "  asked {} to {}", time::text(asked.from), time::text(asked.to));
    for facts in &reconciliation.exports {
        export(&mut out, facts, asked);
    }
    for (provider, count) in &reconciliation.not_covered {
        let _ =
            writeln!(out, "  no export tells of {count} exchanges with provider {}", hostile::line(provider));
    }
    out
}

fn export(out: &mut String, facts: &Facts, asked: Interval) {
    let _ = writeln!(out, "  {} {}, SHA-256 {}", facts.export, hostile::line(&facts.file), facts.sha256);
    if !facts.cells.is_empty() {
        let counts: Vec<String> =
            [State::Within, State::Partial, State::Uncertain, State::Differs, State::Unrecorded]
                .into_iter()
                .map(|state| format!("{} {}", facts.count(state), state.as_str()))
                .collect();
        let _ = writeln!(out, "    {} sums: {}", facts.cells.len(), counts.join(", "));
    }
    for cell in facts.cells.iter().filter(|cell| cell.state != State::Within) {
        let _ = writeln!(
            out,
            "    {:<10} {}: provider {}; recorded {}",
            cell.state.as_str(),
            hostile::line(&cell.name()),
            say(&cell.provider),
            cell.recorded()
        );
        if let Some(why) = cell.open(asked) {
            let _ = writeln!(out, "               {why}");
        }
    }
    if let Some(calls) = &facts.calls {
        let _ = writeln!(
            out,
            "    calls: {} found again, {} with other counts, {} in no record, {} in no log, {} without an id",
            calls.matched,
            calls.different_count,
            calls.only_provider_count,
            calls.only_evidence_count,
            calls.without_id
        );
        if calls.elsewhere > 0 {
            let _ = writeln!(
                out,
                "    {} calls are of exchanges that ended outside of the asked interval, or are not booked",
                calls.elsewhere
            );
        }
        for call in calls.only_provider.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "    unrecorded {} at {} {} {}: {}",
                hostile::line(&call.id),
                time::text(call.at),
                hostile::line(call.model.as_deref().unwrap_or("-")),
                hostile::line(call.who.as_deref().unwrap_or("-")),
                say(&call.counts)
            );
        }
        more(out, calls.only_provider_count);
        for call in calls.not_judged.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "    not judged {} at {}: in no record, and {}",
                hostile::line(&call.id),
                time::text(call.at),
                hostile::line(call.why.as_deref().unwrap_or_default())
            );
        }
        more(out, calls.not_judged_count);
        for call in calls.different.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "    differs    {} (exchange {}): provider {}; recorded {}",
                hostile::line(&call.id),
                call.exchange,
                say(&call.provider),
                say(&call.evidence)
            );
        }
        more(out, calls.different_count);
        for call in calls.only_evidence.iter().take(SHOWN) {
            let exchange = call.who.as_deref().unwrap_or("-");
            let _ = writeln!(out, "    not in log {} (exchange {exchange})", hostile::line(&call.id));
        }
        more(out, calls.only_evidence_count);
    }
    if facts.outside > 0 {
        let _ = writeln!(out, "    {} rows outside of the asked interval", facts.outside);
    }
    for (what, count) in &facts.left_out {
        let _ = writeln!(out, "    not compared: {count} {}", hostile::line(what));
    }
    if !facts.keys.is_empty() {
        let keys = facts.keys.iter().cloned().collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(out, "    keys, taken together (`--keys` tells them apart): {}", hostile::line(&keys));
    }
}
