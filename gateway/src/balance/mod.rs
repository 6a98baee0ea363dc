//! Which target of a route gets a request, under which key of its provider, and what becomes of targets that fail.
//!
//! - [`Balancer`]: one route's targets; [`Balancer::pick`] gives one, [`Picked::done`] tells what became of it, or
//!   [`Picked::answers`] and [`Answering::ended`], where an answer began
//! - `target`: the state of one target; `choose`: what decides between several
//! - [`Upstream`]: what the targets of one provider share: its [`KeyRing`], what ejects them, what its probes found
//! - `probe`: the gateway's own requests to providers with `health.active`
//! - `semantic`: which target a prompt means, by embeddings; `own`: how such requests are recorded
//!
//! Time comes in: nothing here reads a clock but what asks providers itself. Of an exchange with several attempts each asks anew, with the
//! targets that it had in `excluded`. Where no target is in order all of them are: health checks spread load, they never
//! stop it.

mod choose;
mod keys;
mod meters;
mod own;
pub(crate) mod probe;
pub(crate) mod semantic;
mod sticky;
mod target;
#[cfg(test)]
mod tests;
mod upstream;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dialects::ConversationKey;
use http::HeaderMap;
use schemas::Identifier;

pub use keys::KeyRing;
pub use meters::Meters;
pub use target::TargetSpec;
pub use upstream::{Probed, Seen, Upstream, UpstreamSpec};

use crate::config::{Balance, By, Hashed, Sticky};
use choose::{Candidate, Random, by_hash, by_latency, by_weight, cheapest, nearest, soundest};
use meters::ByRoute;
use sticky::Places;
use target::{Mode, Target};

/// What is known of a request that needs a target.
#[derive(Clone, Copy)]
pub struct Pick<'a> {
    /// What [`Balancer::hash_value`] gave, for `by: hash`.
    pub hash: Option<&'a [u8]>,
    /// The conversation that it belongs to, where [`Balancer::wants_conversation`].
    pub conversation: Option<ConversationKey>,
    /// Indices of targets that cannot have it: they had it already, or their quota is spent.
    pub excluded: &'a [usize],
    /// The price of what it asks at the target of that index, for `by: cost`.
    pub price: Option<&'a dyn Fn(usize) -> Option<f64>>,
    /// What its prompt means, for `by: semantic`.
    pub meant: Option<Meant<'a>>,
    /// The time.
    pub now: Instant,
}

impl Pick<'_> {
    /// A request of which nothing else is known.
    pub fn at(now: Instant) -> Self {
        Self { hash: None, conversation: None, excluded: &[], price: None, meant: None, now }
    }
}

/// What a prompt means.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// How near it is to each target, in millionths; `None`: not near enough.
    pub scores: &'a [Option<i64>],
    /// The target of what is near to none.
    pub fallback: usize,
}

/// What of a request may be hashed.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Who calls.
    pub consumer: Option<&'a str>,
    /// The end user.
    pub subject: Option<&'a str>,
    /// The caller's team.
    pub team: Option<&'a str>,
    /// The model that is asked for.
    pub model: Option<&'a str>,
    /// The conversation that it belongs to.
    pub conversation: Option<ConversationKey>,
}

/// Why no answer came from a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was not reached.
    Connect,
    /// No head came in time.
    Timeout,
    /// It broke off.
    Aborted,
}

/// What became of a request at its target, up to the head of its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Why no answer came.
    pub failure: Option<Failure>,
    /// The answer's status.
    pub status: Option<u16>,
    /// It is not the answer's own status: its body tells of a failure that should have had it.
    pub told: bool,
    /// From the first byte to the target to the head of its answer.
    pub head_latency: Option<Duration>,
    /// What the answer said of when to come again.
    pub retry_after: Option<Duration>,
    /// It went under the caller's own credential: what is said of that is said neither of a key here nor of the target.
    pub forwarded: bool,
}

impl Report {
    /// The status, as far as it can speak of the gateway's key. A 403 in a body is as often said of what was asked: a filter's word
    /// would leave the key alone for all callers.
    fn of_key(&self) -> Option<u16> {
        let speaks = |status| !self.told || matches!(status, 401 | 402 | 429);
        self.status.filter(|status| !self.forwarded && speaks(*status))
    }

    /// Whether it tells of the caller's own credential, and of nothing else.
    fn is_of_the_caller(&self) -> bool {
        self.forwarded && self.status.is_some_and(|status| matches!(status, 401..=403 | 429))
    }
}

/// Spreads the requests of one route over its targets.
#[derive(Debug)]
pub struct Balancer {
    route: Identifier,
    config: Balance,
    targets: Vec<Target>,
    names: Vec<Arc<str>>,
    turn: Mutex<Turn>,
    places: Arc<Places>,
    meters: Meters,
}

#[derive(Debug)]
struct Turn {
    current: Vec<i64>,
    random: Random,
}

impl Balancer {
    /// Makes the balancer of a route. What is known of targets that `before` had too, by name and provider, goes on.
    pub fn new(
        route: &Identifier,
        targets: &[TargetSpec],
        config: &Balance,
        meters: &Meters,
        before: Option<&Self>,
    ) -> Self {
        let old = |name: &Identifier| {
            before?.targets.iter().enumerate().find(|(_, target)| target.spec.name == *name)
        };
        let made = |spec: &TargetSpec| {
            Target::new(route.as_str(), spec, meters, old(&spec.name).map(|(_, target)| target))
        };
        let current = |spec: &TargetSpec| {
            let (index, same) = old(&spec.name)?;
            let turn = before?.turn.lock().unwrap_or_else(PoisonError::into_inner);
            turn.current.get(index).copied().filter(|_| same.spec.weight == spec.weight)
        };
        let current = targets.iter().map(|spec| current(spec).unwrap_or(0)).collect();
        meters.panics.get_or_create(&ByRoute { route: route.as_str().to_owned() }).inc_by(0);
        Self {
            route: route.clone(),
            config: config.clone(),
            targets: targets.iter().map(made).collect(),
            names: targets.iter().map(|spec| Arc::from(spec.name.as_str())).collect(),
            turn: Mutex::new(Turn { current, random: Random::new(RandomState::new().hash_one(0)) }),
            places: before.map_or_else(Arc::default, |before| Arc::clone(&before.places)),
            meters: meters.clone(),
        }
    }

    /// Whether requests need the key of their conversation.
    pub fn wants_conversation(&self) -> bool {
        let hash = self.config.hash.as_ref();
        self.config.sticky == Some(Sticky::Conversation)
            || hash.is_some_and(|hash| hash.0.contains(&Hashed::Conversation))
    }

    /// Whether requests need their price at each target.
    pub fn wants_price(&self) -> bool {
        self.config.by == By::Cost
    }

    /// What is hashed of a request, with `by: hash`; `None` where it does not have it.
    pub fn hash_value(&self, said: &Said<'_>) -> Option<Vec<u8>> {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let value = |of: &Hashed| match of {
            Hashed::Header(name) => said.headers.get(name.as_str()).map(|value| value.as_bytes().to_vec()),
            Hashed::Consumer => bytes(said.consumer),
            Hashed::Subject => bytes(said.subject),
            Hashed::Team => bytes(said.team),
            Hashed::Model => bytes(said.model),
            Hashed::Conversation => said.conversation.map(|key| key.to_vec()),
        };
        match self.config.hash.as_ref()?.0.as_slice() {
            [only] => value(only),
            several => {
                let mut all = Vec::new();
                for of in several {
                    let value = value(of)?;
                    // With their lengths, so that no two requests with other values look alike.
                    all.extend_from_slice(&(value.len() as u64).to_be_bytes());
                    all.extend_from_slice(&value);
                }
                Some(all)
            }
        }
    }

    /// The target that the conversation is at, where that may have a request now.
    pub fn place_of(&self, conversation: ConversationKey, now: Instant) -> Option<usize> {
        self.config.sticky?;
        let name = self.places.of(&conversation)?;
        let at = self.targets.iter().position(|target| target.spec.name.as_str() == &*name)?;
        self.targets.get(at)?.admits(now).map(|_| at)
    }

    /// The target of a request, and the key that it goes under; `None` only where `excluded` leaves none.
    pub fn pick(self: &Arc<Self>, pick: &Pick<'_>) -> Option<Picked> {
        let left = || self.targets.iter().enumerate().filter(|(index, _)| !pick.excluded.contains(index));
        // The only place for a trial may go to another request meanwhile.
        let mut lost = Vec::new();
        loop {
            let open: Vec<(Candidate<'_>, Mode)> = left()
                .filter(|(index, _)| !lost.contains(index))
                .filter_map(|(index, target)| Some(((index, target), target.admits(pick.now)?)))
                .collect();
            let candidates: Vec<Candidate<'_>> = open.iter().map(|(candidate, _)| *candidate).collect();
            let place = self.at_its_place(&candidates, pick);
            let Some(index) = place.or_else(|| self.choose(&open, pick)) else { break };
            let Some(((_, target), mode)) = open.iter().find(|((at, _), _)| *at == index) else { break };
            if target.take(*mode, pick.now) {
                return Some(self.picked(index, target, *mode, pick));
            }
            lost.push(index);
        }
        let all: Vec<(Candidate<'_>, Mode)> = left().map(|candidate| (candidate, Mode::Panic)).collect();
        let index = self.choose(&all, pick)?;
        let target = self.targets.get(index)?;
        target.take(Mode::Panic, pick.now);
        self.meters.panics.get_or_create(&ByRoute { route: self.route.as_str().to_owned() }).inc();
        Some(self.picked(index, target, Mode::Panic, pick))
    }

    fn picked(self: &Arc<Self>, index: usize, target: &Target, mode: Mode, pick: &Pick<'_>) -> Picked {
        if let (Some(conversation), Some(name), true) =
            (pick.conversation, self.names.get(index), self.config.sticky.is_some())
        {
            self.places.put(conversation, name);
        }
        let key = target.spec.upstream.keys.take(pick.now);
        Picked { target: target.clone(), index, key, mode, is_done: false }
    }

    /// The target that the conversation is at, where it may have the request.
    fn at_its_place(&self, candidates: &[Candidate<'_>], pick: &Pick<'_>) -> Option<usize> {
        if !self.wants_conversation() {
            return None;
        }
        let name = self.places.of(&pick.conversation?)?;
        let at = candidates.iter().find(|(_, target)| target.spec.name.as_str() == &*name);
        at.map(|(index, _)| *index)
    }

    /// Keeps a conversation at a target: of a response that the next turn goes on from
    /// ([`dialects::conversation::stored_conversation`] of its id). Also where a hash decides: each response has another id, and
    /// only who made it has it.
    pub fn keep(&self, conversation: ConversationKey, target: usize) {
        if let (Some(name), true) = (self.names.get(target), self.wants_conversation()) {
            self.places.put(conversation, name);
        }
    }

    fn choose(&self, open: &[(Candidate<'_>, Mode)], pick: &Pick<'_>) -> Option<usize> {
        let has_weight = |one: &&(Candidate<'_>, Mode)| spec_of(one).weight > 0;
        let Some(first) = open.iter().filter(has_weight).map(|one| spec_of(one).priority).min() else {
            // Only those are left that weight never picks.
            return open.iter().min_by_key(|one| spec_of(one).priority).map(|((index, _), _)| *index);
        };
        let weighed: Vec<_> =
            open.iter().filter(has_weight).filter(|one| spec_of(one).priority == first).collect();
        // What is estimated of a target that was ejected would keep it from being tried.
        if matches!(self.config.by, By::Latency | By::Errors)
            && let Some(((index, _), _)) = weighed.iter().find(|(_, mode)| *mode == Mode::Trial)
        {
            return Some(*index);
        }
        let mut candidates: Vec<Candidate<'_>> =
            weighed.into_iter().map(|(candidate, _)| *candidate).collect();
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.config.by {
            By::Weight => {}
            By::Hash => {
                if let Some(value) = pick.hash {
                    return by_hash(&candidates, value);
                }
            }
            By::Latency => return by_latency(&candidates, &mut turn.random, pick.now),
            By::Cost => {
                if let Some(price) = pick.price {
                    candidates = cheapest(&candidates, price);
                }
            }
            By::Errors => candidates = soundest(&candidates, pick.now),
            By::Semantic => {
                if let Some(meant) = &pick.meant {
                    let near = nearest(&candidates, meant.scores);
                    if !near.is_empty() {
                        candidates = near;
                    } else if open.iter().any(|((index, _), _)| *index == meant.fallback) {
                        return Some(meant.fallback);
                    }
                }
            }
        }
        by_weight(&candidates, &mut turn.current)
    }

    /// Shows the state of each target.
    pub fn measure(&self, now: Instant) {
        self.targets.iter().for_each(|target| target.measure(now));
    }

    /// Shows no more of those that `next` does not have.
    pub fn gives_way(&self, next: Option<&Self>) {
        let stays = |target: &&Target| {
            let same = |other: &Target| {
                other.spec.name == target.spec.name && other.spec.upstream.name == target.spec.upstream.name
            };
            next.is_some_and(|next| next.targets.iter().any(same))
        };
        self.targets.iter().filter(|target| !stays(target)).for_each(Target::forget);
    }
}

fn spec_of<'a>(one: &'a (Candidate<'_>, Mode)) -> &'a TargetSpec {
    &one.0.1.spec
}

/// A request's target. Dropped without [`Picked::done`] it says nothing of the target: its caller left.
#[derive(Debug)]
pub struct Picked {
    target: Target,
    index: usize,
    key: usize,
    mode: Mode,
    is_done: bool,
}

impl Picked {
    /// Which of the targets that the balancer was made of.
    pub fn target(&self) -> usize {
        self.index
    }

    /// Which of the provider's keys; 0 where it has but one.
    pub fn key(&self) -> usize {
        self.key
    }

    /// The key's name in the configuration, where the provider has several.
    pub fn key_name(&self) -> Option<&str> {
        self.target.spec.upstream.keys.name(self.key)
    }

    /// Whether no target was in order.
    pub fn in_panic(&self) -> bool {
        self.mode == Mode::Panic
    }

    /// Whether its provider says by it that it does not take the key.
    pub fn is_refused(&self, report: &Report) -> bool {
        report.of_key().is_some_and(|status| self.target.spec.upstream.keys.refuses(status))
    }

    /// Tells that an answer began, as `report` says; how it ends is told later. Whether an ejected target is back is seen only then.
    pub fn answers(mut self, report: &Report, now: Instant) -> Answering {
        if self.mode == Mode::Plain {
            self.is_done = true;
            self.target.done(self.mode, report, now);
        }
        Answering { picked: self, report: *report }
    }

    /// It was sent under a token that is of no use any more, which says nothing of key and target. True: there is another one.
    pub fn stale(mut self) -> bool {
        self.is_done = true;
        self.target.left(self.mode);
        true
    }

    /// Tells what became of it, when no answer will come. True where it was said of its key, which is left alone now, and the provider
    /// has another one that may be used in its place.
    pub fn done(mut self, report: &Report, now: Instant) -> bool {
        self.is_done = true;
        if report.is_of_the_caller() {
            self.target.left(self.mode);
            return false;
        }
        let keys = &self.target.spec.upstream.keys;
        let is_of_key =
            report.of_key().is_some_and(|status| keys.answered(self.key, status, report.retry_after, now));
        self.target.done(self.mode, report, now);
        is_of_key && keys.is_free(now)
    }
}

/// A request whose answer is under way. Dropped without [`Answering::ended`] its end says nothing of the target: its caller left.
#[derive(Debug)]
pub struct Answering {
    picked: Picked,
    report: Report,
}

impl Answering {
    /// The answer came whole, or it is a `failure` of the target's that it did not.
    pub fn ended(self, failure: Option<Failure>, now: Instant) {
        let Self { mut picked, report } = self;
        if picked.is_done {
            if failure.is_some() {
                picked.target.broke(now);
            }
            return;
        }
        picked.is_done = true;
        picked.target.done(picked.mode, &Report { failure, ..report }, now);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if !self.is_done {
            self.target.left(self.mode);
        }
    }
}
