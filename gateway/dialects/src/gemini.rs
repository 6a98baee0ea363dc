//! Google's Gemini API and the same on Vertex AI: content generated whole and streamed, embeddings, token counts,
//! interactions. An array of answers and a stream of events hold the same objects.

use serde_json::{Value, json};

use crate::facts::{Gathered, ProviderError};
use crate::json::{each, integer, keep, name, pick, present, scalar, string};
use crate::operation::Tokens::{Counts as C, Incurs as I, None as N, Retrieves as R};
use crate::operation::{Dialect, Operation, Row, Tokens, row, split_verb};
use crate::request::{RequestFacts, percent_decoded};
use crate::sse::{Event, Unfinished};
use crate::usage::{Convention, Counts};
use crate::wire::{Close, Framing, OwnError, Wire};

/// Google's format, at Google AI or at Vertex AI.
pub(crate) struct Gemini {
    pub(crate) vertex: bool,
}

/// At `generativelanguage.googleapis.com`.
const GEMINI: &[Row] = &[
    row("POST", "models/*:generateContent", "models.generate_content", I),
    row("POST", "models/*:streamGenerateContent", "models.stream_generate_content", I),
    row("POST", "models/*:embedContent", "models.embed_content", I),
    row("POST", "models/*:batchEmbedContents", "models.batch_embed_contents", I),
    row("POST", "models/*:countTokens", "models.count_tokens", C),
    row("POST", "models/*:predict", "models.predict", I),
    row("POST", "models/*:predictLongRunning", "models.predict", I),
    row("POST", "models/*:batchGenerateContent", "batches.create", N),
    row("POST", "models/*:asyncBatchEmbedContent", "batches.create", N),
    row("POST", "tunedModels/*:generateContent", "models.generate_content", I),
    row("POST", "tunedModels/*:streamGenerateContent", "models.stream_generate_content", I),
    row("POST", "dynamic/*:generateContent", "models.generate_content", I),
    row("POST", "dynamic/*:streamGenerateContent", "models.stream_generate_content", I),
    row("POST", "interactions", "interactions.create", I),
    row("GET", "interactions/*", "interactions.retrieve", R),
    row("DELETE", "interactions/*", "interactions.delete", N),
    row("POST", "interactions/*/cancel", "interactions.cancel", R),
    row("GET", "models", "models.list", N),
    row("GET", "models/*", "models.retrieve", N),
    row("GET", "models/*/operations/*", "operations", N),
    row("*", "operations", "operations", N),
    row("*", "operations/**", "operations", N),
    row("*", "cachedContents", "cached_contents", N),
    row("*", "cachedContents/**", "cached_contents", N),
    row("*", "tunedModels", "fine_tuning", N),
    row("*", "tunedModels/**", "fine_tuning", N),
    row("POST", "files", "files.create", N),
    row("GET", "files", "files.list", N),
    row("GET", "files/*", "files.retrieve", N),
    row("DELETE", "files/*", "files.delete", N),
    row("GET", "batches", "batches.list", N),
    row("GET", "batches/*", "batches.retrieve", N),
    row("POST", "batches/*:cancel", "batches.cancel", N),
];

/// At Vertex AI, behind `projects/{project}/locations/{location}`.
const VERTEX: &[Row] = &[
    row("POST", "publishers/anthropic/models/count-tokens:rawPredict", "messages.count_tokens", C)
        .speaks(Dialect::Anthropic),
    row("POST", "publishers/anthropic/models/*:rawPredict", "messages.create", I).speaks(Dialect::Anthropic),
    row("POST", "publishers/anthropic/models/*:streamRawPredict", "messages.create", I)
        .speaks(Dialect::Anthropic),
    row("POST", "publishers/*/models/*:rawPredict", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "publishers/*/models/*:streamRawPredict", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "publishers/*/models/*:generateContent", "models.generate_content", I),
    row("POST", "publishers/*/models/*:streamGenerateContent", "models.stream_generate_content", I),
    row("POST", "publishers/*/models/*:embedContent", "models.embed_content", I),
    row("POST", "publishers/*/models/*:countTokens", "models.count_tokens", C),
    row("POST", "publishers/*/models/*:computeTokens", "models.count_tokens", C),
    row("POST", "publishers/*/models/*:predict", "models.predict", I),
    row("POST", "publishers/*/models/*:predictLongRunning", "models.predict", I),
    row("POST", "publishers/*/models/*:fetchPredictOperation", "operations", N),
    row("POST", "endpoints/*/chat/completions", "chat.completions", I).speaks(Dialect::OpenAi),
    row("POST", "endpoints/*/completions", "completions", I).speaks(Dialect::OpenAi),
    row("POST", "endpoints/*/embeddings", "embeddings.create", I).speaks(Dialect::OpenAi),
    row("POST", "endpoints/*:generateContent", "models.generate_content", I),
    row("POST", "endpoints/*:streamGenerateContent", "models.stream_generate_content", I),
    row("POST", "endpoints/*:countTokens", "models.count_tokens", C),
    row("POST", "endpoints/*:predict", "models.predict", I),
    row("POST", "interactions", "interactions.create", I),
    row("GET", "interactions/*", "interactions.retrieve", R),
    row("GET", "publishers/*/models", "models.list", N),
    row("GET", "publishers/*/models/*", "models.retrieve", N),
    row("*", "cachedContents", "cached_contents", N),
    row("*", "cachedContents/**", "cached_contents", N),
    row("*", "batchPredictionJobs", "batches.create", N),
    row("*", "batchPredictionJobs/**", "batches.retrieve", N),
    row("*", "tuningJobs", "fine_tuning", N),
    row("*", "tuningJobs/**", "fine_tuning", N),
    row("*", "operations/**", "operations", N),
];

impl Wire for Gemini {
    fn operations(&self) -> &'static [Row] {
        if self.vertex { VERTEX } else { GEMINI }
    }
    fn also(&self) -> &'static [Dialect] {
        // `/v1beta/openai/chat/completions`
        if self.vertex { &[] } else { &[Dialect::OpenAi] }
    }
    fn behind_deployment<'p>(&self, path: &'p str) -> &'p str {
        if !self.vertex {
            return path;
        }
        let behind = path.split_once("/locations/").and_then(|(_, rest)| rest.split_once('/'));
        behind.map_or(path, |(_, rest)| rest)
    }
    fn path_model(&self, path: &str) -> Option<String> {
        let mut before = "";
        for segment in path.split('/') {
            if let Some((model, _)) = split_verb(segment)
                && matches!(before, "models" | "tunedModels" | "dynamic" | "endpoints")
            {
                let model = percent_decoded(model);
                return Some(if before == "models" { model } else { format!("{before}/{model}") });
            }
            before = segment;
        }
        None
    }
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        match operation.name() {
            "models.stream_generate_content" => facts.stream = Some(true),
            "models.generate_content" => facts.stream = Some(false),
            _ => {}
        }
        if operation.uses_tokens() {
            // Only an object of its own bounds the output.
            facts.max_output_tokens = None;
        }
        match body {
            Some(body) if operation.name() == "models.predict" => parameters(facts, body),
            Some(body) => request(facts, body),
            None => {}
        }
    }
    fn framing(&self, operation: &Operation, media_type: &str) -> Option<Framing> {
        match media_type {
            "text/event-stream" => Some(Framing::ServerSent),
            "application/json" if operation.name() == "models.stream_generate_content" => {
                Some(Framing::Values)
            }
            _ => None,
        }
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, event: &Event<'_>) -> Close {
        event_of(gathered, event.data)
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        let line = event.line.strip_prefix(b"data:").map(|v| v.strip_prefix(b" ").unwrap_or(v));
        event.data.starts_with(b"[DONE]")
            || (event.data.is_empty() && line.is_some_and(|line| line.starts_with(b"[DONE]")))
            || event.name == b"interaction.completed"
            || event.name == b"interaction.complete"
            || (memchr::memmem::find(event.data, b"finishReason").is_some()
                && event_of(&mut Gathered::default(), event.data) != Close::No)
    }
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]) {
        let Ok(text) = std::str::from_utf8(body) else { return };
        if status >= 400 {
            gathered.error = ProviderError::read_body(text);
        } else if operation.tokens() == Tokens::Counts {
            counted(gathered, text);
        } else {
            object(gathered, text);
            gathered.final_usage = gathered.counts.is_some();
        }
    }
    fn convention(&self, _: &Gathered) -> Convention {
        Convention::Gemini
    }
    fn counts_run(&self) -> bool {
        true
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        own_error(error)
    }
    fn own_error_event(
        &self,
        operation: &Operation,
        framing: Framing,
        half: bool,
        error: &OwnError<'_>,
    ) -> Option<Vec<u8>> {
        let text = match framing {
            Framing::ServerSent if half => format!("\n\n{}", self.own_event(operation, error)),
            Framing::ServerSent => self.own_event(operation, error),
            // An array that breaks off inside an element cannot be mended.
            Framing::Values if half => return None,
            Framing::Frames => return None,
            Framing::Values => format!(",\n{}\n]", own_error(error)),
        };
        Some(text.into_bytes())
    }
}

/// A `google.rpc.Status`.
fn own_error(own: &OwnError<'_>) -> Value {
    let status = match own.status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    };
    let mut metadata = json!({});
    if let (Some(exchange), Some(object)) = (own.exchange, metadata.as_object_mut()) {
        object.insert("exchange".into(), exchange.into());
    }
    let info = json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": own.code,
        "domain": "affidavit", "metadata": metadata });
    json!({ "error": { "code": own.status, "message": own.message, "status": status, "details": [info] } })
}

/// Protocol buffers' JSON has two spellings of every name; the first that is there counts.
fn either<'a>(camel: Option<&'a str>, snake: Option<&'a str>) -> Option<&'a str> {
    present(camel).or(present(snake))
}

fn request(facts: &mut RequestFacts, body: &str) {
    const FIELDS: [&str; 5] =
        ["generationConfig", "generation_config", "tools", "agent", "previous_interaction_id"];
    let Some([config, config_snake, tools, agent, previous]) = facts.pick_once(body, &FIELDS) else { return };
    if present(config).is_some() && present(config_snake).is_some() {
        facts.malformed =
            Some("`generationConfig` stands in both spellings: which one counts is not defined".into());
    }
    if facts.requested_model.is_none() {
        facts.requested_model = name(agent);
    }
    if let Some(previous) = name(previous) {
        facts.refers_to = Some(previous);
    }
    if let Some([most, most_snake, temperature, choices, choices_snake]) = either(config, config_snake)
        .and_then(|config| {
            facts.pick_once(
                config,
                &["maxOutputTokens", "max_output_tokens", "temperature", "candidateCount", "candidate_count"],
            )
        })
    {
        facts.max_output_tokens =
            [integer(most), integer(most_snake), facts.max_output_tokens].into_iter().flatten().max();
        facts.choices = [integer(choices), integer(choices_snake)].into_iter().flatten().max();
        facts.temperature = temperature
            .filter(|t| t.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
            .map(str::to_owned)
            .or(facts.temperature.take());
    }
    // A tool is a list of functions, or one that Google runs.
    if let Some(tools) = present(tools) {
        let mut offered = 0_i64;
        each(tools, &mut |tool| {
            let functions = pick(tool, &["functionDeclarations", "function_declarations"])
                .and_then(|[camel, snake]| either(camel, snake))
                .and_then(crate::json::count);
            offered = offered.saturating_add(functions.unwrap_or(1));
        });
        facts.tools_offered = Some(offered);
    }
}

/// What bounds the output of Vertex's `predict`.
fn parameters(facts: &mut RequestFacts, body: &str) {
    let parameters = facts.pick_once(body, &["parameters"]).and_then(|[parameters]| present(parameters));
    let Some([most, choices]) =
        parameters.and_then(|parameters| facts.pick_once(parameters, &["maxOutputTokens", "candidateCount"]))
    else {
        return;
    };
    facts.max_output_tokens = integer(most);
    facts.choices = integer(choices).or(facts.choices);
}

/// One element of a stream.
fn event_of(gathered: &mut Gathered, data: &[u8]) -> Close {
    if data.starts_with(b"[DONE]") {
        return Close::Ends;
    }
    match std::str::from_utf8(data) {
        Ok(text) => object(gathered, text),
        Err(_) => Close::No,
    }
}

/// An answer, whole or a piece of a stream.
fn object(gathered: &mut Gathered, text: &str) -> Close {
    let Some(
        [candidates, feedback, usage, model, id, error, event_type, interaction, object_kind, predictions],
    ) = pick(
        text,
        &[
            "candidates",
            "promptFeedback",
            "usageMetadata",
            "modelVersion",
            "responseId",
            "error",
            "event_type",
            "interaction",
            "object",
            "predictions",
        ],
    )
    else {
        if text.trim_start().starts_with('[') {
            each(text, &mut |element| {
                if element.starts_with('{') {
                    object(gathered, element);
                }
            });
        }
        return Close::No;
    };
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    if let Some(kind) = event_type.and_then(string) {
        return interaction_event(gathered, &kind, interaction, text);
    }
    if object_kind.and_then(string).is_some_and(|kind| kind == "interaction") {
        interaction_object(gathered, text);
        return Close::No;
    }
    keep(&mut gathered.served_model, model);
    keep(&mut gathered.response_id, id);
    if let Some([reason]) = present(feedback).and_then(|f| pick(f, &["blockReason"])) {
        gathered.calls.possible();
        if let Some(reason) = scalar(reason) {
            gathered.blocked |= reason != "BLOCK_REASON_UNSPECIFIED";
            gathered.finish_detail = Some(reason);
        }
    }
    let mut finished = false;
    if let Some(candidates) = present(candidates) {
        gathered.calls.possible();
        let mut at = 0;
        each(candidates, &mut |each_one| {
            finished |= candidate(gathered, at, each_one);
            at += 1;
        });
    }
    if let Some(usage) = present(usage) {
        usage_metadata(gathered, usage);
        gathered.final_usage |= finished;
    }
    if let Some(predictions) = present(predictions) {
        prediction_counts(gathered, predictions);
    }
    if finished { Close::Held } else { Close::No }
}

/// One candidate; true where it is finished.
fn candidate(gathered: &mut Gathered, at: i64, candidate: &str) -> bool {
    let Some([index, finish, content]) = pick(candidate, &["index", "finishReason", "content"]) else {
        return false;
    };
    let index = integer(index).unwrap_or(at);
    gathered.finish(index, present(finish));
    if let Some(parts) = present(content).and_then(|c| pick(c, &["parts"])).and_then(|[p]| present(p)) {
        each(parts, &mut |part| {
            gathered.output = true;
            if let Some([call]) = pick(part, &["functionCall"])
                && let Some(call) = present(call)
            {
                gathered.calls.add(pick(call, &["name"]).and_then(|[tool]| name(tool)));
            }
        });
    }
    present(finish).is_some()
}

pub(crate) fn usage_metadata(gathered: &mut Gathered, usage: &str) {
    let Some([prompt, cached, candidates, thoughts, tools, total, inputs, outputs, tier, traffic]) = pick(
        usage,
        &[
            "promptTokenCount",
            "cachedContentTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "toolUsePromptTokenCount",
            "totalTokenCount",
            "promptTokensDetails",
            "candidatesTokensDetails",
            "serviceTier",
            "trafficType",
        ],
    ) else {
        return;
    };
    let mut counts = Counts::default();
    counts.reported.input = integer(prompt);
    counts.reported.cached_input = integer(cached);
    counts.reported.output = integer(candidates);
    counts.reported.reasoning = integer(thoughts);
    counts.reported.total = integer(total);
    counts.tool_use_input = integer(tools);
    counts.input_audio = of_modality(inputs, "tokenCount", "AUDIO", "4");
    counts.input_image = of_modality(inputs, "tokenCount", "IMAGE", "2");
    counts.output_audio = of_modality(outputs, "tokenCount", "AUDIO", "4");
    counts.output_image = of_modality(outputs, "tokenCount", "IMAGE", "2");
    if counts != Counts::default() {
        gathered.replace_counts(Some(counts));
    }
    keep(&mut gathered.service_tier, tier);
    // Bought capacity is not charged by the token: the price must not be taken for the usual one.
    if traffic.and_then(string).is_some_and(|traffic| traffic.starts_with("PROVISIONED")) {
        keep(&mut gathered.service_tier, traffic);
    }
}

/// The tokens of one modality, by its name or by its number.
fn of_modality(details: Option<&str>, key: &str, modality: &str, number: &str) -> Option<i64> {
    let mut found = None;
    each(present(details)?, &mut |detail| {
        let Some([kind, tokens]) = pick(detail, &["modality", key]) else { return };
        if scalar(kind).is_some_and(|kind| kind.eq_ignore_ascii_case(modality) || kind == number) {
            found = integer(tokens).map(|tokens| tokens.saturating_add(found.unwrap_or(0)));
        }
    });
    found
}

/// `countTokens`: only a total.
fn counted(gathered: &mut Gathered, text: &str) {
    let Some([total]) = pick(text, &["totalTokens"]) else { return };
    let mut counts = Counts::default();
    counts.reported.total = integer(total);
    gathered.replace_counts((counts != Counts::default()).then_some(counts));
}

/// Embeddings of Vertex's `predict`: each prediction counts its own input.
fn prediction_counts(gathered: &mut Gathered, predictions: &str) {
    let mut sum = None;
    each(predictions, &mut |prediction| {
        let count = pick(prediction, &["embeddings"])
            .and_then(|[embeddings]| pick(present(embeddings)?, &["statistics"]))
            .and_then(|[statistics]| pick(present(statistics)?, &["token_count"]))
            .and_then(|[count]| integer(count));
        if let Some(count) = count {
            sum = Some(count.saturating_add(sum.unwrap_or(0)));
        }
    });
    if sum.is_some() {
        let mut counts = Counts::default();
        counts.reported.input = sum;
        gathered.replace_counts(Some(counts));
    }
}

fn interaction_event(gathered: &mut Gathered, kind: &str, interaction: Option<&str>, text: &str) -> Close {
    let last = matches!(kind, "interaction.completed" | "interaction.complete");
    if kind.ends_with(".delta") {
        gathered.output = true;
    }
    if let Some(interaction) = present(interaction) {
        interaction_object(gathered, interaction);
        gathered.final_usage |= last && gathered.counts.is_some();
    }
    let [metadata, step] = pick(text, &["metadata", "step"]).unwrap_or_default();
    if let Some(usage) = present(metadata).and_then(|m| pick(m, &["usage"])).and_then(|[u]| present(u)) {
        gathered.replace_counts(interaction_counts(usage));
    }
    if kind == "step.start"
        && let Some(step) = present(step)
    {
        interaction_step(gathered, step);
    }
    Close::ends(last)
}

fn interaction_object(gathered: &mut Gathered, text: &str) {
    let Some([id, model, agent, status, usage, steps, outputs, tier, error]) =
        pick(text, &["id", "model", "agent", "status", "usage", "steps", "outputs", "service_tier", "error"])
    else {
        return;
    };
    keep(&mut gathered.response_id, id);
    keep(&mut gathered.served_model, agent);
    keep(&mut gathered.served_model, model);
    keep(&mut gathered.service_tier, tier);
    gathered.finish(0, status);
    gathered.calls.possible();
    if let Some(error) = present(error) {
        gathered.error = ProviderError::read(error);
    }
    if let Some(steps) = either(steps, outputs) {
        each(steps, &mut |step| interaction_step(gathered, step));
    }
    if let Some(usage) = present(usage) {
        gathered.replace_counts(interaction_counts(usage));
    }
}

fn interaction_step(gathered: &mut Gathered, step: &str) {
    let Some([kind, tool]) = pick(step, &["type", "name"]) else { return };
    if kind.and_then(string).is_some_and(|kind| kind == "function_call") {
        gathered.calls.add(name(tool));
    }
}

fn interaction_counts(usage: &str) -> Option<Counts> {
    let [input, output, cached, thoughts, tools, total, inputs] = pick(
        usage,
        &[
            "total_input_tokens",
            "total_output_tokens",
            "total_cached_tokens",
            "total_thought_tokens",
            "total_tool_use_tokens",
            "total_tokens",
            "input_tokens_by_modality",
        ],
    )?;
    let mut counts = Counts::default();
    counts.reported.input = integer(input);
    counts.reported.output = integer(output);
    counts.reported.cached_input = integer(cached);
    counts.reported.reasoning = integer(thoughts);
    counts.reported.total = integer(total);
    counts.tool_use_input = integer(tools);
    counts.input_audio = of_modality(inputs, "tokens", "AUDIO", "4");
    counts.input_image = of_modality(inputs, "tokens", "IMAGE", "2");
    (counts != Counts::default()).then_some(counts)
}
