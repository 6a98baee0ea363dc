//! An exchange as spans: the caller's request (SERVER), below it the waits for the journal (INTERNAL) and the request to the
//! provider (CLIENT, with the GenAI attributes).

use schemas::Identifier;
use schemas::record::{UsageRole, UsageSource};

use super::context::Trace;
use super::exchange::{Dispatched, Told};
use super::names;
use super::wire::{Message, Value, attribute};
use crate::relay::live::end_name;
use crate::secrets;

const INTERNAL: i64 = 1;
const SERVER: i64 = 2;
const CLIENT: i64 = 3;
const STATUS_ERROR: i64 = 2;
/// Sampled; whether the parent is another process' is known.
const FLAGS: u32 = 0x101;
/// The parent is another process'.
const REMOTE: u32 = 0x200;

/// The field `attributes` of a span.
const ATTRIBUTES: u64 = 9;

/// A span that is being written.
struct Span(Message);

impl Span {
    fn new(
        trace: &[u8; 16],
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        name: &str,
        kind: i64,
        times: (u64, u64),
    ) -> Self {
        let mut span = Message::default();
        span.bytes(1, trace).bytes(2, &id);
        if let Some(parent) = parent {
            span.bytes(4, &parent);
        }
        span.bytes(5, name.as_bytes()).int(6, kind).fixed64(7, times.0).fixed64(8, times.1.max(times.0));
        Self(span)
    }

    fn set(&mut self, key: &str, value: Value<'_>) {
        attribute(&mut self.0, ATTRIBUTES, key, &value);
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(key, Value::Text(value));
        }
    }

    fn name(&mut self, key: &str, value: Option<&Identifier>) {
        self.text(key, value.map(Identifier::as_str));
    }

    fn int(&mut self, key: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.set(key, Value::Int(value));
        }
    }

    fn double(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.set(key, Value::Double(value));
        }
    }

    /// Status (15) and flags (16).
    fn finish(mut self, is_error: bool, flags: u32) -> Message {
        if is_error {
            let mut status = Message::default();
            status.int(3, STATUS_ERROR);
            self.0.message(15, &status);
        }
        self.0.fixed32(16, flags);
        self.0
    }
}

/// Writes the spans of `told` into a list at field 2 (`ScopeSpans.spans`).
pub(super) fn write(told: &Told, to: &mut Message) {
    let trace = told.trace.id(&told.exchange);
    to.message(2, &server(told, &trace));
    let parent = Some(told.trace.server);
    let times = &told.times;
    let waits = [
        ("journal intent", times.admitted.zip(times.committed)),
        // A refusal's only record, or the outcome.
        (
            if told.dispatched.is_some() { "journal outcome" } else { "journal refusal" },
            Some((times.ended, times.done)),
        ),
    ];
    for (name, wait) in waits {
        let (Some(wait), Ok(id)) = (wait.filter(|_| told.is_recorded), secrets::random::<8>()) else {
            continue;
        };
        to.message(2, &Span::new(&trace, *id, parent, name, INTERNAL, wait).finish(false, FLAGS));
    }
    if let (Some(dispatched), Some(sent)) = (&told.dispatched, times.sent) {
        to.message(2, &client(told, dispatched, &trace, sent));
    }
}

/// The caller's request.
fn server(told: &Told, trace: &[u8; 16]) -> Message {
    let Told { asked, caller, route, times, .. } = told;
    let Trace { parent, server, .. } = told.trace;
    let method = names::method(asked.method.as_ref().map(Identifier::as_str));
    let path = route.as_ref().map(|route| route.path());
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let name = path.map_or_else(|| verb.to_owned(), |path| format!("{verb} {path}"));
    let mut span =
        Span::new(trace, server, parent.map(|parent| parent.span), &name, SERVER, (times.start, times.done));
    span.text("http.request.method", Some(method));
    span.text("http.route", path);
    span.int("http.response.status_code", told.status.map(i64::from));
    span.text("affidavit.exchange", Some(told.exchange.as_str()));
    span.set("affidavit.recorded", Value::Bool(told.is_recorded));
    span.name(names::ROUTE, asked.route.as_ref());
    span.name("affidavit.operation", asked.operation.as_ref());
    span.name("affidavit.consumer", caller.consumer.as_ref().map(|consumer| &consumer.value));
    span.name("affidavit.team", caller.team.as_ref().map(|team| &team.value));
    span.name("affidavit.key", caller.key.as_ref());
    span.text("affidavit.end", told.dispatched.as_ref().map(|dispatched| end_name(dispatched.end)));
    span.int(
        "affidavit.delivered",
        told.dispatched.as_ref().and_then(|one| i64::try_from(one.delivered).ok()),
    );
    span.text("affidavit.reason", told.reason);
    let error = match &told.dispatched {
        Some(dispatched) => dispatched.error(),
        None => told.reason,
    };
    span.text(names::ERROR, error);
    // A request that was refused for what it was is no error of the server's (as the conventions of HTTP have it).
    let is_error = match &told.dispatched {
        Some(dispatched) => {
            dispatched.end != schemas::record::End::Complete || told.status.is_some_and(|s| s >= 500)
        }
        None => told.status.is_some_and(|status| status >= 500),
    };
    span.finish(is_error, if parent.is_some() { FLAGS | REMOTE } else { FLAGS })
}

/// The request to the provider.
fn client(told: &Told, dispatched: &Dispatched, trace: &[u8; 16], sent: u64) -> Message {
    let Told { asked, times, .. } = told;
    let Dispatched { answered, usage, cost, .. } = dispatched;
    let operation = names::operation(asked.operation.as_ref().map_or("other", Identifier::as_str));
    let name = match &asked.requested_model {
        Some(model) => format!("{operation} {model}"),
        None => operation.to_owned(),
    };
    let times_of = (sent, times.ended);
    let mut span = Span::new(trace, told.trace.client, Some(told.trace.server), &name, CLIENT, times_of);
    span.text(names::OPERATION, Some(operation));
    if let Some(provider) = &told.provider {
        span.text(names::PROVIDER, Some(names::provider(provider.dialect)));
        span.name("affidavit.provider", Some(&provider.name));
        span.text(names::ADDRESS, Some(provider.authority.host()));
        span.int(names::PORT, Some(provider.port().into()));
    }
    span.name(names::REQUEST_MODEL, asked.requested_model.as_ref());
    if let Some(stream) = asked.stream {
        span.set("gen_ai.request.stream", Value::Bool(stream));
    }
    span.int("gen_ai.request.max_tokens", asked.max_output_tokens);
    span.int("gen_ai.request.choice.count", asked.choices.filter(|choices| *choices != 1));
    let temperature = asked.temperature.as_ref().and_then(|text| text.as_str().parse::<f64>().ok());
    span.double("gen_ai.request.temperature", temperature.filter(|number| number.is_finite()));
    span.name(names::RESPONSE_MODEL, answered.served_model.as_ref());
    span.name("gen_ai.response.id", answered.response_id.as_ref());
    if !answered.finish_reasons.is_empty() {
        let reasons = answered.finish_reasons.iter().map(Identifier::as_str).collect();
        span.set("gen_ai.response.finish_reasons", Value::Texts(reasons));
    }
    if asked.stream == Some(true) {
        span.double("gen_ai.response.time_to_first_chunk", times.first_token_seconds());
    }
    // Usage that another exchange incurred would be counted twice.
    if usage.role == UsageRole::Incurred {
        span.int("gen_ai.usage.input_tokens", usage.input_tokens);
        span.int("gen_ai.usage.output_tokens", usage.output_tokens);
        span.int("gen_ai.usage.cache_read.input_tokens", usage.cache_read_tokens);
        span.int("gen_ai.usage.cache_creation.input_tokens", cache_creation(usage));
        span.int("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens);
        if usage.source == UsageSource::Estimated {
            span.set(names::ESTIMATED, Value::Bool(true));
            span.name(names::TOKENIZER, usage.tokenizer.as_ref());
        }
    }
    if let Some(cost) = cost {
        span.text("affidavit.cost", Some(cost.total.as_str()));
        span.name("affidavit.currency", Some(&cost.currency));
    }
    span.int("http.response.status_code", dispatched.provider_status.map(i64::from));
    span.name("affidavit.provider_request_id", answered.request_id.as_ref());
    span.name("affidavit.provider_error", answered.error_type.as_ref());
    let error = dispatched.error();
    span.text(names::ERROR, error);
    span.finish(error.is_some(), FLAGS)
}

/// What was written to caches, of whatever life.
fn cache_creation(usage: &schemas::record::Usage) -> Option<i64> {
    match (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) {
        (None, None) => None,
        (short, long) => Some(short.unwrap_or(0).saturating_add(long.unwrap_or(0))),
    }
}
