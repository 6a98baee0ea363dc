//! A store in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schemas::Sha256Hex;

use super::{Entry, EntryKind, Folders, Opened, Source, SourceError};

/// A store in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemorySource {
    /// Name relative to the prefix, and bytes.
    pub objects: BTreeMap<String, Bytes>,
    /// Names that are symbolic links.
    pub links: BTreeSet<String>,
}

impl MemorySource {
    /// Puts an object.
    pub fn put(&mut self, name: impl Into<String>, bytes: impl Into<Bytes>) {
        self.objects.insert(name.into(), bytes.into());
    }
    /// Reads a folder with everything under it.
    ///
    /// # Errors
    /// Anything that cannot be read.
    pub fn load(source: &dyn Source) -> Result<Self, SourceError> {
        let mut out = Self::default();
        let folders = source.folders();
        if let Some((_, error)) = folders.unlisted.into_iter().next() {
            return Err(error);
        }
        for folder in folders.names {
            for entry in source.entries(&folder)? {
                let name = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
                if entry.kind == EntryKind::File {
                    out.put(name.clone(), source.read(&name, u64::MAX - 1)?);
                }
            }
        }
        Ok(out)
    }
    fn split(name: &str) -> (&str, &str) {
        name.rsplit_once('/').unwrap_or(("", name))
    }
}

impl Source for MemorySource {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn folders(&self) -> Folders {
        let names = self.objects.keys().chain(&self.links);
        let folders: BTreeSet<&str> = names.map(|name| Self::split(name).0).collect();
        Folders { names: folders.into_iter().map(str::to_owned).collect(), ..Folders::default() }
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let here = |name: &&str| Self::split(name).0 == folder;
        let files = self.objects.iter().filter(|(name, _)| here(&name.as_str())).map(|(name, bytes)| Entry {
            name: Self::split(name).1.into(),
            kind: EntryKind::File,
            length: bytes.len() as u64,
            stamp: Sha256Hex::of(bytes).to_string(),
        });
        let links = self.links.iter().filter(|name| here(&name.as_str())).map(|name| Entry {
            name: Self::split(name).1.into(),
            kind: EntryKind::Symlink,
            length: 0,
            stamp: String::new(),
        });
        let mut out: Vec<_> = files.chain(links).collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        self.objects.get(name).cloned().map(Opened::Memory).ok_or_else(|| SourceError::Absent(name.into()))
    }
}
