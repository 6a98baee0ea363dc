//! `deploy/compose.yaml` as it stands, its services as plain processes: made by its own scripts, with traffic through every
//! gateway, and the auditor's word at the end.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tests::client::{Call, send};
use tests::compose::Compose;
use tests::process::{Process, http, ran};
use tests::provider::Provider;
use tests::services::{Kafka, cached};

const CALLS: usize = 4;
const WAIT: Duration = Duration::from_secs(90);

/// What the image of Apache Kafka makes of its variables.
fn properties(compose: &Compose) -> String {
    let typed = compose.environment("kafka");
    let lines = typed.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix("KAFKA_")?.to_lowercase().replace('_', ".");
        Some(format!("{key}={value}\n"))
    });
    lines.collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool, logs: impl Fn() -> String) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "waited for {what}:\n{}", logs());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every file below a folder, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), std::fs::read(entry.path()).expect("a file")));
        }
    }
    found.sort();
    found
}

/// Services by what they run.
struct Services {
    gateways: Vec<String>,
    archivers: Vec<String>,
}

impl Services {
    fn of(compose: &Compose) -> Self {
        let role = |name: &String, role: &str| compose.service(name)["command"][0] == role;
        let ours = compose.running("affidavit-gateway");
        let with = |word: &str| ours.iter().filter(|name| role(name, word)).cloned().collect::<Vec<_>>();
        Self { gateways: with("serve"), archivers: with("archive") }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka, S3"]
async fn the_compose_file_s_deployment_works_and_verifies() {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut compose = Compose::staged(dir.path());
    for real in ["https://api.openai.com", "https://api.anthropic.com"] {
        compose.instead.push((real.to_owned(), provider.url()));
    }
    let (gateway, versitygw) = (tests::binary("gateway"), cached("versitygw", "v1.8.0"));
    assert_eq!(compose.running("versity/versitygw:v1.8.0"), ["bucket", "s3"], "as the tests have it");
    assert_eq!(compose.running("apache/kafka:4.1.0"), ["kafka"], "as the tests have it");
    ran(&mut Command::new(dir.path().join("deploy/compose/make-secrets")));

    // Keys and configurations, made once: another run changes nothing.
    ran(&mut compose.command("init", &gateway));
    let made = files(&compose.path("init", "/etc/affidavit"));
    ran(&mut compose.command("init", &gateway));
    assert_eq!(files(&compose.path("init", "/etc/affidavit")), made);
    let services = Services::of(&compose);
    assert_eq!((services.gateways.len(), services.archivers.len()), (3, 2));
    for name in &services.gateways {
        let config = compose.path(name, "/etc/affidavit/gateway.yaml");
        compose.adapt(name, &config);
        ran(Command::new(&gateway).arg("check").arg("-c").arg(&config));
    }
    for name in &services.archivers {
        compose.adapt(name, &compose.path(name, "/etc/affidavit/archive.yaml"));
    }
    compose.adapt("registrar", &compose.path("registrar", "/etc/affidavit/registrar.yaml"));

    let kafka = Kafka::with(compose.address("kafka", 9092), &properties(&compose));
    let mut s3 = compose.start("s3", &versitygw);
    let at = compose.address("s3", 7070);
    s3.until("it is healthy", || http(at, "GET /health", b"").starts_with("HTTP/1.1 200"));
    for _ in 0..2 {
        ran(&mut compose.command("bucket", &versitygw));
    }
    let mut others: Vec<(String, Process)> = Vec::new();
    for name in services.archivers.iter().map(String::as_str).chain(["registrar"]) {
        others.push((name.to_owned(), compose.start(name, &gateway)));
    }
    let mut running: Vec<(String, Process)> = Vec::new();
    for name in &services.gateways {
        let mut process = compose.start(name, &gateway);
        let admin = compose.address(name, 9090);
        process.until("it is ready", || http(admin, "GET /readyz", b"").starts_with("HTTP/1.1 200"));
        running.push((name.clone(), process));
    }

    let key = std::fs::read_to_string(compose.path("caller-key", "/etc/affidavit/caller.key"))
        .expect("the caller's key");
    let key = key.split_whitespace().find(|word| word.starts_with("afk_")).expect("a gateway key").to_owned();
    for n in 0..CALLS {
        for name in &services.gateways {
            let body = serde_json::json!({ "model": "gpt-4o-mini", "stream": n % 2 == 1,
                "messages": [{ "role": "user", "content": format!("{name} {n}") }] });
            let call = Call::post("/openai/v1/chat/completions", &key, body.to_string());
            let got = send(compose.address(name, 8080), &call).await;
            assert_eq!(got.status, 200, "{}", got.text());
        }
    }

    // What Prometheus is told to read is there.
    let scraped = std::fs::read_to_string(dir.path().join("deploy/compose/prometheus.yaml")).expect("a file");
    let scraped: serde_json::Value = serde_saphyr::from_str(&scraped).expect("YAML");
    let jobs = scraped["scrape_configs"].as_array().into_iter().flatten();
    let targets: Vec<&str> = jobs
        .flat_map(|job| job["static_configs"][0]["targets"].as_array().into_iter().flatten())
        .filter_map(serde_json::Value::as_str)
        .collect();
    assert_eq!(targets.len(), 6);
    for target in targets {
        let address = compose.seen("prometheus", target).parse().expect("an address");
        let page = http(address, "GET /metrics", b"");
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("gateway_"), "{target}: {page}");
    }

    let logs = |names: &[&str]| {
        let log = |name: &&str| std::fs::read_to_string(compose.log(name)).unwrap_or_default();
        names.iter().map(log).collect::<Vec<_>>().join("\n--\n")
    };
    // The end of a gateway waits for all of it to be archived.
    for (name, process) in running {
        assert_eq!(process.stop(), Some(0), "{}", logs(&[&name]));
        assert!(logs(&[&name]).contains("everything is archived"), "{}", logs(&[&name, "ar1", "ar2"]));
    }
    let mut said = String::new();
    let verified = || {
        let output = compose.command("audit", &tests::binary("auditor")).output().expect("the auditor");
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let closed = said.matches("closed (shutdown)").count();
        output.status.code() == Some(0) && closed == services.gateways.len()
    };
    until("the auditor to verify three closed logs", verified, || logs(&["registrar", "ar1", "ar2"]));
    assert!(said.starts_with("VERIFIED") || said.contains("\nVERIFIED"), "{said}");
    let of_log = |part: &str| part.trim().strip_suffix(" outcome")?.trim().parse::<usize>().ok();
    let lines = said.lines().filter_map(|line| line.trim().strip_prefix("records:"));
    let outcomes: usize = lines.flat_map(|line| line.split(',').filter_map(of_log)).sum();
    assert_eq!(outcomes, CALLS * services.gateways.len(), "{said}");
    for (name, process) in others {
        assert_eq!(process.stop(), Some(0), "{}", logs(&[&name]));
    }
    drop((kafka, s3));
    eprintln!(
        "{} gateways, {} archivers, {outcomes} exchanges",
        services.gateways.len(),
        services.archivers.len()
    );
}
