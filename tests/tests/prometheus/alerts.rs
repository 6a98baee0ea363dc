//! A real Prometheus on real processes: what they show passes its lint, and an alert fires while its cause lasts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tests::client::{Call, send};
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::metrics::classic;
use tests::process::http;
use tests::prometheus::{server, tool};
use tests::provider::Provider;

/// What `promtool check metrics` says of a text.
fn lint(part: &str, text: &str) {
    use std::io::Write as _;
    let mut promtool = tool("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool");
    child.stdin.take().expect("its stdin").write_all(classic(text).as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.trim().is_empty(), "{part}:\n{said}");
}

async fn call(gateway: &Gateway) {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"alerts"}]}"#;
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus"]
async fn what_the_processes_show_passes_the_lint_of_promtool() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let gateway =
        Gateway::start(&dir.path().join("gw"), &Setup { provider: provider.url(), ..Setup::default() });
    call(&gateway).await;
    lint("gateway", &gateway.admin_get("/metrics").expect("metrics"));
    drop(gateway);
    let (deployment, gateway, mut registrar) = Deployment::with_gateway(&dir.path().join("deployment"));
    registrar.spawn();
    deployment.settle(&registrar, &gateway.store());
    lint("registrar", &registrar.metrics());
    let (archiver, metrics) = tests::archiver::without_brokers(&dir.path().join("ar"));
    lint("archiver", &http(metrics, "GET /metrics", b""));
    drop(archiver);
}

/// The rules with short waits, and bounds that a test reaches.
fn hurried(into: &Path) {
    let rules =
        std::fs::read_to_string(tests::root().join("deploy/prometheus/rules.yaml")).expect("the rules");
    let mut hurried = String::new();
    for line in rules.lines() {
        let line = match line.trim_start() {
            text if text.starts_with("for: ") => "        for: 2s",
            _ => line,
        };
        let line =
            line.replace("gateway_oldest_unshipped_seconds > 900", "gateway_oldest_unshipped_seconds > 3");
        hurried += &format!("{line}\n");
    }
    assert!(hurried.contains("_seconds > 3\n"), "the rule that the test hurries is another now");
    std::fs::write(into, hurried).expect("the rules' copy");
}

/// The names of the alerts that fire.
fn firing(prometheus: SocketAddr) -> Vec<String> {
    let answer = http(prometheus, "GET /api/v1/alerts", b"");
    let body = answer.find("{\"status\"").and_then(|at| answer.get(at..)).unwrap_or("{}");
    // Chunked: the answer is small, and one chunk.
    let body = body.rfind('}').and_then(|at| body.get(..=at)).unwrap_or("{}");
    let said: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let alerts = said["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let fires = alerts.iter().filter(|alert| alert["state"] == "firing");
    fires.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus"]
async fn an_alert_fires_while_the_store_is_away_and_ends_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let gateway =
        Gateway::start(&dir.path().join("gw"), &Setup { provider: provider.url(), ..Setup::default() });
    call(&gateway).await;
    hurried(&dir.path().join("rules.yaml"));
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yaml]\nscrape_configs:\n  \
         - job_name: affidavit-gateway\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        gateway.admin
    );
    let (mut prometheus, address) = server(dir.path(), &config);
    let up = "GET /api/v1/query?query=gateway_phase%7Bstate%3D%22serving%22%7D%3D%3D1";
    prometheus
        .until("it has scraped the gateway", || http(address, up, b"").contains("\"state\":\"serving\""));
    assert_eq!(firing(address), Vec::<String>::new());
    let (store, away) = (gateway.store(), dir.path().join("away"));
    std::fs::rename(&store, &away).expect("the store goes");
    std::fs::write(&store, "no folder").expect("a file in its place");
    call(&gateway).await;
    for alert in ["AffidavitStoreNeedsSomeone", "AffidavitUnshipped"] {
        prometheus.until(alert, || firing(address).iter().any(|name| name == alert));
    }
    std::fs::remove_file(&store).expect("the file goes");
    std::fs::rename(&away, &store).expect("the store comes back");
    let begun = Instant::now();
    while !firing(address).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "still {:?}; the gateway logged:\n{}",
            firing(address),
            gateway.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nothing else fired meanwhile that should not: the process lives, and its clock is right.
    for never in ["AffidavitProcessDown", "AffidavitClockSkew", "AffidavitDiskFull"] {
        let query = format!("GET /api/v1/query?query=ALERTS%7Balertname%3D%22{never}%22%7D%5B10m%5D");
        assert!(!http(address, &query, b"").contains("\"firing\""), "{never}");
    }
}
