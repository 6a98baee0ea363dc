//! `FORMAT.md` says what the types say: its tables are made from them.
//!
//! `BLESS=1 cargo test -p schemas --test format` writes the tables anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::{JsonSchema, SchemaGenerator};
use schemas::columns::{COLUMNS, ColumnKind};
use schemas::files::schema_text;
use schemas::record;
use schemas::registry;
use schemas::verify::FaultCode;
use serde_json::Value;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/FORMAT.md");

/// Every struct and enumeration of the records, in the order in which they are met.
#[derive(Default)]
pub struct Types {
    names: Vec<String>,
    definitions: BTreeMap<String, Value>,
}

impl Types {
    fn add<T: JsonSchema>(&mut self) {
        let schema: Value = SchemaGenerator::default().into_root_schema_for::<T>().into();
        for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
            self.put(name, definition);
        }
        self.put(&T::schema_name(), &schema);
    }
    /// Tells the path of every key below the object `name`.
    pub fn paths(&self, name: &str, path: &str, tell: &mut impl FnMut(String)) {
        fn referred(schema: &Value) -> Option<&str> {
            if let Some(reference) = schema["$ref"].as_str() {
                return reference.rsplit('/').next();
            }
            schema["anyOf"].as_array().into_iter().flatten().chain(schema.get("items")).find_map(referred)
        }
        for (key, field) in self.definitions[name]["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            tell(path.clone());
            if let Some(name) = referred(field) {
                self.paths(name, &path, tell);
            }
        }
    }
    fn put(&mut self, name: &str, definition: &Value) {
        if self.definitions.insert(name.into(), definition.clone()).is_none() {
            self.names.push(name.into());
        }
    }
}

fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// How a value is called in the tables.
fn type_text(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference_text(reference.rsplit('/').next().unwrap());
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let texts: Vec<_> = options.iter().filter(|o| o["type"] != "null").map(type_text).collect();
            assert_eq!(texts.len(), 1, "{schema}");
            return texts.into_iter().next().unwrap();
        }
    }
    let name = match &schema["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap(),
        _ => panic_type(schema),
    };
    match name {
        "integer" if schema["minimum"].as_i64() == Some(0) => "integer >= 0".into(),
        "integer" => "integer".into(),
        "boolean" => "boolean".into(),
        "string" => "string".into(),
        "array" => format!("list of {}", type_text(&schema["items"])),
        "object" => format!("map to {}", type_text(&schema["additionalProperties"])),
        _ => panic_type(schema),
    }
}

fn panic_type<T>(schema: &Value) -> T {
    std::panic::panic_any(format!("no text for {schema}"))
}

fn reference_text(name: &str) -> String {
    match name {
        "Sha256Hex" => "hash".into(),
        "Identifier" => "identifier".into(),
        "Origin" => "origin".into(),
        "ExchangeId" => "exchange id".into(),
        other => format!("[{other}](#{})", other.to_lowercase()),
    }
}

fn fields(out: &mut String, schema: &Value) {
    let _ = writeln!(out, "| key | type | | meaning |\n|---|---|---|---|");
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, field) in schema["properties"].as_object().unwrap() {
        let presence = if required.contains(&key.as_str()) { "" } else { "opt" };
        let _ = writeln!(out, "| `{key}` | {} | {presence} | {} |", type_text(field), description(field));
    }
}

fn values(out: &mut String, schema: &Value) {
    let _ = writeln!(out, "| value | meaning |\n|---|---|");
    for option in schema["oneOf"].as_array().into_iter().flatten() {
        let names: Vec<_> = match (&option["const"], &option["enum"]) {
            (Value::String(name), _) => vec![name.as_str()],
            (_, Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => panic_type(option),
        };
        // Many names of one meaning stand in one row; as many meanings as names have a row each.
        let meaning = description(option);
        for names in names.chunks(if option["enum"].as_array().is_some_and(|all| all.len() > 8) {
            names.len()
        } else {
            1
        }) {
            let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "| {names} | {meaning} |");
        }
    }
}

/// The kinds and their types.
pub const KIND_TYPES: [(&str, &str); 13] = [
    ("boot", "Boot"),
    ("config", "Config"),
    ("intent", "Intent"),
    ("outcome", "Outcome"),
    ("refusal", "Refusal"),
    ("attempt", "Attempt"),
    ("side_call", "Attempt"),
    ("admin", "Admin"),
    ("heartbeat", "Heartbeat"),
    ("gap", "Gap"),
    ("hold", "Hold"),
    ("erasure", "Erasure"),
    ("close", "Close"),
];

/// The kinds of a registry's entries. All of their types are flat.
fn registry_kinds() -> String {
    let mut types = Types::default();
    let mut out = String::new();
    macro_rules! kind {
        ($($text:literal: $type:ident),*) => {$(
            types.add::<registry::$type>();
            let schema = types.definitions[stringify!($type)].clone();
            let _ = writeln!(out, "#### `{}`\n\n{}\n", $text, description(&schema));
            fields(&mut out, &schema);
            out.push('\n');
        )*};
    }
    kind!(
        "registry": Opening, "key_added`, `key_rotated` and `key_revoked": KeyEntry, "log_opened": LogOpened,
        "log_head": LogHead, "log_closed": LogClosed, "log_lost": LogLost, "retention_set": RetentionSet,
        "price_list": PriceList, "legal_hold": LegalHold, "content_erased": ContentErased, "audit": Audit
    );
    for (name, schema) in &types.definitions {
        for (key, field) in schema["properties"].as_object().into_iter().flatten() {
            assert!(!description(field).is_empty(), "{name}.{key}");
        }
    }
    out
}

pub fn kinds(types: &mut Types) -> String {
    let mut out = String::new();
    macro_rules! kind {
        ($($text:literal: $type:ident),*) => {$(
            types.add::<record::$type>();
            let schema = types.definitions[stringify!($type)].clone();
            let _ = writeln!(out, "#### `{}`\n\n{}\n", $text, description(&schema));
            fields(&mut out, &schema);
            out.push('\n');
        )*};
    }
    kind!(
        "boot": Boot, "config": Config, "intent": Intent, "outcome": Outcome, "refusal": Refusal,
        "attempt` and `side_call": Attempt, "admin": Admin, "heartbeat": Heartbeat, "gap": Gap, "hold": Hold,
        "erasure": Erasure, "close": Close
    );
    out
}

fn shared(types: &Types, structs: bool) -> String {
    const PLAIN: [&str; 4] = ["Sha256Hex", "Identifier", "Origin", "ExchangeId"];
    let mut out = String::new();
    for name in &types.names {
        let schema = &types.definitions[name];
        if KIND_TYPES.iter().any(|(_, kind)| kind == name) || PLAIN.contains(&name.as_str()) {
            continue;
        }
        if schema["properties"].is_object() == structs {
            let _ = writeln!(out, "#### {name}\n\n{}\n", description(schema));
            if structs {
                fields(&mut out, schema)
            } else {
                values(&mut out, schema)
            }
            out.push('\n');
        }
    }
    out
}

fn columns() -> String {
    let mut out = String::from("| column | path in the leaf | type |\n|---|---|---|\n");
    for column in COLUMNS {
        let kind = match column.kind {
            ColumnKind::Utf8 => "string",
            ColumnKind::Int64 => "int64",
            ColumnKind::Bool => "boolean",
            ColumnKind::Decimal => "decimal(38,12)",
            ColumnKind::TimestampUs => "timestamp, us, UTC",
        };
        let _ = writeln!(out, "| `{}` | `{}` | {kind} |", column.name, column.path.join("."));
    }
    out
}

fn faults() -> String {
    FaultCode::ALL.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(" · ") + "\n"
}

/// Puts `text` between the marks of `name`.
fn replace(document: &mut String, name: &str, text: &str) {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = document.find(&begin).unwrap_or_else(|| panic_type(&Value::from(begin.clone()))) + begin.len();
    let to = from + document[from..].find(&end).unwrap();
    document.replace_range(from..to, &format!("\n{}\n", text.trim_end_matches('\n').to_owned() + "\n"));
}

#[test]
fn the_tables_of_the_format_are_those_of_the_types() {
    let found = std::fs::read_to_string(PATH).unwrap();
    let mut wanted = found.clone();
    let mut types = Types::default();
    replace(&mut wanted, "kinds", &kinds(&mut types));
    replace(&mut wanted, "objects", &shared(&types, true));
    replace(&mut wanted, "enumerations", &shared(&types, false));
    replace(&mut wanted, "registry kinds", &registry_kinds());
    replace(&mut wanted, "columns", &columns());
    replace(&mut wanted, "schema text", &format!("```\n{}```\n", schema_text()));
    replace(&mut wanted, "faults", &faults());
    if super::bless() {
        std::fs::write(PATH, &wanted).unwrap();
        return;
    }
    for (i, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "line {} of FORMAT.md; `BLESS=1` writes the tables anew", i + 1);
    }
    assert_eq!(found, wanted);
}

#[test]
fn no_field_of_a_record_lacks_its_meaning() {
    let mut types = Types::default();
    kinds(&mut types);
    for (name, schema) in &types.definitions {
        for (key, field) in schema["properties"].as_object().into_iter().flatten() {
            assert!(!description(field).is_empty(), "{name}.{key}");
        }
    }
}
