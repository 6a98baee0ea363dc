//! The report as text. The first line is the verdict with the claims reached and not.

use std::fmt::Write as _;

use super::hostile;
use crate::finding::{Effect, Severity};
use crate::report::{GatewayReport, Interval, Report};
use crate::time;

fn interval(interval: &Interval) -> String {
    format!("{} to {}", time::text(interval.from), time::text(interval.to))
}

fn optional(found: Option<&Interval>) -> String {
    found.map_or("nothing".into(), interval)
}

/// Writes the report. Everything from evidence is made harmless.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", report.first_line());
    let _ = writeln!(out, "store       {}", hostile::line(&report.store));
    let _ = writeln!(
        out,
        "trust       deployment `{}`, fingerprint {}",
        report.deployment, report.trust_fingerprint
    );
    let _ = writeln!(out, "checked at  {}", time::text(report.checked_at));
    if let Some(registry) = &report.registry {
        let _ = writeln!(
            out,
            "registry    {} entries, {} keys, {} logs; sealed at {}",
            registry.size,
            registry.keys,
            registry.logs,
            time::text(registry.sealed_at)
        );
        let since = registry.consistent_since.map(|at| format!(", consistent since {}", time::text(at)));
        let _ = writeln!(
            out,
            "            root {}, seal {}{}",
            registry.root,
            registry.seal,
            since.unwrap_or_default()
        );
        let mut anchored = |size: u64, sealed_at: i64, by: String, at: i64| {
            let (sealed_at, at) = (time::text(sealed_at), time::text(at));
            let _ = writeln!(
                out,
                "            size {size} sealed at {sealed_at}: {} at {at}",
                hostile::line(&by)
            );
        };
        for witnessed in &registry.witnessed {
            let by = format!("cosigned by {} ({})", witnessed.organisation, witnessed.witness);
            anchored(witnessed.size, witnessed.sealed_at, by, witnessed.cosigned_at);
        }
        if let Some(stamp) = &registry.timestamped {
            let by = format!("timestamped by {} (policy {})", stamp.authority, stamp.policy);
            anchored(stamp.size, stamp.sealed_at, by, stamp.time);
        }
    }
    for gateway in &report.gateways {
        self::gateway(&mut out, gateway);
    }
    counts(&mut out, report);
    findings(&mut out, report);
    if !report.not_judged.is_empty() {
        let _ = writeln!(out, "\nnot judged (hashed and counted)");
        for (name, count) in &report.not_judged {
            let _ = writeln!(out, "  {}  {count} times", hostile::line(name));
        }
    }
    let _ = writeln!(out, "\nnot checked");
    for line in &report.not_checked {
        let _ = writeln!(out, "  {line}");
    }
    out
}

fn gateway(out: &mut String, gateway: &GatewayReport) {
    let _ = writeln!(
        out,
        "\ngateway {}{}",
        gateway.gateway,
        if gateway.closed { " (out of service)" } else { "" }
    );
    let _ = writeln!(out, "  asked     {}", optional(gateway.asked.as_ref()));
    let _ = writeln!(out, "  proven    {}", optional(gateway.proven.as_ref()));
    for silence in &gateway.declared_silence {
        let length = time::length(silence.to - silence.from);
        let _ = writeln!(out, "  silence   {} ({length}, declared, not proven)", interval(silence));
    }
    if let Some(exposure) = &gateway.exposure {
        let length = time::length(exposure.to - exposure.from);
        let _ = writeln!(
            out,
            "  exposure  {} ({length}): records of this time could be cut off without a trace",
            interval(exposure)
        );
    }
    for log in &gateway.logs {
        let _ = writeln!(out, "  log {}", log.origin);
        for run in &log.proven {
            let _ = writeln!(out, "    proven  {}", interval(run));
        }
        if log.is_empty() {
            let _ = writeln!(out, "    nothing proven");
            continue;
        }
        let cached = if log.batches_from_cache > 0 {
            format!(" ({} proven earlier)", log.batches_from_cache)
        } else {
            String::new()
        };
        let end = match &log.closed {
            Some(reason) => {
                let by = log.closer.as_ref().map(|closer| format!(" by the closer {closer}"));
                format!("closed ({reason}{})", by.unwrap_or_default())
            }
            None => format!("open, {} exchanges without an outcome yet", log.open_exchanges),
        };
        let _ = writeln!(out, "    {} records in {} batches{cached}, {end}", log.size, log.batches);
        let _ = writeln!(out, "    root {} at size {}, seal {}", log.root, log.size, log.seal);
    }
}

fn counts(out: &mut String, report: &Report) {
    let (counts, tally) = (&report.counts, &report.tally);
    let _ = writeln!(out, "\ncounts");
    let _ = writeln!(
        out,
        "  {} objects, {} bytes listed; {} seals checked; {} leaves and {} bytes hashed; {} batches proven, {} expired",
        counts.objects,
        counts.bytes,
        counts.seals,
        counts.leaves,
        counts.bytes_hashed,
        counts.batches,
        counts.expired
    );
    let list = |of: &std::collections::BTreeMap<String, u64>| {
        of.iter()
            .map(|(name, count)| format!("{count} {}", hostile::line(name)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(bucket) = &report.bucket {
        for line in bucket.lines() {
            let _ = writeln!(out, "  {}", hostile::line(&line));
        }
    }
    let _ = writeln!(out, "  records: {}", list(&tally.kinds));
    if !tally.ends.is_empty() {
        let _ = writeln!(out, "  outcomes: {}; usage: {}", list(&tally.ends), list(&tally.usage_sources));
    }
    let mut costs: Vec<_> =
        tally.cost.iter().map(|(currency, sum)| format!("{sum} {}", hostile::line(currency))).collect();
    if !costs.is_empty() || tally.unpriced > 0 {
        if tally.beyond.costs > 0 {
            costs.push(format!("{} costs in other currencies", tally.beyond.costs));
        }
        let _ = writeln!(
            out,
            "  cost: {}; {} outcomes with usage have no price, {} have unknown usage; {} costs computed again",
            if costs.is_empty() { "none".into() } else { costs.join(", ") },
            tally.unpriced - tally.no_usage,
            tally.no_usage,
            tally.recomputed
        );
    }
    let _ = writeln!(
        out,
        "  content: {} parts, {} kept, {} proven, {} not opened, {} erased",
        tally.parts, tally.parts_kept, tally.parts_proven, tally.parts_unopened, tally.parts_erased
    );
    let refused = tally.refused;
    if refused + tally.would_deny + tally.fail_open > 0 {
        let _ = writeln!(
            out,
            "  {refused} refused; {} would have been refused; {} on routes with fail_mode open",
            tally.would_deny, tally.fail_open
        );
    }
}

fn findings(out: &mut String, report: &Report) {
    let all = &report.findings;
    if all.is_empty() {
        let _ = writeln!(out, "\nno findings");
        return;
    }
    let _ = writeln!(out, "\nfindings");
    for finding in all.iter() {
        let severity = match finding.severity {
            Severity::Info => "info",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "CRITICAL",
            Severity::Unjudged => "NOT JUDGED",
        };
        let effect = if finding.effect == Effect::Note { " (note)" } else { "" };
        let _ = writeln!(
            out,
            "  {severity} {}{effect}  {}",
            finding.code,
            hostile::line(&finding.place.to_string())
        );
        let _ = writeln!(out, "    expected  {}", hostile::line(&finding.expected));
        let _ = writeln!(out, "    found     {}", hostile::line(&finding.found));
        let _ = writeln!(out, "    hint      {}", finding.hint);
    }
    if all.omitted() > 0 {
        let _ = writeln!(out, "  and {} more of the same codes", all.omitted());
    }
}
