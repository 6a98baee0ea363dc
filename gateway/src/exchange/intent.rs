//! The intent of an exchange.

use std::sync::Arc;
use std::time::Instant;

use dialects::{Dialect, Operation};
use evidence::{Admission, NewPart, Unavailable};
use schemas::record::Intent;
use schemas::{ExchangeId, Identifier};
use tokio::sync::OwnedSemaphorePermit;

use super::asking::Asking;
use crate::app::App;
use crate::dispatch::target::Target;
use crate::record::Clock;
use crate::relay::live::{Intended, Live};
use crate::relay::outlive::Outliving;
use crate::route::Route;

/// Makes the intent durable (CA-1). From here on an outcome is owed, whatever becomes of the caller.
pub(super) async fn intend(
    app: &Arc<App>,
    asking: Asking,
    (route, target, place_of_target): (&Arc<Route>, &Arc<Target>, usize),
    operation: Operation,
    admission: Option<Admission>,
    parts: Vec<NewPart>,
    place: OwnedSemaphorePermit,
) -> Result<Live, (Unavailable, Dialect, ExchangeId)> {
    let Asking {
        app: owner,
        snapshot,
        caller,
        asked,
        suppression,
        verdict,
        translation,
        choice,
        reservation,
        of_target,
        retention,
        clock,
        dialect,
        trace,
        ..
    } = asking;
    let mut intended = Intended {
        route: Arc::clone(route),
        target: Arc::clone(target),
        place: place_of_target,
        sent_model: None,
        translation,
        operation,
        caller,
        asked,
        clock: Clock { admitted: Some(Instant::now()), ..clock },
        trace,
        reservation,
        of_target,
    };
    let Some(admission) = admission else {
        owner.ledger.count_unrecorded(1);
        let exchange = owner.ledger.new_exchange_id();
        return Ok(Live::new(owner, snapshot, intended, exchange, None, place));
    };
    if !route.keep_content {
        admission.discard_content();
    }
    if route.receipts {
        admission.promise();
    }
    let exchange = admission.exchange().clone();
    let retention = retention.unwrap_or_else(|| route.retention.clone());
    let fail_open = route.fail_open;
    Outliving::new(app, async move {
        let fail_mode = if fail_open { Identifier::new("open").ok() } else { None };
        let (caller, asked) = (intended.caller.clone(), intended.asked.clone());
        let (translation, id) = (intended.translation.clone(), exchange.clone());
        let opened = admission
            .intent(parts, move |parts, content_key| Intent {
                exchange: id,
                caller,
                asked,
                verdict,
                translation,
                parts,
                content_key,
                retention,
                fail_mode,
                suppression,
                choice,
            })
            .await;
        let clock = &mut intended.clock;
        clock.committed = Some(Instant::now());
        if let (Some(from), Some(to)) = (clock.admitted, clock.committed) {
            owner.telemetry.commit.observe(to.saturating_duration_since(from).as_secs_f64());
        }
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
