//! What the segments hold: where every frame that is still needed stands, reading it back, and deleting what is behind
//! `archived` (DU-1).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use schemas::record::PartName;
use schemas::{ExchangeId, Identifier, Sha256Hex};

use super::frame::{self, Meta, part_name, part_number};
use super::group::{MAX_GROUP, Tag, segment_name};
use super::index::{At, Index, Part, Source, Use};
use super::spill::SpillReader;
use super::{ContentFrame, Frame, SpillFrame};
use crate::disk::{self, DiskFile, SharedDisk};

/// Why something could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("`{file}` cannot be read: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// The bytes are not what was written.
    #[error("`{file}` is damaged at byte {offset}")]
    Damaged {
        /// The file.
        file: String,
        /// Where the bad frame starts.
        offset: u64,
    },
    /// No record of this position is in the journal.
    #[error("record {position} is not in the journal")]
    Absent {
        /// The position.
        position: u64,
    },
}

/// What is journaled of one part of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentSummary {
    /// Content frames, those in spill files included.
    pub frames: u64,
    /// Bytes of data in them, as they were encrypted.
    pub bytes: u64,
    /// The largest `delivered` among them (CA-6).
    pub delivered: u64,
    /// The data key of the first.
    pub key_id: Option<Identifier>,
}

/// What [`Segments::archived`] deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Segments.
    pub segments: u64,
    /// Spill files.
    pub spills: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The segments of one journal, written by this process or found by recovery.
#[derive(Debug)]
pub struct Segments {
    disk: SharedDisk,
    dir: PathBuf,
    tag: Tag,
    index: Mutex<Index>,
}

impl Segments {
    pub(super) fn new(disk: SharedDisk, dir: PathBuf, tag: Tag) -> Self {
        Self { disk, dir, tag, index: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    /// The journal's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A segment is there; groups will be appended to it.
    pub(super) fn opened(&self, segment: u32, len: u64, file: Arc<dyn DiskFile>) {
        let mut index = self.lock();
        index.segments.insert(segment, Use { len, ..Use::default() });
        index.keep(segment, file);
    }

    /// A segment was found; its file is opened when it is read.
    pub(super) fn found(&self, segment: u32, len: u64) {
        self.lock().segments.insert(segment, Use { len, ..Use::default() });
    }

    /// Frames are on stable storage. Each comes with the position of its record, or of the next one.
    pub(super) fn appended(&self, frames: &[(At, u64, &Meta)]) {
        let mut index = self.lock();
        for (at, position, meta) in frames {
            index.add(*at, *position, meta);
        }
    }

    /// Records and bytes (content included) that are not sealed yet.
    pub fn unsealed(&self) -> (u64, u64) {
        let index = self.lock();
        (index.records.len() as u64, index.unsealed_bytes)
    }

    /// The oldest segment that is not deleted.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.lock().segments.first_key_value().map(|(segment, _)| *segment)
    }

    /// Bytes of the segments that are not deleted.
    pub fn bytes(&self) -> u64 {
        self.lock().segments.values().map(|segment| segment.len).sum()
    }

    fn read(&self, at: At) -> Result<Frame, ReadError> {
        let file = self.file(at.segment)?;
        let damaged = || ReadError::Damaged { file: segment_name(at.segment), offset: at.offset };
        let mut bytes = vec![0; at.len as usize];
        let count = disk::read_full(&*file, &mut bytes, at.offset)
            .map_err(|error| ReadError::Io { file: segment_name(at.segment), error })?;
        let bytes = Bytes::from(bytes);
        match frame::decode(&bytes, self.tag.seed()) {
            Some((taken, frame)) if taken == count => Ok(frame),
            _ => Err(damaged()),
        }
    }

    fn file(&self, segment: u32) -> Result<Arc<dyn DiskFile>, ReadError> {
        if let Some(file) = self.lock().files.get(&segment) {
            return Ok(file.clone());
        }
        let name = segment_name(segment);
        let file: Arc<dyn DiskFile> = match self.disk.open_read(&self.dir.join(&name)) {
            Ok(file) => Arc::from(file),
            Err(error) => return Err(ReadError::Io { file: name, error }),
        };
        self.lock().keep(segment, file.clone());
        Ok(file)
    }

    /// The records of `range` (half-open), in order: position, leaf, leaf hash. One is in memory at a time.
    ///
    /// Each must be synced and not yet given to [`Segments::sealed`].
    pub fn records(
        self: &Arc<Self>,
        range: Range<u64>,
    ) -> impl Iterator<Item = Result<(u64, Bytes, Sha256Hex), ReadError>> + Send + use<> {
        let places: Vec<(u64, At)> = {
            let index = self.lock();
            let from = index.records.partition_point(|(position, _)| *position < range.start);
            let to = index.records.partition_point(|(position, _)| *position < range.end);
            index.records.range(from..to.max(from)).copied().collect()
        };
        let segments = self.clone();
        let mut places = places.into_iter().peekable();
        range.map(move |position| {
            let Some((_, at)) = places.next_if(|(found, _)| *found == position) else {
                return Err(ReadError::Absent { position });
            };
            match segments.read(at)? {
                Frame::Record { leaf, hash } => Ok((position, leaf, hash)),
                _ => Err(ReadError::Damaged { file: segment_name(at.segment), offset: at.offset }),
            }
        })
    }

    /// The references that were submitted with the records of `range`: the record's position, and the hash.
    pub fn references(&self, range: Range<u64>) -> Vec<(u64, Sha256Hex)> {
        let index = self.lock();
        let in_range = index.references.iter().filter(|(position, ..)| range.contains(position));
        in_range.map(|(position, sha256, _)| (*position, *sha256)).collect()
    }

    /// A reference's media type and bytes; `None` where no unsealed record came with it.
    ///
    /// # Errors
    /// Damage, or as the disk says.
    pub fn reference(&self, sha256: &Sha256Hex) -> Result<Option<(String, Bytes)>, ReadError> {
        let found = self.lock().references.iter().find(|(_, hash, _)| hash == sha256).map(|(.., at)| *at);
        let Some(at) = found else { return Ok(None) };
        match self.read(at)? {
            Frame::Reference { media_type, bytes, .. } => Ok(Some((media_type, bytes))),
            _ => Err(ReadError::Damaged { file: segment_name(at.segment), offset: at.offset }),
        }
    }

    /// What is on stable storage of an exchange's content, and not yet sealed or forgotten.
    pub fn parts(&self, exchange: &ExchangeId) -> Vec<(PartName, ContentSummary)> {
        let index = self.lock();
        let parts = index.content.get(&frame::exchange_bytes(exchange));
        let named = |part: &Part| Some((part_name(part.part)?, part.summary.clone()));
        parts.map_or_else(Vec::new, |parts| parts.iter().filter_map(named).collect())
    }

    /// The content frames of one part, in the order in which they were submitted; none where nothing of it is there.
    pub fn content(self: &Arc<Self>, exchange: &ExchangeId, part: PartName) -> ContentFrames {
        let index = self.lock();
        let parts =
            index.content.get(&frame::exchange_bytes(exchange)).map(Vec::as_slice).unwrap_or_default();
        let found = parts.iter().find(|found| found.part == part_number(part));
        let sources = found.map_or_else(Vec::new, |part| part.sources.clone());
        ContentFrames { segments: self.clone(), sources: sources.into_iter(), spill: None }
    }

    /// Forgets where the records below `to` and the content of `parts` stand: the batch `[.., to)` holds them and is
    /// complete in the spool. Their segments stay until [`Segments::archived`] reaches `to`.
    pub fn sealed(&self, to: u64, parts: &[(ExchangeId, PartName)]) {
        let mut index = self.lock();
        let count = index.records.partition_point(|(position, _)| *position < to);
        let bytes: u64 = index.records.drain(..count).map(|(_, at)| u64::from(at.len)).sum();
        index.unsealed_bytes = index.unsealed_bytes.saturating_sub(bytes);
        index.references.retain(|(position, ..)| *position >= to);
        for (exchange, part) in parts {
            let key = frame::exchange_bytes(exchange);
            let Some(of_exchange) = index.content.get_mut(&key) else { continue };
            let Some(at) = of_exchange.iter().position(|found| found.part == part_number(*part)) else {
                continue;
            };
            let gone = of_exchange.swap_remove(at);
            if of_exchange.is_empty() {
                index.content.remove(&key);
            }
            index.release(&gone, to);
        }
    }

    /// Forgets what is left of an exchange's content: no record will commit to it.
    pub fn forget(&self, exchange: &ExchangeId) {
        let mut index = self.lock();
        for part in index.content.remove(&frame::exchange_bytes(exchange)).unwrap_or_default() {
            index.release(&part, 0);
        }
    }

    /// Exchanges that still have content here.
    pub fn exchanges(&self) -> Vec<ExchangeId> {
        self.lock().content.keys().filter_map(|key| frame::exchange_of(*key)).collect()
    }

    /// Deletes the segments and spill files that hold nothing but what is archived: records below `to`, and content
    /// whose record is one of them. The segment that is written to (the newest) stays.
    ///
    /// # Errors
    /// As the disk says; what was not deleted is tried again with the next call.
    pub fn archived(&self, to: u64) -> io::Result<Removed> {
        let mut removed = Removed::default();
        let (segments, spills) = {
            let index = self.lock();
            let newest = index.segments.last_key_value().map(|(segment, _)| *segment);
            let behind = |(segment, used): &(&u32, &Use)| {
                Some(**segment) != newest && used.live == 0 && used.until <= to
            };
            let segments: Vec<(u32, u64)> =
                index.segments.iter().filter(behind).map(|(segment, used)| (*segment, used.len)).collect();
            let spills: Vec<_> = index.spills.iter().filter(|(_, _, until)| *until <= to).cloned().collect();
            (segments, spills)
        };
        for (segment, len) in segments {
            unlink(&self.disk, &self.dir.join(segment_name(segment)))?;
            let mut index = self.lock();
            index.segments.remove(&segment);
            index.files.remove(&segment);
            removed.segments += 1;
            removed.bytes += len;
        }
        for (file, bytes, _) in spills {
            unlink(&self.disk, &self.dir.join(&file))?;
            self.lock().spills.retain(|(name, ..)| *name != file);
            removed.spills += 1;
            removed.bytes += bytes;
        }
        Ok(removed)
    }

    /// Deletes the whole journal: its epoch is closed and archived. Other files in the directory stay, and the directory
    /// with them.
    ///
    /// # Errors
    /// As the disk says.
    pub fn remove_all(&self) -> io::Result<()> {
        {
            let mut index = self.lock();
            index.files.clear();
            index.segments.clear();
            index.spills.clear();
        }
        // The newest segment first: what is left of a journal after a crash here has lost its end, and everything in it
        // is archived anyway.
        for entry in self.disk.list(&self.dir)?.iter().rev() {
            if super::group::segment_index(&entry.name).is_some() || entry.name.ends_with(".spill") {
                unlink(&self.disk, &self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

fn unlink(disk: &SharedDisk, path: &Path) -> io::Result<()> {
    match disk.unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Iterates over the content frames of one part; one is in memory at a time.
#[derive(Debug)]
pub struct ContentFrames {
    segments: Arc<Segments>,
    sources: std::vec::IntoIter<Source>,
    spill: Option<SpillReader>,
}

impl ContentFrames {
    pub(super) fn of_spill(segments: &Arc<Segments>, spill: &SpillFrame) -> Result<Self, ReadError> {
        let reader = SpillReader::open(segments, spill)?;
        Ok(Self { segments: segments.clone(), sources: Vec::new().into_iter(), spill: Some(reader) })
    }
}

impl Iterator for ContentFrames {
    type Item = Result<ContentFrame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(spill) = &mut self.spill {
                match spill.next() {
                    Some(frame) => return Some(frame),
                    None => self.spill = None,
                }
            }
            match self.sources.next()? {
                Source::Frame(at) => {
                    return Some(match self.segments.read(at) {
                        Ok(Frame::Content(frame)) => Ok(frame),
                        Ok(_) => {
                            Err(ReadError::Damaged { file: segment_name(at.segment), offset: at.offset })
                        }
                        Err(error) => Err(error),
                    });
                }
                Source::Spill(spill, _) => match SpillReader::open(&self.segments, &spill) {
                    Ok(reader) => self.spill = Some(reader),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

const _: () = assert!(MAX_GROUP < u32::MAX as usize, "a frame's length fits its field");
