//! Whole answers under 200 that are failures, and all others, which are not.

use dialects::{FailureClass, Limits, Meter, Opened};
use serde_json::Value;

use super::every_line;
use super::support::Line;

/// What the recording itself says.
fn says_failure(line: &Line) -> bool {
    let told = |name: &str| line.expected[name] != Value::Null;
    let reason = line.expected["finish_reason"].as_str().unwrap_or_default();
    // Gemini ends a blocked prompt with no reason but this.
    let is_blocked = line.kind.starts_with("gemini") && reason.is_empty() && told("finish_detail");
    told("error_type")
        || told("error_code")
        || told("error_message")
        || is_blocked
        || matches!(reason, "guardrail_intervened" | "content_filter" | "SAFETY" | "MODEL_ARMOR")
}

#[test]
fn a_whole_answer_is_a_failure_where_the_recording_says_so_and_nowhere_else() {
    let (mut judged, mut failed, mut filtered) = (0, 0, 0);
    every_line(|line| {
        if line.status >= 400 || line.streaming || !line.operation.uses_tokens() {
            return;
        }
        let mut meter = Meter::new(line.operation, line.status, &line.headers, false, Limits::default());
        meter.feed(&line.response, &mut Vec::new());
        let found = meter.whole();
        judged += 1;
        assert_eq!(found != Opened::Well, says_failure(line), "{}: {found:?}", line.id);
        if let Opened::Failed { status, class } = found {
            failed += 1;
            assert!((400..=599).contains(&status), "{}: {status}", line.id);
            filtered += usize::from(class == Some(FailureClass::ContentFilter));
        }
    });
    println!("{judged} whole answers, {failed} of them failures, {filtered} by a filter");
    assert!(judged > 5);
    // Three recordings of a guardrail, two of Model Armor, and an error in a choice.
    assert!(judged < 1000 || (failed, filtered) == (6, 5), "{failed}, {filtered}");
}
