//! What somebody can take away where retention excuses that something is gone, and where the trust file says what must be
//! there.

use schemas::record::Encryption;
use schemas::trust::{Revoked, TrustedLog};

use super::tests::{codes, has, names, whole};
use super::*;
use crate::fixture::{START, Writer, small, trust};
use crate::source::MemorySource;
use crate::time::SECOND;

/// How long after the first batch the others are made.
const LATER: i64 = 100 * SECOND;
/// Then the first batch is older than this, and no other.
const KEPT: i64 = 60 * SECOND;

/// An old batch and two new ones.
fn aged(gateway: &str) -> Writer {
    let epoch = "20260921t133320z-00000001";
    let mut writer = Writer::boot_with(epoch, START, None, MemorySource::default(), Encryption::Off);
    writer.origin = Origin::join("acme", gateway, epoch).unwrap();
    writer.exchange(1, b"question", b"answer");
    writer.seal();
    writer.now += LATER;
    writer.exchange(2, b"question", b"answer");
    writer.heartbeat();
    writer.seal();
    writer.close();
    writer
}

fn verified(store: &MemorySource, trust: &Trust, to: Option<i64>) -> Report {
    let mandate = Mandate { retention: Some(KEPT), ..Mandate::default() };
    let mut options = Options::new(trust, &mandate, START + LATER + 10 * SECOND);
    options.to = to;
    run(store, &options, &mut NoSink).0
}

#[test]
fn of_all_sets_of_objects_only_expired_ones_can_be_taken_away() {
    let writer = aged("gw1");
    // The time of `close`.
    let (store, to) = (writer.store, Some(writer.now - SECOND));
    let all: Vec<&String> = store.objects.keys().collect();
    let old = |name: &str| name.contains("/0000000000");
    let (mut sound, mut seals_only) = (0, 0);
    for set in 0..1_u32 << all.len() {
        let taken = |n: usize| set >> n & 1 == 1;
        let mut rest = store.clone();
        (0..all.len()).filter(|n| taken(*n)).for_each(|n| _ = rest.objects.remove(all[n]));
        let report = verified(&rest, &trust(), to);
        if report.verdict == Verdict::Verified {
            let wrong: Vec<_> = (0..all.len()).filter(|n| taken(*n) && !old(all[*n])).collect();
            assert!(wrong.is_empty(), "without {wrong:?} of {all:?} VERIFIED");
            sound += 1;
        }
        seals_only += u32::from(rest.objects.keys().all(|name| name.ends_with(".seal")));
    }
    assert!(sound > 1 && seals_only > 1, "{sound} sound, {seals_only} of seals only, of {}", all.len());
}

#[test]
fn a_gateway_of_which_only_what_is_expired_is_left_is_not_verified() {
    let mut two = trust();
    two.gateways.push(TrustedGateway { name: "gw2".into(), ..two.gateways[0].clone() });
    let mut store = aged("gw2").store;
    let mut fresh =
        Writer::boot("20260921t133459z-00000002", START + LATER - SECOND, None, MemorySource::default());
    fresh.exchange(5, b"question", b"answer");
    fresh.seal();
    store.objects.extend(fresh.store.objects);
    let report = verified(&store, &two, None);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    // What is old goes by its retention; then somebody takes what is new.
    for name in names(&store, "gw2").iter().filter(|name| !name.contains("/0000000000.seal")) {
        store.objects.remove(name);
    }
    has(&verified(&store, &two, None), "TAIL_UNPROVEN", Verdict::Incomplete);
}

#[test]
fn a_log_that_the_trust_file_lists_is_there_to_its_end() {
    let writer = small();
    let mut trust = trust();
    trust.gateways[0].closed = Some(true);
    let size = Some(writer.range.size());
    let mut other = writer.origin.clone();
    let listed = |origin: &Origin, closed| TrustedLog { origin: origin.clone(), size: None, closed };
    trust.gateways[0].logs = Some(vec![listed(&writer.origin, size)]);
    let verify = |store: &MemorySource, trust: &Trust| {
        let mandate = Mandate::default();
        let mut options = Options::new(trust, &mandate, START + LATER);
        whole(&mut options);
        run(store, &options, &mut NoSink).0
    };
    assert_eq!(verify(&writer.store, &trust).verdict, Verdict::Verified);
    let mut cut = writer.store.clone();
    cut.objects.retain(|name, _| !name.contains("/0000000002"));
    has(&verify(&cut, &trust), "BATCH_MISSING", Verdict::Incomplete);
    other = Origin::join(other.deployment(), other.gateway(), "20260921t133300z-00000000").unwrap();
    trust.gateways[0].logs.as_mut().unwrap().push(listed(&other, None));
    has(&verify(&writer.store, &trust), "LOG_MISSING", Verdict::Incomplete);
}

#[test]
fn a_seal_beyond_what_its_key_counts_for_is_named_also_where_its_records_are_expired() {
    let writer = aged("gw1");
    let mut trust = trust();
    trust.gateways[0].revoked = Some(Revoked { origin: writer.origin.clone(), size: 1 });
    let mut store = writer.store.clone();
    store.objects.retain(|name, _| name.ends_with("/0000000000.seal"));
    let report = verified(&store, &trust, Some(START + LATER));
    assert!(codes(&report).contains("KEY_NOT_VALID_FOR_SIZE"), "{:?}", codes(&report));
}
