//! The Spark job against the auditor: over what real gateways wrote, and over attacks on it, both name the same findings.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_s3::types::ChecksumAlgorithm;
use base64::Engine as _;
use schemas::files::{Limits, read_records, write_records};
use schemas::names::FileKind;
use schemas::note::Ed25519Signer;
use schemas::seal::{Seal, SealedFile, parse_unverified};
use schemas::{ObjectName, Sha256Hex};
use serde_json::Value;
use tests::archive::BUCKET;
use tests::audited::Evidence;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Minio, S3Server};

/// A store in a folder, and the key that its seals are signed with.
struct Store {
    root: PathBuf,
    seed: [u8; 32],
}

/// Three lives of one gateway; the first has several batches, and the second ends in the middle of one.
async fn three_lives(dir: &Path) -> Store {
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir, &Setup { provider: provider.url(), ..Setup::default() });
    for life in 0..3 {
        if life > 0 {
            gateway.serve();
        }
        for round in 0..3 {
            for stream in [false, true, false] {
                let ask = format!(
                    r#"{{"model":"gpt-4o-mini","stream":{stream},"messages":[{{"role":"user","content":"{round}"}}]}}"#
                );
                let got =
                    send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, ask))
                        .await;
                assert_eq!(got.status, 200, "{}", got.text());
            }
            // Each round in a batch of its own, and the last record but `close` seconds before it.
            tokio::time::sleep(Duration::from_millis(1400)).await;
        }
        if life == 1 {
            gateway.kill();
            // Recovery seals what it adds some time after the process lived.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        } else {
            assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        }
    }
    let pem = std::fs::read_to_string(dir.join("seal.key")).expect("the seal key");
    let der =
        pem.lines().skip_while(|line| !line.starts_with("-----BEGIN")).nth(1).expect("one line of base64");
    let der = base64::engine::general_purpose::STANDARD.decode(der).expect("base64");
    let seed = der[der.len() - 32..].try_into().expect("the seed stands last (RFC 8410)");
    Store { root: gateway.store(), seed }
}

impl Store {
    fn copy(&self, to: &Path) -> Self {
        tests::copy(&self.root, to);
        Self { root: to.to_owned(), seed: self.seed }
    }

    /// Objects, relative to the root, whose name holds `part`; ascending.
    fn names(&self, part: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&self.root).expect("below the root");
                    out.push(name.to_str().expect("plain names").to_owned());
                }
            }
        }
        out.retain(|name| name.contains(part));
        out.sort();
        out
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root.join(name)).expect("an object")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let _ = std::fs::remove_file(&path);
        std::fs::write(path, bytes).expect("written");
    }

    fn remove(&self, part: &str) {
        let names = self.names(part);
        assert!(!names.is_empty(), "nothing to remove: {part}");
        for name in names {
            std::fs::remove_file(self.root.join(name)).expect("removed");
        }
    }

    /// The records file with the most rows, and its seal.
    fn largest(&self) -> (String, String) {
        let rows = |name: &String| {
            read_records(&self.read(name).into(), &Limits::default()).expect("records").rows.len()
        };
        let records = self.names("records.parquet").into_iter().max_by_key(rows).expect("records");
        let seal = format!("{}.seal", &records[..records.len() - "-.records.parquet".len() - 64]);
        (records, seal)
    }

    /// Signs a seal anew with the log's own key after `change`.
    fn seal_anew(&self, name: &str, change: impl FnOnce(&mut Seal)) {
        let mut seal = parse_unverified(&self.read(name)).expect("a seal");
        change(&mut seal);
        self.write(name, seal.sign(&Ed25519Signer::from_seed(self.seed)).expect("a seal that can be signed"));
    }

    /// Puts other records into a batch, under their own name, and signs the seal over them.
    fn put_records(&self, (records, seal): &(String, String), bytes: &[u8]) {
        std::fs::remove_file(self.root.join(records)).expect("removed");
        let sha256 = Sha256Hex::of(bytes);
        self.seal_anew(seal, |seal| {
            let (origin, batch) = (seal.origin.clone(), seal.batch);
            let object = ObjectName::Data { origin, batch, sha256, kind: FileKind::Records };
            let length = bytes.len() as u64;
            seal.files.retain(|file| !file.name.ends_with(".records.parquet"));
            seal.files.push(SealedFile { name: object.file_name(), length, sha256 });
            seal.files.sort();
            self.write(&object.to_string(), bytes);
        });
    }
}

const FRAME: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Puts `after` in the place of `before` in the one page that holds it, where that page keeps its compressed length.
fn patched(file: &[u8], before: &[u8], after: &[u8]) -> Option<Vec<u8>> {
    let find =
        |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).position(|window| window == needle);
    let mut at = 0;
    while let Some(next) = find(&file[at..], FRAME) {
        at += next;
        let length = zstd::zstd_safe::find_frame_compressed_size(&file[at..]).unwrap_or(4);
        let frame = &file[at..at + length];
        if let Ok(mut plain) = zstd::stream::decode_all(frame)
            && let Some(found) = find(&plain, before)
        {
            plain[found..found + before.len()].copy_from_slice(after);
            let made =
                |level| [zstd::bulk::compress(&plain, level), zstd::stream::encode_all(&plain[..], level)];
            let same = (1..6).flat_map(made).flatten().find(|made| made.len() == length)?;
            return Some([&file[..at], &same, &file[at + length..]].concat());
        }
        at += length;
    }
    None
}

/// A leaf with one bit of a digit turned over.
fn one_leaf_changed(file: &[u8]) -> Vec<u8> {
    let rows = read_records(&file.to_vec().into(), &Limits::default()).expect("records").rows;
    for row in &rows {
        for at in (0..row.leaf.len()).rev().filter(|at| row.leaf[*at].is_ascii_digit()) {
            let mut leaf = row.leaf.clone();
            leaf[at] ^= 1;
            if let Some(made) = patched(file, &row.leaf, &leaf) {
                return made;
            }
        }
    }
    panic!("no leaf keeps its compressed length");
}

fn times(file: &[u8]) -> Vec<i64> {
    let rows = read_records(&file.to_vec().into(), &Limits::default()).expect("records").rows;
    let at = |leaf: &[u8]| serde_json::from_slice::<Value>(leaf).ok()?.get("at")?.as_i64();
    let mut times: Vec<i64> = rows.iter().filter_map(|row| at(&row.leaf)).collect();
    times.sort_unstable();
    times
}

/// One cell of the typed column `at` changed, and neither the smallest nor the largest: only the leaf contradicts it.
fn one_cell_changed(file: &[u8]) -> Vec<u8> {
    let times = times(file);
    let middle = times[times.len() / 2];
    (1..2000_i64)
        .filter(|more| middle + more < times[times.len() - 1])
        .find_map(|more| patched(file, &middle.to_le_bytes(), &(middle + more).to_le_bytes()))
        .expect("a cell that keeps the page's compressed length")
}

/// The footer says that the largest time is another one: engines that prune by it miss rows.
fn largest_time_changed(file: &[u8]) -> Vec<u8> {
    let largest = times(file).pop().expect("times").to_le_bytes();
    let lie = (i64::from_le_bytes(largest) - 1).to_le_bytes();
    let length =
        u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().expect("four bytes")) as usize;
    let mut out = file.to_vec();
    let mut changed = 0;
    for at in file.len() - 8 - length..file.len() - 15 {
        if out[at..at + 8] == largest {
            out[at..at + 8].copy_from_slice(&lie);
            changed += 1;
        }
    }
    assert!(changed > 0, "the footer states the largest time");
    out
}

/// The attacks, each on a copy of its own.
fn attacks(whole: &Store, dir: &Path) -> BTreeMap<&'static str, Store> {
    let mut all = BTreeMap::new();
    let mut attack = |name: &'static str, change: &dyn Fn(&Store)| {
        let copy = whole.copy(&dir.join(name));
        change(&copy);
        all.insert(name, copy);
    };
    let (records, seal) = whole.largest();
    let seals = whole.names(".seal");
    let first_log = seals[0].rsplit_once('/').expect("a folder").0.to_owned();
    let newest = seals[seals.len() - 1].trim_end_matches(".seal").to_owned();
    let folder = |seal: &String| seal.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let killed =
        seals.iter().rfind(|seal| folder(seal) != folder(&seals[seals.len() - 1])).expect("a second log");
    let killed = ObjectName::parse(killed).expect("a seal's name");
    attack("untouched", &|_| {});
    attack("leaf", &|store| store.write(&records, one_leaf_changed(&store.read(&records))));
    attack("leaf-sealed", &|store| {
        store.put_records(&(records.clone(), seal.clone()), &one_leaf_changed(&store.read(&records)));
    });
    attack("content", &|store| {
        let name = store.names(".content-").remove(0);
        let mut bytes = store.read(&name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        store.write(&name, bytes);
    });
    attack("row", &|store| {
        let mut rows = read_records(&store.read(&records).into(), &Limits::default()).expect("records").rows;
        rows.pop();
        store.put_records(&(records.clone(), seal.clone()), &write_records(&rows).expect("a file"));
    });
    attack("batch", &|store| store.remove(&format!("{first_log}/0000000001")));
    attack("key", &|store| {
        let other = Ed25519Signer::from_seed([9; 32]);
        let note = parse_unverified(&store.read(&seals[1])).expect("a seal").sign(&other).expect("signed");
        store.write(&seals[1], note);
    });
    attack("swapped", &|store| {
        let (one, two) = (store.read(&seals[0]), store.read(&seals[1]));
        store.write(&seals[0], two);
        store.write(&seals[1], one);
    });
    attack("fork", &|store| store.seal_anew(&seals[1], |seal| seal.time += 1));
    attack("column", &|store| {
        store.put_records(&(records.clone(), seal.clone()), &one_cell_changed(&store.read(&records)));
    });
    attack("statistics", &|store| {
        store.put_records(&(records.clone(), seal.clone()), &largest_time_changed(&store.read(&records)));
    });
    attack("log", &|store| store.remove(&format!("{first_log}/")));
    attack("end", &|store| store.remove(&newest));
    attack("left", &|store| {
        // What a process that dies may have put, of records that the log has: under the number of the batch that recovery
        // sealed, and of one behind it.
        let before = format!("{}/{:010}-", killed.origin(), killed.batch().checked_sub(1).expect("a batch"));
        let all = store.names(".records.parquet");
        let file = store.read(all.iter().find(|name| name.starts_with(&before)).expect("its records"));
        for batch in [killed.batch(), killed.batch() + 1] {
            let name = format!("{}/{batch:010}-{}.records.parquet", killed.origin(), Sha256Hex::of(&file));
            store.write(&name, file.clone());
        }
    });
    attack("left-early", &|store| {
        // The dead process sealed this batch itself.
        let other = Sha256Hex::of(b"cut elsewhere");
        store.write(&format!("{}/0000000000-{other}.records.parquet", killed.origin()), "other");
    });
    attack("strangers", &|store| {
        store.write(&format!("{first_log}/k=v/0000000000.seal"), store.read(&seals[0]));
        store.write(
            &format!("{}/0000000000.seal", first_log.replace("/gw1/", "/rogue/")),
            store.read(&seals[0]),
        );
        let (folder, file) = records.rsplit_once('/').expect("a folder");
        let other = Sha256Hex::of(b"other");
        store.write(&format!("{folder}/{}-{other}.records.parquet", &file[..10]), "other");
        store.write(&format!("{folder}/0000000099-{other}.records.parquet"), "other");
    });
    all
}

/// Findings as both sides name them: code and place. The exchange is told by the auditor alone, and so is which of two
/// fields of a footer holds a lie.
fn named(findings: &Value, codes: &BTreeSet<String>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for finding in findings.as_array().or(findings["list"].as_array()).expect("findings") {
        let code = finding["code"].as_str().expect("a code");
        let fields = finding["place"].as_object().expect("a place").iter();
        let mut place: BTreeMap<_, _> = fields.filter(|(name, _)| *name != "exchange").collect();
        let object = finding["place"]["object"].as_str().unwrap_or_default();
        // Of content and references the job judges length and hash alone.
        let unread = object.contains(".content-") || object.contains(".reference.");
        let about_form = ["UNREADABLE", "SCHEMA_DRIFT", "STATS_LIE", "ORDER"].contains(&code);
        if !codes.contains(code) || (unread && about_form) {
            continue;
        }
        let item = place.remove(&"item".to_owned()).and_then(Value::as_str).unwrap_or_default();
        let item = item.trim_end_matches(", deprecated field");
        out.insert(format!("{code} {place:?} {item}"));
    }
    out
}

#[tokio::test]
#[ignore = "needs Spark"]
async fn spark_and_the_auditor_find_the_same_in_what_gateways_wrote_and_in_attacks_on_it() {
    let python =
        std::env::var_os("AFFIDAVIT_SPARK_PYTHON").expect("AFFIDAVIT_SPARK_PYTHON, as `tests/run` sets it");
    let dir = tempfile::tempdir().expect("a folder");
    let whole = three_lives(&dir.path().join("gateway")).await;
    let trust = dir.path().join("gateway/trust.yaml");
    let judge = |store: &Store, more: &[&str]| {
        let state = tempfile::tempdir().expect("a state of its own");
        let paths = [&store.root, &trust, &state.path().to_owned()].map(|path| path.display().to_string());
        let arguments =
            [&["verify", &paths[0], "--trust", &paths[1], "--state", &paths[2], "--format", "json"], more]
                .concat();
        tests::audited::auditor(&arguments)
    };
    let (code, report) = judge(&whole, &[]);
    assert_eq!(code, 0, "{report:#}");
    // A whole second that the newest batch alone reaches.
    let proven = report["gateways"][0]["proven"]["to"].as_i64().expect("a proven interval");
    let to = jiff::Timestamp::from_second(proven / 1_000_000).expect("a time").to_string();

    let all = attacks(&whole, &dir.path().join("attacks"));
    let begun = Instant::now();
    let output = Command::new(python)
        .arg(tests::root().join("auditor/spark/verify.py"))
        .args(all.values().map(|store| &store.root))
        .arg("--trust")
        .arg(&trust)
        .args(["--to", &to, "--json"])
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .output()
        .expect("the Spark job");
    let spent = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}\n{errors}");
    let reports: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("a report")).collect();
    assert_eq!(reports.len(), all.len(), "{said}\n{errors}");
    let (mut found, mut wrong) = (0, Vec::new());
    for ((name, store), theirs) in all.iter().zip(&reports) {
        let codes = theirs["codes"].as_array().expect("codes").iter().filter_map(Value::as_str);
        let codes: BTreeSet<String> = codes.map(str::to_owned).collect();
        let (_, ours) = judge(store, &["--to", &to]);
        let wanted = named(&ours["findings"], &codes);
        let spark = named(&theirs["findings"], &codes);
        let is_whole = *name == "untouched";
        let same_verdict = (theirs["verdict"] == "VERIFIED") == (is_whole || *name == "left");
        let same_count = !is_whole || theirs["records"] == ours["counts"]["leaves"];
        if spark != wanted || spark.is_empty() != is_whole || !same_verdict || !same_count {
            wrong.push(format!("{name}: {}\nSpark: {spark:#?}\nthe auditor: {wanted:#?}", theirs["verdict"]));
        }
        found += spark.len();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    eprintln!(
        "{} stores, {found} findings equal by code and place; one Spark session of {spent:.1?}",
        all.len()
    );
}

#[tokio::test]
#[ignore = "needs Spark, S3"]
async fn spark_reads_a_bucket_and_names_the_object_that_was_changed_in_it() {
    let python =
        std::env::var_os("AFFIDAVIT_SPARK_PYTHON").expect("AFFIDAVIT_SPARK_PYTHON, as `tests/run` sets it");
    let (server, evidence) = (Minio::start(), Evidence::shared());
    server.create_locked_bucket(BUCKET).await;
    let records = |name: &str| name.ends_with(".records.parquet");
    let changed = &evidence.objects.iter().find(|(name, _)| records(name)).expect("a records file").0;
    for prefix in ["whole", "changed"] {
        for (name, bytes) in &evidence.objects {
            let mut bytes = bytes.clone();
            if prefix == "changed" && name == changed {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
            let put = server
                .client()
                .put_object()
                .bucket(BUCKET)
                .key(format!("{prefix}/{name}"))
                .body(bytes.into());
            put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.expect("an object");
        }
    }
    let host = server.endpoint();
    let host = host.trim_start_matches("http://");
    let address = |prefix: &str| {
        format!("s3a://{BUCKET}/{prefix}?endpoint_override={host}&scheme=http&region=us-east-1")
    };
    let output = Command::new(python)
        .arg(tests::root().join("auditor/spark/verify.py"))
        .args([address("whole"), address("changed")])
        .arg("--trust")
        .arg(&evidence.trust)
        .args(["--to", &evidence.to, "--json"])
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .envs(S3Server::environment())
        .output()
        .expect("the Spark job");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let reports: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(reports.len(), 2, "{said}\n{errors}");
    assert_eq!(
        (&reports[0]["verdict"], reports[0]["findings"].as_array()),
        (&"VERIFIED".into(), Some(&vec![]))
    );
    assert_eq!(reports[1]["verdict"], "INVALID");
    let findings = reports[1]["findings"].as_array().expect("findings");
    assert!(findings.iter().all(|finding| finding["place"]["object"] == changed.as_str()), "{said}");
    assert!(findings.iter().any(|finding| finding["code"] == "FILE_MISMATCH"), "{said}");
}

/// The Python that has Spark.
fn python() -> std::ffi::OsString {
    std::env::var_os("AFFIDAVIT_SPARK_PYTHON").expect("AFFIDAVIT_SPARK_PYTHON, as `tests/run` sets it")
}

/// Exit code, the reports, and all that was said.
fn ran(command: &mut Command) -> (Option<i32>, Vec<Value>, String) {
    let output = command.env("SPARK_LOCAL_IP", "127.0.0.1").output().expect("the Spark job");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let reports = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (output.status.code(), reports, format!("{said}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn verify() -> Command {
    let mut command = Command::new(python());
    command.arg(tests::root().join("auditor/spark/verify.py")).arg("--json");
    command
}

#[test]
#[ignore = "needs Spark"]
fn no_flipped_bit_of_a_batch_ends_a_task_or_passes_for_proven() {
    let vectors = tests::root().join("schemas/testdata/v1");
    let every = if std::env::var_os("AFFIDAVIT_LONG").is_some() { "1" } else { "31" };
    let mut command = Command::new(python());
    command.arg(tests::root().join("tests/second/flips.py")).arg(vectors.join("store"));
    command.arg("--trust").arg(vectors.join("trust.yaml")).args(["--every", every]);
    let (code, _, said) = ran(&mut command);
    assert_eq!(code, Some(0), "{said}");
    eprintln!("{}", said.lines().next().unwrap_or_default());
}

#[test]
#[ignore = "needs Spark"]
fn a_file_that_brings_its_reader_down_is_a_finding_and_the_other_stores_are_judged() {
    let vectors = tests::root().join("schemas/testdata/v1");
    let dir = tempfile::tempdir().expect("a folder");
    let whole = Store { root: vectors.join("store"), seed: [0; 32] };
    let records = whole.names("0000000000-").into_iter().find(|name| name.ends_with(".records.parquet"));
    let records = records.expect("a records file");
    let seal = whole.names("0000000000.seal").remove(0);
    let mut known = Command::new(python());
    known.arg(tests::root().join("tests/second/flips.py")).arg(vectors.join("store")).arg("--known");
    known.arg("--trust").arg(vectors.join("trust.yaml"));
    let (code, places, said) = ran(&mut known);
    assert_eq!((code, places.len()), (Some(0), 1), "{said}");
    let mut stores = vec![whole.copy(&dir.path().join("whole"))];
    for name in ["abort", "text", "name"] {
        let place = |part: usize| places[0][name][part].as_u64().expect("a number");
        let store = whole.copy(&dir.path().join(name));
        let mut bytes = store.read(&records);
        bytes[usize::try_from(place(0)).expect("a place")] ^= u8::try_from(place(1)).expect("bits");
        store.write(&records, bytes);
        stores.push(store);
    }
    // A number of more digits than Python takes for one.
    let long = whole.copy(&dir.path().join("number"));
    let note = String::from_utf8(long.read(&seal)).expect("text");
    long.write(&seal, note.replacen("batch 0", &format!("batch {}", "9".repeat(5000)), 1));
    stores.push(long);
    let mut command = verify();
    command.arg(dir.path().join("nowhere")).args(stores.iter().map(|store| &store.root));
    command.arg("--trust").arg(vectors.join("trust.yaml"));
    let (code, reports, said) = ran(&mut command);
    assert_eq!((code, reports.len()), (Some(1), 1 + stores.len()), "{said}");
    assert_eq!(reports[0]["verdict"], "COULD-NOT-JUDGE", "{said}");
    let of = |report: &Value, object: &str| -> BTreeSet<String> {
        let findings = report["findings"].as_array().expect("findings").iter();
        let here = findings.filter(|finding| finding["place"]["object"] == object);
        here.filter_map(|finding| finding["code"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(of(&reports[1], &records), BTreeSet::new(), "{said}");
    let wanted = BTreeSet::from(["FILE_MISMATCH".to_owned(), "UNREADABLE".to_owned()]);
    for report in &reports[2..5] {
        assert_eq!((&report["verdict"], of(report, &records)), (&"INVALID".into(), wanted.clone()), "{said}");
        // The batches behind it are judged all the same.
        assert_eq!(report["batches"].as_u64().map(|n| n + 1), reports[1]["batches"].as_u64(), "{said}");
    }
    assert_eq!(of(&reports[5], &seal), BTreeSet::from(["SEAL_INVALID".to_owned()]), "{said}");
}

#[test]
#[ignore = "needs Spark"]
fn what_could_not_be_judged_ends_with_2_and_not_as_a_finding() {
    let vectors = tests::root().join("schemas/testdata/v1");
    let trust = vectors.join("trust.yaml");
    let dir = tempfile::tempdir().expect("a folder");
    let (odd, list) = (dir.path().join("odd.yaml"), dir.path().join("list.yaml"));
    std::fs::write(&odd, [0xff, 0xfe]).expect("written");
    std::fs::write(&list, "{\"v\": 1, \"deployment\": 7, \"gateways\": [3]}").expect("written");
    let store = vectors.join("store");
    let judged = |stores: &[&str], trust: &Path, java: Option<&str>| {
        let mut command = verify();
        command.args(stores).arg("--trust").arg(trust);
        if let Some(java) = java {
            command.env("JAVA_HOME", java);
        }
        ran(&mut command)
    };
    let store = store.to_str().expect("plain names");
    // No folder, and an address that no file system knows: each is told, and neither ends the other.
    let (code, reports, said) = judged(&["/nowhere/at-all", "nosuch://bucket/prefix"], &trust, None);
    assert_eq!((code, reports.len()), (Some(2), 2), "{said}");
    assert!(
        reports.iter().all(|report| report["verdict"] == "COULD-NOT-JUDGE" && report["error"].is_string())
    );
    for (trust, java) in
        [(&trust, Some("/nowhere")), (&odd, None), (&list, None), (&dir.path().join("none"), None)]
    {
        let (code, reports, said) = judged(&[store], trust, java);
        assert_eq!((code, reports.len()), (Some(2), 0), "{said}");
        assert!(said.contains("COULD-NOT-JUDGE"), "{said}");
    }
}

#[test]
#[ignore = "needs Spark"]
fn a_trust_file_inside_the_store_or_with_a_registry_is_refused() {
    let python =
        std::env::var_os("AFFIDAVIT_SPARK_PYTHON").expect("AFFIDAVIT_SPARK_PYTHON, as `tests/run` sets it");
    let vectors = tests::root().join("schemas/testdata/v1");
    let dir = tempfile::tempdir().expect("a folder");
    let inside = dir.path().join("trust.yaml");
    std::fs::copy(vectors.join("trust.yaml"), &inside).expect("a copy");
    for (store, trust, why) in [
        (dir.path(), inside.as_path(), "inside the store"),
        (&vectors.join("store"), &vectors.join("trust-registry.yaml"), "auditor trust resolve"),
    ] {
        let mut command = Command::new(&python);
        command.arg(tests::root().join("auditor/spark/verify.py")).arg(store).arg("--trust").arg(trust);
        let output = command.output().expect("the Spark job");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(why)), (Some(2), true), "{said}");
    }
}
