//! What stands at the top: what was proven, what was not, and what to ask the operator next.

use super::data::{Became, ClaimLine, ControlLine, Data};
use super::html::{count, number, time};

/// Lines of each list; what is beyond is told by its number.
const MOST: usize = 14;

/// The three lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// What the evidence supports.
    pub proven: Vec<String>,
    /// What it does not support, or was not looked at.
    pub open: Vec<String>,
    /// What to ask the operator.
    pub ask: Vec<String>,
}

/// A verdict in a sentence.
pub fn verdict(verdict: &str) -> &'static str {
    match verdict {
        "VERIFIED" => {
            "All checks that were made hold: over the whole asked time the records are signed, unchanged and without a hole."
        }
        "COULD-NOT-JUDGE" => {
            "A check could not be made. Nothing that was looked at contradicts the evidence, and that is not a pass."
        }
        "POLICY" => "The records hold together, and something that was required of them is not there.",
        "INCOMPLETE" => {
            "Evidence is missing for part of the asked time. What is there is told from proven records only."
        }
        "DIVERGED" => "The evidence contradicts what was seen elsewhere or earlier.",
        _ => {
            "Evidence was changed, or is not signed by a key that counts. What is told comes from proven records only."
        }
    }
}

/// A claim: what it means where it is reached, where it is not, and what to ask then.
fn claim(line: &ClaimLine) -> (&'static str, &'static str, &'static str) {
    match line.claim.as_str() {
        "signed" => (
            "Records are signed by keys that the trust file names, in unbroken chains: none was changed, moved or taken out of a \
             log after it was sealed.",
            "Not everything is signed throughout by a key that counts: the findings say where.",
            "Where do the objects come from that are not signed, or were changed? Is there another copy?",
        ),
        "append_only" => append_only(&line.text),
        "content" => (
            "The texts of requests and answers that were kept are what the records commit to.",
            "Whether the texts of requests and answers are what the records commit to: they were not opened.",
            "May the texts be opened for this review (the key table), at least for a sample?",
        ),
        "witnessed" => (
            "Outside organisations countersigned the registry of logs, so another history cannot be shown to somebody else.",
            "That nobody made another history for this review: no outside organisation countersigned.",
            "Which outside organisations countersign the registry, and where are their notes?",
        ),
        "timestamped" => (
            "A timestamp authority bounds when records were written.",
            "When records were really written: the times are those of the gateway's own clock.",
            "Is there a timestamp authority that stamps the registry?",
        ),
        "retention_enforced" => (
            "The store locks every object against deletion, and a probe found that it keeps to its locks.",
            "That nobody could delete evidence: no store was found that enforces retention.",
            "Who can delete in the store, and is there a copy under Object Lock?",
        ),
        "reconciled" => (
            "Counts agree with what the providers bill.",
            "That all use of models went through the gateway: the counts were not held against the providers' own.",
            "Can the providers' usage exports for this period be had, to hold the records against them?",
        ),
        _ => (
            "A claim that this version does not know is reached.",
            "A claim that this version does not know is not reached.",
            "Which auditor knows this claim?",
        ),
    }
}

/// What is open of the history before this visit, as the verification says why.
fn append_only(text: &str) -> (&'static str, &'static str, &'static str) {
    let reached = "Nothing that was seen earlier was changed or taken away since.";
    let (not, ask) = if text.starts_with("NOT append-only") {
        (
            "That history was not rewritten since the last visit: what was seen then was not borne out throughout.",
            "What became of the logs that the last visit saw, and that are not, or not all, in this store?",
        )
    } else if text.starts_with("NOT compared") {
        (
            "That history was not rewritten since the last visit: what was seen then, or some of the logs now, could not be read.",
            "Is there another copy of what the last visit saw (auditor state export)?",
        )
    } else {
        (
            "That history was not rewritten before this visit: there is no earlier look to compare with.",
            "Who has verified this store before, and can hand over what they saw (auditor state export)?",
        )
    };
    (reached, not, ask)
}

/// Summarises.
pub fn summary(data: &Data) -> Summary {
    let mut out = Summary::default();
    covered(data, &mut out);
    for line in &data.claims {
        let (reached, not, ask) = claim(line);
        if line.reached {
            out.proven.push(reached.to_owned());
        } else {
            out.open.push(not.to_owned());
            out.ask.push(ask.to_owned());
        }
    }
    findings(data, &mut out);
    costs(data, &mut out);
    controls(data, &mut out);
    for list in [&mut out.proven, &mut out.open, &mut out.ask] {
        if list.len() > MOST {
            let more = list.len() - MOST;
            list.truncate(MOST);
            list.push(format!("And {more} more: see the sections below."));
        }
    }
    out.open.push(
        "Records cannot show whether answers were right, who sat at the keyboard, or what never reached the gateway."
            .to_owned(),
    );
    out
}

fn covered(data: &Data, out: &mut Summary) {
    let looked = &data.looked;
    let logs: usize = data.gateways.iter().map(|gateway| gateway.logs.len()).sum();
    if looked.batches > 0 {
        out.proven.push(format!(
            "{} in {} of {}: each one hashed and found under a seal of its log.",
            count(looked.records, "record", "records"),
            count(looked.batches, "batch", "batches"),
            count(logs as u64, "log", "logs"),
        ));
    }
    for gateway in &data.gateways {
        match gateway.proven {
            Some(proven) => {
                let (from, to) = (time(proven.from), time(proven.to));
                out.proven.push(format!("Gateway {}: records from {from} to {to}.", gateway.gateway));
            }
            None => out.open.push(format!("Gateway {}: nothing was proven.", gateway.gateway)),
        }
        if let Some(from) = gateway.exposed_from.filter(|_| !gateway.closed) {
            out.open.push(format!(
                "Gateway {}: records after {} could be cut off without a trace.",
                gateway.gateway,
                time(from)
            ));
        }
        if !gateway.silences.is_empty() {
            out.ask.push(format!(
                "Why did gateway {} stand still {}, and where did its traffic go?",
                gateway.gateway,
                if gateway.silences.len() == 1 {
                    "once".into()
                } else {
                    format!("{} times", gateway.silences.len())
                }
            ));
        }
        let open: u64 = gateway.logs.iter().map(|log| log.open_exchanges).sum();
        if open > 0 {
            out.open.push(format!(
                "Gateway {}: how {} ended is not recorded.",
                gateway.gateway,
                count(open, "exchange", "exchanges")
            ));
        }
    }
}

fn findings(data: &Data, out: &mut Summary) {
    let mut told: Vec<&str> = Vec::new();
    for finding in data.findings.iter().filter(|finding| !finding.note) {
        if told.contains(&finding.code.as_str()) {
            continue;
        }
        told.push(&finding.code);
        let times = data.finding_counts.get(&finding.code).copied().unwrap_or(1);
        let times = count(times, "time", "times");
        // What is not as it should be comes first.
        out.open.insert(
            told.len() - 1,
            format!("Finding {} ({times}), first at {}.", finding.code, finding.place),
        );
        out.ask.insert(told.len() - 1, format!("{} ({times}): {}.", finding.code, finding.hint));
    }
}

fn costs(data: &Data, out: &mut Summary) {
    for (currency, spent) in &data.measured.spent {
        out.proven.push(format!(
            "Recorded cost in the period: {} {currency} for {}.",
            spent.cost,
            count(spent.exchanges, "exchange", "exchanges")
        ));
    }
    let no_usage = data.measured.no_usage;
    let known = data.measured.unpriced.saturating_sub(no_usage);
    if known > 0 {
        let answers = count(known, "answer", "answers");
        out.open.push(format!("What {answers} with usage cost: the price book has no price for them."));
        out.ask.push(format!("Which prices apply to the {answers} without one?"));
    }
    if no_usage > 0 {
        let answers = count(no_usage, "answer", "answers");
        out.open.push(format!("What {answers} with unknown usage cost: nobody told what they used."));
    }
}

fn controls(data: &Data, out: &mut Summary) {
    let names = |became: Became| -> Vec<&ControlLine> {
        data.controls().filter(|(_, control)| control.became == became).map(|(_, control)| control).collect()
    };
    let list = |controls: &[&ControlLine]| {
        let ids: Vec<&str> = controls.iter().map(|control| control.id.as_str()).collect();
        ids.join(", ")
    };
    let (met, exceptions, unjudged) =
        (names(Became::Met), names(Became::Exceptions), names(Became::NotJudged));
    if !met.is_empty() {
        out.proven.push(format!(
            "{} with something to look at and no exception: {}.",
            count(met.len() as u64, "control", "controls"),
            list(&met)
        ));
    }
    let stated = names(Became::Stated);
    if !stated.is_empty() {
        out.open.push(format!(
            "{} stated by the operator's registers alone, which is no evidence: {}.",
            count(stated.len() as u64, "control", "controls"),
            list(&stated)
        ));
    }
    for control in &exceptions {
        let many = count(control.exceptions, "exception", "exceptions");
        out.open.push(format!("Control {}: {many}.", control.id));
        let verb = if control.exceptions == 1 { "is the exception" } else { "are the exceptions" };
        out.ask.push(format!("How {verb} of {} explained ({})?", control.id, number(control.exceptions)));
    }
    if !unjudged.is_empty() {
        out.open.push(format!(
            "{} not judged: {}.",
            count(unjudged.len() as u64, "control", "controls"),
            list(&unjudged)
        ));
    }
    let mut missing: Vec<(&str, Vec<&str>)> = Vec::new();
    for control in &unjudged {
        let Some(why) = control.why.as_deref() else { continue };
        // The wanted columns stand with the control.
        let why = why.split_once(" (`--register").map_or(why, |(why, _)| why);
        match missing.iter_mut().find(|(known, _)| *known == why) {
            Some((_, ids)) => ids.push(&control.id),
            None => missing.push((why, vec![&control.id])),
        }
    }
    for (why, ids) in missing {
        out.ask.push(format!("To judge {}: {why}.", ids.join(", ")));
    }
}
