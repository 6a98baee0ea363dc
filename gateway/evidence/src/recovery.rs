//! What follows from what a dead process left: its log is completed, closed, sealed and shipped.
//!
//! Recovery's own records go to the file `recovery` first, durable before any of them is sealed; a repeat takes that
//! file as it stands, so that a recovery that dies and starts again seals the same records. Where the log is committed to
//! Kafka too, they are agreed on in the topic, so that a recovery on another disk seals the same ones.

mod erasures;
mod file;
mod signing;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use schemas::content::{Committer, Salt};
use schemas::holds::CLOCKS_APART_US;
use schemas::merkle::CompactRange;
use schemas::note::Ed25519Signer;
use schemas::record::{
    Admin, Body, Close, CloseReason, End, Erasure, Gap, GapReason, Intent, Part, PartName, Record, VERSION,
};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

use self::survey::Survey;
use crate::attempts::Attempts;
use crate::cipher::{self, SALT_BYTES};
use crate::commit::Ending;
use crate::disk::{self, DiskLock, SharedDisk};
use crate::epoch;
use crate::error::OpenError;
use crate::exchange::cut_outcome;
use crate::hold;
use crate::journal::{self, Recovery, Segments, Tail};
use crate::kept::Kept;
use crate::keys::{KeyCache, KeyFolder, Looked};
use crate::ledger::LedgerConfig;
use crate::sealer::{Sealer, SealerParts, SealingError, Slim};
use crate::ship::{ShipError, Shipper};
use crate::space;
use crate::spool::{self, Spool};
use crate::stop::Stop;
use crate::tip::{self, Ours, Standing, TipError};
use crate::unrecorded;

/// What became of an epoch's folder.
#[derive(Debug)]
pub(crate) enum Recovered {
    /// Nothing was ever taken into it.
    Nothing,
    /// Its log is closed and sealed; `archived` where all of it is in the store too. `follows` is the log that its
    /// `boot` names, where that is still in the journal.
    Closed { origin: Origin, tree: Box<CompactRange>, archived: bool, follows: Option<Origin> },
    /// Its log was stopped and its disk is kept: someone must look.
    Stuck { origin: Origin, why: String, follows: Option<Origin> },
}

/// Recovers the epoch in `folder`, whose lock the caller holds.
pub(crate) fn recover(
    settings: &LedgerConfig,
    signer: &Arc<Ed25519Signer>,
    folder: &Path,
) -> Result<Recovered, OpenError> {
    let mark = folder.join(epoch::SALVAGED);
    if settings.disk.entry(&mark).map_err(OpenError::io("look at", &mark))?.is_some() {
        return Err(OpenError::Salvaged(folder.display().to_string()));
    }
    recover_as(settings, signer, folder, CloseReason::Crash)
}

/// As [`recover`], also of a folder with the mark `salvaged`.
pub(crate) fn recover_as(
    settings: &LedgerConfig,
    signer: &Arc<Ed25519Signer>,
    folder: &Path,
    reason: CloseReason,
) -> Result<Recovered, OpenError> {
    let disk = settings.disk.clone();
    if let Some(name) = folder.file_name().and_then(|name| name.to_str()) {
        space::free(&*disk, &settings.spool_dir, name)
            .map_err(OpenError::io("clean", &settings.spool_dir))?;
    }
    let mut survey = Survey::default();
    let recovery = journal::recover(disk.clone(), folder, &mut |found| survey.visit(found))
        .map_err(|error| OpenError::Journal(format!("`{}`: {error}", folder.display())))?;
    let Some(recovery) = recovery else { return nothing(settings, folder) };
    let salvages = reason == CloseReason::Salvaged;
    if recovery.positions.end == 0 && recovery.losses.is_empty() {
        // Not even `boot` was acknowledged: there is no log.
        if !salvages {
            recovery.segments.remove_all().map_err(OpenError::io("remove", folder))?;
        }
        return nothing(settings, folder);
    }
    let origin = recovery.origin.clone();
    tracing::info!(%origin, from = recovery.positions.start, to = recovery.positions.end, tail = ?recovery.tail, losses = recovery.losses.len(), "an earlier epoch is recovered");
    let follows = survey.follows.clone();
    let stuck =
        |why: String| Ok(Recovered::Stuck { origin: origin.clone(), why, follows: survey.follows.clone() });
    let spool = Spool::open(disk.clone(), &settings.spool_dir, &origin)
        .map_err(OpenError::io("open", &settings.spool_dir))?
        .tapped(settings.tap.as_ref().map(|_| crate::tap::folder(&settings.spool_dir, origin.epoch())));
    spool.clean().map_err(OpenError::io("clean", &settings.spool_dir))?;
    let hands = match signing::hands(settings, signer, &origin, survey.seal_key.as_deref(), &spool)? {
        Ok(hands) => hands,
        Err(why) => return stuck(why),
    };
    let ending = Ending::of(settings, &origin, folder)?;
    if let Some(ending) = &ending
        && let Some(first) = ending.first()?
    {
        // Another recovery of this log was before this one, whatever this disk holds.
        file::put(&*disk, folder, &first)?;
    }
    let mut extra = file::read(&*disk, folder, &origin)?;
    let (standing, beyond) = match stand(settings, &hands.keys, &recovery, &spool, extra.as_ref()) {
        Ok(found) => found,
        Err(TipError::Disagrees { batch, what }) => return stuck(format!("batch {batch}: {what}")),
        Err(TipError::Store(error)) if error.is_transient() => {
            return Err(OpenError::StoreAway(error));
        }
        Err(error) => return Err(OpenError::Store(error.to_string())),
    };
    let sealed = standing.tip.tree.size();
    if extra.is_none() {
        if sealed > recovery.positions.end {
            if !standing.closed {
                return stuck(format!(
                    "the store has {sealed} records, the journal {}",
                    recovery.positions.end
                ));
            }
            // Everything that is here was completed by another recovery of the same journal; of the keys it had a copy. What it did
            // not record, for a hold that it knew of, keeps its key here too.
            tracing::warn!(%origin, "the log was closed by another recovery of a copy of its journal");
            let erased = survey.erasures.whole(&beyond, |key| is_gone(settings, key));
            if !redo_erasures(settings, &erased) {
                let tree = Box::new(standing.tip.tree);
                return Ok(Recovered::Closed { origin, tree, archived: false, follows });
            }
            return finish(settings, &recovery, spool, standing, follows, salvages, None);
        }
        extra = Some(complete(settings, &recovery, (&survey, &beyond), sealed, folder, reason)?);
    }
    let mut extra = extra.unwrap_or_default();
    if let Some(ending) = ending.filter(|_| !extra.is_empty()) {
        extra = agree(&*disk, folder, &origin, &ending)?.unwrap_or_default();
    }
    let end = extra
        .last_key_value()
        .map_or(recovery.positions.end, |(last, _)| recovery.positions.end.max(last + 1));
    if let Some((at, leaf)) = extra.last_key_value()
        && at + 1 < recovery.positions.end
        && Slim::read(leaf).is_ok_and(|slim| slim.kind == "close")
    {
        return stuck(format!(
            "another recovery closed it at position {at}, and this journal has {} records",
            recovery.positions.end
        ));
    }
    if sealed > end {
        return stuck(format!("the store has {sealed} records, journal and recovery {end}"));
    }
    let mut stands = beyond;
    stands.extend(extra.iter().map(|(position, leaf)| (*position, leaf.clone())));
    let erased = survey.erasures.whole(&stands, |key| is_gone(settings, key));
    forget_sealed(&recovery.segments, recovery.positions.start..sealed.min(recovery.positions.end));
    let mut sealer = Sealer::new(SealerParts {
        origin: origin.clone(),
        signer: hands.signer,
        clock: settings.clock.clone(),
        segments: recovery.segments.clone(),
        extra,
        keys: KeyCache::new(KeyFolder::new(disk, &settings.key_table_dir)),
        spool: spool.clone(),
        tip: standing.tip,
        batch_bytes: settings.batch_bytes,
        lenient: !recovery.losses.is_empty(),
    });
    loop {
        settings.stop.check()?;
        match sealer.seal(end) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) if error.is_transient() => {
                return Err(OpenError::Journal(format!("log `{origin}` cannot be sealed: {error}")));
            }
            Err(error) => return stuck(format!("it cannot be sealed: {error}")),
        }
    }
    let standing = Standing { tip: sealer.tip.clone(), closed: true };
    if !redo_erasures(settings, &erased) {
        // The journal stays, and with it the erasures: the next look tries again.
        let tree = Box::new(standing.tip.tree);
        return Ok(Recovered::Closed { origin, tree, archived: false, follows });
    }
    // What passed behind `close` is the next log's to tell.
    let passed = if survey.closed && !salvages { untold(&*settings.disk, folder, &survey)? } else { None };
    finish(settings, &recovery, spool, standing, follows, salvages, passed)
}

/// A process that died before its first record left a folder in the spool, and nothing in it.
fn nothing(settings: &LedgerConfig, folder: &Path) -> Result<Recovered, OpenError> {
    if let Some(epoch) = folder.file_name() {
        spool::remove_empty(&*settings.disk, &settings.spool_dir.join(epoch))
            .map_err(OpenError::io("clean", &settings.spool_dir))?;
    }
    Ok(Recovered::Nothing)
}

/// Makes the file `recovery` what counts for whoever recovers this log, and reads it.
fn agree(
    disk: &dyn disk::Disk,
    folder: &Path,
    origin: &Origin,
    ending: &Ending<'_>,
) -> Result<Option<BTreeMap<u64, Bytes>>, OpenError> {
    let ours = file::bytes(disk, folder)?.unwrap_or_default();
    let first = ending.agree_on(&ours)?;
    if first != ours {
        tracing::warn!(%origin, "another recovery of this log was faster: its last records count");
        file::put(disk, folder, &first)?;
    }
    ending.agreed()?;
    file::read(disk, folder, origin)
}

/// How much passed unrecorded that no record in the journal tells of; `None`: nothing.
fn untold(disk: &dyn disk::Disk, folder: &Path, survey: &Survey) -> Result<Option<Option<u64>>, OpenError> {
    let Some(kept) = unrecorded::read(disk, folder)? else { return Ok(None) };
    let told: u64 = survey.unrecorded.iter().filter(|(at, _)| *at >= kept.from).map(|(_, count)| count).sum();
    Ok(match kept.count.map(|count| count.saturating_sub(told)) {
        Some(0) => None,
        count => Some(count),
    })
}

/// Where spool and store stand, held against journal and recovery file; and the `erasure` records that they have and these do not:
/// behind the journal's end, or where it is damaged.
fn stand(
    settings: &LedgerConfig,
    keys: &[[u8; 32]],
    recovery: &Recovery,
    spool: &Spool,
    extra: Option<&BTreeMap<u64, Bytes>>,
) -> Result<(Standing, BTreeMap<u64, Bytes>), TipError> {
    let mut known = |position: u64| -> Option<Sha256Hex> {
        if let Some(leaf) = extra.and_then(|extra| extra.get(&position)) {
            return Some(schemas::leaf::hash(leaf));
        }
        recovery.segments.records(position..position + 1).next()?.ok().map(|(_, _, hash)| hash)
    };
    let mut beyond = BTreeMap::new();
    let mut more = |position: u64, leaf: &[u8]| {
        if Slim::read(leaf).is_ok_and(|slim| slim.kind == "erasure") {
            beyond.insert(position, Bytes::copy_from_slice(leaf));
        }
    };
    let ours = Ours { from: recovery.positions.start, hash: &mut known, more: &mut more };
    let standing = tip::find(&recovery.origin, keys, &*settings.store, spool, ours)?;
    Ok((standing, beyond))
}

/// Content of what is sealed already is not needed again.
fn forget_sealed(segments: &Arc<Segments>, sealed: std::ops::Range<u64>) {
    let mut done: Vec<(u64, Vec<(schemas::ExchangeId, PartName)>)> = Vec::new();
    for (position, leaf, _) in segments.records(sealed).flatten() {
        if let Ok(Slim { exchange: Some(exchange), parts, .. }) = Slim::read(&leaf) {
            done.push((position, parts.iter().map(|part| (exchange.clone(), part.part)).collect()));
        }
    }
    for (position, parts) in done {
        segments.sealed(position + 1, &parts);
    }
}

/// Erasures with their times, and what keeps holds from beginning.
type Lacking = (Vec<(i64, Erasure)>, Option<Box<dyn DiskLock>>);

/// The erasures that lack in the log, but for those that a legal hold keeps, or may keep, which began since they were asked for: what
/// it knew then was asked then. No hold begins as long as what is given back is kept.
fn lacking(
    settings: &LedgerConfig,
    survey: &Survey,
    beyond: &BTreeMap<u64, Bytes>,
) -> Result<Lacking, OpenError> {
    if survey.erasures.lacking(beyond, |_, _| false).is_empty() {
        return Ok((Vec::new(), None));
    }
    // What is left out now is left out for good: who has the lock is waited for, by trying again.
    let alone = hold::lock::take_now(settings).map_err(|error| OpenError::HoldsLocked(error.to_string()))?;
    let holds = match hold::known(settings, Some(&*alone)) {
        Ok(holds) => holds,
        Err(error) => {
            tracing::error!(%error, "what is held is not known: an erasure that was recorded in part stays so; erase again");
            return Ok((Vec::new(), None));
        }
    };
    let in_force = holds.scopes(&hold::now());
    let by_id: BTreeSet<&ExchangeId> =
        in_force.iter().filter_map(|said| said.scope.exchange.as_ref()).collect();
    // Whom an exchange was of is not in the plan.
    let wide = in_force.iter().filter(|said| said.scope.exchange.is_none()).map(|said| said.moment.at).max();
    let is_held = |erasure: &Erasure, at: i64| {
        by_id.contains(&erasure.exchange)
            || wide.is_some_and(|wide| wide >= at.saturating_sub(CLOCKS_APART_US))
    };
    Ok((survey.erasures.lacking(beyond, is_held), Some(alone)))
}

/// Makes the records that the log lacks, and puts them into the file `recovery`.
fn complete(
    settings: &LedgerConfig,
    recovery: &Recovery,
    (survey, beyond): (&Survey, &BTreeMap<u64, Bytes>),
    sealed: u64,
    folder: &Path,
    reason: CloseReason,
) -> Result<BTreeMap<u64, Bytes>, OpenError> {
    let origin = &recovery.origin;
    let mut extra = BTreeMap::new();
    let config = survey.config.unwrap_or_else(|| settings.config.sha256());
    let now = settings.clock.now_us();
    let mut next = recovery.positions.end;
    let mut put_at = |position: u64, at: i64, body: Body| -> Result<(), OpenError> {
        let record = Record { v: VERSION, at, config, body };
        let leaf = schemas::leaf::encode(&record).map_err(|error| OpenError::Format(error.to_string()))?;
        extra.insert(position, leaf.into());
        Ok(())
    };
    // First, since they are as old as those that are there.
    let (lacking, _alone) =
        if survey.closed { (Vec::new(), None) } else { lacking(settings, survey, beyond)? };
    if !lacking.is_empty() {
        tracing::warn!(%origin, records = lacking.len(), "an erasure was recorded in part: the rest of it is recorded");
    }
    for (at, erasure) in lacking {
        // Behind a loss that was accepted others may have come since.
        put_at(next, at.max(survey.last_at), Body::Erasure(erasure))?;
        next += 1;
    }
    let mut put = |position: u64, body: Body| put_at(position, now, body);
    let mut ends = Vec::new();
    for loss in &recovery.losses {
        let lost = loss.positions.start.max(sealed)..loss.positions.end;
        if loss.positions.end <= sealed && (!loss.positions.is_empty() || loss.bytes == 0) {
            continue;
        }
        if !settings.accept_loss {
            return Err(OpenError::Loss {
                origin: origin.to_string(),
                folder: folder.display().to_string(),
                detail: format!(
                    "positions {}..{}, `{}` at byte {}, {} bytes",
                    loss.positions.start, loss.positions.end, loss.file, loss.offset, loss.bytes
                ),
            });
        }
        tracing::error!(%origin, ?loss, "a loss is accepted and recorded");
        let mut bytes = Some(loss.bytes);
        if lost.is_empty() {
            ends.push(Body::Gap(Gap { reason: GapReason::Loss, count: None, bytes }));
        }
        // Each lost position gets a record that says so: what follows keeps its own.
        for position in lost {
            put(position, Body::Gap(Gap { reason: GapReason::Loss, count: Some(1), bytes: bytes.take() }))?;
        }
    }
    if let Tail::Torn { bytes } = recovery.tail {
        ends.push(Body::Gap(Gap { reason: GapReason::TornTail, count: None, bytes: Some(bytes) }));
    }
    let mut keys = KeyCache::new(KeyFolder::new(settings.disk.clone(), &settings.key_table_dir));
    for (position, intent) in &survey.open {
        let tried = survey.attempts.get(position);
        ends.push(interrupted(&recovery.segments, origin, &mut keys, (*position, intent), tried));
    }
    if survey.closed {
        // Nothing comes behind `close`: what was behind it was told to nobody, or is damaged content whose record
        // stands, and says so.
        for body in ends.drain(..) {
            tracing::error!(%origin, kind = body.kind(), "the log is closed; this is not recorded behind its `close`");
        }
    } else {
        if let Some(count) = untold(&*settings.disk, folder, survey)? {
            ends.push(unrecorded::gap(count));
        }
        let lost = recovery.losses.iter().any(|loss| loss.positions.end > sealed);
        for (action, done) in [("loss_accepted", lost), ("salvaged", reason == CloseReason::Salvaged)] {
            if done {
                let action = Identifier::new(action).map_err(|error| OpenError::Format(error.to_string()))?;
                let object = Identifier::new(origin.to_string()).ok();
                ends.push(Body::Admin(Admin { action, actor: settings.operator.clone(), object }));
            }
        }
        let alive_until = recovery.last_time_us.unwrap_or(now).max(survey.last_at);
        ends.push(Body::Close(Close { reason, successor: None, alive_until, counters: BTreeMap::new() }));
    }
    for body in ends {
        put(next, body)?;
        next += 1;
    }
    if !extra.is_empty() {
        file::write(&*settings.disk, folder, origin, &extra)?;
    }
    Ok(extra)
}

/// The outcome of an exchange that the dead process left open, with the content that is found.
fn interrupted(
    segments: &Arc<Segments>,
    origin: &Origin,
    keys: &mut KeyCache,
    (position, intent): (u64, &Intent),
    tried: Option<&(Attempts, BTreeSet<PartName>)>,
) -> Body {
    let untried = (Attempts::default(), BTreeSet::new());
    let (attempts, named) = tried.unwrap_or(&untried);
    let mut committed: BTreeSet<PartName> = intent.parts.iter().map(|part| part.part).collect();
    committed.extend(named);
    let mut parts = Vec::new();
    let mut delivered = 0;
    for (part, summary) in segments.parts(&intent.exchange) {
        delivered = delivered.max(summary.delivered);
        // What an attempt sends is nobody's but its opening's, and that is not in the journal: nothing was sent.
        if committed.contains(&part) || !attempts.leaves(part) {
            continue;
        }
        match found_part(segments, origin, keys, &intent.exchange, part, summary.key_id.as_ref()) {
            Ok(Some(found)) => parts.push(found),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%origin, position, ?part, %error, "content of an interrupted exchange cannot be read");
            }
        }
    }
    parts.sort_by_key(|part| part.part);
    let mut outcome = cut_outcome(intent.clone(), position, End::Interrupted, parts, delivered);
    if let Err(error) = attempts.tell(&mut outcome) {
        tracing::error!(%origin, position, %error, "an interrupted exchange tells of its first dispatch");
    }
    Body::Outcome(outcome)
}

/// Commits to what is found of a part.
fn found_part(
    segments: &Arc<Segments>,
    origin: &Origin,
    keys: &mut KeyCache,
    exchange: &schemas::ExchangeId,
    part: PartName,
    key: Option<&Identifier>,
) -> Result<Option<Part>, SealingError> {
    let key = match key {
        None => None,
        Some(id) => match keys.key(id)? {
            Some(key) => Some(key),
            None => return Ok(None),
        },
    };
    let mut committer: Option<Committer> = None;
    for (frame, seq) in segments.content(exchange, part).zip(0..) {
        let frame = frame?;
        if frame.seq != seq {
            // A hole: what is behind it is not the continuation.
            break;
        }
        let plain = cipher::open(key.as_deref().map(|key| &key.frame), origin, &frame)
            .map_err(|error| SealingError::Content { position: 0, what: error.to_string() })?;
        match &mut committer {
            Some(committer) => committer.update(&plain),
            None => {
                let Some((salt, rest)) = plain.split_first_chunk::<SALT_BYTES>() else { return Ok(None) };
                let mut begun = Committer::new(&Salt::from_bytes(*salt));
                begun.update(rest);
                committer = Some(begun);
            }
        }
    }
    Ok(committer.map(|committer| {
        let (length, commitment) = committer.finish();
        Part { part, media_type: None, content_encoding: None, length, commitment, kept: None }
    }))
}

fn is_gone(settings: &LedgerConfig, key: &Identifier) -> bool {
    let keys = KeyFolder::new(settings.disk.clone(), &settings.key_table_dir);
    matches!(keys.look(key), Ok(Looked::Destroyed))
}

/// Destroys the keys of erasures that are recorded: the dead process may not have come to it. Whether all are gone.
fn redo_erasures(settings: &LedgerConfig, erasures: &BTreeSet<Identifier>) -> bool {
    let keys = KeyFolder::new(settings.disk.clone(), &settings.key_table_dir);
    let mut all = true;
    for id in erasures {
        if let Err(error) = keys.destroy(id) {
            tracing::error!(%error, "an erasure is recorded and its key could not be destroyed");
            all = false;
        }
    }
    all
}

/// Ships what is in the spool and, where all of it is archived, removes journal and spool. `keeps` the journal of a dead
/// host: that is for its operator to remove. What `passed` unrecorded is left for the next log only then: the folder that
/// says it goes at once, so that no repeat leaves it again.
fn finish(
    settings: &LedgerConfig,
    recovery: &Recovery,
    spool: Spool,
    standing: Standing,
    follows: Option<Origin>,
    keeps: bool,
    passed: Option<Option<u64>>,
) -> Result<Recovered, OpenError> {
    let origin = recovery.origin.clone();
    let tree = standing.tip.tree;
    let (store, kept) = (settings.store.clone(), Kept::of(settings));
    let shipper = Shipper { origin: origin.clone(), spool: spool.clone(), store, kept };
    // What was sealed from the commit topic may meet what the dead process had put: nothing goes behind it before it
    // has its answer.
    let is_rebuilt = recovery.segments.dir().join(epoch::REBUILT);
    let one_by_one = settings.disk.entry(&is_rebuilt).is_ok_and(|entry| entry.is_some());
    match ship_all(&shipper, &settings.stop, one_by_one) {
        Ok(true) => {}
        Ok(false) => {
            return Ok(Recovered::Closed { origin, tree: Box::new(tree), archived: false, follows });
        }
        Err(error) if error.is_transient() => {
            tracing::warn!(%origin, %error, "a recovered log waits for the store");
            return Ok(Recovered::Closed { origin, tree: Box::new(tree), archived: false, follows });
        }
        Err(error) => return Ok(Recovered::Stuck { origin, why: error.to_string(), follows }),
    }
    if let Some(count) = passed {
        unrecorded::leave(&*settings.disk, &settings.journal_dir, origin.epoch(), count)?;
    }
    let folder: &Path = recovery.segments.dir();
    spool.remove_all().map_err(OpenError::io("remove", &settings.spool_dir))?;
    if !keeps {
        recovery.segments.remove_all().map_err(OpenError::io("remove", folder))?;
    }
    Ok(Recovered::Closed { origin, tree: Box::new(tree), archived: true, follows })
}

/// Whether all is shipped: not, where it was asked to end.
fn ship_all(shipper: &Shipper, stop: &Stop, one_by_one: bool) -> Result<bool, ShipError> {
    let mut waits = None;
    for batch in shipper.spool.batches()? {
        if stop.asked() {
            return Ok(false);
        }
        shipper.put(batch)?;
        if waits.is_some() {
            continue;
        }
        match shipper.read_back(batch) {
            // What is behind it need not wait for its answer to be put.
            Err(error) if error.is_waiting() && one_by_one => return Err(error),
            Err(error) if error.is_waiting() => waits = Some(error),
            other => {
                other?;
                shipper.archived(batch)?;
            }
        }
    }
    waits.map_or(Ok(true), Err)
}

/// Leaves the mark `salvaged`, durable.
pub(crate) fn mark_salvaged(disk: &SharedDisk, folder: &Path) -> Result<(), OpenError> {
    let path = folder.join(epoch::SALVAGED);
    if disk.entry(&path).map_err(OpenError::io("look at", &path))?.is_none() {
        disk::replace(&**disk, &path, b"this log was closed elsewhere; do not serve from here\n")
            .map_err(OpenError::io("write", &path))?;
    }
    Ok(())
}
