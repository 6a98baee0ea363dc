//! The cache of proven rows, and how far a verification came: files made by us, in the auditor's private folder. Never
//! decrypted content.
//!
//! ```text
//! <state>/cache/<deployment, keys and store>/
//!   lock                             held by the one auditor that works on it
//!   run.json                         the whole verification that is under way, or was interrupted
//!   <deployment>/<gateway>/<epoch>/
//!     log.json                       what was found out when the log was last followed to its end, and the segments
//!     unfinished.json                the same, from the middle of the log
//!     <seal>.records.parquet         the rows of a run of batches, named by the SHA-256 of the run's last seal
//!     <seal>.batches.parquet         one row a batch
//! ```
//! The first line of every `.json` is its MAC by the local key; it names each segment's SHA-256, and a segment is hashed
//! before it is read. Whatever does not fit is dropped and proven anew. Whether a proof may be continued at all is for
//! [`crate::verify`] to say, against a listing that was made anew.

mod checkpoint;
mod columns;
mod lock;
mod pace;
mod run;
mod segment;

pub(crate) use columns::{Builder, data_type};
pub use columns::{batches_schema, records_schema};
pub use segment::Segment;
pub(crate) use segment::properties;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use schemas::trust::Trust;
use schemas::verify::{SealTail, VerifiedBatch};
use schemas::{Origin, Sha256Hex};

use crate::finding::{Code, Findings, Place};
use crate::state::State;
use crate::verify::Sink;
use crate::verify::log::LogFold;
use checkpoint::{Checkpoint, Kept};
use lock::Lock;
use pace::Pace;
use run::Run;
use segment::{Writing, merge};

/// More segments of a log than this are merged.
const MOST_SEGMENTS: usize = 16;

const LOG_FILE: &str = "log.json";
const UNFINISHED_FILE: &str = "unfinished.json";

/// Which earlier proofs a verification goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continue {
    /// None: everything is read.
    Nothing,
    /// Those of a whole verification that was interrupted: everything is read once.
    Interrupted,
    /// Any: what is new is read.
    Known,
}

/// One log of the cache.
struct Log {
    folder: PathBuf,
    /// How far the segments reach.
    kept: Option<Kept>,
    segments: Vec<Segment>,
    /// The segments that `unfinished.json` names.
    unfinished: Vec<Segment>,
    writing: Option<Writing>,
    /// The whole verification that read all batches of the log so far.
    run: Option<String>,
    /// The rows cannot be kept: the log is not what the cache holds.
    stale: bool,
}

impl Log {
    fn new(folder: PathBuf, run: Option<String>) -> Self {
        let (segments, unfinished) = (Vec::new(), Vec::new());
        Self { folder, kept: None, segments, unfinished, writing: None, run, stale: false }
    }

    /// Ends the segment that is being written.
    fn flush(&mut self, fold: &LogFold, tail: &SealTail) -> anyhow::Result<()> {
        if let Some(writing) = self.writing.take() {
            self.segments.push(writing.finish()?);
            self.kept = Some(Kept::of(fold, tail));
        }
        Ok(())
    }

    fn checkpoint(&self, fold: &LogFold, tail: &SealTail) -> Checkpoint {
        let kept = self.kept.clone().unwrap_or_else(|| Kept::of(fold, tail));
        Checkpoint::new(self.run.clone(), fold, tail, kept, &self.segments)
    }

    /// Removes files that nothing names.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut segments = self.segments.iter().chain(&self.unfinished);
            let named = segments.any(|segment| name.starts_with(&segment.seal.to_string()));
            if !named && name != LOG_FILE && name != UNFINISHED_FILE {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The cache of one deployment in one store.
pub struct Cache<'a> {
    state: &'a State,
    root: PathBuf,
    logs: BTreeMap<Origin, Log>,
    run: Option<Run>,
    pace: Pace,
    error: Option<anyhow::Error>,
    /// From the beginning of a verification until the rows were read.
    lock: Option<Lock>,
}

impl std::fmt::Debug for Cache<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'a> Cache<'a> {
    /// Opens the cache for a trust file and a store. Another deployment or key is another cache, and so is another store:
    /// what was found in a copy says nothing of the original, whatever both say of the state of their objects.
    pub fn open(state: &'a State, trust: &Trust, store: &str) -> Self {
        let mut keys: Vec<String> =
            trust.gateways.iter().map(|entry| format!("{} {}\n", entry.name, entry.key)).collect();
        keys.extend(trust.registry.iter().map(|registry| format!("{} {}\n", registry.origin, registry.key)));
        keys.extend(trust.root.iter().map(|root| format!("root {root}\n")));
        keys.sort();
        let name = format!("{}\n{}store {store}\n", trust.deployment, keys.concat());
        let name = Sha256Hex::of(name.as_bytes()).to_string();
        let root = state.folder().join("cache").join(name.get(..16).unwrap_or_default());
        Self { state, root, logs: BTreeMap::new(), run: None, pace: Pace::default(), error: None, lock: None }
    }

    /// Says how long it is at least from one checkpoint in the middle of a log to the next.
    pub fn at_least_every(&mut self, least: Duration) {
        self.pace = Pace::new(least);
    }

    fn folder(&self, origin: &Origin) -> PathBuf {
        self.root.join(origin.as_str())
    }

    /// Begins a verification: gives the proofs that it may go on from. Damage is named and dropped. Waits where another
    /// auditor works on the cache; none does until this is dropped.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn begin(
        &mut self,
        from: Continue,
        now: i64,
        findings: &mut Findings,
    ) -> anyhow::Result<BTreeMap<Origin, (LogFold, SealTail)>> {
        if self.lock.is_none() {
            self.lock = Some(Lock::take(&self.root)?);
            lock::sweep(&self.root, SystemTime::now());
        }
        self.run = match from {
            Continue::Known => None,
            Continue::Interrupted => Some(Run::under_way(self.state, &self.root, now)?),
            Continue::Nothing => Some(Run::begin(self.state, &self.root, now)?),
        };
        let mut out = BTreeMap::new();
        for folder in log_folders(&self.root) {
            let Some(origin) = folder
                .strip_prefix(&self.root)
                .ok()
                .and_then(|path| path.to_str())
                .and_then(|path| Origin::new(path).ok())
            else {
                continue;
            };
            let read = |name| Checkpoint::load(self.state, &folder, name, &origin);
            let both = read(LOG_FILE).and_then(|log| Ok((log, read(UNFINISHED_FILE)?)));
            match both {
                Ok((log, unfinished)) => {
                    let (log, earlier) = self.known(folder, from, log, unfinished);
                    out.extend(earlier.map(|earlier| (origin.clone(), earlier)));
                    self.logs.insert(origin, log);
                }
                Err(error) => damaged(&folder, &error.to_string(), findings),
            }
        }
        Ok(out)
    }

    /// A log of the cache, and the proof that is gone on from: of those that count the one that came farthest.
    fn known(
        &self,
        folder: PathBuf,
        from: Continue,
        log: Option<Checkpoint>,
        unfinished: Option<Checkpoint>,
    ) -> (Log, Option<(LogFold, SealTail)>) {
        let run = self.run.as_ref().map(|run| run.id.clone());
        let counts = |checkpoint: &Checkpoint| match from {
            Continue::Nothing => false,
            Continue::Interrupted => checkpoint.run == run,
            Continue::Known => true,
        };
        let mut out = Log::new(folder, run.clone());
        out.unfinished = unfinished.iter().flat_map(|checkpoint| checkpoint.segments.clone()).collect();
        let mut both: Vec<Checkpoint> = log.into_iter().chain(unfinished).collect();
        let farthest = both
            .iter()
            .enumerate()
            // What could not be read may be readable now.
            .filter(|(_, checkpoint)| !checkpoint.fold.findings.has(Code::CouldNotRead) && counts(checkpoint))
            .max_by_key(|(_, checkpoint)| checkpoint.fold.next_batch)
            .map(|(index, _)| index);
        // Where everything is read anew, rows of batches that turn out the same need not be written again.
        if let Some(rows) = both.get(farthest.unwrap_or_default()) {
            out.kept = Some(rows.kept.clone());
            out.segments.clone_from(&rows.segments);
        }
        let Some(farthest) = farthest else { return (out, None) };
        let farthest = both.swap_remove(farthest);
        out.run.clone_from(&farthest.run);
        (out, Some(farthest.earlier()))
    }

    /// Ends the verification. `whole`: every log was followed to its end and could be read, so the next one begins anew.
    ///
    /// # Errors
    /// The cache could not be written.
    pub fn finish(&mut self, whole: bool) -> anyhow::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error.context("the cache of proven rows cannot be written"));
        }
        if whole && self.run.is_some() {
            Run::end(&self.root)?;
        }
        Ok(())
    }

    /// The files of the tables `records` and `batches`.
    pub fn files(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut records = Vec::new();
        let mut batches = Vec::new();
        for log in self.logs.values().filter(|log| !log.stale) {
            for segment in &log.segments {
                records.push(log.folder.join(segment.file("records")));
                batches.push(log.folder.join(segment.file("batches")));
            }
        }
        (records, batches)
    }

    /// True where a log turned out to be another than the cache held: it must be followed anew.
    pub fn is_stale(&self) -> bool {
        self.logs.values().any(|log| log.stale)
    }

    /// Forgets logs that turned out to be others than the cache held.
    pub fn forget_stale(&mut self) {
        for log in self.logs.values().filter(|log| log.stale) {
            let _ = fs::remove_dir_all(&log.folder);
        }
        self.logs.retain(|_, log| !log.stale);
    }

    fn log_of(&mut self, origin: &Origin) -> &mut Log {
        let folder = self.folder(origin);
        let run = self.run.as_ref().map(|run| run.id.clone());
        self.logs.entry(origin.clone()).or_insert_with(|| Log::new(folder, run))
    }

    fn try_batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) -> anyhow::Result<()> {
        let log = self.log_of(origin);
        let seal = batch.seal();
        if let Some(kept) = &log.kept
            && seal.batch <= kept.batch
        {
            if kept.complete {
                log.stale |= seal.batch == kept.batch && seal.sha256() != kept.seal;
                return Ok(());
            }
            // Rows are missing among those that are kept, perhaps this batch's: all are written again.
            log.kept = None;
            log.segments.clear();
        }
        if log.writing.is_none() {
            log.writing = Some(Writing::new(log.folder.clone(), seal.batch)?);
        }
        match &mut log.writing {
            Some(writing) => writing.batch(origin, batch, bytes),
            None => Ok(()),
        }
    }

    /// Writes how far a log was followed.
    fn try_reached(&mut self, fold: &LogFold, tail: &SealTail) -> anyhow::Result<()> {
        let state = self.state;
        let log = self.log_of(&fold.origin);
        if log.stale {
            return Ok(());
        }
        log.flush(fold, tail)?;
        log.checkpoint(fold, tail).save(state, &log.folder, UNFINISHED_FILE)?;
        log.unfinished.clone_from(&log.segments);
        self.pace.made();
        Ok(())
    }

    fn try_log(&mut self, fold: &LogFold, tail: &SealTail) -> anyhow::Result<()> {
        let state = self.state;
        let Some(log) = self.logs.get_mut(&fold.origin) else { return Ok(()) };
        log.stale |= log.kept.as_ref().is_some_and(|kept| tail.batch < kept.batch);
        if log.stale {
            // Nothing may go on from what was another log.
            remove(&log.folder.join(UNFINISHED_FILE))?;
            return remove(&log.folder.join(LOG_FILE));
        }
        log.flush(fold, tail)?;
        if log.segments.len() > MOST_SEGMENTS {
            merge(&log.folder, &mut log.segments)?;
        }
        log.kept = Some(Kept::of(fold, tail));
        log.checkpoint(fold, tail).save(state, &log.folder, LOG_FILE)?;
        if !fold.findings.has(Code::CouldNotRead) {
            remove(&log.folder.join(UNFINISHED_FILE))?;
            log.unfinished.clear();
        }
        log.sweep();
        Ok(())
    }
}

impl Sink for Cache<'_> {
    fn batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64) {
        if self.error.is_none() {
            self.error = self.try_batch(origin, batch, bytes).err();
        }
    }
    fn reached(&mut self, fold: &LogFold, tail: Option<&SealTail>, stops: bool) {
        let Some(tail) = tail.filter(|_| stops || self.pace.is_due()) else { return };
        // The next run goes on before what could not be read.
        if self.error.is_none() && !fold.findings.has(Code::CouldNotRead) {
            self.error = self.try_reached(fold, tail).err();
        }
    }
    fn log(&mut self, fold: &LogFold, tail: Option<&SealTail>) {
        if let Some(tail) = tail
            && self.error.is_none()
        {
            self.error = self.try_log(fold, tail).err();
        }
    }
}

fn damaged(folder: &Path, why: &str, findings: &mut Findings) {
    let place = Place::object(folder.display().to_string());
    findings.add(Code::CacheDamaged, place, "a cache that this auditor wrote", why);
    let _ = fs::remove_dir_all(folder);
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn log_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned()];
    for _ in 0..3 {
        let children = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        folders =
            children.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    }
    folders.sort();
    folders
}

#[cfg(test)]
mod tests;
