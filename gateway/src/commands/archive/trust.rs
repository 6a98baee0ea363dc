//! Whose seals an archiver takes: the trust file, read again when it changes, and the registry where it names one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use evidence::Store;
use evidence::archive::{Keys, Registered};
use schemas::trust::Trust;

/// How often the file is read again, and the registry read on.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// A trust file.
#[derive(Debug)]
pub(super) struct TrustFile {
    path: PathBuf,
    deployment: String,
    read: Mutex<Read>,
    current: RwLock<Arc<Trust>>,
}

/// What was read last.
#[derive(Debug)]
struct Read {
    text: String,
    registered: Option<Registered>,
    /// What was said of it last: once, until it changes.
    said: Option<String>,
}

impl TrustFile {
    /// Reads the file; the registry that it names is not read yet.
    ///
    /// # Errors
    /// No trust file of this deployment.
    pub(super) fn open(path: &Path, deployment: &str) -> Result<Self> {
        let (text, trust) = load(path, deployment)?;
        let registered = Registered::of(&trust);
        let read = Mutex::new(Read { text, registered, said: None });
        let (path, deployment) = (path.to_owned(), deployment.to_owned());
        Ok(Self { path, deployment, read, current: RwLock::new(Arc::new(trust)) })
    }

    /// Waits until the registry was read, where one is named; false where it was told to stop before.
    pub(super) fn wait(&self, store: &dyn Store, stop: &AtomicBool) -> bool {
        loop {
            if self.refresh(store) {
                return true;
            }
            if !pause(stop) {
                return false;
            }
        }
    }

    /// Reads again until told to stop.
    pub(super) fn follow(&self, store: &dyn Store, stop: &AtomicBool) {
        while pause(stop) {
            self.refresh(store);
        }
    }

    /// Reads the file again, and the registry on. What cannot be read leaves what was known; false then.
    fn refresh(&self, store: &dyn Store) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.read_again(&mut read, store);
        let problem = done.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(problem) = problem.as_ref().filter(|problem| read.said.as_ref() != Some(problem)) {
            tracing::error!(problem, "whose seals count cannot be read: what was known before counts on");
        }
        read.said = problem;
        done.is_ok()
    }

    fn read_again(&self, read: &mut Read, store: &dyn Store) -> Result<()> {
        let (text, trust) = load(&self.path, &self.deployment)?;
        if text != read.text {
            let registered = Registered::of(&trust);
            // Where a registry is named, its keys come before the file counts: until then the old ones do.
            if registered.is_none() {
                self.set(trust);
            }
            (read.text, read.registered) = (text, registered);
            tracing::info!(file = %self.path.display(), "the trust file was read again");
        }
        let Some(registered) = &mut read.registered else { return Ok(()) };
        let done = registered.read_on(store);
        let trust = registered.trust();
        if trust != *self.trust() {
            self.set(trust);
        }
        done.map(|_| ()).context("the registry")
    }

    fn set(&self, trust: Trust) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }
}

impl Keys for TrustFile {
    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits for a while; false where it was told to stop.
fn pause(stop: &AtomicBool) -> bool {
    let until = Instant::now() + AGAIN;
    while Instant::now() < until {
        if stop.load(Ordering::Acquire) {
            return false;
        }
        std::thread::sleep(TICK);
    }
    !stop.load(Ordering::Acquire)
}

fn load(path: &Path, deployment: &str) -> Result<(String, Trust)> {
    read(path, deployment).map_err(|error| anyhow!("`trust` is `{}`: {error:#}", path.display()))
}

/// Reads a trust file of this deployment: its text, and what it says.
///
/// # Errors
/// What it is else.
pub(super) fn read(path: &Path, deployment: &str) -> Result<(String, Trust)> {
    let text = std::fs::read_to_string(path)?;
    let trust: Trust = serde_saphyr::from_str(&text).map_err(|error| anyhow!("{error}"))?;
    let faults: Vec<String> = trust.check().iter().map(ToString::to_string).collect();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    let found = &trust.deployment;
    ensure!(*found == deployment, "it is of deployment `{found}`, wanted `{deployment}`");
    Ok((text, trust))
}

#[cfg(test)]
mod tests {
    use evidence::DirectoryStore;
    use evidence::disk::RealDisk;
    use schemas::trust::key_text;

    use super::*;

    fn text(deployment: &str, key: u8) -> String {
        let key = key_text(&[key; 32]);
        format!("v: 1\ndeployment: {deployment}\ngateways: [{{ name: gw1, key: \"{key}\" }}]\n")
    }

    #[test]
    fn a_changed_file_counts_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.yaml");
        let store = DirectoryStore::open(Arc::new(RealDisk), &folder.path().join("store")).unwrap();
        std::fs::write(&path, text("other", 1)).unwrap();
        assert!(TrustFile::open(&path, "acme").unwrap_err().to_string().contains("wanted `acme`"));
        std::fs::write(&path, text("acme", 1)).unwrap();
        let file = TrustFile::open(&path, "acme").unwrap();
        assert!(file.refresh(&store));
        for broken in
            ["v: 1\n".to_owned(), "{".to_owned(), text("other", 2), text("acme", 2).replace("v: 1", "v: 7")]
        {
            std::fs::write(&path, broken).unwrap();
            assert!(!file.refresh(&store));
            assert_eq!(file.trust().gateways[0].key, key_text(&[1; 32]));
        }
        std::fs::write(&path, text("acme", 2)).unwrap();
        assert!(file.refresh(&store));
        assert_eq!(file.trust().gateways[0].key, key_text(&[2; 32]));
    }
}
