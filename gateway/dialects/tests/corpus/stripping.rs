//! Asking for usage on the caller's behalf leaves no trace: neither in the request but the option, nor in the stream.

use dialects::ask_for_usage;
use serde_json::Value;

use super::every_line;
use super::support::pass;

#[test]
fn a_body_that_asks_is_the_body_but_for_the_option() {
    let (mut asked, mut left) = (0, 0);
    every_line(|line| {
        if !line.operation.can_ask_usage() {
            return;
        }
        let Some(spliced) = ask_for_usage(&line.request) else {
            left += 1;
            if let Ok(body) = serde_json::from_slice::<Value>(&line.request) {
                assert!(
                    body["stream"] != true || body["stream_options"]["include_usage"] == true,
                    "{}: not asked",
                    line.id
                );
            }
            return;
        };
        asked += 1;
        let body: Value = serde_json::from_slice(&spliced).unwrap();
        assert_eq!(body["stream_options"]["include_usage"], true, "{}", line.id);
        let same_head = line.request.iter().zip(&spliced).take_while(|(a, b)| a == b).count();
        let same_tail =
            line.request.iter().rev().zip(spliced.iter().rev()).take_while(|(a, b)| a == b).count();
        let original: Value = serde_json::from_slice(&line.request).unwrap();
        if original.get("stream_options").is_none() {
            assert!(same_head + same_tail >= line.request.len(), "{}: more than an insertion", line.id);
        }
        let mut without = body;
        let members = without.as_object_mut().unwrap();
        members.remove("stream_options");
        let mut original = original;
        original.as_object_mut().unwrap().remove("stream_options");
        assert_eq!(without, original, "{}", line.id);
    });
    println!("{asked} bodies asked, {left} left as they are");
    assert!(asked + left > 0);
}

/// The stream that the same provider would have sent unasked, made by plain text replacement.
fn unasked(stream: &str) -> String {
    let mut out = String::new();
    for event in stream.split_inclusive("\n\n") {
        let data = event.trim_end().strip_prefix("data:").unwrap_or_default().trim_start();
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            out.push_str(event);
            continue;
        };
        if chunk["usage"].is_object()
            && chunk["choices"].as_array().is_some_and(Vec::is_empty)
            && chunk.get("error").is_none()
        {
            continue;
        }
        if chunk.get("usage").is_some_and(Value::is_null) {
            out.push_str(&event.replacen(",\"usage\":null", "", 1));
        } else {
            out.push_str(event);
        }
    }
    out
}

#[test]
fn a_stream_is_what_it_would_have_been_unasked() {
    let (mut streams, mut changed) = (0, 0);
    every_line(|line| {
        if !line.streaming || !line.operation.can_ask_usage() {
            return;
        }
        let text = String::from_utf8(line.response.clone()).unwrap();
        // Only the common spelling: the model of this test knows no other.
        if text.contains('\r') || text.contains("\"usage\": null") {
            return;
        }
        streams += 1;
        let wanted = unasked(&text);
        changed += u32::from(wanted != text);
        let asked = pass(line, &line.response, &[], true);
        let mut got = asked.forwarded.clone();
        got.extend_from_slice(&asked.held);
        assert_eq!(String::from_utf8(got).unwrap(), wanted, "{}", line.id);
        // The facts are those of the stream as it came: usage included.
        assert_eq!(asked.facts, pass(line, &line.response, &[], false).facts, "{}", line.id);
    });
    println!("{streams} streams, {changed} of them changed");
    assert!(streams > 0 && changed > 0);
}
