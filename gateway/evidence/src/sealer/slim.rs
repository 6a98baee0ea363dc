//! What sealing needs of a record, read without the rest.

use schemas::record::Part;
use schemas::{ExchangeId, Identifier};
use serde::Deserialize;

/// The keys of a leaf that say where its content is.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Slim {
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) exchange: Option<ExchangeId>,
    #[serde(default)]
    pub(crate) intent_position: Option<u64>,
    #[serde(default)]
    pub(crate) parts: Vec<Part>,
    #[serde(default)]
    pub(crate) content_key: Option<Identifier>,
    #[serde(default)]
    pub(crate) retention: Option<Identifier>,
}

impl Slim {
    pub(crate) fn read(leaf: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(leaf)
    }

    /// The class whose content file holds the parts.
    pub(crate) fn class(&self) -> &str {
        self.retention.as_ref().map_or("standard", Identifier::as_str)
    }
}
