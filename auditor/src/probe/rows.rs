//! The rows: what is tried and what must come of it.

/// A row before it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) name: &'static str,
    pub(super) did: &'static str,
    pub(super) expected: &'static str,
}

const fn ask(name: &'static str, did: &'static str, expected: &'static str) -> Ask {
    Ask { name, did, expected }
}

const STAYS: &str = "refused, and the version stays";
const LOCK_STAYS: &str = "refused, and the lock stays as it is";
const BY_DEFAULT: &str = "locked by the bucket's default, by GetObjectRetention and by HEAD";

pub(super) const PUT_LOCKED: Ask = ask(
    "put_locked",
    "PUT of a new name with COMPLIANCE, retain-until, SHA-256 and If-None-Match: *",
    "stored under a version id",
);
pub(super) const READ_BACK: Ask = ask(
    "read_back",
    "GET and GetObjectRetention of the version",
    "the bytes, COMPLIANCE, the date that was put",
);
pub(super) const HEAD_AGREES: Ask = ask(
    "head_agrees",
    "HEAD of the version, with checksums",
    "the lock that GetObjectRetention shows, and the SHA-256 of the bytes",
);
pub(super) const CLOCK: Ask =
    ask("clock", "HEAD of the version just written", "Last-Modified within 5 minutes of the auditor's clock");
pub(super) const WRONG_CHECKSUM: Ask =
    ask("wrong_checksum", "PUT of a new name with the SHA-256 of other bytes", "refused, and nothing stored");
pub(super) const PUT_AGAIN: Ask =
    ask("put_again", "the same PUT with If-None-Match: * again", "412, no second version");
pub(super) const OVERWRITE: Ask = ask(
    "overwrite",
    "PUT of the same name without If-None-Match",
    "a new version beside the locked one, or refused",
);
pub(super) const MAY_DELETE: Ask = ask(
    "may_delete",
    "DELETE with bypass of another version, under GOVERNANCE",
    "deleted: so that below it is the lock that refuses, not a role or policy",
);
pub(super) const MAY_CHANGE: Ask = ask(
    "may_change",
    "PutObjectRetention with bypass and an earlier date of another version, under GOVERNANCE",
    "shortened: so that below it is the lock that refuses, not a role or policy",
);
pub(super) const DELETE_VERSION: Ask = ask("delete_version", "DELETE of the locked version", STAYS);
pub(super) const DELETE_VERSION_BYPASS: Ask = ask(
    "delete_version_bypass",
    "DELETE of the locked version with x-amz-bypass-governance-retention",
    STAYS,
);
pub(super) const DELETE_OBJECTS: Ask = ask(
    "delete_objects",
    "DeleteObjects with the locked version",
    "an error for the key, and the version stays",
);
pub(super) const DELETE_OBJECTS_BYPASS: Ask = ask(
    "delete_objects_bypass",
    "DeleteObjects with the locked version and bypass",
    "an error for the key, and the version stays",
);
pub(super) const SHORTEN: Ask = ask("shorten", "PutObjectRetention with an earlier date", LOCK_STAYS);
pub(super) const SHORTEN_BYPASS: Ask =
    ask("shorten_bypass", "PutObjectRetention with an earlier date and bypass", LOCK_STAYS);
pub(super) const DOWNGRADE: Ask =
    ask("downgrade", "PutObjectRetention to GOVERNANCE, with bypass", LOCK_STAYS);
pub(super) const EXTEND: Ask = ask("extend", "PutObjectRetention with a date one minute later", "accepted");
pub(super) const MARKER: Ask =
    ask("marker", "DELETE without a version", "a delete marker; the locked version stays, or refused");
pub(super) const PUT_OVER_MARKER: Ask = ask(
    "put_over_marker",
    "PUT with If-None-Match: * over the marker",
    "stored as a new version; the locked one stays",
);
pub(super) const DEFAULT_RETENTION: Ask =
    ask("default_retention", "PUT without lock headers in a bucket with default retention", BY_DEFAULT);
pub(super) const HOLD_OFF: Ask =
    ask("hold_off", "PUT with legal hold OFF and no mode in a bucket with default retention", BY_DEFAULT);
pub(super) const SUSPEND_VERSIONING: Ask =
    ask("suspend_versioning", "PutBucketVersioning Suspended (set back at once)", "refused");

/// All of them, in an order in which none spoils the next.
const ALL: [Ask; 22] = [
    PUT_LOCKED,
    READ_BACK,
    HEAD_AGREES,
    CLOCK,
    WRONG_CHECKSUM,
    PUT_AGAIN,
    OVERWRITE,
    MAY_DELETE,
    MAY_CHANGE,
    DELETE_VERSION,
    DELETE_VERSION_BYPASS,
    DELETE_OBJECTS,
    DELETE_OBJECTS_BYPASS,
    SHORTEN,
    SHORTEN_BYPASS,
    DOWNGRADE,
    EXTEND,
    MARKER,
    PUT_OVER_MARKER,
    DEFAULT_RETENTION,
    HOLD_OFF,
    SUSPEND_VERSIONING,
];

/// The names of all rows, in their order.
pub const ROWS: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut n = 0;
    while n < ALL.len() {
        names[n] = ALL[n].name;
        n += 1;
    }
    names
};

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
