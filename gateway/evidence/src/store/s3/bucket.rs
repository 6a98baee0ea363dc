//! What a bucket is, before anything is put into it.

use std::time::Duration;

use aws_sdk_s3::types::{
    BucketVersioningStatus, ExpirationStatus, ObjectLockEnabled, ObjectLockRetentionMode,
};
use serde_json::Value;

use super::Shared;
use super::call::Failed;
use crate::store::{StoreError, Trouble};

/// One setting that is not as it should be, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bucket `{bucket}`, {setting}: {found}; wanted: {wanted}")]
pub struct BucketFault {
    /// The bucket.
    pub bucket: String,
    /// Which setting.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be, and how to get there.
    pub wanted: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketReport {
    /// Nothing put here would be locked.
    pub faults: Vec<BucketFault>,
    /// Odd, or not to be read.
    pub warnings: Vec<BucketFault>,
}

pub(super) fn judge(shared: &Shared) -> Result<BucketReport, StoreError> {
    let mut judge = Judge { shared, report: BucketReport::default() };
    judge.versioning()?;
    judge.lock()?;
    judge.lifecycle()?;
    judge.policy()?;
    Ok(judge.report)
}

struct Judge<'a> {
    shared: &'a Shared,
    report: BucketReport,
}

impl Judge<'_> {
    fn bucket(&self) -> String {
        self.shared.settings.bucket.clone()
    }

    /// What bucket and name of every object begin with.
    fn objects(&self) -> String {
        let settings = &self.shared.settings;
        let slash = if settings.prefix.is_empty() { "" } else { "/" };
        format!("{}/{}{slash}", settings.bucket, settings.prefix)
    }

    fn fault(&mut self, setting: &'static str, found: impl Into<String>, wanted: impl Into<String>) {
        let fault =
            BucketFault { bucket: self.bucket(), setting, found: found.into(), wanted: wanted.into() };
        self.report.faults.push(fault);
    }

    fn warn(&mut self, setting: &'static str, found: impl Into<String>, wanted: impl Into<String>) {
        let fault =
            BucketFault { bucket: self.bucket(), setting, found: found.into(), wanted: wanted.into() };
        self.report.warnings.push(fault);
    }

    /// A setting that cannot be read is a warning; a service that does not answer, or not with an S3 answer, is an error.
    fn unread(&mut self, setting: &'static str, failed: Failed, needs: &str) -> Result<(), StoreError> {
        let refused = failed.trouble == Trouble::Refused && failed.code.is_some();
        if failed.trouble == Trouble::Denied || failed.status == 501 || refused {
            let found = format!("cannot be read ({})", failed.detail);
            self.warn(setting, found, format!("the permission {needs}, so that it can be judged"));
            return Ok(());
        }
        Err(failed.store("cannot judge", self.bucket(), needs))
    }

    fn versioning(&mut self) -> Result<(), StoreError> {
        let call = self.shared.client.get_bucket_versioning().bucket(self.bucket());
        match self.shared.call(0, call.send()) {
            Ok(got) if got.status() == Some(&BucketVersioningStatus::Enabled) => {}
            Ok(got) => {
                let found = got.status().map_or("off", |status| status.as_str()).to_owned();
                let wanted =
                    "`Enabled`: `aws s3api put-bucket-versioning --versioning-configuration Status=Enabled`";
                self.fault("versioning", found, wanted);
            }
            Err(failed) => self.unread("versioning", failed, "`s3:GetBucketVersioning`")?,
        }
        Ok(())
    }

    fn lock(&mut self) -> Result<(), StoreError> {
        const WANTED: &str = "`Enabled`: make the bucket with Object Lock, or `aws s3api put-object-lock-configuration --object-lock-configuration ObjectLockEnabled=Enabled`";
        let call = self.shared.client.get_object_lock_configuration().bucket(self.bucket());
        let got = match self.shared.call(0, call.send()) {
            Ok(got) => got,
            // Only these words say so: any other answer (expired credentials, a proxy's own page) says nothing of it.
            Err(failed) if failed.says_no_lock() => {
                self.fault("object lock", "off", WANTED);
                return Ok(());
            }
            Err(failed) => {
                return self.unread("object lock", failed, "`s3:GetBucketObjectLockConfiguration`");
            }
        };
        let configuration = got.object_lock_configuration();
        if configuration.and_then(|c| c.object_lock_enabled()) != Some(&ObjectLockEnabled::Enabled) {
            self.fault("object lock", "off", WANTED);
            return Ok(());
        }
        let retention = configuration.and_then(|c| c.rule()).and_then(|rule| rule.default_retention());
        let shortest = self.shared.settings.retention.shortest();
        let days = shortest.as_secs().div_ceil(86_400);
        let wanted = format!(
            "COMPLIANCE of at least {days} days, for objects that others put here; the gateway's own carry theirs"
        );
        match retention {
            None => self.warn("default retention", "none", wanted),
            Some(default) => {
                let kept =
                    default.days().map(i64::from).or(default.years().map(|years| i64::from(years) * 365));
                let kept = u64::try_from(kept.unwrap_or(0)).unwrap_or(0);
                let weak = default.mode() != Some(&ObjectLockRetentionMode::Compliance);
                if weak || Duration::from_secs(kept * 86_400) < shortest {
                    let mode = default.mode().map_or("no mode", |mode| mode.as_str());
                    self.warn("default retention", format!("{mode}, {kept} days"), wanted);
                }
            }
        }
        Ok(())
    }

    fn lifecycle(&mut self) -> Result<(), StoreError> {
        let call = self.shared.client.get_bucket_lifecycle_configuration().bucket(self.bucket());
        let got = match self.shared.call(0, call.send()) {
            Ok(got) => got,
            Err(failed) if failed.is("NoSuchLifecycleConfiguration") => return Ok(()),
            Err(failed) => {
                return self.unread("lifecycle", failed, "`s3:GetLifecycleConfiguration`");
            }
        };
        for rule in got.rules() {
            if rule.status() == &ExpirationStatus::Enabled && rule.expiration().is_some() {
                let id = rule.id().unwrap_or("without a name");
                let wanted = "no rule that expires current versions: its delete markers hide evidence";
                self.warn("lifecycle", format!("rule `{id}` expires objects"), wanted);
            }
        }
        Ok(())
    }

    fn policy(&mut self) -> Result<(), StoreError> {
        const WANTED: &str = "a statement that denies `s3:DeleteObject` to everyone, as in `deploy/s3/bucket-policy.json`: a delete marker hides evidence";
        let call = self.shared.client.get_bucket_policy().bucket(self.bucket());
        match self.shared.call(0, call.send()) {
            Ok(got) if got.policy().is_some_and(|policy| denies_delete(policy, &self.objects())) => {}
            Ok(_) => self.warn("policy", "nothing in it denies `s3:DeleteObject` to everyone", WANTED),
            Err(failed) if failed.is("NoSuchBucketPolicy") => self.warn("policy", "none", WANTED),
            Err(failed) => self.unread("policy", failed, "`s3:GetBucketPolicy`")?,
        }
        Ok(())
    }
}

/// Whether a statement denies deletion to everyone, whatever the circumstances, of all names that begin with `objects`
/// (`<bucket>/<prefix>/`).
fn denies_delete(policy: &str, objects: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    policy.get("Statement").map(each).unwrap_or_default().iter().any(|statement| {
        let any = |key: &str, wanted: &dyn Fn(&str) -> bool| {
            let values = statement.get(key).map(each).unwrap_or_default();
            values.iter().filter_map(Value::as_str).any(wanted)
        };
        let principals = statement.get("Principal").map(|who| each(who.get("AWS").unwrap_or(who)));
        statement.get("Effect").and_then(Value::as_str) == Some("Deny")
            && statement.get("Condition").is_none()
            && principals.unwrap_or_default().iter().any(|who| who == "*")
            && any("Action", &|action| covers(&action.to_lowercase(), "s3:deleteobject"))
            && any("Resource", &|arn| covers(arn.split_once(":::").map_or(arn, |(_, name)| name), objects))
    })
}

/// A value of a policy as a list: one stands for a list of one.
fn each(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    }
}

/// Whether a pattern, a text or the beginning of one with `*` behind it, takes in all that begins with `text`.
fn covers(pattern: &str, text: &str) -> bool {
    pattern == text || pattern.strip_suffix('*').is_some_and(|beginning| text.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_denies_deletion_to_everyone_or_not() {
        let all = r#""Resource":"arn:aws:s3:::b/*""#;
        for (statement, denies) in [
            (
                format!(
                    r#""Effect":"Deny","Principal":"*","Action":["s3:DeleteObject","s3:PutBucketPolicy"],{all}"#
                ),
                true,
            ),
            (format!(r#""Effect":"Deny","Principal":{{"AWS":"*"}},"Action":"s3:Delete*",{all}"#), true),
            (r#""Effect":"Deny","Principal":{"AWS":["*"]},"Action":"*","Resource":"*""#.into(), true),
            (
                r#""Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["x","arn:aws-cn:s3:::b/a/*"]"#
                    .into(),
                true,
            ),
            (
                r#""Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/a/c/*""#.into(),
                false,
            ),
            (
                r#""Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::other/*""#.into(),
                false,
            ),
            (
                format!(
                    r#""Effect":"Deny","Principal":{{"AWS":"arn:aws:iam::1:role/x"}},"Action":"s3:*",{all}"#
                ),
                false,
            ),
            (
                format!(
                    r#""Effect":"Deny","Principal":"*","Action":"s3:*",{all},"Condition":{{"Bool":{{}}}}"#
                ),
                false,
            ),
            (format!(r#""Effect":"Allow","Principal":"*","Action":"s3:DeleteObject",{all}"#), false),
            (format!(r#""Effect":"Deny","Principal":"*","Action":"s3:PutObject",{all}"#), false),
            (r#""Effect":"Deny""#.into(), false),
        ] {
            let one = format!(r#"{{"Statement":{{{statement}}}}}"#);
            let listed = format!(r#"{{"Statement":[{{"Effect":"Allow"}},{{{statement}}}]}}"#);
            for policy in [one, listed] {
                assert_eq!(denies_delete(&policy, "b/a/"), denies, "{policy}");
            }
        }
        assert!(!denies_delete("none", "b/a/"));
        let ours = include_str!("../../../../../deploy/s3/bucket-policy.json");
        assert!(denies_delete(ours, "acme-evidence/llm/evidence/") && !denies_delete(ours, "acme-evidence/"));
    }
}
