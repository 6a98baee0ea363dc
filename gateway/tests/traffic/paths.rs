//! Which path a provider is asked at that has OpenAI's API elsewhere than OpenAI.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Method;
use http_body_util::Full;

use crate::provider::{COMPLETION, Provider, whole};
use crate::rig::{Rig, Setup, read};
use crate::routes::{QUESTION, nobody, post, provider};

const MESSAGES: &str = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}"#;

/// A kind of each place, where a chat is there, and a path of its own SDK.
const KINDS: [(&str, &str, &str); 14] = [
    ("openai", "/v1/chat/completions", "/v1/chat/completions"),
    ("azure_foundry", "/openai/v1/chat/completions", "/models/chat/completions?api-version=2026-01-01"),
    ("deepseek", "/chat/completions", "/beta/chat/completions"),
    ("fireworks", "/inference/v1/chat/completions", "/inference/v1/chat/completions"),
    ("github_copilot", "/chat/completions", "/chat/completions"),
    ("github_models", "/inference/chat/completions", "/orgs/o/inference/chat/completions"),
    ("groq", "/openai/v1/chat/completions", "/openai/v1/chat/completions"),
    ("openrouter", "/api/v1/chat/completions", "/api/v1/chat/completions"),
    ("perplexity", "/chat/completions", "/v1/responses"),
    ("qwen", "/compatible-mode/v1/chat/completions", "/compatible-mode/v1/chat/completions"),
    ("snowflake", "/api/v2/cortex/v1/chat/completions", "/api/v2/cortex/v1/chat/completions"),
    ("venice", "/api/v1/chat/completions", "/api/v1/chat/completions"),
    ("writer", "/v1/chat", "/v1/chat"),
    ("zai", "/api/paas/v4/chat/completions", "/api/coding/paas/v4/chat/completions"),
];

fn route(kind: &str) -> String {
    format!("k-{}", kind.replace('_', "-"))
}

async fn answering() -> Provider {
    Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_callers_reach_each_known_kind_at_its_own_path_also_behind_a_fallback_and_translated() {
    let there = answering().await;
    let (mut more_providers, mut more_routes) = (provider("gone", nobody().await), String::new());
    for (kind, _, _) in KINDS {
        let (name, address) = (route(kind), there.address);
        writeln!(more_providers, "  - {{ name: {name}-1, kind: {kind}, base_url: 'http://{address}' }}")
            .unwrap();
        write!(
            more_routes,
            "  - {{ name: {name}, path: /{name}, provider: {name}-1 }}\n  \
- {{ name: {name}-f, path: /{name}-f, targets: [{{ provider: gone }}, {{ provider: {name}-1, priority: 1 }}] }}\n  \
- {{ name: {name}-t, path: /{name}-t, dialect: anthropic, provider: {name}-1 }}\n"
        )
        .unwrap();
    }
    let rig = Rig::start(&there, Setup { more_providers, more_routes, ..Setup::default() }).await;
    let mut asked = 0;
    for (kind, chat, own) in KINDS {
        let name = route(kind);
        let cases = [
            (format!("/{name}/v1/chat/completions?a=b"), QUESTION, format!("{chat}?a=b")),
            (format!("/{name}{own}"), QUESTION, own.to_owned()),
            (format!("/{name}-f/v1/chat/completions"), QUESTION, chat.to_owned()),
            (format!("/{name}-t/v1/messages"), MESSAGES, chat.to_owned()),
        ];
        for (path, body, wanted) in cases {
            let (status, _, answer) = post(&rig, &path, body).await;
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&answer));
            asked += 1;
            assert_eq!(there.wait(asked).await.uri.to_string(), wanted, "{path}");
        }
    }
    // What no dialect knows is the provider's own, and goes as it came.
    let list =
        rig.post("/k-fireworks/v1/accounts/a/models").method(Method::GET).body(Full::<Bytes>::default());
    assert_eq!(read(rig.send(list.unwrap()).await).await.0, 200);
    assert_eq!(there.wait(asked + 1).await.uri, "/v1/accounts/a/models");
    assert_eq!(rig.stop().await.outcomes().len(), asked + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_url_that_ends_with_a_version_keeps_it_for_callers_of_the_same_dialect() {
    let there = answering().await;
    let address = there.address;
    let more_providers = format!(
        "  - {{ name: four, dialect: openai, base_url: 'http://{address}/api/paas/v4' }}\n  \
- {{ name: claude, dialect: anthropic, base_url: 'http://{address}/v1' }}\n  \
- {{ name: groq, kind: groq, base_url: 'http://{address}/openai' }}\n  \
- {{ name: own, dialect: openai, base_url: 'http://{address}/v1' }}\n"
    );
    let more_routes = "  - { name: four, path: /four, provider: four }\n  \
- { name: claude, path: /claude, provider: claude }\n  \
- { name: groq, path: /groq, provider: groq }\n  \
- { name: own, path: /own, targets: [{ provider: own, path: /v2/invocations }] }\n";
    let setup = Setup { more_providers, more_routes: more_routes.into(), ..Setup::default() };
    let rig = Rig::start(&there, setup).await;
    let cases = [
        ("/four/v1/chat/completions", QUESTION, "/api/paas/v4/chat/completions"),
        ("/four/chat/completions", QUESTION, "/api/paas/v4/chat/completions"),
        ("/claude/v1/messages", MESSAGES, "/v1/messages"),
        ("/claude/messages", MESSAGES, "/v1/messages"),
        ("/groq/v1/chat/completions", QUESTION, "/openai/v1/chat/completions"),
        ("/own/v1/chat/completions", QUESTION, "/v1/v2/invocations"),
    ];
    for (number, (path, body, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(post(&rig, path, body).await.0, 200, "{path}");
        assert_eq!(there.wait(number + 1).await.uri, wanted, "{path}");
    }
    rig.stop().await;
}
