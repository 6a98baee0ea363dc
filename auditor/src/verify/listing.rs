//! What a store holds, by log and batch. Nothing is left out: a name that is not the format's is a finding.

use std::collections::BTreeMap;

use schemas::names::{AnchorKind, FileKind};
use schemas::{ObjectName, Origin, Sha256Hex};

use super::batch::read_error;
use crate::finding::{Code, Findings, Place};
use crate::source::{Entry, EntryKind, LEFTOVERS, Source, SourceError};

/// Where `auditor probe` writes what it tries a store with.
pub(crate) const PROBES: &str = ".affidavit-probe";

/// A data file of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// The SHA-256 that its name claims.
    pub sha256: Sha256Hex,
    /// What it holds.
    pub kind: FileKind,
    /// Its length.
    pub length: u64,
}

/// The objects of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BatchObjects {
    /// The seal's length, where there is one.
    pub seal: Option<u64>,
    /// Whether there is a checkpoint (registries only).
    pub checkpoint: bool,
    /// What others said of the checkpoint (registries only).
    pub anchors: Vec<(AnchorKind, Sha256Hex)>,
    /// The data files.
    pub data: Vec<DataFile>,
    /// A mark of all its objects as they are listed: another one where any of them is new, gone or changed.
    pub mark: u64,
}

impl BatchObjects {
    /// Takes one more object into the mark. Entries come in the order of their names.
    fn marks(&mut self, entry: &Entry) {
        let text = format!("{} {} {} {}", self.mark, entry.name, entry.length, entry.stamp);
        let [a, b, c, d, e, f, g, h, ..] = Sha256Hex::of(text.as_bytes()).0;
        self.mark = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    }
}

/// The objects of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogListing {
    /// The log.
    pub origin: Origin,
    /// By batch number.
    pub batches: BTreeMap<u64, BatchObjects>,
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The folders of a store.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// Folders that have the name of a log.
    pub logs: Vec<Origin>,
    /// Objects that are not in a log's folder.
    pub strangers: u64,
    /// Folders that could not be listed.
    pub unlisted: Unlisted,
}

/// Folders that could not be listed: what is not seen may be in them.
#[derive(Debug, Default)]
pub(crate) struct Unlisted(Vec<String>);

impl Unlisted {
    /// Adds a folder, and names it.
    pub(crate) fn add(&mut self, folder: &str, error: SourceError, findings: &mut Findings) {
        let place = if folder.is_empty() { Place::default() } else { Place::object(folder) };
        findings.push(read_error(error, place));
        self.0.push(folder.to_owned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a folder of this name may be below one of them, or is one.
    pub(crate) fn may_hold(&self, name: &str) -> bool {
        self.0.iter().any(|folder| is_below(name, folder))
    }

    /// Whether a log below a folder of this name may not have been seen.
    pub(crate) fn may_hide_of(&self, name: &str) -> bool {
        self.may_hold(name) || self.0.iter().any(|folder| is_below(folder, name) && leads_to_log(folder))
    }
}

/// Whether a log may be in a folder of this name, or below it.
fn leads_to_log(folder: &str) -> bool {
    let missing = 2_usize.saturating_sub(folder.matches('/').count());
    Origin::new(format!("{folder}{}", "/0".repeat(missing))).is_ok()
}

fn is_below(name: &str, folder: &str) -> bool {
    let rest = name.strip_prefix(folder);
    folder.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Lists the folders, and names everything that stands outside of a log's folder, or could not be listed.
pub(crate) fn folders(source: &dyn Source, findings: &mut Findings) -> Folders {
    let mut out = Folders::default();
    let listed = source.folders();
    for (folder, error) in listed.unlisted {
        out.unlisted.add(&folder, error, findings);
    }
    out.strangers += listed.strangers.len() as u64;
    for (name, kind) in listed.strangers {
        stranger(name, kind, findings);
    }
    for folder in listed.names {
        if let Ok(origin) = Origin::new(folder.as_str()) {
            out.logs.push(origin);
            continue;
        }
        let entries = match source.entries(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                out.unlisted.add(&folder, error, findings);
                continue;
            }
        };
        out.strangers += entries.len() as u64;
        if folder == LEFTOVERS {
            let found = format!("{} unfinished writes", entries.len());
            findings.add(Code::Leftover, Place::object(folder), "nothing, or writes under way", found);
            continue;
        }
        if folder.split('/').next() == Some(PROBES) {
            let found = format!("{} objects of a probe", entries.len());
            findings.add(Code::Leftover, Place::object(folder), "nothing, or what probes left locked", found);
            continue;
        }
        for entry in entries {
            let name = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
            stranger(name, entry.kind, findings);
        }
    }
    out
}

fn stranger(name: String, kind: EntryKind, findings: &mut Findings) {
    match kind {
        EntryKind::File => {
            let expected = "`<deployment>/<gateway>/<epoch>/<batch>.seal` or a data file of the batch";
            findings.add(Code::UnknownObject, Place::object(name), expected, "another name");
        }
        EntryKind::Symlink => {
            findings.add(Code::NotAFile, Place::object(name), "a plain file", "a symbolic link")
        }
        EntryKind::Other => {
            findings.add(Code::NotAFile, Place::object(name), "a plain file", "a device, pipe or socket")
        }
    }
}

/// Lists the objects of one log, and names everything in its folder that is none.
///
/// # Errors
/// The folder cannot be listed.
pub(crate) fn log(
    source: &dyn Source,
    origin: &Origin,
    findings: &mut Findings,
) -> Result<LogListing, SourceError> {
    let mut out = LogListing { origin: origin.clone(), batches: BTreeMap::new(), objects: 0, bytes: 0 };
    for entry in source.entries(origin.as_str())? {
        out.objects += 1;
        out.bytes += entry.length;
        let parsed = ObjectName::parse_file(origin, &entry.name);
        let (EntryKind::File, Ok(name)) = (entry.kind, parsed) else {
            stranger(format!("{origin}/{}", entry.name), entry.kind, findings);
            continue;
        };
        let batch = out.batches.entry(name.batch()).or_default();
        batch.marks(&entry);
        match name {
            ObjectName::Seal { .. } => batch.seal = Some(entry.length),
            ObjectName::Checkpoint { .. } => batch.checkpoint = true,
            ObjectName::Anchor { sha256, kind, .. } => batch.anchors.push((kind, sha256)),
            ObjectName::Data { sha256, kind, .. } => {
                batch.data.push(DataFile { sha256, kind, length: entry.length })
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;

    #[test]
    fn only_what_leads_to_a_log_hides_one() {
        let hides = |folder: &str| Unlisted(vec![folder.into()]).may_hide_of("acme");
        for folder in ["", "acme", "acme/gw1", "acme/gw1/e1"] {
            assert!(hides(folder), "{folder}");
        }
        for folder in ["other", "acme/gw1/e1/x", "acme/gw1/E1", "acme/.x", "acme/.x/e1"] {
            assert!(!hides(folder), "{folder}");
        }
    }

    #[test]
    fn everything_that_is_no_evidence_is_named() {
        let mut store = MemorySource::default();
        let hash = Sha256Hex([3; 32]);
        store.put("a/b/c/0000000000.seal", "x");
        store.put(format!("a/b/c/0000000000-{hash}.records.parquet"), "x");
        store.put("a/b/c/readme.txt", "x");
        store.put("a/b/c/k=v/0000000000.seal", "x");
        store.put("trust.yaml", "x");
        store.put(".tmp/1", "x");
        store.put(".affidavit-probe/1/canary", "x");
        store.links.insert("a/b/c/0000000001.seal".into());
        let mut findings = Findings::default();
        let folders = folders(&store, &mut findings);
        let log = log(&store, &folders.logs[0], &mut findings).unwrap();
        assert_eq!(log.batches.len(), 1);
        assert_eq!(findings.counts()[&Code::UnknownObject], 3);
        assert_eq!(findings.counts()[&Code::NotAFile], 1);
        assert_eq!(findings.counts()[&Code::Leftover], 2);
    }
}
