//! Holds booked outcomes against exports: sums by key, model and day, and calls by the ids that providers give them.

use std::collections::{BTreeMap, HashMap};

use schemas::record::Usage;

use super::batches::{AskedFor, Batch};
use super::edges::{AROUND, Edges};
use super::keys::Keys;
use super::result::{Cell, Difference, Facts, KEPT, Matches, Reconciliation, State, Unmatched};
use super::{BATCH, Bucket, Call, Counts, Export};
use crate::cost::booked::Booked;
use crate::report::Interval;
use crate::time::{self, DAY};

/// Whether a stretch of time lies within one day; else the wanted form.
pub(super) fn at_most_a_day(from: i64, to: i64) -> Result<(), String> {
    if from < to && from.div_euclid(DAY) == (to - 1).div_euclid(DAY) {
        return Ok(());
    }
    Err(format!(
        "an end after the start {} and on the same day (UTC): fetch sums by day or hour",
        time::text(from)
    ))
}

/// How much may differ: a part of the larger number, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance(u64);

impl Tolerance {
    /// Reads a percentage.
    ///
    /// # Errors
    /// Another form, or more than 100.
    pub fn parse(text: &str) -> Result<Self, String> {
        let percent = super::input::decimal(text.strip_suffix('%').unwrap_or(text).trim());
        let millionths = percent.and_then(|percent| u64::try_from(percent.0 / 100_000_000).ok());
        match millionths.filter(|millionths| *millionths <= 1_000_000) {
            Some(millionths) => Ok(Self(millionths)),
            None => Err(format!("`{text}` is no tolerance: wanted a percentage from 0 to 100, as `0.5`")),
        }
    }

    /// Whether two numbers are near enough.
    fn holds(self, a: u128, b: u128) -> bool {
        let allowed = a.max(b).saturating_mul(self.0.into()) / 1_000_000;
        a.abs_diff(b) <= allowed
    }

    /// As a percentage.
    pub fn text(self) -> String {
        crate::decimal::Decimal(i128::from(self.0) * 100_000_000).to_string()
    }
}

/// A cell of an export. Of one day, the stretches within what was asked stand apart from those that reach beyond it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    key: Option<String>,
    model: Option<String>,
    day: i64,
    partial: bool,
    /// Of batches: whether those that it may be of lie before the evidence.
    reaches_before: bool,
}

impl Name {
    fn new(key: Option<String>, model: Option<String>, stretch: (i64, i64), asked: Interval) -> Self {
        let (day, partial) = (day(stretch), is_partial(stretch, asked));
        Self { key, model, day, partial, reaches_before: false }
    }

    /// Of a sum; without `keys` no key is told apart.
    fn of(bucket: &Bucket, keys: Option<&Keys>, asked: Interval) -> Self {
        let key = keys.and_then(|keys| Some(keys.of_export(bucket.key.as_deref()?)));
        Self::new(key, bucket.model.clone(), (bucket.from, bucket.to), asked)
    }
}

#[derive(Debug, Default)]
struct Sums {
    provider: Counts,
    evidence: Counts,
    not_final: u64,
    unpriced: u64,
}

/// Stretches of time that a cell is the sum of.
type Stretches = Vec<(i64, i64)>;

/// What is known of one export while records are gone through.
#[derive(Debug)]
enum Side<'a> {
    Buckets {
        by_key: bool,
        by_model: bool,
        /// Stretches that the export tells of, in order, without those outside of what was asked.
        told: Stretches,
        sums: BTreeMap<Name, Sums>,
    },
    Calls {
        /// Its calls by id.
        ids: HashMap<&'a str, usize>,
        matched: Vec<bool>,
        span: (i64, i64),
        matches: Matches,
    },
}

/// An exchange, or an attempt, that has a provider's id.
#[derive(Debug)]
pub struct Known<'a> {
    /// The provider's ids.
    pub ids: Vec<&'a str>,
    /// The configured provider.
    pub provider: &'a str,
    /// The target.
    pub target: &'a str,
    /// The dialect.
    pub dialect: &'a str,
}

/// Compares.
#[derive(Debug)]
pub struct Comparing<'a> {
    exports: &'a [Export],
    keys: Option<&'a Keys>,
    asked: Interval,
    tolerance: Tolerance,
    judge_partial: bool,
    sides: Vec<Side<'a>>,
    outside: Vec<u64>,
    /// Exchanges with usage that no export tells of, by configured provider.
    not_covered: BTreeMap<String, u64>,
}

/// All input: told, or the sum of its classes.
fn input(usage: &Usage) -> Option<u64> {
    let count = |tokens: Option<i64>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
    count(usage.input_tokens).or_else(|| {
        let parts = [usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens];
        let beside = parts.iter().filter_map(|part| count(*part)).fold(0, u64::saturating_add);
        Some(count(usage.uncached_input_tokens)?.saturating_add(beside))
    })
}

fn counts(booked: &Booked) -> Counts {
    let usage = &booked.outcome.usage;
    let count = |tokens: Option<i64>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
    let mut counts = Counts {
        requests: Some(1),
        input_tokens: input(usage),
        cache_read_tokens: count(usage.cache_read_tokens),
        output_tokens: count(usage.output_tokens),
        ..Counts::default()
    };
    if let Some((currency, cost)) = booked.cost() {
        counts.cost.insert(currency.to_owned(), cost);
    }
    counts
}

impl<'a> Comparing<'a> {
    /// Over the interval that was asked of the evidence.
    pub fn new(
        exports: &'a [Export],
        keys: Option<&'a Keys>,
        asked: Interval,
        tolerance: Tolerance,
        judge_partial: bool,
    ) -> Self {
        let mut outside = Vec::new();
        let sides = exports
            .iter()
            .map(|export| {
                let (side, out) = Side::new(export, keys, asked);
                outside.push(out);
                side
            })
            .collect();
        let not_covered = BTreeMap::new();
        Self { exports, keys, asked, tolerance, judge_partial, sides, outside, not_covered }
    }

    /// Whether any export tells of calls.
    pub fn has_calls(&self) -> bool {
        self.sides.iter().any(|side| matches!(side, Side::Calls { .. }))
    }

    /// Finds the calls of exchanges again that are not counted: that ended outside of what was asked, or are not booked.
    pub fn find(&mut self, known: &Known<'_>) {
        let is_nobodys = |keys: &Keys| keys.of_exchange(known.provider, Some(known.target)).is_none();
        if self.keys.is_some_and(is_nobodys) {
            return;
        }
        for (export, side) in self.exports.iter().zip(&mut self.sides) {
            if let Side::Calls { ids, matched, matches, .. } = side
                && export.is_about(known.provider, known.dialect)
                && let Some(index) = known.ids.iter().find_map(|id| ids.get(id)).copied()
                && let Some(matched) = matched.get_mut(index).filter(|matched| !**matched)
                && let Some(call) = export.told.calls.get(index)
            {
                *matched = true;
                matches.elsewhere += u64::from((self.asked.from..self.asked.to).contains(&call.at));
            }
        }
    }

    /// Counts an exchange.
    pub fn add(&mut self, booked: &Booked) {
        let asked = &booked.outcome.asked;
        let text =
            |value: &Option<schemas::Identifier>| value.as_ref().map(|value| value.as_str().to_owned());
        let served = booked.outcome.served.as_ref();
        let provider = booked.outcome.provider().map(ToString::to_string).unwrap_or_default();
        let dialect =
            served.and_then(|served| text(&served.dialect)).or(text(&asked.dialect)).unwrap_or_default();
        if !booked.incurred() {
            return;
        }
        let key = self.keys.map(|keys| {
            let target = served.map(|served| &served.target).or(asked.target.as_ref());
            let target = target.map(|target| target.as_str());
            keys.of_exchange(&provider, target).map(str::to_owned)
        });
        let kind = match asked.operation.as_ref().map(|operation| operation.as_str()) {
            Some(operation) if operation.starts_with("embeddings") => "embeddings",
            _ => "completions",
        };
        let mut covered = false;
        for (export, side) in self.exports.iter().zip(&mut self.sides) {
            let kinds = &export.told.kinds;
            let is_about = export.is_about(&provider, &dialect) && (kinds.is_empty() || kinds.contains(kind));
            // An exchange under no key of the file is nobody's.
            if !is_about || key == Some(None) {
                continue;
            }
            let (key, judge) = (key.clone().flatten(), self.judge_partial);
            let told = side.add(booked, key, export, self.asked, self.tolerance, judge);
            covered |= told && export.format.tells_usage();
        }
        if !covered {
            *self.not_covered.entry(provider).or_default() += 1;
        }
    }

    /// What a provider tells of batches that were asked for by nobody who passed here; and how many sums may be of some that
    /// were.
    fn past(
        &self,
        export: &Export,
        by_key: bool,
        asked_for: &AskedFor,
    ) -> (BTreeMap<Name, (Counts, Stretches)>, u64) {
        let (mut past, mut left_out) = (BTreeMap::<Name, (Counts, Stretches)>::new(), 0);
        for bucket in export.told.batches.iter().filter(|bucket| is_within(bucket, self.asked)) {
            let mut name = Name::of(bucket, self.keys.filter(|_| by_key), self.asked);
            let is_its_own = |batch: &Batch| {
                let Some(keys) = self.keys else { return true };
                let key = keys.of_exchange(&batch.provider, batch.target.as_deref());
                key.is_some() && (name.key.is_none() || key == name.key.as_deref())
            };
            if asked_for.within(export, bucket.from, bucket.to).any(is_its_own) {
                left_out += 1;
                continue;
            }
            name.reaches_before = asked_for.reaches_before(bucket);
            let (sums, stretches) = past.entry(name).or_default();
            sums.add(&bucket.counts);
            stretches.push((bucket.from, bucket.to));
        }
        (past, left_out)
    }

    /// What came out. `asked_for`: batches, whose use is held against nothing else; `edges`: where a call may be of an exchange that the
    /// evidence does not show.
    pub fn finish(mut self, asked_for: &AskedFor, edges: &Edges) -> Reconciliation {
        let mut facts = Vec::new();
        let (sides, outside) = (std::mem::take(&mut self.sides), std::mem::take(&mut self.outside));
        for ((export, side), outside) in self.exports.iter().zip(sides).zip(outside) {
            let mut fact = Facts::of(export, outside, self.keys.is_none());
            fact.batches = asked_for.within(export, self.asked.from, self.asked.to).count() as u64;
            match side {
                Side::Buckets { by_key, sums, told, .. } => {
                    let (past, left_out) = self.past(export, by_key, asked_for);
                    if left_out > 0 {
                        fact.left_out.insert(BATCH.into(), left_out);
                    }
                    let mut stretches = BTreeMap::<(i64, bool), Stretches>::new();
                    for stretch in &told {
                        let of = (day(*stretch), is_partial(*stretch, self.asked));
                        stretches.entry(of).or_default().push(*stretch);
                    }
                    let others = sums.into_iter().map(|(name, sums)| {
                        let state = sums.judge(self.tolerance, name.partial && !self.judge_partial);
                        let stretches = stretches.get(&(name.day, name.partial)).cloned();
                        sums.cell(name, stretches.unwrap_or_default(), None, state)
                    });
                    let past = past.into_iter().map(|(name, (provider, mut stretches))| {
                        stretches.sort_unstable();
                        let is_open = (name.partial || name.reaches_before) && !self.judge_partial;
                        let state = if is_open { State::Partial } else { State::Unrecorded };
                        let sums = Sums { provider, ..Sums::default() };
                        sums.cell(name, stretches, Some(asked_for.begins), state)
                    });
                    fact.cells = others.chain(past).collect();
                    fact.told = export.format.tells_of_rest().then(|| joined(told));
                }
                Side::Calls { matched, mut matches, .. } => {
                    for (call, matched) in export.told.calls.iter().zip(matched) {
                        let inside = (self.asked.from..self.asked.to).contains(&call.at);
                        if matched || !inside {
                            continue;
                        }
                        let why = edges.why(call.at).filter(|_| !self.judge_partial);
                        let (count, list) = match why {
                            None => (&mut matches.only_provider_count, &mut matches.only_provider),
                            Some(_) => (&mut matches.not_judged_count, &mut matches.not_judged),
                        };
                        *count += 1;
                        if list.len() < KEPT {
                            list.push(Unmatched {
                                id: call.ids.first().cloned().unwrap_or_default(),
                                at: call.at,
                                model: call.model.clone(),
                                who: call.caller.clone(),
                                counts: call.counts.clone(),
                                line: Some(call.line),
                                why: why.map(str::to_owned),
                            });
                        }
                    }
                    matches.not_named = matches.beyond();
                    fact.calls = Some(matches);
                }
            }
            facts.push(fact);
        }
        Reconciliation::new(self.tolerance, self.asked, facts, self.not_covered)
    }
}

/// Whether a part of a sum is of what was asked.
fn is_within(bucket: &Bucket, asked: Interval) -> bool {
    bucket.to > asked.from && bucket.from < asked.to
}

/// Whether a part of a stretch of time is of something else.
fn is_partial((from, to): (i64, i64), asked: Interval) -> bool {
    from < asked.from || to > asked.to
}

/// The day of a stretch of time, which lies within one.
fn day((from, _): (i64, i64)) -> i64 {
    from.div_euclid(DAY)
}

/// Ordered stretches of time, those that touch each other made one.
fn joined(told: Stretches) -> Vec<Interval> {
    let mut out: Vec<Interval> = Vec::new();
    for (from, to) in told {
        match out.last_mut() {
            Some(last) if from <= last.to => last.to = last.to.max(to),
            _ => out.push(Interval { from, to }),
        }
    }
    out
}

impl<'a> Side<'a> {
    /// And how many of the export's rows are outside of what was asked.
    fn new(export: &'a Export, keys: Option<&Keys>, asked: Interval) -> (Self, u64) {
        let mut outside = 0;
        if !export.told.calls.is_empty() {
            let calls = &export.told.calls;
            let mut ids = HashMap::with_capacity(calls.len());
            let mut span = (i64::MAX, i64::MIN);
            let mut matched = vec![false; calls.len()];
            for (index, call) in calls.iter().enumerate() {
                // Files of one log may overlap: the same line again is the same call.
                let first = call.ids.first().and_then(|id| ids.get(id.as_str())).copied();
                let is_same = |it: &Call| Call { line: it.line, ..call.clone() } == *it;
                let is_again = |first: usize| calls.get(first).is_some_and(is_same);
                if first.is_some_and(is_again) {
                    if let Some(matched) = matched.get_mut(index) {
                        *matched = true;
                    }
                    continue;
                }
                outside += u64::from(!(asked.from..asked.to).contains(&call.at));
                span = (span.0.min(call.at), span.1.max(call.at));
                for id in &call.ids {
                    ids.insert(id.as_str(), index);
                }
            }
            return (Self::Calls { ids, matched, span, matches: Matches::default() }, outside);
        }
        let (buckets, batches) = (&export.told.buckets, &export.told.batches);
        let all = || buckets.iter().chain(batches);
        let by_key = keys.is_some() && all().any(|bucket| bucket.key.is_some());
        let by_model = all().any(|bucket| bucket.model.is_some());
        outside += batches.iter().filter(|batch| !is_within(batch, asked)).count() as u64;
        let mut sums: BTreeMap<Name, Sums> = BTreeMap::new();
        let mut told = Vec::new();
        for bucket in buckets {
            if !is_within(bucket, asked) {
                outside += 1;
                continue;
            }
            told.push((bucket.from, bucket.to));
            if bucket.counts == Counts::default() {
                continue;
            }
            let sums = sums.entry(Name::of(bucket, keys.filter(|_| by_key), asked)).or_default();
            sums.provider.add(&bucket.counts);
        }
        told.sort_unstable();
        told.dedup();
        (Self::Buckets { by_key, by_model, told, sums }, outside)
    }

    /// Counts an exchange; whether the export tells of its time.
    fn add(
        &mut self,
        booked: &Booked,
        key: Option<String>,
        export: &Export,
        asked: Interval,
        tolerance: Tolerance,
        judge_partial: bool,
    ) -> bool {
        match self {
            Self::Buckets { by_key, by_model, told, sums } => {
                let next = told.partition_point(|(from, _)| *from <= booked.at);
                // Stretches of one export do not overlap.
                let found = next.checked_sub(1).and_then(|index| told.get(index));
                let Some(stretch) = found.filter(|(_, to)| booked.at < *to).copied() else { return false };
                let key = key.filter(|_| *by_key);
                let model = booked.model().filter(|_| *by_model).map(str::to_owned);
                let sums = sums.entry(Name::new(key, model, stretch, asked)).or_default();
                sums.evidence.add(&counts(booked));
                sums.not_final += u64::from(!booked.is_told());
                sums.unpriced += u64::from(booked.cost().is_none());
                true
            }
            Self::Calls { ids, matched, span, matches } => {
                let answered = &booked.outcome.answered;
                let own: Vec<&str> = [&answered.request_id, &answered.response_id]
                    .into_iter()
                    .flatten()
                    .map(|id| id.as_str())
                    .collect();
                if let Some(index) = own.iter().find_map(|id| ids.get(id)).copied() {
                    if let Some(matched) = matched.get_mut(index) {
                        *matched = true;
                    }
                    matches.matched += 1;
                    if let Some(call) = export.told.calls.get(index) {
                        let evidence = counts(booked);
                        if booked.is_told() && differ(&call.counts, &evidence, tolerance) {
                            matches.different_count += 1;
                            if matches.different.len() < KEPT {
                                matches.different.push(Difference {
                                    exchange: booked.outcome.exchange.to_string(),
                                    id: call.ids.first().cloned().unwrap_or_default(),
                                    line: call.line,
                                    provider: call.counts.clone(),
                                    evidence,
                                });
                            }
                        }
                    }
                    return true;
                }
                // Its line may be of any time from its start to a while after its end; the log tells of those in its span.
                let around = if judge_partial { 0 } else { AROUND };
                let began = if judge_partial { booked.at } else { booked.began() };
                if began.saturating_sub(around) < span.0 || booked.at.saturating_add(around) > span.1 {
                    return false;
                }
                if own.is_empty() {
                    matches.without_id += 1;
                    return false;
                }
                matches.only_evidence_count += 1;
                if matches.only_evidence.len() < KEPT {
                    matches.only_evidence.push(Unmatched {
                        id: own.first().copied().unwrap_or_default().to_owned(),
                        at: booked.at,
                        model: booked.model().map(str::to_owned),
                        who: Some(booked.outcome.exchange.to_string()),
                        counts: counts(booked),
                        line: None,
                        why: None,
                    });
                }
                true
            }
        }
    }
}

/// Pairs of token counts that both sides tell; a provider's count without one of ours is held against 0.
fn pairs(provider: &Counts, evidence: &Counts) -> impl Iterator<Item = (u128, u128)> {
    [
        (provider.input_tokens, evidence.input_tokens),
        (provider.cache_read_tokens, evidence.cache_read_tokens),
        (provider.output_tokens, evidence.output_tokens),
    ]
    .into_iter()
    .filter_map(|(provider, evidence)| Some((provider?.into(), evidence.unwrap_or(0).into())))
}

fn differ(provider: &Counts, evidence: &Counts, tolerance: Tolerance) -> bool {
    pairs(provider, evidence).any(|(provider, evidence)| !tolerance.holds(provider, evidence))
}

impl Sums {
    /// `begins`: of batches, when the evidence begins.
    fn cell(self, name: Name, stretches: Stretches, begins: Option<i64>, state: State) -> Cell {
        let Self { provider, evidence, not_final, unpriced } = self;
        let Name { key, model, day, partial, reaches_before } = name;
        let mut hours = joined(stretches);
        let from = day.saturating_mul(DAY);
        if hours == [Interval { from, to: from.saturating_add(DAY) }] {
            hours.clear();
        }
        let day = time::text(from).get(..10).unwrap_or_default().into();
        let (is_batch, evidence_begins) = (begins.is_some(), begins.filter(|_| reaches_before));
        Cell {
            key,
            model,
            day,
            hours,
            is_batch,
            provider,
            evidence,
            not_final,
            unpriced,
            partial,
            evidence_begins,
            state,
        }
    }

    /// `is_open`: a part of what the provider tells may be of something else.
    fn judge(&self, tolerance: Tolerance, is_open: bool) -> State {
        let (mut more, mut less, mut cost) = (false, false, false);
        // A cell that only the evidence has is held against nothing.
        let silent = Counts { input_tokens: Some(0), output_tokens: Some(0), ..Counts::default() };
        let provider = if self.provider == Counts::default() { &silent } else { &self.provider };
        for (provider, evidence) in pairs(provider, &self.evidence) {
            if !tolerance.holds(provider, evidence) {
                more |= provider > evidence;
                less |= provider < evidence;
            }
        }
        for (currency, provider) in &self.provider.cost {
            let evidence = self.evidence.cost.get(currency).copied().unwrap_or_default();
            cost |= provider.0.signum() * evidence.0.signum() < 0
                || !tolerance.holds(provider.0.unsigned_abs(), evidence.0.unsigned_abs());
        }
        match (more, less, cost) {
            (false, false, false) => State::Within,
            // What lies beyond the interval may be why the provider tells more; never why it tells less.
            _ if is_open && !less => State::Partial,
            _ if is_open => State::Differs,
            (true, ..) if self.not_final > 0 => State::Uncertain,
            (true, ..) => State::Unrecorded,
            (_, true, _) => State::Differs,
            (_, _, true) if self.unpriced > 0 || self.not_final > 0 => State::Uncertain,
            _ => State::Differs,
        }
    }
}
