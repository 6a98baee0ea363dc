//! What the records of a found journal say, one at a time.

use std::collections::{BTreeMap, BTreeSet};

use schemas::record::{Body, Intent, PartName, Predecessor};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};
use serde::Deserialize;

use super::erasures::Erasures;
use crate::attempts::Attempts;
use crate::error::OpenError;
use crate::journal::{Found, Frame};

/// What is kept of them: no more than the open exchanges.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Intents without an outcome, by position.
    pub(super) open: BTreeMap<u64, Intent>,
    /// What those of them tried that tried more than once, and the parts that the records of it name.
    pub(super) attempts: BTreeMap<u64, (Attempts, BTreeSet<PartName>)>,
    /// The configuration in force at the end.
    pub(super) config: Option<Sha256Hex>,
    /// Whether there is a `close`: nothing may come behind it.
    pub(super) closed: bool,
    /// How much the `gap` records say that passed unrecorded, by position.
    pub(super) unrecorded: Vec<(u64, u64)>,
    /// What is recorded of erasures, and what was to be.
    pub(super) erasures: Erasures,
    /// `boot`'s key, where `boot` is still in the journal.
    pub(super) seal_key: Option<String>,
    /// The log that `boot` names as its predecessor.
    pub(super) follows: Option<Origin>,
    /// The newest `at`.
    pub(super) last_at: i64,
}

/// The keys of a leaf that recovery looks at.
#[derive(Deserialize)]
struct Glance {
    kind: String,
    at: i64,
    config: Sha256Hex,
    #[serde(default)]
    next: Option<Sha256Hex>,
    #[serde(default)]
    intent_position: Option<u64>,
    #[serde(default)]
    content_key: Option<Identifier>,
    #[serde(default)]
    exchange: Option<ExchangeId>,
    #[serde(default)]
    seal_key: Option<String>,
    #[serde(default)]
    predecessor: Option<Predecessor>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    count: Option<u64>,
}

impl Survey {
    pub(super) fn visit(&mut self, found: Found<'_>) -> Result<(), OpenError> {
        let position = found.position;
        let format = |error: String| OpenError::Format(format!("record {position} of the journal: {error}"));
        let leaf = match found.frame {
            Frame::Record { leaf, .. } => leaf,
            Frame::Plan(bytes) => {
                return self.erasures.plan(bytes).map_err(|error| format(format!("its plan: {error}")));
            }
            _ => return Ok(()),
        };
        let glance: Glance = serde_json::from_slice(leaf).map_err(|error| format(error.to_string()))?;
        self.last_at = self.last_at.max(glance.at);
        self.config = Some(glance.config);
        match glance.kind.as_str() {
            "boot" => {
                self.seal_key = glance.seal_key;
                self.follows = glance.predecessor.map(|predecessor| predecessor.origin);
            }
            "config" => self.config = glance.next.or(self.config),
            "intent" => {
                let decoded = schemas::leaf::decode(leaf).map_err(|error| format(error.to_string()))?;
                if let Some(Body::Intent(intent)) = decoded.record.map(|record| record.body) {
                    self.open.insert(position, intent);
                }
            }
            "outcome" => {
                if let Some(intent) = glance.intent_position {
                    self.open.remove(&intent);
                    self.attempts.remove(&intent);
                }
            }
            "attempt" => {
                let decoded = schemas::leaf::decode(leaf).map_err(|error| format(error.to_string()))?;
                if let Some(Body::Attempt(attempt)) = decoded.record.map(|record| record.body)
                    && self.open.contains_key(&attempt.intent_position)
                {
                    let (attempts, parts) = self.attempts.entry(attempt.intent_position).or_default();
                    attempts.note(&attempt);
                    parts.extend(attempt.parts.iter().map(|part| part.part));
                }
            }
            "erasure" => {
                if let (Some(key), Some(exchange)) = (glance.content_key, glance.exchange) {
                    self.erasures.tell(position, glance.at, key, exchange);
                }
            }
            "gap" if glance.reason.as_deref() == Some("unrecorded") => {
                self.unrecorded.push((position, glance.count.unwrap_or(0)));
            }
            "close" => self.closed = true,
            _ => {}
        }
        Ok(())
    }
}
