//! Looking at the logs: what was opened, how far each has come, which ended, which are silent too long.

use std::sync::Arc;

use schemas::record::{Body, Boot, CloseReason};
use schemas::registry::{EntryBody, LogClosed, LogHead, LogLost, LogOpened, LogState, State};
use schemas::seal::{self, SignedSeal};
use schemas::trust::public_key;
use schemas::verify::{SealTail, chain_seal};
use schemas::{Identifier, ObjectName, Origin, Sha256Hex};

use super::bounds::Refused;
use super::read::{batch, seal_note};
use super::records::ReadOn;
use super::{End, Followed, Registrar, RegistrarError, Take};
use crate::store::Store as _;

/// Beyond heartbeat bound and batch age, before a log counts as lost: a write takes its time.
const SLACK_US: i64 = 5_000_000;

/// How long after a try a batch that could not be read is tried again, microseconds.
pub(super) const AGAIN_US: i64 = 60_000_000;

impl Registrar {
    /// Looks at every log of every gateway that has a key.
    pub(super) fn logs(&mut self, trial: &mut State, take: &mut Take<'_>) -> Result<(), RegistrarError> {
        // Asked before anything is looked at: what was read by then is seen below.
        let all_seen = self.settings.topic.as_ref().is_none_or(|topic| !topic.is_read_still());
        let mut gateways: Vec<String> = trial.keys().values().map(|key| key.gateway.clone()).collect();
        gateways.sort();
        gateways.dedup();
        let mut all = Vec::new();
        for gateway in gateways {
            let listed = self.store.logs(&self.settings.deployment, &gateway);
            let Some(mut origins) = self.unless_aside(&gateway, listed.map_err(RegistrarError::from))? else {
                continue;
            };
            origins.sort();
            all.extend(origins);
        }
        let is_open = |origin: &&Origin| trial.logs().get(*origin).is_none_or(|log| log.closed.is_none());
        self.open_logs = all.iter().filter(is_open).count();
        for origin in all {
            self.log(&origin, all_seen, trial, take)?;
        }
        Ok(())
    }

    /// Looks at one log. What somebody put there under its names keeps nobody from the others. Not `all_seen`: what it has
    /// on its way may not be read yet, and it is not called silent.
    fn log(
        &mut self,
        origin: &Origin,
        all_seen: bool,
        trial: &mut State,
        take: &mut Take<'_>,
    ) -> Result<(), RegistrarError> {
        let known = trial.logs().get(origin);
        if known.is_some_and(|log| log.closed.is_some()) {
            self.followed.remove(origin);
            self.reading.remove(origin);
            return Ok(());
        }
        if known.is_none() {
            let opened = self.opened(origin, trial, take);
            self.unless_aside(origin.as_str(), opened)?;
        }
        if trial.logs().contains_key(origin) {
            let grown = self.grown(origin, trial, take);
            self.unless_aside(origin.as_str(), grown)?;
            if all_seen {
                self.silent(origin, trial, take);
            }
        }
        Ok(())
    }

    /// Registers a log whose batch 0 is sealed by a key that is in force, or by a closer of one: its gateway died before
    /// anything was sealed.
    fn opened(
        &mut self,
        origin: &Origin,
        trial: &mut State,
        take: &mut Take<'_>,
    ) -> Result<(), RegistrarError> {
        let store = Arc::clone(&self.store);
        let Some(note) = seal_note(&*store, origin, 0)? else { return Ok(()) };
        let keys: Vec<String> = trial.keys_in_force(origin.gateway()).map(str::to_owned).collect();
        let signer = keys.iter().find_map(|text| {
            let closers = trial.keys().get(text).map_or(&[][..], |key| &key.closers);
            let hands = std::iter::once(text).chain(closers).filter_map(|key| public_key(key));
            let signer = hands.into_iter().find(|public| seal::verify(&note, public).is_ok());
            signer.map(|public| (text, public))
        });
        let Some((key, public)) = signer else {
            self.warn_once(origin.as_str(), "its seals are not by a key of the gateway that is in force");
            return Ok(());
        };
        let verified = match batch(&*store, origin, &public, &note)? {
            Ok(verified) => verified,
            Err(why) => {
                self.warn_once(origin.as_str(), &why);
                return Ok(());
            }
        };
        let first = verified.rows().first().and_then(|row| row.decoded().record.as_ref());
        let Some((boot, log_config)) = first.and_then(|record| match &record.body {
            Body::Boot(boot) => Some((boot, record.config)),
            _ => None,
        }) else {
            self.warn_once(origin.as_str(), "it does not begin with `boot`");
            return Ok(());
        };
        if boot.seal_key != *key {
            self.warn_once(origin.as_str(), "its `boot` names another seal key");
            return Ok(());
        }
        let entry = opening(origin, boot, key, Sha256Hex::of(&note), log_config);
        self.taken_or_told(origin, take(trial, entry));
        Ok(())
    }

    /// Registers the newest seal of a log, and its end; every seal up to it is verified and continues the one before.
    fn grown(
        &mut self,
        origin: &Origin,
        trial: &mut State,
        take: &mut Take<'_>,
    ) -> Result<(), RegistrarError> {
        let Some(log) = trial.logs().get(origin).cloned() else { return Ok(()) };
        let mut signers: Vec<[u8; 32]> = public_key(&log.opened.key).into_iter().collect();
        let closers = trial.keys().get(&log.opened.key).map_or(&[][..], |key| &key.closers);
        signers.extend(closers.iter().filter_map(|key| public_key(key)));
        if !self.registered(origin, &log, &signers)? {
            return Ok(());
        }
        // Also where a seal cannot be read: the log came as far as the one before.
        let followed = self.follow(origin, &log, &signers);
        let begun = log.last().and_then(|(_, head)| head.read).unwrap_or_default();
        let read = self.ledger(origin, begun, &signers, trial, take);
        let followed = followed.and(read);
        let Some(Followed { tail, public, end, .. }) = self.followed.get(origin).cloned() else {
            return followed;
        };
        if log.last().is_none_or(|(number, _)| number < tail.batch) {
            let name = ObjectName::Seal { origin: origin.clone(), batch: tail.batch };
            let head = LogHead {
                origin: origin.clone(),
                batch: tail.batch,
                size: tail.to,
                root: tail.root,
                seal: tail.sha256,
                ahead: self.store.lacks(&name)?.then_some(true),
                read: self.reading.get(origin).map(|reading| reading.read(origin, trial)),
            };
            if !self.taken_or_told(origin, take(trial, EntryBody::LogHead(head))) {
                return followed;
            }
        }
        let reason = match end {
            End::Read(reason) => reason,
            End::Unread(tried) => self.ended(origin, (&tail, &public), tried)?,
        };
        // What is not read yet, or not in the store yet, has its entries before the log's end.
        let is_done = |reading: &ReadOn| reading.is_done(origin, tail.batch, trial);
        if let Some(reason) = reason.filter(|_| self.reading.get(origin).is_none_or(is_done)) {
            let closed = LogClosed { origin: origin.clone(), size: tail.to, reason };
            self.taken_or_told(origin, take(trial, EntryBody::LogClosed(closed)));
        }
        followed
    }

    /// Whether an entry was taken; of one that does not hold it is told, one that has no room is due again.
    fn taken_or_told(&mut self, origin: &Origin, taken: Result<(), Refused>) -> bool {
        if let Err(Refused::Wrong(why)) = &taken {
            self.warn_once(origin.as_str(), why);
        }
        taken.is_ok()
    }

    /// Where to go on with a log: after a start, or where another registrar was faster, at the registered head. False
    /// where that one is not in the store.
    fn registered(
        &mut self,
        origin: &Origin,
        log: &LogState,
        signers: &[[u8; 32]],
    ) -> Result<bool, RegistrarError> {
        let Some((number, head)) = log.last() else { return Ok(true) };
        if self.followed.get(origin).is_some_and(|followed| followed.tail.batch >= number) {
            return Ok(true);
        }
        let note = seal_note(&*self.store, origin, number)?;
        let sealed = note.filter(|note| Sha256Hex::of(note) == head.seal);
        let Some((sealed, public)) = sealed.and_then(|note| signed(&note, origin, signers)) else {
            self.warn_once(origin.as_str(), "the seal of its registered head is not in the store");
            return Ok(false);
        };
        self.reached(origin, SealTail::of(&sealed, None), public);
        Ok(true)
    }

    /// The log came so far.
    fn reached(&mut self, origin: &Origin, tail: SealTail, public: [u8; 32]) {
        let seen = self.settings.clock.elapsed_us();
        self.followed.insert(origin.clone(), Followed { tail, public, seen, end: End::Unread(None) });
    }

    /// Verifies the seals that the log has more, each as a continuation of the one before.
    fn follow(
        &mut self,
        origin: &Origin,
        log: &LogState,
        signers: &[[u8; 32]],
    ) -> Result<(), RegistrarError> {
        loop {
            let before = self.followed.get(origin).map(|followed| (followed.tail.clone(), followed.public));
            let number = before.as_ref().map_or(0, |(tail, _)| tail.batch + 1);
            let Some(note) = seal_note(&*self.store, origin, number)? else { return Ok(()) };
            let Some((sealed, public)) = signed(&note, origin, signers) else {
                let what = format!("batch {number} is not signed by a key of the log");
                self.warn_once(origin.as_str(), &what);
                return Ok(());
            };
            let own = signers.first() == Some(&public);
            // The log's key has no word after a closer's.
            let handed_back = own && before.as_ref().is_some_and(|(_, last)| signers.first() != Some(last));
            let faults = chain_seal(before.as_ref().map(|(tail, _)| tail), &sealed);
            if sealed.batch != number || !faults.is_empty() || handed_back {
                let what = faults
                    .first()
                    .map_or("signed by the log's key after a closer's".into(), ToString::to_string);
                let what = format!("batch {number} does not continue the log: {what}");
                self.warn_once(origin.as_str(), &what);
                return Ok(());
            }
            if own && log.limit.is_some_and(|limit| sealed.to > limit) {
                self.warn_once(origin.as_str(), "it goes on under a key that was revoked");
                return Ok(());
            }
            self.reached(origin, SealTail::of(&sealed, None), public);
        }
    }

    /// Why a log ended, where its newest batch says that it did. A batch that cannot be read is tried again later.
    fn ended(
        &mut self,
        origin: &Origin,
        (tail, public): (&SealTail, &[u8; 32]),
        tried: Option<i64>,
    ) -> Result<Option<Identifier>, RegistrarError> {
        let now = self.settings.clock.elapsed_us();
        if tried.is_some_and(|tried| now.saturating_sub(tried) < AGAIN_US) {
            return Ok(None);
        }
        self.looked(origin, End::Unread(Some(now)));
        let Some(note) = seal_note(&*self.store, origin, tail.batch)? else { return Ok(None) };
        let verified = match batch(&*self.store, origin, public, &note)? {
            Ok(verified) => verified,
            Err(why) => {
                self.warn_once(origin.as_str(), &why);
                return Ok(None);
            }
        };
        let last = verified.rows().last().and_then(|row| row.decoded().record.as_ref());
        let reason = match last.map(|record| &record.body) {
            Some(Body::Close(close)) => Identifier::new(word(close.reason)).ok(),
            _ => None,
        };
        self.looked(origin, End::Read(reason.clone()));
        Ok(reason)
    }

    pub(super) fn looked(&mut self, origin: &Origin, end: End) {
        if let Some(followed) = self.followed.get_mut(origin) {
            followed.end = end;
        }
    }

    /// Says once that a log is silent past its bounds: that nothing came for so long while this registrar looked. Clocks
    /// that somebody sets, here or at the gateway, have no part in it. A log that has ended owes nothing, though its end may
    /// have to wait for its entry.
    fn silent(&mut self, origin: &Origin, trial: &mut State, take: &mut Take<'_>) {
        let Some(log) = trial.logs().get(origin) else { return };
        let Some(followed) = self.followed.get(origin) else { return };
        let bound = log.opened.heartbeat_bound_ms.saturating_add(log.opened.batch_age_ms);
        let bound = bound.saturating_mul(1000).saturating_add(SLACK_US);
        let silent = self.settings.clock.elapsed_us().saturating_sub(followed.seen);
        let has_ended = matches!(followed.end, End::Read(Some(_)));
        if has_ended || log.closed.is_some() || log.lost.is_some() || silent <= bound {
            return;
        }
        let lost =
            LogLost { origin: origin.clone(), size: followed.tail.to, silent_since: followed.tail.time };
        match take(trial, EntryBody::LogLost(lost)) {
            Ok(()) => {
                tracing::warn!(%origin, silent_s = silent / 1_000_000, "a log is silent past its bounds")
            }
            refused => _ = self.taken_or_told(origin, refused),
        }
    }
}

/// The seal where one of the keys signed it, and which.
pub(super) fn signed(note: &[u8], origin: &Origin, keys: &[[u8; 32]]) -> Option<(SignedSeal, [u8; 32])> {
    let found = keys.iter().find_map(|key| Some((seal::verify(note, key).ok()?, *key)))?;
    (found.0.origin == *origin).then_some(found)
}

fn opening(origin: &Origin, boot: &Boot, key: &str, seal: Sha256Hex, log_config: Sha256Hex) -> EntryBody {
    EntryBody::LogOpened(LogOpened {
        origin: origin.clone(),
        key: key.into(),
        seal,
        heartbeat_bound_ms: boot.heartbeat_bound_ms,
        batch_age_ms: boot.batch_age_ms,
        log_config,
        predecessor: boot.predecessor.as_ref().map(|before| before.origin.clone()),
    })
}

pub(super) fn word(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Shutdown => "shutdown",
        CloseReason::Crash => "crash",
        CloseReason::Failed => "failed",
        CloseReason::Salvaged => "salvaged",
    }
}
