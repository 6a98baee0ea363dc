//! Batches that stay for a while after they are archived: what the store loses can be put again (`reship`).
//!
//! ```text
//! <spool>/kept/<epoch>/<batch:010>-<sha256>.records.parquet, ...   the batch's files
//! <spool>/kept/<epoch>/<batch:010>.<archived_us>.seal              its seal, and when the store had confirmed it
//! ```
//! They are second names of what was in the spool, made before the spool gives it up; the seal's comes last. No promise
//! rests on them, and they are in nobody's way: what is kept goes, oldest first, when its time is over, when it is more
//! than the spool's bound leaves beside what waits, when less than twice as much is free, and at once when the disk is
//! full ([`Roomy`]). What cannot be kept is a warning.

mod reship;
mod roomy;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::disk;
use crate::ledger::LedgerConfig;
use crate::spool::Spool;

use self::shelf::{KeptBatch, Shelf};

pub use reship::{Reship, ReshipError, ReshipReport, Reshipped, ReshippedBatch, reship};
pub(crate) use roomy::Roomy;

/// How often the folders are looked at anew: other processes keep batches there too.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How many of the newest batches are known by name.
const NEWEST: usize = 64;

/// What is kept, as this process knows it.
#[derive(Debug)]
pub(crate) struct Kept {
    shelf: Shelf,
    clock: Arc<dyn Clock>,
    time: Duration,
    bound: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    batches: BTreeSet<KeptBatch>,
    bytes: u64,
    /// Files without a seal at the last look; they go where they still are at the next.
    strays: BTreeSet<PathBuf>,
    looked: Option<Instant>,
}

impl State {
    fn insert(&mut self, kept: KeptBatch) {
        let bytes = kept.bytes;
        if self.batches.insert(kept) {
            self.bytes += bytes;
        }
    }

    /// Whether a batch is among the last that were kept: where the store gives no seal back, the newest stays in the
    /// spool and is met again.
    fn has(&self, epoch: &str, batch: u64) -> bool {
        self.batches.iter().rev().take(NEWEST).any(|kept| kept.batch == batch && kept.epoch == epoch)
    }
}

impl Kept {
    /// Looks at nothing yet.
    pub(crate) fn of(settings: &LedgerConfig) -> Arc<Self> {
        Arc::new(Self {
            shelf: Shelf::new(settings.disk.clone(), &settings.spool_dir),
            clock: settings.clock.clone(),
            time: settings.spool_keep,
            bound: settings.spool_bound_bytes,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is kept at all.
    pub(crate) fn is_on(&self) -> bool {
        !self.time.is_zero()
    }

    /// Bytes that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Keeps a batch that the store has confirmed, before the spool gives it up. Where that is not possible it is not
    /// kept: what is archived is archived.
    pub(crate) fn keep(&self, spool: &Spool, batch: u64) {
        if !self.is_on() || self.state().has(spool.origin().epoch(), batch) {
            return;
        }
        match self.shelf.keep(spool, batch, self.clock.now_us()) {
            Ok(kept) => self.state().insert(kept),
            Err(error) => {
                tracing::warn!(origin = %spool.origin(), batch, %error, "an archived batch is not kept for a store that may lose it");
            }
        }
    }

    /// Lets go what is too old, and what is more than there is room for beside `waiting` bytes that are not archived.
    pub(crate) fn tidy(&self, waiting: u64) -> io::Result<()> {
        let mut state = self.state();
        self.look(&mut state, false)?;
        let time_us = i64::try_from(self.time.as_micros()).unwrap_or(i64::MAX);
        let since = self.clock.now_us().saturating_sub(time_us);
        while state.batches.first().is_some_and(|oldest| oldest.archived_us <= since) {
            self.drop_oldest(&mut state)?;
        }
        let bound = self.bound.saturating_sub(waiting);
        while !state.batches.is_empty() && state.bytes > bound.min(self.shelf.free_bytes()? / 2) {
            self.drop_oldest(&mut state)?;
        }
        Ok(())
    }

    /// Looks at the folders, where it is time.
    fn look(&self, state: &mut State, now: bool) -> io::Result<()> {
        if !now && state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let found = self.shelf.find()?;
        for stray in found.strays.intersection(&state.strays) {
            self.shelf.unlink(stray)?;
        }
        state.bytes = found.batches.iter().map(|kept| kept.bytes).sum();
        (state.batches, state.strays) = (found.batches, found.strays);
        state.looked = Some(Instant::now());
        Ok(())
    }

    fn drop_oldest(&self, state: &mut State) -> io::Result<()> {
        let Some(oldest) = state.batches.pop_first() else { return Ok(()) };
        state.bytes = state.bytes.saturating_sub(oldest.bytes);
        self.shelf.remove(&oldest)
    }

    /// The disk is full: at least `bytes` of what is kept go, where there is as much. Whether anything went.
    pub(crate) fn give_up(&self, bytes: u64) -> bool {
        let mut state = self.state();
        if let Err(error) = self.look(&mut state, false) {
            tracing::warn!(%error, "what is kept of archived batches cannot be looked at");
        }
        let (mut gone, mut batches) = (0, 0);
        while gone < bytes
            && let Some(oldest) = state.batches.first()
        {
            let size = oldest.bytes;
            if let Err(error) = self.drop_oldest(&mut state) {
                tracing::warn!(%error, "a kept batch cannot be removed");
                continue;
            }
            gone += size;
            batches += 1;
        }
        if batches > 0 {
            tracing::warn!(batches, bytes = gone, "the disk is full: archived batches are kept no longer");
        }
        batches > 0
    }

    /// Removes all that is kept; `evidence.spool_keep` is 0.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let mut state = self.state();
        for _ in 0..2 {
            self.look(&mut state, true)?;
        }
        while !state.batches.is_empty() {
            self.drop_oldest(&mut state)?;
        }
        self.look(&mut state, true)
    }

    /// Whether room for `path` can be made here: it is on the same file system.
    fn is_beside(&self, path: &Path) -> bool {
        crate::open::shares_device(disk::parent(path), disk::parent(self.shelf.root()))
    }
}
