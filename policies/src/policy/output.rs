//! What operations write: said here once, for the policy's output bound and for what quotas reserve.
//!
//! Every operation that uses tokens stands in one of these lists; what stands in none uses none. The gateway's own requests
//! (`probe`, `routing`) are in none either: what they ask for stands in its configuration.

/// What an operation writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// What a request can bound: an output bound means something.
    Bounded,
    /// Tokens that no request can bound.
    Unbounded,
    /// No tokens.
    None,
}

/// They make a model write. `other` too: what is not known may write.
const WRITE: &[&str] = &[
    "chat.completions",
    "chat.create",
    "complete",
    "completions",
    "conversations.append",
    "conversations.restart",
    "conversations.start",
    "converse",
    "converse_stream",
    "generate.create",
    "interactions.create",
    "invoke_model",
    "invoke_model_stream",
    "messages.create",
    "models.generate_content",
    "models.predict",
    "models.stream_generate_content",
    "other",
    "prompts.generate",
    "prompts.improve",
    "prompts.templatize",
    "responses.compact",
    "responses.create",
    "threads.runs.create",
    "threads.runs.submit_tool_outputs",
];

/// Images, speech and transcripts: no request says of how many tokens.
const WRITE_UNBOUNDED: &[&str] = &[
    "audio.speech",
    "audio.transcriptions",
    "audio.translations",
    "images.edits",
    "images.generations",
    "images.variations",
];

/// They use tokens and write none.
const READ: &[&str] = &[
    "async_invoke.start",
    "classify.create",
    "embeddings.create",
    "models.batch_embed_contents",
    "models.embed_content",
    "ocr.create",
    "rerank.create",
];

/// Of these that write, models of every kind are behind one path.
const OF_ANY_MODEL: &[&str] = &["invoke_model", "invoke_model_stream", "models.predict"];

/// In the names of models that write no tokens: embeddings, ranks, images, films, music.
const SILENT_MODELS: &[&str] = &[
    "embed",
    "rerank",
    "imagen-",
    "imagegeneration",
    "titan-image",
    "stability.",
    "nova-canvas",
    "nova-reel",
    "veo-",
    "lyria-",
    "virtual-try-on",
];

/// What `operation` writes when it is asked of `model`. An operation whose path takes any model writes, unless the model's
/// name says that it cannot.
pub fn output(operation: &str, model: Option<&str>) -> Output {
    if WRITE_UNBOUNDED.contains(&operation) {
        return Output::Unbounded;
    }
    let is_silent = |model: &str| {
        let model = model.to_ascii_lowercase();
        SILENT_MODELS.iter().any(|name| model.contains(name))
    };
    if !WRITE.contains(&operation) || (OF_ANY_MODEL.contains(&operation) && model.is_some_and(is_silent)) {
        return Output::None;
    }
    Output::Bounded
}

/// Every operation that uses tokens, as the lists have them; `other` among them.
pub fn with_tokens() -> impl Iterator<Item = &'static str> {
    [WRITE, WRITE_UNBOUNDED, READ].into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_stands_in_one_list() {
        let mut all: Vec<_> = with_tokens().collect();
        all.sort_unstable();
        let many = all.len();
        all.dedup();
        assert_eq!(all.len(), many);
        assert!(OF_ANY_MODEL.iter().all(|name| WRITE.contains(name)));
    }

    #[test]
    fn the_model_says_what_an_operation_of_any_model_writes() {
        let table = [
            ("models.generate_content", Some("gemini-2.5-pro"), Output::Bounded),
            ("models.generate_content", Some("gemini-embedding-001"), Output::Bounded),
            ("models.predict", Some("medlm-medium"), Output::Bounded),
            ("models.predict", Some("text-embedding-005"), Output::None),
            ("models.predict", Some("imagen-4.0-generate-001"), Output::None),
            ("models.predict", Some("4711"), Output::Bounded),
            ("models.predict", None, Output::Bounded),
            ("invoke_model", Some("eu.anthropic.claude-sonnet-4-20250514-v1:0"), Output::Bounded),
            ("invoke_model", Some("amazon.titan-embed-text-v2:0"), Output::None),
            ("invoke_model", Some("COHERE.EMBED-english-v3"), Output::None),
            ("images.generations", Some("gpt-image-1"), Output::Unbounded),
            ("embeddings.create", None, Output::None),
            ("files.create", None, Output::None),
            ("other", None, Output::Bounded),
        ];
        for (operation, model, wanted) in table {
            assert_eq!(output(operation, model), wanted, "{operation} {model:?}");
        }
    }
}
