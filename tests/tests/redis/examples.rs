//! `deploy/examples/corporate`: a real Redis, curl with tokens and certificates, and, played by the test, the identity
//! provider, a Vault's answers, and a proxy that asks for a password. The collector is away.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tests::examples::Example;
use tests::oracle::Evidence;
use tests::process::free_port;
use tests::provider::Provider;
use tests::services::{Issuer, Redis};
use tests::tapped::Certificates;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PASSWORD: &str = "gateway:secret-of-the-proxy";

/// Reads a request up to the end of its head, or of the body that its head tells.
async fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            _ => return text,
        }
    }
}

/// A Vault's login and secrets (key-value version 2), as its API documentation has them.
async fn vault(secrets: &'static [(&str, &str, &str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = request(&mut stream).await;
            let secret =
                secrets.iter().find(|(path, ..)| request.starts_with(&format!("GET /v1/kv/data/{path} ")));
            let answer = match secret {
                Some((_, key, value)) if request.to_lowercase().contains("x-vault-token: logged-in\r\n") => {
                    json!({ "data": { "data": { *key: value }, "metadata": { "version": 1 } } })
                }
                _ if request.starts_with("POST /v1/auth/approle/login ")
                    && request.contains(r#""secret_id":"s3cret""#) =>
                {
                    json!({ "auth": { "client_token": "logged-in", "lease_duration": 60 } })
                }
                _ => panic!("{request}"),
            };
            let answer = answer.to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
        }
    });
    address
}

/// A proxy that knows one password; gives the lines of who was led on.
async fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    use base64::Engine as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let led = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&led);
    let password = base64::engine::general_purpose::STANDARD.encode(PASSWORD);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (lines, password) = (Arc::clone(&lines), password.clone());
            tokio::spawn(async move {
                let head = request(&mut stream).await;
                let line = head.lines().next().unwrap_or_default().to_owned();
                if !head.contains(&password) {
                    let _ = stream.write_all(b"HTTP/1.1 407 who\r\ncontent-length: 0\r\n\r\n").await;
                    return;
                }
                let to = line.split(' ').nth(1).expect("an authority").to_owned();
                lines.lock().expect("the lines").push(line);
                let Ok(mut other) = TcpStream::connect(to).await else { return };
                let _ = stream.write_all(b"HTTP/1.1 200 led on\r\n\r\n").await;
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
            });
        }
    });
    (address, led)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and curl"]
async fn the_corporate_set_up_knows_people_and_machines_and_goes_through_the_proxy() {
    let dir = tempfile::tempdir().expect("a folder");
    let (provider, inside, issuer) =
        (Provider::start([]).await, Provider::start([]).await, Issuer::start().await);
    let redis = Redis::start();
    let vault = vault(&[
        ("llm/proxy", "user_and_password", PASSWORD),
        ("llm/otlp", "authorization", "Bearer secret-of-the-collector"),
        ("llm/openai", "api_key", "sk-secret-of-the-vault"),
    ])
    .await;
    let (proxy, led) = proxy().await;
    let mut example = Example::copy("corporate", "127.0.0.1:8443", dir.path());
    let certificates = Certificates::new();
    certificates.write(dir.path());
    for (name, made) in [
        ("gw.crt", "server.pem"),
        ("gw.key", "server.key"),
        ("clients-ca.pem", "ca.pem"),
        ("acme-ca.pem", "ca.pem"),
    ] {
        std::fs::copy(dir.path().join(made), dir.path().join(name)).expect("a file");
    }
    for (name, secret) in [("role-id", "role"), ("secret-id", "s3cret")] {
        std::fs::write(dir.path().join(name), secret).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(name), mode).expect("its mode");
    }
    let by_certificate = free_port();
    example.replace("127.0.0.1:8444", &by_certificate.to_string());
    example.replace("https://login.acme.example", &issuer.name());
    example.replace("https://vault.acme.example:8200", &format!("http://{vault}"));
    example.replace("proxy.acme.example:3128", &proxy.to_string());
    example.replace("https://otel.acme.example:4318", &format!("http://{}", free_port()));
    // Redis and collector without TLS here: `redis_quotas` and `otlp` have that.
    example.replace("rediss://redis.acme.example:6379", &format!("redis://{}", redis.address));
    example.replace("tls: { ca: acme-ca.pem }", "");
    example.replace("username: gateway", "");
    example.replace("password: { vault: { path: llm/redis, key: password } }", "");
    example.provider("https://api.openai.com", &provider.url());
    example.provider("https://llm.acme.example", &inside.url());
    let mut gateway = example.checked("");
    gateway.serve();
    let by_token = gateway.address.port();
    let token = issuer.token("affidavit", "ana@acme.example");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let curl = |port: u16, path: &str, more: &[&str]| {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}"#;
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            &file("ca.pem"),
            "-d",
            body,
        ]);
        command.args(["-H", "content-type: application/json"]).args(more);
        command.arg(format!("https://localhost:{port}/{path}/v1/chat/completions"));
        let said = tokio::task::block_in_place(|| command.output()).expect("curl");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(curl(by_token, "openai", &["-H", &bearer]), "200", "{}", gateway.log());
    assert_eq!(curl(by_token, "openai", &["-H", &format!("{bearer}x")]), "401");
    let shown = ["--cert", &file("client.pem"), "--key", &file("client.key")];
    assert_eq!(curl(by_certificate.port(), "inside", &shown), "200", "{}", gateway.log());
    assert_eq!(curl(by_certificate.port(), "inside", &[]), "000", "nobody without a certificate");
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());

    let authority = provider.url().trim_start_matches("http://").to_owned();
    let led = led.lock().expect("the lines").clone();
    assert!(!led.is_empty() && led.iter().all(|line| line.contains(&authority)), "{led:?}");
    assert_eq!(provider.seen()[0].header("authorization"), Some("Bearer sk-secret-of-the-vault"));
    assert!(redis.cli(&["KEYS", "*"]).contains("{affidavit}:"), "its counters are there");
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    let evidence = Evidence::read(&gateway);
    let callers: Vec<_> = evidence.of_kind("intent").map(|leaf| leaf["caller"]["groups"].clone()).collect();
    assert_eq!(callers[1], json!(["workloads"]), "{callers:?}");
    println!("{} tunnels", led.len());
}
