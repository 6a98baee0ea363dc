//! Asks for a stream's usage, and takes the trace of the asking back out. Every other byte stays as it is.

use std::ops::Range;

use crate::json::{boolean, offset, pick, present};

/// The body with `stream_options.include_usage` set, where it asks for a stream and not for its usage.
///
/// A pure insertion where the caller left the option out; where it says `false` or `null`, that word is replaced.
/// `None`: nothing to do, or not a body that can be read.
pub fn ask_for_usage(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let [stream, options] = pick(text, &["stream", "stream_options"])?;
    if boolean(stream) != Some(true) {
        return None;
    }
    let Some(options) = options else {
        let open = text.find('{')? + 1;
        return Some(splice(body, open..open, br#""stream_options":{"include_usage":true},"#));
    };
    let at = offset(text, options)?;
    if options == "null" {
        return Some(splice(body, at..at + 4, br#"{"include_usage":true}"#));
    }
    let [asked] = pick(options, &["include_usage"])?;
    match asked {
        Some("true") => None,
        Some(word @ ("false" | "null")) => {
            let at = offset(text, word)?;
            Some(splice(body, at..at + word.len(), b"true"))
        }
        Some(_) => None,
        None => {
            let empty = options.get(1..options.len() - 1)?.trim().is_empty();
            let member: &[u8] = if empty { br#""include_usage":true"# } else { br#""include_usage":true,"# };
            Some(splice(body, at + 1..at + 1, member))
        }
    }
}

fn splice(body: &[u8], place: Range<usize>, with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + with.len());
    out.extend_from_slice(body.get(..place.start).unwrap_or_default());
    out.extend_from_slice(with);
    out.extend_from_slice(body.get(place.end..).unwrap_or_default());
    out
}

/// What the asking added to one event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// Nothing.
    None,
    /// The whole event: usage, and no choices.
    Event,
    /// These bytes of its data: the member `"usage":null` with its comma.
    Member(Range<usize>),
}

/// What the asking added to the event with these `data`.
pub fn trace_of_asking(data: &[u8]) -> Trace {
    if memchr::memmem::find(data, b"\"usage\"").is_none() {
        return Trace::None;
    }
    let Ok(text) = std::str::from_utf8(data) else { return Trace::None };
    let Some([usage, choices, error]) = pick(text, &["usage", "choices", "error"]) else {
        return Trace::None;
    };
    match usage {
        Some("null") => member(text, usage.unwrap_or_default()).map_or(Trace::None, Trace::Member),
        Some(value) if value.starts_with('{') => {
            let empty = choices.is_some_and(|c| crate::json::count(c) == Some(0));
            if empty && present(error).is_none() { Trace::Event } else { Trace::None }
        }
        _ => Trace::None,
    }
}

/// The place of the member `"usage": value` with the one comma that goes with it.
fn member(text: &str, value: &str) -> Option<Range<usize>> {
    let at = offset(text, value)?;
    let before = text.get(..at)?.trim_end().strip_suffix(':')?.trim_end();
    let before = before.strip_suffix("\"usage\"")?;
    let end = at + value.len();
    if let Some(comma) = before.trim_end().strip_suffix(',') {
        return Some(comma.len()..end);
    }
    let rest = text.get(end..)?;
    let after = rest.trim_start();
    let after = after.strip_prefix(',').map_or(after, str::trim_start);
    Some(before.len()..text.len() - after.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_option_is_put_in() {
        let cases = [
            (r#"{"stream":true}"#, Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#)),
            (
                "\n { \"a\" : [1 ,2], \"stream\" : true }\n",
                Some(
                    "\n {\"stream_options\":{\"include_usage\":true}, \"a\" : [1 ,2], \"stream\" : true }\n",
                ),
            ),
            (
                r#"{"stream":true,"stream_options":{}}"#,
                Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream":true,"stream_options":{ "include_obfuscation":false}}"#,
                Some(
                    r#"{"stream":true,"stream_options":{"include_usage":true, "include_obfuscation":false}}"#,
                ),
            ),
            (
                r#"{"stream":true,"stream_options":null}"#,
                Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
                Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
            (r#"{"stream":true,"stream_options":"x"}"#, None),
            (r#"{"stream":false}"#, None),
            (r#"{"messages":[{"stream":true}]}"#, None),
            (r#"{"stream":true"#, None),
            ("", None),
        ];
        for (body, wanted) in cases {
            let spliced = ask_for_usage(body.as_bytes()).map(|b| String::from_utf8(b).unwrap());
            assert_eq!(spliced.as_deref(), wanted, "{body}");
        }
    }

    #[test]
    fn asking_twice_changes_nothing_more() {
        let once = ask_for_usage(br#"{"stream":true}"#).unwrap();
        assert_eq!(ask_for_usage(&once), None);
    }

    #[test]
    fn the_trace_is_found() {
        let cases = [
            (r#"{"choices":[{}],"usage":null}"#, r#"{"choices":[{}]}"#),
            (r#"{"choices":[{}],"usage":null,"obfuscation":"x"}"#, r#"{"choices":[{}],"obfuscation":"x"}"#),
            (r#"{"usage":null,"choices":[{}]}"#, r#"{"choices":[{}]}"#),
            (r#"{"choices": [{}], "usage" : null , "x": 1}"#, r#"{"choices": [{}] , "x": 1}"#),
            (r#"{ "usage" : null , "x": 1}"#, r#"{ "x": 1}"#),
            (r#"{"usage":null}"#, r#"{}"#),
            (r#"{"choices":[{"usage":null}]}"#, r#"{"choices":[{"usage":null}]}"#),
            (
                r#"{"choices":[{"a":"\"usage\":null"}],"usage":{"total_tokens":1}}"#,
                r#"{"choices":[{"a":"\"usage\":null"}],"usage":{"total_tokens":1}}"#,
            ),
        ];
        for (data, wanted) in cases {
            let left = match trace_of_asking(data.as_bytes()) {
                Trace::Member(range) => splice(data.as_bytes(), range, b""),
                Trace::None => data.as_bytes().to_vec(),
                Trace::Event => Vec::new(),
            };
            assert_eq!(String::from_utf8(left).unwrap(), wanted, "{data}");
        }
        assert_eq!(trace_of_asking(br#"{"choices":[],"usage":{"total_tokens":1}}"#), Trace::Event);
        assert_eq!(
            trace_of_asking(br#"{"error":{"code":1},"choices":[],"usage":{"total_tokens":1}}"#),
            Trace::None
        );
        assert_eq!(trace_of_asking(b"[DONE]"), Trace::None);
    }
}
