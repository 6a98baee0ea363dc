//! Keys that go because their erasure is recorded.

use std::collections::BTreeSet;

use schemas::Identifier;

use crate::journal::Ticket;
use crate::keys::KeyError;

/// Keys whose erasure is recorded and that are not destroyed yet; and those whose erasure is in the journal's queue, of which nobody
/// knows yet whether it will be recorded: the brokers do not answer.
#[derive(Debug, Default)]
pub(crate) struct Due {
    recorded: BTreeSet<Identifier>,
    late: Vec<(Identifier, Ticket)>,
    /// What the journal has of an erasure that failed is known to the next start alone.
    is_unknown: bool,
}

impl Due {
    /// Whether no key is to go, or may have to.
    pub(super) fn is_empty(&self) -> bool {
        self.recorded.is_empty() && self.late.is_empty()
    }

    /// Whether of some nobody knows yet if they will have to go.
    pub(super) fn is_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Whether the journal need not be kept for any: none is to go here, nor may be at the next start.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && !self.is_unknown
    }

    /// An erasure failed in the journal, which may hold a part of its records.
    pub(super) fn failed(&mut self) {
        self.is_unknown = true;
    }

    /// How many are to go, or may have to.
    pub(super) fn len(&self) -> usize {
        self.recorded.len() + self.late.len()
    }

    /// The erasure is recorded.
    pub(super) fn recorded(&mut self, key: Identifier) {
        self.recorded.insert(key);
    }

    /// The erasure is recorded once the ticket says so.
    pub(super) fn wait_for(&mut self, key: Identifier, ticket: Ticket) {
        self.late.push((key, ticket));
    }

    /// Destroys what is recorded by now; what fails stays. The last failure.
    pub(super) fn destroy(
        &mut self,
        destroy: impl Fn(&Identifier) -> Result<(), KeyError>,
    ) -> Option<KeyError> {
        for (key, mut ticket) in std::mem::take(&mut self.late) {
            match ticket.told() {
                None => self.late.push((key, ticket)),
                Some(Ok(_)) => self.recorded(key),
                // What is in the journal all the same the next start finds there.
                Some(Err(error)) => {
                    self.failed();
                    tracing::warn!(%error, %key, "an erasure was not recorded: the key stays; erase again");
                }
            }
        }
        let mut failed = None;
        self.recorded.retain(|key| match destroy(key) {
            Ok(()) => false,
            Err(error) => {
                tracing::error!(%error, "an erasure is recorded and its key is not destroyed yet");
                failed = Some(error);
                true
            }
        });
        failed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::RefCell;

    use super::*;
    use crate::journal::{JournalError, Synced};

    #[test]
    fn a_key_whose_erasure_is_recorded_late_goes_then_and_not_before() {
        let id = |text: &str| Identifier::new(text).unwrap();
        let gone = RefCell::new(Vec::new());
        let destroy = |key: &Identifier| {
            gone.borrow_mut().push(key.to_string());
            Ok(())
        };
        let (told, ticket) = Ticket::by_hand();
        let (never, other) = Ticket::by_hand();
        let mut due = Due::default();
        due.recorded(id("now"));
        due.wait_for(id("late"), ticket);
        due.wait_for(id("never"), other);
        assert_eq!(due.len(), 3);
        assert!(due.destroy(destroy).is_none());
        assert_eq!(
            (gone.borrow().as_slice(), due.len(), due.is_empty()),
            (&["now".to_owned()][..], 2, false)
        );
        told.send(Ok(Synced { positions: 7..9, time_us: 1, promised: None })).unwrap();
        never.send(Err(JournalError::Closed)).unwrap();
        assert!(due.destroy(destroy).is_none());
        assert_eq!((gone.borrow().join(" ").as_str(), due.is_empty()), ("now late", true));
        // The journal may hold a part of what was not recorded: the next start goes by it.
        assert!(!due.is_late() && !due.is_done());
    }

    #[test]
    fn a_key_that_cannot_be_destroyed_stays_due() {
        let mut due = Due::default();
        due.recorded(Identifier::new("key").unwrap());
        assert!(due.destroy(|key| Err(KeyError::Name(key.to_string()))).is_some());
        assert_eq!(due.len(), 1);
        assert!(due.destroy(|_| Ok(())).is_none() && due.is_done());
    }
}
