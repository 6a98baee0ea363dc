//! The gateway's own log lines hold no word of a body, no gateway key, no provider's key: at no level, whatever fails.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::provider::{Provider, delta, events, whole};
use crate::rig::{CREDENTIAL, Setup, read, send};

/// Words that stand in what crosses the gateway, and nowhere else.
const ASKED: &str = "zebra-asks-this";
const ANSWERED: &str = "walrus-answers-that";
const WRONG_KEY: &str = "afk_ferret0123456789ferret0123456789";
const QUERY: &str = "okapi-in-the-query";
const USER: &str = "lemur@example.com";

fn question(rest: &str) -> String {
    format!(
        "{{\"model\":\"gpt-4.1-mini\",\"user\":\"{USER}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{ASKED}\"}}]{rest}}}"
    )
}

async fn provider() -> Provider {
    Provider::start(|seen| async move {
        let asked = String::from_utf8_lossy(&seen.body).into_owned();
        if asked.contains("\"fail\"") {
            let error = format!("{{\"error\":{{\"message\":\"{ANSWERED}\",\"type\":\"invalid_request_error\"}}}}");
            return whole(400, "application/json", error);
        }
        if asked.contains("\"cut\"") {
            let (sender, response) = events();
            tokio::spawn(async move {
                sender.send(delta(ANSWERED)).await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                sender.cut().await;
            });
            return response;
        }
        whole(200, "application/json", format!("{{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{{\"message\":{{\"content\":\"{ANSWERED}\"}}}}]}}"))
    })
    .await
}

async fn traffic(process: &Process) {
    let post = |path: &str, key: &str, body: String| {
        Request::post(path)
            .header("host", "gateway")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .header("cookie", format!("session={ASKED}"))
            .body(Full::from(body))
            .unwrap()
    };
    let chat = format!("/openai/v1/chat/completions?tag={QUERY}");
    let table = [
        (chat.as_str(), process.key.as_str(), question(""), 200),
        (&chat, &process.key, question(",\"kind\":\"fail\""), 400),
        (&chat, WRONG_KEY, question(""), 401),
        (&chat, &process.key, question("").replace("gpt-4.1-mini", "o1-pro"), 403),
        (&chat, &process.key, question(",\"user\":\"twice\""), 400),
        (&chat, &process.key, format!("{{\"content\":\"{ASKED}\""), 400),
        ("/nowhere/at/all", &process.key, question(""), 404),
        ("/dead/v1/chat/completions", &process.key, question(""), 502),
        (&chat, &process.key, question(&format!(",\"pad\":\"{}\"", "p".repeat(70_000))), 413),
    ];
    for (path, key, body, status) in table {
        let (found, ..) = read(send(process.address, post(path, key, body)).await).await;
        assert_eq!(found, status, "{path}");
    }
    // The provider cuts its stream.
    let response =
        send(process.address, post(&chat, &process.key, question(",\"stream\":true,\"kind\":\"cut\""))).await;
    assert!(response.into_body().collect().await.is_err());
    // HTTP/2, whose library logs of its own.
    let stream = TcpStream::connect(process.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let mut request = post(&format!("http://gateway{chat}"), &process.key, question(""));
    request.headers_mut().remove("host");
    assert_eq!(read(sender.send_request(request).await.unwrap()).await.0, 200);
    // A head that is no HTTP, with a key in it.
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    let text = format!("POST /openai HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\n{ASKED}\r\n\r\n", process.key);
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_content_and_no_key_is_logged_at_any_level() {
    let provider = provider().await;
    for format in ["text", "json"] {
        let setup = Setup {
            limits: "{ body: 64KiB }".into(),
            policy: Some(
                "mode: enforce\ndefault: allow\nrules:\n  - { id: no-pro, effect: deny, models: [\"o1-*\"] }\n".into(),
            ),
            rest: format!("log: {{ format: {format}, filter: trace }}\n"),
            more_providers: "  - { name: dead, dialect: openai, base_url: \"http://127.0.0.1:1\", credential: { file: provider.key } }\n".into(),
            more_routes: "  - { name: dead, path: /dead, provider: dead }\n".into(),
            ..Setup::default()
        };
        let mut process = Process::start(&provider, setup).await;
        traffic(&process).await;
        process.stop().await;
        let log = process.log();
        assert!(log.contains("TRACE") && log.contains("DEBUG"), "the most is logged that can be");
        assert!(log.contains("refused") && log.contains("policy_denied"), "the exchanges are in it");
        let key = process.key.as_str();
        let secret = key.strip_prefix("afk_").unwrap();
        for word in [ASKED, ANSWERED, WRONG_KEY, QUERY, USER, CREDENTIAL, key, secret] {
            let line = log.lines().find(|line| line.contains(word));
            assert_eq!(line, None, "`{word}` is logged ({format})");
        }
        let bytes: Vec<String> = ASKED.bytes().map(|byte| byte.to_string()).collect();
        assert!(!log.contains(&bytes.join(", ")), "bytes printed as numbers");
    }
}
