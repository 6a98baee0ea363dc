//! A journal made again from its groups, as they were sent to a second place: for [`super::recover`].

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use schemas::Origin;

use super::group::{BLOCK, GROUP_HEAD, GroupHead, MAX_GROUP, SegmentHead, Tag, segment_name};
use crate::disk::{self, DiskFile, SharedDisk};

/// The number of a group of the journal of `origin` and `salt`; `None` where it is not one, or not whole.
pub(crate) fn read_group(origin: &Origin, salt: &[u8; 32], bytes: &[u8]) -> Option<u64> {
    let head = GroupHead::decode(bytes, Tag::of(origin, salt))?;
    let payload = bytes.get(GROUP_HEAD..)?;
    let whole = payload.len() == head.length as usize
        && payload.len() <= MAX_GROUP
        && crc32c::crc32c(payload) == head.payload_crc;
    whole.then_some(head.sequence)
}

/// How many records a group holds.
pub(crate) fn count_records(origin: &Origin, salt: &[u8; 32], bytes: &[u8]) -> u64 {
    let seed = Tag::of(origin, salt).seed();
    let mut rest = bytes::Bytes::copy_from_slice(bytes.get(GROUP_HEAD..).unwrap_or_default());
    let mut count = 0;
    while let Some((taken, frame)) = super::frame::decode(&rest, seed) {
        count += u64::from(matches!(frame, super::Frame::Record { .. }));
        rest = rest.slice(taken..);
    }
    count
}

/// Writes groups into segments of a folder. Nothing is durable before [`Rebuilt::finish`].
#[derive(Debug)]
pub(crate) struct Rebuilt {
    disk: SharedDisk,
    dir: PathBuf,
    origin: Origin,
    salt: [u8; 32],
    segment_bytes: u64,
    index: u32,
    /// The position behind the last record.
    position: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    offset: u64,
    bytes: u64,
}

impl Rebuilt {
    /// `is_start`: whether the first group is the journal's first. Where not, its segments are numbered from 1: what
    /// is missing before them is said to be missing.
    pub(crate) fn new(
        disk: SharedDisk,
        dir: &Path,
        origin: &Origin,
        salt: [u8; 32],
        segment_bytes: u64,
        is_start: bool,
    ) -> Self {
        let index = u32::from(!is_start);
        Self {
            disk,
            dir: dir.to_owned(),
            origin: origin.clone(),
            salt,
            segment_bytes,
            index,
            position: 0,
            open: None,
        }
    }

    /// Appends a group that [`read_group`] has taken.
    pub(crate) fn group(&mut self, bytes: &[u8]) -> io::Result<()> {
        let span = (bytes.len() as u64).div_ceil(BLOCK) * BLOCK;
        if self.open.as_ref().is_some_and(|open| open.offset + span > open.bytes) {
            self.end_segment()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let bytes = self.segment_bytes.max(BLOCK + span);
                let file = self.disk.create(&self.dir.join(segment_name(self.index)))?;
                file.allocate(bytes)?;
                let (origin, salt, index) = (self.origin.clone(), self.salt, self.index);
                let head = SegmentHead { origin, salt, index, bytes }.encode();
                file.write_at(&[IoSlice::new(&head)], 0)?;
                self.index += 1;
                none.insert(Open { file, offset: BLOCK, bytes })
            }
        };
        open.file.write_at(&[IoSlice::new(bytes)], open.offset)?;
        open.offset += span;
        if let Some(head) = GroupHead::decode(bytes, Tag::of(&self.origin, &self.salt)) {
            self.position = head.first_position + count_records(&self.origin, &self.salt, bytes);
        }
        Ok(())
    }

    /// Says, at the end, that groups are missing of which somebody was told: a block without a group, and behind it an
    /// empty one of the number `next`, so that recovery finds a loss.
    pub(crate) fn missing(&mut self, next: u64) -> io::Result<()> {
        let (sequence, first_position) = (next, self.position);
        let head = GroupHead { sequence, first_position, time_us: 0, length: 0, frames: 0, payload_crc: 0 };
        let tag = Tag::of(&self.origin, &self.salt);
        if self.open.is_none() {
            self.group(&[])?;
        }
        // Behind a gap in its segment: what is missing is not only what was archived before that one.
        if let Some(open) = &mut self.open {
            open.offset += BLOCK;
        }
        self.group(&head.encode(tag))
    }

    fn end_segment(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(open) => open.file.sync_data(),
            None => Ok(()),
        }
    }

    /// Writes a piece of a spill file.
    pub(crate) fn spill(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(file);
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&path)?,
            other => other?,
        };
        file.write_at(&[IoSlice::new(bytes)], offset)
    }

    /// All of it is durable on return.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_segment()?;
        for entry in self.disk.list(&self.dir)? {
            if entry.name.ends_with(".spill") {
                self.disk.open(&self.dir.join(&entry.name))?.sync_data()?;
            }
        }
        self.disk.sync_dir(&self.dir)
    }
}

/// Removes what is left of a journal in a folder: segments and spill files.
pub(crate) fn clear(disk: &dyn disk::Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        if is_of_journal(&entry.name) {
            disk.unlink(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Whether a file is a segment or a spill file.
pub(crate) fn is_of_journal(name: &str) -> bool {
    super::group::segment_index(name).is_some() || name.ends_with(".spill")
}
