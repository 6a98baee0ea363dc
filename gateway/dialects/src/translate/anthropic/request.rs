//! Requests of the messages API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::translate::anthropic::block::of_a_model;
use crate::translate::beginning::Beginning;
use crate::translate::form::{
    Cache, CannotCarry, Content, Conversation, Document, Dropped, Effort, Json, Options, OutputFormat, Part,
    Reasoning, ReasoningMode, Role, Sampling, Source, Thinking, Tool, ToolChoice, ToolResult, Turn,
    Unreadable, Weight, Written,
};
use crate::translate::text::{Array, Object, Writer, elements};

use Weight::{Hint, Meaning};

/// Keys of a request that no other dialect has a word for.
const BESIDE: &[(&str, &str, Weight)] = &[
    ("container", "container", Meaning),
    ("context_management", "context_management", Meaning),
    ("inference_geo", "inference_geo", Meaning),
    ("mcp_servers", "mcp_servers", Meaning),
    ("diagnostics", "diagnostics", Hint),
    ("speed", "speed", Hint),
    ("user_profile_id", "user_profile", Hint),
    ("workspace_id", "workspace", Hint),
];

/// Keys of a tool that other dialects have no word for.
const BESIDE_TOOL: &[(&str, &str, Weight)] = &[
    ("allowed_callers", "server_tool", Meaning),
    ("defer_loading", "server_tool", Meaning),
    ("eager_input_streaming", "eager_input_streaming", Hint),
    ("input_examples", "input_examples", Hint),
];

/// Keys of a block that other dialects have no word for.
const BESIDE_BLOCK: &[(&str, &str, Weight)] = &[
    ("caller", "caller", Hint),
    ("citations", "citations", Meaning),
    ("toolset_name", "server_tool", Meaning),
    ("transformations", "transformations", Hint),
];

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<(Conversation, Vec<Dropped>), Unreadable> {
    let Beginning { mut request, mut conversation, messages } = Beginning::read(body)?;
    let mut dropped = Vec::new();
    let path = "system".to_owned();
    read_content(&path, request.take("system"), &mut conversation.system, &mut dropped)?;
    for (path, message) in messages {
        let mut message = Object::read(&path, message)?;
        let role = match message.wanted("role")?.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(Unreadable::new(message.path("role"), "user, assistant or system")),
        };
        let mut parts = Vec::new();
        let place = message.path("content");
        read_content(&place, message.take("content"), &mut parts, &mut dropped)?;
        message.rest(&[], &mut dropped);
        conversation.turns.push(Turn { role, parts });
    }
    for (path, tool) in request.array("tools")?.unwrap_or_default() {
        read_tool(&path, tool, &mut conversation.tools, &mut dropped)?;
    }
    read_choice(&mut request, &mut conversation)?;
    let sampling = &mut conversation.sampling;
    let most = request.integer("max_tokens")?;
    sampling.max_output_tokens = Some(most.ok_or_else(|| Unreadable::new("max_tokens", "an integer"))?);
    sampling.temperature = request.number("temperature")?;
    sampling.top_p = request.number("top_p")?;
    sampling.top_k = request.number("top_k")?;
    if let Some(stop) = request.take("stop_sequences") {
        sampling.stop = serde_json::from_str(stop)
            .map_err(|_| Unreadable::new("stop_sequences", "an array of strings"))?;
    }
    read_thinking(&mut request, &mut conversation, &mut dropped)?;
    if let Some(mut metadata) = request.object("metadata")? {
        conversation.user = metadata.text("user_id")?;
        metadata.rest(&[], &mut dropped);
    }
    conversation.service_tier = request.text("service_tier")?;
    conversation.cache = read_cache(&mut request)?;
    conversation.stream = request.boolean("stream")?.unwrap_or(false);
    conversation.stream_usage = conversation.stream;
    request.rest(BESIDE, &mut dropped);
    Ok((conversation, dropped))
}

fn read_thinking(
    request: &mut Object<'_>,
    conversation: &mut Conversation,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let mut reasoning = Reasoning::default();
    if let Some(mut thinking) = request.object("thinking")? {
        let budget = thinking.integer("budget_tokens")?;
        reasoning.mode = match thinking.wanted("type")?.as_str() {
            "disabled" => Some(ReasoningMode::Off),
            "enabled" => {
                let wanted = || Unreadable::new("thinking.budget_tokens", "an integer");
                Some(ReasoningMode::Budget(budget.ok_or_else(wanted)?))
            }
            "adaptive" | "between_tools" => Some(ReasoningMode::Adaptive),
            _ => {
                return Err(Unreadable::new("thinking.type", "enabled, disabled, adaptive or between_tools"));
            }
        };
        reasoning.show = thinking.text("display")?.map(|word| word != "omitted");
        thinking.rest(&[], dropped);
    }
    if let Some(mut output) = request.object("output_config")? {
        if let Some(word) = output.text("effort")? {
            let effort = Effort::parse(&word)
                .ok_or_else(|| Unreadable::new("output_config.effort", "low, medium, high, xhigh or max"))?;
            reasoning.effort = Some(effort);
        }
        conversation.output = match output.object("format")? {
            Some(format) => Some(read_format(format)?),
            None => None,
        };
        output.rest(&[], dropped);
    }
    // The older place of it.
    if let Some(format) = request.object("output_format")? {
        conversation.output = Some(read_format(format)?);
    }
    conversation.reasoning = (reasoning != Reasoning::default()).then_some(reasoning);
    Ok(())
}

fn read_format(mut format: Object<'_>) -> Result<OutputFormat, Unreadable> {
    if format.wanted("type")? != "json_schema" {
        return Err(Unreadable::new(format.path("type"), "json_schema"));
    }
    let schema = format.raw_object("schema")?;
    let schema = schema.ok_or_else(|| Unreadable::new(format.path("schema"), "a JSON schema"))?;
    Ok(OutputFormat::JsonSchema { name: None, description: None, schema, strict: None })
}

fn read_choice(request: &mut Object<'_>, conversation: &mut Conversation) -> Result<(), Unreadable> {
    let Some(mut choice) = request.object("tool_choice")? else { return Ok(()) };
    conversation.parallel_tools = choice.boolean("disable_parallel_tool_use")?.map(|disabled| !disabled);
    conversation.tool_choice = Some(match choice.wanted("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Tool(choice.wanted("name")?),
        _ => return Err(Unreadable::new("tool_choice.type", "auto, any, tool or none")),
    });
    Ok(())
}

fn read_tool(
    path: &str,
    tool: &str,
    tools: &mut Vec<Tool>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let mut tool = Object::read(path, tool)?;
    if tool.text("type")?.is_some_and(|kind| kind != "custom") {
        dropped.push(Dropped::meaning(path, "server_tool"));
        return Ok(());
    }
    tools.push(Tool {
        name: tool.wanted("name")?,
        description: tool.text("description")?,
        schema: tool.raw_object("input_schema")?,
        strict: tool.boolean("strict")?,
        cache: read_cache(&mut tool)?,
    });
    tool.rest(BESIDE_TOOL, dropped);
    Ok(())
}

fn read_cache(part: &mut Object<'_>) -> Result<Option<Cache>, Unreadable> {
    let Some(mut mark) = part.object("cache_control")? else { return Ok(None) };
    Ok(Some(Cache { ttl: mark.text("ttl")? }))
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
    let all = elements(path, content).map_err(|_| Unreadable::new(path, "a string or an array of blocks"))?;
    for (path, block) in all {
        let mut block = Object::read(&path, block)?;
        if let Some(part) = read_block(&path, &mut block, dropped)? {
            block.rest(BESIDE_BLOCK, dropped);
            parts.push(part);
        }
    }
    Ok(())
}

/// A block; none where it has no place in the form.
fn read_block(
    path: &str,
    block: &mut Object<'_>,
    dropped: &mut Vec<Dropped>,
) -> Result<Option<Part>, Unreadable> {
    let cache = read_cache(block)?;
    let kind = block.wanted("type")?;
    if let Some(content) = of_a_model(&kind, block, dropped)? {
        return Ok(Some(Part { content, cache, signature: None }));
    }
    let content = match kind.as_str() {
        "image" => Content::Image(read_source(block)?),
        "document" => {
            let title = block.text("title")?;
            let context = block.text("context")?;
            match read_document(path, block, dropped)? {
                Some(source) => Content::Document(Document { source, title, context }),
                None => return Ok(None),
            }
        }
        "tool_result" => {
            let id = block.wanted("tool_use_id")?;
            let is_error = block.boolean("is_error")?.unwrap_or(false);
            let mut parts = Vec::new();
            read_result(&block.path("content"), block.take("content"), &mut parts, dropped)?;
            Content::ToolResult(ToolResult { id, parts, is_error })
        }
        kind => {
            let what = match kind {
                "search_result" => "search_result",
                "container_upload" => "container",
                _ => "server_tool",
            };
            dropped.push(Dropped::meaning(path, what));
            return Ok(None);
        }
    };
    Ok(Some(Part { content, cache, signature: None }))
}

/// What a tool gave. It holds no results of tools and no calls: the nesting ends here.
fn read_result(
    path: &str,
    content: Option<&str>,
    parts: &mut Vec<Part>,
    dropped: &mut Vec<Dropped>,
) -> Result<(), Unreadable> {
    let Some(content) = content else { return Ok(()) };
    if let Some(text) = crate::json::string(content) {
        parts.push(Part::text(text));
        return Ok(());
    }
    let all = elements(path, content).map_err(|_| Unreadable::new(path, "a string or an array of blocks"))?;
    for (path, block) in all {
        let mut inner = Object::read(&path, block)?;
        let [kind] = crate::json::pick(block, &["type"]).unwrap_or_default();
        if !matches!(crate::json::name(kind).as_deref(), Some("text" | "image" | "document")) {
            dropped.push(Dropped::meaning(path, "server_tool"));
            continue;
        }
        if let Some(part) = read_block(&path, &mut inner, dropped)? {
            inner.rest(BESIDE_BLOCK, dropped);
            parts.push(part);
        }
    }
    Ok(())
}

fn read_source(block: &mut Object<'_>) -> Result<Source, Unreadable> {
    let wanted = || Unreadable::new("source", "an object of type base64, url, text or file");
    let mut source = block.object("source")?.ok_or_else(wanted)?;
    Ok(match source.wanted("type")?.as_str() {
        "base64" => Source::Base64 { media_type: source.wanted("media_type")?, data: source.wanted("data")? },
        "url" => Source::Url { url: source.wanted("url")?, media_type: None },
        "text" => Source::Text(source.wanted("data")?),
        "file" => Source::File { id: source.wanted("file_id")? },
        _ => return Err(wanted()),
    })
}

/// A document's source; of blocks only their text can go on.
fn read_document(
    path: &str,
    block: &mut Object<'_>,
    dropped: &mut Vec<Dropped>,
) -> Result<Option<Source>, Unreadable> {
    if let Some(mut citations) = block.object("citations")?
        && citations.boolean("enabled")? == Some(true)
    {
        dropped.push(Dropped::meaning(block.path("citations"), "citations"));
    }
    let Some(text) = block.take("source") else {
        return Err(Unreadable::new(block.path("source"), "an object"));
    };
    let [kind, content] = crate::json::pick(text, &["type", "content"]).unwrap_or_default();
    if crate::json::name(kind).as_deref() == Some("content") {
        if let Some(text) = content.and_then(crate::json::string) {
            return Ok(Some(Source::Text(text.into_owned())));
        }
        dropped.push(Dropped::meaning(path, "document_of_blocks"));
        return Ok(None);
    }
    let whole = format!("{{\"source\":{text}}}");
    read_source(&mut Object::read(path, &whole)?).map(Some)
}

/// Writes a request.
pub(super) fn write(conversation: &Conversation, options: Options) -> Result<Written, CannotCarry> {
    let mut dropped = Vec::new();
    let mut body = Writer::new();
    body.text("model", &conversation.model);
    let thinking = write_thinking(conversation, options, &mut dropped);
    body.integer("max_tokens", thinking.max_tokens);
    write_system(&conversation.system, &mut body, &mut dropped);
    body.raw("messages", &write_messages(&conversation.turns, &mut dropped)?);
    write_tools(conversation, &mut body);
    write_sampling(conversation, thinking.is_on, &mut body, &mut dropped);
    if let Some(thinking) = &thinking.thinking {
        body.raw("thinking", thinking);
    }
    write_output(conversation, thinking.effort, &mut body, &mut dropped);
    if let Some(user) = &conversation.user {
        body.raw("metadata", &Writer::new().text("user_id", user).end());
    }
    if !conversation.metadata.is_empty() {
        dropped.push(Dropped::hint("metadata", "metadata"));
    }
    if conversation.service_tier.as_deref().is_some_and(|tier| tier != "auto" && tier != "default") {
        dropped.push(Dropped::hint("service_tier", "service_tier"));
    }
    if let Some(cache) = &conversation.cache {
        body.raw("cache_control", &mark(cache));
    }
    if conversation.stream {
        body.boolean("stream", true);
    }
    options.judge(&dropped)?;
    Ok(Written {
        path: "/v1/messages".to_owned(),
        headers: vec![("anthropic-version", "2023-06-01".to_owned())],
        body: body.end().into_bytes(),
        dropped,
    })
}

/// How a request says what it says of thinking.
pub(crate) struct Thought {
    pub(crate) thinking: Option<String>,
    pub(crate) effort: Option<Effort>,
    pub(crate) max_tokens: i64,
    pub(crate) is_on: bool,
}

/// The least budget that the API takes.
const LEAST_BUDGET: i64 = 1024;

/// Thinking as the model takes it: the older ones by a budget below the bound on output, the newer ones by an effort.
pub(crate) fn write_thinking(
    conversation: &Conversation,
    options: Options,
    dropped: &mut Vec<Dropped>,
) -> Thought {
    let asked = conversation.sampling.max_output_tokens;
    let most = asked.unwrap_or(options.max_output_tokens);
    let off = Thought { thinking: None, effort: None, max_tokens: most, is_on: false };
    let Some(reasoning) = &conversation.reasoning else { return off };
    let plain = |kind: &str| Some(Writer::new().text("type", kind).end());
    if reasoning.mode == Some(ReasoningMode::Off) {
        return Thought { thinking: plain("disabled"), ..off };
    }
    if !conversation.tools.is_empty()
        && matches!(conversation.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_)))
    {
        dropped.push(Dropped::hint("reasoning", "thinking_with_forced_tool"));
        return off;
    }
    if goes_on_without_thoughts(&conversation.turns) {
        dropped.push(Dropped::hint("reasoning", "thinking_of_the_turn_missing"));
        return off;
    }
    let by_budget = thinks_by_budget(&conversation.model);
    let budget = match (reasoning.mode, reasoning.effort) {
        (Some(ReasoningMode::Budget(tokens)), _) => Some(tokens),
        (_, Some(effort)) if by_budget => Some(effort.budget_tokens()),
        (_, None) if by_budget => Some(Effort::Medium.budget_tokens()),
        _ => None,
    };
    let Some(budget) = budget else {
        let effort = reasoning.effort.map(|effort| effort.max(Effort::Low));
        return Thought { thinking: plain("adaptive"), effort, max_tokens: most, is_on: true };
    };
    let budget = budget.max(LEAST_BUDGET);
    let (budget, max_tokens) = match asked {
        None => (budget, most.saturating_add(budget)),
        Some(most) if budget < most => (budget, most),
        // Half of what may be said, where that is enough.
        Some(most) => (most / 2, most),
    };
    if budget < LEAST_BUDGET {
        dropped.push(Dropped::hint("reasoning", "bound_too_small_for_thinking"));
        return off;
    }
    let thinking = Writer::new().text("type", "enabled").integer("budget_tokens", budget).end();
    Thought { thinking: Some(thinking), effort: None, max_tokens, is_on: true }
}

/// The draw as the API takes it: with thinking a temperature of 1 only, `top_p` from 0.95 on and no `top_k`.
pub(crate) fn sampling_beside_thinking(
    sampling: &Sampling,
    is_on: bool,
    dropped: &mut Vec<Dropped>,
) -> Sampling {
    let mut left = sampling.clone();
    if !is_on {
        return left;
    }
    let within =
        |least: f64| move |number: &Json| number.number().is_some_and(|n| (least..=1.0).contains(&n));
    let mut take = |key: &str, value: &mut Option<Json>, fits: &dyn Fn(&Json) -> bool| {
        if value.take_if(|value| !fits(value)).is_some() {
            dropped.push(Dropped::hint(key, "sampling_with_thinking"));
        }
    };
    take("temperature", &mut left.temperature, &within(1.0));
    take("top_p", &mut left.top_p, &within(0.95));
    take("top_k", &mut left.top_k, &|_| false);
    left
}

/// Models from before adaptive thinking, by name.
fn thinks_by_budget(model: &str) -> bool {
    ["claude-3", "-4-0", "-4-1", "-4-5", "-4-2025", "-4@2025"].iter().any(|part| model.contains(part))
}

/// The last turn gives results to calls whose thinking did not come back: with thinking on the API refuses that.
fn goes_on_without_thoughts(turns: &[Turn]) -> bool {
    let Some(last) = turns.iter().rev().find(|turn| turn.role == Role::Assistant) else { return false };
    let calls = last.parts.iter().any(|part| matches!(part.content, Content::ToolUse(_)));
    let thoughts =
        last.parts.iter().any(|part| matches!(&part.content, Content::Thinking(t) if is_signed(t)));
    calls && !thoughts
}

fn is_signed(thinking: &Thinking) -> bool {
    thinking.signature.is_some() || thinking.redacted.is_some()
}

fn mark(cache: &Cache) -> String {
    let mut mark = Writer::new();
    mark.text("type", "ephemeral");
    if let Some(ttl) = cache.ttl.as_deref().filter(|ttl| matches!(*ttl, "5m" | "1h")) {
        mark.text("ttl", ttl);
    }
    mark.end()
}

fn text_block(text: &str, cache: Option<&Cache>) -> String {
    let mut block = Writer::new();
    block.text("type", "text").text("text", text);
    if let Some(cache) = cache {
        block.raw("cache_control", &mark(cache));
    }
    block.end()
}

fn write_system(parts: &[Part], body: &mut Writer, dropped: &mut Vec<Dropped>) {
    let mut blocks = Array::new();
    let mut only = None;
    for part in parts {
        match &part.content {
            Content::Text(text) if text.is_empty() => {}
            Content::Text(text) => {
                only = if blocks.is_empty() && part.cache.is_none() { Some(text) } else { None };
                blocks.push(&text_block(text, part.cache.as_ref()));
            }
            _ => dropped.push(Dropped::meaning("system", "unknown_part")),
        }
    }
    if let Some(text) = only {
        body.text("system", text);
    } else if !blocks.is_empty() {
        body.raw("system", &blocks.end());
    }
}

/// Turns of one role that follow each other are one message.
fn write_messages(turns: &[Turn], dropped: &mut Vec<Dropped>) -> Result<String, CannotCarry> {
    let mut messages = Array::new();
    let mut open: Option<(Role, Array)> = None;
    for (n, turn) in turns.iter().enumerate() {
        let path = format!("messages[{n}]");
        if open.as_ref().is_none_or(|(role, _)| *role != turn.role) {
            close(open.replace((turn.role, Array::new())), &mut messages);
        }
        let Some((_, blocks)) = &mut open else { continue };
        for part in &turn.parts {
            if let Some(block) = write_part(&path, part, dropped)? {
                blocks.push(&block);
            }
        }
    }
    close(open, &mut messages);
    Ok(messages.end())
}

/// A message without blocks is none: the API takes no empty content.
fn close(open: Option<(Role, Array)>, messages: &mut Array) {
    let Some((role, blocks)) = open.filter(|(_, blocks)| !blocks.is_empty()) else { return };
    let role = match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
    };
    messages.push(&Writer::new().text("role", role).raw("content", &blocks.end()).end());
}

fn write_part(path: &str, part: &Part, dropped: &mut Vec<Dropped>) -> Result<Option<String>, CannotCarry> {
    let mut block = Writer::new();
    match &part.content {
        Content::Text(text) | Content::Refusal(text) if text.is_empty() => return Ok(None),
        Content::Text(text) | Content::Refusal(text) => {
            return Ok(Some(text_block(text, part.cache.as_ref())));
        }
        Content::Image(Source::File { .. })
        | Content::Document(Document { source: Source::File { .. }, .. }) => {
            dropped.push(Dropped::meaning(path, "uploaded_file"));
            return Ok(None);
        }
        Content::Image(source) => {
            block.text("type", "image").raw("source", &write_source(source));
        }
        Content::Document(document) => match document_source(document) {
            Some(source) => {
                block.text("type", "document").raw("source", &source);
                if let Some(title) = &document.title {
                    block.text("title", title);
                }
                if let Some(context) = &document.context {
                    block.text("context", context);
                }
            }
            None => {
                dropped.push(Dropped::meaning(path, "document_type"));
                return Ok(None);
            }
        },
        Content::Audio(_) => {
            dropped.push(Dropped::meaning(path, "audio_input"));
            return Ok(None);
        }
        Content::ToolUse(call) => {
            block.text("type", "tool_use").text("id", &call.id).text("name", &call.name);
            block.json("input", &arguments(path, &call.arguments)?);
        }
        Content::ToolResult(result) => {
            block.text("type", "tool_result").text("tool_use_id", &result.id);
            let mut inner = Array::new();
            for part in &result.parts {
                if let Some(part) = write_part(path, part, dropped)? {
                    inner.push(&part);
                }
            }
            if !inner.is_empty() {
                block.raw("content", &inner.end());
            }
            if result.is_error {
                block.boolean("is_error", true);
            }
        }
        Content::Thinking(thinking) => {
            return Ok(write_thought(path, thinking, dropped));
        }
    }
    if let Some(cache) = &part.cache {
        block.raw("cache_control", &mark(cache));
    }
    Ok(Some(block.end()))
}

/// A thought goes back only with the provider's own sign of it.
fn write_thought(path: &str, thinking: &Thinking, dropped: &mut Vec<Dropped>) -> Option<String> {
    let mut block = Writer::new();
    match (&thinking.redacted, &thinking.signature) {
        (Some(data), _) => block.text("type", "redacted_thinking").text("data", data),
        (None, Some(signature)) => {
            block.text("type", "thinking").text("thinking", &thinking.text).text("signature", signature)
        }
        (None, None) => {
            dropped.push(Dropped::hint(path, "thinking"));
            return None;
        }
    };
    Some(block.end())
}

/// The arguments of a call, which have to be an object here.
fn arguments(path: &str, text: &str) -> Result<Json, CannotCarry> {
    if text.trim().is_empty() {
        return Ok(Json::empty_object());
    }
    Json::object(text)
        .ok_or_else(|| CannotCarry { dropped: vec![Dropped::meaning(path, "arguments_no_object")] })
}

fn write_source(source: &Source) -> String {
    let mut written = Writer::new();
    match source {
        Source::Base64 { media_type, data } => {
            let media_type = if media_type == "image/jpg" { "image/jpeg" } else { media_type };
            written.text("type", "base64").text("media_type", media_type).text("data", data)
        }
        Source::Url { url, .. } => written.text("type", "url").text("url", url),
        Source::File { id } => written.text("type", "file").text("file_id", id),
        Source::Text(text) => {
            written.text("type", "text").text("media_type", "text/plain").text("data", text)
        }
    };
    written.end()
}

/// PDFs as they are, texts as text; none for anything else.
fn document_source(document: &Document) -> Option<String> {
    if let Source::Base64 { media_type, data } = &document.source
        && media_type != "application/pdf"
    {
        let text = media_type.starts_with("text/").then(|| STANDARD.decode(data).ok()).flatten()?;
        return Some(write_source(&Source::Text(String::from_utf8(text).ok()?)));
    }
    Some(write_source(&document.source))
}

fn write_tools(conversation: &Conversation, body: &mut Writer) {
    let mut tools = Array::new();
    let earlier = conversation.tools_of_earlier_calls();
    for tool in conversation.tools.iter().chain(&earlier) {
        let mut written = Writer::new();
        written.text("name", &tool.name);
        if let Some(description) = &tool.description {
            written.text("description", description);
        }
        match &tool.schema {
            Some(schema) => written.json("input_schema", schema),
            None => written.raw("input_schema", r#"{"type":"object","properties":{}}"#),
        };
        if tool.strict == Some(true) {
            written.boolean("strict", true);
        }
        if let Some(cache) = &tool.cache {
            written.raw("cache_control", &mark(cache));
        }
        tools.push(&written.end());
    }
    if tools.is_empty() {
        return;
    }
    body.raw("tools", &tools.end());
    if !earlier.is_empty() {
        body.raw("tool_choice", r#"{"type":"none"}"#);
        return;
    }
    let one_at_a_time = conversation.parallel_tools == Some(false);
    let mut choice = Writer::new();
    match &conversation.tool_choice {
        None if one_at_a_time => choice.text("type", "auto"),
        None => return,
        Some(ToolChoice::Auto) => choice.text("type", "auto"),
        Some(ToolChoice::Required) => choice.text("type", "any"),
        Some(ToolChoice::Tool(name)) => choice.text("type", "tool").text("name", name),
        Some(ToolChoice::None) => choice.text("type", "none"),
    };
    if one_at_a_time && conversation.tool_choice != Some(ToolChoice::None) {
        choice.boolean("disable_parallel_tool_use", true);
    }
    body.raw("tool_choice", &choice.end());
}

fn write_sampling(
    conversation: &Conversation,
    is_thinking: bool,
    body: &mut Writer,
    dropped: &mut Vec<Dropped>,
) {
    let sampling = sampling_beside_thinking(&conversation.sampling, is_thinking, dropped);
    if let Some(temperature) = &sampling.temperature {
        if temperature.number().is_some_and(|t| t > 1.0) {
            dropped.push(Dropped::meaning("temperature", "temperature_above_1"));
            body.raw("temperature", "1");
        } else {
            body.json("temperature", temperature);
        }
    }
    body.maybe("top_p", sampling.top_p.as_ref()).maybe("top_k", sampling.top_k.as_ref());
    if !sampling.stop.is_empty() {
        body.texts("stop_sequences", &sampling.stop);
    }
    let zero = |number: &Json| number.number() == Some(0.0);
    for (name, value) in [
        ("seed", &sampling.seed),
        ("presence_penalty", &sampling.presence_penalty),
        ("frequency_penalty", &sampling.frequency_penalty),
    ] {
        if value.as_ref().is_some_and(|value| name == "seed" || !zero(value)) {
            dropped.push(Dropped::hint(name, name));
        }
    }
}

fn write_output(
    conversation: &Conversation,
    effort: Option<Effort>,
    body: &mut Writer,
    dropped: &mut Vec<Dropped>,
) {
    let mut output = Writer::new();
    if let Some(effort) = effort {
        output.text("effort", effort.word());
    }
    match &conversation.output {
        None => {}
        Some(OutputFormat::JsonObject) => dropped.push(Dropped::meaning("response_format", "json_object")),
        Some(OutputFormat::JsonSchema { description, schema, .. }) => {
            if description.is_some() {
                let path = "response_format.json_schema.description";
                dropped.push(Dropped::hint(path, "schema_description"));
            }
            let format = Writer::new().text("type", "json_schema").json("schema", schema).end();
            output.raw("format", &format);
        }
    }
    if !output.is_empty() {
        body.raw("output_config", &output.end());
    }
}
