//! Logs of this gateway that the store does not hold whole yet: another process writes them, or they wait for their
//! recovery. What is to be erased may be in one of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use schemas::Identifier;
use schemas::keytable::KeyId;

use super::{EraseError, EraseTarget};
use crate::epoch;
use crate::erase::find::{self, FoundTargets};
use crate::inner::Inner;

/// How long an erasure waits for them.
const WAIT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(100);

/// The epochs of such logs. Those that begin later do not count: an erasure is for what was there when it was asked for.
#[derive(Debug)]
pub(super) struct Elsewhere(BTreeSet<String>);

impl Elsewhere {
    pub(super) fn of(inner: &Inner) -> Result<Self, EraseError> {
        let folders = epoch::list(&*inner.disk, &inner.settings.journal_dir)
            .map_err(|error| EraseError::Failed(error.to_string()))?;
        let names = folders.iter().filter_map(|folder| folder.file_name()?.to_str().map(str::to_owned));
        Ok(Self(names.filter(|name| name != inner.origin.epoch()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` belongs to one of them.
    pub(super) fn has(&self, key: &Identifier) -> bool {
        KeyId::parse(key).is_ok_and(|id| self.0.contains(id.origin.epoch()))
    }

    /// Forgets those that are whole in the store by now.
    fn look_again(&mut self, inner: &Inner) -> Result<(), EraseError> {
        let now = Self::of(inner)?;
        self.0.retain(|epoch| now.0.contains(epoch));
        Ok(())
    }

    /// For an operator.
    pub(super) fn told(&self) -> String {
        let epochs: Vec<&str> = self.0.iter().map(String::as_str).collect();
        format!(
            "the log {} of this gateway is not whole in the store yet: another process still writes it, or it waits for its recovery; ask again when it is",
            epochs.join(", ")
        )
    }
}

/// Finds what is to be erased, once all that may hold any of it is in the store; what is still elsewhere after a while
/// is named.
pub(super) fn find(
    inner: &Inner,
    target: &EraseTarget,
    mut elsewhere: Elsewhere,
) -> Result<(FoundTargets, Elsewhere), EraseError> {
    let until = Instant::now() + WAIT;
    loop {
        let found = find::find(inner, target);
        let concerned = match (&found, target) {
            _ if elsewhere.is_empty() => false,
            (Ok(_), EraseTarget::Subject(_)) => true,
            (Ok(found), EraseTarget::Exchanges(_)) => {
                found.targets.iter().any(|target| elsewhere.has(&target.content_key))
            }
            (Err(EraseError::NotFound(_)), _) => true,
            (Err(_), _) => false,
        };
        if !concerned {
            return Ok((found?, elsewhere));
        }
        let before = elsewhere.0.len();
        while elsewhere.0.len() == before && Instant::now() < until && !inner.marks.finished() {
            std::thread::sleep(STEP);
            elsewhere.look_again(inner)?;
        }
        if elsewhere.0.len() == before {
            let found =
                found.map_err(|error| EraseError::Failed(format!("{error}; {}", elsewhere.told())))?;
            return Ok((found, elsewhere));
        }
    }
}
