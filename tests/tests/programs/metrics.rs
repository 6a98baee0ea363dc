//! What the processes show is what `deploy/METRICS.md` says, alerts are on what there is, and each leads to a section.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tests::archiver::without_brokers;
use tests::client::{Call, Leave, send, send_until};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::metrics::{Shapes, documented, shown};
use tests::process::{free_port, http};
use tests::provider::Provider;
use tests::runbook::sections;
use tests::witness::Witness;

/// Everything is shown that a table says, with its type and labels, and nothing else. What only some deployments show has a
/// table, and a test, of its own.
fn agree(part: &str, shown: &Shapes) {
    let tables = documented();
    let table = tables.get(part).expect("a table");
    for (name, shape) in shown {
        assert_eq!(table.get(name), Some(shape), "{name} of {part} is not in METRICS.md as it is shown");
    }
    let missing: Vec<_> = table.keys().filter(|name| !shown.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{part} does not show {missing:?}");
}

/// A certificate for a second listener.
fn with_tls(gateway: &Gateway) {
    let path = gateway.dir.join("gateway.yaml");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (gateway.dir.join("tls.crt"), gateway.dir.join("tls.key"));
    std::fs::write(&cert, made.cert.pem()).expect("the certificate");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("its key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let listen = format!(
        "listen:\n  - address: {}\n    tls: {{ certificate: {}, key: {} }}\n",
        free_port(),
        cert.display(),
        key.display()
    );
    std::fs::write(path, config.replacen("listen:\n", &listen, 1)).expect("the configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_shows_what_is_documented() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let policy = dir.path().join("policy.yaml");
    let rest = format!(
        "policy: {}\nquotas:\n  rules:\n    - {{ name: many, count: requests, limit: 1000, per: 1d, warn_at: [0.001] }}\n",
        policy.display()
    );
    let setup = Setup { provider: provider.url(), rest, ..Setup::default() };
    let mut gateway = Gateway::prepare(dir.path(), &setup);
    std::fs::write(policy, "mode: observe\ndefault: allow\nrules: []\n").expect("a policy");
    with_tls(&gateway);
    gateway.serve();
    let call = |body: &str| Call::post("/openai/v1/chat/completions", &gateway.key, body.to_owned());
    let plain = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x"}]}"#;
    let stream = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(send(gateway.address, &call(plain)).await.status, 200);
    assert_eq!(send(gateway.address, &call(stream)).await.status, 200);
    let refused =
        send(gateway.address, &Call::post("/openai/v1/chat/completions", "afk_nobody", plain)).await;
    assert_eq!(refused.status, 401);
    let leave = Leave { after_bytes: Some(1), after_silence: Some(Duration::from_secs(5)) };
    send_until(gateway.address, &call(stream), leave).await;
    // What is no HTTP is a failure below it.
    let mut socket = TcpStream::connect(gateway.address).expect("a connection");
    socket.write_all(b"\x16\x03\x01 no http\r\n\r\n").expect("bytes");
    let begun = std::time::Instant::now();
    let text = loop {
        let text = gateway.admin_get("/metrics").expect("metrics");
        if text.contains("gateway_failures_total") || begun.elapsed() > Duration::from_secs(20) {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    agree("gateway", &shown(&text));
    assert!(text.contains("gateway_phase{state=\"serving\"} 1"), "{text}");
    assert!(text.contains("gateway_evidence_unavailable{reason=\"disk_full\"} 0"), "{text}");
    assert!(text.contains("gateway_reloads_total{result=\"refused\"} 0"), "{text}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_not_reached_is_no_exchange_whose_usage_is_unknown() {
    let dir = tempfile::tempdir().expect("a folder");
    // Nobody listens there.
    let provider = format!("http://{}", free_port());
    let mut gateway = Gateway::start(dir.path(), &Setup { provider, ..Setup::default() });
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"x"}]}"#;
    let call = Call::post("/openai/v1/chat/completions", &gateway.key, body.to_owned());
    assert_eq!(send(gateway.address, &call).await.status, 502);
    let text = gateway.admin_get("/metrics").expect("metrics");
    let unreached = "gateway_exchanges_total{route=\"openai\",end=\"unreachable\",status=\"5xx\"} 1";
    assert!(text.contains(unreached), "{text}");
    assert!(text.contains("gateway_unpriced_exchanges_total{reason=\"no_usage\"} 0"), "{text}");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sinks_of_a_tap_show_what_is_documented() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    // Nobody listens there.
    let tap = format!("  tap: [ {{ name: siem, webhook: {{ url: \"http://{}/\" }} }} ]\n", free_port());
    let mut gateway =
        Gateway::start(dir.path(), &Setup { provider: provider.url(), evidence: tap, ..Setup::default() });
    let begun = std::time::Instant::now();
    let text = loop {
        let text = gateway.admin_get("/metrics").expect("metrics");
        if text.contains("gateway_tap_errors_total{") {
            break text;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{text}\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let of_sinks = |name: &str| name.starts_with("gateway_tap_") && name != "gateway_tap_kept_bytes";
    agree("live tap", &shown(&text).into_iter().filter(|(name, _)| of_sinks(name)).collect());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
}

#[test]
fn the_registrar_shows_what_is_documented() {
    let dir = tempfile::tempdir().expect("a folder");
    let (deployment, mut gateway, mut registrar) = Deployment::with_gateway(dir.path());
    let witness = Witness::start(&dir.path().join("w1"), "w1.example/w", &[deployment.log_key()]);
    registrar.spawn_with(&Witness::asked(&[&witness]));
    deployment.settle(&registrar, &gateway.store());
    let anchored = "gateway_registrar_anchored_size{by=\"w1.example/w\"}";
    registrar.until("a word of the witness", || registrar.metrics().contains(anchored));
    registrar.until("the gateway's log", || {
        let text = registrar.metrics();
        text.contains("gateway_registrar_logs{gateway=\"gw1\",state=\"open\"} 1")
            && text.contains("gateway_registrar_log_sealed_timestamp_seconds{gateway=\"gw1\"} 1")
    });
    agree("registrar", &shown(&registrar.metrics()));
    // A log that is closed is not waited for any more.
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    registrar.until("the end of the log", || {
        let text = registrar.metrics();
        text.contains("state=\"closed\"} 1")
            && !text.contains("gateway_registrar_log_sealed_timestamp_seconds{")
    });
}

#[test]
fn the_archiver_shows_what_is_documented_and_logs_json() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut process, metrics) = without_brokers(dir.path());
    agree("archiver", &shown(&http(metrics, "GET /metrics", b"")));
    process.until("it logs", || process_log(dir.path()).contains("archiving"));
    for line in process_log(dir.path()).lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object a line");
        assert!(
            line["level"].is_string() && line["message"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
}

fn process_log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("archiver.log")).unwrap_or_default()
}

fn prometheus(file: &str) -> String {
    std::fs::read_to_string(tests::root().join("deploy/prometheus").join(file)).expect("a file of Prometheus")
}

#[test]
fn alerts_are_on_metrics_that_exist_and_lead_to_a_section() {
    let known: BTreeSet<String> = documented().into_values().flat_map(Shapes::into_keys).collect();
    let anchors: BTreeSet<String> = sections().into_iter().map(|section| section.anchor).collect();
    let (rules, cases) = (prometheus("rules.yaml"), prometheus("tests.yaml"));
    let mut alerts = 0;
    for rule in rules.split("      - alert: ").skip(1) {
        alerts += 1;
        let name = rule.lines().next().expect("a name");
        let field = |key: &str| {
            rule.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default().trim()
        };
        let words = field("expr:").split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("gateway_")) {
            // What a histogram of that name shows.
            let of = ["_bucket", "_count"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
            assert!(
                known.contains(metric) || known.contains(of),
                "{name} is on `{metric}`, which METRICS.md does not know"
            );
        }
        let anchor = field("runbook_url:").strip_prefix("../RUNBOOK.md#").expect("a link into the runbook");
        assert!(anchors.contains(anchor), "{name} leads to `{anchor}`, which is no section");
        let severity = field("labels:");
        assert!(
            ["{ severity: critical }", "{ severity: warning }"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(!field("summary:").is_empty() && !field("description:").is_empty(), "{name}");
        for case in ["fires", "stays quiet"] {
            assert!(cases.contains(&format!("- name: {name} {case}\n")), "no case in which {name} {case}");
        }
    }
    assert!(alerts >= 30, "{alerts} alerts");
    for anchor in anchors.iter().filter(|anchor| !["logs", "lost-key"].contains(&anchor.as_str())) {
        assert!(rules.contains(&format!("RUNBOOK.md#{anchor}\n")), "no alert leads to `{anchor}`");
    }
}
