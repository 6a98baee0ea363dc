//! Counters on a Redis, shared by gateways: each question is one script there, so that a reservation over several counters
//! is one step. What is reserved is a lease: a gateway that dies gives it back by not renewing it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Script;
use rustls::ClientConfig;
use uuid::Uuid;

use super::link::{Down, Link};
use super::server::Passwords;
use super::store::{MAX_OF_OWNER, Settle, Take, Taken, Used};
use crate::config::QuotaRedis;
use crate::telemetry::QuotaTelemetry;

/// The most settlements that wait for a store that is away.
const MAX_WAITING: usize = 10_000;

/// How often a settlement is tried that the store answers with an error.
const MAX_TRIES: u32 = 20;

/// How long it is known there that something was settled. Longer after an answer was lost it is not asked for again.
const KNOWN: Duration = Duration::from_secs(300);

/// How long counters are kept behind their stretch: for gateways whose clocks are behind that of the store.
const KEPT_MS: i64 = 300_000;

/// How many counters' leases one script renews: others wait for it no longer than that, however many rules and groups a request is
/// counted by.
const RENEWED_AT_ONCE: usize = 200;

/// Counters on a Redis.
pub(crate) struct Shared {
    pub(crate) config: QuotaRedis,
    link: Arc<Link>,
    reserve: Script,
    settle: Script,
    renew: Script,
    /// What this gateway has reserved and not settled.
    leases: Mutex<HashMap<Uuid, Arc<[Settle]>>>,
    waiting: Arc<Waiting>,
}

/// What could not be settled yet. It outlives the way to the store: a reload hands it on.
pub(crate) struct Waiting {
    late: Mutex<VecDeque<Late>>,
    telemetry: QuotaTelemetry,
}

/// A use that is to be settled.
struct Late {
    id: Uuid,
    settles: Arc<[Settle]>,
    /// Since when it may have been settled: an answer was lost.
    asked: Option<Instant>,
    tries: u32,
}

impl Waiting {
    pub(crate) fn new(telemetry: &QuotaTelemetry) -> Self {
        Self { late: Mutex::default(), telemetry: telemetry.clone() }
    }

    /// False where there is no room.
    fn put(&self, late: Late) -> bool {
        let mut all = locked(&self.late);
        let has_room = all.len() < MAX_WAITING;
        if has_room {
            all.push_back(late);
        }
        has_room
    }

    fn lost(&self, uses: usize) {
        if uses > 0 {
            tracing::warn!(uses, "uses of quotas could not be settled: they are not charged");
            self.telemetry.unsettled(u64::try_from(uses).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = locked(&self.late).len();
        self.lost(left);
    }
}

/// A reservation that was asked for. Dropped before the answer is known, it is given back.
struct Asking {
    shared: Arc<Shared>,
    id: Uuid,
    settles: Option<Arc<[Settle]>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(settles) = self.settles.take() else { return };
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        // Without a runtime the process ends, and its leases with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.settle(id, settles).await });
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        config: &QuotaRedis,
        passwords: &Passwords,
        tls: Arc<ClientConfig>,
        waiting: Arc<Waiting>,
    ) -> Self {
        Self {
            config: config.clone(),
            link: Arc::new(Link::new(config, passwords, tls)),
            reserve: Script::new(include_str!("reserve.lua")),
            settle: Script::new(include_str!("settle.lua")),
            renew: Script::new(include_str!("renew.lua")),
            leases: Mutex::default(),
            waiting,
        }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Takes all or nothing. What goes into the counter of what is left over of its owner has that one's key then.
    pub(crate) async fn reserve(self: &Arc<Self>, id: Uuid, takes: &mut [Take]) -> Result<Taken, Down> {
        let mut asking = Asking { shared: Arc::clone(self), id, settles: Some(anywhere(takes)) };
        let taken = self.ask(id, takes).await;
        match &taken {
            // Nothing was taken, or was asked at all.
            Ok(Taken::None(..)) => asking.settles = None,
            Err(error) if error.did_nothing() => asking.settles = None,
            Ok(Taken::All(_)) => {
                asking.settles = None;
                let held = takes.iter().enumerate().map(|(index, take)| take.settle(index + 1));
                locked(&self.leases).insert(id, held.collect());
            }
            Err(_) => {}
        }
        taken
    }

    async fn ask(&self, id: Uuid, takes: &mut [Take]) -> Result<Taken, Down> {
        let mut keys = Vec::with_capacity(takes.len() * 9);
        let mut args = vec![id.simple().to_string(), self.config.lease.as_millis().to_string()];
        args.push(MAX_OF_OWNER.to_string());
        for take in takes.iter() {
            let (before, part) = take.before.as_ref().map_or((&take.key, 0), |(key, part)| (key, *part));
            let of = take.of().unwrap_or_else(|| take.key.clone());
            let of_before = take.of_before().unwrap_or_else(|| of.clone());
            for key in [&take.key, before, &of, &of_before] {
                keys.extend([self.hash(key), self.held(key)]);
            }
            keys.push(self.names(&of));
            let refuses = u8::from(take.refuses).to_string();
            args.extend([take.amount.to_string(), take.limit.to_string(), refuses, part.to_string()]);
            args.extend([kept(take.keep_until), u8::from(take.owner.is_some()).to_string()]);
        }
        let answer = self.link.run(&self.reserve, &keys, &args).await?;
        let (full, rest) = answer.split_first().ok_or(Down::Form)?;
        if rest.len() != takes.len() * 4 {
            return Err(Down::Form);
        }
        let mut used = Vec::with_capacity(takes.len());
        for (take, counts) in takes.iter_mut().zip(rest.chunks_exact(4)) {
            let [spent, before, held, over] = counts else { return Err(Down::Form) };
            used.push(Used { spent: *spent, before: *before, held: *held });
            if *over == 1
                && let Some(owner) = take.owner.clone()
            {
                take.goes_to(&owner);
            }
        }
        match usize::try_from(*full).unwrap_or(usize::MAX) {
            0 => Ok(Taken::All(used)),
            full if full <= used.len() => Ok(Taken::None(full - 1, used)),
            _ => Err(Down::Form),
        }
    }

    /// Puts the truth in the place of what was reserved; where the store does not answer as soon as it does.
    pub(crate) async fn settle(&self, id: Uuid, settles: Arc<[Settle]>) -> Result<Vec<Used>, Down> {
        locked(&self.leases).remove(&id);
        let error = match self.settle_now(id, &settles).await {
            Ok(used) => return Ok(used),
            Err(error) => error,
        };
        let is_unknown = !error.did_nothing();
        // What charges nothing ends with its lease.
        if !is_unknown && settles.iter().all(|settle| settle.spent == 0) {
            return Ok(Vec::new());
        }
        let late = Late { id, settles, asked: is_unknown.then(Instant::now), tries: 1 };
        if self.waiting.put(late) { Ok(Vec::new()) } else { Err(error) }
    }

    async fn settle_now(&self, id: Uuid, settles: &[Settle]) -> Result<Vec<Used>, Down> {
        let mut keys = Vec::with_capacity(1 + settles.len() * 3);
        keys.push(self.done(id));
        let mut args = vec![id.simple().to_string(), (2 * KNOWN).as_millis().to_string()];
        for settle in settles {
            keys.extend([self.hash(&settle.key), self.held(&settle.key)]);
            keys.push(self.names(settle.of.as_ref().unwrap_or(&settle.key)));
            args.extend([settle.number.to_string(), settle.reserved.to_string(), settle.spent.to_string()]);
            args.push(kept(settle.keep_until));
        }
        let answer = self.link.run(&self.settle, &keys, &args).await?;
        let used = answer.chunks_exact(2).filter_map(|counts| match counts {
            [spent, held] => Some(Used { spent: *spent, before: 0, held: *held }),
            _ => None,
        });
        Ok(used.collect())
    }

    /// Settles what waited, each once.
    async fn settle_late(&self) {
        let count = locked(&self.waiting.late).len();
        for _ in 0..count {
            let next = locked(&self.waiting.late).pop_front();
            let Some(mut late) = next else { return };
            if late.tries > MAX_TRIES || late.asked.is_some_and(|asked| asked.elapsed() > KNOWN) {
                self.waiting.lost(1);
                continue;
            }
            let error = match self.settle_now(late.id, &late.settles).await {
                Ok(_) => continue,
                Err(error) => error,
            };
            if !error.did_nothing() {
                late.tries += 1;
                late.asked.get_or_insert_with(Instant::now);
            }
            locked(&self.waiting.late).push_back(late);
            if error.did_nothing() || matches!(error, Down::Slow) {
                return;
            }
        }
    }

    /// Renews what is reserved, and settles what waited.
    pub(crate) async fn renew(&self) {
        if !self.link.is_up() {
            return;
        }
        self.settle_late().await;
        let leases: Vec<(Uuid, Arc<[Settle]>)> =
            locked(&self.leases).iter().map(|(id, held)| (*id, Arc::clone(held))).collect();
        for (keys, args) in self.renewals(&leases) {
            if let Err(error) = self.link.run(&self.renew, &keys, &args).await {
                tracing::warn!(%error, "leases of quotas could not be renewed");
                return;
            }
        }
    }

    /// What the script is asked so that all of `leases` are renewed: keys and arguments, of some counters at a time.
    fn renewals(&self, leases: &[(Uuid, Arc<[Settle]>)]) -> impl Iterator<Item = (Vec<String>, Vec<String>)> {
        let each = leases.iter().flat_map(|(id, held)| held.iter().map(move |settle| (*id, settle)));
        let held: Vec<(Uuid, &Settle)> = each.filter(|(_, settle)| settle.reserved > 0).collect();
        let lease = self.config.lease.as_millis().to_string();
        (0..held.len()).step_by(RENEWED_AT_ONCE).map(move |from| {
            let (mut keys, mut args) = (Vec::new(), vec![lease.clone()]);
            for (id, settle) in held.iter().skip(from).take(RENEWED_AT_ONCE) {
                keys.extend([self.hash(&settle.key), self.held(&settle.key), self.done(*id)]);
                args.push(format!("{}.{}|{}", id.simple(), settle.number, settle.reserved));
                args.extend([settle.reserved.to_string(), kept(settle.keep_until)]);
            }
            (keys, args)
        })
    }

    /// How often leases are renewed.
    pub(crate) fn renewal(&self) -> Duration {
        self.config.lease / 3
    }

    fn hash(&self, key: &str) -> String {
        format!("{{{}}}:{key}", self.config.prefix)
    }

    fn held(&self, key: &str) -> String {
        format!("{{{}}}:{key}:l", self.config.prefix)
    }

    /// The list of an owner's counters.
    fn names(&self, key: &str) -> String {
        format!("{{{}}}:{key}:n", self.config.prefix)
    }

    /// The mark that it was settled.
    fn done(&self, id: Uuid) -> String {
        format!("{{{}}}:{}:done", self.config.prefix, id.simple())
    }
}

/// When a counter may be forgotten there; 0: by its leases.
fn kept(until: Option<i64>) -> String {
    until.map_or(0, |until| until.saturating_add(KEPT_MS)).to_string()
}

/// Gives all of it back, wherever it was taken from.
fn anywhere(takes: &[Take]) -> Arc<[Settle]> {
    let mut settles = Vec::with_capacity(takes.len());
    for (index, take) in takes.iter().enumerate() {
        settles.push(take.settle(index + 1));
        if let Some(owner) = &take.owner {
            let mut left_over = take.clone();
            left_over.goes_to(owner);
            settles.push(left_over.settle(index + 1));
        }
    }
    settles.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::link::tests::config;
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn leases_are_renewed_by_calls_of_a_bounded_size_however_many_counters_one_has() {
        let tls = crate::tap::tls::client(&crate::config::TapFiles::default()).unwrap();
        let waiting = Arc::new(Waiting::new(&Telemetry::new().quotas));
        let shared = Shared::new(&config("redis://127.0.0.1:1"), &Passwords::default(), tls, waiting);
        let settle = |number: usize, reserved| Settle {
            number,
            key: format!("rule:{number}:0"),
            reserved,
            spent: 0,
            keep_until: None,
            of: None,
        };
        // As of a caller in 256 groups that many rules count by, and one in none; what holds nothing has no lease.
        let of = |count: usize| -> (Uuid, Arc<[Settle]>) {
            (Uuid::now_v7(), (1..=count).map(|number| settle(number, 7)).collect())
        };
        let leases = [of(2000), of(1), (Uuid::now_v7(), [settle(1, 0)].into()), of(399)];
        let mut renewed = HashSet::new();
        let mut calls = 0;
        for (keys, args) in shared.renewals(&leases) {
            assert!(keys.len() <= 3 * RENEWED_AT_ONCE, "{}", keys.len());
            assert_eq!((args.len() - 1, args[0].as_str()), (keys.len(), "30000"));
            for (keys, args) in keys.chunks_exact(3).zip(args[1..].chunks_exact(3)) {
                let id = keys[2].trim_start_matches("{affidavit}:").trim_end_matches(":done");
                assert!(args[0].starts_with(id) && args[0].ends_with("|7"), "{keys:?} {args:?}");
                assert!(renewed.insert(args[0].clone()), "{} twice", args[0]);
            }
            calls += 1;
        }
        assert_eq!((calls, renewed.len()), (12, 2400));
        assert_eq!(shared.renewals(&[]).count(), 0);
    }
}
