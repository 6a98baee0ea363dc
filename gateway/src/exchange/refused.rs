//! A refusal before the intent.

use std::sync::Arc;

use evidence::{Admission, NewPart, Unavailable};
use schemas::ExchangeId;
use schemas::record::{Asked, Caller};

use crate::app::Snapshot;
use crate::otlp::{Times, Told, Trace};
use crate::respond::Reason;
use crate::route::Route;

/// Why an exchange is refused before its intent, and what of its content there is.
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) admission: Option<Admission>,
    pub(super) body: Option<NewPart>,
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

/// Tells a collector of a refusal that is recorded.
#[expect(clippy::too_many_arguments, reason = "the facts of a refusal, each used once")]
pub(super) fn tell_refusal(
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
        provider: None,
        times: times.done(),
        status: Some(reason.status()),
        reason: Some(reason.name()),
        is_recorded: true,
        dispatched: None,
    };
    otlp.tell(told, None, |_| None);
}
