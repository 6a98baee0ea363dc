//! The handle to a journal: what its callers see.

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::note::Signer;
use schemas::promise::{Group, Promise};
use schemas::{Origin, Sha256Hex};
use tokio::sync::oneshot;

use super::append::{Appender, Shared, Submission};
use super::frame::{self, COPIED, Encoded, FRAME_FIELDS, FRAME_HEAD};
use super::group::{BLOCK, GROUP_HEAD, MAX_GROUP, Tag, blocks, segment_index};
use super::segments::Segments;
use super::space::{Maker, Reservation, Space};
use super::{Beside, Frame, JournalError};
use crate::disk::{self, SharedDisk};

/// How a journal is made.
#[derive(Clone)]
pub struct JournalConfig {
    /// The log whose records it keeps.
    pub origin: Origin,
    /// Bytes of a segment; default 64 MiB.
    pub segment_bytes: u64,
    /// No frame is larger than this; a segment's end may stay empty by as much. Default 4 MiB.
    pub frame_bytes: usize,
    /// A group is written when it has this many bytes, even where more frames wait. Default 4 MiB.
    pub group_bytes: usize,
    /// Unacknowledged content that may wait for the disk. Default 64 MiB.
    pub unacked_bytes: usize,
    /// Space allocated beyond what is promised. Default: one segment.
    pub ahead_bytes: u64,
    /// The wall clock, in microseconds UTC.
    pub now_us: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// A second place that each group must reach. Default: none.
    pub(crate) beside: Option<Arc<dyn Beside>>,
}

impl JournalConfig {
    /// The defaults.
    pub fn new(origin: Origin, now_us: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self {
            origin,
            segment_bytes: 64 << 20,
            frame_bytes: 4 << 20,
            group_bytes: 4 << 20,
            unacked_bytes: 64 << 20,
            ahead_bytes: 64 << 20,
            now_us,
            beside: None,
        }
    }

    pub(super) fn waste(&self) -> u64 {
        blocks((GROUP_HEAD + self.frame_bytes + FRAME_HEAD + FRAME_FIELDS) as u64)
    }
}

impl std::fmt::Debug for JournalConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalConfig").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What a submission became.
#[derive(Debug, Clone)]
pub struct Synced {
    /// The positions of its records, in order.
    pub positions: std::ops::Range<u64>,
    /// When its (last) group was written.
    pub time_us: i64,
    /// What can be promised of its first record, where that was asked for.
    pub promised: Option<Promised>,
}

/// A place among the promises of a group that is on stable storage.
#[derive(Debug, Clone)]
pub struct Promised {
    pub(super) group: Option<Arc<Group>>,
    pub(super) index: usize,
}

impl Promised {
    /// The promise. The first that is asked for of a group signs for all of it.
    pub fn promise(&self, signer: &dyn Signer) -> Option<Promise> {
        self.group.as_ref()?.promise(self.index, signer)
    }
}

/// Resolves when the frames of a submission are on stable storage, or never will be.
///
/// Dropping it does not take the frames back.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<Synced, JournalError>>);

impl Future for Ticket {
    type Output = Result<Synced, JournalError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(JournalError::Closed)))
    }
}

impl Ticket {
    fn refused(error: JournalError) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is here.
        let _ = sender.send(Err(error));
        Self(receiver)
    }

    /// What became of it, where that is known.
    pub(crate) fn told(&mut self) -> Option<Result<Synced, JournalError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(JournalError::Closed)),
        }
    }

    /// One that is told by hand.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (oneshot::Sender<Result<Synced, JournalError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Waits on a plain thread.
    ///
    /// # Errors
    /// As the journal says.
    pub fn wait(self) -> Result<Synced, JournalError> {
        block_on(self)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread. One of a runtime may only wait so for what another thread does at once.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A handle to one epoch's journal.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(beside) = &self.shared.config.beside {
            beside.close();
        }
    }
}

impl Journal {
    /// Makes the journal of a new epoch in `dir`, which must hold no journal yet; its first segment is durable on
    /// return. What was taken before a crash of this process is found by [`super::recover`].
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] where the first segment could not be made.
    pub fn create(disk: SharedDisk, dir: &Path, config: JournalConfig) -> Result<Self, JournalError> {
        let open = |error: std::io::Error| JournalError::Failed {
            call: "open",
            file: dir.display().to_string().into(),
            error: Arc::new(error),
        };
        let waste = config.waste();
        let least = BLOCK + 2 * waste;
        if config.segment_bytes < least || config.frame_bytes + config.group_bytes > MAX_GROUP {
            return Err(open(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!(
                    "segments of {} bytes with frames of {}: wanted at least {least}",
                    config.segment_bytes, config.frame_bytes
                ),
            )));
        }
        let mut salt = [0; 32];
        SystemRandom::new().fill(&mut salt).map_err(|_| open(std::io::Error::other("no random bytes")))?;
        disk::create_dir_all(&*disk, dir).map_err(open)?;
        if disk.list(dir).map_err(open)?.iter().any(|entry| segment_index(&entry.name).is_some()) {
            return Err(open(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "a journal is there already",
            )));
        }
        let tag = Tag::of(&config.origin, &salt);
        if let Some(beside) = &config.beside {
            beside.begin(salt)?;
        }
        let maker = Maker {
            disk: disk.clone(),
            dir: dir.to_owned(),
            origin: config.origin.clone(),
            salt,
            segment_bytes: config.segment_bytes,
        };
        let space = Arc::new(Space::new(maker, config.ahead_bytes, waste));
        space.grow()?;
        let segments = Arc::new(Segments::new(disk, dir.to_owned(), tag));
        let shared = Arc::new(Shared::new(config, space.clone(), segments, tag));
        let appender = shared.clone();
        let spawn =
            |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(run);
        let threads = vec![
            spawn("journal", Box::new(move || Appender::new(appender).run())).map_err(open)?,
            spawn("journal-space", Box::new(move || space.run_allocator())).map_err(|error| {
                shared.close();
                open(error)
            })?,
        ];
        Ok(Self(Arc::new(Handle { shared, threads: Mutex::new(threads) })))
    }

    /// Journal bytes that one submission of frames with these payload lengths takes at most.
    pub fn cost(payloads: impl IntoIterator<Item = usize>) -> u64 {
        payloads.into_iter().map(|bytes| (bytes + FRAME_HEAD + FRAME_FIELDS) as u64).sum::<u64>()
            + 3 * (BLOCK + GROUP_HEAD as u64)
    }

    /// What a submission is charged: its frames, and head and rounding of every group that they may be split over (the
    /// end of a group that others began, the end of a segment, and the group limit, which two groups together pass).
    /// Never more than [`Journal::cost`] while it is smaller than half a group.
    fn charge(&self, bytes: u64) -> u64 {
        let config = &self.0.shared.config;
        let per_group = (config.segment_bytes - BLOCK - config.waste()).min(config.group_bytes as u64).max(1);
        let groups = 3 + 2 * bytes / per_group;
        bytes + groups * (BLOCK + GROUP_HEAD as u64)
    }

    /// Reserves allocated space without waiting.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] where all that is allocated is promised; more is then being allocated where the disk
    /// has it.
    pub fn try_reserve(&self, bytes: u64) -> Result<Reservation, JournalError> {
        let mut reservation = self.reserve_nothing();
        reservation.try_extend(bytes)?;
        Ok(reservation)
    }

    /// Reserves space, waiting while segments are allocated for it.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] where the disk has no more, [`JournalError::Failed`] after a failure.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, JournalError> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        let mut reservation = self.reserve_nothing();
        reservation.extend(bytes).await?;
        Ok(reservation)
    }

    /// [`Journal::reserve`] on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn reserve_blocking(&self, bytes: u64) -> Result<Reservation, JournalError> {
        block_on(self.reserve(bytes))
    }

    /// An empty reservation, for submissions that take what is free.
    pub fn reserve_nothing(&self) -> Reservation {
        Reservation { space: self.0.shared.space.clone(), left: 0 }
    }

    /// Submits frames that belong together; the ticket resolves when they are on stable storage.
    ///
    /// They are charged to `reservation`, and to free space where it is short.
    pub fn submit(&self, reservation: &mut Reservation, frames: Vec<Frame>) -> Ticket {
        self.try_submit(reservation, frames).unwrap_or_else(Ticket::refused)
    }

    /// As [`Journal::submit`], for callers that must know at once whether the frames are in the queue.
    ///
    /// # Errors
    /// Nothing was taken: no space, a frame that is too large, or the journal has ended.
    pub fn try_submit(
        &self,
        reservation: &mut Reservation,
        frames: Vec<Frame>,
    ) -> Result<Ticket, JournalError> {
        self.try_submit_promised(reservation, frames, None)
    }

    /// As [`Journal::try_submit`]. `promise`: the leaf hash of the first record of `frames`, where somebody is to be promised
    /// that it is in the log: what is told of it then holds the promise.
    ///
    /// # Errors
    /// As there.
    pub fn try_submit_promised(
        &self,
        reservation: &mut Reservation,
        frames: Vec<Frame>,
        promise: Option<Sha256Hex>,
    ) -> Result<Ticket, JournalError> {
        let (done, ticket) = oneshot::channel();
        if frames.is_empty() {
            let (at, time_us) = (self.journaled(), (self.0.shared.config.now_us)());
            // The receiver is here.
            let _ = done.send(Ok(Synced { positions: at..at, time_us, promised: None }));
        } else {
            self.enqueue(reservation, frames, Some(done), false, promise)?;
        }
        Ok(Ticket(ticket))
    }

    /// Submits frames without a reservation: records of the log itself.
    pub fn submit_free(&self, frames: Vec<Frame>) -> Ticket {
        self.submit(&mut self.reserve_nothing(), frames)
    }

    /// Submits content that joins the next group; never waits. Whether it became durable shows with the next ticket.
    ///
    /// # Errors
    /// [`JournalError::Behind`] where too much waits for the disk, [`JournalError::NoSpace`], [`JournalError::Failed`].
    pub fn submit_unacked(&self, reservation: &mut Reservation, frame: Frame) -> Result<(), JournalError> {
        let limit = self.0.shared.config.unacked_bytes;
        let waiting = self.0.shared.unacked.load(Ordering::Relaxed);
        if waiting.saturating_add(frame.payload_bytes()) > limit {
            return Err(JournalError::Behind { waiting, limit });
        }
        self.enqueue(reservation, vec![frame], None, true, None)
    }

    fn enqueue(
        &self,
        reservation: &mut Reservation,
        frames: Vec<Frame>,
        done: Option<oneshot::Sender<Result<Synced, JournalError>>>,
        unacked: bool,
        promise: Option<Sha256Hex>,
    ) -> Result<(), JournalError> {
        let shared = &*self.0.shared;
        if let Some(error) = self.failed() {
            return Err(error);
        }
        let mut buffer = Vec::with_capacity(frames.len() * 128 + frames.iter().map(small).sum::<usize>());
        let mut encoded = Vec::with_capacity(frames.len());
        for frame in frames {
            let bytes = frame.payload_bytes();
            if bytes > shared.config.frame_bytes {
                return Err(JournalError::FrameTooLarge { bytes, limit: shared.config.frame_bytes });
            }
            encoded.push(frame::encode(frame, shared.seed, &mut buffer)?);
        }
        let total: usize = encoded.iter().map(Encoded::len).sum();
        let charge = self.charge(total as u64);
        reservation.pay(charge)?;
        let unacked = if unacked { total } else { 0 };
        shared.unacked.fetch_add(unacked, Ordering::Relaxed);
        let submission = Submission { buffer, frames: encoded, charge, unacked, done, promise };
        let mut queue = shared.lock();
        if queue.closed {
            drop(queue);
            shared.space.give_back(charge);
            shared.unacked.fetch_sub(unacked, Ordering::Relaxed);
            return Err(JournalError::Closed);
        }
        let idle = queue.waiting.is_empty();
        queue.waiting.push(submission);
        drop(queue);
        if idle {
            shared.arrived.notify_one();
        }
        Ok(())
    }

    /// The failure that ended this journal, where one did.
    pub fn failed(&self) -> Option<JournalError> {
        let shared = &self.0.shared;
        let beside = || shared.config.beside.as_ref().and_then(|beside| beside.ended());
        shared.space.failed.get().cloned().or_else(beside)
    }

    /// The second place, where there is one.
    pub(super) fn beside(&self) -> Option<&Arc<dyn Beside>> {
        self.0.shared.config.beside.as_ref()
    }

    /// Ends the journal: a file that belongs to it could not be synced.
    pub(super) fn fail(&self, error: JournalError) {
        // The first failure stands.
        let _ = self.0.shared.space.failed.set(error);
    }

    /// The position behind the last durable record: watermark `journaled` (DU-1).
    pub fn journaled(&self) -> u64 {
        self.0.shared.journaled.load(Ordering::Acquire)
    }

    /// Groups written so far: each is one sync.
    pub fn groups(&self) -> u64 {
        self.0.shared.groups.load(Ordering::Relaxed)
    }

    /// What is written, to read it back.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.0.shared.segments
    }

    /// Writes what waits and ends the threads. Blocks; later submissions get [`JournalError::Closed`].
    pub fn close(&self) {
        self.0.shared.close();
        let threads =
            std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has dropped the tickets: their holders know.
            let _ = thread.join();
        }
        if let Some(beside) = self.beside() {
            beside.close();
        }
    }
}

/// Bytes of a frame that are copied behind its head.
fn small(frame: &Frame) -> usize {
    let bytes = frame.payload_bytes();
    if bytes <= COPIED { bytes } else { 0 }
}
