//! A client that remembers what it was told is durable, and holds the store to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use evidence::{KeyScope, Ledger};
use schemas::ExchangeId;
use schemas::record::{Body, End, PartName};

use super::{Content, LogView, begin, end, noise};

/// What a client knows: what it was told is durable.
#[derive(Default)]
pub struct Client {
    pub intents: BTreeMap<ExchangeId, Bytes>,
    pub outcomes: BTreeMap<ExchangeId, Bytes>,
    /// What it was given of answers that did not end.
    pub partial: BTreeMap<ExchangeId, Bytes>,
}

impl Client {
    /// One whole exchange; whether its end was acknowledged.
    pub async fn whole(&mut self, ledger: &Ledger, n: u64, request: usize, answer: usize) -> bool {
        let (request, answer) = (noise(n, request), noise(n + 500, answer));
        let Ok(open) = begin(ledger, KeyScope::PerExchange, &request).await else { return false };
        let id = open.exchange().clone();
        self.intents.insert(id.clone(), request.into());
        let done = end(open, &answer).await.is_ok();
        if done {
            self.outcomes.insert(id, answer.into());
        }
        done
    }

    /// Everything that was acknowledged is in the store, and nothing else is.
    pub fn check(&self, logs: &[LogView]) {
        let find = |id: &ExchangeId| logs.iter().find(|log| log.intent(id).is_some());
        for (id, request) in &self.intents {
            let log = find(id).unwrap_or_else(|| panic!("the acknowledged intent {id} is lost"));
            assert_eq!(log.content(id, PartName::ClientRequest), Some(&Content::Proven(request.clone())));
        }
        for (id, answer) in &self.outcomes {
            let log = find(id).unwrap_or_else(|| panic!("the acknowledged outcome of {id} is lost"));
            let outcome = log.outcome(id).unwrap_or_else(|| panic!("{id} has no outcome"));
            assert_eq!(outcome.end, End::Complete, "{id}");
            assert_eq!(log.content(id, PartName::ProviderResponse), Some(&Content::Proven(answer.clone())));
        }
        for (id, given) in &self.partial {
            let log = find(id).unwrap();
            let outcome = log.outcome(id).unwrap();
            assert!(matches!(outcome.end, End::Interrupted | End::GatewayAbort));
            if let Some(Content::Proven(found)) = log.content(id, PartName::ProviderResponse) {
                assert!(given.starts_with(found), "{id}: bytes that were never given");
            }
        }
        let mut before: Option<&LogView> = None;
        for log in logs {
            assert_eq!(log.kinds().first(), Some(&"boot"));
            if let (Some(Body::Boot(boot)), Some(before)) = (log.bodies().next(), before) {
                let named = boot
                    .predecessor
                    .as_ref()
                    .unwrap_or_else(|| panic!("{} names no predecessor", log.origin));
                assert_eq!(
                    (&named.origin, named.size, named.root),
                    (&before.origin, Some(before.size), Some(before.root))
                );
            }
            before = Some(log);
            assert_eq!(log.kinds().last(), Some(&"close"), "{}", log.origin);
            for (position, body) in (0..).zip(log.bodies()) {
                if let Body::Intent(intent) = body {
                    let outcome = log
                        .outcome(&intent.exchange)
                        .unwrap_or_else(|| panic!("{} is open", intent.exchange));
                    assert_eq!(outcome.intent_position, position);
                }
            }
        }
    }
}
