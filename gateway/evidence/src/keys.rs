//! The key table: data keys outside the evidence store, so that destroying one erases content.
//!
//! Pages of keys are made ahead, fsynced with their names, and owned by one epoch: a key is durable before any frame is
//! encrypted under it, at no fsync on the path. `schemas::keytable` has the bytes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::content::DataKey;
use schemas::keytable::{self, KeyId, Slot};
use schemas::{Identifier, Origin};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::admission::KeyScope;
use crate::cipher::ContentKey;
use crate::disk::{self, SharedDisk};
use crate::error::{Reason, Unavailable};

/// Pages that stand ready: a burst empties one while the next is made.
const READY_PAGES: usize = 3;
const DAY_US: i64 = 86_400 * 1_000_000;

/// Hands out keys of one epoch.
pub(crate) struct KeyTable {
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    disk: SharedDisk,
    folder: PathBuf,
    origin: Origin,
    state: Mutex<State>,
    /// For callers: a page is ready, or cannot be made.
    made: Notify,
    /// For the maker.
    taken: std::sync::Condvar,
}

#[derive(Default)]
struct State {
    pages: VecDeque<Ready>,
    next_page: u32,
    daily: HashMap<(String, i64), Arc<ContentKey>>,
    failed: Option<String>,
    closed: bool,
}

struct Ready {
    page: u32,
    keys: Vec<[u8; 32]>,
    next: u16,
}

impl Drop for Ready {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.keys);
    }
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyTable").field("origin", &self.shared.origin).finish_non_exhaustive()
    }
}

impl KeyTable {
    /// Makes the epoch's first page.
    pub(crate) fn create(disk: SharedDisk, folder: &Path, origin: Origin) -> io::Result<Self> {
        let shared = Shared {
            disk,
            folder: folder.to_owned(),
            origin,
            state: Mutex::default(),
            made: Notify::new(),
            taken: std::sync::Condvar::new(),
        };
        let shared = Arc::new(shared);
        let first = make_page(&shared, 0)?;
        {
            let mut state = shared.state();
            state.pages.push_back(first);
            state.next_page = 1;
        }
        let maker = shared.clone();
        let maker =
            std::thread::Builder::new().name("evidence-keys".into()).spawn(move || maker.make_ahead())?;
        Ok(Self { shared, maker: Mutex::new(Some(maker)) })
    }

    /// A key for an exchange. Waits only where a burst has used up all pages that were ready.
    pub(crate) async fn take(&self, scope: &KeyScope, now_us: i64) -> Result<Arc<ContentKey>, Unavailable> {
        loop {
            let made = self.shared.made.notified();
            if let Some(key) = self.shared.try_take(scope, now_us)? {
                return Ok(key);
            }
            // A page takes milliseconds; the bound is for a wake-up that another caller took.
            let _ = tokio::time::timeout(Duration::from_millis(50), made).await;
        }
    }

    /// Gives out no shared key of these ids any more, and says whether it had one; fails with one that an exchange has,
    /// and then goes on giving out all of them.
    pub(crate) fn retire(&self, ids: &BTreeSet<Identifier>) -> Result<bool, Identifier> {
        // A handle comes from under this lock, or from an exchange that has one: what nobody has nobody gets.
        let mut state = self.shared.state();
        let busy = state.daily.values().find(|key| ids.contains(&key.id) && Arc::strong_count(key) > 1);
        if let Some(key) = busy {
            return Err(key.id.clone());
        }
        let before = state.daily.len();
        state.daily.retain(|_, key| !ids.contains(&key.id));
        Ok(state.daily.len() < before)
    }

    pub(crate) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.taken.notify_all();
        let maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(maker) = maker {
            // It holds nothing that is not on disk.
            let _ = maker.join();
        }
    }
}

impl Drop for KeyTable {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self, scope: &KeyScope, now_us: i64) -> Result<Option<Arc<ContentKey>>, Unavailable> {
        let mut state = self.state();
        let shared = match scope {
            KeyScope::PerExchange => None,
            KeyScope::PerDay { who } => Some((who.clone(), now_us.div_euclid(DAY_US))),
        };
        if let Some(key) = shared.as_ref().and_then(|shared| state.daily.get(shared)) {
            return Ok(Some(key.clone()));
        }
        let Some(ready) = state.pages.front_mut() else {
            let why = state.failed.take();
            self.taken.notify_all();
            return match why {
                Some(why) => Err(Unavailable::new(Reason::DiskFull, why)),
                None => Ok(None),
            };
        };
        let (page, slot) = (ready.page, ready.next);
        let bytes = ready.keys.get(usize::from(slot)).copied();
        ready.next += 1;
        if usize::from(ready.next) >= ready.keys.len() {
            state.pages.pop_front();
            self.taken.notify_all();
        }
        let refused = |what: String| Unavailable::new(Reason::RecordRefused, what);
        let bytes = bytes.ok_or_else(|| refused("an empty page of the key table".into()))?;
        let id = KeyId { origin: self.origin.clone(), page, slot }.to_identifier();
        let key = Arc::new(ContentKey::new(id, &bytes).map_err(|error| refused(error.to_string()))?);
        if let Some((who, day)) = shared {
            // Yesterday's keys are not given out again.
            state.daily.retain(|(_, of), _| *of >= day - 1);
            state.daily.insert((who, day), key.clone());
        }
        Ok(Some(key))
    }

    fn make_ahead(&self) {
        loop {
            let page = {
                let mut state = self.state();
                while !state.closed && (state.pages.len() >= READY_PAGES || state.failed.is_some()) {
                    state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.closed {
                    return;
                }
                let page = state.next_page;
                // A page that could not be made whole is never tried again under its number.
                state.next_page += 1;
                page
            };
            match make_page(self, page) {
                Ok(ready) => self.state().pages.push_back(ready),
                Err(error) => {
                    tracing::warn!(%error, page, "no page for the key table");
                    self.state().failed = Some(format!("no page for the key table: {error}"));
                }
            }
            self.made.notify_waiters();
        }
    }
}

fn make_page(shared: &Shared, page: u32) -> io::Result<Ready> {
    let mut keys = vec![[0; 32]; usize::from(keytable::SLOTS_PER_PAGE)];
    for key in &mut keys {
        SystemRandom::new().fill(key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    }
    let path = shared.folder.join(keytable::page_path(&shared.origin, page));
    let folder = disk::parent(&path);
    disk::create_dir_all(&*shared.disk, folder)?;
    let bytes = keytable::encode_page(&shared.origin, page, &keys).map_err(io::Error::other)?;
    if let Err(error) = disk::write_new(&*shared.disk, &path, &bytes) {
        // Nothing was given out from it.
        let _ = shared.disk.unlink(&path);
        return Err(error);
    }
    shared.disk.sync_dir(folder)?;
    Ok(Ready { page, keys, next: 0 })
}

/// Looks up and destroys keys of any epoch.
#[derive(Debug, Clone)]
pub(crate) struct KeyFolder {
    disk: SharedDisk,
    folder: PathBuf,
}

/// Why a key could not be read or destroyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// No key id of this table.
    #[error("`{0}` names no key of a key table")]
    Name(String),
    /// The page is not there, not readable, or not a page.
    #[error("key `{id}`: `{path}`: {detail}")]
    Page { id: String, path: String, detail: String },
}

/// What a lookup found.
#[derive(Debug, Clone)]
pub(crate) enum Looked {
    Key(DataKey),
    Destroyed,
}

impl KeyFolder {
    pub(crate) fn new(disk: SharedDisk, folder: &Path) -> Self {
        Self { disk, folder: folder.to_owned() }
    }

    /// The id's parts and its page's path.
    fn page(&self, id: &Identifier) -> Result<(KeyId, PathBuf), KeyError> {
        let key = KeyId::parse(id).map_err(|_| KeyError::Name(id.to_string()))?;
        let path = self.folder.join(keytable::page_path(&key.origin, key.page));
        Ok((key, path))
    }

    /// Reads the page's header and the one slot: a page has a thousand others.
    fn slot(&self, key: &KeyId, path: &Path) -> Result<Slot, String> {
        let read = || -> io::Result<_> {
            let file = self.disk.open_read(path)?;
            let mut header = [0; keytable::HEADER_BYTES];
            let mut slot = Zeroizing::new([0; keytable::SLOT_BYTES]);
            disk::read_full(&*file, &mut header, 0)?;
            disk::read_full(&*file, &mut *slot, keytable::slot_offset(key.slot))?;
            Ok((header, slot, file.len()?))
        };
        let (header, slot, length) = read().map_err(|error| error.to_string())?;
        keytable::decode_slot(key, &header, &slot, length).map_err(|error| error.to_string())
    }

    /// The key of this id.
    pub(crate) fn look(&self, id: &Identifier) -> Result<Looked, KeyError> {
        let (key, path) = self.page(id)?;
        let failed =
            |detail: String| KeyError::Page { id: id.to_string(), path: path.display().to_string(), detail };
        match self.slot(&key, &path).map_err(failed)? {
            Slot::Key(key) => Ok(Looked::Key(key)),
            Slot::Destroyed => Ok(Looked::Destroyed),
            Slot::Damaged => Err(failed("the slot is damaged".into())),
            Slot::Absent => Err(failed("the page has no such slot".into())),
        }
    }

    /// Overwrites the key with zeros; durable on return. A key that is destroyed already stays so.
    pub(crate) fn destroy(&self, id: &Identifier) -> Result<(), KeyError> {
        let (key, path) = self.page(id)?;
        let failed =
            |detail: String| KeyError::Page { id: id.to_string(), path: path.display().to_string(), detail };
        // Only a slot of a whole page is overwritten. A damaged slot may be one that was destroyed by halves.
        if let Slot::Absent = self.slot(&key, &path).map_err(failed)? {
            return Err(failed("the page has no such slot".into()));
        }
        let file = self.disk.open(&path).map_err(|error| failed(error.to_string()))?;
        file.write_at(&[IoSlice::new(&keytable::DESTROYED)], keytable::slot_offset(key.slot))
            .and_then(|()| file.sync_data())
            .map_err(|error| failed(error.to_string()))?;
        match self.slot(&key, &path).map_err(failed)? {
            Slot::Destroyed => Ok(()),
            _ => Err(failed("the slot is not empty after it was overwritten".into())),
        }
    }
}

/// Keys for reading content back, a few in memory.
#[derive(Debug)]
pub(crate) struct KeyCache {
    folder: KeyFolder,
    keys: VecDeque<(Identifier, Option<Arc<CachedKey>>)>,
}

/// A key in both its uses.
#[derive(Debug)]
pub(crate) struct CachedKey {
    pub(crate) frame: ContentKey,
    pub(crate) row: DataKey,
    pub(crate) id: KeyId,
}

const CACHED_KEYS: usize = 64;

impl KeyCache {
    pub(crate) fn new(folder: KeyFolder) -> Self {
        Self { folder, keys: VecDeque::new() }
    }

    /// The key of this id; `None` where it was destroyed.
    pub(crate) fn key(&mut self, id: &Identifier) -> Result<Option<Arc<CachedKey>>, KeyError> {
        if let Some((_, key)) = self.keys.iter().find(|(known, _)| known == id) {
            return Ok(key.clone());
        }
        let key = match self.folder.look(id)? {
            Looked::Destroyed => None,
            Looked::Key(row) => {
                let frame = ContentKey::new(id.clone(), row.as_bytes())
                    .map_err(|error| KeyError::Name(format!("{id}: {error}")))?;
                let id = KeyId::parse(id).map_err(|_| KeyError::Name(id.to_string()))?;
                Some(Arc::new(CachedKey { frame, row, id }))
            }
        };
        if self.keys.len() >= CACHED_KEYS {
            self.keys.pop_front();
        }
        self.keys.push_back((id.clone(), key.clone()));
        Ok(key)
    }
}
