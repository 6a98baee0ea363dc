//! A request's body as it is read for what it asks.

use bytes::Bytes;
use dialects::{Content, RequestFacts};
use evidence::StoredBody;
use http::HeaderMap;

use super::candidate::Candidate;
use crate::app::Snapshot;
use crate::dispatch::original;
use crate::relay::intake::Memory;
use crate::respond::Reason;

/// A request's body as it is read.
pub(super) struct Read {
    /// Without its content coding; `None` where it could not be undone.
    pub(super) plain: Option<Bytes>,
    /// Why it could not be.
    fault: Option<String>,
}

impl Read {
    pub(super) fn new(body: &Bytes, codings: &[dialects::coding::Coding]) -> Self {
        if codings.is_empty() {
            return Self { plain: Some(body.clone()), fault: None };
        }
        match dialects::coding::decode_all(codings, body, dialects::coding::Caps::default()) {
            Ok(plain) => Self { plain: Some(plain.into()), fault: None },
            Err(error) => Self { plain: None, fault: Some(error.to_string()) },
        }
    }

    fn facts(&self, candidate: &Candidate<'_>, headers: &HeaderMap, query: Option<&str>) -> RequestFacts {
        let body = self.plain.as_deref().unwrap_or_default();
        let facts = dialects::request_facts(&candidate.operation, headers, candidate.rest, query, body);
        match &self.fault {
            Some(fault) => RequestFacts { malformed: Some(fault.clone()), ..facts },
            None => facts,
        }
    }

    /// The first candidate that takes a request with this body, by its place, and the body's facts as it reads them.
    pub(super) fn choose(
        &self,
        candidates: &[Candidate<'_>],
        headers: &HeaderMap,
        query: Option<&str>,
        length: u64,
    ) -> Option<(usize, RequestFacts)> {
        let content = std::cell::OnceCell::new();
        let content = || content.get_or_init(|| Content::of(self.plain.as_deref().unwrap_or_default()));
        candidates.iter().enumerate().find_map(|(at, candidate)| {
            let facts = self.facts(candidate, headers, query);
            let matching = candidate.route.matching.as_ref();
            matching.is_none_or(|matching| matching.fits_body(&facts, length, content)).then_some((at, facts))
        })
    }
}

/// Reads a stored body back, within the memory for bodies.
pub(super) async fn read_stored(stored: &StoredBody, snapshot: &Snapshot) -> Result<(Bytes, Memory), Reason> {
    let memory = Memory::take(&snapshot.memory, stored.len(), snapshot.limits.admission).await?;
    let mut whole = Vec::with_capacity(usize::try_from(stored.len()).unwrap_or_default());
    let mut chunks = stored.chunks();
    while let Some(chunk) = chunks.next().await {
        whole.extend_from_slice(&chunk.map_err(original::unreadable)?);
    }
    Ok((whole.into(), memory))
}
