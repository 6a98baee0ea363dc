//! A request's body, read whole before its intent: in memory up to 1 MiB, beyond that in a spill file that is also the
//! journal's copy.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use schemas::content::{Committer, Salt};
use schemas::record::{Part, PartName};
use schemas::{Identifier, Sha256Hex};

use crate::cipher::{self, Place, SALT_BYTES};
use crate::error::{Reason, Unavailable};
use crate::exchange::Core;
use crate::journal::{ContentFrame, ContentFrames, Frame, SpillFrame, SpillWriter};
use crate::random;

/// Bodies up to this stay in memory and go into the common groups.
pub const MEMORY_BYTES: usize = 1 << 20;

/// Content bytes of one frame of a part that stands ready.
pub(crate) const FRAME_BYTES: usize = 128 << 10;

/// Takes a body as it comes.
pub struct BodySink {
    core: Arc<Core>,
    part: PartName,
    salt: [u8; SALT_BYTES],
    committer: Committer,
    memory: BytesMut,
    spill: Option<Spilling>,
}

struct Spilling {
    writer: SpillWriter,
    seq: u32,
}

impl std::fmt::Debug for BodySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodySink").field("part", &self.part).finish_non_exhaustive()
    }
}

impl BodySink {
    pub(crate) fn new(core: Arc<Core>, part: PartName) -> Self {
        let salt = random::bytes();
        let committer = Committer::new(&Salt::from_bytes(salt));
        Self { core, part, salt, committer, memory: BytesMut::new(), spill: None }
    }

    /// Takes the next bytes. Waits only where they go to disk.
    ///
    /// # Errors
    /// The body cannot be stored; the exchange is to be refused.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Unavailable> {
        self.committer.update(&bytes);
        self.memory.extend_from_slice(&bytes);
        drop(bytes);
        let limit = if self.spill.is_some() { FRAME_BYTES } else { MEMORY_BYTES + 1 };
        if self.memory.len() >= limit {
            self.spill(false).await?;
        }
        Ok(())
    }

    /// Moves whole frames (all of it, at the end) from memory to the spill file.
    async fn spill(&mut self, all: bool) -> Result<(), Unavailable> {
        let (core, part, salt) = (self.core.clone(), self.part, self.salt);
        let (spill, mut memory) = (self.spill.take(), std::mem::take(&mut self.memory));
        let work = move || -> Result<(Spilling, BytesMut), Unavailable> {
            let mut spill = match spill {
                Some(spill) => spill,
                None => {
                    let writer = SpillWriter::create(&core.inner.journal, &core.exchange, part, 0)
                        .map_err(|error| core.inner.journal_failed(error))?;
                    Spilling { writer, seq: 0 }
                }
            };
            while memory.len() >= FRAME_BYTES || all && (!memory.is_empty() || spill.seq == 0) {
                let content = memory.split_to(memory.len().min(FRAME_BYTES));
                let frame = content_frame(&core, part, spill.seq, &salt, &content)?;
                spill.writer.write(frame).map_err(|error| core.inner.journal_failed(error))?;
                spill.seq += 1;
            }
            let mut rest = BytesMut::with_capacity(FRAME_BYTES);
            rest.extend_from_slice(&memory);
            Ok((spill, rest))
        };
        let (spill, memory) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Unavailable::new(Reason::JournalFailed, error.to_string()))??;
        self.spill = Some(spill);
        self.memory = memory;
        Ok(())
    }

    /// Ends the body. A spilled one is on stable storage on return.
    ///
    /// # Errors
    /// The body cannot be stored; the exchange is to be refused.
    pub async fn finish(mut self) -> Result<StoredBody, Unavailable> {
        if self.spill.is_some() {
            self.spill(true).await?;
        }
        let (length, commitment) = self.committer.finish();
        let place = match self.spill.take() {
            None => Stored::Memory(self.memory.freeze()),
            Some(spill) => {
                let core = self.core.clone();
                let done = tokio::task::spawn_blocking(move || spill.writer.finish())
                    .await
                    .map_err(|error| Unavailable::new(Reason::JournalFailed, error.to_string()))?;
                let frame = done.map_err(|error| core.inner.journal_failed(error))?;
                Stored::Spilled(SpillFile { core, frame, named: false.into() })
            }
        };
        let inner = StoredInner { part: self.part, length, commitment, salt: self.salt, place };
        Ok(StoredBody { inner: Arc::new(inner), core: Arc::downgrade(&self.core) })
    }
}

/// A body that was read whole. Cheap to clone.
#[derive(Clone)]
pub struct StoredBody {
    inner: Arc<StoredInner>,
    core: std::sync::Weak<Core>,
}

struct StoredInner {
    part: PartName,
    length: u64,
    commitment: Sha256Hex,
    salt: [u8; SALT_BYTES],
    place: Stored,
}

enum Stored {
    Memory(Bytes),
    Spilled(SpillFile),
}

struct SpillFile {
    core: Arc<Core>,
    frame: SpillFrame,
    /// Whether a record names the file: then the journal removes it.
    named: std::sync::atomic::AtomicBool,
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if !*self.named.get_mut()
            && let Err(error) = self.core.inner.journal.discard_spill(&self.frame)
        {
            tracing::warn!(%error, file = %self.frame.file, "a spill file that nobody needs stays behind");
        }
    }
}

impl std::fmt::Debug for StoredBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredBody")
            .field("part", &self.inner.part)
            .field("length", &self.inner.length)
            .finish()
    }
}

impl StoredBody {
    /// Which part it is.
    pub fn part(&self) -> PartName {
        self.inner.part
    }

    /// Bytes of the body.
    pub fn len(&self) -> u64 {
        self.inner.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.inner.length == 0
    }

    /// Whether it is on disk.
    pub fn is_spilled(&self) -> bool {
        matches!(self.inner.place, Stored::Spilled(_))
    }

    /// The body, where it is in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.inner.place {
            Stored::Memory(bytes) => Some(bytes),
            Stored::Spilled(_) => None,
        }
    }

    /// Reads the body from its start. May be called as often as it is to be sent.
    pub fn chunks(&self) -> BodyChunks {
        BodyChunks { body: self.inner.clone(), left: self.inner.length, frames: None, started: false }
    }

    pub(crate) fn belongs_to(&self, core: &Arc<Core>) -> bool {
        std::ptr::eq(self.core.as_ptr(), Arc::as_ptr(core))
    }

    /// The part as a record names it, and the frames that hold it.
    pub(crate) fn part_and_frames(
        &self,
        core: &Arc<Core>,
        media_type: Option<Identifier>,
        content_encoding: Option<Identifier>,
    ) -> Result<(Part, Vec<Frame>), Unavailable> {
        let body = &self.inner;
        let keep = core.keeps();
        let part = Part {
            part: body.part,
            media_type,
            content_encoding,
            length: body.length,
            commitment: body.commitment,
            kept: (!keep).then_some(false),
        };
        let frames = match &body.place {
            _ if !keep => Vec::new(),
            Stored::Memory(bytes) => memory_frames(core, body.part, &body.salt, bytes)?,
            Stored::Spilled(file) => vec![Frame::Spill(file.frame.clone())],
        };
        Ok((part, frames))
    }

    /// Says that a record that names the spill file was handed to the journal.
    pub(crate) fn named(&self) {
        if let Stored::Spilled(file) = &self.inner.place {
            file.named.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// The frames of a part that is in memory.
pub(crate) fn memory_frames(
    core: &Core,
    part: PartName,
    salt: &[u8; SALT_BYTES],
    content: &[u8],
) -> Result<Vec<Frame>, Unavailable> {
    if content.is_empty() {
        return Ok(vec![Frame::Content(content_frame(core, part, 0, salt, &[])?)]);
    }
    let frames = content.chunks(FRAME_BYTES).zip(0..);
    frames.map(|(unit, seq)| content_frame(core, part, seq, salt, unit).map(Frame::Content)).collect()
}

fn content_frame(
    core: &Core,
    part: PartName,
    seq: u32,
    salt: &[u8; SALT_BYTES],
    content: &[u8],
) -> Result<ContentFrame, Unavailable> {
    let place = Place { origin: &core.inner.origin, exchange: &core.exchange, part, seq };
    let data = cipher::seal(core.key.as_deref(), &place, (seq == 0).then_some(salt), content)
        .map_err(|error| Unavailable::new(Reason::JournalFailed, error.to_string()))?;
    let key_id = core.key_id().cloned();
    Ok(ContentFrame { exchange: core.exchange.clone(), part, seq, delivered: 0, key_id, data })
}

/// Reads a stored body chunk by chunk.
pub struct BodyChunks {
    body: Arc<StoredInner>,
    left: u64,
    frames: Option<ContentFrames>,
    started: bool,
}

impl std::fmt::Debug for BodyChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyChunks").field("left", &self.left).finish_non_exhaustive()
    }
}

impl BodyChunks {
    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// The next bytes; `None` at the end, which is only reached where all bytes came.
    ///
    /// # Errors
    /// The spill file could not be read.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        if let Stored::Memory(bytes) = &self.body.place {
            self.left = 0;
            return Some(Ok(bytes.clone()));
        }
        let (body, frames, first) = (self.body.clone(), self.frames.take(), !self.started);
        self.started = true;
        let read = tokio::task::spawn_blocking(move || read_frame(&body, frames, first)).await;
        match read.map_err(io::Error::other).and_then(|read| read) {
            Ok((bytes, frames)) => {
                self.frames = Some(frames);
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(bytes))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn read_frame(
    body: &StoredInner,
    frames: Option<ContentFrames>,
    first: bool,
) -> io::Result<(Bytes, ContentFrames)> {
    let Stored::Spilled(file) = &body.place else { return Err(io::Error::other("the body is in memory")) };
    let core = &file.core;
    let mut frames = match frames {
        Some(frames) => frames,
        None => core.inner.journal.spilled(&file.frame).map_err(io::Error::other)?,
    };
    let frame = frames
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the spill file ends early"))?
        .map_err(io::Error::other)?;
    let mut bytes =
        cipher::open(core.key.as_deref(), &core.inner.origin, &frame).map_err(io::Error::other)?;
    if first {
        bytes = bytes.slice(SALT_BYTES.min(bytes.len())..);
    }
    Ok((bytes, frames))
}
