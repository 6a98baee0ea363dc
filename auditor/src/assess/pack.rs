//! The form of a pack: one YAML file, read strictly. `schemas/json/pack.schema.json` says the same.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use schemas::Sha256Hex;
use schemas::columns::ColumnKind;
use serde::{Deserialize, Serialize};

use super::fact;
use super::rows::{Column, Value};

/// The version of the form.
const VERSION: u32 = 1;
/// The largest pack.
pub const LIMIT: u64 = 4 << 20;

/// What no pack says: evidence supports a rule, it does not show that somebody keeps it.
const FORBIDDEN: [&str; 3] = ["compliant", "compliance with", "in compliance"];

/// A pack: the controls of one rule book that evidence of LLM traffic can say something about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Version of this form, 1.
    pub v: u32,
    /// The pack's name: `[a-z0-9_]+`.
    pub name: String,
    /// What it is about, in a line.
    pub title: String,
    /// What it asks of whom, what it leaves out, and which parts apply from when.
    pub about: String,
    /// Registers of the user's that its questions join.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registers: BTreeMap<String, WantedRegister>,
    /// Names of the user's own that its questions use: columns of the table `settings`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Setting>,
    /// The controls.
    pub controls: Vec<Control>,
    /// What the rules ask as well, and this evidence cannot show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cannot_show: Vec<CannotShow>,
}

/// A register of the user's: a CSV file with a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedRegister {
    /// What a row of it is.
    pub about: String,
    /// Its columns; others are left alone.
    pub columns: BTreeMap<String, Kind>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A decimal.
    Decimal,
    /// `2026-11-20` or `2026-11-20T10:15:00Z`.
    Time,
}

impl From<Kind> for ColumnKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Utf8,
            Kind::Integer => Self::Int64,
            Kind::Boolean => Self::Bool,
            Kind::Decimal => Self::Decimal,
            Kind::Time => Self::TimestampUs,
        }
    }
}

impl WantedRegister {
    /// Its columns, in the order of their names.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(name, kind)| Column { name: name.clone(), kind: (*kind).into() }).collect()
    }
}

/// A name of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// What it names.
    pub about: String,
    /// What it is where nothing else is typed.
    pub default: String,
}

/// One control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Its name within the pack: `[a-z0-9_.-]+`.
    pub id: String,
    /// What it is about, in a line.
    pub title: String,
    /// Where it comes from.
    pub rule: Rule,
    /// What the rule asks, in own words.
    pub asks: String,
    /// The facts and registers that its questions use, and no others.
    pub needs: Vec<String>,
    /// A question that gives one number: how many things there were to look at. 0 is "not judged".
    pub population: String,
    /// The question whose rows are the exceptions; one column should be `exchange` where rows are exchanges.
    pub finds: String,
    /// How the question can miss something, or find what is none.
    pub fails: String,
    /// What no exceptions support.
    pub supports: String,
    /// What they leave open.
    pub leaves_open: String,
    /// Rows in, exceptions out.
    pub cases: Vec<Case>,
}

/// Where a control comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule book, as it is cited.
    pub source: String,
    /// Article, section or control.
    pub article: String,
    /// Whether the text itself was read, or what others say of it.
    pub read: Read,
    /// When: `2026-11-21`.
    pub on: String,
}

/// What of a rule was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// Its text.
    Primary,
    /// What others say of it: look at the text before it is quoted.
    Secondary,
}

/// What evidence cannot show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CannotShow {
    /// Article, section or control.
    pub article: String,
    /// Why it cannot.
    pub why: String,
}

/// A case of a control: a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: String,
    /// Rows by fact or register; columns that are left out are null.
    #[serde(default)]
    pub rows: BTreeMap<String, Vec<BTreeMap<String, Scalar>>>,
    /// The exceptions: each row must hold these values, and there are no others. Empty: none.
    #[serde(default)]
    pub finds: Vec<BTreeMap<String, Scalar>>,
    /// True where there is nothing to look at, so that nothing is judged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_judged: bool,
}

/// A value of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, a time, a decimal; empty is null.
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// A pack with the hash of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The pack.
    pub pack: Pack,
    /// SHA-256 of its file.
    pub sha256: Sha256Hex,
    /// Where it came from: `built in`, or the file.
    pub from: String,
}

impl Loaded {
    /// Reads and checks a pack.
    ///
    /// # Errors
    /// All problems, each on its own line: key, value, wanted form.
    pub fn parse(text: &str, from: &str) -> Result<Self, String> {
        let pack: Pack = serde_saphyr::from_str(text).map_err(|error| format!("pack `{from}`: {error}"))?;
        let problems = pack.check();
        if !problems.is_empty() {
            let lines: Vec<String> =
                problems.iter().map(|problem| format!("pack `{from}`: {problem}")).collect();
            return Err(lines.join("\n"));
        }
        Ok(Self { pack, sha256: Sha256Hex::of(text.as_bytes()), from: from.into() })
    }
}

fn is_name(text: &str, more: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || more.contains(c);
    !text.is_empty() && text.chars().all(fits)
}

impl Pack {
    /// The columns of a fact, a register of this pack, or `settings`.
    pub fn columns(&self, name: &str) -> Option<Vec<Column>> {
        if name == fact::SETTINGS && !self.settings.is_empty() {
            let column = |name: &String| Column { name: name.clone(), kind: ColumnKind::Utf8 };
            return Some(self.settings.keys().map(column).collect());
        }
        let register = || self.registers.get(name).map(WantedRegister::columns);
        fact::fact(name).map(fact::Fact::columns).or_else(register)
    }

    /// All problems: key, value, wanted form.
    pub fn check(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.v != VERSION {
            out.push(format!("v: `{}`: wanted `{VERSION}`", self.v));
        }
        if !is_name(&self.name, "") {
            out.push(format!("name: `{}`: wanted `[a-z0-9_]+`", self.name));
        }
        for (key, text) in [("title", &self.title), ("about", &self.about)] {
            words(key, text, &mut out);
        }
        for (name, register) in &self.registers {
            let at = format!("registers.{name}");
            if !is_name(name, "") || fact::fact(name).is_some() || name == fact::SETTINGS {
                out.push(format!("{at}: wanted a name `[a-z0-9_]+` that is no fact's"));
            }
            words(&format!("{at}.about"), &register.about, &mut out);
            if register.columns.is_empty() || !register.columns.keys().all(|name| is_name(name, "")) {
                out.push(format!("{at}.columns: wanted at least one, named `[a-z0-9_]+`"));
            }
        }
        for (name, setting) in &self.settings {
            if !is_name(name, "") {
                out.push(format!("settings.{name}: wanted a name `[a-z0-9_]+`"));
            }
            words(&format!("settings.{name}.about"), &setting.about, &mut out);
        }
        if self.controls.is_empty() {
            out.push("controls: `[]`: wanted at least one".into());
        }
        let mut ids = BTreeSet::new();
        for control in &self.controls {
            if !ids.insert(&control.id) {
                out.push(format!("controls.{}: wanted an id that no other control has", control.id));
            }
            self.control(control, &mut out);
        }
        for (n, entry) in self.cannot_show.iter().enumerate() {
            words(&format!("cannot_show[{n}].article"), &entry.article, &mut out);
            words(&format!("cannot_show[{n}].why"), &entry.why, &mut out);
        }
        out
    }

    fn control(&self, control: &Control, out: &mut Vec<String>) {
        let at = |key: &str| format!("controls.{}.{key}", control.id);
        if !is_name(&control.id, ".-") {
            out.push(format!("{}: `{}`: wanted `[a-z0-9_.-]+`", at("id"), control.id));
        }
        for (key, text) in [
            ("title", &control.title),
            ("rule.source", &control.rule.source),
            ("rule.article", &control.rule.article),
            ("asks", &control.asks),
            ("population", &control.population),
            ("finds", &control.finds),
            ("fails", &control.fails),
            ("supports", &control.supports),
            ("leaves_open", &control.leaves_open),
        ] {
            words(&at(key), text, out);
        }
        let on = &control.rule.on;
        if on.len() != 10 || crate::time::parse(on).is_err() {
            out.push(format!("{}: `{on}`: wanted a day, as `2026-11-21`", at("rule.on")));
        }
        if control.needs.is_empty() {
            out.push(format!("{}: `[]`: wanted at least one fact", at("needs")));
        }
        for name in &control.needs {
            if self.columns(name).is_none() {
                let known: Vec<&str> = fact::FACTS.iter().map(|fact| fact.name).collect();
                out.push(format!(
                    "{}: `{name}` is no fact and no register of this pack: wanted one of {}",
                    at("needs"),
                    known.join(", ")
                ));
            }
        }
        if !control.cases.iter().any(|case| !case.finds.is_empty()) {
            out.push(format!("{}: wanted at least one with an exception under `finds`", at("cases")));
        }
        if !control.cases.iter().any(|case| case.finds.is_empty() && !case.not_judged) {
            out.push(format!("{}: wanted at least one without exceptions", at("cases")));
        }
        for case in &control.cases {
            self.case(control, case, out);
        }
    }

    fn case(&self, control: &Control, case: &Case, out: &mut Vec<String>) {
        let at = format!("controls.{}.cases[{}]", control.id, case.name);
        words(&format!("{at}.name"), &case.name, out);
        if case.not_judged && !case.finds.is_empty() {
            out.push(format!("{at}.finds: wanted none where nothing is judged"));
        }
        for (table, rows) in &case.rows {
            if !control.needs.contains(table) {
                out.push(format!("{at}.rows.{table}: wanted one of `needs`: {}", control.needs.join(", ")));
                continue;
            }
            let columns = self.columns(table).unwrap_or_default();
            for (name, value) in rows.iter().flatten() {
                let Some(column) = columns.iter().find(|column| column.name == *name) else {
                    let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                    out.push(format!(
                        "{at}.rows.{table}: `{name}` is no column: wanted one of {}",
                        known.join(", ")
                    ));
                    continue;
                };
                if let Err(problem) = Value::parse(column.kind, &value.to_string()) {
                    out.push(format!("{at}.rows.{table}.{name}: {problem}"));
                }
            }
        }
    }
}

/// A text that must say something, and must not say what evidence cannot show.
fn words(key: &str, text: &str, out: &mut Vec<String>) {
    if text.trim().is_empty() {
        out.push(format!("{key}: ``: wanted words"));
    }
    let lower = text.to_lowercase();
    for word in FORBIDDEN.iter().filter(|word| lower.contains(**word)) {
        out.push(format!("{key}: `{word}`: wanted `supports`, `evidence for` or `cannot show`"));
    }
}
