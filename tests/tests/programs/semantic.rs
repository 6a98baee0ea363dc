//! Targets chosen by what a prompt means: by examples, with a fallback where nothing is near enough or nothing is known, and with
//! every embedding in the log.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::{Call, Got, send};
use tests::gateway::{Gateway, Setup};
use tests::metrics::{documented, shown};
use tests::oracle::Evidence;
use tests::provider::Provider;

const CODE: &str = "please fix the compiler error in my rust code";
const LAW: &str = "is this clause of the contract enforceable in court";

/// `pick` and `broken`, whose target for code fails; a provider of embeddings that nobody else asks.
fn setup(url: &str, dir: &std::path::Path) -> Setup {
    let providers = format!(
        "  - {{ name: embedder, dialect: openai, base_url: \"{url}\", price_as: openai, credential: {{ file: {}/provider.key }} }}\n",
        dir.display()
    );
    let target = |name: &str, more: &str| {
        format!("      - {{ name: {name}, provider: openai, model: gpt-4o-mini, {more} }}\n")
    };
    let code = "examples: [fix the compiler error in my rust code, write a unit test for this function]";
    let law = "examples: [is this clause of the contract enforceable, what does the court say]";
    let semantic = "    balance:\n      by: semantic\n      semantic: { provider: embedder, model: text-embedding-3-small, \
                    dimensions: 256, timeout: 1s, threshold: 0.5, fallback: general }\n";
    let routes = format!(
        "  - name: pick\n    path: /pick\n    keys: consumer_day\n    targets:\n{}{}{}{semantic}  \
         - name: broken\n    path: /broken\n    targets:\n{}{}{semantic}  \
         - name: strict\n    path: /strict\n    targets:\n{}{}{semantic}",
        target("code", code),
        target("law", law),
        target("general", "weight: 2"),
        target("code", &format!("{code}, headers: {{ set: {{ x-replay: 'script:status:503' }} }}")),
        target("general", "priority: 1"),
        target("code", &format!("{code}, threshold: 0.99")),
        target("general", "weight: 1"),
    );
    let policy = dir.join("policy.yaml");
    let rest = format!("policy: {}\n", policy.display());
    Setup { provider: url.to_owned(), providers, routes, rest, ..Setup::default() }
}

fn prepare(dir: &std::path::Path, url: &str) -> Gateway {
    let gateway = Gateway::prepare(dir, &setup(url, dir));
    let rule = "mode: enforce\ndefault: allow\nrules:\n  - { id: not-elsewhere, effect: deny, operations: [routing], when: { route: strict, consumer: tester } }\n";
    std::fs::write(dir.join("policy.yaml"), rule).expect("a policy");
    gateway
}

async fn ask(gateway: &Gateway, route: &str, words: &str) -> Got {
    let messages = json!([
        { "role": "user", "content": "an earlier question about penguins" },
        { "role": "assistant", "content": "an answer" },
        { "role": "user", "content": words }
    ]);
    let body = json!({ "model": "any", "messages": messages });
    let path = format!("/{route}/v1/chat/completions");
    let got = send(gateway.address, &Call::post(&path, &gateway.key, body.to_string())).await;
    assert_eq!(got.status, 200, "{}\n{}", got.text(), gateway.log());
    got
}

/// What a request's intent says: its target, and what that rests on.
fn choice<'e>(evidence: &'e Evidence, got: &Got) -> (&'e str, &'e str, &'e Value) {
    let id = got.exchange().expect("an id");
    let intent = evidence.of_kind("intent").find(|leaf| leaf["exchange"] == id).expect("an intent");
    let word = |text: &'e Value| text.as_str().unwrap_or_default();
    (word(&intent["asked"]["target"]), word(&intent["choice"]["why"]), &intent["choice"])
}

async fn until(gateway: &Gateway, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn embeddings(provider: &Provider) -> usize {
    provider.seen().iter().filter(|seen| seen.line == "POST /v1/embeddings").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spent_quota_of_the_fallbacks_model_keeps_no_prompt_from_another_target() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut setup = setup(&provider.url(), dir.path());
    let routes = setup.routes.find("  - name: broken").expect("a second route");
    setup.routes.truncate(routes);
    setup.routes = setup.routes.replace(
        "name: general, provider: openai, model: gpt-4o-mini",
        "name: general, provider: openai, model: gpt-4.1",
    );
    setup.rest = "quotas:\n  rules:\n    - { name: dear, match: { models: [gpt-4.1] }, count: requests, limit: 1, calendar: month }\n".into();
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    gateway.serve();
    until(&gateway, "examples", || embeddings(&provider) == 1).await;
    let general = ask(&gateway, "pick", "how do penguins sleep").await;
    let code = ask(&gateway, "pick", CODE).await;
    let body = json!({ "model": "any", "messages": [{ "role": "user", "content": "how do penguins swim" }] });
    let call = Call::post("/pick/v1/chat/completions", &gateway.key, body.to_string());
    assert_eq!(send(gateway.address, &call).await.status, 429);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    assert_eq!(choice(&evidence, &general).0, "general");
    assert_eq!(choice(&evidence, &code).0, "code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_goes_to_the_target_whose_examples_it_is_like_and_every_embedding_is_in_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = prepare(dir.path(), &provider.url());
    gateway.serve();
    // Each route's examples, in one request each; that of `strict` names no consumer, so that the policy lets it go.
    until(&gateway, "examples", || embeddings(&provider) == 3).await;
    let code = ask(&gateway, "pick", CODE).await;
    let law = ask(&gateway, "pick", LAW).await;
    let neither = ask(&gateway, "pick", "how do penguins sleep").await;
    let refused = ask(&gateway, "pick", "refuse to embed, and fix the compiler error in my rust code").await;
    let begun = Instant::now();
    let late = ask(&gateway, "pick", "never embed, and fix the compiler error in my rust code").await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    let body = json!({ "model": "any", "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "https://x.test/a.png" } }] }] });
    let silent =
        send(gateway.address, &Call::post("/pick/v1/chat/completions", &gateway.key, body.to_string())).await;
    assert_eq!(silent.status, 200, "{}", silent.text());
    let denied = ask(&gateway, "strict", CODE).await;
    let fell = ask(&gateway, "broken", CODE).await;

    // A reload that leaves the examples as they are embeds none again.
    let before = embeddings(&provider);
    assert_eq!(before, 3 + 6, "what was denied, or had no words, was not sent");
    let path = gateway.dir.join("gateway.yaml");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, config.replacen("threshold: 0.5", "threshold: 0.95", 1))
        .expect("the configuration");
    until(&gateway, "a reload", || {
        gateway
            .admin_get("/metrics")
            .is_some_and(|text| text.contains("gateway_reloads_total{result=\"taken\"} 1"))
    })
    .await;
    let stricter = ask(&gateway, "pick", CODE).await;
    assert_eq!(embeddings(&provider), before + 1);

    let text = gateway.admin_get("/metrics").expect("metrics");
    let found = shown(&text);
    let tables = documented();
    for (name, shape) in tables.get("routes by meaning").expect("a table") {
        assert_eq!(found.get(name), Some(shape), "{name}");
    }
    assert!(text.contains("gateway_semantic_choices_total{route=\"pick\",why=\"matched\"} 2"), "{text}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let (verdict, out, err) = gateway.verify(&[]);
    assert!(verdict == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let is = |got: &Got, target: &str, why: &str| {
        let (found, said, choice) = choice(&evidence, got);
        assert_eq!((found, said), (target, why), "{choice}");
        assert_eq!(choice["by"], "semantic");
        choice
    };
    let matched = is(&code, "code", "matched");
    assert_eq!(matched["target"], "code");
    assert!(
        matched["score"].as_i64().is_some_and(|score| (500_000..1_000_000).contains(&score)),
        "{matched}"
    );
    is(&law, "law", "matched");
    let far = is(&neither, "general", "below_threshold");
    assert!(far["score"].as_i64().is_some_and(|score| score < 500_000), "{far}");
    is(&stricter, "general", "below_threshold");
    for (got, why) in [(&refused, "failed"), (&late, "timeout")] {
        let unknown = is(got, "general", why);
        assert!(unknown["embedded"].is_string() && unknown["score"].is_null(), "{unknown}");
    }
    for (got, why) in [(&silent, "no_text"), (&denied, "denied")] {
        let unasked = is(got, "general", why);
        assert!(unasked["embedded"].is_null(), "{unasked}");
    }
    // The one that was meant fails: the next one answers, and both are on record.
    is(&fell, "code", "matched");
    let outcome = evidence.outcome(fell.exchange().expect("an id")).expect("an outcome");
    assert_eq!(outcome["served"]["target"], "general", "{outcome}");

    // Every request for an embedding is an exchange: of its caller, with its words, tokens and cost, before the request that it is for.
    let of = |kind: &'static str| {
        evidence
            .of_kind(kind)
            .filter(|leaf| leaf["asked"]["operation"] == "routing")
            .cloned()
            .collect::<Vec<Value>>()
    };
    let (intents, outcomes) = (of("intent"), of("outcome"));
    assert_eq!((intents.len(), outcomes.len()), (embeddings(&provider), embeddings(&provider)));
    assert_eq!(
        intents.iter().filter(|leaf| leaf["caller"] == json!({})).count(),
        3,
        "the examples are nobody's"
    );
    let embedded = matched["embedded"].as_str().expect("an id");
    let routing = outcomes.iter().find(|leaf| leaf["exchange"] == embedded).expect("the embedding's outcome");
    assert_eq!(routing["caller"]["team"]["value"], "quality");
    assert_eq!(
        (&routing["asked"]["route"], &routing["asked"]["provider"]),
        (&json!("pick"), &json!("embedder"))
    );
    assert_eq!((&routing["end"], &routing["usage"]["source"]), (&json!("complete"), &json!("provider")));
    assert!(routing["cost"]["total"].as_str().is_some_and(|total| total != "0"), "{routing}");
    let sent = evidence.content(embedded, "provider_request").expect("its content");
    let sent: Value = serde_json::from_slice(sent).expect("JSON");
    assert_eq!(sent, json!({ "model": "text-embedding-3-small", "dimensions": 256, "input": CODE }));
    let place = |id: &str| evidence.leaves.iter().position(|leaf| leaf.value["exchange"] == id);
    assert!(
        place(embedded) < place(code.exchange().expect("an id")),
        "an embedding stands before what it is for"
    );
    // What embedding costs is on the route and the team that it is for; that of the examples is no team's.
    for (name, label, of) in [
        ("gateway_cost_total", "route=\"pick\"", ["asked", "route"]),
        ("gateway_cost_by_team_total", "team=\"quality\"", ["caller", "team"]),
        ("gateway_cost_by_team_total", "team=\"\"", ["caller", "team"]),
    ] {
        let series = format!("{name}{{{label},currency=\"USD\"}} ");
        let told = text.lines().find_map(|line| line.strip_prefix(&series)).expect("a cost");
        let value = label.split('"').nth(1).unwrap_or_default();
        let is = |leaf: &&Value| {
            let found = &leaf[of[0]][of[1]];
            found.as_str().or(found["value"].as_str()).unwrap_or_default() == value
        };
        let cost = |leaf: &Value| leaf["cost"]["total"].as_str().and_then(|total| total.parse::<f64>().ok());
        let wanted: f64 = evidence.of_kind("outcome").filter(is).filter_map(cost).sum();
        let told: f64 = told.parse().expect("a number");
        assert!(wanted > 0.0 && (told - wanted).abs() < 1e-12, "{series}{told} of {wanted}");
    }
    let late = choice(&evidence, &late).2["embedded"].as_str().expect("an id");
    assert_eq!(evidence.outcome(late).expect("its outcome")["end"], "timeout");
    println!("{} exchanges, {} of them embeddings", evidence.exchanges("outcome").len(), outcomes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_examples_a_route_falls_back_and_finds_them_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    // Embeddings are made elsewhere, where nobody is yet.
    let elsewhere = tests::process::free_port();
    let mut setup = setup(&provider.url(), dir.path());
    setup.providers = setup.providers.replace(&provider.url(), &format!("http://{elsewhere}"));
    setup.rest = String::new();
    let mut gateway = Gateway::start(dir.path(), &setup);
    let early = ask(&gateway, "pick", CODE).await;
    let embedder = Provider::start_on(elsewhere, []).await;
    until(&gateway, "examples", || embeddings(&embedder) == 3).await;
    let later = ask(&gateway, "pick", CODE).await;
    // A caller that leaves while its prompt is embedded leaves no open exchange behind.
    let body = json!({ "model": "any", "messages": [{ "role": "user", "content": "never embed this" }] });
    let call = Call::post("/pick/v1/chat/completions", &gateway.key, body.to_string());
    let leave =
        tests::client::Leave { after_silence: Some(Duration::from_millis(300)), ..Default::default() };
    assert_eq!(tests::client::send_until(gateway.address, &call, leave).await.status, 0);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (verdict, out, err) = gateway.verify(&[]);
    assert!(verdict == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let (target, why, _) = choice(&evidence, &early);
    assert_eq!((target, why), ("general", "not_ready"));
    let (target, why, _) = choice(&evidence, &later);
    assert_eq!((target, why), ("code", "matched"));
    let routing = |kind: &'static str, end: &str| {
        let of = evidence.of_kind(kind).filter(|leaf| leaf["asked"]["operation"] == "routing");
        of.filter(|leaf| end.is_empty() || leaf["end"] == end).count()
    };
    assert_eq!(routing("intent", ""), routing("outcome", ""));
    assert_eq!(routing("outcome", "timeout"), 1);
    assert!(routing("outcome", "unreachable") >= 3);
}
