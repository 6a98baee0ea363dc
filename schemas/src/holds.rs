//! Legal holds: what a hold covers, and which are in force. One rule for gateway, registrar and auditor.
//!
//! A hold is a name, as a rule that of a case. `hold` records of any log of the deployment begin it, each with a scope, and
//! end it whole. Format: `FORMAT.md` 3.11.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{ExchangeId, Identifier, Origin};
use crate::record::Hold;

/// Which exchanges a `begin` covers: those that meet all that is said; where nothing is said, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// Only this exchange.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<ExchangeId>,
    /// Only exchanges of this subject.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Identifier>,
    /// Only exchanges of this consumer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consumer: Option<Identifier>,
    /// Only exchanges that began then or later.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<i64>,
    /// Only exchanges that began before.
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
    /// What a record says.
    pub fn of(hold: &Hold) -> Self {
        let Hold { exchange, subject, consumer, from, to, .. } = hold.clone();
        Self { exchange, subject, consumer, from, to }
    }

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
}

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
        Some(Self { hold: hold.hold.clone(), begins, scope: Scope::of(hold), moment, reason, actor })
    }
}

/// All that was said of holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    by_name: BTreeMap<Identifier, Vec<Said>>,
}

impl Holds {
    /// Adds what was said; the same record counts once.
    pub fn add(&mut self, said: Said) {
        let of_hold = self.by_name.entry(said.hold.clone()).or_default();
        let known = said.moment.place.is_some()
            && of_hold.iter().any(|known| known.moment.place == said.moment.place);
        if !known {
            of_hold.push(said);
        }
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The names of all holds.
    pub fn names(&self) -> impl Iterator<Item = &Identifier> {
        self.by_name.keys()
    }

    /// The beginnings of a hold that are in force at a moment.
    pub fn in_force(&self, hold: &Identifier, moment: &Moment) -> impl Iterator<Item = &Said> {
        let of_hold = self.by_name.get(hold).map_or(&[][..], Vec::as_slice);
        of_hold.iter().filter(move |begun| {
            let is_over = |end: &&Said| begun.moment.is_by(&end.moment) && end.moment.is_by(moment);
            begun.begins
                && begun.moment.is_by(moment)
                && !of_hold.iter().filter(|said| !said.begins).any(|end| is_over(&end))
        })
    }

    /// The scopes that are in force at a moment, each with its hold.
    pub fn scopes(&self, moment: &Moment) -> Vec<&Said> {
        self.by_name.keys().flat_map(|hold| self.in_force(hold, moment)).collect()
    }

    /// The holds that cover an exchange at a moment.
    pub fn covering(&self, about: &About<'_>, moment: &Moment) -> BTreeSet<Identifier> {
        let covering = self.scopes(moment).into_iter().filter(|said| said.scope.covers(about));
        covering.map(|said| said.hold.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
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
    fn a_record_counts_once() {
        let mut holds = Holds::default();
        for _ in 0..2 {
            holds.add(said("case-1", true, Scope::default(), at(LOG, 5, 100)));
        }
        assert_eq!(holds.scopes(&Moment::at(100)).len(), 1);
    }
}
