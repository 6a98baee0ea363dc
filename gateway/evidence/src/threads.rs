//! The threads of a running epoch: one seals, one ships, one keeps time.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use schemas::Origin;
use schemas::record::{Body, Gap, GapReason};

use crate::commit::{Closing, Committer, Late};
use crate::epoch;
use crate::error::{OpenError, Reason, Unavailable};
use crate::inner::Inner;
use crate::journal::Journal;
use crate::kept::Kept;
use crate::ledger::LedgerConfig;
use crate::marks::Marks;
use crate::recovery::Recovered;
use crate::sealer::{Sealer, Slim};
use crate::ship::{BackOff, ShipError, Shipper};
use crate::space::Space;
use crate::store::Trouble;

/// The longest wait between looks whether an answer has come.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How often the threads look at the time.
const TICK: Duration = Duration::from_millis(100);
/// Between tries to destroy a key whose erasure is recorded.
const DESTROY_EVERY: Duration = Duration::from_secs(1);
/// How often what passed unrecorded is put beside the journal, while no record can tell of it.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether kept batches are to go.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often folded refusals are journaled; CA-3 promises 1 s.
const FOLD_EVERY: Duration = Duration::from_millis(500);
/// How often a running process looks whether a neighbour has died, or a recovered log still waits for the store.
const NEIGHBOURS_EVERY: Duration = Duration::from_secs(30);
/// The same where the process waits for them to end.
const NEIGHBOURS_AT_LAST: Duration = Duration::from_secs(1);

pub(crate) fn start(inner: &Arc<Inner>, sealer: Sealer, shipper: Shipper) -> io::Result<()> {
    let spawn =
        |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.into()).spawn(run);
    let settings = &inner.settings;
    let sealing = Sealing {
        sealer,
        journal: inner.journal.clone(),
        space: inner.space.clone(),
        committer: inner.committer.clone(),
        marks: inner.marks.clone(),
        batch_age: settings.batch_age,
        batch_bytes: settings.batch_bytes,
        heartbeat_bound: settings.heartbeat_bound,
    };
    let shipping = Shipping {
        shipper,
        journal: inner.journal.clone(),
        space: inner.space.clone(),
        committer: inner.committer.clone(),
        marks: inner.marks.clone(),
    };
    let keeping = Keeping {
        kept: Arc::clone(&inner.kept),
        space: inner.space.clone(),
        marks: Arc::clone(&inner.marks),
    };
    let weak = Arc::downgrade(inner);
    let neighbours = Neighbours {
        own: settings.journal_dir.join(inner.origin.epoch()),
        // A recovery that runs when this process ends does not keep it: it goes on in another one.
        settings: LedgerConfig { stop: inner.marks.stop.clone(), ..settings.clone() },
        marks: inner.marks.clone(),
        stuck: BTreeSet::new(),
        left: BTreeSet::new(),
    };
    let mut threads = vec![
        spawn(
            "evidence-seal",
            Box::new(move || {
                yield_to_traffic();
                sealing.run();
            }),
        )?,
        spawn("evidence-ship", Box::new(move || shipping.run()))?,
        spawn("evidence-time", Box::new(move || keep_time(&weak)))?,
        spawn("evidence-kept", Box::new(move || keeping.run()))?,
        spawn("evidence-neighbours", Box::new(move || neighbours.run()))?,
    ];
    let stopped = LedgerConfig { stop: inner.marks.stop.clone(), ..settings.clone() };
    if let (Some(closing), Some(commit)) = (Closing::new(stopped), &settings.commit) {
        let survivor = Survivor {
            closing,
            inner: Arc::downgrade(inner),
            own: inner.origin.clone(),
            marks: inner.marks.clone(),
            every: commit.lease / 3,
        };
        threads.push(spawn("evidence-survivor", Box::new(move || survivor.run()))?);
    }
    inner.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(threads);
    Ok(())
}

/// Lowers the priority of the calling thread: sealing and the tap can wait a little, a caller cannot. What waits is bounded, and
/// counted in the lag of the watermarks.
pub(crate) fn yield_to_traffic() {
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "sealing and the tap run with the priority of traffic");
    }
}

/// Whether a log may be sealed and shipped by this process: not while another gateway may close it. Once it is closed
/// in order there is no lease to keep.
fn may_go_on(committer: Option<&Arc<Committer>>) -> bool {
    committer.is_none_or(|committer| committer.is_closed() || committer.check().is_ok())
}

struct Sealing {
    sealer: Sealer,
    journal: Journal,
    space: Space,
    committer: Option<Arc<Committer>>,
    marks: Arc<Marks>,
    batch_age: Duration,
    batch_bytes: u64,
    heartbeat_bound: Duration,
}

impl Sealing {
    fn run(mut self) {
        let mut back_off = BackOff::default();
        // Since when the oldest record waits.
        let mut waiting: Option<(u64, Instant)> = None;
        while !self.marks.finished() {
            self.marks.wait(TICK.min(self.batch_age), true);
            if !may_go_on(self.committer.as_ref()) {
                std::thread::sleep(TICK);
                continue;
            }
            let asked = self.marks.take_seal_soon();
            let end = self.journal.journaled();
            let next = self.sealer.next();
            if end == next {
                waiting = None;
                continue;
            }
            let since = match waiting {
                Some((position, since)) if position == next => since,
                _ => {
                    let now = Instant::now();
                    waiting = Some((next, now));
                    let at = self.time_of(next);
                    self.marks.update(|marks| marks.oldest_unsealed_us = at);
                    now
                }
            };
            let due = asked
                || self.journal.segments().unsealed().1 >= self.batch_bytes
                || since.elapsed() >= self.batch_age && !self.only_heartbeats(next, end, since);
            if !due {
                continue;
            }
            match self.seal_to(end) {
                Ok(()) => back_off.succeeded(),
                Err(error) if error.is_transient() => {
                    let wait = back_off.failed();
                    tracing::error!(origin = %self.sealer.origin, %error, retry_in = ?wait, "a batch could not be sealed");
                    self.pause(wait);
                }
                Err(error) => {
                    let detail = format!("log `{}`: {error}", self.sealer.origin);
                    tracing::error!(origin = %self.sealer.origin, detail, "sealing stopped; the journal is kept");
                    self.marks.raise(Unavailable::new(Reason::SealingFailed, detail));
                    return;
                }
            }
        }
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.marks.finished() {
            std::thread::sleep(TICK.min(wait));
        }
    }

    fn time_of(&self, position: u64) -> Option<i64> {
        let (_, leaf, _) = self.journal.segments().records(position..position + 1).next()?.ok()?;
        serde_json::from_slice::<serde_json::Value>(&leaf).ok()?.get("at")?.as_i64()
    }

    /// A log with nothing but heartbeats seals at the heartbeat bound.
    fn only_heartbeats(&self, from: u64, to: u64, since: Instant) -> bool {
        to - from <= 4
            && since.elapsed() < self.heartbeat_bound
            && self.journal.segments().records(from..to).all(|record| {
                record.is_ok_and(|(_, leaf, _)| Slim::read(&leaf).is_ok_and(|slim| slim.kind == "heartbeat"))
            })
    }

    fn seal_to(&mut self, end: u64) -> Result<(), crate::sealer::SealingError> {
        loop {
            let next = self.sealer.next();
            let first = if next < end { self.time_of(next) } else { None };
            self.space.give_way(self.journal.segments().unsealed().1.min(4 * self.batch_bytes));
            let sealed = self.sealer.seal(end);
            let (_, unsealed) = self.journal.segments().unsealed();
            self.space.unsealed(unsealed);
            self.space.built();
            let Some(sealed) = sealed? else { return Ok(()) };
            if let Ok(bytes) = self.sealer.spool.bytes() {
                self.space.spooled(bytes);
                self.marks.update(|marks| marks.spool_bytes = bytes);
            }
            let oldest_open = self.sealer.oldest_open();
            self.marks.sealed(sealed.batch + 1, sealed.to, first, oldest_open);
        }
    }
}

struct Shipping {
    shipper: Shipper,
    journal: Journal,
    space: Space,
    committer: Option<Arc<Committer>>,
    marks: Arc<Marks>,
}

impl Shipping {
    fn run(self) {
        let (mut back_off, mut answers) = (BackOff::default(), BackOff::default());
        while !self.marks.finished() {
            self.marks.wait(TICK, false);
            let marks = self.marks.snapshot();
            if marks.archived >= marks.sealed || !may_go_on(self.committer.as_ref()) {
                continue;
            }
            match self.ship() {
                Ok(shipped) => {
                    back_off.succeeded();
                    if marks.ship_trouble.is_some() {
                        tracing::info!("the store takes batches again");
                        self.marks.update(|marks| marks.ship_trouble = None);
                    }
                    match shipped {
                        Shipped::OnItsWay { has_moved: false } => {
                            self.pause(answers.failed().min(ANSWER_WAIT))
                        }
                        _ => answers.succeeded(),
                    }
                }
                Err(error) if error.is_transient() => {
                    let trouble = error.trouble();
                    let wait = back_off.failed_for(trouble);
                    let (origin, reason) = (&self.shipper.origin, trouble.map_or("unknown", Trouble::as_str));
                    if trouble.is_some_and(Trouble::needs_someone) {
                        tracing::error!(%origin, %error, reason, retry_in = ?wait, "the store does not take a batch; someone must act");
                    } else {
                        tracing::warn!(%origin, %error, reason, retry_in = ?wait, "the store does not take a batch");
                    }
                    self.marks.update(|marks| {
                        marks.ship_retries += 1;
                        marks.ship_trouble = trouble;
                        if let Some(count) = trouble.and_then(|t| marks.ship_failures.get_mut(t as usize)) {
                            *count += 1;
                        }
                    });
                    self.pause(wait);
                }
                Err(error) => {
                    tracing::error!(origin = %self.shipper.origin, %error, "shipping stopped; journal and spool are kept");
                    self.marks.raise(error.alarm(&self.shipper.origin));
                    return;
                }
            }
        }
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.marks.finished() {
            std::thread::sleep(TICK.min(wait));
        }
    }

    /// Puts what is in the spool, and has it confirmed in its order. A batch whose answer is still to come keeps
    /// nothing behind it from being put.
    fn ship(&self) -> Result<Shipped, ShipError> {
        let mut waits: Option<ShipError> = None;
        let mut has_moved = false;
        // Only what the sealer has called complete: a batch whose last sync failed is built anew (DU-3), and which
        // exchanges are open in it must be known before its journal may go.
        let complete = self.marks.batches();
        for batch in self.shipper.spool.batches()?.into_iter().filter(|batch| *batch < complete) {
            let shipped = self.shipper.put(batch)?;
            self.marks.update(|marks| marks.shipped = marks.shipped.max(shipped));
            if waits.is_none() {
                match self.shipper.read_back(batch) {
                    // Who cannot read the archive now can still put into the topic.
                    Err(error) if error.is_waiting() || error.is_transient() => waits = Some(error),
                    archived => has_moved |= self.archived(batch, archived?)?,
                }
            }
            if self.marks.finished() {
                break;
            }
        }
        match waits {
            None => Ok(Shipped::All),
            Some(error) if error.trouble().is_some() => Err(error),
            Some(_) => Ok(Shipped::OnItsWay { has_moved }),
        }
    }

    /// A batch up to `archived` is in the store: spool and journal give way. Whether that is news.
    fn archived(&self, batch: u64, archived: u64) -> Result<bool, ShipError> {
        self.shipper.archived(batch)?;
        let bytes = self.shipper.spool.bytes()?;
        self.space.spooled(bytes);
        let before = self.marks.snapshot().archived;
        self.marks.update(|marks| {
            marks.archived = marks.archived.max(archived);
            marks.spool_bytes = bytes;
        });
        // The intents of open exchanges stay, and erasures that are not done: a crash must find them.
        let behind = self.marks.needed_from().map_or(archived, |needed| needed.min(archived));
        self.journal.segments().archived(behind)?;
        Ok(archived > before)
    }
}

/// What a look at the spool came to.
enum Shipped {
    /// All of it is archived.
    All,
    /// All of it is put, and an answer is still to come; whether one came meanwhile.
    OnItsWay { has_moved: bool },
}

/// Flushes, folds, beats, and tries again what an erasure could not destroy.
fn keep_time(inner: &Weak<Inner>) {
    let mut beaten = Instant::now();
    let mut folded = Instant::now();
    let mut destroyed = Instant::now();
    let mut saved = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let Some(inner) = inner.upgrade() else { return };
        if inner.marks.finished() {
            inner.save_unrecorded();
            return;
        }
        inner.flush_aged();
        inner.close_abandoned();
        let (_, unsealed) = inner.journal.segments().unsealed();
        inner.space.unsealed(unsealed);
        if destroyed.elapsed() >= DESTROY_EVERY {
            destroyed = Instant::now();
            crate::erase::destroy_due(&inner);
        }
        let has_space = inner.own.refill();
        if has_space && folded.elapsed() >= FOLD_EVERY {
            folded = Instant::now();
            inner.write_folded();
            inner.write_unrecorded();
        }
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            inner.save_unrecorded();
        }
        if !has_space {
            continue;
        }
        if beaten.elapsed() >= inner.settings.heartbeat_bound.mul_f64(0.75) {
            match inner.beat() {
                Ok(()) => beaten = Instant::now(),
                Err(error) => tracing::warn!(%error, "no heartbeat"),
            }
        }
    }
}

/// Lets archived batches go that are kept no longer.
struct Keeping {
    kept: Arc<Kept>,
    space: Space,
    marks: Arc<Marks>,
}

impl Keeping {
    fn run(self) {
        if !self.kept.is_on() {
            return;
        }
        yield_to_traffic();
        let mut said: Option<String> = None;
        let mut looked: Option<Instant> = None;
        while !self.marks.finished() {
            if looked.is_none_or(|looked| looked.elapsed() >= TIDY_EVERY) {
                looked = Some(Instant::now());
                let error = self.kept.tidy(self.space.waiting()).err().map(|error| error.to_string());
                if let Some(error) = error.as_ref().filter(|error| said.as_ref() != Some(error)) {
                    tracing::warn!(error, "what is kept of archived batches cannot be tidied");
                }
                said = error;
            }
            std::thread::sleep(TICK);
        }
    }
}

/// Recovers neighbour epochs whose lock is free, and ships what an earlier start could not.
struct Neighbours {
    own: PathBuf,
    settings: LedgerConfig,
    marks: Arc<Marks>,
    /// Folders that someone must look at.
    stuck: BTreeSet<PathBuf>,
    /// Folders of logs that another gateway closes.
    left: BTreeSet<PathBuf>,
}

impl Neighbours {
    fn run(mut self) {
        let mut looked = Instant::now();
        while !self.marks.finished() {
            std::thread::sleep(TICK);
            let every = if self.marks.leaves() { NEIGHBOURS_AT_LAST } else { NEIGHBOURS_EVERY };
            if looked.elapsed() < every {
                continue;
            }
            looked = Instant::now();
            if let Err(error) = self.look()
                && !self.marks.finished()
            {
                tracing::warn!(%error, "an earlier epoch is not recovered yet");
            }
        }
    }

    fn look(&mut self) -> Result<(), OpenError> {
        let disk = Arc::clone(&self.settings.disk);
        let path = self.settings.journal_dir.join(epoch::OPENING_LOCK);
        let Some(_opening) = disk.lock(&path).map_err(OpenError::io("lock", &path))? else { return Ok(()) };
        let recovered = self.recover();
        let earlier = epoch::earlier(
            &*self.settings.disk,
            &self.settings.journal_dir,
            &self.own,
            (&self.stuck, &self.left),
        );
        self.marks.update(|marks| marks.earlier = earlier);
        recovered
    }

    /// Recovers each epoch whose lock is free. One that cannot be keeps no other from it; the last error is told.
    fn recover(&mut self) -> Result<(), OpenError> {
        let mut last = Ok(());
        for folder in epoch::list(&*self.settings.disk, &self.settings.journal_dir)? {
            if folder == self.own || self.stuck.contains(&folder) || self.marks.finished() {
                continue;
            }
            if let Err(error) = self.recover_one(&folder) {
                last = Err(error);
            }
        }
        last
    }

    fn recover_one(&mut self, folder: &Path) -> Result<(), OpenError> {
        let settings = &self.settings;
        let disk = &*settings.disk;
        let signer = Arc::new(schemas::note::Ed25519Signer::from_seed(settings.seal_seed));
        let Some(lock) = epoch::lock(disk, folder)? else { return Ok(()) };
        let recovered = crate::open::recover_folder(settings, &signer, folder);
        drop(lock);
        self.left.remove(folder);
        let recovered = match recovered {
            Ok(Some(recovered)) => recovered,
            Ok(None) => {
                self.left.insert(folder.to_owned());
                return Ok(());
            }
            Err(error @ (OpenError::Loss { .. } | OpenError::Salvaged(_))) => {
                self.stuck.insert(folder.to_owned());
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if let Recovered::Stuck { .. } = recovered {
            self.stuck.insert(folder.to_owned());
        }
        let mut newest = epoch::newest(disk, &settings.journal_dir)?;
        crate::open::note(settings, &mut newest, folder, &recovered)
    }
}

/// Closes the logs of gateways that have died with their machines, from the commit topic.
struct Survivor {
    closing: Closing,
    inner: Weak<Inner>,
    own: Origin,
    marks: Arc<Marks>,
    every: Duration,
}

impl Survivor {
    fn run(mut self) {
        let mut looked = Instant::now();
        while !self.marks.finished() {
            std::thread::sleep(TICK);
            if looked.elapsed() < self.every {
                continue;
            }
            let found = self.closing.look(Some(&self.own), false).and_then(|_| self.closing.late());
            match found {
                Ok(late) => late.iter().for_each(|late| self.record(late)),
                Err(error) if !self.marks.finished() => {
                    tracing::warn!(%error, "other gateways' logs in the commit topic cannot be looked at now");
                }
                Err(_) => {}
            }
            looked = Instant::now();
        }
    }

    /// Nobody was told of these records, and their log does not hold them: ours says so.
    fn record(&self, late: &Late) {
        let Late { origin, records, bytes } = late;
        tracing::warn!(%origin, records, bytes, "records behind a fence: they were told to nobody");
        let gap = Gap { reason: GapReason::Late, count: Some(*records), bytes: Some(*bytes) };
        if let Some(inner) = self.inner.upgrade()
            && let Err(error) = inner.append_blocking(Body::Gap(gap))
        {
            tracing::error!(%origin, records, %error, "records behind a fence are not recorded");
        }
    }
}
