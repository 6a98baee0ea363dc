//! What was not archived, set aside for whoever looks into it: a bounded folder, a line in the log, a count.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::offsets::At;

/// Why something was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The message is no chunk.
    NotAChunk,
    /// The message's key is not its log.
    ForeignKey,
    /// A chunk that is not a piece of its object.
    ForgedPiece,
    /// A seal that is not by a key of its log, or none.
    ForgedSeal,
    /// A seal of a log of which no key is known: forged, or a gateway that is not enrolled yet.
    UnknownLog,
    /// A batch that does not hold by its own seal.
    InvalidBatch,
    /// A batch that does not continue the one before it in the store.
    ChainBroken,
    /// Other bytes stand under its name in the store: two writers, or a changed store.
    NameTaken,
    /// What the store gives back is not what was put.
    ReadBack,
    /// An object or batch of which pieces did not come in time.
    Unfinished,
    /// More versions of one piece than are kept.
    TooManyVersions,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NotAChunk,
        Self::ForeignKey,
        Self::ForgedPiece,
        Self::ForgedSeal,
        Self::UnknownLog,
        Self::InvalidBatch,
        Self::ChainBroken,
        Self::NameTaken,
        Self::ReadBack,
        Self::Unfinished,
        Self::TooManyVersions,
    ];

    /// Its word in metrics, logs and findings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAChunk => "not_a_chunk",
            Self::ForeignKey => "foreign_key",
            Self::ForgedPiece => "forged_piece",
            Self::ForgedSeal => "forged_seal",
            Self::UnknownLog => "unknown_log",
            Self::InvalidBatch => "invalid_batch",
            Self::ChainBroken => "chain_broken",
            Self::NameTaken => "name_taken",
            Self::ReadBack => "read_back",
            Self::Unfinished => "unfinished",
            Self::TooManyVersions => "too_many_versions",
        }
    }
}

/// What is said of something that was set aside.
#[derive(Debug, Serialize)]
struct Finding<'a> {
    fault: Fault,
    /// The object, or what the message said it was.
    about: &'a str,
    detail: &'a str,
    partition: Option<i32>,
    offset: Option<i64>,
    bytes: u64,
    at_us: i64,
}

/// The folder, and the counts.
#[derive(Debug)]
pub(crate) struct Quarantine {
    folder: PathBuf,
    bound: u64,
    held: u64,
    made: u64,
    counts: BTreeMap<Fault, u64>,
    /// How many lines of each fault went into the log since when.
    said: BTreeMap<Fault, (Instant, u32)>,
}

/// How many lines of one fault go into the log in `SAID_WITHIN`: a flood of forged messages does not fill it.
const SAID: u32 = 20;
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// What a file takes on a disk at least.
const BLOCK: u64 = 4096;

fn cost(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Quarantine {
    /// Opens the folder; what lies there stays.
    pub(crate) fn open(folder: &Path, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (mut held, mut made) = (0, 0);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            held += cost(entry.metadata()?.len());
            let number = entry.file_name().to_str().and_then(|name| name.split('-').next()?.parse().ok());
            made = made.max(number.unwrap_or(0));
        }
        let counts = Fault::ALL.into_iter().map(|fault| (fault, 0)).collect();
        Ok(Self { folder: folder.to_owned(), bound, held, made, counts, said: BTreeMap::new() })
    }

    /// Bytes that its files take, and the most that they may.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.held, self.bound)
    }

    /// How often each fault was found since the start.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        self.counts.iter().map(|(fault, count)| (*fault, *count))
    }

    /// Whether another line of this fault goes into the log now.
    fn is_said(&mut self, fault: Fault) -> bool {
        let now = Instant::now();
        let (since, count) = self.said.entry(fault).or_insert((now, 0));
        if now.duration_since(*since) >= SAID_WITHIN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= SAID
    }

    /// Sets bytes aside, with what is wrong with them. Over the bound only the count stays, and the line in the log.
    pub(crate) fn set_aside(
        &mut self,
        fault: Fault,
        about: &str,
        detail: &str,
        at: Option<At>,
        bytes: &[u8],
        now_us: i64,
    ) {
        *self.counts.entry(fault).or_default() += 1;
        let (partition, offset) = (at.map(|at| at.partition), at.map(|at| at.offset));
        if self.is_said(fault) {
            tracing::error!(
                fault = fault.as_str(),
                about,
                detail,
                partition,
                offset,
                "set aside, not archived"
            );
        }
        let length = bytes.len() as u64;
        let finding = Finding { fault, about, detail, partition, offset, bytes: length, at_us: now_us };
        let Ok(mut text) = serde_json::to_vec_pretty(&finding) else { return };
        text.push(b'\n');
        self.made += 1;
        let stem = format!("{:010}-{}", self.made, fault.as_str());
        for (bytes, ending) in [(text.as_slice(), "json"), (bytes, "bytes")] {
            let bytes_held = self.held.saturating_add(cost(bytes.len() as u64));
            if bytes.is_empty() || bytes_held > self.bound {
                continue;
            }
            match fs::write(self.folder.join(format!("{stem}.{ending}")), bytes) {
                Ok(()) => self.held = bytes_held,
                Err(error) => tracing::warn!(%error, "the quarantine cannot be written"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_set_aside_stays_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let at = Some(At { partition: 1, offset: 7 });
        let mut quarantine = Quarantine::open(folder.path(), 20_000).unwrap();
        quarantine.set_aside(Fault::NotAChunk, "x", "no first line", at, b"junk", 5);
        drop(quarantine);
        let mut quarantine = Quarantine::open(folder.path(), 20_000).unwrap();
        for _ in 0..20 {
            quarantine.set_aside(Fault::ForgedSeal, "x", "not signed", at, &[7; 300], 5);
        }
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().any(|name| name == "0000000001-not_a_chunk.bytes"), "{names:?}");
        assert!(names.iter().any(|name| name == "0000000002-forged_seal.json"), "{names:?}");
        assert_eq!(names.len(), 4, "{names:?}");
        let counts: BTreeMap<_, _> = quarantine.counts().collect();
        assert_eq!((counts[&Fault::ForgedSeal], counts[&Fault::NotAChunk]), (20, 0));
    }
}
