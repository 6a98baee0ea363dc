//! An S3 bucket under Object Lock as store.
//!
//! ```text
//! put     = one PutObject: If-None-Match: *, x-amz-checksum-sha256, lock mode, retain-until, legal hold
//!           412 = the name is taken: equal bytes are success, others the alarm
//! confirm = HeadObject with ChecksumMode: version, length, checksum, mode, retain-until, legal hold where it was asked
//! ```
//! One PUT and never a multipart upload: only then is the stored SHA-256 the file's own. The SDK's retries are off;
//! every failure is sorted ([`Trouble`]) and tried again by the shipper. A put whose answer was lost is tried again,
//! meets 412 and its own bytes: no second version comes of it.
//!
//! Sources: [PutObject](https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html),
//! [conditional writes](https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html),
//! [Object Lock](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html).

mod bucket;
mod call;
mod file;
mod retention;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode,
    ObjectLockRetention, ObjectLockRetentionMode, ServerSideEncryption,
};
use aws_smithy_http_client::tls;
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use schemas::{ObjectName, Origin, Sha256Hex};

use self::call::Failed;
use self::file::ObjectFile;
use self::worker::Worker;
use super::{Put, Receipt, Source, Store, StoreError, Trouble, hash_file};
use crate::disk::DiskFile;

pub use bucket::{BucketFault, BucketReport};
pub use retention::Retention;

/// Permissions, as named in messages and in `deploy/s3`.
const PUT_NEEDS: &str =
    "`s3:PutObject` and `s3:PutObjectRetention` (with a legal hold `s3:PutObjectLegalHold` too)";
const HEAD_NEEDS: &str = "`s3:GetObject`, and `s3:ListBucket` to tell what is not there";
const RETENTION_NEEDS: &str = "`s3:GetObjectRetention`";
const HOLD_NEEDS: &str = "`s3:GetObjectLegalHold` and `s3:PutObjectLegalHold`";
/// Parts of a list with nothing in them that are borne.
const EMPTY_PAGES: usize = 1000;
/// The slowest transfer that is waited for.
const BYTES_PER_SECOND: u64 = 256 << 10;

/// How objects are encrypted at rest by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sse {
    /// As the bucket says.
    Bucket,
    /// Under keys of S3 itself.
    S3,
    /// Under a KMS key. Who destroys the key makes locked evidence unreadable.
    Kms(String),
}

/// Everything that the store needs to know.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What stands before every name; no `/` at its ends; empty for nothing.
    pub prefix: String,
    /// Region; absent: as the environment says.
    pub region: Option<String>,
    /// URL of the service; absent: AWS.
    pub endpoint: Option<String>,
    /// `<endpoint>/<bucket>/<key>` instead of `<bucket>.<endpoint>/<key>`.
    pub path_style: bool,
    /// Encryption at rest.
    pub sse: Sse,
    /// GOVERNANCE instead of COMPLIANCE: whoever has the bypass permission can delete.
    pub governance: bool,
    /// How long objects are kept.
    pub retention: Retention,
    /// Whether every object gets a legal hold too.
    pub legal_hold: bool,
    /// Whether a bucket without lock is accepted: objects are put without retention then. One that can lock does, and
    /// nothing is put before it is known which of the two it is.
    pub without_lock: bool,
    /// The longest wait for an answer; transfers get more by their length.
    pub timeout: Duration,
}

/// Objects in a bucket.
#[derive(Debug)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    settings: S3Settings,
    worker: Worker,
    /// Whether objects are locked, where the bucket was judged.
    locks: Mutex<Option<bool>>,
}

impl S3Store {
    /// Makes a client with the usual credential chain (environment, profile, web identity, container, instance). Asks
    /// the bucket nothing: see [`S3Store::judge`].
    ///
    /// # Errors
    /// The system has no threads.
    pub fn open(settings: S3Settings) -> std::io::Result<Self> {
        let worker = Worker::start()?;
        let timeout = settings.timeout;
        let wanted = settings.clone();
        let client = worker.run(timeout, async move { client(&wanted).await }).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::TimedOut, "no S3 configuration in time")
        })?;
        Ok(Self { shared: Arc::new(Shared { client, settings, worker, locks: Mutex::default() }) })
    }

    /// What the bucket is, held against what evidence needs. With `without_lock` it is also decided whether objects are
    /// locked: they are, unless the bucket was found to be without lock.
    ///
    /// # Errors
    /// The service does not answer, or not to these credentials; nothing is decided.
    pub fn judge(&self) -> Result<BucketReport, StoreError> {
        self.shared.judge()
    }
}

async fn client(settings: &S3Settings) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
        .read_timeout(settings.timeout)
        .build();
    let base = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&base)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(settings.path_style);
    if base.region().is_none() {
        config = config.region(Region::new("us-east-1"));
    }
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

impl Shared {
    /// Makes one call; `bytes` are what it moves at most.
    fn call<T, E>(
        &self,
        bytes: u64,
        work: impl Future<Output = Result<T, SdkError<E>>> + Send + 'static,
    ) -> Result<T, Failed>
    where
        T: Send + 'static,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let bound = self.settings.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND);
        match self.worker.run(bound, async move { work.await.map_err(|error| Failed::of(&error)) }) {
            Some(result) => result,
            None => Err(Failed::timeout()),
        }
    }

    fn judge(&self) -> Result<BucketReport, StoreError> {
        let report = bucket::judge(self)?;
        let locks = !self.settings.without_lock || report.faults.is_empty();
        *self.locks.lock().unwrap_or_else(PoisonError::into_inner) = Some(locks);
        Ok(report)
    }

    /// Whether objects are locked. A bucket that may be without lock and could not be judged yet is judged now.
    fn locks(&self) -> Result<bool, StoreError> {
        if !self.settings.without_lock {
            return Ok(true);
        }
        if let Some(locks) = *self.locks.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(locks);
        }
        let report = self.judge()?;
        for fault in &report.faults {
            tracing::warn!(%fault, "accepted by `without_lock`: evidence can be deleted");
        }
        Ok(report.faults.is_empty())
    }

    fn key(&self, name: &str) -> String {
        match self.settings.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, Failed> {
        let call = self.client.head_object().bucket(&self.settings.bucket).key(key);
        let call = call.checksum_mode(ChecksumMode::Enabled);
        match self.call(0, call.send()) {
            Ok(head) => Ok(Some(head)),
            // A HEAD's answer has no body and so no code: that the bucket is missing is told by the next put.
            Err(failed) if failed.status == 404 && !failed.is("NoSuchBucket") => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Reads `count` bytes from `offset` on, or fewer where the object ends; never more, whatever the server sends.
    fn get_range(
        &self,
        key: &str,
        version: Option<&str>,
        offset: u64,
        count: usize,
    ) -> Result<Bytes, Failed> {
        let bytes = count as u64;
        let range = format!("bytes={offset}-{}", offset.saturating_add(bytes).saturating_sub(1));
        let call = self.client.get_object().bucket(&self.settings.bucket).key(key).range(range);
        let call = call.set_version_id(version.map(str::to_owned));
        let bound = self.settings.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND);
        let work = async move {
            let mut got = call.send().await.map_err(|error| Failed::of(&error))?;
            let failed = |trouble, detail| Failed { status: 200, code: None, trouble, detail };
            let wrong = |detail: String| failed(Trouble::Refused, detail);
            match got.content_range() {
                Some(told) if !told.starts_with(&format!("bytes {offset}-")) => {
                    return Err(wrong(format!("bytes from {offset} on were asked for, it sends `{told}`")));
                }
                None if offset > 0 => return Err(wrong("a range was asked for, it sends the whole".into())),
                _ => {}
            }
            let mut body = BytesMut::new();
            while let Some(piece) = got.body.next().await {
                let piece = piece.map_err(|error| failed(Trouble::Connection, error.to_string()))?;
                if body.len() + piece.len() > count {
                    return Err(wrong(format!("{count} bytes were asked for, it sends more")));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body.freeze())
        };
        self.worker.run(bound, work).unwrap_or_else(|| Err(Failed::timeout()))
    }

    /// SHA-256 of what is stored: by the store's own checksum, else by reading all of it.
    fn digest(self: &Arc<Self>, name: &ObjectName, head: &HeadObjectOutput) -> Result<Sha256Hex, StoreError> {
        let stored = head.checksum_sha256().and_then(|text| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            bytes.try_into().ok().map(Sha256Hex)
        });
        match stored {
            Some(digest) => Ok(digest),
            // Stored without a checksum, or in parts.
            None => {
                let file = self.file(name, head);
                let read = hash_file(&file);
                read.map(|(_, digest)| digest).map_err(|source| StoreError::Io {
                    action: "cannot read",
                    name: name.to_string(),
                    source,
                })
            }
        }
    }

    fn file(self: &Arc<Self>, name: &ObjectName, head: &HeadObjectOutput) -> ObjectFile {
        ObjectFile {
            shared: Arc::clone(self),
            key: self.key(&name.to_string()),
            version: head.version_id().filter(|version| *version != "null").map(str::to_owned),
            length: head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
        }
    }

    fn mode(&self) -> ObjectLockMode {
        if self.settings.governance { ObjectLockMode::Governance } else { ObjectLockMode::Compliance }
    }

    /// The name is taken: by these bytes, or by others?
    fn taken(self: &Arc<Self>, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        let key = self.key(&name.to_string());
        let head = self.head(&key).map_err(|failed| failed.store("cannot look at", &key, HEAD_NEEDS))?;
        let Some(head) = head else {
            let detail =
                "the name is refused as taken, and nothing is under it: is it hidden by a delete marker?";
            return Err(StoreError::Service {
                action: "cannot put",
                name: key,
                trouble: Trouble::Refused,
                detail: detail.into(),
            });
        };
        let found = self.digest(name, &head)?;
        if found == *source.sha256 {
            return Ok(Put::AlreadyThere);
        }
        Err(StoreError::Taken { name: name.to_string(), expected: *source.sha256, found })
    }

    /// Whether a version is locked as was asked; until when, seconds UTC.
    fn locked(
        &self,
        name: &ObjectName,
        source: Source<'_>,
        head: &HeadObjectOutput,
        version: &str,
    ) -> Result<i64, StoreError> {
        let key = self.key(&name.to_string());
        let asked = self.settings.retention.until_s(name, source.sealed_us);
        let mut mode = head.object_lock_mode().map(|mode| mode.as_str().to_owned());
        let mut until = head.object_lock_retain_until_date().map(DateTime::secs);
        if mode.is_none() || until.is_none() {
            // Absent for want of a permission, or because there is no lock: this call tells which.
            let call = self.client.get_object_retention().bucket(&self.settings.bucket).key(&key);
            match self.call(0, call.version_id(version).send()) {
                Ok(got) => {
                    mode = got.retention().and_then(|r| r.mode()).map(|mode| mode.as_str().to_owned());
                    until = got.retention().and_then(|r| r.retain_until_date()).map(DateTime::secs);
                }
                // An expired token has status 400 too: only the word tells.
                Err(failed) if failed.says_no_lock() || failed.is("InvalidRequest") => {}
                Err(failed) => {
                    return Err(failed.store("cannot read the retention of", key, RETENTION_NEEDS));
                }
            }
        }
        let (Some(mode), Some(until)) = (mode, until) else {
            let found = "no lock on the stored version".to_owned();
            return Err(StoreError::ReadBack { name: name.to_string(), found });
        };
        let strong = mode == "COMPLIANCE" || self.settings.governance && mode == "GOVERNANCE";
        if !strong {
            let found = format!("lock mode {mode}, asked was {}", self.mode().as_str());
            return Err(StoreError::ReadBack { name: name.to_string(), found });
        }
        if until >= asked {
            return Ok(until);
        }
        // Put under a shorter retention, before the configuration was changed: a lock can be made longer.
        let retention = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::from(mode.as_str()))
            .retain_until_date(DateTime::from_secs(asked))
            .build();
        let call = self.client.put_object_retention().bucket(&self.settings.bucket).key(&key);
        self.call(0, call.version_id(version).retention(retention).send()).map_err(|failed| {
            failed.store("cannot extend the retention of", &key, "`s3:PutObjectRetention`")
        })?;
        Err(StoreError::Service {
            action: "must look again at",
            name: key,
            trouble: Trouble::Conflict,
            detail: format!("it was kept until {until}, seconds since 1970; it was extended to {asked}"),
        })
    }

    /// Whether a version has its legal hold. One that was put before the configuration asked for it gets it now.
    fn held(&self, name: &ObjectName, head: &HeadObjectOutput, version: &str) -> Result<(), StoreError> {
        let on = |status: Option<&ObjectLockLegalHoldStatus>| status == Some(&ObjectLockLegalHoldStatus::On);
        if on(head.object_lock_legal_hold_status()) {
            return Ok(());
        }
        let key = self.key(&name.to_string());
        let bucket = &self.settings.bucket;
        // Absent for want of a permission, or because there is none: this call tells which.
        let call = self.client.get_object_legal_hold().bucket(bucket).key(&key).version_id(version);
        match self.call(0, call.send()) {
            Ok(got) if on(got.legal_hold().and_then(|hold| hold.status())) => return Ok(()),
            Ok(_) => {}
            Err(failed) if failed.says_no_lock() || failed.is("InvalidRequest") => {}
            Err(failed) => return Err(failed.store("cannot read the legal hold of", key, HOLD_NEEDS)),
        }
        let hold = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On).build();
        let call = self.client.put_object_legal_hold().bucket(bucket).key(&key).version_id(version);
        self.call(0, call.legal_hold(hold).send())
            .map_err(|failed| failed.store("cannot put a legal hold on", &key, HOLD_NEEDS))?;
        Err(StoreError::Service {
            action: "must look again at",
            name: key,
            trouble: Trouble::Conflict,
            detail: "it had no legal hold; it got one".into(),
        })
    }

    /// Lists below `prefix` to the end: keys, and the parts behind it up to the next `/`.
    fn list(&self, prefix: &str) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let (mut keys, mut folders) = (Vec::new(), Vec::new());
        let mut next: Option<String> = None;
        let (mut asked, mut empty) = (BTreeSet::new(), 0);
        let wrong = |detail: &str| StoreError::Service {
            action: "cannot list",
            name: prefix.to_owned(),
            trouble: Trouble::Refused,
            detail: detail.to_owned(),
        };
        loop {
            let call = self.client.list_objects_v2().bucket(&self.settings.bucket);
            let call = call.prefix(prefix).delimiter("/").set_continuation_token(next.take());
            let page = self
                .call(0, call.send())
                .map_err(|failed| failed.store("cannot list", prefix, "`s3:ListBucket`"))?;
            let rest = |key: &str| key.strip_prefix(prefix).map(str::to_owned);
            keys.extend(page.contents().iter().filter_map(|object| object.key().and_then(rest)));
            let parts = page.common_prefixes().iter().filter_map(|part| part.prefix().and_then(rest));
            folders.extend(parts.map(|part| part.trim_end_matches('/').to_owned()));
            next = page.next_continuation_token().filter(|token| !token.is_empty()).map(str::to_owned);
            match &next {
                None if page.is_truncated() == Some(true) => {
                    return Err(wrong("the list goes on, and the service does not say where"));
                }
                None => return Ok((keys, folders)),
                Some(token) if !asked.insert(token.clone()) => {
                    return Err(wrong("the service gives the same part of the list again and again"));
                }
                Some(_) if page.contents().is_empty() && page.common_prefixes().is_empty() => {
                    empty += 1;
                    if empty >= EMPTY_PAGES {
                        return Err(wrong(
                            "the service gives one part of the list after the other with nothing in it",
                        ));
                    }
                }
                Some(_) => {}
            }
        }
    }
}

impl Store for S3Store {
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Put, StoreError> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let key = shared.key(&name.to_string());
        let locks = shared.locks()?;
        let path = source.path.to_owned();
        let checksum = base64::engine::general_purpose::STANDARD.encode(source.sha256.0);
        let mut call = shared
            .client
            .put_object()
            .bucket(&settings.bucket)
            .key(&key)
            .if_none_match("*")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(checksum)
            .content_length(i64::try_from(source.length).unwrap_or(i64::MAX));
        if locks {
            let until = DateTime::from_secs(settings.retention.until_s(name, source.sealed_us));
            call = call.object_lock_mode(shared.mode()).object_lock_retain_until_date(until);
            // Never sent as OFF: on some stores that switches a bucket's default retention off.
            if settings.legal_hold {
                call = call.object_lock_legal_hold_status(ObjectLockLegalHoldStatus::On);
            }
        }
        call = match &settings.sse {
            Sse::Bucket => call,
            Sse::S3 => call.server_side_encryption(ServerSideEncryption::Aes256),
            Sse::Kms(id) => call.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(id),
        };
        let bound = settings.timeout + Duration::from_secs(source.length / BYTES_PER_SECOND);
        let work = async move {
            let body = ByteStream::from_path(&path).await.map_err(|error| Failed {
                status: 0,
                code: None,
                trouble: Trouble::Local,
                detail: format!("`{}`: {error}", path.display()),
            })?;
            call.body(body).send().await.map_err(|error| Failed::of(&error))
        };
        match shared.worker.run(bound, work).unwrap_or_else(|| Err(Failed::timeout())) {
            Ok(_) => Ok(Put::Stored),
            Err(failed) if failed.status == 412 => shared.taken(name, source),
            Err(failed) if failed.trouble == Trouble::Damaged => {
                // Damaged on the way, or here?
                let file = std::fs::File::open(source.path).and_then(|mut file| {
                    use sha2::Digest as _;
                    let mut hasher = sha2::Sha256::new();
                    let mut buffer = vec![0; 256 << 10];
                    loop {
                        match std::io::Read::read(&mut file, &mut buffer)? {
                            0 => return Ok(Sha256Hex(hasher.finalize().into())),
                            count => hasher.update(buffer.get(..count).unwrap_or_default()),
                        }
                    }
                });
                match file {
                    Ok(found) if found != *source.sha256 => {
                        let path = source.path.display().to_string();
                        Err(StoreError::Source { path, expected: *source.sha256, found })
                    }
                    _ => Err(failed.store("cannot put", key, PUT_NEEDS)),
                }
            }
            Err(failed) => Err(failed.store("cannot put", key, PUT_NEEDS)),
        }
    }

    fn confirm(&self, name: &ObjectName, source: Source<'_>) -> Result<Receipt, StoreError> {
        let shared = &self.shared;
        let key = shared.key(&name.to_string());
        let wrong = |found: String| StoreError::ReadBack { name: name.to_string(), found };
        let head = shared.head(&key).map_err(|failed| failed.store("cannot look at", &key, HEAD_NEEDS))?;
        let head = head.ok_or_else(|| wrong("nothing".into()))?;
        let length = head.content_length().and_then(|length| u64::try_from(length).ok());
        if length != Some(source.length) {
            return Err(wrong(format!("{} bytes, wanted {}", length.unwrap_or(0), source.length)));
        }
        let digest = shared.digest(name, &head)?;
        if digest != *source.sha256 {
            return Err(wrong(format!("{} bytes with SHA-256 {digest}", source.length)));
        }
        let version = head.version_id().filter(|version| *version != "null");
        if !shared.locks()? {
            return Ok(Receipt { version: version.map(str::to_owned), retain_until_s: None });
        }
        let version =
            version.ok_or_else(|| wrong("an object without a version: is versioning enabled?".into()))?;
        let until = shared.locked(name, source, &head, version)?;
        if shared.settings.legal_hold {
            shared.held(name, &head, version)?;
        }
        Ok(Receipt { version: Some(version.to_owned()), retain_until_s: Some(until) })
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let shared = &self.shared;
        let key = shared.key(&name.to_string());
        let head = shared.head(&key).map_err(|failed| failed.store("cannot look at", &key, HEAD_NEEDS))?;
        Ok(head.map(|head| -> Arc<dyn DiskFile> { Arc::new(shared.file(name, &head)) }))
    }

    fn list(&self, origin: &Origin) -> Result<Vec<ObjectName>, StoreError> {
        let (files, _) = self.shared.list(&self.shared.key(&format!("{origin}/")))?;
        Ok(files.iter().filter_map(|file| ObjectName::parse_file(origin, file).ok()).collect())
    }

    fn logs(&self, deployment: &str, gateway: &str) -> Result<Vec<Origin>, StoreError> {
        let (_, epochs) = self.shared.list(&self.shared.key(&format!("{deployment}/{gateway}/")))?;
        Ok(epochs.iter().filter_map(|epoch| Origin::join(deployment, gateway, epoch).ok()).collect())
    }

    fn local_folder(&self) -> Option<&Path> {
        None
    }
}
