//! The balancer against a clock of the tests' own: how it spreads, what it leaves alone, and when that comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{
    Active, BaseUrl, CoolDown, Credential, Health, Healthy, Method, Passive, ProviderKey, Statuses, Unhealthy,
};

const SECOND: Duration = Duration::from_secs(1);
const BAD: Report = Report {
    failure: None,
    status: Some(503),
    told: false,
    head_latency: None,
    retry_after: None,
    forwarded: false,
};
const GOOD: Report = Report {
    failure: None,
    status: Some(200),
    told: false,
    head_latency: Some(Duration::from_millis(50)),
    retry_after: None,
    forwarded: false,
};

fn name(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

fn passive() -> Health {
    Health { passive: Some(Passive { share: 0, ..Passive::default() }), active: None }
}

fn with_keys(
    provider: &str,
    keys: &[&str],
    health: Option<&Health>,
    before: Option<&Upstream>,
) -> Arc<Upstream> {
    let (provider, url) = (name(provider), BaseUrl::parse("http://127.0.0.1:1").unwrap());
    let typed: Vec<ProviderKey> = keys
        .iter()
        .map(|key| ProviderKey { name: name(key), credential: Credential::Env("X".into()) })
        .collect();
    let cool_down = CoolDown::default();
    let spec = UpstreamSpec { name: &provider, base_url: &url, keys: &typed, cool_down: &cool_down, health };
    Arc::new(Upstream::new(&spec, keys, &Meters::default(), before))
}

fn spec(target: &str, weight: u64, priority: u64) -> TargetSpec {
    TargetSpec {
        name: name(target),
        upstream: with_keys(target, &[], Some(&passive()), None),
        weight,
        priority,
    }
}

fn balancer(by: By, targets: &[TargetSpec]) -> Arc<Balancer> {
    Arc::new(Balancer::new(
        &name("r"),
        targets,
        &Balance { by, ..Balance::default() },
        &Meters::default(),
        None,
    ))
}

fn weighed(weights: &[u64]) -> Vec<TargetSpec> {
    weights.iter().enumerate().map(|(at, weight)| spec(&format!("t{at}"), *weight, 0)).collect()
}

/// Picks and says what became of it.
fn once(balancer: &Arc<Balancer>, now: Instant, excluded: &[usize], report: &Report) -> usize {
    let picked = balancer.pick(&Pick { excluded, ..Pick::at(now) }).unwrap();
    let target = picked.target();
    picked.done(report, now);
    target
}

/// Ejects target 0 of a balancer with a second one.
fn eject(balancer: &Arc<Balancer>, now: Instant) {
    for _ in 0..5 {
        assert_eq!(once(balancer, now, &[1], &BAD), 0);
    }
    assert_eq!(balancer.targets[0].state(now), "ejected");
}

/// Draws that are the same in each run, and whose seed a failure shows.
fn seeds() -> impl Iterator<Item = (u64, Random)> {
    let long = std::env::var("AFFIDAVIT_LONG").is_ok_and(|long| long == "1");
    let count = if long { 2000 } else { 60 };
    println!("{count} seeds");
    (1..=count).map(|seed: u64| (seed, Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
}

#[test]
fn weights_are_exact_over_a_cycle_and_interleaved() {
    for (seed, mut random) in seeds() {
        let weights: Vec<u64> = (0..=random.below(6)).map(|_| random.below(9) as u64).collect();
        let sum: u64 = weights.iter().sum();
        if sum == 0 {
            continue;
        }
        let balancer = balancer(By::Weight, &weighed(&weights));
        let now = Instant::now();
        for _ in 0..3 {
            let mut counts = vec![0; weights.len()];
            for _ in 0..sum {
                counts[once(&balancer, now, &[], &GOOD)] += 1;
            }
            assert_eq!(counts, weights, "seed {seed}");
        }
    }
    let balancer = balancer(By::Weight, &weighed(&[5, 1, 1]));
    let order: Vec<usize> = (0..7).map(|_| once(&balancer, Instant::now(), &[], &GOOD)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_target_of_weight_0_is_only_picked_where_no_other_can_be() {
    let targets = [spec("a", 0, 0), spec("b", 2, 0), spec("c", 1, 1), spec("d", 0, 1)];
    for by in [By::Weight, By::Hash, By::Latency, By::Cost, By::Errors] {
        let balancer = balancer(by, &targets);
        let now = Instant::now();
        assert!((0..50).all(|_| once(&balancer, now, &[], &GOOD) == 1), "{by:?}");
        assert_eq!(once(&balancer, now, &[1], &GOOD), 2);
        assert_eq!(once(&balancer, now, &[1, 2], &GOOD), 0);
        assert_eq!(once(&balancer, now, &[0, 1, 2], &GOOD), 3);
        assert!(balancer.pick(&Pick { excluded: &[0, 1, 2, 3], ..Pick::at(now) }).is_none());
    }
    assert!(balancer_of_none().pick(&Pick::at(Instant::now())).is_none());
}

fn balancer_of_none() -> Arc<Balancer> {
    balancer(By::Weight, &[])
}

/// The target of each of 10,000 values.
fn spread(balancer: &Arc<Balancer>, excluded: &[usize]) -> Vec<usize> {
    let now = Instant::now();
    let of = |value: u32| {
        let bytes = value.to_be_bytes();
        let picked = balancer.pick(&Pick { hash: Some(&bytes), excluded, ..Pick::at(now) }).unwrap();
        picked.target()
    };
    (0..10_000).map(of).collect()
}

#[test]
fn hashed_values_are_spread_by_weight_and_only_those_of_a_leaving_target_move() {
    let targets = weighed(&[2, 3, 2, 3]);
    let balancer = balancer(By::Hash, &targets);
    let whole = spread(&balancer, &[]);
    for (target, weight) in [2_u8, 3, 2, 3].into_iter().enumerate() {
        let found = whole.iter().filter(|at| **at == target).count() as f64;
        let wanted = 10_000.0 * f64::from(weight) / 10.0;
        assert!((found - wanted).abs() <= wanted * 0.05, "{target}: {found} of {wanted}");
    }
    // Excluded, ejected or taken out of the configuration: the same values move.
    let without = spread(&balancer, &[1]);
    for (before, after) in whole.iter().zip(&without) {
        assert!(*before == 1 || before == after, "{before} moved to {after}");
        assert_ne!(*after, 1);
    }
    let fewer = [&targets[..1], &targets[2..]].concat();
    let other = super::tests::balancer(By::Hash, &fewer);
    let names = |balancer: &Balancer, at: usize| balancer.names[at].clone();
    for (one, two) in without.iter().zip(&spread(&other, &[])) {
        assert_eq!(names(&balancer, *one), names(&other, *two));
    }
    assert_eq!(whole, spread(&super::tests::balancer(By::Hash, &targets), &[]), "another process agrees");
}

#[test]
fn what_is_hashed_is_taken_from_the_request() {
    let balancer = |hash: &str| {
        let config = Balance { by: By::Hash, hash: hash.parse().ok(), ..Balance::default() };
        Balancer::new(&name("r"), &weighed(&[1, 1]), &config, &Meters::default(), None)
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-session", "s1".parse().unwrap());
    let header = balancer("header:x-session");
    let none = HeaderMap::new();
    let said = |headers| Said {
        headers,
        consumer: Some("c"),
        subject: None,
        team: Some("t"),
        model: Some("m"),
        conversation: Some([7; 16]),
    };
    assert_eq!(header.hash_value(&said(&headers)), Some(b"s1".to_vec()));
    assert_eq!(header.hash_value(&said(&none)), None);
    assert_eq!(balancer("consumer").hash_value(&said(&headers)), Some(b"c".to_vec()));
    assert_eq!(balancer("subject").hash_value(&said(&headers)), None);
    // Several: all must be there, and none runs into the next.
    let both = |team, model| {
        balancer("team+model").hash_value(&Said { team: Some(team), model: Some(model), ..said(&none) })
    };
    assert!(both("ab", "c").is_some() && both("ab", "c") != both("a", "bc"));
    assert_eq!(balancer("team+subject").hash_value(&said(&headers)), None);
    let conversation = balancer("conversation");
    assert!(conversation.wants_conversation() && !header.wants_conversation());
    assert_eq!(conversation.hash_value(&said(&headers)), Some(vec![7; 16]));
    // A request that does not have it is spread by weight.
    let balancer = Arc::new(header);
    let seen: BTreeSet<usize> = (0..4).map(|_| once(&balancer, Instant::now(), &[], &GOOD)).collect();
    assert_eq!(seen.len(), 2);
}

#[test]
fn what_is_meant_gets_the_request_and_health_and_priority_hold() {
    let targets = [spec("code", 1, 0), spec("law", 1, 0), spec("rest", 1, 0), spec("spare", 1, 1)];
    let balancer = balancer(By::Semantic, &targets);
    let now = Instant::now();
    let ask = |scores: &[Option<i64>], excluded: &[usize]| {
        let meant = Some(Meant { scores, fallback: 2 });
        let picked = balancer.pick(&Pick { excluded, meant, ..Pick::at(now) }).unwrap();
        let target = picked.target();
        picked.done(&GOOD, now);
        target
    };
    let both = [Some(700_000), Some(800_000), None, Some(900_000)];
    assert_eq!(ask(&both, &[]), 1, "the nearest of the first priority");
    assert_eq!(ask(&both, &[1]), 0, "the next one where it was asked already");
    assert_eq!(ask(&both, &[0, 1]), 2, "the fallback behind them");
    assert_eq!(ask(&both, &[0, 1, 2]), 3);
    assert_eq!(ask(&[None; 4], &[]), 2, "near to none");
    assert_eq!(ask(&[], &[]), 2, "nothing is known");
    let first: BTreeSet<usize> = (0..4).map(|_| ask(&[None; 4], &[2])).collect();
    assert_eq!(first, BTreeSet::from([0, 1]), "without its fallback by weight");
    // Equally near ones share by weight.
    let equal: BTreeSet<usize> = (0..4).map(|_| ask(&[Some(1), Some(1), None, None], &[])).collect();
    assert_eq!(equal, BTreeSet::from([0, 1]));
    for _ in 0..5 {
        assert_eq!(once(&balancer, now, &[0, 2, 3], &BAD), 1);
    }
    assert_eq!(ask(&both, &[]), 0, "the nearest one is left alone");
    assert!((0..4).all(|_| balancer.pick(&Pick::at(now)).unwrap().target() != 1));
}

#[test]
fn a_lower_priority_gets_requests_only_while_the_higher_one_is_out() {
    let balancer = balancer(By::Weight, &[spec("a", 1, 0), spec("b", 1, 1)]);
    let now = Instant::now();
    assert!((0..10).all(|_| once(&balancer, now, &[], &GOOD) == 0));
    eject(&balancer, now);
    assert!((0..10).all(|_| once(&balancer, now, &[], &GOOD) == 1));
    assert_eq!(once(&balancer, now + 30 * SECOND, &[], &GOOD), 0);
    assert_eq!(balancer.targets[0].state(now + 30 * SECOND), "healthy");
    assert_eq!(once(&balancer, now + 30 * SECOND, &[], &GOOD), 0);
}

#[test]
fn failures_count_only_within_their_time_and_above_their_share() {
    let now = Instant::now();
    let old = balancer(By::Weight, &weighed(&[1, 1]));
    for step in 0..40 {
        once(&old, now + step * 8 * SECOND, &[1], &BAD);
        assert_eq!(old.targets[0].state(now + step * 8 * SECOND), "healthy", "{step}");
    }
    let health = Health { passive: Some(Passive::default()), active: None };
    let upstream = with_keys("p", &[], Some(&health), None);
    let targets = [TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 }];
    let busy = balancer(By::Weight, &targets);
    for at in 0..1000 {
        // A tenth, where a fifth is asked for.
        once(&busy, now, &[], if at % 10 == 9 { &BAD } else { &GOOD });
    }
    assert_eq!(busy.targets[0].state(now), "healthy");
    let mut failed = 0;
    while busy.targets[0].state(now) == "healthy" {
        once(&busy, now, &[], &BAD);
        failed += 1;
    }
    assert!((100..=130).contains(&failed), "{failed}");
}

#[test]
fn every_kind_of_failure_ejects_and_nothing_else_does() {
    let failure = |failure| Report { failure: Some(failure), ..Report::default() };
    let status = |status| Report { status: Some(status), ..Report::default() };
    let table = [
        (failure(Failure::Connect), true),
        (failure(Failure::Timeout), true),
        (failure(Failure::Aborted), true),
        (status(500), true),
        (status(529), true),
        (status(200), false),
        (status(400), false),
        (status(429), false),
        (Report::default(), false),
    ];
    for (report, ejects) in table {
        let balancer = balancer(By::Weight, &weighed(&[1, 1]));
        let now = Instant::now();
        for _ in 0..5 {
            once(&balancer, now, &[1], &report);
        }
        assert_eq!(balancer.targets[0].state(now) == "ejected", ejects, "{report:?}");
    }
    // Without `health` nothing is left alone.
    let upstream = with_keys("p", &[], None, None);
    let targets = [TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 }];
    let never = balancer(By::Weight, &targets);
    (0..100).for_each(|_| {
        once(&never, Instant::now(), &[], &BAD);
    });
    assert_eq!(never.targets[0].state(Instant::now()), "healthy");
}

#[test]
fn an_ejection_doubles_while_trials_fail_and_begins_anew_behind_a_recovery() {
    let balancer = balancer(By::Weight, &weighed(&[1, 1]));
    let mut now = Instant::now();
    eject(&balancer, now);
    for pause in [30, 60, 120, 240, 480, 600, 600] {
        let last = now + pause * SECOND - Duration::from_millis(1);
        assert_eq!(balancer.targets[0].state(last), "ejected", "{pause}");
        assert_eq!(once(&balancer, last, &[], &GOOD), 1);
        now += pause * SECOND;
        assert_eq!(balancer.targets[0].state(now), "half_open", "{pause}");
        assert_eq!(once(&balancer, now, &[1], &BAD), 0);
        assert_eq!(balancer.targets[0].state(now), "ejected", "{pause}");
    }
    now += 600 * SECOND;
    assert_eq!(once(&balancer, now, &[1], &GOOD), 0);
    assert_eq!(balancer.targets[0].state(now), "healthy");
    eject(&balancer, now);
    assert_eq!(balancer.targets[0].state(now + 30 * SECOND), "half_open");
}

#[test]
fn a_half_open_target_gets_one_request_at_a_time_under_100_threads() {
    let balancer = balancer(By::Weight, &weighed(&[1, 1]));
    let now = Instant::now();
    eject(&balancer, now);
    let later = now + 30 * SECOND;
    let (trials, most, others) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = std::sync::Barrier::new(100);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    let picked = balancer.pick(&Pick::at(later)).unwrap();
                    if picked.target() == 1 {
                        others.fetch_add(1, Ordering::Relaxed);
                        picked.done(&GOOD, later);
                        continue;
                    }
                    let at_once = trials.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(at_once, Ordering::SeqCst);
                    std::thread::yield_now();
                    trials.fetch_sub(1, Ordering::SeqCst);
                    // Its caller leaves: no verdict, the next one tries.
                    drop(picked);
                }
            });
        }
    });
    println!("100 threads, 2000 requests, {} not to the ejected target", others.load(Ordering::Relaxed));
    assert_eq!(most.load(Ordering::Relaxed), 1);
    assert_eq!(balancer.targets[0].state(later), "half_open");
    assert_eq!(once(&balancer, later, &[1], &GOOD), 0);
    assert_eq!(balancer.targets[0].state(later), "healthy");
}

#[test]
fn an_answer_that_breaks_off_behind_its_head_is_a_failure_and_a_trial_is_judged_at_its_end() {
    let health =
        Health { passive: Some(Passive { failures: 2, share: 0, ..Passive::default() }), active: None };
    let specs = [TargetSpec { upstream: with_keys("a", &[], Some(&health), None), ..spec("t0", 1, 0) }];
    let balancer = balancer(By::Weight, &specs);
    let now = Instant::now();
    let ask = |now| balancer.pick(&Pick::at(now)).unwrap().answers(&GOOD, now);
    let state = |now| balancer.targets[0].state(now);
    ask(now).ended(Some(Failure::Aborted), now);
    ask(now).ended(None, now);
    drop(ask(now));
    assert_eq!(state(now), "healthy", "one of three");
    ask(now).ended(Some(Failure::Timeout), now);
    assert_eq!(state(now), "ejected");
    let later = now + 30 * SECOND;
    let trial = ask(later);
    assert_eq!(state(later), "half_open", "a head is no proof");
    trial.ended(Some(Failure::Aborted), later);
    assert_eq!(state(later), "ejected");
    let later = later + 60 * SECOND;
    drop(ask(later));
    assert_eq!(state(later), "half_open", "its caller left");
    ask(later).ended(None, later);
    assert_eq!(state(later), "healthy");
}

#[test]
fn what_began_before_an_ejection_says_nothing_of_the_time_behind_it() {
    let balancer = balancer(By::Weight, &weighed(&[1, 1]));
    let now = Instant::now();
    let early: Vec<Picked> =
        (0..2).map(|_| balancer.pick(&Pick { excluded: &[1], ..Pick::at(now) }).unwrap()).collect();
    eject(&balancer, now);
    let mut early = early.into_iter();
    early.next().unwrap().done(&GOOD, now + SECOND);
    assert_eq!(balancer.targets[0].state(now + SECOND), "ejected");
    early.next().unwrap().done(&BAD, now + 29 * SECOND);
    assert_eq!(balancer.targets[0].state(now + 30 * SECOND), "half_open");
}

#[test]
fn where_all_are_ejected_all_are_asked_and_a_success_brings_one_back() {
    let balancer = balancer(By::Weight, &weighed(&[1, 1]));
    let now = Instant::now();
    eject(&balancer, now);
    (0..5).for_each(|_| {
        once(&balancer, now, &[0], &BAD);
    });
    let seen: BTreeSet<usize> = (0..4)
        .map(|_| {
            let picked = balancer.pick(&Pick::at(now)).unwrap();
            assert!(picked.in_panic());
            picked.target()
        })
        .collect();
    assert_eq!(seen.len(), 2);
    let by = ByRoute { route: "r".into() };
    assert_eq!(balancer.meters.panics.get_or_create(&by).get(), 4);
    // An answer that begins may still break off.
    for failure in [Some(Failure::Aborted), None] {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        let back = picked.target();
        let answering = picked.answers(&GOOD, now);
        assert_eq!(balancer.targets[back].state(now), "ejected");
        answering.ended(failure, now);
        assert_eq!(balancer.targets[back].state(now), if failure.is_some() { "ejected" } else { "healthy" });
    }
    assert!(!balancer.pick(&Pick::at(now)).unwrap().in_panic());
}

#[test]
fn the_quicker_target_gets_more_and_a_slow_one_is_tried_again() {
    let balancer = balancer(By::Latency, &weighed(&[1, 1]));
    let mut now = Instant::now();
    let mut counts = [0; 2];
    let answer = |target: usize| {
        let ms = if target == 0 { 20 } else { 400 };
        Report { head_latency: Some(Duration::from_millis(ms)), ..GOOD }
    };
    // One of which nothing is known comes first.
    let first: BTreeSet<usize> = (0..2)
        .map(|_| {
            let picked = balancer.pick(&Pick::at(now)).unwrap();
            let target = picked.target();
            picked.done(&answer(target), now);
            target
        })
        .collect();
    assert_eq!(first.len(), 2);
    for _ in 0..2000 {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        let target = picked.target();
        counts[target] += 1;
        now += Duration::from_millis(50);
        picked.done(&answer(target), now);
    }
    assert!(counts[0] > counts[1] * 10 && counts[1] > 0, "{counts:?}");
}

#[test]
fn a_target_that_fails_fast_is_not_quick() {
    let targets: Vec<TargetSpec> =
        ["a", "b"].map(|at| TargetSpec { upstream: with_keys(at, &[], None, None), ..spec(at, 1, 0) }).into();
    let balancer = balancer(By::Latency, &targets);
    let now = Instant::now();
    let mut counts = [0; 2];
    for _ in 0..200 {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        let target = picked.target();
        counts[target] += 1;
        let ms = Some(Duration::from_millis(if target == 0 { 1 } else { 500 }));
        let status = Some(if target == 0 { 500 } else { 200 });
        picked.done(&Report { status, head_latency: ms, ..Report::default() }, now);
    }
    assert!(counts[1] > 190, "{counts:?}");
}

#[test]
fn the_cheapest_is_picked_and_those_without_a_price_come_last() {
    let balancer = balancer(By::Cost, &weighed(&[1, 1, 1, 1]));
    let now = Instant::now();
    let prices = [Some(3.0), Some(1.0), None, Some(1.0)];
    let price = |index: usize| prices[index];
    let pick = |excluded: &[usize]| {
        let picked = balancer.pick(&Pick { price: Some(&price), excluded, ..Pick::at(now) }).unwrap();
        picked.target()
    };
    let seen: BTreeSet<usize> = (0..10).map(|_| pick(&[])).collect();
    assert_eq!(seen, BTreeSet::from([1, 3]));
    assert_eq!((pick(&[1, 3]), pick(&[0, 1, 3])), (0, 2));
    let odd = |_: usize| Some(f64::NAN);
    let picked = balancer.pick(&Pick { price: Some(&odd), ..Pick::at(now) });
    assert!(picked.is_some());
}

#[test]
fn those_that_fail_least_are_picked_until_errors_are_forgotten() {
    let targets: Vec<TargetSpec> = ["a", "b", "c"]
        .map(|at| TargetSpec { upstream: with_keys(at, &[], None, None), ..spec(at, 1, 0) })
        .into();
    let balancer = balancer(By::Errors, &targets);
    let now = Instant::now();
    (0..5).for_each(|_| {
        once(&balancer, now, &[1, 2], &BAD);
    });
    let seen: BTreeSet<usize> = (0..10).map(|_| once(&balancer, now, &[], &GOOD)).collect();
    assert_eq!(seen, BTreeSet::from([1, 2]));
    let seen: BTreeSet<usize> = (0..10).map(|_| once(&balancer, now + 300 * SECOND, &[], &GOOD)).collect();
    assert_eq!(seen.len(), 3);
}

#[test]
fn an_ejected_target_is_tried_again_whatever_is_estimated_of_it() {
    for by in [By::Latency, By::Errors] {
        let balancer = balancer(by, &weighed(&[1, 1]));
        let now = Instant::now();
        eject(&balancer, now);
        assert_eq!(once(&balancer, now + 30 * SECOND, &[], &GOOD), 0, "{by:?}");
        assert_eq!(balancer.targets[0].state(now + 30 * SECOND), "healthy", "{by:?}");
    }
}

#[test]
fn a_conversation_stays_at_its_target_while_that_is_in_order() {
    let config = Balance { sticky: Some(Sticky::Conversation), ..Balance::default() };
    let targets = weighed(&[1, 1, 1]);
    let made = |before: Option<&Balancer>, targets: &[TargetSpec]| {
        Arc::new(Balancer::new(&name("r"), targets, &config, &Meters::default(), before))
    };
    let first = made(None, &targets);
    let now = Instant::now();
    let of = |balancer: &Arc<Balancer>, key: u8, excluded: &[usize], now: Instant| {
        let pick = Pick { conversation: Some([key; 16]), excluded, ..Pick::at(now) };
        let picked = balancer.pick(&pick).unwrap();
        let target = picked.target();
        picked.done(&GOOD, now);
        target
    };
    let places: Vec<usize> = (0..30).map(|key| of(&first, key, &[], now)).collect();
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 3);
    for (key, place) in (0..30).zip(&places) {
        assert_eq!(of(&first, key, &[], now), *place);
    }
    // One that had to go elsewhere stays there.
    let other = of(&first, 0, &[places[0]], now);
    assert_ne!(other, places[0]);
    assert_eq!(of(&first, 0, &[], now), other);
    // A reload, also one that changes the order, leaves it where it is; what a response is known by leads there too.
    let turned: Vec<TargetSpec> = targets.iter().rev().cloned().collect();
    let next = made(Some(&first), &turned);
    assert_eq!(of(&next, 0, &[], now), 2 - other);
    next.keep(dialects::conversation::stored_conversation("resp_1"), 1);
    let pick = Pick {
        conversation: dialects::conversation_key(
            dialects::Dialect::OpenAi,
            br#"{"previous_response_id":"resp_1","input":"x"}"#,
        ),
        ..Pick::at(now)
    };
    assert!((0..5).all(|_| next.pick(&pick).unwrap().target() == 1));
}

#[test]
fn a_stored_conversation_stays_at_its_target_where_a_hash_decides() {
    let config = Balance { by: By::Hash, hash: "conversation".parse().ok(), ..Balance::default() };
    let targets = weighed(&[1, 1, 1]);
    let balancer = Arc::new(Balancer::new(&name("r"), &targets, &config, &Meters::default(), None));
    let now = Instant::now();
    let of = |key: [u8; 16], excluded: &[usize]| {
        let pick = Pick { hash: Some(&key), conversation: Some(key), excluded, ..Pick::at(now) };
        balancer.pick(&pick).unwrap().target()
    };
    for turn in 0..30 {
        let key = [turn; 16];
        let hashed = of(key, &[]);
        assert_eq!(of(key, &[]), hashed, "what was only hashed is not remembered");
        let elsewhere = (hashed + 1) % 3;
        balancer.keep(key, elsewhere);
        assert_eq!((of(key, &[]), of(key, &[hashed])), (elsewhere, elsewhere));
        assert_ne!(of(key, &[elsewhere]), elsewhere);
    }
}

#[test]
fn places_of_conversations_are_bounded_and_the_newest_stay() {
    let places = Places::default();
    let target: Arc<str> = Arc::from("a");
    for at in 0..300_000_u32 {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&at.to_be_bytes());
        places.put(key, &target);
    }
    assert!(places.len() <= 131_072, "{}", places.len());
    let mut newest = [0; 16];
    newest[..4].copy_from_slice(&299_999_u32.to_be_bytes());
    assert!(places.of(&newest).is_some() && places.of(&[0; 16]).is_none());
}

#[test]
fn keys_go_round_and_one_that_is_not_taken_is_left_alone() {
    let upstream = with_keys("p", &["k1", "k2", "k3"], None, None);
    let targets = [TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 }, spec("b", 1, 1)];
    let balancer = balancer(By::Weight, &targets);
    let now = Instant::now();
    let one = |now: Instant, report: &Report| {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        let key = (picked.target() == 0).then(|| picked.key_name().unwrap().to_owned());
        picked.done(report, now);
        key
    };
    let keys: Vec<_> = (0..6).map(|_| one(now, &GOOD).unwrap()).collect();
    assert_eq!(keys, ["k1", "k2", "k3", "k1", "k2", "k3"]);
    let answered = |status: u16, retry_after: Option<Duration>| Report {
        status: Some(status),
        retry_after,
        ..Report::default()
    };
    let picked = balancer.pick(&Pick::at(now)).unwrap();
    assert_eq!(picked.key_name(), Some("k1"));
    assert!(picked.done(&answered(401, None), now), "the others are free");
    assert_eq!(one(now, &answered(429, Some(100 * SECOND))).unwrap(), "k2");
    assert!((0..5).all(|_| one(now, &GOOD).unwrap() == "k3"));
    assert_eq!(one(now, &answered(429, None)).unwrap(), "k3");
    // None is left: the next priority, until the first may be used again.
    assert_eq!(balancer.targets[0].state(now), "cooling");
    assert_eq!(one(now + 29 * SECOND, &GOOD), None);
    assert_eq!(one(now + 30 * SECOND, &GOOD).unwrap(), "k3");
    let at = now + 100 * SECOND;
    let seen: BTreeSet<_> = (0..4).map(|_| one(at, &GOOD).unwrap()).collect();
    assert_eq!(seen, BTreeSet::from(["k2".to_owned(), "k3".to_owned()]));
    let at = now + 300 * SECOND;
    let seen: BTreeSet<_> = (0..4).map(|_| one(at, &GOOD).unwrap()).collect();
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_is_said_of_a_callers_own_credential_is_said_of_no_key_and_no_target() {
    let upstream = with_keys("p", &["k1", "k2"], Some(&passive()), None);
    let balancer = balancer(By::Weight, &[TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 }]);
    let now = Instant::now();
    for status in [401, 402, 403, 429].repeat(5) {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        assert!(!picked.in_panic());
        assert!(!picked.done(&Report { status: Some(status), forwarded: true, ..Report::default() }, now));
    }
    assert_eq!(balancer.targets[0].state(now), "healthy");
}

#[test]
fn what_a_body_tells_under_200_is_said_of_the_key_only_where_it_can_be_of_nothing_else() {
    let now = Instant::now();
    for (status, told, is_of_key) in
        [(401, true, true), (402, true, true), (429, true, true), (403, true, false), (403, false, true)]
    {
        let upstream = with_keys("p", &["k1", "k2"], None, None);
        let spec = TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 };
        let picked = balancer(By::Weight, &[spec]).pick(&Pick::at(now)).unwrap();
        let report = Report { status: Some(status), told, ..Report::default() };
        assert_eq!(picked.is_refused(&report), is_of_key && status != 429, "{status} {told}");
        assert_eq!(picked.done(&report, now), is_of_key, "{status} {told}");
    }
}

#[test]
fn where_no_key_is_left_and_no_other_target_the_one_that_is_free_first_goes() {
    let upstream = with_keys("p", &["k1", "k2"], None, None);
    let balancer = balancer(By::Weight, &[TargetSpec { name: name("a"), upstream, weight: 1, priority: 0 }]);
    let now = Instant::now();
    for (seconds, is_another_free) in [(60, true), (20, false)] {
        let picked = balancer.pick(&Pick::at(now)).unwrap();
        let retry_after = Some(seconds * SECOND);
        let report = Report { status: Some(429), retry_after, ..Report::default() };
        assert_eq!(picked.done(&report, now), is_another_free);
    }
    let picked = balancer.pick(&Pick::at(now)).unwrap();
    assert!(picked.in_panic());
    assert_eq!(picked.key_name(), Some("k2"));
    // No provider sends anyone away for longer than an hour.
    picked.done(&Report { status: Some(429), retry_after: Some(Duration::MAX), ..Report::default() }, now);
    assert_eq!(balancer.targets[0].state(now + 3600 * SECOND), "healthy");
}

#[test]
fn a_reload_keeps_what_is_known_of_targets_and_keys_that_stay() {
    let now = Instant::now();
    let upstream = with_keys("p", &["k1", "k2"], Some(&passive()), None);
    let of = |upstream: &Arc<Upstream>| {
        [
            TargetSpec { name: name("a"), upstream: Arc::clone(upstream), weight: 1, priority: 0 },
            spec("b", 1, 0),
        ]
    };
    let config = Balance::default();
    let meters = Meters::default();
    let first = Arc::new(Balancer::new(&name("r"), &of(&upstream), &config, &meters, None));
    eject(&first, now);
    upstream.keys.answered(0, 401, None, now);
    let running = first.pick(&Pick { excluded: &[0], ..Pick::at(now) }).unwrap();
    let again = with_keys("p", &["k1", "k2"], Some(&passive()), Some(&upstream));
    let next = Arc::new(Balancer::new(&name("r"), &of(&again), &config, &meters, Some(&first)));
    assert_eq!(next.targets[0].state(now), "ejected");
    assert_eq!((again.keys.take(now), again.keys.take(now)), (1, 1));
    assert_eq!(next.targets[1].load(now).1, 1);
    running.done(&GOOD, now);
    assert_eq!(next.targets[1].load(now).1, 0);
    // A key of another value is another key, and a target of another provider another target.
    let changed = with_keys("p", &["k9", "k2"], Some(&passive()), Some(&upstream));
    assert!([changed.keys.take(now), changed.keys.take(now)].contains(&0));
    let moved = [TargetSpec { upstream: with_keys("q", &[], None, None), ..of(&upstream)[0].clone() }];
    let other = Balancer::new(&name("r"), &moved, &config, &meters, Some(&first));
    assert_eq!(other.targets[0].state(now), "healthy");
    // Where nothing ejects any more nothing would bring it back.
    let plain = with_keys("p", &["k1", "k2"], None, Some(&upstream));
    let free = Balancer::new(&name("r"), &of(&plain), &config, &meters, Some(&first));
    assert_eq!(free.targets[0].state(now), "healthy");
    // What is gone is shown no more.
    first.measure(now);
    first.gives_way(Some(&other));
    let mut shown = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("state", "x", meters.state.clone());
    prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
    assert!(!shown.contains("target=\"b\"") && !shown.contains("provider=\"p\""), "{shown}");
}

#[test]
fn probes_eject_and_bring_back_after_as_many_in_a_row_as_configured() {
    let active = Active {
        path: "/v1/models".into(),
        method: Method::Get,
        body: None,
        headers: BTreeMap::new(),
        every: SECOND,
        timeout: SECOND,
        healthy: Healthy { statuses: Statuses::of(&[(200, 200)]), successes: 2 },
        unhealthy: Unhealthy { statuses: Statuses::of(&[(500, 599)]), failures: 3, timeouts: 2, every: None },
    };
    let health = Health { passive: None, active: Some(active.clone()) };
    let upstream = with_keys("p", &[], Some(&health), None);
    let probed = &upstream.probed;
    let status = Seen::Status;
    let table = [
        (status(500), "unhealthy", None),
        (Seen::Failed, "unhealthy", None),
        (status(200), "healthy", None),
        (status(500), "unhealthy", None),
        (status(404), "neither", None),
        (Seen::Denied, "denied", None),
        (Seen::Unrecorded, "unrecorded", None),
        (status(500), "unhealthy", None),
        (status(503), "unhealthy", Some(false)),
        (status(200), "healthy", None),
        (Seen::Timeout, "timeout", None),
        (status(200), "healthy", None),
        (status(200), "healthy", Some(true)),
        (Seen::Timeout, "timeout", None),
        (Seen::Timeout, "timeout", Some(false)),
    ];
    for (step, (seen, result, change)) in table.into_iter().enumerate() {
        assert_eq!(probed.saw(seen), (result, change), "step {step}");
    }
    let targets = [
        TargetSpec { name: name("a"), upstream: Arc::clone(&upstream), weight: 1, priority: 0 },
        spec("b", 1, 1),
    ];
    let balancer = balancer(By::Weight, &targets);
    let now = Instant::now();
    assert_eq!(balancer.targets[0].state(now), "ejected");
    assert_eq!(once(&balancer, now, &[], &GOOD), 1);
    // A reload that asks the same knows the same; another question is a new start.
    assert!(!with_keys("p", &[], Some(&health), Some(&upstream)).probed.is_healthy());
    let other = Health { active: Some(Active { path: "/".into(), ..active }), passive: None };
    assert!(with_keys("p", &[], Some(&other), Some(&upstream)).probed.is_healthy());
}

#[test]
fn no_order_of_requests_and_reports_panics_or_leaves_a_request_without_a_target() {
    for (seed, mut random) in seeds() {
        let count = 1 + random.below(5);
        let targets: Vec<TargetSpec> = (0..count)
            .map(|at| {
                let keys: &[&str] = if random.below(2) == 0 { &["k1", "k2"] } else { &[] };
                let upstream = with_keys(&format!("t{at}"), keys, Some(&passive()), None);
                let (weight, priority) = (random.below(4) as u64 * 333, random.below(3) as u64);
                TargetSpec { name: name(&format!("t{at}")), upstream, weight, priority }
            })
            .collect();
        let ways = [By::Weight, By::Hash, By::Latency, By::Cost, By::Errors, By::Semantic];
        let by = ways[random.below(6)];
        let sticky = (random.below(2) == 0).then_some(Sticky::Conversation);
        let config = Balance { by, sticky, ..Balance::default() };
        let mut balancer = Arc::new(Balancer::new(&name("r"), &targets, &config, &Meters::default(), None));
        let (mut now, mut running) = (Instant::now(), Vec::new());
        for _ in 0..400 {
            now += Duration::from_millis(random.below(20_000) as u64);
            let excluded: Vec<usize> = (0..count + 2).filter(|_| random.below(3) == 0).collect();
            let hash = [random.below(7) as u8];
            let scores = [0; 6].map(|_| (random.below(2) == 0).then(|| random.below(3) as i64));
            let price = |index: usize| (index != 1).then_some(index as f64 - 1.0);
            let pick = Pick {
                hash: (random.below(2) == 0).then_some(&hash[..]),
                conversation: (random.below(2) == 0).then_some([hash[0]; 16]),
                excluded: &excluded,
                price: if random.below(2) == 0 { Some(&price) } else { None },
                meant: (random.below(3) > 0)
                    .then(|| Meant { scores: &scores[..random.below(7)], fallback: random.below(7) }),
                now,
            };
            let picked = balancer.pick(&pick);
            assert_eq!(picked.is_some(), (0..count).any(|at| !excluded.contains(&at)), "seed {seed}");
            if let Some(picked) = picked {
                assert!(!excluded.contains(&picked.target()) && picked.target() < count, "seed {seed}");
                running.push(picked);
            }
            while running.len() > random.below(8) {
                let one = running.swap_remove(random.below(running.len()));
                let failures = [None, Some(Failure::Connect), Some(Failure::Timeout), Some(Failure::Aborted)];
                let statuses = [None, Some(0), Some(200), Some(401), Some(429), Some(500), Some(u16::MAX)];
                let times = [None, Some(Duration::ZERO), Some(SECOND), Some(Duration::MAX)];
                let report = Report {
                    failure: failures[random.below(4)],
                    status: statuses[random.below(7)],
                    told: random.below(2) == 0,
                    head_latency: times[random.below(4)],
                    retry_after: times[random.below(4)],
                    forwarded: false,
                };
                // A report may be older than what is known already.
                let at = now.checked_sub(Duration::from_secs(random.below(60) as u64)).unwrap_or(now);
                if random.below(4) > 0 {
                    one.done(&report, at);
                }
            }
            if random.below(50) == 0 {
                let next = Balancer::new(&name("r"), &targets, &config, &Meters::default(), Some(&balancer));
                balancer.gives_way(Some(&next));
                balancer = Arc::new(next);
            }
            balancer.measure(now);
        }
        drop(running);
        assert!((0..count).all(|at| balancer.targets[at].load(now).1 == 0), "seed {seed}");
    }
}
