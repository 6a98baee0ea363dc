//! The set-ups of `deploy/examples` that need nothing but providers: each is sound as it is written, takes calls, and its
//! evidence verifies.

use std::path::{Path, PathBuf};

use policies::policy::{Facts, Policy};
use schemas::record::Decision;
use serde_json::{Value, json};
use tests::client::{Call, Got, send};
use tests::examples::Example;
use tests::gateway::Gateway;
use tests::oracle::Evidence;
use tests::process::free_port;
use tests::provider::Provider;

const LISTEN: &str = "127.0.0.1:8080";
const OPENAI: &str = "https://api.openai.com";
const ANTHROPIC: &str = "https://api.anthropic.com";

async fn ask(gateway: &Gateway, path: &str, key: &str, model: &str) -> Got {
    let body = json!({ "model": model, "max_tokens": 20, "messages": [{ "role": "user", "content": "Hi" }] });
    send(gateway.address, &Call::post(path, key, body.to_string())).await
}

fn is(got: &Got, status: u16, gateway: &Gateway) {
    assert_eq!(got.status, status, "{}\n{}", got.text(), gateway.log());
}

fn verified(gateway: &mut Gateway) -> Evidence {
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    Evidence::read(gateway)
}

/// What of the newest record of this kind of an exchange.
fn told<'e>(evidence: &'e Evidence, kind: &str, got: &Got, pointer: &str) -> &'e Value {
    let of = |leaf: &&Value| leaf["exchange"] == got.exchange().expect("an id");
    let leaf = evidence.of_kind(kind).filter(of).last();
    leaf.and_then(|leaf| leaf.pointer(pointer)).unwrap_or(&Value::Null)
}

/// Every policy that is shipped, with the file that it stands in.
fn shipped_policies() -> Vec<(PathBuf, Policy)> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let examples = below(&tests::root().join("deploy/examples")).into_iter();
    let mut files: Vec<_> = examples.map(|example| example.join("policy.yaml")).collect();
    files.retain(|file| file.exists());
    files.extend(below(&tests::root().join("policies/examples")));
    let read = |file: PathBuf| {
        let policy = Policy::parse(&std::fs::read(&file).expect("a file")).expect("a policy");
        (file, policy)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn no_policy_that_is_shipped_lets_a_gemini_model_pass_that_it_does_not_name() {
    let all = shipped_policies();
    assert!(all.len() >= 5, "{all:?}");
    for (file, policy) in all {
        let decided = |operation, model| {
            let facts = Facts {
                consumer: Some("job"),
                team: Some("product"),
                data_class: Some("public"),
                provider: Some("google"),
                model,
                operation: Some(operation),
                max_output_tokens: Some(10),
                ..Facts::default()
            };
            policy.evaluate(&facts).decision
        };
        for operation in [
            "models.generate_content",
            "models.stream_generate_content",
            "models.predict",
            "models.embed_content",
            "models.batch_embed_contents",
            "interactions.create",
        ] {
            let decision = decided(operation, Some("gemini-2.5-pro"));
            assert_ne!(decision, Decision::Allow, "{} {operation}", file.display());
        }
        for operation in ["models.list", "models.retrieve"] {
            assert_eq!(decided(operation, None), Decision::Allow, "{} {operation}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_team_reaches_both_providers() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("one-team", LISTEN, dir.path());
    example.provider(OPENAI, &provider.url());
    example.provider(ANTHROPIC, &provider.url());
    let key = example.issue(&["--consumer", "assistant", "--team", "support"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    is(&ask(&gateway, "/openai/v1/chat/completions", &key, "gpt-4o-mini").await, 200, &gateway);
    is(&ask(&gateway, "/anthropic/v1/messages", &key, "claude-sonnet-4-5").await, 200, &gateway);
    is(&ask(&gateway, "/openai/v1/chat/completions", "afk_wrong", "gpt-4o-mini").await, 401, &gateway);
    let evidence = verified(&mut gateway);
    assert_eq!(evidence.exchanges("outcome").len(), 2);
    assert!(evidence.of_kind("outcome").all(|leaf| leaf["cost"] != Value::Null), "both models have a price");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_teams_are_kept_to_their_models_limits_and_providers() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("many-teams", LISTEN, dir.path());
    example.provider(OPENAI, &provider.url());
    example.provider(ANTHROPIC, &provider.url());
    let search = example.issue(&["--consumer", "search", "--team", "product", "--group", "engineers"]);
    let payroll = ["--consumer", "payroll", "--team", "hr", "--allow-route", "anthropic"];
    let payroll = example.issue(&[&payroll[..], &["--allow-model", "claude-*"]].concat());
    let trial = ["--consumer", "trial-ana", "--team", "product", "--group", "contractors"];
    let trial = example.issue(&[&trial[..], &["--expires", "90d"]].concat());
    let hr = example.issue(&["--consumer", "recruiting", "--team", "hr"]);
    let mut gateway = example.checked(&search);
    gateway.serve();
    let (chat, messages) = ("/openai/v1/chat/completions", "/anthropic/v1/messages");
    let told = ask(&gateway, chat, &search, "gpt-4o").await;
    is(&told, 200, &gateway);
    assert!(told.header("ratelimit-policy").is_some_and(|text| text.contains("team-budget")));
    is(&ask(&gateway, messages, &payroll, "claude-sonnet-4-5").await, 200, &gateway);
    let reason = |got: &Got| (got.status, got.header("x-affidavit-reason").unwrap_or_default().to_owned());
    let outside = ask(&gateway, messages, &payroll, "gpt-4o").await;
    assert_eq!(reason(&outside), (403, "not_allowed".to_owned()));
    for (path, key, model) in
        [(chat, &hr, "gpt-4o"), (chat, &trial, "gpt-4o"), (messages, &trial, "claude-opus-4-1")]
    {
        let denied = ask(&gateway, path, key, model).await;
        assert_eq!(reason(&denied), (403, "policy_denied".to_owned()), "{model}");
    }
    is(&ask(&gateway, messages, &hr, "claude-sonnet-4-5").await, 200, &gateway);
    let mut seen = Vec::new();
    for _ in 0..21 {
        seen.push(ask(&gateway, chat, &trial, "gpt-4o-mini").await.status);
    }
    assert!(seen[..15].iter().all(|status| *status == 200) && seen.contains(&429), "{seen:?}");
    is(&ask(&gateway, chat, &search, "gpt-4o-mini").await, 200, &gateway);
    verified(&mut gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_path_falls_back_to_another_provider_in_its_own_dialect() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("fallback", LISTEN, dir.path());
    let gone = format!("http://{}", free_port());
    example.provider(OPENAI, &gone);
    example.provider("https://eu.api.openai.com", &gone);
    example.provider(ANTHROPIC, &provider.url());
    let key = example.issue(&["--consumer", "assistant"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    let fell = ask(&gateway, "/chat/v1/chat/completions", &key, "fast").await;
    is(&fell, 200, &gateway);
    let answer: Value = serde_json::from_str(&fell.text()).expect("JSON");
    assert_eq!(answer["object"], "chat.completion", "{answer}");
    let asked: Vec<_> = provider.seen().iter().map(|seen| (seen.line.clone(), seen.body.clone())).collect();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].0.contains("/v1/messages"), "{}", asked[0].0);
    let body: Value = serde_json::from_slice(&asked[0].1).expect("JSON");
    assert_eq!(body["model"], "claude-haiku-4-5");
    is(&ask(&gateway, "/claude/v1/chat/completions", &key, "claude-sonnet-4-5").await, 200, &gateway);
    let (store, trust) =
        (gateway.store().display().to_string(), dir.path().join("trust.yaml").display().to_string());
    let targets = "SELECT target, count(*) FROM exchanges GROUP BY 1 ORDER BY 1";
    let query = ["query".to_owned(), store, targets.to_owned(), "--trust".to_owned(), trust];
    let evidence = verified(&mut gateway);
    let (code, out, err) = gateway.auditor(&query);
    assert!(code == 0 && out.contains("spare"), "{out}{err}");
    let failed: Vec<_> = evidence.of_kind("attempt").filter(|leaf| leaf["phase"] == "end").collect();
    let mut names: Vec<_> = failed.iter().filter_map(|leaf| leaf["target"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["europe", "main"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_litellm_did_is_done_by_the_migration_s_example() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("from-litellm", "127.0.0.1:4000", dir.path());
    example.provider(OPENAI, &provider.url());
    example.provider("https://eu.api.openai.com", &provider.url());
    example.provider(ANTHROPIC, &provider.url());
    example.replace("127.0.0.1:4318", &free_port().to_string());
    let key = example.issue(&["--consumer", "job", "--team", "product"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    let path = "/v1/chat/completions";
    let mut answered = Vec::new();
    for _ in 0..4 {
        answered.push(ask(&gateway, path, &key, "gpt-4").await);
    }
    let claude = ask(&gateway, path, &key, "claude").await;
    for got in answered.iter().chain([&claude]) {
        is(got, 200, &gateway);
    }
    is(&ask(&gateway, path, &key, "nobody-knows").await, 404, &gateway);
    // A list names no model, so that no route takes it.
    let list = Call { method: "GET".into(), ..Call::post("/v1/models", &key, "") };
    is(&send(gateway.address, &list).await, 404, &gateway);
    let bodies: Vec<Value> =
        provider.seen().iter().map(|seen| serde_json::from_slice(&seen.body).expect("JSON")).collect();
    assert!(bodies[..4].iter().all(|body| body["model"] == "gpt-4o"), "{bodies:?}");
    assert_eq!(bodies[4]["model"], "claude-sonnet-4-5");
    assert_eq!(bodies[4]["temperature"], json!(0.3));
    let evidence = verified(&mut gateway);
    let mut targets: Vec<_> = answered
        .iter()
        .filter_map(|got| told(&evidence, "intent", got, "/asked/target").as_str().map(str::to_owned))
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["europe", "main", "main", "main"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ai_proxy_multi_did_is_done_by_the_migration_s_example() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("from-apisix", "127.0.0.1:9080", dir.path());
    let (url, gone) = (provider.url(), format!("http://{}", free_port()));
    let credential = "credential: { env: OPENAI_API_KEY }";
    example.replace(credential, &format!("base_url: \"{url}\"\n    {credential}"));
    example.provider("https://eu.api.openai.com", &gone);
    example.replace("kind: anthropic,", &format!("kind: anthropic, base_url: \"{url}\","));
    // Vectors that a test can foresee.
    example
        .replace("model: text-embedding-3-small", "model: text-embedding-3-small\n        dimensions: 256");
    let key = example.issue(&["--consumer", "job", "--team", "product"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    let asked = |kind: &str| provider.seen().iter().filter(|seen| seen.line.starts_with(kind)).count();
    for _ in 0..500 {
        if asked("POST /v1/embeddings") == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let ask_for = async |path: &str, words: &str| {
        let messages = [json!({ "role": "user", "content": words })];
        let body = json!({ "model": "any", "max_tokens": 5, "temperature": 1, "messages": messages });
        let got = send(gateway.address, &Call::post(path, &key, body.to_string())).await;
        is(&got, 200, &gateway);
        got
    };
    let code = ask_for("/ask/v1/chat/completions", "please fix the bug in this function").await;
    let other = ask_for("/ask/v1/chat/completions", "penguins").await;
    let mut chats = Vec::new();
    for _ in 0..4 {
        chats.push(ask_for("/v1/chat/completions", "Hi").await);
    }
    let bodies: Vec<Value> = provider
        .seen()
        .iter()
        .filter(|seen| seen.line == "POST /v1/chat/completions")
        .map(|seen| serde_json::from_slice(&seen.body).expect("JSON"))
        .collect();
    let models: Vec<_> =
        bodies.iter().take(3).map(|body| body["model"].as_str().unwrap_or_default()).collect();
    assert_eq!(models, ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-mini"]);
    let forced = &bodies[2];
    assert_eq!((&forced["temperature"], &forced["max_completion_tokens"]), (&json!(0.3), &json!(2000)));
    assert_eq!(forced.get("max_tokens"), None, "{forced}");
    // What its `uri` did not take goes nowhere, with nothing forced into it.
    let embeddings = Call::post("/v1/embeddings", &key, json!({ "model": "e", "input": "a" }).to_string());
    is(&send(gateway.address, &embeddings).await, 404, &gateway);
    assert!(asked("GET /v1/models") >= 1, "the active check");
    let evidence = verified(&mut gateway);
    for (got, target, why) in [(&code, "code", "matched"), (&other, "general", "below_threshold")] {
        assert_eq!(told(&evidence, "intent", got, "/asked/target"), target);
        assert_eq!(told(&evidence, "intent", got, "/choice/why"), why);
    }
    let served: Vec<_> =
        chats.iter().map(|got| told(&evidence, "outcome", got, "/served/target").clone()).collect();
    assert_eq!(served.iter().filter(|target| **target == "main").count(), 1, "europe is away: {served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_both_dialects_reach_gemini_behind_a_translated_route() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut example = Example::copy("fallback", LISTEN, dir.path());
    for is in [OPENAI, "https://eu.api.openai.com", ANTHROPIC] {
        example.provider(is, &provider.url());
    }
    let further = format!(
        "providers:\n  - {{ name: gemini, kind: gemini, base_url: '{}', credential: {{ env: OPENAI_API_KEY }} }}",
        provider.url()
    );
    example.replace("providers:", &further);
    example.replace(
        "routes:",
        "routes:\n  - { name: gemini, path: /gemini, dialect: openai, provider: gemini }\n  \
         - { name: gemini-messages, path: /messages, dialect: anthropic, provider: gemini }",
    );
    let key = example.issue(&["--consumer", "assistant"]);
    let mut gateway = example.checked(&key);
    gateway.serve();
    let chat = ask(&gateway, "/gemini/v1/chat/completions", &key, "gemini-2.5-flash").await;
    is(&chat, 200, &gateway);
    assert!(chat.text().contains("\"chat.completion\""), "{}", chat.text());
    let messages = ask(&gateway, "/messages/v1/messages", &key, "gemini-2.5-flash").await;
    is(&messages, 200, &gateway);
    assert!(messages.text().contains("\"end_turn\""), "{}", messages.text());
    for seen in provider.seen() {
        assert!(seen.line.contains("gemini-2.5-flash:generateContent"), "{}", seen.line);
    }
    let evidence = verified(&mut gateway);
    for got in [&chat, &messages] {
        assert_ne!(*told(&evidence, "outcome", got, "/usage/input_tokens"), Value::Null);
    }
}
