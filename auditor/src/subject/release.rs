//! Content leaves the evidence only for a reason.

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// The longest reason.
const LONGEST: usize = 500;

/// Why, and to whom, content is given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The reason, as it was typed.
    pub reason: String,
    /// How many exchanges.
    pub exchanges: u64,
}

/// Takes note that content is about to be given out; called before the first byte of it is.
///
/// # Errors
/// No reason, or one that is none.
pub fn release(reason: &str, exchanges: u64) -> anyhow::Result<Release> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > LONGEST || reason.chars().any(char::is_control) {
        bail!(
            "--reason: wanted a line of 1 to {LONGEST} bytes that says why content is read, as `access request 17`"
        );
    }
    Ok(Release { reason: reason.to_owned(), exchanges })
}
