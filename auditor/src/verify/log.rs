//! One log: its batches in order, chained, their records told to its [`Story`](super::story::Story).
//!
//! Batches are looked at on all cores, a window at a time, while the window before is told in order. What is kept
//! between windows does not grow with the log.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use rayon::prelude::*;
use schemas::Origin;
use schemas::files::{Limits, read_records};
use schemas::names::FileKind;
use schemas::record::{Body, CloseReason};
use schemas::verify::{SealTail, VerifiedBatch, chain_seal};

use schemas::trust::TrustedGateway;

use super::batch::{Context, Looked, Outcome, Proven, finding};
use super::content::Bases;
use super::fold::Unnamed;
pub use super::fold::{Closer, LogFold, Newest};
use super::listing::{BatchObjects, DataFile, LogListing};
use super::loader::{KEPT_WHOLE, Loader};
use super::prices::{Costless, Priced};
use super::{Options, Sink};
use crate::finding::{Code, Finding, Place};
use crate::state::Visit;
use crate::time;

/// Follows one log through its batches.
pub(super) struct Follow<'a> {
    pub(super) context: Context<'a>,
    pub(super) options: &'a Options<'a>,
    pub(super) visit: Option<&'a Visit>,
    pub(super) fold: LogFold,
    pub(super) tail: Option<SealTail>,
    pub(super) entry: &'a TrustedGateway,
    pub(super) bases: Bases,
}

impl Follow<'_> {
    /// Where the log goes on from an earlier proof: whether that holds what was seen before.
    fn met_before(&mut self) {
        self.fold.consistent_since = None;
        let (Some(visit), Some(newest)) = (self.visit, &self.fold.newest) else { return };
        if visit.seal == newest.seal || self.fold.met == Some(visit.seal) {
            self.fold.consistent_since = Some(visit.seen_at);
            self.fold.met = Some(visit.seal);
        }
    }

    /// True where whoever asked does not want to wait for the end.
    fn is_stopped(&self) -> bool {
        self.options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Follows the log to its end. False where it was stopped before.
    pub(super) fn run(&mut self, listing: &LogListing, sink: &mut dyn Sink) -> bool {
        self.fold.counts.objects = listing.objects;
        self.fold.counts.bytes = listing.bytes;
        self.fold.with_keys = self.context.keys.is_some();
        self.fold.retention = self.options.mandate.retention;
        self.met_before();
        let sealed: Vec<(u64, &BatchObjects)> = listing
            .batches
            .range(self.fold.next_batch..)
            .filter(|(_, objects)| objects.seal.is_some())
            .map(|(number, objects)| (*number, objects))
            .collect();
        let windows = windows(&sealed, self.options.limits.window_bytes);
        let total = sealed.len();
        // What an earlier run came to counts.
        let behind = self.fold.marks.len() as u64;
        let mut done = 0;
        let mut looked: Vec<Looked> = Vec::new();
        for window in windows.into_iter().map(Some).chain([None]) {
            let before = std::mem::take(&mut looked);
            done += before.len();
            let context = &self.context;
            let look = || match window {
                Some(window) if window.len() > 1 => {
                    window.par_iter().map(|(number, objects)| context.look(*number, objects)).collect()
                }
                Some(window) => {
                    window.iter().map(|(number, objects)| context.look(*number, objects)).collect()
                }
                None => Vec::new(),
            };
            let mut tell = Tell {
                origin: context.origin,
                visit: self.visit,
                fold: &mut self.fold,
                tail: &mut self.tail,
                options: self.options,
                entry: self.entry,
                bases: &mut self.bases,
                loader: &Loader { context, limit: KEPT_WHOLE },
            };
            if before.is_empty() {
                looked = look();
            } else {
                ((), looked) = rayon::join(|| tell.all(before, &mut *sink), look);
                (self.options.progress)(context.origin, behind + done as u64, behind + total as u64);
                let stops = self.is_stopped() && done < total;
                sink.reached(&self.fold, self.tail.as_ref(), stops);
                if stops {
                    return false;
                }
            }
        }
        true
    }

    /// What can be said only when the log was followed to its end.
    pub(super) fn end(&mut self, listing: &LogListing) {
        self.leftovers(listing);
        self.unnamed(listing);
        self.references();
        self.keyless();
        self.end_of_visit();
    }

    /// One finding, whatever the number of parts: another key table is missing once.
    fn keyless(&mut self) {
        if self.fold.keyless > 0 {
            let place = Place::log(&self.fold.origin).of_item("key table");
            let found = format!("no pages for {} parts in the given key table", self.fold.keyless);
            self.fold.findings.add(Code::KeyAbsent, place, "data keys of this log", found);
        }
    }

    /// Data files without a seal.
    fn leftovers(&mut self, listing: &LogListing) {
        let newest = listing
            .batches
            .iter()
            .rev()
            .find(|(_, objects)| objects.seal.is_some())
            .map(|(number, _)| *number);
        let next = newest.map_or(0, |number| number + 1);
        for (number, objects) in &listing.batches {
            if objects.seal.is_some() {
                continue;
            }
            for data in &objects.data {
                let name = self.name_of(*number, data);
                let place = Place::batch(&self.fold.origin, *number).in_object(name.to_string());
                let in_flight = *number == next && self.fold.story.close.is_none();
                let is_left = *number >= next && self.died().is_some();
                let code = match () {
                    () if in_flight => Code::BatchInFlight,
                    () if is_left && self.holds_no_more(listing, &name.file_name()) => Code::Leftover,
                    () => Code::BatchIncomplete,
                };
                self.fold.findings.add(code, place, "the batch's seal", "none");
            }
        }
    }

    /// Until when the log's process is known to have lived, where another one closed the log.
    fn died(&self) -> Option<i64> {
        let close = self.fold.story.close.as_ref()?;
        matches!(close.reason, CloseReason::Crash | CloseReason::Salvaged).then_some(close.alive_until)
    }

    /// Data files that no seal names. A process that dies may have put files of a batch whose seal it did not come to:
    /// who closes its log on another machine seals those records in files of its own.
    fn unnamed(&mut self, listing: &LogListing) {
        let died = self.died();
        for Unnamed { batch, sealed, file } in &self.fold.unnamed {
            let is_left = died.zip(*sealed).is_some_and(|(died, sealed)| sealed > died)
                && self.holds_no_more(listing, file);
            let code = if is_left { Code::Leftover } else { Code::UnreferencedObject };
            let place =
                Place::batch(&self.fold.origin, *batch).in_object(format!("{}/{file}", self.fold.origin));
            self.fold.findings.add(code, place, "an object that the seal names", "one that it does not");
        }
    }

    /// Whether every record of a records file that no seal names stands in the log, at its position: whoever closed a log
    /// too early cannot leave it as a harmless rest. Files of other kinds hold no records.
    fn holds_no_more(&self, listing: &LogListing, file: &str) -> bool {
        match schemas::ObjectName::parse_file(&self.fold.origin, file) {
            Ok(schemas::ObjectName::Data { kind: FileKind::Records, .. }) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
        let Some(mut left) = self.records(file) else { return false };
        let Some(lowest) = left.keys().next().copied() else { return true };
        for (number, objects) in listing.batches.iter().rev().filter(|(_, objects)| objects.seal.is_some()) {
            let mut begins = u64::MAX;
            for data in objects.data.iter().filter(|data| data.kind == FileKind::Records) {
                let name = self.name_of(*number, data).file_name();
                if self.fold.unnamed.iter().any(|unnamed| unnamed.file == name) {
                    continue;
                }
                let Some(sealed) = self.records(&name) else { return false };
                begins = begins.min(sealed.keys().next().copied().unwrap_or(u64::MAX));
                left.retain(|position, hash| sealed.get(position) != Some(hash));
            }
            if left.is_empty() || begins <= lowest {
                break;
            }
        }
        left.is_empty()
    }

    /// The hashes of the leaves of a records file whose bytes are those of its name.
    fn records(&self, file: &str) -> Option<BTreeMap<u64, schemas::Sha256Hex>> {
        let name = schemas::ObjectName::parse_file(&self.fold.origin, file).ok()?;
        let schemas::ObjectName::Data { sha256, .. } = name else { return None };
        let Context { source, limits, .. } = &self.context;
        let bytes = source.read(&format!("{}/{file}", self.fold.origin), limits.records_bytes).ok()?;
        if schemas::Sha256Hex::of(&bytes) != sha256 {
            return None;
        }
        let read = read_records(&bytes, &Limits::default()).ok()?;
        Some(read.rows.into_iter().map(|row| (row.position, row.hash)).collect())
    }

    fn name_of(&self, batch: u64, data: &DataFile) -> schemas::ObjectName {
        let (sha256, kind) = (data.sha256, data.kind.clone());
        schemas::ObjectName::Data { origin: self.fold.origin.clone(), batch, sha256, kind }
    }

    fn references(&mut self) {
        for (hash, named) in &self.fold.story.named {
            if !self.fold.held.contains(hash) {
                let place = Place::record(&self.fold.origin, named.position).of_item(&named.what);
                let expected = format!("the {} {hash} in a reference file of this log", named.what);
                let missing = Finding::new(Code::ReferenceMissing, place, expected, "none");
                // It may stand in a file that could not be read: that is named by itself.
                let unjudged = self.fold.unread_references;
                self.fold.findings.push(if unjudged { missing.unjudged() } else { missing });
            }
        }
    }

    /// Compares with what was seen before.
    fn end_of_visit(&mut self) {
        let Some(visit) = self.visit else { return };
        let size = self.fold.newest.as_ref().map_or(0, |newest| newest.size);
        let place = Place::log(&self.fold.origin);
        let seen = format!("size {} at {}", visit.size, time::text(visit.seen_at));
        if size < visit.size && visit.is_expired(self.options.mandate.retention, self.options.now) {
            self.fold.findings.add(Code::Expired, place, seen, format!("size {size}"));
        } else if size < visit.size {
            let found = format!("size {size}");
            self.fold.findings.add(Code::Rollback, place, seen, found);
        } else if self.fold.consistent_since.is_none()
            && !self.fold.findings.has(Code::Diverged)
            && !self.fold.findings.has(Code::Equivocation)
        {
            let expected = format!("{seen}, root {}", visit.root);
            let finding =
                Finding::new(Code::Diverged, place, expected, "the records up to there cannot be proven");
            // What is missing is named elsewhere; the comparison could not be made.
            self.fold.findings.push(finding.unjudged());
        }
    }
}

/// Splits sealed batches into runs of at most `bytes` of records files and 16 times that of all, since only records are
/// held whole; each at least one batch and at most 64 for each core.
fn windows<'a, 'b>(sealed: &'b [(u64, &'a BatchObjects)], bytes: u64) -> Vec<&'b [(u64, &'a BatchObjects)]> {
    let most = rayon::current_num_threads() * 64;
    let mut out = Vec::new();
    let mut start = 0;
    let mut sum = 0;
    let mut sum_of_all = 0;
    for (n, (_, objects)) in sealed.iter().enumerate() {
        let length: u64 =
            objects.data.iter().filter(|data| data.kind == FileKind::Records).map(|data| data.length).sum();
        let all: u64 = objects.data.iter().map(|data| data.length).sum();
        let full = sum + length > bytes || sum_of_all + all > bytes.saturating_mul(16);
        if n > start && (full || n - start >= most) {
            out.push(&sealed[start..n]);
            start = n;
            sum = 0;
            sum_of_all = 0;
        }
        sum += length;
        sum_of_all += all;
    }
    if start < sealed.len() {
        out.push(&sealed[start..]);
    }
    out
}

/// Tells looked-at batches in order.
struct Tell<'a, 'b> {
    origin: &'a Origin,
    visit: Option<&'a Visit>,
    fold: &'b mut LogFold,
    tail: &'b mut Option<SealTail>,
    options: &'a Options<'a>,
    entry: &'a TrustedGateway,
    bases: &'b mut Bases,
    loader: &'b Loader<'b>,
}

impl Tell<'_, '_> {
    fn all(&mut self, looked: Vec<Looked>, sink: &mut dyn Sink) {
        for looked in looked {
            self.one(looked, sink);
        }
    }

    fn one(&mut self, looked: Looked, sink: &mut dyn Sink) {
        let Looked { number, mark, outcome, closer, findings, unnamed, seals, bytes_hashed } = looked;
        self.fold.findings.append(findings);
        self.fold.counts.seals += seals;
        self.fold.counts.bytes_hashed += bytes_hashed;
        self.fold.marks.insert(number, mark);
        let missing = number > self.fold.next_batch;
        let first_missing = self.fold.next_batch;
        self.fold.next_batch = number + 1;
        let seal = match &outcome {
            Outcome::Proven(proven) => Some(proven.batch.seal()),
            Outcome::Expired(seal) => Some(&**seal),
            Outcome::Broken(seal) => seal.as_deref(),
        };
        let sealed = seal.map(|seal| seal.time);
        let unnamed = unnamed.into_iter().map(|file| Unnamed { batch: number, sealed, file });
        self.fold.unnamed.extend(unnamed);
        if let Some((from, to)) = seal.map(|seal| (seal.from, seal.to))
            && self.speaks_after_a_closer(number, from, closer)
        {
            self.tear();
            self.fold.next_position = self.fold.next_position.max(to);
            return;
        }
        if let Some(to) = seal.map(|seal| seal.to) {
            self.key_counts(number, to);
        }
        match outcome {
            Outcome::Broken(seal) => {
                if missing {
                    self.missing(first_missing, number, seal.as_ref().map(|seal| (seal.from, seal.time)));
                }
                self.tear();
                if let Some(seal) = seal {
                    self.chained(&seal, missing);
                    *self.tail = Some(SealTail::of(&seal, None));
                    self.fold.next_position = self.fold.next_position.max(seal.to);
                } else {
                    *self.tail = None;
                }
            }
            Outcome::Expired(seal) => {
                if missing {
                    self.missing(first_missing, number, Some((seal.from, seal.time)));
                }
                self.tear();
                self.chained(&seal, missing);
                *self.tail = Some(SealTail::of(&seal, None));
                self.fold.counts.expired += 1;
                self.fold.expired_until = self.fold.expired_until.max(Some(seal.time));
                self.fold.next_position = seal.to;
                let place = Place::batch(self.origin, number);
                self.fold.findings.add(
                    Code::Expired,
                    place,
                    "records kept for the asked retention",
                    "expired",
                );
            }
            Outcome::Proven(proven) => {
                let (from, time) = (proven.batch.seal().from, proven.batch.seal().time);
                if missing {
                    self.missing(first_missing, number, Some((from, time)));
                    self.tear();
                    *self.tail = None;
                }
                self.proven(number, *proven, sink);
            }
        }
    }

    /// Notes who seals. True where it is the log's own key, and a closer has sealed before: then it has no word in this
    /// log any more (FORMAT 15.3).
    fn speaks_after_a_closer(&mut self, number: u64, from: u64, closer: Option<[u8; 32]>) -> bool {
        match (&self.fold.closer, closer) {
            (None, Some(key)) => {
                self.fold.closer = Some(Closer { key: schemas::trust::key_text(&key), batch: number, from });
                false
            }
            (Some(since), None) => {
                let place =
                    Place::batch(self.origin, number).in_object(super::seal_name(self.origin, number));
                let expected = format!(
                    "no seal by the log's own key behind batch {}, which a closer sealed",
                    since.batch
                );
                self.fold.findings.add(Code::KeyNotValidForSize, place, expected, "one by that key");
                true
            }
            _ => false,
        }
    }

    /// Holds a seal's end against what its key counts for, whether or not its records are there. A revoked key's limit is
    /// its own: a closer goes on behind it, up to where the log was closed.
    fn key_counts(&mut self, number: u64, to: u64) {
        let counts = match self.fold.closer {
            None => self.entry.counts_for(self.origin, to),
            Some(_) => self.entry.closers_count_for(self.origin, to),
        };
        if !counts {
            let place = Place::batch(self.origin, number).in_object(super::seal_name(self.origin, number));
            let expected = "a seal up to where its key counts for this log";
            self.fold.findings.add(Code::KeyNotValidForSize, place, expected, format!("tree size {to}"));
        }
    }

    /// Holds a seal against the one before it. True where it continues, or nothing is known to hold it against.
    fn chained(&mut self, seal: &schemas::seal::SignedSeal, after_gap: bool) -> bool {
        if seal.batch > 0 && (after_gap || self.tail.is_none()) {
            return true;
        }
        let faults = chain_seal(self.tail.as_ref(), seal);
        let sound = faults.is_empty();
        for fault in faults {
            let name = format!("{}/{:010}.seal", self.origin, seal.batch);
            self.fold.findings.push(finding(fault, Place::batch(self.origin, seal.batch).in_object(name)));
        }
        sound
    }

    /// Batches `first..number` have no seal. `above` is where the first present one begins, and its time.
    fn missing(&mut self, first: u64, number: u64, above: Option<(u64, i64)>) {
        let expired = match (above, self.options.mandate.retention) {
            (Some((_, sealed_at)), Some(retention)) => sealed_at.saturating_add(retention) < self.options.now,
            _ => false,
        };
        let place = Place::batch(self.origin, first);
        let expected = format!("the seals of batches {first} to {}", number - 1);
        let found = match above {
            Some((from, _)) => format!(
                "none; positions {} to {} are not there",
                self.fold.next_position,
                from.saturating_sub(1)
            ),
            None => "none".into(),
        };
        if expired {
            self.fold.counts.expired += number - first;
            self.fold.expired_until = self.fold.expired_until.max(above.map(|(_, sealed_at)| sealed_at));
            self.fold.findings.add(Code::Expired, place, expected, found);
        } else {
            self.fold.findings.add(Code::BatchMissing, place, expected, found);
        }
    }

    fn tear(&mut self) {
        self.fold.story.tear();
        self.fold.torn = true;
    }

    fn proven(&mut self, number: u64, proven: Proven, sink: &mut dyn Sink) {
        let Proven { batch, content, reference, bytes } = proven;
        let seal = batch.seal();
        let origin = self.origin;
        let place = || Place::batch(origin, number).in_object(super::seal_name(origin, number));
        if self.tail.is_none() && number > 0 && !self.fold.torn {
            self.tear();
        }
        let sound = self.chained(seal, false);
        if seal.from < self.fold.next_position {
            let expected = format!("a batch that begins at {}", self.fold.next_position);
            self.fold.findings.add(
                Code::DuplicateRange,
                place(),
                expected,
                format!("one that begins at {}", seal.from),
            );
        }
        *self.tail = Some(batch.tail());
        if !sound {
            // Signed, but not in its place: its records are not told.
            self.tear();
            self.fold.next_position = self.fold.next_position.max(seal.to);
            return;
        }
        self.times(number, seal.time, &batch);
        self.fold.story.begin_batch(number);
        for row in batch.rows() {
            let decoded = row.decoded();
            let record = decoded.record.as_ref();
            self.fold.story.tell(
                row.position(),
                decoded.kind(),
                row.leaf().len(),
                record,
                &mut self.fold.findings,
            );
            for key in &decoded.unknown_keys {
                self.fold.story.tally.unknown_key(&format!("{}.{key}", decoded.kind()));
            }
        }
        for column in batch.unknown_columns() {
            self.fold.story.tally.unknown_column(column, 1);
        }
        if !seal.unknown_signatures().is_empty() {
            let count = seal.unknown_signatures().len() as u64;
            self.fold.story.tally.unknown_column("signatures by other keys", count);
        }
        reference.merge(self.fold);
        self.costs(&batch);
        content.merge(number, self.fold, self.bases, self.loader);
        self.met(number, &batch);
        self.span(&batch);
        self.fold.counts.batches += 1;
        self.fold.counts.leaves += batch.rows().len() as u64;
        self.fold.next_position = seal.to;
        self.fold.newest = Some(Newest {
            batch: number,
            size: seal.to,
            root: seal.root,
            seal: seal.sha256(),
            time: seal.time,
        });
        sink.batch(self.origin, &batch, bytes);
    }

    /// Adds the batch's time to the proven runs.
    fn span(&mut self, batch: &VerifiedBatch) {
        let times =
            || batch.rows().iter().filter_map(|row| row.decoded().record.as_ref().map(|record| record.at));
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return };
        // Recovery makes its records later than what they tell of: the run ends with the living process.
        let end = self.fold.story.alive_at.map_or(last, |alive| alive.min(last));
        match self.fold.proven.last_mut() {
            Some(run) if !self.fold.torn => run.1 = run.1.max(end),
            _ => self.fold.proven.push((first, end.max(first))),
        }
        self.fold.torn = false;
    }

    /// Times of records against the time of their seal and the auditor's clock.
    fn times(&mut self, number: u64, sealed_at: i64, verified: &VerifiedBatch) {
        const SLACK: i64 = 60 * time::SECOND;
        let latest = verified
            .rows()
            .iter()
            .filter_map(|row| row.decoded().record.as_ref().map(|record| (record.at, row.position())))
            .max();
        if let Some((at, position)) = latest
            && at > sealed_at + SLACK
        {
            let place = Place::record(self.origin, position);
            let expected = format!("a time before its seal's, {}", time::text(sealed_at));
            self.fold.findings.add(Code::TimeContradiction, place, expected, time::text(at));
        }
        if sealed_at > self.options.now.saturating_add(5 * SLACK) {
            let place = Place::batch(self.origin, number).of_item("time");
            let expected = format!("a time before the auditor's, {}", time::text(self.options.now));
            self.fold.findings.add(Code::TimeContradiction, place, expected, time::text(sealed_at));
        }
    }

    fn costs(&mut self, verified: &VerifiedBatch) {
        for row in verified.rows() {
            let Some(record) = &row.decoded().record else { continue };
            let (exchange, priced, costless) = match &record.body {
                Body::Outcome(outcome) => {
                    (&outcome.exchange, Priced::outcome(outcome), Costless::outcome(outcome))
                }
                Body::Attempt(attempt) => {
                    (&attempt.exchange, Priced::attempt(attempt), Costless::attempt(attempt))
                }
                Body::Config(config) => {
                    self.fold.books.takes_effect(row.position(), record.at, config);
                    continue;
                }
                _ => continue,
            };
            let place = || Place::record(self.origin, row.position()).of_exchange(exchange);
            if let Some(costless) = costless {
                self.fold.books.check_costless(record.at, &costless, place, &mut self.fold.findings);
            }
            let Some(priced) = priced else { continue };
            if self.fold.books.check(record.at, &priced, place, &mut self.fold.findings) {
                self.fold.story.tally.recomputed += 1;
                continue;
            }
            self.fold.story.tally.not_recomputed += 1;
            if self.fold.held.contains(&priced.book()) {
                self.fold.books.unread(priced.book(), place(), &mut self.fold.findings);
            }
        }
    }

    /// Compares with the earlier visit where this batch reaches its size.
    fn met(&mut self, number: u64, verified: &VerifiedBatch) {
        let Some(visit) = self.visit else { return };
        let seal = verified.seal();
        let place = Place::batch(self.origin, number);
        if number == visit.batch && seal.to == visit.size && seal.root == visit.root {
            if seal.sha256() == visit.seal {
                self.fold.consistent_since = Some(visit.seen_at);
                self.fold.met = Some(visit.seal);
            } else {
                let expected = format!("seal {} as at {}", visit.seal, time::text(visit.seen_at));
                self.fold.findings.add(
                    Code::Equivocation,
                    place,
                    expected,
                    format!("seal {}", seal.sha256()),
                );
            }
            return;
        }
        if seal.from < visit.size && visit.size <= seal.to {
            let mut range = match seal.before() {
                Ok(range) => range,
                Err(_) => return,
            };
            for row in verified.rows().iter().take_while(|row| row.position() < visit.size) {
                range.append(*row.hash());
            }
            let found = range.root();
            let expected =
                format!("root {} at size {}, as at {}", visit.root, visit.size, time::text(visit.seen_at));
            if found == visit.root {
                let found = format!("the same records in batch {number}, sealed anew");
                self.fold.findings.add(Code::Equivocation, place, expected, found);
            } else {
                self.fold.findings.add(Code::Diverged, place, expected, format!("root {found}"));
            }
        }
    }
}
