//! `routes[].match`: what a request must be for a route to take it.

use std::collections::BTreeMap;
use std::path::Path;

use policies::document::{Fields, Node, Problem, Shape, texts};
use policies::pattern::Patterns;
use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Serialize;

use super::read::{Reader, is_header};
use super::units::{SIZE_FORM, optional_size_text, parse_size, size_schema};
use crate::authenticate::is_credential;

/// The longest expression for content, and the memory that it may take.
const MAX_EXPRESSION: usize = 1024;
const EXPRESSION_BYTES: usize = 1 << 20;

const PATTERN_FORM: &str = "a pattern of 1 to 256 characters without spaces; `*` is any text, `?` one character, `!` \
                            in front excludes";

/// What a request must be for a route to take it; all that is typed must hold. Lists are patterns as in policies: `*` is any
/// text, `?` one character, `!` in front excludes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Match {
    /// The host that the caller names, in lower case and without port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Header (name in lower case) -> patterns of its value. Not of headers that carry a credential.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// The consumer, as its key says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
    /// The team, as its key says; what a route adds or a caller asserts plays no part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<String>,
    /// The organisation, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organisations: Vec<String>,
    /// The groups that the caller is in: one of them must fit a pattern, and none one behind a `!`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The model that is asked for, before any alias.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The operation, as records name it: `chat.completions`, `messages.create`, ...
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// The size of the body as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodySize>,
    /// Whether it shows pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
    /// Whether it offers tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether a stream is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// A regular expression (syntax of the Rust crate `regex`, at most 1,024 bytes) that must match somewhere in the first
    /// MiB of the request's words: prompts, messages, tool results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A range of sizes; both ends are in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct BodySize {
    /// The least.
    #[serde(serialize_with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub at_least: Option<u64>,
    /// The most.
    #[serde(serialize_with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub at_most: Option<u64>,
}

/// The expression for content; `None` where it is none, or needs too much.
pub(crate) fn expression(text: &str) -> Option<Regex> {
    let fits = (1..=MAX_EXPRESSION).contains(&text.len());
    fits.then(|| RegexBuilder::new(text).size_limit(EXPRESSION_BYTES).build().ok()).flatten()
}

/// The patterns of a list that was checked when it was read.
pub(crate) fn patterns(list: &[String]) -> Patterns {
    let mut patterns = Patterns::default();
    for text in list {
        // All of them are patterns: the reader took no others.
        let _ = patterns.add(text);
    }
    patterns
}

/// Reads the section.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Match {
    let mut f = Reader::new(node, path, base, problems);
    let read = Match {
        hosts: list(&mut f.fields, "hosts"),
        headers: f.part_of("headers", headers).unwrap_or_default(),
        consumers: list(&mut f.fields, "consumers"),
        teams: list(&mut f.fields, "teams"),
        organisations: list(&mut f.fields, "organisations"),
        groups: list(&mut f.fields, "groups"),
        models: list(&mut f.fields, "models"),
        operations: list(&mut f.fields, "operations"),
        body: f.part_of("body", body),
        images: f.fields.truth("images"),
        tools: f.fields.truth("tools"),
        stream: f.fields.truth("stream"),
        content: f.fields.optional(
            "content",
            "a regular expression of at most 1024 bytes, as `(?i)\\binvoice\\b`",
            |text| expression(text).map(|_| text.to_owned()),
        ),
    };
    if read == Match::default() && matches!(node.shape, Shape::Map(_)) {
        let place = f.fields.place();
        f.fields.report(Problem::at(place, path, "at least one condition, or no `match`"));
    }
    f.fields.finish();
    read
}

fn list(fields: &mut Fields<'_, '_>, key: &'static str) -> Vec<String> {
    let Some(node) = fields.node(key) else { return Vec::new() };
    let path = fields.path(key);
    checked(node, &path, fields.problems())
}

/// The patterns of a node; each that is none is a problem.
fn checked(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Vec<String> {
    let found = texts(node, path, problems);
    if found.is_empty() {
        problems.push(Problem::at(node.place, path, "at least one pattern, or no key"));
    }
    for (text, place) in &found {
        if !Patterns::default().add(text) {
            problems.push(Problem::at(*place, path, PATTERN_FORM).value(text));
        }
    }
    found.into_iter().map(|(text, _)| text).collect()
}

fn headers(node: &Node, path: &str, _: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, Vec<String>> {
    let mut headers = BTreeMap::new();
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, "header names in lower case, each with patterns"));
        return headers;
    };
    for entry in entries {
        if !is_header(&entry.key) || is_credential(&entry.key) {
            let wanted = "a header's name in lower case that carries no credential";
            problems.push(Problem::at(entry.place, path, wanted).value(&entry.key));
        }
        let patterns = checked(&entry.value, &format!("{path}.{}", entry.key), problems);
        headers.insert(entry.key.clone(), patterns);
    }
    headers
}

fn body(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> BodySize {
    let mut f = Reader::new(node, path, base, problems);
    let size = BodySize {
        at_least: f.fields.optional("at_least", SIZE_FORM, parse_size),
        at_most: f.fields.optional("at_most", SIZE_FORM, parse_size),
    };
    if let (Some(least), Some(most)) = (size.at_least, size.at_most)
        && least > most
    {
        let place = f.fields.place();
        f.fields.report(Problem::at(place, path, "`at_least` no larger than `at_most`"));
    }
    f.fields.finish();
    size
}
