//! Closing logs from the topic: those of this gateway's earlier processes, and those of others whose key names ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::keytable;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::CloseReason;
use schemas::{Origin, Sha256Hex};

use super::message::{Said, encode};
use super::read::{Fence, Reader};
use super::rebuild::{Written, away, count_late, rebuild};
use super::table::{Entry, Table};
use super::{CommitSettings, INDEX};
use crate::disk;
use crate::epoch;
use crate::error::OpenError;
use crate::journal;
use crate::ledger::LedgerConfig;
use crate::recovery::{self, Recovered};
use crate::spool::Spool;
use crate::topic::{Failed, Sender};

/// The folder of other gateways' logs that are being closed, in the journal's.
const CLOSING: &str = "closing";
/// Between two looks at a lease that is waited for.
const STEP: Duration = Duration::from_millis(200);

/// Whether the log in an epoch's folder may be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// It may.
    Ready,
    /// Another gateway closes it.
    Left {
        /// Who.
        by: String,
    },
}

/// What a try to fence a log came to.
enum Claim {
    /// The log ends at our fence.
    Ours(Fence),
    /// It ends at another's.
    Others(Fence),
    /// Its gateway lives.
    Lives,
    /// The topic does not hold its lease any more.
    Gone(Gone),
}

/// How the topic lost a log's newest lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// It keeps nothing for that long.
    Forgotten,
    /// The log's partition ends before it: somebody removed its end, or restored the brokers from older files.
    Removed,
}

impl Gone {
    /// `high` is where the partition ends now.
    fn of(lease_at: i64, high: i64) -> Self {
        if high <= lease_at { Self::Removed } else { Self::Forgotten }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Forgotten => "the commit topic has forgotten it",
            Self::Removed => {
                "its partition of the commit topic ends before the newest lease that the index names: what stood there was removed"
            }
        }
    }
}

/// Sends one message, and waits until it is acknowledged.
pub(super) fn tell(
    settings: &CommitSettings,
    partition: i32,
    origin: &Origin,
    said: &Said<'_>,
) -> Result<(), OpenError> {
    let sender = Sender::new(settings.connection.clone(), &settings.who);
    let code = settings.key.of(&settings.topic, partition);
    let message = std::iter::once(Ok::<_, Failed>(encode(&code, origin, said)));
    sender
        .send_to((&settings.topic, Some(partition)), origin.as_str(), message)
        .map_err(|failed| away(failed, origin))
}

/// Says that all of a log is archived. Where that cannot be said now, a later look at the log finds that it is.
pub(crate) fn closed(settings: &LedgerConfig, origin: &Origin) {
    if let Some(commit) = &settings.commit
        && let Err(error) = tell(commit, INDEX, origin, &Said::Closed)
    {
        tracing::warn!(%origin, %error, "the commit topic does not know yet that this log is closed");
    }
}

pub(super) fn reader(settings: &CommitSettings) -> Result<Reader, OpenError> {
    Reader::open(settings).map_err(|failed| away(failed, &settings.topic))
}

pub(super) fn refreshed(settings: &CommitSettings) -> Result<Table, OpenError> {
    let mut table = Table::default();
    table.refresh(&reader(settings)?).map_err(|failed| away(failed, &settings.topic))?;
    Ok(table)
}

/// How long a log must be silent.
fn patience(settings: &CommitSettings, entry: &Entry) -> Duration {
    2 * settings.lease.max(Duration::from_millis(entry.opening.lease_ms))
}

/// The newest lease of a log that was read, and since when there is no newer one, by our clock.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    number: u64,
    since: Instant,
}

impl Quiet {
    fn of(entry: &Entry) -> Self {
        Self { number: entry.number, since: entry.heard }
    }
}

/// How a log is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its process is known to be dead.
    Dead,
    /// Its silence is waited for.
    Waits,
    /// Only if it was silent for long enough already.
    Looks,
}

/// Fences a log, where that may be.
fn claim(
    settings: &LedgerConfig,
    commit: &CommitSettings,
    (origin, entry): (&Origin, &Entry),
    quiet: &mut Quiet,
    how: How,
) -> Result<Claim, OpenError> {
    let reader = reader(commit)?;
    let patience = patience(commit, entry);
    let mut first = true;
    loop {
        settings.stop.check()?;
        let seen = reader
            .fence(entry.opening.partition, origin, (entry.number, entry.lease_at), None)
            .map_err(|failed| away(failed, origin))?;
        if let Some(fence) = seen.fence {
            // One that an earlier process of this gateway wrote is ours too: that one is gone.
            return Ok(if fence.by == commit.who { Claim::Ours(fence) } else { Claim::Others(fence) });
        }
        let Some(number) = seen.number else {
            let high = reader.high(entry.opening.partition).map_err(|failed| away(failed, origin))?;
            return Ok(Claim::Gone(Gone::of(entry.lease_at, high)));
        };
        if number != quiet.number {
            if !first && how != How::Dead {
                return Ok(Claim::Lives);
            }
            *quiet = Quiet { number, since: Instant::now() };
        }
        first = false;
        if how == How::Dead || quiet.since.elapsed() >= patience {
            let fence = Said::Fence { number, by: &commit.who };
            tell(commit, entry.opening.partition, origin, &fence)?;
        } else if how == How::Waits {
            settings.stop.sleep(STEP.min(patience))?;
        } else {
            return Ok(Claim::Lives);
        }
    }
}

/// Writes what stands before the fence into `folder`, in place of the journal that may be there.
fn write_journal(
    settings: &LedgerConfig,
    commit: &CommitSettings,
    (origin, entry, fence): (&Origin, &Entry, &Fence),
    folder: &Path,
) -> Result<Written, OpenError> {
    let disk = &settings.disk;
    // A name without `-`: no epoch's.
    let half = settings.journal_dir.join(format!("rebuilt.{}", origin.epoch().replace('-', "_")));
    if disk.entry(&half).map_err(OpenError::io("look at", &half))?.is_some() {
        epoch::remove(&**disk, &half)?;
    }
    disk::create_dir_all(&**disk, &half).map_err(OpenError::io("make", &half))?;
    let written = rebuild(&reader(commit)?, disk, &half, settings.segment_bytes, (origin, entry, fence))?;
    let here = disk.list(folder).map_err(OpenError::io("list", folder))?;
    let replaced = folder.join(epoch::REPLACED);
    if written.is_torn
        && !has(settings, folder, epoch::REPLACED)?
        && here.iter().any(|entry| journal::is_of_journal(&entry.name))
    {
        tracing::warn!(%origin, "this disk has what the commit topic has lost: the log is recovered from this disk");
        epoch::remove(&**disk, &half)?;
        return Ok(written);
    }
    // Half of it must not look like the disk's own journal.
    disk::replace(&**disk, &replaced, b"its journal is being replaced by what the commit topic has\n")
        .map_err(OpenError::io("write", &replaced))?;
    let move_over = || -> std::io::Result<()> {
        journal::clear(&**disk, folder)?;
        for entry in disk.list(&half)?.iter().filter(|entry| journal::is_of_journal(&entry.name)) {
            disk.rename(&half.join(&entry.name), &folder.join(&entry.name))?;
        }
        disk.sync_dir(folder)
    };
    move_over().map_err(OpenError::io("write", folder))?;
    let mark = folder.join(epoch::REBUILT);
    let text = format!("its journal is what the commit topic holds before the fence at {}\n", fence.offset);
    disk::replace(&**disk, &mark, text.as_bytes()).map_err(OpenError::io("write", &mark))?;
    epoch::remove(&**disk, &half)?;
    tracing::info!(%origin, groups = written.groups, bytes = written.bytes, fence = fence.offset, "a journal is made again from the commit topic");
    Ok(written)
}

pub(super) fn has(settings: &LedgerConfig, folder: &Path, name: &str) -> Result<bool, OpenError> {
    let path = folder.join(name);
    Ok(settings.disk.entry(&path).map_err(OpenError::io("look at", &path))?.is_some())
}

/// Makes the log in the folder of a dead process of this gateway what the topic says that it is. The caller holds the
/// folder's lock.
pub(crate) fn prepare(settings: &LedgerConfig, folder: &Path) -> Result<Prepared, OpenError> {
    if !has(settings, folder, epoch::COMMITTED)? || has(settings, folder, epoch::REBUILT)? {
        return Ok(Prepared::Ready);
    }
    let Some(commit) = &settings.commit else {
        tracing::warn!(folder = %folder.display(), "this log was committed to Kafka, and `evidence.commit` is `local`: it is recovered from this disk");
        return Ok(Prepared::Ready);
    };
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let origin = Origin::join(&settings.deployment, &settings.gateway, name)
        .map_err(|error| OpenError::Format(error.to_string()))?;
    let table = refreshed(commit)?;
    let Some(entry) = table.logs.get(&origin) else {
        tracing::warn!(%origin, "the commit topic does not know this log: it is recovered from this disk");
        return Ok(Prepared::Ready);
    };
    let fence = match claim(settings, commit, (&origin, entry), &mut Quiet::of(entry), How::Dead)? {
        Claim::Ours(fence) => fence,
        Claim::Others(fence) => {
            if entry.closed {
                put_aside(settings, &origin, folder)?;
            }
            return Ok(Prepared::Left { by: fence.by });
        }
        Claim::Lives => return Ok(Prepared::Left { by: "its own process".into() }),
        Claim::Gone(gone) => {
            tracing::warn!(%origin, why = gone.why(), "the commit topic does not hold this log: it is recovered from this disk");
            return Ok(Prepared::Ready);
        }
    };
    write_journal(settings, commit, (&origin, entry, &fence), folder)?;
    Ok(Prepared::Ready)
}

/// What is here of a log that another gateway has closed is not needed any more. That it is closed is the topic's word
/// only, so nothing is deleted: the folder gets a name that no start looks at.
fn put_aside(settings: &LedgerConfig, origin: &Origin, folder: &Path) -> Result<(), OpenError> {
    let aside = settings.journal_dir.join(format!("fenced.{}", origin.epoch().replace('-', "_")));
    tracing::warn!(%origin, folder = %aside.display(), "another gateway has closed this log: what this disk has of it can be deleted");
    settings.disk.rename(folder, &aside).map_err(OpenError::io("rename", folder))?;
    settings.disk.sync_dir(&settings.journal_dir).map_err(OpenError::io("sync", &settings.journal_dir))
}

/// Finds logs of this gateway that are not closed and of which this disk has nothing, fences them, and makes folders
/// for them, which [`prepare`] fills. Gives the newest log of this gateway that the topic knows.
pub(crate) fn reclaim(settings: &LedgerConfig) -> Result<Option<Origin>, OpenError> {
    let Some(commit) = &settings.commit else { return Ok(None) };
    let table = refreshed(commit)?;
    let is_own = |origin: &Origin| {
        (origin.deployment(), origin.gateway()) == (&settings.deployment, &settings.gateway)
    };
    let own: Vec<(&Origin, &Entry)> = table.logs.iter().filter(|(origin, _)| is_own(origin)).collect();
    for (origin, entry) in own.iter().filter(|(_, entry)| !entry.closed) {
        let folder = settings.journal_dir.join(origin.epoch());
        if settings.disk.entry(&folder).map_err(OpenError::io("look at", &folder))?.is_some() {
            continue;
        }
        tracing::warn!(%origin, "a log of this gateway is not closed, and its disk is not here: it is closed from the commit topic, once it was silent for long enough");
        match claim(settings, commit, (origin, entry), &mut Quiet::of(entry), How::Waits)? {
            Claim::Ours(_) => {
                has_keys(settings, origin, entry).map_err(OpenError::Journal)?;
                disk::create_dir_all(&*settings.disk, &folder).map_err(OpenError::io("make", &folder))?;
                mark_committed(settings, &folder)?;
            }
            Claim::Others(fence) => tracing::info!(%origin, by = fence.by, "another gateway closes this log"),
            Claim::Lives => {
                tracing::warn!(%origin, "another process of this gateway's name still writes this log");
            }
            Claim::Gone(gone) => {
                tracing::error!(%origin, why = gone.why(), "a log is not closed, and cannot be closed from the commit topic: what was not archived is lost");
            }
        }
    }
    Ok(own.last().map(|(origin, _)| (*origin).clone()))
}

/// Leaves the mark of a log whose journal is in the commit topic too, durable.
pub(crate) fn mark_committed(settings: &LedgerConfig, folder: &Path) -> Result<(), OpenError> {
    let path = folder.join(epoch::COMMITTED);
    disk::replace(
        &*settings.disk,
        &path,
        b"this log is committed to Kafka: what the topic holds of it counts\n",
    )
    .map_err(OpenError::io("write", &path))
}

/// The data keys of a log must be here: its content is sealed under them.
fn has_keys(settings: &LedgerConfig, origin: &Origin, entry: &Entry) -> Result<(), String> {
    let page = settings.key_table_dir.join(keytable::page_path(origin, 0));
    if entry.opening.encrypted && !matches!(settings.disk.entry(&page), Ok(Some(_))) {
        return Err(format!(
            "log `{origin}`: its data keys are not here (`{}`): the key table must be a folder that all gateways share, or be brought here",
            page.display()
        ));
    }
    Ok(())
}

/// Recovers a journal that was made again from the topic. What its dead process had put into the store, and nobody
/// knew of yet, is taken up in a second try.
pub(crate) fn recover(
    settings: &LedgerConfig,
    signer: &Arc<Ed25519Signer>,
    folder: &Path,
    reason: CloseReason,
) -> Result<Recovered, OpenError> {
    let recovered = recovery::recover_as(settings, signer, folder, reason)?;
    let Recovered::Stuck { origin, why, .. } = &recovered else { return Ok(recovered) };
    tracing::warn!(%origin, why, "what was sealed again from the commit topic is given up, and built anew behind what the store holds");
    Spool::open(settings.disk.clone(), &settings.spool_dir, origin)
        .and_then(|spool| spool.remove_all())
        .map_err(OpenError::io("clean", &settings.spool_dir))?;
    recovery::recover_as(settings, signer, folder, reason)
}

/// Closes logs of dead gateways, and remembers what may still come behind their fences.
pub(crate) struct Closing {
    settings: LedgerConfig,
    commit: CommitSettings,
    table: Table,
    reader: Option<Reader>,
    quiet: BTreeMap<Origin, Quiet>,
    /// Logs that this process has fenced, whose late records nobody has counted yet.
    fenced: BTreeMap<Origin, Fenced>,
    /// Said once, and not again.
    said: BTreeSet<Origin>,
}

#[derive(Debug)]
struct Fenced {
    entry: Entry,
    fence: i64,
    next: u64,
    since: Instant,
    /// Whether was looked for once.
    looked: bool,
}

/// What was found behind a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) origin: Origin,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// What became of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Survived {
    /// It is closed.
    Closed { origin: Origin, size: u64, root: Sha256Hex, archived: bool },
    /// It could not be closed.
    Stuck { origin: Origin, why: String },
}

impl Closing {
    /// `None` where nothing is committed to Kafka.
    pub(crate) fn new(settings: LedgerConfig) -> Option<Self> {
        let commit = settings.commit.clone()?;
        let (table, fenced, said, quiet) = Default::default();
        Some(Self { settings, commit, table, reader: None, quiet, fenced, said })
    }

    /// Reads what the index says now.
    pub(super) fn refresh(&mut self) -> Result<(), OpenError> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => reader(&self.commit)?,
        };
        self.table.refresh(&reader).map_err(|failed| away(failed, &self.commit.topic))?;
        // One that failed is not used again.
        self.reader = Some(reader);
        Ok(())
    }

    /// Looks once for logs that are silent, and closes them. `own` is left alone. Where `all`, those that another one
    /// has fenced are closed too, and silence is waited for.
    pub(crate) fn look(&mut self, own: Option<&Origin>, all: bool) -> Result<Vec<Survived>, OpenError> {
        self.refresh()?;
        let open = |(origin, entry): &(&Origin, &Entry)| {
            !entry.closed && own != Some(*origin) && origin.deployment() == self.settings.deployment
        };
        let logs: Vec<(Origin, Entry)> = self
            .table
            .logs
            .iter()
            .filter(open)
            .map(|(origin, entry)| (origin.clone(), entry.clone()))
            .collect();
        let mut survived = Vec::new();
        for (origin, entry) in logs {
            self.settings.stop.check()?;
            let is_silent = entry.heard.elapsed() >= patience(&self.commit, &entry);
            if (!is_silent && !all) || !self.is_ours(&origin, &entry) || self.is_here(&origin)? {
                continue;
            }
            survived.extend(self.close_absent(&origin, all)?);
        }
        Ok(survived)
    }

    /// Closes a log that is silent and has no folder here, where the index still says that it is open.
    pub(super) fn close_absent(&mut self, origin: &Origin, all: bool) -> Result<Option<Survived>, OpenError> {
        // Its folder may have gone since the index was read: that it is closed is said before a folder goes.
        self.refresh()?;
        let Some(entry) = self.table.logs.get(origin).filter(|entry| !entry.closed).cloned() else {
            return Ok(None);
        };
        if let Err(why) = has_keys(&self.settings, origin, &entry) {
            self.say_once(origin, || tracing::error!(why, "a log that is silent cannot be closed here"));
            return Ok(Some(Survived::Stuck { origin: origin.clone(), why }));
        }
        match self.close(origin, &entry, all) {
            Err(error @ OpenError::Loss { .. }) => {
                Ok(Some(Survived::Stuck { origin: origin.clone(), why: error.to_string() }))
            }
            // It keeps no other log from being closed, and is tried again with the next look.
            Err(error @ OpenError::HoldsLocked(_)) => {
                tracing::warn!(%origin, %error, "a dead gateway's log is not closed yet");
                Ok(Some(Survived::Stuck { origin: origin.clone(), why: error.to_string() }))
            }
            other => other,
        }
    }

    fn say_once(&mut self, origin: &Origin, say: impl FnOnce()) {
        if self.said.insert(origin.clone()) {
            say();
        }
    }

    /// Whether its key is ours, or names ours as a closer.
    fn is_ours(&mut self, origin: &Origin, entry: &Entry) -> bool {
        let own = Ed25519Signer::from_seed(self.settings.seal_seed).public_key();
        let key = entry.opening.key;
        let is_ours = key == own || self.settings.closing.iter().any(|closing| closing.of == key);
        if !is_ours {
            self.say_once(
                origin,
                || tracing::info!(%origin, "a log is silent, and its key names no key of ours: it is not ours to close"),
            );
        }
        is_ours
    }

    /// Whether a folder of this gateway's journal has it: starts and neighbours care for that one.
    fn is_here(&self, origin: &Origin) -> Result<bool, OpenError> {
        Ok(origin.gateway() == self.settings.gateway
            && has(&self.settings, &self.settings.journal_dir, origin.epoch())?)
    }

    #[cfg(test)]
    pub(super) fn entry(&self, origin: &Origin) -> Entry {
        self.table.logs[origin].clone()
    }

    fn folder(&self, origin: &Origin) -> PathBuf {
        self.settings.journal_dir.join(CLOSING).join(origin.gateway()).join(origin.epoch())
    }

    pub(super) fn close(
        &mut self,
        origin: &Origin,
        entry: &Entry,
        all: bool,
    ) -> Result<Option<Survived>, OpenError> {
        let settings = self.settings.clone();
        let folder = self.folder(origin);
        disk::create_dir_all(&*settings.disk, &folder).map_err(OpenError::io("make", &folder))?;
        let lock_path = folder.join(epoch::LOCK);
        let Some(lock) = settings.disk.lock(&lock_path).map_err(OpenError::io("lock", &lock_path))? else {
            return Ok(None);
        };
        if !has(&settings, &folder, epoch::REBUILT)? {
            let how = if all { How::Waits } else { How::Looks };
            let quiet = self.quiet.entry(origin.clone()).or_insert_with(|| Quiet::of(entry));
            let fence = match claim(&settings, &self.commit, (origin, entry), quiet, how)? {
                Claim::Ours(fence) => fence,
                Claim::Others(fence) if all => fence,
                Claim::Others(_) | Claim::Lives => {
                    drop(lock);
                    epoch::remove(&*settings.disk, &folder)?;
                    return Ok(None);
                }
                Claim::Gone(gone) => {
                    let why = format!("it is not closed, and {}", gone.why());
                    self.say_once(origin, || tracing::error!(%origin, why));
                    drop(lock);
                    epoch::remove(&*settings.disk, &folder)?;
                    return Ok(Some(Survived::Stuck { origin: origin.clone(), why }));
                }
            };
            tracing::warn!(%origin, fence = fence.offset, "a gateway is silent: its log is closed here");
            let written = write_journal(&settings, &self.commit, (origin, entry, &fence), &folder)?;
            let fenced = Fenced {
                entry: entry.clone(),
                fence: fence.offset,
                next: written.next,
                since: Instant::now(),
                looked: false,
            };
            self.fenced.insert(origin.clone(), fenced);
        }
        let signer = Arc::new(Ed25519Signer::from_seed(settings.seal_seed));
        let recovered = recover(&settings, &signer, &folder, CloseReason::Salvaged)?;
        let is_done = matches!(recovered, Recovered::Nothing | Recovered::Closed { archived: true, .. });
        if is_done {
            tell(&self.commit, INDEX, origin, &Said::Closed)?;
            drop(lock);
            epoch::remove(&*settings.disk, &folder)?;
        }
        Ok(match recovered {
            Recovered::Nothing => None,
            Recovered::Closed { origin, tree, archived, .. } => {
                tracing::info!(%origin, size = tree.size(), archived, "a dead gateway's log is closed");
                Some(Survived::Closed { origin, size: tree.size(), root: tree.root(), archived })
            }
            Recovered::Stuck { origin, why, .. } => {
                self.say_once(&origin, || tracing::error!(%origin, why, "a log is stopped and what is here of it is kept; someone must look"));
                Some(Survived::Stuck { origin, why })
            }
        })
    }

    /// What stands behind our fences: looked for once where a log's gateway says that it was fenced, and once when as
    /// much time has passed as a message may take. What was counted is not counted again.
    pub(crate) fn late(&mut self) -> Result<Vec<Late>, OpenError> {
        let mut late = Vec::new();
        let fenced: Vec<Origin> = self.fenced.keys().cloned().collect();
        for origin in fenced {
            let Some(one) = self.fenced.get(&origin) else { continue };
            let has_said = self.table.logs.get(&origin).is_some_and(|entry| entry.fenced.is_some());
            if !has_said && (one.looked || one.since.elapsed() < patience(&self.commit, &one.entry)) {
                continue;
            }
            let (records, bytes) =
                count_late(&reader(&self.commit)?, (&origin, &one.entry), (one.fence, one.next))?;
            if records > 0 {
                late.push(Late { origin: origin.clone(), records, bytes });
            }
            if records > 0 || has_said {
                self.fenced.remove(&origin);
            } else if let Some(one) = self.fenced.get_mut(&origin) {
                one.looked = true;
            }
        }
        Ok(late)
    }
}

/// Closes all logs of the deployment that are in the topic, silent, and ours to close.
///
/// # Errors
/// The brokers or the disk.
pub(crate) fn survive(settings: &LedgerConfig) -> Result<Vec<Survived>, OpenError> {
    let Some(mut closing) = Closing::new(settings.clone()) else {
        return Err(OpenError::Setting {
            key: "evidence.commit",
            value: "local".into(),
            wanted: "`kafka`: where logs are that have no disk".into(),
        });
    };
    closing.look(None, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_behind_the_end_of_its_partition_was_removed_and_one_before_it_is_forgotten() {
        assert_eq!(Gone::of(7, 7), Gone::Removed);
        assert_eq!(Gone::of(7, 0), Gone::Removed);
        assert_eq!(Gone::of(7, 8), Gone::Forgotten);
    }
}
