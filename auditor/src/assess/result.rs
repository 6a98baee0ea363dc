//! What an assessment says: made once, written as text, JSON or CSV, and for other readers to come.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemas::{Origin, Sha256Hex};
use serde::Serialize;

use super::pack::{CannotShow, Rule};
use super::register::Given;
use crate::finding::Code;
use crate::report::{ClaimState, Interval, Verdict};

/// The version of this form.
pub const VERSION: u32 = 1;

/// What became of a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There was something to look at, the evidence is whole, and there are no exceptions.
    Met,
    /// There are exceptions.
    Exceptions,
    /// It could not be judged; why is beside it. Never a pass.
    NotJudged,
    /// There are no exceptions, and nothing was looked at but the user's own registers: no evidence.
    Stated,
}

impl Status {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met by evidence",
            Self::Exceptions => "exceptions",
            Self::NotJudged => "not judged",
            Self::Stated => "stated by registers alone",
        }
    }
}

/// A control, asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlResult {
    /// Its name within the pack.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Where it comes from.
    pub rule: Rule,
    /// What the rule asks.
    pub asks: String,
    /// What became of it.
    pub status: Status,
    /// Why it was not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many things there were to look at, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population: Option<u64>,
    /// How many exceptions there are.
    pub exceptions: u64,
    /// The first of them.
    pub shown: Shown,
    /// What the answer rests on.
    pub rests: String,
    /// What no exceptions support.
    pub supports: String,
    /// What they leave open.
    pub leaves_open: String,
    /// How the question can miss something, or find what is none.
    pub fails: String,
    /// The question.
    pub question: String,
    /// Its SHA-256.
    pub question_sha256: Sha256Hex,
}

/// Exceptions, as far as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Their exchanges, where they are such: without repeats.
    pub exchanges: Vec<String>,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows; absent values are null.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A pack, asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackResult {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// What it asks and leaves out.
    pub about: String,
    /// `built in`, or the file.
    pub from: String,
    /// SHA-256 of the pack.
    pub sha256: Sha256Hex,
    /// The user's own names.
    pub settings: BTreeMap<String, String>,
    /// Its controls.
    pub controls: Vec<ControlResult>,
    /// What this evidence cannot show.
    pub cannot_show: Vec<CannotShow>,
}

/// The end of a log on which the answers rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The log.
    pub origin: Origin,
    /// The tree's size.
    pub size: u64,
    /// The tree's root.
    pub root: Sha256Hex,
    /// SHA-256 of the seal.
    pub seal: Sha256Hex,
    /// The seal's time, microseconds UTC.
    pub sealed_at: i64,
}

/// Controls by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Met by evidence.
    pub met: u64,
    /// With exceptions.
    pub exceptions: u64,
    /// Not judged.
    pub not_judged: u64,
    /// Stated by the user's registers alone.
    pub stated: u64,
}

/// An assessment: the controls of packs over one visit of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assessment {
    /// Version of this form.
    pub v: u32,
    /// The auditor's version.
    pub auditor: &'static str,
    /// When, microseconds UTC.
    pub assessed_at: i64,
    /// The assessed interval.
    pub period: Interval,
    /// The end that was asked for, where the interval was cut because that is yet to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_to: Option<i64>,
    /// The verdict of the verification, on which every answer rests.
    pub verdict: Verdict,
    /// Its first line.
    pub first_line: String,
    /// The claims.
    pub claims: Vec<ClaimState>,
    /// What the verification found, by code.
    pub findings: BTreeMap<Code, u64>,
    /// What it did not check.
    pub not_checked: Vec<String>,
    /// What this version does not know: rows that hold it may mean more than the answers say.
    pub not_judged: BTreeMap<String, u64>,
    /// The store.
    pub store: String,
    /// The deployment.
    pub deployment: String,
    /// The trust file's fingerprint.
    pub trust_fingerprint: String,
    /// The ends of the logs.
    pub logs: Vec<Head>,
    /// The registry's end, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<Head>,
    /// The user's registers.
    pub registers: Vec<Given>,
    /// Where the whole list of exceptions was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions_file: Option<PathBuf>,
    /// The packs.
    pub packs: Vec<PackResult>,
    /// Controls by what became of them.
    pub counts: Counts,
    /// 0: every control met, or stated by registers alone; 1: exceptions, or findings of the verification; 2: something could not be judged.
    pub exit_code: u8,
}

impl Assessment {
    /// Every control with its pack.
    pub fn controls(&self) -> impl Iterator<Item = (&PackResult, &ControlResult)> {
        self.packs.iter().flat_map(|pack| pack.controls.iter().map(move |control| (pack, control)))
    }

    /// Counts, and says the exit code.
    pub fn settle(&mut self) {
        let mut counts = Counts::default();
        for (_, control) in self.controls() {
            match control.status {
                Status::Met => counts.met += 1,
                Status::Exceptions => counts.exceptions += 1,
                Status::NotJudged => counts.not_judged += 1,
                Status::Stated => counts.stated += 1,
            }
        }
        self.counts = counts;
        self.exit_code = match self.verdict.exit_code() {
            1 => 1,
            _ if counts.exceptions > 0 => 1,
            2 => 2,
            _ if counts.not_judged > 0 => 2,
            _ => 0,
        };
    }

    /// The first line.
    pub fn summary(&self) -> String {
        let Counts { met, exceptions, not_judged, stated } = self.counts;
        let stated =
            if stated == 0 { String::new() } else { format!(", {stated} stated by registers alone") };
        format!(
            "{met} controls met by evidence, {exceptions} with exceptions, {not_judged} not judged{stated}"
        )
    }
}
