//! Tokens: what a provider reports, and the same in the record's one taxonomy.
//!
//! `Reported` is what stands in the answer, unconverted. The rest of `Usage` is converted: input includes what was
//! read from and written to a cache, output includes reasoning, absent is unknown. Where a provider's own numbers
//! contradict each other, the class in doubt is absent and `Reported` shows why.

use schemas::record::{Reported, Usage, UsageRole, UsageSource};

use crate::json::{integer, pick, present};
use crate::operation::{Operation, Tokens};

/// A provider's counts, each as it stands in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The main counts and their parts.
    pub reported: Reported,
    /// Of the cache writes, those that live 5 minutes.
    pub write_5m: Option<i64>,
    /// Of the cache writes, those that live an hour.
    pub write_1h: Option<i64>,
    /// Of the input, audio.
    pub input_audio: Option<i64>,
    /// Of the output, audio.
    pub output_audio: Option<i64>,
    /// Of the input, images.
    pub input_image: Option<i64>,
    /// Of the output, images.
    pub output_image: Option<i64>,
    /// Searches of the web.
    pub web_searches: Option<i64>,
    /// Pages that were read.
    pub pages: Option<i64>,
    /// Seconds of audio.
    pub audio_seconds: Option<i64>,
    /// Input that tools of the provider put into the prompt, where it is counted apart.
    pub tool_use_input: Option<i64>,
    /// Input that is charged, where it is counted apart.
    pub billed_input: Option<i64>,
    /// Output that is charged, where it is counted apart.
    pub billed_output: Option<i64>,
    /// Searches that are charged (reranking).
    pub search_units: Option<i64>,
    /// Further runs of the same model (compaction), which the main counts leave out.
    pub further: Further,
}

/// Model runs beside the main one (Anthropic's `iterations`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Further {
    /// Input of further runs of the served model, without cache reads and writes.
    pub input: i64,
    /// Their cache reads.
    pub cache_read: i64,
    /// Their cache writes that live 5 minutes, or whose life is not told.
    pub write_5m: i64,
    /// Their cache writes that live an hour.
    pub write_1h: i64,
    /// Their output.
    pub output: i64,
    /// Runs of another model: their tokens are in no count of this record.
    pub other_models: i64,
}

/// How a dialect's main counts relate to their parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// Input includes cache, output includes reasoning, but for the providers that show otherwise by their total.
    OpenAi,
    /// Input leaves out cache reads and writes.
    Anthropic,
    /// Input includes cache and leaves out what tools put into the prompt; output leaves out thoughts.
    Gemini,
    /// What the model read and wrote is not what is charged: that is told apart, and it is what is paid for.
    Cohere,
}

/// Operations that write no tokens: what they count is what they read.
const READS_ONLY: [&str; 2] = ["embeddings.create", "rerank.create"];

fn add(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => a.unwrap_or(0).checked_add(b.unwrap_or(0)),
    }
}

impl Counts {
    /// Reads OpenAI's `usage`, in its chat, Responses, embeddings, images and audio shapes, with what compatible
    /// providers add to it. `None` where it holds no count.
    pub fn openai(usage: &str) -> Option<Self> {
        let [
            prompt,
            input,
            completion,
            output,
            total,
            prompt_details,
            input_details,
            input_detail,
            completion_details,
            output_details,
            cache_hit,
            num_cached,
            cached,
            cache_read,
            cache_creation,
            reasoning,
            seconds,
            audio_seconds,
            pages,
            searches,
            server_tools,
            connector,
            connectors,
        ] = pick(
            usage,
            &[
                "prompt_tokens",
                "input_tokens",
                "completion_tokens",
                "output_tokens",
                "total_tokens",
                "prompt_tokens_details",
                "input_tokens_details",
                "input_token_details",
                "completion_tokens_details",
                "output_tokens_details",
                "prompt_cache_hit_tokens",
                "num_cached_tokens",
                "cached_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "reasoning_tokens",
                "seconds",
                "prompt_audio_seconds",
                "pages_processed",
                "num_search_queries",
                "server_tool_use",
                "connector_tokens",
                "connectors",
            ],
        )?;
        let input_parts = present(prompt_details)
            .or(present(input_details))
            .or(present(input_detail))
            .and_then(|d| pick(d, &["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"]))
            .unwrap_or_default();
        let output_parts = present(completion_details)
            .or(present(output_details))
            .and_then(|d| pick(d, &["reasoning_tokens", "audio_tokens", "image_tokens"]))
            .unwrap_or_default();
        let [part_cached, part_written, part_audio, part_image] = input_parts.map(integer);
        let [part_reasoning, output_audio, output_image] = output_parts.map(integer);
        let counts = Self {
            reported: Reported {
                input: integer(prompt).or(integer(input)),
                output: integer(completion).or(integer(output)),
                total: integer(total),
                cached_input: part_cached
                    .or(integer(cache_hit))
                    .or(integer(num_cached))
                    .or(integer(cached))
                    .or(integer(cache_read)),
                cache_creation: part_written.or(integer(cache_creation)),
                reasoning: part_reasoning.or(integer(reasoning)),
            },
            input_audio: part_audio,
            output_audio,
            input_image: part_image,
            output_image,
            tool_use_input: integer(connector),
            web_searches: integer(searches)
                .or(present(server_tools).and_then(web_searches))
                .or(present(connectors).and_then(connected_searches)),
            pages: integer(pages),
            audio_seconds: integer(seconds).or(integer(audio_seconds)),
            ..Self::default()
        };
        (counts != Self::default()).then_some(counts)
    }

    /// Puts the counts of Anthropic's `usage` over these, field by field: `message_delta` is cumulative.
    ///
    /// `served` is the model of the answer: runs of another model are only counted.
    pub fn merge_anthropic(&mut self, usage: &str, served: Option<&str>) {
        let Some([input, output, read, written, split, details, iterations, server_tools]) = pick(
            usage,
            &[
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cache_creation",
                "output_tokens_details",
                "iterations",
                "server_tool_use",
            ],
        ) else {
            return;
        };
        self.web_searches = present(server_tools).and_then(web_searches).or(self.web_searches);
        let reported = &mut self.reported;
        for (place, value) in [
            (&mut reported.input, input),
            (&mut reported.output, output),
            (&mut reported.cached_input, read),
            (&mut reported.cache_creation, written),
        ] {
            *place = integer(value).or(*place);
        }
        if let Some((five, hour)) = present(split).and_then(write_split) {
            (self.write_5m, self.write_1h) = (five.or(self.write_5m), hour.or(self.write_1h));
        }
        if let Some([thinking]) = present(details).and_then(|d| pick(d, &["thinking_tokens"])) {
            reported.reasoning = integer(thinking).or(reported.reasoning);
        }
        if let Some(iterations) = present(iterations) {
            self.further = further(iterations, served);
        }
    }

    /// Takes each reported count of `before` that is larger.
    pub fn raise(&mut self, before: Option<&Self>) {
        let Some(before) = before.map(|before| &before.reported) else { return };
        let peak = &mut self.reported;
        for (peak, before) in [
            (&mut peak.input, before.input),
            (&mut peak.output, before.output),
            (&mut peak.total, before.total),
            (&mut peak.cached_input, before.cached_input),
            (&mut peak.cache_creation, before.cache_creation),
            (&mut peak.reasoning, before.reasoning),
        ] {
            *peak = (*peak).max(before);
        }
    }

    /// Whether any reported count of `self` is smaller than before: running counts should only grow.
    pub fn regressed_from(&self, before: &Self) -> bool {
        let less =
            |now: Option<i64>, before: Option<i64>| matches!((now, before), (Some(n), Some(b)) if n < b);
        let (now, before) = (&self.reported, &before.reported);
        less(now.input, before.input)
            || less(now.output, before.output)
            || less(now.total, before.total)
            || less(now.cached_input, before.cached_input)
            || less(now.cache_creation, before.cache_creation)
            || less(now.reasoning, before.reasoning)
    }

    /// The record's usage. `complete`: these are the provider's final counts, not those of a stream that was cut.
    pub fn usage(
        counts: Option<&Self>,
        operation: &Operation,
        convention: Convention,
        complete: UsageSource,
    ) -> Usage {
        let mut usage = Usage {
            reported: counts.map(|c| c.reported).unwrap_or_default(),
            ..Usage::of(UsageSource::Unknown, UsageRole::None)
        };
        match (operation.tokens(), counts) {
            (Tokens::None | Tokens::Counts, _) => {
                usage.source = UsageSource::NotApplicable;
                return usage;
            }
            (Tokens::Incurs, None) if operation.is_other() => return usage,
            (Tokens::Incurs, _) => usage.role = UsageRole::Incurred,
            (Tokens::Retrieves, _) => usage.role = UsageRole::Retrieved,
        }
        let Some(counts) = counts else { return usage };
        usage.source = complete;
        match convention {
            Convention::OpenAi => counts.openai_classes(&mut usage, operation),
            Convention::Anthropic => counts.anthropic_classes(&mut usage),
            Convention::Gemini => counts.gemini_classes(&mut usage),
            Convention::Cohere => counts.cohere_classes(&mut usage),
        }
        usage.input_audio_tokens = within(counts.input_audio, usage.input_tokens);
        usage.input_image_tokens = within(counts.input_image, usage.input_tokens);
        usage.output_audio_tokens = within(counts.output_audio, usage.output_tokens);
        usage.output_image_tokens = within(counts.output_image, usage.output_tokens);
        usage.tool_use_input_tokens = within(counts.tool_use_input, usage.input_tokens);
        usage.search_units = counts.search_units;
        usage.web_searches = counts.web_searches;
        usage.pages = counts.pages;
        usage.audio_seconds = counts.audio_seconds;
        usage
    }

    fn openai_classes(&self, usage: &mut Usage, operation: &Operation) {
        let r = &self.reported;
        let sum = add(r.input, r.output);
        let beyond = match (r.total, sum) {
            (Some(total), Some(sum)) => total - sum,
            _ => 0,
        };
        let (audio, reasoning) = (self.input_audio.unwrap_or(0), r.reasoning.unwrap_or(0));
        let (mut input, mut output) = (r.input, r.output);
        if sum.is_none() && READS_ONLY.contains(&operation.name()) {
            // Voyage: the total is all that is told, and there is nothing but input.
            input = r.total;
        }
        if beyond > 0 && Some(beyond) == self.tool_use_input {
            // Mistral's conversations: what connectors put into the prompt is only in its own count and in the total.
            input = add(input, Some(beyond));
        } else if beyond > 0 && beyond == audio {
            // Mistral: audio input is only in its own count and in the total.
            input = add(input, Some(beyond));
        } else if beyond > 0 && beyond == reasoning {
            // xAI: the main output count leaves reasoning out.
            output = add(output, Some(reasoning));
        } else if beyond > 0 && reasoning == 0 {
            // Google: thinking is only in the total.
            output = add(output, Some(beyond));
            usage.reasoning_tokens = Some(beyond);
        }
        usage.input_tokens = input;
        usage.output_tokens = output;
        usage.reasoning_tokens = usage.reasoning_tokens.or(within(r.reasoning, output));
        let (read, written) = (r.cached_input, r.cache_creation);
        if let (Some(all), Some(cached)) = (input, add(read, written).or(Some(0)))
            && cached <= all
        {
            usage.cache_read_tokens = read;
            usage.cache_write_5m_tokens = written;
            usage.uncached_input_tokens = Some(all - cached);
        }
    }

    fn gemini_classes(&self, usage: &mut Usage) {
        let r = &self.reported;
        let output = add(r.output, r.reasoning);
        // The total tells whether the prompt's count includes what tools put in.
        let told = r.total.is_some() && r.total == add(r.input, output);
        let input = if told { r.input } else { add(r.input, self.tool_use_input) };
        usage.input_tokens = input;
        usage.output_tokens = output;
        usage.reasoning_tokens = r.reasoning;
        if let Some(all) = input
            && r.cached_input.unwrap_or(0) <= all
        {
            usage.cache_read_tokens = r.cached_input;
            usage.uncached_input_tokens = Some(all - r.cached_input.unwrap_or(0));
        }
    }

    fn cohere_classes(&self, usage: &mut Usage) {
        let r = &self.reported;
        usage.input_tokens = self.billed_input.or(r.input);
        usage.uncached_input_tokens = usage.input_tokens;
        usage.output_tokens = self.billed_output.or(r.output);
        usage.reasoning_tokens = within(r.reasoning, usage.output_tokens);
    }

    fn anthropic_classes(&self, usage: &mut Usage) {
        let (r, further) = (&self.reported, &self.further);
        let plus = |count: Option<i64>, further: i64| {
            if further == 0 { count } else { add(count, Some(further)) }
        };
        usage.uncached_input_tokens = plus(r.input, further.input);
        usage.cache_read_tokens = plus(r.cached_input, further.cache_read);
        // A life that is not told counts as the short one.
        let (five, hour) = match (r.cache_creation, self.write_5m, self.write_1h) {
            (Some(all), _, Some(hour)) if hour <= all => (Some(all - hour), Some(hour)),
            (Some(all), _, _) => (Some(all), None),
            (None, five, hour) => (five, hour),
        };
        usage.cache_write_5m_tokens = plus(five, further.write_5m);
        usage.cache_write_1h_tokens = plus(hour, further.write_1h);
        if let Some(uncached) = usage.uncached_input_tokens {
            usage.input_tokens =
                [usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens]
                    .into_iter()
                    .flatten()
                    .try_fold(uncached, i64::checked_add);
        }
        usage.output_tokens = plus(r.output, further.output);
        usage.reasoning_tokens = within(r.reasoning, usage.output_tokens);
    }
}

/// A part of a whole: absent where it is larger than the whole.
fn within(part: Option<i64>, whole: Option<i64>) -> Option<i64> {
    part.filter(|part| whole.is_some_and(|whole| *part <= whole))
}

/// The searches among what tools of the provider did.
fn web_searches(tools: &str) -> Option<i64> {
    pick(tools, &["web_search_requests"]).and_then(|[searches]| integer(searches))
}

/// Searches of the web among what connectors ran (Mistral).
fn connected_searches(connectors: &str) -> Option<i64> {
    let [plain, premium] = pick(connectors, &["web_search", "web_search_premium"])?.map(integer);
    add(plain, premium)
}

/// Cache writes by life; one of a day (some compatible providers) counts with the hour's.
fn write_split(split: &str) -> Option<(Option<i64>, Option<i64>)> {
    let [five, hour, day] = pick(
        split,
        &["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "ephemeral_24h_input_tokens"],
    )?
    .map(integer);
    Some((five, add(hour, day)))
}

fn further(iterations: &str, served: Option<&str>) -> Further {
    let mut sum = Further::default();
    crate::json::each(iterations, &mut |iteration| {
        let Some([kind, model, input, output, read, written, split]) = pick(
            iteration,
            &[
                "type",
                "model",
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cache_creation",
            ],
        ) else {
            return;
        };
        let kind = crate::json::name(kind);
        if kind.as_deref().is_none_or(|kind| kind == "message") {
            return;
        }
        if crate::json::name(model).is_some_and(|model| Some(model.as_str()) != served) {
            sum.other_models += 1;
            return;
        }
        let written = integer(written).unwrap_or(0);
        let hour = present(split).and_then(write_split).and_then(|(_, hour)| hour).unwrap_or(0).min(written);
        for (place, count) in [
            (&mut sum.input, integer(input).unwrap_or(0)),
            (&mut sum.output, integer(output).unwrap_or(0)),
            (&mut sum.cache_read, integer(read).unwrap_or(0)),
            (&mut sum.write_5m, written - hour),
            (&mut sum.write_1h, hour),
        ] {
            *place = place.saturating_add(count);
        }
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Dialect, operation};
    use http::Method;

    /// input, uncached, read, write 5m, write 1h, output, reasoning
    type Classes = [Option<i64>; 7];

    fn classes(usage: &Usage) -> Classes {
        [
            usage.input_tokens,
            usage.uncached_input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        ]
    }

    #[test]
    fn openai_counts_become_one_taxonomy() {
        let chat = operation(Dialect::OpenAi, &Method::POST, "/v1/chat/completions");
        let (s, n) = (Some::<i64>, None);
        let cases: [(&str, &str, Classes); 10] = [
            (
                "plain",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}"#,
                [s(10), s(10), n, n, n, s(5), n],
            ),
            (
                "cached and reasoning are parts",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},
                    "completion_tokens_details":{"reasoning_tokens":3}}"#,
                [s(10), s(6), s(4), n, n, s(5), s(3)],
            ),
            (
                "Responses with cache writes",
                r#"{"input_tokens":50,"output_tokens":20,"total_tokens":70,
                    "input_tokens_details":{"cached_tokens":32,"cache_write_tokens":8}}"#,
                [s(50), s(10), s(32), s(8), n, s(20), n],
            ),
            (
                "xAI: reasoning is apart",
                r#"{"prompt_tokens":10,"completion_tokens":3,"total_tokens":53,"completion_tokens_details":{"reasoning_tokens":40}}"#,
                [s(10), s(10), n, n, n, s(43), s(40)],
            ),
            (
                "Google: thinking is only in the total",
                r#"{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}"#,
                [s(35), s(35), n, n, n, s(74), s(62)],
            ),
            (
                "Mistral: audio is only in its own count and the total",
                r#"{"prompt_tokens":9,"completion_tokens":201,"total_tokens":585,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":375}}"#,
                [s(384), s(384), s(0), n, n, s(201), n],
            ),
            (
                "Mistral's conversations: what connectors put in is only in its own count and the total",
                r#"{"prompt_tokens":128,"completion_tokens":248,"total_tokens":6610,"connector_tokens":6234,"connectors":{"web_search":2}}"#,
                [s(6362), s(6362), n, n, n, s(248), n],
            ),
            (
                "DeepSeek",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":2}"#,
                [s(10), s(2), s(8), n, n, s(5), n],
            ),
            (
                "more cached than there is: the classes in doubt are absent",
                r#"{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":161}}"#,
                [s(7), n, n, n, n, s(8), n],
            ),
            ("only a total", r#"{"total_tokens":15}"#, [n, n, n, n, n, n, n]),
        ];
        for (what, json, wanted) in cases {
            let counts = Counts::openai(json);
            let usage = Counts::usage(counts.as_ref(), &chat, Convention::OpenAi, UsageSource::Provider);
            assert_eq!(classes(&usage), wanted, "{what}");
            assert_eq!((usage.source, usage.role), (UsageSource::Provider, UsageRole::Incurred), "{what}");
        }
    }

    #[test]
    fn anthropic_counts_become_the_same_taxonomy() {
        let messages = operation(Dialect::Anthropic, &Method::POST, "/v1/messages");
        let (s, n) = (Some::<i64>, None);
        let cases: [(&str, &str, Classes); 6] = [
            ("plain", r#"{"input_tokens":10,"output_tokens":5}"#, [s(10), s(10), n, n, n, s(5), n]),
            (
                "input leaves out the cache",
                r#"{"input_tokens":12,"cache_creation_input_tokens":300,"cache_read_input_tokens":2000,
                    "cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},
                    "output_tokens":57,"output_tokens_details":{"thinking_tokens":30}}"#,
                [s(2312), s(12), s(2000), s(100), s(200), s(57), s(30)],
            ),
            (
                "a life that is not told is the short one",
                r#"{"input_tokens":1,"cache_creation_input_tokens":300,"cache_read_input_tokens":0,"output_tokens":2}"#,
                [s(301), s(1), s(0), s(300), n, s(2), n],
            ),
            (
                "compaction by the same model is added",
                r#"{"input_tokens":181,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":8,"iterations":[
                    {"type":"compaction","input_tokens":100,"output_tokens":83,"cache_read_input_tokens":55096,"cache_creation_input_tokens":0},
                    {"type":"message","input_tokens":181,"output_tokens":8}]}"#,
                [s(55377), s(281), s(55096), s(0), n, s(91), n],
            ),
            (
                "runs of another model are not",
                r#"{"input_tokens":10,"output_tokens":5,"iterations":[{"type":"advisor_message","model":"other","input_tokens":99,"output_tokens":9}]}"#,
                [s(10), s(10), n, n, n, s(5), n],
            ),
            ("nothing", "{}", [n, n, n, n, n, n, n]),
        ];
        for (what, json, wanted) in cases {
            let mut counts = Counts::default();
            counts.merge_anthropic(json, Some("claude"));
            let usage = Counts::usage(Some(&counts), &messages, Convention::Anthropic, UsageSource::Provider);
            assert_eq!(classes(&usage), wanted, "{what}");
            assert_eq!(counts.further.other_models, i64::from(what.starts_with("runs of")), "{what}");
        }
    }

    #[test]
    fn gemini_and_cohere_counts_become_the_same_taxonomy() {
        let (s, n) = (Some::<i64>, None);
        let reported = |counts: [Option<i64>; 8]| {
            let [input, output, total, cached, reasoning, tools, billed_input, billed_output] = counts;
            let reported =
                Reported { input, output, total, cached_input: cached, reasoning, ..Reported::default() };
            let mut found = Counts { reported, ..Counts::default() };
            (found.tool_use_input, found.billed_input, found.billed_output) =
                (tools, billed_input, billed_output);
            found
        };
        let gemini = operation(Dialect::Gemini, &Method::POST, "/v1beta/models/g:generateContent");
        let cohere = operation(Dialect::Cohere, &Method::POST, "/v2/chat");
        let cases: [(&str, Convention, [Option<i64>; 8], Classes); 6] = [
            (
                "plain",
                Convention::Gemini,
                [s(10), s(5), s(15), n, n, n, n, n],
                [s(10), s(10), n, n, n, s(5), n],
            ),
            (
                "thoughts are apart, cache is a part, tools are apart",
                Convention::Gemini,
                [s(100), s(5), s(165), s(40), s(20), s(40), n, n],
                [s(140), s(100), s(40), n, n, s(25), s(20)],
            ),
            (
                "tools that the total shows to be in the prompt",
                Convention::Gemini,
                [s(100), s(5), s(105), n, n, s(40), n, n],
                [s(100), s(100), n, n, n, s(5), n],
            ),
            (
                "only thoughts",
                Convention::Gemini,
                [s(9), n, s(29), n, s(20), n, n, n],
                [s(9), s(9), n, n, n, s(20), s(20)],
            ),
            (
                "what is billed counts",
                Convention::Cohere,
                [s(1508), s(67), n, s(992), n, n, s(91), s(35)],
                [s(91), s(91), n, n, n, s(35), n],
            ),
            (
                "nothing billed",
                Convention::Cohere,
                [s(10), s(5), n, n, n, n, n, n],
                [s(10), s(10), n, n, n, s(5), n],
            ),
        ];
        for (what, convention, counts, wanted) in cases {
            let operation = if convention == Convention::Gemini { gemini } else { cohere };
            let usage = Counts::usage(Some(&reported(counts)), &operation, convention, UsageSource::Provider);
            assert_eq!(classes(&usage), wanted, "{what}");
        }
    }

    #[test]
    fn what_is_charged_besides_tokens_is_counted() {
        let read = |json: &str, convention, path: &str| {
            let operation = operation(Dialect::OpenAi, &Method::POST, path);
            let counts = match convention {
                Convention::Anthropic => {
                    let mut counts = Counts::default();
                    counts.merge_anthropic(json, None);
                    Some(counts)
                }
                _ => Counts::openai(json),
            };
            let usage = Counts::usage(counts.as_ref(), &operation, convention, UsageSource::Provider);
            assert_eq!((usage.role, usage.source), (UsageRole::Incurred, UsageSource::Provider), "{json}");
            usage
        };
        let messages = r#"{"input_tokens":9,"output_tokens":3,"server_tool_use":{"web_fetch_requests":1,"web_search_requests":2}}"#;
        assert_eq!(read(messages, Convention::Anthropic, "/v1/messages").web_searches, Some(2));
        let images = r#"{"input_tokens":14,"output_tokens":272,"output_tokens_details":{"image_tokens":272,"text_tokens":0}}"#;
        assert_eq!(read(images, Convention::OpenAi, "/v1/images/generations").output_image_tokens, Some(272));
        let scanned = read(r#"{"pages_processed":3,"doc_size_bytes":18810}"#, Convention::OpenAi, "/v1/ocr");
        assert_eq!((scanned.pages, scanned.input_tokens), (Some(3), None));
        let heard = r#"{"type":"duration","seconds":12}"#;
        let heard = read(heard, Convention::OpenAi, "/v1/audio/transcriptions");
        assert_eq!((heard.audio_seconds, heard.input_tokens), (Some(12), None));
    }

    #[test]
    fn the_total_of_what_only_reads_is_its_input() {
        let counts = Counts::openai(r#"{"total_tokens":3}"#);
        let input = |path: &str| {
            let operation = operation(Dialect::OpenAi, &Method::POST, path);
            let usage = Counts::usage(counts.as_ref(), &operation, Convention::OpenAi, UsageSource::Provider);
            (usage.input_tokens, usage.uncached_input_tokens, usage.output_tokens)
        };
        for path in
            ["/v1/embeddings", "/v1/multimodalembeddings", "/v1/contextualizedembeddings", "/v1/rerank"]
        {
            assert_eq!(input(path), (Some(3), Some(3), None), "{path}");
        }
        // Of a chat nobody knows which part of it was read.
        assert_eq!(input("/v1/chat/completions"), (None, None, None));
    }

    #[test]
    fn roles_follow_the_operation() {
        let counts = Counts::openai(r#"{"input_tokens":1,"output_tokens":1}"#);
        let cases = [
            (Method::POST, "/v1/responses", true, UsageRole::Incurred, UsageSource::Provider),
            (Method::POST, "/v1/responses", false, UsageRole::Incurred, UsageSource::Unknown),
            (Method::GET, "/v1/responses/r", true, UsageRole::Retrieved, UsageSource::Provider),
            (Method::POST, "/v1/responses/r/cancel", true, UsageRole::Retrieved, UsageSource::Provider),
            (Method::POST, "/v1/responses/input_tokens", true, UsageRole::None, UsageSource::NotApplicable),
            (Method::GET, "/v1/models", false, UsageRole::None, UsageSource::NotApplicable),
            (Method::POST, "/v1/unheard/of", false, UsageRole::None, UsageSource::Unknown),
            (Method::POST, "/v1/unheard/of", true, UsageRole::Incurred, UsageSource::Provider),
        ];
        for (method, path, has, role, source) in cases {
            let operation = operation(Dialect::OpenAi, &method, path);
            let counts = counts.as_ref().filter(|_| has);
            let usage = Counts::usage(counts, &operation, Convention::OpenAi, UsageSource::Provider);
            assert_eq!((usage.role, usage.source), (role, source), "{method} {path}");
            assert!(has || usage.input_tokens.is_none(), "unknown is absent, never zero");
        }
    }

    #[test]
    fn no_count_overflows() {
        let huge = (1_i64 << 53).to_string();
        let json =
            format!(r#"{{"input_tokens":{huge},"output_tokens":{huge},"cache_read_input_tokens":{huge}}}"#);
        let messages = operation(Dialect::Anthropic, &Method::POST, "/v1/messages");
        let mut counts = Counts::default();
        counts.merge_anthropic(&json, None);
        Counts::usage(Some(&counts), &messages, Convention::Anthropic, UsageSource::Provider);
        Counts::usage(Counts::openai(&json).as_ref(), &messages, Convention::OpenAi, UsageSource::Provider);
    }
}
