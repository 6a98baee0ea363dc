//! Codes that nothing else asks for by name.

use schemas::holds::Scope;
use schemas::record::{
    Asked, Attributed, Body, Caller, Erasure, Gap, GapReason, Heartbeat, Intent, Outcome, Source, Usage,
    UsageRole, UsageSource,
};

use super::tests::{has, sealed, unknown_usage, verify_at};
use super::*;
use crate::fixture::{START, Writer, exchange_id, id};
use crate::source::MemorySource;
use crate::time::SECOND;

/// A log whose second exchange is ended by `adapt`'s outcome.
fn ended(adapt: impl FnOnce(&mut Outcome)) -> Report {
    sealed(|writer| {
        let (position, key) = writer.intent(2, b"q");
        let mut outcome = writer.outcome_of(exchange_id(2), position, Some(&key), vec![], unknown_usage());
        adapt(&mut outcome);
        writer.push(Body::Outcome(outcome));
    })
}

#[track_caller]
fn notes(report: &Report, code: Code, found: &str) {
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(report));
    let of_code: Vec<_> = report.findings.iter().filter(|finding| finding.code == code).collect();
    assert!(of_code.iter().any(|finding| finding.found.contains(found)), "{code}: {of_code:?}");
}

#[test]
fn a_log_that_does_not_begin_with_boot_is_found() {
    let mut writer = Writer::without_boot("20260921t133320z-00000001", START, MemorySource::default());
    let counters = writer.counters();
    writer.push(Body::Heartbeat(Heartbeat { counters }));
    writer.seal();
    has(&verify_at(&writer.store, writer.now, |_| {}), "BOOT_MISPLACED", Verdict::Invalid);
    // A kind that this version does not know is no `boot` either.
    let mut writer = Writer::without_boot("20260921t133320z-00000001", START, MemorySource::default());
    let (at, config) = (writer.now, writer.config);
    let leaf = format!(r#"{{"at":{at},"config":"{config}","kind":"message","v":1}}"#);
    writer.push_leaf(leaf.into_bytes());
    writer.seal();
    let report = verify_at(&writer.store, writer.now, |_| {});
    assert_eq!(report.verdict, Verdict::Invalid, "{}", crate::render::text::report(&report));
    let mut story = story::Story::new(writer.origin.clone(), String::new());
    let mut findings = Findings::default();
    story.tell(0, "message", 10, None, &mut findings);
    assert!(findings.has(Code::BootMissing));
}

#[test]
fn bytes_that_are_no_file_of_the_format_are_unreadable() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.seal_with(Some(b"PAR1 no records PAR1"));
    has(&verify_at(&writer.store, writer.now, |_| {}), "UNREADABLE", Verdict::Invalid);
}

#[test]
fn usage_that_is_not_the_providers_last_word_is_named() {
    for source in [UsageSource::Drained, UsageSource::Partial, UsageSource::Estimated, UsageSource::Unknown] {
        let report = ended(|outcome| outcome.usage.source = source);
        notes(&report, Code::UsageEstimated, "1 ");
    }
}

#[test]
fn token_classes_that_do_not_fit_are_named() {
    let usage = |usage: &mut Usage| {
        (usage.source, usage.role) = (UsageSource::Provider, UsageRole::Incurred);
        (usage.input_tokens, usage.cache_read_tokens) = (Some(5), Some(6));
    };
    notes(&ended(|outcome| usage(&mut outcome.usage)), Code::UsageContradiction, "6");
}

#[test]
fn a_refusal_that_is_neither_one_exchange_nor_a_count_is_no_record() {
    let refused = |count| sealed(|writer| _ = writer.push(Body::Refusal(Writer::refusal(count))));
    has(&refused(None), "RECORD_INVALID", Verdict::Invalid);
    has(&refused(Some(2)), "RECORD_INVALID", Verdict::Invalid);
}

#[test]
fn a_torn_tail_and_late_records_are_notes() {
    let gap = |reason| Body::Gap(Gap { reason, count: Some(3), bytes: None });
    let late = sealed(|writer| _ = writer.push(gap(GapReason::Late)));
    notes(&late, Code::LateRecords, "3 records");
    let torn = sealed(|writer| _ = writer.push(gap(GapReason::TornTail)));
    assert!(torn.findings.has(Code::TornTail));
}

#[test]
fn an_attempt_to_switch_recording_off_is_counted() {
    let report = sealed(|writer| {
        writer.suppression = vec![id("x-affidavit-record")];
        writer.exchange(2, b"q", b"a");
    });
    notes(&report, Code::SuppressionTried, "1 requests");
}

#[test]
fn callers_and_names_that_nothing_proves_are_told_with_their_share() {
    let asked_by = |caller: Caller, operation: &str| {
        sealed(|writer| {
            let asked = Asked { operation: Some(id(operation)), ..Writer::asked() };
            let position = writer.push(Body::Intent(Intent {
                caller: caller.clone(),
                asked: asked.clone(),
                ..Writer::intent_of(exchange_id(2))
            }));
            let outcome = writer.outcome_of(exchange_id(2), position, None, Vec::new(), unknown_usage());
            writer.push(Body::Outcome(Outcome { caller, asked, ..outcome }));
        })
    };
    let of = |source: Source| Some(Attributed { value: id("somebody"), source });
    let known = Caller { consumer: of(Source::Claim), ..Caller::default() };
    for (caller, operation, found) in [
        (
            Caller { consumer: of(Source::Asserted), ..Caller::default() },
            "chat.completions",
            Some("`consumer` of 1"),
        ),
        (
            Caller { consumer: of(Source::Route), ..Caller::default() },
            "chat.completions",
            Some("`consumer` of 1"),
        ),
        (Caller::default(), "chat.completions", Some("`consumer` of 1")),
        (
            Caller { team: of(Source::Asserted), purpose: of(Source::Asserted), ..known.clone() },
            "chat.completions",
            Some("`purpose` of 1, `team` of 1"),
        ),
        // What the route's configuration says, whom an application asks for, and what the gateway asks itself.
        (Caller { team: of(Source::Route), ..known.clone() }, "chat.completions", None),
        (Caller { subject: of(Source::Asserted), ..known }, "chat.completions", None),
        (Caller::default(), "probe", None),
    ] {
        let report = asked_by(caller, operation);
        match found {
            Some(found) => {
                notes(&report, Code::PrincipalUnproven, &format!("1 of 2 exchanges, 50.0 %: {found}"))
            }
            None => {
                assert!(!report.findings.has(Code::PrincipalUnproven), "{operation}: {:?}", report.findings)
            }
        }
    }
}

#[test]
fn an_erasure_whose_key_is_still_there_is_named() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let (position, key) = writer.intent(5, b"to be erased");
    writer.outcome(5, position, &key, b"also");
    writer.push(Body::Erasure(writer.erasure(5, position, &key)));
    writer.close();
    let folder = tempfile::tempdir().unwrap();
    let (name, page) = writer.key_table();
    std::fs::create_dir_all(folder.path().join(&name).parent().unwrap()).unwrap();
    std::fs::write(folder.path().join(name), page).unwrap();
    let keys = Keys::open(&[folder.path()]).unwrap();
    let report =
        verify_at(&writer.store, writer.now, |options| options.keys = Some(Box::leak(Box::new(keys))));
    has(&report, "ERASURE_NOT_DONE", Verdict::Policy);
}

fn erasure(writer: &Writer, n: u64, position: u64, key: &schemas::keytable::KeyId) -> Body {
    Body::Erasure(Erasure {
        exchange: exchange_id(n),
        origin: writer.origin.clone(),
        position,
        content_key: key.to_identifier(),
        reason: id("gdpr-17"),
        actor: None,
    })
}

fn hold(phase: &str, scope: Scope) -> Body {
    let (hold, phase, reason) = (id("case-17"), id(phase), Some(id("litigation")));
    Body::Hold(schemas::record::Hold { hold, phase, reason, actor: None, scope })
}

#[test]
fn what_was_erased_under_a_hold_is_named_and_what_was_not_is_not() {
    let all = Scope::default;
    let of = |exchange| Scope { exchange: Some(exchange_id(exchange)), ..all() };
    let consumer = |name| Scope { consumer: Some(id(name)), ..all() };
    let time = |from, to| Scope { from, to, ..all() };
    // What is said before the erasure of exchange 5, and whether it was under a hold then.
    let table = [
        (vec![hold("begin", all())], vec![], true),
        (vec![hold("begin", of(5))], vec![], true),
        (vec![hold("begin", of(6))], vec![], false),
        (vec![hold("begin", consumer("tester"))], vec![], true),
        (vec![hold("begin", consumer("somebody"))], vec![], false),
        (vec![hold("begin", time(None, Some(START)))], vec![], false),
        (vec![hold("begin", time(Some(START), None))], vec![], true),
        (vec![hold("begin", all()), hold("end", all())], vec![], false),
        (vec![hold("begin", all()), hold("end", all()), hold("begin", of(5))], vec![], true),
        (vec![], vec![hold("begin", all())], false),
        (vec![hold("begin", all())], vec![hold("end", all())], true),
        (vec![hold("other", all())], vec![], false),
    ];
    for (number, (before, after, held)) in table.into_iter().enumerate() {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        let (position, key) = writer.intent(5, b"to be erased");
        writer.outcome(5, position, &key, b"also");
        before.into_iter().for_each(|body| _ = writer.push(body));
        let erased = erasure(&writer, 5, position, &key);
        writer.push(erased);
        after.into_iter().for_each(|body| _ = writer.push(body));
        writer.close();
        let report = verify_at(&writer.store, writer.now, |_| {});
        assert_eq!(report.findings.has(Code::ErasedUnderHold), held, "row {number}");
        if held {
            has(&report, "ERASED_UNDER_HOLD", Verdict::Policy);
        }
    }
}

#[test]
fn what_another_gateway_erased_at_nearly_the_time_of_a_hold_may_have_gone_before_it() {
    // Seconds between the hold by one gateway and the erasure by the other.
    for (seconds, code) in [
        (61, Some(Code::ErasedUnderHold)),
        (59, Some(Code::HoldOrderUnknown)),
        (0, Some(Code::HoldOrderUnknown)),
        (-59, Some(Code::HoldOrderUnknown)),
        (-61, None),
    ] {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        let (position, key) = writer.intent(5, b"to be erased");
        writer.outcome(5, position, &key, b"also");
        writer.now = START + (100 + seconds) * SECOND;
        let erased = erasure(&writer, 5, position, &key);
        writer.push(erased);
        writer.close();
        let now = writer.now.max(START + 100 * SECOND);
        let mut other = Writer::boot_of("gw2", "20260921t133320z-00000002", START, writer.store);
        other.now = START + 100 * SECOND;
        other.push(hold("begin", Scope::default()));
        other.close();
        let mut trust = crate::fixture::trust();
        let second = TrustedGateway { name: "gw2".into(), ..trust.gateways[0].clone() };
        trust.gateways.push(second);
        let mandate = Mandate::default();
        let (report, _) = run(&other.store, &Options::new(&trust, &mandate, now), &mut NoSink);
        let told = [Code::ErasedUnderHold, Code::HoldOrderUnknown].map(|code| report.findings.has(code));
        let wanted = [Code::ErasedUnderHold, Code::HoldOrderUnknown].map(|it| code == Some(it));
        assert_eq!(told, wanted, "{seconds} s: {}", crate::render::text::report(&report));
        let verdict = if told[0] { Verdict::Policy } else { Verdict::Verified };
        assert_eq!(report.verdict, verdict, "{seconds} s: {}", crate::render::text::report(&report));
    }
}

#[test]
fn an_outcome_that_does_not_repeat_who_asked_what_or_how_it_is_kept_is_found() {
    let adaptions: [(&str, fn(&mut Outcome)); 5] = [
        ("caller", |outcome| outcome.caller.team = None),
        ("asked", |outcome| outcome.asked.requested_model = Some(id("gpt-5"))),
        ("asked", |outcome| outcome.asked.provider = Some(id("elsewhere"))),
        ("content_key", |outcome| {
            outcome.content_key = Some(id("acme/gw1/20260921t133320z-00000001/000000/0009"));
        }),
        ("retention", |outcome| outcome.retention = id("short")),
    ];
    for (item, adapt) in adaptions {
        let report = ended(adapt);
        has(&report, "RECORD_INVALID", Verdict::Invalid);
        let of = |finding: &&crate::finding::Finding| finding.code == Code::RecordInvalid;
        let named: Vec<_> = report.findings.iter().filter(of).map(|it| it.place.item.clone()).collect();
        assert_eq!(named, [Some(item.to_owned())], "{}", crate::render::text::report(&report));
    }
    assert_eq!(ended(|_| ()).verdict, Verdict::Verified);
}

#[test]
fn what_shares_a_key_with_what_was_erased_and_was_held_is_named_where_no_record_names_it() {
    let other = Scope { exchange: Some(exchange_id(6)), ..Default::default() };
    // Whether the hold was there before the key went.
    for is_before in [true, false] {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        let (position, key) = writer.intent(5, b"to be erased");
        writer.outcome(5, position, &key, b"also");
        let (at, held) = (writer.position(), exchange_id(6));
        let part =
            writer.part(at, &held, schemas::record::PartName::ClientRequest, &key, b"to be kept", None);
        let (held, _) = writer.intent_with(held, key.clone(), vec![part]);
        writer.outcome(6, held, &key, b"also");
        let erased = erasure(&writer, 5, position, &key);
        let begin = hold("begin", other.clone());
        let said = if is_before { [begin, erased] } else { [erased, begin] };
        said.into_iter().for_each(|body| _ = writer.push(body));
        writer.close();
        let folder = tempfile::tempdir().unwrap();
        let (name, mut page) = writer.key_table();
        let slot = usize::try_from(schemas::keytable::slot_offset(key.slot)).unwrap();
        page[slot..slot + 64].copy_from_slice(&schemas::keytable::DESTROYED);
        std::fs::create_dir_all(folder.path().join(&name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), page).unwrap();
        let keys = Keys::open(&[folder.path()]).unwrap();
        let report =
            verify_at(&writer.store, writer.now, |options| options.keys = Some(Box::leak(Box::new(keys))));
        // A record of one exchange says nothing of another under its key.
        let undeclared = report.findings.iter().filter(|finding| finding.code == Code::UndeclaredErasure);
        let undeclared: BTreeSet<_> = undeclared.map(|finding| finding.place.exchange.clone()).collect();
        assert_eq!(undeclared, BTreeSet::from([Some(exchange_id(6).to_string())]));
        let of = |finding: &&crate::finding::Finding| finding.code == Code::ErasedUnderHold;
        let named: Vec<_> = report.findings.iter().filter(of).collect();
        assert_eq!(!named.is_empty(), is_before, "{}", crate::render::text::report(&report));
        assert!(
            named.iter().all(|finding| finding.place.exchange.as_deref() == Some(exchange_id(6).as_str()))
        );
    }
}
