//! Whether a verification may go on from an earlier proof of a log, against a listing that was made anew.
//!
//! It may where nothing that the proof rests on is another one now: the trust in the log's keys, what was seen of the
//! log before, and every object of the batches that it covers.

use schemas::trust::{TrustedGateway, key_text};
use schemas::verify::SealTail;
use schemas::{Origin, Sha256Hex};

use super::batch::Context;
use super::listing::LogListing;
use super::log::LogFold;
use super::seal_name;
use crate::finding::{Code, Place};
use crate::state::Visit;

/// What an earlier proof is held against.
pub(super) struct Present<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) entry: &'a TrustedGateway,
    pub(super) listing: &'a LogListing,
    pub(super) visit: Option<&'a Visit>,
    /// How long evidence is kept, microseconds.
    pub(super) retention: Option<i64>,
}

impl Present<'_> {
    /// The proof to go on from; `None`: the log is followed from its beginning.
    pub(super) fn continues(&self, (fold, tail): &(LogFold, SealTail)) -> Option<(LogFold, SealTail)> {
        let judged = fold.findings.has(Code::BatchMissing) || fold.findings.has(Code::Expired);
        let same = self.trusts(fold)
            && self.met(fold)
            && (fold.retention == self.retention || !judged)
            && self.is_there(&fold.origin, tail);
        if !same {
            return None;
        }
        let mut fold = fold.clone();
        let changed = self.changed(&fold);
        if !changed.is_empty() {
            self.expired(&mut fold, &changed)?;
        }
        Some((fold, tail.clone()))
    }

    /// The keys that sealed it still count for what they sealed.
    fn trusts(&self, fold: &LogFold) -> bool {
        let size = fold.newest.as_ref().map_or(0, |newest| newest.size);
        let own = fold.closer.as_ref().map_or(size, |closer| closer.from.min(size));
        let closes = |key: &str| self.context.closers.iter().any(|closer| key_text(closer) == key);
        fold.key == self.entry.key
            && (own == 0 || self.entry.counts_for(&fold.origin, own))
            && fold.closer.as_ref().is_none_or(|closer| closes(&closer.key))
    }

    /// What was seen before lies ahead, or the proof was compared with it.
    fn met(&self, fold: &LogFold) -> bool {
        let Some(visit) = self.visit else { return true };
        let Some(newest) = &fold.newest else { return true };
        visit.size > newest.size || newest.seal == visit.seal || fold.met == Some(visit.seal)
    }

    /// The newest proven seal is still the same.
    fn is_there(&self, origin: &Origin, tail: &SealTail) -> bool {
        let note = self.context.source.read(&seal_name(origin, tail.batch), 1 << 20);
        note.is_ok_and(|note| Sha256Hex::of(&note) == tail.sha256)
    }

    /// Batches below the proof's end of which any object is new, gone or another one, in order.
    fn changed(&self, fold: &LogFold) -> Vec<u64> {
        let now = self.listing.batches.range(..fold.next_batch);
        let new = now.filter(|(_, objects)| objects.seal.is_some());
        let new = new.filter(|(number, objects)| fold.marks.get(number) != Some(&objects.mark));
        let is_here =
            |number: &u64| self.listing.batches.get(number).is_some_and(|objects| objects.seal.is_some());
        let gone = fold.marks.keys().filter(|number| !is_here(number));
        let mut changed: Vec<u64> = new.map(|(number, _)| *number).chain(gone.copied()).collect();
        changed.sort_unstable();
        changed
    }

    /// Goes on without `changed` where all of them were removed after their retention: each seal of theirs that is still
    /// there holds, and it, or the first one above the last, is that old.
    fn expired(&self, fold: &mut LogFold, changed: &[u64]) -> Option<()> {
        let (first, last) = (*changed.first()?, *changed.last()?);
        let before = self.context.expired_before?;
        let batches = &self.listing.batches;
        if changed.iter().any(|number| batches.get(number).is_some_and(|objects| !objects.data.is_empty())) {
            return None;
        }
        let (above, _) = batches.range(last..).find(|(_, objects)| objects.seal.is_some())?;
        if self.context.time_of(*above)? >= before {
            return None;
        }
        for number in changed.iter().filter(|number| *number < above) {
            let has_seal = batches.get(number).is_some_and(|objects| objects.seal.is_some());
            if has_seal && self.context.time_of(*number)? >= before {
                return None;
            }
        }
        for number in changed {
            match batches.get(number).filter(|objects| objects.seal.is_some()) {
                Some(objects) => fold.marks.insert(*number, objects.mark),
                None => fold.marks.remove(number),
            };
        }
        let place = Place::batch(&fold.origin, first);
        let expected = format!("{} batches of {first} to {last} that were proven earlier", changed.len());
        fold.findings.add(Code::Expired, place, expected, "removed after the asked retention");
        Some(())
    }
}
