//! How far the offset of a partition may be committed: never past a message whose batch is not archived yet.

use std::collections::BTreeMap;
use std::time::Instant;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At {
    /// The partition of the topic.
    pub(crate) partition: i32,
    /// The message's offset in it.
    pub(crate) offset: i64,
}

/// One partition.
#[derive(Debug)]
struct Partition {
    /// Messages that are still needed, and when each was read.
    open: BTreeMap<i64, Instant>,
    /// Behind the last message that was read.
    next: i64,
    /// Behind the message that was read just now: less than `next` where the partition is read again.
    cursor: i64,
    /// What was committed last.
    committed: Option<i64>,
}

/// The partitions that this archiver reads.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    partitions: BTreeMap<i32, Partition>,
}

impl Offsets {
    /// A message was read, and is needed until [`Offsets::done`].
    pub(crate) fn read(&mut self, at: At) {
        let partition = self.partitions.entry(at.partition).or_insert_with(|| Partition {
            open: BTreeMap::new(),
            next: at.offset,
            cursor: at.offset,
            committed: None,
        });
        partition.open.entry(at.offset).or_insert_with(Instant::now);
        partition.cursor = at.offset.saturating_add(1);
        partition.next = partition.next.max(partition.cursor);
    }

    /// Passes over a message that was read before and is not needed any more, where a partition is read again. False
    /// where it is another one.
    pub(crate) fn pass_again(&mut self, at: At) -> bool {
        let Some(partition) = self.partitions.get_mut(&at.partition) else { return false };
        if at.offset >= partition.next || partition.open.contains_key(&at.offset) {
            return false;
        }
        partition.cursor = at.offset.saturating_add(1);
        true
    }

    /// A partition is read again from the oldest message that is still needed: gives which that is.
    pub(crate) fn again(&mut self, partition: i32) -> Option<At> {
        let of = self.partitions.get_mut(&partition)?;
        of.cursor = of.open.first_key_value().map(|(offset, _)| *offset)?;
        Some(At { partition, offset: of.cursor })
    }

    /// Whether a message stands before one that was read: the topic was made anew, its offsets were reset, or the
    /// partition was another archiver's meanwhile. Where it is read again on purpose it is the message before that counts.
    pub(crate) fn goes_back(&self, at: At) -> bool {
        self.partitions.get(&at.partition).is_some_and(|partition| at.offset < partition.cursor)
    }

    /// The partitions that were read.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// A message is not needed any more.
    pub(crate) fn done(&mut self, at: At) {
        if let Some(partition) = self.partitions.get_mut(&at.partition) {
            partition.open.remove(&at.offset);
        }
    }

    /// A partition is read by another archiver now.
    pub(crate) fn lost(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Where each partition would be read on after a death now, where that has moved since it was asked last.
    pub(crate) fn due_commits(&mut self) -> Vec<At> {
        let moved = self.partitions.iter_mut().filter_map(|(number, partition)| {
            let offset = partition.open.first_key_value().map_or(partition.next, |(offset, _)| *offset);
            let moved = partition.committed.is_none_or(|before| before < offset);
            partition.committed = Some(partition.committed.map_or(offset, |before| before.max(offset)));
            moved.then_some(At { partition: *number, offset })
        });
        moved.collect()
    }

    /// What was to be committed was not: it is asked for again.
    pub(crate) fn not_committed(&mut self) {
        self.partitions.values_mut().for_each(|partition| partition.committed = None);
    }

    /// Messages that are still needed.
    pub(crate) fn open(&self) -> usize {
        self.partitions.values().map(|partition| partition.open.len()).sum()
    }

    /// When the oldest of them was read: messages of a partition are read in their order.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.partitions.values().filter_map(|partition| Some(*partition.open.first_key_value()?.1)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> At {
        At { partition: 3, offset }
    }

    #[test]
    fn what_is_read_again_on_purpose_is_neither_new_nor_a_step_back() {
        let mut offsets = Offsets::default();
        for offset in 10..15 {
            offsets.read(at(offset));
        }
        [10, 12, 14].into_iter().for_each(|offset| offsets.done(at(offset)));
        assert_eq!(offsets.again(3), Some(at(11)));
        for (offset, is_settled) in [(11, false), (12, true), (13, false), (14, true), (15, false)] {
            assert!(!offsets.goes_back(at(offset)), "{offset}");
            assert_eq!(offsets.pass_again(at(offset)), is_settled, "{offset}");
            if !is_settled {
                offsets.read(at(offset));
            }
        }
        // A message before the one that was read just now is a step back, then as always.
        assert!(offsets.goes_back(at(13)));
        assert_eq!((offsets.open(), offsets.due_commits()), (3, vec![at(11)]));
        assert_eq!(offsets.again(4), None);
    }

    #[test]
    fn the_oldest_message_that_is_needed_holds_the_offset() {
        let mut offsets = Offsets::default();
        for offset in 10..15 {
            offsets.read(at(offset));
        }
        assert_eq!(offsets.due_commits(), [at(10)]);
        let oldest = offsets.oldest().expect("a message is open");
        offsets.read(at(10));
        assert_eq!(offsets.oldest(), Some(oldest), "read again, it is as old as before");
        offsets.done(at(11));
        offsets.done(at(12));
        assert_eq!(offsets.due_commits(), []);
        offsets.done(at(10));
        assert_eq!(offsets.due_commits(), [at(13)]);
        offsets.not_committed();
        assert_eq!(offsets.due_commits(), [at(13)]);
        offsets.done(at(13));
        offsets.done(at(14));
        assert_eq!((offsets.due_commits(), offsets.open()), (vec![at(15)], 0));
        assert_eq!(offsets.oldest(), None);
        assert!(offsets.goes_back(at(10)) && !offsets.goes_back(at(11)), "it was read again up to 10");
        assert_eq!(offsets.partitions(), [3]);
        offsets.lost(3);
        offsets.done(at(14));
        assert_eq!(offsets.due_commits(), []);
    }

    proptest! {
        #[test]
        fn nothing_that_is_needed_lies_before_what_is_committed(steps in proptest::collection::vec((any::<bool>(), 0_i64..40), 0..200)) {
            let (mut offsets, mut needed, mut next) = (Offsets::default(), BTreeSet::new(), 0);
            for (read, pick) in steps {
                if read {
                    offsets.read(at(next));
                    needed.insert(next);
                    next += 1;
                } else {
                    offsets.done(at(pick));
                    needed.remove(&pick);
                }
                for committed in offsets.due_commits() {
                    prop_assert!(needed.first().is_none_or(|first| committed.offset <= *first));
                    prop_assert!(committed.offset <= next);
                }
            }
            needed.iter().for_each(|offset| offsets.done(at(*offset)));
            let last = offsets.due_commits();
            prop_assert!(next == 0 || last.is_empty() || last == [at(next)]);
        }
    }
}
