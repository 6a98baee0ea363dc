//! Which keys the kinds of this version have, and which of them are columns: one tree for all kinds.

use std::sync::LazyLock;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::columns::COLUMNS;
use crate::record;

/// A set of kinds: one bit each.
pub(super) type Kinds = u16;

/// Every kind.
pub(super) const ALL: Kinds = Kinds::MAX;

/// A key, or the items of a list.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The kinds that have this key here.
    pub(super) kinds: Kinds,
    /// The column that it is.
    pub(super) column: Option<usize>,
    /// The column that the first item of its list is.
    pub(super) first: Option<usize>,
    /// Whether every key below it is known.
    free: bool,
    children: Vec<(&'static str, Node)>,
}

static FREE: Node = Node { kinds: ALL, column: None, first: None, free: false, children: Vec::new() };

impl Node {
    /// What is known of the keys below this one, for one who asks in their order.
    pub(super) fn below(&self) -> Below<'_> {
        Below { rest: &self.children, free: self.free }
    }

    fn entry(&mut self, key: &'static str) -> &mut Self {
        let at = match self.children.binary_search_by(|(name, _)| (*name).cmp(key)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (key, Self::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// Adds what `schema` says for the kinds `kinds`.
    fn add(&mut self, schema: &Value, definitions: &Value, kinds: Kinds) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            self.add(&definitions[name], definitions, kinds);
        }
        for options in ["anyOf", "oneOf", "allOf"] {
            for option in schema[options].as_array().into_iter().flatten() {
                self.add(option, definitions, kinds);
            }
        }
        // The items of a list stand for the list.
        if schema["items"].is_object() {
            self.add(&schema["items"], definitions, kinds);
        }
        self.free |= schema["additionalProperties"].is_object();
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            // One small tree for the life of the process.
            let child = self.entry(Box::leak(key.clone().into_boxed_str()));
            child.kinds |= kinds;
            child.add(property, definitions, kinds);
        }
    }
}

/// Keys, and which of them were asked for already.
pub(super) struct Below<'a> {
    rest: &'a [(&'static str, Node)],
    free: bool,
}

impl<'a> Below<'a> {
    /// What is known of `key`, which stands behind every key that was asked for before.
    pub(super) fn child(&mut self, key: &[u8]) -> Option<&'a Node> {
        let passed = self.rest.iter().take_while(|(name, _)| name.as_bytes() < key).count();
        self.rest = self.rest.get(passed..).unwrap_or_default();
        match self.rest.split_first() {
            Some(((name, node), rest)) if name.as_bytes() == key => {
                self.rest = rest;
                Some(node)
            }
            _ => self.free.then_some(&FREE),
        }
    }
}

const KINDS: [&str; 13] = [
    "boot",
    "config",
    "intent",
    "outcome",
    "refusal",
    "attempt",
    "side_call",
    "admin",
    "heartbeat",
    "gap",
    "hold",
    "erasure",
    "close",
];

/// Whether `kind` is among `kinds`.
pub(super) fn covers(kind: &str, kinds: Kinds) -> bool {
    KINDS.iter().position(|name| *name == kind).is_some_and(|bit| kinds & (1 << bit) != 0)
}

/// The first level of every leaf.
pub(super) static TREE: LazyLock<Node> = LazyLock::new(|| {
    fn add<T: JsonSchema>(root: &mut Node, kind: &str) {
        let schema: Value = SchemaGenerator::default().into_root_schema_for::<T>().into();
        let bit = KINDS.iter().position(|name| *name == kind).map_or(0, |bit| 1 << bit);
        root.add(&schema, &schema["$defs"], bit);
    }
    let mut root = Node::default();
    for key in ["v", "at", "config", "kind"] {
        root.entry(key).kinds = ALL;
    }
    add::<record::Boot>(&mut root, "boot");
    add::<record::Config>(&mut root, "config");
    add::<record::Intent>(&mut root, "intent");
    add::<record::Outcome>(&mut root, "outcome");
    add::<record::Refusal>(&mut root, "refusal");
    add::<record::Attempt>(&mut root, "attempt");
    add::<record::Attempt>(&mut root, "side_call");
    add::<record::Admin>(&mut root, "admin");
    add::<record::Heartbeat>(&mut root, "heartbeat");
    add::<record::Gap>(&mut root, "gap");
    add::<record::Hold>(&mut root, "hold");
    add::<record::Erasure>(&mut root, "erasure");
    add::<record::Close>(&mut root, "close");
    for (i, column) in COLUMNS.iter().enumerate() {
        let mut node = &mut root;
        for key in column.path {
            if *key == "0" {
                node.first = Some(i);
            } else {
                node = node.entry(key);
            }
        }
        if node.first != Some(i) {
            node.column = Some(i);
        }
    }
    root
});
