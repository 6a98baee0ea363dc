//! The life of an exchange, up to its intent; [`crate::relay`] has the rest.
//!
//! ```text
//! authenticate -> route -> intake -> police -> intent (durable) -> dispatch -> relay -> outcome (durable) -> end
//! ```

mod asking;
mod candidate;
mod chosen;
mod guarded;
mod intent;
mod reading;
mod refused;
mod unknown;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use evidence::NewPart;
use http::header::{CONTENT_LENGTH, EXPECT, TE, UPGRADE};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use schemas::record::{Decision, PartName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::{App, Snapshot};
use crate::authenticate::Shown;
use crate::dispatch::attempts::{self, Plan};
use crate::dispatch::forward::Forwarded;
use crate::dispatch::original::{self, Body, Original};
use crate::dispatch::spread::Spread;
use crate::identity::Presented;
use crate::quotas;
use crate::record::{self, Clock, now_us};
use crate::relay::Flow;
use crate::relay::intake::{self, Memory, NotTaken, Taken};
use crate::respond::{self, Reason};
use crate::route::{self, Route};
use crate::{authenticate, police};
use asking::{Asking, scope};
use candidate::{Candidate, candidates, keep_fitting};
use chosen::{Chosen, choose_target};
use guarded::Guarded;
use intent::intend;
use reading::{Read, read_stored};
use refused::Refused;
use unknown::{Unknown, refuse_unknown};

/// Answers one request.
pub(crate) async fn exchange(app: Arc<App>, request: Request<Incoming>) -> Response<Flow> {
    let mut clock = Clock::start();
    let snapshot = app.snapshot.load_full();
    let (head, mut body) = request.into_parts();
    let mut candidates = candidates(&snapshot, &head);
    // An own answer has the form that this path's SDK reads.
    let dialect = candidates.first().map_or_else(|| route::guess(&head.headers), Candidate::dialect);
    let trace = snapshot.otlp.as_ref().and_then(|otlp| otlp.begin(&head.headers));
    let unknown = Unknown { dialect, method: &head.method, clock: &clock, trace, snapshot: &snapshot };
    if app.is_draining() {
        return refuse_unknown(&app, unknown, Reason::Draining).await;
    }
    let takes_query_key = candidate::takes_query_key(&candidates);
    let shown = Shown {
        headers: &head.headers,
        query: head.uri.query(),
        takes_query_key,
        certificate: head.extensions.get::<Arc<Presented>>().map(Arc::as_ref),
        // Routes of one path agree on it.
        forwards: candidates.first().is_some_and(|first| first.route.forwards),
    };
    let who = match authenticate::authenticate(&snapshot, &shown, now_us()).await {
        Ok(who) => who,
        Err(reason) => {
            let response = refuse_unknown(&app, unknown, reason).await;
            linger(&app, &head.headers, body, snapshot.limits.body);
            return response;
        }
    };
    clock.known = Some(Instant::now());
    keep_fitting(&mut candidates, || authenticate::caller(&who, None, &head.headers, &snapshot.pseudonyms));
    for candidate in &mut candidates {
        let route = Some(&*candidate.route);
        candidate.caller = authenticate::caller(&who, route, &head.headers, &snapshot.pseudonyms);
    }
    let first = candidates.first();
    let dialect = first.map_or(dialect, Candidate::dialect);
    let caller = match first {
        Some(first) => first.caller.clone(),
        None => authenticate::caller(&who, None, &head.headers, &snapshot.pseudonyms),
    };
    let (route, operation) =
        (first.map(|first| Arc::clone(&first.route)), first.map(|first| first.operation));
    // What was tried as a key goes no further, whichever route is left.
    let takes_query_key = takes_query_key || candidate::takes_query_key(&candidates);
    let query = head.uri.query().map(|query| authenticate::without_key(query, takes_query_key));
    let query = query.as_deref().filter(|query| !query.is_empty() || head.uri.query() == Some(""));
    let target = match query {
        Some(query) => Cow::Owned(format!("{}?{query}", head.uri.path())),
        None => Cow::Borrowed(head.uri.path()),
    };
    let mut asking = Guarded::new(Asking {
        dialect,
        caller,
        allow: who.allow(),
        counted: who.counted(),
        asked: record::asked(route.as_deref(), operation, &head.method, &snapshot.pseudonyms),
        head: snapshot.filter.request_head(&head.method, &target, &head.headers),
        suppression: Vec::new(),
        verdict: None,
        translation: None,
        choice: None,
        reservation: None,
        of_target: None,
        reserved_for: None,
        full: None,
        retention: None,
        clock,
        trace,
        route,
        app: Arc::clone(&app),
        snapshot: Arc::clone(&snapshot),
    });
    match answer(&app, &snapshot, &mut asking, &head, &mut body, candidates, query).await {
        Ok(response) => response,
        Err(Refused { reason, admission, body: part }) => {
            let response = asking.refuse(admission, part, reason).await;
            linger(&app, &head.headers, body, snapshot.limits.body);
            response
        }
    }
}

async fn answer(
    app: &Arc<App>,
    snapshot: &Arc<Snapshot>,
    guard: &mut Guarded,
    head: &http::request::Parts,
    body: &mut Incoming,
    mut candidates: Vec<Candidate<'_>>,
    query: Option<&str>,
) -> Result<Response<Flow>, Refused> {
    let Some(asking) = guard.get() else { return Err(Reason::ClientAbort.into()) };
    // Until the body is read the first one counts.
    let Some(first) = candidates.first() else { return Err(Reason::UnknownRoute.into()) };
    if head.headers.contains_key(UPGRADE) || head.method == Method::CONNECT {
        return Err(Reason::UpgradeRefused.into());
    }
    if route::has_dot_segments(first.rest) {
        return Err(Reason::MalformedPath.into());
    }
    let codings = dialects::coding::codings(&head.headers).map_err(|_| Reason::UnknownCoding)?;
    let place = take_place(&snapshot.places, snapshot.limits.admission).await?;
    let unavailable = app.ledger.readiness().err();
    if let Some(unavailable) = unavailable.filter(|_| !first.route.fail_open) {
        return Err(unavailable.into());
    }

    // Intake: whole in memory, or to disk as it comes.
    let declared = declared_length(&head.headers);
    let mut admission = None;
    let (body, memory) = match intake::start(body, snapshot).await? {
        Taken::Whole(bytes, memory) => (Body::Memory(bytes), memory),
        Taken::Start(bytes, memory) => {
            // Its subject may still be to come: then it gets a key of its own, which can always be destroyed alone.
            let scope = scope(&first.route, &asking.caller);
            let admitted = app.ledger.admit(declared, scope).await?;
            if !first.route.keep_content {
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

    // Facts, and the route that they lead to.
    let (whole, memory) = match &body {
        Body::Memory(bytes) => (bytes.clone(), memory),
        Body::Stored(stored) => read_stored(stored, snapshot).await?,
    };
    let read = Read::new(&whole, &codings);
    let spilled = matches!(body, Body::Stored(_));
    let Some((at, facts)) = read.choose(&candidates, &head.headers, query, body.len()) else {
        let part = record::described(body.part(), &head.headers);
        return Err(Refused { reason: Reason::UnknownRoute, admission, body: Some(part) });
    };
    let retention = spilled.then(|| first.route.retention.clone());
    let Candidate { route, rest, operation, caller } = candidates.swap_remove(at);
    if at > 0 {
        asking.goes_by(&route, operation, &head.method, caller);
        asking.retention = retention;
    }
    if route::has_dot_segments(rest) {
        return Err(Reason::MalformedPath.into());
    }
    record::add_facts(&mut asking.asked, &mut asking.caller, &facts, &snapshot.pseudonyms);
    asking.suppression = record::suppression(&facts, Some(&*route));
    let is_kept = !spilled || original::may_change(&route, &operation, &facts);
    let (is_coded, is_sound) = (!codings.is_empty(), facts.malformed.is_none());
    let (input_tokens, writes_cache) = match &read.plain {
        _ if snapshot.quotas.is_empty() => (0, false),
        Some(plain) => (quotas::input_tokens(plain), quotas::writes_cache(plain)),
        None => (quotas::input_tokens_unread(body.len()), true),
    };
    let readable = read.plain.filter(|_| is_kept);
    drop(whole);
    let original = Original {
        method: head.method.clone(),
        rest: rest.to_owned(),
        query: query.map(str::to_owned),
        headers: snapshot.filter.request(&head.headers),
        operation,
        body,
        readable,
        is_coded,
        is_sound,
        is_json: facts.json,
        model: facts.requested_model.clone(),
        input_tokens,
        writes_cache,
        counted: asking.counted.clone(),
        // Of a body that is sent from disk nothing stays in memory.
        _memory: if is_kept { memory } else { Memory::default() },
    };

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
    let part = || Some(record::described(original.body.part(), &head.headers));
    let forwarded = match forwarded(&route, head, snapshot) {
        Ok(forwarded) => forwarded,
        Err(reason) => return Err(Refused { reason, admission, body: part() }),
    };
    asking.caller.forwarded = forwarded.as_ref().and_then(|forwarded| forwarded.record(&snapshot.pseudonyms));
    let enforces = snapshot.loaded.policy.as_ref().map(|policy| policy.mode());
    if facts.malformed.is_some() && enforces == Some(policies::policy::Mode::Enforce) {
        let verdict = snapshot.loaded.policy.as_ref();
        let verdict = verdict.map(|policy| police::judge(policy, &asking.caller, &asking.asked));
        let is_denied = verdict.as_ref().is_some_and(|verdict| verdict.decision == Decision::Deny);
        asking.verdict = verdict;
        if let Some(verdict) = &asking.verdict {
            app.telemetry.judged(verdict);
        }
        let is_permitted = route.targets.iter().any(|target| asking.permits(&route, target));
        let reason = match (is_denied, is_permitted) {
            (true, _) => Reason::PolicyDenied,
            (_, false) => Reason::NotAllowed,
            _ => Reason::MalformedBody,
        };
        return Err(Refused { reason, admission, body: part() });
    }
    let mut spread = Spread::new(&route, &original, (&asking.caller, &asking.asked), snapshot);
    let chosen = choose_target(&route, asking, &original, &mut spread).await;
    if let Some(verdict) = &asking.verdict {
        app.telemetry.judged(verdict);
    }
    let Chosen { picked, denied, verdicts, prepared } = match chosen {
        Ok(chosen) => chosen,
        Err(reason) => return Err(Refused { reason, admission, body: part() }),
    };
    let Some(target) = route.targets.get(picked.target()) else { return Err(Reason::UnknownRoute.into()) };

    let mut parts = vec![NewPart::bytes(PartName::ClientRequestHead, asking.head.clone())];
    if !original.body.is_empty() {
        parts.push(record::described(original.body.part(), &head.headers));
    }
    if let Some(changed) = &prepared.changed {
        let part = NewPart::bytes(PartName::ProviderRequest, changed.clone());
        // What was changed goes without a content coding.
        parts.push(part.with(record::media_type(&head.headers), None));
    }
    let trailers = takes_trailers(&head.headers);
    let target = Arc::clone(target);
    let Some(asked) = guard.take() else { return Err(Reason::ClientAbort.into()) };
    let live = match intend(
        app,
        asked,
        (&route, &target, picked.target()),
        operation,
        admission,
        parts,
        place,
    )
    .await
    {
        Ok(live) => live,
        Err((unavailable, dialect, exchange)) => {
            app.telemetry.refused_unrecorded(unavailable.reason.as_str());
            let retry = Some(unavailable.retry_after_s);
            let reason = Reason::Evidence(unavailable.reason);
            return Ok(respond::answer(dialect, reason, Some(exchange.as_str()), retry));
        }
    };
    let plan = Plan { original, route, denied, verdicts, trailers, spread, forwarded };
    Ok(attempts::run(app, snapshot, live, plan, (picked, prepared)).await)
}

/// The caller's own credential, on a route that sends it on: to the one provider that the route has then.
fn forwarded(
    route: &Route,
    head: &http::request::Parts,
    snapshot: &Snapshot,
) -> Result<Option<Forwarded>, Reason> {
    let Some(target) = route.targets.first().filter(|_| route.forwards) else { return Ok(None) };
    let key = authenticate::query_key(head.uri.query()).filter(|_| route.takes_query_key());
    Forwarded::of(&target.provider, &head.headers, key.as_deref(), &snapshot.identities).map(Some)
}

/// Whether the caller says that it takes trailers (RFC 9110 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
