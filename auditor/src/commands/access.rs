//! `auditor access`: who was shown content, when, and why.

use std::fmt::Write as _;

use super::evidence::default_state;
use super::out;
use crate::access::Ledger;
use crate::cli::{AccessCommand, ReportFormat};
use crate::render::hostile;
use crate::state::State;
use crate::time;

/// Runs the command.
///
/// # Errors
/// A state folder or ledger that cannot be read.
pub fn run(command: &AccessCommand) -> anyhow::Result<u8> {
    let open = |folder: &Option<std::path::PathBuf>| -> anyhow::Result<State> {
        Ok(State::open(&folder.clone().map_or_else(default_state, Ok)?)?)
    };
    match command {
        AccessCommand::List { format, state } => list(&open(state)?, *format),
        AccessCommand::Check { state } => check(&open(state)?),
    }
}

fn list(state: &State, format: ReportFormat) -> anyhow::Result<u8> {
    let mut text = String::new();
    for (number, entry) in Ledger::new(state).entries()?.iter().enumerate() {
        if format == ReportFormat::Json {
            text += &crate::render::json::harmless(&serde_json::to_string(entry)?);
            text.push('\n');
            continue;
        }
        let count = |what: &str, count: Option<u64>| count.map_or(String::new(), |n| format!(", {n} {what}"));
        let by = if entry.reader == entry.user {
            entry.user.clone()
        } else {
            format!("{} (as {})", entry.reader, entry.user)
        };
        let counts = [
            count("exchanges", entry.exchange_count),
            count("parts", entry.parts),
            count("bytes", entry.bytes),
            count("rows", entry.rows),
        ];
        let question = entry.question.map_or(String::new(), |hash| format!(", question {hash}"));
        let of = entry.of.map_or(String::new(), |of| format!(", of {of}"));
        let line = format!(
            "{number}  {}  {by}  {} {}{}{question}{of}  {}",
            time::text(entry.at),
            entry.command,
            entry.store,
            counts.concat(),
            entry.reason
        );
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", hostile::line(&line));
        for exchange in &entry.exchanges {
            let _ = writeln!(text, "     {exchange}");
        }
    }
    out(&text)?;
    Ok(0)
}

fn check(state: &State) -> anyhow::Result<u8> {
    let ledger = Ledger::new(state);
    match ledger.entries().and_then(|entries| Ok((entries.len(), ledger.last()?))) {
        Ok((count, last)) => {
            let last = last.map_or(String::new(), |hash| format!(", last line {hash}"));
            out(&format!("HOLDS {count} entries{last}\n"))?;
            Ok(0)
        }
        Err(error) => {
            out(&format!("DOES NOT HOLD {}\n", hostile::line(&format!("{error:#}"))))?;
            Ok(1)
        }
    }
}
