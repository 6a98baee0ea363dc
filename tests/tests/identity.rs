//! Who calls: tokens of an issuer, certificates, groups, what a key may be used for, facts that a route requires, and
//! credentials of callers' own, through the real gateway.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::client::{Call, Got, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::process::{free_port, ran};
use tests::provider::Provider;
use tests::services::{Issuer, now};
use tests::tapped::Certificates;
use tokio_rustls::rustls;

const CHAT: &str = "/openai/v1/chat/completions";

/// What a provider's own key looks like; it must stand nowhere.
const OWN: &str = "sk-own-needle-0123456789abcdef";

fn body(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }] }).to_string()
}

fn call(path: &str, token: &str) -> Call {
    Call::post(path, token, body("gpt-4o-mini"))
}

fn reason(got: &Got) -> (u16, String) {
    (got.status, got.header("x-affidavit-reason").unwrap_or_default().to_owned())
}

/// The issuer's part of a configuration.
fn identity(issuer: &Issuer, more: &str) -> String {
    format!(
        "identity:\n  jwt:\n    - name: corp\n      issuer: {}\n      audience: gateway\n      discovery: true\n      \
         claims: {{ consumer: sub, team: dept.name, groups: groups, subject: email }}\n      require: {{ tier: gold }}\n{more}",
        issuer.name()
    )
}

fn claims(issuer: &Issuer, change: Value) -> Value {
    let mut claims = issuer.claims("gateway", "bot-1");
    claims["tier"] = json!("gold");
    claims["dept"] = json!({ "name": "Human Resources" });
    claims["email"] = json!("ana@example.org");
    claims["groups"] = json!(["eng", "on-call"]);
    for (name, value) in change.as_object().expect("a map") {
        claims[name] = value.clone();
    }
    claims
}

fn token(issuer: &Issuer) -> String {
    issuer.sign(&issuer.header(), &claims(issuer, json!({})))
}

/// The caller in the first record of an exchange.
fn caller<'e>(evidence: &'e Evidence, kind: &str, got: &Got) -> &'e Value {
    let exchange = got.exchange().expect("an exchange");
    let record = evidence.of_kind(kind).find(|record| record["exchange"] == exchange).expect("its record");
    &record["caller"]
}

/// A secret is nowhere in what was recorded and logged.
fn nowhere(gateway: &Gateway, evidence: &Evidence, secrets: &[&str]) {
    let log = gateway.log();
    for secret in secrets {
        let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!log.contains(secret), "`{secret}` is in the log");
        assert!(!evidence.leaves.iter().any(|leaf| has(&leaf.leaf)), "`{secret}` is in a record");
        assert!(!evidence.contents().any(|content| has(content)), "`{secret}` is in content");
    }
}

fn hostile(issuer: &Issuer) -> Vec<(&'static str, String, (u16, &'static str))> {
    let header = issuer.header();
    let with = |name: &str, value: Value| {
        let mut changed = header.clone();
        changed[name] = value;
        changed
    };
    let good = claims(issuer, json!({}));
    let sign = |header: &Value, change: Value| issuer.sign(header, &claims(issuer, change));
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let plain = format!("{}.{}", part(&json!({ "alg": "none" })), part(&good));
    let symmetric = {
        // The public key as the secret of a symmetric signature: what a verifier that asks the token would take.
        let text = format!("{}.{}", part(&with("alg", json!("HS256"))), part(&good));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.public().to_string().as_bytes());
        let tag = ring::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let whole = token(issuer);
    let (signed, _) = whole.rsplit_once('.').expect("three parts");
    let other = issuer.sign(&header, &claims(issuer, json!({ "sub": "somebody" })));
    let (_, signature) = other.rsplit_once('.').expect("three parts");
    let long = json!({ "more": "x".repeat(20 << 10) });
    vec![
        ("another audience", sign(&header, json!({ "aud": "elsewhere" })), (401, "token_audience")),
        ("no audience", sign(&header, json!({ "aud": null })), (401, "token_audience")),
        ("another issuer", sign(&header, json!({ "iss": "https://else.example" })), (401, "token_issuer")),
        ("no signature", format!("{plain}."), (401, "token_algorithm")),
        ("a symmetric signature", symmetric, (401, "token_algorithm")),
        ("another algorithm", sign(&with("alg", json!("EdDSA")), json!({})), (401, "token_algorithm")),
        ("past its end", sign(&header, json!({ "exp": now() - 31 })), (401, "token_expired")),
        ("without an end", sign(&header, json!({ "exp": null })), (401, "token_claims")),
        ("before its time", sign(&header, json!({ "nbf": now() + 60 })), (401, "token_not_yet_valid")),
        ("issued tomorrow", sign(&header, json!({ "iat": now() + 86_400 })), (401, "token_not_yet_valid")),
        ("another key", sign(&with("kid", json!("other")), json!({})), (401, "token_kid")),
        ("another's signature", format!("{signed}.{signature}"), (401, "token_signature")),
        ("a critical header", sign(&with("crit", json!(["exp"])), json!({})), (401, "token_critical_header")),
        (
            "a token for another use",
            sign(&with("typ", json!("logout+jwt")), json!({})),
            (401, "token_malformed"),
        ),
        ("without a required claim", sign(&header, json!({ "tier": "silver" })), (401, "token_claims")),
        ("without a name", sign(&header, json!({ "sub": "" })), (401, "token_consumer")),
        ("20 KiB", sign(&header, long), (401, "token_too_large")),
        ("no JSON", "eyJh.eyJh.AAAA".into(), (401, "token_malformed")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn tokens_say_who_calls_and_hostile_ones_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, issuer) = (Provider::start([]).await, Issuer::start().await);
    let setup = Setup { provider: provider.url(), rest: identity(&issuer, ""), ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let begun = Instant::now();

    let (good, key) = (token(&issuer), gateway.key.clone());
    let by_token = send(gateway.address, &call(CHAT, &good)).await;
    assert_eq!(by_token.status, 200, "{}", by_token.text());
    let by_key = send(gateway.address, &call(CHAT, &key)).await;
    assert_eq!(by_key.status, 200, "{}", by_key.text());
    // In every place where an SDK sends a key.
    for header in ["x-affidavit-key", "x-api-key", "api-key", "x-goog-api-key"] {
        let mut elsewhere = call(CHAT, "").header(header, good.clone());
        elsewhere.headers.retain(|(name, _)| name != "authorization");
        let got = send(gateway.address, &elsewhere).await;
        assert_eq!(got.status, 200, "{header}: {}", got.text());
    }

    let hostile = hostile(&issuer);
    for (what, text, wanted) in &hostile {
        let got = send(gateway.address, &call(CHAT, text)).await;
        let (status, name) = wanted;
        assert_eq!(reason(&got), (*status, (*name).to_owned()), "{what}: {}", got.text());
        let claims = text.split('.').nth(1).unwrap_or_default();
        assert!(!got.text().contains(claims), "{what}");
    }
    let enormous = format!("eyJ{}.e30.AAAA", "A".repeat(1 << 20));
    let got = send(gateway.address, &call(CHAT, &enormous)).await;
    assert!(got.status != 200 && gateway.ready(), "1 MB: {}", got.status);
    let before = provider.seen().len();

    // Another key, and only that: what it signed is taken once the issuer may be asked again, and what the one before signed is not.
    let old = token(&issuer);
    issuer.rotate("key-2");
    let mut taken = send(gateway.address, &call(CHAT, &token(&issuer))).await;
    while taken.status != 200 {
        assert_eq!(reason(&taken), (401, "token_kid".to_owned()), "{}", taken.text());
        assert!(begun.elapsed() < Duration::from_secs(80), "the new key is not fetched: {}", gateway.log());
        tokio::time::sleep(Duration::from_secs(1)).await;
        taken = send(gateway.address, &call(CHAT, &token(&issuer))).await;
    }
    assert!(issuer.asked() <= 4, "asked {} times in {:?}", issuer.asked(), begun.elapsed());
    assert_eq!(reason(&send(gateway.address, &call(CHAT, &old)).await), (401, "token_kid".to_owned()));
    // The issuer goes away: its keys stay.
    issuer.set_away(true);
    assert_eq!(send(gateway.address, &call(CHAT, &token(&issuer))).await.status, 200);
    let metrics = gateway.admin_get("/metrics").unwrap_or_default();
    let shown = r#"gateway_identity_key_fetches_total{issuer="corp",result="taken"} "#;
    assert!(metrics.contains(shown), "{metrics}");

    assert!(provider.seen().len() > before);
    let provider_saw = format!("{:?}", provider.seen());
    assert!(!provider_saw.contains(&good) && !provider_saw.contains(&old), "a token went to the provider");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let told = caller(&evidence, "intent", &by_token);
    assert_eq!(told["consumer"], json!({ "value": "bot-1", "source": "claim" }));
    assert_eq!(told["groups"], json!(["eng", "on-call"]));
    for (fact, source) in [("team", "claim"), ("subject", "claim")] {
        let value = told[fact]["value"].as_str().unwrap_or_default();
        assert!(value.starts_with("p:") && told[fact]["source"] == source, "{told}");
    }
    assert!(told["key"].is_null());
    assert_eq!(caller(&evidence, "intent", &by_key)["consumer"]["source"], "key");
    let reasons: Vec<&str> =
        evidence.of_kind("refusal").filter_map(|record| record["reason"].as_str()).collect();
    for (what, _, (_, name)) in &hostile {
        assert!(reasons.contains(name), "{what}: {reasons:?}");
    }
    let signatures: Vec<&str> =
        hostile.iter().map(|(_, text, _)| text.rsplit('.').next().unwrap_or_default()).collect();
    let (_, signature) = good.rsplit_once('.').expect("three parts");
    let long = signatures.into_iter().filter(|text| text.len() > 20).chain([signature, "ana@example.org"]);
    nowhere(&gateway, &evidence, &long.collect::<Vec<_>>());
    eprintln!(
        "{} hostile tokens, {} fetches of keys in {:?}",
        hostile.len() + 1,
        issuer.asked(),
        begun.elapsed()
    );
}

/// Issues a further key with more options.
fn issue(gateway: &Gateway, more: &[&str]) -> String {
    let mut command = Command::new(tests::binary("gateway"));
    command
        .args(["keys", "issue", "--file"])
        .arg(gateway.dir.join("keys.yaml"))
        .args(["--consumer", "narrow"])
        .args(more);
    ran(&mut command).split_whitespace().find(|word| word.starts_with("afk_")).expect("a key").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn a_key_is_kept_to_what_it_may_be_used_for_and_a_route_to_the_facts_that_it_requires() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let policy = dir.path().join("policy.yaml");
    let setup = Setup {
        provider: provider.url(),
        routes: "  - { name: strict, path: /strict, provider: openai, require: [purpose, team, subject, data_class], \
                 asserted_headers: { purpose: x-purpose }, attributes: { team: t } }\n"
            .into(),
        rest: format!("policy: {}\n", policy.display()),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    std::fs::write(
        &policy,
        "mode: enforce\ndefault: allow\nrules:\n  - { id: no-contractors, effect: deny, when: { groups: contractors } }\n",
    )
    .expect("a policy");
    let narrow =
        issue(&gateway, &["--allow-model", "gpt-4o*", "--allow-provider", "openai", "--group", "eng"]);
    let contractor = issue(&gateway, &["--group", "contractors", "--group", "eng"]);
    gateway.serve();
    let ask = async |path: &str, key: &str, model: &str| {
        send(gateway.address, &Call::post(path, key, body(model))).await
    };
    let fine = ask(CHAT, &narrow, "gpt-4o-mini").await;
    assert_eq!(fine.status, 200, "{}", fine.text());
    let before = provider.seen().len();
    let denied = (403, "not_allowed".to_owned());
    let model = ask(CHAT, &narrow, "o3").await;
    assert_eq!(reason(&model), denied);
    assert_eq!(reason(&ask("/anthropic/v1/messages", &narrow, "gpt-4o-mini").await), denied);
    let broken = send(gateway.address, &Call::post(CHAT, &narrow, "{\"model\":")).await;
    assert_eq!(reason(&broken), denied, "a model that cannot be read may be any");
    assert_eq!(reason(&ask(CHAT, &contractor, "gpt-4o-mini").await), (403, "policy_denied".to_owned()));

    let strict = "/strict/v1/chat/completions";
    let nobody = issue(&gateway, &[]);
    gateway.wait_for_log("configuration reloaded", 1).await;
    let purpose = ask(strict, &nobody, "gpt-4o-mini").await;
    assert_eq!(reason(&purpose), (400, "missing_fact".to_owned()));
    assert!(
        purpose.text().contains("`purpose`") && purpose.text().contains("`x-purpose`"),
        "{}",
        purpose.text()
    );
    let call = Call::post(strict, &nobody, body("gpt-4o-mini")).header("x-purpose", "testing");
    let subject = send(gateway.address, &call).await;
    assert_eq!(reason(&subject), (400, "missing_fact".to_owned()));
    assert!(subject.text().contains("`subject`"), "{}", subject.text());
    let mut whole: Value = serde_json::from_str(&body("gpt-4o-mini")).expect("JSON");
    whole["user"] = json!("ana");
    let class = send(gateway.address, &Call { body: whole.to_string().into(), ..call.clone() }).await;
    assert_eq!(reason(&class), (400, "missing_fact".to_owned()));
    assert!(class.text().contains("gateway keys issue"), "{}", class.text());
    assert_eq!(provider.seen().len(), before, "nothing that was refused went on");
    // The key of every test has its purpose and class.
    let key = gateway.key.clone();
    let given =
        send(gateway.address, &Call { body: whole.to_string().into(), ..Call::post(strict, &key, "") }).await;
    assert_eq!(given.status, 200, "{}", given.text());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    assert_eq!(caller(&evidence, "intent", &fine)["groups"], json!(["eng"]));
    for refused in [&model, &purpose, &subject, &class] {
        assert_eq!(caller(&evidence, "refusal", refused)["consumer"]["value"], "narrow");
    }
}

fn curl(gateway_url: &str, pems: &Path, more: &[&str]) -> (u16, String) {
    let file = |name: &str| pems.join(name).display().to_string();
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", "--cacert", &file("ca.pem"), "--cert", &file("client.pem")]);
    command
        .args(["--key", &file("client.key"), "-H", "content-type: application/json"])
        .args(more)
        .arg(gateway_url);
    let text = ran(&mut command);
    let (answer, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().unwrap_or(0), answer.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor, and curl"]
async fn certificates_say_who_calls_and_a_callers_own_credential_goes_to_its_provider_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, other) = (Provider::start([]).await, Provider::start([]).await);
    let certificates = Certificates::new();
    certificates.write(dir.path());
    let setup = Setup {
        provider: provider.url(),
        providers: format!("  - {{ name: other, dialect: anthropic, base_url: '{}' }}\n", other.url()),
        routes: "  - { name: own, path: /own, provider: openai, credentials: forward }\n  \
                 - { name: theirs, path: /theirs, provider: other, credentials: forward }\n"
            .into(),
        rest: "identity:\n  certificates:\n    consumer: san_dns\n    map:\n      \
               - { pattern: 'gw*', team: fleet, groups: [machines] }\n"
            .into(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let tls = free_port();
    let path = gateway.dir.join("gateway.yaml");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let listen = format!(
        "listen:\n  - address: {tls}\n    tls: {{ certificate: server.pem, key: server.key, client_ca: ca.pem }}\n"
    );
    std::fs::write(&path, config.replacen("listen:\n", &listen, 1)).expect("the configuration");
    gateway.serve();

    let url = |path: &str| format!("https://localhost:{}{path}", tls.port());
    let chat = body("gpt-4o-mini");
    let pems = dir.path().to_owned();
    let by_certificate = tokio::task::block_in_place(|| curl(&url(CHAT), &pems, &["-d", &chat]));
    assert_eq!(by_certificate.0, 200, "{}", by_certificate.1);
    // An SDK sends something as its key; a wrong key of the gateway is another thing.
    let dummy = tokio::task::block_in_place(|| {
        curl(&url(CHAT), &pems, &["-d", &chat, "-H", "authorization: Bearer unused"])
    });
    assert_eq!(dummy.0, 200, "{}", dummy.1);
    let wrong = format!("authorization: Bearer {}x", gateway.key);
    let wrong = tokio::task::block_in_place(|| curl(&url(CHAT), &pems, &["-d", &chat, "-H", &wrong]));
    assert_eq!(wrong.0, 401, "{}", wrong.1);
    let own = format!("authorization: Bearer {OWN}");
    let by_both = tokio::task::block_in_place(|| {
        curl(&url("/own/v1/chat/completions"), &pems, &["-d", &chat, "-H", &own])
    });
    assert_eq!(by_both.0, 200, "{}", by_both.1);
    // Without a certificate nobody is anybody on the plain listener.
    assert_eq!(reason(&send(gateway.address, &call(CHAT, "unused")).await), (401, "unknown_key".to_owned()));

    let forward =
        |path: &str, credential: &str| call(path, credential).header("x-affidavit-key", gateway.key.clone());
    let mine = send(gateway.address, &forward("/own/v1/chat/completions", OWN)).await;
    assert_eq!(mine.status, 200, "{}", mine.text());
    let again = send(gateway.address, &forward("/own/v1/chat/completions", OWN)).await;
    let mut theirs = forward("/theirs/v1/messages", "").header("x-api-key", OWN);
    theirs.headers.retain(|(name, _)| name != "authorization");
    theirs.body = json!({ "model": "claude-sonnet-4", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" }] }).to_string().into();
    let theirs = send(gateway.address, &theirs).await;
    assert_eq!(theirs.status, 200, "{}", theirs.text());
    let seen = |provider: &Provider, needle: &str| {
        provider.seen().iter().filter(|seen| format!("{:?}", seen.headers).contains(needle)).count()
    };
    assert_eq!((seen(&provider, OWN), seen(&other, OWN)), (3, 1));
    assert_eq!(
        seen(&provider, "sk-provider-secret"),
        2,
        "the gateway's own credential goes on the other routes only"
    );
    assert_eq!(seen(&other, "sk-provider-secret"), 0);
    // On another route it is a key that is not known; a key of the gateway is for nobody else; none is none.
    assert_eq!(reason(&send(gateway.address, &call(CHAT, OWN)).await), (401, "unknown_key".to_owned()));
    let leak = gateway.key.clone();
    let missing = (401, "missing_credential".to_owned());
    assert_eq!(reason(&send(gateway.address, &forward("/own/v1/chat/completions", &leak)).await), missing);
    let mut none = forward("/own/v1/chat/completions", "");
    none.headers.retain(|(name, _)| name != "authorization");
    assert_eq!(reason(&send(gateway.address, &none).await), missing);
    assert_eq!(
        reason(&send(gateway.address, &call("/own/v1/chat/completions", &leak)).await),
        (401, "missing_key".to_owned())
    );
    assert_eq!((seen(&provider, &leak), seen(&other, &leak)), (0, 0));

    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let forwarded = |got: &Got| caller(&evidence, "intent", got)["forwarded"].clone();
    assert_eq!(forwarded(&mine)["kind"], "authorization");
    assert_eq!(forwarded(&mine)["fingerprint"], forwarded(&again)["fingerprint"]);
    assert_eq!(forwarded(&theirs)["kind"], "x-api-key");
    assert_eq!(forwarded(&theirs)["fingerprint"], forwarded(&mine)["fingerprint"], "the same credential");
    let shown: Vec<&Value> = evidence
        .of_kind("intent")
        .filter(|record| record["caller"]["consumer"]["source"] == "certificate")
        .collect();
    assert_eq!(shown.len(), 3);
    for record in shown {
        assert_eq!(record["caller"]["consumer"]["value"], "gw1");
        assert_eq!(record["caller"]["team"], json!({ "value": "fleet", "source": "certificate" }));
        assert_eq!(record["caller"]["groups"], json!(["machines"]));
    }
    nowhere(&gateway, &evidence, &[OWN, &leak, "sk-provider-secret"]);
    // Who still does it: the question of deploy/README.md.
    let text = std::fs::read_to_string(tests::root().join("deploy/README.md")).expect("the document");
    let (_, rest) = text.split_once("auditor query STORE \"SELECT consumer, route").expect("the question");
    let sql = format!("SELECT consumer, route{}", rest.split('"').next().unwrap_or_default());
    let path = |name: &str| gateway.dir.join(name).display().to_string();
    let arguments = [
        "query",
        &gateway.store().display().to_string(),
        &sql,
        "--trust",
        &path("trust.yaml"),
        "--format",
        "jsonl",
    ];
    let more = ["--state", &path("auditor-state")];
    let (code, out, err) =
        gateway.auditor(&arguments.iter().chain(&more).map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(code, 0, "{out}{err}");
    let credential = forwarded(&mine)["fingerprint"].as_str().expect("a pseudonym").to_owned();
    assert!(out.matches(&credential).count() >= 3, "two routes, two callers: {out}");
    assert!(out.contains("\"x-api-key\"") && out.contains("\"gw1\"") && out.contains("\"tester\""), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn a_token_in_the_query_reaches_no_provider_whatever_it_speaks() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, issuer) = (Provider::start([]).await, Issuer::start().await);
    let setup = Setup {
        provider: provider.url(),
        further: vec!["gemini", "vertex", "cohere", "ollama", "watsonx", "bedrock"],
        rest: identity(&issuer, ""),
        ..Setup::default()
    };
    let mut gateway = Gateway::start(dir.path(), &setup);
    // The last: whether the SDKs of the path send their key in the query, and a token there says who calls.
    let table = [
        ("/openai/v1/chat/completions", false),
        ("/azure/openai/deployments/gpt-4o/chat/completions", false),
        ("/anthropic/v1/messages", false),
        ("/gemini/v1beta/models/gemini-2.5-flash:generateContent", true),
        ("/vertex/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent", true),
        ("/cohere/v2/chat", false),
        ("/ollama/api/chat", false),
        ("/watsonx/ml/v1/text/chat", false),
        ("/bedrock/model/anthropic.claude-3/converse", false),
        ("/openai/v1/whatever/comes", false),
    ];
    let good = token(&issuer);
    let spelled = format!("%65{}", &good[1..]);
    let others = issuer.sign(&issuer.header(), &claims(&issuer, json!({ "aud": "another" })));
    let queries = [
        format!("key={good}&alt=sse"),
        format!("alt=sse&k%65y={spelled}"),
        format!("alt=sse&key={others}"),
        format!("key=%20{good}%20&alt=sse&key={good}"),
    ];
    let mut sent = 0;
    for (path, takes) in table {
        for query in &queries {
            let before = provider.seen().len();
            let by_key = call(&format!("{path}?{query}"), &gateway.key);
            let got = send(gateway.address, &by_key).await;
            let seen = provider.seen();
            assert_eq!(seen.len(), before + 1, "{path}: {} {}", got.status, got.text());
            assert!(seen[before].line.contains("alt=sse"), "what is no key goes on: {}", seen[before].line);
            sent += 1;
        }
        let mut by_token = call(&format!("{path}?{}", queries[0]), "");
        by_token.headers.retain(|(name, _)| name != "authorization");
        let got = send(gateway.address, &by_token).await;
        assert_eq!(got.status != 401, takes, "{path}: {} {}", got.status, got.text());
        sent += usize::from(takes);
    }
    assert_eq!(provider.seen().len(), sent);
    let seen = format!("{:?}", provider.seen());
    let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    let secrets = [signature(&good), signature(&others)];
    assert!(secrets.iter().all(|secret| !seen.contains(secret)), "{seen}");
    assert!(!seen.contains("eyJ"), "{seen}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    nowhere(&gateway, &Evidence::read(&gateway), &secrets.each_ref().map(String::as_str));
    println!("{sent} requests at {} paths, none with a token", table.len());
}

/// An authority for callers' certificates.
struct ClientAuthority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl ClientAuthority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate of `name` that ends after `time`.
    fn sign(&self, name: &str, time: Duration) -> rustls::ClientConfig {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time") + time;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + at;
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_client_auth_cert(vec![made.der().clone()], key)
            .expect("a client")
    }
}

/// A connection that stays open.
struct Open(hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>>);

impl Open {
    /// `None` where the gateway does not take the certificate.
    async fn new(
        address: std::net::SocketAddr,
        mut config: rustls::ClientConfig,
        server: &Certificates,
    ) -> Option<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(
            server.ca.as_bytes(),
        );
        roots.add(pem.expect("a certificate")).expect("a root");
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            std::sync::Arc::new(roots),
            std::sync::Arc::new(rustls::crypto::ring::default_provider()),
        );
        config.dangerous().set_certificate_verifier(verifier.build().expect("a verifier"));
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let stream =
            tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.ok()?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        let mut open = Self(sender);
        // With TLS 1.3 the caller has done its part before the gateway looks at its certificate.
        open.call().await.map(|_| open)
    }

    async fn call(&mut self) -> Option<u16> {
        use http_body_util::BodyExt as _;
        self.0.ready().await.ok()?;
        let request = hyper::Request::post(CHAT)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(body("gpt-4o-mini").into()))
            .expect("a request");
        let answer = self.0.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.ok()?;
        Some(status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn on_an_open_connection_a_certificate_counts_until_its_end_and_until_its_roots_are_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let server = Certificates::new();
    server.write(dir.path());
    let (first, second, partners) =
        (ClientAuthority::new("first"), ClientAuthority::new("second"), ClientAuthority::new("partners"));
    let write = |name: &str, authority: &ClientAuthority| {
        std::fs::write(dir.path().join(name), &authority.pem).expect("its roots");
    };
    write("clients.pem", &first);
    write("partners.pem", &partners);
    let (tls, other) = (free_port(), free_port());
    let setup = Setup {
        provider: provider.url(),
        rest: format!(
            "identity:\n  certificates:\n    consumer: subject_cn\n    consumer_prefix: ''\n    listeners:\n      \
             - {{ address: '{other}', consumer: subject_cn, consumer_prefix: 'partner:' }}\n"
        ),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    let path = gateway.dir.join("gateway.yaml");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let listen = |address, roots: &str| {
        format!(
            "  - address: {address}\n    tls: {{ certificate: server.pem, key: server.key, client_ca: {roots} }}\n"
        )
    };
    let listen = format!("listen:\n{}{}", listen(tls, "clients.pem"), listen(other, "partners.pem"));
    std::fs::write(&path, config.replacen("listen:\n", &listen, 1)).expect("the configuration");
    gateway.serve();

    let hour = Duration::from_secs(3600);
    let begun = Instant::now();
    let mut short =
        Open::new(tls, first.sign("bot", Duration::from_secs(5)), &server).await.expect("a connection");
    let mut long = Open::new(tls, first.sign("bot", hour), &server).await.expect("a connection");
    let mut partner = Open::new(other, partners.sign("bot", hour), &server).await.expect("a connection");
    for open in [&mut short, &mut long, &mut partner] {
        assert_eq!(open.call().await, Some(200), "{}", gateway.log());
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "it has not ended yet");
    // Roots of one listener count at that one only.
    assert!(Open::new(tls, partners.sign("bot", hour), &server).await.is_none());
    tokio::time::sleep(Duration::from_secs(7).saturating_sub(begun.elapsed())).await;
    assert_eq!(short.call().await, Some(401), "its time is over, and its connection is open");
    assert_eq!(long.call().await, Some(200));

    write("clients.pem", &second);
    gateway.process().expect("a process").signal(rustix::process::Signal::HUP);
    let begun = Instant::now();
    let mut status = long.call().await;
    while status == Some(200) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = long.call().await;
    }
    assert_eq!(status, Some(401), "its roots are others");
    assert_eq!(partner.call().await, Some(200), "those of another listener are as they were");
    assert!(Open::new(tls, first.sign("bot", hour), &server).await.is_none());
    let mut new = Open::new(tls, second.sign("bot", hour), &server).await.expect("a connection");
    assert_eq!(new.call().await, Some(200));

    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let of = |name: &str| {
        evidence.of_kind("intent").filter(|record| record["caller"]["consumer"]["value"] == name).count()
    };
    assert!(of("bot") >= 6, "{}", of("bot"));
    assert_eq!(of("partner:bot"), 3, "the same name under other roots is another consumer");
    assert!(evidence.of_kind("refusal").any(|record| record["reason"] == "missing_key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs the real gateway and auditor"]
async fn a_quota_by_group_counts_by_all_groups_of_a_token_and_one_in_too_many_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, issuer) = (Provider::start([]).await, Issuer::start().await);
    let quotas =
        "quotas:\n  rules:\n    - { name: by-group, by: [group], count: requests, limit: 1, per: 1d }\n";
    let setup = Setup { provider: provider.url(), rest: identity(&issuer, quotas), ..Setup::default() };
    let mut gateway = Gateway::start(dir.path(), &setup);
    let of = |groups: std::ops::Range<usize>| {
        let groups: Vec<String> = groups.map(|n| format!("g{n}")).collect();
        call(CHAT, &issuer.sign(&issuer.header(), &claims(&issuer, json!({ "groups": groups }))))
    };
    let first = send(gateway.address, &of(0..40)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    // A record has no room for the fortieth, and its counter is full all the same.
    assert_eq!(reason(&send(gateway.address, &of(39..40)).await), (429, "quota_exceeded".to_owned()));
    assert_eq!(send(gateway.address, &of(40..41)).await.status, 200);
    let many = send(gateway.address, &of(100..357)).await;
    assert_eq!(reason(&many), (401, "token_claims".to_owned()));
    assert_eq!(send(gateway.address, &of(100..356)).await.status, 200);
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let told = caller(&evidence, "intent", &first);
    assert_eq!((told["groups"].as_array().map(Vec::len), &told["group_count"]), (Some(32), &json!(40)));
}
