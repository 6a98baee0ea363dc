//! How many repeats a route may send: a share of its requests, so that a provider in trouble is not drowned in them.

use std::sync::{Arc, Mutex, PoisonError};

/// What one repeat costs.
const REPEAT: u64 = 100;

/// Repeats that are always allowed, however few requests there were.
const MOST: u64 = 10 * REPEAT;

/// The account of a route's repeats: each request pays in its share, each repeat takes one out.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u64,
    left: Mutex<u64>,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(percent: u64) -> Self {
        let left = if percent == 0 { 0 } else { MOST };
        Self { percent, left: Mutex::new(left) }
    }

    /// The share that it was made for.
    pub(crate) fn percent(&self) -> u64 {
        self.percent
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + self.percent).min(MOST.max(self.percent));
    }

    /// Takes a repeat out, where one is left.
    pub(crate) fn repeat(self: &Arc<Self>) -> Option<Repeat> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(REPEAT).filter(|_| self.percent > 0)?;
        Some(Repeat { budget: Arc::clone(self), is_sent: false })
    }

    fn give_back(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + REPEAT).min(MOST.max(self.percent));
    }
}

/// A repeat that was taken out of its route's budget. Dropped without being sent (no target was left, it could not be recorded,
/// its caller left meanwhile) it is put back.
#[derive(Debug)]
pub(crate) struct Repeat {
    budget: Arc<Budget>,
    is_sent: bool,
}

impl Repeat {
    /// It goes.
    pub(crate) fn sent(mut self) {
        self.is_sent = true;
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if !self.is_sent {
            self.budget.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(budget: &Arc<Budget>) -> bool {
        budget.repeat().map(Repeat::sent).is_some()
    }

    #[test]
    fn repeats_are_a_share_of_the_requests_beyond_the_first_few() {
        let budget = Arc::new(Budget::new(20));
        let mut repeats = 0;
        for _ in 0..1000 {
            budget.request();
            repeats += u64::from(sends(&budget));
        }
        assert!((200..=210).contains(&repeats), "{repeats}");
        let none = Arc::new(Budget::new(0));
        none.request();
        assert!(!sends(&none));
        let all = Arc::new(Budget::new(100));
        assert!((0..1000).all(|_| {
            all.request();
            sends(&all)
        }));
    }

    #[test]
    fn what_was_not_sent_can_be() {
        let poor = Arc::new(Budget::new(1));
        for _ in 0..9 {
            assert!(sends(&poor));
        }
        let last = poor.repeat();
        assert!(last.is_some() && !sends(&poor));
        drop(last);
        assert!(sends(&poor) && !sends(&poor));
    }
}
