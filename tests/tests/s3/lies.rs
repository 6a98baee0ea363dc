//! A store that lies, or something before it: each lie is named, and what cannot be told is no pass.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use aws_sdk_s3::types::ObjectLockMode;
use http::Method;
use serde_json::Value;
use tests::archive::BUCKET;
use tests::audited::{Case, codes};
use tests::services::{Answer, Asked, Liar, Minio, S3Server, Versitygw};

fn named<'a>(transcript: &'a Value, outcome: &str) -> BTreeSet<&'a str> {
    let rows = transcript["rows"].as_array().unwrap_or_else(|| panic!("no transcript: {transcript:#}"));
    rows.iter().filter(|row| row["outcome"] == outcome).filter_map(|row| row["name"].as_str()).collect()
}

fn is_head(asked: &Asked) -> bool {
    asked.method == Method::HEAD
}

/// Moves every time of writing in a listing, and of a HEAD.
fn shift(asked: &Asked, answer: &mut Answer, seconds: i64) {
    let moved = |time: jiff::Timestamp| time + jiff::SignedDuration::from_secs(seconds);
    if asked.is_listing() {
        answer.rewrite("LastModified", |text| moved(text.parse().expect("a time")).to_string());
    }
    if is_head(asked) {
        let now = moved(jiff::Timestamp::now()).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        answer.header("last-modified", &now);
    }
}

async fn lies(server: &S3Server) {
    server.create_locked_bucket(BUCKET).await;
    let at = server.address;
    let whole = Case::new(server, "whole", Some(ObjectLockMode::Compliance)).await;
    let rewriting = async |lie: fn(&Asked, &mut Answer)| Liar::rewriting(at, lie).await.endpoint;

    // A role that may not read locks: a HEAD without lock says nothing then.
    let silent = |answer: &mut Answer| {
        answer.headers.remove("x-amz-object-lock-mode");
        answer.headers.remove("x-amz-object-lock-retain-until-date");
    };
    let denied = Liar::rewriting(at, move |asked, answer| {
        if is_head(asked) {
            silent(answer);
        } else if asked.target.contains("retention") {
            *answer = Answer::denied();
        }
    })
    .await;
    let (exit, report) = whole.anew().verify_at(&denied.endpoint, &[]);
    assert!(codes(&report).contains("PERMISSION_MISSING"), "{report:#}");
    assert_eq!(exit, 2, "{}: {report:#}", server.name);
    assert_eq!(
        (&report["bucket"]["read"], &report["bucket"]["unread"]),
        (&0.into(), &report["bucket"]["versions"])
    );

    // A HEAD that keeps silent where the caller may ask is asked about.
    let quiet = Liar::rewriting(at, move |asked, answer| {
        if is_head(asked) {
            silent(answer);
        }
    })
    .await;
    let (exit, report) = whole.anew().verify_at(&quiet.endpoint, &[]);
    assert!(codes(&report).contains("LOCK_CONTRADICTION"), "{report:#}");
    assert_eq!(exit, 0, "GetObjectRetention speaks where HEAD does not: {report:#}");
    // One that says something else is a finding.
    let false_head = rewriting(|asked, answer| {
        if is_head(asked) {
            answer.header("x-amz-object-lock-retain-until-date", "2099-01-01T00:00:00Z");
        }
    })
    .await;
    whole.anew().must_find_at(&false_head, "LOCK_CONTRADICTION", &[]);

    // A listing that says that it is whole, and leaves out one name: to one who was there, and to one who was not.
    let short = Liar::rewriting(at, |asked, answer| {
        let text = answer.text();
        if let Some(found) = text.find("0000000000.seal").filter(|_| asked.is_listing()) {
            let start = text[..found].rfind("<Version>").expect("its start");
            let end = found + text[found..].find("</Version>").expect("its end") + "</Version>".len();
            answer.say(format!("{}{}", &text[..start], &text[end..]));
        }
    })
    .await;
    whole.anew().must_find_at(&short.endpoint, "BATCH_MISSING", &[]);
    let there = whole.anew();
    short.lie(false);
    assert_eq!(there.verify_at(&short.endpoint, &[]).0, 0);
    short.lie(true);
    there.must_find_at(&short.endpoint, "LISTING_INCOMPLETE", &[]);

    // Checksums: of other bytes, and none.
    let other = rewriting(|asked, answer| {
        if is_head(asked) {
            answer.header("x-amz-checksum-sha256", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        }
    })
    .await;
    whole.anew().must_find_at(&other, "CHECKSUM_MISMATCH", &[]);

    // 40, 42: the store's clock against seals and the auditor's own.
    let behind = rewriting(|asked, answer| shift(asked, answer, -3600)).await;
    whole.anew().must_find_at(&behind, "TIME_CONTRADICTION", &[]);
    let ahead = rewriting(|asked, answer| shift(asked, answer, 3600)).await;
    whole.anew().must_find_at(&ahead, "STORE_CLOCK_SKEW", &[]);
    let (exit, transcript) = whole.anew().probe(&ahead, &[]);
    assert_eq!((exit, named(&transcript, "not_enforced").contains("clock")), (1, true), "{transcript:#}");

    // An object that is said to lie where it cannot be read at once.
    let cold = rewriting(|asked, answer| {
        if asked.is_listing() {
            answer.rewrite("StorageClass", |_| "DEEP_ARCHIVE".into());
        }
    })
    .await;
    let (exit, report) = whole.anew().verify_at(&cold, &[]);
    assert!(codes(&report).contains("STORAGE_CLASS_COLD"), "{report:#}");
    assert_eq!(exit, 2, "{}: {report:#}", server.name);

    policies(server, &whole).await;
}

/// Everything that the auditor asks of a bucket: the request, and the permission that it needs.
const ASKED: [(&str, &str); 12] = [
    ("?versioning", "s3:GetBucketVersioning"),
    ("?object-lock", "s3:GetBucketObjectLockConfiguration"),
    ("?lifecycle", "s3:GetLifecycleConfiguration"),
    ("?replication", "s3:GetReplicationConfiguration"),
    ("?policyStatus", "s3:GetBucketPolicyStatus"),
    ("?policy", "s3:GetBucketPolicy"),
    ("?acl", "s3:GetBucketAcl"),
    ("?publicAccessBlock", "s3:GetBucketPublicAccessBlock"),
    ("?encryption", "s3:GetEncryptionConfiguration"),
    ("?legal-hold", "s3:GetObjectLegalHold"),
    ("?retention", "s3:GetObjectRetention"),
    ("?versions", "s3:ListBucketVersions"),
];

/// Whether a request is that one, and no other whose name begins so.
fn is_for(asked: &Asked, what: &str) -> bool {
    let name = &what[1..];
    let query = asked.target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

/// The bucket with everything under hold, read by a HEAD that shows neither lock nor hold; one request is answered like this.
async fn without(server: &S3Server, what: &'static str, status: u16, code: &'static str) -> Liar {
    Liar::rewriting(server.address, move |asked, answer| {
        if is_head(asked) {
            for name in ["mode", "retain-until-date", "legal-hold"] {
                answer.headers.remove(format!("x-amz-object-lock-{name}"));
            }
        } else if asked.method == Method::GET && is_for(asked, what) {
            *answer = Answer::denied();
            answer.status = http::StatusCode::from_u16(status).expect("a status");
            answer.say(format!("<Error><Code>{code}</Code><Message>no</Message></Error>"));
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn whatever_the_auditor_may_not_ask_or_gets_no_answer_to_is_no_pass() {
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let case = Case::new(&server, "held", Some(ObjectLockMode::Compliance)).await;
    case.hold_all().await;
    let mandate = case.mandate("store: { holds: all }\n");
    let more = ["--mandate", tests::audited::path(&mandate)];
    let whole = without(&server, "?nothing", 403, "AccessDenied").await;
    let (exit, report) = case.anew().verify_at(&whole.endpoint, &more);
    assert_eq!(exit, 0, "{report:#}");
    for (what, permission) in ASKED {
        let denied = without(&server, what, 403, "AccessDenied").await;
        let (exit, report) = case.anew().verify_at(&denied.endpoint, &more);
        assert_eq!(exit, 2, "{permission}: {report:#}");
        assert!(report.to_string().contains(permission), "{permission}: {report:#}");
        if what != "?versions" {
            assert!(codes(&report).contains("PERMISSION_MISSING"), "{permission}: {report:#}");
        }
        // "No such bucket" is not "no such setting".
        let gone = without(&server, what, 404, "NoSuchBucket").await;
        let (exit, report) = case.anew().verify_at(&gone.endpoint, &more);
        assert_eq!(exit, 2, "{permission}, 404: {report:#}");
        // A function that the store does not have is listed, or could not be judged.
        let unknown = without(&server, what, 501, "NotImplemented").await;
        let (exit, report) = case.anew().verify_at(&unknown.endpoint, &more);
        let listed = report["not_checked"].to_string().contains("this store has no such function");
        assert!(exit == 2 || (exit == 0 && listed), "{permission}, 501: {exit} {report:#}");
    }
    // MinIO does not compare the owner that a request names: that the mandate's is the right one is not shown.
    let mandate = case.mandate("store: { owner: \"111122223333\" }\n");
    let (exit, report) = case.anew().verify(&["--mandate", tests::audited::path(&mandate)]);
    assert_eq!(exit, 2, "{report:#}");
    assert!(report.to_string().contains("does not compare owners"), "{report:#}");
    // Objects under no key of a key service are not under the one that the mandate names.
    let mandate = case.mandate("store: { kms_key: ours }\n");
    case.anew().must_find("ENCRYPTION_KEY", &["--mandate", tests::audited::path(&mandate)]);
}

/// A bucket policy that denies deletion below the evidence's prefix: there a probe sees the policy, and outside of it the
/// lock.
async fn policies(server: &S3Server, whole: &Case<'_>) {
    let policy = Liar::refusing(server.address, |asked| {
        let below = asked.target.starts_with("/evidence/whole/");
        let bypass = asked.headers.contains_key("x-amz-bypass-governance-retention");
        below && (asked.method == Method::DELETE || bypass)
    })
    .await;
    let case = whole.anew();
    let below = format!("s3://{BUCKET}/whole");
    let (exit, transcript) = tests::audited::probe(&policy.endpoint, &below, case.state.path(), &[]);
    assert_eq!(exit, 2, "{}: {transcript:#}", server.name);
    let told = named(&transcript, "not_judged");
    for row in ["may_delete", "may_change", "delete_version", "delete_version_bypass", "downgrade"] {
        assert!(told.contains(row), "{row}: {transcript:#}");
    }
    let (_, report) = case.verify_at(&policy.endpoint, &[]);
    assert!(report["claims"].to_string().contains("NOT probed"), "{report:#}");
    let (exit, transcript) = case.probe(&policy.endpoint, &[]);
    assert_eq!(exit, 0, "{}: {transcript:#}", server.name);
    let (exit, report) = case.verify_at(&policy.endpoint, &["--require", "retention_enforced"]);
    assert_eq!(exit, 0, "{}: {report:#}", server.name);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn every_lie_before_minio_is_named() {
    lies(&Minio::start()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn every_lie_before_versitygw_is_named() {
    lies(&Versitygw::start()).await;
}
