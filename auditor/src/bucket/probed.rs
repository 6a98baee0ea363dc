//! What the last probe of a bucket found. Object Lock is a matter of the bucket, not of a prefix: a probe speaks for
//! every prefix of the bucket, at the endpoint where it was made.

use serde::{Deserialize, Serialize};

use crate::probe::ENFORCES;
use crate::source::s3::Bucket;

/// What the last probe of a bucket found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// When, microseconds UTC.
    pub at: i64,
    /// The folder of its canaries.
    pub canaries: String,
    /// Rows in which the store did no harm to what is locked.
    pub passed: Vec<String>,
    /// Rows that say that the store does not enforce retention; empty: none does.
    pub failed: Vec<String>,
}

impl Probed {
    /// The rows that were not passed, of those without which nothing is said about retention.
    pub fn without(&self) -> Vec<&'static str> {
        ENFORCES.into_iter().filter(|row| !self.passed.iter().any(|passed| passed == row)).collect()
    }
}

/// How probed buckets are told apart in the state: bucket and endpoint, whatever the prefix.
pub fn id(bucket: &Bucket) -> String {
    match &bucket.endpoint {
        Some(endpoint) => format!("s3://{} at {endpoint}", bucket.address.bucket),
        None => format!("s3://{}", bucket.address.bucket),
    }
}
