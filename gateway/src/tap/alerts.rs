//! Which leaves somebody must react to, and how much.

use evidence::tap::{TapItem, TapLeaf};
use serde_json::Value;

/// How much a leaf matters to who watches. The numbers are OCSF's `severity_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Business as usual.
    Informational = 1,
    /// An exchange failed.
    Medium = 3,
    /// A policy stood against an exchange, or a sink misses leaves.
    High = 4,
    /// Evidence is missing.
    Critical = 5,
}

impl Severity {
    /// As RFC 5424 has it.
    pub(super) fn syslog(self) -> u8 {
        match self {
            Self::Informational => 6,
            Self::Medium => 4,
            Self::High => 3,
            Self::Critical => 2,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Informational => "Informational",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

pub(super) fn of_item(item: &TapItem) -> Severity {
    match item {
        TapItem::Leaf(leaf) => of(&leaf.kind, &serde_json::from_slice(&leaf.bytes).unwrap_or(Value::Null)),
        TapItem::Missed(_) => Severity::High,
    }
}

/// The severity of a record.
pub(super) fn of(kind: &str, leaf: &Value) -> Severity {
    let text = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_str);
    let status = |key: &str| leaf.get(key).and_then(Value::as_i64).unwrap_or(0);
    let decision = text("/verdict/decision");
    match kind {
        "gap" => match text("/reason") {
            // Nothing of it was acknowledged to anybody.
            Some("torn_tail") => Severity::Medium,
            _ => Severity::Critical,
        },
        _ if decision.is_some_and(|decision| decision != "allow") => Severity::High,
        "refusal" => Severity::Medium,
        "outcome" => {
            let end = text("/end").unwrap_or_default();
            let failed = !matches!(end, "complete" | "client_abort")
                || status("provider_status") >= 400
                || status("status") >= 400;
            if failed { Severity::Medium } else { Severity::Informational }
        }
        "close" if text("/reason") != Some("shutdown") => Severity::Medium,
        _ => Severity::Informational,
    }
}

/// Whether somebody must react to it.
pub(super) fn is_alert(leaf: &TapLeaf) -> bool {
    let value = serde_json::from_slice(&leaf.bytes).unwrap_or(Value::Null);
    of(&leaf.kind, &value) > Severity::Informational
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_must_react_to_is_above_informational() {
        for (kind, leaf, wanted) in [
            ("intent", json!({}), Severity::Informational),
            ("intent", json!({ "verdict": { "decision": "allow" } }), Severity::Informational),
            ("intent", json!({ "verdict": { "decision": "would_deny" } }), Severity::High),
            ("refusal", json!({ "reason": "unauthenticated" }), Severity::Medium),
            ("refusal", json!({ "verdict": { "decision": "deny" } }), Severity::High),
            ("outcome", json!({ "end": "complete", "status": 200 }), Severity::Informational),
            ("outcome", json!({ "end": "client_abort", "status": 200 }), Severity::Informational),
            ("outcome", json!({ "end": "complete", "status": 429 }), Severity::Medium),
            ("outcome", json!({ "end": "provider_abort", "status": 200 }), Severity::Medium),
            ("gap", json!({ "reason": "torn_tail" }), Severity::Medium),
            ("gap", json!({ "reason": "loss" }), Severity::Critical),
            ("close", json!({ "reason": "shutdown" }), Severity::Informational),
            ("close", json!({ "reason": "crash" }), Severity::Medium),
            ("heartbeat", Value::Null, Severity::Informational),
        ] {
            assert_eq!(of(kind, &leaf), wanted, "{kind} {leaf}");
        }
    }
}
