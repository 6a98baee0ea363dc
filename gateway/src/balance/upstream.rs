//! What all targets of one provider share: its keys, what ejects them, and what its probes found.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::Identifier;

use super::keys::KeyRing;
use super::meters::Meters;
use crate::config::{self, Active, Passive};

/// What a probe may find, as labels.
const RESULTS: [&str; 6] = ["healthy", "unhealthy", "timeout", "neither", "denied", "unrecorded"];

/// What of a provider's configuration its targets share.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamSpec<'a> {
    /// Its name.
    pub name: &'a Identifier,
    /// Where it is.
    pub base_url: &'a config::BaseUrl,
    /// Its keys; empty where it has but one, or none.
    pub keys: &'a [config::ProviderKey],
    /// How long a key is left alone.
    pub cool_down: &'a config::CoolDown,
    /// When it is left alone.
    pub health: Option<&'a config::Health>,
}

impl<'a> From<&'a config::Provider> for UpstreamSpec<'a> {
    fn from(typed: &'a config::Provider) -> Self {
        let config::Provider { name, base_url, keys, cool_down, health, .. } = typed;
        Self { name, base_url, keys, cool_down, health: health.as_ref() }
    }
}

/// One provider, as its targets see it.
#[derive(Debug)]
pub struct Upstream {
    /// The provider's name.
    pub name: Identifier,
    /// Its keys.
    pub keys: Arc<KeyRing>,
    /// What ejects a target of it; `None`: nothing does.
    pub passive: Option<Passive>,
    /// What its probes found.
    pub probed: Arc<Probed>,
}

impl Upstream {
    /// The provider `spec`, with its keys' `secrets` in their order. What is known of `before` goes on.
    pub fn new(spec: &UpstreamSpec<'_>, secrets: &[&str], meters: &Meters, before: Option<&Self>) -> Self {
        let health = spec.health;
        let active = health.and_then(|health| health.active.as_ref());
        let asked = active.map(|active| (spec.base_url.clone(), active.clone()));
        let probed = match before {
            Some(old) if old.probed.asked == asked => Arc::clone(&old.probed),
            _ => Arc::new(Probed::new(asked)),
        };
        if active.is_some() {
            RESULTS.into_iter().for_each(|result| meters.probed(spec.name.as_str(), result, 0));
        }
        Self {
            name: spec.name.clone(),
            keys: Arc::new(KeyRing::new(spec, secrets, meters, before.map(|old| &*old.keys))),
            passive: health.and_then(|health| health.passive.clone()),
            probed,
        }
    }
}

/// What one probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A whole answer.
    Status(u16),
    /// None: not reached, or broken off.
    Failed,
    /// None in time.
    Timeout,
    /// It was not sent: the policy denies it.
    Denied,
    /// It was not sent: it could not be recorded.
    Unrecorded,
}

/// What the probes of a provider found; in order until they say otherwise.
#[derive(Debug)]
pub struct Probed {
    /// What they ask, and where.
    asked: Option<(config::BaseUrl, Active)>,
    is_unhealthy: AtomicBool,
    counts: Mutex<Counts>,
}

/// In a row.
#[derive(Debug, Default)]
struct Counts {
    successes: u32,
    failures: u32,
    timeouts: u32,
}

impl Probed {
    fn new(asked: Option<(config::BaseUrl, Active)>) -> Self {
        Self { asked, is_unhealthy: AtomicBool::new(false), counts: Mutex::default() }
    }

    /// What they ask; `None` where there are none.
    pub fn active(&self) -> Option<&Active> {
        self.asked.as_ref().map(|(_, active)| active)
    }

    /// Whether the provider is in order, as far as its probes say.
    pub fn is_healthy(&self) -> bool {
        !self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// Takes what a probe saw; gives it as a label, and whether the provider is now in order where that changed.
    pub fn saw(&self, seen: Seen) -> (&'static str, Option<bool>) {
        let Some(active) = self.active() else { return ("neither", None) };
        let (healthy, unhealthy) = (&active.healthy, &active.unhealthy);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match seen {
            Seen::Denied => return ("denied", None),
            Seen::Unrecorded => return ("unrecorded", None),
            Seen::Status(status) if unhealthy.statuses.has(status) => "unhealthy",
            Seen::Status(status) if healthy.statuses.has(status) => "healthy",
            Seen::Status(_) => return ("neither", None),
            Seen::Failed => "unhealthy",
            Seen::Timeout => "timeout",
        };
        let count = |count: u32, grows: bool| if grows { count.saturating_add(1) } else { 0 };
        let bad = result != "healthy";
        *counts = Counts {
            successes: count(counts.successes, !bad),
            failures: if bad { counts.failures.saturating_add(u32::from(result == "unhealthy")) } else { 0 },
            timeouts: if bad { counts.timeouts.saturating_add(u32::from(result == "timeout")) } else { 0 },
        };
        let ejects = counts.failures >= unhealthy.failures || counts.timeouts >= unhealthy.timeouts;
        let change = match (self.is_healthy(), ejects, counts.successes >= healthy.successes) {
            (true, true, _) => Some(false),
            (false, _, true) => Some(true),
            _ => None,
        };
        if let Some(is_healthy) = change {
            self.is_unhealthy.store(!is_healthy, Ordering::Relaxed);
            *counts = Counts::default();
        }
        (result, change)
    }
}
