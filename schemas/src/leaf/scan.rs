//! One fast pass over a leaf: it is canonical, keeps CA-8, has only keys that are known, and says this in its columns.
//!
//! The pass takes a leaf or leaves it; why it does not take one is for the slower readers to say. It takes exactly
//! what they take: the tests hold them against each other.

use super::known::{ALL, Kinds, Node, TREE};
use crate::canonical::{MAX_DEPTH, MAX_INTEGER, MAX_STRING, is_leaf_byte};
use crate::columns::{COLUMNS, COUNT, Cell, Cells, ColumnKind, parse_decimal};
use crate::digest::Sha256Hex;
use crate::record::MAX_LEAF_BYTES;

/// Where a column's value stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum CellRef {
    #[default]
    Null,
    /// A string: where in the leaf it begins and ends.
    Text(u16, u16),
    Int(i64),
    Bool(bool),
}

/// What the pass has seen.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The kinds that have all the keys that were seen.
    pub(super) kinds: Kinds,
    /// Whether an object or list without members was seen.
    pub(super) empty: bool,
    pub(super) cells: Box<[CellRef; COUNT]>,
    version: bool,
}

/// What every leaf holds.
pub(super) struct Head<'a> {
    pub(super) at: i64,
    pub(super) config: Sha256Hex,
    pub(super) kind: &'a str,
}

impl Scanned {
    /// What every leaf holds; `None` where this one does not, or is of another version.
    pub(super) fn head<'a>(&self, leaf: &'a [u8]) -> Option<Head<'a>> {
        // The first columns of the table.
        let [CellRef::Text(from, to), CellRef::Int(at @ 0..), CellRef::Text(begin, end), ..] = *self.cells
        else {
            return None;
        };
        let text = |from: u16, to: u16| std::str::from_utf8(leaf.get(from.into()..to.into())?).ok();
        let config = Sha256Hex::parse(text(begin, end)?)?;
        self.version.then_some(Head { at, config, kind: text(from, to)? })
    }
}

/// Makes cells of their places.
pub(super) fn cells<'a>(leaf: &'a [u8], places: &[CellRef; COUNT]) -> Cells<'a> {
    let text =
        |from: u16, to: u16| leaf.get(from.into()..to.into()).and_then(|b| std::str::from_utf8(b).ok());
    let mut cells = [Cell::Null; COUNT];
    for ((cell, place), column) in cells.iter_mut().zip(places).zip(COLUMNS) {
        *cell = match (column.kind, *place) {
            (ColumnKind::Utf8, CellRef::Text(from, to)) => text(from, to).map_or(Cell::Null, Cell::Text),
            (ColumnKind::Decimal, CellRef::Text(from, to)) => {
                text(from, to).and_then(parse_decimal).map_or(Cell::Null, Cell::Decimal)
            }
            (ColumnKind::Int64 | ColumnKind::TimestampUs, CellRef::Int(value)) => Cell::Int(value),
            (ColumnKind::Bool, CellRef::Bool(value)) => Cell::Bool(value),
            _ => Cell::Null,
        };
    }
    cells
}

/// Takes a leaf; `None` where something is wrong with it.
pub(super) fn scan(leaf: &[u8]) -> Option<Scanned> {
    if leaf.len() > MAX_LEAF_BYTES || leaf.first() != Some(&b'{') {
        return None;
    }
    let cells = Box::new([CellRef::Null; COUNT]);
    let mut scanner = Scanner {
        leaf,
        at: 0,
        depth: 0,
        lists: 0,
        scanned: Scanned { kinds: ALL, empty: false, cells, version: false },
    };
    scanner.value(Some(&TREE), None)?;
    (scanner.at == leaf.len()).then_some(scanner.scanned)
}

struct Scanner<'a> {
    leaf: &'a [u8],
    at: usize,
    depth: u32,
    /// Open lists: of what stands in a list only the first item itself can be a column.
    lists: u32,
    scanned: Scanned,
}

static ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = is_leaf_byte(i as u8);
        i += 1;
    }
    table
};

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.leaf.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// A string from its opening quote on: where it stands between its quotes.
    fn string(&mut self) -> Option<(usize, usize)> {
        self.take(b'"')?;
        let from = self.at;
        let rest = &self.leaf[from..];
        let length = rest.iter().position(|byte| !ALLOWED[usize::from(*byte)])?;
        self.at += length;
        self.take(b'"')?;
        (1..=MAX_STRING).contains(&length).then_some((from, from + length))
    }

    fn put(&mut self, column: Option<usize>, cell: CellRef) {
        if let Some(place) = column.and_then(|column| self.scanned.cells.get_mut(column)) {
            *place = cell;
        }
    }

    /// A value; `node` is what is known of the keys below it, `column` the column that it is.
    fn value(&mut self, node: Option<&Node>, column: Option<usize>) -> Option<()> {
        match self.peek()? {
            b'"' => {
                let (from, to) = self.string()?;
                self.put(column, CellRef::Text(u16::try_from(from).ok()?, u16::try_from(to).ok()?));
            }
            b'{' => self.object(node)?,
            b'[' => self.array(node)?,
            b't' => self.word(b"true", column, true)?,
            b'f' => self.word(b"false", column, false)?,
            _ => {
                let value = self.integer()?;
                self.put(column, CellRef::Int(value));
            }
        }
        Some(())
    }

    fn word(&mut self, word: &[u8], column: Option<usize>, value: bool) -> Option<()> {
        if !self.leaf[self.at..].starts_with(word) {
            return None;
        }
        self.at += word.len();
        self.put(column, CellRef::Bool(value));
        Some(())
    }

    fn integer(&mut self) -> Option<i64> {
        let negative = self.take(b'-').is_some();
        let from = self.at;
        let mut value: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
            if value > MAX_INTEGER {
                return None;
            }
        }
        let length = self.at - from;
        if length == 0 || (self.leaf[from] == b'0' && (length > 1 || negative)) {
            return None;
        }
        Some(if negative { -value } else { value })
    }

    fn enter(&mut self) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn object(&mut self, node: Option<&Node>) -> Option<()> {
        self.enter()?;
        let leaf: &'a [u8] = self.leaf;
        let mut last: &[u8] = b"";
        let mut below = node.map(Node::below);
        if self.take(b'}').is_some() {
            self.scanned.empty = true;
        } else {
            loop {
                let (from, to) = self.string()?;
                let key = &leaf[from..to];
                // Keys are ASCII: their order is that of their bytes. No key is empty.
                if key <= last {
                    return None;
                }
                last = key;
                self.take(b':')?;
                let child = below.as_mut().and_then(|below| below.child(key));
                // Below what is unknown nothing is known either.
                self.scanned.kinds &= child.map_or(0, |child| child.kinds);
                let column = child.and_then(|child| child.column).filter(|_| self.lists == 0);
                let begin = self.at;
                self.value(child, column)?;
                if self.depth == 1 && key == b"v" {
                    self.scanned.version = leaf[begin..self.at] == *b"1";
                }
                if self.take(b',').is_none() {
                    self.take(b'}')?;
                    break;
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn array(&mut self, node: Option<&Node>) -> Option<()> {
        self.enter()?;
        if self.take(b']').is_some() {
            self.scanned.empty = true;
        } else {
            let mut first = node.and_then(|node| node.first).filter(|_| self.lists == 0);
            self.lists += 1;
            loop {
                self.value(node, first.take())?;
                if self.take(b',').is_none() {
                    self.take(b']')?;
                    break;
                }
            }
            self.lists -= 1;
        }
        self.depth -= 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::super::check::TextCheck;
    use super::*;
    use crate::{canonical, columns};

    /// What the readers that take their time say.
    fn slowly(leaf: &[u8]) -> Option<Value> {
        let mut text = TextCheck::default();
        canonical::walk(leaf, &mut text).ok()?;
        text.finish().ok()?;
        canonical::parse(leaf).ok().filter(Value::is_object)
    }

    fn agree(leaf: &[u8]) {
        let shown = String::from_utf8_lossy(leaf);
        match (scan(leaf), slowly(leaf)) {
            (Some(scanned), Some(value)) => {
                assert_eq!(cells(leaf, &scanned.cells), columns::cells(&value), "{shown}");
            }
            (None, None) => {}
            (fast, slow) => assert_eq!(fast.is_some(), slow.is_some(), "{shown}"),
        }
    }

    /// Values in which the keys that lead to columns are likely.
    fn value() -> impl Strategy<Value = Value> {
        let key = || {
            let mut keys: Vec<&str> = columns::COLUMNS.iter().flat_map(|c| c.path.iter().copied()).collect();
            keys.extend(["v", "at", "facts", "parts", "z", "0", "1", "A", "="]);
            prop::sample::select(keys)
        };
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53)..=(1_i64 << 53)).prop_map(Value::from),
            "[A-Za-z0-9_.:/@+=-]{1,20}".prop_map(Value::from),
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 60, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..10).prop_map(|m| Value::Object(
                    m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()
                )),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_fast_pass_takes_and_says_what_the_slow_readers_do(
            value in value(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let leaf = canonical::to_vec(&value).unwrap();
            agree(&leaf);
            let mut changed = leaf.clone();
            changed[at.index(leaf.len())] = byte;
            agree(&changed);
            agree(&leaf[..cut.index(leaf.len())]);
        }
    }

    #[test]
    fn the_first_columns_are_what_every_leaf_holds() {
        assert_eq!([COLUMNS[0].name, COLUMNS[1].name, COLUMNS[2].name], ["kind", "at", "config"]);
    }

    #[test]
    fn bounds_are_those_of_the_slow_readers() {
        for text in [
            r#"{"a":9007199254740992}"#.to_owned(),
            r#"{"a":9007199254740993}"#.to_owned(),
            r#"{"a":-9007199254740992}"#.to_owned(),
            r#"{"a":99999999999999999999999}"#.to_owned(),
            r#"{"a":-0}"#.to_owned(),
            r#"{"a":00}"#.to_owned(),
            r#"{"a":-}"#.to_owned(),
            r#"{"a":1.0}"#.to_owned(),
            r#"{"a":"","b":1}"#.to_owned(),
            r#"{"":1}"#.to_owned(),
            r#"{"a":1}{"a":1}"#.to_owned(),
            r#"{"caller":[{"consumer":{"value":"x"}}],"answered":{"finish_reasons":[["stop"]]}}"#.to_owned(),
            format!(r#"{{"a":"{}"}}"#, "a".repeat(191)),
            format!(r#"{{"a":"{}"}}"#, "a".repeat(192)),
            format!(r#"{{"a":{}{}}}"#, "[".repeat(31), "]".repeat(31)),
            format!(r#"{{"a":{}{}}}"#, "[".repeat(32), "]".repeat(32)),
            format!(r#"{{"a":[{}1]}}"#, "1,".repeat(32_764)),
            format!(r#"{{"a":[{}1]}}"#, "1,".repeat(32_765)),
        ] {
            agree(text.as_bytes());
        }
        assert!(scan(br#"{"answered":{"finish_reasons":["stop","length"]}}"#).is_some());
        let leaf = canonical::to_vec(&json!({"answered": {"finish_reasons": ["stop", "length"]}})).unwrap();
        agree(&leaf);
    }
}
