//! How long each kind of object is locked. A retain-until date follows from the seal's time alone, so that every
//! retry of a batch asks for the same.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::ObjectName;
use schemas::names::FileKind;

const DAY: Duration = Duration::from_secs(86_400);
/// A reference file may be named for 30 days after it was written.
const REFERENCE_MORE: Duration = Duration::from_secs(30 * 86_400);

/// Edits may go back to content that is so much older (FORMAT 7.3), and must not lose it before their own time is over.
const EDITED_MORE: Duration = Duration::from_micros(schemas::content::MAX_DELTA_SPAN_US.unsigned_abs());

/// Retention by kind of object, counted from the seal's time. Content files are locked a day longer than is said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Records files.
    pub records: Duration,
    /// Content files of classes that `classes` does not name.
    pub content: Duration,
    /// Content files by retention class.
    pub classes: BTreeMap<String, Duration>,
}

impl Retention {
    /// For how long the longest of all content classes is locked.
    fn longest_content(&self) -> Duration {
        self.classes.values().copied().fold(self.content, Duration::max) + EDITED_MORE
    }

    /// Reference files: 30 days longer than any content, and no shorter than records.
    pub fn reference(&self) -> Duration {
        (self.longest_content() + REFERENCE_MORE).max(self.records)
    }

    /// Seals: a day longer than any file that they may name.
    pub fn seals(&self) -> Duration {
        self.records.max(self.reference()) + DAY
    }

    /// The shortest of all: what a bucket's default should not be below.
    pub fn shortest(&self) -> Duration {
        self.classes.values().copied().fold(self.content.min(self.records), Duration::min)
    }

    /// What an object of this name gets.
    fn of(&self, name: &ObjectName) -> Duration {
        match name {
            ObjectName::Seal { .. } | ObjectName::Checkpoint { .. } | ObjectName::Anchor { .. } => {
                self.seals()
            }
            ObjectName::Data { kind: FileKind::Records, .. } => self.records,
            ObjectName::Data { kind: FileKind::Content(class), .. } => {
                self.classes.get(class).copied().unwrap_or(self.content) + EDITED_MORE
            }
            ObjectName::Data { kind: FileKind::Reference, .. } => self.reference(),
        }
    }

    /// Until when an object is kept: whole seconds UTC since 1970, rounded up. `sealed_us` is its seal's time.
    pub fn until_s(&self, name: &ObjectName, sealed_us: i64) -> i64 {
        let kept = i64::try_from(self.of(name).as_secs()).unwrap_or(i64::MAX);
        (sealed_us.saturating_add(999_999) / 1_000_000).saturating_add(kept)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use schemas::{Origin, Sha256Hex};

    #[test]
    fn seals_outlive_what_they_name_and_reference_outlives_content() {
        let day = |days: u64| DAY * u32::try_from(days).unwrap();
        let retention = Retention {
            records: day(365),
            content: day(90),
            classes: BTreeMap::from([("legal".to_owned(), day(3650)), ("short".to_owned(), day(7))]),
        };
        let origin = Origin::new("acme/gw1/e1").unwrap();
        let data =
            |kind| ObjectName::Data { origin: origin.clone(), batch: 0, sha256: Sha256Hex::of(b""), kind };
        let seal = ObjectName::Seal { origin: origin.clone(), batch: 0 };
        let days = |name: &ObjectName| retention.until_s(name, 0) / 86_400;
        assert_eq!(days(&data(FileKind::Records)), 365);
        assert_eq!(days(&data(FileKind::Content("standard".into()))), 91);
        assert_eq!(days(&data(FileKind::Content("legal".into()))), 3651);
        assert_eq!(days(&data(FileKind::Content("short".into()))), 8);
        assert_eq!(days(&data(FileKind::Reference)), 3681);
        assert_eq!(days(&seal), 3682);
        assert_eq!(retention.shortest(), day(7));
        assert_eq!(retention.until_s(&seal, 1), 1 + 3682 * 86_400, "rounded up");
    }
}
