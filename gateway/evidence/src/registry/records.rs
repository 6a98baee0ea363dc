//! Reading the records of the logs: each `hold` and each `erasure` gets its entry, so that all of them stand in one place.
//!
//! Every batch is read, in order, and verified. One that is not in the store, or cannot be read there, is passed over and
//! tried again: the store may be behind the topic. As long as there is such a batch the log's end has no entry, for nobody
//! looks at a log behind its end. One that is there and cannot be proven is passed over and named. What the heads say of how
//! far was read stays below all of these, and below what is due. After a start it goes on where the log's last head says.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::holds::{Moment, Said};
use schemas::record::Body;
use schemas::registry::{ContentErased, EntryBody, LegalHold, State};
use schemas::verify::VerifiedBatch;
use schemas::{Identifier, Origin};

use super::bounds::{Refused, Share};
use super::read::{Unproven, seal_note, stored_batch};
use super::scan::{AGAIN_US, signed, word};
use super::{End, Registrar, RegistrarError, Take};

/// How many batches of a log that are not in the store are passed over; behind that many its others wait.
const MOST_ABSENT: usize = 256;

/// How far the records of a log were read.
#[derive(Debug, Default)]
pub(super) struct ReadOn {
    /// The next batch.
    next: u64,
    /// Batches below it that were not in the store, or not readable, and when each was tried last.
    absent: BTreeMap<u64, i64>,
    /// The first batch that could not be proven, or has something that gets no entry.
    passed_over: Option<u64>,
    /// Entries that are due, by the position of their record, each with its batch.
    due: BTreeMap<u64, (u64, EntryBody)>,
}

impl ReadOn {
    /// All batches below this were read, and what is due of them is in the registry by this state.
    pub(super) fn read(&self, origin: &Origin, state: &State) -> u64 {
        let due = self.due.iter().find(|(position, _)| !state.ledger().has(origin, **position));
        let bounds =
            [self.absent.keys().next().copied(), self.passed_over, due.map(|(_, (batch, _))| *batch)];
        bounds.into_iter().flatten().fold(self.next, u64::min)
    }

    /// Whether nothing more is due of the batches up to this one: each was read, or cannot be proven.
    pub(super) fn is_done(&self, origin: &Origin, last: u64, state: &State) -> bool {
        self.next > last
            && self.absent.is_empty()
            && self.due.keys().all(|position| state.ledger().has(origin, *position))
    }

    /// The batch to read now.
    fn following(&self, last: u64, now: i64) -> Option<u64> {
        let again = self.absent.iter().find(|(_, tried)| now.saturating_sub(**tried) >= AGAIN_US);
        let on = self.next <= last && self.absent.len() < MOST_ABSENT;
        again.map(|(batch, _)| *batch).or(on.then_some(self.next))
    }

    /// A batch was tried.
    fn tried(&mut self, batch: u64) {
        self.absent.remove(&batch);
        self.next = self.next.max(batch.saturating_add(1));
    }

    fn take(&mut self, origin: &Origin, batch: u64, verified: &VerifiedBatch) {
        for row in verified.rows() {
            let Some(record) = &row.decoded().record else { continue };
            let position = row.position();
            let entry = match &record.body {
                // A phase that is not known says nothing to anybody of this version.
                Body::Hold(hold) if Said::of(hold, Moment::at(record.at)).is_some() => {
                    EntryBody::LegalHold(LegalHold::of(origin, position, record.at, hold))
                }
                Body::Erasure(erasure) => {
                    EntryBody::ContentErased(ContentErased::of(origin, position, record.at, erasure))
                }
                _ => continue,
            };
            self.due.insert(position, (batch, entry));
        }
    }

    /// As if a record of a batch had this entry.
    #[cfg(test)]
    pub(super) fn make_due(&mut self, position: u64, batch: u64, entry: EntryBody) {
        self.due.insert(position, (batch, entry));
    }

    fn pass_over(&mut self, batch: u64) {
        self.passed_over = Some(self.passed_over.map_or(batch, |first| first.min(batch)));
    }
}

impl Registrar {
    /// Reads the batches of a log that were followed and not read yet, from `begun` on after a start; entries that are not
    /// in the registry are due, also where an earlier round's batch was refused.
    pub(super) fn ledger(
        &mut self,
        origin: &Origin,
        begun: u64,
        signers: &[[u8; 32]],
        trial: &mut State,
        take: &mut Take<'_>,
    ) -> Result<(), RegistrarError> {
        let Some(last) = self.followed.get(origin).map(|followed| followed.tail.batch) else { return Ok(()) };
        let share = self.bounds.share(self.open_logs);
        let mut reading =
            self.reading.remove(origin).unwrap_or_else(|| ReadOn { next: begun, ..ReadOn::default() });
        // By what is stored, not by what this round tries: its batch may be refused.
        reading.due.retain(|position, _| !self.state.ledger().has(origin, *position));
        let mut result = Ok(());
        if reading.due.is_empty() {
            result = self.read_records(origin, &mut reading, last, signers, share);
            reading.due.retain(|position, _| !self.state.ledger().has(origin, *position));
        }
        self.enter(origin, &mut reading, share, trial, take);
        self.reading.insert(origin.clone(), reading);
        result
    }

    /// Reads a round's share of the batches up to `last`.
    fn read_records(
        &mut self,
        origin: &Origin,
        reading: &mut ReadOn,
        last: u64,
        signers: &[[u8; 32]],
        share: Share,
    ) -> Result<(), RegistrarError> {
        let begun = self.settings.clock.elapsed_us();
        for count in 0..share.reads {
            let now = self.settings.clock.elapsed_us();
            let is_late = count > 0 && now.saturating_sub(begun) >= share.reading_us;
            if is_late || reading.due.len() >= self.bounds.entries.0 {
                break;
            }
            let Some(number) = reading.following(last, now) else { break };
            let found = self.proven(origin, number, signers);
            let found = self.unless_aside(origin.as_str(), found)?;
            let is_again = reading.absent.contains_key(&number);
            reading.tried(number);
            match found {
                Some(Ok(verified)) => {
                    reading.take(origin, number, &verified);
                    if number == last {
                        self.looked(origin, End::Read(closes(&verified)));
                    }
                }
                Some(Err(Unproven::Wrong(why))) => {
                    self.warn_once(origin.as_str(), &why);
                    reading.pass_over(number);
                }
                Some(Err(Unproven::Absent(why))) => {
                    tracing::debug!(%origin, number, why, "not read yet");
                    reading.absent.insert(number, now);
                    if is_again {
                        let what =
                            "batches are not in the store: their holds and erasures, and its end, wait";
                        self.warn_once(origin.as_str(), what);
                    }
                }
                None => _ = reading.absent.insert(number, now),
            }
        }
        Ok(())
    }

    /// Takes a round's share of what is due.
    fn enter(
        &mut self,
        origin: &Origin,
        reading: &mut ReadOn,
        share: Share,
        trial: &mut State,
        take: &mut Take<'_>,
    ) {
        let (mut taken, mut wrong) = (0, Vec::new());
        for (position, (batch, entry)) in &reading.due {
            if trial.ledger().has(origin, *position) {
                continue;
            }
            if taken == share.ledger {
                break;
            }
            match take(trial, entry.clone()) {
                Ok(()) => taken += 1,
                Err(Refused::Full) => break,
                Err(Refused::Wrong(why)) => {
                    self.warn_once(origin.as_str(), &format!("the record at position {position}: {why}"));
                    wrong.push((*position, *batch));
                }
            }
        }
        for (position, batch) in wrong {
            reading.due.remove(&position);
            reading.pass_over(batch);
        }
    }

    /// A batch by itself. The outer error is the store's, the inner one the batch's.
    fn proven(
        &self,
        origin: &Origin,
        number: u64,
        signers: &[[u8; 32]],
    ) -> Result<Result<VerifiedBatch, Unproven>, RegistrarError> {
        let wrong = |why: String| Ok(Err(Unproven::Wrong(why)));
        let store = Arc::clone(&self.store);
        let Some(note) = seal_note(&*store, origin, number)? else {
            return Ok(Err(Unproven::Absent("no seal".into())));
        };
        let Some((sealed, public)) = signed(&note, origin, signers) else {
            return wrong(format!("batch {number} is not signed by a key of the log"));
        };
        if sealed.batch != number {
            return wrong(format!("the seal of batch {} stands as that of {number}", sealed.batch));
        }
        stored_batch(&*store, origin, &public, &note)
    }
}

/// Why the log ends with this batch, where it does.
fn closes(verified: &VerifiedBatch) -> Option<Identifier> {
    let last = verified.rows().last().and_then(|row| row.decoded().record.as_ref());
    match last.map(|record| &record.body) {
        Some(Body::Close(close)) => Identifier::new(word(close.reason)).ok(),
        _ => None,
    }
}
