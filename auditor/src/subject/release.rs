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

/// A reason as it was typed.
///
/// # Errors
/// It is none.
pub fn reason(typed: &str) -> anyhow::Result<String> {
    let reason = typed.trim();
    if reason.is_empty() || reason.len() > LONGEST || reason.chars().any(char::is_control) {
        bail!(
            "--reason: wanted a line of 1 to {LONGEST} bytes that says why content is read, as `access request 17`"
        );
    }
    Ok(reason.to_owned())
}

/// Takes note that content is about to be given out; called before the first byte of it is read.
///
/// # Errors
/// It cannot be noted: nothing may be given out.
pub fn release(reason: String, exchanges: u64) -> anyhow::Result<Release> {
    Ok(Release { reason, exchanges })
}
