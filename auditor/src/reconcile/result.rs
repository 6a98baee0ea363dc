//! What came out of a reconciliation: for people, programs, and the verdict.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Sha256Hex;
use serde::Serialize;

use super::batches::HOURS;
use super::compare::Tolerance;
use super::{BATCH, Counts, Export, Format};
use crate::finding::{Code, Finding, Findings, Place};
use crate::mandate::Claim;
use crate::report::{Interval, Report};
use crate::time::{self, DAY};

/// How many calls of a sort are named; more are counted.
pub const KEPT: usize = 100_000;

/// How many keys of an export are listed.
const KEYS: usize = 1000;

/// What names the calls beyond those.
pub(super) const NARROWER: &str = "a narrower interval (`--from`, `--to`) names the others";

/// How a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Within the tolerance.
    Within,
    /// It differs, and the export's stretch reaches beyond the asked interval; or it is of batches that may have been asked for
    /// before the evidence begins. Not judged.
    Partial,
    /// The provider tells more, and exchanges whose counts are not its last word may be why; or costs differ where
    /// exchanges have no price.
    Uncertain,
    /// The evidence tells more, or costs differ.
    Differs,
    /// The provider tells more than was recorded.
    Unrecorded,
}

impl State {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Partial => "partial",
            Self::Uncertain => "uncertain",
            Self::Differs => "differs",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// Sums of a key, model and day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The key; absent where the export, or the comparison, does not tell keys apart.
    pub key: Option<String>,
    /// The model; absent where the export does not tell models apart.
    pub model: Option<String>,
    /// The day, UTC.
    pub day: String,
    /// The times of it that are summed, microseconds UTC; empty: all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Interval>,
    /// Whether it is of batches alone, of which the gateway saw none.
    #[serde(rename = "batch", skip_serializing_if = "std::ops::Not::not")]
    pub is_batch: bool,
    /// What the provider tells.
    pub provider: Counts,
    /// What was recorded.
    pub evidence: Counts,
    /// Recorded exchanges whose counts are not the provider's last word.
    pub not_final: u64,
    /// Recorded exchanges without a price.
    pub unpriced: u64,
    /// The export's stretch reaches beyond the asked interval.
    pub partial: bool,
    /// Of batches: when the evidence begins, where they may have been asked for before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_begins: Option<i64>,
    /// How it stands.
    pub state: State,
}

impl Cell {
    /// As one text.
    pub fn name(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.key.as_ref().map(|key| format!("key {key}")));
        parts.extend(self.model.as_ref().map(|model| format!("model {model}")));
        parts.push(self.day.clone());
        if let (Some(first), Some(last)) = (self.hours.first(), self.hours.last()) {
            let hours = format!("{} to {}", hour(first.from, "00:00"), hour(last.to, "24:00"));
            parts.push(match self.hours.len() {
                1 => hours,
                n => format!("{n} stretches of {hours}"),
            });
        }
        parts.extend(self.is_batch.then(|| "batches".to_owned()));
        parts.join(", ")
    }

    /// What the provider tells, as text.
    fn told(&self) -> String {
        format!("{}{}", say(&self.provider), if self.is_batch { " by batches" } else { "" })
    }

    /// What was recorded, as text.
    pub(super) fn recorded(&self) -> String {
        if !self.is_batch {
            return say(&self.evidence);
        }
        format!("no batch that was asked for in that time, or in the {HOURS} hours before")
    }

    /// Of one that was not judged: why, and what to do.
    pub(super) fn open(&self, asked: Interval) -> Option<String> {
        let mut why = Vec::new();
        if self.partial {
            let (from, to) = (time::text(asked.from), time::text(asked.to));
            why.push(format!("the export's sum reaches beyond the asked interval ({from} to {to})"));
        }
        if let Some(begins) = self.evidence_begins {
            why.push(format!("the evidence begins at {} only", time::text(begins)));
        }
        let (may, to_do) = if self.is_batch {
            (
                "the batches may have been asked for through the gateway where that was not looked at",
                "see at the provider when they were asked for, or take them as use past the gateway with `--partial`",
            )
        } else {
            (
                "what it differs by may lie there",
                "fetch sums of shorter stretches, ask for whole ones (`--from`, `--to`), or judge it as it is with `--partial`",
            )
        };
        let why = why.join(", and ");
        (self.state == State::Partial).then(|| format!("not judged: {why}, and {may}; {to_do}"))
    }
}

/// The hour of a time; `midnight` as it is called.
fn hour(at: i64, midnight: &str) -> String {
    match at.rem_euclid(DAY) {
        0 => midnight.to_owned(),
        _ => time::text(at).get(11..16).unwrap_or_default().to_owned(),
    }
}

/// A call that only one side knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unmatched {
    /// The provider's id.
    pub id: String,
    /// When, microseconds UTC.
    pub at: i64,
    /// The model.
    pub model: Option<String>,
    /// Who, as the provider says; or the exchange.
    pub who: Option<String>,
    /// What it used.
    pub counts: Counts,
    /// The line of the export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Why it is not judged, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A call that both sides know, with other counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The exchange.
    pub exchange: String,
    /// The provider's id.
    pub id: String,
    /// The line of the export.
    pub line: u64,
    /// What the provider tells.
    pub provider: Counts,
    /// What was recorded.
    pub evidence: Counts,
}

/// How the calls of a log were found again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Matches {
    /// Exchanges whose call is in the log.
    pub matched: u64,
    /// Those with other counts.
    pub different_count: u64,
    /// The first [`KEPT`] of them.
    pub different: Vec<Difference>,
    /// Calls of exchanges that ended outside of the asked interval, or that are not booked.
    pub elsewhere: u64,
    /// Calls that are in no record: they passed the gateway by.
    pub only_provider_count: u64,
    /// The first [`KEPT`] of them.
    pub only_provider: Vec<Unmatched>,
    /// Calls that are in no record, and may be in one that is not proven, or not written yet: not judged.
    pub not_judged_count: u64,
    /// The first [`KEPT`] of them.
    pub not_judged: Vec<Unmatched>,
    /// Exchanges within the log's time whose call is not in it.
    pub only_evidence_count: u64,
    /// The first [`KEPT`] of them.
    pub only_evidence: Vec<Unmatched>,
    /// Exchanges within the log's time whose record has no id of the provider.
    pub without_id: u64,
    /// How many calls of all sorts are only counted: a run over a narrower interval names them.
    pub not_named: u64,
}

impl Matches {
    /// How many calls are not in the lists.
    pub(super) fn beyond(&self) -> u64 {
        [
            (self.different_count, self.different.len()),
            (self.only_provider_count, self.only_provider.len()),
            (self.not_judged_count, self.not_judged.len()),
            (self.only_evidence_count, self.only_evidence.len()),
        ]
        .into_iter()
        .map(|(count, named)| count.saturating_sub(named as u64))
        .sum()
    }
}

/// What one export came to.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Its form, and the provider where one was named.
    pub export: String,
    /// The file.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: Sha256Hex,
    /// Its sums.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<Cell>,
    /// The times that its sums are of, microseconds UTC; absent for bills and logs, which have
    /// nothing where nothing was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Vec<Interval>>,
    /// Its calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Matches>,
    /// Rows outside of the asked interval.
    pub outside: u64,
    /// Batches that were asked for at its provider, which the gateway does not book.
    #[serde(skip_serializing_if = "is_zero")]
    pub batches: u64,
    /// What it holds and nothing was compared with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// The keys that it tells of, where none were told to be the gateway's.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub keys: BTreeSet<String>,
    /// The kinds of usage that it tells of; empty: no matter.
    #[serde(skip)]
    kinds: BTreeSet<&'static str>,
    #[serde(skip)]
    format: Format,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Facts {
    pub(super) fn of(export: &Export, outside: u64, list_keys: bool) -> Self {
        let sums = export.told.buckets.iter().chain(&export.told.batches);
        let keys = sums.filter_map(|bucket| bucket.key.clone());
        Self {
            export: export.name(),
            file: export.file.clone(),
            sha256: export.sha256,
            cells: Vec::new(),
            told: None,
            calls: None,
            outside,
            batches: 0,
            left_out: export.told.left_out.clone(),
            keys: keys.filter(|_| list_keys).take(KEYS).collect(),
            kinds: export.told.kinds.clone(),
            format: export.format,
        }
    }

    /// How many things were held against each other and judged.
    fn judged(&self) -> u64 {
        let cells = self.cells.iter().filter(|cell| cell.state != State::Partial).count() as u64;
        cells + self.calls.as_ref().map_or(0, |calls| calls.matched + calls.only_provider_count)
    }

    /// How many cells stand so.
    pub fn count(&self, state: State) -> u64 {
        self.cells.iter().filter(|cell| cell.state == state).count() as u64
    }

    pub(super) fn find(&self, asked: Interval, findings: &mut Findings) {
        for cell in &self.cells {
            let place = Place::object(&self.file).of_item(cell.name());
            let expected = format!("{}: {}", self.export, cell.told());
            let found = format!("recorded: {}", cell.recorded());
            match cell.state {
                State::Within => {}
                State::Unrecorded if self.batches > 0 && !cell.is_batch => {
                    let found = format!(
                        "{found}; {} batches were asked for, whose use the gateway does not book: fetch the export by \
                         `batch` (OpenAI) or `service_tier` (Anthropic), and see what is left",
                        self.batches
                    );
                    findings.add(Code::UnrecordedUsage, place, expected, found);
                }
                State::Unrecorded => findings.add(Code::UnrecordedUsage, place, expected, found),
                State::Differs => findings.add(Code::ReconcileDiff, place, expected, found),
                State::Partial => {
                    let found = format!("{found}; {}", cell.open(asked).unwrap_or_default());
                    findings.push(Finding::new(Code::UnrecordedUsage, place, expected, found).as_note());
                }
                State::Uncertain => {
                    let found = format!(
                        "{found}; {} exchanges have counts that are not the provider's last word, {} no price",
                        cell.not_final, cell.unpriced
                    );
                    findings.push(Finding::new(Code::ReconcileDiff, place, expected, found).as_note());
                }
            }
        }
        let Some(calls) = &self.calls else { return };
        for call in &calls.only_provider {
            let line = call.line.map_or(String::new(), |line| format!("line {line}, "));
            let place = Place::object(&self.file).of_item(format!("{line}call {}", call.id));
            let found = format!(
                "a call at {} of {} by {}: {}",
                time::text(call.at),
                call.model.as_deref().unwrap_or("no model"),
                call.who.as_deref().unwrap_or("nobody named"),
                say(&call.counts)
            );
            findings.add(Code::UnrecordedUsage, place, "a record of it", found);
        }
        if let Some(first) = calls.not_judged.first() {
            let place = Place::object(&self.file).of_item(format!("call {}", first.id));
            let found = format!(
                "none of {} calls, of which this is the first, at {}; not judged: {}; run it again when the evidence is further, \
                 or judge them as they are with `--partial`",
                calls.not_judged_count,
                time::text(first.at),
                first.why.as_deref().unwrap_or_default()
            );
            findings.push(Finding::new(Code::UnrecordedUsage, place, "a record of it", found).as_note());
        }
        for call in &calls.different {
            let place = Place::object(&self.file)
                .of_exchange(&call.exchange)
                .of_item(format!("line {}, call {}", call.line, call.id));
            let expected = format!("{}: {}", self.export, say(&call.provider));
            findings.add(Code::ReconcileDiff, place, expected, format!("recorded: {}", say(&call.evidence)));
        }
        for call in &calls.only_evidence {
            let place = Place::object(&self.file).of_item(format!("call {}", call.id));
            let place = match &call.who {
                Some(exchange) => place.of_exchange(exchange),
                None => place,
            };
            let found = format!("recorded at {}: {}", time::text(call.at), say(&call.counts));
            let finding = Finding::new(Code::ReconcileDiff, place, "the call in the provider's log", found);
            // Where the log may be a sample, a call that is not in it says nothing.
            findings.push(if self.format.may_be_a_sample() { finding.as_note() } else { finding });
        }
    }
}

/// Of usage exports with sums: the first one that tells nothing of a part of an interval, and the part. Exports of one
/// name and kind of usage tell together; one without a kind, which had no results, tells of every kind of its name.
fn untold(exports: &[Facts], asked: Interval) -> Option<(String, Interval)> {
    let told = || exports.iter().filter(|export| export.format.tells_usage() && export.told.is_some());
    let mut names: BTreeSet<(&str, &str)> =
        told().flat_map(|export| export.kinds.iter().map(|kind| (export.export.as_str(), *kind))).collect();
    for export in told() {
        if !names.iter().any(|(name, _)| *name == export.export) {
            names.insert((&export.export, ""));
        }
    }
    names.into_iter().find_map(|(name, kind)| {
        let of = told().filter(|export| {
            export.export == name && (export.kinds.is_empty() || export.kinds.contains(kind))
        });
        let mut stretches: Vec<Interval> = of.filter_map(|export| export.told.clone()).flatten().collect();
        stretches.sort_unstable_by_key(|stretch| stretch.from);
        let name = if kind.is_empty() { name.to_owned() } else { format!("{name} ({kind})") };
        let mut next = asked.from;
        for stretch in stretches {
            if stretch.from > next {
                return Some((name, Interval { from: next, to: stretch.from.min(asked.to) }));
            }
            next = next.max(stretch.to);
        }
        (next < asked.to).then_some((name, Interval { from: next, to: asked.to }))
    })
}

/// Of sums and calls that were not judged: how many, and why.
fn partial<'a>(exports: impl Iterator<Item = &'a Facts> + Clone, names: &str) -> Option<String> {
    let calls = exports.clone().filter_map(|export| export.calls.as_ref());
    let calls: u64 = calls.map(|calls| calls.not_judged_count).sum();
    let cells = exports.flat_map(|export| &export.cells).filter(|cell| cell.state == State::Partial);
    let (batches, others): (Vec<&Cell>, Vec<&Cell>) = cells.partition(|cell| cell.is_batch);
    match (others.len(), batches.len()) {
        (0, 0) if calls == 0 => None,
        (0, 0) => Some(format!(
            "{calls} calls of {names} are in no record that is proven, and may be in one that is not"
        )),
        (0, of_batches) => Some(format!(
            "{of_batches} sums of batches of {names} are not judged: these may have been asked for outside of the asked interval, or \
             before the evidence begins"
        )),
        (others, _) => Some(format!("{others} sums of {names} differ and reach beyond the asked interval")),
    }
}

/// Counts as text.
pub fn say(counts: &Counts) -> String {
    let mut parts: Vec<String> = [
        ("requests", counts.requests),
        ("input tokens", counts.input_tokens),
        ("of them read from caches", counts.cache_read_tokens),
        ("output tokens", counts.output_tokens),
    ]
    .into_iter()
    .filter_map(|(name, count)| Some(format!("{} {name}", count?)))
    .collect();
    parts.extend(counts.cost.iter().map(|(currency, cost)| format!("{cost} {currency}")));
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Reconciliation {
    /// How much may differ, in percent.
    pub tolerance: String,
    /// The asked interval, microseconds UTC.
    pub asked: Interval,
    /// By export.
    pub exports: Vec<Facts>,
    /// Exchanges with usage that no export tells of, by configured provider.
    pub not_covered: BTreeMap<String, u64>,
    /// Whether the claim is reached.
    pub reached: bool,
    /// The claim, as the first line says it.
    pub claim: String,
}

impl Reconciliation {
    pub(super) fn new(
        tolerance: Tolerance,
        asked: Interval,
        exports: Vec<Facts>,
        not_covered: BTreeMap<String, u64>,
    ) -> Self {
        let tolerance = tolerance.text();
        let names: BTreeSet<&str> = exports.iter().map(|export| export.export.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let count = |state: State| exports.iter().map(|export| export.count(state)).sum::<u64>();
        let calls = |of: &dyn Fn(&Matches) -> u64| -> u64 {
            exports.iter().filter_map(|export| export.calls.as_ref()).map(of).sum()
        };
        let missing: u64 = exports
            .iter()
            .filter(|export| !export.format.may_be_a_sample())
            .filter_map(|export| export.calls.as_ref())
            .map(|calls| calls.only_evidence_count)
            .sum();
        let unrecorded = count(State::Unrecorded) + calls(&|calls| calls.only_provider_count);
        let differ = count(State::Differs) + calls(&|calls| calls.different_count) + missing;
        let uncertain = count(State::Uncertain);
        let rest = format!("all else that was compared agrees within {tolerance} %");
        let usage = || exports.iter().filter(|export| export.format.tells_usage());
        let open: u64 = not_covered.values().sum();
        let (reached, claim) = if unrecorded > 0 {
            (
                false,
                format!("NOT reconciled: {unrecorded} sums or calls of {names} are beyond what was recorded"),
            )
        } else if differ > 0 {
            (
                false,
                format!(
                    "NOT reconciled: {differ} sums or calls of {names} differ by more than {tolerance} %"
                ),
            )
        } else if uncertain > 0 {
            (
                false,
                format!(
                    "NOT reconciled: {uncertain} sums of {names} cannot be told for counts that are not final"
                ),
            )
        } else if usage().map(Facts::judged).sum::<u64>() == 0 {
            let why = partial(usage(), &names);
            let why = why.unwrap_or_else(|| "no export tells of usage in the asked interval".into());
            (false, format!("NOT reconciled: {why}"))
        } else if open > 0 {
            (false, format!("NOT reconciled throughout: {open} exchanges are in no export ({names})"))
        } else if let Some((name, gap)) = untold(&exports, asked) {
            let (from, to) = (time::text(gap.from), time::text(gap.to));
            (false, format!("NOT reconciled throughout: {name} tells nothing of {from} to {to}"))
        } else if let Some(why) = partial(exports.iter(), &names) {
            (false, format!("NOT reconciled throughout: {why} ({rest})"))
        } else if exports.iter().any(|export| export.left_out.contains_key(BATCH)) {
            (
                false,
                format!(
                    "NOT reconciled throughout: {names} tell of batches, which are not compared ({rest})"
                ),
            )
        } else {
            (true, format!("reconciled within {tolerance} % with {names}"))
        };
        Self { tolerance, asked, exports, not_covered, reached, claim }
    }

    /// Tells the report: findings, the claim, and what is no longer unchecked.
    pub fn settle(&self, report: &mut Report) {
        let mut findings = Findings::default();
        for export in &self.exports {
            export.find(self.asked, &mut findings);
        }
        // Evidence that is not whole shows nothing by agreeing.
        let signed = report.claims.iter().any(|state| state.claim == Claim::Signed && state.reached);
        let reached = self.reached && signed;
        for state in report.claims.iter_mut().filter(|state| state.claim == Claim::Reconciled) {
            state.reached = reached;
            state.text = match (self.reached, signed) {
                (true, false) => "NOT reconciled: the evidence is not signed throughout".into(),
                _ => self.claim.clone(),
            };
        }
        let item = format!("claim {}", Claim::Reconciled.as_str());
        report.findings.withdraw(|finding| {
            finding.code == Code::ClaimNotReached && finding.place.item.as_deref() == Some(&item)
        });
        if report.mandated.contains(&Claim::Reconciled) && !reached {
            let text = report.claims.iter().find(|state| state.claim == Claim::Reconciled);
            let text = text.map(|state| state.text.clone()).unwrap_or_default();
            findings.add(
                Code::ClaimNotReached,
                Place::default().of_item(item),
                Claim::Reconciled.as_str(),
                text,
            );
        }
        report.findings.append(findings);
        report.not_checked.retain(|text| !text.starts_with(crate::verify::PAST_THE_GATEWAYS));
        report.not_checked.push(format!(
            "{}: known for the keys and times that the exports tell of, as far as they are what the provider gave",
            crate::verify::PAST_THE_GATEWAYS
        ));
        report.settle();
    }
}
