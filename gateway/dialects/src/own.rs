//! The gateway's own answers, in the shape that the caller's SDK expects.

use crate::operation::{Dialect, Operation};
use crate::wire::{Framing, OwnError};

/// The JSON body of an error that the gateway itself answers. `code` is `affidavit_<reason>`.
pub fn own_error(
    dialect: Dialect,
    status: u16,
    reason: &str,
    message: &str,
    exchange: Option<&str>,
) -> Vec<u8> {
    let error = OwnError { status, code: code(reason), message, exchange };
    dialect.wire().own_error(&error).to_string().into_bytes()
}

/// The header that goes with an error of the gateway's own, where the dialect's SDKs read one.
pub fn own_error_type(dialect: Dialect, status: u16) -> Option<(&'static str, &'static str)> {
    dialect.wire().own_error_type(status)
}

/// The bytes of an event that says within a stream that the gateway cuts it; `None` where none can be put in.
///
/// `half`: the cut comes in the middle of an event, which is closed first, so that this one is read as one of its own.
pub fn own_error_event(
    operation: &Operation,
    framing: Framing,
    half: bool,
    status: u16,
    reason: &str,
    message: &str,
    exchange: Option<&str>,
) -> Option<Vec<u8>> {
    let error = OwnError { status, code: code(reason), message, exchange };
    operation.dialect().wire().own_error_event(operation, framing, half, &error)
}

fn code(reason: &str) -> String {
    format!("affidavit_{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::{Value, json};

    #[test]
    fn errors_have_the_dialects_shape() {
        let openai: Value =
            serde_json::from_slice(&own_error(Dialect::OpenAi, 403, "policy", "a \"b\"\n", Some("e")))
                .unwrap();
        assert_eq!(openai["error"]["code"], "affidavit_policy");
        assert_eq!(openai["error"]["message"], "a \"b\"\n");
        assert_eq!(openai["error"]["type"], "permission_error");
        let anthropic: Value =
            serde_json::from_slice(&own_error(Dialect::Anthropic, 503, "draining", "m", Some("e"))).unwrap();
        assert_eq!(anthropic["type"], "error");
        assert_eq!(anthropic["error"]["type"], "overloaded_error");
        assert_eq!(anthropic["request_id"], "e");
    }

    #[test]
    fn errors_of_the_further_dialects_have_their_shape() {
        let read = |dialect, status| -> Value {
            serde_json::from_slice(&own_error(dialect, status, "policy_denied", "m", Some("e"))).unwrap()
        };
        for dialect in [Dialect::Gemini, Dialect::Vertex] {
            let google = read(dialect, 403);
            assert_eq!(
                (&google["error"]["code"], &google["error"]["status"]),
                (&json!(403), &json!("PERMISSION_DENIED"))
            );
            assert_eq!(google["error"]["details"][0]["reason"], "affidavit_policy_denied");
            assert_eq!(google["error"]["details"][0]["metadata"]["exchange"], "e");
        }
        let cohere = read(Dialect::Cohere, 403);
        assert_eq!((&cohere["message"], &cohere["id"]), (&json!("m"), &json!("e")));
        assert_eq!(read(Dialect::Ollama, 403)["error"], "m");
        assert_eq!(read(Dialect::Watsonx, 403)["errors"][0]["code"], "affidavit_policy_denied");
    }

    #[test]
    fn an_error_is_the_last_element_of_what_was_streamed() {
        let event = |dialect, path, framing, half| {
            let operation = crate::operation(dialect, &Method::POST, path);
            own_error_event(&operation, framing, half, 503, "draining", "m", None)
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let gemini = "/v1beta/models/g:streamGenerateContent";
        let tail = event(Dialect::Gemini, gemini, Framing::Values, false).unwrap();
        let array: Value = serde_json::from_str(&format!("[{{}}{tail}")).unwrap();
        assert_eq!(array[1]["error"]["status"], "UNAVAILABLE");
        assert_eq!(event(Dialect::Gemini, gemini, Framing::Values, true), None);
        let line = event(Dialect::Ollama, "/api/chat", Framing::Values, true).unwrap();
        assert!(line.starts_with("\n{") && line.ends_with("}\n"), "{line}");
        let half = event(Dialect::Cohere, "/v2/chat", Framing::ServerSent, true).unwrap();
        assert!(half.starts_with("\n\nevent: message-end\ndata: {"), "{half}");
    }

    #[test]
    fn amazons_streams_are_cut_by_an_exception() {
        for path in ["/model/m/converse-stream", "/model/m/invoke-with-response-stream"] {
            let operation = crate::operation(Dialect::Bedrock, &Method::POST, path);
            let cut = |half| {
                let why = "evidence_unavailable";
                own_error_event(&operation, Framing::Frames, half, 503, why, "m", Some("e"))
            };
            assert_eq!(cut(true), None);
            let frame = cut(false).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", "application/vnd.amazon.eventstream".parse().unwrap());
            let facts = crate::response_facts(&operation, 200, &headers, &frame);
            assert_eq!(facts.error_type.as_deref(), Some("serviceUnavailableException"), "{path}");
            assert_eq!((facts.error_message.as_deref(), facts.unread), (Some("m"), None), "{path}");
        }
        let whole: Value =
            serde_json::from_slice(&own_error(Dialect::Bedrock, 403, "policy", "m", Some("e"))).unwrap();
        assert_eq!((&whole["message"], &whole["affidavit_code"]), (&"m".into(), &"affidavit_policy".into()));
        assert_eq!(
            own_error_type(Dialect::Bedrock, 403),
            Some(("x-amzn-errortype", "AccessDeniedException"))
        );
        assert_eq!(own_error_type(Dialect::OpenAi, 403), None);
    }

    #[test]
    fn error_events_are_read_as_errors_by_our_own_meter() {
        for (dialect, path) in [
            (Dialect::OpenAi, "/v1/chat/completions"),
            (Dialect::AzureOpenAi, "/openai/v1/responses"),
            (Dialect::Anthropic, "/v1/messages"),
        ] {
            let operation = crate::operation(dialect, &Method::POST, path);
            let event = own_error_event(
                &operation,
                Framing::ServerSent,
                false,
                503,
                "evidence_unavailable",
                "m",
                None,
            )
            .unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", "text/event-stream".parse().unwrap());
            let facts = crate::response_facts(&operation, 200, &headers, &event);
            assert_eq!(facts.error_code.as_deref(), Some("affidavit_evidence_unavailable"), "{path}");
            assert_eq!(facts.error_message.as_deref(), Some("m"), "{path}");
        }
    }
}
