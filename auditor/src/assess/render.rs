//! An assessment as text for people, JSON, and CSV with a line for each control.

use std::fmt::Write as _;

use super::pack::Read;
use super::result::{Assessment, ControlResult, PackResult, Status};
use crate::render::{hostile, json};
use crate::time;

/// Exceptions that the text shows of a control.
const ROWS: usize = 10;

/// As text.
pub fn text(assessment: &Assessment) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", assessment.summary());
    let cut = assessment.asked_to.map_or(String::new(), |asked| {
        format!(
            " (asked to {}: cut at the time of the assessment, what comes later is not settled)",
            time::text(asked)
        )
    });
    let _ = writeln!(
        out,
        "period      {} to {}{cut}",
        time::text(assessment.period.from),
        time::text(assessment.period.to)
    );
    for pack in &assessment.packs {
        of_pack(&mut out, pack);
    }
    let _ = writeln!(out, "\n-- these answers rest on");
    let _ = writeln!(out, "verdict     {}", hostile::line(&assessment.first_line));
    let _ = writeln!(out, "store       {}", hostile::line(&assessment.store));
    for head in assessment.logs.iter().chain(&assessment.registry) {
        let _ = writeln!(
            out,
            "log         {} size {} root {} seal {}",
            head.origin, head.size, head.root, head.seal
        );
    }
    for register in &assessment.registers {
        let _ = writeln!(
            out,
            "register    {} = {} ({} rows, yours, not evidence), SHA-256 {}",
            register.name,
            hostile::line(&register.file.to_string_lossy()),
            register.rows,
            register.sha256
        );
    }
    for pack in &assessment.packs {
        let _ = writeln!(
            out,
            "pack        {} ({}), SHA-256 {}",
            pack.name,
            hostile::line(&pack.from),
            pack.sha256
        );
        for (name, value) in &pack.settings {
            let _ = writeln!(out, "            {name} = {}", hostile::line(value));
        }
    }
    for (code, count) in &assessment.findings {
        let _ = writeln!(out, "finding     {code}: {count}; run `auditor verify` for places");
    }
    for what in &assessment.not_checked {
        let _ = writeln!(out, "not checked {}", hostile::line(what));
    }
    for (what, count) in &assessment.not_judged {
        let _ = writeln!(out, "unjudged    {}, {count} times", hostile::line(what));
    }
    let _ = writeln!(
        out,
        "by          auditor {}, trust file {}",
        assessment.auditor, assessment.trust_fingerprint
    );
    out
}

fn of_pack(out: &mut String, pack: &PackResult) {
    let _ = writeln!(out, "\n== {}: {}", pack.name, hostile::line(&pack.title));
    paragraph(out, "", &pack.about);
    for control in &pack.controls {
        of_control(out, control);
    }
    if !pack.cannot_show.is_empty() {
        let _ = writeln!(out, "\n  this evidence cannot show");
        for entry in &pack.cannot_show {
            paragraph(out, "    ", &format!("{}: {}", entry.article, entry.why));
        }
    }
}

fn of_control(out: &mut String, control: &ControlResult) {
    let _ = writeln!(
        out,
        "\n  [{}] {}: {}",
        control.status.as_str(),
        hostile::line(&control.id),
        hostile::line(&control.title)
    );
    let rule = &control.rule;
    let read = match rule.read {
        Read::Primary => "text read",
        Read::Secondary => "text not read: look at it before it is quoted",
    };
    paragraph(out, "    rule        ", &format!("{}, {} ({read}, {})", rule.source, rule.article, rule.on));
    paragraph(out, "    asks        ", &control.asks);
    if let Some(why) = &control.why {
        paragraph(out, "    why         ", why);
    }
    let looked =
        control.population.map_or("nothing was counted".into(), |count| format!("{count} looked at"));
    let _ = writeln!(out, "    found       {looked}, {} exceptions", control.exceptions);
    let shown = &control.shown;
    for row in shown.rows.iter().take(ROWS) {
        let cells: Vec<String> = shown
            .columns
            .iter()
            .zip(row)
            .filter_map(|(name, cell)| {
                Some(format!("{}={}", hostile::line(name), hostile::line(cell.as_ref()?)))
            })
            .collect();
        let _ = writeln!(out, "                {}", cells.join(" "));
    }
    if control.exceptions > ROWS.min(shown.rows.len()) as u64 {
        let more = control.exceptions - ROWS.min(shown.rows.len()) as u64;
        let _ = writeln!(out, "                and {more} more: `--exceptions FILE` writes all");
    }
    paragraph(out, "    rests on    ", &control.rests);
    let words = match control.status {
        Status::Met => ("    supports    ", &control.supports),
        Status::Stated => ("    you state   ", &control.supports),
        _ => ("    would show  ", &control.supports),
    };
    paragraph(out, words.0, words.1);
    paragraph(out, "    leaves open ", &control.leaves_open);
}

/// Words in lines of at most 120 columns.
fn paragraph(out: &mut String, head: &str, words: &str) {
    let indent = " ".repeat(head.len());
    let mut line = head.to_owned();
    for word in hostile::line(&words.split_whitespace().collect::<Vec<_>>().join(" ")).split(' ') {
        if line.len() > head.len() && line.len() + 1 + word.len() > 120 {
            let _ = writeln!(out, "{}", line.trim_end());
            line.clone_from(&indent);
        }
        if line.len() > head.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// As JSON.
///
/// # Errors
/// None in practice.
pub fn json_text(assessment: &Assessment) -> serde_json::Result<String> {
    serde_json::to_string_pretty(assessment).map(|text| json::harmless(&text) + "\n")
}

/// As CSV: a line for each control.
///
/// # Errors
/// None in practice.
pub fn csv_text(assessment: &Assessment) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "pack",
        "pack_sha256",
        "control",
        "title",
        "source",
        "article",
        "read",
        "status",
        "why",
        "population",
        "exceptions",
        "exchanges",
        "supports",
        "leaves_open",
        "rests",
        "verdict",
    ])?;
    for (pack, control) in assessment.controls() {
        let read = match control.rule.read {
            Read::Primary => "primary",
            Read::Secondary => "secondary",
        };
        let (sha256, exchanges) = (pack.sha256.to_string(), control.shown.exchanges.join(" "));
        let (population, exceptions) = (
            control.population.map(|count| count.to_string()).unwrap_or_default(),
            control.exceptions.to_string(),
        );
        let cells = [
            &pack.name,
            sha256.as_str(),
            &control.id,
            &control.title,
            &control.rule.source,
            &control.rule.article,
            read,
            control.status.as_str(),
            control.why.as_deref().unwrap_or_default(),
            &population,
            &exceptions,
            &exchanges,
            &control.supports,
            &control.leaves_open,
            &control.rests,
            assessment.verdict.as_str(),
        ];
        let clean =
            |text: &&str| hostile::cell(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
        writer.write_record(cells.iter().map(clean))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
