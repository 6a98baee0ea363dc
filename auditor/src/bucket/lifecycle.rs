//! The bucket's lifecycle rules: what they delete before its time, and which delete markers may be theirs.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};

use super::settings::{Read, ask};
use crate::finding::{Code, Finding};
use crate::source::s3::{Bucket, Fault, Marker, Named, micros};
use crate::time;

/// The rules, enabled or not.
///
/// # Errors
/// What the store answered in their place.
pub(super) async fn rules(bucket: Bucket) -> Result<Vec<LifecycleRule>, Fault> {
    match ask!(bucket, get_bucket_lifecycle_configuration) {
        Ok(answer) => Ok(answer.rules().to_vec()),
        Err(fault) if fault.is_unset() => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}

fn is_enabled(rule: &LifecycleRule) -> bool {
    rule.status() == &ExpirationStatus::Enabled
}

/// Keys that do not begin with it are no affair of the rule.
fn prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter();
    #[expect(deprecated, reason = "rules of the older form carry their prefix there")]
    let prefix = filter
        .and_then(|filter| filter.prefix().or_else(|| filter.and().and_then(|and| and.prefix())))
        .or(rule.prefix());
    prefix.unwrap_or_default()
}

fn id(rule: &LifecycleRule) -> &str {
    rule.id().unwrap_or("without a name")
}

/// Judges a rule; `longest`: how long evidence is kept, microseconds.
pub(super) fn judge(bucket: &Bucket, rule: &LifecycleRule, longest: Option<i64>, out: &mut Read) {
    let (prefix, ours) = (prefix(rule), &bucket.address.prefix);
    if !is_enabled(rule) || !ours.starts_with(prefix) && !prefix.starts_with(ours.as_str()) {
        return;
    }
    let mut judge = |days: Option<i32>, date: bool, does: &str| {
        let Some(days) = days.filter(|days| *days > 0).or(date.then_some(0)) else { return };
        let at = i64::from(days).saturating_mul(time::DAY);
        if longest.is_some_and(|longest| at >= longest) {
            return;
        }
        let expected =
            longest.map_or("no such rule".into(), |longest| format!("not within {}", time::length(longest)));
        let found = format!("rule `{}` {does} after {days} days", id(rule));
        let place = Read::place("lifecycle rules");
        out.findings.push(Finding::new(Code::ExpiryBeforeRetention, place, expected, found));
    };
    if let Some(expiration) = rule.expiration() {
        judge(expiration.days(), expiration.date().is_some(), "puts a delete marker over objects");
    }
    if let Some(expiration) = rule.noncurrent_version_expiration() {
        judge(expiration.noncurrent_days(), false, "deletes versions that are not the newest");
    }
}

/// Whose a delete marker may be, as far as the rules say that the bucket has now. The store says it of no marker.
pub(super) fn whose(
    rules: &Result<Vec<LifecycleRule>, String>,
    key: &str,
    named: &Named,
    marker: &Marker,
) -> String {
    let rules = match rules {
        Ok(rules) => rules,
        Err(fault) => return format!("whether it is a lifecycle rule's is not known: {fault}"),
    };
    let below = named.versions.iter().filter(|version| version.last_modified <= marker.last_modified);
    let put = below.map(|version| version.last_modified).max();
    // A rule may look at tags and sizes too: more than that it may be is never said.
    let may = |rule: &&LifecycleRule| {
        let Some(expiration) = rule.expiration() else { return false };
        let days = expiration.days().filter(|days| *days > 0).map(|days| i64::from(days) * time::DAY);
        let aged = days.is_some_and(|days| put.is_none_or(|put| marker.last_modified - put >= days));
        let is_over = expiration.date().is_some_and(|date| marker.last_modified >= micros(Some(date)));
        is_enabled(rule) && key.starts_with(prefix(rule)) && (aged || is_over)
    };
    match rules.iter().find(may) {
        Some(rule) => format!("lifecycle rule `{}` of the bucket may have put it: remove the rule", id(rule)),
        None => {
            "no lifecycle rule that the bucket has now would have put it: ask who deleted the name".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRuleFilter};
    use aws_smithy_types::DateTime;

    use super::*;
    use crate::source::s3::Version;

    fn rule(prefix: &str, status: ExpirationStatus, expiration: LifecycleExpiration) -> LifecycleRule {
        let filter = LifecycleRuleFilter::builder().prefix(prefix).build();
        let rule = LifecycleRule::builder().id("tidy").status(status).filter(filter).expiration(expiration);
        rule.build().unwrap()
    }

    fn days(days: i32) -> LifecycleExpiration {
        LifecycleExpiration::builder().days(days).build()
    }

    fn date(day: i64) -> LifecycleExpiration {
        LifecycleExpiration::builder().date(DateTime::from_secs(day * 86_400)).build()
    }

    #[test]
    fn a_marker_is_said_to_be_a_rules_only_where_one_may_have_put_it() {
        use ExpirationStatus::{Disabled, Enabled};
        // Put on day 100, deleted on day 130.
        let version = Version {
            id: "v".into(),
            length: 1,
            last_modified: 100 * time::DAY,
            latest: false,
            storage_class: "STANDARD".into(),
        };
        let marker = Marker { id: "m".into(), last_modified: 130 * time::DAY, latest: true };
        let named = Named { versions: vec![version], markers: vec![marker.clone()], ..Named::default() };
        let whose = |rules, named: &Named| super::whose(&rules, "evidence/acme/x.seal", named, &marker);
        for (rule, may) in [
            (rule("", Enabled, days(30)), true),
            (rule("evidence/", Enabled, days(1)), true),
            (rule("", Enabled, days(31)), false),
            (rule("logs/", Enabled, days(1)), false),
            (rule("", Disabled, days(1)), false),
            (rule("", Enabled, date(130)), true),
            (rule("", Enabled, date(131)), false),
            (
                rule("", Enabled, LifecycleExpiration::builder().expired_object_delete_marker(true).build()),
                false,
            ),
        ] {
            let said = whose(Ok(vec![rule.clone()]), &named);
            assert_eq!(said.contains("rule `tidy`"), may, "{rule:?}: {said}");
            assert_eq!(said.contains("ask who deleted"), !may, "{rule:?}: {said}");
        }
        let said = whose(Ok(vec![rule("", Enabled, days(31))]), &Named::default());
        assert!(said.contains("rule `tidy`"), "how old it was is not known: {said}");
        let said = whose(Err("403 AccessDenied".into()), &named);
        assert!(said.contains("not known: 403"), "{said}");
    }
}
