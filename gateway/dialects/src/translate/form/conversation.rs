//! What a caller asks for.

use super::{Content, Json, Part, Reasoning};

/// What a caller asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The model, as the provider knows it.
    pub model: String,
    /// What stands before the first turn: texts.
    pub system: Vec<Part>,
    /// The turns, in order. Two of one role may follow each other: who must alternate joins them.
    pub turns: Vec<Turn>,
    /// The caller's tools.
    pub tools: Vec<Tool>,
    /// Which of them may or must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come in one answer.
    pub parallel_tools: Option<bool>,
    /// How output is drawn, and when it ends.
    pub sampling: Sampling,
    /// The form that the answer's text has to have.
    pub output: Option<OutputFormat>,
    /// How much the model thinks first.
    pub reasoning: Option<Reasoning>,
    /// The opaque name of the end user.
    pub user: Option<String>,
    /// Labels that the caller wants kept: name and value.
    pub metadata: Vec<(String, String)>,
    /// The service tier asked for, in the caller's dialect's words.
    pub service_tier: Option<String>,
    /// A cache mark for the whole of it.
    pub cache: Option<Cache>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether a stream is to tell its usage, where the dialect lets the caller choose.
    pub stream_usage: bool,
}

impl Conversation {
    /// The tools that earlier turns call, each once, where the caller offers none: Anthropic and Bedrock refuse calls without
    /// the tools that they are of.
    pub(crate) fn tools_of_earlier_calls(&self) -> Vec<Tool> {
        let mut tools: Vec<Tool> = Vec::new();
        if !self.tools.is_empty() {
            return tools;
        }
        for part in self.turns.iter().flat_map(|turn| &turn.parts) {
            if let Content::ToolUse(call) = &part.content
                && tools.iter().all(|tool| tool.name != call.name)
            {
                let name = call.name.clone();
                tools.push(Tool { name, description: None, schema: None, strict: None, cache: None });
            }
        }
        tools
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The caller's side, tool results included.
    User,
    /// The model.
    Assistant,
    /// Instructions between turns.
    System,
}

/// What one side says at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who.
    pub role: Role,
    /// What, in order.
    pub parts: Vec<Part>,
}

/// A mark for a prompt cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// How long it is to live, in the dialects' common words: `5m`, `1h`, ...
    pub ttl: Option<String>,
}

/// A tool that the caller offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The JSON schema of its arguments; none: it takes none.
    pub schema: Option<Json>,
    /// Whether arguments are held to the schema.
    pub strict: Option<bool>,
    /// A cache mark behind it.
    pub cache: Option<Cache>,
}

/// Which tools may or must be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// At least one, of any.
    Required,
    /// This one.
    Tool(String),
}

/// How output is drawn, and when it ends. Numbers stand as they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// Temperature.
    pub temperature: Option<Json>,
    /// Nucleus.
    pub top_p: Option<Json>,
    /// The most likely k.
    pub top_k: Option<Json>,
    /// The most tokens of output, thoughts included.
    pub max_output_tokens: Option<i64>,
    /// Texts at which it ends.
    pub stop: Vec<String>,
    /// For the same draw again.
    pub seed: Option<Json>,
    /// Penalty for what was said at all.
    pub presence_penalty: Option<Json>,
    /// Penalty for what was said often.
    pub frequency_penalty: Option<Json>,
}

/// The form of the answer's text.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputFormat {
    /// A JSON object of any shape.
    JsonObject,
    /// JSON of this schema.
    JsonSchema {
        /// The schema's name, where the dialect has one.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// The schema.
        schema: Json,
        /// Whether the answer is held to it.
        strict: Option<bool>,
    },
}
