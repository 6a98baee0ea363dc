//! Everything of one end user, to hand over (GDPR Article 15): content as it crossed, the story and the proof of each
//! exchange, and a manifest that says what belongs to it.
//!
//! ```text
//! DIR/index.html            to read, without scripts
//!     exchanges.csv .json   the same for machines
//!     exchanges/ID/story.txt, proof.json, <position>-<part>.<ext>
//!     manifest.json         what it rests on, who got the data, and SHA-256 and length of every file
//!     manifest.json.sig     the auditor's signature over it, where a key was given; written last
//! ```
//! Nothing of other end users is in it: an exchange is taken where its own, proven records name the subject, and a data key
//! that several share is used here and never handed on.

//!
//! Records of the exchange are handed over where they tell of the exchange itself: not those of legal holds, which a person who
//! is held against must not learn of, and not an erasure that names who asked for it.

pub mod check;
pub mod folder;
pub mod last;
pub mod manifest;
pub mod page;
pub mod signed;
pub mod who;

use serde_json::Value;

/// Whether a record of a person's exchange is one for that person.
pub fn is_handed_over(leaf: &Value) -> bool {
    match leaf.get("kind").and_then(Value::as_str) {
        Some("intent" | "attempt" | "side_call" | "outcome" | "refusal") => true,
        Some("erasure") => leaf.get("actor").is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_handed_over;

    #[test]
    fn holds_unknown_kinds_and_erasures_that_name_who_asked_are_not_handed_over() {
        for kind in ["intent", "attempt", "side_call", "outcome", "refusal", "erasure"] {
            assert!(is_handed_over(&json!({ "kind": kind })), "{kind}");
        }
        for kind in ["hold", "admin", "config", "verdict"] {
            assert!(!is_handed_over(&json!({ "kind": kind })), "{kind}");
        }
        assert!(!is_handed_over(&json!({ "kind": "erasure", "actor": "mary" })));
        assert!(!is_handed_over(&json!({})) && !is_handed_over(&json!("hold")));
    }
}
