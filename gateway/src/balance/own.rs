//! Requests of the gateway's own to providers. What may be a prompt, or cost, is an exchange of its own: no byte of it goes before
//! its intent is durable (CA-1), the policy judges it, and its outcome says what it cost. Where it cannot be recorded it is not
//! sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialects::{AnswerFacts, Cause, Meter, Operation};
use evidence::{Admission, KeyScope, NewPart, OpenExchange};
use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use schemas::record::{
    Asked, Caller, Decision, End, Intent, Outcome, Part, PartName, ProviderEnd, Timing, Verdict,
};
use schemas::{ExchangeId, Identifier};
use sha2::{Digest as _, Sha256};

use super::Seen;
use crate::app::{App, Snapshot};
use crate::dispatch::pool::Provider;
use crate::dispatch::upload::Upload;
use crate::dispatch::{self, NoAnswer, Outgoing};
use crate::respond::Reason;
use crate::{police, price, record};

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// The path as the dialect has it, which says what the operation is.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// The same behind the provider's base path.
    pub(super) target: Option<PathAndQuery>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The longest time to the end of its answer.
    pub(super) within: Duration,
    /// The most that is read of an answer.
    pub(super) most: usize,
}

/// What the records of an exchange say beside its request.
pub(super) struct Told {
    /// The operation in records.
    pub(super) operation: &'static str,
    /// On whose behalf.
    pub(super) caller: Caller,
    /// The route that it is made for.
    pub(super) route: Option<Identifier>,
    /// Under which key its content is kept.
    pub(super) scope: KeyScope,
    /// The retention class of its content.
    pub(super) retention: Identifier,
    /// Whether its content is kept.
    pub(super) keep_content: bool,
}

/// What came of a request.
pub(super) struct Came {
    pub(super) seen: Seen,
    pub(super) end: End,
    error: Option<String>,
    /// Head and body, as far as they came.
    pub(super) answer: Option<(http::response::Parts, Bytes)>,
    head_us: Option<i64>,
}

/// Sends it and reads its answer, all within its time.
pub(super) async fn send(provider: &Provider, request: &Request<'_>) -> Came {
    let begun = Instant::now();
    let failed = |end, seen, text: String| Came { seen, end, error: Some(text), answer: None, head_us: None };
    let Some(target) = request.target.clone() else {
        return failed(End::Unreachable, Seen::Failed, "the path is none".into());
    };
    let body = request.body.clone();
    let outgoing = Outgoing {
        method: request.method.clone(),
        target,
        headers: request.headers.clone(),
        payload: provider.signing.as_ref().map(|_| Sha256::digest(&body).into()),
        body: Upload::whole(body),
        forwarded: None,
        uncoded: false,
    };
    let within = request.within;
    let response = match dispatch::send(provider, outgoing, within).await {
        Ok(response) => response,
        Err(NoAnswer { reason, text }) => {
            return match reason {
                Reason::ProviderTimeout => failed(End::Timeout, Seen::Timeout, text),
                Reason::ProviderUnreachable => failed(End::Unreachable, Seen::Failed, text),
                _ => failed(End::ProviderAbort, Seen::Failed, text),
            };
        }
    };
    let head_us = Some(record::micros(begun.elapsed()));
    let left = within.saturating_sub(begun.elapsed());
    let (head, body, ended) = read(response, left, request.most).await;
    let status = head.status.as_u16();
    let (seen, end, error) = match ended {
        Ended::Whole => (Seen::Status(status), End::Complete, None),
        Ended::TooLong => (Seen::Status(status), End::GatewayAbort, Some("the answer is too long".into())),
        Ended::Late => {
            (Seen::Timeout, End::Timeout, Some(format!("no end within {} s", within.as_secs_f64())))
        }
        Ended::Cut(text) => (Seen::Failed, End::ProviderAbort, Some(text)),
    };
    Came { seen, end, error, answer: Some((head, body)), head_us }
}

/// The same as an exchange of its own; gives its id.
///
/// # Errors
/// Why it was not sent: [`Seen::Denied`] or [`Seen::Unrecorded`].
pub(super) async fn recorded(
    app: &Arc<App>,
    snapshot: &Snapshot,
    provider: &Provider,
    request: &Request<'_>,
    told: Told,
) -> Result<(ExchangeId, Came), Seen> {
    let clock = Instant::now();
    let Request { method, path, query, headers, body, .. } = request;
    let operation = dialects::operation(provider.dialect, method, path);
    let facts = dialects::request_facts(&operation, headers, path, *query, body);
    let names = &snapshot.pseudonyms;
    let mut asked = record::asked(None, Some(operation), method, names);
    facts.fill(&mut asked, &|raw| names.of(raw));
    asked.operation = Identifier::new(told.operation).ok();
    asked.route.clone_from(&told.route);
    asked.provider = Some(provider.name.clone());
    asked.dialect.clone_from(&provider.dialect_name);
    let policy = snapshot.loaded.policy.as_ref();
    let verdict = policy.map(|policy| police::judge(policy, &told.caller, &asked));
    if verdict.as_ref().is_some_and(|verdict| verdict.decision == Decision::Deny) {
        return Err(Seen::Denied);
    }
    let length = u64::try_from(body.len()).ok();
    let admitted = app.ledger.admit(length, told.scope.clone()).await;
    let admission = admitted.map_err(|_| Seen::Unrecorded)?;
    if !told.keep_content {
        admission.discard_content();
    }
    let admitted_us = Some(record::micros(clock.elapsed()));
    let open = intend(admission, asked.clone(), verdict, body.clone(), &told).await;
    let open = open.ok_or(Seen::Unrecorded)?;
    app.telemetry.intended();
    let exchange = open.exchange().clone();
    let sent_us = record::micros(clock.elapsed());
    let came = send(provider, request).await;
    let timing = Timing {
        admitted_us,
        commit_us: admitted_us.map(|admitted| sent_us - admitted),
        provider_head_us: came.head_us,
        total_us: Some(record::micros(clock.elapsed())),
        ..Timing::default()
    };
    let own = Own { app, snapshot, provider };
    own.conclude(open, asked, operation, &came, timing, told).await;
    Ok((exchange, came))
}

/// An exchange of the gateway's own.
struct Own<'a> {
    app: &'a Arc<App>,
    snapshot: &'a Snapshot,
    provider: &'a Provider,
}

impl Own<'_> {
    async fn conclude(
        &self,
        open: OpenExchange,
        asked: Asked,
        operation: Operation,
        came: &Came,
        timing: Timing,
        told: Told,
    ) {
        let facts = facts(operation, came);
        let names = &self.snapshot.pseudonyms;
        let answered = facts.answered(&|raw| names.of(raw));
        let book = self.snapshot.loaded.prices.as_ref();
        let (cost, unpriced) =
            price::price(book, &self.provider.price_name, asked.requested_model.as_ref(), &facts, false);
        if let Some(cost) = &cost {
            self.app.telemetry.paid(cost, told.route.as_ref(), told.caller.team.as_ref());
        }
        let parts = self.parts(&open, came);
        let status = came.answer.as_ref().map(|(head, _)| i64::from(head.status.as_u16()));
        let provider_end = match came.end {
            End::Complete => Some(ProviderEnd::Seen),
            _ => status.map(|_| ProviderEnd::Cut),
        };
        let (exchange, position, end) = (open.exchange().clone(), open.position(), came.end);
        let Told { operation, caller, retention, .. } = told;
        let done = open
            .outcome(parts, move |parts, content_key| Outcome {
                exchange,
                intent_position: position,
                caller,
                asked,
                served: None,
                translation: None,
                answer_dropped: None,
                end,
                provider_end,
                provider_status: status,
                status: None,
                reason: None,
                delivered: Some(0),
                released: Some(0),
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
        match done {
            Ok(_) => self.app.telemetry.ended(),
            Err(error) => {
                self.app.telemetry.failed("outcome_unrecorded");
                tracing::error!(%error, operation, "the outcome of a request of the gateway's own could not be recorded");
            }
        }
    }

    /// The answer's parts, as far as the journal takes them: the outcome says what happened all the same.
    fn parts(&self, open: &OpenExchange, came: &Came) -> Vec<Part> {
        let mut parts = Vec::new();
        if let Some((head, body)) = &came.answer {
            let recorded = self.snapshot.filter.response_head(head.status, &head.headers);
            parts.extend(open.whole(PartName::ProviderResponseHead, None, None, &recorded).ok());
            let (media_type, coding) =
                (record::media_type(&head.headers), record::content_coding(&head.headers));
            let part = open.part(PartName::ProviderResponse, media_type, coding);
            if part.write(body, 0).is_ok() {
                parts.push(part.finish());
            }
        }
        if let Some(text) = &came.error {
            let plain = Identifier::new("text/plain").ok();
            let text = Bytes::copy_from_slice(text.as_bytes());
            parts.extend(open.whole(PartName::Error, plain, None, &text).ok());
        }
        parts
    }
}

async fn intend(
    admission: Admission,
    asked: Asked,
    verdict: Option<Verdict>,
    body: Bytes,
    told: &Told,
) -> Option<OpenExchange> {
    let (caller, retention) = (told.caller.clone(), told.retention.clone());
    let json = Identifier::new("application/json").ok();
    let parts = vec![NewPart::bytes(PartName::ProviderRequest, body).with(json, None)];
    let exchange = admission.exchange().clone();
    let opened = admission
        .intent(parts, move |parts, content_key| Intent {
            exchange,
            caller,
            asked,
            verdict,
            parts,
            content_key,
            retention,
            fail_mode: None,
            translation: None,
            suppression: Vec::new(),
            choice: None,
        })
        .await;
    opened.ok()
}

fn facts(operation: Operation, came: &Came) -> AnswerFacts {
    let nothing = HeaderMap::new();
    let (status, headers, body) = match &came.answer {
        Some((head, body)) => (head.status.as_u16(), &head.headers, body.clone()),
        None => (0, &nothing, Bytes::new()),
    };
    let mut meter = Meter::new(operation, status, headers, false, dialects::Limits::default());
    meter.feed(&body, &mut Vec::new());
    meter.finish(if came.end == End::Complete { Cause::Complete } else { Cause::Cut })
}

enum Ended {
    Whole,
    TooLong,
    Late,
    Cut(String),
}

/// Reads an answer, as far as it comes in time.
async fn read(
    response: Response<Incoming>,
    within: Duration,
    most: usize,
) -> (http::response::Parts, Bytes, Ended) {
    let (head, mut body) = response.into_parts();
    let mut all = BytesMut::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Err(error) => return Ended::Cut(dispatch::chain(&error)),
                Ok(frame) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if all.len() + data.len() > most {
                        return Ended::TooLong;
                    }
                    all.extend_from_slice(&data);
                }
            }
        }
        Ended::Whole
    };
    let ended = tokio::time::timeout(within, reading).await.unwrap_or(Ended::Late);
    (head, all.freeze(), ended)
}
