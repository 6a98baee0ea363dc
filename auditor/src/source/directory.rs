//! A store in a folder. Links are listed and never followed.

use std::ffi::OsString;
use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::{Entry, EntryKind, Folders, Opened, Source, SourceError};

/// Where a directory store keeps unfinished writes.
pub(crate) const LEFTOVERS: &str = ".tmp";

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

    fn folders(&self) -> Folders {
        let mut out = Folders::default();
        let mut todo = vec![(String::new(), self.root.clone(), true)];
        while let Some((name, path, is_text)) = todo.pop() {
            let entries = match entries_of(&path) {
                Ok(entries) => entries,
                // It went while the store was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path != self.root => continue,
                Err(error) => {
                    let failed = SourceError::Io { name: path.display().to_string(), error };
                    out.unlisted.push((name, failed));
                    continue;
                }
            };
            let mut holds = false;
            for (last, file_type) in entries {
                let text = last.to_string_lossy();
                let child = if name.is_empty() { text.into_owned() } else { format!("{name}/{text}") };
                if file_type.is_dir() {
                    todo.push((child, path.join(&last), is_text && last.to_str().is_some()));
                } else if is_text {
                    holds = true;
                } else {
                    out.strangers.push((child, kind(file_type)));
                }
            }
            if holds {
                out.names.push(name);
            }
        }
        out.names.sort();
        out.strangers.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let path = self.path(folder);
        let failed = |error| SourceError::Io { name: path.display().to_string(), error };
        let mut out = Vec::new();
        let entries = match entries_of(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
            Err(error) => return Err(failed(error)),
        };
        for (name, file_type) in entries {
            if file_type.is_dir() {
                continue;
            }
            let (length, stamp) = if folder == LEFTOVERS {
                // They come and go while the store is written, and are only counted.
                (0, String::new())
            } else {
                match std::fs::symlink_metadata(path.join(&name)) {
                    Ok(metadata) => (metadata.len(), stamp(&metadata)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                }
            };
            let name = name.to_string_lossy().into_owned();
            out.push(Entry { name, kind: kind(file_type), length, stamp });
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

/// What a folder holds: names and what they stand for. What went while it was listed is left out.
fn entries_of(folder: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(file_type) => out.push((entry.file_name(), file_type)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

fn kind(file_type: FileType) -> EntryKind {
    match file_type {
        file_type if file_type.is_file() => EntryKind::File,
        file_type if file_type.is_symlink() => EntryKind::Symlink,
        _ => EntryKind::Other,
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
        assert_eq!(source.folders().names, ["", "a", "a/b"]);
        assert_eq!(source.entries("a").unwrap()[0].kind, EntryKind::Symlink);
        assert!(source.open("a/link").is_err());
        assert_eq!(&source.read("a/b/x", 2).unwrap()[..], b"12");
        assert!(matches!(source.read("a/b/x", 1), Err(SourceError::TooLarge { found: 2, .. })));
        assert!(matches!(source.open("none"), Err(SourceError::Absent(_))));
    }

    #[test]
    fn a_name_that_is_no_text_and_a_folder_that_cannot_be_listed_leave_the_others_listed() {
        use std::os::unix::ffi::OsStringExt as _;
        let dir = tempfile::tempdir().unwrap();
        let bad = dir.path().join(OsString::from_vec(b"a\xff".to_vec()));
        std::fs::create_dir_all(bad.join("b")).unwrap();
        std::fs::write(bad.join("b/x"), b"1").unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        std::fs::write(dir.path().join("c").join(OsString::from_vec(b"y\xff".to_vec())), b"1").unwrap();
        // Longer than any path that the system takes.
        too_deep(dir.path());
        let source = DirectorySource::new(dir.path()).unwrap();
        let folders = source.folders();
        assert_eq!(folders.names, ["c"]);
        assert_eq!(folders.strangers, [("a\u{fffd}/b/x".to_owned(), EntryKind::File)]);
        assert_eq!(source.entries("c").unwrap()[0].name, "y\u{fffd}");
        assert_eq!(folders.unlisted.len(), 1);
        let (name, error) = &folders.unlisted[0];
        assert!(name.starts_with("deep/") && error.to_string().contains(name.as_str()), "{error}");
    }

    /// Makes a folder `deep` whose folders cannot all be listed, whoever asks.
    fn too_deep(root: &Path) {
        let chain = |name: &str| {
            let top = root.join(name);
            let mut path = top.clone();
            (0..10).for_each(|_| path.push("d".repeat(250)));
            std::fs::create_dir_all(&path).unwrap();
            (top, path)
        };
        let ((_, end), (other, _)) = (chain("deep"), chain("other"));
        std::fs::rename(other, end.join("e")).unwrap();
    }
}
