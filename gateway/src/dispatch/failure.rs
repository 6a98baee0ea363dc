//! An attempt that gave no answer for the caller: why, and what that says.

use std::time::Duration;

use dialects::FailureClass;

use super::NoAnswer;
use crate::balance;
use crate::config::On;
use crate::quotas::Went;
use crate::relay::answer::{Answer, Extent};
use crate::respond::Reason;

/// Why a target gave no answer that goes to the caller while another is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Connect,
    Timeout,
    Aborted,
    Status(u16),
    /// A stream that began with an error, which would have had this status.
    Event(u16),
    /// A whole answer that says that it is none, which should have had this status.
    Said(u16),
    /// An answer came that goes over a bound of the gateway's own: of its size, its time, or the memory for bodies.
    Exceeds,
}

impl Why {
    /// Of an answer that came and cannot be passed on.
    pub(super) fn unfit(reason: Reason) -> Self {
        match reason {
            Reason::AnswerTooLarge | Reason::AnswerTooLong | Reason::Overloaded => Self::Exceeds,
            Reason::ProviderTimeout => Self::Timeout,
            _ => Self::Aborted,
        }
    }
}

/// A failed attempt.
pub(super) struct Failure {
    pub(super) why: Why,
    pub(super) class: Option<FailureClass>,
    /// What came, as far as it was read.
    pub(super) answer: Option<Answer>,
    /// For an answer of the gateway's own.
    pub(super) no_answer: NoAnswer,
    pub(super) retry_after: Option<Duration>,
    pub(super) took: Duration,
    /// How much of the answer was read.
    pub(super) extent: Extent,
    /// What came was read as far as it takes to know that none of it can go to the caller.
    pub(super) is_unfit: bool,
    /// The provider does not take the gateway's own key.
    pub(super) is_refused: bool,
}

impl Failure {
    /// One of which no answer came.
    pub(super) fn new(why: Why, no_answer: NoAnswer, took: Duration) -> Self {
        Self {
            why,
            class: None,
            answer: None,
            no_answer,
            retry_after: None,
            took,
            extent: Extent::Part,
            is_unfit: false,
            is_refused: false,
        }
    }

    /// Whether it is one of those that `on` names.
    pub(super) fn counts(&self, on: On) -> bool {
        let status = self.counted_status();
        match on {
            On::Connect => self.why == Why::Connect,
            On::Timeout => self.why == Why::Timeout,
            On::Aborted => match self.why {
                Why::Aborted => true,
                // That the gateway has no memory for an answer is no fault of the target's, and another's would need as much.
                Why::Exceeds => self.no_answer.reason != Reason::Overloaded,
                _ => false,
            },
            On::KeyRefused => self.is_refused,
            On::Status(wanted) => status == Some(wanted),
            On::ServerErrors => status.is_some_and(|status| (500..=599).contains(&status)),
            On::Class(class) => self.class == Some(class),
        }
    }

    /// Whether the same target may be asked again, where no other is left: it would refuse the key again, say too much again, and find the
    /// same request too long, filtered, or beyond its account.
    pub(super) fn may_pass(&self, on: &[On]) -> bool {
        self.why != Why::Exceeds
            && self.class.is_none()
            && on.iter().any(|on| *on != On::KeyRefused && self.counts(*on))
    }

    /// The status that it had, or would have had.
    pub(super) fn counted_status(&self) -> Option<u16> {
        match self.why {
            Why::Status(status) | Why::Event(status) | Why::Said(status) => Some(status),
            Why::Connect | Why::Timeout | Why::Aborted | Why::Exceeds => None,
        }
    }

    /// What it says of the target: nothing, where the gateway itself could not send or take what came.
    pub(super) fn of_target(&self) -> Option<balance::Failure> {
        match self.why {
            _ if matches!(self.no_answer.reason, Reason::Evidence(_)) => None,
            Why::Connect => Some(balance::Failure::Connect),
            Why::Timeout => Some(balance::Failure::Timeout),
            Why::Aborted => Some(balance::Failure::Aborted),
            Why::Status(_) | Why::Event(_) | Why::Said(_) | Why::Exceeds => None,
        }
    }

    /// What it is charged for: one that was refused, or for which no connection came about, used nothing; of one that was sent and
    /// not answered nobody knows.
    pub(super) fn went(&self) -> Went {
        match self.why {
            Why::Connect | Why::Status(_) => Went::Nowhere,
            Why::Timeout | Why::Aborted | Why::Event(_) | Why::Said(_) | Why::Exceeds => Went::There,
        }
    }

    /// A word of a closed set, for metrics.
    pub(super) fn name(&self) -> &'static str {
        match (self.class, self.why) {
            (Some(class), _) => class.name(),
            (_, Why::Connect) => "connect",
            (_, Why::Timeout) => "timeout",
            (_, Why::Aborted) => "aborted",
            (_, Why::Event(_)) => "error_event",
            (_, Why::Exceeds) => self.no_answer.reason.name(),
            (_, Why::Said(_)) => "error_answer",
            (_, Why::Status(429)) => "429",
            (_, Why::Status(400..=499)) => "4xx",
            (_, Why::Status(_)) => "5xx",
        }
    }

    /// Why it does not count, as records say it.
    pub(super) fn word(&self) -> &'static str {
        match (self.class, self.why) {
            (Some(class), _) => class.name(),
            (_, Why::Connect) => "connect",
            (_, Why::Timeout) => "timeout",
            (_, Why::Aborted) => "aborted",
            (_, Why::Event(_)) => "stream_error",
            (_, Why::Exceeds) => self.no_answer.reason.name(),
            (_, Why::Said(_)) => "answer_error",
            (_, Why::Status(_)) => "status",
        }
    }

    /// What came, where it is an answer and all of it.
    pub(super) fn whole_answer(self) -> Option<Answer> {
        let is_whole = self.is_answer() && self.extent == Extent::Whole;
        self.answer.filter(|_| is_whole)
    }

    /// Whether what came can go to the caller as an answer.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.why, Why::Status(_) | Why::Event(_) | Why::Said(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_used_tokens_is_charged_and_what_the_gateway_could_not_send_says_nothing_of_the_target() {
        let failure =
            |why, reason| Failure::new(why, NoAnswer { reason, text: String::new() }, Duration::ZERO);
        let aborted = balance::Failure::Aborted;
        let unreadable = Reason::Evidence(evidence::Reason::JournalFailed);
        let table = [
            (Why::Connect, Reason::ProviderUnreachable, Went::Nowhere, Some(balance::Failure::Connect)),
            (Why::Timeout, Reason::ProviderTimeout, Went::There, Some(balance::Failure::Timeout)),
            (Why::Aborted, Reason::ProviderAborted, Went::There, Some(aborted)),
            (Why::Aborted, unreadable, Went::There, None),
            (Why::Status(500), Reason::ProviderAborted, Went::Nowhere, None),
            (Why::Event(500), Reason::ProviderAborted, Went::There, None),
            (Why::Exceeds, Reason::AnswerTooLarge, Went::There, None),
            (Why::Said(500), Reason::ProviderAborted, Went::There, None),
        ];
        for (why, reason, went, of_target) in table {
            let failure = failure(why, reason);
            assert_eq!((failure.went(), failure.of_target()), (went, of_target), "{why:?}");
        }
    }

    #[test]
    fn a_refused_key_and_an_answer_that_is_too_much_lead_to_another_target_only() {
        let failure =
            |why, reason| Failure::new(why, NoAnswer { reason, text: String::new() }, Duration::ZERO);
        let default = crate::config::Retry::default().on;
        let counts =
            |failure: &Failure, on: &[On]| (on.iter().any(|on| failure.counts(*on)), failure.may_pass(on));
        let mut refused = failure(Why::Status(401), Reason::ProviderAborted);
        assert_eq!(counts(&refused, &default), (false, false), "the caller's own credential");
        refused.is_refused = true;
        assert_eq!(counts(&refused, &default), (true, false));
        assert_eq!(counts(&refused, &[On::ServerErrors]), (false, false), "what is typed counts");
        assert_eq!(counts(&refused, &[On::Status(401)]), (true, true));
        for (reason, leads_on) in
            [(Reason::AnswerTooLarge, true), (Reason::AnswerTooLong, true), (Reason::Overloaded, false)]
        {
            let exceeds = failure(Why::unfit(reason), reason);
            assert_eq!(counts(&exceeds, &default), (leads_on, false));
            assert_eq!((exceeds.word(), exceeds.name()), (reason.name(), reason.name()));
        }
        for class in [FailureClass::ContextWindow, FailureClass::ContentFilter, FailureClass::Quota] {
            let said = Failure { class: Some(class), ..failure(Why::Status(429), Reason::ProviderAborted) };
            assert_eq!(counts(&said, &[On::Status(429), On::Class(class)]), (true, false), "{class:?}");
        }
        let untranslatable = failure(Why::unfit(Reason::ProviderAborted), Reason::ProviderAborted);
        assert_eq!(counts(&untranslatable, &default), (true, true));
    }
}
