//! A check that could not be made is no success, and accuses nobody (AU-2).

use schemas::record::{Body, Close, CloseReason, Config, ConfigReason, Cost, Heartbeat};

use super::tests::{NOW, codes, has, names, sealed, verify_at};
use super::*;
use crate::fixture::{START, Writer, exchange_id, id, small, trust};
use crate::source::{Entry, Folders, MemorySource, Opened, SourceError};
use crate::time::SECOND;

/// A store of which some objects cannot be read.
#[derive(Debug)]
struct Broken(MemorySource, &'static str);

impl Source for Broken {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn folders(&self) -> Folders {
        self.0.folders()
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        self.0.entries(folder)
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        if name.contains(self.1) {
            let error = std::io::Error::other("refused");
            return Err(SourceError::Io { name: name.into(), error });
        }
        self.0.open(name)
    }
}

/// A store of which a folder cannot be listed.
#[derive(Debug)]
struct Closed(MemorySource, &'static str);

impl Source for Closed {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn folders(&self) -> Folders {
        let mut folders = self.0.folders();
        folders.names.retain(|name| !name.starts_with(self.1));
        folders.unlisted.push((self.1.into(), refused(self.1)));
        folders
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        if folder.starts_with(self.1) { Err(refused(folder)) } else { self.0.entries(folder) }
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        if name.starts_with(self.1) { Err(refused(name)) } else { self.0.open(name) }
    }
}

fn refused(name: &str) -> SourceError {
    SourceError::Io { name: name.into(), error: std::io::Error::other("refused") }
}

#[test]
fn what_may_be_in_a_folder_that_cannot_be_listed_is_not_gone() {
    let (mut trust, mandate) = (trust(), Mandate::default());
    trust.gateways[0].first_origin = Some(small().origin.clone());
    let mut options = Options::new(&trust, &mandate, NOW);
    let known = Remembered::Known(run(&small().store, &options, &mut NoSink).1);
    options.remembered = Some(&known);
    for folder in ["", "acme", "acme/gw1", "acme/gw1/20260921t133320z-00000001"] {
        let (report, visits) = run(&Closed(small().store, folder), &options, &mut NoSink);
        assert_eq!(report.verdict, Verdict::CouldNotJudge, "{folder}: {:?}", codes(&report));
        assert_eq!(codes(&report), ["COULD_NOT_READ"].into(), "{folder}");
        assert_eq!(visits.logs.len(), 1);
    }
    // Of two logs one was not compared, and what is missed may be in it.
    let mut two = trust.clone();
    two.gateways[0].first_origin = None;
    two.gateways.push(TrustedGateway { name: "gw2".into(), ..two.gateways[0].clone() });
    let mut wanted = Mandate::default();
    wanted.systems.insert("wanted".into());
    let mut other = Writer::boot_of("gw2", "20260921t133320z-00000009", START, small().store);
    other.exchange(3, b"q", b"a");
    other.close();
    let mut options = Options::new(&two, &mandate, NOW);
    let known = Remembered::Known(run(&other.store, &options, &mut NoSink).1);
    options.remembered = Some(&known);
    options.mandate = &wanted;
    for (folder, unseen) in [
        ("acme/gw2", true),
        ("acme/gw2/20260921t133320z-00000009", true),
        ("acme/gw2/20260921t133320z-00000009/x", false),
    ] {
        let report = run(&Closed(other.store.clone(), folder), &options, &mut NoSink).0;
        assert_eq!(codes(&report), ["COULD_NOT_READ", "SYSTEM_ABSENT"].into(), "{folder}");
        let verdict = if unseen { Verdict::CouldNotJudge } else { Verdict::Policy };
        assert_eq!(report.verdict, verdict, "{folder}");
        let claim = report.claims.iter().find(|state| state.claim == Claim::AppendOnly).unwrap();
        assert_eq!(claim.reached, !unseen, "{folder}: {}", claim.text);
        assert_eq!(claim.text.starts_with("NOT compared"), unseen, "{folder}: {}", claim.text);
    }
    let mut options = Options::new(&trust, &mandate, NOW);
    let known = Remembered::Known(run(&small().store, &options, &mut NoSink).1);
    options.remembered = Some(&known);
    // What cannot be in it is gone all the same.
    let report = run(&Closed(MemorySource::default(), "other"), &options, &mut NoSink).0;
    has(&report, "EMPTY_EVIDENCE", Verdict::Diverged);
    // Beside it all is judged.
    let report = run(&Closed(small().store, "other"), &options, &mut NoSink).0;
    assert_eq!(codes(&report), ["COULD_NOT_READ"].into());
    assert_eq!(report.counts.batches, 3);
}

fn unread(store: MemorySource, name: &'static str) -> Report {
    let (trust, mandate) = (trust(), Mandate::default());
    run(&Broken(store, name), &Options::new(&trust, &mandate, NOW), &mut NoSink).0
}

#[test]
fn an_object_that_cannot_be_read_is_unjudged_and_nothing_else() {
    for name in ["content", "reference"] {
        let report = unread(small().store, name);
        has(&report, "COULD_NOT_READ", Verdict::CouldNotJudge);
        assert!(!codes(&report).contains("CONTENT_MISSING"), "{:?}", codes(&report));
    }
}

#[test]
fn a_folder_with_something_in_it_is_not_yet_a_log() {
    let mut two = trust();
    two.gateways.push(TrustedGateway { name: "gw2".into(), ..two.gateways[0].clone() });
    let mandate = Mandate::default();
    let mut store = small().store;
    let records = store.objects[&names(&store, "records")[0]].clone();
    let hash = schemas::Sha256Hex::of(&records);
    store.put(format!("acme/gw2/20260921t133320z-00000009/0000000000-{hash}.records.parquet"), records);
    let report = run(&store, &Options::new(&two, &mandate, NOW), &mut NoSink).0;
    has(&report, "LOG_MISSING", Verdict::Incomplete);
}

#[test]
fn what_was_seen_may_be_gone_once_its_seals_are_older_than_the_retention() {
    let day = 86_400 * SECOND;
    let store = small().store;
    let trust = trust();
    let mut mandate = Mandate::default();
    mandate.require("retention=5d").unwrap();
    // Seen on the last day of its retention; on the next it is gone, but for another gateway's log or its own seals.
    let mut options = Options::new(&trust, &mandate, START + 5 * day);
    options.to = Some(START + SECOND);
    let known = Remembered::Known(run(&store, &options, &mut NoSink).1);
    options.remembered = Some(&known);
    options.now = START + 6 * day;
    let mut seals = store.clone();
    seals.objects.retain(|name, _| name.ends_with(".seal"));
    let report = run(&seals, &options, &mut NoSink).0;
    assert!(!codes(&report).contains("ROLLBACK"), "{:?}", codes(&report));
    assert!(report.findings.has(Code::Expired));
    let mut other =
        Writer::boot("20260927t133320z-00000002", options.now - SECOND, None, MemorySource::default());
    other.exchange(1, b"q", b"a");
    other.seal();
    let report = run(&other.store, &options, &mut NoSink).0;
    assert!(!codes(&report).contains("ROLLBACK"), "{:?}", codes(&report));
    assert!(report.findings.has(Code::Expired));
    // One that was not that old is a rollback.
    options.now = START + 4 * day;
    let report = run(&other.store, &options, &mut NoSink).0;
    assert!(codes(&report).contains("ROLLBACK"), "{:?}", codes(&report));
}

#[test]
fn counters_that_are_not_there_are_not_compared_in_silence() {
    let beat = |counters| Body::Heartbeat(Heartbeat { counters });
    let report = sealed(|writer| _ = writer.push(beat(Default::default())));
    has(&report, "COUNTER_MISMATCH", Verdict::Invalid);
    let report = sealed(|writer| {
        let mut counters = writer.counters();
        counters.remove("refusals");
        writer.push(beat(counters));
    });
    has(&report, "COUNTER_MISMATCH", Verdict::Invalid);
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let close = |reason, alive_until| {
        Body::Close(Close { reason, successor: None, alive_until, counters: Default::default() })
    };
    writer.push(close(CloseReason::Shutdown, writer.now));
    writer.seal();
    has(&verify_at(&writer.store, writer.now, |_| {}), "COUNTER_MISMATCH", Verdict::Invalid);
}

#[test]
fn costs_by_a_book_that_cannot_be_read_are_not_judged() {
    let report = sealed(|writer| {
        let book = writer.reference(b"\xff no price book", "application/octet-stream");
        writer.push(Body::Config(Config {
            next: writer.config,
            reason: ConfigReason::Reload,
            policy: None,
            price_book: Some(book),
        }));
        let (position, key) = writer.intent(2, b"q");
        let mut outcome =
            writer.outcome_of(exchange_id(2), position, Some(&key), vec![], super::tests::unknown_usage());
        let classes = [("input".to_owned(), "0.5".to_owned())].into();
        let (currency, price_row) = (id("USD"), id("a"));
        outcome.cost = Some(Cost { currency, total: "0.5".into(), classes, price_book: book, price_row });
        outcome.unpriced = None;
        writer.push(Body::Outcome(outcome));
    });
    has(&report, "COST_NOT_RECOMPUTED", Verdict::CouldNotJudge);
}

#[test]
fn a_price_book_that_is_stored_before_it_is_named_is_used() {
    let price = include_bytes!("../../../policies/prices/2026-11.csv");
    let mut bytes = price.to_vec();
    bytes.extend_from_slice(b"\n");
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let book = writer.reference(&bytes, "text/csv");
    writer.seal();
    let (next, reason) = (writer.config, ConfigReason::Reload);
    writer.push(Body::Config(Config { next, reason, policy: None, price_book: Some(book) }));
    let (position, key) = writer.intent(2, b"q");
    let mut outcome =
        writer.outcome_of(exchange_id(2), position, Some(&key), vec![], super::tests::unknown_usage());
    let classes = [("input".to_owned(), "0.5".to_owned())].into();
    let (currency, price_row) = (id("USD"), id("no-such-row"));
    outcome.cost = Some(Cost { currency, total: "0.5".into(), classes, price_book: book, price_row });
    outcome.unpriced = None;
    writer.push(Body::Outcome(outcome));
    writer.close();
    has(&verify_at(&writer.store, writer.now, |_| {}), "COST_RECOMPUTE_DIFF", Verdict::Invalid);
}

/// An old log that hands over to a new one: it is still open when that begins.
fn handed_over() -> MemorySource {
    let mut old = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    old.exchange(1, b"q", b"a");
    old.seal();
    let predecessor = schemas::record::Predecessor { size: None, root: None, ..old.as_predecessor() };
    let (second, began) = ("20260921t133330z-00000002", START + 10 * SECOND);
    let mut new = Writer::boot(second, began, Some(predecessor), MemorySource::default());
    new.exchange(2, b"q", b"a");
    new.seal();
    new.now = START + 60 * SECOND;
    new.exchange(3, b"q", b"a");
    new.seal();
    old.now = START + 40 * SECOND;
    let counters = old.counters();
    old.push(Body::Close(Close {
        reason: CloseReason::Shutdown,
        successor: Some(new.origin.clone()),
        alive_until: old.now,
        counters,
    }));
    old.seal();
    old.store.objects.extend(new.store.objects);
    old.store
}

#[test]
fn an_asked_interval_does_not_cut_away_a_log_that_may_reach_into_it() {
    let store = handed_over();
    let at = |seconds: i64| Some(START + seconds * SECOND);
    let now = START + 62 * SECOND;
    let ask = |store: &MemorySource, from, to| {
        verify_at(store, now, |options| (options.from, options.to) = (from, to))
    };
    let whole = ask(&store, at(0), at(55));
    assert_eq!(whole.verdict, Verdict::Verified, "{}", crate::render::text::report(&whole));
    // Without the log that still ran when its successor began.
    let mut without = store.clone();
    without.objects.retain(|name, _| !name.contains("-00000001/"));
    has(&ask(&without, at(15), at(55)), "LOG_MISSING", Verdict::Incomplete);
    // Without the log that began before its predecessor ended.
    let mut without = store.clone();
    without.objects.retain(|name, _| !name.contains("-00000002/"));
    has(&ask(&without, at(0), at(30)), "LOG_MISSING", Verdict::Incomplete);
}

#[test]
fn a_bogus_number_far_above_costs_no_more_than_any_other() {
    let mut store = small().store;
    let seal = store.objects[&names(&store, "0000000002.seal")[0]].clone();
    store.put("acme/gw1/20260921t133320z-00000001/9999999999.seal", seal);
    let report = verify_at(&store, NOW, |_| {});
    assert_ne!(report.verdict, Verdict::Verified);
}

/// A leaf of a kind that this version does not know, of so many bytes.
fn leaf_of(writer: &Writer, bytes: usize) -> Vec<u8> {
    let (at, config) = (writer.now, writer.config);
    let head = format!(r#"{{"at":{at},"config":"{config}","kind":"message","#);
    let tail = r#""v":1}"#;
    let entry = |n: usize, bytes: usize| format!(r#""n{n:04}":"{}","#, "x".repeat(bytes - 11));
    let room = bytes - head.len() - tail.len();
    let whole = room / 191 - 1;
    let rest = room - whole * 191;
    let entries: String = (0..whole).map(|n| entry(n, 191)).collect();
    let last = entry(whole, rest / 2) + &entry(whole + 1, rest - rest / 2);
    format!("{head}{entries}{last}{tail}").into_bytes()
}

#[test]
fn a_leaf_that_is_too_long_is_refused_by_its_code() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let most = schemas::record::MAX_LEAF_BYTES;
    assert_eq!(leaf_of(&writer, most).len(), 65_535);
    writer.push_leaf(leaf_of(&writer, most));
    writer.seal();
    let report = verify_at(&writer.store, writer.now, |_| {});
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    // No file of the format can be written with more; read, it is a fault.
    let leaf = leaf_of(&writer, most + 1);
    let hash = schemas::leaf::hash(&leaf);
    let row = schemas::files::LeafRow { position: 0, hash, leaf: leaf.clone() };
    assert!(schemas::files::write_records(&[row]).is_err());
    let found = schemas::leaf::decode(&leaf);
    assert!(matches!(found, Err(schemas::leaf::LeafError::Canonical(_))), "{found:?}");
}
