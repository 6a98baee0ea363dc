//! A conversation as a request of Gemini's `generateContent`.
//! <https://ai.google.dev/api/generate-content>

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::schema::cleaned;
use crate::translate::form::{
    CannotCarry, Content, Conversation, Document, Dropped, Effort, Json, Options, OutputFormat, Part,
    Reasoning, ReasoningMode, Source, ToolChoice, ToolResult, ToolUse, Written,
};
use crate::translate::join::{Placed, joined};
use crate::translate::media;

use crate::translate::path::segment;
use crate::translate::text::{Writer, list, single, under};

/// In place of a signature that the caller lost: Gemini 3 refuses a call in its history that has none. What Google says
/// for histories of other models: <https://ai.google.dev/gemini-api/docs/thought-signatures>
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The largest thinking budget that every model of version 2.5 takes.
const LARGEST_BUDGET: i64 = 24_576;

pub(super) fn write(
    vertex: bool,
    conversation: &Conversation,
    options: Options,
) -> Result<Written, CannotCarry> {
    let mut request =
        Request { version: Version::of(&conversation.model), names: HashMap::new(), dropped: Vec::new() };
    let body = request.body(conversation);
    let dropped = request.dropped;
    options.judge(&dropped)?;
    let path = path(vertex, &conversation.model, conversation.stream)?;
    Ok(Written { path, headers: Vec::new(), body: body.into_bytes(), dropped })
}

/// Where the model is asked. At Vertex AI a model is named in full (`projects/p/locations/l/publishers/google/models/m`),
/// but for those that a key alone opens.
fn path(vertex: bool, model: &str, stream: bool) -> Result<String, CannotCarry> {
    // It must not lead out of the path.
    if model.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(CannotCarry { dropped: vec![Dropped::meaning("model", "model")] });
    }
    let verb = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let full = model.split('/').map(segment).collect::<Vec<_>>().join("/");
    let (version, before) = match (vertex, model.contains('/')) {
        (true, true) => ("v1", ""),
        (true, false) => ("v1", "publishers/google/models/"),
        (false, true) => ("v1beta", ""),
        (false, false) => ("v1beta", "models/"),
    };
    Ok(format!("/{version}/{before}{full}:{verb}"))
}

/// What a model's name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    /// `3` of `gemini-3.1-pro`; absent for other names.
    major: Option<u32>,
    pro: bool,
}

impl Version {
    fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or_default();
        let digits =
            name.strip_prefix("gemini-").map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        Self { major: digits.flatten().and_then(|digits| digits.parse().ok()), pro: name.contains("-pro") }
    }
    /// Levels of thinking, signatures that have to be there, media within results.
    fn is_third_or_later(self) -> bool {
        self.major.is_some_and(|major| major >= 3)
    }
}

struct Request<'c> {
    version: Version,
    /// The names of the calls so far, by their ids: a result names its tool too.
    names: HashMap<&'c str, &'c str>,
    dropped: Vec<Dropped>,
}

impl<'c> Request<'c> {
    fn body(&mut self, conversation: &'c Conversation) -> String {
        let (system, turns) = joined(conversation, &mut self.dropped);
        let mut contents = Vec::new();
        for turn in &turns {
            let parts = self.parts(&turn.parts);
            if !parts.is_empty() {
                let role = if turn.assistant { "model" } else { "user" };
                contents.push(Writer::new().text("role", role).raw("parts", &list(&parts)).end());
            }
        }
        let mut body = Writer::new();
        body.raw("contents", &list(&contents));
        let system = self.system(&system);
        if !system.is_empty() {
            body.raw("systemInstruction", &single("parts", &list(&system)));
        }
        self.tools(conversation, &mut body);
        let config = self.config(conversation);
        if !config.is_empty() {
            body.raw("generationConfig", &config.end());
        }
        self.service_tier(conversation, &mut body);
        self.hints(conversation);
        body.end()
    }

    fn system(&mut self, parts: &[Placed<'c>]) -> Vec<String> {
        let mut written = Vec::new();
        for Placed { path, part } in parts {
            self.cache(path, part.cache.is_some());
            match &part.content {
                Content::Text(text) if text.is_empty() => {}
                Content::Text(text) => written.push(Writer::new().text("text", text).end()),
                _ => self.dropped.push(Dropped::meaning(path, "unknown_part")),
            }
        }
        written
    }

    fn parts(&mut self, parts: &[Placed<'c>]) -> Vec<String> {
        let (mut written, mut behind) = (Vec::new(), Vec::new());
        let mut calls = 0_usize;
        for Placed { path, part } in parts {
            self.cache(path, part.cache.is_some());
            if !matches!(part.content, Content::ToolResult(_)) {
                written.append(&mut behind);
            }
            match &part.content {
                Content::Text(text) | Content::Refusal(text) => {
                    let signature = signature(part.signature.as_deref());
                    if !text.is_empty() || signature.is_some() {
                        written.push(signed(Writer::new().text("text", text), signature));
                    }
                }
                Content::Thinking(thinking) => match signature(thinking.signature.as_deref()) {
                    Some(signature) if thinking.redacted.is_none() => {
                        let mut thought = Writer::new();
                        thought.text("text", &thinking.text).boolean("thought", true);
                        written.push(signed(&mut thought, Some(signature)));
                    }
                    // Gemini reads nothing out of thoughts that it cannot tell for its own.
                    _ => self.dropped.push(Dropped::hint(path, "thinking")),
                },
                Content::ToolUse(call) => {
                    written.push(self.call(path, part, call, calls == 0));
                    calls += 1;
                }
                Content::ToolResult(result) => written.extend(self.result(path, result, &mut behind)),
                _ => written.extend(self.media(path, part)),
            }
        }
        written.append(&mut behind);
        written
    }

    fn call(&mut self, path: &str, part: &Part, call: &'c ToolUse, first: bool) -> String {
        self.names.insert(&call.id, &call.name);
        let mut function = Writer::new();
        if !call.id.is_empty() {
            function.text("id", &call.id);
        }
        function.text("name", &call.name);
        let arguments = match Json::object(&call.arguments) {
            Some(arguments) => arguments,
            None => {
                if !call.arguments.trim().is_empty() {
                    self.dropped.push(Dropped::meaning(path, "arguments_no_object"));
                }
                Json::empty_object()
            }
        };
        function.raw("args", arguments.text());
        let mut signature = signature(part.signature.as_deref());
        if signature.is_none() && first && self.version.is_third_or_later() {
            self.dropped.push(Dropped::hint(path, "thought_signature"));
            signature = Some(NO_SIGNATURE);
        }
        signed(Writer::new().raw("functionCall", &function.end()), signature)
    }

    /// A result; what of it is no text stands in it, or, for models before version 3, behind all results of the turn.
    fn result(&mut self, path: &str, result: &'c ToolResult, behind: &mut Vec<String>) -> Option<String> {
        let Some(name) = self.names.get(result.id.as_str()) else {
            self.dropped.push(Dropped::meaning(path, "tool_result_without_call"));
            return None;
        };
        let mut function = Writer::new();
        function.text("id", &result.id).text("name", name);
        let (mut texts, mut media) = (Vec::new(), Vec::new());
        for (at, part) in result.parts.iter().enumerate() {
            let path = format!("{path}.content[{at}]");
            self.cache(&path, part.cache.is_some());
            match &part.content {
                Content::Text(text) => texts.push(text.as_str()),
                _ => media.extend(self.media(&path, part)),
            }
        }
        function.raw("response", &response(&texts, result.is_error));
        if !self.version.is_third_or_later() {
            behind.append(&mut media);
        } else if !media.is_empty() {
            function.raw("parts", &list(&media));
        }
        Some(single("functionResponse", &function.end()))
    }

    /// An image, a document, audio.
    fn media(&mut self, path: &str, part: &Part) -> Vec<String> {
        let mut written = Vec::new();
        let source = match &part.content {
            Content::Image(source) | Content::Audio(source) => source,
            Content::Document(Document { source, title, context }) => {
                if title.is_some() {
                    self.dropped.push(Dropped::hint(format!("{path}.title"), "document_title"));
                }
                if let Some(context) = context {
                    written.push(Writer::new().text("text", context).end());
                }
                source
            }
            _ => {
                self.dropped.push(Dropped::meaning(path, "unknown_part"));
                return written;
            }
        };
        written.extend(self.source(path, source));
        written
    }

    fn source(&mut self, path: &str, source: &Source) -> Option<String> {
        let inline = |media_type: &str, data: &str| {
            single("inlineData", &Writer::new().text("mimeType", media_type).text("data", data).end())
        };
        let file = |uri: &str, media_type: Option<&str>| {
            let mut file = Writer::new();
            if let Some(media_type) = media_type.or_else(|| media::of_url(uri)) {
                file.text("mimeType", media_type);
            }
            single("fileData", &file.text("fileUri", uri).end())
        };
        match source {
            Source::Base64 { media_type, data } => Some(inline(media_type, data)),
            Source::Text(text) => Some(inline("text/plain", &STANDARD.encode(text))),
            Source::Url { url, media_type } => Some(file(url, media_type.as_deref())),
            Source::File { id } if id.starts_with("gs://") || id.starts_with("https://") => {
                Some(file(id, None))
            }
            Source::File { .. } => {
                self.dropped.push(Dropped::meaning(path, "uploaded_file"));
                None
            }
        }
    }

    fn tools(&mut self, conversation: &Conversation, body: &mut Writer) {
        let mut declarations = Vec::new();
        for (at, tool) in conversation.tools.iter().enumerate() {
            let path = format!("tools[{at}]");
            self.cache(&path, tool.cache.is_some());
            if tool.strict == Some(true) {
                self.dropped.push(Dropped::hint(format!("{path}.strict"), "strict"));
            }
            let mut declaration = Writer::new();
            declaration.text("name", &tool.name);
            if let Some(description) = &tool.description {
                declaration.text("description", description);
            }
            if let Some(schema) = &tool.schema {
                let schema = cleaned(schema, &format!("{path}.schema"), &mut self.dropped);
                declaration.raw("parametersJsonSchema", &schema);
            }
            declarations.push(declaration.end());
        }
        if !declarations.is_empty() {
            body.raw("tools", &list(&[single("functionDeclarations", &list(&declarations))]));
        }
        if let Some(choice) = conversation.tool_choice.as_ref().filter(|_| !declarations.is_empty()) {
            let mut calling = Writer::new();
            calling.text(
                "mode",
                match choice {
                    ToolChoice::Auto => "AUTO",
                    ToolChoice::None => "NONE",
                    ToolChoice::Required | ToolChoice::Tool(_) => "ANY",
                },
            );
            if let ToolChoice::Tool(name) = choice {
                calling.texts("allowedFunctionNames", std::slice::from_ref(name));
            }
            body.raw("toolConfig", &single("functionCallingConfig", &calling.end()));
        }
        if conversation.parallel_tools == Some(false) && !declarations.is_empty() {
            self.dropped.push(Dropped::meaning("parallel_tool_calls", "one_call_at_a_time"));
        }
    }

    fn config(&mut self, conversation: &Conversation) -> Writer {
        let sampling = &conversation.sampling;
        let mut config = Writer::new();
        config.maybe("temperature", sampling.temperature.as_ref());
        config.maybe("topP", sampling.top_p.as_ref());
        config.maybe("topK", sampling.top_k.as_ref());
        if let Some(most) = sampling.max_output_tokens {
            config.integer("maxOutputTokens", most);
        }
        if !sampling.stop.is_empty() {
            config.texts("stopSequences", &sampling.stop);
        }
        config.maybe("seed", sampling.seed.as_ref());
        config.maybe("presencePenalty", sampling.presence_penalty.as_ref());
        config.maybe("frequencyPenalty", sampling.frequency_penalty.as_ref());
        match &conversation.output {
            None => {}
            Some(OutputFormat::JsonObject) => {
                config.text("responseMimeType", "application/json");
            }
            Some(OutputFormat::JsonSchema { description, schema, .. }) => {
                // The name says nothing to the model.
                if description.is_some() {
                    let path = "response_format.json_schema.description";
                    self.dropped.push(Dropped::hint(path, "schema_description"));
                }
                config.text("responseMimeType", "application/json");
                config.raw(
                    "responseJsonSchema",
                    &cleaned(schema, "response_format.json_schema.schema", &mut self.dropped),
                );
            }
        }
        if let Some(thinking) = conversation.reasoning.as_ref().and_then(|reasoning| self.thinking(reasoning))
        {
            config.raw("thinkingConfig", &thinking);
        }
        config
    }

    /// A level from version 3 on, else a budget. A budget that the caller gives stays one: version 3 takes it too.
    fn thinking(&mut self, reasoning: &Reasoning) -> Option<String> {
        let mut config = Writer::new();
        let budget = |config: &mut Writer, tokens: i64| {
            config.integer("thinkingBudget", tokens);
        };
        match (reasoning.mode, reasoning.effort) {
            (Some(ReasoningMode::Off), _) if self.version.is_third_or_later() => {
                self.dropped.push(Dropped::hint("reasoning.mode", "reasoning_off"));
                let level = self.level(Effort::Minimal);
                config.text("thinkingLevel", level);
            }
            (Some(ReasoningMode::Off), _) => budget(&mut config, 0),
            (Some(ReasoningMode::Budget(tokens)), _) => budget(&mut config, tokens),
            (_, Some(effort)) if self.version.is_third_or_later() => {
                let level = self.level(effort);
                config.text("thinkingLevel", level);
            }
            (_, Some(effort)) => budget(&mut config, effort.budget_tokens().min(LARGEST_BUDGET)),
            (Some(ReasoningMode::Adaptive), None) if !self.version.is_third_or_later() => {
                budget(&mut config, -1)
            }
            (Some(ReasoningMode::Adaptive) | None, None) => {}
        }
        // Who sets a mode speaks a dialect that shows thoughts unless told otherwise.
        let shows = matches!(reasoning.mode, Some(ReasoningMode::Adaptive | ReasoningMode::Budget(_)));
        if reasoning.show.unwrap_or(shows) {
            config.boolean("includeThoughts", true);
        }
        (!config.is_empty()).then(|| config.end())
    }

    fn level(&mut self, effort: Effort) -> &'static str {
        match effort {
            Effort::Minimal if self.version.pro => "LOW",
            Effort::Minimal => "MINIMAL",
            Effort::Low => "LOW",
            Effort::Medium => "MEDIUM",
            Effort::High => "HIGH",
            Effort::XHigh | Effort::Max => {
                self.dropped.push(Dropped::hint("reasoning.effort", "reasoning_effort"));
                "HIGH"
            }
        }
    }

    fn service_tier(&mut self, conversation: &Conversation, body: &mut Writer) {
        match conversation.service_tier.as_deref() {
            None | Some("auto") => {}
            Some("default" | "standard" | "standard_only") => {
                body.text("serviceTier", "standard");
            }
            Some(tier @ ("flex" | "priority")) => {
                body.text("serviceTier", tier);
            }
            Some(_) => self.dropped.push(Dropped::hint("service_tier", "service_tier")),
        }
    }

    /// What there is no place for.
    fn hints(&mut self, conversation: &Conversation) {
        self.cache("", conversation.cache.is_some());
        if conversation.user.is_some() {
            self.dropped.push(Dropped::hint("user", "user"));
        }
        if !conversation.metadata.is_empty() {
            self.dropped.push(Dropped::hint("metadata", "metadata"));
        }
    }

    /// Gemini caches what it likes.
    fn cache(&mut self, path: &str, marked: bool) {
        if marked {
            self.dropped.push(Dropped::hint(under(path, "cache_control"), "cache_control"));
        }
    }
}

/// A signature that can be one: it is base64 there.
fn signature(signature: Option<&str>) -> Option<&str> {
    let coded = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=');
    signature.filter(|signature| !signature.is_empty() && signature.chars().all(coded))
}

fn signed(part: &mut Writer, signature: Option<&str>) -> String {
    if let Some(signature) = signature {
        part.text("thoughtSignature", signature);
    }
    part.end()
}

/// What a tool gave, as an object: its own, where it is one.
fn response(texts: &[&str], is_error: bool) -> String {
    let quoted = |text: &&str| Json::string(text).text().to_owned();
    let key = if is_error { "error" } else { "output" };
    match texts {
        [] => single(key, "\"\""),
        [text] => match Json::object(text).filter(|_| !is_error) {
            Some(object) => object.text().to_owned(),
            None => single(key, &quoted(text)),
        },
        texts => single(key, &list(&texts.iter().map(quoted).collect::<Vec<_>>())),
    }
}
