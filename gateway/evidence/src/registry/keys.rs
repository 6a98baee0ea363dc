//! Key entries: from the folder into the registry.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use schemas::registry::{EntryBody, KeyAction, KeyStatement, State};

use super::bounds::Refused;
use super::{Registrar, RegistrarError, Take};

/// The largest file that is read as a key entry.
const LIMIT: u64 = 64 << 10;

impl Registrar {
    /// Takes in what the folder holds and the registry does not, of one action. True where anything was taken: the
    /// next call takes what is left.
    ///
    /// A file stays where it is; one that is no key entry, or not signed by the root key, is warned of and left.
    pub(super) fn keys(&mut self, trial: &mut State, take: &mut Take<'_>) -> Result<bool, RegistrarError> {
        let mut waiting = Vec::new();
        for path in self.paths()? {
            let shown = path.display().to_string();
            match read(&path) {
                Ok(None) => {}
                Ok(Some(note)) => {
                    match KeyStatement::verify(&note, &self.settings.deployment, &self.settings.root) {
                        Ok((action, entry)) => waiting.push((shown, action, entry)),
                        Err(error) => self.warn_once(&shown, &error.to_string()),
                    }
                }
                Err(error) => self.warn_once(&shown, &error.to_string()),
            }
        }
        // A key is added before it is rotated or revoked, whatever the files' names; and the caller looks at the logs
        // between the two, so that no log of an old key comes too late.
        waiting.sort_by_key(|(_, action, _)| *action);
        let mut taken = None;
        for (shown, action, entry) in waiting {
            if taken.is_some_and(|first| first != action) {
                break;
            }
            let known = trial.keys().get(&entry.key);
            let done = match action {
                KeyAction::Revoke => known.is_some_and(|key| key.revoked),
                _ => known.is_some(),
            };
            if done {
                continue;
            }
            match take(trial, EntryBody::of_key(action, entry)) {
                Ok(()) => taken = Some(action),
                Err(Refused::Full) => break,
                Err(Refused::Wrong(why)) => self.warn_once(&shown, &why),
            }
        }
        Ok(taken.is_some())
    }

    /// The files of the folder that are not hidden, in order.
    fn paths(&self) -> Result<Vec<PathBuf>, RegistrarError> {
        let folder = &self.settings.entries;
        let failed = |source| RegistrarError::Folder { path: folder.clone(), source };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// The bytes of a file; `None` where it went away meanwhile.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut note = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut note)?;
    if note.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than a key entry"));
    }
    Ok(Some(note))
}
