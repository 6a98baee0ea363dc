//! `holds.lock`: who has it may change `holds.json`, or destroy what it does not name; no other process does so meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::HoldError;
use crate::disk::{self, DiskLock};
use crate::erase::Due;
use crate::inner::Inner;
use crate::ledger::LedgerConfig;

const NAME: &str = "holds.lock";
/// How long a command waits for another process: an erasure there may read the registry and write many records.
const WAIT: Duration = Duration::from_secs(180);
const STEP: Duration = Duration::from_millis(10);

/// Waits until no other process has it. An earlier erasure of this one may have kept it.
pub(crate) fn take(inner: &Inner, due: &Due) -> Result<Arc<dyn DiskLock>, HoldError> {
    if let Some(alone) = due.alone() {
        return Ok(alone);
    }
    let until = Instant::now() + WAIT;
    take_within(&inner.settings, || !inner.marks.finished() && Instant::now() < until).map(Arc::from)
}

/// Takes it where no other process has it. A recovery does not wait: it keeps others from starting meanwhile, and is tried again.
pub(crate) fn take_now(settings: &LedgerConfig) -> Result<Box<dyn DiskLock>, HoldError> {
    take_within(settings, || false)
}

fn take_within(settings: &LedgerConfig, may_wait: impl Fn() -> bool) -> Result<Box<dyn DiskLock>, HoldError> {
    let (disk, folder) = (&*settings.disk, &settings.key_table_dir);
    let path = folder.join(NAME);
    let failed = |what: String| HoldError::Failed(format!("`{}`: {what}", path.display()));
    disk::create_dir_all(disk, folder).map_err(|error| failed(error.to_string()))?;
    loop {
        if let Some(lock) = disk.lock(&path).map_err(|error| failed(error.to_string()))? {
            return Ok(lock);
        }
        if !may_wait() {
            return Err(failed("another process erases, or begins or ends a hold; ask again".into()));
        }
        std::thread::sleep(STEP);
    }
}

/// Takes it where nobody has it and it can be had.
pub(super) fn try_take(settings: &LedgerConfig) -> Option<Box<dyn DiskLock>> {
    let path = settings.key_table_dir.join(NAME);
    settings.disk.lock(&path).ok()?
}
