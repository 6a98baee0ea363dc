//! Spill files: content that stands in a file of its own, so that a big body never stalls another caller's commit.
//!
//! A spill file is a head (magic `afspill1`, the journal's tag, crc32c u32) and then content frames as in a group, one
//! behind the other. It is named by a spill frame in the journal, and it and its name are durable before that.

use std::io::{self, IoSlice};
use std::path::PathBuf;

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::ExchangeId;
use schemas::record::PartName;

use super::frame::{self, FRAME_FIELDS, FRAME_HEAD};
use super::group::Tag;
use super::segments::{ContentFrames, ReadError, Segments};
use super::{ContentFrame, Frame, Journal, JournalError, MAX_CONTENT_BYTES, SpillFrame};
use crate::disk::{self, DiskFile, SharedDisk};

const MAGIC: &[u8; 8] = b"afspill1";
const HEAD: usize = 28;
/// Space is allocated in steps of this, so that a full disk is met before bytes are written.
const STEP: u64 = 1 << 20;

fn head(tag: Tag) -> [u8; HEAD] {
    let mut out = [0; HEAD];
    out[..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(&tag.0);
    let crc = crc32c::crc32c(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Writes one spill file. All calls block: use them from a task that may.
///
/// Dropping it unfinished removes the file.
#[derive(Debug)]
pub struct SpillWriter {
    disk: SharedDisk,
    dir: PathBuf,
    path: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    frame: SpillFrame,
    tag: Tag,
    offset: u64,
    allocated: u64,
    buffer: Vec<u8>,
    journal: Journal,
    /// For the second place: what is written and not sent yet.
    unsent: Vec<u8>,
}

/// So many bytes go to the second place at once.
const SENT_BYTES: usize = 896 << 10;

impl SpillWriter {
    /// Makes an empty spill file beside the journal's segments; `expected` bytes are allocated at once.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] and other refusals of the disk; the journal itself is not affected.
    pub fn create(
        journal: &Journal,
        exchange: &ExchangeId,
        part: PartName,
        expected: u64,
    ) -> Result<Self, JournalError> {
        let segments = journal.segments();
        let mut random = [0; 8];
        let unlucky = |_| Self::refused(0, io::Error::other("no random bytes"));
        SystemRandom::new().fill(&mut random).map_err(unlucky)?;
        let name = format!("{exchange}-{}-{}.spill", frame::part_number(part), hex::encode(random));
        let path = segments.dir().join(&name);
        let disk = segments.disk().clone();
        let file = disk.create(&path).map_err(|error| Self::refused(expected, error))?;
        let mut writer = Self {
            disk,
            dir: segments.dir().to_owned(),
            path,
            file: Some(file),
            frame: SpillFrame {
                exchange: exchange.clone(),
                part,
                frames: 0,
                delivered: 0,
                bytes: 0,
                key_id: None,
                file: name,
            },
            tag: segments.tag(),
            offset: 0,
            allocated: 0,
            buffer: Vec::new(),
            journal: journal.clone(),
            unsent: Vec::new(),
        };
        writer.allocate(HEAD as u64 + expected)?;
        let head = head(writer.tag);
        writer.put(&[IoSlice::new(&head)])?;
        Ok(writer)
    }

    fn refused(wanted: u64, error: io::Error) -> JournalError {
        JournalError::NoSpace { wanted, error: error.into() }
    }

    fn file(&self) -> Result<&dyn DiskFile, JournalError> {
        self.file.as_deref().ok_or(JournalError::Closed)
    }

    fn allocate(&mut self, to: u64) -> Result<(), JournalError> {
        if to > self.allocated {
            let to = to.div_ceil(STEP).saturating_mul(STEP);
            self.file()?.allocate(to).map_err(|error| Self::refused(to, error))?;
            self.allocated = to;
        }
        Ok(())
    }

    fn put(&mut self, parts: &[IoSlice<'_>]) -> Result<(), JournalError> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.allocate(self.offset + bytes)?;
        self.file()?.write_at(parts, self.offset).map_err(|error| Self::refused(bytes, error))?;
        self.offset += bytes;
        if self.journal.beside().is_some() {
            parts.iter().for_each(|part| self.unsent.extend_from_slice(part));
            while self.unsent.len() >= SENT_BYTES {
                self.send(SENT_BYTES)?;
            }
        }
        Ok(())
    }

    /// Sends the first bytes of what is unsent to the second place.
    fn send(&mut self, count: usize) -> Result<(), JournalError> {
        let rest = self.unsent.split_off(count.min(self.unsent.len()));
        let bytes = std::mem::replace(&mut self.unsent, rest);
        let offset = self.offset - (bytes.len() + self.unsent.len()) as u64;
        match self.journal.beside() {
            Some(beside) if !bytes.is_empty() => beside.spill(&self.frame.file, offset, bytes),
            _ => Ok(()),
        }
    }

    /// Appends one frame.
    ///
    /// # Errors
    /// As [`SpillWriter::create`], and [`JournalError::FrameTooLarge`].
    pub fn write(&mut self, frame: ContentFrame) -> Result<(), JournalError> {
        if self.frame.frames == 0 {
            self.frame.key_id = frame.key_id.clone();
        }
        self.frame.frames = self.frame.frames.saturating_add(1);
        self.frame.bytes += frame.data.len() as u64;
        self.frame.delivered = self.frame.delivered.max(frame.delivered);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let encoded = frame::encode(Frame::Content(frame), self.tag.seed(), &mut buffer)?;
        let result = self.put(&[IoSlice::new(&buffer), IoSlice::new(&encoded.data)]);
        self.buffer = buffer;
        result
    }

    /// Makes the file and its name durable. Submit the frame before the record that commits to the content.
    ///
    /// # Errors
    /// [`JournalError::Failed`]: a failed sync ends the whole journal (DU-4). [`JournalError::Uncommitted`]: the second
    /// place does not take it. The file is removed.
    pub fn finish(mut self) -> Result<SpillFrame, JournalError> {
        self.send(SENT_BYTES)?;
        let synced = match &self.file {
            Some(file) => file.sync_data().and_then(|()| self.disk.sync_dir(&self.dir)),
            None => return Err(JournalError::Closed),
        };
        if let Err(error) = synced {
            let file = self.frame.file.as_str().into();
            let failed = JournalError::Failed { call: "sync", file, error: error.into() };
            self.journal.fail(failed.clone());
            return Err(failed);
        }
        if let Some(beside) = self.journal.beside() {
            beside.spilled(&self.frame.file)?;
        }
        self.file = None;
        Ok(self.frame.clone())
    }
}

impl Journal {
    /// Reads a finished spill file back, also where no record names it yet. It keeps its file open, so that deleting the
    /// file does not hurt it.
    ///
    /// # Errors
    /// As the disk says.
    pub fn spilled(&self, spill: &SpillFrame) -> Result<ContentFrames, ReadError> {
        ContentFrames::of_spill(self.segments(), spill)
    }

    /// Deletes a spill file that no record will ever name.
    ///
    /// # Errors
    /// As the disk says; recovery deletes it with the journal then.
    pub fn discard_spill(&self, spill: &SpillFrame) -> io::Result<()> {
        let segments = self.segments();
        segments.disk().unlink(&segments.dir().join(&spill.file))
    }
}

impl Drop for SpillWriter {
    fn drop(&mut self) {
        if self.file.is_some()
            && let Err(error) = self.disk.unlink(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished spill file stays behind");
        }
    }
}

/// Reads one spill file, frame by frame.
#[derive(Debug)]
pub(super) struct SpillReader {
    file: Box<dyn DiskFile>,
    spill: SpillFrame,
    seed: u32,
    offset: u64,
    left: u32,
}

impl SpillReader {
    pub(super) fn open(segments: &Segments, spill: &SpillFrame) -> Result<Self, ReadError> {
        let name = spill.file.clone();
        // The name comes from a frame: it never leads out of the journal's directory.
        if name.contains('/') || !name.ends_with(".spill") {
            return Err(ReadError::Damaged { file: name, offset: 0 });
        }
        let io = |error| ReadError::Io { file: spill.file.clone(), error };
        let file = segments.disk().open_read(&segments.dir().join(&name)).map_err(io)?;
        let mut found = [0; HEAD];
        disk::read_full(&*file, &mut found, 0).map_err(io)?;
        if found != head(segments.tag()) {
            return Err(ReadError::Damaged { file: name, offset: 0 });
        }
        let (seed, left) = (segments.tag().seed(), spill.frames);
        Ok(Self { file, spill: spill.clone(), seed, offset: HEAD as u64, left })
    }

    fn read(&mut self) -> Result<ContentFrame, ReadError> {
        let io = |error| ReadError::Io { file: self.spill.file.clone(), error };
        let damaged = || ReadError::Damaged { file: self.spill.file.clone(), offset: self.offset };
        let mut len = [0; 4];
        disk::read_full(&*self.file, &mut len, self.offset).map_err(io)?;
        let len = FRAME_HEAD + u32::from_le_bytes(len) as usize;
        if len > FRAME_HEAD + FRAME_FIELDS + MAX_CONTENT_BYTES {
            return Err(damaged());
        }
        let mut bytes = vec![0; len];
        let count = disk::read_full(&*self.file, &mut bytes, self.offset).map_err(io)?;
        bytes.truncate(count);
        match frame::decode(&Bytes::from(bytes), self.seed) {
            Some((taken, Frame::Content(frame)))
                if frame.exchange == self.spill.exchange && frame.part == self.spill.part =>
            {
                self.offset += taken as u64;
                Ok(frame)
            }
            _ => Err(damaged()),
        }
    }
}

impl Iterator for SpillReader {
    type Item = Result<ContentFrame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let frame = self.read();
        if frame.is_err() {
            self.left = 0;
        }
        Some(frame)
    }
}
