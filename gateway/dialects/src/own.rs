//! The gateway's own answers, in the shape that the caller's SDK expects.

use serde_json::json;

use crate::bedrock;
use crate::operation::{Dialect, Operation};

/// The JSON body of an error that the gateway itself answers. `code` is `affidavit_<reason>`.
pub fn own_error(
    dialect: Dialect,
    status: u16,
    reason: &str,
    message: &str,
    exchange: Option<&str>,
) -> Vec<u8> {
    let body = match dialect {
        Dialect::OpenAi | Dialect::AzureOpenAi => {
            json!({ "error": openai_error(status, reason, message, exchange) })
        }
        Dialect::Anthropic => anthropic_error(status, reason, message, exchange),
        Dialect::Bedrock => bedrock_error(reason, message, exchange),
    };
    body.to_string().into_bytes()
}

/// The header that goes with an error of the gateway's own, where the dialect's SDKs read one.
pub fn own_error_type(dialect: Dialect, status: u16) -> Option<(&'static str, &'static str)> {
    (dialect == Dialect::Bedrock).then(|| ("x-amzn-errortype", bedrock::exception(status)))
}

/// The bytes of an event that says within a stream that the gateway cuts it.
pub fn own_error_event(
    dialect: Dialect,
    operation: &Operation,
    status: u16,
    reason: &str,
    message: &str,
    exchange: Option<&str>,
) -> Vec<u8> {
    let code = code(reason);
    match dialect {
        Dialect::Anthropic => {
            format!("event: error\ndata: {}\n\n", anthropic_error(status, reason, message, exchange))
        }
        Dialect::Bedrock if bedrock::is_stream(operation) => {
            let body = bedrock_error(reason, message, exchange).to_string();
            return bedrock::own_exception(status, body.as_bytes());
        }
        _ if operation.is_responses() => {
            let data = json!({
                "type": "error",
                "code": code,
                "message": message,
                "param": null,
                "error": openai_error(status, reason, message, exchange),
            });
            format!("event: error\ndata: {data}\n\n")
        }
        _ => format!("data: {}\n\n", json!({ "error": openai_error(status, reason, message, exchange) })),
    }
    .into_bytes()
}

fn code(reason: &str) -> String {
    format!("affidavit_{reason}")
}

fn openai_error(status: u16, reason: &str, message: &str, exchange: Option<&str>) -> serde_json::Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let mut error = json!({ "message": message, "type": kind, "param": null, "code": code(reason) });
    if let (Some(exchange), Some(object)) = (exchange, error.as_object_mut()) {
        object.insert("affidavit_exchange".into(), exchange.into());
    }
    error
}

fn anthropic_error(status: u16, reason: &str, message: &str, exchange: Option<&str>) -> serde_json::Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    let mut body =
        json!({ "type": "error", "error": { "type": kind, "message": message, "code": code(reason) } });
    if let (Some(exchange), Some(object)) = (exchange, body.as_object_mut()) {
        object.insert("request_id".into(), exchange.into());
    }
    body
}

fn bedrock_error(reason: &str, message: &str, exchange: Option<&str>) -> serde_json::Value {
    json!({ "message": message, "affidavit_code": code(reason), "affidavit_exchange": exchange })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::Value;

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
    fn amazons_streams_are_cut_by_an_exception() {
        for path in ["/model/m/converse-stream", "/model/m/invoke-with-response-stream"] {
            let operation = crate::operation(Dialect::Bedrock, &Method::POST, path);
            let frame =
                own_error_event(Dialect::Bedrock, &operation, 503, "evidence_unavailable", "m", Some("e"));
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", "application/vnd.amazon.eventstream".parse().unwrap());
            let facts = crate::response_facts(Dialect::Bedrock, &operation, 200, &headers, &frame);
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
            let event = own_error_event(dialect, &operation, 503, "evidence_unavailable", "m", None);
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", "text/event-stream".parse().unwrap());
            let facts = crate::response_facts(dialect, &operation, 200, &headers, &event);
            assert_eq!(facts.error_code.as_deref(), Some("affidavit_evidence_unavailable"), "{path}");
            assert_eq!(facts.error_message.as_deref(), Some("m"), "{path}");
        }
    }
}
