//! Partitions that hold messages and give none.
//!
//! librdkafka passes over what it is told of a partition in an older term of its leader than it knows. Terms count up with
//! each election, and those of a topic that is made anew begin with the first again. So a reader that knew the old topic
//! and did not see that it was gone takes all that is said of the new one for old, asks for its messages in a term that
//! the new one has not reached, and is refused without an end, and without a word to us. Only another reader helps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Between two readers for this reason: at first, and at most. What is held behind a place need not be a message.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MOST: Duration = Duration::from_secs(600);

/// What the brokers say of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) partition: i32,
    pub(crate) low: i64,
    pub(crate) high: i64,
    /// Where it would be read from where nothing of it came yet.
    pub(crate) committed: Option<i64>,
}

/// Which partitions are stalled, of those that a reader has.
#[derive(Debug, Default)]
pub(crate) struct Stalled {
    /// Behind the last message that came of each.
    next: BTreeMap<i32, i64>,
    /// Of these one came since the last look.
    heard: BTreeSet<i32>,
    /// These held more than was read at the last look, and nothing had come.
    silent: BTreeSet<i32>,
}

impl Stalled {
    /// A message came.
    pub(crate) fn heard(&mut self, partition: i32, offset: i64) {
        self.next.insert(partition, offset.saturating_add(1));
        self.heard.insert(partition);
    }

    /// A partition is another reader's now.
    pub(crate) fn lost(&mut self, partition: i32) {
        self.next.remove(&partition);
        self.heard.remove(&partition);
        self.silent.remove(&partition);
    }

    /// Nothing was to come, or nobody knows.
    pub(crate) fn rest(&mut self) {
        self.silent.clear();
    }

    /// Of which of these partitions nothing came since the last look.
    pub(crate) fn quiet(&self, partitions: impl Iterator<Item = i32>) -> Vec<i32> {
        partitions.filter(|partition| !self.heard.contains(partition)).collect()
    }

    /// Whether something of it came ever.
    pub(crate) fn knows(&self, partition: i32) -> bool {
        self.next.contains_key(&partition)
    }

    /// Looks at those that are quiet: gives one that held messages at the last look too, and gave none since.
    pub(crate) fn look(&mut self, quiet: &[Extent]) -> Option<i32> {
        let is_behind = |held: &&Extent| {
            let next = self.next.get(&held.partition).copied().or(held.committed);
            // What lies outside of the partition was another topic's: it is read from its beginning.
            let next = next.filter(|next| (held.low..=held.high).contains(next)).unwrap_or(held.low);
            next < held.high
        };
        let silent: BTreeSet<i32> = quiet.iter().filter(is_behind).map(|held| held.partition).collect();
        let stalled = silent.intersection(&self.silent).next().copied();
        self.silent = silent;
        self.heard.clear();
        stalled
    }
}

/// When another reader was made last, and how long it is not made again.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    last: Option<(Instant, Duration)>,
}

impl Renewals {
    /// Whether one is made now.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let pause = match self.last {
            None => PAUSE,
            Some((at, pause)) => {
                let since = now.saturating_duration_since(at);
                if since < pause {
                    return false;
                }
                if since > 2 * PAUSE_MOST { PAUSE } else { (pause * 2).min(PAUSE_MOST) }
            }
        };
        self.last = Some((now, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(partition: i32, low: i64, high: i64, committed: Option<i64>) -> Extent {
        Extent { partition, low, high, committed }
    }

    #[test]
    fn a_partition_that_holds_messages_at_two_looks_and_gives_none_is_stalled() {
        let mut stalled = Stalled::default();
        stalled.heard(1, 4);
        assert_eq!(stalled.quiet([1, 2].into_iter()), [2]);
        assert!(stalled.knows(1) && !stalled.knows(2));
        // All of 2 is read.
        assert_eq!(stalled.look(&[held(2, 0, 7, Some(7))]), None);
        assert_eq!(stalled.quiet([1, 2].into_iter()), [1, 2]);
        let full = [held(1, 0, 5, None), held(2, 0, 9, Some(7))];
        assert_eq!(stalled.look(&full), None, "it may just have come");
        assert_eq!(stalled.look(&full), Some(2));
        stalled.rest();
        assert_eq!(stalled.look(&full), None, "nothing was to come meanwhile");
        stalled.heard(2, 7);
        assert_eq!(stalled.look(&full[..1]), None);
        assert_eq!(stalled.look(&full), None, "it gives some");
        stalled.lost(2);
        assert_eq!(stalled.look(&full), None, "it was another's");
    }

    #[test]
    fn a_place_that_was_another_topics_is_the_beginning() {
        for (committed, high) in [(Some(40), 3), (None, 3), (Some(-1), 3)] {
            let mut stalled = Stalled::default();
            let full = [held(0, 0, high, committed)];
            assert_eq!((stalled.look(&full), stalled.look(&full)), (None, Some(0)), "{committed:?}");
        }
        let mut stalled = Stalled::default();
        stalled.heard(0, 50);
        stalled.look(&[]);
        let full = [held(0, 0, 3, None)];
        assert_eq!((stalled.look(&full), stalled.look(&full)), (None, Some(0)));
        let none = [held(0, 9, 9, None)];
        assert_eq!((stalled.look(&none), stalled.look(&none)), (None, None), "it holds nothing");
    }

    #[test]
    fn another_reader_is_made_at_once_and_then_ever_more_seldom() {
        let (mut renewals, begun) = (Renewals::default(), Instant::now());
        let mut at = |seconds| renewals.begin(begun + Duration::from_secs(seconds));
        assert_eq!([0, 29, 30, 89, 90, 209, 210].map(&mut at), [true, false, true, false, true, false, true]);
        assert!(at(3000) && !at(3029) && at(3030));
    }
}
