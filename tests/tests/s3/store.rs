//! The store over S3 when things go wrong: what each answer means, what is never written twice, what is asked for.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, ChecksumMode, DefaultRetention, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockLegalHoldStatus, ObjectLockRetentionMode, ObjectLockRule, ServerSideEncryption,
    VersioningConfiguration,
};
use evidence::store::{BucketFault, Put, Retention, Source, Sse, Trouble};
use evidence::{S3Settings, S3Store, Store, StoreError};
use schemas::{ObjectName, Origin, Sha256Hex};
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::provider::Provider;
use tests::services::{Fault, FaultProxy, Minio, Moto, S3Server, Versitygw};

const BUCKET: &str = "evidence";
const DAY: Duration = Duration::from_secs(86_400);

/// Runs the calling test again in a process that has the servers' keys in its environment, as a gateway has them; true in
/// that process.
fn with_keys(name: &str) -> bool {
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|key| key == S3Server::ACCESS_KEY) {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("the test's own path"))
        .args([&format!("store::{name}"), "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .envs(S3Server::environment())
        .output()
        .expect("this test again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn settings(endpoint: &str) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        prefix: "a/b".into(),
        region: Some(S3Server::REGION.into()),
        endpoint: Some(endpoint.into()),
        path_style: true,
        sse: Sse::Bucket,
        governance: false,
        retention: Retention { records: 2 * DAY, content: DAY, classes: BTreeMap::new() },
        legal_hold: false,
        without_lock: false,
        timeout: Duration::from_secs(3),
    }
}

/// A file that is to be a seal of some batch.
struct Object {
    name: ObjectName,
    path: PathBuf,
    sha256: Sha256Hex,
    length: u64,
    sealed_us: i64,
}

impl Object {
    fn new(dir: &Path, batch: u64, text: &str) -> Self {
        let origin = Origin::new("test/gw1/20261120t101500z-3f9a1c20").expect("an origin");
        let path = dir.join(format!("{batch}-{}", Sha256Hex::of(text.as_bytes())));
        std::fs::write(&path, text).expect("a file");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        Self {
            name: ObjectName::Seal { origin, batch },
            path,
            sha256: Sha256Hex::of(text.as_bytes()),
            length: text.len() as u64,
            sealed_us: i64::try_from(now.as_micros()).expect("microseconds"),
        }
    }

    fn source(&self) -> Source<'_> {
        Source { path: &self.path, sha256: &self.sha256, length: self.length, sealed_us: self.sealed_us }
    }

    fn key(&self) -> String {
        format!("a/b/{}", self.name)
    }

    fn put(&self, store: &S3Store) -> Result<Put, StoreError> {
        store.put(&self.name, self.source())
    }

    async fn versions(&self, client: &Client) -> usize {
        let page = client.list_object_versions().bucket(BUCKET).prefix(self.key()).send().await;
        page.expect("a listing of versions").versions().len()
    }
}

fn trouble<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Trouble {
    match result {
        Err(error @ StoreError::Service { .. }) => {
            assert!(error.is_transient(), "{error}");
            error.trouble().expect("what is in the way")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn each_answer_has_its_word_and_the_next_try_succeeds() {
    if !with_keys("each_answer_has_its_word_and_the_next_try_succeeds") {
        return;
    }
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let client = server.client();
    let proxy = FaultProxy::start(server.address);
    let store = S3Store::open(settings(&proxy.endpoint())).expect("a store");
    let dir = tempfile::tempdir().expect("a folder");
    let answers = [
        (409, "ConditionalRequestConflict", Trouble::Conflict, false),
        (409, "OperationAborted", Trouble::Conflict, false),
        (400, "ExpiredToken", Trouble::Credentials, true),
        (403, "InvalidAccessKeyId", Trouble::Credentials, true),
        (403, "SignatureDoesNotMatch", Trouble::Credentials, true),
        (403, "RequestTimeTooSkewed", Trouble::Clock, true),
        (403, "AccessDenied", Trouble::Denied, true),
        (404, "NoSuchBucket", Trouble::NoBucket, true),
        (503, "SlowDown", Trouble::Throttled, false),
        (500, "InternalError", Trouble::Unavailable, false),
        (400, "RequestTimeout", Trouble::Timeout, false),
        (507, "XMinioStorageFull", Trouble::Full, true),
        (400, "InvalidArgument", Trouble::Refused, true),
    ];
    for (batch, (status, code, wanted, someone)) in (0..).zip(answers) {
        let object = Object::new(dir.path(), batch, code);
        proxy.next(&[Fault::Answer(status, code)]);
        let refused = object.put(&store);
        if let Err(error) = &refused {
            let told = error.to_string();
            assert!(told.contains(code), "{told}");
            assert_eq!(told.contains("s3:PutObject"), wanted == Trouble::Denied, "{told}");
        }
        assert_eq!(trouble(refused), wanted, "{status} {code}");
        assert_eq!(wanted.needs_someone(), someone, "{wanted}");
        assert_eq!(object.versions(&client).await, 0);
        assert_eq!(object.put(&store).expect("the next try"), Put::Stored);
        assert_eq!(object.put(&store).expect("a repeat"), Put::AlreadyThere);
        let receipt = store.confirm(&object.name, object.source()).expect("it is kept");
        let wanted = object.sealed_us.div_euclid(1_000_000) + 33 * 86_400;
        assert!(receipt.version.is_some());
        assert!(receipt.retain_until_s.is_some_and(|until| (wanted..=wanted + 1).contains(&until)));
        assert_eq!(object.versions(&client).await, 1, "{code}");
    }
    // A HEAD has no body, and so no code: the status alone tells.
    let object = Object::new(dir.path(), 50, "head");
    assert_eq!(object.put(&store).expect("a put"), Put::Stored);
    for (status, wanted) in [(403, Trouble::Denied), (503, Trouble::Unavailable), (429, Trouble::Throttled)] {
        proxy.next(&[Fault::Answer(status, "unseen")]);
        assert_eq!(trouble(store.confirm(&object.name, object.source())), wanted);
    }
    let first = store.confirm(&object.name, object.source()).expect("it is kept");
    // Asked for longer than it was put for: the lock is extended, and only what is seen to be extended is archived.
    let later = Object { sealed_us: object.sealed_us + 86_400_000_000, ..object };
    assert_eq!(trouble(store.confirm(&later.name, later.source())), Trouble::Conflict);
    let longer = store.confirm(&later.name, later.source()).expect("it is kept longer");
    assert_eq!(longer.retain_until_s, first.retain_until_s.map(|until| until + 86_400));
    assert_eq!(longer.version, first.version, "the same version");
    // What was done and not heard of is not done again.
    let object = Object::new(dir.path(), 100, "cut after");
    proxy.next(&[Fault::CutAfter]);
    assert_eq!(trouble(object.put(&store)), Trouble::Connection);
    assert_eq!(object.put(&store).expect("a repeat"), Put::AlreadyThere);
    assert_eq!(object.versions(&client).await, 1);
    // Nor what came too late.
    let object = Object::new(dir.path(), 101, "late");
    proxy.next(&[Fault::LateAnswer(Duration::from_secs(5))]);
    assert_eq!(trouble(object.put(&store)), Trouble::Timeout);
    assert_eq!(object.put(&store).expect("a repeat"), Put::AlreadyThere);
    assert_eq!(object.versions(&client).await, 1);
}

async fn taken_by_other_bytes(server: S3Server, takes_over_marker: bool) {
    server.create_locked_bucket(BUCKET).await;
    let client = server.client();
    let store = S3Store::open(settings(&server.endpoint())).expect("a store");
    let dir = tempfile::tempdir().expect("a folder");
    let (own, other) = (Object::new(dir.path(), 7, "own"), Object::new(dir.path(), 7, "another writer's"));
    assert_eq!(other.put(&store).expect("the first"), Put::Stored);
    match own.put(&store) {
        Err(error @ StoreError::Taken { .. }) => {
            assert!(!error.is_transient(), "{error}");
            let told = error.to_string();
            assert!(
                told.contains(&own.sha256.to_string()) && told.contains(&other.sha256.to_string()),
                "{told}"
            );
        }
        found => panic!("{found:?}"),
    }
    assert!(matches!(store.confirm(&own.name, own.source()), Err(StoreError::ReadBack { .. })));
    assert_eq!(own.versions(&client).await, 1, "nothing was put on top");
    // A file of the same length: only the checksum tells.
    let same = Object::new(dir.path(), 7, "another writer'S");
    assert!(matches!(same.put(&store), Err(StoreError::Taken { .. })));
    assert!(matches!(store.confirm(&same.name, same.source()), Err(StoreError::ReadBack { .. })));
    // Hidden by a delete marker: stored anew where the store takes it, else an error that says so; never `Taken`.
    client.delete_object().bucket(BUCKET).key(other.key()).send().await.expect("a delete marker");
    match other.put(&store) {
        Ok(Put::Stored) if takes_over_marker => assert_eq!(other.versions(&client).await, 2),
        Err(error @ StoreError::Service { .. }) if !takes_over_marker => {
            assert!(error.to_string().contains("delete marker"), "{error}");
            assert!(error.trouble().is_some_and(Trouble::needs_someone));
        }
        found => panic!("{found:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_name_that_other_bytes_have_is_an_alarm_on_minio() {
    if with_keys("a_name_that_other_bytes_have_is_an_alarm_on_minio") {
        taken_by_other_bytes(Minio::start(), true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_name_that_other_bytes_have_is_an_alarm_on_versitygw() {
    if with_keys("a_name_that_other_bytes_have_is_an_alarm_on_versitygw") {
        taken_by_other_bytes(Versitygw::start(), false).await;
    }
}

async fn held(server: S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let client = server.client();
    let plain = S3Store::open(settings(&server.endpoint())).expect("a store");
    let holding = S3Settings { legal_hold: true, ..settings(&server.endpoint()) };
    let holding = S3Store::open(holding).expect("a store");
    let dir = tempfile::tempdir().expect("a folder");
    let hold = async |object: &Object| {
        let head = client.head_object().bucket(BUCKET).key(object.key()).checksum_mode(ChecksumMode::Enabled);
        head.send().await.expect("a head").object_lock_legal_hold_status().cloned()
    };
    let object = Object::new(dir.path(), 0, "held");
    assert_eq!(object.put(&holding).expect("a put"), Put::Stored);
    assert!(holding.confirm(&object.name, object.source()).is_ok());
    assert_eq!(hold(&object).await, Some(ObjectLockLegalHoldStatus::On), "{}", server.name);
    // Put before the configuration asked for a hold: not archived before it has one.
    let object = Object::new(dir.path(), 1, "not held");
    assert_eq!(object.put(&plain).expect("a put"), Put::Stored);
    assert!(plain.confirm(&object.name, object.source()).is_ok());
    assert_ne!(hold(&object).await, Some(ObjectLockLegalHoldStatus::On));
    assert_eq!(object.put(&holding).expect("a repeat"), Put::AlreadyThere);
    assert_eq!(trouble(holding.confirm(&object.name, object.source())), Trouble::Conflict);
    assert_eq!(hold(&object).await, Some(ObjectLockLegalHoldStatus::On), "{}", server.name);
    assert!(holding.confirm(&object.name, object.source()).is_ok());
    assert_eq!(object.versions(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_legal_hold_is_put_and_seen_before_anything_is_archived() {
    if with_keys("a_legal_hold_is_put_and_seen_before_anything_is_archived") {
        held(Minio::start()).await;
        held(Versitygw::start()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn encryption_at_rest_is_asked_for_as_configured() {
    if !with_keys("encryption_at_rest_is_asked_for_as_configured") {
        return;
    }
    let server = Moto::start();
    server.create_locked_bucket(BUCKET).await;
    let client = server.client();
    let proxy = FaultProxy::start(server.address);
    let dir = tempfile::tempdir().expect("a folder");
    let key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let cases = [
        (Sse::Bucket, None, None),
        (Sse::S3, Some("AES256"), None),
        (Sse::Kms(key.into()), Some("aws:kms"), Some(key)),
    ];
    for (batch, (sse, mode, id)) in (0..).zip(cases) {
        let store = S3Store::open(S3Settings { sse, ..settings(&proxy.endpoint()) }).expect("a store");
        let object = Object::new(dir.path(), batch, "at rest");
        assert_eq!(object.put(&store).expect("a put"), Put::Stored);
        let handled = proxy.handled();
        let put = handled.last().expect("a request");
        let header = |name: &str| put.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(put.method, "PUT");
        assert_eq!(header("x-amz-server-side-encryption"), mode);
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id"), id);
        assert_eq!(header("if-none-match"), Some("*"));
        assert_eq!(header("x-amz-object-lock-mode"), Some("COMPLIANCE"));
        assert!(
            header("x-amz-checksum-sha256").is_some() && header("x-amz-object-lock-legal-hold").is_none()
        );
        let head = client.head_object().bucket(BUCKET).key(object.key()).send().await.expect("a head");
        if mode == Some("aws:kms") {
            assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
            assert_eq!(head.ssekms_key_id(), id);
        }
    }
}

/// What a store says of a bucket: `setting: found` of each fault, and of each warning.
fn judged(endpoint: &str, bucket: &str) -> (Vec<String>, Vec<String>) {
    let retention = Retention { records: 3 * DAY, content: 2 * DAY, classes: BTreeMap::new() };
    let settings = S3Settings { bucket: bucket.into(), retention, ..settings(endpoint) };
    let report = S3Store::open(settings).expect("a store").judge().expect("a report");
    let named = |faults: &[BucketFault]| {
        faults
            .iter()
            .map(|fault| {
                assert_eq!(fault.bucket, bucket);
                assert!(!fault.wanted.is_empty(), "{fault}");
                format!("{}: {}", fault.setting, fault.found)
            })
            .collect()
    };
    let mut warnings: Vec<String> = named(&report.warnings);
    // versitygw has no lifecycle rules.
    warnings.retain(|warning| !warning.starts_with("lifecycle: cannot be read (501"));
    (named(&report.faults), warnings)
}

fn default_retention(mode: ObjectLockRetentionMode, days: i32) -> ObjectLockConfiguration {
    let default = DefaultRetention::builder().mode(mode).days(days).build();
    ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(default).build())
        .build()
}

async fn settings_are_named(server: S3Server) {
    let (client, endpoint) = (server.client(), server.endpoint());
    let judged = |bucket: &str| judged(&endpoint, bucket);
    let nothing: Vec<String> = vec![];
    let bare = ["default retention: none".to_owned(), "policy: none".to_owned()];

    client.create_bucket().bucket("plain").send().await.expect("a bucket");
    let (faults, _) = judged("plain");
    assert_eq!(faults, ["versioning: off", "object lock: off"], "{}", server.name);
    let version = async |status| {
        let versioning = VersioningConfiguration::builder().status(status).build();
        let put = client.put_bucket_versioning().bucket("plain").versioning_configuration(versioning);
        put.send().await.expect("a setting");
    };
    version(BucketVersioningStatus::Enabled).await;
    assert_eq!(judged("plain").0, ["object lock: off"], "{}", server.name);
    version(BucketVersioningStatus::Suspended).await;
    assert_eq!(judged("plain").0, ["versioning: Suspended", "object lock: off"], "{}", server.name);

    server.create_locked_bucket("locked").await;
    assert_eq!(judged("locked"), (nothing.clone(), bare.to_vec()), "{}", server.name);
    for (mode, days, said) in [
        (ObjectLockRetentionMode::Governance, 3650, Some("default retention: GOVERNANCE, 3650 days")),
        (ObjectLockRetentionMode::Compliance, 1, Some("default retention: COMPLIANCE, 1 days")),
        (ObjectLockRetentionMode::Compliance, 2, None),
    ] {
        let put = client.put_object_lock_configuration().bucket("locked");
        put.object_lock_configuration(default_retention(mode, days)).send().await.expect("a setting");
        let warned = said.into_iter().chain(["policy: none"]).map(str::to_owned).collect();
        assert_eq!(judged("locked"), (nothing.clone(), warned), "{}", server.name);
    }
    // Who may delete: everybody whom no statement forbids it.
    for (denied, said) in [
        (r#""Principal":"*","Action":"s3:DeleteObject","Resource":"arn:aws:s3:::locked/*""#, None),
        (r#""Principal":{"AWS":["*"]},"Action":["s3:Delete*"],"Resource":"arn:aws:s3:::locked/a/*""#, None),
        (
            r#""Principal":"*","Action":"s3:DeleteObject","Resource":"arn:aws:s3:::locked/other/*""#,
            Some("policy: nothing in it denies `s3:DeleteObject` to everyone"),
        ),
        (
            r#""Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::locked/*""#,
            Some("policy: nothing in it denies `s3:DeleteObject` to everyone"),
        ),
    ] {
        let policy = format!(r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Deny",{denied}}}]}}"#);
        client.put_bucket_policy().bucket("locked").policy(policy).send().await.expect("a policy");
        let warned: Vec<String> = said.into_iter().map(str::to_owned).collect();
        assert_eq!(judged("locked"), (nothing.clone(), warned), "{}: {denied}", server.name);
    }
    if server.name == "minio" {
        let rule = LifecycleRule::builder()
            .id("sweep")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .expiration(LifecycleExpiration::builder().days(1).build());
        let rules = BucketLifecycleConfiguration::builder().rules(rule.build().expect("a rule"));
        let put = client.put_bucket_lifecycle_configuration().bucket("locked");
        put.lifecycle_configuration(rules.build().expect("rules")).send().await.expect("a setting");
        let (faults, warned) = judged("locked");
        assert!(faults.is_empty() && warned[0] == "lifecycle: rule `sweep` expires objects", "{warned:?}");
    }
    // What a role may not read is named with the permission, and is no fault.
    let proxy = FaultProxy::start(server.address);
    proxy.set(Fault::Answer(403, "AccessDenied"));
    let settings = S3Settings { bucket: "locked".into(), ..settings(&proxy.endpoint()) };
    let store = S3Store::open(settings).expect("a store");
    let report = store.judge().expect("a report");
    assert!(report.faults.is_empty(), "{report:?}");
    let unread: Vec<_> = report.warnings.iter().map(|w| (w.setting, w.wanted.as_str())).collect();
    for (setting, permission) in [
        ("versioning", "s3:GetBucketVersioning"),
        ("object lock", "s3:GetBucketObjectLockConfiguration"),
        ("lifecycle", "s3:GetLifecycleConfiguration"),
        ("policy", "s3:GetBucketPolicy"),
    ] {
        assert!(unread.iter().any(|(s, w)| *s == setting && w.contains(permission)), "{setting}: {unread:?}");
    }
    // A service that does not answer says nothing of the bucket.
    proxy.set(Fault::Status(503));
    assert_eq!(trouble(store.judge()), Trouble::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn each_setting_of_a_bucket_that_harms_evidence_is_named_on_minio() {
    if with_keys("each_setting_of_a_bucket_that_harms_evidence_is_named_on_minio") {
        settings_are_named(Minio::start()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn each_setting_of_a_bucket_that_harms_evidence_is_named_on_versitygw() {
    if with_keys("each_setting_of_a_bucket_that_harms_evidence_is_named_on_versitygw") {
        settings_are_named(Versitygw::start()).await;
    }
}

fn gateway_setup(provider: &Provider, endpoint: &str, more: &[(&str, String)]) -> Setup {
    let keys = S3Server::environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Setup {
        provider: provider.url(),
        out: format!(
            "{{ s3: {{ bucket: {BUCKET}, region: us-east-1, endpoint: '{endpoint}', path_style: true, timeout: 3s, \
             retention: {{ records: 2d, content: 1d }} }} }}"
        ),
        environment: keys.into_iter().chain(more).collect(),
        ..Setup::default()
    }
}

async fn one_call(gateway: &Gateway) {
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    let got = send(gateway.address, &Call::post("/openai/v1/chat/completions", &gateway.key, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_gateway_says_what_is_in_the_way_and_goes_on_when_it_is_gone() {
    let server = Versitygw::start();
    server.create_locked_bucket(BUCKET).await;
    let provider = Provider::start([]).await;
    let mut waits = tokio::task::JoinSet::new();
    // Each waits at least ten seconds before it tries again: all at once.
    for (status, code, word) in [
        (400, "ExpiredToken", "credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "AccessDenied", "denied"),
    ] {
        let proxy = FaultProxy::start(server.address);
        let dir = tempfile::tempdir().expect("a folder");
        let setup = gateway_setup(&provider, &proxy.endpoint(), &[]);
        let gateway = tokio::task::block_in_place(|| Gateway::start(dir.path(), &setup));
        waits.spawn(async move {
            let mut gateway = gateway;
            proxy.set(Fault::Answer(status, code));
            one_call(&gateway).await;
            let begun = Instant::now();
            let wanted = format!("ready: the store does not take batches ({word})");
            while !gateway.admin_get("/readyz").is_some_and(|said| said.contains(&wanted)) {
                assert!(begun.elapsed() < Duration::from_secs(20), "{word}:\n{}", gateway.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let metrics = gateway.admin_get("/metrics").unwrap_or_default();
            let line = format!("gateway_store_failures_total{{reason=\"{word}\"}} ");
            assert!(metrics.contains(&line), "{metrics}");
            assert!(gateway.log().contains("someone must act"), "{}", gateway.log());
            one_call(&gateway).await;
            proxy.set(Fault::Pass);
            let code = tokio::task::block_in_place(|| gateway.stop());
            assert_eq!(code, Some(0), "{}", gateway.log());
            assert!(gateway.log().contains("everything is archived"), "{}", gateway.log());
            drop(dir);
        });
    }
    while let Some(done) = waits.join_next().await {
        done.expect("a gateway that went on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs S3"]
async fn a_service_over_tls_is_used_where_its_certificate_is_trusted_and_only_there() {
    let mut server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let certs = server.folder().join("certs");
    std::fs::write(certs.join("public.crt"), made.cert.pem()).expect("a certificate's file");
    std::fs::write(certs.join("private.key"), made.signing_key.serialize_pem()).expect("a key's file");
    server.pause();
    server.resume();
    let endpoint = format!("https://localhost:{}", server.address.port());
    let provider = Provider::start([]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let ca = certs.join("public.crt").display().to_string();
    let setup = gateway_setup(&provider, &endpoint, &[("SSL_CERT_FILE", ca)]);
    let mut gateway = Gateway::start(&dir.path().join("trusting"), &setup);
    one_call(&gateway).await;
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    assert!(gateway.log().contains("everything is archived"), "{}", gateway.log());
    // Another gateway does not know the certificate: it must not start, and must say why.
    let setup = gateway_setup(&provider, &endpoint, &[]);
    let stranger = Gateway::prepare(&dir.path().join("stranger"), &setup);
    let output = Command::new(tests::binary("gateway"))
        .args(["serve", "-c"])
        .arg(stranger.dir.join("gateway.yaml"))
        .envs(S3Server::environment())
        .output()
        .expect("the gateway's binary");
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && said.contains("certificate"), "{said}");
}
