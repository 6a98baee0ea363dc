//! Keys that go because their erasure is recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas::Identifier;

use crate::disk::DiskLock;
use crate::journal::Ticket;
use crate::keys::KeyError;

/// Why no hold begins while nobody knows whether content is to go.
const LATE: &str = "an erasure is on its way, and the brokers do not say whether it is recorded: wanted an answer of them before a hold \
                    begins; ask again; nothing was done";
const UNKNOWN: &str = "an erasure failed in the journal, and what of it is recorded only the next start finds: wanted a restart of the \
                       gateway before a hold begins; nothing was done";

/// Keys whose erasure is recorded and that are not destroyed yet; and those whose erasure is in the journal's queue, of which nobody
/// knows yet whether it will be recorded: the brokers do not answer.
#[derive(Debug, Default)]
pub(crate) struct Due {
    recorded: BTreeSet<Identifier>,
    late: Vec<(Identifier, Ticket)>,
    /// What the journal has of an erasure that failed is known to whoever recovers it alone.
    is_unknown: bool,
    /// That of the holds, as long as nobody knows of some: what another process put under a hold meanwhile might go all the same.
    alone: Option<Arc<dyn DiskLock>>,
}

/// What the journal has of erasures that it did not take.
#[derive(Debug)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// All of them wait in its queue; the ticket tells what becomes of them.
    Late(Ticket),
    /// Perhaps some of them.
    Unknown,
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

    /// Why no hold may begin, where of some nobody knows if they have to go.
    pub(super) fn undecided(&self) -> Option<&'static str> {
        match (self.is_late(), self.is_unknown) {
            (true, _) => Some(LATE),
            (false, true) => Some(UNKNOWN),
            (false, false) => None,
        }
    }

    /// Whether the journal need not be kept for any: none is to go here, nor may be at the next start.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && !self.is_unknown
    }

    /// The key's erasure was not recorded; the journal may have it, or a part of it, all the same.
    pub(super) fn refused(&mut self, key: Identifier, left: Left) {
        match left {
            Left::Nothing => {}
            Left::Late(ticket) => self.late.push((key, ticket)),
            Left::Unknown => self.is_unknown = true,
        }
    }

    /// Keeps the lock of the holds as long as nobody knows of some.
    pub(super) fn keep(&mut self, alone: Arc<dyn DiskLock>) {
        self.alone = self.undecided().map(|_| alone);
    }

    /// The lock of the holds, where it is kept.
    pub(crate) fn alone(&self) -> Option<Arc<dyn DiskLock>> {
        self.alone.clone()
    }

    /// Another gateway closes the log: it decides what is recorded, and needs the lock of the holds for that.
    pub(super) fn leave_to_successor(&mut self) {
        for (key, _) in self.late.drain(..) {
            tracing::warn!(%key, "whether this erasure is recorded the gateway decides that closes the log");
        }
        self.is_unknown = false;
        self.alone = None;
    }

    /// How many are to go, or may have to.
    pub(super) fn len(&self) -> usize {
        self.recorded.len() + self.late.len()
    }

    /// The erasure is recorded.
    pub(super) fn recorded(&mut self, key: Identifier) {
        self.recorded.insert(key);
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
                // What is in the journal all the same its recovery finds there.
                Some(Err(error)) => {
                    self.is_unknown = true;
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
        if self.undecided().is_none() {
            self.alone = None;
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk as _, SimDisk};
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
        let disk = SimDisk::new();
        let lock = || disk.lock(Path::new("/holds.lock")).unwrap();
        let mut due = Due::default();
        due.keep(Arc::from(lock().unwrap()));
        assert!(due.undecided().is_none() && lock().is_some(), "others may hold what they like");
        due.recorded(id("now"));
        due.refused(id("refused"), Left::Nothing);
        due.refused(id("late"), Left::Late(ticket));
        due.refused(id("never"), Left::Late(other));
        due.keep(Arc::from(lock().unwrap()));
        assert_eq!(due.len(), 3);
        assert!(due.destroy(destroy).is_none());
        assert_eq!((due.undecided(), lock().is_none()), (Some(LATE), true));
        assert_eq!(
            (gone.borrow().as_slice(), due.len(), due.is_empty()),
            (&["now".to_owned()][..], 2, false)
        );
        told.send(Ok(Synced { positions: 7..9, time_us: 1, promised: None })).unwrap();
        assert!(due.destroy(destroy).is_none());
        assert_eq!((due.undecided(), lock().is_none()), (Some(LATE), true));
        never.send(Err(JournalError::Closed)).unwrap();
        assert!(due.destroy(destroy).is_none());
        assert_eq!((gone.borrow().join(" ").as_str(), due.is_empty()), ("now late", true));
        // The journal may hold a part of what was not recorded: the next start goes by it.
        assert!(!due.is_late() && !due.is_done());
        assert_eq!((due.undecided(), lock().is_none()), (Some(UNKNOWN), true));
    }

    #[test]
    fn what_is_decided_late_lets_holds_begin_again() {
        let (disk, path) = (SimDisk::new(), Path::new("/holds.lock"));
        let (told, ticket) = Ticket::by_hand();
        let mut due = Due::default();
        due.refused(Identifier::new("late").unwrap(), Left::Late(ticket));
        due.keep(Arc::from(disk.lock(path).unwrap().unwrap()));
        assert!(due.alone().is_some() && disk.lock(path).unwrap().is_none());
        told.send(Ok(Synced { positions: 7..9, time_us: 1, promised: None })).unwrap();
        assert!(due.destroy(|_| Ok(())).is_none() && due.is_done());
        assert!(due.undecided().is_none() && disk.lock(path).unwrap().is_some());
    }

    #[test]
    fn what_is_left_to_a_successor_keeps_no_lock_and_what_is_recorded_goes_all_the_same() {
        let (disk, path) = (SimDisk::new(), Path::new("/holds.lock"));
        let (_told, ticket) = Ticket::by_hand();
        let mut due = Due::default();
        due.recorded(Identifier::new("recorded").unwrap());
        due.refused(Identifier::new("late").unwrap(), Left::Late(ticket));
        due.refused(Identifier::new("failed").unwrap(), Left::Unknown);
        due.keep(Arc::from(disk.lock(path).unwrap().unwrap()));
        due.leave_to_successor();
        assert!(due.undecided().is_none() && disk.lock(path).unwrap().is_some());
        assert_eq!(due.len(), 1);
        assert!(due.destroy(|_| Ok(())).is_none() && due.is_done());
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
