//! The providers that are known by name: a row of data each, no code.
//!
//! A row says where the provider is, which dialect it speaks and where its key goes. What differs in how they count
//! (reasoning beside the output, audio beside the input, running values) needs no row: the counts show it, and the
//! dialect reads it off them. A path that the dialect does not know passes and is recorded as `other`. A provider that has
//! OpenAI's API at other paths says where ([`Known::moved`]), so that a caller who asks for `/v1/chat/completions` is
//! understood there too.

use dialects::change::ChatBound;

use super::{Dialect, KeyHeader};

/// A provider that is known by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// The value of `kind`, and its name in the price book.
    pub name: &'static str,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is, for everybody; `None` where each customer or each region has an address of its own.
    pub base_url: Option<&'static str>,
    /// Where its key goes, where that is not the dialect's usual place.
    pub key_header: Option<KeyHeader>,
    /// Where the paths of OpenAI's API are, as far as they are elsewhere: how such a path begins, and what stands there in its
    /// place. The first that fits counts; a path that none fits goes as it came.
    pub moved: &'static [(&'static str, &'static str)],
    /// The word for the most tokens of an answer in its chat of OpenAI's dialect.
    pub chat_bound: ChatBound,
}

const fn at(name: &'static str, dialect: Dialect, base_url: &'static str) -> Known {
    Known {
        name,
        dialect,
        base_url: Some(base_url),
        key_header: None,
        moved: &[],
        chat_bound: ChatBound::MaxTokens,
    }
}

const fn openai(name: &'static str, base_url: &'static str) -> Known {
    at(name, Dialect::OpenAi, base_url)
}

const fn anywhere(name: &'static str, dialect: Dialect) -> Known {
    Known { name, dialect, base_url: None, key_header: None, moved: &[], chat_bound: ChatBound::MaxTokens }
}

impl Known {
    const fn moved(self, moved: &'static [(&'static str, &'static str)]) -> Self {
        Self { moved, ..self }
    }

    /// OpenAI's own word for the bound, `max_completion_tokens`: where the older one is refused, or on its way out.
    const fn newer_bound(self) -> Self {
        Self { chat_bound: ChatBound::MaxCompletionTokens, ..self }
    }
}

/// All of them. A base URL is what stands before the path that the provider's own SDK sends.
pub const KNOWN: &[Known] = &[
    openai("openai", "https://api.openai.com").newer_bound(),
    anywhere("azure_openai", Dialect::AzureOpenAi).newer_bound(),
    Known {
        name: "azure_foundry",
        dialect: Dialect::OpenAi,
        base_url: None,
        key_header: Some(KeyHeader::ApiKey),
        moved: &[("/v1/", "/openai/v1/")],
        chat_bound: ChatBound::MaxCompletionTokens,
    },
    at("anthropic", Dialect::Anthropic, "https://api.anthropic.com"),
    at("gemini", Dialect::Gemini, "https://generativelanguage.googleapis.com")
        .moved(&[("/v1/", "/v1beta/openai/")])
        .newer_bound(),
    anywhere("vertex", Dialect::Vertex).newer_bound(),
    at("cohere", Dialect::Cohere, "https://api.cohere.com").moved(&[("/v1/", "/compatibility/v1/")]),
    at("ollama", Dialect::Ollama, "http://127.0.0.1:11434"),
    at("ollama_cloud", Dialect::Ollama, "https://ollama.com"),
    anywhere("watsonx", Dialect::Watsonx),
    // Each region has an address of its own.
    anywhere("bedrock", Dialect::Bedrock),
    openai("aimlapi", "https://api.aimlapi.com"),
    openai("cerebras", "https://api.cerebras.ai").newer_bound(),
    openai("crusoe", "https://api.inference.crusoecloud.com"),
    openai("deepseek", "https://api.deepseek.com").moved(&[("/v1/", "/")]),
    openai("doubleword", "https://api.doubleword.ai"),
    openai("fireworks", "https://api.fireworks.ai").moved(&[("/v1/", "/inference/v1/")]),
    // `/v1/messages` is its own.
    openai("github_copilot", "https://api.githubcopilot.com").moved(&[
        ("/v1/chat/completions", "/chat/completions"),
        ("/v1/responses", "/responses"),
        ("/v1/embeddings", "/embeddings"),
        ("/v1/models", "/models"),
    ]),
    openai("github_models", "https://models.github.ai").moved(&[("/v1/", "/inference/")]).newer_bound(),
    anywhere("gpustack", Dialect::OpenAi),
    openai("groq", "https://api.groq.com").moved(&[("/v1/", "/openai/v1/")]).newer_bound(),
    openai("heroku", "https://us.inference.heroku.com"),
    openai("huggingface", "https://router.huggingface.co"),
    openai("llamacpp", "http://127.0.0.1:8080"),
    openai("lmstudio", "http://127.0.0.1:1234"),
    openai("mistral", "https://api.mistral.ai"),
    openai("moonshot", "https://api.moonshot.ai"),
    openai("nvidia", "https://integrate.api.nvidia.com"),
    openai("openrouter", "https://openrouter.ai").moved(&[("/v1/", "/api/v1/")]),
    // `/v1/responses` is its own.
    openai("perplexity", "https://api.perplexity.ai").moved(&[("/v1/chat/completions", "/chat/completions")]),
    openai("qwen", "https://dashscope-intl.aliyuncs.com").moved(&[("/v1/", "/compatible-mode/v1/")]),
    openai("sambanova", "https://api.sambanova.ai"),
    anywhere("snowflake", Dialect::OpenAi).moved(&[("/v1/", "/api/v2/cortex/v1/")]).newer_bound(),
    openai("together", "https://api.together.xyz"),
    openai("venice", "https://api.venice.ai").moved(&[("/v1/", "/api/v1/")]),
    openai("vllm", "http://127.0.0.1:8000"),
    openai("voyage", "https://api.voyageai.com"),
    openai("writer", "https://api.writer.com").moved(&[("/v1/chat/completions", "/v1/chat")]),
    openai("xai", "https://api.x.ai").newer_bound(),
    openai("zai", "https://api.z.ai").moved(&[("/v1/", "/api/paas/v4/")]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BaseUrl;

    #[test]
    fn every_row_can_be_configured() {
        for known in KNOWN {
            assert!(schemas::Identifier::new(known.name).is_ok(), "{}", known.name);
            let Some(url) = known.base_url else { continue };
            let read = BaseUrl::parse(url);
            assert!(read.as_ref().is_some_and(|read| read.to_string() == url), "{url}");
            assert!(
                read.is_some_and(|read| read.tls || read.is_loopback()),
                "{url}: a key would pass in the clear"
            );
        }
        let mut names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len(), "two rows of one name");
    }
}
