//! An object as a file that is read: each read is one ranged GET of the version that was opened.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::Shared;
use crate::disk::DiskFile;

/// The most bytes of one GET.
const MAX_RANGE: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct ObjectFile {
    pub(super) shared: Arc<Shared>,
    pub(super) key: String,
    pub(super) version: Option<String>,
    pub(super) length: u64,
}

impl DiskFile for ObjectFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(rest).min(MAX_RANGE);
        if count == 0 {
            return Ok(0);
        }
        let bytes = self.shared.get_range(&self.key, self.version.as_deref(), offset, count);
        let bytes = bytes.map_err(|failed| failed.trouble.of_read(failed.detail))?;
        let part = bytes.get(..count).ok_or(io::ErrorKind::UnexpectedEof)?;
        for (to, from) in buffer.iter_mut().zip(part) {
            *to = *from;
        }
        Ok(count)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }
}
