//! The S3 servers and the fault proxy that other tests stand on do what those take for granted.

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ObjectLockMode};
use base64::Engine as _;
use tests::services::{Fault, FaultProxy, Minio, Moto, S3Server, Versitygw};

async fn put_locked(client: &aws_sdk_s3::Client, key: &str) -> Result<(), u16> {
    let digest = schemas::Sha256Hex::of(b"evidence");
    let until = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    client
        .put_object()
        .bucket("evidence")
        .key(key)
        .if_none_match("*")
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .checksum_sha256(base64::engine::general_purpose::STANDARD.encode(digest.0))
        .object_lock_mode(ObjectLockMode::Compliance)
        .object_lock_retain_until_date(DateTime::from(until))
        .body(ByteStream::from_static(b"evidence"))
        .send()
        .await
        .map(|_| ())
        .map_err(|e| e.raw_response().map_or(0, |r| r.status().as_u16()))
}

async fn holds(server: &S3Server) {
    server.create_locked_bucket("evidence").await;
    let client = server.client();
    assert_eq!(put_locked(&client, "a").await, Ok(()), "{server:?}");
    assert_eq!(put_locked(&client, "a").await, Err(412), "{server:?}");
    let head = client
        .head_object()
        .bucket("evidence")
        .key("a")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .expect("the object's head");
    assert_eq!(head.object_lock_mode(), Some(&ObjectLockMode::Compliance), "{server:?}");
    let version = head.version_id().expect("a version");
    let deleted = client.delete_object().bucket("evidence").key("a").version_id(version).send().await;
    assert!(deleted.is_err(), "{server:?}: a locked version was deleted");
}

#[tokio::test]
#[ignore = "needs S3"]
async fn locked_objects_stay_on_every_server() {
    for server in [Minio::start(), Versitygw::start(), Moto::start()] {
        holds(&server).await;
    }
}

#[tokio::test]
#[ignore = "needs S3"]
async fn the_proxy_fails_as_it_is_told() {
    let mut server = Versitygw::start();
    server.create_locked_bucket("evidence").await;
    let proxy = FaultProxy::start(server.address);
    // One try each: what is tested is the proxy.
    let client = S3Server::client_at(&proxy.endpoint());
    let config =
        client.config().to_builder().retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled());
    let client = aws_sdk_s3::Client::from_conf(config.build());
    assert_eq!(put_locked(&client, "pass").await, Ok(()));
    proxy.next(&[Fault::Status(503), Fault::CutBefore, Fault::CutAfter]);
    assert_eq!(put_locked(&client, "x").await, Err(503));
    assert_eq!(put_locked(&client, "x").await, Err(0));
    assert_eq!(put_locked(&client, "x").await, Err(0), "the answer was cut");
    assert_eq!(put_locked(&client, "x").await, Err(412), "but it was done");
    proxy.set(Fault::Down);
    assert_eq!(put_locked(&client, "y").await, Err(0));
    proxy.set(Fault::Pass);
    assert_eq!(put_locked(&client, "y").await, Ok(()));
    server.pause();
    assert_eq!(put_locked(&client, "z").await, Err(0));
    server.resume();
    assert_eq!(put_locked(&client, "z").await, Ok(()), "its data and port are the same");
    assert_eq!(proxy.handled().iter().filter(|h| h.status == Some(200)).count(), 4);
}
