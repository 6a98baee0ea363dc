//! Verification: from a store and a trust file to a [`Report`]. Never stops at the first finding (AU-4).
//!
//! ```text
//! listing  ->  batch (each by itself, on all cores)  ->  log (chain, story, earlier visit)  ->  gateway (epochs,
//! intervals)  ->  report
//! ```

mod attempts;
pub(crate) mod batch;
pub(crate) mod content;
pub(crate) mod dictionaries;
mod earlier;
pub mod fold;
mod gateway;
pub mod holds;
pub mod ids;
pub mod keys;
pub(crate) mod listing;
pub(crate) mod loader;
pub mod log;
pub mod prices;
mod reference;
pub mod story;
pub mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use schemas::trust::{Trust, TrustedGateway};
use schemas::verify::{SealTail, VerifiedBatch};
use schemas::{ExchangeId, ObjectName, Origin};

use crate::finding::{Code, Effect, Finding, Findings, Place};
use crate::mandate::{Claim, Mandate};
use crate::registry::{Apart, Beside, InForce, Reading, Registry, WitnessNote};
use crate::report::{ClaimState, Counts, Report, Verdict};
use crate::source::Source;
use crate::state::{Remembered, Visit, Visits};
use crate::time;
use keys::{Held, Keys};
use log::LogFold;
use schemas::keytable::KeyId;

/// Bounds on what is read at once. Over them the answer is "could not judge".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest records file.
    pub records_bytes: u64,
    /// The largest reference file.
    pub reference_bytes: u64,
    /// Bytes of records files that are looked at together.
    pub window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records_bytes: 512 << 20, reference_bytes: 256 << 20, window_bytes: 16 << 20 }
    }
}

/// Takes proven batches, in order of each log.
pub trait Sink: Send {
    /// A batch was proven, in its place in the log. `bytes` is the length of its data files.
    fn batch(&mut self, origin: &Origin, batch: &VerifiedBatch, bytes: u64);
    /// A log was followed so far, and its batches that came before this call are told. `stops`: it goes no farther.
    fn reached(&mut self, _fold: &LogFold, _tail: Option<&SealTail>, _stops: bool) {}
    /// A log was followed to its end.
    fn log(&mut self, _fold: &LogFold, _tail: Option<&SealTail>) {}
}

/// How what is said of use past the gateways begins.
pub(crate) const PAST_THE_GATEWAYS: &str = "whether all use of models passed the gateways";

/// Takes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl Sink for NoSink {
    fn batch(&mut self, _: &Origin, _: &VerifiedBatch, _: u64) {}
}

/// What is verified, against what.
pub struct Options<'a> {
    /// The trust file.
    pub trust: &'a Trust,
    /// What is required.
    pub mandate: &'a Mandate,
    /// The asked interval's start, microseconds UTC; the default is the first log's opening.
    pub from: Option<i64>,
    /// The asked interval's end.
    pub to: Option<i64>,
    /// The auditor's clock, microseconds UTC.
    pub now: i64,
    /// Content keys.
    pub keys: Option<&'a Keys>,
    /// What was seen before; absent: no state is kept.
    pub remembered: Option<&'a Remembered>,
    /// Proofs of earlier runs: where nothing that they rest on has changed, their logs are followed from there.
    pub earlier: BTreeMap<Origin, (LogFold, SealTail)>,
    /// What witnesses said elsewhere than in the store.
    pub witness_notes: &'a [WitnessNote],
    /// Keys in force, where the registry was read before; absent: it is read now.
    pub in_force: Option<&'a InForce>,
    /// What was judged of the bucket, where the store is one.
    pub bucket: Option<&'a crate::bucket::Judged>,
    /// Bounds.
    pub limits: Limits,
    /// Told of progress: log, batches done, batches in all.
    pub progress: &'a (dyn Fn(&Origin, u64, u64) + Sync),
    /// Once it is set, no more is read.
    pub stop: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl<'a> Options<'a> {
    /// With no earlier visit, no content keys, and the default interval at `now`.
    pub fn new(trust: &'a Trust, mandate: &'a Mandate, now: i64) -> Self {
        Self {
            trust,
            mandate,
            from: mandate.from,
            to: mandate.to,
            now,
            keys: None,
            remembered: None,
            earlier: BTreeMap::new(),
            witness_notes: &[],
            in_force: None,
            bucket: None,
            limits: Limits::default(),
            progress: &|_, _, _| {},
            stop: None,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// What the registry is read with.
    fn reading<'r>(&'r self, source: &'r dyn Source, known: Option<&'r Visits>) -> Reading<'r> {
        let beside = Beside { visits: known, witness_notes: self.witness_notes, to: self.to, now: self.now };
        Reading::new(source, self.trust, beside)
    }
}

struct Gateway {
    expected: gateway::Expected,
    folds: Vec<LogFold>,
}

/// Verifies the store. Gives the report, and what should be remembered of the visit.
pub fn run(source: &dyn Source, options: &Options<'_>, sink: &mut dyn Sink) -> (Report, Visits) {
    let mut findings = options.bucket.map(|bucket| bucket.findings.clone()).unwrap_or_default();
    for fault in options.trust.check() {
        let place = Place::object("the trust file").of_item(&fault.key);
        findings.add(Code::TrustMismatch, place, fault.wanted, fault.value);
    }
    let mut counts = Counts::default();
    let known = remembered(options, &mut findings);
    // Keys and logs as they count: the trust file's own, or the registry's.
    let in_force = match options.in_force {
        Some(in_force) => in_force.clone(),
        None => InForce::read(&options.reading(source, known.as_ref())),
    };
    findings.append(in_force.findings.clone());
    let (registry, trust) = (&in_force.registry, &in_force.trust);
    let mut gateways = gateways(trust, registry.is_none());
    let mut folders = listing::folders(source, &mut findings);
    counts.objects += folders.strangers;
    let mut present = BTreeSet::new();
    for origin in &folders.logs {
        if registry.as_ref().is_some_and(|registry| registry.origin == *origin) {
            continue;
        }
        if options.is_stopped() {
            stopped(origin, &mut findings);
            break;
        }
        let entry = in_force.entry(origin).and_then(|entry| Some((entry, entry.public_key().ok()?)));
        let gateway = gateways.iter_mut().find(|gateway| gateway.expected.name == origin.gateway());
        match gateway.zip(entry) {
            Some((gateway, (entry, key))) => {
                let mut own = Findings::default();
                let listing = match listing::log(source, origin, &mut own) {
                    Ok(listing) => listing,
                    Err(error) => {
                        folders.unlisted.add(origin.as_str(), error, &mut findings);
                        continue;
                    }
                };
                present.insert(origin.clone());
                let closers: Vec<_> = entry.closing_keys().collect();
                let heartbeat_bound_us = gateway.expected.heartbeat_bound_us;
                let trusted = Trusted { entry, key: &key, closers: &closers, heartbeat_bound_us };
                let listed = (&listing, own);
                let fold = follow(source, listed, &trusted, options, known.as_ref(), &mut findings, sink);
                fold.counts.add_to(&mut counts);
                gateway.folds.push(fold);
            }
            None => {
                counts.objects += source.entries(origin.as_str()).map_or(0, |entries| entries.len() as u64);
                let by = if registry.is_some() { "registry" } else { "trust file" };
                let expected = format!("gateways of `{}` that the {by} names", trust.deployment);
                findings.add(
                    Code::UnregisteredLog,
                    Place::log(origin),
                    expected,
                    "a log of none of their keys",
                );
            }
        }
    }
    empty_or_gone(options, trust, known.as_ref(), (&present, &gateways), &mut findings);
    if let Some(registry) = registry {
        let folds: Vec<&LogFold> = gateways.iter().flat_map(|gateway| &gateway.folds).collect();
        let gone =
            |at: i64| options.mandate.retention.is_some_and(|kept| at.saturating_add(kept) < options.now);
        registry.hold(source, &folds, (&gone, options.to, options.now), &mut findings);
        counts.objects += registry.counts.objects;
        counts.bytes += registry.counts.bytes;
        counts.seals += registry.counts.seals;
        counts.leaves += registry.counts.leaves;
    }
    if let Some(keys) = options.keys {
        keys.check(&options.trust.deployment, &mut findings);
    }
    let folds: Vec<&LogFold> = gateways.iter().flat_map(|gateway| &gateway.folds).collect();
    let apart = registry.as_ref().map(|registry| registry.ledger(&folds, &mut findings)).unwrap_or_default();
    let unknown = holds::judge(source, &in_force, (&folds, &apart, options.now), &mut findings);
    erasures(options, &mut gateways, &apart, &mut findings);
    let mut reports = Vec::new();
    let mut tally = tally::Tally::default();
    for gateway in &gateways {
        let report =
            gateway::judge(&gateway.expected, gateway.folds.iter().collect(), options, &mut findings);
        for fold in &gateway.folds {
            findings.append(fold.findings.clone());
            tally.add(&fold.story.tally);
        }
        reports.push(report);
    }
    systems(options, &tally, &mut findings);
    unlisted_is_unjudged(&folders.unlisted, &in_force, &mut findings);
    let mut not_judged = tally::not_judged(&tally);
    notes(&tally, &not_judged, &mut findings);
    unencrypted(&gateways, &mut findings);
    outside_is_note(options, &reports, &mut findings);
    if let Some(registry) = registry.as_ref().filter(|registry| registry.not_judged > 0) {
        *not_judged.entry("kinds of registry entries".into()).or_default() += registry.not_judged;
    }
    let visits = visits(options, &gateways, registry.as_ref(), known, &findings);
    let unseen = |visits: &Visits| {
        let deployment = &options.trust.deployment;
        let mut seen = visits.logs.keys().filter(|origin| origin.deployment() == deployment);
        seen.any(|origin| folders.unlisted.may_hold(origin.as_str()))
            || registry.as_ref().is_some_and(|registry| registry.unlisted)
    };
    let claims = claims(options, &gateways, registry.as_ref(), (&tally, &unseen), &mut findings);
    if counts.batches == 0 && findings.effect() == Effect::Note {
        findings.add(Code::NoInput, Place::default(), "at least one proven batch", "none");
    }
    findings.sort();
    let report = Report {
        verdict: findings.effect().into(),
        claims,
        store: source.describe(),
        deployment: options.trust.deployment.clone(),
        trust_fingerprint: options.trust.fingerprint().map(|hash| hash.to_string()).unwrap_or_default(),
        checked_at: options.now,
        counts,
        bucket: options.bucket.map(|bucket| bucket.facts.clone()),
        gateways: reports,
        registry: registry.as_ref().map(Registry::report),
        trust_in_force: trust.clone(),
        mandated: options.mandate.claims.clone(),
        price_books: gateways
            .iter()
            .flat_map(|gateway| &gateway.folds)
            .flat_map(|fold| fold.books.texts().clone())
            .collect(),
        policies: gateways
            .iter()
            .flat_map(|gateway| &gateway.folds)
            .flat_map(|fold| fold.policies.clone())
            .collect(),
        findings,
        not_checked: not_checked(options, registry.as_ref(), &tally, unknown),
        tally,
        not_judged,
    };
    (report, visits)
}

/// The gateways that are trusted; one with several keys is one gateway. `expects`: the logs that the entries list must be
/// there, since no registry says which are.
fn gateways(trust: &Trust, expects: bool) -> Vec<Gateway> {
    let mut out: Vec<Gateway> = Vec::new();
    for trusted in &trust.gateways {
        if out.iter().any(|gateway| gateway.expected.name == trusted.name) {
            continue;
        }
        let mut entries: Vec<_> = trust.gateways.iter().filter(|entry| entry.name == trusted.name).collect();
        entries.sort_by_key(|entry| entry.first_origin.as_ref().map(|origin| origin.epoch().to_owned()));
        let seconds = entries.iter().filter_map(|entry| entry.heartbeat_bound_s).min();
        let expected = gateway::Expected {
            name: trusted.name.clone(),
            first_origin: entries.first().and_then(|entry| entry.first_origin.clone()),
            heartbeat_bound_us: seconds
                .and_then(|s| i64::try_from(s).ok())
                .map(|s| s.saturating_mul(time::SECOND)),
            closed: entries.last().is_some_and(|entry| entry.closed == Some(true)),
            listed: entries
                .iter()
                .filter(|_| expects)
                .flat_map(|entry| entry.logs.iter().flatten())
                .map(|log| (log.origin.clone(), log.closed))
                .collect(),
        };
        out.push(Gateway { expected, folds: Vec::new() });
    }
    out
}

fn remembered(options: &Options<'_>, findings: &mut Findings) -> Option<Visits> {
    let place = || Place::object("the auditor's state");
    match options.remembered? {
        Remembered::FirstVisit => None,
        Remembered::Known(visits) => Some(visits.clone()),
        Remembered::Tampered(why) => {
            findings.add(Code::StateTampered, place(), "a state that this auditor wrote", why.clone());
            None
        }
        Remembered::Lost => {
            findings.add(
                Code::StateLost,
                place(),
                "the state of the last visit",
                "its key, without the state",
            );
            None
        }
    }
}

struct Trusted<'a> {
    entry: &'a TrustedGateway,
    key: &'a [u8; 32],
    closers: &'a [[u8; 32]],
    heartbeat_bound_us: Option<i64>,
}

fn follow(
    source: &dyn Source,
    (listing, mut own): (&listing::LogListing, Findings),
    trusted: &Trusted<'_>,
    options: &Options<'_>,
    known: Option<&Visits>,
    findings: &mut Findings,
    sink: &mut dyn Sink,
) -> LogFold {
    let origin = &listing.origin;
    let mut visit = known.and_then(|visits| visits.logs.get(origin));
    if let Some(seen) = visit
        && seen.key != trusted.entry.key
    {
        let found = format!("key {}", trusted.entry.key);
        findings.add(
            Code::TrustMismatch,
            Place::log(origin),
            format!("key {} as at the last visit", seen.key),
            found,
        );
        visit = None;
    }
    let has_seal = |number: u64| listing.batches.get(&number).is_some_and(|objects| objects.seal.is_some());
    let dictionaries = dictionaries::Dictionaries::default();
    let context = batch::Context {
        source,
        origin,
        key: trusted.key,
        closers: trusted.closers,
        limits: &options.limits,
        keys: options.keys,
        dictionaries: &dictionaries,
        expired_before: options.mandate.retention.map(|kept| options.now.saturating_sub(kept)),
        has_seal: &has_seal,
    };
    let retention = options.mandate.retention;
    let present = earlier::Present { context: &context, entry: trusted.entry, listing, visit, retention };
    let (fold, tail) = match options.earlier.get(origin).and_then(|earlier| present.continues(earlier)) {
        Some((fold, tail)) => (fold, Some(tail)),
        None => (LogFold::new(origin.clone(), trusted.entry.key.clone()), None),
    };
    let bases = content::Bases::default();
    let mut follow = log::Follow { context, options, visit, fold, tail, entry: trusted.entry, bases };
    if !follow.run(listing, sink) {
        stopped(origin, findings);
        return follow.fold;
    }
    sink.log(&follow.fold, follow.tail.as_ref());
    follow.end(listing);
    let log::Follow { mut fold, .. } = follow;
    // Logs are many: what the next one does not need is let go.
    fold.story.forget_ids();
    fold.marks.clear();
    if let (Some(bound), Some(boot)) = (trusted.heartbeat_bound_us, &fold.story.boot)
        && bound < boot.heartbeat_bound_us
    {
        let expected =
            format!("a heartbeat bound of at most {} s, as in the trust file", bound / time::SECOND);
        let found = format!("{} s", boot.heartbeat_bound_us / time::SECOND);
        fold.findings.add(
            Code::TrustMismatch,
            Place::record(origin, 0).of_item("heartbeat_bound_ms"),
            expected,
            found,
        );
    }
    own.append(std::mem::take(&mut fold.findings));
    fold.findings = own;
    fold
}

/// The verification was ended from outside: nothing may be taken for judged.
fn stopped(origin: &Origin, findings: &mut Findings) {
    findings.add(Code::CouldNotRead, Place::log(origin), "the log followed to its end", "stopped before");
}

/// Nothing at all, or logs that were seen before and are gone.
fn empty_or_gone(
    options: &Options<'_>,
    trust: &Trust,
    known: Option<&Visits>,
    (present, gateways): (&BTreeSet<Origin>, &[Gateway]),
    findings: &mut Findings,
) {
    let mut gone = 0;
    for (origin, visit) in known.map(|visits| &visits.logs).into_iter().flatten() {
        // A deployment of the same name under other keys is another one.
        let ours =
            trust.gateways.iter().any(|entry| entry.name == origin.gateway() && entry.key == visit.key);
        if origin.deployment() != trust.deployment || !ours || present.contains(origin) {
            continue;
        }
        let expected = format!("size {} as at {}", visit.size, time::text(visit.seen_at));
        if visit.is_expired(options.mandate.retention, options.now) {
            findings.add(Code::Expired, Place::log(origin), expected, "nothing");
            continue;
        }
        gone += 1;
        let code = if present.is_empty() { Code::EmptyEvidence } else { Code::Rollback };
        findings.add(code, Place::log(origin), expected, "nothing");
    }
    if present.is_empty() && gone == 0 {
        let expected = format!("logs of deployment `{}`", options.trust.deployment);
        findings.add(Code::NoInput, Place::default(), expected, "none");
    }
    // A registry names the logs themselves; a gateway without one is not a finding.
    for trusted in trust.gateways.iter().filter(|_| options.trust.registry.is_none()) {
        // A folder with something in it is not yet a log.
        let here = gateways.iter().any(|gateway| {
            gateway.expected.name == trusted.name && gateway.folds.iter().any(LogFold::is_there)
        });
        if !here && !present.is_empty() {
            let expected = format!("a log of gateway `{}`", trusted.name);
            findings.add(
                Code::LogMissing,
                Place::default().of_item(format!("gateway {}", trusted.name)),
                expected,
                "none",
            );
        }
    }
}

/// What may be in a folder that could not be listed is not gone, and what it would prove is not known.
fn unlisted_is_unjudged(unlisted: &listing::Unlisted, in_force: &InForce, findings: &mut Findings) {
    let registry = in_force.registry.as_ref();
    let no_registry = registry.is_some_and(|it| it.unlisted || unlisted.may_hold(it.origin.as_str()));
    if unlisted.is_empty() && !no_registry {
        return;
    }
    let deployment = &in_force.trust.deployment;
    let of_gateway = |finding: &Finding| {
        let name = finding.place.item.as_ref().and_then(|item| item.strip_prefix("gateway "));
        name.is_some_and(|name| unlisted.may_hide_of(&format!("{deployment}/{name}")))
    };
    findings.withdraw(|finding| match finding.code {
        Code::NoInput => !unlisted.is_empty(),
        Code::LogMissing if finding.place.origin.is_none() => of_gateway(finding),
        Code::EmptyEvidence | Code::Expired | Code::LogMissing | Code::RegistryRollback | Code::Rollback => {
            finding.place.origin.as_ref().is_some_and(|origin| unlisted.may_hold(origin))
        }
        _ => false,
    });
    for finding in findings.iter_mut() {
        let unjudged = match finding.code {
            Code::PeriodNotProven | Code::TailUnproven => of_gateway(finding),
            Code::UnregisteredLog => no_registry,
            // What is missed may be in any log.
            Code::SystemAbsent | Code::UndeclaredErasure => no_registry || unlisted.may_hide_of(deployment),
            _ => false,
        };
        if unjudged {
            *finding = finding.clone().unjudged();
        }
    }
}

/// Destroyed keys need an erasure in some log of the deployment; recorded erasures need a destroyed key.
fn erasures(options: &Options<'_>, gateways: &mut [Gateway], apart: &Apart, findings: &mut Findings) {
    let declared: BTreeSet<(Origin, u64, String)> = gateways
        .iter()
        .flat_map(|gateway| &gateway.folds)
        .flat_map(|fold| fold.story.erasures.values().map(|told| &told.record))
        .map(|erasure| (erasure.origin.clone(), erasure.position, erasure.content_key.to_string()))
        .collect();
    // Under a shared key each exchange is declared by itself.
    let told =
        gateways.iter().flat_map(|gateway| &gateway.folds).flat_map(|fold| fold.story.erasures.values());
    let told = told.map(|told| (told.record.exchange.clone(), told.record.content_key.to_string()));
    let mut of_exchanges: BTreeSet<(ExchangeId, String)> = told.collect();
    of_exchanges
        .extend(apart.erased.iter().map(|entry| (entry.exchange.clone(), entry.content_key.to_string())));
    for fold in gateways.iter_mut().flat_map(|gateway| &mut gateway.folds) {
        for used in &fold.destroyed {
            let of = used.exchange.clone().map(|exchange| (exchange, used.key.clone()));
            if of.is_some_and(|of| of_exchanges.contains(&of)) {
                fold.story.tally.parts_erased += used.parts;
            } else {
                let place = Place::record(&fold.origin, used.position).of_item(&used.key);
                let place =
                    if let Some(exchange) = &used.exchange { place.of_exchange(exchange) } else { place };
                findings.add(
                    Code::UndeclaredErasure,
                    place,
                    "an `erasure` record before the key goes",
                    "none",
                );
            }
        }
    }
    let Some(keys) = options.keys else { return };
    for (origin, position, key) in &declared {
        let Ok(id) = key.parse::<KeyId>() else { continue };
        if matches!(keys.held(&id), Held::Key(_)) {
            let place = Place::record(origin, *position).of_item(key);
            findings.add(Code::ErasureNotDone, place, "a destroyed key: its erasure is recorded", "the key");
        }
    }
}

fn notes(tally: &tally::Tally, not_judged: &BTreeMap<String, u64>, findings: &mut Findings) {
    let outcomes: u64 = tally.usage_sources.values().sum();
    let uncertain: Vec<String> = ["drained", "partial", "estimated", "unknown"]
        .iter()
        .filter_map(|source| tally.usage_sources.get(*source).map(|count| format!("{count} {source}")))
        .collect();
    if !uncertain.is_empty() {
        let found = format!("{} of {outcomes} outcomes", uncertain.join(", "));
        findings.add(Code::UsageEstimated, Place::default(), "the provider's final usage", found);
    }
    if tally.unproven > 0 {
        let exchanges = tally.kinds.get("intent").copied().unwrap_or(0);
        let thousandths = u128::from(tally.unproven) * 1000 / u128::from(exchanges.max(1));
        let names: Vec<String> =
            tally.unproven_names.iter().map(|(name, count)| format!("`{name}` of {count}")).collect();
        let found = format!(
            "{} of {exchanges} exchanges, {}.{} %: {}",
            tally.unproven,
            thousandths / 10,
            thousandths % 10,
            names.join(", ")
        );
        let expected = "callers known by key, token or certificate, and nothing by their own word alone";
        findings.add(Code::PrincipalUnproven, Place::default(), expected, found);
    }
    if tally.suppressions > 0 {
        let found = format!("{} requests", tally.suppressions);
        findings.add(Code::SuppressionTried, Place::default(), "no attempt to switch recording off", found);
    }
    for (name, count) in not_judged {
        findings.add(
            Code::NotJudged,
            Place::default().of_item(name),
            "names that this version knows",
            format!("{count} times"),
        );
    }
}

/// Logs whose content is readable by whoever reads the store.
fn unencrypted(gateways: &[Gateway], findings: &mut Findings) {
    for fold in gateways.iter().flat_map(|gateway| &gateway.folds) {
        let kept = fold.story.tally.parts_kept;
        if kept > 0 && fold.story.boot.as_ref().is_some_and(|boot| !boot.encrypted) {
            let found = format!("`encryption` off in `boot`, {kept} parts of content kept");
            findings.add(Code::Unencrypted, Place::log(&fold.origin), "content under keys", found);
        }
    }
}

fn systems(options: &Options<'_>, tally: &tally::Tally, findings: &mut Findings) {
    for system in &options.mandate.systems {
        if tally.systems.contains_key(system) {
            continue;
        }
        let place = Place::default().of_item(format!("system {system}"));
        let expected = "at least one exchange";
        findings.push(match tally.beyond.systems {
            0 => Finding::new(Code::SystemAbsent, place, expected, "none"),
            others => {
                let found =
                    format!("not among {} systems; {others} exchanges are of others", tally::NAMES_KEPT);
                let finding = Finding::new(Code::SystemAbsent, place, expected, found);
                finding.with(crate::finding::Severity::Unjudged, Effect::Unjudged)
            }
        });
    }
}

/// Incompleteness that concerns only time outside of what was asked does not change the verdict.
fn outside_is_note(options: &Options<'_>, reports: &[crate::report::GatewayReport], findings: &mut Findings) {
    let asked: Vec<_> = reports.iter().filter_map(|report| report.asked).collect();
    if asked.is_empty() {
        return;
    }
    let (from, to) = (
        asked.iter().map(|a| a.from).min().unwrap_or(i64::MIN),
        asked.iter().map(|a| a.to).max().unwrap_or(i64::MAX),
    );
    for finding in findings.iter_mut() {
        if let Some((start, end)) = finding.during
            && finding.effect == Effect::Incomplete
            && ((options.from.is_some() && end <= from) || (options.to.is_some() && start >= to))
        {
            finding.effect = Effect::Note;
            finding.severity = crate::finding::Severity::Info;
        }
    }
}

/// What is remembered: a log that is worse than before keeps its old entry.
fn visits(
    options: &Options<'_>,
    gateways: &[Gateway],
    registry: Option<&Registry>,
    known: Option<Visits>,
    findings: &Findings,
) -> Visits {
    let mut out = known.unwrap_or_default();
    let bad: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| finding.effect >= Effect::Diverged)
        .filter_map(|finding| finding.place.origin.as_deref())
        .collect();
    for fold in gateways.iter().flat_map(|gateway| &gateway.folds) {
        let Some(newest) = &fold.newest else { continue };
        let older = out.logs.get(&fold.origin).is_some_and(|visit| visit.size > newest.size);
        let contradicts = fold.findings.effect() >= Effect::Diverged;
        if older || contradicts || bad.contains(fold.origin.as_str()) {
            continue;
        }
        let visit = Visit {
            key: fold.key.clone(),
            batch: newest.batch,
            size: newest.size,
            root: newest.root,
            seal: newest.seal,
            seen_at: options.now,
            sealed_at: Some(newest.time),
        };
        out.logs.insert(fold.origin.clone(), visit);
    }
    if let Some(registry) = registry
        && let Some(visit) = registry.visit(options.now)
    {
        let known = out.logs.get(&registry.origin).filter(|known| known.key == visit.key);
        if !bad.contains(registry.origin.as_str()) && known.is_none_or(|known| known.size <= visit.size) {
            out.logs.insert(registry.origin.clone(), visit);
        }
    }
    out
}

/// `unseen` tells whether logs that were seen before could not be listed now.
fn claims(
    options: &Options<'_>,
    gateways: &[Gateway],
    registry: Option<&Registry>,
    (tally, unseen): (&tally::Tally, &dyn Fn(&Visits) -> bool),
    findings: &mut Findings,
) -> Vec<ClaimState> {
    let folds: Vec<&LogFold> = gateways.iter().flat_map(|gateway| &gateway.folds).collect();
    let proven: u64 = folds.iter().map(|fold| fold.counts.batches).sum();
    let signed = proven > 0 && findings.effect() < Effect::Diverged;
    let mut out = vec![ClaimState {
        claim: Claim::Signed,
        reached: signed,
        text: if signed { "signed".into() } else { "NOT signed throughout".into() },
    }];
    let since = folds.iter().filter_map(|fold| fold.consistent_since).min();
    // Of what was seen before all must have been compared.
    let compared = |visits: &Visits| {
        folds.iter().all(|fold| fold.consistent_since.is_some() || !visits.logs.contains_key(&fold.origin))
    };
    let append_only = match (options.remembered, since) {
        (Some(Remembered::Known(visits)), Some(at)) if signed && compared(visits) && !unseen(visits) => {
            (true, format!("append-only since the visit at {}", time::text(at)))
        }
        (Some(Remembered::Known(visits)), _) if visits.logs.is_empty() => (false, "first visit".into()),
        (Some(Remembered::Known(visits)), _) if findings.effect() >= Effect::Diverged || !unseen(visits) => {
            (false, "NOT append-only since the last visit".into())
        }
        (Some(Remembered::FirstVisit), _) => (false, "first visit".into()),
        (Some(_), _) => (false, "NOT compared with the last visit".into()),
        (None, _) => (false, "no state kept".into()),
    };
    out.push(ClaimState { claim: Claim::AppendOnly, reached: append_only.0, text: append_only.1 });
    let retention = match options.bucket {
        Some(bucket) => bucket.claim.clone(),
        None => (false, "retention not enforced by this store".into()),
    };
    for (claim, (reached, text)) in [
        (Claim::Witnessed, witnessed(options, registry, signed, findings)),
        (Claim::Timestamped, timestamped(options, registry, signed, findings)),
        (Claim::RetentionEnforced, retention),
        (Claim::Reconciled, (false, "NOT reconciled".into())),
    ] {
        out.push(ClaimState { claim, reached, text });
    }
    let checked = tally.parts_proven + tally.parts_erased;
    let content = signed && tally.parts_kept == checked;
    let text = match (content, options.keys.is_some()) {
        (true, _) if tally.parts_kept == 0 => "no content kept".into(),
        (true, _) => "content commitments checked".into(),
        (false, false) => "content NOT checked (no key table)".into(),
        (false, true) => format!("content NOT checked throughout ({checked} of {})", tally.parts_kept),
    };
    out.push(ClaimState { claim: Claim::Content, reached: content && tally.parts_kept > 0, text });
    for claim in &options.mandate.claims {
        if let Some(state) = out.iter().find(|state| state.claim == *claim && !state.reached) {
            let place = Place::default().of_item(format!("claim {}", claim.as_str()));
            findings.push(Finding::new(Code::ClaimNotReached, place, claim.as_str(), state.text.clone()));
        }
    }
    out
}

/// Whether organisations other than the operator cosigned the registry, how many, and up to when.
fn witnessed(
    options: &Options<'_>,
    registry: Option<&Registry>,
    signed: bool,
    findings: &mut Findings,
) -> (bool, String) {
    let wanted = options.mandate.organisations;
    let Some((count, until)) = registry.and_then(|registry| registry.witnessed(wanted)) else {
        if options.mandate.claims.contains(&Claim::Witnessed) {
            // The operator's own witnesses were a note; where others are asked for they are a finding.
            for finding in findings.iter_mut().filter(|f| f.code == Code::WitnessNotIndependent) {
                (finding.severity, finding.effect) = (finding.code.severity(), finding.code.effect());
            }
        }
        return (false, "NOT witnessed".into());
    };
    let organisations = if count == 1 { "organisation" } else { "organisations" };
    let text = format!("witnessed by {count} {organisations} up to {}", time::text(until));
    let fresh = fresh(options, "witnessed", until, options.mandate.witnessed_within, findings);
    let enough = count >= wanted.unwrap_or(1) as usize;
    let reached = signed && fresh && enough;
    match (reached, enough, wanted) {
        (true, ..) => (true, text),
        (false, false, Some(wanted)) => (false, format!("NOT {text}: {wanted} were asked for")),
        (false, ..) => (false, format!("NOT {text}")),
    }
}

/// Whether a timestamp authority put a time to the registry, and up to when.
fn timestamped(
    options: &Options<'_>,
    registry: Option<&Registry>,
    signed: bool,
    findings: &mut Findings,
) -> (bool, String) {
    let Some(stamp) = registry.and_then(Registry::stamped) else { return (false, "NOT timestamped".into()) };
    let text = format!("timestamped up to {}", time::text(stamp.sealed_at));
    let fresh = fresh(options, "timestamped", stamp.sealed_at, options.mandate.timestamped_within, findings);
    if signed && fresh { (true, text) } else { (false, format!("NOT {text}")) }
}

/// Whether what is anchored reaches near enough to the end of the asked interval; names it where it does not.
fn fresh(
    options: &Options<'_>,
    what: &str,
    until: i64,
    within: Option<i64>,
    findings: &mut Findings,
) -> bool {
    let Some(within) = within else { return true };
    let to = options.to.unwrap_or(options.now);
    if until.saturating_add(within) >= to {
        return true;
    }
    let place = Place::default().of_item(format!("claim {what}"));
    let expected = format!("{what} up to {} at least", time::text(to.saturating_sub(within)));
    let found = format!("up to {}", time::text(until));
    findings.push(Finding::new(Code::StaleAnchor, place, expected, found));
    false
}

fn not_checked(
    options: &Options<'_>,
    registry: Option<&Registry>,
    tally: &tally::Tally,
    erased_unknown: u64,
) -> Vec<String> {
    let mut out = Vec::new();
    if erased_unknown > 0 {
        out.push(format!(
            "{erased_unknown} erasures: whether a legal hold covered them; the records of what was erased cannot be read"
        ));
    }
    if tally.parts_unopened > 0 {
        let why = if options.keys.is_some() { "no key in the key table" } else { "no key table was given" };
        out.push(format!("commitments of {} parts of content: {why}", tally.parts_unopened));
    }
    if tally.not_recomputed > 0 {
        out.push(format!("cost of {} outcomes: their price book cannot be read", tally.not_recomputed));
    }
    let told = |kind: &str| tally.kinds.get(kind).copied().unwrap_or_default();
    if told("intent") + told("refusal") > ids::REMEMBERED_IDS as u64 {
        let among = format!("within {} exchanges of a log", ids::REMEMBERED_IDS);
        out.push(format!("exchange ids that are used again: compared {among}"));
    }
    if options.remembered.is_none() {
        out.push("consistency with an earlier visit: no state folder".into());
    }
    out.push(format!("{PAST_THE_GATEWAYS}: not reconciled with providers' bills"));
    match options.bucket {
        Some(bucket) => out.extend(bucket.not_checked.iter().cloned()),
        None => out.push("retention: a directory store does not enforce any".into()),
    }
    let anchored = registry.map_or((false, false), |registry| {
        (registry.witnessed(None).is_some(), registry.stamped().is_some())
    });
    match anchored {
        (false, false) => out.push("witnesses and timestamps: this store holds none that counts".into()),
        (true, true) => {}
        (witnessed, _) => {
            let missing = if witnessed { "timestamps" } else { "witnesses" };
            out.push(format!("{missing}: this store holds none that counts"));
        }
    }
    if anchored.0 && options.witness_notes.is_empty() {
        out.push(
            "what witnesses saw last: none was asked; the store could leave out what they cosigned since"
                .into(),
        );
    }
    out
}

/// The object name of a batch's seal.
pub(crate) fn seal_name(origin: &Origin, batch: u64) -> String {
    ObjectName::Seal { origin: origin.clone(), batch }.to_string()
}

impl Report {
    /// The verdict after more findings were added.
    pub fn settle(&mut self) {
        self.verdict = Verdict::from(self.findings.effect());
        self.findings.sort();
    }
}

#[cfg(test)]
mod attempt_tests;
#[cfg(test)]
mod base_tests;
#[cfg(test)]
mod code_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod removal_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unjudged_tests;
