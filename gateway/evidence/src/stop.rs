//! The wish that a start ends before it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::OpenError;

/// How long a wait goes on at most after it was asked to end.
const STEP: Duration = Duration::from_millis(50);

/// Asks a start to end at its next step: between two epochs, two batches, two tries of the store. What it has done by
/// then is durable, and the next start goes on from there. All clones are one wish.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Goes on where it was not asked.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if self.asked() { Err(OpenError::Stopped) } else { Ok(()) }
    }

    /// Sleeps for `time`, unless it is asked.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), OpenError> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}
