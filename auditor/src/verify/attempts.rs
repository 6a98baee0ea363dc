//! What an exchange tried: whether its attempts are told in order, each once, and the outcome tells of one of them.

use schemas::record::{Attempt, Outcome, PartName, Served, Usage, UsageRole};
use serde::{Deserialize, Serialize};

use crate::finding::{Code, Findings, Place};

/// The attempts of one open exchange, as far as they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    /// The last that was opened; absent: the intent's own dispatch.
    last: Option<Served>,
    /// Whether that one has its end.
    ended: bool,
    /// Where the intent's own dispatch went, as its end says it.
    #[serde(default)]
    first: Option<Served>,
    /// The number of the last whose `open` was told; 0: the intent.
    #[serde(default)]
    opened: u64,
}

/// Whether an attempt's phase is one, and its parts are its own.
pub(super) fn form(attempt: &Attempt, place: &dyn Fn() -> Place, findings: &mut Findings) {
    let phase = attempt.phase.as_str();
    if !["open", "end"].contains(&phase) {
        findings.add(Code::RecordInvalid, place().of_item("phase"), "`open` or `end`", phase.to_owned());
    }
    for part in &attempt.parts {
        let is_own = part.part.attempt().map(u64::from) == Some(attempt.number)
            && matches!(part.part, PartName::AttemptRequest(_)) == (phase == "open");
        if !is_own {
            let expected = match phase {
                "open" => format!("`attempt_request_{}`", attempt.number),
                _ => format!("`attempt_response_{}`", attempt.number),
            };
            findings.add(Code::RecordInvalid, place().of_item("parts"), expected, part.part.as_str());
        }
    }
}

impl Tried {
    fn number(&self) -> u64 {
        self.last.as_ref().map_or(0, |served| served.number)
    }

    /// Whether the outcome tells of the attempt whose `open`, or intent, is the last that was told: then no later one is among
    /// what was lost, since an outcome tells of the last.
    pub(super) fn is_of_last(&self, outcome: &Outcome) -> bool {
        outcome.served.as_ref().map_or(0, |served| served.number) == self.opened
    }

    /// Tells of an attempt. Where records of it may be lost (`is_torn`) their order is not judged.
    pub(super) fn tell(
        &mut self,
        attempt: &Attempt,
        is_torn: bool,
        place: &dyn Fn() -> Place,
        findings: &mut Findings,
    ) {
        let (number, last, is_end) = (attempt.number, self.number(), attempt.phase.as_str() == "end");
        let expected = match attempt.phase.as_str() {
            _ if is_torn => None,
            "open" if self.ended && number == last + 1 => None,
            "end" if !self.ended && number == last => None,
            _ if self.ended => Some(format!("`open` of attempt {}", last + 1)),
            _ => Some(format!("`end` of attempt {last}")),
        };
        if let Some(expected) = expected {
            let found = format!("`{}` of attempt {number}", attempt.phase);
            findings.add(Code::AttemptDisorder, place().of_item("number"), expected, found);
        }
        if is_end && number == 0 {
            self.first = Some(attempt.served());
        } else if is_end
            && number == last
            && let Some(opened) = &self.last
        {
            went(&attempt.served(), opened, "target", place, findings);
        }
        self.ended = is_end;
        if attempt.phase.as_str() == "open" {
            self.opened = number;
        }
        // One finding for each step that is wrong, not for all that follow it.
        if !self.ended || number > last {
            self.last = Some(attempt.served());
        }
    }

    /// Whether the outcome tells of the last one that was opened, and of what is not told already.
    pub(super) fn close(
        &self,
        outcome: &Outcome,
        is_torn: bool,
        place: &dyn Fn() -> Place,
        findings: &mut Findings,
    ) {
        let (told, last) = (outcome.served.as_ref().map_or(0, |served| served.number), self.number());
        let place = || place().of_exchange(&outcome.exchange);
        if let Some(first) = &self.first {
            went(first, &outcome.asked.dispatched(&first.target), "asked", &place, findings);
        }
        if told < last && !self.ended && !is_torn {
            let expected = format!("an `end` of attempt {last}, or an outcome that tells of it");
            findings.add(Code::AttemptUntold, place().of_item("served"), expected, format!("attempt {told}"));
        } else if told != last && !is_torn {
            let expected = format!("attempt {last}, the last that was opened");
            findings.add(Code::AttemptDisorder, place().of_item("served"), expected, told.to_string());
        }
        if let (Some(served), Some(opened)) = (&outcome.served, &self.last)
            && told == last
        {
            went(served, opened, "served", &place, findings);
        }
        let has_end = if told == last { self.ended } else { told < last && !is_torn };
        if has_end && let Some((item, found)) = told_twice(outcome) {
            let expected = format!("none: attempt {told} has its `end`");
            findings.add(Code::AttemptDisorder, place().of_item(item), expected, found);
        }
        for part in &outcome.parts {
            let Some(number) = part.part.attempt().map(u64::from) else { continue };
            let is_left = matches!(part.part, PartName::AttemptResponse(_)) && number == told && !has_end;
            if !is_left {
                let expected = "of attempts no part but the answer of the one it tells of, without an `end`";
                findings.add(Code::RecordInvalid, place().of_item("parts"), expected, part.part.as_str());
            }
        }
    }
}

/// Whether an attempt went where it was said before that it goes.
fn went(found: &Served, said: &Served, item: &str, place: &dyn Fn() -> Place, findings: &mut Findings) {
    if found != said {
        let text = |served: &Served| {
            let names = [&served.provider, &served.dialect, &served.model];
            let names: Vec<&str> =
                names.iter().map(|name| name.as_ref().map_or("-", |it| it.as_str())).collect();
            format!("{} {}", served.target, names.join(" "))
        };
        let expected = format!("attempt {} at {}", said.number, text(said));
        findings.add(Code::AttemptDisorder, place().of_item(item), expected, text(found));
    }
}

/// What an outcome says was used, where the end of the attempt has said it already.
fn told_twice(outcome: &Outcome) -> Option<(&'static str, String)> {
    let usage = &outcome.usage;
    if usage.role == UsageRole::Incurred {
        Some(("usage.role", "incurred".into()))
    } else if *usage != Usage::of(usage.source, usage.role) {
        Some(("usage", "counts".into()))
    } else {
        outcome.cost.as_ref().map(|cost| ("cost", format!("{} {}", cost.total, cost.currency)))
    }
}
