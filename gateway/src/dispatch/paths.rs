//! Where a path leads at a provider: behind the path of its base URL, byte for byte, unless the provider has what OpenAI has at
//! that path somewhere else.

use std::borrow::Cow;

use dialects::Dialect;

use crate::config::Known;

/// The paths of one provider.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Of the base URL, without a `/` at its end.
    base: String,
    /// How a path of OpenAI's API begins, and what stands behind the base in its place.
    moved: Vec<(&'static str, String)>,
}

impl Paths {
    /// Of a provider with this base path that speaks `dialect`, and is known by name where `known` says it.
    pub(crate) fn new(base: &str, dialect: Dialect, known: Option<&Known>) -> Self {
        let rows = known.map(|known| known.moved).filter(|_| dialect == Dialect::OpenAi).unwrap_or_default();
        // A base URL that was typed with a beginning of the provider's own path is not said twice.
        let behind =
            |own: &'static str| own.strip_prefix(base).filter(|rest| rest.starts_with('/')).unwrap_or(own);
        let moved = rows.iter().map(|(plain, own)| (*plain, behind(own).to_owned())).collect();
        Self { base: base.to_owned(), moved }
    }

    /// What stands before every path.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Where the path that a caller of the provider's own dialect asks for is, behind the base. What is neither of OpenAI's API nor
    /// begins with a version that the base ends with goes as it came.
    pub(crate) fn asked<'p>(&self, path: &'p str) -> Cow<'p, str> {
        self.find(path, |version, own| version == own || version == "v1")
    }

    /// Where a path is that the gateway wrote: whatever version it begins with, one that the base ends with counts.
    pub(crate) fn written<'p>(&self, path: &'p str) -> Cow<'p, str> {
        self.find(path, |_, _| true)
    }

    fn find<'p>(&self, path: &'p str, gives_way: impl Fn(&str, &str) -> bool) -> Cow<'p, str> {
        let own = self.base.rsplit('/').next().filter(|segment| is_version(segment));
        let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
        if let (Some(own), Some(first)) = (own, first.filter(|first| is_version(first)))
            && gives_way(first, own)
        {
            // The slash before the version, and the version.
            return Cow::Borrowed(path.get(1 + first.len()..).unwrap_or_default());
        }
        let moved = self.moved.iter().find_map(|(plain, own)| {
            let rest = path.strip_prefix(plain)?;
            let is_whole = plain.ends_with('/') || rest.is_empty() || rest.starts_with('/');
            is_whole.then(|| format!("{own}{rest}"))
        });
        moved.map_or(Cow::Borrowed(path), Cow::Owned)
    }
}

/// `v1`, `v1beta`, `v4`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use serde::Deserialize;

    use super::*;
    use crate::config::{BaseUrl, KNOWN};

    const CHAT: &str = "/v1/chat/completions";

    fn of(base: &str, kind: &str, dialect: Dialect) -> Paths {
        let known = KNOWN.iter().find(|known| known.name == kind);
        assert!(known.is_some() || kind.is_empty(), "{kind}");
        Paths::new(base, dialect, known)
    }

    fn asked(paths: &Paths, path: &str) -> String {
        format!("{}{}", paths.base(), paths.asked(path))
    }

    #[test]
    fn openai_s_paths_lead_to_the_provider_s_own_and_those_go_as_they_came() {
        let cases = [
            ("groq", CHAT, "/openai/v1/chat/completions"),
            ("groq", "/openai/v1/chat/completions", "/openai/v1/chat/completions"),
            ("groq", "/v1", "/v1"),
            ("groq", "/v11/models", "/v11/models"),
            ("openrouter", "/v1/models", "/api/v1/models"),
            ("openrouter", "/api/v1/chat/completions", "/api/v1/chat/completions"),
            ("github_models", CHAT, "/inference/chat/completions"),
            ("github_models", "/orgs/o/inference/chat/completions", "/orgs/o/inference/chat/completions"),
            ("perplexity", CHAT, "/chat/completions"),
            ("perplexity", "/v1/responses", "/v1/responses"),
            ("github_copilot", "/v1/responses/resp_1", "/responses/resp_1"),
            ("github_copilot", "/v1/messages", "/v1/messages"),
            ("writer", CHAT, "/v1/chat"),
            ("writer", "/v1/chat", "/v1/chat"),
            ("writer", "/v1/chat/completionsx", "/v1/chat/completionsx"),
            ("zai", CHAT, "/api/paas/v4/chat/completions"),
            ("zai", "/api/coding/paas/v4/chat/completions", "/api/coding/paas/v4/chat/completions"),
            ("qwen", "/api/v1/services/x", "/api/v1/services/x"),
            ("openai", CHAT, CHAT),
            ("", CHAT, CHAT),
        ];
        for (kind, path, wanted) in cases {
            assert_eq!(asked(&of("", kind, Dialect::OpenAi), path), wanted, "{kind} {path}");
        }
        let native = of("", "gemini", Dialect::Gemini);
        assert_eq!(
            asked(&native, "/v1/models"),
            "/v1/models",
            "what is not OpenAI's dialect has paths of its own"
        );
    }

    #[test]
    fn a_base_url_keeps_what_it_says() {
        let cases = [
            // A version at its end.
            ("/api/coding/paas/v4", "zai", CHAT, "/api/coding/paas/v4/chat/completions"),
            ("/v4", "", CHAT, "/v4/chat/completions"),
            ("/v4", "", "/chat/completions", "/v4/chat/completions"),
            ("/v4", "", "/v4/models", "/v4/models"),
            ("/v4", "", "/v2/models", "/v4/v2/models"),
            ("/v1beta/openai", "", CHAT, "/v1beta/openai/v1/chat/completions"),
            // A part of the provider's own path.
            ("/openai", "groq", CHAT, "/openai/v1/chat/completions"),
            ("/openai/v1", "groq", CHAT, "/openai/v1/chat/completions"),
            ("/inference", "github_models", CHAT, "/inference/chat/completions"),
            ("/v1beta/openai", "gemini", CHAT, "/v1beta/openai/chat/completions"),
            ("/open", "groq", CHAT, "/open/openai/v1/chat/completions"),
            // Another place that stands for the provider's.
            ("/mirror/groq", "groq", CHAT, "/mirror/groq/openai/v1/chat/completions"),
            ("/mirror/groq", "groq", "/openai/v1/models", "/mirror/groq/openai/v1/models"),
        ];
        for (base, kind, path, wanted) in cases {
            assert_eq!(asked(&of(base, kind, Dialect::OpenAi), path), wanted, "{base} {kind} {path}");
        }
        let written = of("/v1", "", Dialect::Gemini);
        assert_eq!(written.written("/v1beta/models/g:generateContent"), "/models/g:generateContent");
        assert_eq!(of("", "groq", Dialect::OpenAi).written(CHAT), "/openai/v1/chat/completions");
    }

    /// The provider of a recording -> the kind.
    fn kind(provider: &str) -> String {
        let kind = match provider {
            "aws-bedrock" => "bedrock",
            "google-gemini" => "gemini",
            "google-vertex" => "vertex",
            "snowflake-cortex" => "snowflake",
            "voyageai" => "voyage",
            same => return same.replace('-', "_"),
        };
        kind.to_owned()
    }

    /// What an SDK of OpenAI asks for.
    fn plain(dialect: &str) -> Option<&'static str> {
        Some(match dialect {
            "openai-chat" => CHAT,
            "openai-completions" => "/v1/completions",
            "openai-responses" => "/v1/responses",
            "openai-embeddings" | "voyage" => "/v1/embeddings",
            "openai-input-tokens" => "/v1/responses/input_tokens",
            "openai-rerank" => "/v1/rerank",
            _ => return None,
        })
    }

    #[derive(Deserialize)]
    struct Recording {
        provider: String,
        dialect: String,
        host: String,
        path: String,
    }

    fn recordings() -> Option<Vec<Recording>> {
        let corpus = std::env::var_os("AFFIDAVIT_CORPUS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
        let files = std::fs::read_dir(&corpus).ok()?.map(|entry| entry.unwrap().path());
        let lines =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl")).map(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Recording>>()
            });
        Some(lines.flatten().collect())
    }

    /// Where an SDK of OpenAI is led to another path than any that was recorded: the one that the provider's own words name.
    const UNRECORDED: [(&str, &str); 2] = [("azure_foundry", "openai-chat"), ("huggingface", "openai-chat")];
    /// Hosts of recordings that are the provider's too.
    const ALSO: [(&str, &str); 2] = [("cohere", "api.cohere.ai"), ("together", "api.together.ai")];

    #[test]
    fn every_kind_that_was_recorded_is_where_its_row_says() {
        let Some(lines) = recordings() else {
            println!("no corpus: the rows are held against none");
            return;
        };
        let mut paths: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mut kinds = BTreeSet::new();
        for Recording { provider, dialect: spoken, host, path } in &lines {
            let kind = kind(provider);
            let Some(known) = KNOWN.iter().find(|known| known.name == kind) else { continue };
            let url = known.base_url.map(|url| BaseUrl::parse(url).unwrap());
            if let Some(url) = url.filter(|url| !url.is_loopback()) {
                let own = url.authority.host();
                let is_known = own == host || ALSO.contains(&(kind.as_str(), host.as_str()));
                assert!(is_known, "{kind} is at {own}, and {host} was recorded");
                assert_eq!(url.path, "", "{kind}");
            }
            // What its own SDK sent goes as it came, at whatever dialect.
            for dialect in [known.dialect, Dialect::OpenAi] {
                let own = Paths::new("", dialect, Some(known)).asked(path).into_owned();
                let is_openai_s = known.dialect != Dialect::OpenAi && dialect == Dialect::OpenAi;
                assert!(own == *path || is_openai_s, "{kind}: {path} became {own}");
            }
            paths.entry((kind.clone(), spoken.clone())).or_default().insert(path.clone());
            kinds.insert(kind);
        }
        let mut led = 0;
        for ((kind, dialect), recorded) in &paths {
            let known = KNOWN.iter().find(|known| known.name == kind.as_str()).unwrap();
            let is_openai_s = known.dialect == Dialect::OpenAi || known.dialect == Dialect::Gemini;
            let Some(plain) = plain(dialect).filter(|_| is_openai_s) else { continue };
            let found = Paths::new("", Dialect::OpenAi, Some(known)).asked(plain).into_owned();
            let unrecorded = UNRECORDED.contains(&(kind.as_str(), dialect.as_str()));
            assert!(
                recorded.contains(&found) != unrecorded,
                "{kind}, {dialect}: {found} is none of {recorded:?}"
            );
            led += 1;
        }
        println!("{} recordings of {} kinds, {led} of OpenAI's paths", lines.len(), kinds.len());
        assert!(kinds.len() > 25 && led > 25, "{kinds:?}, {led}");
    }
}
