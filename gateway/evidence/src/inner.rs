//! What all handles of a ledger share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schemas::note::Ed25519Signer;
use schemas::promise::Promise;
use schemas::record::{Body, Close, CloseReason, Config, Erasure, Heartbeat, Record, VERSION};
use schemas::{Identifier, Origin, Sha256Hex};

use crate::clock::Clock;
use crate::commit::Committer;
use crate::disk::{DiskLock, SharedDisk};
use crate::erase::{Due, Left, plan};
use crate::error::{Reason, Unavailable};
use crate::exchange::Abandoned;
use crate::journal::{Frame, Journal, JournalError, Reservation, Synced, Ticket};
use crate::kept::{self, Kept, Reship, ReshipError, ReshipReport, Reshipped};
use crate::keys::KeyTable;
use crate::ledger::{LedgerConfig, Reference};
use crate::marks::Marks;
use crate::next_minor;
use crate::own::{OwnSpace, Purpose};
use crate::part;
use crate::refusals::{Folds, PreAuth, folded};
use crate::space::Space;
use crate::tap;
use crate::unrecorded::{self, Unrecorded};
use crate::watermarks::{Room, Watermarks};

/// How long a stream's bytes wait in memory at most; swept ten times a second, within the 1 s of CA-6.
const FLUSH_AFTER: Duration = Duration::from_millis(700);
/// How often who waits for a record looks whether the lease still holds.
pub(crate) const LEASE_LOOK: Duration = Duration::from_millis(200);
/// How long the end of a log waits for the tap's sinks.
const TAP_SETTLES: Duration = Duration::from_secs(3);

pub(crate) struct Inner {
    pub(crate) origin: Origin,
    pub(crate) seal_public_key: [u8; 32],
    /// Signs promises to callers; `None`: none are made.
    pub(crate) promiser: Option<Ed25519Signer>,
    pub(crate) settings: LedgerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: SharedDisk,
    pub(crate) journal: Journal,
    /// `None` where the journal is on this disk only.
    pub(crate) committer: Option<Arc<Committer>>,
    /// `None` where encryption is off.
    pub(crate) keys: Option<KeyTable>,
    pub(crate) space: Space,
    pub(crate) kept: Arc<Kept>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) unrecorded: Unrecorded,
    /// Exchanges that have an intent in the journal's queue and no outcome there. While there is one, `close` waits.
    pub(crate) open_exchanges: AtomicU64,
    /// The configuration in force. Held for reading while a record is made and handed to the journal, so that the
    /// log's order and the hashes in the records agree (CH-4).
    config: RwLock<InForce>,
    /// The documents in force and when they were last written to the log, microseconds UTC.
    references: Mutex<(Vec<Reference>, i64)>,
    stopped: Mutex<Option<Unavailable>>,
    is_stopped: AtomicBool,
    folds: Folds,
    /// Writers with bytes in memory, oldest first.
    dirty: Mutex<VecDeque<(Instant, Weak<part::Shared>)>>,
    abandoned: Mutex<Vec<Abandoned>>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Keeps the epoch ours.
    pub(crate) lock: Mutex<Option<Box<dyn DiskLock>>>,
    /// Space for records of the log itself.
    pub(crate) own: OwnSpace,
    /// Serialises erasures; holds the keys whose erasure is recorded and that are not destroyed yet.
    pub(crate) erasing: Mutex<Due>,
    /// Who sends leaves to sinks.
    tap: OnceLock<Arc<tap::Shared>>,
}

/// What each record is made under.
struct InForce {
    config: Sha256Hex,
    /// `close` is in the journal's queue: nothing may come behind it.
    closed: bool,
}

/// What [`Inner::new`] takes.
pub(crate) struct Parts {
    pub(crate) origin: Origin,
    pub(crate) seal_public_key: [u8; 32],
    pub(crate) settings: LedgerConfig,
    pub(crate) journal: Journal,
    pub(crate) committer: Option<Arc<Committer>>,
    pub(crate) keys: Option<KeyTable>,
    pub(crate) space: Space,
    pub(crate) kept: Arc<Kept>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) lock: Box<dyn DiskLock>,
}

impl InForce {
    fn takes_records(&self) -> Result<(), Unavailable> {
        if self.closed {
            return Err(Unavailable::new(Reason::Draining, "the log is closed"));
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { origin, seal_public_key, settings, journal, committer, keys, space, kept, marks, lock } =
            parts;
        Self {
            origin,
            seal_public_key,
            promiser: settings.promise_seed.map(Ed25519Signer::from_seed),
            clock: settings.clock.clone(),
            disk: settings.disk.clone(),
            config: RwLock::new(InForce { config: settings.config.sha256(), closed: false }),
            references: Mutex::new((Vec::new(), settings.clock.now_us())),
            settings,
            journal,
            committer,
            keys,
            space,
            kept,
            marks,
            unrecorded: Unrecorded::default(),
            open_exchanges: AtomicU64::new(0),
            stopped: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
            folds: Folds::default(),
            dirty: Mutex::default(),
            abandoned: Mutex::default(),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            own: OwnSpace::default(),
            erasing: Mutex::default(),
            tap: OnceLock::new(),
        }
    }

    /// The tap runs.
    pub(crate) fn tapped(&self, tap: Option<(Arc<tap::Shared>, JoinHandle<()>)>) {
        if let Some((shared, keeper)) = tap {
            // Set once, when the epoch begins.
            let _ = self.tap.set(shared);
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
        }
    }

    /// What a journal error means for traffic. A failure ends the epoch (DU-4).
    pub(crate) fn journal_failed(&self, error: JournalError) -> Unavailable {
        let reason = match &error {
            JournalError::Failed { .. } => Reason::JournalFailed,
            JournalError::NoSpace { .. } => Reason::DiskFull,
            JournalError::Behind { .. } => Reason::Busy,
            JournalError::FrameTooLarge { .. } => Reason::RecordRefused,
            JournalError::Uncommitted(_) => Reason::NoLease,
            JournalError::Fenced { .. } => Reason::Fenced,
            JournalError::Closed => Reason::Draining,
        };
        let unavailable = Unavailable::new(reason, error.to_string());
        if matches!(reason, Reason::JournalFailed | Reason::Fenced) {
            self.stop(unavailable.clone());
        }
        unavailable
    }

    /// Admits nothing from now on. The first reason stands, but a failure replaces a drain.
    pub(crate) fn stop(&self, why: Unavailable) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let replaces = match &*stopped {
            None => true,
            Some(old) => old.reason == Reason::Draining && why.reason != Reason::Draining,
        };
        if replaces {
            if why.reason != Reason::Draining {
                tracing::error!(origin = %self.origin, reason = why.reason.as_str(), detail = %why.detail, "evidence cannot be written any more; traffic is refused");
            }
            *stopped = Some(why);
            self.is_stopped.store(true, Ordering::Release);
        }
    }

    fn check_stopped(&self) -> Result<(), Unavailable> {
        if let Some(alarm) = self.marks.alarm() {
            self.stop(alarm);
        }
        if self.is_stopped.load(Ordering::Acquire) {
            let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = &*stopped {
                return Err(why.clone());
            }
        }
        if let Some(error) = self.journal.failed() {
            return Err(self.journal_failed(error));
        }
        self.check_lease()
    }

    /// Whether the brokers know that this gateway lives (CA-7).
    pub(crate) fn check_lease(&self) -> Result<(), Unavailable> {
        match &self.committer {
            None => Ok(()),
            Some(committer) => committer.check().map_err(|error| self.journal_failed(error)),
        }
    }

    /// Whether another gateway closes this log.
    pub(crate) fn is_fenced(&self) -> bool {
        let ended = self.committer.as_ref().and_then(|committer| committer.check().err());
        matches!(ended, Some(JournalError::Fenced { .. }))
    }

    /// Waits for a ticket: what was submitted may be told. Where the lease ends meanwhile it is not waited for longer:
    /// the frames stay in the journal, and are told to nobody.
    pub(crate) async fn told(&self, ticket: &mut Ticket) -> Result<Synced, Unavailable> {
        if self.committer.is_none() {
            return ticket.await.map_err(|error| self.journal_failed(error));
        }
        loop {
            match tokio::time::timeout(LEASE_LOOK, &mut *ticket).await {
                Ok(told) => return told.map_err(|error| self.journal_failed(error)),
                Err(_) => self.check_lease()?,
            }
        }
    }

    /// The promise of a record that is on stable storage, where one was asked for.
    pub(crate) fn promise(&self, synced: &Synced) -> Option<Promise> {
        synced.promised.as_ref()?.promise(self.promiser.as_ref()?)
    }

    /// As [`Inner::told`], on a plain thread.
    pub(crate) fn told_blocking(&self, mut ticket: Ticket) -> Result<Synced, Unavailable> {
        let told = self.told_or_late(&mut ticket)?;
        told.unwrap_or_else(|| ticket.wait()).map_err(|error| self.journal_failed(error))
    }

    /// What became of a ticket, for as long as the lease lasts; `None` where there is none: it may be waited for.
    ///
    /// # Errors
    /// The lease ended, and nobody knows yet.
    fn told_or_late(&self, ticket: &mut Ticket) -> Result<Option<Result<Synced, JournalError>>, Unavailable> {
        if self.committer.is_none() {
            return Ok(None);
        }
        loop {
            match ticket.told() {
                Some(told) => return Ok(Some(told)),
                None => self.check_lease()?,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether an exchange may be admitted.
    pub(crate) fn readiness(&self) -> Result<(), Unavailable> {
        self.check_stopped()?;
        let wanted = crate::admission::reserve();
        drop(self.space.reserve(wanted)?);
        // More is allocated as it is used; only a disk that has nothing left refuses.
        if let Err(error) = self.journal.try_reserve(wanted) {
            let free = self.disk.free_bytes(&self.settings.journal_dir).unwrap_or(0);
            if free < self.settings.segment_bytes {
                return Err(self.journal_failed(error));
            }
        }
        Ok(())
    }

    /// The quick part of [`Inner::readiness`], for each admission: it reserves for itself.
    pub(crate) fn admits(&self) -> Result<(), Unavailable> {
        self.check_stopped()
    }

    /// Encodes `body` under the configuration in force and hands it, behind `frames`, to the journal.
    ///
    /// # Errors
    /// It is not in the journal's queue and will never be.
    pub(crate) fn submit(
        &self,
        reservation: Option<&mut Reservation>,
        frames: Vec<Frame>,
        body: Body,
    ) -> Result<Ticket, Unavailable> {
        self.submit_promised(reservation, frames, body, false)
    }

    /// As [`Inner::submit`]; where `promise`, what is told of the record holds what can be promised of it.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn submit_promised(
        &self,
        reservation: Option<&mut Reservation>,
        mut frames: Vec<Frame>,
        body: Body,
        promise: bool,
    ) -> Result<Ticket, Unavailable> {
        let in_force = self.config.read().unwrap_or_else(PoisonError::into_inner);
        in_force.takes_records()?;
        let purpose = match &body {
            Body::Erasure(_) => Purpose::Erasure,
            _ => Purpose::Record,
        };
        frames.extend(next_minor::frames(encode(self.clock.now_us(), in_force.config, body)?));
        let first = || {
            frames
                .iter()
                .find_map(|frame| if let Frame::Record { hash, .. } = frame { Some(*hash) } else { None })
        };
        let promise = if promise && self.promiser.is_some() { first() } else { None };
        let ticket = match reservation {
            Some(reservation) => self.journal.try_submit_promised(reservation, frames, promise),
            None => self.own.submit(&self.journal, purpose, frames),
        };
        ticket.map_err(|error| self.journal_failed(error))
    }

    /// Appends a record of the log itself; durable on return, with its position.
    pub(crate) async fn append(&self, body: Body) -> Result<u64, Unavailable> {
        let mut ticket = self.submit(None, Vec::new(), body)?;
        Ok(self.told(&mut ticket).await?.positions.start)
    }

    /// [`Inner::append`] on a plain thread.
    pub(crate) fn append_blocking(&self, body: Body) -> Result<u64, Unavailable> {
        let ticket = self.submit(None, Vec::new(), body)?;
        Ok(self.told_blocking(ticket)?.positions.start)
    }

    /// [`Inner::append_blocking`] of a record whose time was judged before it is made.
    pub(crate) fn append_at_blocking(&self, at: i64, body: Body) -> Result<u64, Unavailable> {
        let in_force = self.config.read().unwrap_or_else(PoisonError::into_inner);
        in_force.takes_records()?;
        let frames = next_minor::frames(encode(at, in_force.config, body)?).into_iter().collect();
        let ticket = self.own.submit(&self.journal, Purpose::Record, frames);
        drop(in_force);
        Ok(self.told_blocking(ticket.map_err(|error| self.journal_failed(error))?)?.positions.start)
    }

    /// Appends erasures that belong together: all of them are taken, or, where the disk is full, none. Durable on return. What comes
    /// with an error tells what is recorded all the same.
    pub(crate) fn append_erasures_blocking(&self, erasures: &[Erasure]) -> Result<(), (Unavailable, Left)> {
        let frames = |config: Sha256Hex| -> Result<Vec<Frame>, Unavailable> {
            let now = self.clock.now_us();
            let mut frames = plan::frames(erasures)?;
            for erasure in erasures {
                frames.extend(next_minor::frames(encode(now, config, Body::Erasure(erasure.clone()))?));
            }
            Ok(frames)
        };
        let submitted = self.submit_together(Purpose::Erasure, &frames);
        let mut ticket = submitted.map_err(|error| (error, Left::Nothing))?;
        let told = match self.told_or_late(&mut ticket) {
            Err(error) => return Err((error, Left::Late(ticket))),
            Ok(told) => told.unwrap_or_else(|| ticket.wait()),
        };
        // However the journal ended: groups of it may be there.
        told.map(drop).map_err(|error| (self.journal_failed(error), Left::Unknown))
    }

    /// Appends records of one time, which was judged before they are made: all of them are taken, or, where the disk is full, none.
    /// Durable on return, with their positions.
    pub(crate) fn append_all_at_blocking(&self, at: i64, bodies: &[Body]) -> Result<Vec<u64>, Unavailable> {
        // The record that each begins with, where one is written as several.
        let firsts = std::cell::RefCell::new(Vec::new());
        let frames = |config: Sha256Hex| -> Result<Vec<Frame>, Unavailable> {
            let (mut frames, mut first) = (Vec::new(), Vec::with_capacity(bodies.len()));
            for body in bodies {
                first.push(frames.len() as u64);
                frames.extend(next_minor::frames(encode(at, config, body.clone())?));
            }
            firsts.replace(first);
            Ok(frames)
        };
        let synced = self.told_blocking(self.submit_together(Purpose::Record, &frames)?)?;
        Ok(firsts.take().into_iter().map(|first| synced.positions.start + first).collect())
    }

    /// Hands what `frames` makes under the configuration in force to the journal, in one submission.
    fn submit_together(
        &self,
        purpose: Purpose,
        frames: &dyn Fn(Sha256Hex) -> Result<Vec<Frame>, Unavailable>,
    ) -> Result<Ticket, Unavailable> {
        let cost = Journal::cost(frames(self.config_in_force())?.iter().map(Frame::payload_bytes));
        // Many may need more than stands ready; that there is no more is told by the submission.
        let reserved = self.journal.reserve_blocking(cost);
        let in_force = self.config.read().unwrap_or_else(PoisonError::into_inner);
        in_force.takes_records()?;
        let frames = frames(in_force.config)?;
        let ticket = match reserved {
            Ok(mut reserved) => self.journal.try_submit(&mut reserved, frames),
            Err(_) => self.own.submit(&self.journal, purpose, frames),
        };
        ticket.map_err(|error| self.journal_failed(error))
    }

    /// Puts a new configuration into the log, and from then on into every record.
    pub(crate) fn change_config(
        &self,
        record: Config,
        references: Vec<Reference>,
    ) -> Result<Ticket, Unavailable> {
        let frames = reference_frames(&references);
        let next = record.next;
        let mut in_force = self.config.write().unwrap_or_else(PoisonError::into_inner);
        in_force.takes_records()?;
        let mut all = frames;
        all.push(encode(self.clock.now_us(), in_force.config, Body::Config(record))?);
        // Where it is refused the old one stays in force: no record may name what the log does not hold.
        let ticket = self
            .own
            .submit(&self.journal, Purpose::Record, all)
            .map_err(|error| self.journal_failed(error))?;
        in_force.config = next;
        drop(in_force);
        *self.references.lock().unwrap_or_else(PoisonError::into_inner) = (references, self.clock.now_us());
        Ok(ticket)
    }

    pub(crate) fn config_in_force(&self) -> Sha256Hex {
        self.config.read().unwrap_or_else(PoisonError::into_inner).config
    }

    /// Puts `close` into the log, where no exchange is open, with what was counted until now before it; every later
    /// record is refused. Durable on return, with its position.
    fn close_log(&self, reason: CloseReason, successor: Option<Origin>) -> Result<u64, Unavailable> {
        let mut telling = self.unrecorded.tell();
        let mut in_force = self.config.write().unwrap_or_else(PoisonError::into_inner);
        in_force.takes_records()?;
        let open = self.open_exchanges.load(Ordering::Acquire);
        if open > 0 {
            let detail = format!("{open} exchanges are still open; the next start closes them and the log");
            return Err(Unavailable::new(Reason::Draining, detail));
        }
        let alive_until = self.clock.now_us();
        let counters = (self.settings.counters)();
        let close = Close { reason, successor, alive_until, counters };
        let (folded, passed) = (self.folds.take(), telling.pending());
        let mut bodies: Vec<Body> = folded.iter().cloned().map(Body::Refusal).collect();
        bodies.extend((passed > 0).then(|| unrecorded::gap(Some(passed))));
        bodies.push(Body::Close(close));
        let (now, config) = (self.clock.now_us(), in_force.config);
        let frames: Result<Vec<_>, _> = bodies.into_iter().map(|body| encode(now, config, body)).collect();
        let submitted = frames.and_then(|frames| {
            let ticket = self.own.submit(&self.journal, Purpose::Close, frames);
            ticket.map_err(|error| self.journal_failed(error))
        });
        let ticket = match submitted {
            Ok(ticket) => ticket,
            Err(error) => {
                folded.iter().for_each(|refusal| self.folds.put_back(refusal));
                return Err(error);
            }
        };
        in_force.closed = true;
        drop(in_force);
        let synced = self.told_blocking(ticket)?;
        telling.told(passed);
        Ok(synced.positions.end.saturating_sub(1))
    }

    /// Records that the process lives, with its counters. Where the documents in force were written 30 days ago they
    /// go with it.
    pub(crate) fn beat(&self) -> Result<(), Unavailable> {
        const DAYS_30_US: i64 = 30 * 86_400 * 1_000_000;
        let heartbeat = Body::Heartbeat(Heartbeat { counters: (self.settings.counters)() });
        let now = self.clock.now_us();
        let due = {
            let references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
            (now - references.1 >= DAYS_30_US).then(|| references.0.clone())
        };
        let frames = due.as_deref().map(reference_frames).unwrap_or_default();
        self.submit(None, frames, heartbeat)?;
        if due.is_some() {
            // Only now: what was refused stays due.
            self.references.lock().unwrap_or_else(PoisonError::into_inner).1 = now;
        }
        Ok(())
    }

    /// A stream has bytes in memory since `since`.
    pub(crate) fn flush_later(&self, since: Instant, writer: &Arc<part::Shared>) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push_back((since, Arc::downgrade(writer)));
    }

    /// Journals what has waited in memory for long.
    pub(crate) fn flush_aged(&self) {
        let mut aged = Vec::new();
        {
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            while dirty.front().is_some_and(|(since, _)| since.elapsed() >= FLUSH_AFTER) {
                aged.extend(dirty.pop_front().and_then(|(_, writer)| writer.upgrade()));
            }
        }
        for writer in aged {
            writer.flush_aged();
        }
    }

    /// An exchange lost all its handles before its outcome. It stays counted as open until that is in the journal's
    /// queue.
    pub(crate) fn abandon(&self, exchange: Abandoned) {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
    }

    /// Whether exchanges wait for [`Inner::close_abandoned`].
    fn has_abandoned(&self) -> bool {
        !self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Writes the outcomes of abandoned exchanges. One that is refused now is tried again with the next call.
    pub(crate) fn close_abandoned(&self) {
        let abandoned = std::mem::take(&mut *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner));
        for mut exchange in abandoned {
            match exchange.close(self) {
                // Only now `close` may come: it stands behind every outcome.
                Ok(()) => {
                    self.open_exchanges.fetch_sub(1, Ordering::AcqRel);
                }
                Err(error) if exchange.may_be_closed() => {
                    tracing::debug!(%error, "an outcome waits for the journal");
                    self.abandon(exchange);
                }
                Err(error) => tracing::warn!(%error, "an exchange stays open; the next start closes it"),
            }
        }
    }

    pub(crate) async fn refuse_before_authentication(
        &self,
        reason: Identifier,
        status: i64,
    ) -> Result<PreAuth, Unavailable> {
        self.check_stopped()?;
        let now = self.clock.now_us();
        {
            // No count comes behind the last ones, which go with `close`.
            let in_force = self.config.read().unwrap_or_else(PoisonError::into_inner);
            in_force.takes_records()?;
            if !self.folds.single(&reason, status, now) {
                return Ok(PreAuth::Folded);
            }
        }
        let exchange = crate::exchange_id::new(now);
        let mut refusal = folded(reason, status, None);
        refusal.exchange = Some(exchange.clone());
        self.append(Body::Refusal(refusal)).await?;
        Ok(PreAuth::Recorded(exchange))
    }

    /// Journals what was folded.
    pub(crate) fn write_folded(&self) {
        for refusal in self.folds.take() {
            if let Err(error) = self
                .submit(None, Vec::new(), Body::Refusal(refusal.clone()))
                .and_then(|ticket| self.told_blocking(ticket).map(|_| ()))
            {
                // It is in the journal's queue, and gets there when the brokers are back.
                if error.reason == Reason::NoLease {
                    continue;
                }
                tracing::warn!(%error, "a count of refusals waits for the journal");
                self.folds.put_back(&refusal);
            }
        }
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        let marks = self.marks.snapshot();
        let journaled = self.journal.journaled();
        let figures = self.settings.store.figures();
        let (unrecorded, untold) = self.unrecorded.counts();
        Watermarks {
            unrecorded,
            untold,
            receipts_forged: figures.receipts_forged,
            put_again: figures.put_again,
            journaled,
            kept_bytes: self.kept.bytes(),
            journal_bytes: self.journal.segments().bytes(),
            commit: self.committer.as_ref().map(|committer| committer.figures()),
            reserved_bytes: self.space.promised(),
            open_exchanges: self.open_exchanges.load(Ordering::Relaxed),
            ..marks
        }
    }

    /// How much the disks still take.
    pub(crate) fn room(&self) -> Room {
        let settings = &self.settings;
        let free = |folder| self.disk.free_bytes(folder).ok();
        let spool = free(&settings.spool_dir);
        Room {
            journal: free(&settings.journal_dir),
            spool,
            key_table: free(&settings.key_table_dir),
            spool_bound: settings.spool_bound_bytes,
            // What is kept gives way.
            full_in_s: self.space.full_in_s(spool.map(|free| free.saturating_add(self.kept.bytes()))),
        }
    }

    /// Puts kept batches again, for as long as this process does not end.
    pub(crate) fn reship(&self, asked: &Reship) -> Result<ReshipReport, ReshipError> {
        let settings = LedgerConfig { stop: self.marks.stop.clone(), ..self.settings.clone() };
        let report = kept::reship(&settings, asked)?;
        let again = report.batches.iter().filter(|one| matches!(one.became, Reshipped::Again { .. })).count();
        self.marks.update(|marks| marks.reshipped += again as u64);
        Ok(report)
    }

    pub(crate) fn seal_soon(&self) {
        self.marks.seal_soon();
    }

    pub(crate) async fn wait_archived(&self, position: u64, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        while self.marks.snapshot().archived < position {
            if Instant::now() >= until || self.marks.alarm().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    pub(crate) fn wait_archived_blocking(&self, position: u64, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        while self.marks.snapshot().archived < position {
            // Nobody ships any more, or nothing can be written: waiting helps nobody.
            let ended =
                self.marks.finished() || self.marks.alarm().is_some() || self.journal.failed().is_some();
            if ended || Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until the store has what earlier processes left; how many logs of theirs it has not.
    async fn wait_for_earlier(&self, until: Instant) -> u64 {
        loop {
            let waiting = self.marks.snapshot().earlier.waiting;
            if waiting == 0 || Instant::now() >= until || self.marks.alarm().is_some() {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn drain_and_close(
        self: &Arc<Self>,
        reason: CloseReason,
        successor: Option<Origin>,
        bound: Duration,
    ) -> Result<(), Unavailable> {
        self.stop(Unavailable::new(Reason::Draining, "the gateway is draining"));
        let until = Instant::now() + bound;
        // What earlier processes left is for the one that goes on here.
        let leaves_earlier = successor.is_some();
        if !leaves_earlier {
            self.marks.leave();
        }
        // Handles that were just dropped are closed here; those that still live are cut by the next start.
        while self.open_exchanges.load(Ordering::Acquire) > 0 && Instant::now() < until {
            // Nothing is written any more: no exchange can end, and the next start closes them.
            if let Some(error) = self.journal.failed() {
                self.save_unrecorded();
                return Err(self.journal_failed(error));
            }
            if self.has_abandoned() {
                let inner = self.clone();
                // What it could not close is tried again, and counted.
                let _ = tokio::task::spawn_blocking(move || inner.close_abandoned()).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let inner = self.clone();
        let last = tokio::task::spawn_blocking(move || -> Result<u64, Unavailable> {
            let last = inner.close_log(reason, successor).inspect_err(|_| inner.save_unrecorded())?;
            inner.journal.close();
            Ok(last)
        })
        .await
        .map_err(|error| Unavailable::new(Reason::JournalFailed, error.to_string()))??;
        self.marks.seal_soon();
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let archived = self.wait_archived(last + 1, left).await;
        let earlier = if archived && !leaves_earlier { self.wait_for_earlier(until).await } else { 0 };
        if let Some(tap) = self.tap.get().cloned() {
            // The end of the log is worth a moment; what the sinks do not get now the next start sends.
            let _ = tokio::task::spawn_blocking(move || tap.settle(TAP_SETTLES)).await;
        }
        self.marks.finish();
        let inner = self.clone();
        let finished = tokio::task::spawn_blocking(move || {
            inner.join();
            // The journal stays where an erasure in it is not done: the next start goes on.
            let done = crate::erase::destroy_due(&inner);
            if archived && done { crate::open::finish_epoch(&inner) } else { Ok(()) }
        })
        .await;
        if !archived {
            let detail = match self.marks.alarm() {
                Some(alarm) => alarm.detail,
                None => "the store did not take everything in time; the next start goes on".into(),
            };
            return Err(Unavailable::new(Reason::SpoolFull, detail));
        }
        match finished {
            Ok(Ok(())) if earlier > 0 => {
                let what = format!(
                    "{earlier} logs of earlier processes are not all in the store; the next start goes on"
                );
                Err(Unavailable::new(Reason::SpoolFull, what))
            }
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Unavailable::new(Reason::JournalFailed, error.to_string())),
            Err(error) => Err(Unavailable::new(Reason::JournalFailed, error.to_string())),
        }
    }

    /// Records what passed without a record.
    pub(crate) fn write_unrecorded(&self) {
        let mut telling = self.unrecorded.tell();
        let count = telling.pending();
        // Without a lease it waits: its count is beside the journal.
        if count == 0 || self.check_lease().is_err() {
            return;
        }
        match self.append_blocking(unrecorded::gap(Some(count))) {
            Ok(_) => telling.told(count),
            // It is in the journal's queue, and gets there when the brokers are back.
            Err(error) if error.reason == Reason::NoLease => telling.told(count),
            Err(_) => {}
        }
    }

    /// Keeps beside the journal how much passed that no record tells of.
    pub(crate) fn save_unrecorded(&self) {
        let folder = self.settings.journal_dir.join(self.origin.epoch());
        let mut telling = self.unrecorded.tell();
        if let Err(error) = telling.save(&*self.disk, &folder, self.journal.journaled()) {
            tracing::error!(%error, count = telling.pending(), "how much passed unrecorded is in memory only");
        }
    }

    /// Waits for the ledger's threads, but not for the one that calls.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                // A thread that panicked has left the epoch to the next start.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.marks.finish();
        self.join();
    }
}

/// One record frame.
pub(crate) fn encode(at: i64, config: Sha256Hex, body: Body) -> Result<Frame, Unavailable> {
    let record = Record { v: VERSION, at, config, body };
    let leaf = schemas::leaf::encode(&record).map_err(|error| {
        Unavailable::new(Reason::RecordRefused, format!("{}: {error}", record.body.kind()))
    })?;
    let hash = schemas::leaf::hash(&leaf);
    Ok(Frame::Record { leaf: leaf.into(), hash })
}

/// The frames that carry documents.
pub(crate) fn reference_frames(references: &[Reference]) -> Vec<Frame> {
    references
        .iter()
        .map(|reference| Frame::Reference {
            sha256: reference.sha256(),
            media_type: reference.media_type.to_string(),
            bytes: reference.bytes.clone(),
        })
        .collect()
}
