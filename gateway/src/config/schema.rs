//! The JSON Schema of `gateway.yaml`, generated from the types; `schemas/json/config.schema.json` is its copy.

use serde_json::Value;

use super::Config;

/// The schema as it stands in the repository: indented, with a newline at its end.
pub fn json_schema() -> String {
    let mut schema: Value = schemars::schema_for!(Config).into();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "gateway.yaml".into());
    }
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
