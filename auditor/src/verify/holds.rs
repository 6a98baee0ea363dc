//! Holds against erasures: nothing that a legal hold covered was to be erased. Format: `FORMAT.md` 3.11.

use std::collections::{BTreeMap, BTreeSet};

use schemas::holds::{About, Holds, Moment, Said, Sorted};
use schemas::names::FileKind;
use schemas::record::{Body, Caller, Erasure, Hold};
use schemas::verify::{BatchInput, VerifiedBatch, verify_batch};
use schemas::{ExchangeId, Identifier, Origin, seal};
use serde::{Deserialize, Serialize};

use super::log::LogFold;
use super::story::DISORDER_US;
use super::{Limits, listing, seal_name};
use crate::finding::{Code, Findings, Place};
use crate::registry::{Apart, InForce};
use crate::source::Source;
use crate::time;

/// So often what was erased is held against a beginning or an end of a hold: more is for nobody's case.
const MOST_COMPARED: u64 = 1 << 27;
/// Up to so many beginnings each erasure is held against all, before its record is read for them.
const FEW: usize = 256;
/// So many names of holds are told with a finding.
const NAMES: usize = 32;

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
    let records = Records { source, in_force, seals: None, batch: None };
    held_against(&holds, erased(folds, apart, now), records, MOST_COMPARED, findings)
}

/// Holds what was erased against the holds, with at most about so many comparisons.
fn held_against(
    holds: &Holds,
    erased: Vec<Erased<'_>>,
    records: Records<'_>,
    most: u64,
    findings: &mut Findings,
) -> u64 {
    let mut court = Court::new(holds, records, most);
    let (mut unknown, all) = (0, erased.len());
    for (n, erased) in erased.into_iter().enumerate() {
        if court.left == 0 {
            let expected = format!("at most {most} comparisons of erasures with holds");
            let found = format!("more: {} of {all} erasures are not held against the holds", all - n);
            findings.add(Code::ResourceLimit, Place::default().of_item("holds"), expected, found);
            break;
        }
        // What must have been in force, by any clock; then what may have been.
        let by = match court.covering(&erased, -DISORDER_US) {
            Some(names) if names.is_empty() => {
                let names = court.covering(&erased, DISORDER_US);
                names.map(|names| (Code::HoldOrderUnknown, names))
            }
            surely => surely.map(|names| (Code::ErasedUnderHold, names)),
        };
        match by {
            Some((_, names)) if names.is_empty() => {}
            Some((code, names)) => {
                let expected = format!("content that is kept, by legal hold {}", told(&names));
                let place = erased.place.of_exchange(erased.exchange);
                findings.add(code, place, expected, erased.found);
            }
            None => unknown += 1,
        }
    }
    unknown
}

/// The names of holds, of many the first.
fn told(names: &BTreeSet<&Identifier>) -> String {
    let first: Vec<&str> = names.iter().take(NAMES).map(|name| name.as_str()).collect();
    let first = first.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
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

/// Which holds covered what.
struct Court<'a> {
    holds: &'a Holds,
    begun: Sorted<'a>,
    /// Beginnings of which an exchange's id does not tell whether they cover it.
    wide: Vec<&'a Said>,
    records: Records<'a>,
    /// Comparisons that are left. Honest holds never use them up.
    left: u64,
}

impl<'a> Court<'a> {
    fn new(holds: &'a Holds, records: Records<'a>, most: u64) -> Self {
        let wide = holds.begun().filter(|said| !said.scope.is_told_by_id()).collect();
        Self { holds, begun: Sorted::new(holds.begun()), wide, records, left: most }
    }

    /// Those in force at a moment, by [`Holds::in_force_within`].
    fn in_force(&mut self, begun: Vec<&'a Said>, moment: &Moment, slack: i64) -> Vec<&'a Said> {
        let of: BTreeSet<&Identifier> = begun.iter().map(|said| &said.hold).collect();
        let compared = begun.len() + of.into_iter().map(|hold| self.holds.ends_of(hold)).sum::<usize>();
        self.left = self.left.saturating_sub(compared as u64);
        self.holds.in_force_of(begun, moment, slack)
    }

    /// The holds that cover an exchange at a moment, as far as `about` tells.
    fn of(&mut self, about: &About<'_>, moment: &Moment, slack: i64) -> BTreeSet<&'a Identifier> {
        let near = self.begun.near(about);
        self.left = self.left.saturating_sub(near.len() as u64);
        let covering = near.into_iter().filter(|said| said.scope.covers(about)).collect();
        self.in_force(covering, moment, slack).into_iter().map(|said| &said.hold).collect()
    }

    /// The holds that covered what was erased; `None` where that cannot be told.
    fn covering(&mut self, erased: &Erased<'_>, slack: i64) -> Option<BTreeSet<&'a Identifier>> {
        let moment = &erased.moment;
        let bare = About { exchange: erased.exchange, subject: None, consumer: None, at: moment.at };
        // Nothing is read where nothing that would need it is in force; of many it is read rather than compared with each.
        let reads = self.wide.len() > FEW || !self.in_force(self.wide.clone(), moment, slack).is_empty();
        let Some((at, caller)) = reads.then(|| self.records.of(erased.of)).flatten() else {
            let near = self.begun.near(&bare);
            self.left = self.left.saturating_sub(near.len() as u64);
            let by_id = |said: &&Said| said.scope.is_told_by_id() && said.scope.covers(&bare);
            let covering = near.into_iter().filter(by_id).collect();
            let names: BTreeSet<&Identifier> =
                self.in_force(covering, moment, slack).into_iter().map(|said| &said.hold).collect();
            let is_told = !names.is_empty() || self.in_force(self.wide.clone(), moment, slack).is_empty();
            return is_told.then_some(names);
        };
        let value = |of: &Option<schemas::record::Attributed>| of.as_ref().map(|of| of.value.clone());
        let (subject, consumer) = (value(&caller.subject), value(&caller.consumer));
        let about = About { subject: subject.as_ref(), consumer: consumer.as_ref(), at, ..bare };
        Some(self.of(&about, moment, slack))
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
        // Content of an outcome or attempt is that of its exchange, which began with its intent.
        let (begun, caller) = match &record.body {
            Body::Intent(intent) => (position, Some(intent.caller.clone())),
            Body::Outcome(outcome) => (outcome.intent_position, Some(outcome.caller.clone())),
            Body::Attempt(attempt) | Body::SideCall(attempt) => (attempt.intent_position, None),
            Body::Refusal(refusal) => (position, Some(refusal.caller.clone()?)),
            _ => return None,
        };
        let at = record.at;
        if begun < position { self.of((origin, begun)) } else { caller.map(|caller| (at, caller)) }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use schemas::holds::Scope;

    use super::*;
    use crate::finding::Effect;
    use crate::source::MemorySource;

    const MANY: u64 = 100_000;

    fn id(text: &str) -> Identifier {
        Identifier::new(text).unwrap()
    }

    fn exchange(n: u64) -> ExchangeId {
        ExchangeId::new(format!("00000000-0000-7000-8000-{n:012}")).unwrap()
    }

    /// Erasures of so many exchanges, behind all that is said of the holds.
    fn judged(holds: &Holds, erasures: u64, most: u64) -> (u64, Findings) {
        let origin = Origin::new("acme/gw2/e1").unwrap();
        let exchanges: Vec<ExchangeId> = (0..erasures).map(exchange).collect();
        let erased = exchanges.iter().zip(0..).map(|(exchange, position)| Erased {
            place: Place::record(&origin, position),
            found: "`erasure`".into(),
            exchange,
            of: (&origin, position),
            moment: Moment { at: 1 << 50, place: Some((origin.clone(), position)) },
        });
        let source = MemorySource::default();
        let in_force = InForce::of(&crate::fixture::trust());
        let records = Records { source: &source, in_force: &in_force, seals: None, batch: None };
        let mut findings = Findings::default();
        let unknown = held_against(holds, erased.collect(), records, most, &mut findings);
        (unknown, findings)
    }

    fn begins(holds: &mut Holds, position: u64, hold: &str, scope: Scope) {
        let place = Some((Origin::new("acme/gw1/e1").unwrap(), position));
        let moment = Moment { at: 1000, place };
        holds.add(Said { hold: id(hold), begins: true, scope, moment, reason: None, actor: None });
    }

    fn count(findings: &Findings, code: Code) -> usize {
        findings.iter().filter(|finding| finding.code == code).count()
    }

    #[test]
    fn a_hold_of_many_exchanges_that_ended_before_they_were_erased_is_no_labour() {
        const LARGEST: u64 = 10_000;
        let mut holds = Holds::default();
        for n in 0..LARGEST {
            begins(&mut holds, n, "case", Scope { exchange: Some(exchange(n)), ..Scope::default() });
        }
        begins(&mut holds, LARGEST, "case", Scope { subject: Some(id("someone")), ..Scope::default() });
        let moment = Moment { at: 2000, place: Some((Origin::new("acme/gw1/e1").unwrap(), LARGEST + 1)) };
        let scope = Scope::default();
        holds.add(Said { hold: id("case"), begins: false, scope, moment, reason: None, actor: None });
        let (unknown, findings) = judged(&holds, LARGEST, 20 * LARGEST);
        assert_eq!((unknown, findings.iter().count()), (0, 0));
    }

    #[test]
    fn a_hundred_thousand_exchanges_under_one_hold_are_found_among_as_many_erasures() {
        let began = Instant::now();
        let mut holds = Holds::default();
        for n in 0..MANY {
            let scope = Scope { exchange: Some(exchange(n * 1000)), ..Scope::default() };
            begins(&mut holds, n, &format!("case-{n}"), scope);
        }
        let (unknown, findings) = judged(&holds, MANY, MOST_COMPARED);
        assert_eq!((unknown, count(&findings, Code::ErasedUnderHold)), (0, 100));
        assert_eq!(findings.iter().count(), 100);
        assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    }

    #[test]
    fn holds_that_are_made_up_to_be_compared_for_ever_end_as_unjudged() {
        let began = Instant::now();
        let mut holds = Holds::default();
        for n in 0..MANY / 10 {
            begins(&mut holds, n, &format!("case-{n}"), Scope::default());
        }
        let (_, findings) = judged(&holds, MANY, 1 << 18);
        assert_eq!(count(&findings, Code::ResourceLimit), 1);
        assert!(findings.effect() >= Effect::Unjudged, "what was not compared is no success");
        let held = count(&findings, Code::ErasedUnderHold);
        assert!(held > 0 && held < 100, "{held} were judged");
        let first = findings.iter().find(|finding| finding.code == Code::ErasedUnderHold).unwrap();
        assert!(
            first.expected.ends_with("and 9968 more") && first.expected.len() < 1000,
            "{}",
            first.expected
        );
        assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    }

    #[test]
    fn where_the_record_cannot_be_read_only_what_needs_it_is_unknown() {
        let subject = |n: u64| Scope { subject: Some(id(&format!("p:{n}"))), ..Scope::default() };
        for many in [1, FEW as u64 + 1] {
            let mut holds = Holds::default();
            (0..many).for_each(|n| begins(&mut holds, n, "wide", subject(n)));
            begins(&mut holds, many, "narrow", Scope { exchange: Some(exchange(1)), ..Scope::default() });
            let (unknown, findings) = judged(&holds, 3, MOST_COMPARED);
            assert_eq!((unknown, count(&findings, Code::ErasedUnderHold)), (2, 1));
            // Once it is over nothing needs to be read.
            let moment = Moment { at: 2000, place: Some((Origin::new("acme/gw1/e1").unwrap(), many + 1)) };
            let scope = Scope::default();
            holds.add(Said { hold: id("wide"), begins: false, scope, moment, reason: None, actor: None });
            let (unknown, findings) = judged(&holds, 3, MOST_COMPARED);
            assert_eq!((unknown, count(&findings, Code::ErasedUnderHold)), (0, 1));
        }
    }
}
