//! The records that recovery adds to a log are agreed on in the topic before any of them is sealed.
//!
//! They hold the time, and what is found of cut exchanges: two recoveries do not make the same. Where the disk that holds
//! the first ones is lost before they are archived, a second recovery would give the log another end, and the next log
//! may name the first one in its `boot` already. So they are written behind the log's fence, and the first whole ones in
//! the partition's order count, for whoever recovers the log.

use std::path::Path;

use schemas::{Origin, Sha256Hex};

use super::message::{MAX_ENDING_PIECES, PIECE_BYTES, Said, encode};
use super::pieces::Pieces;
use super::rebuild::away;
use super::table::Entry;
use super::{CommitSettings, close};
use crate::disk;
use crate::epoch;
use crate::error::OpenError;
use crate::ledger::LedgerConfig;
use crate::store::Trouble;
use crate::topic::{Failed, Sender};

/// Where a log's last records are agreed on.
pub(crate) struct Ending<'a> {
    settings: &'a LedgerConfig,
    commit: &'a CommitSettings,
    origin: &'a Origin,
    folder: &'a Path,
    entry: Entry,
}

impl<'a> Ending<'a> {
    /// `None` where there is nothing to agree on: the log in `folder` was not committed to the topic, the topic has
    /// forgotten it, or it is agreed already.
    pub(crate) fn of(
        settings: &'a LedgerConfig,
        origin: &'a Origin,
        folder: &'a Path,
    ) -> Result<Option<Self>, OpenError> {
        let Some(commit) = &settings.commit else { return Ok(None) };
        let is_committed =
            close::has(settings, folder, epoch::COMMITTED)? || close::has(settings, folder, epoch::REBUILT)?;
        if !is_committed || close::has(settings, folder, epoch::AGREED)? {
            return Ok(None);
        }
        let entry = close::refreshed(commit)?.logs.remove(origin);
        Ok(entry.map(|entry| Self { settings, commit, origin, folder, entry }))
    }

    /// The one that counts.
    pub(crate) fn first(&self) -> Result<Option<Vec<u8>>, OpenError> {
        let (mut pieces, mut first) = (Pieces::default(), None);
        let reader = close::reader(self.commit)?;
        let read = reader.read(self.entry.opening.partition, self.entry.lease_at, &mut |_, message| {
            if let Some((of, Said::Ending { sha256, piece, pieces: count, bytes })) = message
                && of == *self.origin
                && let Some(whole) = pieces.take((sha256, count), piece, count, bytes)
                && Sha256Hex::of(&whole) == sha256
            {
                first = Some(whole);
            }
            first.is_none()
        });
        read.map_err(|failed| away(failed, self.origin))?;
        Ok(first)
    }

    /// Offers one where none is there, and gives the one that counts.
    pub(crate) fn agree_on(&self, ours: &[u8]) -> Result<Vec<u8>, OpenError> {
        if let Some(first) = self.first()? {
            return Ok(first);
        }
        self.put(ours)?;
        let gone = || Failed::new(Trouble::Timeout, "what was written behind the log's fence is not there");
        self.first()?.ok_or_else(|| away(gone(), self.origin))
    }

    fn put(&self, ending: &[u8]) -> Result<(), OpenError> {
        let chunks: Vec<&[u8]> = ending.chunks(PIECE_BYTES).collect();
        let pieces = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        if pieces > MAX_ENDING_PIECES {
            return Err(OpenError::Journal(format!(
                "log `{}`: what recovery adds has {} bytes, more than the commit topic takes",
                self.origin,
                ending.len()
            )));
        }
        let partition = self.entry.opening.partition;
        let (sender, code) = (
            Sender::new(self.commit.connection.clone(), &self.commit.who),
            self.commit.key.of(&self.commit.topic, partition),
        );
        let sha256 = Sha256Hex::of(ending);
        let messages = chunks.into_iter().zip(0..).map(|(bytes, piece)| {
            Ok::<_, Failed>(encode(&code, self.origin, &Said::Ending { sha256, piece, pieces, bytes }))
        });
        sender
            .send_to((&self.commit.topic, Some(partition)), self.origin.as_str(), messages)
            .map_err(|failed| away(failed, self.origin))
    }

    /// Remembers, durable, that the file `recovery` holds what counts.
    pub(crate) fn agreed(&self) -> Result<(), OpenError> {
        let path = self.folder.join(epoch::AGREED);
        let text = b"the file `recovery` holds what the commit topic says\n";
        disk::replace(&*self.settings.disk, &path, text).map_err(OpenError::io("write", &path))
    }
}
