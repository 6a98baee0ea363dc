//! Kept batches are put again: what the store has lost is there again, byte for byte under the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::seal::Seal;
use schemas::{ObjectName, Origin};

use super::shelf::{KeptBatch, Shelf};
use crate::ledger::LedgerConfig;
use crate::ship::{self, Files};
use crate::stop::Stop;
use crate::store::{Put, Store, StoreError};

/// Between looks whether the store has confirmed what was put.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long what was put waits to be confirmed before it is put once more: of a topic that was made anew its readers may
/// take the first messages for such as they have read.
const AGAIN_AFTER: Duration = Duration::from_secs(8);

/// Which kept batches are to be put again: those that meet all that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reship {
    /// Only those of which the store lacks an object.
    pub missing: bool,
    /// Only those that were archived then or later, microseconds UTC.
    pub since_us: Option<i64>,
    /// Only these; empty: all.
    pub batches: Vec<(Origin, u64)>,
    /// How long it is waited for the store to confirm them, behind the last put.
    pub within: Duration,
}

/// Why nothing was put again.
#[derive(Debug, thiserror::Error)]
pub enum ReshipError {
    /// The folders of kept batches cannot be read.
    #[error("what is kept cannot be read: {0}")]
    Kept(#[from] io::Error),
    /// The store does not say what it has.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What went through Kafka is in a store that this gateway cannot read.
    #[error(
        "what the archivers' store has is not known here: name it in `evidence.out.kafka.archive`, or choose batches without `--missing`"
    )]
    Unknown,
    /// It was asked to end, or failed.
    #[error("{0}")]
    Ended(String),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reshipped {
    /// It was put again, and the store has confirmed it.
    Again {
        /// How many of its objects were not there.
        objects: u64,
    },
    /// All of it was there.
    There,
    /// It is not kept here, or not any more.
    NotKept,
    /// It could not be put, or the store has not confirmed it.
    Failed(String),
}

/// A batch, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReshippedBatch {
    /// Its log.
    pub origin: Origin,
    /// Its number.
    pub batch: u64,
    /// Bytes of its objects; 0 where it is not kept.
    pub bytes: u64,
    /// What became of it.
    pub became: Reshipped,
}

/// What came of it all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReshipReport {
    /// The chosen batches, in the order of their logs.
    pub batches: Vec<ReshippedBatch>,
    /// How many batches are kept here.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// When the first of them was archived, microseconds UTC.
    pub oldest_us: Option<i64>,
}

/// A chosen batch, as it is kept.
struct Chosen {
    kept: KeptBatch,
    note: Vec<u8>,
    sealed: Seal,
}

/// Puts kept batches again. Blocks. May run beside a gateway that uses the same folders and the same store.
///
/// # Errors
/// Nothing was put. What became of each batch else is in the report.
pub fn reship(settings: &LedgerConfig, asked: &Reship) -> Result<ReshipReport, ReshipError> {
    let shelf = Shelf::new(settings.disk.clone(), &settings.spool_dir);
    let found = shelf.find()?.batches;
    let mut report = ReshipReport {
        kept: found.len() as u64,
        kept_bytes: found.iter().map(|kept| kept.bytes).sum(),
        oldest_us: found.first().map(|oldest| oldest.archived_us),
        ..ReshipReport::default()
    };
    let chosen = choose(&shelf, found, asked)?;
    let (chosen, there) = lacking(&*settings.store, chosen, asked.missing)?;
    let of = |chosen: &Chosen, became| ReshippedBatch {
        origin: chosen.sealed.origin.clone(),
        batch: chosen.sealed.batch,
        bytes: chosen.kept.bytes,
        became,
    };
    // Who asks for single batches wants to hear of each.
    if !asked.batches.is_empty() {
        report.batches.extend(there.iter().map(|batch| of(batch, Reshipped::There)));
        report.batches.extend(not_kept(asked, chosen.iter().chain(&there)));
    }
    let task = Task { shelf, store: Arc::clone(&settings.store), stop: settings.stop.clone() };
    let put: Vec<_> = chosen.iter().map(|chosen| (Instant::now(), task.put(chosen))).collect();
    let until = Instant::now() + asked.within;
    for (chosen, (at, put)) in chosen.iter().zip(put) {
        let became = put.and_then(|objects| task.confirm(chosen, at, until).map(|()| objects));
        report.batches.push(of(
            chosen,
            match became {
                Ok(0) => Reshipped::There,
                Ok(objects) => Reshipped::Again { objects },
                Err(why) => Reshipped::Failed(why),
            },
        ));
    }
    report.batches.sort_by(|one, other| (&one.origin, one.batch).cmp(&(&other.origin, other.batch)));
    Ok(report)
}

/// The kept batches that are asked for, in the order of their logs. One that goes meanwhile is not kept.
fn choose(shelf: &Shelf, found: BTreeSet<KeptBatch>, asked: &Reship) -> Result<Vec<Chosen>, ReshipError> {
    let is_named = |epoch: &str, number: u64| {
        asked.batches.is_empty()
            || asked.batches.iter().any(|(origin, batch)| origin.epoch() == epoch && *batch == number)
    };
    let mut chosen = Vec::new();
    for kept in found {
        if asked.since_us.is_some_and(|since| kept.archived_us < since) || !is_named(&kept.epoch, kept.batch)
        {
            continue;
        }
        match shelf.seal(&kept) {
            Ok((note, sealed)) => chosen.push(Chosen { kept, note, sealed }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let named = |one: &Chosen| asked.batches.contains(&(one.sealed.origin.clone(), one.sealed.batch));
    chosen.retain(|one| asked.batches.is_empty() || named(one));
    chosen.sort_by(|one, other| {
        (&one.sealed.origin, one.sealed.batch).cmp(&(&other.sealed.origin, other.sealed.batch))
    });
    Ok(chosen)
}

/// Those of which the store lacks an object, and the others; all, where that is not asked.
fn lacking(
    store: &dyn Store,
    chosen: Vec<Chosen>,
    missing: bool,
) -> Result<(Vec<Chosen>, Vec<Chosen>), ReshipError> {
    if !missing {
        return Ok((chosen, Vec::new()));
    }
    let mut stored: BTreeMap<Origin, BTreeSet<String>> = BTreeMap::new();
    let (mut lacking, mut there) = (Vec::new(), Vec::new());
    for one in chosen {
        let origin = &one.sealed.origin;
        if !stored.contains_key(origin) {
            let names = store.stored(origin)?.ok_or(ReshipError::Unknown)?;
            stored.insert(origin.clone(), names.iter().map(ObjectName::file_name).collect());
        }
        let names = stored.get(origin);
        let has = |name: &str| names.is_some_and(|names| names.contains(name));
        let is_whole =
            one.sealed.files.iter().all(|file| has(&file.name)) && has(&one.sealed.object_name().file_name());
        if is_whole { &mut there } else { &mut lacking }.push(one);
    }
    Ok((lacking, there))
}

/// Batches that were asked for by name and are not kept.
fn not_kept<'a>(asked: &Reship, kept: impl Iterator<Item = &'a Chosen>) -> Vec<ReshippedBatch> {
    let kept: BTreeSet<(&Origin, u64)> = kept.map(|one| (&one.sealed.origin, one.sealed.batch)).collect();
    let lacks = asked.batches.iter().filter(|(origin, batch)| !kept.contains(&(origin, *batch)));
    lacks
        .map(|(origin, batch)| ReshippedBatch {
            origin: origin.clone(),
            batch: *batch,
            bytes: 0,
            became: Reshipped::NotKept,
        })
        .collect()
}

struct Task {
    shelf: Shelf,
    store: Arc<dyn Store>,
    stop: Stop,
}

impl Task {
    fn files<'a>(&'a self, chosen: &'a Chosen) -> Files<'a> {
        Files {
            sealed: &chosen.sealed,
            note: &chosen.note,
            seal: self.shelf.seal_path(&chosen.kept),
            path: Box::new(|file| self.shelf.path(&chosen.kept, file)),
        }
    }

    /// Puts all objects of a batch; how many were not there.
    fn put(&self, chosen: &Chosen) -> Result<u64, String> {
        if self.stop.asked() {
            return Err("the gateway ends: ask again".into());
        }
        let mut objects = 0;
        let put = ship::each(&self.files(chosen), |name, source| {
            objects += u64::from(self.store.put_again(name, source)? == Put::Stored);
            Ok(())
        });
        put.map(|()| objects).map_err(|error| error.to_string())
    }

    /// Waits until the store has confirmed all of it, which was put `at`.
    fn confirm(&self, chosen: &Chosen, mut at: Instant, until: Instant) -> Result<(), String> {
        loop {
            let confirmed = ship::each(&self.files(chosen), |name, source| {
                self.store.confirm_again(name, source).map(drop)
            });
            match confirmed {
                Ok(()) => return Ok(()),
                Err(error) if error.is_waiting() && Instant::now() < until && !self.stop.asked() => {
                    if at.elapsed() >= AGAIN_AFTER {
                        at = Instant::now();
                        self.put(chosen)?;
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
