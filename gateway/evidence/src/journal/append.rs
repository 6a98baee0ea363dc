//! The append thread: takes what waits, writes it as one group, syncs it, wakes everybody.

use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use schemas::Sha256Hex;
use schemas::promise::Group as Promises;
use tokio::sync::oneshot;

use super::JournalError;
use super::frame::{Encoded, Meta};
use super::group::{BLOCK, GROUP_HEAD, GroupHead, Tag, blocks, segment_name};
use super::handle::{JournalConfig, Promised, Synced};
use super::index::At;
use super::segments::Segments;
use super::space::{Segment, Space};

static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Frames that stay together and in order.
#[derive(Debug)]
pub(super) struct Submission {
    /// Heads and small payloads.
    pub(super) buffer: Vec<u8>,
    pub(super) frames: Vec<Encoded>,
    /// Promised space.
    pub(super) charge: u64,
    /// Bytes counted as unacknowledged.
    pub(super) unacked: usize,
    pub(super) done: Option<oneshot::Sender<Result<Synced, JournalError>>>,
    /// The leaf hash of its first record, where somebody is to be promised that.
    pub(super) promise: Option<Sha256Hex>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Submission>,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) arrived: Condvar,
    pub(super) journaled: AtomicU64,
    pub(super) unacked: AtomicUsize,
    pub(super) groups: AtomicU64,
    pub(super) space: Arc<Space>,
    pub(super) segments: Arc<Segments>,
    pub(super) config: JournalConfig,
    pub(super) seed: u32,
    pub(super) tag: Tag,
}

impl Shared {
    pub(super) fn new(config: JournalConfig, space: Arc<Space>, segments: Arc<Segments>, tag: Tag) -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            journaled: AtomicU64::new(0),
            unacked: AtomicUsize::new(0),
            groups: AtomicU64::new(0),
            space,
            segments,
            config,
            seed: tag.seed(),
            tag,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.space.close();
    }
}

/// The append thread's own.
pub(super) struct Appender {
    shared: Arc<Shared>,
    segment: Option<Segment>,
    /// Where the next group starts in the segment.
    offset: u64,
    sequence: u64,
    position: u64,
    last_time_us: i64,
}

/// Ends the journal with the append thread, also where that panics: what waits is dropped, and so are its tickets.
struct Closes(Arc<Shared>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().waiting.clear();
    }
}

/// A group that was put together, not yet written.
struct Group {
    /// One past the last frame: submission and frame.
    end: (usize, usize),
    bytes: usize,
    frames: u32,
}

impl Appender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, segment: None, offset: 0, sequence: 0, position: 0, last_time_us: i64::MIN }
    }

    pub(super) fn run(mut self) {
        // However this thread ends, nobody waits for it.
        let _closes = Closes(self.shared.clone());
        let mut taken = Vec::new();
        while self.wait() {
            // On a busy processor lets those run first who are about to submit, so that one sync serves more of them;
            // on an idle one it returns at once.
            std::thread::yield_now();
            std::mem::swap(&mut self.shared.lock().waiting, &mut taken);
            if self.shared.space.failed.get().is_none()
                && let Err(error) = self.write(&mut taken)
            {
                tracing::error!(%error, "the journal failed; nothing more is taken until the next start");
                // The first failure stands.
                let _ = self.shared.space.failed.set(error);
            }
            if let Some(error) = self.shared.space.failed.get() {
                for submission in taken.drain(..) {
                    self.shared.unacked.fetch_sub(submission.unacked, Ordering::Relaxed);
                    if let Some(done) = submission.done {
                        // Who left does not need the answer.
                        let _ = done.send(Err(error.clone()));
                    }
                }
            }
            taken.clear();
        }
    }

    /// Waits for submissions; false where none will come.
    fn wait(&self) -> bool {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            queue = self.shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Writes all that was taken, in as many groups as it needs. What is still in `taken` on an error was not written.
    fn write(&mut self, taken: &mut [Submission]) -> Result<(), JournalError> {
        let mut from = (0, 0);
        let mut first_positions = Vec::with_capacity(taken.len());
        while from.0 < taken.len() {
            let group = match self.gather(taken, from) {
                Some(group) => group,
                None => {
                    self.switch()?;
                    continue;
                }
            };
            self.append(taken, from, &group, &mut first_positions)?;
            from = group.end;
        }
        Ok(())
    }

    /// As many frames from `from` on as one group takes; `None` where the segment has no room for the first.
    fn gather(&self, taken: &[Submission], from: (usize, usize)) -> Option<Group> {
        let room = self.segment.as_ref().map_or(0, |segment| segment.len.saturating_sub(self.offset));
        let limit = self.shared.config.group_bytes;
        let mut group = Group { end: from, bytes: 0, frames: 0 };
        for (index, submission) in taken.iter().enumerate().skip(from.0) {
            let start = if index == from.0 { from.1 } else { 0 };
            for (at, frame) in submission.frames.iter().enumerate().skip(start) {
                let bytes = group.bytes + frame.len();
                let full = group.frames > 0 && bytes > limit;
                if full || blocks((GROUP_HEAD + bytes) as u64) > room {
                    return (group.frames > 0).then_some(group);
                }
                group.bytes = bytes;
                group.frames += 1;
                group.end = (index, at + 1);
            }
            group.end = (index + 1, 0);
        }
        Some(group)
    }

    fn switch(&mut self) -> Result<(), JournalError> {
        let segment = self.shared.space.next_segment().ok_or_else(|| JournalError::Failed {
            call: "open",
            file: "the next segment".into(),
            error: Arc::new(std::io::Error::other("no segment is allocated although its space was promised")),
        })?;
        self.offset = BLOCK;
        self.segment = Some(segment);
        Ok(())
    }

    /// Writes one group and syncs it, then tells everybody whose last frame it holds.
    fn append(
        &mut self,
        taken: &mut [Submission],
        from: (usize, usize),
        group: &Group,
        first_positions: &mut Vec<u64>,
    ) -> Result<(), JournalError> {
        let Some(segment) = &self.segment else { return Ok(()) };
        let shared = &*self.shared;
        let start = At { segment: segment.index, offset: self.offset + GROUP_HEAD as u64, len: 0 };
        let composed = compose(taken, from, group, start, self.position, first_positions);
        let head = GroupHead {
            sequence: self.sequence,
            first_position: self.position,
            // Time never goes back within a journal.
            time_us: (shared.config.now_us)().max(self.last_time_us),
            length: u32::try_from(group.bytes).unwrap_or(u32::MAX),
            frames: group.frames,
            payload_crc: composed.crc,
        };
        let head_bytes = head.encode(shared.tag);
        let mut slices = composed.slices;
        if let Some(first) = slices.first_mut() {
            *first = IoSlice::new(&head_bytes);
        }
        if let Some(beside) = &shared.config.beside {
            // At the same time as the disk gets it, so that the slower of the two is waited for, not both.
            let mut bytes = Vec::with_capacity(GROUP_HEAD + group.bytes);
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            beside.send(self.sequence, segment.index, bytes);
        }
        let padding = usize::try_from(head.span()).unwrap_or(0).saturating_sub(GROUP_HEAD + group.bytes);
        slices.push(IoSlice::new(ZEROS.get(..padding).unwrap_or_default()));
        let failed = |call, error| JournalError::Failed {
            call,
            file: segment_name(segment.index).into(),
            error: Arc::new(error),
        };
        segment.file.write_at(&slices, self.offset).map_err(|error| failed("write", error))?;
        segment.file.sync_data().map_err(|error| failed("sync", error))?;

        if self.offset == BLOCK {
            // Only now: the newest segment in the index is never deleted, and recovery needs one with a group.
            shared.segments.opened(segment.index, segment.len, segment.file.clone());
        }
        shared.segments.appended(&composed.index);
        let usable = shared.space.usable(segment, self.offset);
        self.offset += head.span();
        let shrank = usable - shared.space.usable(segment, self.offset);
        let sequence = self.sequence;
        self.sequence += 1;
        self.position = composed.position;
        self.last_time_us = head.time_us;
        shared.groups.fetch_add(1, Ordering::Relaxed);
        let written = taken.get_mut(from.0..group.end.0).unwrap_or_default();
        let paid: u64 = written.iter().map(|submission| submission.charge).sum();
        let unacked: usize = written.iter().map(|submission| submission.unacked).sum();
        shared.space.written(shrank, paid);
        let firsts = first_positions.get(from.0..).unwrap_or_default();
        let mut promised = Vec::new();
        let mut answers: Vec<Answer> = written
            .iter_mut()
            .zip(firsts)
            .filter_map(|(submission, first)| submission.answer(*first, head.time_us, &mut promised))
            .collect();
        if !promised.is_empty() {
            // Signed by the first who asks for it, on its own thread, and only behind the answer: nobody waits here for that.
            let group = Arc::new(Promises::new(shared.config.origin.clone(), head.time_us, promised));
            let of_group = answers.iter_mut().filter_map(|(_, synced)| synced.promised.as_mut());
            of_group.for_each(|promised| promised.group = Some(group.clone()));
        }
        let (told, position) = (self.shared.clone(), self.position);
        let tell = move |result: Result<(), JournalError>| {
            told.unacked.fetch_sub(unacked, Ordering::Relaxed);
            if result.is_ok() {
                told.journaled.fetch_max(position, Ordering::Release);
            }
            for (done, synced) in answers {
                // Who left does not need the answer.
                let _ = done.send(result.clone().map(|()| synced));
            }
        };
        match &shared.config.beside {
            None => tell(Ok(())),
            Some(beside) => beside.synced(sequence, Box::new(tell)),
        }
        Ok(())
    }
}

/// Whom to tell what became of a submission.
type Answer = (oneshot::Sender<Result<Synced, JournalError>>, Synced);

impl Submission {
    /// What is to be said of where it is. What was written and synced is never counted or answered twice.
    fn answer(&mut self, first: u64, time_us: i64, promised: &mut Vec<(u64, Sha256Hex)>) -> Option<Answer> {
        self.charge = 0;
        self.unacked = 0;
        let done = self.done.take()?;
        let records = self.frames.iter().filter(|frame| frame.meta == Meta::Record).count();
        let promise = self.promise.filter(|_| records > 0).map(|leaf| {
            promised.push((first, leaf));
            Promised { group: None, index: promised.len() - 1 }
        });
        Some((done, Synced { positions: first..first + records as u64, time_us, promised: promise }))
    }
}

/// A group as it is written; its first slice is for the head.
struct Composed<'a> {
    slices: Vec<IoSlice<'a>>,
    crc: u32,
    index: Vec<(At, u64, &'a Meta)>,
    /// Behind the group's last record.
    position: u64,
}

/// Puts the frames of a group one behind the other, without copying them. `start` is the place of the first.
fn compose<'a>(
    taken: &'a [Submission],
    from: (usize, usize),
    group: &Group,
    start: At,
    position: u64,
    first_positions: &mut Vec<u64>,
) -> Composed<'a> {
    let frames = group.frames as usize;
    let mut composed = Composed {
        slices: Vec::with_capacity(2 * frames + 2),
        crc: 0,
        index: Vec::with_capacity(frames),
        position,
    };
    composed.slices.push(IoSlice::new(&[]));
    let mut at = start;
    for (number, submission) in taken.iter().enumerate().take(group.end.0 + 1).skip(from.0) {
        let first = if number == from.0 { from.1 } else { 0 };
        let last = if number == group.end.0 { group.end.1 } else { submission.frames.len() };
        let frames = submission.frames.get(first..last).unwrap_or_default();
        if first == 0 && !frames.is_empty() {
            first_positions.push(composed.position);
        }
        // Heads that follow each other in the buffer are written as one piece.
        let mut run = frames.first().map_or(0..0, |frame| frame.head.start..frame.head.start);
        for frame in frames {
            run.end = frame.head.end;
            if !frame.data.is_empty() {
                composed.put(submission.buffer.get(run.clone()).unwrap_or_default());
                composed.put(&frame.data);
                run.start = run.end;
            }
            at.len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            composed.index.push((at, composed.position, &frame.meta));
            at.offset += frame.len() as u64;
            composed.position += u64::from(frame.meta == Meta::Record);
        }
        composed.put(submission.buffer.get(run).unwrap_or_default());
    }
    composed
}

impl<'a> Composed<'a> {
    fn put(&mut self, piece: &'a [u8]) {
        if !piece.is_empty() {
            self.crc = crc32c::crc32c_append(self.crc, piece);
            self.slices.push(IoSlice::new(piece));
        }
    }
}
