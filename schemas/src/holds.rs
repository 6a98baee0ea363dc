//! Legal holds: what a hold covers, and which are in force. One rule for gateway, registrar and auditor.
//!
//! A hold is a name, as a rule that of a case. `hold` records of any log of the deployment begin it, each with a scope, and
//! end it whole. Format: `FORMAT.md` 3.11.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{ExchangeId, Identifier, Origin};
use crate::record::Hold;

/// Which exchanges a `begin` covers: those that meet all that is said; where nothing is said, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// In `begin`: only this exchange.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<ExchangeId>,
    /// In `begin`: only exchanges of this subject.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Identifier>,
    /// In `begin`: only exchanges of this consumer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<Identifier>,
    /// In `begin`: only exchanges that began then or later, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<i64>,
    /// In `begin`: only exchanges that began before, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<i64>,
}

/// An exchange, as its intent or refusal tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About<'a> {
    /// The exchange.
    pub exchange: &'a ExchangeId,
    /// Its subject.
    pub subject: Option<&'a Identifier>,
    /// Its consumer.
    pub consumer: Option<&'a Identifier>,
    /// The time of that record.
    pub at: i64,
}

impl Scope {
    /// Whether the exchange is in it.
    pub fn covers(&self, about: &About<'_>) -> bool {
        self.exchange.as_ref().is_none_or(|exchange| exchange == about.exchange)
            && self.subject.as_ref().is_none_or(|subject| about.subject == Some(subject))
            && self.consumer.as_ref().is_none_or(|consumer| about.consumer == Some(consumer))
            && self.from.is_none_or(|from| about.at >= from)
            && self.to.is_none_or(|to| about.at < to)
    }

    /// Whether nothing but the exchange's id is needed to tell.
    pub fn is_told_by_id(&self) -> bool {
        self.subject.is_none() && self.consumer.is_none() && self.from.is_none() && self.to.is_none()
    }
}

/// A moment: a time, and where it is that of a record, its place, which counts before the time within one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Microseconds UTC.
    pub at: i64,
    /// Log and position.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<(Origin, u64)>,
}

impl Moment {
    /// Without a record.
    pub fn at(at: i64) -> Self {
        Self { at, place: None }
    }

    /// Whether this is not later than `other`.
    pub fn is_by(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Some((log, position)), Some((other_log, other_position))) if log == other_log => {
                position <= other_position
            }
            _ => self.at <= other.at,
        }
    }

    /// Whether this was not later than `other`, where the clocks of two gateways may be apart by as much as `slack` says: with
    /// one above 0 whether it may have been, with one below 0 whether it must have been. One log has an order of its
    /// own, one gateway has one clock, and a moment without a record is by the clock of who asks.
    fn is_by_within(&self, other: &Self, slack: i64) -> bool {
        match (&self.place, &other.place) {
            (Some((log, _)), Some((other_log, _)))
                if (log.deployment(), log.gateway()) != (other_log.deployment(), other_log.gateway()) =>
            {
                self.at <= other.at.saturating_add(slack)
            }
            _ => self.is_by(other),
        }
    }
}

/// How far the clocks of two gateways may be apart, microseconds: what two of them said within it has no order.
pub const CLOCKS_APART_US: i64 = 60_000_000;

/// One `begin` or `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The hold.
    pub hold: Identifier,
    /// Whether it begins; else it ends.
    pub begins: bool,
    /// What it covers from then on, where it begins.
    #[serde(default)]
    pub scope: Scope,
    /// When it was said, and where.
    pub moment: Moment,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Identifier>,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Identifier>,
}

impl Said {
    /// What a record says; `None` for a phase that this version does not know.
    pub fn of(hold: &Hold, moment: Moment) -> Option<Self> {
        let begins = match hold.phase.as_str() {
            "begin" => true,
            "end" => false,
            _ => return None,
        };
        let (reason, actor) = (hold.reason.clone(), hold.actor.clone());
        Some(Self { hold: hold.hold.clone(), begins, scope: hold.scope.clone(), moment, reason, actor })
    }
}

/// The two parts of an origin that name a gateway.
type GatewayName<'a> = (&'a str, &'a str);

fn gateway_of(log: &Origin) -> GatewayName<'_> {
    (log.deployment(), log.gateway())
}

/// The latest of many times, and whose it is; and the latest of all others.
#[derive(Debug)]
struct Two<K> {
    first: Option<(K, i64)>,
    second: Option<i64>,
}

impl<K> Default for Two<K> {
    fn default() -> Self {
        Self { first: None, second: None }
    }
}

impl<K: PartialEq> Two<K> {
    fn add(&mut self, whose: K, at: i64) {
        match &mut self.first {
            Some((known, latest)) if *known == whose => *latest = at.max(*latest),
            Some((_, latest)) if *latest >= at => self.second = self.second.max(Some(at)),
            first => {
                self.second = first.as_ref().map(|(_, latest)| *latest).max(self.second);
                *first = Some((whose, at));
            }
        }
    }

    fn latest(&self) -> Option<i64> {
        self.first.as_ref().map(|(_, latest)| *latest)
    }

    fn but_of(&self, whose: &K) -> Option<i64> {
        let is_first = self.first.as_ref().is_some_and(|(known, _)| known == whose);
        if is_first { self.second } else { self.latest() }
    }
}

/// The latest of many moments, as far as it takes to tell whether another one is by any of them, without a look at each.
#[derive(Debug, Default)]
struct Latest<'a> {
    /// Of those without a record.
    bare: Option<i64>,
    positions: BTreeMap<&'a Origin, u64>,
    of_gateways: BTreeMap<GatewayName<'a>, Two<&'a Origin>>,
    of_all: Two<GatewayName<'a>>,
}

impl<'a> Latest<'a> {
    fn of(moments: impl IntoIterator<Item = &'a Moment>) -> Self {
        let mut latest = Self::default();
        for Moment { at, place } in moments {
            let Some((log, position)) = place else {
                latest.bare = latest.bare.max(Some(*at));
                continue;
            };
            let known = latest.positions.entry(log).or_insert(*position);
            *known = (*known).max(*position);
            latest.of_gateways.entry(gateway_of(log)).or_default().add(log, *at);
            latest.of_all.add(gateway_of(log), *at);
        }
        latest
    }

    /// Whether the moment is by any of them, as [`Moment::is_by_within`] has it.
    fn is_behind(&self, moment: &Moment, slack: i64) -> bool {
        let reaches = |latest: Option<i64>| latest.is_some_and(|latest| moment.at <= latest);
        let Some((log, position)) = &moment.place else {
            return reaches(self.bare) || reaches(self.of_all.latest());
        };
        let gateway = gateway_of(log);
        self.positions.get(log).is_some_and(|last| position <= last)
            || reaches(self.bare)
            || reaches(self.of_gateways.get(&gateway).and_then(|of| of.but_of(&log)))
            || reaches(self.of_all.but_of(&gateway).map(|latest| latest.saturating_add(slack)))
    }
}

/// What was said of one hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfHold {
    said: Vec<Said>,
    /// When its ends were said: few, where its beginnings may be many.
    ends: Vec<Moment>,
    places: BTreeSet<(Origin, u64)>,
}

impl OfHold {
    /// The ends that must be by a moment, or may be, by [`Holds::in_force_within`].
    fn ends_by(&self, moment: &Moment, slack: i64) -> Latest<'_> {
        let off = slack.saturating_neg();
        Latest::of(self.ends.iter().filter(|end| end.is_by_within(moment, off)))
    }
}

/// Whether a beginning is in force at a moment, where these are the ends that are by it.
fn is_in_force(begun: &Said, ends: &Latest<'_>, moment: &Moment, slack: i64) -> bool {
    begun.begins
        && begun.moment.is_by_within(moment, slack)
        && !ends.is_behind(&begun.moment, slack.saturating_neg())
}

/// All that was said of holds. What it takes to look something up grows with the number of sayings, and with nothing else, however
/// they were made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    by_name: BTreeMap<Identifier, OfHold>,
}

impl Holds {
    /// Adds what was said; the same record counts once.
    pub fn add(&mut self, said: Said) {
        let of_hold = self.by_name.entry(said.hold.clone()).or_default();
        let is_new = said.moment.place.as_ref().is_none_or(|place| of_hold.places.insert(place.clone()));
        if is_new {
            if !said.begins {
                of_hold.ends.push(said.moment.clone());
            }
            of_hold.said.push(said);
        }
    }

    fn said(&self, hold: &Identifier) -> &[Said] {
        self.by_name.get(hold).map_or(&[][..], |of_hold| of_hold.said.as_slice())
    }

    /// How often a hold was ended: so much is gone through for each look at what of it is in force.
    pub fn ends_of(&self, hold: &Identifier) -> usize {
        self.by_name.get(hold).map_or(0, |of_hold| of_hold.ends.len())
    }

    /// All beginnings.
    pub fn begun(&self) -> impl Iterator<Item = &Said> {
        self.by_name.values().flat_map(|of_hold| &of_hold.said).filter(|said| said.begins)
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The names of all holds.
    pub fn names(&self) -> impl Iterator<Item = &Identifier> {
        self.by_name.keys()
    }

    /// When what was said of a hold by others would take a record of that moment out of force, or never let it take any effect: the
    /// latest of the ends that are not surely before a `begin`, or of the beginnings in force that are not surely before an `end`
    /// ([`CLOCKS_APART_US`]).
    pub fn outruns(&self, hold: &Identifier, begins: bool, moment: &Moment) -> Option<&Moment> {
        let of_hold = self.said(hold);
        let off = CLOCKS_APART_US.saturating_neg();
        let ends = of_hold.iter().filter(|said| !said.begins).map(|said| &said.moment);
        let ends = if begins { Latest::default() } else { Latest::of(ends) };
        let counts = |said: &&Said| match begins {
            true => !said.begins && moment.is_by_within(&said.moment, CLOCKS_APART_US),
            false => {
                // What has no record ends with the hold all the same.
                let is_later = said.moment.place.is_some() && !said.moment.is_by_within(moment, off);
                said.begins && is_later && !ends.is_behind(&said.moment, off)
            }
        };
        of_hold.iter().filter(counts).map(|said| &said.moment).max_by_key(|moment| moment.at)
    }

    /// The beginnings of a hold that are in force at a moment.
    pub fn in_force(&self, hold: &Identifier, moment: &Moment) -> impl Iterator<Item = &Said> {
        self.in_force_within(hold, moment, 0)
    }

    /// As [`Self::in_force`], where the clocks of two gateways may be apart: with a `slack` above 0 those that may be in force,
    /// with one below 0 those that must be.
    pub fn in_force_within(
        &self,
        hold: &Identifier,
        moment: &Moment,
        slack: i64,
    ) -> impl Iterator<Item = &Said> {
        let ends = self.by_name.get(hold).map(|of_hold| of_hold.ends_by(moment, slack)).unwrap_or_default();
        self.said(hold).iter().filter(move |begun| is_in_force(begun, &ends, moment, slack))
    }

    /// Those of some beginnings that are in force at a moment, by [`Self::in_force_within`].
    pub fn in_force_of<'a>(
        &'a self,
        begun: impl IntoIterator<Item = &'a Said>,
        moment: &Moment,
        slack: i64,
    ) -> Vec<&'a Said> {
        let mut ends: BTreeMap<&Identifier, Latest<'_>> = BTreeMap::new();
        let is_now = |begun: &&Said| {
            let Some((hold, of_hold)) = self.by_name.get_key_value(&begun.hold) else { return false };
            let ends = ends.entry(hold).or_insert_with(|| of_hold.ends_by(moment, slack));
            is_in_force(begun, ends, moment, slack)
        };
        begun.into_iter().filter(is_now).collect()
    }

    /// The scopes that are in force at a moment, each with its hold.
    pub fn scopes(&self, moment: &Moment) -> Vec<&Said> {
        self.scopes_within(moment, 0)
    }

    /// As [`Self::scopes`], by [`Self::in_force_within`].
    pub fn scopes_within(&self, moment: &Moment, slack: i64) -> Vec<&Said> {
        self.by_name.keys().flat_map(|hold| self.in_force_within(hold, moment, slack)).collect()
    }

    /// The holds that cover an exchange at a moment. Of many exchanges: [`Sorted`].
    pub fn covering(&self, about: &About<'_>, moment: &Moment) -> BTreeSet<Identifier> {
        let covering = self.scopes(moment).into_iter().filter(|said| said.scope.covers(about));
        covering.map(|said| said.hold.clone()).collect()
    }
}

/// Beginnings, sorted by what they cover, for questions about many exchanges.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    of_exchanges: BTreeMap<&'a ExchangeId, Vec<&'a Said>>,
    of_subjects: BTreeMap<&'a Identifier, Vec<&'a Said>>,
    of_consumers: BTreeMap<&'a Identifier, Vec<&'a Said>>,
    others: Vec<&'a Said>,
}

impl<'a> Sorted<'a> {
    /// Sorts them.
    pub fn new(begun: impl IntoIterator<Item = &'a Said>) -> Self {
        let mut sorted = Self::default();
        for said in begun {
            match &said.scope {
                Scope { exchange: Some(exchange), .. } => {
                    sorted.of_exchanges.entry(exchange).or_default().push(said);
                }
                Scope { subject: Some(subject), .. } => {
                    sorted.of_subjects.entry(subject).or_default().push(said)
                }
                Scope { consumer: Some(consumer), .. } => {
                    sorted.of_consumers.entry(consumer).or_default().push(said);
                }
                _ => sorted.others.push(said),
            }
        }
        sorted
    }

    /// Those that may cover an exchange: all others do not.
    pub fn near(&self, about: &About<'_>) -> Vec<&'a Said> {
        let lists = [
            self.of_exchanges.get(about.exchange),
            about.subject.and_then(|subject| self.of_subjects.get(subject)),
            about.consumer.and_then(|consumer| self.of_consumers.get(consumer)),
            Some(&self.others),
        ];
        lists.into_iter().flatten().flatten().copied().collect()
    }

    /// Those that cover an exchange.
    pub fn covering(&self, about: &About<'_>) -> impl Iterator<Item = &'a Said> {
        self.near(about).into_iter().filter(move |said| said.scope.covers(about))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> Identifier {
        Identifier::new(text).unwrap()
    }

    fn exchange(n: u8) -> ExchangeId {
        ExchangeId::new(format!("00000000-0000-7000-8000-{n:012}")).unwrap()
    }

    fn at(log: &str, position: u64, at: i64) -> Moment {
        Moment { at, place: Some((Origin::new(log).unwrap(), position)) }
    }

    fn said(hold: &str, begins: bool, scope: Scope, moment: Moment) -> Said {
        Said { hold: id(hold), begins, scope, moment, reason: None, actor: None }
    }

    const LOG: &str = "acme/gw1/e1";

    #[test]
    fn a_scope_covers_what_meets_all_that_it_says() {
        let (one, ana, bot) = (exchange(1), id("p:ana"), id("bot"));
        let about = About { exchange: &one, subject: Some(&ana), consumer: Some(&bot), at: 50 };
        let all = Scope::default();
        let table = [
            (all.clone(), true),
            (Scope { exchange: Some(one.clone()), ..all.clone() }, true),
            (Scope { exchange: Some(exchange(2)), ..all.clone() }, false),
            (Scope { subject: Some(ana.clone()), ..all.clone() }, true),
            (Scope { subject: Some(bot.clone()), ..all.clone() }, false),
            (Scope { consumer: Some(bot.clone()), subject: Some(ana.clone()), ..all.clone() }, true),
            (Scope { consumer: Some(ana.clone()), subject: Some(ana.clone()), ..all.clone() }, false),
            (Scope { from: Some(50), to: Some(51), ..all.clone() }, true),
            (Scope { from: Some(51), ..all.clone() }, false),
            (Scope { to: Some(50), ..all }, false),
        ];
        for (scope, covers) in table {
            assert_eq!(scope.covers(&about), covers, "{scope:?}");
        }
        let unknown = About { subject: None, consumer: None, ..about };
        assert!(!Scope { subject: Some(bot.clone()), ..Scope::default() }.covers(&unknown));
    }

    #[test]
    fn a_hold_counts_from_its_beginning_to_its_end_by_position_in_one_log_and_by_time_between_logs() {
        let one = exchange(1);
        let about = About { exchange: &one, subject: None, consumer: None, at: 0 };
        let mut holds = Holds::default();
        holds.add(said("case-1", true, Scope::default(), at(LOG, 5, 100)));
        holds.add(said("case-1", false, Scope::default(), at(LOG, 9, 200)));
        let covered = |moment: &Moment| !holds.covering(&about, moment).is_empty();
        // Within the log its positions say what was first, whatever the times say.
        for (position, time, is) in [(4, 150, false), (6, 50, true), (8, 300, true), (10, 150, false)] {
            assert_eq!(covered(&at(LOG, position, time)), is, "position {position}");
        }
        for (time, is) in [(99, false), (100, true), (199, true), (200, false)] {
            assert_eq!(covered(&at("acme/gw2/e1", 0, time)), is, "time {time}");
            assert_eq!(covered(&Moment::at(time)), is);
        }
    }

    #[test]
    fn an_end_ends_all_that_was_begun_before_under_its_name_and_nothing_else() {
        let (one, two) = (exchange(1), exchange(2));
        let only = |n: &ExchangeId| Scope { exchange: Some(n.clone()), ..Scope::default() };
        let mut holds = Holds::default();
        holds.add(said("case-1", true, only(&one), Moment::at(1)));
        holds.add(said("case-1", true, only(&two), Moment::at(2)));
        holds.add(said("case-2", true, only(&two), Moment::at(3)));
        holds.add(said("case-1", false, Scope::default(), Moment::at(4)));
        holds.add(said("case-1", true, only(&one), Moment::at(6)));
        let names = |n: &ExchangeId, time: i64| {
            let about = About { exchange: n, subject: None, consumer: None, at: 0 };
            let names = holds.covering(&about, &Moment::at(time));
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!((names(&one, 3), names(&two, 3)), ("case-1".into(), "case-1,case-2".into()));
        assert_eq!((names(&one, 5), names(&two, 5)), (String::new(), "case-2".into()));
        assert_eq!((names(&one, 7), names(&two, 7)), ("case-1".into(), "case-2".into()));
    }

    #[test]
    fn between_two_gateways_times_that_are_close_say_neither_what_was_first_nor_that_it_was() {
        let (one, name) = (exchange(1), id("case-1"));
        let about = About { exchange: &one, subject: None, consumer: None, at: 0 };
        let mut holds = Holds::default();
        holds.add(said("case-1", true, Scope::default(), at(LOG, 5, 1000)));
        holds.add(said("case-1", false, Scope::default(), at(LOG, 9, 2000)));
        let within = |moment: &Moment| {
            [-60, 0, 60].map(|slack| {
                let covers = |said: &Said| said.scope.covers(&about);
                holds.in_force_within(&name, moment, slack).any(covers)
            })
        };
        for (time, wanted) in [
            (939, [false, false, false]),
            (940, [false, false, true]),
            (1000, [false, true, true]),
            (1059, [false, true, true]),
            (1060, [true, true, true]),
            (1939, [true, true, true]),
            (1940, [false, true, true]),
            (2000, [false, false, true]),
            (2059, [false, false, true]),
            (2060, [false, false, false]),
        ] {
            assert_eq!(within(&at("acme/gw2/e1", 0, time)), wanted, "time {time}");
            // One gateway has one clock, and so has who asks.
            for own in [at("acme/gw1/e2", 0, time), Moment::at(time)] {
                assert_eq!(within(&own), [wanted[1]; 3], "time {time}");
            }
        }
    }

    #[test]
    fn a_record_that_others_would_not_count_is_told_by_what_outruns_it() {
        const APART: i64 = CLOCKS_APART_US;
        let name = id("case-1");
        let mut holds = Holds::default();
        holds.add(said("case-1", true, Scope::default(), at(LOG, 5, 100)));
        let other = |time| at("acme/gw2/e1", u64::MAX, time);
        let outrun =
            |holds: &Holds, begins, moment: &Moment| holds.outruns(&name, begins, moment).map(|it| it.at);
        assert_eq!(outrun(&holds, false, &other(99 + APART)), Some(100), "nobody knows which was first");
        assert_eq!(outrun(&holds, false, &other(100 + APART)), None);
        assert_eq!(outrun(&holds, true, &other(1)), None);
        holds.add(said("case-1", false, Scope::default(), at(LOG, 9, 200)));
        assert_eq!(outrun(&holds, false, &other(99)), None, "it is over");
        assert_eq!(outrun(&holds, true, &other(200 + APART)), Some(200), "nobody knows which was first");
        assert_eq!(outrun(&holds, true, &other(201 + APART)), None);
        // In the log of the release its order says that it is behind.
        assert_eq!(outrun(&holds, true, &at(LOG, u64::MAX, 5)), None);
        // What was never recorded ends all the same.
        holds.add(said("case-1", true, Scope::default(), Moment::at(900)));
        assert_eq!(outrun(&holds, false, &other(300)), None);
    }

    /// As the rule is said: each beginning against each end.
    fn one_by_one<'a>(said: &'a [Said], moment: &Moment, slack: i64) -> Vec<&'a Said> {
        let off = slack.saturating_neg();
        let is_over = |begun: &Said| {
            let mut ends = said.iter().filter(|end| !end.begins && end.hold == begun.hold);
            ends.any(|end| {
                begun.moment.is_by_within(&end.moment, off) && end.moment.is_by_within(moment, off)
            })
        };
        let is_now =
            |begun: &&Said| begun.begins && begun.moment.is_by_within(moment, slack) && !is_over(begun);
        said.iter().filter(is_now).collect()
    }

    fn moments() -> impl Strategy<Value = Moment> {
        let logs = ["acme/gw1/e1", "acme/gw1/e2", "acme/gw2/e1", "acme/gw2/e2", "acme/gw3/e1"];
        let place = proptest::option::weighted(0.8, (0..logs.len(), 0_u64..12));
        (place, 0_i64..40).prop_map(move |(place, time)| Moment {
            at: time,
            place: place.map(|(log, position)| (Origin::new(logs[log]).unwrap(), position)),
        })
    }

    proptest! {
        #[test]
        fn what_is_in_force_is_what_no_end_is_behind(
            all in proptest::collection::vec((0..2_usize, any::<bool>(), moments()), 0..24),
            moment in moments(),
            slack in -8_i64..9,
        ) {
            let mut holds = Holds::default();
            for (name, begins, moment) in all {
                holds.add(said(["case-1", "case-2"][name], begins, Scope::default(), moment));
            }
            let known: Vec<Said> = holds.names().flat_map(|hold| holds.said(hold)).cloned().collect();
            let wanted = one_by_one(&known, &moment, slack);
            prop_assert_eq!(holds.scopes_within(&moment, slack), wanted.clone());
            prop_assert_eq!(holds.in_force_of(holds.begun(), &moment, slack), wanted);
            for begun in holds.begun().filter(|begun| begun.moment.place.is_some()) {
                let off = CLOCKS_APART_US.saturating_neg();
                let ends = known.iter().filter(|end| !end.begins && end.hold == begun.hold);
                let latest = Latest::of(ends.clone().map(|end| &end.moment));
                let is_over = ends.clone().any(|end| begun.moment.is_by_within(&end.moment, off));
                prop_assert_eq!(latest.is_behind(&begun.moment, off), is_over);
            }
        }

        #[test]
        fn sorted_beginnings_cover_what_they_cover(
            scopes in proptest::collection::vec(
                (proptest::option::of(0..3_u8), proptest::option::of(0..3_u8), proptest::option::of(0..3_u8), 0..3_i64),
                0..20,
            ),
            about in (0..3_u8, proptest::option::of(0..3_u8), proptest::option::of(0..3_u8)),
        ) {
            let name = |n: u8| id(&format!("n{n}"));
            let all: Vec<Said> = scopes.into_iter().map(|(one, subject, consumer, from)| {
                let (subject, consumer) = (subject.map(name), consumer.map(name));
                let scope = Scope { exchange: one.map(exchange), subject, consumer, from: Some(from), to: None };
                said("case-1", true, scope, Moment::at(0))
            }).collect();
            let (one, subject, consumer) = (exchange(about.0), about.1.map(name), about.2.map(name));
            let about = About { exchange: &one, subject: subject.as_ref(), consumer: consumer.as_ref(), at: 1 };
            let found: BTreeSet<&Scope> = Sorted::new(&all).covering(&about).map(|said| &said.scope).collect();
            let wanted: BTreeSet<&Scope> = all.iter().map(|said| &said.scope).filter(|scope| scope.covers(&about)).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn a_hundred_thousand_hostile_sayings_of_one_hold_are_looked_through_once() {
        const MANY: u64 = 100_000;
        let began = Instant::now();
        let mut holds = Holds::default();
        let gateways = ["acme/gw1/e1", "acme/gw1/e2", "acme/gw2/e1"];
        for (n, log) in (0..MANY).zip(gateways.iter().cycle()) {
            let begins = n % 2 == 0;
            // No end is behind a beginning, so that none is found early; and each saying is told twice.
            let time = if begins { 1_000_000_000 + i64::try_from(n).unwrap() } else { 0 };
            let position = if begins { MANY + n } else { n };
            for _ in 0..2 {
                holds.add(said("case-1", begins, Scope::default(), at(log, position, time)));
            }
        }
        let hold = id("case-1");
        assert_eq!(holds.said(&hold).len() as u64, MANY);
        let moment = at("acme/gw3/e1", 0, 3_000_000_000);
        for slack in [-CLOCKS_APART_US, 0, CLOCKS_APART_US] {
            assert_eq!(holds.in_force_within(&hold, &moment, slack).count() as u64, MANY / 2);
        }
        assert_eq!(holds.outruns(&hold, false, &moment), None);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "it took {took:?}");
    }

    #[test]
    fn a_record_counts_once() {
        let mut holds = Holds::default();
        for _ in 0..2 {
            holds.add(said("case-1", true, Scope::default(), at(LOG, 5, 100)));
        }
        assert_eq!(holds.scopes(&Moment::at(100)).len(), 1);
    }
}
