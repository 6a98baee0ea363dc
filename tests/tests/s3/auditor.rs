//! The auditor over buckets: what a real gateway wrote, put under lock by real S3 servers, then attacked.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ChecksumAlgorithm, DefaultRetention, DeleteMarkerReplication,
    DeleteMarkerReplicationStatus, Destination, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode, ObjectLockRule, PublicAccessBlockConfiguration, ReplicationConfiguration,
    ReplicationRule, ReplicationRuleFilter, ReplicationRuleStatus, ServerSideEncryption, StorageClass,
};
use base64::Engine as _;
use serde_json::Value;
use tests::archive::BUCKET;
use tests::audited::{Case, Evidence, codes, days, path};
use tests::services::{Liar, Minio, MinioKeys, Moto, S3Server, Versitygw};

fn seal() -> (&'static str, &'static [u8]) {
    Evidence::shared().seal()
}

fn compliance() -> Option<ObjectLockMode> {
    Some(ObjectLockMode::Compliance)
}

/// The rows of a transcript that came to something.
fn rows<'a>(transcript: &'a Value, outcome: &str) -> BTreeSet<&'a str> {
    let rows = transcript["rows"].as_array().unwrap_or_else(|| panic!("no transcript: {transcript:#}"));
    rows.iter().filter(|row| row["outcome"] == outcome).filter_map(|row| row["name"].as_str()).collect()
}

async fn attacks(server: &S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let endpoint = server.endpoint();

    // Untouched: verified, and locked; that the store keeps to it is claimed once it was probed, anywhere in the bucket.
    let whole = Case::new(server, "whole", compliance()).await;
    let report = whole.must_find("CLAIM_NOT_REACHED", &["--require", "retention_enforced"]);
    assert!(report["claims"].to_string().contains("NOT probed"), "{report:#}");
    let (exit, transcript) = whole.probe(&endpoint, &[]);
    assert_eq!(exit, 0, "{}: {transcript:#}", server.name);
    let (exit, report) = whole.verify(&["--require", "retention_enforced", "--require", "retention=1d"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    let claim = report["claims"].to_string();
    assert!(claim.contains("retention enforced") && claim.contains("probed at"), "{claim}");
    let versions = report["bucket"]["versions"].as_u64().expect("a count");
    assert_eq!(report["bucket"]["read"], versions, "{report:#}");
    let (exit, report) = whole.verify(&["--lock-state", "sample:1"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
    assert!(report["claims"].to_string().contains("NOT read of every version"), "{report:#}");
    whole.must_find("CLAIM_NOT_REACHED", &["--lock-state", "sample:1", "--require", "retention_enforced"]);
    whole.must_find("RETENTION_SHORT", &["--require", "retention=30d"]);
    since_last(server).await;

    // A probe that leaves out what matters, or is older than the mandate takes, does not count.
    let partly = Case::new(server, "partly", compliance()).await;
    let (exit, transcript) = partly.probe(&endpoint, &["--skip", "shorten"]);
    assert_eq!(exit, 0, "{}: {transcript:#}", server.name);
    let report = partly.must_find("CLAIM_NOT_REACHED", &["--require", "retention_enforced"]);
    assert!(report["claims"].to_string().contains("without shorten"), "{report:#}");
    let old = whole.mandate("claims: [retention_enforced]\nstore: { probed_within: 0s }\n");
    whole.must_find("CLAIM_NOT_REACHED", &["--mandate", path(&old)]);

    // 22: a delete marker. 23: a newer version. 24: a marker, then another object under the name.
    let (name, bytes) = seal();
    let marked = Case::new(server, "marked", compliance()).await;
    marked.mark(name).await;
    let report = marked.must_find("HIDDEN", &[]);
    let whose = if server.name == "versitygw" {
        "lifecycle rule's is not known: 501"
    } else {
        "ask who deleted the name"
    };
    assert!(report["findings"].to_string().contains(whose), "{report:#}");
    let shadowed = Case::new(server, "shadowed", compliance()).await;
    shadowed.put(name, b"another seal", compliance()).await;
    let report = shadowed.must_find("SHADOWED", &[]);
    assert!(
        !codes(&report).contains("SEAL_INVALID"),
        "the sealed version is the one that is verified: {report:#}"
    );
    let substituted = Case::new(server, "substituted", compliance()).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    substituted.mark(name).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    substituted.put(name, b"another seal", compliance()).await;
    // versitygw gives an older version another time when a marker is put: what it shows there is a newer version.
    substituted.must_find(if server.name == "versitygw" { "SHADOWED" } else { "SUBSTITUTED" }, &[]);
    let repeated = Case::new(server, "repeated", compliance()).await;
    repeated.put(name, bytes, compliance()).await;
    repeated.must_note("BENIGN_RETRY", &[]);

    // 4: a seal under another batch's name, its own being free.
    let moved = Case::empty(server, "moved");
    for (name, bytes) in &Evidence::shared().objects {
        let name = name.replace("0000000000.seal", "0000000009.seal");
        moved.put(&name, bytes, compliance()).await;
    }
    moved.must_find("PATH_MISMATCH", &[]);

    // 25, 26: no lock, and GOVERNANCE. An object that no seal names; one without the checksum of its name; one that was
    // written later than the mandate takes.
    Case::new(server, "plain", None).await.must_find("NOT_WORM", &[]);
    let governance = Case::new(server, "governance", Some(ObjectLockMode::Governance)).await;
    governance.must_find("NOT_WORM", &[]);
    let foreign = Case::new(server, "foreign", compliance()).await;
    foreign.put("note.txt", b"hello", compliance()).await;
    foreign.must_find("UNKNOWN_OBJECT", &[]);
    let unchecked = Case::empty(server, "unchecked");
    for (name, bytes) in &Evidence::shared().objects {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        let sum = base64::engine::general_purpose::STANDARD.encode(sum.sum().to_be_bytes());
        let put = unchecked.putting(name, bytes, compliance()).checksum_algorithm(ChecksumAlgorithm::Crc32);
        put.checksum_crc32(sum).send().await.expect("a PUT with another checksum");
    }
    unchecked.must_note("CHECKSUM_ABSENT", &[]);
    let late = whole.mandate("store: { late: 1s }\n");
    whole.must_find("LATE_WRITE", &["--mandate", path(&late)]);

    // 32: another bucket than the mandate names.
    let mandate = whole.mandate("store: { bucket: other }\n");
    whole.must_find("WRONG_SOURCE", &["--mandate", path(&mandate)]);

    unversioned(server).await;
}

/// What a visit that only looks at what is new counts and says, and what it must not pass over.
async fn since_last(server: &S3Server) {
    let case = Case::new(server, "since", compliance()).await;
    let bucket = |report: &Value, what: &str| report["bucket"][what].as_u64().expect("a count");
    let sums = |report: &Value| {
        let parts = ["read", "read_earlier", "left_out", "unread"].map(|what| bucket(report, what));
        assert_eq!(parts.iter().sum::<u64>(), bucket(report, "versions"), "{report:#}");
        parts
    };
    assert_eq!(case.probe(&server.endpoint(), &[]).0, 0);
    // A first visit with a sample; then the others, a few of them; then all that are left.
    let (exit, first) = case.verify(&["--lock-state", "sample:1"]);
    assert_eq!(exit, 0, "{}: {first:#}", server.name);
    let [read, earlier, left_out, _] = sums(&first);
    assert!((1..=2).contains(&read) && earlier == 0 && left_out > 0, "{first:#}");
    let (exit, second) = case.verify(&["--since-last", "--lock-state", "sample:1"]);
    assert_eq!(exit, 0, "{}: {second:#}", server.name);
    let [more, earlier, left, _] = sums(&second);
    assert_eq!((earlier, left), (read, left_out - more), "{second:#}");
    let said = second["not_checked"].to_string();
    let wanted = format!("lock state of {left} of {} versions: a sample was asked for", read + left_out);
    assert!(said.contains(&wanted), "{wanted} in {said}");
    assert!(said.contains(&format!("lock state of {earlier} of ")), "{said}");
    assert!(second["claims"].to_string().contains("NOT read of every version"), "{second:#}");
    let required = ["--since-last", "--require", "retention_enforced", "--require", "append_only"];
    let (exit, third) = case.verify(&required);
    assert_eq!(exit, 0, "{}: {third:#}", server.name);
    assert_eq!(sums(&third), [left, read + more, 0, 0], "{third:#}");
    assert_eq!(bucket(&third, "locked"), bucket(&third, "versions"), "{third:#}");
    let (exit, fourth) = case.verify(&required);
    assert_eq!((exit, bucket(&fourth, "read")), (0, 0), "{fourth:#}");
    assert!(fourth["not_checked"].to_string().contains("read at an earlier visit, not again"));
    // Another mandate: nothing counts as read.
    case.must_find("RETENTION_SHORT", &["--since-last", "--require", "retention=30d"]);
    let (exit, fifth) = case.verify(&required);
    assert_eq!((exit, bucket(&fifth, "read_earlier")), (0, 0), "{fifth:#}");
    // What was found once is found again.
    case.put("note.txt", b"hello", None).await;
    for _ in 0..2 {
        case.must_find("NOT_WORM", &["--since-last"]);
    }
}

/// A bucket without versioning: what is in it has no version ids and no locks.
async fn unversioned(server: &S3Server) {
    let bucket = "unversioned";
    server.client().create_bucket().bucket(bucket).send().await.expect("a bucket");
    let case = Case { bucket: bucket.into(), ..Case::empty(server, "plain") };
    case.put_all(None).await;
    let report = case.must_find("NULL_VERSION", &[]);
    assert!(codes(&report).contains("NOT_WORM"), "{report:#}");
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

/// Legal holds: those that the mandate asks for, and those that were there at the last visit.
async fn holds(server: &S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let case = Case::new(server, "holds", compliance()).await;
    let (name, _) = seal();
    let log = name.rsplit_once('/').expect("a folder").0;
    let asking = |case: &Case<'_>, holds: &str| case.mandate(&format!("store: {{ holds: {holds} }}\n"));
    let (exit, report) = case.verify(&[]);
    assert_eq!((exit, &report["bucket"]["holds"]), (0, &0.into()), "{report:#}");
    assert!(report["not_checked"].to_string().contains("must be under a legal hold"), "{report:#}");
    let all = asking(&case, "all");
    let report = case.must_find("HOLD_MISSING", &["--mandate", path(&all)]);
    assert_eq!(report["findings"]["counts"]["HOLD_MISSING"], report["bucket"]["versions"]);
    // All but one of them; a log, and what is not there.
    case.hold_all().await;
    let (exit, report) = case.verify(&["--mandate", path(&all)]);
    assert_eq!((exit, &report["bucket"]["holds"]), (0, &report["bucket"]["versions"]), "{report:#}");
    assert!(!report["not_checked"].to_string().contains("must be under a legal hold"), "{report:#}");
    let (exit, report) = case.verify(&["--lock-state", "sample:1", "--mandate", path(&all)]);
    assert!(report["not_checked"].to_string().contains("that should be under one"), "{exit} {report:#}");
    let only = asking(&case, &format!("[{log}]"));
    assert_eq!(case.verify(&["--mandate", path(&only)]).0, 0);
    let nowhere = asking(&case, &format!("[{log}, {log}0]"));
    let report = case.must_find("HOLD_MISSING", &["--mandate", path(&nowhere)]);
    assert_eq!(report["findings"]["counts"]["HOLD_MISSING"], 1, "{report:#}");
    // A hold that was lifted is told at the next visit, whatever is asked; it stays missing where it is asked for.
    assert_eq!(case.verify(&["--since-last"]).0, 0);
    case.hold(name, false).await;
    let report = case.must_find("HOLD_LIFTED", &["--since-last"]);
    assert_eq!(report["findings"]["counts"]["HOLD_LIFTED"], 1, "{report:#}");
    assert!(!codes(&report).contains("HOLD_MISSING"), "{report:#}");
    assert_eq!(case.verify(&["--since-last"]).0, 0, "told once");
    let all = asking(&case, "all");
    for _ in 0..2 {
        case.must_find("HOLD_MISSING", &["--since-last", "--mandate", path(&all)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn legal_holds_are_held_against_the_mandate_and_the_last_visit_on_minio() {
    holds(&Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn legal_holds_are_held_against_the_mandate_and_the_last_visit_on_versitygw() {
    holds(&Versitygw::start()).await;
}

/// A bucket that says that it locks what comes without a lock; `applied`: whether the store does so. Both stores leave
/// what comes with a legal hold that is off without one.
async fn defaults(server: &S3Server, applied: bool) {
    server.create_locked_bucket(BUCKET).await;
    let rule = DefaultRetention::builder().mode(ObjectLockRetentionMode::Compliance).days(1).build();
    let configuration = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(rule).build());
    let put = server.client().put_object_lock_configuration().bucket(BUCKET);
    put.object_lock_configuration(configuration.build()).send().await.expect("default retention");
    let case = Case::empty(server, "defaults");
    let (exit, transcript) = case.probe(&server.endpoint(), &[]);
    let outcome = if applied { "as_required" } else { "not_enforced" };
    assert!(rows(&transcript, outcome).contains("default_retention"), "{transcript:#}");
    assert!(rows(&transcript, "not_enforced").contains("hold_off"), "{transcript:#}");
    assert_eq!(exit, 1, "{transcript:#}");
    let (exit, transcript) = case.probe(&server.endpoint(), &["--skip", "hold_off"]);
    assert_eq!(exit, i32::from(!applied), "{transcript:#}");
    assert!(rows(&transcript, "not_tried").contains("hold_off"), "{transcript:#}");
    if !applied {
        return;
    }
    // What comes without lock headers loses its lock on the way.
    let liar = Liar::rewriting(server.address, |asked, answer| {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        if path.ends_with("/default_retention") && query.contains("retention") {
            answer.status = http::StatusCode::NOT_FOUND;
            answer.say("<Error><Code>NoSuchObjectLockConfiguration</Code></Error>");
        }
    })
    .await;
    let (exit, transcript) = case.probe(&liar.endpoint, &["--skip", "hold_off"]);
    assert!(rows(&transcript, "not_enforced").contains("default_retention"), "{transcript:#}");
    assert_eq!(exit, 1, "{transcript:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_bucket_s_default_retention_is_probed_on_minio() {
    defaults(&Minio::start(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_bucket_s_default_retention_is_probed_on_versitygw() {
    defaults(&Versitygw::start(), false).await;
}

/// A rule that expires what is below a prefix.
fn expires(prefix: &str, days: i32) -> BucketLifecycleConfiguration {
    let rule = LifecycleRule::builder()
        .id("tidy")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .expiration(LifecycleExpiration::builder().days(days).build());
    BucketLifecycleConfiguration::builder().rules(rule.build().expect("a rule")).build().expect("rules")
}

async fn lifecycle(server: &S3Server) {
    let case = Case::new(server, "whole", compliance()).await;
    let set = async |rules| {
        let put = server.client().put_bucket_lifecycle_configuration().bucket(BUCKET);
        put.lifecycle_configuration(rules).send().await.expect("lifecycle rules");
    };
    set(expires("elsewhere/", 1)).await;
    let (exit, report) = case.verify(&[]);
    assert_eq!(exit, 0, "a rule for another prefix: {report:#}");
    set(expires("who", 1)).await;
    case.must_find("EXPIRY_BEFORE_RETENTION", &[]);
    set(expires("", 30)).await;
    let (exit, report) = case.verify(&[]);
    assert_eq!(exit, 0, "a rule behind the retention: {report:#}");
    case.must_find("EXPIRY_BEFORE_RETENTION", &["--require", "retention=60d"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_rule_that_expires_early_and_a_public_bucket_are_named_on_minio() {
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    lifecycle(&server).await;
    let case = Case::new(&server, "public", compliance()).await;
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:ListBucket","s3:GetBucketLocation","s3:ListBucketMultipartUploads"],
         "Resource":["arn:aws:s3:::evidence"]},
        {"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetObject","s3:PutObject","s3:DeleteObject",
         "s3:AbortMultipartUpload","s3:ListMultipartUploadParts"],"Resource":["arn:aws:s3:::evidence/*"]}]}"#;
    server.client().put_bucket_policy().bucket(BUCKET).policy(policy).send().await.expect("a policy");
    case.must_find("PUBLIC_ACCESS", &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn what_moto_can_be_set_to_is_named() {
    // moto's other answers differ from AWS's, so that nothing is VERIFIED there: only the codes are looked at.
    let server = Moto::start();
    server.create_locked_bucket(BUCKET).await;
    let client = server.client();

    // The block of public access: off is a note, on is said.
    let case = Case::new(&server, "block", compliance()).await;
    assert!(codes(&case.verify(&[]).1).contains("PUBLIC_ACCESS"));
    for on in [false, true] {
        let block =
            PublicAccessBlockConfiguration::builder().block_public_acls(true).ignore_public_acls(true);
        let block = block.block_public_policy(on).restrict_public_buckets(on).build();
        client
            .put_public_access_block()
            .bucket(BUCKET)
            .public_access_block_configuration(block)
            .send()
            .await
            .expect("a block of public access");
        let report = case.verify(&[]).1;
        assert_eq!(codes(&report).contains("PUBLIC_ACCESS"), !on, "{report:#}");
    }
    assert!(case.verify(&[]).1["bucket"]["settings"].to_string().contains("public access is blocked"));

    // A copy elsewhere is told.
    server.create_locked_bucket("copies").await;
    let rule = ReplicationRule::builder()
        .id("copy")
        .priority(1)
        .status(ReplicationRuleStatus::Enabled)
        .filter(ReplicationRuleFilter::builder().prefix("").build())
        .delete_marker_replication(
            DeleteMarkerReplication::builder().status(DeleteMarkerReplicationStatus::Disabled).build(),
        )
        .destination(Destination::builder().bucket("arn:aws:s3:::copies").build().expect("a destination"));
    let rules = ReplicationConfiguration::builder()
        .role("arn:aws:iam::123456789012:role/copy")
        .rules(rule.build().expect("a rule"));
    client
        .put_bucket_replication()
        .bucket(BUCKET)
        .replication_configuration(rules.build().expect("rules"))
        .send()
        .await
        .expect("replication");
    let report = case.verify(&[]).1;
    assert!(codes(&report).contains("REPLICATED"), "{report:#}");
    assert!(report["not_checked"].to_string().contains("verify them by themselves"), "{report:#}");

    // An object that was moved where it cannot be read at once.
    let cold = Case::empty(&server, "cold");
    for (name, bytes) in &Evidence::shared().objects {
        let class = name.contains("records").then_some(StorageClass::Glacier);
        let put = cold.putting(name, bytes, compliance()).set_storage_class(class);
        put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.expect("a PUT");
    }
    let (exit, report) = cold.verify(&[]);
    assert!(codes(&report).contains("STORAGE_CLASS_COLD"), "{report:#}");
    assert_ne!(exit, 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn the_key_that_encrypts_evidence_is_named_and_its_loss_is_no_pass() {
    let keys = MinioKeys::default();
    let mut server = Minio::start_with(keys.clone());
    server.create_locked_bucket(BUCKET).await;
    let case = Case::empty(&server, "encrypted");
    for (name, bytes) in &Evidence::shared().objects {
        let put = case.putting(name, bytes, compliance()).checksum_algorithm(ChecksumAlgorithm::Sha256);
        let put = put.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(MinioKeys::NAME);
        put.send().await.expect("a PUT under a key");
    }
    case.must_note("ENCRYPTION_KEY", &[]);
    let other = case.mandate("store: { kms_key: another-key }\n");
    case.must_find("ENCRYPTION_KEY", &["--mandate", path(&other)]);
    let (state, prefix) = (case.state, case.prefix);
    server.pause();
    keys.destroy();
    server.resume();
    let case = Case { state, ..Case::empty(&server, &prefix) };
    let (exit, report) = case.verify(&[]);
    assert!(codes(&report).contains("COULD_NOT_READ"), "{report:#}");
    assert_ne!(exit, 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn a_store_that_forgets_its_locks_is_named_by_the_probe_and_by_the_next_visit() {
    let server = Moto::start();
    server.create_locked_bucket(BUCKET).await;
    let case = Case::new(&server, "reduced", compliance()).await;
    let (exit, transcript) = case.probe(&server.endpoint(), &[]);
    assert_eq!(exit, 1, "{transcript:#}");
    let failed = rows(&transcript, "not_enforced");
    for row in ["shorten", "suspend_versioning"] {
        assert!(failed.contains(row), "{row}: {transcript:#}");
    }
    // What the probe found in one place counts for the bucket.
    case.must_find("STORE_NOT_WORM", &[]);

    // 27: retention is reduced between two visits; then the version is deleted.
    let case = case.anew();
    assert!(!codes(&case.verify(&[]).1).contains("RETENTION_REDUCED"));
    let (name, _) = seal();
    let versions = case.client.list_object_versions().bucket(BUCKET).prefix(case.key(name)).send().await;
    let version = versions.expect("versions").versions()[0].version_id().expect("an id").to_owned();
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
    for more in [&[][..], &["--since-last"]] {
        case.must_find("RETENTION_REDUCED", more);
    }
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
