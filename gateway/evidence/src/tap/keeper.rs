//! What the threads of the tap share, and the one that keeps house: saves positions, removes what every sink has, keeps
//! the rest within its bound, and takes over the logs that dead processes left. One log that cannot be kept keeps no other
//! from it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schemas::Origin;
use schemas::note::{Ed25519Signer, Signer as _};

use super::folder::{LOCK, Positions, TapFolder, root};
use super::log::{Log, Places};
use super::{Tap, sending};
use crate::clock::Clock;
use crate::disk::{self, DiskLock};
use crate::error::OpenError;
use crate::inner::Inner;
use crate::journal::Journal;
use crate::ledger::LedgerConfig;
use crate::marks::Marks;
use crate::stop::Stop;

/// How often positions are saved, and with them the next look at the folder.
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked for logs that dead processes left.
const OTHERS_EVERY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);
/// How long the folder of a new log is waited for: another process looks into it for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What the threads of the tap share.
pub(crate) struct Shared {
    tap: Arc<Tap>,
    places: Places,
    marks: Arc<Marks>,
    logs: Mutex<BTreeMap<String, Arc<Log>>>,
    hurry: AtomicBool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: Stop,
    names: Vec<String>,
}

/// Makes and locks the folder of the log that begins. Its positions are durable on return: whatever becomes of this
/// process, all of the log is behind them.
pub(crate) fn begin(
    settings: &LedgerConfig,
    origin: &Origin,
) -> Result<Option<Box<dyn DiskLock>>, OpenError> {
    let Some(tap) = &settings.tap else {
        super::forget(&*settings.disk, &settings.spool_dir)
            .map_err(OpenError::io("clean", &settings.spool_dir))?;
        return Ok(None);
    };
    let path = super::folder(&settings.spool_dir, origin.epoch());
    disk::create_dir_all(&*settings.disk, &path).map_err(OpenError::io("make", &path))?;
    let begun = Instant::now();
    let lock = loop {
        let lock = settings.disk.lock(&path.join(LOCK)).map_err(OpenError::io("lock", &path))?;
        match lock {
            Some(lock) => break lock,
            None if begun.elapsed() > LOCK_WAIT => return Err(OpenError::Locked(path.display().to_string())),
            None => std::thread::sleep(TICK),
        }
    };
    let sinks =
        tap.sinks.iter().map(|sink| (sink.name.clone(), super::folder::Position::default())).collect();
    let positions = Positions { origin: origin.clone(), sinks, end: Some(0) };
    let folder = TapFolder { disk: settings.disk.clone(), path: path.clone() };
    folder.save(&positions).map_err(OpenError::io("write", &path))?;
    Ok(Some(lock))
}

/// Starts the threads: one a sink, which end with the process and are not waited for, and the keeper's.
pub(crate) fn start(
    inner: &Arc<Inner>,
    lock: Option<Box<dyn DiskLock>>,
) -> io::Result<Option<(Arc<Shared>, JoinHandle<()>)>> {
    let (Some(tap), Some(lock)) = (inner.settings.tap.clone(), lock) else { return Ok(None) };
    let settings = &inner.settings;
    let places = Places {
        disk: settings.disk.clone(),
        journal_dir: settings.journal_dir.clone(),
        spool_dir: settings.spool_dir.clone(),
        store: settings.store.clone(),
        seal_keys: seal_keys(inner),
    };
    let shared = Arc::new(Shared {
        names: tap.sinks.iter().map(|sink| sink.name.clone()).collect(),
        tap,
        places,
        marks: inner.marks.clone(),
        logs: Mutex::default(),
        hurry: AtomicBool::new(false),
        clock: inner.clock.clone(),
        stop: inner.marks.stop.clone(),
    });
    let live: (Journal, Arc<Marks>) = (inner.journal.clone(), inner.marks.clone());
    shared.take(inner.origin.epoch(), Some(&inner.origin), lock, Some(live))?;
    for sink in &shared.tap.sinks {
        let (shared, sink) = (Arc::clone(&shared), sink.clone());
        let name = format!("tap-{}", sink.name);
        std::thread::Builder::new().name(name).spawn(move || {
            crate::threads::yield_to_traffic();
            sending::run(&shared, &sink);
        })?;
    }
    let keeps = Arc::clone(&shared);
    let keeper = std::thread::Builder::new().name("tap-keeper".into()).spawn(move || {
        crate::threads::yield_to_traffic();
        keeps.keep_house();
    })?;
    Ok(Some((shared, keeper)))
}

/// Whose seals count: our own key's, and those of the keys whose logs are closed here, and of who closes them.
fn seal_keys(inner: &Inner) -> Vec<[u8; 32]> {
    let closing = inner.settings.closing.iter();
    let closing = closing.flat_map(|key| [key.of, Ed25519Signer::from_seed(key.seed).public_key()]);
    std::iter::once(inner.seal_public_key).chain(closing).collect()
}

/// What went wrong last, by what it went wrong with: said once.
#[derive(Debug, Default)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn tell(&mut self, of: &str, done: &io::Result<()>) {
        let Err(error) = done else {
            self.0.remove(of);
            return;
        };
        let text = error.to_string();
        if self.0.get(of) != Some(&text) {
            tracing::warn!(of, %error, "a folder of the tap cannot be used; leaves may be sent again");
            self.0.insert(of.to_owned(), text);
        }
    }
}

impl Shared {
    pub(super) fn finished(&self) -> bool {
        self.marks.finished()
    }

    pub(super) fn hurries(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// Sleeps, unless the process ends.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.finished() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// The logs that this process sends, oldest first.
    pub(super) fn logs(&self) -> Vec<Arc<Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes a log whose folder is locked; not one that holds nothing yet.
    fn take(
        &self,
        epoch: &str,
        origin: Option<&Origin>,
        lock: Box<dyn DiskLock>,
        live: Option<(Journal, Arc<Marks>)>,
    ) -> io::Result<()> {
        let path = super::folder(&self.places.spool_dir, epoch);
        let folder = TapFolder { disk: self.places.disk.clone(), path };
        let of = |origin: Origin| Positions { origin, sinks: BTreeMap::new(), end: None };
        let positions = match (folder.positions()?, origin, folder.seals()?.first()) {
            (Some(positions), ..) => positions,
            (None, Some(origin), _) => of(origin.clone()),
            (None, None, Some(seal)) => of(folder.kept(seal)?.origin),
            (None, None, None) if self.places.is_unfinished(epoch)? => return Ok(()),
            // Who removed it died over it.
            (None, None, None) => return folder.remove_all(),
        };
        let log = Log::new(self.places.clone(), folder, lock, positions, &self.names, live)?;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(epoch.to_owned(), Arc::new(log));
        Ok(())
    }

    fn keep_house(&self) {
        let mut looked: Option<Instant> = None;
        let mut said = Said::default();
        loop {
            let finished = self.finished();
            if !finished && looked.is_none_or(|looked| looked.elapsed() >= OTHERS_EVERY) {
                looked = Some(Instant::now());
                let done = self.take_others(&mut said);
                said.tell("the tap's folder", &done);
            }
            self.tidy(&mut said);
            if finished {
                // Who comes next may take the logs.
                self.logs.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return;
            }
            self.pause(KEEP_EVERY);
        }
    }

    /// Takes the logs whose processes are gone.
    fn take_others(&self, said: &mut Said) -> io::Result<()> {
        let root = root(&self.places.spool_dir);
        for entry in self.places.disk.list(&root)?.into_iter().filter(|entry| entry.is_dir) {
            if self.logs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&entry.name) {
                continue;
            }
            let done = match self.places.disk.lock(&root.join(&entry.name).join(LOCK)) {
                Ok(Some(lock)) => self.take(&entry.name, None, lock, None),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            said.tell(&entry.name, &done);
        }
        Ok(())
    }

    /// Saves, removes, keeps within the bound, and counts.
    fn tidy(&self, said: &mut Said) {
        let logs = self.logs();
        let mut done: BTreeMap<&str, io::Result<()>> = BTreeMap::new();
        for log in &logs {
            let kept = log.look();
            done.insert(log.origin.epoch(), kept.and(log.save(&self.names)));
        }
        self.keep_within_bound(&logs, &mut done);
        for log in &logs {
            let epoch = log.origin.epoch();
            match log.remove_if_done(&self.names) {
                Ok(false) => {}
                Ok(true) => {
                    self.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(epoch);
                }
                Err(error) => drop(done.insert(epoch, Err(error))),
            }
        }
        done.iter().for_each(|(epoch, done)| said.tell(epoch, done));
        self.count();
    }

    /// Removes the oldest batches over the bound, whether or not positions can be saved: on a full disk nothing else makes
    /// room.
    fn keep_within_bound<'a>(&self, logs: &'a [Arc<Log>], done: &mut BTreeMap<&'a str, io::Result<()>>) {
        let mut kept: u64 = logs.iter().map(|log| log.kept_bytes()).sum();
        for log in logs {
            while kept > self.tap.keep_bytes {
                match log.drop_oldest() {
                    Ok(Some(bytes)) => {
                        tracing::warn!(origin = %log.origin, bound = self.tap.keep_bytes, "what is kept for the tap's sinks is over its bound: the oldest batch goes");
                        kept = kept.saturating_sub(bytes);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        done.insert(log.origin.epoch(), Err(error));
                        break;
                    }
                }
            }
        }
    }

    fn count(&self) {
        let logs = self.logs();
        let kept = logs.iter().map(|log| log.kept_bytes()).sum();
        for sink in &self.tap.sinks {
            let behind = logs.iter().map(|log| {
                let at = log.position(&sink.name);
                if at.ended { 0 } else { log.end().saturating_sub(at.next) }
            });
            sink.figures.observe(behind.sum(), kept);
        }
    }

    /// Waits until the sinks have all that was journaled, at most for `bound`, and not for those that fail.
    pub(crate) fn settle(&self, bound: Duration) {
        self.hurry.store(true, Ordering::Relaxed);
        let until = Instant::now() + bound;
        let waits = || {
            let live: Vec<_> = self.logs().into_iter().filter(|log| log.is_live()).collect();
            self.tap.sinks.iter().any(|sink| {
                !sink.figures.failing() && live.iter().any(|log| log.position(&sink.name).next < log.end())
            })
        };
        while waits() && Instant::now() < until && !self.finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
