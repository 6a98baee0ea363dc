//! From text to the tree.

use granit_parser::{Event, Parser, ScalarStyle};

use super::{Entry, Node, Place, Problem, Shape};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// The most nodes that are read: a file that is larger is not one of ours.
const MAX_NODES: usize = 2_000_000;

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
