//! What the attempts of an exchange may say, and what is found where they say otherwise.

use schemas::record::{
    Attempt, AttemptNumber, Body, Cost, Dropped, End, Gap, GapReason, Outcome, PartName, Served, Translation,
    Usage, UsageRole, UsageSource,
};

use super::tests::{has, sealed};
use super::*;
use crate::fixture::{Writer, exchange_id, id};

const EXCHANGE: u64 = 2;

fn attempt(intent_position: u64, number: u64, phase: &str) -> Attempt {
    let number = AttemptNumber::new(number).unwrap();
    let target = id(&format!("target-{number}"));
    let is_end = phase == "end";
    Attempt {
        intent_position,
        phase: id(phase),
        provider: Some(id("openai")),
        dialect: Some(id("openai")),
        model: Some(id("gpt-4o")),
        end: is_end.then_some(End::Timeout),
        usage: is_end.then(|| Usage::of(UsageSource::Unknown, UsageRole::Incurred)),
        ..Attempt::new(exchange_id(EXCHANGE), number, target, id("fallback"))
    }
}

fn served(number: u64) -> Option<Served> {
    (number > 0).then(|| attempt(0, number, "open").served())
}

/// An exchange with these attempts, and an outcome that tells of `told`.
fn tried(steps: &[(u64, &str)], told: u64, adapt: impl FnOnce(&mut Writer, &mut Outcome)) -> Report {
    sealed(|writer| {
        let (position, key) = writer.intent(EXCHANGE, b"q");
        for (number, phase) in steps {
            writer.push(Body::Attempt(attempt(position, *number, phase)));
        }
        let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
        let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
        outcome.served = served(told);
        adapt(writer, &mut outcome);
        writer.push(Body::Outcome(outcome));
    })
}

#[track_caller]
fn verified(report: &Report) {
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(report));
}

const ENDED: &[(u64, &str)] = &[(0, "end"), (1, "open"), (1, "end")];

#[test]
fn attempts_in_order_are_verified() {
    for (steps, told) in [
        (&[][..], 0),
        (&[(0, "end"), (1, "open")], 1),
        (&[(0, "end"), (1, "open"), (1, "end"), (2, "open")], 2),
    ] {
        verified(&tried(steps, told, |_, _| {}));
    }
    // All have their end, and the outcome has nothing to add.
    verified(&tried(ENDED, 1, |_, outcome| outcome.usage.role = UsageRole::None));
}

#[test]
fn attempts_that_are_left_out_doubled_or_moved_are_found() {
    for (steps, told) in [
        (&[(1, "open")][..], 1),
        (&[(0, "open"), (0, "end"), (1, "open")], 1),
        (&[(0, "end"), (2, "open")], 2),
        (&[(0, "end"), (1, "open"), (2, "open")], 2),
        (&[(0, "end"), (1, "end")], 0),
        (&[(0, "end"), (0, "end"), (1, "open")], 1),
        (&[(0, "end"), (1, "open"), (1, "open")], 1),
        (&[(0, "end"), (1, "open")], 2),
        (&[], 1),
    ] {
        has(&tried(steps, told, |_, _| {}), "ATTEMPT_DISORDER", Verdict::Invalid);
    }
}

#[test]
fn an_attempt_of_which_neither_an_end_nor_the_outcome_tells_is_found() {
    let report = tried(&[(0, "end"), (1, "open")], 0, |_, outcome| outcome.usage.role = UsageRole::None);
    has(&report, "ATTEMPT_UNTOLD", Verdict::Incomplete);
}

#[test]
fn usage_that_is_told_twice_and_another_target_than_was_opened_are_found() {
    has(&tried(&[(0, "end")], 0, |_, _| {}), "ATTEMPT_DISORDER", Verdict::Invalid);
    let elsewhere = tried(&[(0, "end"), (1, "open")], 1, |_, outcome| {
        if let Some(served) = &mut outcome.served {
            served.target = id("elsewhere");
        }
    });
    has(&elsewhere, "ATTEMPT_DISORDER", Verdict::Invalid);
}

fn translation(count: u64) -> Option<Translation> {
    let what = vec![id("seed"); usize::from(count > 0)];
    let dropped = Dropped { count, what, ..Dropped::default() };
    Some(Translation { from: id("openai"), to: id("anthropic"), dropped })
}

#[test]
fn an_outcome_repeats_how_the_request_was_translated_that_it_tells_of() {
    let translated = |opened: Option<Translation>, told: Option<Translation>| {
        sealed(|writer| {
            let (position, key) = writer.intent(EXCHANGE, b"q");
            writer.push(Body::Attempt(attempt(position, 0, "end")));
            let open = Attempt { translation: opened, ..attempt(position, 1, "open") };
            writer.push(Body::Attempt(open));
            let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
            let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
            (outcome.served, outcome.translation) = (served(1), told);
            writer.push(Body::Outcome(outcome));
        })
    };
    verified(&translated(None, None));
    verified(&translated(translation(1), translation(1)));
    for (opened, told) in [(translation(1), translation(0)), (translation(1), None), (None, translation(0))] {
        has(&translated(opened, told), "RECORD_INVALID", Verdict::Invalid);
    }
    // The intent's own dispatch was not translated.
    let report = tried(&[], 0, |_, outcome| outcome.translation = translation(0));
    has(&report, "RECORD_INVALID", Verdict::Invalid);
}

#[test]
fn an_outcome_that_tells_of_another_attempt_than_the_last_is_found() {
    let report = tried(ENDED, 0, |_, outcome| outcome.usage.role = UsageRole::None);
    has(&report, "ATTEMPT_DISORDER", Verdict::Invalid);
}

#[test]
fn counts_and_cost_that_an_end_has_told_are_found_in_an_outcome() {
    let nothing = Usage::of(UsageSource::Provider, UsageRole::None);
    let counts = Usage { input_tokens: Some(7), ..nothing.clone() };
    let cost = Cost {
        currency: id("USD"),
        total: "0".into(),
        classes: std::collections::BTreeMap::new(),
        price_book: schemas::Sha256Hex::of(b"book"),
        price_row: id("row"),
    };
    for (usage, cost) in [(counts, None), (nothing, Some(cost))] {
        let report = tried(ENDED, 1, |_, outcome| (outcome.usage, outcome.cost) = (usage, cost));
        has(&report, "ATTEMPT_DISORDER", Verdict::Invalid);
    }
}

/// An exchange with an attempt 1 that is adapted, and two ends.
fn ended(adapt: impl Fn(&mut Attempt)) -> Report {
    sealed(|writer| {
        let (position, key) = writer.intent(EXCHANGE, b"q");
        for (number, phase) in [(0, "end"), (1, "open"), (1, "end"), (2, "open")] {
            let mut it = attempt(position, number, phase);
            adapt(&mut it);
            writer.push(Body::Attempt(it));
        }
        let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
        let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
        outcome.served = served(2);
        writer.push(Body::Outcome(outcome));
    })
}

#[test]
fn an_end_that_says_it_went_elsewhere_than_it_was_opened_is_found() {
    verified(&ended(|_| ()));
    let elsewhere = [
        |it: &mut Attempt| it.target = id("elsewhere"),
        |it: &mut Attempt| it.provider = Some(id("other")),
        |it: &mut Attempt| it.dialect = None,
        |it: &mut Attempt| it.model = Some(id("cheap")),
    ];
    for change in elsewhere {
        let report = ended(|it| {
            if it.number == 1 && it.phase.as_str() == "end" {
                change(it)
            }
        });
        has(&report, "ATTEMPT_DISORDER", Verdict::Invalid);
    }
    // Number 0 went where the intent says, and that names no target.
    for change in &elsewhere[1..] {
        let report = ended(|it| {
            if it.number == 0 {
                change(it)
            }
        });
        has(&report, "ATTEMPT_DISORDER", Verdict::Invalid);
    }
}

#[test]
fn an_outcome_names_of_attempts_no_more_than_the_answer_that_no_end_named() {
    let number = |n| AttemptNumber::new(n).unwrap();
    let naming = |steps, name| {
        tried(steps, 1, |writer, outcome| {
            let key = schemas::keytable::KeyId::parse(outcome.content_key.as_ref().unwrap()).unwrap();
            let part = writer.part(writer.position(), &exchange_id(EXCHANGE), name, &key, b"x", None);
            outcome.parts.push(part);
            if steps == ENDED {
                outcome.usage.role = UsageRole::None;
            }
        })
    };
    let under_way: &[(u64, &str)] = &[(0, "end"), (1, "open")];
    verified(&naming(under_way, PartName::AttemptResponse(number(1))));
    for (steps, name) in [
        (under_way, PartName::AttemptResponse(number(0))),
        (under_way, PartName::AttemptRequest(number(1))),
        (ENDED, PartName::AttemptResponse(number(1))),
    ] {
        has(&naming(steps, name), "RECORD_INVALID", Verdict::Invalid);
    }
}

#[test]
fn a_translation_is_judged_wherever_its_request_is_told_and_nowhere_else() {
    // What stands before and behind the loss, the attempt that the outcome tells of, and how each was translated.
    let (one, two) = (translation(1), translation(2));
    type Steps<'a> = &'a [(u64, &'a str)];
    let torn = |before: Steps<'_>, behind: Steps<'_>, told: u64, said: Option<Translation>| {
        sealed(|writer| {
            let (position, key) = writer.intent(EXCHANGE, b"q");
            let tell = |writer: &mut Writer, steps: Steps<'_>| {
                for (number, phase) in steps {
                    let translation = if *phase == "open" { one.clone() } else { None };
                    let attempt = Attempt { translation, ..attempt(position, *number, phase) };
                    writer.push(Body::Attempt(attempt));
                }
            };
            tell(writer, before);
            writer.push(Body::Gap(Gap { reason: GapReason::Loss, count: Some(1), bytes: Some(9) }));
            tell(writer, behind);
            let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
            let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
            (outcome.served, outcome.translation) = (served(told), said);
            writer.push(Body::Outcome(outcome));
        })
    };
    for (before, behind, told, said, is_wrong) in [
        // The intent's own request, and no sign of another.
        (&[][..], &[][..], 0, &two, true),
        (&[], &[], 0, &None, false),
        // The request of attempt 1, which is told of before the loss, or behind it.
        (&[(0, "end"), (1, "open")], &[], 1, &two, true),
        (&[(0, "end"), (1, "open")], &[], 1, &one, false),
        (&[(0, "end")], &[(1, "open")], 1, &two, true),
        // The request is among what was lost, whether its end is told or not.
        (&[(0, "end")], &[], 1, &two, false),
        (&[(0, "end")], &[(1, "end")], 1, &two, false),
        (&[(0, "end"), (1, "open")], &[], 2, &two, false),
    ] {
        let report = torn(before, behind, told, said.clone());
        let of_it = report.findings.iter().filter(|finding| {
            finding.code == Code::RecordInvalid && finding.place.item.as_deref() == Some("translation")
        });
        let case = format!("{before:?} {behind:?} {told} {said:?}");
        assert_eq!(of_it.count(), usize::from(is_wrong), "{case}: {}", crate::render::text::report(&report));
    }
}

#[test]
fn attempts_that_a_loss_may_have_taken_are_not_out_of_order() {
    for (before, behind, told) in [
        (&[][..], &[(1, "open")][..], 1),
        (&[(0, "end")], &[], 1),
        (&[(0, "end")], &[(1, "end"), (2, "open")], 2),
        (&[(0, "end"), (1, "open")], &[(2, "open")], 2),
        (&[(0, "end"), (1, "open")], &[], 2),
    ] {
        let report = sealed(|writer| {
            let (position, key) = writer.intent(EXCHANGE, b"q");
            for (number, phase) in before {
                writer.push(Body::Attempt(attempt(position, *number, phase)));
            }
            writer.push(Body::Gap(Gap { reason: GapReason::Loss, count: Some(1), bytes: Some(9) }));
            for (number, phase) in behind {
                writer.push(Body::Attempt(attempt(position, *number, phase)));
            }
            let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
            let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
            outcome.served = served(told);
            writer.push(Body::Outcome(outcome));
        });
        has(&report, "RECORDS_LOST", Verdict::Incomplete);
    }
    // What began behind it is judged as ever.
    let report = sealed(|writer| {
        writer.push(Body::Gap(Gap { reason: GapReason::Loss, count: Some(1), bytes: Some(9) }));
        let (position, key) = writer.intent(EXCHANGE, b"q");
        writer.push(Body::Attempt(attempt(position, 1, "open")));
        let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
        let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
        outcome.served = served(1);
        writer.push(Body::Outcome(outcome));
    });
    has(&report, "ATTEMPT_DISORDER", Verdict::Invalid);
}

#[test]
fn an_attempt_under_another_key_or_class_than_its_intent_is_found() {
    let response = PartName::AttemptResponse(AttemptNumber::FIRST);
    let kept = |other_key: bool, class: &str| {
        sealed(|writer| {
            let (position, key) = writer.intent(EXCHANGE, b"q");
            let ours = if other_key { writer.key() } else { key.clone() };
            let part = writer.part(writer.position(), &exchange_id(EXCHANGE), response, &ours, b"busy", None);
            writer.push(Body::Attempt(Attempt {
                parts: vec![part],
                content_key: Some(ours.to_identifier()),
                retention: Some(id(class)),
                ..attempt(position, 0, "end")
            }));
            writer.push(Body::Attempt(attempt(position, 1, "open")));
            let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
            let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
            outcome.served = served(1);
            writer.push(Body::Outcome(outcome));
        })
    };
    verified(&kept(false, "standard"));
    has(&kept(true, "standard"), "RECORD_INVALID", Verdict::Invalid);
    has(&kept(false, "forever"), "RECORD_INVALID", Verdict::Invalid);
}

#[test]
fn an_attempt_behind_its_outcome_or_of_no_exchange_is_found() {
    let late = sealed(|writer| {
        let position = writer.position();
        writer.exchange(EXCHANGE, b"q", b"a");
        writer.push(Body::Attempt(attempt(position, 0, "end")));
    });
    has(&late, "ORPHAN_OUTCOME", Verdict::Invalid);
}

/// An exchange whose first attempt ends with an answer of `name`, whose rows are kept or not.
fn answered(name: PartName, is_kept: bool) -> Report {
    sealed(|writer| {
        let (position, key) = writer.intent(EXCHANGE, b"q");
        let ended = writer.position();
        let part = writer.part(ended, &exchange_id(EXCHANGE), name, &key, b"overloaded", None);
        if !is_kept {
            writer.forget_row();
        }
        writer.push(Body::Attempt(Attempt {
            parts: vec![part],
            content_key: Some(key.to_identifier()),
            retention: Some(id("standard")),
            ..attempt(position, 0, "end")
        }));
        writer.push(Body::Attempt(attempt(position, 1, "open")));
        let usage = Usage::of(UsageSource::Provider, UsageRole::Incurred);
        let mut outcome = writer.outcome_of(exchange_id(EXCHANGE), position, Some(&key), vec![], usage);
        outcome.served = served(1);
        writer.push(Body::Outcome(outcome));
    })
}

#[test]
fn content_of_an_attempt_is_content_like_any_other() {
    let response = PartName::AttemptResponse(AttemptNumber::FIRST);
    verified(&answered(response, true));
    has(&answered(response, false), "CONTENT_MISSING", Verdict::Incomplete);
    for foreign in [PartName::ProviderResponse, PartName::AttemptRequest(AttemptNumber::FIRST)] {
        has(&answered(foreign, true), "RECORD_INVALID", Verdict::Invalid);
    }
}
