//! The fields of a recording's `expected`, where we mean to differ from one and why, and the table of all files: the same for
//! the meter (`fields.rs`) and for the running gateway (`tests/tests/programs/corpus_gateway.rs`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// All fields that `expected` has. One that a line leaves out is as `null`: the provider reported none.
pub(crate) const FIELDS: [&str; 21] = [
    "model",
    "request_model",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "billed_input_tokens",
    "billed_output_tokens",
    "billed_search_units",
    "finish_reason",
    "finish_detail",
    "tool_calls",
    "server_tool_calls",
    "error_type",
    "error_code",
    "error_message",
    "transport_input_tokens",
    "transport_output_tokens",
    "usage_regressed",
];

/// What of a line tells why a field differs.
pub(crate) struct Recorded<'a> {
    pub(crate) id: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a [u8],
    pub(crate) request: &'a [u8],
    pub(crate) expected: &'a Value,
}

/// How the facts of one line differ from its `expected`.
#[derive(Default)]
pub(crate) struct Differences {
    explained: BTreeSet<&'static str>,
    wrong: Vec<String>,
}

impl Differences {
    /// Holds what was read of every field against what the line expects: `null` is a value as any other.
    pub(crate) fn add<'a>(
        &mut self,
        line: &Recorded<'_>,
        read: impl Fn(&str) -> &'a Value,
        is_same: impl Fn(&Value, &Value) -> bool,
    ) {
        for field in line.expected.as_object().into_iter().flatten().map(|(field, _)| field.as_str()) {
            if !FIELDS.contains(&field) {
                self.wrong.push(format!("{}: `{field}` is a field that nobody compares", line.id));
            }
        }
        let null = Value::Null;
        for field in FIELDS {
            let wanted = &line.expected[field];
            let wanted = if *wanted == false { &null } else { wanted };
            let got = read(field);
            if is_same(wanted, got) {
                continue;
            }
            match explained(line, field, got, wanted) {
                Some(reason) => drop(self.explained.insert(reason)),
                None => {
                    let place = format!("{} ({} {})", line.id, line.provider, line.kind);
                    self.wrong.push(format!("{place}: {field}: got {got}, wanted {wanted}"));
                }
            }
        }
    }
}

/// Where we mean to differ, and why.
fn explained(line: &Recorded<'_>, field: &str, got: &Value, wanted: &Value) -> Option<&'static str> {
    if field == "model" && line.kind == "mistral-ocr" && wanted.is_null() {
        return Some("the answer names its model, which `expected` does not read");
    }
    if field == "server_tool_calls" && line.kind == "bedrock-invoke" && *got == 0 && wanted.is_null() {
        return Some("Anthropic's body on Bedrock shows calls of its own tools as at Anthropic");
    }
    if field != "request_model" {
        return None;
    }
    if line.kind == "watsonx-generate" && wanted.is_null() {
        return Some("the model is in `model_id`, which `expected` does not read");
    }
    let deployment = line.path.strip_prefix("/openai/deployments/").and_then(|rest| rest.split('/').next());
    let body: Value = serde_json::from_slice(line.request).unwrap_or_default();
    if deployment.is_some_and(|d| got == d) && body["model"] == *wanted {
        return Some(
            "Azure serves the deployment of the path; `expected` has the body's model, which Azure ignores",
        );
    }
    let form = format!("name=\"model\"\r\n\r\n{}\r\n", got.as_str().unwrap_or_default());
    let holds = |form: &[u8]| line.request.windows(form.len()).any(|part| part == form);
    if line.content_type.starts_with(b"multipart/") && wanted.is_null() && holds(form.as_bytes()) {
        return Some("the model is in the multipart form, which `expected` does not read");
    }
    None
}

#[derive(Clone, Copy, Default)]
struct Tally {
    lines: u32,
    exact: u32,
    explained: u32,
    wrong: u32,
}

impl Tally {
    fn row(self, name: &str) -> String {
        format!("{name:<32} {:>6} {:>6} {:>9} {:>6}\n", self.lines, self.exact, self.explained, self.wrong)
    }
}

/// Lines by file: exact, explained, wrong.
#[derive(Default)]
pub(crate) struct Table {
    files: BTreeMap<String, Tally>,
    reasons: BTreeMap<&'static str, u32>,
    wrong: Vec<String>,
}

impl Table {
    pub(crate) fn add(&mut self, file: &str, found: Differences) {
        let tally = self.files.entry(file.to_owned()).or_default();
        tally.lines += 1;
        let count = match (found.wrong.is_empty(), found.explained.is_empty()) {
            (false, _) => &mut tally.wrong,
            (true, false) => &mut tally.explained,
            (true, true) => &mut tally.exact,
        };
        *count += 1;
        for reason in found.explained {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.wrong.extend(found.wrong);
    }

    /// The table, and the reasons of what is explained.
    pub(crate) fn text(&self) -> String {
        let mut text =
            format!("{:<32} {:>6} {:>6} {:>9} {:>6}\n", "file", "lines", "exact", "explained", "wrong");
        let mut all = Tally::default();
        for (file, tally) in &self.files {
            text.push_str(&tally.row(file));
            all.lines += tally.lines;
            all.exact += tally.exact;
            all.explained += tally.explained;
            all.wrong += tally.wrong;
        }
        text.push_str(&all.row("all"));
        for (reason, count) in &self.reasons {
            text.push_str(&format!("explained {count}: {reason}\n"));
        }
        text
    }

    /// # Panics
    /// Where a field of a line differs and nothing explains it.
    pub(crate) fn assert_none_wrong(&self) {
        let shown: Vec<_> = self.wrong.iter().take(60).map(String::as_str).collect();
        assert!(shown.is_empty(), "{} fields are wrong:\n{}", self.wrong.len(), shown.join("\n"));
    }
}
