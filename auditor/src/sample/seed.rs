//! The seed, and what is drawn by it: only SHA-256 over short texts, so that anybody repeats it with any tool.

use std::fmt::Write as _;

use schemas::{Origin, Sha256Hex};
use serde::{Deserialize, Serialize};

use crate::time;

/// The first line of the seed's text: how the population is made, what of it is drawn, and the form of the papers.
///
/// Version 2: an exchange's value is what is booked for it, by the reads of its answer and with what was tried before; in version 1 it was
/// what its own outcome says.
pub const FORMAT: &str = "affidavit/sample/v2";
/// How all other versions begin.
pub const FORMATS: &str = "affidavit/sample/v";

/// The newest proven tree of a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The log.
    pub origin: Origin,
    /// The tree's size.
    pub size: u64,
    /// Its root.
    pub root: Sha256Hex,
    /// The time of its seal, microseconds UTC.
    pub sealed_at: i64,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The deployment.
    pub deployment: String,
    /// How many.
    pub n: u64,
    /// Columns of the strata.
    pub by: Vec<String>,
    /// What monetary-unit sampling weighs.
    pub by_value: Option<String>,
    /// Its currency.
    pub currency: Option<String>,
    /// Exchanges that began no earlier, microseconds UTC.
    pub from: Option<i64>,
    /// Exchanges that began before, microseconds UTC.
    pub to: Option<i64>,
    /// The public value.
    pub seed_from: String,
    /// When it came out, microseconds UTC, where that was said.
    pub seed_at: Option<i64>,
}

/// The text whose SHA-256 is the seed: one fact a line.
pub fn text(parameters: &Parameters, heads: &[Head]) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let mut out = format!("{FORMAT}\ndeployment {}\n", parameters.deployment);
    let mut heads: Vec<&Head> = heads.iter().collect();
    heads.sort();
    for head in heads {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "log {} {} {}", head.origin, head.size, head.root);
    }
    let _ = writeln!(out, "public {}", parameters.seed_from);
    let _ = writeln!(out, "public_at {}", or_none(parameters.seed_at.map(time::text)));
    let _ = writeln!(out, "n {}", parameters.n);
    let _ = writeln!(out, "by {}", or_none(Some(parameters.by.join(",")).filter(|by| !by.is_empty())));
    let _ = writeln!(out, "by_value {}", or_none(parameters.by_value.clone()));
    let _ = writeln!(out, "currency {}", or_none(parameters.currency.clone()));
    let _ = writeln!(out, "from {}", or_none(parameters.from.map(time::text)));
    let _ = writeln!(out, "to {}", or_none(parameters.to.map(time::text)));
    out
}

/// The seed.
pub fn seed(parameters: &Parameters, heads: &[Head]) -> Sha256Hex {
    Sha256Hex::of(text(parameters, heads).as_bytes())
}

/// The ticket of an exchange: in its stratum the lowest tickets are drawn. SHA-256 of `SEED ORIGIN POSITION` and a line feed.
pub fn ticket(seed: &Sha256Hex, origin: &str, position: u64) -> Sha256Hex {
    Sha256Hex::of(format!("{seed} {origin} {position}\n").as_bytes())
}

/// A number below `bound`, each with the same chance: the first 16 bytes of SHA-256 of `SEED start COUNT` and a line feed,
/// for COUNT from 0 on until one falls below the largest multiple of `bound`. `None` for a bound of 0.
pub fn below(seed: &Sha256Hex, bound: u128) -> Option<u128> {
    let rest = (u128::MAX % bound.max(1) + 1) % bound.max(1);
    let last = u128::MAX - rest;
    let number = |count: u64| {
        let hash = Sha256Hex::of(format!("{seed} start {count}\n").as_bytes());
        let (first, _) = hash.0.split_first_chunk::<16>()?;
        Some(u128::from_be_bytes(*first))
    };
    // More than half of all numbers fall below: 4096 misses do not come.
    (0..4096).filter_map(number).find(|number| *number <= last)?.checked_rem(bound)
}
