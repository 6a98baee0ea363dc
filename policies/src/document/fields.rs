//! From the tree to values: the reader that collects problems.

use super::{Entry, Node, Place, Problem, Shape};

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
