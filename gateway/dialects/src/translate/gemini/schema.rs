//! JSON schemas as Gemini takes them in `parametersJsonSchema` and `responseJsonSchema`: JSON Schema with fewer keywords.
//! <https://ai.google.dev/api/generate-content#FIELDS.response_json_schema>
//!
//! What means the same is said in the keywords that there are (`const` is an `enum` of one, `definitions` are `$defs`).
//! A keyword that Gemini does not know is left out and listed: the answer is less constrained, but the same kind of
//! answer.

use crate::json::{each, members};
use crate::translate::form::{Dropped, Json};
use crate::translate::text::{Writer, list};

/// Schemas deeper than this are left as they stand.
const DEEPEST: usize = 64;

/// Keywords whose value goes through as it is.
const PLAIN: [&str; 21] = [
    "$id",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "enum",
    "default",
    "required",
    "propertyOrdering",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minProperties",
    "maxProperties",
    "nullable",
];

/// `schema` in Gemini's keywords.
pub(super) fn cleaned(schema: &Json, path: &str, dropped: &mut Vec<Dropped>) -> String {
    Cleaner { dropped }.schema(schema.text(), path, 0)
}

struct Cleaner<'d> {
    dropped: &'d mut Vec<Dropped>,
}

impl Cleaner<'_> {
    fn schema(&mut self, text: &str, path: &str, depth: usize) -> String {
        let mut object = Writer::new();
        match members(text).filter(|_| depth < DEEPEST) {
            Some(members) => self.members(&members, &mut object, path, depth),
            // `true` and `false` are schemas too.
            None => return text.to_owned(),
        }
        object.end()
    }

    fn members(&mut self, members: &[(String, &str)], object: &mut Writer, path: &str, depth: usize) {
        let refers = members.iter().any(|(key, _)| key == "$ref");
        for (key, value) in members {
            let at = format!("{path}.{key}");
            let (key, value) = match key.as_str() {
                // They say nothing about a value.
                "$schema" | "$comment" => continue,
                "$ref" => ("$ref", value.replace("#/definitions/", "#/$defs/")),
                "$defs" | "definitions" => ("$defs", self.named(value, &at, depth)),
                // Beside a reference nothing else may stand.
                key if refers && !key.starts_with('$') => {
                    self.dropped.push(Dropped::hint(at, "schema_keyword"));
                    continue;
                }
                "properties" => ("properties", self.named(value, &at, depth)),
                "items" if value.starts_with('[') => ("prefixItems", self.listed(value, &at, depth)),
                key @ ("items" | "additionalProperties") => (key, self.schema(value, &at, depth + 1)),
                key @ ("anyOf" | "oneOf" | "prefixItems") => (key, self.listed(value, &at, depth)),
                "const" => ("enum", format!("[{value}]")),
                "allOf" => {
                    self.all_of(value, members, object, &at, depth);
                    continue;
                }
                key if PLAIN.contains(&key) => (key, (*value).to_owned()),
                _ => {
                    self.dropped.push(Dropped::hint(at, "schema_keyword"));
                    continue;
                }
            };
            object.raw(key, &value);
        }
    }

    /// Schemas by name.
    fn named(&mut self, text: &str, path: &str, depth: usize) -> String {
        let mut object = Writer::new();
        let Some(schemas) = members(text) else { return text.to_owned() };
        for (name, schema) in schemas {
            object.raw(&name, &self.schema(schema, &format!("{path}.{name}"), depth + 1));
        }
        object.end()
    }

    fn listed(&mut self, text: &str, path: &str, depth: usize) -> String {
        let mut schemas = Vec::new();
        let whole = each(text, &mut |schema| {
            schemas.push(self.schema(schema, &format!("{path}[{}]", schemas.len()), depth + 1));
        });
        if whole { list(&schemas) } else { text.to_owned() }
    }

    /// All of one schema is that schema; all of several cannot be said.
    fn all_of(
        &mut self,
        text: &str,
        beside: &[(String, &str)],
        object: &mut Writer,
        path: &str,
        depth: usize,
    ) {
        let mut schemas = Vec::new();
        each(text, &mut |schema| schemas.push(schema));
        let only = match schemas.as_slice() {
            [only] if depth < DEEPEST => members(only),
            _ => None,
        };
        let apart =
            |inner: &[(String, &str)]| inner.iter().all(|(key, _)| beside.iter().all(|(k, _)| k != key));
        match only.filter(|inner| apart(inner)) {
            // A reference may have nothing beside it, so it stays one of a list.
            Some(inner) if inner.iter().any(|(key, _)| key == "$ref") && beside.len() > 1 => {
                object.raw("anyOf", &self.listed(text, path, depth));
            }
            Some(inner) => self.members(&inner, object, path, depth + 1),
            None => self.dropped.push(Dropped::hint(path, "schema_keyword")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> (String, Vec<String>) {
        let mut dropped = Vec::new();
        let cleaned = cleaned(&Json::new(text).unwrap(), "s", &mut dropped);
        assert!(dropped.iter().all(|d| d.what == "schema_keyword"));
        (cleaned, dropped.into_iter().map(|d| d.path).collect())
    }

    #[test]
    fn a_schema_keeps_its_order_and_its_known_keywords() {
        let cases = [
            (
                r#"{"type":"object","properties":{"z":{"type":"number","minimum":1.0},"a":true},"required":["z"]}"#,
                None,
                &[][..],
            ),
            (
                r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"string"}"#,
                Some(r#"{"type":"string"}"#),
                &[],
            ),
            (r#"{"const":"x"}"#, Some(r#"{"enum":["x"]}"#), &[]),
            (
                r##"{"definitions":{"A":{"const":1}},"properties":{"a":{"$ref":"#/definitions/A","description":"d"}}}"##,
                Some(r##"{"$defs":{"A":{"enum":[1]}},"properties":{"a":{"$ref":"#/$defs/A"}}}"##),
                &["s.properties.a.description"],
            ),
            (
                r#"{"type":"integer","multipleOf":3,"exclusiveMinimum":0,"not":{"const":9}}"#,
                Some(r#"{"type":"integer"}"#),
                &["s.multipleOf", "s.exclusiveMinimum", "s.not"],
            ),
            (r#"{"allOf":[{"type":"string","const":"b"}]}"#, Some(r#"{"type":"string","enum":["b"]}"#), &[]),
            (
                r##"{"description":"d","allOf":[{"$ref":"#/$defs/A"}]}"##,
                Some(r##"{"description":"d","anyOf":[{"$ref":"#/$defs/A"}]}"##),
                &[],
            ),
            (r#"{"allOf":[{},{}]}"#, Some("{}"), &["s.allOf"]),
            (
                r#"{"items":[{"const":1},{"not":{}}]}"#,
                Some(r#"{"prefixItems":[{"enum":[1]},{}]}"#),
                &["s.items[1].not"],
            ),
            ("true", None, &[]),
        ];
        for (schema, wanted, listed) in cases {
            let (cleaned, dropped) = clean(schema);
            assert_eq!(cleaned, wanted.unwrap_or(schema));
            assert_eq!(dropped, listed, "{schema}");
        }
    }

    #[test]
    fn a_schema_of_any_depth_is_read() {
        let deep = format!("{}true{}", r#"{"items":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(clean(&deep).0, deep);
    }
}
