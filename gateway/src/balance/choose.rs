//! One of several targets: pure, but for the state of the turn.

use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::target::Target;

/// One that may be chosen: its index, and the target.
pub(super) type Candidate<'a> = (usize, &'a Target);

/// In turn by weight, interleaved: over as many picks as the weights' sum each candidate comes as often as its own. `turn`
/// has a place for each target of the route.
pub(super) fn by_weight(candidates: &[Candidate<'_>], turn: &mut [i64]) -> Option<usize> {
    let mut sum = 0_i64;
    let mut best: Option<(usize, i64)> = None;
    for (index, target) in candidates {
        let weight = i64::try_from(target.spec.weight).unwrap_or(i64::MAX);
        let Some(current) = turn.get_mut(*index) else { continue };
        *current = current.saturating_add(weight);
        sum = weight.saturating_add(sum);
        if best.is_none_or(|(_, most)| *current > most) {
            best = Some((*index, *current));
        }
    }
    let (index, _) = best?;
    if let Some(current) = turn.get_mut(index) {
        *current = current.saturating_sub(sum);
    }
    Some(index)
}

/// By weighted rendezvous: each candidate has a score for the value, and the highest counts. Where one leaves, the others'
/// scores stay.
pub(super) fn by_hash(candidates: &[Candidate<'_>], value: &[u8]) -> Option<usize> {
    let value = Sha256::digest(value);
    let score = |target: &Target| {
        let mut hasher = Sha256::new();
        hasher.update(value);
        hasher.update(target.spec.name.as_str().as_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(hash.get(..8).unwrap_or(&[0; 8]));
        // 53 bits, between 0 and 1 without both.
        let draw = ((u64::from_be_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -(target.spec.weight as f64) / draw.ln()
    };
    let scores = candidates.iter().map(|(index, target)| (*index, score(target)));
    scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

/// The quicker one of two that are drawn, as heavy as they are; one of which nothing is known comes first.
pub(super) fn by_latency(candidates: &[Candidate<'_>], random: &mut Random, now: Instant) -> Option<usize> {
    let loads: Vec<(usize, Option<f64>, u32)> = candidates
        .iter()
        .map(|(index, target)| {
            let (load, in_flight) = target.load(now);
            (*index, load.map(|load| load / target.spec.weight.max(1) as f64), in_flight)
        })
        .collect();
    if let Some((index, ..)) = loads.iter().find(|(_, load, in_flight)| load.is_none() && *in_flight == 0) {
        return Some(*index);
    }
    let known: Vec<_> = loads.iter().filter_map(|(index, load, _)| load.map(|load| (*index, load))).collect();
    match known.as_slice() {
        [] => loads.iter().min_by_key(|(_, _, in_flight)| *in_flight).map(|(index, ..)| *index),
        [(index, _)] => Some(*index),
        known => {
            let first = random.below(known.len());
            let second = (first + 1 + random.below(known.len() - 1)) % known.len();
            let drawn = [known.get(first), known.get(second)];
            drawn.into_iter().flatten().min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| *index)
        }
    }
}

/// Those that are cheapest; those without a price where there are no others.
pub(super) fn cheapest<'a>(
    candidates: &[Candidate<'a>],
    price: &dyn Fn(usize) -> Option<f64>,
) -> Vec<Candidate<'a>> {
    let priced = |index: usize| price(index).filter(|price| price.is_finite());
    let least = candidates.iter().filter_map(|(index, _)| priced(*index)).min_by(f64::total_cmp);
    candidates.iter().filter(|(index, _)| priced(*index) == least).copied().collect()
}

/// Those that are nearest to what the prompt means; none where none is near enough. `scores` has a place for each target of the
/// route.
pub(super) fn nearest<'a>(candidates: &[Candidate<'a>], scores: &[Option<i64>]) -> Vec<Candidate<'a>> {
    let score = |index: usize| scores.get(index).copied().flatten();
    let most = candidates.iter().filter_map(|(index, _)| score(*index)).max();
    let near = |candidate: &&Candidate<'a>| most.is_some() && score(candidate.0) == most;
    candidates.iter().filter(near).copied().collect()
}

/// Those that fail least.
pub(super) fn soundest<'a>(candidates: &[Candidate<'a>], now: Instant) -> Vec<Candidate<'a>> {
    let classes: Vec<u32> = candidates.iter().map(|(_, target)| target.error_class(now)).collect();
    let least = classes.iter().min().copied();
    let of = candidates.iter().zip(&classes).filter(|(_, class)| Some(**class) == least);
    of.map(|(candidate, _)| *candidate).collect()
}

/// Draws: xorshift64*. Nothing secret hangs on it.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to `count` without it; 0 for none.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let count = count.max(1) as u64;
        usize::try_from((self.next() >> 11) % count).unwrap_or_default()
    }
}
