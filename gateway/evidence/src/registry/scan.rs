//! Looking at the logs: what was opened, how far each has come, which ended, which are silent too long.

use schemas::record::{Body, Boot, CloseReason};
use schemas::registry::{EntryBody, LogClosed, LogHead, LogLost, LogOpened, State};
use schemas::seal::{self, SignedSeal};
use schemas::trust::public_key;
use schemas::verify::{SealTail, chain_seal};
use schemas::{Identifier, Origin, Sha256Hex};

use super::read::{batch, seal_note};
use super::{Followed, Registrar, RegistrarError, Take};

/// Beyond heartbeat bound and batch age, before a log counts as lost: a write takes its time.
const SLACK_US: i64 = 5_000_000;

impl Registrar {
    /// Looks at every log of every gateway that has a key.
    pub(super) fn logs(&mut self, trial: &mut State, take: &mut Take<'_>) -> Result<(), RegistrarError> {
        let mut gateways: Vec<String> = trial.keys().values().map(|key| key.gateway.clone()).collect();
        gateways.sort();
        gateways.dedup();
        for gateway in gateways {
            let mut origins = self.settings.store.logs(&self.settings.deployment, &gateway)?;
            origins.sort();
            for origin in origins {
                let known = trial.logs().get(&origin);
                if known.is_some_and(|log| log.closed.is_some()) {
                    self.followed.remove(&origin);
                    continue;
                }
                if known.is_none() {
                    self.opened(&origin, trial, take)?;
                }
                if trial.logs().contains_key(&origin) {
                    self.grown(&origin, trial, take)?;
                    self.silent(&origin, trial, take);
                }
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
        let store = self.settings.store.clone();
        let Some(note) = seal_note(&*store, origin, 0)? else { return Ok(()) };
        let keys: Vec<String> = trial.keys_in_force(origin.gateway()).map(str::to_owned).collect();
        let signer = keys.iter().find_map(|text| {
            let closers = trial.keys().get(text).map_or(&[][..], |key| &key.closers);
            let hands = std::iter::once(text).chain(closers).filter_map(|key| public_key(key));
            let signer = hands.into_iter().find(|public| seal::verify(&note, public).is_ok());
            signer.map(|public| (text, public))
        });
        let Some((key, public)) = signer else {
            self.warn_once(origin.to_string(), "its seals are not by a key of the gateway that is in force");
            return Ok(());
        };
        let verified = match batch(&*store, origin, &public, &note)? {
            Ok(verified) => verified,
            Err(why) => {
                self.warn_once(origin.to_string(), &why);
                return Ok(());
            }
        };
        let first = verified.rows().first().and_then(|row| row.decoded().record.as_ref());
        let Some((boot, log_config)) = first.and_then(|record| match &record.body {
            Body::Boot(boot) => Some((boot, record.config)),
            _ => None,
        }) else {
            self.warn_once(origin.to_string(), "it does not begin with `boot`");
            return Ok(());
        };
        if boot.seal_key != *key {
            self.warn_once(origin.to_string(), "its `boot` names another seal key");
            return Ok(());
        }
        let entry = opening(origin, boot, key, Sha256Hex::of(&note), log_config);
        if let Err(why) = take(trial, entry) {
            self.warn_once(origin.to_string(), &why);
        }
        Ok(())
    }

    /// Registers the newest seal of a log, and its end; every seal up to it is verified and continues the one before.
    fn grown(
        &mut self,
        origin: &Origin,
        trial: &mut State,
        take: &mut Take<'_>,
    ) -> Result<(), RegistrarError> {
        let store = self.settings.store.clone();
        let Some(log) = trial.logs().get(origin).cloned() else { return Ok(()) };
        let mut signers: Vec<[u8; 32]> = public_key(&log.opened.key).into_iter().collect();
        let closers = trial.keys().get(&log.opened.key).map_or(&[][..], |key| &key.closers);
        signers.extend(closers.iter().filter_map(|key| public_key(key)));
        let mut tail: Option<(SealTail, [u8; 32])> =
            self.followed.get(origin).map(|followed| (followed.tail.clone(), followed.public));
        if let Some((number, head)) = log.last()
            && tail.as_ref().is_none_or(|(tail, _)| tail.batch < number)
        {
            // After a start, or where another registrar was faster: the registered head is where to go on.
            let sealed = seal_note(&*store, origin, number)?.filter(|note| Sha256Hex::of(note) == head.seal);
            match sealed.and_then(|note| signed(&note, origin, &signers)) {
                Some((sealed, public)) => tail = Some((SealTail::of(&sealed, None), public)),
                None => {
                    self.warn_once(origin.to_string(), "the seal of its registered head is not in the store");
                    return Ok(());
                }
            }
        }
        let registered = log.last().map(|(number, _)| number);
        let mut newest = None;
        loop {
            let number = tail.as_ref().map_or(0, |(tail, _)| tail.batch + 1);
            let Some(note) = seal_note(&*store, origin, number)? else { break };
            let Some((sealed, public)) = signed(&note, origin, &signers) else {
                self.warn_once(
                    origin.to_string(),
                    &format!("batch {number} is not signed by a key of the log"),
                );
                break;
            };
            let before = tail.as_ref().map(|(tail, _)| tail);
            // The log's key has no word after a closer's.
            let handed_back = tail.as_ref().is_some_and(|(_, last)| signers.first() != Some(last))
                && signers.first() == Some(&public);
            let faults = chain_seal(before, &sealed);
            if sealed.batch != number || !faults.is_empty() || handed_back {
                let what = faults
                    .first()
                    .map_or("signed by the log's key after a closer's".into(), ToString::to_string);
                self.warn_once(
                    origin.to_string(),
                    &format!("batch {number} does not continue the log: {what}"),
                );
                break;
            }
            let own = signers.first() == Some(&public);
            if own && log.limit.is_some_and(|limit| sealed.to > limit) {
                self.warn_once(origin.to_string(), "it goes on under a key that was revoked");
                break;
            }
            tail = Some((SealTail::of(&sealed, None), public));
            newest = Some(note);
        }
        let Some((tail, public)) = tail else { return Ok(()) };
        self.followed.insert(origin.clone(), Followed { tail: tail.clone(), public });
        if registered.is_some_and(|number| number >= tail.batch) {
            return Ok(());
        }
        let head = LogHead {
            origin: origin.clone(),
            batch: tail.batch,
            size: tail.to,
            root: tail.root,
            seal: tail.sha256,
        };
        if let Err(why) = take(trial, EntryBody::LogHead(head)) {
            self.warn_once(origin.to_string(), &why);
            return Ok(());
        }
        let note = match newest {
            Some(note) => note,
            None => match seal_note(&*store, origin, tail.batch)? {
                Some(note) => note,
                None => return Ok(()),
            },
        };
        match batch(&*store, origin, &public, &note)? {
            Ok(verified) => {
                let last = verified.rows().last().and_then(|row| row.decoded().record.as_ref());
                if let Some(Body::Close(close)) = last.map(|record| &record.body)
                    && let Ok(reason) = Identifier::new(word(close.reason))
                {
                    let closed = LogClosed { origin: origin.clone(), size: tail.to, reason };
                    if let Err(why) = take(trial, EntryBody::LogClosed(closed)) {
                        self.warn_once(origin.to_string(), &why);
                    }
                }
            }
            Err(why) => self.warn_once(origin.to_string(), &why),
        }
        Ok(())
    }

    /// Says once that a log is silent past its bounds.
    fn silent(&mut self, origin: &Origin, trial: &mut State, take: &mut Take<'_>) {
        let Some(log) = trial.logs().get(origin) else { return };
        let Some(followed) = self.followed.get(origin) else { return };
        let bound = log.opened.heartbeat_bound_ms.saturating_add(log.opened.batch_age_ms);
        let bound = bound.saturating_mul(1000).saturating_add(SLACK_US);
        let silent = self.settings.clock.now_us().saturating_sub(followed.tail.time);
        if log.closed.is_some() || log.lost.is_some() || silent <= bound {
            return;
        }
        let lost =
            LogLost { origin: origin.clone(), size: followed.tail.to, silent_since: followed.tail.time };
        match take(trial, EntryBody::LogLost(lost)) {
            Ok(()) => {
                tracing::warn!(%origin, silent_s = silent / 1_000_000, "a log is silent past its bounds")
            }
            Err(why) => self.warn_once(origin.to_string(), &why),
        }
    }
}

/// The seal where one of the keys signed it, and which.
fn signed(note: &[u8], origin: &Origin, keys: &[[u8; 32]]) -> Option<(SignedSeal, [u8; 32])> {
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

fn word(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Shutdown => "shutdown",
        CloseReason::Crash => "crash",
        CloseReason::Failed => "failed",
        CloseReason::Salvaged => "salvaged",
    }
}
