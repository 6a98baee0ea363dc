//! What a probe did and saw.

use std::fmt::Write as _;

use serde::Serialize;

use crate::render::hostile;
use crate::time;

/// What a row comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As AWS documents it.
    AsRequired,
    /// Otherwise, and nothing that is locked is in danger.
    Differs,
    /// The store does not enforce what it promised: `STORE_NOT_WORM`.
    NotEnforced,
    /// Not tried.
    NotTried,
    /// Tried, and what came of it cannot be told.
    NotJudged,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::AsRequired => "as required",
            Self::Differs => "DIFFERS",
            Self::NotEnforced => "NOT ENFORCED",
            Self::NotTried => "not tried",
            Self::NotJudged => "NOT JUDGED",
        }
    }
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name, as `--skip` takes it.
    pub name: &'static str,
    /// What was done.
    pub did: &'static str,
    /// What must come of it.
    pub expected: &'static str,
    /// What the store answered, and what a read found afterwards.
    pub seen: String,
    /// What it comes to.
    pub outcome: Outcome,
}

/// The whole probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transcript {
    /// Form of this file, 1.
    pub v: u32,
    /// The store.
    pub store: String,
    /// What the store calls itself, where it does.
    pub server: Option<String>,
    /// When it was begun, microseconds UTC.
    pub at: i64,
    /// The auditor that probed.
    pub auditor: &'static str,
    /// The folder of the canaries.
    pub canaries: String,
    /// Until when they are locked.
    pub locked_until: i64,
    /// Rows in the order in which they were tried.
    pub rows: Vec<Row>,
}

impl Transcript {
    fn named(&self, outcome: Outcome) -> Vec<String> {
        self.rows.iter().filter(|row| row.outcome == outcome).map(|row| row.name.to_owned()).collect()
    }
    /// Rows that say that the store does not enforce retention.
    pub fn failed(&self) -> Vec<String> {
        self.named(Outcome::NotEnforced)
    }
    /// Rows in which nothing happened to what is locked.
    pub fn passed(&self) -> Vec<String> {
        let mut passed = self.named(Outcome::AsRequired);
        passed.extend(self.named(Outcome::Differs));
        passed
    }
    /// Whether it says anything about the store: some row was refused or accepted, and every one could be told.
    pub fn judged(&self) -> bool {
        !self.failed().is_empty()
            || (self.named(Outcome::NotJudged).is_empty() && !self.named(Outcome::AsRequired).is_empty())
    }
    /// 0 enforced, 1 not enforced, 2 could not judge.
    pub fn exit_code(&self) -> u8 {
        match (self.failed().is_empty(), self.judged()) {
            (false, _) => 1,
            (true, true) => 0,
            (true, false) => 2,
        }
    }
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let failed = self.failed();
        let first = match self.exit_code() {
            0 => "ENFORCED the store refused everything that was tried against locked versions".into(),
            1 => format!("STORE_NOT_WORM {}", failed.join(", ")),
            _ => format!("COULD-NOT-JUDGE {}", self.named(Outcome::NotJudged).join(", ")),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{first}");
        let _ = writeln!(out, "store       {}", hostile::line(&self.store));
        if let Some(server) = &self.server {
            let _ = writeln!(out, "server      {}", hostile::line(server));
        }
        let _ = writeln!(out, "probed at   {}; counts for every prefix of the bucket", time::text(self.at));
        let until = time::text(self.locked_until);
        let _ = writeln!(out, "canaries    {} (locked until {until})", hostile::line(&self.canaries));
        for row in &self.rows {
            let _ = writeln!(out, "\n{}  {}", row.outcome.text(), row.name);
            let _ = writeln!(out, "  did       {}", row.did);
            let _ = writeln!(out, "  expected  {}", row.expected);
            let _ = writeln!(out, "  seen      {}", hostile::line(&row.seen));
        }
        out
    }
}
