//! Space: what is allocated, what is promised, and the thread that allocates ahead (CA-7).
//!
//! `free` is what can still be written into allocated segments, `promised` what reservations and waiting submissions
//! may take of it; `promised <= free` always, so a submission that was taken never meets a full disk.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::JournalError;
use super::group::{BLOCK, SegmentHead, segment_name};
use crate::disk::{DiskFile, SharedDisk};

/// How long the allocator leaves a full disk alone where nobody waits for space.
const PAUSE: Duration = Duration::from_millis(500);

/// A segment that is allocated and whose name is durable.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) index: u32,
    pub(super) len: u64,
    pub(super) file: Arc<dyn DiskFile>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    grant: oneshot::Sender<Result<(), JournalError>>,
}

#[derive(Debug)]
struct State {
    free: u64,
    promised: u64,
    spares: VecDeque<Segment>,
    waiters: Vec<Waiter>,
    next_index: u32,
    /// When allocating ahead last failed.
    refused: Option<Instant>,
    closed: bool,
}

impl State {
    fn headroom(&self) -> u64 {
        self.free.saturating_sub(self.promised)
    }
}

/// The accounts of one journal's space.
#[derive(Debug)]
pub(super) struct Space {
    state: Mutex<State>,
    wanted: Condvar,
    /// Allocated beyond what is promised, so that admission need not wait.
    ahead: u64,
    /// The end of a segment that may stay empty because the next frame does not fit.
    waste: u64,
    maker: Maker,
    /// The failure that ended the journal.
    pub(super) failed: OnceLock<JournalError>,
}

/// What it takes to make a segment.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) disk: SharedDisk,
    pub(super) dir: PathBuf,
    pub(super) origin: schemas::Origin,
    pub(super) salt: [u8; 32],
    pub(super) segment_bytes: u64,
}

impl Maker {
    /// Makes a segment: allocated and written once, its head synced, its name durable, so that whoever finds a later one knows that this
    /// one was whole.
    ///
    /// A refusal leaves nothing behind and the number free. A failed sync ends the journal (DU-4).
    fn make(&self, index: u32) -> Result<Segment, JournalError> {
        let name = segment_name(index);
        let path = self.dir.join(&name);
        let refused = |error| JournalError::NoSpace { wanted: self.segment_bytes, error: Arc::new(error) };
        let failed =
            |error| JournalError::Failed { call: "sync", file: name.as_str().into(), error: Arc::new(error) };
        let file = match self.disk.create(&path) {
            // Left behind where a refused segment could not be removed. The journal's directory was empty at its start.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.unlink(&path).and_then(|()| self.disk.create(&path)).map_err(refused)?
            }
            other => other.map_err(refused)?,
        };
        let head =
            SegmentHead { origin: self.origin.clone(), salt: self.salt, index, bytes: self.segment_bytes };
        let head = head.encode();
        let ready = file.prepare(self.segment_bytes).and_then(|()| file.write_at(&[IoSlice::new(&head)], 0));
        if let Err(error) = ready {
            if let Err(second) = self.disk.unlink(&path) {
                tracing::warn!(path = %path.display(), error = %second, "a segment that was refused stays behind");
            }
            return Err(refused(error));
        }
        file.sync_data().map_err(failed)?;
        self.disk.sync_dir(&self.dir).map_err(failed)?;
        Ok(Segment { index, len: self.segment_bytes, file: Arc::from(file) })
    }
}

impl Space {
    pub(super) fn new(maker: Maker, ahead: u64, waste: u64) -> Self {
        let state = State {
            free: 0,
            promised: 0,
            spares: VecDeque::new(),
            waiters: Vec::new(),
            next_index: 0,
            refused: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            wanted: Condvar::new(),
            ahead,
            waste,
            maker,
            failed: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What of a segment's bytes from `offset` on can be counted on.
    pub(super) fn usable(&self, segment: &Segment, offset: u64) -> u64 {
        segment.len.saturating_sub(offset).saturating_sub(self.waste)
    }

    /// Makes one more segment and hands out what now fits.
    ///
    /// Only one thread at a time calls it: first `create`, then the allocator.
    pub(super) fn grow(&self) -> Result<(), JournalError> {
        let index = self.lock().next_index;
        let segment = self.maker.make(index).inspect_err(|error| {
            if let JournalError::Failed { .. } = error {
                tracing::error!(%error, "the journal failed; nothing more is taken until the next start");
                // The first failure stands.
                let _ = self.failed.set(error.clone());
            }
        })?;
        let usable = self.usable(&segment, BLOCK);
        let mut state = self.lock();
        state.next_index += 1;
        state.free += usable;
        state.spares.push_back(segment);
        state.refused = None;
        Self::grant(&mut state);
        Ok(())
    }

    fn grant(state: &mut State) {
        while let Some(waiter) = state.waiters.first() {
            if state.headroom() < waiter.bytes {
                break;
            }
            let waiter = state.waiters.remove(0);
            state.promised += waiter.bytes;
            if waiter.grant.send(Ok(())).is_err() {
                state.promised -= waiter.bytes;
            }
        }
    }

    /// Allocates ahead and for those who wait, until the journal closes.
    pub(super) fn run_allocator(&self) {
        loop {
            {
                let mut state = self.lock();
                loop {
                    if state.closed {
                        state.waiters.clear();
                        return;
                    }
                    let rests = state.refused.is_some_and(|at| at.elapsed() < PAUSE);
                    if !state.waiters.is_empty() || (state.headroom() < self.ahead && !rests) {
                        break;
                    }
                    state = self.wanted.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
            if let Err(error) = self.grow() {
                let mut state = self.lock();
                state.refused = Some(Instant::now());
                for waiter in state.waiters.drain(..) {
                    let refused = match &error {
                        JournalError::NoSpace { error, .. } => {
                            JournalError::NoSpace { wanted: waiter.bytes, error: error.clone() }
                        }
                        other => other.clone(),
                    };
                    // A waiter that left does not need the answer.
                    let _ = waiter.grant.send(Err(refused));
                }
                // A failed journal allocates no more; who still waits or comes is told so by the journal.
                state.closed |= self.failed.get().is_some();
            }
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wanted.notify_all();
    }

    /// Takes `bytes` from what is free, or nothing. It goes before those who wait: it is for exchanges that run, and they
    /// are about to begin.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let fits = state.headroom() >= bytes;
        if fits {
            state.promised += bytes;
        }
        if state.headroom() < self.ahead {
            self.wanted.notify_one();
        }
        fits
    }

    /// Takes `bytes`, waiting for segments to be made.
    pub(super) async fn take_waiting(&self, bytes: u64) -> Result<(), JournalError> {
        let granted = {
            let mut state = self.lock();
            if state.closed {
                return Err(self.failed.get().cloned().unwrap_or(JournalError::Closed));
            }
            if state.headroom() >= bytes && state.waiters.is_empty() {
                state.promised += bytes;
                if state.headroom() < self.ahead {
                    self.wanted.notify_one();
                }
                return Ok(());
            }
            let (grant, granted) = oneshot::channel();
            state.waiters.push(Waiter { bytes, grant });
            self.wanted.notify_one();
            granted
        };
        let mut granted = Granted { space: self, bytes, granted };
        (&mut granted.granted).await.unwrap_or(Err(JournalError::Closed))
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            let mut state = self.lock();
            state.promised = state.promised.saturating_sub(bytes);
            Self::grant(&mut state);
        }
    }

    /// The next segment to write into.
    pub(super) fn next_segment(&self) -> Option<Segment> {
        self.lock().spares.pop_front()
    }

    /// Accounts for a group: `left` is what the segment's usable bytes shrank by, `paid` the charge of the submissions
    /// that are now written whole.
    pub(super) fn written(&self, shrank: u64, paid: u64) {
        let mut state = self.lock();
        state.free = state.free.saturating_sub(shrank);
        state.promised = state.promised.saturating_sub(paid);
        Self::grant(&mut state);
        if state.headroom() < self.ahead {
            self.wanted.notify_one();
        }
    }

    pub(super) fn no_space(wanted: u64) -> JournalError {
        let error = io::Error::new(io::ErrorKind::StorageFull, "all allocated space is promised");
        JournalError::NoSpace { wanted, error: Arc::new(error) }
    }
}

/// Gives a grant back whose waiter was dropped between grant and wake.
struct Granted<'a> {
    space: &'a Space,
    bytes: u64,
    granted: oneshot::Receiver<Result<(), JournalError>>,
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        self.granted.close();
        if matches!(self.granted.try_recv(), Ok(Ok(()))) {
            self.space.give_back(self.bytes);
        }
    }
}

/// Journal space that is allocated on disk and belongs to its holder; dropping it gives back what was not used.
#[derive(Debug)]
pub struct Reservation {
    pub(super) space: Arc<Space>,
    pub(super) left: u64,
}

impl Reservation {
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes more, without waiting.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`]; the reservation stays as it was.
    pub fn try_extend(&mut self, bytes: u64) -> Result<(), JournalError> {
        if !self.space.take(bytes) {
            return Err(Space::no_space(bytes));
        }
        self.left += bytes;
        Ok(())
    }

    /// Takes more, waiting until segments are made for it.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`]; the reservation stays as it was.
    pub async fn extend(&mut self, bytes: u64) -> Result<(), JournalError> {
        self.space.take_waiting(bytes).await?;
        self.left += bytes;
        Ok(())
    }

    /// [`Reservation::extend`] on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn extend_blocking(&mut self, bytes: u64) -> Result<(), JournalError> {
        super::handle::block_on(self.extend(bytes))
    }

    /// Takes over what is left of another reservation of the same journal.
    pub fn absorb(&mut self, mut other: Self) {
        self.left += std::mem::take(&mut other.left);
    }

    /// Gives back what is above `bytes`.
    pub fn keep_at_most(&mut self, bytes: u64) {
        let surplus = self.left.saturating_sub(bytes);
        self.left -= surplus;
        self.space.give_back(surplus);
    }

    /// Moves `charge` out of the reservation, taking from free space what it lacks.
    pub(super) fn pay(&mut self, charge: u64) -> Result<(), JournalError> {
        if let Some(lacking) = charge.checked_sub(self.left).filter(|lacking| *lacking > 0) {
            self.try_extend(lacking)?;
        }
        self.left -= charge;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.give_back(self.left);
    }
}
