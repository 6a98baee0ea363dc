//! Names with delete markers or several versions: which version is the sealed one, and what the others are.

use std::collections::BTreeMap;

use schemas::trust::Trust;
use schemas::{ObjectName, Origin, Sha256Hex, seal};

use crate::finding::{Code, Findings, Place};
use crate::source::s3::{Named, Version};
use crate::source::{Opened, S3Source, Source as _, SourceError};
use crate::time;

/// Names with several versions that are compared; beyond them the answer is "could not judge".
const MOST_COMPARED: usize = 10_000;

/// Where a name belongs: its log and its name in the format, where it has one.
pub(super) fn parse(name: &str) -> Option<(Origin, ObjectName)> {
    let (folder, last) = name.rsplit_once('/')?;
    let origin = Origin::new(folder).ok()?;
    let parsed = ObjectName::parse_file(&origin, last).ok()?;
    Some((origin, parsed))
}

/// Compares the versions of every name that has several, lets the sealed one stand for the name, and names every marker.
pub fn resolve(source: &mut S3Source, trust: &Trust) -> Findings {
    let mut findings = Findings::default();
    let mut several = Vec::new();
    for (name, named) in &source.listing().objects {
        if super::is_probe(name) {
            continue;
        }
        markers(name, named, &mut findings);
        for version in named.versions.iter().filter(|version| version.id == "null") {
            let found = format!("version `null` of {}", time::text(version.last_modified));
            findings.add(Code::NullVersion, Place::object(name), "a version id", found);
        }
        if named.versions.len() > 1 {
            several.push(name.clone());
        }
    }
    if several.len() > MOST_COMPARED {
        let found = format!("{} names with several versions", several.len());
        findings.add(Code::ResourceLimit, Place::default(), format!("at most {MOST_COMPARED}"), found);
        several.truncate(MOST_COMPARED);
    }
    for name in several {
        let chosen = compare(source, trust, &name, &mut findings);
        source.choose(&name, chosen);
    }
    findings
}

fn markers(name: &str, named: &Named, findings: &mut Findings) {
    for marker in &named.markers {
        let state = if marker.latest { "hides the name now" } else { "no longer on top" };
        let below = if named.versions.is_empty() { "; no version is under it" } else { "" };
        let found =
            format!("delete marker {} of {}, {state}{below}", marker.id, time::text(marker.last_modified));
        findings.add(Code::Hidden, Place::object(name), "no delete marker", found);
    }
}

/// One version's hash, and for a seal whether the trusted key signed it.
struct Read {
    hash: Sha256Hex,
    sealed: bool,
}

fn read(source: &S3Source, trust: &Trust, name: &str) -> Result<Read, SourceError> {
    let opened = source.open(name)?;
    let hash = super::hash(&opened).map_err(|error| SourceError::Io { name: name.into(), error })?;
    let sealed = match parse(name) {
        Some((_, ObjectName::Data { sha256, .. } | ObjectName::Anchor { sha256, .. })) => sha256 == hash,
        Some((origin, ObjectName::Seal { batch, .. })) => {
            let Opened::Memory(bytes) = &opened else { return Ok(Read { hash, sealed: false }) };
            let key = trust.gateway(&origin).and_then(|entry| entry.public_key().ok());
            key.and_then(|key| seal::verify(bytes, &key).ok())
                .is_some_and(|signed| signed.origin == origin && signed.batch == batch)
        }
        // A checkpoint is held against its seal when the registry is read.
        Some((_, ObjectName::Checkpoint { .. })) | None => false,
    };
    Ok(Read { hash, sealed })
}

fn compare(source: &mut S3Source, trust: &Trust, name: &str, findings: &mut Findings) -> usize {
    let Some(named) = source.listing().objects.get(name).cloned() else { return 0 };
    let mut reads = Vec::new();
    for n in 0..named.versions.len() {
        source.choose(name, n);
        match read(source, trust, name) {
            Ok(read) => reads.push(Some(read)),
            Err(error) => {
                reads.push(None);
                let place = Place::object(name).of_item(format!("version {}", named.versions[n].id));
                findings.push(crate::verify::batch::read_error(error, place));
            }
        }
    }
    let covered = reads.iter().position(|read| read.as_ref().is_some_and(|read| read.sealed));
    let chosen = covered.unwrap_or(0);
    let mut hashes: BTreeMap<Sha256Hex, Vec<usize>> = BTreeMap::new();
    for (n, read) in reads.iter().enumerate() {
        if let Some(read) = read {
            hashes.entry(read.hash).or_default().push(n);
        }
    }
    let id = |n: usize| named.versions.get(n).map_or("?", |version| version.id.as_str());
    if hashes.len() < 2 {
        if reads.iter().all(Option::is_some) {
            let found = format!("{} versions with the same bytes", reads.len());
            findings.add(Code::BenignRetry, Place::object(name), "one version", found);
        }
        return chosen;
    }
    let sealed: Vec<_> = reads.iter().flatten().filter(|read| read.sealed).map(|read| read.hash).collect();
    if sealed.windows(2).any(|pair| pair[0] != pair[1]) {
        let found = format!("{} versions, each signed by the trusted key", sealed.len());
        findings.add(Code::Equivocation, Place::object(name), "one seal", found);
    }
    let expected = match covered {
        Some(n) => format!("one version: {} is the sealed one", id(n)),
        None => "one version; none is the sealed one".into(),
    };
    let known = covered.and_then(|n| reads[n].as_ref()).map(|read| read.hash);
    for (n, version) in named.versions.iter().enumerate() {
        let Some(read) = reads[n].as_ref().filter(|read| Some(read.hash) != known) else { continue };
        let code = if marker_before(&named, version) { Code::Substituted } else { Code::Shadowed };
        let top = if version.latest { ", the newest" } else { "" };
        let found = format!(
            "version {} of {}{top}, SHA-256 {}",
            version.id,
            time::text(version.last_modified),
            read.hash
        );
        findings.add(code, Place::object(name), expected.clone(), found);
    }
    chosen
}

/// Whether a marker was put before this version, and after the first one.
fn marker_before(named: &Named, version: &Version) -> bool {
    let first = named.versions.first().map_or(i64::MAX, |first| first.last_modified);
    named
        .markers
        .iter()
        .any(|marker| marker.last_modified <= version.last_modified && marker.last_modified >= first)
        && named.versions.first() != Some(version)
}
