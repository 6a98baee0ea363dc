//! What a question is asked of: all proven rows of the interval, and the registers that were hashed, or nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::cli::Command;

fn run_in(place: &Place, state: &OsStr, command: &str, more: &[&str]) -> anyhow::Result<u8> {
    let to = time::text(START + 2 * SECOND);
    let mut words: Vec<OsString> = ["auditor", command].map(OsString::from).into();
    words.push(place.path("store").into());
    words.extend(["--trust".into(), place.path("trust.yaml").into()]);
    words.extend(["--state".into(), place.dir.path().join(state).into(), "--to".into(), to.into()]);
    words.extend(more.iter().map(OsString::from));
    crate::commands::run(&Cli::try_parse_from(words)?)
}

fn refused(place: &Place, words: &[&str]) -> String {
    format!("{:#}", place.run("query", words).unwrap_err())
}

#[test]
fn a_state_folder_may_have_any_name_that_is_text() {
    let place = Place::new(&small());
    let out = place.path("answer");
    let words = ["--format", "csv", "--out", out.to_str().unwrap(), KINDS];
    // The first would be read for the second.
    for state in ["st1", "st[1]", "st*", "s?", "a%41 b=c#d"] {
        assert_eq!(run_in(&place, OsStr::new(state), "query", &words).unwrap(), 0);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), KINDS_ARE, "{state}");
    }
    let exchange = exchange_id(1);
    assert_eq!(run_in(&place, OsStr::new("st[1]"), "show", &[exchange.as_str()]).unwrap(), 0);
    let no_text = OsString::from_vec(b"st\xff".to_vec());
    let error = run_in(&place, &no_text, "query", &words).unwrap_err();
    assert!(format!("{error:#}").contains("no UTF-8"), "{error:#}");
}

#[test]
fn a_register_is_the_file_whose_hash_is_told() {
    let place = Place::new(&small());
    for (name, team) in [("r1.csv", "other"), ("r[1].csv", "own"), ("*.csv", "star")] {
        std::fs::write(place.path(name), format!("team\n{team}\n")).unwrap();
    }
    for (name, wanted) in [("r[1].csv", "team\nown\n"), ("*.csv", "team\nstar\n")] {
        let table = format!("teams={}", place.path(name).display());
        let answer = place.ask("query", "csv", &["--table", &table, "SELECT team FROM teams"]);
        assert_eq!(answer, wanted, "{name}");
    }
    let words = ["--table", "teams=teams.txt", "SELECT 1"];
    assert!(refused(&place, &words).contains(".csv"), "{}", refused(&place, &words));
}

#[test]
fn columns_of_one_name_are_refused_where_one_of_them_would_be_lost() {
    let place = Place::new(&small());
    let out = place.path("lost");
    let sql = "SELECT a.origin, b.origin FROM batches a JOIN batches b ON a.batch = b.batch";
    for format in ["jsonl", "parquet"] {
        let said = refused(&place, &["--format", format, "--out", out.to_str().unwrap(), sql]);
        assert!(said.contains("`origin`") && said.contains("AS"), "{said}");
    }
    assert!(!out.exists());
    assert!(place.ask("query", "csv", &[sql]).starts_with("origin,origin\n"));
}

#[test]
fn an_interval_that_ends_before_it_begins_is_refused_with_both_ends() {
    let place = Place::new(&small());
    let from = time::text(START + 10 * SECOND);
    for command in ["verify", "cost"] {
        let said = format!("{:#}", place.run(command, &["--from", &from]).unwrap_err());
        assert!(said.contains(&from) && said.contains(&time::text(START + 2 * SECOND)), "{said}");
    }
}

#[test]
fn memory_is_a_number_within_bounds() {
    let place = Place::new(&small());
    for memory in ["0", "15", "17592186044416", "-1", "many"] {
        let said = refused(&place, &[&format!("--memory={memory}"), "SELECT 1"]);
        assert!(said.contains(&format!("'{memory}'")) && said.contains("16 to 1048576"), "{said}");
    }
    assert_eq!(place.run("query", &["--memory", "16", KINDS]).unwrap(), 0);
}

#[test]
fn what_is_wrong_with_a_question_is_told_in_its_own_words() {
    let place = Place::new(&small());
    for (sql, wanted) in [
        ("SELECT * FROM content", "--content --reason"),
        ("SELECT * FROM recrods", "wanted one of `batches`, `exchanges`, `records`"),
        ("SELECT knid FROM records", "there is no column `knid` (did you mean `kind`?)"),
        ("SELECT count(* FROM records", "Expected"),
    ] {
        let said = refused(&place, &[sql]);
        assert!(said.contains(wanted) && said.len() < 250, "{said}");
        assert!(!said.contains("datafusion") && !said.contains("ParserError("), "{said}");
    }
}

#[test]
fn parts_that_have_no_key_here_are_counted() {
    let place = Place::new(&small());
    let typed = |keys: bool| {
        let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
        let mut words = vec!["auditor".to_owned(), "query".into(), text("store")];
        words.extend(["--trust".into(), text("trust.yaml"), "--state".into(), text("state"), "q".into()]);
        if keys {
            words.extend(["--key-table".into(), text("keys")]);
        }
        Cli::try_parse_from(words).unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (keys, wanted) in [(true, 0), (false, 4)] {
        let cli = typed(keys);
        let Command::Query(query) = &cli.command else { panic!("no question") };
        let opened = crate::commands::evidence::open(&query.evidence).unwrap();
        let (report, _cache) = crate::commands::query::verified(&opened).unwrap();
        let (table, unopened) = crate::content::table(&opened, &report).unwrap();
        let context = datafusion::prelude::SessionContext::new();
        context.register_table("content", table).unwrap();
        let asked = async { context.sql("SELECT text FROM content").await.unwrap().collect().await.unwrap() };
        runtime.block_on(asked);
        assert_eq!(unopened.load(std::sync::atomic::Ordering::Relaxed), wanted);
    }
}

#[test]
fn a_reader_that_goes_away_in_the_middle_is_no_error() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let place = Place::new(&small());
    let pipe = place.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Far more than a pipe holds.
    let sql = "SELECT a.leaf FROM records a, records b, records c, records d";
    for format in ["csv", "jsonl"] {
        let reader = pipe.clone();
        let reader = std::thread::spawn(move || drop(std::fs::File::open(reader).unwrap()));
        let words = ["--format", format, "--out", pipe.to_str().unwrap(), sql];
        assert_eq!(place.run("query", &words).unwrap(), 0, "{format}");
        reader.join().unwrap();
    }
}
