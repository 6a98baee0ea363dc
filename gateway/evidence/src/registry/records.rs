//! Reading the records of the logs: each `hold` and each `erasure` gets its entry, so that all of them stand in one place.
//!
//! Every batch is read once, in order, and verified. A batch that cannot be proven is passed over and named, and what the
//! heads say of how far was read stays below it. After a start it goes on where the log's last head says.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::record::Body;
use schemas::registry::{ContentErased, EntryBody, LegalHold, State};
use schemas::verify::VerifiedBatch;
use schemas::{Identifier, Origin};

use super::read::{batch, seal_note};
use super::scan::{signed, word};
use super::{End, Registrar, RegistrarError, Take};

/// How many batches of a log one round reads: the others, and the heads, are not kept waiting.
const AT_ONCE: u64 = 1024;

/// How far the records of a log were read.
#[derive(Debug, Default)]
pub(super) struct ReadOn {
    /// The next batch.
    next: u64,
    /// The first that could not be proven.
    hole: Option<u64>,
    /// Entries that are due, by the position of their record.
    due: BTreeMap<u64, EntryBody>,
}

impl ReadOn {
    /// All batches below this were read.
    pub(super) fn read(&self) -> u64 {
        self.hole.unwrap_or(self.next)
    }

    /// Whether every batch up to this one was read, as far as it could be.
    pub(super) fn is_at(&self, last: u64) -> bool {
        self.next > last
    }

    fn take(&mut self, origin: &Origin, verified: &VerifiedBatch) {
        for row in verified.rows() {
            let Some(record) = &row.decoded().record else { continue };
            let position = row.position();
            let entry = match &record.body {
                Body::Hold(hold) => EntryBody::LegalHold(LegalHold::of(origin, position, record.at, hold)),
                Body::Erasure(erasure) => {
                    EntryBody::ContentErased(ContentErased::of(origin, position, record.at, erasure))
                }
                _ => continue,
            };
            self.due.insert(position, entry);
        }
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
        let mut reading =
            self.reading.remove(origin).unwrap_or_else(|| ReadOn { next: begun, ..ReadOn::default() });
        let mut result = Ok(());
        for _ in 0..AT_ONCE {
            if reading.is_at(last) {
                break;
            }
            match self.proven(origin, reading.next, signers) {
                Ok(Ok(verified)) => {
                    reading.take(origin, &verified);
                    if reading.next == last {
                        self.looked(origin, End::Read(closes(&verified)));
                    }
                }
                Ok(Err(why)) => {
                    self.warn_once(origin.as_str(), &why);
                    reading.hole.get_or_insert(reading.next);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            reading.next += 1;
        }
        reading.due.retain(|position, _| !trial.ledger().has(origin, *position));
        for entry in reading.due.values() {
            if let Err(why) = take(trial, entry.clone()) {
                self.warn_once(origin.as_str(), &why);
                reading.hole = Some(begun);
            }
        }
        self.reading.insert(origin.clone(), reading);
        result
    }

    /// A batch by itself. The outer error is the store's, the inner one the batch's.
    fn proven(
        &self,
        origin: &Origin,
        number: u64,
        signers: &[[u8; 32]],
    ) -> Result<Result<VerifiedBatch, String>, RegistrarError> {
        let store = Arc::clone(&self.store);
        let Some(note) = seal_note(&*store, origin, number)? else { return Ok(Err("no seal".into())) };
        let Some((sealed, public)) = signed(&note, origin, signers) else {
            return Ok(Err("not signed by a key of the log".into()));
        };
        if sealed.batch != number {
            return Ok(Err(format!("the seal of batch {}", sealed.batch)));
        }
        batch(&*store, origin, &public, &note)
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
