//! `routes[].balance.semantic`: which target is meant by what a prompt says, by examples of what each is for.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use policies::document::{Node, Problem, texts};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::Identifier;
use serde::{Serialize, Serializer};

use super::read::{Reader, SECOND};
use super::units::{duration_schema, duration_text};

/// The most examples of one target.
const MAX_EXAMPLES: usize = 64;

/// The longest example, in bytes.
const MAX_EXAMPLE: usize = 4096;

/// How a prompt's meaning is found, with `by: semantic`.
///
/// The words of the last user turn (16 KiB of them at most) are embedded, and the target with the nearest example gets the
/// request. Embedding is traffic as any other: each is an exchange of its own in the log, with the operation `routing`, under
/// the caller that asks, with its tokens and cost; the policy judges it, and a prompt that may not go there, or that cannot be
/// recorded, does not go. Its quotas are those of the request alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Semantic {
    /// A configured provider that makes embeddings, of dialect `openai` or `azure_openai`.
    #[schemars(with = "String")]
    pub provider: Identifier,
    /// The model that makes them.
    pub model: String,
    /// How long its vectors are, where the model lets one choose; absent: not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    /// Path behind the provider's `base_url`, with its query; absent: `/v1/embeddings`, for `azure_openai` that of a deployment of
    /// the model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The longest time that a request waits for it. `3s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
    /// How near a prompt must be to an example, from -1 to 1: a cosine, as the model makes it. A target can have its own.
    pub threshold: Score,
    /// The target that gets what is near to none, and what could not be embedded.
    #[schemars(with = "String")]
    pub fallback: Identifier,
}

fn default_timeout() -> &'static str {
    "3s"
}

/// A cosine in millionths: records and configurations hold no fractions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(pub i64);

impl FromStr for Score {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.len() != 1
            || part.len() > 6
            || !is_number(whole)
            || !is_number(part)
            || digits.ends_with('.')
        {
            return Err(());
        }
        let whole: i64 = whole.parse().map_err(|_| ())?;
        let part: i64 = format!("{part:0<6}").parse().map_err(|_| ())?;
        let millionths = whole * 1_000_000 + part;
        (millionths <= 1_000_000).then_some(Self(sign * millionths)).ok_or(())
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (whole, part) = (size / 1_000_000, format!("{:06}", size % 1_000_000));
        match part.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            part => write!(f, "{sign}{whole}.{part}"),
        }
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Score {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Score".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": "^-?[01](\\.[0-9]{1,6})?$",
            "minimum": -1,
            "maximum": 1
        })
    }
}

/// What a threshold must be.
pub(super) const SCORE_FORM: &str =
    "a number from -1 to 1 with at most six digits behind the point, as `0.35`";

/// Reads the block.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Semantic> {
    let mut f = Reader::new(node, path, base, problems);
    let provider = f.name("provider");
    let form = "a model's name: 1 to 256 visible characters";
    let model = f.fields.required("model", form, |text| {
        let fits =
            (1..=256).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        fits.then(|| text.to_owned())
    });
    let dimensions = f.fields.optional("dimensions", "a whole number from 1 to 16384", |text| {
        text.parse().ok().filter(|number| (1..=16_384).contains(number))
    });
    let form = "a path with its query as `/v1/embeddings`, without `#` and spaces";
    let at = f.fields.optional("path", form, |text| {
        let fits = text.starts_with('/') && !text.contains('#');
        (fits && text.parse::<http::uri::PathAndQuery>().is_ok()).then(|| text.to_owned())
    });
    let timeout = f.duration("timeout", Duration::from_millis(100)..=60 * SECOND, 3 * SECOND);
    let threshold = f.fields.required("threshold", SCORE_FORM, |text| text.parse().ok());
    let fallback = f.name("fallback");
    f.fields.finish();
    Some(Semantic {
        provider: provider?,
        model: model?,
        dimensions,
        path: at,
        timeout,
        threshold: threshold?,
        fallback: fallback?,
    })
}

/// Reads the `examples` of a target.
pub(super) fn examples(node: &Node, path: &str, _: &Path, problems: &mut Vec<Problem>) -> Vec<String> {
    let found = texts(node, path, problems);
    if found.is_empty() || found.len() > MAX_EXAMPLES {
        let wanted = format!("1 to {MAX_EXAMPLES} examples");
        problems.push(Problem::at(node.place, path, wanted).value(found.len().to_string()));
    }
    for (text, place) in &found {
        if text.trim().is_empty() || text.len() > MAX_EXAMPLE {
            let wanted = format!("a text of 1 to {MAX_EXAMPLE} bytes, as callers write it");
            problems.push(Problem::at(*place, path, wanted).value(text.len().to_string()));
        }
    }
    found.into_iter().map(|(text, _)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_and_shown_without_fractions_of_their_own() {
        let table = [
            ("0", Some(0), "0"),
            ("1", Some(1_000_000), "1"),
            ("-1", Some(-1_000_000), "-1"),
            ("0.35", Some(350_000), "0.35"),
            ("0.350000", Some(350_000), "0.35"),
            ("-0.000001", Some(-1), "-0.000001"),
            ("1.0", Some(1_000_000), "1"),
            ("1.000001", None, ""),
            ("2", None, ""),
            ("0.1234567", None, ""),
            (".5", None, ""),
            ("0.", None, ""),
            ("+0.5", None, ""),
            ("--1", None, ""),
            ("", None, ""),
            ("NaN", None, ""),
        ];
        for (text, wanted, shown) in table {
            let read = text.parse::<Score>().ok();
            assert_eq!(read.map(|score| score.0), wanted, "{text}");
            if let Some(score) = read {
                assert_eq!(score.to_string(), shown);
            }
        }
    }
}
