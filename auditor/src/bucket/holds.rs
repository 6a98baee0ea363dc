//! Legal holds: those that the mandate asks for, and those that were there at the last visit.
//!
//! HEAD leaves a hold's header out where the caller may not read it, so a version that should be under one is asked about
//! with GetObjectLegalHold: a refusal is "could not judge", never "no hold".

use super::Judge;
use super::kept::Seen;
use super::lock::Hold;
use crate::finding::{Code, Findings, Place};
use crate::mandate::{WantedHolds, is_below};
use crate::time;

/// What a version's hold comes to.
pub(super) struct Held {
    /// Whether it is under hold, as far as is known: what was known stays where nothing is said.
    pub(super) hold: bool,
    /// Why nothing can be said, where the caller may not ask.
    pub(super) denied: Option<String>,
    pub(super) findings: Findings,
}

/// Holds what the store says against what is asked and what was seen.
pub(super) fn judge(place: &Place, asked: bool, before: Option<&Seen>, said: &Hold) -> Held {
    let mut findings = Findings::default();
    let was = before.filter(|seen| seen.hold);
    let mut denied = None;
    let hold = match said {
        Hold::On => true,
        // HEAD may keep silent about a hold: what matters was asked about.
        Hold::Unseen if !asked && was.is_none() => false,
        Hold::Denied(why) => {
            denied = Some(why.clone());
            was.is_some()
        }
        Hold::Unknown(why) => {
            findings.add(Code::CouldNotRead, place.clone(), "an answer to GetObjectLegalHold", why);
            was.is_some()
        }
        Hold::Unseen | Hold::Off => {
            if asked {
                let expected = "a legal hold, as the mandate asks";
                findings.add(Code::HoldMissing, place.clone(), expected, "none");
            }
            if let Some(seen) = was {
                let expected = format!("a legal hold, as seen at {}", time::text(seen.at));
                findings.add(Code::HoldLifted, place.clone(), expected, "none");
            }
            false
        }
    };
    Held { hold, denied, findings }
}

impl Judge<'_> {
    /// What the mandate asks to be held, and of which nothing is there.
    pub(super) fn held_anywhere(&mut self) {
        let WantedHolds::Below(folders) = &self.asked.mandate.store.holds else { return };
        for folder in folders {
            let names = &self.source.listing().objects;
            let mut below = names.range(folder.clone()..).take_while(|(name, _)| name.starts_with(folder));
            if !below.any(|(name, named)| is_below(name, folder) && !named.versions.is_empty()) {
                let expected = "versions under legal hold, as the mandate asks";
                self.add(Code::HoldMissing, Place::object(folder), expected, "no version");
            }
        }
    }

    /// The caller may not read holds: told once.
    pub(super) fn holds_denied(&mut self, place: Place, why: String) {
        if self.holds_denied.is_none() {
            self.holds_denied = Some(why.clone());
            let expected = "s3:GetObjectLegalHold: without it a HEAD without a hold says nothing";
            self.add(Code::PermissionMissing, place, expected, why);
        }
    }

    /// What was not checked of holds; `left_out`: versions that should be held, and that a sample left out.
    pub(super) fn holds_not_checked(&self, left_out: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if self.asked.mandate.store.holds == WantedHolds::None {
            let why = "the mandate does not say (`store.holds`); those that HEAD shows are counted";
            lines.push(format!("which versions must be under a legal hold: {why}"));
        }
        if left_out > 0 {
            lines.push(format!(
                "legal holds of {left_out} versions that should be under one: a sample was asked for"
            ));
        }
        lines.push("legal holds against the records of holds: nothing writes such records".into());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_is_asked_for_or_was_there_is_missed_and_silence_is_no_answer() {
        let seen = |hold| Seen { mode: String::new(), until: 0, hold, at: 1, sealed_at: None, clean: false };
        let (held, free) = (seen(true), seen(false));
        let denied = Hold::Denied("403".into());
        let unknown = Hold::Unknown("500".into());
        let (missing, lifted, unread) = ("HOLD_MISSING", "HOLD_LIFTED", "COULD_NOT_READ");
        for (asked, before, said, hold, codes) in [
            (false, None, &Hold::Unseen, false, vec![]),
            (false, Some(&free), &Hold::Unseen, false, vec![]),
            (false, None, &Hold::On, true, vec![]),
            (true, None, &Hold::On, true, vec![]),
            (true, None, &Hold::Off, false, vec![missing]),
            (true, None, &Hold::Unseen, false, vec![missing]),
            (false, Some(&held), &Hold::Off, false, vec![lifted]),
            (true, Some(&held), &Hold::Off, false, vec![missing, lifted]),
            (true, None, &denied, false, vec![]),
            (true, Some(&held), &denied, true, vec![]),
            (true, Some(&held), &unknown, true, vec![unread]),
        ] {
            let judged = judge(&Place::default(), asked, before, said);
            let found: Vec<_> = judged.findings.iter().map(|finding| finding.code.as_str()).collect();
            assert_eq!((judged.hold, found), (hold, codes), "{asked} {before:?} {said:?}");
            assert_eq!(judged.denied.is_some(), *said == denied);
        }
    }
}
