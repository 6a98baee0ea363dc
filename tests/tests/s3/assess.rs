//! `auditor assess` over a bucket: the locks of versions are facts, as a real server shows them.

use aws_sdk_s3::types::ObjectLockMode;
use serde_json::Value;
use tests::archive::BUCKET;
use tests::audited::{Case, Evidence, auditor, path};
use tests::services::Minio;

const PACK: &str = r#"
v: 1
name: day
title: A lock of a day
about: Test objects are locked for two days.
controls:
  - id: day
    title: Every object is locked for a day
    rule: { source: House rules, article: "1", read: primary, on: "2026-11-21" }
    asks: A lock of a day.
    needs: [obj]
    population: SELECT count(*) FROM obj WHERE sealed_at IS NOT NULL
    finds: |
      SELECT name, mode, retain_until FROM obj WHERE sealed_at IS NOT NULL
        AND (coalesce(mode, '') <> 'COMPLIANCE' OR retain_until < sealed_at + INTERVAL '1 day')
    fails: No way.
    supports: Locks.
    leaves_open: All else.
    cases:
      - name: locked
        rows: { obj: [{ name: a, mode: COMPLIANCE, sealed_at: "2026-01-01", retain_until: "2026-01-03" }] }
      - name: open
        rows: { obj: [{ name: a, sealed_at: "2026-01-01" }] }
        finds: [{ name: a }]
"#;

fn assess(case: &Case<'_>, more: &[&str]) -> (i32, Value) {
    assess_to(case, &Evidence::shared().to, more)
}

fn assess_to(case: &Case<'_>, to: &str, more: &[&str]) -> (i32, Value) {
    let (store, endpoint) = (format!("s3://{}/{}", case.bucket, case.prefix), case.server.endpoint());
    let trust = path(&case.trust);
    let words = ["assess", &store, "--trust", trust, "--to", to, "--state", path(case.state.path())];
    let remote = ["--endpoint-url", &endpoint, "--path-style", "--format", "json"];
    auditor(&[&words[..], &remote, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs S3"]
async fn locks_are_met_short_or_missing_as_the_bucket_shows_them() {
    let server = Minio::start();
    server.create_locked_bucket(BUCKET).await;
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("day.yaml");
    std::fs::write(&pack, PACK).expect("a pack");
    let sealed = Evidence::shared().objects.len() as u64;

    let whole = Case::new(&server, "whole", Some(ObjectLockMode::Compliance)).await;
    let six = ["--pack", "hipaa", "--control", "164.316-six-years"];
    let words = [&six[..], &["--pack", path(&pack), "--control", "day"]].concat();
    let (exit, assessment) = assess(&whole, &words);
    assert_eq!((exit, &assessment["verdict"]), (1, &"VERIFIED".into()), "{assessment:#}");
    let (years, day) = (&assessment["packs"][0]["controls"][0], &assessment["packs"][1]["controls"][0]);
    assert_eq!((&years["status"], &day["status"]), (&"exceptions".into(), &"met".into()), "{assessment:#}");
    assert_eq!((day["population"].as_u64(), day["exceptions"].as_u64()), (Some(sealed), Some(0)));
    assert!(
        years["exceptions"].as_u64() >= Some(3) && years["exceptions"] == years["population"],
        "{years:#}"
    );
    assert!(
        day["rests"].as_str().is_some_and(|rests| rests.contains(&format!("{sealed} of its {sealed}"))),
        "{day:#}"
    );

    // A second visit asks what was kept; a sample leaves locks unread, which is no pass.
    let day = ["--pack", path(&pack)];
    assert_eq!(assess(&whole, &day).0, 0);
    let (exit, assessment) = assess(&whole.anew(), &[&day[..], &["--lock-state", "sample:1"]].concat());
    let sampled = &assessment["packs"][0]["controls"][0];
    assert_eq!((exit, &sampled["status"]), (2, &"not_judged".into()), "{assessment:#}");
    assert!(sampled["why"].as_str().is_some_and(|why| why.contains("were not read")), "{sampled:#}");

    let open = Case::new(&server, "open", Some(ObjectLockMode::Governance)).await;
    let (exit, assessment) = assess(&open, &day);
    let found = &assessment["packs"][0]["controls"][0];
    assert_eq!((exit, found["exceptions"].as_u64()), (1, Some(sealed)), "{assessment:#}");

    // What is yet to come is not missing from the registry.
    let mut registered = whole.anew();
    registered.put_registry().await;
    let silent = ["--pack", "soc2", "--control", "cc7.2-unbroken"];
    let (_, assessment) = assess_to(&registered, "2100-01-01T00:00:00Z", &silent);
    let shown = &assessment["packs"][0]["controls"][0]["shown"];
    assert!(shown["rows"].is_array() && !shown.to_string().contains("registry"), "{assessment:#}");
    assert!(assessment["asked_to"].is_i64() && assessment["registry"].is_object(), "{assessment:#}");
    println!("{sealed} objects, 6 assessments");
}
