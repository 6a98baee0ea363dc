//! The registry of a deployment: verified like any log, then held against the logs of the store.
//!
//! Keys and expected logs come from it where the trust file names it: what its entries say about keys counts only
//! with the signature of the root key that the trust file pins (AU-1). It is read whole at every visit.
//! Format: `schemas/FORMAT.md` 15.

mod anchors;
mod in_force;
mod ledger;

pub(crate) use in_force::InForce;

use schemas::names::FileKind;
use schemas::registry::{Checkpoint, EntryFault, FaultKind, Head, LogState, State, decode};
use schemas::trust::{Trust, TrustedGateway, public_key};
use schemas::verify::{BatchInput, SealTail, VerifiedBatch, chain_seal, verify_batch};
use schemas::{ObjectName, Origin, Sha256Hex, seal};

pub use anchors::WitnessNote;
pub(crate) use ledger::Apart;

use anchors::Anchors;

use crate::finding::{Code, Finding, Findings, Place};
use crate::report::{Counts, RegistryReport};
use crate::source::{Source, SourceError};
use crate::state::{Visit, Visits};
use crate::time;
use crate::verify::batch::{finding, read_error};
use crate::verify::listing::{self, BatchObjects, LogListing};
use crate::verify::log::LogFold;
use crate::verify::seal_name;

/// The largest seal, checkpoint and records file that are read.
const NOTE_LIMIT: u64 = schemas::note::MAX_NOTE_BYTES as u64;
const RECORDS_LIMIT: u64 = 512 << 20;

/// What the registry says, as far as it was proven.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) origin: Origin,
    pub(crate) key: String,
    pub(crate) state: State,
    pub(crate) tail: Option<SealTail>,
    pub(crate) counts: Counts,
    pub(crate) not_judged: u64,
    /// Its folder could not be listed.
    pub(crate) unlisted: bool,
    consistent_since: Option<i64>,
    anchors: Anchors,
}

/// What the registry is read with.
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) trust: &'a Trust,
    /// What was seen of it at the last visit.
    pub(crate) visit: Option<&'a Visit>,
    /// The asked interval's end, where it was given.
    pub(crate) to: Option<i64>,
    /// What witnesses said elsewhere.
    pub(crate) witness_notes: &'a [WitnessNote],
    pub(crate) now: i64,
}

/// What the registry is read with, beside the store and the trust file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    /// What was seen of all logs at earlier visits.
    pub(crate) visits: Option<&'a Visits>,
    /// What witnesses said elsewhere.
    pub(crate) witness_notes: &'a [WitnessNote],
    /// The asked interval's end, where it was given.
    pub(crate) to: Option<i64>,
    pub(crate) now: i64,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(source: &'a dyn Source, trust: &'a Trust, beside: Beside<'a>) -> Self {
        let Beside { visits, witness_notes, to, now } = beside;
        let visit = trust.registry.as_ref().and_then(|registry| {
            let visit = visits?.logs.get(&registry.origin);
            // Under another key it is another registry.
            visit.filter(|visit| visit.key == registry.key)
        });
        Self { source, trust, visit, to, witness_notes, now }
    }
}

/// Reads and verifies the registry that the trust file names; `None` where it names none.
fn read(reading: &Reading<'_>, findings: &mut Findings) -> Option<Registry> {
    let trusted = reading.trust.registry.as_ref()?;
    let root = reading.trust.root.as_deref().and_then(public_key)?;
    let key = public_key(&trusted.key)?;
    let mut registry = Registry {
        origin: trusted.origin.clone(),
        key: trusted.key.clone(),
        state: State::new(&reading.trust.deployment, root, key),
        tail: None,
        counts: Counts::default(),
        not_judged: 0,
        unlisted: false,
        consistent_since: None,
        anchors: Anchors::new(reading.trust),
    };
    match listing::log(reading.source, &registry.origin, findings) {
        Ok(listing) => {
            registry.counts.objects = listing.objects;
            registry.counts.bytes = listing.bytes;
            registry.batches(reading, &key, &listing, findings);
        }
        Err(error) => {
            findings.push(read_error(error, Place::log(&registry.origin)));
            registry.unlisted = true;
            return Some(registry);
        }
    }
    registry.judge_anchors(reading, findings);
    registry.end(reading, findings);
    Some(registry)
}

/// The finding that a fault of an entry is.
fn code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::OpeningInvalid => Code::TrustMismatch,
        FaultKind::KeyInvalid => Code::UntrustedKey,
        FaultKind::RotationInvalid => Code::RotationInvalid,
        FaultKind::KeyNotValid => Code::KeyNotValidForSize,
        FaultKind::EpochReuse => Code::EpochReuse,
        FaultKind::ClosedButActive => Code::ClosedButActive,
        FaultKind::LogUnknown => Code::UnregisteredLog,
        FaultKind::LedgerRepeated => Code::LedgerMismatch,
    }
}

impl Registry {
    /// Verifies the batches in order; stops where one cannot be proven: what stands behind it proves nothing.
    fn batches(
        &mut self,
        reading: &Reading<'_>,
        key: &[u8; 32],
        listing: &LogListing,
        findings: &mut Findings,
    ) {
        let sealed = |objects: &BatchObjects| objects.seal.is_some();
        let newest = listing.batches.iter().rev().find(|(_, objects)| sealed(objects)).map(|(n, _)| *n);
        for (number, objects) in &listing.batches {
            if !sealed(objects) && !objects.data.is_empty() && Some(*number) > newest {
                let expected = "a seal that names them, or nothing: a writer that was refused leaves them";
                let found = format!("{} data files", objects.data.len());
                findings.add(Code::Leftover, Place::batch(&self.origin, *number), expected, found);
            }
        }
        self.beyond(reading, newest, listing, findings);
        let Some(newest) = newest else { return };
        for number in 0..=newest {
            let Some(objects) = listing.batches.get(&number).filter(|objects| sealed(objects)) else {
                let expected = format!("the seals of batches 0 to {newest}");
                findings.add(Code::BatchMissing, Place::batch(&self.origin, number), expected, "none");
                return;
            };
            let Some(batch) = self.batch(reading, key, number, objects, findings) else { return };
            self.entries(&batch, findings);
            self.met(reading, &batch, findings);
            let checkpoint = self.checkpoint(reading, &batch, number == newest, objects, findings);
            self.beside(reading, &batch, &objects.anchors, checkpoint, findings);
            self.counts.seals += 1;
            self.counts.leaves += batch.rows().len() as u64;
            self.tail = Some(batch.tail());
        }
    }

    fn get(
        &self,
        reading: &Reading<'_>,
        number: u64,
        name: &str,
        limit: u64,
        findings: &mut Findings,
    ) -> Option<bytes::Bytes> {
        let place = Place::batch(&self.origin, number).in_object(name);
        match reading.source.read(name, limit) {
            Ok(bytes) => return Some(bytes),
            Err(SourceError::Absent(_)) => {
                findings.add(Code::BatchMissing, place, "a file that a seal names", "none");
            }
            Err(error) => findings.push(read_error(error, place)),
        }
        None
    }

    fn batch(
        &self,
        reading: &Reading<'_>,
        key: &[u8; 32],
        number: u64,
        objects: &BatchObjects,
        findings: &mut Findings,
    ) -> Option<VerifiedBatch> {
        let name = seal_name(&self.origin, number);
        let place = || Place::batch(&self.origin, number).in_object(name.clone());
        let note = self.get(reading, number, &name, NOTE_LIMIT, findings)?;
        let said = match seal::parse_unverified(&note) {
            Ok(said) => said,
            Err(error) => {
                findings.add(Code::SealInvalid, place(), "a seal of the registry", error.to_string());
                return None;
            }
        };
        let file = said.file(&FileKind::Records)?;
        let records = format!("{}/{}", self.origin, file.name);
        let records = self.get(reading, number, &records, RECORDS_LIMIT, findings)?;
        for data in &objects.data {
            let (origin, sha256, kind) = (self.origin.clone(), data.sha256, data.kind.clone());
            let name = ObjectName::Data { origin, batch: number, sha256, kind };
            if said.files.iter().all(|file| file.name != name.file_name()) {
                let place = Place::batch(&self.origin, number).in_object(name.to_string());
                let expected = "a file of the batch; a writer that was refused leaves others";
                findings.add(Code::Leftover, place, expected, "one that the seal does not name");
            }
        }
        let input = BatchInput { origin: &self.origin, key, seal: &note, records };
        let verified = match verify_batch(input) {
            Ok(verified) => verified,
            Err(faults) => {
                for fault in faults {
                    findings.push(finding(fault, place()));
                }
                return None;
            }
        };
        let faults = chain_seal(self.tail.as_ref(), verified.seal());
        if verified.seal().batch != number {
            let found = format!("the seal of batch {}", verified.seal().batch);
            findings.add(Code::PathMismatch, place(), format!("the seal of batch {number}"), found);
            return None;
        }
        let sound = faults.is_empty();
        for fault in faults {
            findings.push(finding(fault, place()));
        }
        sound.then_some(verified)
    }

    fn entries(&mut self, batch: &VerifiedBatch, findings: &mut Findings) {
        for row in batch.rows() {
            let place = Place::record(&self.origin, row.position());
            match decode(row.leaf()) {
                Ok(Some(entry)) => {
                    for fault in self.state.apply(row.position(), &entry) {
                        findings.push(self.fault(fault));
                    }
                }
                Ok(None) => self.not_judged += 1,
                Err(error) => {
                    findings.add(Code::LeafInvalid, place, "an entry of a registry", error.to_string());
                }
            }
        }
    }

    fn fault(&self, fault: EntryFault) -> Finding {
        let place = Place::record(&self.origin, fault.position);
        let place = match &fault.origin {
            Some(origin) => place.of_item(format!("log {origin}")),
            None => place,
        };
        Finding::new(code(fault.kind), place, fault.expected, fault.found)
    }

    /// The checkpoint says what the seal says. Gives the SHA-256 of the one that is there.
    fn checkpoint(
        &self,
        reading: &Reading<'_>,
        batch: &VerifiedBatch,
        newest: bool,
        objects: &BatchObjects,
        findings: &mut Findings,
    ) -> Option<Sha256Hex> {
        let number = batch.seal().batch;
        let name = ObjectName::Checkpoint { origin: self.origin.clone(), batch: number }.to_string();
        let place = Place::batch(&self.origin, number).in_object(&name);
        if !objects.checkpoint {
            let code = if newest { Code::BatchInFlight } else { Code::BatchIncomplete };
            findings.add(code, place, "the checkpoint of the batch", "none");
            return None;
        }
        let key = self.checkpoint_key()?;
        let wanted = Checkpoint::of(batch.seal());
        match reading.source.read(&name, NOTE_LIMIT) {
            Ok(note) => match Checkpoint::verify(&note, &key) {
                Ok((found, _)) if found == wanted => return Some(Sha256Hex::of(&note)),
                Ok((found, _)) => {
                    let text = |c: &Checkpoint| format!("size {}, root {} of {}", c.size, c.root, c.origin);
                    findings.add(Code::Equivocation, place, text(&wanted), text(&found));
                }
                Err(error) => {
                    let expected = "a checkpoint by the key that the `registry` entry names";
                    findings.add(Code::SealInvalid, place, expected, error.to_string());
                }
            },
            Err(error) => findings.push(read_error(error, place)),
        }
        None
    }

    /// Compares with the last visit where this batch is the one that was newest then.
    fn met(&mut self, reading: &Reading<'_>, batch: &VerifiedBatch, findings: &mut Findings) {
        let Some(visit) = reading.visit.filter(|visit| visit.batch == batch.seal().batch) else { return };
        if batch.seal().sha256() == visit.seal {
            self.consistent_since = Some(visit.seen_at);
            return;
        }
        let place = Place::batch(&self.origin, visit.batch);
        let seen = time::text(visit.seen_at);
        let expected =
            format!("seal {} of size {}, root {} as at {seen}", visit.seal, visit.size, visit.root);
        let sealed = batch.seal();
        let found = format!("seal {} of size {}, root {}", sealed.sha256(), sealed.to, sealed.root);
        let same = (sealed.to, sealed.root) == (visit.size, visit.root);
        findings.add(if same { Code::Equivocation } else { Code::Diverged }, place, expected, found);
    }

    fn end(&self, reading: &Reading<'_>, findings: &mut Findings) {
        let size = self.tail.as_ref().map_or(0, |tail| tail.to);
        let place = Place::log(&self.origin);
        if let Some(visit) = reading.visit
            && size < visit.size
        {
            let expected = format!("size {} as at {}", visit.size, time::text(visit.seen_at));
            findings.add(Code::RegistryRollback, place, expected, format!("size {size} proven"));
            return;
        }
        let Some(tail) = &self.tail else {
            findings.add(
                Code::LogMissing,
                place,
                "the registry that the trust file names",
                "no proven batch",
            );
            return;
        };
        let bound = self.state.opening().map_or(300_000, |opening| opening.heartbeat_bound_ms);
        let bound = bound.saturating_mul(1000);
        let slack = bound / 20 + 5 * time::SECOND;
        let to = reading.to.unwrap_or(reading.now);
        if tail.time.saturating_add(bound).saturating_add(slack) < to {
            let found = format!("nothing after {}", time::text(tail.time));
            let expected = format!("entries of the registry to {}", time::text(to));
            findings.push(Finding::new(Code::TailUnproven, place, expected, found).during(tail.time, to));
        }
    }

    /// The trust that the entries give: gateways with their keys.
    pub(crate) fn trust(&self, trust: &Trust) -> Trust {
        let (v, deployment) = (trust.v, trust.deployment.clone());
        Trust { v, deployment, gateways: self.state.gateways(), ..Trust::default() }
    }

    /// The entry that speaks for a registered log: that of the key under which it was opened.
    pub(crate) fn entry<'t>(&self, trust: &'t Trust, origin: &Origin) -> Option<&'t TrustedGateway> {
        let opened = &self.state.logs().get(origin)?.opened;
        let of_key = |entry: &&TrustedGateway| entry.name == origin.gateway() && entry.key == opened.key;
        let speaks = trust.gateway(origin).filter(of_key);
        speaks.or_else(|| trust.gateways.iter().find(of_key))
    }

    /// What should be remembered of it.
    pub(crate) fn visit(&self, now: i64) -> Option<Visit> {
        let tail = self.tail.as_ref()?;
        Some(Visit {
            key: self.key.clone(),
            batch: tail.batch,
            size: tail.to,
            root: tail.root,
            seal: tail.sha256,
            seen_at: now,
            sealed_at: Some(tail.time),
        })
    }

    /// As the report shows it.
    pub(crate) fn report(&self) -> RegistryReport {
        let zero = Sha256Hex([0; 32]);
        let tail = self.tail.as_ref();
        RegistryReport {
            origin: self.origin.clone(),
            size: tail.map_or(0, |tail| tail.to),
            root: tail.map_or(zero, |tail| tail.root),
            seal: tail.map_or(zero, |tail| tail.sha256),
            sealed_at: tail.map_or(0, |tail| tail.time),
            keys: self.state.keys().len() as u64,
            logs: self.state.logs().len() as u64,
            consistent_since: self.consistent_since,
            witnessed: self.anchors.witnessed.values().cloned().collect(),
            timestamped: self.anchors.stamped.clone(),
        }
    }

    /// Holds the logs of the store against the registered ones. `gone` tells whether something registered at a time
    /// may be absent, its retention being over; `to` is the end of the asked interval, where one was given, and `now` the
    /// auditor's clock: what was registered on its way to the store may still be on it.
    pub(crate) fn hold(
        &self,
        source: &dyn Source,
        folds: &[&LogFold],
        (gone, to, now): (&dyn Fn(i64) -> bool, Option<i64>, i64),
        findings: &mut Findings,
    ) {
        let comes = |log: &LogState| {
            let bounds = log.opened.heartbeat_bound_ms.saturating_add(log.opened.batch_age_ms);
            let asked = to.unwrap_or(now.saturating_sub(bounds.saturating_mul(1000)));
            log.last().is_some_and(|(_, head)| head.is_ahead && head.at > asked)
        };
        for (origin, log) in self.state.logs() {
            // A folder with something in it is not yet a log.
            match folds.iter().find(|fold| fold.origin == *origin && fold.is_there()) {
                Some(fold) => self.log(source, fold, log, (gone, comes(log)), findings),
                None if log.last().is_none_or(|(_, head)| !gone(head.at)) => {
                    let size = log.last().map_or(0, |(_, head)| head.size);
                    let expected = format!("a log that the registry knows, size {size}");
                    let place = Place::log(origin);
                    let finding = Finding::new(Code::LogMissing, place, expected, "nothing");
                    // All of it may be on its way.
                    let comes = comes(log) && log.heads.values().all(|head| head.is_ahead);
                    findings.push(if comes { finding.as_note() } else { finding });
                }
                None => findings.add(Code::Expired, Place::log(origin), "a registered log", "nothing"),
            }
        }
        let known_until = self.tail.as_ref().map_or(i64::MIN, |tail| tail.time);
        for fold in folds.iter().filter(|fold| !self.state.logs().contains_key(&fold.origin)) {
            let began = fold.story.boot.as_ref().map_or(i64::MIN, |boot| boot.at);
            let expected = "a log that the registry knows";
            let found =
                Finding::new(Code::UnregisteredLog, Place::log(&fold.origin), expected, "an unknown one");
            // The registrar may not have come to it yet.
            findings.push(if began > known_until { found.as_note() } else { found });
        }
    }

    fn log(
        &self,
        source: &dyn Source,
        fold: &LogFold,
        log: &LogState,
        (gone, comes): (&dyn Fn(i64) -> bool, bool),
        findings: &mut Findings,
    ) {
        let origin = &fold.origin;
        match source.read(&seal_name(origin, 0), NOTE_LIMIT) {
            Ok(note) if Sha256Hex::of(&note) == log.opened.seal => {}
            Ok(note) => {
                let expected = format!("batch 0 with the registered seal {}", log.opened.seal);
                let found = format!("seal {}", Sha256Hex::of(&note));
                findings.add(Code::EpochReuse, Place::batch(origin, 0), expected, found);
            }
            // That it is not there is named by the log itself.
            Err(SourceError::Absent(_)) => {}
            Err(error) => {
                let place = Place::batch(origin, 0).in_object(seal_name(origin, 0));
                findings.push(read_error(error, place));
            }
        }
        let last = log.last().map(|(number, _)| number);
        for (number, head) in &log.heads {
            let due = Some(*number) == last && !gone(head.at);
            head_holds(source, fold, (*number, head), (due, comes), findings);
        }
        let size = fold.newest.as_ref().map_or(0, |newest| newest.size);
        if let Some(closed) = &log.closed
            && size > closed.size
        {
            let expected = format!("nothing beyond size {}, where the registry says closed", closed.size);
            findings.add(Code::ClosedButActive, Place::log(origin), expected, format!("size {size}"));
        }
        // A closer may go on where the log's own key counts no longer.
        let own = fold.closer.as_ref().map_or(size, |closer| closer.from.min(size));
        if let Some(limit) = log.limit.filter(|limit| own > *limit) {
            let expected = format!("no seals beyond size {limit} under key {}", log.opened.key);
            findings.add(Code::KeyNotValidForSize, Place::log(origin), expected, format!("size {own}"));
        }
    }
}

/// The store's seal of a registered batch is the registered one. `due`: it must be there; `comes`: it may be on its way.
fn head_holds(
    source: &dyn Source,
    fold: &LogFold,
    (number, head): (u64, &Head),
    (due, comes): (bool, bool),
    findings: &mut Findings,
) {
    let place = Place::batch(&fold.origin, number).in_object(seal_name(&fold.origin, number));
    let expected = format!("seal {} of size {}, root {}, as registered", head.seal, head.size, head.root);
    match source.read(&seal_name(&fold.origin, number), NOTE_LIMIT) {
        Ok(note) if Sha256Hex::of(&note) == head.seal => {}
        Ok(note) => {
            let said = seal::parse_unverified(&note).ok();
            let same = said.as_ref().is_some_and(|said| (said.to, said.root) == (head.size, head.root));
            let found = match said {
                Some(said) => {
                    format!("seal {} of size {}, root {}", Sha256Hex::of(&note), said.to, said.root)
                }
                None => format!("an object {}", Sha256Hex::of(&note)),
            };
            findings.add(if same { Code::Equivocation } else { Code::Diverged }, place, expected, found);
        }
        Err(SourceError::Absent(_)) if due => {
            let size = fold.newest.as_ref().map_or(0, |newest| newest.size);
            let found = format!("the store offers size {size}");
            // What the registrar saw on its way may never have been in the store: nothing was taken back then.
            let code = if head.is_ahead { Code::BatchMissing } else { Code::Rollback };
            let finding = Finding::new(code, place, expected, found);
            findings.push(if comes { finding.as_note() } else { finding });
        }
        // A seal in the middle that is not there is named by the log itself.
        Err(SourceError::Absent(_)) => {}
        Err(error) => findings.push(read_error(error, place)),
    }
}

#[cfg(test)]
mod anchor_tests;
#[cfg(test)]
mod tests;
