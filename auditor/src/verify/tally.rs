//! What was counted in a log, or in all.

use std::collections::BTreeMap;

use schemas::record::{Asked, Attributed, Caller, Source};
use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;

/// What was counted in a log, or in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Records by kind, unknown ones too.
    pub kinds: BTreeMap<String, u64>,
    /// Records.
    pub records: u64,
    /// Leaf bytes.
    pub leaf_bytes: u64,
    /// Outcomes by how they ended.
    pub ends: BTreeMap<String, u64>,
    /// Outcomes by where their usage comes from.
    pub usage_sources: BTreeMap<String, u64>,
    /// Outcomes with usage incurred but without a cost.
    pub unpriced: u64,
    /// Those of them of whose usage nobody knows.
    #[serde(default)]
    pub no_usage: u64,
    /// Cost by currency.
    pub cost: BTreeMap<String, Decimal>,
    /// Costs that were computed again from price book and usage.
    pub recomputed: u64,
    /// Costs that could not be computed again.
    pub not_recomputed: u64,
    /// Parts named by records, and those of them whose content was kept.
    pub parts: u64,
    /// Parts that were kept.
    pub parts_kept: u64,
    /// Kept parts whose commitment was checked.
    pub parts_proven: u64,
    /// Kept parts whose content was read but not opened: no key.
    pub parts_unopened: u64,
    /// Kept parts whose key was destroyed by a recorded erasure.
    pub parts_erased: u64,
    /// Exchanges by system.
    pub systems: BTreeMap<String, u64>,
    /// Refused exchanges, folded ones counted each.
    pub refused: u64,
    /// Policy verdicts that would have refused.
    pub would_deny: u64,
    /// Exchanges that passed on a route with `fail_mode: open`.
    pub fail_open: u64,
    /// Attempts of callers to switch recording off.
    pub suppressions: u64,
    /// Exchanges of callers whose name, or something else that is said of them, nothing proves.
    #[serde(default)]
    pub unproven: u64,
    /// What is said of them so: how often by what it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unproven_names: BTreeMap<String, u64>,
    /// Unknown kinds, with counts.
    pub unknown_kinds: BTreeMap<String, u64>,
    /// Unknown keys as `kind.key`, with counts.
    pub unknown_keys: BTreeMap<String, u64>,
    /// Unknown columns, with counts of files.
    pub unknown_columns: BTreeMap<String, u64>,
    /// What came under names beyond the first [`NAMES_KEPT`] of those above.
    #[serde(default, skip_serializing_if = "Beyond::is_empty")]
    pub beyond: Beyond,
}

/// How many names from the evidence are kept of each sort: a bound on memory and on the report.
pub const NAMES_KEPT: usize = 1000;

/// What came under names that are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// Exchanges by other systems.
    pub systems: u64,
    /// Records of other unknown kinds.
    pub kinds: u64,
    /// Other unknown keys.
    pub keys: u64,
    /// Other unknown columns.
    pub columns: u64,
    /// Costs in other currencies.
    pub costs: u64,
}

impl Beyond {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts `more` under a name, as long as there are not too many names; gives what was not counted.
fn count_kept(map: &mut BTreeMap<String, u64>, name: &str, more: u64) -> u64 {
    let full = map.len() >= NAMES_KEPT;
    match map.get_mut(name) {
        Some(count) => *count += more,
        None if full => return more,
        None => _ = map.insert(name.to_owned(), more),
    }
    0
}

impl Tally {
    /// Counts what a request says of its caller that no key, token, certificate or route's configuration says: the caller's own word. A
    /// caller has to be one who showed something. The end user's pseudonym is the caller's word by its nature, and not counted; the
    /// gateway's own requests have no caller.
    pub(super) fn caller(&mut self, caller: &Caller, asked: &Asked) {
        let is_own = asked.operation.as_ref().is_some_and(|it| matches!(it.as_str(), "probe" | "routing"));
        if is_own && caller.consumer.is_none() {
            return;
        }
        let showed = |it: &Attributed| matches!(it.source, Source::Key | Source::Claim | Source::Certificate);
        let is_unproven = !caller.consumer.as_ref().is_some_and(showed);
        let said = [
            ("team", &caller.team),
            ("organisation", &caller.organisation),
            ("cost_centre", &caller.cost_centre),
            ("system", &caller.system),
            ("purpose", &caller.purpose),
            ("data_class", &caller.data_class),
        ];
        let said = said.into_iter().filter(|(_, it)| matches!(it, Some(it) if it.source == Source::Asserted));
        let names: Vec<&str> =
            is_unproven.then_some("consumer").into_iter().chain(said.map(|(name, _)| name)).collect();
        self.unproven += u64::from(!names.is_empty());
        for name in names {
            *self.unproven_names.entry(name.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn system(&mut self, name: &str) {
        self.beyond.systems += count_kept(&mut self.systems, name, 1);
    }
    /// Known kinds are always counted: counters are held against them.
    pub(super) fn kind(&mut self, name: &str, known: bool) {
        if !known {
            let beyond = count_kept(&mut self.unknown_kinds, name, 1);
            self.beyond.kinds += beyond;
            if beyond > 0 {
                return;
            }
        }
        match self.kinds.get_mut(name) {
            Some(count) => *count += 1,
            None => _ = self.kinds.insert(name.to_owned(), 1),
        }
    }
    pub(super) fn cost(&mut self, currency: &str, amount: Decimal) {
        let full = self.cost.len() >= NAMES_KEPT;
        match self.cost.get_mut(currency) {
            Some(sum) => *sum = sum.plus(amount),
            None if full => self.beyond.costs += 1,
            None => _ = self.cost.insert(currency.to_owned(), amount),
        }
    }
    /// Counts an unknown key.
    pub(super) fn unknown_key(&mut self, name: &str) {
        self.beyond.keys += count_kept(&mut self.unknown_keys, name, 1);
    }
    /// Counts an unknown column.
    pub(super) fn unknown_column(&mut self, name: &str, more: u64) {
        self.beyond.columns += count_kept(&mut self.unknown_columns, name, more);
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        fn merge(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
            for (key, count) in from {
                *into.entry(key.clone()).or_default() += count;
            }
        }
        merge(&mut self.ends, &other.ends);
        merge(&mut self.usage_sources, &other.usage_sources);
        merge(&mut self.unproven_names, &other.unproven_names);
        let kept = |into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            from.iter().map(|(name, count)| count_kept(into, name, *count)).sum::<u64>()
        };
        self.beyond.systems += other.beyond.systems + kept(&mut self.systems, &other.systems);
        self.beyond.kinds += other.beyond.kinds + kept(&mut self.unknown_kinds, &other.unknown_kinds);
        let is_kept =
            |name: &String| !other.unknown_kinds.contains_key(name) || self.unknown_kinds.contains_key(name);
        for (name, count) in other.kinds.iter().filter(|(name, _)| is_kept(name)) {
            *self.kinds.entry(name.clone()).or_default() += count;
        }
        self.beyond.keys += other.beyond.keys + kept(&mut self.unknown_keys, &other.unknown_keys);
        self.beyond.columns += other.beyond.columns + kept(&mut self.unknown_columns, &other.unknown_columns);
        self.beyond.costs += other.beyond.costs;
        for (currency, amount) in &other.cost {
            self.cost(currency, *amount);
        }
        for (into, from) in [
            (&mut self.records, other.records),
            (&mut self.leaf_bytes, other.leaf_bytes),
            (&mut self.unpriced, other.unpriced),
            (&mut self.no_usage, other.no_usage),
            (&mut self.recomputed, other.recomputed),
            (&mut self.not_recomputed, other.not_recomputed),
            (&mut self.parts, other.parts),
            (&mut self.parts_kept, other.parts_kept),
            (&mut self.parts_proven, other.parts_proven),
            (&mut self.parts_unopened, other.parts_unopened),
            (&mut self.parts_erased, other.parts_erased),
            (&mut self.refused, other.refused),
            (&mut self.would_deny, other.would_deny),
            (&mut self.fail_open, other.fail_open),
            (&mut self.suppressions, other.suppressions),
            (&mut self.unproven, other.unproven),
        ] {
            *into += from;
        }
    }
}

/// Counts of what is not judged, by name.
pub(super) fn not_judged(tally: &Tally) -> BTreeMap<String, u64> {
    let beyond =
        [("kinds", tally.beyond.kinds), ("keys", tally.beyond.keys), ("columns", tally.beyond.columns)];
    let beyond = beyond.into_iter().filter(|(_, count)| *count > 0);
    let beyond = beyond.map(|(of, count)| (format!("other {of}, beyond {NAMES_KEPT} names"), count));
    let kinds = tally.unknown_kinds.iter().map(|(name, count)| (format!("kind {name}"), *count));
    let keys = tally.unknown_keys.iter().map(|(name, count)| (format!("key {name}"), *count));
    let columns = tally.unknown_columns.iter().map(|(name, count)| (format!("column {name}"), *count));
    kinds.chain(keys).chain(columns).chain(beyond).collect()
}
