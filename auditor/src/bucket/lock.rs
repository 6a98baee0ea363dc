//! The lock state of each version, as the store shows it.

use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use schemas::Sha256Hex;

use crate::source::s3::{Bucket, Fault, Version};

/// HEAD requests under way at one time.
const AT_ONCE: usize = 32;

/// What GetObjectRetention says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// Locked: mode, and until when in microseconds UTC.
    Locked(String, i64),
    /// Not locked, and the store says so.
    Unlocked,
    /// The caller may not ask.
    Denied(String),
    /// No answer that says anything.
    Unknown(String),
}

/// What the store says of a legal hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hold {
    /// HEAD does not speak of it: there is none, or the caller may not read it.
    #[default]
    Unseen,
    /// It is on.
    On,
    /// There is none, and the store says so.
    Off,
    /// The caller may not ask.
    Denied(String),
    /// No answer that says anything.
    Unknown(String),
}

impl Hold {
    fn of(status: Option<&str>) -> Self {
        match status {
            Some("ON") => Self::On,
            Some("OFF") => Self::Off,
            Some(other) => Self::Unknown(format!("status `{other}`")),
            None => Self::Unseen,
        }
    }
}

/// What the store shows of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Mode of HEAD; empty where it shows none.
    pub mode: String,
    /// Retain-until of HEAD, microseconds UTC; 0 where it shows none.
    pub until: i64,
    /// Whether it is under legal hold: as HEAD says, or GetObjectLegalHold where that was asked.
    pub hold: Hold,
    /// The stored SHA-256 of the whole object.
    pub sha256: Option<Sha256Hex>,
    /// The key under which it is encrypted, where it is one of a key service.
    pub key: Option<String>,
    /// What GetObjectRetention says, where it was asked.
    pub retention: Option<Retention>,
}

impl Shown {
    /// Mode and retain-until, GetObjectRetention's before HEAD's; `None` where neither says anything.
    pub fn lock(&self) -> Option<(&str, i64)> {
        match &self.retention {
            Some(Retention::Locked(mode, until)) => Some((mode, *until)),
            Some(Retention::Unlocked) => Some(("", 0)),
            Some(Retention::Denied(_)) => None,
            Some(Retention::Unknown(_)) if self.mode.is_empty() => None,
            // A HEAD that shows a lock is one that the caller may read.
            Some(Retention::Unknown(_)) | None => Some((&self.mode, self.until)),
        }
    }
}

/// Asks GetObjectRetention.
pub async fn retention(bucket: &Bucket, name: &str, version: &str) -> Retention {
    bucket.count();
    let request = bucket
        .client
        .get_object_retention()
        .bucket(&bucket.address.bucket)
        .key(bucket.key(name))
        .version_id(version)
        .set_expected_bucket_owner(bucket.owner.clone());
    match request.send().await {
        Ok(answer) => match answer.retention() {
            Some(retention) if retention.mode().is_some() => Retention::Locked(
                retention.mode().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
                crate::source::s3::micros(retention.retain_until_date()),
            ),
            _ => Retention::Unlocked,
        },
        Err(error) => {
            let fault = Fault::of(&error);
            let body = error.raw_response().filter(|response| response.status().as_u16() == 200);
            if let Some(locked) = body.and_then(|response| other_root(response.body().bytes()?)) {
                return locked;
            }
            if says_none(&fault) {
                Retention::Unlocked
            } else if fault.is_denied() {
                Retention::Denied(fault.to_string())
            } else {
                Retention::Unknown(fault.to_string())
            }
        }
    }
}

/// Whether a refusal says that there is no such lock.
fn says_none(fault: &Fault) -> bool {
    let none = ["NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"];
    // A bucket without lock is answered with InvalidRequest.
    none.contains(&fault.code.as_str()) || (fault.status == Some(400) && fault.code == "InvalidRequest")
}

/// Asks GetObjectLegalHold.
pub async fn hold(bucket: &Bucket, name: &str, version: &str) -> Hold {
    bucket.count();
    let request = bucket
        .client
        .get_object_legal_hold()
        .bucket(&bucket.address.bucket)
        .key(bucket.key(name))
        .version_id(version)
        .set_expected_bucket_owner(bucket.owner.clone());
    match request.send().await {
        Ok(answer) => {
            let status = answer.legal_hold().and_then(|hold| hold.status());
            match Hold::of(status.map(|status| status.as_str())) {
                Hold::Unseen => Hold::Unknown("an answer without a status".into()),
                said => said,
            }
        }
        Err(error) => {
            let fault = Fault::of(&error);
            if says_none(&fault) {
                Hold::Off
            } else if fault.is_denied() {
                Hold::Denied(fault.to_string())
            } else {
                Hold::Unknown(fault.to_string())
            }
        }
    }
}

/// Reads an answer whose outermost element has another name than AWS gives it (versitygw: `ObjectLockRetention`).
fn other_root(body: &[u8]) -> Option<Retention> {
    let text = std::str::from_utf8(body).ok()?;
    let inner = text.split_once("Retention>")?.1;
    let of = |name: &str| Some(inner.split_once(&format!("<{name}>"))?.1.split_once('<')?.0.trim());
    let until = DateTime::from_str(of("RetainUntilDate")?, Format::DateTime).ok()?;
    Some(Retention::Locked(of("Mode")?.to_owned(), crate::source::s3::micros(Some(&until))))
}

/// Asks HEAD, and GetObjectRetention where HEAD shows no lock or `cross` asks for both: HEAD leaves the lock's headers
/// out where the caller may not read them.
///
/// # Errors
/// What the store answered to HEAD.
pub async fn shown(bucket: &Bucket, name: &str, version: &str, cross: bool) -> Result<Shown, Fault> {
    bucket.count();
    let request = bucket
        .client
        .head_object()
        .bucket(&bucket.address.bucket)
        .key(bucket.key(name))
        .version_id(version)
        .checksum_mode(ChecksumMode::Enabled)
        .set_expected_bucket_owner(bucket.owner.clone());
    let head = request.send().await.map_err(|error| Fault::of(&error))?;
    let composite = head.checksum_type() == Some(&ChecksumType::Composite);
    let sha256 = head.checksum_sha256().filter(|text| !composite && !text.contains('-'));
    let sha256 = sha256.and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| bytes.try_into().ok());
    let mut out = Shown {
        mode: head.object_lock_mode().map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
        until: crate::source::s3::micros(head.object_lock_retain_until_date()),
        hold: Hold::of(head.object_lock_legal_hold_status().map(|status| status.as_str())),
        sha256: sha256.map(Sha256Hex),
        key: head.ssekms_key_id().map(str::to_owned),
        retention: None,
    };
    if cross || out.mode.is_empty() {
        out.retention = Some(retention(bucket, name, version).await);
    }
    Ok(out)
}

/// A version that is to be judged.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The object's name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Ask twice.
    pub cross: bool,
    /// Ask about a legal hold where HEAD shows none.
    pub hold: bool,
}

/// Asks for all of them, some at one time; in the order of `wanted`.
pub async fn all(
    bucket: Bucket,
    wanted: Vec<Wanted>,
    tell: impl Fn(usize, usize) + Send + 'static,
) -> Vec<(Wanted, Result<Shown, Fault>)> {
    let total = wanted.len();
    let asked = futures_util::stream::iter(wanted).map(|wanted| {
        let bucket = bucket.clone();
        async move {
            let mut shown = shown(&bucket, &wanted.name, &wanted.version.id, wanted.cross).await;
            if let Ok(shown) = &mut shown
                && wanted.hold
                && shown.hold == Hold::Unseen
            {
                shown.hold = hold(&bucket, &wanted.name, &wanted.version.id).await;
            }
            (wanted, shown)
        }
    });
    let mut answers = asked.buffered(AT_ONCE);
    let mut out = Vec::with_capacity(total);
    while let Some(answer) = answers.next().await {
        out.push(answer);
        tell(out.len(), total);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_under_another_root_is_read_and_anything_else_is_not() {
        let body = b"<?xml version=\"1.0\"?><ObjectLockRetention><Mode>COMPLIANCE</Mode>\
            <RetainUntilDate>2026-11-23T05:42:34Z</RetainUntilDate></ObjectLockRetention>";
        let until = crate::time::parse("2026-11-23T05:42:34Z").unwrap();
        assert_eq!(other_root(body), Some(Retention::Locked("COMPLIANCE".into(), until)));
        assert_eq!(other_root(b"PAR1 <Mode>COMPLIANCE</Mode>"), None);
        assert_eq!(other_root(b"<ObjectLockRetention></ObjectLockRetention>"), None);
    }
}
