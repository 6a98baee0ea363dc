//! CA-8: nothing that a caller or a provider writes as free text reaches a leaf.

use tests::client::{Call, send};
use tests::corpus::Line;
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;

/// Has a space, so that it can never be an identifier.
const MARKER: &str = "MARKER do-not-keep";

/// An exchange whose provider writes the marker into every field of its answer.
fn marked_line(id: &str, dialect: &str, status: u16, body: &serde_json::Value, streaming: bool) -> Line {
    let text = if streaming { format!("data: {body}\n\ndata: [DONE]\n\n") } else { body.to_string() };
    let mut headers = serde_json::json!({ "content-type": if streaming { "text/event-stream" } else { "application/json" } });
    for name in [
        "x-request-id",
        "request-id",
        "openai-organization",
        "openai-processing-ms",
        "openai-version",
        "x-ratelimit-limit-requests",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-tokens-reset",
        "retry-after",
        "server",
        "cf-ray",
        "x-should-retry",
        "set-cookie",
        "warning",
    ] {
        headers[name] = MARKER.into();
    }
    serde_json::from_value(serde_json::json!({
        "id": id, "provider": "own", "dialect": dialect, "method": "POST", "path": "/", "status": status,
        "response_headers": headers, "response_body": text, "streaming": streaming,
    }))
    .expect("a line")
}

fn mark(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = MARKER.into(),
        serde_json::Value::Array(list) => list.iter_mut().for_each(mark),
        serde_json::Value::Object(map) => map.values_mut().for_each(mark),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_text_of_callers_and_providers_never_reaches_a_leaf() {
    let mut lines = Vec::new();
    // Each answer of the own set, with every string replaced by the marker, whole and as the only event of a stream.
    for (n, line) in tests::corpus::own_lines().iter().enumerate() {
        if let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(&line.response()) {
            mark(&mut body);
            for streaming in [false, true] {
                lines.push(marked_line(
                    &format!("marked-{n}-{streaming}"),
                    &line.dialect,
                    line.status,
                    &body,
                    streaming,
                ));
            }
        }
        // Every string of each event but its type.
        for event in
            String::from_utf8_lossy(&line.response()).lines().filter_map(|l| l.strip_prefix("data: "))
        {
            if let Ok(mut body) = serde_json::from_str::<serde_json::Value>(event) {
                let kind = body["type"].clone();
                mark(&mut body);
                if kind.is_string() {
                    body["type"] = kind;
                }
                lines.push(marked_line(
                    &format!("marked-{n}-event-{}", lines.len()),
                    &line.dialect,
                    200,
                    &body,
                    true,
                ));
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    let provider = Provider::start(lines.clone()).await;
    let mut gateway = Gateway::start(dir.path(), &Setup { provider: provider.url(), ..Setup::default() });
    let coded = MARKER.replace(' ', "%20");
    let mut sent = 0;
    for line in &lines {
        let dialect = line.gateway_dialect().expect("a dialect");
        let path = if dialect == "anthropic" {
            "/anthropic/v1/messages"
        } else if line.dialect == "openai-responses" {
            "/openai/v1/responses"
        } else {
            "/openai/v1/chat/completions"
        };
        let mut request = serde_json::json!({ "model": MARKER, "user": MARKER, "safety_identifier": MARKER,
            "service_tier": MARKER, "previous_response_id": MARKER, "metadata": { "user_id": MARKER },
            "stream": line.streaming, "max_tokens": 5, "temperature": MARKER, "prompt_cache_key": MARKER,
            "messages": [{ "role": "user", "content": MARKER }], "input": MARKER, "n": MARKER,
            "tools": [{ "type": "function", "name": MARKER, "function": { "name": MARKER } }], (MARKER): MARKER });
        if line.id.ends_with("true") {
            request["tool_choice"] = MARKER.into();
        }
        let mut call = Call::post(&format!("{path}?{coded}={coded}"), &gateway.key, request.to_string())
            .header("x-replay", &line.id);
        for name in [
            "user-agent",
            "x-request-id",
            "x-client-request-id",
            "idempotency-key",
            "openai-organization",
            "anthropic-beta",
            "anthropic-version",
            "x-stainless-lang",
            "x-affidavit-purpose",
            "x-affidavit-system",
            "x-affidavit-subject",
            "x-affidavit-data-class",
            "x-no-log",
            "traceparent",
            "referer",
            "cookie",
            "x-forwarded-for",
        ] {
            call = call.header(name, MARKER);
        }
        let got = send(gateway.address, &call).await;
        assert!(got.status != 0, "{}: no answer\n{}", line.id, gateway.log());
        sent += 1;
    }
    // Refusals: before and after authentication, by path, by coding, by a name in every place.
    for (path, key, header) in [
        (format!("/openai/v1/{coded}"), gateway.key.clone(), ("content-type", MARKER)),
        (format!("/{coded}"), gateway.key.clone(), ("accept", MARKER)),
        (format!("/openai/v1/responses/{coded}"), gateway.key.clone(), ("accept", MARKER)),
        (
            format!("/azure/openai/deployments/{coded}/chat/completions"),
            gateway.key.clone(),
            ("accept", MARKER),
        ),
        ("/openai/v1/chat/completions".into(), MARKER.into(), ("accept", MARKER)),
        ("/openai/v1/chat/completions".into(), gateway.key.clone(), ("content-encoding", MARKER)),
    ] {
        send(gateway.address, &Call::post(&path, &key, MARKER).header(header.0, header.1)).await;
        sent += 1;
    }
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let evidence = Evidence::read(&gateway);
    assert!(evidence.leaves.len() > sent, "{} leaves of {sent} exchanges", evidence.leaves.len());
    for leaf in &evidence.leaves {
        let text = String::from_utf8_lossy(&leaf.leaf);
        assert!(!text.contains("MARKER") && !text.contains("do-not-keep"), "a leaf holds free text: {text}");
    }
    // The parquet files hold typed columns too: no byte of any records file may spell the marker.
    for file in evidence.files("records.parquet") {
        let bytes = std::fs::read(&file).expect("an evidence file");
        assert!(!bytes.windows(6).any(|w| w == b"MARKER"), "{} holds the marker", file.display());
    }
    // The marker was really sent and kept where it belongs: in the content.
    assert!(evidence.contents().any(|c| c.windows(MARKER.len()).any(|w| w == MARKER.as_bytes())));
    assert!(!gateway.log().contains("do-not-keep"), "the log holds free text:\n{}", gateway.log());
}
