//! Method and path -> the operation of the provider's API.

use http::Method;
use schemars::JsonSchema;
use serde::Serialize;

/// A wire format that the gateway understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's API, at OpenAI or at any compatible base URL.
    #[serde(rename = "openai")]
    OpenAi,
    /// OpenAI's API as Azure serves it: `/openai/deployments/{deployment}/...` and `/openai/v1/...`.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    /// Anthropic's API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// The same on Vertex AI, with the models of other publishers in formats of their own.
    Vertex,
    /// Cohere's API.
    Cohere,
    /// Ollama's API.
    Ollama,
    /// IBM's watsonx.ai.
    Watsonx,
    /// AWS Bedrock's runtime, with its OpenAI- and Anthropic-compatible paths, and its control plane.
    Bedrock,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OpenAi,
        Self::AzureOpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Cohere,
        Self::Ollama,
        Self::Watsonx,
        Self::Bedrock,
    ];

    /// The name in configuration and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::Watsonx => "watsonx",
            Self::Bedrock => "bedrock",
        }
    }
    /// The dialect of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// What an operation has to do with tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// Its answer shows usage that it incurred.
    Incurs,
    /// Its answer shows usage that another exchange incurred.
    Retrieves,
    /// Its answer counts tokens, without using them.
    Counts,
    /// None.
    None,
}

/// An operation of a provider's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    name: &'static str,
    tokens: Tokens,
    dialect: Dialect,
    /// The dialect in whose table it stands: that of the path.
    table: Dialect,
}

impl Operation {
    /// Whatever the table does not know: relayed and recorded all the same.
    pub const OTHER: Self =
        Self { name: "other", tokens: Tokens::Incurs, dialect: Dialect::OpenAi, table: Dialect::OpenAi };

    /// The name in records: `chat.completions`, `messages.create`, ... or `other`.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// What it has to do with tokens.
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }
    /// The dialect of its bytes: the provider's, or the other one that this path of the provider speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }
    /// The model that the path names.
    pub(crate) fn path_model(&self, path: &str) -> Option<String> {
        self.table.wire().path_model(path)
    }
    /// The dialect whose paths it is asked by.
    pub(crate) fn table(&self) -> Dialect {
        self.table
    }
    /// True where the table does not know it.
    pub fn is_other(&self) -> bool {
        self.name == Self::OTHER.name
    }
    /// True where the answer shows usage that this exchange incurred.
    pub fn uses_tokens(&self) -> bool {
        self.tokens == Tokens::Incurs && !self.is_other()
    }
    /// True for a read of an answer that another exchange incurred. Where that one was told nothing of what it cost (it was
    /// made in the background, or cut), a read is the first to tell. A batch is many answers, at another price.
    pub fn reads_an_answer(&self) -> bool {
        self.tokens == Tokens::Retrieves && !self.name.starts_with("batches.")
    }
    /// True where [`crate::ask_for_usage`] applies to its request body.
    pub fn can_ask_usage(&self) -> bool {
        matches!(self.name, "chat.completions" | "completions")
    }
    /// True where a conversation that the provider keeps is gone on with.
    pub(crate) fn runs_conversation(&self) -> bool {
        matches!(self.name, "conversations.start" | "conversations.append" | "conversations.restart")
    }
    /// True for the Responses API, whose answers have a `status`.
    pub fn is_responses(&self) -> bool {
        self.name.starts_with("responses.")
    }
}

/// A maker whose paths mean something else than the same ones of the dialect that its API is compatible with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Mistral, whose conversations are run where OpenAI's are only stored.
    Mistral,
}

impl Maker {
    /// The maker of a provider that is named so, in configuration or price book, or asked at that host.
    pub fn of<'a>(mut names: impl Iterator<Item = &'a str>, host: &str) -> Option<Self> {
        let is_host =
            host.eq_ignore_ascii_case("mistral.ai") || host.to_ascii_lowercase().ends_with(".mistral.ai");
        (is_host || names.any(|name| name == "mistral")).then_some(Self::Mistral)
    }
}

/// A row of a dialect's table of operations.
pub(crate) struct Row {
    method: &'static str,
    pattern: &'static str,
    name: &'static str,
    tokens: Tokens,
    /// The dialect of its bytes, where it is not that of the table.
    speaks: Option<Dialect>,
    /// The maker whose path it is, where it is not everybody's.
    maker: Option<Maker>,
}

/// `method` on what matches `pattern`, behind the base path, is the operation `name`.
///
/// One segment a `/`: `*` is one segment, `*:verb` one that ends so, `**` the rest. The first match counts. Method `*`
/// is any.
pub(crate) const fn row(
    method: &'static str,
    pattern: &'static str,
    name: &'static str,
    tokens: Tokens,
) -> Row {
    Row { method, pattern, name, tokens, speaks: None, maker: None }
}

impl Row {
    /// The row of a path whose bytes are those of another dialect.
    pub(crate) const fn speaks(self, dialect: Dialect) -> Self {
        Self { speaks: Some(dialect), ..self }
    }
    /// The row of a path that only this maker has, or that means this with it.
    const fn of(self, maker: Maker) -> Self {
        Self { maker: Some(maker), ..self }
    }
}

use Tokens::{Counts as C, Incurs as I, None as N, Retrieves as R};

/// OpenAI's, and what compatible providers add.
pub(crate) const OPENAI: &[Row] = &[
    row("POST", "chat/completions", "chat.completions", I),
    row("GET", "chat/completions", "chat.completions.list", R),
    row("GET", "chat/completions/*", "chat.completions.retrieve", R),
    row("POST", "chat/completions/*", "chat.completions.update", R),
    row("DELETE", "chat/completions/*", "chat.completions.delete", N),
    row("GET", "chat/completions/*/messages", "chat.completions.messages", N),
    row("POST", "chat", "chat.completions", I),
    row("POST", "responses", "responses.create", I),
    row("POST", "responses/input_tokens", "responses.input_tokens", C),
    row("POST", "responses/compact", "responses.compact", I),
    row("GET", "responses/*", "responses.retrieve", R),
    row("DELETE", "responses/*", "responses.delete", N),
    row("POST", "responses/*/cancel", "responses.cancel", R),
    row("GET", "responses/*/input_items", "responses.input_items", N),
    row("POST", "conversations", "conversations.start", I).of(Maker::Mistral),
    row("POST", "conversations/*", "conversations.append", I).of(Maker::Mistral),
    row("POST", "conversations/*/restart", "conversations.restart", I).of(Maker::Mistral),
    row("GET", "conversations", "conversations.list", N).of(Maker::Mistral),
    row("GET", "conversations/*/history", "conversations.items", N).of(Maker::Mistral),
    row("GET", "conversations/*/messages", "conversations.items", N).of(Maker::Mistral),
    row("POST", "agents/completions", "completions", I).of(Maker::Mistral),
    row("*", "agents", "agents", N).of(Maker::Mistral),
    row("*", "agents/**", "agents", N).of(Maker::Mistral),
    row("POST", "conversations", "conversations.create", N),
    row("GET", "conversations/*", "conversations.retrieve", N),
    row("POST", "conversations/*", "conversations.update", N),
    row("DELETE", "conversations/*", "conversations.delete", N),
    row("*", "conversations/*/items", "conversations.items", N),
    row("*", "conversations/*/items/*", "conversations.items", N),
    row("POST", "completions", "completions", I),
    row("POST", "embeddings", "embeddings.create", I),
    row("POST", "rerank", "rerank.create", I),
    row("POST", "ocr", "ocr.create", I),
    row("POST", "multimodalembeddings", "embeddings.create", I),
    row("POST", "contextualizedembeddings", "embeddings.create", I),
    row("POST", "fim/completions", "completions", I),
    row("POST", "moderations", "moderations.create", N),
    row("GET", "models", "models.list", N),
    row("DELETE", "models/*", "models.delete", N),
    row("GET", "models/**", "models.retrieve", N),
    row("DELETE", "models/**", "models.delete", N),
    row("POST", "files", "files.create", N),
    row("GET", "files", "files.list", N),
    row("GET", "files/*", "files.retrieve", N),
    row("DELETE", "files/*", "files.delete", N),
    row("GET", "files/*/content", "files.content", N),
    row("POST", "uploads", "uploads.create", N),
    row("POST", "uploads/*/parts", "uploads.parts", N),
    row("POST", "uploads/*/complete", "uploads.complete", N),
    row("POST", "uploads/*/cancel", "uploads.cancel", N),
    row("POST", "images/generations", "images.generations", I),
    row("POST", "images/edits", "images.edits", I),
    row("POST", "images/variations", "images.variations", I),
    row("POST", "audio/speech", "audio.speech", I),
    row("POST", "audio/transcriptions", "audio.transcriptions", I),
    row("POST", "audio/translations", "audio.translations", I),
    row("*", "audio/voices", "audio.voices", N),
    row("*", "audio/voices/**", "audio.voices", N),
    row("*", "audio/voice_consents", "audio.voice_consents", N),
    row("*", "audio/voice_consents/**", "audio.voice_consents", N),
    row("POST", "videos", "videos.create", N),
    row("GET", "videos", "videos.list", N),
    row("POST", "videos/edits", "videos.edits", N),
    row("POST", "videos/extensions", "videos.extensions", N),
    row("POST", "videos/characters", "videos.characters", N),
    row("GET", "videos/characters/*", "videos.characters", N),
    row("GET", "videos/*", "videos.retrieve", N),
    row("DELETE", "videos/*", "videos.delete", N),
    row("GET", "videos/*/content", "videos.content", N),
    row("POST", "videos/*/remix", "videos.remix", N),
    row("POST", "batches", "batches.create", N),
    row("GET", "batches", "batches.list", N),
    row("GET", "batches/*", "batches.retrieve", R),
    row("POST", "batches/*/cancel", "batches.cancel", R),
    row("*", "fine_tuning/**", "fine_tuning", N),
    row("*", "fine-tunes/**", "fine_tuning", N),
    row("*", "vector_stores", "vector_stores", N),
    row("POST", "vector_stores/*/search", "vector_stores.search", N),
    row("*", "vector_stores/**", "vector_stores", N),
    row("*", "assistants", "assistants", N),
    row("*", "assistants/**", "assistants", N),
    row("POST", "threads/runs", "threads.runs.create", I),
    row("POST", "threads/*/runs", "threads.runs.create", I),
    row("POST", "threads/*/runs/*/submit_tool_outputs", "threads.runs.submit_tool_outputs", I),
    row("POST", "threads/*/runs/*/cancel", "threads.runs.cancel", R),
    row("*", "threads/*/runs", "threads.runs", R),
    row("*", "threads/*/runs/**", "threads.runs", R),
    row("*", "threads/*/messages", "threads.messages", N),
    row("*", "threads/*/messages/**", "threads.messages", N),
    row("*", "threads", "threads", N),
    row("*", "threads/**", "threads", N),
    row("*", "containers", "containers", N),
    row("*", "containers/**", "containers", N),
    row("*", "skills", "skills", N),
    row("*", "skills/**", "skills", N),
    row("*", "evals", "evals", N),
    row("*", "evals/**", "evals", N),
    row("*", "chatkit/**", "chatkit", N),
    row("POST", "realtime/client_secrets", "realtime.client_secrets", N),
    row("POST", "realtime/sessions", "realtime.sessions", N),
    row("POST", "realtime/transcription_sessions", "realtime.sessions", N),
    row("POST", "realtime/calls", "realtime.calls", N),
    row("*", "realtime/calls/**", "realtime.calls", N),
    row("*", "realtime", "realtime", N),
    row("*", "realtime/**", "realtime", N),
    row("*", "organization/**", "organization", N),
    row("*", "projects/**", "organization", N),
    row("POST", "messages", "messages.create", I).speaks(Dialect::Anthropic),
    row("POST", "messages/count_tokens", "messages.count_tokens", C).speaks(Dialect::Anthropic),
];

/// Anthropic's.
pub(crate) const ANTHROPIC: &[Row] = &[
    row("POST", "messages", "messages.create", I),
    row("POST", "messages/count_tokens", "messages.count_tokens", C),
    row("POST", "messages/batches", "messages.batches.create", N),
    row("GET", "messages/batches", "messages.batches.list", N),
    row("GET", "messages/batches/*", "messages.batches.retrieve", N),
    row("DELETE", "messages/batches/*", "messages.batches.delete", N),
    row("POST", "messages/batches/*/cancel", "messages.batches.cancel", N),
    row("GET", "messages/batches/*/results", "messages.batches.results", N),
    row("POST", "complete", "complete", I),
    row("GET", "models", "models.list", N),
    row("GET", "models/**", "models.retrieve", N),
    row("POST", "files", "files.create", N),
    row("GET", "files", "files.list", N),
    row("GET", "files/*", "files.retrieve", N),
    row("DELETE", "files/*", "files.delete", N),
    row("GET", "files/*/content", "files.content", N),
    row("*", "skills", "skills", N),
    row("*", "skills/**", "skills", N),
    row("*", "agents", "agents", N),
    row("*", "agents/**", "agents", N),
    row("*", "sessions", "sessions", N),
    row("*", "sessions/**", "sessions", N),
    row("*", "environments", "environments", N),
    row("*", "environments/**", "environments", N),
    row("*", "organizations/**", "organization", N),
    row("POST", "experimental/generate_prompt", "prompts.generate", I),
    row("POST", "experimental/improve_prompt", "prompts.improve", I),
    row("POST", "experimental/templatize_prompt", "prompts.templatize", I),
];

/// Every name that [`operation`] can give.
pub fn operation_names() -> impl Iterator<Item = &'static str> {
    let rows = Dialect::ALL.into_iter().flat_map(|dialect| dialect.wire().operations());
    let mut names: Vec<_> = rows.map(|row| row.name).collect();
    names.push(Operation::OTHER.name);
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// Every operation of every table; one for each row.
pub fn operations() -> impl Iterator<Item = Operation> {
    let tables = Dialect::ALL.into_iter();
    tables.flat_map(|table| table.wire().operations().iter().map(move |row| row.operation(table)))
}

/// The operation that `method` on `path` is, at a provider of no maker of its own.
pub fn operation(dialect: Dialect, method: &Method, path: &str) -> Operation {
    operation_at(dialect, None, method, path)
}

/// The operation that `method` on `path` is.
///
/// `path` is the path behind the route's prefix, or the provider's own: what stands before the API's first word
/// (`/v1`, `/openai/v1`, `/api/v1`, `/openai/deployments/{deployment}`, ...) is skipped. The query plays no part.
pub fn operation_at(dialect: Dialect, maker: Option<Maker>, method: &Method, path: &str) -> Operation {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let further = dialect.wire().also().iter().copied();
    std::iter::once(dialect)
        .chain(further)
        .find_map(|dialect| known(dialect, maker, method, path))
        .unwrap_or(Operation { dialect, table: dialect, ..Operation::OTHER })
}

/// The operation in the dialect's own table.
fn known(dialect: Dialect, maker: Option<Maker>, method: &Method, path: &str) -> Option<Operation> {
    let behind = dialect.wire().behind_deployment(path);
    let segments: Vec<&str> = behind.split('/').filter(|s| !s.is_empty()).take(16).collect();
    let table = dialect.wire().operations();
    for skip in 0..segments.len().min(6) {
        let (before, rest) = segments.split_at(skip);
        // No pattern begins with a `*`.
        let first = rest.first().and_then(|segment| segment.as_bytes().first());
        let found = table
            .iter()
            .filter(|row| row.pattern.as_bytes().first() == first)
            .find(|row| row.is_of(maker) && row.allows(method) && matches(row.pattern, rest));
        if let Some(row) = found
            && (before.last().is_none_or(|last| ends_base(last)) || row.tokens == Tokens::Incurs)
        {
            return Some(row.operation(dialect));
        }
    }
    None
}

/// The deployment that an Azure path names, and what follows it.
pub fn after_deployment(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once("/openai/deployments/")?;
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let (deployment, rest) = rest.split_once('/').unwrap_or((rest, ""));
    (!deployment.is_empty()).then_some((deployment, rest))
}

impl Row {
    /// Its operation, where it stands in the table of that dialect.
    fn operation(&self, table: Dialect) -> Operation {
        let dialect = self.speaks.unwrap_or(table);
        Operation { name: self.name, tokens: self.tokens, dialect, table }
    }

    fn is_of(&self, maker: Option<Maker>) -> bool {
        self.maker.is_none() || self.maker == maker
    }

    fn allows(&self, method: &Method) -> bool {
        self.method == "*" || self.method == method.as_str()
    }
}

/// True for a segment that can end a base path: a version (`v1`, `v1beta`, `2024-06`) or `openai`, `api`, `beta`.
fn ends_base(segment: &str) -> bool {
    matches!(segment, "openai" | "api" | "beta" | "anthropic" | "compat")
        || segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A segment `name:verb`, taken apart at its last colon, which may be percent-encoded.
pub(crate) fn split_verb(segment: &str) -> Option<(&str, &str)> {
    let (at, length) = [":", "%3A", "%3a"]
        .iter()
        .filter_map(|colon| segment.rfind(*colon).map(|at| (at, colon.len())))
        .max()?;
    Some((segment.get(..at)?, segment.get(at + length..)?))
}

fn matches(pattern: &str, segments: &[&str]) -> bool {
    let mut rest = segments.iter();
    for wanted in pattern.split('/') {
        match (wanted, rest.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(given)) if wanted.starts_with("*:") => {
                let verb = wanted.strip_prefix("*:").unwrap_or_default();
                if split_verb(given).is_none_or(|(_, given)| given != verb) {
                    return false;
                }
            }
            (wanted, Some(given)) if wanted == *given => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dialect::{Anthropic, AzureOpenAi, Bedrock, Cohere, Gemini, Ollama, OpenAi, Vertex, Watsonx};

    #[test]
    fn the_format_lists_every_operation() {
        let text = include_str!("../../../schemas/FORMAT.md");
        let (_, rest) = text.split_once("<!-- begin operations -->").unwrap_or_default();
        let (listed, _) = rest.split_once("<!-- end operations -->").unwrap_or_default();
        let listed: Vec<_> = listed.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, operation_names().collect::<Vec<_>>());
    }

    #[test]
    fn every_path_has_its_operation() {
        let cases = [
            (OpenAi, Method::POST, "/v1/chat/completions", "chat.completions"),
            (OpenAi, Method::GET, "/v1/chat/completions", "chat.completions.list"),
            (OpenAi, Method::GET, "/v1/chat/completions/chatcmpl-1", "chat.completions.retrieve"),
            (OpenAi, Method::GET, "/v1/chat/completions/chatcmpl-1/messages", "chat.completions.messages"),
            (OpenAi, Method::DELETE, "/v1/chat/completions/chatcmpl-1", "chat.completions.delete"),
            (OpenAi, Method::POST, "/v1/responses", "responses.create"),
            (OpenAi, Method::POST, "/v1/responses?x=1", "responses.create"),
            (OpenAi, Method::GET, "/v1/responses/resp_1", "responses.retrieve"),
            (OpenAi, Method::POST, "/v1/responses/resp_1/cancel", "responses.cancel"),
            (OpenAi, Method::GET, "/v1/responses/resp_1/input_items", "responses.input_items"),
            (OpenAi, Method::POST, "/v1/responses/input_tokens", "responses.input_tokens"),
            (OpenAi, Method::POST, "/v1/responses/compact", "responses.compact"),
            (OpenAi, Method::GET, "/v1/files/file-1/content", "files.content"),
            (OpenAi, Method::GET, "/v1/files/completions", "files.retrieve"),
            (OpenAi, Method::GET, "/v1/models/ft:gpt/a/b", "models.retrieve"),
            (OpenAi, Method::POST, "/v1/threads/t/messages", "threads.messages"),
            (OpenAi, Method::POST, "/v1/threads/t/runs", "threads.runs.create"),
            (OpenAi, Method::GET, "/v1/threads/t/runs/r", "threads.runs"),
            (OpenAi, Method::POST, "/v1/vector_stores/v/search", "vector_stores.search"),
            (OpenAi, Method::GET, "/v1/realtime", "realtime"),
            (OpenAi, Method::POST, "/api/coding/paas/v4/chat/completions", "chat.completions"),
            (OpenAi, Method::POST, "/models/chat/completions", "chat.completions"),
            (OpenAi, Method::POST, "/chat/completions", "chat.completions"),
            (OpenAi, Method::POST, "/novita/v3/openai/chat/completions", "chat.completions"),
            (OpenAi, Method::POST, "/backend-api/codex/responses", "responses.create"),
            (OpenAi, Method::GET, "/v1/unknown/models", "other"),
            (OpenAi, Method::PATCH, "/v1/chat/completions", "other"),
            (OpenAi, Method::GET, "/", "other"),
            (OpenAi, Method::GET, "", "other"),
            (AzureOpenAi, Method::POST, "/openai/deployments/d/chat/completions", "chat.completions"),
            (AzureOpenAi, Method::POST, "/openai/deployments/responses/embeddings", "embeddings.create"),
            (AzureOpenAi, Method::POST, "/openai/v1/responses", "responses.create"),
            (AzureOpenAi, Method::POST, "/openai/responses", "responses.create"),
            (AzureOpenAi, Method::GET, "/openai/files/f/content", "files.content"),
            (Anthropic, Method::POST, "/v1/messages", "messages.create"),
            (Anthropic, Method::POST, "/v1/messages/count_tokens", "messages.count_tokens"),
            (Anthropic, Method::POST, "/v1/messages/batches", "messages.batches.create"),
            (Anthropic, Method::GET, "/v1/messages/batches/b/results", "messages.batches.results"),
            (Anthropic, Method::POST, "/v1/complete", "complete"),
            (Anthropic, Method::POST, "/v1/chat/completions", "other"),
            (
                Gemini,
                Method::POST,
                "/v1beta/models/gemini-2.5-pro:generateContent",
                "models.generate_content",
            ),
            (
                Gemini,
                Method::POST,
                "/v1beta/models/g%3AstreamGenerateContent",
                "models.stream_generate_content",
            ),
            (Gemini, Method::POST, "/v1beta/models/g:countTokens", "models.count_tokens"),
            (Gemini, Method::GET, "/v1beta/models/g", "models.retrieve"),
            (Gemini, Method::GET, "/v1beta/models", "models.list"),
            (Gemini, Method::POST, "/v1beta/interactions", "interactions.create"),
            (Gemini, Method::POST, "/v1beta/openai/chat/completions", "chat.completions"),
            (Gemini, Method::POST, "/v1beta/models/g:newVerb", "other"),
            (
                Vertex,
                Method::POST,
                "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude@1:streamRawPredict",
                "messages.create",
            ),
            (
                Vertex,
                Method::POST,
                "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
                "messages.count_tokens",
            ),
            (Vertex, Method::POST, "/v1/publishers/google/models/g:countTokens", "models.count_tokens"),
            (
                Vertex,
                Method::POST,
                "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
                "chat.completions",
            ),
            (Cohere, Method::POST, "/v2/chat", "chat.create"),
            (Cohere, Method::POST, "/v1/rerank", "rerank.create"),
            (Cohere, Method::POST, "/compatibility/v1/chat/completions", "chat.completions"),
            (Ollama, Method::POST, "/api/chat", "chat.create"),
            (Ollama, Method::POST, "/v1/chat/completions", "chat.completions"),
            (Watsonx, Method::POST, "/ml/v1-beta/generation/text_stream", "generate.create"),
            (Watsonx, Method::POST, "/ml/v1/text/chat", "chat.completions"),
        ];
        for (dialect, method, path, wanted) in cases {
            assert_eq!(operation(dialect, &method, path).name(), wanted, "{method} {path}");
        }
    }

    #[test]
    fn every_name_is_an_identifier() {
        for name in operation_names() {
            assert!(schemas::Identifier::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_row_can_be_reached() {
        for dialect in Dialect::ALL {
            for row in dialect.wire().operations() {
                let method =
                    if row.method == "*" { Method::GET } else { row.method.parse().unwrap_or_default() };
                let path = format!("/v1/{}", row.pattern.replace("**", "x/y").replace('*', "x"));
                assert_eq!(operation_at(dialect, row.maker, &method, &path).name(), row.name, "{path}");
            }
        }
    }

    #[test]
    fn conversations_are_run_by_mistral_and_stored_by_everybody_else() {
        let at = |maker, method: &Method, path: &str| {
            let operation = operation_at(OpenAi, maker, method, path);
            (operation.name(), operation.uses_tokens())
        };
        let mistral = Maker::of(["mistral"].into_iter(), "127.0.0.1");
        assert_eq!(mistral, Some(Maker::Mistral));
        assert_eq!(Maker::of(std::iter::empty(), "api.Mistral.ai"), mistral);
        assert_eq!(Maker::of(["openai"].into_iter(), "api.openai.com"), None);
        let table = [
            (
                Method::POST,
                "/v1/conversations",
                ("conversations.start", true),
                ("conversations.create", false),
            ),
            (
                Method::POST,
                "/v1/conversations/c",
                ("conversations.append", true),
                ("conversations.update", false),
            ),
            (Method::POST, "/v1/conversations/c/restart", ("conversations.restart", true), ("other", false)),
            (
                Method::GET,
                "/v1/conversations/c",
                ("conversations.retrieve", false),
                ("conversations.retrieve", false),
            ),
            (Method::GET, "/v1/conversations/c/history", ("conversations.items", false), ("other", false)),
            (Method::POST, "/v1/agents", ("agents", false), ("other", false)),
            (Method::PATCH, "/v1/agents/a", ("agents", false), ("other", false)),
            (Method::POST, "/v1/agents/completions", ("completions", true), ("completions", true)),
            (Method::POST, "/v1/chat/completions", ("chat.completions", true), ("chat.completions", true)),
        ];
        for (method, path, there, elsewhere) in table {
            assert_eq!(at(mistral, &method, path), there, "{method} {path}");
            assert_eq!(at(None, &method, path), elsewhere, "{method} {path}");
        }
    }

    #[test]
    fn a_path_can_speak_another_dialect_than_its_provider() {
        let cases = [
            (Gemini, "/v1beta/openai/chat/completions", OpenAi),
            (Gemini, "/v1beta/models/g:generateContent", Gemini),
            (Vertex, "/v1/projects/p/locations/l/publishers/google/models/g:generateContent", Vertex),
            (Vertex, "/v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict", Anthropic),
            (Vertex, "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict", OpenAi),
            (Cohere, "/compatibility/v1/chat/completions", OpenAi),
            (OpenAi, "/v1/messages", Anthropic),
            (Cohere, "/v1/nothing", Cohere),
            (Bedrock, "/model/m/invoke", Bedrock),
            (Bedrock, "/openai/v1/chat/completions", OpenAi),
            (Bedrock, "/v1/responses", OpenAi),
            (Bedrock, "/anthropic/v1/messages", Anthropic),
        ];
        for (provider, path, speaks) in cases {
            assert_eq!(operation(provider, &Method::POST, path).dialect(), speaks, "{path}");
        }
    }

    #[test]
    fn a_read_of_a_stored_response_incurs_nothing() {
        let read = operation(OpenAi, &Method::GET, "/v1/responses/resp_1");
        assert_eq!((read.tokens(), read.uses_tokens()), (Tokens::Retrieves, false));
    }

    #[test]
    fn a_read_of_one_answer_tells_what_it_cost_and_one_of_a_batch_does_not() {
        for (method, path, reads) in [
            (Method::GET, "/v1/responses/resp_1", true),
            (Method::POST, "/v1/responses/resp_1/cancel", true),
            (Method::GET, "/v1/chat/completions/chatcmpl-1", true),
            (Method::POST, "/v1/responses", false),
            (Method::GET, "/v1/batches/batch_1", false),
            (Method::POST, "/v1/batches/batch_1/cancel", false),
            (Method::GET, "/v1/models", false),
        ] {
            assert_eq!(operation(OpenAi, &method, path).reads_an_answer(), reads, "{method} {path}");
        }
    }

    #[test]
    fn deployments_are_named_by_the_path() {
        assert_eq!(after_deployment("/openai/deployments/gpt/embeddings?a=1"), Some(("gpt", "embeddings")));
        assert_eq!(after_deployment("/openai/deployments//embeddings"), None);
        assert_eq!(after_deployment("/openai/v1/embeddings"), None);
    }
}
