//! Attempts: each is durable before it is sent, in order, with its content; whatever ends the exchange tells of the last.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use evidence::disk::{Crash, SimDisk};
use evidence::{KeyScope, Ledger, NewPart, OpenExchange, PartWriter, Reason, Unavailable};
use schemas::record::{
    Answered, Attempt, AttemptNumber, Body, CloseReason, Cost, Dropped, End, Outcome, PartName, Served,
    Translation, Unpriced, Usage, UsageRole, UsageSource,
};
use schemas::{ExchangeId, Sha256Hex};
use support::{Bed, Content, LogView, after, begin, id, noise, outcome, verify};

const CLOSE: Duration = Duration::from_secs(60);

fn number(n: u64) -> AttemptNumber {
    AttemptNumber::new(n).unwrap()
}

fn attempt(open: &OpenExchange, n: u64) -> Attempt {
    let (target, reason) = (id(&format!("target-{n}")), id("fallback"));
    Attempt {
        provider: Some(id("other")),
        model: Some(id("gpt-5-mini")),
        ..Attempt::new(open.exchange().clone(), number(n), target, reason)
    }
}

/// Only attempt 1 goes to a provider of another dialect.
fn translation(n: u64) -> Option<Translation> {
    let dropped = Dropped { count: n, what: vec![id("seed")], ..Dropped::default() };
    (n == 1).then(|| Translation { from: id("openai"), to: id("anthropic"), dropped })
}

/// An answer that is read.
fn answer(open: &OpenExchange, n: u64, bytes: &[u8]) -> PartWriter {
    let writer = open.part(PartName::AttemptResponse(number(n)), Some(id("application/json")), None);
    writer.write(bytes, 0).unwrap();
    writer
}

async fn opens(open: &OpenExchange, n: u64, body: Option<&[u8]>) -> Result<u64, Unavailable> {
    let name = PartName::AttemptRequest(number(n));
    let part = body.map(|body| NewPart::bytes(name, Bytes::copy_from_slice(body)));
    let opening = Attempt { translation: translation(n), ..attempt(open, n) };
    open.attempt_opens(opening, part).await
}

async fn ends(open: &OpenExchange, n: u64, body: Option<&[u8]>) -> Result<(), Unavailable> {
    let ended = Attempt { end: Some(End::Complete), status: Some(529), ..ended(open, n) };
    open.attempt_ends(ended, body.map(|body| response(n, body))).await
}

fn response(n: u64, body: &[u8]) -> NewPart {
    let part = NewPart::bytes(PartName::AttemptResponse(number(n)), Bytes::copy_from_slice(body));
    part.with(Some(id("application/json")), None)
}

fn ended(open: &OpenExchange, n: u64) -> Attempt {
    let usage = Some(Usage::of(UsageSource::Unknown, UsageRole::Incurred));
    Attempt { end: Some(End::ProviderAbort), usage, ..attempt(open, n) }
}

/// What a log says of one exchange, in order.
fn story(log: &LogView) -> Vec<String> {
    let told = log.bodies().filter_map(|body| match body {
        Body::Intent(_) => Some("intent".to_owned()),
        Body::Attempt(attempt) => Some(format!("{} {}", attempt.phase, attempt.number)),
        Body::Outcome(outcome) => {
            Some(format!("outcome {}", outcome.served.as_ref().map_or(0, |served| served.number)))
        }
        _ => None,
    });
    told.collect()
}

fn only(log: &LogView) -> (&ExchangeId, &Outcome) {
    let found = log.bodies().find_map(|body| match body {
        Body::Outcome(outcome) => Some((&outcome.exchange, outcome)),
        _ => None,
    });
    found.unwrap()
}

fn proven(log: &LogView, part: PartName) -> Option<Bytes> {
    match log.content(only(log).0, part) {
        Some(Content::Proven(bytes)) => Some(bytes.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_stand_in_their_order_with_what_was_sent_and_answered() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    // More than a spill file and a unit: what is large goes the same ways as the first dispatch.
    let (sent, answered) = (noise(1, 2 << 20), noise(2, 300_000));
    ends(&open, 0, Some(b"overloaded")).await.unwrap();
    assert_eq!(opens(&open, 1, Some(&sent)).await.unwrap(), open.position() + 2);
    ends(&open, 1, Some(&answered)).await.unwrap();
    opens(&open, 2, None).await.unwrap();
    support::end(open, b"served").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    let log = &logs[0];
    assert_eq!(story(log), ["intent", "end 0", "open 1", "end 1", "open 2", "outcome 2"]);
    let (_, outcome) = only(log);
    let served = outcome.served.as_ref().unwrap();
    assert_eq!((served.target.as_str(), served.provider.as_ref().unwrap().as_str()), ("target-2", "other"));
    assert_eq!(outcome.usage.role, UsageRole::Incurred);
    assert_eq!(proven(log, PartName::AttemptResponse(number(0))).unwrap(), &b"overloaded"[..]);
    assert_eq!(proven(log, PartName::AttemptRequest(number(1))).unwrap(), sent);
    assert_eq!(proven(log, PartName::AttemptResponse(number(1))).unwrap(), answered);
    assert_eq!(proven(log, PartName::ProviderResponse).unwrap(), &b"served"[..]);
    for body in log.bodies() {
        if let Body::Attempt(attempt) = body {
            let has_parts = !attempt.parts.is_empty();
            assert_eq!((attempt.retention.is_some(), attempt.content_key.is_some()), (has_parts, has_parts));
            let sent = attempt.parts.first().filter(|_| attempt.phase.as_str() == "open");
            assert_eq!(attempt.commitment, sent.map(|part| part.commitment));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_order_is_not_recorded_and_nothing_may_be_sent() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    let refused = |done: Result<(), Unavailable>| {
        assert_eq!(done.unwrap_err().reason, Reason::RecordRefused);
    };
    refused(opens(&open, 1, None).await.map(drop)); // The first one is still under way.
    refused(ends(&open, 1, None).await);
    refused(open.attempt_ends(ended(&open, 0), Some(response(1, b"x"))).await);
    // What no reader takes is not written: an end that does not say what was used.
    refused(open.attempt_ends(Attempt { usage: None, ..ended(&open, 0) }, None).await);
    ends(&open, 0, None).await.unwrap();
    refused(ends(&open, 0, None).await);
    refused(opens(&open, 2, None).await.map(drop));
    let misnamed = NewPart::bytes(PartName::ProviderRequest, &b"x"[..]);
    refused(open.attempt_opens(attempt(&open, 1), Some(misnamed)).await.map(drop));
    opens(&open, 1, None).await.unwrap();
    refused(open.attempt_ends(Attempt { target: id("elsewhere"), ..ended(&open, 1) }, None).await);
    ends(&open, 1, None).await.unwrap();
    for n in 2..16 {
        opens(&open, n, None).await.unwrap();
        ends(&open, n, None).await.unwrap();
    }
    let seventeenth = Attempt { number: 16, ..attempt(&open, 15) };
    refused(open.attempt_opens(seventeenth, None).await.map(drop));
    support::end(open, b"all failed").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    assert_eq!(story(&logs[0]).len(), 1 + 31 + 1);
    let (_, outcome) = only(&logs[0]);
    // Its last attempt has its end: nothing is told twice.
    assert_eq!(outcome.served.as_ref().unwrap().number, 15);
    assert_eq!(outcome.usage, Usage::of(UsageSource::Unknown, UsageRole::None));
    assert_eq!((&outcome.cost, outcome.unpriced), (&None, Some(Unpriced::NotIncurred)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_says_where_it_went_as_its_opening_or_the_intent_said_it() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    let other = |n| Attempt { provider: None, dialect: Some(id("cohere")), model: None, ..ended(&open, n) };
    open.attempt_ends(other(0), None).await.unwrap();
    opens(&open, 1, None).await.unwrap();
    open.attempt_ends(other(1), None).await.unwrap();
    opens(&open, 2, None).await.unwrap();
    support::end(open, b"served").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    let ends: Vec<Served> = logs[0]
        .bodies()
        .filter_map(|body| match body {
            Body::Attempt(attempt) if attempt.phase.as_str() == "end" => Some(attempt.served()),
            _ => None,
        })
        .collect();
    let target = |n: u64| id(&format!("target-{n}"));
    let asked = support::asked().dispatched(&target(0));
    let opened = Served {
        number: 1,
        target: target(1),
        provider: Some(id("other")),
        dialect: None,
        model: Some(id("gpt-5-mini")),
    };
    assert_eq!(ends, [asked, opened]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_of_another_attempt_than_the_last_or_with_what_an_attempt_sends_is_refused() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    for misnames in [false, true] {
        let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
        ends(&open, 0, None).await.unwrap();
        opens(&open, 1, Some(b"sent")).await.unwrap();
        let name = PartName::AttemptRequest(number(1));
        let parts = match misnames {
            true => vec![open.whole(name, None, None, &Bytes::from_static(b"sent")).unwrap()],
            false => Vec::new(),
        };
        let made = |parts, key| {
            let target = id("target-2");
            let served = Served { number: 2, target, provider: None, dialect: None, model: None };
            Outcome { served: (!misnames).then_some(served), ..outcome(parts, key) }
        };
        assert_eq!(open.outcome(parts, made).await.unwrap_err().reason, Reason::RecordRefused);
    }
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    // The ledger closes them itself, and names nothing twice.
    for body in logs[0].bodies() {
        if let Body::Outcome(outcome) = body {
            assert_eq!((outcome.end, outcome.parts.len()), (End::GatewayAbort, 0));
            assert_eq!(outcome.served.as_ref().unwrap().number, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_end_of_every_attempt_has_its_space() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    let long = || id(&"i".repeat(128));
    let answered =
        Answered { finish_reasons: vec![long(); 32], tool_names: vec![long(); 32], ..Answered::default() };
    let cost = Cost {
        currency: id("USD"),
        total: "0".into(),
        classes: (0..32).map(|n| (format!("{n:0>191}"), "0".to_owned())).collect(),
        price_book: Sha256Hex::of(b"book"),
        price_row: long(),
    };
    for n in 0..16 {
        if n > 0 {
            opens(&open, n, None).await.unwrap();
        }
        let (answered, cost) = (answered.clone(), Some(cost.clone()));
        open.attempt_ends(Attempt { answered, cost, ..ended(&open, n) }, None).await.unwrap();
    }
    support::end(open, b"all failed").await.unwrap();
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    assert_eq!(story(&verify(&bed)[0]).len(), 1 + 31 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_dropped_tells_of_its_last_attempt_and_of_what_was_answered() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    ends(&open, 0, None).await.unwrap();
    opens(&open, 1, Some(b"sent")).await.unwrap();
    drop(answer(&open, 1, b"half of it"));
    drop(open);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    assert_eq!(story(&logs[0]), ["intent", "end 0", "open 1", "outcome 1"]);
    assert_eq!(only(&logs[0]).1.end, End::GatewayAbort);
    assert_eq!(only(&logs[0]).1.translation, translation(1));
    assert_eq!(proven(&logs[0], PartName::AttemptResponse(number(1))).unwrap(), &b"half of it"[..]);
    assert_eq!(proven(&logs[0], PartName::AttemptRequest(number(1))).unwrap(), &b"sent"[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_has_no_space_is_kept_once() {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let mut config = bed.config();
    config.segment_bytes = 1 << 20;
    // Nothing is sealed, and so nothing freed, meanwhile.
    config.batch_age = CLOSE;
    let ledger = Ledger::open(config).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut others = Vec::new();
    while let Ok(other) = begin(&ledger, KeyScope::PerExchange, b"question").await {
        others.push(other);
    }
    let answered = noise(6, 300_000);
    assert_eq!(ends(&open, 0, Some(&answered)).await.unwrap_err().reason, Reason::DiskFull);
    // It goes to the caller then, for as long as there is space.
    let writer = open.part(PartName::ProviderResponse, None, None);
    let mut came = 0;
    for piece in answered.chunks(5000) {
        if writer.write(piece, 0).is_err() {
            break;
        }
        came += piece.len();
    }
    let part = writer.finish();
    open.outcome(vec![part], outcome).await.unwrap();
    disk.set_capacity(None);
    drop(others);
    ledger.drain_and_close(CloseReason::Shutdown, CLOSE).await.unwrap();
    let logs = verify(&bed);
    let log = &logs[0];
    let first = log.bodies().find_map(|body| match body {
        Body::Outcome(outcome) if outcome.end == End::Complete => Some(outcome),
        _ => None,
    });
    let outcome = first.unwrap();
    let names: Vec<PartName> = outcome.parts.iter().map(|part| part.part).collect();
    assert_eq!(names, [PartName::ProviderResponse]);
    let Some(Content::Proven(kept)) = log.content(&outcome.exchange, PartName::ProviderResponse) else {
        panic!("what came is kept");
    };
    assert!(came > 0 && kept.len() >= came && answered.starts_with(kept), "{came} {}", kept.len());
}

/// Kills a gateway after the first `steps` of what an exchange does.
async fn killed_after(steps: usize, sealed: bool) -> Vec<LogView> {
    let disk = SimDisk::new();
    let bed = Bed::sim(&disk);
    let ledger = Ledger::open(bed.config()).unwrap();
    let open = begin(&ledger, KeyScope::PerExchange, b"question").await.unwrap();
    let mut under_way = Vec::new();
    for step in 0..steps {
        match step {
            0 => ends(&open, 0, Some(&noise(3, 100_000))).await.unwrap(),
            1 => drop(opens(&open, 1, Some(&noise(4, 5000))).await.unwrap()),
            // As an earlier gateway kept what it had not read whole.
            2 if steps == 3 => under_way.push(answer(&open, 1, &noise(5, 200_000))),
            2 => {}
            3 => ends(&open, 1, Some(&noise(5, 200_000))).await.unwrap(),
            _ => drop(opens(&open, 2, None).await.unwrap()),
        }
    }
    // A record behind it that is waited for: the group with the ends is on the disk.
    support::exchange(&ledger, KeyScope::PerExchange, b"another", b"one").await.unwrap();
    if sealed {
        ledger.seal_now();
        assert!(ledger.wait_archived(open.position() + 1, CLOSE).await);
    }
    let dead = disk.fork();
    dead.crash(Crash::DropAll);
    let bed = Bed::sim(&dead);
    after(&bed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_step_the_outcome_tells_of_the_last_attempt_and_every_part_is_named_once() {
    let response = |n| PartName::AttemptResponse(number(n));
    for sealed in [false, true] {
        for steps in 0..=5 {
            let logs = killed_after(steps, sealed).await;
            let log = &logs[0];
            let intent = log.bodies().find_map(|body| match body {
                Body::Intent(intent) => Some(intent.exchange.clone()),
                _ => None,
            });
            let exchange = intent.unwrap();
            let outcome = log.outcome(&exchange).unwrap();
            assert_eq!(outcome.end, End::Interrupted, "{steps}");
            let wanted = match steps {
                0 | 1 => None,
                2..=4 => Some(1),
                _ => Some(2),
            };
            assert_eq!(outcome.served.as_ref().map(|served| served.number), wanted, "{steps}");
            assert_eq!(outcome.translation, wanted.and_then(translation), "{steps}");
            let is_told = matches!(steps, 1 | 4);
            assert_eq!(outcome.usage.role == UsageRole::None, is_told, "{steps}");
            let content = |part| match log.content(&exchange, part) {
                Some(Content::Proven(bytes)) => Some(Sha256Hex::of(bytes)),
                _ => None,
            };
            let of = |seed, len| Some(Sha256Hex::of(&noise(seed, len)));
            assert_eq!(content(response(0)), of(3, 100_000).filter(|_| steps >= 1), "{steps}");
            assert_eq!(
                content(PartName::AttemptRequest(number(1))),
                of(4, 5000).filter(|_| steps >= 2),
                "{steps}"
            );
            match steps {
                0..=2 => assert_eq!(content(response(1)), None, "{steps}"),
                // What was journaled of it: whole units.
                3 => assert!(outcome.parts.iter().any(|part| part.part == response(1) && part.length > 0)),
                _ => assert_eq!(content(response(1)), of(5, 200_000), "{steps}"),
            }
        }
    }
}
