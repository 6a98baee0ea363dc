//! How a sample was drawn: the working paper that a machine reads.

use schemas::Sha256Hex;
use serde::{Deserialize, Serialize};

use super::seed::{Head, Parameters};
use crate::decimal::Decimal;

/// What `method.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// [`super::seed::FORMAT`].
    pub format: String,
    /// What was asked for.
    pub parameters: Parameters,
    /// The newest proven tree of every log.
    pub heads: Vec<Head>,
    /// SHA-256 of `seed.txt`.
    pub seed: Sha256Hex,
    /// What was drawn from.
    pub population: Population,
    /// By stratum; without `--by` one.
    pub strata: Vec<Stratum>,
    /// The units of money, for monetary-unit sampling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub units: Option<UnitsDrawn>,
    /// How many exchanges were drawn.
    pub drawn: u64,
    /// SHA-256 of `sample.csv`.
    pub sample_sha256: Sha256Hex,
    /// What the draw rested on.
    pub rests_on: RestsOn,
}

/// What was drawn from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Exchanges.
    pub exchanges: u64,
    /// SHA-256 over `ORIGIN POSITION LEAF_HASH` and a line feed for each, in order.
    pub sha256: Sha256Hex,
}

/// A stratum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// Its values of the columns.
    pub values: Vec<Option<String>>,
    /// Exchanges in the population.
    pub population: u64,
    /// Exchanges in the sample.
    pub sample: u64,
}

/// Monetary units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsDrawn {
    /// The currency.
    pub currency: String,
    /// The value of the population.
    pub total: Decimal,
    /// Where the first point lies, as `n` times a value: the points are this and each `total` further.
    pub start: Decimal,
    /// Exchanges that have a value.
    pub with_value: u64,
    /// Exchanges that have none in this currency, and could not be drawn.
    pub without_value: u64,
}

/// What the draw rested on. Of the visit, not of the draw: a later check finds another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestsOn {
    /// The verification's first line.
    pub verdict: String,
    /// Whether the public value was held against the newest seal.
    pub later_than_seals: String,
    /// The trust file's fingerprint.
    pub trust_fingerprint: String,
    /// The auditor's version.
    pub auditor: String,
    /// When it was drawn, microseconds UTC.
    pub drawn_at: i64,
}
