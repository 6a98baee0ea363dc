//! The watermarks, the wish to seal now, and the alarm, shared by the ledger and its threads.

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
    finish: bool,
    alarm: Option<Unavailable>,
    oldest_open: Option<u64>,
    /// How many batches are complete.
    batches: u64,
    /// From here on the journal holds erasures whose keys are not destroyed yet.
    undone: Option<u64>,
}

impl Marks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Watermarks {
        self.state().marks
    }

    /// Changes the marks and wakes who waits.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Watermarks)) {
        change(&mut self.state().marks);
        self.changed.notify_all();
    }

    /// A batch up to `to` is complete, as the last of `batches`; `oldest_open` is the intent of the oldest exchange that
    /// is still open there.
    pub(crate) fn sealed(&self, batches: u64, to: u64, oldest_open: Option<u64>) {
        let mut state = self.state();
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
