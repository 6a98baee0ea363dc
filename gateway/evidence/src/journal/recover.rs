//! Recovery: reads what an earlier process left, whole or damaged. Pure of judgement: it says what is there, what was
//! cut and what is lost; what follows from that is the caller's.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use schemas::Origin;

use super::frame::{self, Frame};
use super::group::{BLOCK, GROUP_HEAD, GroupHead, MAX_GROUP, SegmentHead, Tag, segment_index, segment_name};
use super::index::At;
use super::segments::Segments;
use crate::disk::{self, DiskFile, SharedDisk};

/// Groups' starts are looked for in pieces of this.
const WINDOW: usize = 1 << 20;

static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// A frame that recovery found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The position of a record; of any other frame, that of the next record.
    pub position: u64,
    /// When its group was written.
    pub time_us: i64,
    /// The frame.
    pub frame: &'a Frame,
}

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With a whole group, and nothing behind it.
    Clean,
    /// With a group that is not whole and that nobody was told of: what is whole at its beginning was kept, the rest cut.
    Torn {
        /// Bytes cut.
        bytes: u64,
    },
}

/// Acknowledged bytes that are damaged or absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The records that are lost; empty where only content was hit.
    pub positions: Range<u64>,
    /// The segment where it starts.
    pub file: String,
    /// Where in that segment.
    pub offset: u64,
    /// Damaged bytes; 0 where whole segments are absent, which is no loss if all their positions are archived.
    pub bytes: u64,
}

/// What is left of a journal.
#[derive(Debug)]
pub struct Recovery {
    /// The log.
    pub origin: Origin,
    /// To read frames back, and to delete.
    pub segments: Arc<Segments>,
    /// From the first position found to one past the last.
    pub positions: Range<u64>,
    /// When the last group was written.
    pub last_time_us: Option<i64>,
    /// How it ends.
    pub tail: Tail,
    /// In order of position.
    pub losses: Vec<Loss>,
}

/// Why recovery could not run.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError<E> {
    /// The disk refused.
    #[error("`{file}` cannot be read: {error}")]
    Io {
        /// File or directory.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// Groups are there but no segment has a whole head, so nobody knows whose they are.
    #[error("`{file}` holds data, and no segment of the journal has a whole head")]
    NoHead {
        /// The first such segment.
        file: String,
    },
    /// Two segments are of different journals.
    #[error("`{file}` belongs to another journal than the segments before it")]
    Foreign {
        /// The segment.
        file: String,
    },
    /// The visitor stopped.
    #[error(transparent)]
    Visit(E),
}

/// A place in the journal where something is not as it should be, until what follows shows what it is.
struct Suspect {
    segment: u32,
    offset: u64,
    /// Positions from here on are not found yet.
    position: u64,
    bytes: u64,
    /// A group with a whole head: something is missing even if the next group follows on.
    group: bool,
}

struct Scan<'v, E> {
    segments: Segments,
    tag: Tag,
    /// The next group's sequence.
    sequence: u64,
    /// The next record's position.
    position: u64,
    first: Option<u64>,
    last_time_us: Option<i64>,
    /// The segment before the one that is read.
    before: Option<u32>,
    suspect: Option<Suspect>,
    losses: Vec<Loss>,
    visit: &'v mut dyn FnMut(Found<'_>) -> Result<(), E>,
}

/// Reads the journal in `dir` and shows `visit` every frame that is there, in order.
///
/// Returns `None` where no segment was ever finished: nothing was taken into this journal. Changes nothing on disk. One
/// group is in memory at a time.
///
/// # Errors
/// [`RecoverError`]; damage is none, it is reported in [`Recovery::losses`] and [`Recovery::tail`].
pub fn recover<E>(
    disk: SharedDisk,
    dir: &Path,
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Option<Recovery>, RecoverError<E>> {
    let io = |file: String| move |error| RecoverError::Io { file, error };
    let entries = disk.list(dir).map_err(io(dir.display().to_string()))?;
    let mut found: Vec<(u32, u64)> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| Some((segment_index(&entry.name)?, entry.len)))
        .collect();
    found.sort_unstable();

    let mut journal: Option<(Origin, [u8; 32])> = None;
    let mut headless = None;
    let mut unsound = Vec::new();
    for (index, len) in &found {
        let name = segment_name(*index);
        let file = disk.open_read(&dir.join(&name)).map_err(io(name.clone()))?;
        let mut head = vec![0; BLOCK as usize];
        let count = disk::read_full(&*file, &mut head, 0).map_err(io(name.clone()))?;
        head.truncate(count);
        let head = SegmentHead::decode(&head).filter(|head| head.index == *index);
        if head.as_ref().is_none_or(|head| head.bytes > *len) {
            unsound.push(*index);
        }
        match head {
            Some(head) => match &journal {
                Some((origin, salt)) if *origin != head.origin || *salt != head.salt => {
                    return Err(RecoverError::Foreign { file: name });
                }
                Some(_) => {}
                None => journal = Some((head.origin, head.salt)),
            },
            None => {
                let holds_data = last_byte(&*file, BLOCK, *len).map_err(io(name.clone()))? > BLOCK;
                headless = headless.or(holds_data.then_some(name));
            }
        }
    }
    let Some((origin, salt)) = journal else {
        return headless.map_or(Ok(None), |file| Err(RecoverError::NoHead { file }));
    };

    let newest = found.last().map(|(index, _)| *index);
    let tag = Tag::of(&origin, &salt);
    let mut scan = Scan {
        segments: Segments::new(disk.clone(), dir.to_owned(), tag),
        tag,
        sequence: 0,
        position: 0,
        first: None,
        last_time_us: None,
        before: None,
        suspect: None,
        losses: Vec::new(),
        visit,
    };
    for (index, len) in found {
        let name = segment_name(index);
        let file = disk.open_read(&dir.join(&name)).map_err(io(name))?;
        scan.segments.found(index, len);
        // A segment is made after the one before it was durable as a whole.
        if unsound.contains(&index) && newest != Some(index) {
            scan.suspect(index, 0, BLOCK, true);
        }
        scan.segment(index, len, &*file)?;
        scan.before = Some(index);
    }
    let tail = match &scan.suspect {
        Some(suspect) => Tail::Torn { bytes: suspect.bytes },
        None => Tail::Clean,
    };
    Ok(Some(Recovery {
        origin,
        positions: scan.first.unwrap_or(scan.position)..scan.position,
        last_time_us: scan.last_time_us,
        tail,
        losses: scan.losses,
        segments: Arc::new(scan.segments),
    }))
}

impl<E> Scan<'_, E> {
    fn segment(&mut self, index: u32, len: u64, file: &dyn DiskFile) -> Result<(), RecoverError<E>> {
        let io = |error| RecoverError::Io { file: segment_name(index), error };
        let mut offset = BLOCK;
        while let Some((at, head)) = next_head(file, self.tag, offset, len).map_err(io)? {
            if at > offset {
                self.suspect(index, offset, at - offset, false);
            }
            if head.sequence < self.sequence || head.first_position < self.position {
                // Older than what is known: not what the writer put here.
                self.suspect(index, at, BLOCK, false);
                offset = at + BLOCK;
                continue;
            }
            self.arrive(index, at, &head);
            let cut = self.group(index, at, len, file, &head)?;
            if cut > 0 {
                self.suspect(index, at, cut, true);
            }
            offset = at.saturating_add(head.span());
        }
        let end = last_byte(file, offset, len).map_err(io)?;
        if end > offset {
            self.suspect(index, offset, end - offset, false);
        }
        Ok(())
    }

    fn suspect(&mut self, segment: u32, offset: u64, bytes: u64, group: bool) {
        let position = self.position;
        let suspect =
            self.suspect.get_or_insert(Suspect { segment, offset, position, bytes: 0, group: false });
        suspect.bytes = suspect.bytes.saturating_add(bytes);
        suspect.group |= group;
    }

    /// The head of a group is there, so everything before it had been acknowledged: what is missing is lost.
    fn arrive(&mut self, segment: u32, at: u64, head: &GroupHead) {
        let suspect = self.suspect.take();
        let follows = head.sequence == self.sequence && head.first_position == self.position;
        if !follows || suspect.as_ref().is_some_and(|suspect| suspect.group) {
            let absent = at == BLOCK && self.before.map_or(segment > 0, |before| before + 1 < segment);
            let place = suspect.unwrap_or(Suspect {
                segment,
                offset: at,
                position: self.position,
                bytes: if absent { 0 } else { BLOCK },
                group: false,
            });
            self.losses.push(Loss {
                positions: place.position..head.first_position,
                file: segment_name(place.segment),
                offset: place.offset,
                bytes: place.bytes,
            });
        }
        self.sequence = head.sequence + 1;
        self.position = head.first_position;
        self.first.get_or_insert(head.first_position);
        self.last_time_us = Some(self.last_time_us.unwrap_or(head.time_us).max(head.time_us));
    }

    /// Takes the frames of one group; returns how many of its bytes are not whole.
    fn group(
        &mut self,
        index: u32,
        at: u64,
        len: u64,
        file: &dyn DiskFile,
        head: &GroupHead,
    ) -> Result<u64, RecoverError<E>> {
        let io = |error| RecoverError::Io { file: segment_name(index), error };
        let start = at + GROUP_HEAD as u64;
        // Never more than the file has, whatever the head says.
        let there = u64::from(head.length).min(len.saturating_sub(start));
        let mut payload = vec![0; usize::try_from(there).unwrap_or(0)];
        let count = disk::read_full(file, &mut payload, start).map_err(io)?;
        payload.truncate(count);
        let crc = crc32c::crc32c(&payload);
        let mut rest = Bytes::from(payload);
        let mut taken = 0_u64;
        let mut frames = 0;
        while let Some((bytes, frame)) = frame::decode(&rest, self.tag.seed()) {
            let len = u32::try_from(bytes).unwrap_or(u32::MAX);
            let place = At { segment: index, offset: start + taken, len };
            let position = self.position;
            self.segments.appended(&[(place, position, &frame::meta(&frame))]);
            self.position += u64::from(matches!(frame, Frame::Record { .. }));
            (self.visit)(Found { position, time_us: head.time_us, frame: &frame })
                .map_err(RecoverError::Visit)?;
            rest = rest.slice(bytes..);
            taken += bytes as u64;
            frames += 1;
        }
        let cut = u64::from(head.length).saturating_sub(taken);
        let whole = cut == 0 && crc == head.payload_crc && frames == head.frames;
        Ok(if whole { 0 } else { cut.max(1) })
    }
}

/// The first group head at a block's start from `offset` on.
fn next_head(file: &dyn DiskFile, tag: Tag, offset: u64, len: u64) -> io::Result<Option<(u64, GroupHead)>> {
    let valid = |bytes: &[u8]| {
        let head = GroupHead::decode(bytes, tag)?;
        let sane =
            head.length as usize <= MAX_GROUP && head.first_position < 1 << 53 && head.sequence < 1 << 53;
        sane.then_some(head)
    };
    let mut first = [0; GROUP_HEAD];
    if disk::read_full(file, &mut first, offset)? == GROUP_HEAD
        && let Some(head) = valid(&first)
    {
        return Ok(Some((offset, head)));
    }
    let mut found = None;
    windows(file, offset, len, |at, bytes| {
        let heads = bytes.chunks(BLOCK as usize).zip(0_u64..);
        found = heads.filter_map(|(block, n)| Some((at + n * BLOCK, valid(block)?))).next();
        found.is_none()
    })?;
    Ok(found)
}

/// One past the last byte from `offset` on that is not zero; `offset` where all are.
fn last_byte(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<u64> {
    let mut end = offset;
    windows(file, offset, len, |at, bytes| {
        // By blocks first: most of what is looked at is zero, and comparing whole blocks is fast.
        let blocks = bytes.chunks(BLOCK as usize).zip(0_u64..);
        let last = blocks.filter(|(block, _)| !ZEROS.starts_with(block)).last();
        if let Some((block, n)) = last
            && let Some(byte) = block.iter().rposition(|byte| *byte != 0)
        {
            end = at + n * BLOCK + byte as u64 + 1;
        }
        true
    })?;
    Ok(end)
}

/// Shows `see` the file from `offset` on, piece by piece, while it returns true.
fn windows(
    file: &dyn DiskFile,
    mut offset: u64,
    len: u64,
    mut see: impl FnMut(u64, &[u8]) -> bool,
) -> io::Result<()> {
    if offset >= len {
        return Ok(());
    }
    let mut window = vec![0; WINDOW.min(usize::try_from(len - offset).unwrap_or(WINDOW))];
    while offset < len {
        let count = disk::read_full(file, &mut window, offset)?;
        if count == 0 || !see(offset, window.get(..count).unwrap_or_default()) {
            return Ok(());
        }
        offset += count as u64;
    }
    Ok(())
}
