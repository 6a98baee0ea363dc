//! Which JSON schemas OpenAI's strict mode takes; it refuses the request for any other.
//! <https://platform.openai.com/docs/guides/structured-outputs#supported-schemas>

use std::collections::HashSet;

use crate::json::{each, members, name};
use crate::translate::form::Json;

/// Objects and arrays may lie this deep in each other.
const DEEPEST: usize = 10;
const MOST_PROPERTIES: usize = 5000;
const MOST_ENUM_VALUES: usize = 1000;

/// Keywords that may have any value. `default`, `minLength`, `oneOf`, `allOf` and others are none of them.
const PLAIN: [&str; 14] = [
    "$schema",
    "type",
    "title",
    "description",
    "const",
    "pattern",
    "required",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
];

const FORMATS: [&str; 9] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// Whether strict mode takes `schema`.
pub(super) fn strict_mode_takes(schema: &Json) -> bool {
    let root = members(schema.text()).unwrap_or_default();
    let is_object =
        root.iter().any(|(key, value)| key == "type" && name(Some(value)).as_deref() == Some("object"));
    let has_any_of = root.iter().any(|(key, _)| key == "anyOf");
    is_object && !has_any_of && Strict::default().takes(schema.text(), 0)
}

#[derive(Default)]
struct Strict {
    properties: usize,
    enum_values: usize,
}

impl Strict {
    fn takes(&mut self, schema: &str, depth: usize) -> bool {
        // `true` and `false` are no schemas here.
        let Some(members) = members(schema).filter(|_| depth <= DEEPEST) else { return false };
        let of = |key: &str| members.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
        if let Some(target) = of("$ref") {
            return members.len() == 1 && name(Some(target)).is_some_and(|target| target.starts_with('#'));
        }
        let Some(types) = types(of("type")) else { return false };
        if types.is_empty() && of("anyOf").is_none() {
            return false;
        }
        let has = |kind: &str| types.iter().any(|name| name == kind);
        if has("object") && !is_closed(of("properties"), of("required"), of("additionalProperties")) {
            return false;
        }
        if has("array") && of("items").is_none() {
            return false;
        }
        members.iter().all(|(key, value)| self.takes_member(key, value, depth))
    }

    fn takes_member(&mut self, key: &str, value: &str, depth: usize) -> bool {
        match key {
            "properties" => {
                let schemas = members(value).unwrap_or_default();
                self.properties += schemas.len();
                self.properties <= MOST_PROPERTIES
                    && schemas.iter().all(|(_, schema)| self.takes(schema, depth + 1))
            }
            "$defs" | "definitions" => {
                members(value).is_some_and(|all| all.iter().all(|(_, schema)| self.takes(schema, depth + 1)))
            }
            "items" => self.takes(value, depth + 1),
            "anyOf" => {
                let mut all = true;
                each(value, &mut |schema| all = all && self.takes(schema, depth)) && all
            }
            "enum" => {
                let whole = each(value, &mut |_| self.enum_values += 1);
                whole && self.enum_values <= MOST_ENUM_VALUES
            }
            "additionalProperties" => value == "false",
            "format" => name(Some(value)).is_some_and(|format| FORMATS.contains(&format.as_str())),
            key => PLAIN.contains(&key),
        }
    }
}

/// The types that a schema names: none, one or several.
fn types(value: Option<&str>) -> Option<Vec<String>> {
    let Some(value) = value else { return Some(Vec::new()) };
    if let Some(one) = name(Some(value)) {
        return Some(vec![one]);
    }
    let mut types = Vec::new();
    each(value, &mut |kind| types.extend(name(Some(kind)))).then_some(types)
}

/// Whether an object has all its properties and no other.
fn is_closed(properties: Option<&str>, required: Option<&str>, additional: Option<&str>) -> bool {
    let Some(properties) = properties.and_then(members) else { return false };
    let mut wanted = HashSet::new();
    let whole = required.is_none_or(|names| each(names, &mut |key| wanted.extend(name(Some(key)))));
    whole && additional == Some("false") && properties.iter().all(|(key, _)| wanted.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(schema: &str) -> bool {
        strict_mode_takes(&Json::new(schema).unwrap())
    }

    fn of_property(schema: &str) -> String {
        format!(
            r#"{{"type":"object","properties":{{"a":{schema}}},"required":["a"],"additionalProperties":false}}"#
        )
    }

    #[test]
    fn strict_mode_takes_closed_objects_of_known_keywords() {
        for (property, wanted) in [
            (r#"{"type":"string"}"#, true),
            (r#"{"type":["string","null"],"enum":["x",null],"description":"d"}"#, true),
            (r#"{"type":"string","format":"date-time","pattern":"^a"}"#, true),
            (r#"{"type":"string","format":"uri"}"#, false),
            (r#"{"type":"string","minLength":1}"#, false),
            (r#"{"type":"string","default":"x"}"#, false),
            (r#"{"type":"array","items":{"type":"number","minimum":0},"minItems":1}"#, true),
            (r#"{"type":"array"}"#, false),
            (r##"{"$ref":"#"}"##, true),
            (r##"{"$ref":"#","description":"d"}"##, false),
            (r#"{"anyOf":[{"type":"null"},{"type":"string"}]}"#, true),
            (r#"{"anyOf":[{"type":"null"},{"type":"object"}]}"#, false),
            (r#"{"oneOf":[{"type":"null"},{"type":"string"}]}"#, false),
            (r#"{"allOf":[{"type":"string"}]}"#, false),
            (r#"{"type":"object","properties":{"b":{"type":"string"}},"additionalProperties":false}"#, false),
            (r#"{"type":"object","properties":{"b":{"type":"string"}},"required":["b"]}"#, false),
            (r#"{"type":"object","properties":{},"additionalProperties":false}"#, true),
            (r#"{"type":"object","properties":{},"additionalProperties":{"type":"string"}}"#, false),
            ("{}", false),
            ("true", false),
        ] {
            assert_eq!(takes(&of_property(property)), wanted, "{property}");
        }
    }

    #[test]
    fn the_root_is_an_object() {
        assert!(!takes(r#"{"type":"array","items":{"type":"string"}}"#));
        let any_of =
            r#"{"type":"object","properties":{},"additionalProperties":false,"anyOf":[{"type":"string"}]}"#;
        assert!(!takes(any_of));
        assert!(!takes("true"));
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_not_taken() {
        let nested = |levels: usize| {
            (0..levels).fold(r#"{"type":"string"}"#.to_owned(), |inner, _| of_property(&inner))
        };
        assert!(takes(&nested(DEEPEST)));
        assert!(!takes(&nested(DEEPEST + 1)));
        let many = |n: usize| format!(r#"{{"type":"integer","enum":[0{}]}}"#, ",0".repeat(n - 1));
        assert!(takes(&of_property(&many(MOST_ENUM_VALUES))));
        assert!(!takes(&of_property(&many(MOST_ENUM_VALUES + 1))));
        let deep = format!("{}true{}", r#"{"type":"array","items":"#.repeat(100_000), "}".repeat(100_000));
        assert!(!takes(&of_property(&deep)));
    }
}
