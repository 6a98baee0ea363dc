//! The rows: what is tried and what must come of it.

use super::canary::Saw;
use super::transcript::Row;

/// A row before it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) name: &'static str,
    pub(super) did: &'static str,
    pub(super) expected: &'static str,
}

impl Ask {
    /// The row, once it was tried.
    pub(super) fn saw(self, (outcome, seen): Saw) -> Row {
        let Self { name, did, expected } = self;
        Row { name, did, expected, seen, outcome }
    }
}

/// Rows with their names, in an order in which none spoils the next.
macro_rules! rows {
    ($($row:ident $name:literal $did:literal => $expected:expr;)*) => {
        $(pub(super) const $row: Ask = Ask { name: $name, did: $did, expected: $expected };)*

        /// The names of all rows, in their order.
        pub const ROWS: &[&str] = &[$($name),*];
    };
}

const STAYS: &str = "refused, and the version stays";
const LOCK_STAYS: &str = "refused, and the lock stays as it is";
const BY_DEFAULT: &str = "locked by the bucket's default, by GetObjectRetention and by HEAD";

rows! {
    PUT_LOCKED "put_locked" "PUT of a new name with COMPLIANCE, retain-until, SHA-256 and If-None-Match: *"
        => "stored under a version id";
    READ_BACK "read_back" "GET and GetObjectRetention of the version"
        => "the bytes, COMPLIANCE, the date that was put";
    HEAD_AGREES "head_agrees" "HEAD of the version, with checksums"
        => "the lock that GetObjectRetention shows, and the SHA-256 of the bytes";
    CLOCK "clock" "HEAD of the version just written"
        => "Last-Modified within 5 minutes of the auditor's clock";
    WRONG_CHECKSUM "wrong_checksum" "PUT of a new name with the SHA-256 of other bytes"
        => "refused, and nothing stored";
    PUT_AGAIN "put_again" "the same PUT with If-None-Match: * again" => "412, no second version";
    OVERWRITE "overwrite" "PUT of the same name without If-None-Match"
        => "a new version beside the locked one, or refused";
    MAY_DELETE "may_delete" "DELETE with bypass of another version, under GOVERNANCE"
        => "deleted: so that below it is the lock that refuses, not a role or policy";
    MAY_CHANGE "may_change" "PutObjectRetention with bypass and an earlier date of another version, under GOVERNANCE"
        => "shortened: so that below it is the lock that refuses, not a role or policy";
    DELETE_VERSION "delete_version" "DELETE of the locked version" => STAYS;
    DELETE_VERSION_BYPASS "delete_version_bypass" "DELETE of the locked version with x-amz-bypass-governance-retention"
        => STAYS;
    DELETE_OBJECTS "delete_objects" "DeleteObjects with the locked version"
        => "an error for the key, and the version stays";
    DELETE_OBJECTS_BYPASS "delete_objects_bypass" "DeleteObjects with the locked version and bypass"
        => "an error for the key, and the version stays";
    SHORTEN "shorten" "PutObjectRetention with an earlier date" => LOCK_STAYS;
    SHORTEN_BYPASS "shorten_bypass" "PutObjectRetention with an earlier date and bypass" => LOCK_STAYS;
    DOWNGRADE "downgrade" "PutObjectRetention to GOVERNANCE, with bypass" => LOCK_STAYS;
    EXTEND "extend" "PutObjectRetention with a date one minute later" => "accepted";
    MARKER "marker" "DELETE without a version" => "a delete marker; the locked version stays, or refused";
    PUT_OVER_MARKER "put_over_marker" "PUT with If-None-Match: * over the marker"
        => "stored as a new version; the locked one stays";
    DEFAULT_RETENTION "default_retention" "PUT without lock headers in a bucket with default retention"
        => BY_DEFAULT;
    HOLD_OFF "hold_off" "PUT with legal hold OFF and no mode in a bucket with default retention"
        => BY_DEFAULT;
    SUSPEND_VERSIONING "suspend_versioning" "PutBucketVersioning Suspended (set back at once)" => "refused";
}

/// The rows without which a probe says nothing about retention.
pub const ENFORCES: [&str; 9] = [
    PUT_LOCKED.name,
    READ_BACK.name,
    DELETE_VERSION.name,
    DELETE_VERSION_BYPASS.name,
    DELETE_OBJECTS.name,
    DELETE_OBJECTS_BYPASS.name,
    SHORTEN.name,
    SHORTEN_BYPASS.name,
    DOWNGRADE.name,
];
