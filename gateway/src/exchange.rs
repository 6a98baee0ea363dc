//! The life of an exchange, up to its intent; [`crate::relay`] has the rest.
//!
//! ```text
//! authenticate -> route -> intake -> police -> intent (durable) -> dispatch -> relay -> outcome (durable) -> end
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dialects::{Dialect, Operation, RequestFacts};
use evidence::{Admission, KeyScope, NewPart, PreAuth, StoredBody, Unavailable};
use http::header::{CONTENT_LENGTH, EXPECT, TE, UPGRADE};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use schemas::record::{Asked, Caller, Decision, Intent, PartName, Refusal, Verdict};
use schemas::{ExchangeId, Identifier};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::{App, Snapshot};
use crate::config;
use crate::dispatch::upload::Upload;
use crate::dispatch::{self, Outgoing};
use crate::otlp::{self, Times, Told, Trace};
use crate::record::{self, Clock, now_us};
use crate::relay::Flow;
use crate::relay::back::{self, Way};
use crate::relay::intake::{self, Memory, NotTaken, Taken};
use crate::relay::live::{Intended, Live};
use crate::relay::outlive::Outliving;
use crate::respond::{self, Reason};
use crate::route::{self, Route};
use crate::{authenticate, police};

/// Answers one request.
pub(crate) async fn exchange(app: Arc<App>, request: Request<Incoming>) -> Response<Flow> {
    let clock = Clock::start();
    let snapshot = app.snapshot.load_full();
    let (head, mut body) = request.into_parts();
    let found = snapshot.routes.find(head.uri.path());
    let rest = found.map_or("", |(_, rest)| rest);
    let operation = found.map(|(route, _)| dialects::operation(route.provider.dialect, &head.method, rest));
    // An own answer has the form that this path's SDK reads.
    let dialect = operation.map_or_else(|| route::guess(&head.headers), |operation| operation.dialect());
    let trace = snapshot.otlp.as_ref().and_then(|otlp| otlp.begin(&head.headers));
    let unknown = Unknown { dialect, method: &head.method, clock: &clock, trace, snapshot: &snapshot };
    if app.is_draining() {
        return refuse_unknown(&app, unknown, Reason::Draining).await;
    }
    let entry =
        match authenticate::authenticate(&snapshot.loaded.keys, &head.headers, head.uri.query(), now_us()) {
            Ok(entry) => entry,
            Err(reason) => {
                let response = refuse_unknown(&app, unknown, reason).await;
                linger(&app, &head.headers, body, snapshot.limits.body);
                return response;
            }
        };
    let route = found.map(|(route, _)| Arc::clone(route));
    let takes_key = found.is_none_or(|(route, _)| route.provider.takes_query_key());
    let query = head.uri.query().map(|query| authenticate::without_key(query, takes_key));
    let query = query.as_deref().filter(|query| !query.is_empty() || head.uri.query() == Some(""));
    let target = match query {
        Some(query) => Cow::Owned(format!("{}?{query}", head.uri.path())),
        None => Cow::Borrowed(head.uri.path()),
    };
    let mut asking = Guarded::new(Asking {
        dialect,
        caller: authenticate::caller(entry, route.as_deref(), &head.headers, &snapshot.pseudonyms),
        asked: record::asked(route.as_deref(), operation, &head.method, &snapshot.pseudonyms),
        head: snapshot.filter.request_head(&head.method, &target, &head.headers),
        suppression: Vec::new(),
        verdict: None,
        clock,
        trace,
        route: route.clone(),
        app: Arc::clone(&app),
        snapshot: Arc::clone(&snapshot),
    });
    match answer(&app, &snapshot, &mut asking, &head, &mut body, route, operation, (rest, query)).await {
        Ok(response) => response,
        Err(Refused { reason, admission, body: part }) => {
            let response = asking.refuse(admission, part, reason).await;
            linger(&app, &head.headers, body, snapshot.limits.body);
            response
        }
    }
}

/// Why an exchange is refused before its intent, and what of its content there is.
struct Refused {
    reason: Reason,
    admission: Option<Admission>,
    body: Option<NewPart>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, admission: None, body: None }
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        Reason::Evidence(unavailable.reason).into()
    }
}

/// The request body, all of it.
enum Body {
    Memory(Bytes),
    Stored(StoredBody),
}

impl Body {
    fn part(&self) -> NewPart {
        match self {
            Self::Memory(bytes) => NewPart::bytes(PartName::ClientRequest, bytes.clone()),
            Self::Stored(stored) => NewPart::stored(stored),
        }
    }

    /// SHA-256 of all of it, for a signature.
    async fn sha256(&self) -> Result<[u8; 32], Reason> {
        let stored = match self {
            Self::Memory(bytes) => return Ok(Sha256::digest(bytes).into()),
            Self::Stored(stored) => stored,
        };
        let mut hasher = Sha256::new();
        let mut chunks = stored.chunks();
        while let Some(chunk) = chunks.next().await {
            hasher.update(chunk.map_err(|error| {
                tracing::error!(%error, "a spilled body could not be read back");
                Reason::Evidence(evidence::Reason::JournalFailed)
            })?);
        }
        Ok(hasher.finalize().into())
    }
}

#[expect(clippy::too_many_arguments, reason = "the stations' nouns, each used once")]
async fn answer(
    app: &Arc<App>,
    snapshot: &Arc<Snapshot>,
    guard: &mut Guarded,
    head: &http::request::Parts,
    body: &mut Incoming,
    route: Option<Arc<Route>>,
    operation: Option<Operation>,
    (rest, query): (&str, Option<&str>),
) -> Result<Response<Flow>, Refused> {
    let Some(asking) = guard.get() else { return Err(Reason::ClientAbort.into()) };
    let (Some(route), Some(operation)) = (route, operation) else { return Err(Reason::UnknownRoute.into()) };
    if head.headers.contains_key(UPGRADE) || head.method == Method::CONNECT {
        return Err(Reason::UpgradeRefused.into());
    }
    if route::has_dot_segments(rest) {
        return Err(Reason::MalformedPath.into());
    }
    let target = route.provider.target(rest, query).ok_or(Reason::MalformedPath)?;
    let codings = dialects::coding::codings(&head.headers).map_err(|_| Reason::UnknownCoding)?;
    let place = take_place(&snapshot.places, snapshot.limits.admission).await?;
    let unavailable = app.ledger.readiness().err();
    if let Some(unavailable) = unavailable.filter(|_| !route.fail_open) {
        return Err(unavailable.into());
    }

    // Intake: whole in memory, or to disk as it comes.
    let declared = declared_length(&head.headers);
    let mut admission = None;
    let (body, memory) = match intake::start(body, snapshot).await? {
        Taken::Whole(bytes, memory) => (Body::Memory(bytes), memory),
        Taken::Start(bytes, memory) => {
            // Its subject may still be to come: then it gets a key of its own, which can always be destroyed alone.
            let scope = scope(&route, &asking.caller);
            let admitted = app.ledger.admit(declared, scope).await?;
            if !route.keep_content {
                admitted.discard_content();
            }
            let mut sink = admitted.body(PartName::ClientRequest);
            match intake::rest(bytes, body, &mut sink, snapshot).await {
                Ok(()) => {}
                Err(NotTaken::Refused(reason)) => {
                    drop(sink);
                    return Err(Refused { reason, admission: Some(admitted), body: None });
                }
                Err(NotTaken::Unavailable(unavailable)) => return Err(unavailable.into()),
            }
            let stored = sink.finish().await?;
            admission = Some(admitted);
            drop(memory);
            (Body::Stored(stored), Memory::default())
        }
    };

    // Facts, and the splice that asks for usage.
    let read = Reading { operation, headers: &head.headers, rest, query, codings: &codings };
    let wants_usage = route.ask_usage && operation.can_ask_usage() && codings.is_empty();
    let (facts, spliced, memory) = match &body {
        Body::Memory(bytes) => {
            let facts = read.facts(bytes);
            // What a body that cannot be read means to the provider is not known: it goes as it came.
            let spliced =
                if wants_usage && facts.malformed.is_none() { dialects::ask_for_usage(bytes) } else { None };
            (facts, spliced.map(Bytes::from), memory)
        }
        Body::Stored(stored) => read_stored(&read, stored, wants_usage, snapshot).await?,
    };
    record::add_facts(&mut asking.asked, &mut asking.caller, &facts, &snapshot.pseudonyms);
    asking.suppression = record::suppression(&facts, Some(&*route));

    // Admission, and the policy's verdict.
    let admission = match admission {
        Some(admission) => Ok(admission),
        None => app.ledger.admit(declared, scope(&route, &asking.caller)).await,
    };
    let admission = match admission {
        Ok(admission) => Some(admission),
        Err(_) if route.fail_open => None,
        Err(unavailable) => return Err(unavailable.into()),
    };
    if let Some(policy) = &snapshot.loaded.policy {
        let verdict = police::judge(policy, &asking.caller, &asking.asked, &operation);
        app.telemetry.judged(&verdict);
        let denied = verdict.decision == Decision::Deny;
        let enforcing = policy.mode() == policies::policy::Mode::Enforce;
        asking.verdict = Some(verdict);
        let unread = facts.malformed.is_some() && enforcing;
        if denied || unread {
            let reason = if denied { Reason::PolicyDenied } else { Reason::MalformedBody };
            let part = record::described(body.part(), &head.headers);
            return Err(Refused { reason, admission, body: Some(part) });
        }
    }

    let mut parts = vec![NewPart::bytes(PartName::ClientRequestHead, asking.head.clone())];
    if !is_empty(&body) {
        parts.push(record::described(body.part(), &head.headers));
    }
    let stripping = spliced.is_some();
    let upload = match (&spliced, &body) {
        (Some(spliced), _) => {
            let part = NewPart::bytes(PartName::ProviderRequest, spliced.clone());
            parts.push(record::described(part, &head.headers));
            Upload::whole(spliced.clone())
        }
        (None, Body::Memory(bytes)) => Upload::whole(bytes.clone()),
        (None, Body::Stored(stored)) => Upload::stored(stored),
    };
    let payload = match (&route.provider.signing, &spliced) {
        (None, _) => None,
        (Some(_), Some(spliced)) => Some(Sha256::digest(spliced).into()),
        (Some(_), None) => Some(body.sha256().await?),
    };
    let mut outgoing = Outgoing {
        method: head.method.clone(),
        target,
        headers: snapshot.filter.request(&head.headers),
        body: upload,
        payload,
        uncoded: stripping,
    };
    drop(body);
    let way = Way { method: head.method.clone(), stripping, trailers: takes_trailers(&head.headers) };
    let Some(asked) = guard.take() else { return Err(Reason::ClientAbort.into()) };
    let mut live = match intend(app, asked, &route, operation, admission, parts, place).await {
        Ok(live) => live,
        Err((unavailable, dialect, exchange)) => {
            app.telemetry.refused_unrecorded(unavailable.reason.as_str());
            let retry = Some(unavailable.retry_after_s);
            let reason = Reason::Evidence(unavailable.reason);
            return Ok(respond::answer(dialect, reason, Some(exchange.as_str()), retry));
        }
    };
    if let Some(open) = live.open() {
        open.intended.clock.sent = Some(Instant::now());
        let ours = open.intended.trace.as_ref().zip(snapshot.otlp.as_ref());
        let ours = ours.map(|(trace, otlp)| (trace, otlp.is_sampled(trace, &open.exchange)));
        let how = snapshot.loaded.config.telemetry.trace_context;
        otlp::apply(how, &mut outgoing.headers, ours, &open.exchange);
    }
    let sent = dispatch::send(&route.provider, outgoing, snapshot.limits.first_byte).await;
    drop(memory);
    Ok(match sent {
        Ok(response) => back::relay(app, live, response, way).await,
        Err(failure) => back::no_answer(app, live, failure).await,
    })
}

/// Makes the intent durable (CA-1). From here on an outcome is owed, whatever becomes of the caller.
async fn intend(
    app: &Arc<App>,
    asking: Asking,
    route: &Arc<Route>,
    operation: Operation,
    admission: Option<Admission>,
    parts: Vec<NewPart>,
    place: OwnedSemaphorePermit,
) -> Result<Live, (Unavailable, Dialect, ExchangeId)> {
    let Asking {
        app: owner, snapshot, caller, asked, suppression, verdict, mut clock, dialect, trace, ..
    } = asking;
    let route = Arc::clone(route);
    clock.admitted = Some(Instant::now());
    let Some(admission) = admission else {
        owner.ledger.count_unrecorded(1);
        let exchange = owner.ledger.new_exchange_id();
        let intended = Intended { route, operation, caller, asked, clock, trace };
        return Ok(Live::new(owner, snapshot, intended, exchange, None, place));
    };
    if !route.keep_content {
        admission.discard_content();
    }
    if route.receipts {
        admission.promise();
    }
    let exchange = admission.exchange().clone();
    Outliving::new(app, async move {
        let retention = route.retention.clone();
        let fail_mode = if route.fail_open { Identifier::new("open").ok() } else { None };
        let (told_caller, told_asked, id) = (caller.clone(), asked.clone(), exchange.clone());
        let opened = admission
            .intent(parts, move |parts, content_key| Intent {
                exchange: id,
                caller: told_caller,
                asked: told_asked,
                verdict,
                parts,
                content_key,
                retention,
                fail_mode,
                suppression,
            })
            .await;
        clock.committed = Some(Instant::now());
        if let (Some(from), Some(to)) = (clock.admitted, clock.committed) {
            owner.telemetry.commit.observe(to.saturating_duration_since(from).as_secs_f64());
        }
        let fail_open = route.fail_open;
        let intended = Intended { route, operation, caller, asked, clock, trace };
        match opened {
            Ok(open) => Ok(Live::new(owner, snapshot, intended, exchange, Some(open), place)),
            Err(_) if fail_open => {
                owner.ledger.count_unrecorded(1);
                Ok(Live::new(owner, snapshot, intended, exchange, None, place))
            }
            Err(unavailable) => Err((unavailable, dialect, exchange)),
        }
    })
    .await
}

/// What is needed to read a request's body.
struct Reading<'a> {
    operation: Operation,
    headers: &'a HeaderMap,
    rest: &'a str,
    query: Option<&'a str>,
    codings: &'a [dialects::coding::Coding],
}

impl Reading<'_> {
    fn facts(&self, body: &[u8]) -> RequestFacts {
        let read =
            |body: &[u8]| dialects::request_facts(&self.operation, self.headers, self.rest, self.query, body);
        if self.codings.is_empty() {
            return read(body);
        }
        match dialects::coding::decode_all(self.codings, body, dialects::coding::Caps::default()) {
            Ok(decoded) => read(&decoded),
            Err(error) => RequestFacts { malformed: Some(error.to_string()), ..read(&[]) },
        }
    }
}

/// Reads a stored body back, within the memory for bodies, for its facts.
async fn read_stored(
    read: &Reading<'_>,
    stored: &StoredBody,
    wants_usage: bool,
    snapshot: &Snapshot,
) -> Result<(RequestFacts, Option<Bytes>, Memory), Refused> {
    let memory = Memory::take(&snapshot.memory, stored.len(), snapshot.limits.admission).await?;
    let mut whole = Vec::with_capacity(usize::try_from(stored.len()).unwrap_or_default());
    let mut chunks = stored.chunks();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::error!(%error, "a spilled body could not be read back");
            Reason::Evidence(evidence::Reason::JournalFailed)
        })?;
        whole.extend_from_slice(&chunk);
    }
    let facts = read.facts(&whole);
    let spliced = if wants_usage && facts.malformed.is_none() {
        dialects::ask_for_usage(&whole).map(Bytes::from)
    } else {
        None
    };
    // The memory stays taken as long as the spliced body does.
    let memory = if spliced.is_some() { memory } else { Memory::default() };
    Ok((facts, spliced, memory))
}

fn is_empty(body: &Body) -> bool {
    match body {
        Body::Memory(bytes) => bytes.is_empty(),
        Body::Stored(stored) => stored.is_empty(),
    }
}

/// Whether the caller says that it takes trailers (RFC 9110 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Which exchanges share the content key with this one.
fn scope(route: &Route, caller: &Caller) -> KeyScope {
    let who = match route.keys {
        config::KeyScope::Exchange => None,
        config::KeyScope::ConsumerDay => caller.consumer.as_ref(),
        config::KeyScope::SubjectDay => caller.subject.as_ref(),
    };
    match who {
        Some(who) => KeyScope::PerDay { who: who.value.as_str().to_owned() },
        None => KeyScope::PerExchange,
    }
}

async fn take_place(
    places: &Arc<Semaphore>,
    patience: std::time::Duration,
) -> Result<OwnedSemaphorePermit, Reason> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    match tokio::time::timeout(patience, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(Reason::Overloaded),
    }
}

/// Lets a refused caller finish sending, so that it sees its answer. Not one that waits for `100 Continue`.
fn linger(app: &App, headers: &HeaderMap, body: Incoming, limit: u64) {
    if !http_body::Body::is_end_stream(&body) && !headers.contains_key(EXPECT) {
        app.outlive(intake::linger(body, limit));
    }
}

/// What is known of a request whose caller is not.
struct Unknown<'a> {
    dialect: Dialect,
    method: &'a Method,
    clock: &'a Clock,
    trace: Option<Trace>,
    snapshot: &'a Snapshot,
}

impl Unknown<'_> {
    /// Tells a collector of a refusal with a record of its own.
    fn tell(&self, exchange: &ExchangeId, reason: Reason, times: Times) {
        let asked = record::asked(None, None, self.method, &self.snapshot.pseudonyms);
        tell_refusal(self.snapshot, self.trace, exchange, Caller::default(), asked, None, reason, times);
    }
}

/// Tells a collector of a refusal that is recorded.
#[expect(clippy::too_many_arguments, reason = "the facts of a refusal, each used once")]
fn tell_refusal(
    snapshot: &Snapshot,
    trace: Option<Trace>,
    exchange: &ExchangeId,
    caller: Caller,
    asked: Asked,
    route: Option<Arc<Route>>,
    reason: Reason,
    times: Times,
) {
    let (Some(otlp), Some(trace)) = (&snapshot.otlp, trace) else { return };
    let told = Told {
        trace,
        exchange: exchange.clone(),
        caller,
        asked,
        route,
        times: times.done(),
        status: Some(reason.status()),
        reason: Some(reason.name()),
        is_recorded: true,
        dispatched: None,
    };
    otlp.tell(told, None, |_| None);
}

/// Refuses a caller that is not known: no content is kept, and a flood is folded (CA-3).
async fn refuse_unknown(app: &Arc<App>, unknown: Unknown<'_>, reason: Reason) -> Response<Flow> {
    let dialect = unknown.dialect;
    let times = Times::of(unknown.clock);
    let Ok(name) = Identifier::new(reason.name()) else {
        return respond::answer(dialect, reason, None, None);
    };
    let ledger = app.ledger.clone();
    let status = i64::from(reason.status());
    let recorded =
        Outliving::new(app, async move { ledger.refuse_before_authentication(name, status).await }).await;
    match recorded {
        Ok(PreAuth::Recorded(exchange)) => {
            app.telemetry.refused(reason.name());
            unknown.tell(&exchange, reason, times);
            respond::answer(dialect, reason, Some(exchange.as_str()), None)
        }
        Ok(PreAuth::Folded) => {
            app.telemetry.refused(reason.name());
            respond::answer(dialect, reason, None, None)
        }
        Err(unavailable) => {
            app.telemetry.refused_unrecorded(reason.name());
            let evidence = Reason::Evidence(unavailable.reason);
            respond::answer(dialect, evidence, None, Some(unavailable.retry_after_s))
        }
    }
}

/// What is known of a request whose caller is authenticated and whose intent is not made yet.
struct Asking {
    app: Arc<App>,
    snapshot: Arc<Snapshot>,
    route: Option<Arc<Route>>,
    dialect: Dialect,
    caller: Caller,
    asked: Asked,
    /// The part `client_request_head`.
    head: Bytes,
    suppression: Vec<Identifier>,
    verdict: Option<Verdict>,
    clock: Clock,
    trace: Option<Trace>,
}

impl Asking {
    /// Records the refusal, the exchange's only record, and answers.
    async fn refuse(
        self,
        admission: Option<Admission>,
        body: Option<NewPart>,
        reason: Reason,
    ) -> Response<Flow> {
        let Self { app, snapshot, route, dialect, caller, asked, head, suppression, verdict, clock, trace } =
            self;
        let told = trace.map(|_| (caller.clone(), asked.clone(), route.clone(), Times::of(&clock)));
        // A refusal on a route with `fail_mode: open` is missed where others pass unrecorded.
        let fail_open = route.as_ref().is_some_and(|route| route.fail_open);
        let unrecorded = |app: &App, reason: Reason| {
            app.telemetry.refused_unrecorded(reason.name());
            if fail_open {
                app.ledger.count_unrecorded(1);
            }
        };
        let admission = match admission {
            // What the ledger itself refuses has no record: a counter of the next heartbeat says it.
            _ if matches!(reason, Reason::Evidence(_)) => {
                unrecorded(&app, reason);
                return respond::answer(dialect, reason, None, None);
            }
            Some(admission) => Ok(admission),
            None => {
                let scope = route.as_ref().map_or(KeyScope::PerExchange, |route| scope(route, &caller));
                app.ledger.admit(None, scope).await
            }
        };
        let refused = match admission {
            Err(unavailable) => Err(unavailable),
            Ok(admission) => {
                let exchange = admission.exchange().clone();
                if route.as_ref().is_some_and(|route| !route.keep_content) {
                    admission.discard_content();
                }
                if route.as_ref().is_some_and(|route| route.receipts) {
                    admission.promise();
                }
                let mut parts = vec![NewPart::bytes(PartName::ClientRequestHead, head)];
                parts.extend(body);
                let retention = route
                    .map_or_else(|| Identifier::new("standard").ok(), |route| Some(route.retention.clone()));
                let id = exchange.clone();
                let make = move |parts, content_key| Refusal {
                    exchange: Some(id),
                    reason: word(reason),
                    status: i64::from(reason.status()),
                    count: None,
                    first: None,
                    last: None,
                    caller: Some(caller),
                    asked: Some(asked),
                    verdict,
                    parts,
                    content_key,
                    retention,
                    suppression,
                };
                let recorded =
                    Outliving::new(&app, async move { admission.refusal(parts, make).await }).await;
                recorded.map(|promise| (exchange, promise))
            }
        };
        match refused {
            Ok((exchange, promise)) => {
                app.telemetry.refused(reason.name());
                tracing::info!(%exchange, reason = reason.name(), "refused");
                if let Some((caller, asked, route, times)) = told {
                    tell_refusal(&snapshot, trace, &exchange, caller, asked, route, reason, times);
                }
                let mut answer = respond::answer(dialect, reason, Some(exchange.as_str()), None);
                respond::promised(answer.headers_mut(), respond::RECEIPT, promise.as_ref());
                answer
            }
            Err(unavailable) => {
                unrecorded(&app, reason);
                let evidence = Reason::Evidence(unavailable.reason);
                respond::answer(dialect, evidence, None, Some(unavailable.retry_after_s))
            }
        }
    }
}

/// A reason as a leaf holds it.
fn word(reason: Reason) -> Identifier {
    Identifier::new(reason.name()).expect("the name of a reason is an identifier")
}

/// An [`Asking`] that records the caller's leaving when it is dropped before its intent (CA-3).
struct Guarded {
    asking: Option<Asking>,
}

impl Guarded {
    fn new(asking: Asking) -> Self {
        Self { asking: Some(asking) }
    }

    fn get(&mut self) -> Option<&mut Asking> {
        self.asking.as_mut()
    }

    fn take(&mut self) -> Option<Asking> {
        self.asking.take()
    }

    async fn refuse(
        &mut self,
        admission: Option<Admission>,
        body: Option<NewPart>,
        reason: Reason,
    ) -> Response<Flow> {
        let Some(asking) = self.asking.take() else {
            return respond::answer(Dialect::OpenAi, reason, None, None);
        };
        let app = Arc::clone(&asking.app);
        Outliving::new(&app, asking.refuse(admission, body, reason)).await
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            let app = Arc::clone(&asking.app);
            let reason = if app.is_cutting() { Reason::Draining } else { Reason::ClientAbort };
            app.outlive(async move {
                drop(asking.refuse(None, None, reason).await);
            });
        }
    }
}
