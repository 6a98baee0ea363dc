//! The configuration as a whole: from files to `Loaded`, and what must never come out of it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use dialects::change::ChatBound;

use super::*;
use crate::keys::{KeyRequest, issue, update};
use crate::secrets;

const OPENAI_KEY: &str = "sk-proj-very-secret-openai-key";
const ANTHROPIC_KEY: &str = "sk-ant-very-secret-key";

/// Every key of the configuration.
const FULL: &str = "\
deployment: acme
gateway: gw1
listen:
  - address: 127.0.0.1:8443
    tls: { certificate: tls.crt, key: tls.key, client_ca: tls.crt }
  - address: '[::1]:8080'
admin: 127.0.0.1:9091
admin_socket: run/admin.sock
evidence:
  journal: journal
  spool: spool
  key_table: key-table
  seal_key: seal.key
  pseudonym_key: pseudonym.key
  promise_key: promise.key
  out: { directory: store }
  batch_age: 2s
  batch_size: 32MiB
  heartbeat: 1m
  encryption: on
  segment: 16MiB
  spool_bound: 1GiB
  spool_keep: 6h
limits:
  head: 32KiB
  body: 16MiB
  body_memory: 128MiB
  concurrent: 100
  connections: 200
  header_read: 5s
  body_read: 6s
  admission: 100ms
  connect: 2s
  first_byte: 60s
  idle: 61s
  answer: 32MiB
  answer_time: 5m
  keep_alive: 62s
  drain: 3s
  archive: 4s
  provider_idle_connections: 7
  http2_streams: 8
providers:
  - name: openai
    dialect: openai
    base_url: https://api.openai.com/
    credential: { env: OPENAI_API_KEY }
    ca: tls.crt
    ask_usage: false
    drain_after_abort: { time: 20s, bytes: 512KiB }
    connect: 3s
    keep_alive: 20s
    idle_connections: 9
    price_as: openai
    max_output_as: max_completion_tokens
  - name: azure
    dialect: azure_openai
    base_url: https://acme.openai.azure.com
    credential: { file: azure.key }
    drain_after_abort: off
    api_version: 2025-04-01-preview
routes:
  - name: openai
    path: /openai
    provider: openai
    retention: long
    keys: subject_day
    keep_content: false
    ask_usage: true
    fail_mode: closed
    receipts: true
    attributes: { team: t, organisation: o, cost_centre: '0123', system: s, purpose: p, data_class: d }
    asserted_headers: { subject: x-user, purpose: x-purpose }
  - { name: all, path: /, provider: azure }
keys: keys.yaml
policy: policy.yaml
prices: prices.csv
headers:
  deny: [x-internal-*]
  record_request: [user-agent]
  record_response: [x-request-id]
log: { format: json, filter: 'gateway=debug,info' }
";

struct Folder {
    dir: tempfile::TempDir,
    gateway_key: String,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let tls = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path("tls.crt"), tls.cert.pem()).unwrap();
        let private =
            |name: &str, text: &str| crate::output::write_new(&path(name), text.as_bytes(), 0o600).unwrap();
        private("tls.key", &tls.signing_key.serialize_pem());
        private("seal.key", &secrets::seal_key_text(&[1; 32], &[2; 32], "acme/gw1"));
        private("promise.key", &secrets::signing_key_text("promise", &[4; 32], &[5; 32], "acme/gw1"));
        private("pseudonym.key", &secrets::pseudonym_key_text(&[3; 32]));
        private("commit.secret", &secrets::commit_secret_text(&[4; 32]));
        private("azure.key", &format!("{ANTHROPIC_KEY}\n"));
        std::fs::write(path("policy.yaml"), include_str!("../../../policies/examples/starter.yaml")).unwrap();
        std::fs::write(path("prices.csv"), include_str!("../../../policies/prices/2026-11.csv")).unwrap();
        let request = KeyRequest {
            consumer: Some(Identifier::new("app").unwrap()),
            id: Some("k1".into()),
            ..KeyRequest::default()
        };
        let issued = update(&path("keys.yaml"), |keys| {
            Ok::<_, crate::keys::FileError>(issue(keys, request, 1_700_000_000_000_000).unwrap())
        })
        .unwrap();
        Self { gateway_key: issued.key.as_str().to_owned(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, yaml: &str) -> Result<Loaded, Vec<Problem>> {
        std::fs::write(self.path("gateway.yaml"), yaml).unwrap();
        load_with(&self.path("gateway.yaml"), &|name| match name {
            "OPENAI_API_KEY" => Some(OPENAI_KEY.to_owned()),
            "COMMIT_SECRET" => Some(commit_secret()),
            _ => None,
        })
    }

    /// Problems without the folder's name.
    fn told(&self, yaml: &str) -> Vec<String> {
        let folder = format!("{}/", self.dir.path().display());
        self.load(yaml).unwrap_err().iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

/// With a third provider, whose requests are signed.
fn with_aws(secret: &str) -> String {
    let provider = format!(
        "  - {{ name: bedrock, dialect: bedrock, base_url: 'https://bedrock-runtime.us-east-1.amazonaws.com', aws: {{ region: us-east-1, \
         service: bedrock, access_key_id: {{ {secret} }}, secret_access_key: {{ {secret} }}, session_token: {{ {secret} }} }} }}\nroutes:\n"
    );
    FULL.replacen("routes:\n", &provider, 1)
}

#[test]
fn an_access_key_is_read_and_never_shown() {
    let folder = Folder::new();
    let loaded = folder.load(&with_aws("file: azure.key")).unwrap();
    let key = &loaded.aws_keys["bedrock"];
    assert_eq!(key.secret_access_key.expose(), ANTHROPIC_KEY);
    assert_eq!(key.session_token.as_ref().unwrap().expose(), ANTHROPIC_KEY);
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(!format!("{loaded:?} {key:?} {canonical}").contains(ANTHROPIC_KEY));
    let value: Value = serde_json::from_str(canonical).unwrap();
    for part in ["access_key_id", "secret_access_key", "session_token"] {
        let fingerprint = value["secrets"][format!("aws/bedrock/{part}")].as_str().unwrap();
        assert!(fingerprint.starts_with("hmac-sha256:"), "{part}");
    }
    // A rotated key is watched for, and takes effect without a restart.
    assert!(loaded.inputs().iter().filter(|path| **path == folder.path("azure.key")).count() >= 3);
    std::fs::write(folder.path("azure.key"), "another-key").unwrap();
    let next = folder.load(&with_aws("file: azure.key")).unwrap();
    let changes = loaded.changes(&next);
    assert!(changes.restart.is_empty());
    assert!(changes.live.contains(&"secrets.aws/bedrock/secret_access_key".to_owned()), "{changes:?}");
}

#[test]
fn an_access_key_that_means_nothing_is_refused_with_every_problem() {
    let folder = Folder::new();
    let whole = with_aws("env: OPENAI_API_KEY");
    let table = [
        ("dialect: bedrock", "dialect: openai", "`providers[2].aws`: wanted no such block"),
        ("dialect: bedrock", "dialect: bedrock, credential: { env: OPENAI_API_KEY }", "wanted one of `aws`"),
        (
            "region: us-east-1",
            "region: US East",
            "`providers[2].aws.region`: found `US East`, wanted a region as `us-east-1`",
        ),
        ("access_key_id: {", "access_id: {", "`providers[2].aws.access_key_id`"),
        (
            "secret_access_key: { env: OPENAI_API_KEY }",
            "secret_access_key: { env: NOT_SET }",
            "`NOT_SET` that is set",
        ),
    ];
    for (from, to, wanted) in table {
        let told = folder.told(&whole.replacen(from, to, 1)).join("\n");
        assert!(told.contains(wanted), "{to}: {told}");
    }
}

#[test]
fn a_choice_by_meaning_that_cannot_be_made_is_refused_with_every_problem() {
    let folder = Folder::new();
    let whole = with_routed(ROUTED);
    let loaded = folder.load(&whole).unwrap();
    let value: Value = serde_json::from_slice(&loaded.canonical).unwrap();
    let route = &value["config"]["routes"][0];
    assert_eq!(route["balance"]["semantic"]["threshold"], "-0.5");
    assert_eq!(route["targets"][0]["threshold"], "0.75");
    let semantic = "by: semantic\n      semantic:";
    let table = [
        ("threshold: -0.5", "threshold: 1.5", "`routes[0].balance.semantic.threshold`: found `1.5`"),
        (", threshold: -0.5", "", "`routes[0].balance.semantic.threshold`: wanted a number from -1 to 1"),
        (
            "fallback: openai",
            "fallback: opneai",
            "`routes[0].balance.semantic.fallback`: found `opneai`, wanted one of the route's targets",
        ),
        (
            "semantic: { provider: azure",
            "semantic: { provider: other",
            "`routes[0].balance.semantic.provider`: found `other`, wanted a configured provider",
        ),
        ("fallback: openai", "fallback: first", "`routes[0].targets[1].examples`: wanted 1 to 64 examples"),
        (
            "examples: [pay this invoice, who sent it]",
            "examples: []",
            "`routes[0].targets[0].examples`: found `0`, wanted 1 to 64",
        ),
        (
            "examples: [pay this invoice, who sent it]",
            "examples: [' ']",
            "`routes[0].targets[0].examples`: found `1`, wanted a text",
        ),
        ("timeout: 2s", "timeout: 2m", "`routes[0].balance.semantic.timeout`: found `2m`"),
        ("dimensions: 64", "dimensions: 0", "`routes[0].balance.semantic.dimensions`: found `0`"),
        (
            semantic,
            "by: weight\n      semantic:",
            "`routes[0].balance.semantic`: wanted no such key without `by: semantic`",
        ),
        (
            "path: '/own/path?x=1'",
            "path: '/own/../path'",
            "`routes[0].targets[0].path`: found `/own/../path`",
        ),
        ("answer: 1MiB", "answer: 1B", "`routes[0].targets[0].answer`: found `1B`"),
    ];
    for (from, to, wanted) in table {
        let told = folder.told(&whole.replacen(from, to, 1)).join("\n");
        assert!(told.contains(wanted), "{to}: {told}");
    }
    let without: String =
        whole.lines().filter(|line| !line.contains("semantic")).map(|line| format!("{line}\n")).collect();
    let told = folder.told(&without.replacen("    balance:\n", "", 1)).join("\n");
    for wanted in [
        "`routes[0].targets[0].examples`: wanted no such key without",
        "`routes[0].targets[0].threshold`: wanted no such key",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
}

/// With balancing, health and several keys.
fn with_balance(secret: &str) -> String {
    let provider = format!(
        "  - {{ name: many, dialect: openai, base_url: 'https://llm.example', keys: [ {{ name: k1, credential: {{ {secret} }} }}, \
         {{ name: k2, credential: {{ env: OPENAI_API_KEY }} }} ], cool_down: {{ statuses: [401, 402], refused: 1m, limited: 10s }}, \
         health: {{ passive: {{ failures: 3, within: 10s, share: 50, statuses: [5xx, 429], eject_for: 5s, eject_at_most: 1m, half_open: 2 }}, \
         active: {{ path: '/v1/chat/completions?x=1', method: POST, body: '{{\"model\":\"m\",\"max_tokens\":1}}', headers: {{ x-probe: yes }}, \
         every: 1m, timeout: 2s, healthy: {{ statuses: [200-299], successes: 1 }}, unhealthy: {{ statuses: [5xx], failures: 2, timeouts: 1, every: 5s }} }} }} }}\nroutes:\n"
    );
    let route =
        "    provider: openai\n    balance: { by: hash, hash: 'header:x-session', sticky: conversation }\n";
    FULL.replacen("routes:\n", &provider, 1).replacen("    provider: openai\n", route, 1)
}

#[test]
fn several_keys_are_read_and_never_shown() {
    let folder = Folder::new();
    let loaded = folder.load(&with_balance("file: azure.key")).unwrap();
    assert_eq!(loaded.secrets_of("many"), [ANTHROPIC_KEY, OPENAI_KEY]);
    assert_eq!(loaded.secrets_of("openai"), [OPENAI_KEY]);
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(!format!("{loaded:?} {canonical}").contains(ANTHROPIC_KEY));
    let value: Value = serde_json::from_str(canonical).unwrap();
    for key in ["k1", "k2"] {
        let fingerprint = value["secrets"][format!("credential/many/{key}")].as_str().unwrap();
        assert!(fingerprint.starts_with("hmac-sha256:"), "{key}");
    }
    let provider = &value["config"]["providers"][2];
    assert_eq!(provider["health"]["passive"]["statuses"], serde_json::json!(["500-599", "429"]));
    assert_eq!(value["config"]["routes"][0]["balance"]["hash"], "header:x-session");
    // Where nothing is typed, nothing of it is in the configuration of record.
    let plain = String::from_utf8(folder.load(FULL).unwrap().canonical).unwrap();
    for key in ["balance", "cool_down", "health", "\"keys\":[]"] {
        assert!(!plain.contains(key), "{key}");
    }
    // A rotated key is watched for, and takes effect without a restart.
    assert!(loaded.inputs().contains(&folder.path("azure.key")));
    std::fs::write(folder.path("azure.key"), "another-key").unwrap();
    let changes = loaded.changes(&folder.load(&with_balance("file: azure.key")).unwrap());
    assert!(changes.restart.is_empty());
    assert!(changes.live.contains(&"secrets.credential/many/k1".to_owned()), "{changes:?}");
}

#[test]
fn balancing_and_health_that_mean_nothing_are_refused_with_every_problem() {
    let folder = Folder::new();
    let whole = with_balance("env: OPENAI_API_KEY");
    let place = |what: &str| format!("providers[2].{what}");
    let table = [
        ("by: hash", "by: hsah", "`routes[0].balance.by`: found `hsah`".to_owned()),
        ("by: hash", "by: weight", "`routes[0].balance.hash`: wanted no such key without `by: hash`".into()),
        (", hash: 'header:x-session'", "", "`routes[0].balance.hash`: wanted `header:NAME`".into()),
        ("header:x-session", "header:X-Session", "`routes[0].balance.hash`: found `header:X-Session`".into()),
        ("sticky: conversation", "sticky: consumer", "`routes[0].balance.sticky`: found `consumer`".into()),
        (
            "name: k2",
            "name: k1",
            place("keys[1].name`: found `k1`, wanted another one than `providers[2].keys[0].name` has"),
        ),
        (
            "keys: [",
            "credential: { env: OPENAI_API_KEY }, keys: [",
            place("keys`: wanted one of `keys`, `credential` and `aws`"),
        ),
        (
            "name: k1, credential: { env: OPENAI_API_KEY }",
            "name: k1",
            place("keys[0].credential`: wanted `{env: NAME}`"),
        ),
        (
            "env: OPENAI_API_KEY } },",
            "env: NOT_SET } },",
            place("keys[0].credential.env`: wanted an environment variable `NOT_SET`"),
        ),
        ("refused: 1m", "refused: 0s", place("cool_down.refused`: found `0s`")),
        (
            "failures: 3",
            "failures: 0",
            place("health.passive.failures`: found `0`, wanted a whole number from 1 to 10000"),
        ),
        ("share: 50", "share: 101", place("health.passive.share`: found `101`")),
        (
            "[5xx, 429]",
            "[6xx, 429]",
            place("health.passive.statuses`: found `6xx`, wanted statuses from 100 to 599"),
        ),
        (
            "eject_at_most: 1m",
            "eject_at_most: 1s",
            place("health.passive.eject_at_most`: wanted `eject_at_most` not below `eject_for`"),
        ),
        ("half_open: 2", "halfopen: 2", place("health.passive.halfopen`")),
        ("path: '/v1", "path: 'v1", place("health.active.path`: found `v1/chat")),
        ("method: POST", "method: GET", place("health.active.body`: wanted a body with `method: POST`")),
        ("\"max_tokens\":1}'", "\"max_tokens\":1'", place("health.active.body`: found")),
        (
            "x-probe: yes",
            "authorization: yes",
            place("health.active.headers.authorization`: wanted a header's name"),
        ),
        ("timeout: 2s", "timeout: 1h", place("health.active.timeout`: found `1h`")),
    ];
    for (from, to, wanted) in table {
        assert!(whole.contains(from), "{from}");
        let told = folder.told(&whole.replacen(from, to, 1)).join("\n");
        assert!(told.contains(&wanted), "{to}: {told}");
        assert!(told.lines().all(|line| line.starts_with("gateway.yaml:")), "{told}");
    }
}

fn commit_secret() -> String {
    secrets::commit_secret_text(&[4; 32]).lines().last().unwrap().to_owned()
}

/// With everything about callers without a gateway key, and a Vault that is asked nothing.
fn with_identity(auth: &str) -> String {
    let text = FULL.replacen(
        "    receipts: true\n",
        "    receipts: true\n    require: [subject, purpose]\n    credentials: forward\n",
        1,
    );
    format!(
        "{text}identity:\n  jwt:\n    - {{ name: a, issuer: 'https://i.example', audience: [x, y], discovery: true, ca: tls.crt, \
         algorithms: [ES256], leeway: 5s, consumer_prefix: 'a:', max_stale: 12h, claims: {{ consumer: azp, team: a.b, groups: g }}, require: {{ tier: gold }} }}\n    \
         - {{ name: b, issuer: j, audience: x, jwks: 'https://j.example/keys', consumer_prefix: '' }}\n  certificates: {{ consumer: spiffe, consumer_prefix: 'tls:', map: [{{ \
         pattern: 'spiffe://x/*', consumer: c, groups: [g], team: t, organisation: o, cost_centre: c, system: s, purpose: p, \
         data_class: d }}], listeners: [{{ address: '127.0.0.1:8443', consumer: san_dns, consumer_prefix: 'dns:', map: [{{ pattern: '*', consumer: c, \
         groups: [g], team: t, organisation: o, cost_centre: c, system: s, purpose: p, data_class: d }}] }}] }}\nvault: {{ address: 'https://vault.example:8200', ca: tls.crt, mount: kv, namespace: team/a, refresh: \
         1m, auth: {{ {auth} }} }}\n"
    )
}

#[test]
fn callers_without_a_key_are_read_and_problems_told() {
    let folder = Folder::new();
    let whole = with_identity("token: { env: OPENAI_API_KEY }");
    let loaded = folder.load(&whole).unwrap();
    let identity = &loaded.config.identity;
    assert_eq!(identity.jwt[0].claims["consumer"], "azp");
    assert_eq!(identity.jwt[1].claims["consumer"], "sub");
    assert_eq!(identity.jwt[1].algorithms.len(), 4);
    assert_eq!(loaded.config.routes[0].require, [Fact::Subject, Fact::Purpose]);
    assert_eq!(loaded.config.routes[0].credentials, Credentials::Forward);
    assert!(loaded.changes(&folder.load(FULL).unwrap()).restart.is_empty(), "all of it is live");
    let table = [
        (
            "algorithms: [ES256]",
            "algorithms: [HS256]",
            "`identity.jwt[0].algorithms`: found `HS256`, wanted one or more of `RS256`",
        ),
        ("algorithms: [ES256]", "algorithms: [none]", "found `none`, wanted one or more of"),
        ("algorithms: [ES256]", "algorithms: []", "`identity.jwt[0].algorithms`: wanted one or more of"),
        (
            "discovery: true",
            "discovery: false",
            "`identity.jwt[0].jwks`: wanted one of `jwks` and `discovery: true`",
        ),
        ("discovery: true", "discovery: true, jwks: keys.json", "wanted one of `jwks` and `discovery: true`"),
        (
            "issuer: 'https://i.example'",
            "issuer: 'http://i.example'",
            "`identity.jwt[0].issuer`: found `http://i.example`",
        ),
        ("jwks: 'https://j.example/keys'", "jwks: 'http://j.example/keys'", "`identity.jwt[1].jwks`: found"),
        (
            "jwks: 'https://j.example/keys'",
            "jwks: nowhere.json",
            "`identity.jwt[1].jwks`: found `nowhere.json`, wanted a file",
        ),
        ("jwks: 'https://j.example/keys'", "jwks: policy.yaml", "`identity.jwt[1].jwks`: wanted keys (JWKS)"),
        ("audience: x,", "audience: [],", "`identity.jwt[1].audience`"),
        ("name: b, issuer", "name: a, issuer", "`identity.jwt[1].name`: found `a`, wanted a name of its own"),
        ("consumer: azp", "consumr: azp", "(did you mean `consumer`?)"),
        ("consumer_prefix: 'a:', ", "", "`identity.jwt[0].consumer_prefix`: wanted a prefix such as `corp:`"),
        (", consumer_prefix: ''", "", "`identity.jwt[1].consumer_prefix`: wanted a prefix such as"),
        ("consumer_prefix: 'tls:', ", "", "`identity.certificates.consumer_prefix`: wanted a prefix such as"),
        (
            ", consumer_prefix: 'dns:'",
            "",
            "`identity.certificates.listeners[0].consumer_prefix`: wanted a prefix such as",
        ),
        (
            "address: '127.0.0.1:8443', consumer",
            "address: '[::1]:8080', consumer",
            "`identity.certificates.listeners[0].address`: found `[::1]:8080`, wanted the `address` of one",
        ),
        ("consumer: san_dns", "consumer: cn", "`identity.certificates.listeners[0].consumer`: found `cn`"),
        ("consumer_prefix: 'a:'", "consumer_prefix: 'p:'", "`identity.jwt[0].consumer_prefix`: found `p:`"),
        ("consumer_prefix: 'a:'", "consumer_prefix: 'a b'", "`identity.jwt[0].consumer_prefix`: found `a b`"),
        ("max_stale: 12h", "max_stale: 1s", "`identity.jwt[0].max_stale`: found `1s`"),
        ("consumer: spiffe", "consumer: cn", "`identity.certificates.consumer`: found `cn`"),
        ("pattern: 'spiffe://x/*'", "pattern: ''", "`identity.certificates.map[0].pattern`"),
        ("require: [subject, purpose]", "require: [subjct]", "`routes[0].require`: found `subjct`"),
        ("credentials: forward", "credentials: keep", "`routes[0].credentials`: found `keep`"),
        ("client_ca: tls.crt", "", "`identity.certificates`: wanted `client_ca`"),
        (
            "address: 'https://vault",
            "address: 'http://vault",
            "`vault.address`: found `http://vault.example:8200`",
        ),
        ("token: { env: OPENAI_API_KEY }", "token: { env: NOT_SET }", "`vault.auth.token.env`"),
        ("token: { env: OPENAI_API_KEY }", "", "`vault.auth`: wanted one of `token`"),
    ];
    for (from, to, wanted) in table {
        assert!(whole.contains(from), "{from}");
        let told = folder.told(&whole.replacen(from, to, 1)).join("\n");
        assert!(told.contains(wanted), "{to}: {told}");
    }
    let aws = with_aws("env: OPENAI_API_KEY").replacen(
        "{ name: all, path: /, provider: azure }",
        "{ name: all, path: /, provider: bedrock, credentials: forward }",
        1,
    );
    assert!(
        folder.told(&aws).join("\n").contains("`routes[1].credentials`: found `forward`, wanted `replace`")
    );
}

#[test]
fn a_secret_in_a_vault_is_read_and_one_that_is_not_there_is_told() {
    let folder = Folder::new();
    let vault = crate::vault::tests::server(&[("llm/openai", "api_key", "sk-from-the-vault")]);
    let text = |path: &str, key: &str, vault: &str| {
        let at = format!("{{ vault: {{ path: {path}, key: {key} }} }}");
        format!("{}{vault}", FULL.replacen("{ env: OPENAI_API_KEY }", &at, 1))
    };
    let there =
        format!("vault: {{ address: '{vault}', mount: kv, auth: {{ token: {{ env: OPENAI_API_KEY }} }} }}\n");
    let loaded = folder.load(&text("llm/openai", "api_key", &there)).unwrap();
    assert_eq!(loaded.credentials["openai"].expose(), "sk-from-the-vault");
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(!canonical.contains("from-the-vault") && canonical.contains("\"path\":\"llm/openai\""));
    for (path, key, vault, wanted) in [
        ("llm/openai", "other", there.as_str(), "the secret `llm/openai` has no text `other`"),
        ("llm/none", "api_key", there.as_str(), "status 404 to the secret"),
        (
            "llm/openai",
            "api_key",
            "",
            "`providers[0].credential.vault`: wanted a `vault` that can be asked as well",
        ),
        ("../sys", "api_key", there.as_str(), "`providers[0].credential.vault.path`: found `../sys`"),
    ] {
        let told = folder.told(&text(path, key, vault)).join("\n");
        assert!(told.contains(wanted), "{path} {key}: {told}");
        assert!(!told.contains("from-the-vault") && !told.contains(OPENAI_KEY), "{told}");
    }
}

#[test]
fn a_key_that_was_taken_back_is_taken_back_while_the_vault_is_away() {
    let folder = Folder::new();
    let vault = crate::vault::tests::server(&[("llm/openai", "api_key", "sk-from-the-vault")]);
    let at = "{ vault: { path: llm/openai, key: api_key } }";
    let text = |vault: &str, mount: &str| {
        let auth = "auth: { token: { env: OPENAI_API_KEY } }";
        let vault = format!("vault: {{ address: '{vault}', mount: {mount}, {auth} }}\n");
        format!("{}{vault}", FULL.replacen("{ env: OPENAI_API_KEY }", at, 1))
    };
    let mut before = folder.load(&text(&vault, "kv")).unwrap();
    // The Vault goes away.
    let gone = "http://127.0.0.1:1";
    before.config.vault.as_mut().unwrap().address = BaseUrl::parse(gone).unwrap();
    assert!(before.keys.entry("k1").is_some_and(|entry| entry.revoked.is_none()));
    update(&folder.path("keys.yaml"), |keys| {
        Ok::<_, crate::keys::FileError>(crate::keys::revoke(keys, "k1", 1_700_000_000_000_001, None).unwrap())
    })
    .unwrap();
    let load = |text: &str, before: Option<&Loaded>| {
        std::fs::write(folder.path("gateway.yaml"), text).unwrap();
        super::load::load_told(&folder.path("gateway.yaml"), &|_| Some("sk-root".into()), before)
    };
    let next = load(&text(gone, "kv"), Some(&before)).unwrap();
    assert!(next.keys.entry("k1").is_some_and(|entry| entry.revoked.is_some()));
    assert_eq!(next.credentials["openai"].expose(), "sk-from-the-vault");
    assert_eq!(next.vault.kept().count(), 1);
    assert!(load(&text(gone, "other"), Some(&before)).is_err(), "another Vault never gave it");
    assert!(load(&text(gone, "kv"), None).is_err(), "nothing is in force at the start");
}

/// The full configuration with this way out.
fn with_out(out: &str) -> String {
    let line = FULL.lines().find(|line| line.trim_start().starts_with("out:")).unwrap();
    FULL.replace(line, out)
}

#[test]
fn a_bucket_is_read_with_its_retention() {
    let folder = Folder::new();
    let yaml = with_out(
        "  out:\n    s3:\n      bucket: acme-evidence\n      prefix: llm/evidence\n      region: eu-central-1\n      \
         endpoint: http://127.0.0.1:9000\n      path_style: true\n      retention:\n        records: 365d\n        \
         content: 90d\n        classes: { legal: 3650d }",
    );
    let loaded = folder.load(&yaml).unwrap();
    let Out::S3(s3) = &loaded.config.evidence.out else { panic!("no bucket") };
    assert_eq!((s3.at.bucket.as_str(), s3.at.prefix.as_str()), ("acme-evidence", "llm/evidence"));
    assert_eq!((s3.mode, s3.without_lock, s3.sse), (LockMode::Compliance, WithoutLock::Refuse, Sse::Bucket));
    assert_eq!(s3.retention.classes["legal"], Duration::from_secs(3650 * 86_400));
    let canonical = String::from_utf8(loaded.canonical.clone()).unwrap();
    assert!(
        canonical.contains(r#""retention":{"classes":{"legal":"3650d"},"content":"90d","records":"365d"}"#),
        "{canonical}"
    );
}

#[test]
fn a_bucket_that_means_nothing_is_refused_with_every_problem() {
    let folder = Folder::new();
    let yaml = with_out(
        "  out:\n    s3:\n      bucket: Acme\n      prefix: /a/\n      endpoint: ftp://x\n      sse: kms\n      mode: none\n      \
         retention: { records: 1h, content: 90d, classes: { A: 1d, b: x } }",
    );
    let told = folder.told(&yaml).join("\n");
    for key in [
        "bucket",
        "prefix",
        "endpoint",
        "kms_key",
        "mode",
        "retention.records",
        "retention.classes.A",
        "retention.classes.b",
    ] {
        assert!(told.contains(&format!("evidence.out.s3.{key}")), "{key}:\n{told}");
    }
    let both =
        with_out("  out: { directory: store, s3: { bucket: abc, retention: { records: 1d, content: 1d } } }");
    let told = folder.told(&both).join("\n");
    assert!(told.contains("evidence.out.directory"), "{told}");
}

#[test]
fn what_weakens_a_bucket_is_warned_about() {
    let folder = Folder::new();
    let yaml = with_out(
        "  out:\n    s3: { bucket: abc, mode: governance, without_lock: accept, sse: kms, kms_key: k, endpoint: 'http://s3.example', \
         retention: { records: 1d, content: 1d, classes: { unused: 1d } } }",
    );
    let warnings =
        folder.load(&yaml).unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for key in ["mode", "without_lock", "sse", "endpoint", "retention.classes"] {
        assert!(warnings.contains(&format!("evidence.out.s3.{key}")), "{key}:\n{warnings}");
    }
}

const ARCHIVERS: &str = "archivers: [{ name: ar1, key: '11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=' }]";

#[test]
fn brokers_are_read_with_whose_receipts_count() {
    let folder = Folder::new();
    std::fs::write(folder.path("kafka.password"), "hunter2-hunter2").unwrap();
    let yaml = with_out(&format!(
        "  out:\n    kafka:\n      brokers: ['k1:9093', '[::1]:9093']\n      {ARCHIVERS}\n      tls: {{}}\n      sasl: {{ mechanism: \
         scram-sha-512, user: gw1, secret: {{ file: kafka.password }} }}\n      create: {{ partitions: 12, replication: 3 }}",
    ));
    let loaded = folder.load(&yaml).unwrap();
    let Out::Kafka(kafka) = &loaded.config.evidence.out else { panic!("no topic") };
    assert_eq!((kafka.topic.as_str(), kafka.receipts.as_str()), ("affidavit-batches", "affidavit-receipts"));
    assert_eq!(
        (kafka.outage, kafka.reship_after),
        (Duration::from_secs(7 * 86_400), Duration::from_secs(300))
    );
    assert_eq!(loaded.kafka_password.as_ref().unwrap().expose(), "hunter2-hunter2");
    let settings = kafka.settings("acme", "gw1", Some("hunter2-hunter2"));
    assert_eq!(settings.archivers[0].name, "ar1");
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    let canonical = String::from_utf8(loaded.canonical.clone()).unwrap();
    assert!(canonical.contains(r#""evidence.out.kafka.sasl.secret":"hmac-sha256:"#), "{canonical}");
    assert!(!canonical.contains("hunter2"), "{canonical}");
    let batch_age = loaded.config.evidence.batch_age;
    assert!(yaml.contains("batch_age") || batch_age == Duration::from_secs(60), "{batch_age:?}");
    std::fs::write(folder.path("kafka.password"), "another-password").unwrap();
    assert_eq!(loaded.restart_keys(&folder.load(&yaml).unwrap()), ["secrets.evidence.out.kafka.sasl.secret"]);
}

/// Every key of the tap; `secret` is where the broker's password is.
fn with_tap(secret: &str) -> String {
    let tls = "tls: { ca: tls.crt, certificate: tls.crt, key: tls.key }";
    with_out(&format!(
        "  out: {{ directory: store }}\n  tap_keep: 1MiB\n  tap:\n    \
         - {{ name: live, kafka: {{ brokers: ['k:1'], topic: t, {tls}, sasl: {{ mechanism: plain, user: u, secret: {{ {secret} }} }}, \
         timeout: 5s }} }}\n    \
         - {{ name: siem, format: ocsf, kinds: [refusal, outcome], only: alerts, syslog: {{ address: 'siem:6514', server_name: siem, \
         {tls}, sd_id: 'a@1', facility: 4, app_name: aff, confirm: 2s, timeout: 3s }} }}\n    \
         - {{ name: hook, webhook: {{ url: 'https://siem.example/in', {tls}, body: array, secret: {{ {secret} }}, \
         token: {{ {secret} }}, scheme: Splunk, timeout: 4s }} }}\n    \
         - {{ name: view, loki: {{ url: 'https://loki.example/x/', {tls}, tenant: team-a, user: gw1, password: {{ {secret} }}, \
         batch: 64KiB, wait: 500ms, timeout: 4s }} }}\n    \
         - {{ name: grafana, loki: {{ url: 'http://127.0.0.1:3100', token: {{ {secret} }} }} }}"
    ))
}

#[test]
fn the_taps_sinks_are_read_with_their_secrets_as_fingerprints_and_need_a_restart() {
    let folder = Folder::new();
    let loaded = folder.load(&with_tap("env: OPENAI_API_KEY")).unwrap();
    let tap = &loaded.config.evidence.tap;
    assert_eq!(
        tap.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(),
        ["live", "siem", "hook", "view", "grafana"]
    );
    assert_eq!(tap[1].kinds, [TapKind::Refusal, TapKind::Outcome]);
    assert_eq!((tap[1].format, tap[1].only), (TapFormat::Ocsf, TapOnly::Alerts));
    assert_eq!(loaded.config.evidence.tap_keep, Some(1 << 20));
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(!canonical.contains(OPENAI_KEY), "{canonical}");
    for label in [
        "evidence.tap[0].kafka.sasl.secret",
        "evidence.tap[1].syslog.tls.key",
        "evidence.tap[2].webhook.secret",
        "evidence.tap[2].webhook.token",
        "evidence.tap[3].loki.password",
        "evidence.tap[3].loki.tls.key",
        "evidence.tap[4].loki.token",
    ] {
        assert!(canonical.contains(&format!("\"{label}\":\"hmac-sha256:")), "{label}: {canonical}");
    }
    assert!(!format!("{:?}", loaded.config).contains(OPENAI_KEY));
    let other = folder.load(&with_tap("env: OPENAI_API_KEY").replace("facility: 4", "facility: 5")).unwrap();
    assert_eq!(loaded.restart_keys(&other), ["evidence.tap[1].syslog.facility"]);
    let without = folder.load(FULL).unwrap();
    assert!(loaded.restart_keys(&without).iter().any(|key| key == "evidence.tap"));
    // Where no tap is typed, nothing of it is in the configuration of record.
    assert!(!std::str::from_utf8(&without.canonical).unwrap().contains("tap"));
}

fn with_otlp(place: &str) -> String {
    format!(
        "{FULL}\ntelemetry:\n  trace_context: replace\n  otlp:\n    endpoint: https://otel.example:4318/otlp\n    \
         tls: {{ ca: tls.crt, certificate: tls.crt, key: tls.key }}\n    headers: {{ authorization: {{ {place} }} }}\n    \
         traces: true\n    metrics: false\n    sample_ratio: 0.05\n    interval: 2s\n    timeout: 3s\n    queue: 100\n    \
         resource: {{ deployment.environment.name: test }}\n"
    )
}

#[test]
fn the_way_to_a_collector_is_read_and_can_be_reloaded() {
    let folder = Folder::new();
    std::fs::write(folder.path("otlp.header"), "Bearer abc-def\n").unwrap();
    let loaded = folder.load(&with_otlp("file: otlp.header")).unwrap();
    let otlp = loaded.config.telemetry.otlp.as_ref().unwrap();
    assert_eq!(loaded.config.telemetry.trace_context, TraceContext::Replace);
    assert_eq!((otlp.sample_ratio.to_string().as_str(), otlp.queue, otlp.metrics), ("0.05", 100, false));
    assert_eq!(loaded.otlp.as_ref().unwrap().headers["authorization"].expose(), "Bearer abc-def");
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    for label in ["telemetry.otlp.headers.authorization", "telemetry.otlp.tls.key"] {
        assert!(canonical.contains(&format!("\"{label}\":\"hmac-sha256:")), "{label}: {canonical}");
    }
    assert!(!canonical.contains("abc-def"), "{canonical}");
    for file in ["otlp.header", "tls.key", "tls.crt"] {
        assert!(loaded.inputs().contains(&folder.path(file)), "{file}");
    }
    let other = folder.load(&with_otlp("file: otlp.header").replace("queue: 100", "queue: 101")).unwrap();
    assert_eq!(loaded.restart_keys(&other), Vec::<String>::new());
    assert_eq!(loaded.changes(&other).live, ["config.telemetry.otlp.queue"]);
    // Where nothing is typed, nothing of it is in the configuration of record.
    assert!(!std::str::from_utf8(&folder.load(FULL).unwrap().canonical).unwrap().contains("telemetry"));
}

#[test]
fn a_collector_that_means_nothing_is_refused_with_every_problem() {
    let folder = Folder::new();
    std::fs::write(folder.path("otlp.header"), "Bearer a\nb\n").unwrap();
    let typed = with_otlp("file: otlp.header");
    let told = folder.told(&typed).join("\n");
    assert!(told.contains("telemetry.otlp.headers.authorization"), "{told}");
    let table = [
        (
            "endpoint: https://otel.example:4318/otlp",
            "endpoint: otel.example:4318",
            "telemetry.otlp.endpoint",
        ),
        ("sample_ratio: 0.05", "sample_ratio: 1.5", "telemetry.otlp.sample_ratio"),
        ("sample_ratio: 0.05", "sample_ratio: 0.0000001", "telemetry.otlp.sample_ratio"),
        ("interval: 2s", "interval: 0s", "telemetry.otlp.interval"),
        ("timeout: 3s", "timeout: 3", "telemetry.otlp.timeout"),
        ("queue: 100", "queue: 0", "telemetry.otlp.queue"),
        ("traces: true", "traces: false", "telemetry.trace_context"),
        ("traces: true", "traces: perhaps", "telemetry.otlp.traces"),
        ("trace_context: replace", "trace_context: drop", "telemetry.trace_context"),
        ("authorization:", "Host:", "telemetry.otlp.headers.Host"),
        ("authorization:", "content-type:", "telemetry.otlp.headers.content-type"),
        ("deployment.environment.name: test", "a b: test", "telemetry.otlp.resource.a b"),
        ("deployment.environment.name: test", "a: ''", "telemetry.otlp.resource.a"),
        ("key: tls.key }", "}", "telemetry.otlp.tls.key"),
        ("    queue: 100", "    protocol: grpc", "telemetry.otlp.protocol"),
    ];
    for (from, to, key) in table {
        let text = with_otlp("env: OPENAI_API_KEY");
        let (before, section) = text.split_at(text.find("telemetry:").unwrap());
        assert!(section.contains(from), "{from}");
        let told = folder.told(&format!("{before}{}", section.replacen(from, to, 1))).join("\n");
        assert!(told.contains(key), "{key}:\n{told}");
    }
    let without = format!("{FULL}\ntelemetry: {{ trace_context: replace }}\n");
    assert!(folder.told(&without).join("\n").contains("telemetry.trace_context"));
    let clear = format!("{FULL}\ntelemetry: {{ otlp: {{ endpoint: 'http://otel.example:4318' }} }}\n");
    let warned = folder.load(&clear).unwrap().warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(warned.contains("telemetry.otlp.endpoint"), "{warned}");
}

#[test]
fn sinks_that_mean_nothing_are_refused_with_every_problem() {
    let folder = Folder::new();
    let yaml = with_out(
        "  out: { directory: store }\n  tap:\n    - { name: A b, kafka: { brokers: [k] }, webhook: { url: 'ftp://x' } }\n    \
         - { name: s, kinds: [refusals], only: some, format: cef, syslog: { address: siem, sd_id: x, facility: 24, tls: { key: k } } }\n    \
         - { name: n }\n    \
         - { name: l, format: ocsf, loki: { url: 'http://l/loki/api/v1/push', tenant: 'a|b', user: 'a:b', batch: 1GiB } }\n    \
         - { name: m, loki: { url: 'http://l', user: a, password: { env: OPENAI_API_KEY }, token: { env: OPENAI_API_KEY } } }",
    );
    let told = folder.told(&yaml).join("\n");
    for key in [
        "tap[0].name",
        "tap[0].kafka.brokers",
        "tap[0].webhook.url",
        "tap[0].kafka",
        "tap[1].kinds",
        "tap[1].only",
        "tap[1].format",
        "tap[1].syslog.address",
        "tap[1].syslog.sd_id",
        "tap[1].syslog.facility",
        "tap[1].syslog.tls.key",
        "tap[2].kafka",
        "tap[3].loki.url",
        "tap[3].loki.tenant",
        "tap[3].loki.user",
        "tap[3].loki.batch",
        "tap[3].format",
        "tap[4].loki.token",
    ] {
        assert!(told.contains(&format!("evidence.{key}")), "{key}:\n{told}");
    }
    let twice = with_out(
        "  out: { directory: store }\n  tap: [{ name: a, webhook: { url: 'http://siem/x' } }, { name: a, webhook: { url: 'http://[::1]/' } }, { name: c, loki: { url: 'http://loki:3100' } }]",
    );
    assert!(folder.told(&twice).join("\n").contains("evidence.tap[1].name"));
    let clear = folder.load(&twice.replacen("name: a", "name: b", 1)).unwrap();
    let warned: Vec<_> = clear.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert!(warned.contains(&"evidence.tap[0].webhook.url"), "{warned:?}");
    assert!(!warned.contains(&"evidence.tap[1].webhook.url"), "{warned:?}");
    assert!(warned.contains(&"evidence.tap[2].loki.url"), "{warned:?}");
}

#[test]
fn commit_is_local_or_the_brokers_of_a_topic() {
    use super::Commit;
    let folder = Folder::new();
    let load = |commit: &str, out: &str| folder.load(&with_out(&format!("  out: {out}\n{commit}")));
    let kafka = format!("{{ kafka: {{ brokers: ['127.0.0.1:1'], {ARCHIVERS} }} }}");
    for commit in ["", "  commit: local"] {
        assert_eq!(load(commit, "{ directory: store }").unwrap().config.evidence.commit, Commit::Local);
    }
    let own = load(
        "  commit: { kafka: { brokers: ['k:1'], secret: { file: commit.secret }, create: { partitions: 1, replication: 1 } } }",
        "{ directory: store }",
    );
    let own = own.unwrap();
    let Commit::Kafka(commit) = &own.config.evidence.commit else { panic!("no topic") };
    assert_eq!((commit.topic.as_str(), commit.lease), ("affidavit-commit", Duration::from_secs(10)));
    let warnings = own.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for key in ["tls", "create.partitions"] {
        assert!(warnings.contains(&format!("evidence.commit.kafka.{key}")), "{warnings}");
    }
    // Without brokers those of the way out are taken.
    let taken = load("  commit: { kafka: { secret: { env: COMMIT_SECRET } } }", &kafka).unwrap();
    let (Commit::Kafka(commit), Out::Kafka(out)) =
        (&taken.config.evidence.commit, &taken.config.evidence.out)
    else {
        panic!("no topics")
    };
    let settings = commit.settings("acme/gw1".into(), Some(out), None, &[4; 32]).unwrap();
    assert_eq!(settings.connection.brokers, ["127.0.0.1:1"]);
    let canonical = String::from_utf8(taken.canonical.clone()).unwrap();
    assert!(canonical.contains(r#""evidence.commit.kafka.secret":"hmac-sha256:"#), "{canonical}");
    assert_eq!([&own, &taken].map(|one| one.commit_secret.as_deref()), [Some(&[4; 32]); 2]);
    assert!(!format!("{taken:?} {settings:?} {canonical}").contains(&commit_secret()));
    for (commit, out, key) in [
        ("  commit: { kafka: { secret: { file: commit.secret } } }", "{ directory: store }", "brokers"),
        ("  commit: { kafka: { tls: {} } }", kafka.as_str(), "tls"),
        (
            "  commit: { kafka: { secret: { file: commit.secret }, topic: affidavit-batches } }",
            &kafka,
            "topic",
        ),
        ("  commit: { kafka: { lease: 1ms } }", &kafka, "lease"),
        ("  commit: { kafka: {} }", &kafka, "secret"),
        ("  commit: { kafka: { secret: { file: none } } }", &kafka, "secret.file"),
        ("  commit: { kafka: { secret: { file: azure.key } } }", &kafka, "secret.file"),
        ("  commit: { kafka: { secret: { env: NOT_SET } } }", &kafka, "secret.env"),
        ("  commit: { kafka: { secret: { env: OPENAI_API_KEY } } }", &kafka, "secret.env"),
    ] {
        let told = folder.told(&with_out(&format!("  out: {out}\n{commit}"))).join("\n");
        assert!(told.contains(&format!("evidence.commit.kafka.{key}")), "{told}");
    }
    for commit in ["  commit: everywhere", "  commit: [local]", "  commit: {}"] {
        let told = folder.told(&with_out(&format!("  out: {{ directory: store }}\n{commit}"))).join("\n");
        assert!(told.contains("evidence.commit"), "{told}");
    }
}

#[test]
fn brokers_that_mean_nothing_are_refused_with_every_problem() {
    let folder = Folder::new();
    let yaml = with_out(
        "  out:\n    kafka:\n      brokers: [k1]\n      topic: 'a b'\n      archivers: [{ name: Ar 1, key: x }]\n      tls: { \
         certificate: c.pem }\n      sasl: { mechanism: plain, secret: { env: NOT_SET } }\n      create: { partitions: 0, replication: x \
         }\n      outage: 1m\n      archive: { directory: a, s3: { bucket: A } }\n      confirm: maybe",
    );
    let told = folder.told(&yaml).join("\n");
    for key in [
        "brokers",
        "topic",
        "archivers[0].name",
        "archivers[0].key",
        "tls.key",
        "sasl.user",
        "create.partitions",
        "create.replication",
        "outage",
        "archive.directory",
        "archive.s3.bucket",
        "confirm",
    ] {
        assert!(told.contains(&format!("evidence.out.kafka.{key}")), "{key}:\n{told}");
    }
    let same =
        with_out(&format!("  out: {{ kafka: {{ brokers: ['k:1'], topic: a, receipts: a, {ARCHIVERS} }} }}"));
    assert!(folder.told(&same).join("\n").contains("evidence.out.kafka.receipts"));
    let blind =
        with_out(&format!("  out: {{ kafka: {{ brokers: ['k:1'], {ARCHIVERS}, confirm: object }} }}"));
    assert!(folder.told(&blind).join("\n").contains("evidence.out.kafka.archive"));
    let both =
        with_out(&format!("  out: {{ directory: store, kafka: {{ brokers: ['k:1'], {ARCHIVERS} }} }}"));
    assert!(folder.told(&both).join("\n").contains("evidence.out.directory"));
    let missing = "sasl: { mechanism: plain, user: u, secret: { env: NOT_SET } }";
    let made = with_out(&format!(
        "  out: {{ kafka: {{ brokers: ['k:1'], {ARCHIVERS}, create: {{ partitions: 1, replication: 1 }}, sasl: {{ \
         mechanism: oauthbearer, secret: {{ file: token }} }} }} }}"
    ));
    assert!(folder.told(&made).join("\n").contains("evidence.out.kafka.create"));
    let missing = with_out(&format!("  out: {{ kafka: {{ brokers: ['k:1'], {ARCHIVERS}, {missing} }} }}"));
    assert!(folder.told(&missing).join("\n").contains("evidence.out.kafka.sasl.secret.env"));
}

#[test]
fn brokers_over_the_network_in_the_clear_are_warned_about() {
    let folder = Folder::new();
    let warnings = |brokers: &str| {
        let yaml = with_out(&format!("  out: {{ kafka: {{ brokers: ['{brokers}'], {ARCHIVERS} }} }}"));
        let warnings = folder.load(&yaml).unwrap().warnings;
        warnings.iter().any(|warning| warning.to_string().contains("evidence.out.kafka.tls"))
    };
    assert!(warnings("k1.example:9092"));
    assert!(!warnings("127.0.0.1:9092") && !warnings("[::1]:9092") && !warnings("localhost:9092"));
}

/// A route with every key that chooses and repeats, in the place of the first one.
fn with_routed(route: &str) -> String {
    FULL.replacen("routes:\n", &format!("routes:\n{route}"), 1)
}

const ROUTED: &str = "  - name: routed
    path: /routed
    match:
      hosts: ['*.acme.test']
      headers: { x-tier: [gold, '!silver'] }
      consumers: app
      teams: [hr]
      organisations: [acme]
      groups: [staff]
      models: ['gpt-*']
      operations: [chat.completions]
      body: { at_least: 1B, at_most: 1MiB }
      images: false
      tools: true
      stream: true
      content: '(?i)\\binvoice\\b'
    targets:
      - name: first
        provider: openai
        weight: 3
        priority: 0
        model: gpt-4.1
        models: { 'x/*': '*' }
        parameters: { defaults: { temperature: 0.70, stop: ['a'] }, forced: { user: '1', n: 1, store: false }, max_output: 500 }
        headers: { set: { x-team: hr }, remove: [x-debug] }
        first_byte: 5s
        idle: 6s
        answer: 1MiB
        answer_time: 7s
        path: '/own/path?x=1'
        examples: [pay this invoice, who sent it]
        threshold: 0.75
      - { provider: openai, priority: 1 }
    balance:
      by: semantic
      semantic: { provider: azure, model: e3, dimensions: 64, path: '/openai/v1/embeddings', timeout: 2s, threshold: -0.5, fallback: openai }
    dialect: openai
    models: { fast: gpt-4.1-mini }
    retry: { attempts: 3, on: [connect, key_refused, 429, 5xx, context_window], within: 5s, back_off: { first: 10ms, most: 1s }, budget: 30% }
    server_timing: true
    drain_after_abort: { time: 5s, bytes: 64KiB }
    estimate: off
    untranslatable: drop
";

#[test]
fn targets_are_read_with_what_is_put_in_as_json() {
    let folder = Folder::new();
    let loaded = folder.load(&with_routed(ROUTED)).unwrap();
    let route = &loaded.config.routes[0];
    assert_eq!(route.all_targets().len(), 2);
    assert_eq!(route.targets[1].name.as_str(), "openai", "the provider's name where it has none");
    let forced = Value::Object(route.targets[0].parameters.forced.clone());
    assert_eq!(forced, serde_json::json!({ "user": "1", "n": 1, "store": false }));
    assert_eq!(route.targets[0].parameters.max_output, Some(500));
    let drain = Drain { time: Duration::from_secs(5), bytes: 64 << 10 };
    assert_eq!(route.drain_after_abort, Some(DrainAfterAbort::Within(drain)));
    assert_eq!(loaded.config.routes[1].drain_after_abort, None, "as its provider has it");
    assert_eq!(route.retries().attempts, 3);
    assert_eq!(route.untranslatable, Untranslatable::Drop);
    assert_eq!(route.retries().on[1..4], [On::KeyRefused, On::Status(429), On::ServerErrors]);
    let plain = &loaded.config.routes[1];
    assert_eq!((plain.all_targets().len(), plain.retries().attempts), (1, 1));
    let canonical: Value = serde_json::from_slice(&loaded.canonical).unwrap();
    let told = &canonical["config"]["routes"][0];
    assert_eq!(told["targets"][0]["parameters"]["defaults"], r#"{"temperature":0.7,"stop":["a"]}"#);
    assert_eq!(told["retry"]["budget"], "30%");
    assert_eq!(
        told["retry"]["on"],
        serde_json::json!(["connect", "key_refused", "429", "5xx", "context_window"])
    );
}

#[test]
fn routes_that_mean_nothing_are_refused_with_every_problem() {
    let folder = Folder::new();
    let told = folder.told(&with_routed(
        "  - { name: a, path: /a, match: {}, targets: [] }
  - { name: b, path: /b, provider: openai, targets: [{ provider: openai }] }
  - { name: c, path: /c, provider: openai, match: { hosts: ['a b'], headers: { authorization: x }, content: '(', body: { at_least: 2B, at_most: 1B } } }
  - { name: d, path: /d, models: { 'a*b': m, c: 'd*' }, targets: [{ provider: openai, weight: x, model: 'm*', parameters: { forced: { model: a }, defaults: 1 }, headers: { set: { authorization: a }, remove: [Host] } }] }
  - { name: e, path: /e, provider: openai, retry: { attempts: 0, on: [5x, 399], budget: 101%, back_off: { first: 2s, most: 1s } } }
  - { name: f, path: /f, drain_after_abort: on, targets: [{ provider: openai, parameters: { max_output: 0 } }] }
",
    ));
    for want in [
        "`routes[0].match`: wanted at least one condition",
        "`routes[0].targets`: found `[]`, wanted at least one target",
        "`routes[1].provider`: wanted one of `provider` and `targets`",
        "`routes[2].match.hosts`: found `a b`, wanted a pattern",
        "`routes[2].match.headers`: found `authorization`, wanted a header's name in lower case that carries no credential",
        "`routes[2].match.content`: found `(`, wanted a regular expression",
        "`routes[2].match.body`: wanted `at_least` no larger than `at_most`",
        "`routes[3].models`: found `a*b`, wanted an alias",
        "`routes[3].models.c`: found `d*`, wanted a model's name",
        "`routes[3].targets[0].weight`: found `x`, wanted a whole number from 0 to 1000",
        "`routes[3].targets[0].model`: found `m*`, wanted a model's name",
        "`routes[3].targets[0].parameters.forced.model`: wanted no `model`",
        "`routes[3].targets[0].parameters.defaults`: wanted members of the request's JSON body",
        "`routes[3].targets[0].headers.set`: found `authorization`, wanted a header's name",
        "`routes[3].targets[0].headers.remove`: found `Host`, wanted a header's name",
        "`routes[5].drain_after_abort`: found `on`, wanted `off`, or bounds",
        "`routes[5].targets[0].parameters.max_output`: found `0`, wanted a whole number of tokens from 1",
        "`routes[4].retry.attempts`: found `0`, wanted a whole number from 1 to 16",
        "`routes[4].retry.on`: found `5x`, wanted `connect`",
        "(did you mean `5xx`?)",
        "`routes[4].retry.on`: found `399`, wanted",
        "`routes[4].retry.budget`: found `101%`, wanted a share",
        "`routes[4].retry.back_off.most`: found `1s`, wanted no less than `first`, which is 2s",
    ] {
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
}

#[test]
fn routes_and_targets_must_fit_each_other() {
    let folder = Folder::new();
    let told = folder.told(&with_routed(
        "  - { name: a, path: /a, targets: [{ provider: openai }, { provider: azure }, { provider: openai }] }
  - { name: b, path: /a, provider: openai }
  - { name: c, path: /c, targets: [{ provider: openai, weight: 0 }] }
  - { name: d, path: /d, dialect: anthropic, provider: nobody }
  - { name: e, path: /e, dialect: ollama, targets: [{ provider: azure }] }
",
    ));
    assert!(!told.iter().any(|line| line.contains("targets[1].provider")), "one API at two places: {told:?}");
    for want in [
        "`routes[4].targets[0].provider`: found `azure`, wanted a provider that speaks `ollama` as the route's callers do: no translation from `ollama` to `azure_openai`",
        "`routes[0].targets[2].name`: found `openai`, wanted another one than `routes[0].targets[0].name` has",
        "`routes[1].path`: found `/a`, wanted another one than `routes[0].path` has, or a `match` there",
        "`routes[2].targets`: wanted a `weight` over 0",
        "`routes[3].provider`: found `nobody`, wanted a configured provider: openai, azure",
    ] {
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
}

#[test]
fn every_key_is_read() {
    let folder = Folder::new();
    let loaded = folder.load(FULL).unwrap();
    assert_eq!(
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().len(),
        1,
        "{:?}",
        loaded.warnings
    );
    let config = &loaded.config;
    assert_eq!(config.evidence.journal, folder.path("journal"));
    assert_eq!(config.evidence.out, Out::Directory(folder.path("store")));
    assert_eq!(config.limits.admission, Duration::from_millis(100));
    assert_eq!(config.providers[0].base_url.to_string(), "https://api.openai.com");
    let drain = Drain { time: Duration::from_secs(20), bytes: 512 << 10 };
    assert_eq!(config.providers[0].drain_after_abort, DrainAfterAbort::Within(drain));
    assert_eq!(config.providers[1].drain_after_abort, DrainAfterAbort::Off);
    assert_eq!(config.routes[0].attributes.cost_centre.as_ref().unwrap().as_str(), "0123");
    assert_eq!(config.routes[0].keys, KeyScope::SubjectDay);
    assert_eq!(config.evidence.encryption, Encryption::On);
    assert_eq!(loaded.credentials["openai"].expose(), OPENAI_KEY);
    assert_eq!(loaded.credentials["azure"].expose(), ANTHROPIC_KEY);
    assert_eq!(*loaded.seal_seed, [1; 32]);
    assert_eq!(*loaded.pseudonym_key, [3; 32]);
    assert!(loaded.tls[0].is_some() && loaded.tls[1].is_none());
    assert_eq!(loaded.provider_cas["openai"].len(), 1);
    assert!(loaded.policy.is_some() && loaded.prices.is_some());
    assert!(loaded.inputs().contains(&folder.path("azure.key")));
    assert_eq!(loaded.keys.authenticate(&folder.gateway_key, i64::MAX).unwrap().consumer.as_str(), "app");
}

/// The names of all properties of a schema, as paths; items of lists as `[]`, of open maps as `*`.
fn properties(schema: &Value, root: &Value, path: &str, out: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return properties(root.pointer(target.trim_start_matches('#')).unwrap(), root, path, out);
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            properties(part, root, path, out);
        }
    }
    if schema["items"].is_object() {
        properties(&schema["items"], root, &format!("{path}[]"), out);
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        out.push(path.clone());
        properties(part, root, &path, out);
    }
}

/// The keys of a document, in the same form.
fn keys_of(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, part) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                out.push(path.clone());
                keys_of(part, &path, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys_of(item, &format!("{path}[]"), out)),
        _ => {}
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list.dedup();
    list
}

/// Every key of `quotas`.
fn with_quotas(place: &str) -> String {
    format!(
        "{FULL}\nquotas:\n  default_output: 1000\n  headers: false\n  store:\n    redis: {{ urls: ['rediss://r1:6380', 'redis://[::1]'], \
         tls: {{ ca: tls.crt, certificate: tls.crt, key: tls.key }}, username: gw, password: {{ {place} }}, database: 3, timeout: 100ms, \
         prefix: acme, lease: 9s, when_down: local }}\n  rules:\n    - {{ name: a, match: {{ routes: ['*'], providers: p, targets: t, \
         models: [gpt*, '!gpt-3*'], operations: [chat.completions], consumers: c, teams: t, organisations: o, groups: g, keys: k }}, by: \
         [consumer, 'header:x-app'], count: tokens, limit: 100, per: 1m, window: sliding, warn_at: [0.95, 0.8], then: observe, message: ask us }}\n    - {{ \
         name: b, expression: 'input + 3*output', limit: 5, per: 1d }}\n    - {{ name: c, by: [], count: money, currency: USD, limit: 12.5, \
         calendar: month, time_zone: Europe/Vienna }}\n    - {{ name: d, count: concurrency, limit: 7 }}\n"
    )
}

/// The same of a cluster and of sentinels.
fn with_quota_store(store: &str) -> String {
    format!("{FULL}\nquotas:\n  store:\n    redis: {{ {store} }}\n")
}

const CLUSTER: &str = "cluster: { nodes: ['redis://c1:7000', 'redis://c2'] }";

fn sentinel(place: &str) -> String {
    format!(
        "sentinel: {{ nodes: ['rediss://s1', 'rediss://s2:5'], master: m, username: u, password: {{ {place} }} }}"
    )
}

#[test]
fn a_cluster_and_sentinels_are_read_and_the_sentinels_password_is_a_fingerprint() {
    let folder = Folder::new();
    std::fs::write(folder.path("sentinel.password"), "very-secret-of-sentinels\n").unwrap();
    let loaded = folder.load(&with_quota_store(CLUSTER)).unwrap();
    let redis = loaded.config.quotas.redis().unwrap();
    assert_eq!((redis.addresses().len(), redis.addresses()[1].port(6379)), (2, 6379));
    let loaded = folder.load(&with_quota_store(&sentinel("file: sentinel.password"))).unwrap();
    assert_eq!(loaded.quota_sentinel.as_ref().unwrap().expose(), "very-secret-of-sentinels");
    assert!(loaded.quota_store.as_ref().unwrap().uses_tls, "roots are needed for the master too");
    assert!(loaded.inputs().contains(&folder.path("sentinel.password")));
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(canonical.contains("\"quotas.store.redis.sentinel.password\":\"hmac-sha256:"), "{canonical}");
    assert!(!canonical.contains("very-secret"), "{canonical}");
    let table = [
        (format!("{CLUSTER}, database: 1"), "database"),
        (format!("{CLUSTER}, urls: ['redis://r']"), "one of `urls`, `cluster` and `sentinel`"),
        (
            format!("{CLUSTER}, {}", sentinel("env: OPENAI_API_KEY")),
            "one of `urls`, `cluster` and `sentinel`",
        ),
        ("timeout: 1s".into(), "one of `urls`, `cluster` and `sentinel`"),
        ("cluster: { nodes: [] }".into(), "cluster.nodes"),
        ("cluster: { nodes: ['redis://a', 'rediss://b'] }".into(), "all `redis://` or all `rediss://`"),
        ("sentinel: { nodes: ['redis://a'] }".into(), "sentinel.master"),
        ("sentinel: { nodes: ['redis://a'], master: 'a b' }".into(), "sentinel.master"),
        ("sentinel: { nodes: ['redis://a'], master: m, password: very-secret }".into(), "sentinel.password"),
    ];
    for (text, wanted) in table {
        let problems = folder.load(&with_quota_store(&text)).unwrap_err();
        let shown = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(shown.contains(wanted) && !shown.contains("very-secret"), "{text}: {shown}");
    }
}

#[test]
fn quotas_are_read_and_their_password_is_a_fingerprint() {
    let folder = Folder::new();
    std::fs::write(folder.path("redis.password"), "very-secret-of-redis\n").unwrap();
    let loaded = folder.load(&with_quotas("file: redis.password")).unwrap();
    let quotas = &loaded.config.quotas;
    let redis = quotas.redis().unwrap();
    assert_eq!((redis.urls[0].tls, redis.urls[0].host(), redis.urls[0].port(6379)), (true, "r1", 6380));
    assert_eq!((redis.urls[1].tls, redis.urls[1].host(), redis.urls[1].port(6379)), (false, "::1", 6379));
    assert_eq!((redis.when_down, redis.database), (WhenDown::Local, 3));
    assert_eq!(quotas.rules[0].by, [CountedBy::Consumer, CountedBy::Header("x-app".into())]);
    assert_eq!(quotas.rules[0].warn_at.iter().map(Ratio::to_string).collect::<Vec<_>>(), ["0.8", "0.95"]);
    assert_eq!(quotas.rules[2].units(), Some(12_500_000_000));
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(canonical.contains("\"quotas.store.redis.password\":\"hmac-sha256:"), "{canonical}");
    assert!(!canonical.contains("very-secret") && canonical.contains("\"rediss://r1:6380\""), "{canonical}");
    for file in ["redis.password", "tls.key", "tls.crt"] {
        assert!(loaded.inputs().contains(&folder.path(file)), "{file}");
    }
    let plain = folder.load(FULL).unwrap();
    assert!(!std::str::from_utf8(&plain.canonical).unwrap().contains("quotas"));
    assert!(plain.changes(&loaded).restart.is_empty());
}

#[test]
fn problems_of_quotas_name_their_key() {
    let folder = Folder::new();
    let rule = |text: &str| format!("{FULL}\nquotas:\n  rules:\n    - {{ name: r, {text} }}\n");
    let table = [
        ("limit: 5, per: 1m", "count"),
        ("count: tokens, expression: input, limit: 5, per: 1m", "count"),
        ("expression: 'input + os.exit()', limit: 5, per: 1m", "expression"),
        ("count: tokens, limit: 5.5, per: 1m", "limit"),
        ("count: tokens, limit: 9007199254740993, per: 1m", "limit"),
        ("count: money, limit: 5, per: 1m", "currency"),
        ("count: money, currency: USD, limit: 0.0000000001, per: 1m", "limit"),
        ("count: tokens, currency: USD, limit: 5, per: 1m", "currency"),
        ("count: tokens, limit: 5", "per"),
        ("count: tokens, limit: 5, per: 1m, calendar: day", "per"),
        ("count: concurrency, limit: 5, per: 1m", "per"),
        ("count: tokens, limit: 5, per: 10ms", "per"),
        ("count: tokens, limit: 5, calendar: day, window: fixed", "window"),
        ("count: tokens, limit: 5, calendar: day, time_zone: Mars/Base", "time_zone"),
        ("count: tokens, limit: 5, per: 1m, time_zone: UTC", "time_zone"),
        ("count: tokens, limit: 5, per: 1m, by: [consumers]", "by"),
        ("count: tokens, limit: 5, per: 1m, by: ['header:Authorization']", "by"),
        ("count: tokens, limit: 5, per: 1m, warn_at: [80]", "warn_at"),
        ("count: tokens, limit: 5, per: 1m, message: \"a\\nb\"", "message"),
        ("count: tokens, limit: 5, per: 1m, match: { model: x }", "match.model"),
        ("count: tokens, limit: 5, per: 1m, match: { models: 'a b' }", "match.models"),
    ];
    for (text, key) in table {
        let problems = folder.load(&rule(text)).unwrap_err();
        let wanted = format!("quotas.rules[0].{key}");
        assert!(problems.iter().any(|problem| problem.to_string().contains(&wanted)), "{text}: {problems:?}");
    }
    let store = |text: &str| format!("{FULL}\nquotas:\n  store: {text}\n");
    for text in [
        "remote",
        "{ redis: { urls: [] } }",
        "{ redis: { urls: ['redis://u:very-secret@h'] } }",
        "{ redis: {} }",
    ] {
        let problems = folder.load(&store(text)).unwrap_err();
        let shown = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(shown.contains("quotas.store") && !shown.contains("very-secret"), "{text}: {shown}");
    }
}

#[test]
fn schema_and_reader_know_the_same_keys() {
    let folder = Folder::new();
    folder.load(FULL).unwrap();
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut in_schema = Vec::new();
    properties(&schema, &schema, "", &mut in_schema);
    let bucket = with_out(
        "  registry: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n  out:\n    s3: { bucket: abc, prefix: p, region: r, endpoint: \
         'http://127.0.0.1:9', path_style: true, sse: kms, kms_key: k, mode: compliance, legal_hold: false, without_lock: refuse, timeout: 1m, \
         retention: { records: 1d, content: 1d, classes: { legal: 9d } } }",
    );
    let archived = "{ s3: { bucket: abc, prefix: p, region: r, endpoint: 'http://127.0.0.1:9', path_style: true, timeout: 1m } }";
    let topic = |secret: &str, archive: &str| {
        with_out(&format!(
            "  out:\n    kafka: {{ brokers: ['k:1'], topic: a, receipts: b, {ARCHIVERS}, tls: {{ ca: tls.crt, certificate: \
             tls.crt, key: tls.key }}, sasl: {{ mechanism: plain, user: u, secret: {{ {secret} }} }}, create: {{ partitions: 1, \
             replication: 1 }}, archive: {archive}, confirm: object, outage: 1d, reship_after: 1m, timeout: 1m }}",
        ))
    };
    let topics = [topic("env: OPENAI_API_KEY", archived), topic("file: azure.key", "{ directory: archive }")];
    let commit = |secret: &str, key: &str| {
        with_out(&format!(
            "  out: {{ directory: store }}\n  commit:\n    kafka: {{ brokers: ['k:1'], topic: c, lease: 5s, secret: {{ {key} }}, tls: {{ ca: tls.crt, \
             certificate: tls.crt, key: tls.key }}, sasl: {{ mechanism: plain, user: u, secret: {{ {secret} }} }}, create: {{ \
             partitions: 3, replication: 1 }}, outage: 1d, timeout: 1m }}",
        ))
    };
    let commits = [
        commit("env: OPENAI_API_KEY", "env: COMMIT_SECRET"),
        commit("file: azure.key", "file: commit.secret"),
    ];
    let mut in_file = Vec::new();
    let taps = [with_tap("env: OPENAI_API_KEY"), with_tap("file: azure.key")];
    let known =
        FULL.replacen("    ask_usage", "    kind: openai\n    key_header: authorization\n    ask_usage", 1);
    let signed = [with_aws("env: OPENAI_API_KEY"), with_aws("file: azure.key")];
    let otlp = with_otlp("env: OPENAI_API_KEY");
    let routed = with_routed(ROUTED);
    let counted = [
        with_quotas("env: OPENAI_API_KEY"),
        with_quotas("file: azure.key"),
        with_quota_store(CLUSTER),
        with_quota_store(&sentinel("env: OPENAI_API_KEY")),
        with_quota_store(&sentinel("file: azure.key")),
    ];
    let balanced = [with_balance("env: OPENAI_API_KEY"), with_balance("file: azure.key")];
    service_account(&folder);
    std::fs::write(folder.path("way.secret"), "user:secret").unwrap();
    let account = std::fs::read_to_string(folder.path("account.json")).unwrap();
    let upstream = [
        with_upstream("env: WAY_SECRET", "env: ACCOUNT"),
        with_upstream("file: way.secret", "file: account.json"),
    ];
    let texts = [
        FULL,
        &routed,
        &known,
        &bucket,
        &topics[0],
        &topics[1],
        &commits[0],
        &commits[1],
        &taps[0],
        &taps[1],
        &otlp,
    ];
    let identities = [
        with_identity("token: { env: OPENAI_API_KEY }"),
        with_identity("token: { file: azure.key }"),
        with_identity("kubernetes: { role: r, token: azure.key, mount: k }"),
        with_identity(
            "approle: { role_id: { env: OPENAI_API_KEY }, secret_id: { file: azure.key }, mount: a }",
        ),
        with_identity("approle: { role_id: { file: azure.key }, secret_id: { env: OPENAI_API_KEY } }"),
    ];
    let more = signed.iter().chain(&upstream).chain(&balanced).chain(&counted).chain(&identities);
    for text in texts.into_iter().chain(more.map(String::as_str)) {
        std::fs::write(folder.path("gateway.yaml"), text).unwrap();
        load_with(&folder.path("gateway.yaml"), &|name| match name {
            "COMMIT_SECRET" => Some(commit_secret()),
            "WAY_SECRET" => Some("user:secret".into()),
            "ACCOUNT" => Some(account.clone()),
            _ => Some(OPENAI_KEY.into()),
        })
        .unwrap();
        let typed: Value = serde_saphyr::from_str(text).unwrap();
        keys_of(&typed, "", &mut in_file);
    }
    let open = |key: &String| {
        [
            ".asserted_headers.",
            ".active.headers.",
            ".classes.",
            ".otlp.headers.",
            ".otlp.resource.",
            ".claims.",
            ".jwt[].require.",
            ".match.headers.",
            ".models.",
            ".parameters.defaults.",
            ".parameters.forced.",
            ".headers.set.",
        ]
        .iter()
        .all(|map| !key.contains(map))
    };
    // Wherever a secret may be: read by a test of its own.
    let closed = |key: &String| !key.ends_with(".vault") && !key.contains(".vault.");
    let in_schema = in_schema.into_iter().filter(closed).collect();
    assert_eq!(sorted(in_file.into_iter().filter(open).collect()), sorted(in_schema));
}

#[test]
fn the_schema_in_the_repository_is_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/config.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, json_schema()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == json_schema(), "run the test once with UPDATE=1 and look at the difference");
}

#[test]
fn no_secret_is_in_the_configuration_of_record_or_in_debug() {
    let folder = Folder::new();
    let loaded = folder.load(FULL).unwrap();
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    let shown = format!("{loaded:?} {:?} {:?} {canonical}", loaded.config, loaded.credentials);
    let digest = loaded.keys.entries().next().unwrap().sha256.to_string();
    let tls_key = std::fs::read_to_string(folder.path("tls.key")).unwrap();
    let tls_key = tls_key.lines().nth(1).unwrap();
    for secret in [OPENAI_KEY, ANTHROPIC_KEY, &folder.gateway_key, &digest, tls_key, &hex::encode([1; 32])] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let value: Value = serde_json::from_str(canonical).unwrap();
    assert_eq!(value["form"], "affidavit/config/v1");
    assert_eq!(value["keys"][0]["consumer"], "app");
    assert_eq!(value["config"]["limits"]["body"], "16MiB");
    let drains = [0, 1].map(|at| &value["config"]["providers"][at]["drain_after_abort"]);
    assert_eq!(drains, [&serde_json::json!({ "time": "20s", "bytes": "512KiB" }), &Value::from("off")]);
    for secret in ["credential/openai", "credential/azure", "listen[0].tls.key"] {
        assert!(value["secrets"][secret].as_str().unwrap().starts_with("hmac-sha256:"), "{secret}");
    }
    assert_eq!(value["files"]["policy"]["sha256"], loaded.policy.as_ref().unwrap().hash().to_string());
    assert_eq!(loaded.hash, schemas::Sha256Hex::of(&loaded.canonical));
    assert_eq!(folder.load(FULL).unwrap().canonical, loaded.canonical);
}

#[test]
fn what_changes_is_told_with_what_needs_a_restart() {
    let folder = Folder::new();
    let old = folder.load(FULL).unwrap();
    assert_eq!(old.changes(&folder.load(FULL).unwrap()), Changes::default());
    let table: [(&str, &str, &[&str], &[&str]); 8] = [
        ("receipts: true\n", "receipts: true\n    estimate: off\n", &[], &["config.routes[0].estimate"]),
        ("body: 16MiB", "body: 17MiB", &[], &["config.limits.body"]),
        ("connections: 200", "connections: 201", &["limits.connections"], &[]),
        ("gateway: gw1", "gateway: gw2", &["gateway"], &[]),
        ("batch_age: 2s", "batch_age: 3s", &["evidence.batch_age"], &[]),
        ("path: /openai", "path: /oai", &[], &["config.routes[0].path"]),
        ("127.0.0.1:8443", "127.0.0.1:8444", &["listen[0].address"], &[]),
        ("ask_usage: false", "ask_usage: true", &[], &["config.providers[0].ask_usage"]),
    ];
    for (from, to, restart, live) in table {
        let new = folder.load(&FULL.replacen(from, to, 1)).unwrap();
        assert_ne!(new.hash, old.hash, "{to}");
        assert_eq!(old.restart_keys(&new), restart, "{to}");
        assert_eq!(old.changes(&new).live, live, "{to}");
    }
    std::fs::write(folder.path("azure.key"), "another-key").unwrap();
    assert_eq!(old.changes(&folder.load(FULL).unwrap()).live, ["secrets.credential/azure"]);
    std::fs::write(folder.path("policy.yaml"), "mode: enforce\ndefault: allow\n").unwrap();
    let new = folder.load(FULL).unwrap();
    assert!(old.changes(&new).live.contains(&"files.policy.sha256".to_owned()));
    std::fs::write(folder.path("seal.key"), secrets::seal_key_text(&[9; 32], &[2; 32], "x").as_bytes())
        .unwrap();
    assert!(old.restart_keys(&folder.load(FULL).unwrap()).contains(&"evidence.seal_key".to_owned()));
}

#[test]
fn a_known_provider_needs_no_more_than_its_kind_and_what_is_typed_counts() {
    let folder = Folder::new();
    let typed = "  - { name: g, kind: gemini }\n  - { name: q, kind: groq, base_url: https://groq.test, price_as: own }\n  \
        - { name: v, kind: vertex, base_url: https://us-central1-aiplatform.googleapis.com, key_header: x-goog-api-key }\n  \
        - { name: f, kind: azure_foundry, base_url: https://f.test, dialect: anthropic }\nroutes:";
    let loaded = folder.load(&FULL.replacen("routes:", typed, 1)).unwrap();
    let found: Vec<_> = loaded.config.providers[2..]
        .iter()
        .map(|p| (p.dialect, p.base_url.to_string(), p.key_header, p.price_name().to_owned()))
        .collect();
    let row = |dialect, url: &str, header, price: &str| (dialect, url.to_owned(), header, price.to_owned());
    let wanted = [
        row(Dialect::Gemini, "https://generativelanguage.googleapis.com", None, "gemini"),
        row(Dialect::OpenAi, "https://groq.test", None, "own"),
        row(
            Dialect::Vertex,
            "https://us-central1-aiplatform.googleapis.com",
            Some(KeyHeader::XGoogApiKey),
            "vertex",
        ),
        row(Dialect::Anthropic, "https://f.test", Some(KeyHeader::ApiKey), "azure_foundry"),
    ];
    assert_eq!(found, wanted);
    let told = folder.told(&FULL.replacen(
        "routes:",
        "  - { name: v, kind: vertex }\n  - { name: m, kind: mistrall }\n  - { name: n }\nroutes:",
        1,
    ));
    for want in [
        "`providers[2].base_url`: wanted `http://` or `https://`",
        "`providers[3].kind`: found `mistrall`, wanted one of `openai`, `azure_openai`",
        "(did you mean `mistral`?)",
        "`providers[4].dialect`: wanted one of `openai`, `azure_openai`, `anthropic`, `gemini`",
        "`providers[4].base_url`: wanted `http://` or `https://`",
    ] {
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
}

#[test]
fn a_chat_is_bounded_by_the_word_of_the_kind_of_the_host_or_of_what_is_typed() {
    let folder = Folder::new();
    let rows = [
        ("{ name: a, kind: openai, base_url: https://a.test }", ChatBound::MaxCompletionTokens),
        ("{ name: b, kind: mistral }", ChatBound::MaxTokens),
        ("{ name: c, kind: deepseek, max_output_as: max_completion_tokens }", ChatBound::MaxCompletionTokens),
        ("{ name: d, dialect: openai, base_url: https://eu.api.openai.com }", ChatBound::MaxCompletionTokens),
        ("{ name: e, dialect: openai, base_url: https://api.openai.com.test }", ChatBound::MaxTokens),
        ("{ name: f, dialect: openai, base_url: https://f.test, price_as: openai }", ChatBound::MaxTokens),
        ("{ name: groq, dialect: openai, base_url: https://h.test }", ChatBound::MaxTokens),
        ("{ name: g, dialect: azure_openai, base_url: https://g.test }", ChatBound::MaxCompletionTokens),
    ];
    let typed: String = rows.iter().map(|(row, _)| format!("  - {row}\n")).collect();
    let loaded = folder.load(&FULL.replacen("routes:", &format!("{typed}routes:"), 1)).unwrap();
    for ((row, wanted), provider) in rows.iter().zip(&loaded.config.providers[2..]) {
        assert_eq!(provider.chat_bound(), *wanted, "{row}");
    }
    let odd = "  - { name: h, kind: vllm, max_output_as: max_token }\nroutes:";
    let told = folder.told(&FULL.replacen("routes:", odd, 1)).join("\n");
    let want = "max_output_as`: found `max_token`, wanted one of `max_completion_tokens`, `max_tokens`";
    assert!(told.contains(want), "{told}");
}

#[test]
fn all_problems_are_told_at_once_with_line_key_value_form_and_suggestion() {
    let folder = Folder::new();
    std::fs::write(folder.path("bad-policy.yaml"), "mode: enforce\ndefault: maybe\n").unwrap();
    let told = folder.told(
        "\
deployment: Acme Inc
gateway: gw1
listen:
  - address: localhost:8080
    tls: { certificate: nowhere.crt, key: tls.key }
evidense: {}
evidence:
  journal: data
  spool: data/spool
  key_table: store/keys
  seal_key: policy.yaml
  out: { directory: store, bucket: x }
  heartbeat: 5 minutes
  encryption: yes
limits: { body: 64, drain: 2d, concurent: 5 }
providers:
  - { name: openai, dialect: opena, base_url: api.openai.com, drain_after_abort: never }
  - { name: b, dialect: openai, base_url: https://b.test, drain_after_abort: { time: 2h, byte: 1MiB } }
routes:
  - { name: a, path: openai, provider: openai }
keys: keys.yaml
policy: bad-policy.yaml
prices: nowhere.csv
",
    );
    for want in [
        "gateway.yaml:1:13: `deployment`: found `Acme Inc`, wanted a name `[a-z0-9][a-z0-9.-]{0,62}`",
        "gateway.yaml:4:14: `listen[0].address`: found `localhost:8080`, wanted an address and port as \
         `127.0.0.1:8080` or `[::]:8080`",
        "(did you mean `evidence`?)",
        "gateway.yaml:12:28: `evidence.out.bucket`: wanted a known key: directory",
        "`evidence.heartbeat`: found `5 minutes`, wanted a duration as `500ms`, `10s`, `5m`, `2h` or `1d`, from 1s to 1d",
        "`evidence.encryption`: found `yes`, wanted one of `on`, `off`",
        "`limits.body`: found `64`, wanted a size as",
        "`limits.drain`: found `2d`, wanted a duration",
        "`limits.concurent`: wanted a known key",
        "(did you mean `concurrent`?)",
        "`providers[0].dialect`: found `opena`, wanted one of `openai`, `azure_openai`, `anthropic`, `gemini`, `vertex`, `cohere`, `ollama`, `watsonx`, `bedrock` (did you mean `openai`?)",
        "`providers[0].base_url`: found `api.openai.com`, wanted `http://` or `https://`",
        "`providers[0].drain_after_abort`: found `never`, wanted `off`, or bounds as `{time: 30s, bytes: 1MiB}`",
        "`providers[1].drain_after_abort.time`: found `2h`, wanted a duration",
        "(did you mean `bytes`?)",
        "`routes[0].path`: found `openai`, wanted a path as `/openai`",
        "bad-policy.yaml:2:10: `default`: found `maybe`, wanted one of `allow`, `deny`",
        "`prices`: found `nowhere.csv`, wanted a file that can be read",
    ] {
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
    assert!(told.iter().all(|line| line.contains(".yaml:")), "{told:?}");
}

#[test]
fn problems_between_keys_and_in_files_are_told_at_once() {
    let folder = Folder::new();
    std::fs::write(folder.path("bad.yaml"), "mode: enforce\ndefault: maybe\n").unwrap();
    std::fs::write(folder.path("bad.csv"), "id\n").unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path("other.key"), other.signing_key.serialize_pem()).unwrap();
    let yaml = FULL
        .replacen("spool: spool", "spool: journal/spool", 1)
        .replacen("seal_key: seal.key", "seal_key: policy.yaml", 1)
        .replacen("pseudonym_key: pseudonym.key", "pseudonym_key: nowhere.key", 1)
        .replacen("key: tls.key", "key: other.key", 1)
        .replacen("ca: tls.crt\n    ask", "ca: policy.yaml\n    ask", 1)
        .replacen("provider: azure", "provider: azur", 1)
        .replacen("env: OPENAI_API_KEY", "env: OPENAI_KEY", 1)
        .replacen("policy: policy.yaml", "policy: bad.yaml", 1)
        .replacen("prices: prices.csv", "prices: bad.csv", 1)
        .replacen("name: all,", "name: openai,", 1)
        .replacen("spool_bound: 1GiB", "spool_bound: 63MiB", 1)
        .replacen("gateway: gw1", &format!("gateway: {}", "g".repeat(63)), 1)
        .replacen("deployment: acme", "deployment: acme-of-many-letters-1", 1);
    let told = folder.told(&yaml);
    for want in [
        "gateway.yaml:11:10: `evidence.spool`: found `journal/spool`, wanted a folder apart from `evidence.journal`",
        "`evidence.seal_key`: wanted an Ed25519 key in PKCS#8 PEM",
        "`evidence.pseudonym_key`: found `nowhere.key`, wanted a file that can be read",
        "`listen[0].tls.key`: wanted the private key of `listen[0].tls.certificate`",
        "`providers[0].ca`: wanted a PEM file with at least one certificate",
        "`routes[1].provider`: found `azur`, wanted a configured provider: openai, azure (did you mean `azure`?)",
        "`providers[0].credential.env`: wanted an environment variable `OPENAI_KEY` that is set",
        "bad.yaml:2:10: `default`: found `maybe`, wanted one of `allow`, `deny`",
        "bad.csv:1:1: `provider`: wanted this column in the header",
        "`routes[1].name`: found `openai`, wanted another one than `routes[0].name` has",
        "`evidence.spool_bound`: found `63MiB`, wanted at least twice `evidence.batch_size`",
        "wanted `deployment` and `gateway` of at most 83 characters together",
    ] {
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
}

#[test]
fn receipts_need_a_promise_key_of_their_own_outside_of_the_store() {
    let folder = Folder::new();
    let loaded = folder.load(FULL).unwrap();
    assert_eq!(loaded.promise_seed.as_deref(), Some(&[4; 32]));
    assert!(loaded.config.routes[0].receipts && !loaded.config.routes[1].receipts);
    for (from, to, want) in [
        (
            "  promise_key: promise.key\n",
            "",
            "`routes[0].receipts`: found `true`, wanted `evidence.promise_key` as well",
        ),
        ("promise.key", "seal.key", "`evidence.promise_key`: wanted another key than `evidence.seal_key`"),
        (
            "promise.key",
            "nowhere.key",
            "`evidence.promise_key`: found `nowhere.key`, wanted a file that can be read",
        ),
        ("promise.key", "store/promise.key", "wanted a file outside of the evidence store"),
        ("receipts: true", "receipts: maybe", "`routes[0].receipts`: found `maybe`"),
    ] {
        let told = folder.told(&FULL.replacen(from, to, 1));
        assert!(told.iter().any(|line| line.contains(want)), "{want}\nis not in\n{}", told.join("\n"));
    }
    let without = folder.load(&FULL.replacen("    receipts: true\n", "", 1)).unwrap();
    assert_eq!(loaded.changes(&without).live, ["config.routes[0].receipts"]);
    std::fs::write(folder.path("promise.key"), secrets::seal_key_text(&[9; 32], &[2; 32], "x").as_bytes())
        .unwrap();
    assert_eq!(loaded.restart_keys(&folder.load(FULL).unwrap()), ["evidence.promise_key"]);
}

#[test]
fn a_key_typed_into_the_wrong_place_is_not_shown() {
    let folder = Folder::new();
    for credential in [
        "sk-typed-here",
        "{ env: sk-typed-here }",
        "{ env: sk_typed_here }",
        "{ file: sk-typed-here }",
        "{ key: sk-typed-here }",
        "[sk-typed-here]",
    ] {
        let told = folder.told(&FULL.replacen("{ env: OPENAI_API_KEY }", credential, 1)).join("\n");
        assert!(!told.contains("typed"), "{credential}: {told}");
        assert!(told.contains("providers[0].credential"), "{credential}: {told}");
    }
}

#[test]
fn a_missing_file_and_an_empty_one_are_problems() {
    let folder = Folder::new();
    let missing = load(&folder.path("nowhere.yaml")).unwrap_err();
    assert!(missing[0].to_string().contains("nowhere.yaml: wanted a file that can be read"), "{missing:?}");
    let told = folder.told("");
    assert_eq!(told.len(), 7, "{told:?}");
}

#[test]
fn the_keys_file_is_found_in_a_broken_configuration() {
    let folder = Folder::new();
    let path = folder.path("gateway.yaml");
    std::fs::write(&path, "keys: here/keys.yaml\nbroken: [\n  1]\n").unwrap();
    assert_eq!(keys_path(&path).unwrap(), folder.path("here/keys.yaml"));
    std::fs::write(&path, "kees: 1").unwrap();
    assert!(keys_path(&path).is_err());
}

/// A service account's key file as Google makes it, with the key of the repository's tests.
fn service_account(folder: &Folder) {
    let file = serde_json::json!({ "type": "service_account", "project_id": "p", "private_key_id": "0123abcd",
        "private_key": include_str!("../../testdata/service-account.pem"), "client_email": "gw@p.iam.gserviceaccount.com",
        "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token" });
    std::fs::write(folder.path("account.json"), file.to_string()).unwrap();
}

/// With every key of the way to a provider; `secret` is where all of its secrets are.
fn with_upstream(secret: &str, account: &str) -> String {
    let providers = format!(
        "  - {{ name: vertex, dialect: vertex, base_url: 'https://us-central1-aiplatform.googleapis.com', google: {{ service_account: {{ {account} }}, \
         scope: a b, ca: tls.crt }}, client_certificate: {{ certificate: tls.crt, key: tls.key }}, upstream_proxy: {{ url: 'https://proxy.test:3129', \
         credential: {{ {secret} }}, no_proxy: [.internal, 10.0.0.0/8, '*'], ca: tls.crt }} }}\n  \
         - {{ name: gemini, kind: gemini, google: {{ metadata: true }}, upstream_proxy: off }}\n  \
         - {{ name: entra, dialect: azure_openai, base_url: 'https://a.test', oauth: {{ token_url: 'https://login.test/t/oauth2/v2.0/token', \
         client_id: c, client_secret: {{ {secret} }}, scope: s, ca: tls.crt }} }}\n  \
         - {{ name: federated, dialect: azure_openai, base_url: 'https://a.test', oauth: {{ token_url: 'https://login.test/t', client_id: c, \
         client_assertion: {{ {secret} }} }}, upstream_proxy: environment }}\n  \
         - {{ name: watsonx, dialect: watsonx, base_url: 'https://w.test', oauth: {{ token_url: 'https://iam.test/identity/token', api_key: {{ {secret} }} }} }}\n\
         upstream_proxy: {{ url: 'http://127.0.0.1:3128', credential: {{ {secret} }}, no_proxy: [example.com], ca: tls.crt }}\nroutes:\n"
    );
    FULL.replacen("routes:\n", &providers, 1)
}

#[test]
fn the_way_to_a_provider_is_read_and_none_of_its_secrets_is_shown() {
    let folder = Folder::new();
    service_account(&folder);
    std::fs::write(folder.path("way.secret"), "user:hunter2\n").unwrap();
    let loaded = folder.load(&with_upstream("file: way.secret", "file: account.json")).unwrap();
    let way = |name: &str| &loaded.upstreams[name];
    let rules = |name: &str| way(name).proxy.as_ref().unwrap();
    assert_eq!(rules("vertex").https.as_str(), "https://proxy.test:3129");
    assert_eq!(rules("vertex").no, ".internal,10.0.0.0/8,*");
    // `user:hunter2`
    assert_eq!(rules("vertex").authorization.as_ref().unwrap().expose(), "Basic dXNlcjpodW50ZXIy");
    assert!(way("gemini").proxy.is_none());
    assert_eq!(rules("openai").http.as_str(), "http://127.0.0.1:3128");
    assert_eq!(rules("federated").https.as_str(), "");
    assert!(way("vertex").client.is_some() && way("openai").client.is_none());
    let tokens = |name: &str| way(name).tokens.as_ref().unwrap();
    assert_eq!(tokens("vertex").url.to_string(), "https://oauth2.googleapis.com/token");
    assert_eq!(
        tokens("gemini").url.to_string(),
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
    );
    assert_eq!(tokens("gemini").scope.as_deref(), Some("https://www.googleapis.com/auth/cloud-platform"));
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    for label in [
        "vertex/upstream_proxy.credential",
        "vertex/client_certificate.key",
        "vertex/google.service_account",
        "entra/oauth.client_secret",
        "federated/oauth.client_assertion",
        "watsonx/oauth.api_key",
    ] {
        assert!(canonical.contains(&format!("\"upstream/{label}\":\"hmac-sha256:")), "{label}: {canonical}");
    }
    let shown = format!("{loaded:?} {:?} {:?} {canonical}", loaded.config, loaded.upstreams);
    let pem = include_str!("../../testdata/service-account.pem");
    for secret in ["hunter2", "dXNlcjpodW50ZXIy", pem.lines().nth(1).unwrap()] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    for file in ["way.secret", "account.json", "tls.key", "tls.crt"] {
        assert!(loaded.inputs().contains(&folder.path(file)), "{file}");
    }
    // A new password takes effect without a restart.
    std::fs::write(folder.path("way.secret"), "user:hunter3\n").unwrap();
    let next = folder.load(&with_upstream("file: way.secret", "file: account.json")).unwrap();
    assert!(!loaded.changes(&next).live.is_empty() && loaded.restart_keys(&next).is_empty());
}

#[test]
fn a_way_to_a_provider_that_cannot_be_meant_is_told_and_its_secrets_are_not() {
    let folder = Folder::new();
    service_account(&folder);
    std::fs::write(folder.path("way.secret"), "user:hunter2\n").unwrap();
    std::fs::write(folder.path("no.secret"), "hunter2\n").unwrap();
    let provider = |rest: &str| {
        let item = format!("  - {{ name: x, base_url: 'https://x.test', {rest} }}\nroutes:\n");
        FULL.replacen("routes:\n", &item, 1)
    };
    for (rest, key, wanted) in [
        ("dialect: openai, google: { metadata: true }", "google", "only the dialects `vertex` and `gemini`"),
        (
            "dialect: vertex, google: { metadata: false }",
            "google",
            "one of `service_account` and `metadata: true`",
        ),
        (
            "dialect: vertex, google: { metadata: true }, credential: { env: OPENAI_API_KEY }",
            "google",
            "one of `credential`, `aws`",
        ),
        (
            "dialect: vertex, google: { service_account: { file: way.secret } }",
            "google.service_account",
            "a service account's key file",
        ),
        (
            "dialect: openai, oauth: { token_url: 'https://t.test', client_id: c }",
            "oauth",
            "one of `client_secret` and `client_assertion`",
        ),
        (
            "dialect: openai, oauth: { token_url: 'https://u:hunter2@t.test', api_key: { file: way.secret } }",
            "oauth.token_url",
            "without user",
        ),
        (
            "dialect: openai, upstream_proxy: 'http://u:hunter2@p.test:1'",
            "upstream_proxy",
            "`off`, `environment`, or a proxy",
        ),
        (
            "dialect: openai, upstream_proxy: { url: 'http://p.test:1/path' }",
            "upstream_proxy.url",
            "without user, path",
        ),
        (
            "dialect: openai, upstream_proxy: { url: 'http://p.test:1', no_proxy: ['10.0.0.0/99'] }",
            "upstream_proxy.no_proxy",
            "a network as",
        ),
        (
            "dialect: openai, upstream_proxy: { url: 'http://p.test:1', credential: { file: no.secret } }",
            "upstream_proxy.credential.file",
            "`user:password`",
        ),
        (
            "dialect: openai, client_certificate: { certificate: tls.crt, key: seal.key }",
            "client_certificate.key",
            "the private key of its `certificate`",
        ),
    ] {
        let problems = folder.load(&provider(rest)).unwrap_err();
        let told = problems.iter().map(|problem| format!("{problem}\n")).collect::<String>();
        assert!(told.contains(&format!("providers[2].{key}")) && told.contains(wanted), "{rest}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn the_environments_proxy_counts_only_where_it_is_asked_for() {
    let folder = Folder::new();
    let load = |text: &str, environment: &[(&str, &str)]| {
        std::fs::write(folder.path("gateway.yaml"), text).unwrap();
        load_with(&folder.path("gateway.yaml"), &|name| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .or((name == "OPENAI_API_KEY").then(|| OPENAI_KEY.into()))
        })
    };
    let variables = [
        ("HTTPS_PROXY", "http://upper:1"),
        ("https_proxy", "http://u:hunter2@lower:2"),
        ("ALL_PROXY", "http://all:3"),
        ("NO_PROXY", "localhost"),
    ];
    assert!(load(FULL, &variables).unwrap().upstreams["openai"].proxy.is_none());
    let asked = FULL.replacen("routes:\n", "upstream_proxy: environment\nroutes:\n", 1);
    let loaded = load(&asked, &variables).unwrap();
    let rules = loaded.upstreams["openai"].proxy.as_ref().unwrap();
    assert_eq!((rules.https.as_str(), rules.http.as_str()), ("http://u:hunter2@lower:2", "http://all:3"));
    assert_eq!(rules.no, "localhost");
    let canonical = std::str::from_utf8(&loaded.canonical).unwrap();
    assert!(!canonical.contains("hunter2") && !format!("{:?}", loaded.upstreams).contains("hunter2"));
    let problems = load(&asked, &[("HTTPS_PROXY", "socks5://u:hunter2@a:1")]).unwrap_err();
    let told = problems[0].to_string();
    assert!(
        told.contains("upstream_proxy") && told.contains("`HTTPS_PROXY`") && !told.contains("hunter2"),
        "{told}"
    );
}

#[test]
fn a_provider_of_kind_bedrock_loads_with_a_key_and_with_an_access_key() {
    let folder = Folder::new();
    let at = "base_url: 'https://bedrock-runtime.eu-central-1.amazonaws.com'";
    for secret in [
        "credential: { env: OPENAI_API_KEY }",
        "aws: { region: eu-central-1, access_key_id: { env: OPENAI_API_KEY }, secret_access_key: { file: azure.key } }",
    ] {
        let item = format!("  - {{ name: bedrock, kind: bedrock, {at}, {secret} }}\nroutes:\n");
        let loaded = folder.load(&FULL.replacen("routes:\n", &item, 1)).unwrap();
        let provider = &loaded.config.providers[2];
        assert_eq!((provider.dialect, provider.price_name()), (Dialect::Bedrock, "bedrock"));
    }
    // Each region has an address of its own.
    let item = "  - { name: bedrock, kind: bedrock, credential: { env: OPENAI_API_KEY } }\nroutes:\n";
    let problems = folder.load(&FULL.replacen("routes:\n", item, 1)).unwrap_err();
    assert!(problems[0].to_string().contains("providers[2].base_url"), "{}", problems[0]);
}
