//! What is judged of a bucket: its settings, and every version and delete marker under the prefix.
//!
//! ```text
//! listing -> versions (hidden, shadowed, substituted)   identity (is it the store, is what was seen still there)
//!         -> select (all, a sample, what is new) -> lock (HEAD, GetObjectRetention) -> version
//!         -> settings (versioning, lock, lifecycle, access) -> claim                            -> Judged
//! ```
//! HEAD leaves the lock's headers out where the caller may not read them, so a version without them is asked about with
//! GetObjectRetention: a refusal is "could not judge", never "not locked", and never a pass.

mod access;
mod claim;
pub mod estimate;
mod facts;
mod holds;
mod identity;
pub mod kept;
mod lifecycle;
pub mod lock;
pub mod probed;
mod sealed;
mod select;
pub mod settings;
mod version;
pub mod versions;

pub use facts::Facts;
pub use select::LockState;
pub(crate) use version::SKEW;

use crate::finding::{Code, Findings, Place};
use crate::mandate::Mandate;
use crate::registry::InForce;
use crate::source::S3Source;
use kept::{Kept, Seen};
use probed::Probed;
use sealed::SealTimes;

/// What a bucket is judged against.
pub struct Asked<'a> {
    /// The keys in force: whose seals say when a batch was sealed.
    pub in_force: &'a InForce,
    /// What is required.
    pub mandate: &'a Mandate,
    /// What was seen before.
    pub kept: Option<Kept>,
    /// The last probe of the bucket.
    pub probed: Option<&'a Probed>,
    /// Of which versions the lock state is read.
    pub lock_state: LockState,
    /// Only of versions that were not read and found sound before.
    pub only_new: bool,
    /// The auditor's clock, microseconds UTC.
    pub now: i64,
    /// Told of progress: done, in all.
    pub progress: fn(usize, usize),
}

impl Asked<'_> {
    /// Whether a version that was read before need not be asked about: it was sound then, and is by its date. A legal
    /// hold has no date: it is asked about at every visit.
    fn settled(&self, name: &str, seen: &Seen) -> bool {
        let held = seen.hold || self.mandate.store.holds.ask_for(name);
        self.only_new && seen.clean && !held && (self.mandate.retention.is_some() || seen.until >= self.now)
    }
}

/// What was judged.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Findings.
    pub findings: Findings,
    /// Whether retention is enforced, and the words of the first line.
    pub claim: (bool, String),
    /// Checks that were not made.
    pub not_checked: Vec<String>,
    /// Counts.
    pub facts: Facts,
    /// What is to be kept of the visit.
    pub kept: Kept,
}

/// Whether a name belongs to what probes leave behind.
pub(crate) fn is_probe(name: &str) -> bool {
    name.split('/').next() == Some(crate::verify::listing::PROBES)
}

struct Judge<'a> {
    source: &'a S3Source,
    asked: &'a Asked<'a>,
    out: Judged,
    sealed: SealTimes,
    /// Versions that are not locked as they should be.
    short: u64,
    denied: Option<String>,
    /// Why legal holds may not be read.
    holds_denied: Option<String>,
}

/// Judges a bucket. Makes requests; changes nothing.
///
/// # Errors
/// The thread that talks to the store ended.
pub fn judge(source: &S3Source, asked: &Asked<'_>) -> anyhow::Result<Judged> {
    let mut kept = asked.kept.clone().unwrap_or_default();
    kept.judge_by(asked.mandate);
    let settled = |name: &str, seen: &Seen| asked.settled(name, seen);
    let holds = &asked.mandate.store.holds;
    let mut selection = select::select(source.listing(), &kept, asked.lock_state, holds, settled);
    let names = selection.wanted.iter().map(|wanted| wanted.name.as_str());
    let sealed = SealTimes::read(source, asked.in_force, names)?;
    let out = Judged { kept, ..Judged::default() };
    let mut judge = Judge { source, asked, out, sealed, short: 0, denied: None, holds_denied: None };
    judge.identity()?;
    judge.gone()?;
    let wanted = std::mem::take(&mut selection.wanted);
    for (wanted, shown) in source.run(lock::all(source.bucket().clone(), wanted, asked.progress))? {
        judge.version(&wanted, shown);
    }
    judge.held_anywhere();
    judge.settings()?;
    judge.conclude(&selection);
    Ok(judge.out)
}

impl Judge<'_> {
    fn add(&mut self, code: Code, place: Place, expected: impl Into<String>, found: impl Into<String>) {
        self.out.findings.add(code, place, expected, found);
    }

    fn settings(&mut self) -> anyhow::Result<()> {
        let listing = self.source.listing();
        let spans = self.out.kept.versions.iter().flat_map(|(name, versions)| {
            let named = listing.objects.get(name);
            versions.iter().filter_map(move |(id, seen)| {
                let version = named?.versions.iter().find(|version| version.id == *id)?;
                Some(seen.until.saturating_sub(version.last_modified))
            })
        });
        let mandate = self.asked.mandate;
        let longest = spans.max().max(mandate.retention);
        let (retention, kms_key) = (mandate.retention, mandate.store.kms_key.clone());
        let against = settings::Against { retention, longest, kms_key };
        let read = self.source.run(settings::read(self.source.bucket().clone(), against))?;
        if !read.locks {
            self.short += 1;
        }
        self.out.findings.append(read.findings);
        self.out.facts.settings = read.lines;
        for what in read.unknown {
            self.out.not_checked.push(format!("{what} of the bucket: this store has no such function"));
        }
        Ok(())
    }
}
