//! Probes of providers: a provider that is away is left alone and comes back, and a probe that may cost is in the log.

use std::time::Duration;

use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::metrics::{documented, shown};
use tests::provider::Provider;

const PROMPT: &str =
    r#"{"model":"gpt-4o-mini","max_tokens":1,"messages":[{"role":"user","content":"ping"}]}"#;

/// A provider `asked` that is probed with a prompt under two keys, and `listed` with a GET; a route to each.
fn setup(url: &str, dir: &std::path::Path) -> Setup {
    let fast = "every: 1s, timeout: 1s, healthy: { successes: 1 }, unhealthy: { failures: 2, timeouts: 2 }";
    let dir = dir.display();
    let providers = format!(
        "  - name: asked\n    dialect: openai\n    base_url: {url}\n    price_as: openai\n    keys:\n      \
         - {{ name: k1, credential: {{ file: {dir}/provider.key }} }}\n      \
         - {{ name: k2, credential: {{ file: {dir}/second.key }} }}\n    \
         health: {{ active: {{ path: /v1/chat/completions, method: POST, body: '{PROMPT}', headers: {{ x-probe: prompt }}, {fast} }} }}\n  \
         - name: listed\n    dialect: openai\n    base_url: {url}\n    credential: {{ file: {dir}/provider.key }}\n    \
         health: {{ active: {{ path: /v1/models, headers: {{ x-probe: list }}, {fast} }} }}\n"
    );
    let routes = ["asked", "listed"]
        .map(|name| format!("  - {{ name: {name}, path: /{name}, provider: {name} }}\n"))
        .concat();
    Setup { provider: url.to_owned(), providers, routes, ..Setup::default() }
}

fn prepare(dir: &std::path::Path, setup: &Setup) -> Gateway {
    let gateway = Gateway::prepare(dir, setup);
    let second = dir.join("second.key");
    std::fs::write(&second, "sk-second-secret-0123456789").expect("a key");
    std::fs::set_permissions(&second, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    gateway
}

/// The value of a series that the gateway shows.
fn value(gateway: &Gateway, series: &str) -> Option<u64> {
    let text = gateway.admin_get("/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

async fn until(gateway: &Gateway, what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn probes(provider: &str, result: &str) -> String {
    format!("gateway_provider_probes_total{{provider=\"{provider}\",result=\"{result}\"}}")
}

fn is(gateway: &Gateway, provider: &str, state: &str) -> bool {
    let series = format!(
        "gateway_target_state{{route=\"{provider}\",target=\"{provider}\",provider=\"{provider}\",state=\"{state}\"}}"
    );
    value(gateway, &series) == Some(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_is_left_alone_and_every_prompt_of_a_probe_is_in_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let address = provider.address;
    let mut gateway = prepare(dir.path(), &setup(&provider.url(), dir.path()));
    gateway.serve();
    let answered = |provider: &str, count: u64| value(&gateway, &probes(provider, "healthy")) >= Some(count);
    until(&gateway, "probes", || answered("asked", 3) && answered("listed", 2)).await;
    assert!(is(&gateway, "asked", "healthy") && is(&gateway, "listed", "healthy"), "{}", gateway.log());
    let seen = provider.seen();
    let sent = |kind: &'static str| {
        seen.iter().filter(move |seen| seen.headers.get("x-probe").is_some_and(|v| v == kind))
    };
    for key in ["Bearer sk-provider-secret-0123456789", "Bearer sk-second-secret-0123456789"] {
        assert!(sent("prompt").any(|seen| seen.headers["authorization"] == key), "{key} was not used");
    }
    assert!(sent("prompt").all(|seen| seen.body == PROMPT), "another body");
    assert!(sent("list").all(|seen| seen.line == "GET /v1/models" && seen.body.is_empty()));
    let call = Call::post("/asked/v1/chat/completions", &gateway.key, PROMPT.to_owned());
    assert_eq!(send(gateway.address, &call).await.status, 200);

    drop(provider);
    until(&gateway, "ejected", || is(&gateway, "asked", "ejected") && is(&gateway, "listed", "ejected"))
        .await;
    // What it shows then is what is documented.
    let tables = documented();
    let table = tables.get("probed providers").expect("a table");
    let found = shown(&gateway.admin_get("/metrics").expect("metrics"));
    for (name, shape) in table {
        assert_eq!(found.get(name), Some(shape), "{name}");
    }
    // Health stops nobody: there is no other target.
    assert_eq!(send(gateway.address, &call).await.status, 502);
    let provider = Provider::start_on(address, []).await;
    until(&gateway, "back", || is(&gateway, "asked", "healthy") && is(&gateway, "listed", "healthy")).await;

    // A reload that takes the probes away ends them.
    let path = gateway.dir.join("gateway.yaml");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let without: String =
        config.lines().filter(|line| !line.contains("health:")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, without).expect("the configuration");
    let reloads = "gateway_reloads_total{result=\"taken\"}";
    until(&gateway, "a reload", || value(&gateway, reloads) == Some(1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = provider.seen().len();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(provider.seen().len(), before, "probes go on behind the reload");
    std::fs::write(&path, config).expect("the configuration");
    until(&gateway, "a reload", || value(&gateway, reloads) == Some(2)).await;
    until(&gateway, "probes again", || provider.seen().len() > before + 1).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
    let prompts = seen
        .iter()
        .chain(&provider.seen())
        .filter(|s| s.headers.get("x-probe").is_some_and(|v| v == "prompt"))
        .count();
    let ask = |sql: &str| {
        let store = gateway.store().display().to_string();
        let trust = gateway.dir.join("trust.yaml").display().to_string();
        let args = ["query", &store, sql, "--trust", &trust, "--format", "csv"].map(str::to_owned);
        let (code, out, err) = gateway.auditor(&args);
        assert_eq!(code, 0, "{out}{err}");
        out.lines().nth(1).unwrap_or_default().to_owned()
    };
    let of = "FROM exchanges WHERE operation = 'probe' AND consumer IS NULL AND provider = 'asked'";
    let complete: usize =
        ask(&format!("SELECT count(*) {of} AND \"end\" = 'complete' AND cost > 0")).parse().expect("a count");
    println!("{prompts} probes with a prompt seen, {complete} recorded with their cost");
    // Those between the look and the end of the first provider came, and were not looked at.
    assert!(complete >= prompts && complete <= prompts + 3, "{complete} of {prompts}");
    assert_ne!(ask(&format!("SELECT count(*) {of} AND \"end\" = 'unreachable'")), "0");
    assert_eq!(ask("SELECT count(*) FROM exchanges WHERE provider = 'listed'"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_the_policy_denies_is_not_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let policy = dir.path().join("policy.yaml");
    let rest = format!("policy: {}\n", policy.display());
    let mut gateway = prepare(dir.path(), &Setup { rest, ..setup(&provider.url(), dir.path()) });
    let rule =
        "mode: enforce\ndefault: allow\nrules:\n  - { id: no-probes, effect: deny, operations: [probe] }\n";
    std::fs::write(policy, rule).expect("a policy");
    gateway.serve();
    until(&gateway, "a denied probe", || value(&gateway, &probes("asked", "denied")) >= Some(2)).await;
    until(&gateway, "the other probes", || value(&gateway, &probes("listed", "healthy")) >= Some(1)).await;
    assert!(is(&gateway, "asked", "healthy"));
    assert!(provider.seen().iter().all(|seen| seen.line == "GET /v1/models"));
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let (code, out, err) = gateway.verify(&[]);
    assert_eq!(code, 0, "{out}{err}");
}
