//! An exchange between its intent and its outcome.
//!
//! Whatever becomes of it, it gets its outcome: [`Live`] that is dropped (the caller went away, or the gateway
//! cuts what still runs) concludes itself in a task of its own.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialects::{AnswerFacts, Cause, Meter, Operation};
use evidence::{Cut, OpenExchange, PartWriter, Unavailable};
use schemas::promise::Promise;
use schemas::record::{
    Answered, Asked, Caller, Cost, End, Outcome, Part, PartName, ProviderEnd, Unpriced, UsageRole,
    UsageSource,
};
use schemas::{ExchangeId, Identifier};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, Snapshot};
use crate::otlp::{self, Dispatched, Times, Told, Trace};
use crate::record::{self, Clock};
use crate::respond::Reason;
use crate::route::Route;
use crate::telemetry::{
    ByClass, ByCurrency, ByEnd, ByPrice, ByReason, ByRoute, ByTeam, status_class, team_label,
};

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
    pub(crate) operation: Operation,
    pub(crate) caller: Caller,
    pub(crate) asked: Asked,
    pub(crate) clock: Clock,
    /// The trace that it belongs to, where there is a collector.
    pub(crate) trace: Option<Trace>,
}

/// What an exchange holds until its outcome.
pub(crate) struct Open {
    pub(crate) app: Arc<App>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) intended: Intended,
    pub(crate) exchange: ExchangeId,
    /// None where it passes unrecorded on a route with `fail_mode: open`.
    ledger: Option<OpenExchange>,
    parts: Vec<Part>,
    /// The provider's body.
    incoming: Option<PartWriter>,
    /// The caller's body, where it differs.
    outgoing: Option<PartWriter>,
    pub(crate) meter: Option<Meter>,
    pub(crate) provider_status: Option<u16>,
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
                provider_status: None,
                status: None,
                delivered: 0,
                _place: place,
            })),
        }
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
        if let Some(ledger) = &self.ledger {
            let json = Identifier::new("application/json").ok();
            match ledger.whole(PartName::ClientResponse, json, None, body) {
                Ok(part) => self.parts.push(part),
                Err(error) => tracing::warn!(%error, "an own answer is not kept"),
            }
        }
    }

    /// Notes the first body byte of the provider.
    pub(crate) fn saw_byte(&mut self) {
        self.intended.clock.first_byte.get_or_insert_with(Instant::now);
    }

    /// Notes the first event with model output, once.
    pub(crate) fn saw_output(&mut self) {
        let clock = &mut self.intended.clock;
        if clock.first_token.is_none() && self.meter.as_ref().is_some_and(Meter::saw_output) {
            clock.first_token = Some(Instant::now());
        }
    }

    async fn conclude(mut self: Box<Self>, ending: Ending) -> Result<Option<Promise>, Unavailable> {
        let names = &self.snapshot.pseudonyms;
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
        let facts = match self.meter.take() {
            Some(meter) => meter.finish(cause(&ending)),
            None => nothing_came(self.intended.operation),
        };
        if ending.drained {
            let reason = if facts.usage.source == UsageSource::Drained { "usage" } else { "none" };
            self.app.telemetry.drains.get_or_create(&ByReason { reason }).inc();
        }
        let answered = facts.answered(&|raw| names.of(raw));
        if let Some(unread) = &facts.unread {
            tracing::warn!(exchange = %self.exchange, unread = unread.name(), "an answer was passed on but not read");
        }
        let (cost, unpriced) = self.price(&facts);
        let told = self.told(&ending, &facts, &answered, cost.as_ref());
        let Intended { route, caller, asked, clock, .. } = &self.intended;
        let timing = clock.timing();
        let label = route.name.as_str().to_owned();
        let telemetry = Arc::clone(&self.app.telemetry);
        telemetry.open.dec();
        let status = self.status;
        let by_end = ByEnd { route: label.clone(), end: end_name(ending.end), status: status_class(status) };
        telemetry.exchanges.get_or_create(&by_end).inc();
        telemetry.answered(route.provider.name.as_str(), ending.end, self.provider_status);
        let by_route = ByRoute { route: label.clone() };
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
        if facts.usage.role == UsageRole::Incurred {
            let usage = &facts.usage;
            for (class, count) in [
                ("input", usage.uncached_input_tokens.or(usage.input_tokens)),
                ("cache_read", usage.cache_read_tokens),
                ("cache_write_5m", usage.cache_write_5m_tokens),
                ("cache_write_1h", usage.cache_write_1h_tokens),
                ("output", usage.output_tokens),
            ] {
                if let Some(count) =
                    count.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0)
                {
                    telemetry.tokens.get_or_create(&ByClass { route: label.clone(), class }).inc_by(count);
                }
            }
        }
        if let Some(cost) = &cost
            && let Ok(total) = cost.total.parse::<f64>()
        {
            let (currency, price) = (cost.currency.as_str().to_owned(), cost.price_row.as_str().to_owned());
            let by_price = ByPrice { price, currency: currency.clone() };
            telemetry.cost_by_price.get_or_create(&by_price).inc_by(total);
            let by_team = ByTeam { team: team_label(caller.team.as_ref()), currency: currency.clone() };
            telemetry.cost_by_team.get_or_create(&by_team).inc_by(total);
            telemetry.cost.get_or_create(&ByCurrency { route: label, currency }).inc_by(total);
        }
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
        let (caller, asked) = (caller.clone(), asked.clone());
        let exchange = self.exchange.clone();
        let (provider_status, delivered) = (self.provider_status, self.delivered);
        let position = ledger.position();
        let done = ledger
            .outcome(parts, move |parts, content_key| Outcome {
                exchange,
                intent_position: position,
                caller,
                asked,
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

    /// What a collector is told of it; nothing where there is none.
    fn told(
        &self,
        ending: &Ending,
        facts: &AnswerFacts,
        answered: &Answered,
        cost: Option<&Cost>,
    ) -> Option<Told> {
        let Intended { route, caller, asked, clock, trace, .. } = &self.intended;
        let trace = (*trace)?;
        Some(Told {
            trace,
            exchange: self.exchange.clone(),
            caller: caller.clone(),
            asked: asked.clone(),
            route: Some(Arc::clone(route)),
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
        let (provider, loaded) = (&self.intended.route.provider.price_name, &self.snapshot.loaded);
        let told = Told { times: told.times.done(), is_recorded, ..told };
        otlp.tell(told, Some(&self.intended.operation), |model| otlp::model_label(loaded, provider, model));
    }

    fn price(&self, facts: &AnswerFacts) -> (Option<Cost>, Option<Unpriced>) {
        let usage = &facts.usage;
        let Some(book) = &self.snapshot.loaded.prices else { return (None, None) };
        if usage.source == UsageSource::NotApplicable || usage.role != UsageRole::Incurred {
            return (None, Some(Unpriced::NotIncurred));
        }
        let requested = self.intended.asked.requested_model.as_ref().map(Identifier::as_str);
        let models: Vec<&str> = [facts.served_model.as_deref(), requested].into_iter().flatten().collect();
        let tier = facts.service_tier.as_deref();
        let provider = &self.intended.route.provider.price_name;
        match book.price(usage, provider, &models, record::now_us(), tier) {
            Ok(cost) => (Some(cost), None),
            Err(unpriced) => (None, Some(unpriced)),
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
fn nothing_came(operation: Operation) -> AnswerFacts {
    Meter::new(operation, 0, &http::HeaderMap::new(), false, dialects::Limits::default()).finish(Cause::Cut)
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
