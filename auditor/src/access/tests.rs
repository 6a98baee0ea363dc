#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn why(reason: &str) -> Why {
    Why { reason: Some(reason.into()), reader: None }
}

fn content() -> Content<'static> {
    Content {
        command: "show",
        store: "/evidence".into(),
        exchanges: vec![crate::fixture::exchange_id(1)],
        question: None,
        parts: Some(2),
        bytes: Some(30),
    }
}

fn folder() -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    (dir, state)
}

#[test]
fn what_is_released_is_on_disk_before_with_who_what_and_why() {
    let (_dir, state) = folder();
    release(&state, &why("complaint 17"), &content()).unwrap();
    let asked = Content { command: "query", question: Some("SELECT 1"), exchanges: vec![], ..content() };
    let reader = Why { reader: Some("Ada L.".into()), ..why("again") };
    release(&state, &reader, &asked).unwrap().rows(&state, 7).unwrap();
    let entries = Ledger::new(&state).entries().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        (entries[0].reason.as_str(), entries[0].parts, entries[0].exchange_count),
        ("complaint 17", Some(2), Some(1))
    );
    assert_eq!(entries[0].reader, entries[0].user);
    assert_eq!(
        (entries[1].reader.as_str(), entries[1].question),
        ("Ada L.", Some(Sha256Hex::of(b"SELECT 1")))
    );
    assert_eq!((entries[2].rows, entries[2].of), (Some(7), Some(1)));
}

#[test]
fn without_a_sound_reason_nothing_is_released_and_the_error_says_what_to_type() {
    let (_dir, state) = folder();
    let refused = release(&state, &Why::default(), &content()).unwrap_err().to_string();
    assert!(refused.contains("--reason TEXT"), "{refused}");
    for reason in ["", "   ", "a\nb", &"x".repeat(501)] {
        assert!(release(&state, &why(reason), &content()).is_err(), "{reason:?}");
    }
    let reader = Why { reader: Some("a\u{1b}b".into()), ..why("sound") };
    assert!(release(&state, &reader, &content()).is_err());
    assert_eq!(Ledger::new(&state).entries().unwrap(), []);
}

#[test]
fn a_line_that_is_changed_removed_added_or_cut_off_is_found_and_stops_further_release() {
    let (dir, state) = folder();
    for reason in ["one", "two", "three"] {
        release(&state, &why(reason), &content()).unwrap();
    }
    let path = dir.path().join("access.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let changed = whole.replace("two", "TWO");
    let spoiled = [
        changed.as_str(),
        &lines[..2].concat(),
        &[lines[0], lines[2]].concat(),
        &[lines[1], lines[0], lines[2]].concat(),
        &[&whole, lines[2]].concat(),
        &whole[..whole.len() - 5],
        "",
    ];
    for text in spoiled {
        std::fs::write(&path, text).unwrap();
        assert!(Ledger::new(&state).entries().is_err(), "{text}");
        assert!(release(&state, &why("four"), &content()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is added to what does not hold");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(Ledger::new(&state).entries().unwrap().len(), 3);
    // The same lines under another state's key are nobody's word.
    let (other, theirs) = folder();
    for name in ["access.jsonl", "access.head"] {
        std::fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
    }
    assert!(Ledger::new(&theirs).entries().is_err());
}

#[test]
fn a_crash_between_the_line_and_its_head_loses_nothing() {
    let (dir, state) = folder();
    release(&state, &why("one"), &content()).unwrap();
    let head = std::fs::read(dir.path().join("access.head")).unwrap();
    release(&state, &why("two"), &content()).unwrap();
    std::fs::write(dir.path().join("access.head"), head).unwrap();
    assert_eq!(Ledger::new(&state).entries().unwrap().len(), 2);
    release(&state, &why("three"), &content()).unwrap();
    assert_eq!(Ledger::new(&state).entries().unwrap().len(), 3);
}

#[test]
fn a_line_that_was_written_by_halves_is_cut_off_and_stops_nothing() {
    let (dir, state) = folder();
    let path = dir.path().join("access.jsonl");
    for (number, torn) in ["{\"n\":0,", "{\"n\":1,\"at", "x"].iter().enumerate() {
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, format!("{before}{torn}")).unwrap();
        assert_eq!(Ledger::new(&state).entries().unwrap().len(), number);
        std::fs::write(&path, format!("{before}{torn}")).unwrap();
        release(&state, &why("after a crash"), &content()).unwrap();
        assert_eq!(Ledger::new(&state).entries().unwrap().len(), number + 1);
    }
}

#[test]
fn a_ledger_whose_files_are_removed_or_that_is_cut_without_its_head_does_not_hold() {
    let (dir, state) = folder();
    assert_eq!(Ledger::new(&state).entries().unwrap(), []);
    let (lines, head) = (dir.path().join("access.jsonl"), dir.path().join("access.head"));
    for reason in ["one", "two"] {
        release(&state, &why(reason), &content()).unwrap();
    }
    let whole = std::fs::read_to_string(&lines).unwrap();
    let first = whole.split_inclusive('\n').next().unwrap();
    std::fs::remove_file(&head).unwrap();
    for left in [Some(first), Some(""), Some(whole.as_str()), None] {
        match left {
            Some(left) => std::fs::write(&lines, left).unwrap(),
            None => std::fs::remove_file(&lines).unwrap(),
        }
        for state in [&state, &State::open(dir.path()).unwrap()] {
            assert!(Ledger::new(state).entries().is_err(), "{left:?}");
            assert!(Ledger::new(state).last().is_err(), "{left:?}");
            assert!(release(state, &why("three"), &content()).is_err(), "{left:?}");
        }
    }
    // Nor do the files of visits have to be there for that.
    std::fs::remove_file(dir.path().join("visits.json")).unwrap();
    assert!(Ledger::new(&State::open(dir.path()).unwrap()).entries().is_err());
}

#[test]
fn a_state_of_an_earlier_version_begins_its_ledger_with_the_first_entry() {
    let (dir, state) = folder();
    let body = serde_json::to_vec(&crate::state::Visits::default()).unwrap();
    let visits = dir.path().join("visits.json");
    state.write_authentic(&visits, "affidavit/auditor/visits/v1", &body).unwrap();
    let head = dir.path().join("access.head");
    std::fs::remove_file(&head).unwrap();
    let state = State::open(dir.path()).unwrap();
    // A visit does not begin it.
    state.remember(&crate::state::Visits::default()).unwrap();
    assert_eq!(Ledger::new(&state).entries().unwrap(), []);
    release(&state, &why("one"), &content()).unwrap();
    state.remember(&crate::state::Visits::default()).unwrap();
    assert_eq!(Ledger::new(&state).entries().unwrap().len(), 1);
    std::fs::remove_file(&head).unwrap();
    assert!(Ledger::new(&state).entries().is_err());
}
