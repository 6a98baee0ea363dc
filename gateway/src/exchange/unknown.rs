//! A request whose caller is not known.

use std::sync::Arc;

use dialects::Dialect;
use evidence::PreAuth;
use http::{Method, Response};
use schemas::record::Caller;
use schemas::{ExchangeId, Identifier};

use super::refused::tell_refusal;
use crate::app::{App, Snapshot};
use crate::otlp::{Times, Trace};
use crate::record::{self, Clock};
use crate::relay::Flow;
use crate::relay::outlive::Outliving;
use crate::respond::{self, Reason};

/// What is known of a request whose caller is not.
pub(super) struct Unknown<'a> {
    pub(super) dialect: Dialect,
    pub(super) method: &'a Method,
    pub(super) clock: &'a Clock,
    pub(super) trace: Option<Trace>,
    pub(super) snapshot: &'a Snapshot,
}

impl Unknown<'_> {
    /// Tells a collector of a refusal with a record of its own.
    fn tell(&self, exchange: &ExchangeId, reason: Reason, times: Times) {
        let asked = record::asked(None, None, self.method, &self.snapshot.pseudonyms);
        tell_refusal(self.snapshot, self.trace, exchange, Caller::default(), asked, None, reason, times);
    }
}

/// Refuses a caller that is not known: no content is kept, and a flood is folded (CA-3).
pub(super) async fn refuse_unknown(app: &Arc<App>, unknown: Unknown<'_>, reason: Reason) -> Response<Flow> {
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
