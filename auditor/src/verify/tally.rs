//! What was counted in a log, or in all.

use std::collections::BTreeMap;

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
    /// Unknown kinds, with counts.
    pub unknown_kinds: BTreeMap<String, u64>,
    /// Unknown keys as `kind.key`, with counts.
    pub unknown_keys: BTreeMap<String, u64>,
    /// Unknown columns, with counts of files.
    pub unknown_columns: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        fn merge(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
            for (key, count) in from {
                *into.entry(key.clone()).or_default() += count;
            }
        }
        merge(&mut self.kinds, &other.kinds);
        merge(&mut self.ends, &other.ends);
        merge(&mut self.usage_sources, &other.usage_sources);
        merge(&mut self.systems, &other.systems);
        merge(&mut self.unknown_kinds, &other.unknown_kinds);
        merge(&mut self.unknown_keys, &other.unknown_keys);
        merge(&mut self.unknown_columns, &other.unknown_columns);
        for (currency, amount) in &other.cost {
            let sum = self.cost.entry(currency.clone()).or_default();
            *sum = sum.plus(*amount);
        }
        for (into, from) in [
            (&mut self.records, other.records),
            (&mut self.leaf_bytes, other.leaf_bytes),
            (&mut self.unpriced, other.unpriced),
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
        ] {
            *into += from;
        }
    }
}
