//! What a later writer of version 1 may add: a key, a kind, a column. One that plays it shows that readers of today keep
//! what they do not know, and say so (AU-2).
//!
//! With debug assertions only: no release can write this.

use serde_json::{Value, json};

use crate::canonical::{self, CanonicalError};
use crate::digest::Sha256Hex;
use crate::files::{self, FileError, LeafRow};

/// The first-level key that every record has.
pub const KEY: &str = "next_key";
/// The kind of records that are added, one for each outcome.
pub const KIND: &str = "next_kind";
/// The column behind the known ones.
pub const COLUMN: &str = "next_column";

/// The leaves that stand for `leaf`, in order: with the key, and behind an outcome a record of the kind.
///
/// # Errors
/// A leaf that is not canonical.
pub fn leaves(leaf: &[u8]) -> Result<Vec<Vec<u8>>, CanonicalError> {
    let mut value = canonical::parse(leaf)?;
    let added = (value["kind"] == "outcome").then(|| added(&value));
    if let Value::Object(keys) = &mut value {
        keys.insert(KEY.into(), 7.into());
    }
    [Some(value), added].into_iter().flatten().map(|value| canonical::to_vec(&value)).collect()
}

fn added(outcome: &Value) -> Value {
    let [at, config, exchange, v] = ["at", "config", "exchange", "v"].map(|key| outcome[key].clone());
    json!({ "at": at, "config": config, "exchange": exchange, "kind": KIND, "v": v, "weight": 3 })
}

/// Writes `records.parquet` with the column.
///
/// # Errors
/// As [`files::write_records`].
pub fn write_records(rows: &[LeafRow]) -> Result<Vec<u8>, FileError> {
    files::write_records_with(rows, COLUMN)
}

/// The fingerprint of the schemas with the column.
pub fn schema_fingerprint() -> Sha256Hex {
    let text = files::schema_text().replacen("}\n", &format!("  REQUIRED INT64 {COLUMN};\n}}\n"), 1);
    Sha256Hex::of(text.as_bytes())
}
