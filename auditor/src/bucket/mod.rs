//! What is judged of a bucket: its settings, and every version and delete marker under the prefix.
//!
//! ```text
//! listing -> versions (hidden, shadowed, substituted)      lock (each version's HEAD, GetObjectRetention)
//!         -> settings (versioning, lock, lifecycle, ...)   kept (what was seen at the last visit)      -> Judged
//! ```
//! HEAD leaves the lock's headers out where the caller may not read them, so a version without them is asked about with
//! GetObjectRetention: a refusal is "could not judge", never "not locked", and never a pass.

pub mod estimate;
pub mod kept;
pub mod lock;
pub mod settings;
pub mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use parquet::file::reader::ChunkReader as _;
use schemas::trust::Trust;
use schemas::{ObjectName, Origin, Sha256Hex, seal};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::finding::{Code, Effect, Finding, Findings, Place};
use crate::mandate::Mandate;
use crate::source::s3::Version;
use crate::source::{Opened, S3Source, Source as _};
use crate::time;
use kept::{Kept, Seen};
use lock::{Retention, Shown, Wanted};

/// How long after its seal's time an object may be written, where the mandate does not say.
const LATE: i64 = time::DAY;
/// How far a store's clock may be from the auditor's, and before a seal's time.
const SKEW: i64 = 5 * 60 * time::SECOND;
/// Each so many versions both ways of asking are compared.
const CROSS: usize = 64;
/// The largest seal.
const SEAL: u64 = schemas::note::MAX_NOTE_BYTES as u64;

/// Of which versions the lock state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// Of all.
    All,
    /// Of so many, drawn by lot, and of the newest of each log.
    Sample(usize),
}

impl std::str::FromStr for LockState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: wanted `all` or `sample:N`");
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("sample", n)) => n.parse().ok().filter(|n| *n > 0).map(Self::Sample).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// What a bucket is judged against.
pub struct Asked<'a> {
    /// The trust file.
    pub trust: &'a Trust,
    /// What is required.
    pub mandate: &'a Mandate,
    /// What was seen before.
    pub kept: Option<Kept>,
    /// Of which versions the lock state is read.
    pub lock_state: LockState,
    /// Only of versions that were not read before.
    pub only_new: bool,
    /// The auditor's clock, microseconds UTC.
    pub now: i64,
    /// Told of progress: done, in all.
    pub progress: fn(usize, usize),
}

/// What was read of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Versions.
    pub versions: u64,
    /// Delete markers.
    pub markers: u64,
    /// Versions whose lock state was read now.
    pub read: u64,
    /// Versions whose lock state was read at an earlier visit, and not now.
    pub read_earlier: u64,
    /// Versions in COMPLIANCE mode, of those.
    pub locked: u64,
    /// Versions under a legal hold.
    pub holds: u64,
    /// The earliest retain-until of all, microseconds UTC.
    pub until: Option<i64>,
    /// Requests until then.
    pub requests: u64,
    /// What the bucket's settings say.
    pub settings: Vec<String>,
}

impl Facts {
    /// As it is printed.
    pub fn lines(&self) -> Vec<String> {
        let until =
            self.until.map_or(String::new(), |until| format!(", the earliest until {}", time::text(until)));
        let mut out = vec![
            format!(
                "bucket: {} versions, {} delete markers; lock state read of {} ({} at an earlier visit); {} locked in \
                 COMPLIANCE mode{until}; {} legal holds",
                self.versions, self.markers, self.read, self.read_earlier, self.locked, self.holds
            ),
            format!("bucket: {} requests for it", self.requests),
        ];
        if !self.settings.is_empty() {
            out.push(format!("bucket: {}", self.settings.join("; ")));
        }
        out
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

pub(crate) fn hash(opened: &Opened) -> std::io::Result<Sha256Hex> {
    let mut reader = opened.get_read(0).map_err(std::io::Error::other)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Sha256Hex(hasher.finalize().into())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

struct Judge<'a> {
    source: &'a S3Source,
    asked: &'a Asked<'a>,
    out: Judged,
    /// Seal times by log and batch, as far as they were needed.
    sealed: BTreeMap<(Origin, u64), Option<i64>>,
    /// Versions that are not locked as they should be.
    short: u64,
    denied: Option<String>,
}

/// Judges a bucket. Makes requests; changes nothing.
///
/// # Errors
/// The thread that talks to the store ended.
pub fn judge(source: &S3Source, asked: &Asked<'_>) -> anyhow::Result<Judged> {
    let mut judge = Judge {
        source,
        asked,
        out: Judged { kept: asked.kept.clone().unwrap_or_default(), ..Judged::default() },
        sealed: BTreeMap::new(),
        short: 0,
        denied: None,
    };
    judge.identity();
    judge.gone()?;
    let (wanted, skipped) = judge.select();
    let total = judge.source.listing().objects.iter().filter(|(name, _)| !is_probe(name));
    let total: usize = total.map(|(_, named)| named.versions.len()).sum();
    let (bucket, progress) = (source.bucket().clone(), asked.progress);
    let answers = source.run(lock::all(bucket, wanted, progress))?;
    let read = answers.len();
    for (wanted, shown) in answers {
        judge.version(&wanted, shown);
    }
    judge.settings()?;
    judge.conclude(total, read, skipped);
    Ok(judge.out)
}

impl Judge<'_> {
    fn add(&mut self, code: Code, place: Place, expected: impl Into<String>, found: impl Into<String>) {
        self.out.findings.add(code, place, expected, found);
    }

    /// Is it the store that is meant, and the one of the last visit?
    fn identity(&mut self) {
        let bucket = self.source.bucket().clone();
        let wanted = &self.asked.mandate.store;
        let place = |what: &str| Place::object("the store").of_item(what);
        let is = [
            ("bucket", wanted.bucket.clone(), Some(bucket.address.bucket.clone())),
            ("endpoint", wanted.endpoint.clone(), bucket.endpoint.clone()),
            ("owner", wanted.owner.clone(), bucket.owner.clone()),
        ];
        for (what, wanted, found) in is {
            if let Some(wanted) = wanted
                && found.as_ref() != Some(&wanted)
            {
                self.add(Code::WrongSource, place(what), wanted, found.unwrap_or_else(|| "not said".into()));
            }
        }
        let owners: Vec<String> = self.source.listing().owners.iter().cloned().collect();
        let known = self.out.kept.owners.clone();
        if !known.is_empty() && !owners.is_empty() && known != owners {
            self.add(Code::WrongSource, place("owner of the versions"), known.join(", "), owners.join(", "));
        } else if !owners.is_empty() {
            self.out.kept.owners = owners;
        }
        self.out.kept.store = bucket.describe();
    }

    /// Versions that were seen before and are not listed any more.
    fn gone(&mut self) -> anyhow::Result<()> {
        let listing = self.source.listing();
        let mut gone = Vec::new();
        for (name, versions) in &self.out.kept.versions {
            let named = listing.objects.get(name);
            for (id, seen) in versions {
                if !named.is_some_and(|named| named.versions.iter().any(|version| version.id == *id)) {
                    gone.push((name.clone(), id.clone(), seen.clone()));
                }
            }
        }
        for (name, id, seen) in gone {
            let (bucket, asked, version) = (self.source.bucket().clone(), name.clone(), id.clone());
            let shown =
                self.source.run(async move { lock::shown(&bucket, &asked, &version, false).await })?;
            let place = Place::object(&name).of_item(format!("version {id}"));
            match shown {
                Ok(_) => self.add(Code::ListingIncomplete, place, "listed", "not listed, and still served"),
                Err(fault) if !fault.is_absent() => {
                    self.add(
                        Code::CouldNotRead,
                        place,
                        "an answer about a version that is not listed any more",
                        fault.to_string(),
                    );
                }
                Err(_) if seen.until > self.asked.now => {
                    let expected = format!(
                        "{} until {}, as seen at {}",
                        seen.mode,
                        time::text(seen.until),
                        time::text(seen.at)
                    );
                    let found = Finding::new(Code::StoreNotWorm, place, expected, "the version is gone");
                    // GOVERNANCE promises nothing against those who may bypass it.
                    let effect = if seen.mode == "COMPLIANCE" { Effect::Diverged } else { Effect::Policy };
                    let severity = found.severity;
                    self.out.findings.push(found.with(severity, effect));
                }
                Err(_) => {
                    if let Some(versions) = self.out.kept.versions.get_mut(&name) {
                        versions.remove(&id);
                    }
                }
            }
        }
        self.out.kept.versions.retain(|_, versions| !versions.is_empty());
        Ok(())
    }

    /// Which versions are asked about, and how many are not although they never were.
    fn select(&self) -> (Vec<Wanted>, usize) {
        let listing = self.source.listing();
        let mut wanted = Vec::new();
        let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, named) in &listing.objects {
            if is_probe(name) {
                continue;
            }
            for version in &named.versions {
                if self.asked.only_new && self.out.kept.seen(name, &version.id).is_some() {
                    continue;
                }
                let cross = wanted.len().is_multiple_of(CROSS);
                if let Some((folder, _)) = name.rsplit_once('/') {
                    newest.insert(folder, wanted.len());
                }
                wanted.push(Wanted { name: name.clone(), version: version.clone(), cross });
            }
        }
        for last in newest.values() {
            if let Some(wanted) = wanted.get_mut(*last) {
                wanted.cross = true;
            }
        }
        let LockState::Sample(count) = self.asked.lock_state else { return (wanted, 0) };
        let all = wanted.len();
        let keep: BTreeSet<usize> = newest.values().copied().chain(draw(all, count)).collect();
        let wanted: Vec<Wanted> = wanted
            .into_iter()
            .enumerate()
            .filter(|(n, _)| keep.contains(n))
            .map(|(_, wanted)| wanted)
            .collect();
        let skipped = all - wanted.len();
        (wanted, skipped)
    }

    /// The time of the seal that covers a name, where there is one that the trusted key signed.
    fn sealed_at(&mut self, name: &str) -> Option<i64> {
        let (origin, parsed) = versions::parse(name)?;
        let batch = parsed.batch();
        if let Some(known) = self.sealed.get(&(origin.clone(), batch)) {
            return *known;
        }
        let key = self.asked.trust.gateway(&origin).and_then(|entry| entry.public_key().ok());
        let note = self.source.read(&crate::verify::seal_name(&origin, batch), SEAL).ok();
        let time = key.zip(note).and_then(|(key, note)| seal::verify(&note, &key).ok()).map(|seal| seal.time);
        self.sealed.insert((origin, batch), time);
        time
    }

    fn version(&mut self, wanted: &Wanted, shown: Result<Shown, crate::source::s3::Fault>) {
        let (name, version) = (&wanted.name, &wanted.version);
        let place = Place::object(name).of_item(format!("version {}", version.id));
        let shown = match shown {
            Ok(shown) => shown,
            Err(fault) => {
                let code = if fault.is_denied() { Code::PermissionMissing } else { Code::CouldNotRead };
                self.short += 1;
                self.add(code, place, "an answer to HEAD (s3:GetObjectVersion)", fault.to_string());
                return;
            }
        };
        let sealed_at = self.sealed_at(name);
        self.times(&place, version, sealed_at);
        self.checksum(name, &place, &shown);
        if ["GLACIER", "DEEP_ARCHIVE"].contains(&version.storage_class.as_str()) {
            self.add(
                Code::StorageClassCold,
                place.clone(),
                "a class that is read at once",
                &version.storage_class,
            );
        }
        if let Some(key) = &shown.key
            && self.asked.mandate.store.kms_key.as_ref() != Some(key)
        {
            let named = self.asked.mandate.store.kms_key.clone();
            let mut finding = Finding::new(
                Code::EncryptionKey,
                place.clone(),
                named.clone().unwrap_or_else(|| "the store's own key".into()),
                key,
            );
            if named.is_some() {
                finding = finding.with(crate::finding::Severity::High, Effect::Policy);
            }
            self.out.findings.push(finding);
        }
        let Some((mode, until)) = shown.lock().map(|(mode, until)| (mode.to_owned(), until)) else {
            self.short += 1;
            match &shown.retention {
                Some(Retention::Denied(why)) if self.denied.is_none() => {
                    self.denied = Some(why.clone());
                    let expected = "s3:GetObjectRetention: without it a HEAD without lock says nothing";
                    self.add(Code::PermissionMissing, place, expected, why.clone());
                }
                Some(Retention::Unknown(why)) => {
                    self.add(Code::CouldNotRead, place, "an answer to GetObjectRetention", why.clone());
                }
                _ => {}
            }
            return;
        };
        self.contradiction(&place, &shown);
        self.locked(&place, version, &mode, until, sealed_at);
        if shown.hold {
            self.out.facts.holds += 1;
        }
        let before = self.out.kept.seen(name, &version.id).cloned();
        if let Some(before) = &before {
            let was = format!(
                "{} until {}, as seen at {}",
                before.mode,
                time::text(before.until),
                time::text(before.at)
            );
            if before.mode == "COMPLIANCE" && (mode != before.mode || until < before.until) {
                self.short += 1;
                let found = if mode.is_empty() {
                    "no lock".into()
                } else {
                    format!("{mode} until {}", time::text(until))
                };
                self.add(Code::RetentionReduced, place, was, found);
                // What was known stays: the store is held to it.
                return;
            }
        }
        let seen = Seen { mode, until, hold: shown.hold, at: self.asked.now, sealed_at };
        self.out.kept.versions.entry(name.clone()).or_default().insert(version.id.clone(), seen);
    }

    fn times(&mut self, place: &Place, version: &Version, sealed_at: Option<i64>) {
        let at = version.last_modified;
        if at > self.asked.now.saturating_add(SKEW) {
            let expected = format!("at most {}", time::text(self.asked.now));
            self.add(Code::StoreClockSkew, place.clone(), expected, format!("written at {}", time::text(at)));
        }
        let Some(sealed_at) = sealed_at else { return };
        let late = self.asked.mandate.store.late.unwrap_or(LATE);
        if at > sealed_at.saturating_add(late) {
            let expected =
                format!("written within {} of its seal's time {}", time::length(late), time::text(sealed_at));
            self.add(Code::LateWrite, place.clone(), expected, format!("written at {}", time::text(at)));
        } else if at < sealed_at.saturating_sub(SKEW) {
            let expected = format!("written after its seal's time {}", time::text(sealed_at));
            self.add(
                Code::TimeContradiction,
                place.clone(),
                expected,
                format!("written at {}", time::text(at)),
            );
        }
    }

    fn checksum(&mut self, name: &str, place: &Place, shown: &Shown) {
        let Some((_, ObjectName::Data { sha256, .. })) = versions::parse(name) else { return };
        match shown.sha256 {
            Some(stored) if stored != sha256 => {
                self.add(Code::ChecksumMismatch, place.clone(), sha256.to_string(), stored.to_string());
            }
            Some(_) => {}
            None => self.add(Code::ChecksumAbsent, place.clone(), "a SHA-256 that the store checked", "none"),
        }
    }

    fn contradiction(&mut self, place: &Place, shown: &Shown) {
        let Some(retention) = &shown.retention else { return };
        let said = match retention {
            Retention::Locked(mode, until) => format!("{mode} until {}", time::text(*until)),
            _ => "no retention".into(),
        };
        let head = if shown.mode.is_empty() {
            "no lock".into()
        } else {
            format!("{} until {}", shown.mode, time::text(shown.until))
        };
        let equal = match retention {
            // Some stores give the date in whole seconds in one of the two answers.
            Retention::Locked(mode, until) => {
                *mode == shown.mode && (until - shown.until).abs() < time::SECOND
            }
            _ => shown.mode.is_empty(),
        };
        if !equal {
            let finding = Finding::new(
                Code::LockContradiction,
                place.clone(),
                format!("GetObjectRetention: {said}"),
                format!("HEAD: {head}"),
            );
            // HEAD that keeps silent is harmless where GetObjectRetention speaks.
            let silent = shown.mode.is_empty();
            self.out.findings.push(if silent {
                finding.with(crate::finding::Severity::Medium, Effect::Note)
            } else {
                finding
            });
        }
    }

    fn locked(&mut self, place: &Place, version: &Version, mode: &str, until: i64, sealed_at: Option<i64>) {
        if mode != "COMPLIANCE" {
            self.short += 1;
            let found = if mode.is_empty() { "no lock" } else { mode };
            self.add(Code::NotWorm, place.clone(), "COMPLIANCE", found);
            return;
        }
        self.out.facts.locked += 1;
        self.out.facts.until = Some(self.out.facts.until.map_or(until, |earliest| earliest.min(until)));
        let from = sealed_at.unwrap_or(version.last_modified);
        let wanted = self.asked.mandate.retention.map(|kept| from.saturating_add(kept));
        let needed = wanted.unwrap_or(self.asked.now);
        // Where its time is over by the mandate, it may be deletable.
        if until < needed {
            self.short += 1;
            let expected = match wanted {
                Some(at) => format!("until {} or later", time::text(at)),
                None => format!("later than {}", time::text(needed)),
            };
            let finding = Finding::new(
                Code::RetentionShort,
                place.clone(),
                expected,
                format!("until {}", time::text(until)),
            );
            self.out.findings.push(if wanted.is_some() { finding } else { finding.as_note() });
        }
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
        let longest = spans.max().max(self.asked.mandate.retention);
        let (bucket, wanted) = (self.source.bucket().clone(), self.asked.mandate.retention);
        let read = self.source.run(settings::read(bucket, wanted, longest))?;
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

    fn conclude(&mut self, total: usize, read: usize, skipped: usize) {
        let listing = self.source.listing();
        let facts = &mut self.out.facts;
        (facts.versions, facts.markers) = (listing.versions, listing.markers);
        facts.read = read as u64;
        facts.read_earlier = total.saturating_sub(read).saturating_sub(skipped) as u64;
        facts.requests = self.source.bucket().requests();
        let asked_now: bool = !self.asked.only_new;
        if !asked_now {
            // What was read earlier counts as it was read then.
            for (name, versions) in &self.out.kept.versions {
                for (id, seen) in versions {
                    let listed = listing
                        .objects
                        .get(name)
                        .is_some_and(|named| named.versions.iter().any(|v| v.id == *id));
                    if listed && seen.at != self.asked.now {
                        let due = self
                            .asked
                            .mandate
                            .retention
                            .zip(seen.sealed_at)
                            .map(|(kept, at)| at.saturating_add(kept));
                        if seen.mode == "COMPLIANCE" && seen.until >= due.unwrap_or(self.asked.now) {
                            facts.locked += 1;
                            facts.until = Some(facts.until.map_or(seen.until, |until| until.min(seen.until)));
                        } else {
                            self.short += 1;
                        }
                    }
                }
            }
        }
        if skipped > 0 {
            self.out
                .not_checked
                .push(format!("lock state of {skipped} of {total} versions: a sample was asked for"));
        }
        if self.out.facts.read_earlier > 0 {
            let text = format!(
                "lock state of {} versions: read at an earlier visit, not again",
                self.out.facts.read_earlier
            );
            self.out.not_checked.push(text);
        }
        self.out.not_checked.push("legal holds against the records of holds: only counted".into());
        let probed = self.out.kept.probed.clone();
        if let Some(probed) = probed.as_ref().filter(|probed| !probed.failed.is_empty()) {
            let found = format!("the probe at {}: {}", time::text(probed.at), probed.failed.join(", "));
            self.add(
                Code::StoreNotWorm,
                Place::object("the store"),
                "a store that enforces retention",
                found,
            );
        }
        let probe = match &probed {
            Some(probed) => format!("probed at {}", time::text(probed.at)),
            None => "not probed".into(),
        };
        let bad = self.short > 0
            || [
                Code::RetentionReduced,
                Code::StoreNotWorm,
                Code::ListingIncomplete,
                Code::WrongSource,
                Code::NullVersion,
                Code::LockContradiction,
            ]
            .iter()
            .any(|code| {
                self.out.findings.iter().any(|finding| finding.code == *code && finding.effect > Effect::Note)
            });
        self.out.claim = if total == 0 {
            (false, "NO retention: no versions".into())
        } else if self.denied.is_some() {
            (false, "retention NOT judged (no permission)".into())
        } else if bad {
            (false, "retention NOT enforced throughout".into())
        } else if skipped > 0 {
            (false, format!("retention NOT read of every version ({skipped} of {total} left out)"))
        } else {
            let until = self
                .out
                .facts
                .until
                .map_or(String::new(), |until| format!(" at least until {}", time::text(until)));
            (true, format!("retention enforced: {total} versions locked{until}, {probe}"))
        };
        if self.out.findings.has(Code::Replicated) {
            self.out.not_checked.push("copies in other buckets: verify them by themselves".into());
        }
    }
}

/// `count` different numbers below `all`, by the system's random numbers; all of them where there are no more.
fn draw(all: usize, count: usize) -> BTreeSet<usize> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    if count >= all {
        return (0..all).collect();
    }
    let random = SystemRandom::new();
    let mut out = BTreeSet::new();
    let mut bytes = [0; 8];
    while out.len() < count {
        if random.fill(&mut bytes).is_err() {
            // Without random numbers the first ones are as good as none: the report says how many were left out.
            return (0..count).collect();
        }
        out.insert(usize::try_from(u64::from_le_bytes(bytes) % all as u64).unwrap_or(0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_as_many_as_were_asked_for() {
        assert_eq!(draw(10, 3).len(), 3);
        assert_eq!(draw(3, 10).len(), 3);
        assert!(draw(10, 9).iter().all(|n| *n < 10));
        assert_eq!("sample:5".parse(), Ok(LockState::Sample(5)));
        assert_eq!("all".parse(), Ok(LockState::All));
        assert!("sample:0".parse::<LockState>().is_err() && "some".parse::<LockState>().is_err());
    }
}
