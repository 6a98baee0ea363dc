//! What a translation leaves out, and how records say it.

use std::collections::BTreeMap;
use std::fmt;

use schemas::{Identifier, record};

/// Something of a request or an answer that the other side does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Where it stood: `messages[2].name`. For messages to the caller and for logs of content, never for a leaf.
    pub path: String,
    /// What it is, of a closed list of words: `logprobs`, `unknown_key`. This is what records hold.
    pub what: &'static str,
    /// Whether leaving it out changes what the request means. Such a request is refused, unless the route says `drop`.
    pub weight: Weight,
}

/// What it costs to leave something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The answer would be another one: refused unless the route says `untranslatable: drop`.
    Meaning,
    /// The answer is the same kind of answer: caching, routing, labels.
    Hint,
}

impl Dropped {
    /// `what`, one of [`WORDS`], stands at `path`.
    pub fn new(path: impl Into<String>, what: &'static str, weight: Weight) -> Self {
        debug_assert!(WORDS.contains(&what), "`{what}` is none of the words that records hold");
        Self { path: path.into(), what, weight }
    }
    /// Something that changes what the request means.
    pub fn meaning(path: impl Into<String>, what: &'static str) -> Self {
        Self::new(path, what, Weight::Meaning)
    }
    /// Something that does not.
    pub fn hint(path: impl Into<String>, what: &'static str) -> Self {
        Self::new(path, what, Weight::Hint)
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.path, self.what)
    }
}

/// A conversation of which the provider's dialect cannot say something that matters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no translation for {}", listed(dropped))]
pub struct CannotCarry {
    /// What it cannot say.
    pub dropped: Vec<Dropped>,
}

fn listed(dropped: &[Dropped]) -> String {
    dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Every [`Dropped::what`], in order: what a record can say (CA-8). FORMAT.md 3.6 has them too.
pub const WORDS: &[&str] = &[
    "allowed_tools",
    "annotations",
    "arguments_no_object",
    "audio_input",
    "audio_output",
    "block_reason",
    "bound_too_small_for_thinking",
    "cache_control",
    "cache_ttl",
    "caller",
    "choices",
    "citations",
    "container",
    "content",
    "context_management",
    "custom_tool",
    "diagnostics",
    "document_of_blocks",
    "document_title",
    "document_type",
    "document_url",
    "eager_input_streaming",
    "frequency_penalty",
    "function_call",
    "functions",
    "grounding",
    "image_detail",
    "inference_geo",
    "input_examples",
    "json_object",
    "logit_bias",
    "logprobs",
    "mcp_servers",
    "media",
    "media_type",
    "message_id",
    "metadata",
    "model",
    "moderation",
    "more_than_four_stops",
    "name",
    "obfuscation",
    "one_call_at_a_time",
    "prediction",
    "prefill",
    "presence_penalty",
    "prompt_cache",
    "reasoning_effort",
    "reasoning_off",
    "sampling_with_thinking",
    "schema_description",
    "schema_keyword",
    "search_result",
    "seed",
    "server_tool",
    "service_tier",
    "several_answers",
    "signature",
    "speed",
    "store",
    "strict",
    "system_position",
    "temperature_above_1",
    "thinking",
    "thinking_of_the_turn_missing",
    "thinking_with_forced_tool",
    "thought_signature",
    "tool_choice",
    "tool_result_is_error",
    "tool_result_without_call",
    "tools_of_earlier_calls",
    "top_k",
    "transformations",
    "unknown_key",
    "unknown_part",
    "uploaded_file",
    "url",
    "user",
    "user_profile",
    "verbosity",
    "web_search",
    "workspace",
];

/// What was left out, counted by word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    meaning: u64,
    words: BTreeMap<&'static str, u64>,
}

impl Lost {
    /// Of a request: each place counts.
    pub fn places(dropped: &[Dropped]) -> Self {
        let mut lost = Self::default();
        for dropped in dropped {
            *lost.words.entry(dropped.what).or_default() += 1;
            lost.meaning += u64::from(dropped.weight == Weight::Meaning);
        }
        lost
    }

    /// Of an answer each word counts once: how often a stream says it depends on how it was cut into events.
    pub fn add_kinds(&mut self, dropped: &[Dropped]) {
        for dropped in dropped {
            if self.words.insert(dropped.what, 1).is_none() {
                self.meaning += u64::from(dropped.weight == Weight::Meaning);
            }
        }
    }

    /// As a record says it.
    pub fn record(&self) -> record::Dropped {
        record::Dropped {
            count: self.words.values().sum(),
            meaning: self.meaning,
            unknown: self.words.get("unknown_key").copied().unwrap_or_default(),
            what: self
                .words
                .keys()
                .take(record::MAX_LIST)
                .filter_map(|word| Identifier::new(*word).ok())
                .collect(),
        }
    }
}

/// What of a stream was left out: the first of each word.
#[derive(Debug, Default)]
pub(crate) struct Kinds(Vec<Dropped>);

impl Kinds {
    pub(crate) fn add(&mut self, path: &str, what: &'static str, weight: Weight) {
        if !self.0.iter().any(|dropped| dropped.what == what) {
            self.0.push(Dropped::new(path, what, weight));
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_has_the_words_that_records_hold() {
        let text = include_str!("../../../../../schemas/FORMAT.md");
        let of = "| `translation.dropped.what`, `answer_dropped.what` | ";
        let row = text.lines().find_map(|line| line.strip_prefix(of)).unwrap();
        let list = row.split(" Others may be added.").next().unwrap();
        let found: Vec<&str> = list.split(['`', ',', ' ', '.']).filter(|word| !word.is_empty()).collect();
        assert_eq!(found, WORDS);
    }

    #[test]
    fn a_record_counts_places_of_a_request_and_kinds_of_an_answer() {
        let all = [
            Dropped::meaning("a", "unknown_key"),
            Dropped::meaning("messages[1].b", "unknown_key"),
            Dropped::hint("seed", "seed"),
        ];
        let told = |lost: &Lost| {
            let record::Dropped { count, meaning, unknown, what } = lost.record();
            (count, meaning, unknown, what.iter().map(Identifier::as_str).collect::<Vec<_>>().join(" "))
        };
        let words = || "seed unknown_key".to_owned();
        let lost = Lost::places(&all);
        assert_eq!(told(&lost), (3, 2, 2, words()));
        let mut lost = Lost::default();
        lost.add_kinds(&all[..2]);
        lost.add_kinds(&all);
        assert_eq!(told(&lost), (2, 1, 1, words()));
    }

    #[test]
    fn a_record_never_holds_more_words_than_a_leaf_does() {
        let all: Vec<Dropped> = WORDS.iter().map(|word| Dropped::hint("x", word)).collect();
        let told = Lost::places(&all).record();
        assert_eq!((told.what.len(), told.count), (record::MAX_LIST, WORDS.len() as u64));
    }
}
