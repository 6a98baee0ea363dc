//! A reperformance as text for people, JSON, and CSV with a line for each exchange.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::result::{Difference, LISTED, Reperformed, Sums};
use crate::render::{hostile, json};
use crate::report::Report;
use crate::time;

/// Exchanges that the text names of a group.
const NAMED: usize = 10;

fn summary(found: &Reperformed) -> String {
    let evaluated: u64 = found.evaluated.values().sum();
    let not_judged: u64 = found.not_judged.values().sum();
    format!(
        "{evaluated} verdicts evaluated again: {} as before, {} differ, {not_judged} not judged",
        found.same, found.different
    )
}

fn costs(sums: &Sums) -> String {
    let mut told: Vec<String> =
        sums.cost.iter().map(|(currency, cost)| format!("{cost} {}", hostile::line(currency))).collect();
    if sums.without_cost > 0 {
        told.push(format!("{} without a cost", sums.without_cost));
    }
    told.join(", ")
}

/// As text.
pub fn text(found: &Reperformed) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", summary(found));
    for (policy, count) in &found.evaluated {
        let from = if found.policy.is_some() { "given, not evidence" } else { "from the evidence" };
        let _ = writeln!(out, "policy      {policy} ({from}): {count} verdicts");
    }
    for (count, what) in [
        (found.without_policy, "sent while no policy was in force"),
        (found.refused_otherwise, "refused before the policy was asked, or for another reason"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "left out    {count} exchanges: {what}");
        }
    }
    for (why, count) in &found.not_judged {
        let _ = writeln!(out, "not judged  {count} verdicts: {}", hostile::line(why));
    }
    let mut ids = std::collections::BTreeMap::<_, Vec<&Difference>>::new();
    for difference in &found.differences {
        let Difference { change, team, model, rule, .. } = difference;
        let of = ids.entry((*change, team, model, rule)).or_default();
        if of.len() < NAMED {
            of.push(difference);
        }
    }
    for (group, sums) in &found.groups {
        let (change, team, model, rule) = group;
        let name = |name: &Option<String>| hostile::line(name.as_deref().unwrap_or("-")).into_owned();
        let _ = writeln!(
            out,
            "\n{}  team {}, model {}, rule {}: {} exchanges, {}",
            change.as_str(),
            name(team),
            name(model),
            name(rule),
            sums.exchanges,
            costs(sums)
        );
        let listed = ids.get(&(*change, team, model, rule)).map(Vec::as_slice).unwrap_or_default();
        for difference in listed {
            let id = difference.exchange.as_deref().unwrap_or("-");
            let attempt = match difference.attempt {
                0 => String::new(),
                number => format!("  attempt {number}"),
            };
            let place = format!("{} position {}{attempt}", difference.origin, difference.position);
            let _ = writeln!(out, "  {id}  {}  {place}", time::text(difference.at));
            let _ = writeln!(out, "    recorded  {}", hostile::line(&difference.recorded));
            let _ = writeln!(out, "    again     {}", hostile::line(&difference.again));
        }
        let more = sums.exchanges.saturating_sub(listed.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more: `--format json` or `csv` lists them");
        }
    }
    out
}

/// As JSON.
///
/// # Errors
/// None in practice.
pub fn json_text(found: &Reperformed, report: &Report) -> serde_json::Result<String> {
    let groups: Vec<Value> = found
        .groups
        .iter()
        .map(|((change, team, model, rule), sums)| {
            json!({ "change": change, "team": team, "model": model, "rule": rule, "exchanges": sums.exchanges,
                "without_cost": sums.without_cost, "cost": sums.cost })
        })
        .collect();
    let value = json!({
        "verdict": report.verdict, "trust_fingerprint": report.trust_fingerprint, "policy": found.policy,
        "evaluated": found.evaluated.iter().map(|(policy, count)| (policy.to_string(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
        "same": found.same, "different": found.different, "without_policy": found.without_policy,
        "refused_otherwise": found.refused_otherwise, "not_judged": found.not_judged, "groups": groups,
        "exit_code": found.exit_code(report.verdict),
        "exchanges": found.differences, "not_listed": not_listed(found),
    });
    serde_json::to_string_pretty(&value).map(|text| json::harmless(&text) + "\n")
}

/// Exchanges beyond those that are listed.
pub fn not_listed(found: &Reperformed) -> u64 {
    found.different.saturating_sub(LISTED as u64)
}

/// As CSV: a line for each exchange or attempt that differs.
///
/// # Errors
/// None in practice.
pub fn csv_text(found: &Reperformed) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "change", "exchange", "origin", "position", "at", "team", "model", "rule", "recorded", "again",
        "currency", "cost", "attempt",
    ])?;
    for row in &found.differences {
        let (position, at) = (row.position.to_string(), time::text(row.at));
        let cost = row.cost.map(|cost| cost.to_string()).unwrap_or_default();
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        let cells = [
            row.change.as_str().to_owned(),
            or_none(&row.exchange),
            row.origin.clone(),
            position,
            at,
            or_none(&row.team),
            or_none(&row.model),
            or_none(&row.rule),
            row.recorded.clone(),
            row.again.clone(),
            or_none(&row.currency),
            cost,
            row.attempt.to_string(),
        ];
        writer.write_record(cells.iter().map(|cell| hostile::cell(cell).into_owned()))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
