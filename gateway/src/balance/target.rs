//! One target of a route: what became of its last requests, and whether it is in order.
//!
//! ```text
//! healthy -- enough failures --> ejected -- its time is over --> half open -- a success --> healthy
//!                                   ^---------- a failure (twice the time) -----'
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::Identifier;

use super::Report;
use super::meters::{ByState, ByTarget, Meters};
use super::upstream::Upstream;
use crate::config::Passive;

/// The states of a target, as labels.
pub(super) const STATES: [&str; 4] = ["healthy", "ejected", "half_open", "cooling"];

/// A target as the configuration says it.
#[derive(Debug, Clone)]
pub struct TargetSpec {
    /// Its name, one in its route.
    pub name: Identifier,
    /// Its provider.
    pub upstream: Arc<Upstream>,
    /// How often it is picked, beside the others of its priority; 0: only where no other target can be.
    pub weight: u64,
    /// 0 comes first.
    pub priority: u64,
}

/// A target with what is known of it. Clones know the same.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) spec: TargetSpec,
    route: String,
    meters: Meters,
    live: Arc<Mutex<Live>>,
}

#[derive(Debug)]
struct Live {
    phase: Phase,
    /// Ejections without a recovery between them.
    streak: u32,
    window: Window,
    latency: Estimate,
    errors: Estimate,
    in_flight: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy,
    Ejected { until: Instant },
    HalfOpen { trying: u32 },
}

/// How a request came to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As usual.
    Plain,
    /// It shows whether an ejected target is back.
    Trial,
    /// Nothing was in order.
    Panic,
}

impl Target {
    pub(super) fn new(route: &str, spec: &TargetSpec, meters: &Meters, before: Option<&Self>) -> Self {
        let same =
            before.filter(|old| old.spec.name == spec.name && old.spec.upstream.name == spec.upstream.name);
        let live = same.map_or_else(|| Arc::new(Mutex::new(Live::new())), |old| Arc::clone(&old.live));
        if spec.upstream.passive.is_none() {
            // Nothing would bring it back.
            live.lock().unwrap_or_else(PoisonError::into_inner).phase = Phase::Healthy;
        }
        let target = Self { spec: spec.clone(), route: route.to_owned(), meters: meters.clone(), live };
        for family in [&meters.picks, &meters.ejections, &meters.recoveries] {
            family.get_or_create(&target.label()).inc_by(0);
        }
        target
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn label(&self) -> ByTarget {
        ByTarget { route: self.route.clone(), target: self.spec.name.as_str().to_owned() }
    }

    fn passive(&self) -> Option<&Passive> {
        self.spec.upstream.passive.as_ref()
    }

    /// How a request may go to it now; `None` where none may.
    pub(super) fn admits(&self, now: Instant) -> Option<Mode> {
        let upstream = &self.spec.upstream;
        if !upstream.probed.is_healthy() || !upstream.keys.is_free(now) {
            return None;
        }
        let places = self.passive().map_or(1, |passive| passive.half_open);
        match self.live().phase {
            Phase::Healthy => Some(Mode::Plain),
            Phase::Ejected { until } => (until <= now).then_some(Mode::Trial),
            Phase::HalfOpen { trying } => (trying < places).then_some(Mode::Trial),
        }
    }

    /// Takes a request. Where a place for a trial went to another one meanwhile it is none.
    pub(super) fn take(&self, mode: Mode, now: Instant) -> bool {
        let places = self.passive().map_or(1, |passive| passive.half_open);
        let mut live = self.live();
        if mode == Mode::Trial {
            let trying = match live.phase {
                Phase::Ejected { until } if until <= now => 0,
                Phase::HalfOpen { trying } if trying < places => trying,
                // Brought back meanwhile.
                Phase::Healthy => u32::MAX,
                Phase::Ejected { .. } | Phase::HalfOpen { .. } => return false,
            };
            if trying < u32::MAX {
                live.phase = Phase::HalfOpen { trying: trying + 1 };
            }
        }
        live.in_flight = live.in_flight.saturating_add(1);
        drop(live);
        self.meters.picks.get_or_create(&self.label()).inc();
        true
    }

    /// A request is over without a verdict: its caller left.
    pub(super) fn left(&self, mode: Mode) {
        let mut live = self.live();
        live.in_flight = live.in_flight.saturating_sub(1);
        live.ends_trial(mode);
    }

    /// A request is over.
    pub(super) fn done(&self, mode: Mode, report: &Report, now: Instant) {
        if report.failure.is_none() && report.status.is_none() {
            return self.left(mode);
        }
        let passive = self.passive();
        let failed = match (report.failure, report.status) {
            (Some(_), _) => true,
            (None, Some(status)) => passive.is_some_and(|passive| passive.statuses.has(status)),
            (None, None) => false,
        };
        let is_error = failed || report.status.is_some_and(|status| status == 429 || status >= 500);
        let mut live = self.live();
        live.in_flight = live.in_flight.saturating_sub(1);
        live.errors.add(f64::from(u8::from(is_error)), now);
        match report.head_latency {
            Some(latency) if !is_error => live.latency.add(latency.as_secs_f64(), now),
            // What fails fast is not fast.
            _ if is_error => live.latency.worsen(now),
            _ => {}
        }
        live.ends_trial(mode);
        let Some(passive) = passive else { return };
        let change = match (live.phase, mode, failed) {
            (Phase::Healthy, _, _) => {
                let (failures, all) = live.window.add(1, u32::from(failed), passive.within, now);
                (failed && is_too_much(passive, failures, all)).then_some(false)
            }
            (Phase::HalfOpen { .. }, Mode::Trial, true) => Some(false),
            (_, Mode::Panic, false) | (Phase::HalfOpen { .. }, Mode::Trial, false) => Some(true),
            // Of a time before it was ejected.
            _ => None,
        };
        match change {
            Some(true) => {
                live.phase = Phase::Healthy;
                (live.streak, live.window) = (0, Window::default());
            }
            Some(false) => live.eject(passive, now),
            None => return,
        }
        let streak = live.streak;
        drop(live);
        self.tell(change == Some(true), streak);
    }

    /// An answer that had begun, and was counted for one, was broken off.
    pub(super) fn broke(&self, now: Instant) {
        let mut live = self.live();
        live.errors.add(1.0, now);
        let Some(passive) = self.passive().filter(|_| live.phase == Phase::Healthy) else { return };
        let (failures, all) = live.window.add(0, 1, passive.within, now);
        if !is_too_much(passive, failures, all) {
            return;
        }
        live.eject(passive, now);
        let streak = live.streak;
        drop(live);
        self.tell(false, streak);
    }

    fn tell(&self, is_back: bool, streak: u32) {
        let (route, target) = (&self.route, self.spec.name.as_str());
        if is_back {
            self.meters.recoveries.get_or_create(&self.label()).inc();
            tracing::info!(route, target, "a target is back");
        } else {
            self.meters.ejections.get_or_create(&self.label()).inc();
            tracing::warn!(route, target, streak, "a target fails and is left alone");
        }
    }

    /// Its state, as a label.
    pub(super) fn state(&self, now: Instant) -> &'static str {
        if !self.spec.upstream.probed.is_healthy() {
            return "ejected";
        }
        match self.live().phase {
            Phase::Ejected { until } if now < until => "ejected",
            Phase::Ejected { .. } | Phase::HalfOpen { .. } => "half_open",
            Phase::Healthy if self.spec.upstream.keys.is_free(now) => "healthy",
            Phase::Healthy => "cooling",
        }
    }

    fn by_state(&self, state: &'static str) -> ByState {
        ByState {
            route: self.route.clone(),
            target: self.spec.name.as_str().to_owned(),
            provider: self.spec.upstream.name.as_str().to_owned(),
            state,
        }
    }

    pub(super) fn measure(&self, now: Instant) {
        let held = self.state(now);
        for state in STATES {
            self.meters.state.get_or_create(&self.by_state(state)).set(i64::from(state == held));
        }
    }

    /// Its state is shown no more.
    pub(super) fn forget(&self) {
        for state in STATES {
            self.meters.state.remove(&self.by_state(state));
        }
    }

    /// Expected seconds to an answer's head, with what is under way; `None` where none came yet.
    pub(super) fn load(&self, now: Instant) -> (Option<f64>, u32) {
        let live = self.live();
        let seconds = live.latency.now(now, LATENCY_FADES);
        (seconds.map(|seconds| seconds * f64::from(live.in_flight.saturating_add(1))), live.in_flight)
    }

    /// The share of its requests that failed lately, in twentieths.
    pub(super) fn error_class(&self, now: Instant) -> u32 {
        let share = self.live().errors.now(now, ERRORS_FADE).unwrap_or(0.0);
        // A share of 0 to 1.
        (share * 20.0).round() as u32
    }
}

/// Whether so many failures of so many requests eject a target.
fn is_too_much(passive: &Passive, failures: u32, all: u32) -> bool {
    failures >= passive.failures && u64::from(failures) * 100 >= u64::from(passive.share) * u64::from(all)
}

/// How long a target is left alone after `streak` ejections without a recovery.
fn ejection(passive: &Passive, streak: u32) -> Duration {
    let doublings = streak.saturating_sub(1).min(20);
    passive.eject_for.saturating_mul(1 << doublings).min(passive.eject_at_most)
}

impl Live {
    fn new() -> Self {
        Self {
            phase: Phase::Healthy,
            streak: 0,
            window: Window::default(),
            latency: Estimate::default(),
            errors: Estimate::default(),
            in_flight: 0,
        }
    }

    fn eject(&mut self, passive: &Passive, now: Instant) {
        self.streak = self.streak.saturating_add(1);
        self.window = Window::default();
        let pause = ejection(passive, self.streak);
        self.phase =
            now.checked_add(pause).map_or(Phase::HalfOpen { trying: 0 }, |until| Phase::Ejected { until });
    }

    fn ends_trial(&mut self, mode: Mode) {
        if let (Mode::Trial, Phase::HalfOpen { trying }) = (mode, self.phase) {
            self.phase = Phase::HalfOpen { trying: trying.saturating_sub(1) };
        }
    }
}

const SLOTS: usize = 8;

/// Requests, and failures among them, of the last while: in eighths, so that what is older never counts.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    last: u64,
    slots: [(u32, u32); SLOTS],
}

impl Window {
    /// Adds requests, and failures among them or among earlier ones; gives failures and requests of the last `within`.
    fn add(&mut self, requests: u32, failed: u32, within: Duration, now: Instant) -> (u32, u32) {
        let began = *self.began.get_or_insert(now);
        let slot = (within / SLOTS as u32).max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(began).as_millis() / slot.as_millis();
        let at = u64::try_from(passed).unwrap_or(u64::MAX).max(self.last);
        let empty = (at - self.last).min(SLOTS as u64);
        for step in 1..=empty {
            self.slots[((self.last.wrapping_add(step)) % SLOTS as u64) as usize] = (0, 0);
        }
        if empty == SLOTS as u64 {
            self.slots = Default::default();
        }
        self.last = at;
        let (failures, all) = &mut self.slots[(at % SLOTS as u64) as usize];
        *failures = failures.saturating_add(failed);
        *all = all.saturating_add(requests);
        let sum = |(failures, all): (u32, u32), slot: &(u32, u32)| {
            (failures.saturating_add(slot.0), all.saturating_add(slot.1))
        };
        self.slots.iter().fold((0, 0), sum)
    }
}

/// Half of what is known of a latency is forgotten in this time without a new one: a target that was slow is tried again.
const LATENCY_FADES: Duration = Duration::from_secs(10);
/// The same of errors.
const ERRORS_FADE: Duration = Duration::from_secs(30);
/// How much the newest counts.
const NEWEST: f64 = 0.3;
/// The longest latency that is believed, in seconds.
const SLOWEST: f64 = 600.0;

/// A moving average that fades while nothing comes.
#[derive(Debug, Default)]
struct Estimate {
    value: Option<f64>,
    at: Option<Instant>,
}

impl Estimate {
    fn add(&mut self, value: f64, now: Instant) {
        let value = value.clamp(0.0, SLOWEST);
        let old = self.value.unwrap_or(value);
        self.value = Some(old + (value - old) * NEWEST);
        self.at = Some(now);
    }

    /// Twice as bad; a second where nothing is known.
    fn worsen(&mut self, now: Instant) {
        self.value = Some((self.value.unwrap_or(0.5) * 2.0).clamp(0.1, SLOWEST));
        self.at = Some(now);
    }

    fn now(&self, now: Instant, half: Duration) -> Option<f64> {
        let (value, at) = self.value.zip(self.at)?;
        let passed = now.saturating_duration_since(at).as_secs_f64() / half.as_secs_f64();
        Some(value * 0.5_f64.powf(passed))
    }
}
