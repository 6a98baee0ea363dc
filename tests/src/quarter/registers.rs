//! The operator's registers: in them is what was not planted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::gateway::{CONFIGURATIONS, KEYS};
use super::planted::{Violation, erased_late, never_erased};
use super::traffic::Traffic;
use super::{BEGIN, DAY, DAYS, Plan};
use schemas::Sha256Hex;

/// Who may have data: all of them.
pub(super) const PROVIDERS: [&str; 3] = ["anthropic", "azure", "openai"];
/// The systems that traffic belongs to.
pub(super) const SYSTEMS: [&str; 5] = ["sys-chat", "sys-code", "sys-docs", "sys-hiring", "sys-credit"];
/// What data is processed for.
pub(super) const PURPOSES: [&str; 3] = ["support", "development", "hiring"];
/// Health data goes there, and cardholder data to the other.
pub(super) const HEALTH: &str = "azure";
/// See [`HEALTH`].
pub(super) const CARDS: &str = "anthropic";

/// How many days content of the class `short` may be kept.
pub(super) const SHORT_DAYS: i64 = 30;

/// Writes them.
pub(super) fn write(
    folder: &Path,
    plan: Plan,
    traffic: &Traffic,
    done: &BTreeMap<Violation, BTreeSet<String>>,
) -> Vec<(String, PathBuf)> {
    let planted = plan.each > 0;
    let list = |head: &str, rows: &[&str]| format!("{head}\n{}\n", rows.join("\n"));
    let texts = [
        ("suppliers", list("provider", &PROVIDERS)),
        ("contracts", list("provider", &PROVIDERS)),
        ("baa", list("provider", &[HEALTH])),
        ("tpsp", list("provider", &[CARDS])),
        ("fallbacks", list("provider,tested_at", &["azure,2026-06-01"])),
        ("deactivated", list("provider,model,from_at", &["openai,switched-off,2026-06-01"])),
        ("approvals", approvals()),
        ("changes", changes()),
        ("review", review(planted)),
        ("incidents", "id,gateway,opened_at\ni-1,gw2,2026-08-11T23:00:00Z\n".into()),
        ("sysreg", systems(planted)),
        ("models", models(traffic)),
        ("ropa", pairs("purpose,provider", &PURPOSES, "")),
        ("allowed", allowed()),
        ("erasure_request", requests(done)),
        ("retention_period", format!("retention,days\nstandard,36500\nshort,{SHORT_DAYS}\n")),
    ];
    let write = |(name, text): (&str, String)| {
        let file = folder.join(format!("{name}.csv"));
        std::fs::write(&file, text).expect("a register");
        (name.to_owned(), file)
    };
    texts.into_iter().map(write).collect()
}

fn pairs(head: &str, first: &[&str], more: &str) -> String {
    let mut out = format!("{head}\n");
    for (one, provider) in first.iter().flat_map(|one| PROVIDERS.map(|provider| (one, provider))) {
        let _ = writeln!(out, "{one},{provider}{more}");
    }
    out
}

/// Every key but one was approved, one of them by who issued it, and one has no issuer.
fn approvals() -> String {
    let mut out =
        String::from("object,approver,approved_at\nk-self,ANN,2026-06-01\nk-nobody,bob,2026-06-01\n");
    for key in KEYS {
        let _ = writeln!(out, "{key},bob,2026-06-01");
    }
    out
}

/// The last configuration is one that nobody approved.
fn changes() -> String {
    let mut out = String::from("config,author,approver,approved_at\n");
    for text in CONFIGURATIONS.split_last().map(|(_, rest)| rest).into_iter().flatten() {
        let _ = writeln!(out, "{},ann,bob,2026-06-01", Sha256Hex::of(text.as_bytes()));
    }
    out
}

/// A review of each day, but for August where something is planted. One system is then looked at in September only.
fn review(planted: bool) -> String {
    let mut out = String::from("system,reviewed_at,reviewer\n");
    for day in 0..DAYS {
        let date = date(day);
        if planted && date.starts_with("2026-08") {
            continue;
        }
        let _ = writeln!(out, "sys-hiring,{date},carol");
        if !planted || date.starts_with("2026-09") {
            let _ = writeln!(out, "sys-credit,{date},carol");
        }
    }
    out
}

fn date(day: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(BEGIN + day * DAY).expect("a time of this age");
    at.strftime("%Y-%m-%d").to_string()
}

fn systems(planted: bool) -> String {
    let mut out = String::from("id,high_risk,in_use_from,logging_decision\n");
    for system in ["sys-chat", "sys-code", "sys-docs"] {
        let _ = writeln!(out, "{system},false,2026-01-01,yes");
    }
    out.push_str("sys-hiring,true,2026-08-01,yes\n");
    out.push_str(if planted {
        "sys-credit,true,2025-01-01,yes\nsys-ghost,true,,\n"
    } else {
        "sys-credit,true,2026-08-01,yes\n"
    });
    out
}

fn models(traffic: &Traffic) -> String {
    let mut out = String::from("system,model\n");
    for (system, model) in SYSTEMS.iter().flat_map(|one| traffic.models().into_iter().map(move |m| (one, m)))
    {
        let _ = writeln!(out, "{system},{model}");
    }
    out
}

fn allowed() -> String {
    let classes = ["internal", "phi", "cardholder"];
    let basis = pairs("data_class,provider,basis", &classes, ",adequacy decision");
    let without = pairs("", &["archived"], ",");
    format!("{basis}{}", without.trim_start())
}

fn requests(done: &BTreeMap<Violation, BTreeSet<String>>) -> String {
    let mut out = String::from("exchange,requested_at,refused\n");
    let mut add = |exchange: Option<&String>, rest: &str| {
        if let Some(exchange) = exchange {
            let _ = writeln!(out, "{exchange},{rest}");
        }
    };
    add(never_erased(done).as_ref(), "2026-07-01,");
    add(erased_late(done).as_ref(), "2026-05-01,");
    add(done.get(&Violation::Erased).and_then(|all| all.iter().nth(1)), "2026-09-30,");
    add(done.get(&Violation::KeptTooLong).and_then(|all| all.iter().nth(1)), "2026-07-01,true");
    out
}
