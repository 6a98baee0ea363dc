//! Names with delete markers or several versions: which version is the sealed one, and what the others are.

use std::collections::BTreeMap;
use std::io::Read as _;

use parquet::file::reader::ChunkReader as _;
use schemas::digest::Hasher;
use schemas::registry::Checkpoint;
use schemas::trust::Trust;
use schemas::{ObjectName, Origin, Sha256Hex, seal};

use super::lifecycle;
use crate::finding::{Code, Findings, Place};
use crate::registry::{Beside, InForce, Reading};
use crate::source::s3::{Named, Version};
use crate::source::{Opened, S3Source, SourceError};
use crate::time;
use crate::verify::seal_name;

/// Names with several versions that are compared; beyond them the answer is "could not judge".
const MOST_COMPARED: usize = 10_000;
const LARGEST_NOTE: u64 = schemas::note::MAX_NOTE_BYTES as u64;

/// Where a name belongs: its log and its name in the format, where it has one.
pub(super) fn parse(name: &str) -> Option<(Origin, ObjectName)> {
    let (folder, last) = name.rsplit_once('/')?;
    let origin = Origin::new(folder).ok()?;
    let parsed = ObjectName::parse_file(&origin, last).ok()?;
    Some((origin, parsed))
}

/// Names every marker, compares the versions of every name that has several, and lets the sealed one stand for the name.
/// The registry comes first, where there is one: its entries say whose seals the others must be. Gives the keys in force.
pub(crate) fn resolve(
    source: &mut S3Source,
    trust: &Trust,
    beside: Beside<'_>,
    findings: &mut Findings,
) -> InForce {
    enum Turn {
        Registry,
        Checkpoint,
        Other,
    }
    let registry = trust.registry.as_ref().map(|registry| registry.origin.clone());
    let turn = |name: &str| match parse(name) {
        Some((origin, parsed)) if registry.as_ref() == Some(&origin) => match parsed {
            ObjectName::Checkpoint { .. } => Turn::Checkpoint,
            _ => Turn::Registry,
        },
        _ => Turn::Other,
    };
    mark(source, findings);
    let named = InForce::of(trust);
    compare_all(source, &named, |name| matches!(turn(name), Turn::Registry), findings);
    let mut in_force = InForce::read(&Reading::new(source, trust, beside));
    // Its first entry says by which key checkpoints are.
    if compare_all(source, &in_force, |name| matches!(turn(name), Turn::Checkpoint), findings) {
        in_force = InForce::read(&Reading::new(source, trust, beside));
    }
    compare_all(source, &in_force, |name| matches!(turn(name), Turn::Other), findings);
    in_force
}

/// Looks at the names that are picked. True where another version than before stands for some name.
fn compare_all(
    source: &mut S3Source,
    in_force: &InForce,
    pick: impl Fn(&str) -> bool,
    findings: &mut Findings,
) -> bool {
    let mut several = Vec::new();
    for (name, named) in &source.listing().objects {
        if super::is_probe(name) || !pick(name) {
            continue;
        }
        for version in named.versions.iter().filter(|version| version.id == "null") {
            let found = format!("version `null` of {}", time::text(version.last_modified));
            findings.add(Code::NullVersion, Place::object(name), "a version id", found);
        }
        if named.versions.len() > 1 {
            several.push((name.clone(), named.clone()));
        }
    }
    if several.len() > MOST_COMPARED {
        let found = format!("{} names with several versions", several.len());
        findings.add(Code::ResourceLimit, Place::default(), format!("at most {MOST_COMPARED}"), found);
        several.truncate(MOST_COMPARED);
    }
    let mut moved = false;
    for (name, named) in several {
        let chosen = compare(source, in_force, &name, &named, findings);
        moved |= chosen != named.chosen;
        source.choose(&name, chosen);
    }
    moved
}

/// Names every delete marker, and whose it may be.
fn mark(source: &S3Source, findings: &mut Findings) {
    let listing = source.listing();
    let marked =
        listing.objects.iter().filter(|(name, named)| !named.markers.is_empty() && !super::is_probe(name));
    let mut marked = marked.peekable();
    if marked.peek().is_none() {
        return;
    }
    let rules = match source.run(lifecycle::rules(source.bucket().clone())) {
        Ok(rules) => rules.map_err(|fault| fault.to_string()),
        Err(error) => Err(error.to_string()),
    };
    for (name, named) in marked {
        let below = if named.versions.is_empty() { "; no version is under it" } else { "" };
        for marker in &named.markers {
            let state = if marker.latest { "hides the name now" } else { "no longer on top" };
            let (id, put) = (&marker.id, time::text(marker.last_modified));
            let whose = lifecycle::whose(&rules, &source.bucket().key(name), named, marker);
            let found = format!("delete marker {id} of {put}, {state}{below}; {whose}");
            findings.add(Code::Hidden, Place::object(name), "no delete marker", found);
        }
    }
}

/// One version's hash, and whether it is the one that belongs under its name: of a seal or checkpoint, whether the key in
/// force signed it.
struct Read {
    hash: Sha256Hex,
    sealed: bool,
}

fn hash(opened: &Opened) -> std::io::Result<Sha256Hex> {
    let mut reader = opened.get_read(0).map_err(std::io::Error::other)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn read(source: &S3Source, in_force: &InForce, name: &str, version: &Version) -> Result<Read, SourceError> {
    let opened = source.open_version(name, version)?;
    let hash = hash(&opened).map_err(|error| SourceError::Io { name: name.into(), error })?;
    let sealed = match (parse(name), &opened) {
        (Some((_, ObjectName::Data { sha256, .. } | ObjectName::Anchor { sha256, .. })), _) => sha256 == hash,
        (Some((origin, ObjectName::Seal { batch, .. })), Opened::Memory(bytes)) => {
            let signed = in_force.keys(&origin).iter().find_map(|key| seal::verify(bytes, key).ok());
            signed.is_some_and(|signed| signed.origin == origin && signed.batch == batch)
        }
        (Some((origin, ObjectName::Checkpoint { batch, .. })), Opened::Memory(bytes)) => {
            let signed = in_force.checkpoint_key().and_then(|key| Checkpoint::verify(bytes, &key).ok());
            let beside = source.read_all(vec![seal_name(&origin, batch)], LARGEST_NOTE).ok();
            let beside = beside.and_then(|mut notes| seal::parse_unverified(&notes.pop()??).ok());
            signed.zip(beside).is_some_and(|((signed, _), seal)| signed == Checkpoint::of(&seal))
        }
        _ => false,
    };
    Ok(Read { hash, sealed })
}

/// Which version stands for the name.
fn compare(
    source: &S3Source,
    in_force: &InForce,
    name: &str,
    named: &Named,
    findings: &mut Findings,
) -> usize {
    let mut reads = Vec::new();
    for version in &named.versions {
        match read(source, in_force, name, version) {
            Ok(read) => reads.push(Some(read)),
            Err(error) => {
                reads.push(None);
                let place = Place::object(name).of_item(format!("version {}", version.id));
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
        let code = if marker_before(named, version) { Code::Substituted } else { Code::Shadowed };
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
