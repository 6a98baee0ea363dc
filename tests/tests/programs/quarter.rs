//! A synthetic quarter: every control of every pack finds what was planted for it, and nothing else. The short round has some
//! thousand exchanges, the long one a million (`AFFIDAVIT_EXCHANGES` says another number); both print times and memory.

#![allow(clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::quarter::{Answer, Answers, Plan, Quarter};

/// An auditor's run: exit code, what it printed, how long it took and the most memory that it held, MiB.
struct Ran {
    exit: i32,
    text: String,
    took: Duration,
    peak: u64,
}

impl Ran {
    fn say(&self, what: &str) {
        println!("{what}: {:.1} s, {} MiB at most", self.took.as_secs_f64(), self.peak);
    }
}

/// From when to when.
type Interval<'a> = (&'a str, &'a str);

const QUARTER: Interval<'_> = ("2026-07-01", "2026-10-01");

/// A quarter with an auditor's state.
struct Case {
    quarter: Quarter,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(plan: Plan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let quarter = Quarter::make(folder.path(), plan);
        println!(
            "{} exchanges, {} records, {} MB in the store, made in {:.1} s",
            plan.exchanges,
            quarter.records,
            quarter.bytes / 1_000_000,
            quarter.took.as_secs_f64()
        );
        Self { quarter, folder }
    }

    /// Runs the auditor over the store.
    fn auditor(&self, command: &str, (from, to): Interval<'_>, more: &[String]) -> Ran {
        let out = self.folder.path().join("out");
        let began = Instant::now();
        let mut child = Command::new(tests::binary("auditor"))
            .arg(command)
            .arg(&self.quarter.store)
            .arg("--trust")
            .arg(&self.quarter.trust)
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .args(["--from", from, "--to", to])
            .args(more)
            .stdout(std::fs::File::create(&out).expect("a file"))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the auditor's binary");
        let mut peak = 0;
        let exit = loop {
            peak = resident(child.id()).unwrap_or(peak);
            match child.try_wait().expect("a child") {
                Some(status) => break status.code().unwrap_or(-1),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let text = std::fs::read_to_string(&out).expect("what it printed");
        Ran { exit, text, took: began.elapsed(), peak }
    }

    /// Assesses packs; gives the assessment, and the exceptions by control.
    fn assess(&self, what: &str, interval: Interval<'_>, packs: &[&str]) -> (i32, Value, Found) {
        let list = self.folder.path().join("exceptions.jsonl");
        let mut words: Vec<String> = ["--format", "json", "--exceptions"].map(str::to_owned).to_vec();
        words.push(path(&list));
        words.extend(packs.iter().flat_map(|pack| ["--pack".to_owned(), (*pack).to_owned()]));
        // One that no pack asks for is refused.
        let asked: String = packs.iter().filter(|pack| **pack != "all").map(|pack| text_of(pack)).collect();
        let wanted = |name: &str| asked.is_empty() || asked.contains(&format!("\n  {name}:\n"));
        for (name, file) in self.quarter.registers.iter().filter(|(name, _)| wanted(name)) {
            words.extend(["--register".to_owned(), format!("{name}={}", path(file))]);
        }
        let ran = self.auditor("assess", interval, &words);
        ran.say(what);
        let assessment = serde_json::from_str(&ran.text).expect("an assessment");
        (ran.exit, assessment, Found::read(&list))
    }
}

/// The exceptions of each control: a row by its columns.
#[derive(Default)]
struct Found(BTreeMap<String, Vec<BTreeMap<String, String>>>);

impl Found {
    fn read(list: &Path) -> Self {
        let mut out = Self::default();
        for line in std::fs::read_to_string(list).expect("the list of exceptions").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let row = line["row"].as_object().expect("a row");
            let row = row.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            let control = format!("{}/{}", text(&line["pack"]), text(&line["control"]));
            out.0.entry(control).or_default().push(row);
        }
        out
    }

    /// As the planted ones are told: by the column that tells them apart.
    fn answers(&self, wanted: &Answers) -> Answers {
        let answer = |(control, rows): (&String, &Vec<BTreeMap<String, String>>)| {
            let column = wanted.get(control).map_or("exchange", |wanted| &wanted.column).to_owned();
            let mut values: Vec<String> =
                rows.iter().map(|row| row.get(&column).cloned().unwrap_or_default()).collect();
            values.sort();
            (control.clone(), Answer { column, values })
        };
        self.0.iter().map(answer).collect()
    }
}

/// A pack as it is written.
fn text_of(pack: &str) -> String {
    std::fs::read_to_string(tests::root().join(format!("policies/packs/{pack}.yaml"))).expect("a pack")
}

fn path(path: &Path) -> String {
    PathBuf::from(path).into_os_string().into_string().expect("a path of UTF-8")
}

/// The most that a process held so far, MiB.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib >> 10)
}

/// What differs, control by control.
fn differences(found: &Answers, wanted: &Answers) -> Vec<String> {
    let controls: std::collections::BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let nothing = Answer::default();
    let of = |answers: &Answers, control: &String| answers.get(control).unwrap_or(&nothing).values.clone();
    controls
        .into_iter()
        .filter(|control| of(found, control) != of(wanted, control))
        .map(|control| {
            let (found, wanted) = (of(found, control), of(wanted, control));
            let some = |values: &[String]| values.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            format!(
                "{control}: {} found ({}), {} planted ({})",
                found.len(),
                some(&found),
                wanted.len(),
                some(&wanted)
            )
        })
        .collect()
}

/// The controls of an assessment by their status.
fn of_status<'a>(assessment: &'a Value, status: &str) -> Vec<&'a Value> {
    let packs = assessment["packs"].as_array().expect("packs").iter();
    let controls = packs.flat_map(|pack| pack["controls"].as_array().expect("controls"));
    controls.filter(|control| control["status"] == status).collect()
}

/// Controls that no folder can be asked: they need a bucket's versions, or the key table.
fn cannot_be_asked(control: &Value) -> bool {
    let why = control["why"].as_str().unwrap_or_default();
    why.contains("folder") || control["id"] == "17-keys"
}

#[test]
fn every_planted_violation_is_found_by_its_controls_and_none_is_invented() {
    let exchanges = std::env::var("AFFIDAVIT_EXCHANGES").ok().and_then(|text| text.parse().ok());
    let plan = match tests::long_round() {
        true => Plan { exchanges: exchanges.unwrap_or(1_000_000), each: 50, seed: 3 },
        false => Plan { exchanges: exchanges.unwrap_or(6_000), each: 3, seed: 3 },
    };
    let case = Case::new(plan);
    let verified = case.auditor("verify", QUARTER, &[]);
    verified.say("verify");
    assert!(verified.text.contains("BACKDATED"), "{}", verified.text);
    let (exit, assessment, found) = case.assess("first assess, all packs", QUARTER, &["all"]);
    assert_eq!(exit, 1);
    let wanted = &case.quarter.answers;
    let found = found.answers(wanted);
    assert_eq!(differences(&found, wanted), Vec::<String>::new());
    let planted: usize = wanted.values().map(|answer| answer.values.len()).sum();
    println!("{planted} exceptions of {} controls, all of them planted", wanted.len());
    assert_eq!(of_status(&assessment, "exceptions").len(), wanted.len());
    let (_, again, _) = case.assess("second assess, all packs", QUARTER, &["all"]);
    assert_eq!(again["counts"], assessment["counts"]);
    if tests::long_round() {
        for pack in assessment["packs"].as_array().expect("packs") {
            let name = pack["name"].as_str().expect("a name");
            case.assess(&format!("assess {name}"), QUARTER, &[name]);
        }
    }
}

#[test]
fn the_months_together_show_what_the_quarter_shows() {
    let case = Case::new(Plan { exchanges: 1_500, each: 2, seed: 5 });
    let wanted = &case.quarter.answers;
    let (_, _, whole) = case.assess("assess of the quarter", QUARTER, &["all"]);
    let mut whole = whole.answers(wanted);
    assert_eq!(differences(&whole, wanted), Vec::<String>::new());
    let mut months = Answers::new();
    for interval in [("2026-07-01", "2026-08-01"), ("2026-08-01", "2026-09-01"), ("2026-09-01", "2026-10-01")]
    {
        let (_, _, found) = case.assess(&format!("assess from {}", interval.0), interval, &["all"]);
        for (control, answer) in found.answers(wanted) {
            let all = months.entry(control).or_default();
            all.column = answer.column;
            all.values.extend(answer.values);
        }
    }
    // What lasts is told in each month that it is in.
    for answer in whole.values_mut().chain(months.values_mut()) {
        answer.values.sort();
        answer.values.dedup();
    }
    assert_eq!(differences(&months, &whole), Vec::<String>::new());
}

#[test]
fn a_quarter_in_which_nothing_was_planted_has_no_exceptions_but_what_a_folder_cannot_claim() {
    let case = Case::new(Plan { exchanges: 1_500, each: 0, seed: 4 });
    let (exit, assessment, found) = case.assess("assess, all packs", QUARTER, &["all"]);
    assert_eq!((exit, &assessment["verdict"]), (1, &"VERIFIED".into()), "{:#}", assessment["findings"]);
    assert_eq!(
        differences(&found.answers(&case.quarter.answers), &case.quarter.answers),
        Vec::<String>::new()
    );
    for control in of_status(&assessment, "not_judged") {
        let empty = control["population"] == 0;
        assert!(cannot_be_asked(control) || empty, "{control:#}");
    }
}
