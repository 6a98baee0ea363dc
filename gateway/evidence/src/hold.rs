//! Legal holds: what one covers is not erased, until it is released.
//!
//! A hold is recorded in the log (`hold`), and kept in `holds.json` beside the keys that it keeps: whoever destroys keys of
//! this table reads it first. The file is written before the record of a beginning and behind that of an end, so that a
//! crash in between leaves content held rather than not; the same command again makes it good. Of several processes with
//! one key table one at a time reads and writes it, or destroys keys after it read it (`holds.lock`). Holds that other gateways
//! recorded are known through the registry ([`others`]), where the configuration names its key. Format:
//! `schemas/FORMAT.md` 3.11.

mod file;
pub(crate) mod lock;
mod others;

use std::collections::BTreeSet;
use std::time::Duration;

use schemas::holds::{Holds, Moment, Said, Scope};
use schemas::record::{Body, CloseReason, Hold};
use schemas::{Identifier, Origin};

pub use others::RegistryKey;

use crate::disk::DiskLock;
use crate::erase;
use crate::error::{OpenError, Unavailable};
use crate::inner::Inner;
use crate::ledger::{Ledger, LedgerConfig};
use file::HoldFile;

/// How long a hold waits until it is in the store, where others can see it. It is in force here before.
const ARCHIVE_WAIT: Duration = Duration::from_secs(30);
/// How long the short epoch of an offline hold may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(120);

/// The most scopes that one request begins; a hold takes any number of requests.
pub const MAX_SCOPES: usize = 10_000;

/// What is to be done to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldAsked {
    /// It begins, or covers these too: at least one, and at most [`MAX_SCOPES`].
    Begin(Vec<Scope>),
    /// It ends whole.
    End,
}

/// A hold is to begin or to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    /// The hold's name.
    pub hold: Identifier,
    /// What is to be done.
    pub asked: HoldAsked,
    /// The operator's reason.
    pub reason: Identifier,
    /// Who asks.
    pub actor: Option<Identifier>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldReport {
    /// How many records say so.
    pub records: u64,
    /// Whether they are in the store already, where other gateways and auditors can see them.
    pub archived: bool,
}

/// Why a hold was not begun or ended, or is not known.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Nothing is under a hold of this name.
    #[error("no hold `{0}` is in force")]
    Unknown(Identifier),
    /// There is nothing to hold, or too much at once; nothing was done.
    #[error("{0} scopes in one request: wanted 1 to {max}; several requests make one hold, each lets it cover more", max = MAX_SCOPES)]
    Scopes(usize),
    /// What was said of the hold before has a later time than the record would have: whoever orders them by it would not let it count.
    #[error("{}", out_of_order(.hold, *.begins, *.now, *.of))]
    OutOfOrder {
        /// The hold.
        hold: Identifier,
        /// Whether it was to begin.
        begins: bool,
        /// The time here.
        now: i64,
        /// The time of what was said before.
        of: i64,
    },
    /// The record could not be made durable. A hold that was to begin is in force here all the same.
    #[error(
        "{0}; where the hold was to begin it is in force here, and not recorded yet: give the command again"
    )]
    Unavailable(#[from] Unavailable),
    /// The file of holds, or the registry, cannot be read or written.
    #[error("{0}")]
    Failed(String),
    /// The short epoch could not be opened.
    #[error(transparent)]
    Epoch(#[from] Box<OpenError>),
}

fn out_of_order(hold: &Identifier, begins: bool, now: i64, of: i64) -> String {
    let time =
        |us: i64| jiff::Timestamp::from_microsecond(us).map_or(us.to_string(), |time| time.to_string());
    let (what, wanted) = match begins {
        true => ("the release", "a later time or another case"),
        false => ("a beginning", "a later time"),
    };
    let (now, of) = (time(now), time(of));
    format!(
        "this gateway's clock says {now}, {what} of `{hold}` is of {of}: wanted {wanted}; nothing was done"
    )
}

/// A moment after all that was said so far.
pub(crate) fn now() -> Moment {
    Moment::at(i64::MAX)
}

fn file_of(settings: &LedgerConfig) -> HoldFile {
    HoldFile::new(settings.disk.clone(), &settings.key_table_dir)
}

/// All that is known of holds: what was said here, and, where the registry's key is configured, by other gateways. How far that
/// was read is kept by `alone`, whoever has the lock.
///
/// # Errors
/// The file or the registry cannot be read: what is held is not known then.
pub(crate) fn known(settings: &LedgerConfig, alone: Option<&dyn DiskLock>) -> Result<Holds, HoldError> {
    let mut holds = Holds::default();
    let said = file_of(settings).read()?;
    said.into_iter().chain(others::read_on(settings, alone)?).for_each(|said| holds.add(said));
    Ok(holds)
}

/// Begins or ends a hold. On return it is recorded on stable storage.
pub(crate) fn hold(inner: &Inner, request: &HoldRequest) -> Result<HoldReport, HoldError> {
    // Nothing is erased meanwhile: an erasure that runs goes first.
    let mut erasing = inner.erasing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if matches!(request.asked, HoldAsked::Begin(_))
        && let Some(why) = erase::undecided(inner, &mut erasing)
    {
        return Err(HoldError::Failed(why.to_owned()));
    }
    // Nor by another process, and none of what another one says is lost.
    let alone = lock::take(inner, &erasing)?;
    let records = match &request.asked {
        HoldAsked::Begin(scopes) => begin(inner, &*alone, request, scopes)?,
        HoldAsked::End => end(inner, &*alone, request)?,
    };
    drop(alone);
    drop(erasing);
    let journaled = inner.journal.journaled();
    inner.seal_soon();
    let archived = inner.wait_archived_blocking(journaled, ARCHIVE_WAIT);
    Ok(HoldReport { records, archived })
}

/// The moment of a record that is made now: by its log's order it is behind all that the log says.
fn here(inner: &Inner) -> Moment {
    Moment { at: inner.clock.now_us(), place: Some((inner.origin.clone(), u64::MAX)) }
}

/// Refuses what would not count for others.
fn in_order(holds: &Holds, request: &HoldRequest, begins: bool, moment: &Moment) -> Result<(), HoldError> {
    let Some(later) = holds.outruns(&request.hold, begins, moment) else { return Ok(()) };
    Err(HoldError::OutOfOrder { hold: request.hold.clone(), begins, now: moment.at, of: later.at })
}

fn begin(
    inner: &Inner,
    alone: &dyn DiskLock,
    request: &HoldRequest,
    scopes: &[Scope],
) -> Result<u64, HoldError> {
    // Each once, whatever was given twice.
    let scopes: BTreeSet<&Scope> = scopes.iter().collect();
    if scopes.is_empty() || scopes.len() > MAX_SCOPES {
        return Err(HoldError::Scopes(scopes.len()));
    }
    let file = file_of(&inner.settings);
    let mut said = file.read()?;
    let known = known(&inner.settings, Some(alone));
    let moment = here(inner);
    if let Ok(holds) = &known {
        in_order(holds, request, true, &moment)?;
    }
    // What an earlier try left unrecorded is said anew.
    let again =
        |one: &Said| one.moment.place.is_none() && one.hold == request.hold && scopes.contains(&one.scope);
    said.retain(|one| !again(one));
    let before = said.len();
    // As long as it has no place, behind all that was said here, also where the clock was set back.
    let last = said.iter().map(|one| one.moment.at).max();
    let unrecorded = last.map_or(moment.at, |last| moment.at.max(last.saturating_add(1)));
    said.extend(scopes.iter().map(|scope| Said {
        hold: request.hold.clone(),
        begins: true,
        scope: (*scope).clone(),
        moment: Moment::at(unrecorded),
        reason: Some(request.reason.clone()),
        actor: request.actor.clone(),
    }));
    // From here on it is in force.
    file.write_more(&said)?;
    // Whether it would count for others cannot be told: nothing is claimed to be held.
    known.map_err(|error| {
        HoldError::Failed(format!(
            "{error}; the hold is in force here, and not recorded yet: give the command again"
        ))
    })?;
    let records: Result<Vec<Body>, HoldError> =
        scopes.iter().map(|scope| Ok(Body::Hold(record(request, "begin", scope)?))).collect();
    // Not before what other records of this log said meanwhile.
    let at = moment.at.max(here(inner).at);
    let positions = inner.append_all_at_blocking(at, &records?)?;
    for (one, position) in said.iter_mut().skip(before).zip(positions) {
        one.moment = Moment { at, place: Some((inner.origin.clone(), position)) };
    }
    file.write(&said)?;
    Ok(scopes.len() as u64)
}

fn end(inner: &Inner, alone: &dyn DiskLock, request: &HoldRequest) -> Result<u64, HoldError> {
    let holds = known(&inner.settings, Some(alone))?;
    if holds.in_force(&request.hold, &now()).next().is_none() {
        return Err(HoldError::Unknown(request.hold.clone()));
    }
    let moment = here(inner);
    in_order(&holds, request, false, &moment)?;
    let file = file_of(&inner.settings);
    let mut said = file.read()?;
    let scope = Scope::default();
    let position = inner.append_at_blocking(moment.at, Body::Hold(record(request, "end", &scope)?))?;
    // A beginning that was never recorded has nothing that its end could be held against.
    said.retain(|one| one.moment.place.is_some() || one.hold != request.hold);
    said.push(Said {
        hold: request.hold.clone(),
        begins: false,
        scope,
        moment: Moment { place: Some((inner.origin.clone(), position)), ..moment },
        reason: Some(request.reason.clone()),
        actor: request.actor.clone(),
    });
    file.write(&said)?;
    Ok(1)
}

fn record(request: &HoldRequest, phase: &str, scope: &Scope) -> Result<Hold, HoldError> {
    let phase = Identifier::new(phase).map_err(|error| HoldError::Failed(error.to_string()))?;
    let (hold, reason, actor) = (request.hold.clone(), Some(request.reason.clone()), request.actor.clone());
    Ok(Hold { hold, phase, reason, actor, scope: scope.clone() })
}

/// A beginning that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was said.
    pub said: Said,
    /// The log that says so; `None` where a crash came before its record.
    pub origin: Option<Origin>,
}

/// All that is held at present. Waits for nobody who begins or ends a hold, or erases.
///
/// # Errors
/// What is held is not known.
pub fn held(settings: &LedgerConfig) -> Result<Vec<Held>, HoldError> {
    let alone = lock::try_take(settings);
    let holds = known(settings, alone.as_deref())?;
    let held = |said: &Said| Held {
        said: said.clone(),
        origin: said.moment.place.as_ref().map(|(origin, _)| origin.clone()),
    };
    Ok(holds.scopes(&now()).into_iter().map(held).collect())
}

/// Begins or ends a hold where no gateway runs: in a short epoch of its own, which is closed on return.
///
/// # Errors
/// As [`Ledger::hold`], and where the epoch could not be opened or closed.
pub async fn hold_offline(settings: LedgerConfig, request: HoldRequest) -> Result<HoldReport, HoldError> {
    let opened = tokio::task::spawn_blocking(move || Ledger::open(settings)).await;
    let ledger = opened.map_err(|error| HoldError::Failed(error.to_string()))?.map_err(Box::new)?;
    let report = ledger.hold(request).await;
    let closed = ledger.drain_and_close(CloseReason::Shutdown, CLOSE_WAIT).await;
    let report = report?;
    closed?;
    Ok(report)
}
