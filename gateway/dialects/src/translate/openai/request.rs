//! Requests of chat completions.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::change::ChatBound;
use crate::translate::beginning::Beginning;
use crate::translate::form::{
    Cache, CannotCarry, Content, Conversation, Document, Dropped, Effort, Options, OutputFormat, Part,
    Reasoning, ReasoningMode, Role, Source, Thinking, Tool, ToolChoice, ToolResult, ToolUse, Turn,
    Unreadable, Weight, Written,
};
use crate::translate::openai::schema::strict_mode_takes;
use crate::translate::text::{Array, Object, Writer, elements};

use Weight::{Hint, Meaning};

/// Keys of a request that no other dialect has a word for.
const BESIDE: &[(&str, &str, Weight)] = &[
    ("audio", "audio_output", Meaning),
    ("function_call", "function_call", Meaning),
    ("functions", "functions", Meaning),
    ("logit_bias", "logit_bias", Meaning),
    ("logprobs", "logprobs", Meaning),
    ("top_logprobs", "logprobs", Meaning),
    ("moderation", "moderation", Meaning),
    ("web_search_options", "web_search", Meaning),
    ("prediction", "prediction", Hint),
    ("prompt_cache_key", "prompt_cache", Hint),
    ("prompt_cache_options", "prompt_cache", Hint),
    ("prompt_cache_retention", "prompt_cache", Hint),
    ("store", "store", Hint),
    ("verbosity", "verbosity", Hint),
];

/// Keys of a message that say nothing to the model, or that came with an answer.
const BESIDE_MESSAGE: &[(&str, &str, Weight)] = &[
    ("annotations", "annotations", Hint),
    ("audio", "audio_output", Meaning),
    ("function_call", "function_call", Meaning),
    ("id", "message_id", Hint),
    ("name", "name", Hint),
    ("reasoning", "thinking", Hint),
    ("reasoning_content", "thinking", Hint),
    ("reasoning_details", "thinking", Hint),
];

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<(Conversation, Vec<Dropped>), Unreadable> {
    let Beginning { mut request, mut conversation, messages } = Beginning::read(body)?;
    let mut dropped = Vec::new();
    for (path, message) in messages {
        read_message(&path, message, &mut conversation, &mut dropped)?;
    }
    for (path, tool) in request.array("tools")?.unwrap_or_default() {
        read_tool(&path, tool, &mut conversation.tools, &mut dropped)?;
    }
    conversation.tool_choice = read_choice(&mut request, &mut dropped)?;
    conversation.parallel_tools = request.boolean("parallel_tool_calls")?;
    read_sampling(&mut request, &mut conversation, &mut dropped)?;
    conversation.output = read_format(&mut request, &mut dropped)?;
    if let Some(effort) = request.text("reasoning_effort")? {
        conversation.reasoning = Some(match effort.as_str() {
            "none" => Reasoning { mode: Some(ReasoningMode::Off), ..Reasoning::default() },
            word => {
                let wanted = "none, minimal, low, medium, high, xhigh or max";
                let effort =
                    Effort::parse(word).ok_or_else(|| Unreadable::new("reasoning_effort", wanted))?;
                Reasoning { effort: Some(effort), ..Reasoning::default() }
            }
        });
    }
    let user = request.text("user")?;
    conversation.user = request.text("safety_identifier")?.or(user);
    if let Some(labels) = request.take("metadata") {
        let labels: std::collections::BTreeMap<String, String> =
            serde_json::from_str(labels).map_err(|_| Unreadable::new("metadata", "an object of strings"))?;
        conversation.metadata = labels.into_iter().collect();
    }
    conversation.service_tier = request.text("service_tier")?;
    conversation.stream = request.boolean("stream")?.unwrap_or(false);
    if let Some(mut options) = request.object("stream_options")? {
        conversation.stream_usage = options.boolean("include_usage")?.unwrap_or(false);
        options.rest(&[("include_obfuscation", "obfuscation", Hint)], &mut dropped);
    }
    if let Some(modalities) = request.take("modalities")
        && modalities.replace(char::is_whitespace, "") != r#"["text"]"#
    {
        dropped.push(Dropped::meaning("modalities", "audio_output"));
    }
    request.rest(BESIDE, &mut dropped);
    Ok((conversation, dropped))
}

fn read_sampling(
    request: &mut Object<'_>,
    conversation: &mut Conversation,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let sampling = &mut conversation.sampling;
    let older = request.integer("max_tokens")?;
    sampling.max_output_tokens = request.integer("max_completion_tokens")?.or(older);
    sampling.temperature = request.number("temperature")?;
    sampling.top_p = request.number("top_p")?;
    sampling.top_k = request.number("top_k")?;
    sampling.seed = request.number("seed")?;
    sampling.presence_penalty = request.number("presence_penalty")?;
    sampling.frequency_penalty = request.number("frequency_penalty")?;
    if let Some(stop) = request.take("stop") {
        sampling.stop = match crate::json::string(stop) {
            Some(one) => vec![one.into_owned()],
            None => serde_json::from_str(stop)
                .map_err(|_| Unreadable::new("stop", "a string or an array of strings"))?,
        };
    }
    if request.integer("n")?.is_some_and(|n| n != 1) {
        dropped.push(Dropped::meaning("n", "several_answers"));
    }
    if let Some(top) = request.integer("top_logprobs")?
        && top > 0
    {
        dropped.push(Dropped::meaning("top_logprobs", "logprobs"));
    }
    Ok(())
}

fn read_format(
    request: &mut Object<'_>,
    dropped: &mut Vec<Dropped>,
) -> Result<Option<OutputFormat>, Unreadable> {
    let Some(mut format) = request.object("response_format")? else { return Ok(None) };
    let read = match format.wanted("type")?.as_str() {
        "text" => None,
        "json_object" => Some(OutputFormat::JsonObject),
        "json_schema" => {
            let wanted = || Unreadable::new("response_format.json_schema.schema", "a JSON schema");
            let mut schema = format.object("json_schema")?.ok_or_else(wanted)?;
            let read = OutputFormat::JsonSchema {
                name: schema.text("name")?,
                description: schema.text("description")?,
                schema: schema.raw_object("schema")?.ok_or_else(wanted)?,
                strict: schema.boolean("strict")?,
            };
            schema.rest(&[], dropped);
            Some(read)
        }
        _ => return Err(Unreadable::new("response_format.type", "text, json_object or json_schema")),
    };
    format.rest(&[], dropped);
    Ok(read)
}

fn read_choice(
    request: &mut Object<'_>,
    dropped: &mut Vec<Dropped>,
) -> Result<Option<ToolChoice>, Unreadable> {
    let Some(choice) = request.take("tool_choice") else { return Ok(None) };
    let wanted = || Unreadable::new("tool_choice", "none, auto, required or a function");
    if let Some(word) = crate::json::string(choice) {
        return match word.as_ref() {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            "required" => Ok(Some(ToolChoice::Required)),
            _ => Err(wanted()),
        };
    }
    let mut choice = Object::read("tool_choice", choice)?;
    match choice.wanted("type")?.as_str() {
        "function" => {
            let mut function = choice.object("function")?.ok_or_else(wanted)?;
            Ok(Some(ToolChoice::Tool(function.wanted("name")?)))
        }
        "allowed_tools" => {
            dropped.push(Dropped::meaning("tool_choice", "allowed_tools"));
            Ok(None)
        }
        "custom" => {
            dropped.push(Dropped::meaning("tool_choice", "custom_tool"));
            Ok(None)
        }
        _ => Err(wanted()),
    }
}

fn read_tool(
    path: &str,
    tool: &str,
    tools: &mut Vec<Tool>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let mut tool = Object::read(path, tool)?;
    if tool.wanted("type")? != "function" {
        dropped.push(Dropped::meaning(path, "custom_tool"));
        return Ok(());
    }
    let wanted = || Unreadable::new(format!("{path}.function"), "a function");
    let mut function = tool.object("function")?.ok_or_else(wanted)?;
    tools.push(Tool {
        name: function.wanted("name")?,
        description: function.text("description")?,
        schema: function.raw_object("parameters")?,
        strict: function.boolean("strict")?,
        cache: read_cache(&mut tool)?,
    });
    function.rest(&[], dropped);
    tool.rest(&[], dropped);
    Ok(())
}

/// Anthropic's mark, which several clients of this dialect send along.
fn read_cache(part: &mut Object<'_>) -> Result<Option<Cache>, Unreadable> {
    let Some(mut mark) = part.object("cache_control")? else { return Ok(None) };
    Ok(Some(Cache { ttl: mark.text("ttl")? }))
}

fn read_message(
    path: &str,
    message: &str,
    conversation: &mut Conversation,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let mut message = Object::read(path, message)?;
    let role = message.wanted("role")?;
    let cache = read_cache(&mut message)?;
    let content = message.take("content");
    let content_path = message.path("content");
    let mut parts = Vec::new();
    if role == "assistant" {
        read_thinking(&mut message, &mut parts, dropped)?;
    }
    read_content(&content_path, content, &mut parts, dropped)?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => {
            if let Some(refusal) = read_refusal(&mut message, dropped)? {
                parts.push(Content::Refusal(refusal).into());
            }
            for (path, call) in message.array("tool_calls")?.unwrap_or_default() {
                read_call(&path, call, &mut parts, dropped)?;
            }
            Role::Assistant
        }
        "tool" => {
            let id = message.wanted("tool_call_id")?;
            parts = vec![Content::ToolResult(ToolResult { id, parts, is_error: false }).into()];
            Role::User
        }
        "function" => {
            dropped.push(Dropped::meaning(path, "function_call"));
            return Ok(());
        }
        _ => {
            let wanted = "system, developer, user, assistant or tool";
            return Err(Unreadable::new(message.path("role"), wanted));
        }
    };
    if let (Some(cache), Some(last)) = (cache, parts.last_mut()) {
        last.cache = Some(cache);
    }
    message.rest(BESIDE_MESSAGE, dropped);
    if role == Role::System && conversation.turns.is_empty() {
        conversation.system.append(&mut parts);
    } else {
        conversation.turns.push(Turn { role, parts });
    }
    Ok(())
}

/// A refusal of an earlier turn. LiteLLM puts it into `provider_specific_fields`, beside what an answer told of its own.
fn read_refusal(message: &mut Object<'_>, dropped: &mut Vec<Dropped>) -> Result<Option<String>, Unreadable> {
    let own = message.text("refusal")?;
    let Some(mut more) = message.object("provider_specific_fields")? else { return Ok(own) };
    let refusal = more.text("refusal")?;
    // They stand in the message too.
    more.take("thinking_blocks");
    more.rest(BESIDE_MESSAGE, dropped);
    Ok(own.or(refusal))
}

/// Thinking blocks that an answer of ours brought (`thinking_blocks`), with their signatures.
fn read_thinking(
    message: &mut Object<'_>,
    parts: &mut Vec<Part>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let blocks = message.array("thinking_blocks")?.unwrap_or_default();
    if !blocks.is_empty() {
        // The same text once more.
        message.take("reasoning_content");
    }
    for (path, block) in blocks {
        let mut block = Object::read(&path, block)?;
        let thinking = match block.wanted("type")?.as_str() {
            "thinking" => Thinking {
                text: block.text("thinking")?.unwrap_or_default(),
                signature: block.text("signature")?.filter(|s| !s.is_empty()),
                redacted: None,
            },
            "redacted_thinking" => Thinking { redacted: Some(block.wanted("data")?), ..Thinking::default() },
            _ => return Err(Unreadable::new(block.path("type"), "thinking or redacted_thinking")),
        };
        // Where a piece of a stream belongs.
        block.take("index");
        block.rest(&[("cache_control", "cache_control", Hint)], dropped);
        parts.push(Content::Thinking(thinking).into());
    }
    Ok(())
}

fn read_call(
    path: &str,
    call: &str,
    parts: &mut Vec<Part>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let mut call = Object::read(path, call)?;
    if call.text("type")?.is_some_and(|kind| kind != "function") {
        dropped.push(Dropped::meaning(path, "custom_tool"));
        return Ok(());
    }
    let id = call.wanted("id")?;
    let wanted = || Unreadable::new(format!("{path}.function"), "a function");
    let mut function = call.object("function")?.ok_or_else(wanted)?;
    let name = function.wanted("name")?;
    let arguments = function.text("arguments")?.unwrap_or_default();
    let signature = match call.object("extra_content")? {
        Some(mut extra) => match extra.object("google")? {
            Some(mut google) => google.text("thought_signature")?,
            None => None,
        },
        None => None,
    };
    function.rest(&[], dropped);
    // Where a piece of a stream belongs.
    call.take("index");
    call.rest(&[], dropped);
    let content = Content::ToolUse(ToolUse { id, name, arguments });
    parts.push(Part { content, cache: None, signature });
    Ok(())
}

fn read_content(
    path: &str,
    content: Option<&str>,
    parts: &mut Vec<Part>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let Some(content) = content else { return Ok(()) };
    if let Some(text) = crate::json::string(content) {
        if !text.is_empty() {
            parts.push(Part::text(text));
        }
        return Ok(());
    }
    let all = elements(path, content).map_err(|_| Unreadable::new(path, "a string or an array of parts"))?;
    for (path, part) in all {
        let mut part = Object::read(&path, part)?;
        let cache = read_cache(&mut part)?;
        let content = match part.wanted("type")?.as_str() {
            "text" => Content::Text(part.wanted("text")?),
            "refusal" => Content::Refusal(part.wanted("refusal")?),
            "image_url" => Content::Image(read_image(&path, &mut part, dropped)?),
            "input_audio" => {
                let wanted = || Unreadable::new(format!("{path}.input_audio"), "an object");
                let mut audio = part.object("input_audio")?.ok_or_else(wanted)?;
                let data = audio.wanted("data")?;
                Content::Audio(Source::Base64 {
                    media_type: format!("audio/{}", audio.wanted("format")?),
                    data,
                })
            }
            "file" => Content::Document(read_file(&path, &mut part)?),
            _ => {
                dropped.push(Dropped::meaning(part.path("type"), "unknown_part"));
                continue;
            }
        };
        part.rest(&[("prompt_cache_breakpoint", "prompt_cache", Hint)], dropped);
        parts.push(Part { content, cache, signature: None });
    }
    Ok(())
}

fn read_image(path: &str, part: &mut Object<'_>, dropped: &mut Vec<Dropped>) -> Result<Source, Unreadable> {
    let wanted = || Unreadable::new(format!("{path}.image_url"), "an object with a url");
    let mut image = part.object("image_url")?.ok_or_else(wanted)?;
    let url = image.wanted("url")?;
    if image.text("detail")?.is_some_and(|detail| detail != "auto") {
        dropped.push(Dropped::hint(image.path("detail"), "image_detail"));
    }
    if !url.starts_with("data:") {
        return Ok(Source::Url { url, media_type: None });
    }
    data_url(&url).ok_or_else(|| Unreadable::new(image.path("url"), "a URL, or a data URL in base64"))
}

/// What a data URL holds, where it is in base64.
fn data_url(url: &str) -> Option<Source> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?.split(';').next()?.to_ascii_lowercase();
    Some(Source::Base64 { media_type, data: data.to_owned() })
}

fn read_file(path: &str, part: &mut Object<'_>) -> Result<Document, Unreadable> {
    let wanted = || Unreadable::new(format!("{path}.file"), "an object with file_data or file_id");
    let mut file = part.object("file")?.ok_or_else(wanted)?;
    let title = file.text("filename")?;
    let source = match (file.text("file_data")?, file.text("file_id")?) {
        (Some(data), _) => match data_url(&data) {
            Some(source) => source,
            // Some send the base64 alone: what else is sent so is a PDF.
            None if STANDARD.decode(&data).is_ok() => {
                Source::Base64 { media_type: "application/pdf".to_owned(), data }
            }
            None => {
                return Err(Unreadable::new(format!("{path}.file.file_data"), "base64, or a data URL of it"));
            }
        },
        (None, Some(id)) => Source::File { id },
        (None, None) => return Err(wanted()),
    };
    Ok(Document { source, title, context: None })
}

/// Writes a request.
pub(super) fn write(
    conversation: &Conversation,
    options: Options,
    path: &str,
) -> Result<Written, CannotCarry> {
    let mut dropped = Vec::new();
    let mut body = Writer::new();
    body.text("model", &conversation.model);
    body.raw("messages", &write_messages(conversation, &mut dropped));
    write_tools(conversation, &mut body, &mut dropped);
    write_sampling(conversation, options.chat_bound, &mut body, &mut dropped);
    if let Some(format) = &conversation.output {
        body.raw("response_format", &write_format(format, &mut dropped));
    }
    write_reasoning(conversation, &mut body);
    if let Some(user) = &conversation.user {
        body.text("user", &end_user(user));
    }
    if !conversation.metadata.is_empty() {
        dropped.push(Dropped::hint("metadata", "metadata"));
    }
    if conversation.service_tier.as_deref().is_some_and(|tier| tier != "auto") {
        dropped.push(Dropped::hint("service_tier", "service_tier"));
    }
    if conversation.cache.is_some() {
        dropped.push(Dropped::hint("cache_control", "cache_control"));
    }
    if conversation.stream {
        body.boolean("stream", true);
        body.raw("stream_options", r#"{"include_usage":true}"#);
    }
    options.judge(&dropped)?;
    Ok(Written { path: path.to_owned(), headers: Vec::new(), body: body.end().into_bytes(), dropped })
}

fn write_messages(conversation: &Conversation, dropped: &mut Vec<Dropped>) -> String {
    let mut messages = Array::new();
    if !conversation.system.is_empty() {
        let mut message = Writer::new();
        message.text("role", "system");
        write_content("system", &conversation.system, &mut message, dropped);
        messages.push(&message.end());
    }
    for (n, turn) in conversation.turns.iter().enumerate() {
        let path = format!("messages[{n}]");
        match turn.role {
            Role::System => {
                let mut message = Writer::new();
                message.text("role", "system");
                write_content(&path, &turn.parts, &mut message, dropped);
                messages.push(&message.end());
            }
            Role::Assistant => {
                messages.push(&write_assistant(&path, &turn.parts, dropped));
                if n + 1 == conversation.turns.len() {
                    dropped.push(Dropped::meaning(path, "prefill"));
                }
            }
            Role::User => write_user(&path, &turn.parts, &mut messages, dropped),
        }
    }
    messages.end()
}

/// The results of tools come first, each a message of its own; then what the user says. A result's images and
/// documents, for which a `tool` message has no place, come with what the user says.
fn write_user(path: &str, parts: &[Part], messages: &mut Array, dropped: &mut Vec<Dropped>) {
    let mut said: Vec<Part> = Vec::new();
    for part in parts {
        let Content::ToolResult(result) = &part.content else { continue };
        let (texts, other): (Vec<Part>, Vec<Part>) =
            result.parts.iter().cloned().partition(|part| matches!(part.content, Content::Text(_)));
        let mut message = Writer::new();
        message.text("role", "tool").text("tool_call_id", &result.id);
        if texts.is_empty() && !other.is_empty() {
            message.text("content", "The result is in the next message of the user.");
        } else {
            write_content(path, &texts, &mut message, dropped);
        }
        messages.push(&message.end());
        if !other.is_empty() {
            said.push(Part::text(format!("Result of the tool call {}:", result.id)));
            said.extend(other);
        }
        if result.is_error {
            dropped.push(Dropped::hint(path, "tool_result_is_error"));
        }
        mark(path, part, dropped);
    }
    said.extend(parts.iter().filter(|part| !matches!(part.content, Content::ToolResult(_))).cloned());
    if !said.is_empty() {
        let mut message = Writer::new();
        message.text("role", "user");
        write_content(path, &said, &mut message, dropped);
        messages.push(&message.end());
    }
}

fn write_assistant(path: &str, parts: &[Part], dropped: &mut Vec<Dropped>) -> String {
    let mut message = Writer::new();
    message.text("role", "assistant");
    let mut texts = Vec::new();
    let mut refusal = String::new();
    let mut calls = Array::new();
    for part in parts {
        match &part.content {
            Content::ToolUse(call) => {
                calls.push(&super::answer::call(call, part.signature.as_deref(), None));
                mark(path, part, dropped);
            }
            Content::Thinking(_) => dropped.push(Dropped::hint(path, "thinking")),
            Content::Refusal(text) => refusal.push_str(text),
            Content::Text(_) => texts.push(part.clone()),
            _ => dropped.push(Dropped::meaning(path, "unknown_part")),
        }
    }
    if texts.is_empty() {
        message.null("content");
    } else {
        write_content(path, &texts, &mut message, dropped);
    }
    if !refusal.is_empty() {
        message.text("refusal", &refusal);
    }
    if !calls.is_empty() {
        message.raw("tool_calls", &calls.end());
    }
    message.end()
}

fn mark(path: &str, part: &Part, dropped: &mut Vec<Dropped>) {
    if part.cache.is_some() {
        dropped.push(Dropped::hint(path, "cache_control"));
    }
}

/// One text is a string; anything else an array of parts.
fn write_content(path: &str, parts: &[Part], message: &mut Writer, dropped: &mut Vec<Dropped>) {
    if let [Part { content: Content::Text(text), .. }] = parts {
        message.text("content", text);
        parts.iter().for_each(|part| mark(path, part, dropped));
        return;
    }
    let mut all = Array::new();
    for part in parts {
        mark(path, part, dropped);
        let mut written = Writer::new();
        match &part.content {
            Content::Text(text) | Content::Refusal(text) => {
                written.text("type", "text").text("text", text);
            }
            Content::Image(source) => match address(source) {
                Some(url) => {
                    let mut image = Writer::new();
                    image.text("url", &url);
                    written.text("type", "image_url").raw("image_url", &image.end());
                }
                None => dropped.push(Dropped::meaning(path, "uploaded_file")),
            },
            Content::Audio(Source::Base64 { media_type, data }) => {
                let mut audio = Writer::new();
                let format = media_type.strip_prefix("audio/").unwrap_or(media_type);
                audio.text("data", data).text("format", format);
                written.text("type", "input_audio").raw("input_audio", &audio.end());
            }
            Content::Document(document) => write_document(path, document, &mut all, dropped),
            Content::Audio(_) | Content::ToolUse(_) | Content::ToolResult(_) => {
                dropped.push(Dropped::meaning(path, "unknown_part"));
            }
            Content::Thinking(_) => dropped.push(Dropped::hint(path, "thinking")),
        }
        if !written.is_empty() {
            all.push(&written.end());
        }
    }
    if all.is_empty() {
        message.text("content", "");
    } else {
        message.raw("content", &all.end());
    }
}

fn address(source: &Source) -> Option<String> {
    match source {
        Source::Base64 { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
        Source::Url { url, .. } => Some(url.clone()),
        Source::File { .. } | Source::Text(_) => None,
    }
}

fn write_document(path: &str, document: &Document, all: &mut Array, dropped: &mut Vec<Dropped>) {
    let text = |text: &str| Writer::new().text("type", "text").text("text", text).end();
    if let Some(context) = &document.context {
        all.push(&text(context));
    }
    match &document.source {
        Source::Text(content) => {
            if let Some(title) = &document.title {
                all.push(&text(title));
            }
            all.push(&text(content));
        }
        Source::Base64 { .. } => {
            let mut file = Writer::new();
            file.text("filename", document.title.as_deref().unwrap_or("document.pdf"));
            file.text("file_data", &address(&document.source).unwrap_or_default());
            all.push(&Writer::new().text("type", "file").raw("file", &file.end()).end());
        }
        Source::Url { .. } => dropped.push(Dropped::meaning(path, "document_url")),
        Source::File { .. } => dropped.push(Dropped::meaning(path, "uploaded_file")),
    }
}

fn write_tools(conversation: &Conversation, body: &mut Writer, dropped: &mut Vec<Dropped>) {
    let mut tools = Array::new();
    for (n, tool) in conversation.tools.iter().enumerate() {
        let mut function = Writer::new();
        function.text("name", &tool.name);
        if let Some(description) = &tool.description {
            function.text("description", description);
        }
        function.maybe("parameters", tool.schema.as_ref());
        if let Some(strict) = tool.strict {
            let takes = tool.schema.as_ref().is_some_and(strict_mode_takes);
            if strict && !takes {
                dropped.push(Dropped::hint(format!("tools[{n}].strict"), "strict"));
            }
            function.boolean("strict", strict && takes);
        }
        tools.push(&Writer::new().text("type", "function").raw("function", &function.end()).end());
        if tool.cache.is_some() {
            dropped.push(Dropped::hint(format!("tools[{n}]"), "cache_control"));
        }
    }
    if tools.is_empty() {
        return;
    }
    body.raw("tools", &tools.end());
    match &conversation.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => {
            body.text("tool_choice", "auto");
        }
        Some(ToolChoice::None) => {
            body.text("tool_choice", "none");
        }
        Some(ToolChoice::Required) => {
            body.text("tool_choice", "required");
        }
        Some(ToolChoice::Tool(name)) => {
            let function = Writer::new().text("name", name).end();
            body.raw("tool_choice", &Writer::new().text("type", "function").raw("function", &function).end());
        }
    }
    if let Some(parallel) = conversation.parallel_tools {
        body.boolean("parallel_tool_calls", parallel);
    }
}

/// The most characters of `user` that OpenAI takes.
const MAX_USER: usize = 64;

/// The caller's user as it is, or its hash where it is too long (Claude Code's is).
fn end_user(user: &str) -> Cow<'_, str> {
    if user.chars().count() <= MAX_USER {
        return user.into();
    }
    hex::encode(Sha256::digest(user.as_bytes())).into()
}

fn write_sampling(
    conversation: &Conversation,
    bound: ChatBound,
    body: &mut Writer,
    dropped: &mut Vec<Dropped>,
) {
    let sampling = &conversation.sampling;
    if let Some(most) = sampling.max_output_tokens {
        body.integer(bound.words()[0], most);
    }
    body.maybe("temperature", sampling.temperature.as_ref());
    body.maybe("top_p", sampling.top_p.as_ref());
    body.maybe("seed", sampling.seed.as_ref());
    body.maybe("presence_penalty", sampling.presence_penalty.as_ref());
    body.maybe("frequency_penalty", sampling.frequency_penalty.as_ref());
    if sampling.top_k.is_some() {
        dropped.push(Dropped::hint("top_k", "top_k"));
    }
    if sampling.stop.len() > 4 {
        dropped.push(Dropped::meaning("stop", "more_than_four_stops"));
    }
    if let Some(stop) = sampling.stop.get(..sampling.stop.len().min(4)).filter(|stop| !stop.is_empty()) {
        body.texts("stop", stop);
    }
}

fn write_format(format: &OutputFormat, dropped: &mut Vec<Dropped>) -> String {
    let mut written = Writer::new();
    match format {
        OutputFormat::JsonObject => {
            written.text("type", "json_object");
        }
        OutputFormat::JsonSchema { name, description, schema, strict } => {
            let mut inner = Writer::new();
            inner.text("name", name.as_deref().unwrap_or("answer"));
            if let Some(description) = description {
                inner.text("description", description);
            }
            let strict = strict.unwrap_or(true);
            let takes = strict_mode_takes(schema);
            if strict && !takes {
                dropped.push(Dropped::hint("output_config.format.schema", "strict"));
            }
            inner.json("schema", schema).boolean("strict", strict && takes);
            written.text("type", "json_schema").raw("json_schema", &inner.end());
        }
    }
    written.end()
}

/// Thinking that is off is the same as not asked for: models that cannot think know no word for it.
fn write_reasoning(conversation: &Conversation, body: &mut Writer) {
    let Some(reasoning) = &conversation.reasoning else { return };
    let effort = match (reasoning.mode, reasoning.effort) {
        (Some(ReasoningMode::Off), _) => None,
        (_, Some(effort)) => Some(effort),
        (Some(ReasoningMode::Budget(tokens)), None) => Some(Effort::of_budget(tokens)),
        (_, None) => None,
    };
    if let Some(effort) = effort {
        body.text("reasoning_effort", effort.word());
    }
}
