//! Refusals from before authentication: a flood of them must cost almost nothing and still be recorded (CA-3).
//!
//! Up to 10 a second and reason get a record each. What is above is counted, and the count is journaled within a
//! second as one record with `count`, `first`, `last`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use schemas::record::Refusal;
use schemas::{ExchangeId, Identifier};

/// Single records a second and reason.
const SINGLE_PER_SECOND: u32 = 10;
/// Reasons that are kept apart; the gateway's reasons are a closed set far below it.
const MAX_REASONS: usize = 256;

/// What became of a refusal from before authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreAuth {
    /// It has a record of its own, durable, with this exchange id.
    Recorded(ExchangeId),
    /// It is counted; the count is journaled within a second.
    Folded,
}

/// Counts by reason and status.
#[derive(Debug, Default)]
pub(crate) struct Folds(Mutex<HashMap<(Identifier, i64), Fold>>);

#[derive(Debug, Default)]
struct Fold {
    /// The second that `single` counts in.
    second: i64,
    single: u32,
    count: u64,
    first: i64,
    last: i64,
}

impl Folds {
    /// Counts one more; true where it shall have a record of its own.
    pub(crate) fn single(&self, reason: &Identifier, status: i64, now_us: i64) -> bool {
        let mut folds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if folds.len() >= MAX_REASONS {
            folds.retain(|_, fold| fold.count > 0);
        }
        let fold = folds.entry((reason.clone(), status)).or_default();
        let second = now_us.div_euclid(1_000_000);
        if fold.second != second {
            fold.second = second;
            fold.single = 0;
        }
        if fold.single < SINGLE_PER_SECOND {
            fold.single += 1;
            return true;
        }
        if fold.count == 0 {
            fold.first = now_us;
        }
        fold.count += 1;
        fold.last = now_us;
        false
    }

    /// Takes what was folded.
    pub(crate) fn take(&self) -> Vec<Refusal> {
        let mut folds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = folds.iter_mut().filter(|(_, fold)| fold.count > 0);
        let taken = counted.map(|((reason, status), fold)| {
            let count = std::mem::take(&mut fold.count);
            folded(reason.clone(), *status, Some((count, fold.first, fold.last)))
        });
        taken.collect()
    }

    /// Puts counts back that could not be journaled.
    pub(crate) fn put_back(&self, refusal: &Refusal) {
        let (Some(count), Some(first), Some(last)) = (refusal.count, refusal.first, refusal.last) else {
            return;
        };
        let mut folds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fold = folds.entry((refusal.reason.clone(), refusal.status)).or_default();
        fold.last = if fold.count == 0 { last } else { fold.last.max(last) };
        fold.first = first;
        fold.count += count;
    }
}

/// A refusal without content.
pub(crate) fn folded(reason: Identifier, status: i64, counted: Option<(u64, i64, i64)>) -> Refusal {
    Refusal {
        exchange: None,
        reason,
        status,
        count: counted.map(|(count, _, _)| count),
        first: counted.map(|(_, first, _)| first),
        last: counted.map(|(_, _, last)| last),
        caller: None,
        asked: None,
        verdict: None,
        parts: Vec::new(),
        content_key: None,
        retention: None,
        suppression: Vec::new(),
        limit: None,
        translation: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ten_a_second_are_single_and_the_rest_is_counted_once() {
        let folds = Folds::default();
        let reason = Identifier::new("unknown_key").unwrap();
        let now = 5_000_000;
        let single = (0..25).filter(|i| folds.single(&reason, 401, now + i)).count();
        assert_eq!(single, 10);
        let taken = folds.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].count, taken[0].first, taken[0].last),
            (Some(15), Some(now + 10), Some(now + 24))
        );
        assert!(folds.take().is_empty());
        folds.put_back(&taken[0]);
        assert!(!folds.single(&reason, 401, now + 30));
        assert_eq!((folds.take()[0].count, taken[0].first), (Some(16), Some(now + 10)));
        assert!(folds.single(&reason, 401, now + 1_000_000));
    }
}
