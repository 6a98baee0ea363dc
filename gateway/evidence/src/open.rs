//! How an epoch begins and ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Body, Boot, CloseReason, Config, ConfigReason, Encryption, Predecessor};
use schemas::{ObjectName, Origin};

use crate::commit::{self, Committer, Prepared, Who};
use crate::disk;
use crate::epoch;
use crate::error::OpenError;
use crate::inner::{Inner, Parts};
use crate::journal::{Beside, Journal, JournalConfig, MAX_CONTENT_BYTES};
use crate::kept::{Kept, Roomy};
use crate::keys::{KeyCache, KeyFolder, KeyTable};
use crate::ledger::LedgerConfig;
use crate::marks::Marks;
use crate::recovery::{self, Recovered};
use crate::sealer::{Sealer, SealerParts, Tip};
use crate::ship::Shipper;
use crate::space::{self, Space};
use crate::spool::Spool;
use crate::stop::Stop;
use crate::tap;
use crate::threads;
use crate::tip::Ours;
use crate::unrecorded;
use crate::watermarks::{EarlierLog, EarlierLogs};

/// How long a start waits for another process that starts, or recovers a neighbour, in the same journal folder.
const OPENING_WAIT: Duration = Duration::from_secs(120);
/// Between two tries of a store that does not answer: at first, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The largest seal that is read.
const MAX_SEAL_BYTES: u64 = 1 << 20;
/// Bytes of one reserve file of the spool.
const RESERVE_UNIT: u64 = 4 << 20;

pub(crate) fn open(mut settings: LedgerConfig) -> Result<Arc<Inner>, OpenError> {
    check(&settings)?;
    let kept = Kept::of(&settings);
    if kept.is_on() {
        settings.disk = Roomy::over(settings.disk, Arc::clone(&kept));
    }
    let disk = settings.disk.clone();
    for folder in [&settings.journal_dir, &settings.spool_dir, &settings.key_table_dir] {
        disk::create_dir_all(&*disk, folder).map_err(OpenError::io("make", folder))?;
    }
    let opening = lock_opening(&settings)?;
    if !kept.is_on() {
        kept.forget().map_err(OpenError::io("clean", &settings.spool_dir))?;
    }
    space::free_orphans(&*disk, &settings.spool_dir, &settings.journal_dir)
        .map_err(OpenError::io("clean", &settings.spool_dir))?;
    let signer = Arc::new(Ed25519Signer::from_seed(settings.seal_seed));
    let mut newest = epoch::newest(&*disk, &settings.journal_dir)?;
    let mut patience = Patience::new(&settings);
    let (mut away, mut earlier) = (false, EarlierLogs::default());
    let in_topic = reclaim(&settings, &mut patience)?;
    for folder in epoch::list(&*disk, &settings.journal_dir)? {
        settings.stop.check()?;
        let Some(lock) = epoch::lock(&*disk, &folder)? else {
            tracing::info!(folder = %folder.display(), "another process writes this epoch, or has just ended it");
            earlier.add(EarlierLog::Running, epoch::began_us(&folder));
            continue;
        };
        // What it left stays on the disk; the running process recovers it when the store is back.
        // One that began behind the remembered log may be the next `boot`'s predecessor: that must be known first.
        let can_wait = newest.as_ref().is_some_and(|newest| {
            folder.file_name().and_then(|name| name.to_str()) <= Some(newest.origin.epoch())
        });
        if can_wait && away {
            tracing::warn!(folder = %folder.display(), "an earlier epoch waits for the store");
            earlier.add(EarlierLog::Waiting, epoch::began_us(&folder));
            continue;
        }
        let recovered = loop {
            match recover_folder(&settings, &signer, &folder) {
                Err(OpenError::StoreAway(error)) if can_wait => {
                    tracing::warn!(folder = %folder.display(), %error, "an earlier epoch waits for the store");
                    away = true;
                    break None;
                }
                Err(error @ OpenError::HoldsLocked(_)) if can_wait => {
                    tracing::warn!(folder = %folder.display(), %error, "an earlier epoch waits for the lock of the holds");
                    break None;
                }
                Err(error) => patience.wait("the end of the newest log, which is not closed", error)?,
                Ok(recovered) => break recovered,
            }
        };
        let Some(recovered) = recovered else {
            earlier.add(EarlierLog::Waiting, epoch::began_us(&folder));
            continue;
        };
        drop(lock);
        note(&settings, &mut newest, &folder, &recovered)?;
        match recovered {
            Recovered::Stuck { .. } => earlier.add(EarlierLog::Stopped, epoch::began_us(&folder)),
            Recovered::Closed { archived: false, .. } => {
                earlier.add(EarlierLog::Waiting, epoch::began_us(&folder))
            }
            Recovered::Closed { .. } | Recovered::Nothing => {}
        }
    }
    if newest.is_none() {
        newest = newest_in_store(&settings, &mut patience)?;
        let is_newer = |origin: &Origin| newest.as_ref().is_none_or(|newest| newest.origin < *origin);
        if let Some(origin) = in_topic.filter(is_newer) {
            newest = Some(epoch::predecessor(&origin, None));
        }
    }
    if !away {
        newest = newest.map(|newest| end_in_store(&settings, &signer.public_key(), newest));
    }
    settings.stop.check()?;
    let inner = begin(settings, &signer, newest, kept)?;
    inner.marks.update(|marks| marks.earlier = earlier);
    drop(opening);
    Ok(inner)
}

fn check(settings: &LedgerConfig) -> Result<(), OpenError> {
    let origin = Origin::join(&settings.deployment, &settings.gateway, "20261120t101500z-3f9a1c20");
    if let Err(error) = origin {
        return Err(OpenError::Setting {
            key: "deployment, gateway",
            value: format!("{}/{}", settings.deployment, settings.gateway),
            wanted: error.to_string(),
        });
    }
    for (key, value, least, wanted) in [
        ("evidence.batch_age", settings.batch_age.as_millis(), 1, "at least 1 ms"),
        ("evidence.heartbeat", settings.heartbeat_bound.as_millis(), 100, "at least 100 ms"),
        ("evidence.segment", u128::from(settings.segment_bytes), 1 << 20, "at least 1 MiB"),
    ] {
        if value < least {
            return Err(OpenError::Setting { key, value: value.to_string(), wanted: wanted.into() });
        }
    }
    Ok(())
}

fn lock_opening(settings: &LedgerConfig) -> Result<Box<dyn crate::disk::DiskLock>, OpenError> {
    let path = settings.journal_dir.join(epoch::OPENING_LOCK);
    let begun = Instant::now();
    let mut said = false;
    loop {
        if let Some(lock) = settings.disk.lock(&path).map_err(OpenError::io("lock", &path))? {
            return Ok(lock);
        }
        if begun.elapsed() > OPENING_WAIT {
            return Err(OpenError::Locked(settings.journal_dir.display().to_string()));
        }
        if !said && begun.elapsed() > Duration::from_secs(1) {
            tracing::info!(folder = %settings.journal_dir.display(), "the start waits for another process that starts or recovers here");
            said = true;
        }
        settings.stop.sleep(Duration::from_millis(50))?;
    }
}

/// Waits for what a start cannot do without, at most for `store_wait` in all.
struct Patience {
    bound: Duration,
    stop: Stop,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    fn new(settings: &LedgerConfig) -> Self {
        Self { bound: settings.store_wait, stop: settings.stop.clone(), since: None, pause: FIRST_PAUSE }
    }

    /// Returns when it is time to try again to get `what`; at once with an error that does not pass.
    fn wait(&mut self, what: &str, error: OpenError) -> Result<(), OpenError> {
        self.stop.check()?;
        let (of, error, failed): (_, _, fn(String) -> OpenError) = match error {
            OpenError::StoreAway(error) if error.passes() => {
                ("the store", error.to_string(), OpenError::Store)
            }
            OpenError::StoreAway(error) => return Err(OpenError::Store(error.to_string())),
            OpenError::HoldsLocked(why) => ("the lock of the holds", why, OpenError::HoldsLocked),
            other => return Err(other),
        };
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let left = self.bound.saturating_sub(waited);
        if left.is_zero() {
            return Err(failed(match waited.as_secs() {
                0 => error,
                seconds => format!("{error}; it was waited for {seconds} s"),
            }));
        }
        tracing::warn!(error, wanted = what, left_s = left.as_secs(), "the start waits for {of}");
        self.stop.sleep(self.pause.min(left))?;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        Ok(())
    }
}

/// Finds logs of this gateway in the commit topic of which this disk has nothing.
fn reclaim(settings: &LedgerConfig, patience: &mut Patience) -> Result<Option<Origin>, OpenError> {
    loop {
        match commit::reclaim(settings) {
            Err(error) => patience.wait("the commit topic", error)?,
            Ok(newest) => return Ok(newest),
        }
    }
}

/// Recovers what a dead process left in a folder, whose lock the caller holds; `None` where another gateway does so.
pub(crate) fn recover_folder(
    settings: &LedgerConfig,
    signer: &Arc<Ed25519Signer>,
    folder: &Path,
) -> Result<Option<Recovered>, OpenError> {
    if let Prepared::Left { by } = commit::prepare(settings, folder)? {
        tracing::warn!(folder = %folder.display(), by, "another gateway closes this log from the commit topic");
        return Ok(None);
    }
    let rebuilt = folder.join(epoch::REBUILT);
    match settings.disk.entry(&rebuilt).map_err(OpenError::io("look at", &rebuilt))? {
        None => recovery::recover(settings, signer, folder).map(Some),
        Some(_) => commit::recover(settings, signer, folder, CloseReason::Crash).map(Some),
    }
}

/// Takes what a recovery found into the memory of the newest log, and clears up.
pub(crate) fn note(
    settings: &LedgerConfig,
    newest: &mut Option<Predecessor>,
    folder: &Path,
    recovered: &Recovered,
) -> Result<(), OpenError> {
    let disk = &*settings.disk;
    let mark = folder.join(epoch::COMMITTED);
    let is_committed = disk.entry(&mark).map_err(OpenError::io("look at", &mark))?.is_some();
    match recovered {
        // That a log is closed is said before its folder goes: who finds no folder finds it closed in the index, and does
        // not take it for one that was lost with its disk.
        Recovered::Nothing => {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(origin) = Origin::join(&settings.deployment, &settings.gateway, name)
                && is_committed
            {
                commit::closed(settings, &origin);
            }
            epoch::remove(disk, folder)?;
        }
        Recovered::Closed { origin, tree, archived, follows } => {
            let closed = epoch::predecessor(origin, Some(tree));
            if is_newest(newest.as_ref(), origin, follows.as_ref()) {
                epoch::remember(disk, &settings.journal_dir, &closed)?;
                *newest = Some(closed);
            }
            if *archived {
                if is_committed {
                    commit::closed(settings, origin);
                }
                epoch::remove(disk, folder)?;
            }
        }
        Recovered::Stuck { origin, why, follows } => {
            tracing::error!(%origin, folder = %folder.display(), %why, "a log is stopped and its disk is kept; someone must look");
            if is_newest(newest.as_ref(), origin, follows.as_ref()) {
                *newest = Some(epoch::predecessor(origin, None));
            }
        }
    }
    Ok(())
}

/// Whether a log is the one that the next `boot` names: the remembered one, or one that came behind it and died before
/// it was remembered.
fn is_newest(remembered: Option<&Predecessor>, origin: &Origin, follows: Option<&Origin>) -> bool {
    remembered.is_none_or(|newest| newest.origin == *origin || follows == Some(&newest.origin))
}

/// On a machine that has no memory, the store knows the gateway's logs.
fn newest_in_store(
    settings: &LedgerConfig,
    patience: &mut Patience,
) -> Result<Option<Predecessor>, OpenError> {
    let mut logs = loop {
        match settings.store.logs(&settings.deployment, &settings.gateway) {
            Ok(logs) => break logs,
            Err(error) => patience
                .wait("the gateway's logs: this machine remembers none", OpenError::StoreAway(error))?,
        }
    };
    logs.sort();
    Ok(logs.pop().map(|origin| epoch::predecessor(&origin, None)))
}

/// Adds the end of a log that is remembered without it and whose journal is gone: the process died after all was
/// archived and before it remembered the end. Then the newest seal says it; where that cannot be read now, the end
/// stays unsaid.
fn end_in_store(settings: &LedgerConfig, key: &[u8; 32], newest: Predecessor) -> Predecessor {
    let folder = settings.journal_dir.join(newest.origin.epoch());
    let has_journal = !matches!(settings.disk.entry(&folder), Ok(None));
    if newest.size.is_some() || has_journal {
        return newest;
    }
    let store = &*settings.store;
    let last = store.list(&newest.origin).ok().and_then(|names| {
        names.into_iter().filter(|name| matches!(name, ObjectName::Seal { .. })).max_by_key(ObjectName::batch)
    });
    let word = last.as_ref().and_then(|name| store.word(&newest.origin, name.batch()).ok().flatten());
    if let Some(word) = word {
        return Predecessor { size: Some(word.to), root: Some(word.root), ..newest };
    }
    let note = last.and_then(|name| crate::store::read_object(store, &name, MAX_SEAL_BYTES).ok().flatten());
    match note.and_then(|note| schemas::seal::verify(&note, key).ok()) {
        Some(sealed) if sealed.origin == newest.origin => {
            Predecessor { size: Some(sealed.to), root: Some(sealed.root), ..newest }
        }
        _ => newest,
    }
}

/// Opens a new epoch behind `predecessor`.
fn begin(
    settings: LedgerConfig,
    signer: &Arc<Ed25519Signer>,
    predecessor: Option<Predecessor>,
    kept: Arc<Kept>,
) -> Result<Arc<Inner>, OpenError> {
    let disk = settings.disk.clone();
    let behind = predecessor.as_ref().map(|before| before.origin.epoch());
    let name = epoch::name(settings.clock.now_us(), behind)?;
    let origin = Origin::join(&settings.deployment, &settings.gateway, &name)
        .map_err(|error| OpenError::Format(error.to_string()))?;
    let folder = settings.journal_dir.join(&name);
    disk::create_dir_all(&*disk, &folder).map_err(OpenError::io("make", &folder))?;
    let lock_path = folder.join(epoch::LOCK);
    let lock = disk.lock(&lock_path).map_err(OpenError::io("lock", &lock_path))?;
    let lock = lock.ok_or_else(|| OpenError::Locked(folder.display().to_string()))?;
    let clock = settings.clock.clone();
    let mut journal = JournalConfig::new(origin.clone(), Arc::new(move || clock.now_us()));
    journal.segment_bytes = settings.segment_bytes;
    journal.ahead_bytes = settings.segment_bytes.min(journal.ahead_bytes);
    let eighth = usize::try_from(settings.segment_bytes / 8).unwrap_or(usize::MAX);
    journal.group_bytes = journal.group_bytes.min(eighth);
    // Never below a frame of content with its head.
    journal.frame_bytes = journal.frame_bytes.min(eighth.max(MAX_CONTENT_BYTES));
    let tap_lock = tap::begin(&settings, &origin)?;
    let committer = committer(&settings, &origin, signer, &folder)?;
    journal.beside = committer.clone().map(|committer| committer as Arc<dyn Beside>);
    let journal = Journal::create(disk.clone(), &folder, journal)
        .map_err(|error| OpenError::Journal(error.to_string()))?;
    if let Some(committer) = &committer {
        let (committer, segments) = (committer.clone(), journal.segments().clone());
        let lease = std::thread::Builder::new().name("evidence-lease".into());
        lease
            .spawn(move || committer.run(|| segments.oldest()))
            .map_err(OpenError::io("start a thread for", &folder))?;
    }
    let keys = match settings.encryption {
        true => Some(
            KeyTable::create(disk.clone(), &settings.key_table_dir, origin.clone())
                .map_err(OpenError::io("make a page of", &settings.key_table_dir))?,
        ),
        false => None,
    };
    let copies = if shares_file_system(&settings) { 2 } else { 1 };
    let space = Space::open(
        disk.clone(),
        &space::folder(&settings.spool_dir, &name),
        copies,
        RESERVE_UNIT.min(settings.segment_bytes),
        settings.spool_bound_bytes,
    )
    .map_err(OpenError::io("make", &settings.spool_dir))?;
    let spool = Spool::open(disk.clone(), &settings.spool_dir, &origin)
        .map_err(OpenError::io("make", &settings.spool_dir))?
        .tapped(settings.tap.as_ref().map(|_| tap::folder(&settings.spool_dir, &name)));
    let marks = Arc::new(Marks::default());
    let sealer = Sealer::new(SealerParts {
        origin: origin.clone(),
        signer: signer.clone(),
        clock: settings.clock.clone(),
        segments: journal.segments().clone(),
        extra: std::collections::BTreeMap::new(),
        keys: KeyCache::new(KeyFolder::new(disk.clone(), &settings.key_table_dir)),
        spool: spool.clone(),
        tip: Tip::start(),
        batch_bytes: settings.batch_bytes,
        lenient: false,
    });
    let store = settings.store.clone();
    let shipper = Shipper { origin: origin.clone(), spool, store, kept: Arc::clone(&kept) };
    let inner = Arc::new(Inner::new(Parts {
        origin: origin.clone(),
        seal_public_key: signer.public_key(),
        settings,
        journal,
        committer,
        keys,
        space,
        kept,
        marks,
        lock,
    }));
    inner.own.keep(&inner.journal).map_err(|error| OpenError::Journal(error.to_string()))?;
    first_records(&inner, predecessor)?;
    let own = (folder.as_path(), inner.journal.journaled());
    unrecorded::take_over(&*disk, &inner.settings.journal_dir, own, |gap| {
        Ok(inner.append_blocking(gap).map(drop)?)
    })?;
    epoch::remember(&*inner.disk, &inner.settings.journal_dir, &epoch::predecessor(&origin, None))?;
    threads::start(&inner, sealer, shipper).map_err(OpenError::io("start a thread for", &folder))?;
    let tap = tap::start(&inner, tap_lock).map_err(OpenError::io("start the tap of", &folder))?;
    inner.tapped(tap);
    tracing::info!(%origin, "evidence is open");
    Ok(inner)
}

/// Where the new log's journal goes besides the disk.
fn committer(
    settings: &LedgerConfig,
    origin: &Origin,
    signer: &Arc<Ed25519Signer>,
    folder: &Path,
) -> Result<Option<Arc<Committer>>, OpenError> {
    let Some(commit) = &settings.commit else { return Ok(None) };
    commit::mark_committed(settings, folder)?;
    if settings.encryption && shares_device(&settings.key_table_dir, &settings.journal_dir) {
        tracing::warn!(
            "the key table is on the journal's file system: where that is lost, so are the keys of what was not sealed yet, and no other gateway can close its log"
        );
    }
    let who = Who {
        origin: origin.clone(),
        key: signer.public_key(),
        encrypted: settings.encryption,
        disk: settings.disk.clone(),
        folder: folder.to_owned(),
    };
    match Committer::open(commit, who) {
        Ok(committer) => Ok(Some(committer)),
        Err(failed) => Err(OpenError::Store(failed.store("cannot use", &commit.topic).to_string())),
    }
}

/// `boot` and `config`, durable.
fn first_records(inner: &Arc<Inner>, predecessor: Option<Predecessor>) -> Result<(), OpenError> {
    let settings = &inner.settings;
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let boot = Boot {
        gateway_version: settings.gateway_version.clone(),
        binary_sha256: settings.binary_sha256,
        seal_key: base64::engine::general_purpose::STANDARD.encode(inner.seal_public_key),
        promise_key: inner
            .promiser
            .as_ref()
            .map(|promiser| base64::engine::general_purpose::STANDARD.encode(promiser.public_key())),
        heartbeat_bound_ms: milliseconds(settings.heartbeat_bound),
        batch_age_ms: milliseconds(settings.batch_age),
        predecessor,
        encryption: if settings.encryption { Encryption::Aes256Gcm } else { Encryption::Off },
    };
    if !settings.encryption {
        tracing::warn!(
            "`evidence.encryption` is off: content in the store cannot be erased before its retention ends"
        );
    }
    let boot = inner.submit(None, Vec::new(), Body::Boot(boot))?;
    let config = Config {
        next: settings.config.sha256(),
        reason: ConfigReason::Start,
        policy: settings.policy.as_ref().map(crate::ledger::Reference::sha256),
        price_book: settings.price_book.as_ref().map(crate::ledger::Reference::sha256),
    };
    let documents = [Some(&settings.config), settings.policy.as_ref(), settings.price_book.as_ref()];
    let config = inner.change_config(config, documents.into_iter().flatten().cloned().collect())?;
    for ticket in [boot, config] {
        inner.told_blocking(ticket)?;
    }
    Ok(())
}

/// Whether a batch needs room twice: in the spool and in a directory store on the same file system.
fn shares_file_system(settings: &LedgerConfig) -> bool {
    settings.store.local_folder().is_some_and(|store| shares_device(store, &settings.spool_dir))
}

/// Whether two folders are on one file system.
pub(crate) fn shares_device(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    match (device(one), device(other)) {
        (Some(one), Some(other)) => one == other,
        // A disk that is not the system's: one file system.
        _ => true,
    }
}

/// Everything of the epoch is archived: its journal and spool go, and its end is remembered for the next `boot`.
pub(crate) fn finish_epoch(inner: &Inner) -> Result<(), OpenError> {
    let disk = &*inner.disk;
    let folder = inner.settings.journal_dir.join(inner.origin.epoch());
    let spool = Spool::open(inner.disk.clone(), &inner.settings.spool_dir, &inner.origin)
        .map_err(OpenError::io("open", &inner.settings.spool_dir))?;
    let key = inner.seal_public_key;
    let ours = Ours { from: u64::MAX, hash: &mut |_| None, more: &mut |_, _| {} };
    let standing = crate::tip::find(&inner.origin, &[key], &*inner.settings.store, &spool, ours)
        .map_err(|error| OpenError::Store(error.to_string()))?;
    let newest = epoch::newest(disk, &inner.settings.journal_dir)?;
    if newest.is_none_or(|newest| newest.origin == inner.origin) {
        let closed = epoch::predecessor(&inner.origin, Some(&standing.tip.tree));
        epoch::remember(disk, &inner.settings.journal_dir, &closed)?;
    }
    // What passed behind `close` is the next log's to tell.
    let passed = inner.unrecorded.tell().pending();
    if passed > 0 {
        unrecorded::leave(disk, &inner.settings.journal_dir, inner.origin.epoch(), Some(passed))?;
    }
    inner.journal.segments().remove_all().map_err(OpenError::io("remove", &folder))?;
    spool.remove_all().map_err(OpenError::io("remove", &inner.settings.spool_dir))?;
    space::free(disk, &inner.settings.spool_dir, inner.origin.epoch())
        .map_err(OpenError::io("remove", &inner.settings.spool_dir))?;
    // As in `note`: before the folder goes.
    if inner.committer.is_some() {
        commit::closed(&inner.settings, &inner.origin);
    }
    // The lock file goes with its folder, so it is freed first: the folder holds nothing that another could spoil.
    let lock = inner.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    epoch::remove(disk, &folder)?;
    drop(lock);
    Ok(())
}
