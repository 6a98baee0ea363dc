//! What a printed report says, as data: made once from the visit, written beside the page, read back when it is checked.

use std::collections::BTreeMap;

use schemas::Sha256Hex;
use serde::{Deserialize, Serialize};

use super::volumes::Measured;
use crate::assess::Assessment;
use crate::assess::pack::Read;
use crate::assess::result::{ControlResult, Head, PackResult, Status};
use crate::finding::{Effect, Finding};
use crate::report::{GatewayReport, Interval, LogReport, Report};

/// The version of this form.
pub const VERSION: u32 = 1;

/// Findings that are kept, worst first.
const FINDINGS: usize = 200;

/// A time interval, microseconds UTC; its end is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Start.
    pub from: i64,
    /// End.
    pub to: i64,
}

impl From<Interval> for Span {
    fn from(interval: Interval) -> Self {
        Self { from: interval.from, to: interval.to }
    }
}

/// A claim, and whether the evidence supports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimLine {
    /// The claim.
    pub claim: String,
    /// Whether it is reached.
    pub reached: bool,
    /// As the verification says it.
    pub text: String,
}

/// The end of a tree on which the report rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadLine {
    /// The log.
    pub origin: String,
    /// Records in it.
    pub size: u64,
    /// The tree's root.
    pub root: Sha256Hex,
    /// SHA-256 of the newest seal.
    pub seal: Sha256Hex,
    /// Its time.
    pub sealed_at: i64,
}

impl From<&Head> for HeadLine {
    fn from(head: &Head) -> Self {
        Self {
            origin: head.origin.to_string(),
            size: head.size,
            root: head.root,
            seal: head.seal,
            sealed_at: head.sealed_at,
        }
    }
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// The log.
    pub origin: String,
    /// Records in it.
    pub records: u64,
    /// Proven batches.
    pub batches: u64,
    /// Runs of records without a hole.
    pub proven: Vec<Span>,
    /// Why it was closed, where it was.
    pub closed: Option<String>,
    /// Exchanges without an outcome.
    pub open_exchanges: u64,
    /// The earlier visit with which it is consistent.
    pub consistent_since: Option<i64>,
}

impl From<&LogReport> for LogLine {
    fn from(log: &LogReport) -> Self {
        Self {
            origin: log.origin.to_string(),
            records: log.size,
            batches: log.batches,
            proven: log.proven.iter().map(|run| (*run).into()).collect(),
            closed: log.closed.clone(),
            open_exchanges: log.open_exchanges,
            consistent_since: log.consistent_since,
        }
    }
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayLine {
    /// The gateway.
    pub gateway: String,
    /// The asked interval.
    pub asked: Option<Span>,
    /// The proven one.
    pub proven: Option<Span>,
    /// Silence that it declared.
    pub silences: Vec<Span>,
    /// From when on records could be cut off without a trace.
    pub exposed_from: Option<i64>,
    /// The trust file says that it is out of service.
    pub closed: bool,
    /// Its logs.
    pub logs: Vec<LogLine>,
}

impl From<&GatewayReport> for GatewayLine {
    fn from(gateway: &GatewayReport) -> Self {
        Self {
            gateway: gateway.gateway.clone(),
            asked: gateway.asked.map(Span::from),
            proven: gateway.proven.map(Span::from),
            silences: gateway.declared_silence.iter().map(|silence| (*silence).into()).collect(),
            exposed_from: gateway.exposure.map(|exposure| exposure.from),
            closed: gateway.closed,
            logs: gateway.logs.iter().map(LogLine::from).collect(),
        }
    }
}

/// A finding of the verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingLine {
    /// Its code.
    pub code: String,
    /// How bad.
    pub severity: String,
    /// Whether it is only a note.
    pub note: bool,
    /// Where.
    pub place: String,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do.
    pub hint: String,
}

impl From<&Finding> for FindingLine {
    fn from(finding: &Finding) -> Self {
        let severity = serde_json::to_value(finding.severity).ok();
        Self {
            code: finding.code.to_string(),
            severity: severity.as_ref().and_then(|text| text.as_str()).unwrap_or_default().to_lowercase(),
            note: finding.effect == Effect::Note,
            place: finding.place.to_string(),
            expected: finding.expected.clone(),
            found: finding.found.clone(),
            hint: finding.hint.to_owned(),
        }
    }
}

/// What was read and hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Looked {
    /// Records of all proven logs.
    pub records: u64,
    /// Proven batches.
    pub batches: u64,
    /// Batches that were removed after their retention.
    pub expired: u64,
    /// Objects in the store.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Parts of content that records name.
    pub parts: u64,
    /// Those of them that were kept.
    pub parts_kept: u64,
    /// Those that were opened and are what the records commit to.
    pub parts_proven: u64,
    /// Those that were erased, by a record.
    pub parts_erased: u64,
    /// Costs that were computed again from price book and counts.
    pub costs_recomputed: u64,
    /// Costs that could not be.
    pub costs_not_recomputed: u64,
}

/// A register of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterLine {
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Hex,
}

/// What became of a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// Something to look at, and no exception.
    Met,
    /// There are exceptions.
    Exceptions,
    /// It could not be judged.
    NotJudged,
    /// No exception, and nothing was looked at but the operator's own registers.
    Stated,
}

/// A control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlLine {
    /// Its name within the pack.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Source and article of the rule.
    pub rule: String,
    /// Whether the rule's text was read when the control was written.
    pub read: bool,
    /// The day on which it was held against the rule.
    pub on: String,
    /// What the rule asks.
    pub asks: String,
    /// What became of it.
    pub became: Became,
    /// Why it was not judged.
    pub why: Option<String>,
    /// How many things there were to look at.
    pub population: Option<u64>,
    /// How many exceptions.
    pub exceptions: u64,
    /// The names of the columns of the exceptions.
    pub columns: Vec<String>,
    /// The first exceptions.
    pub rows: Vec<Vec<Option<String>>>,
    /// What the answer rests on.
    pub rests: String,
    /// What no exceptions support.
    pub supports: String,
    /// What they leave open.
    pub leaves_open: String,
    /// How the question can miss something.
    pub fails: String,
    /// SHA-256 of the question.
    pub question_sha256: Sha256Hex,
}

impl From<&ControlResult> for ControlLine {
    fn from(control: &ControlResult) -> Self {
        Self {
            id: control.id.clone(),
            title: control.title.clone(),
            rule: format!("{}, {}", control.rule.source, control.rule.article),
            read: matches!(control.rule.read, Read::Primary),
            on: control.rule.on.clone(),
            asks: control.asks.clone(),
            became: match control.status {
                Status::Met => Became::Met,
                Status::Exceptions => Became::Exceptions,
                Status::NotJudged => Became::NotJudged,
                Status::Stated => Became::Stated,
            },
            why: control.why.clone(),
            population: control.population,
            exceptions: control.exceptions,
            columns: control.shown.columns.clone(),
            rows: control.shown.rows.clone(),
            rests: control.rests.clone(),
            supports: control.supports.clone(),
            leaves_open: control.leaves_open.clone(),
            fails: control.fails.clone(),
            question_sha256: control.question_sha256,
        }
    }
}

/// What the evidence cannot show of a rule book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cannot {
    /// The article.
    pub article: String,
    /// Why not.
    pub why: String,
}

/// A pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackLine {
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
    pub controls: Vec<ControlLine>,
    /// What this evidence cannot show.
    pub cannot_show: Vec<Cannot>,
}

impl From<&PackResult> for PackLine {
    fn from(pack: &PackResult) -> Self {
        let cannot = pack.cannot_show.iter();
        Self {
            name: pack.name.clone(),
            title: pack.title.clone(),
            about: pack.about.clone(),
            from: pack.from.clone(),
            sha256: pack.sha256,
            settings: pack.settings.clone(),
            controls: pack.controls.iter().map(ControlLine::from).collect(),
            cannot_show: cannot
                .map(|entry| Cannot { article: entry.article.clone(), why: entry.why.clone() })
                .collect(),
        }
    }
}

/// What a printed report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Version of this form.
    pub v: u32,
    /// The version of the auditor that made it.
    pub auditor: String,
    /// The verifier key of who signs it.
    pub signer: String,
    /// The deployment.
    pub deployment: String,
    /// The store.
    pub store: String,
    /// The trust file's fingerprint.
    pub trust_fingerprint: String,
    /// When the evidence was checked, microseconds UTC.
    pub checked_at: i64,
    /// The period as it was typed, where it was.
    pub period_name: Option<String>,
    /// The period.
    pub period: Span,
    /// The end that was asked for, where the period was cut at the time of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_to: Option<i64>,
    /// The verdict of the verification.
    pub verdict: String,
    /// The claims.
    pub claims: Vec<ClaimLine>,
    /// The gateways.
    pub gateways: Vec<GatewayLine>,
    /// The ends of the logs.
    pub heads: Vec<HeadLine>,
    /// The registry's end.
    pub registry: Option<HeadLine>,
    /// What was read of the bucket, where the store is one.
    pub bucket: Vec<String>,
    /// What was read and hashed.
    pub looked: Looked,
    /// The findings, worst first.
    pub findings: Vec<FindingLine>,
    /// How many there are by code.
    pub finding_counts: BTreeMap<String, u64>,
    /// What was not checked.
    pub not_checked: Vec<String>,
    /// What this version of the auditor does not know.
    pub not_judged: BTreeMap<String, u64>,
    /// Volumes and cost.
    pub measured: Measured,
    /// The user's registers.
    pub registers: Vec<RegisterLine>,
    /// The file with all exceptions, where it was written.
    pub exceptions_file: Option<String>,
    /// The packs.
    pub packs: Vec<PackLine>,
}

/// What a report is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The verification.
    pub report: &'a Report,
    /// The controls.
    pub assessment: &'a Assessment,
    /// Volumes and cost.
    pub measured: Measured,
    /// The period as it was typed.
    pub period_name: Option<String>,
    /// The verifier key of who signs.
    pub signer: String,
}

impl Data {
    /// Puts a report together.
    pub fn new(sources: Sources<'_>) -> Self {
        let Sources { report, assessment, measured, period_name, signer } = sources;
        let tally = &report.tally;
        Self {
            v: VERSION,
            auditor: assessment.auditor.to_owned(),
            signer,
            deployment: report.deployment.clone(),
            store: report.store.clone(),
            trust_fingerprint: report.trust_fingerprint.clone(),
            checked_at: report.checked_at,
            period_name,
            period: assessment.period.into(),
            asked_to: assessment.asked_to,
            verdict: report.verdict.as_str().to_owned(),
            claims: report
                .claims
                .iter()
                .map(|claim| ClaimLine {
                    claim: claim.claim.as_str().to_owned(),
                    reached: claim.reached,
                    text: claim.text.clone(),
                })
                .collect(),
            gateways: report.gateways.iter().map(GatewayLine::from).collect(),
            heads: assessment.logs.iter().map(HeadLine::from).collect(),
            registry: assessment.registry.as_ref().map(HeadLine::from),
            bucket: report.bucket.as_ref().map(crate::bucket::Facts::lines).unwrap_or_default(),
            looked: Looked {
                records: tally.records,
                batches: report.logs().map(|log| log.batches).sum(),
                expired: report.counts.expired,
                objects: report.counts.objects,
                bytes: report.counts.bytes,
                parts: tally.parts,
                parts_kept: tally.parts_kept,
                parts_proven: tally.parts_proven,
                parts_erased: tally.parts_erased,
                costs_recomputed: tally.recomputed,
                costs_not_recomputed: tally.not_recomputed,
            },
            findings: report.findings.iter().take(FINDINGS).map(FindingLine::from).collect(),
            finding_counts: report
                .findings
                .counts()
                .iter()
                .map(|(code, count)| (code.to_string(), *count))
                .collect(),
            not_checked: report.not_checked.clone(),
            not_judged: report.not_judged.clone(),
            measured,
            registers: assessment
                .registers
                .iter()
                .map(|given| RegisterLine {
                    name: given.name.clone(),
                    file: given.file.to_string_lossy().into_owned(),
                    rows: given.rows,
                    sha256: given.sha256,
                })
                .collect(),
            exceptions_file: assessment
                .exceptions_file
                .as_ref()
                .map(|file| file.to_string_lossy().into_owned()),
            packs: assessment.packs.iter().map(PackLine::from).collect(),
        }
    }

    /// Every control with its pack.
    pub fn controls(&self) -> impl Iterator<Item = (&PackLine, &ControlLine)> {
        self.packs.iter().flat_map(|pack| pack.controls.iter().map(move |control| (pack, control)))
    }

    /// How many controls became this.
    pub fn count(&self, became: Became) -> u64 {
        self.controls().filter(|(_, control)| control.became == became).count() as u64
    }

    /// As JSON, the bytes that are written and signed.
    ///
    /// # Errors
    /// None in practice.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| crate::render::json::harmless(&text) + "\n")
    }
}
