//! Counters of this process: under one lock, so that a reservation over several of them is one step.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::store::{MAX_OF_OWNER, Settle, Take, Taken, Used, share};

/// The most counters of a rule. What comes beyond them shares one of its rule: it is counted too early, and never not at all.
const MAX_OF_RULE: usize = 100_000;

/// How many counters are forgotten under one lock: requests wait for no more than that.
const SWEPT_AT_ONCE: usize = 500;

/// When a counter is looked at again that is still held of when its time is over.
const LATER_MS: i64 = 60_000;

/// Counters of this process.
#[derive(Debug, Default)]
pub(crate) struct Local {
    counters: Mutex<Counters>,
}

#[derive(Debug, Clone, Default)]
struct Counter {
    spent: u64,
    held: u64,
    keep_until: Option<i64>,
    /// Whose list it is in.
    of: Option<String>,
}

impl Counter {
    fn all(&self) -> u64 {
        self.spent.saturating_add(self.held)
    }
}

#[derive(Debug, Default)]
struct Counters {
    all: HashMap<Arc<str>, Counter>,
    /// By the end of their time.
    due: BTreeSet<(i64, Arc<str>)>,
    /// How many there are of each owner in each stretch.
    owners: HashMap<String, usize>,
    /// How many there are of each rule.
    rules: HashMap<String, usize>,
}

fn rule_of(key: &str) -> &str {
    key.split(':').next().unwrap_or_default()
}

impl Counters {
    /// Where there is no room for another counter of its owner or its rule, it goes to one that is there for them.
    fn place(&self, take: &mut Take) {
        if self.all.contains_key(take.key.as_str()) {
            return;
        }
        let is_many = |of: &String| self.owners.get(of).is_some_and(|count| *count >= MAX_OF_OWNER);
        if take.of().as_ref().is_some_and(is_many)
            && let Some(owner) = take.owner.clone()
        {
            take.goes_to(&owner);
        }
        let rule = rule_of(&take.key);
        let is_full = self.rules.get(rule).is_some_and(|count| *count >= MAX_OF_RULE);
        if is_full && !self.all.contains_key(take.key.as_str()) {
            let others = format!("{rule}:others");
            take.goes_to(&others);
        }
    }

    /// The counter, new where there is none, to be kept until then.
    fn counter(&mut self, key: &str, of: Option<&String>, keep_until: Option<i64>) -> &mut Counter {
        let key: Arc<str> = match self.all.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => {
                *self.rules.entry(rule_of(key).to_owned()).or_default() += 1;
                if let Some(of) = of {
                    *self.owners.entry(of.clone()).or_default() += 1;
                }
                key.into()
            }
        };
        let counter = self.all.entry(Arc::clone(&key));
        let counter = counter.or_insert_with(|| Counter { of: of.cloned(), ..Counter::default() });
        if counter.keep_until != keep_until {
            if let Some(until) = counter.keep_until {
                self.due.remove(&(until, Arc::clone(&key)));
            }
            if let Some(until) = keep_until {
                self.due.insert((until, key));
            }
            counter.keep_until = keep_until;
        }
        counter
    }

    fn forget(&mut self, key: &str) {
        let Some((key, counter)) = self.all.remove_entry(key) else { return };
        one_less(&mut self.rules, rule_of(&key));
        if let Some(of) = &counter.of {
            one_less(&mut self.owners, of);
        }
        if let Some(until) = counter.keep_until {
            self.due.remove(&(until, key));
        }
    }
}

fn one_less(counts: &mut HashMap<String, usize>, name: &str) {
    let Some(count) = counts.get_mut(name) else { return };
    *count = count.saturating_sub(1);
    if *count == 0 {
        counts.remove(name);
    }
}

impl Local {
    /// Takes all or nothing. A counter for which there is no room goes under the name of its rule's shared one: the keys
    /// that are given back with are put into `takes`.
    pub(crate) fn reserve(&self, takes: &mut [Take]) -> Taken {
        let mut counters = self.lock();
        for take in takes.iter_mut() {
            counters.place(take);
        }
        let mut full = None;
        let mut used = Vec::with_capacity(takes.len());
        // Of one counter under two keys of `takes` the second sees what the first takes.
        let mut more: Vec<(&str, u64)> = Vec::new();
        for (index, take) in takes.iter().enumerate() {
            let mut seen = Self::used(&counters, take);
            let earlier = more.iter().filter(|(key, _)| *key == take.key).map(|(_, amount)| amount);
            seen.held = earlier.fold(seen.held, |held, amount| held.saturating_add(*amount));
            if full.is_none() && take.refuses && !seen.has_room(take) {
                full = Some(index);
            }
            more.push((&take.key, take.amount));
            used.push(seen);
        }
        if let Some(index) = full {
            return Taken::None(index, used);
        }
        for take in takes.iter() {
            let counter = counters.counter(&take.key, take.of().as_ref(), take.keep_until);
            counter.held = counter.held.saturating_add(take.amount);
        }
        Taken::All(used)
    }

    /// Puts the truth in the place of what was reserved. Gives what each counter shows then.
    pub(crate) fn settle(&self, settles: &[Settle]) -> Vec<Used> {
        let mut counters = self.lock();
        let settle = |settle: &Settle| {
            let counter = counters.counter(&settle.key, settle.of.as_ref(), settle.keep_until);
            counter.held = counter.held.saturating_sub(settle.reserved);
            counter.spent = counter.spent.saturating_add(settle.spent);
            let shown = Used { spent: counter.spent, before: 0, held: counter.held };
            // One that shows nothing takes no room.
            if counter.all() == 0 {
                counters.forget(&settle.key);
            }
            shown
        };
        settles.iter().map(settle).collect()
    }

    /// What a counter shows, without taking anything.
    #[cfg(test)]
    pub(crate) fn look(&self, take: &Take) -> Used {
        Self::used(&self.lock(), take)
    }

    /// Forgets counters whose time is over, some under each lock.
    pub(crate) fn sweep(&self, now_ms: i64) {
        while self.sweep_some(now_ms) == SWEPT_AT_ONCE {}
    }

    fn sweep_some(&self, now_ms: i64) -> usize {
        let mut counters = self.lock();
        let due = counters.due.iter().take_while(|(until, _)| *until <= now_ms).take(SWEPT_AT_ONCE);
        let due: Vec<Arc<str>> = due.map(|(_, key)| Arc::clone(key)).collect();
        for key in &due {
            if counters.all.get(key).is_some_and(|counter| counter.held > 0) {
                counters.counter(key, None, Some(now_ms.saturating_add(LATER_MS)));
            } else {
                counters.forget(key);
            }
        }
        due.len()
    }

    fn used(counters: &Counters, take: &Take) -> Used {
        let now = counters.all.get(take.key.as_str());
        let before = take.before.as_ref().map_or(0, |(key, part)| {
            share(counters.all.get(key.as_str()).map(Counter::all).unwrap_or_default(), *part)
        });
        let (spent, held) = now.map(|now| (now.spent, now.held)).unwrap_or_default();
        Used { spent: spent.saturating_add(before), before, held }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        // Numbers that are added and taken away: a panic elsewhere leaves none of them half.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(key: &str, amount: u64, limit: u64) -> Take {
        let key = key.to_owned();
        Take { key, before: None, amount, limit, refuses: true, keep_until: Some(1000), owner: None }
    }

    fn settle(key: &str, reserved: u64, spent: u64) -> Settle {
        Settle { spent, ..take(key, reserved, 0).settle(1) }
    }

    #[test]
    fn all_is_taken_or_nothing() {
        let local = Local::default();
        assert!(matches!(local.reserve(&mut [take("a", 5, 10), take("b", 5, 5)]), Taken::All(_)));
        let refused = local.reserve(&mut [take("a", 5, 10), take("b", 1, 5)]);
        assert_eq!(
            refused,
            Taken::None(1, vec![Used { held: 5, ..Used::default() }, Used { held: 5, ..Used::default() }])
        );
        // Nothing of the first was taken.
        assert!(matches!(local.reserve(&mut [take("a", 5, 10)]), Taken::All(_)));
        local.settle(&[settle("a", 5, 1), settle("b", 5, 0)]);
        assert_eq!(local.look(&take("a", 0, 10)), Used { spent: 1, before: 0, held: 5 });
        assert!(matches!(local.reserve(&mut [take("b", 5, 5)]), Taken::All(_)));
    }

    #[test]
    fn two_rules_on_one_counter_are_both_counted() {
        let local = Local::default();
        assert!(matches!(local.reserve(&mut [take("a", 6, 10), take("a", 6, 10)]), Taken::None(1, _)));
        assert!(matches!(local.reserve(&mut [take("a", 5, 10), take("a", 5, 10)]), Taken::All(_)));
    }

    #[test]
    fn what_is_only_observed_never_refuses() {
        let local = Local::default();
        let mut over = take("a", 50, 10);
        over.refuses = false;
        assert!(matches!(local.reserve(&mut [over]), Taken::All(_)));
        assert_eq!(local.look(&take("a", 0, 10)).held, 50);
    }

    #[test]
    fn counters_go_when_their_time_is_over_but_not_what_is_held() {
        let local = Local::default();
        local.reserve(&mut [take("a", 1, 10), take("b", 1, 10)]);
        local.settle(&[settle("a", 1, 1)]);
        local.sweep(999);
        assert_eq!(local.counters.lock().unwrap().all.len(), 2);
        local.sweep(1000);
        assert_eq!(local.counters.lock().unwrap().all.keys().map(|key| &**key).collect::<Vec<_>>(), ["b"]);
        local.sweep(1000 + LATER_MS);
        local.settle(&[settle("b", 1, 1)]);
        local.sweep(1001 + LATER_MS);
        assert_is_empty(&local);
    }

    fn assert_is_empty(local: &Local) {
        let counters = local.counters.lock().unwrap();
        assert!(counters.all.is_empty() && counters.due.is_empty(), "{counters:?}");
        assert!(counters.owners.is_empty() && counters.rules.is_empty(), "{counters:?}");
    }

    fn chosen(caller: &str, value: usize) -> Take {
        let owner = Some(format!("rule:{caller}+"));
        Take { owner, ..take(&format!("rule:{caller}-{value}:0"), 1, 1) }
    }

    #[test]
    fn a_counter_that_shows_nothing_takes_no_room() {
        let local = Local::default();
        for value in 0..10_000 {
            let mut takes = [chosen("a", value)];
            local.reserve(&mut takes);
            local.settle(&[takes[0].settle(1)]);
        }
        assert_is_empty(&local);
    }

    #[test]
    fn a_caller_that_chooses_too_many_counters_shares_one_and_others_keep_theirs() {
        let local = Local::default();
        for value in 0..MAX_OF_OWNER {
            assert!(matches!(local.reserve(&mut [chosen("a", value)]), Taken::All(_)));
        }
        let mut over = [chosen("a", MAX_OF_OWNER)];
        assert!(matches!(local.reserve(&mut over), Taken::All(_)));
        assert_eq!(over[0].key, "rule:a+:0");
        assert!(matches!(local.reserve(&mut [chosen("a", MAX_OF_OWNER + 1)]), Taken::None(0, _)));
        let mut other = [chosen("b", 1)];
        assert!(matches!(local.reserve(&mut other), Taken::All(_)));
        assert_eq!(other[0].key, "rule:b-1:0");
        // Many that are due are forgotten, whichever list they are in.
        for value in 0..MAX_OF_OWNER {
            local.settle(&[Settle { spent: 1, ..chosen("a", value).settle(1) }]);
        }
        local.settle(&[over[0].settle(1), other[0].settle(1)]);
        local.sweep(1000);
        assert_is_empty(&local);
    }

    #[test]
    fn a_rule_without_room_leaves_the_room_of_others() {
        let local = Local::default();
        for value in 0..MAX_OF_RULE {
            local.reserve(&mut [take(&format!("rule:{value}:0"), 1, 1)]);
        }
        let mut takes = [take("rule:new:0", 1, 1), take("other:new:0", 1, 1), take("rule:7:0", 1, 2)];
        assert!(matches!(local.reserve(&mut takes), Taken::All(_)));
        assert_eq!(takes.map(|take| take.key), ["rule:others:0", "other:new:0", "rule:7:0"]);
    }

    #[test]
    fn a_hundred_threads_never_take_more_than_the_limit() {
        let local = Arc::new(Local::default());
        let admitted = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for n in 0..100u64 {
                let (local, admitted) = (&local, &admitted);
                scope.spawn(move || {
                    for round in 0..50 {
                        let amount = 1 + (n + round) % 7;
                        if let Taken::All(_) =
                            local.reserve(&mut [take("t", amount, 1000), take("r", 1, 400)])
                        {
                            // The truth is never more than what was reserved.
                            let spent = amount - amount / 2;
                            let used = local.settle(&[settle("t", amount, spent), settle("r", 1, 1)]);
                            assert!(used[0].all() <= 1000 && used[1].all() <= 400, "{used:?}");
                            admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let spent = local.look(&take("r", 0, 400)).spent;
        assert_eq!(spent, admitted.load(std::sync::atomic::Ordering::Relaxed));
        assert!(spent <= 400 && local.look(&take("t", 0, 0)).held == 0, "{spent}");
        assert!(local.look(&take("t", 0, 0)).spent <= 1000);
    }
}
