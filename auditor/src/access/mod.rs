//! Who was shown content, when, and why: nothing that was said leaves the auditor without a line in its access ledger.
//!
//! A command that hands content to a reader calls [`release`] first, and hands it over only where that succeeded. The
//! ledger is a file of the auditor's own state: one JSON line an entry, each with the SHA-256 of the line before and a MAC by
//! the state's key; how many there are stands beside it from the making of the state on, so that lines cut off at the end, or all, are seen too.

mod ledger;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use schemas::{ExchangeId, Sha256Hex};

pub(crate) use ledger::begin;
pub use ledger::{Entry, Ledger};

use crate::state::State;
use crate::time;

/// The longest reason, in characters.
const REASON_CHARACTERS: usize = 500;
/// The longest name of a reader.
const READER_CHARACTERS: usize = 100;
/// How many exchanges an entry names; of more it says how many there were.
const EXCHANGES_NAMED: usize = 1000;

/// Why somebody reads content, and who.
#[derive(Debug, Clone, Default, Args)]
pub struct Why {
    /// Why content is read: recorded in the access ledger before any is shown.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who reads it, where it is not the system's user that runs this command.
    #[arg(long, value_name = "NAME", requires = "reason")]
    pub reader: Option<String>,
}

/// What is about to be handed over.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// The command.
    pub command: &'a str,
    /// The store, as the report describes it.
    pub store: String,
    /// Whose content, where it is known beforehand.
    pub exchanges: Vec<ExchangeId>,
    /// The question, where rows are asked for: the ledger holds its hash.
    pub question: Option<&'a str>,
    /// How many parts, where that is known beforehand.
    pub parts: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

impl Why {
    /// Refuses before any work is done, where content is asked for without a reason.
    ///
    /// # Errors
    /// What to type.
    pub fn required(&self, command: &str) -> anyhow::Result<()> {
        self.checked(command).map(drop)
    }

    fn checked(&self, command: &str) -> anyhow::Result<(&str, Option<&str>)> {
        let Some(reason) = &self.reason else {
            bail!(
                "`{command}` shows content, and content is shown only with a recorded reason: add `--reason TEXT` (and `--reader \
                 NAME` where somebody else reads it); `auditor access list` shows what was recorded"
            );
        };
        let plain = |name: &str, text: &str, most: usize| {
            let length = text.chars().count();
            let sound = (1..=most).contains(&length) && !text.trim().is_empty();
            ensure!(
                sound && !text.chars().any(char::is_control),
                "`{name}`: wanted 1 to {most} characters without line breaks, found {length}"
            );
            Ok(())
        };
        plain("--reason", reason, REASON_CHARACTERS)?;
        if let Some(reader) = &self.reader {
            plain("--reader", reader, READER_CHARACTERS)?;
        }
        Ok((reason, self.reader.as_deref()))
    }
}

/// Records that content is about to be handed over. On return the entry is on disk; only then may any be shown.
///
/// # Errors
/// No reason, a ledger that does not hold or cannot be written: nothing may be shown then.
pub fn release(state: &State, why: &Why, content: &Content<'_>) -> anyhow::Result<Released> {
    let (reason, reader) = why.checked(content.command)?;
    let (user, uid) = user();
    let named = content.exchanges.iter().take(EXCHANGES_NAMED).cloned().collect();
    let entry = Entry {
        at: time::now(),
        user: user.clone(),
        uid,
        reader: reader.map_or(user, str::to_owned),
        command: content.command.into(),
        store: content.store.clone(),
        exchanges: named,
        exchange_count: (!content.exchanges.is_empty()).then_some(content.exchanges.len() as u64),
        question: content.question.map(|sql| Sha256Hex::of(sql.as_bytes())),
        parts: content.parts,
        bytes: content.bytes,
        rows: None,
        of: None,
        reason: reason.into(),
    };
    let number = Ledger::new(state).append(&entry).context("the access ledger: no content is shown")?;
    Ok(Released { number, entry })
}

/// What [`release`] recorded.
#[derive(Debug, Clone)]
pub struct Released {
    number: u64,
    entry: Entry,
}

impl Released {
    /// Records how many rows were handed over, where that was not known before.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn rows(self, state: &State, rows: u64) -> anyhow::Result<()> {
        let entry = Entry { at: time::now(), rows: Some(rows), of: Some(self.number), ..self.entry };
        Ledger::new(state).append(&entry).context("the access ledger")?;
        Ok(())
    }
}

/// The system's user that runs this process: the name that the system has for it, else its number.
fn user() -> (String, u32) {
    let uid = rustix::process::geteuid().as_raw();
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    (name.unwrap_or_else(|| uid.to_string()), uid)
}
