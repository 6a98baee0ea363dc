//! The clock, passed in.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time of day, and how much time went by.
pub trait Clock: Send + Sync + Debug {
    /// Microseconds since 1970-01-01 UTC. It may jump either way: somebody can set it.
    fn now_us(&self) -> i64;

    /// Microseconds since some moment: it only grows, and nobody sets it.
    fn elapsed_us(&self) -> i64;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn elapsed_us(&self) -> i64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        i64::try_from(START.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that a test sets. Each reading is one microsecond after the one before.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    elapsed: AtomicI64,
}

impl ManualClock {
    /// Starts at `now_us`.
    pub fn at(now_us: i64) -> Self {
        Self { now: AtomicI64::new(now_us), elapsed: AtomicI64::new(0) }
    }

    /// So much time goes by.
    pub fn advance(&self, us: i64) {
        self.jump(us);
        self.elapsed.fetch_add(us, Ordering::Relaxed);
    }

    /// Somebody sets the time of day, by so much; no time goes by.
    pub fn jump(&self, us: i64) {
        self.now.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    fn elapsed_us(&self) -> i64 {
        self.elapsed.fetch_add(1, Ordering::Relaxed)
    }
}
