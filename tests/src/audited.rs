//! Evidence that a real gateway wrote, put into buckets object by object, and the auditor's binary over it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode};
use aws_smithy_types::DateTime;
use base64::Engine as _;
use serde_json::Value;

use crate::archive::BUCKET;
use crate::client::{Call, send};
use crate::deployment::Deployment;
use crate::gateway::{Gateway, Setup};
use crate::provider::Provider;
use crate::registrar::directory;
use crate::services::S3Server;

/// Evidence in a folder, and the time up to which it is whole.
#[derive(Debug)]
pub struct Evidence {
    /// The gateway's objects, by name.
    pub objects: Vec<(String, Vec<u8>)>,
    /// The registry's.
    pub registry: Vec<(String, Vec<u8>)>,
    /// A trust file with the gateway's key.
    pub trust: PathBuf,
    /// A trust file with root and registry.
    pub registry_trust: PathBuf,
    /// Up to when something is proven, RFC 3339.
    pub to: String,
    _dir: tempfile::TempDir,
}

impl Evidence {
    /// One for all tests of a binary: a closed log of several batches, and the registry that knows it.
    pub fn shared() -> &'static Self {
        static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
            std::thread::spawn(|| tokio::runtime::Runtime::new().expect("a runtime").block_on(make()))
                .join()
                .expect("evidence")
        });
        &EVIDENCE
    }

    /// The seal of batch 0.
    ///
    /// # Panics
    /// Where there is none.
    pub fn seal(&self) -> (&str, &[u8]) {
        let found = self.objects.iter().find(|(name, _)| name.ends_with("0000000000.seal"));
        found.map(|(name, bytes)| (name.as_str(), bytes.as_slice())).expect("a seal")
    }
}

async fn make() -> Evidence {
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start([]).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    for _ in 0..2 {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
        let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let store = gateway.store();
    let objects = files(&store);
    assert!(objects.len() >= 6, "{} objects", objects.len());
    let trust = dir.path().join("trust.yaml");
    let state = dir.path().join("state");
    let verify = |trust: &Path| {
        let arguments = ["verify", path(&store), "--trust", path(trust), "--state", path(&state)];
        auditor(&[&arguments[..], &["--format", "json"]].concat()).1
    };
    let to = verify(&trust)["gateways"][0]["proven"]["to"].as_i64().expect("something is proven");
    let to = jiff::Timestamp::from_microsecond(to).expect("a time").to_string();
    let deployment = Deployment::new(&dir.path().join("deployment"));
    deployment.enroll("gw1", &gateway.seal_key());
    let mut registrar = deployment.registrar("registrar", &directory(&store), &[]);
    registrar.spawn();
    registrar.until("the registered log", || verify(&deployment.trust_file())["registry"]["logs"] == 1);
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
    let registry = files(&store).into_iter().filter(|(name, _)| name.starts_with("test/registry/")).collect();
    Evidence { objects, registry, trust, registry_trust: deployment.trust_file(), to, _dir: dir }
}

/// A path as an argument.
///
/// # Panics
/// Where it is no UTF-8.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry").path();
            if entry.is_dir() {
                walk(root, &entry, out);
            } else {
                let name = path(entry.strip_prefix(root).expect("below")).to_owned();
                out.push((name, std::fs::read(&entry).expect("a file")));
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}

/// Runs the auditor; gives its exit code and what it printed, as JSON where it is such.
///
/// # Panics
/// Where the binary does not start.
pub fn auditor(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(crate::binary("auditor"))
        .args(arguments)
        .envs(S3Server::environment())
        .output()
        .expect("the auditor's binary");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut json = serde_json::from_str(&text)
        .unwrap_or_else(|_| Value::String(format!("{text}{}", String::from_utf8_lossy(&output.stderr))));
    // Long, and in the way where a test shows the report.
    if let Some(report) = json.as_object_mut() {
        report.remove("tally");
    }
    for gateway in json.get_mut("gateways").and_then(Value::as_array_mut).into_iter().flatten() {
        for log in gateway.get_mut("logs").and_then(Value::as_array_mut).into_iter().flatten() {
            log.as_object_mut().and_then(|log| log.remove("tally"));
        }
    }
    (output.status.code().unwrap_or(-1), json)
}

/// The codes of a report's findings.
///
/// # Panics
/// Where it is no report.
pub fn codes(report: &Value) -> BTreeSet<String> {
    let counts = report["findings"]["counts"]
        .as_object()
        .unwrap_or_else(|| std::panic::panic_any(format!("no report: {report:#}")));
    counts.keys().cloned().collect()
}

/// So many days from now.
pub fn days(days: u64) -> DateTime {
    DateTime::from(SystemTime::now() + Duration::from_secs(days * 86_400))
}

/// Probes a server's bucket with a state folder; gives exit code and transcript.
pub fn probe(endpoint: &str, store: &str, state: &Path, more: &[&str]) -> (i32, Value) {
    let arguments = ["probe", store, "--endpoint-url", endpoint, "--path-style", "--state", path(state)];
    auditor(&[&arguments[..], &["--format", "json"], more].concat())
}

/// A prefix of a bucket with the evidence in it, and an auditor's state.
#[derive(Debug)]
pub struct Case<'a> {
    /// The server.
    pub server: &'a S3Server,
    /// A client of it.
    pub client: Client,
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
    /// The auditor's state.
    pub state: tempfile::TempDir,
    /// Which trust file is used.
    pub trust: PathBuf,
}

impl<'a> Case<'a> {
    /// An empty prefix.
    pub fn empty(server: &'a S3Server, prefix: &str) -> Case<'a> {
        Case {
            server,
            client: server.client(),
            bucket: BUCKET.into(),
            prefix: prefix.into(),
            state: tempfile::tempdir().expect("a state folder"),
            trust: Evidence::shared().trust.clone(),
        }
    }

    /// A prefix with the gateway's objects, under lock in `mode`.
    pub async fn new(server: &'a S3Server, prefix: &str, mode: Option<ObjectLockMode>) -> Case<'a> {
        let case = Self::empty(server, prefix);
        case.put_all(mode).await;
        case
    }

    /// Puts the gateway's objects.
    pub async fn put_all(&self, mode: Option<ObjectLockMode>) {
        for (name, bytes) in &Evidence::shared().objects {
            self.put(name, bytes, mode.clone()).await;
        }
    }

    /// Puts the registry's objects under lock, and trusts root and registry from now on.
    pub async fn put_registry(&mut self) {
        let evidence = Evidence::shared();
        for (name, bytes) in &evidence.registry {
            self.put(name, bytes, Some(ObjectLockMode::Compliance)).await;
        }
        self.trust.clone_from(&evidence.registry_trust);
    }

    /// The same prefix to an auditor who was never there.
    pub fn anew(&self) -> Case<'a> {
        let state = tempfile::tempdir().expect("a state folder");
        let (bucket, prefix, trust) = (self.bucket.clone(), self.prefix.clone(), self.trust.clone());
        Case { server: self.server, client: self.client.clone(), bucket, prefix, state, trust }
    }

    /// The key of a name.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Puts an object with its SHA-256; gives its version.
    ///
    /// # Panics
    /// Where the server refuses.
    pub async fn put(&self, name: &str, bytes: &[u8], mode: Option<ObjectLockMode>) -> String {
        let sum = base64::engine::general_purpose::STANDARD.encode(schemas::Sha256Hex::of(bytes).0);
        let put = self.putting(name, bytes, mode).checksum_algorithm(ChecksumAlgorithm::Sha256);
        let put = put.checksum_sha256(sum).send().await.expect("a PUT");
        put.version_id().unwrap_or("null").to_owned()
    }

    /// A PUT that is not sent yet, two days under lock in `mode`.
    pub fn putting(
        &self,
        name: &str,
        bytes: &[u8],
        mode: Option<ObjectLockMode>,
    ) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(name))
            .body(ByteStream::from(bytes.to_vec()))
            .set_object_lock_retain_until_date(mode.as_ref().map(|_| days(2)))
            .set_object_lock_mode(mode)
    }

    /// Puts a version of a name under legal hold, or lifts the hold.
    ///
    /// # Panics
    /// Where the server refuses.
    pub async fn hold(&self, name: &str, on: bool) {
        let status = if on { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let put = self.client.put_object_legal_hold().bucket(&self.bucket).key(self.key(name));
        put.legal_hold(hold).send().await.expect("a legal hold");
    }

    /// Puts all of the gateway's objects under legal hold.
    pub async fn hold_all(&self) {
        for (name, _) in &Evidence::shared().objects {
            self.hold(name, true).await;
        }
    }

    /// Puts a delete marker over a name.
    ///
    /// # Panics
    /// Where the server refuses.
    pub async fn mark(&self, name: &str) {
        self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send().await.expect("a marker");
    }

    /// Probes the bucket; the auditor's state knows it then.
    pub fn probe(&self, endpoint: &str, more: &[&str]) -> (i32, Value) {
        probe(endpoint, &format!("s3://{}", self.bucket), self.state.path(), more)
    }

    /// Verifies through an endpoint.
    pub fn verify_at(&self, endpoint: &str, more: &[&str]) -> (i32, Value) {
        let store = format!("s3://{}/{}", self.bucket, self.prefix);
        let (trust, to) = (path(&self.trust), &Evidence::shared().to);
        let arguments = ["verify", &store, "--trust", trust, "--to", to, "--state", path(self.state.path())];
        let remote = ["--endpoint-url", endpoint, "--path-style", "--format", "json"];
        auditor(&[&arguments[..], &remote, more].concat())
    }

    /// Verifies.
    pub fn verify(&self, more: &[&str]) -> (i32, Value) {
        self.verify_at(&self.server.endpoint(), more)
    }

    /// The code must be among the findings, and the verdict no pass.
    ///
    /// # Panics
    /// Where it is otherwise.
    pub fn must_find(&self, code: &str, more: &[&str]) -> Value {
        self.must_find_at(&self.server.endpoint(), code, more)
    }

    /// The same through an endpoint.
    ///
    /// # Panics
    /// Where it is otherwise.
    pub fn must_find_at(&self, endpoint: &str, code: &str, more: &[&str]) -> Value {
        let (exit, report) = self.verify_at(endpoint, more);
        let found = codes(&report);
        assert!(found.contains(code), "{} {}: {code} in {report:#}", self.server.name, self.prefix);
        assert_eq!(exit, 1, "{} {}: {report:#}", self.server.name, self.prefix);
        report
    }

    /// The code must be among the findings, and change nothing: verified.
    ///
    /// # Panics
    /// Where it is otherwise.
    pub fn must_note(&self, code: &str, more: &[&str]) -> Value {
        let (exit, report) = self.verify(more);
        let found = codes(&report);
        assert!(found.contains(code), "{} {}: {code} in {report:#}", self.server.name, self.prefix);
        assert_eq!(exit, 0, "{} {}: {report:#}", self.server.name, self.prefix);
        report
    }

    /// A mandate in a file.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn mandate(&self, yaml: &str) -> PathBuf {
        let path = self.state.path().join("mandate.yaml");
        std::fs::write(&path, yaml).expect("a mandate");
        path
    }
}
