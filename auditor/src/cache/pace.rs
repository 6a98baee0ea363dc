//! How often it is written how far a verification came: what is lost by an end is at most a twentieth of the work.

use std::time::{Duration, Instant};

/// The least time from one checkpoint to the next, where nothing else is said.
const LEAST: Duration = Duration::from_secs(5);

/// When the next checkpoint is due.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    last: Instant,
    least: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(LEAST)
    }
}

impl Pace {
    /// At least `least` from one to the next; zero: each time that one could be made.
    pub(super) fn new(least: Duration) -> Self {
        let now = Instant::now();
        Self { began: now, last: now, least }
    }

    /// Checkpoints grow with the log: the longer a run takes, the rarer they are.
    pub(super) fn is_due(&self) -> bool {
        self.least.is_zero() || self.last.elapsed() >= self.least.max(self.began.elapsed() / 20)
    }

    pub(super) fn made(&mut self) {
        self.last = Instant::now();
    }
}
