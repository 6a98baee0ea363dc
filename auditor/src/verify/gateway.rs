//! The logs of one gateway together: the chain of epochs, and the proven interval against the asked one (DESIGN 6).

use std::collections::{BTreeMap, BTreeSet};

use schemas::Origin;
use schemas::record::CloseReason;

use super::Options;
use super::fold::{LogFold, intervals};
use crate::finding::{Code, Finding, Findings, Place};
use crate::report::{GatewayReport, Interval, LogReport};
use crate::time;

/// What the trust file says of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) name: String,
    pub(super) first_origin: Option<Origin>,
    pub(super) heartbeat_bound_us: Option<i64>,
    pub(super) closed: bool,
    /// Logs that it lists, and the size at which each was closed. A registry says that itself, and when.
    pub(super) listed: Vec<(Origin, Option<u64>)>,
}

/// How much a sealed heartbeat may be behind its bound: the same slack as between records, and a write.
fn slack(bound_us: i64) -> i64 {
    bound_us / 20 + 5 * time::SECOND
}

/// Judges one gateway. `folds` are its logs.
pub(super) fn judge(
    expected: &Expected,
    mut folds: Vec<&LogFold>,
    options: &Options<'_>,
    findings: &mut Findings,
) -> GatewayReport {
    folds.sort_by_key(|fold| (starts(fold), fold.origin.clone()));
    epochs(expected, &folds, options, findings);
    listed(expected, &folds, options, findings);
    let declared = declared_silence(&folds);
    let asked = asked(expected, &folds, options);
    if let Some(asked) = asked {
        // What the user asked for is exact; a heartbeat may be a little behind the default end.
        let exact = (options.from.is_some(), options.to.is_some());
        coverage(expected, &folds, asked, exact, &declared, findings);
    }
    let ends = folds.iter().filter_map(|fold| fold.proven.last().map(|run| run.1)).max();
    let begins = folds.iter().filter_map(|fold| fold.proven.first().map(|run| run.0)).min();
    GatewayReport {
        gateway: expected.name.clone(),
        asked: asked.map(|(from, to)| Interval { from, to }),
        proven: begins.zip(ends).map(|(from, to)| Interval { from, to }),
        declared_silence: intervals(&declared),
        exposure: match ends {
            Some(end) if !is_out_of_service(expected, &folds) => {
                Some(Interval { from: end, to: options.now.max(end) })
            }
            _ => None,
        },
        closed: expected.closed,
        logs: folds.iter().map(|fold| log_report(fold)).collect(),
    }
}

fn starts(fold: &LogFold) -> i64 {
    fold.story.boot.as_ref().map(|boot| boot.at).or(fold.story.first_at).unwrap_or(i64::MAX)
}

fn log_report(fold: &LogFold) -> LogReport {
    let newest = fold.newest.clone();
    let zero = schemas::Sha256Hex([0; 32]);
    LogReport {
        origin: fold.origin.clone(),
        proven: intervals(&fold.proven),
        batches: fold.counts.batches,
        batches_from_cache: fold.batches_from_cache,
        expired_until: fold.expired_until,
        size: newest.as_ref().map_or(0, |newest| newest.size),
        root: newest.as_ref().map_or(zero, |newest| newest.root),
        seal: newest.as_ref().map_or(zero, |newest| newest.seal),
        sealed_at: newest.as_ref().map_or(0, |newest| newest.time),
        closed: fold.story.close.as_ref().map(|close| reason(close.reason).into()),
        closer: fold.closer.as_ref().map(|closer| closer.key.clone()),
        closer_from: fold.closer.as_ref().map(|closer| closer.from),
        open_exchanges: fold.story.open.len() as u64,
        consistent_since: fold.consistent_since,
        tally: fold.story.tally.clone(),
    }
}

fn reason(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Shutdown => "shutdown",
        CloseReason::Crash => "crash",
        CloseReason::Failed => "failed",
        CloseReason::Salvaged => "salvaged",
    }
}

/// True where nothing can follow any more: out of service by the trust file, and every log closed.
fn is_out_of_service(expected: &Expected, folds: &[&LogFold]) -> bool {
    expected.closed && folds.iter().all(|fold| fold.story.close.is_some())
}

/// Each log but the first names its predecessor, no two name the same, and what they say of it is so.
fn epochs(expected: &Expected, folds: &[&LogFold], options: &Options<'_>, findings: &mut Findings) {
    let by_origin: BTreeMap<&Origin, &LogFold> = folds.iter().map(|fold| (&fold.origin, *fold)).collect();
    let gone =
        |before: i64| options.mandate.retention.is_some_and(|kept| before.saturating_add(kept) < options.now);
    if let Some(first) = &expected.first_origin
        && !by_origin.contains_key(first)
        && !folds.first().is_some_and(|fold| gone(starts(fold)))
    {
        findings.add(
            Code::LogMissing,
            Place::log(first),
            "the gateway's first log, as in the trust file",
            "nothing",
        );
    }
    let mut successors: BTreeMap<&Origin, Vec<&Origin>> = BTreeMap::new();
    let first = expected.first_origin.as_ref().or_else(|| {
        let without =
            |fold: &&&LogFold| fold.story.boot.as_ref().is_some_and(|boot| boot.predecessor.is_none());
        folds.iter().find(without).map(|fold| &fold.origin)
    });
    for fold in folds {
        let place = Place::record(&fold.origin, 0);
        let Some(boot) = &fold.story.boot else { continue };
        let Some(predecessor) = &boot.predecessor else {
            if first.is_some_and(|first| *first != fold.origin) {
                let expected = "a `boot` that names its predecessor: only the gateway's first log has none";
                findings.add(Code::PredecessorMissing, place, expected, "none");
            }
            continue;
        };
        if first == Some(&fold.origin) {
            let found = format!("predecessor {}", predecessor.origin);
            findings.add(
                Code::PredecessorMismatch,
                place.clone(),
                "none: the trust file names this log as the first",
                found,
            );
        }
        let same_gateway = predecessor.origin.gateway() == fold.origin.gateway()
            && predecessor.origin.deployment() == fold.origin.deployment();
        if !same_gateway || predecessor.origin == fold.origin {
            let found = predecessor.origin.to_string();
            findings.add(Code::PredecessorMismatch, place, "another log of the same gateway", found);
            continue;
        }
        successors.entry(&predecessor.origin).or_default().push(&fold.origin);
        let Some(before) = by_origin.get(&predecessor.origin) else {
            let expected =
                format!("the log {}, which {} names as its predecessor", predecessor.origin, fold.origin);
            if gone(boot.at) {
                findings.add(Code::Expired, Place::log(&predecessor.origin), expected, "nothing");
            } else {
                let finding =
                    Finding::new(Code::LogMissing, Place::log(&predecessor.origin), expected, "nothing");
                // One that was not closed yet went on beside its successor: nobody knows until when.
                let closed = predecessor.size.is_some();
                findings.push(if closed { finding.during(i64::MIN, boot.at) } else { finding });
            }
            continue;
        };
        end_of_predecessor(fold, before, predecessor.size, predecessor.root.as_ref(), findings);
    }
    for (origin, named_by) in successors {
        if named_by.len() > 1 {
            let found = named_by.iter().map(|origin| origin.as_str()).collect::<Vec<_>>().join(", ");
            findings.add(Code::PredecessorFork, Place::log(origin), "one successor", found);
        }
    }
    for fold in folds {
        let Some(close) = &fold.story.close else { continue };
        if let Some(successor) = &close.successor
            && !by_origin.contains_key(successor)
        {
            let expected = format!("the log {successor}, which `close` of {} names as the next", fold.origin);
            let finding = Finding::new(Code::LogMissing, Place::log(successor), expected, "nothing");
            // A log that knows the next one has handed over to it: that one began before this one's end.
            findings.push(finding.during(starts(fold), i64::MAX));
        }
    }
}

/// A log that the trust file lists is there, and as long as it was when it was closed.
fn listed(expected: &Expected, folds: &[&LogFold], options: &Options<'_>, findings: &mut Findings) {
    let gone = |at: i64| options.mandate.retention.is_some_and(|kept| at.saturating_add(kept) < options.now);
    for (origin, closed) in &expected.listed {
        let place = Place::log(origin);
        if let Some(fold) = folds.iter().find(|fold| fold.origin == *origin && fold.is_there()) {
            if let Some(size) = closed.filter(|size| fold.next_position < *size) {
                let expected = format!("size {size}, at which the trust file says that it was closed");
                findings.add(Code::BatchMissing, place, expected, format!("size {}", fold.next_position));
            }
            continue;
        }
        let expected = "a log that the trust file lists";
        let mut later = folds.iter().filter(|fold| fold.origin.epoch() > origin.epoch());
        let known = |found: &Finding| found.code == Code::LogMissing && found.place == place;
        if later.any(|fold| gone(starts(fold))) {
            findings.add(Code::Expired, place, expected, "nothing");
        } else if !findings.iter().any(known) {
            findings.add(Code::LogMissing, place, expected, "nothing");
        }
    }
}

fn end_of_predecessor(
    fold: &LogFold,
    before: &LogFold,
    size: Option<u64>,
    root: Option<&schemas::Sha256Hex>,
    findings: &mut Findings,
) {
    let place = Place::record(&fold.origin, 0);
    let (Some(size), Some(newest)) = (size, &before.newest) else { return };
    let expected = format!(
        "{} at size {size}{}",
        before.origin,
        root.map(|root| format!(", root {root}")).unwrap_or_default()
    );
    let found = format!("size {}, root {}", newest.size, newest.root);
    if newest.size < size {
        findings.add(Code::Rollback, Place::log(&before.origin), expected, found);
    } else if newest.size > size || root.is_some_and(|root| *root != newest.root) {
        findings.add(Code::PredecessorMismatch, place, expected, found);
    }
}

/// From `alive_until` of a closed log to the next `boot`.
fn declared_silence(folds: &[&LogFold]) -> Vec<(i64, i64)> {
    let mut out = Vec::new();
    for fold in folds {
        let Some(boot) = &fold.story.boot else { continue };
        let Some(predecessor) = &boot.predecessor else { continue };
        let before = folds.iter().find(|other| other.origin == predecessor.origin);
        if let Some(close) = before.and_then(|before| before.story.close.as_ref())
            && close.alive_until < boot.at
        {
            out.push((close.alive_until, boot.at));
        }
    }
    out.sort_unstable();
    out
}

/// The asked interval: the user's, else from the first log's opening to the auditor's clock less heartbeat bound and
/// batch age, or to the newest proven record while the gateway is younger than that. Where all that is left of a gateway is
/// expired it went on from there, for all that is known.
fn asked(expected: &Expected, folds: &[&LogFold], options: &Options<'_>) -> Option<(i64, i64)> {
    let newest = folds.iter().filter_map(|fold| fold.proven.last().map(|run| run.1)).max();
    let boots: BTreeSet<i64> = folds.iter().map(|fold| starts(fold)).filter(|at| *at != i64::MAX).collect();
    let expired = || folds.iter().filter_map(|fold| fold.expired_until).max();
    let begins = boots.first().copied().or_else(expired);
    let last = folds.iter().rev().find_map(|fold| fold.story.boot.as_ref());
    let bound = expected
        .heartbeat_bound_us
        .or(last.map(|boot| boot.heartbeat_bound_us))
        .unwrap_or(300 * time::SECOND);
    let age = last.map_or(10 * time::SECOND, |boot| boot.batch_age_us);
    let from = options.from.or(begins)?;
    let to = options.to.or_else(|| {
        let settled = options.now.saturating_sub(bound).saturating_sub(age);
        if begins.is_some_and(|begins| begins > settled) {
            newest.or(Some(options.now))
        } else {
            Some(settled)
        }
    })?;
    Some((from, to))
}

/// Whether the proven runs and the declared silences cover the asked interval.
fn coverage(
    expected: &Expected,
    folds: &[&LogFold],
    (from, to): (i64, i64),
    (exact_from, exact_to): (bool, bool),
    declared: &[(i64, i64)],
    findings: &mut Findings,
) {
    let gateway = Place::default().of_item(format!("gateway {}", expected.name));
    if from > to {
        let asked = format!("{} to {}", time::text(from), time::text(to));
        findings.add(Code::PeriodNotProven, gateway, "an interval that ends after it begins", asked);
        return;
    }
    let bound =
        folds.iter().filter_map(|fold| fold.story.boot.as_ref()).map(|boot| boot.heartbeat_bound_us).max();
    let slack = slack(bound.or(expected.heartbeat_bound_us).unwrap_or(300 * time::SECOND));
    let mut runs: Vec<(i64, i64)> =
        folds.iter().flat_map(|fold| fold.proven.iter().copied()).chain(declared.iter().copied()).collect();
    runs.sort_unstable();
    let tails: Vec<&&LogFold> = folds.iter().filter(|fold| fold.story.close.is_none()).collect();
    for fold in &tails {
        // An open log must answer to the end of the asked interval, or be out of service.
        let end = fold.story.last_at.unwrap_or(from);
        if end.saturating_add(if exact_to { 0 } else { slack }) < to && !expected.closed {
            let found = format!("no `close`, and nothing after {}", time::text(end));
            let place = Place::log(&fold.origin);
            let finding =
                Finding::new(Code::TailUnproven, place, format!("records to {}", time::text(to)), found);
            findings.push(finding.during(end, to));
        }
    }
    let mut reached = from;
    for (start, end) in runs {
        let slack = if exact_from && reached == from { 0 } else { slack };
        if start > reached.saturating_add(slack) && start.min(to) > reached {
            hole(&gateway, reached, start.min(to), from, findings);
        }
        reached = reached.max(end);
        if reached >= to {
            return;
        }
    }
    if reached.saturating_add(if exact_to { 0 } else { slack }) >= to || (expected.closed && tails.is_empty())
    {
        return;
    }
    if tails.is_empty() {
        let expected = format!("a next log, or records to {}", time::text(to));
        let found = format!("the last log is closed; nothing after {}", time::text(reached));
        findings.push(Finding::new(Code::TailUnproven, gateway, expected, found).during(reached, to));
    } else if expected.closed {
        let found =
            format!("the trust file says closed; a log has no `close` and ends at {}", time::text(reached));
        findings.push(Finding::new(Code::TailUnproven, gateway, "a `close` record", found).as_note());
    }
}

fn hole(gateway: &Place, start: i64, end: i64, from: i64, findings: &mut Findings) {
    let found = format!("nothing proven from {} to {}", time::text(start), time::text(end));
    let expected = if start == from {
        "the asked interval proven from its start"
    } else {
        "the asked interval proven without a hole"
    };
    findings.push(Finding::new(Code::PeriodNotProven, gateway.clone(), expected, found).during(start, end));
}
