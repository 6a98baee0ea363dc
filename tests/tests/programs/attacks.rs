//! Attacks on a small store: whatever is changed, removed, doubled, swapped or cut, the verdict over the same interval
//! is never VERIFIED, with and without the content keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auditor::finding::{Code, Effect};
use auditor::mandate::Mandate;
use auditor::report::{Report, Verdict};
use auditor::source::{DirectorySource, MemorySource};
use auditor::state::{Remembered, State};
use auditor::verify::keys::Keys;
use auditor::verify::{NoSink, Options, run};
use schemas::Origin;
use schemas::keytable::{HEADER_BYTES, SLOT_BYTES, Slot, decode_page};
use schemas::trust::Trust;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;

/// A small store that the real gateway wrote: several batches, streams, an erased exchange.
struct Case {
    store: MemorySource,
    trust: Trust,
    keys: Keys,
    now: i64,
    /// The end of what the untouched store proves: what is asked of every other.
    to: Option<i64>,
    /// The key table is read when it is needed; trust file and store are there too.
    dir: tempfile::TempDir,
}

/// One store for all tests of this file.
fn small() -> &'static Case {
    static CASE: LazyLock<Case> = LazyLock::new(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(Case::make())
    });
    &CASE
}

impl Case {
    async fn make() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let provider = Provider::start([]).await;
        let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
        let ask = |stream: bool| {
            format!(
                r#"{{"model":"gpt-4o-mini","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
            )
        };
        let mut first = String::new();
        for stream in [false, true] {
            let got =
                send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, ask(stream)))
                    .await;
            assert_eq!(got.status, 200, "{}", got.text());
            first = got.exchange().expect("an exchange").to_owned();
            // Each in a batch of its own.
            tokio::time::sleep(Duration::from_millis(1300)).await;
        }
        send(gateway.address, &Call::post("/openai/v1/chat/completions", "afk_wrong_key", ask(false))).await;
        let erased = std::process::Command::new(tests::binary("gateway"))
            .args(["erase", "-c"])
            .arg(dir.path().join("gateway.yaml"))
            .args(["--exchange", &first, "--reason", "request"])
            .output()
            .expect("the gateway's binary");
        assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        let store = MemorySource::load(&DirectorySource::new(&gateway.store()).expect("the store"))
            .expect("readable");
        let trust = std::fs::read_to_string(dir.path().join("trust.yaml")).expect("a trust file");
        let trust = auditor::trust::parse(&trust).expect("a sound trust file");
        let keys = Keys::open(&[dir.path().join("keytable")]).expect("a key table");
        // Shortly after the last seal: nothing is overdue.
        let now = store
            .objects
            .iter()
            .filter(|(name, _)| name.ends_with(".seal"))
            .filter_map(|(_, bytes)| schemas::seal::parse_unverified(bytes).ok())
            .map(|seal| seal.time)
            .max()
            .expect("seals")
            + 1_000_000;
        let mut case = Self { store, trust, keys, now, to: None, dir };
        case.to = case.verify(&case.store, false, None).gateways[0].proven.map(|interval| interval.to);
        assert!(case.to.is_some());
        for content in [false, true] {
            let report = case.verify(&case.store, content, None);
            assert_eq!(report.verdict, Verdict::Verified, "{:#?}", report.findings);
        }
        case
    }

    fn verify(&self, store: &MemorySource, content: bool, remembered: Option<&Remembered>) -> Report {
        self.judged(store, &self.trust, content.then_some(&self.keys), remembered)
    }

    fn judged(
        &self,
        store: &MemorySource,
        trust: &Trust,
        keys: Option<&Keys>,
        remembered: Option<&Remembered>,
    ) -> Report {
        let mandate = Mandate::default();
        let mut options = Options::new(trust, &mandate, self.now);
        options.to = self.to;
        options.keys = keys;
        options.remembered = remembered;
        run(store, &options, &mut NoSink).0
    }
}

/// The same with one bit of the byte at `at` flipped.
fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    copy[at] ^= 1 << bit;
    copy
}

/// How far apart the bytes are that are flipped.
fn step() -> usize {
    if tests::long_round() { 1 } else { 37 }
}

/// True where a finding that counts against the verdict names the object.
fn names(report: &Report, object: &str) -> bool {
    report.findings.iter().any(|f| f.effect != Effect::Note && f.place.object.as_deref() == Some(object))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn changed(store: &MemorySource, name: &str, bytes: Vec<u8>) -> MemorySource {
    let mut copy = store.clone();
    copy.put(name, bytes);
    copy
}

#[test]
fn the_untouched_store_is_verified_with_and_without_content() {
    let case = small();
    for content in [false, true] {
        let report = case.verify(&case.store, content, None);
        assert_eq!(report.verdict, Verdict::Verified, "{:#?}", report.findings);
    }
    let without = case.verify(&case.store, false, None);
    assert!(without.not_checked.iter().any(|text| text.contains("commitment")), "{:?}", without.not_checked);
}

#[test]
fn one_flipped_bit_anywhere_is_never_verified_and_the_file_is_named() {
    let (case, step) = (small(), step());
    // The long round opens content at each byte, the short one at one of sixteen.
    let opened = if step == 1 { 1 } else { 16 };
    let places: Vec<(&String, &[u8], usize)> = case
        .store
        .objects
        .iter()
        .flat_map(|(name, bytes)| (0..bytes.len()).step_by(step).map(move |at| (name, &bytes[..], at)))
        .collect();
    let (next, flips) = (AtomicUsize::new(0), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let flip = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(name, bytes, at)) = places.get(n) else { return };
            if tests::long_round() && n % 4096 == 0 {
                eprintln!("{n} of {} bytes", places.len());
            }
            let store = changed(&case.store, name, flipped(bytes, at, at % 8));
            for content in [false, true] {
                if content && n % opened != 0 {
                    continue;
                }
                let report = case.verify(&store, content, None);
                let place = format!("bit {} of byte {at} of {name} (content {content})", at % 8);
                assert_ne!(report.verdict, Verdict::Verified, "{place} was flipped unseen");
                assert!(names(&report, name), "{place} is not named: {:#?}", report.findings);
                flips[usize::from(content)].fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(flip);
        }
    });
    let flips = flips.map(AtomicUsize::into_inner);
    assert_eq!(flips[0], places.len());
    let [without, with] = flips;
    assert!(step > 1 || with == without);
    eprintln!(
        "{without} flips without content keys and {with} with them, in {} objects (long round: {})",
        case.store.objects.len(),
        tests::long_round()
    );
}

/// Whether a page of the key table shows by its own hashes that its byte `at` is another one.
fn shows(file: &Path, page: &[u8], at: usize) -> bool {
    let mut parts = file.iter().rev().map(|part| part.to_str().expect("a name"));
    let number = parts.next().and_then(|name| name.split_once('.')?.0.parse().ok()).expect("a page's number");
    let mut origin: Vec<&str> = parts.take(3).collect();
    origin.reverse();
    let origin = Origin::new(origin.join("/")).expect("an origin");
    let Ok(page) = decode_page(&origin, number, page) else { return true };
    let slot = at.checked_sub(HEADER_BYTES).map(|at| at / SLOT_BYTES).expect("a slot's byte");
    matches!(page.key(slot.try_into().expect("a slot")), Slot::Damaged)
}

#[test]
fn one_flipped_bit_of_the_key_table_is_never_verified_and_named() {
    let case = small();
    let (table, mut flips, mut shown) = (tempfile::tempdir().expect("a folder"), 0, 0);
    tests::copy(&case.dir.path().join("keytable"), table.path());
    for file in files_below(table.path()) {
        let whole = std::fs::read(&file).expect("a page");
        if whole.is_empty() {
            continue;
        }
        let mut page = whole.clone();
        for at in (0..whole.len()).step_by(if tests::long_round() { 1 } else { SLOT_BYTES - 3 }) {
            page[at] ^= 1 << (at % 8);
            assert!(shows(&file, &page, at), "bit {} of byte {at} of {}", at % 8, file.display());
            page[at] = whole[at];
            shown += 1;
        }
        // Slots are alike; an odd step comes to each byte of one, and the long round to each slot.
        let step = if tests::long_round() { SLOT_BYTES - 3 } else { (whole.len() / 48).max(1) | 1 };
        for at in (0..whole.len()).step_by(step) {
            std::fs::write(&file, flipped(&whole, at, at % 8)).expect("a page");
            let keys = Keys::open(&[table.path()]).expect("a key table");
            let report = case.judged(&case.store, &case.trust, Some(&keys), None);
            let place = format!("bit {} of byte {at} of {}", at % 8, file.display());
            assert_ne!(report.verdict, Verdict::Verified, "{place} was flipped unseen");
            assert!(report.findings.has(Code::KeyTableDamaged), "{place}: {:#?}", report.findings);
            flips += 1;
        }
        std::fs::write(&file, whole).expect("a page");
    }
    assert!(flips > 0);
    let long = tests::long_round();
    eprintln!(
        "{shown} flips in the key table shown by its pages, {flips} of them found by verify (long round: {long})"
    );
}

#[test]
fn one_flipped_bit_of_the_auditors_state_cannot_be_judged_and_is_named() {
    let case = small();
    let mandate = Mandate::default();
    let (_, visits) = run(&case.store, &Options::new(&case.trust, &mandate, case.now), &mut NoSink);
    let (folder, mut flips) = (tempfile::tempdir().expect("a folder"), 0);
    State::open(folder.path()).expect("a state").remember(&visits).expect("it is kept");
    let remembered = || State::open(folder.path()).expect("a state").remembered().expect("what was seen");
    let seen = case.verify(&case.store, false, Some(&remembered()));
    assert_eq!(seen.verdict, Verdict::Verified, "{:#?}", seen.findings);
    for file in ["visits.json", "key"] {
        let path = folder.path().join(file);
        let whole = std::fs::read(&path).expect("a file of the state");
        for at in (0..whole.len()).step_by(if tests::long_round() { 1 } else { 7 }) {
            std::fs::write(&path, flipped(&whole, at, at % 8)).expect("a file of the state");
            let report = case.verify(&case.store, false, Some(&remembered()));
            assert_eq!(report.verdict, Verdict::CouldNotJudge, "byte {at} of {file}");
            assert!(report.findings.has(Code::StateTampered), "byte {at} of {file}: {:#?}", report.findings);
            flips += 1;
        }
        std::fs::write(&path, whole).expect("a file of the state");
    }
    eprintln!("{flips} flips in the auditor's state (long round: {})", tests::long_round());
}

#[test]
fn one_flipped_bit_of_the_trust_file_is_an_error_or_not_verified_or_told_by_its_fingerprint() {
    let case = small();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trust.yaml");
    let whole = std::fs::read(case.dir.path().join("trust.yaml")).expect("a trust file");
    let untouched = case.verify(&case.store, false, None).trust_fingerprint;
    let (mut errors, mut same, mut found, mut told) = (0, 0, 0, 0);
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        std::fs::write(&path, flipped(&whole, at, bit)).expect("a trust file");
        let place = format!("bit {bit} of byte {at}");
        let trust = match auditor::trust::read(&path, Some(&case.dir.path().join("store"))) {
            Err(error) => {
                assert!(error.to_string().contains(&path.display().to_string()), "{place}: {error}");
                errors += 1;
                continue;
            }
            Ok(trust) if trust == case.trust => {
                same += 1;
                continue;
            }
            Ok(trust) => trust,
        };
        let both = [None, Some(&case.keys)];
        let looked = if tests::long_round() { &both[..] } else { &both[bit % 2..=bit % 2] };
        for keys in looked {
            let report = case.judged(&case.store, &trust, *keys, None);
            if report.verdict != Verdict::Verified {
                assert!(report.findings.iter().any(|f| f.effect != Effect::Note), "{place}: no finding");
                found += 1;
                continue;
            }
            // Another bound of silence is another thing to ask, and no proof is wrong by it: the report names what was asked.
            let mut other = trust.clone();
            other.gateways[0].heartbeat_bound_s = case.trust.gateways[0].heartbeat_bound_s;
            assert_eq!(other, case.trust, "{place} was flipped unseen");
            assert_ne!(report.trust_fingerprint, untouched, "{place} is not told");
            told += 1;
        }
    }
    eprintln!(
        "{} flips in the trust file: {errors} errors, {same} of the same meaning, {found} times found, {told} times another \
         bound of silence under another fingerprint",
        whole.len() * 8
    );
    assert!(errors > 0 && same > 0 && found > 0);
}

#[test]
fn removing_cutting_doubling_or_swapping_any_object_is_never_verified() {
    let case = small();
    let names: Vec<&String> = case.store.objects.keys().collect();
    let mut attacks = 0;
    let mut never = |store: &MemorySource, what: String| {
        for content in [false, true] {
            let report = case.verify(store, content, None);
            assert_ne!(report.verdict, Verdict::Verified, "{what} (content {content})");
            assert!(report.findings.iter().any(|f| f.effect != Effect::Note), "{what}: no finding");
        }
        attacks += 1;
    };
    for name in &names {
        let mut gone = case.store.clone();
        gone.objects.remove(*name);
        // The newest batch whole is another attack, below; one of its files alone is this one.
        never(&gone, format!("{name} removed"));
        let bytes = &case.store.objects[*name];
        for keep in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            never(&changed(&case.store, name, bytes[..keep].to_vec()), format!("{name} cut to {keep}"));
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        never(&changed(&case.store, name, longer), format!("{name} made longer"));
        for other in &names {
            if name < other {
                let mut swapped = case.store.clone();
                swapped.put((*name).clone(), case.store.objects[*other].clone());
                swapped.put((*other).clone(), bytes.clone());
                never(&swapped, format!("{name} and {other} swapped"));
            }
        }
        let (folder, file) = name.rsplit_once('/').expect("names have folders");
        let mut doubled = case.store.clone();
        doubled.put(format!("{folder}/0000000009{}", &file[10..]), bytes.clone());
        never(&doubled, format!("{name} doubled as batch 9"));
    }
    eprintln!("{attacks} attacks on objects, each with and without content keys");
}

#[test]
fn attacks_are_named_by_their_codes() {
    let case = small();
    let find = |part: &str, nth: usize| {
        case.store.objects.keys().filter(|n| n.contains(part)).nth(nth).expect("an object").clone()
    };
    let mut expected: BTreeMap<&str, (MemorySource, Code)> = BTreeMap::new();
    let mut without = |name: &'static str, gone: Vec<String>, code: Code| {
        let mut store = case.store.clone();
        for object in gone {
            store.objects.remove(&object);
        }
        expected.insert(name, (store, code));
    };
    without("a data file of a batch", vec![find("records.parquet", 1)], Code::BatchMissing);
    without("everything", case.store.objects.keys().cloned().collect(), Code::NoInput);
    let middle: Vec<String> =
        case.store.objects.keys().filter(|n| n.contains("/0000000001")).cloned().collect();
    without("a middle batch", middle, Code::BatchMissing);
    let mut strange = case.store.clone();
    strange.put(
        find("records.parquet", 0).replace("/0000000000-", "/region=eu/0000000000-"),
        case.store.objects[&find("records.parquet", 0)].clone(),
    );
    expected.insert("a copy below a misleading folder", (strange, Code::UnknownObject));
    let mut rogue = case.store.clone();
    rogue.put(
        "acme/rogue/20261120t101500z-00000000/0000000000.seal",
        case.store.objects[&find(".seal", 0)].clone(),
    );
    expected.insert("a log of a gateway that nobody named", (rogue, Code::UnregisteredLog));
    for (what, (store, code)) in &expected {
        let report = case.verify(store, false, None);
        let codes: Vec<_> = report.findings.iter().map(|f| f.code.as_str()).collect();
        assert!(report.findings.has(*code), "{what}: wanted {}, found {codes:?}", code.as_str());
        assert_ne!(report.verdict, Verdict::Verified, "{what}");
    }
}

#[test]
fn dropping_the_newest_batch_is_a_rollback_to_an_auditor_who_was_there() {
    let case = small();
    let mandate = Mandate::default();
    let options = Options::new(&case.trust, &mandate, case.now);
    let (first, visits) = run(&case.store, &options, &mut NoSink);
    assert_eq!(first.verdict, Verdict::Verified);
    let remembered = Remembered::Known(visits);
    let again = case.verify(&case.store, false, Some(&remembered));
    assert_eq!(again.verdict, Verdict::Verified, "{:#?}", again.findings);
    let newest = case
        .store
        .objects
        .keys()
        .filter_map(|name| name.strip_suffix(".seal"))
        .max()
        .expect("a seal")
        .to_owned();
    let mut rolled = case.store.clone();
    rolled.objects.retain(|name, _| !name.starts_with(&newest));
    assert!(rolled.objects.len() < case.store.objects.len());
    let report = case.verify(&rolled, false, Some(&remembered));
    assert!(report.findings.has(Code::Rollback), "{:#?}", report.findings);
    assert_ne!(report.verdict, Verdict::Verified);
}

/// Begins an auditor over the store's folder, with this state folder.
fn auditor_begins(case: &Case, state: &std::path::Path, command: &[&str]) -> std::process::Child {
    let to = auditor::time::text(case.to.expect("an end"));
    let store = case.dir.path().join("store");
    std::process::Command::new(tests::binary("auditor"))
        .arg(command[0])
        .arg(store)
        .args(&command[1..])
        .args(["--to", &to, "--trust"])
        .arg(case.dir.path().join("trust.yaml"))
        .arg("--state")
        .arg(state)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the auditor's binary")
}

fn ended(auditor: std::process::Child) -> (Option<i32>, String) {
    let output = auditor.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_file_that_breaks_a_decoder_is_a_finding_and_no_panic_of_the_program() {
    let (case, state) = (small(), tempfile::tempdir().expect("a folder"));
    let copy = tempfile::tempdir().expect("a folder");
    tests::copy(&case.dir.path().join("store"), copy.path());
    let breaks = |bytes: Vec<u8>| {
        let read = schemas::files::read_records(&bytes.into(), &schemas::files::Limits::default());
        read.is_err_and(|error| format!("{error:?}").contains("break the decoder"))
    };
    let records = case.store.objects.iter().filter(|(name, _)| name.ends_with(".records.parquet"));
    let mut places =
        records.flat_map(|(name, bytes)| (0..bytes.len() * 8).map(move |bit| (name, bytes, bit)));
    let (name, bytes, bit) = places
        .find(|(_, bytes, bit)| breaks(flipped(bytes, bit / 8, bit % 8)))
        .expect("a bit that breaks it");
    std::fs::write(copy.path().join(name), flipped(bytes, bit / 8, bit % 8)).expect("the file");
    let output = std::process::Command::new(tests::binary("auditor"))
        .arg("verify")
        .arg(copy.path())
        .args(["--to", &auditor::time::text(case.to.expect("an end")), "--trust"])
        .arg(case.dir.path().join("trust.yaml"))
        .arg("--state")
        .arg(state.path())
        .output()
        .expect("the auditor's binary");
    let [said, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(said.contains("UNREADABLE") && said.contains("break the decoder"), "{said}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn auditors_on_one_state_folder_take_turns() {
    use std::io::BufRead as _;

    const COUNT: &str = "SELECT count(*) FROM records";
    let (case, state) = (small(), tempfile::tempdir().expect("a folder"));
    let (code, said) = ended(auditor_begins(case, state.path(), &["query", COUNT]));
    assert_eq!(code, Some(0), "{said}");
    // Another one has the cache: this one says so, and waits.
    let caches = std::fs::read_dir(state.path().join("cache")).expect("caches");
    let cache = caches.map(|entry| entry.expect("a cache").path()).next().expect("a cache");
    let held = std::fs::OpenOptions::new().write(true).open(cache.join("lock")).expect("the lock's file");
    held.lock().expect("the lock");
    let mut waiting = auditor_begins(case, state.path(), &["query", COUNT]);
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(waiting.stderr.take().expect("a pipe"));
    stderr.read_line(&mut line).expect("a line");
    assert!(line.contains("another auditor"), "{line}");
    std::thread::sleep(Duration::from_millis(200));
    assert!(waiting.try_wait().expect("a child").is_none(), "it did not wait");
    held.unlock().expect("unlocked");
    assert_eq!(ended(waiting).0, Some(0));
    // Several that begin at once, on a folder that none was in before.
    let fresh = tempfile::tempdir().expect("a folder");
    for _ in 0..3 {
        let commands: [&[&str]; 4] =
            [&["verify", "--anew"], &["query", COUNT], &["verify"], &["query", COUNT]];
        let all = commands.map(|command| auditor_begins(case, fresh.path(), command));
        for auditor in all {
            let (code, said) = ended(auditor);
            assert_eq!(code, Some(0), "{said}");
            for wrong in ["CACHE_DAMAGED", "STATE_TAMPERED", "STATE_LOST"] {
                assert!(!said.contains(wrong), "{said}");
            }
        }
    }
}
