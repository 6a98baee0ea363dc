//! The words of OpenTelemetry's GenAI conventions for what the gateway's records say.
//!
//! Read in November 2026: <https://opentelemetry.io/docs/specs/semconv/gen-ai/> (gen-ai-spans, gen-ai-metrics; status
//! Development), and github.com/open-telemetry/semantic-conventions-genai, where they are moved to, and whose unreleased
//! state gives the token metrics other names: the published names stand here.

use dialects::{Dialect, Operation};

pub(super) const OPERATION: &str = "gen_ai.operation.name";
pub(super) const PROVIDER: &str = "gen_ai.provider.name";
pub(super) const REQUEST_MODEL: &str = "gen_ai.request.model";
pub(super) const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub(super) const TOKEN_TYPE: &str = "gen_ai.token.type";
pub(super) const ERROR: &str = "error.type";
pub(super) const ADDRESS: &str = "server.address";
pub(super) const PORT: &str = "server.port";
pub(super) const ROUTE: &str = "affidavit.route";
/// True where the token counts beside it are an estimate. The conventions have no word for that.
pub(super) const ESTIMATED: &str = "affidavit.usage.estimated";
/// What an estimate was counted by.
pub(super) const TOKENIZER: &str = "affidavit.usage.tokenizer";
/// What OpenTelemetry's SDKs call the series of all that is beyond their limit.
pub(super) const OVERFLOW: &str = "otel.metric.overflow";

/// `gen_ai.operation.name`: the conventions' own word where they have one, else the records'.
pub(super) fn operation(operation: &str) -> &str {
    match operation {
        "chat.completions"
        | "chat.create"
        | "responses.create"
        | "interactions.create"
        | "messages.create"
        | "converse"
        | "converse_stream" => "chat",
        "completions" | "complete" | "generate.create" => "text_completion",
        "models.generate_content" | "models.stream_generate_content" => "generate_content",
        "embeddings.create" | "models.embed_content" | "models.batch_embed_contents" => "embeddings",
        other => other,
    }
}

/// `gen_ai.provider.name`: whose dialect is spoken.
pub(super) fn provider(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "openai",
        Dialect::AzureOpenAi => "azure.ai.openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Gemini => "gcp.gemini",
        Dialect::Vertex => "gcp.vertex_ai",
        Dialect::Cohere => "cohere",
        // No word of the conventions' own.
        Dialect::Ollama => "ollama",
        Dialect::Watsonx => "ibm.watsonx.ai",
        Dialect::Bedrock => "aws.bedrock",
    }
}

/// Whether an operation asks a model for something.
pub(super) fn is_inference(operation: &Operation) -> bool {
    operation.tokens() == dialects::operation::Tokens::Incurs
}

/// `http.request.method`: a method of HTTP's own, or the conventions' word for any other.
pub(super) fn method(method: Option<&str>) -> &str {
    match method {
        Some(
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH"),
        ) => known,
        _ => "_OTHER",
    }
}
