//! An exchange from its intent to its outcome (CA-2, CA-6).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use schemas::content::{Committer, Salt};
use schemas::promise::Promise;
use schemas::record::{
    Answered, Attempt, AttemptNumber, Body, End, Intent, Outcome, Part, PartName, Timing, Unpriced, Usage,
    UsageRole, UsageSource,
};
use schemas::{ExchangeId, Identifier};

use crate::admission::{NewPart, PartContent};
use crate::attempts::Attempts;
use crate::body::{self, BodySink, StoredBody};
use crate::cipher::ContentKey;
use crate::error::{Cut, Reason, Unavailable};
use crate::inner::Inner;
use crate::journal::{Frame, Journal, JournalError, Reservation, Synced, Ticket};
use crate::part::{PartWriter, UNIT_BYTES};
use crate::random;
use crate::space::SpoolSpace;

/// Journal bytes that the record of an attempt's opening has at most: names, and one part.
const OPEN_BYTES: usize = 8 << 10;
/// Journal bytes that any other record of an attempt has at most: what the provider said is in it, and money (CA-7).
const END_BYTES: usize = 32 << 10;
const OPEN: &str = "open";
const END: &str = "end";

/// What all handles of one exchange share.
pub(crate) struct Core {
    pub(crate) inner: Arc<Inner>,
    pub(crate) exchange: ExchangeId,
    pub(crate) key: Option<Arc<ContentKey>>,
    discard: AtomicBool,
    /// The caller gets promises.
    promise: AtomicBool,
    /// The last delivered count, for an exchange that is left open.
    delivered: AtomicU64,
    held: Mutex<Held>,
}

struct Held {
    journal: Option<Reservation>,
    spool: SpoolSpace,
    /// Whether the admission's own 64 KiB unit belongs to a part already.
    unit_taken: bool,
    /// The last frames of finished parts: they go with the outcome.
    last_frames: Vec<Frame>,
    /// Parts that were dropped unfinished.
    left: Vec<Part>,
    /// Set between intent and outcome.
    open: Option<Open>,
}

struct Open {
    intent: Intent,
    position: Position,
    attempts: Attempts,
}

enum Position {
    /// The intent is on its way to the disk.
    Nowhere,
    Known(u64),
    /// The intent's caller went away before it was synced.
    Coming(Ticket),
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        inner: Arc<Inner>,
        exchange: ExchangeId,
        key: Option<Arc<ContentKey>>,
        journal: Reservation,
        spool: SpoolSpace,
    ) -> Self {
        let held = Held {
            journal: Some(journal),
            spool,
            unit_taken: false,
            last_frames: Vec::new(),
            left: Vec::new(),
            open: None,
        };
        let (discard, promise) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { inner, exchange, key, discard, promise, delivered: AtomicU64::new(0), held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key_id(&self) -> Option<&Identifier> {
        self.key.as_ref().map(|key| &key.id)
    }

    pub(crate) fn keeps(&self) -> bool {
        !self.discard.load(Ordering::Relaxed)
    }

    pub(crate) fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    pub(crate) fn promise(&self) {
        self.promise.store(true, Ordering::Relaxed);
    }

    fn promises(&self) -> bool {
        self.promise.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered(&self, total: u64) {
        self.delivered.store(total, Ordering::Relaxed);
    }

    /// Extends what is reserved by `bytes`, in the journal and in the spool (CA-7).
    ///
    /// Where all that is allocated is promised it waits in line, on this thread, for the journal's own thread to allocate
    /// more: a burst of streams is slowed down for that long, and cut only where the disk has no more.
    pub(crate) fn extend(&self, bytes: u64) -> Result<(), Unavailable> {
        if self.try_extend(bytes)? {
            return Ok(());
        }
        let more =
            self.inner.journal.reserve_blocking(bytes).map_err(|error| self.inner.journal_failed(error))?;
        self.add(more, bytes)
    }

    /// Takes from what is allocated; false where that is short.
    fn try_extend(&self, bytes: u64) -> Result<bool, Unavailable> {
        let mut held = self.held();
        match &mut held.journal {
            Some(journal) => match journal.try_extend(bytes) {
                Ok(()) => held.spool.extend(bytes).map(|()| true),
                Err(_) => Ok(false),
            },
            None => Err(Unavailable::new(Reason::Draining, "the exchange is over")),
        }
    }

    /// Adds what was reserved for this exchange.
    fn add(&self, more: Reservation, bytes: u64) -> Result<(), Unavailable> {
        let mut held = self.held();
        match &mut held.journal {
            Some(journal) => journal.absorb(more),
            None => return Err(Unavailable::new(Reason::Draining, "the exchange is over")),
        }
        held.spool.extend(bytes)
    }

    /// Space for a part's last unit: the admission's own for the first part.
    pub(crate) fn reserve_unit(&self) -> Result<(), Unavailable> {
        if !std::mem::replace(&mut self.held().unit_taken, true) {
            return Ok(());
        }
        self.extend(Journal::cost([UNIT_BYTES + 256]))
    }

    pub(crate) fn submit_unacked(&self, frame: Frame) -> Result<(), Unavailable> {
        // What the brokers do not get is not given on for longer than a lease.
        self.inner.check_lease()?;
        match &mut self.held().journal {
            Some(journal) => self
                .inner
                .journal
                .submit_unacked(journal, frame)
                .map_err(|error| self.inner.journal_failed(error)),
            None => Err(Unavailable::new(Reason::Draining, "the exchange is over")),
        }
    }

    pub(crate) fn last_frame(&self, frame: Frame) {
        self.held().last_frames.push(frame);
    }

    pub(crate) fn left_part(&self, part: Part) {
        self.held().left.push(part);
    }

    /// Encodes a record and hands it, behind `frames`, to the journal.
    pub(crate) fn submit(&self, frames: Vec<Frame>, body: Body) -> Result<Ticket, Unavailable> {
        let mut held = self.held();
        match &mut held.journal {
            Some(journal) => self.inner.submit_promised(Some(journal), frames, body, self.promises()),
            None => Err(Unavailable::new(Reason::Draining, "the exchange is over")),
        }
    }

    /// Hashes and encrypts parts that stand ready. Bodies over 1 MiB go to spill files.
    pub(crate) async fn ready_parts(
        self: &Arc<Self>,
        parts: Vec<NewPart>,
    ) -> Result<(Vec<Frame>, Vec<Part>, Vec<StoredBody>), Unavailable> {
        let mut frames = Vec::new();
        let mut named = Vec::new();
        let mut bodies = Vec::new();
        for NewPart { part, media_type, content_encoding, content } in parts {
            let stored = match content {
                PartContent::Bytes(bytes) if bytes.len() > body::MEMORY_BYTES && self.keeps() => {
                    let mut sink = BodySink::new(self.clone(), part);
                    sink.write(bytes).await?;
                    sink.finish().await?
                }
                PartContent::Bytes(bytes) => {
                    let (part, more) = self.whole(part, media_type, content_encoding, &bytes)?;
                    named.push(part);
                    frames.extend(more);
                    continue;
                }
                PartContent::Stored(body) => body,
            };
            if !stored.belongs_to(self) {
                return Err(Unavailable::new(Reason::RecordRefused, "a body of another admission"));
            }
            let (part, more) = stored.part_and_frames(self, media_type, content_encoding)?;
            named.push(part);
            frames.extend(more);
            bodies.push(stored);
        }
        // What the admission has reserved is for heads and records; ready content asks for its own space.
        let bytes = Journal::cost(frames.iter().map(Frame::payload_bytes));
        self.extend_waiting(bytes).await?;
        if self.keeps() {
            for body in &bodies {
                body.named();
            }
        }
        Ok((frames, named, bodies))
    }

    /// As [`Core::extend`], for tasks: waits in line without holding a thread.
    async fn extend_waiting(&self, bytes: u64) -> Result<(), Unavailable> {
        if self.try_extend(bytes)? {
            return Ok(());
        }
        let more =
            self.inner.journal.reserve(bytes).await.map_err(|error| self.inner.journal_failed(error))?;
        self.add(more, bytes)
    }

    /// Hands the outcome to the journal: from here on the exchange is over. Where it is refused, the exchange stays open
    /// with its parts, and the ledger closes it.
    fn end(&self, mut outcome: Outcome) -> Result<Ticket, Unavailable> {
        let mut held = self.held();
        let held = &mut *held;
        let Some(Open { intent, attempts, .. }) = &held.open else {
            return Err(Unavailable::new(Reason::RecordRefused, "the exchange has its outcome"));
        };
        // One exchange, one retention class: its intent's.
        outcome.retention = intent.retention.clone();
        if let Err(error) = attempts.tell(&mut outcome).and_then(|()| attempts.may_name(&outcome.parts)) {
            held.left.extend(outcome.parts);
            return Err(error);
        }
        let (frames, parts) = (held.last_frames.clone(), outcome.parts.clone());
        let body = Body::Outcome(outcome);
        match self.inner.submit_promised(held.journal.as_mut(), frames, body, self.promises()) {
            Ok(ticket) => {
                held.open = None;
                held.last_frames.clear();
                self.inner.open_exchanges.fetch_sub(1, Ordering::AcqRel);
                Ok(ticket)
            }
            Err(error) => {
                held.left.extend(parts);
                Err(error)
            }
        }
    }

    /// A part that is in memory: what a record says of it, and its frames.
    fn whole(
        &self,
        part: PartName,
        media_type: Option<Identifier>,
        content_encoding: Option<Identifier>,
        bytes: &Bytes,
    ) -> Result<(Part, Vec<Frame>), Unavailable> {
        let salt = random::bytes();
        let mut committer = Committer::new(&Salt::from_bytes(salt));
        committer.update(bytes);
        let (length, commitment) = committer.finish();
        let keep = self.keeps();
        let frames = if keep { body::memory_frames(self, part, &salt, bytes)? } else { Vec::new() };
        let kept = (!keep).then_some(false);
        Ok((Part { part, media_type, content_encoding, length, commitment, kept }, frames))
    }

    /// Journals the intent: from here on the exchange is open, it needs an outcome.
    pub(crate) fn open(self: &Arc<Self>, intent: Intent, frames: Vec<Frame>) -> Result<Waiting, Unavailable> {
        // Counted before it is in the journal's queue, so that `close` cannot come in between.
        self.inner.open_exchanges.fetch_add(1, Ordering::AcqRel);
        match self.submit(frames, Body::Intent(intent.clone())) {
            Ok(ticket) => {
                self.held().open =
                    Some(Open { intent, position: Position::Nowhere, attempts: Attempts::default() });
                Ok(Waiting { core: self.clone(), ticket: Some(ticket) })
            }
            Err(error) => {
                self.inner.open_exchanges.fetch_sub(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// What was tried so far, of an exchange that is open.
    fn with_attempts<T>(
        &self,
        look: impl FnOnce(&Attempts, &Intent) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        match &self.held().open {
            Some(open) => look(&open.attempts, &open.intent),
            None => Err(Unavailable::new(Reason::RecordRefused, "the exchange has its outcome")),
        }
    }

    /// Hands an attempt's record to the journal, and notes it: whatever closes the exchange tells of it. Where it is refused none
    /// of its content is kept.
    fn submit_attempt(
        &self,
        mut attempt: Attempt,
        phase: &str,
        frames: Vec<Frame>,
        parts: Vec<Part>,
        intent_position: u64,
    ) -> Result<Ticket, Unavailable> {
        let refused =
            |error: schemas::names::NameError| Unavailable::new(Reason::RecordRefused, error.to_string());
        attempt.phase = Identifier::new(phase).map_err(refused)?;
        attempt.exchange = self.exchange.clone();
        attempt.intent_position = intent_position;
        attempt.content_key = self.key_id().cloned().filter(|_| self.keeps() && !parts.is_empty());
        let mut held = self.held();
        let held = &mut *held;
        let Some(open) = &mut held.open else {
            return Err(Unavailable::new(Reason::RecordRefused, "the exchange has its outcome"));
        };
        if phase == END {
            open.attempts.name(&mut attempt, &open.intent.asked);
        }
        attempt.retention = (!parts.is_empty()).then(|| open.intent.retention.clone());
        attempt.parts = parts;
        let body = Body::Attempt(attempt.clone());
        let promises = self.promises();
        let ticket = self.inner.submit_promised(held.journal.as_mut(), frames, body, promises)?;
        open.attempts.note(&attempt);
        Ok(ticket)
    }

    /// The intent could not be made durable: whether it is in the journal only the next start can tell.
    pub(crate) fn unopened(&self) {
        if self.held().open.take().is_some() {
            self.inner.open_exchanges.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Waits for an intent to be synced. Dropped early it leaves the ticket behind, so that the ledger can close the
/// exchange.
pub(crate) struct Waiting {
    core: Arc<Core>,
    ticket: Option<Ticket>,
}

impl Future for Waiting {
    type Output = Result<Synced, JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = &mut self.ticket else { return Poll::Ready(Err(JournalError::Closed)) };
        let synced = std::task::ready!(Pin::new(ticket).poll(context));
        self.ticket = None;
        Poll::Ready(synced)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let (Some(ticket), Some(open)) = (self.ticket.take(), &mut self.core.held().open) {
            open.position = Position::Coming(ticket);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = held.open.take() {
            let abandoned = Abandoned {
                journal: held.journal.take(),
                _spool: std::mem::take(&mut held.spool),
                frames: std::mem::take(&mut held.last_frames),
                parts: std::mem::take(&mut held.left),
                delivered: self.delivered.load(Ordering::Relaxed),
                intent: open.intent,
                position: open.position,
                attempts: open.attempts,
            };
            self.inner.abandon(abandoned);
        }
    }
}

/// An exchange whose handles were all dropped before its outcome. The ledger writes that itself; where it cannot any
/// more, the next start does.
pub(crate) struct Abandoned {
    journal: Option<Reservation>,
    _spool: SpoolSpace,
    frames: Vec<Frame>,
    parts: Vec<Part>,
    delivered: u64,
    intent: Intent,
    position: Position,
    attempts: Attempts,
}

impl Abandoned {
    /// Writes the outcome. Blocks until the intent is synced, not for the outcome.
    ///
    /// # Errors
    /// It is not in the journal's queue; [`Abandoned::may_be_closed`] says whether another try may help.
    pub(crate) fn close(&mut self, inner: &Inner) -> Result<(), Unavailable> {
        let intent_position = match std::mem::replace(&mut self.position, Position::Nowhere) {
            Position::Nowhere => {
                return Err(Unavailable::new(Reason::JournalFailed, "the intent was not synced"));
            }
            Position::Known(position) => position,
            Position::Coming(mut ticket) if inner.committer.is_some() => match ticket.told() {
                Some(told) => told.map_err(|error| inner.journal_failed(error))?.positions.start,
                None => {
                    self.position = Position::Coming(ticket);
                    return Err(Unavailable::new(Reason::NoLease, "the intent is not on the brokers yet"));
                }
            },
            Position::Coming(ticket) => {
                ticket.wait().map_err(|error| inner.journal_failed(error))?.positions.start
            }
        };
        self.position = Position::Known(intent_position);
        let (intent, parts) = (self.intent.clone(), self.parts.clone());
        let mut outcome = cut_outcome(intent, intent_position, End::GatewayAbort, parts, self.delivered);
        self.attempts.tell(&mut outcome)?;
        outcome.parts.retain(|part| self.attempts.leaves(part.part));
        inner.submit(self.journal.as_mut(), self.frames.clone(), Body::Outcome(outcome)).map(drop)
    }

    /// Whether its intent is in the journal, as far as anyone knows.
    pub(crate) fn may_be_closed(&self) -> bool {
        matches!(self.position, Position::Known(_) | Position::Coming(_))
    }
}

/// The outcome of an exchange of which nothing is known but its intent, its content and a delivered count.
pub(crate) fn cut_outcome(
    intent: Intent,
    intent_position: u64,
    end: End,
    parts: Vec<Part>,
    delivered_at_least: u64,
) -> Outcome {
    // Whether tokens were used is not known; that they were not is only known where no model was asked.
    let (source, role, unpriced) = match &intent.asked.requested_model {
        Some(_) => (UsageSource::Unknown, UsageRole::Incurred, Unpriced::NoUsage),
        None => (UsageSource::Unknown, UsageRole::None, Unpriced::NoUsage),
    };
    let usage = Usage::of(source, role);
    Outcome {
        exchange: intent.exchange,
        intent_position,
        caller: intent.caller,
        asked: intent.asked,
        served: None,
        translation: intent.translation,
        answer_dropped: None,
        end,
        provider_end: None,
        provider_status: None,
        status: None,
        reason: None,
        delivered: None,
        released: None,
        delivered_at_least: Some(delivered_at_least),
        answered: Answered::default(),
        usage,
        cost: None,
        unpriced: Some(unpriced),
        timing: Timing::default(),
        rate_limits: std::collections::BTreeMap::new(),
        parts,
        content_key: intent.content_key,
        retention: intent.retention,
    }
}

/// An exchange whose intent is on stable storage. Dropped without an outcome it is closed as `gateway_abort`.
#[derive(Debug)]
pub struct OpenExchange {
    core: Arc<Core>,
    position: u64,
    promise: Option<Promise>,
}

impl OpenExchange {
    /// The intent of `core` is synced.
    pub(crate) fn new(core: Arc<Core>, synced: &Synced) -> Self {
        let position = synced.positions.start;
        if let Some(open) = &mut core.held().open {
            open.position = Position::Known(position);
        }
        let promise = core.inner.promise(synced);
        Self { core, position, promise }
    }

    /// The promise of its intent, where [`crate::Admission::promise`] asked for one.
    pub fn promise(&self) -> Option<&Promise> {
        self.promise.as_ref()
    }

    /// The exchange's id.
    pub fn exchange(&self) -> &ExchangeId {
        &self.core.exchange
    }

    /// Position of its intent.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Opens a part that comes as a stream.
    pub fn part(
        &self,
        part: PartName,
        media_type: Option<Identifier>,
        content_encoding: Option<Identifier>,
    ) -> PartWriter {
        PartWriter::new(self.core.clone(), part, media_type, content_encoding)
    }

    /// Takes a part that stands ready and may be large: in memory up to 1 MiB, beyond that encrypted on disk.
    pub fn body(&self, part: PartName) -> BodySink {
        BodySink::new(self.core.clone(), part)
    }

    /// Takes a part that stands ready and is small: a head, an error's text. It is durable with the outcome.
    ///
    /// # Errors
    /// No space could be had for it, or the journal failed.
    pub fn whole(
        &self,
        part: PartName,
        media_type: Option<Identifier>,
        content_encoding: Option<Identifier>,
        bytes: &Bytes,
    ) -> Result<Part, Cut> {
        let (part, frames) = self.core.whole(part, media_type, content_encoding, bytes).map_err(Cut)?;
        if bytes.len() > 4096 {
            self.core.extend(Journal::cost(frames.iter().map(Frame::payload_bytes))).map_err(Cut)?;
        }
        self.core.held().last_frames.extend(frames);
        Ok(part)
    }

    /// Records that bytes are about to go to a further target; `exchange`, `intent_position`, `phase` and what names content
    /// are set by the ledger. Durable on return, with the body that is sent: only then may the target get bytes (CA-1).
    /// Numbers run from 1 to 15, each behind the end of the one before.
    ///
    /// `request` is the part `attempt_request_<number>`: the body, where it is not the one that number 0 sent.
    ///
    /// # Errors
    /// Nothing may be sent. The record may get to the log all the same: [`OpenExchange::is_last`].
    pub async fn attempt_opens(
        &self,
        mut attempt: Attempt,
        request: Option<NewPart>,
    ) -> Result<u64, Unavailable> {
        let core = &self.core;
        core.with_attempts(|attempts, _| attempts.may_open(&attempt, request.as_ref()))?;
        // Its end has its space from here on (CA-7).
        core.extend_waiting(Journal::cost([OPEN_BYTES, END_BYTES])).await?;
        // What nobody would be told of is not recorded: the outcome tells of the attempt before it then.
        core.inner.check_lease()?;
        let (frames, parts, _bodies) = core.ready_parts(request.into_iter().collect()).await?;
        attempt.commitment = parts.first().map(|part| part.commitment);
        let mut ticket = core.submit_attempt(attempt, OPEN, frames, parts, self.position)?;
        Ok(core.inner.told(&mut ticket).await?.positions.start)
    }

    /// Whether the opening of this attempt, and of none behind it, is in the journal's queue, whoever was told so: the outcome tells
    /// of it.
    pub fn is_last(&self, number: AttemptNumber) -> bool {
        self.core
            .with_attempts(|attempts, _| Ok(attempts.number()))
            .is_ok_and(|last| last == u64::from(number))
    }

    /// Records how an attempt ended that the outcome will not tell of, number 0 too, and what its provider answered:
    /// `response` is the part `attempt_response_<number>`. Where it went is said as its opening, or the intent, said it; `end`
    /// and `usage` must be there. Need not be waited for: it is in the journal before what comes
    /// behind it, and on stable storage with the next group.
    ///
    /// # Errors
    /// It is not recorded, and nothing of `response` is kept: the exchange must go on with no further target.
    pub async fn attempt_ends(&self, attempt: Attempt, response: Option<NewPart>) -> Result<(), Unavailable> {
        let core = &self.core;
        core.with_attempts(|attempts, intent| attempts.may_end(&attempt, &intent.asked, response.as_ref()))?;
        if attempt.number == 0 {
            core.extend_waiting(Journal::cost([END_BYTES])).await?;
        }
        let (frames, parts, _bodies) = core.ready_parts(response.into_iter().collect()).await?;
        core.submit_attempt(attempt, END, frames, parts, self.position).map(drop)
    }

    /// Records a `side_call`, as [`OpenExchange::attempt_opens`] does an `attempt`.
    ///
    /// # Errors
    /// Nothing may be sent.
    pub async fn side_call(&self, mut call: Attempt) -> Result<u64, Unavailable> {
        call.exchange = self.core.exchange.clone();
        call.intent_position = self.position;
        self.core.extend_waiting(Journal::cost([END_BYTES])).await?;
        let mut ticket = self.core.submit(Vec::new(), Body::SideCall(call))?;
        Ok(self.core.inner.told(&mut ticket).await?.positions.start)
    }

    /// Records how the exchange ended and waits until that and all its content are on stable storage. Only then may
    /// the caller get the end of its answer (CA-2).
    ///
    /// `make` gets `parts` and the content key. `exchange`, `intent_position`, `parts` and `content_key` of what it
    /// returns are set by the ledger, and `served`, which it leaves out. Once called, the record is written even where the future is dropped. Gives the outcome's
    /// promise, where [`crate::Admission::promise`] asked for one.
    ///
    /// # Errors
    /// The answer must not be ended cleanly.
    pub async fn outcome(
        self,
        parts: Vec<Part>,
        make: impl FnOnce(Vec<Part>, Option<Identifier>) -> Outcome,
    ) -> Result<Option<Promise>, Unavailable> {
        let core = &self.core;
        let key = core.key_id().cloned().filter(|_| core.keeps());
        let mut outcome = make(parts.clone(), key.clone());
        outcome.exchange = core.exchange.clone();
        outcome.intent_position = self.position;
        outcome.parts = parts;
        outcome.content_key = key;
        let mut ticket = core.end(outcome)?;
        let synced = core.inner.told(&mut ticket).await?;
        Ok(core.inner.promise(&synced))
    }
}
