//! YAML read into a tree that knows its places, and a reader that collects every problem instead of the first.
//!
//! Scalars keep the text that was typed, so that `0123`, `1.10` and `off` mean what they say; anchors, aliases
//! and tags are refused, for a reviewer reads the file as it stands.

use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// The most nodes that are read: a file that is larger is not one of ours.
const MAX_NODES: usize = 2_000_000;

/// Something in a file that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, where the reader was told.
    pub file: Option<String>,
    /// Line, from 1; 0 where the problem has no place in the file.
    pub line: u64,
    /// Column, from 1; 0 where the problem has no place in the file.
    pub column: u64,
    /// The key, as a path: `routes[0].provider`.
    pub key: String,
    /// The value found, where there is one and it is no secret.
    pub value: Option<String>,
    /// What was wanted instead.
    pub wanted: String,
    /// A known name that looks like the one found.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: Place, key: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            file: None,
            line: place.line,
            column: place.column,
            key: key.into(),
            value: None,
            wanted: wanted.into(),
            suggestion: None,
        }
    }
    /// A problem without a place.
    pub fn general(key: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::at(Place::default(), key, wanted)
    }
    /// With the value found, cut to 120 characters.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        let value: String = value.into();
        self.value = Some(if value.chars().count() > 120 {
            value.chars().take(119).chain(['…']).collect()
        } else {
            value
        });
        self
    }
    /// With a suggestion from the names known here.
    #[must_use]
    pub fn suggest<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = closest(found, known);
        self
    }
    /// With the file that it is in.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.file.is_some() || self.line > 0 {
            write!(f, " ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        match &self.value {
            Some(value) => write!(f, "found `{}`, wanted {}", value.escape_debug(), self.wanted)?,
            None => write!(f, "wanted {}", self.wanted)?,
        }
        match &self.suggestion {
            Some(name) => write!(f, " (did you mean `{name}`?)"),
            None => Ok(()),
        }
    }
}

/// The known name that is nearest to `found`, where one is near enough to be meant.
pub fn closest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// Line and column, both from 1; 0 is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Self { line: span.start.line() as u64, column: span.start.col() as u64 + 1 }
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Text, as typed.
    Scalar {
        /// The text, after YAML's own escapes.
        text: String,
        /// True where it stood without quotes: only such can be a number, a truth value or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order of the file.
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// What it is, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.shape {
            Shape::Scalar { .. } if self.is_empty() => "nothing",
            Shape::Scalar { .. } => "a value",
            Shape::List(_) => "a list",
            Shape::Map(_) => "keys with values",
        }
    }
    /// True for `key:` with nothing behind it, `~` and `null`.
    pub fn is_empty(&self) -> bool {
        matches!(&self.shape, Shape::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
    /// Its text, where it is a scalar and not empty.
    pub fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar { text, .. } if !self.is_empty() => Some(text),
            _ => None,
        }
    }
    fn found(&self) -> String {
        self.text().unwrap_or(self.describe()).to_owned()
    }
}

/// Reads one YAML document.
///
/// # Errors
/// Broken YAML (one problem, the parser stops there), or duplicate keys, anchors, aliases, tags and a second
/// document (all of them).
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder { parser: Parser::new_from_str(text), problems: Vec::new(), nodes: 0 };
    let root = builder.document();
    match root {
        Ok(root) if builder.problems.is_empty() => Ok(root),
        Ok(_) => Err(builder.problems),
        Err(problem) => {
            builder.problems.push(*problem);
            Err(builder.problems)
        }
    }
}

type Told<T> = Result<T, Box<Problem>>;

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    problems: Vec<Problem>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Told<(Event<'a>, Place)> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Place::default())),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, span.into())),
                Some(Err(error)) => {
                    let marker = error.marker();
                    let place = Place { line: marker.line() as u64, column: marker.col() as u64 + 1 };
                    return Err(Box::new(Problem::at(place, "", format!("valid YAML: {}", error.info()))));
                }
            }
        }
    }

    fn document(&mut self) -> Told<Node> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Box::new(Problem::at(
                        place,
                        "",
                        "one YAML document, not a second one after `---`",
                    )));
                }
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_) => {
                    root = Some(self.node(event, place, 0)?);
                }
                _ => {}
            }
        }
        let empty = Shape::Scalar { text: String::new(), plain: true };
        Ok(root.unwrap_or(Node { place: Place { line: 1, column: 1 }, shape: empty }))
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Told<Node> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err(Box::new(Problem::at(place, "", format!("at most {MAX_DEPTH} levels of nesting"))));
        }
        if self.nodes > MAX_NODES {
            return Err(Box::new(Problem::at(place, "", format!("at most {MAX_NODES} values in one file"))));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place);
                let plain = style == ScalarStyle::Plain;
                Ok(Node { place, shape: Shape::Scalar { text: text.into_owned(), plain } })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place);
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        return Ok(Node { place, shape: Shape::List(items) });
                    }
                    items.push(self.node(event, at, depth + 1)?);
                }
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place);
                self.map(place, depth)
            }
            Event::Alias(_) => {
                self.problems.push(Problem::at(place, "", "the value written out, not a YAML alias `*name`"));
                Ok(Node { place, shape: Shape::Scalar { text: String::new(), plain: false } })
            }
            _ => Err(Box::new(Problem::at(place, "", "a value"))),
        }
    }

    fn map(&mut self, place: Place, depth: usize) -> Told<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::BTreeMap::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Node { place, shape: Shape::Map(entries) });
            }
            let key = self.node(event, at, depth + 1)?;
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            let Shape::Scalar { text, .. } = key.shape else {
                self.problems.push(Problem::at(at, "", "a key of text"));
                continue;
            };
            if let Some(first) = seen.insert(text.clone(), at.line) {
                let wanted = format!("each key once; it stands at line {first} already");
                self.problems.push(Problem::at(at, text, wanted));
                continue;
            }
            entries.push(Entry { key: text, place: at, value });
        }
    }

    fn refuse_extras(&mut self, anchor: usize, tagged: bool, place: Place) {
        if anchor != 0 {
            self.problems.push(Problem::at(place, "", "no YAML anchor (`&name`)"));
        }
        if tagged {
            self.problems.push(Problem::at(place, "", "no YAML tag (`!name`)"));
        }
    }
}

/// Reads the keys of one map, collects problems, and knows which keys nobody asked for.
///
/// Ask for every key that is known, then call [`Fields::finish`].
pub struct Fields<'a, 'p> {
    entries: &'a [Entry],
    place: Place,
    path: String,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Reads `node`, found at `path`, as keys with values; anything else is one problem and has no keys.
    pub fn new(node: &'a Node, path: impl Into<String>, problems: &'p mut Vec<Problem>) -> Self {
        let path = path.into();
        let entries: &[Entry] = match &node.shape {
            Shape::Map(entries) => entries,
            _ if node.is_empty() => &[],
            _ => {
                problems.push(Problem::at(node.place, &path, "keys with values").value(node.found()));
                &[]
            }
        };
        Self { entries, place: node.place, path, known: Vec::new(), problems }
    }

    /// The path of `key` in here.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where this map begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Adds a problem.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// All problems so far, to hand to a reader of a part.
    pub fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }

    /// The keys in here, whoever asked for them.
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// The value of `key`, which is known from now on; an empty one counts as absent.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
            .filter(|node| !node.is_empty())
    }

    /// Where the value of `key` stands, else where the map begins.
    pub fn place_of(&self, key: &str) -> Place {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| entry.value.place)
    }

    /// The value of `key`; a problem where it is absent.
    pub fn required_node(&mut self, key: &'static str, wanted: &str) -> Option<&'a Node> {
        let found = self.node(key);
        if found.is_none() {
            self.problems.push(Problem::at(
                self.place,
                self.path(key),
                format!("{wanted}; the key is missing"),
            ));
        }
        found
    }

    /// The value of `key`, read by `parse`; `wanted` says what `parse` takes.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        self.scalar(node, key, wanted, parse)
    }

    /// Like [`Fields::optional`]; a problem where the key is absent.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.required_node(key, wanted)?;
        self.scalar(node, key, wanted, parse)
    }

    fn scalar<T>(
        &mut self,
        node: &Node,
        key: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = node.text().and_then(parse);
        if value.is_none() {
            self.problems.push(Problem::at(node.place, self.path(key), wanted).value(node.found()));
        }
        value
    }

    /// `true` or `false`.
    pub fn truth(&mut self, key: &'static str) -> Option<bool> {
        self.optional(key, "`true` or `false`", |text| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// One of the names of a closed list; an unknown one gets a suggestion.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let node = self.node(key)?;
        let found = node.text().and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            let text = node.found();
            self.problems.push(
                Problem::at(node.place, self.path(key), format!("one of {}", names.join(", ")))
                    .value(text.clone())
                    .suggest(&text, choices.iter().map(|(name, _)| *name)),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// A list of values, or one value alone.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<(String, Place)>> {
        let node = self.node(key)?;
        let path = self.path(key);
        Some(texts(node, &path, self.problems))
    }

    /// The items of a list.
    pub fn items(&mut self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.node(key)?;
        if let Shape::List(items) = &node.shape {
            return Some(items);
        }
        self.problems.push(Problem::at(node.place, self.path(key), "a list").value(node.found()));
        None
    }

    /// Reports every key that nobody asked for, with the known key that looks like it.
    pub fn finish(self) {
        for entry in self.entries {
            if !self.known.contains(&entry.key.as_str()) {
                let mut known = self.known.clone();
                known.sort_unstable();
                let wanted = format!("a known key: {}", known.join(", "));
                let problem = Problem::at(entry.place, self.path(&entry.key), wanted)
                    .suggest(&entry.key, self.known.iter().copied());
                self.problems.push(problem);
            }
        }
    }
}

/// The texts of a list node, or of one value alone.
pub fn texts(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Vec<(String, Place)> {
    let one = std::slice::from_ref(node);
    let items: &[Node] = if let Shape::List(items) = &node.shape { items } else { one };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        match item.text() {
            Some(text) => out.push((text.to_owned(), item.place)),
            None => problems
                .push(Problem::at(item.place, path, "a value, or a list of values").value(item.found())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
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
}
