//! What was found out about a log up to some batch, with the segments that hold its rows.

use std::fs;
use std::io;
use std::path::Path;

use schemas::verify::SealTail;
use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use super::segment::{Segment, hash_file};
use crate::state::State;
use crate::verify::log::LogFold;

const LABEL: &str = "affidavit/auditor/cache/v1";

/// The cache's version: the binary's, since what was checked depends on it.
const VERSION: &str = concat!("auditor ", env!("CARGO_PKG_VERSION"), " cache 10");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tail {
    batch: u64,
    to: u64,
    root: Sha256Hex,
    time: i64,
    sha256: Sha256Hex,
    closed: Option<bool>,
}

impl Tail {
    fn of(tail: &SealTail) -> Self {
        let SealTail { batch, to, root, time, sha256, closed, .. } = tail.clone();
        Self { batch, to, root, time, sha256, closed }
    }
    fn tail(&self, origin: &Origin) -> SealTail {
        let Self { batch, to, root, time, sha256, closed } = self.clone();
        SealTail { origin: origin.clone(), batch, to, root, time, sha256, closed }
    }
}

/// How far the rows of a log reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The last batch.
    pub(super) batch: u64,
    /// SHA-256 of its seal.
    pub(super) seal: Sha256Hex,
    /// Every batch up to it has its rows.
    pub(super) complete: bool,
}

impl Kept {
    pub(super) fn of(fold: &LogFold, tail: &SealTail) -> Self {
        Self { batch: tail.batch, seal: tail.sha256, complete: fold.counts.batches == fold.next_batch }
    }
}

/// What was found out about a log up to some batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    version: String,
    /// The whole verification that read all these batches, where it was one.
    pub(super) run: Option<String>,
    pub(super) fold: LogFold,
    tail: Tail,
    pub(super) kept: Kept,
    pub(super) segments: Vec<Segment>,
}

impl Checkpoint {
    pub(super) fn new(
        run: Option<String>,
        fold: &LogFold,
        tail: &SealTail,
        kept: Kept,
        segments: &[Segment],
    ) -> Self {
        let (mut fold, tail, segments) = (fold.clone(), Tail::of(tail), segments.to_vec());
        if fold.story.close.is_some() {
            fold.story.forget_ids();
        }
        Self { version: VERSION.into(), run, fold, tail, kept, segments }
    }

    /// The proof that may be continued.
    pub(super) fn earlier(self) -> (LogFold, SealTail) {
        let mut fold = self.fold;
        fold.batches_from_cache = fold.counts.batches;
        let tail = self.tail.tail(&fold.origin);
        (fold, tail)
    }

    /// Writes it, at once or not at all.
    pub(super) fn save(&self, state: &State, folder: &Path, name: &str) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        Ok(state.write_authentic(&folder.join(name), LABEL, &serde_json::to_vec(self)?)?)
    }

    /// Reads it, with the hashes of its segments checked. `None`: there is none, or one of another auditor's version.
    pub(super) fn load(
        state: &State,
        folder: &Path,
        name: &str,
        origin: &Origin,
    ) -> anyhow::Result<Option<Self>> {
        let body = match state.read_authentic(&folder.join(name), LABEL) {
            Ok(Some(body)) => body,
            Ok(None) => anyhow::bail!("`{name}` does not authenticate"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let version: Version = serde_json::from_slice(&body)?;
        if version.version != VERSION {
            return Ok(None);
        }
        let checkpoint: Self = serde_json::from_slice(&body)?;
        anyhow::ensure!(checkpoint.fold.origin == *origin, "`{name}` is another log's");
        for segment in &checkpoint.segments {
            for (kind, expected) in [("records", segment.records), ("batches", segment.batches)] {
                let path = folder.join(segment.file(kind));
                anyhow::ensure!(hash_file(&path)? == expected, "`{}` was changed", path.display());
            }
        }
        Ok(Some(checkpoint))
    }
}

/// What is read of any version.
#[derive(Deserialize)]
struct Version {
    version: String,
}
