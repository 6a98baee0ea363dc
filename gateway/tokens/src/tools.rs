//! What the offer of tools adds to a prompt: OpenAI renders a schema in a form of its own, whose length its cookbook
//! (`How_to_count_tokens_with_tiktoken`) has found out.

use dialects::json::{each, name, pick, present, string};

use crate::{Count, Tokenizer};

/// Around one function; the older tokenizer's models take more.
fn around(tokenizer: Tokenizer) -> i64 {
    if tokenizer == Tokenizer::Cl100kBase { 10 } else { 7 }
}

/// Before the properties of a schema.
const PROPERTIES: i64 = 3;
/// Before each of them.
const PROPERTY: i64 = 3;
/// Before the values of an enumeration.
const VALUES: i64 = -3;
/// Before each of them.
const VALUE: i64 = 3;
/// Behind the last function.
const LAST: i64 = 12;

/// How deep schemas are followed.
const DEEPEST: usize = 5;

/// Adds the tools of a list: functions of any dialect. Tools of the provider's own tell no schema, and count nothing.
pub(crate) fn add(count: &mut Count, tokenizer: Tokenizer, tools: &str) {
    let mut any = false;
    each(tools, &mut |tool| {
        let Some([function, spec, google, google_snake]) =
            pick(tool, &["function", "toolSpec", "functionDeclarations", "function_declarations"])
        else {
            return;
        };
        if let Some(list) = present(google).or(present(google_snake)) {
            each(list, &mut |declared| any |= function_of(count, tokenizer, declared));
            return;
        }
        any |= function_of(count, tokenizer, present(function).or(present(spec)).unwrap_or(tool));
    });
    if any {
        count.beside(LAST);
    }
}

fn function_of(count: &mut Count, tokenizer: Tokenizer, function: &str) -> bool {
    let Some([called, said, parameters, input, wrapped]) =
        pick(function, &["name", "description", "parameters", "input_schema", "inputSchema"])
    else {
        return false;
    };
    let Some(called) = name(called) else { return false };
    count.beside(around(tokenizer));
    count.text(&format!("{called}:{}", sentence(said)));
    let wrapped = present(wrapped).and_then(|schema| pick(schema, &["json"])).and_then(|[json]| json);
    if let Some(schema) = present(parameters).or(present(input)).or(present(wrapped)) {
        properties(count, schema, 0);
    }
    true
}

/// Adds the properties of an object's schema.
pub(crate) fn properties(count: &mut Count, schema: &str, depth: usize) {
    let Some([properties, items]) = pick(schema, &["properties", "items"]) else { return };
    if depth >= DEEPEST {
        return;
    }
    if let Some(items) = present(items) {
        self::properties(count, items, depth + 1);
    }
    let Some(all) = present(properties) else { return };
    let mut first = true;
    members(all, &mut |called, property| {
        if std::mem::take(&mut first) {
            count.beside(PROPERTIES);
        }
        count.beside(PROPERTY);
        let Some([kind, said, values]) = pick(property, &["type", "description", "enum"]) else { return };
        if let Some(values) = present(values) {
            count.beside(VALUES);
            each(values, &mut |value| {
                count.beside(VALUE);
                count.text(&string(value).unwrap_or(value.into()));
            });
        }
        let kind = kind.and_then(string).unwrap_or_default();
        count.text(&format!("{called}:{kind}:{}", sentence(said)));
        self::properties(count, property, depth + 1);
    });
}

/// A description without its full stop.
fn sentence(said: Option<&str>) -> String {
    let said = name(said).unwrap_or_default();
    said.strip_suffix('.').map_or_else(|| said.clone(), str::to_owned)
}

/// Calls `each` with name and JSON text of every member of an object.
fn members<'a>(object: &'a str, each: &mut dyn FnMut(&str, &'a str)) {
    use serde_json::value::RawValue;
    let found: Result<Members<'a>, _> = serde_json::from_str(object);
    for (name, value) in found.map(|found| found.0).unwrap_or_default() {
        let value: &'a RawValue = value;
        each(&name, value.get());
    }
}

/// The members of an object as they stand.
struct Members<'a>(Vec<(String, &'a serde_json::value::RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}
