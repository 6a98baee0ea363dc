//! What all of it comes to: counts, what was not checked, and whether retention is enforced.

use super::Judge;
use super::probed::Probed;
use super::select::Selection;
use crate::finding::{Code, Effect, Place};
use crate::time;

/// Findings that say that retention is not enforced, beside versions that are not locked.
const AGAINST: [Code; 6] = [
    Code::RetentionReduced,
    Code::StoreNotWorm,
    Code::ListingIncomplete,
    Code::WrongSource,
    Code::NullVersion,
    Code::LockContradiction,
];

/// What the probes of a bucket say for its retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probing {
    /// Everything that must be refused was tried and refused: when, and where the canaries were.
    Enforced(String),
    /// It says less, and why.
    Less(String),
}

impl Probing {
    /// `within`: how old a probe may be, microseconds.
    pub(super) fn of(probed: Option<&Probed>, within: Option<i64>, now: i64) -> Self {
        let Some(probed) = probed else { return Self::Less("NOT probed".into()) };
        let at = format!("probed at {} under `{}`", time::text(probed.at), probed.canaries);
        let without = probed.without();
        if !probed.failed.is_empty() {
            Self::Less(format!("{at}: {}", probed.failed.join(", ")))
        } else if !without.is_empty() {
            Self::Less(format!("{at} NOT in full (without {})", without.join(", ")))
        } else if within.is_some_and(|within| now.saturating_sub(probed.at) > within) {
            Self::Less(format!("{at}, NOT within {}", time::length(within.unwrap_or(0))))
        } else {
            Self::Enforced(at)
        }
    }
}

impl Judge<'_> {
    /// Counts, and says what was not checked.
    pub(super) fn conclude(&mut self, selection: &Selection) {
        let listing = self.source.listing();
        let facts = &mut self.out.facts;
        facts.versions = selection.total as u64;
        facts.canaries = listing.versions.saturating_sub(facts.versions);
        facts.markers = listing.markers;
        facts.read_earlier = selection.earlier.len() as u64;
        facts.left_out = selection.left_out as u64;
        facts.requests = self.source.bucket().requests();
        // What was read earlier and is not asked again was sound, and still is by its date.
        for seen in &selection.earlier {
            facts.holds += u64::from(seen.hold);
            facts.lock(seen.until);
        }
        let (total, left_out, unread, earlier) =
            (facts.versions, facts.left_out, facts.unread, facts.read_earlier);
        let mut lines = Vec::new();
        if left_out > 0 {
            let known = match selection.left_out_known {
                0 => String::new(),
                known => format!(" ({known} of them were read at an earlier visit)"),
            };
            lines
                .push(format!("lock state of {left_out} of {total} versions: a sample was asked for{known}"));
        }
        if earlier > 0 {
            lines.push(format!(
                "lock state of {earlier} of {total} versions: read at an earlier visit, not again"
            ));
        }
        if unread > 0 {
            lines.push(format!("lock state of {unread} of {total} versions: no answer that says anything"));
        }
        lines.extend(self.sealed.not_checked());
        lines.extend(self.holds_not_checked(selection.left_out_holds));
        if self.out.findings.has(Code::Replicated) {
            lines.push("copies in other buckets: verify them by themselves".into());
        }
        let probing = Probing::of(self.asked.probed, self.asked.mandate.store.probed_within, self.asked.now);
        if let Probing::Less(why) = &probing {
            lines.push(format!("whether the store keeps to its locks: {why}"));
        }
        self.out.not_checked.extend(lines);
        if let Some(probed) = self.asked.probed.filter(|probed| !probed.failed.is_empty()) {
            let found = format!("the probe at {}: {}", time::text(probed.at), probed.failed.join(", "));
            let expected = "a store that enforces retention";
            self.add(Code::StoreNotWorm, Place::object("the store"), expected, found);
        }
        self.out.claim = self.claim(&probing);
    }

    /// Whether retention is enforced, and the words of the first line.
    fn claim(&self, probing: &Probing) -> (bool, String) {
        let facts = &self.out.facts;
        let against = AGAINST.iter().any(|code| {
            self.out.findings.iter().any(|found| found.code == *code && found.effect > Effect::Note)
        });
        let (total, until) = (facts.versions, facts.at_least());
        if total == 0 {
            (false, "NO retention: no versions".into())
        } else if self.denied.is_some() {
            (false, "retention NOT judged (no permission)".into())
        } else if self.short > 0 || facts.unread > 0 || against {
            (false, "retention NOT enforced throughout".into())
        } else if facts.left_out > 0 {
            (false, format!("retention NOT read of every version ({} of {total} left out)", facts.left_out))
        } else {
            match probing {
                Probing::Enforced(at) => {
                    (true, format!("retention enforced: {total} versions locked{until}, {at}"))
                }
                Probing::Less(why) => (
                    false,
                    format!("retention NOT shown to be enforced: {total} versions locked{until}, {why}"),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{ENFORCES, ROWS};

    #[test]
    fn a_probe_counts_where_everything_was_tried_and_nothing_failed_and_it_is_not_too_old() {
        let passed = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect();
        let probed = |rows: &[&str], failed: &[&str]| Probed {
            at: 10 * time::DAY,
            canaries: ".affidavit-probe/1".into(),
            passed: passed(rows),
            failed: passed(failed),
        };
        let of = |probed: &Probed, within| Probing::of(Some(probed), within, 20 * time::DAY);
        let enforced = |probing: Probing| matches!(probing, Probing::Enforced(_));
        assert!(enforced(of(&probed(&ENFORCES, &[]), None)));
        assert!(enforced(of(&probed(ROWS, &[]), Some(10 * time::DAY))));
        assert!(!enforced(of(&probed(ROWS, &[]), Some(9 * time::DAY))));
        assert!(!enforced(of(&probed(ROWS, &["clock"]), None)));
        assert!(!enforced(Probing::of(None, None, 0)));
        for left_out in ENFORCES {
            let rows: Vec<&str> = ROWS.iter().copied().filter(|row| *row != left_out).collect();
            let Probing::Less(why) = of(&probed(&rows, &[]), None) else {
                std::panic::panic_any(format!("without {left_out}"))
            };
            assert!(why.contains(left_out), "{why}");
        }
    }
}
