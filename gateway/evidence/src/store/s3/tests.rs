//! The store against a service whose answers are written here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::Credentials;
use schemas::{Origin, Sha256Hex};

use super::*;

/// What was asked: the first line and the headers, lower case.
struct Asked(String);

impl Asked {
    fn says(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

type Answers = dyn Fn(&Asked) -> (u16, String, String) + Send + Sync;

/// Answers one request a connection: status, further headers, body.
fn serve(answers: impl Fn(&Asked) -> (u16, String, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answers: Arc<Answers> = Arc::new(answers);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            std::thread::spawn(move || answer(stream, &*answers));
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, answers: &Answers) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let line = line.to_lowercase();
        if let Some(told) = line.strip_prefix("content-length:") {
            length = told.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut body).unwrap();
    let asked = Asked(head);
    let (status, headers, body) = answers(&asked);
    let length = body.len();
    let shown = if asked.0.starts_with("head ") { "" } else { &body };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{shown}"
    );
}

fn error(status: u16, code: &str) -> (u16, String, String) {
    (status, String::new(), format!("<Error><Code>{code}</Code><Message>said</Message></Error>"))
}

fn fine(body: &str) -> (u16, String, String) {
    (200, String::new(), body.to_owned())
}

const LOCKED: &str =
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
const VERSIONED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

fn store(endpoint: &str, without_lock: bool) -> S3Store {
    let day = Duration::from_secs(86_400);
    let settings = S3Settings {
        bucket: "evidence".into(),
        prefix: String::new(),
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        path_style: true,
        sse: Sse::Bucket,
        governance: false,
        retention: Retention { records: day, content: day, classes: BTreeMap::new() },
        legal_hold: false,
        without_lock,
        timeout: Duration::from_secs(5),
    };
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .http_client(
            aws_smithy_http_client::Builder::new()
                .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
                .build_https(),
        )
        .force_path_style(true)
        .endpoint_url(endpoint)
        .build();
    let shared = Shared {
        client: Client::from_conf(config),
        settings,
        worker: Worker::start().unwrap(),
        locks: Mutex::default(),
    };
    S3Store { shared: Arc::new(shared) }
}

fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

fn trouble<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Trouble {
    match result {
        Err(error @ StoreError::Service { .. }) => error.trouble().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_said_of_the_credentials_says_nothing_of_the_bucket() {
    for (status, code, wanted) in [
        (400, "ExpiredToken", Trouble::Credentials),
        (400, "InvalidToken", Trouble::Credentials),
        (403, "InvalidAccessKeyId", Trouble::Credentials),
        (403, "RequestTimeTooSkewed", Trouble::Clock),
        (404, "", Trouble::Refused),
    ] {
        let endpoint = serve(move |asked| match asked.says("versioning") {
            true => fine(VERSIONED),
            false if code.is_empty() => (status, String::new(), "<html>no such page</html>".into()),
            false => error(status, code),
        });
        assert_eq!(trouble(store(&endpoint, false).judge()), wanted, "{status} {code}");
    }
    // These words do.
    let endpoint = serve(|asked| match asked.says("versioning") {
        true => fine(VERSIONED),
        false if asked.says("object-lock") => error(404, "ObjectLockConfigurationNotFoundError"),
        false => error(404, "NoSuchBucketPolicy"),
    });
    let report = store(&endpoint, false).judge().unwrap();
    assert_eq!(report.faults.iter().map(|fault| fault.setting).collect::<Vec<_>>(), ["object lock"]);
}

/// A file to put, and what the store says of it once it is there.
fn source(dir: &Path) -> (ObjectName, std::path::PathBuf, Sha256Hex) {
    let path = dir.join("seal");
    std::fs::write(&path, "a seal").unwrap();
    (ObjectName::Seal { origin: origin(), batch: 0 }, path, Sha256Hex::of(b"a seal"))
}

fn head_of(sha256: &Sha256Hex) -> String {
    let checksum = base64::engine::general_purpose::STANDARD.encode(sha256.0);
    format!("x-amz-version-id: v1\r\nx-amz-checksum-sha256: {checksum}\r\n")
}

#[test]
fn a_lock_that_cannot_be_asked_for_now_is_not_a_missing_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (name, path, sha256) = source(dir.path());
    let source = Source { path: &path, sha256: &sha256, length: 6, sealed_us: 0 };
    let head = head_of(&sha256);
    for (status, code) in [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (400, "RequestTimeout")] {
        let head = head.clone();
        let endpoint = serve(move |asked| match asked.0.starts_with("head ") {
            true => (200, head.clone(), "a seal".into()),
            false => error(status, code),
        });
        let found = store(&endpoint, false).confirm(&name, source);
        assert!(found.as_ref().is_err_and(StoreError::is_transient), "{code}: {found:?}");
    }
    let endpoint = serve(move |asked| match asked.0.starts_with("head ") {
        true => (200, head.clone(), "a seal".into()),
        false => error(404, "NoSuchObjectLockConfiguration"),
    });
    assert!(matches!(store(&endpoint, false).confirm(&name, source), Err(StoreError::ReadBack { .. })));
}

#[test]
fn a_bucket_that_may_be_without_lock_is_judged_before_anything_is_put() {
    let dir = tempfile::tempdir().unwrap();
    let (name, path, sha256) = source(dir.path());
    let source = Source { path: &path, sha256: &sha256, length: 6, sealed_us: 0 };
    for (locked, wanted) in [(true, true), (false, false)] {
        let expired = Arc::new(Mutex::new(true));
        let puts = Arc::new(Mutex::new(Vec::new()));
        let (now, seen) = (expired.clone(), puts.clone());
        let endpoint = serve(move |asked| {
            if *now.lock().unwrap() {
                return error(400, "ExpiredToken");
            }
            match asked {
                _ if asked.0.starts_with("put ") => {
                    seen.lock().unwrap().push(asked.says("x-amz-object-lock-mode"));
                    fine("")
                }
                _ if asked.says("versioning") => fine(VERSIONED),
                _ if asked.says("object-lock") && locked => fine(LOCKED),
                _ if asked.says("object-lock") => error(404, "ObjectLockConfigurationNotFoundError"),
                _ if asked.says("lifecycle") => error(404, "NoSuchLifecycleConfiguration"),
                _ => error(404, "NoSuchBucketPolicy"),
            }
        });
        let store = store(&endpoint, true);
        assert_eq!(trouble(store.judge()), Trouble::Credentials);
        assert_eq!(trouble(store.put(&name, source)), Trouble::Credentials);
        assert!(puts.lock().unwrap().is_empty(), "nothing is put under an unknown lock");
        *expired.lock().unwrap() = false;
        assert_eq!(store.put(&name, source).unwrap(), Put::Stored);
        assert_eq!(*puts.lock().unwrap(), [wanted], "whether the object was put with a lock");
    }
}

fn file(store: &S3Store, length: u64) -> ObjectFile {
    ObjectFile { shared: store.shared.clone(), key: "k".into(), version: None, length }
}

#[test]
fn no_more_is_read_than_was_asked_for() {
    let whole = "0123456789".repeat(100);
    let (all, more) = (whole.clone(), whole.clone());
    let read = |endpoint: &str, offset: u64, count: usize| {
        let mut buffer = vec![0; count];
        let read = file(&store(endpoint, false), 1000).read_at(&mut buffer, offset);
        read.map(|read| String::from_utf8(buffer[..read].to_vec()).unwrap())
    };
    let honest = serve(move |asked| {
        let range = asked.0.split("bytes=").nth(1).unwrap().lines().next().unwrap().to_owned();
        let (from, to) = range.trim().split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        (206, format!("content-range: bytes {from}-{to}/1000\r\n"), whole[from..=to].to_owned())
    });
    assert_eq!(read(&honest, 12, 5).unwrap(), "23456");
    let ignores = serve(move |_| fine(&all));
    assert!(read(&ignores, 0, 10).is_err(), "the whole where ten bytes were asked for");
    assert!(read(&ignores, 10, 990).is_err(), "other bytes than those that were asked for");
    assert_eq!(read(&ignores, 0, 1000).unwrap().len(), 1000);
    let elsewhere = serve(move |_| (206, "content-range: bytes 0-9/1000\r\n".into(), more[..10].to_owned()));
    assert!(read(&elsewhere, 10, 10).is_err());
}

#[test]
fn a_list_that_does_not_go_on_is_an_error_and_not_the_end() {
    let page =
        |more: &str| format!("<ListBucketResult><Contents><Key>k</Key></Contents>{more}</ListBucketResult>");
    let token = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
    for (first, second) in
        [(token, token), ("<IsTruncated>true</IsTruncated>", ""), (token, "<IsTruncated>true</IsTruncated>")]
    {
        let (first, second) = (page(first), page(second));
        let endpoint =
            serve(move |asked| fine(if asked.says("continuation-token") { &second } else { &first }));
        assert_eq!(trouble(store(&endpoint, false).list(&origin())), Trouble::Refused);
    }
    let (first, second) = (page(token), page("<IsTruncated>false</IsTruncated>"));
    let endpoint = serve(move |asked| fine(if asked.says("continuation-token") { &second } else { &first }));
    store(&endpoint, false).list(&origin()).unwrap();
}
