//! AWS Bedrock: Converse and its stream, InvokeModel of every model family and its stream, token counts, guardrails.
//!
//! Converse tells all by itself. InvokeModel's body is the model family's own; beside it stand the counts of the
//! transport (headers, or `amazon-bedrock-invocationMetrics` in a stream's last chunk), which fill in what the body
//! leaves out. Families are told by their fields, not by the model's name: a profile's ARN names none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::event_stream::{Message, encode};
use crate::facts::{Gathered, ProviderError, error_name};
use crate::json::{count, each, integer, keep, name, pick, pick_bytes, present, scalar};
use crate::operation::Tokens::{Counts as C, Incurs as I, None as N};
use crate::operation::{Dialect, Operation, Row, row};
use crate::request::{RequestFacts, percent_decoded};
use crate::sse::{Event, Unfinished};
use crate::usage::{Convention, Counts};
use crate::wire::{Close, Framing, OwnError, Wire};
use crate::{anthropic, openai};

/// Bedrock's format.
pub(crate) struct Bedrock;

/// A model that is an ARN comes with its `/` coded or not: one segment or two.
const BEDROCK: &[Row] = &[
    row("POST", "model/*/converse", "converse", I),
    row("POST", "model/*/*/converse", "converse", I),
    row("POST", "model/*/converse-stream", "converse_stream", I),
    row("POST", "model/*/*/converse-stream", "converse_stream", I),
    row("POST", "model/*/invoke", "invoke_model", I),
    row("POST", "model/*/*/invoke", "invoke_model", I),
    row("POST", "model/*/invoke-with-response-stream", "invoke_model_stream", I),
    row("POST", "model/*/*/invoke-with-response-stream", "invoke_model_stream", I),
    row("POST", "model/*/count-tokens", "count_tokens", C),
    row("POST", "model/*/*/count-tokens", "count_tokens", C),
    row("POST", "guardrail/*/version/*/apply", "apply_guardrail", N),
    row("POST", "async-invoke", "async_invoke.start", I),
    row("GET", "async-invoke", "async_invoke.list", N),
    row("GET", "async-invoke/**", "async_invoke.retrieve", N),
    row("GET", "foundation-models", "foundation_models.list", N),
    row("GET", "foundation-models/**", "foundation_models.retrieve", N),
    row("GET", "inference-profiles", "inference_profiles.list", N),
    row("GET", "inference-profiles/**", "inference_profiles.retrieve", N),
];

impl Wire for Bedrock {
    fn operations(&self) -> &'static [Row] {
        BEDROCK
    }
    fn also(&self) -> &'static [Dialect] {
        // `/openai/v1/chat/completions`, `/anthropic/v1/messages`
        &[Dialect::OpenAi]
    }
    fn path_model(&self, path: &str) -> Option<String> {
        model(path).map(percent_decoded)
    }
    fn request(&self, facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
        request(facts, operation, body);
    }
    fn framing(&self, _: &Operation, media_type: &str) -> Option<Framing> {
        match media_type {
            "application/vnd.amazon.eventstream" => Some(Framing::Frames),
            "text/event-stream" => Some(Framing::ServerSent),
            _ => None,
        }
    }
    fn head(&self, gathered: &mut Gathered, _: u16, headers: &HeaderMap) {
        gathered.beside = Beside::read(headers);
    }
    fn event(&self, gathered: &mut Gathered, _: &Operation, seen: &Event<'_>) -> Close {
        Close::ends(match seen.frame {
            Some(frame) => message(gathered, frame),
            None => event(gathered, seen.name, seen.data),
        })
    }
    fn closes(&self, event: &Unfinished<'_>) -> bool {
        anthropic::Anthropic.closes(event) || openai::OpenAi.closes(event)
    }
    fn body(&self, gathered: &mut Gathered, operation: &Operation, status: u16, bytes: &[u8]) {
        body(gathered, operation, status, bytes);
    }
    fn settle(&self, gathered: &mut Gathered) {
        gathered.counts = counts(gathered);
    }
    fn convention(&self, gathered: &Gathered) -> Convention {
        gathered.beside.convention.unwrap_or(Convention::Anthropic)
    }
    fn counts_run(&self) -> bool {
        true
    }
    fn own_error(&self, error: &OwnError<'_>) -> Value {
        json!({ "message": error.message, "affidavit_code": error.code, "affidavit_exchange": error.exchange })
    }
    fn own_error_type(&self, status: u16) -> Option<(&'static str, &'static str)> {
        Some(("x-amzn-errortype", exception(status)))
    }
    fn own_frame(&self, error: &OwnError<'_>) -> Option<Vec<u8>> {
        Some(own_exception(error.status, self.own_error(error).to_string().as_bytes()))
    }
}

/// What an answer's head says beside its body.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// How the body counts, where it is not as Converse does.
    pub(crate) convention: Option<Convention>,
    /// The transport's counts.
    pub(crate) transport: Option<Counts>,
    error: Option<String>,
}

impl Beside {
    /// Of an answer's headers.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name: &str| integer(text(name));
        let mut counts = Counts::default();
        counts.reported.input = number("x-amzn-bedrock-input-token-count");
        counts.reported.output = number("x-amzn-bedrock-output-token-count");
        counts.reported.cached_input = number("x-amzn-bedrock-cache-read-input-token-count");
        counts.reported.cache_creation = number("x-amzn-bedrock-cache-write-input-token-count");
        Self {
            convention: None,
            transport: (counts != Counts::default()).then_some(counts),
            error: error_name(headers),
        }
    }
}

impl Beside {
    /// The error's name.
    pub(crate) fn error(self) -> Option<String> {
        self.error
    }
}

/// The counts of body and transport together: the body's own, and the transport's where it has none.
fn counts(gathered: &Gathered) -> Option<Counts> {
    let Some(transport) = gathered.beside.transport else { return gathered.counts };
    let mut counts = gathered.counts.unwrap_or_default();
    let (own, other) = (&mut counts.reported, &transport.reported);
    own.input = own.input.or(other.input);
    own.output = own.output.or(other.output);
    own.cached_input = own.cached_input.or(other.cached_input);
    own.cache_creation = own.cache_creation.or(other.cache_creation);
    Some(counts)
}

/// Reads one frame; true where it ends the stream (CA-2): `metadata`, the chunk with the metrics, an exception.
fn message(gathered: &mut Gathered, message: &Message<'_>) -> bool {
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    match (message.kind, message.event) {
        ("exception", _) => {
            let [lower, upper] = pick_bytes(message.payload, &["message", "Message"]).unwrap_or_default();
            gathered.error = Some(ProviderError {
                kind: text(message.exception),
                code: None,
                message: name(lower).or_else(|| name(upper)),
            });
            true
        }
        ("error", _) => {
            gathered.error = Some(ProviderError {
                kind: text(message.error_code),
                code: None,
                message: text(message.error_message),
            });
            true
        }
        (_, "chunk") => {
            let coded = pick_bytes(message.payload, &["bytes"]).and_then(|[bytes]| name(bytes));
            let chunk = coded.and_then(|coded| STANDARD.decode(coded).ok());
            chunk
                .and_then(|chunk| String::from_utf8(chunk).ok())
                .is_some_and(|chunk| invoked(gathered, &chunk))
        }
        (_, event) => {
            gathered.server_calls.get_or_insert(0);
            std::str::from_utf8(message.payload).is_ok_and(|data| converse_event(gathered, event, data))
        }
    }
}

/// One event of Converse, also as Nova puts it into a chunk.
fn converse_event(gathered: &mut Gathered, event: &str, data: &str) -> bool {
    match event {
        "messageStart" => gathered.calls.possible(),
        "contentBlockStart" => {
            let tool = pick(data, &["start"])
                .and_then(|[start]| present(start))
                .and_then(|start| pick(start, &["toolUse"]))
                .and_then(|[tool]| present(tool));
            if let Some(tool) = tool {
                tool_use(gathered, tool);
            }
        }
        "contentBlockDelta" => gathered.output = true,
        "messageStop" => {
            if let Some([reason]) = pick(data, &["stopReason"]) {
                gathered.finish(0, reason);
            }
        }
        "metadata" => {
            let [usage, tier, performance] =
                pick(data, &["usage", "serviceTier", "performanceConfig"]).unwrap_or_default();
            gathered.replace_counts(present(usage).and_then(converse_counts));
            served_tier(gathered, tier, performance);
            gathered.final_usage = true;
            return true;
        }
        _ => {}
    }
    false
}

/// A call of the caller's tool, or of one that the provider runs itself.
fn tool_use(gathered: &mut Gathered, tool: &str) {
    let Some([kind, tool]) = pick(tool, &["type", "name"]) else { return };
    if name(kind).as_deref() == Some("server_tool_use") {
        gathered.server_calls = Some(gathered.server_calls.unwrap_or(0).saturating_add(1));
    } else {
        gathered.calls.add(name(tool));
    }
}

fn served_tier(gathered: &mut Gathered, tier: Option<&str>, performance: Option<&str>) {
    let word = |object: Option<&str>, key| {
        present(object).and_then(|object| pick(object, &[key])).and_then(|[word]| name(word))
    };
    let fast = word(performance, "latency").filter(|latency| latency != "standard");
    gathered.service_tier = word(tier, "type").or(fast).or(gathered.service_tier.take());
}

/// Counts as Converse and Nova spell them: input leaves out cache reads and writes.
pub(crate) fn converse_counts(usage: &str) -> Option<Counts> {
    let [input, output, total, read, read_count, written, written_count, details] = pick(
        usage,
        &[
            "inputTokens",
            "outputTokens",
            "totalTokens",
            "cacheReadInputTokens",
            "cacheReadInputTokenCount",
            "cacheWriteInputTokens",
            "cacheWriteInputTokenCount",
            "cacheDetails",
        ],
    )?;
    let mut counts = Counts::default();
    counts.reported.input = integer(input);
    counts.reported.output = integer(output);
    counts.reported.total = integer(total);
    counts.reported.cached_input = integer(read).or(integer(read_count));
    counts.reported.cache_creation = integer(written).or(integer(written_count));
    if let Some(details) = present(details) {
        each(details, &mut |written| {
            let Some([tokens, life]) = pick(written, &["inputTokens", "ttl"]) else { return };
            let place = match name(life).as_deref() {
                Some("5m") => &mut counts.write_5m,
                Some("1h") => &mut counts.write_1h,
                _ => return,
            };
            if let Some(tokens) = integer(tokens) {
                *place = Some(place.unwrap_or(0).saturating_add(tokens));
            }
        });
    }
    (counts != Counts::default()).then_some(counts)
}

/// Puts single counts over those of earlier chunks.
fn merge(gathered: &mut Gathered, input: Option<&str>, output: Option<&str>) {
    let mut counts = gathered.counts.unwrap_or_default();
    counts.reported.input = integer(input).or(counts.reported.input);
    counts.reported.output = integer(output).or(counts.reported.output);
    if counts != Counts::default() {
        gathered.replace_counts(Some(counts));
    }
}

fn metrics(gathered: &mut Gathered, metrics: &str) {
    let Some([input, output, read, written]) = pick(
        metrics,
        &["inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"],
    ) else {
        return;
    };
    let mut counts = Counts::default();
    counts.reported.input = integer(input);
    counts.reported.output = integer(output);
    counts.reported.cached_input = integer(read);
    counts.reported.cache_creation = integer(written);
    gathered.beside.transport = Some(counts);
    gathered.final_usage = true;
}

/// A model's own JSON, whole or one chunk of a stream; true where it ends the stream.
fn invoked(gathered: &mut Gathered, text: &str) -> bool {
    let Some([told, kind, choices]) = pick(text, &["amazon-bedrock-invocationMetrics", "type", "choices"])
    else {
        return false;
    };
    let mut last = false;
    if let Some(told) = present(told) {
        metrics(gathered, told);
        last = true;
    }
    if let Some(kind) = name(kind) {
        // Anthropic: a whole message or completion, or one event of a stream.
        if matches!(kind.as_str(), "message" | "completion") {
            anthropic::whole(gathered, &kind, text);
        } else {
            last |= anthropic::event(gathered, b"", text.as_bytes());
        }
    } else if present(choices).is_some() {
        gathered.beside.convention = Some(Convention::OpenAi);
        gathered.calls.possible();
        openai::event(gathered, b"", text.as_bytes());
        if gathered.finish_reasons.is_empty() {
            choice_reasons(gathered, choices);
        }
    } else {
        converse_chunk(gathered, text);
        text_family(gathered, text);
    }
    last
}

/// Mistral spells it `stop_reason`.
fn choice_reasons(gathered: &mut Gathered, choices: Option<&str>) {
    each(choices.unwrap_or_default(), &mut |choice| {
        if let Some([index, reason]) = pick(choice, &["index", "stop_reason"]) {
            gathered.finish(integer(index).unwrap_or(0), present(reason));
        }
    });
}

/// Nova: Converse's events, each under its name, or Converse's whole answer.
fn converse_chunk(gathered: &mut Gathered, text: &str) {
    const EVENTS: [&str; 5] =
        ["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"];
    for (event, data) in EVENTS.iter().zip(pick(text, &EVENTS).unwrap_or_default()) {
        if let Some(data) = present(data) {
            converse_event(gathered, event, data);
        }
    }
    converse_body(gathered, text);
}

/// Converse's whole answer.
fn converse_body(gathered: &mut Gathered, text: &str) {
    let Some([output, reason, usage, tier, performance]) =
        pick(text, &["output", "stopReason", "usage", "serviceTier", "performanceConfig"])
    else {
        return;
    };
    let content = present(output)
        .and_then(|output| pick(output, &["message"]))
        .and_then(|[message]| present(message))
        .and_then(|message| pick(message, &["content"]))
        .and_then(|[content]| present(content));
    if present(reason).is_none() && content.is_none() {
        return;
    }
    gathered.finish(0, present(reason));
    gathered.calls.possible();
    if let Some(content) = content {
        each(content, &mut |block| {
            if let Some(tool) = pick(block, &["toolUse"]).and_then(|[tool]| present(tool)) {
                tool_use(gathered, tool);
            }
        });
    }
    gathered.replace_counts(present(usage).and_then(converse_counts));
    served_tier(gathered, tier, performance);
    gathered.final_usage = true;
}

/// Llama, Titan, Mistral's and Cohere's text, AI21's Jurassic: each by the fields that only it has.
fn text_family(gathered: &mut Gathered, text: &str) {
    let Some(
        [
            generation,
            prompt_count,
            generation_count,
            stop_reason,
            input_count,
            results,
            output_text,
            output_count,
            completion_reason,
            outputs,
            finish_reason,
            answer,
            generations,
            completions,
            completion,
        ],
    ) = pick(
        text,
        &[
            "generation",
            "prompt_token_count",
            "generation_token_count",
            "stop_reason",
            "inputTextTokenCount",
            "results",
            "outputText",
            "totalOutputTextTokenCount",
            "completionReason",
            "outputs",
            "finish_reason",
            "text",
            "generations",
            "completions",
            "completion",
        ],
    )
    else {
        return;
    };
    merge(gathered, prompt_count.or(input_count), generation_count.or(output_count));
    let lists: [(Option<&str>, &str); 4] = [
        (results, "completionReason"),
        (outputs, "stop_reason"),
        (generations, "finish_reason"),
        (completions, "finishReason"),
    ];
    for (list, reason) in lists {
        let mut at = 0;
        each(present(list).unwrap_or_default(), &mut |item| {
            let Some([reason, tokens, text, data]) = pick(item, &[reason, "tokenCount", "text", "data"])
            else {
                return;
            };
            // Jurassic's is an object.
            let inner =
                present(reason).and_then(|r| pick(r, &["reason"])).and_then(|[reason]| present(reason));
            let reason = inner.or(present(reason));
            gathered.finish(at, reason);
            at += 1;
            if reason.is_some() || tokens.is_some() || text.is_some() || data.is_some() {
                gathered.calls.possible();
                gathered.output = true;
            }
            if integer(tokens).is_some() {
                merge(gathered, None, tokens);
            }
        });
    }
    let says = [generation, output_text, answer, completion];
    if says.into_iter().flatten().any(|text| text.starts_with('"')) {
        gathered.calls.possible();
        gathered.output = true;
        for reason in [stop_reason, completion_reason, finish_reason] {
            gathered.finish(0, present(reason));
        }
    } else if present(finish_reason).is_some() {
        // The last event of a Cohere stream.
        gathered.finish(0, present(finish_reason));
    }
    gathered.final_usage |= !gathered.finish_reasons.is_empty() && gathered.counts.is_some();
}

/// Reads a server-sent event, of a path that no table knows; true where it ends the stream.
fn event(gathered: &mut Gathered, event_name: &[u8], data: &[u8]) -> bool {
    let kind = pick_bytes(data, &["type"]).and_then(|[kind]| name(kind)).unwrap_or_default();
    let anthropics = ["message_", "content_block_"].iter().any(|begin| kind.starts_with(begin));
    if anthropics {
        return anthropic::event(gathered, event_name, data);
    }
    gathered.beside.convention = Some(Convention::OpenAi);
    openai::event(gathered, event_name, data)
}

/// Reads a whole JSON body.
fn body(gathered: &mut Gathered, operation: &Operation, status: u16, body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    if status >= 400 {
        gathered.error = error(gathered.beside.error.take(), text);
        return;
    }
    match operation.name() {
        "count_tokens" => gathered.replace_counts(converse_counts(text)),
        "apply_guardrail" => {
            if let Some([action]) = pick(text, &["action"]) {
                gathered.finish(0, action);
            }
        }
        "converse" => {
            gathered.server_calls.get_or_insert(0);
            converse_body(gathered, text);
        }
        _ if operation.tokens() == I => {
            invoked(gathered, text);
            gathered.final_usage = true;
        }
        _ => {}
    }
}

/// AWS's error shape: the name in a header or in `__type`, the text in `message`.
pub(crate) fn error(header: Option<String>, text: &str) -> Option<ProviderError> {
    let Some([kind, code, lower, upper, inner]) =
        pick(text, &["__type", "code", "message", "Message", "error"])
    else {
        return header.map(|kind| ProviderError { kind: Some(kind), ..ProviderError::default() });
    };
    if let Some(inner) = present(inner) {
        // A path that no table knows may be one of the compatible ones, whose errors have the shapes of others.
        return ProviderError::read(inner);
    }
    // `com.amazon.coral.service#UnknownOperationException`
    let of_body = name(kind).map(|kind| kind.rsplit('#').next().unwrap_or_default().to_owned());
    let code = scalar(code).filter(|code| !code.is_empty());
    let error = ProviderError {
        kind: header.or(of_body).or_else(|| code.clone()),
        code,
        message: name(lower).or_else(|| name(upper)),
    };
    (error != ProviderError::default()).then_some(error)
}

/// The model that a path names, still coded as it stands there: `/model/{model}/converse`. A model that is an ARN may
/// come with its `/` uncoded.
fn model(path: &str) -> Option<&str> {
    let at = path.find("/model/")? + "/model/".len();
    let rest = path.get(at..)?;
    let end = rest.rfind('/')?;
    rest.get(..end).filter(|model| !model.is_empty())
}

/// Puts over `facts` what only Bedrock's own requests say.
fn request(facts: &mut RequestFacts, operation: &Operation, body: Option<&str>) {
    facts.choices = None;
    // The path alone decides; a `stream` in a model's body does nothing here.
    match operation.name() {
        "converse_stream" | "invoke_model_stream" => facts.stream = Some(true),
        "converse" | "invoke_model" => facts.stream = Some(false),
        _ => {}
    }
    const FIELDS: [&str; 7] = [
        "inferenceConfig",
        "toolConfig",
        "textGenerationConfig",
        "max_gen_len",
        "maxTokens",
        "serviceTier",
        "performanceConfig",
    ];
    let Some(fields) = body.and_then(|text| facts.pick_once(text, &FIELDS)) else { return };
    let [inference, tools, generation, max_gen_len, max_tokens, tier, performance] = fields.map(present);
    let [converse, nova, warmth] = inference
        .and_then(|i| facts.pick_once(i, &["maxTokens", "max_new_tokens", "temperature"]))
        .unwrap_or_default();
    let [titan, titans_warmth] =
        generation.and_then(|g| facts.pick_once(g, &["maxTokenCount", "temperature"])).unwrap_or_default();
    facts.max_output_tokens = if matches!(operation.name(), "converse" | "converse_stream") {
        // What stands beside it bounds nothing.
        integer(converse)
    } else {
        [converse, nova, titan, max_gen_len, max_tokens]
            .into_iter()
            .filter_map(integer)
            .chain(facts.max_output_tokens)
            .max()
    };
    if let Some(offered) =
        tools.and_then(|t| pick(t, &["tools"])).and_then(|[tools]| present(tools)).and_then(count)
    {
        facts.tools_offered = Some(offered);
    }
    if let Some(warmth) = warmth.or(titans_warmth)
        && warmth.starts_with(|c: char| c == '-' || c.is_ascii_digit())
    {
        facts.temperature = Some(warmth.to_owned());
    }
    let mut asked = None;
    for (object, key) in [(performance, "latency"), (tier, "type")] {
        let word = object.and_then(|object| pick(object, &[key])).and_then(|[word]| word);
        keep(&mut asked, word);
    }
    facts.service_tier = asked.or(facts.service_tier.take());
}

/// The name of AWS's exception for a status of the gateway's own: what its SDKs make their error classes of.
fn exception(status: u16) -> &'static str {
    match status {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "RequestTimeoutException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        504 => "ModelTimeoutException",
        400..=499 | 501 => "ValidationException",
        _ => "InternalServerException",
    }
}

/// A frame that says within a stream that the gateway cuts it.
fn own_exception(status: u16, body: &[u8]) -> Vec<u8> {
    let name = exception(status);
    let (first, rest) = name.split_at(1);
    let kind = format!("{}{rest}", first.to_ascii_lowercase());
    encode(
        &[
            (":exception-type", kind.as_str()),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        body,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{operation, request_facts};
    use http::Method;

    #[test]
    fn every_path_has_its_operation_and_model() {
        let cases = [
            (
                Method::POST,
                "/model/us.amazon.nova-lite-v1%3A0/converse",
                "converse",
                Some("us.amazon.nova-lite-v1:0"),
            ),
            (Method::POST, "/model/m/converse-stream", "converse_stream", Some("m")),
            (
                Method::POST,
                "/model/arn:aws:bedrock:x:0:inference-profile/p/invoke",
                "invoke_model",
                Some("arn:aws:bedrock:x:0:inference-profile/p"),
            ),
            (
                Method::POST,
                "/model/arn%3Aaws%2Fp/invoke-with-response-stream",
                "invoke_model_stream",
                Some("arn:aws/p"),
            ),
            (Method::POST, "/model/m/count-tokens", "count_tokens", Some("m")),
            (Method::POST, "/guardrail/g/version/1/apply", "apply_guardrail", None),
            (Method::POST, "/async-invoke", "async_invoke.start", None),
            (Method::GET, "/async-invoke/arn%3Aaws%2Fi", "async_invoke.retrieve", None),
            (Method::GET, "/foundation-models", "foundation_models.list", None),
            (Method::GET, "/foundation-models/m", "foundation_models.retrieve", None),
            (Method::POST, "/openai/v1/chat/completions", "chat.completions", None),
            (Method::POST, "/v1/responses", "responses.create", None),
            (Method::POST, "/anthropic/v1/messages", "messages.create", None),
            (Method::POST, "/model/m/something-new", "other", Some("m")),
        ];
        for (method, path, name, model) in cases {
            let operation = operation(Dialect::Bedrock, &method, path);
            assert_eq!(operation.name(), name, "{path}");
            let facts = request_facts(&operation, &HeaderMap::new(), path, None, b"");
            assert_eq!(facts.requested_model.as_deref(), model, "{path}");
        }
    }

    #[test]
    fn the_largest_output_is_found_in_every_familys_body() {
        let cases = [
            (
                "converse",
                r#"{"inferenceConfig":{"maxTokens":5,"temperature":0.5},"toolConfig":{"tools":[{},{}]}}"#,
                Some(5),
                Some(2),
            ),
            ("invoke", r#"{"inferenceConfig":{"max_new_tokens":6}}"#, Some(6), None),
            ("invoke", r#"{"textGenerationConfig":{"maxTokenCount":7}}"#, Some(7), None),
            ("invoke", r#"{"prompt":"a","max_gen_len":8}"#, Some(8), None),
            (
                "invoke",
                r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"tools":[{}]}"#,
                Some(9),
                Some(1),
            ),
            ("invoke", r#"{"prompt":"a","max_tokens_to_sample":10}"#, Some(10), None),
        ];
        for (last, body, largest, tools) in cases {
            let path = format!("/model/m/{last}");
            let operation = operation(Dialect::Bedrock, &Method::POST, &path);
            let facts = request_facts(&operation, &HeaderMap::new(), &path, None, body.as_bytes());
            assert_eq!((facts.max_output_tokens, facts.tools_offered), (largest, tools), "{body}");
            assert_eq!((facts.stream, facts.malformed), (Some(false), None), "{body}");
        }
        let twice = br#"{"inferenceConfig":{"maxTokens":5},"inferenceConfig":{"maxTokens":500}}"#;
        let converse = operation(Dialect::Bedrock, &Method::POST, "/model/m/converse");
        let facts = request_facts(&converse, &HeaderMap::new(), "/model/m/converse", None, twice);
        assert!(facts.malformed.is_some_and(|why| why.contains("inferenceConfig")));
    }

    #[test]
    fn cache_writes_are_split_by_their_life() {
        let usage = r#"{"inputTokens":3,"outputTokens":121,"totalTokens":2072,"cacheReadInputTokens":1712,"cacheWriteInputTokens":236,"cacheDetails":[{"inputTokens":200,"ttl":"1h"},{"inputTokens":36,"ttl":"5m"}]}"#;
        let body =
            format!(r#"{{"output":{{"message":{{"content":[]}}}},"stopReason":"end_turn","usage":{usage}}}"#);
        let converse = operation(Dialect::Bedrock, &Method::POST, "/model/m/converse");
        let usage = crate::response_facts(&converse, 200, &HeaderMap::new(), body.as_bytes()).usage;
        assert_eq!(usage.input_tokens, Some(3 + 1712 + 236));
        assert_eq!((usage.cache_write_1h_tokens, usage.cache_write_5m_tokens), (Some(200), Some(36)));
    }
}
