//! From the topic into a journal folder: what stands before a log's fence.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use schemas::Origin;

use super::message::Said;
use super::pieces::Pieces;
use super::read::{Fence, Reader};
use super::table::Entry;
use crate::disk::SharedDisk;
use crate::error::OpenError;
use crate::journal::{Rebuilt, count_records, read_group};

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) groups: u64,
    pub(super) bytes: u64,
    /// The number of the first group that is not the log's any more.
    pub(super) next: u64,
    /// Groups are missing of which somebody was told.
    pub(super) is_torn: bool,
}

/// Writes the journal of a log into `folder`, which holds none.
pub(super) fn rebuild(
    reader: &Reader,
    disk: &SharedDisk,
    folder: &Path,
    segment_bytes: u64,
    (origin, entry, fence): (&Origin, &Entry, &Fence),
) -> Result<Written, OpenError> {
    let salt = entry.opening.salt;
    let is_start = entry.sequence == 0;
    let mut journal = Rebuilt::new(disk.clone(), folder, origin, salt, segment_bytes, is_start);
    let mut next = entry.sequence;
    let (mut pieces, mut early) = (Pieces::default(), BTreeMap::new());
    let mut written = Written::default();
    let mut told = 0;
    let mut put = |said: Said<'_>| -> io::Result<()> {
        match said {
            Said::Lease { told: by_then, .. } => {
                told = told.max(by_then);
                Ok(())
            }
            Said::Spill { file, offset, bytes } => journal.spill(file, offset, bytes),
            // A repeat is no news.
            Said::Group { sequence, piece, pieces: count, bytes } if sequence >= next => {
                let Some(group) = pieces.take(sequence, piece, count, bytes) else { return Ok(()) };
                if read_group(origin, &salt, &group) != Some(sequence) {
                    tracing::warn!(%origin, sequence, "a group in the commit topic is none of this log's");
                    return Ok(());
                }
                early.insert(sequence, group);
                while let Some(group) = early.remove(&next) {
                    journal.group(&group)?;
                    next += 1;
                    written.groups += 1;
                    written.bytes += group.len() as u64;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    };
    let mut failed = None;
    let read = reader.read(entry.opening.partition, entry.from, &mut |offset, message| {
        if offset >= fence.offset {
            return false;
        }
        if let Some((of, said)) = message
            && of == *origin
            && let Err(error) = put(said)
        {
            failed = Some(error);
        }
        failed.is_none()
    });
    let behind = read.map_err(|failed| away(failed, origin))?;
    if let Some(error) = failed {
        return Err(OpenError::io("write", folder)(error));
    }
    if behind < fence.offset {
        let error = crate::topic::Failed::new(crate::store::Trouble::Timeout, "it was not read to its fence");
        return Err(away(error, origin));
    }
    written.is_torn = next < told;
    if written.is_torn {
        tracing::error!(%origin, missing = next, told, "groups of which somebody was told are not in the commit topic any more: acknowledged records are lost there");
        let mut put = |journal: &mut Rebuilt| -> io::Result<()> {
            for (sequence, group) in std::mem::take(&mut early) {
                if sequence < told || sequence == next {
                    journal.group(&group)?;
                    next = sequence + 1;
                    written.groups += 1;
                    written.bytes += group.len() as u64;
                }
            }
            if next < told {
                journal.missing(told)?;
                next = told + 1;
            }
            Ok(())
        };
        put(&mut journal).map_err(OpenError::io("write", folder))?;
    }
    if !early.is_empty() {
        tracing::warn!(%origin, missing = next, behind = early.len(), "groups behind one that is missing were told to nobody, and are left out");
    }
    journal.finish().map_err(OpenError::io("sync", folder))?;
    Ok(Written { next, ..written })
}

/// The brokers do not answer.
pub(super) fn away(failed: crate::topic::Failed, what: impl ToString) -> OpenError {
    OpenError::StoreAway(failed.store("cannot read from the commit topic", what))
}

/// Counts what stands behind a fence and was not before it: records, and bytes of their groups. `next` is the first
/// group that is not the log's.
pub(super) fn count_late(
    reader: &Reader,
    (origin, entry): (&Origin, &Entry),
    (fence, next): (i64, u64),
) -> Result<(u64, u64), OpenError> {
    let salt = entry.opening.salt;
    let mut pieces = Pieces::default();
    let mut late: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let read = reader.read(entry.opening.partition, fence + 1, &mut |_, message| {
        let Some((of, said)) = message else { return true };
        if of == *origin
            && let Said::Group { sequence, piece, pieces: count, bytes } = said
            && sequence >= next
            && let Some(group) = pieces.take(sequence, piece, count, bytes)
            && read_group(origin, &salt, &group) == Some(sequence)
        {
            late.insert(sequence, (count_records(origin, &salt, &group), group.len() as u64));
        }
        true
    });
    read.map_err(|failed| away(failed, origin))?;
    Ok(late.values().fold((0, 0), |(records, bytes), (r, b)| (records + r, bytes + b)))
}
