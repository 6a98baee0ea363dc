//! What an exchange tried: the order of its attempts, and which of them its outcome tells of.

use schemas::record::{
    Asked, Attempt, AttemptNumber, Outcome, Part, PartName, Served, Translation, Unpriced, Usage, UsageRole,
    UsageSource,
};

use crate::admission::{NewPart, PartContent};
use crate::error::{Reason, Unavailable};

/// The attempts of one exchange, as far as they are in the journal's queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts {
    /// The last one that was opened; absent: the intent's own dispatch.
    last: Option<Served>,
    /// How its opening says that its request was translated.
    translation: Option<Translation>,
    /// Whether the last one has its end.
    ended: bool,
}

impl Attempts {
    pub(crate) fn number(&self) -> u64 {
        self.last.as_ref().map_or(0, |served| served.number)
    }

    /// Whether `attempt` is the next, and `request` its part.
    pub(crate) fn may_open(&self, attempt: &Attempt, request: Option<&NewPart>) -> Result<(), Unavailable> {
        let number = numbered(attempt)?;
        let next = self.number() + 1;
        if attempt.number != next || !self.ended {
            let before = if self.ended { "ended" } else { "did not end" };
            return Err(refused(format!(
                "attempt {number} opens, wanted {next} behind the end of {}, which {before}",
                next - 1
            )));
        }
        match request.and_then(|part| other_than(part, PartName::AttemptRequest(number))) {
            Some(name) => Err(refused(format!("attempt {number} sends the part `{}`", name.as_str()))),
            None => Ok(()),
        }
    }

    /// Whether `attempt` is the one that is under way, goes where that went, and `response` is its part.
    pub(crate) fn may_end(
        &self,
        attempt: &Attempt,
        asked: &Asked,
        response: Option<&NewPart>,
    ) -> Result<(), Unavailable> {
        let number = numbered(attempt)?;
        if attempt.number != self.number() || self.ended {
            return Err(refused(format!("attempt {number} ends, and it is not under way")));
        }
        let target = self.under_way(asked, attempt).target;
        if attempt.target != target {
            return Err(refused(format!(
                "attempt {number} ends at `{}`, it went to `{target}`",
                attempt.target
            )));
        }
        match response.and_then(|part| other_than(part, PartName::AttemptResponse(number))) {
            Some(name) => Err(refused(format!("attempt {number} answered the part `{}`", name.as_str()))),
            None => Ok(()),
        }
    }

    /// Has `attempt`, which ends, say where it went as its opening, or the intent, said it.
    pub(crate) fn name(&self, attempt: &mut Attempt, asked: &Asked) {
        let Served { number: _, target, provider, dialect, model } = self.under_way(asked, attempt);
        (attempt.target, attempt.provider, attempt.dialect, attempt.model) =
            (target, provider, dialect, model);
    }

    fn under_way(&self, asked: &Asked, attempt: &Attempt) -> Served {
        self.last.clone().unwrap_or_else(|| asked.dispatched(&attempt.target))
    }

    /// `attempt` is recorded. An end of one whose opening is not known (it was lost) tells as much as that.
    pub(crate) fn note(&mut self, attempt: &Attempt) {
        self.ended = attempt.phase.as_str() == "end";
        if !self.ended || attempt.number > self.number() {
            self.last = Some(attempt.served());
            self.translation = attempt.translation.clone();
        }
    }

    /// Has the outcome tell of the last attempt. One that has its end was told of already: what it used is not told twice.
    ///
    /// # Errors
    /// Its maker says of another one that the outcome tells of it.
    pub(crate) fn tell(&self, outcome: &mut Outcome) -> Result<(), Unavailable> {
        if outcome.served.is_some() && outcome.served != self.last {
            return Err(refused(format!("an outcome of another attempt than {}, the last", self.number())));
        }
        if self.last.is_some() {
            outcome.served = self.last.clone();
            outcome.translation = self.translation.clone();
        }
        if self.ended {
            outcome.usage = Usage::of(UsageSource::Unknown, UsageRole::None);
            outcome.cost = None;
            outcome.unpriced = Some(Unpriced::NotIncurred);
        }
        Ok(())
    }

    /// Whether an outcome may name these.
    pub(crate) fn may_name(&self, parts: &[Part]) -> Result<(), Unavailable> {
        match parts.iter().find(|part| !self.leaves(part.part)) {
            Some(part) => Err(refused(format!("an outcome names the part `{}`", part.part.as_str()))),
            None => Ok(()),
        }
    }

    /// Whether `part` is left for an outcome to name: of attempts no more than the last one's answer, where no end named that.
    pub(crate) fn leaves(&self, part: PartName) -> bool {
        match part {
            PartName::AttemptRequest(_) => false,
            PartName::AttemptResponse(number) => u64::from(number) == self.number() && !self.ended,
            _ => true,
        }
    }
}

/// The name of `part`, or of its body, where that is not `name`.
fn other_than(part: &NewPart, name: PartName) -> Option<PartName> {
    let of_body = match &part.content {
        PartContent::Stored(body) => body.part(),
        PartContent::Bytes(_) => part.part,
    };
    [part.part, of_body].into_iter().find(|one| *one != name)
}

fn numbered(attempt: &Attempt) -> Result<AttemptNumber, Unavailable> {
    let wrong = || refused(format!("attempt {}: at most 16 are recorded", attempt.number));
    AttemptNumber::new(attempt.number).ok_or_else(wrong)
}

fn refused(detail: String) -> Unavailable {
    Unavailable::new(Reason::RecordRefused, detail)
}

#[cfg(test)]
mod tests {
    use schemas::{ExchangeId, Identifier};

    use super::*;

    fn attempt(number: u64, phase: &str) -> Attempt {
        let id = |text: &str| Identifier::new(text).unwrap();
        let exchange = ExchangeId::new("018f0000-0000-7000-8000-000000000001").unwrap();
        let number = AttemptNumber::new(number).unwrap();
        Attempt {
            phase: id(phase),
            ..Attempt::new(exchange, number, id(&format!("target-{number}")), id("retry"))
        }
    }

    #[test]
    fn an_end_whose_opening_was_lost_tells_of_its_attempt() {
        let mut attempts = Attempts::default();
        for (number, phase) in [(0, "end"), (1, "open"), (2, "end")] {
            attempts.note(&attempt(number, phase));
        }
        assert_eq!(attempts.last, Some(attempt(2, "end").served()));
        assert!(attempts.ended);
        assert!(!attempts.leaves(PartName::AttemptResponse(AttemptNumber::new(2).unwrap())));
    }
}
