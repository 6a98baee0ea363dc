//! What the entries of a registry say together: keys, logs, heads. One rule for the registrar and the auditor.
//!
//! A key counts by the registry's own order, never by a clock: a log is opened under a key that was added before and
//! not ended; a revoked key counts for a log up to a size. Format: `FORMAT.md` 15.4.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{ContentErased, Entry, EntryBody, LegalHold, LogClosed, LogHead, LogOpened, Opening};
use super::key::{KeyAction, KeyEntry};
use crate::digest::Sha256Hex;
use crate::merkle::Hash;
use crate::names::Origin;
use crate::trust::{TrustedGateway, TrustedLog, key_text, public_key};

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The registry does not begin with the `registry` entry of the trusted keys.
    OpeningInvalid,
    /// A key entry without the root key's signature, or one that contradicts the entries before it.
    KeyInvalid,
    /// The same for a rotation: not signed by the root key, or of a key that was not in force.
    RotationInvalid,
    /// A log was opened under a key that was not in force, or grew under a key that no longer counts.
    KeyNotValid,
    /// A log was opened twice, or a head is not above the one before.
    EpochReuse,
    /// A head of a log behind its `log_closed`, or a `log_closed` that is not at its last head.
    ClosedButActive,
    /// An entry about a log that was not opened.
    LogUnknown,
    /// A second entry about one `hold` or `erasure` record.
    LedgerRepeated,
}

/// One fault, with what was expected and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFault {
    /// What kind.
    pub kind: FaultKind,
    /// The entry's position in the registry.
    pub position: u64,
    /// The log that it is about.
    pub origin: Option<Origin>,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
}

/// A registered head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The registry position of its entry.
    pub position: u64,
    /// When it was registered, microseconds UTC by the registrar's clock.
    pub at: i64,
    /// The tree's size.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// SHA-256 of the seal.
    pub seal: Sha256Hex,
    /// Whether the store did not have it yet when it was registered.
    pub is_ahead: bool,
    /// The records of batches below this were read for the ledger of holds and erasures, where it was said.
    pub read: Option<u64>,
}

/// The ledger of holds and erasures: what `hold` and `erasure` records of the logs say, by their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Holds, by log and position of the record.
    pub holds: BTreeMap<(Origin, u64), LegalHold>,
    /// Erasures, by log and position of the record.
    pub erased: BTreeMap<Origin, BTreeMap<u64, ContentErased>>,
}

impl Ledger {
    /// Whether the record at a place has its entry.
    pub fn has(&self, origin: &Origin, position: u64) -> bool {
        self.holds.contains_key(&(origin.clone(), position))
            || self.erased.get(origin).is_some_and(|of_log| of_log.contains_key(&position))
    }
}

/// A key of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// The gateway.
    pub gateway: String,
    /// The longest silence of its logs, in seconds.
    pub heartbeat_bound_s: Option<u64>,
    /// Keys that may seal and close after it.
    pub closers: Vec<String>,
    /// The registry position from which on it counts.
    pub from: u64,
    /// The registry position from which on no log is opened under it.
    pub until: Option<u64>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A registered log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// What its opening says.
    pub opened: LogOpened,
    /// The registry position of its opening.
    pub position: u64,
    /// Its heads by batch.
    pub heads: BTreeMap<u64, Head>,
    /// Its end.
    pub closed: Option<LogClosed>,
    /// The time since when it is silent past its bounds.
    pub lost: Option<i64>,
    /// Up to which size its key counts, where the key was revoked.
    pub limit: Option<u64>,
}

impl LogState {
    /// The last registered head, with its batch.
    pub fn last(&self) -> Option<(u64, &Head)> {
        self.heads.last_key_value().map(|(batch, head)| (*batch, head))
    }
}

/// What a registry says, entry by entry.
#[derive(Debug, Clone)]
pub struct State {
    deployment: String,
    root: [u8; 32],
    seal_key: [u8; 32],
    opening: Option<Opening>,
    keys: BTreeMap<String, KeyState>,
    logs: BTreeMap<Origin, LogState>,
    /// Shared: a writer tries entries on copies of the state.
    ledger: Arc<Ledger>,
}

impl State {
    /// Of no entry yet. `root` and `seal_key` come from the trust file, or the registrar's own files.
    pub fn new(deployment: &str, root: [u8; 32], seal_key: [u8; 32]) -> Self {
        Self {
            deployment: deployment.into(),
            root,
            seal_key,
            opening: None,
            keys: BTreeMap::new(),
            logs: BTreeMap::new(),
            ledger: Arc::default(),
        }
    }

    /// The first entry.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }
    /// All keys that were ever added, by their text.
    pub fn keys(&self) -> &BTreeMap<String, KeyState> {
        &self.keys
    }
    /// All logs.
    pub fn logs(&self) -> &BTreeMap<Origin, LogState> {
        &self.logs
    }
    /// The keys of a gateway under which a log may be opened now.
    pub fn keys_in_force<'a>(&'a self, gateway: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.keys.iter().filter(move |(_, key)| key.gateway == gateway && key.until.is_none());
        own.map(|(text, _)| text.as_str())
    }

    /// Holds and erasures.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps what a writer needs: the last head of each log, and of erasures those of logs that go on.
    pub fn keep_last_heads(&mut self) {
        let is_over = |origin: &Origin| self.logs.get(origin).is_some_and(|log| log.closed.is_some());
        if self.ledger.erased.keys().any(is_over) {
            let over: Vec<Origin> =
                self.ledger.erased.keys().filter(|origin| is_over(origin)).cloned().collect();
            let ledger = Arc::make_mut(&mut self.ledger);
            over.iter().for_each(|origin| _ = ledger.erased.remove(origin));
        }
        for log in self.logs.values_mut() {
            if let Some((batch, head)) = log.heads.pop_last() {
                log.heads = BTreeMap::from([(batch, head)]);
            }
        }
    }

    /// Takes the entry at `position`; entries come in order. What an entry with a fault says does not count.
    pub fn apply(&mut self, position: u64, entry: &Entry) -> Vec<EntryFault> {
        let mut faults = Vec::new();
        let opening = matches!(entry.body, EntryBody::Registry(_));
        if opening != (position == 0) {
            let found = entry.body.kind().to_owned();
            faults.push(fault(FaultKind::OpeningInvalid, position, "`registry` at position 0 only", found));
        }
        match &entry.body {
            EntryBody::Registry(opening) => self.open(position, opening, &mut faults),
            EntryBody::LogOpened(opened) => self.log_opened(position, opened, &mut faults),
            EntryBody::LogHead(head) => self.log_head(position, entry.at, head, &mut faults),
            EntryBody::LogClosed(closed) => {
                let Some(log) = self.log(position, &closed.origin, &mut faults) else { return faults };
                let size = log.last().map_or(0, |(_, head)| head.size);
                if log.closed.is_some() || size != closed.size {
                    let expected = format!("one `log_closed` at size {size}");
                    let fault = fault(
                        FaultKind::ClosedButActive,
                        position,
                        expected,
                        format!("`log_closed` at {}", closed.size),
                    );
                    faults.push(EntryFault { origin: Some(closed.origin.clone()), ..fault });
                } else {
                    log.closed = Some(closed.clone());
                    log.lost = None;
                }
            }
            EntryBody::LegalHold(hold) => {
                if self.is_new(position, (&hold.origin, hold.position), &mut faults) {
                    let place = (hold.origin.clone(), hold.position);
                    Arc::make_mut(&mut self.ledger).holds.insert(place, hold.clone());
                }
            }
            EntryBody::ContentErased(erased) => {
                if self.is_new(position, (&erased.origin, erased.position), &mut faults) {
                    let of_log = &mut Arc::make_mut(&mut self.ledger).erased;
                    of_log.entry(erased.origin.clone()).or_default().insert(erased.position, erased.clone());
                }
            }
            EntryBody::LogLost(lost) => {
                if let Some(log) = self.log(position, &lost.origin, &mut faults) {
                    log.lost = Some(lost.silent_since);
                }
            }
            body => {
                if let Some((action, entry)) = body.key() {
                    self.key(position, action, entry, &mut faults);
                }
            }
        }
        faults
    }

    fn open(&mut self, position: u64, opening: &Opening, faults: &mut Vec<EntryFault>) {
        let pairs = [
            ("seal key", key_text(&self.seal_key), &opening.seal_key),
            ("root key", key_text(&self.root), &opening.root_key),
        ];
        for (name, expected, found) in pairs {
            if expected != *found {
                let kind = FaultKind::OpeningInvalid;
                faults.push(fault(kind, position, format!("{name} {expected}"), format!("{name} {found}")));
            }
        }
        if public_key(&opening.checkpoint_key).is_none() {
            let found = opening.checkpoint_key.clone();
            faults.push(fault(FaultKind::OpeningInvalid, position, "a checkpoint key", found));
        }
        if self.opening.is_none() {
            self.opening = Some(opening.clone());
        }
    }

    fn key(&mut self, position: u64, action: KeyAction, entry: &KeyEntry, faults: &mut Vec<EntryFault>) {
        let kind =
            if action == KeyAction::Rotate { FaultKind::RotationInvalid } else { FaultKind::KeyInvalid };
        if let Err(error) = entry.verify(&self.deployment, action, &self.root) {
            faults.push(fault(kind, position, "an entry that the root key signed", error.to_string()));
            return;
        }
        let known = self.keys.get(&entry.key);
        // A key is added once in the registry's life: an old entry that is repeated revives nothing.
        if (action == KeyAction::Revoke) != known.is_some() {
            let expected = if known.is_some() { "a key that was not added before" } else { "a known key" };
            faults.push(fault(kind, position, expected, format!("{action} of key {}", entry.key)));
            return;
        }
        if let Some(replaced) = &entry.replaces {
            match self.keys.get_mut(replaced) {
                Some(old) if old.gateway == entry.gateway && old.until.is_none() => {
                    old.until = Some(position);
                }
                _ => {
                    let expected = format!("the place of a key of `{}` that is in force", entry.gateway);
                    faults.push(fault(kind, position, expected, format!("that of key {replaced}")));
                    return;
                }
            }
        }
        if action == KeyAction::Revoke {
            self.revoke(position, entry, faults);
            return;
        }
        let state = KeyState {
            gateway: entry.gateway.clone(),
            heartbeat_bound_s: entry.heartbeat_bound_s,
            closers: entry.closers.clone(),
            from: position,
            until: None,
            revoked: false,
        };
        self.keys.insert(entry.key.clone(), state);
    }

    fn revoke(&mut self, position: u64, entry: &KeyEntry, faults: &mut Vec<EntryFault>) {
        let Some(key) = self.keys.get_mut(&entry.key) else { return };
        if key.gateway != entry.gateway || key.revoked {
            let expected = format!("a key of `{}` that was not revoked before", entry.gateway);
            let found = format!("revoke of key {}", entry.key);
            faults.push(fault(FaultKind::KeyInvalid, position, expected, found));
            return;
        }
        key.revoked = true;
        key.until = key.until.or(Some(position));
        let until = entry.until_origin.as_ref().zip(entry.until_size);
        for (origin, log) in self.logs.iter_mut().filter(|(_, log)| log.opened.key == entry.key) {
            log.limit = match until {
                Some((until, _)) if origin.epoch() < until.epoch() => None,
                Some((until, size)) if origin == until => Some(size),
                Some(_) => Some(0),
                None => Some(log.last().map_or(0, |(_, head)| head.size)),
            };
        }
    }

    fn log_opened(&mut self, position: u64, opened: &LogOpened, faults: &mut Vec<EntryFault>) {
        let about = |fault: EntryFault| EntryFault { origin: Some(opened.origin.clone()), ..fault };
        if let Some(before) = self.logs.get(&opened.origin) {
            let expected = format!("one opening, seal {}", before.opened.seal);
            let found = format!("another, seal {}", opened.seal);
            faults.push(about(fault(FaultKind::EpochReuse, position, expected, found)));
            return;
        }
        let in_force = self.keys.get(&opened.key).is_some_and(|key| {
            key.until.is_none()
                && key.gateway == opened.origin.gateway()
                && opened.origin.deployment() == self.deployment
        });
        if !in_force {
            let expected = format!("a key of `{}` that is in force", opened.origin.gateway());
            faults.push(about(fault(
                FaultKind::KeyNotValid,
                position,
                expected,
                format!("key {}", opened.key),
            )));
        }
        let log = LogState {
            opened: opened.clone(),
            position,
            heads: BTreeMap::new(),
            closed: None,
            lost: None,
            limit: if in_force { None } else { Some(0) },
        };
        self.logs.insert(opened.origin.clone(), log);
    }

    fn log_head(&mut self, position: u64, at: i64, head: &LogHead, faults: &mut Vec<EntryFault>) {
        let closable = self
            .logs
            .get(&head.origin)
            .and_then(|log| self.keys.get(&log.opened.key))
            .is_some_and(|key| !key.closers.is_empty());
        let Some(log) = self.log(position, &head.origin, faults) else { return };
        let about = |fault: EntryFault| EntryFault { origin: Some(head.origin.clone()), ..fault };
        if let Some(closed) = &log.closed {
            let expected = format!("no head behind `log_closed` at size {}", closed.size);
            let found = format!("a head of size {}", head.size);
            faults.push(about(fault(FaultKind::ClosedButActive, position, expected, found)));
        }
        if let Some((batch, last)) = log.last()
            && (head.batch <= batch || head.size <= last.size)
        {
            let expected = format!("a head above batch {batch} of size {}", last.size);
            let found = format!("batch {} of size {}", head.batch, head.size);
            faults.push(about(fault(FaultKind::EpochReuse, position, expected, found)));
            return;
        }
        // Who sealed it is seen in the log itself: beyond the limit of a revoked key a closer may.
        if log.limit.is_some_and(|limit| head.size > limit) && !closable {
            let expected = format!("no head beyond size {}", log.limit.unwrap_or_default());
            faults.push(about(fault(
                FaultKind::KeyNotValid,
                position,
                expected,
                format!("size {}", head.size),
            )));
        }
        log.lost = None;
        let is_ahead = head.ahead == Some(true);
        let LogHead { size, root, seal, read, .. } = *head;
        let seen = Head { position, at, size, root, seal, is_ahead, read };
        log.heads.insert(head.batch, seen);
    }

    /// Whether a record of a known log has no entry yet.
    fn is_new(&mut self, position: u64, record: (&Origin, u64), faults: &mut Vec<EntryFault>) -> bool {
        let (origin, of_position) = record;
        if self.log(position, origin, faults).is_none() {
            return false;
        }
        if self.ledger.has(origin, of_position) {
            let found = format!("a second one about position {of_position}");
            let fault = fault(FaultKind::LedgerRepeated, position, "one entry for a record", found);
            faults.push(EntryFault { origin: Some(origin.clone()), ..fault });
            return false;
        }
        true
    }

    fn log(&mut self, position: u64, origin: &Origin, faults: &mut Vec<EntryFault>) -> Option<&mut LogState> {
        let log = self.logs.get_mut(origin);
        if log.is_none() {
            let fault = fault(FaultKind::LogUnknown, position, "a log that was opened", origin.to_string());
            faults.push(EntryFault { origin: Some(origin.clone()), ..fault });
        }
        log
    }

    /// The gateways as a trust file would name them, the keys of a gateway in the order in which they were added.
    ///
    /// A key under which no log is opened any more has an entry that lists its logs, each with its limit: no other log
    /// counts under it. A key in force has one that speaks for later logs too; of several keys of a gateway in force
    /// that is the first, and the others list what they have.
    pub fn gateways(&self) -> Vec<TrustedGateway> {
        let mut keys: Vec<(&String, &KeyState)> = self.keys.iter().collect();
        keys.sort_by_key(|(_, key)| (&key.gateway, key.from));
        let mut open = BTreeSet::new();
        let mut out = Vec::new();
        for (text, key) in keys {
            let speaks = key.until.is_none() && open.insert(&key.gateway);
            let several = self.keys_in_force(&key.gateway).nth(1).is_some();
            let logs: Vec<(&Origin, &LogState)> = self.logs_of(text, key).collect();
            let entry = TrustedGateway {
                name: key.gateway.clone(),
                key: text.clone(),
                heartbeat_bound_s: key.heartbeat_bound_s,
                closed: self.is_out_of_service(&key.gateway).then_some(true),
                closers: key.closers.clone(),
                first_origin: logs.iter().map(|(origin, _)| *origin).min().cloned(),
                ..TrustedGateway::default()
            };
            let closed_list = key.until.is_some() || several;
            let listed: Vec<TrustedLog> = logs
                .iter()
                .filter(|(_, log)| closed_list || log.limit.is_some())
                .map(|(origin, log)| TrustedLog {
                    origin: (*origin).clone(),
                    size: log.limit,
                    closed: log.closed.as_ref().map(|closed| closed.size),
                })
                .collect();
            if !listed.is_empty() {
                let first_origin = listed.iter().map(|log| &log.origin).min().cloned();
                out.push(TrustedGateway { first_origin, logs: Some(listed), ..entry.clone() });
            }
            if speaks {
                out.push(entry);
            }
        }
        out
    }

    /// The logs that were opened under a key, of its own gateway.
    fn logs_of<'a>(
        &'a self,
        text: &'a str,
        key: &'a KeyState,
    ) -> impl Iterator<Item = (&'a Origin, &'a LogState)> {
        let own =
            move |origin: &Origin| origin.deployment() == self.deployment && origin.gateway() == key.gateway;
        self.logs.iter().filter(move |(origin, log)| log.opened.key == text && own(origin))
    }

    /// Whether all keys of a gateway are revoked and all its logs closed or lost.
    fn is_out_of_service(&self, gateway: &str) -> bool {
        self.keys.values().filter(|key| key.gateway == gateway).all(|key| key.revoked)
            && self.logs.iter().all(|(origin, log)| {
                origin.gateway() != gateway || log.closed.is_some() || log.lost.is_some()
            })
    }
}

fn fault(
    kind: FaultKind,
    position: u64,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> EntryFault {
    EntryFault { kind, position, origin: None, expected: expected.into(), found: found.into() }
}
