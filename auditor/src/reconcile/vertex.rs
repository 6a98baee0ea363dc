//! Vertex AI's request-response logs, as the BigQuery table that they are written to is exported in JSON lines
//! (<https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging>). They may be a sample.

use serde_json::Value;

use super::input::{Input, Refused};
use super::{Call, Counts, Told};

/// Reads calls.
///
/// # Errors
/// What is no such log.
pub fn log(input: &Input, told: &mut Told) -> Result<(), Refused> {
    input.documents(|row| {
        let response = row.need("full_response")?;
        let answer = response.parsed()?;
        // A streamed answer is the list of its pieces; what counts stands in the last one that has it.
        let pieces: Vec<&Value> = match &answer {
            Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        let last = |key: &str| pieces.iter().rev().find_map(|piece| piece.get(key).filter(|v| !v.is_null()));
        let mut ids: Vec<String> =
            ["responseId", "id"].iter().filter_map(|key| last(key)?.as_str().map(str::to_owned)).collect();
        if let Some(id) = row.get("request_id") {
            ids.push(id.id()?);
        }
        if ids.is_empty() {
            return Err(response.refuse("an answer with `responseId` or `id`, or a row with `request_id`"));
        }
        let of = |usage: &Value, key: &str| usage.get(key).and_then(Value::as_u64);
        let sum =
            |counts: [Option<u64>; 3]| counts.iter().flatten().copied().reduce(|a, b| a.saturating_add(b));
        let counts = match (last("usageMetadata"), last("usage")) {
            (Some(usage), _) => Counts {
                input_tokens: sum([
                    of(usage, "promptTokenCount"),
                    of(usage, "toolUsePromptTokenCount"),
                    None,
                ]),
                cache_read_tokens: of(usage, "cachedContentTokenCount"),
                output_tokens: sum([
                    of(usage, "candidatesTokenCount"),
                    of(usage, "thoughtsTokenCount"),
                    None,
                ]),
                ..Counts::default()
            },
            (None, Some(usage)) => Counts {
                input_tokens: sum([
                    of(usage, "input_tokens"),
                    of(usage, "cache_read_input_tokens"),
                    of(usage, "cache_creation_input_tokens"),
                ]),
                cache_read_tokens: of(usage, "cache_read_input_tokens"),
                output_tokens: of(usage, "output_tokens"),
                ..Counts::default()
            },
            (None, None) => Counts::default(),
        };
        let model = last("modelVersion").or_else(|| last("model")).and_then(Value::as_str).map(str::to_owned);
        let model = match (model, row.get("model")) {
            (None, Some(model)) => Some(model.text()?.to_owned()),
            (model, _) => model,
        };
        let at = row.need("logging_time")?.time()?;
        told.calls.push(Call { line: row.line, ids, at, model, caller: None, counts });
        Ok(())
    })
}
