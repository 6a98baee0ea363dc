//! What passes, and what is recorded of it.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use schemas::record::{Body, End, PartName, ProviderEnd, UsageSource};

use crate::provider::{COMPLETION, DONE, Provider, delta, events, pieces, whole};
use crate::rig::{CREDENTIAL, Rig, Setup, find, read};

const QUESTION: &str =
    r#"{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"Hi"}],"temperature":0.7}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_completion_passes_byte_for_byte_and_is_recorded() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (status, headers, body) = read(rig.chat(QUESTION).await).await;
    assert_eq!((status, &body[..]), (200, COMPLETION.as_bytes()));
    let exchange = headers["x-affidavit-exchange"].to_str().unwrap().to_owned();
    assert_eq!(headers["x-request-id"], "req_test_1");
    let seen = provider.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].uri.path(), &seen[0].body[..]), ("/v1/chat/completions", QUESTION.as_bytes()));

    let evidence = rig.stop().await;
    let intent = evidence
        .records
        .iter()
        .find_map(|record| if let Body::Intent(intent) = &record.body { Some(intent) } else { None })
        .unwrap();
    assert_eq!(intent.exchange.as_str(), exchange);
    assert_eq!(intent.caller.consumer.as_ref().unwrap().value.as_str(), "tester");
    assert_eq!(intent.asked.requested_model.as_ref().unwrap().as_str(), "gpt-4.1-mini");
    assert_eq!(intent.asked.temperature.as_ref().unwrap().as_str(), "0.7");
    let parts: Vec<_> = intent.parts.iter().map(|part| (part.part, part.length)).collect();
    assert_eq!(parts[1], (PartName::ClientRequest, QUESTION.len() as u64));
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.exchange.as_str(), exchange);
    assert_eq!((outcome.end, outcome.provider_end), (End::Complete, Some(ProviderEnd::Seen)));
    assert_eq!(outcome.delivered.unwrap() + outcome.released.unwrap(), COMPLETION.len() as u64);
    assert_eq!((outcome.usage.input_tokens, outcome.usage.output_tokens), (Some(9), Some(3)));
    assert_eq!(outcome.usage.source, UsageSource::Provider);
    assert_eq!(outcome.answered.request_id.as_ref().unwrap().as_str(), "req_test_1");
    let provided = outcome.parts.iter().find(|part| part.part == PartName::ProviderResponse).unwrap();
    assert_eq!(provided.length, COMPLETION.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_passes_event_by_event_and_its_usage_is_recorded() {
    let (sender, response) = events();
    let response = std::sync::Mutex::new(Some(response));
    let provider = Provider::start(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let asked =
        r#"{"model":"gpt-4.1-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let mut response = rig.chat(asked).await;
    let mut whole = String::new();
    for text in ["one", "two", "three"] {
        let event = delta(text);
        sender.send(event.clone()).await;
        let got = crate::rig::read_bytes(response.body_mut(), event.len()).await;
        assert_eq!(got, event.as_bytes(), "each event comes before the next is sent");
        whole.push_str(&event);
    }
    let usage = "data: {\"id\":\"chatcmpl-2\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4.1-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n";
    sender.send(usage).await;
    sender.send(DONE).await;
    drop(sender);
    let (_, _, rest) = read(response).await;
    assert_eq!(rest, format!("{usage}{DONE}"));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!(outcome.end, End::Complete);
    assert_eq!((outcome.usage.input_tokens, outcome.usage.output_tokens), (Some(5), Some(7)));
    assert!(outcome.timing.first_token_us.is_some());
    let total = whole.len() + usage.len() + DONE.len();
    assert_eq!(outcome.delivered.unwrap() + outcome.released.unwrap(), total as u64);
    assert_eq!(outcome.released.unwrap(), DONE.len() as u64, "only the terminal event waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_asked_for_and_its_trace_is_taken_back_out() {
    let provider = Provider::start(|seen| async move {
        assert!(!seen.headers.contains_key("accept-encoding"));
        assert!(String::from_utf8_lossy(&seen.body).contains("include_usage"));
        let (sender, response) = events();
        tokio::spawn(async move {
            let event = delta("x").replace("}]}\n\n", "}],\"usage\":null}\n\n");
            sender.send(event).await;
            sender.send("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4.1-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n").await;
            sender.send(DONE).await;
        });
        response
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (_, _, body) = read(rig.chat(r#"{"model":"gpt-4.1-mini","stream":true,"messages":[]}"#).await).await;
    assert_eq!(String::from_utf8_lossy(&body), format!("{}{DONE}", delta("x")));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.usage.input_tokens, outcome.usage.output_tokens), (Some(5), Some(7)));
    let length = |name| outcome.parts.iter().find(|part| part.part == name).map(|part| part.length);
    assert_eq!(length(PartName::ClientResponse), Some(body.len() as u64));
    assert!(length(PartName::ProviderResponse).unwrap() > body.len() as u64);
    let intent = evidence
        .records
        .iter()
        .find_map(|record| if let Body::Intent(intent) = &record.body { Some(intent) } else { None })
        .unwrap();
    assert!(intent.parts.iter().any(|part| part.part == PartName::ProviderRequest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_pass_but_hop_by_hop_credentials_and_cookies_and_the_providers_key_is_put_in() {
    let provider = Provider::start(|_| async {
        let mut response = whole(200, "application/json", COMPLETION);
        response.headers_mut().insert("set-cookie", "a=b".parse().unwrap());
        response.headers_mut().insert("x-affidavit-exchange", "forged".parse().unwrap());
        response.headers_mut().insert("openai-processing-ms", "12".parse().unwrap());
        response
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let request = rig
        .post("/openai/v1/chat/completions?beta=%2Ftrue&x")
        .header("x-api-key", &rig.key)
        .header("cookie", "session=1")
        .header("x-forwarded-for", "10.1.2.3")
        .header("openai-new-header", "passes")
        .header("accept-encoding", "gzip")
        .body(Full::from(QUESTION))
        .unwrap();
    let (_, headers, _) = read(rig.send(request).await).await;
    assert!(!headers.contains_key("set-cookie"));
    assert_ne!(headers["x-affidavit-exchange"], "forged");
    assert_eq!(headers["openai-processing-ms"], "12");
    let seen = &provider.seen()[0];
    assert_eq!(seen.uri.path_and_query().unwrap().as_str(), "/v1/chat/completions?beta=%2Ftrue&x");
    assert_eq!(seen.headers["authorization"], format!("Bearer {CREDENTIAL}"));
    assert_eq!(seen.headers["openai-new-header"], "passes");
    assert_eq!(seen.headers["accept-encoding"], "gzip");
    for gone in ["x-api-key", "cookie", "x-forwarded-for", "x-affidavit-key"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    drop(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_providers_credential_and_the_callers_key_stand_nowhere_in_the_evidence() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let setup = Setup {
        evidence: ", encryption: off".into(),
        rest: "headers: { record_request: [\"a*\", \"x-*\", \"user-agent\"], record_response: [\"x-*\"] }\n"
            .into(),
        ..Setup::default()
    };
    let rig = Rig::start(&provider, setup).await;
    let key = rig.key.clone();
    let request =
        rig.post("/openai/v1/chat/completions").header("x-api-key", &key).body(Full::from(QUESTION)).unwrap();
    read(rig.send(request).await).await;
    let evidence = rig.stop().await;
    let mut files = Vec::new();
    find(&evidence.store, ".parquet", &mut files);
    let mut content = Vec::new();
    let references = files.iter().filter(|path| path.to_string_lossy().ends_with("reference.parquet"));
    let mut dictionaries = Vec::new();
    for path in references {
        let bytes = Bytes::from(std::fs::read(path).unwrap());
        for row in schemas::files::read_reference(&bytes, &schemas::files::Limits::default()).unwrap() {
            content.extend_from_slice(&row.bytes);
            dictionaries.extend(schemas::content::Dictionary::new(&row.bytes));
        }
    }
    for path in &files {
        let bytes = Bytes::from(std::fs::read(path).unwrap());
        let name = path.to_string_lossy();
        if name.contains(".content-") {
            for row in schemas::files::read_content(bytes, &schemas::files::Limits::default()).unwrap() {
                let row = row.unwrap();
                let origin = schemas::Origin::new(
                    path.parent().unwrap().strip_prefix(&evidence.store).unwrap().to_string_lossy(),
                )
                .unwrap();
                content.extend(schemas::content::open_row_with(&origin, &row, None, &dictionaries).unwrap());
            }
        }
    }
    let holds = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"\"content\":\"Hi\""), "the content is there at all");
    assert!(!holds(CREDENTIAL.as_bytes()));
    assert!(!holds(key.as_bytes()));
    assert!(!format!("{:?}", evidence.records).contains(CREDENTIAL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_to_switch_recording_off_is_recorded() {
    let provider = Provider::start(|_| async { whole(200, "application/json", COMPLETION) }).await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let request = rig
        .post("/openai/v1/chat/completions")
        .header("helicone-omit-request", "true")
        .header("x-affidavit-exchange", "00000000-0000-7000-8000-000000000000")
        .body(Full::from(r#"{"model":"m","messages":[],"no-log":true}"#))
        .unwrap();
    let (_, headers, _) = read(rig.send(request).await).await;
    assert_ne!(headers["x-affidavit-exchange"], "00000000-0000-7000-8000-000000000000");
    let evidence = rig.stop().await;
    let text = serde_json::to_string(&evidence.records).unwrap();
    for name in ["helicone-omit-request", "x-affidavit-exchange", "no-log"] {
        assert!(text.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_are_recorded_and_pass() {
    let provider = Provider::start(|seen| async move {
        if seen.method == Method::DELETE {
            let (_, pieces) = pieces();
            return Response::builder().status(204).body(pieces).unwrap();
        }
        whole(200, "application/json", "{}")
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let request = |method: Method| {
        Request::builder()
            .method(method)
            .uri("/openai/v1/files/file-1")
            .header("host", "gateway")
            .header("api-key", &rig.key)
            .body(Full::default())
            .unwrap()
    };
    let (status, headers, body) = read(rig.send(request(Method::DELETE)).await).await;
    assert_eq!((status, body.len()), (204, 0));
    assert!(headers.contains_key("x-affidavit-exchange"));
    let (status, _, body) = read(rig.send(request(Method::GET)).await).await;
    assert_eq!((status, &body[..]), (200, &b"{}"[..]));
    let evidence = rig.stop().await;
    assert_eq!((evidence.count("intent"), evidence.count("outcome")), (2, 2));
    assert_eq!(evidence.outcomes()[0].status, Some(204));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_error_passes_with_its_status_and_rate_limits_are_recorded() {
    let provider = Provider::start(|_| async {
        let error = r#"{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}"#;
        let mut response = whole(429, "application/json", error);
        response.headers_mut().insert("retry-after", "7".parse().unwrap());
        response.headers_mut().insert("x-ratelimit-remaining-tokens", "0".parse().unwrap());
        response
    })
    .await;
    let rig = Rig::start(&provider, Setup::default()).await;
    let (status, headers, body) = read(rig.chat(QUESTION).await).await;
    assert_eq!((status, &headers["retry-after"]), (429, &"7".parse::<http::HeaderValue>().unwrap()));
    assert!(body.starts_with(b"{\"error\""));
    let evidence = rig.stop().await;
    let outcome = evidence.outcomes()[0];
    assert_eq!((outcome.end, outcome.status), (End::Complete, Some(429)));
    assert_eq!(outcome.answered.error_code.as_ref().unwrap().as_str(), "rate_limit_exceeded");
    assert_eq!(outcome.answered.retry_after_s, Some(7));
    assert!(!outcome.rate_limits.is_empty());
    assert!(!serde_json::to_string(&evidence.records).unwrap().contains("slow down"), "CA-8");
}
