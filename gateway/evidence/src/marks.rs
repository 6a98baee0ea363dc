//! The watermarks, the wish to seal now, and the alarm, shared by the ledger and its threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Unavailable;
use crate::stop::Stop;
use crate::watermarks::Watermarks;

#[derive(Debug, Default)]
pub(crate) struct Marks {
    state: Mutex<State>,
    changed: Condvar,
    /// Asked when the threads are to end: what they recover meanwhile ends then too.
    pub(crate) stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    marks: Watermarks,
    seal_soon: bool,
    leaving: bool,
    finish: bool,
    alarm: Option<Unavailable>,
    oldest_open: Option<u64>,
    /// How many batches are complete.
    batches: u64,
    /// From here on the journal holds erasures whose keys are not destroyed yet.
    undone: Option<u64>,
    /// Complete batches that are not archived, in order.
    on_their_way: VecDeque<Batch>,
}

/// A batch: the position behind it, and the time of its first record.
#[derive(Debug)]
struct Batch {
    to: u64,
    first_us: Option<i64>,
}

impl State {
    /// The time of the oldest record at or behind a position that was sealed up to.
    fn oldest_from(&self, position: u64) -> Option<i64> {
        let at = self.on_their_way.partition_point(|batch| batch.to <= position);
        self.on_their_way.get(at).map_or(self.marks.oldest_unsealed_us, |batch| batch.first_us)
    }
}

impl Marks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Watermarks {
        let state = self.state();
        Watermarks {
            oldest_unshipped_us: state.oldest_from(state.marks.shipped),
            oldest_unarchived_us: state.oldest_from(state.marks.archived),
            ..state.marks
        }
    }

    /// Changes the marks and wakes who waits.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Watermarks)) {
        let mut state = self.state();
        change(&mut state.marks);
        let archived = state.marks.archived;
        while state.on_their_way.front().is_some_and(|batch| batch.to <= archived) {
            state.on_their_way.pop_front();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A batch up to `to` is complete, as the last of `batches`; its first record is of `first_us`, and `oldest_open` is
    /// the intent of the oldest exchange that is still open there.
    pub(crate) fn sealed(&self, batches: u64, to: u64, first_us: Option<i64>, oldest_open: Option<u64>) {
        let mut state = self.state();
        state.on_their_way.push_back(Batch { to, first_us });
        state.batches = batches;
        state.marks.sealed = to;
        state.marks.oldest_unsealed_us = None;
        state.oldest_open = oldest_open;
        drop(state);
        self.changed.notify_all();
    }

    /// How many batches are complete: these may be shipped.
    pub(crate) fn batches(&self) -> u64 {
        self.state().batches
    }

    /// The first position that a start after a crash must find in the journal, though it is archived: the intent of the
    /// oldest open exchange, or an erasure whose key is not destroyed yet.
    pub(crate) fn needed_from(&self) -> Option<u64> {
        let state = self.state();
        [state.oldest_open, state.undone].into_iter().flatten().min()
    }

    /// Erasures from this position on are not done; `None`: all are.
    pub(crate) fn set_undone(&self, from: Option<u64>) {
        let mut state = self.state();
        state.undone = from.map(|from| state.undone.map_or(from, |first| first.min(from)));
    }

    /// Asks for a batch of what is journaled now.
    pub(crate) fn seal_soon(&self) {
        self.state().seal_soon = true;
        self.changed.notify_all();
    }

    pub(crate) fn take_seal_soon(&self) -> bool {
        std::mem::take(&mut self.state().seal_soon)
    }

    /// The process ends soon: what earlier ones left is looked at more often.
    pub(crate) fn leave(&self) {
        self.state().leaving = true;
    }

    pub(crate) fn leaves(&self) -> bool {
        self.state().leaving
    }

    /// Ends the threads.
    pub(crate) fn finish(&self) {
        self.state().finish = true;
        self.stop.ask();
        self.changed.notify_all();
    }

    pub(crate) fn finished(&self) -> bool {
        self.state().finish
    }

    /// Someone must look. The first alarm stands.
    pub(crate) fn raise(&self, alarm: Unavailable) {
        let mut state = self.state();
        if state.alarm.is_none() {
            state.alarm = Some(alarm);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn alarm(&self) -> Option<Unavailable> {
        self.state().alarm.clone()
    }

    /// Waits for a change, at most for `bound`. The sealer does not wait where a batch is asked for.
    pub(crate) fn wait(&self, bound: Duration, sealer: bool) {
        let state = self.state();
        if state.finish || state.seal_soon && sealer {
            return;
        }
        // Whatever woke us, the caller looks at everything again.
        drop(self.changed.wait_timeout(state, bound));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(marks: &Marks) -> [Option<i64>; 3] {
        let now = marks.snapshot();
        [now.oldest_unsealed_us, now.oldest_unshipped_us, now.oldest_unarchived_us]
    }

    #[test]
    fn the_oldest_record_of_each_mark_is_that_of_the_first_batch_that_is_not_there_yet() {
        let marks = Marks::default();
        assert_eq!(ages(&marks), [None; 3]);
        marks.update(|marks| marks.oldest_unsealed_us = Some(10));
        assert_eq!(ages(&marks), [Some(10); 3], "what is not sealed is not shipped either");
        marks.sealed(1, 5, Some(10), None);
        marks.sealed(2, 9, Some(20), None);
        marks.update(|marks| marks.oldest_unsealed_us = Some(30));
        assert_eq!(ages(&marks), [Some(30), Some(10), Some(10)]);
        marks.update(|marks| marks.shipped = 5);
        assert_eq!(ages(&marks), [Some(30), Some(20), Some(10)]);
        marks.update(|marks| (marks.shipped, marks.archived) = (9, 5));
        assert_eq!(ages(&marks), [Some(30), Some(30), Some(20)]);
        marks.update(|marks| marks.archived = 9);
        assert_eq!(ages(&marks), [Some(30); 3]);
        assert!(marks.state().on_their_way.is_empty());
    }
}
