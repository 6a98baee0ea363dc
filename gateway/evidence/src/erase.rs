//! Erasure: `erasure` is recorded, then the data key is destroyed. The chain stays whole.

mod due;
mod elsewhere;
mod find;
pub(crate) mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use schemas::holds::{About, Sorted};
use schemas::record::{Body, CloseReason, Erasure, Heartbeat};
use schemas::{ExchangeId, Identifier, Origin};

pub(crate) use self::due::{Due, Left};
use self::elsewhere::Elsewhere;
use self::find::Facts;
use crate::disk::DiskLock;
use crate::error::{OpenError, Unavailable};
use crate::hold::{self, HoldError};
use crate::inner::Inner;
use crate::keys::{KeyError, KeyFolder, Looked};
use crate::ledger::{Ledger, LedgerConfig};

/// How long what is pending may take to be archived before anything is erased.
const ARCHIVE_WAIT: Duration = Duration::from_secs(120);
/// How long the short epoch of an offline erasure may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(120);

/// Whose content goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EraseTarget {
    /// These exchanges.
    Exchanges(Vec<ExchangeId>),
    /// All exchanges whose records name this subject (its keyed pseudonym or identifier, as in the records).
    Subject(Identifier),
}

/// What to erase, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseRequest {
    /// Whose content.
    pub target: EraseTarget,
    /// Erase what shares a key with it too.
    pub whole_key: bool,
    /// The operator's reason.
    pub reason: Identifier,
    /// Who asks.
    pub actor: Option<Identifier>,
}

/// One exchange whose content is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Erased {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Its log.
    pub origin: Origin,
    /// Position of its intent or refusal.
    pub position: u64,
    /// Its data key.
    pub content_key: Identifier,
}

/// What was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EraseReport {
    /// Exchanges whose key was destroyed by this request.
    pub erased: Vec<Erased>,
    /// Exchanges whose key was destroyed before.
    pub already: Vec<Erased>,
    /// Exchanges that keep no content under a key.
    pub without_content: Vec<ExchangeId>,
}

/// Why nothing (more) was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// No record of these exchanges, or of any exchange of the subject, is in the store.
    #[error("no record names {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NotFound(Vec<Identifier>),
    /// The exchanges still run; erase them after their outcome.
    #[error("{} exchanges have no outcome yet, the first is `{}`", .0.len(), .0.first().map_or("", ExchangeId::as_str))]
    Open(Vec<ExchangeId>),
    /// Their keys also hold the content of other exchanges.
    #[error("the keys also hold the content of {} other exchanges; `--whole-key` erases them too", .others.len())]
    Shared {
        /// What else would go.
        others: Vec<Erased>,
    },
    /// Legal holds cover them.
    #[error("{}; `gateway hold list` shows the holds; nothing was erased", told_of_held(.held))]
    Held {
        /// What is held, and by which holds.
        held: Vec<(Erased, Vec<Identifier>)>,
    },
    /// What is held is not known.
    #[error("{0}; nothing was erased")]
    Holds(#[from] HoldError),
    /// The `erasure` record could not be made durable; nothing was destroyed. Where the brokers have it after all the key goes then.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The store does not take or give what is needed, or a key could not be destroyed. Ask again: what was done
    /// stays done.
    #[error("{0}")]
    Failed(String),
    /// The short epoch could not be opened.
    #[error(transparent)]
    Epoch(#[from] Box<OpenError>),
}

fn told_of_held(held: &[(Erased, Vec<Identifier>)]) -> String {
    let names: BTreeSet<&str> = held.iter().flat_map(|(_, holds)| holds).map(Identifier::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let first = held.first().map_or("", |(erased, _)| erased.exchange.as_str());
    format!("under legal hold by {}: {} exchanges, the first is `{first}`", names.join(", "), held.len())
}

/// Which of `targets` legal holds cover, whatever the clock says: all that was said of holds was said before.
fn held<'a>(
    inner: &Inner,
    alone: &dyn DiskLock,
    targets: impl Iterator<Item = &'a Erased>,
    facts: &HashMap<ExchangeId, Facts>,
) -> Result<Vec<(Erased, Vec<Identifier>)>, EraseError> {
    let holds = hold::known(&inner.settings, Some(alone))?;
    if holds.is_empty() {
        return Ok(Vec::new());
    }
    let in_force = holds.scopes(&hold::now());
    let in_force = Sorted::new(in_force);
    let mut held = Vec::new();
    for target in targets {
        let known = facts.get(&target.exchange);
        let about = About {
            exchange: &target.exchange,
            subject: known.and_then(|facts| facts.subject.as_ref()),
            consumer: known.and_then(|facts| facts.consumer.as_ref()),
            at: known.map_or(0, |facts| facts.at),
        };
        let by: BTreeSet<&Identifier> = in_force.covering(&about).map(|said| &said.hold).collect();
        if !by.is_empty() {
            held.push((target.clone(), by.into_iter().cloned().collect()));
        }
    }
    held.sort();
    Ok(held)
}

/// Waits until the store has all up to `position`.
fn archived(inner: &Inner, position: u64) -> Result<(), EraseError> {
    inner.seal_soon();
    match inner.wait_archived_blocking(position, ARCHIVE_WAIT) {
        true => Ok(()),
        false => {
            Err(EraseError::Failed("what is journaled could not be archived; nothing was erased".into()))
        }
    }
}

/// From here on no exchange gets one of these keys, and the store has all that used one: who would lose its content is
/// found there.
fn retire(inner: &Inner, keys: &BTreeSet<Identifier>) -> Result<(), EraseError> {
    let Some(table) = &inner.keys else { return Ok(()) };
    let retired = table.retire(keys).map_err(|busy| {
        EraseError::Failed(format!("key `{busy}` is used by a running exchange; ask again"))
    })?;
    if !retired {
        return Ok(());
    }
    // Records are durable in the order in which they were submitted: behind this one is none under these keys.
    let heartbeat = Heartbeat { counters: (inner.settings.counters)() };
    let position = inner.append_blocking(Body::Heartbeat(heartbeat))?;
    archived(inner, position + 1)
}

pub(crate) fn erase(inner: &Inner, request: &EraseRequest) -> Result<EraseReport, EraseError> {
    let mut due = inner.erasing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let elsewhere = Elsewhere::of(inner)?;
    archived(inner, inner.journal.journaled())?;
    let keys = KeyFolder::new(inner.disk.clone(), &inner.settings.key_table_dir);
    let (found, elsewhere) = elsewhere::find(inner, &request.target, elsewhere)?;
    let mut facts = found.facts;
    let mut report = EraseReport { without_content: found.without_content, ..EraseReport::default() };
    let mut by_key: BTreeMap<Identifier, Vec<Erased>> = BTreeMap::new();
    for target in found.targets {
        match keys.look(&target.content_key) {
            Ok(Looked::Destroyed) => report.already.push(target),
            // A damaged slot may be one that was destroyed by halves: it is overwritten.
            _ => by_key.entry(target.content_key.clone()).or_default().push(target),
        }
    }
    // Who else uses a key of such a log cannot be told yet.
    let waiting = by_key.keys().filter(|key| elsewhere.has(key)).count();
    by_key.retain(|key, _| !elsewhere.has(key));
    let wanted: BTreeSet<ExchangeId> =
        by_key.values().flatten().map(|target| target.exchange.clone()).collect();
    let retired: BTreeSet<Identifier> = by_key.keys().cloned().collect();
    retire(inner, &retired)?;
    let users = find::users(inner, &retired)?;
    facts.extend(users.facts);
    let others: Vec<Erased> =
        users.targets.into_iter().filter(|user| !wanted.contains(&user.exchange)).collect();
    if !others.is_empty() {
        if !request.whole_key {
            return Err(EraseError::Shared { others });
        }
        for other in others {
            by_key.entry(other.content_key.clone()).or_default().push(other);
        }
    }
    // Until the keys are gone no hold begins, in this process or in another.
    let alone = hold::lock::take(inner, &due)?;
    let held = held(inner, &*alone, by_key.values().flatten(), &facts)?;
    if !held.is_empty() {
        return Err(EraseError::Held { held });
    }
    // From its record on a key is due: a crash, a full disk or a failing one only delays it.
    inner.marks.set_undone(Some(inner.journal.journaled()));
    for (key, of_key) in &by_key {
        let erasures = of_key.iter().map(|erased| Erasure {
            exchange: erased.exchange.clone(),
            origin: erased.origin.clone(),
            position: erased.position,
            content_key: erased.content_key.clone(),
            reason: request.reason.clone(),
            actor: request.actor.clone(),
        });
        // All that a key holds is recorded, or nothing of it and the key stays; after a crash recovery goes by the plan.
        if let Err((error, left)) = inner.append_erasures_blocking(&erasures.collect::<Vec<_>>()) {
            due.refused(key.clone(), left);
            due.keep(alone);
            // A key whose erasure is recorded goes, whatever became of the rest.
            destroy(inner, &mut due);
            return Err(error.into());
        }
        due.recorded(key.clone());
    }
    let failed = destroy(inner, &mut due);
    drop(alone);
    if let Some(error) = failed {
        return Err(EraseError::Failed(format!(
            "the erasure is recorded and will be tried again, but {error}"
        )));
    }
    report.erased = by_key.into_values().flatten().collect();
    report.erased.sort();
    if waiting > 0 || !elsewhere.is_empty() && matches!(request.target, EraseTarget::Subject(_)) {
        let done = report.erased.len();
        return Err(EraseError::Failed(format!("{done} exchanges are erased; {}", elsewhere.told())));
    }
    Ok(report)
}

/// Destroys the keys whose erasure is recorded; what fails stays due. What is undecided when another gateway closes the log is
/// left to that one. The last failure.
fn destroy(inner: &Inner, due: &mut Due) -> Option<KeyError> {
    let keys = KeyFolder::new(inner.disk.clone(), &inner.settings.key_table_dir);
    let failed = due.destroy(|id| keys.destroy(id));
    if inner.is_fenced() {
        due.leave_to_successor();
    }
    if due.is_done() {
        inner.marks.set_undone(None);
    }
    inner.marks.update(|marks| marks.erasures_due = due.len() as u64);
    failed
}

/// Why no hold may begin: nobody knows whether an erasure is recorded. What is known by now is done.
pub(crate) fn undecided(inner: &Inner, due: &mut Due) -> Option<&'static str> {
    if due.undecided().is_some() {
        destroy(inner, due);
    }
    due.undecided()
}

/// Tries again what an erasure could not destroy; whether nothing is left, here or for the next start. Does not wait for an erasure
/// that runs.
pub(crate) fn destroy_due(inner: &Inner) -> bool {
    let mut due = match inner.erasing.try_lock() {
        Ok(due) => due,
        Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(std::sync::TryLockError::WouldBlock) => return false,
    };
    if !due.is_done() {
        destroy(inner, &mut due);
    }
    due.is_done()
}

/// Erases where no gateway runs: in a short epoch of its own, which is closed on return.
///
/// # Errors
/// As [`Ledger::erase`], and where the epoch could not be opened or closed.
pub async fn erase_offline(settings: LedgerConfig, request: EraseRequest) -> Result<EraseReport, EraseError> {
    let opened = tokio::task::spawn_blocking(move || Ledger::open(settings)).await;
    let ledger = opened.map_err(|error| EraseError::Failed(error.to_string()))?.map_err(Box::new)?;
    let report = ledger.erase(request).await;
    let closed = ledger.drain_and_close(CloseReason::Shutdown, CLOSE_WAIT).await;
    let report = report?;
    closed?;
    Ok(report)
}
