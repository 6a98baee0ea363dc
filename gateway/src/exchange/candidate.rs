//! The routes that may take a request.

use std::sync::Arc;

use dialects::{Dialect, Operation};
use schemas::record::Caller;

use crate::app::Snapshot;
use crate::route::matching::Matching;
use crate::route::{self, Route};

/// A route that may take the request.
pub(super) struct Candidate<'p> {
    pub(super) route: Arc<Route>,
    /// The path behind the route's prefix.
    pub(super) rest: &'p str,
    pub(super) operation: Operation,
    /// Who calls, as this route has it.
    pub(super) caller: Caller,
}

impl Candidate<'_> {
    pub(super) fn dialect(&self) -> Dialect {
        self.operation.dialect()
    }
}

/// The routes whose path and head fit.
pub(super) fn candidates<'p>(snapshot: &Snapshot, head: &'p http::request::Parts) -> Vec<Candidate<'p>> {
    let host = route::host(head);
    let found = snapshot.routes.candidates(head.uri.path(), host.as_deref(), &head.headers);
    let candidate = |(route, rest): (&Arc<Route>, &'p str)| Candidate {
        route: Arc::clone(route),
        rest,
        operation: dialects::operation_at(route.dialect, route.maker, &head.method, rest),
        caller: Caller::default(),
    };
    found.into_iter().map(candidate).collect()
}

/// Takes out what does not fit the caller or the operation, and what stands behind one that needs to know no more.
pub(super) fn keep_fitting(candidates: &mut Vec<Candidate<'_>>, known: impl FnOnce() -> Caller) {
    if candidates.iter().all(|candidate| candidate.route.matching.is_none()) {
        return;
    }
    let known = known();
    candidates.retain(|Candidate { route, operation, .. }| {
        let fits = |matching: &Matching| matching.fits_caller(&known) && matching.fits_operation(operation);
        route.matching.as_ref().is_none_or(fits)
    });
    if let Some(last) = candidates.iter().position(|candidate| !candidate.route.asks_body()) {
        candidates.truncate(last + 1);
    }
}

/// Whether a key may stand in the query; where no route fits, nothing there can be anything else.
pub(super) fn takes_query_key(candidates: &[Candidate]) -> bool {
    candidates.first().is_none_or(|first| first.route.takes_query_key())
}
