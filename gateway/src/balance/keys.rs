//! The keys of a provider: requests go round them, and one that the provider does not take now is left alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::meters::Meters;
use super::upstream::UpstreamSpec;
use crate::config::CoolDown;

/// The longest that a `Retry-After` is taken at its word.
const MOST: Duration = Duration::from_secs(3600);

/// Why a key is left alone, as labels.
const LIMITED: &str = "limited";
const REFUSED: &str = "refused";

/// A provider's keys in their order; one without a name where it has a single `credential`, or none.
#[derive(Debug)]
pub struct KeyRing {
    provider: String,
    names: Vec<String>,
    /// SHA-256 of each: a key that was changed is another one.
    marks: Vec<[u8; 32]>,
    cool_down: CoolDown,
    meters: Meters,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    next: usize,
    /// Until when each is left alone.
    until: Vec<Option<Instant>>,
}

impl KeyRing {
    /// The keys of `spec`, whose `secrets` stand in their order. What is known of keys of `before` that are the same
    /// goes on.
    pub fn new(spec: &UpstreamSpec<'_>, secrets: &[&str], meters: &Meters, before: Option<&Self>) -> Self {
        let names: Vec<String> = match spec.keys {
            [] => vec![String::new()],
            keys => keys.iter().map(|key| key.name.as_str().to_owned()).collect(),
        };
        let mark = |index: usize| Sha256::digest(secrets.get(index).unwrap_or(&"").as_bytes()).into();
        let marks: Vec<[u8; 32]> = (0..names.len()).map(mark).collect();
        let known = |mark: &[u8; 32]| {
            let before = before?;
            let index = before.marks.iter().position(|old| old == mark)?;
            before.held().until.get(index).copied().flatten()
        };
        let until = marks.iter().map(known).collect();
        let provider = spec.name.as_str().to_owned();
        for (name, reason) in names.iter().flat_map(|name| [LIMITED, REFUSED].map(|reason| (name, reason))) {
            meters.cooled(&provider, name, reason, 0);
        }
        let held = Mutex::new(Held { next: 0, until });
        Self { provider, names, marks, cool_down: spec.cool_down.clone(), meters: meters.clone(), held }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a key; `None` where the provider has but one.
    pub fn name(&self, key: usize) -> Option<&str> {
        self.names.get(key).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Whether some key may be used.
    pub fn is_free(&self, now: Instant) -> bool {
        self.held().until.iter().any(|until| is_over(*until, now))
    }

    /// The next key that may be used; where all are left alone, the one that may be used first.
    pub fn take(&self, now: Instant) -> usize {
        let mut held = self.held();
        let count = held.until.len();
        let from = held.next;
        let free = (0..count)
            .map(|step| (from + step) % count)
            .find(|key| held.until.get(*key).is_some_and(|until| is_over(*until, now)));
        if let Some(key) = free {
            held.next = (key + 1) % count;
            return key;
        }
        (0..count).min_by_key(|key| held.until.get(*key).copied().flatten()).unwrap_or(0)
    }

    /// Whether the provider says with `status` that it does not take a key, as the configuration has it.
    pub fn refuses(&self, status: u16) -> bool {
        status != 429 && self.cool_down.statuses.has(status)
    }

    /// Notes what the provider answered under `key`; true where it is left alone for that.
    pub fn answered(&self, key: usize, status: u16, retry_after: Option<Duration>, now: Instant) -> bool {
        let (pause, reason) = if status == 429 {
            (retry_after.unwrap_or(self.cool_down.limited).min(MOST), LIMITED)
        } else if self.refuses(status) {
            (self.cool_down.refused, REFUSED)
        } else {
            return false;
        };
        let Some(to) = now.checked_add(pause) else { return false };
        let mut held = self.held();
        let Some(until) = held.until.get_mut(key) else { return false };
        let begins = is_over(*until, now);
        *until = Some(until.map_or(to, |until| until.max(to)));
        drop(held);
        if begins && !pause.is_zero() {
            let name = self.names.get(key).map_or("", String::as_str);
            self.meters.cooled(&self.provider, name, reason, 1);
            let (provider, seconds) = (&self.provider, pause.as_secs());
            tracing::warn!(provider, key = name, reason, status, seconds, "a provider's key is left alone");
        }
        !pause.is_zero()
    }
}

fn is_over(until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| until <= now)
}
