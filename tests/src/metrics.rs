//! What processes show of themselves, held against `deploy/METRICS.md`.

use std::collections::{BTreeMap, BTreeSet};

/// One metric: its type and the names of its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Label names, without the histogram's own.
    pub labels: BTreeSet<String>,
}

/// Metrics by their full name: a counter's ends in `_total`.
pub type Shapes = BTreeMap<String, Shape>;

/// What an OpenMetrics text shows.
///
/// # Panics
/// Where a metric has no help, or a line belongs to none.
pub fn shown(text: &str) -> Shapes {
    let text = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    assert!(text.ends_with("# EOF\n"), "the text is not whole:\n{text}");
    let mut shapes = Shapes::new();
    let (mut family, mut full, mut help) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help).to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            family = name.to_owned();
            full = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            assert!(help.len() > 3, "{full} has no help");
            shapes.entry(full.clone()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line} is not of {family}");
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(l, _)| l);
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            let shape = shapes.entry(full.clone()).or_default();
            shape.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    shapes
}

/// What the tables of `deploy/METRICS.md` say, by the heading that they stand under.
///
/// # Panics
/// Where it cannot be read, or names a metric twice.
pub fn documented() -> BTreeMap<String, Shapes> {
    let path = crate::root().join("deploy/METRICS.md");
    let text = std::fs::read_to_string(path).expect("the table of metrics");
    let mut tables: BTreeMap<String, Shapes> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(found) = line.strip_prefix("## ") {
            heading = found.to_lowercase();
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, ..] = cells.as_slice() else { panic!("a row: {line}") };
        assert!(!meaning.is_empty(), "{line}");
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let shape = Shape { kind: (*kind).to_owned(), labels };
        let name = name.trim_end_matches('`').to_owned();
        let before = tables.entry(heading.clone()).or_default().insert(name, shape);
        assert_eq!(before, None, "twice: {line}");
    }
    tables
}

/// The text in the form before OpenMetrics, which `promtool check metrics` reads: the names of counters are whole there.
pub fn classic(text: &str) -> String {
    let text = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    let mut counters = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.insert(name);
        }
    }
    let mut classic = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF") {
        let head = ["# HELP ", "# TYPE "].into_iter().find_map(|what| Some((what, line.strip_prefix(what)?)));
        match head.and_then(|(what, rest)| Some((what, rest.split_once(' ')?))) {
            Some((what, (name, rest))) if counters.contains(name) => {
                classic += &format!("{what}{name}_total {rest}\n");
            }
            _ => classic += &format!("{line}\n"),
        }
    }
    classic
}
