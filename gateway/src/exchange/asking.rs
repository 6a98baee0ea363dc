//! A request whose caller is known, until its intent or its refusal.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use dialects::{Dialect, Operation};
use evidence::{Admission, KeyScope, NewPart};
use http::{Method, Response};
use schemas::Identifier;
use schemas::record::{Asked, Caller, Choice, PartName, Refusal, Translation, Verdict};

use super::refused::tell_refusal;
use crate::app::{App, Snapshot};
use crate::config;
use crate::dispatch::original::{Original, Prepared};
use crate::dispatch::target::Target;
use crate::keys::Allow;
use crate::otlp::{Times, Trace};
use crate::quotas::{self, Full, Load, Reservation, Stage};
use crate::record::{self, Clock};
use crate::relay::Flow;
use crate::relay::outlive::Outliving;
use crate::respond::{self, Reason};
use crate::route::Route;

/// What is known of a request whose caller is authenticated and whose intent is not made yet.
pub(super) struct Asking {
    pub(super) app: Arc<App>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) dialect: Dialect,
    pub(super) caller: Caller,
    pub(super) asked: Asked,
    /// The part `client_request_head`.
    pub(super) head: Bytes,
    pub(super) suppression: Vec<Identifier>,
    pub(super) verdict: Option<Verdict>,
    /// How the request is translated for the target that is asked, or what of it cannot be.
    pub(super) translation: Option<Translation>,
    /// What its target was chosen by, where it was by what its prompt means.
    pub(super) choice: Option<Choice>,
    /// What the caller's key is for.
    pub(super) allow: Option<Arc<Allow>>,
    /// The groups that quotas count by, where the record does not hold all.
    pub(super) counted: Option<Arc<[Identifier]>>,
    /// What it has reserved of its quotas.
    pub(super) reservation: Option<Reservation>,
    /// The same of those that ask for a target.
    pub(super) of_target: Option<Reservation>,
    /// The target that what asks for no target was reserved for.
    pub(super) reserved_for: Option<Identifier>,
    /// The quota that has no room for it.
    pub(super) full: Option<Box<Full>>,
    /// The retention class, where it is not that of the route.
    pub(super) retention: Option<Identifier>,
    pub(super) clock: Clock,
    pub(super) trace: Option<Trace>,
}

impl Asking {
    /// Whether the caller's key is for this target, the model that is asked for and the one that is sent there.
    pub(super) fn permits(&self, route: &Route, target: &Target) -> bool {
        let asked = self.asked.requested_model.as_ref().map(Identifier::as_str);
        let sent = self.asked.sent_model.as_ref().map(Identifier::as_str);
        let provider = target.provider.name.as_str();
        let permits = |allow: &Arc<Allow>| allow.permits(route.name.as_str(), provider, asked, sent);
        self.allow.as_ref().is_none_or(permits)
    }

    /// Takes what the request may use of its quotas as it is `prepared` for `target`, which `asked` names: what asks for no target,
    /// unless that was taken for this one already, and what asks for this one.
    ///
    /// # Errors
    /// Why there is no room, and whether there may be at another target.
    pub(super) async fn reserve(
        &mut self,
        original: &Original,
        target: &Target,
        prepared: &Prepared,
    ) -> Result<(), (Reason, bool)> {
        if self.snapshot.quotas.is_empty() {
            return Ok(());
        }
        let load = original.load(&self.asked, target, Some(prepared));
        if self.reserved_for.as_ref() != Some(&target.name) {
            self.reserve_at(Stage::Exchange, original, target, &load).await?;
        }
        self.reserve_at(Stage::Target, original, target, &load).await?;
        self.full = None;
        Ok(())
    }

    /// The same of one stage alone.
    pub(super) async fn reserve_at(
        &mut self,
        stage: Stage,
        original: &Original,
        target: &Target,
        load: &Load,
    ) -> Result<(), (Reason, bool)> {
        let snapshot = Arc::clone(&self.snapshot);
        if stage == Stage::Exchange {
            self.reserved_for = Some(target.name.clone());
            // Another target may be sent another model, or more may come of it there.
            if let Some(reservation) = self.reservation.take() {
                reservation.give_back().await;
            }
        }
        let request = original.quota_request((&self.caller, &self.asked), load, target, &snapshot);
        match snapshot.quotas.reserve(&request, stage).await {
            Ok(reservation) if stage == Stage::Exchange => self.reservation = reservation,
            Ok(reservation) => self.of_target = reservation,
            Err(quotas::Refused::Full(full)) => {
                self.full = Some(full);
                return Err((Reason::QuotaExceeded, stage == Stage::Target));
            }
            Err(quotas::Refused::Down) => return Err((Reason::QuotaUnavailable, false)),
        }
        Ok(())
    }

    /// Another route than the first takes the request.
    pub(super) fn goes_by(
        &mut self,
        route: &Arc<Route>,
        operation: Operation,
        method: &Method,
        caller: Caller,
    ) {
        self.dialect = operation.dialect();
        self.caller = caller;
        self.asked = record::asked(Some(&**route), Some(operation), method, &self.snapshot.pseudonyms);
        self.route = Some(Arc::clone(route));
    }

    /// Records the refusal, the exchange's only record, and answers.
    pub(super) async fn refuse(
        self,
        admission: Option<Admission>,
        body: Option<NewPart>,
        reason: Reason,
    ) -> Response<Flow> {
        let Self {
            app,
            snapshot,
            route,
            dialect,
            caller,
            asked,
            head,
            suppression,
            verdict,
            translation,
            full,
            retention,
            clock,
            trace,
            ..
        } = self;
        // A quota that another target had no room in is not why.
        let full = full.filter(|_| reason == Reason::QuotaExceeded);
        let limit = full.as_ref().and_then(|full| full.record());
        let message = respond::message_on(reason, route.as_deref());
        let message = match full.as_ref().and_then(|full| full.message()) {
            Some(more) => Cow::Owned(format!("{message} {more}")),
            None => message,
        };
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
                let retention = retention.or_else(|| {
                    route.map_or_else(
                        || Identifier::new("standard").ok(),
                        |route| Some(route.retention.clone()),
                    )
                });
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
                    limit,
                    translation: translation.filter(|_| matches!(reason, Reason::Untranslatable(_))),
                };
                let recorded =
                    Outliving::new(&app, async move { admission.refusal(parts, make).await }).await;
                recorded.map(|promise| (exchange, promise))
            }
        };
        match refused {
            Ok((exchange, promise)) => {
                app.telemetry.refused(reason.name());
                let rule = full.as_ref().map(|full| full.rule());
                tracing::info!(%exchange, reason = reason.name(), rule, "refused");
                if let Some((caller, asked, route, times)) = told {
                    tell_refusal(&snapshot, trace, &exchange, caller, asked, route, reason, times);
                }
                let id = Some(exchange.as_str());
                let body = respond::body_saying(dialect, reason, id, &message);
                let mut answer = respond::answer_with(dialect, body, reason, id, None);
                respond::promised(answer.headers_mut(), respond::RECEIPT, promise.as_ref());
                if let Some(full) = &full {
                    full.tell(answer.headers_mut());
                }
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

/// Which exchanges share the content key with this one.
pub(super) fn scope(route: &Route, caller: &Caller) -> KeyScope {
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
