//! An exchange between its intent and its outcome.
//!
//! Whatever becomes of it, it gets its outcome: [`Live`] that is dropped (the caller went away, or the gateway
//! cuts what still runs) concludes itself in a task of its own.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialects::translate::form::{Dropped, Lost};
use dialects::{AnswerFacts, Cause, Meter, Operation};
use evidence::{Cut, OpenExchange, PartWriter, Unavailable};
use http::HeaderMap;
use schemas::promise::Promise;
use schemas::record::{
    Answered, Asked, Caller, Cost, End, Outcome, Part, PartName, ProviderEnd, Translation, Unpriced, Usage,
    UsageRole, UsageSource,
};
use schemas::{ExchangeId, Identifier};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, Snapshot};
use crate::balance::{self, Answering};
use crate::dispatch::target::Target;
use crate::estimate::{self, Estimated, Prompt};
use crate::otlp::{self, Dispatched, Times, Told, Trace};
use crate::price;
use crate::quotas::{Reservation, Went, show_left};
use crate::record::Clock;
use crate::respond::Reason;
use crate::route::Route;
use crate::telemetry::{ByEnd, ByReason, ByRoute, status_class};

/// How an exchange ends.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) end: End,
    pub(crate) provider_end: Option<ProviderEnd>,
    /// Why, where the gateway says so itself.
    pub(crate) reason: Option<Reason>,
    /// For the exchange's content, never for a caller.
    pub(crate) error: Option<String>,
    /// Body bytes that the outcome lets go.
    pub(crate) released: u64,
    /// Whether the answer was read on after the caller had left.
    pub(crate) drained: bool,
}

impl Ending {
    pub(crate) fn new(end: End) -> Self {
        Self { end, provider_end: None, reason: None, error: None, released: 0, drained: false }
    }
}

/// What was known when the intent was made.
pub(crate) struct Intended {
    pub(crate) route: Arc<Route>,
    /// The one that is asked, or was asked last, and its place in the route.
    pub(crate) target: Arc<Target>,
    pub(crate) place: usize,
    /// The model that it was sent, where it is another than was asked for.
    pub(crate) sent_model: Option<Identifier>,
    /// How the request that it was sent was translated, where it was.
    pub(crate) translation: Option<Translation>,
    pub(crate) operation: Operation,
    pub(crate) caller: Caller,
    pub(crate) asked: Asked,
    pub(crate) clock: Clock,
    /// The trace that it belongs to, where there is a collector.
    pub(crate) trace: Option<Trace>,
    /// What it has reserved of its quotas.
    pub(crate) reservation: Option<Reservation>,
    /// The same of those that ask for a target.
    pub(crate) of_target: Option<Reservation>,
}

impl Intended {
    /// Says in an answer's head what is left of its quotas.
    pub(super) fn show_left(&self, headers: &mut HeaderMap) {
        show_left([&self.reservation, &self.of_target].into_iter().flatten(), headers);
    }
}

/// What an exchange holds until its outcome.
pub(crate) struct Open {
    pub(crate) app: Arc<App>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) intended: Intended,
    pub(crate) exchange: ExchangeId,
    /// None where it passes unrecorded on a route with `fail_mode: open`.
    pub(super) ledger: Option<OpenExchange>,
    parts: Vec<Part>,
    /// The provider's body.
    incoming: Option<PartWriter>,
    /// The caller's body, where it differs.
    outgoing: Option<PartWriter>,
    pub(crate) meter: Option<Meter>,
    /// What of the answer the caller did not get in its dialect; none: it was not translated.
    lost: Option<Lost>,
    /// What was sent, in case that its usage is not told.
    pub(super) prompt: Option<Prompt>,
    pub(crate) provider_status: Option<u16>,
    /// What is told of its target when the answer has ended.
    pub(crate) answering: Option<Answering>,
    /// The attempt that was asked last has its end, which says what it used: the outcome does not say it again.
    pub(super) is_told: bool,
    /// The status that the caller got; set when its head is handed over.
    pub(crate) status: Option<u16>,
    pub(crate) delivered: u64,
    _place: OwnedSemaphorePermit,
}

/// An exchange that concludes itself.
pub(crate) struct Live {
    open: Option<Box<Open>>,
}

impl Live {
    /// From here on an outcome is owed.
    pub(crate) fn new(
        app: Arc<App>,
        snapshot: Arc<Snapshot>,
        intended: Intended,
        exchange: ExchangeId,
        ledger: Option<OpenExchange>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        app.telemetry.open.inc();
        if ledger.is_some() {
            app.telemetry.intended();
        }
        Self {
            open: Some(Box::new(Open {
                app,
                snapshot,
                intended,
                exchange,
                ledger,
                parts: Vec::new(),
                incoming: None,
                outgoing: None,
                meter: None,
                lost: None,
                prompt: None,
                provider_status: None,
                answering: None,
                is_told: false,
                status: None,
                delivered: 0,
                _place: place,
            })),
        }
    }

    /// Takes it over; what is left owes nothing any more.
    pub(super) fn take(&mut self) -> Self {
        Self { open: self.open.take() }
    }

    /// The exchange, until it is concluded.
    pub(crate) fn open(&mut self) -> Option<&mut Open> {
        self.open.as_deref_mut()
    }

    /// Records the outcome. On `Ok` it is on stable storage, and the end of the answer may go (CA-2); with the outcome's
    /// promise, where the caller gets one.
    pub(crate) fn conclude(
        mut self,
        ending: Ending,
    ) -> impl Future<Output = Result<Option<Promise>, Unavailable>> + Send + 'static {
        let open = self.open.take();
        async move {
            match open {
                Some(open) => open.conclude(ending).await,
                None => Ok(None),
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let ending = if open.app.is_cutting() {
            Ending { reason: Some(Reason::Draining), ..Ending::new(End::GatewayAbort) }
        } else if std::thread::panicking() {
            Ending::new(End::GatewayAbort)
        } else {
            Ending::new(End::ClientAbort)
        };
        let app = Arc::clone(&open.app);
        app.outlive(async move {
            // The ledger said why in its own log; the caller is gone.
            let _ = open.conclude(ending).await;
        });
    }
}

impl Open {
    /// The promise of the intent, where the caller gets one.
    pub(crate) fn promise(&self) -> Option<&Promise> {
        self.ledger.as_ref().and_then(OpenExchange::promise)
    }

    /// Opens the parts of the answer.
    pub(crate) fn answer_begins(
        &mut self,
        head: &Bytes,
        media_type: Option<Identifier>,
        coding: Option<Identifier>,
        differs: bool,
    ) -> Result<(), Cut> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        self.parts.push(ledger.whole(PartName::ProviderResponseHead, None, None, head)?);
        self.incoming = Some(ledger.part(PartName::ProviderResponse, media_type.clone(), coding.clone()));
        if differs {
            self.outgoing = Some(ledger.part(PartName::ClientResponse, media_type, coding));
        }
        Ok(())
    }

    /// Takes bytes of the provider, before they are passed on (CA-6).
    pub(crate) fn came(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        match &self.incoming {
            Some(part) => part.write(bytes, self.delivered),
            None => Ok(()),
        }
    }

    /// Takes bytes for the caller, where they are not the provider's.
    pub(crate) fn goes(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        match &self.outgoing {
            Some(part) => part.write(bytes, self.delivered),
            None => Ok(()),
        }
    }

    /// Takes a whole answer of the gateway's own.
    pub(crate) fn own_answer(&mut self, body: &Bytes) {
        self.answers_with(body, Identifier::new("application/json").ok(), None);
    }

    /// Takes a whole answer that is not what came from the target asked last.
    pub(crate) fn answers_with(
        &mut self,
        body: &Bytes,
        media_type: Option<Identifier>,
        coding: Option<Identifier>,
    ) {
        if let Some(ledger) = &self.ledger {
            match ledger.whole(PartName::ClientResponse, media_type, coding, body) {
                Ok(part) => self.parts.push(part),
                Err(error) => tracing::warn!(%error, "an own answer is not kept"),
            }
        }
    }

    /// The answer is translated, without what was `dropped` of it.
    pub(crate) fn loses(&mut self, dropped: &[Dropped]) {
        self.lost.get_or_insert_default().add_kinds(dropped);
    }

    /// Notes the first body byte of the provider.
    pub(crate) fn saw_byte(&mut self) {
        self.intended.clock.first_byte.get_or_insert_with(Instant::now);
    }

    /// The same, of one that came earlier.
    pub(super) fn saw_byte_at(&mut self, at: Option<Instant>) {
        let first = &mut self.intended.clock.first_byte;
        *first = first.or(at);
    }

    /// Notes the first event with model output, once.
    pub(crate) fn saw_output(&mut self) {
        let clock = &mut self.intended.clock;
        if clock.first_token.is_none() && self.meter.as_ref().is_some_and(Meter::saw_output) {
            clock.first_token = Some(Instant::now());
        }
    }

    /// Begins to count the prompt where the target is likely to tell nothing: the answer's end waits for no prompt then.
    pub(super) fn expects_no_usage(&mut self) {
        if self.intended.target.is_silent() {
            self.prompt = self.prompt.take().map(|prompt| prompt.count_ahead(&self.app.estimates));
        }
    }

    /// Puts an estimate in the place of usage that nobody told.
    async fn estimate(&mut self, facts: &mut AnswerFacts, ending: &Ending) {
        let prompt = self.prompt.take();
        if !estimate::is_untold(facts, self.provider_status) {
            if ending.end == End::Complete && facts.usage.role == UsageRole::Incurred {
                self.intended.target.told_usage(true);
            }
            return;
        }
        if ending.end == End::Complete {
            self.intended.target.told_usage(false);
        }
        let Some(prompt) = prompt else { return };
        self.intended.clock.ended.get_or_insert_with(Instant::now);
        let waits = ending.end != End::ClientAbort;
        let estimated = estimate::estimate(&self.app.estimates, prompt, facts, waits, &self.app.over).await;
        self.app.telemetry.estimated(&estimated);
        match estimated {
            Estimated::Whole(usage) | Estimated::Half(usage) => facts.usage = usage,
            Estimated::None | Estimated::Late => {}
        }
    }

    /// Says of its target how the answer ended, as far as that is the target's doing.
    fn tells_of_target(&mut self, end: End) {
        let Some(answering) = self.answering.take() else { return };
        let failure = match end {
            End::Complete => None,
            End::ProviderAbort => Some(balance::Failure::Aborted),
            End::Timeout => Some(balance::Failure::Timeout),
            // It says nothing of the target.
            _ => return,
        };
        answering.ended(failure, Instant::now());
    }

    async fn conclude(mut self: Box<Self>, ending: Ending) -> Result<Option<Promise>, Unavailable> {
        self.tells_of_target(ending.end);
        let mut parts = std::mem::take(&mut self.parts);
        parts.extend(self.incoming.take().map(PartWriter::finish));
        parts.extend(self.outgoing.take().map(PartWriter::finish));
        if let (Some(ledger), Some(text)) = (&self.ledger, &ending.error) {
            let plain = Identifier::new("text/plain").ok();
            let text = Bytes::copy_from_slice(text.as_bytes());
            match ledger.whole(PartName::Error, plain, None, &text) {
                Ok(part) => parts.push(part),
                Err(error) => tracing::warn!(%error, "an error's text is not kept"),
            }
        }
        let mut facts = match self.meter.take() {
            Some(meter) => meter.finish(cause(&ending)),
            None => nothing_came(self.intended.operation),
        };
        if ending.drained {
            let reason = if facts.usage.source == UsageSource::Drained { "usage" } else { "none" };
            self.app.telemetry.drains.get_or_create(&ByReason { reason }).inc();
        }
        if self.is_told {
            facts.usage = Usage::of(UsageSource::Unknown, UsageRole::None);
        } else {
            self.estimate(&mut facts, &ending).await;
        }
        let names = &self.snapshot.pseudonyms;
        let answered = facts.answered(&|raw| names.of(raw));
        self.stays(&facts);
        if let Some(unread) = &facts.unread {
            tracing::warn!(exchange = %self.exchange, unread = unread.name(), "an answer was passed on but not read");
        }
        let (cost, unpriced) = self.price(&facts);
        // What a read of an answer tells was incurred elsewhere: the record says it, and nothing counts it here.
        let incurred = cost.as_ref().filter(|_| facts.usage.role == UsageRole::Incurred);
        let told = self.told(&ending, &facts, &answered, incurred);
        for reservation in
            [self.intended.reservation.take(), self.intended.of_target.take()].into_iter().flatten()
        {
            let refused = self.provider_status.is_some_and(|status| status >= 400);
            let went = match &facts.usage {
                _ if refused || self.is_told || ending.end == End::Unreachable => Went::Nowhere,
                usage if estimate::is_lower_bound(usage, &self.intended.operation, ending.end) => {
                    Went::Partly
                }
                _ => Went::There,
            };
            self.app.outlive(reservation.settle(&facts.usage, incurred, went));
        }
        let Intended { route, target, translation, caller, asked, clock, .. } = &self.intended;
        let timing = clock.timing();
        let label = || route.name.as_str().to_owned();
        let telemetry = Arc::clone(&self.app.telemetry);
        telemetry.open.dec();
        let status = self.status;
        let by_end = ByEnd { route: label(), end: end_name(ending.end), status: status_class(status) };
        telemetry.exchanges.get_or_create(&by_end).inc();
        if !self.is_told {
            telemetry.answered(target.provider.name.as_str(), ending.end, self.provider_status);
        }
        let by_route = ByRoute { route: label() };
        let seconds = |us: Option<i64>| us.map(|us| us as f64 / 1e6);
        if let Some(total) = seconds(timing.total_us) {
            telemetry.duration.get_or_create(&by_route).observe(total);
        }
        if let Some(first) = seconds(timing.first_byte_us) {
            telemetry.first_byte.get_or_create(&by_route).observe(first);
        }
        if let Some(first) = seconds(timing.first_token_us) {
            telemetry.first_token.get_or_create(&by_route).observe(first);
        }
        self.counts(&facts.usage, incurred);
        // A provider that was not reached got nothing to charge for: that its usage is not known is no news.
        if let Some(why) = unpriced.filter(|_| ending.end != End::Unreachable) {
            telemetry.unpriced(why);
        }
        let end = ending.end;
        tracing::debug!(exchange = %self.exchange, ?end, status, delivered = self.delivered, "exchange ended");
        let Some(ledger) = self.ledger.take() else {
            self.tell(told, false);
            return Ok(None);
        };
        let retention = route.retention.clone();
        let (caller, asked, translation) = (caller.clone(), asked.clone(), translation.clone());
        let answer_dropped = self.lost.as_ref().map(Lost::record);
        let exchange = self.exchange.clone();
        let (provider_status, delivered) = (self.provider_status, self.delivered);
        let position = ledger.position();
        let done = ledger
            .outcome(parts, move |parts, content_key| Outcome {
                exchange,
                intent_position: position,
                caller,
                asked,
                served: None,
                translation,
                answer_dropped,
                end,
                provider_end: ending.provider_end,
                provider_status: provider_status.map(i64::from),
                status: status.map(i64::from),
                reason: ending.reason.and_then(|reason| Identifier::new(reason.name()).ok()),
                delivered: Some(delivered),
                released: Some(ending.released),
                delivered_at_least: None,
                answered,
                usage: facts.usage,
                cost,
                unpriced,
                timing,
                rate_limits: facts.rate_limits,
                parts,
                content_key,
                retention,
            })
            .await;
        match &done {
            Ok(_) => telemetry.ended(),
            Err(error) => {
                telemetry.failed("outcome_unrecorded");
                tracing::error!(exchange = %self.exchange, %error, "an outcome could not be recorded");
            }
        }
        self.tell(told, done.is_ok());
        done
    }

    /// Keeps the conversation at its target, where the next turn may go on from this answer by its id.
    fn stays(&self, facts: &AnswerFacts) {
        let Intended { route, place, operation, .. } = &self.intended;
        if !route.balancer.wants_conversation() || !operation.is_responses() {
            return;
        }
        if let Some(id) = &facts.response_id {
            route.balancer.keep(dialects::conversation::stored_conversation(id), *place);
        }
    }

    /// What a collector is told of it; nothing where there is none.
    fn told(
        &self,
        ending: &Ending,
        facts: &AnswerFacts,
        answered: &Answered,
        cost: Option<&Cost>,
    ) -> Option<Told> {
        let Intended { route, target, caller, asked, clock, trace, .. } = &self.intended;
        let trace = (*trace)?;
        Some(Told {
            trace,
            exchange: self.exchange.clone(),
            caller: caller.clone(),
            asked: asked.clone(),
            route: Some(Arc::clone(route)),
            provider: Some(Arc::clone(&target.provider)),
            times: Times::of(clock),
            status: self.status,
            reason: ending.reason.map(|reason| reason.name()),
            is_recorded: false,
            dispatched: Some(Dispatched {
                end: ending.end,
                provider_status: self.provider_status,
                answered: answered.clone(),
                usage: facts.usage.clone(),
                cost: cost.cloned(),
                delivered: self.delivered.saturating_add(ending.released),
            }),
        })
    }

    fn tell(&self, told: Option<Told>, is_recorded: bool) {
        let (Some(otlp), Some(told)) = (&self.snapshot.otlp, told) else { return };
        let (provider, loaded) = (&self.intended.target.provider.price_name, &self.snapshot.loaded);
        let told = Told { times: told.times.done(), is_recorded, ..told };
        otlp.tell(told, Some(&self.intended.operation), |model| otlp::model_label(loaded, provider, model));
    }

    /// What the use of the target that was asked last costs.
    pub(super) fn price(&self, facts: &AnswerFacts) -> (Option<Cost>, Option<Unpriced>) {
        self.priced(facts, self.intended.operation.reads_an_answer())
    }

    /// The same, of an attempt that another one follows: what it read is told by that one.
    pub(super) fn price_of_attempt(&self, facts: &AnswerFacts) -> (Option<Cost>, Option<Unpriced>) {
        self.priced(facts, false)
    }

    fn priced(&self, facts: &AnswerFacts, reads_an_answer: bool) -> (Option<Cost>, Option<Unpriced>) {
        let Intended { target, sent_model, asked, .. } = &self.intended;
        let sent = sent_model.as_ref().or(asked.requested_model.as_ref());
        let book = self.snapshot.loaded.prices.as_ref();
        price::price(book, &target.provider.price_name, sent, facts, reads_an_answer)
    }

    /// Counts what was used of it, and what is paid for that.
    pub(super) fn counts(&self, usage: &Usage, cost: Option<&Cost>) {
        let Intended { route, caller, .. } = &self.intended;
        self.app.telemetry.incurred(route.name.as_str(), usage);
        if let Some(cost) = cost {
            self.app.telemetry.paid(cost, Some(&route.name), caller.team.as_ref());
        }
    }
}

fn cause(ending: &Ending) -> Cause {
    match ending.end {
        End::Complete => Cause::Complete,
        _ if ending.drained => Cause::Drained,
        _ => Cause::Cut,
    }
}

/// The facts of an exchange of which no answer came.
pub(super) fn nothing_came(operation: Operation) -> AnswerFacts {
    Meter::new(operation, 0, &HeaderMap::new(), false, dialects::Limits::default()).finish(Cause::Cut)
}

pub(crate) fn end_name(end: End) -> &'static str {
    match end {
        End::Complete => "complete",
        End::ClientAbort => "client_abort",
        End::ProviderAbort => "provider_abort",
        End::Unreachable => "unreachable",
        End::Timeout => "timeout",
        End::GatewayAbort => "gateway_abort",
        End::Interrupted => "interrupted",
    }
}
