//! The plan on paper for a large installation: its tables are what its script computes, from what the README says was measured.

use std::process::{Command, Output};

fn scale(arguments: &[&str]) -> Output {
    let python = std::env::var_os("AFFIDAVIT_PYTHON").unwrap_or_else(|| "python3".into());
    let script = tests::root().join("tests/bench/scale.py");
    Command::new(python).arg(script).args(arguments).current_dir(tests::root()).output().expect("python")
}

#[test]
fn the_plan_quotes_the_tables_that_its_script_computes() {
    let output = scale(&["--check", "deploy/SCALE.md"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_figure_that_was_changed_in_the_plan_is_seen() {
    let text = std::fs::read_to_string(tests::root().join("deploy/SCALE.md")).expect("the plan");
    let dir = tempfile::tempdir().expect("a folder");
    let changed = dir.path().join("SCALE.md");
    std::fs::write(&changed, text.replacen(" USD |", "1 USD |", 1)).expect("a copy");
    let output = scale(&["--check", &changed.display().to_string()]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn own_numbers_give_own_tables() {
    let plain = scale(&[]).stdout;
    let twice = scale(&["month=20000000000"]).stdout;
    // Bytes a month grow with the month, whatever was measured.
    let terabytes = |text: &[u8]| -> Vec<f64> {
        let text = String::from_utf8_lossy(text);
        let cells = text
            .lines()
            .filter_map(|line| line.trim_end_matches(" |").strip_suffix(" TB")?.rsplit("| ").next());
        cells.map(|cell| cell.replace(',', "").parse().expect("a number")).collect()
    };
    let (one, two) = (terabytes(&plain), terabytes(&twice));
    assert!(!one.is_empty() && one.len() == two.len(), "{one:?} {two:?}");
    assert!(one.iter().zip(&two).all(|(one, two)| two >= one) && one != two, "{one:?} {two:?}");
    assert!(!scale(&["months=1"]).status.success());
}
