//! A conversation as a request of Bedrock's Converse.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::translate::anthropic::request::{Thought, sampling_beside_thinking, write_thinking};
use crate::translate::form::{
    Cache, CannotCarry, Content, Conversation, Document, Dropped, Effort, Json, Options, OutputFormat,
    Reasoning, ReasoningMode, Sampling, Source, Thinking, ToolChoice, ToolResult, ToolUse, Written,
};
use crate::translate::join::{Placed, joined};
use crate::translate::media;
use crate::translate::path::strict_segment;
use crate::translate::text::{Writer, list, single};

pub(super) fn write(conversation: &Conversation, options: Options) -> Result<Written, CannotCarry> {
    let mut request =
        Request { family: Family::of(&conversation.model), documents: HashSet::new(), dropped: Vec::new() };
    let thought = match request.family {
        Family::Anthropic => Some(write_thinking(conversation, options, &mut request.dropped)),
        _ => None,
    };
    let body = request.body(conversation, thought.as_ref());
    let dropped = request.dropped;
    options.judge(&dropped)?;
    if matches!(conversation.model.as_str(), "" | "." | "..") {
        return Err(CannotCarry { dropped: vec![Dropped::meaning("model", "model")] });
    }
    let verb = if conversation.stream { "converse-stream" } else { "converse" };
    let path = format!("/model/{}/{verb}", strict_segment(&conversation.model));
    Ok(Written { path, headers: Vec::new(), body: body.into_bytes(), dropped })
}

/// Whose model it is: what Converse has no common field for goes in each one's own words. The ARN of an inference
/// profile of one's own names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Anthropic,
    Nova,
    OpenAi,
    Other,
}

impl Family {
    fn of(model: &str) -> Self {
        [("anthropic.", Self::Anthropic), ("amazon.nova", Self::Nova), ("openai.", Self::OpenAi)]
            .into_iter()
            .find(|(word, _)| model.contains(word))
            .map_or(Self::Other, |(_, family)| family)
    }
}

struct Request {
    family: Family,
    /// Names of documents so far: no two may have the same.
    documents: HashSet<String>,
    dropped: Vec<Dropped>,
}

impl Request {
    fn body(&mut self, conversation: &Conversation, thought: Option<&Thought>) -> String {
        let (system, turns) = joined(conversation, &mut self.dropped);
        let mut messages = Vec::new();
        let last = turns.len().saturating_sub(1);
        for (at, turn) in turns.iter().enumerate() {
            let mut content = self.blocks(&turn.parts);
            if let Some(cache) = conversation.cache.as_ref().filter(|_| at == last && !content.is_empty()) {
                content.push(self.cache_point("cache_control", cache));
            }
            if !content.is_empty() {
                let role = if turn.assistant { "assistant" } else { "user" };
                messages.push(Writer::new().text("role", role).raw("content", &list(&content)).end());
            }
        }
        let mut body = Writer::new();
        body.raw("messages", &list(&messages));
        let system = self.system(&system);
        if !system.is_empty() {
            body.raw("system", &list(&system));
        }
        let is_thinking = thought.is_some_and(|thought| thought.is_on);
        let sampling = sampling_beside_thinking(&conversation.sampling, is_thinking, &mut self.dropped);
        let config = self.config(&sampling, thought);
        if !config.is_empty() {
            body.raw("inferenceConfig", &config.end());
        }
        self.tools(conversation, &mut body);
        self.output(conversation, thought, &mut body);
        self.additional(conversation, &sampling, thought, &mut body);
        self.labels(conversation, &mut body);
        body.end()
    }

    fn system(&mut self, parts: &[Placed<'_>]) -> Vec<String> {
        let mut blocks = Vec::new();
        for Placed { path, part } in parts {
            match &part.content {
                Content::Text(text) => blocks.extend(text_block(text)),
                _ => self.dropped.push(Dropped::meaning(path, "unknown_part")),
            }
            self.mark(path, part.cache.as_ref(), &mut blocks);
        }
        blocks
    }

    fn blocks(&mut self, parts: &[Placed<'_>]) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut has_text = false;
        let mut title = None;
        for Placed { path, part } in parts {
            match &part.content {
                Content::Text(text) | Content::Refusal(text) => {
                    let block = text_block(text);
                    has_text |= block.is_some();
                    blocks.extend(block);
                }
                Content::Document(document) => {
                    if let Some(block) = self.document(path, document) {
                        blocks.push(block);
                        title.get_or_insert(document.title.as_deref().unwrap_or_default());
                    }
                }
                Content::ToolUse(call) => blocks.push(self.call(path, call)),
                Content::ToolResult(result) => blocks.push(self.result(path, result)),
                Content::Thinking(thinking) => blocks.extend(self.thinking(path, thinking)),
                content => blocks.extend(self.media(path, content)),
            }
            if part.signature.is_some() {
                self.dropped.push(Dropped::hint(format!("{path}.signature"), "signature"));
            }
            self.mark(path, part.cache.as_ref(), &mut blocks);
        }
        // Bedrock refuses a document in a message without a text, and a blank one is none.
        if let Some(title) = title.filter(|_| !has_text) {
            blocks.extend(text_block(title).or_else(|| text_block("document")));
        }
        blocks
    }

    fn call(&mut self, path: &str, call: &ToolUse) -> String {
        let input = Json::object(&call.arguments).unwrap_or_else(|| {
            if !call.arguments.trim().is_empty() {
                self.dropped.push(Dropped::meaning(path, "arguments_no_object"));
            }
            Json::empty_object()
        });
        let mut block = Writer::new();
        block.text("toolUseId", &call_id(&call.id)).text("name", &call.name).json("input", &input);
        single("toolUse", &block.end())
    }

    fn result(&mut self, path: &str, result: &ToolResult) -> String {
        let mut content = Vec::new();
        for (at, part) in result.parts.iter().enumerate() {
            let path = format!("{path}.content[{at}]");
            match &part.content {
                Content::Text(text) => content.extend(text_block(text)),
                other => content.extend(self.media(&path, other)),
            }
            if part.cache.is_some() {
                // Within a result there are no marks.
                self.dropped.push(Dropped::hint(format!("{path}.cache_control"), "cache_control"));
            }
        }
        if content.is_empty() {
            // An empty text is refused.
            content.push(single("json", "{}"));
        }
        let mut block = Writer::new();
        block.text("toolUseId", &call_id(&result.id)).raw("content", &list(&content));
        // Not every model knows the status: it is said only where it says something.
        if result.is_error {
            block.text("status", "error");
        }
        single("toolResult", &block.end())
    }

    fn thinking(&mut self, path: &str, thinking: &Thinking) -> Option<String> {
        let reasoning = match (&thinking.redacted, &thinking.signature) {
            (Some(redacted), _) => single("redactedContent", Json::string(&STANDARD.encode(redacted)).text()),
            (None, Some(signature)) => {
                let mut text = Writer::new();
                text.text("text", &thinking.text).text("signature", signature);
                single("reasoningText", &text.end())
            }
            // Anthropic's models refuse thoughts without a signature; no other model needs its own back.
            (None, None) => {
                self.dropped.push(Dropped::hint(path, "thinking"));
                return None;
            }
        };
        Some(single("reasoningContent", &reasoning))
    }

    /// An image, a document, audio.
    fn media(&mut self, path: &str, content: &Content) -> Option<String> {
        match content {
            Content::Image(source) => self.sourced(path, source, "image", image_format),
            Content::Audio(source) => self.sourced(path, source, "audio", audio_format),
            Content::Document(document) => self.document(path, document),
            _ => {
                self.dropped.push(Dropped::meaning(path, "unknown_part"));
                None
            }
        }
    }

    fn sourced(
        &mut self,
        path: &str,
        source: &Source,
        kind: &'static str,
        format: fn(&str) -> Option<&'static str>,
    ) -> Option<String> {
        let (media_type, source) = self.source(path, source)?;
        let Some(format) = media_type.as_deref().and_then(format) else {
            self.dropped.push(Dropped::meaning(path, "media_type"));
            return None;
        };
        Some(single(kind, &Writer::new().text("format", format).raw("source", &source).end()))
    }

    fn document(&mut self, path: &str, document: &Document) -> Option<String> {
        let (media_type, source) = match &document.source {
            Source::Text(text) => (Some("text/plain".to_owned()), single("text", Json::string(text).text())),
            source => self.source(path, source)?,
        };
        let Some(format) = media_type.as_deref().and_then(document_format) else {
            self.dropped.push(Dropped::meaning(path, "document_type"));
            return None;
        };
        let name = self.document_name(document.title.as_deref());
        let mut block = Writer::new();
        block.text("format", format).text("name", &name).raw("source", &source);
        if let Some(context) = &document.context {
            block.text("context", context);
        }
        Some(single("document", &block.end()))
    }

    /// A name that Bedrock takes (letters, digits, single spaces, `-`, parentheses and brackets) and that no other
    /// document has.
    fn document_name(&mut self, title: Option<&str>) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '(' | ')' | '[' | ']');
        let plain: String =
            title.unwrap_or_default().chars().take(150).map(|c| if fits(c) { c } else { ' ' }).collect();
        let words: Vec<&str> = plain.split_ascii_whitespace().collect();
        let name = if words.is_empty() { "document".to_owned() } else { words.join(" ") };
        let mut unique = name.clone();
        let mut number = 2;
        while !self.documents.insert(unique.clone()) {
            unique = format!("{name} ({number})");
            number += 1;
        }
        unique
    }

    /// Where the bytes are, and of which media type: in the request, or in S3.
    fn source(&mut self, path: &str, source: &Source) -> Option<(Option<String>, String)> {
        let in_s3 = |uri: &str| single("s3Location", &single("uri", Json::string(uri).text()));
        match source {
            Source::Base64 { media_type, data } => {
                let kind = media::essence(media_type);
                Some((Some(kind), single("bytes", Json::string(data).text())))
            }
            Source::Url { url, media_type } if url.starts_with("s3://") => {
                let told = media_type.as_deref().map(media::essence);
                Some((told.or_else(|| media::of_url(url).map(str::to_owned)), in_s3(url)))
            }
            Source::Url { .. } => {
                // Bedrock fetches nothing.
                self.dropped.push(Dropped::meaning(path, "url"));
                None
            }
            Source::File { .. } => {
                self.dropped.push(Dropped::meaning(path, "uploaded_file"));
                None
            }
            Source::Text(text) => Some((
                Some("text/plain".into()),
                single("bytes", Json::string(&STANDARD.encode(text)).text()),
            )),
        }
    }

    fn config(&mut self, sampling: &Sampling, thought: Option<&Thought>) -> Writer {
        let mut config = Writer::new();
        // A budget for thinking is part of the bound.
        let with_thinking =
            thought.filter(|thought| thought.thinking.is_some()).map(|thought| thought.max_tokens);
        if let Some(most) = with_thinking.or(sampling.max_output_tokens) {
            config.integer("maxTokens", most);
        }
        match &sampling.temperature {
            Some(hot) if hot.number().is_some_and(|hot| hot > 1.0) => {
                self.dropped.push(Dropped::meaning("temperature", "temperature_above_1"));
                config.integer("temperature", 1);
            }
            temperature => {
                config.maybe("temperature", temperature.as_ref());
            }
        }
        config.maybe("topP", sampling.top_p.as_ref());
        if !sampling.stop.is_empty() {
            config.texts("stopSequences", &sampling.stop);
        }
        for (key, there) in [
            ("seed", sampling.seed.is_some()),
            ("presence_penalty", sampling.presence_penalty.as_ref().is_some_and(says)),
            ("frequency_penalty", sampling.frequency_penalty.as_ref().is_some_and(says)),
        ] {
            if there {
                self.dropped.push(Dropped::hint(key, key));
            }
        }
        config
    }

    fn tools(&mut self, conversation: &Conversation, body: &mut Writer) {
        let mut tools = Vec::new();
        let earlier = conversation.tools_of_earlier_calls();
        if !earlier.is_empty() {
            // There is no word for a tool that may not be called.
            self.dropped.push(Dropped::hint("tools", "tools_of_earlier_calls"));
        }
        for (at, tool) in conversation.tools.iter().chain(&earlier).enumerate() {
            let mut spec = Writer::new();
            spec.text("name", &tool.name);
            if let Some(description) = tool.description.as_ref().filter(|text| !text.is_empty()) {
                spec.text("description", description);
            }
            let none = r#"{"type":"object","properties":{}}"#;
            spec.raw("inputSchema", &single("json", tool.schema.as_ref().map_or(none, Json::text)));
            if let Some(strict) = tool.strict {
                spec.boolean("strict", strict);
            }
            tools.push(single("toolSpec", &spec.end()));
            self.mark(&format!("tools[{at}]"), tool.cache.as_ref(), &mut tools);
        }
        if tools.is_empty() {
            return;
        }
        let mut config = Writer::new();
        config.raw("tools", &list(&tools));
        match conversation.tool_choice.as_ref().filter(|_| earlier.is_empty()) {
            None => {}
            Some(ToolChoice::Auto) => {
                config.raw("toolChoice", r#"{"auto":{}}"#);
            }
            Some(ToolChoice::Required) => {
                config.raw("toolChoice", r#"{"any":{}}"#);
            }
            Some(ToolChoice::Tool(name)) => {
                config.raw("toolChoice", &single("tool", &Writer::new().text("name", name).end()));
            }
            // There is no word for it, and without the tools their earlier calls are refused.
            Some(ToolChoice::None) => self.dropped.push(Dropped::meaning("tool_choice", "tool_choice")),
        }
        body.raw("toolConfig", &config.end());
        if conversation.parallel_tools == Some(false) && earlier.is_empty() {
            self.dropped.push(Dropped::meaning("parallel_tool_calls", "one_call_at_a_time"));
        }
    }

    fn output(&mut self, conversation: &Conversation, thought: Option<&Thought>, body: &mut Writer) {
        let mut config = Writer::new();
        match &conversation.output {
            None => {}
            Some(OutputFormat::JsonObject) => {
                self.dropped.push(Dropped::meaning("response_format", "json_object"));
            }
            Some(OutputFormat::JsonSchema { name, description, schema, strict: _ }) => {
                let mut json = Writer::new();
                json.text("schema", schema.text());
                for (key, value) in [("name", name), ("description", description)] {
                    if let Some(value) = value {
                        json.text(key, value);
                    }
                }
                let mut format = Writer::new();
                format.text("type", "json_schema").raw("structure", &single("jsonSchema", &json.end()));
                config.raw("textFormat", &format.end());
            }
        }
        if let Some(effort) = thought.and_then(|thought| thought.effort) {
            config.text("effort", effort.word());
        }
        if !config.is_empty() {
            body.raw("outputConfig", &config.end());
        }
    }

    /// What Converse has no field for, in the words of the model's own API.
    fn additional(
        &mut self,
        conversation: &Conversation,
        sampling: &Sampling,
        thought: Option<&Thought>,
        body: &mut Writer,
    ) {
        let mut fields = Writer::new();
        if let Some(top_k) = &sampling.top_k {
            match self.family {
                Family::Anthropic => {
                    fields.json("top_k", top_k);
                }
                Family::Nova => {
                    fields.raw("inferenceConfig", &single("topK", top_k.text()));
                }
                Family::OpenAi | Family::Other => self.dropped.push(Dropped::hint("top_k", "top_k")),
            }
        }
        if let Some(thinking) = thought.and_then(|thought| thought.thinking.as_ref()) {
            fields.raw("thinking", thinking);
        }
        if let Some(reasoning) = &conversation.reasoning {
            self.reasoning(reasoning, &mut fields);
        }
        if !fields.is_empty() {
            body.raw("additionalModelRequestFields", &fields.end());
        }
        if self.family == Family::Anthropic && !conversation.sampling.stop.is_empty() {
            // Which of the stop texts came is told only where it is asked for.
            body.raw("additionalModelResponseFieldPaths", r#"["/stop_sequence"]"#);
        }
    }

    fn reasoning(&mut self, reasoning: &Reasoning, fields: &mut Writer) {
        match self.family {
            // Told already.
            Family::Anthropic => {}
            Family::Nova if reasoning.mode == Some(ReasoningMode::Off) => {
                fields.raw("reasoningConfig", r#"{"type":"disabled"}"#);
            }
            Family::Nova => {
                if let Some(effort) = effort(reasoning) {
                    let word = nova_word(effort);
                    let mut config = Writer::new();
                    config.text("type", "enabled").text("maxReasoningEffort", word);
                    fields.raw("reasoningConfig", &config.end());
                }
            }
            Family::OpenAi | Family::Other if reasoning.mode == Some(ReasoningMode::Off) => {
                self.dropped.push(Dropped::hint("reasoning.mode", "reasoning_off"));
            }
            Family::OpenAi => {
                if let Some(effort) = effort(reasoning) {
                    let word = nova_word(effort);
                    fields.text("reasoning_effort", word);
                }
            }
            Family::Other => {
                if effort(reasoning).is_some() {
                    self.dropped.push(Dropped::hint("reasoning", "reasoning_effort"));
                }
            }
        }
    }

    fn labels(&mut self, conversation: &Conversation, body: &mut Writer) {
        match conversation.service_tier.as_deref() {
            None | Some("auto") => {}
            Some("default" | "standard" | "standard_only") => {
                body.raw("serviceTier", r#"{"type":"default"}"#);
            }
            Some(tier @ ("flex" | "priority")) => {
                body.raw("serviceTier", &single("type", Json::string(tier).text()));
            }
            Some(_) => self.dropped.push(Dropped::hint("service_tier", "service_tier")),
        }
        let mut metadata = Writer::new();
        let mut left = 16;
        for (name, value) in &conversation.metadata {
            if left > 0 && is_label(name, 1) && is_label(value, 0) {
                metadata.text(name, value);
                left -= 1;
            } else {
                self.dropped.push(Dropped::hint("metadata", "metadata"));
            }
        }
        if !metadata.is_empty() {
            body.raw("requestMetadata", &metadata.end());
        }
        if conversation.user.is_some() {
            self.dropped.push(Dropped::hint("user", "user"));
        }
    }

    /// A cache mark behind what it belongs to.
    fn mark(&mut self, path: &str, cache: Option<&Cache>, blocks: &mut Vec<String>) {
        if let Some(cache) = cache.filter(|_| !blocks.is_empty()) {
            let point = self.cache_point(&format!("{path}.cache_control"), cache);
            // Two in a row are one.
            if blocks.last() != Some(&point) {
                blocks.push(point);
            }
        }
    }

    fn cache_point(&mut self, path: &str, cache: &Cache) -> String {
        let mut point = Writer::new();
        point.text("type", "default");
        match cache.ttl.as_deref() {
            None => {}
            Some(ttl @ ("5m" | "1h")) => {
                point.text("ttl", ttl);
            }
            Some(_) => self.dropped.push(Dropped::hint(format!("{path}.ttl"), "cache_ttl")),
        }
        single("cachePoint", &point.end())
    }
}

/// A text block; none for what Bedrock takes for blank.
fn text_block(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| single("text", Json::string(text).text()))
}

/// An id that Bedrock takes: as it is, or its hash in place of one that another provider made.
fn call_id(id: &str) -> String {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if (1..=64).contains(&id.len()) && id.bytes().all(fits) {
        return id.to_owned();
    }
    let hash = Sha256::digest(id.as_bytes());
    format!("call_{}", hex::encode(hash.get(..16).unwrap_or_default()))
}

/// Whether a penalty is one.
fn says(penalty: &Json) -> bool {
    penalty.number() != Some(0.0)
}

/// Whether `text` may be a label's name or value.
fn is_label(text: &str, least: usize) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == ' ' || ":_@$#=/+,-.".contains(c);
    (least..=256).contains(&text.len()) && text.chars().all(fits)
}

/// How hard, by word or by budget.
fn effort(reasoning: &Reasoning) -> Option<Effort> {
    let of_mode = match reasoning.mode {
        Some(ReasoningMode::Budget(tokens)) => Some(Effort::of_budget(tokens)),
        _ => None,
    };
    reasoning.effort.or(of_mode)
}

/// One of the three words that there are.
fn nova_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::XHigh | Effort::Max => "high",
    }
}

fn image_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => return None,
    })
}

fn audio_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "audio/mpeg" | "audio/mp3" => "mp3",
        "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
        "audio/aac" => "aac",
        "audio/flac" => "flac",
        "audio/ogg" => "ogg",
        "audio/opus" => "opus",
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" => "m4a",
        "audio/webm" => "webm",
        "audio/pcm" | "audio/pcm16" => "pcm",
        _ => return None,
    })
}

fn document_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "application/pdf" => "pdf",
        "text/csv" => "csv",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "text/html" => "html",
        "text/plain" => "txt",
        "text/markdown" => "md",
        _ => return None,
    })
}
