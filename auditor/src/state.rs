//! The auditor's own memory: what it last saw of each log, authenticated by a local key.
//!
//! A folder that only the auditor's user can read: `key` (32 random bytes) and `visits.json` with its HMAC-SHA-256 as
//! first line. A state that does not authenticate, or is gone while its key is there, is named and never used.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use crate::bucket::probed::Probed;

/// What was last seen of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The trusted key, base64: under another key it is another log.
    pub key: String,
    /// The newest proven batch.
    pub batch: u64,
    /// Its end: the tree's size.
    pub size: u64,
    /// The tree's root at that size.
    pub root: Sha256Hex,
    /// SHA-256 of its seal.
    pub seal: Sha256Hex,
    /// When it was seen, microseconds UTC.
    pub seen_at: i64,
    /// The time of that seal: retention counts from it. Visits of earlier versions do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<i64>,
}

impl Visit {
    /// True where all that was seen may have been removed: its newest seal is older than the retention.
    pub(crate) fn is_expired(&self, retention: Option<i64>, now: i64) -> bool {
        let since = self.sealed_at.unwrap_or(self.seen_at);
        retention.is_some_and(|kept| since.saturating_add(kept) < now)
    }
}

/// What was last seen of all logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visits {
    /// By log.
    pub logs: BTreeMap<Origin, Visit>,
    /// By bucket and prefix: SHA-256 of what is kept of its versions ([`crate::bucket::kept`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<String, Sha256Hex>,
    /// By bucket and endpoint ([`crate::bucket::probed::id`]): the last probe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub probes: BTreeMap<String, Probed>,
}

impl Visits {
    /// Takes over what stands there and is farther: what was seen of a log only moves forward. Of two that saw another log
    /// at one size, the one that stands there stays.
    fn forward(&mut self, there: Self) {
        for (origin, theirs) in there.logs {
            let behind = |ours: &Visit| ours.key == theirs.key && ours.size <= theirs.size;
            let same = |ours: &Visit| ours.size == theirs.size && ours.root == theirs.root;
            match self.logs.get(&origin) {
                Some(ours) if !behind(ours) || (same(ours) && ours.seen_at >= theirs.seen_at) => {}
                _ => _ = self.logs.insert(origin, theirs),
            }
        }
        // Of a store that this visit was not to, the word of whoever was there stands.
        for (id, theirs) in there.stores {
            self.stores.entry(id).or_insert(theirs);
        }
        for (id, theirs) in there.probes {
            if self.probes.get(&id).is_none_or(|ours| ours.at < theirs.at) {
                self.probes.insert(id, theirs);
            }
        }
    }
}

/// What opening the state found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// No earlier visit.
    FirstVisit,
    /// An earlier visit.
    Known(Visits),
    /// The file does not authenticate.
    Tampered(String),
    /// The key is there, the file is not.
    Lost,
}

/// Why the state cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made, read or written.
    #[error("state folder `{}`: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for the state's key")]
    Random,
}

/// The state folder.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    key: hmac::Key,
    fresh: bool,
}

const KEY_FILE: &str = "key";
const VISITS_FILE: &str = "visits.json";
const VISITS_LABEL: &str = "affidavit/auditor/visits/v1";
const LOCK_FILE: &str = "lock";

/// What `visits.json` holds.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    visits: &'a Visits,
    /// Whether the access ledger has begun, and so has a head.
    access: bool,
}

/// What it says of the access ledger; those that earlier versions wrote say nothing.
#[derive(Deserialize)]
struct Began {
    #[serde(default)]
    access: bool,
}

/// The state folder while no other auditor writes to it.
#[derive(Debug)]
pub struct Exclusive<'a> {
    state: &'a State,
    _lock: fs::File,
}

impl Exclusive<'_> {
    /// Writes what was seen now, and gives what stands there then: what another auditor with this state saw in the
    /// meantime, and more of, stays. `visits` names of stores only those whose files this auditor wrote.
    ///
    /// # Errors
    /// The file cannot be written; what was there stays.
    pub fn remember(&self, visits: &Visits) -> Result<Visits, StateError> {
        let path = self.state.folder.join(VISITS_FILE);
        let failed = |error| StateError::Io { path: path.clone(), error };
        let mut visits = visits.clone();
        if let Ok(Remembered::Known(there)) = self.state.read() {
            visits.forward(there);
        }
        self.state.write_visits(&visits, self.state.has_ledger()).map_err(failed)?;
        Ok(visits)
    }
}

/// Waits until no other auditor writes to the folder; they do not for as long as the file is held.
fn lock(folder: &Path) -> io::Result<fs::File> {
    let file = lock_file(folder)?;
    file.lock()?;
    Ok(file)
}

/// As [`lock`], but does not wait.
fn try_lock(folder: &Path) -> io::Result<Option<fs::File>> {
    let file = lock_file(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn lock_file(folder: &Path) -> io::Result<fs::File> {
    let path = folder.join(LOCK_FILE);
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl State {
    /// Opens the folder, making it and its key where they are not there.
    ///
    /// # Errors
    /// [`StateError`]; nothing is changed where the folder is there and cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io { path, error }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let key_path = folder.join(KEY_FILE);
        let of = |bytes: &[u8], fresh| Self {
            folder: folder.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
            fresh,
        };
        match fs::read(&key_path) {
            Ok(bytes) => return Ok(of(&bytes, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&key_path)(error)),
        }
        // Of two that come first, one makes the key.
        let lock = lock(folder).map_err(failed(folder))?;
        if let Ok(bytes) = fs::read(&key_path) {
            return Ok(of(&bytes, false));
        }
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| StateError::Random)?;
        let state = of(&bytes, true);
        // Before the key: who finds one finds a ledger too.
        crate::access::begin(&state).map_err(failed(folder))?;
        write_private(&key_path, &bytes).map_err(failed(&key_path))?;
        // Whatever becomes of this visit, a later one does not take the state for lost.
        Exclusive { state: &state, _lock: lock }.remember(&Visits::default())?;
        Ok(state)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The MAC of `parts` under the local key. `label` keeps uses apart.
    pub fn mac(&self, label: &str, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(label.as_bytes());
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        hex::encode(context.sign().as_ref())
    }

    /// Whether the access ledger must have a head. Only in a state that an earlier version made, and that nothing was
    /// recorded in since, it need not.
    pub fn has_ledger(&self) -> bool {
        match self.read_authentic(&self.folder.join(VISITS_FILE), VISITS_LABEL) {
            Ok(Some(body)) => serde_json::from_slice::<Began>(&body).map_or(true, |began| began.access),
            _ => true,
        }
    }

    /// Notes in a state of an earlier version that its ledger has a head now.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn ledger_began(&self) -> Result<(), StateError> {
        if self.has_ledger() {
            return Ok(());
        }
        let path = self.folder.join(VISITS_FILE);
        let failed = |error| StateError::Io { path: path.clone(), error };
        // Whoever has it, perhaps this process, writes it as it was: then the next entry notes it.
        let Some(_lock) = try_lock(&self.folder).map_err(failed)? else { return Ok(()) };
        match self.read()? {
            Remembered::Known(visits) => self.write_visits(&visits, true).map_err(failed),
            _ => Ok(()),
        }
    }

    fn write_visits(&self, visits: &Visits, access: bool) -> io::Result<()> {
        let body = serde_json::to_vec(&Written { visits, access })?;
        self.write_authentic(&self.folder.join(VISITS_FILE), VISITS_LABEL, &body)
    }

    /// Reads what was seen before.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn remembered(&self) -> Result<Remembered, StateError> {
        match self.read()? {
            // Whoever made the key may be about to write it.
            Remembered::Lost => self.exclusive()?.state.read(),
            found => Ok(found),
        }
    }

    fn read(&self) -> Result<Remembered, StateError> {
        let path = self.folder.join(VISITS_FILE);
        match self.read_authentic(&path, VISITS_LABEL) {
            Ok(Some(body)) => Ok(match serde_json::from_slice(&body) {
                Ok(visits) if self.fresh && visits == Visits::default() => Remembered::FirstVisit,
                Ok(visits) => Remembered::Known(visits),
                Err(error) => Remembered::Tampered(error.to_string()),
            }),
            Ok(None) => Ok(Remembered::Tampered("its MAC does not fit the local key".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Remembered::Lost),
            Err(error) => Err(StateError::Io { path, error }),
        }
    }

    /// Keeps other auditors from writing to the folder, until what is given is dropped.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn exclusive(&self) -> Result<Exclusive<'_>, StateError> {
        let failed = |error| StateError::Io { path: self.folder.join(LOCK_FILE), error };
        Ok(Exclusive { state: self, _lock: lock(&self.folder).map_err(failed)? })
    }

    /// Writes what was seen now, as [`Exclusive::remember`].
    ///
    /// # Errors
    /// The file cannot be written; what was there stays.
    pub fn remember(&self, visits: &Visits) -> Result<(), StateError> {
        self.exclusive()?.remember(visits).map(drop)
    }

    /// Reads a file whose first line is its MAC. `None` where the MAC does not fit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_authentic(&self, path: &Path, label: &str) -> io::Result<Option<Vec<u8>>> {
        let bytes = fs::read(path)?;
        let Some((mac, body)) = bytes.split_at_checked(65) else { return Ok(None) };
        let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
        let fits = mac.strip_suffix(b"\n") == Some(self.mac(label, &[&name, body]).as_bytes());
        Ok(fits.then(|| body.to_vec()))
    }

    /// Writes a file with its MAC as first line, at once or not at all.
    ///
    /// # Errors
    /// The file cannot be written; what was there stays.
    pub fn write_authentic(&self, path: &Path, label: &str, body: &[u8]) -> io::Result<()> {
        let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
        let mut bytes = self.mac(label, &[&name, body]).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        write_private(path, &bytes)
    }
}

/// Writes a file that only its owner can read: beside it, synced, renamed over it.
///
/// # Errors
/// The file cannot be written; what was there stays.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()
}

/// The folder that a file is in; a bare name is one of the working folder.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_named_without_a_folder_is_in_the_working_folder() {
        for (path, folder) in [("file", "."), ("./file", "."), ("a/file", "a"), ("/file", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
        // What `auditor state export file` does.
        let name = format!("state-export-{}.test", std::process::id());
        write_private(Path::new(&name), b"x").unwrap();
        fs::remove_file(&name).unwrap();
    }

    fn visits() -> Visits {
        let origin = Origin::new("a/b/c").unwrap();
        let hash = Sha256Hex([1; 32]);
        let visit =
            Visit { key: "k".into(), batch: 1, size: 9, root: hash, seal: hash, seen_at: 5, sealed_at: None };
        Visits { logs: BTreeMap::from([(origin, visit)]), ..Visits::default() }
    }

    #[test]
    fn a_state_is_remembered_and_its_loss_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.remembered().unwrap(), Remembered::FirstVisit);
        state.remember(&visits()).unwrap();
        let again = State::open(dir.path()).unwrap();
        assert_eq!(again.remembered().unwrap(), Remembered::Known(visits()));
        fs::remove_file(dir.path().join(VISITS_FILE)).unwrap();
        assert_eq!(again.remembered().unwrap(), Remembered::Lost);
    }

    #[test]
    fn what_was_seen_only_moves_forward() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let at = |size, root, seen_at| {
            let mut visits = visits();
            for visit in visits.logs.values_mut() {
                (visit.size, visit.root, visit.seen_at) = (size, Sha256Hex([root; 32]), seen_at);
            }
            visits
        };
        for (now, known) in [
            (at(9, 1, 5), at(9, 1, 5)),
            // A slower auditor that began earlier.
            (at(7, 2, 4), at(9, 1, 5)),
            (at(9, 1, 6), at(9, 1, 6)),
            (at(9, 1, 2), at(9, 1, 6)),
            // One that saw another log at this size.
            (at(9, 3, 7), at(9, 1, 6)),
            (Visits::default(), at(9, 1, 6)),
            (at(12, 4, 7), at(12, 4, 7)),
        ] {
            state.remember(&now).unwrap();
            assert_eq!(state.remembered().unwrap(), Remembered::Known(known));
        }
    }

    #[test]
    fn a_store_that_another_auditor_visited_meanwhile_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let stores = |stores: &[(&str, u8)]| Visits {
            stores: stores.iter().map(|(id, hash)| ((*id).to_owned(), Sha256Hex([*hash; 32]))).collect(),
            ..visits()
        };
        state.remember(&stores(&[("a", 1), ("b", 1)])).unwrap();
        // Each names the one that it visited.
        let now = state.exclusive().unwrap().remember(&stores(&[("a", 2)])).unwrap();
        assert_eq!(now.stores, stores(&[("a", 2), ("b", 1)]).stores);
        state.remember(&stores(&[])).unwrap();
        let Remembered::Known(known) = state.remembered().unwrap() else { std::panic::panic_any("lost") };
        assert_eq!(known.stores, now.stores);
    }

    #[test]
    fn of_two_auditors_that_come_first_one_makes_the_key() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let open = || State::open(dir.path()).unwrap().mac("label", &[b"x"]);
            let macs = std::thread::scope(|scope| {
                [scope.spawn(open), scope.spawn(open)].map(|opened| opened.join().unwrap())
            });
            assert_eq!(macs[0], macs[1]);
            assert_eq!(macs[0], open());
        }
    }

    #[test]
    fn a_visit_that_came_to_nothing_leaves_no_lost_state() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path()).unwrap();
        let again = State::open(dir.path()).unwrap();
        assert_eq!(again.remembered().unwrap(), Remembered::Known(Visits::default()));
    }

    #[test]
    fn every_flipped_byte_of_state_and_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path()).unwrap().remember(&visits()).unwrap();
        for file in [VISITS_FILE, KEY_FILE] {
            let path = dir.path().join(file);
            let whole = fs::read(&path).unwrap();
            for n in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[n] ^= 1;
                fs::write(&path, &bytes).unwrap();
                let found = State::open(dir.path()).unwrap().remembered().unwrap();
                assert!(matches!(found, Remembered::Tampered(_)), "{file} byte {n}: {found:?}");
            }
            fs::write(&path, &whole).unwrap();
        }
    }
}
