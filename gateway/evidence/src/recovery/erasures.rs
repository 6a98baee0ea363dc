//! Erasures that the journal tells of: the records of them that lack, and the keys that go.
//!
//! Of an erasure that is recorded in part the rest is recorded, and only then its key goes: else content would be gone that no record
//! says is erased.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schemas::record::Erasure;
use schemas::{ExchangeId, Identifier};
use serde::Deserialize;

use crate::erase::plan;

/// What the records and the plans of a journal say.
#[derive(Debug, Default)]
pub(super) struct Erasures {
    told: BTreeMap<u64, Told>,
    planned: BTreeMap<Identifier, BTreeMap<ExchangeId, Erasure>>,
}

/// An erasure that is recorded.
#[derive(Debug)]
struct Told {
    at: i64,
    key: Identifier,
    exchange: ExchangeId,
}

/// The keys of a leaf that are looked at.
#[derive(Deserialize)]
struct Glance {
    kind: String,
    at: i64,
    #[serde(default)]
    exchange: Option<ExchangeId>,
    #[serde(default)]
    content_key: Option<Identifier>,
}

impl Told {
    fn read(leaf: &[u8]) -> Option<Self> {
        let Glance { kind, at, exchange, content_key } = serde_json::from_slice(leaf).ok()?;
        (kind == "erasure").then_some(Self { at, key: content_key?, exchange: exchange? })
    }
}

impl Erasures {
    /// A record says that the exchange's content goes with the key.
    pub(super) fn tell(&mut self, position: u64, at: i64, key: Identifier, exchange: ExchangeId) {
        self.told.insert(position, Told { at, key, exchange });
    }

    /// A plan says what was to be recorded.
    pub(super) fn plan(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        for erasure in plan::read(bytes)? {
            let of_key = self.planned.entry(erasure.content_key.clone()).or_default();
            of_key.insert(erasure.exchange.clone(), erasure);
        }
        Ok(())
    }

    /// The erasures that lack, each with the time of those under its key that are recorded. Of one of which nothing is recorded
    /// nothing lacks: nobody was told of it. Where any under the key `is_held` since that time, recorded or not, nothing is added: the
    /// key keeps all of it. What stands `beyond` the journal, or in place of what is damaged in it, is recorded too.
    pub(super) fn lacking(
        &self,
        beyond: &BTreeMap<u64, Bytes>,
        is_held: impl Fn(&Erasure, i64) -> bool,
    ) -> Vec<(i64, Erasure)> {
        let mut recorded: BTreeMap<&Identifier, (i64, BTreeSet<&ExchangeId>)> = BTreeMap::new();
        let beyond: Vec<Told> = beyond.values().filter_map(|leaf| Told::read(leaf)).collect();
        for Told { at, key, exchange } in self.told.values().chain(&beyond) {
            let (latest, exchanges) = recorded.entry(key).or_insert((*at, BTreeSet::new()));
            *latest = (*latest).max(*at);
            exchanges.insert(exchange);
        }
        let mut lacking = Vec::new();
        for (key, planned) in &self.planned {
            let Some((at, exchanges)) = recorded.get(key) else { continue };
            let rest: Vec<&Erasure> =
                planned.values().filter(|erasure| !exchanges.contains(&erasure.exchange)).collect();
            if rest.is_empty() {
                continue;
            }
            if let Some(held) = planned.values().find(|erasure| is_held(erasure, *at)) {
                let exchange = &held.exchange;
                tracing::error!(%key, %exchange, "an erasure was recorded in part, and a legal hold began since, or may have: the rest is not recorded");
                continue;
            }
            lacking.extend(rest.into_iter().map(|erasure| (*at, erasure.clone())));
        }
        lacking
    }

    /// The keys that are to go: all is recorded, where the records of `extra` stand in the log, some in the place of the journal's.
    /// One that `is_gone` needs nothing.
    pub(super) fn whole(
        &self,
        extra: &BTreeMap<u64, Bytes>,
        is_gone: impl Fn(&Identifier) -> bool,
    ) -> BTreeSet<Identifier> {
        let mut recorded: BTreeMap<Identifier, BTreeSet<ExchangeId>> = BTreeMap::new();
        for (_, told) in self.told.iter().filter(|(position, _)| !extra.contains_key(position)) {
            recorded.entry(told.key.clone()).or_default().insert(told.exchange.clone());
        }
        // A plan stands before its records: where there is none, a record of the journal is all that its key needs, and of another
        // one nobody knows here.
        let alone: BTreeSet<Identifier> =
            recorded.keys().filter(|key| !self.planned.contains_key(key)).cloned().collect();
        for Told { key, exchange, .. } in extra.values().filter_map(|leaf| Told::read(leaf)) {
            recorded.entry(key).or_default().insert(exchange);
        }
        recorded.retain(|key, exchanges| {
            let planned = self.planned.get(key);
            let is_whole = match planned {
                Some(planned) => planned.keys().all(|one| exchanges.contains(one)),
                None => alone.contains(key),
            };
            if !is_whole && !is_gone(key) {
                tracing::error!(%key, "an erasure is recorded in part, or not known to be recorded whole: the key stays; erase again");
            }
            is_whole
        });
        recorded.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use schemas::Origin;
    use schemas::record::{Body, Record, VERSION};

    use super::*;
    use crate::journal::Frame;

    fn id(text: &str) -> Identifier {
        Identifier::new(text).unwrap()
    }

    fn exchange(n: usize) -> ExchangeId {
        ExchangeId::new(format!("00000000-0000-7000-8000-{n:012}")).unwrap()
    }

    fn erasure(n: usize, key: &str) -> Erasure {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let (content_key, reason) = (id(key), id("gdpr-17"));
        Erasure { exchange: exchange(n), origin, position: n as u64, content_key, reason, actor: None }
    }

    fn planned(erasures: &mut Erasures, of: &[Erasure]) {
        for frame in plan::frames(of).unwrap() {
            let Frame::Plan(bytes) = frame else { panic!("{frame:?}") };
            assert!(bytes.len() <= crate::journal::MAX_CONTENT_BYTES);
            erasures.plan(&bytes).unwrap();
        }
    }

    #[test]
    fn what_lacks_of_an_erasure_is_known_as_soon_as_one_of_its_records_is_there() {
        let all: Vec<Erasure> = (0..600).map(|n| erasure(n, "shared")).collect();
        let mut erasures = Erasures::default();
        planned(&mut erasures, &all);
        let nothing = |_: &Erasure, _: i64| false;
        let none = BTreeMap::new();
        assert_eq!(erasures.lacking(&none, nothing), [], "nothing was begun");
        assert!(erasures.whole(&BTreeMap::new(), |_| false).is_empty());
        erasures.tell(7, 50, id("shared"), exchange(0));
        erasures.tell(8, 51, id("shared"), exchange(1));
        erasures.tell(9, 52, id("alone"), exchange(900));
        let held = |erasure: &Erasure, at: i64| (erasure.exchange.clone(), at) == (exchange(300), 51);
        assert_eq!(erasures.lacking(&none, held), [], "one is held: the key keeps all");
        let recorded = |erasure: &Erasure, _: i64| erasure.exchange == exchange(1);
        assert_eq!(erasures.lacking(&none, recorded), [], "its content is there yet");
        let lacking = erasures.lacking(&none, nothing);
        assert_eq!(lacking.len(), 598);
        assert!(lacking.iter().all(|(at, erasure)| *at == 51 && erasure.content_key == id("shared")));
        // Only what is recorded whole goes.
        assert_eq!(erasures.whole(&BTreeMap::new(), |_| false), BTreeSet::from([id("alone")]));
        let leaf = |erasure: &Erasure| {
            let body = Body::Erasure(erasure.clone());
            let record = Record { v: VERSION, at: 51, config: schemas::Sha256Hex([1; 32]), body };
            Bytes::from(schemas::leaf::encode(&record).unwrap())
        };
        let extra: BTreeMap<u64, Bytes> = (10..).zip(lacking.iter().map(|(_, one)| leaf(one))).collect();
        assert_eq!(erasures.whole(&extra, |_| false), BTreeSet::from([id("alone"), id("shared")]));
        // What the store has and the journal lost is not recorded again.
        let (found, left) = (BTreeMap::from([(10, leaf(&all[2]))]), BTreeMap::from([(10, leaf(&all[0]))]));
        assert_eq!([found, left].map(|beyond| erasures.lacking(&beyond, nothing).len()), [597, 598]);
        // Of a key that only another copy of the journal had nobody knows here what it needs.
        let mut others = extra.clone();
        others.insert(999, leaf(&erasure(901, "elsewhere")));
        assert_eq!(erasures.whole(&others, |_| false), BTreeSet::from([id("alone"), id("shared")]));
        // What stands in the place of a record takes it out of the log.
        let instead = BTreeMap::from([(9, leaf(&all[0]))]);
        assert!(erasures.whole(&instead, |_| false).is_empty());
    }

    #[test]
    fn an_erasure_of_one_exchange_needs_no_plan_and_the_longest_names_fit() {
        assert_eq!(plan::frames(&[erasure(1, "alone")]).unwrap(), []);
        let long = "x".repeat(128);
        let part = "a".repeat(36);
        let origin = Origin::new(format!("{part}/{part}/{part}")).unwrap();
        let of = |n| Erasure {
            origin: origin.clone(),
            position: 1 << 53,
            reason: id(&long),
            actor: Some(id(&long)),
            ..erasure(n, &long)
        };
        planned(&mut Erasures::default(), &(0..300).map(of).collect::<Vec<_>>());
    }
}
