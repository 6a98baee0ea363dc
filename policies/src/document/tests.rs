use super::*;
use proptest::prelude::*;

#[test]
fn every_value_knows_its_line_and_column() {
    let root = parse("a: 1\nb:\n  - x\n  - 'on'\n").unwrap();
    let Shape::Map(entries) = &root.shape else { unreachable!() };
    assert_eq!(entries[0].value.place, Place { line: 1, column: 4 });
    let Shape::List(items) = &entries[1].value.shape else { unreachable!() };
    assert_eq!(items[1].place, Place { line: 4, column: 5 });
    assert_eq!(items[1].shape, Shape::Scalar { text: "on".into(), plain: false });
}

#[test]
fn scalars_keep_the_text_that_was_typed() {
    let root = parse("[0123, 1.10, off, 1_000, ~, '~']").unwrap();
    let mut problems = Vec::new();
    let found: Vec<String> = texts(&root, "", &mut problems).into_iter().map(|(text, _)| text).collect();
    assert_eq!(found, ["0123", "1.10", "off", "1_000", "~"]);
    assert_eq!(problems.len(), 1);
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let problems = parse("a: 1\na: 2\nb: &x 3\nc: *x\nd: !tag 4\n").unwrap_err();
    let lines: Vec<u64> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 3, 4, 5], "{problems:?}");
}

#[test]
fn broken_yaml_names_its_place() {
    let problems = parse("a: [1\nb: 2\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].line >= 1 && problems[0].wanted.starts_with("valid YAML"), "{problems:?}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_told_without_a_panic(text in "[ -~\n\té]{0,80}|([a-z]{1,3}: ?|- |[\\[\\]{},&*!|>#'\"%@`]|\n *|[a-z0-9]{1,3}){0,40}") {
        match parse(&text) {
            Ok(root) => {
                let mut problems = Vec::new();
                let mut fields = Fields::new(&root, "", &mut problems);
                fields.texts("a");
                fields.items("b");
                fields.finish();
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    assert!(parse(&deep).unwrap_err()[0].wanted.contains("levels"));
}

#[test]
fn an_unknown_key_gets_the_known_one_that_looks_like_it() {
    let root = parse("heartbaet: 5m\nzzz: 1\n").unwrap();
    let mut problems = Vec::new();
    let mut fields = Fields::new(&root, "evidence", &mut problems);
    assert!(fields.optional("heartbeat", "a duration", |text| Some(text.to_owned())).is_none());
    fields.finish();
    assert_eq!(
        problems[0].to_string(),
        "1:1: `evidence.heartbaet`: wanted a known key: heartbeat (did you mean `heartbeat`?)"
    );
    assert_eq!(problems[1].suggestion, None);
}

#[test]
fn a_problem_names_file_place_key_value_and_form() {
    let root = parse("age: soon").unwrap();
    let mut problems = Vec::new();
    Fields::new(&root, "", &mut problems)
        .optional("age", "a duration as `10s`", |text| text.parse::<u64>().ok());
    assert_eq!(
        problems.remove(0).in_file("gateway.yaml").to_string(),
        "gateway.yaml:1:6: `age`: found `soon`, wanted a duration as `10s`"
    );
}
