//! The requests that a probe makes, and what a read finds of a canary afterwards.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, Delete, ObjectIdentifier, ObjectLockLegalHoldStatus,
    ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, VersioningConfiguration,
};
use aws_smithy_types::DateTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::Sha256Hex;

use super::transcript::Outcome;
use crate::bucket::lock;
use crate::source::s3::{Bucket, Fault};
use crate::time;

/// What canaries hold.
pub(super) const BYTES: &[u8] = b"affidavit probe: a canary, locked for a short time\n";

/// What a row saw.
pub(super) type Saw = (Outcome, String);

/// What the store said, in words.
pub(super) fn answer<T>(result: &Result<T, Fault>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(fault) => format!("refused: {fault}"),
    }
}

fn date(at: i64) -> DateTime {
    DateTime::from_secs(at / time::SECOND)
}

/// A canary that is under lock.
#[derive(Debug, Clone)]
pub(super) struct Canary {
    pub(super) name: String,
    pub(super) version: String,
    /// Retain-until, microseconds UTC.
    pub(super) until: i64,
}

/// How a canary is put.
#[derive(Debug, Clone, Default)]
pub(super) struct Put {
    /// Mode and retain-until.
    pub(super) lock: Option<(ObjectLockMode, i64)>,
    /// With `If-None-Match: *`.
    pub(super) new: bool,
    /// Another checksum than that of the bytes.
    pub(super) sha256: Option<Sha256Hex>,
    /// With legal hold OFF.
    pub(super) hold_off: bool,
}

/// The bucket that is probed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests<'a>(pub(super) &'a Bucket);

/// A request on a key, or on the bucket alone; counted.
macro_rules! request {
    ($self:expr, $operation:ident) => {{
        $self.0.count();
        $self
            .0
            .client
            .$operation()
            .bucket(&$self.0.address.bucket)
            .set_expected_bucket_owner($self.0.owner.clone())
    }};
    ($self:expr, $operation:ident, $name:expr) => {
        request!($self, $operation).key($self.0.key($name))
    };
}

impl Requests<'_> {
    /// A PUT; gives the version id.
    pub(super) async fn put(&self, name: &str, put: Put) -> Result<String, Fault> {
        let sha256 = put.sha256.unwrap_or_else(|| Sha256Hex::of(BYTES));
        let (mode, until) = put.lock.unzip();
        let request = request!(self, put_object, name)
            .body(ByteStream::from_static(BYTES))
            // Some stores ask for the algorithm's name beside the value.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(STANDARD.encode(sha256.0))
            .set_if_none_match(put.new.then(|| "*".to_owned()))
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until.map(date))
            .set_object_lock_legal_hold_status(put.hold_off.then_some(ObjectLockLegalHoldStatus::Off));
        let answer = request.send().await.map_err(|error| Fault::of(&error))?;
        Ok(answer.version_id().unwrap_or("null").to_owned())
    }

    /// When the store says that a version was written, microseconds UTC.
    pub(super) async fn written_at(&self, canary: &Canary) -> Result<i64, Fault> {
        let head = request!(self, head_object, &canary.name).version_id(&canary.version).send().await;
        let head = head.map_err(|error| Fault::of(&error))?;
        Ok(crate::source::s3::micros(head.last_modified()))
    }

    /// A DELETE of a version, or without one; true where a marker was put.
    pub(super) async fn delete(
        &self,
        name: &str,
        version: Option<&str>,
        bypass: bool,
    ) -> Result<bool, Fault> {
        let request = request!(self, delete_object, name)
            .set_version_id(version.map(str::to_owned))
            .set_bypass_governance_retention(bypass.then_some(true));
        let deleted = request.send().await.map_err(|error| Fault::of(&error))?;
        Ok(deleted.delete_marker().unwrap_or(false))
    }

    /// DeleteObjects with one version: what was said, and whether that was yes.
    pub(super) async fn delete_objects(
        &self,
        canary: &Canary,
        bypass: bool,
    ) -> Result<(String, bool), String> {
        let object =
            ObjectIdentifier::builder().key(self.0.key(&canary.name)).version_id(&canary.version).build();
        let delete = object.and_then(|object| Delete::builder().objects(object).build());
        let delete = delete.map_err(|error| error.to_string())?;
        let request = request!(self, delete_objects)
            .delete(delete)
            .set_bypass_governance_retention(bypass.then_some(true));
        Ok(match request.send().await {
            Ok(done) => match done.errors().first() {
                Some(error) => {
                    let (code, message) =
                        (error.code().unwrap_or_default(), error.message().unwrap_or_default());
                    (format!("200, error for the key: {code} {message}"), false)
                }
                None => ("200, no error for the key".into(), true),
            },
            Err(error) => (format!("refused: {}", Fault::of(&error)), false),
        })
    }

    /// PutObjectRetention.
    pub(super) async fn retain(
        &self,
        canary: &Canary,
        mode: ObjectLockRetentionMode,
        until: i64,
        bypass: bool,
    ) -> Result<(), Fault> {
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(date(until)).build();
        let request = request!(self, put_object_retention, &canary.name)
            .version_id(&canary.version)
            .retention(retention)
            .set_bypass_governance_retention(bypass.then_some(true));
        request.send().await.map(|_| ()).map_err(|error| Fault::of(&error))
    }

    /// The mode of the bucket's default retention; `Err` says why there is none.
    pub(super) async fn default_mode(&self) -> Result<String, String> {
        let answer = request!(self, get_object_lock_configuration).send().await;
        let answer = answer.map_err(|error| Fault::of(&error).to_string())?;
        let rule = answer.object_lock_configuration().and_then(|configuration| configuration.rule());
        let mode = rule.and_then(|rule| rule.default_retention()).and_then(|default| default.mode());
        mode.map(|mode| mode.as_str().to_owned())
            .ok_or_else(|| "the bucket has no default retention".to_owned())
    }

    /// PutBucketVersioning.
    pub(super) async fn versioning(&self, status: BucketVersioningStatus) -> Result<(), Fault> {
        let configuration = VersioningConfiguration::builder().status(status).build();
        let request = request!(self, put_bucket_versioning).versioning_configuration(configuration);
        request.send().await.map(|_| ()).map_err(|error| Fault::of(&error))
    }

    /// What the store calls itself: the header `server` of an answer about a name that is not there.
    pub(super) async fn server(&self) -> Option<String> {
        let error = request!(self, get_object, ".affidavit-probe/none").send().await.err()?;
        error.raw_response()?.headers().get("server").map(str::to_owned)
    }

    /// Whether the canary is still there, whole and locked as before: `None` where all is well.
    pub(super) async fn harm(&self, canary: &Canary) -> Result<Option<String>, Fault> {
        let got = request!(self, get_object, &canary.name).version_id(&canary.version).send().await;
        match got {
            Ok(got) => match got.body.collect().await.map(|body| body.to_vec()) {
                Ok(body) if body == BYTES => {}
                Ok(_) => return Ok(Some("the locked version has other bytes".into())),
                Err(error) => {
                    return Err(Fault { status: None, code: String::new(), message: error.to_string() });
                }
            },
            Err(error) => {
                let fault = Fault::of(&error);
                return if fault.is_absent() {
                    Ok(Some("the locked version is gone".into()))
                } else {
                    Err(fault)
                };
            }
        }
        let shown = lock::shown(self.0, &canary.name, &canary.version, true).await?;
        match shown.lock() {
            Some(("COMPLIANCE", until)) if until >= canary.until => Ok(None),
            Some(("", _)) => Ok(Some("it is not locked any more".into())),
            Some((mode, until)) => Ok(Some(format!("it is now {mode} until {}", time::text(until)))),
            None => {
                let message = format!("{:?}", shown.retention);
                Err(Fault { status: None, code: "GetObjectRetention".into(), message })
            }
        }
    }

    /// Judges something that must have done no harm. `refusal`: the store must also have said no.
    pub(super) async fn harmless(&self, canary: &Canary, said: String, accepted: bool, refusal: bool) -> Saw {
        match self.harm(canary).await {
            Ok(None) if accepted && refusal => {
                (Outcome::Differs, format!("{said}; without effect on the locked version"))
            }
            Ok(None) => (Outcome::AsRequired, format!("{said}; the locked version stays as it is")),
            Ok(Some(harm)) => (Outcome::NotEnforced, format!("{said}; {harm}")),
            Err(fault) => (Outcome::NotJudged, format!("{said}; afterwards: {fault}")),
        }
    }
}
