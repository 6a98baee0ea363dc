//! A part that comes as a stream: journaled as it comes, never waiting, at most 64 KiB or 1 s behind (CA-6).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use schemas::Identifier;
use schemas::content::{Committer, Salt};
use schemas::record::{Part, PartName};

use crate::cipher::{self, Place, SALT_BYTES};
use crate::error::{Cut, Reason, Unavailable};
use crate::exchange::Core;
use crate::journal::{ContentFrame, Frame, Journal};
use crate::random;

/// The space that is kept back for what of a part waits in memory (CA-7).
pub(crate) const UNIT_BYTES: usize = 64 << 10;

/// How much of a stream waits in memory: half a unit, so that with as much on its way to the disk it stays within one.
const WAITING_BYTES: usize = UNIT_BYTES / 2;

/// A buffer that is larger than this is given back after it was flushed: most streams are slow.
const KEPT_BUFFER: usize = 8 << 10;

/// Takes a part as it comes. Dropping it unfinished keeps what came.
#[derive(Debug)]
pub struct PartWriter {
    shared: Arc<Shared>,
}

/// The writer's state, also held by the queue of what must be flushed within 1 s.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<Core>,
    part: PartName,
    media_type: Option<Identifier>,
    content_encoding: Option<Identifier>,
    state: Mutex<State>,
}

struct State {
    buffer: Vec<u8>,
    salt: [u8; SALT_BYTES],
    committer: Option<Committer>,
    seq: u32,
    delivered: u64,
    keep: bool,
    /// Whether the part's reserved unit is whole: half of it is enough for the end, so the first flush takes the other.
    unit_whole: bool,
    cut: Option<Unavailable>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("buffered", &self.buffer.len())
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl PartWriter {
    /// The exchange's first writer has its unit reserved by the admission; each further one asks for its own.
    pub(crate) fn new(
        core: Arc<Core>,
        part: PartName,
        media_type: Option<Identifier>,
        content_encoding: Option<Identifier>,
    ) -> Self {
        let keep = core.keeps();
        let cut = if keep { core.reserve_unit().err() } else { None };
        let salt = random::bytes();
        let committer = Some(Committer::new(&Salt::from_bytes(salt)));
        let state =
            State { buffer: Vec::new(), salt, committer, seq: 0, delivered: 0, keep, unit_whole: true, cut };
        let shared = Shared { core, part, media_type, content_encoding, state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes the next bytes; `delivered_total` is what was handed to the caller's connection so far. Call it before the
    /// bytes are passed on. Never waits for the disk to take them; where more bytes come than space stands ready for, it
    /// waits on this thread until more is allocated (CA-7).
    ///
    /// # Errors
    /// The bytes were not taken and must not be passed on: no space could be had for them, or the journal failed. What
    /// came before stays recorded, and [`PartWriter::finish`] and the outcome still have their space.
    pub fn write(&self, bytes: &[u8], delivered_total: u64) -> Result<(), Cut> {
        self.shared.write(bytes, delivered_total)
    }

    /// Ends the part.
    pub fn finish(self) -> Part {
        self.shared.finish()
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(self: &Arc<Self>, mut bytes: &[u8], delivered_total: u64) -> Result<(), Cut> {
        let mut state = self.state();
        if let Some(cut) = &state.cut {
            return Err(Cut(cut.clone()));
        }
        if let Some(failed) = self.core.inner.journal.failed() {
            return Err(Cut(self.core.inner.journal_failed(failed)));
        }
        state.delivered = delivered_total;
        self.core.delivered(delivered_total);
        let was_empty = state.buffer.is_empty();
        while !bytes.is_empty() {
            if state.keep && state.buffer.len() == WAITING_BYTES {
                self.flush(&mut state).map_err(Cut)?;
            }
            let room = if state.keep { WAITING_BYTES - state.buffer.len() } else { bytes.len() };
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(committer) = &mut state.committer {
                committer.update(now);
            }
            if state.keep {
                state.buffer.extend_from_slice(now);
            }
            bytes = later;
        }
        if state.keep && state.buffer.len() == WAITING_BYTES {
            // Full: journaled now; where that is refused the next write says so.
            let _ = self.flush(&mut state);
        }
        if was_empty && !state.buffer.is_empty() {
            drop(state);
            self.core.inner.flush_later(Instant::now(), self);
        }
        Ok(())
    }

    /// Journals what waits. But for the first time it asks for the space of it first: what is reserved stays for the end.
    fn flush(&self, state: &mut State) -> Result<(), Unavailable> {
        if let Some(cut) = &state.cut {
            return Err(cut.clone());
        }
        let space = match std::mem::take(&mut state.unit_whole) {
            true => Ok(()),
            false => self.core.extend(Journal::cost([state.buffer.len() + 256])),
        };
        let flushed = space.and_then(|()| {
            let frame = self.frame(state)?;
            self.core.submit_unacked(frame)
        });
        match flushed {
            Ok(()) => self.taken(state),
            Err(error) => state.cut = Some(error.clone()),
        }
        match &state.cut {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn taken(&self, state: &mut State) {
        state.seq += 1;
        state.buffer.clear();
        if state.buffer.capacity() > KEPT_BUFFER {
            state.buffer = Vec::new();
        }
    }

    fn frame(&self, state: &State) -> Result<Frame, Unavailable> {
        let core = &self.core;
        let place =
            Place { origin: &core.inner.origin, exchange: &core.exchange, part: self.part, seq: state.seq };
        let salt = (state.seq == 0).then_some(&state.salt);
        let data = cipher::seal(core.key.as_deref(), &place, salt, &state.buffer)
            .map_err(|error| Unavailable::new(Reason::JournalFailed, error.to_string()))?;
        Ok(Frame::Content(ContentFrame {
            exchange: core.exchange.clone(),
            part: self.part,
            seq: state.seq,
            delivered: state.delivered,
            key_id: core.key_id().cloned(),
            data,
        }))
    }

    /// Journals what has waited for about a second.
    pub(crate) fn flush_aged(&self) {
        let mut state = self.state();
        if !state.buffer.is_empty() && state.committer.is_some() {
            // A refusal is kept in the state: the next write says it, the bytes go with the outcome.
            let _ = self.flush(&mut state);
        }
    }

    fn finish(&self) -> Part {
        let mut state = self.state();
        let (length, commitment) = match state.committer.take() {
            Some(committer) => committer.finish(),
            None => (0, schemas::Sha256Hex([0; 32])),
        };
        if state.keep && (!state.buffer.is_empty() || state.seq == 0) {
            // The last bytes go in one submission with the outcome, from the space that the admission reserved.
            if let Ok(frame) = self.frame(&state) {
                self.core.last_frame(frame);
                self.taken(&mut state);
            }
        }
        Part {
            part: self.part,
            media_type: self.media_type.clone(),
            content_encoding: self.content_encoding.clone(),
            length,
            commitment,
            kept: (!state.keep).then_some(false),
        }
    }

    fn leave(&self) {
        if self.state().committer.is_some() {
            let part = self.finish();
            self.core.left_part(part);
        }
    }
}
