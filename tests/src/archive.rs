//! What a bucket holds, held against what the gateway promises of it: each name once, under lock, with its checksum.

use std::collections::BTreeMap;
use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{ChecksumMode, ObjectLockMode};
use base64::Engine as _;

use crate::services::S3Server;

/// The bucket of every test.
pub const BUCKET: &str = "evidence";
/// Where evidence stands in it.
pub const PREFIX: &str = "llm/evidence";
const DAY_S: i64 = 86_400;

/// The value of `evidence.out`, or a registrar's `out`, for this bucket.
pub fn out(endpoint: &str) -> String {
    out_below(endpoint, PREFIX)
}

/// As [`out`], where evidence stands below another prefix.
pub fn out_below(endpoint: &str, prefix: &str) -> String {
    format!(
        "{{ s3: {{ bucket: {BUCKET}, prefix: {prefix}, region: us-east-1, endpoint: '{endpoint}', path_style: true, \
         timeout: 3s, retention: {{ records: 3d, content: 2d, classes: {{ standard: 1d }} }} }} }}"
    )
}

/// The variables of a process that reaches the servers.
pub fn environment() -> Vec<(String, String)> {
    S3Server::environment().map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// What the bucket holds below `below`: each key with its versions, newest first, and how many delete markers there are.
///
/// # Panics
/// Where the server does not list.
pub async fn versions(client: &Client, below: &str) -> (BTreeMap<String, Vec<String>>, usize) {
    let (mut found, mut markers) = (BTreeMap::<String, Vec<String>>::new(), 0);
    let (mut key, mut version) = (None, None);
    loop {
        let page = client
            .list_object_versions()
            .bucket(BUCKET)
            .prefix(below)
            .set_key_marker(key.take())
            .set_version_id_marker(version.take())
            .send()
            .await
            .expect("a listing of versions");
        for object in page.versions() {
            let id = object.version_id().expect("a version's id").to_owned();
            found.entry(object.key().expect("a key").to_owned()).or_default().push(id);
        }
        markers += page.delete_markers().len();
        if page.is_truncated() != Some(true) {
            return (found, markers);
        }
        key = page.next_key_marker().map(str::to_owned);
        version = page.next_version_id_marker().map(str::to_owned);
    }
}

/// Checks every object of some logs, `<deployment>/<gateway>` or a part of it, and copies it to a folder where the auditor
/// looks. Gives how many there are.
///
/// # Panics
/// Where a name has two versions or a marker, or is not locked as [`out`] asks, or the checksum is another one.
pub async fn check_and_copy(server: &S3Server, logs: &str, store: &Path) -> usize {
    check_and_copy_below(server, PREFIX, logs, store).await
}

/// As [`check_and_copy`], below another prefix.
pub async fn check_and_copy_below(server: &S3Server, prefix: &str, logs: &str, store: &Path) -> usize {
    let client = server.client();
    let (found, markers) = versions(&client, &format!("{prefix}/{logs}")).await;
    assert_eq!(markers, 0, "{server:?}: something is hidden");
    let now = jiff::Timestamp::now().as_second();
    let (mut shortest, mut seals) = (i64::MAX, i64::MAX);
    for (key, ids) in &found {
        assert_eq!(ids.len(), 1, "{server:?}: `{key}` has versions {ids:?}");
        let head = client.head_object().bucket(BUCKET).key(key).version_id(&ids[0]);
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.expect("an object's head");
        assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance), "{key}");
        let left = head.object_lock_retain_until_date().expect("a date").secs() - now;
        let least = match key.as_str() {
            k if k.ends_with(".seal") || k.ends_with(".checkpoint") => 34 * DAY_S,
            k if k.ends_with(".records.parquet") => 3 * DAY_S,
            k if k.ends_with(".reference.parquet") => 33 * DAY_S,
            k if k.contains(".content-") => 2 * DAY_S,
            other => std::panic::panic_any(format!("an object that no seal names: {other}")),
        };
        assert!((least - 900..=least + DAY_S).contains(&left), "{key}: {left} s left, asked {least}");
        let least = if key.ends_with(".seal") { &mut seals } else { &mut shortest };
        *least = left.min(*least);
        let body = client.get_object().bucket(BUCKET).key(key).send().await.expect("an object");
        let body = body.body.collect().await.expect("its body").into_bytes();
        let digest = schemas::Sha256Hex::of(&body);
        let coded = base64::engine::general_purpose::STANDARD.encode(digest.0);
        assert_eq!(head.checksum_sha256(), Some(coded.as_str()), "{key}");
        let name = key.strip_prefix(prefix).and_then(|name| name.strip_prefix('/'));
        let path = store.join(name.expect("all is below the prefix"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, body).expect("a copy");
    }
    assert!(seals > shortest, "seals outlive what they name");
    // The newest and the oldest object cannot be deleted.
    for key in [found.keys().next(), found.keys().last()].into_iter().flatten() {
        let version = &found[key][0];
        let deleted = client.delete_object().bucket(BUCKET).key(key).version_id(version).send().await;
        assert!(deleted.is_err(), "{server:?}: a locked version of `{key}` was deleted");
        let head = client.head_object().bucket(BUCKET).key(key).version_id(version).send().await;
        head.expect("it is still there");
    }
    found.len()
}
