//! The report as JSON.

use serde_json::Value;

use crate::report::Report;

/// Writes the report. Strings from evidence are JSON strings; control characters are escaped by JSON itself, and
/// other characters that mislead readers by `\u` escapes.
///
/// # Errors
/// None in practice: every value has a JSON form.
pub fn report(report: &Report) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(report)?;
    if let Value::Object(map) = &mut value {
        map.insert("first_line".into(), Value::String(report.first_line()));
        map.insert("exit_code".into(), report.verdict.exit_code().into());
    }
    serde_json::to_string_pretty(&value).map(|text| harmless(&text))
}

/// Escapes what a terminal or a reader could be misled by, inside JSON text.
pub fn harmless(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || super::hostile::line(c.encode_utf8(&mut [0; 4])) == c.to_string() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {

    #[test]
    fn bidi_marks_in_json_are_escaped_and_read_back() {
        let text = serde_json::to_string("a\u{202e}b\u{e0041}\u{9b}").unwrap();
        let harmless = super::harmless(&text);
        assert!(harmless.is_ascii(), "{harmless}");
        assert_eq!(serde_json::from_str::<String>(&harmless).unwrap(), "a\u{202e}b\u{e0041}\u{9b}");
    }
}
