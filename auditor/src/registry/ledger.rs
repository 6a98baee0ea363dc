//! The registry's ledger of holds and erasures, held against the records of the logs. Format: `FORMAT.md` 15.4.

use std::collections::BTreeMap;

use schemas::Origin;
use schemas::holds::{Moment, Said};
use schemas::registry::{ContentErased, LegalHold};

use super::Registry;
use crate::finding::{Code, Findings, Place};
use crate::verify::log::LogFold;

/// Entries whose log does not show its records any more: they stand for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apart {
    /// What they say of holds.
    pub(crate) holds: Vec<Said>,
    /// What they tell of erasures.
    pub(crate) erased: Vec<ContentErased>,
}

/// Whether a log shows all its records: then an entry about another one tells of nothing.
fn shows(fold: Option<&&LogFold>, position: u64) -> bool {
    fold.is_some_and(|fold| {
        let story = &fold.story;
        story.is_whole() && (position < story.tally.records || story.close.is_some())
    })
}

impl Registry {
    /// Names entries without a record, and records without an entry where the registry says that they were read.
    pub(crate) fn ledger(&self, folds: &[&LogFold], findings: &mut Findings) -> Apart {
        let mut apart = Apart::default();
        let ledger = self.state.ledger();
        let by_name: BTreeMap<&Origin, &&LogFold> = folds.iter().map(|fold| (&fold.origin, fold)).collect();
        let of = |origin: &Origin| by_name.get(origin).copied();
        for ((origin, position), entry) in &ledger.holds {
            let fold = of(origin);
            let told = fold.and_then(|fold| fold.story.holds.get(position));
            match told.map(|told| LegalHold::of(origin, *position, told.at, &told.record)) {
                Some(told) if told == *entry => {}
                None if !shows(fold, *position) => {
                    let moment = Moment { at: entry.recorded_at, place: Some((origin.clone(), *position)) };
                    apart.holds.extend(Said::of(&entry.said, moment));
                }
                _ => self.without_record("legal_hold", origin, *position, findings),
            }
        }
        for (origin, of_log) in &ledger.erased {
            let fold = of(origin);
            for (position, entry) in of_log {
                let told = fold.and_then(|fold| fold.story.erasures.get(position));
                match told.map(|told| ContentErased::of(origin, *position, told.at, &told.record)) {
                    Some(told) if told == *entry => {}
                    None if !shows(fold, *position) => apart.erased.push(entry.clone()),
                    _ => self.without_record("content_erased", origin, *position, findings),
                }
            }
        }
        for fold in folds {
            let last = self.state.logs().get(&fold.origin).and_then(|log| log.last());
            let read = last.and_then(|(_, head)| head.read).unwrap_or_default();
            // A phase that is not known has no entry.
            let known = fold.story.holds.iter();
            let known = known.filter(|(_, told)| Said::of(&told.record, Moment::at(told.at)).is_some());
            let holds = known.map(|(position, told)| (*position, told.batch, "hold"));
            let erasures =
                fold.story.erasures.iter().map(|(position, told)| (*position, told.batch, "erasure"));
            for (position, batch, kind) in holds.chain(erasures) {
                if batch < read && !ledger.has(&fold.origin, position) {
                    let expected = format!(
                        "an entry of the registry about this `{kind}`: it says that batches below {read} were read"
                    );
                    findings.add(
                        Code::LedgerMissing,
                        Place::record(&fold.origin, position),
                        expected,
                        "none",
                    );
                }
            }
        }
        apart
    }

    fn without_record(&self, kind: &str, origin: &Origin, position: u64, findings: &mut Findings) {
        let place = Place::log(&self.origin).of_item(format!("{kind} of {origin}, position {position}"));
        findings.add(Code::LedgerMismatch, place, "the record that the entry tells of", "none, or another");
    }
}
