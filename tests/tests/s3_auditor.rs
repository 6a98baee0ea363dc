//! The auditor over buckets: what a real gateway wrote, put under lock by real S3 servers, then attacked.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use aws_smithy_types::DateTime;
use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Minio, Moto, S3Server, Versitygw};

/// Evidence in a folder, and the time up to which it is whole.
struct Evidence {
    objects: Vec<(String, Vec<u8>)>,
    trust: PathBuf,
    to: String,
    _dir: tempfile::TempDir,
}

/// One store for all tests of this file.
fn evidence() -> &'static Evidence {
    static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
        std::thread::spawn(|| tokio::runtime::Runtime::new().expect("a runtime").block_on(make()))
            .join()
            .expect("evidence")
    });
    &EVIDENCE
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
    let mut objects = Vec::new();
    files(&store, &store, &mut objects);
    objects.sort();
    assert!(objects.len() >= 6, "{} objects", objects.len());
    let trust = dir.path().join("trust.yaml");
    let state = dir.path().join("state");
    let (_, report) = auditor(&[
        "verify",
        path(&store),
        "--trust",
        path(&trust),
        "--state",
        path(&state),
        "--format",
        "json",
    ]);
    let to = report["gateways"][0]["proven"]["to"].as_i64().expect("something is proven");
    Evidence { objects, trust, to: auditor::time::text(to), _dir: dir }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

fn files(root: &Path, folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry").path();
        if entry.is_dir() {
            files(root, &entry, out);
        } else {
            let name = path(entry.strip_prefix(root).expect("below")).to_owned();
            out.push((name, std::fs::read(&entry).expect("a file")));
        }
    }
}

/// Runs the auditor; gives its exit code and what it printed, as JSON.
fn auditor(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(tests::binary("auditor"))
        .args(arguments)
        .envs(S3Server::environment())
        .output()
        .expect("the auditor's binary");
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|_| Value::String(format!("{text}{}", String::from_utf8_lossy(&output.stderr))));
    (output.status.code().unwrap_or(-1), json)
}

fn codes(report: &Value) -> BTreeSet<String> {
    let counts = report["findings"]["counts"].as_object().unwrap_or_else(|| panic!("no report: {report:#}"));
    counts.keys().cloned().collect()
}

fn days(days: u64) -> DateTime {
    DateTime::from(SystemTime::now() + Duration::from_secs(days * 86_400))
}

/// A prefix of a bucket with the evidence in it.
struct Case<'a> {
    server: &'a S3Server,
    client: Client,
    prefix: String,
    state: tempfile::TempDir,
}

const BUCKET: &str = "evidence";

impl<'a> Case<'a> {
    async fn new(server: &'a S3Server, prefix: &str, mode: Option<ObjectLockMode>) -> Case<'a> {
        let case = Case {
            server,
            client: server.client(),
            prefix: prefix.into(),
            state: tempfile::tempdir().expect("a state folder"),
        };
        for (name, bytes) in &evidence().objects {
            case.put(name, bytes, mode.clone()).await;
        }
        case
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn put(&self, name: &str, bytes: &[u8], mode: Option<ObjectLockMode>) -> String {
        let sum = schemas::Sha256Hex::of(bytes);
        let put = self
            .client
            .put_object()
            .bucket(BUCKET)
            .key(self.key(name))
            .body(ByteStream::from(bytes.to_vec()))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(base64::engine::general_purpose::STANDARD.encode(sum.0))
            .set_object_lock_retain_until_date(mode.as_ref().map(|_| days(2)))
            .set_object_lock_mode(mode)
            .send()
            .await
            .expect("a PUT");
        put.version_id().unwrap_or("null").to_owned()
    }

    fn verify_at(&self, endpoint: &str, more: &[&str]) -> (i32, Value) {
        let store = format!("s3://{BUCKET}/{}", self.prefix);
        let evidence = evidence();
        let mut arguments = vec![
            "verify",
            &store,
            "--trust",
            path(&evidence.trust),
            "--to",
            &evidence.to,
            "--state",
            path(self.state.path()),
            "--endpoint-url",
            endpoint,
            "--path-style",
            "--format",
            "json",
        ];
        arguments.extend(more);
        auditor(&arguments)
    }

    fn verify(&self, more: &[&str]) -> (i32, Value) {
        self.verify_at(&self.server.endpoint(), more)
    }

    /// The code must be among the findings, and the verdict no pass.
    fn must_find(&self, code: &str, more: &[&str]) -> Value {
        let (exit, report) = self.verify(more);
        assert!(codes(&report).contains(code), "{} {}: {code} in {report:#}", self.server.name, self.prefix);
        assert_eq!(exit, 1, "{} {}: {report:#}", self.server.name, self.prefix);
        report
    }
}

fn seal() -> (&'static str, &'static [u8]) {
    let found = evidence().objects.iter().find(|(name, _)| name.ends_with("0000000000.seal"));
    found.map(|(name, bytes)| (name.as_str(), bytes.as_slice())).expect("a seal")
}

/// What a proxy does to a store's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// 403 to GetObjectRetention, and HEAD without lock headers: a role without the permission.
    NoPermission,
    /// HEAD without lock headers.
    SilentHead,
    /// The listing says that it is whole, and leaves out one name.
    ShortListing,
}

/// Starts a proxy before a store.
async fn liar(upstream: SocketAddr, lie: Lie) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let client = client.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let client = client.clone();
                async move { Ok::<_, Infallible>(answer(&client, upstream, lie, request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    endpoint
}

type Forward = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    hyper::body::Incoming,
>;

async fn answer(
    client: &Forward,
    upstream: SocketAddr,
    lie: Lie,
    mut request: http::Request<hyper::body::Incoming>,
) -> http::Response<Full<bytes::Bytes>> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    if lie == Lie::NoPermission && target.contains("retention") {
        let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        return http::Response::builder().status(403).body(Full::from(body)).expect("an answer");
    }
    let head = request.method() == http::Method::HEAD;
    *request.uri_mut() = format!("http://{upstream}{target}").parse().expect("a URI");
    let (mut parts, body) = client.request(request).await.expect("an answer of the store").into_parts();
    let mut body = body.collect().await.expect("a body").to_bytes();
    if head && lie != Lie::ShortListing {
        parts.headers.remove("x-amz-object-lock-mode");
        parts.headers.remove("x-amz-object-lock-retain-until-date");
    }
    if lie == Lie::ShortListing && target.contains("versions") {
        let text = String::from_utf8_lossy(&body).into_owned();
        let at = text.find("0000000000.seal").expect("the seal in the listing");
        let (start, end) = (
            text[..at].rfind("<Version>").expect("its start"),
            at + text[at..].find("</Version>").expect("its end"),
        );
        body = format!("{}{}", &text[..start], &text[end + "</Version>".len()..]).into();
        parts.headers.remove("content-length");
    }
    if !head {
        parts.headers.remove("transfer-encoding");
    }
    http::Response::from_parts(parts, Full::from(body))
}

async fn attacks(server: &S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let compliance = || Some(ObjectLockMode::Compliance);

    // Untouched: verified, retention enforced, and again; a mandate that asks for more is not met.
    let whole = Case::new(server, "whole", compliance()).await;
    let (exit, report) = whole.verify(&["--require", "retention_enforced", "--require", "retention=1d"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    let claim = report["claims"].to_string();
    assert!(claim.contains("retention enforced") && claim.contains("not probed"), "{claim}");
    let (exit, report) =
        whole.verify(&["--since-last", "--require", "retention_enforced", "--require", "append_only"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    assert_eq!(report["bucket"]["read"], 0, "{report:#}");
    assert!(report["not_checked"].to_string().contains("earlier visit"));
    let (exit, report) = whole.verify(&["--lock-state", "sample:1"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    assert!(report["claims"].to_string().contains("NOT read of every version"), "{report:#}");
    whole.must_find("CLAIM_NOT_REACHED", &["--lock-state", "sample:1", "--require", "retention_enforced"]);
    whole.must_find("RETENTION_SHORT", &["--require", "retention=30d"]);

    // Proxies: a missing permission is no verdict; a HEAD that keeps silent is asked about; a short listing is found.
    let denied = liar(server.address, Lie::NoPermission).await;
    let (exit, report) = whole.verify_at(&denied, &[]);
    assert!(codes(&report).contains("PERMISSION_MISSING"), "{report:#}");
    assert_eq!(exit, 2, "{}: {report:#}", server.name);
    let silent = Case {
        state: tempfile::tempdir().expect("a state"),
        client: server.client(),
        prefix: "whole".into(),
        server,
    };
    let (exit, report) =
        silent.verify_at(&liar(server.address, Lie::SilentHead).await, &["--require", "retention_enforced"]);
    assert!(codes(&report).contains("LOCK_CONTRADICTION"), "{report:#}");
    assert_eq!(exit, 0, "GetObjectRetention speaks where HEAD does not: {report:#}");
    let short = liar(server.address, Lie::ShortListing).await;
    let again = Case {
        state: tempfile::tempdir().expect("a state"),
        client: server.client(),
        prefix: "whole".into(),
        server,
    };
    // The proxy has another address, so it is another store to the state: it is visited through one that tells the truth.
    assert_eq!(again.verify(&[]).0, 0);
    let (exit, report) = again.verify_at(&short, &[]);
    assert_eq!(exit, 1, "{}: {report:#}", server.name);

    // 22: a delete marker. 23: a newer version. 24: a marker, then another object under the name.
    let (name, bytes) = seal();
    let marked = Case::new(server, "marked", compliance()).await;
    marked.client.delete_object().bucket(BUCKET).key(marked.key(name)).send().await.expect("a marker");
    marked.must_find("HIDDEN", &[]);
    let shadowed = Case::new(server, "shadowed", compliance()).await;
    shadowed.put(name, b"another seal", compliance()).await;
    let report = shadowed.must_find("SHADOWED", &[]);
    assert!(
        !codes(&report).contains("SEAL_INVALID"),
        "the sealed version is the one that is verified: {report:#}"
    );
    let substituted = Case::new(server, "substituted", compliance()).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    substituted
        .client
        .delete_object()
        .bucket(BUCKET)
        .key(substituted.key(name))
        .send()
        .await
        .expect("a marker");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    substituted.put(name, b"another seal", compliance()).await;
    // versitygw gives an older version another time when a marker is put: what it shows there is a newer version.
    substituted.must_find(if server.name == "versitygw" { "SHADOWED" } else { "SUBSTITUTED" }, &[]);
    let repeated = Case::new(server, "repeated", compliance()).await;
    repeated.put(name, bytes, compliance()).await;
    let (exit, report) = repeated.verify(&["--require", "retention_enforced"]);
    assert!(codes(&report).contains("BENIGN_RETRY"), "{report:#}");
    assert_eq!(exit, 0, "{}: {report:#}", server.name);

    // 25, 26: no lock, and GOVERNANCE. 27: reduced since the last visit. An object that no seal names.
    Case::new(server, "plain", None).await.must_find("NOT_WORM", &[]);
    let governance = Case::new(server, "governance", Some(ObjectLockMode::Governance)).await;
    governance.must_find("NOT_WORM", &[]);
    let foreign = Case::new(server, "foreign", compliance()).await;
    foreign.put("note.txt", b"hello", compliance()).await;
    foreign.must_find("UNKNOWN_OBJECT", &[]);

    // 32: another bucket than the mandate names.
    let mandate = whole.state.path().join("mandate.yaml");
    std::fs::write(&mandate, "store: { bucket: other }\n").expect("a mandate");
    whole.must_find("WRONG_SOURCE", &["--mandate", path(&mandate)]);

    let (exit, transcript) = probe(server);
    assert_eq!(exit, 0, "{}: {transcript:#}", server.name);
}

fn probe(server: &S3Server) -> (i32, Value) {
    let state = tempfile::tempdir().expect("a state");
    let store = format!("s3://{BUCKET}/probed");
    auditor(&[
        "probe",
        &store,
        "--endpoint-url",
        &server.endpoint(),
        "--path-style",
        "--format",
        "json",
        "--state",
        path(state.path()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn minio_holds_evidence_and_every_attack_on_it_is_named() {
    attacks(&Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn versitygw_holds_evidence_and_every_attack_on_it_is_named() {
    attacks(&Versitygw::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_store_that_forgets_its_locks_is_named_by_the_probe_and_by_the_next_visit() {
    let server = Moto::start();
    server.create_locked_bucket(BUCKET).await;
    let (exit, transcript) = probe(&server);
    assert_eq!(exit, 1, "{transcript:#}");
    let failed: BTreeSet<&str> = transcript["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter(|row| row["outcome"] == "not_enforced")
        .filter_map(|row| row["name"].as_str())
        .collect();
    for row in ["shorten", "suspend_versioning"] {
        assert!(failed.contains(row), "{row}: {transcript:#}");
    }

    // 27: retention is reduced between two visits; then the version is deleted.
    let case = Case::new(&server, "reduced", Some(ObjectLockMode::Compliance)).await;
    assert!(!codes(&case.verify(&[]).1).contains("RETENTION_REDUCED"));
    let (name, _) = seal();
    let versions = case
        .client
        .list_object_versions()
        .bucket(BUCKET)
        .prefix(case.key(name))
        .send()
        .await
        .expect("versions");
    let version = versions.versions()[0].version_id().expect("an id").to_owned();
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(days(1))
        .build();
    case.client
        .put_object_retention()
        .bucket(BUCKET)
        .key(case.key(name))
        .version_id(&version)
        .retention(retention)
        .send()
        .await
        .expect("moto lets retention be reduced");
    case.must_find("RETENTION_REDUCED", &[]);
    case.client
        .delete_object()
        .bucket(BUCKET)
        .key(case.key(name))
        .version_id(&version)
        .bypass_governance_retention(true)
        .send()
        .await
        .expect("moto lets it be deleted then");
    case.must_find("STORE_NOT_WORM", &[]);
}
