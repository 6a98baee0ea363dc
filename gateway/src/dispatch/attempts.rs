//! Asks one target after the other until one answers, as long as the caller got nothing.
//!
//! A failure before the first byte to the caller is not visible to it while the route has a target left, an attempt, and
//! budget; behind that byte nothing is asked again. Each attempt is made anew from the request as it came. Before bytes go to
//! a further target its `attempt` record is durable (CA-1).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialects::coding::{Caps, codings, decode_all};
use dialects::failure::{MAX_ERROR, is_of_the_request};
use dialects::{FailureClass, Operation, failure_class};
use http::Response;
use schemas::record::{AttemptNumber, End, Verdict};
use schemas::{ExchangeId, Identifier};

use super::budget::Repeat;
use super::failure::{Failure, Why};
use super::forward::Forwarded;
use super::original::{Original, Prepared};
use super::pool::StaleToken;
use super::retry_after::retry_after;
use super::spread::Spread;
use super::target::{Bounds, Target};
use super::{NoAnswer, send};
use crate::app::{App, Snapshot};
use crate::balance::{Picked, Report};
use crate::config::{MAX_ATTEMPTS, On};
use crate::otlp;
use crate::quotas::{self, Reservation, Stage};
use crate::record;
use crate::relay::Flow;
use crate::relay::ahead::Ahead;
use crate::relay::answer::{Answer, Began, Extent, Room};
use crate::relay::back::{self, Way};
use crate::relay::live::Live;
use crate::relay::translation::Translation;
use crate::relay::tries::{Failed, Opening, Spent};
use crate::respond::Reason;
use crate::route::Route;

/// How long a failed answer is read for what it says.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// The most of a failed answer that is kept.
const MOST_KEPT: usize = 256 << 10;

/// The longest time that a provider may ask to be left alone and that is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all attempts of an exchange share.
pub(crate) struct Plan {
    pub(crate) original: Original,
    pub(crate) route: Arc<Route>,
    /// Targets that this request must not go to, by their place.
    pub(crate) denied: Vec<usize>,
    /// What the policy says of each target.
    pub(crate) verdicts: Vec<Option<Verdict>>,
    /// The caller takes trailers.
    pub(crate) trailers: bool,
    pub(crate) spread: Spread,
    /// The caller's own credential, where it goes to the provider.
    pub(crate) forwarded: Option<Forwarded>,
}

/// What was tried of an exchange so far.
struct Tries {
    number: u64,
    /// The body that was sent first, where it was not the caller's.
    first: Option<Bytes>,
    /// Why the running one is made.
    reason: &'static str,
    failed: Vec<usize>,
    /// Targets that nothing can be sent to, or that would fail as they did.
    unfit: Vec<usize>,
    /// Until when a target asked to be left alone.
    held: Vec<(usize, Instant)>,
    /// How often a target was asked again.
    again: u32,
    /// How often it was asked again at once, under another key.
    keys: u64,
    /// The providers that refused a key of theirs with 403.
    forbidden_by: Vec<Identifier>,
}

impl Tries {
    /// How many of those that `attempts` bounds were made: what a key was refused for is none of the target's.
    fn counted(&self) -> u64 {
        (self.number + 1).saturating_sub(self.keys)
    }
}

/// The next attempt.
struct Next {
    picked: Picked,
    prepared: Prepared,
    /// What it has reserved of its target's quotas.
    reservation: Option<Reservation>,
    reason: &'static str,
    wait: Duration,
    /// What it takes of the route's budget, where its target failed before.
    repeat: Option<Repeat>,
}

/// Asks `first`, and further targets where it fails, and gives the caller its answer.
pub(crate) async fn run(
    app: &Arc<App>,
    snapshot: &Arc<Snapshot>,
    mut live: Live,
    plan: Plan,
    first: (Picked, Prepared),
) -> Response<Flow> {
    let route = Arc::clone(&plan.route);
    route.budget.request();
    let (mut picked, mut prepared) = first;
    let mut tries = Tries {
        number: 0,
        first: prepared.changed.clone(),
        reason: "first",
        failed: Vec::new(),
        unfit: Vec::new(),
        held: Vec::new(),
        again: 0,
        keys: 0,
        forbidden_by: Vec::new(),
    };
    let mut kept: Option<(Answer, Option<Translation>)> = None;
    loop {
        let Some(target) = route.targets.get(picked.target()).map(Arc::clone) else {
            return back::no_answer(app, live, broken()).await;
        };
        let more = plan.may_repeat(&tries);
        let tried = plan.ask(snapshot, &mut live, (&target, &picked), &prepared, more).await;
        let reason = tries.reason;
        let told =
            |result| app.telemetry.attempted(route.name.as_str(), target.name.as_str(), reason, result);
        let head_latency = live.open().and_then(|open| open.intended.clock.head_latency());
        let forwarded = plan.forwarded.is_some();
        let mut failure = match tried {
            Ok(answer) => {
                told("answered");
                let status = Some(answer.head.status.as_u16());
                let report = Report { status, head_latency, forwarded, ..Report::default() };
                let answering = picked.answers(&report, Instant::now());
                if let Some(open) = live.open() {
                    open.answering = Some(answering);
                }
                let way = plan.way(&prepared);
                // Body and memory are given back before the answer's end is waited for.
                drop(plan);
                return back::relay(app, live, answer, way).await;
            }
            Err(failure) => failure,
        };
        let place = picked.target();
        let spoken = plan.original.spoken(&prepared);
        // What a second key of a provider is refused for too is the request's: one caller does not have all keys left alone.
        let is_403 = failure.why == Why::Status(403);
        let is_second = tries.forbidden_by.contains(&target.provider.name);
        let is_of_request =
            is_403 && (is_second || plan.is_of_request(&mut live, &mut failure, spoken).await);
        if is_403 && !is_of_request {
            tries.forbidden_by.push(target.provider.name.clone());
        }
        let report = Report {
            status: failure.counted_status(),
            told: !matches!(failure.why, Why::Status(_)),
            failure: failure.of_target(),
            head_latency,
            retry_after: failure.retry_after,
            forwarded,
        };
        // Another target may be under another account.
        failure.is_refused = picked.is_refused(&report);
        // It says nothing of the next token, which is free: the request goes there again under that one.
        let is_stale =
            failure.answer.as_ref().is_some_and(|it| it.head.extensions.get::<StaleToken>().is_some());
        let report = Report { told: report.told || is_of_request, ..report };
        let has_key = if is_stale { picked.stale() } else { picked.done(&report, Instant::now()) };
        let hold = failure.retry_after.filter(|_| !has_key);
        tries.held.extend(hold.map(|hold| (place, Instant::now() + hold)));
        if more && plan.has_place(&tries) {
            plan.says(&mut live, &mut failure, spoken).await;
        }
        told(failure.name());
        if !has_key {
            let may_pass = failure.may_pass(&route.retry.on);
            if may_pass { tries.failed.push(place) } else { tries.unfit.push(place) }
        }
        let next = if plan.may_follow(&tries, &failure, has_key) {
            tries.keys += u64::from(has_key);
            let failed = (&target, place, has_key);
            plan.next(app, snapshot, &mut live, &mut tries, (&mut failure, spoken), failed).await
        } else {
            None
        };
        let next = match next {
            Some((next, request)) => plan.opens(&mut live, (&tries, &failure, &target), next, request).await,
            None => Err(None),
        };
        let next = match next {
            Ok(next) => next,
            Err(unsent) => {
                let way = plan.way(&prepared);
                if let Some(no_answer) = unsent {
                    // The outcome tells of the one that nothing was sent to: what came is another one's.
                    kept =
                        failure.whole_answer().map(|answer| (answer, prepared.translation.clone())).or(kept);
                    failure = Failure::new(Why::Aborted, no_answer, Duration::ZERO);
                }
                drop(plan);
                return give_up(app, live, failure, kept, way).await;
            }
        };
        if let Some(repeat) = next.repeat {
            repeat.sent();
        }
        if let Some(open) = live.open() {
            open.intended.of_target = next.reservation;
        }
        tries.number += 1;
        tries.reason = next.reason;
        kept = failure.whole_answer().map(|answer| (answer, prepared.translation.clone())).or(kept);
        (picked, prepared) = (next.picked, next.prepared);
    }
}

/// The caller gets what came last: the answer, else the last whole one of an earlier attempt, else the gateway's own.
async fn give_up(
    app: &Arc<App>,
    live: Live,
    failure: Failure,
    kept: Option<(Answer, Option<Translation>)>,
    way: Way,
) -> Response<Flow> {
    let (is_answer, is_unfit) = (failure.is_answer(), failure.is_unfit);
    let spoken = way.translation.as_ref().map(|translation| translation.operation);
    match (failure.answer, kept) {
        (Some(answer), _) if is_answer => back::relay(app, live, answer, way).await,
        (came, Some(kept)) => back::earlier(app, live, (failure.no_answer, came, spoken), kept).await,
        (Some(came), None) if is_unfit => back::unfit(app, live, failure.no_answer, (came, spoken)).await,
        (Some(answer), None) => back::relay(app, live, answer, way).await,
        (None, None) => back::no_answer(app, live, failure.no_answer).await,
    }
}

/// What is recorded of an attempt that failed, of whose answer this `came`.
fn ended<'a>(
    number: u64,
    failure: &Failure,
    target: &'a Arc<Target>,
    came: Option<&'a Answer>,
    spent: &'a Spent,
) -> Failed<'a> {
    let end = match failure.why {
        Why::Connect => End::Unreachable,
        Why::Timeout => End::Timeout,
        Why::Aborted => End::ProviderAbort,
        Why::Exceeds => End::GatewayAbort,
        Why::Status(_) | Why::Event(_) | Why::Said(_) => match failure.extent {
            Extent::Whole => End::Complete,
            Extent::Part => End::GatewayAbort,
            Extent::Broken => End::ProviderAbort,
        },
    };
    Failed { number, why: failure.word(), target, end, answer: came, spent, took: failure.took }
}

/// What an error says, decoded; `None` where that cannot be.
async fn error_text(answer: &mut Answer) -> Option<Vec<u8>> {
    answer.read(MAX_ERROR, READ_WITHIN).await;
    let bytes = answer.bytes();
    let codings = codings(&answer.head.headers).ok()?;
    if codings.is_empty() {
        return Some(bytes.to_vec());
    }
    let caps = Caps { bytes: MAX_ERROR as u64 * 16, ..Caps::default() };
    decode_all(&codings, &bytes, caps).ok().map(|plain| plain.to_vec())
}

fn unrecorded(exchange: &ExchangeId, error: &str) {
    tracing::warn!(%exchange, %error, "no further target is asked: it could not be recorded");
}

fn broken() -> NoAnswer {
    NoAnswer { reason: Reason::ProviderUnreachable, text: "the route has no such target".into() }
}

impl Plan {
    fn way(&self, prepared: &Prepared) -> Way {
        Way {
            method: self.original.method.clone(),
            stripping: prepared.stripping,
            trailers: self.trailers,
            translation: prepared.translation.clone(),
        }
    }

    /// Whether another attempt may follow the running one, whatever comes of it.
    fn may_repeat(&self, tries: &Tries) -> bool {
        tries.counted() < self.route.retry.attempts && self.original.is_repeatable()
    }

    /// Sends to `target` and reads as much of the answer as it takes to tell whether it is one. Only where `more` may follow
    /// the head waits for what is behind it.
    async fn ask(
        &self,
        snapshot: &Snapshot,
        live: &mut Live,
        (target, picked): (&Arc<Target>, &Picked),
        prepared: &Prepared,
        more: bool,
    ) -> Result<Answer, Failure> {
        let key = picked.key();
        let began = Instant::now();
        let failed = |why, no_answer| Failure::new(why, no_answer, began.elapsed());
        let mut outgoing =
            match self.original.outgoing(prepared, target.under(key), self.forwarded.clone()).await {
                Ok(outgoing) => outgoing,
                Err(reason) => {
                    let text = "the request's body could not be read back".to_owned();
                    return Err(failed(Why::Aborted, NoAnswer { reason, text }));
                }
            };
        if let Some(open) = live.open() {
            open.asks(target, picked.target(), prepared.model.as_deref(), prepared.recorded());
            open.keeps(|estimates| self.original.kept(prepared, estimates));
            let ours = open.intended.trace.as_ref().zip(snapshot.otlp.as_ref());
            let ours = ours.map(|(trace, otlp)| (trace, otlp.is_sampled(trace, &open.exchange)));
            let how = snapshot.loaded.config.telemetry.trace_context;
            otlp::apply(how, &mut outgoing.headers, ours, &open.exchange);
        }
        let within = target.first_byte.unwrap_or(snapshot.limits.first_byte);
        let response = send(target.under(key), outgoing, within).await.map_err(|no_answer| {
            let why = match no_answer.reason {
                Reason::ProviderUnreachable => Why::Connect,
                Reason::ProviderTimeout => Why::Timeout,
                _ => Why::Aborted,
            };
            failed(why, no_answer)
        })?;
        if let Some(open) = live.open() {
            open.intended.clock.head = Some(Instant::now());
        }
        let mut answer = Answer::from(response);
        let mut ahead = Ahead::new(live, &mut answer, self.original.spoken(prepared));
        let judged = self.judge(snapshot, &mut ahead, (target, within), prepared, (began, more)).await;
        ahead.done();
        match judged {
            Ok(()) => Ok(answer),
            Err(failure) => Err(Failure { answer: Some(answer), ..failure }),
        }
    }

    /// Reads as much of an answer as it takes to tell whether it is one.
    async fn judge(
        &self,
        snapshot: &Snapshot,
        ahead: &mut Ahead<'_>,
        (target, within): (&Arc<Target>, Duration),
        prepared: &Prepared,
        (began, more): (Instant, bool),
    ) -> Result<(), Failure> {
        let failed = |why, no_answer| Failure::new(why, no_answer, began.elapsed());
        let status = ahead.answer.head.status.as_u16();
        let retry_after = retry_after(&ahead.answer.head.headers);
        let said = |why, class, text: String| {
            let reason = if why == Why::Timeout { Reason::ProviderTimeout } else { Reason::ProviderAborted };
            Failure { class, retry_after, ..failed(why, NoAnswer { reason, text }) }
        };
        let spoken = self.original.spoken(prepared);
        if status >= 400 {
            return Err(said(Why::Status(status), None, format!("status {status}")));
        }
        if !more {
            return Ok(());
        }
        let translation = prepared.translation.as_ref();
        let mut judge = ahead.answer.judge(spoken);
        let mut came = ahead.answer.begins(&mut judge, within, translation.is_some()).await;
        let mut why = Why::Event as fn(u16) -> Why;
        // What was asked to come piece by piece is not gathered, in whatever form it comes.
        let streams = ahead.live.open().is_some_and(|open| open.intended.asked.stream == Some(true));
        if came == Began::Well {
            let room = self.room_to_wait(snapshot, target).filter(|_| !streams);
            came = ahead.answer.turns_out(judge, room).await;
            why = Why::Said;
        }
        match came {
            Began::Well => {}
            Began::Failed { status, class } => {
                let text = "it says an error where an answer should be".into();
                return Err(said(why(status), class, text));
            }
            Began::Cut(error) => return Err(said(Why::Aborted, None, error)),
            Began::Late => {
                let text = format!("nothing behind the head within {} s", within.as_secs_f64());
                return Err(said(Why::Timeout, None, text));
            }
        }
        back::fits(ahead, translation).await.map_err(|no_answer| {
            let why = Why::unfit(no_answer.reason);
            Failure { is_unfit: true, ..failed(why, no_answer) }
        })
    }

    /// What an answer of `target` may take until it is whole and can be judged; `None` where it is not waited for: no other target
    /// is there to be asked, or the route asks neither what an error says nor for answers that break off.
    fn room_to_wait<'a>(&self, snapshot: &'a Snapshot, target: &Target) -> Option<Room<'a>> {
        let is_asked = self.route.retry.on.iter().any(|on| matches!(on, On::Class(_) | On::Aborted));
        let has_other = self.route.targets.len() > self.denied.len() + 1;
        let Bounds { idle, bytes, time } = target.bounds(&snapshot.limits);
        (is_asked && has_other).then_some(Room { budget: &snapshot.memory, most: bytes, idle, time })
    }

    /// Reads what an answer of an error's status says.
    async fn says(&self, live: &mut Live, failure: &mut Failure, spoken: Operation) {
        let is_status = matches!(failure.why, Why::Status(_));
        let Some(answer) = failure.answer.as_mut().filter(|_| is_status) else { return };
        let ahead = Ahead::new(live, answer, spoken);
        let class = self.class(ahead.answer, spoken).await;
        ahead.done();
        failure.class = class;
    }

    /// What the error of an answer says, where the route asks for it.
    async fn class(&self, answer: &mut Answer, spoken: Operation) -> Option<FailureClass> {
        let status = answer.head.status.as_u16();
        let on = &self.route.retry.on;
        if !on.iter().any(|on| matches!(on, On::Class(_))) {
            return None;
        }
        failure_class(spoken.dialect(), status, &error_text(answer).await?)
    }

    /// Whether an error of the status 403 is about what was asked, and not about the key: any key would get it.
    async fn is_of_request(&self, live: &mut Live, failure: &mut Failure, spoken: Operation) -> bool {
        let Some(answer) = failure.answer.as_mut() else { return false };
        let ahead = Ahead::new(live, answer, spoken);
        let text = error_text(ahead.answer).await;
        ahead.done();
        text.is_some_and(|text| is_of_the_request(spoken.dialect(), 403, &text))
    }

    /// Whether another attempt may follow one that failed. Where it is the key that is not taken and the target `has_key`, another
    /// that is free, the request goes under that one, whatever `on` and `attempts` say.
    fn may_follow(&self, tries: &Tries, failure: &Failure, has_key: bool) -> bool {
        let retry = &self.route.retry;
        let is_safe = failure.why == Why::Connect || self.original.is_repeatable();
        let counts = retry.on.iter().any(|on| failure.counts(*on)) && tries.counted() < retry.attempts;
        let in_time = retry.within.is_none_or(|within| failure.took <= within);
        is_safe && in_time && (counts || has_key) && tries.number + 1 < MAX_ATTEMPTS
    }

    /// The next attempt behind one that failed at `place`, and its body where that is another than the first one's; `None` where
    /// there is none, or no budget for it. What the failed one says is read first: it may tell its usage.
    async fn next(
        &self,
        app: &Arc<App>,
        snapshot: &Snapshot,
        live: &mut Live,
        tries: &mut Tries,
        (failure, spoken): (&mut Failure, Operation),
        (target, place, has_key): (&Arc<Target>, usize, bool),
    ) -> Option<(Next, Option<Bytes>)> {
        // Where nobody is left to be asked the caller gets what came, and does not wait for all of it.
        if !self.has_place(tries) {
            return None;
        }
        // Before what came is read for nothing.
        let repeat = if self.has_new_place(tries) { None } else { Some(self.repeat()?) };
        let mut came = failure.answer.take();
        let next = match &mut came {
            None => {
                let spent = live.open()?.spent(None, failure.went(), spoken);
                let failed = ended(tries.number, failure, target, None, &spent);
                self.goes_on(app, snapshot, live, tries, (failed, repeat), (place, has_key)).await
            }
            Some(answer) => {
                let mut ahead = Ahead::new(live, answer, spoken);
                if !failure.is_unfit {
                    failure.extent = ahead.answer.read(MOST_KEPT, READ_WITHIN).await;
                }
                let Ahead { live, answer, .. } = &mut ahead;
                let spent = live.open().map(|open| open.spent(Some(&**answer), failure.went(), spoken));
                let next = match &spent {
                    Some(spent) => {
                        let failed = ended(tries.number, failure, target, Some(&**answer), spent);
                        self.goes_on(app, snapshot, live, tries, (failed, repeat), (place, has_key)).await
                    }
                    None => None,
                };
                ahead.done();
                next
            }
        };
        failure.answer = came;
        next
    }

    /// Gives back what a failed attempt did not use, finds the next one, waits as long as that asks for, and records how the failed
    /// one ended.
    async fn goes_on(
        &self,
        app: &Arc<App>,
        snapshot: &Snapshot,
        live: &mut Live,
        tries: &mut Tries,
        (failed, repeat): (Failed<'_>, Option<Repeat>),
        (place, has_key): (usize, bool),
    ) -> Option<(Next, Option<Bytes>)> {
        live.open()?.settles_attempt(app, failed.spent).await;
        let next = self.find(snapshot, live, tries, (place, has_key), repeat).await?;
        if !next.wait.is_zero() {
            tokio::time::sleep(next.wait).await;
        }
        let request = self.original.instead(tries.first.as_ref(), &next.prepared).await.ok()?;
        let open = live.open()?;
        match open.ends_attempt(failed).await {
            Ok(()) => Some((next, request)),
            Err(error) => {
                unrecorded(&open.exchange, &error);
                None
            }
        }
    }

    /// Targets that are not asked again, as things stand.
    fn shut(&self, tries: &Tries, now: Instant) -> Vec<usize> {
        let held = tries.held.iter().filter(|(_, until)| *until > now + PATIENCE);
        let held: Vec<usize> = held.map(|(place, _)| *place).collect();
        [&self.denied[..], &tries.unfit, &held].concat()
    }

    /// Whether there is a target that may be asked next, as things stand.
    fn has_place(&self, tries: &Tries) -> bool {
        let shut = self.shut(tries, Instant::now());
        (0..self.route.targets.len()).any(|place| !shut.contains(&place))
    }

    /// Whether there is one among them that did not fail yet.
    fn has_new_place(&self, tries: &Tries) -> bool {
        let shut = [&self.denied[..], &tries.unfit, &tries.failed].concat();
        (0..self.route.targets.len()).any(|place| !shut.contains(&place))
    }

    /// What asking a target again takes of the route's budget, or one that is out of order; `None` where nothing is left of it. Another
    /// target that is in order is no repeat: that one is down is no reason to keep its callers from those that are not.
    fn repeat(&self) -> Option<Repeat> {
        let repeat = self.route.budget.repeat();
        if repeat.is_none() {
            tracing::warn!(route = %self.route.name, "the budget of repeats is spent");
        }
        repeat
    }

    /// A target that can be asked and has room: the one at `place` where that `has_key`, another that is free; else one that did not
    /// fail; else one that did.
    async fn find(
        &self,
        snapshot: &Snapshot,
        live: &mut Live,
        tries: &mut Tries,
        (place, has_key): (usize, bool),
        mut repeat: Option<Repeat>,
    ) -> Option<Next> {
        let now = Instant::now();
        let mut at_its_place = has_key;
        loop {
            let under_its_key = std::mem::take(&mut at_its_place);
            let excluded = match under_its_key {
                true => (0..self.route.targets.len()).filter(|other| *other != place).collect(),
                false => [&self.denied[..], &tries.failed, &tries.unfit].concat(),
            };
            let (picked, is_again) = match self.route.balancer.pick(&self.spread.pick(&excluded)) {
                Some(picked) => (picked, false),
                None => {
                    let excluded = self.shut(tries, now);
                    (self.route.balancer.pick(&self.spread.pick(&excluded))?, true)
                }
            };
            // One that is out of order is asked for want of a better one.
            let is_repeat = is_again || (picked.in_panic() && !under_its_key);
            if is_repeat && repeat.is_none() {
                // Before room is taken at a target: it would be given back as if that one had been asked.
                repeat = Some(self.repeat()?);
            }
            let target = self.route.targets.get(picked.target())?;
            let Ok(prepared) = self.original.prepare(&self.route, target) else {
                tries.unfit.push(picked.target());
                continue;
            };
            let Ok(reservation) = self.room(snapshot, live, target, &prepared).await else {
                tries.unfit.push(picked.target());
                continue;
            };
            let wait = if is_again { self.wait(tries, picked.target(), now) } else { Duration::ZERO };
            tries.again += u32::from(is_again);
            let reason = if picked.target() == place { "retry" } else { "fallback" };
            return Some(Next { picked, prepared, reservation, reason, wait, repeat });
        }
    }

    /// Takes what the request may use of the quotas of `target` as it is `prepared` for it.
    async fn room(
        &self,
        snapshot: &Snapshot,
        live: &mut Live,
        target: &Target,
        prepared: &Prepared,
    ) -> Result<Option<Reservation>, quotas::Refused> {
        let Some(open) = live.open().filter(|_| !snapshot.quotas.is_empty()) else { return Ok(None) };
        let mut asked = open.intended.asked.clone();
        asked.provider = Some(target.provider.name.clone());
        asked.target = self.route.names_targets.then(|| target.name.clone());
        asked.sent_model = prepared.model.as_ref().map(|model| snapshot.pseudonyms.identifier(model));
        let load = self.original.load(&asked, target, Some(prepared));
        let caller = &open.intended.caller;
        let request = self.original.quota_request((caller, &asked), &load, target, snapshot);
        snapshot.quotas.reserve(&request, Stage::Target).await
    }

    /// How long a target is left alone that failed before: as long as it asked, and the back-off.
    fn wait(&self, tries: &Tries, target: usize, now: Instant) -> Duration {
        let back_off = &self.route.retry.back_off;
        let longest = back_off.first.saturating_mul(1 << tries.again.min(16)).min(back_off.most);
        let by_chance = RandomState::new().build_hasher().finish() % 1024;
        let half = longest / 2;
        let backed_off = half + half.mul_f64(by_chance as f64 / 1024.0);
        let held = tries.held.iter().filter(|(place, _)| *place == target);
        let until = held.map(|(_, until)| until.saturating_duration_since(now)).max();
        backed_off.max(until.unwrap_or_default())
    }

    /// Records that the next attempt begins, which sends `request` where that is not what was sent first.
    ///
    /// # Errors
    /// Nothing may be sent; why, where the outcome tells of that attempt all the same.
    async fn opens(
        &self,
        live: &mut Live,
        (tries, failure, failed): (&Tries, &Failure, &Target),
        next: Next,
        request: Option<Bytes>,
    ) -> Result<Next, Option<NoAnswer>> {
        let (Some(open), Some(to), Some(number)) =
            (live.open(), self.route.targets.get(next.picked.target()), AttemptNumber::new(tries.number + 1))
        else {
            return Err(None);
        };
        let is_changed = next.prepared.changed.is_some();
        let headers = &self.original.headers;
        let opening = Opening {
            number,
            reason: next.reason,
            target: to,
            model: next.prepared.model.as_deref(),
            request,
            media_type: record::media_type(headers),
            // What was changed goes without one.
            coding: if is_changed { None } else { record::content_coding(headers) },
            verdict: self.verdicts.get(next.picked.target()).cloned().flatten(),
            translation: next.prepared.recorded(),
        };
        tracing::info!(
            exchange = %open.exchange,
            failed = %failed.name,
            why = failure.name(),
            next = %to.name,
            "a target failed, and another one is asked"
        );
        match open.opens_attempt(opening).await {
            Ok(()) => Ok(next),
            Err(error) => {
                let text = error.to_string();
                unrecorded(&open.exchange, &text);
                if !open.tells_of(number) {
                    return Err(None);
                }
                open.intended.clock.head = None;
                Err(Some(NoAnswer { reason: Reason::Evidence(error.reason), text }))
            }
        }
    }
}
