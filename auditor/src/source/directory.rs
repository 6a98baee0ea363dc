//! A store in a folder. Links are listed and never followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::{Entry, EntryKind, Opened, Source, SourceError};

/// A directory store.
#[derive(Debug, Clone)]
pub struct DirectorySource {
    root: PathBuf,
}

impl DirectorySource {
    /// The store under `root`.
    ///
    /// # Errors
    /// A path that is no folder.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder"));
        }
        Ok(Self { root })
    }

    /// The store's folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Source for DirectorySource {
    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }

    fn folders(&self) -> Result<Vec<String>, SourceError> {
        let mut out = Vec::new();
        let mut todo = vec![(String::new(), self.root.clone())];
        while let Some((name, path)) = todo.pop() {
            let failed = |error| SourceError::Io { name: path.display().to_string(), error };
            let mut holds = false;
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    let file_name = entry.file_name();
                    let last = file_name.to_string_lossy();
                    let child = if name.is_empty() { last.into_owned() } else { format!("{name}/{last}") };
                    todo.push((child, entry.path()));
                } else {
                    holds = true;
                }
            }
            if holds {
                out.push(name);
            }
        }
        out.sort();
        Ok(out)
    }

    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let path = self.path(folder);
        let failed = |error| SourceError::Io { name: path.display().to_string(), error };
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                continue;
            }
            let kind = match kind {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_symlink() => EntryKind::Symlink,
                _ => EntryKind::Other,
            };
            let metadata = entry.metadata().map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            out.push(Entry { name, kind, length: metadata.len(), stamp: stamp(&metadata) });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(CWD, self.path(name), flags, Mode::empty());
        let file = match opened {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Err(SourceError::Absent(name.into())),
            Err(error) => return Err(SourceError::Io { name: name.into(), error: error.into() }),
        };
        let metadata = file.metadata().map_err(|error| SourceError::Io { name: name.into(), error })?;
        if !metadata.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain file");
            return Err(SourceError::Io { name: name.into(), error });
        }
        Ok(Opened::File(file))
    }
}

/// File, and when its bytes or its inode were last changed: a time that nobody can set back by a call.
fn stamp(metadata: &std::fs::Metadata) -> String {
    let (inode, seconds, nanoseconds) = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
    format!("{inode} {seconds}.{nanoseconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_lists_everything_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/x"), b"12").unwrap();
        std::fs::write(dir.path().join("top"), b"1").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/link")).unwrap();
        let source = DirectorySource::new(dir.path()).unwrap();
        assert_eq!(source.folders().unwrap(), ["", "a", "a/b"]);
        assert_eq!(source.entries("a").unwrap()[0].kind, EntryKind::Symlink);
        assert!(source.open("a/link").is_err());
        assert_eq!(&source.read("a/b/x", 2).unwrap()[..], b"12");
        assert!(matches!(source.read("a/b/x", 1), Err(SourceError::TooLarge { found: 2, .. })));
        assert!(matches!(source.open("none"), Err(SourceError::Absent(_))));
    }
}
