//! Holds against erasures: nothing that a legal hold covered was to be erased. Format: `FORMAT.md` 3.11.

use std::collections::{BTreeMap, BTreeSet};

use schemas::holds::{About, Holds, Moment, Said};
use schemas::names::FileKind;
use schemas::record::{Body, Caller, Erasure, Hold};
use schemas::verify::{BatchInput, VerifiedBatch, verify_batch};
use schemas::{ExchangeId, Identifier, Origin, seal};
use serde::{Deserialize, Serialize};

use super::log::LogFold;
use super::{Limits, listing, seal_name};
use crate::finding::{Code, Findings, Place};
use crate::registry::{Apart, InForce};
use crate::source::Source;
use crate::time;

/// A `hold` or an `erasure`, by its position in its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told<T> {
    /// The batch that holds it.
    pub batch: u64,
    /// Its time.
    pub at: i64,
    /// What it says.
    pub record: T,
}

/// An erasure that is to be held against the holds.
struct Erased<'a> {
    place: Place,
    found: String,
    exchange: &'a ExchangeId,
    /// Log and position of the exchange's intent or refusal, or of another record of it.
    of: (&'a Origin, u64),
    moment: Moment,
}

/// Holds every erasure, and every destroyed key that no record tells of, against the holds of that time. Gives how many
/// could not be judged: what the exchange was is not readable any more.
pub(super) fn judge(
    source: &dyn Source,
    in_force: &InForce,
    (folds, apart, now): (&[&LogFold], &Apart, i64),
    findings: &mut Findings,
) -> u64 {
    let mut holds = Holds::default();
    for fold in folds {
        for (position, told) in &fold.story.holds {
            let place = Some((fold.origin.clone(), *position));
            Said::of(&told.record, Moment { at: told.at, place })
                .into_iter()
                .for_each(|said| holds.add(said));
        }
    }
    apart.holds.iter().cloned().for_each(|said| holds.add(said));
    if holds.is_empty() {
        return 0;
    }
    let mut records = Records { source, in_force, seals: None, batch: None };
    let mut unknown = 0;
    for erased in erased(folds, apart, now) {
        match covering(&holds, &erased, &mut records) {
            Some(names) if names.is_empty() => {}
            Some(names) => {
                let names: Vec<&str> = names.iter().map(Identifier::as_str).collect();
                let expected = format!("content that is kept, by legal hold {}", names.join(", "));
                let place = erased.place.of_exchange(erased.exchange);
                findings.add(Code::ErasedUnderHold, place, expected, erased.found);
            }
            None => unknown += 1,
        }
    }
    unknown
}

/// Everything that was erased, by record, by the registry's word or without either, in the order of where it was.
fn erased<'a>(folds: &[&'a LogFold], apart: &'a Apart, now: i64) -> Vec<Erased<'a>> {
    let recorded = folds.iter().flat_map(|fold| {
        fold.story.erasures.iter().map(|(position, Told { at, record, .. })| {
            let erased = Erased {
                place: Place::record(&fold.origin, *position),
                found: format!("`erasure` at {}", time::text(*at)),
                exchange: &record.exchange,
                of: (&record.origin, record.position),
                moment: Moment { at: *at, place: Some((fold.origin.clone(), *position)) },
            };
            (record.content_key.as_str(), erased)
        })
    });
    let told = apart.erased.iter().map(|entry| {
        let erased = Erased {
            place: Place::record(&entry.origin, entry.position),
            found: format!("`erasure` at {}, by the registry's entry", time::text(entry.recorded_at)),
            exchange: &entry.exchange,
            of: (&entry.of_origin, entry.of_position),
            moment: Moment { at: entry.recorded_at, place: Some((entry.origin.clone(), entry.position)) },
        };
        (entry.content_key.as_str(), erased)
    });
    let mut declared = BTreeSet::new();
    // When a key went, where that is known: with the first erasure under it.
    let mut went: BTreeMap<&str, Moment> = BTreeMap::new();
    let mut out = Vec::new();
    for (key, erased) in recorded.chain(told) {
        declared.insert((erased.exchange, key));
        let moment = went.entry(key).or_insert_with(|| erased.moment.clone());
        if erased.moment.at < moment.at {
            moment.clone_from(&erased.moment);
        }
        out.push(erased);
    }
    for fold in folds {
        for used in &fold.destroyed {
            let Some(exchange) = &used.exchange else { continue };
            if declared.contains(&(exchange, used.key.as_str())) {
                continue;
            }
            let (found, moment) = match went.get(used.key.as_str()) {
                Some(moment) => {
                    ("a destroyed key, and a record only of other exchanges under it", moment.clone())
                }
                None => ("a destroyed key, and no record of it", Moment::at(now)),
            };
            out.push(Erased {
                place: Place::record(&fold.origin, used.position).of_item(&used.key),
                found: found.into(),
                exchange,
                of: (&fold.origin, used.position),
                moment,
            });
        }
    }
    out.sort_by(|a, b| a.of.cmp(&b.of));
    out
}

/// The holds that covered what was erased; `None` where that cannot be told.
fn covering(holds: &Holds, erased: &Erased<'_>, records: &mut Records<'_>) -> Option<BTreeSet<Identifier>> {
    let scopes = holds.scopes(&erased.moment);
    if scopes.is_empty() {
        return Some(BTreeSet::new());
    }
    let bare = About { exchange: erased.exchange, subject: None, consumer: None, at: erased.moment.at };
    let told_by_id = |said: &&&Said| said.scope.is_told_by_id();
    if scopes.iter().all(|said| told_by_id(&said)) {
        let covering = scopes.iter().filter(|said| said.scope.covers(&bare));
        return Some(covering.map(|said| said.hold.clone()).collect());
    }
    match records.of(erased.of) {
        Some((at, caller)) => {
            let value = |of: &Option<schemas::record::Attributed>| of.as_ref().map(|of| of.value.clone());
            let (subject, consumer) = (value(&caller.subject), value(&caller.consumer));
            let about = About { subject: subject.as_ref(), consumer: consumer.as_ref(), at, ..bare };
            Some(holds.covering(&about, &erased.moment))
        }
        None => {
            let covering = scopes.iter().filter(|said| told_by_id(said) && said.scope.covers(&bare));
            let names: BTreeSet<Identifier> = covering.map(|said| said.hold.clone()).collect();
            (!names.is_empty()).then_some(names)
        }
    }
}

/// Reads single records again: those whose content was erased are few.
struct Records<'a> {
    source: &'a dyn Source,
    in_force: &'a InForce,
    /// The batches of the log that was read last.
    seals: Option<(Origin, Vec<u64>)>,
    batch: Option<VerifiedBatch>,
}

impl Records<'_> {
    /// Time and caller of the record at a place.
    fn of(&mut self, (origin, position): (&Origin, u64)) -> Option<(i64, Caller)> {
        let holds = |batch: &VerifiedBatch| {
            let sealed = batch.seal();
            sealed.origin == *origin && (sealed.from..sealed.to).contains(&position)
        };
        if !self.batch.as_ref().is_some_and(holds) {
            self.batch = self.read(origin, position);
        }
        let batch = self.batch.as_ref()?;
        let row = batch.rows().get(usize::try_from(position.checked_sub(batch.seal().from)?).ok()?)?;
        let record = row.decoded().record.as_ref()?;
        let caller = match &record.body {
            Body::Intent(intent) => intent.caller.clone(),
            Body::Outcome(outcome) => outcome.caller.clone(),
            Body::Refusal(refusal) => refusal.caller.clone()?,
            _ => return None,
        };
        let at = record.at;
        // Content of an outcome is that of its exchange, which began with its intent.
        let begun = match &record.body {
            Body::Outcome(outcome) => outcome.intent_position,
            _ => position,
        };
        if begun < position { self.of((origin, begun)) } else { Some((at, caller)) }
    }

    fn read(&mut self, origin: &Origin, position: u64) -> Option<VerifiedBatch> {
        if self.seals.as_ref().is_none_or(|(log, _)| log != origin) {
            let listing = listing::log(self.source, origin, &mut Findings::default()).ok()?;
            let sealed = listing.batches.iter().filter(|(_, objects)| objects.seal.is_some());
            self.seals = Some((origin.clone(), sealed.map(|(number, _)| *number).collect()));
        }
        let (_, numbers) = self.seals.as_ref()?;
        let note = |number: u64| self.source.read(&seal_name(origin, number), 1 << 20).ok();
        let begins = |number: &u64| {
            let said = note(*number).and_then(|note| seal::parse_unverified(&note).ok());
            said.is_some_and(|said| said.from <= position)
        };
        let number = *numbers.get(numbers.partition_point(begins).checked_sub(1)?)?;
        let note = note(number)?;
        let keys = self.in_force.keys(origin);
        let key = keys.iter().find(|key| seal::verify(&note, key).is_ok())?;
        let signed = seal::verify(&note, key).ok()?;
        let file = signed.file(&FileKind::Records)?;
        let name = format!("{origin}/{}", file.name);
        let records = self.source.read(&name, Limits::default().records_bytes).ok()?;
        let verified = verify_batch(BatchInput { origin, key, seal: &note, records }).ok()?;
        (verified.seal().batch == number && verified.seal().to > position).then_some(verified)
    }
}

/// What is kept of a log's holds and erasures.
pub(super) type Holdings = std::collections::BTreeMap<u64, Told<Hold>>;
/// As [`Holdings`].
pub(super) type Erasures = std::collections::BTreeMap<u64, Told<Erasure>>;
