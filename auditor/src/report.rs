//! The report of a visit: verdict, claims, intervals, findings, counts, and what was not checked.

use std::collections::{BTreeMap, BTreeSet};

use schemas::trust::Trust;
use schemas::{Origin, Sha256Hex};
use serde::Serialize;

use crate::finding::{Effect, Findings};
use crate::mandate::Claim;
use crate::verify::story::Tally;

/// The verdict over the asked interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Verdict {
    /// The proven interval covers the asked one, and the mandate is met.
    Verified,
    /// A check could not be made, and nothing else was found.
    CouldNotJudge,
    /// The mandate is not met.
    Policy,
    /// Evidence is missing.
    Incomplete,
    /// Evidence contradicts what was seen elsewhere or earlier.
    Diverged,
    /// Evidence was changed or is not signed.
    Invalid,
}

impl Verdict {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "VERIFIED",
            Self::CouldNotJudge => "COULD-NOT-JUDGE",
            Self::Policy => "POLICY",
            Self::Incomplete => "INCOMPLETE",
            Self::Diverged => "DIVERGED",
            Self::Invalid => "INVALID",
        }
    }
    /// The exit code: 0 verified, 1 findings, 2 could not judge.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::CouldNotJudge => 2,
            _ => 1,
        }
    }
}

impl From<Effect> for Verdict {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Note => Self::Verified,
            Effect::Unjudged => Self::CouldNotJudge,
            Effect::Policy => Self::Policy,
            Effect::Incomplete => Self::Incomplete,
            Effect::Diverged => Self::Diverged,
            Effect::Invalid => Self::Invalid,
        }
    }
}

/// A claim, and whether it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimState {
    /// The claim.
    pub claim: Claim,
    /// Whether the evidence supports it.
    pub reached: bool,
    /// As the first line says it.
    pub text: String,
}

/// A time interval, microseconds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// Start.
    pub from: i64,
    /// End.
    pub to: i64,
}

/// What was proven of one log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogReport {
    /// The log.
    pub origin: Origin,
    /// Runs of records that are proven without a hole, with the times that they span.
    pub proven: Vec<Interval>,
    /// Number of proven batches.
    pub batches: u64,
    /// How many of those were proven at an earlier visit and taken from the cache.
    pub batches_from_cache: u64,
    /// Time of the newest batch whose records are expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_until: Option<i64>,
    /// The tree's size at the newest proven seal.
    pub size: u64,
    /// The tree's root there.
    pub root: Sha256Hex,
    /// SHA-256 of the newest proven seal.
    pub seal: Sha256Hex,
    /// Time of the newest proven seal.
    pub sealed_at: i64,
    /// `close`'s reason, where the log is closed.
    pub closed: Option<String>,
    /// The closer that sealed the end of the log, where it was not the log's own key: base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closer: Option<String>,
    /// The first position that the closer sealed: the log's own key has no word from there on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closer_from: Option<u64>,
    /// Exchanges without an outcome yet.
    pub open_exchanges: u64,
    /// Whether the log was seen at an earlier visit and is consistent with it: that visit's time.
    pub consistent_since: Option<i64>,
    /// Counts.
    pub tally: Tally,
}

impl LogReport {
    /// True where no seal of it was proven: size and root say nothing then.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }
}

/// What was asked and proven of one gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GatewayReport {
    /// The gateway.
    pub gateway: String,
    /// The asked interval.
    pub asked: Option<Interval>,
    /// From the first proven record to the last one.
    pub proven: Option<Interval>,
    /// Silence that `close` and the next `boot` declare.
    pub declared_silence: Vec<Interval>,
    /// From the newest proven record to the auditor's clock: what could be cut off without a trace.
    pub exposure: Option<Interval>,
    /// The trust file says that it is out of service.
    pub closed: bool,
    /// Its logs.
    pub logs: Vec<LogReport>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Objects listed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seals whose signature was checked.
    pub seals: u64,
    /// Bytes read and hashed.
    pub bytes_hashed: u64,
    /// Leaves hashed.
    pub leaves: u64,
    /// Batches proven.
    pub batches: u64,
    /// Batches expired.
    pub expired: u64,
}

/// What was proven of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryReport {
    /// The registry.
    pub origin: Origin,
    /// The tree's size at the newest proven seal.
    pub size: u64,
    /// The tree's root there.
    pub root: Sha256Hex,
    /// SHA-256 of the newest proven seal.
    pub seal: Sha256Hex,
    /// Its time.
    pub sealed_at: i64,
    /// How many keys were ever added.
    pub keys: u64,
    /// How many logs are registered.
    pub logs: u64,
    /// Whether it is consistent with an earlier visit: that visit's time.
    pub consistent_since: Option<i64>,
    /// The newest tree head that each organisation's witnesses cosigned; the operator's own are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnessed: Vec<WitnessReport>,
    /// The newest timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamped: Option<StampReport>,
}

/// The newest tree head of the registry that an organisation cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WitnessReport {
    /// The organisation.
    pub organisation: String,
    /// Its witness.
    pub witness: String,
    /// The tree's size.
    pub size: u64,
    /// The time of the seal of that size.
    pub sealed_at: i64,
    /// When the witness cosigned, by its own clock.
    pub cosigned_at: i64,
}

/// The newest checkpoint of the registry that has a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StampReport {
    /// The authority, as the trust file calls it.
    pub authority: String,
    /// The tree's size.
    pub size: u64,
    /// The time of the seal of that size.
    pub sealed_at: i64,
    /// The time of the token.
    pub time: i64,
    /// The policy under which it was given.
    pub policy: String,
    /// When its signing certificate ends.
    pub expires: i64,
}

/// The report of a visit.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Which claims are reached, and which not.
    pub claims: Vec<ClaimState>,
    /// The store.
    pub store: String,
    /// The deployment.
    pub deployment: String,
    /// The trust file's fingerprint.
    pub trust_fingerprint: String,
    /// When the check was made, microseconds UTC.
    pub checked_at: i64,
    /// What was read.
    pub counts: Counts,
    /// What was read of the bucket, where the store is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<crate::bucket::Facts>,
    /// By gateway.
    pub gateways: Vec<GatewayReport>,
    /// The registry, where the trust file names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryReport>,
    /// Keys and logs as they counted: the trust file's own, or the registry's.
    #[serde(skip)]
    pub trust_in_force: Trust,
    /// The claims that the mandate asks for.
    #[serde(skip)]
    pub mandated: BTreeSet<Claim>,
    /// The price books that the proven logs hold, as they are stored.
    #[serde(skip)]
    pub price_books: BTreeMap<Sha256Hex, String>,
    /// The policies that the proven logs hold, as they are stored.
    #[serde(skip)]
    pub policies: BTreeMap<Sha256Hex, String>,
    /// Findings, worst first.
    #[serde(serialize_with = "findings")]
    pub findings: Findings,
    /// All logs together.
    pub tally: Tally,
    /// Kinds, keys, columns and signatures that were hashed and counted, not judged.
    pub not_judged: BTreeMap<String, u64>,
    /// Checks that were not made.
    pub not_checked: Vec<String>,
}

fn findings<S: serde::Serializer>(findings: &Findings, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        list: Vec<&'a crate::finding::Finding>,
        counts: &'a BTreeMap<crate::finding::Code, u64>,
        omitted: u64,
    }
    Shown { list: findings.iter().collect(), counts: findings.counts(), omitted: findings.omitted() }
        .serialize(serializer)
}

impl Report {
    /// The first line: the verdict, and the claims reached and not.
    pub fn first_line(&self) -> String {
        let claims: Vec<_> = self.claims.iter().map(|claim| claim.text.as_str()).collect();
        format!("{} {}", self.verdict.as_str(), claims.join("; "))
    }
    /// Every log's report.
    pub fn logs(&self) -> impl Iterator<Item = &LogReport> {
        self.gateways.iter().flat_map(|gateway| &gateway.logs)
    }
}
