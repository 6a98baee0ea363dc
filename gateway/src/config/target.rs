//! `routes[].targets`: which providers a route may ask, and what of a request is changed for each.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem, Shape, texts};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::Identifier;
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::Dialect;
use super::read::{DAY, Reader, SECOND, is_header};
use super::semantic::{SCORE_FORM, Score};
use super::units::{duration_schema, optional_duration_text, optional_size_text, size_schema};
use crate::authenticate::is_credential;

/// The most targets of one route.
pub(super) const MAX_TARGETS: usize = 32;

/// What a bound of an answer can be.
pub(super) const MIN_ANSWER: u64 = 1 << 10;
pub(super) const MAX_ANSWER: u64 = 1 << 40;

/// The most that `max_output` can say.
const MAX_OUTPUT: u64 = 100_000_000;
const MAX_OUTPUT_FORM: &str = "a whole number of tokens from 1 to 100000000";

/// The longest name of a model.
const MAX_MODEL: usize = 256;

/// A provider that a route may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Target {
    /// Its name in records and metrics; absent: its provider's. Each once in a route.
    #[schemars(with = "Option<String>")]
    pub name: Identifier,
    /// A configured provider's name.
    #[schemars(with = "String")]
    pub provider: Identifier,
    /// Its share among the targets of its priority; 0: only where no other is left.
    #[schemars(default = "one")]
    pub weight: u64,
    /// 0 first; a higher number only where every target below it has failed.
    #[schemars(default)]
    pub priority: u64,
    /// The model that is sent, whatever is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Aliases of this target, as `models` of the route.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub models: BTreeMap<String, String>,
    /// Members of the JSON body that are put in.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    #[schemars(default)]
    pub parameters: Parameters,
    /// Headers of the request that are changed.
    #[serde(skip_serializing_if = "TargetHeaders::is_empty")]
    #[schemars(default)]
    pub headers: TargetHeaders,
    /// Time until the first byte of its answer, in the place of `limits.first_byte`.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub first_byte: Option<Duration>,
    /// Longest silence inside its answer, in the place of `limits.idle`.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub idle: Option<Duration>,
    /// Largest answer, in the place of `limits.answer`.
    #[serde(serialize_with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "size_schema")]
    pub answer: Option<u64>,
    /// Longest time from the head of its answer to the end, in the place of `limits.answer_time`.
    #[serde(serialize_with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "duration_schema")]
    pub answer_time: Option<Duration>,
    /// The path with its query that is asked behind the provider's `base_url`, whatever the caller's was: for POSTs that use
    /// tokens, of a provider that has a path of its own for them (`/serving-endpoints/chat/invocations`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it is for, as callers would say it: 1 to 64 texts. With `balance: { by: semantic }`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub examples: Vec<String>,
    /// How near a prompt must be to one of `examples`, in the place of `balance.semantic.threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Score>,
}

fn one() -> u64 {
    1
}

impl Target {
    /// The only target of a route that names a provider and no targets.
    pub(crate) fn of(provider: &Identifier) -> Self {
        Self {
            name: provider.clone(),
            provider: provider.clone(),
            weight: 1,
            priority: 0,
            model: None,
            models: BTreeMap::new(),
            parameters: Parameters::default(),
            headers: TargetHeaders::default(),
            first_byte: None,
            idle: None,
            answer: None,
            answer_time: None,
            path: None,
            examples: Vec::new(),
            threshold: None,
        }
    }
}

/// Members of the JSON body that are put in: objects member by member, lists and values whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Parameters {
    /// Where the caller leaves them out.
    #[serde(serialize_with = "json_text", skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "object_schema")]
    pub defaults: Map<String, Value>,
    /// Whatever the caller says. One that is `null` is taken out.
    #[serde(serialize_with = "json_text", skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "object_schema")]
    pub forced: Map<String, Value>,
    /// The most tokens that an answer may have, whatever the caller says, in the words of the operation that the target is asked
    /// for: `max_completion_tokens` or `max_tokens` (see `max_output_as` of the provider), `max_output_tokens`, `generationConfig.maxOutputTokens`,
    /// `inferenceConfig.maxTokens`, `options.num_predict`. Operations without such a word are left as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
}

impl Parameters {
    /// Whether nothing is put in.
    pub fn is_empty(&self) -> bool {
        self.defaults.is_empty() && self.forced.is_empty() && self.max_output.is_none()
    }
}

/// As JSON text: the configuration of record holds no floats.
fn json_text<S: Serializer>(map: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Value::Object(map.clone()))
}

fn object_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// Headers of the request that are changed, behind those that go on anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct TargetHeaders {
    /// Name in lower case -> value; takes the place of the caller's. Never a credential: it would stand in the records.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl TargetHeaders {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Whether a caller's requests in the dialect `from` can go to a provider that speaks `to`.
pub(crate) fn translates(from: Dialect, to: Dialect) -> bool {
    from == to
        || dialects::sibling::are_siblings(from, to)
        || dialects::translate::Pair::of(from, to).is_some()
}

/// Reads one target.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Target> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.identifier("name");
    let provider = f.name("provider");
    let weight = f.number("weight", 0..=1000, 1);
    let priority = f.number("priority", 0..=100, 0);
    let model = f.fields.optional("model", MODEL_FORM, |text| is_model(text).then(|| text.to_owned()));
    let models = f.part_of("models", aliases).unwrap_or_default();
    let parameters = f.part_of("parameters", parameters).unwrap_or_default();
    let headers = f.part_of("headers", headers).unwrap_or_default();
    let first_byte = f.optional_duration("first_byte", SECOND..=DAY);
    let idle = f.optional_duration("idle", SECOND..=DAY);
    let answer = f.optional_size("answer", MIN_ANSWER..=MAX_ANSWER);
    let answer_time = f.optional_duration("answer_time", SECOND..=DAY);
    let form =
        "a path with its query as `/serving-endpoints/chat/invocations`, without `#`, spaces and `.` parts";
    let at = f.fields.optional("path", form, |text| {
        let fits = text.starts_with('/') && !text.contains('#');
        let clean = !crate::route::has_dot_segments(text.split('?').next().unwrap_or_default());
        (fits && clean && text.parse::<http::uri::PathAndQuery>().is_ok()).then(|| text.to_owned())
    });
    let examples = f.part_of("examples", super::semantic::examples).unwrap_or_default();
    let threshold = f.fields.optional("threshold", SCORE_FORM, |text| text.parse().ok());
    f.fields.finish();
    let provider = provider?;
    let name = name.unwrap_or_else(|| provider.clone());
    Some(Target {
        name,
        provider,
        weight,
        priority,
        model,
        models,
        parameters,
        headers,
        first_byte,
        idle,
        answer,
        answer_time,
        path: at,
        examples,
        threshold,
    })
}

const MODEL_FORM: &str = "a model's name: 1 to 256 visible characters without `*`";

fn is_model(text: &str) -> bool {
    is_name(text) && !text.contains('*')
}

fn is_name(text: &str) -> bool {
    (1..=MAX_MODEL).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Alias -> model. A `*` at the end of an alias is any rest; a `*` at the end of its model is that rest.
pub(super) fn aliases(
    node: &Node,
    path: &str,
    _: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, "aliases with their models, as `{fast: gpt-4.1-mini}`"));
        return aliases;
    };
    for entry in entries {
        let alias = entry.key.strip_suffix('*');
        if !is_name(&entry.key) || alias.unwrap_or(&entry.key).contains('*') {
            let wanted = "an alias: 1 to 256 visible characters, a `*` only at its end";
            problems.push(Problem::at(entry.place, path, wanted).value(&entry.key));
        }
        let found = entry.value.text().unwrap_or_default();
        let rest = found.strip_suffix('*').filter(|_| alias.is_some());
        let fits = is_name(found) && !rest.unwrap_or(found).contains('*');
        if !fits {
            let wanted = "a model's name; a `*` only at its end, where the alias has one too";
            let key = format!("{path}.{}", entry.key);
            problems.push(Problem::at(entry.value.place, key, wanted).value(found));
        }
        aliases.insert(entry.key.clone(), found.to_owned());
    }
    aliases
}

fn parameters(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Parameters {
    let mut f = Reader::new(node, path, base, problems);
    let parameters = Parameters {
        defaults: f.part_of("defaults", object).unwrap_or_default(),
        forced: f.part_of("forced", object).unwrap_or_default(),
        max_output: f.fields.optional("max_output", MAX_OUTPUT_FORM, |text| {
            text.parse().ok().filter(|most| (1..=MAX_OUTPUT).contains(most))
        }),
    };
    f.fields.finish();
    parameters
}

fn object(node: &Node, path: &str, _: &Path, problems: &mut Vec<Problem>) -> Map<String, Value> {
    match value(node) {
        Value::Object(map) if map.contains_key("model") => {
            let wanted = "no `model`: what is sent is said by `model` and `models`";
            problems.push(Problem::at(node.place, format!("{path}.model"), wanted));
            map
        }
        Value::Object(map) => map,
        _ => {
            problems.push(Problem::at(
                node.place,
                path,
                "members of the request's JSON body with their values",
            ));
            Map::new()
        }
    }
}

/// YAML as JSON has it: a plain scalar that is a number, `true`, `false` or `null` is that.
fn value(node: &Node) -> Value {
    match &node.shape {
        Shape::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect::<Map<_, _>>().into()
        }
        Shape::List(items) => items.iter().map(value).collect(),
        Shape::Scalar { .. } if node.is_empty() => Value::Null,
        Shape::Scalar { text, plain: true } => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => match text.parse::<Number>() {
                Ok(number) => Value::Number(number),
                Err(_) => Value::String(text.to_owned()),
            },
        },
        Shape::Scalar { text, .. } => Value::String(text.clone()),
    }
}

/// Headers of requests that are the gateway's to set.
fn is_ours(name: &str) -> bool {
    is_credential(name)
        || matches!(name, "host" | "content-length" | "transfer-encoding" | "connection" | "te" | "expect")
        || name.starts_with("x-amz-")
        || name.starts_with("proxy-")
}

fn headers(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> TargetHeaders {
    const FORM: &str =
        "a header's name in lower case that carries no credential and is not of the connection";
    let mut f = Reader::new(node, path, base, problems);
    let mut headers = TargetHeaders::default();
    if let Some(node) = f.fields.node("set") {
        let path = f.fields.path("set");
        match &node.shape {
            Shape::Map(entries) => {
                for entry in entries {
                    if !is_header(&entry.key) || is_ours(&entry.key) {
                        f.fields.report(Problem::at(entry.place, &path, FORM).value(&entry.key));
                    }
                    let text = entry.value.text().unwrap_or_default();
                    if text.is_empty() || http::HeaderValue::from_str(text).is_err() {
                        let key = format!("{path}.{}", entry.key);
                        f.fields.report(Problem::at(entry.value.place, key, "visible ASCII as a value"));
                    }
                    headers.set.insert(entry.key.clone(), text.to_owned());
                }
            }
            _ => f.fields.report(Problem::at(node.place, path, "header names with their values")),
        }
    }
    if let Some(node) = f.fields.node("remove") {
        let path = f.fields.path("remove");
        for (name, place) in texts(node, &path, f.fields.problems()) {
            if !is_header(&name) || is_ours(&name) {
                f.fields.report(Problem::at(place, &path, FORM).value(&name));
            }
            headers.remove.push(name);
        }
    }
    f.fields.finish();
    headers
}
