//! The configuration as a whole: from files to `Loaded`, and what must never come out of it.

use std::path::{Path, PathBuf};

use serde_json::Value;

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
    price_as: openai
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

fn commit_secret() -> String {
    secrets::commit_secret_text(&[4; 32]).lines().last().unwrap().to_owned()
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
    let texts =
        [FULL, &known, &bucket, &topics[0], &topics[1], &commits[0], &commits[1], &taps[0], &taps[1], &otlp];
    for text in texts.into_iter().chain(signed.iter().map(String::as_str)) {
        folder.load(text).unwrap();
        let typed: Value = serde_saphyr::from_str(text).unwrap();
        keys_of(&typed, "", &mut in_file);
    }
    let open = |key: &String| {
        [".asserted_headers.", ".classes.", ".otlp.headers.", ".otlp.resource."]
            .iter()
            .all(|map| !key.contains(map))
    };
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
    let table: [(&str, &str, &[&str], &[&str]); 7] = [
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
