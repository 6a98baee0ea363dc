//! What is told of one exchange: facts of its records, and never content.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schemas::ExchangeId;
use schemas::record::{Answered, Asked, Caller, Cost, End, Usage};

use super::context::Trace;
use crate::dispatch::pool::Provider;
use crate::record::Clock;
use crate::relay::live::end_name;
use crate::route::Route;

/// An exchange that ended, or was refused.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) trace: Trace,
    pub(crate) exchange: ExchangeId,
    pub(crate) caller: Caller,
    pub(crate) asked: Asked,
    pub(crate) route: Option<Arc<Route>>,
    /// The one that was asked last.
    pub(crate) provider: Option<Arc<Provider>>,
    pub(crate) times: Times,
    /// The status that the caller got.
    pub(crate) status: Option<u16>,
    /// Why the gateway itself refused or ended it.
    pub(crate) reason: Option<&'static str>,
    /// Whether its records were taken by the journal.
    pub(crate) is_recorded: bool,
    /// What came of it behind its intent; `None` where it was refused before.
    pub(crate) dispatched: Option<Dispatched>,
}

/// What came of an exchange that was let go to its provider.
#[derive(Debug)]
pub(crate) struct Dispatched {
    pub(crate) end: End,
    pub(crate) provider_status: Option<u16>,
    pub(crate) answered: Answered,
    pub(crate) usage: Usage,
    pub(crate) cost: Option<Cost>,
    pub(crate) delivered: u64,
}

impl Dispatched {
    /// A word from a closed set, where it did not end well: an end that is not whole, or the provider's error status.
    pub(super) fn error(&self) -> Option<&'static str> {
        match (self.end, self.provider_status) {
            (End::Complete, Some(status)) => status_error(status),
            (End::Complete, None) => None,
            (end, _) => Some(end_name(end)),
        }
    }
}

/// An error status as a word of a closed set, so that it may stand in metrics.
fn status_error(status: u16) -> Option<&'static str> {
    Some(match status {
        0..=399 => return None,
        400 => "400",
        401 => "401",
        402 => "402",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        424 => "424",
        429 => "429",
        451 => "451",
        499 => "499",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        520 => "520",
        529 => "529",
        _ => "_OTHER",
    })
}

/// Nanoseconds since 1970-01-01 UTC of an exchange's moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start: u64,
    pub(crate) admitted: Option<u64>,
    pub(crate) committed: Option<u64>,
    pub(crate) sent: Option<u64>,
    pub(crate) first_token: Option<u64>,
    /// When its end was known.
    pub(crate) ended: u64,
    /// When its last record was taken.
    pub(crate) done: u64,
}

impl Times {
    /// Of `clock`, seen from now.
    pub(crate) fn of(clock: &Clock) -> Self {
        let (now, wall) = (Instant::now(), now_ns());
        let at = |moment: Instant| {
            let ago = u64::try_from(now.saturating_duration_since(moment).as_nanos()).unwrap_or(u64::MAX);
            wall.saturating_sub(ago)
        };
        Self {
            start: at(clock.start),
            admitted: clock.admitted.map(at),
            committed: clock.committed.map(at),
            sent: clock.sent.map(at),
            first_token: clock.first_token.map(at),
            ended: clock.ended.map_or(wall, at),
            done: wall,
        }
    }

    /// Its last record was taken now.
    pub(crate) fn done(self) -> Self {
        Self { done: now_ns(), ..self }
    }

    /// From the request to the provider on: how long its answer took, in seconds.
    pub(super) fn provider_seconds(&self) -> Option<f64> {
        self.sent.map(|sent| seconds(sent, self.ended))
    }

    /// The same until the first event with model output.
    pub(super) fn first_token_seconds(&self) -> Option<f64> {
        self.sent.zip(self.first_token).map(|(sent, first)| seconds(sent, first))
    }
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

/// The wall clock's nanoseconds.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
