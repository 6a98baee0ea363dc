//! What the log is told of attempts: how a failed one ended, and that another begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialects::{AnswerFacts, Cause, Meter, Operation};
use evidence::{NewPart, Unavailable};
use schemas::Identifier;
use schemas::record::{
    Attempt, AttemptNumber, Cost, End, PartName, Translation, Unpriced, UsageRole, Verdict,
};

use super::answer::Answer;
use super::live::{Open, nothing_came};
use super::outlive::Outliving;
use crate::app::App;
use crate::dispatch::target::Target;
use crate::estimate::{Estimates, Prompt, Sent};
use crate::quotas::Went;
use crate::record::{self, micros};

/// Why an attempt is not recorded.
const TOO_MANY: &str = "more attempts than are recorded";

/// An attempt that failed.
pub(crate) struct Failed<'a> {
    pub(crate) number: u64,
    /// Why it does not count.
    pub(crate) why: &'static str,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) end: End,
    /// What came of its answer.
    pub(crate) answer: Option<&'a Answer>,
    pub(crate) spent: &'a Spent,
    pub(crate) took: Duration,
}

/// What a failed attempt used: its record, its quotas and the metrics say the same.
pub(crate) struct Spent {
    facts: AnswerFacts,
    cost: Option<Cost>,
    unpriced: Option<Unpriced>,
    went: Went,
}

/// An attempt that is about to be made.
pub(crate) struct Opening<'a> {
    pub(crate) number: AttemptNumber,
    /// Why it is made.
    pub(crate) reason: &'static str,
    pub(crate) target: &'a Arc<Target>,
    /// The model that is sent, where it is another than the caller named.
    pub(crate) model: Option<&'a str>,
    /// What is sent, where it is not what was sent first.
    pub(crate) request: Option<Bytes>,
    pub(crate) media_type: Option<Identifier>,
    pub(crate) coding: Option<Identifier>,
    /// What the policy says of it.
    pub(crate) verdict: Option<Verdict>,
    /// How the request is translated for it, where it is.
    pub(crate) translation: Option<Translation>,
}

fn word(text: &'static str) -> Identifier {
    Identifier::new(text).expect("a word of a closed set is an identifier")
}

/// What came of an answer that goes to nobody.
fn facts(answer: Option<&Answer>, operation: Operation) -> AnswerFacts {
    let Some(answer) = answer else { return nothing_came(operation) };
    let limits = dialects::Limits::default();
    let mut meter = Meter::new(operation, answer.head.status.as_u16(), &answer.head.headers, false, limits);
    let mut segments = Vec::new();
    for chunk in &answer.chunks {
        meter.feed(chunk, &mut segments);
        segments.clear();
    }
    meter.finish(Cause::Cut)
}

impl Open {
    /// Bytes go to `target` from now on, which is at that place of the route.
    pub(crate) fn asks(
        &mut self,
        target: &Arc<Target>,
        place: usize,
        model: Option<&str>,
        translation: Option<Translation>,
    ) {
        self.intended.target = Arc::clone(target);
        self.intended.place = place;
        self.intended.translation = translation;
        self.intended.sent_model = model.map(|model| self.snapshot.pseudonyms.identifier(model));
        self.intended.clock.sent = Some(Instant::now());
        self.intended.clock.head = None;
    }

    /// What the attempt that failed used, as far as what came of its `answer` tells. A provider that was not reached has nothing to
    /// charge for; of one that was, and did not answer, nobody knows.
    pub(crate) fn spent(&self, answer: Option<&Answer>, went: Went, operation: Operation) -> Spent {
        let mut facts = facts(answer, operation);
        if answer.is_none() && went == Went::Nowhere {
            facts.usage.role = UsageRole::None;
        }
        let (cost, unpriced) = self.price_of_attempt(&facts);
        Spent { facts, cost, unpriced, went }
    }

    /// Puts what a failed attempt used in the place of what it reserved of its target's quotas.
    pub(crate) async fn settles_attempt(&mut self, app: &Arc<App>, spent: &Spent) {
        let Some(reservation) = self.intended.of_target.take() else { return };
        // Before room is asked for: it may be at the same target.
        Outliving::new(app, reservation.settle(&spent.facts.usage, spent.cost.as_ref(), spent.went)).await;
    }

    /// Counts what a failed attempt used, where another one follows, and charges it to the quotas that ask for no target: what is
    /// reserved of those is for that other one.
    fn charges_attempt(&self, spent: &Spent) {
        self.counts(&spent.facts.usage, spent.cost.as_ref());
        if let Some(reservation) = &self.intended.reservation {
            self.app.outlive(reservation.charge(&spent.facts.usage, spent.cost.as_ref(), spent.went));
        }
    }

    /// Keeps what is sent now, in case that the provider tells no usage.
    pub(crate) fn keeps(&mut self, sent: impl FnOnce(&Estimates) -> Option<Sent>) {
        let wanted = self.intended.route.estimates;
        self.prompt = wanted.then(|| sent(&self.app.estimates)).flatten().map(Prompt::Sent);
    }

    /// An attempt's record, but for what differs from phase to phase.
    fn attempt(
        &self,
        number: AttemptNumber,
        target: &Target,
        reason: &'static str,
        model: Option<Identifier>,
    ) -> Attempt {
        Attempt {
            provider: Some(target.provider.name.clone()),
            dialect: target.provider.dialect_name.clone(),
            model: model.or_else(|| self.intended.asked.requested_model.clone()),
            ..Attempt::new(self.exchange.clone(), number, target.name.clone(), word(reason))
        }
    }

    /// Records how an attempt ended that another one is to follow, and counts it: the outcome tells nothing of it any more.
    ///
    /// # Errors
    /// It is not recorded: no other one may follow.
    pub(crate) async fn ends_attempt(&mut self, failed: Failed<'_>) -> Result<(), String> {
        self.records_end(&failed).await?;
        // Nothing is waited for since it is on its way: a caller that leaves comes before both or behind them.
        let status = failed.answer.map(|answer| answer.head.status.as_u16());
        self.app.telemetry.answered(failed.target.provider.name.as_str(), failed.end, status);
        self.charges_attempt(failed.spent);
        self.is_told = true;
        Ok(())
    }

    async fn records_end(&self, failed: &Failed<'_>) -> Result<(), String> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let before = AttemptNumber::new(failed.number).ok_or(TOO_MANY)?;
        let mut ended = self.attempt(before, failed.target, failed.why, self.intended.sent_model.clone());
        ended.end = Some(failed.end);
        ended.total_us = Some(micros(failed.took));
        let Spent { facts, cost, unpriced, .. } = failed.spent;
        let mut response = None;
        if let Some(answer) = failed.answer {
            ended.status = Some(i64::from(answer.head.status.as_u16()));
            ended.answered = facts.answered(&|raw| self.snapshot.pseudonyms.of(raw));
            let headers = &answer.head.headers;
            let (media_type, coding) = (record::media_type(headers), record::content_coding(headers));
            let mut sink = ledger.body(PartName::AttemptResponse(before));
            for chunk in &answer.chunks {
                sink.write(chunk.clone()).await.map_err(|error| error.to_string())?;
            }
            let body = sink.finish().await.map_err(|error| error.to_string())?;
            response = Some(NewPart::stored(&body).with(media_type, coding));
        }
        (ended.cost, ended.unpriced) = (cost.clone(), *unpriced);
        ended.usage = Some(facts.usage.clone());
        ledger.attempt_ends(ended, response).await.map_err(|error| error.to_string())
    }

    /// Records that another attempt begins. Durable on return, with what is sent: only then may bytes go to it (CA-1).
    ///
    /// # Errors
    /// Nothing may be sent; the outcome may tell of it all the same: [`Open::tells_of`].
    pub(crate) async fn opens_attempt(&mut self, opening: Opening<'_>) -> Result<(), Unavailable> {
        self.records_opening(opening).await?;
        self.is_told = false;
        Ok(())
    }

    /// Whether the outcome tells of this attempt, as the last that was opened.
    pub(crate) fn tells_of(&self, number: AttemptNumber) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_last(number))
    }

    async fn records_opening(&self, opening: Opening<'_>) -> Result<(), Unavailable> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let number = opening.number;
        let model = opening.model.map(|model| self.snapshot.pseudonyms.identifier(model));
        let mut open = self.attempt(number, opening.target, opening.reason, model);
        open.verdict = opening.verdict;
        open.translation = opening.translation;
        let part = |bytes| {
            NewPart::bytes(PartName::AttemptRequest(number), bytes).with(opening.media_type, opening.coding)
        };
        ledger.attempt_opens(open, opening.request.map(part)).await.map(drop)
    }
}
