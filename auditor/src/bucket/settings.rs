//! What the bucket itself is set to: versioning, lock, default retention, lifecycle, public access, replication.

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled, ObjectLockRetentionMode};

use super::{access, lifecycle};
use crate::finding::{Code, Finding, Findings, Place};
use crate::source::s3::{Bucket, Fault};
use crate::time;

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Findings.
    pub findings: Findings,
    /// True where versioning and lock are both on.
    pub locks: bool,
    /// What the store has no function for.
    pub unknown: Vec<&'static str>,
    /// What was seen, a line each.
    pub lines: Vec<String>,
}

impl Read {
    pub(super) fn place(what: &str) -> Place {
        Place::object("the bucket").of_item(what)
    }
    pub(super) fn add(&mut self, code: Code, what: &str, expected: &str, found: impl Into<String>) {
        self.findings.add(code, Self::place(what), expected, found);
    }
    /// What was not answered: `absent` says whether 404 means that there is none.
    pub(super) fn refused(&mut self, what: &'static str, permission: &str, fault: &Fault) {
        if fault.is_unknown() {
            self.unknown.push(what);
        } else {
            let code = if fault.is_denied() { Code::PermissionMissing } else { Code::CouldNotRead };
            self.add(code, what, permission, fault.to_string());
        }
    }
}

/// Asks for a setting.
macro_rules! ask {
    ($bucket:expr, $operation:ident) => {{
        $bucket.count();
        let request = $bucket
            .client
            .$operation()
            .bucket(&$bucket.address.bucket)
            .set_expected_bucket_owner($bucket.owner.clone());
        request.send().await.map_err(|error| Fault::of(&error))
    }};
}

pub(super) use ask;

/// Asks for a setting in the name of an account that the bucket is not of.
///
/// # Errors
/// The store refuses, as it should.
pub(super) async fn of_another_owner(bucket: &Bucket) -> Result<(), Fault> {
    let nobody = ["000000000000", "999999999999"].map(str::to_owned);
    let other = nobody.into_iter().find(|account| bucket.owner.as_ref() != Some(account));
    let mut bucket = bucket.clone();
    bucket.owner = other;
    ask!(bucket, get_bucket_versioning).map(|_| ())
}

/// What the settings are held against.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// How long the mandate wants evidence kept, microseconds.
    pub retention: Option<i64>,
    /// The longest retention that versions have or the mandate asks for, microseconds.
    pub longest: Option<i64>,
    /// The only key under which objects may be encrypted.
    pub kms_key: Option<String>,
}

/// Reads the settings.
pub async fn read(bucket: Bucket, against: Against) -> Read {
    let Against { retention: wanted, longest, kms_key } = against;
    let mut out = Read::default();
    let versioned = match ask!(bucket, get_bucket_versioning) {
        Ok(answer) if answer.status() == Some(&BucketVersioningStatus::Enabled) => true,
        Ok(answer) => {
            let found = answer.status().map_or("never enabled", |status| status.as_str());
            out.add(Code::NotWorm, "versioning", "Enabled", found);
            false
        }
        Err(fault) => {
            out.refused("versioning", "s3:GetBucketVersioning", &fault);
            false
        }
    };
    let locked = lock(&bucket, wanted, &mut out).await;
    out.locks = versioned && locked;
    match lifecycle::rules(bucket.clone()).await {
        Ok(rules) if rules.is_empty() => out.lines.push("no lifecycle rules".into()),
        Ok(rules) => rules.iter().for_each(|rule| lifecycle::judge(&bucket, rule, longest, &mut out)),
        Err(fault) => out.refused("lifecycle rules", "s3:GetLifecycleConfiguration", &fault),
    }
    access::read(&bucket, &mut out).await;
    encryption(&bucket, kms_key.as_deref(), &mut out).await;
    match ask!(bucket, get_bucket_replication) {
        Ok(answer) => {
            for rule in answer.replication_configuration().map(|c| c.rules()).into_iter().flatten() {
                let to = rule.destination().map_or("?", |destination| destination.bucket());
                out.add(
                    Code::Replicated,
                    "replication",
                    "told, not judged",
                    format!("to {to}, {}", rule.status()),
                );
            }
        }
        Err(fault) if fault.is_unset() => out.lines.push("no replication".into()),
        Err(fault) => out.refused("replication", "s3:GetReplicationConfiguration", &fault),
    }
    out
}

async fn lock(bucket: &Bucket, wanted: Option<i64>, out: &mut Read) -> bool {
    let answer = match ask!(bucket, get_object_lock_configuration) {
        Ok(answer) => answer,
        Err(fault) if fault.is_unset() => {
            out.add(Code::NotWorm, "object lock", "enabled", "the bucket has none");
            return false;
        }
        Err(fault) => {
            out.refused("object lock", "s3:GetBucketObjectLockConfiguration", &fault);
            return false;
        }
    };
    let configuration = answer.object_lock_configuration();
    let enabled = configuration.and_then(|c| c.object_lock_enabled()) == Some(&ObjectLockEnabled::Enabled);
    if !enabled {
        out.add(Code::NotWorm, "object lock", "enabled", "not enabled");
    }
    let default = configuration.and_then(|c| c.rule()).and_then(|rule| rule.default_retention());
    let days = default.map_or(0, |d| d.days().map_or(i64::from(d.years().unwrap_or(0)) * 365, i64::from));
    let mode = default.and_then(|default| default.mode());
    let found = match mode {
        Some(mode) if days > 0 => format!("{mode}, {days} days"),
        _ => "none".into(),
    };
    let short = wanted.is_some_and(|wanted| days.saturating_mul(time::DAY) < wanted);
    if mode != Some(&ObjectLockRetentionMode::Compliance) || short {
        let expected = match wanted {
            Some(wanted) => format!("COMPLIANCE, at least {}", time::length(wanted)),
            None => "COMPLIANCE".into(),
        };
        out.add(Code::DefaultRetention, "default retention", &expected, found);
    } else {
        out.lines.push(format!("default retention {found}"));
    }
    enabled
}

/// Under which key the bucket puts objects that name none. Each version's own key is judged with the version.
async fn encryption(bucket: &Bucket, named: Option<&str>, out: &mut Read) {
    const WHAT: &str = "default encryption";
    let answer = match ask!(bucket, get_bucket_encryption) {
        Ok(answer) => answer,
        Err(fault) if fault.is_unset() => {
            out.lines.push("no default encryption".into());
            return;
        }
        Err(fault) => return out.refused(WHAT, "s3:GetEncryptionConfiguration", &fault),
    };
    let rules = answer.server_side_encryption_configuration().map(|configuration| configuration.rules());
    for by in rules.into_iter().flatten().filter_map(|rule| rule.apply_server_side_encryption_by_default()) {
        let key = by.kms_master_key_id();
        let found = format!("{}{}", by.sse_algorithm(), key.map(|key| format!(" {key}")).unwrap_or_default());
        match named {
            Some(named) if key != Some(named) => {
                let finding = Finding::new(Code::EncryptionKey, Read::place(WHAT), named, found);
                out.findings.push(finding.as_note());
            }
            _ => out.lines.push(format!("{WHAT} {found}")),
        }
    }
}
