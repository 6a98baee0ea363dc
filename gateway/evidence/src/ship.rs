//! The shipper: from the spool into the store, and back to see that it is there (DU-2, DU-3).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::ObjectName;
use schemas::Origin;
use schemas::seal;

use crate::error::{Reason, Unavailable};
use crate::kept::Kept;
use crate::spool::Spool;
use crate::store::{Source, Store, StoreError, Trouble};

/// The first wait after a failure; doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The least wait where someone must act before it can succeed.
const SLOW_WAIT: Duration = Duration::from_secs(10);

/// Why a batch is not archived yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShipError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool could not be read.
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
    /// A seal in the spool is none.
    #[error("the seal of batch {batch} in the spool cannot be read: {detail}")]
    Seal {
        /// The batch.
        batch: u64,
        /// What is wrong.
        detail: String,
    },
}

impl ShipError {
    /// Whether the same may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Spool(_) => true,
            Self::Seal { .. } => false,
        }
    }

    /// Whether the batch is on its way, and its answer is still to come: those behind it can be put meanwhile.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Store(StoreError::Pending { .. })) || self.trouble() == Some(Trouble::Unanswered)
    }

    /// What is in the way, where the same may succeed later.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Store(error) => error.trouble(),
            Self::Spool(_) => Some(Trouble::Local),
            Self::Seal { .. } => None,
        }
    }

    /// What the ledger says where it is not.
    pub(crate) fn alarm(&self, origin: &Origin) -> Unavailable {
        Unavailable::new(Reason::StoreRefused, format!("log `{origin}`: {self}"))
    }
}

/// Ships one log's batches.
#[derive(Debug)]
pub(crate) struct Shipper {
    pub(crate) origin: Origin,
    pub(crate) spool: Spool,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: Arc<Kept>,
}

/// A batch's files on this disk.
pub(crate) struct Files<'a> {
    pub(crate) sealed: &'a seal::Seal,
    pub(crate) note: &'a [u8],
    /// Where its seal is.
    pub(crate) seal: PathBuf,
    /// Where a file is that the seal names.
    pub(crate) path: Box<dyn Fn(&str) -> PathBuf + 'a>,
}

/// Does `work` with the data files of a batch, then with its seal.
pub(crate) fn each(
    files: &Files<'_>,
    mut work: impl FnMut(&ObjectName, Source<'_>) -> Result<(), StoreError>,
) -> Result<(), ShipError> {
    let Files { sealed, note, seal, path } = files;
    let mut one = |name: &ObjectName, path: &Path, sha256: &schemas::Sha256Hex, length: u64| {
        work(name, Source { path, sha256, length, sealed_us: sealed.time })
    };
    for file in &sealed.files {
        let name = ObjectName::parse_file(&sealed.origin, &file.name)
            .map_err(|error| ShipError::Seal { batch: sealed.batch, detail: error.to_string() })?;
        one(&name, &path(&file.name), &file.sha256, file.length)?;
    }
    let name = ObjectName::Seal { origin: sealed.origin.clone(), batch: sealed.batch };
    one(&name, seal, &schemas::Sha256Hex::of(note), note.len() as u64)?;
    Ok(())
}

impl Shipper {
    /// Puts a batch: its data files, then its seal. Returns the position behind it.
    pub(crate) fn put(&self, batch: u64) -> Result<u64, ShipError> {
        self.each(batch, |name, source| self.store.put(name, source).map(|_| ()))
    }

    /// Has the store confirm a batch: only then it is archived. Returns the position behind it.
    pub(crate) fn read_back(&self, batch: u64) -> Result<u64, ShipError> {
        self.each(batch, |name, source| {
            let receipt = self.store.confirm(name, source)?;
            tracing::debug!(%name, version = ?receipt.version, retain_until_s = ?receipt.retain_until_s, "archived");
            Ok(())
        })
    }

    /// A batch is archived, and its files go, but for what is kept of it. Where the store gives no seal back those of the
    /// newest stay: a start needs the last seal to go on behind it.
    pub(crate) fn archived(&self, batch: u64) -> Result<(), ShipError> {
        self.kept.keep(&self.spool, batch);
        if self.store.gives_back() {
            return Ok(self.spool.remove(batch)?);
        }
        for older in self.spool.batches()?.into_iter().filter(|older| *older < batch) {
            self.spool.remove(older)?;
        }
        Ok(())
    }

    /// Does `work` with the data files of a batch, then with its seal.
    fn each(
        &self,
        batch: u64,
        work: impl Fn(&ObjectName, Source<'_>) -> Result<(), StoreError>,
    ) -> Result<u64, ShipError> {
        let note = self.spool.seal(batch)?;
        let sealed = self.read(batch, &note)?;
        let seal = self.spool.path(&sealed.object_name().file_name());
        let path = Box::new(|file: &str| self.spool.path(file));
        each(&Files { sealed: &sealed, note: &note, seal, path }, work)?;
        Ok(sealed.to)
    }

    fn read(&self, batch: u64, note: &[u8]) -> Result<seal::Seal, ShipError> {
        let sealed = seal::parse_unverified(note)
            .map_err(|error| ShipError::Seal { batch, detail: error.to_string() })?;
        if sealed.origin != self.origin || sealed.batch != batch {
            return Err(ShipError::Seal { batch, detail: "it is another batch's".into() });
        }
        Ok(sealed)
    }
}

/// Waits between tries: doubling, with jitter, so that many gateways do not come back at once.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure for this reason.
    pub(crate) fn failed_for(&mut self, trouble: Option<Trouble>) -> Duration {
        let wait = self.failed();
        if trouble.is_some_and(Trouble::needs_someone) { wait.max(SLOW_WAIT) } else { wait }
    }

    /// How long to wait after one more failure: between half of the step and the whole of it.
    pub(crate) fn failed(&mut self) -> Duration {
        let step = FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(MAX_WAIT);
        self.failures += 1;
        let mut random = [0; 1];
        // Without randomness the wait is just not spread.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
        step / 2 + step / 2 * u32::from(random[0]) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_long_where_someone_must_act() {
        let mut back_off = BackOff::default();
        let first = back_off.failed_for(Some(Trouble::Timeout));
        assert!((FIRST_WAIT / 2..=FIRST_WAIT).contains(&first), "{first:?}");
        for _ in 0..20 {
            assert!(back_off.failed_for(Some(Trouble::Throttled)) <= MAX_WAIT);
        }
        assert!(back_off.failed_for(Some(Trouble::Throttled)) >= MAX_WAIT / 2);
        back_off.succeeded();
        assert!(back_off.failed_for(Some(Trouble::Denied)) >= SLOW_WAIT);
    }
}
