//! The model in a path: where a dialect names it there, a request for another model goes to another path.

use crate::operation::{Dialect, Operation, split_verb};

/// What may stand in a segment as it is (RFC 3986 3.3), but for `%`, and for `:` which begins a verb at Google.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=@".contains(&byte)
}

fn encoded(model: &str) -> String {
    let mut out = String::with_capacity(model.len());
    for byte in model.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Operation {
    /// Whether `path` names the model, whatever the body says.
    pub fn is_model_in_path(&self, path: &str) -> bool {
        self.path_model(path).is_some()
    }

    /// `path` with `model` in the place of the one that it names; `None` where it names none.
    pub fn with_path_model(&self, path: &str, model: &str) -> Option<String> {
        self.path_model(path)?;
        let model = encoded(model);
        match self.table() {
            Dialect::Bedrock => {
                let at = path.find("/model/")? + "/model/".len();
                let end = at + path.get(at..)?.rfind('/')?;
                Some(format!("{}{model}{}", path.get(..at)?, path.get(end..)?))
            }
            Dialect::Gemini | Dialect::Vertex => {
                let mut before = "";
                let mut at = 0;
                for segment in path.split('/') {
                    if let Some((named, _)) = split_verb(segment)
                        && matches!(before, "models" | "tunedModels" | "dynamic" | "endpoints")
                    {
                        return Some(format!("{}{model}{}", path.get(..at)?, path.get(at + named.len()..)?));
                    }
                    before = segment;
                    at += segment.len() + 1;
                }
                None
            }
            _ => {
                const BEFORE: &str = "/openai/deployments/";
                let at = path.find(BEFORE)? + BEFORE.len();
                let rest = path.get(at..)?;
                let end = at + rest.find('/').unwrap_or(rest.len());
                Some(format!("{}{model}{}", path.get(..at)?, path.get(end..)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::operation::operation;

    #[test]
    fn the_model_of_a_path_is_replaced_and_read_back() {
        let cases = [
            (
                Dialect::Gemini,
                "/v1beta/models/gemini-2.5-pro:generateContent",
                "gemini-2.5-flash",
                Some("/v1beta/models/gemini-2.5-flash:generateContent"),
            ),
            (
                Dialect::Vertex,
                "/v1/projects/p/locations/l/publishers/anthropic/models/fast:streamRawPredict",
                "claude@1",
                Some("/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict"),
            ),
            (
                Dialect::Bedrock,
                "/model/fast/converse-stream",
                "arn:aws:bedrock:x:0:inference-profile/p",
                Some("/model/arn%3Aaws%3Abedrock%3Ax%3A0%3Ainference-profile%2Fp/converse-stream"),
            ),
            (
                Dialect::AzureOpenAi,
                "/openai/deployments/fast/chat/completions",
                "my gpt",
                Some("/openai/deployments/my%20gpt/chat/completions"),
            ),
            (Dialect::AzureOpenAi, "/openai/v1/chat/completions", "m", None),
            (Dialect::OpenAi, "/v1/chat/completions", "m", None),
        ];
        for (dialect, path, model, wanted) in cases {
            let operation = operation(dialect, &Method::POST, path);
            let changed = operation.with_path_model(path, model);
            assert_eq!(changed.as_deref(), wanted, "{path}");
            if let Some(changed) = changed {
                assert_eq!(operation.path_model(&changed).as_deref(), Some(model));
            }
        }
    }
}
