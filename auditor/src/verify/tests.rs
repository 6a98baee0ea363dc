use std::collections::BTreeSet;

use schemas::Sha256Hex;
use schemas::record::{
    Body, Config, ConfigReason, Cost, Encryption, Gap, GapReason, Heartbeat, PartName, Predecessor, Usage,
    UsageRole, UsageSource,
};

use super::*;
use crate::fixture::{START, Writer, exchange_id, id, small, trust};
use crate::source::MemorySource;
use crate::time::SECOND;

/// Just after the small store's end: the gateway is younger than its bounds.
pub(super) const NOW: i64 = START + 20 * SECOND;

pub(super) fn verify_at(store: &MemorySource, now: i64, adapt: impl FnOnce(&mut Options<'_>)) -> Report {
    let (trust, mandate) = (trust(), Mandate::default());
    let mut options = Options::new(&trust, &mandate, now);
    adapt(&mut options);
    run(store, &options, &mut NoSink).0
}

pub(super) fn verify(store: &MemorySource) -> Report {
    verify_at(store, NOW, |_| {})
}

pub(super) fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().filter(|f| f.effect != Effect::Note).map(|f| f.code.as_str()).collect()
}

#[track_caller]
pub(super) fn has(report: &Report, code: &str, verdict: Verdict) {
    assert!(codes(report).contains(code), "{code} not in {:?}", codes(report));
    assert_eq!(report.verdict, verdict, "{}", crate::render::text::report(report));
}

pub(super) fn names(store: &MemorySource, part: &str) -> Vec<String> {
    store.objects.keys().filter(|name| name.contains(part)).cloned().collect()
}

/// The interval of the small store, asked for by name.
pub(super) fn whole(options: &mut Options<'_>) {
    options.from = Some(START);
    options.to = Some(START + 2 * SECOND + SECOND / 5);
}

#[test]
fn a_sound_store_is_verified() {
    let report = verify(&small().store);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.counts.leaves, 8);
    let first = "VERIFIED signed; no state kept; NOT witnessed; NOT timestamped; retention not enforced by this store";
    assert!(report.first_line().starts_with(first), "{}", report.first_line());
    assert!(report.not_checked.iter().any(|line| line.contains("no key table was given")));
}

#[test]
#[ignore = "a measure: prints the time that a small store takes"]
fn time_of_a_small_store() {
    let store = small().store;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(verify(&store).verdict, Verdict::Verified);
    }
    let mut stderr = std::io::stderr();
    let _ =
        std::io::Write::write_all(&mut stderr, format!("{:?} for one\n", began.elapsed() / 200).as_bytes());
}

#[test]
fn every_flipped_byte_is_found() {
    let store = small().store;
    let began = std::time::Instant::now();
    let mut tried = 0_u32;
    for (name, bytes) in &store.objects {
        for n in (0..bytes.len()).step_by(if bytes.len() > 2000 { 97 } else { 13 }) {
            let mut changed = bytes.to_vec();
            changed[n] ^= 1 << (n % 8);
            let mut store = store.clone();
            store.put(name.clone(), changed);
            let report = verify_at(&store, NOW, whole);
            assert_ne!(report.verdict, Verdict::Verified, "{name} byte {n}");
            let named = report
                .findings
                .iter()
                .any(|f| f.effect != Effect::Note && f.place.object.as_deref() == Some(name));
            assert!(named, "{name} byte {n} is not named: {}", crate::render::text::report(&report));
            tried += 1;
        }
    }
    let each = began.elapsed() / tried;
    assert!(each < std::time::Duration::from_millis(500), "{each:?} for one small store");
}

#[test]
fn removal_duplication_swap_and_truncation_of_each_object_are_found() {
    let store = small().store;
    let all: Vec<String> = store.objects.keys().cloned().collect();
    for name in &all {
        let mut removed = store.clone();
        removed.objects.remove(name);
        let report = verify_at(&removed, NOW, whole);
        assert_ne!(report.verdict, Verdict::Verified, "without {name}");
        let mut cut = store.clone();
        cut.put(name.clone(), store.objects[name].slice(..store.objects[name].len() - 1));
        assert_ne!(verify_at(&cut, NOW, whole).verdict, Verdict::Verified, "{name} cut");
        cut.put(name.clone(), "");
        assert_ne!(verify_at(&cut, NOW, whole).verdict, Verdict::Verified, "{name} emptied");
        for other in &all {
            if other == name {
                continue;
            }
            let mut swapped = store.clone();
            swapped.put(name.clone(), store.objects[other].clone());
            swapped.put(other.clone(), store.objects[name].clone());
            assert_ne!(
                verify_at(&swapped, NOW, whole).verdict,
                Verdict::Verified,
                "{name} and {other} swapped"
            );
        }
        for copy in
            [format!("{name}.bak"), name.replace("000000000", "000000001"), format!("k=v/{name}"), "x".into()]
        {
            let mut doubled = store.clone();
            doubled.put(copy.clone(), store.objects[name].clone());
            assert_ne!(verify_at(&doubled, NOW, whole).verdict, Verdict::Verified, "{name} as {copy}");
        }
    }
}

#[test]
fn a_removed_middle_batch_is_missing_and_named() {
    let mut store = small().store;
    for name in names(&store, "0000000001") {
        store.objects.remove(&name);
    }
    has(&verify(&store), "BATCH_MISSING", Verdict::Incomplete);
}

#[test]
fn a_repeated_batch_under_another_number_is_found() {
    let mut store = small().store;
    let seal = store.objects[&names(&store, "0000000001.seal")[0]].clone();
    store.put(names(&store, "0000000002.seal")[0].replace("2.seal", "3.seal"), seal);
    has(&verify(&store), "DUPLICATE_RANGE", Verdict::Invalid);
}

#[test]
fn a_log_of_which_nothing_was_proven_is_said_to_be_so() {
    let mut store = small().store;
    for name in names(&store, ".records.parquet") {
        let mut bytes = store.objects[&name].to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.put(name, bytes);
    }
    let report = verify(&store);
    has(&report, "FILE_MISMATCH", Verdict::Invalid);
    // The file is named once.
    let mut mismatches = report.findings.iter().filter(|finding| finding.code == Code::FileMismatch);
    assert!(mismatches.all(|finding| finding.place.item.is_none()));
    for text in [crate::render::text::report(&report), crate::render::rests::text(&report, &[], None)] {
        assert!(text.contains("nothing proven") && !text.contains("root 0000"), "{text}");
    }
}

#[test]
fn an_empty_store_is_no_success() {
    let report = verify(&MemorySource::default());
    has(&report, "NO_INPUT", Verdict::CouldNotJudge);
    assert_eq!(report.verdict.exit_code(), 2);
}

#[test]
fn a_rollback_is_named_against_the_last_visit() {
    let store = small().store;
    let (trust, mandate) = (trust(), Mandate::default());
    let mut options = Options::new(&trust, &mandate, NOW);
    let first = Remembered::FirstVisit;
    options.remembered = Some(&first);
    let (report, visits) = run(&store, &options, &mut NoSink);
    assert!(report.first_line().contains("; first visit;"), "{}", report.first_line());
    let known = Remembered::Known(visits);
    options.remembered = Some(&known);
    let (report, _) = run(&store, &options, &mut NoSink);
    assert!(report.first_line().contains("append-only since the visit at"), "{}", report.first_line());
    let mut short = store.clone();
    for name in names(&store, "0000000002") {
        short.objects.remove(&name);
    }
    has(&run(&short, &options, &mut NoSink).0, "ROLLBACK", Verdict::Diverged);
    has(&run(&MemorySource::default(), &options, &mut NoSink).0, "EMPTY_EVIDENCE", Verdict::Diverged);
}

#[test]
fn rewritten_history_with_the_true_key_diverges() {
    let known = {
        let (trust, mandate) = (trust(), Mandate::default());
        Remembered::Known(run(&small().store, &Options::new(&trust, &mandate, NOW), &mut NoSink).1)
    };
    let mut other = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    other.exchange(1, b"another", b"history");
    other.seal();
    other.exchange(2, b"and", b"more");
    other.heartbeat();
    other.seal();
    other.close();
    let report =
        verify_at(&other.store, NOW, |options| options.remembered = Some(Box::leak(Box::new(known))));
    has(&report, "DIVERGED", Verdict::Diverged);
}

#[test]
fn logs_of_others_are_named() {
    let mut store = small().store;
    let seal = store.objects.values().next().unwrap().clone();
    store.put("acme/gw9/20260101t000000z-00000001/0000000000.seal", seal);
    has(&verify(&store), "UNREGISTERED_LOG", Verdict::Invalid);
}

#[test]
fn another_key_is_not_trusted() {
    let store = small().store;
    let mut trust = trust();
    trust.gateways[0].key = schemas::trust::key_text(&[9; 32]);
    let mandate = Mandate::default();
    let (report, _) = run(&store, &Options::new(&trust, &mandate, NOW), &mut NoSink);
    assert!(
        codes(&report).contains("UNTRUSTED_KEY") || codes(&report).contains("SEAL_INVALID"),
        "{:?}",
        codes(&report)
    );
    assert_eq!(report.verdict, Verdict::Invalid);
}

pub(super) fn two_logs(named: bool) -> Writer {
    let first = small();
    let predecessor = named.then(|| first.as_predecessor());
    let mut second = Writer::boot("20260921t133330z-00000002", START + 10 * SECOND, predecessor, first.store);
    second.exchange(10, b"q", b"a");
    second.close();
    second
}

#[test]
fn epochs_are_chained_and_declared_silence_is_printed() {
    let report = verify(&two_logs(true).store);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.gateways[0].declared_silence.len(), 1);
    assert!(crate::render::text::report(&report).contains("declared, not proven"));
}

#[test]
fn a_boot_without_its_known_predecessor_is_found() {
    has(&verify(&two_logs(false).store), "PREDECESSOR_MISSING", Verdict::Incomplete);
}

#[test]
fn a_missing_predecessor_log_is_found() {
    let mut store = two_logs(true).store;
    store.objects.retain(|name, _| !name.contains("00000001/"));
    has(&verify(&store), "LOG_MISSING", Verdict::Incomplete);
}

#[test]
fn a_cut_predecessor_is_a_rollback() {
    let mut store = two_logs(true).store;
    store.objects.retain(|name, _| !name.contains("00000001/0000000002"));
    let report = verify(&store);
    assert!(codes(&report).contains("ROLLBACK"), "{:?}", codes(&report));
}

#[test]
fn two_successors_of_one_log_are_a_fork() {
    let first = small();
    let predecessor = Some(first.as_predecessor());
    let mut second =
        Writer::boot("20260921t133330z-00000002", START + 10 * SECOND, predecessor.clone(), first.store);
    second.close();
    let mut third = Writer::boot("20260921t133331z-00000003", START + 11 * SECOND, predecessor, second.store);
    third.close();
    has(&verify(&third.store), "PREDECESSOR_FORK", Verdict::Diverged);
}

#[test]
fn a_predecessor_that_went_on_or_is_another_one_is_a_mismatch() {
    // The successor saw the log at some size; then somebody with its key went on.
    let mut first = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    first.exchange(1, b"q", b"a");
    first.seal();
    let predecessor = first.as_predecessor();
    first.exchange(2, b"q", b"a");
    first.close();
    let successor = |predecessor, store| {
        let mut second =
            Writer::boot("20260921t133330z-00000002", START + 10 * SECOND, Some(predecessor), store);
        second.close();
        verify(&second.store)
    };
    has(&successor(predecessor, first.store.clone()), "PREDECESSOR_MISMATCH", Verdict::Diverged);
    // The same size, and another root.
    let other = Predecessor { root: Some(Sha256Hex([9; 32])), ..first.as_predecessor() };
    has(&successor(other, first.store.clone()), "PREDECESSOR_MISMATCH", Verdict::Diverged);
    // A log of another gateway.
    let other = Predecessor {
        origin: Origin::join("acme", "gw2", "20260921t133320z-00000001").unwrap(),
        ..first.as_predecessor()
    };
    has(&successor(other, first.store.clone()), "PREDECESSOR_MISMATCH", Verdict::Diverged);
    let sound = successor(first.as_predecessor(), first.store.clone());
    assert_eq!(sound.verdict, Verdict::Verified, "{}", crate::render::text::report(&sound));
}

#[test]
fn what_is_larger_than_a_limit_is_not_judged_and_no_pass() {
    let writer = small();
    let limit = |adapt: fn(&mut Limits)| verify_at(&writer.store, NOW, |options| adapt(&mut options.limits));
    for report in [limit(|limits| limits.records_bytes = 100), limit(|limits| limits.reference_bytes = 100)] {
        assert!(codes(&report).contains("RESOURCE_LIMIT"), "{:?}", codes(&report));
        assert_ne!(report.verdict, Verdict::Verified);
    }
}

#[test]
fn a_log_without_close_is_incomplete_once_its_gateway_is_overdue() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.seal();
    let young = verify(&writer.store);
    assert_eq!(young.verdict, Verdict::Verified, "{}", crate::render::text::report(&young));
    assert!(young.gateways[0].exposure.is_some());
    has(&verify_at(&writer.store, START + 3600 * SECOND, |_| {}), "TAIL_UNPROVEN", Verdict::Incomplete);
    let before =
        verify_at(&writer.store, START + 3600 * SECOND, |options| options.to = Some(START + SECOND / 10));
    assert_eq!(before.verdict, Verdict::Verified, "{}", crate::render::text::report(&before));
}

#[test]
fn time_after_the_last_close_is_incomplete_unless_out_of_service() {
    let store = small().store;
    has(&verify_at(&store, START + 3600 * SECOND, |_| {}), "TAIL_UNPROVEN", Verdict::Incomplete);
    let mut closed = trust();
    closed.gateways[0].closed = Some(true);
    let mandate = Mandate::default();
    let (report, _) = run(&store, &Options::new(&closed, &mandate, START + 3600 * SECOND), &mut NoSink);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
}

#[test]
fn an_interval_before_the_first_log_is_not_proven() {
    let report = verify_at(&small().store, NOW, |options| options.from = Some(START - 3600 * SECOND));
    has(&report, "PERIOD_NOT_PROVEN", Verdict::Incomplete);
}

#[test]
fn silence_beyond_the_bound_is_found() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.seal();
    writer.now += 1000 * SECOND;
    writer.heartbeat();
    writer.close();
    has(&verify_at(&writer.store, writer.now + SECOND, |_| {}), "SILENCE", Verdict::Incomplete);
}

pub(super) fn sealed(push: impl FnOnce(&mut Writer)) -> Report {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    push(&mut writer);
    writer.seal();
    writer.heartbeat();
    writer.close();
    verify_at(&writer.store, writer.now + SECOND, |_| {})
}

#[test]
fn counters_that_claim_more_or_less_than_the_records_are_found() {
    let report = sealed(|writer| {
        let mut counters = writer.counters();
        counters.insert("exchanges".into(), 120);
        writer.push(Body::Heartbeat(Heartbeat { counters }));
    });
    has(&report, "COUNTER_MISMATCH", Verdict::Invalid);
}

#[test]
fn a_close_that_counts_more_than_was_recorded_is_found() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    let mut counters = writer.counters();
    counters.insert("exchanges".into(), 2);
    let alive_until = writer.now;
    let reason = schemas::record::CloseReason::Shutdown;
    writer.push(Body::Close(schemas::record::Close { reason, successor: None, alive_until, counters }));
    writer.seal();
    has(&verify_at(&writer.store, writer.now, |_| {}), "COUNTER_MISMATCH", Verdict::Invalid);
}

#[test]
fn a_crashed_log_is_whole_and_its_silence_is_declared() {
    use schemas::record::{Close, CloseReason, End};
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    let (position, key) = writer.intent(2, b"cut");
    let alive_until = writer.now;
    writer.now += 3600 * SECOND;
    writer.push(Body::Gap(Gap { reason: GapReason::TornTail, count: None, bytes: Some(100) }));
    let usage = unknown_usage();
    let mut outcome = writer.outcome_of(exchange_id(2), position, Some(&key), vec![], usage);
    outcome.end = End::Interrupted;
    writer.push(Body::Outcome(outcome));
    writer.push(Body::Close(Close {
        reason: CloseReason::Crash,
        successor: None,
        alive_until,
        counters: Default::default(),
    }));
    writer.seal();
    let now = writer.now;
    let mut next =
        Writer::boot("20260921t143320z-00000002", now, Some(writer.as_predecessor()), writer.store);
    next.exchange(3, b"q", b"a");
    next.close();
    let report = verify_at(&next.store, next.now, |options| options.to = Some(next.now - SECOND));
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.gateways[0].declared_silence[0].from, alive_until);
    assert_eq!(report.gateways[0].logs[0].proven[0].to, alive_until, "recovery's own records prove no life");
}

#[test]
fn what_a_dead_process_put_and_did_not_seal_is_left_over_and_nothing_else_is() {
    use schemas::record::{Close, CloseReason};
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.seal();
    writer.exchange(2, b"q", b"a");
    let alive_until = writer.now;
    writer.now += 3600 * SECOND;
    let (reason, counters) = (CloseReason::Salvaged, Default::default());
    writer.push(Body::Close(Close { reason, successor: None, alive_until, counters }));
    writer.seal();
    // What the dead process had cut: the records behind its first batch, but for `close`.
    let read = |name: &String| {
        let bytes = writer.store.objects[name].clone();
        schemas::files::read_records(&bytes, &schemas::files::Limits::default()).unwrap().rows
    };
    let sealed: Vec<String> = names(&writer.store, ".records.parquet");
    let mut rows = read(&sealed[1]);
    let close = rows.pop().unwrap();
    let with_file_of = |batch: u64, rows: &[schemas::files::LeafRow]| {
        let mut store = writer.store.clone();
        let (folder, _) = sealed[0].rsplit_once('/').unwrap();
        let file = schemas::files::write_records(rows).unwrap();
        store.put(format!("{folder}/{batch:010}-{}.records.parquet", Sha256Hex::of(&file)), file);
        verify_at(&store, writer.now, |_| {})
    };
    for left in [1, 2] {
        let report = with_file_of(left, &rows);
        let left: Vec<Effect> =
            report.findings.iter().filter(|f| f.code.as_str() == "LEFTOVER").map(|f| f.effect).collect();
        assert_eq!(left, [Effect::Note]);
        assert!(codes(&report).is_subset(&["TAIL_UNPROVEN"].into()), "{:?}", codes(&report));
    }
    // A record that the log has not, in the place of `close`: whoever closed it cut it off.
    let mut more = rows.clone();
    more.push(schemas::files::LeafRow { position: close.position, ..rows[0].clone() });
    assert!(codes(&with_file_of(1, &more)).contains("UNREFERENCED_OBJECT"));
    assert!(codes(&with_file_of(2, &more)).contains("BATCH_INCOMPLETE"));
    // Sealed by the process itself: it knew what it had put.
    has(&with_file_of(0, &rows), "UNREFERENCED_OBJECT", Verdict::Invalid);
}

#[test]
fn what_recovery_says_of_unrecorded_exchanges_proves_no_life_and_contradicts_no_close() {
    use schemas::record::{Close, CloseReason};
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    let alive_until = writer.now;
    writer.now += 3600 * SECOND;
    writer.push(Body::Gap(Gap { reason: GapReason::Unrecorded, count: Some(3), bytes: None }));
    let (reason, counters) = (CloseReason::Crash, Default::default());
    writer.push(Body::Close(Close { reason, successor: None, alive_until, counters }));
    writer.seal();
    let report = verify_at(&writer.store, writer.now, |_| {});
    has(&report, "RECORDS_LOST", Verdict::Incomplete);
    assert!(codes(&report).is_disjoint(&["TIME_CONTRADICTION", "SILENCE"].into()), "{:?}", codes(&report));
    assert_eq!(report.gateways[0].logs[0].proven[0].to, alive_until);
}

#[test]
fn what_passed_unrecorded_behind_the_close_of_an_earlier_log_is_not_taken_for_this_ones() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for count in [1, 2] {
        writer.push(Body::Gap(Gap { reason: GapReason::Unrecorded, count: Some(count), bytes: None }));
        writer.exchange(count, b"q", b"a");
    }
    writer.close();
    let report = verify_at(&writer.store, writer.now, |_| {});
    let lost = report.findings.iter().filter(|finding| finding.code == Code::RecordsLost);
    let since: Vec<bool> = lost.filter_map(|lost| Some(lost.during?.0 == i64::MIN)).collect();
    assert_eq!(since, [true, false]);
}

pub(super) fn unknown_usage() -> Usage {
    Usage::of(UsageSource::Unknown, UsageRole::None)
}

#[test]
fn an_intent_without_outcome_in_a_closed_log_is_found() {
    has(&sealed(|writer| _ = writer.intent(2, b"q")), "ORPHAN_INTENT", Verdict::Incomplete);
}

#[test]
fn an_outcome_without_intent_or_a_second_one_is_found() {
    let report = sealed(|writer| {
        let key = writer.key();
        writer.outcome(7, 1, &key, b"a");
    });
    has(&report, "ORPHAN_OUTCOME", Verdict::Invalid);
}

#[test]
fn an_exchange_id_used_twice_is_found() {
    has(&sealed(|writer| writer.exchange(1, b"q", b"a")), "DUPLICATE_EXCHANGE", Verdict::Invalid);
}

#[test]
fn a_configuration_that_was_not_announced_is_found() {
    let report = sealed(|writer| {
        writer.config = Sha256Hex([5; 32]);
        writer.heartbeat();
    });
    has(&report, "UNAPPROVED_CONFIG", Verdict::Invalid);
}

#[test]
fn a_reference_that_is_not_stored_is_found() {
    let report = sealed(|writer| {
        let next = Sha256Hex([5; 32]);
        writer.push(Body::Config(Config {
            next,
            reason: ConfigReason::Reload,
            policy: None,
            price_book: None,
        }));
        writer.config = next;
    });
    has(&report, "REFERENCE_MISSING", Verdict::Incomplete);
}

const DICTIONARY: &[u8] =
    br#"{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}{"id":"r1","choices":[]}"#;

/// A log of three batches, the first two with an exchange each whose content is written with a dictionary; it stands in
/// the reference file of batch `kept`.
fn with_dictionary(kept: Option<u64>) -> Writer {
    let epoch = "20260921t133320z-00000001";
    let mut writer = Writer::boot_with(epoch, START, None, MemorySource::default(), Encryption::Off);
    writer.dictionary = Some(DICTIONARY);
    for batch in 0..2 {
        if kept == Some(batch) {
            writer.keep_dictionary(DICTIONARY);
        }
        writer.exchange(batch + 1, &DICTIONARY[..65], &DICTIONARY[65..]);
        writer.seal();
    }
    writer.close();
    writer
}

#[test]
fn content_is_read_with_the_dictionary_of_its_batch_or_an_earlier_one() {
    let report = verify(&with_dictionary(Some(0)).store);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!((report.tally.parts_kept, report.tally.parts_proven), (4, 4));
}

#[test]
fn content_whose_dictionary_is_nowhere_or_comes_later_is_found() {
    let nowhere = verify(&with_dictionary(None).store);
    has(&nowhere, "REFERENCE_MISSING", Verdict::Incomplete);
    assert_eq!((nowhere.tally.parts_kept, nowhere.tally.parts_proven), (4, 0));
    let later = verify(&with_dictionary(Some(1)).store);
    has(&later, "REFERENCE_MISSING", Verdict::Incomplete);
    assert_eq!((later.tally.parts_kept, later.tally.parts_proven), (4, 2));
}

#[test]
fn a_dictionary_beyond_those_that_are_held_is_not_said_to_be_missing() {
    let epoch = "20260921t133320z-00000001";
    let mut writer = Writer::boot_with(epoch, START, None, MemorySource::default(), Encryption::Off);
    for n in 0..16_u8 {
        writer.keep_dictionary(format!("dictionary {n}").as_bytes());
    }
    writer.exchange(1, b"question", b"answer");
    writer.seal();
    writer.keep_dictionary(DICTIONARY);
    writer.dictionary = Some(DICTIONARY);
    writer.exchange(2, &DICTIONARY[..65], &DICTIONARY[65..]);
    writer.close();
    let report = verify(&writer.store);
    assert_eq!((report.tally.parts_kept, report.tally.parts_proven), (4, 2));
    has(&report, "RESOURCE_LIMIT", Verdict::CouldNotJudge);
}

#[test]
fn a_dictionary_in_a_file_that_cannot_be_read_is_not_said_to_be_missing() {
    let store = with_dictionary(Some(0)).store;
    let report = verify_at(&store, NOW, |options| options.limits.reference_bytes = 100);
    let of_content: BTreeSet<_> = report
        .findings
        .iter()
        .filter(|finding| finding.expected.contains("dictionary"))
        .map(|finding| finding.code)
        .collect();
    assert_eq!(of_content, [Code::CouldNotRead].into());
}

#[test]
fn backdated_records_and_times_after_the_seal_are_found() {
    let report = sealed(|writer| {
        writer.now -= 3600 * SECOND;
        writer.heartbeat();
        writer.now += 3600 * SECOND;
    });
    has(&report, "BACKDATED", Verdict::Invalid);
    let report = sealed(|writer| {
        writer.now += 200 * SECOND;
        writer.heartbeat();
        writer.now -= 199 * SECOND;
    });
    has(&report, "TIME_CONTRADICTION", Verdict::Invalid);
}

#[test]
fn loss_by_the_gateways_own_word_is_incomplete() {
    let gap = |reason| Body::Gap(Gap { reason, count: Some(3), bytes: None });
    has(&sealed(|writer| _ = writer.push(gap(GapReason::Loss))), "RECORDS_LOST", Verdict::Incomplete);
    has(&sealed(|writer| _ = writer.push(gap(GapReason::Unrecorded))), "RECORDS_LOST", Verdict::Incomplete);
}

#[test]
fn unknown_kinds_and_keys_are_listed_and_change_nothing() {
    let config = small().config;
    let report = sealed(|writer| {
        let at = writer.now;
        let leaf = format!(r#"{{"at":{at},"config":"{config}","frames":3,"kind":"message","v":1}}"#);
        writer.push_leaf(leaf.into_bytes());
    });
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!(report.not_judged["kind message"], 1);
}

#[test]
fn content_of_a_record_of_an_unknown_kind_is_not_judged() {
    let config = small().config;
    let report = sealed(|writer| {
        let (at, position, key) = (writer.now, writer.position(), writer.key());
        writer.part(position, &exchange_id(9), PartName::ClientRequest, &key, b"what it says", None);
        let leaf = format!(r#"{{"at":{at},"config":"{config}","frames":3,"kind":"message","v":1}}"#);
        writer.push_leaf(leaf.into_bytes());
    });
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    // The same beside a record that is known is nobody's.
    let report = sealed(|writer| {
        let (position, key) = (writer.position(), writer.key());
        writer.part(position, &exchange_id(9), PartName::ClientRequest, &key, b"what it says", None);
        writer.heartbeat();
    });
    has(&report, "CONTENT_FOREIGN", Verdict::Invalid);
}

#[test]
fn a_wrong_cost_is_found_by_computing_it_again() {
    let cost = |total: &str, book: Sha256Hex| Cost {
        currency: id("USD"),
        total: total.into(),
        classes: [("input".to_owned(), total.to_owned())].into(),
        price_book: book,
        price_row: id("no-such-row"),
    };
    let book = Sha256Hex::of(include_bytes!("../../../policies/prices/2026-11.csv"));
    let report = sealed(|writer| {
        let (position, key) = writer.intent(2, b"q");
        let usage = Usage {
            input_tokens: Some(5),
            output_tokens: Some(0),
            ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
        };
        let mut outcome = writer.outcome_of(exchange_id(2), position, Some(&key), vec![], usage);
        outcome.cost = Some(cost("0.5", book));
        outcome.unpriced = None;
        writer.push(Body::Outcome(outcome));
    });
    has(&report, "COST_RECOMPUTE_DIFF", Verdict::Invalid);
}

#[test]
fn a_cost_that_is_left_out_is_found_where_the_book_gives_one() {
    let usage = |source| Usage {
        input_tokens: Some(5),
        output_tokens: Some(0),
        ..Usage::of(source, UsageRole::Incurred)
    };
    let told = UsageSource::Provider;
    let book = "id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,\
                output,input_audio,output_audio,input_image,source,read_on,note\n\
                a,maker,gpt-4o,standard,,2026-01-01,,USD,3,,,,15,,,,https://x.test,2026-01-01,\n";
    let other = book.replace("gpt-4o", "gpt-5");
    let other = other.as_str();
    let maker = r#"[{"name":"openai","kind":"other","price_as":"maker"}]"#;
    for (providers, books, role, source, served, is_found) in [
        (maker, vec![book], UsageRole::Incurred, told, None, true),
        (r#"[{"name":"openai","kind":"maker"}]"#, vec![book], UsageRole::Incurred, told, None, true),
        // Its answer says another model, another provider, another one's use; or nobody told what was used.
        (maker, vec![book], UsageRole::Incurred, told, Some("gpt-4o"), true),
        (maker, vec![book], UsageRole::Incurred, told, Some("p:00000000000000000000000000000000"), false),
        (r#"[{"name":"openai"}]"#, vec![book], UsageRole::Incurred, told, None, false),
        (maker, vec![book], UsageRole::Retrieved, told, None, false),
        (maker, vec![book], UsageRole::Incurred, UsageSource::Unknown, None, false),
        // Which of two books it was is not known, and one of them has no price.
        (maker, vec![book, other], UsageRole::Incurred, told, None, false),
        (maker, vec![other, book], UsageRole::Incurred, told, None, false),
        (maker, vec![], UsageRole::Incurred, told, None, false),
    ] {
        let report = sealed(|writer| {
            let mut price_books: Vec<Option<Sha256Hex>> =
                books.iter().map(|book| Some(writer.reference(book.as_bytes(), "text/csv"))).collect();
            if price_books.is_empty() {
                price_books.push(None);
            }
            for (n, price_book) in price_books.into_iter().enumerate() {
                let name = price_book.map(|book| book.to_string()).unwrap_or_default();
                let config = format!(r#"{{"config":{{"providers":{providers}}},"form":"{name}"}}"#);
                let next = writer.reference(config.as_bytes(), "application/json");
                writer.push(Body::Config(Config {
                    next,
                    reason: ConfigReason::Reload,
                    policy: None,
                    price_book,
                }));
                writer.config = next;
                // After an hour nothing goes by the configuration before it.
                for _ in 0..if n == 0 { 20 } else { 0 } {
                    writer.now += 240 * SECOND;
                    writer.heartbeat();
                }
            }
            let (position, key) = writer.intent(2, b"q");
            let usage = Usage { role, ..usage(source) };
            let mut outcome = writer.outcome_of(exchange_id(2), position, Some(&key), vec![], usage);
            outcome.answered.served_model = served.map(id);
            writer.push(Body::Outcome(outcome));
        });
        let found: Vec<_> =
            report.findings.iter().filter(|found| found.code == Code::CostRecomputeDiff).collect();
        assert_eq!(
            found.len(),
            usize::from(is_found),
            "{providers} {books:?} {role:?} {served:?}: {found:?}"
        );
        if let [found] = found[..] {
            assert_eq!((found.expected.as_str(), found.found.as_str()), ("0.000015 USD by row a", "no cost"));
            assert_eq!(found.effect, Effect::Note);
        }
    }
}

mod content {
    use super::*;

    fn table(writer: &Writer) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, writer);
        dir
    }

    fn write(dir: &tempfile::TempDir, writer: &Writer) {
        let (name, page) = writer.key_table();
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, page).unwrap();
    }

    fn with_keys(store: &MemorySource, table: &tempfile::TempDir, now: i64) -> Report {
        let keys = Keys::open(&[table.path()]).unwrap();
        verify_at(store, now, |options| options.keys = Some(Box::leak(Box::new(keys))))
    }

    #[test]
    fn commitments_are_checked_with_the_key_table() {
        let writer = small();
        let report = with_keys(&writer.store, &table(&writer), NOW);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
        assert_eq!((report.tally.parts_kept, report.tally.parts_proven), (4, 4));
        assert!(report.first_line().contains("content commitments checked"), "{}", report.first_line());
    }

    #[test]
    fn a_key_table_of_another_gateway_is_one_finding_with_a_count() {
        let report = with_keys(&small().store, &tempfile::tempdir().unwrap(), NOW);
        has(&report, "KEY_ABSENT", Verdict::CouldNotJudge);
        assert_eq!(report.findings.counts()[&Code::KeyAbsent], 1);
        let finding = report.findings.iter().find(|finding| finding.code == Code::KeyAbsent).unwrap();
        assert!(finding.found.contains("4 parts"), "{}", finding.found);
    }

    #[test]
    fn content_without_encryption_is_checked_without_keys() {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        writer.encrypt = false;
        writer.exchange(1, b"question", b"answer");
        writer.close();
        let report = verify(&writer.store);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
        assert_eq!(report.tally.parts_proven, 2);
        assert!(!verify(&small().store).findings.has(Code::Unencrypted));
        let (epoch, store) = ("20260921t133320z-00000001", MemorySource::default());
        let mut plain = Writer::boot_with(epoch, START, None, store, Encryption::Off);
        plain.exchange(1, b"question", b"answer");
        plain.close();
        let report = verify(&plain.store);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
        assert!(report.findings.has(Code::Unencrypted));
    }

    #[test]
    fn every_flipped_byte_of_the_key_table_is_found() {
        let writer = small();
        let table = table(&writer);
        let (name, page) = writer.key_table();
        for n in (0..page.len()).step_by(11) {
            let mut changed = page.clone();
            changed[n] ^= 4;
            std::fs::write(table.path().join(&name), &changed).unwrap();
            let report = with_keys(&writer.store, &table, NOW);
            assert_ne!(report.verdict, Verdict::Verified, "byte {n}");
        }
        std::fs::write(table.path().join(&name), &page[..page.len() - 1]).unwrap();
        has(&with_keys(&writer.store, &table, NOW), "KEY_TABLE_DAMAGED", Verdict::Invalid);
        std::fs::remove_file(table.path().join(&name)).unwrap();
        has(&with_keys(&writer.store, &table, NOW), "UNDECLARED_ERASURE", Verdict::Invalid);
    }

    #[test]
    fn a_destroyed_key_needs_an_erasure_record() {
        let mut writer = small_open();
        let (position, key) = writer.intent(5, b"to be erased");
        writer.outcome(5, position, &key, b"also");
        writer.seal();
        writer.keys[usize::from(key.slot)] = [0; 32];
        let table = table(&writer);
        let destroy = |table: &tempfile::TempDir, writer: &Writer| {
            let (name, mut page) = writer.key_table();
            let at = usize::try_from(schemas::keytable::slot_offset(key.slot)).unwrap();
            page[at..at + 64].copy_from_slice(&schemas::keytable::DESTROYED);
            std::fs::write(table.path().join(name), page).unwrap();
        };
        destroy(&table, &writer);
        has(&with_keys(&writer.store, &table, writer.now), "UNDECLARED_ERASURE", Verdict::Invalid);
        writer.push(Body::Erasure(writer.erasure(5, position, &key)));
        writer.close();
        let report = with_keys(&writer.store, &table, writer.now);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
        assert_eq!((report.tally.parts_erased, report.tally.parts_proven), (2, 2));
    }

    fn small_open() -> Writer {
        let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
        writer.exchange(1, b"question", b"answer");
        writer.seal();
        writer
    }

    #[test]
    fn parts_stored_as_edits_of_earlier_batches_are_checked() {
        let mut writer = small_open();
        writer.growing(10..30, |n| n % 3 == 0);
        writer.close();
        let report = with_keys(&writer.store, &table(&writer), writer.now);
        assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
        assert_eq!(report.tally.parts_proven, 42);
    }

    #[test]
    fn a_part_that_is_stored_as_edits_of_itself_in_many_batches_ends_the_search() {
        let mut writer = small_open();
        let (exchange, key) = (exchange_id(3), writer.key());
        let bytes: Vec<u8> = (0..300_u32).flat_map(u32::to_le_bytes).collect();
        for _ in 0..4 {
            let position = writer.position();
            let itself = Some((&exchange, PartName::ClientRequest, bytes.as_slice()));
            let part = writer.part(position, &exchange, PartName::ClientRequest, &key, &bytes, itself);
            writer.intent_with(exchange.clone(), key.clone(), vec![part]);
            writer.seal();
        }
        writer.close();
        let report = with_keys(&writer.store, &table(&writer), writer.now);
        has(&report, "CONTENT_MISMATCH", Verdict::Invalid);
        assert_eq!(report.tally.parts_proven, 2);
    }

    #[test]
    fn content_of_another_exchange_is_found() {
        let mut writer = small_open();
        let (exchange, key) = (exchange_id(3), writer.key());
        let position = writer.position();
        let mut part = writer.part(position, &exchange, PartName::ClientRequest, &key, b"stored", None);
        part.commitment = Sha256Hex([1; 32]);
        let (_, key) = writer.intent_with(exchange, key, vec![part]);
        writer.outcome(3, position, &key, b"answer");
        writer.close();
        has(&with_keys(&writer.store, &table(&writer), writer.now), "CONTENT_MISMATCH", Verdict::Invalid);
        let report = verify_at(&writer.store, writer.now, |_| {});
        assert_eq!(report.verdict, Verdict::Verified, "only the key holder can tell");
    }
}

#[test]
fn the_mandate_is_held_against_the_evidence() {
    let store = small().store;
    let trust = trust();
    let mut mandate = Mandate::default();
    mandate.require("claim=witnessed").unwrap();
    mandate.require("system=sys-1").unwrap();
    mandate.require("system=unseen").unwrap();
    let (report, _) = run(&store, &Options::new(&trust, &mandate, NOW), &mut NoSink);
    assert_eq!(report.verdict, Verdict::Policy);
    assert_eq!(codes(&report), BTreeSet::from(["CLAIM_NOT_REACHED", "SYSTEM_ABSENT"]));
}

#[test]
fn what_is_older_than_the_mandates_retention_may_be_gone() {
    let store = two_logs(true).store;
    let trust = trust();
    let mut mandate = Mandate::default();
    mandate.require("retention=1d").unwrap();
    let late = START + 2 * 86_400 * SECOND;
    let mut gone = store.clone();
    gone.objects.retain(|name, _| !name.contains("00000001/"));
    let mut options = Options::new(&trust, &mandate, late);
    options.to = Some(START + 10 * SECOND + SECOND / 10);
    options.from = Some(START + 10 * SECOND);
    let (report, _) = run(&gone, &options, &mut NoSink);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert!(report.findings.has(Code::Expired));
}

#[test]
fn names_from_the_evidence_are_bounded_and_a_system_beyond_the_bound_is_not_called_absent() {
    let kept = tally::NAMES_KEPT as u64;
    let tally = |from: u64, to: u64| {
        let mut tally = tally::Tally::default();
        for n in from..to {
            tally.unknown_key(&format!("k{n}"));
            tally.unknown_column(&format!("c{n}"), 2);
        }
        tally
    };
    let mut sum = tally(0, kept);
    assert_eq!(sum.beyond, tally::Beyond::default());
    sum.add(&tally(kept - 1, kept + 5));
    assert_eq!((sum.unknown_keys.len(), sum.unknown_columns.len()), (kept as usize, kept as usize));
    assert_eq!((sum.beyond.keys, sum.beyond.columns), (5, 10));
    assert_eq!(sum.unknown_keys[&format!("k{}", kept - 1)], 2);
    let told = tally::not_judged(&sum);
    assert!(told.iter().any(|(name, count)| name.contains("other keys, beyond") && *count == 5));

    let mandate = Mandate { systems: ["wanted".to_owned()].into(), ..Mandate::default() };
    let trust = trust();
    let mut findings = Findings::default();
    systems(&Options::new(&trust, &mandate, 0), &sum, &mut findings);
    assert_eq!(findings.effect(), Code::SystemAbsent.effect());
    sum.beyond.systems = 3;
    let mut findings = Findings::default();
    systems(&Options::new(&trust, &mandate, 0), &sum, &mut findings);
    assert!(findings.has(Code::SystemAbsent));
    assert_eq!(findings.effect(), Effect::Unjudged);
}
