use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::fixture::{START, Writer, trust};
use crate::mandate::Mandate;
use crate::report::{Report, Verdict};
use crate::source::{Entry, Folders, MemorySource, Opened, Source, SourceError};
use crate::state::Remembered;
use crate::time::SECOND;
use crate::verify::keys::Keys;
use crate::verify::{Options, run};

const NOW: i64 = START + 120 * SECOND;
const BATCHES: u64 = 40;

/// A store that counts what is read of it, and breaks when it is told to.
#[derive(Debug, Default)]
struct Watched {
    store: MemorySource,
    reads: Mutex<Vec<String>>,
    /// The auditor dies at this read.
    fatal: Option<usize>,
    /// Names that hold this cannot be read.
    broken: Option<&'static str>,
    /// What it is called, where it is one of two that say nothing of the state of their objects.
    copy: Option<&'static str>,
}

impl Watched {
    fn new(store: &MemorySource) -> Self {
        Self { store: store.clone(), ..Self::default() }
    }
    fn reads(&self) -> Vec<String> {
        self.reads.lock().unwrap().clone()
    }
    /// The numbers of the batches of which anything but the seal was read.
    fn batches(&self) -> BTreeSet<u64> {
        let reads = self.reads();
        let files = reads.iter().filter(|name| !name.ends_with(".seal"));
        files.filter_map(|name| name.rsplit('/').next()?.get(..10)?.parse().ok()).collect()
    }
}

impl Source for Watched {
    fn describe(&self) -> String {
        self.copy.map_or_else(|| self.store.describe(), str::to_owned)
    }
    fn folders(&self) -> Folders {
        self.store.folders()
    }
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, SourceError> {
        let mut entries = self.store.entries(folder)?;
        if self.copy.is_some() {
            entries.iter_mut().for_each(|entry| entry.stamp.clear());
        }
        Ok(entries)
    }
    fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let count = {
            let mut reads = self.reads.lock().unwrap();
            reads.push(name.into());
            reads.len()
        };
        assert!(self.fatal != Some(count), "killed");
        if self.broken.is_some_and(|broken| name.contains(broken)) {
            let error = std::io::Error::other("the network went away");
            return Err(SourceError::Io { name: name.into(), error });
        }
        self.store.open(name)
    }
}

/// An auditor with a state of its own.
struct Auditor {
    dir: TempDir,
    keys: Option<Keys>,
}

impl Auditor {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keys: None }
    }

    fn with_keys(writer: &Writer) -> Self {
        let mut auditor = Self::new();
        let (name, page) = writer.key_table();
        let folder = auditor.dir.path().join("keys");
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, page).unwrap();
        auditor.keys = Some(Keys::open(&[folder]).unwrap());
        auditor
    }

    /// Verifies, a batch at a time, with a checkpoint after each.
    fn verify(&self, source: &dyn Source, from: Continue) -> Report {
        self.verify_with(source, from, |_| {})
    }

    fn verify_with<'o>(
        &'o self,
        source: &dyn Source,
        from: Continue,
        adapt: impl FnOnce(&mut Options<'o>),
    ) -> Report {
        let state = State::open(&self.dir.path().join("state")).unwrap();
        let (trust, mandate) = (Box::leak(Box::new(trust())), Box::leak(Box::<Mandate>::default()));
        let mut cache = Cache::open(&state, trust, &source.describe());
        cache.at_least_every(Duration::ZERO);
        let (mut options, mut findings) = (Options::new(trust, mandate, NOW), Findings::default());
        options.limits.window_bytes = 1;
        options.keys = self.keys.as_ref();
        adapt(&mut options);
        options.earlier = cache.begin(from, NOW, &mut findings).unwrap();
        let (mut report, _) = run(source, &options, &mut cache);
        report.findings.append(findings);
        report.settle();
        cache.finish(!report.findings.has(Code::CouldNotRead)).unwrap();
        report
    }

    /// Verifies and dies in between.
    fn killed_at(&self, store: &MemorySource, read: usize) {
        let source = Watched { fatal: Some(read), ..Watched::new(store) };
        let died = catch_unwind(AssertUnwindSafe(|| self.verify(&source, Continue::Interrupted)));
        assert!(died.is_err());
    }

    fn files(&self, name: &str) -> Vec<PathBuf> {
        let root = self.dir.path().join("state/cache");
        let folders = std::fs::read_dir(root).unwrap().filter_map(Result::ok);
        let logs = folders.flat_map(|folder| log_folders(&folder.path()));
        logs.map(|folder| folder.join(name)).filter(|path| path.exists()).collect()
    }
}

/// As it is printed, but for how much of it an earlier run read.
fn printed(mut report: Report) -> String {
    for log in report.gateways.iter_mut().flat_map(|gateway| &mut gateway.logs) {
        log.batches_from_cache = 0;
    }
    crate::render::json::report(&report).unwrap() + &crate::render::text::report(&report)
}

fn fresh(store: &MemorySource) -> String {
    printed(Auditor::new().verify(&Watched::new(store), Continue::Interrupted))
}

/// A log of some dozens of batches, with things in it that only the whole log shows.
fn long() -> Writer {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let (open, key) = writer.intent(1000, b"opened early");
    for n in 1..BATCHES {
        writer.exchange(n, b"question", b"answer");
        if n == 35 {
            writer.exchange(3, b"an id", b"used again");
            writer.outcome(1000, open, &key, b"closed late");
        }
        writer.heartbeat();
        writer.seal();
    }
    writer
}

#[test]
fn a_killed_verification_goes_on_where_it_was_and_says_the_same() {
    let store = long().store;
    let whole = Watched::new(&store);
    let auditor = Auditor::new();
    let expected = printed(auditor.verify(&whole, Continue::Interrupted));
    assert!(expected.contains("DUPLICATE_EXCHANGE") && !expected.contains("ORPHAN_OUTCOME"), "{expected}");
    for read in [1, 2, 61, 100] {
        let auditor = Auditor::new();
        auditor.killed_at(&store, read);
        auditor.killed_at(&store, 20);
        let source = Watched::new(&store);
        assert_eq!(printed(auditor.verify(&source, Continue::Interrupted)), expected, "at {read}");
        let saved = whole.reads().len() - source.reads().len();
        assert!(saved + 12 > read.max(20), "at {read}: {saved} reads saved");
        let first = source.batches().first().copied().unwrap();
        assert_eq!(source.batches().len() as u64, BATCHES - 1 - first, "batches before {first} are not read");
        // It came to its end: the next one reads everything.
        let again = Watched::new(&store);
        assert_eq!(printed(auditor.verify(&again, Continue::Interrupted)), expected);
        assert_eq!(again.reads().len(), whole.reads().len());
    }
}

#[test]
fn logs_that_were_followed_to_their_end_are_not_read_again_after_an_interruption() {
    let mut first = long();
    first.close();
    let (predecessor, now) = (Some(first.as_predecessor()), first.now);
    let mut second = Writer::boot("20260921t133430z-00000002", now, predecessor, first.store);
    for n in 0..10 {
        second.exchange(2000 + n, b"q", b"a");
        second.seal();
    }
    let auditor = Auditor::new();
    auditor.killed_at(&second.store, 140);
    let source = Watched::new(&second.store);
    let report = auditor.verify(&source, Continue::Interrupted);
    assert_eq!(printed(report), fresh(&second.store));
    let of_first = source.reads().iter().filter(|name| name.contains("-00000001/")).count();
    assert_eq!(of_first, 1, "the newest proven seal only: {:?}", source.reads());
}

#[test]
fn what_a_network_that_went_away_kept_from_the_auditor_is_read_the_next_time() {
    let store = long().store;
    let auditor = Auditor::new();
    let source = Watched { broken: Some("0000000020-"), ..Watched::new(&store) };
    let report = auditor.verify(&source, Continue::Interrupted);
    assert!(report.findings.has(Code::CouldNotRead));
    let source = Watched::new(&store);
    assert_eq!(printed(auditor.verify(&source, Continue::Interrupted)), fresh(&store));
    assert_eq!(source.batches().first(), Some(&20));
    // A later question has all rows: those of the batch too.
    let report = auditor.verify(&Watched::new(&store), Continue::Known);
    assert_eq!(report.gateways[0].logs[0].batches_from_cache, BATCHES - 1);
}

#[test]
fn a_batch_that_changed_in_between_is_read_again() {
    let store = long().store;
    let name = |part: &str| {
        let names: Vec<_> = store.objects.keys().filter(|name| name.contains(part)).cloned().collect();
        names[0].clone()
    };
    let mut changed = store.clone();
    let mut bytes = store.objects[&name("0000000005-")].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    changed.put(name("0000000005-"), bytes);
    let mut without = store.clone();
    without.objects.remove(&name("0000000007-"));
    let mut more = store.clone();
    let extra = name("0000000009-").replace("0000000009-", "0000000008-");
    more.put(extra, store.objects[&name("0000000009-")].clone());
    for (now, code) in [(changed, "FILE_MISMATCH"), (without, "BATCH_MISSING"), (more, "UNREFERENCED_OBJECT")]
    {
        let auditor = Auditor::new();
        auditor.killed_at(&store, 61);
        let said = printed(auditor.verify(&Watched::new(&now), Continue::Interrupted));
        assert_eq!(said, fresh(&now));
        assert!(said.contains(code), "{code}: {said}");
        // Also where only what is new is asked for.
        let auditor = Auditor::new();
        auditor.verify(&Watched::new(&store), Continue::Interrupted);
        let said = printed(auditor.verify(&Watched::new(&now), Continue::Known));
        assert!(said.contains(code), "{code}: {said}");
    }
}

#[test]
fn what_was_found_in_a_damaged_copy_is_not_said_of_the_good_store() {
    let store = long().store;
    let mut damaged = store.clone();
    let name = store.objects.keys().find(|name| name.contains("0000000005-")).unwrap();
    let mut bytes = store.objects[name].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    damaged.put(name.clone(), bytes);
    let good = || Watched { copy: Some("the good store"), ..Watched::new(&store) };
    let copy = || Watched { copy: Some("the damaged copy"), ..Watched::new(&damaged) };
    let auditor = Auditor::new();
    let expected = printed(Auditor::new().verify(&good(), Continue::Known));
    assert!(!expected.contains("FILE_MISMATCH"), "{expected}");
    for _ in 0..2 {
        let said = printed(auditor.verify(&copy(), Continue::Known));
        assert!(said.contains("FILE_MISMATCH"), "{said}");
        assert_eq!(printed(auditor.verify(&good(), Continue::Known)), expected);
    }
    // Each is gone on with where it was.
    let source = good();
    let report = auditor.verify(&source, Continue::Known);
    assert_eq!(report.gateways[0].logs[0].batches_from_cache, BATCHES - 1);
    assert_eq!(source.batches(), BTreeSet::new());
}

#[test]
fn a_seal_that_was_replaced_when_its_files_had_expired_is_found() {
    let store = long().store;
    let mut mandate = Mandate::default();
    mandate.require("retention=1d").unwrap();
    let mandate: &Mandate = Box::leak(Box::new(mandate));
    let mut gone = store.clone();
    gone.objects.retain(|name, _| !name.contains("0000000003-") && !name.contains("0000000004-"));
    let mut replaced = gone.clone();
    let name = gone.objects.keys().find(|name| name.ends_with("0000000003.seal")).unwrap().clone();
    replaced.put(name, "another one");
    for (now, invalid) in [(gone, false), (replaced, true)] {
        let auditor = Auditor::new();
        auditor.verify_with(&Watched::new(&store), Continue::Known, |options| options.mandate = mandate);
        let source = Watched::new(&now);
        let report = auditor.verify_with(&source, Continue::Known, |options| {
            options.mandate = mandate;
            options.now = START + 10 * crate::time::DAY;
        });
        assert!(report.findings.has(Code::Expired));
        assert_eq!(report.findings.has(Code::SealInvalid), invalid, "{}", report.first_line());
        assert_eq!(source.batches().is_empty(), !invalid, "it is read anew only where it must be");
    }
}

#[test]
fn a_stopped_verification_is_no_verdict_and_goes_on() {
    let store = long().store;
    let stop = AtomicBool::new(false);
    let tell = |_: &Origin, done, _| stop.store(done >= 12, Ordering::Relaxed);
    let auditor = Auditor::new();
    let report = auditor.verify_with(&Watched::new(&store), Continue::Interrupted, |options| {
        options.stop = Some(&stop);
        options.progress = &tell;
    });
    assert_ne!(report.verdict, Verdict::Verified);
    assert!(report.findings.has(Code::CouldNotRead));
    let source = Watched::new(&store);
    assert_eq!(printed(auditor.verify(&source, Continue::Interrupted)), fresh(&store));
    assert_eq!(source.batches().first(), Some(&12));
}

#[test]
fn an_unfinished_proof_that_was_changed_is_not_gone_on_from() {
    let store = long().store;
    for file in [UNFINISHED_FILE, "run.json"] {
        let auditor = Auditor::new();
        auditor.killed_at(&store, 61);
        let path = if file == UNFINISHED_FILE {
            auditor.files(file)[0].clone()
        } else {
            auditor.files(UNFINISHED_FILE)[0].ancestors().nth(4).unwrap().join(file)
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = if file == UNFINISHED_FILE {
            text.replacen("\"torn\":false", "\"torn\":true ", 1)
        } else {
            text.replacen("\"began\":", "\"began\": ", 1)
        };
        assert_ne!(changed, text, "{file}");
        std::fs::write(&path, changed).unwrap();
        let source = Watched::new(&store);
        let report = auditor.verify(&source, Continue::Interrupted);
        assert_eq!(source.batches().len() as u64, BATCHES - 1, "{file}: everything is read");
        let named = report.findings.has(Code::CacheDamaged);
        assert_eq!(named, file == UNFINISHED_FILE);
        let counts = report.counts.clone();
        assert_eq!(counts, Auditor::new().verify(&source, Continue::Interrupted).counts);
    }
    let auditor = Auditor::new();
    auditor.killed_at(&store, 61);
    let source = Watched::new(&store);
    assert_eq!(printed(auditor.verify(&source, Continue::Nothing)), fresh(&store));
    assert_eq!(source.batches().len() as u64, BATCHES - 1, "asked for anew");
}

#[test]
fn content_that_is_stored_as_edits_of_what_an_interrupted_run_read_is_checked() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.growing(10..30, |_| true);
    writer.close();
    let auditor = Auditor::with_keys(&writer);
    auditor.killed_at(&writer.store, 40);
    let report = auditor.verify(&Watched::new(&writer.store), Continue::Interrupted);
    assert_eq!(report.verdict, Verdict::Verified, "{}", crate::render::text::report(&report));
    assert_eq!((report.tally.parts_kept, report.tally.parts_proven), (40, 40));
    // What the base stands in cannot be read: that is said, and nobody is accused.
    let auditor = Auditor::with_keys(&writer);
    auditor.killed_at(&writer.store, 40);
    let source = Watched { broken: Some("0000000002-"), ..Watched::new(&writer.store) };
    let report = auditor.verify(&source, Continue::Interrupted);
    assert_eq!(report.verdict, Verdict::CouldNotJudge, "{}", crate::render::text::report(&report));
}

#[test]
fn an_earlier_proof_is_not_taken_for_a_comparison_that_was_not_made() {
    let store = long().store;
    let auditor = Auditor::new();
    let report = auditor.verify(&Watched::new(&store), Continue::Known);
    let log = &report.gateways[0].logs[0];
    let visit = |root| crate::state::Visit {
        key: trust().gateways[0].key.clone(),
        batch: 4,
        size: 18,
        root,
        seal: Sha256Hex([9; 32]),
        seen_at: START,
        sealed_at: None,
    };
    // Another auditor saw the log at an earlier size, and saw something else.
    let logs = [(log.origin.clone(), visit(Sha256Hex([8; 32])))].into();
    let known = Remembered::Known(crate::state::Visits { logs, ..Default::default() });
    let report = auditor
        .verify_with(&Watched::new(&store), Continue::Known, |options| options.remembered = Some(&known));
    assert!(report.verdict >= Verdict::Diverged, "{}", report.first_line());
    assert!(report.findings.has(Code::Diverged) || report.findings.has(Code::Equivocation));
}

#[test]
fn a_key_that_was_revoked_since_the_proof_is_judged_by_its_new_limit() {
    let store = long().store;
    let auditor = Auditor::new();
    auditor.verify(&Watched::new(&store), Continue::Known);
    let mut revoked = trust();
    let origin = Origin::join("acme", "gw1", "20260921t133320z-00000001").unwrap();
    revoked.gateways[0].revoked = Some(schemas::trust::Revoked { origin, size: 10 });
    let report = auditor.verify_with(&Watched::new(&store), Continue::Known, |options| {
        options.trust = Box::leak(Box::new(revoked));
    });
    assert!(report.findings.has(Code::KeyNotValidForSize), "{}", report.first_line());
}
