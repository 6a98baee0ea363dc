mod asked;
mod handed_over;
mod promised;
pub(super) mod stderr;
mod translated;

use std::path::{Path, PathBuf};

use clap::Parser as _;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::fixture::{START, Writer, exchange_id, small, trust};
use crate::source::MemorySource;
use crate::time::{self, SECOND};

/// A store on disk with its trust file, key table and state beside it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(writer: &Writer) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write(&writer.store);
        std::fs::write(place.path("trust.yaml"), serde_json::to_string(&trust()).unwrap()).unwrap();
        let (name, page) = writer.key_table();
        let page_path = place.path("keys").join(name);
        std::fs::create_dir_all(page_path.parent().unwrap()).unwrap();
        std::fs::write(page_path, page).unwrap();
        place
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn write(&self, store: &MemorySource) {
        for (name, bytes) in &store.objects {
            let path = self.path("store").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    /// Runs a command over the small store's own interval.
    fn run(&self, command: &str, more: &[&str]) -> anyhow::Result<u8> {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let to = time::text(START + 2 * SECOND);
        let mut words =
            vec!["auditor".to_owned(), command.into(), text("store"), "--trust".into(), text("trust.yaml")];
        words.extend(["--state".into(), text("state"), "--to".into(), to]);
        words.extend(more.iter().map(ToString::to_string));
        super::run(&Cli::try_parse_from(words)?)
    }
    /// Runs a question and gives what it wrote.
    fn ask(&self, command: &str, format: &str, more: &[&str]) -> String {
        let out = self.path("answer");
        let mut words = vec!["--format", format, "--out", out.to_str().unwrap()];
        words.extend(more);
        assert_eq!(self.run(command, &words).unwrap(), 0);
        std::fs::read_to_string(&out).unwrap()
    }
    fn files(&self, under: &str) -> Vec<PathBuf> {
        fn walk(path: &Path, out: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, out) } else { out.push(path) }
            }
        }
        let mut out = Vec::new();
        walk(&self.path(under), &mut out);
        out.sort();
        out
    }
}

const KINDS: &str = "SELECT kind, count(*) AS n FROM records GROUP BY kind ORDER BY kind";
const KINDS_ARE: &str = "kind,n\nboot,1\nclose,1\nconfig,1\nheartbeat,1\nintent,2\noutcome,2\n";

#[test]
fn questions_are_answered_from_proven_rows_also_at_later_visits() {
    let place = Place::new(&small());
    for _ in 0..3 {
        assert_eq!(place.ask("query", "csv", &[KINDS]), KINDS_ARE);
        assert!(stderr::taken().starts_with("-- this answer rests on\nverdict   VERIFIED "));
    }
    let one = place.ask(
        "query",
        "jsonl",
        &["SELECT exchange, state, input_tokens FROM exchanges ORDER BY started_at LIMIT 1"],
    );
    let exchange = exchange_id(1);
    assert_eq!(one, format!("{{\"exchange\":\"{exchange}\",\"state\":\"ended\",\"input_tokens\":1000}}\n"));
    let cost = place.ask("cost", "csv", &["--by", "consumer,model"]);
    assert!(cost.contains("tester,gpt-4o"), "{cost}");
}

#[test]
fn an_answer_in_parquet_holds_the_same_rows() {
    use arrow::array::{AsArray as _, RecordBatch};
    use arrow::datatypes::Int64Type;
    let place = Place::new(&small());
    let out = place.path("answer.parquet");
    let asked = place.run("query", &["--format", "parquet", "--out", out.to_str().unwrap(), KINDS]);
    assert_eq!(asked.unwrap(), 0);
    let file = std::fs::File::open(&out).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let mut text = "kind,n\n".to_owned();
    for batch in &batches {
        let kind = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        let count = batch.column(1).as_primitive::<Int64Type>();
        for n in 0..batch.num_rows() {
            text.push_str(&format!("{},{}\n", kind.as_string::<i32>().value(n), count.value(n)));
        }
    }
    assert_eq!(text, KINDS_ARE);
    // Parquet goes to a file, not to a terminal.
    let error = place.run("query", &["--format", "parquet", KINDS]).unwrap_err();
    assert!(error.to_string().contains("--out"), "{error}");
}

#[test]
fn a_mandate_that_names_a_bucket_is_not_met_by_a_folder() {
    let place = Place::new(&small());
    let mandate = place.path("mandate.yaml");
    for (yaml, exit) in [
        ("claims: [signed]\n", 0),
        ("store: { holds: all }\n", 1),
        ("store: { bucket: evidence }\n", 1),
        ("store: { probed_within: 30d }\n", 1),
    ] {
        std::fs::write(&mandate, yaml).unwrap();
        let words = ["--mandate", mandate.to_str().unwrap()];
        assert_eq!(place.run("verify", &words).unwrap(), exit, "{yaml}");
    }
}

#[test]
fn only_new_batches_are_verified_by_a_later_question() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.now += 3 * SECOND;
    writer.exchange(1, b"q", b"a");
    writer.seal();
    let place = Place::new(&writer);
    let count = "SELECT count(*) AS n FROM records";
    assert_eq!(place.ask("query", "csv", &["--require", "claim=signed", count]), "n\n4\n");
    let mut grown = Vec::new();
    for n in 2..20 {
        writer.exchange(n, b"q", b"a");
        writer.seal();
        place.write(&writer.store);
        grown.push(place.ask("query", "csv", &[count]));
    }
    let expected: Vec<String> = (2..20).map(|n| format!("n\n{}\n", 2 + 2 * n)).collect();
    assert_eq!(grown, expected);
    assert!(place.files("state").len() < 40, "segments are merged: {:?}", place.files("state"));
}

#[test]
fn a_changed_cache_is_dropped_and_the_answer_stays() {
    let place = Place::new(&small());
    assert_eq!(place.ask("query", "csv", &[KINDS]), KINDS_ARE);
    for file in place.files("state/cache") {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        // The lock's file is empty.
        match bytes.get_mut(middle) {
            Some(byte) => *byte ^= 1,
            None => bytes.push(1),
        }
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(place.ask("query", "csv", &[KINDS]), KINDS_ARE, "{}", file.display());
    }
}

#[test]
fn a_batch_that_vanished_after_its_proof_is_found_by_the_next_question() {
    let place = Place::new(&small());
    assert_eq!(place.run("query", &[KINDS]).unwrap(), 0);
    let file =
        place.files("store").into_iter().find(|file| file.to_string_lossy().contains("0000000000-")).unwrap();
    let all = place.files("store");
    let records = all.iter().find(|file| {
        file.to_string_lossy().contains("0000000000") && file.to_string_lossy().contains("records")
    });
    std::fs::remove_file(records.unwrap_or(&file)).unwrap();
    assert_eq!(place.run("query", &[KINDS]).unwrap(), 1);
}

#[test]
fn decrypted_content_is_answered_and_never_written_to_the_state() {
    let place = Place::new(&small());
    let keys = place.path("keys");
    let keys = ["--key-table", keys.to_str().unwrap(), "--content"];
    let why = ["--reason", "complaint 17"];
    let sql = "SELECT text FROM content WHERE part = 'client_request' AND text LIKE '%hello%'";
    let answer = place.ask("query", "jsonl", &[&keys[..], &why, &[sql]].concat());
    assert!(answer.contains("hello"), "{answer}");
    let exchange = exchange_id(2);
    let shown = [&keys[..2], &why, &[exchange.as_str()]].concat();
    assert_eq!(place.run("show", &shown).unwrap(), 0);
    for file in place.files("state") {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"hello"), "{}", file.display());
    }
    let sql = "SELECT state, text FROM content LIMIT 1";
    let closed = place.ask("query", "jsonl", &["--content", why[0], why[1], sql]);
    assert_eq!(closed, "{\"state\":\"no_key\"}\n");
}

#[test]
fn content_is_handed_over_only_with_a_reason_that_is_recorded_first() {
    let place = Place::new(&small());
    let (keys, bundle, exchange) = (place.path("keys"), place.path("bundle.json"), exchange_id(2));
    let table = ["--key-table", keys.to_str().unwrap()];
    let ledger =
        || crate::access::Ledger::new(&crate::state::State::open(&place.path("state")).unwrap()).entries();
    let show = [&table[..], &[exchange.as_str()]].concat();
    let prove = [&show[..], &["--content", "--out", bundle.to_str().unwrap()]].concat();
    let query = [&table[..], &["--content", "SELECT count(*) AS n FROM content"]].concat();
    for (command, words) in [("show", &show), ("prove", &prove), ("query", &query)] {
        let refused = place.run(command, words).unwrap_err().to_string();
        assert!(refused.contains("--reason TEXT"), "{refused}");
    }
    assert!(ledger().unwrap().is_empty() && !bundle.exists());
    // Records alone need none.
    assert_eq!(place.run("show", &[exchange.as_str()]).unwrap(), 0);
    assert_eq!(place.run("prove", &["--out", bundle.to_str().unwrap(), exchange.as_str()]).unwrap(), 0);
    assert!(ledger().unwrap().is_empty());
    let why = ["--reason", "complaint 17", "--reader", "Ada L."];
    for (command, words) in [("show", &show), ("prove", &prove), ("query", &query)] {
        assert_eq!(place.run(command, &[&words[..], &why].concat()).unwrap(), 0);
    }
    let told: Vec<_> = ledger()
        .unwrap()
        .into_iter()
        .map(|entry| (entry.command, entry.parts.is_some(), entry.rows))
        .collect();
    let wanted =
        [("show", true, None), ("prove", true, None), ("query", false, None), ("query", false, Some(1))];
    assert_eq!(told, wanted.map(|(command, parts, rows)| (command.to_owned(), parts, rows)));
    let access = |what: &str| {
        let state = place.path("state");
        let words = ["auditor", "access", what, "--state", state.to_str().unwrap()];
        super::run(&Cli::try_parse_from(words).unwrap())
    };
    assert_eq!((access("list").unwrap(), access("check").unwrap()), (0, 0));
    // A ledger that was cut gives nothing out any more.
    std::fs::write(place.path("state/access.jsonl"), "").unwrap();
    assert_eq!(access("check").unwrap(), 1);
    let refused = place.run("show", &[&show[..], &why].concat()).unwrap_err();
    assert!(format!("{refused:#}").contains("no content is shown"), "{refused:#}");
}

#[test]
fn registers_are_joined_and_their_formulas_disarmed() {
    let place = Place::new(&small());
    std::fs::write(place.path("teams.csv"), "consumer,owner\ntester,=HYPERLINK(1)\n").unwrap();
    let table = format!("owners={}", place.path("teams.csv").display());
    let sql = "SELECT DISTINCT o.owner FROM exchanges e JOIN owners o ON e.consumer = o.consumer";
    assert_eq!(place.ask("query", "csv", &["--table", &table, sql]), "owner\n'=HYPERLINK(1)\n");
    assert!(place.run("query", &["--table", "records=x.csv", sql]).is_err());
}

#[test]
fn questions_cannot_write_or_reach_files() {
    let place = Place::new(&small());
    let target = place.path("stolen.csv");
    for sql in [
        format!("COPY (SELECT 1) TO '{}'", target.display()),
        "CREATE TABLE x AS SELECT 1".into(),
        format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{}'", place.path("trust.yaml").display()),
        "SET datafusion.execution.batch_size = 1".into(),
        "INSERT INTO records SELECT * FROM records".into(),
    ] {
        assert!(place.run("query", &[&sql]).is_err(), "{sql}");
    }
    assert!(!target.exists());
}

#[test]
fn a_proof_is_written_and_checked_offline() {
    let place = Place::new(&small());
    let (bundle, keys) = (place.path("bundle.json"), place.path("keys"));
    let words = ["--key-table", keys.to_str().unwrap(), "--content", "--out", bundle.to_str().unwrap()];
    let exchange = exchange_id(1);
    assert_eq!(
        place
            .run("prove", &[&words[..], &["--reason", "court order 3", exchange.as_str()]].concat())
            .unwrap(),
        0
    );
    let trust = place.path("trust.yaml");
    let check = || {
        let words = ["auditor", "check-proof", bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()];
        super::run(&Cli::try_parse_from(words).unwrap())
    };
    assert_eq!(check().unwrap(), 0);
    let text = std::fs::read_to_string(&bundle).unwrap();
    let read: crate::proof::Bundle = serde_json::from_str(&text).unwrap();
    assert_eq!((read.records.len(), read.content.len()), (2, 2));
    std::fs::write(&bundle, text.replace("tester", "nobody")).unwrap();
    assert_eq!(check().unwrap(), 1);
    assert!(place.run("prove", &["--out", bundle.to_str().unwrap(), exchange_id(99).as_str()]).is_err());
}

#[test]
fn a_trust_file_or_state_inside_the_store_is_refused() {
    let place = Place::new(&small());
    std::fs::copy(place.path("trust.yaml"), place.path("store/trust.yaml")).unwrap();
    let inside = place.path("store/trust.yaml");
    let store = place.path("store");
    let words = ["auditor", "verify", store.to_str().unwrap(), "--trust", inside.to_str().unwrap()];
    let error = super::run(&Cli::try_parse_from(words).unwrap()).unwrap_err();
    assert!(error.to_string().contains("AU-1"), "{error}");
}

#[test]
fn a_changed_state_cannot_be_judged_and_a_rollback_is_named() {
    let place = Place::new(&small());
    assert_eq!(place.run("verify", &["--format", "json"]).unwrap(), 0);
    let gone: Vec<PathBuf> = place
        .files("store")
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("/0000000002"))
        .collect();
    let kept: Vec<Vec<u8>> = gone.iter().map(|file| std::fs::read(file).unwrap()).collect();
    gone.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(place.run("verify", &[]).unwrap(), 1);
    gone.iter().zip(kept).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
    assert_eq!(place.run("verify", &[]).unwrap(), 0, "the state still holds the longer log");
    let visits = place.path("state/visits.json");
    let text = std::fs::read_to_string(&visits).unwrap();
    std::fs::write(&visits, text.replace("\"batch\":2", "\"batch\":1")).unwrap();
    assert_eq!(place.run("verify", &[]).unwrap(), 2);
}

#[test]
fn rows_of_a_batch_that_was_put_back_are_in_later_answers() {
    let place = Place::new(&small());
    let all = place.files("store");
    let records = all.iter().find(|file| {
        let name = file.to_string_lossy();
        name.contains("0000000001-") && name.contains("records")
    });
    let (path, bytes) = (records.unwrap(), std::fs::read(records.unwrap()).unwrap());
    std::fs::remove_file(path).unwrap();
    assert_eq!(place.run("verify", &[]).unwrap(), 1);
    std::fs::write(path, bytes).unwrap();
    assert_eq!(place.run("verify", &[]).unwrap(), 0);
    assert_eq!(place.ask("query", "csv", &[KINDS]), KINDS_ARE);
}

#[test]
fn content_that_vanished_after_its_proof_is_found_by_the_next_question() {
    let place = Place::new(&small());
    assert_eq!(place.run("query", &[KINDS]).unwrap(), 0);
    let all = place.files("store");
    let content = all.iter().find(|file| file.to_string_lossy().contains("content")).unwrap();
    std::fs::remove_file(content).unwrap();
    assert_eq!(place.run("query", &[KINDS]).unwrap(), 1);
}

/// What a command printed as findings, by code.
fn codes(place: &Place, more: &[&str]) -> Vec<String> {
    let opened = {
        let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
        let to = time::text(START + 2 * SECOND);
        let mut words = vec!["auditor".to_owned(), "verify".into(), text("store"), "--trust".into()];
        words.extend([text("trust.yaml"), "--state".into(), text("state"), "--to".into(), to]);
        words.extend(more.iter().map(ToString::to_string));
        let crate::cli::Command::Verify(verify) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command")
        };
        super::evidence::open(&verify.evidence).unwrap()
    };
    let (report, _) = opened.verify_new().unwrap();
    report.findings.iter().map(|finding| finding.code.to_string()).collect()
}

#[test]
fn a_damaged_cache_and_a_changed_or_lost_state_have_their_codes() {
    let place = Place::new(&small());
    assert_eq!(codes(&place, &[]), Vec::<String>::new());
    let log = place.files("state/cache").into_iter().find(|file| file.ends_with("log.json")).unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace("\"batches\":3", "\"batches\":4")).unwrap();
    assert_eq!(codes(&place, &[]), ["CACHE_DAMAGED"]);
    let visits = place.path("state/visits.json");
    let text = std::fs::read_to_string(&visits).unwrap();
    std::fs::write(&visits, text.replace("\"batch\":2", "\"batch\":1")).unwrap();
    assert_eq!(codes(&place, &[]), ["STATE_TAMPERED"]);
    std::fs::remove_file(&visits).unwrap();
    assert_eq!(codes(&place, &[]), ["STATE_LOST"]);
}

/// Runs `auditor assess`; gives exit code and assessment.
fn assess(place: &Place, more: &[&str]) -> (u8, serde_json::Value) {
    let out = place.path("assessment.json");
    let mut words = vec!["--format", "json", "--out", out.to_str().unwrap()];
    words.extend(more);
    let exit = place.run("assess", &words).unwrap();
    (exit, serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap())
}

/// A control of an assessment.
fn control<'a>(assessment: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    let packs = assessment["packs"].as_array().unwrap();
    let mut controls = packs.iter().flat_map(|pack| pack["controls"].as_array().unwrap());
    controls.find(|control| control["id"] == id).unwrap()
}

fn pack(commands: &[&str]) -> anyhow::Result<u8> {
    let words = ["auditor", "pack"].iter().chain(commands);
    super::run(&Cli::try_parse_from(words)?)
}

#[test]
fn planted_violations_are_exceptions_and_what_is_not_given_is_not_judged() {
    let place = Place::new(&small());
    std::fs::write(place.path("ropa.csv"), "purpose,provider\nsupport,openai\n").unwrap();
    let ropa = format!("ropa={}", place.path("ropa.csv").display());
    let list = place.path("exceptions.jsonl");
    let words = ["--pack", "gdpr", "--register", &ropa, "--exceptions", list.to_str().unwrap()];
    let (exit, assessment) = assess(&place, &words);
    assert_eq!((exit, &assessment["exit_code"]), (1, &1.into()));
    // Nobody set a purpose: both exchanges are exceptions, and named.
    let purposes = control(&assessment, "30-purposes");
    assert_eq!((&purposes["status"], &purposes["population"]), (&"exceptions".into(), &2.into()));
    let named = purposes["shown"]["exchanges"].as_array().unwrap();
    assert_eq!(named.len(), 2);
    assert!((1..=2).all(|n| named.contains(&exchange_id(n).to_string().into())), "{named:?}");
    let written = std::fs::read_to_string(&list).unwrap();
    assert_eq!(written.lines().count(), 2, "{written}");
    assert!(written.contains(exchange_id(2).as_str()) && written.contains("\"control\":\"30-purposes\""));
    // A register that was not given is named with its columns, and a question over nothing is no pass.
    let transfers = control(&assessment, "44-transfers");
    assert_eq!(transfers["status"], "not_judged");
    let why = transfers["why"].as_str().unwrap();
    for wanted in ["--register allowed=FILE", "`data_class` (text)", "`basis` (text)"] {
        assert!(why.contains(wanted), "{why}");
    }
    let keys = control(&assessment, "17-keys");
    assert_eq!((&keys["status"], &keys["population"]), (&"not_judged".into(), &0.into()));
    for met in ["32-callers", "32-encrypted", "5-2-whole"] {
        assert_eq!(control(&assessment, met)["status"], "met", "{met}");
    }
    // What it rests on.
    assert_eq!(assessment["verdict"], "VERIFIED");
    assert_eq!(assessment["logs"][0]["origin"], "acme/gw1/20260921t133320z-00000001");
    assert_eq!(assessment["logs"][0]["seal"].as_str().map(str::len), Some(64));
    let text = crate::assess::packs::PACKS.iter().find(|(name, _)| *name == "gdpr").unwrap().1;
    let sha256 = schemas::Sha256Hex::of(text.as_bytes()).to_string();
    assert_eq!(assessment["packs"][0]["sha256"], sha256);
    let register = std::fs::read(place.path("ropa.csv")).unwrap();
    assert_eq!(assessment["registers"][0]["sha256"], schemas::Sha256Hex::of(&register).to_string());
}

#[test]
fn an_interval_that_is_not_over_is_assessed_as_far_as_it_is_settled() {
    let began = time::now() - 60 * SECOND;
    let mut writer = Writer::boot("20260921t133320z-00000001", began, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.heartbeat();
    writer.seal();
    let place = Place::new(&writer);
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let asked = began + 30 * time::DAY;
    let assess = |format: &str| {
        let mut words = vec!["auditor".to_owned(), "assess".into(), text("store")];
        words.extend(["--trust".into(), text("trust.yaml"), "--state".into(), text("state")]);
        words.extend(["--to".into(), time::text(asked), "--pack".into(), "soc2".into()]);
        words.extend(["--control", "cc7.2-unbroken", "--format", format, "--out"].map(str::to_owned));
        words.push(text("answer"));
        let exit = super::run(&Cli::try_parse_from(words).unwrap()).unwrap();
        (exit, std::fs::read_to_string(place.path("answer")).unwrap())
    };
    let (exit, json) = assess("json");
    let assessment: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((exit, &assessment["verdict"]), (0, &"VERIFIED".into()), "{assessment:#}");
    assert_eq!(control(&assessment, "cc7.2-unbroken")["status"], "met", "{assessment:#}");
    assert_eq!(assessment["asked_to"], asked);
    assert_eq!(assessment["period"]["to"], assessment["assessed_at"]);
    let (_, told) = assess("text");
    assert!(told.contains(&format!("(asked to {}: cut at", time::text(asked))), "{told}");
}

#[test]
fn all_met_is_0_not_judged_alone_is_2_and_evidence_that_is_not_whole_is_no_pass() {
    let place = Place::new(&small());
    let (exit, assessment) = assess(&place, &["--pack", "soc2", "--control", "cc6.1-callers"]);
    assert_eq!((exit, &assessment["counts"]["met"]), (0, &1.into()), "{assessment:#}");
    let (exit, assessment) = assess(&place, &["--pack", "gdpr", "--control", "44-transfers"]);
    assert_eq!((exit, &assessment["counts"]["not_judged"]), (2, &1.into()));
    let (_, assessment) = assess(&place, &["--pack", "hipaa", "--control", "164.316-six-years"]);
    let why = control(&assessment, "164.316-six-years")["why"].as_str().unwrap();
    assert!(why.contains("folder"), "{why}");
    let all = place.files("store");
    let records = all.iter().find(|file| {
        let name = file.to_string_lossy();
        name.contains("0000000001-") && name.contains("records")
    });
    std::fs::remove_file(records.unwrap()).unwrap();
    let (exit, assessment) = assess(&place, &["--pack", "soc2"]);
    assert_eq!((exit, &assessment["verdict"]), (1, &"INCOMPLETE".into()));
    let callers = control(&assessment, "cc6.1-callers");
    assert_eq!((&callers["status"], &callers["exceptions"]), (&"not_judged".into(), &0.into()));
    assert!(callers["why"].as_str().unwrap().contains("INCOMPLETE"), "{callers}");
    assert!(callers["rests"].as_str().unwrap().contains("BATCH_MISSING 1"), "{callers}");
    assert_eq!(control(&assessment, "cc7.1-whole")["status"], "exceptions");
}

#[test]
fn a_pack_of_the_users_own_is_asked_with_its_register_and_settings() {
    let place = Place::new(&small());
    let yaml = r#"
v: 1
name: mine
title: Mine
about: What it is.
registers: { owners: { about: Who owns what., columns: { consumer: text, owner: text } } }
settings: { who: { about: A caller., default: nobody } }
controls:
  - id: one
    title: One
    rule: { source: House rules, article: "1", read: primary, on: "2026-11-21" }
    asks: An owner for each call of one caller.
    needs: [exchange, owners, settings]
    population: SELECT count(*) FROM exchange e JOIN settings s ON s.who = e.consumer
    finds: SELECT e.exchange, o.owner FROM exchange e JOIN settings s ON s.who = e.consumer LEFT JOIN owners o ON o.consumer = e.consumer WHERE o.owner IS NULL OR o.owner <> 'ann'
    fails: No way.
    supports: That there is an owner.
    leaves_open: Much.
    cases:
      - name: owned
        rows: { exchange: [{ exchange: e1, consumer: nobody }], owners: [{ consumer: nobody, owner: ann }] }
      - name: not owned
        rows: { exchange: [{ exchange: e1, consumer: nobody }] }
        finds: [{ exchange: e1 }]
"#;
    let file = place.path("mine.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(file, yaml).unwrap();
    assert_eq!(pack(&["check", file]).unwrap(), 0);
    std::fs::write(place.path("owners.csv"), "owner,consumer\n=1+1,tester\n").unwrap();
    let owners = format!("owners={}", place.path("owners.csv").display());
    let words = ["--pack", file, "--register", &owners];
    let (exit, assessment) = assess(&place, &words);
    assert_eq!((exit, &control(&assessment, "one")["population"]), (2, &0.into()));
    let set = [&words[..], &["--set", "who=tester"]].concat();
    let (exit, assessment) = assess(&place, &set);
    assert_eq!((exit, &control(&assessment, "one")["exceptions"]), (1, &2.into()));
    assert_eq!(assessment["packs"][0]["settings"]["who"], "tester");
    for (wrong, wanted) in [
        (["--pack", "nothing"], "wanted a file that ends in `.yaml`, `all`, or one of eu_ai_act, gdpr, soc2"),
        (["--set", "whose=x"], "wanted one of who"),
        (["--control", "two"], "wanted one of one"),
        (["--register", "others=x.csv"], "x.csv"),
        (["--pack", file], "named twice"),
    ] {
        let error = place.run("assess", &[&set[..], &wrong].concat()).unwrap_err();
        assert!(format!("{error:#}").contains(wanted), "{error:#}");
    }
    std::fs::write(
        file,
        yaml.replace("        finds: [{ exchange: e1 }]", "        finds: [{ exchange: e7 }]"),
    )
    .unwrap();
    assert_eq!(pack(&["check", file]).unwrap(), 1);
    std::fs::write(file, yaml.replace("title: Mine", "titel: Mine")).unwrap();
    assert!(format!("{:#}", pack(&["check", file]).unwrap_err()).contains("titel"));
}

#[test]
fn no_report_says_that_somebody_keeps_a_rule_and_hostile_text_is_disarmed() {
    let place = Place::new(&small());
    std::fs::write(
        place.path("sys.csv"),
        "id,high_risk,in_use_from,logging_decision\n=HYPER\u{202e}LINK(1),true,2026-01-01,\n",
    )
    .unwrap();
    let sysreg = format!("sysreg={}", place.path("sys.csv").display());
    for format in ["text", "csv", "json"] {
        let out = place.path("all");
        let words =
            ["--pack", "all", "--register", &sysreg, "--format", format, "--out", out.to_str().unwrap()];
        assert_eq!(place.run("assess", &words).unwrap(), 1);
        let text = std::fs::read_to_string(&out).unwrap();
        let lower = text.to_lowercase();
        for word in ["compliant", "compliance with", "in compliance", "tamper-proof"] {
            assert!(!lower.contains(word), "{format}: {word}");
        }
        assert!(!text.contains('\u{202e}'), "{format}");
        let wanted: &[&str] = match format {
            "text" => &[
                "[met by evidence] cc6.1-callers",
                "[not judged] 44-transfers",
                "text not read: look at it",
                "id==HYPER\\u{202e}LINK(1)",
            ],
            "csv" => &["pack,pack_sha256,control", "not judged", "secondary"],
            _ => &["\"not_judged\"", "\"cannot_show\""],
        };
        for wanted in wanted {
            assert!(text.contains(wanted), "{format}: {wanted} not in\n{text}");
        }
    }
    for words in [&["list"][..], &["show", "gdpr"], &["facts"], &["schema"], &["check", "gdpr"]] {
        assert_eq!(pack(words).unwrap(), 0, "{words:?}");
    }
}

/// A log with a policy, and an exchange whose verdict is what the policy gives, or another.
fn policed(forge: impl Fn(&mut schemas::record::Verdict)) -> Writer {
    use schemas::record::*;
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let rules =
        b"mode: enforce\ndefault: deny\nrules:\n- {id: quality, effect: allow, when: {team: quality}}\n";
    let policy = writer.reference(rules, "application/yaml");
    let next = writer.reference(b"{\"policy\":\"quality\"}", "application/json");
    let (reason, price_book) = (ConfigReason::Reload, None);
    writer.push(Body::Config(Config { next, reason, policy: Some(policy), price_book }));
    writer.config = next;
    for n in 1..4 {
        let id = |text: &str| schemas::Identifier::new(text).unwrap();
        let facts = [("decided_by".to_owned(), id("quality"))].into();
        let rules = vec![id("quality")];
        let mut verdict = Verdict { decision: Decision::Allow, policy, rules, rule_count: None, facts };
        if n == 2 {
            forge(&mut verdict);
        }
        let position =
            writer.push(Body::Intent(Intent { verdict: Some(verdict), ..Writer::intent_of(exchange_id(n)) }));
        let usage = Usage::of(UsageSource::NotApplicable, UsageRole::None);
        let outcome = writer.outcome_of(exchange_id(n), position, None, vec![], usage);
        writer.push(Body::Outcome(outcome));
    }
    writer.now += 2 * SECOND;
    writer.close();
    writer
}

/// A log whose exchange went to a second target, with a verdict on that, and what of the second target is known.
fn tried_again(forge: impl Fn(&mut schemas::record::Verdict), model: Option<&str>) -> Writer {
    use schemas::record::*;
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let rules = b"mode: enforce\ndefault: allow\n";
    let policy = writer.reference(rules, "application/yaml");
    let next = writer.reference(b"{\"policy\":\"all\"}", "application/json");
    let (reason, price_book) = (ConfigReason::Reload, None);
    writer.push(Body::Config(Config { next, reason, policy: Some(policy), price_book }));
    writer.config = next;
    let id = |text: &str| schemas::Identifier::new(text).unwrap();
    let verdict = |sent_model: Option<&str>| {
        policies::policy::Policy::parse(rules).unwrap().evaluate(&policies::policy::Facts {
            model: Some("gpt-4o"),
            sent_model,
            ..policies::policy::Facts::default()
        })
    };
    let asked = Asked { sent_model: Some(id("gpt-4o-2026")), ..Writer::asked() };
    let exchange = exchange_id(7);
    let position = writer.push(Body::Intent(Intent {
        asked: asked.clone(),
        verdict: Some(verdict(Some("gpt-4o-2026"))),
        ..Writer::intent_of(exchange.clone())
    }));
    let first = asked.dispatched(&id("first"));
    let attempt = |number: u64, phase: &str, target: &str, provider: &str, model: Option<&str>| Attempt {
        intent_position: position,
        phase: id(phase),
        provider: Some(id(provider)),
        dialect: Some(id("openai")),
        model: model.map(id),
        ..Attempt::new(exchange.clone(), AttemptNumber::new(number).unwrap(), id(target), id("fallback"))
    };
    let failed = attempt(0, "end", first.target.as_str(), "openai", Some("gpt-4o-2026"));
    writer.push(Body::Attempt(Attempt {
        reason: id("status"),
        end: Some(End::GatewayAbort),
        usage: Some(Usage::of(UsageSource::Unknown, UsageRole::Incurred)),
        ..failed
    }));
    let mut second = attempt(1, "open", "second", "other", model);
    let mut judged = verdict(model);
    forge(&mut judged);
    second.verdict = Some(judged);
    let served = second.served();
    writer.push(Body::Attempt(second));
    let usage = Usage::of(UsageSource::NotApplicable, UsageRole::None);
    let outcome = writer.outcome_of(exchange, position, None, vec![], usage);
    writer.push(Body::Outcome(Outcome { asked, served: Some(served), ..outcome }));
    writer.now += 2 * SECOND;
    writer.close();
    writer
}

#[test]
fn a_verdict_on_a_second_target_that_a_signed_log_tells_wrongly_is_found_by_its_attempt() {
    use schemas::record::Decision;
    let sound = Place::new(&tried_again(|_| (), Some("large-2")));
    let reperformed = |place: &Place| -> (u8, serde_json::Value) {
        let out = place.path("answer.json");
        let code = place.run("reperform", &["--format", "json", "--out", out.to_str().unwrap()]).unwrap();
        (code, serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap())
    };
    let (code, found) = reperformed(&sound);
    assert_eq!((code, &found["same"]), (0, &2.into()), "{found:#}");
    let place = Place::new(&tried_again(|verdict| verdict.decision = Decision::WouldDeny, Some("large-2")));
    let (code, found) = reperformed(&place);
    assert_eq!((code, &found["same"], &found["different"]), (1, &1.into(), &1.into()), "{found:#}");
    let difference = &found["exchanges"][0];
    assert_eq!((&difference["attempt"], &difference["change"]), (&1.into(), &"decision_differs".into()));
    let policy = sound.path("new.yaml");
    std::fs::write(
        &policy,
        "mode: enforce\ndefault: allow\nrules:\n- {id: no-other, effect: deny, providers: other}\n",
    )
    .unwrap();
    let out = sound.path("answer.csv");
    let words = ["--policy", policy.to_str().unwrap(), "--format", "csv", "--out", out.to_str().unwrap()];
    assert_eq!(sound.run("reperform", &words).unwrap(), 1);
    let text = std::fs::read_to_string(out).unwrap();
    assert!(
        text.lines().count() == 2 && text.contains("would_be_denied") && text.ends_with(",1\n"),
        "{text}"
    );
}

#[test]
fn an_exchange_is_said_to_be_of_the_model_of_the_attempt_that_served() {
    let model = |sent: Option<&str>| {
        let place = Place::new(&tried_again(|_| (), sent));
        place.ask("query", "csv", &["SELECT provider, model FROM exchanges"])
    };
    assert_eq!(model(Some("large-2")), "provider,model\nother,large-2\n");
    // What the first target was sent went nowhere else.
    assert_eq!(model(None), "provider,model\nother,gpt-4o\n");
}

#[test]
fn a_verdict_that_a_signed_log_tells_wrongly_is_found_by_its_exchange() {
    use schemas::record::Decision;
    let sound = Place::new(&policed(|_| ()));
    assert_eq!(sound.run("reperform", &[]).unwrap(), 0);
    assert_eq!(sound.run("reperform", &[]).unwrap(), 0, "from the cache too");
    let place = Place::new(&policed(|verdict| verdict.decision = Decision::WouldDeny));
    let out = place.path("answer.json");
    let words = ["--format", "json", "--out", out.to_str().unwrap()];
    assert_eq!(place.run("reperform", &words).unwrap(), 1);
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&found["verdict"], &found["same"]), (&"VERIFIED".into(), &2.into()), "{found:#}");
    let difference = &found["exchanges"][0];
    assert_eq!(difference["change"], "decision_differs");
    assert_eq!(difference["exchange"], exchange_id(2).to_string());
    // Without a policy there is nothing to judge, and that is no pass.
    assert_eq!(Place::new(&small()).run("reperform", &[]).unwrap(), 2);
}
