//! Which logs there are, as the index says.

use std::collections::BTreeMap;
use std::time::Instant;

use schemas::Origin;

use super::INDEX;
use super::message::{Opening, Said};
use super::read::Reader;
use crate::topic::Failed;

/// One log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) opening: Opening,
    /// The newest lease that was pointed at, and where it stands.
    pub(super) number: u64,
    pub(super) lease_at: i64,
    /// From where on the log is needed: place and group.
    pub(super) from: i64,
    pub(super) sequence: u64,
    /// When this was heard of last, by our clock.
    pub(super) heard: Instant,
    /// Its gateway has found the fence that stands there.
    pub(super) fenced: Option<i64>,
    pub(super) closed: bool,
}

/// All logs of the topic.
#[derive(Debug, Default)]
pub(super) struct Table {
    next: i64,
    pub(super) logs: BTreeMap<Origin, Entry>,
}

impl Table {
    /// Reads what is new.
    pub(super) fn refresh(&mut self, reader: &Reader) -> Result<(), Failed> {
        let next = reader.read(INDEX, self.next, &mut |_, message| {
            if let Some((origin, said)) = message {
                self.take(origin, said, Instant::now());
            }
            true
        })?;
        if next < self.next {
            // Made anew: what it said of logs is gone.
            self.logs.clear();
        }
        self.next = next;
        Ok(())
    }

    fn take(&mut self, origin: Origin, said: Said<'_>, now: Instant) {
        if let Said::Open(opening) = said {
            let at = opening.offset;
            self.logs.entry(origin).or_insert(Entry {
                opening,
                number: 0,
                lease_at: at,
                from: at,
                sequence: 0,
                heard: now,
                fenced: None,
                closed: false,
            });
            return;
        }
        let Some(entry) = self.logs.get_mut(&origin) else { return };
        match said {
            Said::At { number, offset, from, sequence } if number >= entry.number => {
                // A copy of the newest is no sign of life.
                if number > entry.number {
                    entry.heard = now;
                }
                entry.number = number;
                entry.lease_at = offset;
                entry.from = from;
                entry.sequence = sequence;
            }
            Said::Fenced { offset } => entry.fenced = Some(offset),
            Said::Closed => entry.closed = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_newest_word_of_a_log_stands() {
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let opening =
            Opening { partition: 1, offset: 7, lease_ms: 1, salt: [1; 32], key: [2; 32], encrypted: true };
        let (mut table, now) = (Table::default(), Instant::now());
        table.take(origin.clone(), Said::Closed, now);
        assert!(table.logs.is_empty(), "of a log that never began");
        for said in [
            Said::Open(opening.clone()),
            Said::At { number: 2, offset: 30, from: 20, sequence: 4 },
            Said::At { number: 1, offset: 19, from: 8, sequence: 0 },
            Said::Open(Opening { offset: 99, ..opening }),
            Said::Fenced { offset: 40 },
        ] {
            table.take(origin.clone(), said, now);
        }
        let later = now + std::time::Duration::from_secs(9);
        table.take(origin.clone(), Said::At { number: 2, offset: 30, from: 20, sequence: 4 }, later);
        let entry = &table.logs[&origin];
        assert_eq!(entry.heard, now, "a copy is no sign of life");
        assert_eq!((entry.number, entry.lease_at, entry.from, entry.sequence), (2, 30, 20, 4));
        assert_eq!((entry.opening.offset, entry.fenced, entry.closed), (7, Some(40), false));
    }
}
