//! Finds the records of what is to be erased, in the store.

use std::collections::{BTreeSet, HashMap};

use schemas::files::{self, Limits};
use schemas::names::FileKind;
use schemas::{ExchangeId, Identifier, ObjectName, Origin, Sha256Hex, keytable::KeyId, seal};
use serde::Deserialize;

use super::{EraseError, EraseTarget, Erased};
use crate::exchange_id;
use crate::inner::Inner;
use crate::store;

const MAX_SEAL_BYTES: u64 = 1 << 20;
const MAX_RECORDS_BYTES: u64 = 1 << 30;
/// How far the clock that made an exchange's id and the one that sealed its batch may be apart.
const SLACK_US: i64 = 3_600 * 1_000_000;

/// What a record says of its exchange.
#[derive(Deserialize)]
struct Glance {
    kind: String,
    at: i64,
    #[serde(default)]
    exchange: Option<ExchangeId>,
    #[serde(default)]
    content_key: Option<Identifier>,
    #[serde(default)]
    caller: Option<Caller>,
}

#[derive(Deserialize)]
struct Caller {
    #[serde(default)]
    subject: Option<Attributed>,
    #[serde(default)]
    consumer: Option<Attributed>,
}

#[derive(Deserialize)]
struct Attributed {
    value: Identifier,
}

/// What was found.
#[derive(Default)]
pub(super) struct FoundTargets {
    pub(super) targets: Vec<Erased>,
    /// What holds ask of them.
    pub(super) facts: HashMap<ExchangeId, Facts>,
    pub(super) without_content: Vec<ExchangeId>,
}

/// Who asked, and when.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) subject: Option<Identifier>,
    pub(super) consumer: Option<Identifier>,
    pub(super) at: i64,
}

/// The intent or refusal of an exchange.
struct Begun {
    origin: Origin,
    position: u64,
    key: Option<Identifier>,
    is_intent: bool,
    facts: Facts,
}

fn failed(error: impl std::fmt::Display) -> EraseError {
    EraseError::Failed(error.to_string())
}

/// Finds the exchanges of a request.
pub(super) fn find(inner: &Inner, target: &EraseTarget) -> Result<FoundTargets, EraseError> {
    let mut logs =
        inner.settings.store.logs(&inner.settings.deployment, &inner.settings.gateway).map_err(failed)?;
    logs.sort();
    let mut scan = Scan::default();
    match target {
        EraseTarget::Subject(subject) => {
            for origin in &logs {
                scan.log(inner, origin, None, &mut |glance| {
                    let of = glance.caller.as_ref().and_then(|caller| caller.subject.as_ref());
                    of.is_some_and(|of| of.value == *subject)
                })?;
            }
            if scan.begun.is_empty() {
                return Err(EraseError::NotFound(vec![subject.clone()]));
            }
        }
        EraseTarget::Exchanges(exchanges) => {
            let wanted: BTreeSet<&ExchangeId> = exchanges.iter().collect();
            let earliest = wanted.iter().filter_map(|id| exchange_id::time_us(id)).min();
            // First where the ids' time says that they are, then everywhere.
            for since in [earliest.map(|time| time.saturating_sub(SLACK_US)), None] {
                for origin in logs.iter().rev() {
                    if wanted.iter().all(|id| scan.is_whole(id)) {
                        break;
                    }
                    scan.log(inner, origin, since, &mut |glance| {
                        glance.exchange.as_ref().is_some_and(|id| wanted.contains(id))
                    })?;
                }
            }
            let missing: Vec<_> = wanted.iter().filter(|id| !scan.begun.contains_key(**id)).collect();
            if !missing.is_empty() {
                let missing = missing.into_iter().filter_map(|id| Identifier::new(id.as_str()).ok());
                return Err(EraseError::NotFound(missing.collect()));
            }
        }
    }
    scan.into_targets()
}

/// All exchanges whose content is under one of `keys`.
pub(super) fn users(inner: &Inner, keys: &BTreeSet<Identifier>) -> Result<FoundTargets, EraseError> {
    let mut scan = Scan::default();
    let origins: BTreeSet<Origin> =
        keys.iter().filter_map(|id| KeyId::parse(id).ok()).map(|id| id.origin).collect();
    for origin in origins {
        scan.log(inner, &origin, None, &mut |glance| {
            glance.content_key.as_ref().is_some_and(|id| keys.contains(id))
        })?;
    }
    scan.into_targets()
}

#[derive(Default)]
struct Scan {
    begun: HashMap<ExchangeId, Begun>,
    ended: BTreeSet<ExchangeId>,
}

impl Scan {
    fn is_whole(&self, exchange: &ExchangeId) -> bool {
        self.begun.contains_key(exchange) && self.ended.contains(exchange)
    }

    fn log(
        &mut self,
        inner: &Inner,
        origin: &Origin,
        since_us: Option<i64>,
        wanted: &mut dyn FnMut(&Glance) -> bool,
    ) -> Result<(), EraseError> {
        let store = &*inner.settings.store;
        let mut batches: Vec<u64> = store
            .list(origin)
            .map_err(failed)?
            .iter()
            .filter(|name| matches!(name, ObjectName::Seal { .. }))
            .map(ObjectName::batch)
            .collect();
        batches.sort_unstable();
        for batch in batches {
            let name = ObjectName::Seal { origin: origin.clone(), batch };
            // It is listed, or an archiver says that it is there: what cannot be seen may hold what is asked for.
            let Some(note) = store::read_object(store, &name, MAX_SEAL_BYTES).map_err(failed)? else {
                return Err(failed(format!("`{name}` cannot be read in the store now; ask again")));
            };
            // Where to look is all that this decides; the auditor checks the store.
            let sealed = seal::parse_unverified(&note).map_err(failed)?;
            if since_us.is_some_and(|since| sealed.time < since) {
                continue;
            }
            let Some(file) = sealed.file(&FileKind::Records) else { continue };
            let name = ObjectName::parse_file(origin, &file.name).map_err(failed)?;
            let Some(bytes) = store::read_object(store, &name, MAX_RECORDS_BYTES).map_err(failed)? else {
                return Err(failed(format!("`{name}` is not in the store")));
            };
            if Sha256Hex::of(&bytes) != file.sha256 {
                return Err(failed(format!("`{name}` is not what its seal says")));
            }
            let records = files::read_records(&bytes, &Limits::default()).map_err(failed)?;
            for row in records.rows {
                let Ok(glance) = serde_json::from_slice::<Glance>(&row.leaf) else { continue };
                if !matches!(glance.kind.as_str(), "intent" | "refusal" | "outcome") || !wanted(&glance) {
                    continue;
                }
                let Glance { kind, at, exchange: Some(exchange), content_key: key, caller } = glance else {
                    continue;
                };
                if kind != "outcome" {
                    let (subject, consumer) = caller.map_or((None, None), |c| (c.subject, c.consumer));
                    let value = |of: Option<Attributed>| of.map(|of| of.value);
                    let facts = Facts { subject: value(subject), consumer: value(consumer), at };
                    let (origin, position) = (origin.clone(), row.position);
                    let is_intent = kind == "intent";
                    self.begun.insert(exchange.clone(), Begun { origin, position, key, is_intent, facts });
                }
                if kind != "intent" {
                    self.ended.insert(exchange);
                }
            }
        }
        Ok(())
    }

    fn into_targets(self) -> Result<FoundTargets, EraseError> {
        let mut found = FoundTargets::default();
        let mut open = Vec::new();
        for (exchange, Begun { origin, position, key, is_intent, facts }) in self.begun {
            if is_intent && !self.ended.contains(&exchange) {
                open.push(exchange);
                continue;
            }
            match key {
                Some(content_key) => {
                    found.facts.insert(exchange.clone(), facts);
                    found.targets.push(Erased { exchange, origin, position, content_key });
                }
                None => found.without_content.push(exchange),
            }
        }
        if open.is_empty() { Ok(found) } else { Err(EraseError::Open(open)) }
    }
}
