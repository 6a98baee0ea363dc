//! Whether a gateway may admit and release: pure, the time is passed in.
//!
//! A lease record counts, for `length` from the moment when it was *sent*, where it was sent while another one held and
//! was acknowledged within half of `length`. So whoever has read the newest record and waits twice `length` knows: no
//! record that is acknowledged from then on counts by itself. Once none holds, a record counts only after a look at the
//! partition up to that record has found no fence.

use std::time::{Duration, Instant};

/// The leases of one log.
#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    held: Option<Held>,
    sent: Option<Sent>,
    next: u64,
}

/// The newest record that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: u64,
    /// Where it stands in the partition.
    pub(super) offset: i64,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u64,
    at: Instant,
}

/// What an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acked {
    /// It holds.
    Counts,
    /// It holds if no fence stands between the record at `from` and it.
    Look { from: i64 },
    /// A newer one is on its way.
    Ignored,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, held: None, sent: None, next: 0 }
    }

    /// The number of the record that is to be sent now, where one is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let third = self.length / 3;
        if self.sent.is_some_and(|sent| now.saturating_duration_since(sent.at) < third) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sent = Some(Sent { number, at: now });
        Some(number)
    }

    /// The record of this number is acknowledged, and stands at `offset`.
    pub(super) fn acked(&mut self, number: u64, offset: i64, now: Instant) -> Acked {
        let Some(sent) = self.sent.filter(|sent| sent.number == number) else { return Acked::Ignored };
        let held = Held { number, offset, at: sent.at };
        let in_time = now.saturating_duration_since(sent.at) <= self.length / 2;
        // Nobody can have fenced a log before its first record.
        let follows = self.held.is_none_or(|held| sent.at.saturating_duration_since(held.at) < self.length);
        if in_time && follows {
            self.held = Some(held);
            return Acked::Counts;
        }
        Acked::Look { from: self.held.map_or(offset, |held| held.offset) }
    }

    /// A look up to the record of this number, at `offset`, has found no fence.
    pub(super) fn looked(&mut self, number: u64, offset: i64) {
        if let Some(sent) = self.sent.filter(|sent| sent.number == number) {
            self.held = Some(Held { number, offset, at: sent.at });
        }
    }

    /// Whether one holds.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.saturating_duration_since(held.at) < self.length)
    }

    /// How long ago the newest that counts was sent.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.held.map(|held| now.saturating_duration_since(held.at))
    }

    /// The newest that counts.
    pub(super) fn held(&self) -> Option<Held> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begun() -> (Lease, Instant) {
        let (mut lease, now) = (Lease::new(12 * SECOND), Instant::now());
        assert!(!lease.holds(now));
        assert_eq!(lease.due(now), Some(0));
        assert_eq!(lease.acked(0, 100, now + SECOND), Acked::Counts);
        (lease, now)
    }

    #[test]
    fn a_lease_holds_from_when_it_was_sent_and_goes_on_while_it_is_renewed() {
        let (mut lease, now) = begun();
        assert!(lease.holds(now + 11 * SECOND) && !lease.holds(now + 12 * SECOND));
        assert_eq!(lease.due(now + 3 * SECOND), None);
        assert_eq!(lease.due(now + 4 * SECOND), Some(1));
        assert_eq!(lease.acked(1, 200, now + 5 * SECOND), Acked::Counts);
        assert!(lease.holds(now + 15 * SECOND) && !lease.holds(now + 16 * SECOND));
        assert_eq!(lease.held().unwrap().offset, 200);
    }

    #[test]
    fn a_late_answer_does_not_count_without_a_look() {
        let (mut lease, now) = begun();
        assert_eq!(lease.due(now + 4 * SECOND), Some(1));
        assert_eq!(lease.acked(1, 200, now + 11 * SECOND), Acked::Look { from: 100 });
        assert!(!lease.holds(now + 12 * SECOND));
        lease.looked(1, 200);
        assert!(lease.holds(now + 12 * SECOND) && !lease.holds(now + 16 * SECOND));
    }

    #[test]
    fn once_none_holds_every_record_needs_a_look_and_an_old_ones_answer_is_none() {
        let (mut lease, now) = begun();
        assert_eq!(lease.due(now + 4 * SECOND), Some(1));
        assert_eq!(lease.due(now + 13 * SECOND), Some(2));
        assert_eq!(lease.acked(1, 200, now + 13 * SECOND), Acked::Ignored);
        assert_eq!(lease.acked(2, 300, now + 13 * SECOND), Acked::Look { from: 100 });
        assert!(!lease.holds(now + 13 * SECOND));
        lease.looked(2, 300);
        assert!(lease.holds(now + 14 * SECOND));
    }

    /// Whatever is answered when: at twice the length behind the newest record that a survivor has read, nothing that it
    /// has not read counts without a look.
    #[test]
    fn nothing_that_is_unread_at_twice_the_length_counts() {
        for sent in 1..40 {
            for answered in sent..80 {
                let (mut lease, now) = begun();
                let (sent_at, answered_at) = (now + sent * SECOND, now + answered * SECOND);
                let Some(number) = lease.due(sent_at) else { continue };
                let acked = lease.acked(number, 200, answered_at);
                // The fence stands before it, so its answer came behind the fence.
                if answered >= 24 {
                    assert_ne!(acked, Acked::Counts, "sent at {sent} s, answered at {answered} s");
                }
            }
        }
    }
}
